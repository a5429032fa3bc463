"""Every error that a user can see, as one tree.

    InnkeeperError
    ├── InvalidRequestError        a field of a request is wrong
    │   ├── PromptTooLongError     the prompt exceeds the context
    │   └── PayloadTooLargeError   the body exceeds the limit
    ├── UnauthorizedError          no key, or the wrong one
    ├── ForbiddenError             Host, Origin or scope does not allow it
    ├── NotFoundError              no such model, route or item
    ├── BusyError                  the queue is full
    ├── NoModelError               nothing is loaded
    ├── ModelFileError             a model file cannot be used
    │   ├── NotAModelError         it is not of a known format
    │   ├── CorruptModelError      it is truncated or contradicts itself
    │   └── UnsupportedModelError  valid, but no loader runs it
    ├── NotEnoughMemoryError       it would not fit
    ├── EngineError                the engine failed
    │   ├── EngineLoadError        while loading a model
    │   ├── EngineCrashedError     its process ended
    │   └── EngineHungError        its process stopped answering
    ├── HubError                   in ``hub.errors``: finding and downloading models
    ├── SettingsError              a setting has a bad value
    └── StartError                 the server cannot start (port, home)

Each error says what is wrong with its numbers in ``message``, which ``field`` it is about (if
any), and in ``hint`` the one thing to do next. ``api.errors`` alone maps them to status codes;
``code`` is what crosses process borders and appears in responses.
"""


class InnkeeperError(Exception):
    """Base of all errors meant for the user."""

    code = "internal_error"

    def __init__(self, message: str, *, field: str | None = None, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        self.hint = hint

    def __str__(self) -> str:
        """The message and the next step, as one line."""
        text = self.message
        if self.hint:
            text += f" ({self.hint})" if text.endswith((".", "!", "?")) else f"; {self.hint}"
        return text


class InvalidRequestError(InnkeeperError):
    code = "invalid_request"


class PromptTooLongError(InvalidRequestError):
    code = "context_length_exceeded"


class PayloadTooLargeError(InvalidRequestError):
    code = "payload_too_large"


class UnauthorizedError(InnkeeperError):
    code = "unauthorized"


class ForbiddenError(InnkeeperError):
    code = "forbidden"


class NotFoundError(InnkeeperError):
    code = "not_found"


class BusyError(InnkeeperError):
    code = "busy"


class NoModelError(InnkeeperError):
    code = "no_model"


class ModelFileError(InnkeeperError):
    code = "model_file"


class NotAModelError(ModelFileError):
    code = "not_a_model"


class CorruptModelError(ModelFileError):
    code = "corrupt_model"


class UnsupportedModelError(ModelFileError):
    code = "unsupported_model"


class NotEnoughMemoryError(InnkeeperError):
    code = "not_enough_memory"


class EngineError(InnkeeperError):
    code = "engine_error"


class EngineLoadError(EngineError):
    code = "engine_load_failed"


class EngineCrashedError(EngineError):
    code = "engine_crashed"


class EngineHungError(EngineError):
    code = "engine_hung"


class SettingsError(InnkeeperError):
    code = "bad_setting"


class StartError(InnkeeperError):
    code = "cannot_start"


def _subclasses(cls: type[InnkeeperError]) -> list[type[InnkeeperError]]:
    return [cls, *(deep for sub in cls.__subclasses__() for deep in _subclasses(sub))]


def from_code(
    code: str, message: str, *, field: str | None = None, hint: str | None = None
) -> InnkeeperError:
    """The error that ``code`` names, rebuilt on this side of a process border.

    An unknown code (an engine of another version) becomes an ``InnkeeperError``.
    """
    by_code = {cls.code: cls for cls in _subclasses(InnkeeperError)}
    return by_code.get(code, InnkeeperError)(message, field=field, hint=hint)
