"""Perplexity stands beside the accuracy of text, and nowhere else."""

import math

import msgspec
import pytest

from sparsebench.report import render
from sparsebench.report._layout import BEST
from sparsebench.runs.records import CellInfo
from sparsebench.runs.summary import summarize

LOSS = {"dense": 1.4, "wanda": 1.62, "sparsegpt": 1.55}
ACCURACY = {"dense": 0.62, "wanda": 0.58, "sparsegpt": 0.57}


def text_of(run_of, style="table", perplexity=True):
    cells = [
        CellInfo(case="stories", kind="accuracy", cell={"seed": seed, "sparsity": sparsity, "threads": 1}, version="v",
                 blocks=1, title="gpt on toy-text", baseline="dense",
                 variants=["dense"] if sparsity == 0 else ["wanda", "sparsegpt"])
        for seed in (0, 1)
        for sparsity in (0.0, 0.5)
    ]  # fmt: skip

    def change(s):
        loss = LOSS[s.variant] + s.cell["seed"] / 50
        more = {"perplexity": math.exp(loss)} if perplexity else {}
        accuracy = ACCURACY[s.variant] + s.cell["seed"] / 100
        return msgspec.structs.replace(s, metrics={"accuracy": accuracy, "test_loss": loss, **more})

    return render(summarize(run_of(cells, dict.fromkeys(LOSS, 1e9), change=change)), style)


def test_the_column_and_the_ranking_are_those_of_text(run_of):
    lines = text_of(run_of).splitlines()
    (head,) = [line for line in lines if line.startswith("sparsity, method")]
    assert head.split("  ")[0] == "sparsity, method"
    assert head.index("accuracy") < head.index("perplexity") < head.index("to dense")
    (best,) = [line for line in lines if line.startswith("0.5 sparsegpt") and "%" in line]
    mean, deviation = (math.exp(1.55) + math.exp(1.57)) / 2, (math.exp(1.57) - math.exp(1.55)) / math.sqrt(2)
    assert f"{mean:.3f} ±{deviation:.3f} {BEST}" in best
    assert BEST not in best.partition("%")[0]
    assert "  lowest perplexity: sparsegpt at 0.5" in lines
    assert not [line for line in lines if "most accurate" in line]


@pytest.mark.parametrize("style", ["table", "markdown"])
def test_every_style_has_it_and_images_do_not(run_of, style):
    (head,) = [line for line in text_of(run_of, style).splitlines() if line.lstrip("| ").startswith("sparsity, method")]
    assert "perplexity" in head
    images = text_of(run_of, style, perplexity=False)
    assert "most accurate: wanda at 0.5" in images
    (head,) = [line for line in images.splitlines() if line.lstrip("| ").startswith("sparsity, method")]
    assert "accuracy" in head
    assert "perplexity" not in head
