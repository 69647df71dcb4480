"""Digits: scikit-learn's data to the number, in a split that is fixed, complete and stratified."""

from __future__ import annotations

import builtins
from typing import Any

import pytest
import torch
from sklearn.datasets import load_digits

from sparsebench.builtin.datasets import _digits
from sparsebench.errors import DatasetMissing


def test_the_splits_hold_every_image_of_scikit_learn_once() -> None:
    splits, theirs = _digits.load()[:3], load_digits()
    images = torch.cat([part.inputs for part in splits]).flatten(1)
    labels = torch.cat([part.labels for part in splits])
    ours = sorted((*image, label) for image, label in zip(images.tolist(), labels.tolist(), strict=True))
    assert ours == sorted(
        (*image, label) for image, label in zip((theirs.data / 16).tolist(), theirs.target, strict=True)
    )
    assert images.dtype == torch.float32
    assert splits[0].inputs.shape == (1258, 1, 8, 8)


def test_the_split_is_stratified_and_fixed() -> None:
    splits = _digits.load()
    assert [len(part.labels) for part in splits[:3]] == [1258, 180, 359]
    for part, share in zip(splits[:3], (0.7, 0.1, 0.2), strict=True):
        counts = part.labels.bincount(minlength=10) / torch.cat([each.labels for each in splits[:3]]).bincount()
        assert bool(((counts - share).abs() < 0.005).all())
    assert splits.test.labels[:12].tolist() == _digits.load().test.labels[:12].tolist()
    assert all(torch.equal(a.inputs, b.inputs) for a, b in zip(splits[:3], _digits.load()[:3], strict=True))


def test_does_not_import_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    imported: list[str] = []
    original = builtins.__import__

    def watch(name: str, *rest: Any, **options: Any) -> Any:
        imported.append(name.partition(".")[0])
        return original(name, *rest, **options)

    monkeypatch.setattr(builtins, "__import__", watch)
    _digits.load()
    assert "numpy" in imported
    assert not {"sklearn", "scipy"} & set(imported)


def test_says_what_to_install_when_scikit_learn_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "pip install scikit-learn" in (_digits.missing() or "")
    with pytest.raises(DatasetMissing, match="scikit-learn"):
        _digits.load()
