"""An engine that hears one word in every 200 ms of audio, whatever is said.

Speaks the interface of `engine.worker.Worker` from a thread of its own, so that a server under
test meets real thread hops without a model.
"""

import itertools
import queue
import threading
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from engine.audio.units import Samples, samples_from_ms
from engine.errors import EngineStoppedError
from engine.events import (
    AppendAudio,
    CancelUtterance,
    Command,
    EngineEvent,
    FinishUtterance,
    HypothesisUpdated,
    ModelInfo,
    OpenUtterance,
    PauseUtterance,
    SegmentClosed,
    UtteranceFailed,
    UtteranceFinished,
    UtteranceId,
    Word,
)
from engine.metrics import EngineMetrics

WORD_SAMPLES = samples_from_ms(200)
MODEL = ModelInfo(name="memory", languages=("de", "en"), tasks=("transcribe", "translate"))

Listener = Callable[[EngineEvent], None]


class HeardUtterance:
    """One utterance as the engine got it."""

    def __init__(self, command: OpenUtterance, listener: Listener) -> None:
        self.opened = command
        self.listener = listener
        self.samples: NDArray[np.float32] = np.empty(0, np.float32)
        self.num_pauses = 0
        self.finished = False
        self.cancelled = False

    @property
    def end(self) -> Samples:
        return Samples(self.opened.start + len(self.samples))

    def words(self) -> tuple[Word, ...]:
        starts = range(self.opened.start, self.end, WORD_SAMPLES)
        return tuple(
            Word(f"w{i}", Samples(start), Samples(min(start + WORD_SAMPLES, self.end)), 0.9)
            for i, start in enumerate(starts)
        )


class MemoryEngine:
    """Answers at once; `hold` keeps finals back until `let_go`."""

    def __init__(self, info: ModelInfo = MODEL) -> None:
        self.info = info
        self.metrics = EngineMetrics(device="cpu", dtype="float32", slots=64)
        self.utterances: dict[UtteranceId, HeardUtterance] = {}
        self.failing: str | None = None  # the message with which utterances fail
        self._ids = itertools.count(1)
        self._commands: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._go = threading.Event()
        self._go.set()
        self.stopped = False
        self._callbacks: list[Callable[[Exception], None]] = []
        self._watched = threading.Event()
        self._thread = threading.Thread(target=self._run, name="memory-engine", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self.stopped = True
        self._go.set()
        self._commands.put(None)
        self._thread.join()

    def hold(self) -> None:
        self._go.clear()

    def let_go(self) -> None:
        self._go.set()

    def break_down(self, failure: Exception) -> None:
        """Fail as a whole, on the engine's thread."""

        def fail() -> None:
            self.stopped = True
            for callback in self._callbacks:
                callback(failure)

        self._commands.put(fail)

    def on_failure(self, callback: Callable[[Exception], None]) -> None:
        self._callbacks.append(callback)
        self._watched.set()

    def wait_until_watched(self) -> None:
        """Until somebody asked to hear of a failure."""
        self._watched.wait()

    def new_utterance_id(self) -> UtteranceId:
        return UtteranceId(next(self._ids))

    def open(self, command: OpenUtterance, listener: Listener) -> None:
        self._check_running()
        self._commands.put(lambda: self._open(command, listener))

    def submit(
        self, command: AppendAudio | PauseUtterance | FinishUtterance | CancelUtterance
    ) -> None:
        self._check_running()
        self._commands.put(lambda: self._take(command))

    def _check_running(self) -> None:
        if self.stopped:
            raise EngineStoppedError("the engine is not running")

    def _run(self) -> None:
        while (command := self._commands.get()) is not None:
            command()

    def _open(self, command: OpenUtterance, listener: Listener) -> None:
        self.utterances[command.utterance_id] = HeardUtterance(command, listener)

    def _take(self, command: Command) -> None:
        utterance = self.utterances[command.utterance_id]
        match command:
            case AppendAudio(samples=samples):
                utterance.samples = np.concatenate([utterance.samples, samples])
                if utterance.opened.options.interim_results:
                    utterance.listener(_hypothesis(utterance))
            case PauseUtterance():
                utterance.num_pauses += 1
            case CancelUtterance():
                utterance.cancelled = True
            case FinishUtterance():
                utterance.finished = True
                self._go.wait()
                for event in self._last_events(utterance):
                    utterance.listener(event)
            case OpenUtterance():
                raise TypeError("opened by open()")

    def _last_events(self, utterance: HeardUtterance) -> list[EngineEvent]:
        utterance_id = utterance.opened.utterance_id
        if self.failing is not None:
            return [UtteranceFailed(utterance_id, self.failing)]
        return [final_of(utterance), UtteranceFinished(utterance_id)]


def _hypothesis(utterance: HeardUtterance) -> HypothesisUpdated:
    words = utterance.words()
    stable = words[:-1]
    return HypothesisUpdated(
        utterance_id=utterance.opened.utterance_id,
        segment=0,
        start=utterance.opened.start,
        end=utterance.end,
        text=" ".join(word.text for word in words),
        stable_text=" ".join(word.text for word in stable),
        stable_end=stable[-1].end if stable else utterance.opened.start,
        language=utterance.opened.options.language or "en",
        interval=utterance.opened.options.interim_interval,
    )


def final_of(utterance: HeardUtterance) -> SegmentClosed:
    words = utterance.words()
    return SegmentClosed(
        utterance_id=utterance.opened.utterance_id,
        segment=0,
        start=utterance.opened.start,
        end=utterance.end,
        text=" ".join(word.text for word in words),
        language=utterance.opened.options.language or "en",
        language_probability=0.99,
        confidence=0.9,
        no_speech_prob=0.01,
        avg_logprob=-0.2,
        compression_ratio=1.2,
        temperature=0.0,
        tokens=(),
        words=words,
        spans=(),
    )
