"""GPTQ against rounding to the nearest and against a slow one with dense inverses in NumPy; each with a twin."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sparsebench.builtin.methods import _gptq
from sparsebench.builtin.methods._gptq import GPTQ, Grid
from sparsebench.errors import UsageError
from sparsebench.pruning.calibration import Calibration
from sparsebench.pruning.host import Host
from sparsebench.registry import load_registry
from sparsebench.testing.methods import Even

Make = Callable[[], Any]


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def related(samples: int, size: int) -> Tensor:
    """Inputs that are mixtures of fewer causes, and a little noise."""
    return draw(samples, size // 2) @ draw(size // 2, size, seed=1) + 0.3 * draw(samples, size, seed=2)


def host_of(make: Make, model: nn.Module, x: Tensor, batch: int = 16, **options: Any) -> Host:
    calibration = Calibration(x, torch.zeros(len(x), dtype=torch.long), count=len(x), batch=batch)
    spec = load_registry().methods["gptq"].spec
    return Host(
        model, make(), Even(), sparsity=0.0, needs=spec.needs, name="gptq", calibration=calibration,
        parameters={**spec.parameters, **options}, strict=True,
    )  # fmt: skip


def rounded(make: Make, weight: Tensor, x: Tensor, **options: Any) -> Tensor:
    """One linear layer's weight after it."""
    model = nn.Sequential(nn.Linear(weight.shape[1], weight.shape[0]))
    with torch.no_grad():
        model[0].weight.copy_(weight)
    host = host_of(make, model, x, **options)
    host.begin()
    host.finish()
    assert bool(host.masks["0.weight"].all())
    return host.state()["0.weight"]


def nearest(weight: np.ndarray, bits: int, group: int) -> np.ndarray:
    """Round to nearest: float32 in and out, the grid in float64."""
    made = np.empty_like(weight)
    levels = 2 ** (bits - 1) - 1
    for at in range(0, weight.shape[1], group or weight.shape[1]):
        part = weight[:, at : at + (group or weight.shape[1])].astype(np.float64)
        scale = np.abs(part).max(1, keepdims=True) / levels
        made[:, at : at + part.shape[1]] = np.rint(part / scale) * scale
    return made


def slow(weight: np.ndarray, x: np.ndarray, bits: int, group: int, damp: float, order: bool) -> np.ndarray:
    """Algorithm 1 without blocks or factors: a new inverse for every column, all of what is left brought up to date."""
    hessian = 2 * x.T.astype(np.float64) @ x / len(x)
    turn = np.argsort(-np.diag(hessian), kind="stable") if order else np.arange(len(hessian))
    hessian = (hessian + damp * np.diag(hessian).mean() * np.eye(len(hessian)))[turn][:, turn]
    now, levels = weight.astype(np.float64)[:, turn], 2 ** (bits - 1) - 1
    for j in range(len(hessian)):
        if j == 0 or (group and j % group == 0):
            scale = np.abs(now[:, j : j + group] if group else now).max(1) / levels
        new = np.clip(np.rint(now[:, j] / scale), -levels, levels) * scale
        inverse = np.linalg.inv(hessian[j:, j:])
        now[:, j:] -= np.outer((now[:, j] - new) / inverse[0, 0], inverse[0])
    return now[:, np.argsort(turn)].astype(np.float32)


def unrelated_inputs_round_to_nearest(make: Make) -> None:
    """Bit for bit, at any damping and in any order."""
    weight, x = draw(6, 24), torch.diag(torch.linspace(0.2, 4, 24))
    for options in ({}, {"bits": 2}, {"bits": 8, "damp": 0.0}, {"group": 4}, {"block": 5}, {"order": True}):
        expected = nearest(weight.numpy(), options.get("bits", 4), options.get("group", 0))
        assert np.array_equal(rounded(make, weight, x, **options).numpy(), expected)


def errors_are_smaller(make: Make) -> None:
    """On inputs that are related, by a third at least."""
    for weight, options in (
        (draw(8, 24), {}),
        (draw(8, 24, seed=4), {"bits": 3, "group": 8}),
        (draw(3, 24), {"order": True}),
    ):
        x = related(100, 24)
        values = rounded(make, weight, x, **options)
        plain = torch.from_numpy(nearest(weight.numpy(), options.get("bits", 4), options.get("group", 0)))
        found, alone = ((x @ (weight - each).T).square().sum() for each in (values, plain))
        assert found < 0.67 * alone


def is_the_slow_one(make: Make) -> None:
    """Scales of groups are those of the weights as they are when their group begins, whatever the blocks."""
    weight, x = draw(6, 24), related(100, 24) * torch.linspace(3, 0.3, 24)
    for options in (
        {}, {"bits": 3, "damp": 0.1}, {"group": 4}, {"group": 4, "block": 8}, {"group": 8, "block": 4},
        {"block": 5}, {"order": True, "group": 6, "block": 12},
    ):  # fmt: skip
        chosen = {"bits": 4, "group": 0, "damp": 0.01, "order": False, **options}
        chosen.pop("block", None)
        expected = slow(weight.numpy(), x.numpy(), **chosen)
        np.testing.assert_allclose(rounded(make, weight, x, **options).numpy(), expected, rtol=1e-5, atol=1e-6)


def rounding_again_changes_nothing(make: Make) -> None:
    """Weights on a grid stay there, whatever the inputs: bit for bit, or with scales of groups, which hear of the
    roundings of float32 before them, to that."""
    for bits, group in ((4, 0), (3, 8), (8, 0)):
        weight = torch.from_numpy(nearest(draw(6, 24).numpy(), bits, group))
        again = rounded(make, weight, related(100, 24), bits=bits, group=group)
        torch.testing.assert_close(again, weight, rtol=1e-6 if group else 0, atol=0)


def grids_are_small(make: Make) -> None:
    """A row, or a group of its columns, has at most 2^bits - 1 values, whole multiples of one number."""
    for bits, group in ((2, 0), (3, 0), (3, 8)):
        values = rounded(make, draw(6, 240), related(400, 240), bits=bits, group=group).double()
        for row in values.reshape(-1, group or 240):
            levels = row.unique()
            assert len(levels) <= 2**bits - 1
            least = levels / levels.abs()[levels != 0].min()
            steps = (least * step for step in range(1, 2 ** (bits - 1)))
            assert any(torch.allclose(each, each.round(), atol=1e-5, rtol=0) for each in steps)


class NoAnswer(GPTQ):
    @staticmethod
    def _layer(name: str, raw: Tensor, ctx: Any) -> Tensor:
        return GPTQ._layer(name, torch.diag_embed(raw.diagonal(dim1=1, dim2=2)), ctx)


def with_grid(call: Callable[[Grid, int, Tensor], Tensor]) -> Make:
    """The method with another rounding."""

    class Uses(GPTQ):
        @staticmethod
        def _layer(name: str, raw: Tensor, ctx: Any) -> Tensor:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(_gptq, "Grid", type("Broken", (Grid,), {"__call__": call}))
                return GPTQ._layer(name, raw, ctx)

    Uses.__name__ = call.__name__
    return Uses


def stale_scales(self: Any, j: int, rest: Tensor) -> Tensor:
    """As published: scales from the weights as they were."""
    if j == 0:
        self.weight = rest.clone()
    if self.group and j % self.group == 0:
        return Grid.__call__(self, j, torch.cat([self.weight[..., j : j + self.group], rest], -1)) * 0 + (
            (rest[..., 0] / self._scale).round().clamp(-self.levels, self.levels) * self._scale
        )
    return Grid.__call__(self, j, rest)


def cuts_off(self: Any, j: int, rest: Tensor) -> Tensor:
    self._scale = torch.ones(())
    made = Grid.__call__(self, j, rest)
    return (rest[..., 0] / self._scale).trunc() * self._scale if j else made


def without_clamp(self: Any, j: int, rest: Tensor) -> Tensor:
    Grid.__call__(self, j, rest)
    return (rest[..., 0] / self._scale).round() * self._scale


def half_a_step_off(self: Any, j: int, rest: Tensor) -> Tensor:
    """A grid without a zero."""
    Grid.__call__(self, j, rest)
    return ((rest[..., 0] / self._scale).floor() + 0.5).clamp(-self.levels, self.levels) * self._scale


def keeps_the_last(self: Any, j: int, rest: Tensor) -> Tensor:
    return Grid.__call__(self, j, rest) if rest.shape[-1] > 1 else rest[..., 0]


@pytest.mark.parametrize(
    ("oracle", "broken"),
    [
        (unrelated_inputs_round_to_nearest, with_grid(cuts_off)),
        (unrelated_inputs_round_to_nearest, with_grid(keeps_the_last)),
        (errors_are_smaller, NoAnswer),
        (is_the_slow_one, NoAnswer),
        (is_the_slow_one, with_grid(stale_scales)),
        (is_the_slow_one, with_grid(without_clamp)),
        (rounding_again_changes_nothing, with_grid(half_a_step_off)),
        (grids_are_small, with_grid(without_clamp)),
        (grids_are_small, with_grid(keeps_the_last)),
    ],
    ids=lambda value: value.__name__,
)
def test_the_method_passes_and_its_twin_fails(oracle: Callable[[Make], None], broken: Make) -> None:
    oracle(GPTQ)
    with pytest.raises(AssertionError):
        oracle(broken)


@pytest.mark.parametrize("groups", [1, 2])
def test_a_convolution_is_its_matrix(groups: int) -> None:
    """Each group of channels as a linear layer on its unfolded inputs."""
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Conv2d(4, 6, 3, padding=1, groups=groups)), draw(8, 4, 5, 5)
    weight = model[0].weight.detach().clone()
    host = host_of(GPTQ, model, x)
    host.begin()
    host.finish()
    seen = nn.functional.unfold(x, 3, padding=1).unflatten(1, (groups, -1))
    parts = [rounded(GPTQ, w.flatten(1), seen[:, g].mT.flatten(0, 1)) for g, w in enumerate(weight.chunk(groups))]
    torch.testing.assert_close(host.state()["0.weight"].flatten(1), torch.cat(parts))


@pytest.mark.parametrize("batch", [1, 7, 100])
def test_how_examples_are_batched_changes_no_value(batch: int) -> None:
    values = [rounded(GPTQ, draw(6, 24), related(100, 24), batch=size) for size in (batch, 16)]
    torch.testing.assert_close(values[0], values[1])


def test_an_order_by_importance_follows_the_inputs() -> None:
    """Inputs in another order give the same values in that order; in the order of the columns they do not."""
    weight, x = draw(6, 24), related(100, 24)
    turn = torch.randperm(24, generator=torch.Generator().manual_seed(3))
    for order in (True, False):
        plain, turned = rounded(GPTQ, weight, x, order=order), rounded(GPTQ, weight[:, turn], x[:, turn], order=order)
        assert torch.allclose(plain[:, turn], turned, atol=1e-6) == order


def test_columns_without_inputs_round_to_nearest() -> None:
    weight, x = draw(6, 24), related(100, 24)
    x[:, 5:9] = 0
    values = rounded(GPTQ, weight, x, damp=0.0)
    assert np.array_equal(values.numpy()[:, 5:9], nearest(weight.numpy(), 4, 0)[:, 5:9])
    assert torch.equal(rounded(GPTQ, torch.zeros(2, 8), related(20, 8)), torch.zeros(2, 8))


BAD = [
    ({"bits": 1}, "bits = 1; use a whole number, 2 to 16"),
    ({"bits": 17}, "bits = 17"),
    ({"bits": 4.5}, "bits = 4.5"),
    ({"group": -1}, "group = -1; use a whole number, 0 for one scale a row"),
    ({"block": 0}, "block = 0"),
    ({"damp": -0.1}, "damp = -0.1; use a share"),
    ({"group": 96}, "group = 96 and block = 128; one must be a multiple of the other"),
]


@pytest.mark.parametrize(("options", "message"), BAD, ids=str)
def test_parameters_that_cannot_be_are_errors_before_any_work(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=f"gptq: {message}"):
        host_of(GPTQ, nn.Sequential(nn.Linear(8, 4)), draw(3, 8), **options).begin()


def test_a_singular_hessian_is_said() -> None:
    host = host_of(GPTQ, nn.Sequential(nn.Linear(12, 6)), draw(3, 12), damp=0.0)
    host.begin()
    host.finish()
    assert host.notes == ["a singular Hessian was damped by 1e-06 of its mean diagonal, not 0"]
