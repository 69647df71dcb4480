// One bound sparse layer: forward, both gradients, new values; linear is a convolution of one position.
#pragma once
#include <cstdint>
#include <memory>

#include "copy.h"
#include "layout.h"
#include "loops.h"
#include "pattern.h"
#include "team.h"

namespace sparsebench {

// How a layer is computed; any plan gives the same result up to rounding.
struct Plan {
  int tile;            // vectors, at most loops.most_vectors
  int images;          // packed side by side: a multiple of the lanes (by rows) or fewer (flat)
  int forward_block;   // input planes of a block
  int backward_block;  // output planes of a block, in grad_input
};

struct Input {
  View x;
  int images, height, width;
};

// The columns that entries read, for products with one vector: 16 bits each where that is enough.
struct Columns {
  std::vector<std::uint16_t> narrow;
  std::vector<std::int32_t> wide;

  bool empty() const { return narrow.empty() && wide.empty(); }
  std::size_t bytes() const { return 2 * narrow.size() + 4 * wide.size(); }
};

class Layer {
 public:
  // `csr` must outlive the layer and not change; `values` [nnz] are copied. height and width are hints. This and every pass
  // throw std::length_error where packed planes would be beyond offsets of 32 bits.
  Layer(const Shape& shape, const Csr& csr, const float* values, const Plan& plan, const Loops& loops, int height, int width);
  ~Layer();

  void set_values(const float* values);
  // The values [nnz] in CSR order, as they were set last.
  void get_values(float* values) const;
  // Elements that `saved` needs for such an input: its packing, for backward.
  std::int64_t saved_size(int images, int height, int width);
  // out [images, out_features, ...]; bias [out_features], saved may be null.
  void forward(const Input& input, const float* bias, const View& out, float* saved, int threads);
  // grad_input like x, grad_values [nnz] in CSR order; either data may be null. saved: as forward filled it, or null.
  void backward(const Input& input, const View& grad_output, const View& grad_input, float* grad_values, const float* saved,
                int threads);
  // Bytes of the pattern in both directions, as far as they are built.
  std::size_t bytes() const;

 private:
  struct Part;
  struct Chunks;
  struct Tiles;
  struct Backward;
  Part part(int index, int images) const;
  template <class Unpack>
  void multiply(const Pattern& pattern, const std::vector<Tile>& tiles, std::int64_t band_width, const float* panel,
                const float* bias, const Chunks& chunks, float* product, const Team& team, Counter* counters,
                Unpack&& unpack) const;
  void prepare(int height, int width);
  void prepare_transposed();
  int parts(int images) const { return (images + plan_.images - 1) / plan_.images; }
  bool streams(int images) const;
  void stream_forward(const Input& input, const float* bias, const View& out, int threads);
  void stream_backward(const Input& input, const View& grad_output, const View& grad_input, float* grad_values, int threads);

  Shape shape_;
  Csr csr_;
  Plan plan_;
  const Loops& loops_;
  std::uint64_t id_;
  std::unique_ptr<Layout> layout_;
  Pattern forward_, transposed_;
  Columns columns_, transposed_columns_;
  bool has_transposed_ = false, fresh_transposed_ = false;
};

}  // namespace sparsebench
