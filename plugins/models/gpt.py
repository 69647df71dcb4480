"""The model `gpt`: a language model over characters that a CPU trains in minutes."""

from __future__ import annotations

from sparsebench.plugin import ModelSpec, hookimpl


@hookimpl
def sparsebench_models() -> list[ModelSpec]:
    """One spec."""
    return [
        ModelSpec(
            name="gpt",
            summary="GPT-2-like language model: 4 blocks of width 128, 4 heads, texts of 128 tokens; head not tied",
            load="sparsebench.builtin.models._gpt:GPT",
            inputs="tokens:128",
        )
    ]
