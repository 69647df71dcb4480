"""From a model, a layer or a suite to kernel cells; each problem once, and every impossible wish in one sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sparsebench.errors import ProblemError, UsageError
from sparsebench.harness.crew import Limits
from sparsebench.harness.targets import Target, Wanted, find_target, parse_shape
from sparsebench.registry import Registry, load_registry

SUITE = """
schema = 1
[suite]
name = "tiny"
threads = [1, 2]
[[kernel]]
name = "small"
op = "linear"
out_features = 8
in_features = 6
sparsity = [0.5, 0.9]
pass = ["forward", "both"]
[[kernel]]
name = "twin"
op = "linear"
out_features = 8
in_features = 6
threads = [1]
[[inference]]
name = "logits"
model = "mlp"
dataset = "digits"
"""
PLUGIN = """
import torch
from torch import nn
from sparsebench.plugin import ModelSpec, hookimpl

@hookimpl
def sparsebench_models():
    return [ModelSpec(name=name, summary="", load=f"{__name__}:{name}", inputs="3x8x8")
            for name in ("odd", "hopeless", "broken")]

def odd(*, num_classes, in_channels):
    tied = nn.Linear(16, 16)
    twin = nn.Linear(16, 16)
    twin.weight = tied.weight
    return nn.Sequential(nn.Conv2d(in_channels, 4, 3, stride=4, padding=1), nn.Flatten(), nn.Linear(16, 16), nn.ReLU(),
                         nn.Linear(16, 16), tied, twin, nn.Linear(16, num_classes))

def hopeless(*, num_classes, in_channels):
    return nn.Flatten()

def broken(*, num_classes, in_channels):
    raise ValueError("no luck")
"""


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    file = tmp_path_factory.mktemp("targets") / "models.py"
    file.write_text(PLUGIN)
    return load_registry([file])


def find(registry: Registry, text: str, **wanted: Any) -> Target:
    return find_target(text, registry, Wanted(**wanted), Limits())


def test_the_layers_of_a_model_each_problem_once(registry: Registry) -> None:
    target = find(registry, "odd", shape=(2, 3, 8, 8), classes=5, threads=2, passes="forward", sparsities=(0.5, 0.75))
    assert target.layers == {"0": ("0",), "2": ("2", "4"), "7": ("7",)}
    assert [(c.case.name, c.axes["sparsity"]) for c in target.cells] == [
        (name, sparsity) for name in ("0", "2", "7") for sparsity in (0.5, 0.75)
    ]
    conv, _, fc, *_, last = (cell.problem for cell in target.cells)
    assert conv is not None and fc is not None and last is not None
    assert (conv.kernel_size, conv.stride, conv.padding, conv.height) == ((3, 3), (4, 4), (1, 1), 8)
    assert (fc.in_features, fc.batch, fc.threads, fc.bias, last.out_features) == (16, 2, 2, True, 5)
    assert {cell.parameters["pass"] for cell in target.cells} == {"forward"}
    assert set(target.left) == {"5", "6"}
    assert "shared with another layer" in target.left["5"]


def test_layers_that_the_pattern_does_not_fit_are_left_with_the_reason(registry: Registry) -> None:
    target = find(registry, "odd", shape=(2, 3, 8, 8), pattern="nm:2:4")
    assert list(target.layers) == ["2", "7"]
    assert "groups of 4" in target.left["0"]
    assert {cell.axes["sparsity"] for cell in target.cells} == {0.5}, "what the pattern says"


def test_one_layer_as_text(registry: Registry) -> None:
    (cell,) = find(registry, "linear:8x6", shape=(4, 6), pattern="row-skewed").cells
    assert cell.problem is not None
    assert (cell.problem.op, cell.problem.out_features, cell.problem.in_features) == ("linear", 8, 6)
    assert (cell.problem.batch, cell.problem.sparsity, cell.problem.pattern) == (4, 0.9, "row-skewed")
    (cell,) = find(registry, "conv2d:9x2x3x1", shape=(4, 6, 5, 7)).cells
    assert cell.problem is not None
    assert (cell.problem.in_features, cell.problem.groups, cell.problem.padding) == (6, 3, (1, 0))
    assert cell.problem.output_shape == (4, 9, 5, 7)


def test_the_kernel_cases_of_a_suite_each_problem_once(registry: Registry, tmp_path: Path) -> None:
    file = tmp_path / "tiny.toml"
    file.write_text(SUITE)
    target = find(registry, str(file))
    seen = [(c.case.name, c.axes["sparsity"], c.threads, c.parameters["pass"]) for c in target.cells]
    assert seen == [("small", s, t, "both") for s in (0.5, 0.9) for t in (1, 2)]
    assert len(find(registry, str(file), threads=1, expression="0.5").cells) == 1


@pytest.mark.parametrize(
    ("text", "wanted", "message"),
    [
        ("mpl", {}, "nothing to tune is named 'mpl'; did you mean 'mlp'"),
        ("mlp", {}, "mlp needs the shape of its input, as in --input 32x784"),
        ("odd", {}, "odd needs the shape of its input, as in --input 32x3x8x8"),
        ("odd", {"shape": (2, 3)}, "--input 2x3: odd takes BATCHx3x8x8"),
        ("odd", {"shape": (2, 3, 9, 9)}, "--input 2x3x9x9: odd takes BATCHx3x8x8; torch says: mat1 and mat2"),
        ("hopeless", {"shape": (2, 3, 8, 8)}, "hopeless has no linear or conv2d layer that can be sparse: it has none"),
        ("broken", {"shape": (2, 3, 8, 8)}, "broken: ValueError: no luck"),
        ("linear:8", {"shape": (4, 6)}, "write linear:OUTxIN or conv2d:OUTxINxHEIGHTxWIDTH"),
        ("linear:8x0", {"shape": (4, 6)}, "write linear:OUTxIN"),
        ("linear:8x6", {}, "linear:8x6 needs the shape of its input, as in --input 32x6"),
        ("linear:8x6", {"shape": (4, 12)}, "--input 4x12 does not go with linear:8x6; its second size must be the IN"),
        ("conv2d:8x6x3x3", {"shape": (4, 6)}, "--input 4x6 does not go with conv2d:8x6x3x3"),
        ("linear:8x6", {"shape": (4, 6), "pattern": "stripes"}, "pattern = 'stripes' is not known"),
        ("suite-cpu", {"shape": (4, 6), "sparsities": (0.5,)}, "leave out --input and --sparsity"),
        ("suite-cpu", {"expression": "no such"}, "'no such' selects no cell"),
        ("nothing.toml", {}, "nothing.toml: no such file"),
    ],
    ids=str,
)
def test_what_cannot_be_tuned_is_said_before_work_starts(
    registry: Registry, text: str, wanted: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError) as told:
        find(registry, text, **wanted)
    assert message in str(told.value)


def test_a_suite_without_kernel_cases(registry: Registry) -> None:
    with pytest.raises(UsageError, match="suite-smoke has no kernel case to tune"):
        find(registry, "suite-smoke", expression="not kernel")


def test_shapes_as_text() -> None:
    assert parse_shape("32x3x32x32") == (32, 3, 32, 32)
    for text in ("32", "", "3x", "axb", "0x3", "3x-1", "1e3x2", "3X4"):
        with pytest.raises(ProblemError, match="write the sizes of one batch"):
            parse_shape(text)
