"""flite through its libraries: four recorded voices, and the end of each word."""

import ctypes
from typing import Any, Final

import numpy as np
import soxr

from engine.audio.units import SAMPLE_RATE
from training.errors import RecipeError
from training.speech.clip import Clip
from training.speech.voices import FLITE_VOICES, Voice

_COMMON: Final = ("libflite.so.1", "libflite_cmulex.so.1", "libflite_usenglish.so.1")
LIBRARIES: Final = (*_COMMON, *(f"libflite_cmu_us_{name}.so.1" for name in FLITE_VOICES))
# As recorded, Hz; relative pitch is of these.
_NORMAL_PITCH: Final = {"slt": 180.0, "rms": 105.0, "awb": 130.0, "kal16": 105.0}
# The end of the last segment of a token's last word, in seconds.
_TOKEN_END: Final = b"daughtern.R:SylStructure.daughtern.daughtern.R:Segment.end"


class _Wave(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_char_p),
        ("sample_rate", ctypes.c_int),
        ("num_samples", ctypes.c_int),
        ("num_channels", ctypes.c_int),
        ("samples", ctypes.POINTER(ctypes.c_short)),
    )


class _Voice(ctypes.Structure):
    _fields_ = (("name", ctypes.c_char_p), ("features", ctypes.c_void_p))


_POINTER: Final = ctypes.c_void_p
_SIGNATURES: Final[dict[str, tuple[Any, tuple[Any, ...]]]] = {
    "flite_init": (ctypes.c_int, ()),
    "flite_synth_text": (_POINTER, (ctypes.c_char_p, _POINTER)),
    "feat_set_float": (None, (_POINTER, ctypes.c_char_p, ctypes.c_float)),
    "utt_wave": (ctypes.POINTER(_Wave), (_POINTER,)),
    "utt_relation": (_POINTER, (_POINTER, ctypes.c_char_p)),
    "relation_head": (_POINTER, (_POINTER,)),
    "item_next": (_POINTER, (_POINTER,)),
    "ffeature_float": (ctypes.c_float, (_POINTER, ctypes.c_char_p)),
    "delete_utterance": (None, (_POINTER,)),
}


def lacking() -> str | None:
    """Why flite cannot be had here; None where it can."""
    try:
        for name in LIBRARIES:
            _load(name)
    except OSError as exc:
        return str(exc)
    return None


class Flite:
    """flite and its voices in this process. Touched only by its owner."""

    def __init__(self) -> None:
        try:
            self._flite, *_ = (_load(name) for name in _COMMON)
            voices = {name: _load(f"libflite_cmu_us_{name}.so.1") for name in FLITE_VOICES}
        except OSError as exc:
            raise RecipeError(f"flite: expected its libraries, found not all: {exc}") from exc
        for name, (result, arguments) in _SIGNATURES.items():
            function = getattr(self._flite, name)
            function.restype, function.argtypes = result, arguments
        self._flite.flite_init()
        self._voices = {}
        for name, library in voices.items():
            register = getattr(library, f"register_cmu_us_{name}")
            register.restype, register.argtypes = ctypes.POINTER(_Voice), (ctypes.c_char_p,)
            self._voices[name] = register(None)

    def speak(self, text: str, voice: Voice) -> Clip:
        """Say `text`. Raises RecipeError for a voice that is not there."""
        flite = self._flite
        if voice.name not in self._voices:
            raise RecipeError(f"flite: expected one of {FLITE_VOICES}, got {voice.name!r}")
        handle = self._voices[voice.name]
        features = handle.contents.features
        flite.feat_set_float(features, b"duration_stretch", 1 / voice.rate)
        pitch = _NORMAL_PITCH[voice.name] * voice.pitch
        flite.feat_set_float(features, b"int_f0_target_mean", pitch)
        # flite reads "well-known" as one token with a hyphen it cannot say.
        spoken_text = text.replace("-", " ")
        utterance = flite.flite_synth_text(spoken_text.encode(), ctypes.cast(handle, _POINTER))
        try:
            wave = flite.utt_wave(utterance).contents
            spoken = np.ctypeslib.as_array(wave.samples, (wave.num_samples,)).copy()
            sample_rate = int(wave.sample_rate)
            ends = self._token_ends(utterance)
        finally:
            flite.delete_utterance(utterance)
        samples = soxr.resample(spoken, sample_rate, SAMPLE_RATE)
        told = tuple(min(round(end * SAMPLE_RATE), len(samples)) for end in ends)
        whole = len(told) == len(text.split()) and all(told) and list(told) == sorted(told)
        return Clip(samples, told if whole else None)

    def _token_ends(self, utterance: Any) -> list[float]:
        flite = self._flite
        ends = []
        token = flite.relation_head(flite.utt_relation(utterance, b"Token"))
        while token:
            ends.append(float(flite.ffeature_float(token, _TOKEN_END)))
            token = flite.item_next(token)
        return ends


def _load(name: str) -> ctypes.CDLL:
    return ctypes.CDLL(name, mode=ctypes.RTLD_GLOBAL)
