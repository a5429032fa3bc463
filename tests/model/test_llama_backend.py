"""The engine over llama.cpp, against llama-cpp-python's own high-level loop."""

import ctypes
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import llama_cpp
import numpy as np
import pytest

from innkeeper.backends import llama_cpp as backend
from innkeeper.backends.llama_cpp.runner import LlamaRunner
from innkeeper.core import EngineConfig, GenerateRequest, RopeScaling, SamplingParams
from innkeeper.core.frames import Cancel, Delta, Finished
from innkeeper.engine.attic import Attic, Fill
from innkeeper.engine.loop import Engine, Prepared
from innkeeper.engine.prompt import tokenize_prompt
from innkeeper.engine.reuse import Chunk
from innkeeper.engine.runner import Row
from innkeeper.engine.tiers import Tiers
from innkeeper.errors import UnsupportedModelError
from tests.model.tiny_models import write_llama

NAMES = ("llama", "llama-q8_0", "qwen2", "gemma3", "mixtral", "mamba", "jamba")
UNQUANTIZED = ("llama", "qwen2", "gemma3", "mixtral", "mamba", "jamba")
"""The Q8_0 kernels round activations to 8 bits: a batch's shape moves a logit by 0.03."""
PROMPTS = (
    "The old inn stood at the edge of the wood, and ",
    "Mira poured the ale. 'What brings you here, traveller?' she asked. " * 4,
    "Zwölf Boxkämpfer jagen Viktor 🍺 quer über den großen Sylter Deich. " * 3,
)
NUM_TOKENS = 24
NEAR_TIE = 1e-3
"""Two logits this close may swap when another batch shape adds them up in another order."""


class Reference(NamedTuple):
    tokens: list[int]
    margins: list[float]
    """Between the best two logits, where each token was chosen."""


class Session:
    """One loaded model and its engine."""

    def __init__(self, path: Path, **fields: Any) -> None:
        config = EngineConfig(
            backend="llama_cpp",
            path=str(path),
            name=path.stem,
            **{
                "num_ctx": 1024,
                "num_pool": 4096,
                "max_sequences": 8,
                "num_threads": 1,
                **fields,
            },
        )
        self.runner: LlamaRunner = backend.load(config, lambda fraction: None)
        self.frames: list[Any] = []
        self.engine = Engine(
            self.runner,
            self.frames.extend,
            kv_reuse=config.kv_reuse,
            idle_refresh=config.idle_refresh,
            idle_seconds=0,
            tiers=Tiers(self.runner, config.ram_cache_bytes, None),
        )
        self._next_id = 0

    def submit(self, prompt: str | Sequence[int], **fields: Any) -> int:
        fields = {"max_tokens": NUM_TOKENS, "sampling": SamplingParams(temperature=0), **fields}
        text = prompt if isinstance(prompt, str) else tuple(prompt)
        request = GenerateRequest(prompt=text, **fields)
        tokens, cut = tokenize_prompt(request, self.runner.tokenizer, self.runner.facts)
        self._next_id += 1
        self.engine.inbox.put(Prepared(self._next_id, request, tokens, cut))
        return self._next_id

    def run(self) -> None:
        while self.engine.step():
            pass

    def text(self, request_id: int) -> str:
        deltas = [f for f in self.frames if isinstance(f, Delta) and f.id == request_id]
        return "".join(f.text for f in deltas)

    def tokens(self, request_id: int) -> list[int]:
        deltas = [f for f in self.frames if isinstance(f, Delta) and f.id == request_id]
        return [entry.token_id for f in deltas for entry in f.logprobs]

    def finished(self, request_id: int) -> Finished:
        return next(f for f in self.frames if isinstance(f, Finished) and f.id == request_id)


@pytest.fixture(params=NAMES)
def model_path(request: pytest.FixtureRequest, tiny_models: dict[str, Path]) -> Path:
    return tiny_models[request.param]


@pytest.fixture
def open_session() -> Iterator[Callable[..., Session]]:
    sessions: list[Session] = []

    def make(path: Path, **fields: Any) -> Session:
        sessions.append(Session(path, **fields))
        return sessions[-1]

    yield make
    for session in sessions:
        session.runner.close()


def reference(
    path: Path, prompt: str | list[int], kv_type: int = llama_cpp.GGML_TYPE_F16
) -> Reference:
    """Greedy tokens of the high-level ``Llama``, and how clear each choice was."""
    llama = llama_cpp.Llama(
        str(path), n_ctx=1024, verbose=False, n_threads=1, type_k=kv_type, type_v=kv_type
    )
    tokens, margins = [], []
    if isinstance(prompt, str):
        prompt = llama.tokenize(prompt.encode(), add_bos=True, special=True)
    for token in llama.generate(prompt, temp=0.0, repeat_penalty=1.0):
        pointer = llama._ctx.get_logits_ith(-1)
        logits = np.ctypeslib.as_array(
            ctypes.cast(pointer, ctypes.POINTER(ctypes.c_float)), (llama.n_vocab(),)
        )
        best = np.sort(logits)[-2:]
        margins.append(float(best[1] - best[0]))
        tokens.append(token)
        if len(tokens) == NUM_TOKENS or llama_cpp.llama_vocab_is_eog(llama._model.vocab, token):
            break
    llama.close()
    return Reference(tokens, margins)


def assert_same_or_near_tie(found: Sequence[int], expected: Reference) -> int:
    """0 if equal; 1 if the first difference is a near tie of the reference. Fails otherwise."""
    pairs = list(zip(found, expected.tokens, strict=False))
    where = next((i for i, (a, b) in enumerate(pairs) if a != b), None)
    if where is None:
        return 0
    assert expected.margins[where] <= NEAR_TIE, f"token {where} differs: {pairs[where]}"
    return 1


def test_greedy_equals_the_high_level_llama(
    model_path: Path, open_session: Callable[..., Session]
) -> None:
    session = open_session(model_path, max_ubatch=512)
    num_ties = 0
    for prompt in PROMPTS:
        request_id = session.submit(prompt, logprobs=0)
        session.run()
        num_ties += assert_same_or_near_tie(
            session.tokens(request_id), reference(model_path, prompt)
        )
    print(f"{model_path.stem}: {num_ties} of {len(PROMPTS)} differ at a near tie")


@pytest.mark.parametrize("model_path", UNQUANTIZED, indirect=True)
def test_eight_at_once_equal_each_alone(
    model_path: Path, open_session: Callable[..., Session]
) -> None:
    # An f32 cache: f16 rounds the tiny differences between batch shapes up to 2e-3 in a logit.
    prompts = [f"Guest {n} asks: " + PROMPTS[n % 3] for n in range(8)]
    together = open_session(model_path, kv_type_k="f32", kv_type_v="f32")
    ids = [together.submit(prompt, logprobs=0) for prompt in prompts]
    together.run()
    num_ties = 0
    for request_id, prompt in zip(ids, prompts, strict=True):
        expected = reference(model_path, prompt, llama_cpp.GGML_TYPE_F32)
        num_ties += assert_same_or_near_tie(together.tokens(request_id), expected)
    print(f"{model_path.stem}: {num_ties} of {len(prompts)} differ at a near tie")
    together.engine.cache.check()


def test_second_turn_equals_a_fresh_reading(
    model_path: Path, open_session: Callable[..., Session]
) -> None:
    session = open_session(model_path)
    first = session.submit(PROMPTS[1], logprobs=0)
    session.run()
    encode = session.runner.tokenizer.encode
    prompt = encode(PROMPTS[1], add_special=True, parse_special=True)
    prompt += session.tokens(first)
    prompt += encode("\nAnd then?", add_special=False, parse_special=True)
    second = session.submit(prompt, logprobs=0)
    session.run()
    assert_same_or_near_tie(session.tokens(second), reference(model_path, prompt))
    assert session.finished(second).timings.cache_n > 0


def test_regenerate_equals_the_first_time(
    model_path: Path, open_session: Callable[..., Session]
) -> None:
    session = open_session(model_path)
    ids = [session.submit(PROMPTS[2], logprobs=0) for _ in range(2)]
    session.run()
    ids.append(session.submit(PROMPTS[2], logprobs=0))
    session.run()
    expected = reference(model_path, PROMPTS[2])
    for request_id in ids:
        assert_same_or_near_tie(session.tokens(request_id), expected)


def test_choices_share_the_prompt_on_every_model(
    model_path: Path, open_session: Callable[..., Session]
) -> None:
    session = open_session(model_path)
    sampling = SamplingParams(seed=5, temperature=0.9)
    many = session.submit(PROMPTS[0], n=3, sampling=sampling)
    session.run()
    ends = [f for f in session.frames if isinstance(f, Finished) and f.id == many]
    assert sorted(end.timings.prompt_n > 0 for end in ends) == [False, False, True]


def test_full_pool_preempts_and_still_agrees(
    tiny_llama: Path, open_session: Callable[..., Session]
) -> None:
    small = open_session(tiny_llama, num_ctx=256, num_pool=512, max_sequences=4)
    roomy = open_session(tiny_llama, num_ctx=256, num_pool=4096, max_sequences=4)
    prompts = [f"{n}. {PROMPTS[0]}" for n in range(4)]
    texts = []
    for session in (small, roomy):
        ids = [
            session.submit(p, max_tokens=180, sampling=SamplingParams(temperature=0, ban_eos=True))
            for p in prompts
        ]
        session.run()
        assert all(session.finished(i).timings.predicted_n == 180 for i in ids)
        texts.append([session.text(i)[:40] for i in ids])
    small.engine.cache.check()
    assert texts[0] == texts[1]


def test_sliding_window_forgets_and_reads_again(
    tiny_gemma3: Path, open_session: Callable[..., Session]
) -> None:
    """A prompt cut far before the cached end cannot be resumed from inside the window."""
    session = open_session(tiny_gemma3)
    long_prompt = PROMPTS[1] * 2
    session.submit(long_prompt, max_tokens=200)
    session.run()
    again = session.submit(long_prompt[: len(long_prompt) // 2], logprobs=0)
    session.run()
    expected = reference(tiny_gemma3, long_prompt[: len(long_prompt) // 2])
    assert_same_or_near_tie(session.tokens(again), expected)


MESSAGES = tuple(
    f"Guest {n}: The road from the {word} was long, and I saw {n + 3} {word} birds on it.\n"
    f"Mira: Then sit, and tell me of the {word} while I pour you some {word} ale.\n"
    for n, word in enumerate(("mill", "ford", "castle", "bridge", "chapel", "harbour", "moor"))
)
CARD = "Mira keeps the Lantern, an inn at the ford. She is quick, kind and curious.\n" * 2


@pytest.mark.parametrize("policy", ["auto", "fast", "turbo"])
def test_edits_never_break_any_model(
    model_path: Path, open_session: Callable[..., Session], policy: str
) -> None:
    """Messages fall out, lore comes and goes, the card is swapped: on models that can shift and
    on those that cannot."""
    session = open_session(model_path, num_ctx=1024, num_pool=3072, kv_reuse=policy)
    rng = np.random.default_rng(3)
    for turn in range(12):
        card = CARD if rng.random() < 0.8 else CARD.replace("Mira", "Bram")
        lore = PROMPTS[1] if rng.random() < 0.4 else ""
        window = MESSAGES[max(0, turn % 7 - 3) : turn % 7 + 1]
        session.submit(card + lore + "".join(window), max_tokens=int(rng.integers(0, 12)))
        for _ in range(int(rng.integers(1, 8))):
            session.engine.step()
        session.engine.cache.check()
    session.run()
    session.engine.cache.check()
    ends = [f for f in session.frames if isinstance(f, Finished)]
    assert len(ends) == 12
    assert session.runner.can_edit == any(end.timings.cache_approx_n for end in ends)


@pytest.mark.parametrize("model_path", UNQUANTIZED, indirect=True)
def test_exact_policy_equals_a_server_without_reuse(
    model_path: Path, open_session: Callable[..., Session]
) -> None:
    """Greedy replies over messages that fall out, lore that comes and goes, and a swipe."""
    session = open_session(model_path, kv_reuse="exact", kv_type_k="f32", kv_type_v="f32")
    num_reused = 0
    for first, last, lore in ((0, 3, ""), (0, 4, ""), (1, 5, PROMPTS[0]), (1, 5, ""), (1, 5, "")):
        prompt = CARD + lore + "".join(MESSAGES[first:last])
        request_id = session.submit(prompt, logprobs=0)
        session.run()
        expected = reference(model_path, prompt, llama_cpp.GGML_TYPE_F32)
        assert_same_or_near_tie(session.tokens(request_id), expected)
        timings = session.finished(request_id).timings
        assert timings.cache_approx_n == 0
        num_reused += timings.cache_n
    assert num_reused > 0 or session.runner.has_state


def test_exact_again_after_idle_time(
    tiny_llama: Path, open_session: Callable[..., Session]
) -> None:
    session = open_session(tiny_llama, kv_reuse="fast", kv_type_k="f32", kv_type_v="f32")
    session.submit(CARD + "".join(MESSAGES[:5]), max_tokens=4)
    session.run()
    prompt = CARD + "".join(MESSAGES[2:6])
    edited = session.submit(prompt, max_tokens=0)
    session.run()
    assert session.finished(edited).timings.cache_approx_n > 100
    refreshed = session.submit(prompt, logprobs=0)
    session.run()
    assert session.finished(refreshed).timings.cache_approx_n == 0
    assert session.finished(refreshed).timings.prompt_n == 1
    expected = reference(tiny_llama, prompt, llama_cpp.GGML_TYPE_F32)
    assert_same_or_near_tie(session.tokens(refreshed), expected)


def read(runner: LlamaRunner, sequence_id: int, tokens: Sequence[int], start: int = 0) -> None:
    rows = [Row(t, start + i, sequence_id, False) for i, t in enumerate(tokens)]
    for first in range(0, len(rows), runner.max_rows):
        runner.forward(rows[first : first + runner.max_rows])


@pytest.mark.parametrize(
    ("name", "tolerance"), [("llama", 1e-3), ("qwen2", 1e-3), ("mixtral", 1e-3), ("gemma3", 5e-3)]
)
def test_a_chat_that_moves_as_a_whole_goes_on_the_same(
    name: str, tolerance: float, tiny_models: dict[str, Path], open_session: Callable[..., Session]
) -> None:
    """Rotated to other positions and back, the keys give the same logits, but for rounding."""
    session = open_session(tiny_models[name], kv_type_k="f32", kv_type_v="f32", swa_full=True)
    runner = session.runner
    assert runner.can_edit
    tokens = runner.tokenizer.encode(CARD + MESSAGES[0], add_special=True, parse_special=True)
    read(runner, 0, tokens)
    length = last = len(tokens)
    before = runner.forward([Row(5, last, 0, True)])[0].copy()
    for delta in (300, -300):
        runner.remove(0, last)
        runner.shift(0, last - length, last, delta)
        last += delta
        after = runner.forward([Row(5, last, 0, True)])[0]
        assert np.abs(after - before).max() < tolerance, "a wrong rotation gives 1 and more"


@pytest.mark.parametrize(
    ("name", "start", "is_whole"),
    [
        ("llama", 20, True),
        ("qwen2", 20, True),
        ("mixtral", 20, True),
        ("gemma3", 20, False),
        ("gemma3", -60, True),
    ],
)
def test_what_fell_out_comes_back_as_it_was(
    name: str,
    start: int,
    is_whole: bool,
    tiny_models: dict[str, Path],
    open_session: Callable[..., Session],
) -> None:
    """By way of memory; but not what windows have left behind, since states lack it."""
    session = open_session(tiny_models[name], kv_type_k="f32", kv_type_v="f32", swa_full=True)
    runner = session.runner
    tokens = runner.tokenizer.encode(CARD + MESSAGES[0], add_special=True, parse_special=True)
    last = len(tokens)
    start %= last
    read(runner, 0, tokens)
    before = runner.forward([Row(5, last, 0, True)])[0].copy()
    attic = Attic(runner, 1, Tiers(runner, 1 << 26, None))
    attic.put(0, start, tokens[start:], "")
    runner.remove(0, start)
    fill = Fill(attic.fragments[0], Chunk(start, start, last - start))
    assert attic.bring(fill, 0) == is_whole
    assert len(attic.fragments) == (not is_whole)
    assert runner.first(1) == -1, "nothing is left on the way"
    if is_whole:
        after = runner.forward([Row(5, last, 0, True)])[0]
        assert np.abs(after - before).max() < 1e-3


def test_keys_of_layers_without_positions_are_never_moved(
    tmp_path: Path, open_session: Callable[..., Session]
) -> None:
    """llama.cpp would rotate them with the others."""
    path = write_llama(tmp_path / "m.gguf", architecture="smollm3")
    session = open_session(path, kv_reuse="turbo")
    assert not session.runner.can_edit
    for first in range(3):
        edited = session.submit(CARD + "".join(MESSAGES[first : first + 4]), max_tokens=2)
        session.run()
        assert session.finished(edited).timings.cache_approx_n == 0


def test_full_windows_keep_tokens_that_have_left_them(
    tiny_gemma3: Path, open_session: Callable[..., Session]
) -> None:
    """llama.cpp takes such cells again though others are free, unless they are held twice."""
    runner = open_session(tiny_gemma3, swa_full=True, num_pool=1024).runner
    tokens = [5 + i % 200 for i in range(600)]
    read(runner, 1, tokens[:100])
    read(runner, 0, tokens)
    runner.remove(1, 0)
    read(runner, 2, tokens[:200])
    assert runner.can_resume(0, 1, len(tokens)), (
        "more than the gap before it, while others are free"
    )
    runner.copy(0, 3, 0, 300)
    runner.remove(0, 0)
    runner.remove(2, 0)
    read(runner, 1, tokens)
    assert runner.can_resume(3, 1, 300) and runner.can_resume(1, 1, len(tokens))


def test_full_windows_are_edited_and_exact_again_after_idle_time(
    tiny_gemma3: Path, open_session: Callable[..., Session]
) -> None:
    session = open_session(tiny_gemma3, swa_full=True, kv_type_k="f32", kv_type_v="f32")
    num_moved = 0
    for first in (0, 1, 2):
        prompt = CARD + "".join(MESSAGES[first : first + 5])
        edited = session.submit(prompt, max_tokens=4)
        session.run()
        session.engine.cache.check()
        num_moved += session.finished(edited).timings.cache_approx_n
        again = session.submit(prompt, logprobs=0)
        session.run()
        assert session.finished(again).timings.cache_approx_n == 0
        expected = reference(tiny_gemma3, prompt, llama_cpp.GGML_TYPE_F32)
        assert_same_or_near_tie(session.tokens(again), expected)
    assert num_moved > 400


def test_seed_reproduces_through_every_native_step(
    tiny_llama: Path, open_session: Callable[..., Session]
) -> None:
    session = open_session(tiny_llama)
    settings: list[dict[str, Any]] = [
        {"top_k": 40, "top_p": 0.9, "min_p": 0.02, "typical_p": 0.97, "top_n_sigma": 2.0},
        {"dry_multiplier": 0.8, "xtc_probability": 0.5, "dynatemp_range": 0.4},
        {"mirostat": 1},
        {"mirostat": 2},
        {"adaptive_target": 0.3},
        {"repetition_penalty": 1.2, "presence_penalty": 0.3, "frequency_penalty": 0.2},
    ]
    for fields in settings:
        sampling = SamplingParams(seed=11, **fields)
        ids = []
        for _ in range(2):  # read afresh each time: another batch shape is another rounding
            session.engine.cache.drop_idle()
            ids.append(session.submit(PROMPTS[0], sampling=sampling))
            session.run()
        assert session.text(ids[0]) == session.text(ids[1]), fields
        other = session.submit(PROMPTS[0], sampling=SamplingParams(seed=12, **fields))
        session.run()
        assert session.text(other) != session.text(ids[0]), fields


def test_no_cell_leaks_after_a_thousand_random_rounds(
    tiny_llama: Path, open_session: Callable[..., Session]
) -> None:
    rng = np.random.default_rng(0)
    session = open_session(tiny_llama, num_ctx=256, num_pool=768, max_sequences=4, max_kept=3)
    open_ids: list[int] = []
    for _ in range(1000):
        if rng.random() < 0.6 or not open_ids:
            prompt = PROMPTS[rng.integers(2)][: rng.integers(4, 120)]
            count, limit = int(rng.integers(1, 4)), int(rng.integers(0, 20))
            open_ids.append(session.submit(prompt, n=count, max_tokens=limit))
        else:
            session.engine.inbox.put(Cancel(open_ids.pop(rng.integers(len(open_ids)))))
        for _ in range(rng.integers(3)):
            session.engine.step()
    session.run()
    session.engine.cache.check()
    session.engine.cache.drop_idle()
    assert session.engine.cache.num_used == 0
    memory, ids = session.runner._memory, range(session.runner.num_sequence_ids)
    assert all(memory.last(i) == -1 for i in ids)


def test_double_bos_is_one(tiny_llama: Path, open_session: Callable[..., Session]) -> None:
    tokenizer = open_session(tiny_llama).runner.tokenizer
    bos = tokenizer.text(tokenizer.bos_id)
    plain = tokenizer.encode("Hello", add_special=True, parse_special=True)
    twice = tokenizer.encode(bos + "Hello", add_special=True, parse_special=True)
    assert plain.count(tokenizer.bos_id) == twice.count(tokenizer.bos_id) == 1


def test_a_size_that_llama_cpp_has_no_name_for_is_counted(
    open_session: Callable[..., Session], tiny_llama: Path
) -> None:
    assert "?" not in open_session(tiny_llama).runner.facts.description


def test_context_beyond_training_is_warned_about(
    tiny_llama: Path, open_session: Callable[..., Session]
) -> None:
    facts = open_session(tiny_llama, num_ctx=4096, num_pool=4096).runner.facts
    assert facts.num_ctx_train < 4096
    assert str(facts.num_ctx_train) in facts.warnings[0]


def test_unknown_architecture_is_refused_by_name(tmp_path: Path, tiny_llama: Path) -> None:
    data = tiny_llama.read_bytes().replace(
        b"\x05\0\0\0\0\0\0\0llama", b"\x05\0\0\0\0\0\0\0lxama", 1
    )
    path = tmp_path / "odd.gguf"
    path.write_bytes(data)
    with pytest.raises(UnsupportedModelError, match="lxama"):
        Session(path)


def replay(session: Session) -> str:
    request_id = session.submit(PROMPTS[1])
    session.run()
    return session.text(request_id)


@pytest.mark.parametrize("changes", [{"mmap": False}, {"mlock": True}, {"num_cpu_experts": 2}])
def test_how_weights_are_kept_does_not_change_the_reply(
    changes: dict[str, Any], tiny_models: dict[str, Path], open_session: Callable[..., Session]
) -> None:
    usual = replay(open_session(tiny_models["mixtral"]))
    assert replay(open_session(tiny_models["mixtral"], **changes)) == usual


def test_scaled_positions_reach_further(
    tiny_llama: Path, open_session: Callable[..., Session]
) -> None:
    usual = open_session(tiny_llama, num_ctx=4096)
    scaled = open_session(tiny_llama, num_ctx=4096, rope=RopeScaling("linear", 2.0))
    assert usual.runner.facts.warnings and not scaled.runner.facts.warnings
    assert replay(scaled) != replay(usual)
