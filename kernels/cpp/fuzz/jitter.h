// Loops that sometimes hold a thread up before they do their work: a barrier that is missing then shows.
//
// This also is where a fault of the loops is planted.
#pragma once
#include <time.h>

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "../loops.h"
#include "plant.h"

namespace fuzz {

inline std::atomic<int> pauses{0};      // that the threads may still take, all together
inline std::atomic<int> rarity{0};      // one call in 2^rarity is held up
inline const sparsebench::Loops* real_loops = nullptr;
inline bool shifted_offsets = false;

inline void allow_pauses(bool several_threads) {
  pauses = several_threads ? 6 : 0;
  rarity = rarity % 7 + 1;
}

// Waits up to 64 us, each thread at calls of its own.
inline void hold_up() {
  if (pauses.load(std::memory_order_relaxed) <= 0) return;
  static std::atomic<std::uint32_t> threads{0};
  thread_local std::uint32_t state = 1 + threads.fetch_add(1);
  state = state * 1664525u + 1013904223u;
  if (state >> (32 - rarity) != 0 || pauses.fetch_sub(1) <= 0) return;
  const timespec pause{0, static_cast<long>(state & 0xffff)};
  nanosleep(&pause, nullptr);
}

inline void multiply(const sparsebench::Product& product, int vectors) {
  hold_up();
  sparsebench::Product planted = product;
  if (shifted_offsets) planted.rows.panel += sizeof(float);
  real_loops->multiply(planted, vectors);
}

inline void sample(const sparsebench::Sample& sample, int vectors) {
  hold_up();
  real_loops->sample(sample, vectors);
}

inline void transpose(float* to, std::ptrdiff_t to_stride, const float* from, std::ptrdiff_t from_stride, int across, int down) {
  hold_up();
  real_loops->transpose(to, to_stride, from, from_stride, across, down);
}

inline void stream(const sparsebench::Stream& stream, const float* x, const float* bias, float* out) {
  hold_up();
  real_loops->stream(stream, x, bias, out);
}

inline void outer(const sparsebench::Stream& stream, const float* x, const float* grad_output, float* grad_values) {
  hold_up();
  real_loops->outer(stream, x, grad_output, grad_values);
}

// `offset` of the faults: every product reads its panel one float too far.
inline sparsebench::Loops with_jitter(const sparsebench::Loops& loops, Plant plant) {
  real_loops = &loops;
  shifted_offsets = plant == Plant::offset;
  sparsebench::Loops held = loops;
  held.multiply = multiply, held.sample = sample, held.transpose = transpose, held.stream = stream,
  held.outer = outer;
  return held;
}

}  // namespace fuzz
