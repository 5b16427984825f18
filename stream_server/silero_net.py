"""Silero's network: VAD frames in, speech probabilities out, the state a value.

The published 16 kHz network (snakers4/silero-vad, version 6), so written that one call scores any
number of frames of any number of streams. Who calls it, and when, is `vad`'s business.
"""

import importlib.util
import warnings
from collections.abc import Sequence
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

CONTEXT_SAMPLES: Final = 64  # end of the previous frame, put before each frame
PADDING_SAMPLES: Final = 64  # reflected at the right, so that the STFT has four whole columns
STFT_HOP_SAMPLES: Final = 128
STFT_BINS: Final = 129
HIDDEN: Final = 128
OFFLINE_BLOCK_FRAMES: Final = 1024  # 33 s: bounds memory, and larger is no faster

Frames = NDArray[np.float32]  # [n, VAD_FRAME_SAMPLES]
Probabilities = NDArray[np.float32]  # [n], in [0, 1]


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
            self._window = _window_of(tensors["_model.stft.forward_basis_buffer"])
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
        x = F.pad(frames[:, None], (0, PADDING_SAMPLES), "reflect")[:, 0]
        windows = x.unfold(1, len(self._window), STFT_HOP_SAMPLES) * self._window
        x = torch.fft.rfft(windows).abs().transpose(1, 2)
        for weight, bias, stride in self._convolutions:
            x = F.conv1d(x, weight, bias, stride, padding=1).relu()
        return x.squeeze(-1)


def _window_of(basis: Tensor) -> Tensor:
    """The window of a Fourier transform that is stored as products [2 x STFT_BINS, 1, samples].

    The transform itself takes a third of their time. Raises ValueError where they are none.
    """
    window = basis[0, 0]  # of frequency 0, where every cosine is 1
    spectrum = torch.fft.rfft(torch.diag(window)).T
    stored = torch.complex(basis[:STFT_BINS, 0], basis[STFT_BINS:, 0])
    if not torch.allclose(stored, spectrum, atol=1e-4):
        raise ValueError("its spectrum is no windowed Fourier transform")
    return window


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
