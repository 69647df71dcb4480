// One row's walk, compiled once per instruction set. Places are positions among the weights that were left at the last
// flush, in the order of their columns; the places beyond the last are padding that is never chosen.
#include <math.h>
#include <string.h>

#include "layout.h"
#include "obs.h"

#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)

namespace {

#if defined(__AVX512F__)
constexpr int LANES = 8, TALL = 8;
#elif defined(__AVX2__)
constexpr int LANES = 4, TALL = 4;
#else
constexpr int LANES = 2, TALL = 2;
#endif
constexpr int WIDE = PANEL / LANES;  // TALL x WIDE sums are what the registers hold, and as many as hide the latency

typedef double Vector __attribute__((vector_size(8 * LANES)));
typedef Vector Memory __attribute__((may_alias));

inline Vector load(const double* from) { return *reinterpret_cast<const Memory*>(from); }
inline void store(double* to, Vector value) { *reinterpret_cast<Memory*>(to) = value; }
inline Vector splat(double value) { return value - Vector{}; }

struct Row {
  int64_t places, pending, stride;
  double* inverse;  // [places, stride]: G as it was at the last flush
  double* panels;   // [places / PANEL, PENDING, PANEL]: the vectors that it has yet to lose
  double *weight, *diagonal, *least;  // of now
  double* bar;       // added to a score: -inf goes first, inf is never chosen
  double* score;
  int32_t* column;  // of a place; -1 if it is gone
  int32_t* place;   // of a column
  int32_t* source;  // for the flush
  int32_t* taken;   // by group

  double* panel(int64_t place) const { return panels + place / PANEL * (PENDING * PANEL) + place % PANEL; }
};

void pad(Row& row) {
  for (int64_t i = row.places; i < padded(row.places); ++i) {
    row.weight[i] = 0, row.diagonal[i] = row.least[i] = 1, row.bar[i] = INFINITY, row.column[i] = -1;
    for (int64_t k = 0; k < row.pending; ++k) row.panel(i)[k * PANEL] = 0;
  }
}

Row begin(const ObsTask& task, int64_t index, ObsScratch scratch) {
  const int64_t columns = task.columns, room = padded(columns);
  Row row{};
  row.places = columns, row.stride = stride_of(columns);
  double* next = scratch.doubles;
  const auto take = [&](int64_t count) { return (next += count) - count; };
  row.inverse = take(room * row.stride), row.panels = take(room * PENDING);
  row.weight = take(room), row.diagonal = take(room), row.least = take(room), row.bar = take(room);
  row.score = take(room);
  row.column = scratch.integers, row.place = row.column + room, row.source = row.place + room;
  row.taken = row.source + room;
  memset(row.taken, 0, sizeof(int32_t) * static_cast<size_t>(task.groups));
  const uint8_t* pruned = task.pruned ? task.pruned + index * columns : nullptr;
  for (int64_t i = 0; i < columns; ++i) {
    double* to = row.inverse + i * row.stride;
    memcpy(to, task.inverse + i * columns, sizeof(double) * static_cast<size_t>(columns));
    memset(to + columns, 0, sizeof(double) * static_cast<size_t>(room - columns));
    row.weight[i] = task.weights[index * columns + i];
    row.least[i] = task.least[i];
    row.diagonal[i] = to[i] > row.least[i] ? to[i] : row.least[i];
    row.bar[i] = pruned && pruned[i] ? -INFINITY : 0;
    row.column[i] = row.place[i] = static_cast<int32_t>(i);
  }
  pad(row);
  return row;
}

// The first place with the least score, -1 if there is none.
int64_t least_place(const Row& row) {
  Vector low = splat(INFINITY);
  const int64_t room = padded(row.places);
  for (int64_t i = 0; i < room; i += LANES) {
    const Vector weight = load(row.weight + i);
    const Vector score = weight * weight / load(row.diagonal + i) + load(row.bar + i);
    low = score < low ? score : low;
    store(row.score + i, score);
  }
  double least = low[0];
  for (int lane = 1; lane < LANES; ++lane) least = low[lane] < least ? low[lane] : least;
  if (!(least < INFINITY)) return -1;
  for (int64_t i = 0;; ++i)
    if (row.score[i] == least) return i;
}

// Takes away the weight at a place: the column of G as it is now, and what it does to weights and diagonal.
void remove(Row& row, int64_t place) {
  const double root = 1 / sqrt(row.diagonal[place]), push = row.weight[place] * root;
  const double *old = row.inverse + place * row.stride, *factor = row.panel(place);
  for (int64_t i = 0; i < padded(row.places); i += 2 * PANEL) {
    double *one = row.panel(i), *other = row.panel(i + PANEL);
    Vector sums[2 * WIDE];
    for (int c = 0; c < 2 * WIDE; ++c) sums[c] = load(old + i + c * LANES);
    for (int64_t k = 0; k < row.pending; ++k) {
      const Vector by = splat(factor[k * PANEL]);
      for (int c = 0; c < WIDE; ++c) sums[c] -= by * load(one + k * PANEL + c * LANES);
      for (int c = 0; c < WIDE; ++c) sums[WIDE + c] -= by * load(other + k * PANEL + c * LANES);
    }
    for (int c = 0; c < 2 * WIDE; ++c) {
      const int64_t at = i + c * LANES;
      const Vector vector = sums[c] * root, least = load(row.least + at);
      store((c < WIDE ? one : other) + row.pending * PANEL + c % WIDE * LANES, vector);
      store(row.weight + at, load(row.weight + at) - vector * push);
      const Vector diagonal = load(row.diagonal + at) - vector * vector;
      store(row.diagonal + at, diagonal > least ? diagonal : least);
    }
  }
  row.place[row.column[place]] = -1;
  row.column[place] = -1;
  row.weight[place] = 0;
  row.bar[place] = INFINITY;
  ++row.pending;
}

// Closes the gaps in everything but G; source[i] is where place i was.
void close_ranks(Row& row) {
  int64_t left = 0;
  for (int64_t i = 0; i < row.places; ++i) {
    if (row.column[i] < 0) continue;
    row.source[left] = static_cast<int32_t>(i);
    row.weight[left] = row.weight[i], row.diagonal[left] = row.diagonal[i];
    row.least[left] = row.least[i], row.bar[left] = row.bar[i], row.column[left] = row.column[i];
    row.place[row.column[left]] = static_cast<int32_t>(left);
    double *to = row.panel(left), *from = row.panel(i);
    for (int64_t k = 0; k < PENDING; ++k) to[k * PANEL] = from[k * PANEL];
    ++left;
  }
  row.places = left;
  pad(row);
}

// Rows `first` to first + PANEL of G from where they were, up to the block on the diagonal; padding is 0.
void gather(const Row& row, int64_t first) {
  for (int64_t i = first; i < first + PANEL; ++i) {
    double* to = row.inverse + i * row.stride;
    const int64_t end = i < row.places ? (first + PANEL < row.places ? first + PANEL : row.places) : 0;
    const double* from = end ? row.inverse + row.source[i] * row.stride : nullptr;
    for (int64_t j = 0; j < end; ++j) to[j] = from[row.source[j]];
    for (int64_t j = end; j < first + PANEL; ++j) to[j] = 0;
  }
}

// One block of G loses all pending vectors. They are counted at compile time: it is only ever a full set.
void downdate(const Row& row, int64_t i, int64_t j) {
  const double *tall = row.panel(i), *wide = row.panel(j);
  double* block = row.inverse + i * row.stride + j;
  for (int r = 0; r < PANEL; r += TALL) {
    Vector sums[TALL][WIDE];
    for (int a = 0; a < TALL; ++a)
      for (int c = 0; c < WIDE; ++c) sums[a][c] = load(block + (r + a) * row.stride + c * LANES);
    for (int64_t k = 0; k < PENDING; ++k) {
      Vector line[WIDE];
      for (int c = 0; c < WIDE; ++c) line[c] = load(wide + k * PANEL + c * LANES);
      for (int a = 0; a < TALL; ++a)
        for (int c = 0; c < WIDE; ++c) sums[a][c] -= splat(tall[k * PANEL + r + a]) * line[c];
    }
    for (int a = 0; a < TALL; ++a)
      for (int c = 0; c < WIDE; ++c) store(block + (r + a) * row.stride + c * LANES, sums[a][c]);
  }
}

void mirror(const Row& row, int64_t i, int64_t j) {
  const double* from = row.inverse + i * row.stride + j;
  double* to = row.inverse + j * row.stride + i;
  for (int c = 0; c < PANEL; ++c)
    for (int r = 0; r < PANEL; ++r) to[c * row.stride + r] = from[r * row.stride + c];
}

void flush(Row& row) {
  close_ranks(row);
  // All of it is gathered first: a mirrored block would overwrite what a later row is still to be gathered from.
  for (int64_t i = 0; i < padded(row.places); i += PANEL) gather(row, i);
  for (int64_t i = 0; i < padded(row.places); i += PANEL) {
    for (int64_t j = 0; j <= i; j += PANEL) downdate(row, i, j);
    for (int64_t j = 0; j < i; j += PANEL) mirror(row, i, j);
  }
  row.pending = 0;
}

// Every level at which `gone` weights are gone, from `level` on; gives the next one.
int32_t write_levels(const ObsTask& task, int64_t index, const Row& row, int32_t gone, int32_t level) {
  for (; level < task.levels && task.counts[index * task.levels + level] <= gone; ++level) {
    double* result = task.results + (index * task.levels + level) * task.columns;
    for (int64_t i = 0; i < task.columns; ++i) result[i] = row.place[i] < 0 ? 0 : row.weight[row.place[i]];
  }
  return level;
}

void close_group(const ObsTask& task, Row& row, int32_t group) {
  if (++row.taken[group] < task.most) return;
  for (int64_t i = 0; i < row.places; ++i)
    if (row.column[i] >= 0 && task.group[row.column[i]] == group) row.bar[i] = INFINITY;
}

}  // namespace

extern "C" int JOIN(obs_walk_, SPARSEBENCH_ISA)(const ObsTask* task, int64_t index, ObsScratch scratch) {
  Row row = begin(*task, index, scratch);
  int32_t* order = task->order + index * task->steps;
  int32_t level = write_levels(*task, index, row, 0, 0);
  for (int32_t step = 0; step < task->steps && (task->levels == 0 || level < task->levels); ++step) {
    if (row.pending == PENDING) flush(row);
    const int64_t place = task->levels ? row.place[order[step]] : least_place(row);
    if (place < 0) return 1;
    if (task->levels == 0) {
      const int32_t column = row.column[place];
      order[step] = column;
      task->losses[index * task->steps + step] = row.weight[place] * row.weight[place] / row.diagonal[place] / 2;
      remove(row, place);
      if (task->group) close_group(*task, row, task->group[column]);
    } else {
      remove(row, place);
      level = write_levels(*task, index, row, step + 1, level);
    }
  }
  return 0;
}
