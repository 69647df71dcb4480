"""The model `stories260k`: the small Llama of llama2.c, with published weights that fit in a megabyte."""

from __future__ import annotations

from sparsebench.plugin import ModelSpec, hookimpl


@hookimpl
def sparsebench_models() -> list[ModelSpec]:
    """One spec."""
    return [
        ModelSpec(
            name="stories260k",
            summary="Llama-2-style language model with 260 thousand weights; the embedding is its classifier",
            load="sparsebench.builtin.models._llama:Llama",
            inputs="tokens:512",
        )
    ]
