"""What a kernel's numbers mean: every row with its GFLOP/s, peers and ceilings; from which sparsity on it pays."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from sparsebench.report._grid import fit
from sparsebench.report._layout import BEST, Footnotes, Panel, axis_text, failure_mark, winner_mark
from sparsebench.report._numbers import digits, ms, plain, ratio, ratio_span, span
from sparsebench.runs.break_even import BreakEven
from sparsebench.runs.records import Ceilings, RunInfo
from sparsebench.runs.roofline import ceilings_of
from sparsebench.runs.summary import Row


def detailed(info: RunInfo) -> bool:
    """Whether the suite wants every number of its kernels in the terminal's tables."""
    return bool(info.suite.get("details"))


def detail_table(panel: Panel, names: Mapping[str, str], footnotes: Footnotes) -> list[str]:
    """A line for each value of the panel's axis and variant; `names` is how variants are written."""

    def build(ranges: bool) -> list[list[str]]:
        head = [f"{panel.axis}, variant", "time", "ratio", "to peer", "useful", "dense-eq.", "of ceiling"]
        rows = [
            (f"{plain(column)} {names[variant]}", columns[column])
            for column in panel.columns
            for variant, columns in panel.rows.items()
            if column in columns
        ]
        return [head, *([name, *_numbers(row, footnotes, ranges)] for name, row in rows)]

    return fit([build(True), build(False)])


def _numbers(row: Row, footnotes: Footnotes, ranges: bool) -> list[str]:
    if row.ms is None:
        return [failure_mark(row, footnotes)]
    return [
        f"{ms(row.ms)}{winner_mark(row)} {span(row.ms_low, row.ms_high) if ranges else ''}".strip(),
        f"{ratio(row.ratio)} {ratio_span(row.ratio_low, row.ratio_high) if ranges else ''}".strip(),
        ratio(row.peer_ratio),
        digits(row.useful_gflops) if row.useful_gflops else "",
        digits(row.dense_gflops) if row.dense_gflops else "",
        ceiling_text(row),
    ]


def ceiling_text(row: Row) -> str:
    """ "41 % FMA": the share of the ceiling, and what sets it."""
    return "" if row.ceiling_share is None else f"{row.ceiling_share * 100:.0f} % {row.ceiling_bound}"


def break_even_text(found: Iterable[BreakEven], baseline: str) -> str:
    """ "faster than torch-dense from sparsity: cython 0.83, mkl < 0.8; sparseprop: none up to 0.99"; or nothing."""
    told = [f"{each.variant} {each.text()}" for each in found]
    return f"faster than {baseline} from sparsity: {', '.join(told)}" if told else ""


def of_case(found: Iterable[BreakEven], case: str, axes: Mapping[str, Any]) -> list[BreakEven]:
    """Those of one panel."""
    return [each for each in found if each.case == case and each.axes == axes]


def of_means(found: Iterable[BreakEven], kind: str, group: str, axes: Mapping[str, Any]) -> list[BreakEven]:
    """Those of one table of geometric means."""
    return [each for each in found if not each.case and (each.kind, each.group, each.axes) == (kind, group, axes)]


def detail_legend(info: RunInfo) -> str:
    """What the columns of `detail_table` mean."""
    used = {variant for cell in info.cells for variant in cell.variants}
    peers = [variant for variant in info.peers if variant in used]
    among = f"the fastest of {', '.join(peers)} there is 1.00x" if peers else "no peer in this run"
    return (
        f"{BEST} = fastest. to peer: {among}. useful, dense-eq.: GFLOP/s of the kept weights, of all. of ceiling: "
        "share of the useful GFLOP/s that the machine allows, by multiply-adds (FMA) or by reading from that level."
    )


def ceiling_lines(info: RunInfo) -> list[str]:
    """The ceilings measured at the run's beginning, a line for each number of threads; or why there are none."""
    error = str(info.host.get("ceilings_error", ""))
    return [error] if error else [_ceiling_line(each) for each in ceilings_of(info)]


def _ceiling_line(each: Ceilings) -> str:
    levels = ", ".join(f"{level.name} {digits(level.gb_s)}" for level in each.levels)
    return f"ceilings, {axis_text('threads', each.threads)}: {digits(each.gflops)} GFLOP/s ({each.isa}); {levels} GB/s"
