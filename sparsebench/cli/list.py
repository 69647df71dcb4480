"""`sparsebench list`: what is installed and what is missing, without importing any of it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from sparsebench.cli.quarantine import say_quarantined
from sparsebench.errors import UsageError, nearest
from sparsebench.registry import Entry, Registry, load_registry
from sparsebench.wrapping import WIDTH

if TYPE_CHECKING:
    from sparsebench.harness.suite import Suite

PADDING = 2  # tabulate makes a column this much wider than its heading
Row = dict[str, Any]
COLUMNS: dict[str, tuple[str, ...]] = {  # kind -> the keys shown; --json gives all of them
    "backends": ("name", "ops", "precision", "missing", "summary"),
    "methods": ("name", "kind", "parameters", "source", "summary"),
    "allocators": ("name", "source", "summary"),
    "models": ("name", "inputs", "summary"),
    "datasets": ("name", "classes", "licence", "summary"),
    "suites": ("name", "cases", "summary"),
    "plugins": ("name", "version", "offers", "status", "error"),
}
PAGE_COLUMNS: dict[str, tuple[str, ...]] = {  # of --markdown, which has room
    "methods": ("name", "kind", "summary", "parameters", "source", "proof", "cost"),
}
NEXT = {
    "backends": "sparsebench check NAME, or run suite-smoke --backend NAME",
    "suites": "sparsebench run NAME --dry-run",
    "methods": "sparsebench check NAME, or run suite-smoke --method NAME (parameters: NAME@key=value)",
    "plugins": "sparsebench new backend NAME",
}
EPILOG = """\
\b
Examples:
  sparsebench list backends
  sparsebench list suites --json
  sparsebench list plugins --plugin my_kernel.py

Next: sparsebench run suite-smoke
"""


def _kind(_ctx: click.Context, _param: click.Parameter, value: str) -> str:
    if value not in COLUMNS:
        raise UsageError(f"list {value!r}: there is no such list{nearest(value, COLUMNS)}")
    return value


@click.command("list", epilog=EPILOG)
@click.argument("kind", metavar="|".join(COLUMNS), callback=_kind)
@click.option("--json", "as_json", is_flag=True, help="An array of objects, each with `name`.")
@click.option("--markdown", "as_markdown", is_flag=True, help="A table for a page; of methods with proof and cost.")
@click.option("--plugin", "files", multiple=True, metavar="FILE", type=click.Path(path_type=Path),
              help="Also look into this Python file.")  # fmt: skip
def command(kind: str, as_json: bool, as_markdown: bool, files: tuple[Path, ...]) -> None:
    """Show which backends, methods, allocators, models, data sets, suites or plugins are here.

    Nothing that is listed gets imported: what is missing is read from what each plugin says it needs.
    """
    rows = suites() if kind == "suites" else _found(kind, files)
    if as_json:
        click.echo(json.dumps(rows, indent=2, default=_plain))
    elif as_markdown:
        click.echo(markdown(rows, PAGE_COLUMNS.get(kind, COLUMNS[kind])))
    else:
        click.echo(table(rows, COLUMNS[kind]))
        click.echo(f"\nNext: {NEXT.get(kind, f'sparsebench list {kind} --json')}")


def _found(kind: str, files: tuple[Path, ...]) -> list[Row]:
    registry = load_registry(files)
    say_quarantined(registry)
    if kind == "plugins":
        return plugins(registry)
    entries: Mapping[str, Entry] = getattr(registry, kind)
    return [_row(name, entry) for name, entry in entries.items()]


def _row(name: str, entry: Entry) -> Row:
    spec = msgspec.to_builtins(entry.spec)
    return {**spec, "name": name, "missing": entry.missing(), "note": entry.note, "plugin": entry.plugin.name}


def plugins(registry: Registry) -> list[Row]:
    """Every plugin module with how much it offers, the quarantined ones with their error."""
    offered: dict[str, Counter[str]] = {}
    for kind in ("backends", "methods", "allocators", "models", "datasets"):
        for entry in getattr(registry, kind).values():
            offered.setdefault(entry.plugin.name, Counter())[kind] += 1
    return [
        {
            **msgspec.to_builtins(info),
            "status": info.status,  # records leave out what has its default
            "offers": _counted(offered.get(info.name, {})),
        }
        for info in registry.plugins
    ]


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {kind[:-1] if count == 1 else kind}" for kind, count in counts.items())


def suites() -> list[Row]:
    """The suites that ship with the package: name, summary, cases of each kind."""
    from sparsebench.harness.suite import load_suite, suite_names

    return [_suite(name, load_suite(name)) for name in suite_names()]


def _suite(name: str, suite: Suite) -> Row:
    counts = Counter(case.kind for case in suite.cases)
    cases = ", ".join(f"{count} {kind}" for kind, count in counts.items())
    return {"name": name, "summary": suite.summary, "cases": cases}


def table(rows: list[Row], columns: tuple[str, ...]) -> str:
    """A table of `WIDTH` columns at most: the widest text columns are wrapped."""
    from tabulate import tabulate

    if not rows:
        return "nothing found"
    cells = [[_text(row.get(column)) for column in columns] for row in rows]
    widths = _widths(cells, columns)
    return tabulate(cells, [*columns], tablefmt="simple", maxcolwidths=widths, disable_numparse=True)


def markdown(rows: list[Row], columns: tuple[str, ...]) -> str:
    """The same as a table for a page: names as code, a row on one line."""
    cells = [[_cell(column, row.get(column)) for column in columns] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in ([*columns], ["---"] * len(columns), *cells))


def _cell(column: str, value: object) -> str:
    text = _text(value).replace("|", "\\|")
    return f"`{text}`" if text and column in ("name", "parameters") else text


def _widths(cells: list[list[str]], columns: tuple[str, ...]) -> list[int | None]:
    """How wide each column may be: the widest gives way first, until the table fits."""
    widths = [max(len(columns[i]) + PADDING, *(len(row[i]) for row in cells)) for i in range(len(columns))]
    while sum(widths) + 2 * (len(widths) - 1) > WIDTH:
        widths[widths.index(max(widths))] -= 1
    return [*widths]


def _text(value: object) -> str:
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value))
    if isinstance(value, dict):  # as it is written behind a name: true, not True
        return ", ".join(f"{key}={json.dumps(each)}" for key, each in value.items())
    return "" if value is None else str(value)


def _plain(value: object) -> object:
    return sorted(value) if isinstance(value, (set, frozenset)) else str(value)
