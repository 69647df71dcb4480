"""backend="auto": only what is right and faster than the best dense layout replaces a layer."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
import torch
from torch import nn

from sparsebench import host, plans, timing
from sparsebench.errors import ProblemError
from sparsebench.nn import choose, problem_of, sparse_layers, sparsify, tuning
from sparsebench.nn.backends import BackendHandle
from sparsebench.nn.capture import Seen
from sparsebench.nn.choose import layer_problems
from sparsebench.nn.tuning import Tuner
from sparsebench.plans import Code, Fastest, code_of


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Races of one round, with times that a test may set by name instead of the clock's."""
    given: dict[str, float] = {}
    monkeypatch.setattr(timing, "warm", lambda run, least_ns=0: (run(), 1e6)[1])

    def race(runs, rounds=5, target_ns=0):
        race.called.append(list(runs))
        for run in runs.values():
            run()
        return {name: given.get(name, 100.0) for name in runs}

    race.called = []
    monkeypatch.setattr(timing, "race", race)
    given["race"] = race
    return given


def named(backend, name):
    handle = BackendHandle(backend)
    handle.name = name
    return handle


def best(module, shape, *handles, mask=None):
    seen = Seen(tuple(shape), channels_last=False)
    return Tuner(handles).best(module, mask, problem_of(module, shape), seen)


@pytest.mark.parametrize("training", [True, False])
def test_the_fastest_wins(training, quick, make_backend, prune):
    module = prune(nn.Conv2d(4, 8, 3)).train(training)
    a, b = make_backend(), make_backend(saving=True)
    quick.update({"a": 80.0, "b": 50.0})
    handle, reason, times = best(module, (2, 4, 8, 8), named(a, "a"), named(b, "b"))
    assert handle.name == "b"
    assert "2.00 times as fast" in reason
    assert set(times) == {"dense", "dense channels-last", "a", "b"}
    assert any("backward" in call for call in a.calls) == training


def test_it_must_beat_the_better_dense_layout_by_more_than_the_noise(quick, backend, prune):
    module = prune(nn.Conv2d(4, 8, 3))
    quick.update({"dense": 200.0, "dense channels-last": 100.0, "a": 98.0})
    handle, reason, _ = best(module, (2, 4, 8, 8), named(backend, "a"))
    assert handle is None
    assert "1.02 times as fast" in reason
    quick["a"] = 90.0
    assert best(module, (2, 4, 8, 8), named(backend, "a"))[0] is not None


@pytest.mark.parametrize("fault", ["forward", "grad_input", "grad_values"])
def test_a_wrong_backend_is_never_timed(fault, quick, make_backend, prune):
    module = prune(nn.Linear(16, 6))
    quick["bad"] = 1.0
    handle, reason, _ = best(module, (3, 16), named(make_backend(fault=fault), "bad"))
    assert handle is None
    assert "bad is wrong" in reason
    assert quick["race"].called == []


def test_refusals_failures_and_dense_kernels_are_said(quick, make_backend, prune):
    class Broken:
        def unsupported(self, problem):
            return None

        def bind(self, problem, weight):
            raise ValueError("no such luck")

    module = prune(nn.Linear(16, 6))
    handles = [
        named(make_backend(refuses="not mine"), "a"),
        named(Broken(), "b"),
        named(make_backend(dense_grad=True), "c"),
    ]
    handle, reason, _ = best(module, (3, 16), *handles)
    assert handle is None
    assert "a cannot: not mine" in reason
    assert "b failed: ValueError: no such luck" in reason
    assert "c keeps a dense weight" in reason


def test_each_problem_is_measured_once(quick, backend, prune, monkeypatch):
    monkeypatch.setattr(tuning, "float32_backends", lambda: [named(backend, "a")])
    quick["a"] = 10.0
    model = nn.Sequential(*(nn.Linear(16, 16) for _ in range(3)), nn.Linear(16, 4))
    mask = torch.zeros(16, 16, dtype=torch.bool)
    mask[:4] = True
    masks = {"0": mask, "1": mask.flip(0), "2": mask, "3": mask[:4].flip(0)}
    state, random = {k: v.clone() for k, v in model.state_dict().items()}, torch.get_rng_state()
    choose(model, example_input=torch.zeros(2, 16), masks=masks, min_sparsity=0)
    assert len(quick["race"].called) == 2
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    sparsify(model, example_input=torch.zeros(2, 16), masks=masks)
    assert list(sparse_layers(model)) == ["0", "1", "2"]
    assert torch.equal(model[1].mask(), masks["1"])


def test_frozen_layers_and_other_dtypes_can_be_measured(quick, backend, prune):
    module = prune(nn.Linear(16, 6, bias=False)).double()
    module.weight.requires_grad_(False)
    quick["a"] = 10.0
    assert best(module, (3, 16), named(backend, "a"))[0] is not None
    assert not module.weight.requires_grad


def test_with_the_real_clock(monkeypatch, make_backend, prune):
    monkeypatch.undo()

    class Slow:
        def unsupported(self, problem):
            return None

        def bind(self, problem, weight):
            kernel = make_backend().bind(problem, weight)
            forward = kernel.forward
            kernel.forward = lambda *args: (time.sleep(0.02), forward(*args))[1]
            return kernel

    module = prune(nn.Linear(16, 6)).eval()
    handle, reason, _ = best(module, (3, 16), named(Slow(), "slow"))
    assert handle is None
    assert "slow is over 2 times slower" in reason
    handle, reason, times = best(module, (3, 16), named(make_backend(), "same"))
    assert handle is None  # it scatters the values into a dense weight at every call
    assert all(time_ns > 0 for time_ns in times.values())


CYTHON, CSR = "sparsebench.builtin.backends._cython", "sparsebench.builtin.backends._torch_csr"
CODES = {"cython": code_of(CYTHON), "torch-csr": code_of(CSR)}


@pytest.fixture
def tuned(tmp_path, monkeypatch):
    """Keeps who was fastest for a pruned linear layer 16 -> 6 at batch 3, then asks; and what was raced meanwhile."""
    monkeypatch.setenv("SPARSEBENCH_PLANS", str(tmp_path))
    monkeypatch.setattr(tuning, "float32_backends", lambda: [BackendHandle("cython"), BackendHandle("torch-csr")])
    module = nn.Linear(16, 6)
    mask = torch.zeros(6, 16, dtype=torch.bool)
    mask[:, :2] = True

    def ask(backend="cython", winner="", passes="both", training=True, channels_last=False, **changes):
        problem = problem_of(module, (3, 16), sparsity=0.875)
        times = {"dense": 100.0, "cython": 50.0, "torch-csr": 70.0}
        kept = Fastest(
            backend=backend, winner=winner or backend, times_ns=times, codes=CODES,
            torch=host.libraries()["torch"], made="2026-11-21T01:02:03+00:00",
        )  # fmt: skip
        plans.store(problem, passes, {}, plans.Fastest(**{**kept_fields(kept), **changes}))
        seen = Seen((3, 16), channels_last)
        return Tuner().best(module.train(training), mask, problem, seen)

    return ask


def kept_fields(kept):
    return {name: getattr(kept, name) for name in kept.__struct_fields__}


def test_what_was_tuned_need_not_be_measured(tuned, quick):
    handle, reason, times = tuned()
    assert handle.name == "cython"
    assert reason == "cython is 2.00 times as fast as the dense layer, as tuned 2026-11-21"
    assert times["torch-csr"] == 70.0
    assert quick["race"].called == []


def test_that_dense_was_fastest_need_not_be_measured(tuned, quick):
    handle, reason, _ = tuned(backend="")
    assert handle is None
    assert reason == "no backend is faster than the dense layer, as tuned 2026-11-21"
    assert quick["race"].called == []


@pytest.mark.parametrize(
    "change",
    [
        {"passes": "forward"},
        {"training": False},
        {"channels_last": True},
        {"torch": "0.4"},
        {"codes": {"cython": code_of(CYTHON)}},
        {"codes": {**CODES, "torch-csr": Code(CSR, "0" * 64)}},
        {"codes": {**CODES, "cython": Code(CYTHON, "")}},
        {"backend": "gone", "codes": {**CODES, "gone": Code("gone", "1" * 64)}, "times_ns": {"dense": 2, "gone": 1}},
        {"winner": "cython@tile=4"},
    ],
    ids=["another pass", "another mode", "channels-last", "another torch", "a backend came later", "its code changed",
         "its code is unknown", "it is gone", "its plan is gone"],
)  # fmt: skip
def test_what_no_longer_holds_is_measured_again(change, tuned, monkeypatch):
    measured = (None, "measured", {})
    monkeypatch.setattr(Tuner, "_measure", lambda *_: measured)
    assert tuned(**change) == measured
    assert tuned() != measured


def test_a_tuner_over_given_backends_asks_nobody(tuned, quick, backend, prune):
    tuned()
    module = prune(nn.Linear(16, 6), 0.875)
    best(module, (3, 16), named(backend, "a"))
    assert quick["race"].called == [["dense", "a"]]


def test_the_problems_of_a_models_layers(net):
    found = layer_problems(net, torch.zeros(2, 3, 8, 8), 0.75, "uniform", 2)
    assert list(found) == [("conv1",), ("conv2",), ("fc",)]
    assert found["fc",] == replace(problem_of(net.fc, (2, 72)), sparsity=0.75, threads=2)
    found = layer_problems(net, torch.zeros(2, 3, 8, 8), 0.5, "nm:2:4", 1)
    assert "groups of 4" in found["conv1",]
    with pytest.raises(ProblemError):
        problem_of(net.conv1, (2, 3, 8, 8), 0.5, 1, "nm:2:4")
