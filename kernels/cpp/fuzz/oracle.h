// What a call must give: the definition of a convolution and of its gradients, term by term, in double precision.
//
// It shares nothing with the kernels: no packing, no offsets, no order of loops, no code.
#pragma once
#include <cmath>
#include <cstdint>
#include <vector>

#include "problem.h"
#include "tensor.h"

namespace fuzz {

// One sum: its value, the sum of its terms' magnitudes, and how many terms it has.
struct Sum {
  double value = 0, magnitude = 0;
  std::int64_t terms = 0;

  void add(double term) {
    value += term;
    magnitude += std::fabs(term);
    ++terms;
  }
  // Whether a float32 result is as near as docs and contract promise: 8 eps sqrt(K) sum|terms|. A non-finite sum must be
  // non-finite; `lenient`: next to non-finite inputs, a finite one may be NaN, as in a dense kernel (0 * inf).
  bool allows(float got, bool lenient) const {
    if (!std::isfinite(value)) return !std::isfinite(got);
    if (lenient && std::isnan(got)) return true;
    return std::fabs(got - value) <= allowed();
  }
  double allowed() const { return 8 * 0x1p-23 * std::sqrt(static_cast<double>(terms)) * magnitude; }
};

struct Expected {
  std::vector<Sum> out, grad_input, grad_values;  // as [images][channels][rows][columns]; grad_values in CSR order
};

inline Expected expect(const Weight& weight, const std::vector<float>& values, const Tensor& x, const Tensor& grad_output,
                       const float* bias) {
  const Shape& s = weight.shape;
  const auto [images, channels, height, width] = x.size();
  const auto [also_images, features, out_height, out_width] = grad_output.size();
  const int in_of_group = s.in_features / s.groups, out_of_group = s.out_features / s.groups;
  Expected expected;
  expected.out.resize(images * features * out_height * out_width);
  expected.grad_input.resize(images * channels * height * width);
  expected.grad_values.resize(values.size());
  std::size_t at = 0;
  for (int n = 0; n < images; ++n)
    for (int o = 0; o < features; ++o)
      for (int out_y = 0; out_y < out_height; ++out_y)
        for (int out_x = 0; out_x < out_width; ++out_x) {
          Sum& out = expected.out[at++];
          const double grad = grad_output.at(n, o, out_y, out_x);
          if (bias) out.add(bias[o]);
          for (std::int32_t k = weight.indptr[o]; k < weight.indptr[o + 1]; ++k) {
            // column = (channel within the group * kernel height + ky) * kernel width + kx
            const int kx = weight.indices[k] % s.kernel[1];
            const int ky = weight.indices[k] / s.kernel[1] % s.kernel[0];
            const int channel = o / out_of_group * in_of_group + weight.indices[k] / s.kernel[1] / s.kernel[0];
            const std::int64_t in_y = std::int64_t{out_y} * s.stride[0] + ky * s.dilation[0] - s.padding[0];
            const std::int64_t in_x = std::int64_t{out_x} * s.stride[1] + kx * s.dilation[1] - s.padding[1];
            if (in_y < 0 || in_y >= height || in_x < 0 || in_x >= width) continue;
            const double pixel = x.at(n, channel, in_y, in_x), value = values[k];
            out.add(value * pixel);
            expected.grad_input[((n * channels + channel) * height + in_y) * width + in_x].add(value * grad);
            expected.grad_values[k].add(pixel * grad);
          }
        }
  return expected;
}

}  // namespace fuzz
