"""A run folder: `run.json`, written once, and `samples.jsonl`, to which lines are only added."""

from __future__ import annotations

import contextlib
import fcntl
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from sparsebench.errors import RunError
from sparsebench.runs.blocks import Rows, by_row
from sparsebench.runs.reading import INFO, Lines, read_info, read_samples
from sparsebench.runs.records import RunInfo, Sample, Timing

SAMPLES, LOCK = "samples.jsonl", "lock"


@dataclass(frozen=True)
class Timings:
    """Of a run what a comparison needs: its head, its times in the order written, and what was wrong with the file."""

    info: RunInfo
    samples: tuple[Timing, ...]
    problems: tuple[str, ...]
    path: Path

    @cached_property
    def rows(self) -> Rows[Timing]:
        """The samples by what they are of."""
        return by_row(self.samples)


@dataclass(frozen=True)
class Run(Timings):
    """A run as read, whole."""

    samples: tuple[Sample, ...]

    @cached_property
    def rows(self) -> Rows[Sample]:
        """The samples by what they are of."""
        return by_row(self.samples)


R = TypeVar("R", bound=Timings)
_encode = msgspec.json.Encoder().encode


def read_run(path: str | Path) -> Run:
    """Read a run folder, or one of the two files in it.

    Lines that are torn, corrupt or double are skipped and named in `problems`; a folder without a readable
    `run.json`, or one of a newer schema, is a RunError.
    """
    folder = _folder(path)
    info = read_info(folder)
    lines = read_samples(folder / SAMPLES, Sample)
    return _with_rows(Run(info, tuple(lines.samples), tuple(lines.problems), folder), lines)


def read_timings(path: str | Path) -> Timings:
    """The same in half the memory and less time, for who looks at times alone; the other fields are not checked."""
    folder = _folder(path)
    info = read_info(folder)
    lines = read_samples(folder / SAMPLES, Timing)
    return _with_rows(Timings(info, tuple(lines.samples), tuple(lines.problems), folder), lines)


def _with_rows(run: R, lines: Lines[Any]) -> R:
    vars(run)["rows"] = lines.rows  # what the property would find: of a large run that takes a while
    return run


def _folder(path: str | Path) -> Path:
    path = Path(path)
    return path.parent if path.name in (INFO, SAMPLES) else path


class RunWriter:
    """The one process that writes a run. It holds an exclusive lock on the folder until `close` or its death.

    `run` is what was there when the writer began, `session` the number for new samples. A context manager.
    """

    def __init__(self, folder: Path, lock: int, run: Run) -> None:
        self.folder = folder
        self.run = run
        self.info = run.info
        self.problems = run.problems
        self.session = 1 + max((s.session for s in run.samples), default=-1)
        self._lock = lock
        self._file = os.open(folder / SAMPLES, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    @classmethod
    def create(cls, folder: str | Path, info: RunInfo) -> RunWriter:
        """Begin a run in a folder that does not hold one yet (it is made if need be)."""
        folder = Path(folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"{folder}: cannot be made ({error.strerror}); give another --out") from None
        lock = _take_lock(folder)
        try:
            for name in (INFO, SAMPLES):
                if (folder / name).exists():
                    raise RunError(f"{folder}: holds a run already; go on with it by --resume, or give another --out")
            write_atomically(folder / INFO, msgspec.json.format(_encode(info), indent=2) + b"\n")
            return cls(folder, lock, Run(info, (), (), folder))
        except BaseException:
            os.close(lock)
            raise

    @classmethod
    def resume(cls, folder: str | Path) -> RunWriter:
        """Go on with a run. A torn last line is cut off and named in `problems`; complete lines stay."""
        folder = Path(folder)
        read_info(folder)
        lock = _take_lock(folder)
        try:
            run = read_run(folder)
            _cut_torn_line(folder / SAMPLES)
            return cls(folder, lock, run)
        except BaseException:
            os.close(lock)
            raise

    def append(self, samples: Sequence[Sample]) -> None:
        """Add samples: one write of whole lines, on the disk when this returns."""
        if not samples:
            return
        data = b"".join(_encode(finite(sample)) + b"\n" for sample in samples)
        size = os.fstat(self._file).st_size
        written, why = 0, "the disk took only a part"
        try:
            written = os.write(self._file, data)
            os.fsync(self._file)
        except OSError as error:
            written, why = -1, error.strerror or str(error)
        if written != len(data):
            os.ftruncate(self._file, size)  # all of a block or nothing: no reader sees half a line
            raise RunError(f"{self.folder / SAMPLES}: cannot be written ({why}); make room, then --resume")

    def close(self) -> None:
        """Let go of the folder; closing twice is fine."""
        if self._file >= 0:
            os.close(self._file)
            os.close(self._lock)
            self._file = self._lock = -1

    def __enter__(self) -> RunWriter:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def finite(sample: Sample) -> Sample:
    """The sample as JSON can hold it: NaN and infinity leave their table and are told in `note`."""
    changes: dict[str, dict[str, float]] = {}
    told = [sample.note] if sample.note else []
    for name in ("metrics", "verify", "splits_ns"):
        table: dict[str, float] = getattr(sample, name)
        odd = {key: value for key, value in table.items() if not math.isfinite(value)}
        if odd:
            changes[name] = {key: value for key, value in table.items() if key not in odd}
            told += [f"{key} is {value}" for key, value in odd.items()]
    return msgspec.structs.replace(sample, note="; ".join(told), **changes) if changes else sample


def write_atomically(file: Path, data: bytes) -> None:
    """Write a file so that a reader, or a crash, meets the old one or the new one and nothing between."""
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        with draft.open("wb") as out:
            out.write(data)
            out.flush()
            os.fsync(out.fileno())
        draft.replace(file)
        _sync_folder(file.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            draft.unlink()
        raise RunError(f"{file}: cannot be written ({error.strerror}); make room or give another --out") from None


def _sync_folder(folder: Path) -> None:
    """The name of a new file is on the disk only once its folder is."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _take_lock(folder: Path) -> int:
    """The descriptor of the folder's lock; it goes with the process, so a killed run leaves none."""
    try:
        lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise RunError(f"{folder}: cannot be written ({error.strerror}); give another --out") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        holder = os.pread(lock, 32, 0).decode(errors="replace").strip() or "unknown"
        os.close(lock)
        raise RunError(f"{folder}: process {holder} is writing this run; wait for it or end it") from None
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
    return lock


def _cut_torn_line(file: Path) -> None:
    """Take off what follows the last end of line; the bytes before it are not touched."""
    if not file.exists():
        return
    with file.open("r+b") as torn:
        data = torn.read()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            torn.truncate(whole)
            os.fsync(torn.fileno())
