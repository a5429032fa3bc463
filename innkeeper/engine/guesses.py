"""What may come next in one sequence: from its own text, or else from the draft model."""

from collections.abc import Sequence

from innkeeper.engine.draft_model import DraftModel
from innkeeper.engine.lookup import PromptLookup


class Guesses:
    """Asks the two in turn, and tells whoever guessed how it went.

    most: of the draft model's at once.
    """

    def __init__(self, lookup: PromptLookup | None, model: DraftModel | None, most: int) -> None:
        self._lookup = lookup
        self._model = model
        self._most = most
        self._is_from_text = False

    def draft(self, tokens: Sequence[int], room: int) -> list[int]:
        """Up to ``room`` tokens that may follow ``tokens``, the sequence as it is now."""
        found = self._lookup.draft(tokens, room) if self._lookup is not None else []
        self._is_from_text = bool(found)
        if not found and self._model is not None:
            found = self._model.draft(tokens, min(room, self._most))
        return found

    def observe(self, num_drafted: int, num_right: int, seconds: float) -> None:
        """Learns how many of the last guesses were right, and what the step took that checked
        them, or that had none to check."""
        if self._is_from_text and self._lookup is not None:
            self._lookup.observe(num_drafted, num_right, seconds)
        elif self._model is not None:
            self._model.observe(num_drafted, num_right, seconds)

    def forget(self, length: int) -> None:
        """Follows the sequence, which was cut to its first ``length`` tokens."""
        if self._lookup is not None:
            self._lookup.forget(length)
