"""Who wins, for the terminal: a table of geometric means for every group, the winners in words, who stands apart."""

from __future__ import annotations

from collections.abc import Sequence

from sparsebench.report._detail import break_even_text, of_means
from sparsebench.report._grid import fit
from sparsebench.report._layout import BEST, axes_text
from sparsebench.report._numbers import plain, ratio, ratio_span
from sparsebench.runs.break_even import BreakEven
from sparsebench.runs.contests import Contest
from sparsebench.wrapping import wrap


def who_wins(contests: Sequence[Contest], break_evens: Sequence[BreakEven]) -> list[str]:
    """A table of geometric means for every kind, group, pass and number of threads; what nobody won comes last."""
    groups: dict[str, list[Contest]] = {}
    for contest in contests:
        name = " ".join(filter(None, (contest.kind, contest.group)))
        groups.setdefault(", ".join(filter(None, (name, axes_text(_axes(contest))))), []).append(contest)
    lines: list[str] = []
    unsolved: dict[tuple[str, ...], list[str]] = {}
    for heading, group in groups.items():
        first = group[0]
        crossings = break_even_text(of_means(break_evens, first.kind, first.group, _axes(first)), first.baseline)
        said = (*_fastest(group), *([crossings] if crossings else []), *_left_out(group))
        if any(contest.standings for contest in group):
            lines += ["", *wrap(heading, indent=0)]
            lines += fit([_standing_rows(group, True), _standing_rows(group, False)])
            lines += [line for text in said for line in wrap(text)]
        else:
            unsolved.setdefault(said, []).append(heading)
    for said, headings in unsolved.items():
        lines += ["", *wrap("; ".join(headings), indent=0), *(line for text in said for line in wrap(text))]
    return lines


def _axes(contest: Contest) -> dict[str, object]:
    return {axis: value for axis, value in contest.axes.items() if axis != "sparsity"}


def _standing_rows(group: Sequence[Contest], ranges: bool) -> list[list[str]]:
    variants = list(dict.fromkeys(s.variant for contest in group for s in contest.standings))
    head = ["sparsity", *(_sparsity(contest) for contest in group)]
    body = []
    for variant in variants:
        row = [variant]
        for contest in group:
            found = next((s for s in contest.standings if s.variant == variant), None)
            best = BEST if variant == contest.winner else ""
            told = "" if found is None else f"{ratio(found.ratio)}{best}"
            row.append(f"{told} {ratio_span(found.low, found.high) if found and ranges else ''}".strip())
        body.append(row)
    return [head, *body, ["cells", *(f"{c.cells} of {c.cells_planned}" for c in group)]]


def _sparsity(contest: Contest) -> str:
    return plain(contest.axes["sparsity"]) if "sparsity" in contest.axes else "all"


def _fastest(group: Sequence[Contest]) -> list[str]:
    """The winners in words, and who cannot be told from them."""
    where: dict[str, list[str]] = {}
    for contest in group:
        if contest.winner is None:
            continue
        told = contest.winner
        if contest.blocks < 2:
            told += " (no range: fewer than two blocks in common)"
        elif contest.level:
            told += f" (not told apart from {', '.join(contest.level)})"
        where.setdefault(told, []).append(_sparsity(contest))
    said = "; ".join(f"{told} at {', '.join(places)}" for told, places in where.items())
    return [f"fastest: {said}"] if said else ["no winner: nothing was solved by baseline and others alike"]


def _left_out(group: Sequence[Contest]) -> list[str]:
    """Who does not stand, where and why; those for whom both are the same in one breath."""
    where: dict[tuple[str, str], list[str]] = {}
    for contest in group:
        for variant, why in contest.left_out.items():
            where.setdefault((variant, why), []).append(_sparsity(contest))
    alike: dict[str, list[str]] = {}
    for (variant, why), places in where.items():
        alike.setdefault(f"{why} at {', '.join(places)}" if len(places) < len(group) else why, []).append(variant)
    said = "; ".join(f"{', '.join(variants)}: {why}" for why, variants in alike.items())
    return [f"left out: {said}"] if said else []
