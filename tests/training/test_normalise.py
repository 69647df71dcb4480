"""Scales: each to the number, out of place, and refused where it does not fit."""

from __future__ import annotations

import pytest
import torch

from sparsebench.errors import UsageError
from sparsebench.training.data import Examples, Splits
from sparsebench.training.normalise import SCALES, normalised


def splits(*shape: int) -> Splits:
    def part(count: int) -> Examples:
        return Examples(torch.rand(count, *shape), torch.arange(count))

    return Splits(part(4), part(2), part(3), "nine of many")


MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def test_imagenet_scales_every_channel_by_its_own_numbers() -> None:
    before = splits(3, 4, 5)
    after = normalised(before, "imagenet")
    for old, new in zip(before[:3], after[:3], strict=True):
        wanted = torch.stack([(old.inputs[:, c] - MEAN[c]) / STD[c] for c in range(3)], dim=1)
        assert torch.allclose(new.inputs, wanted, rtol=0, atol=1e-6)


def test_half_is_from_minus_one_to_one() -> None:
    before = splits(3, 4, 5)
    after = normalised(before, "half")
    for old, new in zip(before[:3], after[:3], strict=True):
        assert torch.allclose(new.inputs, 2 * old.inputs - 1, rtol=0, atol=1e-6)


def test_byte_256_is_what_caffe_does_to_bytes() -> None:
    pixels = torch.arange(256).float().reshape(1, 256)
    part = Examples(pixels / 255, torch.zeros(1, dtype=torch.int64))
    after = normalised(Splits(part, part, part), "byte-256")
    assert torch.allclose(after.test.inputs, pixels / 256, rtol=2e-7, atol=0)


@pytest.mark.parametrize("name", SCALES)
def test_labels_and_note_stay_and_the_given_inputs_are_not_written(name: str) -> None:
    before = splits(3, 4, 5)
    copies = [part.inputs.clone() for part in before[:3]]
    after = normalised(before, name)
    assert all(torch.equal(part.inputs, copy) for part, copy in zip(before[:3], copies, strict=True))
    assert all(new.labels is old.labels for new, old in zip(after[:3], before[:3], strict=True))
    assert after.note == "nine of many"
    assert {part.inputs.dtype for part in after[:3]} == {torch.float32}
    assert all(torch.equal(new.inputs, old) for new, old in zip(after[:3], copies, strict=True)) is (name == "none")


@pytest.mark.parametrize("name", ["none", "half", "byte-256"])
@pytest.mark.parametrize("shape", [(7,), (1, 4, 4), (2, 3, 3)])
def test_a_scale_with_one_number_fits_everything(name: str, shape: tuple[int, ...]) -> None:
    assert normalised(splits(*shape), name).train.inputs.shape == (4, *shape)


@pytest.mark.parametrize("shape", [(7,), (3,), (1, 4, 4), (3, 4)])
def test_a_scale_for_three_channels_wants_three(shape: tuple[int, ...]) -> None:
    with pytest.raises(UsageError) as caught:
        normalised(splits(*shape), "imagenet")
    assert str(list(shape)) in str(caught.value)
    assert "'half'" in str(caught.value)


def test_a_misspelt_name_gets_its_near_misses() -> None:
    with pytest.raises(UsageError, match="'imagnet' is not known; did you mean 'imagenet'"):
        normalised(splits(3, 4, 4), "imagnet")
