"""Fork servers ahead of their time: two are started at once, each serves one block, none is left behind."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest

from sparsebench.errors import RunError
from sparsebench.harness import spares
from sparsebench.harness.spares import Spares


class Server:
    """Starts at once, unless it is told to fail."""

    made: list[Server]
    fails = False

    def __init__(self, environment: Mapping[str, str], preload: Sequence[str] = (), python: str = "") -> None:
        self.python, self.dead, self.closed = python, False, False
        Server.made.append(self)

    def ready(self) -> Server:
        if Server.fails:
            raise RunError("the fork server did not start")
        return self

    def lost(self) -> bool:
        return self.dead

    def close(self) -> None:
        self.closed = True


@pytest.fixture(autouse=True)
def pretend(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(spares, "Server", Server)
    monkeypatch.setattr(spares, "cores_allowed", lambda: [0, 1])
    Server.made, Server.fails = [], False
    yield
    Server.fails = False


def test_two_are_started_at_once_and_each_serves_once() -> None:
    with Spares() as pool:
        taken: list[Any] = [pool.take({"A": "1"}) for _ in range(4)]
        assert taken == Server.made
        fifth = pool.take({"A": "1"})
    assert [server.closed for server in Server.made] == [False] * 5 + [True], "the last was nobody's"
    assert fifth is Server.made[4]


def test_a_spare_serves_only_what_it_was_started_for() -> None:
    with Spares() as pool:
        pool.take({"A": "1"})
        assert pool.take({"A": "2"}) is Server.made[2]
        assert pool.take({"A": "1"}, python="other") is Server.made[4]
        assert pool.take({"A": "1"}) is Server.made[1]


def test_a_spare_that_was_killed_meanwhile_is_not_given_to_anybody() -> None:
    with Spares() as pool:
        pool.take({})
        Server.made[1].dead = True
        assert pool.take({}) is Server.made[2]
        assert Server.made[1].closed


def test_where_there_is_one_core_nothing_is_started_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spares, "cores_allowed", lambda: [0])
    with Spares() as pool:
        pool.take({})
    assert len(Server.made) == 1


def test_if_one_does_not_start_neither_is_left() -> None:
    Server.fails = True
    with Spares() as pool, pytest.raises(RunError):
        pool.take({})
    assert all(server.closed for server in Server.made)
