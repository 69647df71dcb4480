"""What a model computes, as compared by cases: logits and gradients, of the dense model and of its sparse twin."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from sparsebench.nn import sparse_layers, sparsify
from sparsebench.nn.backends import BackendHandle
from sparsebench.plugin import Backend
from sparsebench.pruning.loss import cross_entropy
from sparsebench.tolerance import MODEL_TOLERANCE
from sparsebench.training.data import Examples
from sparsebench.verify import Finding, compare_models, poisoned_memory

Truth = dict[str, list[Tensor]]
# float32 takes a few ReLUs of a deep model to the other side of zero: torch's own dense gradients of ResNet-18 are
# off by 0.5 % for it, those of an MLP by 2e-7. So each model is held to so many times what its dense self is off by;
# and gradients to no less than the tolerance times the number of layers, for whether a ReLU turns is chance.
SLACK, MOST_SLACK = 8.0, 50.0


def observe(
    model: nn.Module, batch: Examples, masks: Mapping[str, Tensor], train_mode: bool, gradients: bool = True
) -> Truth:
    """What is compared: logits (in eval mode as they are timed, without gradients), and the gradients of all parameters
    (of kept weights alone)."""
    inputs = batch.inputs
    if inputs.is_floating_point():  # tokens are numbers of another kind
        inputs = inputs.to(next(model.parameters()).dtype)
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    modes = [(module, module.training) for module in model.modules()]
    try:
        model.train(train_mode)
        seen: Truth = {}
        if not train_mode:
            with torch.no_grad():
                seen["logits"] = [model(inputs).clone()]
        if gradients:
            model.zero_grad()
            logits = model(inputs)
            cross_entropy(logits, batch.labels).backward()
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
def change_weights(model: nn.Module, masks: Mapping[str, Tensor]) -> None:
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


def compare_twin(
    model: nn.Module,
    masks: Mapping[str, Tensor],
    batch: Examples,
    backend: Backend | BackendHandle | str,
    precision: str,
) -> Finding:
    """The model over a backend against itself, dense, in float64: logits and gradients in train mode, one batch."""
    exact = _seeded(copy.deepcopy(model).double(), batch, masks)
    rounded = _seeded(model, batch, masks)
    sparse = sparsify(copy.deepcopy(model), example_input=batch.inputs, backend=backend, masks=masks)
    with poisoned_memory():
        seen = _seeded(sparse, batch, masks)
    findings = []
    for key, got in seen.items():
        reference = [tensor.float() for tensor in exact[key]]
        findings.append(
            compare_models(key, got, reference, precision, slack_of(key, rounded[key], reference, len(masks)))
        )
    return max(findings, key=lambda finding: (not finding.ok, finding.max_rel_err))


def _seeded(model: nn.Module, batch: Examples, masks: Mapping[str, Tensor]) -> Truth:
    """In train mode, with the same dropout for everybody."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return observe(model, batch, masks, train_mode=True)


def slack_of(key: str, rounded: list[Tensor], reference: list[Tensor], layers: int) -> float:
    """How much more than the tolerance is allowed, by what float32 alone does to the dense model."""
    error = compare_models(key, rounded, reference).max_rel_err / MODEL_TOLERANCE["float32"]
    return min(MOST_SLACK, max(1.0 if key == "logits" else float(layers), SLACK * error))
