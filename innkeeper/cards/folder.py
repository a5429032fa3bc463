"""The folder of character cards, read anew each time: one that is dropped in is there."""

from pathlib import Path

from innkeeper.cards.card import Card, read_card
from innkeeper.errors import InvalidRequestError, NotFoundError
from innkeeper.units import MIB, format_bytes

MAX_FILE_BYTES = 32 * MIB
_ENDINGS = (".json", ".png")
_MAX_SHOWN = 20


class Cards:
    """The cards in ``folder`` by their files' names; None = no folder, no cards."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder

    def names(self) -> list[str]:
        """What there is, sorted."""
        return sorted(self._paths(), key=str.lower)

    def find(self, name: str) -> Card:
        """The card whose file is called ``name``, whatever its case. ``name`` is looked up among
        what is there, and never becomes a path.

        Raises: NotFoundError; InvalidRequestError if the file cannot be used.
        """
        paths = self._paths()
        lower = {known.lower(): path for known, path in paths.items()}
        path = paths.get(name) or lower.get(name.lower())
        if path is None:
            names = self.names()
            shown = ", ".join(names[:_MAX_SHOWN]) + (", ..." if len(names) > _MAX_SHOWN else "")
            raise NotFoundError(
                f"there is no character {name[:80]!r} here",
                field="character",
                hint=f"there are: {shown}" if names else "put its card into the characters folder",
            )
        try:
            return read_card(_bytes_of(path))
        except InvalidRequestError as error:
            raise InvalidRequestError(f"{path.name}: {error}", field="character") from None

    def _paths(self) -> dict[str, Path]:
        """By name; of a picture and a text of one name, the text."""
        try:
            found = sorted(self._folder.iterdir(), reverse=True) if self._folder else []
        except OSError:
            return {}
        return {path.stem: path for path in found if path.suffix.lower() in _ENDINGS}


def _bytes_of(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            limit = format_bytes(MAX_FILE_BYTES)
            raise InvalidRequestError(f"it has {format_bytes(size)}; at most {limit} are read")
        return path.read_bytes()
    except OSError as error:
        raise InvalidRequestError(f"it cannot be read: {error.strerror or error}") from None
