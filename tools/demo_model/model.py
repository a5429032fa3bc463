"""The demo model: a small Llama-architecture decoder in plain torch.

Everything that decides a number follows what llama.cpp does for the GGUF architecture "llama", so
that the exported file gives the same logits: RMSNorm before each block, rotary embedding over
neighbouring pairs (no permutation at export), grouped-query attention, SwiGLU, an output matrix of
its own.
"""

from dataclasses import asdict, dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SLICE = 256
SHARPNESS = 1.5
"""The output matrix of an exported model is multiplied by it: at temperature 1, which most clients
send, so small a model should speak as if at 1 / SHARPNESS."""
SHARPNESS_KEY = "innkeeper_demo.sharpness"
Z_WEIGHT = 0.01
"""Of the squared logarithm of the softmax's sum in the loss. It keeps the logits of likely tokens
near zero, where a repetition penalty, which scales logits, does little harm."""


@dataclass(frozen=True)
class ModelConfig:
    """The shape of the network; stored in every checkpoint and written into the GGUF header."""

    vocab_size: int = 3072
    width: int = 256
    num_layers: int = 4
    num_heads: int = 4
    num_kv_heads: int = 2
    head_size: int = 64
    ffn_width: int = 384
    context: int = 4096
    rope_base: float = 1e7
    norm_eps: float = 1e-5

    def to_dict(self) -> dict[str, int | float]:
        return asdict(self)


class RMSNorm(nn.Module):
    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.weight.shape, self.weight, self.eps)


def rope_table(config: ModelConfig, length: int) -> Tensor:
    """Unit complex numbers of shape (length, 1, head_size / 2)."""
    exponent = torch.arange(0, config.head_size, 2, dtype=torch.float64) / config.head_size
    angle = torch.outer(torch.arange(length, dtype=torch.float64), config.rope_base**-exponent)
    return torch.polar(torch.ones_like(angle), angle).to(torch.complex64)[:, None]


def rotate(x: Tensor, turns: Tensor) -> Tensor:
    """Rotate neighbouring pairs of the last axis; x is (batch, length, heads, head_size)."""
    pairs = torch.view_as_complex(x.float().reshape(*x.shape[:-1], -1, 2))
    return torch.view_as_real(pairs * turns).flatten(-2).to(x.dtype)


def causal_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Softmax attention on (batch, heads, length, head_size), in slices of queries that skip the
    keys after them.

    Twice as fast in bfloat16 on a CPU as torch's fused kernel, which is the faster one in float32.
    """
    if q.dtype == torch.float32:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)
    length = q.shape[2]
    q = q * q.shape[-1] ** -0.5
    out = []
    for start in range(0, length, SLICE):
        end = min(start + SLICE, length)
        scores = q[:, :, start:end] @ k[:, :, :end].transpose(-1, -2)
        future = torch.ones(end - start, end - start, dtype=torch.bool).triu(1)
        scores[..., start:].masked_fill_(future, -30000.0)
        out.append(F.softmax(scores, -1) @ v[:, :, :end])
    return torch.cat(out, 2)


class Block(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        heads, kv_heads = (
            config.num_heads * config.head_size,
            config.num_kv_heads * config.head_size,
        )
        self.attn_norm = RMSNorm(config.width, config.norm_eps)
        self.attn_q = nn.Linear(config.width, heads, bias=False)
        self.attn_k = nn.Linear(config.width, kv_heads, bias=False)
        self.attn_v = nn.Linear(config.width, kv_heads, bias=False)
        self.attn_output = nn.Linear(heads, config.width, bias=False)
        self.ffn_norm = RMSNorm(config.width, config.norm_eps)
        self.ffn_gate = nn.Linear(config.width, config.ffn_width, bias=False)
        self.ffn_up = nn.Linear(config.width, config.ffn_width, bias=False)
        self.ffn_down = nn.Linear(config.ffn_width, config.width, bias=False)

    def attention(self, x: Tensor, turns: Tensor) -> Tensor:
        size = self.config.head_size
        q, k, v = (
            part(x).unflatten(-1, (-1, size)) for part in (self.attn_q, self.attn_k, self.attn_v)
        )
        group = self.config.num_heads // self.config.num_kv_heads
        q, k = rotate(q, turns).transpose(1, 2), rotate(k, turns).transpose(1, 2)
        k, v = k.repeat_interleave(group, 1), v.transpose(1, 2).repeat_interleave(group, 1)
        with torch.autocast("cpu", enabled=False):
            out = causal_attention(q, k, v)
        return cast(Tensor, self.attn_output(out.transpose(1, 2).flatten(-2)))

    def forward(self, x: Tensor, turns: Tensor) -> Tensor:
        x = x + self.attention(self.attn_norm(x), turns)
        h = self.ffn_norm(x)
        return x + cast(Tensor, self.ffn_down(F.silu(self.ffn_gate(h)) * self.ffn_up(h)))


class DemoModel(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.token_embd = nn.Embedding(config.vocab_size, config.width)
        self.blk = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        self.output_norm = RMSNorm(config.width, config.norm_eps)
        self.output = nn.Linear(config.width, config.vocab_size, bias=False)
        self.turns = rope_table(config, config.context)

    def block(self, index: int) -> Block:
        return cast(Block, self.blk[index])

    def hidden(self, tokens: Tensor) -> Tensor:
        """Normalised states of shape (batch, length, width) for tokens of shape (batch, length)."""
        x = self.token_embd(tokens)
        for block in self.blk:
            x = block(x, self.turns[: tokens.shape[1]])
        return cast(Tensor, self.output_norm(x))

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits of shape (batch, length, vocab_size)."""
        return cast(Tensor, self.output(self.hidden(tokens)))

    def loss(self, tokens: Tensor, weights: Tensor, kept: Tensor) -> tuple[Tensor, Tensor]:
        """Weighted mean cross-entropy of the next token, and that of the heaviest targets alone (no
        gradient).

        `weights[:, i]` belongs to `tokens[:, i]` as a target; targets outside the mask `kept` are
        left out, which saves their row of the output matrix.
        """
        states = self.hidden(tokens[:, :-1])[kept[:, 1:]]
        weight = weights[:, 1:][kept[:, 1:]]
        logits = self.output(states).float()
        log_sum = torch.logsumexp(logits, -1)
        losses = log_sum - logits.gather(-1, tokens[:, 1:][kept[:, 1:]][:, None])[:, 0]
        heavy = losses.detach()[weight > 1.0]
        losses = losses + Z_WEIGHT * log_sum.square()
        return (losses * weight).sum() / weight.sum(), heavy.mean()
