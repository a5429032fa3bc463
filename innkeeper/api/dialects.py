"""Whose path is whose, and how each dialect words an error.

All dialects share one port, so a path decides the dialect, and where two claim the same path the
body's fields do:

    /v1/...                  OpenAI; what vLLM, Aphrodite, Tabby and KoboldCpp add to its bodies is
                             understood there too. /v1/messages is Anthropic's, /v1/internal
                             Oobabooga's; /v1/model, /v1/token, /v1/auth, /v1/template, /v1/lora,
                             /v1/sampling and /v1/download are Tabby's.
    /v1/models               OpenAI's list; Anthropic's with the header ``anthropic-version``. No
                             answer carries ``X-Powered-By``: clients take its sender for LM Studio.
    /api/v1, /api/latest     KoboldAI United's, not LM Studio's.
    /api/extra, /api/admin   KoboldCpp's.
    /api/...                 Ollama's.
    /completion, /props ...  llama-server's. /props serves KoboldCpp's clients too.
    /tokenize                ``content``: llama-server's; ``prompt`` or ``messages``: vLLM's and
                             KoboldCpp's in one answer. /v1/tokenize is Aphrodite's name for it.
    /detokenize              ``tokens``, answered in llama-server's and vLLM's words at once.
    /                        Ollama's sign of life.

Token counts leave out BOS unless the body asks for it, in every dialect: clients add up the counts
of single messages.
"""

from typing import Any, Literal

from innkeeper import errors
from innkeeper.errors import InnkeeperError

Dialect = Literal["openai", "kobold", "ollama", "llama.cpp", "tabby", "anthropic"]

_PREFIXES: tuple[tuple[str, Dialect], ...] = (
    ("/v1/messages", "anthropic"),
    ("/v1/model", "tabby"),
    ("/v1/token", "tabby"),
    ("/v1/auth", "tabby"),
    ("/v1/template", "tabby"),
    ("/v1/templates", "tabby"),
    ("/v1/lora", "tabby"),
    ("/v1/loras", "tabby"),
    ("/v1/sampling", "tabby"),
    ("/v1/download", "tabby"),
    ("/api/v1", "kobold"),
    ("/api/latest", "kobold"),
    ("/api/extra", "kobold"),
    ("/api/admin", "kobold"),
    ("/api", "ollama"),
    ("/completion", "llama.cpp"),
    ("/completions", "llama.cpp"),
    ("/tokenize", "llama.cpp"),
    ("/detokenize", "llama.cpp"),
    ("/apply-template", "llama.cpp"),
    ("/props", "llama.cpp"),
    ("/slots", "llama.cpp"),
    ("/metrics", "llama.cpp"),
    ("/infill", "llama.cpp"),
    ("/embedding", "llama.cpp"),
    ("/embeddings", "llama.cpp"),
    ("/rerank", "llama.cpp"),
    ("/reranking", "llama.cpp"),
    ("/lora-adapters", "llama.cpp"),
    ("/models", "llama.cpp"),
)

_LLAMA_TYPES: tuple[tuple[type[InnkeeperError], str], ...] = (
    (errors.PromptTooLongError, "exceed_context_size_error"),
    (errors.UnauthorizedError, "authentication_error"),
    (errors.ForbiddenError, "permission_error"),
    (errors.NotFoundError, "not_found_error"),
    (errors.InvalidRequestError, "invalid_request_error"),
    (errors.BusyError, "unavailable_error"),
    (errors.NoModelError, "unavailable_error"),
    (errors.EngineCrashedError, "unavailable_error"),
    (errors.EngineHungError, "unavailable_error"),
)
_KOBOLD_TYPES: tuple[tuple[type[InnkeeperError], str], ...] = (
    (errors.UnauthorizedError, "unauthorized"),
    (errors.NoModelError, "not_implemented"),
    (errors.BusyError, "service_unavailable"),
    (errors.EngineCrashedError, "service_unavailable"),
    (errors.EngineHungError, "service_unavailable"),
    (errors.InvalidRequestError, "bad_input"),
)
_ANTHROPIC_TYPES: tuple[tuple[type[InnkeeperError], str], ...] = (
    (errors.PayloadTooLargeError, "request_too_large"),
    (errors.InvalidRequestError, "invalid_request_error"),
    (errors.UnauthorizedError, "authentication_error"),
    (errors.ForbiddenError, "permission_error"),
    (errors.NotFoundError, "not_found_error"),
    (errors.BusyError, "rate_limit_error"),
    (errors.NoModelError, "overloaded_error"),
    (errors.EngineCrashedError, "overloaded_error"),
    (errors.EngineHungError, "overloaded_error"),
)


def dialect_of(path: str) -> Dialect:
    """Who asks at ``path``; OpenAI's where nobody else does."""
    for prefix, dialect in _PREFIXES:
        if path == prefix or path.startswith(prefix + "/"):
            return dialect
    return "openai"


def shaped(error: InnkeeperError, message: str, status: int, kind: str, path: str) -> Any:
    """The body of an error answer at ``path``. kind: OpenAI's type."""
    match dialect_of(path):
        case "kobold":
            detail = {
                "msg": message,
                "type": _kind(error, _KOBOLD_TYPES, f"generic.error_{status}"),
            }
            if isinstance(error, errors.UnauthorizedError):
                detail["error"] = "Unauthorized"
            return {"detail": detail}
        case "ollama":
            return {"error": message}
        case "tabby":
            return {"detail": message}
        case "anthropic":
            found = {"type": _kind(error, _ANTHROPIC_TYPES, "api_error"), "message": message}
            return {"type": "error", "error": found}
        case "llama.cpp":
            name = "not_supported_error" if status == 501 else _kind(error, _LLAMA_TYPES, "")
            return {
                "error": {"code": status, "message": message, "type": name or "server_error"},
            }
        case "openai":
            names = {"param": error.field, "code": error.code}
            return {"error": {"message": message, "type": kind, **names}}


def _kind(
    error: InnkeeperError, types: tuple[tuple[type[InnkeeperError], str], ...], otherwise: str
) -> str:
    return next((name for cls, name in types if isinstance(error, cls)), otherwise)
