from hypothesis import given, settings
from hypothesis import strategies as st

from stream_server import protocol
from stream_server.outbox import Outbox


def partial(segment: int, revision: int = 1) -> protocol.Partial:
    return protocol.Partial(
        segment=segment,
        revision=revision,
        start=0,
        end=1,
        text="t",
        stable_text="",
        stable_end=0,
        language="en",
    )


def final(segment: int) -> protocol.Final:
    return protocol.Final(
        segment=segment,
        start=0,
        end=1,
        text="t",
        language="en",
        language_probability=1,
        confidence=1,
        no_speech_prob=0,
    )


def drained(outbox: Outbox) -> list[protocol.ServerMessage]:
    messages = []
    while (message := outbox.take()) is not None:
        messages.append(message)
    return messages


def unnumbered(messages: list[protocol.ServerMessage]) -> list[protocol.ServerMessage]:
    return [protocol.numbered(message, 0) for message in messages]


def test_only_the_newest_partial_waits_and_keeps_its_place() -> None:
    outbox = Outbox()
    for message in (partial(0, 1), protocol.SpeechStopped(at=1), partial(0, 2), partial(0, 3)):
        outbox.put(message)
    assert unnumbered(drained(outbox)) == [partial(0, 3), protocol.SpeechStopped(at=1)]


def test_a_final_takes_the_place_of_its_own_partial_only() -> None:
    outbox = Outbox()
    for message in (partial(0), partial(1), final(0)):
        outbox.put(message)
    assert unnumbered(drained(outbox)) == [partial(1), final(0)]


def test_only_the_newest_ack_waits() -> None:
    outbox = Outbox()
    for count in (16000, 32000, 48000):
        outbox.put(protocol.Ack(samples_received=count))
    assert len(outbox) == 1
    assert unnumbered(drained(outbox)) == [protocol.Ack(samples_received=48000)]


def test_an_empty_outbox_has_nothing_to_take() -> None:
    assert Outbox().take() is None


segments = st.integers(0, 4)
steps = st.lists(
    st.one_of(
        st.builds(partial, segments, st.integers(1, 99)),
        st.builds(final, segments),
        st.builds(lambda n: protocol.Ack(samples_received=n), st.integers(0, 99)),
        st.builds(lambda n: protocol.Flushed(id=n, at=0), st.integers(0, 99)),
        st.just("take"),
    ),
    max_size=60,
)


@settings(deadline=None, derandomize=True)
@given(steps)
def test_nothing_but_superseded_messages_is_lost_and_seq_has_no_gaps(
    script: list[protocol.ServerMessage | str],
) -> None:
    outbox = Outbox()
    put: list[protocol.ServerMessage] = []
    taken: list[protocol.ServerMessage] = []
    for step in script:
        if isinstance(step, str):
            message = outbox.take()
            taken += [] if message is None else [message]
        else:
            outbox.put(step)
            put.append(step)
    taken += drained(outbox)

    assert [message.seq for message in taken] == list(range(1, len(taken) + 1))
    kept = (protocol.Final, protocol.Flushed)
    assert [m for m in unnumbered(taken) if isinstance(m, kept)] == [
        m for m in put if isinstance(m, kept)
    ]
    acks = [m for m in put if isinstance(m, protocol.Ack)]
    assert [m for m in unnumbered(taken) if isinstance(m, protocol.Ack)][-1:] == acks[-1:]
    for segment in range(5):
        of_segment = [m for m in put if getattr(m, "segment", None) == segment]
        told = [m for m in unnumbered(taken) if getattr(m, "segment", None) == segment]
        assert told[-1:] == of_segment[-1:]
