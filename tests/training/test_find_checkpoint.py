"""Finding a checkpoint by path or name, and fitting the names inside to a model's."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from sparsebench.errors import CheckpointError
from sparsebench.training.checkpoints import find_checkpoint, fitted, load_checkpoint, save_checkpoint


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "models").mkdir()
    for name in ("lenet_v1.0.npz", "lenet_sparse.safetensors", "resnet.pt", "both.pt", "both.npz", "notes.txt"):
        (tmp_path / "models" / name).touch()
    return tmp_path


def test_a_path_is_itself_and_goes_first(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = root / "models" / "resnet.pt"
    assert find_checkpoint(str(path), None) == find_checkpoint(str(path), root) == path
    monkeypatch.chdir(tmp_path)
    (tmp_path / "resnet").touch()
    assert find_checkpoint("resnet", root) == Path("resnet")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert find_checkpoint("~/models/resnet.pt", None) == path


@pytest.mark.parametrize(
    ("name", "file"),
    [("lenet_v1.0", "lenet_v1.0.npz"), ("lenet_sparse", "lenet_sparse.safetensors"), ("both", "both.npz")],
)
def test_a_name_is_looked_for_among_the_models(root: Path, name: str, file: str) -> None:
    assert find_checkpoint(name, root) == root / "models" / file


def test_a_folder_is_no_checkpoint(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    (root / "resnet").mkdir()
    assert find_checkpoint("resnet", root) == root / "models" / "resnet.pt"


def test_what_is_not_there_says_where_it_was_looked_for(root: Path) -> None:
    with pytest.raises(CheckpointError) as caught:
        find_checkpoint("lenet_spars", root)
    for part in ("'lenet_spars'", str(root / "models"), ".npz, .safetensors, .pt", "did you mean 'lenet_sparse'"):
        assert part in str(caught.value)
    assert "notes" not in str(caught.value)
    with pytest.raises(CheckpointError, match="SPARSEBENCH_DATA"):
        find_checkpoint("lenet_sparse", None)
    with pytest.raises(CheckpointError, match="empty"):
        find_checkpoint("lenet_sparse", root / "empty")


T = torch.ones(1)


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("linear.weight", "fc.weight"), ("fc.weight", "linear.weight"), ("module.fc.bias", "fc.bias"),
        ("layer2.0.shortcut.0.weight", "layer2.0.downsample.0.weight"), ("ip1.weight", "fc1.weight"),
        ("fc3.bias", "ip3.bias"), ("module.linear.weight", "fc.weight"), ("_orig_mod.module.ip2.bias", "fc2.bias"),
        ("module.layer1.0.bn1.weight", "layer1.0.bn1.weight"),
    ],
)  # fmt: skip
def test_published_spellings_come_to_the_model_s(theirs: str, ours: str) -> None:
    assert list(fitted({theirs: T, "conv1.weight": T}, {ours: T, "conv1.weight": T}, "a.pt")) == [ours, "conv1.weight"]


@pytest.mark.parametrize("name", ["module.weight", "linear.weight", "fc.weight", "head.shortcut.weight"])
def test_a_name_that_the_model_has_stays(name: str) -> None:
    assert list(fitted({name: T}, {name: T, "weight": T, "downsample.weight": T}, "a.pt")) == [name]


@pytest.mark.parametrize("name", ["nonlinear.weight", "linear2.weight", "module.head.weight", "fc", "ip1.bias"])
def test_a_name_that_fits_in_no_spelling_stays(name: str) -> None:
    assert list(fitted({name: T}, {"fc.weight": T}, "a.pt")) == [name]


def test_two_names_for_one_parameter_are_both_said() -> None:
    with pytest.raises(CheckpointError, match=r"a\.pt: has fc\.weight and module\.fc\.weight, and both are fc\.weight"):
        fitted({"fc.weight": T, "module.fc.weight": T}, {"fc.weight": T}, "a.pt")


def test_a_checkpoint_of_a_wrapped_model_loads(tmp_path: Path) -> None:
    class Net(nn.Module):
        def __init__(self, name: str) -> None:
            super().__init__()
            self.add_module(name, nn.Linear(2, 2))

    source, target = Net("linear"), Net("fc")
    save_checkpoint(
        {f"module.{name}": tensor for name, tensor in source.state_dict().items()}, tmp_path / "a.safetensors"
    )
    load_checkpoint(target, tmp_path / "a.safetensors")
    assert torch.equal(target.get_parameter("fc.weight"), source.get_parameter("linear.weight"))
