"""Every field of the Oobabooga and OpenAI dialects shows in the answer, is reported, or refused."""

from collections.abc import Callable, Mapping
from random import Random

import httpx
import pytest

from innkeeper.api import character, chat
from innkeeper.api.constraints import FORMS
from innkeeper.api.fields import FIELDS, NOT_APPLIED
from tests.unit.api.field_probes import SAMPLING, Probe, Prober, Route, names_of

TEXT = "one two, one two"
BODY = {"max_tokens": 30, "seed": 1}
COMPLETIONS = Route("/v1/completions", {"prompt": TEXT, **BODY})
CHAT = Route("/v1/chat/completions", {"messages": [{"role": "user", "content": TEXT}], **BODY})
OOBABOOGA = """
preset temperature dynamic_temperature dynatemp_low dynatemp_high dynatemp_exponent
smoothing_factor smoothing_curve min_p top_k top_p typical_p top_a tfs top_n_sigma epsilon_cutoff
eta_cutoff xtc_threshold xtc_probability adaptive_target adaptive_decay dry_multiplier dry_base
dry_allowed_length dry_sequence_breakers repetition_penalty repetition_penalty_range
encoder_repetition_penalty no_repeat_ngram_size penalty_alpha guidance_scale negative_prompt
mirostat_mode mirostat_tau mirostat_eta do_sample temperature_last sampler_priority
custom_token_bans grammar_string ban_eos_token add_bos_token skip_special_tokens
auto_max_new_tokens max_tokens_second prompt_lookup_num_tokens truncation_length seed
"""
OPENAI = """
max_tokens max_completion_tokens n stop stream stream_options logprobs logit_bias temperature top_p
frequency_penalty presence_penalty seed response_format
"""
"""What the two dialects document of sampling; the table test probes what the document names."""
ALIASES = {n: form.names[0] for form in (*FIELDS, *NOT_APPLIED, *FORMS) for n in form.names}

_NOTHING = {"type": "object", "properties": {}, "additionalProperties": False}
_LOOK = {"type": "function", "function": {"name": "look", "parameters": _NOTHING}}
_TOOLS = {"tools": [_LOOK], "chat_template": "<tool_call>{{ tools }}{{ messages }}"}
_CALLS = {**_TOOLS, "tool_choice": "required"}
_SHOWS = {
    "chat_template": "{{ enable_thinking }}{{ reasoning_effort }}{{ preserve_thinking }}{{ mood }}"
}
_THINKS = {"chat_template": "{{ enable_thinking }}{{ messages }}<think>"}
_BUDGETED = {**_THINKS, "reasoning_budget": 5}
_PLAY = {"mode": "chat"}
_ASSISTANT = {"role": "assistant", "content": "Well"}

COMPLETION_PROBES: dict[str, Probe] = {
    **SAMPLING,
    "prompt": Probe("three"),
    "stream": Probe(True),
    "stream_options": Probe({"include_usage": True}, {"stream": True}),
    "model": Probe("nobody's"),
    "debug": Probe(True),
    "echo": Probe(True),
    "logprobs": Probe(2),
    "n_probs": Probe(2),
    "tools": Probe([_LOOK]),
}
CHAT_PROBES: dict[str, Probe] = {
    **COMPLETION_PROBES,
    "messages": Probe([{"role": "user", "content": "three"}]),
    "logprobs": Probe(True),
    "top_logprobs": Probe(2, {"logprobs": True}),
    "continue_": Probe(True, {"messages": [_ASSISTANT]}),
    "continue_final_message": Probe(True, {"messages": [_ASSISTANT]}),
    "chat_template": Probe("{{ messages }}"),
    "instruction_template_str": Probe("{{ messages }}"),
    "chat_template_kwargs": Probe({"mood": "good"}, _SHOWS),
    "enable_thinking": Probe(False, _SHOWS),
    "reasoning_effort": Probe("low", _SHOWS),
    "preserve_thinking": Probe(True, _SHOWS),
    **{name: Probe(5, _THINKS) for name in chat.reasoning.NAMES if "budget" in name},
    "thinking": Probe({"type": "enabled", "budget_tokens": 5}, _THINKS),
    "reasoning": Probe({"exclude": True}, _BUDGETED),
    "reasoning_format": Probe("none", _BUDGETED),
    "include_reasoning": Probe(False, _BUDGETED),
    "tools": Probe([_LOOK], {"chat_template": _TOOLS["chat_template"]}),
    "functions": Probe([_LOOK["function"]]),
    "tool_choice": Probe("required", _TOOLS),
    "parallel_tool_calls": Probe(False, {**_CALLS, "ban_eos_token": True, "max_tokens": 200}),
    "mode": Probe("chat"),
    "name1": Probe("Annabel", _PLAY),
    "name2": Probe("Mara", _PLAY),
    "context": Probe("An inn.", _PLAY),
    "greeting": Probe("Welcome!", _PLAY),
    "user_bio": Probe("A guest.", _PLAY),
    "character": Probe("Mara", _PLAY),
    "instruction_template": Probe("Alpaca"),
    "chat_template_str": Probe("{{ messages }}", _PLAY),
    "chat_instruct_command": Probe("Go on: <|prompt|>", {"mode": "chat-instruct"}),
}


NOT_HERE = {"model", "draft_max", "speculative.n_max"}
"""What this server has none of: another model, a draft model."""


def seed_shows(client: httpx.Client, route: Route, name: str) -> bool:
    """The same seed twice is the same reply, another one is another."""
    texts = [
        client.post(route.path, json={**route.body, "seed": None, name: value}).json()["choices"]
        for value in (7, 7, 8)
    ]
    return bool(texts[0] == texts[1] != texts[2])


def kv_reuse_shows(client: httpx.Client, route: Route, name: str) -> bool:
    """Of a text that lost its middle, more is reused where more may be."""
    found = []
    for policy in ("exact", "turbo"):
        random = Random(f"{route.path} {policy}")
        parts = ["".join(random.choices("abcdefgh", k=200)) for _ in range(3)]
        for text in ("".join(parts), parts[0] + parts[2]):
            prompt = {"prompt": text, "messages": [{"role": "user", "content": text}]}
            wanted = {key: prompt[key] for key in prompt if key in route.body}
            answer = client.post(route.path, json={**route.body, **wanted, name: policy})
        found.append(answer.json()["timings"]["cache_approx_n"])
    return found[0] == 0 < found[1]


def truncation_shows(client: httpx.Client, route: Route, name: str) -> bool:
    """A chat that is too long is refused, or cut where that is asked for."""
    long = {"role": "user", "content": "x" * 3000}
    body = {**route.body, "messages": [long, *route.body["messages"]]}
    statuses = [client.post(route.path, json={**body, name: v}).status_code for v in (None, "auto")]
    return statuses == [400, 200]


APART: dict[str, Callable[[httpx.Client, Route, str], bool]] = {
    "seed": seed_shows,
    "sampler_seed": seed_shows,
    "kv_reuse": kv_reuse_shows,
    "truncation": truncation_shows,
}
"""What one request with the field and one without cannot tell."""


@pytest.mark.parametrize(
    ("route", "probes"),
    [
        pytest.param(COMPLETIONS, COMPLETION_PROBES, id="completions"),
        pytest.param(CHAT, CHAT_PROBES, id="chat"),
    ],
)
def test_every_field_shows_or_is_reported_or_refused(
    client: httpx.Client, route: Route, probes: Mapping[str, Probe]
) -> None:
    prober, found = Prober(client, route), {}
    names = names_of(client, route)
    for name in names:
        probe = probes.get(name) or probes.get(ALIASES.get(name, ""))
        if name in APART:
            found[name] = "changed" if APART[name](client, route, name) else "lost"
        elif probe is None:
            found[name] = "no probe"
        else:
            others = {"max_tokens": None} if ALIASES.get(name) == "max_tokens" else {}
            found[name] = prober.outcome(name, Probe(probe.value, {**probe.given, **others}))
    assert {name: how for name, how in found.items() if how in ("lost", "no probe")} == {}
    said = {name for name, about in names.items() if "reported in warnings" in about}
    assert {name for name, how in found.items() if how == "reported"} - NOT_HERE == said


def test_asking_twice_shows_nothing_new(client: httpx.Client) -> None:
    """The harness itself: what does nothing is lost, and what nobody knows is reported."""
    prober = Prober(client, COMPLETIONS)
    assert prober.outcome("temperature", Probe(1)) == "lost"
    assert prober.outcome("frobnicate", Probe(1)) == "reported"
    assert prober.outcome("temperature", Probe("hot")) == "refused"


def test_the_document_names_every_field_of_a_chat(client: httpx.Client) -> None:
    names = names_of(client, CHAT)
    assert {*chat.ROUTE_FIELDS, *character.PLAY_FIELDS} <= names.keys()


@pytest.mark.parametrize("route", [COMPLETIONS, CHAT], ids=["completions", "chat"])
def test_the_document_names_every_field_of_the_dialects(client: httpx.Client, route: Route) -> None:
    assert {*OOBABOOGA.split(), *OPENAI.split()} - names_of(client, route).keys() == set()
