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
// Channels of out [used, out_features, height', width'] from their rows of a product over the outputs.
void unpack_output(const Packer& packer, const View& out, const float* product, Range channels, const Team& team);
// Channels of grad_input [used, in_features, height, width] from their rows of a product over the inputs.
void unpack_input(const Packer& packer, const View& grad_input, const float* product, Range channels, const Team& team);

}  // namespace sparsebench
