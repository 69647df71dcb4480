// Forward: pack a part, multiply it tile by tile, unpack it.
#include "passes.h"

#include <unistd.h>

namespace sparsebench {

namespace {

#if defined(SPARSEBENCH_SMALL_CACHES)  // for tests: a small problem is cut as a large one is
std::int64_t measured_l2_floats() { return 16 * 1024; }
#else
std::int64_t measured_l2_floats() {
#if defined(_SC_LEVEL2_CACHE_SIZE)
  const long bytes = sysconf(_SC_LEVEL2_CACHE_SIZE);  // 0 or less where it is not known
#else
  const long bytes = 0;
#endif
  return std::max(bytes, 256L * 1024) / static_cast<std::int64_t>(sizeof(float));
}
#endif

}  // namespace

std::int64_t l2_floats() {
  static const std::int64_t floats = measured_l2_floats();
  return floats;
}

Layer::Part Layer::part(int index, int images) const {
  const int begin = index * plan_.images;
  return {index, begin, std::min(plan_.images, images - begin)};
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

}  // namespace sparsebench
