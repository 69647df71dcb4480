"""The child's side: a fork server that imports torch once, and the workers forked from it that compute for one variant.

Started as `python -P -m sparsebench.harness.worker DESCRIPTOR PARENT [MODULE…]`. It ends with its parent
(PR_SET_PDEATHSIG), because a kernel that hangs reads no pipe; workers end with the server.
"""

from __future__ import annotations

import contextlib
import gc
import os
import resource
import signal
import socket
import sys
from importlib import import_module
from typing import Any, NoReturn

from sparsebench.harness import wire
from sparsebench.lifeline import die_with


def main() -> None:
    """Import what every worker needs, then fork at command."""
    control, parent = socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2])
    workers: set[int] = set()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: _end(workers))
    die_with(parent, signal.SIGTERM)
    gc.disable()  # it looks for garbage among what imports make and keep: a sixth of the time that torch takes
    import numpy  # noqa: F401
    import torch  # noqa: F401

    from sparsebench.harness import desk  # noqa: F401  imported once, here, so that a fork costs 15 ms

    for module in sys.argv[3:]:
        import_module(module)
    gc.enable()
    wire.send(control, {"ready": os.getpid(), "protocol": wire.PROTOCOL})
    while True:
        try:
            request, descriptor = wire.receive_with_descriptor(control)
        except wire.Closed:
            _end(workers)
        if request["do"] == "fork":
            assert descriptor is not None
            pid = _fork(control, descriptor, request)
            workers.add(pid)
            wire.send(control, {"pid": pid})
        else:
            wire.send(control, {"status": _reap(request["pid"])})
            workers.discard(request["pid"])


def _end(workers: set[int]) -> NoReturn:
    """Kill every worker with all that its plugin started, and go."""
    for pid in workers:
        for kill in (os.killpg, os.kill):  # a worker that was forked this moment has no group yet
            with contextlib.suppress(ProcessLookupError, PermissionError):
                kill(pid, signal.SIGKILL)
    os._exit(0)


def _reap(pid: int) -> int:
    try:
        return os.waitpid(pid, 0)[1]
    except ChildProcessError:
        return 0


def _fork(control: socket.socket, descriptor: int, request: dict[str, Any]) -> int:
    server = os.getpid()
    pid = os.fork()
    if pid == 0:
        control.close()
        _serve(socket.socket(fileno=descriptor), server, request)
    os.close(descriptor)
    return pid


def _serve(sock: socket.socket, server: int, request: dict[str, Any]) -> NoReturn:
    """Become a worker: own session, own log, bounded memory, pinned; then answer requests until the pipe ends."""
    code = 1
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.setsid()
        die_with(server, signal.SIGKILL)
        _redirect(request["log"])
        if request["cores"]:
            os.sched_setaffinity(0, request["cores"])
        _bound_memory(request["memory"])
        resource.setrlimit(resource.RLIMIT_FSIZE, (request["files"], request["files"]))
        import torch

        from sparsebench.harness.desk import Desk

        torch.set_num_threads(request["threads"])
        gc.freeze()
        desk = Desk()
        while True:
            wire.send(sock, desk.answer(wire.receive(sock)))
    except wire.Closed:
        code = 0
    finally:
        os._exit(code)  # a plugin's threads and atexit hooks are not waited for


def _redirect(log: str) -> None:
    null = os.open(os.devnull, os.O_RDONLY)
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(null, 0)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.close(null)
    os.close(file)


def _bound_memory(limit: int) -> None:
    """Allocations beyond the limit fail in the worker; virtual memory that torch only reserves is allowed for."""
    reserved = int(open("/proc/self/statm").read().split()[0]) * os.sysconf("SC_PAGE_SIZE")  # noqa: SIM115, PTH123
    bound = reserved + limit + 2**30
    resource.setrlimit(resource.RLIMIT_AS, (bound, bound))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


if __name__ == "__main__":
    main()
