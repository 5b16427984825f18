"""web_demo/protocol.js against stream_server/protocol.py: one wire, written down twice."""

import json
from typing import Any

import msgspec
import pytest
from msgspec import NODEFAULT
from msgspec import inspect as msgspec_inspect

from stream_server import protocol
from stream_server.protocol import JsonCodec, ProtocolError
from tests.support.node import run_module

JSON = JsonCodec()

# Answers with the outcome of `decode` or `encode` for each thing given: what it returned, or the
# sentence of its ProtocolError.
OUTCOMES = """
import { decode, encode, ProtocolError } from "./web_demo/protocol.js";
const outcome = (act, one) => {
  try {
    return { returned: act(one) };
  } catch (error) {
    if (!(error instanceof ProtocolError)) throw error;
    return { refused: error.message };
  }
};
answer(given.map((one) => outcome(ACT, one)));
"""

SERVER_MESSAGES: list[protocol.ServerMessage] = [
    protocol.Ready(seq=1, session="s", token="", model="base", resume_window_s=0.0),
    protocol.Resumed(seq=2**53, session='"\\\n\u2028', samples_received=2**53),
    protocol.SpeechStarted(seq=3, at=0.1 + 0.2),
    protocol.SpeechStopped(seq=4, at=5e-324),
    protocol.Ack(samples_received=0),
    protocol.Partial(
        seq=5,
        segment=0,
        revision=1,
        start=1 / 3,
        end=86_400.000_062_5,
        text="Grüße 😀 \x00\x7f\ufeff",
        stable_text="",
        stable_end=1.7976931348623157e308,
        language="zh",
    ),
    protocol.Final(
        seq=6,
        segment=2**31,
        start=-0.0,
        end=1e-7,
        text="</script><img src=x>",
        language="en",
        language_probability=1.0,
        confidence=0.1,
        no_speech_prob=1e22,
        words=[
            protocol.Word(word="日本", start=0.5, end=1, confidence=0.25),
            protocol.Word(word="", start=0, end=0, confidence=0),
        ],
    ),
    protocol.Final(
        segment=0,
        start=0,
        end=1,
        text="",
        language="",
        language_probability=0,
        confidence=0,
        no_speech_prob=0,
        words=[],
    ),
    protocol.Final(
        segment=0,
        start=0,
        end=1,
        text="",
        language="",
        language_probability=0,
        confidence=0,
        no_speech_prob=0,
    ),
    protocol.Flushed(id=None, at=1.0),
    protocol.Flushed(id="", at=1.0),
    protocol.Flushed(id="😀" * 256, at=1.0),
    protocol.Flushed(id=-(2**53), at=1.0),
    protocol.WarningMessage(code="lagging", message="“slow”", interim_interval_ms=800),
    protocol.ErrorMessage(code="engine_failure", message="no", fatal=False),
    protocol.Done(audio_s=3600.5, segments=12),
]

CLIENT_MESSAGES: list[protocol.ControlMessage] = [
    protocol.Start(),
    protocol.Start(
        sample_rate=48_000,
        encoding="mulaw",
        channels=2,
        language="de",
        languages=["de", "en"],
        task="translate",
        prompt='Grüße 😀 "\\\n\u2028\x00',
        interim_results=False,
        append_only=False,
        interim_interval_ms=100,
        word_timestamps=True,
        endpoint_silence_ms=5000,
        vad_threshold=0.1 + 0.2,
        max_segment_s=2,
    ),
    protocol.Start(languages=[], vad_threshold=1, max_segment_s=30),
    protocol.Flush(),
    protocol.Flush(id="😀" * 256),
    protocol.Flush(id=2**53),
    protocol.Keepalive(),
    protocol.Stop(),
    protocol.Resume(session="s", token="t", last_seq=2**53),
]

# Refused on both sides, and in the same words.
BAD_CLIENT_MESSAGES: list[Any] = [
    {"type": "start", "sample_rate": 96000},
    {"type": "start", "sample_rate": "16000"},
    {"type": "start", "channels": True},
    {"type": "start", "channels": 0},
    {"type": "start", "language": 5},
    {"type": "start", "languages": "en"},
    {"type": "start", "task": None},
    {"type": "start", "prompt": False},
    {"type": "start", "interim_results": None},
    {"type": "start", "interim_interval_ms": 99},
    {"type": "start", "endpoint_silence_ms": 5001},
    {"type": "start", "vad_threshold": 1.001},
    {"type": "start", "max_segment_s": 1.5},
    {"type": "flush", "id": 1.5},
    {"type": "flush", "id": True},
    {"type": "flush", "id": "x" * 257},
    {"type": "resume", "session": "a", "token": "b"},
    {"type": "resume", "session": "a", "token": "b", "last_seq": -1},
    {"type": "begin"},
    {"type": "audio"},
    {"type": None},
    {},
    None,
    5,
    "stop",
]
BAD_SERVER_MESSAGES: list[Any] = [
    {"type": "done", "audio_s": "1", "segments": 0},
    {"type": "done", "audio_s": 1},
    {"type": "done", "audio_s": None, "segments": 0},
    {"type": "ack", "seq": "one", "samples_received": 1},
    {"type": "ack", "samples_received": 1.5},
    {"type": "warning", "code": "slow", "message": "", "interim_interval_ms": 1},
    {"type": "error", "code": "oops", "message": ""},
    {"type": "error", "code": "bad_message", "message": 7},
    {"type": "error", "code": "bad_message", "message": "", "fatal": 1},
    {"type": "flushed", "id": False, "at": 1},
    {"type": "speech_started"},
    {"type": "start"},
    None,
]


def outcomes(act: str, given: list[Any]) -> list[dict[str, Any]]:
    answered: list[dict[str, Any]] = run_module(OUTCOMES.replace("ACT", act), given)
    assert len(answered) == len(given) > 0
    return answered


def described(kind: msgspec_inspect.Type) -> dict[str, Any]:
    """A type as protocol.js writes it."""
    match kind:
        case msgspec_inspect.IntType(ge=low, le=high):
            return {"kind": "integer", **given(min=low, max=high)}
        case msgspec_inspect.FloatType(ge=low, le=high):
            return {"kind": "number", **given(min=low, max=high)}
        case msgspec_inspect.StrType(max_length=limit):
            return {"kind": "string", **given(maxLength=limit)}
        case msgspec_inspect.LiteralType(values=values):
            return {"kind": "string", "choices": sorted(map(str, values))}
        case msgspec_inspect.BoolType():
            return {"kind": "boolean"}
        case msgspec_inspect.ListType(item_type=item, max_length=limit):
            return {"kind": "list", "item": described(item), **given(maxLength=limit)}
        case msgspec_inspect.StructType():
            return {"kind": "object", "fields": table(kind)}
        case msgspec_inspect.UnionType(types=kinds):
            fields = [
                described(one) for one in kinds if not isinstance(one, msgspec_inspect.NoneType)
            ]
            either = fields[0] if len(fields) == 1 else {"kind": "either", "of": fields}
            return {**either, "nullable": True} if len(fields) < len(kinds) else either
        case _:
            raise AssertionError(f"protocol.js has no word for {kind}")


def given(**bounds: float | None) -> dict[str, float]:
    return {name: bound for name, bound in bounds.items() if bound is not None}


def table(struct: msgspec_inspect.StructType) -> dict[str, Any]:
    """What the fields of a message take, as protocol.js writes it."""
    fields = {}
    for field in struct.fields:
        takes = described(field.type)
        if field.default is not NODEFAULT:
            takes["default"] = field.default
        elif not field.required:
            takes["optional"] = True
        fields[field.encode_name] = takes
    return fields


def tables(union: Any) -> dict[str, Any]:
    info = msgspec_inspect.type_info(union)
    assert isinstance(info, msgspec_inspect.UnionType)
    structs = [one for one in info.types if isinstance(one, msgspec_inspect.StructType)]
    return {str(struct.tag): table(struct) for struct in structs}


def sorted_choices(value: Any) -> Any:
    """The same tree with `choices` in order: theirs is nobody's business."""
    if isinstance(value, dict):
        return {
            key: sorted(inner) if key == "choices" else sorted_choices(inner)
            for key, inner in value.items()
        }
    return value


def refusal(frame: str, *, by_client: bool) -> str:
    with pytest.raises(ProtocolError) as caught:
        JSON.decode_client(frame) if by_client else JSON.decode_server(frame)
    return str(caught.value)


def test_both_have_the_same_messages_with_the_same_fields_ranges_and_defaults() -> None:
    answered = run_module(
        'import * as wire from "./web_demo/protocol.js";'
        "answer([wire.START_FIELDS, wire.CLIENT_MESSAGES, wire.SERVER_MESSAGES]);"
    )
    start, client, server = map(sorted_choices, answered)
    assert client == tables(protocol.ControlMessage)
    assert server == tables(protocol.ServerMessage)
    assert start == client["start"]


def test_both_connect_alike() -> None:
    assert run_module(
        'import * as wire from "./web_demo/protocol.js";'
        "answer([wire.STREAM_PATH, wire.JSON_SUBPROTOCOL, wire.BEARER_PREFIX, wire.MAX_CHUNK_S,"
        ' wire.subprotocols("a-key")]);'
    ) == [
        protocol.STREAM_PATH,
        protocol.JSON_SUBPROTOCOL,
        protocol.BEARER_PREFIX,
        protocol.MAX_CHUNK_S,
        [protocol.JSON_SUBPROTOCOL, f"{protocol.BEARER_PREFIX}a-key"],
    ]


def test_what_a_server_writes_a_page_reads() -> None:
    frames = [JSON.encode(message) for message in SERVER_MESSAGES]
    read = [outcome["returned"] for outcome in outcomes("decode", frames)]
    assert read == [msgspec.to_builtins(message) for message in SERVER_MESSAGES]


def test_what_a_page_writes_a_server_reads() -> None:
    plain = [msgspec.to_builtins(message) for message in CLIENT_MESSAGES]
    written = [outcome["returned"] for outcome in outcomes("encode", plain)]
    assert [JSON.decode_client(frame) for frame in written] == CLIENT_MESSAGES


def test_what_a_server_would_refuse_a_page_does_not_write_and_says_so_alike() -> None:
    refused = [outcome["refused"] for outcome in outcomes("encode", BAD_CLIENT_MESSAGES)]
    frames = [json.dumps(message) for message in BAD_CLIENT_MESSAGES]
    assert [said.partition("…")[0] for said in refused] == [
        refusal(frame, by_client=True).partition("…")[0] for frame in frames
    ]


def test_what_a_client_in_python_would_refuse_a_page_refuses_alike() -> None:
    frames = [json.dumps(message) for message in BAD_SERVER_MESSAGES]
    refused = [outcome["refused"] for outcome in outcomes("decode", frames)]
    assert refused == [refusal(frame, by_client=False) for frame in frames]


def test_what_only_some_readers_of_json_would_let_through_is_refused_in_both() -> None:
    frames = [
        '{"type": "done", "audio_s": 1e999, "segments": 0}',
        '{"type": "done", "audio_s": NaN, "segments": 0}',
        '{"type": "error", "code": "bad_message", "message": "\\ud800"}',
        '{"type": "ack", "samples_received": 1,}',
        "",
    ]
    refused = [outcome.get("refused") for outcome in outcomes("decode", frames)]
    assert all(refused)
    assert all(refusal(frame, by_client=False) for frame in frames)
