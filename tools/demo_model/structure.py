"""A first guess at the weights that can already copy from the context.

Heads that find "where did I see this before, and what came next" need many tokens of training to
appear by themselves. We write them down instead, noise around them, and let training improve them:
layer 0 copies the three tokens before into slots of their own; layer 1 looks for places whose slots
match the present, and hands their token to the output. All of it is ordinary Llama weights.
"""

import math

import torch
from torch import Tensor

from tools.demo_model.model import DemoModel

TOKEN, OUT = slice(0, 112), slice(112, 160)
BEFORE = (slice(160, 200), slice(200, 232), slice(232, 254))
CONSTANT = 255
CONTENT_PAIR = 18
"""Pairs from here on turn so slowly that they compare content at any distance up to the context."""
_POSITION_PAIRS = 8


def _noise(model: DemoModel, generator: torch.Generator) -> None:
    for name, parameter in model.named_parameters():
        if parameter.dim() == 2:
            std = 0.01 if name.endswith(("attn_output.weight", "ffn_down.weight")) else 0.02
            parameter.normal_(0.0, std, generator=generator)


def _position_head(model: DemoModel, head: int, offset: int, gain: float) -> None:
    """Layer 0: make `head` attend to the token `offset` places before, from the constant channel
    alone."""
    config, block = model.config, model.block(0)
    kv_head = head // (config.num_heads // config.num_kv_heads)
    for pair in range(_POSITION_PAIRS):
        angle = offset * config.rope_base ** (-2 * pair / config.head_size)
        row, key_row = head * config.head_size + 2 * pair, kv_head * config.head_size + 2 * pair
        block.attn_q.weight[row, CONSTANT] = gain * math.cos(angle)
        block.attn_q.weight[row + 1, CONSTANT] = -gain * math.sin(angle)
        block.attn_k.weight[key_row, CONSTANT] = gain


def _remember_before(model: DemoModel, code: Tensor) -> None:
    size, block = model.config.head_size, model.block(0)
    for kv_head in range(2):
        block.attn_v.weight[kv_head * size : (kv_head + 1) * size, TOKEN] = code
    for head, slot in enumerate(BEFORE):
        _position_head(model, head, head + 1, 1.41)
        for index in range(slot.stop - slot.start):
            block.attn_output.weight[slot.start + index, head * size + index] = 1.0


def _match(model: DemoModel, code: Tensor, generator: torch.Generator) -> None:
    """Layer 1: keys are the tokens before a place, queries the present token and the ones before
    it."""
    size, block = model.config.head_size, model.block(1)
    first = 2 * CONTENT_PAIR
    width = size - first
    turns = [torch.eye(width)] + [
        torch.linalg.qr(torch.randn(width, width, generator=generator))[0] for _ in BEFORE[1:]
    ]
    for kv_head, depth in ((0, 1), (1, 3)):
        gain = 1.73 / math.sqrt(depth)
        keys = slice(kv_head * size + first, (kv_head + 1) * size)
        for turn, slot in zip(turns[:depth], BEFORE, strict=False):
            used = min(width, slot.stop - slot.start)
            block.attn_k.weight[keys, slot.start : slot.start + used] = gain * turn[:, :used]
        for head in (2 * kv_head, 2 * kv_head + 1):
            rows = slice(head * size + first, (head + 1) * size)
            block.attn_q.weight[rows, TOKEN] = gain * code[:width]
            for turn, slot in zip(turns[1:depth], BEFORE, strict=False):
                used = min(width, slot.stop - slot.start)
                block.attn_q.weight[rows, slot.start : slot.start + used] = (
                    gain * turn[:, :used] / 1.41
                )


def _hand_on(model: DemoModel, code: Tensor) -> None:
    """Layer 1: write the attended token into the slot that the output matrix reads."""
    config, block = model.config, model.block(1)
    for kv_head in range(config.num_kv_heads):
        block.attn_v.weight[kv_head * config.head_size :, TOKEN][: config.head_size] = code
    for head in range(config.num_heads):
        for index in range(OUT.stop - OUT.start):
            block.attn_output.weight[OUT.start + index, head * config.head_size + index] = 1.0
    seen = model.token_embd.weight[:, TOKEN] @ code[: OUT.stop - OUT.start].T
    model.output.weight[:, OUT] = 0.066 * seen


@torch.no_grad()
def structured_init(model: DemoModel, seed: int) -> None:
    """Fill a model of width 256, four heads of 64 and two key heads; other shapes raise
    ValueError."""
    config = model.config
    if (config.width, config.num_heads, config.num_kv_heads, config.head_size) != (256, 4, 2, 64):
        raise ValueError(
            f"the structured start is written for width 256 and 4/2 heads of 64, not for {config}"
        )
    generator = torch.Generator().manual_seed(seed)
    _noise(model, generator)
    embedding = model.token_embd.weight
    embedding[:, TOKEN].normal_(0.0, 1.0, generator=generator)
    embedding[:, CONSTANT] = 4.0
    num_token = TOKEN.stop - TOKEN.start
    key_code, value_code = (
        torch.randn(config.head_size, num_token, generator=generator) / math.sqrt(num_token)
        for _ in range(2)
    )
    _remember_before(model, key_code)
    _match(model, key_code, generator)
    _hand_on(model, value_code)
