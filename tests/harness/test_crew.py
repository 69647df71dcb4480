"""The cores, the environment and the limits of workers; what a probe's answer, silence or death bars, and what not."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from sparsebench.errors import UsageError
from sparsebench.harness import crew
from sparsebench.harness.crew import available_memory, environment, worker_cores
from sparsebench.harness.plan import Plan
from sparsebench.harness.server import Failure

CASES = """
[[kernel]]
name = "layer"
op = "linear"
out_features = 8
in_features = 6
pass = ["forward", "both"]
backends = ["csr"]
[[inference]]
name = "logits"
model = "mlp"
dataset = "digits"
backends = ["csr"]
[[training]]
name = "step"
model = "mlp"
dataset = "digits"
backends = ["csr"]
"""


@pytest.mark.parametrize(
    ("allowed", "threads", "cores"),
    [
        ([0, 1], 1, ["0", "1", "0", "1"]),
        ([2, 5, 7], 1, ["2", "5", "7", "2"]),
        ([0, 1, 2, 3], 2, ["0 1", "1 2", "2 3", "0 3"]),
        ([0, 1], 4, ["0 1", "0 1", "0 1", "0 1"]),
        ([3], 1, ["3", "3", "3", "3"]),
    ],
)
def test_workers_change_their_cores_from_block_to_block(allowed: list[int], threads: int, cores: list[str]) -> None:
    assert [" ".join(map(str, worker_cores(allowed, block, threads))) for block in range(4)] == cores


def test_every_thread_runtime_is_told_the_same() -> None:
    told = environment(3)
    assert {told[name] for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")} == {"3"}
    assert told["OMP_WAIT_POLICY"] == "PASSIVE"
    assert int(told["MALLOC_TRIM_THRESHOLD_"]) > 1 << 35, "what is freed stays"
    assert all(isinstance(value, str) for value in told.values())


def test_a_worker_gets_a_share_of_what_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    free = available_memory()
    assert free > 0
    monkeypatch.setattr(crew, "memory_limit", lambda: 1 << 20)
    assert available_memory() == int(crew.MEMORY_SHARE * (1 << 20)) < free


class Crew:
    """Answers probes as a script says: order kind -> answers, or a failure."""

    def __init__(self, script: Mapping[str, Any]) -> None:
        self.script = script
        self.asked: list[str] = []
        self.dismissed: list[str] = []

    def order(self, cell: Any, variant: str) -> dict[str, Any]:
        return {"kind": cell.kind}

    def ask(self, variant: str, request: Mapping[str, Any]) -> dict[str, Any]:
        (kind,) = {order["kind"] for order in request["orders"]}
        self.asked.append(kind)
        answer = self.script.get(kind, {"status": "ok"})
        if isinstance(answer, Failure):
            raise answer
        return {"answers": [answer] * len(request["orders"])}

    def dismiss(self, variant: str) -> None:
        self.dismissed.append(variant)


@pytest.fixture
def barred(planned: Callable[..., Plan]) -> Callable[..., dict[str, str]]:
    """Asks what `csr` can do; what is barred, in short."""

    def ask(**script: Any) -> dict[str, str]:
        plan, workers = planned(CASES), Crew(script)
        crew._probe_one(plan, workers, "csr", plan.cells)  # type: ignore[arg-type]
        assert workers.dismissed[-1] == "csr", "a probe worker measures nothing"
        names = {cell.key: f"{cell.case.name} {cell.axes.get('pass', '')}".strip() for cell in plan.cells}
        return {names[key]: ": ".join(why) for (key, _), why in plan.barred.items()}

    return ask


Barred = Callable[..., dict[str, str]]


def test_what_can_be_done_is_not_barred(barred: Barred) -> None:
    assert barred() == {}


def test_an_honest_no_is_a_row_with_its_reason(barred: Barred) -> None:
    no = {"status": "unsupported", "reason": "not on a Monday"}
    assert barred(inference=no) == {"logits": "unsupported: not on a Monday"}
    assert barred(kernel=no) == dict.fromkeys(("layer forward", "layer both"), "unsupported: not on a Monday")


def test_data_that_is_not_here_is_skipped(barred: Barred) -> None:
    assert barred(training={"status": "skipped", "reason": "get it there"}) == {"step": "skipped: get it there"}


def test_who_hangs_over_a_kernel_is_not_asked_about_models(barred: Barred) -> None:
    assert set(barred(kernel=Failure("timeout", "load did not end")).values()) == {"timeout: load did not end"}
    assert len(barred(kernel=Failure("crash", "killed"))) == 4


def test_who_hangs_over_a_model_may_still_compute_kernels(barred: Barred) -> None:
    assert barred(training=Failure("timeout", "probe did not end")) == {"step": "timeout: probe did not end"}


def test_a_case_that_asks_for_what_cannot_be_ends_the_plan(barred: Barred) -> None:
    with pytest.raises(UsageError, match="mine: case 'logits': digits does not fit"):
        barred(inference={"status": "usage", "reason": "digits does not fit"})


def test_the_parent_gets_its_cores_back_if_the_server_does_not_start(
    planned: Callable[..., Plan], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = os.sched_getaffinity(0)

    def fails(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(crew, "Server", fails)
    with pytest.raises(KeyboardInterrupt), crew.Crew(planned(CASES), tmp_path, 0, 1):
        pass
    assert os.sched_getaffinity(0) == before
