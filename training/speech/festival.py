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

# Scheme: synthesise, write the wave, print where each token's last word ends (in seconds).
_PROGRAM: Final = """
(define (token_ends token)
  (cond ((null token) nil)
        (t (format t " %s" (item.feat token "daughtern.word_end"))
           (token_ends (item.next token)))))
(define (say_to_file text file)
  (let ((spoken (utt.synth (eval (list 'Utterance 'Text text)))))
    (utt.wave.resample spoken 16000)
    (utt.save.wave spoken file 'riff)
    (format t "ends")
    (token_ends (utt.relation.first spoken 'Token))
    (format t "\\n")
    (fflush nil)))
"""


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
        """Say `text`. Raises RecipeError where festival ends instead."""
        wave = Path(self._directory.name) / "spoken.wav"
        spoken_text = text.replace("-", " ").replace('"', "")
        self._tell(
            f"(voice_{voice.name})\n(Parameter.set 'Duration_Stretch {1 / voice.rate:.3f})\n"
            f'(say_to_file "{spoken_text}" "{wave}")\n'
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
        for line in self._process.stdout or ():
            _, found, numbers = line.partition("ends")
            if found:
                return [float(number) for number in numbers.split()]
        raise RecipeError("festival: ended before it had spoken")
