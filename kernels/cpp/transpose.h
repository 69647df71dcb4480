// Transposes a matrix by squares in registers: how tensors become rows of lanes and back.
#pragma once
#include "loops.h"
#include "simd.h"

namespace {

#if SPARSEBENCH_LANES >= 8
inline void transpose_square(Side (&r)[8]) {
  Side a[8], b[8];
  for (int i = 0; i < 8; i += 2) {
    a[i] = __builtin_shufflevector(r[i], r[i + 1], 0, 8, 1, 9, 4, 12, 5, 13);
    a[i + 1] = __builtin_shufflevector(r[i], r[i + 1], 2, 10, 3, 11, 6, 14, 7, 15);
  }
  for (int i = 0; i < 8; i += 4) {
    for (int j = 0; j < 2; ++j) {
      b[i + 2 * j] = __builtin_shufflevector(a[i + j], a[i + j + 2], 0, 1, 8, 9, 4, 5, 12, 13);
      b[i + 2 * j + 1] = __builtin_shufflevector(a[i + j], a[i + j + 2], 2, 3, 10, 11, 6, 7, 14, 15);
    }
  }
  for (int i = 0; i < 4; ++i) {
    r[i] = __builtin_shufflevector(b[i], b[i + 4], 0, 1, 2, 3, 8, 9, 10, 11);
    r[i + 4] = __builtin_shufflevector(b[i], b[i + 4], 4, 5, 6, 7, 12, 13, 14, 15);
  }
}
#else
inline void transpose_square(Side (&r)[4]) {
  const Side a = __builtin_shufflevector(r[0], r[1], 0, 4, 1, 5), b = __builtin_shufflevector(r[0], r[1], 2, 6, 3, 7);
  const Side c = __builtin_shufflevector(r[2], r[3], 0, 4, 1, 5), d = __builtin_shufflevector(r[2], r[3], 2, 6, 3, 7);
  r[0] = __builtin_shufflevector(a, c, 0, 1, 4, 5);
  r[1] = __builtin_shufflevector(a, c, 2, 3, 6, 7);
  r[2] = __builtin_shufflevector(b, d, 0, 1, 4, 5);
  r[3] = __builtin_shufflevector(b, d, 2, 3, 6, 7);
}
#endif

inline void transpose_whole(float* to, std::ptrdiff_t to_stride, const float* from, std::ptrdiff_t from_stride) {
  Side square[SIDE];
  for (int i = 0; i < SIDE; ++i) square[i] = load<SIDE>(from + i * from_stride);
  transpose_square(square);
  for (int j = 0; j < SIDE; ++j) store<SIDE>(to + j * to_stride, square[j]);
}

// What is narrower than a square, element by element.
inline void transpose_part(float* to, std::ptrdiff_t to_stride, const float* from, std::ptrdiff_t from_stride, int across,
                           int down) {
  for (int j = 0; j < down; ++j)
    for (int i = 0; i < across; ++i) to[j * to_stride + i] = from[i * from_stride + j];
}

// Squares [i, i_end) by [j, j_end) of an `across` by `down` matrix that is at least a square wide; edges are done by a last
// square that overlaps the one before it.
inline void transpose_patch(float* to, std::ptrdiff_t to_stride, const float* from, std::ptrdiff_t from_stride, int across,
                            int down, int i, int j, int i_end, int j_end, bool across_first) {
  const auto square = [&](int i, int j) {
    const int at_i = i + SIDE <= across ? i : across - SIDE, at_j = j + SIDE <= down ? j : down - SIDE;
    transpose_whole(to + at_j * to_stride + at_i, to_stride, from + at_i * from_stride + at_j, from_stride);
  };
  if (across_first) {
    for (int b = j; b < j_end && b < down; b += SIDE)
      for (int a = i; a < i_end && a < across; a += SIDE) square(a, b);
  } else {
    for (int a = i; a < i_end && a < across; a += SIDE)
      for (int b = j; b < j_end && b < down; b += SIDE) square(a, b);
  }
}

// By patches of 16 x 16, whole cache lines on both sides. Within a patch, lines of the side with the larger stride are finished
// first: at a stride of some KiB they all fall into one set of the cache and would push each other out. From patch to patch
// that side goes on along its lines, as prefetchers do; the other one, a panel or a chunk, is in L2.
void transpose(float* to, std::ptrdiff_t to_stride, const float* from, std::ptrdiff_t from_stride, int across, int down) {
  if (across < SIDE || down < SIDE) return transpose_part(to, to_stride, from, from_stride, across, down);
  constexpr int PATCH = 16;
  const bool across_first = to_stride > from_stride;
  const auto patch = [&](int i, int j) {
    transpose_patch(to, to_stride, from, from_stride, across, down, i, j, i + PATCH, j + PATCH, across_first);
  };
  if (across_first) {
    for (int j = 0; j < down; j += PATCH)
      for (int i = 0; i < across; i += PATCH) patch(i, j);
  } else {
    for (int i = 0; i < across; i += PATCH)
      for (int j = 0; j < down; j += PATCH) patch(i, j);
  }
}

}  // namespace
