// The vectors that the loops are written in: GCC's vector extensions, as wide as the instruction set that this file is
// compiled for. Everything here has internal linkage: the linker must not hand one instruction set's copy to another.
#pragma once
#include <cstddef>
#include <cstdint>

// Floats of a vector. Given from outside, it forces a width upon an instruction set that has another, for tests.
#if !defined(SPARSEBENCH_LANES)
#if defined(__AVX512F__)
#define SPARSEBENCH_LANES 16
#elif defined(__AVX2__)
#define SPARSEBENCH_LANES 8
#else
#define SPARSEBENCH_LANES 4
#endif
#endif

namespace {

constexpr int LANES = SPARSEBENCH_LANES;
constexpr int MOST_VECTORS = 8;  // 8 sums, or 8 vectors of grad_output and 4 sums: what 16 registers hold
constexpr int SIDE = LANES < 8 ? LANES : 8;  // of the squares that are transposed in registers

template <int N>
struct Floats {
  typedef float Register __attribute__((vector_size(N * sizeof(float))));
  typedef float Memory __attribute__((vector_size(N * sizeof(float)), aligned(sizeof(float)), may_alias));
};
typedef Floats<LANES>::Register Vector;
typedef Floats<4>::Register Quad;
typedef Floats<SIDE>::Register Side;

template <int N = LANES>
inline typename Floats<N>::Register load(const float* from) {
  return *reinterpret_cast<const typename Floats<N>::Memory*>(from);
}

template <int N = LANES>
inline void store(float* to, typename Floats<N>::Register value) {
  *reinterpret_cast<typename Floats<N>::Memory*>(to) = value;
}

// x - 0 is x for every x, so GCC makes this one broadcast from memory; x + 0 it would have to add.
inline Vector splat(float value) { return value - Vector{}; }

#if SPARSEBENCH_LANES >= 8
inline Floats<8>::Register joined(Floats<4>::Register low, Floats<4>::Register high) {
  return __builtin_shufflevector(low, high, 0, 1, 2, 3, 4, 5, 6, 7);
}
#endif

#if SPARSEBENCH_LANES >= 16
inline Vector joined(Floats<8>::Register low, Floats<8>::Register high) {
  return __builtin_shufflevector(low, high, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
}
#endif

// {sum of a, of b, of c, of d}: a tree of pairs, three levels of two shuffles and an addition, then halves.
inline Quad four_sums(Floats<4>::Register a, Floats<4>::Register b, Floats<4>::Register c, Floats<4>::Register d) {
  const auto ab = __builtin_shufflevector(a, b, 0, 4, 1, 5) + __builtin_shufflevector(a, b, 2, 6, 3, 7);
  const auto cd = __builtin_shufflevector(c, d, 0, 4, 1, 5) + __builtin_shufflevector(c, d, 2, 6, 3, 7);
  return __builtin_shufflevector(ab, cd, 0, 1, 4, 5) + __builtin_shufflevector(ab, cd, 2, 3, 6, 7);
}

#if SPARSEBENCH_LANES >= 8
inline Quad four_sums(Floats<8>::Register a, Floats<8>::Register b, Floats<8>::Register c, Floats<8>::Register d) {
  const auto ab = __builtin_shufflevector(a, b, 0, 8, 1, 9, 4, 12, 5, 13) +
                  __builtin_shufflevector(a, b, 2, 10, 3, 11, 6, 14, 7, 15);
  const auto cd = __builtin_shufflevector(c, d, 0, 8, 1, 9, 4, 12, 5, 13) +
                  __builtin_shufflevector(c, d, 2, 10, 3, 11, 6, 14, 7, 15);
  const auto all = __builtin_shufflevector(ab, cd, 0, 1, 8, 9, 4, 5, 12, 13) +
                   __builtin_shufflevector(ab, cd, 2, 3, 10, 11, 6, 7, 14, 15);
  return __builtin_shufflevector(all, all, 0, 1, 2, 3) + __builtin_shufflevector(all, all, 4, 5, 6, 7);
}
#endif

#if SPARSEBENCH_LANES >= 16
// Halves last, for the fewest shuffles: those of 16 lanes have one port, and it is one of the two that multiply-adds have.
inline Quad four_sums(Vector a, Vector b, Vector c, Vector d) {
  const Vector ab = __builtin_shufflevector(a, b, 0, 16, 1, 17, 4, 20, 5, 21, 8, 24, 9, 25, 12, 28, 13, 29) +
                    __builtin_shufflevector(a, b, 2, 18, 3, 19, 6, 22, 7, 23, 10, 26, 11, 27, 14, 30, 15, 31);
  const Vector cd = __builtin_shufflevector(c, d, 0, 16, 1, 17, 4, 20, 5, 21, 8, 24, 9, 25, 12, 28, 13, 29) +
                    __builtin_shufflevector(c, d, 2, 18, 3, 19, 6, 22, 7, 23, 10, 26, 11, 27, 14, 30, 15, 31);
  const Vector all = __builtin_shufflevector(ab, cd, 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29) +
                     __builtin_shufflevector(ab, cd, 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31);
  const auto half = __builtin_shufflevector(all, all, 0, 1, 2, 3, 4, 5, 6, 7) +
                    __builtin_shufflevector(all, all, 8, 9, 10, 11, 12, 13, 14, 15);
  return __builtin_shufflevector(half, half, 0, 1, 2, 3) + __builtin_shufflevector(half, half, 4, 5, 6, 7);
}
#endif

}  // namespace
