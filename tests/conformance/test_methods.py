"""Every method that ships with us passes every check of the kit; what a method cannot do it says."""

from __future__ import annotations

from typing import Any

import pytest

from sparsebench.registry import load_registry
from sparsebench.testing import method_checks, method_params

OURS = [name for name, entry in load_registry().methods.items() if entry.source.ours]
VARIANTS = [
    *OURS,
    "gmp@regrow=true",
    "woodfisher@gradual=true",
    "m-fac@gradual=true",
    "cram@plus=true",
    "lottery@rewind=rate",
]
BY_DEGREES, GROUPS, WHOLE = "groups have one sparsity", "2:4 groups", "one budget for the model"
CANNOT = {  # and the words that say why
    ("gmp", GROUPS): BY_DEGREES,
    ("gmp@regrow=true", GROUPS): BY_DEGREES,
    ("woodfisher@gradual=true", GROUPS): BY_DEGREES,
    ("m-fac@gradual=true", GROUPS): BY_DEGREES,
    ("lottery", GROUPS): BY_DEGREES,
    ("lottery@rewind=rate", GROUPS): BY_DEGREES,
    ("set", GROUPS): "groups",
    ("rigl", GROUPS): "groups",
    ("small-dense", GROUPS): "without groups",
    ("str", GROUPS): "groups",
    ("sparsegpt", WHOLE): "uniform, erk or nm",
    ("wanda", WHOLE): "uniform, erk or nm",
}


def test_those_that_we_name_everywhere_are_among_them() -> None:
    assert set(OURS) >= {"dense", "random", "static", "magnitude", "gmp", "acdc"}
    assert {len(method_params(name)) for name in VARIANTS} == {len(method_checks())}


@pytest.mark.parametrize(
    ("variant", "check"),
    [
        pytest.param(name, *each.values, id=f"{name}:{str(each.id).partition(':')[2]}")
        for name in VARIANTS
        for each in method_params(name)
    ],
)
def test_conformance(variant: str, check: Any) -> None:
    skipped = ""
    try:
        check()
    except pytest.skip.Exception as stop:
        skipped = str(stop.msg)
    wanted = CANNOT.get((variant, check.check.name), "")
    assert (bool(skipped), wanted in skipped) == (bool(wanted), True)
