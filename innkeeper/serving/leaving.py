"""How long loaded models stay, and how they leave."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable

from msgspec import Struct

from innkeeper.serving.loaded import LoadedModel

_SWEEP_SECONDS = 0.5


class KeepRules(Struct, frozen=True, kw_only=True):
    """How long loaded models stay."""

    max_loaded: int = 0
    """Most models at the same time; 0 = as many as memory holds, but one on a GPU, where nobody
    knows what two need."""
    idle_seconds: float = 0.0
    """A model that nobody used for so long is unloaded; 0 = never."""
    pinned: frozenset[str] = frozenset()
    """Models that never make room for others."""
    exact_names: bool = False
    """A name that no model has is refused, also where one model alone is loaded."""


class Leaving:
    """Who has stayed unused for too long, and the last replies of those who go. Belongs to one
    event loop."""

    def __init__(self, rules: KeepRules) -> None:
        self._rules = rules
        self._idle_seconds: dict[str, float] = {}
        self._sweeper: asyncio.Task[None] | None = None
        self._ending: dict[asyncio.Task[None], asyncio.Task[None]] = {}
        """The end of each model, and its last replies."""

    def keep_for(self, name: str, seconds: float | None) -> None:
        """As ``Models.keep_for``."""
        if seconds is None:
            self._idle_seconds.pop(name, None)
        else:
            self._idle_seconds[name] = seconds

    def seconds_left(self, model: LoadedModel) -> float | None:
        """How long it stays if nobody uses it; None = for ever."""
        limit = self._idle_seconds.get(model.name)
        if limit is None:
            is_kept = model.name in self._rules.pinned or not self._rules.idle_seconds
            limit = -1.0 if is_kept else self._rules.idle_seconds
        return None if limit < 0 else max(0.0, limit - (time.monotonic() - model.last_used))

    def tired(self, models: Iterable[LoadedModel]) -> list[LoadedModel]:
        """Those that nobody used for too long."""
        return [model for model in models if self._is_tired(model)]

    def sweep(self, let_go: Callable[[], Awaitable[bool]]) -> None:
        """Calls ``let_go`` now and then, until it says that no model is left, if any may tire."""
        needed = self._rules.idle_seconds > 0 or self._idle_seconds
        if needed and (self._sweeper is None or self._sweeper.done()):
            self._sweeper = asyncio.create_task(_keep_sweeping(let_go))

    def retire(self, model: LoadedModel, seconds: float | None) -> None:
        """Lets it finish what it is at, for ``seconds`` at most, and closes it."""
        replies = asyncio.create_task(model.idle(seconds))
        end = asyncio.create_task(_end(model, replies))
        self._ending[end] = replies
        end.add_done_callback(self._ending.pop)

    async def close(self) -> None:
        """Ends those that are still at their last replies, too."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        for replies in self._ending.values():
            replies.cancel()
        await asyncio.gather(*self._ending, return_exceptions=True)

    def _is_tired(self, model: LoadedModel) -> bool:
        if model.is_busy:
            model.last_used = time.monotonic()
            return False
        left = self.seconds_left(model)
        return left is not None and left <= 0


async def _keep_sweeping(let_go: Callable[[], Awaitable[bool]]) -> None:
    some_are_left = True
    while some_are_left:
        await asyncio.sleep(_SWEEP_SECONDS)
        some_are_left = await let_go()


async def _end(model: LoadedModel, replies: "asyncio.Task[None]") -> None:
    await asyncio.wait([replies])
    await model.close()
