#include "layout.h"

#include <algorithm>

namespace sparsebench {

namespace {

constexpr std::int64_t LINE = 16;  // floats of a cache line

std::int64_t up(std::int64_t value, std::int64_t step) { return (value + step - 1) / step * step; }

// At least so many elements, as an odd number of cache lines: else planes would share the sets of a cache.
std::int64_t spread(std::int64_t elements) { return (((elements + LINE - 1) / LINE) | 1) * LINE; }

}  // namespace

Axis::Axis(const Shape& shape, int axis, int size)
    : size(size),
      kernel(shape.kernel[axis]),
      stride(shape.stride[axis]),
      padding(shape.padding[axis]),
      dilation(shape.dilation[axis]) {
  outputs = (size + 2 * padding - dilation * (kernel - 1) - 1) / stride + 1;
  reach = (kernel - 1) * dilation / stride;
  first = padding / stride;
  last = (size + padding - 1) / stride;
  for (int tap = 0; tap < kernel; ++tap) phases.push_back(tap * dilation % stride);
  std::sort(phases.begin(), phases.end());
  phases.erase(std::unique(phases.begin(), phases.end()), phases.end());
}

bool Axis::single() const { return size == 1 && outputs == 1 && kernel == 1 && first_pixel(phases[0]) == 0; }

int Axis::phase_index(int tap) const {
  return static_cast<int>(std::lower_bound(phases.begin(), phases.end(), tap * dilation % stride) - phases.begin());
}

Layout::Layout(const Shape& shape, int height, int width, int images, int lanes)
    : down(shape, 0, height), across(shape, 1, width), images(images), lanes(lanes), by_rows(images % lanes == 0) {
  single = down.single() && across.single();
  phases = static_cast<int>(down.phases.size() * across.phases.size());
  // One row's pixels and one side's padding.
  pitch = std::max((across.size + across.padding + across.stride - 1) / across.stride, across.outputs);
  reach = down.reach * pitch + across.reach;
  first = down.first * pitch + across.first;
  inputs = down.last * pitch + across.last - first + 1;
  outputs = (down.outputs - 1) * pitch + across.outputs;
  lead = std::max(0, reach - first);
  output_width = by_rows ? across.outputs : pitch;
  input_width = by_rows ? across.last - across.first + 1 : pitch;
  const std::int64_t side = images;
  const bool one = inputs == 1 && outputs == 1 && reach == 0 && first == 0 && by_rows;
  const std::int64_t read_outputs = up(outputs * side, lanes), read_inputs = up(inputs * side, lanes);
  const std::int64_t input_end = std::max(reach * side + read_outputs, (first + inputs) * side);
  const std::int64_t grad_end = std::max(lead * side + read_outputs, (lead + first) * side + read_inputs);
  // Planes of one position lie side by side: they are a few whole lines, and every set of the cache gets its share.
  input_stride = one ? input_end : spread(input_end);
  grad_stride = one ? grad_end : spread(grad_end);
}

std::int64_t Layout::output_lanes(int rows) const {
  if (!by_rows) return spread(std::int64_t{outputs} * images);
  return outputs == 1 ? images : spread(output_width * rows * images);
}

std::int64_t Layout::input_lanes(int rows) const {
  if (!by_rows) return spread(std::int64_t{inputs} * images);
  return inputs == 1 ? images : spread(input_width * rows * images);
}

std::vector<Tile> Layout::output_tiles(int used_images, int most_vectors) const {
  return tiles(down.outputs, across.outputs, output_width, outputs, used_images, most_vectors);
}

std::vector<Tile> Layout::input_tiles(int used_images, int most_vectors) const {
  const int width = across.last - across.first + 1, rows = down.last - down.first + 1;
  return tiles(rows, width, input_width, inputs, used_images, most_vectors);
}

std::vector<Tile> Layout::tiles(int rows, int width, std::int64_t product_width, int positions, int used_images,
                                int most_vectors) const {
  std::vector<Tile> found;
  // Of one position only the vectors that hold images are computed; else they lie between those of other positions.
  const bool alone = rows == 1 && width == 1;
  const int used = static_cast<int>(up(alone ? used_images : images, lanes));
  const int vectors = static_cast<int>(by_rows ? std::int64_t{width} * used / lanes
                                               : up(std::int64_t{positions} * images, lanes) / lanes);
  const int parts = (vectors + most_vectors - 1) / most_vectors;
  for (int row = 0; row < (by_rows ? rows : 1); ++row) {
    for (int part = 0; part < parts; ++part) {
      const std::int64_t begin = std::int64_t{vectors} * part / parts, end = std::int64_t{vectors} * (part + 1) / parts;
      const std::int64_t from = std::int64_t{row} * pitch * images, to = std::int64_t{row} * product_width * images;
      found.push_back({static_cast<std::int32_t>(from + begin * lanes), static_cast<std::int32_t>(to + begin * lanes),
                       static_cast<std::int32_t>(end - begin), row});
    }
  }
  return found;
}

}  // namespace sparsebench
