"""What `ab` found: a line for every cell, the verdicts counted, and what was lost to other work on the machine."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec

from sparsebench.report._grid import fit
from sparsebench.report._layout import Footnotes, axes_text
from sparsebench.report._numbers import ms, percent, percent_span
from sparsebench.report.markdown import escaped, markdown_table
from sparsebench.runs.duel import Duel
from sparsebench.runs.verdicts import ALPHA, FLOOR_NS
from sparsebench.wrapping import wrap

ORDER = ("wrong", "failed", "missing", "slower", "faster", "fixed", "new", "inconclusive", "same")
HEAD = ("case", "verdict", "B against A", f"{100 * (1 - ALPHA):g} % interval", "A", "B", "margin", "blocks")


def table(duels: Sequence[Duel]) -> str:
    """For a terminal, 100 columns wide."""
    footnotes = Footnotes()
    rows = _rows(duels, footnotes)
    kept = ((0, 1, 2, 3, 4, 5, 6, 7), (0, 1, 2, 3, 6, 7), (0, 1, 2, 3))  # the verdict is never torn off
    lines = [
        *_heading(duels),
        "",
        *fit([[[row[i] for i in each] for row in rows] for each in kept]),
        "",
        *footnotes.lines(),
        *_ending(duels),
    ]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def markdown(duels: Sequence[Duel]) -> str:
    """The same for a page or a pull request; a reason is other people's text, and may hold bars and HTML."""
    footnotes = Footnotes()
    rows = markdown_table(_rows(duels, footnotes))
    notes = [f"- {escaped(text.strip())}" for text in footnotes.lines(10_000)]
    lines = [*map(escaped, _heading(duels)), "", *rows, "", *([*notes, ""] if notes else []), *_ending(duels)]
    return "\n".join(lines) + "\n"


def json(duels: Sequence[Duel]) -> str:
    """All of it in full digits, an object for each cell."""
    return msgspec.json.format(msgspec.json.encode(duels), indent=2).decode() + "\n"


def _heading(duels: Sequence[Duel]) -> list[str]:
    if not duels:
        return ["no cell was compared"]
    shared = axes_text(_shared(duels))
    return [
        " · ".join(filter(None, (f"A: {duels[0].a}", f"B: {duels[0].b}", shared))),
        *wrap(
            "B against A: its time over that of A, paired in rounds; above 0 is slower. "
            f"Margin: what counts as a change; no less than {FLOOR_NS / 1000:g} us.",
            indent=0,
        ),
    ]


def _shared(duels: Sequence[Duel]) -> dict[str, Any]:
    """The axes that have one value in all cells."""
    first = duels[0].cell
    return {axis: first[axis] for axis in first if all(duel.cell.get(axis) == first[axis] for duel in duels)}


def _rows(duels: Sequence[Duel], footnotes: Footnotes) -> list[list[str]]:
    rows, shared = [list(HEAD)], _shared(duels)
    for duel in sorted(duels, key=lambda each: ORDER.index(each.verdict)):
        judged = duel.judgement
        rows.append(
            [
                f"{duel.case} {axes_text({k: v for k, v in duel.cell.items() if k not in shared})}".strip(),
                f"{duel.verdict} {footnotes.mark(duel.reason)}".strip(),
                percent(judged.change) if judged else "",
                percent_span(judged.low, judged.high) if judged else "",
                ms(duel.a_ms),
                ms(duel.b_ms),
                f"{100 * judged.margin:.1f} %" if judged else "",
                str(judged.blocks) if judged else "",
            ]
        )
    return rows


def _ending(duels: Sequence[Duel]) -> list[str]:
    counts = Counter(duel.verdict for duel in duels)
    told = ", ".join(f"{counts[verdict]} {verdict}" for verdict in ORDER if verdict in counts)
    blocks, rounds = sum(d.blocks_dropped for d in duels), sum(d.rounds_dropped for d in duels)
    every = sum(d.rounds for d in duels)
    whole = f"{blocks} whole block{'s' if blocks != 1 else ''}"
    lost = f"dropped because something else had the core: {rounds} of {every} rounds, {whole}"
    return wrap(f"verdicts: {told or 'none'}", indent=0) + wrap(lost, indent=0)
