"""What is written is read back bit for bit, dense and as CSR; a file that is not what it says is a typed error."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from sparsebench.errors import CheckpointError, InvariantError
from sparsebench.pruning import export
from sparsebench.pruning.export import FORMAT, check_export, read_export, write_csr, write_dense

State = dict[str, Tensor]
NAME = "0.weight"


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(4, 6, 3, groups=2), nn.BatchNorm2d(6), nn.Flatten(), nn.Linear(6, 5, bias=False), nn.Linear(5, 2)
    )


def pruned(model: nn.Module, masks: State) -> State:
    """Masked weights are 0, not -0: a format that leaves them out cannot keep their signs."""
    dense = model.state_dict()
    return {n: torch.where(masks[n], weight, 0.0) if n in masks else weight for n, weight in dense.items()}


@pytest.fixture
def masks() -> State:
    """Of the convolution, with an empty row; of one linear layer; of the other nothing is dropped."""
    generator = torch.Generator().manual_seed(1)
    conv = torch.rand(6, 2, 3, 3, generator=generator) < 0.3
    conv[2] = False
    linear = torch.rand(5, 6, generator=generator) < 0.5
    return {NAME: conv, "3.weight": linear, "4.weight": torch.ones(2, 5, dtype=torch.bool)}


@pytest.fixture
def state(masks: State) -> State:
    """Pruned, with what formats like to lose: kept zeros, a negative one, a denormal."""
    made = pruned(net(), masks)
    kept = masks[NAME].view(-1).nonzero().squeeze(1)
    odd = torch.tensor([0.0, -0.0, 1e-42])
    made[NAME].view(-1)[kept[: len(odd)]] = odd
    return made


def bits(tensor: Tensor) -> list[int]:
    return tensor.reshape(-1).contiguous().view(torch.uint8).tolist()


def assert_same(one: State, other: State) -> None:
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert (other[name].shape, other[name].dtype) == (tensor.shape, tensor.dtype)
        assert bits(other[name]) == bits(tensor), name


def written_csr(state: State, masks: State, folder: Path) -> Path:
    path = folder / "model.safetensors"
    write_csr(state, masks, path)
    return path


def test_dense_comes_back_bit_for_bit(state: State, tmp_path: Path) -> None:
    write_dense(state, tmp_path / "m.safetensors")
    assert_same(state, read_export(tmp_path / "m.safetensors"))


def test_csr_comes_back_bit_for_bit_and_kept_zeros_stay_kept(state: State, masks: State, tmp_path: Path) -> None:
    path = written_csr(state, masks, tmp_path)
    again = read_export(path)
    assert_same({n: t for n, t in state.items() if n != NAME}, {n: t for n, t in again.items() if n != NAME})
    mask = masks[NAME]
    assert bits(again[NAME][mask]) == bits(state[NAME][mask])
    assert not bool(again[NAME][~mask].any())
    raw = load_file(path)
    assert raw[f"{NAME}.values"].numel() == int(mask.sum()), "an explicit zero is part of the pattern"
    assert {n for n in raw if n.endswith(".indptr")} == {f"{NAME}.indptr", "3.weight.indptr"}
    assert "4.weight" in raw, "what is not pruned stays dense"


def test_any_layout_and_shared_memory_can_be_written(masks: State, tmp_path: Path) -> None:
    given = pruned(net().to(memory_format=torch.channels_last), masks)
    given["again"] = given["3.weight"]
    given["view"] = given["3.weight"].t()
    for write in (write_dense, lambda s, p: write_csr(s, masks, p)):
        write(given, tmp_path / "m.safetensors")
        assert_same(
            {name: tensor.contiguous() for name, tensor in given.items()}, read_export(tmp_path / "m.safetensors")
        )


def test_a_model_read_back_computes_the_same(state: State, masks: State, tmp_path: Path) -> None:
    models = [net().eval(), net().eval()]
    models[0].load_state_dict(state)
    models[1].load_state_dict(read_export(written_csr(state, masks, tmp_path)))
    inputs = torch.randn(3, 4, 3, 3)
    assert torch.equal(models[0](inputs), models[1](inputs))


def test_a_file_appears_whole_or_not_at_all(
    state: State, masks: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written_csr(state, masks, tmp_path)
    before = path.read_bytes()
    assert [*tmp_path.iterdir()] == [path]

    def interrupted(_tensors: State, to: Path, _metadata: object) -> None:
        to.write_bytes(b"half")
        raise OSError("no space left")

    monkeypatch.setattr("safetensors.torch.save_file", interrupted)
    with pytest.raises(OSError, match="no space left"):
        write_dense(state, path)
    assert path.read_bytes() == before


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def torn(path: Path) -> None:
    path.write_bytes(b"\xff" * 100)


def changed(change: Callable[[State, dict[str, str]], Any]) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        tensors, metadata = load_file(path), {"format": FORMAT, NAME: "6,2,3,3", "3.weight": "5,6"}
        change(tensors, metadata)
        save_file(tensors, path, metadata)

    return damage


DAMAGES = {
    "cut short": (truncated, "is not a safetensors file"),
    "empty": (emptied, "is not a safetensors file"),
    "no header": (torn, "is not a safetensors file"),
    "no indices": (changed(lambda t, m: t.pop(f"{NAME}.indices")), f"{NAME} is no CSR weight"),
    "no weight": (changed(lambda t, m: m.update({"9.weight": "2,2"})), "9.weight is no CSR weight"),
    "shape that is none": (changed(lambda t, m: m.update({NAME: "6,x"})), f"{NAME} is no CSR weight of shape [6,x]"),
    "another shape": (changed(lambda t, m: m.update({NAME: "5,2,3,3"})), f"{NAME} is no CSR weight"),
    "a value too few": (
        changed(lambda t, m: t.update({f"{NAME}.values": t[f"{NAME}.values"][1:].clone()})), f"{NAME} is no CSR weight",
    ),
    "index outside": (changed(lambda t, m: t[f"{NAME}.indices"].fill_(18)), f"{NAME} is no CSR weight"),
    "rows that decrease": (changed(lambda t, m: t[f"{NAME}.indptr"].neg_()), f"{NAME} is no CSR weight"),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_one_line_that_names_it(damage: str, state: State, masks: State, tmp_path: Path) -> None:
    path = written_csr(state, masks, tmp_path)
    harm, message = DAMAGES[damage]
    assert read_export(path)
    harm(path)
    with pytest.raises(CheckpointError) as error:
        read_export(path)
    assert str(error.value).startswith(f"{path}: {message}")
    assert "\n" not in str(error.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"nothing\.safetensors: is not a safetensors file"):
        read_export(tmp_path / "nothing.safetensors")


def test_an_honest_state_passes_the_check(state: State, masks: State, tmp_path: Path) -> None:
    check_export(state, masks, tmp_path, "here")
    check_export(net().state_dict(), {}, tmp_path, "here")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model-csr.safetensors", "model.safetensors"]


def caught(state: State, masks: State, folder: Path) -> str:
    with pytest.raises(InvariantError) as error:
        check_export(state, masks, folder, "method m")
    assert error.value.invariant == "export"
    assert str(error.value).startswith("method m: ")
    assert str(error.value).endswith("(invariant 'export')")
    return str(error.value)


@pytest.mark.parametrize("value", [1e-30, float("nan"), float("inf")])
def test_a_masked_value_that_is_not_zero_is_caught(value: float, state: State, masks: State, tmp_path: Path) -> None:
    state[NAME][2, 0, 1, 1] = value
    assert NAME in caught(state, masks, tmp_path)


@pytest.mark.parametrize("name", [NAME, "4.weight", "1.running_mean"])
@pytest.mark.parametrize("writer", ["write_dense", "write_csr"])
def test_a_value_that_is_written_wrong_is_caught(
    writer: str, name: str, state: State, masks: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = getattr(export, writer)

    def planted(given: State, *rest: Any) -> None:
        wrong = {key: tensor.clone() for key, tensor in given.items()}
        place = masks[NAME].view(-1).nonzero()[5] if name == NAME else 0
        wrong[name].view(-1)[place] += 1
        honest(wrong, *rest)

    monkeypatch.setattr(export, writer, planted)
    file = {"write_dense": "model.safetensors", "write_csr": "model-csr.safetensors"}[writer]
    assert f"{name} is read back from {file} with other values" in caught(state, masks, tmp_path)


@pytest.mark.parametrize("name", [NAME, "4.weight", "1.running_mean"])
def test_a_name_that_is_not_written_is_caught(
    name: str, state: State, masks: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = export.write_csr

    def loses(given: State, *rest: Any) -> None:
        honest({key: tensor for key, tensor in given.items() if key != name}, *rest)

    monkeypatch.setattr(export, "write_csr", loses)
    assert f"model-csr.safetensors and the model differ in {name}" in caught(state, masks, tmp_path)


def test_a_state_without_a_pruned_weight_is_caught(state: State, masks: State, tmp_path: Path) -> None:
    del state[NAME]
    assert f"{NAME} is missing" in caught(state, masks, tmp_path)
