"""Methods on text are ranked by their test loss, not by the share of right tokens; images are ranked as ever."""

import math

import pytest

from sparsebench.runs.scores import rankings_of, scores_of
from sparsebench.runs.summary import Row

# wanda guesses a little better, sparsegpt has the lower loss with every seed
ROWS = {"dense": (0.62, 1.40), "wanda": (0.58, 1.62), "sparsegpt": (0.57, 1.55), "magnitude": (0.20, 3.70)}


def rows(text=True, seeds=(0, 1), without=()):
    made = []
    for variant, (accuracy, loss) in ROWS.items():
        for seed in seeds:
            metrics = {"accuracy": accuracy + seed / 100, "test_loss": loss + seed / 50}
            if text and (variant, seed) not in without:
                metrics["perplexity"] = math.exp(metrics["test_loss"])
            cell = {"seed": seed, "sparsity": 0.0 if variant == "dense" else 0.5, "threads": 1}
            made.append(Row(case="c", kind="accuracy", title="gpt", cell=cell, variant=variant, status="ok", reason="",
                            metrics=metrics))  # fmt: skip
    return made


def test_perplexity_has_its_spread_and_images_have_none():
    scores = {score.variant: score for score in scores_of(rows())}
    wanted = [math.exp(1.55), math.exp(1.57)]
    assert scores["sparsegpt"].perplexity.mean == pytest.approx(sum(wanted) / 2)
    assert (scores["sparsegpt"].perplexity.low, scores["sparsegpt"].perplexity.high) == tuple(wanted)
    assert scores["wanda"].points.mean == pytest.approx(-0.04), "the distance to dense stays that of accuracy"
    assert all(score.perplexity is None for score in scores_of(rows(text=False)))


def test_text_is_ranked_by_loss_and_images_by_accuracy():
    (ranking,) = rankings_of(scores_of(rows()))
    assert (ranking.best, ranking.level) == ("sparsegpt", ())
    (ranking,) = rankings_of(scores_of(rows(text=False)))
    assert (ranking.best, ranking.level) == ("wanda", ())


def test_who_has_as_low_a_loss_with_some_seed_is_not_told_apart():
    close = rows()
    for row in close:
        if row.variant == "wanda" and row.cell["seed"] == 1:
            row.metrics["test_loss"] = 1.565
    (ranking,) = rankings_of(scores_of(close))
    assert (ranking.best, ranking.level) == ("sparsegpt", ("wanda",))


def test_a_loss_without_a_perplexity_is_still_compared_by_loss():
    (ranking,) = rankings_of(scores_of(rows(without=[("magnitude", 0), ("magnitude", 1)])))
    assert (ranking.best, ranking.level) == ("sparsegpt", ())
