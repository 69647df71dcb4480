"""suite-kernels holds what it promises: its core, its extras, and a default that keeps the extras out."""

from __future__ import annotations

from collections import Counter

import pytest

from sparsebench.harness.cells import expand
from sparsebench.harness.suite import Suite, load_suite

EXTRAS = {"sweep", "skewed", "real", "threads", "isa", "ablation"}


@pytest.fixture(scope="module")
def suite() -> Suite:
    return load_suite("suite-kernels")


def test_a_plain_run_is_the_core(suite: Suite) -> None:
    assert suite.default == "core"
    assert suite.details
    tags = Counter(tag for case in suite.cases for tag in case.tags)
    assert tags.keys() == {"core", *EXTRAS}
    assert tags["core"] == 16


def test_a_tag_selects_its_own_cases_alone(suite: Suite) -> None:
    """-k looks for a word anywhere in name, kind, tags and values: no other case may hold the word of a tag."""
    for tag in ("core", *EXTRAS):
        for case in suite.cases:
            words = [case.name, *case.tags, *(str(v) for values in case.axes.values() for v in values)]
            assert (tag in " ".join(words)) == (tag in case.tags), (tag, case.name)


def test_extras_never_mix_with_the_means_of_the_core(suite: Suite) -> None:
    groups = {tag: {case.group for case in suite.cases if tag in case.tags} for tag in ("core", *EXTRAS)}
    assert all(groups.values())
    assert sum(map(len, groups.values())) == len(set.union(*groups.values()))


def test_means_of_the_core_are_of_batches_from_32_on(suite: Suite) -> None:
    core = [case for case in suite.cases if "core" in case.tags]
    small = {case.group for case in core if case.parameters["batch"] < 32}
    assert small == {"linear, batch 1"}
    assert not small & {case.group for case in core if case.parameters["batch"] >= 32}


def test_the_core_has_every_pass_and_sparsity(suite: Suite) -> None:
    for case in suite.cases:
        if "ablation" in case.tags:
            assert case.axes["pass"] == ("forward", "grad_input", "grad_weight")
        else:
            assert case.axes["pass"] == ("forward", "both")
        if "core" in case.tags:
            assert case.axes["sparsity"] == (0.8, 0.9, 0.95)
            assert {"cpp", "sparseprop"} <= set(case.backends)
        if "sweep" in case.tags:
            assert (case.axes["sparsity"][0], case.axes["sparsity"][-1]) == (0.5, 0.99)
    assert any("torch-csr" in case.backends for case in suite.cases)
    assert len(expand(suite)) > 96
