"""From texts to vectors, and from documents to scores."""

import struct
from collections.abc import Sequence

from msgspec import Struct

from innkeeper.errors import InvalidRequestError
from innkeeper.serving.models import Models

MAX_INPUTS = 2048
Text = str | tuple[int, ...]


class Embedded(Struct, frozen=True):
    """What became of the inputs, in their order."""

    model: str
    vectors: list[bytes]
    """Of little-endian float32."""
    num_tokens: int

    def floats(self) -> list[tuple[float, ...]]:
        return [struct.unpack(f"<{len(each) // 4}f", each) for each in self.vectors]


class Embed:
    """Vectors and scores by the embedding models and rerankers that are here."""

    def __init__(self, models: Models) -> None:
        self._models = models

    async def vectors(
        self,
        texts: Sequence[Text],
        *,
        model: str = "",
        truncate: bool = False,
        normalize: bool = True,
    ) -> Embedded:
        """Raises: InvalidRequestError where the model makes none; as ``Models.use``."""
        return await self._run(texts, model, None, truncate=truncate, normalize=normalize)

    async def scores(self, query: str, documents: Sequence[str], *, model: str = "") -> Embedded:
        """One number per document, higher for a better one. Raises: as ``vectors``."""
        return await self._run(documents, model, query, truncate=False, normalize=False)

    async def _run(
        self,
        texts: Sequence[Text],
        model: str,
        query: str | None,
        *,
        truncate: bool,
        normalize: bool,
    ) -> Embedded:
        field = "input" if query is None else "documents"
        if not texts:
            raise InvalidRequestError(f"{field} is empty", field=field)
        if len(texts) > MAX_INPUTS:
            raise InvalidRequestError(
                f"{field} has {len(texts)} items; at most {MAX_INPUTS} are allowed", field=field
            )
        name = self._models.resolve(model)[0] or self._suitable(ranks=query is not None)
        async with self._models.use(name) as used:
            link = await used.engine()
            found = await link.embed(texts, query=query, truncate=truncate, normalize=normalize)
        return Embedded(used.name, list(found.vectors), found.num_tokens)

    def _suitable(self, *, ranks: bool) -> str:
        """Without a name: a loaded model that can, if the current one cannot."""
        able = [
            each.name
            for each in self._models.loaded
            if each.facts.pooling and (each.facts.pooling == "rank") == ranks
        ]
        return able[0] if able else ""
