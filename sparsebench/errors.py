"""Errors that a person can act on: each says what, where and what to do, and ends in one line without a traceback."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class SparsebenchError(Exception):
    """Base of every error raised on purpose; `exit_code` is what the command line exits with."""

    exit_code = 2


class UsageError(SparsebenchError):
    """A name, key or value that the user gave cannot be used."""


class ProblemError(UsageError, ValueError):
    """A problem that cannot exist: an impossible shape, or a sparsity outside [0, 1)."""


class PluginError(SparsebenchError):
    """A plugin did not import, validate or answer."""


class RunError(SparsebenchError):
    """A run folder cannot be read, resumed or written."""


class PlansError(SparsebenchError):
    """Plans cannot be kept, or what is kept cannot be read; the message names the file or folder."""


class PlansWarning(UserWarning):
    """Kept plans are not used, for a reason that a person can mend."""


class DatasetMissing(SparsebenchError):
    """A data set is not on this machine; the message says how to get it."""


class DatasetCorrupt(SparsebenchError):
    """A file of a data set is there but cannot be read; the message names it."""


class CheckpointError(UsageError):
    """A checkpoint cannot be read, or does not fit the model; the message names the file."""


class BudgetError(UsageError):
    """No masks can meet a sparsity: nothing may be pruned, or a layer would be left empty."""


class InvariantError(PluginError):
    """A method or a plugin broke a rule that holds for all of them; `invariant` is the rule's name."""

    def __init__(self, invariant: str, message: str) -> None:
        super().__init__(f"{message} (invariant {invariant!r})")
        self.invariant = invariant


class TrainingError(SparsebenchError):
    """Training cannot go on: the loss is not finite."""


class UnsupportedError(SparsebenchError):
    """A backend said that it cannot do a problem; `str()` is its reason."""


def nearest(name: str, known: Iterable[str], count: int = 3, most: int = 40) -> str:
    """The known names closest to a misspelt one, as the end of an error message ('' if there are none).

    None is close: then `most` of what is known.
    """
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=count, cutoff=0.5)
    if close:
        return f"; did you mean {' or '.join(repr(c) for c in close)}?"
    more = f" and {len(known) - most} more" if len(known) > most else ""
    return f"; known: {', '.join(known[:most])}{more}" if known else ""
