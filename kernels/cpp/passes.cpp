// Forward and backward of a layer: pack, multiply or sample tile by tile, unpack.
//
// The images are packed in parts. Parts that touch nothing in common are one member's each, from packing to unpacking, if
// that keeps the team busy; else the team shares every part, with barriers between its stages. A value's gradient is a sum
// over all parts that one member owns, so backward packs a wave of parts before it samples them: two barriers a wave.
#include <unistd.h>

#include <algorithm>

#include "layer.h"
#include "packing.h"
#include "walk.h"

namespace sparsebench {

namespace {

#if defined(SPARSEBENCH_SMALL_CACHES)  // for tests: a small problem is cut as a large one is
constexpr std::int64_t WAVE_FLOATS = 16 * 1024;

std::int64_t floats_of_l2() { return 16 * 1024; }
#else
constexpr std::int64_t WAVE_FLOATS = 2 * 1024 * 1024;

std::int64_t floats_of_l2() {
#if defined(_SC_LEVEL2_CACHE_SIZE)
  const long bytes = sysconf(_SC_LEVEL2_CACHE_SIZE);  // 0 or less where it is not known
#else
  const long bytes = 0;
#endif
  return std::max(bytes, 256L * 1024) / static_cast<std::int64_t>(sizeof(float));
}
#endif

const std::int64_t L2_FLOATS = floats_of_l2();

// Parts of a wave: as even as waves of about WAVE_FLOATS come, and so that members can take whole parts.
int wave_of(int parts, int threads, std::int64_t floats_of_part) {
  const std::int64_t fit = std::max<std::int64_t>(threads, WAVE_FLOATS / floats_of_part);
  const int waves = static_cast<int>((parts + fit - 1) / fit), even = (parts + waves - 1) / waves;
  return std::min(parts, (even + threads - 1) / threads * threads);
}

// Whether each member can take whole parts: few that do not divide evenly would keep somebody waiting.
bool one_each(int parts, int threads) { return parts >= threads && (parts % threads == 0 || parts >= 4 * threads); }

}  // namespace

// Images [begin, begin + used).
struct Layer::Part {
  int index, begin, used;
};

// The tiles of all parts: the last part may have fewer images.
struct Layer::Tiles {
  std::vector<Tile> whole, last;
  int last_index;

  Tiles(const Layer& layer, int images, std::vector<Tile> (Layout::*tiles)(int, int) const)
      : last_index(layer.parts(images) - 1) {
    whole = (layer.layout_.get()->*tiles)(layer.plan_.images, layer.plan_.tile);
    last = (layer.layout_.get()->*tiles)(layer.part(last_index, images).used, layer.plan_.tile);
  }
  const std::vector<Tile>& of(const Part& part) const { return part.index == last_index ? last : whole; }
};

// A product is computed and unpacked chunk by chunk, so that the chunk does not leave L2 in between: some channels of all
// positions where the packed planes stay in L2, too; else all channels of a band of positions, so that planes are read once.
struct Layer::Chunks {
  int channels, positions;              // all there are; positions count rows of them
  int channels_at_once, rows_at_once;   // of a chunk
  int rows_of_channel;                  // rows of the product
  std::int64_t stride;                  // elements from one row of a chunk's product to the next

  template <class Lanes>  // lanes(rows of positions) of one row of the product
  Chunks(std::int64_t panel, int channels, int rows_of_channel, int positions, std::int64_t width, Lanes&& lanes)
      : channels(channels), positions(positions), channels_at_once(channels), rows_at_once(positions),
        rows_of_channel(rows_of_channel) {
    const std::int64_t budget = L2_FLOATS / 4;
    if (panel <= L2_FLOATS / 8 * 5) {
      channels_at_once = static_cast<int>(std::clamp<std::int64_t>(budget / (lanes(positions) * rows_of_channel), 1, channels));
    } else if (positions > 1) {
      const std::int64_t fit = budget / (lanes(1) * rows_of_channel * channels);
      const std::int64_t least = (8 + width - 1) / width;  // whole squares for those who transpose
      rows_at_once = static_cast<int>(std::clamp<std::int64_t>(fit, std::min<std::int64_t>(least, positions), positions));
    }
    stride = lanes(rows_at_once);
  }
  int bands() const { return (positions + rows_at_once - 1) / rows_at_once; }
  int count() const { return (channels + channels_at_once - 1) / channels_at_once * bands(); }
  Range channels_of(int chunk) const { return part(chunk / bands(), channels_at_once, channels); }
  Range band_of(int chunk) const { return part(chunk % bands(), rows_at_once, positions); }
  std::int64_t floats() const { return stride * rows_of_channel * channels_at_once; }

 private:
  static Range part(int index, int size, int all) { return {index * size, std::min(all, (index + 1) * size)}; }
};

Layer::Part Layer::part(int index, int images) const {
  const int begin = index * plan_.images;
  return {index, begin, std::min(plan_.images, images - begin)};
}

// The product of a pattern with packed planes; unpack(channels, band, product) follows each chunk. `counters`: one for each
// chunk, common to the team; a team of one needs none.
template <class Unpack>
void Layer::multiply(const Pattern& pattern, const std::vector<Tile>& tiles, std::int64_t band_width, const float* panel,
                     const float* bias, const Chunks& chunks, float* product, const Team& team, Counter* counters,
                     Unpack&& unpack) const {
  const int tiles_of_row = static_cast<int>(tiles.size()) / chunks.positions;
  for (int chunk = 0; chunk < chunks.count(); ++chunk) {
    const Range channels = chunks.channels_of(chunk), band = chunks.band_of(chunk);
    const Range rows = {channels.begin * chunks.rows_of_channel, channels.end * chunks.rows_of_channel};
    const int first_tile = band.begin * tiles_of_row, tile_count = (band.end - band.begin) * tiles_of_row;
    if (chunk > 0) team.barrier();  // until everybody has unpacked the one before
    take_pieces(counters ? counters + chunk : nullptr, team, pattern, rows, tile_count, [&](int index, Range share) {
      Tile tile = tiles[first_tile + index];
      tile.to -= static_cast<std::int32_t>(band.begin * band_width);
      multiply_rows(loops_, pattern, tile, share, panel, bias, product, rows.begin, chunks.stride);
    });
    team.barrier();
    unpack(channels, band, product);
  }
}

void Layer::forward(const Input& input, const float* bias, const View& out, float* saved, int threads) {
  prepare(input.height, input.width);
  if (input.images == 0) return;  // and claim nothing: nothing would be cleared
  if (streams(input.images)) return stream_forward(input, bias, out, threads);
  const Layout& layout = *layout_;
  const int parts = this->parts(input.images);
  const std::int64_t packed = layout.packed_input(shape_);
  const Chunks chunks(packed, shape_.out_features, 1, layout.output_rows(), layout.output_width,
                      [&](int rows) { return layout.output_lanes(rows); });
  const bool alone = one_each(parts, threads);
  std::vector<Scratch>& scratch = scratch_of_this_thread(threads);
  for (int member = 0; member < (alone ? threads : 1); ++member) {
    if (!saved) scratch[member].input.reserve(packed);
    scratch[member].product.reserve(chunks.floats());
  }
  const Tiles tiles(*this, input.images, &Layout::output_tiles);
  const auto work = [&](const Part& part, Scratch& mine, bool clear, const Team& team, Counter* counters) {
    const Packer packer{shape_, layout, loops_, part.used};
    float* const panel = saved ? saved + packed * part.index : mine.input.data();
    pack_input(packer, images_from(input.x, part.begin), panel, team, saved || clear || part.used < plan_.images);
    team.barrier();
    multiply(forward_, tiles.of(part), layout.output_width * layout.images, panel, bias, chunks, mine.product.data(), team,
             counters, [&](Range channels, Range band, const float* product) {
               unpack_output(packer, images_from(out, part.begin), {product, chunks.stride}, channels, band, team);
             });
  };
  if (alone) {
    Counter next;
    together(threads, [&](const Team& team) {
      Scratch& mine = scratch[team.rank];
      for (int index = next.next(); index < parts; index = next.next())
        work(part(index, input.images), mine, !saved && !mine.input.claim(id_, 1), Team{}, nullptr);
    });
  } else {
    std::vector<Counter> counters(parts * chunks.count());
    const bool clear = !saved && !scratch[0].input.claim(id_, 1);
    together(threads, [&](const Team& team) {
      for (int index = 0; index < parts; ++index)
        work(part(index, input.images), scratch[0], clear && index == 0, team, &counters[index * chunks.count()]);
    });
  }
}

void Layer::backward(const Input& input, const View& grad_output, const View& grad_input, float* grad_values,
                     const float* saved, int threads) {
  prepare(input.height, input.width);
  const bool wants_input = grad_input.data != nullptr, wants_values = grad_values != nullptr;
  if (wants_input) prepare_transposed();
  if (wants_values) std::fill_n(grad_values, csr_.indptr[shape_.out_features], 0.0f);
  if (input.images == 0) return;
  if (streams(input.images) && (!wants_input || transposed_.blocks.size() == 1))
    return stream_backward(input, grad_output, grad_input, grad_values, threads);
  const Layout& layout = *layout_;
  const int parts = this->parts(input.images);
  const std::int64_t packed = wants_values && !saved ? layout.packed_input(shape_) : 0;
  const std::int64_t saved_part = layout.packed_input(shape_), packed_grad = layout.packed_grad(shape_);
  const Chunks chunks(packed_grad, shape_.in_features, layout.phases, layout.input_rows(), layout.input_width,
                      [&](int rows) { return layout.input_lanes(rows); });
  const int wave = threads == 1 ? 1 : wave_of(parts, threads, packed + packed_grad);
  std::vector<Scratch>& scratch = scratch_of_this_thread(threads);
  Scratch& common = scratch[0];
  common.input.reserve(packed * wave);
  common.grad.reserve(packed_grad * wave);
  for (int member = 0; wants_input && member < threads; ++member) scratch[member].product.reserve(chunks.floats());
  const int waves = (parts + wave - 1) / wave;
  std::vector<Counter> values(waves), inputs(waves), pieces(parts * chunks.count());
  const Tiles output_tiles(*this, input.images, &Layout::output_tiles), input_tiles(*this, input.images, &Layout::input_tiles);
  // From here on nothing throws: a claim says that what it does not find cleared will be.
  const bool clear_input = packed > 0 && !common.input.claim(id_, wave), clear_grad = !common.grad.claim(id_, wave);

  const auto packer = [&](const Part& part) { return Packer{shape_, layout, loops_, part.used}; };
  const auto pack = [&](const Part& part, int slot, const Team& team, bool first) {
    const bool fewer = part.used < plan_.images;
    if (packed > 0)
      pack_input(packer(part), images_from(input.x, part.begin), common.input.data() + slot * packed, team,
                 fewer || (first && clear_input));
    pack_grad(packer(part), images_from(grad_output, part.begin), common.grad.data() + slot * packed_grad, team,
              fewer || (first && clear_grad));
  };
  const auto sample = [&](const Part& part, int slot, const Block& block, Range rows) {
    const float* const panel = saved ? saved + saved_part * part.index : common.input.data() + slot * packed;
    const float* const grad = common.grad.data() + slot * packed_grad + std::int64_t{layout.lead} * layout.images;
    for (const Tile& tile : output_tiles.of(part))
      sample_rows(loops_, forward_, block, tile, rows, panel, grad, layout.grad_stride, grad_values);
  };
  const auto multiply_part = [&](const Part& part, int slot, Scratch& mine, const Team& team) {
    multiply(transposed_, input_tiles.of(part), layout.input_width * layout.images, common.grad.data() + slot * packed_grad,
             nullptr, chunks, mine.product.data(), team, &pieces[part.index * chunks.count()],
             [&](Range channels, Range band, const float* product) {
               unpack_input(packer(part), images_from(grad_input, part.begin), {product, chunks.stride}, channels, band, team);
             });
  };
  together(threads, [&](const Team& team) {
    for (int index = 0; index < waves; ++index) {
      const int begin = index * wave, count = std::min(wave, parts - begin);
      for (int slot = 0; slot < count; ++slot) pack(part(begin + slot, input.images), slot, team, index == 0);
      team.barrier();
      if (wants_values)
        take_shares_of_blocks(values[index], team, forward_, [&](const Block& block, Range rows) {
          for (int slot = 0; slot < count; ++slot) sample(part(begin + slot, input.images), slot, block, rows);
        });
      if (wants_input && one_each(count, team.size)) {
        for (int slot = inputs[index].next(); slot < count; slot = inputs[index].next())
          multiply_part(part(begin + slot, input.images), slot, scratch[team.rank], Team{});
      } else if (wants_input) {
        for (int slot = 0; slot < count; ++slot) {
          if (slot > 0) team.barrier();  // until everybody has unpacked the one before
          multiply_part(part(begin + slot, input.images), slot, common, team);
        }
      }
      team.barrier();
    }
  });
}

}  // namespace sparsebench
