"""Every default of the engine, written once, each with its reason."""

from dataclasses import dataclass, replace
from typing import Final, Literal

from engine.audio.units import Positions, Samples, samples_from_ms
from engine.errors import ConfigError
from engine.events import Context

Device = Literal["auto", "cpu", "cuda"]
Dtype = Literal["auto", "float32", "bfloat16", "float16"]
Attention = Literal["auto", "flash", "sdpa", "triton", "eager"]
Weights = Literal["auto", "int8", "int4"]
KvDtype = Literal["auto", "float32", "bfloat16", "float16", "fp8"]
PartialContext = Literal["auto", "trimmed", "incremental"]
Toggle = Literal["auto", "on", "off"]

DEVICES: Final = ("auto", "cpu", "cuda")
DTYPES: Final = ("auto", "float32", "bfloat16", "float16")
CONTEXTS: Final = ("auto", "full", "trimmed")
ATTENTIONS: Final = ("auto", "flash", "sdpa", "triton", "eager")
WEIGHTS: Final = ("auto", "int8", "int4")
KV_DTYPES: Final = ("auto", "float32", "bfloat16", "float16", "fp8")
PARTIAL_CONTEXTS: Final = ("auto", "trimmed", "incremental")
TOGGLES: Final = ("auto", "on", "off")


@dataclass(frozen=True, slots=True)
class QualityThresholds:
    """When a hypothesis is retried or dropped; the values are openai/whisper `transcribe.py`'s."""

    compression_ratio: float = 2.4
    avg_logprob: float = -1.0
    no_speech: float = 0.6


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """What to load, where to run it and how hard to try; frozen before the engine starts.

    `num_slots`, `threads`, `max_batch`, `encode_slice_ms`: 0 lets the engine choose.
    `attention` names a back end of a GPU. `weights` "auto" keeps them in `dtype`, `kv_dtype`
    "auto" keys and values too (on a CPU in float32). `temperatures` is the fallback ladder of
    finals, tried in order until the quality gates pass. `base_tokens` are allowed for any audio,
    however short, beside the `tokens_per_second`.
    """

    model: str = "auto"
    device: Device = "auto"
    dtype: Dtype = "auto"
    cache_dir: str | None = None
    attention: Attention = "auto"
    cuda_graphs: Toggle = "auto"
    weights: Weights = "auto"
    kv_dtype: KvDtype = "auto"
    num_slots: int = 0
    threads: int = 0
    context: Context = "auto"
    # "incremental" encodes only what is new of a growing window: an approximation, for partials.
    # "auto" takes it for checkpoints that say they lose nothing by it (engine.traits).
    partial_context: PartialContext = "auto"
    use_drafts: bool = True  # off only to measure what drafts save
    max_new_tokens: int = 224  # half of the text context, as openai/whisper's `sample_len`
    base_tokens: int = 16  # a short word with its punctuation, and room
    tokens_per_second: float = 25.0  # fast speech is 4 to 7; above 25 the decoder is inventing
    repetition_guard: bool = True
    thresholds: QualityThresholds = QualityThresholds()
    # Two retries, not Whisper's five: a live final must not wait for sampling that rarely helps.
    temperatures: tuple[float, ...] = (0.0, 0.4, 0.8)
    # 2.56 s of silence after the audio; stock checkpoints loop when the context ends too early
    # (ggml-org/whisper.cpp#1855).
    context_margin: Positions = Positions(128)
    # A checkpoint trained with trimmed contexts needs only that its last word is not at the edge.
    trained_context_margin: Positions = Positions(16)
    # Encoded again with every extension of a window: 1.28 s, whose right-hand side has changed.
    # With half of it words differed more often from what the whole window says (docs/log.md).
    look_back: Positions = Positions(64)
    first_partial: Samples = samples_from_ms(800)  # shorter windows hold a syllable: pure guess
    commit_guard: Samples = samples_from_ms(300)  # what the last 300 ms say may still change
    # What is said in the last 3 s of a segment waits for its cut: words to find a pause between.
    cut_room: Samples = samples_from_ms(3000)
    language_lock: Samples = samples_from_ms(2000)  # detection on less flips (FIELD.md, row 20)
    # How long a slice of encoding may take, one row at least: nothing waits longer for one.
    encode_slice_ms: float = 0.0
    encode_slice: Positions = Positions(512)  # the first slices, before their time is known
    max_batch: int = 0  # rows of one prefill, verify or decode step

    def __post_init__(self) -> None:
        for name, value, accepted in (
            ("device", self.device, DEVICES),
            ("dtype", self.dtype, DTYPES),
            ("context", self.context, CONTEXTS),
            ("partial_context", self.partial_context, PARTIAL_CONTEXTS),
            ("attention", self.attention, ATTENTIONS),
            ("cuda_graphs", self.cuda_graphs, TOGGLES),
            ("weights", self.weights, WEIGHTS),
            ("kv_dtype", self.kv_dtype, KV_DTYPES),
        ):
            if value not in accepted:
                raise ConfigError(f"{name}: got {value!r}, accepted are {', '.join(accepted)}")
        for name, number, least in (
            ("num_slots", self.num_slots, 0),
            ("threads", self.threads, 0),
            ("max_new_tokens", self.max_new_tokens, 1),
            ("max_batch", self.max_batch, 0),
            ("encode_slice_ms", self.encode_slice_ms, 0),
        ):
            if number < least:
                raise ConfigError(f"{name}: got {number}, the least accepted is {least}")
        if self.device == "cpu" and self.attention not in ("auto", "sdpa"):
            raise ConfigError(
                f"attention: got {self.attention!r}, accepted on a CPU are auto, sdpa"
            )
        if not self.temperatures or self.temperatures[0] != 0.0:
            raise ConfigError(
                f"temperatures: got {self.temperatures}, the first must be 0.0 (greedy)"
            )

    def resolve(self, device: str, *, incremental: bool = False) -> "EngineConfig":
        """The same with what "auto" and 0 stand for filled in.

        `device` is "cpu" or "cuda"; `incremental`: what the checkpoint says of its partials.
        """
        on_gpu = device == "cuda"
        partial_context = self.partial_context
        if partial_context == "auto":
            partial_context = "incremental" if incremental else "trimmed"
        return replace(
            self,
            partial_context=partial_context,
            max_batch=self.max_batch or (256 if on_gpu else 64),
            # A CPU saves little with more rows at once. On a GPU 5 ms held a single window, which
            # took 2.9 (docs/log.md); what 20 give has not been measured.
            encode_slice_ms=self.encode_slice_ms or (20.0 if on_gpu else 80.0),
        )
