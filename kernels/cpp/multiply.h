// out[row, tile] (+)= sum over the row's non-zeros of value * panel[offset, tile]: forward and grad_input.
//
// A tile is T vectors of lanes. Its sums stay in registers over all of a row's non-zeros, so each fused multiply-add costs
// one load; index and value are read once for T of them. Two FMA pipes of four cycles each want eight sums in flight:
// narrow tiles keep two sets, for the even and the odd entries.
#pragma once
#include "loops.h"
#include "simd.h"

namespace {

using sparsebench::Product;

template <int T>
inline void add(Vector (&sums)[T], float value, const char* from) {
  // One addition here: as base plus index in every load, the sum would split each multiply-add in two on Intel's cores.
  asm("" : "+r"(from));
  const float* x = reinterpret_cast<const float*>(from);
  const Vector factor = splat(value);
  for (int t = 0; t < T; ++t) sums[t] += factor * load(x + t * LANES);
}

template <int T>
void multiply_rows(const Product& p) {
  constexpr bool TWO_SETS = T < 6;
  const std::int32_t* const offsets = p.rows.offsets;
  const float* const values = p.values;
  const char* const panel = p.rows.panel;
  float* out = p.out;
  for (int row = 0; row < p.rows.count; ++row, out += p.out_stride) {
    std::int32_t k = p.rows.starts[row];
    const std::int32_t end = p.rows.starts[row + 1];
    if (k == end && !p.first) continue;
    Vector sums[T];
    if (p.first) {
      const Vector bias = splat(p.bias ? p.bias[row] : 0.0f);
      for (int t = 0; t < T; ++t) sums[t] = bias;
    } else {
      for (int t = 0; t < T; ++t) sums[t] = load(out + t * LANES);
    }
    if constexpr (TWO_SETS) {
      Vector odd[T] = {};
      for (; k + 1 < end; k += 2) {
        add<T>(sums, values[k], panel + offsets[k]);
        add<T>(odd, values[k + 1], panel + offsets[k + 1]);
      }
      if (k < end) add<T>(sums, values[k], panel + offsets[k]);
      for (int t = 0; t < T; ++t) sums[t] += odd[t];
    } else {
      for (; k < end; ++k) add<T>(sums, values[k], panel + offsets[k]);
    }
    for (int t = 0; t < T; ++t) store(out + t * LANES, sums[t]);
  }
}

void multiply(const Product& product, int vectors) {
  switch (vectors) {
    case 1: return multiply_rows<1>(product);
    case 2: return multiply_rows<2>(product);
    case 3: return multiply_rows<3>(product);
    case 4: return multiply_rows<4>(product);
    case 5: return multiply_rows<5>(product);
    case 6: return multiply_rows<6>(product);
    case 7: return multiply_rows<7>(product);
    default: return multiply_rows<8>(product);
  }
}

}  // namespace
