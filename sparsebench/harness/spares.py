"""Fork servers ahead of their time: a block needs one, and to import torch takes longer than many a block's work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sparsebench.harness.server import Server
from sparsebench.host import cores_allowed

Kind = tuple[tuple[tuple[str, str], ...], tuple[str, ...], str]


class Spares:
    """Starts two servers at once where there are two cores, and keeps the second, which idles, for the next block.

    Each serves one block, so that what a fresh process draws by lot (the places of libraries in memory) is drawn for
    every block anew. A context manager: on leaving, what nobody took is closed.
    """

    def __init__(self) -> None:
        self.waiting: dict[Kind, Server] = {}

    def take(self, environment: Mapping[str, str], preload: Sequence[str] = (), python: str = "") -> Server:
        """A server that is ready and has forked nobody yet; raises `RunError` if none can be started."""
        kind = tuple(sorted(environment.items())), tuple(preload), python
        spare = self.waiting.pop(kind, None)
        if spare is not None and not spare.lost():
            return spare
        if spare is not None:
            spare.close()
        first = Server(environment, preload, python)
        ahead = Server(environment, preload, python) if len(cores_allowed()) > 1 else None
        try:
            first.ready()
            if ahead is not None:
                self.waiting[kind] = ahead.ready()  # both, before anything is timed
        except BaseException:
            first.close()
            if ahead is not None:
                ahead.close()
            raise
        return first

    def close(self) -> None:
        """End those that were not taken."""
        for spare in self.waiting.values():
            spare.close()
        self.waiting.clear()

    def __enter__(self) -> Spares:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
