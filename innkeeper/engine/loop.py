"""The engine: requests in, frames out, one ``step`` at a time.

    drain inbox -> schedule a batch -> forward -> sample -> frames

``Engine`` owns the model and is used by one thread. Other threads only put frames into ``inbox``
(a ``queue.SimpleQueue``) and read ``stats``.
"""

import queue
import threading
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from innkeeper.core import EngineStats, FinishReason
from innkeeper.core.frames import (
    Cancel,
    Embed,
    ErrorInfo,
    Failed,
    Probe,
    Submit,
)
from innkeeper.engine.admission import Admission, Prepared
from innkeeper.engine.answers import delta, finished, probed, push
from innkeeper.engine.choosing import Chooser
from innkeeper.engine.draft_model import DraftModel
from innkeeper.engine.guidance import guide
from innkeeper.engine.idle import IdleWork
from innkeeper.engine.kv_cache import KVCache
from innkeeper.engine.logprobs import log_softmax, spread
from innkeeper.engine.reply import Released
from innkeeper.engine.runner import Logits, Runner
from innkeeper.engine.scheduler import Batch, Scheduler, SliceSizer
from innkeeper.engine.sequence import Sequence, Status
from innkeeper.engine.sessions import Sessions, Task
from innkeeper.engine.tiers import Tiers
from innkeeper.errors import EngineError, InnkeeperError

CLOSE_SECONDS = 10.0
"""An engine that ends takes about this long at most to write its cache."""
_LONE_SLICES = 4
"""A prompt that nobody waits beside is read in slices that take so many times as long: attention
costs a row less in larger ones."""

Emit = Callable[[list[msgspec.Struct]], None]


class Engine:
    """One model, many requests. ``emit`` receives the frames of a step in one call.

    idle_seconds: silence before idle work begins.
    """

    def __init__(
        self,
        runner: Runner,
        emit: Emit,
        *,
        max_slice_seconds: float = 0.25,
        kv_reuse: str = "auto",
        idle_refresh: bool = True,
        idle_seconds: float = 0.5,
        tiers: Tiers | None = None,
        sessions_folder: Path | None = None,
    ) -> None:
        facts = runner.facts
        self.inbox: queue.SimpleQueue[Prepared | Cancel | Task] = queue.SimpleQueue()
        self.runner = runner
        self._draft_model = DraftModel(runner.draft, facts.num_vocab) if runner.draft else None
        self.admission = Admission(runner, kv_reuse, self._draft_model)
        self.cache = KVCache(runner, facts.num_pool, num_scratch=facts.max_sequences, tiers=tiers)
        self.sessions = Sessions(
            self.cache, runner.state_key, sessions_folder, self.inbox.put, emit
        )
        self._emit = emit
        self._scheduler = Scheduler(
            self.cache,
            SliceSizer(max_slice_seconds, runner.max_rows),
            SliceSizer(_LONE_SLICES * max_slice_seconds, runner.max_rows),
            max_sequences=facts.max_sequences,
            max_rows=runner.max_rows,
            max_outputs=runner.max_outputs,
        )
        self._idle = IdleWork(
            self.cache,
            self.admission,
            self._scheduler,
            refreshes=idle_refresh,
            pause=idle_seconds,
        )
        self._siblings: dict[Sequence, list[Sequence]] = {}
        self._frames: list[msgspec.Struct] = []
        self._end_ids = frozenset(facts.end_ids)
        self._chooser = Chooser(self.admission.vocabulary, self._end_ids)
        self._step_started = 0.0
        self.is_closing = threading.Event()
        """Set once nothing is evaluated any more, and the cache is being written."""
        self._is_ending = False
        self._num_cached = self._num_approximate = 0
        self._num_steps = self._num_prompt = self._num_predicted = self._num_refreshed = 0

    def prepare(self, frame: Submit | Probe | Embed) -> None:
        """Puts a request into the inbox, its prompt tokenized; runs beside the loop.

        Raises: as ``Admission.prepare``.
        """
        self.inbox.put(self.admission.prepare(frame))

    def run(self) -> None:
        """Steps until ``end`` is called, and then writes what would be lost to disk."""
        while not self._is_ending:
            if not self.step():
                self._rest()
        self._idle.stop()
        for sequence in [*self._scheduler.running, *self._scheduler.waiting]:
            self._end(sequence)
        self.is_closing.set()
        self.cache.close(CLOSE_SECONDS)

    def end(self) -> None:
        """Lets ``run`` return after its step. Called from another thread."""
        self._is_ending = True
        self.inbox.put(Cancel())

    def step(self) -> bool:
        """One pass over the loop; False if there was nothing to evaluate."""
        self._drain_inbox()
        self._step_started = time.perf_counter()
        batch = self._scheduler.schedule()
        if batch is None and self._idle.begin():
            batch = self._scheduler.schedule()
        if batch is not None:
            self._forward(batch)
            self._idle.follow()
        elif self._scheduler.waiting:
            self._fail(self._scheduler.waiting[0], EngineError("the KV pool has no room for it"))
        self._step_started = 0.0
        self._flush()
        return batch is not None or bool(self._scheduler.waiting)

    def stats(self) -> EngineStats:
        """A snapshot; safe to call from another thread."""
        started, tiers = self._step_started, self.cache.tiers
        return EngineStats(
            seconds_in_step=time.perf_counter() - started if started else 0.0,
            num_steps=self._num_steps,
            num_running=sum(not seq.is_idle_work for seq in list(self._scheduler.running)),
            num_waiting=len(self._scheduler.waiting),
            num_cells_used=self.cache.num_used,
            num_cells=self.cache.num_cells,
            num_kept=self.cache.num_kept,
            num_threads=self.runner.num_threads,
            prompt_tokens=self._num_prompt,
            predicted_tokens=self._num_predicted,
            cached_tokens=self._num_cached,
            approximate_tokens=self._num_approximate,
            refreshed_tokens=self._num_refreshed,
            restored_tokens=self._scheduler.num_restored,
            ram_cache_bytes=tiers.num_ram_bytes if tiers else 0,
            disk_cache_bytes=tiers.num_disk_bytes if tiers else 0,
        )

    # --- requests in -----------------------------------------------------------------------------

    def _drain_inbox(self) -> None:
        while not self.inbox.empty():
            self._take(self.inbox.get())

    def _take(self, message: Prepared | Cancel | Task) -> None:
        if isinstance(message, Cancel):
            for sequence in self._sequences_of(message.id):
                self._finish(sequence, "cancelled")
            self._flush()
            return
        self._idle.stop()
        if not isinstance(message, Prepared):
            return message()
        try:
            self._add(message)
        except InnkeeperError as error:
            self._frames.append(Failed(message.id, ErrorInfo.of(error)))

    def _add(self, prepared: Prepared) -> None:
        for sequence in self.admission.sequences(prepared):
            self._scheduler.add(sequence)
            if sequence.leader is not None:
                self._siblings.setdefault(sequence.leader, []).append(sequence)

    def _sequences_of(self, request_id: int | None) -> list[Sequence]:
        every = [*self._scheduler.running, *self._scheduler.waiting]
        return [
            seq
            for seq in every
            if not seq.is_idle_work
            and seq.shadow_of is None
            and (request_id is None or seq.request_id == request_id)
        ]

    def _rest(self) -> None:
        """Waits for a frame, and goes on with idle work after some silence."""
        try:
            self._take(self.inbox.get(timeout=self._idle.wait()))
        except queue.Empty:
            self._idle.write()

    # --- one batch -------------------------------------------------------------------------------

    def _forward(self, batch: Batch) -> None:
        sampled = batch.sampled
        started = time.perf_counter()
        try:
            outputs = self._evaluate(batch)
        except InnkeeperError as error:
            for sequence, _ in batch.reads:
                if sequence.shadow_of is None:
                    self._fail(sequence, error)
            return
        for sequence, count in batch.reads:
            self._record(sequence, count)
        seconds = time.perf_counter() - started
        if batch.num_prefill and self._draft_model is not None:
            self._draft_model.earn(seconds)
        self._scheduler.observe(batch, time.perf_counter() - self._step_started)
        self._num_steps += 1
        behind: dict[Sequence, list[Logits]] = {}
        for sequence in sampled:
            count = 1 + len(sequence.draft)
            behind[sequence] = outputs[:count]
            del outputs[:count]
        for sequence, logits in behind.items():
            if sequence.shadow is not None:
                guide(logits[0], behind[sequence.shadow][0], sequence.request.guidance_scale)
            if sequence.shadow_of is None:
                num_drafted, num_right = self._advance(sequence, logits)
                if sequence.guesses is not None and len(batch.reads) == 1 and not batch.num_prefill:
                    sequence.guesses.observe(num_drafted, num_right, seconds)

    def _evaluate(self, batch: Batch) -> list[Logits]:
        """``Runner.forward``, once more without idle bases if the pool had no place: a backend
        may need more cells than the account knows, for instance in a sliding-window cache."""
        try:
            return self.runner.forward(batch.rows)
        except EngineError:
            if not self.cache.drop_idle():
                raise
            return self.runner.forward(batch.rows)

    def _record(self, sequence: Sequence, count: int) -> None:
        start = sequence.num_cached
        tokens = sequence.tokens[start : start + count] + sequence.draft
        self.cache.append(sequence.sequence_id, tokens)
        attached = self.cache.attach(sequence.sequence_id)
        sequence.num_reused_approx += attached
        sequence.num_cached += count + attached
        if sequence.status is Status.PREFILL:
            sequence.num_evaluated += min(count, max(0, sequence.num_prompt - start))
            if sequence.is_idle_work:
                self.cache.make_exact(sequence.sequence_id)
                self._num_refreshed += count
            else:
                self._num_prompt += count
            if sequence.num_to_read == 0:
                if not sequence.prefilled and not sequence.is_idle_work:
                    self._num_cached += sequence.num_reused
                    self._num_approximate += sequence.num_reused_approx
                sequence.prefilled = sequence.prefilled or time.perf_counter()
                sequence.status = Status.DECODE

    def _advance(self, sequence: Sequence, outputs: list[Logits]) -> tuple[int, int]:
        """``outputs`` (1 + guesses): the logits behind the last token, and behind each guess.
        Returns how many guesses there were, and how many were right."""
        for sibling in self._siblings.pop(sequence, ()):
            if sibling.status is Status.WAITING and self._scheduler.fork(sequence, sibling):
                sibling.prefilled = sequence.prefilled
                self._sample(sibling, outputs[0].copy())
        draft, sequence.draft = sequence.draft, []
        length = len(sequence.tokens)
        self._sample(sequence, outputs[0])
        num_right = 0
        for guess, logits in zip(draft, outputs[1:], strict=True):
            if sequence.status is not Status.DECODE or sequence.tokens[length:][num_right:] != [
                guess
            ]:
                break
            num_right += 1
            self._sample(sequence, logits)
        sequence.num_drafted += len(draft)
        sequence.num_accepted += num_right
        if draft and sequence.status is Status.DECODE and sequence.num_to_read < 1:
            self._cut(sequence)
        return len(draft), num_right

    def _sample(self, sequence: Sequence, logits: Logits) -> None:
        """Chooses the next token and goes on with it, or ends the reply."""
        if sequence.is_idle_work:
            self._idle.end()
            return
        wanted = sequence.request.logprobs
        logprobs = None if wanted is None else log_softmax(logits)
        try:
            if sequence.probe is not None:
                tokenizer = self.runner.tokenizer
                found = probed(sequence, sequence.probe, logits, self._chooser, tokenizer)
                self._end(sequence)
                self._frames.append(found)
            elif len(sequence.tokens) >= sequence.max_length:
                self._finish(sequence, "length")
            else:
                token_id = self._chooser.choose(sequence, logits)
                if logprobs is not None and sequence.request.logprobs_after:
                    logprobs = spread(sequence.sampler.drawn_from(), token_id, logits.size)
                self._follow(sequence, token_id, logprobs)
        except InnkeeperError as error:
            self._fail(sequence, error)

    def _follow(self, sequence: Sequence, token_id: int | None, logprobs: Logits | None) -> None:
        """Releases text, and finishes where the token ends the reply."""
        if token_id is not None:
            self._num_predicted += 1
            sequence.tokens.append(token_id)
            if sequence.shadow is not None:
                sequence.shadow.tokens.append(token_id)
        if token_id is None or token_id in self._end_ids:
            self._finish(sequence, "stop")
            return
        sequence.accept(token_id, self.runner.tokenizer.piece(token_id, special=True))
        self._release(sequence, push(sequence, token_id, logprobs, self.runner.tokenizer))
        if sequence.reply.num_to_take_back:
            self._take_back(sequence)
        elif sequence.is_complete:
            self._finish(sequence, "stop")
        elif len(sequence.tokens) >= sequence.max_length:
            self._finish(sequence, "length")
        elif sequence.active_grammar is not None:
            sequence.active_grammar.prepare()

    def _take_back(self, sequence: Sequence) -> None:
        """Undoes the tokens of a banned phrase. The one before them is read again for its logits,
        or the whole sequence where the cache cannot be cut."""
        sequence.take_back(sequence.reply.num_to_take_back)
        self._cut(sequence)
        if sequence.shadow is not None and sequence.status is not Status.WAITING:
            self._cut(sequence.shadow)

    def _cut(self, sequence: Sequence) -> None:
        """Leaves all but the last token in the cache."""
        length = len(sequence.tokens) - 1
        if self.cache.take_back(sequence.sequence_id, length):
            sequence.num_cached = length
        else:
            self._scheduler.restart(sequence)

    # --- frames out ------------------------------------------------------------------------------

    def _release(self, sequence: Sequence, released: Released) -> None:
        if released.text or released.logprobs:
            self._frames.append(delta(sequence, released))

    def _finish(self, sequence: Sequence, reason: FinishReason) -> None:
        self._release(sequence, sequence.reply.finish())
        self._end(sequence)
        self._frames.append(finished(sequence, reason, self.runner.facts, self.runner.tokenizer))

    def _fail(self, sequence: Sequence, error: InnkeeperError) -> None:
        """Ends the whole request of ``sequence``."""
        if sequence.is_idle_work:
            self._idle.end()
            return
        for each in self._sequences_of(sequence.request_id):
            self._end(each, keep=False)
        self._frames.append(Failed(sequence.request_id, ErrorInfo.of(error)))

    def _end(self, sequence: Sequence, *, keep: bool = True) -> None:
        self._siblings.pop(sequence, None)
        self._scheduler.finish(sequence, keep=keep)
        sequence.sampler.close()

    def _flush(self) -> None:
        if self._frames:
            frames, self._frames = self._frames, []
            self._emit(frames)
