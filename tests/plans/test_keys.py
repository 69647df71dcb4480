"""For which problems, machines and code a plan holds, and for which it does not."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sparsebench import discovery, host
from sparsebench.plans import Code, code_of, is_current, keys, problem_key, sparsity_class, variant
from sparsebench.problem import Problem

LINEAR = Problem(op="linear", out_features=64, in_features=32, batch=8, sparsity=0.9)
CONV = Problem(op="conv2d", out_features=8, in_features=4, kernel_size=(3, 3), batch=2, height=9, width=7)


def test_the_key_is_text_that_a_person_can_read() -> None:
    assert problem_key(LINEAR) == "linear 32->64 batch 8 float32 threads 1 uniform 0.9"
    assert problem_key(CONV) == "conv2d 4->8 3x3 on 9x7 batch 2 float32 threads 1 uniform 0.9"
    other = replace(CONV, stride=(2, 1), padding=(1, 1), groups=4)
    assert problem_key(other).startswith("conv2d 4->8 3x3 on 9x7 stride 2x1 padding 1x1 groups 4 batch 2")


@pytest.mark.parametrize(
    ("problem", "change"),
    [
        (LINEAR, {"out_features": 65}),
        (LINEAR, {"in_features": 33}),
        (LINEAR, {"batch": 9}),
        (LINEAR, {"dtype": "float64"}),
        (LINEAR, {"threads": 2}),
        (LINEAR, {"pattern": "row-skewed"}),
        (LINEAR, {"pattern": "block:8"}),
        (LINEAR, {"sparsity": 0.95}),
        (CONV, {"kernel_size": (3, 1)}),
        (CONV, {"stride": (2, 1)}),
        (CONV, {"padding": (1, 1)}),
        (CONV, {"dilation": (1, 2)}),
        (CONV, {"groups": 2}),
        (CONV, {"height": 8}),
        (CONV, {"width": 8}),
    ],
    ids=str,
)
def test_another_problem_has_another_key(problem: Problem, change: dict[str, Any]) -> None:
    assert problem_key(replace(problem, **change)) != problem_key(problem)


@pytest.mark.parametrize(
    "change", [{"bias": True}, {"sparsity": 0.9003}, {"sparsity": 0.89}, {"sparsity": 0.91}], ids=str
)
def test_what_changes_while_a_model_trains_does_not_miss(change: dict[str, Any]) -> None:
    assert problem_key(replace(LINEAR, **change)) == problem_key(LINEAR)


def test_patterns_count_by_their_kind() -> None:
    block = replace(LINEAR, pattern="block:8")
    assert problem_key(block) == problem_key(replace(LINEAR, pattern="block:4"))


@pytest.mark.parametrize(
    ("sparsity", "rounded"),
    [
        (0.0, 0.0),
        (0.49, 0.5),
        (0.8, 0.8),
        (0.877, 0.85),
        (0.879, 0.9),
        (0.9166, 0.93),
        (0.95, 0.95),
        (0.9999999, 0.999),
    ],
)
def test_sparsity_is_rounded_by_what_is_kept(sparsity: float, rounded: float) -> None:
    assert sparsity_class(sparsity) == rounded


@pytest.mark.parametrize(
    ("backend", "options", "name"),
    [
        ("cpp", None, "cpp"),
        ("cpp", {"tile": 4, "block": "x"}, "cpp@block=x,tile=4"),
        ("cpp@isa=avx2", {"tile": 4}, "cpp@isa=avx2,tile=4"),
        ("cpp@tile=2", {"tile": 4}, "cpp@tile=4"),
    ],
)
def test_a_plan_is_a_name_that_can_be_run(backend: str, options: dict[str, Any] | None, name: str) -> None:
    assert variant(backend, options) == name


def test_another_processor_or_a_forced_isa_is_another_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    here = keys.machine()
    monkeypatch.setenv("SPARSEBENCH_ISA", "avx2")
    assert keys.machine() != here
    monkeypatch.delenv("SPARSEBENCH_ISA")
    assert keys.machine() == here
    keys._processor.cache_clear()
    monkeypatch.setattr(host, "caches", lambda: {"L2": "1K"})
    assert keys.machine() != here
    keys._processor.cache_clear()


def test_changed_code_is_not_current(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("x = 1")
    discovery.import_file(str(file), "mine_a_plan")
    try:
        code = code_of("mine_a_plan")
        assert is_current(code)
        file.write_text("x = 2")
        discovery.package_hash.cache_clear()
        assert not is_current(code)
    finally:
        del sys.modules["mine_a_plan"]


def test_code_that_is_not_imported_is_not_current() -> None:
    assert code_of("no_such_module") == Code("no_such_module", "")
    assert not is_current(Code("no_such_module", ""))
    assert not is_current(Code("no_such_module", "abc"))


def test_our_own_kernels_have_one_hash_and_need_no_import() -> None:
    one, other = code_of("sparsebench.builtin.backends._cython"), code_of("sparsebench.builtin.backends._torch_csr")
    assert one.sha256 == other.sha256 != ""
    assert one.sha256 != host.code_hash()


def test_the_hash_of_a_part_sees_that_part_alone() -> None:
    assert host.code_hash("sparsebench.builtin/backends/") != host.code_hash("sparsebench.builtin/models/")
    assert host.code_hash("") == host.code_hash()
