"""The kit as pytest parameters: of an installed method with its options, and of all in a plugin file."""

from __future__ import annotations

from pathlib import Path

import pytest

from sparsebench.errors import UsageError
from sparsebench.testing import method_checks, method_params

FILE = """
from sparsebench.plugin import MethodSpec, Update, hookimpl

class Mine:
    def setup(self, ctx):
        scores = {name: weight.abs() for name, weight in ctx.prunable.items()}
        masks = ctx.select(scores)
        if ctx.parameters["short"]:
            masks["0.weight"].view(-1)[:] = False
        return Update(masks=masks)

@hookimpl
def sparsebench_methods():
    return [MethodSpec(name=name, summary="", load=f"{__name__}:Mine", kind="fixed", source="",
                       parameters={"short": short}) for name, short in (("right", False), ("wrong", True))]
"""


def test_params_fail_skip_or_return_and_have_the_checks_name(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(FILE)
    found = {param.id: param.values[0] for param in method_params(tmp_path / "mine.py")}
    assert len(found) == 2 * len(method_checks())
    assert found["right:-one-epoch"]() is None
    with pytest.raises(pytest.fail.Exception, match="one epoch: wrong: method wrong, setup"):
        found["wrong:-one-epoch"]()
    gmp = {param.id: param.values[0] for param in method_params("gmp")}
    with pytest.raises(pytest.skip.Exception, match="2:4 groups have one sparsity, not 0"):
        gmp["gmp:-2:4-groups"]()


def test_params_of_a_name_with_options_have_the_options() -> None:
    plain, other = method_params("gmp")[0].values[0], method_params("gmp@regrow=true,updates=3")[0].values[0]
    assert plain.spec.parameters == {"begin": 0.1, "end": 0.7, "initial": 0.05, "updates": 20, "regrow": False}
    assert other.spec.parameters == {**plain.spec.parameters, "regrow": True, "updates": 3}
    with pytest.raises(UsageError, match="'regrwo' is not a parameter"):
        method_params("gmp@regrwo=true")


def test_params_of_a_file_without_methods_say_so(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(FILE.replace("return [", "return [][:0] and ["))
    with pytest.raises(UsageError, match=r"mine\.py offers no method"):
        method_params(tmp_path / "mine.py")
