// How a team walks a pattern: who takes which rows and tiles, and block by block through the loops.
#pragma once
#include <algorithm>

#include "layout.h"
#include "loops.h"
#include "pattern.h"
#include "team.h"

namespace sparsebench {

constexpr int PIECES_OF_A_MEMBER = 4;  // so that a member that is held up leaves its pieces to the others

// Calls body(tile, rows) for every piece that this member takes: one tile of all `rows`, or of a share of them where there
// are few tiles. A team of one needs no counter.
template <class Body>
void take_pieces(Counter* counter, const Team& team, const Pattern& pattern, Range rows, int tiles, Body&& body) {
  if (team.size == 1) {
    for (int tile = 0; tile < tiles; ++tile) body(tile, rows);
    return;
  }
  const int shares = (team.size * PIECES_OF_A_MEMBER + tiles - 1) / tiles;
  for (int piece = counter->next(); piece < shares * tiles; piece = counter->next())
    body(piece / shares, pattern.share(piece % shares, shares, rows));
}

// Calls body(rows) for every share of all rows that this member takes.
template <class Body>
void take_shares(Counter& counter, const Team& team, const Pattern& pattern, Body&& body) {
  const int shares = team.size == 1 ? 1 : team.size * PIECES_OF_A_MEMBER;
  for (int share = counter.next(); share < shares; share = counter.next())
    body(pattern.share(share, shares, {0, pattern.rows}));
}

// Calls body(block, rows) for every block, or share of a block's rows where there are few, that this member takes: a block
// stays in L1 for as many rows as possible.
template <class Body>
void take_shares_of_blocks(Counter& counter, const Team& team, const Pattern& pattern, Body&& body) {
  const int blocks = static_cast<int>(pattern.blocks.size());
  const int shares = team.size == 1 ? 1 : (team.size * PIECES_OF_A_MEMBER + blocks - 1) / blocks;
  for (int piece = counter.next(); piece < shares * blocks; piece = counter.next()) {
    const Block& block = pattern.blocks[piece / shares];
    body(block, pattern.share(piece % shares, shares, {block.row_begin, block.row_end}));
  }
}

// Those of `rows` that read a block, as the loops take them; count 0 if there are none.
inline Rows rows_of(const Pattern& pattern, const Block& block, Range rows, const float* panel, int& first_row) {
  first_row = std::max(block.row_begin, rows.begin);
  const int count = std::max(0, std::min(block.row_end, rows.end) - first_row);
  return {count, pattern.starts.data() + block.first_start + (first_row - block.row_begin), pattern.offsets.data(),
          reinterpret_cast<const char*>(panel)};
}

// A tile of the product of `wanted` rows with packed planes: row r's lanes begin at product + (r - row_zero) * stride.
inline void multiply_rows(const Loops& loops, const Pattern& pattern, const Tile& tile, Range wanted, const float* panel,
                          const float* bias, float* product, int row_zero, std::int64_t stride) {
  for (const Block& block : pattern.blocks) {
    int row = 0;
    const Rows rows = rows_of(pattern, block, wanted, panel + tile.from, row);
    if (rows.count == 0) continue;
    float* const out = product + (row - row_zero) * stride + tile.to;
    loops.multiply({rows, pattern.values.data(), bias ? bias + row : nullptr, block.first, out, stride}, tile.vectors);
  }
}

// A tile's share of the gradient of the values of a block's rows `wanted`; row r's grad_output begins at grad + r * stride.
inline void sample_rows(const Loops& loops, const Pattern& pattern, const Block& block, const Tile& tile, Range wanted,
                        const float* panel, const float* grad, std::int64_t stride, float* grad_values) {
  int row = 0;
  const Rows rows = rows_of(pattern, block, wanted, panel + tile.from, row);
  if (rows.count == 0) return;
  const std::int32_t* targets = pattern.targets.data() + block.first_start + (row - block.row_begin);
  loops.sample({rows, grad + row * stride + tile.from, stride, targets, grad_values}, tile.vectors);
}

}  // namespace sparsebench
