// A random problem: one or two layers and a few calls of them, all of it drawn from (seed, index).
#pragma once
#include <cstdint>
#include <vector>

#include "../layer.h"
#include "draw.h"
#include "tensor.h"

namespace fuzz {

using sparsebench::Shape;

constexpr std::int64_t MOST_MULTIPLY_ADDS = 1'000'000, MOST_ELEMENTS = 200'000;

// What a plan is, before the width of a vector is known.
struct PlanDraw {
  bool flat;
  int tile, vectors, images;  // images: of a flat plan
  int forward_block, backward_block;

  sparsebench::Plan of(int lanes) const {
    const int side_by_side = flat ? (images % lanes ? images : images + 1) : vectors * lanes;
    return {tile, flat && lanes == 1 ? images : side_by_side, forward_block, backward_block};
  }
};

// The size of one call's input.
struct Extent {
  int images, height, width;
};

struct Weight {
  bool linear;
  Shape shape;
  PlanDraw plan;
  Extent hint;
  std::vector<std::int32_t> indptr, indices;

  int columns() const { return shape.in_features / shape.groups * shape.kernel[0] * shape.kernel[1]; }
  int outputs(int axis, int size) const {
    return (size + 2 * shape.padding[axis] - shape.dilation[axis] * (shape.kernel[axis] - 1) - 1) / shape.stride[axis] + 1;
  }
  bool fits(const Extent& extent) const {
    const auto spare = [&](int axis, int size) {
      return size + 2 * shape.padding[axis] - shape.dilation[axis] * (shape.kernel[axis] - 1) - 1;
    };
    if (spare(0, extent.height) < 0 || spare(1, extent.width) < 0) return false;
    const std::int64_t positions = std::int64_t{1} * extent.images * outputs(0, extent.height) * outputs(1, extent.width);
    const std::int64_t pixels = std::int64_t{1} * extent.images * extent.height * extent.width;
    return positions * shape.out_features * columns() <= MOST_MULTIPLY_ADDS &&
           positions * shape.out_features <= MOST_ELEMENTS && pixels * shape.in_features <= MOST_ELEMENTS;
  }
};

struct Call {
  int layer;
  Extent extent;
  int threads;
  bool new_values, bias, saved, wants_input, wants_values, non_finite;
  int between;  // the call whose forward comes between this one's forward and backward; itself if none
  Kind x, grad_output, out, grad_input;
};

struct Problem {
  std::vector<Weight> weights;
  std::vector<Call> calls;
};

inline Shape draw_linear(Draw& draw) {
  return {draw.small(1, 1200), draw.small(1, 1200), {1, 1}, {1, 1}, {0, 0}, {1, 1}, 1};
}

inline Shape draw_convolution(Draw& draw) {
  const int groups = draw.chance(0.6) ? 1 : draw.small(1, 16);
  Shape shape{groups * draw.small(1, 64), groups * draw.small(1, 64), {}, {}, {}, {}, groups};
  const bool plain = draw.chance(0.4);  // 3x3 or 1x1, moving by one
  for (int axis = 0; axis < 2; ++axis) {
    shape.kernel[axis] = plain ? draw.one_of({1, 3, 3}) : draw.small(1, 7);
    shape.stride[axis] = plain ? 1 : draw.small(1, 4);
    shape.padding[axis] = plain ? shape.kernel[axis] / 2 : draw.from(0, 4);
    shape.dilation[axis] = plain ? 1 : draw.small(1, 3);
  }
  return shape;
}

inline Extent draw_extent(bool linear, Draw& draw) {
  const int images = draw.chance(0.03) ? 0 : draw.small(1, linear ? 400 : 40);
  if (linear) return {images, 1, 1};
  const int most = draw.chance(0.2) ? 2 : 40;  // in tiny images, windows meet padding alone
  return {images, draw.small(1, most), draw.small(1, most)};
}

// Which weights of a row are kept.
inline void draw_pattern(Weight& weight, Draw& draw) {
  const int columns = weight.columns();
  const double sparsity = draw.one_of({0.0, 0.3, 0.5, 0.8, 0.9, 0.95, 0.99, 1.0});
  const double empty_rows = draw.one_of({0.0, 0.0, 0.2, 0.7});
  const bool skewed = draw.chance(0.3), runs = draw.chance(0.2);
  weight.indptr = {0};
  for (int row = 0; row < weight.shape.out_features; ++row) {
    double density = draw.chance(empty_rows) ? 0.0 : 1.0 - sparsity;
    if (skewed) density = std::min(1.0, density * std::pow(draw.share(), 4) * 5);
    bool kept = false;
    for (int column = 0; column < columns; ++column) {
      if (!runs || column % 8 == 0) kept = draw.chance(density);
      if (kept) weight.indices.push_back(column);
    }
    weight.indptr.push_back(static_cast<std::int32_t>(weight.indices.size()));
  }
}

inline PlanDraw draw_plan(const Weight& weight, Draw& draw) {
  const int all = 1 << 30;
  PlanDraw plan{draw.chance(weight.linear ? 0.2 : 0.5), draw.from(1, 8), draw.small(1, weight.linear ? 16 : 4),
                draw.small(1, 7), all, all};
  if (draw.chance(0.6)) plan.forward_block = draw.small(1, std::max(8, weight.shape.in_features));
  if (draw.chance(0.6)) plan.backward_block = draw.small(1, std::max(8, weight.shape.out_features));
  return plan;
}

inline Weight draw_weight(Draw& draw) {
  Weight weight{};
  weight.linear = draw.chance(0.35);
  do {
    weight.shape = weight.linear ? draw_linear(draw) : draw_convolution(draw);
    weight.hint = draw_extent(weight.linear, draw);
  } while (!weight.fits(weight.hint));
  if (weight.linear && draw.chance(0.02)) {  // on both sides of what 16 bits can index
    weight.shape.in_features = draw.from(65535, 65538), weight.shape.out_features = draw.from(1, 7);
    if (draw.chance(0.3)) std::swap(weight.shape.in_features, weight.shape.out_features);
    weight.hint.images = draw.from(1, 2);
  }
  draw_pattern(weight, draw);
  weight.plan = draw_plan(weight, draw);
  return weight;
}

inline Kind draw_kind(bool input, Draw& draw) {
  return draw.chance(0.3) ? Kind::contiguous : static_cast<Kind>(draw.from(0, input ? 5 : 4));
}

inline Call draw_call(const Problem& problem, Draw& draw) {
  Call call{};
  call.layer = draw.chance(0.7) ? 0 : static_cast<int>(problem.weights.size()) - 1;
  const Weight& weight = problem.weights[call.layer];
  call.extent = weight.hint;
  if (!problem.calls.empty() || draw.chance(0.3))
    while (draw.chance(0.5) || !weight.fits(call.extent)) call.extent = draw_extent(weight.linear, draw);
  if (draw.chance(0.15)) call.extent.images = draw.from(1, 2);
  if (!weight.fits(call.extent)) call.extent = weight.hint;
  call.threads = draw.one_of({1, 1, 2, 3});
  call.new_values = draw.chance(0.5), call.bias = draw.chance(0.5), call.saved = draw.chance(0.5);
  const int needs = draw.from(0, 5);
  call.wants_input = needs != 0, call.wants_values = needs != 1;
  call.non_finite = draw.chance(0.08);
  const int count = static_cast<int>(problem.calls.size());
  call.between = draw.chance(0.2) ? draw.from(0, count) : count;
  call.x = draw_kind(true, draw), call.grad_output = draw_kind(true, draw);
  call.out = draw_kind(false, draw), call.grad_input = draw_kind(false, draw);
  return call;
}

inline Problem draw_problem(Draw& draw) {
  Problem problem;
  const int layers = draw.chance(0.6) ? 1 : 2;
  for (int i = 0; i < layers; ++i) problem.weights.push_back(draw_weight(draw));
  const int calls = draw.from(1, 3);
  for (int i = 0; i < calls; ++i) problem.calls.push_back(draw_call(problem, draw));
  return problem;
}

}  // namespace fuzz
