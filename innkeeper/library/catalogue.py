"""A few models worth starting with, and the one of them that suits this machine."""

import datetime
import tomllib
from collections.abc import Callable, Iterable, Sequence
from importlib import resources

import msgspec
from msgspec import Struct

from innkeeper.errors import InnkeeperError, NotEnoughMemoryError
from innkeeper.planner.candidates import COMFORTABLE_CTX
from innkeeper.planner.fit import FLUENT_TOKENS_PER_SECOND, FitRow

READABLE_TOKENS_PER_SECOND = 4.0
"""Slower than this is not offered while anything else fits."""
DECENT_QUANT_BITS = 4.2
"""A larger model is only better than a smaller one down to about Q4_K."""


class CatalogueEntry(Struct, frozen=True):
    """One model of the catalogue."""

    name: str
    repo: str
    quants: tuple[str, ...]
    """Those to choose from, the least quantized first."""
    merit: int
    """How good it is for characters' chats, against the other entries."""
    why: str


class _File(Struct, forbid_unknown_fields=True):
    date: datetime.date
    model: list[CatalogueEntry]


class Choice(Struct, frozen=True):
    """An entry with the quantization that suits the machine."""

    entry: CatalogueEntry
    quant: str
    row: FitRow

    @property
    def model(self) -> str:
        """As ``up`` and ``pull`` take it: ``org/name:Q4_K_M``."""
        return f"{self.entry.repo}:{self.quant}"


def catalogue() -> tuple[datetime.date, list[CatalogueEntry]]:
    """(when its names were checked, its entries), as they come with the package."""
    text = resources.files("innkeeper.library").joinpath("catalogue.toml").read_text("utf-8")
    found = msgspec.convert(tomllib.loads(text), _File)
    return found.date, found.model


RowsOf = Callable[[CatalogueEntry], Iterable[FitRow]]


def choose(entries: Sequence[CatalogueEntry], rows_of: RowsOf) -> tuple[Choice, list[Choice]]:
    """(the best for this machine, the next best ones).

    ``rows_of`` tells what the quantizations of an entry would need here (``hub.fit`` knows, from
    their headers); an entry for which it fails is left out, unless it fails for all.
    Raises: NotEnoughMemoryError with the smallest need if nothing fits; what ``rows_of`` raised.
    """
    choices: list[Choice] = []
    failed: InnkeeperError | None = None
    for entry in entries:
        try:
            rows = [row for row in rows_of(entry) if row.quant in entry.quants]
        except InnkeeperError as error:
            failed = failed or error
            continue
        choices += [Choice(entry, row.quant, row) for row in rows]
    if not choices and failed is not None:
        raise failed
    fitting = sorted((choice for choice in choices if choice.row.fits), key=_key)
    if not fitting:
        raise _nothing_fits(choices)
    best = _one_per_entry(fitting)
    return best[0], best[1:]


def _key(choice: Choice) -> tuple[float, ...]:
    """Smaller is better: a fluent chat with a whole context first, then the better model."""
    row = choice.row
    wanted = min(COMFORTABLE_CTX, row.num_ctx_train or COMFORTABLE_CTX)
    is_short = row.num_ctx < wanted
    pace = row.tokens_per_second
    slowness = (pace < FLUENT_TOKENS_PER_SECOND) + (pace < READABLE_TOKENS_PER_SECOND)
    is_crude = row.bits_per_weight < DECENT_QUANT_BITS
    return (is_short, slowness, is_crude, -choice.entry.merit, -row.bits_per_weight)


def _one_per_entry(ranked: list[Choice]) -> list[Choice]:
    first: dict[str, Choice] = {}
    for choice in ranked:
        first.setdefault(choice.entry.repo, choice)
    return list(first.values())


def _nothing_fits(choices: list[Choice]) -> NotEnoughMemoryError:
    if not choices:
        return NotEnoughMemoryError(
            "the catalogue's models are not on this hub", hint="name a model: innkeeper up ORG/NAME"
        )
    least = min(choices, key=lambda choice: choice.row.full_bytes)
    return NotEnoughMemoryError(
        f"no model of the catalogue fits; the smallest is {least.entry.name} {least.quant}: "
        f"{least.row.reason}",
        hint="close other programs and try again",
    )
