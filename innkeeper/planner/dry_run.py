"""Asks llama.cpp itself: loads a model and makes contexts without allocating any of it.

Run as ``python -m innkeeper.planner.dry_run`` in a child process, because llama.cpp ends its
process when an assertion fails. stdin: one JSON job; stdout: one JSON line per context, in order,
each with the sizes from llama.cpp's log in MiB, or an ``error``; or one ``model_error``. This is
the only module of the planner that knows llama.cpp; it is imported by nothing.
"""

import ctypes
import json
import os
import re
import sys
from typing import Any, TextIO

from innkeeper.core.llama_params import set_placement

_SIZES = {
    "kv": re.compile(r"^llama_kv_cache: size = +([\d.]+) MiB", re.MULTILINE),
    "recurrent": re.compile(r"RS buffer size = +([\d.]+) MiB"),
    "output": re.compile(r"output buffer size = +([\d.]+) MiB"),
}
_COMPUTE = re.compile(r"^\w+: +(\S+) compute buffer size = +([\d.]+) MiB", re.MULTILINE)
_ERROR = re.compile(
    r"^.*(?:error|failed|unsupported|not supported|requires|invalid).*$", re.I | re.M
)


def sizes_from_log(log: str) -> dict[str, Any]:
    """MiB of each kind from what llama.cpp prints while it makes a context.

    The compute buffers are summed per device; a reservation that is repeated counts once.
    """
    found: dict[str, Any] = {
        kind: sum(float(number) for number in pattern.findall(log))
        for kind, pattern in _SIZES.items()
    }
    found["compute"] = {device: float(size) for device, size in _COMPUTE.findall(log)}
    return found


def error_from_log(log: str) -> str:
    """The most telling line of a failure's log."""
    lines = [line.strip() for line in _ERROR.findall(log)]
    return lines[0] if lines else "llama.cpp gave no reason"


def main() -> None:
    """Reads the job, runs it, writes the results."""
    results = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # no library may write between the results
    job = json.load(sys.stdin)
    run(job, results)


def run(job: dict[str, Any], results: TextIO) -> None:
    """One model load, then one context per entry of ``job["contexts"]``.

    With ``no_alloc`` false it is a real load, whose log the dry run is compared with.
    """
    import llama_cpp.llama_cpp as llama

    log: list[str] = []

    @llama.llama_log_callback  # type: ignore[untyped-decorator]
    def keep(_level: int, text: bytes, _data: Any) -> None:
        log.append(text.decode("utf-8", "replace"))

    def answer(found: dict[str, Any]) -> None:
        results.write(json.dumps(found) + "\n")
        results.flush()
        log.clear()

    llama.llama_log_set(keep, ctypes.c_void_p(0))
    llama.llama_backend_init()
    params = llama.llama_model_default_params()
    params.no_alloc = job.get("no_alloc", True)
    if params.no_alloc:
        params.load_mode = llama.LLAMA_LOAD_MODE_NONE
    set_placement(llama, params, **job["placement"])
    model = llama.llama_model_load_from_file(os.fsencode(job["path"]), params)
    if not model:
        answer({"model_error": error_from_log("".join(log))})
        return
    log.clear()
    for wanted in job["contexts"]:
        options = llama.llama_context_default_params()
        for name, value in wanted.items():
            setattr(options, name, value)
        context = llama.llama_init_from_model(model, options)
        text = "".join(log)
        answer(sizes_from_log(text) if context else {"error": error_from_log(text)})
        if context:
            llama.llama_free(context)


if __name__ == "__main__":
    main()
