"""A host on a small model and a training of it on data made on the spot, so that a test only brings a method."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sparsebench.errors import InvariantError
from sparsebench.pruning.context import Context
from sparsebench.pruning.host import Host
from sparsebench.training.data import Examples, Splits
from sparsebench.training.loop import train
from sparsebench.training.recipe import Recipe


class Flat:
    """The same sparsity everywhere, over `scope`."""

    def __init__(self, scope: Any = "layer") -> None:
        self.scope = scope

    def allocate(self, layers: Any, target: float, ctx: Context) -> dict[str, float]:
        return dict.fromkeys(layers, target)


class Net(nn.Module):
    """A convolution, two norms, dropout and two linear layers on [N, 2, 4, 4]."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.fc1 = nn.Linear(64, 16)
        self.drop = nn.Dropout(0.2)
        self.fc2 = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.conv(x)))
        return self.fc2(self.drop(torch.relu(self.fc1(x.flatten(1)))))


@pytest.fixture
def net() -> Callable[..., Net]:
    """`net(seed)`: the same weights for the same seed."""

    def make(seed: int = 0) -> Net:
        torch.manual_seed(seed)
        return Net()

    return make


@pytest.fixture
def host_of(net: Callable[..., Net]) -> Callable[..., Host]:
    """`host_of(method, sparsity, model=…, scope=…, …)`: strict unless it is said."""

    def make(method: Any, sparsity: float = 0.5, *, model: Any = None, scope: Any = "layer", **options: Any) -> Host:
        options = {"strict": True, **options}
        return Host(net() if model is None else model, method, Flat(scope), sparsity=sparsity, **options)

    return make


@pytest.fixture
def images() -> Splits:
    """Three classes of noisy [2, 4, 4] images."""
    draw = torch.Generator().manual_seed(0)
    centres = torch.randn(3, 2, 4, 4, generator=draw)

    def examples(count: int) -> Examples:
        labels = torch.randint(3, (count,), generator=draw)
        return Examples(centres[labels] + torch.randn(count, 2, 4, 4, generator=draw), labels)

    return Splits(examples(96), examples(32), examples(32))


@pytest.fixture
def caught() -> Callable[[Host, Splits], str]:
    """The name of the invariant that a training breaks; "" if it breaks none."""

    def run(host: Host, splits: Splits) -> str:
        try:
            train(host.model, splits, Recipe(epochs=2, batch=32, weight_decay=0.01), host=host)
        except InvariantError as error:
            assert f"(invariant {error.invariant!r})" in str(error)
            assert "\n" not in str(error)
            return error.invariant
        return ""

    return run


@pytest.fixture(autouse=True)
def _on_one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
