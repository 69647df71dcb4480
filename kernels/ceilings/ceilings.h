// The two loops that say what a machine can do at most, once per instruction set. C types only: these are called through
// a table, from code compiled for any CPU into code that only some can run.
#pragma once

struct CeilingLoops {
  // Runs `iterations` rounds of independent multiply-adds; returns how many floating-point operations that were.
  double (*multiply_add)(long iterations);
  // Reads `bytes` (a multiple of 1024) at `data` (aligned to 64) `times` over; the value depends on each of them.
  unsigned (*read)(const void* data, long bytes, long times);
};

extern "C" const CeilingLoops ceiling_loops_base;
#if defined(__x86_64__)
extern "C" const CeilingLoops ceiling_loops_avx2;
extern "C" const CeilingLoops ceiling_loops_avx512;
#endif
