"""Identifies GGUF models, alone or split."""

from collections.abc import Iterator
from dataclasses import replace

from innkeeper.formats.chat_format import detect
from innkeeper.formats.gguf import merge, split_names
from innkeeper.formats.gguf_header import GgufHeader
from innkeeper.formats.identity import Identity
from innkeeper.formats.quant_names import (
    base_type,
    claimed_context,
    claimed_quant,
    disagrees,
    dominant_type,
    gguf_quant,
    params_warning,
)
from innkeeper.formats.source import Source, read_gguf_header

_OTHER_KINDS = {
    "adapter": ("lora", "this is a LoRA adapter: it changes a model, and is none itself"),
    "mmproj": ("vision", "this is the vision part (mmproj) of a model"),
    "imatrix": ("imatrix", "this is an importance matrix, made for quantizing a model"),
}
_NOT_TEXT = frozenset(
    {"clip", "bert", "nomic-bert", "jina-bert-v2", "t5encoder", "wavtokenizer-dec", "whisper"}
)


def identify_gguf(source: Source, name: str, path: str) -> Identity:
    """Identifies ``name`` and the other parts of its set.

    Missing parts are reported rather than raised. Raises: as ``formats.gguf.parse``.
    """
    folder = name.rpartition("/")[0]
    parts = tuple(
        f"{folder}/{part}" if folder else part for part in split_names(name.rpartition("/")[2])
    )
    there = [part for part in parts if part in source.files]
    missing = tuple(part for part in parts if part not in source.files)
    headers = [read_gguf_header(source, part) for part in there]
    header = _partly(headers) if missing else merge(headers)
    found = _describe(header, name, path)
    return _with_files(found, source, there, missing)


def _partly(headers: list[GgufHeader]) -> GgufHeader:
    """What is there of an incomplete set: the metadata is in its first part."""
    tensors = tuple(tensor for header in headers for tensor in header.tensors)
    return replace(headers[0], tensors=tensors)


def _with_files(
    found: Identity, source: Source, there: list[str], missing: tuple[str, ...]
) -> Identity:
    values = {field: getattr(found, field) for field in found.__struct_fields__}
    values["files"] = tuple(there)
    values["size_bytes"] = sum(source.files[part] for part in there)
    if missing:
        values["missing_files"] = missing
        values["loader"] = None
        values["advice"] = "download the missing parts into the same folder"
        # Sums over half a model would be wrong.
        values["num_params"] = values["bits_per_weight"] = None
    elif found.format == "gguf":
        values["warnings"] += tuple(params_warning(found.name, found.num_params))
    return Identity(**values)


def _describe(header: GgufHeader, name: str, path: str) -> Identity:
    kind, warning = _kind(header)
    quant, claim = gguf_quant(header), claimed_quant(name)
    chat = detect(header.text("tokenizer.chat_template"), _known_as(header, name))
    warnings = ([warning] if warning else []) + list(_warnings(header, name, claim))
    return Identity(
        name=name,
        path=path,
        format=kind,
        loader="llama_cpp" if kind == "gguf" else None,
        architecture=header.architecture or None,
        num_params=header.num_weights,
        quant=quant,
        quant_method="gguf",
        bits_per_weight=round(8 * header.tensor_bytes / max(1, header.num_weights), 2),
        claimed_quant=claim,
        num_layers=_whole(header, "block_count"),
        num_experts=_whole(header, "expert_count"),
        num_ctx_train=_whole(header, "context_length"),
        rope_scaling=_rope_scaling(header),
        sliding_window=_whole(header, "attention.sliding_window"),
        chat_format=chat.name if chat else None,
        chat_format_source=chat.source if chat else None,
        licence=header.text("general.license"),
        warnings=tuple(warnings),
        advice=None if kind == "gguf" else "name the main model's file",
    )


def _kind(header: GgufHeader) -> tuple[str, str | None]:
    general = header.text("general.type") or "model"
    if general in _OTHER_KINDS:
        return _OTHER_KINDS[general]
    if header.architecture == "clip":
        return _OTHER_KINDS["mmproj"]
    if header.architecture in _NOT_TEXT:
        return "gguf-other", f"{header.architecture} models do not write text"
    return "gguf", None


def _known_as(header: GgufHeader, name: str) -> str:
    return " ".join(
        (name, header.text("general.name") or "", header.text("general.basename") or "")
    )


def _warnings(header: GgufHeader, name: str, claim: str | None) -> Iterator[str]:
    actual = dominant_type(header.tensors)
    if claim and disagrees(claim, base_type(actual)):
        bits = 8 * header.tensor_bytes / max(1, header.num_weights)
        yield (
            f"the name says {claim}, but most of it is {actual} "
            f"({bits:.1f} bits per weight): it is not what it is called"
        )
    hint, trained = claimed_context(name), _whole(header, "context_length")
    if hint and trained and not 0.9 < hint / trained < 1.1:
        yield f"the name says {hint:,} tokens of context, the header {trained:,}; the header counts"
    window = _whole(header, "attention.sliding_window")
    if window and trained and window < trained:
        yield f"advertised {trained:,} tokens of context; some layers see only the last {window:,}"
    if header.text("tokenizer.ggml.model") in (None, "no_vocab", "none"):
        yield "it has no tokenizer of its own"


def _rope_scaling(header: GgufHeader) -> str | None:
    kind = header.hparam("rope.scaling.type")
    factor = header.hparam("rope.scaling.factor") or header.hparam("rope.scale_linear")
    if not isinstance(factor, int | float) or factor in (0, 1) or kind == "none":
        return None
    words = f"{kind if isinstance(kind, str) else 'linear'} x{factor:g}"
    original = _whole(header, "rope.scaling.original_context_length")
    return words + (f" from {original:,}" if original else "")


def _whole(header: GgufHeader, name: str) -> int | None:
    value = header.hparam(name)
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return value
    return None
