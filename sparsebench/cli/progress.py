"""How a long command says where it is: a bar or lines of progress, and an end by Ctrl-C that loses nothing."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from sparsebench.harness.cells import Cell
    from sparsebench.runs.records import Sample

SAY_SECONDS = 20.0  # between lines of progress where there is no terminal


@contextmanager
def interruptible() -> Iterator[None]:
    """SIGTERM ends a run as Ctrl-C does: workers gone, everything measured kept."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def planning(style: str) -> Iterator[None]:
    """A sign of life while plugins are asked what they can do."""
    if not sys.stderr.isatty() or style == "json":
        yield
        return
    from rich.console import Console

    with Console(stderr=True).status("asking every backend what it can do …"):
        yield


class Progress:
    """A listener that shows how far the run is, on stderr: a bar on a terminal, a line for each block elsewhere."""

    def __init__(self) -> None:
        from rich import progress
        from rich.console import Console

        self.live = sys.stderr.isatty()
        self.block = -1
        self.said = 0.0
        self.bar = progress.Progress(
            progress.TextColumn("{task.description:<44.44}"), progress.BarColumn(), progress.MofNCompleteColumn(),
            progress.TimeRemainingColumn(),
            console=Console(stderr=True), transient=True, disable=not self.live,
        )  # fmt: skip

    def __enter__(self) -> Progress:
        self.bar.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.bar.stop()

    def begin(self, total: int, done: int) -> None:
        """How much there is."""
        self.total, self.finished = total, done
        self.task = self.bar.add_task("starting", total=total, completed=done)

    def cell(self, cell: Cell, block: int) -> None:
        """What is measured now."""
        told = ("sparsity", "speedup", "seed") if cell.case.by_method else ()
        axes = [f"{key} {cell.axes[key]:g}" for key in told if key in cell.axes]
        what = " ".join([cell.case.name, *axes])
        self.bar.update(self.task, description=f"block {block + 1}: {what}")
        if not self.live and (block > self.block or time.monotonic() - self.said > SAY_SECONDS):
            self.block = max(self.block, block)
            self._say(block, f"; now {what}")

    def _say(self, block: int, more: str = "") -> None:
        self.said = time.monotonic()
        done = f"{self.finished} of {self.total}" if self.total >= self.finished else str(self.finished)
        click.echo(f"block {block + 1}: {done} measurements done{more}", err=True)

    def done(self, samples: Sequence[Sample]) -> None:
        """One more."""
        self.finished += 1
        if self.finished > self.total:  # an `ab` that is not decided at the first look
            self.bar.update(self.task, total=self.finished)
        if not self.live and time.monotonic() - self.said > SAY_SECONDS:
            self._say(self.block)
        self.bar.update(self.task, advance=1)
