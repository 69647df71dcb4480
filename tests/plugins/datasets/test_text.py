"""Sets of text: windows that share no token between parts, next tokens as labels, damage named by its file."""

from __future__ import annotations

import math
import struct
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from sparsebench.builtin.datasets import _shakespeare, _tinystories, _toy_text, _wikitext_2
from sparsebench.builtin.datasets._bpe import Tokenizer
from sparsebench.builtin.datasets._shakespeare import CHARACTERS
from sparsebench.builtin.datasets._text import held_out, windows
from sparsebench.errors import DatasetCorrupt, DatasetMissing, UsageError
from sparsebench.plugin import Examples, Splits
from sparsebench.registry import load_registry
from sparsebench.training.data import check_splits, data_root

PIECES = [b"<unk>", b"<s>", b"</s>", *(f"<0x{byte:02X}>".encode() for byte in range(256))]
MERGES = [b" t", b"he", b" the", b"the", b"an", b" an", b"and", b" and", b"ee"]
LETTERS = [bytes([byte]) for byte in b" etahndo.,sirlu"]


def write(root: Path, name: str, content: str | bytes) -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def tokenizer_bytes(pieces: list[bytes]) -> bytes:
    """As llama2.c's tokenizer.py writes them: merges score the worse the later they were learnt."""
    scored = [(0.0 if i < 259 else float(259 - i), piece) for i, piece in enumerate(pieces)]
    return struct.pack("<i", max(map(len, pieces))) + b"".join(
        struct.pack("<fi", score, len(piece)) + piece for score, piece in scored
    )


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Every set in small: a stream that tells where it is from."""
    plays = "".join(CHARACTERS[(i * i) % 65] for i in range(3000))
    write(tmp_path, "text/tinyshakespeare.txt", plays)
    write(tmp_path, "text/wikitext-2.valid.txt", "valid é " * 200)
    write(tmp_path, "text/wikitext-2.test.txt", "test ü " * 100)
    write(tmp_path, "text/tinystories_train_head.txt", "the tea and the ant. " * 300)
    full = [*PIECES, *MERGES, *LETTERS]
    filled = full + [b"<%d>" % i for i in range(512 - len(full))]
    write(tmp_path, "models/stories260k/tokenizer.bin", tokenizer_bytes(filled))
    return tmp_path


SETS: dict[str, Any] = {
    "tiny-shakespeare": _shakespeare, "wikitext-2": _wikitext_2, "tinystories": _tinystories, "toy-text": _toy_text,
}  # fmt: skip


def overlapping(tokens: Tensor, length: int, where: str) -> Examples:
    """The fault: windows of the whole stream that begin anywhere, so that parts share tokens."""
    starts = range(0, len(tokens) - length, max(1, length // 2))
    return Examples(torch.stack([tokens[s : s + length] for s in starts]),
                    torch.stack([tokens[s + 1 : s + length + 1] for s in starts]))  # fmt: skip


def check_windows(make: Callable[[Tensor, int, str], Examples]) -> None:
    """Of a stream of different numbers: each label follows its input, and no number is seen by two parts."""
    for size, length in ((100, 7), (101, 10), (57, 13)):
        first, second = held_out(torch.arange(size), 0.51)
        seen: list[set[int]] = []
        for part in (first, second):
            inputs, labels = make(part, length, "here")
            assert torch.equal(labels, inputs + 1)
            assert inputs.shape == labels.shape == ((len(part) - 1) // length, length)
            assert len(set(inputs.flatten().tolist())) == inputs.numel()
            seen.append({*inputs.flatten().tolist(), *labels.flatten().tolist()})
        assert not seen[0] & seen[1]


def test_windows_stand_side_by_side_within_their_part() -> None:
    check_windows(windows)
    with pytest.raises(AssertionError):
        check_windows(overlapping)


def test_a_stream_without_one_window_is_said() -> None:
    assert windows(torch.arange(9), 8, "here").inputs.tolist() == [[*range(8)]]
    with pytest.raises(UsageError, match="here has 8 tokens, too few for a text of 8 and the token after it"):
        windows(torch.arange(8), 8, "here")


@pytest.mark.parametrize("name", SETS)
def test_every_set_meets_the_contract_at_any_length(root: Path, name: str) -> None:
    spec = load_registry().datasets[name].spec
    for length in (16, 40):
        splits: Splits = SETS[name].load(root, length=length)
        check_splits(splits, spec)
        assert {part.inputs.shape[1] for part in splits[:3]} == {length}
        for inputs, labels in splits[:3]:
            assert torch.equal(inputs[:, 1:], labels[:, :-1]), "labels are the next tokens"
            assert torch.equal(inputs[1:, 0], labels[:-1, -1]), "and windows follow one another"
    again = SETS[name].load(root, length=40)
    assert all(torch.equal(a.inputs, b.inputs) for a, b in zip(splits[:3], again[:3], strict=True))


def test_shakespeare_holds_out_its_last_tenth(root: Path) -> None:
    splits = _shakespeare.load(root, length=10)
    text = (root / "text" / "tinyshakespeare.txt").read_text()
    said = ["".join(CHARACTERS[i] for i in part.inputs.flatten().tolist()) for part in splits[:3]]
    assert said[0] == text[: len(said[0])]
    assert said[1] == text[2430 : 2430 + len(said[1])]
    assert said[2] == text[2700 : 2700 + len(said[2])]
    assert len(set(CHARACTERS)) == 65 == load_registry().datasets["tiny-shakespeare"].spec.classes


def test_wikitext_says_what_it_was_trained_on(root: Path) -> None:
    splits = _wikitext_2.load(root, length=8)
    assert splits.note == "trained on 90 % of WikiText-2's validation text: its training text is not here"
    assert bytes(splits.train.inputs[0].tolist()) == "valid é".encode()
    write(root, "text/wikitext-2.train.txt", "train " * 50)
    whole = _wikitext_2.load(root, length=8)
    assert whole.note == ""
    assert bytes(whole.train.inputs[0].tolist()) == b"train tr"
    assert bytes(whole.validation.inputs[0].tolist()) == "valid é".encode()


def test_what_is_missing_says_where_it_looked_and_how_to_get_it(root: Path) -> None:
    for module, gone in ((_shakespeare, "tinyshakespeare.txt"), (_wikitext_2, "wikitext-2.test.txt"),
                         (_tinystories, "tinystories_train_head.txt")):  # fmt: skip
        assert module.missing(root) is None
        (root / "text" / gone).unlink()
        for where in (root, None):
            with pytest.raises(DatasetMissing) as caught:
                module.load(where)
            message = str(caught.value)
            assert message == module.missing(where)
            assert gone in message and "SPARSEBENCH_DATA" in message and "https://" in message
            assert ("\n" in message, str(root) in message) == (False, where is not None)


def test_stories_without_their_tokenizer_are_missing(root: Path) -> None:
    (root / "models" / "stories260k" / "tokenizer.bin").unlink()
    assert "tokenizer.bin" in (_tinystories.missing(root) or "")
    with pytest.raises(DatasetMissing, match="its tokenizer"):
        _tinystories.load(root)


@pytest.mark.parametrize(
    ("module", "name", "content", "message"),
    [
        (_shakespeare, "text/tinyshakespeare.txt", "ab~c", "character 2 is '~'"),
        (_shakespeare, "text/tinyshakespeare.txt", b"ab\xff", "byte 2 is no UTF-8 text"),
        (_wikitext_2, "text/wikitext-2.test.txt", b"\xe9", "byte 0 is no UTF-8 text"),
        (_tinystories, "models/stories260k/tokenizer.bin", b"", "holds 0 whole pieces, not 512"),
        (_tinystories, "models/stories260k/tokenizer.bin", tokenizer_bytes(PIECES), "holds 259 whole pieces"),
        (_tinystories, "models/stories260k/tokenizer.bin", tokenizer_bytes([b"a"] * 513), "whole pieces, not 512"),
        (_tinystories, "models/stories260k/tokenizer.bin", tokenizer_bytes([b"abc"] * 512)[:-1], "holds 511 whole"),
    ],
)  # fmt: skip
def test_a_damaged_file_is_named(root: Path, module: Any, name: str, content: str | bytes, message: str) -> None:
    path = write(root, name, content)
    with pytest.raises(DatasetCorrupt, match=message) as caught:
        module.load(root, length=1)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def slow_encode(tokenizer: Tokenizer, text: str, last: bool = False) -> list[int]:
    """run.c's `encode`, all of the text at once; `last` takes the last of equal scores, a fault."""
    vocabulary: dict[bytes, int] = {}
    for i, piece in enumerate(tokenizer.pieces):
        vocabulary.setdefault(piece, i)
    tokens = []
    for character in " " + text:
        raw = character.encode()
        tokens += [vocabulary[raw]] if raw in vocabulary else [3 + byte for byte in raw]
    while True:
        best, place, made = -1e10, -1, -1
        for i in range(len(tokens) - 1):
            i = len(tokens) - 2 - i if last else i
            found = vocabulary.get(tokenizer.pieces[tokens[i]] + tokenizer.pieces[tokens[i + 1]])
            if found is not None and tokenizer.scores[found] > best:
                best, place, made = tokenizer.scores[found], i, found
        if place < 0:
            return [1, *tokens]
        tokens[place : place + 2] = [made]


SAID = "the tea  and the ant, heee seee sand.  the the\nthe é the"


def small_tokenizer(folder: Path, pieces: list[bytes]) -> Tokenizer:
    full = [*PIECES, *pieces, *LETTERS]
    return Tokenizer.from_file(write(folder, "t.bin", tokenizer_bytes(full)), len(full))


def test_words_are_encoded_as_the_whole_text_is(tmp_path: Path) -> None:
    tokenizer = small_tokenizer(tmp_path, MERGES)
    tokens = tokenizer.encode(SAID)
    assert tokens == slow_encode(tokenizer, SAID)
    assert tokens != slow_encode(tokenizer, SAID, last=True), "the order of merges shows in this text"
    back = b"".join(bytes([t - 3]) if 3 <= t < 259 else tokenizer.pieces[t] for t in tokens[1:])
    assert back.decode() == " " + SAID
    assert tokenizer.encode("") == [1]


@pytest.mark.parametrize("piece", [b"e t", b"  "])
def test_a_piece_that_crosses_words_is_refused(tmp_path: Path, piece: bytes) -> None:
    with pytest.raises(DatasetCorrupt, match="piece 268 has a space after its first character"):
        small_tokenizer(tmp_path, [*MERGES, piece])


def test_the_published_tokenizer_encodes_words_as_whole_texts() -> None:
    root = data_root()
    if root is None or _tinystories.missing(root):
        pytest.skip(_tinystories.missing(root) or "")
    tokenizer = Tokenizer.from_file(root / _tinystories.TOKENIZER, 512)
    assert tokenizer.encode("Once upon a time") == [1, 403, 407, 261, 378]
    text = (root / "text" / _tinystories.FILE).read_text()[:1500]
    assert tokenizer.encode(text) == slow_encode(tokenizer, text)


def test_toy_text_has_the_entropy_that_it_says() -> None:
    """Counted: lines are alike in probability, so a line is worth log(8^4) nats whatever its length."""
    made = _toy_text.text(400_000)
    lines = made.split("\n")[:-1]
    assert len(made) / len(lines) == pytest.approx(4 * math.log(8) / _toy_text.nats_per_character(), rel=2e-3)
    assert all(line + "\n" == _toy_text.line(*_words(line)) for line in lines)
    for place, words in enumerate((_toy_text.NAMES, _toy_text.ADJECTIVES, _toy_text.THINGS, _toy_text.PLACES)):
        counts = Counter(_words(line)[place] for line in lines)
        assert counts.keys() == set(words)
        assert max(counts.values()) / min(counts.values()) < 1.15
    assert set(made) <= set(_toy_text.CHARACTERS)
    assert len(_toy_text.CHARACTERS) == load_registry().datasets["toy-text"].spec.classes


def _words(line: str) -> tuple[str, str, str, str]:
    first, second = line.split(". ")
    name, _, _, adjective, thing, place = first.split()
    assert second == f"{name} likes the {thing}."
    return name, adjective, thing, place
