"""The engine of an embedding model: texts in, vectors out, a batch at a time."""

import queue
import time
from collections.abc import Callable

import msgspec
import numpy as np
from numpy.typing import NDArray

from innkeeper.core import EngineStats
from innkeeper.core.frames import Cancel, Embed, ErrorInfo, Failed, Probe, Submit, Vectors
from innkeeper.engine.runner import Embedder
from innkeeper.errors import InnkeeperError, InvalidRequestError, PromptTooLongError


class _Work(msgspec.Struct):
    """One request on its way."""

    frame: Embed
    texts: list[list[int]]
    vectors: list[bytes]


class EmbeddingEngine:
    """One model, many requests, which take turns. ``emit`` receives frames.

    As with ``Engine``, one thread runs it, and others only ``prepare`` and put into ``inbox``.
    """

    def __init__(self, embedder: Embedder, emit: Callable[[list[msgspec.Struct]], None]) -> None:
        self.runner = embedder
        self.inbox: queue.SimpleQueue[_Work | Cancel] = queue.SimpleQueue()
        self._emit = emit
        self._works: list[_Work] = []
        self._step_started = 0.0
        self._num_steps = self._num_tokens = 0

    def run(self) -> None:
        """Steps for ever; sleeps while there is nothing to do."""
        while True:
            if not self.step():
                self._take(self.inbox.get())

    def step(self) -> bool:
        """One batch; False if there was nothing to do."""
        while not self.inbox.empty():
            self._take(self.inbox.get())
        if not self._works:
            return False
        work = self._works.pop(0)
        self._step_started = time.perf_counter()
        try:
            self._advance(work)
        except InnkeeperError as error:
            self._emit([Failed(work.frame.id, ErrorInfo.of(error))])
        else:
            self._finish(work)
        self._step_started = 0.0
        return True

    def prepare(self, frame: Submit | Probe | Embed) -> None:
        """Tokenizes and checks; runs beside the loop. Raises: InvalidRequestError."""
        if not isinstance(frame, Embed):
            raise InvalidRequestError(
                f"{self.runner.facts.name} makes embeddings, not text",
                field="model",
                hint="name a model that writes text",
            )
        if (frame.query is None) == (self.runner.facts.pooling == "rank"):
            raise self._wrong_use(frame)
        texts = [self._tokens(frame, number) for number in range(len(frame.inputs))]
        self.inbox.put(_Work(frame, texts, []))

    def stats(self) -> EngineStats:
        """A snapshot; safe to call from another thread."""
        started = self._step_started
        return EngineStats(
            seconds_in_step=time.perf_counter() - started if started else 0.0,
            num_steps=self._num_steps,
            num_running=1 if started else 0,
            num_waiting=len(self._works),
            num_cells_used=0,
            num_cells=self.runner.facts.num_pool,
            num_kept=0,
            num_threads=0,
            prompt_tokens=self._num_tokens,
            predicted_tokens=0,
        )

    def _take(self, message: _Work | Cancel) -> None:
        if isinstance(message, Cancel):
            self._works = [work for work in self._works if message.id not in (None, work.frame.id)]
        else:
            self._works.append(message)

    def _advance(self, work: _Work) -> None:
        """Embeds as many of its texts as one batch holds."""
        batch: list[list[int]] = []
        for text in work.texts[
            len(work.vectors) : len(work.vectors) + self.runner.num_sequence_ids
        ]:
            if batch and sum(map(len, batch)) + len(text) > self.runner.max_rows:
                break
            batch.append(text)
        for vector in self.runner.embed(batch):
            if work.frame.normalize and work.frame.query is None:
                vector = normalized(vector)
            work.vectors.append(vector.astype("<f4").tobytes())
        self._num_steps += 1
        self._num_tokens += sum(map(len, batch))

    def _finish(self, work: _Work) -> None:
        if len(work.vectors) < len(work.texts):
            self._works.append(work)
        else:
            num_tokens = sum(map(len, work.texts))
            self._emit([Vectors(work.frame.id, tuple(work.vectors), num_tokens)])

    def _tokens(self, frame: Embed, number: int) -> list[int]:
        given, facts = frame.inputs[number], self.runner.facts
        field = "input" if frame.query is None else "documents"
        if isinstance(given, tuple):
            tokens = list(given)
            if bad := [token for token in tokens if not 0 <= token < facts.num_vocab]:
                raise InvalidRequestError(
                    f"token id {bad[0]} is outside the vocabulary (0 to {facts.num_vocab - 1})",
                    field=field,
                )
        elif frame.query is not None:
            tokens = self.runner.pair(frame.query, given)
        else:
            tokens = self.runner.tokenizer.encode(given, add_special=True, parse_special=True)
        if not tokens:
            raise InvalidRequestError(f"{field}[{number}] is empty", field=field)
        if len(tokens) > facts.num_ctx and not frame.truncate:
            raise PromptTooLongError(
                f"{field}[{number}] has {len(tokens)} tokens and the model reads {facts.num_ctx}",
                field=field,
                hint="send shorter parts",
            )
        return tokens[: facts.num_ctx]

    def _wrong_use(self, frame: Embed) -> InvalidRequestError:
        name = self.runner.facts.name
        if frame.query is None:
            return InvalidRequestError(
                f"{name} ranks documents and makes no embeddings",
                field="model",
                hint="name an embedding model, or use /v1/rerank",
            )
        return InvalidRequestError(
            f"{name} makes embeddings and ranks nothing", field="model", hint="name a reranker"
        )


def normalized(vector: NDArray[np.float32]) -> NDArray[np.float32]:
    """``vector`` with a length of 1; zeros stay."""
    length = float(np.linalg.norm(vector))
    return vector / np.float32(length) if length > 0 else vector
