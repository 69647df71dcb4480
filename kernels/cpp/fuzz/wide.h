// The loops of vectors of 16 floats, compiled for whatever this machine is: AVX-512's logic where there is no AVX-512.
#pragma once
#include "../loops.h"

namespace sparsebench {

extern const Loops loops_wide;

}  // namespace sparsebench
