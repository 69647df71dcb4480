"""The C++ kernels as Python sees them: a bound layer, addresses as integers, strides in elements.

Everything is checked by the caller (`sparsebench.builtin.backends._cpp`): shapes, dtypes, that what the weight's
addresses point at outlives the layer.
"""

from libc.stdint cimport int32_t, int64_t, uintptr_t
from libcpp.vector cimport vector


cdef extern from "<array>" namespace "std" nogil:
    cdef cppclass Pair "std::array<int, 2>":
        int& operator[](size_t)
    cdef cppclass Strides "std::array<std::int64_t, 4>":
        int64_t& operator[](size_t)


cdef extern from "select.h" namespace "sparsebench" nogil:
    cdef cppclass Loops:
        const char* name
        int lanes
        int most_vectors
    vector[const Loops*] runnable_loops()


cdef extern from "layer.h" namespace "sparsebench" nogil:
    cdef cppclass Shape:
        int out_features, in_features
        Pair kernel, stride, padding, dilation
        int groups
    cdef cppclass Csr:
        const int32_t* indptr
        const int32_t* indices
    cdef cppclass Plan:
        int tile, images, forward_block, backward_block
    cdef cppclass View:
        float* data
        Strides stride
    cdef cppclass Input:
        View x
        int images, height, width
    cdef cppclass CppLayer "sparsebench::Layer":
        CppLayer(const Shape&, const Csr&, const float*, const Plan&, const Loops&, int, int) except +
        void set_values(const float*) except +
        void get_values(float*)
        int64_t saved_size(int, int, int) except +
        void forward(const Input&, const float*, const View&, float*, int) except +
        void backward(const Input&, const View&, const View&, float*, const float*, int) except +
        size_t bytes()


def isas():
    """{name: (lanes of a vector, most vectors of a tile)} of what this CPU runs, the widest first."""
    return {loop.name.decode(): (loop.lanes, loop.most_vectors) for loop in runnable_loops()}


cdef const Loops* loops_of(str isa) except NULL:
    for loop in runnable_loops():
        if loop.name.decode() == isa:
            return loop
    raise ValueError(f"this CPU does not run isa {isa!r}")


cdef View view_of(uintptr_t data, strides) except *:
    cdef View view
    cdef int i
    view.data = <float*> data
    for i in range(4):
        view.stride[i] = strides[i]
    return view


cdef Input input_of(uintptr_t data, strides, size) except *:
    cdef Input it
    it.x = view_of(data, strides)
    it.images, it.height, it.width = size[0], size[2], size[3]
    return it


cdef class Layer:
    """One bound weight. Sizes are (images, channels, height, width)."""

    cdef CppLayer* layer

    def __cinit__(self, str isa, features, kernel_size, stride, padding, dilation, int groups, uintptr_t indptr,
                  uintptr_t indices, uintptr_t values, plan, hint):
        cdef Shape shape
        cdef Csr csr
        cdef Plan how
        cdef int i
        shape.out_features, shape.in_features = features
        for i in range(2):
            shape.kernel[i] = kernel_size[i]
            shape.stride[i] = stride[i]
            shape.padding[i] = padding[i]
            shape.dilation[i] = dilation[i]
        shape.groups = groups
        csr.indptr, csr.indices = <const int32_t*> indptr, <const int32_t*> indices
        how.tile, how.images, how.forward_block, how.backward_block = plan
        self.layer = new CppLayer(shape, csr, <const float*> values, how, loops_of(isa)[0], hint[0], hint[1])

    def __dealloc__(self):
        del self.layer

    def set_values(self, uintptr_t values):
        """New values [nnz] in CSR order; they are copied."""
        with nogil:
            self.layer.set_values(<const float*> values)

    def get_values(self, uintptr_t values):
        """Write the values [nnz] in CSR order, as they were set last."""
        self.layer.get_values(<float*> values)

    def saved_size(self, int images, int height, int width):
        """Elements that `forward` fills for `backward`; 0 if it saves nothing."""
        return self.layer.saved_size(images, height, width)

    def forward(self, uintptr_t x, x_strides, size, uintptr_t bias, uintptr_t out, out_strides, uintptr_t saved, int threads):
        """out = layer(x); `bias` and `saved` may be 0."""
        cdef Input it = input_of(x, x_strides, size)
        cdef View to = view_of(out, out_strides)
        with nogil:
            self.layer.forward(it, <const float*> bias, to, <float*> saved, threads)

    def backward(self, uintptr_t x, x_strides, size, uintptr_t grad_output, grad_strides, uintptr_t grad_input,
                 grad_input_strides, uintptr_t grad_values, uintptr_t saved, int threads):
        """Both gradients, or one if the other's address is 0."""
        cdef Input it = input_of(x, x_strides, size)
        cdef View grad = view_of(grad_output, grad_strides)
        cdef View to = view_of(grad_input, grad_input_strides)
        with nogil:
            self.layer.backward(it, grad, to, <float*> grad_values, <const float*> saved, threads)

    @property
    def nbytes(self):
        """Bytes of the pattern and its values, as far as they are built."""
        return self.layer.bytes()
