"""SparseGPT on inputs of which most are always 0, as the edges of digits are: all others get weights before them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sparsebench.builtin.methods import _sparsegpt
from sparsebench.builtin.methods._sparsegpt import Columns, SparseGPT
from sparsebench.pruning.calibration import Calibration
from sparsebench.pruning.host import Host
from sparsebench.testing.methods import Even

HostOf = Callable[..., Host]
Oracle = Callable[[HostOf, str], None]
INPUTS, LIVE, OUTPUTS = 784, 272, 20


def live() -> Tensor:
    """The inputs in the midst of an image, so that some blocks of columns have few of them and some none."""
    inside = torch.zeros(28, 28, dtype=torch.bool)
    inside[6:22, 5:22] = True
    return inside.flatten()


def pruned(host_of: HostOf, allocator: str, sparsity: float, block: int = 128) -> Tensor:
    """The mask of the layer that sees the images."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(INPUTS, OUTPUTS), nn.ReLU(), nn.Linear(OUTPUTS, 10))
    x = torch.randn(300, INPUTS, generator=torch.Generator().manual_seed(1)) * live()
    calibration = Calibration(x, torch.zeros(300, dtype=torch.long), count=300, batch=100)
    host = host_of(f"sparsegpt@block={block}", sparsity, "erk", model=model, calibration=calibration, strict=False)
    host.allocator = Even() if allocator == "even" else host.allocator
    host.begin()
    host.finish()
    assert host.masks["0.weight"].sum() == host.ctx.budget("0.weight")
    return host.masks["0.weight"]


def keeps_live_ones_alone(host_of: HostOf, allocator: str) -> None:
    """At 0.9 the layer keeps about 0.1 of its weights, and a third of them would be on live inputs."""
    for block in (128, 100):
        mask = pruned(host_of, allocator, 0.9, block)
        assert 0 < int(mask.sum()) <= LIVE * OUTPUTS
        assert not bool(mask[:, ~live()].any())


def keeps_all_live_ones_first(host_of: HostOf, allocator: str) -> None:
    """At 0.4 there are more weights to keep than live ones."""
    mask = pruned(host_of, allocator, 0.4)
    assert int(mask.sum()) > LIVE * OUTPUTS
    assert bool(mask[:, live()].all())


class Blind(Columns):
    """Shares the budget out to blocks by all weights, as if an input reached each; ranks them right within a block."""

    def __init__(self, factor: Tensor, alive: Tensor, reached: Tensor, *more: Any) -> None:
        super().__init__(factor, alive, torch.ones_like(reached), *more)
        self.reached = reached


@pytest.fixture
def blindly(host_of: HostOf) -> HostOf:
    class Uses(SparseGPT):
        def _layer(self, *args: Any) -> Any:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(_sparsegpt, "Columns", Blind)
                return super()._layer(*args)

    def make(*args: Any, **options: Any) -> Host:
        return host_of(*args, method=Uses(), **options)

    return make


@pytest.mark.parametrize("allocator", ["erk", "even"])
@pytest.mark.parametrize("oracle", [keeps_live_ones_alone, keeps_all_live_ones_first], ids=lambda o: o.__name__)
def test_inputs_that_are_always_zero_come_last(
    oracle: Oracle, allocator: str, host_of: HostOf, blindly: HostOf
) -> None:
    assert int(live().sum()) == LIVE
    oracle(host_of, allocator)
    with pytest.raises(AssertionError):
        oracle(blindly, allocator)
