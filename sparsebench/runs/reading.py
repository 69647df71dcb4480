"""Reading the two files of a run folder: a head with the shape that its readers rely on, and the good lines."""

from __future__ import annotations

import contextlib
from collections import Counter
from pathlib import Path
from typing import Annotated, Any, Generic, NamedTuple, TypeVar

import msgspec

from sparsebench.errors import RunError
from sparsebench.runs.blocks import timeless_rounds
from sparsebench.runs.records import SCHEMA, Ceilings, Level, RunInfo, Timing, cell_key

INFO = "run.json"
# Of what is not as it must be, of bytes that are no text, and of tables nested deeper than any that was written.
UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)

T = TypeVar("T", bound=Timing)
_encode = msgspec.json.Encoder().encode


class _Head(msgspec.Struct):
    """The part of `run.json` that every schema has."""

    schema: int


class _Suite(msgspec.Struct):
    name: str
    text: str = ""
    sha256: str = ""


class _Ceilings(Ceilings, frozen=True, kw_only=True):
    levels: Annotated[tuple[Level, ...], msgspec.Meta(min_length=1)]


class _Host(msgspec.Struct):
    fingerprint: dict[str, Any]
    volatile: dict[str, Any] = {}
    ceilings: list[_Ceilings] = []


class _Shards(msgspec.Struct):
    merged: list[str] = []
    missing: list[int] = []
    of: int = 0


class _Options(msgspec.Struct):
    selection: dict[str, Any] = {}
    shards: _Shards = msgspec.field(default_factory=_Shards)
    ab: tuple[str, str] = ("", "")


class _Axes(msgspec.Struct):
    threads: int = 1
    sparsity: float | bool = 0.0
    speedup: float | bool = 0.0


class _Cell(msgspec.Struct):
    cell: _Axes
    margin: Annotated[float, msgspec.Meta(ge=0.0)] = 0.0


class _Shapes(msgspec.Struct):
    """What `RunInfo` leaves open, for it may grow without a new schema, and every reader nevertheless relies on."""

    suite: _Suite
    host: _Host
    options: _Options = msgspec.field(default_factory=_Options)
    cells: list[_Cell] = []


def read_info(folder: Path) -> RunInfo:
    """The head of a run folder; RunError if there is none that can be read."""
    file = folder / INFO
    try:
        data = file.read_bytes()
    except FileNotFoundError:
        if not folder.exists():
            raise RunError(f"{folder}: no such run; give the folder that a run printed at its end") from None
        with contextlib.suppress(PermissionError):  # some folders may be entered and not listed
            if folder.is_dir() and not any(folder.iterdir()):
                raise RunError(f"{folder}: an empty folder, not a run; give the folder that holds {INFO}") from None
        raise RunError(f"{folder}: no {INFO} in it, so not a run; give the folder that holds {INFO}") from None
    except OSError as error:
        raise RunError(f"{file}: cannot be read ({error.strerror}); give a folder that holds {INFO}") from None
    try:
        schema = msgspec.json.decode(data, type=_Head).schema
        if schema > SCHEMA:
            raise RunError(f"{file}: schema {schema} is newer than {SCHEMA}, the newest known here; update sparsebench")
        info = msgspec.json.decode(data, type=RunInfo)
        msgspec.json.decode(data, type=_Shapes)
        keys = [cell_key(each.case, each.cell) for each in info.cells]
    except UNREADABLE as error:
        raise RunError(f"{file}: not the head of a run ({error}); restore it or run again") from None
    if len(keys) > len(set(keys)):
        twice = next(key for key, count in Counter(keys).items() if count > 1)
        raise RunError(f"{file}: not the head of a run ({twice} is in it twice); restore it or run again")
    return info


class _Known(NamedTuple, Generic[T]):
    """A cell that a line was of."""

    key: str
    case: str
    cell: dict[str, Any]
    variants: dict[str, tuple[str, dict[int, T]]]  # name -> the name that all samples share, and the row's blocks


class Lines(Generic[T]):
    """The good lines of a samples file, and what was wrong with the others.

    Samples of one cell share their table of axes and their strings: a third of the memory of a large run.
    """

    def __init__(self) -> None:
        self.samples: list[T] = []  # in the order written
        self.rows: dict[tuple[str, str], dict[int, T]] = {}  # the same by (cell key, variant), then by block
        self.problems: list[str] = []
        self._cells: dict[bytes, _Known[T]] = {}
        self._names: dict[str, str] = {}

    def add(self, sample: T) -> bool:
        """Take a sample in, unless there is one of its block already."""
        written = _encode((sample.case, sample.cell))  # as text, for 1 is not 1.0 in a key
        known = self._cells.get(written)
        if known is None:
            known = self._cells[written] = _Known(cell_key(sample.case, sample.cell), sample.case, sample.cell, {})
        key, sample.case, sample.cell, variants = known
        place = variants.get(sample.variant)
        if place is None:
            name = self._names.setdefault(sample.variant, sample.variant)
            place = variants[name] = name, self.rows.setdefault((key, name), {})
        sample.variant, blocks = place
        if blocks.setdefault(sample.block, sample) is not sample:
            return False
        self.samples.append(sample)
        return True


def read_samples(file: Path, kind: type[T]) -> Lines[T]:
    """Read a samples file as records of a kind."""
    decode = msgspec.json.Decoder(kind).decode
    lines = Lines[T]()
    backwards = Counter[str]()
    try:
        with file.open("rb") as opened:
            for number, line in enumerate(opened, start=1):
                if not line.endswith(b"\n"):
                    lines.problems.append(f"{file.name} line {number}: torn (no end of line), skipped")
                    break
                try:
                    sample = decode(line)
                    is_new = lines.add(sample)
                except UNREADABLE as error:
                    lines.problems.append(f"{file.name} line {number}: corrupt, skipped ({error})")
                    continue
                if not is_new:
                    what = f"block {sample.block} of {sample.variant} in {cell_key(sample.case, sample.cell)}"
                    lines.problems.append(f"{file.name} line {number}: {what} is there already; the first stands")
                elif sample.t_ns and min(sample.t_ns) <= 0:
                    backwards[sample.variant] += len(timeless := timeless_rounds(sample))
                    sample.dropped = sorted({*sample.dropped, *timeless})
    except FileNotFoundError:
        lines.problems.append(f"{file.name} is not there: what was measured is gone, or nothing was")
        return lines
    except OSError as error:
        raise RunError(f"{file}: cannot be read ({error.strerror}); check its permissions") from None
    if backwards:
        who = ", ".join(f"{count} of {variant}" for variant, count in backwards.items())
        told = f"{file.name}: a clock went backwards or stood still: rounds without a time, left out: {who}"
        lines.problems.append(told)
    return lines
