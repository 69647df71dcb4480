// Tensors [images, channels, rows, columns] of any strides, in memory that shows what was written where.
#pragma once
#include <array>
#include <bit>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <numeric>
#include <utility>
#include <vector>

#include "../copy.h"
#include "draw.h"

namespace fuzz {

using sparsebench::Size;
using sparsebench::View;

constexpr std::uint32_t UNWRITTEN = 0x7fc0dead;  // a NaN that no arithmetic makes

// How a tensor's elements lie; `expanded` has strides of 0 and is for inputs only.
enum class Kind { contiguous, channels_last, batch_innermost, permuted, gaps, expanded };
constexpr const char* KIND_NAMES[] = {"contiguous", "channels-last", "batch-innermost", "permuted", "gaps", "expanded"};

inline float unwritten() { return std::bit_cast<float>(UNWRITTEN); }

// Floats that begin a given distance after a cache line and end where their allocation ends, for AddressSanitizer.
class Memory {
 public:
  Memory(std::int64_t count, int after_line) : after_line_(after_line), count_(count) {
    void* made = nullptr;
    if (posix_memalign(&made, 64, (after_line + count) * sizeof(float) + (after_line + count == 0)) != 0) std::abort();
    memory_.reset(static_cast<float*>(made));
    clear();
  }
  void clear() { std::fill_n(memory_.get(), after_line_ + count_, unwritten()); }
  float* data() const { return memory_.get() + after_line_; }
  std::int64_t count() const { return count_; }
  bool same_bits(const Memory& other) const { return std::memcmp(data(), other.data(), count_ * sizeof(float)) == 0; }

 private:
  struct Free {
    void operator()(float* memory) const { std::free(memory); }
  };
  std::unique_ptr<float, Free> memory_;
  int after_line_;
  std::int64_t count_;
};

// What is drawn of a tensor: the strides for a size, and how far before and after it memory is watched.
struct Placement {
  std::array<std::int64_t, 4> stride;
  std::int64_t reach;  // elements from the first to one after the last
  int after_line, guard;
};

inline Placement place(Kind kind, const Size& size, Draw& draw) {
  std::array<int, 4> order = {3, 2, 1, 0};  // innermost first
  if (kind == Kind::channels_last) order = {1, 3, 2, 0};
  if (kind == Kind::batch_innermost) order = {0, 3, 2, 1};
  if (kind == Kind::permuted || kind == Kind::gaps || kind == Kind::expanded)
    for (int i = 3; i > 0; --i) std::swap(order[i], order[draw.from(0, i)]);
  Placement placement{{}, 1, draw.one_of({0, 0, 1, 5, 8}), draw.one_of({0, 0, 1, 64})};
  std::int64_t stride = kind == Kind::gaps && draw.chance(0.5) ? draw.from(2, 3) : 1;
  for (int d : order) {
    placement.stride[d] = kind == Kind::expanded && draw.chance(0.4) ? 0 : stride;
    if (size[d] > 0) placement.reach += placement.stride[d] * (size[d] - 1);
    if (placement.stride[d] != 0) stride *= std::max<std::int64_t>(1, size[d]) + (kind == Kind::gaps ? draw.from(0, 2) : 0);
    // Where there is one element, any stride is as good.
    if (size[d] == 1 && draw.chance(0.3)) placement.stride[d] = draw.from(0, 5000);
  }
  if (size[0] * size[1] * size[2] * size[3] == 0) placement.reach = 0;
  return placement;
}

class Tensor {
 public:
  Tensor(const Size& size, const Placement& placement)
      : size_(size), placement_(placement), memory_(placement.reach + 2 * placement.guard, placement.after_line) {}

  const Size& size() const { return size_; }
  View view() const { return {memory_.data() + placement_.guard, placement_.stride}; }
  float& at(std::int64_t n, std::int64_t c, std::int64_t y, std::int64_t x) const {
    return memory_.data()[placement_.guard + index(n, c, y, x)];
  }
  const Memory& memory() const { return memory_; }
  void clear() { memory_.clear(); }

  // Calls visit(image, channel, row, column) for every element.
  template <class Visit>
  void each(Visit&& visit) const {
    for (std::int64_t n = 0; n < size_[0]; ++n)
      for (std::int64_t c = 0; c < size_[1]; ++c)
        for (std::int64_t y = 0; y < size_[2]; ++y)
          for (std::int64_t x = 0; x < size_[3]; ++x) visit(n, c, y, x);
  }
  // Whether all memory between, before and after the elements is as it was made.
  bool nothing_beside_written() const {
    std::vector<bool> element(memory_.count(), false);
    each([&](auto... where) { element[placement_.guard + index(where...)] = true; });
    for (std::int64_t i = 0; i < memory_.count(); ++i)
      if (!element[i] && std::bit_cast<std::uint32_t>(memory_.data()[i]) != UNWRITTEN) return false;
    return true;
  }

 private:
  std::int64_t index(std::int64_t n, std::int64_t c, std::int64_t y, std::int64_t x) const {
    const auto& s = placement_.stride;
    return n * s[0] + c * s[1] + y * s[2] + x * s[3];
  }

  Size size_;
  Placement placement_;
  Memory memory_;
};

}  // namespace fuzz
