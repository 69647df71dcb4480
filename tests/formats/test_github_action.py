"""github-action-benchmark's array: times of the baseline, everything else relative to it."""

import json

import pytest

from sparsebench.errors import RunError
from sparsebench.formats import export


def test_an_entry_for_each_row_with_a_time(small_run):
    run = small_run({"torch-dense": "ok", "cython": "ok", "cpp": "crash"}, factor=0.5)
    dense, fast = json.loads(export(run, "github-action"))
    assert dense["name"] == "linear[pass=forward,sparsity=0.9] torch-dense"
    assert (dense["unit"], dense["value"]) == ("ms", pytest.approx(2.0))
    assert (fast["unit"], fast["value"]) == ("x torch-dense", pytest.approx(0.5))
    assert set(fast) == {"name", "unit", "value", "range", "extra"}
    assert "linear 8->8" in fast["extra"]
    assert "2 blocks" in fast["extra"]
    assert fast["range"] == "± 0"


def test_smaller_is_better(small_run):
    values = [json.loads(export(small_run({"torch-dense": "ok", "x": "ok"}, f), "github-action"))[1] for f in (1, 2)]
    assert values[0]["value"] < values[1]["value"]


def test_without_a_baseline_a_row_is_left_out(small_run):
    """Under its name stand ratios in other runs, and that action compares what has one name."""
    with pytest.raises(RunError, match="no row has a time and a baseline"):
        export(small_run({"torch-dense": "oom", "cython": "ok"}), "github-action")
    run = small_run({"torch-dense": "ok", "cython": "ok"})
    for sample in run.samples:
        if sample.variant == "torch-dense" and sample.block == 1:
            sample.status = "wrong"
    with pytest.raises(RunError, match="no row has a time and a baseline"):
        export(run, "github-action")
