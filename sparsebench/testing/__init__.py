"""The conformance kit: a grid of named checks that plugin authors, `sparsebench check` and our own tests run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sparsebench.testing.grid import Check, checks_for

if TYPE_CHECKING:
    from sparsebench.testing.conformance import CheckResult, run_check
    from sparsebench.testing.methods import MethodCheck, method_checks, run_method_check
    from sparsebench.testing.params import conformance_params, method_params

__all__ = [
    "Check", "CheckResult", "MethodCheck", "checks_for", "conformance_params", "method_checks", "method_params",
    "run_check", "run_method_check",
]  # fmt: skip
_LAZY = {
    "CheckResult": "sparsebench.testing.conformance",
    "run_check": "sparsebench.testing.conformance",
    "MethodCheck": "sparsebench.testing.methods",
    "method_checks": "sparsebench.testing.methods",
    "run_method_check": "sparsebench.testing.methods",
    "conformance_params": "sparsebench.testing.params",
    "method_params": "sparsebench.testing.params",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        from importlib import import_module

        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'sparsebench.testing' has no attribute {name!r}")
