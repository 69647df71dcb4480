// What the face calls. Seconds come in, rates per second come out; `isa` is one of `ceiling_isas()`.
#pragma once
#ifdef __cplusplus
extern "C" {
#endif

// The widest instruction set this machine runs, of those compiled: "base", "avx2" or "avx512".
const char* ceiling_best_isa(void);
// Floating-point operations per second of all threads together; -1 for an instruction set that cannot run here.
double ceiling_flops(const char* isa, int threads, double seconds, int repetitions);
// Bytes read per second by all threads together, each in its own `bytes` of memory (rounded up to 1024); -1 as above,
// -2 if there is not that much memory.
double ceiling_bandwidth(const char* isa, long bytes, int threads, double seconds, int repetitions);

#ifdef __cplusplus
}
#endif
