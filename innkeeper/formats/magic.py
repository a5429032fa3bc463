"""What a file is, from its first bytes, so that a wrong one gets its own clear line."""

from innkeeper.errors import (
    CorruptModelError,
    ModelFileError,
    NotAModelError,
    UnsupportedModelError,
)

GGUF_MAGIC = b"GGUF"
NUM_MAGIC_BYTES = 16

LEGACY_GGML = {
    b"lmgg": "GGML (2022)",
    b"fmgg": "GGMF (early 2023)",
    b"tjgg": "GGJT (mid 2023)",
    b"algg": "GGLA (a LoRA adapter of 2023)",
}
"""The legacy magics are little-endian words, so they lie in the file backwards."""


def describe_non_gguf(start: bytes) -> ModelFileError:
    """The error for a file that begins with ``start`` (16 bytes, or the whole file) and not GGUF.

    Every answer names what the file is, if that can be told, and what to get instead.
    """
    if not start:
        return CorruptModelError("the file is empty (0 bytes)", hint="download it again")
    if not start.strip(b"\0"):
        return CorruptModelError(
            "the file begins with zeros: its download never finished", hint="download it again"
        )
    if start[:4] in LEGACY_GGML:
        return UnsupportedModelError(
            f"this is a model in the old format {LEGACY_GGML[start[:4]]}, which llama.cpp stopped "
            "reading in 2023",
            hint="get the same model as GGUF",
        )
    if GGUF_MAGIC.startswith(start):
        return CorruptModelError(
            f"the file ends after {len(start)} bytes, inside its first word",
            hint="download it again",
        )
    if start[:4] == GGUF_MAGIC[::-1]:
        return UnsupportedModelError(
            "this GGUF file was written for a big-endian machine",
            hint="get the usual (little-endian) file",
        )
    return _describe_foreign(start)


def _describe_foreign(start: bytes) -> ModelFileError:
    text = start.lstrip().lower()
    if start[:2] == b"PK" or start[:2] in (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"):
        return UnsupportedModelError(
            "this is a PyTorch pickle (or a zip archive); loading one can run any program in it",
            hint="get the model as GGUF or safetensors",
        )
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        return NotAModelError(
            "this is a web page, not a model: the download link led to a page",
            hint="download the file itself, or use innkeeper pull",
        )
    if text.startswith(b"version https://"[:NUM_MAGIC_BYTES]):
        return NotAModelError(
            "this is a Git LFS pointer: a note of where the model lies, not the model",
            hint="run git lfs pull, or use innkeeper pull",
        )
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") < 1 << 32:
        return UnsupportedModelError(
            "this is a safetensors file, not a GGUF one", hint="name the folder it lies in"
        )
    return NotAModelError(
        f"this is not a model file: it begins with {start[:4]!r} instead of {GGUF_MAGIC!r}",
        hint="name a .gguf file",
    )
