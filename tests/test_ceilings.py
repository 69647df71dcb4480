"""What is read to measure each level, and what becomes of a measurement that fails."""

from __future__ import annotations

import itertools
import os

import pytest

from sparsebench import ceilings, host
from sparsebench.ceilings import held, measure, measure_apart, parse_cache, working_sets
from sparsebench.errors import RunError

KI, MI, GI = 1 << 10, 1 << 20, 1 << 30
SMALL = {"L1d": "32K", "L1i": "32K", "L2": "512K", "L3": "32768K/2"}
LARGE = {"L1d": "48K", "L1i": "32K", "L2": "2048K", "L3": "266240K/64"}


def test_every_level_gets_a_set_that_fits_it_and_not_the_one_before() -> None:
    assert list(working_sets(SMALL, 1, 64 * GI)) == [
        ("L1", 16 * KI, 32 * KI),
        ("L2", 256 * KI, 512 * KI),
        ("L3", 4 * MI, 32 * MI),
        ("memory", 128 * MI, 0),
    ]
    for caches in (SMALL, LARGE):
        sets = list(working_sets(caches, 1, 64 * GI))
        for (_, _, inner), (_, size, outer) in itertools.pairwise(sets):
            assert size > inner or size >= ceilings.LEAST_MEMORY
            assert size <= (outer or size)


def test_threads_share_what_cores_share() -> None:
    assert list(working_sets(SMALL, 2, 64 * GI)) == [
        ("L1", 16 * KI, 64 * KI),
        ("L2", 256 * KI, MI),
        ("L3", 4 * MI, 32 * MI),
        ("memory", 64 * MI, 0),
    ]
    assert [capacity for name, _, capacity in working_sets(SMALL, 3, 64 * GI) if name == "L3"] == [64 * MI]


def test_memory_is_read_within_bounds() -> None:
    assert list(working_sets({}, 1, 64 * GI)) == [("memory", ceilings.LEAST_MEMORY, 0)]
    assert list(working_sets(LARGE, 1, 64 * GI))[-1] == ("memory", ceilings.MOST_MEMORY, 0)
    assert list(working_sets(LARGE, 1, 400 * MI))[-1] == ("memory", 100 * MI, 0)


def test_a_shared_cache_holds_what_is_read_at_its_rate() -> None:
    seen = []

    def rate(size: int) -> float:
        seen.append(size)
        return 50.0 if size <= 10 * MI else 15.0

    assert held(rate, 4 * MI, 32 * MI, 25.0) == 9 * MI
    assert seen == [6 * MI, 9 * MI, int(13.5 * MI)], "it stops at the first that is slow"
    assert held(lambda _: 50.0, 4 * MI, 8 * MI, 25.0) == 6 * MI, "never more than there is"
    assert held(lambda _: 1.0, 4 * MI, 32 * MI, 25.0) == 4 * MI


@pytest.mark.parametrize(
    ("text", "known"), [("32K", (32 * KI, 1)), ("32768K/2", (32 * MI, 2)), ("2M/16", (2 * MI, 16)), ("512", (512, 1))]
)
def test_caches_as_the_host_names_them(text: str, known: tuple[int, int]) -> None:
    assert parse_cache(text) == known


def test_this_machine_has_ceilings() -> None:
    found = measure_apart(1, host.cores_allowed()[:1])
    assert found.threads == 1
    assert found.gflops > 0.1
    assert [level.name for level in found.levels] == [
        *(name.removesuffix("d") for name in sorted(host.caches()) if not name.endswith("i")),
        "memory",
    ]
    assert all(level.gb_s > 0.1 for level in found.levels)
    assert found.levels[-1].capacity == 0


def test_a_level_is_the_nearest_that_holds_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "caches", lambda: SMALL)
    monkeypatch.setattr(ceilings, "SECONDS", 0.001)
    monkeypatch.setattr(ceilings, "LEAST_MEMORY", MI)
    monkeypatch.setattr(ceilings, "held", lambda rate, size, most, least: 32 * MI)
    found = measure(1)
    places = {size: found.level_of(size).name for size in (1, 32 * KI, 32 * KI + 1, MI, 33 * MI, 10 * GI)}
    assert list(places.values()) == ["L1", "L1", "L2", "L3", "memory", "memory"]


def test_a_measurement_apart_is_pinned(monkeypatch: pytest.MonkeyPatch) -> None:
    core = host.cores_allowed()[-1]
    probe = "import os, sys; sys.exit(f'on {sorted(os.sched_getaffinity(0))}, {os.environ[\"MINE\"]}')"
    monkeypatch.setattr(ceilings, "PROBE", ceilings.PROBE.partition("sys.stdout")[0] + probe)
    with pytest.raises(RunError, match=rf"on \[{core}\], here; see"):
        measure_apart(1, [core], {"MINE": "here"})
    assert "MINE" not in os.environ


@pytest.mark.parametrize(
    ("probe", "said"),
    [
        ("raise OSError('no such kernel')", "OSError: no such kernel"),
        ("pass", "said nothing"),
        ("import time; time.sleep(60)", "did not end within 0.3 s"),
    ],
)
def test_a_measurement_that_fails_says_why(monkeypatch: pytest.MonkeyPatch, probe: str, said: str) -> None:
    monkeypatch.setattr(ceilings, "PROBE", probe)
    monkeypatch.setattr(ceilings, "PROBE_SECONDS", 0.3)
    with pytest.raises(RunError, match=said):
        measure_apart(1)
