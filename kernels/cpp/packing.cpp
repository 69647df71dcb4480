#include "packing.h"

#include <algorithm>
#include <cstring>

namespace sparsebench {

namespace {

// The pixels of one phase, as a part of the tensor and of the planes: `begin` are a plane's elements before the first, which
// lies in row `top` of its positions.
struct Phase {
  std::int64_t rows, columns, pixel, begin, top;
};

Phase phase_of(const Layout& layout, const View& pixels, int index, std::int64_t pitch, std::int64_t skip_down,
               std::int64_t skip_across) {
  const int across_phases = static_cast<int>(layout.across.phases.size());
  const int top = layout.down.first_pixel(layout.down.phases[index / across_phases]);
  const int left = layout.across.first_pixel(layout.across.phases[index % across_phases]);
  const auto count = [](int size, int first, int stride) { return std::max(0, (size - first + stride - 1) / stride); };
  return {count(layout.down.size, top, layout.down.stride), count(layout.across.size, left, layout.across.stride),
          top * pixels.stride[2] + left * pixels.stride[3],
          ((layout.down.position(top) - skip_down) * pitch + layout.across.position(left) - skip_across) * layout.images,
          layout.down.position(top) - skip_down};
}

// The tensor's pixels of a phase: every stride-th row and column.
View every(const View& pixels, const Layout& layout, std::int64_t pixel) {
  return {pixels.data + pixel, {pixels.stride[0], pixels.stride[1], pixels.stride[2] * layout.down.stride,
                                pixels.stride[3] * layout.across.stride}};
}

View channels_from(const View& view, int channel) { return {view.data + channel * view.stride[1], view.stride}; }

// Planes [first, last): of a single pixel, only lanes of the last vector can be no image's.
void clear_planes(const Packer& packer, float* planes, std::int64_t stride, int first, int last, bool clear) {
  if (packer.layout.by_rows && packer.layout.single) {
    const int lanes = packer.layout.lanes, end = (packer.used + lanes - 1) / lanes * lanes;
    if (packer.used == end) return;
    for (int plane = first; plane < last; ++plane)
      std::fill(planes + plane * stride + packer.used, planes + plane * stride + end, 0.0f);
  } else if (clear) {
    std::memset(planes + first * stride, 0, (last - first) * stride * sizeof(float));
  }
}

}  // namespace

void pack_input(const Packer& packer, const View& x, float* planes, const Team& team, bool clear) {
  const Layout& layout = packer.layout;
  const auto [first, last] = team.share(packer.shape.in_features);
  clear_planes(packer, planes, layout.input_stride, first * layout.phases, last * layout.phases, clear);
  for (int index = 0; index < layout.phases; ++index) {
    const Phase phase = phase_of(layout, x, index, layout.pitch, 0, 0);
    float* to = planes + (std::int64_t{first} * layout.phases + index) * layout.input_stride + phase.begin;
    copy({to, {1, layout.input_stride * layout.phases, std::int64_t{layout.pitch} * layout.images, layout.images}},
         channels_from(every(x, layout, phase.pixel), first), {packer.used, last - first, phase.rows, phase.columns}, packer.loops);
  }
}

void pack_grad(const Packer& packer, const View& grad_output, float* planes, const Team& team, bool clear) {
  const Layout& layout = packer.layout;
  const auto [first, last] = team.share(packer.shape.out_features);
  clear_planes(packer, planes, layout.grad_stride, first, last, clear);
  float* to = planes + first * layout.grad_stride + std::int64_t{layout.lead} * layout.images;
  copy({to, {1, layout.grad_stride, std::int64_t{layout.pitch} * layout.images, layout.images}}, channels_from(grad_output, first),
       {packer.used, last - first, layout.down.outputs, layout.across.outputs}, packer.loops);
}

void unpack_output(const Packer& packer, const View& out, const Lanes& product, Range channels, Range band, const Team& team) {
  const Layout& layout = packer.layout;
  const auto [begin, end] = team.share(channels.end - channels.begin);
  // Flat positions are one row here, and all rows of pixels there.
  const Range rows = layout.by_rows ? band : Range{0, layout.down.outputs};
  View to = channels_from(out, channels.begin + begin);
  to.data += rows.begin * to.stride[2];
  const View from = {const_cast<float*>(product.data) + begin * product.stride,
                     {1, product.stride, layout.output_width * layout.images, layout.images}};
  copy(to, from, {packer.used, end - begin, rows.end - rows.begin, layout.across.outputs}, packer.loops);
}

void unpack_input(const Packer& packer, const View& grad_input, const Lanes& product, Range channels, Range band,
                  const Team& team) {
  const Layout& layout = packer.layout;
  const auto [begin, end] = team.share(channels.end - channels.begin);
  const View mine = channels_from(grad_input, channels.begin + begin);
  if (layout.phases < layout.down.stride * layout.across.stride && band.begin == 0) {
    float zero = 0.0f;  // pixels that no window meets
    copy(mine, {&zero, {0, 0, 0, 0}}, {packer.used, end - begin, layout.down.size, layout.across.size}, packer.loops);
  }
  const Range rows = layout.by_rows ? band : Range{0, layout.down.last - layout.down.first + 1};
  for (int index = 0; index < layout.phases; ++index) {
    const Phase phase = phase_of(layout, mine, index, layout.input_width, layout.down.first, layout.across.first);
    // The phase's pixels lie at positions from `top` on: those that the band holds.
    const std::int64_t first = std::max<std::int64_t>(0, rows.begin - phase.top);
    const std::int64_t last = std::min<std::int64_t>(phase.rows, rows.end - phase.top);
    if (first >= last) continue;
    View to = every(mine, layout, phase.pixel);
    to.data += first * to.stride[2];
    const std::int64_t row = std::int64_t{begin} * layout.phases + index;
    const std::int64_t skipped = (first - rows.begin) * layout.input_width * layout.images;
    float* from = const_cast<float*>(product.data) + row * product.stride + phase.begin + skipped;
    copy(to, {from, {1, product.stride * layout.phases, layout.input_width * layout.images, layout.images}},
         {packer.used, end - begin, last - first, phase.columns}, packer.loops);
  }
}

}  // namespace sparsebench
