# cython: language_level=3
"""Exact optimal brain surgeon on the rows of a layer. Addresses are integers; everything is checked by the caller."""

from libc.stdint cimport int32_t, int64_t, uint8_t, uintptr_t


cdef extern from "obs.h" nogil:
    ctypedef struct ObsTask:
        int32_t rows, columns, steps
        const double* weights
        const double* inverse
        const double* least
        int32_t* order
        const uint8_t* pruned
        const int32_t* group
        int32_t groups, most
        double* losses
        double* keys
        int32_t levels
        const int32_t* counts
        double* results
    const char* obs_best_isa()
    int64_t obs_walk(const ObsTask* task, const char* isa, int threads)


def best_isa():
    """The widest instruction set this machine runs, of "base", "avx2" and "avx512"."""
    return obs_best_isa().decode()


def trace(
    uintptr_t weights, uintptr_t inverse, uintptr_t least, uintptr_t pruned, uintptr_t order, uintptr_t losses,
    uintptr_t keys, *, int rows, int columns, int steps, uintptr_t group, int groups, int most, str isa, int threads,
):
    """Find every row's order of removal, the loss of each step, and the keys that make rows comparable."""
    cdef ObsTask task
    task.rows, task.columns, task.steps, task.levels = rows, columns, steps, 0
    task.weights, task.inverse, task.least = <const double*> weights, <const double*> inverse, <const double*> least
    task.pruned, task.order = <const uint8_t*> pruned, <int32_t*> order
    task.group, task.groups, task.most = <const int32_t*> group, groups, most
    task.losses, task.keys = <double*> losses, <double*> keys
    task.counts, task.results = NULL, NULL
    run(&task, isa, threads)


def replay(
    uintptr_t weights, uintptr_t inverse, uintptr_t least, uintptr_t order, uintptr_t counts, uintptr_t results,
    *, int rows, int columns, int steps, int levels, str isa, int threads,
):
    """Follow every row's order, and write its weights at the numbers of removals in `counts`."""
    cdef ObsTask task
    task.rows, task.columns, task.steps, task.levels = rows, columns, steps, levels
    task.weights, task.inverse, task.least = <const double*> weights, <const double*> inverse, <const double*> least
    task.pruned, task.order = NULL, <int32_t*> order
    task.group, task.groups, task.most = NULL, 0, 0
    task.losses, task.keys = NULL, NULL
    task.counts, task.results = <const int32_t*> counts, <double*> results
    run(&task, isa, threads)


cdef run(const ObsTask* task, str isa, int threads):
    cdef bytes name = isa.encode()
    cdef const char* chosen = name
    cdef int64_t outcome
    with nogil:
        outcome = obs_walk(task, chosen, threads)
    if outcome == -1:
        raise ValueError(f"this machine does not run {isa}; it runs {best_isa()} and what lies below")
    if outcome == -2:
        raise MemoryError(f"not enough memory for rows of {task.columns}")
    if outcome > 0:
        raise ArithmeticError(f"row {outcome - 1} has no weight left to choose: its numbers are not finite")
