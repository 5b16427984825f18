"""The model card: what the checkpoint was trained on, for how long, and what was measured."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from training.errors import RecipeError
from training.human import People
from training.model.state import RunState

# What a run that begins from a checkpoint adds to.
_ADDED_UP: Final = frozenset({"synthetic speech", "human speech", "trained"})
# Columns of the bench's rows that the card shows.
_WORD_ERRORS: Final = "WER %"
_RECORDING_COLUMNS: Final = (
    *("way", "audio", "group", "number", "words", _WORD_ERRORS, "CER %", "flicker %"),
)
_SOUND_COLUMNS: Final = ("way", "sound", "minutes", "words")


@dataclass(frozen=True, slots=True)
class CardFacts:
    """What only whoever trained it knows.

    `synthetic_hours` of distinct audio by synthesiser, of `num_sentences` texts.
    """

    name: str
    num_sentences: int
    synthetic_hours: Mapping[str, float]


def model_card(
    facts: CardFacts,
    state: RunState,
    num_parameters: int,
    measurements: Mapping[str, Any],
    num_averaged: int = 1,
) -> str:
    """The card in Markdown. Without measurements it says that there are none.

    `num_averaged` checkpoints went into the weights.
    """
    dims = state.dims
    rows = [
        (
            "sizes",
            f"d_model {dims.n_audio_state}, {dims.n_audio_head} heads, {dims.n_audio_layer} "
            f"encoder and {dims.n_text_layer} decoder layers, {dims.n_mels} mel bins, "
            f"{dims.n_vocab:,} tokens",
        ),
        ("language", "English, transcription; `translate` exists as a token only"),
        (
            "prompt forms trained",
            "`sot` alone and `sot en transcribe`; with and without timestamps",
        ),
        ("context", "trimmed to the audio (97 %), padded to 30 s (3 %)"),
        (
            "synthetic speech",
            f"{sum(facts.synthetic_hours.values()):.1f} h of {facts.num_sentences:,} sentences: "
            + ", ".join(f"{name} {hours:.1f} h" for name, hours in _longest_first(facts)),
        ),
        ("human speech", _people(state.people) if state.people else "none"),
        (
            "trained",
            f"{state.step:,} steps in {state.seconds_trained / 60:.0f} minutes on {state.device}; "
            f"{state.seconds_heard / 3600:.1f} h heard, augmented"
            + (f"; the mean of {num_averaged} points of the run" if num_averaged > 1 else ""),
        ),
    ]
    before = {} if state.base is None else _rows_of(Path(state.base))
    table = "\n".join(
        f"| {name} | first: {before[name]}; then: {value} |"
        if name in before
        else f"| {name} | {value} |"
        for name, value in rows
    )
    return (
        f"# {facts.name}\n\n"
        f"A {num_parameters / 1e6:.1f} million parameter English speech recognition checkpoint of "
        "Whisper's architecture, in the Hugging Face format, float16, made by the recipe in "
        "`training/`. **It is a demonstration model**: it makes a streaming service run, test and "
        "benchmark with no download. For real use take a published Whisper checkpoint.\n\n"
        f"| | |\n| --- | --- |\n{table}\n\n"
        f"{_measured(measurements)}"
    )


def _rows_of(checkpoint: Path) -> dict[str, str]:
    """What its card says of what a further run adds to. Raises RecipeError."""
    path = checkpoint / "README.md"
    try:
        lines = path.read_text("utf-8").splitlines()
    except OSError as exc:
        raise RecipeError(f"{path}: expected the card of the checkpoint begun from: {exc}") from exc
    cells = (line.strip("| ").split(" | ") for line in lines if line.startswith("| "))
    rows = {row[0]: row[1] for row in cells if len(row) == 2}
    if lacking := _ADDED_UP - rows.keys():
        raise RecipeError(f"{path}: expected rows {', '.join(sorted(lacking))}, found none")
    return {name: rows[name] for name in _ADDED_UP}


def _longest_first(facts: CardFacts) -> list[tuple[str, float]]:
    return sorted(facts.synthetic_hours.items(), key=lambda item: -item[1])


def _people(people: People) -> str:
    listed = (
        f"{source} ({hours:.1f} h, {licence}, {weight}-fold)"
        for (source, licence, weight), hours in sorted(people.items())
    )
    return (
        f"{'; '.join(listed)}; n-fold: heard n times for one time that a synthetic sentence is, "
        "single words in strings that are a fixed share of all"
    )


def _measured(measurements: Mapping[str, Any]) -> str:
    """Tables of what `starling bench wer` wrote: word errors, and words where nobody speaks."""
    rows = [row for row in measurements.get("rows", ()) if _WORD_ERRORS in row]
    silent = [row for row in measurements.get("rows", ()) if _WORD_ERRORS not in row]
    tables = [
        *_table(rows, _RECORDING_COLUMNS),
        *_table([*measurements.get("invented", ()), *silent], _SOUND_COLUMNS),
    ]
    if not tables:
        return "Nothing has been measured on it yet.\n"
    return "Measured with `starling bench wer`:\n\n" + "\n".join(tables)


def _table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> list[str]:
    if not rows:
        return []
    lines = [
        f"| {' | '.join(columns)} |",
        f"| {' | '.join('---' for _ in columns)} |",
        *(f"| {' | '.join(_figure(row.get(column)) for column in columns)} |" for row in rows),
    ]
    return ["\n".join(lines) + "\n"]


def _figure(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.1f}"
    if isinstance(value, int):
        return f"{value:,}"
    return "" if value is None else str(value)
