// Compiled once for every instruction set, as -DSPARSEBENCH_ISA says; the rest of the program sees only the table.
#include "loops.h"

#include "multiply.h"
#include "sample.h"
#include "stream.h"
#include "transpose.h"

#define NAMED(a, b) a##b
#define TABLE(isa) NAMED(loops_, isa)
#define QUOTED(a) #a
#define TEXT(a) QUOTED(a)

constinit const sparsebench::Loops sparsebench::TABLE(SPARSEBENCH_ISA) = {
    TEXT(SPARSEBENCH_ISA), LANES, MOST_VECTORS, multiply, sample, transpose, stream, outer,
};
