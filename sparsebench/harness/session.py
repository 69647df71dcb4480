"""A whole run as one call: load the suite, plan, probe, run or resume; what `sparsebench run` and the Python API share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sparsebench.errors import RunError
from sparsebench.harness.cells import Cell
from sparsebench.harness.crew import probe
from sparsebench.harness.plan import Plan, Selection, make_plan
from sparsebench.harness.runner import Listener, Runner, check_resumable, new_folder, new_info
from sparsebench.harness.suite import load_suite, parse_suite
from sparsebench.registry import Registry, load_registry
from sparsebench.runs.records import RunInfo, Sample
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
    seconds: float | None = None
    folder: Path | None = None
    resumed: RunInfo | None = None

    def run(self, listener: Listener | None = None) -> Path:
        """Run what is missing and return the folder."""
        with self.open() as writer:
            Runner(self.plan, writer, listener or Silent(), self.seconds).run()
            return writer.folder

    def open(self) -> RunWriter:
        """The run folder, made or locked again."""
        info = new_info(self.plan, self.registry, self.options)
        if self.resumed is not None and self.folder is not None:
            check_resumable(self.resumed, info)
            return RunWriter.resume(self.folder)
        return RunWriter.create(self.folder or new_folder(info), info)


def plan_run(
    suite: str,
    selection: Selection,
    *,
    files: Sequence[str] = (),
    seconds: float | None = None,
    out: Path | None = None,
) -> Session:
    """Everything up to the first measurement; raises `UsageError` before any work starts."""
    loaded = load_suite(suite)
    files = [str(Path(f).resolve()) for f in files]
    registry = load_registry(files)
    plan = make_plan(loaded, registry, selection, files)
    probe(plan, seconds)
    options = {"selection": _plain(selection), "files": files}
    return Session(plan, registry, options, seconds, out)


def plan_resume(folder: Path, seconds: float | None = None) -> Session:
    """The session that goes on with a run folder, from the suite text and the selection that it keeps."""
    info = read_run(folder).info
    options = info.options
    try:
        chosen = options["selection"]
        selection = Selection(**{**chosen, "backends": tuple(chosen["backends"]), "shard": tuple(chosen["shard"])})
        files = list(options["files"])
    except (KeyError, TypeError) as error:
        raise RunError(f"{folder}: run.json does not say what was selected ({error}); start a new run") from None
    loaded = parse_suite(info.suite["text"], f"{folder}/run.json")
    registry = load_registry(files)
    plan = make_plan(loaded, registry, selection, files)
    probe(plan, seconds)
    return Session(plan, registry, options, seconds, folder, info)


def run(suite: str, *, backends: Sequence[str] = (), plugins: Sequence[str] = (), quick: bool = False,
        threads: int | None = None, blocks: int | None = None, out: str | Path | None = None) -> Any:  # fmt: skip
    """Run a suite (a name, or the path of a .toml file) and return the `Run`; see `sparsebench run --help`."""
    selection = Selection(backends=tuple(backends), quick=quick, threads=threads, blocks=blocks)
    session = plan_run(suite, selection, files=plugins, out=None if out is None else Path(out))
    return read_run(session.run())


def _plain(selection: Selection) -> dict[str, Any]:
    data = asdict(selection)
    return {**data, "backends": list(data["backends"]), "shard": list(data["shard"])}
