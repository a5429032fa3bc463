"""The final verdict: llama.cpp's own dry run in a child process, on a stub of the model.

Exact for every architecture that llama.cpp can load, known to our formulas or not.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from innkeeper.errors import NotEnoughMemoryError, UnsupportedModelError
from innkeeper.formats.ggml_types import TYPES_BY_NAME
from innkeeper.formats.gguf_header import GgufHeader
from innkeeper.planner.estimate import ContextSettings, MemoryEstimate, estimate
from innkeeper.planner.shape import read_shape
from innkeeper.planner.stub import write_stub
from innkeeper.units import MIB

TIMEOUT_SECONDS = 60.0
MAX_RECURRENT_BYTES = 512 * MIB
"""A dry run really allocates recurrent state; more than this is not asked of it."""

_SOURCE_LINE = re.compile(r"\.(?:c|cc|cpp|cu|h|m):\d+: ")
_FOLDERS = re.compile(r"^\S*[/\\]")


@dataclass(frozen=True)
class DryRun:
    """What llama.cpp would allocate for one context. Bytes, known to 0.01 MiB."""

    kv_bytes: int
    recurrent_bytes: int
    output_bytes: int
    compute_bytes: dict[str, int]
    """Per device, such as ``CPU`` and ``CUDA0``."""
    error: str | None = None
    """Why llama.cpp refuses this context; the sizes are then 0."""


def real_run(path: Path, contexts: Sequence[ContextSettings]) -> list[DryRun]:
    """The same numbers from a real load of the model at ``path``, for checking the dry run."""
    return _run_child(path, contexts, no_alloc=False)


def dry_run(header: GgufHeader, contexts: Sequence[ContextSettings]) -> list[DryRun]:
    """Tries ``contexts``, which share GPU layers and repacking, in one child process.

    A context that ends the child is told apart from the ones after it, which are tried in a new
    one. Raises: UnsupportedModelError if llama.cpp cannot load the model.
    """
    done: list[DryRun] = []
    with tempfile.TemporaryDirectory(prefix="innkeeper-") as folder:
        path = Path(folder) / "stub.gguf"
        write_stub(header, read_shape(header).num_vocab, path)
        while len(done) < len(contexts):
            done += _run_child(path, contexts[len(done) :])
    return done


def verify(header: GgufHeader, settings: ContextSettings) -> MemoryEstimate:
    """The estimate with llama.cpp's own numbers in it, and no margin.

    Raises: UnsupportedModelError if llama.cpp cannot load the model; NotEnoughMemoryError if it
    refuses the context.
    """
    ours = estimate(header, settings)
    tried = settings
    if ours.recurrent_bytes > MAX_RECURRENT_BYTES:
        per_sequence = ours.recurrent_bytes // max(1, settings.max_sequences)
        fewer = max(1, MAX_RECURRENT_BYTES // max(1, per_sequence))
        tried = replace(settings, max_sequences=fewer)
    found = dry_run(header, [tried])[0]
    if found.error is not None:
        raise NotEnoughMemoryError(
            f"llama.cpp refuses this setting: {found.error}", hint="change --ctx or --kv-type"
        )
    return _with_truth(ours, found, is_recurrent_known=tried is settings)


def verify_guess(header: GgufHeader, settings: ContextSettings) -> MemoryEstimate:
    """The header's estimate where it is exact, and ``verify`` where it is only a guess.

    Raises: as ``verify``.
    """
    ours = estimate(header, settings)
    return ours if ours.is_exact else verify(header, settings)


def _with_truth(ours: MemoryEstimate, found: DryRun, *, is_recurrent_known: bool) -> MemoryEstimate:
    on_gpus = sum(gpu.context_bytes for gpu in ours.gpus)
    kv_bytes = found.kv_bytes + found.recurrent_bytes - ours.recurrent_bytes - on_gpus
    recurrent = ours.recurrent_bytes
    if not on_gpus:
        kv_bytes, recurrent = found.kv_bytes, found.recurrent_bytes
    if abs(kv_bytes - ours.kv_bytes) <= MIB // 50:  # the log has two decimals, ours all
        kv_bytes = ours.kv_bytes
    if not is_recurrent_known or abs(recurrent - ours.recurrent_bytes) <= MIB // 50:
        recurrent = ours.recurrent_bytes
    host = sum(size for name, size in found.compute_bytes.items() if _is_host(name))
    on_devices = [size for name, size in sorted(found.compute_bytes.items()) if not _is_host(name)]
    gpus = ours.gpus
    if len(on_devices) == len(gpus):
        gpus = tuple(replace(g, compute_bytes=n) for g, n in zip(gpus, on_devices, strict=True))
    return replace(
        ours,
        kv_bytes=max(0, kv_bytes),
        recurrent_bytes=recurrent,
        compute_bytes=host,
        margin_bytes=0,
        gpus=gpus,
        is_exact=True,
        is_verified=True,
    )


def _is_host(device: str) -> bool:
    """Such as ``CPU`` and ``CUDA_Host``; the others are GPUs, such as ``CUDA0``."""
    return device.startswith("CPU") or device.endswith("_Host")


def _run_child(
    path: Path, contexts: Sequence[ContextSettings], *, no_alloc: bool = True
) -> list[DryRun]:
    first = contexts[0]
    job = {
        "no_alloc": no_alloc,
        "path": str(path),
        "placement": {
            "num_gpu_layers": first.num_gpu_layers,
            "num_cpu_experts": first.num_cpu_experts,
            "tensor_split": first.gpu_shares if len(first.gpu_shares) > 1 else (),
            "repack": bool(first.repack_types),
        },
        "contexts": [_context_params(settings) for settings in contexts],
    }
    command = [sys.executable, "-m", "innkeeper.planner.dry_run"]
    try:
        child = subprocess.run(
            command,
            input=json.dumps(job),
            capture_output=True,
            text=True,
            encoding="utf-8",
            errors="replace",
            timeout=TIMEOUT_SECONDS,
            env=child_environment(),
            check=False,
        )
    except subprocess.TimeoutExpired:
        return [_refused(f"no answer within {TIMEOUT_SECONDS:.0f} s")] * len(contexts)
    answers = [json.loads(line) for line in child.stdout.splitlines()]
    if answers and "model_error" in answers[0]:
        raise UnsupportedModelError(
            f"llama.cpp cannot load this model: {answers[0]['model_error']}",
            hint="update Innkeeper",
        )
    found = [_parsed(answer) for answer in answers]
    if len(found) == len(contexts):
        return found
    return [*found, _refused(_last_words(child.stderr, child.returncode))]


def child_environment() -> dict[str, str]:
    """The child's: as ours without secrets; it must find its libraries and this package."""
    package = str(Path(__file__).parents[2])
    secret = ("KEY", "TOKEN", "SECRET", "PASSWORD")
    kept = {k: v for k, v in os.environ.items() if not any(word in k.upper() for word in secret)}
    kept["GGML_NO_BACKTRACE"] = "1"  # it would start a debugger
    kept["PYTHONPATH"] = os.pathsep.join(filter(None, [package, kept.get("PYTHONPATH", "")]))
    return kept


def _context_params(settings: ContextSettings) -> dict[str, int | bool]:
    """Fields of ``llama_context_params``."""
    return {
        "n_ctx": settings.num_pool,
        "n_batch": settings.max_batch,
        "n_ubatch": settings.max_ubatch,
        "n_seq_max": settings.max_sequences,
        "n_outputs_max": settings.num_outputs,
        "flash_attn_type": int(settings.flash_attention),
        "type_k": TYPES_BY_NAME[settings.kv_type_k].id,
        "type_v": TYPES_BY_NAME[settings.kv_type_v].id,
        "kv_unified": settings.kv_unified,
        "swa_full": settings.swa_full,
    }


def _parsed(found: dict[str, Any]) -> DryRun:
    if "error" in found:
        return _refused(found["error"])
    return DryRun(
        kv_bytes=round(found["kv"] * MIB),
        recurrent_bytes=round(found["recurrent"] * MIB),
        output_bytes=round(found["output"] * MIB),
        compute_bytes={device: round(size * MIB) for device, size in found["compute"].items()},
    )


def _refused(reason: str) -> DryRun:
    return DryRun(0, 0, 0, {}, error=reason)


def _last_words(stderr: str, returncode: int) -> str:
    """What an aborting llama.cpp printed last, without the folders of the machine it was built on.

    Such as ``aborted at ggml-impl.h:330: fatal error``.
    """
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    fatal = next((line for line in lines if _SOURCE_LINE.search(line)), None)
    if fatal is not None:
        return "aborted at " + _FOLDERS.sub("", fatal)
    return lines[-1] if lines else f"its process ended with code {returncode}"
