"""Every backend that ships with us and can run here passes every check of the grid."""

from typing import Any

import pytest

from sparsebench.registry import load_registry
from sparsebench.testing import checks_for, run_check

REGISTRY = load_registry()
OURS = {
    name: entry
    for name, entry in REGISTRY.backends.items()
    if entry.plugin.distribution == "sparsebench" and not entry.missing()
}
DO_EVERYTHING = {"torch-dense", "torch-dense-bf16"}
BACKENDS: dict[str, Any] = {}


def backend(name: str) -> Any:
    if name not in BACKENDS:
        BACKENDS[name] = REGISTRY.create("backends", name)
    return BACKENDS[name]


def test_the_baseline_is_among_them() -> None:
    assert OURS.keys() >= DO_EVERYTHING


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
    if result.status == "unsupported":
        assert name not in DO_EVERYTHING
        assert result.reason
    else:
        assert (result.status, result.reason) == ("ok", None)
        assert result.max_rel_err <= result.tolerance
