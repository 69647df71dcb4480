"""Gradients of the loss on single mini-batches: what second-order methods estimate a Fisher matrix from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

import torch
from torch import Tensor, nn

from sparsebench.errors import UsageError
from sparsebench.nn.layer import SparseLayer
from sparsebench.pruning.calibration import Calibration
from sparsebench.pruning.loss import cross_entropy
from sparsebench.pruning.modes import evaluating
from sparsebench.pruning.weights import layer_of


def gradient_count(calibration: Calibration, count: int) -> int:
    """How many gradients `sample_gradients` gives when it is asked for `count`: at most one a batch."""
    return min(count, -(-len(calibration.ids) // calibration.batch))


def sample_gradients(calibration: Calibration, model: nn.Module, names: Sequence[str], count: int) -> Iterator[Tensor]:
    """The gradient of the mean loss of each of the first `count` batches, one after the other: [weights], nats.

    `weights` are those of the parameters `names`, dense and flat, one after the other; of a layer that runs on a
    sparse kernel, zeros outside its pattern. The model is evaluated as it is now, in eval mode; `.grad`, modes,
    statistics and random state stay as they are. Raises `UsageError` for a weight that takes no gradient.
    """
    layers = [layer_of(model, name) for name in names]
    stored = [layer.values if isinstance(layer, SparseLayer) else layer.weight for layer in layers]
    frozen = next((name for name, tensor in zip(names, stored, strict=True) if not tensor.requires_grad), None)
    if frozen is not None:
        raise UsageError(f"{frozen} takes no gradient (requires_grad is False); exclude its layer")
    for inputs, labels in islice(calibration.batches(), count):
        with torch.random.fork_rng(devices=[]), evaluating(model), torch.enable_grad():
            found = torch.autograd.grad(cross_entropy(model(inputs), labels), stored, materialize_grads=True)
        yield torch.cat([_dense(layer, grad).reshape(-1) for layer, grad in zip(layers, found, strict=True)])


def _dense(layer: nn.Module, grad: Tensor) -> Tensor:
    return layer.snapshot().with_values(grad).to_dense() if isinstance(layer, SparseLayer) else grad
