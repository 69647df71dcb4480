// Tensors into packed planes and back; the only part that sees a tensor's strides and a stride's phases.
#pragma once
#include "copy.h"
#include "layout.h"
#include "pattern.h"
#include "team.h"

namespace sparsebench {

// What packing needs to know of a layer: of `used` images, layout.images at the most.
struct Packer {
  const Shape& shape;
  const Layout& layout;
  const Loops& loops;
  int used;
};

// x [used, in_features, height, width] as planes (channel, phase) that are zero but for pixels; `clear` says whether the
// planes may hold anything else but what the same layer packed before.
void pack_input(const Packer& packer, const View& x, float* planes, const Team& team, bool clear);
// grad_output [used, out_features, height', width'] as planes that are zero but for outputs.
void pack_grad(const Packer& packer, const View& grad_output, float* planes, const Team& team, bool clear);
// What unpacking reads: rows of a product, `stride` elements apart, over a band of rows of positions.
struct Lanes {
  const float* data;
  std::int64_t stride;
};

// Channels of out [used, out_features, height', width'], a band of its rows, from their rows of a product.
void unpack_output(const Packer& packer, const View& out, const Lanes& product, Range channels, Range band, const Team& team);
// Channels of grad_input [used, in_features, height, width], a band of its positions, from their rows of a product.
void unpack_input(const Packer& packer, const View& grad_input, const Lanes& product, Range channels, Range band,
                  const Team& team);

}  // namespace sparsebench
