#include "copy.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace sparsebench {

namespace {

struct Dimension {
  std::int64_t size, to, from;  // strides
};

// The dimensions that matter, outermost in `from` first; neighbours that both tensors run through in one go are one.
int dimensions(const View& to, const View& from, const Size& size, Dimension (&found)[4]) {
  int count = 0;
  for (int d = 0; d < 4; ++d)
    if (size[d] > 1) found[count++] = {size[d], to.stride[d], from.stride[d]};
  for (int i = 1; i < count; ++i)
    for (int j = i; j > 0 && found[j - 1].from < found[j].from; --j) std::swap(found[j - 1], found[j]);
  for (int d = count - 2; d >= 0; --d) {
    const Dimension inner = found[d + 1];
    if (found[d].to != inner.to * inner.size || found[d].from != inner.from * inner.size) continue;
    found[d] = {found[d].size * inner.size, inner.to, inner.from};
    std::copy(found + d + 2, found + count, found + d + 1);
    --count;
  }
  return count;
}

int unit(const Dimension* all, int count, std::int64_t Dimension::*stride) {
  for (int d = 0; d < count; ++d)
    if (all[d].*stride == 1) return d;
  return -1;
}

template <class Body>
void nest(const Dimension* outer, int count, float* to, const float* from, Body&& body) {
  if (count == 0) return body(to, from);
  for (std::int64_t i = 0; i < outer->size; ++i)
    nest(outer + 1, count - 1, to + i * outer->to, from + i * outer->from, body);
}

}  // namespace

void copy(const View& to, const View& from, const Size& size, const Loops& loops) {
  if (size[0] * size[1] * size[2] * size[3] == 0) return;
  Dimension all[4];
  int count = dimensions(to, from, size, all);
  const int to_unit = unit(all, count, &Dimension::to), from_unit = unit(all, count, &Dimension::from);
  const bool square = to_unit >= 0 && from_unit >= 0 && to_unit != from_unit;
  Dimension inner[2] = {{1, 1, 1}, {1, 1, 1}};
  const int first = to_unit >= 0 ? to_unit : count - 1;
  if (count > 0) inner[0] = all[first];
  if (square) inner[1] = all[from_unit];
  Dimension outer[4];
  int outers = 0;
  for (int d = 0; d < count; ++d)
    if (d != first && !(square && d == from_unit)) outer[outers++] = all[d];
  if (square) {
    nest(outer, outers, to.data, from.data, [&](float* t, const float* f) {
      loops.transpose(t, inner[1].to, f, inner[0].from, static_cast<int>(inner[0].size), static_cast<int>(inner[1].size));
    });
  } else if (inner[0].to == 1 && inner[0].from == 1) {
    nest(outer, outers, to.data, from.data,
         [&](float* t, const float* f) { std::memcpy(t, f, inner[0].size * sizeof(float)); });
  } else {
    nest(outer, outers, to.data, from.data, [&](float* t, const float* f) {
      for (std::int64_t i = 0; i < inner[0].size; ++i) t[i * inner[0].to] = f[i * inner[0].from];
    });
  }
}

}  // namespace sparsebench
