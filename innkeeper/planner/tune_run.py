"""Times settings on a small model. Run as ``python -m innkeeper.planner.tune_run`` in a child.

Its argument is one JSON job (path, settings, seconds, num_threads or null for the settings' own,
read_weight, write_weight, worth). stdout: one JSON line for each round, with the seconds per token
read and per token written of each setting, or null where it was refused, has lost, or time was up.
The context grows from round to round, since attention over it is part of every token.
"""

import ctypes
import json
import os
import sys
import time
from collections.abc import Callable
from statistics import median
from typing import Any

from innkeeper.planner.paired import Race

_PROBE_TOKENS = 64
"""And the least that is read in a round."""
_NUM_WRITTEN = 4
_READ_SECONDS = 0.1
"""The first setting reads for about as long in a round."""
_MAX_READ = 512
_MAX_CONTEXT = 1024
_MAX_ROUNDS = 40
_ROUNDS_LEFT = 4
"""Rounds that the remaining time should suffice for; else they become shorter."""

Times = list[tuple[float, float] | None]


def main() -> None:
    """Reads the job, measures, writes each round at once: the process may be ended any time."""
    results = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # no library may write between the results

    def report(times: Times) -> None:
        results.write(json.dumps(times) + "\n")
        results.flush()

    measure(json.loads(sys.argv[1]), report)


def measure(job: dict[str, Any], report: Callable[[Times], None]) -> None:
    """Calls ``report`` after each round, until all is clear or the time is up."""
    end = time.perf_counter() + job["seconds"]
    runs = _runs(job)
    if runs[0].context is None:
        return
    race = Race((number for number, run in enumerate(runs) if run.context), job["worth"])
    start, num_read = 0, _probe(runs[0])
    for number in range(_MAX_ROUNDS):
        began = time.perf_counter()
        times: Times = [None] * len(runs)
        for index in race.running if number % 2 else reversed(race.running):
            if time.perf_counter() < end:
                times[index] = runs[index].round(start, num_read)
        now = time.perf_counter()
        if number:  # the first round warms up
            report(times)
            race.add([_cost(found, job) for found in times])
        if now >= end or (number and race.is_settled):
            return
        if start + 2 * num_read <= _MAX_CONTEXT:
            start += num_read
        if now - began > (end - now) / _ROUNDS_LEFT:
            num_read = max(_PROBE_TOKENS, num_read // 2)


def _cost(times: tuple[float, float] | None, job: dict[str, Any]) -> float | None:
    return times and job["read_weight"] * times[0] + job["write_weight"] * times[1]


def _runs(job: dict[str, Any]) -> list["_Run"]:
    import llama_cpp.llama_cpp as llama

    llama.llama_log_set(_ignore, ctypes.c_void_p(0))
    llama.llama_backend_init()
    models: dict[bool, Any] = {}
    runs = []
    for settings in job["settings"]:
        model = _model(llama, job["path"], settings["repack"], models)
        runs.append(_Run(llama, model, settings, job["num_threads"] or settings["num_threads"]))
    return runs


@ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)  # type: ignore[untyped-decorator]
def _ignore(_level: int, _text: bytes, _data: Any) -> None:
    """Instead of llama.cpp's log."""


def _model(llama: Any, path: str, repack: bool, models: dict[bool, Any]) -> Any:
    if repack not in models:
        params = llama.llama_model_default_params()
        params.n_gpu_layers = 0
        params.use_extra_bufts = repack
        models[repack] = llama.llama_model_load_from_file(os.fsencode(path), params)
    return models[repack]


def _probe(run: "_Run") -> int:
    """Warms a setting up, and tells how many tokens take it about the wanted time."""
    run.read(_PROBE_TOKENS)
    started = time.perf_counter()
    run.read(_PROBE_TOKENS)
    rate = _PROBE_TOKENS / max(1e-6, time.perf_counter() - started)
    wanted = int(rate * _READ_SECONDS) // _PROBE_TOKENS * _PROBE_TOKENS
    return max(_PROBE_TOKENS, min(wanted, _MAX_READ))


class _Run:
    """One setting and its context."""

    def __init__(self, llama: Any, model: Any, settings: dict[str, Any], num_threads: int) -> None:
        self.llama = llama
        params = llama.llama_context_default_params()
        params.n_ctx = _MAX_CONTEXT + _MAX_READ + 64
        params.n_batch = _MAX_READ
        params.n_ubatch = settings["max_ubatch"]
        params.n_seq_max = 1
        params.n_outputs_max = 1
        params.flash_attn_type = int(settings["flash_attention"])
        params.n_threads = params.n_threads_batch = num_threads
        # What one thread computes does not count the time that other programs had its core for.
        self.clock = time.thread_time if num_threads == 1 else time.perf_counter
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

    def round(self, start: int, num_read: int) -> tuple[float, float]:
        """Seconds per token of a prompt, and per token of a reply, from position ``start``."""
        began = self.clock()
        self.read(num_read, start)
        read_seconds = (self.clock() - began) / num_read
        written = []
        for step in range(_NUM_WRITTEN):
            began = self.clock()
            self.read(1, start + num_read + step)
            written.append(self.clock() - began)
        return read_seconds, median(written)


if __name__ == "__main__":
    main()
