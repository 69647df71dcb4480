// Forward and backward of a layer: pack, multiply or sample tile by tile, unpack.
#include <unistd.h>

#include <algorithm>

#include "layer.h"
#include "packing.h"
#include "walk.h"

namespace sparsebench {

namespace {

std::int64_t floats_of_l2() {
  const long bytes = sysconf(_SC_LEVEL2_CACHE_SIZE);  // 0 or less where it is not known
  return std::max(bytes, 256L * 1024) / static_cast<std::int64_t>(sizeof(float));
}

const std::int64_t L2_FLOATS = floats_of_l2();

// Images that are packed together.
struct Part {
  int index, begin, used;
  bool clear_input, clear_grad;  // whether the scratch may hold anything but this layer's padding
};

struct Pieces {
  std::vector<Counter> product;  // of each chunk
  Counter values;
};

}  // namespace

// Rows of a product that are computed and unpacked before the next: whole channels, of `rows` rows of `lanes` each.
struct Layer::Chunks {
  int channels, at_once, rows;
  std::int64_t lanes;

  Chunks(std::int64_t panel, int channels, int rows, std::int64_t lanes) : channels(channels), rows(rows), lanes(lanes) {
    // A chunk is unpacked before it leaves L2. Where the packed planes do not fit there, every chunk would read them anew.
    const std::int64_t fit = std::max<std::int64_t>(1, L2_FLOATS / 4 / (lanes * rows));
    at_once = panel > L2_FLOATS / 8 * 5 ? channels : static_cast<int>(std::min<std::int64_t>(channels, fit));
  }
  int count() const { return (channels + at_once - 1) / at_once; }
  Range operator[](int index) const { return {index * at_once, std::min(channels, (index + 1) * at_once)}; }
  std::int64_t floats() const { return lanes * rows * at_once; }
};

// What a pass packs into scratch, and whether its parts touch nothing in common.
struct Layer::Uses {
  bool independent, input, grad;
  int chunks;
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
  for (Pieces& piece : pieces) piece.product = std::vector<Counter>(uses.chunks);
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

// The product of a pattern with packed planes, chunk by chunk: unpack(channels, product) follows while the chunk is in cache.
template <class Unpack>
void Layer::multiply(const Pattern& pattern, const std::vector<Tile>& tiles, const float* panel, const float* bias,
                     const Chunks& chunks, float* product, const Team& team, std::vector<Counter>& counters,
                     Unpack&& unpack) const {
  for (int chunk = 0; chunk < chunks.count(); ++chunk) {
    const Range channels = chunks[chunk], rows = {channels.begin * chunks.rows, channels.end * chunks.rows};
    if (chunk > 0) team.barrier();  // until everybody has unpacked the one before
    float* const row_zero = product - rows.begin * chunks.lanes;
    take_pieces(counters[chunk], team, pattern, rows, static_cast<int>(tiles.size()), [&](int tile, Range share) {
      multiply_rows(loops_, pattern, tiles[tile], share, panel, bias, row_zero, chunks.lanes);
    });
    team.barrier();
    unpack(channels, product);
  }
}

void Layer::forward(const Input& input, const float* bias, const View& out, float* saved, int threads) {
  prepare(input.height, input.width);
  if (streams(input.images)) return stream_forward(input, bias, out, threads);
  const Layout& layout = *layout_;
  const std::int64_t packed = layout.packed_input(shape_);
  const Chunks chunks(packed, shape_.out_features, 1, layout.output_lanes);
  const auto reserve = [&](Scratch& scratch) {
    if (!saved) scratch.input.reserve(packed);
    scratch.product.reserve(chunks.floats());
  };
  const Uses uses{true, !saved, false, chunks.count()};
  each_part(input.images, threads, uses, reserve, [&](const Part& part, Scratch& scratch, const Team& team, Pieces& pieces) {
    const Packer packer{shape_, layout, loops_, part.used};
    float* panel = saved ? saved + packed * part.index : scratch.input.data();
    pack_input(packer, images_from(input.x, part.begin), panel, team, saved || part.clear_input);
    team.barrier();
    multiply(forward_, layout.output_tiles(part.used, plan_.tile), panel, bias, chunks, scratch.product.data(), team,
             pieces.product, [&](Range channels, const float* product) {
               unpack_output(packer, images_from(out, part.begin), product, channels, team);
             });
  });
}

void Layer::backward(const Input& input, const View& grad_output, const View& grad_input, float* grad_values,
                     const float* saved, int threads) {
  prepare(input.height, input.width);
  const bool wants_input = grad_input.data != nullptr, wants_values = grad_values != nullptr;
  if (wants_input) prepare_transposed();
  if (wants_values) std::fill_n(grad_values, csr_.indptr[shape_.out_features], 0.0f);
  if (streams(input.images) && (!wants_input || transposed_.blocks.size() == 1))
    return stream_backward(input, grad_output, grad_input, grad_values, threads);
  const Layout& layout = *layout_;
  const std::int64_t packed = layout.packed_input(shape_), packed_grad = layout.packed_grad(shape_);
  const Chunks chunks(packed_grad, shape_.in_features, layout.phases, layout.input_lanes);
  const auto reserve = [&](Scratch& scratch) {
    if (wants_values && !saved) scratch.input.reserve(packed);
    scratch.grad.reserve(packed_grad);
    if (wants_input) scratch.product.reserve(chunks.floats());
  };
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
      take_shares(pieces.values, team, forward_, [&](Range rows) {
        for (const Tile& tile : tiles)
          sample_rows(loops_, forward_, tile, rows, panel, outputs, layout.grad_stride, grad_values);
      });
    }
    if (!wants_input) return team.barrier();
    multiply(transposed_, layout.input_tiles(part.used, plan_.tile), grad, nullptr, chunks, scratch.product.data(), team,
             pieces.product, [&](Range channels, const float* product) {
               unpack_input(packer, images_from(grad_input, part.begin), product, channels, team);
             });
  };
  // A value's gradient is a sum over all parts: one member owns it, so the team shares every part.
  each_part(input.images, threads, {!wants_values, wants_values && !saved, true, chunks.count()}, reserve, work);
}

}  // namespace sparsebench
