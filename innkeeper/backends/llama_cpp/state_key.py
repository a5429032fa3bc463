"""What a saved KV state depends on, as one name: if anything differs, it is not used."""

import ctypes
import hashlib
from pathlib import Path

import llama_cpp
import llama_cpp.llama_cpp as lib
import msgspec

from innkeeper.core import EngineConfig
from innkeeper.formats.gguf import split_names

_NUM_SAMPLES = 256
_SAMPLE_BYTES = 4096
_HEAD_BYTES = 1 << 20
_NO_PART = frozenset(
    "path name num_ctx num_pool max_sequences max_kept kv_reuse idle_refresh num_gpu_layers"
    " num_threads max_slice_seconds max_ubatch cache_folder disk_cache_bytes"
    " max_threads ram_cache_bytes notes mmap mlock repack num_cpu_experts tensor_split"
    " draft_path".split()
)
"""Fields of the configuration that change no state, but for rounding. Any other does, also those
that are added later."""


def state_key(config: EngineConfig, model: "lib.llama_model_p", num_pool: int) -> str:
    """The name, the same in every process that makes the same states."""
    fields = msgspec.to_builtins(config)
    parts = [f"{name}={fields[name]!r}" for name in sorted(fields) if name not in _NO_PART]
    parts.append(llama_cpp.__version__)
    parts.append(repr(lib.llama_print_system_info()))
    parts.append(f"long={num_pool > _trained_ctx(model)}")
    path = Path(config.path)
    parts += [_fingerprint(path.with_name(name)) for name in split_names(path.name)]
    parts += [_fingerprint(Path(each.path)) for each in config.loras]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _trained_ctx(model: "lib.llama_model_p") -> int:
    """Beyond it, models with two sets of RoPE factors take the other one."""
    name = meta_text(model, b"general.architecture").encode()
    original = meta_text(model, name + b".rope.scaling.original_context_length")
    return int(original) if original.isdigit() else int(lib.llama_model_n_ctx_train(model))


def meta_text(model: "lib.llama_model_p", key: bytes) -> str:
    """A value of the model's metadata as text; empty if it has none of that name."""
    buffer = ctypes.create_string_buffer(256)
    count = lib.llama_model_meta_val_str(model, key, buffer, ctypes.sizeof(buffer))
    return buffer.value.decode("utf-8", "replace") if count > 0 else ""


def _fingerprint(path: Path) -> str:
    """Size and time of change of a file, its beginning, and samples of the rest: reading all of it
    would take longer than most prompts."""
    status = path.stat()
    digest = hashlib.sha256(f"{status.st_size} {status.st_mtime_ns}".encode())
    with path.open("rb") as file:
        digest.update(file.read(_HEAD_BYTES))
        for index in range(_NUM_SAMPLES):
            file.seek(status.st_size * index // _NUM_SAMPLES)
            digest.update(file.read(_SAMPLE_BYTES))
    return digest.hexdigest()
