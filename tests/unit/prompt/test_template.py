"""What a template may say, and what becomes of one that misbehaves."""

import pytest

from innkeeper.core import Message
from innkeeper.errors import InvalidRequestError, UnsupportedModelError
from innkeeper.prompt.template import CHATML, ChatTemplate, TemplateRaisedError

CHAT = [
    Message("system", "Be kind."),
    Message("user", "Hello <b>"),
    Message("assistant", "Hi there "),
]


def test_chatml_opens_the_assistants_turn() -> None:
    assert ChatTemplate(CHATML).render(CHAT[:2]) == (
        "<|im_start|>system\nBe kind.<|im_end|>\n"
        "<|im_start|>user\nHello <b><|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def test_continued_message_ends_where_it_ended() -> None:
    text = ChatTemplate(CHATML).render(CHAT, continue_last=True)
    assert text.endswith("<|im_start|>assistant\nHi there ")


def test_template_that_drops_the_last_message_cannot_continue() -> None:
    with pytest.raises(InvalidRequestError, match="does not keep the last message"):
        ChatTemplate("{{ messages[0].content }}").render(CHAT, continue_last=True)


def test_blocks_are_trimmed_as_transformers_does() -> None:
    template = (
        "{% for m in messages %}\n    {% if true %}\n{{ m.role }}\n    {% endif %}\n{% endfor %}"
    )
    assert ChatTemplate(template).render(CHAT) == "system\nuser\nassistant\n"


def test_special_tokens_and_variables_reach_the_template() -> None:
    template = ChatTemplate(
        "{{ bos_token }}{{ mood }}{{ eos_token }}", bos_text="<s>", eos_text="</s>"
    )
    assert template.render(CHAT, variables={"mood": "calm", "bos_token": "fake"}) == "<s>calm</s>"


def test_tojson_keeps_unicode_and_html() -> None:
    template = ChatTemplate("{{ messages[1].content | tojson }} {{ 'é' | tojson }}")
    assert template.render(CHAT) == '"Hello <b>" "é"'


def test_loop_controls_generation_tag_and_clock_work() -> None:
    template = ChatTemplate(
        "{% generation %}{% for i in range(9) %}{% if i == 2 %}{% break %}{% endif %}{{ i }}"
        "{% endfor %}{% endgeneration %}{{ strftime_now('%Y') | length }}"
    )
    assert template.render(CHAT) == "014"


def test_templates_own_refusal_reaches_the_user() -> None:
    template = ChatTemplate("{{ raise_exception('System role not supported') }}")
    with pytest.raises(TemplateRaisedError, match="System role not supported"):
        template.render(CHAT)


def test_bad_syntax_names_the_line() -> None:
    with pytest.raises(UnsupportedModelError, match="line 2"):
        ChatTemplate("fine\n{% if %}")


@pytest.mark.parametrize(
    "attack",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
        "{{ lipsum.__globals__['os'].system('id') }}",
        "{{ messages.append(1) }}",
        "{% set x = messages[0].update({'a': 1}) %}",
        "{{ strftime_now.__globals__.json }}",
        "{{ '{0.__class__.__mro__}'.format(messages) }}",
        "{{ self._TemplateReference__context.environment }}",
    ],
)
def test_sandbox_keeps_templates_from_python(attack: str) -> None:
    with pytest.raises(InvalidRequestError):
        ChatTemplate(attack).render(CHAT)


@pytest.mark.parametrize("bomb", ["{{ 'a' * 10**9 }}", "{{ 10**10**9 }}", "{{ [1] * 9999999 }}"])
def test_cheap_bombs_are_refused_before_they_grow(bomb: str) -> None:
    with pytest.raises(InvalidRequestError):
        ChatTemplate(bomb).render(CHAT)
