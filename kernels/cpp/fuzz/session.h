// A problem's data, what it must give, and whether one instruction set's loops give it.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "../layer.h"
#include "../team.h"
#include "draw.h"
#include "jitter.h"
#include "oracle.h"
#include "plant.h"
#include "problem.h"
#include "tensor.h"

namespace fuzz {

// The inputs of a call, and their answers.
struct Given {
  std::vector<float> values;  // of the layer, as of this call
  std::vector<float> bias;    // empty if there is none
  Tensor x, grad_output;
  Placement out, grad_input;
  Expected expected;
};

inline Size input_size(const Weight& weight, const Extent& extent) {
  return {extent.images, weight.shape.in_features, extent.height, extent.width};
}

inline Size output_size(const Weight& weight, const Extent& extent) {
  return {extent.images, weight.shape.out_features, weight.outputs(0, extent.height), weight.outputs(1, extent.width)};
}

inline void fill(Tensor& tensor, bool non_finite, Draw& draw) {
  tensor.each([&](auto... where) {
    float& element = tensor.at(where...);
    element = draw.number();
    if (non_finite && draw.chance(0.02)) element = draw.one_of({INFINITY, -INFINITY, NAN});
  });
}

inline std::vector<float> draw_numbers(std::size_t count, double zeros, Draw& draw) {
  std::vector<float> numbers(count);
  for (float& number : numbers) number = draw.chance(zeros) ? 0.0f : draw.number();
  return numbers;
}

inline Given give(const Problem& problem, const Call& call, const std::vector<float>& values, Draw& draw) {
  const Weight& weight = problem.weights[call.layer];
  const Size in = input_size(weight, call.extent), out = output_size(weight, call.extent);
  Given given{values, {}, {in, place(call.x, in, draw)}, {out, place(call.grad_output, out, draw)},
              place(call.out, out, draw), place(call.grad_input, in, draw), {}};
  fill(given.x, call.non_finite, draw);
  fill(given.grad_output, call.non_finite, draw);
  if (call.bias) given.bias = draw_numbers(weight.shape.out_features, 0.0, draw);
  given.expected = expect(weight, given.values, given.x, given.grad_output, call.bias ? given.bias.data() : nullptr);
  return given;
}

// Every call's inputs and answers; values are those of the last call of the layer that brought new ones.
inline std::vector<Given> give_all(const Problem& problem, Draw& draw) {
  std::vector<std::vector<float>> values;
  const auto fresh = [&](const Weight& weight) { return draw_numbers(weight.indices.size(), 0.05, draw); };
  for (const Weight& weight : problem.weights) values.push_back(fresh(weight));
  std::vector<Given> all;
  for (const Call& call : problem.calls) {
    if (call.new_values) values[call.layer] = fresh(problem.weights[call.layer]);
    all.push_back(give(problem, call, values[call.layer], draw));
  }
  return all;
}

// What one execution of a call wrote.
struct Written {
  Tensor out, grad_input;
  Memory grad_values;
};

// Runs a problem with one set of loops; `wrong` says what was, or is empty.
class Session {
 public:
  Session(const Problem& problem, const std::vector<Given>& given, const sparsebench::Loops& loops, Plant plant)
      : problem_(problem), given_(given), loops_(with_jitter(loops, plant)), plant_(plant) {
    sparsebench::scratch_of_this_thread(1).clear();  // a problem must not depend on the one before
    for (const Weight& weight : problem.weights) {
      indices_.push_back(weight.indices);
      plant_in_indices(plant, weight.indptr, weight.columns(), indices_.back());
    }
    for (std::size_t i = 0; i < problem.weights.size(); ++i) bind(static_cast<int>(i));
    for (std::size_t i = 0; i < problem.calls.size() && wrong.empty(); ++i) check(static_cast<int>(i));
  }
  Session(const Session&) = delete;

  std::string wrong;

 private:
  using Layer = sparsebench::Layer;

  void bind(int index) {
    const Weight& weight = problem_.weights[index];
    // Those of the layer's first call, or NaN if that brings new ones.
    std::vector<float> values(weight.indices.size(), unwritten());
    std::size_t first = 0;
    while (first < problem_.calls.size() && problem_.calls[first].layer != index) ++first;
    if (first < problem_.calls.size() && !problem_.calls[first].new_values) values = given_[first].values;
    plant_in_values(plant_, values);
    layers_.push_back(std::make_unique<Layer>(weight.shape, sparsebench::Csr{weight.indptr.data(), indices_[index].data()},
                                              values.data(), weight.plan.of(loops_.lanes), loops_, weight.hint.height,
                                              weight.hint.width));
  }

  sparsebench::Input input(int index, const Tensor& x) const {
    const Extent& extent = problem_.calls[index].extent;
    return {x.view(), extent.images, extent.height, extent.width};
  }

  void set_values(int index) {
    if (!problem_.calls[index].new_values || plant_ == Plant::stale) return;
    std::vector<float> values = given_[index].values;
    plant_in_values(plant_, values);
    Layer& layer = *layers_[problem_.calls[index].layer];
    layer.set_values(values.data());
    std::vector<float> back(values.size(), unwritten());
    layer.get_values(back.data());
    if (back != values) say("values come back as others");
  }

  // Another call's forward, whose result is not looked at, so that it may leave what it wants in the scratch.
  void forward_between(int index) {
    const int other = problem_.calls[index].between;
    if (other == index || other >= static_cast<int>(problem_.calls.size())) return;
    const Given& given = given_[other];
    Tensor out(given.grad_output.size(), given.out);
    layers_[problem_.calls[other].layer]->forward(input(other, given.x), nullptr, out.view(), nullptr, 1);
  }

  Written execute(int index, int threads, bool saving) {
    const Call& call = problem_.calls[index];
    const Given& given = given_[index];
    Layer& layer = *layers_[call.layer];
    allow_pauses(threads > 1);
    const std::int64_t guard = 16, nnz = static_cast<std::int64_t>(given.values.size());
    Written written{{given.grad_output.size(), given.out}, {given.x.size(), given.grad_input}, {nnz + guard, 3}};
    const std::int64_t saves = saving ? layer.saved_size(call.extent.images, call.extent.height, call.extent.width) : 0;
    Memory saved(saves, 0);
    const float* const bias = call.bias && plant_ != Plant::bias ? given.bias.data() : nullptr;
    layer.forward(input(index, given.x), bias, written.out.view(), saves ? saved.data() : nullptr, threads);
    plant_in_saved(plant_, saved);
    plant_in_access(plant_, given.x.memory());
    forward_between(index);
    View grad_input = written.grad_input.view();
    if (!call.wants_input) grad_input.data = nullptr;
    layer.backward(input(index, given.x), given.grad_output.view(), grad_input,
                   call.wants_values ? written.grad_values.data() : nullptr, saves ? saved.data() : nullptr, threads);
    plant_in_result(plant_, written.out);
    plant_in_gradient(plant_, threads, written.grad_values, nnz);
    if (plant_ == Plant::input && given.x.memory().count() > 0) given.x.view().data[0] += 1.0f;
    return written;
  }

  void check(int index) {
    const Call& call = problem_.calls[index];
    const Given& given = given_[index];
    const auto copy_of = [](const Tensor& tensor) {
      const Memory& memory = tensor.memory();
      return std::vector<float>(memory.data(), memory.data() + memory.count());
    };
    const std::vector<float> x = copy_of(given.x), grad_output = copy_of(given.grad_output);
    set_values(index);
    const Written one = execute(index, 1, call.saved);
    compare_all(index, one);
    if (call.threads > 1) same_bits(one, execute(index, call.threads, call.saved), std::to_string(call.threads) + " threads");
    if (call.saved) same_bits(one, execute(index, 1, false), "no saved packing");
    unchanged("x", given.x, x);
    unchanged("grad_output", given.grad_output, grad_output);
    if (!wrong.empty()) wrong = "call " + std::to_string(index) + ": " + wrong;
  }

  void compare_all(int index, const Written& written) {
    const Call& call = problem_.calls[index];
    const Expected& expected = given_[index].expected;
    compare("out", written.out, expected.out, call.non_finite);
    if (call.wants_input) compare("grad_input", written.grad_input, expected.grad_input, call.non_finite);
    const std::size_t nnz = expected.grad_values.size();
    for (std::size_t k = 0; call.wants_values && k < nnz; ++k)
      judge("grad_values", written.grad_values.data()[k], expected.grad_values[k], call.non_finite, std::to_string(k));
    for (std::int64_t k = call.wants_values ? nnz : 0; k < written.grad_values.count(); ++k)
      if (std::bit_cast<std::uint32_t>(written.grad_values.data()[k]) != UNWRITTEN) say("wrote beside grad_values");
  }

  void compare(const char* name, const Tensor& got, const std::vector<Sum>& expected, bool lenient) {
    std::size_t at = 0;
    got.each([&](auto... where) {
      const Sum& sum = expected[at++];
      if (!sum.allows(got.at(where...), lenient))
        judge(name, got.at(where...), sum, lenient, ((std::to_string(where) + " ") + ...));
    });
    if (!got.nothing_beside_written()) say(std::string("wrote beside ") + name);
  }

  void judge(const char* name, float got, const Sum& sum, bool lenient, const std::string& where) {
    if (!sum.allows(got, lenient))
      say(std::string(name) + "[" + where + "] is " + std::to_string(got) + ", not " + std::to_string(sum.value) + " within " +
          std::to_string(sum.allowed()) + " (" + std::to_string(sum.terms) + " terms)");
  }

  void same_bits(const Written& one, const Written& other, const std::string& how) {
    if (!one.out.memory().same_bits(other.out.memory())) say("out differs with " + how);
    if (!one.grad_input.memory().same_bits(other.grad_input.memory())) say("grad_input differs with " + how);
    if (!one.grad_values.same_bits(other.grad_values)) say("grad_values differs with " + how);
  }

  void unchanged(const char* name, const Tensor& tensor, const std::vector<float>& before) {
    if (!before.empty() && std::memcmp(tensor.memory().data(), before.data(), before.size() * sizeof(float)) != 0)
      say(std::string(name) + " was changed");
  }

  void say(const std::string& what) {
    if (wrong.empty()) wrong = what;
  }

  const Problem& problem_;
  const std::vector<Given>& given_;
  const sparsebench::Loops loops_;
  Plant plant_;
  std::vector<std::vector<std::int32_t>> indices_;
  std::vector<std::unique_ptr<Layer>> layers_;
};

}  // namespace fuzz
