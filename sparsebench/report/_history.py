"""A history for the terminal: a table of runs for each cell, ratios of variants side by side, steps in words below."""

from __future__ import annotations

from collections.abc import Sequence

from sparsebench.report._grid import fit
from sparsebench.report._layout import axes_text
from sparsebench.report._numbers import percent, ratio, ratio_span
from sparsebench.runs.history import History, Point, Series, Shift, by_cell
from sparsebench.runs.steps import ALPHA
from sparsebench.wrapping import wrap

SLOWER, FASTER = "▼", "▲"


def history_text(history: History) -> str:
    """Lines of at most 100 columns."""
    first = f"{history.case}{': ' + history.title if history.title else ''}: {len(history.runs)} runs, oldest first"
    legend = (
        f"2.00x = takes half the time of {history.baseline} in its own blocks, with the range over blocks. A step "
        f"({SLOWER} slower, {FASTER} faster) is what at most {ALPHA:.0%} of series without one show, and no less "
        f"than the case's margin; it takes two runs on either side and a dozen in all, or four on either side."
    )
    lines = [*wrap(first, indent=0), *wrap(legend, indent=0, hang=0)]
    for cell, group in by_cell(history):
        lines += ["", *wrap(axes_text(cell), indent=0)]
        lines += fit([_rows(history, group, True), _rows(history, group, False)])
        lines += [line for series in group for shift in series.shifts for line in wrap(_told(history, series, shift))]
    steps = len(history.shifted())
    lines += ["", *wrap(f"{steps} steps in {len(history.series)} series", indent=0)]
    lines += [line for note in history.notes for line in wrap(note, indent=0)]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _rows(history: History, group: Sequence[Series], ranges: bool) -> list[list[str]]:
    head = ["began", "commit", "run", *(series.variant for series in group)]
    points = [{point.run: point for point in series.points} for series in group]
    body = []
    for number, run in enumerate(history.runs):
        told = [_entry(known.get(number), series, ranges) for known, series in zip(points, group, strict=True)]
        if any(told):
            commit = f"{run.commit[:8]}{'+' if run.dirty else ''}"
            body.append([run.started[:16].replace("T", " "), commit, run.id[:8], *told])
    return [head, *body]


def _entry(point: Point | None, series: Series, ranges: bool) -> str:
    if point is None:
        return ""
    if point.ratio is None:
        return point.status
    shift = next((shift for shift in series.shifts if shift.since == point.run), None)
    mark = "" if shift is None else SLOWER if shift.change > 1 else FASTER
    return f"{ratio(point.ratio)}{mark} {ratio_span(point.low, point.high) if ranges else ''}".strip()


def _told(history: History, series: Series, shift: Shift) -> str:
    run = history.runs[shift.since]
    commit = f", commit {run.commit[:8]}{'+' if run.dirty else ''}" if run.commit else ""
    word = "slower" if shift.change > 1 else "faster"
    return f"{series.variant}: {word}, {percent(shift.change)} time, since run {run.id}{commit} (p = {shift.p:.3g})"
