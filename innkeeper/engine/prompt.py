"""A request's prompt as tokens: BOS, the cut that was asked for, and the context's limit."""

import re
from collections.abc import Sequence
from typing import NamedTuple

from innkeeper.core import GenerateRequest, ModelFacts
from innkeeper.engine.runner import Tokenizer
from innkeeper.errors import InvalidRequestError, PromptTooLongError

_NAME_TOKENS = 24
_NAME_AT_THE_END = re.compile(r"\n([^\n:]{1,60}):[ ]?$")


class Prompt(NamedTuple):
    tokens: list[int]
    truncated_n: int
    """Tokens that were cut off the left."""


def tokenize_prompt(request: GenerateRequest, tokenizer: Tokenizer, facts: ModelFacts) -> Prompt:
    """The tokens to evaluate. Runs on the tokenizer's thread.

    Raises: PromptTooLongError if no place for a reply is left; InvalidRequestError for an empty
    prompt or token ids outside the vocabulary.
    """
    tokens = _encode(request, tokenizer, facts)
    tokens, truncated_n = _truncate(tokens, request.truncate_to, facts.bos_id)
    needed = len(tokens) + (request.max_tokens != 0)
    if needed > facts.num_ctx:
        raise PromptTooLongError(
            f"the prompt has {len(tokens)} tokens and the context is {facts.num_ctx}",
            field="prompt",
            hint=f"set the client's context size to at most {facts.num_ctx}"
            " (SillyTavern: the Context (tokens) slider), or start with a larger --ctx",
        )
    return Prompt(tokens, truncated_n)


def tokenize_negative(
    request: GenerateRequest, tokens: list[int], tokenizer: Tokenizer, facts: ModelFacts
) -> tuple[int, ...]:
    """The negative prompt of guidance beside the prompt's ``tokens``; empty = no guidance. Without
    a text, the prompt's last token alone, as in transformers.

    Raises: PromptTooLongError.
    """
    if request.guidance_scale == 1:
        return ()
    if not request.negative_prompt:
        return (tokens[-1],)
    found = tokenizer.encode(
        request.negative_prompt, add_special=request.add_bos, parse_special=request.parse_special
    )
    if len(found) >= facts.num_ctx or len(found) + len(tokens) + 2 > facts.num_pool:
        raise PromptTooLongError(
            f"the negative prompt has {len(found)} tokens beside the prompt's {len(tokens)}; the"
            f" context is {facts.num_ctx} and the cache {facts.num_pool} tokens",
            field="negative_prompt",
            hint="shorten it",
        )
    return tuple(found)


def next_speaker(tokens: Sequence[int], tokenizer: Tokenizer) -> str:
    """The name that a prompt ends with (``Mira:``), as front ends ask a character to speak; empty
    if it does not."""
    match = _NAME_AT_THE_END.search(tokenizer.decode(tokens[-_NAME_TOKENS:]))
    return match[1] if match else ""


def _encode(request: GenerateRequest, tokenizer: Tokenizer, facts: ModelFacts) -> list[int]:
    if isinstance(request.prompt, tuple):
        tokens = list(request.prompt)
        bad = next((t for t in tokens if not 0 <= t < facts.num_vocab), None)
        if bad is not None:
            raise InvalidRequestError(
                f"token id {bad} is outside the vocabulary (0 to {facts.num_vocab - 1})",
                field="prompt",
            )
    else:
        tokens = tokenizer.encode(
            request.prompt or "",
            add_special=request.add_bos,
            parse_special=request.parse_special,
        )
    if not tokens and facts.bos_id is not None:
        tokens = [facts.bos_id]
    if not tokens:
        raise InvalidRequestError("the prompt is empty", field="prompt", hint="send some text")
    return tokens


def _truncate(tokens: list[int], limit: int | None, bos_id: int | None) -> Prompt:
    if limit is None or len(tokens) <= limit:
        return Prompt(tokens, 0)
    head = [bos_id] if bos_id is not None and tokens[0] == bos_id and limit > 1 else []
    kept = head + tokens[len(tokens) - max(1, limit - len(head)) :]
    return Prompt(kept, len(tokens) - len(kept))
