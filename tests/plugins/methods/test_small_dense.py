"""Small-dense: the narrowed network computes and learns what a network that is really that small does."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sparsebench.builtin.methods import _small_dense
from sparsebench.builtin.methods._channels import Channels
from sparsebench.builtin.methods._small_dense import SmallDense
from sparsebench.builtin.models._resnet18_cifar import ResNet18
from sparsebench.builtin.models._resnet_cifar import CifarResNet, ConvShortcut, PaddedShortcut, _stage
from sparsebench.errors import BudgetError, InvariantError
from sparsebench.pruning.host import Host
from sparsebench.pruning.keeper import FixedMasks
from sparsebench.training.data import Examples
from sparsebench.training.step import StepRunner

FAULT = (AssertionError, InvariantError, RuntimeError)
Made = Callable[[], Any]


def mlp(first: int = 24, second: int = 16) -> nn.Module:
    return nn.Sequential(
        nn.Linear(12, first),
        nn.BatchNorm1d(first),
        nn.ReLU(),
        nn.Linear(first, second),
        nn.Tanh(),
        nn.Linear(second, 3),
    )


def convolutions(first: int = 8, second: int = 12, third: int = 20) -> nn.Module:
    """Three positions a side are left where it becomes rows."""
    return nn.Sequential(
        nn.Conv2d(2, first, 3, padding=1), nn.BatchNorm2d(first), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(first, second, 2, bias=False), nn.GELU(), nn.Flatten(), nn.Linear(9 * second, third), nn.ReLU(),
        nn.Linear(third, 3),
    )  # fmt: skip


def resnet(shortcut: Any, *widths: int) -> nn.Module:
    """Of one block a stage; as the models are, but of any widths."""
    model = CifarResNet(1, shortcut, num_classes=3, in_channels=2)
    first, second, third = widths or (16, 32, 64)
    model.conv1, model.bn1 = nn.Conv2d(2, first, 3, padding=1, bias=False), nn.BatchNorm2d(first)
    model.layer1, model.layer2 = _stage(1, first, first, shortcut), _stage(1, first, second, shortcut)
    model.layer3, model.fc = _stage(1, second, third, shortcut), nn.Linear(third, 3)
    return model


KINDS: dict[str, tuple[Callable[..., nn.Module], tuple[str, ...], tuple[int, ...]]] = {
    "mlp": (mlp, ("0", "3"), (12,)),
    "convolutions": (convolutions, ("0", "4", "7"), (2, 8, 8)),
    "option A": (partial(resnet, PaddedShortcut), ("conv1", "layer2.0.conv1", "layer3.0.conv1"), (2, 8, 8)),
    "option B": (partial(resnet, ConvShortcut), ("conv1", "layer2.0.conv1", "layer3.0.conv1"), (2, 8, 8)),
}


def copied(small: nn.Module, big: nn.Module, masks: dict[str, Tensor]) -> None:
    """Give the small network what the big one keeps, parameter by parameter in order, by the last mask's rows."""
    rows = torch.ones(0, dtype=torch.bool)
    with torch.no_grad():
        for (name, to), value in zip(small.state_dict().items(), big.state_dict().values(), strict=True):
            if name in masks:
                rows = masks[name].flatten(1).any(1)
                to.copy_(value[masks[name]].reshape(to.shape))
            elif value.dim():
                to.copy_(value[rows])


def equals_the_small_one(make: Made, kind: str, host_of: Any) -> None:
    """In outputs, and over steps of training with momentum and weight decay; norms' statistics too."""
    build, firsts, shape = KINDS[kind]
    torch.manual_seed(0)
    big = build().double()
    for module in big.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):  # nothing may be equal by being 1 or 0
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
    host = host_of("small-dense", 0.7, "erk", method=make(), model=big)
    host.begin(1, 6)
    widths = [int(host.masks[f"{name}.weight"].flatten(1).any(1).sum()) for name in firsts]
    assert all(1 < width < host.masks[f"{name}.weight"].shape[0] for name, width in zip(firsts, widths, strict=True))
    small = build(*widths).double()
    copied(small, big, host.masks)
    assert sum(int(m.sum()) for m in host.masks.values()) == sum(
        small.get_parameter(name).numel() for name in host.masks
    )
    steps = []
    for model, holder in ((big, host), (small, FixedMasks(small))):
        optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9, weight_decay=0.01)
        if holder is host:
            host.attach(optimizer)
        steps.append(StepRunner(model, optimizer, iter([examples(at, shape) for at in range(6)]), holder))
    for at in range(6):
        inputs = examples(9, shape).inputs
        for mode in (True, False):
            big.train(mode)
            small.train(mode)
            torch.testing.assert_close(big(inputs), small(inputs), rtol=1e-9, atol=1e-9)
        for step in steps:
            step.model.train()
            step()
        assert steps[0].loss == pytest.approx(steps[1].loss, rel=1e-9), at


def examples(seed: int, shape: tuple[int, ...]) -> Examples:
    draw = torch.Generator().manual_seed(seed)
    inputs = torch.randn(16, *shape, generator=draw, dtype=torch.float64)
    return Examples(inputs, inputs.flatten(1)[:, :3].argmax(1))


class OtherInputs(SmallDense):
    """Keeps the last inputs of the layers behind the first ones' outputs."""

    def setup(self, ctx: Any) -> Any:
        update = super().setup(ctx)
        masks = {name: mask if at == 0 else mask.flip(1) for at, (name, mask) in enumerate(update.masks.items())}
        return update._replace(masks=masks, weights={n: w * masks[n] for n, w in ctx.prunable.items()})


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_the_small_network(kind: str, host_of: Callable[..., Host]) -> None:
    equals_the_small_one(SmallDense, kind, host_of)


@pytest.mark.parametrize("kind", KINDS)
def test_another_network_is_found(kind: str, host_of: Callable[..., Host]) -> None:
    with pytest.raises(FAULT):
        equals_the_small_one(OtherInputs, kind, host_of)


def test_first_channels_behind_a_padding_are_found(
    host_of: Callable[..., Host], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A padded shortcut moves channels: those in front are not what the narrower network has there; and what was
    removed before it must not be taken for one of its zeros."""

    class InARow(Channels):
        def kept(self, count: Any) -> dict[int, Tensor]:
            return {space: torch.arange(len(kept)) + kept[0] for space, kept in super().kept(count).items()}

    class Misplaced(Channels):
        def kept(self, count: Any) -> dict[int, Tensor]:
            return {space: torch.arange(len(kept)) for space, kept in super().kept(count).items()}

    for broken in (InARow, Misplaced):
        monkeypatch.setattr(_small_dense, "Channels", broken)
        equals_the_small_one(SmallDense, "option B", host_of)
        with pytest.raises(FAULT):
            equals_the_small_one(SmallDense, "option A", host_of)


def starts_as_a_small_one_would(make: Made, host_of: Any) -> None:
    """Torch draws weights between ±1/sqrt(fan-in), which is that of the narrower layer."""
    torch.manual_seed(0)
    host = host_of("small-dense", 0.7, "erk", method=make(), model=convolutions())
    host.begin()
    for name, mask in host.masks.items():
        bound = mask.flatten(1).sum(1).max() ** -0.5
        assert 0.85 * bound < host.ctx.prunable[name].abs().max() <= bound * (1 + 1e-6)


class AsTheyWere(SmallDense):
    def setup(self, ctx: Any) -> Any:
        return super().setup(ctx)._replace(weights=None)


def test_it_starts_as_a_small_network_would(host_of: Callable[..., Host]) -> None:
    starts_as_a_small_one_would(SmallDense, host_of)
    with pytest.raises(AssertionError):
        starts_as_a_small_one_would(AsTheyWere, host_of)


def test_excluded_layers_keep_both_sides(host_of: Callable[..., Host]) -> None:
    host = host_of("small-dense", 0.5, "erk", model=convolutions(), exclude=["4"])
    host.begin()
    assert bool(host.masks["0.weight"].all())
    rows = int(host.masks["7.weight"].any(1).sum())
    assert torch.equal(host.masks["7.weight"], (torch.arange(20) < rows)[:, None].expand(20, 108))
    padded = host_of("small-dense", 0.3, "erk", model=resnet(PaddedShortcut), exclude=["layer2.0.conv2"])
    padded.begin()  # padding ties the stages: what is between the convolutions of a block alone is narrowed
    assert bool(padded.masks["fc.weight"].all())
    assert not bool(padded.masks["layer3.0.conv1.weight"].all())


def test_the_built_in_networks_can_be_followed(registry: Any, host_of: Callable[..., Host]) -> None:
    for name in ("lenet", "lenet5", "mlp", "mlp-300-100", "resnet20-cifar", "resnet20-cifar-conv", "resnet18-cifar"):
        channels = 3 if "cifar" in name else 784 if name.startswith("mlp") else 1
        model = registry.models[name].load()(num_classes=10, in_channels=channels)
        host = host_of("small-dense", 0.9, "erk", model=model, strict=False)
        host.begin()
        assert 0.9 <= host.sparsity_now < 0.92


class Net(nn.Module):
    """One part that may be unknown, between two layers."""

    def __init__(self, part: Callable[..., Tensor], *modules: nn.Module) -> None:
        super().__init__()
        self.first, self.last, self.part, self.more = nn.Conv2d(3, 8, 3), nn.Linear(8, 2), part, nn.ModuleList(modules)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.part(self.first(x), *self.more).flatten(1))


def depends_on_values(x: Tensor) -> Tensor:
    return x if bool(x.sum() > 0) else -x


REFUSED: list[tuple[nn.Module, str]] = [
    (Net(lambda x: F.softmax(x, 1)), "softmax is not followed"),
    (Net(lambda x: torch.cat([x, x], 1)), "cat is not followed"),
    (Net(lambda x: x[:, :4]), "getitem is not followed"),
    (Net(lambda x: x.transpose(1, 2)), "transpose is not followed"),
    (Net(lambda x: F.pad(x, (0, 0, 0, 0, 1, 1), value=1.0)), "pad is not followed"),
    (Net(lambda x: x + x.flatten(1)), "adds flattened to image"),
    (Net(depends_on_values), "follow Net: symbolically traced"),
    (Net(lambda x, norm: norm(x), nn.GroupNorm(2, 8)), "is a GroupNorm, which may mix channels"),
    (Net(lambda x, norm: norm(x), nn.LayerNorm(6)), "is a LayerNorm, which may mix channels"),
    (Net(lambda x, conv: conv(x), nn.Conv2d(8, 8, 3, groups=2)), "convolution with groups"),
    (Net(lambda x, layer: layer(x), nn.Linear(8, 8)), "takes 8 columns from 8 channels"),
    (Net(lambda x, layer: x, nn.Linear(8, 8)), "more.0.weight is not in its forward pass"),
    (Net(lambda x, layer: x + layer(F.pad(x, (0, 0, 0, 0, 0, 2))), nn.Conv2d(10, 9, 1)), "joins 8 and 9 channels"),
    (nn.Sequential(nn.Linear(8, 8), nn.MaxPool1d(2), nn.Linear(4, 2)), "is a MaxPool1d, which may mix channels"),
]


@pytest.mark.parametrize(("model", "why"), REFUSED, ids=[why for _, why in REFUSED])
def test_what_cannot_be_followed_is_refused(model: nn.Module, why: str, host_of: Callable[..., Host]) -> None:
    with pytest.raises(BudgetError, match=f"small-dense cannot.*{why}"):
        host_of("small-dense", 0.5, "erk", model=model).begin()


def test_groups_are_refused(host_of: Callable[..., Host]) -> None:
    with pytest.raises(BudgetError, match="whole channels"):
        host_of("small-dense", 0.5, "nm:2:4", model=nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))).begin()


def test_residual_sums_keep_the_same_channels(host_of: Callable[..., Host]) -> None:
    host = host_of("small-dense", 0.9, "erk", model=ResNet18(num_classes=10, in_channels=3), strict=False)
    host.begin()
    rows = {name: mask.flatten(1).any(1) for name, mask in host.masks.items()}
    assert torch.equal(rows["layer2.0.conv2.weight"], rows["layer2.0.downsample.0.weight"])
    assert torch.equal(rows["layer2.0.conv2.weight"], rows["layer2.1.conv2.weight"])
    assert torch.equal(rows["layer2.1.conv2.weight"], host.masks["layer3.0.conv1.weight"].any(0)[:, 0, 0])
