"""From a request to text: render, check, queue, stream."""

import contextlib
from collections.abc import AsyncGenerator, Sequence

import msgspec

from innkeeper.core import GenerateRequest, Message, ModelFacts
from innkeeper.core.frames import Delta, Finished, ProbedStep
from innkeeper.enginelink import EngineLink
from innkeeper.errors import (
    BusyError,
    InnkeeperError,
    InvalidRequestError,
    PromptTooLongError,
    UnsupportedModelError,
)
from innkeeper.prompt import reply_form
from innkeeper.prompt.renderer import RenderedPrompt
from innkeeper.serving.loaded import LoadedModel
from innkeeper.serving.models import Models
from innkeeper.serving.replies import Replies
from innkeeper.serving.turns import fit_turns, prompt_room
from innkeeper.units import MIB

MAX_TOKENIZE_BYTES = 4 * MIB


class Generate:
    """Generation and tokenizing with the models that are loaded, or come when they are named.

    max_queued: choices beyond those that the engine runs at once; more are refused (BusyError).
    drops_turns: whether chats that do not say so lose their oldest turns where they are too long.
    """

    def __init__(self, models: Models, *, max_queued: int = 64, drops_turns: bool = False) -> None:
        self.models = models
        self._max_queued = max_queued
        self._drops_turns = drops_turns
        self._num_arriving = 0

    async def stream(self, request: GenerateRequest) -> AsyncGenerator[Delta | Finished, None]:
        """Deltas, and one ``Finished`` per choice. Closing the iterator cancels the request.

        The request's model is loaded if it is not. Each ``Finished`` carries the request's own
        warnings before the engine's. Raises: NoModelError, NotFoundError, BusyError,
        InvalidRequestError, what a load fails with, and what ``EngineLink.stream`` raises.
        """
        async with self._arriving(request.n), self._ready(request) as (link, prepared):
            events = link.stream(prepared)
        replies = Replies(prepared)
        async with contextlib.aclosing(events):
            async for event in events:
                for part in replies.read(event):
                    yield part

    async def prepare(self, request: GenerateRequest, model: LoadedModel) -> GenerateRequest:
        """The request with its messages rendered, refused if no tokenizer could make it fit.

        Raises: InvalidRequestError, PromptTooLongError.
        """
        if request.messages is not None:
            request = _for_template(request, model)
            if self._may_drop(request):
                request = await _fitted(request, model)
            request = await _with_prompt(request, model)
        refuse_absurd(request, model.facts)
        return request

    async def render(self, request: GenerateRequest) -> str:
        """The prompt that ``request``'s messages become. Raises: InvalidRequestError."""
        if isinstance(request.prompt, str):
            return request.prompt
        name, _ = self.models.resolve(request.model)
        async with self.models.use(name) as model:
            prompt = (await _with_prompt(_for_template(request, model), model)).prompt
        assert isinstance(prompt, str)
        return prompt

    async def tokenize(
        self, text: str, *, model: str = "", add_special: bool = False, parse_special: bool = True
    ) -> tuple[int, ...]:
        """Token ids of ``text``. Never waits for generation.

        Raises: InvalidRequestError above ``MAX_TOKENIZE_BYTES``; as ``Models.use``.
        """
        num_bytes = len(text.encode("utf-8", "replace"))
        if num_bytes > MAX_TOKENIZE_BYTES:
            raise InvalidRequestError(
                f"the text has {num_bytes} bytes; at most {MAX_TOKENIZE_BYTES} can be tokenized"
                " at once",
                field="text",
            )
        link = await self.models.engine(self.models.resolve(model)[0])
        return await link.tokenize(text, add_special=add_special, parse_special=parse_special)

    async def detokenize(self, tokens: Sequence[int], *, model: str = "") -> str:
        """Text of ``tokens``. Raises: InvalidRequestError for ids beyond the vocabulary."""
        link = await self.models.engine(self.models.resolve(model)[0])
        return await link.detokenize(tokens)

    async def probe(
        self, request: GenerateRequest, *, use_samplers: bool, top: int
    ) -> tuple[tuple[int, str, float], ...]:
        """(token id, text, probability) of the likeliest next tokens after the prompt."""
        async with self._arriving(1), self._ready(request) as (link, prepared):
            return await link.probe(prepared, use_samplers=use_samplers, top=top)

    async def trace(self, request: GenerateRequest, *, top: int) -> tuple[ProbedStep, ...]:
        """Why the next token is what it is: the candidates behind every sampling step."""
        async with self._arriving(1), self._ready(request) as (link, prepared):
            return await link.trace(prepared, top)

    def stop_all(self) -> None:
        """Every running request ends as ``cancelled`` within one step."""
        for model in self.models.loaded:
            model.link.cancel_all()

    def _may_drop(self, request: GenerateRequest) -> bool:
        if request.drops_turns is not None:
            return request.drops_turns
        return self._drops_turns or request.truncate_to is not None

    @contextlib.asynccontextmanager
    async def _ready(
        self, request: GenerateRequest
    ) -> AsyncGenerator[tuple[EngineLink, GenerateRequest], None]:
        """An engine and the request prepared for its model, even if models change meanwhile; the
        model stays within the block."""
        name, warning = self.models.resolve(request.model)
        if warning is not None:
            request = msgspec.structs.replace(request, warnings=(*request.warnings, warning))
        while True:
            async with self.models.use(name) as model:
                try:
                    link = await model.engine()
                    prepared = await self.prepare(request, model)
                except InnkeeperError:
                    if not model.is_leaving:
                        raise
                    continue
                if link.alive:
                    yield link, prepared
                    return

    @contextlib.asynccontextmanager
    async def _arriving(self, num_choices: int) -> AsyncGenerator[None, None]:
        """Counts choices that no engine knows of yet. Raises: BusyError."""
        loaded = self.models.loaded
        num_open = self._num_arriving + sum(model.link.num_open for model in loaded)
        limit = self._max_queued + sum(model.facts.max_sequences for model in loaded)
        if num_open and num_open + num_choices > limit:
            raise BusyError(
                f"{num_open} replies are being generated or waiting; the limit is {limit}",
                hint="try again in a moment",
            )
        self._num_arriving += num_choices
        try:
            yield
        finally:
            self._num_arriving -= num_choices


async def _render(
    request: GenerateRequest, messages: Sequence[Message], model: LoadedModel
) -> RenderedPrompt:
    renderer = await model.renderer_of(request.chat_template)
    try:
        return await renderer.render(
            messages, continue_last=request.continue_last, variables=request.template_kwargs
        )
    except UnsupportedModelError as error:
        if request.chat_template is None:
            raise
        raise InvalidRequestError(str(error), field="chat_template") from None


def _for_template(request: GenerateRequest, model: LoadedModel) -> GenerateRequest:
    return reply_form.for_template(request, request.chat_template or model.facts.chat_template)


async def _fitted(request: GenerateRequest, model: LoadedModel) -> GenerateRequest:
    """The request without the turns that its context has no room for."""

    async def num_tokens(messages: Sequence[Message]) -> int:
        text = (await _render(request, messages, model)).text
        num_bytes = len(text.encode("utf-8", "replace"))
        if not room <= num_bytes <= MAX_TOKENIZE_BYTES:
            return num_bytes  # at least as many as tokens, or far too many
        return len(await (await model.engine()).tokenize(text, add_special=request.add_bos))

    room = prompt_room(request, model.facts.num_ctx)
    messages, warning = await fit_turns(request.messages or (), room, num_tokens)
    warnings = (*request.warnings, warning) if warning else request.warnings
    return msgspec.structs.replace(request, messages=messages, warnings=warnings)


async def _with_prompt(request: GenerateRequest, model: LoadedModel) -> GenerateRequest:
    """``request`` (of ``_for_template``) with its prompt."""
    template = request.chat_template or model.facts.chat_template
    rendered = await _render(request, request.messages or (), model)
    negative = request.negative_prompt
    if negative:
        chat = [message for message in request.messages or () if message.role != "system"]
        negative = (await _render(request, [Message("system", negative), *chat], model)).text
    request = reply_form.for_prompt(request, rendered.text, template)
    return msgspec.structs.replace(
        request,
        negative_prompt=negative,
        template_kwargs={},
        chat_template=None,
        tools=None,
        warnings=(*request.warnings, *rendered.warnings),
    )


def refuse_absurd(request: GenerateRequest, facts: ModelFacts) -> None:
    """Refuses a text that cannot fit however it is tokenized, without tokenizing it.

    Raises: PromptTooLongError. With ``truncate_to`` any length is fine for the context, so only
    the tokenizer's own bound holds.
    """
    if not isinstance(request.prompt, str):
        return
    num_bytes = len(request.prompt.encode("utf-8", "replace"))
    at_least = num_bytes // max(1, facts.max_token_bytes)
    if request.truncate_to is not None and num_bytes <= MAX_TOKENIZE_BYTES:
        return
    if at_least > facts.num_ctx or num_bytes > MAX_TOKENIZE_BYTES:
        raise PromptTooLongError(
            f"the prompt has {num_bytes} bytes, at least {at_least} tokens, and the context is"
            f" {facts.num_ctx} tokens",
            field="prompt",
            hint=f"set the client's context size to at most {facts.num_ctx}"
            " (SillyTavern: the Context (tokens) slider), or start with a larger --ctx",
        )
