"""Filling the gap in a text, by the marks that a model was trained with for it."""

from innkeeper.api.errors import NotSupportedError
from innkeeper.serving import Generate


async def fill_prompt(
    before: str, behind: str, *, model: str, field: str, generate: Generate
) -> tuple[int, ...]:
    """The text before the gap, the text behind it, and the sign to fill it, as token ids.

    field: what the client calls the text behind. Raises: NotSupportedError if the model knows no
    such signs; as ``Models.engine``.
    """
    link = await generate.models.engine(generate.models.resolve(model)[0])
    fill, facts = link.facts.fill_ids, link.facts
    if fill is None:
        raise NotSupportedError(
            f"{field}: {facts.name} was not trained to fill gaps",
            field=field,
            hint="load a model for code, with FIM tokens",
        )
    first, second = [
        await generate.tokenize(text, model=model, parse_special=False) for text in (before, behind)
    ]
    bos = [facts.bos_id] if facts.add_bos and facts.bos_id is not None else []
    return (*bos, fill[0], *first, fill[1], *second, fill[2])
