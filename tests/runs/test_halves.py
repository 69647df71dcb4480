"""Half of the work in another process: whatever becomes of it, the results are the same, and nothing is left behind."""

import os
import signal
import struct
import subprocess
import sys
import time
from multiprocessing import Pipe

import psutil
import pytest

from sparsebench.runs.halves import _answered, in_halves


@pytest.fixture(autouse=True)
def _two_cores(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})


def test_results_are_in_order_and_half_of_them_from_elsewhere():
    def work(numbers):
        return [(number, os.getpid()) for number in numbers]

    found = in_halves(work, range(5), tuple[int, int])
    assert [number for number, _ in found] == [0, 1, 2, 3, 4]
    assert [pid == os.getpid() for _, pid in found] == [True, True, False, False, False]


def test_a_process_that_dies_leaves_its_half_to_be_done_here():
    me = os.getpid()

    def work(numbers):
        if os.getpid() != me:
            os._exit(9)
        return [number + 1 for number in numbers]

    assert in_halves(work, [1, 2, 3], int) == [2, 3, 4]


def test_one_that_dies_while_it_answers_has_not_answered():
    here, there = Pipe(duplex=False)
    os.write(there.fileno(), struct.pack("!i", 1000) + b"the beginning")
    there.close()
    assert _answered(here, int) is None


def test_what_fails_in_the_other_process_fails_here(capfd):
    with pytest.raises(ZeroDivisionError):
        in_halves(lambda numbers: [1 // number for number in numbers], [1, 0], int)
    assert capfd.readouterr() == ("", "")


SCRIPT = """
import os, sys, time
os.sched_getaffinity = lambda pid: {0, 1}
from sparsebench.runs.halves import in_halves
me = os.getpid()
def work(numbers):
    if os.getpid() == me:
        time.sleep(60)
    print(os.getpid(), flush=True)
    return [0] * 1_000_000  # more than a pipe holds
in_halves(work, [1, 2], int)
"""


def test_it_does_not_outlive_a_parent_that_is_killed():
    with subprocess.Popen([sys.executable, "-c", SCRIPT], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        time.sleep(0.3)  # it waits to be read
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        _, alive = psutil.wait_procs([child], timeout=10)
        assert not alive
