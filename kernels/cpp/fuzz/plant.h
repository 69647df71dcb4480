// Faults that are planted on purpose: each must be found, else the fuzzer proves nothing.
#pragma once
#include <bit>
#include <cmath>
#include <cstdint>
#include <string_view>
#include <vector>

#include "tensor.h"

namespace fuzz {

enum class Plant {
  none, drop, column, offset, padding, bias, stale, precision, unwritten, guard, input, threads, swallow, overrun
};
constexpr std::string_view PLANT_NAMES[] = {"none",      "drop",      "column", "offset", "padding", "bias",   "stale",
                                            "precision", "unwritten", "guard",  "input",  "threads", "swallow", "overrun"};

// drop: the last non-zero is forgotten.
inline void plant_in_values(Plant plant, std::vector<float>& values) {
  if (plant == Plant::drop && !values.empty()) values.back() = 0.0f;
}

// column: the last non-zero is taken for its neighbour.
inline void plant_in_indices(Plant plant, const std::vector<std::int32_t>& indptr, int columns,
                             std::vector<std::int32_t>& indices) {
  if (plant != Plant::column || indices.empty()) return;
  int row = static_cast<int>(indptr.size()) - 2;
  while (indptr[row] == indptr[row + 1]) --row;
  const bool alone = indptr[row + 1] - indptr[row] == 1;
  if (indices.back() + 1 < columns) {
    ++indices.back();
  } else if (alone && indices.back() > 0) {
    --indices.back();
  }
}

// padding: what is zero in a saved packing (padding, gaps, lanes without an image) is not.
inline void plant_in_saved(Plant plant, Memory& saved) {
  if (plant != Plant::padding) return;
  for (std::int64_t i = 0; i < saved.count(); ++i)
    if (saved.data()[i] == 0.0f) saved.data()[i] = 1.0f;
}

// overrun: an input is read beyond its end, which only a sanitizer sees.
inline void plant_in_access(Plant plant, const Memory& input) {
  if (plant != Plant::overrun) return;
  [[maybe_unused]] volatile float beyond = input.data()[input.count()];
}

inline void plant_in_result(Plant plant, Tensor& result) {
  const auto& [n, c, y, x] = result.size();
  const bool any = n * c * y * x > 0;
  float* const first = result.view().data;
  if (plant == Plant::unwritten && any) result.at(n - 1, c - 1, y - 1, x - 1) = unwritten();
  if (plant == Plant::guard && result.memory().data() < first) first[-1] = 0.0f;
  if (plant == Plant::precision || plant == Plant::swallow) {
    result.each([&](auto... where) {
      float& element = result.at(where...);
      // The precision of float32 but for its last eight bits; a non-finite number that is lost.
      if (plant == Plant::precision) element = std::bit_cast<float>(std::bit_cast<std::uint32_t>(element) & 0xffffff00u);
      if (plant == Plant::swallow && !std::isfinite(element)) element = 0.0f;
    });
  }
}

// threads: the last bit of a gradient depends on how many there are.
inline void plant_in_gradient(Plant plant, int threads, Memory& gradient, std::int64_t count) {
  if (plant == Plant::threads && threads > 1 && count > 0)
    gradient.data()[0] = std::bit_cast<float>(std::bit_cast<std::uint32_t>(gradient.data()[0]) ^ 1u);
}

}  // namespace fuzz
