"""The workers of one block: a fork server, and a worker for each variant, forked anew after each failure."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from sparsebench.errors import UsageError
from sparsebench.harness.cells import Cell
from sparsebench.harness.plan import Plan
from sparsebench.harness.server import LONGEST_FILE, NOBODY, Failure, Server, ServerLost, Worker
from sparsebench.harness.spares import Spares
from sparsebench.host import cores_allowed, memory_limit
from sparsebench.registry import entry_to_wire

SECONDS = 120.0  # for one answer of a worker, unless --timeout says otherwise
TRAINING_SECONDS = 4 * 3600.0  # for a whole training
MEMORY_SHARE = 0.6  # of what is free, for one worker
KEPT_OUTPUT = 1 << 20  # bytes kept of what a variant prints in a block
SPENT = ("timed_ns", "checked_ns")  # of an answer: in samples and before them; bound and verified
HOST = ""  # the variant name of the worker that computes oracles: no backend is loaded there


def environment(threads: int) -> dict[str, str]:
    """What is laid over the inherited environment of a block's workers."""
    count = str(threads)
    return {
        "OMP_NUM_THREADS": count,
        "MKL_NUM_THREADS": count,
        "OPENBLAS_NUM_THREADS": count,
        "OMP_DYNAMIC": "FALSE",
        "OMP_WAIT_POLICY": "PASSIVE",  # a spinning thread of one worker would steal from another
        "MKL_THREADING_LAYER": "GNU",  # one OpenMP runtime in the process, torch's
        # Freed memory stays: glibc gives the top of the heap back, to be paged in again by the next call, or does not,
        # by what lies there. A 1x1 convolution took 1.0 ms in some workers and 1.9 in others, 250 page faults more.
        "MALLOC_TRIM_THRESHOLD_": str(1 << 40),
        "MALLOC_MMAP_THRESHOLD_": str(1 << 25),  # the most that it takes
        "PYTHONHASHSEED": "0",
        "TQDM_DISABLE": "1",
    }


@dataclass(frozen=True)
class Limits:
    """What a worker may take: seconds for one answer, bytes of memory; `None` is the default of this machine.

    `import_seconds` is what a foreign plugin has to be imported when plugins are looked for.
    """

    seconds: float | None = None
    memory: int | None = None
    import_seconds: float | None = None


class Crew:
    """Context manager: the fork server of a block and its workers; leaving it kills them all."""

    def __init__(
        self,
        plan: Plan,
        folder: Path,
        block: int,
        threads: int,
        limits: Limits | None = None,
        preload: Sequence[str] = (),
        settings: Mapping[str, str] | None = None,
        spares: Spares | None = None,
    ) -> None:
        """The crew of one block; the server imports `preload` once, for all its workers.

        `settings` are environment variables of the workers beyond `environment`; `spares` outlive the crew.
        """
        self.spares = spares
        self.spent: Counter[str] = Counter()  # nanoseconds in which workers ran kernels
        self.plan, self.folder, self.block, self.threads, self.preload = plan, folder, block, threads, preload
        self.environment = {**environment(threads), **(settings or {})}
        limits = limits or Limits()
        self.seconds = limits.seconds or SECONDS
        self.training_seconds = limits.seconds or TRAINING_SECONDS
        self.workers: dict[str, Worker] = {}
        self.strays = 0  # how often the fork server died between two rows
        self.unfit: dict[tuple[str, str], Failure] = {}  # (group, variant) that failed verification in this block
        self.memory = limits.memory or available_memory()
        (folder / "output").mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> Crew:
        self.everywhere = cores_allowed()
        self.cores = worker_cores(self.everywhere, self.block, self.threads)
        self.servers: dict[str, Server] = {}
        try:
            for python in dict.fromkeys(["", *self.plan.pythons.values()]):
                self._serve(python)
        except BaseException:
            self._close()
            raise
        self._stand_aside(0)
        return self

    def _serve(self, python: str) -> None:
        """A fork server on the parent's core; it is started on any."""
        if self.spares is None:
            self.servers[python] = Server(self.environment, self.preload, python).ready()
        else:
            self.servers[python] = self.spares.take(self.environment, self.preload, python)
        self._stand_aside(self.servers[python].process.pid)

    def _stand_aside(self, pid: int) -> None:
        """Keep a process that only watches (0: this one) off the core that computes."""
        rest = [core for core in self.everywhere if core not in self.cores]
        if self.threads == 1 and rest:
            with contextlib.suppress(ProcessLookupError):
                os.sched_setaffinity(pid, rest)

    def __exit__(self, *exc: object) -> None:
        self._close()
        for log in (self.folder / "output").glob(f"*.block{self.block}.txt"):
            _cut(log)

    def _close(self) -> None:
        for server in self.servers.values():
            server.close()
        os.sched_setaffinity(0, self.everywhere)

    def ask(self, variant: str, request: dict[str, Any], seconds: float | None = None) -> Any:
        """Ask the variant's worker; on a failure the worker is gone and `Failure` is raised.

        If the fork server went with it, there is a new one and no worker is left: `ServerLost`.
        """
        try:
            answer = self._worker(variant).ask(request, seconds or self.seconds)
            self.spent.update({what: answer[what] for what in SPENT if what in answer})
            return answer
        except Failure as failure:
            began = variant in self.workers
            self.dismiss(variant)
            python = self.plan.pythons.get(variant, "")
            if not self.servers[python].lost():
                raise
            for other in list(self.workers):
                self.dismiss(other)  # it died with the server, but what its plugin started did not
            self.servers[python].close()
            self._serve(python)
            raise ServerLost(failure.status, failure.reason if began else NOBODY) from None

    def dismiss(self, variant: str) -> None:
        """End a worker; the next request to the variant gets a fresh one."""
        worker = self.workers.pop(variant, None)
        if worker:
            worker.kill()

    def printed(self, variant: str) -> int:
        """Bytes that the variant's plugin has printed in this block."""
        log = self._log(variant)
        return log.stat().st_size if log.exists() else 0

    def _log(self, variant: str) -> Path:
        name = variant.replace("/", "_") or "oracle"
        return self.folder / "output" / f"{name}.block{self.block}.txt"

    def order(self, cell: Cell, variant: str) -> dict[str, Any]:
        """The cell as a worker gets it."""
        parts = self.plan.found(cell, variant)
        entries = {part: entry_to_wire(_kind(part), entry) for part, (entry, _) in parts.items()}
        return {
            "kind": cell.kind,
            "parameters": {**cell.parameters, "threads": self.plan.threads.get(variant, cell.threads)},
            "entries": entries,
            "oracle": str(self.oracle(cell)),
            "models": str(self.folder / "models" / model_name(cell, variant)) if self.plan.keep_models else "",
            "state": str(self.folder / "trainings" / f"{_digest(f'{cell.key} {variant} {self.block}')}.pt"),
            "group": cell.group,
            "options": {part: options for part, (_, options) in parts.items()},
        }

    def oracle(self, cell: Cell) -> Path:
        """The file that holds what is right for a cell."""
        return self.folder / "oracles" / f"{_digest(cell.group)}.pt"

    def ensure_oracle(self, cell: Cell) -> None:
        """Have the oracle computed if nobody has yet; raises `Failure`."""
        path = self.oracle(cell)
        if path.exists():
            return
        path.parent.mkdir(exist_ok=True)
        request = {"do": "oracle", "order": self.order(cell, HOST)}
        try:
            self.ask(HOST, request, max(self.seconds, SECONDS))
        except ServerLost:  # killed in the meantime, which is no fault of the oracle's
            self.ask(HOST, request, max(self.seconds, SECONDS))

    def _worker(self, variant: str) -> Worker:
        if variant not in self.workers:
            threads = self.plan.threads.get(variant, self.threads)
            cores = self.cores if threads == self.threads else worker_cores(self.everywhere, self.block, threads)
            if variant == HOST:
                cores, threads = self.everywhere, len(self.everywhere)
            files = LONGEST_FILE if variant != HOST else -1  # oracles may be large
            server = self.servers[self.plan.pythons.get(variant, "")]
            worker = server.fork(self._log(variant), cores, threads, self.memory, files)
            self.workers[variant] = worker
            if variant in self.plan.backends:
                entry, options = self.plan.backends[variant]
                worker.ask(
                    {"do": "load", "backend": entry_to_wire("backends", entry), "options": options}, self.seconds
                )
        return self.workers[variant]


def probe(plan: Plan, limits: Limits | None = None) -> None:
    """Ask every backend, in a worker of its own, which of its rows it cannot do; those are barred."""
    with tempfile.TemporaryDirectory() as folder, Crew(plan, Path(folder), 0, 1, limits) as crew:
        for variant in plan.competing():
            cells = [cell for cell in plan.cells if variant in plan.running(cell)]
            if cells:
                _probe_one(plan, crew, variant, cells)


def _probe_one(plan: Plan, crew: Crew, variant: str, cells: list[Cell]) -> None:
    """Ask about cells that need the same kind of thing at once, so that a hang in one bars no other."""
    asked: dict[tuple[str, ...], list[Cell]] = {}
    for cell in cells:
        parts = tuple(str(cell.parameters.get(part)) for part in plan.parts[cell.key])
        asked.setdefault((cell.kind, *parts), []).append(cell)
    for alike in asked.values():
        try:
            orders = [crew.order(cell, variant) for cell in alike]
            answers = crew.ask(variant, {"do": "probe", "orders": orders})["answers"]
        except Failure as failure:
            answers = [{"status": failure.status, "reason": failure.reason}] * len(alike)
            if failure.status in ("timeout", "crash") and alike[0].kind == "kernel":
                for cell in cells:  # what hangs or dies before it is asked anything will do so again
                    plan.bar(cell, variant, failure.status, failure.reason)
                break
        for cell, answer in zip(alike, answers, strict=True):
            if answer["status"] == "usage":
                raise UsageError(f"{plan.suite.name}: case {cell.case.name!r}: {answer['reason']}")
            if answer["status"] != "ok":
                plan.bar(cell, variant, answer["status"], answer["reason"])
    crew.dismiss(variant)


def model_name(cell: Cell, variant: str) -> str:
    """The folder of a row's models: "digits-seed=0-sparsity=0.9-threads=1-gmp"."""
    axes = "-".join(
        f"{key}={value:g}" if isinstance(value, float) else f"{key}={value}" for key, value in cell.axes.items()
    )
    return f"{cell.case.name}-{axes}-{variant}".replace("/", "_")


def worker_cores(allowed: list[int], block: int, threads: int) -> list[int]:
    """The cores of a block's workers: one, alternating between blocks, or as many as there are threads."""
    start = block % len(allowed)
    turned = allowed[start:] + allowed[:start]
    return sorted(turned[:threads])


def available_memory() -> int:
    """Bytes that one worker may hold."""
    free = psutil.virtual_memory().available
    limit = memory_limit()
    return int(MEMORY_SHARE * min(free, limit if limit else free))


def _cut(log: Path) -> None:
    """Keep the beginning of what a plugin printed without end."""
    size = log.stat().st_size
    if size > KEPT_OUTPUT:
        os.truncate(log, KEPT_OUTPUT)
        with log.open("a") as file:
            file.write(f"\n… cut here by sparsebench, of {size} bytes\n")
    elif size == 0:
        log.unlink()


def _kind(part: str) -> str:
    return f"{part}s"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:24]
