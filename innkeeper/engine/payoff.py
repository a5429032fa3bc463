"""Whether guesses pay: an account of the time that they cost and save."""

_SHARE = 0.015
"""Of the time of everything else: what guesses may lose."""
_LEAST_STEPS, _MOST_STEPS = 0.5, 4.0
"""What they may lose at once, in steps: at the start, and after they have gained."""
_WEIGHT = 0.15
_ODD = 3.0
_FORGIVING = 0.02


class Average:
    """Of recent values; one that is far too large counts as three times the average."""

    def __init__(self) -> None:
        self.value = 0.0

    def add(self, value: float) -> None:
        if self.value:
            self.value += _WEIGHT * (min(value, _ODD * self.value) - self.value)
        else:
            self.value = value


class Payoff:
    """All times in seconds. Where the account is empty, nothing is guessed until the share of other
    steps has filled it again: so guesses cost next to nothing where they do not help."""

    def __init__(self) -> None:
        self._step = Average()
        """Of the large model without guesses."""
        self._guess = Average()
        self._read = Average()
        """A token of a text that the draft model reads, many at once."""
        self._check = Average()
        """What each guess adds to a step."""
        self._hits = 1.0
        """Guesses that were right for each that the draft model's own chances promised."""
        self._credit = 0.0

    @property
    def has_credit(self) -> bool:
        return self._step.value > 0 and self._credit > 0

    def can_afford(self, num_unread: int) -> bool:
        """Whether the draft model may read so much before its first guess."""
        return self._read.value * num_unread <= self._credit + self._step.value

    def is_worth_checking(self, chance: float) -> bool:
        """Whether a guess that is right with ``chance`` saves more than its check costs."""
        return self._gain(chance) > self._check.value

    def is_worth_guessing(self, chance: float) -> bool:
        """Whether the guess behind one that is right with ``chance`` may pay."""
        return self._gain(chance) > self._check.value + self._guess.value

    def learn(self, num_read: int, seconds: float) -> None:
        """Follows one ``forward`` of the draft model."""
        if num_read > 1:
            self._read.add(seconds / num_read)
        else:
            self._guess.add(seconds)

    def earn(self, seconds: float) -> None:
        """Follows time in which nothing could be guessed."""
        self._credit += _SHARE * seconds

    def plain(self, seconds: float, draft_seconds: float) -> None:
        """Follows a step without guesses; the draft model may have been asked and known none."""
        if not self._step.value:
            self._credit += _LEAST_STEPS * seconds
        self._step.add(seconds)
        self._hits += _FORGIVING * (1.0 - self._hits)
        self._book(_SHARE * seconds - draft_seconds)

    def guessed(
        self, num_right: int, chances: list[float], seconds: float, draft_seconds: float
    ) -> None:
        """Follows a step that checked guesses. chances: of each one, that it and those before it
        are right, as the draft model said."""
        extra = max(0.0, seconds - self._step.value)
        self._check.add(extra / len(chances))
        self._hits += _WEIGHT * (num_right / sum(chances) - self._hits)
        self._book(num_right * self._step.value - extra - draft_seconds)

    def _gain(self, chance: float) -> float:
        return chance * self._hits * self._step.value

    def _book(self, seconds: float) -> None:
        most = max(self._credit, _MOST_STEPS * self._step.value)
        self._credit = min(self._credit + seconds, most)
