"""Train the demo model: `python -m tools.demo_model.train --out DIR`. The same command goes on
where it was stopped."""

import argparse
import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor

from tools.demo_model.documents import document
from tools.demo_model.model import DemoModel, ModelConfig
from tools.demo_model.released import read_tokenizer, read_weights
from tools.demo_model.structure import structured_init
from tools.demo_model.tokenizer import (
    REPLY_WEIGHT,
    encode_documents,
    load_tokenizer,
    train_tokenizer,
)

SEED = 20261122
TOKENIZER_DOCUMENTS = 12_000
KEPT_CONTEXT = 0.25
"""The share of context tokens that the loss looks at."""


@dataclass(frozen=True)
class Stage:
    """`steps` steps on rows of `length` tokens; the learning rate goes straight from `first_rate`
    to `last_rate`."""

    length: int
    rows: int
    steps: int
    first_rate: float
    last_rate: float
    once: bool = False
    """Most facts are asked for a single time, in the later part of their chat."""
    value_gain: float = 1.0
    """How much more the values of answers count than the tokenizer's weights say."""
    scenes: float = 0.0
    """The share of chats whose card names its character in labels only (`scenes`)."""
    long: float = 0.0
    """The share of documents that fill their row (`documents.long_document`)."""


def load_plan(path: Path) -> list[Stage]:
    return [Stage(**entry) for entry in json.loads(path.read_text())]


def token_rows(
    tokenizer: Tokenizer, stage: Stage, seed: int, first_row: int
) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    """Endless rows of `length + 1` tokens with their loss weights; every row is a function of the
    seed and its number."""
    row = first_row
    while True:
        rng = Random(f"row/{seed}/{stage.length}/{row}")
        ids, weights, num_tokens = [], [], 0
        while num_tokens <= stage.length:
            whole = rng.random() < 0.6 or (stage.long and not num_tokens)
            longest = stage.length if whole else max(384, stage.length // 4)
            text = document(
                seed,
                rng.randrange(1 << 60),
                min(longest, stage.length - num_tokens + 128),
                once=stage.once,
                scenes=stage.scenes,
                long=stage.long if num_tokens == 0 else 0.0,
            )
            part, weight = encode_documents(tokenizer, [text])[0]
            ids.append(part)
            weights.append(weight)
            num_tokens += len(part)
        row += 1
        yield np.concatenate(ids)[: stage.length + 1], np.concatenate(weights)[: stage.length + 1]


def batches(
    tokenizer: Tokenizer, stage: Stage, seed: int, first_step: int
) -> Iterator[tuple[Tensor, Tensor]]:
    rows = token_rows(tokenizer, stage, seed, first_step * stage.rows)
    while True:
        chosen = [next(rows) for _ in range(stage.rows)]
        tokens = torch.from_numpy(np.stack([ids for ids, _ in chosen]).astype(np.int64))
        yield tokens, torch.from_numpy(np.stack([weight for _, weight in chosen]))


def share_cores(cores_used: float, step: int) -> None:
    """Fall back to one thread where others need the second core: two that wait for each other are
    slower than one."""
    if torch.get_num_threads() == 2 and cores_used < 1.5:
        torch.set_num_threads(1)
    elif step % 8 == 0 and os.getloadavg()[0] < 2.5:
        torch.set_num_threads(2)


class Trainer:
    """Model, optimizers and the place in the plan; all of it goes into the checkpoint."""

    def __init__(self, out: Path, config: ModelConfig, plan: list[Stage]) -> None:
        self.out, self.plan = out, plan
        self.model = DemoModel(config)
        structured_init(self.model, SEED)
        hidden = [
            p for n, p in self.model.named_parameters() if p.dim() == 2 and n.startswith("blk")
        ]
        rest = [
            p
            for n, p in self.model.named_parameters()
            if not (p.dim() == 2 and n.startswith("blk"))
        ]
        self.optimizers: list[torch.optim.Optimizer] = [
            torch.optim.Muon(
                hidden, lr=1.0, weight_decay=0.01, momentum=0.95, adjust_lr_fn="match_rms_adamw"
            ),
            torch.optim.AdamW(rest, lr=1.0, betas=(0.9, 0.98), weight_decay=0.0, fused=True),
        ]
        self.stage, self.step, self.seconds, self.tokens = 0, 0, 0.0, 0
        self.bfloat16 = bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())

    def save(self) -> None:
        state = {
            "model": self.model.state_dict(),
            "config": self.model.config.to_dict(),
            "stage": self.stage,
            "step": self.step,
            "seconds": self.seconds,
            "tokens": self.tokens,
            "optimizers": [o.state_dict() for o in self.optimizers],
        }
        torch.save(state, self.out / "new.pt")
        (self.out / "new.pt").replace(self.out / "checkpoint.pt")

    def keep(self) -> None:
        """Set the weights of a finished stage aside: export can blend them in."""
        torch.save(self.model.state_dict(), self.out / f"stage{self.stage - 1}.pt")

    def resume(self) -> None:
        path = self.out / "checkpoint.pt"
        if not path.exists():
            return
        state = torch.load(path, weights_only=True)
        self.model.load_state_dict(state["model"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.stage, self.step = state["stage"], state["step"]
        self.seconds, self.tokens = state["seconds"], state["tokens"]

    def start_from(self, weights: dict[str, Tensor]) -> None:
        """Begin the plan's last stage with these weights, which export can blend in."""
        self.model.load_state_dict(weights)
        self.stage = len(self.plan) - 1
        torch.save(self.model.state_dict(), self.out / "released.pt")

    def set_rate(self, stage: Stage) -> None:
        rate = stage.first_rate + (stage.last_rate - stage.first_rate) * self.step / stage.steps
        for optimizer, factor in zip(self.optimizers, (2.0, 1.0), strict=True):
            for group in optimizer.param_groups:
                group["lr"] = rate * factor

    def update(self, tokens: Tensor, weights: Tensor) -> tuple[float, float]:
        """One step; returns the loss and the loss of the answers' values."""
        gain = self.plan[self.stage].value_gain
        gains = torch.where(weights > REPLY_WEIGHT, gain, 1.0)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.bfloat16):
            loss, value_loss = self.model.loss(tokens, *self.thinned(weights * gains))
        torch.autograd.backward([loss])
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad()
        self.tokens += tokens.numel()
        return loss.item(), value_loss.item()

    def thinned(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Keep every reply and a quarter of the text around it, which then counts for more."""
        context = weights < REPLY_WEIGHT
        kept = ~context | (torch.rand(weights.shape) < KEPT_CONTEXT)
        return torch.where(context, weights / KEPT_CONTEXT, weights), kept

    def run(self, tokenizer: Tokenizer, deadline: float) -> bool:
        """Train until the plan ends (True) or the deadline; writes a line of the loss curve every
        20 steps."""
        while self.stage < len(self.plan):
            stage = self.plan[self.stage]
            source = batches(tokenizer, stage, SEED + 1, self.step)
            recent: list[tuple[float, float]] = []
            while self.step < stage.steps:
                self.set_rate(stage)
                started, started_cpu = time.perf_counter(), time.process_time()
                recent.append(self.update(*next(source)))
                elapsed = time.perf_counter() - started
                self.step += 1
                self.seconds += elapsed
                share_cores((time.process_time() - started_cpu) / elapsed, self.step)
                if self.step % 20 == 0 or self.step == stage.steps:
                    self.log(stage, recent)
                    recent = []
                if self.step % 50 == 0:
                    self.save()
                if time.time() > deadline:
                    self.save()
                    return False
            self.stage, self.step = self.stage + 1, 0
            self.save()
            self.keep()
        return True

    def log(self, stage: Stage, recent: list[tuple[float, float]]) -> None:
        loss, value = (sum(column) / len(recent) for column in zip(*recent, strict=True))
        entry = {
            "stage": self.stage,
            "length": stage.length,
            "step": self.step,
            "tokens": self.tokens,
            "seconds": round(self.seconds),
            "loss": round(loss, 4),
            "value_loss": round(value, 4),
        }
        print(json.dumps(entry), flush=True)
        with (self.out / "curve.jsonl").open("a") as file:
            file.write(json.dumps(entry) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--out", type=Path, required=True, help="folder of tokenizer, checkpoint and loss curve"
    )
    parser.add_argument("--plan", type=Path, default=Path(__file__).with_name("plan.json"))
    parser.add_argument(
        "--minutes", type=float, default=1e6, help="stop with a checkpoint after so long"
    )
    parser.add_argument(
        "--from-gguf", type=Path, help="begin with the plan's last stage and this exported model"
    )
    args = parser.parse_args()
    torch.set_num_threads(2)
    torch.manual_seed(SEED)
    args.out.mkdir(parents=True, exist_ok=True)
    config, path = ModelConfig(), args.out / "tokenizer.json"
    if args.from_gguf and not path.exists():
        read_tokenizer(args.from_gguf).save(str(path))
    elif not path.exists():
        train_tokenizer(config.vocab_size, TOKENIZER_DOCUMENTS, SEED).save(str(path))
    plan = load_plan(args.plan)
    trainer = Trainer(args.out, config, plan)
    if args.from_gguf and not (args.out / "checkpoint.pt").exists():
        trainer.start_from(read_weights(args.from_gguf))
    trainer.resume()
    print(json.dumps([asdict(stage) for stage in plan]))
    done = trainer.run(load_tokenizer(path), time.time() + 60 * args.minutes)
    print("plan finished" if done else "stopped in the plan; the same command goes on")


if __name__ == "__main__":
    main()
