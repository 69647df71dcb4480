"""A run that is killed, at any moment and however often, goes on: nothing measured is lost, no process is left.

Every other moment is soon after something new has been written, the rest are up to SPARSEBENCH_KILL_SECONDS after the
start. `SPARSEBENCH_KILLS=20 SPARSEBENCH_KILL_SUITE=suite-smoke pytest tests/harness/test_kill.py` does it more often,
on a larger suite.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from sparsebench.runs.records import TIMED, cell_key
from sparsebench.runs.store import read_run

KILLS = int(os.environ.get("SPARSEBENCH_KILLS", "4"))
SUITE = os.environ.get("SPARSEBENCH_KILL_SUITE", "")
SECONDS = float(os.environ.get("SPARSEBENCH_KILL_SECONDS", "5"))
SMALL = """
schema = 1
[suite]
name = "small"
backends = ["torch-csr"]
blocks = 2
rounds = 2
[[kernel]]
name = "linear"
op = "linear"
out_features = 48
in_features = 40
batch = 16
sparsity = [0.8, 0.9]
pass = ["forward", "both"]
"""


class Victim:
    """One run folder and whoever is writing it; all processes of a victim carry its mark in their environment."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.mark = folder / "run", str(folder)
        self.errors = folder / "stderr.txt"
        suite = folder / "small.toml"
        suite.write_text(SMALL)
        self.suite = SUITE or str(suite)
        temporary = folder / "tmp"
        temporary.mkdir()
        self.environment = {**os.environ, "VICTIM": self.mark, "TMPDIR": str(temporary)}

    def start(self) -> subprocess.Popen[bytes]:
        """Begin the run, or go on with it if it has begun."""
        begun = (self.folder / "run.json").exists()
        arguments = ["--resume", str(self.folder)] if begun else [self.suite, "--out", str(self.folder)]
        program = [sys.executable, "-P", "-c", "from sparsebench.cli import main; main()", "run", *arguments]
        with self.errors.open("wb") as errors:
            return subprocess.Popen(program, env=self.environment, stdout=subprocess.DEVNULL, stderr=errors)

    def lines(self) -> bytes:
        """The whole lines that have been written."""
        file = self.folder / "samples.jsonl"
        data = file.read_bytes() if file.exists() else b""
        return data[: data.rfind(b"\n") + 1]

    def wait_for_more(self, process: subprocess.Popen[bytes], seconds: float = 60) -> None:
        """Until a cell has been written that was not there, or the run has ended."""
        before, end = len(self.lines()), time.monotonic() + seconds
        while len(self.lines()) == before and process.poll() is None and time.monotonic() < end:
            time.sleep(0.01)

    def processes(self) -> list[str]:
        """What runs with its mark."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get("VICTIM") == self.mark and process.status() != "zombie":
                    found.append(f"{process.pid}: {' '.join(process.cmdline())}")
            except psutil.Error:
                continue
        return found

    def assert_gone(self, seconds: float = 10) -> None:
        """Every process of it ends within so many seconds."""
        end = time.monotonic() + seconds
        while (left := self.processes()) and time.monotonic() < end:
            time.sleep(0.05)
        assert left == []

    def assert_complete(self) -> None:
        """A sample of every row in every block, or what became of the row; each once, none damaged."""
        run = read_run(self.folder)
        assert run.problems == ()
        found = {(cell_key(s.case, s.cell), s.variant, s.block): s.status for s in run.samples}
        failed = {key[:2] for key, status in found.items() if status not in TIMED}
        wanted = {
            (cell_key(cell.case, cell.cell), variant, block)
            for cell in run.info.cells
            for variant in cell.variants
            for block in range(cell.blocks)
        }
        assert {key for key in wanted - found.keys() if key[:2] not in failed} == set()
        assert found.keys() <= wanted
        assert not (self.folder / "oracles").exists()
        assert (self.folder / "report.md").exists()
        if not SUITE:
            assert failed == set()


@pytest.fixture
def folders(tmp_path: Path) -> Iterator[Path]:
    """A new folder at every call of `next`."""

    def make() -> Iterator[Path]:
        for number in range(1000):
            folder = tmp_path / f"victim-{number}"
            folder.mkdir()
            yield folder

    return make()  # type: ignore[return-value]


@pytest.mark.timeout(1800)
def test_a_run_that_is_killed_goes_on_where_it_was(folders: Iterator[Path]) -> None:
    draw = random.Random(KILLS)
    victim, kept, head = Victim(next(folders)), b"", b""
    kills = 0
    while True:
        process = victim.start()
        late = kills % 2 == 1
        moment = draw.uniform(0.0, 0.7) if late else draw.uniform(0.2, SECONDS)
        if late and kills < KILLS:
            victim.wait_for_more(process)
        try:
            process.wait(moment if kills < KILLS else None)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            kills += 1
            what = "something new was written" if late else "its start"
            print(f"kill {kills} of {KILLS}, {moment:.2f} s after {what}: {victim.lines().count(10)} lines")
        victim.assert_gone()
        assert victim.lines().startswith(kept), "what was written has changed"
        kept = victim.lines()
        if head:
            assert (victim.folder / "run.json").read_bytes() == head
        head = (victim.folder / "run.json").read_bytes() if (victim.folder / "run.json").exists() else b""
        if process.returncode != -signal.SIGKILL:
            assert process.returncode in ((0, 3, 4) if SUITE else (0,)), victim.errors.read_text()
            victim.assert_complete()
            if kills >= KILLS:
                break
            victim, kept, head = Victim(next(folders)), b"", b""  # it was too quick; on to the next


@pytest.mark.timeout(300)
def test_an_interrupted_run_says_how_to_go_on(folders: Iterator[Path]) -> None:
    """By Ctrl-C first, by SIGTERM when it has been resumed."""
    victim = Victim(next(folders))
    kept = b""
    for number in (signal.SIGINT, signal.SIGTERM):
        process = victim.start()
        victim.wait_for_more(process)
        process.send_signal(number)
        assert process.wait(20) == 130, victim.errors.read_text()
        victim.assert_gone(2)
        assert f"Interrupted; go on with: sparsebench run --resume {victim.folder}" in victim.errors.read_text()
        assert "Traceback" not in victim.errors.read_text()
        assert victim.lines().startswith(kept)
        assert len(victim.lines()) > len(kept)
        kept = victim.lines()
        assert read_run(victim.folder).problems == ()
        assert (victim.folder / "report.md").exists()
