"""A problem says its shapes as torch has them, and an impossible one is refused in one line that helps."""

from typing import Any

import pytest
import torch

from sparsebench.errors import ProblemError
from sparsebench.problem import Problem

LINEAR: dict[str, Any] = {"op": "linear", "out_features": 8, "in_features": 6, "batch": 3}
CONV: dict[str, Any] = {
    "op": "conv2d",
    "out_features": 8,
    "in_features": 6,
    "kernel_size": (3, 3),
    "height": 9,
    "width": 7,
}


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"stride": (2, 1), "padding": (1, 0)},
        {"dilation": (2, 3)},
        {"groups": 2, "batch": 4},
        {"kernel_size": (9, 7)},
        {"kernel_size": (1, 5), "padding": (3, 2), "stride": (3, 2), "groups": 2},
    ],
)
def test_shapes_are_torchs(change: dict[str, Any]) -> None:
    p = Problem(**{**CONV, **change})
    layer = torch.nn.Conv2d(p.in_features, p.out_features, p.kernel_size, p.stride, p.padding, p.dilation, p.groups)
    output = layer(torch.zeros(p.input_shape))
    assert p.weight_shape == tuple(layer.weight.shape)
    assert p.output_shape == tuple(output.shape)
    assert p.output_size == tuple(output.shape[2:])
    assert p.columns == layer.weight[0].numel()
    assert p.positions == output.numel() // p.out_features


def test_the_output_follows_an_input_of_another_size_than_the_hint() -> None:
    p = Problem(**CONV, stride=(2, 1), padding=(1, 0), dilation=(1, 2))
    layer = torch.nn.Conv2d(p.in_features, p.out_features, p.kernel_size, p.stride, p.padding, p.dilation)
    for height, width in ((9, 7), (10, 5), (4, 31)):
        output = layer(torch.zeros(1, p.in_features, height, width))
        assert p.output_size_of(height, width) == tuple(output.shape[2:])
    assert p.output_size_of(1, 4) == (1, 0)
    assert Problem(**LINEAR).output_size_of(1, 1) == (1, 1)


def test_linear_is_a_matrix() -> None:
    p = Problem(**LINEAR)
    assert (p.weight_shape, p.input_shape, p.output_shape) == ((8, 6), (3, 6), (3, 8))
    assert (p.columns, p.positions, p.output_size) == (6, 3, (1, 1))


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({**LINEAR, "op": "conv3d"}, "did you mean 'conv2d'"),
        ({**LINEAR, "dtype": "float23"}, "did you mean 'float32'"),
        ({**LINEAR, "dtype": "int8"}, "float32"),
        ({**LINEAR, "pattern": "nm:2"}, "nm:2:4"),
        ({**LINEAR, "pattern": "block:0"}, "block:8"),
        ({**LINEAR, "batch": 0}, "at least 1"),
        ({**LINEAR, "batch": 2.0}, "whole number"),
        ({**LINEAR, "threads": True}, "whole number"),
        ({**LINEAR, "sparsity": 1.0}, r"\[0, 1\)"),
        ({**LINEAR, "sparsity": -0.1}, r"\[0, 1\)"),
        ({**LINEAR, "sparsity": float("nan")}, r"\[0, 1\)"),
        ({**LINEAR, "kernel_size": (3, 3)}, "leave kernel_size out"),
        ({**LINEAR, "height": 2}, "leave height out"),
        ({**LINEAR, "out_features": 2**16, "in_features": 2**16}, "int32"),
        ({**LINEAR, "pattern": "nm:2:4", "in_features": 8}, r"sparsity must be 0\.5 for nm:2:4, not 0\.9"),
        ({**LINEAR, "pattern": "nm:2:3", "sparsity": 0.34}, r"sparsity must be 0\.333333 for nm:2:3, not 0\.34"),
        ({**LINEAR, "pattern": "nm:4:2", "sparsity": 0.5}, "keeps 4 of 2; use nm:KEPT:GROUP, as in nm:2:4"),
        ({**LINEAR, "pattern": "nm:2:4", "sparsity": 0.5}, "6 input features do not divide into nm:2:4's groups of 4"),
        ({**CONV, "pattern": "nm:1:2", "sparsity": 0.5, "groups": 2}, "3 input channels per group do not divide"),
        ({**CONV, "groups": 4}, "does not divide"),
        ({**CONV, "stride": (0, 1)}, "two whole numbers of at least 1"),
        ({**CONV, "padding": (-1, 1)}, "two whole numbers of at least 0"),
        ({**CONV, "kernel_size": 3}, "two whole numbers"),
        ({**CONV, "kernel_size": (10, 3)}, "does not fit"),
        ({**CONV, "dilation": (5, 1)}, "enlarge the input"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(given: dict[str, Any], reason: str) -> None:
    with pytest.raises(ProblemError, match=reason) as raised:
        Problem(**given)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("pattern", ["uniform", "row-skewed", "block:8", "file:rn50/0.9/layer.smtx"])
def test_patterns_that_are_known(pattern: str) -> None:
    assert Problem(**LINEAR, pattern=pattern).pattern == pattern


@pytest.mark.parametrize(
    ("pattern", "sparsity"), [("nm:1:2", 0.5), ("nm:2:3", 0.33), ("nm:1:6", 1 - 1 / 6), ("nm:3:3", 0.0)]
)
def test_nm_goes_with_the_sparsity_it_implies(pattern: str, sparsity: float) -> None:
    assert Problem(**LINEAR, pattern=pattern, sparsity=sparsity).pattern == pattern
    grouped = {**CONV, "groups": 2, "in_features": 12}
    assert Problem(**grouped, pattern=pattern, sparsity=sparsity).pattern == pattern


def test_it_describes_what_is_not_usual() -> None:
    assert Problem(**LINEAR).describe() == "linear 6->8 batch 3 at 0.9"
    text = Problem(**CONV, groups=2, stride=(2, 2), padding=(1, 1), pattern="block:4", sparsity=0.5).describe()
    assert text == "conv2d 6->8 3x3 on 9x7 stride (2, 2) padding (1, 1) groups 2 batch 1 at 0.5 block:4"
