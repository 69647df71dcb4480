# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Sparse products over rows of lanes: the arithmetic of any linear or conv2d layer.

Design
------
1. One shape for every layer. The host lays the input out as rows of *lanes*: for linear the batch, for conv2d
   (position, image) of a padded plane, so that a step of the kernel's window is a constant distance in
   memory. Then

       forward       out[row][t]  = bias[row] + sum over k of values[k] * x[offsets[k] + t]
       grad_input    the same on the transposed pattern, with grad_output in place of x
       grad_values   grad[k]     += sum over t of grad_output[row][t] * x[offsets[k] + t]

   where k walks the non-zeros of a row. Stride, padding, dilation, groups and kernel size are all in the
   offsets.
2. Vectors run along the lanes, never along the non-zeros: a non-zero is one broadcast and some contiguous
   loads; there is no gather, and no index arithmetic in the inner loop.
3. A tile of lanes stays in registers while all non-zeros of a row are added to it. A kernel that keeps it in
   memory loads and stores it once per non-zero, and then that, not the multiplication, is what it spends its
   time on. A tile has 256 bytes: 8 registers of AVX2, because 2 fma per cycle with a latency of 4 cycles need
   8 sums in flight.
4. Lanes come in multiples of 16 (a cache line of float32), so there are tiles of 64, 32 and 16 lanes and no
   masks. The host pads; one lane costs as much as 16, which is still no more than one dependent
   multiplication and addition.
5. Results do not depend on the number of threads. `multiply` splits lanes (and rows, if there are few lanes),
   `sample` splits rows; each number is written by one thread, which adds its terms in an order that only the
   shapes fix. Rows are split by non-zeros, not by count, because patterns may be skewed.
6. One source, several instruction sets. GCC compiles a function that returns `cloned_void` once for each
   target below and the loader picks one, so a wheel needs no -march=native. (Cython has no syntax for
   attributes, but it copies the name of a return type into the C file as it is.) What such a function calls
   must be inlined to be compiled with it. The OpenMP loops stay outside: GCC moves their bodies to functions
   of their own, without the attribute.
7. Widths are literals at the call, so that after inlining the inner loops have constant lengths and their
   arrays become registers. `value` and `source` are locals for the same reason: a store must not seem to
   change them. The flags in CMakeLists.txt belong to this; without them the loops are interchanged or
   unrolled before they are vectorised.
8. Pointers arrive as integers (`Tensor.data_ptr()`), so the module depends on no version of torch or numpy.
   The caller answers for dtype, bounds and the alignment of elements.
"""

from cython.parallel cimport prange

cdef extern from *:
    """
    #if defined(__x86_64__) && defined(__GLIBC__) && !defined(__clang__) && __GNUC__ >= 12
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
    TILE = 64  # lanes of the widest tile of float32; of float64 it is half
    BLOCK = 16  # copies go in blocks of 16 x 16 elements, so that whole lines of both sides are used


# Point functions: one row, one tile.

cdef inline inlined_void multiply_tile(
    real* out, const real* x, const real* values, const int* offsets, Py_ssize_t nnz, real bias, Py_ssize_t width
) noexcept nogil:
    """out[t] = bias + sum over k of values[k] * x[offsets[k] + t], for t < width."""
    cdef real sums[TILE]
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
    real* grad, const real* grad_output, const real* x, const int* offsets, Py_ssize_t nnz, Py_ssize_t width
) noexcept nogil:
    """grad[k] += sum over t of grad_output[t] * x[offsets[k] + t], for t < width and every k."""
    cdef real held[TILE]
    cdef const real* source
    cdef real total
    cdef Py_ssize_t k, t
    for t in range(width):
        held[t] = grad_output[t]
    for k in range(nnz):
        source = x + offsets[k]
        total = 0
        for t in range(width):
            total += held[t] * source[t]
        grad[k] += total


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
    """`multiply_tile` for rows first..last; tiles inside, so that a row's non-zeros are read from memory once."""
    cdef Py_ssize_t row, t, start, nnz
    cdef real base
    cdef real* target
    for row in range(first, last):
        start, nnz = indptr[row], indptr[row + 1] - indptr[row]
        base = bias[row] if bias is not NULL else 0
        target = out + row * out_stride
        t = 0
        while t < lanes:
            if sizeof(real) == 4 and lanes - t >= 64:
                multiply_tile(target + t, x + t, values + start, offsets + start, nnz, base, 64)
                t += 64
            elif lanes - t >= 32:
                multiply_tile(target + t, x + t, values + start, offsets + start, nnz, base, 32)
                t += 32
            else:
                multiply_tile(target + t, x + t, values + start, offsets + start, nnz, base, 16)
                t += 16


cdef cloned_void sample_rows(
    real* grad, const real* grad_output, Py_ssize_t grad_output_stride, const real* x, const int* offsets,
    const int* indptr, Py_ssize_t first, Py_ssize_t last, Py_ssize_t lanes
) noexcept nogil:
    """`sample_tile` for rows first..last; tiles outside, so that one tile of x in the cache serves all rows."""
    cdef Py_ssize_t t = 0, row, start, nnz
    cdef const real* held
    while t < lanes:
        for row in range(first, last):
            start, nnz = indptr[row], indptr[row + 1] - indptr[row]
            held = grad_output + row * grad_output_stride + t
            if lanes - t >= TILE:
                sample_tile(grad + start, held, x + t, offsets + start, nnz, TILE)
            else:
                sample_tile(grad + start, held, x + t, offsets + start, nnz, lanes - t)
        t += TILE


cdef void copy_block(
    real* target, const Py_ssize_t* to, const real* source, const Py_ssize_t* by,
    Py_ssize_t images, Py_ssize_t channels, Py_ssize_t positions
) noexcept nogil:
    """Copy [images, channels, positions]; `to` and `by` are strides of [image, channel, row, position].

    Channels are outermost: their lines of both sides (one per image, one per position) fit in L1 until they are full.
    """
    cdef Py_ssize_t i, c, p
    cdef real* t
    cdef const real* s
    for c in range(channels):
        for i in range(images):
            t = target + i * to[0] + c * to[1]
            s = source + i * by[0] + c * by[1]
            for p in range(positions):
                t[p * to[3]] = s[p * by[3]]


# OpenMP.

cdef void multiply_all(
    real* out, Py_ssize_t out_stride, const real* x, const real* values, const int* offsets, const int* indptr,
    const real* bias, Py_ssize_t rows, Py_ssize_t lanes, int threads
) noexcept nogil:
    """Jobs are (tile, rows); rows are split only if there are fewer than 8 tiles for each further thread."""
    cdef Py_ssize_t tiles = (lanes + TILE - 1) // TILE
    cdef Py_ssize_t parts = 1 + 8 * (threads - 1) // tiles
    cdef Py_ssize_t job, t, part
    for job in prange(tiles * parts, schedule="static", num_threads=threads):
        t = job // parts * TILE
        part = job % parts
        multiply_rows(
            out + t, out_stride, x + t, values, offsets, indptr, bias,
            first_row(indptr, rows, part, parts), first_row(indptr, rows, part + 1, parts), min(lanes - t, TILE)
        )


cdef void sample_all(
    real* grad, const real* grad_output, Py_ssize_t grad_output_stride, const real* x, const int* offsets,
    const int* indptr, Py_ssize_t rows, Py_ssize_t lanes, int threads
) noexcept nogil:
    """Each thread takes rows with about as many non-zeros as any other's."""
    cdef Py_ssize_t part
    for part in prange(threads, schedule="static", num_threads=threads):
        sample_rows(
            grad, grad_output, grad_output_stride, x, offsets, indptr,
            first_row(indptr, rows, part, threads), first_row(indptr, rows, part + 1, threads), lanes
        )


cdef void copy_all(
    real* target, const Py_ssize_t* to, const real* source, const Py_ssize_t* by, const Py_ssize_t* shape, int threads
) noexcept nogil:
    """Jobs are blocks of 16 channels and 16 positions of a row, of all images."""
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


# Python face. Strides are in elements, offsets and indptr are int32, itemsize is 4 (float32) or 8 (float64).

def multiply(
    size_t out, Py_ssize_t out_stride, size_t x, size_t values, size_t offsets, size_t indptr, size_t bias,
    Py_ssize_t rows, Py_ssize_t lanes, *, int itemsize, int threads
):
    """out[row][t] = bias[row] + sum over the k of a row of values[k] * x[offsets[k] + t].

    `bias` may be 0 (none). `lanes` is a multiple of 16: `out` is written and `x` read that far from each offset.
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
    """grad[k] += sum over t of grad_output[row of k][t] * x[offsets[k] + t], for `lanes` lanes."""
    with nogil:
        if itemsize == 4:
            sample_all(<float*> grad, <const float*> grad_output, grad_output_stride, <const float*> x,
                       <const int*> offsets, <const int*> indptr, rows, lanes, threads)
        else:
            sample_all(<double*> grad, <const double*> grad_output, grad_output_stride, <const double*> x,
                       <const int*> offsets, <const int*> indptr, rows, lanes, threads)


def copy(size_t target, target_strides, size_t source, source_strides, shape, *, int itemsize, int threads):
    """Copy `shape` = [images, channels, height, width] from any strides to any strides.

    Fastest if of `width` and `channels` the one that lies closer together in the tensor not packed comes last.
    """
    cdef Py_ssize_t[4] to, by, size
    cdef int axis
    for axis in range(4):
        to[axis], by[axis], size[axis] = target_strides[axis], source_strides[axis], shape[axis]
    with nogil:
        if itemsize == 4:
            copy_all(<float*> target, to, <const float*> source, by, size, threads)
        else:
            copy_all(<double*> target, to, <const double*> source, by, size, threads)
