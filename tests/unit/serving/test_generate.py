"""Requests on their way to the engine."""

import asyncio
from pathlib import Path

import pytest

from innkeeper.core import GenerateRequest, Message, SamplingParams
from innkeeper.core.frames import Delta, Finished
from innkeeper.errors import BusyError, InvalidRequestError, PromptTooLongError
from innkeeper.serving import Generate
from innkeeper.serving.generate import MAX_TOKENIZE_BYTES
from tests.unit.serving.conftest import MakeModels

FAKE = Path("/models/fake.gguf")


async def loaded(make_models: MakeModels, max_queued: int = 64, **options: str) -> Generate:
    models = make_models(**options)
    await models.start_load_file(FAKE).wait()
    return Generate(models, max_queued=max_queued)


async def run(generate: Generate, request: GenerateRequest) -> tuple[str, Finished]:
    pieces, last = [], None
    async for event in generate.stream(request):
        if isinstance(event, Delta):
            pieces.append(event.text)
        else:
            last = event
    assert last is not None
    return "".join(pieces), last


async def test_messages_become_a_prompt_and_warnings_come_along(make_models: MakeModels) -> None:
    generate = await loaded(make_models)
    text = "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    greedy = SamplingParams(temperature=0)
    chat = GenerateRequest(
        messages=(Message("user", "hi"),), max_tokens=5, sampling=greedy, warnings=("mine",)
    )
    as_chat, chat_end = await run(generate, chat)
    plain = GenerateRequest(prompt=text, max_tokens=5, sampling=greedy)
    as_text, text_end = await run(generate, plain)
    assert as_chat == as_text
    assert chat_end.warnings[0] == "mine" and "ChatML" in chat_end.warnings[1]
    assert text_end.warnings == ()


async def test_cut_prompt_is_reported(make_models: MakeModels) -> None:
    generate = await loaded(make_models)
    _, end = await run(generate, GenerateRequest(prompt="x" * 100, truncate_to=40, max_tokens=1))
    assert end.truncated_n == 61, "100 letters and a BOS, 40 kept"
    assert end.warnings == ("61 tokens were cut off the start of the prompt, as asked",)


async def test_prompt_beyond_the_context_names_both_numbers(make_models: MakeModels) -> None:
    generate = await loaded(make_models)
    with pytest.raises(PromptTooLongError, match=r"257 tokens.*256"):
        await run(generate, GenerateRequest(prompt="x" * 256))


async def test_absurd_prompt_is_refused_without_tokenizing(make_models: MakeModels) -> None:
    generate = await loaded(make_models)
    huge = "x" * (MAX_TOKENIZE_BYTES + 1)
    for request in (GenerateRequest(prompt=huge), GenerateRequest(prompt=huge, truncate_to=9)):
        with pytest.raises(PromptTooLongError, match="at least 4194305 tokens"):
            await run(generate, request)
    with pytest.raises(InvalidRequestError) as caught:
        await generate.tokenize(huge)
    assert caught.value.field == "text"


async def test_queue_beyond_its_limit_is_busy_and_recovers(make_models: MakeModels) -> None:
    generate = await loaded(make_models, max_queued=1, tokens_per_second="200")
    endless = [asyncio.create_task(run(generate, GenerateRequest(prompt="hi"))) for _ in range(5)]
    await asyncio.sleep(0)
    with pytest.raises(BusyError, match="limit is 5"):
        await run(generate, GenerateRequest(prompt="hi"))
    for task in endless:
        task.cancel()
    await asyncio.wait(endless)
    text, _ = await run(generate, GenerateRequest(prompt="hi", max_tokens=3))
    assert len(text) == 3


async def test_reply_that_nobody_reads_keeps_no_place(make_models: MakeModels) -> None:
    generate = await loaded(make_models, max_queued=0)
    unread = [generate.stream(GenerateRequest(prompt="hi", max_tokens=20)) for _ in range(4)]
    for events in unread:
        await anext(events)
    link = generate.models.link
    while link and link.num_open:
        await asyncio.sleep(0.001)
    text, _ = await run(generate, GenerateRequest(prompt="hi", max_tokens=3))
    assert len(text) == 3
    for events in unread:
        rest = [event async for event in events]
        assert len(rest) == 20, "the reply is still there in full"


async def test_request_survives_a_change_of_models(make_models: MakeModels) -> None:
    generate = await loaded(make_models)
    models = generate.models
    chat = GenerateRequest(messages=(Message("user", "hi"),), max_tokens=3)
    for name in ("one", "two", "three"):
        job = models.start_load_file(Path(f"/models/{name}.gguf"))
        while job.running:
            text, _ = await run(generate, chat)
            assert len(text) == 3


async def test_stop_all_ends_replies_early_but_whole(make_models: MakeModels) -> None:
    generate = await loaded(make_models, tokens_per_second="200")
    events = generate.stream(GenerateRequest(prompt="hi"))
    await anext(events)
    generate.stop_all()
    rest = [event async for event in events]
    assert isinstance(rest[-1], Finished) and rest[-1].reason == "cancelled"


async def test_seeded_choices_repeat(make_models: MakeModels) -> None:
    generate = await loaded(make_models)
    request = GenerateRequest(
        prompt="hi", max_tokens=20, sampling=SamplingParams(seed=7, temperature=2.0)
    )
    assert (await run(generate, request))[0] == (await run(generate, request))[0]


async def test_probe_gives_probabilities_best_first(make_models: MakeModels) -> None:
    generate = await loaded(make_models)
    found = await generate.probe(GenerateRequest(prompt="hi"), use_samplers=False, top=5)
    chances = [probability for _, _, probability in found]
    assert len(found) == 5 and chances == sorted(chances, reverse=True)
