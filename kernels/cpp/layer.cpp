#include "layer.h"

#include <algorithm>
#include <atomic>
#include <cstring>

#include "packing.h"
#include "walk.h"

namespace sparsebench {

namespace {

constexpr int MOST_STREAMED = 2;      // images: more are faster as lanes of a vector

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
  Pattern pattern = forward_pattern(shape_, csr_, *layout, plan_.forward_block);
  if (layout_) {
    // The blocks are the same for every size of input, and so is the order of the entries.
    pattern.values = std::move(forward_.values);
  }
  layout_ = std::move(layout);
  forward_ = std::move(pattern);
  transposed_ = Pattern();
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

std::size_t Layer::bytes() const { return forward_.bytes() + transposed_.bytes() + 2 * narrow_.size(); }

bool Layer::streams(int images) const {
  return images <= MOST_STREAMED && layout_->inputs == 1 && layout_->outputs == 1 && forward_.blocks.size() == 1 &&
         shape_.groups == 1 && forward_.offsets.size() > 0 && layout_->phases == 1 && csr_.indptr[shape_.out_features] > 0 &&
         shape_.kernel[0] * shape_.kernel[1] == 1;
}

// One image at a time: the weight is read once for each, in CSR order.
void Layer::stream_forward(const Input& input, const float* bias, const View& out, int threads) {
  const bool fits = shape_.in_features <= 65536;
  if (fits && narrow_.empty()) narrow_.assign(csr_.indices, csr_.indices + csr_.indptr[shape_.out_features]);
  float* contiguous = scratch_of_this_thread(threads)[0].input.reserve(shape_.in_features + shape_.out_features);
  scratch_of_this_thread(threads)[0].input.claim(0, 0);
  float* result = contiguous + shape_.in_features;
  for (int image = 0; image < input.images; ++image) {
    const View x = images_from(input.x, image), to = images_from(out, image);
    copy({contiguous, {0, 1, 0, 0}}, x, {1, shape_.in_features, 1, 1}, loops_);
    Counter counter;
    together(threads, [&](const Team& team) {
      take_shares(counter, team, forward_, [&](Range rows) {
        const int first = rows.begin;
        loops_.stream({rows.end - first, csr_.indptr + first, fits ? narrow_.data() : nullptr, csr_.indices, forward_.values.data()},
                      contiguous, bias ? bias + first : nullptr, result + first);
      });
    });
    copy(to, {result, {0, 1, 0, 0}}, {1, shape_.out_features, 1, 1}, loops_);
  }
}

}  // namespace sparsebench
