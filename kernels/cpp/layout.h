// Where everything lies in memory when a layer becomes rows of lanes.
//
// A plane (one channel of a few images) is stored as positions with the images innermost. All rows of a plane have the same
// pitch, so moving the window by one row or column is a constant distance: a non-zero is one offset. The zeros between two
// rows serve the end of the one and the beginning of the next. With a stride s, a plane is split into its s * s *phases*
// (every s-th row and column), in which the window again moves by one; only phases that the window meets are stored.
//
// Two ways to cut positions into vectors:
//   by rows  - whole vectors of images at every position: loads are aligned and only outputs are computed
//   flat     - few images: a vector spans positions, gaps between rows included, and its loads are not aligned
// A linear layer has one position, and the batch is its images.
#pragma once
#include <array>
#include <cstdint>
#include <vector>

namespace sparsebench {

struct Shape {
  int out_features, in_features;
  std::array<int, 2> kernel, stride, padding, dilation;  // down, across
  int groups;
};

// One spatial axis of a convolution.
struct Axis {
  int size, kernel, stride, padding, dilation;
  int outputs;              // output pixels
  int reach;                // how far the window's last tap lies behind its first, in positions of a phase
  int first, last;          // the first and last position of any phase that holds a pixel and not padding
  std::vector<int> phases;  // those that the window meets, ascending

  Axis(const Shape& shape, int axis, int size);
  bool single() const;  // whether its one pixel is what its one window reads
  int phase_index(int tap) const;
  int step(int tap) const { return tap * dilation / stride; }
  int first_pixel(int phase) const { return ((phase - padding) % stride + stride) % stride; }
  int position(int pixel) const { return (pixel + padding) / stride; }
};

// T vectors of lanes: where the tile begins in a packed plane and in a row of the product over all positions, in elements;
// `row` is the row of positions that it lies in, 0 if it may lie in several (flat).
struct Tile {
  std::int32_t from, to, vectors, row;
};

struct Layout {
  Axis down, across;
  int images;   // stored side by side at every position
  int lanes;    // floats of a vector
  bool by_rows;
  bool single;  // whether images are one pixel that one output reads, as a linear layer's are
  int phases;   // of one channel
  int pitch;    // positions from one row of a plane to the next
  int reach;    // the largest distance that the window adds to a position
  int first;    // the first position of a plane that can hold a pixel
  int inputs;   // positions from `first` to the last that can hold a pixel
  int outputs;  // positions from the first output to the last
  int lead;     // zero positions before the outputs of a packed grad_output, so that no window begins before the plane
  std::int64_t input_stride, grad_stride;      // elements from one packed plane to the next
  std::int64_t output_width, input_width;      // positions from one row of a product to the next
  // Elements of a channel's product over so many rows of output or input positions; flat has but one row.
  std::int64_t output_lanes(int rows) const;
  std::int64_t input_lanes(int rows) const;
  int output_rows() const { return by_rows ? down.outputs : 1; }
  int input_rows() const { return by_rows ? down.last - down.first + 1 : 1; }

  Layout(const Shape& shape, int height, int width, int images, int lanes);

  std::vector<Tile> output_tiles(int used_images, int most_vectors) const;
  std::vector<Tile> input_tiles(int used_images, int most_vectors) const;
  std::int64_t packed_input(const Shape& shape) const { return input_stride * shape.in_features * phases; }
  std::int64_t packed_grad(const Shape& shape) const { return grad_stride * shape.out_features; }

 private:
  std::vector<Tile> tiles(int rows, int width, std::int64_t product_width, int positions, int used_images,
                          int most_vectors) const;
};

}  // namespace sparsebench
