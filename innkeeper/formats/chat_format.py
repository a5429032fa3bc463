"""Which instruct format a chat template speaks, by the markers in it; or a guess by name."""

from typing import NamedTuple


class ChatFormat(NamedTuple):
    """``name`` as SillyTavern's presets call it; ``source`` is ``template`` or ``name``."""

    name: str
    source: str


_MARKERS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("Harmony", ("<|start|>", "<|channel|>")),
    ("Llama-4", ("<|header_start|>",)),
    ("Llama-3", ("<|start_header_id|>",)),
    ("Phi-4", ("<|im_start|>", "<|im_sep|>")),
    ("Kimi", ("<|im_user|>",)),
    ("ChatML", ("<|im_start|>",)),
    ("Gemma", ("<start_of_turn>",)),
    ("Gemma-4", ("<|turn>",)),
    ("Command-R", ("<|START_OF_TURN_TOKEN|>",)),
    ("DeepSeek", ("<\uff5cUser\uff5c>",)),
    ("Granite", ("<|start_of_role|>",)),
    ("Mistral V7", ("[SYSTEM_PROMPT]",)),
    ("Llama-2", ("[INST]", "<<SYS>>")),
    ("Mistral", ("[INST]",)),
    ("GLM-4", ("[gMASK]",)),
    ("EXAONE", ("[|user|]",)),
    ("Seed", ("<seed:bos>",)),
    ("Nemotron", ("<extra_id_1>",)),
    ("MiniCPM", ("<用户>",)),
    ("Metharme", ("<|user|>", "<|model|>")),
    ("Phi-3", ("<|user|>", "<|end|>")),
    ("Zephyr", ("<|user|>",)),
    ("OpenChat", ("GPT4 Correct",)),
    ("Solar", ("### User:", "### Assistant:")),
    ("Alpaca", ("### Instruction:",)),
    ("Vicuna", ("USER:", "ASSISTANT:")),
    ("DeepSeek-V1", ("User: ", "Assistant:")),
    ("Falcon", ("User:", "Falcon:")),
)
"""Most telling first; every marker of a row must be there."""

_NAMES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("Alpaca", ("alpaca", "kunoichi", "mythomax", "mythalion", "chronos", "airoboros-l2")),
    ("ChatML", ("chatml", "openhermes", "dolphin", "nous-hermes-2", "qwen")),
    ("Vicuna", ("vicuna", "wizardlm", "wizard-vicuna", "airoboros")),
    ("Metharme", ("pygmalion-2", "metharme")),
    ("Zephyr", ("zephyr", "stablelm-zephyr")),
    ("OpenChat", ("openchat", "starling")),
    ("Llama-3", ("llama-3", "llama3")),
    ("Llama-2", ("llama-2", "llama2")),
    ("Gemma", ("gemma",)),
    ("Phi-3", ("phi-3", "phi3")),
    ("Mistral", ("mixtral", "mistral", "nemo")),
)
_CHAT_WORDS = ("instruct", "chat", "-it", "assistant", "hermes", "rp", "dpo", "sft")


def detect(template: str | None, name: str) -> ChatFormat | None:
    """The format of a model with this chat template (None if it has none) and file name.

    None: nothing is known, most likely a base model that only continues text.
    """
    if template:
        for found, markers in _MARKERS:
            if all(marker in template for marker in markers):
                return ChatFormat(found, "template")
        return ChatFormat("custom", "template")
    lower = name.lower().replace("_", "-").replace(" ", "-")
    for found, words in _NAMES:
        if any(word in lower for word in words) and _is_chat(lower, found):
            return ChatFormat(found, "name")
    return None


def _is_chat(name: str, found: str) -> bool:
    """Whether the name is of a chat model: families of base models must say so."""
    if found in ("Llama-3", "Llama-2", "Mistral", "Gemma", "Phi-3") or "qwen" in name:
        return any(word in name for word in _CHAT_WORDS)
    return True
