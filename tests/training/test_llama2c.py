"""llama2.c files: sizes are checked to the byte, a classifier of its own is read, and a torch file called .bin too."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from sparsebench.errors import CheckpointError
from sparsebench.training.checkpoints import find_checkpoint, read_checkpoint

DIM, HIDDEN, LAYERS, HEADS, KV, VOCAB, POSITIONS = 8, 12, 2, 2, 1, 5, 6
BLOCK = DIM + 2 * DIM * DIM + 2 * DIM * DIM // 2 + DIM + 3 * HIDDEN * DIM
COUNT = VOCAB * DIM + LAYERS * BLOCK + DIM + POSITIONS * DIM // HEADS


def content(vocabulary: int = VOCAB, more: int = 0) -> bytes:
    """Weight number i is i: what is read tells where it stood."""
    header = struct.pack("<7i", DIM, HIDDEN, LAYERS, HEADS, KV, vocabulary, POSITIONS)
    return header + np.arange(COUNT + more, dtype="<f4").tobytes()


def test_names_shapes_and_places(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(content())
    state = read_checkpoint(tmp_path / "a.bin")
    assert len(state) == 2 + 9 * LAYERS
    assert torch.equal(state["tok_embeddings.weight"], torch.arange(VOCAB * DIM).reshape(VOCAB, DIM).float())
    first = VOCAB * DIM
    assert float(state["layers.1.attention_norm.weight"][0]) == first + DIM
    assert float(state["layers.1.attention.wq.weight"][0, 0]) == first + LAYERS * DIM + DIM * DIM
    assert state["layers.0.attention.wk.weight"].shape == (DIM // 2, DIM)
    assert state["layers.0.feed_forward.w2.weight"].shape == (DIM, HIDDEN)
    assert float(state["norm.weight"][-1]) == first + LAYERS * BLOCK + DIM - 1
    assert "output.weight" not in state, "the embedding is the classifier"


def test_a_classifier_of_its_own_follows_the_rotations(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(content(-VOCAB, VOCAB * DIM))
    output = read_checkpoint(tmp_path / "a.bin")["output.weight"]
    assert torch.equal(output, torch.arange(COUNT, COUNT + VOCAB * DIM).reshape(VOCAB, DIM).float())


def with_header(place: int, value: int) -> Callable[[bytes], bytes]:
    return lambda data: data[: 4 * place] + struct.pack("<i", value) + data[4 * place + 4 :]


DAMAGES: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "empty": (lambda data: b"", "0 bytes are too few"),
    "header alone": (lambda data: data[:28], f"has 28 bytes, and {28 + 4 * COUNT} go with its header"),
    "cut": (lambda data: data[:-1], "is it a legacy float32 checkpoint of llama2.c, and whole"),
    "too long": (lambda data: data + b"\0\0\0\0", "go with its header"),
    "newer version": (lambda data: b"24ka" + data, "dim = "),
    "no layers": (with_header(2, 0), "n_layers = 0"),
    "huge": (with_header(1, 1 << 30), "hidden_dim = 1073741824"),
    "heads": (with_header(3, 3), "dim = 8 does not go with 3 heads"),
    "kv heads": (with_header(4, 3), "does not go with 2 heads and 3"),
    "other vocabulary": (with_header(5, VOCAB + 1), "go with its header"),
    "tied or not": (with_header(5, -VOCAB), "go with its header"),
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_damaged_file_is_named(tmp_path: Path, kind: str) -> None:
    change, message = DAMAGES[kind]
    path = tmp_path / "a.bin"
    path.write_bytes(change(content()))
    with pytest.raises(CheckpointError, match=message) as caught:
        read_checkpoint(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_torch_file_may_be_called_bin(tmp_path: Path, zipped: bool) -> None:
    torch.save({"weight": torch.ones(2)}, tmp_path / "a.bin", _use_new_zipfile_serialization=zipped)
    assert torch.equal(read_checkpoint(tmp_path / "a.bin")["weight"], torch.ones(2))


def test_it_is_found_as_a_file_or_in_a_folder_of_its_name(tmp_path: Path) -> None:
    folder = tmp_path / "models" / "stories"
    folder.mkdir(parents=True)
    (folder / "tokenizer.bin").touch()
    with pytest.raises(CheckpointError, match="'stories' is no file here"):
        find_checkpoint("stories", tmp_path)
    (folder / "checkpoint_legacy.bin").touch()
    assert find_checkpoint("stories", tmp_path) == folder / "checkpoint_legacy.bin"
    with pytest.raises(CheckpointError, match="did you mean 'stories'"):
        find_checkpoint("storys", tmp_path)
    (tmp_path / "models" / "stories.bin").touch()
    assert find_checkpoint("stories", tmp_path) == tmp_path / "models" / "stories.bin"
