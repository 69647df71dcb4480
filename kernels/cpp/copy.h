// Copies four-dimensional tensors of any strides, by rows or by squares transposed in registers.
#pragma once
#include <array>
#include <cstdint>

#include "loops.h"

namespace sparsebench {

// A tensor [images, channels, rows, columns], strides in elements.
struct View {
  float* data;
  std::array<std::int64_t, 4> stride;
};

// The tensor from image `begin` on.
inline View images_from(const View& view, std::int64_t begin) { return {view.data + begin * view.stride[0], view.stride}; }

typedef std::array<std::int64_t, 4> Size;

// to[...] = from[...]; neither overlaps the other.
void copy(const View& to, const View& from, const Size& size, const Loops& loops);

}  // namespace sparsebench
