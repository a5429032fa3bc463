"""From a request to the sequences that the loop runs: sampler, constraint, text, limits."""

import math
import random
from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from innkeeper.core import GenerateRequest, SamplingParams
from innkeeper.core.frames import Embed, Probe, Submit
from innkeeper.engine.banned import automaton, short_phrases
from innkeeper.engine.draft_model import MOST_GUESSES, DraftModel
from innkeeper.engine.guesses import Guesses
from innkeeper.engine.lookup import CheckCosts, PromptLookup
from innkeeper.engine.prompt import next_speaker, tokenize_negative, tokenize_prompt
from innkeeper.engine.reasoning import Reasoning
from innkeeper.engine.reply import ReplyText
from innkeeper.engine.reuse import Policy
from innkeeper.engine.runner import Runner
from innkeeper.engine.sampling import build_sampler
from innkeeper.engine.sampling.dry import Dry
from innkeeper.engine.sequence import Sequence
from innkeeper.engine.vocabulary import Vocabulary
from innkeeper.errors import InvalidRequestError

if TYPE_CHECKING:
    from innkeeper.engine.grammar import GrammarCompiler

_SEED_LIMIT = 2**32


class Prepared(NamedTuple):
    """A request whose prompt is tokenized, as it lies in the inbox."""

    id: int
    request: GenerateRequest
    tokens: list[int]
    truncated_n: int = 0
    probe: Probe | None = None
    negative: tuple[int, ...] = ()
    speaker: str = ""


class Admission:
    """Makes sequences for one model. ``prepare`` may run beside everything else."""

    def __init__(
        self, runner: Runner, kv_reuse: str, draft_model: DraftModel | None = None
    ) -> None:
        self._runner = runner
        self._kv_reuse = kv_reuse
        self._draft_model = draft_model
        self._check_costs = CheckCosts()
        facts = runner.facts
        self.vocabulary = Vocabulary(runner.tokenizer, facts.num_vocab, facts.end_ids)

    def prepare(self, frame: Submit | Probe | Embed) -> Prepared:
        """Tokenizes the prompt and makes what the request needs of the whole vocabulary.

        Raises: InvalidRequestError naming the field, PromptTooLongError.
        """
        facts, tokenizer = self._runner.facts, self._runner.tokenizer
        if isinstance(frame, Embed):
            raise InvalidRequestError(
                f"{facts.name} writes text and makes no embeddings",
                field="model",
                hint="name an embedding model, or load this one with --pooling mean",
            )
        request = frame.request
        tokens, truncated_n = tokenize_prompt(request, tokenizer, facts)
        negative = tokenize_negative(request, tokens, tokenizer, facts)
        self._warm(request)
        probe = frame if isinstance(frame, Probe) else None
        speaker = next_speaker(tokens, tokenizer)
        return Prepared(frame.id, request, tokens, truncated_n, probe, negative, speaker)

    @cached_property
    def _grammars(self) -> "GrammarCompiler":
        # llguidance takes a third of an engine's start, and few requests need it
        from innkeeper.engine.grammar import GrammarCompiler

        return GrammarCompiler(self.vocabulary)

    def _warm(self, request: GenerateRequest) -> None:
        """May take a second, which no reply that is being written should have to wait for."""
        if request.constraint is not None:
            self._grammars.compile(request.constraint)
        if Dry.is_on(request.sampling):
            self.vocabulary.breakers(request.sampling.dry_breakers)
        if request.heals_token:
            self.vocabulary.control_ids  # noqa: B018  (made on first use)
        self.vocabulary.tokens_with(short_phrases(request.banned))

    def sequences(self, prepared: Prepared) -> Iterator[Sequence]:
        """One for each choice; the first one leads the others.

        Raises: InvalidRequestError naming the field.
        """
        request = prepared.request
        seed = request.sampling.seed
        if seed is None:
            seed = random.SystemRandom().randrange(_SEED_LIMIT)
        leader: Sequence | None = None
        for index in range(request.n):
            sequence = self._sequence(prepared, index, (seed + index) % _SEED_LIMIT, leader)
            if prepared.negative:
                self._add_shadow(sequence, prepared.negative)
            else:
                leader = leader or sequence
            yield sequence

    def idle_work(self, tokens: list[int], speaker: str = "") -> Sequence:
        """``tokens`` are read, and nothing is said: all of them exactly, or, for a speaker, those
        that it has not heard yet behind those that are cached."""
        return Sequence(
            request_id=0,
            index=0,
            request=GenerateRequest(),
            tokens=tokens,
            num_prompt=len(tokens),
            max_length=len(tokens),
            sampler=build_sampler(SamplingParams(), 0, (), self.vocabulary),
            reply=ReplyText(()),
            policy=Policy.FAST if speaker and self._kv_reuse != "exact" else Policy.EXACT,
            speaker=speaker,
            is_idle_work=True,
        )

    def _add_shadow(self, sequence: Sequence, negative: tuple[int, ...]) -> None:
        """Guidance: both replies end where either has no more room."""
        facts = self._runner.facts
        if facts.max_sequences < 2:
            raise InvalidRequestError(
                "guidance evaluates two sequences, and --parallel is 1",
                field="guidance_scale",
                hint="start with --parallel 2, or leave it out",
            )
        shadow = self.idle_work(list(negative))
        shadow.is_idle_work, shadow.request_id = False, sequence.request_id
        shadow.shadow_of, sequence.shadow, sequence.policy = sequence, shadow, Policy.EXACT
        room = min(
            facts.num_ctx - len(negative),
            (facts.num_pool - len(negative) - sequence.num_prompt) // 2,
        )
        sequence.max_length = min(sequence.max_length, sequence.num_prompt + room)

    def _sequence(
        self, prepared: Prepared, index: int, seed: int, leader: Sequence | None
    ) -> Sequence:
        request, tokens, heals = prepared.request, list(prepared.tokens), self._healed(prepared)
        if heals:
            tokens.pop()
        num_prompt = len(tokens)
        sampling = self._sampling(request)
        limit = self._runner.facts.num_ctx
        if request.max_tokens is not None:
            limit = min(limit, num_prompt + request.max_tokens)
        return Sequence(
            request_id=prepared.id,
            index=index,
            request=request,
            tokens=tokens,
            num_prompt=num_prompt,
            max_length=limit,
            sampler=build_sampler(sampling, seed, tokens, self.vocabulary),
            reply=ReplyText(request.stop, automaton(request.banned)),
            grammar=self._grammars.compile(request.constraint) if request.constraint else None,
            reasoning=self._reasoning(request),
            heals=heals,
            shown_ids=self.vocabulary.ids_of(request.shown_special),
            policy=Policy(request.kv_reuse or self._kv_reuse),
            speaker=prepared.speaker,
            guesses=self._guesses(request, tokens),
            leader=leader,
            truncated_n=prepared.truncated_n,
            probe=prepared.probe,
        )

    def _guesses(self, request: GenerateRequest, tokens: list[int]) -> Guesses | None:
        lookup = None
        if request.lookup > 0:
            lookup = PromptLookup(tokens, request.lookup, self._check_costs)
        model = self._draft_model if request.draft_max != 0 else None
        if lookup is None and model is None:
            return None
        return Guesses(
            lookup, model, MOST_GUESSES if request.draft_max is None else request.draft_max
        )

    def _healed(self, prepared: Prepared) -> bytes:
        """The text of the prompt's last token, if it is to be chosen again; no control token."""
        request, last = prepared.request, prepared.tokens[-1]
        if not request.heals_token or len(prepared.tokens) < 2:
            return b""
        if request.constraint is not None:
            raise InvalidRequestError(
                "token_healing and a constraint of the reply cannot go together",
                field="token_healing",
                hint="send one of them",
            )
        return self._runner.tokenizer.piece(last, special=False)

    def _reasoning(self, request: GenerateRequest) -> Reasoning | None:
        if request.form is None or not request.form.reasoning[0]:
            return None
        return Reasoning(request.form, request.reasoning_budget, self._runner.tokenizer)

    def _sampling(self, request: GenerateRequest) -> SamplingParams:
        """The request's own, and a ban on every token that alone holds a very short banned phrase:
        those come so often that taking them back would cost more."""
        if request.banned and self._runner.has_state:
            raise InvalidRequestError(
                f"{self._runner.facts.architecture} models cannot take tokens back, which banned"
                " phrases need",
                field="banned_strings",
                hint="leave it out",
            )
        ids = self.vocabulary.tokens_with(short_phrases(request.banned))
        if not ids:
            return request.sampling
        biases = {**request.sampling.logit_bias, **dict.fromkeys(ids, -math.inf)}
        return msgspec.structs.replace(request.sampling, logit_bias=biases)
