// A problem in one line, for whoever has to find out what is special about it.
#pragma once
#include <cstdio>
#include <string>

#include "problem.h"

namespace fuzz {

template <class... Parts>
std::string format(const char* how, Parts... parts) {
  char text[400];
  std::snprintf(text, sizeof text, how, parts...);
  return text;
}

inline std::string describe(const Weight& weight) {
  const Shape& s = weight.shape;
  std::string text = format("%s %d->%d nnz %d", weight.linear ? "linear" : "conv2d", s.in_features, s.out_features,
                            weight.indptr.back());
  if (!weight.linear)
    text += format(" kernel %dx%d stride %d,%d padding %d,%d dilation %d,%d groups %d", s.kernel[0], s.kernel[1], s.stride[0],
                   s.stride[1], s.padding[0], s.padding[1], s.dilation[0], s.dilation[1], s.groups);
  const PlanDraw& p = weight.plan;
  text += p.flat ? format(" flat %d", p.images) : format(" rows %d", p.vectors);
  return text + format(" tile %d blocks %d/%d", p.tile, p.forward_block, p.backward_block);
}

inline std::string describe(const Call& call) {
  std::string text = format("layer %d: %d images %dx%d", call.layer, call.extent.images, call.extent.height, call.extent.width);
  text += format(" x %s grad_output %s out %s grad_input %s", KIND_NAMES[static_cast<int>(call.x)],
                 KIND_NAMES[static_cast<int>(call.grad_output)], KIND_NAMES[static_cast<int>(call.out)],
                 KIND_NAMES[static_cast<int>(call.grad_input)]);
  text += format(" threads %d%s%s%s%s%s%s", call.threads, call.bias ? " bias" : "", call.saved ? " saved" : "",
                 call.new_values ? " new values" : "", call.wants_input ? "" : " no grad_input",
                 call.wants_values ? "" : " no grad_values", call.non_finite ? " non-finite" : "");
  return text + format(" after %d", call.between);
}

inline std::string describe(const Problem& problem) {
  std::string text;
  for (const Weight& weight : problem.weights) text += (text.empty() ? "" : "; ") + describe(weight);
  for (const Call& call : problem.calls) text += "; " + describe(call);
  return text;
}

}  // namespace fuzz
