"""The wire, version 1: every message, both encodings of it, and the close codes.

Decides what a well-formed message is and what its bytes are; leaves the order of messages to
`session`. Times are seconds of session audio, the only place where seconds appear. Imports
nothing of this project, so that clients can use it alone. What cannot be read raises
`ProtocolError` and nothing else. docs/protocol.md describes the wire in prose.
"""

import json
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar, cast

import msgpack
import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType
from msgspec import inspect as msgspec_inspect

STREAM_PATH = "/v1/stream"
DEFAULT_PORT = 8765
JSON_SUBPROTOCOL = "asr.json.v1"
MSGPACK_SUBPROTOCOL = "asr.msgpack.v1"
BEARER_PREFIX = "bearer."  # a browser cannot set headers on a websocket

MIN_SAMPLE_RATE = 8_000
MAX_SAMPLE_RATE = 48_000
MAX_CHUNK_S = 1  # longest audio message; what a client sends late it sends in pieces
MAX_CHUNK_BYTES = MAX_CHUNK_S * MAX_SAMPLE_RATE * 2 * 4  # stereo float32

CLOSE_DONE = 1000
CLOSE_UNDECODABLE = 1007
CLOSE_POLICY = 1008
CLOSE_TOO_LARGE = 1009
CLOSE_FAILURE = 1011
CLOSE_RESTART = 1012

ErrorCode = Literal[
    "bad_message",
    "unsupported",
    "not_started",
    "already_started",
    "message_too_large",
    "idle_timeout",
    "unknown_session",
    "engine_failure",
    "shutting_down",
]

# An id is echoed, never interpreted. Integers keep to what a JavaScript number holds exactly.
FlushId = Annotated[str, Meta(max_length=256)] | Annotated[int, Meta(ge=-(2**53), le=2**53)] | None


# --- client to server -------------------------------------------------------------------------


class Start(Struct, tag_field="type", tag="start", frozen=True, kw_only=True):
    """Opens the session.

    `encoding`, `language`, `languages` and `task` are plain strings here: whether this server
    and model have them is `unsupported` rather than `bad_message`, and the session's decision.
    """

    sample_rate: Annotated[int, Meta(ge=MIN_SAMPLE_RATE, le=MAX_SAMPLE_RATE)] = 16_000
    encoding: str = "pcm_s16le"
    channels: Annotated[int, Meta(ge=1, le=2)] = 1
    language: str | None = None
    languages: Annotated[list[str], Meta(max_length=200)] | None = None
    task: str = "transcribe"
    prompt: str = ""
    interim_results: bool = True
    append_only: bool = True
    interim_interval_ms: Annotated[int, Meta(ge=100, le=5000)] = 400
    word_timestamps: bool = False
    endpoint_silence_ms: Annotated[int, Meta(ge=100, le=5000)] = 500
    vad_threshold: Annotated[float, Meta(ge=0, le=1)] = 0.5
    max_segment_s: Annotated[float, Meta(ge=2, le=30)] = 28


class Audio(Struct, tag_field="type", tag="audio", frozen=True, kw_only=True):
    """PCM bytes. A message of its own in MessagePack; the whole binary frame with JSON."""

    pcm: bytes


class Flush(Struct, tag_field="type", tag="flush", frozen=True, kw_only=True):
    """Finalise what has been heard so far, then go on."""

    id: FlushId = None


class Keepalive(Struct, tag_field="type", tag="keepalive", frozen=True, kw_only=True):
    """Resets the idle timer while no audio flows."""


class Stop(Struct, tag_field="type", tag="stop", frozen=True, kw_only=True):
    """No more audio."""


class Resume(Struct, tag_field="type", tag="resume", frozen=True, kw_only=True):
    """Goes on with a session whose connection dropped."""

    session: str
    token: str
    last_seq: Annotated[int, Meta(ge=0, le=2**53)]


ControlMessage = Start | Flush | Keepalive | Stop | Resume
ClientMessage = ControlMessage | Audio


# --- server to client -------------------------------------------------------------------------


class _Numbered(Struct, tag_field="type", frozen=True, kw_only=True):
    """`seq` is 0 until the outbox hands the message out."""

    seq: int = 0


class Ready(_Numbered, tag="ready", frozen=True, kw_only=True):
    """The session is open."""

    session: str
    token: str
    model: str
    resume_window_s: float


class Resumed(_Numbered, tag="resumed", frozen=True, kw_only=True):
    """The client sends again from `samples_received` of its own stream; missed messages follow."""

    session: str
    samples_received: int


class SpeechStarted(_Numbered, tag="speech_started", frozen=True, kw_only=True):
    """Somebody began to speak at `at`."""

    at: float


class SpeechStopped(_Numbered, tag="speech_stopped", frozen=True, kw_only=True):
    """Speech ended at `at`, known once the endpoint silence had passed."""

    at: float


class Ack(_Numbered, tag="ack", frozen=True, kw_only=True):
    """The client may forget what it sent before that sample of its own stream."""

    samples_received: int


class Partial(_Numbered, tag="partial", frozen=True, kw_only=True):
    """The hypothesis so far: `text` begins with `stable_text`, which only ever grows."""

    segment: int
    revision: int
    start: float
    end: float
    text: str
    stable_text: str
    stable_end: float
    language: str


class Word(Struct, frozen=True, kw_only=True):
    """One word of a final, with its times."""

    word: str
    start: float
    end: float
    confidence: float


class Final(_Numbered, tag="final", frozen=True, kw_only=True):
    """The segment is closed and never changes. `words` only where they were asked for."""

    segment: int
    start: float
    end: float
    text: str
    language: str
    language_probability: float
    confidence: float
    no_speech_prob: float
    words: list[Word] | UnsetType = UNSET


class Flushed(_Numbered, tag="flushed", frozen=True, kw_only=True):
    """Every final of audio before that `flush` was sent; the audio ended at `at`."""

    id: FlushId = None
    at: float


class WarningMessage(_Numbered, tag="warning", frozen=True, kw_only=True):
    """The session goes on, but not as asked."""

    code: Literal["lagging"]
    message: str
    interim_interval_ms: int


class ErrorMessage(_Numbered, tag="error", frozen=True, kw_only=True):
    """What went wrong, in one sentence; `fatal` announces the close."""

    code: ErrorCode
    message: str
    fatal: bool = True


class Done(_Numbered, tag="done", frozen=True, kw_only=True):
    """Everything was delivered."""

    audio_s: float
    segments: int


ServerMessage = (
    Ready
    | Resumed
    | SpeechStarted
    | SpeechStopped
    | Ack
    | Partial
    | Final
    | Flushed
    | WarningMessage
    | ErrorMessage
    | Done
)
ServerMessageT = TypeVar("ServerMessageT", bound=_Numbered)


def numbered(message: ServerMessageT, seq: int) -> ServerMessageT:
    """The same message as number `seq` of its session."""
    return msgspec.structs.replace(message, seq=seq)


# --- reading and writing ----------------------------------------------------------------------


class ProtocolError(Exception):
    """A frame that is not a message; `close_code` tells wrong bytes from wrong fields."""

    def __init__(self, sentence: str, close_code: int = CLOSE_POLICY) -> None:
        super().__init__(sentence)
        self.close_code = close_code


class JsonCodec:
    """`asr.json.v1`: control messages are JSON text frames, a binary frame is audio."""

    subprotocol = JSON_SUBPROTOCOL

    def encode(self, message: ClientMessage | ServerMessage) -> str | bytes:
        """A frame: text, or bytes for audio."""
        if isinstance(message, Audio):
            return message.pcm
        return _json_encoder.encode(message).decode()

    def decode_client(self, frame: str | bytes) -> ClientMessage:
        """Raises ProtocolError."""
        if isinstance(frame, bytes):
            return Audio(pcm=frame)
        return cast(ControlMessage, _from_json(frame, _CONTROL))

    def decode_server(self, frame: str | bytes) -> ServerMessage:
        """Raises ProtocolError."""
        if isinstance(frame, bytes):
            raise ProtocolError(f"a server sends text frames with {self.subprotocol}, got binary")
        return cast(ServerMessage, _from_json(frame, _SERVER))


class MsgpackCodec:
    """`asr.msgpack.v1`: every message, audio too, is a MessagePack map in a binary frame."""

    subprotocol = MSGPACK_SUBPROTOCOL

    def encode(self, message: ClientMessage | ServerMessage) -> bytes:
        """A binary frame."""
        return _msgpack_encoder.encode(message)

    def decode_client(self, frame: str | bytes) -> ClientMessage:
        """Raises ProtocolError."""
        return cast(ClientMessage, _from_msgpack(frame, _CLIENT))

    def decode_server(self, frame: str | bytes) -> ServerMessage:
        """Raises ProtocolError."""
        return cast(ServerMessage, _from_msgpack(frame, _SERVER))


Codec = JsonCodec | MsgpackCodec
# The first is what a client speaks that offers no subprotocol.
CODECS: Mapping[str, Codec] = {
    JSON_SUBPROTOCOL: JsonCodec(),
    MSGPACK_SUBPROTOCOL: MsgpackCodec(),
}

_json_encoder = msgspec.json.Encoder()
_msgpack_encoder = msgspec.msgpack.Encoder()


class _Shape:
    """A union of messages: its decoders, and the field types that a refusal has to describe."""

    def __init__(self, union: Any) -> None:
        self.json: msgspec.json.Decoder[Any] = msgspec.json.Decoder(union)
        self.msgpack: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(union)
        info = cast(msgspec_inspect.UnionType, msgspec_inspect.type_info(union))
        self.fields: dict[Any, dict[str, msgspec_inspect.Type]] = {
            struct.tag: {field.encode_name: field.type for field in struct.fields}
            for struct in info.types
            if isinstance(struct, msgspec_inspect.StructType)
        }


_CONTROL = _Shape(ControlMessage)
_CLIENT = _Shape(ClientMessage)
_SERVER = _Shape(ServerMessage)

# Every frame is read twice: into plain values, which finds a key given twice and is what a
# refusal quotes from, and into its message. Together 1 µs for audio; converting the plain values
# into a message instead costs 6.


def _from_json(text: str, shape: _Shape) -> Any:
    try:
        plain = json.loads(text, object_pairs_hook=_object)
        return shape.json.decode(text)
    except msgspec.ValidationError as exc:
        raise ProtocolError(_refusal(str(exc), plain, shape)) from exc
    except (ValueError, RecursionError) as exc:  # msgspec.DecodeError is a ValueError
        raise ProtocolError(f"the frame is not JSON: {exc}", CLOSE_UNDECODABLE) from exc


def _from_msgpack(frame: str | bytes, shape: _Shape) -> Any:
    if isinstance(frame, str):
        raise ProtocolError(f"got a text frame; {MSGPACK_SUBPROTOCOL} takes binary frames only")
    try:
        plain = msgpack.unpackb(frame, object_pairs_hook=_object)
        return shape.msgpack.decode(frame)
    except msgspec.ValidationError as exc:
        raise ProtocolError(_refusal(str(exc), plain, shape)) from exc
    except (ValueError, RecursionError) as exc:  # msgspec.DecodeError is a ValueError
        what = str(exc) or type(exc).__name__
        raise ProtocolError(f"the frame is not MessagePack: {what}", CLOSE_UNDECODABLE) from exc


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        # Readers differ in which of the two they believe, so neither is believed.
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ProtocolError(f"{_shown(twice)} is given more than once in one object")
    return fields


def _refusal(reason: str, parsed: Any, shape: _Shape) -> str:
    """Names the field, what it got and what it takes."""
    types = ", ".join(sorted(shape.fields))
    if not isinstance(parsed, dict):
        return f"a message is an object with a type, got {_shown(parsed)}"
    tag = parsed.get("type")
    if not isinstance(tag, str) or tag not in shape.fields:
        return f"type: got {_shown(tag)}, takes one of {types}"
    fields = shape.fields[tag]
    named = _FIELD_IN_REASON.search(reason)
    if named is None or named[1] not in fields:
        return f"{tag}: {reason}"
    name = named[1]
    got = _shown(parsed[name]) if name in parsed else "nothing"
    return f"{tag}.{name}: got {got}, takes {_accepted(fields[name])}"


_FIELD_IN_REASON = re.compile(r"(?:`\$\.|required field `)(\w+)")  # msgspec's own two phrasings
_MAX_SHOWN_CHARS = 60


def _shown(value: Any) -> str:
    text = json.dumps(value) if value is None or isinstance(value, bool) else repr(value)
    return text if len(text) <= _MAX_SHOWN_CHARS else f"{text[:_MAX_SHOWN_CHARS]}…"


def _accepted(kind: msgspec_inspect.Type) -> str:
    """What a field takes, in words."""
    match kind:
        case msgspec_inspect.IntType(ge=low, le=high):
            return f"an integer{_range(low, high)}"
        case msgspec_inspect.FloatType(ge=low, le=high):
            return f"a number{_range(low, high)}"
        case msgspec_inspect.StrType(max_length=limit):
            return "a string" if limit is None else f"a string of at most {limit} characters"
        case msgspec_inspect.BoolType():
            return "true or false"
        case msgspec_inspect.NoneType():
            return "null"
        case msgspec_inspect.BytesType():
            return "binary"
        case msgspec_inspect.ListType(item_type=item, max_length=limit):
            most = "" if limit is None else f" of at most {limit}"
            return f"a list{most}, each {_accepted(item)}"
        case msgspec_inspect.UnionType(types=kinds):
            return ", or ".join(_accepted(one) for one in kinds)
        case msgspec_inspect.LiteralType(values=values):
            return "one of " + ", ".join(str(value) for value in values)
        case _:
            return "another value"


def _range(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f" from {low} to {high}"
