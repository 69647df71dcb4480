"""The times of two stored runs: nothing changed is never called a change, what got slower is, hosts and cases match."""

import math
import random

import msgspec
import pytest

from sparsebench.runs.blocks import block_ns, log_ratio
from sparsebench.runs.compare import Margins, compare_runs, judge
from sparsebench.runs.records import Timing
from sparsebench.runs.stats import hodges_lehmann_two, median
from sparsebench.runs.verdicts import ALPHA

replace = msgspec.structs.replace
BASE = {"torch-dense": 2e6, "torch-csr": 4e6, "cython": 1e6}


def judged(base, head, margin, base_ns):
    """The verdict on block values."""
    return judge(base, head, hodges_lehmann_two(base, head, ALPHA)[1:], margin, base_ns)


def slowed(share: float) -> dict[str, float]:
    return BASE | {"cython": BASE["cython"] * (1 + share)}


def verdicts(comparison, variant="cython"):
    return [row.verdict for row in comparison.rows if row.variant == variant]


def test_a_run_against_itself_is_never_slower_or_faster(run_of, cells_of):
    """200 pairs of runs of 5 blocks, block values with a standard deviation of 1.5 %, hosts drifting by 20 %."""
    cells = cells_of(sparsities=(0.9,))
    found = set()
    for seed in range(200):
        base, head = (run_of(cells, seed=2 * seed + i, block_sd=0.0106, rounds=5, host_speed=1 + i / 5) for i in (0, 1))
        found |= set(verdicts(compare_runs(base, head)))
    assert found == {"inconclusive"}


def test_with_ten_blocks_at_most_one_of_a_hundred_is_called(run_of, cells_of):
    """The same where intervals judge: they may err, but no more often than they say."""
    cells = cells_of(sparsities=(0.9,), blocks=10)
    found = []
    for seed in range(200):
        base, head = (run_of(cells, seed=2 * seed + i, block_sd=0.0106, rounds=3, host_speed=1 + i / 5) for i in (0, 1))
        found += verdicts(compare_runs(base, head))
    assert sum(verdict in ("slower", "faster") for verdict in found) <= 2
    assert "same" in found  # so they are judged


def test_times_that_no_float_can_divide_are_no_ratio(run_of, cells_of):
    """A broken file may hold 1e200 ns: such a block has no value, and the others have theirs."""
    cells = cells_of(sparsities=(0.9,))

    def broken(sample):
        return replace(sample, t_ns=[1e200] * 4) if sample.variant == "cython" and sample.block == 0 else sample

    for session in (0, 1):  # where rounds pair, and where medians do

        def change(sample, session=session):
            return broken(replace(sample, session=session if sample.variant == "cython" else 0))

        row = next(
            r for r in compare_runs(run_of(cells), run_of(cells, change=change, rounds=4)).rows if r.variant == "cython"
        )
        assert (row.base_blocks, row.head_blocks) == (5, 4)
    for one, other in ((1.0, 1e200), (1e200, 1.0), (1e-200, 1e200), (1e200, 1e-200)):
        for count in (1, 2):
            mine, theirs = (
                Timing(case="c", cell={}, variant="v", block=0, status="ok", t_ns=[t] * count) for t in (one, other)
            )
            assert log_ratio(mine, theirs) is log_ratio(mine, replace(theirs, session=1)) is None


def test_twin_unanchored_times_call_drift_a_slowdown(run_of, cells_of):
    """The rule that most tools use, medians and 5 %: wrong as soon as the machine itself is slower for a while."""
    cells = cells_of(sparsities=(0.9,))
    alarms = 0
    for seed in range(20):
        times = []
        for i in (0, 1):
            run = run_of(cells, seed=2 * seed + i, host_speed=1 + i / 5)
            times.append(median([block_ns(s) for s in run.samples if s.variant == "cython"]))
        alarms += times[1] / times[0] > 1.05
    assert alarms > 10


def test_a_fifth_slower_is_always_called_slower(run_of):
    for seed in range(40):
        comparison = compare_runs(run_of(seed=seed), run_of(times=slowed(0.2), seed=1000 + seed, host_speed=1.3))
        assert verdicts(comparison) == ["slower", "slower"]
        assert verdicts(comparison, "torch-csr") == ["inconclusive", "inconclusive"]
        assert comparison.exit_code() == 1


def test_a_change_is_reported_with_its_size_and_interval(run_of):
    comparison = compare_runs(run_of(seed=1), run_of(times=slowed(0.2), seed=2))
    row = next(r for r in comparison.rows if r.variant == "cython")
    assert row.change == pytest.approx(1.2, rel=0.04)
    assert row.low < row.change < row.high
    assert (row.base_blocks, row.head_blocks, row.margin) == (5, 5, 0.03)
    assert row.base_ms and row.head_ms


@pytest.mark.parametrize(
    ("share", "wanted"), [(0.0, "same"), (0.1, "slower"), (-0.1, "faster"), (0.03, "inconclusive")]
)
def test_ten_blocks_give_every_verdict(run_of, cells_of, share, wanted):
    cells = cells_of(sparsities=(0.9,), blocks=10)
    found = [
        verdict
        for seed in range(10)
        for verdict in verdicts(
            compare_runs(
                run_of(cells, seed=seed, block_sd=0.004), run_of(cells, slowed(share), seed=99 + seed, block_sd=0.004)
            )
        )
    ]
    assert found.count(wanted) >= 9  # at the margin itself one in 200 may fall on either side


def test_few_blocks_call_nothing_faster_and_nothing_the_same(run_of):
    assert set(verdicts(compare_runs(run_of(), run_of(times=slowed(-0.5), seed=5)))) == {"inconclusive"}
    assert set(verdicts(compare_runs(run_of(), run_of()))) == {"inconclusive"}


def noise(n, centre=0.0, sd=0.005, seed=3):
    draw = random.Random(seed)
    return [centre + draw.gauss(0, sd) for _ in range(n)]


def test_few_blocks_must_not_touch_and_exceed_three_margins():
    far, near = math.log(1.12), math.log(1.07)
    assert judged(noise(5), noise(5, far), 0.03, 1e6)[0] == "slower"
    assert judged(noise(5), noise(5, near), 0.03, 1e6)[0] == "inconclusive"  # apart, but not by three margins
    assert judged([*noise(4), far], noise(5, far), 0.03, 1e6)[0] == "inconclusive"  # the ranges touch
    assert judged(noise(4), noise(5, far), 0.03, 1e6)[0] == "inconclusive"
    assert judged(noise(10), noise(9, far), 0.03, 1e6)[0] == "slower"
    assert judged(noise(5), noise(5, far), 0.05, 1e6)[0] == "inconclusive"  # margins of 5 %


def test_changes_under_20_us_do_not_count():
    double = math.log(2)
    assert judged(noise(10), noise(10, double), 0.03, 100_000)[0] == "slower"
    assert judged(noise(10), noise(10, double), 0.03, 10_000)[0] == "same"  # from 10 to 20 us
    verdict, reason = judged(noise(5), noise(5, double), 0.03, 10_000)
    assert verdict == "inconclusive"
    assert "20 us" in reason


def test_the_margin_can_be_given(run_of, cells_of):
    cells = cells_of(sparsities=(0.9,), blocks=10)
    base, head = run_of(cells, block_sd=0.005), run_of(cells, slowed(0.08), seed=7, block_sd=0.005)
    assert verdicts(compare_runs(base, head)) == ["slower"]
    assert verdicts(compare_runs(base, head, margin=0.2)) == ["same"]


def test_the_baseline_is_the_anchor_and_not_judged(run_of):
    comparison = compare_runs(run_of(), run_of(times=BASE | {"torch-dense": 9e6}))
    assert set(verdicts(comparison, "torch-dense")) == {"anchor"}


@pytest.mark.parametrize(("base", "head"), [(5, 5), (10, 9), (7, 12)])
def test_more_blocks_are_advised_than_a_verdict_needs(base, head):
    advice = "verdicts need 10 good ones a side; run both with more --blocks than that, for some are lost"
    values = [0.0, 0.001, -0.001] * 4
    assert judged(values[:base], values[:head], 0.03, 1e6) == ("inconclusive", f"{base} and {head} blocks: {advice}")
    little = judged([0.0] * base, [0.05] * head, 0.03, 1e6)[1]
    assert little == f"slower in every block, but by less than 3 margins; {advice}"


OTHER_HOST = {"fingerprint": {"cpu": "Xeon", "cores_allowed": 2, "libraries": {"torch": "2.12"}}}


def test_other_hosts_are_shown_and_not_judged(run_of):
    base, head = run_of(), run_of(times=slowed(0.5), host=OTHER_HOST)
    comparison = compare_runs(base, head)
    assert set(verdicts(comparison)) == {"not judged"}
    assert not comparison.judged
    assert comparison.exit_code() == 0
    assert "hosts differ in cpu: AMD EPYC 7713 / Xeon" in comparison.notes
    assert "hosts differ in libraries.torch: 2.13 / 2.12" in comparison.notes
    assert comparison.notes[-1] == "times stand side by side and are not judged; --force judges them"
    assert not any("cores_allowed" in note for note in comparison.notes)
    assert all(row.change for row in comparison.rows if row.variant == "cython")
    forced = compare_runs(base, head, force=True)
    assert set(verdicts(forced)) == {"slower"}
    assert forced.judged
    assert "forced" in forced.notes[-1]


def test_volatile_notes_do_not_matter(run_of):
    host = {"fingerprint": {"cpu": "AMD EPYC 7713", "cores_allowed": 2, "libraries": {"torch": "2.13"}}}
    assert compare_runs(run_of(host=host | {"volatile": {"mhz": 1}}), run_of(host=host)).judged


def test_a_library_that_one_host_lacks_is_a_difference(run_of):
    """It may bring a second thread runtime into the workers, and then every row is another."""
    old, more = ({"fingerprint": {"cpu": "Xeon", "libraries": names}} for names in ({}, {"mkl": "2026.2"}))
    comparison = compare_runs(run_of(host=old), run_of(host=more))
    assert not comparison.judged
    assert "hosts differ in libraries.mkl: not given / 2026.2" in comparison.notes


def test_a_case_that_changed_is_not_judged_unless_forced(run_of, cells_of):
    changed = [
        replace(c, version="v2", title="linear 9->9", dense_flop=7.0) if c.cell["sparsity"] == 0.9 else c
        for c in cells_of()
    ]
    base, head = run_of(), run_of(changed, slowed(0.5))
    comparison = compare_runs(base, head)
    assert verdicts(comparison) == ["slower", "not judged"]
    row = comparison.rows[-1]
    assert "v1 -> v2; title: linear 1024->1024 batch 128 at 0.9, forward / linear 9->9, dense_flop: " in row.reason
    assert row.change is None
    assert comparison.exit_code({"slower"}) == 1  # of the other cell
    forced = compare_runs(base, head, force=True)
    assert verdicts(forced) == ["slower", "slower"]
    assert "forced: the case itself changed" in forced.rows[-1].reason
    assert "forced" not in forced.rows[1].reason


def test_a_change_that_no_field_shows_is_said_so(run_of, cells_of):
    row = compare_runs(run_of(), run_of([replace(c, version="v2") for c in cells_of()])).rows[1]
    assert row.reason.endswith(
        "(version v1 -> v2; in a parameter that run.json does not spell out; compare the suites)"
    )


@pytest.mark.parametrize(
    ("margins", "wanted"),
    [
        ({}, 0.03), ({"everywhere": 0.1}, 0.1), ({"named": {"linear-1024": 0.2}}, 0.2),
        ({"everywhere": 0.1, "named": {"quick": 0.15, "noisy": 0.25, "other": 0.9}}, 0.25),
        ({"named": {"noisy": 0.25, "linear-1024": 0.2}}, 0.2),
    ],
)  # fmt: skip
def test_margins_of_a_case_go_before_those_of_its_tags(cells_of, margins, wanted):
    [cell] = cells_of(sparsities=(0.9,), tags=["quick", "noisy"])
    assert Margins(**margins).of(cell) == wanted


def test_a_margin_that_nothing_has_is_found_out(run_of, cells_of):
    info = run_of(cells_of(tags=["quick"])).info
    assert Margins(named={"quick": 0.1, "linear-1024": 0.1, "quikc": 0.1}).unknown(info) == ["quikc"]


def test_margins_decide_each_row(run_of, cells_of):
    cells = [*cells_of((0.9,), blocks=10), *cells_of((0.9,), cases=("other",), blocks=10, tags=["noisy"])]
    base, head = run_of(cells, block_sd=0.005), run_of(cells, slowed(0.08), seed=7, block_sd=0.005)
    comparison = compare_runs(base, head, margin=Margins(named={"noisy": 0.2}))
    assert verdicts(comparison) == ["slower", "same"]
    assert [row.margin for row in comparison.rows if row.variant == "cython"] == [0.03, 0.2]
