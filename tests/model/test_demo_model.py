"""The demo model that ships with the package: it loads, ends its replies and remembers."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from llama_cpp import Llama

from benchmarks.in_character import (
    LEAST_ENGLISH,
    LONG_CARDS,
    ask,
    english_share,
    introduces_another,
    questions,
    says,
)
from benchmarks.recall import (
    DISTANCES,
    SILLYTAVERN_SAMPLING,
    Score,
    greedy,
    make_cases,
    score,
    token_count,
)

FOLDER = Path(__file__).parents[2] / "innkeeper" / "demo"
MODEL = FOLDER / "innkeeper-demo-q8_0.gguf"
SAMPLE = (
    "Good evening! It\u2019s 12,5 miles\u2026 \u201cOh,\u201d says Zoë: ### no.\n\n  42 coppers 🙂"
)


@pytest.fixture(scope="module")
def llm() -> Iterator[Any]:
    model = Llama(
        str(MODEL), n_ctx=4096, n_gpu_layers=0, n_threads=1, n_threads_batch=1, verbose=False
    )
    yield model
    model.close()


def chat_prompt(text: str) -> str:
    """The built-in character's card and greeting as a chat client sends them, and a message."""
    card = json.loads((FOLDER / "character.json").read_text())["data"]
    scenario = card["scenario"].replace("{{user}}", "User")
    return (
        f"<|im_start|>system\n{card['description']}\n{scenario}<|im_end|>\n"
        f"<|im_start|>assistant\n{card['first_mes']}<|im_end|>\n"
        f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n"
    )


def test_model_is_small_enough_to_ship() -> None:
    assert MODEL.stat().st_size <= 8_000_000


def test_card_names_the_sha256_of_the_file() -> None:
    digest = hashlib.sha256(MODEL.read_bytes()).hexdigest()
    assert digest in (FOLDER / "MODEL_CARD.md").read_text()


def test_header_carries_a_chatml_template_and_the_trained_context(llm: Any) -> None:
    template = llm.metadata["tokenizer.chat_template"]
    assert "<|im_start|>user" in template and "<|im_start|>assistant" in template
    assert llm.metadata["llama.context_length"] == "4096"
    assert llm.metadata["general.license"] == "CC0-1.0"


def test_tokens_join_to_the_text_they_were_made_from(llm: Any) -> None:
    tokens = llm.tokenize(SAMPLE.encode(), add_bos=False, special=False)
    assert llm.detokenize(tokens).decode() == SAMPLE


def test_greedy_chat_reply_names_the_character_and_ends_with_the_end_token(llm: Any) -> None:
    choice = llm.create_completion(chat_prompt("Who are you?"), max_tokens=80, temperature=0.0)
    assert choice["choices"][0]["finish_reason"] == "stop"
    assert "Mara" in choice["choices"][0]["text"]


def test_most_facts_told_within_512_tokens_are_remembered_in_every_chat_format(llm: Any) -> None:
    total = Score(0, 0, 0)
    for fmt in ("chatml", "names", "alpaca"):
        total += score(greedy(llm), make_cases(11, 10, DISTANCES[0], fmt, token_count(llm)))
    assert total.num_ended >= 28
    assert total.recall >= 70


def test_most_characters_of_unknown_cards_give_their_own_name(llm: Any) -> None:
    asked = [question for question in questions() if question.asks_who][::3]
    replies = [
        (question.name, ask(llm, question, 1, {"temperature": 0.0, "repeat_penalty": 1.0})[0])
        for question in asked
    ]
    assert len(replies) == 80
    assert sum(says(name, reply) for name, reply in replies) >= 64
    assert sum(introduces_another(name, reply) for name, reply in replies) <= 8


def test_replies_on_long_cards_are_english_in_character_and_end_by_themselves(llm: Any) -> None:
    """Prompts of about 2,000 tokens, with the sampling that SillyTavern sends. The model before
    this one gave the right name to a quarter of those who asked; the model card has the figures."""
    asked = list(questions(LONG_CARDS))
    replies = [ask(llm, each, seed, SILLYTAVERN_SAMPLING) for seed, each in enumerate(asked)]
    named = [
        says(each.name, text)
        for each, (text, _) in zip(asked, replies, strict=True)
        if each.asks_who
    ]
    others = [
        text
        for each, (text, _) in zip(asked, replies, strict=True)
        if introduces_another(each.name, text)
    ]
    strange = [text for text, _ in replies if english_share(text) < LEAST_ENGLISH]
    endless = [text for text, by_itself in replies if not by_itself]
    assert len(strange) <= 0.05 * len(replies), strange
    assert len(endless) <= 0.05 * len(replies), endless
    assert sum(named) >= 0.45 * len(named)
    assert len(others) <= 0.03 * len(replies), others


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nogvdromz Noqusljq thre iwaapo taverodcbaauyc hwn ces jtxarr",
        "Lefullyblx Que folds inrinro of Xersest, tethsa Anlo me",
        "bl aisbl aisbl aisbl aisbl aisbl aisbl aisbl",
    ],
)
def test_text_without_sense_is_not_taken_for_english(text: str) -> None:
    assert english_share(text) < LEAST_ENGLISH
