# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Sparse products over rows of lanes, for any linear or conv2d layer.

Design
------
1. One shape for every layer. The host lays the input out as rows of *lanes*: for linear the batch, for conv2d
   (position, image) of a padded plane, so that a step of the kernel window is a constant distance in memory. Then

       forward       out[row][t]  = bias[row] + sum over k of values[k] * x[offsets[k] + t]
       grad_input    the same, on the transposed pattern, with grad_output for x
       grad_weight   grad[k]     += sum over t of grad_output[row][t] * x[offsets[k] + t]

   where k walks the non-zeros of a row. Stride, padding, dilation, groups and kernel size are all in the offsets.
2. Vectors run along the lanes, never along the non-zeros: each one is a broadcast and a contiguous load; there is no
   gather and no index arithmetic in the inner loop.
3. A tile of lanes (256 bytes) stays in registers while all non-zeros of a row are added to it. Kernels that keep it in
   memory load and store it once per non-zero, and that, not the multiplication, is then what they spend their time on.
   256 bytes are 8 AVX2 registers: 2 fma per cycle with a latency of 4 need 8 sums in flight.
4. A tail narrower than a tile is done by narrower tiles, and the last one is moved back over lanes that are already
   done: no masks, no reads past the end, and the lanes done twice get the same sum twice.
5. Results do not depend on the number of threads. `multiply` splits lanes (and rows, if there are few lanes), `sample` splits rows;
   each number is written by one thread, which adds its terms in an order fixed by the shapes. Rows are split by
   non-zeros, not by count, since patterns may be skewed.
6. One source, several instruction sets. GCC compiles what returns `cloned_void` once for each target below and the loader
   picks one, so a wheel needs no -march=native. Cython cannot write attributes, but it copies the name of a return type
   into the C file as it is. What these functions call must be `inline` to be compiled with them. The OpenMP loops stay
   outside, because GCC moves their bodies to functions without the attribute.
7. Widths are literals at the call, so that after inlining every inner loop has a constant length and the array of sums
   becomes registers. `value` and `source` are local for the same reason: the compiler must see that no store changes them.
8. Pointers arrive as integers (`Tensor.data_ptr()`), so the module depends on no version of torch or numpy. The caller
   answers for dtype, bounds and element alignment.
"""

from cython.parallel cimport prange

cdef extern from *:
    """
    #if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__) && __GNUC__ >= 12
    #define cloned_void __attribute__((target_clones("default", "arch=x86-64-v3", "arch=x86-64-v4"))) void
    #else
    #define cloned_void void
    #endif
    #if defined(__GNUC__)
    #define inlined_void __attribute__((always_inline)) void
    #else
    #define inlined_void void
    #endif
    """
    ctypedef void cloned_void
    ctypedef void inlined_void

ctypedef fused real:
    float
    double

cdef enum:
    TILE_BYTES = 256
    MOST_LANES = 64  # of a tile: float32
    BLOCK = 16  # a copied block is 16 x 16 elements: both its sides are then whole cache lines


# Point functions: one row, one tile.

cdef inline inlined_void multiply_tile(
    real* out, const real* x, const real* values, const int* offsets, Py_ssize_t nnz, real bias, Py_ssize_t width
) noexcept nogil:
    """out[t] = bias + sum over k of values[k] * x[offsets[k] + t], for t < width."""
    cdef real sums[MOST_LANES]
    cdef const real* source
    cdef real value
    cdef Py_ssize_t k, t
    for t in range(width):
        sums[t] = bias
    for k in range(nnz):
        value = values[k]
        source = x + offsets[k]
        for t in range(width):
            sums[t] += value * source[t]
    for t in range(width):
        out[t] = sums[t]


cdef inline inlined_void sample_tile(
    real* grad, const real* grad_output, const real* x, const int* offsets, Py_ssize_t nnz,
    Py_ssize_t width, Py_ssize_t partial
) noexcept nogil:
    """grad[k] += sum over t < width of grad_output[t] * x[offsets[k] + t]: `partial` sums, then a tree over them."""
    cdef real held[MOST_LANES]
    cdef real sums[MOST_LANES]
    cdef const real* source
    cdef Py_ssize_t k, t, block, half
    for t in range(width):
        held[t] = grad_output[t]
    for k in range(nnz):
        source = x + offsets[k]
        for t in range(partial):
            sums[t] = 0
        for block in range(width // partial):
            for t in range(partial):
                sums[t] += held[block * partial + t] * source[block * partial + t]
        for t in range(partial // 2):
            sums[t] += sums[t + partial // 2]
        for t in range(partial // 4):
            sums[t] += sums[t + partial // 4]
        for t in range(partial // 8):
            sums[t] += sums[t + partial // 8]
        for t in range(partial // 16):
            sums[t] += sums[t + partial // 16]
        grad[k] += sums[0]


cdef inline Py_ssize_t first_row(const int* indptr, Py_ssize_t rows, Py_ssize_t part, Py_ssize_t parts) noexcept nogil:
    """The row at which part `part` of `parts` begins when rows are split by non-zeros."""
    cdef Py_ssize_t low = 0, high = rows, middle
    cdef long long target = <long long> indptr[rows] * part // parts
    if part == parts:
        return rows
    while low < high:
        middle = (low + high) // 2
        if indptr[middle] < target:
            low = middle + 1
        else:
            high = middle
    return low


# Loops: some rows, some lanes. These are compiled once per instruction set.

cdef cloned_void multiply_rows(
    real* out, Py_ssize_t out_stride, const real* x, const real* values, const int* offsets, const int* indptr,
    const real* bias, Py_ssize_t first, Py_ssize_t last, Py_ssize_t lanes
) noexcept nogil:
    """`multiply_tile` for rows first..last and `lanes` lanes."""
    cdef Py_ssize_t wide = TILE_BYTES // sizeof(real), row, t, start, nnz
    cdef real base
    for row in range(first, last):
        start, nnz = indptr[row], indptr[row + 1] - indptr[row]
        base = bias[row] if bias is not NULL else 0
        t = 0
        while t + wide <= lanes:
            multiply_tile(out + row * out_stride + t, x + t, values + start, offsets + start, nnz, base, TILE_BYTES // sizeof(real))
            t += wide
        while t < lanes:
            if lanes >= wide // 2 and lanes - t > wide // 4:
                t = min(t, lanes - wide // 2)
                multiply_tile(out + row * out_stride + t, x + t, values + start, offsets + start, nnz, base, TILE_BYTES // 2 // sizeof(real))
                t += wide // 2
            elif lanes >= wide // 4:
                t = min(t, lanes - wide // 4)
                multiply_tile(out + row * out_stride + t, x + t, values + start, offsets + start, nnz, base, TILE_BYTES // 4 // sizeof(real))
                t += wide // 4
            elif lanes >= 4:
                t = min(t, lanes - 4)
                multiply_tile(out + row * out_stride + t, x + t, values + start, offsets + start, nnz, base, 4)
                t += 4
            else:
                multiply_tile(out + row * out_stride + t, x + t, values + start, offsets + start, nnz, base, 1)
                t += 1


cdef cloned_void sample_rows(
    real* grad, const real* grad_output, Py_ssize_t grad_output_stride, const real* x, const int* offsets,
    const int* indptr, Py_ssize_t first, Py_ssize_t last, Py_ssize_t lanes
) noexcept nogil:
    """`sample_tile` for rows first..last and all lanes; lanes outside, so that one tile of x serves all rows."""
    cdef Py_ssize_t wide = TILE_BYTES // sizeof(real), row, t = 0, width, start, nnz
    cdef const real* go
    while t < lanes:
        width = wide if t + wide <= lanes else wide // 4 if t + wide // 4 <= lanes else 1
        for row in range(first, last):
            start, nnz = indptr[row], indptr[row + 1] - indptr[row]
            go = grad_output + row * grad_output_stride + t
            if width == wide:
                sample_tile(grad + start, go, x + t, offsets + start, nnz, TILE_BYTES // sizeof(real), TILE_BYTES // 4 // sizeof(real))
            elif width > 1:
                sample_tile(grad + start, go, x + t, offsets + start, nnz, TILE_BYTES // 4 // sizeof(real), TILE_BYTES // 4 // sizeof(real))
            else:
                sample_tile(grad + start, go, x + t, offsets + start, nnz, 1, 1)
        t += width


cdef void copy_block(
    real* target, const Py_ssize_t* to, const real* source, const Py_ssize_t* by,
    Py_ssize_t images, Py_ssize_t channels, Py_ssize_t positions
) noexcept nogil:
    """One block [images, channels, positions]; `to` and `by` are the strides [image, channel, row, position]."""
    cdef Py_ssize_t i, c, p
    cdef real* t
    cdef const real* s
    for i in range(images):
        for c in range(channels):
            t = target + i * to[0] + c * to[1]
            s = source + i * by[0] + c * by[1]
            for p in range(positions):
                t[p * to[3]] = s[p * by[3]]


# OpenMP.

cdef void multiply_all(
    real* out, Py_ssize_t out_stride, const real* x, const real* values, const int* offsets, const int* indptr,
    const real* bias, Py_ssize_t rows, Py_ssize_t lanes, int threads
) noexcept nogil:
    cdef Py_ssize_t wide = TILE_BYTES // sizeof(real)
    cdef Py_ssize_t tiles = max(1, lanes // wide)
    cdef Py_ssize_t parts = 1 + 8 * (threads - 1) // tiles
    cdef Py_ssize_t job, t, count, part
    for job in prange(tiles * parts, schedule="static", num_threads=threads):
        t = job // parts * wide
        part = job % parts
        count = lanes - t if job // parts == tiles - 1 else wide
        multiply_rows(
            out + t, out_stride, x + t, values, offsets, indptr, bias,
            first_row(indptr, rows, part, parts), first_row(indptr, rows, part + 1, parts), count
        )


cdef void sample_all(
    real* grad, const real* grad_output, Py_ssize_t grad_output_stride, const real* x, const int* offsets,
    const int* indptr, Py_ssize_t rows, Py_ssize_t lanes, int threads
) noexcept nogil:
    cdef Py_ssize_t part
    for part in prange(threads, schedule="static", num_threads=threads):
        sample_rows(
            grad, grad_output, grad_output_stride, x, offsets, indptr,
            first_row(indptr, rows, part, threads), first_row(indptr, rows, part + 1, threads), lanes
        )


cdef void copy_all(
    real* target, const Py_ssize_t* to, const real* source, const Py_ssize_t* by, const Py_ssize_t* shape, int threads
) noexcept nogil:
    cdef Py_ssize_t images = shape[0], channels = shape[1], height = shape[2], width = shape[3]
    cdef Py_ssize_t across = (width + BLOCK - 1) // BLOCK
    cdef Py_ssize_t down = (channels + BLOCK - 1) // BLOCK
    cdef Py_ssize_t job, c, y, p
    for job in prange(down * height * across, schedule="static", num_threads=threads):
        c = job // (height * across) * BLOCK
        y = job // across % height
        p = job % across * BLOCK
        copy_block(
            target + c * to[1] + y * to[2] + p * to[3], to, source + c * by[1] + y * by[2] + p * by[3], by,
            images, min(channels - c, BLOCK), min(width - p, BLOCK)
        )


# Python face.

def multiply(
    size_t out, Py_ssize_t out_stride, size_t x, size_t values, size_t offsets, size_t indptr, size_t bias,
    Py_ssize_t rows, Py_ssize_t lanes, *, int itemsize, int threads
):
    """out[row][t] = bias[row] + sum over the row's k of values[k] * x[offsets[k] + t]; `bias` may be 0 (none).

    `out_stride` is the distance of rows in elements; offsets and indptr are int32; itemsize is 4 or 8.
    """
    with nogil:
        if itemsize == 4:
            multiply_all(<float*> out, out_stride, <const float*> x, <const float*> values, <const int*> offsets,
                         <const int*> indptr, <const float*> bias, rows, lanes, threads)
        else:
            multiply_all(<double*> out, out_stride, <const double*> x, <const double*> values, <const int*> offsets,
                         <const int*> indptr, <const double*> bias, rows, lanes, threads)


def sample(
    size_t grad, size_t grad_output, Py_ssize_t grad_output_stride, size_t x, size_t offsets, size_t indptr,
    Py_ssize_t rows, Py_ssize_t lanes, *, int itemsize, int threads
):
    """grad[k] += sum over t of grad_output[row of k][t] * x[offsets[k] + t]; see `multiply` for the units."""
    with nogil:
        if itemsize == 4:
            sample_all(<float*> grad, <const float*> grad_output, grad_output_stride, <const float*> x,
                       <const int*> offsets, <const int*> indptr, rows, lanes, threads)
        else:
            sample_all(<double*> grad, <const double*> grad_output, grad_output_stride, <const double*> x,
                       <const int*> offsets, <const int*> indptr, rows, lanes, threads)


def copy(size_t target, target_strides, size_t source, source_strides, shape, *, int itemsize, int threads):
    """Copy [images, channels, height, width] from any strides to any strides, both in elements."""
    cdef Py_ssize_t[4] to, by, size
    cdef int axis
    for axis in range(4):
        to[axis], by[axis], size[axis] = target_strides[axis], source_strides[axis], shape[axis]
    with nogil:
        if itemsize == 4:
            copy_all(<float*> target, to, <const float*> source, by, size, threads)
        else:
            copy_all(<double*> target, to, <const double*> source, by, size, threads)
