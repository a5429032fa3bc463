"""Every field of the other dialects shows in the answer, is reported, or refused."""

from collections.abc import Mapping
from typing import NamedTuple

import httpx
import pytest

from innkeeper.api import kobold_fields, ollama_fields, reasoning
from innkeeper.api.fields import FIELDS
from tests.unit.api.field_probes import SAMPLING, Probe, Prober, Route, names_of, renamed
from tests.unit.api.test_field_probes import ALIASES, CHAT_PROBES, COMPLETION_PROBES

TEXT = "one two, one two"
TURNS = [{"role": "user", "content": TEXT}]
_VOWELS = ["a", "e", "i", "o", "u", " "]
_UNKNOWN = Probe("sometimes")
"""Refused by whatever reads the field: for what such an answer cannot show."""


class Dialect(NamedTuple):
    """The fields of one route. documented: what the dialect's own servers take, so that none is
    left out of our document. limit: its name of ``max_tokens``. seeds: of ``seed``."""

    route: Route
    probes: Mapping[str, Probe]
    documented: str
    limit: str = "max_tokens"
    seeds: tuple[str, ...] = ("seed", "sampler_seed")


_KOBOLD_FLAGS = """
use_story use_memory use_authors_note use_world_info use_userscripts bypass_eos frmttriminc
frmtrmblln frmtrmspch frmtadsnsp
"""
KOBOLD = Dialect(
    Route("/api/v1/generate", {"prompt": TEXT, "max_length": 30, "sampler_seed": 1}),
    {
        **renamed(SAMPLING, kobold_fields.TABLE),
        **dict.fromkeys(_KOBOLD_FLAGS.split(), Probe(True)),
        "dynatemp_exponent": Probe(8, {"dynatemp_range": 0.7}),
        "prompt": Probe("three"),
        "memory": Probe("An inn. "),
        "genkey": Probe(5),
        "trim_stop": Probe(False, {"stop_sequence": _VOWELS}),
        "singleline": Probe(True, {"logit_bias": {"10": 100}}),
        "render_special": Probe(True, {"logit_bias": {"256": 100}}),
        "logprobs": Probe(True),
        "grammar": Probe('root ::= "yes"'),
        "debug": Probe(True),
        "images": Probe(["aGk="]),
        "audio": Probe(["aGk="]),
        "replace_instruct_placeholders": Probe(True, {"prompt": "{{[INPUT]}}"}),
        "disable_output_formatting": Probe(False),
        "disable_input_formatting": Probe(False),
        "soft_prompt": Probe("x"),
        "reasoning_effort": Probe("low"),
        "kv_reuse": _UNKNOWN,
    },
    f"""
    {_KOBOLD_FLAGS}
    prompt soft_prompt max_length max_context_length n rep_pen rep_pen_range rep_pen_slope top_k
    top_a top_p tfs typical temperature sampler_order sampler_seed singleline
    disable_output_formatting disable_input_formatting min_p nsigma presence_penalty mirostat
    mirostat_tau mirostat_eta
    dynatemp_range dynatemp_exponent smoothing_factor smoothing_curve dry_multiplier dry_base
    dry_allowed_length dry_penalty_last_n dry_sequence_breakers xtc_threshold xtc_probability
    adaptive_target adaptive_decay stop_sequence trim_stop ban_eos_token use_default_badwordsids
    render_special grammar memory images audio banned_tokens banned_strings logit_bias
    custom_token_bans negative_prompt guidance_scale genkey logprobs replace_instruct_placeholders
    reasoning_effort
    """,
    "max_length",
)
LLAMA = Dialect(
    Route("/completion", {"prompt": TEXT, "n_predict": 30, "seed": 1, "temperature": 1}),
    {
        **COMPLETION_PROBES,
        "n_cmpl": Probe(2),
        "post_sampling_probs": Probe(True, {"n_probs": 2}),
        "return_tokens": Probe(True),
        "return_progress": Probe(True),
        "backend_sampling": Probe(True),
        "grammar_lazy": Probe(True),
        "echo": Probe(True),
        "verbose": Probe(True),
        "reasoning_control": Probe(True),
        "reasoning_budget_message": Probe("stop"),
        "reasoning_budget_tokens": Probe(5),
        "reasoning_format": Probe("deepseek"),
        "response_fields": Probe(["content"]),
        "lora": Probe([{"id": 0, "scale": 1}]),
        **dict.fromkeys(
            "n_keep n_indent n_discard n_cache_reuse t_max_predict_ms".split(), Probe(2)
        ),
        "kv_reuse": _UNKNOWN,
    },
    """
    prompt n_predict max_tokens stream return_tokens return_progress n_indent n_keep n_discard
    n_cmpl n n_cache_reuse t_max_predict_ms response_fields lora temperature dynatemp_range
    dynatemp_exponent top_k top_p min_p top_n_sigma typical_p xtc_probability xtc_threshold
    repeat_last_n repeat_penalty presence_penalty frequency_penalty dry_multiplier dry_base
    dry_allowed_length dry_penalty_last_n dry_sequence_breakers mirostat mirostat_tau mirostat_eta
    adaptive_target adaptive_decay seed n_probs logprobs min_keep post_sampling_probs
    backend_sampling ignore_eos logit_bias stop samplers grammar json_schema grammar_lazy
    reasoning_format reasoning_budget_tokens reasoning_budget_message reasoning_control echo verbose
    """,
    "n_predict",
)
OLLAMA_OPTIONS = Dialect(
    Route(
        "/api/generate",
        {
            "model": "fake",
            "prompt": TEXT,
            "raw": True,
            "stream": False,
            "options": {"num_predict": 30, "seed": 1},
        },
        "options",
    ),
    {
        **renamed(SAMPLING, ollama_fields.OPTIONS),
        **dict.fromkeys("num_keep num_batch num_gpu main_gpu num_thread numa".split(), Probe(5)),
        "use_mmap": Probe(False),
        "penalize_newline": Probe(False),
        "draft_num_predict": Probe(2),
        "kv_reuse": _UNKNOWN,
    },
    """
    num_keep seed num_predict top_k top_p min_p typical_p repeat_last_n temperature repeat_penalty
    presence_penalty frequency_penalty stop num_ctx num_batch num_gpu main_gpu use_mmap num_thread
    draft_num_predict mirostat mirostat_tau mirostat_eta tfs_z penalize_newline numa
    """,
    "num_predict",
)
_OLLAMA_BODY = {"model": "fake", "options": {"num_predict": 30, "temperature": 0}}
_OLLAMA: dict[str, Probe] = {
    "model": Probe("nobody's"),
    "stream": Probe(False),
    "format": Probe("json"),
    "options": Probe({"num_predict": 3}),
    "think": Probe("hard"),
    "truncate": Probe(False, {"options": {"num_predict": 30, "temperature": 0, "num_ctx": 36}}),
    "keep_alive": Probe("soon"),
    "logprobs": Probe(True),
    "top_logprobs": Probe(2, {"logprobs": True}),
    "debug": Probe(True),
    "images": Probe(["aGk="]),
    "template": Probe("{{ .Prompt }}"),
    "context": Probe([1]),
    "shift": Probe(True),
}
_OLLAMA_BOTH = "model format options stream keep_alive think truncate shift logprobs top_logprobs"
OLLAMA_TEXT = Dialect(
    Route("/api/generate", {**_OLLAMA_BODY, "prompt": TEXT}),
    {
        **_OLLAMA,
        "prompt": Probe("three"),
        "raw": Probe(True),
        "system": Probe("Be brief."),
        "suffix": Probe("the end"),
    },
    f"{_OLLAMA_BOTH} prompt suffix system template context raw images",
)
_LOOK = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
OLLAMA_CHAT = Dialect(
    Route("/api/chat", {**_OLLAMA_BODY, "messages": TURNS}),
    {
        **_OLLAMA,
        "messages": Probe([{"role": "user", "content": "three"}]),
        "tools": Probe([_LOOK]),
    },
    f"{_OLLAMA_BOTH} messages tools",
)
_UNSEEN = ("prompt_lookup_num_tokens", "speculative_ngram")
"""They change how fast the reply comes; there is no place for that in this dialect's answers."""
_CLAUDE_LOOK = {"name": "look", "input_schema": {"type": "object", "additionalProperties": False}}
ANTHROPIC = Dialect(
    Route("/v1/messages", {"messages": TURNS, "max_tokens": 30, "seed": 1}),
    {
        **CHAT_PROBES,
        "messages": Probe([{"role": "user", "content": "three"}]),
        "system": Probe("Be brief."),
        "stop_sequences": Probe(_VOWELS),
        "tools": Probe([_CLAUDE_LOOK]),
        "tool_choice": Probe({"type": "any"}, {"tools": [_CLAUDE_LOOK]}),
        "output_config": Probe({"format": {"type": "json_schema", "schema": {"type": "integer"}}}),
        **dict.fromkeys((*reasoning.BUDGETS, *_UNSEEN), _UNKNOWN),
        "thinking": Probe({"type": "deep"}),
        "reasoning": _UNKNOWN,
        "reasoning_format": _UNKNOWN,
        "include_reasoning": _UNKNOWN,
        "container": Probe("x"),
        "context_management": Probe({"edits": [1]}),
        "mcp_servers": Probe([{"name": "x"}]),
        "kv_reuse": _UNKNOWN,
    },
    """
    model messages max_tokens system temperature top_p top_k stop_sequences stream tools tool_choice
    thinking container context_management mcp_servers output_config
    """,
)
_FUNCTION = {"type": "function", "name": "look", "parameters": {"type": "object"}}
RESPONSES = Dialect(
    Route("/v1/responses", {"input": TEXT, "max_output_tokens": 30, "seed": 1}),
    {
        **CHAT_PROBES,
        "input": Probe("three"),
        "instructions": Probe("Be brief."),
        "max_output_tokens": Probe(3),
        "text": Probe({"format": {"type": "json_schema", "schema": {"type": "integer"}}}),
        "tools": Probe([_FUNCTION]),
        "tool_choice": Probe("required", {"tools": [_FUNCTION]}),
        "reasoning": Probe("much"),
        "truncation": Probe("auto"),
        "include": Probe(["reasoning.encrypted_content"]),
        "max_tool_calls": Probe(2),
        **dict.fromkeys((*_UNSEEN, "kv_reuse"), _UNKNOWN),
    },
    """
    input instructions max_output_tokens text tools tool_choice reasoning stream model temperature
    top_p truncation include max_tool_calls
    """,
    "max_output_tokens",
)
DIALECTS = {
    "responses": RESPONSES,
    "kobold": KOBOLD,
    "llama-server": LLAMA,
    "ollama-options": OLLAMA_OPTIONS,
    "ollama-generate": OLLAMA_TEXT,
    "ollama-chat": OLLAMA_CHAT,
    "anthropic": ANTHROPIC,
}
_LIMITS = {name for field in FIELDS if field.target == "max_tokens" for name in field.names}


@pytest.mark.parametrize("key", DIALECTS)
def test_every_field_shows_or_is_reported_or_refused(client: httpx.Client, key: str) -> None:
    route, probes, documented, limit, seeds = DIALECTS[key]
    prober, found = Prober(client, route), {}
    names = names_of(client, route)
    assert set(documented.split()) - names.keys() == set(), "the document names them all"
    for name in names:
        probe = probes.get(name) or probes.get(ALIASES.get(name, ""))
        if name in seeds:
            found[name] = prober.seed_outcome(
                name, {seed: None for seed in seeds if seed in route.body}
            )
        elif probe is None:
            found[name] = "no probe"
        else:
            others = {limit: None} if name in _LIMITS - {limit} else {}
            found[name] = prober.outcome(name, Probe(probe.value, {**probe.given, **others}))
    assert {name: how for name, how in found.items() if how in ("lost", "no probe")} == {}


@pytest.mark.parametrize("key", DIALECTS)
def test_a_field_that_nobody_knows_is_reported(client: httpx.Client, key: str) -> None:
    assert Prober(client, DIALECTS[key].route).outcome("frobnicate", Probe(1)) == "reported"
