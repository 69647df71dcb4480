"""The GPT against one that goes head by head and place by place in float64; nothing sees what comes later."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from sparsebench.builtin.models._gpt import GPT
from sparsebench.pruning.masks import prunable
from sparsebench.registry import load_registry

VOCABULARY, LENGTH, WIDTH, DEPTH, HEADS = 11, 9, 12, 2, 3
Forward = Callable[[GPT, Tensor], Tensor]


def small() -> GPT:
    """With weights far from their start, so that every part counts."""
    torch.manual_seed(0)
    model = GPT(num_classes=VOCABULARY, in_channels=LENGTH, width=WIDTH, depth=DEPTH, heads=HEADS)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.4)
    return model.double()


def texts(count: int = 3) -> Tensor:
    return torch.randint(VOCABULARY, (count, LENGTH), generator=torch.Generator().manual_seed(1))


def norm(x: Tensor, w: dict[str, Tensor], name: str) -> Tensor:
    centred = x - x.mean()
    return centred / torch.sqrt((centred**2).mean() + 1e-5) * w[f"{name}.weight"] + w[f"{name}.bias"]


def linear(x: Tensor, w: dict[str, Tensor], name: str) -> Tensor:
    return w[f"{name}.weight"] @ x + w[f"{name}.bias"]


def gelu(x: Tensor) -> Tensor:
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def slow(model: GPT, tokens: Tensor, ahead: int = 0, scale: float = 1.0) -> Tensor:
    """Loops over texts, places and heads; `ahead` and `scale` are faults to be found."""
    w, size, logits = model.state_dict(), WIDTH // HEADS, []
    for text in tokens.tolist():
        x = [w["tokens.weight"][token] + w["places.weight"][place] for place, token in enumerate(text)]
        for block in (f"blocks.{i}" for i in range(DEPTH)):
            parts = [linear(norm(each, w, f"{block}.norm1"), w, f"{block}.qkv").reshape(3, HEADS, size) for each in x]
            for place, (query, _, _) in enumerate(parts):
                mixed = []
                for head in range(HEADS):
                    seen = parts[: place + 1 + ahead]
                    affinity = torch.stack([query[head] @ k[head] * scale / math.sqrt(size) for _, k, _ in seen])
                    share = affinity.exp() / affinity.exp().sum()
                    mixed.append(sum(s * v[head] for s, (_, _, v) in zip(share, seen, strict=True)))
                x[place] = x[place] + linear(torch.cat(mixed), w, f"{block}.proj")
            for place, each in enumerate(x):
                hidden = gelu(linear(norm(each, w, f"{block}.norm2"), w, f"{block}.fc1"))
                x[place] = each + linear(hidden, w, f"{block}.fc2")
        logits.append(torch.stack([w["head.weight"] @ norm(each, w, "norm") for each in x]))
    return torch.stack(logits)


@torch.no_grad()
def check_parity(forward: Forward) -> None:
    model, tokens = small(), texts()
    assert torch.allclose(forward(model, tokens), slow(model, tokens), rtol=1e-9, atol=1e-9)


def test_parity_with_loops_over_heads_and_places() -> None:
    check_parity(lambda model, tokens: model(tokens))


@pytest.mark.parametrize("fault", [{"ahead": 1}, {"scale": 1.01}], ids=str)
def test_a_fault_of_attention_is_found(fault: dict[str, float]) -> None:
    with pytest.raises(AssertionError):
        check_parity(lambda model, tokens: slow(model, tokens, **fault))  # type: ignore[arg-type]


@torch.no_grad()
def check_causality(forward: Forward) -> None:
    model, tokens = small(), texts(1)
    before = forward(model, tokens)
    for place in range(LENGTH):
        other = tokens.clone()
        other[0, place] = (other[0, place] + 1) % VOCABULARY
        after = forward(model, other)
        assert torch.allclose(after[:, :place], before[:, :place], rtol=0, atol=1e-12), "a later token is seen"
        assert not torch.allclose(after[:, place:], before[:, place:], rtol=0, atol=1e-6), "the token has no effect"


def test_a_later_token_changes_no_earlier_logits() -> None:
    check_causality(lambda model, tokens: model(tokens))


@pytest.mark.parametrize("forward", [lambda m, t: slow(m, t, ahead=1), lambda m, t: m(t) * 0], ids=["ahead", "blind"])
def test_one_that_looks_ahead_or_nowhere_is_found(forward: Forward) -> None:
    with pytest.raises(AssertionError):
        check_causality(forward)


def test_a_shorter_text_gives_the_same_as_the_beginning_of_a_long_one() -> None:
    model, tokens = small(), texts()
    with torch.no_grad():
        assert torch.allclose(model(tokens[:, :4]), model(tokens)[:, :4], rtol=0, atol=1e-12)


def test_every_layer_of_a_block_and_the_head_can_be_pruned_and_no_embedding() -> None:
    entry = load_registry().models["gpt"]
    assert entry.spec.inputs == "tokens:128"
    model = entry.load()(num_classes=65, in_channels=128)
    parts = ("qkv", "proj", "fc1", "fc2")
    names = [f"blocks.{i}.{part}.weight" for i in range(4) for part in parts]
    assert [*prunable(model)] == [*names, "head.weight"]
    assert [*prunable(model, ["head"])] == names
    assert sum(p.numel() for p in prunable(model, ["head"]).values()) == 4 * 12 * 128 * 128
    assert len({p.data_ptr() for p in model.parameters()}) == len([*model.parameters()]), "nothing is tied"
    assert model.head.weight.shape == model.tokens.weight.shape


def test_a_fresh_one_knows_nothing() -> None:
    torch.manual_seed(0)
    model = load_registry().models["gpt"].load()(num_classes=65, in_channels=16)
    tokens = torch.randint(65, (8, 16))
    with torch.no_grad():
        loss = torch.nn.functional.cross_entropy(model(tokens).flatten(0, 1), torch.randint(65, (128,)))
    assert float(loss) == pytest.approx(math.log(65), rel=0.03)
