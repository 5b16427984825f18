"""Silero voice activity detection: VAD frames of every session in, speech probabilities out.

`SileroNet` is the published 16 kHz network (snakers4/silero-vad, version 6) with its state as a
value, so that one call scores any number of frames of any number of streams. `SileroVad` is the
thread that makes that call: once per tick for all sessions that have frames waiting. What the
probabilities mean is decided by the endpointer.
"""

import importlib.util
import logging
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from stream_server.endpointer import VAD_FRAME_SAMPLES

logger = logging.getLogger(__name__)

CONTEXT_SAMPLES: Final = 64  # end of the previous frame, put before each frame
PADDING_SAMPLES: Final = 64  # reflected at the right, so that the STFT has four whole columns
STFT_HOP_SAMPLES: Final = 128
STFT_BINS: Final = 129
HIDDEN: Final = 128

TICK_S: Final = 0.032  # one frame of every live session per call; a shorter tick only costs calls
MAX_FRAMES_PER_CALL: Final = 32  # of one stream: a file sent at once delays the others by ms, not s
OFFLINE_BLOCK_FRAMES: Final = 1024  # 33 s: bounds memory, and larger is no faster

Frames = NDArray[np.float32]  # [n, VAD_FRAME_SAMPLES]
Probabilities = NDArray[np.float32]  # [n], in [0, 1]
Deliver = Callable[[Probabilities], None]


class DetectorError(Exception):
    """The detector cannot be loaded, or has stopped."""


@dataclass(frozen=True, slots=True)
class VadState:
    """What the network remembers of one stream between two frames."""

    context: NDArray[np.float32] = field(default_factory=lambda: _zeros(CONTEXT_SAMPLES))
    hidden: NDArray[np.float32] = field(default_factory=lambda: _zeros(HIDDEN))
    cell: NDArray[np.float32] = field(default_factory=lambda: _zeros(HIDDEN))


def _zeros(size: int) -> NDArray[np.float32]:
    return np.zeros(size, np.float32)


def packaged_model() -> Path:
    """The TorchScript model inside the installed `silero-vad` package.

    The package is located, never imported: importing it sets torch to one thread for the whole
    process. Raises DetectorError where it is not installed or has no such file.
    """
    spec = importlib.util.find_spec("silero_vad")
    for directory in (spec and spec.submodule_search_locations) or ():
        path = Path(directory, "data", "silero_vad.jit")
        if path.is_file():
            return path
    raise DetectorError(
        "voice activity detection: found no data/silero_vad.jit of the silero-vad package; "
        "accepted: pip install 'silero-vad>=6.2'"
    )


def _tensors_of(path: Path) -> dict[str, Tensor]:
    """The weights inside the package's TorchScript model.

    Not those of its silero_vad_16k.safetensors, which come from another training and score
    differently (snakers4/silero-vad#768).
    """
    with warnings.catch_warnings():
        # torch.jit is deprecated for programs; the archive is only read here, never run.
        warnings.simplefilter("ignore", DeprecationWarning)
        module = torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]
    return cast("dict[str, Tensor]", module.state_dict())


class SileroNet:
    """The network: spectrum, four convolutions, an LSTM over frames, one probability per frame.

    Holds weights only, so any thread may use it. Raises DetectorError for a file that is not
    this network.
    """

    def __init__(self, model: Path | None = None) -> None:
        path = model or packaged_model()
        self._lstm = torch.nn.LSTM(HIDDEN, HIDDEN)
        try:
            tensors = _tensors_of(path)
            self._lstm.load_state_dict(
                {
                    f"{name}_l0": tensors[f"_model.decoder.rnn.{name}"]
                    for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
                }
            )
            self._stft = tensors["_model.stft.forward_basis_buffer"]  # [2 x STFT_BINS, 1, 256]
            convolution = "_model.encoder.{}.reparam_conv.{}".format
            self._convolutions = [
                (tensors[convolution(i, "weight")], tensors[convolution(i, "bias")], stride)
                for i, stride in enumerate((1, 2, 2, 1))
            ]
            self._out = tensors["_model.decoder.decoder.2.weight"].squeeze(-1)  # [1, HIDDEN]
            self._out_bias = tensors["_model.decoder.decoder.2.bias"]
        except (KeyError, RuntimeError, ValueError) as exc:
            raise DetectorError(f"{path}: not the 16 kHz Silero network: {exc}") from exc

    @torch.inference_mode()
    def advance(
        self, states: Sequence[VadState], frames: Sequence[Frames]
    ) -> tuple[list[VadState], list[Probabilities]]:
        """Score the next `frames[i]` [n_i, VAD_FRAME_SAMPLES], n_i >= 1, of each stream i.

        Returns the new states and the probabilities [n_i], in the order given. No stream's result
        depends on the others it shares the call with.
        """
        # Longest first, so that the streams still alive at each time step are a prefix: this is
        # what PackedSequence means, and it leaves the state of ended streams alone.
        order = sorted(range(len(frames)), key=lambda i: -len(frames[i]))
        lengths = np.array([len(frames[i]) for i in order])
        starts = np.cumsum(lengths) - lengths
        alive = np.searchsorted(-lengths, -np.arange(lengths[0]))
        by_time = np.concatenate([starts[:n] + t for t, n in enumerate(alive)])

        ordered_states = [states[i] for i in order]
        features = self._features(
            torch.from_numpy(_with_context(ordered_states, [frames[i] for i in order]))
        )
        packed, (hidden, cell) = self._lstm(
            PackedSequence(features[torch.from_numpy(by_time)], torch.from_numpy(alive)),
            (
                torch.from_numpy(np.stack([state.hidden for state in ordered_states]))[None],
                torch.from_numpy(np.stack([state.cell for state in ordered_states]))[None],
            ),
        )
        scores = np.empty(len(by_time), np.float32)
        scores[by_time] = torch.sigmoid(
            F.linear(packed.data.relu(), self._out, self._out_bias)
        ).squeeze(-1)

        hiddens, cells = hidden[0].numpy(), cell[0].numpy()
        new_states: list[VadState] = []
        probabilities: list[Probabilities] = []
        for i, row in enumerate(np.argsort(order).tolist()):
            # Copies: a view would keep the whole batch alive for as long as one stream waits.
            new_states.append(
                VadState(
                    frames[i][-1, -CONTEXT_SAMPLES:].copy(),
                    hiddens[row].copy(),
                    cells[row].copy(),
                )
            )
            probabilities.append(scores[starts[row] : starts[row] + lengths[row]].copy())
        return new_states, probabilities

    def score(self, samples: NDArray[np.float32]) -> Probabilities:
        """Score a whole recording: float32 16 kHz mono [n] to probabilities [ceil(n / 512)].

        Runs in the calling thread. The last frame is completed with silence.
        """
        num_frames = -(-len(samples) // VAD_FRAME_SAMPLES)
        frames = np.zeros((num_frames, VAD_FRAME_SAMPLES), np.float32)
        frames.reshape(-1)[: len(samples)] = samples
        state, scores = VadState(), np.empty(num_frames, np.float32)
        for start in range(0, num_frames, OFFLINE_BLOCK_FRAMES):
            block = slice(start, start + OFFLINE_BLOCK_FRAMES)
            (state,), (scores[block],) = self.advance([state], [frames[block]])
        return scores

    def _features(self, frames: Tensor) -> Tensor:
        """Everything before the LSTM: [n, context + frame] to [n, HIDDEN], frame by frame."""
        x = F.pad(frames[:, None], (0, PADDING_SAMPLES), "reflect")
        x = F.conv1d(x, self._stft, stride=STFT_HOP_SAMPLES)
        x = (x[:, :STFT_BINS].square() + x[:, STFT_BINS:].square()).sqrt()
        for weight, bias, stride in self._convolutions:
            x = F.conv1d(x, weight, bias, stride, padding=1).relu()
        return x.squeeze(-1)


def _with_context(states: Sequence[VadState], frames: Sequence[Frames]) -> NDArray[np.float32]:
    """Every frame behind the end of the one before it: [sum of n_i, context + frame]."""
    rows = np.empty((sum(map(len, frames)), CONTEXT_SAMPLES + VAD_FRAME_SAMPLES), np.float32)
    np.concatenate(frames, out=rows[:, CONTEXT_SAMPLES:])
    rows[1:, :CONTEXT_SAMPLES] = rows[:-1, -CONTEXT_SAMPLES:]
    start = 0
    for state, stream_frames in zip(states, frames, strict=True):
        rows[start, :CONTEXT_SAMPLES] = state.context
        start += len(stream_frames)
    return rows


@dataclass(slots=True)
class _Request:
    """Frames of one `score` call, and how many of them have been scored."""

    frames: Frames
    deliver: Deliver
    scores: Probabilities
    num_scored: int = 0

    @property
    def complete(self) -> bool:
        return self.num_scored == len(self.scores)

    def accept(self, values: Probabilities) -> None:
        self.scores[self.num_scored : self.num_scored + len(values)] = values
        self.num_scored += len(values)


class SileroStream:
    """One session's place in the detector: `score` frames in order, `close` to leave."""

    def __init__(self, detector: "SileroVad") -> None:
        self._detector = detector
        # The fields below are touched by the VAD thread; those it shares, under the detector's
        # condition.
        self.state = VadState()
        self.waiting: deque[_Request] = deque()
        self.closed = False

    def score(self, frames: Frames, deliver: Deliver) -> None:
        """Queue the stream's next frames [n, 512]; `deliver` gets [n] on the VAD thread, in order.

        `frames` must not be written to afterwards. Raises ValueError for another shape or type,
        DetectorError when the detector has stopped or the stream is closed.
        """
        if (
            frames.dtype != np.float32
            or frames.ndim != 2
            or len(frames) == 0
            or frames.shape[1] != VAD_FRAME_SAMPLES
        ):
            raise ValueError(
                f"VAD frames: got {frames.dtype} {list(frames.shape)}, "
                f"accepted: float32 [n, {VAD_FRAME_SAMPLES}] with n of 1 or more"
            )
        scores = np.empty(len(frames), np.float32)
        self._detector._submit(self, _Request(frames, deliver, scores))

    def close(self) -> None:
        """Forget what waits and what is remembered; a delivery already under way may still come."""
        self._detector._discard(self)


class SileroVad:
    """Scores all sessions' frames in one thread, one batched call per tick.

    `open`, `score` and `close` may be called from any thread. While no frame waits, the thread
    sleeps; the first frame after that is scored at once.
    """

    def __init__(self, net: SileroNet | None = None) -> None:
        self._net = net or SileroNet()
        self._condition = threading.Condition()
        self._ready: dict[SileroStream, None] = {}  # streams with frames waiting, oldest first
        self._stopped = False
        self._failure: Exception | None = None
        self._on_failure: Callable[[Exception], None] | None = None
        self._thread = threading.Thread(target=self._run, name="vad", daemon=True)
        self._warm = threading.Event()

    def on_failure(self, callback: Callable[[Exception], None]) -> None:
        """`callback` is told, on the VAD thread, what ended it; at once where that has happened."""
        with self._condition:
            self._on_failure = callback
            failure = self._failure
        if failure is not None:
            callback(failure)

    def start(self) -> None:
        """Start the thread and wait until it has scored a first frame (warm-up).

        Raises DetectorError where that fails.
        """
        num_threads = torch.get_num_threads()
        self._thread.start()
        self._warm.wait()
        # set_num_threads in the VAD thread is also what threads born later would inherit; saying
        # this thread's own number again takes that back and leaves the VAD thread at one.
        torch.set_num_threads(num_threads)
        if self._failure is not None:
            raise DetectorError(f"voice activity detection: {self._failure}") from self._failure

    def stop(self) -> None:
        """End the thread; frames still waiting are not scored. May be called twice."""
        with self._condition:
            self._stopped = True
            self._condition.notify()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join()

    def open(self) -> SileroStream:
        """A new stream, with nothing heard yet."""
        return SileroStream(self)

    def _submit(self, stream: SileroStream, request: _Request) -> None:
        with self._condition:
            if self._stopped:
                raise DetectorError("the voice activity detector has stopped")
            if stream.closed:
                raise DetectorError("this stream of the voice activity detector is closed")
            stream.waiting.append(request)
            if not self._ready:
                self._condition.notify()
            self._ready[stream] = None

    def _discard(self, stream: SileroStream) -> None:
        with self._condition:
            stream.closed = True
            stream.waiting.clear()
            self._ready.pop(stream, None)

    def _run(self) -> None:
        # One thread: the products are too small to share, and the engine needs the other cores.
        torch.set_num_threads(1)
        try:
            self._net.advance([VadState()], [np.zeros((1, VAD_FRAME_SAMPLES), np.float32)])
            self._warm.set()
            tick = time.monotonic()
            while self._wait_for_work(tick):
                started = time.monotonic()
                backlog = self._score_once()
                tick = started if backlog else started + TICK_S
        except Exception as exc:  # noqa: BLE001  # the thread's boundary: the server must hear of it
            self._fail(exc)
        finally:
            self._warm.set()

    def _wait_for_work(self, tick: float) -> bool:
        """Wait for frames, then until `tick`, so that others can join; False once stopped."""
        with self._condition:
            self._condition.wait_for(lambda: self._ready or self._stopped)
            self._condition.wait_for(lambda: self._stopped, timeout=tick - time.monotonic())
            return not self._stopped

    def _score_once(self) -> bool:
        """One batched call over what waits now, at most MAX_FRAMES_PER_CALL of each stream.

        Returns whether a stream used its whole share: a backlog need not await a tick.
        """
        with self._condition:
            taken = [(stream, _take(stream.waiting)) for stream in self._ready]
        if not taken:
            return False  # every stream that had frames was closed meanwhile
        states, scores = self._net.advance(
            [stream.state for stream, _ in taken],
            [np.concatenate([part for _, part in parts]) for _, parts in taken],
        )
        finished: list[_Request] = []
        with self._condition:
            for (stream, parts), state, values in zip(taken, states, scores, strict=True):
                if stream.closed:
                    continue
                stream.state = state
                start = 0
                for request, part in parts:
                    request.accept(values[start : start + len(part)])
                    start += len(part)
                    if request.complete:
                        finished.append(stream.waiting.popleft())
                if not stream.waiting:
                    del self._ready[stream]
        for request in finished:
            request.deliver(request.scores)
        return any(sum(len(p) for _, p in parts) == MAX_FRAMES_PER_CALL for _, parts in taken)

    def _fail(self, exc: Exception) -> None:
        logger.error("the voice activity detector failed", exc_info=exc)
        with self._condition:
            self._stopped = True
            self._failure = exc
            callback = self._on_failure
        if callback is not None:
            callback(exc)


def _take(waiting: Sequence[_Request]) -> list[tuple[_Request, Frames]]:
    """The next frames of one stream, oldest first, each part with the request it belongs to."""
    parts: list[tuple[_Request, Frames]] = []
    room = MAX_FRAMES_PER_CALL
    for request in waiting:
        part = request.frames[request.num_scored :][:room]
        parts.append((request, part))
        room -= len(part)
        if room == 0:
            break
    return parts
