"""Kokoro-82M through its package: neural voices and blends of two, and the end of each word."""

import importlib
from collections.abc import Iterable, Mapping, Sequence
from importlib.util import find_spec
from typing import Any, Final, Protocol

import numpy as np
import soxr

from engine.audio.units import SAMPLE_RATE
from training.errors import RecipeError
from training.speech.clip import Clip
from training.speech.voices import HELD_OUT_KOKORO_VOICES, KOKORO_VOICES, Voice

_PACKAGE: Final = "kokoro"
_REPOSITORY: Final = "hexgrad/Kokoro-82M"
_SPOKEN_RATE: Final = 24_000
_ACCENTS: Final = ("a", "b")  # the package's codes, and how its voices begin: American, British
_VOICES: Final = frozenset((*KOKORO_VOICES, *HELD_OUT_KOKORO_VOICES))
# A mark's own time is the pause after its word.
_MARKS: Final = frozenset(".,;:!?()\"'-\u2013\u2014\u2018\u2019\u201c\u201d\u2026")


class Token(Protocol):
    """A word, a mark, or a part of a word; `end_ts` in seconds of its result, None if unknown."""

    text: str
    end_ts: float | None


class Result(Protocol):
    """What the package speaks in one go."""

    @property
    def audio(self) -> Any:
        """[n] float32 at 24 kHz: a tensor on the CPU, or an array."""

    @property
    def tokens(self) -> Sequence[Token] | None:
        """What was spoken, in order."""


class Pipeline(Protocol):
    """One accent: the package's KPipeline. A style is a tensor; it may be computed with."""

    def load_single_voice(self, voice: str) -> Any:
        """The style of a voice."""

    def __call__(self, text: str, voice: Any, speed: float) -> Iterable[Result]:
        """Speak `text` in the style `voice`, one result for each part."""


def lacking() -> str | None:
    """Why Kokoro is not for this machine; None where it is."""
    if find_spec(_PACKAGE) is None:
        return "no such package"
    import torch

    if not torch.cuda.is_available():
        return "no CUDA device, and a core takes as long as the speech; --engines asks for it"
    return None


class Kokoro:
    """Both English accents over one model, on CUDA where there is a device.

    `pipelines` by accent are the package's own if not given. Touched only by its owner.
    """

    def __init__(self, pipelines: Mapping[str, Pipeline] | None = None) -> None:
        self._pipelines = _load_pipelines() if pipelines is None else pipelines

    def speak(self, text: str, voice: Voice) -> Clip:
        """Say `text`; two names with a plus between them are blended, the first gives the accent.

        Raises RecipeError for a voice that is not there, and where the package fails.
        """
        names = voice.name.split("+")
        if not _VOICES.issuperset(names):
            raise RecipeError(f"kokoro: expected its English voices, got {voice.name!r}")
        pipeline = self._pipelines[names[0][0]]
        try:
            style = sum(pipeline.load_single_voice(name) for name in names) / len(names)
            results = list(pipeline(text, voice=style, speed=voice.rate))
        except (OSError, RuntimeError) as exc:
            raise RecipeError(f"kokoro: could not speak as {voice.name}: {exc}") from exc
        parts = [np.asarray(result.audio, np.float32) for result in results]
        spoken = np.concatenate(parts) if parts else np.zeros(0, np.float32)
        resampled = soxr.resample(spoken, _SPOKEN_RATE, SAMPLE_RATE)
        samples = np.rint(np.clip(resampled, -1, 1) * 32767).astype(np.int16)
        timed, begin = [], 0
        for result, part in zip(results, parts, strict=True):
            for token in result.tokens or ():
                end = None if token.end_ts is None else begin / _SPOKEN_RATE + token.end_ts
                timed.append((token.text, end))
            begin += len(part)
        return Clip(samples, word_ends(text, timed, len(samples)))


def word_ends(
    text: str, tokens: Iterable[tuple[str, float | None]], num_samples: int
) -> tuple[int, ...] | None:
    """Where the words of `text` end, in samples; None if one's end is missing.

    `tokens` holds (text, end in seconds); a word is one of them or several, whose letters
    follow each other as in `text`. The marks at a word count only where it is nothing else.
    """
    words = text.split()
    owners = [index for index, word in enumerate(words) for _ in word]
    spoken: dict[int, float] = {}
    marks: dict[int, float] = {}
    letters = ""
    for token, end in tokens:
        shown = "".join(token.split())
        letters += shown
        if shown and end is not None and len(letters) <= len(owners):
            ends = marks if _MARKS.issuperset(shown) else spoken
            ends[owners[len(letters) - 1]] = end
    known = marks | spoken
    if letters != "".join(words) or len(known) < len(words):
        return None
    told = [min(round(known[index] * SAMPLE_RATE), num_samples) for index in range(len(words))]
    return tuple(told) if all(told) and told == sorted(told) else None


def _load_pipelines() -> Mapping[str, Pipeline]:
    """One for each accent, sharing one model. Its weights and voices come from its hub once."""
    if find_spec(_PACKAGE) is None:
        raise RecipeError("kokoro: expected the package, found none: pip install kokoro")
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.set_num_threads(1)  # the recipe runs a process on each core
    try:
        package: Any = importlib.import_module(_PACKAGE)
        model = package.KModel(repo_id=_REPOSITORY).to(device).eval()
        pipelines = {
            accent: package.KPipeline(lang_code=accent, repo_id=_REPOSITORY, model=model)
            for accent in _ACCENTS
        }
    # SystemExit: spaCy ends the process where it cannot download the model that the package needs.
    except (ImportError, OSError, RuntimeError, SystemExit) as exc:
        raise RecipeError(f"kokoro: expected its parts and weights, found not all: {exc}") from exc
    if any(pipeline.g2p.fallback is None for pipeline in pipelines.values()):
        # The package would go on and leave out every word that its dictionary lacks.
        raise RecipeError("kokoro: expected espeak-ng for words it does not know, found none")
    return pipelines
