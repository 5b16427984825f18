import json
import re
import subprocess
import sys
from base64 import b64decode
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgpack
import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from stream_server import protocol
from stream_server.protocol import CODECS, JsonCodec, MsgpackCodec, ProtocolError

ROOT = Path(__file__).parents[2]
FIXTURES = sorted((ROOT / "tests/fixtures/protocol").glob("*.json"))
JSON = JsonCodec()
MSGPACK = MsgpackCodec()
CLIENT_TYPES = {"start", "audio", "flush", "keepalive", "stop", "resume"}

finite = st.floats(0, 1e6)
text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
counts = st.integers(0, 2**53)
flush_ids = st.none() | text | st.integers(-(2**53), 2**53)

client_messages: st.SearchStrategy[protocol.ClientMessage] = st.one_of(
    st.builds(
        protocol.Start,
        sample_rate=st.integers(8000, 48000),
        encoding=text,
        channels=st.integers(1, 2),
        language=st.none() | text,
        languages=st.none() | st.lists(text, max_size=4),
        task=text,
        prompt=text,
        interim_results=st.booleans(),
        append_only=st.booleans(),
        interim_interval_ms=st.integers(100, 5000),
        word_timestamps=st.booleans(),
        endpoint_silence_ms=st.integers(100, 5000),
        vad_threshold=st.floats(0, 1),
        max_segment_s=st.floats(2, 30),
    ),
    st.builds(protocol.Audio, pcm=st.binary(max_size=64)),
    st.builds(protocol.Flush, id=flush_ids),
    st.just(protocol.Keepalive()),
    st.just(protocol.Stop()),
    st.builds(protocol.Resume, session=text, token=text, last_seq=counts),
)
words = st.builds(protocol.Word, word=text, start=finite, end=finite, confidence=finite)
server_messages: st.SearchStrategy[protocol.ServerMessage] = st.one_of(
    st.builds(
        protocol.Ready, seq=counts, session=text, token=text, model=text, resume_window_s=finite
    ),
    st.builds(protocol.Resumed, seq=counts, session=text, samples_received=counts),
    st.builds(protocol.SpeechStarted, seq=counts, at=finite),
    st.builds(protocol.SpeechStopped, seq=counts, at=finite),
    st.builds(protocol.Ack, seq=counts, samples_received=counts),
    st.builds(
        protocol.Partial,
        seq=counts,
        segment=counts,
        revision=counts,
        start=finite,
        end=finite,
        text=text,
        stable_text=text,
        stable_end=finite,
        language=text,
    ),
    st.builds(
        protocol.Final,
        seq=counts,
        segment=counts,
        start=finite,
        end=finite,
        text=text,
        language=text,
        language_probability=finite,
        confidence=finite,
        no_speech_prob=finite,
        words=st.just(msgspec.UNSET) | st.lists(words, max_size=3),
    ),
    st.builds(protocol.Flushed, seq=counts, id=flush_ids, at=finite),
    st.builds(
        protocol.WarningMessage,
        seq=counts,
        code=st.just("lagging"),
        message=text,
        interim_interval_ms=counts,
    ),
    st.builds(
        protocol.ErrorMessage,
        seq=counts,
        code=st.sampled_from(["bad_message", "shutting_down"]),
        message=text,
        fatal=st.booleans(),
    ),
    st.builds(protocol.Done, seq=counts, audio_s=finite, segments=counts),
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)
almost_messages = st.builds(
    lambda kind, fields: {"type": kind, **fields},
    st.sampled_from(["start", "flush", "resume", "audio", "nothing"]),
    st.dictionaries(
        st.sampled_from(["sample_rate", "language", "languages", "id", "last_seq", "pcm", "x"]),
        json_values,
        max_size=4,
    ),
)


def outcome_of(codec: protocol.Codec, frame: Any) -> protocol.ClientMessage | ProtocolError:
    try:
        return codec.decode_client(frame)
    except ProtocolError as error:
        return error


@settings(deadline=None, derandomize=True)
@given(client_messages)
def test_a_client_message_survives_both_encodings(message: protocol.ClientMessage) -> None:
    for codec in CODECS.values():
        assert codec.decode_client(codec.encode(message)) == message


@settings(deadline=None, derandomize=True)
@given(server_messages)
def test_a_server_message_survives_both_encodings(message: protocol.ServerMessage) -> None:
    for codec in CODECS.values():
        assert codec.decode_server(codec.encode(message)) == message


@settings(deadline=None, derandomize=True)
@given(st.binary(max_size=80) | st.text(max_size=80))
@example(b"\x91" * 5000)
@example(b"\xd6\xff\x00\x00\x00\x00")
@example("[" * 100_000)
def test_junk_raises_nothing_but_protocol_error(frame: str | bytes) -> None:
    for codec in CODECS.values():
        outcome = outcome_of(codec, frame)
        if isinstance(outcome, ProtocolError):
            assert str(outcome)
            assert outcome.close_code in (1007, 1008)
        else:
            assert isinstance(outcome, protocol.Audio)


@settings(deadline=None, derandomize=True)
@given(almost_messages | json_values)
def test_wrong_fields_raise_nothing_but_protocol_error(value: Any) -> None:
    frames: list[tuple[JsonCodec | MsgpackCodec, Any]] = [
        (JSON, json.dumps(value, default=lambda raw: raw.hex()))
    ]
    with suppress(OverflowError, ValueError):  # MessagePack has no such integer or string
        frames.append((MSGPACK, msgpack.packb(value)))
    for codec, frame in frames:
        outcome = outcome_of(codec, frame)
        if isinstance(outcome, ProtocolError):
            assert outcome.close_code in (1007, 1008)
        else:
            assert codec.decode_client(codec.encode(outcome)) == outcome


@pytest.mark.parametrize(
    ("frame", "sentence"),
    [
        (
            '{"type": "start", "sample_rate": 96000}',
            "start.sample_rate: got 96000, takes an integer from 8000 to 48000",
        ),
        (
            '{"type": "start", "channels": true}',
            "start.channels: got true, takes an integer from 1 to 2",
        ),
        (
            '{"type": "start", "language": 5}',
            "start.language: got 5, takes a string, or null",
        ),
        (
            '{"type": "start", "interim_results": null}',
            "start.interim_results: got null, takes true or false",
        ),
        (
            '{"type": "start", "vad_threshold": 1e999}',
            "start.vad_threshold: got inf, takes a number from 0 to 1",
        ),
        (
            '{"type": "resume", "session": "a", "token": "b"}',
            "resume.last_seq: got nothing, takes an integer from 0 to 9007199254740992",
        ),
        (
            '{"type": "begin"}',
            "type: got 'begin', takes one of flush, keepalive, resume, start, stop",
        ),
        ('{"sample_rate": 16000}', "type: got null, takes one of flush, keepalive, resume, "),
        ("[]", "a message is an object with a type, got []"),
        ('{"type": "stop", "type": "start"}', "'type' is given more than once"),
        ('{"type": "stop", "x": {"y": 1, "y": 2}}', "'y' is given more than once"),
    ],
)
def test_a_wrong_field_is_named_with_what_it_got_and_takes(frame: str, sentence: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        JSON.decode_client(frame)
    assert sentence in str(caught.value)
    assert caught.value.close_code == 1008


@pytest.mark.parametrize(
    "frame",
    [
        "",
        "{",
        "start",
        '{"type": "start", "vad_threshold": NaN}',
        '{"type": "start", "vad_threshold": Infinity}',
        '{"type": "start", "sample_rate": ' + "9" * 5000 + "}",
        '{"type": "start", "x": ' + "[" * 5000 + "]" * 5000 + "}",
        '{"type": "flush", "id": "\\ud800"}',
    ],
)
def test_bytes_that_are_not_json_close_with_1007(frame: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        JSON.decode_client(frame)
    assert caught.value.close_code == 1007


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"\xc1",
        b"\x80\x80",
        b"\x81\xa4type",
        b"\x81\xa1\xff\x01",  # a key that is not UTF-8
        b"\x81\x01\x01",  # a key that is not a string
        b"\x91" * 5000,
    ],
)
def test_bytes_that_are_not_messagepack_close_with_1007(frame: bytes) -> None:
    with pytest.raises(ProtocolError) as caught:
        MSGPACK.decode_client(frame)
    assert caught.value.close_code == 1007


def test_not_a_number_is_refused_in_messagepack_too() -> None:
    frame = msgpack.packb({"type": "start", "vad_threshold": float("nan")})
    with pytest.raises(ProtocolError, match=r"vad_threshold: got nan"):
        MSGPACK.decode_client(frame)


def test_a_key_given_twice_is_refused_in_messagepack_too() -> None:
    with pytest.raises(ProtocolError, match="'type' is given more than once"):
        MSGPACK.decode_client(b"\x82\xa4type\xa4stop\xa4type\xa5start")


def test_messagepack_takes_no_text_frames() -> None:
    with pytest.raises(ProtocolError, match="takes binary frames only"):
        MSGPACK.decode_client('{"type": "stop"}')


def test_messagepack_takes_no_string_for_audio() -> None:
    with pytest.raises(ProtocolError, match=r"audio.pcm: got 'AAAA', takes binary"):
        MSGPACK.decode_client(msgpack.packb({"type": "audio", "pcm": "AAAA"}))


def test_a_binary_frame_is_audio_with_json_and_an_audio_message_is_not() -> None:
    assert JSON.decode_client(b'{"type": "stop"}') == protocol.Audio(pcm=b'{"type": "stop"}')
    with pytest.raises(ProtocolError, match="type: got 'audio'"):
        JSON.decode_client('{"type": "audio", "pcm": ""}')


def test_a_server_sends_no_binary_frame_with_json() -> None:
    with pytest.raises(ProtocolError, match="got binary"):
        JSON.decode_server(b"{}")


@pytest.mark.parametrize(
    ("frame", "sentence"),
    [
        (
            '{"type": "warning", "code": "slow", "message": "", "interim_interval_ms": 1}',
            "warning.code: got 'slow', takes one of lagging",
        ),
        (
            '{"type": "done", "audio_s": "1", "segments": 0}',
            "done.audio_s: got '1', takes a number",
        ),
        ('{"type": "done", "audio_s": 1}', "done.segments: got nothing, takes an integer"),
    ],
)
def test_a_client_names_what_a_server_got_wrong(frame: str, sentence: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        JSON.decode_server(frame)
    assert str(caught.value) == sentence


def test_unknown_fields_are_ignored() -> None:
    assert JSON.decode_client('{"type": "stop", "colour": [1, {"a": 2}]}') == protocol.Stop()
    assert isinstance(
        JSON.decode_server('{"type": "done", "audio_s": 1, "segments": 0, "x": 1}'), protocol.Done
    )


def test_a_long_value_is_shown_shortened() -> None:
    with pytest.raises(ProtocolError) as caught:
        JSON.decode_client(json.dumps({"type": "x" * 10_000}))
    assert len(str(caught.value)) < 200


def test_a_message_is_numbered_on_its_way_out() -> None:
    assert protocol.numbered(protocol.Done(audio_s=1, segments=2), 7) == protocol.Done(
        seq=7, audio_s=1, segments=2
    )


@pytest.mark.parametrize("path", FIXTURES, ids=lambda path: path.stem)
def test_a_golden_message_reads_and_writes_the_same(path: Path) -> None:
    golden = json.loads(path.read_text())
    assert golden["type"] == path.stem
    if path.stem == "audio":
        golden["pcm"] = b64decode(golden["pcm"])
    packed = msgpack.packb(golden)
    message: Any
    if path.stem in CLIENT_TYPES:
        message = MSGPACK.decode_client(packed)
        if path.stem != "audio":
            assert JSON.decode_client(path.read_text()) == message
    else:
        message = MSGPACK.decode_server(packed)
        assert JSON.decode_server(path.read_text()) == message
        assert json.loads(JSON.encode(message)) == golden
    assert msgpack.unpackb(MSGPACK.encode(message)) == golden


def test_every_message_type_has_a_golden_message() -> None:
    kinds = [*protocol.ClientMessage.__args__, *protocol.ServerMessage.__args__]
    tags = {kind.__struct_config__.tag for kind in kinds}
    assert tags == {path.stem for path in FIXTURES}


def test_the_document_quotes_exactly_the_golden_messages() -> None:
    document = (ROOT / "docs/protocol.md").read_text()
    quoted = sorted(re.findall(r"```json\n(.*?)```", document, re.DOTALL))
    assert quoted == sorted(path.read_text() for path in FIXTURES)


def test_the_document_states_the_defaults_of_start() -> None:
    document = (ROOT / "docs/protocol.md").read_text()
    stated = dict(re.findall(r"^\| `(\w+)` \| ([^|]+) \| [^|]*\| [^|]+\|$", document, re.MULTILINE))
    for name, value in msgspec.to_builtins(protocol.Start()).items():
        if name != "type":
            assert stated[name].strip("`") == (
                value if value and isinstance(value, str) else json.dumps(value)
            ), name


def test_importing_the_protocol_loads_nothing_heavy() -> None:
    heavy = ("numpy", "torch", "websockets", "engine", "starlette")
    code = f"import sys, stream_server.protocol; print([m for m in {heavy} if m in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=True)
    assert loaded.stdout.decode().strip() == "[]"
