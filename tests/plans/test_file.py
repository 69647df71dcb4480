"""What is kept comes back, for the same machine and code; nothing that is wrong with the file stops anybody."""

from __future__ import annotations

import multiprocessing
import threading
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sparsebench import plans
from sparsebench.errors import PlansError, PlansWarning
from sparsebench.plans import Code, Tuned, store, tuned_plan
from sparsebench.problem import Problem

PROBLEM = Problem(op="linear", out_features=64, in_features=32, batch=8)
OTHER = replace(PROBLEM, batch=9)
Make = Callable[..., Any]


def test_a_plan_comes_back_for_its_backend_and_problem_alone(folder: Path, tuned: Make) -> None:
    file = store(PROBLEM, "both", {"mine": tuned(tile=4, layout="a")})
    assert file.parent == folder
    assert tuned_plan("mine", PROBLEM) == {"tile": 4, "layout": "a"}
    assert tuned_plan("mine", replace(PROBLEM, sparsity=0.905)) == {"tile": 4, "layout": "a"}
    assert tuned_plan("mine", OTHER) is None
    assert tuned_plan("other", PROBLEM) is None
    with pytest.raises(TypeError):
        tuned_plan("mine", PROBLEM)["tile"] = 2  # type: ignore[index]


def test_nothing_is_kept_to_begin_with(folder: Path) -> None:
    assert tuned_plan("mine", PROBLEM) is None
    assert plans.fastest(PROBLEM, "both") is None
    assert plans.clear() is None
    assert not folder.exists(), "reading leaves no trace"


def test_more_is_added_and_the_newest_of_one_problem_stands(folder: Path, tuned: Make, winner: Make) -> None:
    store(PROBLEM, "both", {"mine": tuned(tile=1), "other": tuned(tile=2)}, winner())
    store(PROBLEM, "forward", {"mine": tuned(tile=8)}, winner(""))
    store(OTHER, "both", {"mine": tuned(tile=3)})
    assert tuned_plan("mine", PROBLEM) == {"tile": 8}
    assert tuned_plan("other", PROBLEM) == {"tile": 2}
    assert tuned_plan("mine", OTHER) == {"tile": 3}
    both, forward = (plans.fastest(PROBLEM, passes) for passes in ("both", "forward"))
    assert both is not None and both.backend == "mine"
    assert forward is not None and forward.backend == ""


def test_the_plan_of_other_code_is_not_used(folder: Path, tuned: Make) -> None:
    store(PROBLEM, "both", {"mine": tuned(Code("sparsebench.builtin.backends._cython", "0" * 64), tile=4)})
    assert tuned_plan("mine", PROBLEM) is None
    store(PROBLEM, "both", {"mine": tuned(tile=4)})
    assert tuned_plan("mine", PROBLEM) == {"tile": 4}


def test_the_plan_of_another_machine_is_not_seen(folder: Path, tuned: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    store(PROBLEM, "both", {"mine": tuned(tile=4)})
    monkeypatch.setenv("SPARSEBENCH_ISA", "avx2")
    assert tuned_plan("mine", PROBLEM) is None
    store(PROBLEM, "both", {"mine": tuned(tile=1)})
    monkeypatch.delenv("SPARSEBENCH_ISA")
    assert tuned_plan("mine", PROBLEM) == {"tile": 4}


def test_set_to_nothing_turns_plans_off(monkeypatch: pytest.MonkeyPatch, tuned: Make) -> None:
    monkeypatch.setenv("SPARSEBENCH_PLANS", "")
    assert plans.location() is None
    assert tuned_plan("mine", PROBLEM) is None
    for work in (lambda: store(PROBLEM, "both", {"mine": tuned()}), plans.check_writable):
        with pytest.raises(PlansError, match="SPARSEBENCH_PLANS is set to nothing"):
            work()


@pytest.mark.parametrize(("cache", "place"), [("", "~/.cache"), ("relative", "~/.cache"), ("/caches", "/caches")])
def test_without_the_variable_it_is_the_cache_folder(cache: str, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SPARSEBENCH_PLANS")
    monkeypatch.setenv("XDG_CACHE_HOME", cache)
    assert plans.folder() == Path(place).expanduser() / "sparsebench" / "plans"


@pytest.mark.parametrize(
    "text",
    [b"", b"{", b"\xff\xfe", b"[]", b'{"schema": "one"}', b'{"schema": 1, "plans": 3}', b"[" * 100_000,
     b'{"schema": 1, "plans": {"mine": {"k": {"options": {"tile": [1]}}}}}'],
    ids=lambda text: repr(text[:20]),
)  # fmt: skip
def test_a_corrupt_file_is_left_aside_with_one_warning_and_written_anew(text: bytes, folder: Path, tuned: Make) -> None:
    file = store(PROBLEM, "both", {"mine": tuned(tile=4)})
    file.write_bytes(text)
    with pytest.warns(PlansWarning, match="not a file of plans .*delete it, or run `sparsebench tune` again"):
        assert tuned_plan("mine", PROBLEM) is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert tuned_plan("mine", PROBLEM) is None
        store(PROBLEM, "both", {"mine": tuned(tile=2)})
        assert tuned_plan("mine", PROBLEM) == {"tile": 2}


def test_what_a_newer_version_wrote_is_neither_read_nor_written_over(folder: Path, tuned: Make) -> None:
    file = store(PROBLEM, "both", {"mine": tuned(tile=4)})
    text = b'{"schema": 2, "plans": "quite another thing"}'
    file.write_bytes(text)
    with pytest.warns(PlansWarning, match="schema 2 is newer than 1; update sparsebench"):
        assert tuned_plan("mine", PROBLEM) is None
    with pytest.raises(PlansError, match="schema 2 is newer"):
        store(PROBLEM, "both", {"mine": tuned(tile=2)})
    assert file.read_bytes() == text


def test_a_folder_that_cannot_be_one_is_a_typed_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tuned: Make
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SPARSEBENCH_PLANS", str(tmp_path / "file"))
    assert tuned_plan("mine", PROBLEM) is None
    for work in (lambda: store(PROBLEM, "both", {"mine": tuned()}), plans.check_writable):
        with pytest.raises(PlansError, match="set SPARSEBENCH_PLANS to a folder of yours"):
            work()


def test_clear_forgets_this_machine(folder: Path, tuned: Make) -> None:
    file = store(PROBLEM, "both", {"mine": tuned(tile=4)})
    (folder / "other.json").write_text("{}")
    assert plans.clear() == file
    assert tuned_plan("mine", PROBLEM) is None
    assert (folder / "other.json").exists()


def _write_many(number: int, tuned: Tuned) -> None:
    for batch in range(1, 21):
        store(replace(PROBLEM, batch=batch, threads=number), "both", {"mine": tuned})


def test_writers_at_the_same_time_lose_nothing_and_readers_see_whole_files(folder: Path, tuned: Make) -> None:
    spawn = multiprocessing.get_context("fork")
    writers = [spawn.Process(target=_write_many, args=(number, tuned(tile=number))) for number in range(1, 5)]
    done = threading.Event()
    seen: list[str] = []

    def read() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            try:
                while not done.is_set():
                    plans.read()
            except PlansWarning as torn:
                seen.append(str(torn))

    for writer in writers:
        writer.start()
    reader = threading.Thread(target=read)
    reader.start()
    for writer in writers:
        writer.join()
    done.set()
    reader.join()
    assert seen == []
    assert [writer.exitcode for writer in writers] == [0] * 4
    assert len(plans.read().plans["mine"]) == 80
    assert list(folder.glob("*.part")) == []
