"""Published checkpoints do here what their authors say: names, shapes, scales and data sets are the right ones.

These tests need the data sets and the checkpoints below SPARSEBENCH_DATA and are skipped without them.
"""

from __future__ import annotations

import pytest
import torch

from sparsebench.registry import load_registry
from sparsebench.training.checkpoints import find_checkpoint, load_checkpoint
from sparsebench.training.data import availability, data_root, load_splits
from sparsebench.training.normalise import normalised

# checkpoint, model, data set, scale, at least, sparsity of the weights. On 1,000 test images of CIFAR-10 the standard
# error is 0.9 points, and published accuracies (91.78, 93.62, 91.96, 92.54) are on 10,000.
PUBLISHED = [
    ("lenet300100_original", "mlp-300-100", "mnist", "byte-256", 0.977, 0.0),
    ("lenet300100_sparse", "mlp-300-100", "mnist", "byte-256", 0.980, 0.9814),
    ("lenet5_original", "lenet5", "mnist", "byte-256", 0.9905, 0.0),
    ("lenet5_sparse", "lenet5", "mnist", "byte-256", 0.9905, 0.9908),
    ("cifar10_akamaster_resnet20", "resnet20-cifar", "cifar-10", "imagenet", 0.91, 0.0),
    ("cifar10_akamaster_resnet56", "resnet56-cifar", "cifar-10", "imagenet", 0.92, 0.0),
    ("cifar10_istdaslab_mfac_resnet20", "resnet20-cifar-conv", "cifar-10", "half", 0.90, 0.0),
    ("cifar10_distiller_resnet20_dense", "resnet20-cifar-conv", "cifar-10", "half", 0.91, 0.0),
]


def measured(checkpoint: str, model_name: str, dataset: str, scale: str) -> tuple[float, float]:
    """Accuracy on the test set, and the share of zeros in the weights."""
    registry, root = load_registry(), data_root()
    absent = availability(registry.datasets[dataset])
    if absent or root is None or not (root / "models" / f"{checkpoint}.npz").is_file():
        pytest.skip(absent or f"{checkpoint} is not in models/ below SPARSEBENCH_DATA")
    entry = registry.models[model_name]
    splits, channels = load_splits(registry.datasets[dataset], entry.spec.inputs)
    test = normalised(splits, scale).test
    model = entry.load()(num_classes=10, in_channels=channels)
    load_checkpoint(model.eval(), find_checkpoint(checkpoint, root))
    with torch.no_grad():
        logits = torch.cat([model(images) for images in test.inputs.split(500)])
    weights = torch.cat([p.detach().flatten() for p in model.parameters() if p.ndim > 1])
    return float((logits.argmax(1) == test.labels).float().mean()), float((weights == 0).float().mean())


@pytest.mark.parametrize(("checkpoint", "model", "dataset", "scale", "accuracy", "sparsity"), PUBLISHED)
def test_accuracy_and_sparsity_are_the_published_ones(
    checkpoint: str, model: str, dataset: str, scale: str, accuracy: float, sparsity: float
) -> None:
    found = measured(checkpoint, model, dataset, scale)
    assert found[0] >= accuracy
    assert found[1] == pytest.approx(sparsity, abs=1e-4)


def test_another_scale_shows() -> None:
    assert measured("cifar10_istdaslab_mfac_resnet20", "resnet20-cifar-conv", "cifar-10", "imagenet")[0] < 0.8
