"""Trainings in tables: accuracy with its spread over seeds beside three sparsities, then seconds, steps and bytes."""

from __future__ import annotations

from collections.abc import Sequence

from sparsebench.report._layout import ROUGH, Footnotes, axes_text
from sparsebench.report._numbers import digits, kibibytes, plain
from sparsebench.runs.scores import Ranking, Score, Spread

SPLITS = ("data", "forward", "backward", "optimizer", "mask")
SHARES = ("sparsity", "sparsity_all", "sparsity_flops")
SIZES = ("bytes_csr", "bytes_bitmask")
LEGEND = (
    "accuracy: mean over seeds ± standard deviation, on the test set, touched once; of text the share of next tokens, "
    "with perplexity beside it: exp of the mean loss in nats. to dense: points, paired by seed. "
    "sparsity: pruned share of the prunable weights, of all parameters, of all multiply-adds. seconds: of all steps, "
    "with what methods and exchanging layers take; evaluation is left out. to goal: of those, until the validation "
    "accuracy was reached by a model as sparse as the last. promised, measured: times faster than the dense model in "
    "its better layout, by the times of single layers and of the whole model (± half between its quartiles). twin: the "
    "dense model that a method also gives."
)


def heading(group: Sequence[Score]) -> str:
    """The case, what is trained, the axes that all share, how many seeds."""
    first = group[0]
    seeds = max(score.seeds for score in group)
    told = f"{seeds} seed{'' if seeds == 1 else 's'}"
    return ", ".join(filter(None, (f"{first.case}: {first.title}", axes_text(first.axes), told)))


def by_case(scores: Sequence[Score]) -> dict[str, list[Score]]:
    """The scores of each case and its axes, the reference first."""
    groups: dict[str, list[Score]] = {}
    for score in scores:
        groups.setdefault(f"{score.case} {score.axes}", []).append(score)
    return {key: sorted(group, key=lambda score: score.target) for key, group in groups.items()}


def result_rows(
    group: Sequence[Score], rankings: Sequence[Ranking], footnotes: Footnotes, best: str
) -> list[list[str]]:
    """Accuracy, its distance to the reference, and how sparse the model is by three counts."""
    text = _is_text(group)
    twins = any(key.startswith("accuracy_") for score in group for key in score.metrics)
    goals = group[0].kind == "time-to-accuracy"
    speeds = group[0].speedup > 0
    head = [
        "speedup, method" if speeds else "sparsity, method",
        "accuracy",
        *(["perplexity"] if text else []),
        "to dense",
        "prunable, all, FLOPs",
        *(["promised, measured"] if speeds else ["seconds"]),
    ]
    head += [*(["to goal"] if goals else []), *(["twin"] if twins else [])]
    body = []
    for score in group:
        winner = any(_is_of(r, score) and r.best == score.variant and _target(r) == score.target for r in rankings)
        row = [_name(score)]
        if score.accuracy is None:
            body.append([*row, _failure(score, footnotes)])
            continue
        mark = (f" {best}" if winner else "") + _failed_seeds(score, footnotes)
        row += [_percent(score.accuracy) + ("" if text else mark)]
        row += [_perplexity(score.perplexity) + mark] if text else []
        row += [_points(score.points)]
        row += [" ".join(_share(score, key) for key in SHARES) if not score.is_reference else ""]
        row += [_speedups(score)] if speeds else []
        row += [] if speeds else [_seconds(score, "training_seconds")]
        row += [_seconds(score, "seconds_to_goal") or "not reached"] if goals else []
        twin = next((value for key, value in score.metrics.items() if key.startswith("accuracy_")), None)
        row += [f"{twin * 100:.2f} %" if twin is not None else ""] if twins else []
        body.append(row)
    return [head, *body]


def cost_rows(group: Sequence[Score]) -> list[list[str]]:
    """Milliseconds of a step and where they go; bytes of the model as CSR, as a bitmask with values, or dense."""
    head = ["ms per step; size", "all", *SPLITS, "CSR / bitmask"]
    body = [
        [
            _name(score),
            f"{digits(score.step_ms)}{_rough(score)}" if score.step_ms else "",
            *(digits(score.splits_ms[split]) if split in score.splits_ms else "" for split in SPLITS),
            _sizes(score),
        ]
        for score in group
        if score.accuracy is not None
    ]
    return [head, *body] if body else []


def goal_text(group: Sequence[Score]) -> str:
    """ "first to the goal: 0.9 gmp 1.02 s, dense 1.53 s; not reached: 0.9 acdc"."""
    if group[0].kind != "time-to-accuracy":
        return ""
    trained = [score for score in group if score.accuracy is not None]
    there = [score for score in trained if "seconds_to_goal" in score.metrics]
    there.sort(key=lambda score: score.metrics["seconds_to_goal"])
    told = ", ".join(f"{_name(score)} {_seconds(score, 'seconds_to_goal')}" for score in there)
    left = ", ".join(_name(score) for score in trained if score not in there)
    said = [f"first to the goal: {told}"] if there else []
    return "; ".join([*said, *([f"not reached: {left}"] if left else [])])


def ranking_text(rankings: Sequence[Ranking], group: Sequence[Score]) -> str:
    """ "most accurate: acdc at 0.9 (not told apart from gmp); gmp at 0.95"; of text "lowest perplexity: …"."""
    first = group[0]
    told = [
        f"{r.best} at {_asked(*_target(r))}" + (f" (not told apart from {', '.join(r.level)})" if r.level else "")
        for r in rankings
        if _is_of(r, first)
    ]
    what = "lowest perplexity" if _is_text(group) else "most accurate"
    return f"{what}: {'; '.join(told)}" if told else ""


def _is_of(ranking: Ranking, score: Score) -> bool:
    return ranking.case == score.case and ranking.axes == score.axes


def note_texts(group: Sequence[Score]) -> list[str]:
    """What was noted, once: of all, or of some."""
    where: dict[str, list[str]] = {}
    if any(score.is_rough for score in group):
        where[f"{ROUGH} = other work had the core: take the seconds as a hint"] = [score.variant for score in group]
    for score in group:
        for note in score.notes:
            where.setdefault(note, []).append(score.variant)
    return [
        note if len(names) == len(group) else f"{', '.join(dict.fromkeys(names))}: {note}"
        for note, names in where.items()
    ]


def _sizes(score: Score) -> str:
    if score.is_reference:
        return f"{kibibytes(score.metrics.get('bytes_dense'))} dense"
    return " / ".join(kibibytes(score.metrics.get(key)) for key in SIZES)


def _name(score: Score) -> str:
    return score.variant if score.is_reference else f"{_asked(*score.target)} {score.variant}"


def _target(ranking: Ranking) -> tuple[float, float]:
    return ranking.sparsity, ranking.speedup


def _asked(sparsity: float, speedup: float) -> str:
    """What was asked for: "0.9", or "1.5x"."""
    return f"{plain(speedup)}x" if speedup else plain(sparsity)


def _speedups(score: Score) -> str:
    """ "1.52 1.47 ±0.03": what was promised, what was measured, and half of what lies between its quartiles."""
    if "speedup_measured" not in score.metrics:
        return ""
    promised, measured, low, high = (score.metrics[f"speedup_{key}"] for key in ("promised", "measured", "low", "high"))
    return f"{promised:.2f} {measured:.2f} ±{(high - low) / 2:.2f}"


def _failure(score: Score, footnotes: Footnotes) -> str:
    status, reason = score.failures[0]
    return f"{status} {footnotes.mark(f'{status}: {reason}' if reason else '')}".strip()


def _failed_seeds(score: Score, footnotes: Footnotes) -> str:
    """Of a method that failed with some seeds: how many its mean is over, and why not all."""
    if not score.failures:
        return ""
    return f" {score.solved} of {score.seeds} seeds {_failure(score, footnotes).partition(' ')[2]}".rstrip()


def _percent(spread: Spread) -> str:
    return f"{spread.mean * 100:.2f} %" + (f" ±{spread.deviation * 100:.2f}" if spread.deviation is not None else "")


def _perplexity(spread: Spread | None) -> str:
    if spread is None:
        return "?"
    return digits(spread.mean, 4) + (f" ±{digits(spread.deviation, 2)}" if spread.deviation is not None else "")


def _is_text(group: Sequence[Score]) -> bool:
    return any(score.perplexity is not None for score in group)


def _points(spread: Spread | None) -> str:
    if spread is None:
        return ""
    return f"{round(spread.mean * 100, 2) + 0.0:+.2f}"


def _share(score: Score, key: str) -> str:
    return f"{score.metrics[key]:.3f}" if key in score.metrics else "?"


def _seconds(score: Score, key: str) -> str:
    return f"{digits(score.metrics[key])} s{_rough(score)}" if key in score.metrics else ""


def _rough(score: Score) -> str:
    return ROUGH if score.is_rough else ""
