"""What one request gets back from an engine."""

import asyncio
from collections.abc import Callable

from innkeeper.core.frames import Delta, Finished

Event = Delta | Finished


class EngineStream:
    """Deltas, and one ``Finished`` per choice: an async iterator, to be closed by its reader.

    It holds whatever the reader has not taken yet, so a slow reader keeps no place in the engine.
    Raises: what the engine refused the request with; EngineCrashedError or EngineHungError
    within a second of the process's end.
    """

    def __init__(self, num_choices: int, on_close: Callable[["EngineStream"], None]) -> None:
        self.num_unfinished = num_choices
        """Choices that the engine still works on."""
        self._num_unread = num_choices
        self._events: asyncio.Queue[Event | Exception] = asyncio.Queue()
        self._on_close = on_close

    def put(self, event: Event | Exception) -> None:
        """For the link: the next event, or the end of all choices."""
        if isinstance(event, Exception):
            self.num_unfinished = 0
        elif isinstance(event, Finished):
            self.num_unfinished -= 1
        self._events.put_nowait(event)

    def __aiter__(self) -> "EngineStream":
        return self

    async def __anext__(self) -> Event:
        if not self._num_unread:
            raise StopAsyncIteration
        event = await self._events.get()
        if isinstance(event, Exception):
            self._num_unread = 0
            raise event
        if isinstance(event, Finished):
            self._num_unread -= 1
        return event

    async def aclose(self) -> None:
        """Cancels what is not finished. Idempotent."""
        self._num_unread = 0
        self._on_close(self)
        self.num_unfinished = 0
