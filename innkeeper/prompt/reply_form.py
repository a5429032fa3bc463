"""What a chat template says of replies, put into a request: before rendering and after it."""

import msgspec

from innkeeper.core import Constraint, GenerateRequest, ReplyForm
from innkeeper.prompt import harmony, tool_formats
from innkeeper.prompt.tool_formats import GENERIC

_HARMONY_MARKS = (harmony.ANALYSIS, harmony.FINAL)
_REASONING_MARKS = (
    ("<think>", "</think>"),
    ("[THINK]", "[/THINK]"),
    ("<seed:think>", "</seed:think>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<reasoning>", "</reasoning>"),
)
_SWITCHES = ("enable_thinking", "thinking")
"""What templates call the variable that turns reasoning off."""


def for_template(request: GenerateRequest, template: str | None) -> GenerateRequest:
    """``request`` with its messages and template variables as ``template`` wants them, and with
    its ``form`` as far as that does not depend on the prompt.

    Raises: InvalidRequestError.
    """
    assert request.messages is not None
    style = tool_formats.recognise(template)
    tools, warnings = request.tools, list(request.warnings)
    if tools is not None and request.constraint is not None:
        tools = None
        field = request.constraint.field
        warnings.append(f"not applied: tools (the reply's form is fixed by {field})")
    variables = dict(request.template_kwargs)
    if _wants_no_reasoning(request):
        variables |= dict.fromkeys(_SWITCHES, False)
    if tools is not None and style is not GENERIC:
        variables["tools"] = list(tools.tools)
    marks = reasoning_marks(template) if request.splits_reasoning else ("", "")
    shown = tool_formats.shown_special(style) if tools else ()
    has_channels = harmony.is_harmony(template) and (tools is None or style is not GENERIC)
    shown = harmony.SHOWN if has_channels else shown
    return msgspec.structs.replace(
        request,
        messages=tool_formats.messages_for(style, request.messages, tools),
        template_kwargs=variables,
        tools=tools,
        warnings=tuple(warnings),
        form=ReplyForm(
            reasoning=marks,
            tool_format=style.name if tools else "",
            tool_names=tools.names if tools else (),
            has_channels=has_channels,
            reasoning_end=harmony.CLOSING if has_channels else "",
        ),
        shown_special=tuple(mark for mark in (*marks, *shown) if mark),
    )


def for_prompt(request: GenerateRequest, prompt: str, template: str | None) -> GenerateRequest:
    """``request`` (of ``for_template``) with its rendered prompt: what the reply must begin with is
    put there, and what must follow is its constraint."""
    assert request.form is not None
    if request.form.has_channels:
        return _on_channels(request, prompt)
    opened, closed = request.form.reasoning
    is_open = bool(opened) and prompt.rstrip().endswith(opened)
    tools = request.tools if request.tools and request.tools.is_required else None
    if opened and (tools or _wants_no_reasoning(request)):
        if is_open:
            prompt = f"{prompt.rstrip()}\n\n{closed}\n\n"
        elif not tools and _cannot_switch(template, opened) and not request.continue_last:
            prompt = f"{prompt}{opened}\n\n{closed}\n\n"
        is_open = False
    request = msgspec.structs.replace(
        request, form=msgspec.structs.replace(request.form, in_reasoning=is_open)
    )
    if tools is None:
        return _one_call(msgspec.structs.replace(request, prompt=prompt, messages=None))
    assert request.form is not None
    style = tool_formats.FORMATS[request.form.tool_format]
    opening = tool_formats.opening_of(style, tools)
    return msgspec.structs.replace(
        request,
        prompt=prompt + opening,
        messages=None,
        constraint=Constraint("lark", tool_formats.grammar(style, tools), "tools"),
        form=msgspec.structs.replace(request.form, reasoning=("", ""), opening=opening),
    )


def _on_channels(request: GenerateRequest, prompt: str) -> GenerateRequest:
    """As ``for_prompt``. The channel is chosen here where it is not the model's choice: a form
    holds for the answer alone, so that it must be known where that begins."""
    assert request.form is not None
    tools = request.tools if request.tools and request.tools.is_required else None
    opening, constraint = "", request.constraint
    is_new = prompt.endswith(harmony.START_OF_REPLY)
    if tools is not None:
        style = tool_formats.FORMATS[request.form.tool_format]
        opening = tool_formats.opening_of(style, tools)
        constraint = Constraint("lark", tool_formats.grammar(style, tools), "tools")
    elif is_new and _wants_no_reasoning(request):
        opening = harmony.FINAL
    elif is_new and constraint is not None:
        opening = harmony.ANALYSIS
    form = msgspec.structs.replace(
        request.form,
        opening=opening,
        in_reasoning=opening == harmony.ANALYSIS,
        reasoning=("", "") if tools is not None else request.form.reasoning,
    )
    return msgspec.structs.replace(
        request, prompt=prompt + opening, messages=None, constraint=constraint, form=form
    )


def reasoning_marks(template: str | None) -> tuple[str, str]:
    """The marks that ``template`` names; the usual ones otherwise, since many templates leave what
    the model writes to the model."""
    text = template or ""
    if harmony.is_harmony(template):
        return _HARMONY_MARKS
    return next((pair for pair in _REASONING_MARKS if pair[1] in text), _REASONING_MARKS[0])


def names_reasoning(template: str | None) -> bool:
    """Whether ``template`` speaks of reasoning, so that its model most likely does it."""
    return any(pair[1] in (template or "") for pair in _REASONING_MARKS)


def _wants_no_reasoning(request: GenerateRequest) -> bool:
    return request.reasoning_budget == 0 or request.template_kwargs.get("enable_thinking") is False


def _cannot_switch(template: str | None, opened: str) -> bool:
    """Whether the model reasons, and its template has no variable to stop it."""
    text = template or ""
    return opened in text and not any(name in text for name in _SWITCHES)


def _one_call(request: GenerateRequest) -> GenerateRequest:
    """Where calls may not come at once, the end of the first one ends the reply."""
    if request.tools is None or request.tools.is_parallel or request.form is None:
        return request
    closing = tool_formats.FORMATS[request.form.tool_format].closing
    return msgspec.structs.replace(request, stop=(*request.stop, closing)) if closing else request
