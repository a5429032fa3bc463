"""Messages between the gateway and one engine process, and their framing.

A frame is a 4-byte little-endian length and a msgpack-encoded struct. The gateway writes to the
engine's stdin and reads its stdout; nothing else ever touches the two.
"""

import struct
from typing import BinaryIO, Literal

import msgspec
from msgspec import Struct

from innkeeper.core.model import EngineConfig, EngineStats, ModelFacts
from innkeeper.core.request import CallDelta, FinishReason, GenerateRequest, Timings, TokenLogprob
from innkeeper.errors import EngineError, InnkeeperError, from_code

MAX_FRAME_BYTES = 256 * 1024 * 1024
_LENGTH = struct.Struct("<I")


class ErrorInfo(Struct, frozen=True):
    """An ``InnkeeperError`` on its way through a pipe."""

    code: str
    message: str
    field: str | None = None
    hint: str | None = None

    @classmethod
    def of(cls, error: InnkeeperError) -> "ErrorInfo":
        return cls(error.code, error.message, error.field, error.hint)

    def to_error(self) -> InnkeeperError:
        return from_code(self.code, self.message, field=self.field, hint=self.hint)


# --- gateway -> engine ---------------------------------------------------------------------------


class Load(Struct, frozen=True, tag=True):
    """The first frame; answered by ``Progress`` frames, then ``Loaded`` or ``LoadFailed``."""

    config: EngineConfig


class Submit(Struct, frozen=True, tag=True):
    """Generate. Answered by ``Delta`` frames and one ``Finished`` per choice, or one ``Failed``."""

    id: int
    request: GenerateRequest


class Cancel(Struct, frozen=True, tag=True):
    """End request ``id`` (all if None) within one step; its choices finish as ``cancelled``."""

    id: int | None = None


class Tokenize(Struct, frozen=True, tag=True):
    """Answered at once by ``Tokens`` or ``Failed``, also during prefill."""

    id: int
    text: str
    add_special: bool = True
    parse_special: bool = True


class Detokenize(Struct, frozen=True, tag=True):
    """Answered at once by ``Text`` or ``Failed``."""

    id: int
    tokens: tuple[int, ...]


class Probe(Struct, frozen=True, tag=True):
    """The next-token distribution after a prompt. Answered by ``Probabilities`` or ``Failed``."""

    id: int
    request: GenerateRequest
    use_samplers: bool = False
    top: int = 50
    traces: bool = False
    """Also what every sampling step leaves."""


class Embed(Struct, frozen=True, tag=True):
    """Make a vector of each input, or, with ``query``, score each against it. Answered by
    ``Vectors`` or ``Failed``."""

    id: int
    inputs: tuple[str | tuple[int, ...], ...]
    query: str | None = None
    truncate: bool = False
    """Cut what is longer than the context; else it is refused."""
    normalize: bool = True
    """To a length of 1."""


class ChangeSlot(Struct, frozen=True, tag=True):
    """Save, restore or erase what the cache holds of a chat. Answered by ``SlotChanged`` or
    ``Failed``."""

    id: int
    action: Literal["save", "restore", "erase"]
    slot: int
    """Counts idle chats, the most recently used one first."""
    name: str = ""
    """Of what is saved or restored; never a path."""


class Ping(Struct, frozen=True, tag=True):
    """Answered by ``Pong`` from outside the generation loop."""

    id: int


ToEngine = Load | Submit | Cancel | Tokenize | Detokenize | Probe | Embed | ChangeSlot | Ping


# --- engine -> gateway ---------------------------------------------------------------------------


class Progress(Struct, frozen=True, tag=True):
    """Loading is ``fraction`` (0..1) done."""

    fraction: float
    stage: str = "weights"


class Loaded(Struct, frozen=True, tag=True):
    facts: ModelFacts


class LoadFailed(Struct, frozen=True, tag=True):
    error: ErrorInfo


class Delta(Struct, frozen=True, tag=True):
    """New text of choice ``index``: pieces joined are the whole reply. ``text`` may be empty only
    where ``logprobs`` is not."""

    id: int
    index: int
    text: str
    num_tokens: int
    """Tokens generated so far by this choice, those behind held-back text included."""
    logprobs: tuple[TokenLogprob, ...] = ()
    reasoning: str = ""
    """Set by ``serving``, which takes it out of ``text``; so are the calls."""
    calls: tuple[CallDelta, ...] = ()


class SeenPrompt(Struct, frozen=True):
    """What the model was given, at the end of all rendering and cutting."""

    prompt: str
    tokens: tuple[int, ...]


class Finished(Struct, frozen=True, tag=True):
    """The last frame of choice ``index``."""

    id: int
    index: int
    reason: FinishReason
    timings: Timings
    stop_text: str | None = None
    """The stop string that ended it; None for an end token or a limit."""
    truncated_n: int = 0
    """Prompt tokens cut off the left, as the request asked."""
    warnings: tuple[str, ...] = ()
    debug: SeenPrompt | None = None
    """Where the request asked for it."""


class Failed(Struct, frozen=True, tag=True):
    """The last frame of request ``id``: it was refused, or broke."""

    id: int
    error: ErrorInfo


class Tokens(Struct, frozen=True, tag=True):
    id: int
    tokens: tuple[int, ...]


class Text(Struct, frozen=True, tag=True):
    id: int
    text: str


class ProbedStep(Struct, frozen=True):
    """The candidates behind one sampling step; ``num_left`` counts all, ``tokens`` has the best."""

    name: str
    num_left: int
    tokens: tuple[tuple[int, str, float], ...]


class Probabilities(Struct, frozen=True, tag=True):
    """(token id, text, probability), best first."""

    id: int
    tokens: tuple[tuple[int, str, float], ...]
    steps: tuple[ProbedStep, ...] = ()


class Vectors(Struct, frozen=True, tag=True):
    """One per input, of little-endian float32."""

    id: int
    vectors: tuple[bytes, ...]
    num_tokens: int


class SlotChanged(Struct, frozen=True, tag=True):
    """``num_bytes`` were written or read."""

    id: int
    num_tokens: int
    num_bytes: int
    milliseconds: float


class Pong(Struct, frozen=True, tag=True):
    id: int
    stats: EngineStats


FromEngine = (
    Progress
    | Loaded
    | LoadFailed
    | Delta
    | Finished
    | Failed
    | Tokens
    | Text
    | Probabilities
    | Vectors
    | SlotChanged
    | Pong
)


# --- framing -------------------------------------------------------------------------------------

_encoder = msgspec.msgpack.Encoder()
_to_engine: msgspec.msgpack.Decoder[ToEngine] = msgspec.msgpack.Decoder(ToEngine)
_from_engine: msgspec.msgpack.Decoder[FromEngine] = msgspec.msgpack.Decoder(FromEngine)

LENGTH_BYTES = _LENGTH.size


def encode(frame: Struct) -> bytes:
    """The frame with its length in front, ready to be written whole."""
    body = _encoder.encode(frame)
    return _LENGTH.pack(len(body)) + body


def body_length(header: bytes) -> int:
    """Length that ``header`` (4 bytes) announces.

    Raises: EngineError if it is beyond ``MAX_FRAME_BYTES``: the stream is out of step.
    """
    (length,) = _LENGTH.unpack(header)
    if length > MAX_FRAME_BYTES:
        raise EngineError(f"a frame of {length} bytes was announced (limit {MAX_FRAME_BYTES})")
    return int(length)


def decode_to_engine(body: bytes) -> ToEngine:
    return _to_engine.decode(body)


def decode_from_engine(body: bytes) -> FromEngine:
    return _from_engine.decode(body)


def read_body(stream: BinaryIO) -> bytes | None:
    """The next frame's body from a blocking stream; None at its end."""
    header = stream.read(LENGTH_BYTES)
    if len(header) < LENGTH_BYTES:
        return None
    length = body_length(header)
    body = stream.read(length)
    return body if len(body) == length else None
