"""From what a person wants tuned to kernel cells: a model's layers, one layer as text, or a suite's kernel cases."""

from __future__ import annotations

import re
import tempfile
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec

from sparsebench.errors import ProblemError, UsageError, nearest
from sparsebench.harness.cells import Cell, expand
from sparsebench.harness.crew import HOST, Crew, Limits
from sparsebench.harness.plan import Plan, Selection, make_plan
from sparsebench.harness.server import Failure
from sparsebench.harness.suite import BASELINE, PROBLEM_KEYS, Case, Suite, load_suite, suite_names
from sparsebench.problem import OPS, Problem
from sparsebench.registry import Registry, entry_to_wire
from sparsebench.training.data import parse_inputs

ROUNDS = 6  # of the race for one problem
MARGIN = 0.03  # as `sparsify` has it: timings of equal kernels differ by this much


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """How the target is to be tuned; None is what goes without saying (or what the suite says)."""

    shape: tuple[int, ...] | None = None  # of the input
    sparsities: tuple[float, ...] = ()
    pattern: str | None = None
    passes: str = "both"
    threads: int | None = None
    classes: int = 10
    expression: str = ""


@dataclass(frozen=True)
class Target:
    """What is to be tuned: each problem once, with the layers that pose it; and the layers that pose none, with why."""

    name: str
    cells: list[Cell]
    layers: dict[str, tuple[str, ...]]  # name of a case -> names of the layers
    left: dict[str, str] = field(default_factory=dict)


def find_target(text: str, registry: Registry, wanted: Wanted, limits: Limits) -> Target:
    """What `text` names; raises `UsageError` for what it does not name or cannot be."""
    if text in registry.models:
        return _model(text, registry, wanted, limits)
    if text.partition(":")[0] in OPS:
        problem = _problem(text, wanted)
        return _target(text, {problem: (text,)}, wanted)
    if text in suite_names() or text.endswith(".toml"):
        return _suite(text, registry, wanted)
    known = [*registry.models, *suite_names()]
    raise UsageError(f"nothing to tune is named {text!r}{nearest(text, known)} (or write linear:OUTxIN)")


def _model(name: str, registry: Registry, wanted: Wanted, limits: Limits) -> Target:
    """The layers of a registered model. A worker builds it, so that a model that crashes or hangs ends only that."""
    entry = registry.models[name]
    example = parse_inputs(entry.spec.inputs).typical
    shape = _shape(name, wanted, "x".join(map(str, (32, *example))))
    request = {
        "do": "layers",
        "model": entry_to_wire("models", entry),
        "input": shape,
        "classes": wanted.classes,
        "problem": {"sparsity": _sparsities(wanted)[0], "pattern": _pattern(wanted), "threads": wanted.threads or 1},
    }
    empty = Plan(Suite("tune", "", "", (), ""), [], {}, {}, {})
    with tempfile.TemporaryDirectory() as folder, Crew(empty, Path(folder), 0, 1, limits) as crew:
        try:
            found = crew.ask(HOST, request)["layers"]
        except Failure as failure:
            raise UsageError(f"{name}: {failure.reason}") from None
    layers: dict[Problem, tuple[str, ...]] = {}
    left: dict[str, str] = {}
    for each in found:
        names = tuple(part or name for part in each["names"])
        if "reason" in each:
            left |= dict.fromkeys(names, each["reason"])
        else:
            problem = msgspec.convert(each["problem"], Problem)
            layers[problem] = layers.get(problem, ()) + names
    if not layers:
        why = "; ".join(dict.fromkeys(left.values())) or "it has none"
        raise UsageError(f"{name} has no linear or conv2d layer that can be sparse: {why}")
    return replace(_target(name, layers, wanted), left=left)


def _problem(text: str, wanted: Wanted) -> Problem:
    """'linear:OUTxIN', or 'conv2d:OUTxINxHEIGHTxWIDTH' as torch stores the weight: stride 1, the size stays."""
    op, _, sizes = text.partition(":")
    dimensions = 2 if op == "linear" else 4
    numbers = _numbers(sizes, dimensions)
    if numbers is None:
        raise UsageError(f"{text}: write linear:OUTxIN or conv2d:OUTxINxHEIGHTxWIDTH, as torch stores the weight")
    shape = _shape(text, wanted, f"32x{numbers[1]}" + ("x32x32" if op == "conv2d" else ""))
    if len(shape) != dimensions or shape[1] % numbers[1] or (op == "linear" and shape[1] != numbers[1]):
        raise UsageError(f"--input {'x'.join(map(str, shape))} does not go with {text}; its second size must be the IN")
    common: dict[str, Any] = {
        "op": op, "out_features": numbers[0], "in_features": shape[1], "batch": shape[0],
        "sparsity": _sparsities(wanted)[0], "pattern": _pattern(wanted), "threads": wanted.threads or 1,
    }  # fmt: skip
    if op == "linear":
        return Problem(**common)
    return Problem(
        **common,
        kernel_size=(numbers[2], numbers[3]),
        padding=(numbers[2] // 2, numbers[3] // 2),
        groups=shape[1] // numbers[1],
        height=shape[2],
        width=shape[3],
    )


def _suite(name: str, registry: Registry, wanted: Wanted) -> Target:
    """The kernel cases of a suite, each problem once."""
    given = {"--input": wanted.shape, "--sparsity": wanted.sparsities, "--pattern": wanted.pattern}
    extra = [option for option, value in given.items() if value]
    if extra:
        raise UsageError(f"{name} is a suite, which has problems of its own; leave out {' and '.join(extra)}")
    selection = Selection(backends=(BASELINE,), expression=wanted.expression, threads=wanted.threads)
    plan = make_plan(load_suite(name), registry, selection)
    found: dict[Problem | None, Cell] = {}
    for cell in plan.cells:
        if cell.problem is not None and cell.problem not in found:
            which = {"pass": wanted.passes}
            case = replace(cell.case, blocks=1, rounds=ROUNDS)
            found[cell.problem] = replace(cell, case=case, axes={**cell.axes, **which},
                                          parameters={**cell.parameters, **which})  # fmt: skip
    if not found:
        raise UsageError(f"{name} has no kernel case to tune")
    return Target(name, [*found.values()], {cell.case.name: (cell.case.name,) for cell in found.values()})


def _target(name: str, layers: dict[Problem, tuple[str, ...]], wanted: Wanted) -> Target:
    cases = tuple(_case(names[0], problem, wanted) for problem, names in layers.items())
    suite = Suite("tune", "", BASELINE, cases, "", where=name)
    return Target(name, expand(suite), {names[0]: names for names in layers.values()})


def _case(name: str, problem: Problem, wanted: Wanted) -> Case:
    parameters = {key: value for key, value in asdict(problem).items() if key in PROBLEM_KEYS and key != "sparsity"}
    return Case(
        kind="kernel",
        name=name,
        parameters={**parameters, "seed": 0},
        axes={"sparsity": _sparsities(wanted), "pass": (wanted.passes,), "threads": (problem.threads,)},
        backends=(),
        blocks=1,
        rounds=ROUNDS,
        margin=MARGIN,
    )


def _shape(name: str, wanted: Wanted, example: str) -> tuple[int, ...]:
    if wanted.shape is None:
        raise UsageError(f"{name} needs the shape of its input, as in --input {example}")
    return wanted.shape


def _pattern(wanted: Wanted) -> str:
    return wanted.pattern or "uniform"


def _sparsities(wanted: Wanted) -> tuple[float, ...]:
    """What was asked for; else 0.9, or what an nm pattern has of itself."""
    if wanted.sparsities:
        return tuple(dict.fromkeys(wanted.sparsities))
    nm = re.fullmatch(r"nm:([1-9]\d*):([1-9]\d*)", wanted.pattern or "")
    if nm and int(nm[1]) <= int(nm[2]):
        return (1 - int(nm[1]) / int(nm[2]),)
    return (0.9,)


def parse_shape(text: str) -> tuple[int, ...]:
    """(32, 3, 32, 32) of '32x3x32x32'; raises `ProblemError`."""
    numbers = _numbers(text)
    if numbers is None or len(numbers) < 2:
        raise ProblemError(f"--input {text}: write the sizes of one batch, as in 32x3x32x32 or 128x784")
    return numbers


def _numbers(text: str, count: int | None = None) -> tuple[int, ...] | None:
    parts = text.split("x")
    if not all(re.fullmatch(r"[1-9]\d{0,8}", part) for part in parts) or (count and len(parts) != count):
        return None
    return tuple(int(part) for part in parts)
