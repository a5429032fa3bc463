"""What clients are told of a reply: reasoning and tool calls apart, and every warning."""

from collections.abc import Iterator

import msgspec

from innkeeper.core import GenerateRequest, TokenLogprob
from innkeeper.core.frames import Delta, Finished
from innkeeper.prompt.harmony import HarmonyReader
from innkeeper.prompt.reply_reader import Parts, ReplyReader


class Replies:
    """The choices of one request, each taken apart as its form says."""

    def __init__(self, request: GenerateRequest) -> None:
        self._request = request
        self._readers: dict[int, ReplyReader | HarmonyReader] = {}

    def read(self, event: Delta | Finished) -> Iterator[Delta | Finished]:
        """What clients are told of an event of the engine."""
        form = self._request.form
        if form is None:
            yield event if isinstance(event, Delta) else _with_warnings(event, self._request)
            return
        if event.index not in self._readers:
            reader_type = HarmonyReader if form.has_channels else ReplyReader
            self._readers[event.index] = reader_type(form)
        reader = self._readers[event.index]
        if isinstance(event, Delta):
            parts = reader.push(event.text)
            yield from self._delta(event, parts, event.num_tokens, event.logprobs)
            return
        yield from self._delta(event, reader.finish(), event.timings.predicted_n)
        if reader.num_calls and event.reason == "stop":
            event = msgspec.structs.replace(event, reason="tool_calls")
        yield _with_warnings(event, self._request)

    def _delta(
        self,
        event: Delta | Finished,
        parts: Parts,
        num_tokens: int,
        logprobs: tuple[TokenLogprob, ...] = (),
    ) -> Iterator[Delta]:
        reasoning = parts.reasoning if self._request.shows_reasoning else ""
        if parts.text or reasoning or parts.calls or logprobs:
            yield Delta(
                event.id,
                event.index,
                parts.text,
                num_tokens,
                logprobs,
                reasoning,
                tuple(parts.calls),
            )


def _with_warnings(event: Finished, request: GenerateRequest) -> Finished:
    warnings = list(request.warnings)
    if event.truncated_n:
        warnings.append(
            f"{event.truncated_n} tokens were cut off the start of the prompt, as asked"
        )
    return msgspec.structs.replace(event, warnings=(*warnings, *event.warnings))
