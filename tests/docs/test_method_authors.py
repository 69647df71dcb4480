"""The method on the page for authors is right as it stands, and short; with a fault in it the kit says which rule."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sparsebench.registry import load_registry
from sparsebench.testing import method_checks, run_method_check

PAGE = (Path(__file__).parents[2] / "docs" / "method-authors.md").read_text()


def source() -> str:
    found = re.search(r"<!-- method: begin -->\n```python\n(.*?)```\n<!-- method: end -->", PAGE, re.DOTALL)
    assert found, "the page has no method"
    return found.group(1)


def results(text: str, path: Path) -> dict[str, tuple[str, str]]:
    path.write_text(text)
    entry = load_registry([path]).methods["straight"]
    make = entry.load()
    made = [run_method_check(make, entry.spec, check) for check in method_checks()]
    return {result.name: (result.status, result.reason or "") for result in made}


def test_the_method_of_the_page_keeps_every_rule(tmp_path: Path) -> None:
    ends = results(source(), tmp_path / "straight.py")
    assert {name for name, (status, _) in ends.items() if status != "ok"} == {"2:4 groups"}
    assert ends["2:4 groups"][0] == "unsupported"  # a schedule on the way to N:M groups cannot be
    assert len([line for line in source().splitlines() if line.strip()]) <= 40


@pytest.mark.parametrize(
    ("right", "wrong", "rule"),
    [
        ("ctx.select(scores, sparsity)", "ctx.select(scores, sparsity / 2)", "budget"),
        ("sparsity = schedule[ctx.step]", "sparsity = schedule[ctx.step] / 2", "final-budget"),
        ("return Update(", "torch.rand(1); return Update(", "random-state"),
    ],
)
def test_a_fault_in_it_is_named(right: str, wrong: str, rule: str, tmp_path: Path) -> None:
    assert source().count(right) == 1
    ends = results(source().replace(right, wrong), tmp_path / f"faulty_{rule.replace('-', '_')}.py")
    assert f"invariant '{rule}'" in ends["linear, nesterov"][1]
