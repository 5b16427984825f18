"""Every default of the engine, written once, each with its reason."""

from dataclasses import dataclass
from typing import Final, Literal

from engine.audio.units import Positions, Samples, samples_from_ms
from engine.errors import ConfigError
from engine.events import Context

Device = Literal["auto", "cpu", "cuda"]
Dtype = Literal["auto", "float32", "bfloat16", "float16"]

DEVICES: Final = ("auto", "cpu", "cuda")
DTYPES: Final = ("auto", "float32", "bfloat16", "float16")
CONTEXTS: Final = ("auto", "full", "trimmed")


@dataclass(frozen=True, slots=True)
class QualityThresholds:
    """When a hypothesis is retried or dropped; the values are openai/whisper `transcribe.py`'s."""

    compression_ratio: float = 2.4
    avg_logprob: float = -1.0
    no_speech: float = 0.6


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """What to load, where to run it and how hard to try; frozen before the engine starts.

    `num_slots`, `threads`: 0 lets the engine choose. `temperatures` is the fallback ladder of
    finals, tried in order until the quality gates pass.
    """

    model: str = "auto"
    device: Device = "auto"
    dtype: Dtype = "auto"
    cache_dir: str | None = None
    num_slots: int = 0
    threads: int = 0
    context: Context = "auto"
    use_drafts: bool = True  # off only to measure what drafts save
    max_new_tokens: int = 224  # half of the text context, as openai/whisper's `sample_len`
    tokens_per_second: int = 25  # fast speech is 4 to 7; above 25 the decoder is inventing
    repetition_guard: bool = True
    thresholds: QualityThresholds = QualityThresholds()
    # Two retries, not Whisper's five: a live final must not wait for sampling that rarely helps.
    temperatures: tuple[float, ...] = (0.0, 0.4, 0.8)
    # 2.56 s of silence after the audio; stock checkpoints loop when the context ends too early
    # (ggml-org/whisper.cpp#1855).
    context_margin: Positions = Positions(128)
    # A checkpoint trained with trimmed contexts needs only that its last word is not at the edge.
    trained_context_margin: Positions = Positions(16)
    first_partial: Samples = samples_from_ms(800)  # shorter windows hold a syllable: pure guess
    commit_guard: Samples = samples_from_ms(300)  # what the last 300 ms say may still change
    # What is said in the last 3 s of a segment waits for its cut: words to find a pause between.
    cut_room: Samples = samples_from_ms(3000)
    language_lock: Samples = samples_from_ms(2000)  # detection on less flips (FIELD.md, row 20)
    # Positions in one encode slice, but one row at least: no final waits for more of a partial's.
    # About 50 ms on a CPU, where more rows at once save little.
    encode_slice: Positions = Positions(512)
    max_batch: int = 64  # rows of one prefill, verify or decode step

    def __post_init__(self) -> None:
        for name, value, accepted in (
            ("device", self.device, DEVICES),
            ("dtype", self.dtype, DTYPES),
            ("context", self.context, CONTEXTS),
        ):
            if value not in accepted:
                raise ConfigError(f"{name}: got {value!r}, accepted are {', '.join(accepted)}")
        for name, number, least in (
            ("num_slots", self.num_slots, 0),
            ("threads", self.threads, 0),
            ("max_new_tokens", self.max_new_tokens, 1),
            ("max_batch", self.max_batch, 1),
        ):
            if number < least:
                raise ConfigError(f"{name}: got {number}, the least accepted is {least}")
        if not self.temperatures or self.temperatures[0] != 0.0:
            raise ConfigError(
                f"temperatures: got {self.temperatures}, the first must be 0.0 (greedy)"
            )
