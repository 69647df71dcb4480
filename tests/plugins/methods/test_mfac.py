"""M-FAC over the whole model, and as WoodFisher with one block; what both have in common is tested with WoodFisher."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sparsebench.builtin.methods import _mfac
from sparsebench.builtin.methods._fisher import Inverse
from sparsebench.builtin.methods._mfac import MatrixFree
from sparsebench.builtin.methods._woodfisher import BlockInverse
from sparsebench.plugin import Calibration
from sparsebench.pruning.host import Host

SIZES, COUNT, DAMP = (30, 7, 24), 20, 1e-5
Make = Callable[..., Any]


def rows() -> Tensor:
    draw = torch.Generator().manual_seed(5)
    return torch.randn(COUNT, sum(SIZES), generator=draw) * torch.logspace(1, -2, sum(SIZES))


def made(kind: type[Inverse], block: int) -> Inverse:
    result = kind(SIZES, COUNT, DAMP, block)
    for slab in rows().split(8):
        result.add(slab)
    return result


def spans_the_model(inverse: Inverse) -> None:
    """Diagonal and products are those of the dense inverse over all layers."""
    fisher = DAMP * torch.eye(sum(SIZES), dtype=torch.float64) + rows().double().T @ rows().double() / COUNT
    expected, vector = torch.linalg.inv(fisher), torch.linspace(-1, 1, sum(SIZES), dtype=torch.float64)
    torch.testing.assert_close(inverse.diagonal(), expected.diagonal(), rtol=1e-7, atol=0)
    torch.testing.assert_close(inverse.product(vector), expected @ vector, rtol=1e-7, atol=1e-6)


def test_block_0_is_the_whole_model_and_layers_alone_are_not() -> None:
    spans_the_model(made(MatrixFree, 0))
    for wrong in (made(MatrixFree, 1000), made(BlockInverse, 1000)):
        with pytest.raises(AssertionError):
            spans_the_model(wrong)


def is_woodfisher(inverse: Inverse, block: int) -> None:
    other, vector = made(BlockInverse, block), torch.linspace(2, -1, sum(SIZES), dtype=torch.float64)
    torch.testing.assert_close(inverse.diagonal(), other.diagonal(), rtol=1e-7, atol=0)
    torch.testing.assert_close(inverse.product(vector), other.product(vector), rtol=1e-7, atol=1e-6)


@pytest.mark.parametrize("block", [1, 4, 10, 12])
def test_it_is_woodfisher_with_the_same_blocks_and_no_other(block: int) -> None:
    is_woodfisher(made(MatrixFree, block), block)
    for wrong in (0, 2 * block):
        with pytest.raises(AssertionError):
            is_woodfisher(made(MatrixFree, wrong), block)


@pytest.mark.parametrize("width", [1, 5, 61])
def test_how_many_columns_are_looked_at_together_changes_nothing(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_mfac, "WIDTH", width)
    spans_the_model(made(MatrixFree, 0))


@pytest.mark.parametrize("block", [0, 10, 30])
def test_the_memory_is_what_it_says(block: int) -> None:
    found = made(MatrixFree, block)
    assert isinstance(found, MatrixFree)
    factors = sum(factor.nbytes for _, _, factor in found._factors)
    assert MatrixFree.memory(SIZES, COUNT, block) == found._gradients.nbytes + factors
    if block:
        blocks = made(BlockInverse, block)
        assert isinstance(blocks, BlockInverse)
        assert BlockInverse.memory(SIZES, COUNT, block) == sum(each.nbytes for each in blocks._blocks)


def test_an_answer_before_every_gradient_is_there_is_an_error() -> None:
    early = MatrixFree(SIZES, COUNT, DAMP, 0)
    early.add(rows()[:-1])
    with pytest.raises(AssertionError, match="before every gradient"):
        early.diagonal()


# on a host


def examples() -> Calibration:
    inputs = torch.randn(64, 8, generator=torch.Generator().manual_seed(3))
    return Calibration(inputs, inputs[:, :3].argmax(1), count=48)


def pruned(name: str, sparsity: float, host_of: Make, **options: Any) -> Host:
    host: Host = host_of(name, sparsity, calibration=examples(), **options)
    host.begin()
    host.finish()
    return host


@pytest.mark.parametrize(("options", "same"), [("block=400", True), ("block=0", False), ("block=9", False)])
def test_it_prunes_as_woodfisher_with_one_block_a_layer(options: str, same: bool, host_of: Make) -> None:
    one, other = (pruned(name, 0.8, host_of) for name in (f"m-fac@{options}", "woodfisher@block=400"))
    masks = all(torch.equal(one.masks[name], other.masks[name]) for name in one.masks)
    values = all(torch.allclose(one.state()[n], other.state()[n], rtol=1e-4, atol=1e-5) for n in one.masks)
    assert (masks and values) is same


def smooth() -> nn.Sequential:
    """Every weight has a part in the loss, and none is small."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))
    with torch.no_grad():
        for layer in model[::2]:
            layer.weight.copy_(layer.weight.sign() * (0.3 + torch.rand(layer.weight.shape)))
    return model


def one_weight_moves_all_layers(name: str, host_of: Make) -> None:
    """Of 93 weights the cheapest went, and the others are at their minimum, by gradients of our own."""
    model, chosen, names = smooth(), examples(), ["0.weight", "2.weight", "4.weight"]
    taken = []
    for ids in chosen.ids.split(4):
        model.zero_grad()
        F.cross_entropy(model(chosen.inputs[ids]), chosen.labels[ids]).backward()
        taken.append(torch.cat([model.get_parameter(name).grad.flatten() for name in names]).double())  # type: ignore[union-attr]
    rows, before = torch.stack(taken), torch.cat([model.get_parameter(n).detach().double().flatten() for n in names])
    fisher = DAMP * torch.eye(93, dtype=torch.float64) + rows.T @ rows / 12
    best: dict[int, Tensor] = {}
    for q in range(93):
        rest = torch.arange(93) != q
        best[q] = torch.zeros_like(before)
        best[q][rest] = before[rest] + torch.linalg.solve(fisher[rest][:, rest], fisher[rest, q] * before[q])
    costs = {q: float((after - before) @ fisher @ (after - before)) for q, after in best.items()}
    host = pruned(name, 1 / 93, host_of, model=smooth())
    (gone,) = (~torch.cat([host.masks[name].flatten() for name in names])).nonzero().flatten().tolist()
    assert gone == min(costs, key=costs.__getitem__)
    after = torch.cat([host.state()[name].double().flatten() for name in names])
    torch.testing.assert_close(after, best[gone], rtol=1e-4, atol=1e-5)
    assert all(
        float((part - was).abs().max()) > 1e-3
        for part, was in zip(after.split([48, 30, 15]), before.split([48, 30, 15]), strict=True)
    )


def test_one_weight_less_moves_all_layers_to_the_minimum(host_of: Make) -> None:
    one_weight_moves_all_layers("m-fac", host_of)
    for wrong in ("m-fac@block=400", "m-fac@gradients=11", "m-fac@batch=5", "m-fac@damp=1e-3", "magnitude"):
        with pytest.raises(AssertionError):
            one_weight_moves_all_layers(wrong, host_of)
