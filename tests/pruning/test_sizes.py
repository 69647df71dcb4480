"""Three sparsities that differ, and bytes, each counted by hand on a small network."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from sparsebench.pruning.export import write_csr, write_dense
from sparsebench.pruning.masks import prunable
from sparsebench.pruning.sizes import byte_sizes, positions, sparsities

# Weights and multiply-adds of one example: conv 4·2·3·3 at 8x8, body 16·16 used twice, head 4·16, all at one position.
CONV, BODY, HEAD = 72, 256, 64
BIASES, NORM = 4 + 16 + 4, 8
CONV_WORK, BODY_WORK, HEAD_WORK = CONV * 64, BODY * 2, HEAD


class Net(nn.Module):
    """A convolution, a norm, a layer used twice, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.body, self.head = nn.Linear(16, 16), nn.Linear(16, 4)
        self.pool = nn.AdaptiveAvgPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.pool(self.norm(self.conv(x))).flatten(1)
        return self.head(self.body(self.body(hidden)))


def example() -> Tensor:
    return torch.randn(5, 2, 8, 8)


def masks(**dropped: int) -> dict[str, Tensor]:
    """Masks of the named layers, with so many of the first weights dropped."""
    made = {}
    for name, count in dropped.items():
        mask = torch.ones_like(getattr(Net(), name).weight, dtype=torch.bool)
        mask.view(-1)[:count] = False
        made[f"{name}.weight"] = mask
    return made


def test_three_sparsities_by_hand() -> None:
    found = sparsities(Net(), masks(conv=36, body=192, head=16), example())
    dropped = 36 + 192 + 16
    assert found["sparsity"] == dropped / (CONV + BODY + HEAD)
    assert found["sparsity_all"] == dropped / (CONV + BODY + HEAD + BIASES + NORM)
    saved = 36 * 64 + 192 * 2 + 16
    assert found["sparsity_flops"] == saved / (CONV_WORK + BODY_WORK + HEAD_WORK)


def test_an_excluded_layer_counts_among_parameters_and_multiply_adds_but_not_among_the_prunable() -> None:
    assert masks(body=192).keys() == prunable(Net(), ["conv", "head"]).keys()
    found = sparsities(Net(), masks(body=192), example())
    assert found["sparsity"] == 192 / BODY
    assert found["sparsity_all"] == 192 / (CONV + BODY + HEAD + BIASES + NORM)
    assert found["sparsity_flops"] == 192 * 2 / (CONV_WORK + BODY_WORK + HEAD_WORK)


def test_the_same_number_of_weights_saves_work_by_how_often_they_are_used() -> None:
    in_conv, in_head = (sparsities(Net(), masks(**{name: 16}), example()) for name in ("conv", "head"))
    assert in_conv["sparsity_all"] == in_head["sparsity_all"]
    assert in_conv["sparsity_flops"] == pytest.approx(64 * in_head["sparsity_flops"])


def test_nothing_pruned_is_three_zeros() -> None:
    for given in ({}, masks(conv=0, body=0, head=0)):
        assert sparsities(Net(), given, example()) == {"sparsity": 0, "sparsity_all": 0, "sparsity_flops": 0}


def test_positions_of_every_layer_are_of_one_example_over_all_its_uses() -> None:
    assert positions(Net(), example()) == {"conv.weight": 64, "body.weight": 2, "head.weight": 1}
    strided = nn.Sequential(nn.Conv2d(2, 4, 3, stride=2, groups=2), nn.Conv2d(4, 4, 2, padding=1, dilation=2))
    assert positions(strided, example()) == {"0.weight": 9, "1.weight": 9}
    assert positions(nn.Sequential(nn.Linear(8, 3)), example()) == {"0.weight": 16}, "any number of leading axes"


def test_a_weight_that_two_layers_share_is_one_weight_used_twice() -> None:
    model = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6))
    model[2].weight = model[0].weight
    assert positions(model, torch.randn(2, 6)) == {"0.weight": 2}
    keep = torch.ones(6, 6, dtype=torch.bool)
    keep[0] = False
    found = sparsities(model, {"0.weight": keep}, torch.randn(2, 6))
    assert found == {"sparsity": 6 / 36, "sparsity_all": 6 / 48, "sparsity_flops": 6 / 36}


def test_counting_moves_neither_modes_nor_statistics_nor_random_state() -> None:
    model = nn.Sequential(Net(), nn.Dropout(0.5)).train()
    model[0].norm.eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    random = torch.get_rng_state()
    data = example()
    torch.set_rng_state(random)
    positions(model, data)
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert (model.training, model[0].norm.training, model[0].conv.training) == (True, False, True)
    assert not any(module._forward_hooks for module in model.modules())


def test_bytes_by_hand() -> None:
    state = {"fc.weight": torch.ones(4, 10), "fc.bias": torch.ones(4), "norm.batches": torch.tensor(3)}
    keep = torch.zeros(4, 10, dtype=torch.bool)
    keep[:, :2] = True  # 8 of 40
    rest = 4 * 4 + 8
    assert byte_sizes(state, {"fc.weight": keep}) == {
        "bytes_csr": 8 * (4 + 4) + 5 * 4 + rest,
        "bytes_bitmask": 8 * 4 + 5 + rest,
        "bytes_dense": 40 * 4 + rest,
    }


def test_a_mask_that_keeps_all_costs_nothing() -> None:
    state = Net().state_dict()
    sizes = byte_sizes(state, masks(conv=0, body=0))
    assert len(set(sizes.values())) == 1
    assert sizes == byte_sizes(state, {})


@pytest.mark.parametrize("dropped", [{}, {"body": 255}, {"conv": 36, "body": 192, "head": 16}], ids=str)
def test_the_bytes_are_those_of_the_tensors_that_are_written(dropped: dict[str, int], tmp_path: Path) -> None:
    from safetensors import safe_open

    state, chosen = Net().state_dict(), masks(**dropped)
    write_csr(state, chosen, tmp_path / "csr.safetensors")
    write_dense(state, tmp_path / "dense.safetensors")
    written = {}
    for form in ("csr", "dense"):
        with safe_open(tmp_path / f"{form}.safetensors", framework="pt") as file:
            tensors = [file.get_tensor(name) for name in file.keys()]  # noqa: SIM118  it is no mapping
        written[f"bytes_{form}"] = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    sizes = byte_sizes(state, chosen)
    assert written == {form: sizes[form] for form in written}
    assert (sizes["bytes_csr"] < sizes["bytes_dense"]) == bool(dropped)
