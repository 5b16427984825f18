"""festival as a process that is asked sentence by sentence: one more voice, with word ends."""

import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final

import numpy as np

from engine.audio.file import read_audio
from engine.audio.units import SAMPLE_RATE
from training.errors import RecipeError
from training.speech.clip import Clip
from training.speech.voices import Voice

# Scheme: synthesise, write the wave, print where the words of each token end (in seconds). Marks
# are words too, which end at 0.
_PROGRAM: Final = """
(define (print_words words)
  (cond ((null words) nil)
        (t (format t " %s" (item.feat (car words) "word_end"))
           (print_words (cdr words)))))
(define (print_tokens token)
  (cond ((null token) nil)
        (t (format t "|")
           (print_words (item.daughters token))
           (print_tokens (item.next token)))))
(define (say_to_file text file)
  (let ((spoken (utt.synth (eval (list 'Utterance 'Text text)))))
    (utt.wave.resample spoken 16000)
    (utt.save.wave spoken file 'riff)
    (format t "ends")
    (print_tokens (utt.relation.first spoken 'Token))
    (format t "\\n")))
"""
_ANSWERED: Final = "answered"


def lacking() -> str | None:
    """Why festival cannot be had here; None where it can."""
    return None if shutil.which("festival") else "no such command"


class Festival:
    """One running festival. Touched only by its owner, who closes it."""

    def __init__(self) -> None:
        if (command := shutil.which("festival")) is None:
            raise RecipeError("festival: expected the command, found none")
        self._directory = tempfile.TemporaryDirectory(prefix="festival-")
        self._process = subprocess.Popen(
            [command, "--pipe"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._tell(_PROGRAM)

    def close(self) -> None:
        """End the process and remove its files."""
        self._process.stdin.close() if self._process.stdin else None
        self._process.wait()
        if self._process.stdout:
            self._process.stdout.close()
        self._directory.cleanup()

    def speak(self, text: str, voice: Voice) -> Clip:
        """Say `text`. Raises RecipeError where festival cannot."""
        wave = Path(self._directory.name) / "spoken.wav"
        spoken_text = text.replace("-", " ").replace('"', "")
        self._tell(
            f"(begin (voice_{voice.name})\n"
            f"(Parameter.set 'Duration_Stretch {1 / voice.rate:.3f})\n"
            f'(say_to_file "{spoken_text}" "{wave}"))\n'
            f'(format t "{_ANSWERED}\\n")\n(fflush nil)\n'
        )
        ends = self._answer()
        samples = np.rint(read_audio(wave) * 32767).astype(np.int16)
        told = tuple(min(round(end * SAMPLE_RATE), len(samples)) for end in ends)
        whole = len(told) == len(text.split()) and all(told) and list(told) == sorted(told)
        return Clip(samples, told if whole else None)

    def _tell(self, program: str) -> None:
        if self._process.stdin is None:
            raise RecipeError("festival: expected a pipe, found none")
        self._process.stdin.write(program)
        self._process.stdin.flush()

    def _answer(self) -> list[float]:
        """The end of each token; what festival says of an error is on its own stderr."""
        ends: list[float] | None = None
        for line in self._process.stdout or ():
            _, found, tokens = line.partition("ends|")
            if found:
                words = (token.split() for token in tokens.split("|"))
                ends = [max(map(float, token), default=0.0) for token in words]
            if _ANSWERED in line:
                break
        if ends is None:
            raise RecipeError("festival: could not speak")
        return ends
