// The passes of a linear layer for one or two vectors: no packing, every weight is read once for each of them.
#include <algorithm>

#include "layer.h"
#include "walk.h"

namespace sparsebench {

namespace {

constexpr int MOST_STREAMED = 2;  // more are faster as lanes of a vector
constexpr int MOST_NARROW = 65536;

template <class Column>
void fill(Columns& columns, int count, std::int64_t entries, Column&& column) {
  if (count <= MOST_NARROW) {
    columns.narrow.resize(entries);
    for (std::int64_t k = 0; k < entries; ++k) columns.narrow[k] = static_cast<std::uint16_t>(column(k));
  } else {
    columns.wide.resize(entries);
    for (std::int64_t k = 0; k < entries; ++k) columns.wide[k] = static_cast<std::int32_t>(column(k));
  }
}

Stream stream_of(const Pattern& pattern, const Columns& columns, Range rows) {
  return {rows.end - rows.begin, pattern.starts.data() + rows.begin, columns.narrow.empty() ? nullptr : columns.narrow.data(),
          columns.wide.data(), pattern.values.data()};
}

}  // namespace

// One position, one block, one entry a column: then entries lie in CSR order, and its transpose's.
bool Layer::streams(int images) const {
  return images <= MOST_STREAMED && layout_->single && shape_.groups == 1 && forward_.blocks.size() == 1;
}

void Layer::stream_forward(const Input& input, const float* bias, const View& out, int threads) {
  const std::int64_t entries = forward_.offsets.size();
  if (columns_.empty()) fill(columns_, shape_.in_features, entries, [&](std::int64_t k) { return csr_.indices[k]; });
  Buffer& buffer = scratch_of_this_thread(threads)[0].product;
  float* const x = buffer.reserve(shape_.in_features + shape_.out_features);
  float* const result = x + shape_.in_features;
  for (int image = 0; image < input.images; ++image) {
    copy({x, {0, 1, 0, 0}}, images_from(input.x, image), {1, shape_.in_features, 1, 1}, loops_);
    Counter counter;
    together(threads, [&](const Team& team) {
      take_shares(counter, team, forward_, [&](Range rows) {
        loops_.stream(stream_of(forward_, columns_, rows), x, bias ? bias + rows.begin : nullptr, result + rows.begin);
      });
    });
    copy(images_from(out, image), {result, {0, 1, 0, 0}}, {1, shape_.out_features, 1, 1}, loops_);
  }
}

void Layer::stream_backward(const Input& input, const View& grad_output, const View& grad_input, float* grad_values,
                            int threads) {
  const std::int64_t entries = forward_.offsets.size();
  if (columns_.empty()) fill(columns_, shape_.in_features, entries, [&](std::int64_t k) { return csr_.indices[k]; });
  if (grad_input.data && transposed_columns_.empty())
    fill(transposed_columns_, shape_.out_features, entries,
         [&](std::int64_t k) { return transposed_.offsets[k] / (4 * layout_->grad_stride); });
  Buffer& buffer = scratch_of_this_thread(threads)[0].product;
  float* const x = buffer.reserve(2 * std::int64_t{shape_.in_features} + shape_.out_features);
  float* const result = x + shape_.in_features;
  float* const grad = result + shape_.in_features;
  for (int image = 0; image < input.images; ++image) {
    copy({x, {0, 1, 0, 0}}, images_from(input.x, image), {1, shape_.in_features, 1, 1}, loops_);
    copy({grad, {0, 1, 0, 0}}, images_from(grad_output, image), {1, shape_.out_features, 1, 1}, loops_);
    Counter values, inputs;
    together(threads, [&](const Team& team) {
      if (grad_values)
        take_shares(values, team, forward_, [&](Range rows) {
          loops_.outer(stream_of(forward_, columns_, rows), x, grad + rows.begin, grad_values);
        });
      if (grad_input.data)
        take_shares(inputs, team, transposed_, [&](Range rows) {
          loops_.stream(stream_of(transposed_, transposed_columns_, rows), grad, nullptr, result + rows.begin);
        });
    });
    if (grad_input.data) copy(images_from(grad_input, image), {result, {0, 1, 0, 0}}, {1, shape_.in_features, 1, 1}, loops_);
  }
}

}  // namespace sparsebench
