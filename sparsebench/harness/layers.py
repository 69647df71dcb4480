"""What the layers of a registered model pose: their problems on an input of some shape, found in a worker."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch

from sparsebench.errors import UsageError
from sparsebench.nn.choose import layer_problems
from sparsebench.problem import Problem
from sparsebench.registry import Entry
from sparsebench.training.data import parse_inputs


def layers_of(entry: Entry, shape: Sequence[int], classes: int, **problem: Any) -> list[dict[str, Any]]:
    """{names, problem} of each layer that can be sparse, {names, reason} of each that cannot.

    `problem` holds what a layer does not say: sparsity, pattern, threads. Raises `UsageError` for an input that the
    model cannot take.
    """
    name, inputs = entry.spec.name, entry.spec.inputs
    wanted = parse_inputs(inputs)
    example = {"features": "BATCHxFEATURES", "tokens": "BATCHxLENGTH"}.get(wanted.kind, f"BATCHx{inputs}")
    if len(shape) != len(example.split("x")):
        raise UsageError(f"--input {_text(shape)}: {name} takes {example}")
    with torch.random.fork_rng(devices=[]):
        model = entry.load()(num_classes=classes, in_channels=shape[1])
    try:
        dtype = torch.int64 if wanted.kind == "tokens" else torch.float32
        found = layer_problems(model, torch.zeros(*shape, dtype=dtype), **problem)
    except (RuntimeError, IndexError) as error:  # what torch raises for shapes that do not go together
        sentence = str(error).splitlines()[0]
        raise UsageError(f"--input {_text(shape)}: {name} takes {example}; torch says: {sentence}") from error
    return [
        {"names": names, "problem": asdict(each)} if isinstance(each, Problem) else {"names": names, "reason": each}
        for names, each in found.items()
    ]


def _text(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))
