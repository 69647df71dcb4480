"""A folder for plans, and records to keep in it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sparsebench.plans import Code, Fastest, Tuned, code_of

CODE = code_of("sparsebench.builtin.backends._cython")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Plans are kept in a folder that does not exist yet."""
    place = tmp_path / "a" / "plans"
    monkeypatch.setenv("SPARSEBENCH_PLANS", str(place))
    return place


@pytest.fixture(scope="session")
def tuned() -> Callable[..., Tuned]:
    """A plan of the code that is here, with these options."""

    def make(code: Code = CODE, **options: Any) -> Tuned:
        return Tuned(options=options, gain=1.2, passes="both", code=code, made="2026-11-21T00:00:00+00:00")

    return make


@pytest.fixture(scope="session")
def winner() -> Callable[..., Fastest]:
    """Who won."""

    def make(name: str = "mine") -> Fastest:
        times = {"dense": 2.0, **({name: 1.0} if name else {})}
        return Fastest(backend=name, winner=name, times_ns=times, codes={"mine": CODE}, torch="2", made="2026-11-21")

    return make
