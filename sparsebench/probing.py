"""Asks foreign plugins what they offer, each in a process of its own that may hang, die or answer junk."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

import msgspec

from sparsebench import discovery
from sparsebench.discovery import KINDS, Found, Source
from sparsebench.host import cores_allowed

SECONDS = 20.0  # importing torch takes 2 s on a cold machine; a plugin may need it to answer
POLL_SECONDS = 0.005
LONGEST = 1 << 24  # bytes of an answer; a plugin with a thousand backends stays far below


def probe(sources: Sequence[Source], seconds: float = SECONDS) -> list[list[Found]]:
    """What each source offers, in their order; a few are asked at a time, each has `seconds`.

    Whatever ends this function early, Ctrl-C too, ends all processes at once.
    """
    answers: dict[int, list[Found]] = {}
    waiting = [*enumerate(sources)][::-1]
    running: dict[int, _Probe] = {}
    try:
        while waiting or running:
            while waiting and len(running) < max(2, len(cores_allowed())):
                index, source = waiting.pop()
                running[index] = _Probe(source, seconds)
            time.sleep(POLL_SECONDS)
            for index in [index for index, each in running.items() if each.ended()]:
                answers[index] = running.pop(index).answer()
    finally:
        for each in running.values():
            each.kill()
    return [answers[index] for index in range(len(sources))]


class _Probe:
    """One process that imports one source."""

    def __init__(self, source: Source, seconds: float) -> None:
        self.source, self.seconds = source, seconds
        self.deadline = time.monotonic() + seconds
        self.file = tempfile.TemporaryFile()  # noqa: SIM115  read after the process has ended
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "sparsebench.discovery", str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=[self.file.fileno()],
            start_new_session=True,  # all that a plugin starts is killed with it
        )
        request = {"source": msgspec.to_builtins(source), "answer": self.file.fileno()}
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError), self.process.stdin as stdin:
            stdin.write(json.dumps(request).encode() + b"\n")

    def ended(self) -> bool:
        """Whether there is an answer, or none to wait for."""
        return self.process.poll() is not None or time.monotonic() > self.deadline

    def kill(self) -> None:
        """End the process and what it started."""
        with contextlib.suppress(ProcessLookupError):  # the whole group may have ended
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.file.close()

    def answer(self) -> list[Found]:
        """What the source offers, or the record of how its process ended."""
        code = self.process.poll()
        self.file.seek(0)
        text = self.file.read(LONGEST)
        self.kill()
        if code is None:
            return discovery.lost(self.source, f"its import did not end within {self.seconds:g} s")
        if not text:
            how = f"was killed by signal {-code}" if code < 0 else f"exited with code {code}"
            return discovery.lost(self.source, f"its import {how}")
        try:
            return _decoded(text)
        except (ValueError, KeyError, RecursionError):  # no JSON, no UTF-8, an unknown kind, nested without end
            return discovery.lost(self.source, "its process answered junk")


def _decoded(text: bytes) -> list[Found]:
    """An answer whose specs are what they should be: the plugin could write to the same descriptor."""
    found = msgspec.json.decode(text, type=list[Found])
    for kind, specs in ((kind, specs) for each in found for kind, specs in each.specs.items()):
        wanted = KINDS[kind]
        for spec in specs:
            msgspec.convert(spec, wanted)
    return found
