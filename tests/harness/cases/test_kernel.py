"""A kernel case judges in the precision of its dtype, and looks again at the very memory that was timed."""

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from torch import Tensor

from sparsebench.discovery import Source
from sparsebench.errors import PluginError, ProblemError
from sparsebench.harness.cases import kernel
from sparsebench.harness.cases.base import Order
from sparsebench.plugin import BackendSpec, PluginInfo
from sparsebench.registry import Entry
from sparsebench.testing.honest import HonestBackend, HonestKernel

SPEC = BackendSpec(name="any", summary="any", load="here:Any", ops=("linear",), dtypes=("float32", "float64"))
CASE = {"op": "linear", "out_features": 24, "in_features": 40, "batch": 8, "sparsity": 0.7, "bias": True,
        "pass": "both", "threads": 1, "seed": 0}  # fmt: skip


@pytest.fixture
def order(tmp_path: Path) -> Any:
    def make(**change: Any) -> Order:
        made = Order("kernel", CASE | change, {"backend": Entry(SPEC, PluginInfo(name="any"), Source("any"))},
                     tmp_path / "oracle.pt", "group")  # fmt: skip
        kernel.write_oracle(made, made.oracle)
        return made

    return make


class ComputesInFloat32(HonestKernel):
    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        return super().forward(x.float().to(x.dtype), bias)


@pytest.mark.parametrize(("dtype", "ok"), [("float32", True), ("float64", False)])
def test_float64_computed_in_float32_is_wrong(order: Any, dtype: str, ok: bool) -> None:
    job = kernel.make(order(dtype=dtype), HonestBackend(ComputesInFloat32))
    assert job.verify().ok == ok
    assert kernel.make(order(dtype=dtype), HonestBackend()).verify().ok


class TurnsLazy(HonestKernel):
    """Right until it is timed; from then on it returns what it remembers of the same memory in the same version."""

    lazy = False

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        key = [(one.data_ptr(), one._version) for one in (x, bias) if one is not None]
        if not self.lazy or key != getattr(self, "key", None):
            self.key, self.known = key, super().forward(x, bias)
        return self.known.clone()


def test_what_was_remembered_while_it_was_timed_is_seen_afterwards(order: Any) -> None:
    made = order()
    job = kernel.make(made, HonestBackend(TurnsLazy))
    assert job.verify().ok
    job.kernels[0].lazy = True
    job.prepare(made.parameters)
    for _ in range(3):
        job.run()
        assert job.inspect().ok
    assert "forward is off" in (job.recheck().reason or "")
    job.kernels[0].lazy = False
    assert job.recheck().ok


def test_samples_have_places_in_memory_in_turn_each_looked_at(order: Any) -> None:
    made = order()
    job = kernel.make(made, HonestBackend(GivesUp))
    job.prepare(made.parameters)
    assert job.spread()
    assert len({place.x.data_ptr() for place in job.places}) == len(set(job.kernels)) == kernel.PLACES
    job.kernels[2].gone = True
    found = []
    for _ in range(2 * kernel.PLACES):
        job.run()
        found.append(job.inspect().ok)
    assert found == [True, True, False, True] * 2


@pytest.mark.parametrize("laps", [2, 4, 13])
def test_what_the_place_that_was_timed_last_remembers_is_seen_afterwards(order: Any, laps: int) -> None:
    made = order()
    job = kernel.make(made, HonestBackend(TurnsLazy))
    job.prepare(made.parameters)
    assert job.spread()
    job.kernels[(laps - 1) % kernel.PLACES].lazy = True
    for _ in range(laps):
        job.run()
        assert job.inspect().ok
    assert "forward is off" in (job.recheck().reason or "")
    assert len(job.kernels) == len(job.places) == 1, "what is left for the next pass"


class SlowAtFirst(HonestBackend):
    """Does something once, as a race between layouts; or every time."""

    def __init__(self, clock: Any, seconds: Sequence[float]) -> None:
        super().__init__()
        self.clock, self.seconds = clock, iter(seconds)

    def bind(self, problem: Any, weight: Any) -> Any:
        self.clock.now += int(1e9 * next(self.seconds, 0.001))
        return super().bind(problem, weight)


@pytest.mark.parametrize(
    ("seconds", "tried", "places"), [([0.5], True, kernel.PLACES), ([0.5, 0.5], True, 1), ([1.5], False, 1)]
)
def test_what_is_done_once_in_a_process_does_not_count(
    order: Any, monkeypatch: pytest.MonkeyPatch, seconds: list[float], tried: bool, places: int
) -> None:
    clock = SimpleNamespace(now=0, perf_counter_ns=lambda: clock.now)
    monkeypatch.setattr(kernel, "time", clock)
    made = order()
    job = kernel.make(made, SlowAtFirst(clock, seconds))
    job.prepare(made.parameters)
    assert (job.spread(), len(job.places), len(job.kernels)) == (tried, places, places)


def test_what_is_large_has_one_place(order: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "SPREAD_BYTES", 100)
    made = order()
    job = kernel.make(made, HonestBackend())
    job.prepare(made.parameters)
    assert not job.spread() and len(job.places) == len(job.kernels) == 1


class GivesUp(HonestKernel):
    """Returns no gradients while it is timed."""

    gone = False

    def backward(self, *args: Any, **named: Any) -> Any:
        return (None, None) if self.gone else super().backward(*args, **named)


@pytest.mark.parametrize("which", ["backward", "both", "grad_weight"])
def test_a_result_that_does_not_come_is_wrong(order: Any, which: str) -> None:
    made = order()
    job = kernel.make(made, HonestBackend(GivesUp))
    assert job.verify().ok
    job.prepare(CASE | {"pass": which})
    job.run()
    assert job.inspect().ok
    job.kernels[0].gone = True
    job.run()
    finding = job.inspect()
    assert not finding.ok
    assert "None instead of a tensor" in str(finding.reason)


class Blames(HonestBackend):
    """Raises what means that the case is impossible."""

    def unsupported(self, problem: Any) -> str | None:
        raise ProblemError("I did not like it")


def test_an_error_about_the_case_from_a_plugin_is_the_plugins(order: Any) -> None:
    with pytest.raises(PluginError, match="unsupported\\(\\) raised ProblemError: I did not like it"):
        kernel.unsupported(order(), Blames())


def test_a_pattern_file_of_another_shape_is_the_cases_fault(order: Any, tmp_path: Path) -> None:
    file = tmp_path / "small.smtx"
    file.write_text("2, 3, 2\n0 1 2\n0 2\n")
    made = order()
    case = Order("kernel", CASE | {"pattern": f"file:{file}", "sparsity": 0.6667}, made.entries, made.oracle, "group")
    with pytest.raises(ProblemError, match=r"small\.smtx"):
        kernel.unsupported(case, HonestBackend())


class GoesWrong(HonestKernel):
    """Right until it has been right often enough to be believed; it writes into one memory, as kernels may."""

    spoil: float | None = None

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        self.memory = getattr(self, "memory", None)
        result = super().forward(x, bias)
        if self.memory is None or self.memory.shape != result.shape:
            self.memory = result.clone()
        self.memory.copy_(result)
        if self.spoil is not None:
            self.memory[0, 0] = self.spoil
        return self.memory


@pytest.mark.parametrize("spoil", [1e3, float("nan")])
def test_what_was_right_is_looked_at_again_once_it_differs(order: Any, spoil: float) -> None:
    made = order(**{"pass": "forward"})
    job = kernel.make(made, HonestBackend(GoesWrong))
    job.prepare(made.parameters)
    compared = []
    for _ in range(3):
        job.run()
        compared.append(job.inspect())
    assert compared[0].ok
    assert compared[2] is compared[0], "bit for bit the same: not compared again"
    job.kernels[0].spoil = spoil
    job.run()
    assert not job.inspect().ok
    assert not job.inspect().ok, "what is wrong is not kept as a proof"
    job.kernels[0].spoil = None
    job.run()
    assert job.inspect().ok
