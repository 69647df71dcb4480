"""A cell's version is the hash of what defines it, and of nothing else; cells of one group share what is bound."""

from __future__ import annotations

import pytest

from sparsebench.harness.cells import Cell, expand, first_values
from sparsebench.harness.suite import parse_suite

KERNEL = {"name": '"one"', "op": '"linear"', "out_features": "8", "in_features": "6"}
TRAINING = {"name": '"one"', "model": '"mlp"', "dataset": '"digits"'}


def cells(kind: str, table: dict[str, str], head: str = "") -> list[Cell]:
    lines = "\n".join(f"{key} = {value}" for key, value in table.items())
    return expand(parse_suite(f"schema = 1\n[suite]\n{head}\n[[{kind}]]\n{lines}\n", "mine.toml"))


def version(kind: str, table: dict[str, str], head: str = "") -> str:
    (cell,) = cells(kind, table, head)
    return cell.version


@pytest.mark.parametrize(
    "change",
    [
        {"op": '"conv2d"'}, {"out_features": "9"}, {"in_features": "7"}, {"batch": "2"}, {"sparsity": "0.8"},
        {"pattern": '"block:2"'}, {"dtype": '"float64"'}, {"bias": "true"}, {"pass": '"forward"'}, {"threads": "2"},
        {"seed": "1"},
    ],
    ids=str,
)  # fmt: skip
def test_what_defines_a_kernel_cell_is_in_its_version(change: dict[str, str]) -> None:
    assert version("kernel", KERNEL | change) != version("kernel", KERNEL)


@pytest.mark.parametrize(
    "change",
    [
        {"model": '"lenet"'}, {"dataset": '"noise"'}, {"batch": "64"}, {"sparsity": "0.8"}, {"method": '"magnitude"'},
        {"allocator": '"erk"'}, {"exclude": '["fc1"]'}, {"epochs": "3"}, {"lr": "0.5"}, {"momentum": "0.5"},
        {"weight_decay": "0.1"}, {"seed": "1"}, {"threads": "2"},
    ],
    ids=str,
)  # fmt: skip
def test_what_defines_a_training_cell_is_in_its_version(change: dict[str, str]) -> None:
    assert version("training", TRAINING | change) != version("training", TRAINING)


def test_the_baseline_and_the_kind_are_in_the_version() -> None:
    assert version("kernel", KERNEL, 'baseline = "other"') != version("kernel", KERNEL)
    assert version("inference", TRAINING) != version("training", TRAINING)


@pytest.mark.parametrize(
    "change",
    [
        {"name": '"other"'}, {"summary": '"words"'}, {"tags": '["a"]'}, {"backends": '["csr"]'}, {"blocks": "9"},
        {"rounds": "9"}, {"margin": "0.5"},
    ],
    ids=str,
)  # fmt: skip
def test_what_only_says_how_to_measure_is_not(change: dict[str, str]) -> None:
    assert version("kernel", KERNEL | change) == version("kernel", KERNEL)
    assert version("training", TRAINING | change) == version("training", TRAINING)


def test_a_default_that_is_written_down_changes_nothing() -> None:
    defaults = {"batch": "1", "bias": "false", "pattern": '"uniform"', "pass": '"both"', "sparsity": "[0.9]",
                "kernel_size": "[1, 1]", "threads": "[1]", "seed": "0"}  # fmt: skip
    assert version("kernel", KERNEL | defaults) == version("kernel", KERNEL)
    assert version("kernel", KERNEL | {"sparsity": "0"}) == version("kernel", KERNEL | {"sparsity": "0.0"})
    assert version("training", TRAINING | {"batch": "32"}) == version("training", TRAINING)


def test_an_axis_gives_the_version_of_each_value_alone() -> None:
    both = [c.version for c in cells("kernel", KERNEL | {"sparsity": "[0.8, 0.9]"})]
    assert both == [version("kernel", KERNEL | {"sparsity": s}) for s in ("0.8", "0.9")]


def test_passes_of_one_problem_are_one_group_and_nothing_else_is() -> None:
    table = KERNEL | {"pass": '["forward", "both"]', "sparsity": "[0.8, 0.9]", "threads": "[1, 2]", "seed": "[0, 1]"}
    groups: dict[str, set[str]] = {}
    for cell in cells("kernel", table):
        groups.setdefault(cell.group, set()).add(cell.axes["pass"])
    assert len(groups) == 8
    assert all(passes == {"forward", "both"} for passes in groups.values())
    other = cells("kernel", table | {"name": '"two"'})
    assert not groups.keys() & {cell.group for cell in other}


def test_quick_is_the_first_value_of_every_list_with_one_block_and_three_rounds() -> None:
    table = KERNEL | {"pass": '["forward", "both"]', "sparsity": "[0.8, 0.9]", "batch": "[4, 2]"}
    (cell,) = first_values(cells("kernel", table | {"blocks": "9", "rounds": "9"}))
    assert cell.axes == {"sparsity": 0.8, "pass": "forward", "threads": 1, "batch": 4}
    assert (cell.case.blocks, cell.case.rounds) == (1, 3)
    assert cell.version == version("kernel", KERNEL | {"sparsity": "0.8", "pass": '"forward"', "batch": "4"})


def test_a_cell_says_what_it_computes() -> None:
    conv = {"op": '"conv2d"', "kernel_size": "3", "padding": "1", "height": "14", "width": "14", "batch": "16"}
    (kernel,) = cells("kernel", KERNEL | conv)
    (step,) = cells("training", TRAINING)
    (whole,) = cells("training", TRAINING | {"epochs": "3"})
    (forward,) = cells("inference", TRAINING)
    assert kernel.title == "conv2d 6->8 3x3 on 14x14 padding (1, 1) batch 16 at 0.9, both"
    assert step.title == "mlp on digits, step at batch 32, static 0.9"
    assert whole.title == "mlp on digits, 3 epochs at batch 32, static 0.9"
    assert forward.title == "mlp on digits, forward at batch 32, static 0.9"
