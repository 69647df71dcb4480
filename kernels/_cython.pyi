"""The compiled module of `kernels/cython/_cython.pyx`: pointers are integers, strides count elements."""

from collections.abc import Sequence

def multiply(
    out: int,
    out_stride: int,
    x: int,
    values: int,
    offsets: int,
    indptr: int,
    bias: int,
    rows: int,
    lanes: int,
    *,
    itemsize: int,
    threads: int,
) -> None: ...
def sample(
    grad: int,
    grad_output: int,
    grad_output_stride: int,
    x: int,
    offsets: int,
    indptr: int,
    rows: int,
    lanes: int,
    *,
    itemsize: int,
    threads: int,
) -> None: ...
def copy(
    target: int,
    target_strides: Sequence[int],
    source: int,
    source_strides: Sequence[int],
    shape: Sequence[int],
    *,
    itemsize: int,
    threads: int,
) -> None: ...
