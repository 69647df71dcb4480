// Backward: both gradients from one packing of grad_output.
//
// A value's gradient is a sum over all parts that one member owns, so a wave of parts is packed before it is sampled: two
// barriers a wave, and no private copies of the gradient.
#include "passes.h"

namespace sparsebench {

namespace {

#if defined(SPARSEBENCH_SMALL_CACHES)  // for tests: a small problem is cut as a large one is
constexpr std::int64_t WAVE_FLOATS = 16 * 1024;
#else
constexpr std::int64_t WAVE_FLOATS = 2 * 1024 * 1024;
#endif

// Parts of a wave: as even as waves of about WAVE_FLOATS come, and so that members can take whole parts.
int wave_of(int parts, int threads, std::int64_t floats_of_part) {
  if (threads == 1) return 1;
  const std::int64_t fit = std::max<std::int64_t>(threads, WAVE_FLOATS / floats_of_part);
  const int waves = static_cast<int>((parts + fit - 1) / fit), even = (parts + waves - 1) / waves;
  return std::min(parts, (even + threads - 1) / threads * threads);
}

}  // namespace

// One call: what it wants, what it works in, who has taken what.
struct Layer::Backward {
  const Layer& layer;
  const Layout& layout;
  const Input& input;
  const View &grad_output, &grad_input;  // grad_input.data is null if it is not wanted
  float* const grad_values;              // null if they are not wanted
  const float* const saved;
  const int parts;
  const std::int64_t packed_part, packed, packed_grad;  // floats of a part; `packed` is 0 if x is not packed here
  const Chunks chunks;
  const int wave, waves;
  const Tiles output_tiles, input_tiles;
  std::vector<Scratch>& scratch;
  std::vector<Counter> values, inputs, pieces;
  bool clear_input, clear_grad;

  Backward(const Layer& layer, const Input& input, const View& grad_output, const View& grad_input, float* grad_values,
           const float* saved, int threads)
      : layer(layer), layout(*layer.layout_), input(input), grad_output(grad_output), grad_input(grad_input),
        grad_values(grad_values), saved(saved), parts(layer.parts(input.images)),
        packed_part(layout.packed_input(layer.shape_)), packed(grad_values && !saved ? packed_part : 0),
        packed_grad(layout.packed_grad(layer.shape_)),
        chunks(packed_grad, layer.shape_.in_features, layout.phases, layout.input_rows(), layout.input_width,
               [this](int rows) { return layout.input_lanes(rows); }),
        wave(wave_of(parts, threads, packed + packed_grad)), waves((parts + wave - 1) / wave),
        output_tiles(layer, input.images, &Layout::output_tiles), input_tiles(layer, input.images, &Layout::input_tiles),
        scratch(scratch_of_this_thread(threads)), values(waves), inputs(waves), pieces(parts * chunks.count()) {
    scratch[0].input.reserve(packed * wave);
    scratch[0].grad.reserve(packed_grad * wave);
    for (int member = 0; grad_input.data && member < threads; ++member) scratch[member].product.reserve(chunks.floats());
    // From here on nothing throws: a claim promises that what it does not find cleared will be.
    clear_input = packed > 0 && !scratch[0].input.claim(layer.id_, wave);
    clear_grad = !scratch[0].grad.claim(layer.id_, wave);
  }

  Packer packer(const Part& part) const { return {layer.shape_, layout, layer.loops_, part.used}; }

  void pack(const Part& part, int slot, bool first_wave, const Team& team) const {
    const bool fewer = part.used < layer.plan_.images;
    if (packed > 0)
      pack_input(packer(part), images_from(input.x, part.begin), scratch[0].input.data() + slot * packed, team,
                 fewer || (first_wave && clear_input));
    pack_grad(packer(part), images_from(grad_output, part.begin), scratch[0].grad.data() + slot * packed_grad, team,
              fewer || (first_wave && clear_grad));
  }

  void sample(const Part& part, int slot, const Block& block, Range rows) const {
    const float* const panel = saved ? saved + packed_part * part.index : scratch[0].input.data() + slot * packed;
    const float* const grad = scratch[0].grad.data() + slot * packed_grad + std::int64_t{layout.lead} * layout.images;
    for (const Tile& tile : output_tiles.of(part))
      sample_rows(layer.loops_, layer.forward_, block, tile, rows, panel, grad, layout.grad_stride, grad_values);
  }

  void multiply(const Part& part, int slot, Scratch& mine, const Team& team) {
    const auto unpack = [&](Range channels, Range band, const float* product) {
      const View to = images_from(grad_input, part.begin);
      unpack_input(packer(part), to, {product, chunks.stride}, channels, band, team);
    };
    layer.multiply(layer.transposed_, input_tiles.of(part), layout.input_width * layout.images,
                   scratch[0].grad.data() + slot * packed_grad, nullptr, chunks, mine.product.data(), team,
                   &pieces[part.index * chunks.count()], unpack);
  }

  void run_wave(int index, const Team& team) {
    const int begin = index * wave, count = std::min(wave, parts - begin);
    const auto part = [&](int slot) { return layer.part(begin + slot, input.images); };
    for (int slot = 0; slot < count; ++slot) pack(part(slot), slot, index == 0, team);
    team.barrier();
    if (grad_values)
      take_shares_of_blocks(values[index], team, layer.forward_, [&](const Block& block, Range rows) {
        for (int slot = 0; slot < count; ++slot) sample(part(slot), slot, block, rows);
      });
    if (grad_input.data && one_each(count, team.size)) {
      for (int slot = inputs[index].next(); slot < count; slot = inputs[index].next())
        multiply(part(slot), slot, scratch[team.rank], Team{});
    } else if (grad_input.data) {
      for (int slot = 0; slot < count; ++slot) {
        if (slot > 0) team.barrier();  // until everybody has unpacked the one before
        multiply(part(slot), slot, scratch[0], team);
      }
    }
    team.barrier();
  }
};

void Layer::backward(const Input& input, const View& grad_output, const View& grad_input, float* grad_values,
                     const float* saved, int threads) {
  prepare(input.height, input.width);
  if (grad_input.data) prepare_transposed();
  if (grad_values) std::fill_n(grad_values, csr_.indptr[shape_.out_features], 0.0f);
  if (input.images == 0) return;
  if (streams(input.images) && (!grad_input.data || transposed_.blocks.size() == 1))
    return stream_backward(input, grad_output, grad_input, grad_values, threads);
  Backward call(*this, input, grad_output, grad_input, grad_values, saved, threads);
  together(threads, [&](const Team& team) {
    for (int index = 0; index < call.waves; ++index) call.run_wave(index, team);
  });
}

}  // namespace sparsebench
