"""Which cells run and who competes in each: selection, shards, the baseline, and rows that cannot run here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from sparsebench.errors import UsageError
from sparsebench.harness.plan import Plan

Planned = Callable[..., Plan]
CASES = """
[[kernel]]
name = "linear-wide"
op = "linear"
out_features = 8
in_features = 6
sparsity = [0.9, 0.99]
pass = ["forward", "both"]
tags = ["fast", "transformer"]
backends = ["csr", "lacking"]

[[kernel]]
name = "conv-3x3"
op = "conv2d"
out_features = 8
in_features = 6
height = 4
width = 4
seed = [0, 1]
backends = ["cpp@isa=avx2"]

[[training]]
name = "mlp-step"
model = "mlp"
dataset = "digits"
sparsity = 0.99
backends = ["csr"]
"""


def names(plan: Plan) -> list[str]:
    """The selected cells in short: case, sparsity and pass."""
    return [f"{c.case.name} {c.axes['sparsity']} {c.axes.get('pass', '')}".strip() for c in plan.cells]


@pytest.mark.parametrize(
    ("expression", "chosen"),
    [
        ("", {"linear-wide", "conv-3x3", "mlp-step"}),
        ("  ", {"linear-wide", "conv-3x3", "mlp-step"}),
        ("conv", {"conv-3x3"}),
        ("not conv", {"linear-wide", "mlp-step"}),
        ("transformer", {"linear-wide"}),
        ("kernel and not fast", {"conv-3x3"}),
        ("conv or mlp", {"conv-3x3", "mlp-step"}),
        ("kernel and fast or training", {"linear-wide", "mlp-step"}),
        ("seed=1", {"conv-3x3"}),
        ("not kernel", {"mlp-step"}),
    ],
)
def test_k_looks_at_name_kind_tags_and_values(planned: Planned, expression: str, chosen: set[str]) -> None:
    assert {c.case.name for c in planned(CASES, expression=expression).cells} == chosen


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ("sparsity=0.7", r"selects no cell; sparsity is here 0\.9, 0\.99$"),
        ("sprsity=0.9", r"no axis is called 'sprsity'; did you mean 'sparsity'\?$"),
        ("linear and pass=forwrd", "pass is here forward, both$"),
        ("zzz=1", "no axis is called 'zzz'; known: pass, seed, sparsity, threads$"),
    ],
)
def test_k_says_what_values_there_are(planned: Planned, expression: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        planned(CASES, expression=expression)


def test_k_selects_cells_not_cases(planned: Planned) -> None:
    assert names(planned(CASES, expression="linear and sparsity=0.9 and pass=both or 0.99 and forward")) == [
        "linear-wide 0.9 both",
        "linear-wide 0.99 forward",
    ]
    assert names(planned(CASES, expression="linear and not 0.99 and not both")) == ["linear-wide 0.9 forward"]


def test_k_that_selects_nothing_says_what_there_is(planned: Planned) -> None:
    with pytest.raises(UsageError, match=r"-k 'cnov' selects no cell; cases: linear-wide, conv-3x3, mlp-step"):
        planned(CASES, expression="cnov")


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_shards_are_all_cells_once_and_keep_groups_together(planned: Planned, count: int) -> None:
    shards = [planned(CASES, shard=(i, count)) for i in range(1, count + 1)]
    keys = [cell.key for shard in shards for cell in shard.cells]
    assert sorted(keys) == sorted(cell.key for cell in planned(CASES).cells)
    groups = [{cell.group for cell in shard.cells} for shard in shards]
    assert sum(map(len, groups)) == len(set.union(*groups))


def test_a_shard_with_nothing_in_it_says_so(planned: Planned) -> None:
    with pytest.raises(UsageError, match="the shard selects no cell"):
        planned(CASES, shard=(6, 6))


def test_the_baseline_always_competes_and_comes_first(planned: Planned) -> None:
    for selection in ({}, {"backends": ("csr",)}, {"backends": ("csr", "dense")}):
        plan = planned(CASES, **selection)
        for cell in plan.cells:
            assert plan.variants[cell.key][0] == "dense"
            assert plan.variants[cell.key].count("dense") == 1


def test_backend_replaces_who_competes(planned: Planned) -> None:
    plan = planned(CASES, backends=("cpp", "csr", "cpp"), files=("/tmp/local.py",))
    assert {tuple(v) for v in plan.variants.values()} == {("dense", "cpp", "csr", "local")}  # the file competes too


def test_backends_of_a_plugin_file_compete_everywhere(planned: Planned) -> None:
    without, beside = planned(CASES), planned(CASES, files=("/tmp/local.py",))
    for cell in beside.cells:
        assert beside.variants[cell.key] == [*without.variants[cell.key], "local"]
    assert all("local" not in names for names in without.variants.values())


def test_what_is_not_installed_is_a_skipped_row_with_the_reason(planned: Planned) -> None:
    plan = planned(CASES, expression="linear")
    assert all(plan.variants[cell.key] == ["dense", "csr", "lacking"] for cell in plan.cells)
    assert all(plan.running(cell) == ["dense", "csr"] for cell in plan.cells)
    samples = plan.barred_samples()
    assert len(samples) == 4
    for sample in samples:
        assert (sample.case, sample.variant, sample.block, sample.status) == ("linear-wide", "lacking", 0, "skipped")
        assert (sample.reason or "").startswith("no_such_package is not installed")
        assert sample.t_ns == []


def test_the_first_reason_for_which_a_row_is_barred_stands(planned: Planned) -> None:
    plan = planned(CASES, expression="linear")
    plan.bar(plan.cells[0], "lacking", "unsupported", "another")
    plan.bar(plan.cells[0], "csr", "unsupported", "two\n lines")
    assert plan.barred[plan.cells[0].key, "lacking"][0] == "skipped"
    assert plan.barred[plan.cells[0].key, "csr"] == ("unsupported", "two lines")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"csr"', '"csrr"', "no backend is named 'csrr'; did you mean 'csr'?"),
        ("isa=avx2", "isa=avx9", "cpp@isa=avx9: isa = 'avx9' is not possible; did you mean 'avx2'?"),
        ("isa=avx2", "iso=avx2", "cpp@iso=avx2: 'iso' is not an option; did you mean 'isa'?"),
        ('model = "mlp"', 'model = "mpl"', "no model is named 'mpl'; did you mean 'mlp'?"),
        ('"digits"', '"digit"', "no dataset is named 'digit'; did you mean 'digits'?"),
        ('"digits"', '"digits"\nmethod = "statc"', "no method is named 'statc'; did you mean 'static'?"),
        ('"digits"', '"digits"\nallocator = "erk"', "no allocator is named 'erk'; known: uniform"),
    ],
)
def test_an_unknown_name_is_told_with_the_nearest(planned: Planned, old: str, new: str, message: str) -> None:
    with pytest.raises(UsageError) as error:
        planned(CASES.replace(old, new))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_an_unknown_backend_of_the_command_line(planned: Planned) -> None:
    with pytest.raises(UsageError, match="no backend is named 'denze'; did you mean 'dense'"):
        planned(CASES, backends=("denze",))


def test_threads_blocks_and_seed_override_the_suite(planned: Planned) -> None:
    plan = planned(CASES, head="threads = [1, 2]\nblocks = 2", threads=4, blocks=7, seed=9)
    assert {cell.threads for cell in plan.cells} == {4}
    assert {cell.case.blocks for cell in plan.cells} == {7}
    assert {cell.parameters["seed"] for cell in plan.cells} == {9}
    assert len({cell.key for cell in plan.cells}) == len(plan.cells) == 6


def test_quick_is_a_cell_for_each_case(planned: Planned) -> None:
    plan = planned(CASES, quick=True)
    assert names(plan) == ["linear-wide 0.9 forward", "conv-3x3 0.9 both", "mlp-step 0.99"]
    assert {(cell.case.blocks, cell.case.rounds) for cell in plan.cells} == {(1, 3)}
    assert {cell.case.blocks for cell in planned(CASES, quick=True, blocks=4).cells} == {4}


def test_peers_are_other_peoples_software(planned: Planned, backend: Any) -> None:
    plan = planned(CASES)
    assert plan.peers() == set()
    plan.backends["foreign"] = (backend("foreign", peer=True), {})
    assert plan.peers() == {"foreign"}


def test_a_model_cell_names_its_parts_and_a_kernel_cell_has_none(planned: Planned) -> None:
    plan = planned(CASES)
    parts = {cell.case.name: sorted(plan.parts[cell.key]) for cell in plan.cells}
    assert parts["mlp-step"] == ["allocator", "dataset", "method", "model"]
    assert parts["linear-wide"] == []


def test_run_json_says_what_each_cell_is(planned: Planned) -> None:
    forward, both, *_ = planned(CASES, expression="linear and sparsity=0.9").infos()
    assert (forward.kind, forward.op, forward.baseline) == ("kernel", "linear", "dense")
    assert forward.variants == ["dense", "csr", "lacking"]
    assert forward.dense_flop == 2 * 8 * 6
    assert forward.useful_flop == 2 * round(8 * 6 * 0.1)
    assert both.dense_flop == 3 * forward.dense_flop
    (model,) = planned(CASES, expression="mlp").infos()
    assert (model.kind, model.op, model.useful_flop) == ("training", "", 0.0)


def test_a_suite_says_what_runs_without_k(planned: Planned) -> None:
    head = 'default = "fast or training"'
    assert {c.case.name for c in planned(CASES, head=head).cells} == {"linear-wide", "mlp-step"}
    assert {c.case.name for c in planned(CASES, head=head, expression="conv").cells} == {"conv-3x3"}
    assert {c.case.name for c in planned(CASES, head=head, expression="kernel").cells} == {"linear-wide", "conv-3x3"}
    with pytest.raises(UsageError, match="-k 'cnov' selects no cell"):
        planned(CASES, head='default = "cnov"')


def test_k_does_not_take_the_name_of_an_axis_for_a_value(planned: Planned) -> None:
    """Every cell has threads: a tag of that name would select nothing else."""
    tagged = CASES.replace('"fast"', '"threads"')
    assert {c.case.name for c in planned(tagged, expression="threads").cells} == {"linear-wide"}
    assert {c.case.name for c in planned(tagged, expression="threads=1").cells} == {
        "linear-wide",
        "conv-3x3",
        "mlp-step",
    }
    with pytest.raises(UsageError, match="selects no cell"):
        planned(CASES, expression="threads")


def test_peers_by_name_are_peers_all_the_same(planned: Planned, backend: Any) -> None:
    """What fails a run is one thing, whom the others are measured by another."""
    plan = planned(CASES, backends=("csr", "cpp"))
    plan.backends |= {name: (backend(name, peer=True), {}) for name in ("csr", "dense")}
    assert plan.peers() == {"dense"}
    assert plan.peer_variants() == ["csr"], "the baseline is no peer of itself"


@pytest.mark.parametrize(
    ("which", "products"), [("forward", 1), ("grad_input", 1), ("grad_weight", 1), ("backward", 2), ("both", 3)]
)
def test_run_json_says_what_each_cell_must_stream(planned: Planned, which: str, products: int) -> None:
    cases = CASES.replace('["forward", "both"]', f'"{which}"').replace('op = "linear"', 'op = "linear"\nbatch = 5')
    info, *_ = planned(cases, expression="linear and sparsity=0.9").infos()
    assert info.products == products
    assert info.least_bytes == round(8 * 6 * 0.1) * 6 + 4 * 5 * (8 + 6)
    assert info.useful_flop == 2 * 5 * products * round(8 * 6 * 0.1)


def test_of_other_types_and_models_nobody_knows_what_they_stream(planned: Planned) -> None:
    cases = CASES.replace('op = "linear"', 'op = "linear"\ndtype = "float64"')
    assert {info.least_bytes for info in planned(cases, expression="linear or mlp").infos()} == {0.0}


def test_run_json_says_the_group(planned: Planned) -> None:
    cases = CASES.replace('name = "linear-wide"', 'name = "linear-wide"\ngroup = "wide"')
    assert {info.case: info.group for info in planned(cases).infos()} == {
        "linear-wide": "wide", "conv-3x3": "", "mlp-step": "",
    }  # fmt: skip
