// grad_values[entry] += sum over the tile's lanes of grad_output[row, lane] * panel[offset, lane]: the gradient of the values.
//
// The row's tile of grad_output stays in registers. Four entries at a time make four vector sums, which a tree of shuffles
// turns into one vector of four: no branch and no horizontal sum per non-zero.
#pragma once
#include "loops.h"
#include "simd.h"

namespace {

using sparsebench::Sample;

template <int T>
inline Vector dot(const Vector (&grad)[T], const char* from) {
  const float* x = reinterpret_cast<const float*>(from);
  Vector sum = grad[0] * load(x);
  for (int t = 1; t < T; ++t) sum += grad[t] * load(x + t * LANES);
  return sum;
}

template <int T>
void sample_rows(const Sample& s) {
  const char* const panel = s.rows.panel;
  const float* grad_output = s.grad_output;
  for (int row = 0; row < s.rows.count; ++row, grad_output += s.grad_stride) {
    const std::int32_t* offset = s.rows.offsets + s.rows.starts[row];
    const std::int32_t* const end = s.rows.offsets + s.rows.starts[row + 1];
    if (offset == end) continue;
    float* to = s.grad_values + s.targets[row];
    Vector grad[T];
    for (int t = 0; t < T; ++t) grad[t] = load(grad_output + t * LANES);
    for (; end - offset >= 4; offset += 4, to += 4) {
      const Quad four = four_sums(dot<T>(grad, panel + offset[0]), dot<T>(grad, panel + offset[1]),
                             dot<T>(grad, panel + offset[2]), dot<T>(grad, panel + offset[3]));
      store<4>(to, load<4>(to) + four);
    }
    if (const int rest = static_cast<int>(end - offset); rest > 0) {
      const Vector first = dot<T>(grad, panel + offset[0]);
      const Vector second = rest > 1 ? dot<T>(grad, panel + offset[1]) : first;
      const Vector third = rest > 2 ? dot<T>(grad, panel + offset[2]) : second;
      const Quad some = four_sums(first, second, third, third);
      for (int i = 0; i < rest; ++i) to[i] += some[i];
    }
  }
}

void sample(const Sample& sample, int vectors) {
  switch (vectors) {
    case 1: return sample_rows<1>(sample);
    case 2: return sample_rows<2>(sample);
    case 3: return sample_rows<3>(sample);
    case 4: return sample_rows<4>(sample);
    case 5: return sample_rows<5>(sample);
    case 6: return sample_rows<6>(sample);
    case 7: return sample_rows<7>(sample);
    default: return sample_rows<8>(sample);
  }
}

}  // namespace
