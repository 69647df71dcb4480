// A pattern as the loops walk it: for each block of planes, for each row, the entries of that row that read the block.
//
// A block is as many planes as a tile's share of a cache holds. Entries of one (block, row) are neighbours in memory, in the
// order in which a row's sum is formed: ascending planes, whatever the number of threads.
#pragma once
#include <cstdint>
#include <vector>

#include "layout.h"

namespace sparsebench {

// The weight that a layer is bound to: CSR of [out_features, columns], owned by the caller.
struct Csr {
  const std::int32_t* indptr;
  const std::int32_t* indices;
};

// Rows [begin, end) of a pattern.
struct Range {
  int begin, end;
};

// Planes [.., ..) as the rows [row_begin, row_end) read them; its first start is starts[first_start].
struct Block {
  int row_begin, row_end;
  std::int64_t first_start;
  bool first;  // whether these rows have no earlier block
};

struct Pattern {
  int rows = 0;
  std::vector<Block> blocks;
  std::vector<std::int32_t> starts;   // of each (block, row), and one more for each block
  std::vector<std::int32_t> targets;  // forward: where each (block, row) begins in CSR order
  std::vector<std::int32_t> order;    // transposed: the position of each entry in forward's order
  std::vector<std::int32_t> offsets;  // bytes from a tile's begin in the packed planes
  std::vector<float> values;
  std::vector<std::int64_t> weight_of_rows;  // running sum of what rows cost, to share them out: [rows + 1]

  // Share `part` of `parts` of some rows, shares being equal in non-zeros.
  Range share(int part, int parts, Range among) const;
  std::size_t bytes() const;
};

// Rows are output features; entries read packed input planes.
Pattern forward_pattern(const Shape& shape, const Csr& csr, const Layout& layout, int block_planes);

// Rows are the input's planes (channel, phase); entries read packed planes of grad_output.
Pattern transposed_pattern(const Shape& shape, const Csr& csr, const Layout& layout, const Pattern& forward,
                           int block_planes);

// New values [nnz] in CSR order, into forward's order; and from there into the transposed order.
void set_values(Pattern& forward, const float* values);
void set_values(Pattern& transposed, const Pattern& forward);
void get_values(const Pattern& forward, float* values);

}  // namespace sparsebench
