"""Every backend that ships with us and can run here does every check of the grid, but for what SparseProp cannot."""

from typing import Any

import pytest

from sparsebench.builtin.backends._mkl_library import find_library
from sparsebench.registry import load_registry
from sparsebench.testing import checks_for, run_check

REGISTRY = load_registry()
OURS = {
    name: entry
    for name, entry in REGISTRY.backends.items()
    if entry.plugin.distribution == "sparsebench" and not entry.missing()
}
CANNOT = {
    "sparseprop": {
        f"conv2d {name}"
        for name in (
            "uneven stride", "stride past the kernel", "uneven padding", "padding past the kernel", "dilation 2",
            "uneven dilation", "groups 2", "depthwise", "depthwise with multiplier", "1x3 kernel", "3x2 kernel",
            "kernel as large as the input",
        )
    }
}  # fmt: skip
if find_library("auto") is None:  # another CPU than oneMKL is made for
    OURS.pop("mkl", None)
BACKENDS: dict[str, Any] = {}


def backend(name: str) -> Any:
    if name not in BACKENDS:
        BACKENDS[name] = REGISTRY.create("backends", name)
    return BACKENDS[name]


def test_those_that_need_nothing_are_among_them() -> None:
    assert OURS.keys() >= {"torch-dense", "torch-dense-bf16", "torch-csr", "cython"}


@pytest.mark.parametrize(
    ("name", "check"),
    [
        pytest.param(name, check, id=f"{name}: {check.name}")
        for name, entry in OURS.items()
        for check in checks_for(entry.spec)
    ],
)
def test_conformance(name: str, check: Any) -> None:
    result = run_check(backend(name), OURS[name].spec, check)
    if check.name in CANNOT.get(name, ()):
        assert result.status == "unsupported"
        assert result.reason
    else:
        assert (result.status, result.reason) == ("ok", None)
        assert result.max_rel_err <= result.tolerance
