"""The runner of a GPU, on a processor: the same tokens as the other one, whatever the batch.

The other one's tokens are `transformers`' (test_runner.py).
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from math import inf
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from engine.assembly import Engine
from engine.audio.units import MAX_WINDOW_SAMPLES, SAMPLE_RATE, Positions, Samples
from engine.bench.direct import record_eagerly
from engine.config import EngineConfig, QualityThresholds
from engine.events import (
    AppendAudio,
    FinishUtterance,
    HypothesisUpdated,
    OpenUtterance,
    SegmentClosed,
    UtteranceFailed,
    UtteranceId,
    UtteranceOptions,
)
from engine.runtime.buckets import DecodeShape, EncodeShape, FeedShape, Shape
from engine.runtime.device_runner import DeviceRunner
from engine.runtime.graphs import GraphRunner, Program
from engine.runtime.pending import StepRunner
from engine.scheduling.slots import SlotHandle
from engine.scheduling.steps import (
    DecodeStep,
    EncodeRow,
    EncodeStep,
    ExtendRow,
    ExtendStep,
    PrefillRow,
    PrefillStep,
    Sampling,
    Step,
    TokenRow,
    TokensResult,
    VerifyRow,
    VerifyStep,
)
from tests.support.checkpoints import make_checkpoint
from tests.support.device_engines import device_engine
from tests.support.engines import (
    GREEDY,
    Audio,
    Driver,
    babble,
    decode_together,
    load_engine,
    tokens_of,
)

SECONDS = (2.0, 7.5, 1.3, 9.0)
OPTIONS = UtteranceOptions(
    language="en",
    context="full",
    interim_results=False,
    append_only=False,
    max_segment=MAX_WINDOW_SAMPLES,
)
REQUESTS = {
    "plain": OPTIONS,
    "timestamps, prompt": replace(OPTIONS, timestamps=True, prompt="What did you say?"),
    "trimmed": replace(OPTIONS, context="trimmed"),
    "translate": replace(OPTIONS, language="de", task="translate"),
    "language open": replace(OPTIONS, language=None),
    "words": replace(OPTIONS, word_timestamps=True),
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("device") / "base", "base")


@lru_cache
def audios() -> tuple[Audio, ...]:
    return tuple(babble(seconds, seed=seed) for seed, seconds in enumerate(SECONDS))


@pytest.mark.parametrize("request_", list(REQUESTS))
def test_finals_are_those_of_the_runner_that_packs(base: Path, request_: str) -> None:
    options = REQUESTS[request_]
    known = decode_together(load_engine(base), audios(), options)
    finals = decode_together(device_engine(base), audios(), options)
    for (final,), (expected,) in zip(finals, known, strict=True):
        assert final.tokens == expected.tokens
        assert final.language == expected.language
        assert [(word.text, word.start, word.end) for word in final.words] == [
            (word.text, word.start, word.end) for word in expected.words
        ]
        assert final.no_speech_prob == pytest.approx(expected.no_speech_prob, abs=1e-5)
        assert final.avg_logprob == pytest.approx(expected.avg_logprob, abs=1e-4)
        assert final.language_probability == pytest.approx(expected.language_probability, abs=1e-5)


def test_plain_torch_says_the_same(base: Path) -> None:
    options = REQUESTS["trimmed"]
    known = decode_together(load_engine(base), audios()[:2], options)
    finals = decode_together(device_engine(base, attention="eager"), audios()[:2], options)
    assert list(map(tokens_of, finals)) == list(map(tokens_of, known))


@pytest.mark.timeout(120)
def test_interpreted_kernels_say_the_same(tmp_path: Path) -> None:
    """All of them, in a whole engine; slow, so the model and the windows are as small as can be."""
    small = make_checkpoint(tmp_path / "small", "tiny.en", encoder_layers=1)
    config = replace(
        GREEDY,
        max_new_tokens=4,
        context_margin=Positions(4),
        num_slots=2,
        thresholds=QualityThresholds(compression_ratio=inf, avg_logprob=-inf, no_speech=2.0),
    )
    short = [babble(0.7, seed=8), babble(0.4, seed=9)]
    options = REQUESTS["trimmed"]
    known = decode_together(load_engine(small, config), short, options)
    engine = device_engine(small, config, attention="triton", fused=True)
    finals = decode_together(engine, short, options)
    assert list(map(tokens_of, finals)) == list(map(tokens_of, known))
    assert engine.metrics.steps["DecodeStep"].rows > 2


def grow(engine: Engine, *, append_only: bool = False) -> list[str]:
    """What is said while a window grows, drafts verified, and in the end."""
    options = replace(OPTIONS, interim_results=True, context="trimmed", append_only=append_only)
    driver = Driver(engine)
    driver.send(OpenUtterance(UtteranceId(1), Samples(0), options))
    for audio in np.array_split(audios()[1], 12):
        driver.send(AppendAudio(UtteranceId(1), audio))
    driver.send(FinishUtterance(UtteranceId(1)))
    assert engine.metrics.accepted > 0
    said = (it for it in driver.events if isinstance(it, HypothesisUpdated | SegmentClosed))
    return [event.text for event in said]


def test_drafts_are_accepted_on_the_device_as_the_host_would(base: Path) -> None:
    on_host = grow(load_engine(base))
    assert len(on_host) > 5
    assert grow(device_engine(base)) == on_host


def token_rows(runner: StepRunner, step: Step) -> list[TokenRow]:
    result = runner.launch(step).result()
    assert isinstance(result, TokensResult)
    return [row for row in result.rows if isinstance(row, TokenRow)]


def in_steps(runner: StepRunner, temperature: float) -> list[TokenRow]:
    """Three windows fed, decoded, and one of them verified from where it is, by hand."""
    slots = [SlotHandle(index, 1) for index in (2, 0, 5)]
    encoded = tuple(EncodeRow(slot, audio) for slot, audio in zip(slots, audios()[1:], strict=True))
    runner.launch(EncodeStep(encoded, Positions(512)))
    prefixes = ((402, 404, 9, 11), (402,), (402, 404, 9))
    rows = tuple(
        PrefillRow(slot, prefix, 0, Sampling(len(prefix), False, temperature, seed=number))
        for number, (slot, prefix) in enumerate(zip(slots, prefixes, strict=True))
    )
    found = token_rows(runner, PrefillStep(rows))
    first = found[0].tokens
    found += token_rows(runner, DecodeStep(tuple(slots)))
    found += token_rows(runner, DecodeStep(tuple(slots[1:])))
    if temperature == 0.0:
        sampling = rows[2].sampling
        again = VerifyRow(slots[2], len(prefixes[2]) + 2, found[-1].tokens, (3, 4), 0, sampling)
        whole = VerifyRow(slots[0], 0, prefixes[0], (*first, 7), 0, rows[0].sampling)
        found += token_rows(runner, VerifyStep((again, whole)))
    return found


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_rows_of_steps_are_those_of_the_runner_that_packs(base: Path, temperature: float) -> None:
    """Draws included, which depend on seed and index alone, and where the heads look."""
    known = in_steps(load_engine(base).runner, temperature)
    found = in_steps(device_engine(base).runner, temperature)
    for row, expected in zip(found, known, strict=True):
        assert (row.slot, row.tokens) == (expected.slot, expected.tokens)
        assert row.positions == expected.positions
        assert row.logprobs == pytest.approx(expected.logprobs, abs=1e-4)
        assert row.no_speech_prob == pytest.approx(expected.no_speech_prob, abs=1e-5)
    assert any(row.positions for row in found)


# Extensions.

INCREMENTAL = replace(GREEDY, partial_context="incremental", look_back=Positions(16))


def cross_of(runner: object, slot: int, context: int) -> Tensor:
    """What cross-attention would see of a slot, all layers."""
    layers = runner._caches.layers  # type: ignore[attr-defined]
    return torch.stack(
        [
            cache[slot, :context]
            for layer in layers
            for cache in (layer.cross_attn.keys, layer.cross_attn.values)
        ]
    )


@pytest.mark.parametrize("engine_of", [load_engine, device_engine])
def test_encoding_the_end_of_a_window_again_changes_nothing(
    base: Path, engine_of: Callable[[Path, EngineConfig], Engine]
) -> None:
    """Against keys and values of the same window an extension is exact."""
    runner = engine_of(base, INCREMENTAL).runner
    slots = [SlotHandle(4, 1), SlotHandle(1, 1)]
    windows = [audios()[1], audios()[3]]
    encoded = tuple(EncodeRow(slot, it) for slot, it in zip(slots, windows, strict=True))
    runner.launch(EncodeStep(encoded, Positions(512), keep=True)).result()
    before = [cross_of(runner, slot.index, 512).clone() for slot in slots]
    starts = (Positions(512 - 128), Positions(512 - 128))
    rows = zip(slots, windows, starts, strict=True)
    runner.launch(ExtendStep(tuple(ExtendRow(*row) for row in rows), Positions(128))).result()
    after = [cross_of(runner, slot.index, 512) for slot in slots]
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-4)


def test_rows_are_extended_from_places_of_their_own(base: Path) -> None:
    """And what a window's extension says is what packed rows say."""
    slots = [SlotHandle(4, 1), SlotHandle(1, 1)]
    windows = [audios()[1], audios()[3]]
    crosses = []
    for engine in (load_engine(base, INCREMENTAL), device_engine(base, INCREMENTAL)):
        early = tuple(
            EncodeRow(slot, it[: 4 * SAMPLE_RATE]) for slot, it in zip(slots, windows, strict=True)
        )
        engine.runner.launch(EncodeStep(early, Positions(256), keep=True)).result()
        starts = (Positions(180), Positions(150))
        rows = tuple(
            ExtendRow(slot, it[: 5 * SAMPLE_RATE], start)
            for slot, it, start in zip(slots, windows, starts, strict=True)
        )
        engine.runner.launch(ExtendStep(rows, Positions(128))).result()
        crosses.append(
            [
                cross_of(engine.runner, slot.index, start + 128).clone()
                for slot, start in zip(slots, starts, strict=True)
            ]
        )
        assert crosses[-1][0].abs().sum() > 0
    torch.testing.assert_close(crosses[1], crosses[0], rtol=1e-4, atol=1e-4)


def test_extended_windows_say_on_the_device_what_they_say_packed(base: Path) -> None:
    on_host = grow(load_engine(base, INCREMENTAL), append_only=True)
    engine = device_engine(base, INCREMENTAL)
    assert grow(engine, append_only=True) == on_host
    assert engine.metrics.steps["ExtendStep"].count > 3


# Graphs.


def with_graphs(base: Path, shapes: Sequence[Shape]) -> tuple[Engine, list[Shape]]:
    replayed: list[Shape] = []

    class Counting(GraphRunner):
        def replay(self, shape: Shape, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
            replayed.append(shape)
            return super().replay(shape, inputs)

    engine = device_engine(base, graphs=Counting(record_eagerly))
    assert isinstance(engine.runner, DeviceRunner)
    for shape in shapes:
        engine.runner.capture(shape)
    return engine, replayed


def test_replayed_steps_say_what_eager_ones_say(base: Path) -> None:
    """Four requests are padded to eight rows; what no graph was captured for runs eagerly."""
    shapes: list[Shape] = [
        EncodeShape(1, 1500),
        FeedShape(8, 8, 1, 1500),
        FeedShape(1, 8, 1, 1500),
        DecodeShape(8, 1500),
        DecodeShape(4, 1500),
        DecodeShape(2, 1500),
    ]
    known = decode_together(load_engine(base), audios(), OPTIONS)
    engine, replayed = with_graphs(base, shapes)
    finals = decode_together(engine, audios(), OPTIONS)
    assert list(map(tokens_of, finals)) == list(map(tokens_of, known))
    assert {EncodeShape(1, 1500), FeedShape(1, 8, 1, 1500)} <= set(replayed)
    assert {DecodeShape(4, 1500), DecodeShape(2, 1500)} <= set(replayed)


def test_capturing_touches_no_slot_but_the_scratch_one(base: Path) -> None:
    graphs = GraphRunner(record_eagerly)
    engine = device_engine(base, graphs=graphs)
    known = tokens_of(decode_together(engine, audios()[:1], OPTIONS)[0])
    assert isinstance(engine.runner, DeviceRunner)
    driver = Driver(engine)
    driver.post(
        OpenUtterance(UtteranceId(1), Samples(0), OPTIONS),
        AppendAudio(UtteranceId(1), audios()[0]),
        FinishUtterance(UtteranceId(1)),
    )
    engine.runner.capture(DecodeShape(2, 1500))
    engine.runner.capture(FeedShape(2, 8, 8, 512))
    driver.send()
    assert tokens_of(driver.closed(1)) == known


# Memory.


class Scarce:
    """A program that has memory for no more than `most` rows."""

    def __init__(self, program: Program, most: int) -> None:
        self._program = program
        self._most = most
        self.refused = 0

    def __call__(self, first: Tensor, *rest: Tensor, **options: int) -> tuple[Tensor, ...]:
        if len(first) > self._most:
            self.refused += 1
            raise torch.OutOfMemoryError("CUDA out of memory")
        return self._program(first, *rest, **options)


class ScarcePrograms:
    """The programs of a runner, with memory for `most` rows of a decode."""

    def __init__(self, programs: object, most: int) -> None:
        self._programs = programs
        self.decode = Scarce(programs.decode, most)  # type: ignore[attr-defined]

    def __getattr__(self, name: str) -> object:
        return getattr(self._programs, name)


def test_what_does_not_fit_into_memory_is_done_in_halves(base: Path) -> None:
    known = decode_together(load_engine(base), audios(), REQUESTS["trimmed"])
    engine = device_engine(base)
    scarce = ScarcePrograms(engine.runner._programs, most=2)  # type: ignore[attr-defined]
    engine.runner._programs = scarce  # type: ignore[attr-defined]
    finals = decode_together(engine, audios(), REQUESTS["trimmed"])
    assert scarce.decode.refused > 0
    assert list(map(tokens_of, finals)) == list(map(tokens_of, known))


def test_what_does_not_fit_in_halves_either_fails_alone(base: Path) -> None:
    engine = device_engine(base)
    scarce = ScarcePrograms(engine.runner._programs, most=0)  # type: ignore[attr-defined]
    engine.runner._programs = scarce  # type: ignore[attr-defined]
    driver = Driver(engine)
    driver.send(
        OpenUtterance(UtteranceId(1), Samples(0), OPTIONS),
        AppendAudio(UtteranceId(1), audios()[0]),
        FinishUtterance(UtteranceId(1)),
    )
    (failure,) = driver.events
    assert isinstance(failure, UtteranceFailed)
    assert "out of memory" in failure.message
    engine.scheduler.check()
