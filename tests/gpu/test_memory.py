"""Memory: none is lost over thousands of utterances, and a step that does not fit is no end."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from engine.assembly import Engine
from engine.audio.units import MAX_WINDOW_POSITIONS, Samples
from engine.config import Attention
from engine.events import (
    AppendAudio,
    CancelUtterance,
    Command,
    EngineEvent,
    FinishUtterance,
    OpenUtterance,
    PauseUtterance,
    SegmentClosed,
    UtteranceFailed,
    UtteranceFinished,
    UtteranceId,
)
from engine.loop import Loop
from engine.runtime.device_runner import DeviceRunner
from engine.runtime.launched import Joined
from engine.scheduling.slots import SlotHandle
from engine.scheduling.steps import EncodeResult, EncodeRow, EncodeStep
from tests.gpu.building import EAGER, EMBEDDED, ON_GPU, TRIMMED, Audio, engine_on, runner_of
from tests.support.engines import Driver, babble, decode_together, tokens_of

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(240)]

UTTERANCES = 2_000
SETTLED = 200  # behind so many, every kind of step has been run
AT_ONCE = 40
SLACK = 1 << 20
PEAK_SLACK = 64 << 20


class Memory:
    """The allocator's figures in bytes."""

    def allocated(self) -> int:
        torch.cuda.synchronize()
        return torch.cuda.memory_allocated()

    def reserved(self) -> int:
        return torch.cuda.memory_reserved()

    def peak(self) -> int:
        return torch.cuda.max_memory_allocated()

    def peak_reserved(self) -> int:
        return torch.cuda.max_memory_reserved()

    def restart(self) -> None:
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()

    @contextmanager
    def at_most(self, num_bytes: int) -> Iterator[None]:
        """Reserve no more than `num_bytes`."""
        gc.collect()
        torch.cuda.empty_cache()
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(num_bytes / total)
        try:
            yield
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0)


MEMORY = Memory()


def chunks_of(number: int) -> list[Command]:
    """One utterance: audio in chunks, a pause in some, an end; every seventh is given up."""
    utterance_id = UtteranceId(number)
    options = replace(TRIMMED, interim_results=True, append_only=number % 2 == 0)
    audio = babble(0.5 + 0.1 * (number % 13), seed=number % SETTLED)
    commands: list[Command] = [OpenUtterance(utterance_id, Samples(0), options)]
    for at, chunk in enumerate(np.array_split(audio, 4)):
        commands.append(AppendAudio(utterance_id, chunk))
        if at == 2 and number % 3 == 0:
            commands.append(PauseUtterance(utterance_id))
    ends = CancelUtterance if number % 7 == 0 else FinishUtterance
    return [*commands, ends(utterance_id)]


def live(engine: Engine, numbers: range) -> list[EngineEvent]:
    """Utterances that come and go, AT_ONCE at a time, while steps of others are in flight."""
    events: list[EngineEvent] = []
    loop = Loop(engine, events.append)
    waiting = iter(numbers)
    open_: list[Iterator[Command]] = []
    busy = True
    while busy:
        while len(open_) < AT_ONCE and (number := next(waiting, None)) is not None:
            open_.append(iter(chunks_of(number)))
        for commands in list(open_):
            command = next(commands, None)
            if command is None:
                open_.remove(commands)
            else:
                loop.take([command])
            loop.run_step()
        busy = bool(open_)
    while loop.run_step():
        pass
    return events


def assert_all_ended(events: list[EngineEvent], numbers: range) -> None:
    assert not [event for event in events if isinstance(event, UtteranceFailed)]
    finished = {event.utterance_id for event in events if isinstance(event, UtteranceFinished)}
    assert finished == {number for number in numbers if number % 7}
    assert any(isinstance(event, SegmentClosed) and event.tokens for event in events)


def test_thousands_of_utterances_leave_no_memory_behind(device: torch.device) -> None:
    config = replace(ON_GPU, max_batch=32, num_slots=48, max_new_tokens=12, cuda_graphs="on")
    engine = engine_on(device, EMBEDDED, config, torch.float16)
    MEMORY.restart()
    first, rest = range(1, SETTLED + 1), range(SETTLED + 1, UTTERANCES + 1)
    assert_all_ended(live(engine, first), first)
    held, peak = MEMORY.allocated(), MEMORY.peak()
    assert_all_ended(live(engine, rest), rest)
    print(
        f"{', '.join(engine.metrics.steps)}; allocated after {SETTLED} and "
        f"{UTTERANCES} utterances: {held / 2**20:.1f} and {MEMORY.allocated() / 2**20:.1f} MiB, "
        f"at most {peak / 2**20:.1f} and {MEMORY.peak() / 2**20:.1f} MiB"
    )
    assert {"EncodeStep", "PrefillStep", "VerifyStep", "DecodeStep"} <= set(engine.metrics.steps)
    assert MEMORY.allocated() <= held + SLACK
    assert MEMORY.peak() <= peak + PEAK_SLACK
    assert engine.scheduler.num_utterances == 0
    engine.scheduler.check()


# A step that does not fit.

ROWS = 64


def encodes(generation: int, count: int = ROWS) -> EncodeStep:
    rows = tuple(
        EncodeRow(SlotHandle(index, generation), babble(1.0 + index / 40, seed=index))
        for index in range(count)
    )
    return EncodeStep(rows, MAX_WINDOW_POSITIONS)


def cross_keys(runner: DeviceRunner) -> Tensor:
    """What the last layer knows of the first positions of every slot."""
    return runner._caches.layers[-1].cross_attn.keys[:ROWS, :64].float().clone()


def peak_of(runner: DeviceRunner, step: EncodeStep) -> int:
    MEMORY.restart()
    runner.launch(step).result()
    MEMORY.allocated()  # the step is over
    return MEMORY.peak_reserved()


def scarce_engine(device: torch.device, attention: Attention) -> Engine:
    config = replace(EAGER, num_slots=ROWS, max_batch=ROWS, attention=attention)
    return engine_on(device, EMBEDDED, config)


def test_a_step_that_does_not_fit_is_done_in_halves(
    device: torch.device, speech: tuple[Audio, ...]
) -> None:
    engine = scarce_engine(device, "triton")
    runner = runner_of(engine)
    runner.launch(encodes(1)).result()  # kernels and workspaces
    half, whole = peak_of(runner, encodes(2, ROWS // 2)), peak_of(runner, encodes(3))
    known = cross_keys(runner)
    assert whole > half + (64 << 20)
    with MEMORY.at_most((half + whole) // 2):
        pending = runner.launch(encodes(4))
        assert isinstance(pending, Joined)
        assert pending.result() == EncodeResult(tuple(row.slot for row in encodes(4).rows))
        found = cross_keys(runner)
        finals = decode_together(engine, [speech[0]], TRIMMED)
    torch.testing.assert_close(found, known, rtol=1e-3, atol=1e-3)
    assert tokens_of(finals[0])


def test_a_step_that_does_not_fit_at_all_fails_alone(device: torch.device) -> None:
    """All scores of 30 s are more than what lies free between other tensors."""
    engine = scarce_engine(device, "eager")
    known = decode_together(engine, [babble(1.0, seed=1)], replace(TRIMMED, context="full"))
    driver = Driver(engine)
    options = replace(TRIMMED, context="full")
    gc.collect()
    torch.cuda.empty_cache()
    with MEMORY.at_most(MEMORY.reserved()):
        driver.send(
            OpenUtterance(UtteranceId(1), Samples(0), options),
            AppendAudio(UtteranceId(1), babble(1.0, seed=1)),
            FinishUtterance(UtteranceId(1)),
        )
    (failure,) = driver.events
    assert isinstance(failure, UtteranceFailed)
    assert "out of memory" in failure.message
    driver.send(
        OpenUtterance(UtteranceId(2), Samples(0), options),
        AppendAudio(UtteranceId(2), babble(1.0, seed=1)),
        FinishUtterance(UtteranceId(2)),
    )
    assert tokens_of(driver.closed(2)) == tokens_of(known[0])
    engine.scheduler.check()
