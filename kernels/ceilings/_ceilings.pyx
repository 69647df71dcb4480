# cython: language_level=3
"""What this machine can do at most: multiply-adds and reads per second, measured by loops that do nothing else."""

cdef extern from "measure.h" nogil:
    const char* ceiling_best_isa()
    double ceiling_flops(const char* isa, int threads, double seconds, int repetitions)
    double ceiling_bandwidth(const char* isa, long bytes, int threads, double seconds, int repetitions)


def best_isa():
    """The widest instruction set this machine runs, of "base", "avx2" and "avx512"."""
    return ceiling_best_isa().decode()


def flops(str isa, *, int threads, double seconds, int repetitions):
    """Floating-point operations per second, a multiply-add counted as two; the best of `repetitions` of `seconds` each."""
    cdef bytes name = isa.encode()
    cdef const char* chosen = name
    cdef double rate
    with nogil:
        rate = ceiling_flops(chosen, threads, seconds, repetitions)
    return checked(rate, isa)


def bandwidth(str isa, long size, *, int threads, double seconds, int repetitions):
    """Bytes read per second by all threads together, each over its own `size` bytes again and again."""
    cdef bytes name = isa.encode()
    cdef const char* chosen = name
    cdef double rate
    with nogil:
        rate = ceiling_bandwidth(chosen, size, threads, seconds, repetitions)
    return checked(rate, isa)


cdef checked(double rate, str isa):
    if rate == -1:
        raise ValueError(f"this machine does not run {isa}; it runs {best_isa()} and what lies below")
    if rate == -2:
        raise MemoryError("not enough memory to measure how fast it is read")
    return rate
