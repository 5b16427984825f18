"""espeak-ng through its library: any accent with any variant, and the start of each word."""

import ctypes
from ctypes.util import find_library
from importlib.util import find_spec
from typing import Any, Final

import numpy as np
import soxr

from engine.audio.units import SAMPLE_RATE
from training.errors import RecipeError
from training.speech.clip import Clip
from training.speech.voices import Voice

_LIBRARY: Final = "libespeak-ng.so.1"
# espeak-ng's speak_lib.h
_AUDIO_OUTPUT_RETRIEVAL: Final = 1
_POSITION_CHARACTER: Final = 1
_UTF8: Final = 1
_EVENT_LIST_END, _EVENT_WORD = 0, 1
_RATE, _PITCH, _RANGE = 1, 3, 4
_NORMAL_WORDS_A_MINUTE: Final = 165
_NORMAL_PITCH: Final = 50
_HIGHEST_PITCH: Final = 99


class _Event(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", ctypes.c_char * 8),
    )


_Callback = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event)
)


def lacking() -> str | None:
    """Why espeak-ng cannot be had here; None where it can."""
    return None if find_library("espeak-ng") or find_spec("espeakng_loader") else "no library"


class Espeak:
    """One espeak-ng in this process; it cannot be had twice. Touched only by its owner."""

    def __init__(self) -> None:
        library, data = _library()
        try:
            self._library = ctypes.CDLL(library)
        except OSError as exc:
            raise RecipeError(f"espeak-ng: expected {library}, found none: {exc}") from exc
        self._rate = int(self._library.espeak_Initialize(_AUDIO_OUTPUT_RETRIEVAL, 0, data, 0))
        if self._rate <= 0:
            raise RecipeError("espeak-ng: found the library, not its data")
        self._parts: list[Any] = []
        self._starts: list[tuple[int, int]] = []
        self._callback = _Callback(self._receive)  # kept: C holds no reference of its own
        self._library.espeak_SetSynthCallback(self._callback)

    def speak(self, text: str, voice: Voice) -> Clip:
        """Say `text`. Raises RecipeError for a voice that is not there."""
        espeak = self._library
        if espeak.espeak_SetVoiceByName(voice.name.encode()) != 0:
            raise RecipeError(f"espeak-ng: expected a voice {voice.name!r}, found none")
        espeak.espeak_SetParameter(_RATE, round(_NORMAL_WORDS_A_MINUTE * voice.rate), 0)
        pitch = min(_HIGHEST_PITCH, round(_NORMAL_PITCH * voice.pitch))
        espeak.espeak_SetParameter(_PITCH, pitch, 0)
        spread = min(_HIGHEST_PITCH, round(_NORMAL_PITCH * voice.liveliness))
        espeak.espeak_SetParameter(_RANGE, spread, 0)
        self._parts.clear()
        self._starts.clear()
        raw = text.encode() + b"\0"
        size = ctypes.c_size_t(len(raw))
        espeak.espeak_Synth(raw, size, 0, _POSITION_CHARACTER, 0, _UTF8, None, None)
        espeak.espeak_Synchronize()
        spoken = np.concatenate(self._parts) if self._parts else np.zeros(0, np.int16)
        samples = soxr.resample(spoken, self._rate, SAMPLE_RATE)
        return Clip(samples, word_ends(text, self._starts, len(samples)))

    def _receive(self, wave: Any, count: int, events: Any) -> int:
        if wave and count > 0:
            self._parts.append(np.ctypeslib.as_array(wave, (count,)).copy())
        index = 0
        while events[index].type != _EVENT_LIST_END:
            event = events[index]
            if event.type == _EVENT_WORD:
                start = event.audio_position * SAMPLE_RATE // 1000
                self._starts.append((event.text_position - 1, start))
            index += 1
        return 0


def word_ends(text: str, starts: list[tuple[int, int]], num_samples: int) -> tuple[int, ...] | None:
    """Where the words of `text` end: where the next one starts; None if one's start is missing.

    `starts` holds (character, sample) of whatever espeak-ng takes for a word, parts of ours too.
    """
    begins, at = [], 0
    for word in text.split():
        at = text.index(word, at)
        begins.append(at)
        at += len(word)
    first_sample: dict[int, int] = {}
    for character, sample in starts:
        word_index = sum(begin <= character for begin in begins) - 1
        first_sample.setdefault(word_index, sample)
    if any(index not in first_sample for index in range(1, len(begins))):
        return None
    ends = (*(first_sample[index] for index in range(1, len(begins))), num_samples)
    return ends if list(ends) == sorted(ends) else None


def _library() -> tuple[str, bytes | None]:
    """The wheel `espeakng-loader` where it is installed, else the system's own library."""
    if find_spec("espeakng_loader") is None:
        return _LIBRARY, None
    import espeakng_loader

    return espeakng_loader.get_library_path(), espeakng_loader.get_data_path().encode()
