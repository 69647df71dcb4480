"""What inference and training cases share: a seeded, pruned model, its sparse twin over a backend, and the dense truth.

The truth is the dense masked model in float64: logits in eval mode, and for training logits and gradients in train
mode, each for two sets of weights, so that a kernel that keeps old values is caught.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sparsebench.errors import DatasetMissing, PluginError, UnsupportedError, UsageError
from sparsebench.harness.cases.base import Order
from sparsebench.nn import choose, sparse_layers, sparsify
from sparsebench.nn.backends import BackendHandle
from sparsebench.pruning.host import fixed_masks
from sparsebench.pruning.masks import apply_masks
from sparsebench.timing import race, warm
from sparsebench.tolerance import MODEL_TOLERANCE
from sparsebench.training.data import Examples, Splits, availability, load_splits
from sparsebench.verify import Finding, compare_models, poisoned_memory

Truth = dict[str, list[Tensor]]
LAYOUTS = ("nchw", "channels-last")
SLOW_NS = 3e8
FEW = 8  # examples of the second comparison, which is about values, not about shapes
# float32 takes a few ReLUs of a deep model to the other side of zero: torch's own dense gradients of ResNet-18 are
# off by 0.5 % for it, those of an MLP by 2e-7. So each model is held to so many times what its dense self is off by;
# and gradients to no less than the tolerance times the number of layers, for whether a ReLU turns is chance.
SLACK, MOST_SLACK = 8.0, 50.0


@dataclass
class Subject:
    """A pruned model and the data it meets; `masks` by parameter name, `batch` the first training examples."""

    model: nn.Module
    masks: dict[str, Tensor]
    splits: Splits
    batch: Examples


def build(order: Order) -> Subject:
    """The dense masked model of an order, the same in every process."""
    p, entries = order.parameters, order.entries
    spec = entries["model"].spec
    splits, in_channels = load_splits(entries["dataset"], spec.inputs)
    seed = int(p["seed"])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = entries["model"].load()(num_classes=entries["dataset"].spec.classes, in_channels=in_channels)
    method, allocator = entries["method"].load()(), entries["allocator"].load()()
    masks = fixed_masks(model, method, allocator, float(p["sparsity"]), seed, p.get("exclude", ()))
    apply_masks(model, masks)
    size = int(p["batch"])
    batch = Examples(splits.train.inputs[:size].contiguous(), splits.train.labels[:size])
    return Subject(model, masks, splits, batch)


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
            _change_weights(subject.model, subject.masks)
        rounded = observe(subject.model, batch, subject.masks, train_mode)
        exact = observe(copy.deepcopy(subject.model).double(), batch, subject.masks, train_mode)
        for key, tensors in exact.items():
            truth[f"{name} {key}"] = reference = [tensor.float() for tensor in tensors]
            error = compare_models(key, rounded[key], reference).max_rel_err / MODEL_TOLERANCE["float32"]
            least = 1.0 if key == "logits" else float(len(subject.masks))
            truth[f"{name} {key} slack"] = [torch.tensor(min(MOST_SLACK, max(least, SLACK * error)))]
    torch.save(truth, path)


def observe(
    model: nn.Module, batch: Examples, masks: Mapping[str, Tensor], train_mode: bool, gradients: bool = True
) -> Truth:
    """What is compared: logits (in eval mode as they are timed, without gradients), and the gradients of all parameters
    (of kept weights alone)."""
    dtype = next(model.parameters()).dtype
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    modes = [(module, module.training) for module in model.modules()]
    try:
        model.train(train_mode)
        seen: Truth = {}
        if not train_mode:
            with torch.no_grad():
                seen["logits"] = [model(batch.inputs.to(dtype)).clone()]
        if gradients:
            model.zero_grad()
            logits = model(batch.inputs.to(dtype))
            F.cross_entropy(logits, batch.labels).backward()
            seen = {"logits": [logits.detach()], **seen, "gradients": list(_gradients(model, masks))}
        return seen
    finally:
        model.zero_grad()
        for name, buffer in model.named_buffers():  # batch-norm statistics stay as they were
            buffer.copy_(buffers[name])
        for module, mode in modes:
            module.training = mode


def _gradients(model: nn.Module, masks: Mapping[str, Tensor]) -> Iterator[Tensor]:
    """Gradients by the dense model's names, in their order; those of a sparse layer scattered into the dense shape."""
    layers = sparse_layers(model)
    found: dict[str, Tensor] = {}
    for name, parameter in model.named_parameters():
        owner, _, leaf = name.rpartition(".")
        gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad.detach()
        if owner in layers and leaf == "values":
            found[f"{owner}.weight"] = layers[owner].snapshot().with_values(gradient).to_dense()
        else:
            found[name] = gradient * masks[name] if name in masks else gradient.clone()
    for name in sorted(found):
        yield found[name].contiguous()


@torch.no_grad()
def _change_weights(model: nn.Module, masks: Mapping[str, Tensor]) -> None:
    """Another set of weights on the same pattern: every weight scaled by a factor of its own, between 0.5 and 1.5."""
    layers = sparse_layers(model)
    parameters = dict(model.named_parameters())
    for name, mask in masks.items():
        factor = torch.linspace(0.5, 1.5, mask.numel()).reshape(mask.shape)
        owner = name.rpartition(".")[0]
        if owner in layers:
            parameters[f"{owner}.values"].mul_(layers[owner].snapshot().gather(factor))
            layers[owner].refresh()
        else:
            parameters[name].mul_(factor)


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

    def verify(self) -> Finding:
        """Logits and gradients for two sets of weights, against the dense model in float64."""
        with poisoned_memory():
            self.restore()
            first = self._compare("first", len(self.inputs), gradients=True)
        return self.recheck(gradients=True) if first.ok else first

    def recheck(self, gradients: bool | None = None) -> Finding:
        """A few examples with the second weights: old values show here, and a kernel that drifted in the meantime."""
        with poisoned_memory():
            self.restore()
            _change_weights(self.model, self.subject.masks)
            second = self._compare("second", FEW, self.train_mode if gradients is None else gradients)
            self.restore()
        return second

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
