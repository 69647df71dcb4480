// Where one row's numbers lie in a thread's scratch. Everything that is not here is local to loops.cpp.
#pragma once
#include <stdint.h>

constexpr int64_t PANEL = 8;     // places that lie together: a cache line of doubles
constexpr int64_t PENDING = 64;  // vectors that G has yet to lose

// Columns rounded up to two panels, which are worked on together.
constexpr int64_t padded(int64_t columns) { return (columns + 2 * PANEL - 1) / (2 * PANEL) * (2 * PANEL); }
// Between rows of G: one panel more, as rows a power of two apart would share the same few sets of the cache.
constexpr int64_t stride_of(int64_t columns) { return padded(columns) + PANEL; }
