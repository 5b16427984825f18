"""The model card: what the checkpoint was trained on, for how long, and what was measured."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from training.model.state import RunState

# Figures of a set that the card shows where the measurements have them, and how.
_PERCENTAGES: Final = ("wer", "cer", "flicker")
_COLUMNS: Final = ("words", "wer", "cer", "flicker", "rtfx", "invented_words")


@dataclass(frozen=True, slots=True)
class CardFacts:
    """What only whoever trained it knows.

    `human_origins` is hours by (source, licence); `synthetic_hours` are distinct audio.
    """

    name: str
    num_sentences: int
    synthetic_hours: float
    human_origins: Mapping[tuple[str, str], float]
    human_weight: int
    device: str


def model_card(
    facts: CardFacts,
    state: RunState,
    num_parameters: int,
    measurements: Mapping[str, Any] | None,
) -> str:
    """The card in Markdown. Without measurements it says that there are none."""
    dims = state.dims
    human_hours = sum(facts.human_origins.values())
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
            f"{facts.synthetic_hours:.1f} h of {facts.num_sentences:,} sentences, spoken by "
            "espeak-ng, flite and festival as far as they were installed",
        ),
        ("human speech", _origins(facts) if human_hours else "none"),
        (
            "trained",
            f"{state.step:,} steps in {state.seconds_trained / 60:.0f} minutes on {facts.device}; "
            f"{state.seconds_heard / 3600:.1f} h heard, augmented",
        ),
    ]
    table = "\n".join(f"| {name} | {value} |" for name, value in rows)
    return (
        f"# {facts.name}\n\n"
        f"A {num_parameters / 1e6:.1f} million parameter English speech recognition checkpoint of "
        "Whisper's architecture, in the Hugging Face format, float16, made by the recipe in "
        "`training/`. **It is a demonstration model**: it makes a streaming service run, test and "
        "benchmark with no download. For real use take a published Whisper checkpoint.\n\n"
        f"| | |\n| --- | --- |\n{table}\n\n"
        f"{_measured(measurements)}"
    )


def _origins(facts: CardFacts) -> str:
    listed = (
        f"{source} ({hours:.1f} h, {licence})"
        for (source, licence), hours in sorted(facts.human_origins.items())
    )
    return f"{'; '.join(listed)}; heard {facts.human_weight} times as often as synthetic speech"


def _measured(measurements: Mapping[str, Any] | None) -> str:
    sets = list(_sets(measurements or {}))
    if not sets:
        return "Nothing has been measured on it yet.\n"
    columns = [c for c in _COLUMNS if any(c in figures for _, figures in sets)]
    lines = [
        f"| set | {' | '.join(column.replace('_', ' ') for column in columns)} |",
        f"| --- |{' --- |' * len(columns)}",
        *(
            f"| {name} | {' | '.join(_figure(figures, c) for c in columns)} |"
            for name, figures in sets
        ),
    ]
    return "Measured with `starling bench wer`:\n\n" + "\n".join(lines) + "\n"


def _sets(measurements: Mapping[str, Any]) -> Iterable[tuple[str, Mapping[str, Any]]]:
    """(name, figures) of everything in the document that has a word error rate of its own.

    Sets may be nested, as sources in a manifest are; their names are then joined.
    """
    for name, value in measurements.items():
        if isinstance(value, Mapping):
            if any(column in value for column in ("wer", "invented_words")):
                yield name, value
            for below, figures in _sets(value):
                yield f"{name}, {below}", figures
        elif isinstance(value, list):
            named = {
                str(v.get("name", i)): v for i, v in enumerate(value) if isinstance(v, Mapping)
            }
            yield from _sets(named)


def _figure(figures: Mapping[str, Any], column: str) -> str:
    value = figures.get(column)
    if not isinstance(value, int | float):
        return ""
    if column in _PERCENTAGES:
        return f"{100 * value:.1f} %"
    return f"{value:,}" if isinstance(value, int) else f"{value:.1f}"
