"""Cases over text: a language model in inference, training and under methods; a wrong kernel is found there too."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from sparsebench.builtin.datasets._toy_text import nats_per_character
from sparsebench.builtin.models._gpt import GPT
from sparsebench.errors import UsageError
from sparsebench.harness.cases import accuracy, inference, training
from sparsebench.harness.cases.base import Order
from sparsebench.harness.layers import layers_of
from sparsebench.nn.layer import SparseLayer
from sparsebench.plugin import BackendSpec, ModelSpec, PluginInfo
from sparsebench.registry import Entry, Source
from sparsebench.testing.honest import HonestBackend, HonestKernel
from sparsebench.training.checkpoints import save_checkpoint

MakeOrder = Callable[..., Order]
Train = Callable[[Order], Any]
LAYERS, EXAMPLES = 2 * 4 + 1, 4
BACKEND = Entry(
    BackendSpec(name="tested", summary="", load="a:b", ops=("linear",)), PluginInfo(name="tested"), Source("a")
)


class Tiny(Entry):
    """The GPT with two blocks of width 16, for texts of 32 tokens."""

    def load(self) -> Any:
        return partial(GPT, width=16, depth=2, heads=2)


class WrongForward(HonestKernel):
    def forward(self, *args: Any, **rest: Any) -> Any:
        return -super().forward(*args, **rest)


class WrongGradInput(HonestKernel):
    def backward(self, *args: Any, **rest: Any) -> Any:
        grad_input, grad_values = super().backward(*args, **rest)
        return None if grad_input is None else -grad_input, grad_values


@pytest.fixture
def text_order(order_of: MakeOrder) -> MakeOrder:
    """Orders as `order_of` gives them, of a tiny GPT on toy text."""
    spec = ModelSpec(name="tiny-gpt", summary="", load="a:b", inputs="tokens:32")
    tiny = Tiny(spec, PluginInfo(name="tiny-gpt"), Source("a"))

    def make(method: Any = "magnitude", kind: str = "accuracy", **changes: Any) -> Order:
        given = {"dataset": "toy-text", "batch": 32, "lr": 0.01, "optimizer": "adamw", "epochs": 1, **changes}
        order = order_of(method, kind, **given)
        return replace(order, entries={**order.entries, "model": tiny})

    return make


def timed(order: Order, module: Any, backend: Any) -> Any:
    order = replace(order, entries={**order.entries, "backend": BACKEND})
    module.write_oracle(order, order.oracle)
    return module.make(order, backend)


@pytest.mark.parametrize("module", [inference, training], ids=["inference", "training"])
def test_an_honest_backend_is_right_and_runs_every_layer(text_order: MakeOrder, module: Any) -> None:
    order = text_order("static", batch=EXAMPLES, sparsity=0.8)
    parameters = {key: value for key, value in order.parameters.items() if key not in ("epochs", "lr", "optimizer")}
    order = replace(order, parameters={**parameters, "allocator": "uniform"})
    job = timed(order, module, HonestBackend())
    found = job.verify()
    assert found.ok, found.reason
    job.prepare(order.parameters)
    for _ in range(2):
        job.run()
        assert job.inspect().ok
    assert job.recheck().ok
    sparse = [layer for layer in job.model.modules() if isinstance(layer, SparseLayer)]
    assert len(sparse) == LAYERS - 2, "uniform keeps the first and the last layer dense"
    assert not any("NCHW" in job.note or "channels" in job.note for _ in job.note), "text has no layouts to race"


@pytest.mark.parametrize("kernel", [WrongForward, WrongGradInput])
@pytest.mark.parametrize("module", [inference, training], ids=["inference", "training"])
def test_a_wrong_kernel_is_found(text_order: MakeOrder, module: Any, kernel: Any) -> None:
    job = timed(text_order("static", batch=EXAMPLES, sparsity=0.8), module, HonestBackend(kernel))
    assert not job.verify().ok


def test_the_dense_layers_of_a_baseline_are_not_raced_in_layouts(text_order: MakeOrder) -> None:
    class Dense(HonestBackend):
        dense = True

    order = text_order("static", batch=EXAMPLES)
    job = timed(order, inference, Dense())
    job.prepare(order.parameters)
    job.run()
    assert job.inspect().ok
    assert (job.note, job.inputs.shape) == ("", (EXAMPLES, 32))


def test_a_checkpoint_has_its_perplexity_beside_its_accuracy(text_order: MakeOrder, tmp_path: Path) -> None:
    save_checkpoint(Tiny.load(None)(num_classes=29, in_channels=32).state_dict(), tmp_path / "a.safetensors")  # type: ignore[arg-type]
    order = text_order("static", batch=EXAMPLES, checkpoint=str(tmp_path / "a.safetensors"))
    job = timed(order, inference, HonestBackend())
    job.prepare(order.parameters)
    metrics = job.scores()[1]
    assert {*metrics} == {"accuracy", "test_loss", "perplexity", "sparsity"}
    assert metrics["perplexity"] == pytest.approx(29, rel=0.05), "it knows nothing"


@pytest.mark.parametrize("kind", ["accuracy", "time-to-accuracy"])
def test_a_method_trains_it_on_kernels_as_it_does_masked(text_order: MakeOrder, trained: Train, kind: str) -> None:
    jobs = [trained(text_order("static", kind, goal=0.2, sparsity=0.6, **on)) for on in ({}, {"backend": "honest"})]
    metrics = []
    for job in jobs:
        assert job.inspect().ok
        metrics.append(job.scores()[1])
    assert metrics[1]["test_loss"] == pytest.approx(metrics[0]["test_loss"], rel=0.01)
    assert jobs[1].kernels.swaps == LAYERS - 2
    for each in metrics:
        assert nats_per_character() < each["test_loss"] < 2.9, "it has learnt the letters, and cannot know more than is"
        assert each["perplexity"] == pytest.approx(2.718281828 ** each["test_loss"], rel=1e-6)
        assert each["sparsity_flops"] == pytest.approx(each["sparsity"]), "every layer is used at every token"
    assert jobs[0].layout == "nchw" if kind == "time-to-accuracy" else not hasattr(jobs[0], "layout")


def test_images_into_a_language_model_are_refused_before_any_training(text_order: MakeOrder) -> None:
    with pytest.raises(UsageError, match="digits is no text and the model takes tokens:32"):
        accuracy.unsupported(text_order(dataset="digits"), None)


def test_the_layers_of_a_language_model_are_found_for_tuning(text_order: MakeOrder) -> None:
    entry = text_order().entries["model"]
    found = layers_of(entry, (4, 32), 29, sparsity=0.9, pattern="uniform", threads=1)
    assert [each["names"][0] for each in found][:4] == ["blocks.0.qkv", "blocks.0.proj", "blocks.0.fc1", "blocks.0.fc2"]
    assert len(found) == LAYERS
    assert {each["problem"]["batch"] for each in found} == {4 * 32}
    with pytest.raises(UsageError, match="--input 4x32x2: tiny-gpt takes BATCHxLENGTH"):
        layers_of(entry, (4, 32, 2), 29, sparsity=0.9, pattern="uniform", threads=1)
