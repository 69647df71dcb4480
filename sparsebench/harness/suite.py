"""A suite file read and checked: every key, name and shape, before any work starts."""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from sparsebench.errors import UsageError, nearest
from sparsebench.runs.records import KINDS

SCHEMA = 1
BASELINE = "torch-dense"  # of suites that name none
UNPRUNED = "dense"  # the method that every other is compared with
BY_METHOD = ("accuracy", "time-to-accuracy")  # kinds in which methods compete, not backends
PROBLEM_KEYS = (
    "op", "out_features", "in_features", "kernel_size", "stride", "padding", "dilation", "groups", "batch", "height",
    "width", "sparsity", "pattern", "dtype", "bias",
)  # fmt: skip
MODEL_KEYS = ("model", "dataset", "normalise", "checkpoint", "batch", "allocator", "sparsity", "exclude")
RECIPE_KEYS = ("epochs", "lr", "momentum", "nesterov", "weight_decay", "optimizer")
KEYS: dict[str, tuple[str, ...]] = {
    "kernel": (*PROBLEM_KEYS, "pass"),
    "inference": (*MODEL_KEYS, "method"),
    "training": (*MODEL_KEYS, "method", *RECIPE_KEYS),
    "accuracy": (*MODEL_KEYS, *RECIPE_KEYS, "backend", "speedup", "calibration"),
    "time-to-accuracy": (*MODEL_KEYS, *RECIPE_KEYS, "backend", "goal", "calibration"),
}
REQUIRED: dict[str, tuple[str, ...]] = {
    "kernel": ("op", "out_features", "in_features"),
    "inference": ("model", "dataset"),
    "training": ("model", "dataset"),
    "accuracy": ("model", "dataset", "method", "epochs"),
    "time-to-accuracy": ("model", "dataset", "method", "epochs", "backend", "goal"),
}
COMMON = ("name", "summary", "tags", "group", "threads", "seed", "blocks", "rounds", "margin")
SUITE_KEYS = (
    "name", "summary", "baseline", "backends", "blocks", "rounds", "threads", "margin", "default", "details",
)  # fmt: skip
PAIRS = ("kernel_size", "stride", "padding", "dilation")
OPTIMIZERS = ("sgd", "adam", "adamw")  # of `training.recipe`, which needs torch
ALWAYS_AXES = ("sparsity", "pass", "threads")  # every record names these, so that tables of any run line up
METHOD_AXES = (*ALWAYS_AXES, "speedup", "seed")
NOT_AXES = ("tags", "backends", "exclude")
PRUNED = {"batch": 32, "method": "static", "allocator": "uniform", "sparsity": 0.9}
TRAINED = {"batch": 32, "allocator": "uniform", "sparsity": 0.9}
DEFAULTS: dict[str, dict[str, Any]] = {
    "kernel": {"sparsity": 0.9, "pass": "both"},
    "inference": PRUNED,
    "training": PRUNED,
    "accuracy": TRAINED,
    "time-to-accuracy": TRAINED,
}
TYPES: dict[str, type | tuple[type, ...]] = {
    "name": str, "summary": str, "group": str, "default": str, "details": bool, "op": str, "pattern": str,
    "dtype": str, "pass": str, "model": str, "dataset": str,
    "method": str, "allocator": str, "baseline": str, "bias": bool, "sparsity": (int, float), "margin": (int, float),
    "lr": (int, float), "momentum": (int, float), "weight_decay": (int, float), "nesterov": bool, "optimizer": str,
    "normalise": str, "checkpoint": str, "backend": str, "goal": (int, float),
    "speedup": (int, float),
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """One table of a suite file: fixed parameters, and axes that are crossed into cells."""

    kind: str
    name: str
    parameters: Mapping[str, Any]
    axes: Mapping[str, tuple[Any, ...]]
    backends: tuple[str, ...]
    blocks: int
    rounds: int | None
    margin: float
    tags: tuple[str, ...] = ()
    group: str = ""  # means are taken within one group; empty: within the op
    methods: tuple[str, ...] = ()  # what competes where methods do

    @property
    def by_method(self) -> bool:
        """Whether methods compete, not backends."""
        return self.kind in BY_METHOD


@dataclass(frozen=True)
class Suite:
    """A checked suite file."""

    name: str
    summary: str
    baseline: str
    cases: tuple[Case, ...]
    text: str
    where: str = ""  # its name in error messages
    default: str = ""  # the -k of a run that gives none
    details: bool = False  # whether its kernel tables give every number, a line for each row

    @property
    def sha256(self) -> str:
        """Hash of the file's text."""
        return hashlib.sha256(self.text.encode()).hexdigest()


def suite_names() -> list[str]:
    """Names of the suites that come with sparsebench."""
    folder = resources.files("sparsebench.suites")
    return sorted(f.name.removesuffix(".toml") for f in folder.iterdir() if f.name.endswith(".toml"))


def load_suite(name_or_path: str) -> Suite:
    """A built-in suite by name, or a .toml file by path; raises `UsageError`."""
    if name_or_path.endswith(".toml"):
        path = Path(name_or_path)
        if not path.is_file():
            raise UsageError(f"suite {name_or_path}: no such file; built-in suites: {', '.join(suite_names())}")
        try:
            return parse_suite(path.read_text("utf-8"), str(path))
        except UnicodeDecodeError as error:
            raise UsageError(f"suite {name_or_path}: not UTF-8 text ({error.reason}); save it as such") from None
    if name_or_path not in suite_names():
        raise UsageError(
            f"no suite is named {name_or_path!r}{nearest(name_or_path, suite_names())} (or give a .toml file)"
        )
    text = resources.files("sparsebench.suites").joinpath(f"{name_or_path}.toml").read_text("utf-8")
    return parse_suite(text, f"{name_or_path}.toml")


def parse_suite(text: str, where: str) -> Suite:
    """Check the text of a suite file; `where` is its name in error messages."""
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{where}: not valid TOML: {error}") from None
    if data.get("schema") != SCHEMA:  # first of all: a newer one may have other keys
        given = f"schema = {data['schema']!r}" if "schema" in data else "schema is missing"
        raise UsageError(f"{where}: {given}; this sparsebench reads schema = {SCHEMA}")
    _known(data, ("schema", "suite", *KINDS), where)
    head = data.get("suite")
    if not isinstance(head, dict):
        raise UsageError(f"{where}: there is no [suite] table; add one, with a name and a summary")
    _known(head, SUITE_KEYS, f"{where} [suite]")
    for key, value in head.items():
        _check_value(key, value, f"{where} [suite]")
    tables = [(kind, table) for kind in KINDS for table in _tables(data, kind, where)]
    cases = tuple(_case(kind, table, head, where) for kind, table in tables)
    names = [case.name for case in cases]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"{where}: two cases are named {name!r}; rename one")
    if not cases:
        raise UsageError(f"{where}: no case; add a table such as [[kernel]] (also: {', '.join(KINDS[1:])})")
    name, summary = head.get("name", Path(where).stem), head.get("summary", "")
    default, details = head.get("default", ""), head.get("details", False)
    return Suite(name, summary, head.get("baseline", BASELINE), cases, text, where, default, details)


def _tables(data: Mapping[str, Any], kind: str, where: str) -> list[dict[str, Any]]:
    tables = data.get(kind, [])
    if not isinstance(tables, list) or not all(isinstance(t, dict) for t in tables):
        raise UsageError(f"{where}: write cases as [[{kind}]], with two brackets")
    return tables


def _case(kind: str, table: dict[str, Any], head: Mapping[str, Any], where: str) -> Case:
    place = f"{where} [[{kind}]] {table.get('name', '(without a name)')!r}"
    by_method = kind in BY_METHOD
    others = ("method",) if by_method else ("backends",)
    _known(table, (*COMMON, *KEYS[kind], *others), place)
    for key in ("name", *REQUIRED[kind]):
        if key not in table:
            raise UsageError(f"{place}: {key} is missing")
    for key in ("name", "summary", "tags", "group"):
        if key in table:
            _check_value(key, table[key], place)
    fixed: dict[str, Any] = {}
    axes: dict[str, tuple[Any, ...]] = {}
    _check_speedup(table, place)
    merged = {"seed": 0, **_defaults(kind, table), "threads": head.get("threads", [1]), **table}
    always = METHOD_AXES if by_method else ALWAYS_AXES
    for key in (k for k in merged if k in ("threads", "seed", *KEYS[kind])):
        values = _values(key, merged[key], place)
        for value in values:
            _check_value(key, value, place)
        if len(values) == 1 and key not in always:
            fixed[key] = values[0]
        else:
            axes[key] = values
            fixed.pop(key, None)
    if kind != "accuracy" and 0 in _values("epochs", merged.get("epochs", 1), place):
        raise UsageError(f"{place}: epochs = 0; write at least 1 (only accuracy cases take a model as it is)")
    methods = _values("method", table["method"], place) if by_method else ()
    for method in methods:
        _check_value("method", method, place)
    # Blocks are there to see noise in times; a training repeats itself, and takes long.
    head = {**head, "blocks": 1} if by_method else head
    settings = {key: table.get(key, head.get(key)) for key in ("backends", "blocks", "rounds", "margin")}
    for key, value in settings.items():
        if value is not None:
            _check_value(key, value, place)
    return Case(
        kind=kind,
        name=table["name"],
        parameters=fixed,
        axes=axes,
        backends=tuple(settings["backends"] or ()),
        blocks=settings["blocks"] or 5,
        rounds=settings["rounds"],
        margin=float(settings["margin"] or (0.03 if kind == "kernel" else 0.05)),
        tags=tuple(table.get("tags", ())),
        group=table.get("group", ""),
        methods=methods,
    )


def _defaults(kind: str, table: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a table need not say. A checkpoint without a method is taken with the zeros it has."""
    if "checkpoint" in table and "method" not in table and kind in ("inference", "training"):
        return {"batch": 32}
    return {k: v for k, v in DEFAULTS[kind].items() if k != "sparsity" or "speedup" not in table}


def _check_speedup(table: Mapping[str, Any], place: str) -> None:
    """A speedup takes the place of a sparsity, and is one on some backend."""
    if "speedup" in table and "sparsity" in table:
        raise UsageError(f"{place}: it asks for a sparsity and for a speedup; write one of them")
    if "speedup" in table and "backend" not in table:
        raise UsageError(f'{place}: a speedup is that of a backend; write one, as in backend = "cpp"')


def _values(key: str, given: Any, place: str) -> tuple[Any, ...]:
    """The values of one key: a list is an axis, but for keys that are lists or pairs themselves."""
    if key in NOT_AXES:
        return (given,)
    if key in PAIRS:
        values = tuple(_pair(key, v, place) for v in (given if _is_list_of_lists(given) else [given]))
    else:
        values = tuple(_number(key, v) for v in (given if isinstance(given, list) else [given]))
    if not values or len(set(map(repr, values))) != len(values):
        raise UsageError(f"{place}: {key} = {given!r} is {'empty' if not values else 'a list with a value twice'}")
    return values


def _number(key: str, value: Any) -> Any:
    """0 and 0.0 are one sparsity, and one version of a cell."""
    whole = isinstance(value, int) and not isinstance(value, bool)
    return float(value) if whole and TYPES.get(key) == (int, float) else value


def _is_list_of_lists(given: Any) -> bool:
    return isinstance(given, list) and bool(given) and all(isinstance(v, list) for v in given)


def _pair(key: str, value: Any, place: str) -> tuple[int, int]:
    if isinstance(value, int) and not isinstance(value, bool):
        return (value, value)
    if isinstance(value, list) and len(value) == 2 and all(type(v) is int for v in value):
        return (value[0], value[1])
    raise UsageError(f"{place}: {key} = {value!r}; write a whole number or two, as in {key} = [3, 3]")


def _check_value(key: str, value: Any, place: str) -> None:
    if key in PAIRS:
        return
    if key in NOT_AXES or (key == "threads" and isinstance(value, list)):
        kind: type = int if key == "threads" else str
        if not isinstance(value, list) or not all(isinstance(v, kind) for v in value):
            raise UsageError(f"{place}: {key} = {value!r}; write a list")
        return
    wanted: Any = TYPES.get(key, int)
    if not isinstance(value, wanted) or (isinstance(value, bool) and wanted is not bool):
        what: dict[Any, str] = {bool: "true or false", str: "text", int: "a whole number"}
        raise UsageError(f"{place}: {key} = {value!r}; write {what.get(wanted, 'a number')}")
    if key == "name" and not value.strip():
        raise UsageError(f"{place}: name = {value!r}; write text")
    if key == "epochs" and value < 0:
        raise UsageError(f"{place}: epochs = {value!r}; write a number of epochs")
    if key in ("blocks", "rounds", "threads", "batch", "calibration") and value < 1:
        raise UsageError(f"{place}: {key} = {value!r}; write at least 1")
    if key == "sparsity" and not 0 <= value < 1:
        raise UsageError(f"{place}: sparsity = {value!r}; write a share of pruned weights in [0, 1)")
    if key == "speedup" and not 1 < value < float("inf"):
        raise UsageError(f"{place}: speedup = {value!r}; write how many times faster than dense, above 1")
    if key == "goal" and not 0 < value <= 1:
        raise UsageError(f"{place}: goal = {value!r}; write an accuracy in (0, 1]")
    if key == "optimizer" and value not in OPTIMIZERS:
        raise UsageError(f"{place}: optimizer = {value!r}; use {', '.join(OPTIMIZERS)}")
    if key == "margin" and not 0 < value < 1:
        raise UsageError(f"{place}: margin = {value!r}; write a share such as 0.03")


def _known(table: Mapping[str, Any], known: tuple[str, ...], place: str) -> None:
    for key in table:
        if key not in known:
            raise UsageError(f"{place}: {key!r} is not a key{nearest(key, known)}")
