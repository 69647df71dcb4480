"""Reading the two files of a run folder: a head with the shape that its readers rely on, and the good lines."""

from __future__ import annotations

import contextlib
from collections import Counter
from pathlib import Path
from typing import Annotated, Any, TypeVar

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
        twice = [key for key, count in Counter(cell_key(c.case, c.cell) for c in info.cells).items() if count > 1]
    except UNREADABLE as error:
        raise RunError(f"{file}: not the head of a run ({error}); restore it or run again") from None
    if twice:
        raise RunError(f"{file}: not the head of a run ({twice[0]} is in it twice); restore it or run again")
    return info


def read_samples(file: Path, kind: type[T]) -> tuple[list[T], list[str]]:
    """The good lines of a samples file, and what was wrong with the others."""
    decode = msgspec.json.Decoder(kind).decode
    samples: list[T] = []
    problems: list[str] = []
    seen: dict[tuple[str, str, int], int] = {}
    shared = _Shared()
    backwards = Counter[str]()
    try:
        with file.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                if not line.endswith(b"\n"):
                    problems.append(f"{file.name} line {number}: torn (no end of line), skipped")
                    break
                try:
                    sample = decode(line)
                    key = shared.key_of(sample)
                except UNREADABLE as error:
                    problems.append(f"{file.name} line {number}: corrupt, skipped ({error})")
                    continue
                first = seen.setdefault((key, sample.variant, sample.block), number)
                if first == number:
                    samples.append(sample)
                    if sample.t_ns and min(sample.t_ns) <= 0:
                        backwards[sample.variant] += len(timeless := timeless_rounds(sample))
                        sample.dropped = sorted({*sample.dropped, *timeless})
                else:
                    problems.append(
                        f"{file.name} line {number}: {sample.variant} in {key}, block {sample.block}, "
                        f"is there already; line {first} stands"
                    )
    except FileNotFoundError:
        return [], []
    except OSError as error:
        raise RunError(f"{file}: cannot be read ({error.strerror}); check its permissions") from None
    if backwards:
        who = ", ".join(f"{count} of {variant}" for variant, count in backwards.items())
        problems.append(f"{file.name}: a clock went backwards or stood still: rounds without a time, left out: {who}")
    return samples, problems


class _Shared:
    """Samples of one cell share their table of axes and their strings: a third of the memory of a large run."""

    def __init__(self) -> None:
        self.cells: dict[bytes, tuple[str, str, dict[str, Any]]] = {}
        self.names: dict[str, str] = {}

    def key_of(self, sample: Timing) -> str:
        """The sample's cell key; the sample gets the parts that an earlier one brought."""
        sample.variant = self.names.setdefault(sample.variant, sample.variant)
        written = _encode((sample.case, sample.cell))  # as text, for 1 is not 1.0 in a key
        known = self.cells.get(written)
        if known is None:
            known = self.cells[written] = cell_key(sample.case, sample.cell), sample.case, sample.cell
        key, sample.case, sample.cell = known
        return key
