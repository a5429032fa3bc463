"""An engine that follows a script: ``python -m tests.unit.enginelink.scripted MODE``.

Modes say what it does wrong, or not: see ``MODES``.
"""

import os
import sys
import time

import msgspec

from innkeeper.core import EngineStats, ModelFacts, Timings, frames

FACTS = ModelFacts(
    name="scripted",
    path="",
    backend="scripted",
    architecture="none",
    description="a script",
    num_params=0,
    size_bytes=0,
    num_vocab=256,
    num_ctx=64,
    num_ctx_train=64,
    num_pool=64,
    max_sequences=1,
    bos_text="",
    eos_text="",
    add_bos=False,
    bos_id=None,
    end_ids=(),
    max_token_bytes=1,
    chat_template=None,
)
TIMINGS = Timings(prompt_n=1, cache_n=0, prompt_ms=1.0, predicted_n=1, predicted_ms=1.0)
MODES = (
    "good",
    "die-loading",
    "garbage",
    "deaf",
    "slow-step",
    "slow-first-step",
    "abort",
    "stubborn",
    "environment",
)


def stats(mode: str) -> EngineStats:
    return EngineStats(
        seconds_in_step=100.0 if mode in ("slow-step", "slow-first-step") else 0.0,
        num_steps=0 if mode == "slow-first-step" else 1,
        num_running=0,
        num_waiting=0,
        num_cells_used=0,
        num_cells=64,
        num_kept=0,
        num_threads=1,
        prompt_tokens=0,
        predicted_tokens=0,
    )


def send(*messages: msgspec.Struct) -> None:
    os.write(1, b"".join(frames.encode(message) for message in messages))


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def answer(mode: str, frame: frames.ToEngine) -> None:
    if isinstance(frame, frames.Submit):
        if mode == "abort":
            say("loading tensors, all fine")
            say("GGML_ASSERT(n_tokens > 0) failed")
            os.abort()
        text = ",".join(sorted(os.environ)) if mode == "environment" else "word"
        send(frames.Delta(frame.id, 0, text, 1))
        if frame.request.prompt != "endless":
            send(frames.Finished(frame.id, 0, "stop", TIMINGS))
    elif isinstance(frame, frames.Cancel):
        say(f"cancelled {frame.id}")
    elif isinstance(frame, frames.Ping) and mode != "deaf":
        send(frames.Pong(frame.id, stats(mode)))
    elif isinstance(frame, frames.Tokenize):
        send(frames.Tokens(frame.id, tuple(frame.text.encode())))


def main(mode: str) -> None:
    frames.read_body(sys.stdin.buffer)
    if mode == "die-loading":
        say("error: this GPU has no memory")
        sys.exit(3)
    if mode == "garbage":
        os.write(1, b"\xff" * 64)
        time.sleep(60)
    send(frames.Progress(0.5), frames.Loaded(FACTS))
    while (body := frames.read_body(sys.stdin.buffer)) is not None:
        answer(mode, frames.decode_to_engine(body))
    if mode == "stubborn":
        time.sleep(60)


if __name__ == "__main__":
    main(sys.argv[1])
