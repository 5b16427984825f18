"""Voices: which there are, how one is drawn, and which nobody may hear in training."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Final, Protocol

from training.errors import RecipeError
from training.speech.clip import Clip


@dataclass(frozen=True, slots=True)
class Voice:
    """A voice of one synthesiser, as it is to speak.

    `rate` is the speed relative to the voice's own; `pitch` relative to its own as well;
    `liveliness` the range of its melody, where the synthesiser has one.
    """

    engine: str
    name: str
    rate: float = 1.0
    pitch: float = 1.0
    liveliness: float = 1.0

    def __str__(self) -> str:
        return f"{self.engine}:{self.name}"


class Synthesiser(Protocol):
    """Text to speech by one engine. Owned by one process."""

    def speak(self, text: str, voice: Voice) -> Clip:
        """Say `text`; word ends are told where the engine knows them. Raises RecipeError."""


ACCENTS: Final = (
    *("en-us", "en-us", "en-us", "en-us", "en", "en", "en-gb-x-rp"),
    *("en-gb-scotland", "en-gb-x-gbclan", "en-gb-x-gbcwmd", "en-029", "en-us-nyc"),
)
# Variants that sound like people; whispering, croaking and robots are left out.
VARIANTS: Final = (
    *("f1", "f2", "f3", "f4", "m1", "m2", "m3", "m4", "m5", "m7", "m8", "Alicia", "Andrea"),
    *("Andy", "Annie", "Denis", "Diogo", "Gene", "Gene2", "Henrique", "Hugo", "Jacky"),
    *("Lee", "Marco", "Mario", "Michael", "Mike", "Storm", "adam", "anika", "antonio"),
    *("aunty", "belinda", "benjamin", "boris", "caleb", "david", "ed", "edward", "edward2"),
    *("grandma", "grandpa", "gustave", "iven", "iven2", "iven3", "john", "kaukovalta"),
    *("klatt", "klatt2", "klatt3", "klatt4", "marcelo", "max", "michel", "miguel", "norbert"),
    *("pablo", "paul", "pedro", "quincy", "rob", "robert", "sandro", "shelby", "steph"),
    *("steph2", "steph3", "victor", "zac"),
)
HELD_OUT_VARIANTS: Final = ("f5", "m6", "linda", "travis")
FLITE_VOICES: Final = ("slt", "rms", "awb", "kal16")
FESTIVAL_VOICES: Final = ("kal_diphone",)
# By accent (American, British) and sex: every English voice but those that are held out.
KOKORO_VOICES: Final = (
    *("af_alloy", "af_aoede", "af_bella", "af_heart", "af_jessica", "af_kore", "af_nicole"),
    *("af_nova", "af_river", "af_sarah", "af_sky", "am_adam", "am_echo", "am_eric", "am_fenrir"),
    *("am_liam", "am_michael", "am_puck", "am_santa", "bf_alice", "bf_emma", "bf_isabella"),
    *("bm_daniel", "bm_fable", "bm_george", "bm_lewis"),
)
HELD_OUT_KOKORO_VOICES: Final = ("bf_lily", "am_onyx")

_RATES: Final = (0.75, 1.3)
# Kokoro's voices are nearest to people: where they are installed, half is spoken by them.
_KOKORO: Final = "kokoro"
_KOKORO_SHARE: Final = 0.5
# How often each of the others is drawn: flite's recorded voices are the most human, espeak-ng has
# the most speakers, festival's one voice is rough and slow to make.
_WEIGHTS: Final[Mapping[str, int]] = {"espeak": 30, "flite": 65, "festival": 2}


def draw_voice(rng: Random, engines: Sequence[str], *, held_out: bool = False) -> Voice:
    """A voice with a rate and a pitch; with `held_out` one that training never hears.

    Held out are some variants of espeak-ng and, as often, two voices of Kokoro; where neither is
    installed, voices slower than any in training.
    """
    known = [engine for engine in engines if engine in _WEIGHTS]
    if not known and _KOKORO not in engines:
        names = ", ".join((*_WEIGHTS, _KOKORO))
        raise RecipeError(f"expected one of {names} to be installed, found {', '.join(engines)}")
    # Beside Kokoro's, only espeak-ng's voices can be held out.
    beside = "espeak" in known if held_out else bool(known)
    if _KOKORO in engines and (not beside or rng.random() < _KOKORO_SHARE):
        if held_out:
            return Voice(_KOKORO, rng.choice(HELD_OUT_KOKORO_VOICES), rng.uniform(0.8, 1.2))
        # One voice or a blend of two.
        blended = "+".join(rng.sample(KOKORO_VOICES, rng.choice((1, 2))))
        return Voice(_KOKORO, blended, rng.uniform(*_RATES))
    if held_out and "espeak" in known:
        name = f"{rng.choice(ACCENTS)}+{rng.choice(HELD_OUT_VARIANTS)}"
        return Voice("espeak", name, rng.uniform(0.8, 1.2), rng.uniform(0.8, 1.2))
    (engine,) = rng.choices(known, [_WEIGHTS[engine] for engine in known])
    rate = rng.uniform(0.66, 0.72) if held_out else rng.uniform(*_RATES)
    pitch = rng.uniform(0.8, 1.25)
    match engine:
        case "espeak":
            variant = rng.choice((*VARIANTS, ""))
            name = rng.choice(ACCENTS) + (f"+{variant}" if variant else "")
            return Voice(engine, name, rate, pitch, rng.uniform(0.6, 1.5))
        case "flite":
            return Voice(engine, rng.choice(FLITE_VOICES), rate, pitch)
        case _:
            return Voice(engine, rng.choice(FESTIVAL_VOICES), rate)
