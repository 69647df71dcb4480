// What forward and backward have in common: parts of the images, chunks of a product.
//
// The images are packed in parts. Parts that touch nothing in common are one member's each, from packing to unpacking, if
// that keeps the team busy; else the team shares every part, with barriers between its stages.
#pragma once
#include <algorithm>
#include <vector>

#include "layer.h"
#include "packing.h"
#include "walk.h"

namespace sparsebench {

// Floats of this CPU's second cache.
std::int64_t l2_floats();

// Whether each member can take whole parts: few that do not divide evenly would keep somebody waiting.
inline bool one_each(int parts, int threads) {
  return parts >= threads && (parts % threads == 0 || parts >= 4 * threads);
}

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
    const std::int64_t budget = l2_floats() / 4;
    if (panel <= l2_floats() / 8 * 5) {
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

}  // namespace sparsebench
