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

constexpr std::int64_t WAVE_FLOATS = 8 * 1024 * 1024;

std::int64_t floats_of_l2() {
  const long bytes = sysconf(_SC_LEVEL2_CACHE_SIZE);  // 0 or less where it is not known
  return std::max(bytes, 256L * 1024) / static_cast<std::int64_t>(sizeof(float));
}

const std::int64_t L2_FLOATS = floats_of_l2();

// Whether each member can take whole parts: few that do not divide evenly would keep somebody waiting.
bool one_each(int parts, int threads) { return parts >= threads && (parts % threads == 0 || parts >= 4 * threads); }

}  // namespace

// Images [begin, begin + used).
struct Layer::Part {
  int index, begin, used;
};

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

Layer::Part Layer::part(int index, int images) const {
  const int begin = index * plan_.images;
  return {index, begin, std::min(plan_.images, images - begin)};
}

// The product of a pattern with packed planes, chunk by chunk: unpack(channels, product) follows while the chunk is in cache.
// `counters`: one for each chunk, common to the team.
template <class Unpack>
void Layer::multiply(const Pattern& pattern, const std::vector<Tile>& tiles, const float* panel, const float* bias,
                     const Chunks& chunks, float* product, const Team& team, Counter* counters, Unpack&& unpack) const {
  for (int chunk = 0; chunk < chunks.count(); ++chunk) {
    const Range channels = chunks[chunk], rows = {channels.begin * chunks.rows, channels.end * chunks.rows};
    if (chunk > 0) team.barrier();  // until everybody has unpacked the one before
    take_pieces(counters + chunk, team, pattern, rows, static_cast<int>(tiles.size()), [&](int tile, Range share) {
      multiply_rows(loops_, pattern, tiles[tile], share, panel, bias, product, rows.begin, chunks.lanes);
    });
    team.barrier();
    unpack(channels, product);
  }
}

void Layer::forward(const Input& input, const float* bias, const View& out, float* saved, int threads) {
  prepare(input.height, input.width);
  if (streams(input.images)) return stream_forward(input, bias, out, threads);
  const Layout& layout = *layout_;
  const int parts = this->parts(input.images);
  const std::int64_t packed = layout.packed_input(shape_);
  const Chunks chunks(packed, shape_.out_features, 1, layout.output_lanes);
  const bool alone = one_each(parts, threads);
  std::vector<Scratch>& scratch = scratch_of_this_thread(threads);
  for (int member = 0; member < (alone ? threads : 1); ++member) {
    if (!saved) scratch[member].input.reserve(packed);
    scratch[member].product.reserve(chunks.floats());
  }
  const auto work = [&](const Part& part, Scratch& mine, bool clear, const Team& team, Counter* counters) {
    const Packer packer{shape_, layout, loops_, part.used};
    float* const panel = saved ? saved + packed * part.index : mine.input.data();
    pack_input(packer, images_from(input.x, part.begin), panel, team, saved || clear || part.used < plan_.images);
    team.barrier();
    multiply(forward_, layout.output_tiles(part.used, plan_.tile), panel, bias, chunks, mine.product.data(), team, counters,
             [&](Range channels, const float* product) {
               unpack_output(packer, images_from(out, part.begin), product, channels, team);
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
  if (streams(input.images) && (!wants_input || transposed_.blocks.size() == 1))
    return stream_backward(input, grad_output, grad_input, grad_values, threads);
  const Layout& layout = *layout_;
  const int parts = this->parts(input.images);
  const std::int64_t packed = wants_values && !saved ? layout.packed_input(shape_) : 0;
  const std::int64_t saved_part = layout.packed_input(shape_), packed_grad = layout.packed_grad(shape_);
  const Chunks chunks(packed_grad, shape_.in_features, layout.phases, layout.input_lanes);
  const int fit = static_cast<int>(std::max<std::int64_t>(1, WAVE_FLOATS / (packed + packed_grad)));
  const int wave = threads == 1 ? 1 : std::min(parts, fit);
  std::vector<Scratch>& scratch = scratch_of_this_thread(threads);
  Scratch& common = scratch[0];
  common.input.reserve(packed * wave);
  common.grad.reserve(packed_grad * wave);
  for (int member = 0; wants_input && member < threads; ++member) scratch[member].product.reserve(chunks.floats());
  const bool clear_input = packed > 0 && !common.input.claim(id_, wave), clear_grad = !common.grad.claim(id_, wave);
  const int waves = (parts + wave - 1) / wave;
  std::vector<Counter> values(waves), inputs(waves), pieces(parts * chunks.count());

  const auto packer = [&](const Part& part) { return Packer{shape_, layout, loops_, part.used}; };
  const auto pack = [&](const Part& part, int slot, const Team& team, bool first) {
    const bool fewer = part.used < plan_.images;
    if (packed > 0)
      pack_input(packer(part), images_from(input.x, part.begin), common.input.data() + slot * packed, team,
                 fewer || (first && clear_input));
    pack_grad(packer(part), images_from(grad_output, part.begin), common.grad.data() + slot * packed_grad, team,
              fewer || (first && clear_grad));
  };
  const auto sample = [&](const Part& part, int slot, Range rows) {
    const float* const panel = saved ? saved + saved_part * part.index : common.input.data() + slot * packed;
    const float* const grad = common.grad.data() + slot * packed_grad + std::int64_t{layout.lead} * layout.images;
    for (const Tile& tile : layout.output_tiles(part.used, plan_.tile))
      sample_rows(loops_, forward_, tile, rows, panel, grad, layout.grad_stride, grad_values);
  };
  const auto multiply_part = [&](const Part& part, int slot, Scratch& mine, const Team& team) {
    multiply(transposed_, layout.input_tiles(part.used, plan_.tile), common.grad.data() + slot * packed_grad, nullptr, chunks,
             mine.product.data(), team, &pieces[part.index * chunks.count()], [&](Range channels, const float* product) {
               unpack_input(packer(part), images_from(grad_input, part.begin), product, channels, team);
             });
  };
  together(threads, [&](const Team& team) {
    for (int index = 0; index < waves; ++index) {
      const int begin = index * wave, count = std::min(wave, parts - begin);
      for (int slot = 0; slot < count; ++slot) pack(part(begin + slot, input.images), slot, team, index == 0);
      team.barrier();
      if (wants_values)
        take_shares(values[index], team, forward_, [&](Range rows) {
          for (int slot = 0; slot < count; ++slot) sample(part(begin + slot, input.images), slot, rows);
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
