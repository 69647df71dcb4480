// out = bias + W x for one vector x: every weight is read once, so what counts is how few bytes it takes and how many
// loads of x are in flight.
#pragma once
#include "loops.h"
#include "simd.h"

namespace {

using sparsebench::Stream;

template <class Index>
inline void stream_rows(const Stream& s, const Index* columns, const float* x, const float* bias, float* out) {
  for (int row = 0; row < s.rows; ++row) {
    std::int32_t k = s.starts[row];
    const std::int32_t end = s.starts[row + 1];
    float a = 0, b = 0, c = 0, d = 0;
    for (; k + 3 < end; k += 4) {
      a += s.values[k] * x[columns[k]];
      b += s.values[k + 1] * x[columns[k + 1]];
      c += s.values[k + 2] * x[columns[k + 2]];
      d += s.values[k + 3] * x[columns[k + 3]];
    }
    for (; k < end; ++k) a += s.values[k] * x[columns[k]];
    out[row] = (bias ? bias[row] : 0.0f) + ((a + b) + (c + d));
  }
}

void stream(const Stream& s, const float* x, const float* bias, float* out) {
  if (s.narrow) return stream_rows(s, s.narrow, x, bias, out);
  return stream_rows(s, s.wide, x, bias, out);
}

}  // namespace
