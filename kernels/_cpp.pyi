"""The compiled module of `kernels/cpp/_cpp.pyx`: addresses are integers, strides count elements.

Sizes are (images, channels, height, width); nothing is checked here.
"""

from collections.abc import Sequence

def isas() -> dict[str, tuple[int, int]]: ...

class Layer:
    def __init__(
        self,
        isa: str,
        features: Sequence[int],
        kernel_size: Sequence[int],
        stride: Sequence[int],
        padding: Sequence[int],
        dilation: Sequence[int],
        groups: int,
        indptr: int,
        indices: int,
        values: int,
        plan: Sequence[int],
        hint: Sequence[int],
    ) -> None: ...
    @property
    def nbytes(self) -> int: ...
    def set_values(self, values: int) -> None: ...
    def get_values(self, values: int) -> None: ...
    def saved_size(self, images: int, height: int, width: int) -> int: ...
    def forward(
        self,
        x: int,
        x_strides: Sequence[int],
        size: Sequence[int],
        bias: int,
        out: int,
        out_strides: Sequence[int],
        saved: int,
        threads: int,
    ) -> None: ...
    def backward(
        self,
        x: int,
        x_strides: Sequence[int],
        size: Sequence[int],
        grad_output: int,
        grad_strides: Sequence[int],
        grad_input: int,
        grad_input_strides: Sequence[int],
        grad_values: int,
        saved: int,
        threads: int,
    ) -> None: ...
