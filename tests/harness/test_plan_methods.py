"""Cases in which methods compete: a reference without pruning, seeds, selection, and what cannot be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sparsebench.discovery import Source
from sparsebench.errors import UsageError
from sparsebench.harness.crew import Crew
from sparsebench.harness.desk import Desk
from sparsebench.harness.plan import Plan, Selection, make_plan
from sparsebench.harness.suite import OPTIMIZERS, parse_suite
from sparsebench.plugin import MethodSpec, PluginInfo
from sparsebench.registry import Entry, Registry, load_registry
from sparsebench.training import recipe

FILE = "/tmp/mine.py"
HEAD = 'schema = 1\n[suite]\nname = "mine"\nbaseline = "torch-dense"\nbackends = ["cpp"]\nblocks = 5\n'
CASE = {"name": '"digits"', "model": '"mlp"', "dataset": '"digits"', "method": '["static", "gmp"]', "epochs": "3"}
TIMED = {**CASE, "backend": '"cpp"', "goal": "0.9"}
KERNEL = '[[kernel]]\nname = "layer"\nop = "linear"\nout_features = 8\nin_features = 6\n'
GMP = {"end": 0.7, "updates": 20, "regrow": False, "norm": "l1"}
Planned = Callable[..., Plan]


def table(kind: str = "accuracy", **changes: str) -> str:
    """A case as text."""
    given = {**(CASE if kind == "accuracy" else TIMED), **changes}
    return f"[[{kind}]]\n" + "\n".join(f"{key} = {value}" for key, value in given.items() if value) + "\n"


def method(name: str, kind: str, file: str = "", **spec: Any) -> Entry:
    made = MethodSpec(name=name, summary="", load="a:b", kind=kind, source="", **spec)
    return Entry(made, PluginInfo(name=file or name), Source(name, file=file))


@pytest.fixture(scope="module")
def methods(registry: Registry, backend: Callable[..., Entry]) -> Registry:
    """That of the other plans, with more methods, one of a file; and the true allocators."""
    made = [
        method("dense", "none"), method("static", "fixed"), method("gmp", "gradual", parameters=GMP),
        method("local", "gradual", FILE), method("idle", "none", FILE),
    ]  # fmt: skip
    backends = {**registry.backends, "torch-dense": backend("torch-dense")}
    allocators = load_registry().allocators
    return replace(registry, methods={m.spec.name: m for m in made}, allocators=allocators, backends=backends)


@pytest.fixture(scope="module")
def planned(methods: Registry) -> Planned:
    def make(cases: str, files: tuple[str, ...] = (), **selection: Any) -> Plan:
        return make_plan(parse_suite(HEAD + cases, "mine.toml"), methods, Selection(**selection), files)

    return make


def rows(plan: Plan) -> list[str]:
    """Every row in short: case, sparsity, seed, variants."""
    return [
        f"{c.case.name} {c.axes['sparsity']:g} seed {c.axes['seed']}: {' '.join(plan.variants[c.key])}"
        for c in plan.cells
        if c.case.by_method
    ]


def test_what_never_prunes_runs_once_and_methods_at_every_sparsity(planned: Planned) -> None:
    assert rows(planned(table(sparsity="[0.9, 0.95]"))) == [
        "digits 0 seed 0: dense",
        "digits 0.9 seed 0: static gmp",
        "digits 0.95 seed 0: static gmp",
    ]


def test_every_seed_has_its_own_reference(planned: Planned) -> None:
    assert rows(planned(table(seed="[3, 1]"))) == [
        "digits 0 seed 3: dense",
        "digits 0.9 seed 3: static gmp",
        "digits 0 seed 1: dense",
        "digits 0.9 seed 1: static gmp",
    ]


@pytest.mark.parametrize("written", ['["static", "dense", "gmp"]', '["dense", "static", "gmp"]'])
def test_dense_is_there_once_whether_it_is_written_or_not(planned: Planned, written: str) -> None:
    assert rows(planned(table(method=written))) == rows(planned(table()))


def test_a_sparsity_of_zero_that_is_written_is_the_reference(planned: Planned) -> None:
    assert rows(planned(table(sparsity="[0.9, 0]"))) == ["digits 0 seed 0: dense", "digits 0.9 seed 0: static gmp"]


@pytest.mark.parametrize("kind", ["accuracy", "time-to-accuracy"])
def test_seed_is_an_axis_and_there_is_one_block_unless_the_case_says_otherwise(planned: Planned, kind: str) -> None:
    for changes, blocks in (({}, 1), ({"blocks": "2"}, 2)):
        plan = planned(table(kind, **changes))
        assert {cell.case.blocks for cell in plan.cells} == {blocks}
        assert [[*cell.axes] for cell in plan.cells] == [["seed", "sparsity", "threads"]] * 2
        assert {cell.baseline for cell in plan.cells} == {"dense"}


def test_seed_of_the_command_line_is_still_an_axis(planned: Planned) -> None:
    plan = planned(table(seed="[0, 1, 2]"), seed=7)
    assert rows(plan) == ["digits 0 seed 7: dense", "digits 0.9 seed 7: static gmp"]
    assert {cell.parameters["seed"] for cell in plan.cells} == {7}


def test_the_title_says_what_is_trained(planned: Planned) -> None:
    assert {c.title for c in planned(table()).cells} == {"mlp on digits, 3 epochs at batch 32, uniform"}
    assert {c.title for c in planned(table("time-to-accuracy", epochs="1")).cells} == {
        "mlp on digits, 1 epoch at batch 32, uniform, on cpp, to 0.9"
    }


@pytest.mark.parametrize(
    "change",
    [
        {"batch": "64"}, {"sparsity": "0.8"}, {"allocator": '"erk"'}, {"exclude": '["fc1"]'}, {"epochs": "4"},
        {"lr": "0.5"}, {"momentum": "0.5"}, {"nesterov": "true"}, {"weight_decay": "0.1"}, {"optimizer": '"adam"'},
        {"seed": "1"}, {"threads": "2"}, {"backend": '"csr"'}, {"normalise": '"imagenet"'}, {"checkpoint": '"a.pt"'},
        {"goal": "0.8"},
    ],
    ids=str,
)  # fmt: skip
def test_what_defines_a_training_is_in_its_version(planned: Planned, change: dict[str, str]) -> None:
    before, after = (planned(table("time-to-accuracy", **c)).cells[-1].version for c in ({}, change))
    assert before != after


@pytest.mark.parametrize(
    "change",
    [
        {"method": '["gmp@regrow=true"]'}, {"name": '"other"'}, {"summary": '"words"'}, {"tags": '["a"]'},
        {"blocks": "2"}, {"batch": "32"}, {"seed": "[0]"},
    ],
    ids=str,
)  # fmt: skip
def test_who_competes_and_how_it_is_told_is_not(planned: Planned, change: dict[str, str]) -> None:
    before, after = ([c.version for c in planned(table(**c)).cells] for c in ({}, change))
    assert before == after
    assert len(set(before)) == 2


@pytest.mark.parametrize(
    ("selection", "cases"),
    [
        ({}, {"layer", "digits"}),
        ({"backends": ("csr",)}, {"layer"}),
        ({"methods": ("static",)}, {"digits"}),
        ({"backends": ("csr",), "methods": ("static",)}, {"layer", "digits"}),
    ],
    ids=str,
)
def test_backend_alone_selects_no_accuracy_case_and_method_alone_no_other(
    planned: Planned, selection: dict[str, Any], cases: set[str]
) -> None:
    plan = planned(KERNEL + table(), **selection)
    assert {cell.case.name for cell in plan.cells} == cases
    if "methods" in selection:
        assert rows(plan) == ["digits 0 seed 0: dense", "digits 0.9 seed 0: static"]


def test_a_selection_that_selects_nothing_is_named(planned: Planned) -> None:
    for cases, selection, told in (
        (KERNEL, {"methods": ("gmp",)}, "--method gmp"),
        (table(), {"backends": ("csr", "cpp")}, "--backend csr with --backend cpp"),
        (KERNEL + table(), {"methods": ("gmp",), "expression": "layer"}, "--method gmp with -k 'layer'"),
    ):
        with pytest.raises(UsageError, match=f"mine: {told} selects no cell; cases: "):
            planned(cases, **selection)


def test_a_method_that_never_prunes_asked_for_alone_is_the_reference_alone(planned: Planned) -> None:
    assert rows(planned(table(), methods=("dense",))) == ["digits 0 seed 0: dense"]


def test_quick_keeps_the_reference_and_the_first_sparsity(planned: Planned) -> None:
    plan = planned(KERNEL + table(sparsity="[0.95, 0.9]", seed="[2, 0]"), quick=True)
    assert rows(plan) == ["digits 0 seed 2: dense", "digits 0.95 seed 2: static gmp"]
    assert [cell.case.name for cell in plan.cells] == ["layer", "digits", "digits"]


@pytest.mark.parametrize("count", [2, 3])
def test_a_shard_has_the_reference_that_its_methods_are_compared_with(planned: Planned, count: int) -> None:
    cases = table(sparsity="[0.9, 0.95]", seed="[0, 1, 2]")
    shards = [planned(cases, shard=(i, count)) for i in range(1, count + 1)]
    assert sorted(row for shard in shards for row in rows(shard)) == sorted(rows(planned(cases)))
    for shard in shards:
        for row in rows(shard):
            assert f"digits 0 {row.partition(':')[0].split(' ', 2)[2]}: dense" in rows(shard)


def test_methods_of_a_plugin_file_compete_each_where_its_kind_does(planned: Planned) -> None:
    found = rows(planned(table(), files=(FILE,)))
    assert found == ["digits 0 seed 0: dense idle", "digits 0.9 seed 0: static gmp local"]
    assert rows(planned(table(), files=(FILE,), methods=("gmp",)))[1] == "digits 0.9 seed 0: gmp local"
    assert "local" not in " ".join(rows(planned(table())))


def test_what_the_user_named_is_remembered(planned: Planned) -> None:
    assert planned(KERNEL + table(), backends=("csr",), methods=("gmp",)).named == ("csr", "gmp")


@pytest.mark.parametrize(
    ("written", "selection", "message"),
    [
        ('["gpm"]', {}, "case 'digits': no method is named 'gpm'; did you mean 'gmp'?"),
        ('["gmp"]', {"methods": ("statik",)}, "--method: no method is named 'statik'; did you mean 'static'?"),
        ('["gmp@regrwo=true"]', {}, "case 'digits': gmp@regrwo=true: 'regrwo' is not a parameter; did you mean"),
        ('["gmp@updates=many"]', {}, "case 'digits': gmp@updates=many: updates = 'many'; write a whole number"),
        ('["gmp@updates=1.5"]', {}, "case 'digits': gmp@updates=1.5: updates = '1.5'; write a whole number"),
        ('["gmp@end=late"]', {}, "case 'digits': gmp@end=late: end = 'late'; write a number"),
        ('["gmp@regrow=1"]', {}, "case 'digits': gmp@regrow=1: regrow = '1'; write true or false"),
        ('["static@a=1"]', {}, "case 'digits': static@a=1: 'a' is not a parameter; it has none"),
        ('["gmp"]', {"methods": ("gmp@end=",)}, "--method: gmp@end=: end = ''; write a number"),
    ],
)
def test_an_unknown_name_or_option_says_who_wants_it(
    planned: Planned, written: str, selection: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError) as error:
        planned(table(method=written), **selection)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


def test_options_are_typed_by_the_defaults_they_replace(planned: Planned) -> None:
    name = "gmp@regrow=true,updates=7,end=1,norm=l2"
    plan = planned(table(method=f'["gmp@regrow=false", "{name}"]'))
    assert rows(plan)[1] == f"digits 0.9 seed 0: gmp@regrow=false {name}", "both compete"
    assert plan.methods["gmp@regrow=false"][1] == GMP
    assert plan.methods[name][1] == {"end": 1.0, "updates": 7, "regrow": True, "norm": "l2"}
    assert {type(value) for value in plan.methods[name][1].values()} == {float, int, bool, str}
    assert plan.found(plan.cells[1], name)["method"] == plan.methods[name]


def test_a_case_whose_backend_is_not_installed_is_skipped_with_the_reason(planned: Planned) -> None:
    plan = planned(table(backend='"lacking"') + table(name='"other"', backend='"cpp"'))
    assert [(c.case.name, plan.running(c)) for c in plan.cells] == [
        ("digits", []), ("digits", []), ("other", ["dense"]), ("other", ["static", "gmp"]),
    ]  # fmt: skip
    samples = plan.barred_samples()
    assert [s.variant for s in samples] == ["dense", "static", "gmp"]
    assert all(s.status == "skipped" and (s.reason or "").startswith("no_such_package is not") for s in samples)


def test_allocator_argument_and_method_options_reach_the_worker(planned: Planned, tmp_path: Path) -> None:
    plan = planned(table(method='["gmp@updates=3"]', allocator='"nm:2:4"', sparsity="0.5"))
    wire = Crew(plan, tmp_path, 0, 1).order(plan.cells[1], "gmp@updates=3")
    order = Desk()._order(wire)
    assert order.options["method"] == {**GMP, "updates": 3}
    assert str(order.made("allocator").scope) == "2:4"
    assert order.entries["method"].spec.name == "gmp"


def test_a_training_goes_on_from_its_own_block_alone(planned: Planned, tmp_path: Path) -> None:
    plan = planned(table())
    cell = plan.cells[1]
    crews = [Crew(plan, tmp_path, block, 1) for block in (0, 1, 0)]
    states = [crew.order(cell, variant)["state"] for crew in crews for variant in ("static", "gmp")]
    assert len(set(states)) == 4
    assert states[:2] == states[4:]


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        ("accuracy", {"method": ""}, "method is missing"),
        ("accuracy", {"method": "[]"}, "method = [] is empty"),
        ("accuracy", {"method": "3"}, "method = 3; write text"),
        ("accuracy", {"method": '["gmp", "gmp"]'}, "method = ['gmp', 'gmp'] is a list with a value twice"),
        ("accuracy", {"epochs": ""}, "epochs is missing"),
        ("accuracy", {"optimizer": '"lion"'}, "optimizer = 'lion'; use sgd, adam, adamw"),
        ("accuracy", {"nesterov": "1"}, "nesterov = 1; write true or false"),
        ("accuracy", {"goal": "0.9"}, "'goal' is not a key"),
        ("accuracy", {"backends": '["cpp"]'}, "'backends' is not a key; did you mean 'backend' or"),
        ("accuracy", {"sparsity": "1"}, "sparsity = 1.0; write a share of pruned weights in [0, 1)"),
        ("time-to-accuracy", {"goal": "0"}, "goal = 0.0; write an accuracy in (0, 1]"),
        ("time-to-accuracy", {"goal": "1.01"}, "goal = 1.01; write an accuracy in (0, 1]"),
        ("time-to-accuracy", {"goal": "nan"}, "goal = nan; write an accuracy in (0, 1]"),
        ("time-to-accuracy", {"goal": ""}, "goal is missing"),
        ("time-to-accuracy", {"backend": ""}, "backend is missing"),
    ],
)
def test_a_mistake_in_a_case_names_case_and_key(kind: str, changes: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError) as error:
        parse_suite(HEAD + table(kind, **changes), "mine.toml")
    assert str(error.value).startswith(f"mine.toml [[{kind}]] 'digits': {message}")


def test_what_is_just_possible_is_no_mistake(planned: Planned) -> None:
    assert {c.parameters["goal"] for c in planned(table("time-to-accuracy", goal="1")).cells} == {1.0}
    for name in OPTIMIZERS:
        assert {c.parameters["optimizer"] for c in planned(table(optimizer=f'"{name}"')).cells} == {name}
    assert OPTIMIZERS == recipe.OPTIMIZERS
