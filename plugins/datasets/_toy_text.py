"""A seeded text of a small grammar whose entropy is known, so that it can be said how good a model could be.

A line is "NAME took the ADJECTIVE THING PLACE. NAME likes the THING." with the same name and thing twice: its first
sentence asks for the statistics of letters, its second one for looking back.
"""

from __future__ import annotations

import math
import random
from pathlib import Path

from sparsebench.builtin.datasets._text import LENGTH, held_out, splits_of
from sparsebench.plugin import Splits

CHARACTERS = "\n .abcdefghijklmnopqrstuvwxyz"
NAMES = ("anna", "bert", "carla", "david", "emma", "frank", "greta", "henry")
ADJECTIVES = ("big", "blue", "cold", "dark", "empty", "funny", "green", "heavy")
THINGS = ("apple", "boat", "coin", "drum", "feather", "glass", "hat", "kite")
PLACES = ("away", "down", "home", "inside", "outside", "upstairs", "back", "along")
SIZE, TEST, VALIDATION = 81_920, 0.1, 1 / 9  # characters; share of all, and of what is left: 80, 10 and 10 %


def load(root: Path | None = None, length: int = LENGTH) -> Splits:
    """Characters as int64 [n, length] with the next ones as labels, the same at every call; `root` is not needed."""
    import torch

    number = {character: i for i, character in enumerate(CHARACTERS)}
    rest, test = held_out(torch.tensor([number[character] for character in text(SIZE)]), TEST)
    train, validation = held_out(rest, VALIDATION)
    return splits_of("toy-text", (train, validation, test), length)


def text(size: int) -> str:
    """The first `size` characters of the lines."""
    draw = random.Random(0).random  # its stream is frozen over Python versions, that of `choice` is not
    lines, total = [], 0
    while total < size:
        lines.append(line(*(words[int(draw() * len(words))] for words in (NAMES, ADJECTIVES, THINGS, PLACES))))
        total += len(lines[-1])
    return "".join(lines)[:size]


def line(name: str, adjective: str, thing: str, place: str) -> str:
    """One line of the grammar."""
    return f"{name} took the {adjective} {thing} {place}. {name} likes the {thing}.\n"


def nats_per_character() -> float:
    """The entropy of the text: a line is one of 8·8·8·8 alike. Who sees only a window knows less, and needs more."""
    name, adjective, thing, place = (sum(map(len, words)) / len(words) for words in (NAMES, ADJECTIVES, THINGS, PLACES))
    fixed = len(line("", "", "", ""))
    return 4 * math.log(8) / (fixed + 2 * name + adjective + 2 * thing + place)
