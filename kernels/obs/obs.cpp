// Hands the rows of a layer to threads. Rows do not know of each other, so the numbers do not depend on who takes them.
#include "obs.h"

#include <stdlib.h>
#include <string.h>

#include "layout.h"

namespace {

ObsWalk walk_of(const char* isa) {
  if (strcmp(isa, "base") == 0) return obs_walk_base;
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (strcmp(isa, "avx2") == 0 && __builtin_cpu_supports("x86-64-v3")) return obs_walk_avx2;
  if (strcmp(isa, "avx512") == 0 && __builtin_cpu_supports("x86-64-v4")) return obs_walk_avx512;
#endif
  return nullptr;
}

// Weights that were pruned before go first in every order, whatever they lose; a key below all others says so.
void pool_row(const ObsTask& task, int64_t row, int32_t* lengths) {
  int32_t before = 0;
  for (int64_t i = 0; task.pruned && i < task.columns; ++i) before += task.pruned[row * task.columns + i] != 0;
  if (before > task.steps) before = task.steps;
  double* keys = task.keys + row * task.steps;
  for (int32_t i = 0; i < before; ++i) keys[i] = -1;
  obs_pool(task.losses + row * task.steps + before, task.steps - before, keys + before, lengths);
}

}  // namespace

int64_t obs_doubles(int64_t columns) {
  const int64_t room = padded(columns);
  return room * stride_of(columns) + room * PENDING + 5 * room;
}

int64_t obs_integers(int64_t columns, int64_t groups) { return 3 * padded(columns) + groups; }

const char* obs_best_isa(void) { return walk_of("avx512") ? "avx512" : walk_of("avx2") ? "avx2" : "base"; }

int64_t obs_walk(const ObsTask* task, const char* isa, int threads) {
  const ObsWalk walk = walk_of(isa);
  if (walk == nullptr) return -1;
  const auto doubles = sizeof(double) * static_cast<size_t>(obs_doubles(task->columns));
  const auto integers = sizeof(int32_t) * static_cast<size_t>(obs_integers(task->columns, task->groups));
  int64_t failed = task->rows, memory = 1;
#pragma omp parallel num_threads(threads) reduction(min : failed, memory) if (threads > 1)
  {
    void *data = nullptr, *marks = nullptr;
    memory = posix_memalign(&data, 64, doubles) == 0 && posix_memalign(&marks, 64, integers) == 0;
    const ObsScratch scratch{static_cast<double*>(data), static_cast<int32_t*>(marks)};
#pragma omp for schedule(dynamic)
    for (int64_t row = 0; row < task->rows; ++row) {
      if (!memory) continue;
      if (walk(task, row, scratch) != 0) {
        if (row < failed) failed = row;
      } else if (task->levels == 0) {
        pool_row(*task, row, scratch.integers);
      }
    }
    free(data);
    free(marks);
  }
  if (!memory) return -2;
  return failed < task->rows ? failed + 1 : 0;
}

void obs_pool(const double* losses, int32_t steps, double* keys, int32_t* lengths) {
  int32_t pools = 0;  // pool i has the mean keys[i]: there are never more of them than steps
  for (int32_t step = 0; step < steps; ++step) {
    double mean = losses[step];
    int32_t length = 1;
    for (; pools > 0 && keys[pools - 1] > mean; --pools) {
      const int32_t before = lengths[pools - 1];
      mean = (keys[pools - 1] * before + mean * length) / (before + length);
      length += before;
    }
    keys[pools] = mean;
    lengths[pools++] = length;
  }
  for (int32_t end = steps; pools > 0; --pools) {  // from the last, which begins no earlier than where its mean stands
    const double mean = keys[pools - 1];
    for (int32_t left = lengths[pools - 1]; left > 0; --left) keys[--end] = mean;
  }
}
