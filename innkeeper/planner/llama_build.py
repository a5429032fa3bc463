"""What the installed llama.cpp can do: asked in a process of its own, and as ``./start`` noted.

Neither the gateway nor the command line links llama.cpp: a library that does not load must end
neither.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

_SECONDS = 60
_QUESTION = """
import ctypes, json
import llama_cpp
from llama_cpp import llama_cpp as lib
lib.llama_backend_init()
c = lib._lib
c.ggml_backend_dev_get.restype = ctypes.c_void_p
c.ggml_backend_dev_get.argtypes = [ctypes.c_size_t]
for name in ("name", "description"):
    function = getattr(c, "ggml_backend_dev_" + name)
    function.restype, function.argtypes = ctypes.c_char_p, [ctypes.c_void_p]
c.ggml_backend_dev_type.argtypes = [ctypes.c_void_p]
size = ctypes.POINTER(ctypes.c_size_t)
c.ggml_backend_dev_memory.argtypes = [ctypes.c_void_p, size, size]
def device(index):
    found, free, total = c.ggml_backend_dev_get(index), ctypes.c_size_t(), ctypes.c_size_t()
    c.ggml_backend_dev_memory(found, free, total)
    return {
        "kind": c.ggml_backend_dev_type(found),
        "name": c.ggml_backend_dev_name(found).decode("utf-8", "replace"),
        "description": c.ggml_backend_dev_description(found).decode("utf-8", "replace"),
        "free_bytes": free.value,
        "total_bytes": total.value,
    }
print(json.dumps({
    "package": llama_cpp.__version__,
    "system_info": lib.llama_print_system_info().decode(),
    "gpu_offload": bool(lib.llama_supports_gpu_offload()),
    "devices": [device(index) for index in range(c.ggml_backend_dev_count())],
}))
"""


def ask_llama() -> dict[str, Any]:
    """``package`` (its version), ``system_info``, ``gpu_offload`` and ``devices``; or ``error``.

    Takes up to a second. A device's ``kind`` is ggml's: 1 = a GPU, 2 = one that shares the RAM.
    """
    command = [sys.executable, "-P", "-c", _QUESTION]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS)
        facts = json.loads(result.stdout.strip().splitlines()[-1]) if result.stdout else {}
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        return {"error": f"llama.cpp did not answer: {error}"}
    if result.returncode != 0 or not facts:
        lines = result.stderr.strip().splitlines() or [f"exit code {result.returncode}"]
        return {"error": f"llama.cpp does not load: {lines[-1]}"}
    found: dict[str, Any] = facts
    return found


def llama_record() -> dict[str, Any]:
    """What ``./start`` wrote down of its build: ``build`` (such as ``cpu-compiled``), ``why`` and
    ``unused_gpu``. Empty after a plain ``pip install``, which leaves no record.
    """
    try:
        state = json.loads((Path(sys.prefix) / "innkeeper-setup.json").read_text())
    except (OSError, ValueError):
        return {}
    record = state.get("llama", {}) if isinstance(state, dict) else {}
    return record if isinstance(record, dict) else {}


def unused_gpu() -> str | None:
    """Why a GPU of this computer stays unused, as the set-up found."""
    reason = llama_record().get("unused_gpu")
    return reason if isinstance(reason, str) else None
