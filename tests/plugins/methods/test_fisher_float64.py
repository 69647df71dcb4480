"""WoodFisher and M-FAC leave a float64 model with all of its digits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from sparsebench.builtin.methods._mfac import MFAC
from sparsebench.builtin.methods._woodfisher import WoodFisher
from sparsebench.plugin import Calibration, Update
from sparsebench.pruning.host import Host

Make = Callable[..., Any]
CLASSES: dict[str, type[Any]] = {"woodfisher": WoodFisher, "m-fac": MFAC}


def examples() -> Calibration:
    inputs = torch.randn(64, 8, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    return Calibration(inputs, inputs[:, :3].argmax(1), count=48)


def drawn(net: Make) -> Any:
    """Weights that no float32 is equal to."""
    model = net().double()
    draw = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1 + 0.01 * torch.rand(parameter.shape, generator=draw, dtype=torch.float64))
    return model


def digits_stay(make: Callable[[], Any], method: str, host_of: Make, net: Make) -> None:
    """Where damping leaves nothing to make up for, what is kept stays as it was, to a float64's digits; and elsewhere
    what it becomes has them too."""
    for damp in ("1e12", "1e-5"):
        before = {name: value.clone() for name, value in drawn(net).state_dict().items()}
        host: Host = host_of(f"{method}@damp={damp}", 0.8, model=drawn(net), calibration=examples(), method=make())
        host.begin()
        host.finish()
        for name, mask in host.masks.items():
            after = host.ctx.prunable[name]
            assert after.dtype == torch.float64
            kept = after[mask]
            assert float((kept != kept.float().double()).double().mean()) > 0.99
            if damp == "1e12":
                torch.testing.assert_close(kept, before[name][mask], rtol=1e-11, atol=0)


def rounding(of: type[Any]) -> type[Any]:
    """The fault: values are made float32 on their way."""

    class Rounds(of):  # type: ignore[misc, valid-type]
        def compress(self, calibration: Any, ctx: Any) -> Update:
            update = super().compress(calibration, ctx)
            weights: dict[str, Tensor] = {name: value.float() for name, value in update.weights.items()}
            return Update(**{**update._asdict(), "weights": weights})

    return Rounds


@pytest.mark.parametrize("method", CLASSES)
def test_digits_of_float64_stay(method: str, host_of: Make, net: Make) -> None:
    digits_stay(CLASSES[method], method, host_of, net)
    with pytest.raises(AssertionError):
        digits_stay(rounding(CLASSES[method]), method, host_of, net)


@pytest.mark.parametrize("method", CLASSES)
def test_a_float32_model_stays_one(method: str, host_of: Make) -> None:
    given = examples()
    host: Host = host_of(method, 0.8, calibration=replace(given, inputs=given.inputs.float()))
    host.begin()
    host.finish()
    assert {weight.dtype for weight in host.ctx.prunable.values()} == {torch.float32}
