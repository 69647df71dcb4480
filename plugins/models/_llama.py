"""A Llama-2-style language model as small as llama2.c's stories260K (Karpathy 2023; Touvron et al., arXiv 2307.09288).

RMSNorm before every part, rotary positions over interleaved pairs as llama2.c has them, SwiGLU, four heads of keys and
values for eight of queries, no biases. The classifier is the embedding's own weight, applied as a function: no linear
layer has it, and nothing prunes it. Names are Meta's, and those of llama2.c's training code.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WIDTH, HIDDEN, DEPTH, HEADS, KV_HEADS = 64, 172, 5, 8, 4
EPS, BASE = 1e-5, 10000.0  # of the norms, and of the rotary frequencies


class RMSNorm(nn.Module):
    """x / sqrt(mean(x²) + eps), times a weight (Zhang & Sennrich 2019)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """[..., width]."""
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + EPS) * self.weight


class Attention(nn.Module):
    """Causal attention whose keys and values serve `heads // kv_heads` heads each (Ainslie et al. 2023)."""

    def __init__(self, width: int, heads: int, kv_heads: int) -> None:
        super().__init__()
        self.heads, self.kv_heads, size = heads, kv_heads, width // heads
        self.wq = nn.Linear(width, heads * size, bias=False)
        self.wk = nn.Linear(width, kv_heads * size, bias=False)
        self.wv = nn.Linear(width, kv_heads * size, bias=False)
        self.wo = nn.Linear(heads * size, width, bias=False)

    def forward(self, x: Tensor, turn: Tensor) -> Tensor:
        """[n, T, width], with the rotation of every position [2, T, size / 2]."""
        kinds = ((self.wq, self.heads), (self.wk, self.kv_heads), (self.wv, self.kv_heads))
        q, k, v = (each(x).unflatten(-1, (count, -1)).transpose(1, 2) for each, count in kinds)
        k, v = (each.repeat_interleave(self.heads // self.kv_heads, dim=1) for each in (rotated(k, turn), v))
        mixed = F.scaled_dot_product_attention(rotated(q, turn), k, v, is_causal=True)
        return self.wo(mixed.transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    """w2(silu(w1 x) · w3 x) (Shazeer 2020)."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.w1 = nn.Linear(width, hidden, bias=False)
        self.w2 = nn.Linear(hidden, width, bias=False)
        self.w3 = nn.Linear(width, hidden, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[n, T, width]."""
        return self.w2(F.silu(self.w1(x)) * self.w3(x))


class Block(nn.Module):
    """Attention, then a feed-forward part, each behind a norm and beside a shortcut."""

    def __init__(self, width: int, hidden: int, heads: int, kv_heads: int) -> None:
        super().__init__()
        self.attention_norm, self.ffn_norm = RMSNorm(width), RMSNorm(width)
        self.attention = Attention(width, heads, kv_heads)
        self.feed_forward = FeedForward(width, hidden)

    def forward(self, x: Tensor, turn: Tensor) -> Tensor:
        """[n, T, width]."""
        x = x + self.attention(self.attention_norm(x), turn)
        return x + self.feed_forward(self.ffn_norm(x))


class Llama(nn.Module):
    """Logits [n, T, num_classes] of tokens int64 [n, T] with T ≤ `in_channels`; num_classes is the vocabulary."""

    turn: Tensor

    def __init__(
        self, *, num_classes: int = 512, in_channels: int = 512, width: int = WIDTH, hidden: int = HIDDEN,
        depth: int = DEPTH, heads: int = HEADS, kv_heads: int = KV_HEADS,
    ) -> None:  # fmt: skip
        super().__init__()
        self.tok_embeddings = nn.Embedding(num_classes, width)
        self.layers = nn.ModuleList(Block(width, hidden, heads, kv_heads) for _ in range(depth))
        self.norm = RMSNorm(width)
        self.register_buffer("turn", rotations(in_channels, width // heads), persistent=False)
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2:  # what writes to the shortcut is scaled by how many do
                shrink = (2 * depth) ** 0.5 if name.endswith(("wo.weight", "w2.weight")) else 1.0
                nn.init.normal_(parameter, std=0.02 / shrink)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits of what comes next, at every position."""
        x = self.tok_embeddings(tokens)
        turn = self.turn[:, : tokens.shape[1]]
        for block in self.layers:
            x = block(x, turn)
        return F.linear(self.norm(x), self.tok_embeddings.weight)


def rotations(length: int, size: int) -> Tensor:
    """Cosines and sines [2, length, size / 2] of position · base^(-2i / size)."""
    angle = torch.outer(torch.arange(length).double(), BASE ** (-torch.arange(0, size, 2).double() / size))
    return torch.stack([angle.cos(), angle.sin()]).float()


def rotated(x: Tensor, turn: Tensor) -> Tensor:
    """[n, heads, T, size] with the pairs (0, 1), (2, 3), … of every head turned by its position."""
    (even, odd), (cosine, sine) = x.unflatten(-1, (-1, 2)).unbind(-1), turn
    return torch.stack([even * cosine - odd * sine, even * sine + odd * cosine], dim=-1).flatten(-2)
