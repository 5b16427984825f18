"""What a checkpoint was trained for, where that differs from a published Whisper.

Read from the object "starling" in its config.json; a checkpoint without one is Whisper as it
was published.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from engine.audio.units import MAX_WINDOW_SAMPLES, SAMPLE_RATE, Samples, samples_from_seconds
from engine.errors import CheckpointError

_KEYS = (
    "trimmed_context",
    "max_window_s",
    "carries_text",
    "timestamps",
    "incremental_partials",
)


@dataclass(frozen=True, slots=True)
class CheckpointTraits:
    """How a checkpoint wants to be used.

    `trimmed_context`: trained on audio that is not padded to 30 s, so a short context is exact.
    `max_window`: the longest audio it is good for; longer speech is cut. `carries_text`: it was
    trained with previous text as a prompt, so a cut segment's text prompts the next one.
    `timestamps`: its timestamp tokens are worth asking for where nobody said otherwise.
    `incremental_partials`: measured to say as much of a window that is encoded bit by bit.
    """

    trimmed_context: bool = False
    max_window: Samples = MAX_WINDOW_SAMPLES
    carries_text: bool = True
    timestamps: bool = True
    incremental_partials: bool = False

    @classmethod
    def from_config(cls, value: object, where: str) -> "CheckpointTraits":
        """Read the object; `where` names it in errors. Raises CheckpointError."""
        if value is None:
            return cls()
        if not isinstance(value, Mapping) or not set(value) <= set(_KEYS):
            raise CheckpointError(
                f"{where}: expected an object with keys of {', '.join(_KEYS)}, found {value!r}"
            )
        return cls(
            trimmed_context=_flag(value, "trimmed_context", where, default=False),
            max_window=_window(value.get("max_window_s"), where),
            carries_text=_flag(value, "carries_text", where, default=True),
            timestamps=_flag(value, "timestamps", where, default=True),
            incremental_partials=_flag(value, "incremental_partials", where, default=False),
        )


def _flag(value: Mapping[str, Any], key: str, where: str, *, default: bool) -> bool:
    flag = value.get(key, default)
    if not isinstance(flag, bool):
        raise CheckpointError(f"{where}.{key}: expected true or false, found {flag!r}")
    return flag


def _window(seconds: object, where: str) -> Samples:
    if seconds is None:
        return MAX_WINDOW_SAMPLES
    most = MAX_WINDOW_SAMPLES // SAMPLE_RATE
    if (
        isinstance(seconds, bool)
        or not isinstance(seconds, int | float)
        or not 2 <= seconds <= most
    ):
        raise CheckpointError(f"{where}.max_window_s: expected 2 to {most}, found {seconds!r}")
    return samples_from_seconds(seconds)
