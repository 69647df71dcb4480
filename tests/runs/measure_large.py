"""How long 10,000 stored cells take to compare and to report: `python tests/runs/measure_large.py`, a minute.

Two runs of 10,000 cells, three variants, five blocks of twelve rounds: 300,000 lines. Prints wall seconds, seconds of
processor time, and the highest memory of the command and what it started.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).parents[1]))
from conftest import make_cells, make_run

from sparsebench.runs.store import RunWriter

COMMAND = "import sys; from sparsebench.cli import main; main(sys.argv[1:])"


def measured(*words: str) -> str:
    """What one command took."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    with subprocess.Popen([sys.executable, "-c", COMMAND, *words], stdout=subprocess.DEVNULL) as process:
        highest = [0]
        watch = threading.Thread(target=_watch, args=(process.pid, highest))
        watch.start()
        code = process.wait()
        watch.join()
    after, wall = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter() - start
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return f"{words[0]}: {wall:.1f} s, {cpu:.1f} s of processor time, {highest[0] >> 20} MiB, exit code {code}"


def _watch(pid: int, highest: list[int]) -> None:
    try:
        parent = psutil.Process(pid)
        while parent.status() != psutil.STATUS_ZOMBIE:
            family = [parent, *parent.children(recursive=True)]
            highest[0] = max(highest[0], sum(_own(p) for p in family))
            time.sleep(0.05)
    except psutil.NoSuchProcess:
        pass


def _own(process: psutil.Process) -> int:
    """Memory that is not counted in another process too."""
    try:
        return int(process.memory_full_info().pss)
    except psutil.Error:
        return 0


if __name__ == "__main__":
    cells = make_cells(
        sparsities=tuple(i / 1000 for i in range(500)), cases=tuple(f"case-{i}" for i in range(10)),
        passes=("forward", "both"),
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        for name in ("base", "head"):
            run = make_run(cells)
            with RunWriter.create(Path(folder) / name, run.info) as writer:
                writer.append(run.samples)
        print(f"{len(cells)} cells, {len(run.samples)} samples a run")
        del run
        for _ in range(2):
            print(measured("compare", f"{folder}/base", f"{folder}/head"))
            print(measured("report", f"{folder}/base"))
