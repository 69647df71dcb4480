"""A child process that ends with its parent, however the parent ends: the kernel sees to it (PR_SET_PDEATHSIG)."""

from __future__ import annotations

import os
import signal

_PR_SET_PDEATHSIG = 1


def die_with(parent: int, how: signal.Signals = signal.SIGKILL) -> None:
    """Have the kernel send `how` to this process when process `parent` ends; if it has ended already, exit now.

    The kernel watches the thread that started this process, so that thread must live as long as its child should.
    """
    import ctypes  # the parent imports this module too, and has no use for it

    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, how)
    if os.getppid() != parent:  # it ended before the line above
        os._exit(0)
