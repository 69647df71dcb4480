// Multiply-adds that wait for nothing but the multipliers, and reads that wait for nothing but the memory.
//
// 1. A sum that depends on itself takes one latency per addition: 4 cycles x 2 units = 8 vectors in flight, and where
//    there is no fused operation a multiplication and an addition after each other, 6 to 8 cycles. 12 sums with their
//    two operands fit in 16 registers, 24 in the 32 of AVX-512.
// 2. Reading is one load and one exclusive or; every CPU here does at least as many of these as it does loads. An
//    addition of floats would not: some have fewer adders than load ports.
#include "ceilings.h"

#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)

namespace {

#if defined(__AVX512F__)
constexpr int WIDTH = 16, SUMS = 24;
#elif defined(__AVX2__)
constexpr int WIDTH = 8, SUMS = 12;
#else
constexpr int WIDTH = 4, SUMS = 12;
#endif

typedef float Floats __attribute__((vector_size(4 * WIDTH)));
typedef unsigned Words __attribute__((vector_size(4 * WIDTH)));

constexpr long LINE = 1024;  // bytes per round of `read`: a whole number of vectors of any width
constexpr int READS = 8;     // loads that do not wait for each other

volatile float sink;

double multiply_add(long iterations) {
  Floats sums[SUMS], factor, term;
  for (int lane = 0; lane < WIDTH; ++lane) factor[lane] = 0.5f, term[lane] = 1.0f;
  for (int k = 0; k < SUMS; ++k) sums[k] = term * static_cast<float>(k);
  // Opaque, so that the sums cannot be worked out beforehand.
  asm volatile("" : "+m"(factor), "+m"(term));
  for (long i = 0; i < iterations; ++i) {
#pragma GCC unroll 24
    for (int k = 0; k < SUMS; ++k) sums[k] = sums[k] * factor + term;
  }
  Floats total = sums[0];
  for (int k = 1; k < SUMS; ++k) total += sums[k];
  sink = total[0];
  return 2.0 * WIDTH * SUMS * static_cast<double>(iterations);
}

unsigned read(const void* data, long bytes, long times) {
  Words seen[READS] = {};
  for (long i = 0; i < times; ++i) {
    const Words* line = static_cast<const Words*>(data);
    for (long round = 0; round < bytes / LINE; ++round, line += LINE / static_cast<long>(sizeof(Words))) {
#pragma GCC unroll 64
      for (int k = 0; k < static_cast<int>(LINE / sizeof(Words)); ++k) seen[k % READS] ^= line[k];
    }
    asm volatile("" ::: "memory");  // memory may have changed: the next time is not for nothing
  }
  Words all = seen[0];
  for (int k = 1; k < READS; ++k) all ^= seen[k];
  unsigned value = 0;
  for (int lane = 0; lane < WIDTH; ++lane) value ^= all[lane];
  return value;
}

}  // namespace

extern "C" __attribute__((visibility("hidden"))) const CeilingLoops JOIN(ceiling_loops_, SPARSEBENCH_ISA);
extern "C" const CeilingLoops JOIN(ceiling_loops_, SPARSEBENCH_ISA) = {multiply_add, read};
