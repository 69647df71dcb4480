"""The loops that measure ceilings: rates that can be, on every instruction set that runs here, and no trace left."""

import os
import time

import pytest

from sparsebench.kernels import _ceilings

ISAS = ("base", "avx2", "avx512")
RUN_HERE = ISAS[: ISAS.index(_ceilings.best_isa()) + 1]
QUICK = {"seconds": 0.002, "repetitions": 5}


@pytest.mark.parametrize("isa", RUN_HERE)
def test_rates_are_those_of_a_computer(isa):
    assert 1e8 < _ceilings.flops(isa, threads=1, **QUICK) < 1e12  # one core: no CPU does a thousand GFLOP/s in float32
    assert 1e8 < _ceilings.bandwidth(isa, 16 << 10, threads=1, **QUICK) < 2e12


@pytest.mark.skipif(len(RUN_HERE) < 2, reason="one instruction set runs here")
def test_wider_vectors_do_more():
    """AVX2 does four times what SSE does; had the compiler folded the loop away, both would do any amount."""
    base, wide = (_ceilings.flops(isa, threads=1, seconds=0.005, repetitions=9) for isa in ("base", "avx2"))
    assert 1.5 * base < wide < 12 * base


def test_work_takes_the_time_it_is_said_to_take():
    """The rate is work over time: `repetitions` of `seconds` each take at least half of that on the clock."""
    start = time.perf_counter()
    _ceilings.flops("base", threads=1, seconds=0.02, repetitions=5)
    assert time.perf_counter() - start > 0.05


def test_memory_is_slower_than_the_nearest_cache():
    isa = _ceilings.best_isa()
    near = _ceilings.bandwidth(isa, 8 << 10, threads=1, seconds=0.004, repetitions=7)
    far = _ceilings.bandwidth(isa, 64 << 20, threads=1, seconds=0.004, repetitions=3)
    assert near > 1.5 * far


def test_a_size_is_rounded_up_to_whole_lines():
    assert _ceilings.bandwidth("base", 1, threads=1, **QUICK) > 0


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="no affinity here")
def test_threads_are_spread_over_cores_and_let_go():
    before = os.sched_getaffinity(0)
    assert _ceilings.flops("base", threads=2, **QUICK) > 1e8
    assert _ceilings.bandwidth("base", 16 << 10, threads=2, **QUICK) > 1e8
    assert os.sched_getaffinity(0) == before


@pytest.mark.parametrize("isa", [*(isa for isa in ISAS if isa not in RUN_HERE), "mmx"])
def test_what_cannot_run_here_is_refused(isa):
    with pytest.raises(ValueError, match=f"this machine does not run {isa}"):
        _ceilings.flops(isa, threads=1, **QUICK)
    with pytest.raises(ValueError, match=f"this machine does not run {isa}"):
        _ceilings.bandwidth(isa, 1024, threads=1, **QUICK)


def test_memory_that_is_not_there_is_an_error():
    with pytest.raises(MemoryError, match="not enough memory"):
        _ceilings.bandwidth("base", 1 << 60, threads=1, **QUICK)
