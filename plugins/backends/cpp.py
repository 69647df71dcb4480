"""The `cpp` backend: C++ kernels at the machine's limit, compiled once per instruction set."""

from __future__ import annotations

from sparsebench.plugin import BackendSpec, hookimpl


@hookimpl
def sparsebench_backends() -> list[BackendSpec]:
    """One spec; the implementation is imported when a worker loads it."""
    return [
        BackendSpec(
            name="cpp",
            summary="C++ kernels for AVX-512, AVX2 and portable: sums in registers, panels in cache",
            load="sparsebench.builtin.backends._cpp:CppBackend",
            ops=("linear", "conv2d"),
            options={
                "isa": ("base", "avx2", "avx512"),
                "layout": ("rows", "flat"),
                "tile": tuple(range(1, 9)),
                "block": (8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, "all"),
            },
        )
    ]
