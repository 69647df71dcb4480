"""Checkpoints load whole or not at all, run no code, and say which file and name is wrong."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from sparsebench.errors import CheckpointError
from sparsebench.training.checkpoints import load_checkpoint, read_checkpoint, save_checkpoint


def net(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))


def same(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(x, b.state_dict()[name]) for name, x in a.state_dict().items())


@pytest.mark.parametrize("form", ["safetensors", "plain", "state_dict", "model"])
def test_goes_there_and_back(tmp_path: Path, form: str) -> None:
    source, target = net(1), net(2)
    path = tmp_path / ("a.safetensors" if form == "safetensors" else "a.pt")
    if form == "safetensors":
        save_checkpoint(source.state_dict(), path)
    else:
        state = source.state_dict()
        torch.save(state if form == "plain" else {form: state, "epoch": 3}, path)
    assert not same(source, target)
    load_checkpoint(target, path)
    assert same(source, target)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_saves_views_and_shared_tensors(tmp_path: Path) -> None:
    base = torch.arange(12.0).reshape(3, 4)
    save_checkpoint({"a": base.t(), "b": base[1:]}, tmp_path / "a.safetensors")
    state = read_checkpoint(tmp_path / "a.safetensors")
    assert torch.equal(state["a"], base.t())
    assert torch.equal(state["b"], base[1:])


class Payload:
    """Runs a command when it is unpickled in the usual way."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> Any:
        return os.system, (self.command,)


@pytest.mark.parametrize("how", ["torch", "pickle"])
def test_code_in_a_checkpoint_is_not_run(tmp_path: Path, how: str) -> None:
    path, witness = tmp_path / "evil.pt", tmp_path / "witness"
    state = {"0.weight": Payload(f"touch {witness}")}
    if how == "torch":
        torch.save(state, path)
    else:
        path.write_bytes(pickle.dumps(state))
    with pytest.raises(CheckpointError, match="without running code") as caught:
        load_checkpoint(net(), path)
    assert not witness.exists()
    assert str(path) in str(caught.value)
    torch.load(path, weights_only=False) if how == "torch" else pickle.loads(path.read_bytes())
    assert witness.exists()  # the trap works


@pytest.mark.parametrize("name", ["a.pt", "a.safetensors"])
@pytest.mark.parametrize("content", [b"", b"junk", b"PK\x03\x04 cut", b"\xff" * 100])
def test_a_file_that_is_no_checkpoint_is_named(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such file"):
        read_checkpoint(tmp_path / "a.pt")


@pytest.mark.parametrize("content", [[1, 2], {}, {"a": 1}, {3: torch.ones(1)}])
def test_tensors_with_names_are_needed(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(CheckpointError):
        read_checkpoint(tmp_path / "a.pt")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("0.weight"), r"does not have 0\.weight"),
        (lambda s: s.update(fc=torch.ones(1)), "has fc, which the model does not know"),
        (lambda s: s.update({"0.weight": torch.ones(4, 3)}), r"0\.weight is \[4, 3\] and the model has \[3, 4\]"),
        (lambda s: [s.pop(name) for name in list(s)[:5]] and s.update(x=torch.ones(1)), "and 2 more"),
    ],
)
def test_names_and_shapes_that_do_not_fit_are_said_and_nothing_is_loaded(
    tmp_path: Path, change: Any, message: str
) -> None:
    state = net(1).state_dict()
    change(state)
    save_file(dict(state), tmp_path / "a.safetensors")
    model = net(2)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(model, tmp_path / "a.safetensors")
    assert same(model, net(2))


def test_old_batch_norms_without_a_counter_load(tmp_path: Path) -> None:
    state = {name: t for name, t in net(1).state_dict().items() if "num_batches" not in name}
    save_checkpoint(state, tmp_path / "a.safetensors")
    model = net(2)
    load_checkpoint(model, tmp_path / "a.safetensors")
    assert same(model, net(1))


def test_a_sparse_module_may_take_another_number_of_non_zeros(tmp_path: Path) -> None:
    class Csr(nn.Module):
        def __init__(self, nnz: int) -> None:
            super().__init__()
            self.values = nn.Parameter(torch.ones(nnz))
            self.register_buffer("indptr", torch.tensor([0, nnz]))
            self.register_buffer("indices", torch.arange(nnz))

        def _load_from_state_dict(self, state: dict[str, Tensor], prefix: str, *rest: Any) -> None:
            self.values = nn.Parameter(state[f"{prefix}values"].clone())
            self.indices = state[f"{prefix}indices"].clone()

    save_checkpoint(nn.Sequential(Csr(3)).state_dict(), tmp_path / "a.safetensors")
    model = nn.Sequential(Csr(5))
    load_checkpoint(model, tmp_path / "a.safetensors")
    assert model[0].values.numel() == 3
