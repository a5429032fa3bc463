"""Every field of every dialect changes the request, is refused, or is reported."""

from collections.abc import Callable
from typing import Any

import pytest

from innkeeper.api import anthropic_fields, kobold_fields, llamacpp, ollama_fields
from innkeeper.errors import InvalidRequestError

SAMPLING: dict[str, Any] = {
    "temperature": 0.5,
    "dynatemp_range": 0.3,
    "top_k": 7,
    "top_p": 0.5,
    "min_p": 0.2,
    "xtc_probability": 0.5,
    "xtc_threshold": 0.3,
    "presence_penalty": 0.5,
    "dry_multiplier": 0.8,
    "dry_base": 2,
    "dry_allowed_length": 4,
    "dry_penalty_last_n": 100,
    "dry_sequence_breakers": ["x"],
    "mirostat": 2,
    "mirostat_tau": 3,
    "mirostat_eta": 0.2,
    "adaptive_target": 0.4,
    "adaptive_decay": 0.5,
    "logit_bias": {"7": 1},
    "grammar": 'root ::= "a"',
}
KOBOLD: dict[str, Any] = {
    **SAMPLING,
    **dict.fromkeys("use_story use_memory use_authors_note use_world_info".split(), True),
    **dict.fromkeys("use_userscripts frmttriminc frmtrmblln frmtrmspch frmtadsnsp".split(), True),
    "max_context_length": 100,
    "max_length": 10,
    "n": 2,
    "rep_pen": 1.2,
    "rep_pen_range": 64,
    "rep_pen_slope": 0.5,
    "top_a": 0.2,
    "tfs": 0.9,
    "typical": 0.9,
    "nsigma": 1,
    "smoothing_factor": 0.3,
    "smoothing_curve": 2,
    "sampler_order": [6, 5, 4, 3, 2, 1, 0],
    "sampler_seed": 5,
    "stop_sequence": ["a"],
    "trim_stop": False,
    "ban_eos_token": True,
    "use_default_badwordsids": True,
    "bypass_eos": True,
    "render_special": True,
    "memory": "m",
    "images": ["aGk="],
    "audio": ["aGk="],
    "banned_tokens": ["x y"],
    "banned_strings": ["x y"],
    "custom_token_bans": [7],
    "negative_prompt": "bad",
    "guidance_scale": 2,
    "genkey": "mine",
    "logprobs": True,
    "singleline": True,
    "soft_prompt": "x",
    "tools": [{"type": "function"}],
    "tool_choice": "required",
    "reasoning_effort": "low",
}
LLAMA: dict[str, Any] = {
    **SAMPLING,
    "n_predict": 10,
    "max_tokens": 10,
    "stream": True,
    "return_tokens": True,
    "return_progress": True,
    "n_indent": 2,
    "n_keep": 2,
    "n_discard": 2,
    "n_cmpl": 2,
    "n": 2,
    "n_cache_reuse": 5,
    "t_max_predict_ms": 5,
    "response_fields": ["content"],
    "lora": [{"id": 0, "scale": 1}],
    "top_n_sigma": 1,
    "typical_p": 0.9,
    "repeat_last_n": 5,
    "repeat_penalty": 1.2,
    "frequency_penalty": 0.5,
    "seed": 5,
    "n_probs": 3,
    "logprobs": 3,
    "min_keep": 2,
    "post_sampling_probs": True,
    "backend_sampling": True,
    "ignore_eos": True,
    "stop": ["a"],
    "samplers": ["top_k"],
    "json_schema": {"type": "object"},
    "grammar_lazy": True,
    "reasoning_format": "deepseek",
    "reasoning_budget_tokens": 5,
    "reasoning_budget_message": "stop",
    "reasoning_control": True,
    "echo": True,
    "verbose": True,
}
OLLAMA_OPTIONS: dict[str, Any] = {
    "num_keep": 4,
    "seed": 5,
    "num_predict": 10,
    "top_k": 7,
    "top_p": 0.5,
    "min_p": 0.2,
    "tfs_z": 0.9,
    "typical_p": 0.9,
    "repeat_last_n": 5,
    "temperature": 0.5,
    "repeat_penalty": 1.2,
    "presence_penalty": 0.5,
    "frequency_penalty": 0.5,
    "mirostat": 2,
    "mirostat_tau": 3,
    "mirostat_eta": 0.2,
    "penalize_newline": False,
    "stop": ["a"],
    "numa": True,
    "num_ctx": 100,
    "num_batch": 5,
    "num_gpu": 5,
    "main_gpu": 1,
    "use_mmap": False,
    "num_thread": 5,
    "draft_num_predict": 2,
}
OLLAMA: dict[str, Any] = {
    "model": "other",
    "suffix": "x",
    "system": "x",
    "template": "x",
    "context": [1],
    "stream": False,
    "raw": True,
    "format": "json",
    "keep_alive": 5,
    "images": ["aGk="],
    "think": True,
    "logprobs": True,
}
ANTHROPIC: dict[str, Any] = {
    "model": "other",
    "max_tokens": 20,
    "system": "x",
    "temperature": 0.5,
    "top_p": 0.5,
    "top_k": 7,
    "stop_sequences": ["a"],
    "stream": True,
    "tools": [{"name": "look", "input_schema": {"type": "object"}}],
    "tool_choice": {"type": "any"},
    "thinking": {"type": "enabled"},
    "container": "x",
    "context_management": {"edits": []},
    "mcp_servers": [{"name": "x"}],
    "output_config": {"effort": "low"},
}
CHAT = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 5}

Parse = Callable[[dict[str, Any]], Any]
DIALECTS: dict[str, tuple[Parse, dict[str, Any]]] = {
    "kobold": (lambda body: kobold_fields.parse({"prompt": "Once", **body}), KOBOLD),
    "llama-server": (lambda body: llamacpp.parse({"prompt": "Once", **body}), LLAMA),
    "ollama": (
        lambda body: ollama_fields.parse({"model": "a", "prompt": "b", **body}, is_chat=False),
        OLLAMA,
    ),
    "ollama-options": (
        lambda options: ollama_fields.parse(
            {"model": "a", "prompt": "b", "options": options}, is_chat=False
        ),
        OLLAMA_OPTIONS,
    ),
    "anthropic": (lambda body: anthropic_fields.parse({**CHAT, **body}), ANTHROPIC),
}


@pytest.mark.parametrize(
    ("dialect", "name"), [(key, name) for key, (_, given) in DIALECTS.items() for name in given]
)
def test_a_field_is_applied_refused_or_reported(dialect: str, name: str) -> None:
    parse, given = DIALECTS[dialect]
    plain = parse({})
    try:
        changed = parse({name: given[name]})
    except InvalidRequestError as error:
        assert error.field is not None and error.field.startswith(name)
    else:
        assert changed != plain, f"{name} is lost"


@pytest.mark.parametrize("dialect", DIALECTS)
def test_an_unknown_field_is_reported(dialect: str) -> None:
    parse, _ = DIALECTS[dialect]
    call = parse({"frobnicate": 1})
    request = call.requests[0] if dialect == "llama-server" else call.request
    assert any("'frobnicate'" in warning for warning in request.warnings)
