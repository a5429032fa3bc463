"""From an ``EngineConfig`` to a ``LlamaRunner``."""

import ctypes
import os
import time
from collections.abc import Iterator
from typing import Any

import llama_cpp.llama_cpp as lib

from innkeeper.backends.llama_cpp import log
from innkeeper.backends.llama_cpp.embedder import MAX_TEXTS, POOLING_TYPES, LlamaEmbedder
from innkeeper.backends.llama_cpp.runner import LlamaRunner
from innkeeper.backends.llama_cpp.state_key import meta_text, state_key
from innkeeper.backends.llama_cpp.threads import ThreadTuner, usable_cores
from innkeeper.backends.llama_cpp.tokenizer import LlamaTokenizer, first_difference
from innkeeper.core import EngineConfig, LoraAdapter, ModelFacts, num_outputs
from innkeeper.core.llama_params import set_placement
from innkeeper.core.shifting import FULL_KV_TYPES, can_shift
from innkeeper.engine.runner import ProgressCallback
from innkeeper.errors import (
    EngineLoadError,
    InnkeeperError,
    NotEnoughMemoryError,
    UnsupportedModelError,
)

_MAX_SEQUENCE_IDS = 256
_KV_TYPES = {
    "f32": lib.GGML_TYPE_F32,
    "f16": lib.GGML_TYPE_F16,
    "q8_0": lib.GGML_TYPE_Q8_0,
    "q5_1": lib.GGML_TYPE_Q5_1,
    "q5_0": lib.GGML_TYPE_Q5_0,
    "q4_1": lib.GGML_TYPE_Q4_1,
    "q4_0": lib.GGML_TYPE_Q4_0,
}
_ROPE_KINDS = {
    "none": lib.LLAMA_ROPE_SCALING_TYPE_NONE,
    "linear": lib.LLAMA_ROPE_SCALING_TYPE_LINEAR,
    "yarn": lib.LLAMA_ROPE_SCALING_TYPE_YARN,
}
_QUANTIZED = frozenset(_KV_TYPES) - FULL_KV_TYPES


def load(config: EngineConfig, progress: ProgressCallback) -> LlamaRunner | LlamaEmbedder:
    """Loads a GGUF. Frees what it made if it fails.

    Raises: UnsupportedModelError if llama.cpp cannot run it; NotEnoughMemoryError and
    EngineLoadError with llama.cpp's own words.
    """
    started = time.perf_counter()
    log.start()
    lib.llama_backend_init()
    model = _load_model(config, progress)
    try:
        context = _make_context(config, model)
    except EngineLoadError:
        lib.llama_model_free(model)
        raise
    _add_loras(config, model, context)
    tokenizer = LlamaTokenizer(lib.llama_model_get_vocab(model))
    facts = _facts(config, model, context, tokenizer, time.perf_counter() - started)
    if config.pooling:
        _set_threads(context, config)
        return LlamaEmbedder(model, context, facts, tokenizer)
    tuner = ThreadTuner(
        config.num_threads or config.max_threads or usable_cores(), is_fixed=config.num_threads > 0
    )
    is_shiftable = lib.llama_memory_can_shift(lib.llama_get_memory(context))
    is_editable = bool(is_shiftable) and _is_editable(config, model)
    key = state_key(config, model, facts.num_pool)
    runner = LlamaRunner(
        model,
        context,
        facts,
        tokenizer,
        tuner,
        is_editable=is_editable,
        keeps_windows=_keeps_windows(config, model),
        state_key=key,
    )
    small = config.draft_config()
    if small is not None:
        try:
            runner.draft = load_draft(small, runner)
        except InnkeeperError:
            runner.close()
            raise
    return runner


def load_draft(config: EngineConfig, large: LlamaRunner) -> LlamaRunner:
    """The model that guesses for ``large``.

    Raises: EngineLoadError if it cannot, and as ``load``.
    """
    runner = load(config, lambda fraction: None)
    assert isinstance(runner, LlamaRunner)
    name = os.path.basename(config.path)
    problem = first_difference(large.tokenizer, runner.tokenizer)
    if runner.has_state:
        problem = f"{runner.facts.architecture} models cannot take guesses back"
    if problem is None:
        return runner
    runner.close()
    raise EngineLoadError(
        f"the draft model {name} does not fit {large.facts.name}: {problem}",
        field="draft_model",
        hint="take a smaller model of the same family, or start without --draft-model",
    )


def _add_loras(
    config: EngineConfig, model: "lib.llama_model_p", context: "lib.llama_context_p"
) -> None:
    """The model owns its adapters. Raises: EngineLoadError, with model and context freed."""
    adapters = []
    for each in config.loras:
        log.errors.clear()
        adapter = lib.llama_adapter_lora_init(model, os.fsencode(each.path))
        if not adapter:
            cause = log.cause("llama.cpp gave no reason")
            lib.llama_free(context)
            lib.llama_model_free(model)
            raise EngineLoadError(
                f"the LoRA adapter {os.path.basename(each.path)} does not fit this model: {cause}",
                field="lora",
                hint="start without it, or with the model that it was made for",
            )
        adapters.append(adapter)
    if adapters:
        scales = (ctypes.c_float * len(adapters))(*(each.scale for each in config.loras))
        pointers = (lib.llama_adapter_lora_p_ctypes * len(adapters))(*adapters)
        lib.llama_set_adapters_lora(context, pointers, len(adapters), scales)


def _is_editable(config: EngineConfig, model: "lib.llama_model_p") -> bool:
    """Whether keys may be rotated to other positions. A quantized K would be quantized again at
    every shift, the whole pool with it, and drift; M-RoPE aborts (docs/experiments.md). States hold
    no keys to rotate, and sliding windows only where they keep everything."""
    return (
        config.kv_type_k not in _QUANTIZED
        and lib.llama_model_rope_type(model) in (lib.LLAMA_ROPE_TYPE_NORM, lib.LLAMA_ROPE_TYPE_NEOX)
        and can_shift(
            meta_text(model, b"general.architecture"),
            has_windows=lib.llama_model_n_swa(model) > 0,
            swa_full=bool(config.swa_full),
        )
        and not lib.llama_model_is_recurrent(model)
        and not lib.llama_model_is_hybrid(model)
    )


def _keeps_windows(config: EngineConfig, model: "lib.llama_model_p") -> bool:
    """Whether sliding-window layers keep all tokens, which is of use for edits alone."""
    return lib.llama_model_n_swa(model) > 0 and _is_editable(config, model)


def _load_model(config: EngineConfig, progress: ProgressCallback) -> "lib.llama_model_p":
    params = lib.llama_model_default_params()
    set_placement(
        lib,
        params,
        num_gpu_layers=config.num_gpu_layers,
        num_cpu_experts=config.num_cpu_experts,
        tensor_split=config.tensor_split,
        repack=config.repack,
    )
    params.load_mode = _load_mode(config, int(params.load_mode))

    def on_progress(fraction: float, user_data: object) -> bool:
        progress(float(fraction))
        return True

    callback = lib.llama_progress_callback(on_progress)
    params.progress_callback = callback
    log.errors.clear()
    model = lib.llama_model_load_from_file(os.fsencode(config.path), params)
    if model:
        if not config.pooling:
            _refuse_unsupported(model)
        return model
    cause = log.cause("llama.cpp gave no reason")
    if "unknown model architecture" in cause or "unsupported" in cause:
        raise UnsupportedModelError(
            f"llama.cpp cannot run this model: {cause}",
            hint="a newer Innkeeper may; or choose another model",
        )
    raise _load_error(cause)


def _load_mode(config: EngineConfig, default: int) -> int:
    if config.mlock:
        return int(lib.LLAMA_LOAD_MODE_MMAP_MLOCK if config.mmap else lib.LLAMA_LOAD_MODE_MLOCK)
    return default if config.mmap else int(lib.LLAMA_LOAD_MODE_NONE)


def _refuse_unsupported(model: "lib.llama_model_p") -> None:
    reason = None
    if lib.llama_model_has_encoder(model):
        reason = "it is an encoder-decoder model"
    elif not lib.llama_model_has_decoder(model):
        reason = "it makes embeddings, not text"
    elif lib.llama_model_is_diffusion(model):
        reason = "it is a diffusion model"
    if reason:
        lib.llama_model_free(model)
        raise UnsupportedModelError(
            f"this model cannot chat: {reason}", hint="choose a text-generation model"
        )


def _make_context(config: EngineConfig, model: "lib.llama_model_p") -> "lib.llama_context_p":
    if config.pooling:
        return _make_pooling_context(config, model)
    keeps_windows = _keeps_windows(config, model)
    num_ids = config.num_sequence_ids(
        can_edit=_is_editable(config, model), keeps_windows=keeps_windows
    )
    num_ids = min(num_ids, _MAX_SEQUENCE_IDS)
    params = lib.llama_context_default_params()
    params.n_ctx = config.num_pool
    params.n_batch = params.n_ubatch = config.max_ubatch or (512 if uses_gpu(config) else 128)
    params.n_seq_max = num_ids
    # It cuts the compute buffer, and must be at least n_seq_max.
    params.n_outputs_max = num_outputs(num_ids, params.n_batch)
    params.kv_unified = True
    params.swa_full = keeps_windows
    params.no_perf = True
    params.type_k = _kv_type(config.kv_type_k)
    params.type_v = _kv_type(config.kv_type_v)
    params.flash_attn_type = _flash_attention(config)
    if config.rope is not None:
        params.rope_scaling_type = _ROPE_KINDS[config.rope.kind]
        params.rope_freq_scale = 1.0 / config.rope.factor
    return _init_context(model, params)


def _make_pooling_context(
    config: EngineConfig, model: "lib.llama_model_p"
) -> "lib.llama_context_p":
    """One micro-batch holds a whole text: encoders look at all of it at once."""
    if config.pooling not in POOLING_TYPES:
        raise EngineLoadError(
            f"pooling {config.pooling!r} is not one of {', '.join(POOLING_TYPES)}", field="pooling"
        )
    params = lib.llama_context_default_params()
    params.n_ctx = params.n_batch = params.n_ubatch = config.num_ctx
    params.n_seq_max = MAX_TEXTS
    params.kv_unified = True
    params.no_perf = True
    params.embeddings = True
    params.pooling_type = POOLING_TYPES[config.pooling]
    params.flash_attn_type = _flash_attention(config)
    return _init_context(model, params)


def _set_threads(context: "lib.llama_context_p", config: EngineConfig) -> None:
    num_threads = config.num_threads or usable_cores()
    lib.llama_set_n_threads(context, num_threads, num_threads)


def _init_context(model: "lib.llama_model_p", params: Any) -> "lib.llama_context_p":
    log.errors.clear()
    context = lib.llama_init_from_model(model, params)
    if not context:
        raise _load_error(log.cause("llama.cpp could not make a context"))
    return context


def _kv_type(name: str) -> int:
    if name not in _KV_TYPES:
        raise EngineLoadError(
            f"the KV type {name!r} is not one of {', '.join(_KV_TYPES)}", field="kv_type"
        )
    return int(_KV_TYPES[name])


def _flash_attention(config: EngineConfig) -> int:
    if config.flash_attention is not None:
        chosen = config.flash_attention
    elif config.kv_type_v in _QUANTIZED:
        chosen = True
    elif uses_gpu(config):
        return int(lib.LLAMA_FLASH_ATTN_TYPE_AUTO)
    else:
        chosen = False  # on a CPU it triples the time of small batches (docs/experiments.md)
    name = "ENABLED" if chosen else "DISABLED"
    return int(getattr(lib, f"LLAMA_FLASH_ATTN_TYPE_{name}"))


def uses_gpu(config: EngineConfig) -> bool:
    """Whether this build of llama.cpp can offload, and was not told otherwise."""
    return config.num_gpu_layers != 0 and bool(lib.llama_supports_gpu_offload())


def _load_error(cause: str) -> EngineLoadError | NotEnoughMemoryError:
    if any(word in cause.lower() for word in ("alloc", "memory", "oom")):
        return NotEnoughMemoryError(
            f"the model does not fit: {cause}",
            hint="choose a smaller quantization, a smaller --ctx, or fewer --gpu-layers",
        )
    return EngineLoadError(f"llama.cpp could not load the model: {cause}")


def _facts(
    config: EngineConfig,
    model: "lib.llama_model_p",
    context: "lib.llama_context_p",
    tokenizer: LlamaTokenizer,
    seconds: float,
) -> ModelFacts:
    num_layers = int(lib.llama_model_n_layer(model))
    asked = config.num_gpu_layers
    on_gpu = num_layers + 1 if asked < 0 else min(asked, num_layers + 1)
    num_ctx_train = int(lib.llama_model_n_ctx_train(model))
    return ModelFacts(
        name=config.name,
        path=config.path,
        backend="llama_cpp",
        architecture=meta_text(model, b"general.architecture"),
        description=_description(model),
        num_params=int(lib.llama_model_n_params(model)),
        size_bytes=int(lib.llama_model_size(model)),
        num_vocab=tokenizer.num_vocab,
        num_ctx=config.num_ctx,
        num_ctx_train=num_ctx_train,
        num_pool=int(lib.llama_n_ctx(context)),
        max_sequences=config.max_sequences,
        bos_text=tokenizer.text(tokenizer.bos_id),
        eos_text=tokenizer.text(tokenizer.eos_id),
        add_bos=tokenizer.adds_bos,
        bos_id=tokenizer.bos_id if tokenizer.bos_id >= 0 else None,
        end_ids=tokenizer.end_ids(),
        max_token_bytes=tokenizer.max_token_bytes(),
        chat_template=_chat_template(model),
        fill_ids=tokenizer.fill_ids(),
        pooling=config.pooling,
        loras=tuple(LoraAdapter(os.path.basename(e.path), e.scale) for e in config.loras),
        draft=os.path.basename(config.draft_path),
        num_layers=num_layers + 1,
        num_gpu_layers=on_gpu if uses_gpu(config) else 0,
        device="GPU" if uses_gpu(config) else "CPU",
        load_seconds=seconds,
        notes=config.notes,
        warnings=tuple(_warnings(config, num_ctx_train)),
    )


def _warnings(config: EngineConfig, num_ctx_train: int) -> Iterator[str]:
    reach = int(num_ctx_train * (config.rope.factor if config.rope else 1))
    if 0 < reach < config.num_ctx:
        yield (
            f"--ctx {config.num_ctx} is beyond the {reach} tokens that the model was trained for:"
            " replies may lose sense past that length"
        )
    if config.mlock and (failure := log.warning_with("failed to mlock")):
        yield f"--mlock has no effect: {failure}"
    if config.num_gpu_layers > 0 and not uses_gpu(config):
        yield (
            f"--gpu-layers {config.num_gpu_layers} has no effect: this llama.cpp was built"
            " without GPU support"
        )


def _chat_template(model: "lib.llama_model_p") -> str | None:
    template = lib.llama_model_chat_template(model, None)
    return template.decode("utf-8", "replace") if template else None


def _description(model: "lib.llama_model_p") -> str:
    buffer = ctypes.create_string_buffer(256)
    count = lib.llama_model_desc(model, buffer, ctypes.sizeof(buffer))
    text = buffer.value.decode("utf-8", "replace") if count > 0 else ""
    # llama.cpp names the sizes that it knows, and "?B" for all others
    return text.replace("?B", f"{lib.llama_model_n_params(model) / 1e6:.1f}M")
