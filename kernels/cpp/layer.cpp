#include "layer.h"

#include <algorithm>
#include <atomic>
#include <limits>
#include <stdexcept>

namespace sparsebench {

namespace {

std::uint64_t next_id() {
  static std::atomic<std::uint64_t> last{0};
  return ++last;
}

}  // namespace

Layer::Layer(const Shape& shape, const Csr& csr, const float* values, const Plan& plan, const Loops& loops, int height,
             int width)
    : shape_(shape), csr_(csr), plan_(plan), loops_(loops), id_(0) {
  plan_.tile = std::clamp(plan.tile, 1, loops.most_vectors);
  prepare(height, width);
  set_values(values);
}

Layer::~Layer() = default;

void Layer::prepare(int height, int width) {
  if (layout_ && layout_->down.size == height && layout_->across.size == width) return;
  auto layout = std::make_unique<Layout>(shape_, height, width, plan_.images, loops_.lanes);
  const std::int64_t most = std::max(layout->packed_input(shape_), layout->packed_grad(shape_));
  if (most > std::numeric_limits<std::int32_t>::max() / static_cast<std::int64_t>(sizeof(float)))
    throw std::length_error("packed images take more than 2 GiB, beyond offsets of 32 bits");
  Pattern pattern = forward_pattern(shape_, csr_, *layout, plan_.forward_block);
  if (layout_) {
    // The blocks are the same for every size of input, and so is the order of the entries.
    pattern.values = std::move(forward_.values);
  }
  layout_ = std::move(layout);
  forward_ = std::move(pattern);
  transposed_ = Pattern();
  columns_ = transposed_columns_ = Columns();
  has_transposed_ = fresh_transposed_ = false;
  id_ = next_id();
}

void Layer::prepare_transposed() {
  if (!has_transposed_) transposed_ = transposed_pattern(shape_, csr_, *layout_, forward_, plan_.backward_block);
  if (!fresh_transposed_) sparsebench::set_values(transposed_, forward_);
  has_transposed_ = fresh_transposed_ = true;
}

void Layer::set_values(const float* values) {
  sparsebench::set_values(forward_, values);
  fresh_transposed_ = false;
}

std::int64_t Layer::saved_size(int images, int height, int width) {
  prepare(height, width);
  return streams(images) ? 0 : layout_->packed_input(shape_) * parts(images);
}

void Layer::get_values(float* values) const { sparsebench::get_values(forward_, values); }

std::size_t Layer::bytes() const {
  return forward_.bytes() + transposed_.bytes() + columns_.bytes() + transposed_columns_.bytes();
}

}  // namespace sparsebench
