"""From a request to text: render, check, queue, stream."""

from collections.abc import AsyncGenerator

from innkeeper.core import GenerateRequest
from innkeeper.core.frames import Delta, Finished
from innkeeper.serving.models import Models


class Generate:
    """Generation and tokenizing with the loaded model.

    max_queued: requests beyond those that the engine runs at once; more are refused (BusyError).
    """

    def __init__(self, models: Models, *, max_queued: int = 64) -> None:
        self.models = models
        self._max_queued = max_queued

    def stream(self, request: GenerateRequest) -> AsyncGenerator[Delta | Finished, None]:
        """Deltas, and one ``Finished`` per choice. Closing the iterator cancels the request."""
        raise NotImplementedError
