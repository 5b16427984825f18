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
from collections.abc import Iterable, Iterator, Mapping
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
from engine.model.generation import GenerationDefaults, generation_defaults
from engine.model.hub import resolve_tokenizer, weight_files
from engine.text.tokenizer import MULTILINGUAL_NUM_TOKENS, Tokenizer
from engine.text.vocabulary import read_json_object
from engine.traits import CheckpointTraits

logger = logging.getLogger(__name__)

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
class Checkpoint:
    """One checkpoint in memory.

    `weights` are on the CPU in their stored dtype, under Hugging Face's names without the
    leading "model." (`encoder.layers.0.self_attn.q_proj.weight`); exactly the tensors that
    `dims` asks for. `traits` are what it was trained for beside what every Whisper is.
    """

    name: str
    dims: ModelDims
    weights: dict[str, Tensor]
    generation: GenerationDefaults
    tokenizer: Tokenizer
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
        generation=generation_defaults(name, dims, tokenizer, config, settings),
        tokenizer=tokenizer,
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
        generation=generation_defaults(path.stem, dims, tokenizer, {}, settings),
        tokenizer=tokenizer,
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
