"""Every method that ships with us passes every check of the kit; a schedule on the way to N:M groups cannot be."""

from __future__ import annotations

from typing import Any

import pytest

from sparsebench.registry import load_registry
from sparsebench.testing import method_checks, method_params

OURS = [name for name, entry in load_registry().methods.items() if entry.source.ours]
VARIANTS = [*OURS, "gmp@regrow=true"]
CANNOT = {("gmp", "2:4 groups")}


def test_those_that_we_name_everywhere_are_among_them() -> None:
    assert set(OURS) >= {"dense", "random", "static", "magnitude", "gmp", "acdc"}
    assert {len(method_params(name)) for name in VARIANTS} == {len(method_checks())}


@pytest.mark.parametrize(
    "check",
    [
        pytest.param(*each.values, id=f"{name}:{str(each.id).partition(':')[2]}")
        for name in VARIANTS
        for each in method_params(name)
    ],
)
def test_conformance(check: Any) -> None:
    skipped = ""
    try:
        check()
    except pytest.skip.Exception as stop:
        skipped = str(stop.msg)
    wanted = "groups have one sparsity" if (check.spec.name, check.check.name) in CANNOT else ""
    assert (bool(skipped), wanted in skipped) == (bool(wanted), True)
