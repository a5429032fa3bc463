"""Times settings on a small model. Run as ``python -m innkeeper.planner.tune_run`` in a child.

Its argument is one JSON job (path, settings, seconds). stdout: one JSON list, per setting the
seconds per token read and per token written, the best of several rounds, or null if it was refused
or time ran out. The rounds go through all settings in turn, so that what else the machine does
meets all; they begin after some context, since attention over it is part of every token.
"""

import ctypes
import json
import os
import sys
import time
from typing import Any

_PROBE_TOKENS = 32
_NUM_WRITTEN = 4
_READ_SECONDS = 0.15
"""A setting reads for about as long in each round."""
_MAX_READ = 512
_MAX_CONTEXT = 1024
_MAX_ROUNDS = 5


def main() -> None:
    """Reads the job, measures, writes the results."""
    results = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # no library may write between the results
    json.dump(measure(json.loads(sys.argv[1])), results)
    results.flush()


def measure(job: dict[str, Any]) -> list[dict[str, float] | None]:
    """``[{"read": seconds per token, "write": seconds per token}]``, one per setting."""
    import llama_cpp.llama_cpp as llama

    @llama.llama_log_callback  # type: ignore[untyped-decorator]
    def ignore(_level: int, _text: bytes, _data: Any) -> None:
        pass

    end = time.perf_counter() + job["seconds"]
    llama.llama_log_set(ignore, ctypes.c_void_p(0))
    llama.llama_backend_init()
    models: dict[bool, Any] = {}
    runs = [
        _Run(llama, _model(llama, job["path"], s["repack"], models), s) for s in job["settings"]
    ]
    num_read = _probe(runs)
    for run in runs:
        if run.context and time.perf_counter() < end - job["seconds"] / 2:  # else it is too busy
            run.fill(num_read)
    for _ in range(_MAX_ROUNDS):
        for run in runs:
            if run.context and time.perf_counter() < end:
                run.round(num_read)
        if time.perf_counter() >= end:
            break
    return [run.result() for run in runs]


def _model(llama: Any, path: str, repack: bool, models: dict[bool, Any]) -> Any:
    if repack not in models:
        params = llama.llama_model_default_params()
        params.n_gpu_layers = 0
        params.use_extra_bufts = repack
        models[repack] = llama.llama_model_load_from_file(os.fsencode(path), params)
    return models[repack]


def _probe(runs: list["_Run"]) -> int:
    """Warms up the first setting, and tells how many tokens take about the wanted time."""
    for run in runs:
        if run.context:
            run.read(_PROBE_TOKENS)
            started = time.perf_counter()
            run.read(_PROBE_TOKENS)
            rate = _PROBE_TOKENS / max(1e-6, time.perf_counter() - started)
            wanted = int(rate * _READ_SECONDS) // _PROBE_TOKENS * _PROBE_TOKENS
            return max(_PROBE_TOKENS, min(wanted, _MAX_READ))
    return _PROBE_TOKENS


class _Run:
    """One setting: its context, and the best times seen."""

    def __init__(self, llama: Any, model: Any, settings: dict[str, Any]) -> None:
        self.llama = llama
        self.best: dict[str, float] = {}
        self.start = 0
        self.num_rounds = 0
        params = llama.llama_context_default_params()
        params.n_ctx = _MAX_CONTEXT + _MAX_READ + 64
        params.n_batch = _MAX_READ
        params.n_ubatch = settings["max_ubatch"]
        params.n_seq_max = 1
        params.n_outputs_max = 1
        params.flash_attn_type = int(settings["flash_attention"])
        params.n_threads = params.n_threads_batch = settings["num_threads"]
        self.context = llama.llama_init_from_model(model, params) if model else None
        self.batch = llama.llama_batch_init(_MAX_READ, 0, 1)

    def read(self, count: int, start: int = 0) -> None:
        """Evaluates ``count`` tokens from position ``start``, dropping what lay there."""
        memory = self.llama.llama_get_memory(self.context)
        self.llama.llama_memory_seq_rm(memory, 0, start, -1)
        for index in range(count):
            self.batch.token[index] = 1 + (7 * (start + index)) % 61
            self.batch.pos[index] = start + index
            self.batch.n_seq_id[index] = 1
            self.batch.seq_id[index][0] = 0
            self.batch.logits[index] = index == count - 1
        self.batch.n_tokens = count
        self.llama.llama_decode(self.context, self.batch)
        self.llama.llama_synchronize(self.context)

    def fill(self, num_tokens: int) -> None:
        """Makes a context to start from, of two readings or 1,024 tokens."""
        for _ in range(2):
            if self.start + num_tokens <= _MAX_CONTEXT:
                self.read(num_tokens, self.start)
                self.start += num_tokens

    def round(self, num_read: int) -> None:
        started = time.perf_counter()
        self.read(num_read, self.start)
        self._note("read", (time.perf_counter() - started) / num_read)
        self.num_rounds += 1
        for step in range(_NUM_WRITTEN):
            started = time.perf_counter()
            self.read(1, self.start + num_read + step)
            self._note("write", time.perf_counter() - started)

    def result(self) -> dict[str, float] | None:
        """None after fewer than two rounds: a single one may have met a busy moment."""
        return self.best if self.num_rounds > 1 else None

    def _note(self, kind: str, seconds: float) -> None:
        self.best[kind] = min(seconds, self.best.get(kind, seconds))


if __name__ == "__main__":
    main()
