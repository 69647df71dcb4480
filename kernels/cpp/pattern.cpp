#include "pattern.h"

#include <algorithm>
#include <utility>

namespace sparsebench {

namespace {

constexpr int COST_OF_A_ROW = 4;  // beside its non-zeros: loading and storing its sums

// What a column of the weight means, for columns of one group.
struct Column {
  std::int32_t plane;  // within the group: channel * phases + phase
  std::int32_t step;   // distance of its tap from the window's begin, in positions
};

std::vector<Column> columns_of(const Shape& shape, const Layout& layout) {
  std::vector<Column> columns;
  const int across_phases = static_cast<int>(layout.across.phases.size());
  for (int channel = 0; channel < shape.in_features / shape.groups; ++channel)
    for (int y = 0; y < shape.kernel[0]; ++y)
      for (int x = 0; x < shape.kernel[1]; ++x)
        columns.push_back({channel * layout.phases + layout.down.phase_index(y) * across_phases + layout.across.phase_index(x),
                           layout.down.step(y) * layout.pitch + layout.across.step(x)});
  return columns;
}

// The planes are cut into blocks that do not cross groups, or that hold whole groups.
struct Cut {
  int planes_per_group, rows_per_group, groups, block;  // block: planes, or groups if `whole`
  bool whole;

  Cut(int planes, int rows, int groups, int block_planes)
      : planes_per_group(planes / groups), rows_per_group(rows / groups), groups(groups) {
    whole = planes_per_group <= block_planes;
    block = whole ? std::max(1, std::min(groups, block_planes / planes_per_group)) : block_planes;
  }
  int per_group() const { return whole ? 1 : (planes_per_group + block - 1) / block; }
  int count() const { return whole ? (groups + block - 1) / block : groups * per_group(); }
  int of(int group, int plane) const { return whole ? group / block : group * per_group() + plane / block; }
  // The plane within its group at which a block ends.
  int end(int index) const {
    return whole ? planes_per_group : std::min(planes_per_group, (index % per_group() + 1) * block);
  }
  Block bounds(int index) const {
    const int from = whole ? index * block : index / per_group();
    const int to = whole ? std::min(groups, from + block) : from + 1;
    return {from * rows_per_group, to * rows_per_group, 0, whole || index % per_group() == 0};
  }
};

std::vector<Block> blocks_of(const Cut& cut) {
  std::vector<Block> blocks;
  std::int64_t start = 0;
  for (int index = 0; index < cut.count(); ++index) {
    blocks.push_back(cut.bounds(index));
    blocks.back().first_start = start;
    start += blocks.back().row_end - blocks.back().row_begin + 1;
  }
  return blocks;
}

void weigh_rows(Pattern& pattern) {
  std::vector<std::int64_t> cost(pattern.rows + 1, 0);
  for (const Block& block : pattern.blocks) {
    const std::int32_t* starts = pattern.starts.data() + block.first_start;
    for (int row = block.row_begin; row < block.row_end; ++row, ++starts)
      cost[row + 1] += starts[1] - starts[0] + COST_OF_A_ROW;
  }
  for (int row = 0; row < pattern.rows; ++row) cost[row + 1] += cost[row];
  pattern.weight_of_rows = std::move(cost);
}

}  // namespace

Range Pattern::share(int part, int parts, Range among) const {
  const auto begin = weight_of_rows.begin() + among.begin, end = weight_of_rows.begin() + among.end;
  const auto bound = [&](int k) {
    if (k == 0) return among.begin;
    if (k == parts) return among.end;
    return static_cast<int>(std::lower_bound(begin, end, *begin + (*end - *begin) * k / parts) - weight_of_rows.begin());
  };
  return {bound(part), bound(part + 1)};
}

std::size_t Pattern::bytes() const {
  return 4 * (starts.size() + targets.size() + order.size() + offsets.size() + values.size()) + 8 * weight_of_rows.size() +
         sizeof(Block) * blocks.size();
}

Pattern forward_pattern(const Shape& shape, const Csr& csr, const Layout& layout, int block_planes) {
  // Whole channels: a row's entries are sorted by channel, and a channel's taps meet its phases in any order.
  const int whole_channels = (block_planes + layout.phases - 1) / layout.phases * layout.phases;
  const Cut cut(shape.in_features * layout.phases, shape.out_features, shape.groups, whole_channels);
  const std::vector<Column> columns = columns_of(shape, layout);
  const std::int32_t nnz = csr.indptr[shape.out_features];
  Pattern pattern;
  pattern.rows = shape.out_features;
  pattern.blocks = blocks_of(cut);
  pattern.offsets.resize(nnz);
  pattern.values.resize(nnz);
  std::vector<std::int32_t> next(csr.indptr, csr.indptr + shape.out_features);  // of each row, where its block begins
  std::int32_t at = 0;
  for (int index = 0; index < cut.count(); ++index) {
    const Block& block = pattern.blocks[index];
    const int end_plane = cut.end(index);
    for (int row = block.row_begin; row < block.row_end; ++row) {
      pattern.starts.push_back(at);
      pattern.targets.push_back(next[row]);
      const std::int32_t first_plane = row / cut.rows_per_group * cut.planes_per_group;
      std::int32_t k = next[row];
      for (; k < csr.indptr[row + 1] && columns[csr.indices[k]].plane < end_plane; ++k) {
        const Column& column = columns[csr.indices[k]];
        const std::int64_t plane = first_plane + column.plane;
        const std::int64_t place = plane * layout.input_stride + std::int64_t{column.step} * layout.images;
        pattern.offsets[at++] = static_cast<std::int32_t>(place * 4);
      }
      next[row] = k;
    }
    pattern.starts.push_back(at);
    pattern.targets.push_back(0);  // so that both are indexed alike
  }
  weigh_rows(pattern);
  return pattern;
}

Pattern transposed_pattern(const Shape& shape, const Csr& csr, const Layout& layout, const Pattern& forward,
                           int block_planes) {
  const Cut cut(shape.out_features, shape.in_features * layout.phases, shape.groups, block_planes);
  const std::vector<Column> columns = columns_of(shape, layout);
  const std::int32_t nnz = csr.indptr[shape.out_features];
  Pattern pattern;
  pattern.rows = shape.in_features * layout.phases;
  pattern.blocks = blocks_of(cut);
  pattern.offsets.resize(nnz);
  pattern.values.resize(nnz);
  pattern.order.resize(nnz);
  std::size_t starts = 0;
  for (const Block& block : pattern.blocks) starts += block.row_end - block.row_begin + 1;
  pattern.starts.assign(starts, 0);

  // An entry of forward, in forward's order, belongs to (block of its output feature, row of its plane): a counting sort.
  // Two entries of a row can share a plane (two taps), so the second pass moves each row's start on as it places them.
  const auto each = [&](auto&& visit) {
    for (std::size_t b = 0; b < forward.blocks.size(); ++b) {
      const Block& block = forward.blocks[b];
      const std::int32_t* start = forward.starts.data() + block.first_start;
      const std::int32_t* target = forward.targets.data() + block.first_start;
      for (int feature = block.row_begin; feature < block.row_end; ++feature, ++start, ++target) {
        const int group = feature / cut.planes_per_group;
        const Block& home = pattern.blocks[cut.of(group, feature % cut.planes_per_group)];
        for (std::int32_t k = start[0]; k < start[1]; ++k) {
          const Column& column = columns[csr.indices[*target + (k - start[0])]];
          const std::int64_t row = std::int64_t{group} * cut.rows_per_group + column.plane - home.row_begin;
          visit(feature, column, home.first_start + row, k);
        }
      }
    }
  };
  each([&](int, const Column&, std::int64_t start, std::int32_t) { ++pattern.starts[start]; });
  std::int32_t at = 0;
  for (std::int32_t& start : pattern.starts) at += std::exchange(start, at);
  each([&](int feature, const Column& column, std::int64_t start, std::int32_t k) {
    const std::int32_t place = pattern.starts[start]++;
    const std::int64_t position = layout.lead + layout.first - column.step;
    const std::int64_t from = feature * layout.grad_stride + position * layout.images;
    pattern.offsets[place] = static_cast<std::int32_t>(from * 4);
    pattern.order[place] = k;
  });
  for (std::size_t i = pattern.starts.size() - 1; i > 0; --i) pattern.starts[i] = pattern.starts[i - 1];
  pattern.starts[0] = 0;
  weigh_rows(pattern);
  return pattern;
}

namespace {

// Calls move(position in CSR order, position in forward's order, count) for every stretch that is whole in both.
template <class Move>
void each_stretch(const Pattern& forward, Move&& move) {
  for (const Block& block : forward.blocks) {
    const std::int32_t* start = forward.starts.data() + block.first_start;
    const std::int32_t* target = forward.targets.data() + block.first_start;
    for (int row = block.row_begin; row < block.row_end; ++row, ++start, ++target) move(*target, *start, start[1] - start[0]);
  }
}

}  // namespace

void set_values(Pattern& forward, const float* values) {
  each_stretch(forward, [&](std::int32_t csr, std::int32_t own, std::int32_t count) {
    for (std::int32_t k = 0; k < count; ++k) forward.values[own + k] = values[csr + k];
  });
}

void get_values(const Pattern& forward, float* values) {
  each_stretch(forward, [&](std::int32_t csr, std::int32_t own, std::int32_t count) {
    for (std::int32_t k = 0; k < count; ++k) values[csr + k] = forward.values[own + k];
  });
}

void set_values(Pattern& transposed, const Pattern& forward) {
  for (std::size_t k = 0; k < transposed.order.size(); ++k) transposed.values[k] = forward.values[transposed.order[k]];
}

}  // namespace sparsebench
