"""Templates in their own process: what they get, and what cannot happen."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable

import psutil
import pytest

from innkeeper.core import Message
from innkeeper.errors import InvalidRequestError, UnsupportedModelError
from innkeeper.prompt.renderer import NO_TEMPLATE_WARNING, REGROUPED_WARNING, Renderer

CHAT = [Message("system", "Be kind."), Message("user", "Hello")]

STRICT = """
{%- if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}
{%- for m in messages %}
{%- if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('alternate') }}{% endif %}
[{{ m.role }}:{{ m.content }}]
{%- endfor %}"""

BOMBS = {
    "nested loops": "{% for i in range(99999) %}{% for j in range(99999) %}"
    "{% endfor %}{% endfor %}",
    "doubling": "{% set n = namespace(x='ab') %}{% for i in range(60) %}"
    "{% set n.x = n.x ~ n.x %}{% endfor %}",
    "wide format": "{{ '%2000000000d' % 1 }}",
    "wide str.format": "{{ '{:9999999999d}'.format(1) }}",
    "wide filter": "{{ 'a' | center(9999999999) }}",
    "bytes": "{{ (1).to_bytes(9999999999, 'big') }}",
    "replace": "{{ ('a' * 999999).replace('a', 'b' * 999999) }}",
    "lipsum": "{{ lipsum(n=99999999) }}",
    "recursion": "{% macro f() %}{{ f() }}{{ f() }}{% endmacro %}{{ f() }}",
    "exponential calls": "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}"
    "{% endmacro %}{{ f(60) }}",
    "long output": "{% for i in range(99999) %}{{ 'x' * 100000 }}{% endfor %}",
    "indent": "{{ messages | tojson(indent=9999999999) }}",
}

MakeRenderer = Callable[[str | None], Renderer]


@pytest.fixture
async def renderer() -> AsyncIterator[MakeRenderer]:
    made: list[Renderer] = []

    def make(template: str | None) -> Renderer:
        made.append(Renderer(template, bos_text="<s>"))
        return made[-1]

    yield make
    for each in made:
        await each.close()


async def test_absent_template_means_chatml_with_a_warning(renderer: MakeRenderer) -> None:
    rendered = await renderer(None).render(CHAT)
    assert rendered.text.startswith("<|im_start|>system\nBe kind.")
    assert rendered.warnings == (NO_TEMPLATE_WARNING,)


@pytest.mark.parametrize("name", BOMBS)
async def test_hostile_template_ends_in_an_error_and_the_next_works(
    renderer: MakeRenderer, name: str
) -> None:
    bomb = "{% if messages | length == 2 %}" + BOMBS[name] + "{% endif %}alive"
    hostile = renderer(bomb)
    started = time.monotonic()
    with pytest.raises(InvalidRequestError):
        await hostile.render(CHAT)
    assert time.monotonic() - started < 8, "a bounded render and a process start"
    assert (await hostile.render(CHAT[1:])).text == "alive"


async def test_gateway_keeps_running_while_a_template_loops(renderer: MakeRenderer) -> None:
    render = asyncio.ensure_future(renderer(BOMBS["nested loops"]).render(CHAT))
    turns = 0
    while not render.done():
        await asyncio.sleep(0)
        turns += 1
    assert turns > 1000
    with pytest.raises(InvalidRequestError, match="too long"):
        render.result()


async def test_deeply_nested_template_is_an_unusable_one(renderer: MakeRenderer) -> None:
    with pytest.raises(UnsupportedModelError):
        await renderer("{{ " + "(" * 100_000 + "1" + ")" * 100_000 + " }}").check()


async def test_strict_template_gets_regrouped_turns(renderer: MakeRenderer) -> None:
    chat = [
        Message("system", "A."),
        Message("system", "B."),
        Message("assistant", "Welcome."),
        Message("user", "Hi"),
        Message("user", "there"),
    ]
    rendered = await renderer(STRICT).render(chat)
    assert rendered.text == "[user:A.\n\nB.][assistant:Welcome.][user:Hi\n\nthere]"
    assert rendered.warnings == (REGROUPED_WARNING,)


async def test_refusal_that_regrouping_cannot_help_is_the_templates_own(
    renderer: MakeRenderer,
) -> None:
    with pytest.raises(InvalidRequestError, match="never") as caught:
        await renderer("{{ raise_exception('never') }}").render(CHAT)
    assert caught.value.field == "messages"


async def test_cancelled_render_does_not_answer_the_next_one(renderer: MakeRenderer) -> None:
    slow = renderer(
        "{% if messages | length == 1 %}{% for i in range(99999) %}{% for j in range(99999) %}"
        "{% endfor %}{% endfor %}{% endif %}{{ messages[-1].content }}"
    )
    await slow.check()
    first = asyncio.ensure_future(slow.render([Message("user", "first")]))
    await asyncio.sleep(0.05)
    first.cancel()
    assert (await slow.render([*CHAT, Message("user", "second")])).text == "second"


async def test_close_leaves_no_process(renderer: MakeRenderer) -> None:
    one = renderer(None)
    await one.render(CHAT)
    before = {child.pid for child in psutil.Process().children()}
    await one.close()
    after = {child.pid for child in psutil.Process().children()}
    assert len(before) == len(after) + 1
