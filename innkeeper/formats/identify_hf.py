"""Identifies folders in the layout of the Hugging Face hub: safetensors and their settings."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from innkeeper.errors import CorruptModelError, ModelFileError
from innkeeper.formats import hf_config
from innkeeper.formats.chat_format import detect
from innkeeper.formats.gguf_header import NeedMore
from innkeeper.formats.hf_config import HfQuant
from innkeeper.formats.identity import Identity
from innkeeper.formats.quant_names import claimed_context, claimed_quant, params_warning
from innkeeper.formats.safetensors import SafetensorsHeader, merge, parse, shard_names
from innkeeper.formats.source import Source
from innkeeper.units import MIB

_FIRST_READ_BYTES = 256 * 1024
_INDEX = "model.safetensors.index.json"
_SHARD = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.safetensors")
_TORCH_METHODS = frozenset(
    {"none", "gptq", "awq", "bitsandbytes", "fp8", "compressed-tensors", "mxfp4"}
)
_NOT_TEXT = ("ForSequenceClassification", "ForTokenClassification", "ForMaskedLM", "BertModel")


def identify_hf(source: Source, name: str, path: str, *, chosen: str | None = None) -> Identity:
    """Identifies the safetensors of ``source``, or the ``chosen`` file with its settings.

    Missing shards are reported rather than raised. Raises: CorruptModelError and the other errors
    of the readers.
    """
    if "adapter_config.json" in source.files and "config.json" not in source.files:
        return _adapter(source, name, path)
    config = dict(hf_config.text_config(hf_config.read_json(source, "config.json") or {}))
    weights, missing, files = _weights(source, chosen)
    quantize = hf_config.read_json(source, "quantize_config.json")
    quantize = quantize or hf_config.read_json(source, "quant_config.json")
    quant = hf_config.quant_of(config, quantize, weights.tensors)
    params = None if missing else hf_config.count_params(weights.tensors, quant)
    params = params or hf_config.params_from_sizes(config)
    length, scaling = hf_config.context_length(config)
    template = _template(source)
    chat = detect(template, name)
    is_usable = quant.method in _TORCH_METHODS and not missing and bool(files) and bool(config)
    warnings = [*_warnings(source, name, config, quant), *params_warning(name, params)]
    return Identity(
        name=name,
        path=path,
        format="safetensors",
        loader="torch" if is_usable and not _not_text(config) else None,
        architecture=_architecture(config),
        num_params=params,
        quant=quant.label,
        quant_method=quant.method,
        bits_per_weight=round(8 * weights.tensor_bytes / params, 2)
        if params and not missing
        else None,
        claimed_quant=claimed_quant(name),
        size_bytes=sum(source.files[file] for file in files),
        files=tuple(files),
        missing_files=tuple(missing),
        num_layers=hf_config.whole(config, "num_hidden_layers", "n_layer"),
        num_experts=hf_config.whole(config, "num_local_experts", "num_experts", "n_routed_experts"),
        num_ctx_train=length,
        rope_scaling=scaling,
        sliding_window=hf_config.sliding_window(config),
        chat_format=chat.name if chat else None,
        chat_format_source=chat.source if chat else None,
        licence=hf_config.licence(source),
        warnings=tuple(warnings),
        advice=_advice(quant, missing, config, bool(files)),
    )


def read_weights(source: Source) -> tuple[SafetensorsHeader, dict[str, Any]]:
    """The header of a whole set, and the text part of its ``config.json``.

    Raises: CorruptModelError if parts of it are missing.
    """
    weights, missing, files = _weights(source, None)
    if missing or not files:
        raise CorruptModelError(
            f"{len(missing) or 'all'} parts of the safetensors are missing",
            hint="download it again",
        )
    config = hf_config.text_config(hf_config.read_json(source, "config.json") or {})
    return weights, dict(config)


def _weights(source: Source, chosen: str | None) -> tuple[SafetensorsHeader, list[str], list[str]]:
    """(header of all shards that are there, missing shards, shards that are there)."""
    names = _weight_names(source, chosen)
    missing = [name for name in names if name not in source.files]
    there = [name for name in names if name in source.files]
    shards = [_read_header(source, name) for name in there]
    index = {} if missing or len(names) == 1 else hf_config.read_json(source, _INDEX) or {}
    return merge(shards, index), missing, there


def _weight_names(source: Source, chosen: str | None) -> list[str]:
    match = _SHARD.fullmatch(chosen) if chosen else None
    if chosen and not match:
        return [chosen]
    index = hf_config.read_json(source, _INDEX)
    if index is not None:
        return list(shard_names(index))
    files = sorted(
        name
        for name in source.files
        if "/" not in name and name.endswith(".safetensors") and not name.startswith("adapter")
    )
    match = match or next((found for name in files if (found := _SHARD.fullmatch(name))), None)
    if match is None:
        return ["model.safetensors"] if "model.safetensors" in files else files
    stem, count = match[1], int(match[3])
    if count > 10_000:
        raise CorruptModelError(f"{match[0]} claims {count:,} parts")
    return [f"{stem}-{part:05d}-of-{count:05d}.safetensors" for part in range(1, count + 1)]


def _read_header(source: Source, name: str) -> SafetensorsHeader:
    file_bytes, wanted = source.files[name], _FIRST_READ_BYTES
    try:
        while True:
            data = source.read(name, wanted)
            if data.startswith(b"version https://git-lfs"):
                raise CorruptModelError(
                    "this is a Git LFS pointer: a note of where the weights lie, not the weights",
                    hint="run git lfs pull, or use innkeeper pull",
                )
            found = parse(data, file_bytes)
            if not isinstance(found, NeedMore):
                return found
            if found.num_bytes <= len(data) or len(data) < min(wanted, file_bytes):
                raise CorruptModelError("the file changed while it was read")
            wanted = found.num_bytes
    except ModelFileError as error:
        raise type(error)(f"{name}: {error.message}", field=error.field, hint=error.hint) from None


def _template(source: Source) -> str | None:
    for name in ("chat_template.jinja", "chat_template.json"):
        if name in source.files:
            return source.read(name, MIB).decode("utf-8", "replace")
    found = (hf_config.read_json(source, "tokenizer_config.json") or {}).get("chat_template")
    if isinstance(found, list):  # several, by name
        texts = [item.get("template") for item in found if isinstance(item, dict)]
        found = next((text for text in texts if isinstance(text, str)), None)
    return found if isinstance(found, str) else None


def _architecture(config: Mapping[str, Any]) -> str | None:
    kind = config.get("model_type")
    names = config.get("architectures")
    if isinstance(kind, str):
        return kind
    return names[0] if isinstance(names, list) and names and isinstance(names[0], str) else None


def _not_text(config: Mapping[str, Any]) -> bool:
    names = config.get("architectures")
    return isinstance(names, list) and any(str(name).endswith(_NOT_TEXT) for name in names)


def _warnings(
    source: Source, name: str, config: Mapping[str, Any], quant: HfQuant
) -> Iterator[str]:
    files = source.files
    if not config:
        yield "config.json is missing: the architecture cannot be told"
    if not any("tokenizer" in file or file.endswith(".model") for file in files):
        yield "the tokenizer is missing"
    if _not_text(config):
        yield "this model classifies or embeds text; it does not write any"
    if any(file.endswith((".bin", ".pth")) and "/" not in file for file in files):
        yield "the PyTorch pickles beside the safetensors are not needed, and never opened"
    if any(file.endswith(".py") and "/" not in file for file in files) and "auto_map" in config:
        yield "it brings programs of its own (auto_map), which Innkeeper does not run"
    if "vision_config" in config:
        yield "it can see images; only its text part is used"
    length, _ = hf_config.context_length(config)
    hint = claimed_context(name)
    if hint and length and not 0.9 < hint / length < 1.1:
        yield f"the name says {hint:,} tokens of context, config.json {length:,}"
    window = hf_config.sliding_window(config)
    if window and length and window < length:
        yield f"advertised {length:,} tokens of context, sliding window {window:,}"
    if (claim := _method_claim(name)) and claim != quant.method:
        yield f"the name says {claim.upper()}, but the files are {quant.label}"


def _method_claim(name: str) -> str | None:
    lower = name.lower()
    for method in ("gptq", "awq", "exl2", "exl3", "mlx"):
        if re.search(rf"(?<![a-z]){method}(?![a-z0-9])", lower):
            return method
    return None


def _advice(
    quant: HfQuant, missing: list[str], config: Mapping[str, Any], has_files: bool
) -> str | None:
    if missing:
        return "download the missing parts into the same folder"
    if not has_files:
        return "download the model's .safetensors files too"
    if not config:
        return "put the model's config.json and tokenizer beside it"
    if quant.method not in _TORCH_METHODS:
        return f"{quant.label} runs in other programs; get the model as GGUF"
    return None


def _adapter(source: Source, name: str, path: str) -> Identity:
    settings = hf_config.read_json(source, "adapter_config.json") or {}
    base = settings.get("base_model_name_or_path")
    files = tuple(file for file in source.files if file.startswith("adapter_model"))
    return Identity(
        name=name,
        path=path,
        format="lora",
        size_bytes=sum(source.files[file] for file in files),
        files=files,
        is_safe=not any(file.endswith(".bin") for file in files),
        licence=hf_config.licence(source),
        warnings=("this is a LoRA adapter: it changes a model, and is none itself",),
        advice=f"get its base model {base}" if isinstance(base, str) else "get its base model",
    )
