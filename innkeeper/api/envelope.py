"""What OpenAI puts around choices: ids, the model, usage, timings, and the end of a stream."""

import secrets
import time
from collections.abc import Iterator, Sequence

from msgspec import UNSET, Struct, UnsetType

from innkeeper.api.replies import Choice, Totals, Usage, json_bytes
from innkeeper.api.stream import DONE, event
from innkeeper.core.frames import Finished, SeenPrompt
from innkeeper.serving import Models


class Completion(Struct, frozen=True, kw_only=True):
    """A whole answer, or a chunk of one."""

    id: str
    object: str
    created: int
    model: str
    choices: Sequence[Struct]
    system_fingerprint: None = None
    usage: Usage | UnsetType | None = UNSET
    timings: dict[str, float] | UnsetType = UNSET
    warnings: list[str] | UnsetType = UNSET
    debug: list[SeenPrompt] | UnsetType = UNSET


class Envelope:
    """Of one answer, whole or streamed.

    model: as the request names it. kind: OpenAI's name of the object. num_per_prompt: choices that
    share a prompt.
    """

    def __init__(
        self,
        models: Models,
        *,
        model: str,
        kind: str,
        id_prefix: str,
        num_per_prompt: int,
        include_usage: bool,
    ) -> None:
        self._models = models
        self._asked_model = model
        self._kind = kind
        self._id = f"{id_prefix}-{secrets.token_hex(12)}"
        self._created = int(time.time())
        self._model = ""
        self._totals = Totals(num_per_prompt)
        self._includes_usage = include_usage

    def whole(self, choices: Sequence[Choice], formatted: Sequence[Struct]) -> bytes:
        """The whole answer as JSON. formatted: ``choices`` in the dialect's shape."""
        for choice in choices:
            assert choice.finished is not None
            self._totals.add(choice.finished)
        return json_bytes(self._completion(formatted, is_last=True, usage=self._totals.usage()))

    def chunk(self, choice: Struct) -> bytes:
        """An event with a part of a reply."""
        return self._event([choice], is_last=False)

    def finish(self, finished: Finished, choice: Struct, *, is_last: bool) -> bytes:
        """The last event of one choice. is_last: it is the last choice too."""
        self._totals.add(finished)
        return self._event([choice], is_last=is_last and not self._includes_usage)

    def end(self) -> Iterator[bytes]:
        """What follows the choices."""
        if self._includes_usage:
            yield self._event([], is_last=True)
        yield DONE

    def _event(self, choices: Sequence[Struct], *, is_last: bool) -> bytes:
        usage: Usage | UnsetType | None = UNSET
        if self._includes_usage:
            usage = self._totals.usage() if is_last else None
        return event(json_bytes(self._completion(choices, is_last=is_last, usage=usage)))

    def _completion(
        self, choices: Sequence[Struct], *, is_last: bool, usage: Usage | UnsetType | None
    ) -> Completion:
        self._model = self._model or self._models.answering(self._asked_model)
        return Completion(
            id=self._id,
            object=self._kind,
            created=self._created,
            model=self._model,
            choices=choices,
            usage=usage,
            timings=self._totals.timings() if is_last else UNSET,
            warnings=self._totals.warnings() if is_last else UNSET,
            debug=self._totals.debug() if is_last else UNSET,
        )
