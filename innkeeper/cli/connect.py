"""``innkeeper connect``: what to type into which client."""

import json
from typing import NamedTuple

from rich.console import Console

from innkeeper.cli.options import Options
from innkeeper.config import Settings, further_ports
from innkeeper.errors import NotFoundError


class Client(NamedTuple):
    """One program, and its steps; ``{url}`` stands for the API's address, ``{key}`` for the key."""

    name: str
    title: str
    steps: tuple[str, ...]
    port_name: str = ""
    """Its port in ``--also``, if it has one there."""


_NO_KEY = "none"
_CLIENTS = (
    Client(
        "sillytavern",
        "SillyTavern",
        (
            "Click the plug (API Connections); API: Text Completion.",
            "API Type: Default (Text Generation WebUI / oobabooga).",
            "API URL: {url}/   API key: {key}",
            "Connect. Then set Context (tokens) to at most the server's context.",
        ),
    ),
    Client(
        "koboldai-lite",
        "KoboldAI Lite (lite.koboldai.net, or its page on disk)",
        (
            "Start the server with --cors https://lite.koboldai.net",
            "AI > Custom Remote Endpoint > KoboldAI API: {url}",
        ),
        "kobold",
    ),
    Client(
        "kobold",
        "Other KoboldAI and KoboldCpp clients",
        ("Address: {url}/api (some want it without /api)",),
        "kobold",
    ),
    Client(
        "ollama",
        "Ollama clients (Open WebUI, the ollama command and library)",
        (
            "Address: {url}   or OLLAMA_HOST={url} in the environment.",
            "Clients that insist on 11434: start the server with --also ollama:11434",
        ),
        "ollama",
    ),
    Client(
        "openai",
        "OpenAI programs and libraries",
        ("Base URL: {url}/v1   API key: {key}", "Model: a name of {url}/v1/models, or leave it."),
    ),
    Client(
        "anthropic",
        "Anthropic programs and libraries (Claude Code)",
        ("Base URL: {url}   API key: {key}   (ANTHROPIC_BASE_URL, ANTHROPIC_API_KEY)",),
    ),
    Client("llama.cpp", "llama-server clients", ("Address: {url}   API key: {key}",), "llamacpp"),
    Client("tabby", "TabbyAPI clients", ("Address: {url}   API key: {key}",), "tabby"),
    Client(
        "litellm",
        "LiteLLM, LangChain, llm",
        (
            "LiteLLM: model openai/NAME, api_base {url}/v1, api_key {key}",
            "LangChain: ChatOpenAI(base_url='{url}/v1', api_key='{key}', model=NAME)",
            "llm: an entry with api_base: {url}/v1 in extra-openai-models.yaml",
        ),
    ),
)


def connect(options: Options, client: str | None, *, as_json: bool) -> None:
    """Prints the steps of ``client``, or of all. Raises: NotFoundError, SettingsError."""
    settings = options.settings()
    chosen = [each for each in _CLIENTS if client in (None, each.name)]
    if not chosen:
        names = ", ".join(each.name for each in _CLIENTS)
        raise NotFoundError(f"there is no client {client!r} here", hint=f"one of {names}")
    found = {each.name: (each.title, steps(each, settings)) for each in chosen}
    if as_json:
        print(json.dumps({name: {"title": t, "steps": s} for name, (t, s) in found.items()}))
        return
    console = Console(highlight=False, markup=False, soft_wrap=True)
    for name, (title, lines) in found.items():
        console.print(f"{title}  [{name}]", style="bold")
        for number, line in enumerate(lines, 1):
            console.print(f"  {number}. {line}")


def steps(client: Client, settings: Settings) -> list[str]:
    """With this server's address; a key is never shown, only that one is needed."""
    port = further_ports(settings).get(client.port_name, settings.api_port)
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(settings.host, settings.host)
    key = "the API key that you set" if settings.api_key is not None else _NO_KEY
    return [step.format(url=f"http://{host}:{port}", key=key) for step in client.steps]
