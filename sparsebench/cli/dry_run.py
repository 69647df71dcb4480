"""What a run would do, row by row, and why it would not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from sparsebench.wrapping import beside, wrap

if TYPE_CHECKING:
    from sparsebench.harness.cells import Cell
    from sparsebench.harness.plan import Plan


def render(plan: Plan, what: str) -> str:
    """Every cell with the variants that would run in it, and those that would not with the number of their reason."""
    reasons: dict[str, int] = {}
    lines: list[str] = []
    for name in dict.fromkeys(cell.case.name for cell in plan.cells):
        cells = [cell for cell in plan.cells if cell.case.name == name]
        blocks = cells[0].case.blocks
        title = f"{name} ({cells[0].kind}, {blocks} block{'s' if blocks > 1 else ''}): {_what(cells[0])}"
        lines += ["", *wrap(title, indent=0)]
        lines += [line for cell in cells for line in _cell(plan, cell, reasons)]
    for reason, number in reasons.items():
        lines += [""] if number == 1 else []
        lines += wrap(f"[{number}] {reason}", indent=0)
    rows = sum(len(names) for names in plan.variants.values())
    running = sum(len(plan.running(cell)) for cell in plan.cells)
    lines += ["", f"{rows} rows, {running} would run.", f"Next: sparsebench run {what}"]
    return "\n".join(lines).lstrip("\n")


def _what(cell: Cell) -> str:
    return cell.title.rpartition(", ")[0] if cell.problem is not None else cell.title


def _cell(plan: Plan, cell: Cell, reasons: dict[str, int]) -> Iterator[str]:
    axes = " ".join(f"{key}={value}" for key, value in cell.axes.items())
    names = []
    for variant in plan.variants[cell.key]:
        barred = plan.barred.get((cell.key, variant))
        if barred is None:
            names.append(variant)
        else:
            number = reasons.setdefault(": ".join(barred), len(reasons) + 1)
            names.append(f"({variant}\N{NO-BREAK SPACE}[{number}])")
    yield from beside(f"  {axes:<40} ", ", ".join(names), hang=43)
