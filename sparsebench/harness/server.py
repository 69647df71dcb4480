"""The parent's side of the workers: one fork server for a block, one worker for a variant, and what became of each.

A worker that hangs, dies or eats memory ends in a `Failure` with a status and one sentence; the parent goes on.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparsebench.errors import RunError
from sparsebench.harness import wire
from sparsebench.runs.records import Status

POLL_SECONDS = 0.05  # how often memory and life of a busy worker are looked at, from another core
LONGEST_FILE = 1 << 26  # bytes that a worker may write into one file: a plugin that prints without end fills no disk
START_SECONDS = 120.0  # a cold import of torch from a slow disk


@dataclass
class Failure(Exception):
    """What became of a worker that did not answer: the status of its row and the reason."""

    status: Status
    reason: str


NOBODY = "the fork server died between two rows, again and again"


class ServerLost(Failure):
    """The fork server died, and with it every worker: the row that was being computed has failed.

    With the reason `NOBODY` it died before the row began, and nobody has failed.
    """


class Server:
    """A fork server: a process that has imported torch but computed nothing, forked once for each variant."""

    def __init__(self, environment: Mapping[str, str], preload: Sequence[str] = (), python: str = "") -> None:
        """Start it with `environment` laid over the inherited one and `preload` imported; `ready` waits for it.

        `python` is the interpreter of another environment, whose sparsebench must speak as this one does.
        """
        ours, theirs = socket.socketpair()
        self.socket, self.broken, self.python, self.spoken = ours, False, python, 0
        command = [python or sys.executable, "-P", "-m", "sparsebench.harness.worker"]
        with theirs:
            self.process = subprocess.Popen(
                [*command, str(theirs.fileno()), str(os.getpid()), *preload],
                pass_fds=[theirs.fileno()],
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is the parent's to handle
            )

    def ready(self) -> Server:
        """Itself, once torch is imported; raises `RunError` (and it is closed) if it does not start."""
        if self.spoken:
            return self
        try:
            self.spoken = wire.receive(self.socket, time.monotonic() + START_SECONDS).get("protocol", 1)
        except (wire.Closed, wire.Late, wire.Garbled):
            self.close()
            raise RunError("the fork server did not start; what it printed stands above") from None
        except BaseException:  # Ctrl-C while torch is imported
            self.close()
            raise
        if self.spoken != wire.PROTOCOL:
            self.close()
            raise RunError(
                f"the workers of {self.python} speak version {self.spoken} of the protocol and this is version "
                f"{wire.PROTOCOL}; compare revisions that are closer to each other"
            )
        return self

    def lost(self) -> bool:
        """Whether somebody killed it, or it cannot be talked to."""
        return self.broken or self.process.poll() is not None

    def fork(self, log: Path, cores: list[int], threads: int, memory: int, files: int = LONGEST_FILE) -> Worker:
        """A fresh worker on `cores`; it prints to `log`, and memory and files are bounded to so many bytes."""
        ours, theirs = socket.socketpair()
        request = {"do": "fork", "log": str(log), "cores": cores, "threads": threads, "memory": memory, "files": files}
        with theirs:
            try:
                wire.send(self.socket, request, (theirs.fileno(),))
                pid = wire.receive(self.socket, time.monotonic() + 30)["pid"]
            except (wire.Closed, wire.Late, wire.Garbled):
                ours.close()
                self.broken = True
                raise Failure("crash", "the fork server ended") from None
        return Worker(self, pid, ours, memory)

    def reap(self, pid: int) -> int | None:
        """Exit status of a dead worker as `os.waitpid` gives it; None if it cannot be told."""
        try:
            wire.send(self.socket, {"do": "reap", "pid": pid})
            status = wire.receive(self.socket, time.monotonic() + 10)["status"]
        except (wire.Closed, wire.Late, wire.Garbled):
            self.broken = True  # an answer that comes late would be taken for the next one
            return None
        return int(status)

    def close(self) -> None:
        """End the server; its workers die with it, and what they started."""
        with contextlib.suppress(ProcessLookupError):
            self.process.terminate()  # it kills the process groups of its workers
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(5)
        self.socket.close()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def __enter__(self) -> Server:
        return self.ready()

    def __exit__(self, *exc: object) -> None:
        self.close()


class Worker:
    """One forked worker that computes for one variant."""

    def __init__(self, server: Server, pid: int, sock: socket.socket, memory: int) -> None:
        self.server, self.pid, self.socket, self.memory = server, pid, sock, memory
        self.alive = True
        self.highest = 0  # bytes of resident memory seen so far

    def ask(self, request: Mapping[str, Any], seconds: float) -> Any:
        """Send a request and wait for the answer; raises `Failure` (and the worker is gone) if none comes."""
        deadline = time.monotonic() + seconds
        try:
            wire.send(self.socket, request)
            while not wire.wait_readable(self.socket, POLL_SECONDS):
                self._look(str(request["do"]), deadline, seconds)
            answer = wire.receive(self.socket, max(deadline, time.monotonic() + 1))
        except wire.Closed:
            raise self._died(str(request["do"])) from None
        except wire.Late:
            self.kill()
            raise Failure("timeout", f"its answer to {request['do']} stopped midway") from None
        except wire.Garbled:
            self.kill()
            raise Failure("crash", f"something wrote into its pipe during {request['do']}") from None
        if answer.get("failed"):
            raise Failure(answer["failed"], answer["reason"])
        return answer

    def kill(self) -> int | None:
        """Kill the worker and all it started; its exit status."""
        if not self.alive:
            return None
        self.alive = False
        for kill in (os.killpg, os.kill):  # its group first: the worker may have started processes
            with contextlib.suppress(ProcessLookupError, PermissionError):
                kill(self.pid, signal.SIGKILL)
        self.socket.close()
        return self.server.reap(self.pid)

    def _look(self, doing: str, deadline: float, seconds: float) -> None:
        resident = _resident(self.pid)
        self.highest = max(self.highest, resident)
        if resident > self.memory:
            self.kill()
            raise Failure("oom", f"{doing} took more than {self.memory / 2**30:.1f} GiB of memory")
        if time.monotonic() > deadline:
            self.kill()
            raise Failure("timeout", f"{doing} did not end within {seconds:g} s")

    def _died(self, doing: str) -> Failure:
        """Tell how a worker ended that closed its socket."""
        time.sleep(0.02)  # a worker that is killed closes its socket a moment before it can be reaped
        self.alive = False
        self.socket.close()
        status = _wait_dead(self.server, self.pid)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)  # what its plugin started has not died with it
        if status is None and self.server.lost():
            return Failure("crash", f"the fork server ended during {doing}")
        if status is None:
            return Failure("crash", f"its worker closed its pipe during {doing}")
        if os.WIFSIGNALED(status):
            number = os.WTERMSIG(status)
            name = _signal_name(number)
            if number == signal.SIGKILL and self.highest > 0.8 * self.memory:
                return Failure("oom", f"the system killed it during {doing} at {self.highest / 2**30:.1f} GiB")
            return Failure("crash", f"killed by {name} during {doing}")
        return Failure("crash", f"exited with code {os.WEXITSTATUS(status)} during {doing}")


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # most real-time signals have no name
        return f"signal {number}"


def _wait_dead(server: Server, pid: int) -> int | None:
    """Exit status of a worker that is ending; one that only closed its socket is killed and gives None."""
    for _ in range(25):
        if _state(pid) in ("Z", ""):
            return server.reap(pid)
        time.sleep(0.02)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    server.reap(pid)
    return None


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return ""


def _resident(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0
