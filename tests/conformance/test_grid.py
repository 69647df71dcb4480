"""The grid fits what a spec takes: the whole of it on one pattern or dtype, and nothing that the spec refuses."""

import re
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from sparsebench.plugin import BackendSpec, Problem, SparseWeight
from sparsebench.testing import Check, checks_for, run_check
from sparsebench.testing.grid import KINDS
from sparsebench.testing.honest import HonestBackend, HonestKernel

ANY = BackendSpec(name="any", summary="takes all", load="here:Any", ops=("linear", "conv2d"))


def taking(*patterns: str) -> BackendSpec:
    return replace(ANY, patterns=patterns)


class Strict(HonestKernel):
    """Raises for a weight that does not keep the pattern of its problem."""

    def __init__(self, problem: Problem, weight: SparseWeight) -> None:
        family, _, numbers = problem.pattern.partition(":")
        kept = weight.mask()
        if family == "nm":
            keep, group = map(int, numbers.split(":"))
            assert set(kept.unflatten(1, (-1, group)).sum(2).unique().tolist()) <= {keep}
        if family == "block":
            for block in kept.flatten(1).split(int(numbers), 1):
                assert bool((block.all(1) | ~block.any(1)).all())
        super().__init__(problem, weight)


TAKEN = [
    (("nm",), r"nm:2:4", 40),
    (("nm:1:8",), r"nm:1:8", 40),
    (("block",), r"block:4", 60),
    (("block:8",), r"block:8", 60),
    (("row-skewed",), r"row-skewed", 60),
    (("nm:1:4", "block:16"), r"nm:1:4|block:16", 60),
    (("uniform", "nm"), r"uniform|nm:2:4", 60),
]


@pytest.mark.parametrize(("patterns", "allowed", "least"), TAKEN, ids=lambda each: str(each))
def test_a_pattern_that_a_backend_takes_gets_the_whole_grid(
    patterns: tuple[str, ...], allowed: str, least: int
) -> None:
    spec = taking(*patterns)
    grid = checks_for(spec)
    assert len(grid) >= least
    assert {check.problem.op for check in grid} == {"linear", "conv2d"}
    assert all(re.fullmatch(allowed, check.problem.pattern) and not spec.refuses(check.problem) for check in grid)
    kinds = {check.kind for check in grid}
    assert kinds == set(KINDS) or ("nm" in allowed and kinds >= {"explicit zeros", "non-finite input", "unaligned"})
    results = [run_check(HonestBackend(Strict), spec, check) for check in grid]
    assert [(result.name, result.reason) for result in results if result.status != "ok"] == []


@pytest.mark.parametrize("pattern", ["nm:2:4", "block:4"])
def test_a_weight_off_its_pattern_would_be_seen(pattern: str) -> None:
    problem = Problem(op="linear", out_features=8, in_features=8, sparsity=0.5, pattern=pattern)
    off = SparseWeight.from_dense(torch.eye(8))
    with pytest.raises(AssertionError):
        Strict(problem, off)


def test_a_dtype_that_a_backend_takes_gets_the_whole_grid() -> None:
    wide, narrow = checks_for(replace(ANY, dtypes=("float64",))), checks_for(ANY)
    assert {check.problem.dtype for check in wide} == {"float64"}
    assert {check.problem.dtype for check in narrow} == {"float32"}
    assert len(wide) >= len(narrow)


@pytest.mark.parametrize("spec", [ANY, taking("nm"), taking("block:8", "nm:1:4"), replace(ANY, dtypes=("float64",))])
def test_names_and_checks_are_unique(spec: BackendSpec) -> None:
    grid = checks_for(spec)
    assert len({check.name for check in grid}) == len({(check.problem, check.kind) for check in grid}) == len(grid)


def test_what_the_spec_refuses_is_not_asked() -> None:
    class Asked(HonestBackend):
        def unsupported(self, problem: Problem) -> str | None:
            raise AssertionError("the spec has said no")

    check = checks_for(ANY)[0]
    result = run_check(Asked(), taking("block:8"), check)
    assert (result.status, result.reason) == ("unsupported", "any takes the patterns block:8, not uniform")
    assert run_check(Asked(), ANY, check).status == "error"


@pytest.mark.parametrize("answer", [True, 0, ("no",), Tensor()])
def test_an_answer_that_is_no_reason_is_an_error(answer: Any) -> None:
    class Babbles(HonestBackend):
        def unsupported(self, problem: Problem) -> str | None:
            return answer  # type: ignore[no-any-return]

    problem = Problem(op="linear", out_features=8, in_features=8)
    result = run_check(Babbles(), ANY, Check("one", problem, "verify"))
    assert result.status == "error"
    assert f"unsupported() returned {type(answer).__name__}" in (result.reason or "")
