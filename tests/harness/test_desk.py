"""What a worker answers when `tune` asks: the plans of a backend, a first look at one, or in one sentence why not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from sparsebench.harness.cases import kernel
from sparsebench.harness.cases.base import Order
from sparsebench.harness.desk import Desk
from sparsebench.plans import code_of
from sparsebench.plugin import BackendSpec, PluginInfo
from sparsebench.registry import Entry, Source
from sparsebench.testing.honest import HonestBackend, HonestKernel

PARAMETERS = {
    "op": "linear", "out_features": 8, "in_features": 6, "batch": 4, "sparsity": 0.5, "pass": "both", "threads": 1,
    "seed": 0,
}  # fmt: skip
MODULE = "sparsebench.builtin.backends._cython"
ENTRY = Entry(
    BackendSpec(name="mine", summary="", load=f"{MODULE}:Mine", ops=("linear",)),
    PluginInfo(name="mine"),
    Source("mine"),
)


class Offering(HonestBackend):
    """Offers what it is told to."""

    def __init__(self, plans: object, kernel: Any = HonestKernel) -> None:
        super().__init__(kernel)
        self.plans = lambda problem: plans


class Wrong(HonestKernel):
    def forward(self, x: Any, bias: Any = None) -> Any:
        return -super().forward(x, bias)


Ask = Callable[..., Any]


@pytest.fixture
def ask(tmp_path: Path) -> Ask:
    """Asks a desk about one linear problem."""
    oracle = tmp_path / "oracle.pt"
    kernel.write_oracle(Order("kernel", PARAMETERS, {}, oracle, "g"), oracle)

    def request(backend: Any, do: str, op: str = "linear", **more: Any) -> Any:
        desk = Desk()
        desk.entries, desk.backend = {"backend": ENTRY}, backend
        order = {"kind": "kernel", "parameters": {**PARAMETERS, "op": op}, "entries": {}, "oracle": str(oracle)}
        return desk.answer({"do": do, "order": {**order, "group": "g"}, **more})

    return request


def test_plans_come_with_the_hash_of_the_code(ask: Ask) -> None:
    code = code_of(MODULE)
    assert ask(Offering([{"tile": 4, "layout": "a"}, {}]), "plans") == {
        "plans": [{"tile": 4, "layout": "a"}, {}],
        "code": {"module": MODULE, "sha256": code.sha256},
        "dense": False,
    }
    assert ask(HonestBackend(), "plans")["plans"] == [], "it has no `plans`, and need not"


def test_a_dense_backend_says_so(ask: Ask) -> None:
    backend = Offering([])
    backend.dense = True  # type: ignore[attr-defined]
    assert ask(backend, "plans")["dense"] is True


@pytest.mark.parametrize(
    ("plans", "reason"),
    [
        (None, "plans() returned NoneType; it must return a list of plans"),
        ({"tile": 4}, "plans() returned dict; it must return a list of plans"),
        ([3], "plans() gave 3; a plan maps names of options to text or whole numbers"),
        ([{"tile": 4.5}], "plans() gave {'tile': 4.5}; a plan maps"),
        ([{4: "tile"}], "plans() gave {4: 'tile'}; a plan maps"),
        ([{"tile": [1]}], "plans() gave {'tile': [1]}; a plan maps"),
    ],
)
def test_what_is_no_list_of_plans_is_an_error_that_says_what_it_must_be(ask: Ask, plans: object, reason: str) -> None:
    answer = ask(Offering(plans), "plans")
    assert answer["failed"] == "error"
    assert answer["reason"].startswith(reason)


def test_a_problem_that_it_cannot_do_is_unsupported(ask: Ask) -> None:
    for do in ("plans", "glance"):
        answer = ask(HonestBackend(), do, op="conv2d", patience_ns=1e9)
        assert answer == {"failed": "unsupported", "reason": "mine does linear, not conv2d"}


def test_a_glance_takes_the_time_and_looks_at_the_result(ask: Ask) -> None:
    assert ask(HonestBackend(), "glance", patience_ns=1e9)["each_ns"] > 0
    answer = ask(HonestBackend(Wrong), "glance", patience_ns=1e9)
    assert answer["failed"] == "wrong"
    assert answer["reason"].startswith("forward is off by")


@pytest.mark.parametrize("told", [True, False])
def test_memory_of_further_places_is_not_the_variants(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: bool
) -> None:
    """And what a job takes without saying so is."""
    hoard = []

    def spread(job: kernel.KernelJob) -> bool:
        hoard.append(torch.ones(1 << 24))
        return told

    monkeypatch.setattr(kernel.KernelJob, "spread", spread)
    oracle = tmp_path / "oracle.pt"
    kernel.write_oracle(Order("kernel", PARAMETERS, {}, oracle, "g"), oracle)
    desk = Desk()
    desk.entries, desk.backend = {"backend": ENTRY}, HonestBackend()
    order = {"kind": "kernel", "parameters": PARAMETERS, "entries": {}, "oracle": str(oracle), "group": "g"}
    assert desk.answer({"do": "prepare", "order": order, "once": False})["each_ns"] > 0
    peak = desk.answer({"do": "finish"})["rss_peak"]
    assert (peak < 1 << 25) == told, f"{peak / 2**20:.0f} MiB"
