"""The frames that answer a request: its text, its end, the next-token distribution it asked for."""

from collections.abc import Iterator

import numpy as np

from innkeeper.core import FinishReason, ModelFacts
from innkeeper.core.frames import Delta, Finished, Probabilities, Probe, ProbedStep, SeenPrompt
from innkeeper.engine.choosing import Chooser
from innkeeper.engine.logprobs import likeliest, token_logprob
from innkeeper.engine.reply import Released
from innkeeper.engine.runner import Logits, Ranked, Tokenizer
from innkeeper.engine.sequence import Sequence


def push(
    sequence: Sequence, token_id: int, logprobs: Logits | None, tokenizer: Tokenizer
) -> Released:
    """Adds its newest token to its reply; what may be shown now. ``logprobs`` (num_vocab,) or None:
    what the token was drawn from."""
    request, entry = sequence.request, None
    if logprobs is not None and request.logprobs is not None:
        entry = token_logprob(token_id, logprobs, request.logprobs, tokenizer)
    is_shown = not request.skip_special_tokens or token_id in sequence.shown_ids
    piece = tokenizer.piece(token_id, special=is_shown)
    if sequence.num_generated == 1:
        piece = piece[len(sequence.heals) :]
    return sequence.reply.push(piece, entry)


def delta(sequence: Sequence, released: Released) -> Delta:
    """The frame of text that is shown."""
    return Delta(
        sequence.request_id,
        sequence.index,
        released.text,
        sequence.num_generated,
        released.logprobs,
    )


def finished(
    sequence: Sequence, reason: FinishReason, facts: ModelFacts, tokenizer: Tokenizer
) -> Finished:
    """The last frame of one choice, with what it cost and what its client should know."""
    return Finished(
        sequence.request_id,
        sequence.index,
        reason,
        sequence.timings(),
        stop_text=sequence.reply.stop_text,
        truncated_n=sequence.truncated_n,
        warnings=tuple(_warnings(sequence, reason, facts)),
        debug=_seen(sequence, tokenizer) if sequence.request.debug else None,
    )


def probed(
    sequence: Sequence, probe: Probe, logits: Logits, chooser: Chooser, tokenizer: Tokenizer
) -> Probabilities:
    """What may come next, and behind which step, as ``probe`` asks. Changes ``logits``
    (num_vocab,)."""

    def best(ranked: Ranked) -> tuple[tuple[int, str, float], ...]:
        ids, probabilities = ranked[0][: probe.top].tolist(), ranked[1][: probe.top].tolist()
        return tuple((i, tokenizer.decode([i]), p) for i, p in zip(ids, probabilities, strict=True))

    ranked, steps, is_open = likeliest(logits, probe.top), [], True
    if probe.traces:
        steps.append(ProbedStep("model", logits.size, best(ranked)))
    if probe.use_samplers or probe.traces:
        before = np.count_nonzero(logits > -np.inf)
        is_open = chooser.restrict(sequence, logits)
        num_left = int(np.count_nonzero(logits > -np.inf))
        if probe.traces and num_left != before:
            steps.append(ProbedStep("constraint", num_left, best(likeliest(logits, probe.top))))
    if probe.traces and is_open:
        for name, num_left, found in sequence.sampler.trace(logits):
            steps.append(ProbedStep(name, num_left, best(found)))
    elif probe.use_samplers and is_open:
        ranked = sequence.sampler.distribution(logits)
    return Probabilities(sequence.request_id, best(ranked), tuple(steps))


def _seen(sequence: Sequence, tokenizer: Tokenizer) -> SeenPrompt:
    tokens = sequence.tokens[: sequence.num_prompt]
    return SeenPrompt(tokenizer.decode(tokens), tuple(tokens))


def _warnings(sequence: Sequence, reason: FinishReason, facts: ModelFacts) -> Iterator[str]:
    request = sequence.request
    if request.draft_max and not facts.draft:
        yield (
            "not applied: draft_max, or speculative.n_max (no draft model is loaded;"
            " --draft-model names one)"
        )
    asked = request.max_tokens
    if reason == "length" and asked is not None and sequence.num_generated < asked:
        yield (
            f"the context of {facts.num_ctx} tokens ended the reply after"
            f" {sequence.num_generated} of {asked} tokens; a larger --ctx or a shorter prompt"
            " leaves more room"
        )
