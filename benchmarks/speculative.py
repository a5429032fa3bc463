"""What do guesses gain, and what do they cost where nothing can be guessed?

    python benchmarks/speculative.py MODEL.gguf [--draft SMALL.gguf] [--tokens N] [--rounds N]

The guesses come from the text's own repetitions, and from a draft model. The same reply is written
with and without them, in turns; the speed is the median of the pairs' ratios. The text that repeats
is forced by a constraint (and so needs no sensible model); the other one is drawn at temperature 1.
"""

import argparse
import random
import statistics
from pathlib import Path
from typing import Any

from benchmarks.report import Table
from innkeeper.backends import llama_cpp as backend
from innkeeper.core import Constraint, EngineConfig, GenerateRequest, SamplingParams
from innkeeper.core.frames import Finished
from innkeeper.engine.loop import Engine, Prepared
from innkeeper.engine.prompt import tokenize_prompt

SENTENCE = "the red fox and the old hen and the young dog went home to eat. "
CASES: dict[str, dict[str, Any]] = {
    "text that repeats": {
        "constraint": Constraint("regex", f"({SENTENCE.replace('.', chr(92) + '.')})+"),
        "sampling": SamplingParams(temperature=0),
    },
    "text that does not": {"sampling": SamplingParams(temperature=1.0, seed=1, ban_eos=True)},
}


class Bench:
    """One model, asked for one reply at a time."""

    def __init__(self, path: Path, draft_path: str) -> None:
        config = EngineConfig(
            backend="llama_cpp",
            path=str(path),
            name=path.stem,
            num_ctx=2048,
            num_pool=4096,
            draft_path=draft_path,
        )
        self._runner = backend.load(config, lambda fraction: None)
        self._frames: list[Any] = []
        self._engine = Engine(self._runner, self._frames.extend)

    def milliseconds_a_token(self, **fields: Any) -> tuple[float, float]:
        """(time, share of the guesses that were right)"""
        words = random.Random(1).sample(SENTENCE.split() * 8, 100)
        request = GenerateRequest(prompt=" ".join(words) + ". " + SENTENCE, **fields)
        tokens, _ = tokenize_prompt(request, self._runner.tokenizer, self._runner.facts)
        self._frames.clear()
        self._engine.inbox.put(Prepared(1, request, tokens))
        while self._engine.step():
            pass
        (end,) = [frame for frame in self._frames if isinstance(frame, Finished)]
        timings = end.timings
        right = timings.draft_n_accepted / timings.draft_n if timings.draft_n else 0.0
        return timings.predicted_ms / timings.predicted_n, right


def _sources(has_draft: bool) -> dict[str, dict[str, Any]]:
    sources: dict[str, dict[str, Any]] = {
        f"at most {most} from the text": {"lookup": most, "draft_max": 0} for most in (4, 7, 15)
    }
    return {**sources, "of the draft model": {}} if has_draft else sources


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--tokens", type=int, default=250)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--draft", default="", help="a draft model")
    options = parser.parse_args()
    bench = Bench(options.model, options.draft)
    table = Table("text", "guesses", "ms a token", "plain, ms", "speed", "right")
    for name, fields in CASES.items():
        bench.milliseconds_a_token(max_tokens=8, draft_max=0, **fields)
        for source, guesses in _sources(bool(options.draft)).items():
            plain, guessed = [], []
            for _ in range(options.rounds):
                wanted = {"max_tokens": options.tokens, **fields}
                plain.append(bench.milliseconds_a_token(draft_max=0, **wanted)[0])
                guessed.append(bench.milliseconds_a_token(**guesses, **wanted))
            before = statistics.median(plain)
            after = statistics.median(ms for ms, _ in guessed)
            pairs = zip(plain, guessed, strict=True)
            speed = statistics.median(slow / fast for slow, (fast, _) in pairs)
            row = f"{after:.1f}", f"{before:.1f}", f"{speed:.2f}x", f"{guessed[0][1]:.0%}"
            table.add(name, source, *row)
    print(table.markdown(f"{options.model.name}, {options.tokens} tokens"))


if __name__ == "__main__":
    main()
