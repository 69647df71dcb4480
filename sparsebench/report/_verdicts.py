"""A comparison of two runs in words: what is listed first, how each row reads, and the verdicts counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from sparsebench.report import _layout
from sparsebench.report._grid import fit
from sparsebench.report._layout import Footnotes, axes_text, common_words, unsaid, where_and_when
from sparsebench.report._numbers import ms, percent, percent_span, plain
from sparsebench.runs.compare import Change, Comparison
from sparsebench.runs.verdicts import ALPHA
from sparsebench.wrapping import wrap

ORDER = (
    "wrong", "failed", "missing", "slower", "faster", "fixed", "new", "not judged",
    "inconclusive", "same", "unchanged", "anchor",
)  # fmt: skip
QUIET = frozenset({"same", "unchanged", "anchor", "inconclusive", "not judged"})  # no news
REASONS = 10  # by which those are counted
ANCHORED = "change: head against base, each divided by the baseline of its own block; times are not so divided"
HEAD = ("variant", "base", "head", "change", f"{100 * (1 - ALPHA):g} % interval", "verdict")


def comparison_table(comparison: Comparison) -> str:
    """The comparison for a terminal, 100 columns wide."""
    lines = [line for text in heading_lines(comparison) for line in wrap(text, indent=0)]
    footnotes = Footnotes()
    quiet = [row for row in comparison.rows if row.verdict in QUIET] if len(comparison.rows) > _layout.LISTED else []
    for case, rows in by_case(comparison).items():
        listed = [row for row in rows if row.verdict not in QUIET] if quiet else rows
        if listed:
            lines += ["", *wrap(case_heading(case, rows), indent=0)]
            full = change_table(listed, footnotes)
            times = {full[0].index(name) for name in ("base", "head")}
            lines += fit([full, [[text for i, text in enumerate(row) if i not in times] for row in full]])
    lines += ["", *footnotes.lines(), *_not_listed(quiet), *wrap(counted(comparison), indent=0)]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _not_listed(rows: Sequence[Change]) -> list[str]:
    """What a long comparison leaves out, counted by verdict and reason."""
    if not rows:
        return []
    reasons = Counter(f"{row.verdict}: {row.reason}" if row.reason else row.verdict for row in rows).most_common()
    told = [f"{count} {why}" for why, count in reasons[:REASONS]]
    others = sum(count for _, count in reasons[REASONS:])
    told += [f"{others} for other reasons"] if others else []
    first = f"not listed, {len(rows)} of the rows (--format markdown or --save FILE.json has them all):"
    return [*wrap(first, indent=0), *(line for text in told for line in wrap(text))]


def heading_lines(comparison: Comparison) -> list[str]:
    """Which two runs, and what stands between them."""
    return [
        f"base: {where_and_when(comparison.base)} · {comparison.base_path}",
        f"head: {where_and_when(comparison.head)} · {comparison.head_path}",
        *([ANCHORED] if comparison.anchored else []),
        *comparison.notes,
    ]


def by_case(comparison: Comparison) -> dict[str, list[Change]]:
    """Case -> its rows, the gravest verdict first; the case with the gravest verdict first."""
    rows = sorted(comparison.rows, key=lambda row: ORDER.index(row.verdict))
    cases: dict[str, list[Change]] = {}
    for row in rows:
        cases.setdefault(row.case, []).append(row)
    return cases


def case_heading(case: str, rows: Sequence[Change]) -> str:
    """The case, what its rows have in common, and the axes in which they do not differ."""
    title = common_words([row.title for row in rows])
    differing = _axes(rows)
    shared = {axis: value for axis, value in rows[0].cell.items() if axis not in differing}
    return ", ".join(filter(None, (f"{case}: {title}", axes_text(unsaid(shared, title)))))


def change_table(rows: Sequence[Change], footnotes: Footnotes) -> list[list[str]]:
    """Head and rows of one case."""
    axes = _axes(rows)
    return [[*_first(", ".join(axes), axes), *HEAD], *(_cells(row, axes, footnotes) for row in rows)]


def _first(text: str, axes: Sequence[str]) -> list[str]:
    """The column that tells cells apart; of one cell alone there is none."""
    return [text] if axes else []


def _axes(rows: Sequence[Change]) -> list[str]:
    """The axes that the rows of a case differ in."""
    first: dict[str, object] = {}
    differing: dict[str, bool] = {}
    for row in rows:
        for axis, value in row.cell.items():
            differing[axis] = differing.get(axis, False) or first.setdefault(axis, value) != value
    return [axis for axis, differs in differing.items() if differs]


def _cells(row: Change, axes: Sequence[str], footnotes: Footnotes) -> list[str]:
    return [
        *_first(", ".join(plain(row.cell.get(axis, "")) for axis in axes), axes),
        row.variant,
        ms(row.base_ms) or row.base_status,
        ms(row.head_ms) or row.head_status,
        percent(row.change),
        percent_span(row.low, row.high),
        f"{row.verdict} {footnotes.mark(row.reason)}".strip(),
    ]


def counted(comparison: Comparison) -> str:
    """ "2 slower, 30 same", gravest first."""
    counts = comparison.counts()
    said: Sequence[str] = [f"{counts[verdict]} {verdict}" for verdict in ORDER if verdict in counts]
    return f"verdicts: {', '.join(said) or 'none, nothing to compare'}"
