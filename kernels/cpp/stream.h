// Products with one vector: out = bias + W x, and the gradient of the values. Every weight is used once, so what counts is how
// few bytes it takes and how many loads of x are in flight.
#pragma once
#include "loops.h"
#include "simd.h"

namespace {

using sparsebench::Stream;

// Four columns: of narrow ones, one load brings all four.
inline Quad gather_four(const float* x, const std::uint16_t* columns) {
  std::uint64_t four;
  __builtin_memcpy(&four, columns, sizeof four);
  return Quad{x[four & 0xffff], x[four >> 16 & 0xffff], x[four >> 32 & 0xffff], x[four >> 48]};
}

inline Quad gather_four(const float* x, const std::int32_t* columns) {
  return Quad{x[columns[0]], x[columns[1]], x[columns[2]], x[columns[3]]};
}

template <class Index>
inline Vector gather(const float* x, const Index* columns) {
#if SPARSEBENCH_LANES >= 16
  return joined(joined(gather_four(x, columns), gather_four(x, columns + 4)),
                  joined(gather_four(x, columns + 8), gather_four(x, columns + 12)));
#elif SPARSEBENCH_LANES >= 8
  return joined(gather_four(x, columns), gather_four(x, columns + 4));
#else
  return gather_four(x, columns);
#endif
}

// Loads of x, put together in registers, and one multiply-add for all of them: scalar code would load each value alone, too.
template <class Index>
inline void stream_rows(const Stream& s, const Index* columns, const float* x, const float* bias, float* out) {
  for (int row = 0; row < s.rows; ++row) {
    std::int32_t k = s.starts[row];
    const std::int32_t end = s.starts[row + 1];
    Vector even = {}, odd = {};
    for (; k + 2 * LANES <= end; k += 2 * LANES) {
      even += load(s.values + k) * gather(x, columns + k);
      odd += load(s.values + k + LANES) * gather(x, columns + k + LANES);
    }
    for (; k + LANES <= end; k += LANES) even += load(s.values + k) * gather(x, columns + k);
    const Quad four = four_sums(even, odd, Vector{}, Vector{});
    float sum = (bias ? bias[row] : 0.0f) + four[0] + four[1];
    for (; k < end; ++k) sum += s.values[k] * x[columns[k]];
    out[row] = sum;
  }
}

template <class Index>
inline void outer_rows(const Stream& s, const Index* columns, const float* x, const float* grad_output, float* grad_values) {
  for (int row = 0; row < s.rows; ++row) {
    std::int32_t k = s.starts[row];
    const std::int32_t end = s.starts[row + 1];
    const Vector factor = splat(grad_output[row]);
    for (; k + LANES <= end; k += LANES)
      store(grad_values + k, load(grad_values + k) + factor * gather(x, columns + k));
    for (; k < end; ++k) grad_values[k] += grad_output[row] * x[columns[k]];
  }
}

void stream(const Stream& s, const float* x, const float* bias, float* out) {
  if (s.narrow) return stream_rows(s, s.narrow, x, bias, out);
  return stream_rows(s, s.wide, x, bias, out);
}

void outer(const Stream& s, const float* x, const float* grad_output, float* grad_values) {
  if (s.narrow) return outer_rows(s, s.narrow, x, grad_output, grad_values);
  return outer_rows(s, s.wide, x, grad_output, grad_values);
}

}  // namespace
