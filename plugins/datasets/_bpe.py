"""llama2.c's tokenizer: byte-pair encoding by scores, as its C program reads and applies it (Karpathy 2023, run.c)."""

from __future__ import annotations

import re
import struct
from itertools import pairwise
from pathlib import Path

from sparsebench.plugin import DatasetCorrupt

BYTES = 3  # the 256 bytes follow <unk>, <s> and </s>
BEGIN = 1  # <s>, at the head of a text
# No piece has a space but at its beginning, so that merges never cross from a word to the next.
WORD = re.compile(r" ?[^ ]+| ")


class Tokenizer:
    """Encodes text; what a word becomes is remembered, for stories say the same words again and again."""

    def __init__(self, pieces: list[bytes], scores: list[float]) -> None:
        self.pieces, self.scores = pieces, scores
        self.number = {piece: i for i, piece in reversed(list(enumerate(pieces)))}  # of equal ones the first
        self.words: dict[str, list[int]] = {}

    @classmethod
    def from_file(cls, path: Path, vocabulary: int) -> Tokenizer:
        """Read tokenizer.bin: the longest length, then score, length and bytes of each piece.

        Raises `DatasetCorrupt` naming the file if it does not hold exactly `vocabulary` pieces, or one crosses words.
        """
        try:
            data = path.read_bytes()
        except OSError as error:
            raise DatasetCorrupt(f"{path}: cannot be read ({error.strerror})") from error
        pieces: list[bytes] = []
        scores: list[float] = []
        place = 4
        while place + 8 <= len(data) and len(pieces) <= vocabulary:
            score, length = struct.unpack_from("<fi", data, place)
            place += 8
            if length < 0 or place + length > len(data):
                break
            pieces.append(data[place : place + length])
            scores.append(score)
            place += length
        if place != len(data) or len(pieces) != vocabulary:
            raise DatasetCorrupt(f"{path}: holds {len(pieces)} whole pieces, not {vocabulary} and nothing else; "
                                 "is it llama2.c's tokenizer.bin of this model?")  # fmt: skip
        odd = next((i for i, piece in enumerate(pieces) if b" " in piece[1:]), None)
        if odd is not None:
            raise DatasetCorrupt(
                f"{path}: piece {odd} has a space after its first character; words are encoded one by one"
            )
        return cls(pieces, scores)

    def encode(self, text: str) -> list[int]:
        """<s>, then the tokens of a space and the text."""
        found = [BEGIN]
        for word in WORD.findall(f" {text}") if text else []:
            if word not in self.words:
                self.words[word] = self._merged(word)
            found += self.words[word]
        return found

    def _merged(self, word: str) -> list[int]:
        """Characters (bytes, where one is no piece), of which the pair with the best score is merged, ever again."""
        tokens: list[int] = []
        for character in word:
            raw = character.encode()
            tokens += [self.number[raw]] if raw in self.number else [byte + BYTES for byte in raw]
        while True:
            pairs = [self.number.get(self.pieces[a] + self.pieces[b]) for a, b in pairwise(tokens)]
            known = [(self.scores[made], -at, made) for at, made in enumerate(pairs) if made is not None]
            if not known:
                return tokens
            _, at, made = max(known)
            tokens[-at : 2 - at] = [made]
