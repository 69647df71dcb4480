"""What inference and training cases share: a seeded, pruned model, its sparse twin over a backend, and the dense truth.

The truth is the dense masked model in float64: logits in eval mode, and for training logits and gradients in train
mode, each for two sets of weights, so that a kernel that keeps old values is caught.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sparsebench.errors import DatasetMissing, PluginError, UnsupportedError, UsageError
from sparsebench.harness.cases.base import Order
from sparsebench.harness.cases.observing import Truth, change_weights, observe, slack_of
from sparsebench.nn import choose, sparse_layers, sparsify
from sparsebench.nn.backends import BackendHandle
from sparsebench.pruning.fixed import fixed_masks
from sparsebench.pruning.masks import apply_masks, prunable
from sparsebench.timing import race, warm
from sparsebench.training.checkpoints import find_checkpoint, load_checkpoint
from sparsebench.training.data import Examples, Splits, availability, data_root, load_splits
from sparsebench.training.normalise import normalised
from sparsebench.verify import Finding, compare_models, poisoned_memory

LAYOUTS = ("nchw", "channels-last")
SLOW_NS = 3e8
FEW = 8  # examples of the second comparison, which is about values, not about shapes


@dataclass
class Subject:
    """A pruned model and the data it meets; `masks` by parameter name, `batch` the first training examples."""

    model: nn.Module
    masks: dict[str, Tensor]
    splits: Splits
    batch: Examples


def build_dense(order: Order) -> tuple[nn.Module, Splits]:
    """The dense model of an order, the same in every process, and its data."""
    p, entries = order.parameters, order.entries
    splits, in_channels = load_splits(entries["dataset"], entries["model"].spec.inputs)
    splits = normalised(splits, str(p.get("normalise", "none")))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(p["seed"]))
        model = entries["model"].load()(num_classes=entries["dataset"].spec.classes, in_channels=in_channels)
    if "checkpoint" in p:
        load_checkpoint(model, find_checkpoint(str(p["checkpoint"]), data_root()))
    return model, splits


def build(order: Order) -> Subject:
    """The dense masked model of an order, the same in every process."""
    p = order.parameters
    model, splits = build_dense(order)
    masks = _masks(order, model)
    apply_masks(model, masks)
    size = int(p["batch"])
    batch = Examples(splits.train.inputs[:size].contiguous(), splits.train.labels[:size])
    return Subject(model, masks, splits, batch)


def _masks(order: Order, model: nn.Module) -> dict[str, Tensor]:
    """From the method; without one, the zeros of the checkpoint."""
    p = order.parameters
    if "method" not in order.entries:
        return {name: weight.detach() != 0 for name, weight in prunable(model, p.get("exclude", ())).items()}
    method, allocator = order.made("method"), order.made("allocator")
    return fixed_masks(
        model, method, allocator, float(p["sparsity"]), int(p["seed"]), p.get("exclude", ()),
        order.options.get("method"), order.entries["method"].spec.needs,
    )  # fmt: skip


def unsupported(order: Order, backend: Any) -> str | None:
    """Whether data set and backend can do the order; raises `DatasetMissing`."""
    missing = availability(order.entries["dataset"])
    if missing:
        raise DatasetMissing(missing)
    if getattr(backend, "dense", False):
        return None
    subject = build(order)
    handle = BackendHandle.made(backend, order.entries["backend"].spec)
    try:
        choices = choose(subject.model, example_input=subject.batch.inputs, backend=handle, masks=subject.masks)
    except UsageError as error:  # the case was built above, so it is the backend that raised
        raise PluginError(f"unsupported() raised {type(error).__name__}: {error}") from error
    if any(choice.backend is not None for choice in choices):
        return None
    reasons = [choice.reason for choice in choices]
    return f"it can do no sparse layer of {order.parameters['model']}: {'; '.join(dict.fromkeys(reasons))}"[:300]


def write_truth(order: Order, path: Path, train_mode: bool) -> None:
    """The dense model's results in float64, and how far float32 alone takes the same model from them.

    Of the whole batch with the first weights, and of a few examples with the second.
    """
    subject = build(order)
    few = Examples(subject.batch.inputs[:FEW], subject.batch.labels[:FEW])
    truth: Truth = {}
    for name, batch in (("first", subject.batch), ("second", few)):
        if name == "second":
            change_weights(subject.model, subject.masks)
        rounded = observe(subject.model, batch, subject.masks, train_mode)
        exact = observe(copy.deepcopy(subject.model).double(), batch, subject.masks, train_mode)
        for key, tensors in exact.items():
            truth[f"{name} {key}"] = reference = [tensor.float() for tensor in tensors]
            slack = slack_of(key, rounded[key], reference, len(subject.masks))
            truth[f"{name} {key} slack"] = [torch.tensor(slack)]
    torch.save(truth, path)


class ModelJob:
    """A model of one variant: sparse layers over its backend, or the dense model itself."""

    train_mode = False

    def __init__(self, order: Order, backend: Any) -> None:
        self.order, self.note = order, ""
        self.subject = build(order)
        self.dense = bool(getattr(backend, "dense", False))
        self.layout = str(getattr(backend, "layout", "auto"))
        model, masks, batch = self.subject.model, self.subject.masks, self.subject.batch
        if not self.dense:
            handle = BackendHandle.made(backend, order.entries["backend"].spec)
            self.model = sparsify(model, example_input=batch.inputs, backend=handle, masks=masks)
            count = len(sparse_layers(self.model))
            if not count:
                raise UnsupportedError("it can do no sparse layer of this model")
            pruned = sum(not bool(mask.all()) for mask in masks.values())
            self.note = f"{count} of {pruned} pruned layers sparse"
        else:
            self.model = model
        self.inputs = batch.inputs
        self.state = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}
        self.truth: Truth = torch.load(order.oracle, mmap=True, weights_only=True)

    def verify(self, brief: bool = False) -> Finding:
        """Logits and gradients for two sets of weights (in brief: for one), against the dense model in float64."""
        with poisoned_memory():
            self.restore()
            first = self._compare("first", len(self.inputs), gradients=True)
        return self.recheck(gradients=True) if first.ok and not brief else first

    def recheck(self, gradients: bool | None = None) -> Finding:
        """A few examples with the second weights: old values show here, and a kernel that drifted in the meantime."""
        with poisoned_memory():
            self.restore()
            change_weights(self.model, self.subject.masks)
            second = self._compare("second", FEW, self.train_mode if gradients is None else gradients)
            self.restore()
        return second

    def spread(self) -> bool:
        """A model's tensors are many: where one of them lies counts for little."""
        return False

    def restore(self) -> None:
        """Put the first weights back."""
        with torch.no_grad():
            for name, tensor in self.model.state_dict().items():
                tensor.copy_(self.state[name])
        for layer in sparse_layers(self.model).values():
            layer.refresh()

    def _compare(self, which: str, count: int, gradients: bool) -> Finding:
        batch = Examples(self.inputs[:count], self.subject.batch.labels[:count])
        seen = observe(self.model, batch, self.subject.masks, self.train_mode, gradients)
        precision = self.order.precision
        findings = []
        for key, got in seen.items():
            slack = float(self.truth[f"{which} {key} slack"][0])
            findings.append(compare_models(f"{which} {key}", got, self.truth[f"{which} {key}"], precision, slack))
        return max(findings, key=lambda finding: (not finding.ok, finding.max_rel_err))

    def choose_layout(self, run: Callable[[], object]) -> None:
        """The dense model in the better of torch's two layouts; what the first block found serves the others."""
        if not self.dense or self.inputs.dim() != 4:
            return
        file = self.order.oracle.with_suffix(f".{self.layout}.txt")
        if not file.exists():
            names = LAYOUTS if self.layout == "auto" else [self.layout]
            runs = {name: self._in_layout(name, run) for name in names}
            slow = len(names) > 1 and warm(run, 0) > SLOW_NS
            times = {name: warm(each, 0) for name, each in runs.items()} if slow else race(runs)
            file.write_text(min(times, key=lambda name: times[name]))
            self.restore()
        layout = file.read_text()
        self.note = layout.replace("nchw", "NCHW")
        self._lay_out(layout)

    def _in_layout(self, name: str, run: Callable[[], object]) -> Callable[[], object]:
        def laid_out() -> None:
            self._lay_out(name)
            run()

        return laid_out

    def _lay_out(self, name: str) -> None:
        layout = torch.channels_last if name == LAYOUTS[1] else torch.contiguous_format
        self.model.to(memory_format=layout)  # type: ignore[call-overload]
        self.inputs = self.inputs.contiguous(memory_format=layout)

    def scores(self) -> tuple[dict[str, float], dict[str, float]]:
        """Nothing beside the time."""
        return {}, {}
