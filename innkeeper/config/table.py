"""The table: every setting with its type, default, unit, limits and help."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from innkeeper.config.setting import Setting, setting
from innkeeper.units import GIB, MIB

_AUTO_ZERO = {"auto": 0}
_KV_TYPES = ("f32", "f16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0")

OPEN_SWITCH: dict[str, bool | None] = {"auto": None, "yes": True, "no": False}
"""What the words of a switch mean that may be left open."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All settings of one run. The table: name, type, default, help, unit, limits."""

    ctx: int = setting(
        "integer",
        0,
        "Context: what one request may use, prompt and reply together;"
        " auto = as long as the model was trained for and memory allows.",
        unit="tokens",
        minimum=16,
        maximum=1 << 22,
        words=_AUTO_ZERO,
    )
    pool: int = setting(
        "integer",
        0,
        "Size of the cache that all requests and kept chats divide among them;"
        " auto = one context, or two where there is memory to spare.",
        unit="tokens",
        minimum=0,
        maximum=1 << 24,
        words=_AUTO_ZERO,
    )
    parallel: int = setting(
        "integer",
        4,
        "Replies that are generated at the same time; more wait in a queue.",
        minimum=1,
        maximum=64,
    )
    gpu_layers: int = setting(
        "integer",
        -1,
        "Layers of the model on the GPU; auto or -1 = all that fit.",
        minimum=-1,
        maximum=10_000,
        words={"auto": -1, "all": 10_000},
    )
    max_models: int = setting(
        "integer",
        0,
        "Models that are loaded at the same time; a request that names another one loads it, and"
        " the least used one leaves. auto = as many as memory holds, but one on a GPU.",
        minimum=0,
        maximum=64,
        words=_AUTO_ZERO,
    )
    idle_unload: float = setting(
        "number",
        0.0,
        "Unload a model that nobody has used for so long, until the next request; 0 = never.",
        unit="seconds",
        minimum=0,
        maximum=1e9,
    )
    pin: tuple[str, ...] = setting(
        "list", (), "Models that stay loaded whatever else is asked for.", metavar="NAME,..."
    )
    exact_names: bool = setting(
        "switch",
        False,
        "Refuse a request for a model that is not here. Without it the loaded model answers while"
        " it is the only one, with a warning, since many clients send a name that nobody chose.",
    )
    kv_type: str = setting(
        "choice",
        "auto",
        "Number type of the cache; q8_0 needs half of f16's memory, but what moved in a prompt is"
        " read again then; auto = f16 while that leaves a comfortable context.",
        choices=("auto", *_KV_TYPES),
    )
    swa_full: str = setting(
        "choice",
        "auto",
        "Keep all tokens in sliding-window layers too (Gemma 2 and 3, gpt-oss), so that edits of a"
        " long chat are quick there as well; auto = where memory allows.",
        choices=tuple(OPEN_SWITCH),
    )
    model_folders: tuple[str, ...] = setting(
        "list",
        (),
        "Further folders with models, such as LM Studio's or text-generation-webui's; they are used"
        " where they are, nothing is copied.",
        metavar="FOLDER,...",
    )
    tensor_split: tuple[str, ...] = setting(
        "list",
        (),
        "Share of the model on each GPU, such as 3,1; without it, by what is free there.",
        metavar="N,...",
    )
    lora: tuple[str, ...] = setting(
        "list",
        (),
        "LoRA adapters (GGUF) that are added to the model, each with a scale if not 1.",
        metavar="FILE[:SCALE],...",
    )
    draft_model: str | None = setting(
        "text",
        None,
        "A small model of the same vocabulary (a file, or a name in the home's models/) that"
        " guesses what the model will say: replies stay the same, and come sooner where it is"
        " right.",
        metavar="FILE",
    )
    moe_cpu: int = setting(
        "integer",
        -1,
        "Layers of a mixture of experts whose experts stay in RAM, from the first one;"
        " auto = as few as the GPU has no room for.",
        minimum=0,
        maximum=10_000,
        words={"auto": -1, "all": 10_000},
    )
    rope_scaling: str = setting(
        "choice",
        "auto",
        "How positions are scaled to reach beyond the trained context; auto = as the model says.",
        choices=("auto", "none", "linear", "yarn"),
    )
    rope_scale: float = setting(
        "number",
        1.0,
        "How many times the trained context is reached, with linear or yarn scaling.",
        minimum=1,
        maximum=128,
    )
    mlock: bool = setting("switch", False, "Pin the model in RAM, so that it is never swapped out.")
    no_mmap: bool = setting(
        "switch", False, "Read the model into memory of its own instead of mapping its file."
    )
    threads: int = setting(
        "integer",
        0,
        "CPU threads that compute; auto = measured, and adapted to what else runs.",
        minimum=0,
        maximum=1024,
        words=_AUTO_ZERO,
    )
    no_tune: bool = setting(
        "switch",
        False,
        "Do not measure, at the first load of a kind of model, which settings are fastest here.",
    )
    pooling: str = setting(
        "choice",
        "auto",
        "How a model makes embeddings; auto = as its file says, none = it writes text."
        " rank is for rerankers.",
        choices=("auto", "none", "mean", "cls", "last", "rank"),
    )
    kv_reuse: str = setting(
        "choice",
        "auto",
        "What is kept of a prompt that changed in the middle: exact = its unchanged beginning;"
        " fast = also what moved, across every edit but another card; turbo = across that too;"
        " auto = across the edits that were shown to do no harm.",
        choices=("auto", "exact", "fast", "turbo"),
    )
    no_idle_refresh: bool = setting(
        "switch",
        False,
        "Do not use idle time to read again, exactly, what was kept over an edit, nor to let a"
        " group's other speakers read what was said.",
    )
    disk_cache: int = setting(
        "size",
        8 * GIB,
        "Disk space (in the home's cache/) for chats as the model has read them, so that after a"
        " restart they go on without being read again; 0 = none.",
        minimum=0,
        maximum=4096 * GIB,
    )
    ram_cache: int = setting(
        "size",
        -1,
        "Memory for chats that the pool has no room for, for text that fell out of prompts and may"
        " come back, and for checkpoints of models that cannot take back what they have read; auto"
        " = an eighth of what the model leaves free, at most 4 GiB.",
        minimum=0,
        maximum=4096 * GIB,
        words={"auto": -1},
    )
    host: str = setting(
        "text",
        "127.0.0.1",
        "Address to listen on. Any other than this computer's own asks for an API key.",
        metavar="ADDRESS",
    )
    api_port: int = setting(
        "integer", 5000, "Port of the API, for SillyTavern.", minimum=1, maximum=65535
    )
    ui_port: int = setting("integer", 7860, "Port of the web page.", minimum=1, maximum=65535)
    no_ui: bool = setting("switch", False, "Serve no web page.")
    api_key: str | None = setting(
        "text",
        None,
        "Key that clients must send. Better in a file or the environment:"
        " other users can see a command line.",
        secret=True,
        metavar="KEY",
    )
    api_key_file: Path | None = setting(
        "path", None, "File whose first line is the API key.", metavar="FILE"
    )
    manage_key: str | None = setting(
        "text",
        None,
        "Key for loading and unloading models; without it the API key will do.",
        secret=True,
        metavar="KEY",
    )
    admin_key: str | None = setting(
        "text",
        None,
        "Key for changing which models are here; without it the manage key will do.",
        secret=True,
        metavar="KEY",
    )
    allowed_hosts: tuple[str, ...] = setting(
        "list",
        (),
        "Names beside localhost by which browsers may reach this server.",
        metavar="NAME,...",
    )
    cors: tuple[str, ...] = setting(
        "list",
        (),
        "Web pages beside Innkeeper's own that may call the API, such as https://lite.koboldai.net.",
        metavar="ORIGIN,...",
    )
    also: tuple[str, ...] = setting(
        "list",
        (),
        "Further ports of the same API, for clients that insist on theirs:"
        " kobold:5001,ollama:11434.",
        metavar="NAME:PORT,...",
    )
    home: Path | None = setting(
        "path",
        None,
        "Folder of everything Innkeeper keeps: models/, config.toml, logs/, cache/.",
        in_file=False,
        metavar="FOLDER",
    )
    offline: bool = setting("switch", False, "Never use the network.")
    yes: bool = setting("switch", False, "Ask nothing; take the suggested answer.", in_file=False)
    queue_limit: int = setting(
        "integer",
        64,
        "Requests that may wait; one more is refused with status 429.",
        minimum=0,
        maximum=100_000,
    )
    chat_overflow: str = setting(
        "choice",
        "error",
        "Chats longer than the context: refuse them, or leave their oldest turns out and say so;"
        " a request's truncation or truncation_length goes before.",
        choices=("error", "drop"),
    )
    max_body: int = setting(
        "size",
        16 * MIB,
        "Largest request that is read.",
        minimum=64 * 1024,
        maximum=1024 * MIB,
    )
    keepalive_seconds: int = setting(
        "integer",
        75,
        "How long an idle connection stays open.",
        unit="seconds",
        minimum=1,
        maximum=3600,
    )
    engine_hang_seconds: float = setting(
        "number",
        15.0,
        "An engine that does not answer for this long is replaced.",
        unit="seconds",
        minimum=1,
        maximum=3600,
    )
    log_level: str = setting(
        "choice",
        "warning",
        "How much is logged to the terminal.",
        choices=("debug", "info", "warning", "error"),
    )
    backend: str = setting(
        "choice",
        "llama_cpp",
        "What runs the model; fake needs none and answers with letters, for trying out clients.",
        choices=("llama_cpp", "fake"),
    )
    backend_options: tuple[str, ...] = setting(
        "list", (), "Options of the backend as name=value.", metavar="NAME=VALUE,..."
    )


SETTINGS: tuple[Setting, ...] = tuple(
    Setting(name=row.name, default=row.default, **row.metadata)  # type: ignore[arg-type]
    for row in dataclasses.fields(Settings)
)
"""The table, in the order in which it is shown."""

BY_NAME = {row.name: row for row in SETTINGS}
