"""What is asked of a model, and what comes back, in one vocabulary for all dialects.

Dialects translate into ``GenerateRequest`` (aliases resolved, "off" values normalised) and format
``Delta`` and ``Finished`` frames; nothing below ``api`` knows a dialect's names.
"""

from typing import Any, Literal

from msgspec import Struct

FinishReason = Literal["stop", "length", "cancelled", "tool_calls"]
"""``stop``: an end token or a stop string; ``length``: the token limit or the context's end;
``tool_calls``: as ``stop``, and the reply calls tools."""

WHOLE_CONTEXT = -1
"""As ``penalty_range`` or ``dry_range``: every token of the prompt and reply counts."""

DEFAULT_SAMPLER_ORDER = (
    "penalties",
    "encoder_repetition_penalty",
    "no_repeat_ngram",
    "dry",
    "top_n_sigma",
    "top_k",
    "top_a",
    "tfs",
    "typical_p",
    "top_p",
    "min_p",
    "epsilon_cutoff",
    "eta_cutoff",
    "xtc",
    "temperature",
    "quadratic_sampling",
    "skew",
    "adaptive_p",
    "mirostat",
)
"""llama.cpp's order (its ``common/common.h``), with the steps it lacks beside their kin: truncation
first, temperature after it."""


class SamplingParams(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How the next token is chosen. Every default means "off", so the default is plain sampling.

    ``order`` names the steps in the order in which they apply; a step whose parameters are off
    costs nothing. ``penalties`` stands for ``repetition_penalty``, ``presence_penalty`` and
    ``frequency_penalty``, as far as the order does not name them apart. Logit bias, bans and the
    end-token rules come before all steps, always.
    """

    temperature: float = 1.0
    """0 = greedy: the most likely token after biases, bans and penalties."""
    dynatemp_range: float = 0.0
    """Entropy decides the temperature within ``temperature`` +- this."""
    dynatemp_exponent: float = 1.0
    smoothing_factor: float = 0.0
    """Quadratic sampling: how far logits below the best one are pushed down."""
    smoothing_curve: float = 1.0
    """Adds a cubic part to it; 1 = none."""
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    typical_p: float = 1.0
    top_a: float = 0.0
    tfs: float = 1.0
    """Tail-free sampling."""
    epsilon_cutoff: float = 0.0
    """A probability: less likely tokens are dropped. Oobabooga's field counts in 1e-4."""
    eta_cutoff: float = 0.0
    """A probability that entropy lowers. Oobabooga's field counts in 1e-4."""
    top_n_sigma: float = 0.0
    xtc_probability: float = 0.0
    xtc_threshold: float = 0.1
    xtc_protect: bool = False
    """XTC stands back where it would exclude the newline or an end token, as Oobabooga's does."""
    skew: float = 0.0
    """Above 0 favours the tail, below 0 the head."""
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    penalty_range: int = WHOLE_CONTEXT
    """Number of last tokens that the three penalties look at; 0 = none."""
    repetition_slope: float = 1.0
    """KoboldCpp's: part of ``repetition_penalty`` for tokens of the range's older half only."""
    repetition_curve: float = 0.0
    """KoboldAI's slope: how steeply the penalty rises from the range's oldest token to the newest;
    0 = it does not."""
    repetition_decay: int = 0
    """Number of tokens before ``penalty_range`` over which the three penalties fade in."""
    encoder_repetition_penalty: float = 1.0
    """Above 1 favours the tokens of the prompt, below 1 avoids them."""
    no_repeat_ngram: int = 0
    """No sequence of this many tokens occurs twice."""
    dry_multiplier: float = 0.0
    dry_base: float = 1.75
    dry_allowed_length: int = 2
    dry_range: int = WHOLE_CONTEXT
    dry_breakers: tuple[str, ...] = ("\n", ":", '"', "*")
    mirostat: Literal[0, 1, 2] = 0
    mirostat_tau: float = 5.0
    mirostat_eta: float = 0.1
    adaptive_target: float = -1.0
    """Below 0 = off."""
    adaptive_decay: float = 0.9
    min_keep: int = 0
    """Truncation leaves at least this many tokens."""
    order: tuple[str, ...] = DEFAULT_SAMPLER_ORDER
    logit_bias: dict[int, float] = {}
    """Added to the logits by token id; ``-inf`` bans."""
    ban_eos: bool = False
    """No end token is ever chosen, so only the limits or a stop string end the reply."""
    min_tokens: int = 0
    """No end token is chosen before this many tokens."""
    seed: int | None = None
    """None = a fresh random seed; choice ``i`` of ``n`` uses ``seed + i``."""


class Message(Struct, frozen=True, omit_defaults=True):
    """One turn of a chat. ``extra`` holds what a template may read beside it (tool calls, name)."""

    role: str
    content: str | None
    extra: dict[str, Any] = {}


ConstraintKind = Literal["json_schema", "json_object", "regex", "gbnf", "lark", "choice"]


class Constraint(Struct, frozen=True, omit_defaults=True):
    """The form that a reply must have: no token is chosen that would break it."""

    kind: ConstraintKind
    text: str = ""
    """The schema, regular expression or grammar; for ``choice`` a JSON list of texts; for
    ``json_object`` nothing."""
    field: str = "grammar"
    """What the client called it, for errors."""


class ToolUse(Struct, frozen=True, omit_defaults=True):
    """What a chat reply may call. ``tools`` are OpenAI's objects of type and function."""

    tools: tuple[dict[str, Any], ...]
    is_required: bool = False
    """The reply is nothing but calls."""
    only: str | None = None
    """The one tool that a required call calls; None = any."""
    is_parallel: bool = True
    """More than one call may come in a reply."""

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(tool["function"]["name"] for tool in self.tools)


class ReplyForm(Struct, frozen=True, omit_defaults=True):
    """What a chat reply consists of beside its text, and how the model marks it."""

    reasoning: tuple[str, str] = ("", "")
    """The marks around it; empty = the reply is not searched for reasoning."""
    in_reasoning: bool = False
    """The prompt ends within it."""
    reasoning_end: str = ""
    """What is written to end it early; empty = the mark behind it, between blank lines."""
    has_channels: bool = False
    """The reply consists of messages on channels, as ``prompt.harmony`` reads them."""
    tool_format: str = ""
    """Name of one of ``prompt.tool_formats``; empty = no calls."""
    tool_names: tuple[str, ...] = ()
    opening: str = ""
    """What the prompt has of the reply already: the beginning of a required call, or of a
    channel."""


class GenerateRequest(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One generation, as ``serving`` takes it and as the engine receives it.

    Exactly one of ``prompt`` and ``messages`` is given; ``serving`` renders messages to a prompt.
    """

    prompt: str | tuple[int, ...] | None = None
    """Text, or token ids taken as they are."""
    messages: tuple[Message, ...] | None = None
    model: str = ""
    """As the client names it; empty = the current one."""
    sampling: SamplingParams = SamplingParams()
    constraint: Constraint | None = None
    guidance_scale: float = 1.0
    """Classifier-free guidance: how far the reply moves away from what the model would say behind
    ``negative_prompt``; 1 = off."""
    negative_prompt: str = ""
    """Text in place of the prompt; with ``messages``, the system message in place of theirs."""
    banned: tuple[str, ...] = ()
    """Phrases that the reply never shows, in any case of letters."""
    stop: tuple[str, ...] = ()
    max_tokens: int | None = None
    """None = until the context is full."""
    lookup: int = 0
    """Most tokens to guess at once where the text repeats itself; 0 = none. The reply stays the
    same."""
    draft_max: int | None = None
    """Most tokens that the draft model guesses at once, where there is one; 0 = none; None = as
    many as pay. The reply stays the same."""
    n: int = 1
    heals_token: bool = False
    """The reply begins with a token that begins with the prompt's last one, which it replaces."""
    logprobs_after: bool = False
    """Log probabilities are of what was drawn from, behind all sampling steps."""
    logprobs: int | None = None
    """Number of alternatives to report per token; 0 = the chosen token's alone; None = none."""
    add_bos: bool = True
    """Prepend the model's BOS where its vocabulary asks for one and the text has none."""
    parse_special: bool = True
    """Text like ``<|im_start|>`` in the prompt becomes the special token."""
    skip_special_tokens: bool = True
    """Special tokens never appear in the reply's text."""
    kv_reuse: Literal["exact", "auto", "fast", "turbo"] | None = None
    """Which edits of the prompt may be reused over; None = as the model is set."""
    truncate_to: int | None = None
    """Keep only this many last prompt tokens (and BOS); what was cut is reported."""
    drops_turns: bool | None = None
    """Chat: whether the oldest turns are left out, and reported, where there is no room for all;
    None = as the server is set, or if ``truncate_to`` is."""
    template_kwargs: dict[str, Any] = {}
    """Variables for the chat template, such as ``enable_thinking``."""
    chat_template: str | None = None
    """Jinja instead of the model's own."""
    continue_last: bool = False
    """Chat: the last message is the assistant's and goes on; no new turn is opened."""
    tools: ToolUse | None = None
    """Chat only."""
    splits_reasoning: bool = False
    """Chat: reasoning comes apart from the text, in ``Delta.reasoning``."""
    shows_reasoning: bool = True
    """False leaves it out of the answer."""
    reasoning_budget: int | None = None
    """Chat: most tokens of reasoning; 0 = none; None = as many as the model likes."""
    form: ReplyForm | None = None
    """Set by ``serving``, from the chat template."""
    shown_special: tuple[str, ...] = ()
    """Special tokens that appear in the reply's text although ``skip_special_tokens``."""
    warnings: tuple[str, ...] = ()
    """What the dialect could not apply; every answer carries it."""
    debug: bool = False
    """The answer shows the final prompt and its token ids."""


class TokenLogprob(Struct, frozen=True, array_like=True):
    """A token with its natural-log probability before any sampling step."""

    token_id: int
    piece: bytes
    """The token's bytes; not always whole UTF-8 characters."""
    logprob: float
    top: tuple[tuple[int, bytes, float], ...] = ()
    """The most likely alternatives: (token id, piece, logprob), best first."""


class Timings(Struct, frozen=True, kw_only=True):
    """What one choice cost; counted where the model is called.

    ``prompt_n + cache_n + cache_approx_n`` is the prompt's length in tokens, or more where a full
    pool made the engine read a part of it again.
    """

    prompt_n: int
    """Prompt tokens evaluated for this request."""
    cache_n: int
    """Prompt tokens whose cache was reused exactly."""
    cache_approx_n: int = 0
    """Prompt tokens whose cache was reused after an edit."""
    restored_n: int = 0
    """Those of the two that had left the cache, and came back from memory or disk."""
    prompt_ms: float
    predicted_n: int
    predicted_ms: float
    draft_n: int = 0
    """Tokens that were guessed ahead."""
    draft_n_accepted: int = 0
    """Those of them that were right."""
    reasoning_n: int = 0
    """Tokens of ``predicted_n`` that were reasoning."""
    queue_ms: float = 0.0


class CallDelta(Struct, frozen=True, omit_defaults=True):
    """A piece of tool call ``index`` of a reply. The first one has ``id`` and ``name``; the pieces
    of ``arguments`` joined are JSON, as far as the reply was finished."""

    index: int
    arguments: str = ""
    id: str | None = None
    name: str | None = None
