"""State dicts in .npz: tensors to the bit, CSR made dense, no code run, and what is wrong named."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from sparsebench.errors import CheckpointError
from sparsebench.training.checkpoints import load_checkpoint, read_checkpoint

DENSE = np.array([[0, 2, 0, 0], [0, 0, 0, 0], [1, 0, 0, -3]], dtype=np.float32)


def csr(layer: str = "0", **changes: Any) -> dict[str, Any]:
    """`DENSE` in the four parts that published files use, types as there."""
    parts = {
        "data": np.array([2, 1, -3], dtype=np.float32), "indices": np.array([1, 0, 3], dtype=np.uint16),
        "indptr": np.array([0, 1, 1, 3], dtype=np.int32), "shape": np.array([3, 4]),
    }  # fmt: skip
    return {f"{layer}.{part}": array for part, array in (parts | changes).items() if array is not None}


def saved(tmp_path: Path, **arrays: Any) -> Path:
    np.savez_compressed(tmp_path / "a.npz", **arrays)
    return tmp_path / "a.npz"


def test_tensors_come_back_to_the_bit(tmp_path: Path) -> None:
    arrays = {
        "w": np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32), "half": np.ones(2, dtype=np.float16),
        "count": np.array(7), "foreign": np.array([1.5, 2.5], dtype=">f4"), "turned": np.arange(6.0).reshape(2, 3).T,
    }  # fmt: skip
    state = read_checkpoint(saved(tmp_path, **arrays))
    assert list(state) == list(arrays)
    for name, array in arrays.items():
        assert state[name].shape == array.shape
        assert state[name].tolist() == array.tolist()
        assert state[name].is_contiguous()
    assert (state["half"].dtype, state["count"].dtype) == (torch.float16, torch.int64)


def test_loads_into_a_model(tmp_path: Path) -> None:
    torch.manual_seed(0)
    source, target = (
        nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)),
        nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)),
    )
    path = saved(tmp_path, **{name: tensor.numpy() for name, tensor in source.state_dict().items()})
    load_checkpoint(target, path)
    assert all(torch.equal(tensor, target.state_dict()[name]) for name, tensor in source.state_dict().items())


@pytest.mark.parametrize("layer", ["0", "0.weight"])
def test_csr_becomes_the_dense_weight(tmp_path: Path, layer: str) -> None:
    path = saved(tmp_path, **csr(layer), **{"0.bias": np.ones(3, dtype=np.float32)})
    model = nn.Sequential(nn.Linear(4, 3))
    load_checkpoint(model, path)
    assert model[0].weight.tolist() == DENSE.tolist()


def test_csr_of_a_convolution_and_of_nothing(tmp_path: Path) -> None:
    state = read_checkpoint(saved(tmp_path, **csr(shape=np.array([3, 1, 2, 2]))))
    assert state["0.weight"].tolist() == DENSE.reshape(3, 1, 2, 2).tolist()
    none = csr(data=np.zeros(0), indices=np.zeros(0, dtype=int), indptr=np.zeros(4, dtype=int))
    assert read_checkpoint(saved(tmp_path, **none))["0.weight"].tolist() == np.zeros((3, 4)).tolist()


def test_a_sparse_module_s_own_parts_stay_as_they_are(tmp_path: Path) -> None:
    parts = {"0.values": np.ones(2), "0.indptr": np.array([0, 2]), "0.indices": np.array([0, 1])}
    assert list(read_checkpoint(saved(tmp_path, **parts))) == list(parts)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shape": None}, r"does not have 0\.shape"),
        ({"indices": None}, r"does not have 0\.indices"),
        ({"data": np.array([2, 1, -3])}, r"0\.data is int64 \[3\], not a list of floats"),
        ({"indptr": np.array([0.0, 1, 1, 3])}, r"0\.indptr is float64"),
        ({"indices": np.zeros((3, 1), dtype=int)}, r"0\.indices is int64 \[3, 1\]"),
        ({"shape": np.array([12])}, r"0\.shape is \[12\]"),
        ({"shape": np.array([3, -4])}, r"0\.shape is \[3, -4\]"),
        ({"shape": np.array([3, 2**40])}, r"0\.shape is \[3, 1099511627776\]"),
        ({"shape": np.array([4, 4])}, r"0\.indptr does not divide 3 values among 4 rows"),
        ({"indptr": np.array([0, 1, 0, 3])}, r"0\.indptr"),
        ({"indptr": np.array([0, 1, 1, 2])}, r"0\.indptr"),
        ({"indptr": np.array([1, 1, 1, 3])}, r"0\.indptr"),
        ({"indptr": np.zeros(0, dtype=int)}, r"0\.indptr"),
        ({"indices": np.array([1, 0])}, r"0\.indices are not 3 columns"),
        ({"indices": np.array([1, 0, 4])}, r"0\.indices are not 3 columns below 4"),
        ({"indices": np.array([1, 0, -1])}, r"0\.indices are not 3 columns below 4"),
        ({"indices": np.array([1, 3, 3])}, r"0\.indices name a column of a row twice"),
    ],
)
def test_parts_that_are_no_matrix_are_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = saved(tmp_path, **csr(**changes))
    with pytest.raises(CheckpointError, match=message) as caught:
        read_checkpoint(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_weight_that_is_there_twice_is_named(tmp_path: Path) -> None:
    for more in ({"0.weight": DENSE}, csr("0.weight")):
        with pytest.raises(CheckpointError, match=r"has 0\.weight twice"):
            read_checkpoint(saved(tmp_path, **csr(), **more))


@pytest.mark.parametrize(
    "odd", [np.array(["a"]), np.array([1j]), np.array([b"csr"]), np.array(["2020-01-01"], dtype="datetime64[D]")]
)
def test_what_is_no_number_is_named(tmp_path: Path, odd: np.ndarray) -> None:
    path = saved(tmp_path, fine=np.ones(2), odd=odd)
    with pytest.raises(CheckpointError, match=r"odd is .*, not numbers") as caught:
        read_checkpoint(path)
    assert str(path) in str(caught.value)


class Payload:
    """Runs a command when it is unpickled."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> Any:
        return os.system, (self.command,)


def test_code_in_an_npz_is_not_run(tmp_path: Path) -> None:
    witness = tmp_path / "witness"
    path = saved(tmp_path, evil=np.array([Payload(f"touch {witness}")], dtype=object))
    with pytest.raises(CheckpointError, match="evil cannot be read"):
        read_checkpoint(path)
    assert not witness.exists()
    with np.load(path, allow_pickle=True) as file:
        _ = file["evil"]
    assert witness.exists()  # the trap works


def damages() -> dict[str, Callable[[bytes], bytes]]:
    return {
        "empty": lambda data: b"",
        "junk": lambda data: b"junk",
        "cut": lambda data: data[: len(data) // 2],
        "flipped byte": lambda data: data[:60] + bytes([data[60] ^ 255]) + data[61:],
        "no archive": lambda data: b"\x93NUMPY\x01\x00",
    }


@pytest.mark.parametrize("kind", damages())
def test_a_damaged_file_is_named(tmp_path: Path, kind: str) -> None:
    path = saved(tmp_path, w=np.random.default_rng(0).normal(size=(30, 40)))
    path.write_bytes(damages()[kind](path.read_bytes()))
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_npy_that_is_called_npz(tmp_path: Path) -> None:
    with (tmp_path / "a.npz").open("wb") as file:
        np.save(file, np.ones(3))
    with pytest.raises(CheckpointError, match=r"a\.npz"):
        read_checkpoint(tmp_path / "a.npz")


def test_an_archive_without_arrays(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"a\.npz"):
        read_checkpoint(saved(tmp_path))
