// What the driver asks of the loops that are compiled once for every instruction set.
#pragma once
#include <cstddef>
#include <cstdint>

namespace sparsebench {

// Rows of non-zeros over one block of planes and one tile of lanes: row r owns entries [starts[r], starts[r + 1]).
struct Rows {
  int count;
  const std::int32_t* starts;
  const std::int32_t* offsets;  // bytes from `panel` to the first lane that the entry reads
  const char* panel;            // the packed input, at the tile
};

struct Product {
  Rows rows;
  const float* values;
  const float* bias;  // one per row, or null; used if `first`
  bool first;         // whether `out` is to be written and not added to
  float* out;         // row r's tile begins at out + r * out_stride
  std::ptrdiff_t out_stride;
};

struct Sample {
  Rows rows;
  const float* grad_output;  // row r's tile begins at grad_output + r * grad_stride
  std::ptrdiff_t grad_stride;
  const std::int32_t* targets;  // where row r's first entry lies in CSR order
  float* grad_values;           // in CSR order; added to
};

// Rows of non-zeros and the columns they read, for one vector; `starts` as in Rows.
struct Stream {
  int rows;
  const std::int32_t* starts;
  const std::uint16_t* narrow;  // columns, if they fit
  const std::int32_t* wide;     // else these
  const float* values;
};

// The tables are `constinit`: plain data, so that asking for one runs no code of its instruction set.
struct Loops {
  const char* name;
  int lanes;         // floats of a vector
  int most_vectors;  // of a tile
  void (*multiply)(const Product&, int vectors);
  void (*sample)(const Sample&, int vectors);
  // to[j * to_stride + i] = from[i * from_stride + j] for i < across and j < down
  void (*transpose)(float* to, std::ptrdiff_t to_stride, const float* from, std::ptrdiff_t from_stride, int across,
                    int down);
  // out[r] = bias[r] + sum of values * x[column], over the rows of one vector x
  void (*stream)(const Stream&, const float* x, const float* bias, float* out);
  // grad_values[k] += grad_output[row] * x[column]
  void (*outer)(const Stream&, const float* x, const float* grad_output, float* grad_values);
};

extern const Loops loops_base;
extern const Loops loops_avx2;
extern const Loops loops_avx512;

}  // namespace sparsebench
