"""The exit code that the statuses of rows or checks make, the same for every verb that verifies."""

from __future__ import annotations

from collections.abc import Iterable

FAILING = {"wrong": 3, "error": 4, "crash": 4, "timeout": 4, "oom": 4}  # status -> exit code, the gravest first


def exit_code_of_statuses(statuses: Iterable[str]) -> int:
    """3 if any is wrong, else 4 if any failed, else 0: what is unsupported, skipped or contaminated fails nothing."""
    found = set(statuses)
    return next((code for status, code in FAILING.items() if status in found), 0)
