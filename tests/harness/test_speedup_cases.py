"""The key `speedup` of a suite file: in place of a sparsity, with its own reference, and what it cannot go with."""

from __future__ import annotations

import pytest

from sparsebench.errors import UsageError
from sparsebench.harness.cells import expand, first_values
from sparsebench.harness.plan import Plan, Selection, make_plan
from sparsebench.harness.suite import parse_suite
from sparsebench.registry import Registry, load_registry

CASE = {
    "name": '"fast"', "model": '"mlp"', "dataset": '"digits"', "method": '["magnitude", "gmp"]', "epochs": "3",
    "backend": '"cpp"', "speedup": "[1.5, 2]",
}  # fmt: skip
SPEEDS = (1.0, 1.5, 2.0)


def text(kind: str = "accuracy", **changes: str) -> str:
    given = {**CASE, **changes}
    lines = [f"{key} = {value}" for key, value in given.items() if value]
    return 'schema = 1\n[suite]\nname = "mine"\n' + "\n".join([f"[[{kind}]]", *lines])


def plan(selection: Selection = Selection(), **changes: str) -> Plan:  # noqa: B008  frozen
    return make_plan(parse_suite(text(**changes), "mine.toml"), registry(), selection)


def registry() -> Registry:
    return load_registry()


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        ("accuracy", {"sparsity": "0.9"}, "it asks for a sparsity and for a speedup; write one of them"),
        ("accuracy", {"backend": ""}, 'a speedup is that of a backend; write one, as in backend = "cpp"'),
        ("accuracy", {"speedup": "1"}, "speedup = 1.0; write how many times faster than dense, above 1"),
        ("accuracy", {"speedup": "[2, 0.5]"}, "speedup = 0.5; write how many"),
        ("accuracy", {"speedup": "inf"}, "speedup = inf; write how many"),
        ("accuracy", {"speedup": "nan"}, "speedup = nan; write how many"),
        ("accuracy", {"speedup": '"2x"'}, "speedup = '2x'; write a number"),
        ("accuracy", {"speedup": "[2, 2.0]"}, "a list with a value twice"),
        ("accuracy", {"speedup": "[]"}, "is empty"),
        ("training", {"backend": ""}, "'speedup' is not a key"),
        ("time-to-accuracy", {"goal": "0.9"}, "'speedup' is not a key"),
    ],
)
def test_what_it_cannot_be_or_go_with(kind: str, changes: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError) as error:
        parse_suite(text(kind, **changes), "mine.toml")
    assert message in str(error.value)
    assert f"mine.toml [[{kind}]] 'fast': " in str(error.value)


def test_cells_are_the_model_as_it_is_and_one_for_each_speedup() -> None:
    cells = expand(parse_suite(text(), "mine.toml"))
    assert tuple(cell.axes["speedup"] for cell in cells) == SPEEDS
    assert [cell.is_reference for cell in cells] == [True, False, False]
    assert all("sparsity" not in cell.axes and cell.parameters["sparsity"] == 0 for cell in cells)
    assert len({cell.version for cell in cells}) == 3
    assert cells[1].title == "mlp on digits, 3 epochs at batch 32, uniform, on cpp"
    assert [cell.axes["speedup"] for cell in first_values(cells)] == [1.0, 1.5]


def test_without_it_nothing_is_as_it_was_not() -> None:
    (reference, pruned) = expand(parse_suite(text(speedup="", sparsity="0.5"), "mine.toml"))
    assert "speedup" not in {**pruned.axes, **pruned.parameters}
    assert (reference.is_reference, pruned.is_reference) == (True, False)


def test_dense_runs_once_and_methods_at_every_speedup() -> None:
    made = plan()
    told = {cell.axes["speedup"]: made.variants[cell.key] for cell in made.cells}
    assert told == {1.0: ["dense"], 1.5: ["magnitude", "gmp"], 2.0: ["magnitude", "gmp"]}


def test_a_case_whose_methods_never_prune_comes_to_no_speedup() -> None:
    with pytest.raises(UsageError, match="case 'fast': none of its methods prunes"):
        plan(method='["dense"]')
    alone = plan(Selection(methods=("dense",)))
    assert [cell.axes["speedup"] for cell in alone.cells] == [1.0], "who is asked for alone is the reference alone"


@pytest.mark.parametrize("count", [2, 3])
def test_a_shard_and_a_selection_have_their_reference(count: int) -> None:
    for index in range(1, count + 1):
        made = plan(Selection(shard=(index, count)), seed="[0, 1, 2]")
        by_seed = {seed: [c.axes["speedup"] for c in made.cells if c.axes["seed"] == seed] for seed in (0, 1, 2)}
        assert all(tuple(speeds) in ((), SPEEDS) for speeds in by_seed.values())
    chosen = plan(Selection(expression="speedup=2.0"))
    assert [cell.axes["speedup"] for cell in chosen.cells] == [1.0, 2.0]
