#include "layer.h"

#include <algorithm>
#include <atomic>
#include <cstring>

#include "packing.h"
#include "team.h"

namespace sparsebench {

namespace {

// Images that are packed together.
struct Part {
  int index, begin, used;
  bool clear_input, clear_grad;  // whether the scratch may hold anything but this layer's padding
};

struct Pieces {
  Counter product, values;
};

constexpr int MOST_STREAMED = 2;      // images: more are faster as lanes of a vector
constexpr int PIECES_OF_A_MEMBER = 4;  // so that a member that is held up leaves its pieces to the others

std::uint64_t next_id() {
  static std::atomic<std::uint64_t> last{0};
  return ++last;
}

// Calls body(tile, first row, last row) for every piece that this member takes: all tiles of a share of the rows where there
// are few tiles, else one tile of all rows.
template <class Body>
void take_pieces(Pieces& pieces, const Team& team, const Pattern& pattern, int tiles, Body&& body) {
  const int wanted = team.size == 1 ? 1 : team.size * PIECES_OF_A_MEMBER;
  const int shares = std::max(1, (wanted + tiles - 1) / tiles);
  for (int piece = pieces.product.next(); piece < shares * tiles; piece = pieces.product.next()) {
    const auto [begin, end] = pattern.share(piece % shares, shares);
    body(piece / shares, begin, end);
  }
}

// Calls body(first row, last row) for every share of the rows that this member takes.
template <class Body>
void take_shares(Counter& counter, const Team& team, const Pattern& pattern, Body&& body) {
  const int shares = team.size == 1 ? 1 : team.size * PIECES_OF_A_MEMBER;
  for (int share = counter.next(); share < shares; share = counter.next()) {
    const auto [begin, end] = pattern.share(share, shares);
    body(begin, end);
  }
}

// The rows [begin, end) of a block, as the loops take them; count 0 if there are none.
Rows rows_of(const Pattern& pattern, const Block& block, int begin, int end, const float* panel, int& first_row) {
  first_row = std::max(block.row_begin, begin);
  const int count = std::max(0, std::min(block.row_end, end) - first_row);
  return {count, pattern.starts.data() + block.first_start + (first_row - block.row_begin), pattern.offsets.data(),
          reinterpret_cast<const char*>(panel)};
}

void multiply_rows(const Loops& loops, const Pattern& pattern, const Tile& tile, int begin, int end, const float* panel,
                   const float* bias, float* product, std::int64_t stride) {
  for (const Block& block : pattern.blocks) {
    int row = 0;
    const Rows rows = rows_of(pattern, block, begin, end, panel + tile.from, row);
    if (rows.count == 0) continue;
    loops.multiply({rows, pattern.values.data(), bias ? bias + row : nullptr, block.first, product + row * stride + tile.to, stride},
                   tile.vectors);
  }
}

void sample_rows(const Loops& loops, const Pattern& pattern, const Tile& tile, int begin, int end, const float* panel,
                 const float* grad, std::int64_t stride, float* grad_values) {
  for (const Block& block : pattern.blocks) {
    int row = 0;
    const Rows rows = rows_of(pattern, block, begin, end, panel + tile.from, row);
    if (rows.count == 0) continue;
    const std::int32_t* targets = pattern.targets.data() + block.first_start + (row - block.row_begin);
    loops.sample({rows, grad + row * stride + tile.from, stride, targets, grad_values}, tile.vectors);
  }
}

}  // namespace

// What a pass packs into scratch, and whether its parts touch nothing in common.
struct Layer::Uses {
  bool independent, input, grad;
};

// Calls work(part, scratch, team, pieces) for every part of the images.
//
// If the parts are independent and keep all threads busy, each is one thread's from beginning to end; else the team
// shares every part. `reserve` makes room in one member's scratch.
template <class Reserve, class Work>
void Layer::each_part(int images, int threads, const Uses& uses, Reserve&& reserve, Work&& work) {
  const int parts = (images + plan_.images - 1) / plan_.images;
  const bool alone = uses.independent && threads > 1 && (parts % threads == 0 || parts >= 4 * threads);
  std::vector<Scratch>& scratch = scratch_of_this_thread(threads);
  for (int member = 0; member < (alone ? threads : 1); ++member) reserve(scratch[member]);
  std::vector<Part> all;
  for (int index = 0; index < parts; ++index) {
    const int begin = index * plan_.images;
    all.push_back({index, begin, std::min(plan_.images, images - begin), false, false});
  }
  std::vector<Pieces> pieces(parts);
  const auto claim = [&](Part& part, Scratch& mine) {
    if (uses.input) part.clear_input = !mine.input.claim(id_, part.used);
    if (uses.grad) part.clear_grad = !mine.grad.claim(id_, part.used);
  };
  if (alone) {
    Counter next;
    together(threads, [&](const Team& team) {
      for (int index = next.next(); index < parts; index = next.next()) {
        claim(all[index], scratch[team.rank]);
        work(all[index], scratch[team.rank], Team{}, pieces[index]);
      }
    });
  } else {
    for (Part& part : all) claim(part, scratch[0]);
    together(threads, [&](const Team& team) {
      for (const Part& part : all) work(part, scratch[0], team, pieces[part.index]);
    });
  }
}

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
      take_shares(counter, team, forward_, [&](int first, int last) {
        loops_.stream({last - first, csr_.indptr + first, fits ? narrow_.data() : nullptr, csr_.indices, forward_.values.data()},
                      contiguous, bias ? bias + first : nullptr, result + first);
      });
    });
    copy(to, {result, {0, 1, 0, 0}}, {1, shape_.out_features, 1, 1}, loops_);
  }
}

void Layer::forward(const Input& input, const float* bias, const View& out, float* saved, int threads) {
  prepare(input.height, input.width);
  if (streams(input.images)) return stream_forward(input, bias, out, threads);
  const Layout& layout = *layout_;
  const std::int64_t packed = layout.packed_input(shape_), product_stride = layout.output_lanes;
  const auto reserve = [&](Scratch& scratch) {
    if (!saved) scratch.input.reserve(packed);
    scratch.product.reserve(product_stride * shape_.out_features);
  };
  const Uses uses{true, !saved, false};
  each_part(input.images, threads, uses, reserve, [&](const Part& part, Scratch& scratch, const Team& team, Pieces& pieces) {
    const Packer packer{shape_, layout, loops_, part.used};
    float* panel = saved ? saved + packed * part.index : scratch.input.data();
    pack_input(packer, images_from(input.x, part.begin), panel, team, saved || part.clear_input);
    team.barrier();
    const std::vector<Tile> tiles = layout.output_tiles(part.used, plan_.tile);
    float* product = scratch.product.data();
    take_pieces(pieces, team, forward_, static_cast<int>(tiles.size()), [&](int tile, int first, int last) {
      multiply_rows(loops_, forward_, tiles[tile], first, last, panel, bias, product, product_stride);
    });
    team.barrier();
    unpack_output(packer, images_from(out, part.begin), product, team);
  });
}

void Layer::backward(const Input& input, const View& grad_output, const View& grad_input, float* grad_values,
                     const float* saved, int threads) {
  prepare(input.height, input.width);
  const bool wants_input = grad_input.data != nullptr, wants_values = grad_values != nullptr;
  if (wants_input) prepare_transposed();
  if (wants_values) std::fill_n(grad_values, csr_.indptr[shape_.out_features], 0.0f);
  const Layout& layout = *layout_;
  const std::int64_t packed = layout.packed_input(shape_), product_stride = layout.input_lanes;
  const auto reserve = [&](Scratch& scratch) {
    if (wants_values && !saved) scratch.input.reserve(packed);
    scratch.grad.reserve(layout.packed_grad(shape_));
    if (wants_input) scratch.product.reserve(product_stride * transposed_.rows);
  };
  // A value's gradient is a sum over all parts: one member owns it, so the team shares every part.
  const auto work = [&](const Part& part, Scratch& scratch, const Team& team, Pieces& pieces) {
    const Packer packer{shape_, layout, loops_, part.used};
    const float* panel = saved ? saved + packed * part.index : scratch.input.data();
    float* grad = scratch.grad.data();
    if (wants_values && !saved)
      pack_input(packer, images_from(input.x, part.begin), scratch.input.data(), team, part.clear_input);
    pack_grad(packer, images_from(grad_output, part.begin), grad, team, part.clear_grad);
    team.barrier();
    if (wants_values) {
      const std::vector<Tile> tiles = layout.output_tiles(part.used, plan_.tile);
      const float* outputs = grad + std::int64_t{layout.lead} * layout.images;
      take_shares(pieces.values, team, forward_, [&](int first, int last) {
        for (const Tile& tile : tiles)
          sample_rows(loops_, forward_, tile, first, last, panel, outputs, layout.grad_stride, grad_values);
      });
    }
    if (!wants_input) return team.barrier();
    const std::vector<Tile> tiles = layout.input_tiles(part.used, plan_.tile);
    float* product = scratch.product.data();
    take_pieces(pieces, team, transposed_, static_cast<int>(tiles.size()), [&](int tile, int first, int last) {
      multiply_rows(loops_, transposed_, tiles[tile], first, last, grad, nullptr, product, product_stride);
    });
    team.barrier();
    unpack_input(packer, images_from(grad_input, part.begin), product, team);
  };
  each_part(input.images, threads, {!wants_values, wants_values && !saved, true}, reserve, work);
}

}  // namespace sparsebench
