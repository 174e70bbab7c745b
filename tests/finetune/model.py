"""The policy: a Llama of 0.28 million parameters over characters, with a cache of keys and values.

The arithmetic is that of transformers' LlamaForCausalLM (tests/finetune/trl_arm.py loads the same weights there). It is
written out because a model this small spends most of a general library's time between the matrices.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.finetune.tasks import SIZE


@dataclass(frozen=True)
class Shape:
    """Sizes of the model."""

    vocabulary: int = SIZE
    width: int = 96
    inner: int = 192
    layers: int = 3
    heads: int = 4
    positions: int = 32
    epsilon: float = 1e-6
    rotary_base: float = 10000.0


Cache = list[tuple[Tensor, Tensor]]


class Layer(nn.Module):  # type: ignore[misc] # mypy runs without torch
    """Attention and a gated network, each after a norm and added to its input."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.attention_norm = nn.Parameter(torch.ones(shape.width))
        self.queries_keys_values = nn.Linear(shape.width, 3 * shape.width, bias=False)
        self.attended = nn.Linear(shape.width, shape.width, bias=False)
        self.network_norm = nn.Parameter(torch.ones(shape.width))
        self.gate_and_up = nn.Linear(shape.width, 2 * shape.inner, bias=False)
        self.down = nn.Linear(shape.inner, shape.width, bias=False)

    def forward(
        self, hidden: Tensor, rotary: tuple[Tensor, Tensor], mask: Tensor, past: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        shape, (batch, length, width) = self.shape, hidden.shape
        normed = functional.rms_norm(hidden, (width,), self.attention_norm, shape.epsilon)
        joint = self.queries_keys_values(normed).view(batch, length, 3, shape.heads, width // shape.heads)
        queries, keys, values = joint.permute(2, 0, 3, 1, 4)
        queries, keys = _rotated(queries, *rotary), _rotated(keys, *rotary)
        if past is not None:
            keys, values = torch.cat((past[0], keys), dim=2), torch.cat((past[1], values), dim=2)
        mixed = functional.scaled_dot_product_attention(queries, keys, values, attn_mask=mask)
        hidden = hidden + self.attended(mixed.transpose(1, 2).reshape(batch, length, width))
        normed = functional.rms_norm(hidden, (width,), self.network_norm, shape.epsilon)
        gate, up = self.gate_and_up(normed).chunk(2, dim=-1)
        return hidden + self.down(functional.silu(gate) * up), (keys, values)


def _rotated(states: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Returns states rotated by their position (rotary embedding, arXiv 2104.09864, halves paired as in Llama)."""
    first, second = states.chunk(2, dim=-1)
    return states * cosine + torch.cat((-second, first), dim=-1) * sine


class Policy(nn.Module):  # type: ignore[misc]
    """Logits of the next character; the input embedding is the output matrix."""

    cosine: Tensor
    sine: Tensor

    def __init__(self, shape: Shape | None = None) -> None:
        super().__init__()
        self.shape = shape = shape or Shape()
        self.embedding = nn.Embedding(shape.vocabulary, shape.width)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.layers))
        self.norm = nn.Parameter(torch.ones(shape.width))
        half = shape.width // shape.heads // 2
        frequencies = shape.rotary_base ** (-torch.arange(half) / half)
        angles = (torch.arange(shape.positions)[:, None] * frequencies).repeat(1, 2)
        self.register_buffer("cosine", angles.cos(), persistent=False)
        self.register_buffer("sine", angles.sin(), persistent=False)
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.normal_(parameter, std=0.02)

    def forward(self, codes: Tensor, present: Tensor, cache: Cache | None = None) -> tuple[Tensor, Cache]:
        """Returns logits `[B, T, vocabulary]` after each of the codes, and the cache extended by them.

        codes    `[B, T]` the codes that follow those of the cache.
        present  `[B, P + T]` bool, the codes that count, of the P of the cache and of these: no padding.
        """
        length, past = codes.shape[1], present.shape[1] - codes.shape[1]
        places = torch.arange(present.shape[1])
        causal = places <= places[past:, None]
        # A padded place may see itself, so that its row of the softmax is not empty.
        mask = (causal & present[:, None, :]) | (places == places[past:, None])
        rotary = (self.cosine[past : past + length], self.sine[past : past + length])
        hidden, extended = self.embedding(codes), []
        for index, layer in enumerate(self.layers):
            hidden, states = layer(hidden, rotary, mask[:, None], None if cache is None else cache[index])
            extended.append(states)
        hidden = functional.rms_norm(hidden, (self.shape.width,), self.norm, self.shape.epsilon)
        return functional.linear(hidden, self.embedding.weight), extended


def repeated(cache: Cache, times: int) -> Cache:
    """Returns a cache in which each row is repeated `times` times."""
    return [(keys.repeat_interleave(times, 0), values.repeat_interleave(times, 0)) for keys, values in cache]
