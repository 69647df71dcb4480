"""What the verbs share that a CI job acts on: verdicts that fail it, files written first, GitHub's summary."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from sparsebench.errors import UsageError, nearest


def fail_on_option(verdicts: Sequence[str], default: Iterable[str]) -> Callable[[Any], Any]:
    """`--fail-on VERDICTS` as a frozenset; nothing for "none"."""

    def parsed(_ctx: click.Context, _param: click.Parameter, text: str) -> frozenset[str]:
        names = [] if text == "none" else [name.strip() for name in text.split(",")]
        for name in names:
            if name not in verdicts:
                raise UsageError(f"--fail-on {name!r} is not a verdict{nearest(name, (*verdicts, 'none'))}")
        return frozenset(names)

    return click.option(
        "--fail-on", callback=parsed, metavar="VERDICTS", show_default=True,
        default=",".join(verdict for verdict in verdicts if verdict in set(default)),
        help=f"Of {', '.join(verdicts)}; or none.",
    )  # fmt: skip


def save_option(endings: Mapping[str, str]) -> Callable[[Any], Any]:
    """`--save FILE`, as often as wanted: pairs of a path and the format that its ending means."""

    def parsed(_ctx: click.Context, _param: click.Parameter, paths: tuple[Path, ...]) -> list[tuple[Path, str]]:
        for path in paths:
            if path.suffix not in endings:
                raise UsageError(f"--save {path}: give a name that ends in {', '.join(endings)}, which says the format")
            _check_place(path)
        return [(path, endings[path.suffix]) for path in paths]

    return click.option(
        "--save", "files", multiple=True, callback=parsed, metavar="FILE", type=click.Path(path_type=Path),
        help=f"Write it there as well: {', '.join(endings)}.",
    )  # fmt: skip


def _check_place(path: Path) -> None:
    """Refuse what could not be written, before there is anything to write."""
    there = next(place for place in (path, *path.absolute().parents) if place.exists())
    if there == path:
        able = path.is_file() and os.access(path, os.W_OK)
    else:
        able = there.is_dir() and os.access(there, os.W_OK | os.X_OK)
    if not able:
        raise UsageError(f"--save {path}: {there} cannot be written to; give another place")


def write_files(files: Iterable[tuple[Path, str]], render: Callable[[str], str]) -> None:
    """What was asked to be kept; `render` gives the text of a format. Before the exit code, and before any output."""
    for path, form in files:
        text = render(form)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        except OSError as error:
            raise UsageError(f"--save {path}: cannot be written ({error.strerror}); give another place") from None


def tell_github(summary: str, commands: Iterable[str]) -> None:
    """The summary into the step's own file, or on stdout where there is none; then the annotations."""
    file = os.environ.get("GITHUB_STEP_SUMMARY")
    if file:
        with Path(file).open("a") as out:
            out.write(summary)
    click.echo(summary.splitlines()[0].lstrip("# ") if file else summary)
    for line in commands:
        click.echo(line)
