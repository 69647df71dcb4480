"""Data meets models: flattened, padded or refused, and a loader that breaks the contract is named."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from sparsebench.errors import PluginError, UsageError
from sparsebench.registry import load_registry
from sparsebench.training.data import Examples, Splits, availability, data_root, load_splits, parse_inputs


def part(count: int, *shape: int) -> Examples:
    return Examples(torch.rand(count, *shape) + 1, torch.arange(count) % 3)


def entry(load: Any, classes: int = 3) -> Any:
    return SimpleNamespace(spec=SimpleNamespace(name="mine", classes=classes), load=lambda: load)


def images(*shape: int) -> Any:
    splits = Splits(part(6, *shape), part(3, *shape), part(3, *shape))
    return entry(lambda root: splits), splits


def test_features_are_flattened() -> None:
    offered, splits = images(2, 4, 5)
    fitted, features = load_splits(offered, "features")
    assert features == 40
    assert torch.equal(fitted.test.inputs, splits.test.inputs.flatten(1))
    assert torch.equal(fitted.test.labels, splits.test.labels)


def test_small_images_are_padded_with_zeros_on_all_sides() -> None:
    offered, splits = images(2, 4, 5)
    fitted, channels = load_splits(offered, "3x8x8")
    assert channels == 2
    inputs = fitted.train.inputs
    assert inputs.shape == (6, 2, 8, 8)
    assert torch.equal(inputs[:, :, 2:6, 1:6], splits.train.inputs)
    assert float(inputs.sum()) == pytest.approx(float(splits.train.inputs.sum()), rel=1e-5)
    same, _ = load_splits(offered, "1x4x5")
    assert same.train.inputs is splits.train.inputs


def test_what_does_not_fit_names_both_sides() -> None:
    with pytest.raises(UsageError, match=r"mine has 1x9x8 images, larger than the 1x8x8"):
        load_splits(images(1, 9, 8)[0], "1x8x8")
    with pytest.raises(UsageError, match=r"mine has 12 features.*3x32x32"):
        load_splits(images(12)[0], "3x32x32")
    for inputs in ("", "28x28", "0x2x2", "1x28x28x1", "1,28,28"):
        with pytest.raises(PluginError, match="3x32x32"):
            parse_inputs(inputs)


def test_a_loader_that_asks_gets_the_shape_and_every_loader_the_root(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen: list[Any] = []

    def load(root: Path | None, shape: tuple[int, ...] = (1,)) -> Splits:
        seen.append((root, shape))
        return Splits(part(3, *shape), part(3, *shape), part(3, *shape))

    monkeypatch.setenv("SPARSEBENCH_DATA", str(tmp_path))
    assert load_splits(entry(load), "3x6x6")[1] == 3
    monkeypatch.delenv("SPARSEBENCH_DATA")
    assert load_splits(entry(load), "features")[1] == 784
    assert seen == [(tmp_path, (3, 6, 6)), (None, (784,))]
    assert data_root() is None


def test_the_note_stays_and_a_plain_tuple_has_none() -> None:
    good = part(3, 4)
    assert load_splits(entry(lambda root: Splits(good, good, good, "3 of 9")), "features")[0].note == "3 of 9"
    assert load_splits(entry(lambda root: Splits(good, good, good)), "features")[0].note == ""
    plain = tuple(good)
    fitted, features = load_splits(entry(lambda root: (plain, plain, plain)), "features")
    assert (features, fitted.note) == (4, "")
    assert isinstance(fitted, Splits)
    assert fitted.validation.inputs.shape == (3, 4)


def broken() -> dict[str, Any]:
    good = part(3, 4)
    return {
        "not splits": good,
        "two parts": (good, good),
        "five parts": (good, good, good, "", ""),
        "a note that is none": Splits(good, good, good, 7),  # type: ignore[arg-type]
        "float64": Splits(good, good, Examples(good.inputs.double(), good.labels)),
        "int32 labels": Splits(good, good, Examples(good.inputs, good.labels.int())),
        "no examples": Splits(good, Examples(good.inputs[:0], good.labels[:0]), good),
        "uneven": Splits(good, Examples(good.inputs, good.labels[:2]), good),
        "other shape": Splits(good, good, part(3, 5)),
        "label too high": Splits(good, good, Examples(good.inputs, good.labels + 1)),
        "label below zero": Splits(good, good, Examples(good.inputs, good.labels - 1)),
        "no features": Splits(*[Examples(torch.rand(3), good.labels)] * 3),
    }


@pytest.mark.parametrize("kind", broken())
def test_a_loader_that_breaks_the_contract_is_named(kind: str) -> None:
    with pytest.raises(PluginError, match="data set mine") as caught:
        load_splits(entry(lambda root: broken()[kind]), "features")
    assert "\n" not in str(caught.value)


def test_availability_asks_without_loading(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SPARSEBENCH_DATA", str(tmp_path))
    monkeypatch.delenv("SPARSEBENCH_DOWNLOAD", raising=False)
    monkeypatch.setattr("pooch.os_cache", lambda project: str(tmp_path / "cache"))
    datasets = load_registry().datasets
    assert availability(datasets["digits"]) is None
    assert availability(datasets["noise"]) is None
    assert str(tmp_path / "mnist") in (availability(datasets["mnist"]) or "")


@pytest.mark.parametrize(("dataset", "model"), [("digits", "lenet"), ("noise", "lenet"), ("noise", "mlp")])
def test_built_in_models_take_built_in_data(dataset: str, model: str) -> None:
    registry = load_registry()
    made = registry.models[model]
    splits, channels = load_splits(registry.datasets[dataset], made.spec.inputs)
    net = made.load()(num_classes=registry.datasets[dataset].spec.classes, in_channels=channels)
    assert net(splits.train.inputs[:2]).shape == (2, 10)
