"""Whatever a worker does becomes a status and one sentence, the next worker is well, and no process is left behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from sparsebench.discovery import file_source
from sparsebench.harness.server import Failure, Server, Worker
from sparsebench.plugin import BackendSpec, PluginInfo
from sparsebench.registry import Entry, entry_to_wire

PLUGIN = '''
"""Loading it does what its option says."""
import ctypes, os, signal, socket, subprocess, sys, time

def load(how):
    def sockets():
        links = {int(f): os.readlink(f"/proc/self/fd/{f}") for f in os.listdir("/proc/self/fd") if int(f) > 2
                 and os.path.exists(f"/proc/self/fd/{f}")}
        return [f for f, link in links.items() if link.startswith("socket")]

    if how == "child":
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", os.environ["MARK"]])
        time.sleep(0.1)
    elif how == "prints":
        print("x" * 5000, flush=True)
    elif how == "raises":
        raise ValueError("no luck\\nat all")
    elif how == "leaves":
        sys.exit(3)
    elif how == "exits":
        os._exit(3)
    elif how == "segfaults":
        os.kill(os.getpid(), signal.SIGSEGV)
    elif how == "realtime":
        os.kill(os.getpid(), 40)
    elif how == "is killed":
        os.kill(os.getpid(), signal.SIGKILL)
    elif how == "hangs":
        time.sleep(600)
    elif how == "hangs in C":
        ctypes.PyDLL(None).sleep(600)
    elif how == "stops":
        os.kill(os.getpid(), signal.SIGSTOP)
    elif how == "closes":
        for each in sockets():
            os.close(each)
        time.sleep(600)
    elif how == "writes junk":
        for each in sockets():
            os.write(each, b"junk junk junk")
    elif how == "allocates":
        bytearray(1 << 34)
    elif how == "fills":
        kept = [bytearray(b"x" * (1 << 20)) for _ in range(700) if not time.sleep(0.0005)]
    elif how == "kills its parent":
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(600)
    return object()
'''
MEMORY = 500 << 20
Load = Callable[..., Any]


def request(file: Path, how: str) -> dict[str, Any]:
    source = file_source(file)
    spec = BackendSpec(name="x", summary="", load=f"{source.module}:load", ops=("linear",))
    return {"do": "load", "backend": entry_to_wire("backends", Entry(spec, PluginInfo(name="x"), source)),
            "options": {"how": how}}  # fmt: skip


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("plugin") / "misbehaves.py"
    path.write_text(PLUGIN)
    return path


@pytest.fixture(scope="module")
def mark(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Stands in the command line of every process that a plugin starts here."""
    return f"mark-{tmp_path_factory.mktemp('mark')}"


@pytest.fixture(scope="module")
def server(mark: str) -> Iterator[Server]:
    with Server({"OMP_NUM_THREADS": "1", "MARK": mark}) as made:
        yield made


@pytest.fixture
def fork(server: Server, tmp_path: Path) -> Callable[[], Worker]:
    return lambda: server.fork(tmp_path / "log.txt", [], 1, MEMORY)


@pytest.fixture
def load(file: Path, fork: Callable[[], Worker]) -> Load:
    def asked(how: str, seconds: float = 10.0, worker: Worker | None = None) -> Any:
        return (worker or fork()).ask(request(file, how), seconds)

    return asked


def marked(mark: str) -> list[int]:
    return [p.pid for p in psutil.process_iter(["cmdline"]) if mark in (p.info["cmdline"] or [])]


def gone(pids: list[int], seconds: float = 5.0) -> bool:
    """Whether all of them end within so many seconds; one that nobody has reaped yet has ended."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if not any(psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie" for pid in pids):
            return True
        time.sleep(0.02)
    return False


def test_a_worker_answers_again_and_again(load: Load, fork: Callable[[], Worker]) -> None:
    worker = fork()
    assert load("nothing", worker=worker) == {}
    assert load("nothing", worker=worker) == {}


def test_workers_are_processes_of_their_own_with_their_own_session(load: Load, fork: Callable[[], Worker]) -> None:
    one, other = fork(), fork()
    for worker in (one, other):
        load("nothing", worker=worker)
    assert one.pid != other.pid
    assert (os.getsid(one.pid), os.getsid(other.pid)) == (one.pid, other.pid)


@pytest.mark.parametrize(
    ("how", "status", "reason"),
    [
        ("raises", "error", r"ValueError: no luck at all \(in load, misbehaves\.py:\d+\)"),
        ("leaves", "error", r"SystemExit: 3"),
        ("exits", "crash", r"exited with code 3 during load"),
        ("segfaults", "crash", r"killed by SIGSEGV during load"),
        ("is killed", "crash", r"killed by SIGKILL during load"),
        ("realtime", "crash", r"killed by signal 40 during load"),
        ("closes", "crash", r"its worker closed its pipe during load"),
        ("writes junk", "crash", r"something wrote into its pipe during load"),
        ("allocates", "oom", r"MemoryError"),
        ("fills", "oom", r"load took more than 0\.5 GiB of memory"),
    ],
)
def test_what_becomes_of_a_worker_is_a_status_and_a_sentence(load: Load, how: str, status: str, reason: str) -> None:
    with pytest.raises(Failure) as failure:
        load(how)
    assert failure.value.status == status
    assert re.match(reason, failure.value.reason)
    assert load("nothing") == {}, "the next worker is well"


@pytest.mark.parametrize("how", ["hangs", "hangs in C", "stops"])
def test_a_worker_that_does_not_answer_in_time_is_killed(load: Load, fork: Callable[[], Worker], how: str) -> None:
    worker = fork()
    begun = time.monotonic()
    with pytest.raises(Failure) as failure:
        load(how, seconds=0.3, worker=worker)
    assert (failure.value.status, failure.value.reason) == ("timeout", "load did not end within 0.3 s")
    assert time.monotonic() - begun < 3
    assert not worker.alive
    assert gone([worker.pid])


def test_what_a_plugin_started_is_killed_with_its_worker(load: Load, fork: Callable[[], Worker], mark: str) -> None:
    worker = fork()
    load("child", worker=worker)
    children = marked(mark)
    assert children
    worker.kill()
    assert gone([worker.pid, *children])


def test_what_a_plugin_prints_is_kept(load: Load, tmp_path: Path) -> None:
    load("prints")
    assert (tmp_path / "log.txt").read_text() == "x" * 5000 + "\n"


def test_an_idle_worker_ends_when_nobody_can_ask_it_any_more(fork: Callable[[], Worker]) -> None:
    worker = fork()
    worker.socket.close()
    assert gone([worker.pid])
    worker.server.reap(worker.pid)


def test_a_server_that_is_killed_takes_its_workers_along_and_is_known_to_be_lost(file: Path, tmp_path: Path) -> None:
    with Server({}) as server:
        idle, guilty = (server.fork(tmp_path / f"{i}.txt", [], 1, MEMORY) for i in range(2))
        assert not server.lost()
        with pytest.raises(Failure) as failure:
            guilty.ask(request(file, "kills its parent"), 10)
        assert (failure.value.status, failure.value.reason) == ("crash", "the fork server ended during load")
        assert server.lost()
        assert gone([idle.pid, guilty.pid])
        with pytest.raises(Failure, match="the fork server ended"):
            server.fork(tmp_path / "3.txt", [], 1, MEMORY)


PARENT = """
import sys, json
sys.path.insert(0, {folder!r})
from pathlib import Path
from sparsebench.harness.server import Server
requests = json.loads(sys.stdin.readline())
server = Server({{"MARK": {mark!r}}}).ready()
first, second = (server.fork(Path({folder!r}) / f"{{i}}.txt", [], 1, 1 << 29) for i in range(2))
first.ask(requests[0], 20)
print(json.dumps([server.process.pid, first.pid, second.pid]), flush=True)
second.ask(requests[1], 600)
"""


def test_nothing_outlives_a_parent_that_is_killed(file: Path, tmp_path: Path, mark: str) -> None:
    """Not the server, not an idle worker, not one that hangs in C and reads no pipe, not what a plugin started."""
    import json

    program = PARENT.format(folder=str(tmp_path), mark=f"{mark}-parent")
    parent = subprocess.Popen(
        [sys.executable, "-P", "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdin is not None
    assert parent.stdout is not None
    parent.stdin.write(json.dumps([request(file, "child"), request(file, "hangs in C")]) + "\n")
    parent.stdin.flush()
    pids = json.loads(parent.stdout.readline())
    children = marked(f"{mark}-parent")
    assert children
    time.sleep(0.2)
    parent.send_signal(signal.SIGKILL)
    parent.communicate()
    assert gone([*pids, *children])
