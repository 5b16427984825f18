"""A Whisper checkpoint on disk to named tensors, sizes and generation settings.

Decides whether the files make a Whisper that can be computed, and gives all formats one shape:
Hugging Face directories (safetensors or pickled, whole or in shards) and OpenAI's `.pt`. Every
tensor is checked by name and shape, so that what is wrong is said here and not by a product
deep inside a step. Leaves building the model to `model.whisper`.
"""

import importlib.util
import logging
import pickle
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from engine.audio.units import FFT_SAMPLES, HOP_SAMPLES, SAMPLE_RATE
from engine.errors import CheckpointError
from engine.model.dims import ModelDims
from engine.model.hub import resolve_tokenizer, weight_files
from engine.text.tokenizer import MULTILINGUAL_NUM_TOKENS, Tokenizer, read_json_object
from engine.traits import CheckpointTraits

logger = logging.getLogger(__name__)

# openai/whisper decoding.py: `max_initial_timestamp` is 1.0 s, a timestamp is 0.02 s.
_OPENAI_MAX_INITIAL_TIMESTAMP: Final = 50

# Cross-attention heads that follow the audio, as layer:head (openai/whisper `__init__.py`).
_ALIGNMENT_HEADS: Final = {
    "tiny.en": "1:0 2:0 2:5 3:0 3:1 3:2 3:3 3:4",
    "tiny": "2:2 3:0 3:2 3:3 3:4 3:5",
    "base.en": "3:3 4:7 5:1 5:5 5:7",
    "base": "3:1 4:2 4:3 4:7 5:1 5:2 5:4 5:6",
    "small.en": "6:6 7:0 7:3 7:8 8:2 8:5 8:7 9:0 9:4 9:8 9:10 10:0 10:1 10:2 10:3 10:6 10:11 "
    "11:2 11:4",
    "small": "5:3 5:9 8:0 8:4 8:7 8:8 9:0 9:7 9:9 10:5",
    "medium.en": "11:4 14:1 14:12 14:14 15:4 16:0 16:4 16:9 17:12 17:14 18:7 18:10 18:15 20:0 "
    "20:3 20:9 20:14 21:12",
    "medium": "13:15 15:4 15:15 16:1 20:0 23:4",
    "large-v1": "9:19 11:2 11:4 11:17 22:7 22:11 22:17 23:2 23:15",
    "large-v2": "10:12 13:17 16:11 16:12 16:13 17:15 17:16 18:4 18:11 18:19 19:11 21:2 21:3 "
    "22:3 22:9 22:12 23:5 23:7 23:13 25:5 26:1 26:12 27:15",
    "large-v3": "7:0 10:17 12:18 13:12 16:1 17:14 19:11 21:4 24:1 25:6",
    "large-v3-turbo": "2:4 2:11 3:3 3:6 3:11 3:14",
}

_PUBLISHED_ALIASES: Final = {"large": "large-v3", "turbo": "large-v3-turbo"}

_DTYPES: Final = (torch.float32, torch.float16, torch.bfloat16)

_EXTRACTOR_FIXED: Final = {
    "sampling_rate": SAMPLE_RATE,
    "n_fft": FFT_SAMPLES,
    "hop_length": HOP_SAMPLES,
}

# OpenAI's module names, as far as they differ, in the order in which they are replaced.
_OPENAI_MODULES: Final = (
    (re.compile(r"\.blocks\."), ".layers."),
    (re.compile(r"\.cross_attn_ln\."), ".encoder_attn_layer_norm."),
    (re.compile(r"\.cross_attn\."), ".encoder_attn."),
    (re.compile(r"\.attn_ln\."), ".self_attn_layer_norm."),
    (re.compile(r"\.attn\."), ".self_attn."),
    (re.compile(r"\.query\."), ".q_proj."),
    (re.compile(r"\.key\."), ".k_proj."),
    (re.compile(r"\.value\."), ".v_proj."),
    (re.compile(r"\.out\."), ".out_proj."),
    (re.compile(r"\.mlp_ln\."), ".final_layer_norm."),
    (re.compile(r"\.mlp\.0\."), ".fc1."),
    (re.compile(r"\.mlp\.2\."), ".fc2."),
    (re.compile(r"^encoder\.ln_post\."), "encoder.layer_norm."),
    (re.compile(r"^decoder\.ln\."), "decoder.layer_norm."),
    (re.compile(r"\.token_embedding\."), ".embed_tokens."),
    (re.compile(r"\.positional_embedding$"), ".embed_positions.weight"),
)

_LAYER: Final = re.compile(r"(encoder|decoder)\.layers\.(\d+)\.")
_EMBEDDING: Final = "decoder.embed_tokens.weight"
_OUTPUT: Final = "proj_out.weight"


@dataclass(frozen=True, slots=True)
class GenerationDefaults:
    """How the checkpoint wants to be decoded; token ids throughout.

    `language` is the one the checkpoint always uses (an English-only model's `en`, or the
    file's own default); None: it is told or detected. `max_initial_timestamp_index` limits the
    first timestamp (20 ms each); None: no limit. `alignment_heads` are (layer, head) pairs of
    decoder cross-attention.
    """

    suppress_tokens: tuple[int, ...]
    begin_suppress_tokens: tuple[int, ...]
    is_multilingual: bool
    lang_to_id: dict[str, int]
    task_to_id: dict[str, int]
    language: str | None
    no_timestamps_token_id: int
    prev_sot_token_id: int
    max_initial_timestamp_index: int | None
    alignment_heads: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One checkpoint in memory.

    `weights` are on the CPU in their stored dtype, under Hugging Face's names without the
    leading "model." (`encoder.layers.0.self_attn.q_proj.weight`); exactly the tensors that
    `dims` asks for. `tokenizer_source` is what `tokenizer` was read from; `traits` are what
    it was trained for beside what every Whisper is.
    """

    name: str
    dims: ModelDims
    weights: dict[str, Tensor]
    generation: GenerationDefaults
    tokenizer: Tokenizer
    tokenizer_source: Path
    traits: CheckpointTraits


def load_checkpoint(
    path: Path, *, cache_dir: Path | None = None, offline: bool = False
) -> Checkpoint:
    """Read and check a Hugging Face directory or an OpenAI `.pt` file.

    The hub (cache in `cache_dir`; not the network with `offline`) is only asked for the
    tokenizer of a `.pt` file that has none beside it. Raises CheckpointError.
    """
    if path.is_dir():
        return _load_huggingface(path)
    if path.is_file() and path.suffix == ".pt":
        return _load_openai(path, cache_dir=cache_dir, offline=offline)
    found = "another kind of file" if path.exists() else "nothing"
    raise CheckpointError(f"{path}: expected a model directory or a .pt file, found {found}")


def expected_shapes(dims: ModelDims) -> dict[str, tuple[int, ...]]:
    """Every tensor of a Whisper of these sizes, by canonical name."""
    shapes: dict[str, tuple[int, ...]] = {}

    def linear(name: str, outputs: int, inputs: int, *, bias: bool = True) -> None:
        shapes[f"{name}.weight"] = (outputs, inputs)
        if bias:
            shapes[f"{name}.bias"] = (outputs,)

    def norm(name: str, width: int) -> None:
        shapes[f"{name}.weight"] = shapes[f"{name}.bias"] = (width,)

    def attention(name: str, width: int) -> None:
        for projection in ("q_proj", "k_proj", "v_proj", "out_proj"):
            linear(f"{name}.{projection}", width, width, bias=projection != "k_proj")
        norm(f"{name}_layer_norm", width)

    def layer(name: str, width: int, mlp: int, *, cross: bool) -> None:
        attention(f"{name}.self_attn", width)
        if cross:
            attention(f"{name}.encoder_attn", width)
        linear(f"{name}.fc1", mlp, width)
        linear(f"{name}.fc2", width, mlp)
        norm(f"{name}.final_layer_norm", width)

    audio, text = dims.n_audio_state, dims.n_text_state
    for conv, inputs in (("conv1", dims.n_mels), ("conv2", audio)):
        shapes[f"encoder.{conv}.weight"] = (audio, inputs, 3)
        shapes[f"encoder.{conv}.bias"] = (audio,)
    shapes["encoder.embed_positions.weight"] = (dims.n_audio_ctx, audio)
    for i in range(dims.n_audio_layer):
        layer(f"encoder.layers.{i}", audio, dims.n_audio_mlp, cross=False)
    norm("encoder.layer_norm", audio)
    shapes[_EMBEDDING] = (dims.n_vocab, text)
    shapes["decoder.embed_positions.weight"] = (dims.n_text_ctx, text)
    for i in range(dims.n_text_layer):
        layer(f"decoder.layers.{i}", text, dims.n_text_mlp, cross=True)
    norm("decoder.layer_norm", text)
    return shapes


def _load_huggingface(directory: Path) -> Checkpoint:
    config_file = directory / "config.json"
    if not config_file.is_file():
        raise CheckpointError(f"{directory}: expected config.json, found none")
    config = read_json_object(config_file)
    with _blaming(config_file):
        dims = ModelDims.from_config(config)
    _check_extractor(directory / "preprocessor_config.json", dims)
    settings = _settings_in(directory)
    tokenizer = _load_tokenizer(directory, dims, settings)
    paths = weight_files(directory)
    if not paths:
        raise CheckpointError(
            f"{directory}: expected model.safetensors or pytorch_model.bin, or an index of their "
            "shards, found none of them"
        )
    name = _name_of(directory)
    own = config.get("starling")
    return Checkpoint(
        name=name,
        dims=dims,
        weights=_checked_weights(dims, ((path, _read_tensors(path)) for path in paths)),
        generation=_generation_defaults(name, dims, tokenizer, config, settings),
        tokenizer=tokenizer,
        tokenizer_source=directory,
        traits=CheckpointTraits.from_config(own, f"{directory / 'config.json'}: starling"),
    )


def _load_openai(path: Path, *, cache_dir: Path | None, offline: bool) -> Checkpoint:
    stored = _read_pickle(path)
    if not (isinstance(stored.get("dims"), dict) and "model_state_dict" in stored):
        found = ", ".join(sorted(map(str, stored))[:6])
        raise CheckpointError(f"{path}: expected dims and model_state_dict, found {found}")
    with _blaming(path):
        dims = ModelDims.from_openai(stored["dims"])
        tensors = _tensors_only(stored["model_state_dict"])
    renamed = {_from_openai(name): tensor for name, tensor in tensors.items()}
    settings = _settings_in(path.parent)
    source = _openai_tokenizer(path, dims.n_vocab, cache_dir=cache_dir, offline=offline)
    tokenizer = _load_tokenizer(source, dims, settings)
    return Checkpoint(
        name=path.stem,
        dims=dims,
        weights=_checked_weights(dims, [(path, renamed)]),
        generation=_generation_defaults(path.stem, dims, tokenizer, {}, settings),
        tokenizer=tokenizer,
        tokenizer_source=source,
        traits=CheckpointTraits(),
    )


@contextmanager
def _blaming(path: Path) -> Iterator[None]:
    """Put the file in front of what was found wrong in it."""
    try:
        yield
    except CheckpointError as exc:
        raise CheckpointError(f"{path}: {exc}") from exc


def _name_of(directory: Path) -> str:
    """The repository where the directory is a snapshot in the hub cache, else its own name."""
    resolved = directory.resolve()
    repo = resolved.parent.parent.name
    if resolved.parent.name == "snapshots" and repo.startswith("models--"):
        return repo.removeprefix("models--").replace("--", "/")
    return resolved.name


def _settings_in(directory: Path) -> dict[str, Any] | None:
    path = directory / "generation_config.json"
    return read_json_object(path) if path.is_file() else None


def _load_tokenizer(source: Path, dims: ModelDims, settings: dict[str, Any] | None) -> Tokenizer:
    said = settings or {}
    return Tokenizer.load(
        source,
        n_vocab=dims.n_vocab,
        lang_to_id=said.get("lang_to_id"),
        is_multilingual=said.get("is_multilingual"),
    )


def _openai_tokenizer(path: Path, n_vocab: int, *, cache_dir: Path | None, offline: bool) -> Path:
    """The nearest tokenizer: beside the file, in an installed openai-whisper, from the hub."""
    if any((path.parent / name).is_file() for name in ("tokenizer.json", "vocab.json")):
        return path.parent
    asset = "multilingual.tiktoken" if n_vocab >= MULTILINGUAL_NUM_TOKENS else "gpt2.tiktoken"
    candidates = [path.with_name(asset)]
    package = importlib.util.find_spec("whisper")
    for location in (package.submodule_search_locations or ()) if package else ():
        candidates.append(Path(location) / "assets" / asset)
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    with _blaming(path):
        return resolve_tokenizer(n_vocab, cache_dir=cache_dir, offline=offline)


def _check_extractor(path: Path, dims: ModelDims) -> None:
    """Refuse features that are not the engine's own; the file itself may be missing."""
    if not path.is_file():
        return
    extractor = read_json_object(path)
    for field, expected in {"feature_size": dims.n_mels, **_EXTRACTOR_FIXED}.items():
        if (found := extractor.get(field, expected)) != expected:
            raise CheckpointError(f"{path}: {field}: expected {expected}, found {found!r}")


def _read_tensors(path: Path) -> dict[str, Tensor]:
    """One weight file, under Hugging Face's names."""
    if not path.is_file():
        raise CheckpointError(f"{path}: named by the index, but missing")
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except (SafetensorError, OSError) as exc:
            raise CheckpointError(f"{path}: truncated or not safetensors: {exc}") from exc
    stored = _read_pickle(path)
    with _blaming(path):
        return _tensors_only(stored)


def _read_pickle(path: Path) -> dict[str, Any]:
    try:
        stored = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, OSError, ValueError, KeyError) as exc:
        reason = str(exc).split("\n")[0]
        raise CheckpointError(f"{path}: truncated or not a file of tensors: {reason}") from exc
    if not isinstance(stored, dict):
        raise CheckpointError(f"{path}: expected a dict, found {type(stored).__name__}")
    return stored


def _tensors_only(stored: object) -> dict[str, Tensor]:
    if not isinstance(stored, Mapping):
        raise CheckpointError(f"expected named tensors, found {type(stored).__name__}")
    for name, value in stored.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise CheckpointError(f"{name}: expected a tensor, found {type(value).__name__}")
    return dict(stored)


def _from_openai(name: str) -> str:
    for pattern, replacement in _OPENAI_MODULES:
        name = pattern.sub(replacement, name)
    return name


def _checked_weights(
    dims: ModelDims, files: Iterable[tuple[Path, dict[str, Tensor]]]
) -> dict[str, Tensor]:
    """The tensors that `dims` asks for, all of them; others are refused or left out."""
    shapes = expected_shapes(dims)
    weights: dict[str, Tensor] = {}
    outputs: list[tuple[Path, Tensor]] = []
    extras: list[str] = []
    paths: list[Path] = []
    for path, tensors in files:
        paths.append(path)
        for stored_name, tensor in tensors.items():
            name = stored_name.removeprefix("model.")
            if name == _OUTPUT:
                outputs.append((path, tensor))
            elif name in shapes:
                _check_tensor(f"{path}: {stored_name}", tensor, shapes[name])
                weights[name] = tensor
            else:
                _refuse_extra_layer(path, stored_name, name, dims)
                extras.append(stored_name)
    for path, tensor in outputs:
        _check_tensor(f"{path}: {_OUTPUT}", tensor, shapes[_EMBEDDING])
        # Files may keep either name of the one matrix that Whisper uses for both.
        if not torch.equal(tensor, weights.setdefault(_EMBEDDING, tensor)):
            raise CheckpointError(
                f"{path}: {_OUTPUT}: expected the values of {_EMBEDDING}, which Whisper ties to "
                "it, found others"
            )
    if missing := sorted(shapes.keys() - weights.keys()):
        raise CheckpointError(
            f"{', '.join(map(str, paths))}: {len(missing)} of {len(shapes)} tensors missing, "
            f"first of them {missing[0]}"
        )
    if extras:
        logger.warning("%s: %d tensors left unused: %s", paths[0], len(extras), extras[:4])
    return weights


def _check_tensor(where: str, tensor: Tensor, shape: tuple[int, ...]) -> None:
    if tuple(tensor.shape) != shape:
        raise CheckpointError(f"{where}: expected shape {shape}, found {tuple(tensor.shape)}")
    if tensor.dtype not in _DTYPES:
        accepted = ", ".join(str(dtype).removeprefix("torch.") for dtype in _DTYPES)
        raise CheckpointError(f"{where}: expected one of {accepted}, found {tensor.dtype}")


def _refuse_extra_layer(path: Path, stored_name: str, name: str, dims: ModelDims) -> None:
    if (match := _LAYER.match(name)) is None:
        return
    num_layers = dims.n_audio_layer if match[1] == "encoder" else dims.n_text_layer
    if int(match[2]) >= num_layers:
        raise CheckpointError(
            f"{path}: {stored_name}: expected {num_layers} {match[1]} layers, found more"
        )


def _generation_defaults(
    name: str,
    dims: ModelDims,
    tokenizer: Tokenizer,
    config: Mapping[str, Any],
    settings: Mapping[str, Any] | None,
) -> GenerationDefaults:
    """The file's own settings as `transformers` reads them; without a file, OpenAI's."""
    openai = {
        "suppress_tokens": (
            *tokenizer.non_speech_tokens,
            *(tokenizer.sot, tokenizer.translate, tokenizer.transcribe),
            *(tokenizer.sot_lm, tokenizer.sot_prev, tokenizer.no_speech),
        ),
        "begin_suppress_tokens": (*tokenizer.encode(" "), tokenizer.eot),
    }
    if settings is None:
        # config.json had these two lists before there was a generation_config.json.
        settings = {
            key: default if config.get(key) is None else config[key]
            for key, default in openai.items()
        }
        settings["max_initial_timestamp_index"] = _OPENAI_MAX_INITIAL_TIMESTAMP
    language = str(settings.get("language") or "").strip("<|>")
    if not tokenizer.is_multilingual:
        language = "en"
    tasks = {"transcribe": tokenizer.transcribe, "translate": tokenizer.translate}
    return GenerationDefaults(
        suppress_tokens=_token_ids(settings.get("suppress_tokens"), dims.n_vocab),
        begin_suppress_tokens=_token_ids(settings.get("begin_suppress_tokens"), dims.n_vocab),
        is_multilingual=tokenizer.is_multilingual,
        lang_to_id=tokenizer.languages,
        task_to_id=tasks,
        language=language if language in tokenizer.languages else None,
        no_timestamps_token_id=tokenizer.no_timestamps,
        prev_sot_token_id=tokenizer.sot_prev,
        max_initial_timestamp_index=settings.get("max_initial_timestamp_index"),
        alignment_heads=_alignment_heads(name, dims, settings.get("alignment_heads")),
    )


def _token_ids(listed: Collection[int] | None, n_vocab: int) -> tuple[int, ...]:
    """In order, once each; ids that the model lacks (OpenAI writes -1) are left out."""
    return tuple(sorted({token for token in listed or () if 0 <= token < n_vocab}))


def _alignment_heads(
    name: str, dims: ModelDims, listed: Collection[Collection[int]] | None
) -> tuple[tuple[int, int], ...]:
    """The file's heads, else the published ones of that name, else OpenAI's guess.

    OpenAI's guess is every head of the upper half of the layers.
    """
    num_layers, num_heads = dims.n_text_layer, dims.n_text_head
    if listed:
        heads = tuple((int(layer), int(head)) for layer, head in listed)
        for layer, head in heads:
            if not (0 <= layer < num_layers and 0 <= head < num_heads):
                raise CheckpointError(
                    f"alignment_heads: expected layers below {num_layers} and heads below "
                    f"{num_heads}, found {[layer, head]}"
                )
        return heads
    short = name.rpartition("/")[2].removeprefix("whisper-")
    published = _ALIGNMENT_HEADS.get(_PUBLISHED_ALIASES.get(short, short), "")
    heads = tuple((int(a), int(b)) for a, b in (pair.split(":") for pair in published.split()))
    # A file may have any name: its sizes decide whether it can be the published model.
    if heads and all(layer < num_layers and head < num_heads for layer, head in heads):
        return heads
    return tuple(
        (layer, head) for layer in range(num_layers // 2, num_layers) for head in range(num_heads)
    )
