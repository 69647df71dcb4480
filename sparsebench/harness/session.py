"""A whole run as one call: load, plan, probe, run or resume; what the command line and the Python API share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from sparsebench import probing
from sparsebench.ceilings import measure_apart
from sparsebench.errors import RunError
from sparsebench.harness.cells import Cell
from sparsebench.harness.crew import Limits, environment, probe, worker_cores
from sparsebench.harness.plan import Plan, Selection, make_plan
from sparsebench.harness.runner import Listener, Runner, check_resumable, new_folder, new_info
from sparsebench.harness.sides import duel_plan, side_of
from sparsebench.harness.suite import Suite, load_suite, parse_suite
from sparsebench.host import cores_allowed
from sparsebench.registry import Registry, load_registry
from sparsebench.runs.records import Ceilings, RunInfo, Sample
from sparsebench.runs.store import RunWriter, read_run


class Silent:
    """A listener that says nothing."""

    def begin(self, total: int, done: int) -> None:
        """Ignored."""

    def cell(self, cell: Cell, block: int) -> None:
        """Ignored."""

    def done(self, samples: Sequence[Sample]) -> None:
        """Ignored."""


@dataclass
class Session:
    """A run that is planned and about to begin: in `folder`, or in a new one."""

    plan: Plan
    registry: Registry
    options: dict[str, Any]
    limits: Limits = field(default_factory=Limits)
    folder: Path | None = None
    resumed: RunInfo | None = None

    def run(self, listener: Listener | None = None) -> Path:
        """Run what is missing and return the folder."""
        with self.open() as writer:
            Runner(self.plan, writer, listener or Silent(), self.limits).run()
            return writer.folder

    def open(self) -> RunWriter:
        """The run folder, made or locked again."""
        info = new_info(self.plan, self.registry, self.options)
        if self.resumed is not None and self.folder is not None:
            check_resumable(self.resumed, info)
            return RunWriter.resume(self.folder)
        info = msgspec.structs.replace(info, host={**info.host, **measured_ceilings(self.plan)})
        return RunWriter.create(self.folder or new_folder(info), info)


def measured_ceilings(plan: Plan) -> dict[str, Any]:
    """What this machine can do at most right now, with every number of threads that kernel cells use; {} without any.

    On the cores of the first block, in the environment of its workers. A run goes on without: then the reason is kept.
    """
    found: list[Ceilings] = []
    for threads in sorted({cell.threads for cell in plan.cells if cell.kind == "kernel"}):
        try:
            found.append(measure_apart(threads, worker_cores(cores_allowed(), 0, threads), environment(threads)))
        except RunError as error:
            return {"ceilings_error": str(error)}
    return {"ceilings": msgspec.to_builtins(found)} if found else {}


def plan_run(
    suite: str,
    selection: Selection,
    *,
    files: Sequence[str] = (),
    limits: Limits = Limits(),  # noqa: B008  frozen
    out: Path | None = None,
    keep_models: bool = False,
) -> Session:
    """Everything up to the first measurement; raises `UsageError` before any work starts."""
    loaded = load_suite(suite)
    files = [str(Path(f).resolve()) for f in files]
    registry = load_registry(files, import_seconds(limits))
    plan = make_plan(loaded, registry, selection, files)
    plan.keep_models = keep_models
    probe(plan, limits)
    options = {"selection": _plain(selection), "files": files, "keep_models": keep_models}
    return Session(plan, registry, options, limits, out)


def plan_duel(
    suite: str,
    a: str,
    b: str,
    selection: Selection,
    limits: Limits = Limits(),  # noqa: B008  frozen
    out: Path | None = None,
) -> Session:
    """The session of an `ab`; raises `UsageError` before any measurement, `RunError` if a revision cannot be run."""
    return _duel_session(load_suite(suite), a, b, selection, limits, out)


def plan_duel_resume(folder: Path, limits: Limits) -> Session:
    """The session that goes on with an `ab`."""
    info = read_run(folder).info
    if "ab" not in info.options:
        raise RunError(f"{folder}: a run, no ab; go on with it by `sparsebench run --resume {folder}`")
    selection, _ = _selected(folder, info.options)
    a, b = info.options["ab"]
    session = _duel_session(_suite_of(folder, info), a, b, selection, limits, folder)
    session.resumed = info
    return session


def _duel_session(suite: Suite, a: str, b: str, selection: Selection, limits: Limits, folder: Path | None) -> Session:
    sides = [side_of(text) for text in (a, b)]
    registry = load_registry()
    plan = duel_plan(suite, sides, registry, selection)
    probe(plan, limits)
    options = {"ab": [a, b], "selection": _plain(selection), "files": [side.file for side in sides if side.file]}
    options["code"] = [side.code for side in sides]
    return Session(plan, registry, options, limits, folder)


def _suite_of(folder: Path, info: RunInfo) -> Suite:
    """The suite as it was when the run began."""
    if not info.suite.get("text"):
        raise RunError(f"{folder}: run.json does not hold the suite's text; start a new run")
    return parse_suite(info.suite["text"], f"{folder}/run.json")


def _selected(folder: Path, options: dict[str, Any]) -> tuple[Selection, list[str]]:
    """What a run folder says was selected, and the plugin files."""
    try:
        chosen = options["selection"]
        lists = {name: tuple(chosen[name]) for name in ("backends", "methods", "shard")}
        return Selection(**{**chosen, **lists}), list(options["files"])
    except (KeyError, TypeError) as error:
        raise RunError(f"{folder}: run.json does not say what was selected ({error}); start a new run") from None


def plan_resume(folder: Path, limits: Limits) -> Session:
    """The session that goes on with a run folder, from the suite text and the selection that it keeps."""
    info = read_run(folder).info
    options = info.options
    if "ab" in options:
        raise RunError(f"{folder}: an ab; go on with it by `sparsebench ab --resume {folder}`")
    missing = options.get("shards", {}).get("missing", ())
    if missing:  # its plan is that of the whole suite, and run.json holds no cell of theirs
        raise RunError(
            f"{folder}: merged without {len(missing)} of its {options['shards'].get('of')} shards; "
            "go on with the shards that are not finished, then merge all of them"
        )
    selection, files = _selected(folder, options)
    loaded = _suite_of(folder, info)
    registry = load_registry(files, import_seconds(limits))
    plan = make_plan(loaded, registry, selection, files)
    plan.keep_models = bool(options.get("keep_models"))
    check_resumable(info, new_info(plan, registry, options))  # before backends are asked, which takes seconds
    probe(plan, limits)
    return Session(plan, registry, options, limits, folder, info)


def run(
    suite: str,
    *,
    backends: Sequence[str] = (),
    methods: Sequence[str] = (),
    plugins: Sequence[str] = (),
    quick: bool = False,
    threads: int | None = None,
    blocks: int | None = None,
    out: str | Path | None = None,
) -> Any:
    """Run a suite (a name, or the path of a .toml file) and return the `Run`; see `sparsebench run --help`."""
    selection = Selection(backends=tuple(backends), methods=tuple(methods), quick=quick, threads=threads, blocks=blocks)
    session = plan_run(suite, selection, files=plugins, out=None if out is None else Path(out))
    return read_run(session.run())


def import_seconds(limits: Limits) -> float:
    """What a foreign plugin has to be imported: a longer --timeout holds for that too, a shorter one does not."""
    return limits.import_seconds or max(limits.seconds or 0.0, probing.SECONDS)


def _plain(selection: Selection) -> dict[str, Any]:
    data = asdict(selection)
    return {**data, "backends": list(data["backends"]), "methods": list(data["methods"]), "shard": list(data["shard"])}
