"""Speedups in reports: what was asked for, promised and measured beside the accuracy, within a hundred columns."""

import json

import msgspec
import pytest

from sparsebench.report import render
from sparsebench.runs.records import CellInfo
from sparsebench.runs.scores import rankings_of, scores_of
from sparsebench.runs.summary import summarize

replace = msgspec.structs.replace
METHODS = ("magnitude", "gmp@end=0.8")


def cells(speedups=(1.5, 2.0), seeds=(0, 1)):
    return [
        CellInfo(case="fast", kind="accuracy", cell={"seed": seed, "speedup": speedup, "threads": 1}, version="v",
                 blocks=1, title="resnet20-cifar on cifar-10, 0 epochs at batch 64, spdy, on cpp", baseline="dense",
                 variants=["dense"] if speedup == 1 else list(METHODS))
        for seed in seeds
        for speedup in (1.0, *speedups)
    ]  # fmt: skip


def trained(s):
    speedup, seed = s.cell["speedup"], s.cell["seed"]
    metrics = {"accuracy": 0.95 - 0.1 * (speedup - 1) + 0.001 * seed + 0.01 * (s.variant == "magnitude")}
    if speedup > 1:
        metrics |= {"speedup_promised": speedup + 0.02, "speedup_measured": speedup - 0.03,
                    "speedup_low": speedup - 0.05, "speedup_high": speedup + 0.01,
                    "sparsity": 0.8, "sparsity_all": 0.79, "sparsity_flops": 0.75}  # fmt: skip
    return replace(s, metrics={**metrics, "bytes_dense": 4096.0, "training_seconds": 1.0}, splits_ns={"forward": 1e6})


@pytest.fixture
def summary(run_of):
    return summarize(run_of(cells(), dict.fromkeys(("dense", *METHODS), 1e9), change=trained))


def test_a_row_has_promise_and_result_beside_the_accuracy(summary):
    text = render(summary)
    (head,) = [line for line in text.splitlines() if line.startswith("speedup, method")]
    assert head.endswith("promised, measured")
    row = next(line for line in text.splitlines() if line.startswith("1.5x magnitude"))
    assert [part.strip() for part in row.split("  ") if part.strip()] == [
        "1.5x magnitude", "91.05 % ±0.07 *", "-4.00", "0.800 0.790 0.750", "1.52 1.47 ±0.03",
    ]  # fmt: skip
    assert "most accurate: magnitude at 1.5x; magnitude at 2x" in text
    assert max(map(len, text.splitlines())) <= 100


def test_the_reference_is_that_without_pruning(summary):
    reference = [score for score in summary.scores if score.is_reference]
    assert [(score.variant, score.speedup, score.points) for score in reference] == [("dense", 1.0, None)]
    assert {score.target for score in summary.scores} == {(0.0, 1.0), (0.0, 1.5), (0.0, 2.0)}
    assert all(set(score.axes) == {"threads"} for score in summary.scores)


def test_every_format_tells_it(summary):
    markdown = render(summary, "markdown")
    assert "speedup, method" in markdown
    assert "1.52 1.47 ±0.03" in markdown
    (score,) = (
        s for s in json.loads(render(summary, "json"))["scores"] if s["speedup"] == 2 and s["variant"] == METHODS[0]
    )
    assert score["metrics"]["speedup_measured"] == pytest.approx(1.97)
    assert "speedup_promised" in render(summary, "csv").splitlines()[0]


def test_speedups_are_ranked_apart(summary):
    made = rankings_of(scores_of(summary.rows))
    assert [(each.speedup, each.sparsity, each.best) for each in made] == [(1.5, 0, "magnitude"), (2.0, 0, "magnitude")]
