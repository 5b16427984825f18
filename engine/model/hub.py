"""From the name a person gives a model to a directory or file on this machine.

Decides what a name means (the embedded model, a path, a published short name, a hub id, or
`auto`), which files of a repository are needed, and when to do without the hub. Nothing here
waits for an unreachable network longer than the two time-outs below.
"""

import importlib.resources
import json
import logging
import re
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from pathlib import Path
from typing import Final, TypeVar

import huggingface_hub
from huggingface_hub import constants

from engine.errors import CheckpointError

logger = logging.getLogger(__name__)

T = TypeVar("T")

EMBEDDED: Final = "embedded"
AUTO: Final = "auto"

SHORT_NAMES: Final = {
    **{
        name: f"openai/whisper-{name}"
        for name in (
            *("tiny", "tiny.en", "base", "base.en", "small", "small.en", "medium", "medium.en"),
            *("large-v2", "large-v3", "large-v3-turbo"),
        )
    },
    "large-v1": "openai/whisper-large",
    "large": "openai/whisper-large-v3",
    "turbo": "openai/whisper-large-v3-turbo",
    **{
        name: f"distil-whisper/{name}"
        for name in (
            *("distil-small.en", "distil-medium.en"),
            *("distil-large-v2", "distil-large-v3", "distil-large-v3.5"),
        )
    },
}

# The best that answers in real time: an H200 or a laptop GPU runs turbo, two cores run base.
_AUTO_ON_GPU: Final = "large-v3-turbo"
_AUTO_ON_CPU: Final = "base"

# OpenAI's three vocabularies by size, each in the smallest repository that has it.
_TOKENIZER_REPOS: Final = {
    51_864: "openai/whisper-tiny.en",
    51_865: "openai/whisper-tiny",
    51_866: "openai/whisper-large-v3",
}

# Nobody asked for the network with `auto`: a start without it must not feel slow.
_AUTO_TIMEOUT_S: Final = 3.0
# A model asked for by name is worth a slow connection's patience, which is not for ever.
_NAMED_TIMEOUT_S: Final = 15.0

_HUB_ID: Final = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)

_TOKENIZER_FILES: Final = (
    "tokenizer.json",
    "vocab.json",
    "merges.txt",
    "added_tokens.json",
)
_CONFIG_FILES: Final = ("config.json", "generation_config.json", "preprocessor_config.json")

# (one file, index of shards, pattern of a shard), the preferred form first. The pattern leaves
# out the fp32 duplicates (`model.fp32-00001-of-00002.safetensors`) of large-v3.
_WEIGHT_FORMS: Final = (
    (
        "model.safetensors",
        "model.safetensors.index.json",
        re.compile(r"model-\d+-of-\d+\.safetensors"),
    ),
    (
        "pytorch_model.bin",
        "pytorch_model.bin.index.json",
        re.compile(r"pytorch_model-\d+-of-\d+\.bin"),
    ),
)


def needed_files(files: Iterable[str]) -> list[str]:
    """Of a repository's files, those that make the model: one form of the weights, no duplicates.

    Empty when the repository has no weights that can be read here.
    """
    present = set(files)
    small = [name for name in (*_CONFIG_FILES, *_TOKENIZER_FILES) if name in present]
    for single, index, shard in _WEIGHT_FORMS:
        if single in present:
            return [*small, single]
        if index in present:
            return [*small, index, *sorted(name for name in present if shard.fullmatch(name))]
    return []


def weight_files(directory: Path) -> list[Path]:
    """The weight files of a local checkpoint, whether they exist or only should; [] for none."""
    for single, index, _ in _WEIGHT_FORMS:
        if (directory / single).is_file():
            return [directory / single]
        if (path := directory / index).is_file():
            try:
                names = set(json.loads(path.read_bytes())["weight_map"].values())
            except (OSError, ValueError, KeyError, AttributeError, TypeError) as exc:
                raise CheckpointError(f"{path}: expected a weight_map of files: {exc!r}") from exc
            for name in names:
                if not isinstance(name, str) or Path(name).name != name:
                    raise CheckpointError(f"{path}: expected plain file names, found {name!r}")
            return [directory / name for name in sorted(names)]
    return []


def resolve_model(
    name: str,
    *,
    device: str,
    cache_dir: Path | None = None,
    offline: bool = False,
    endpoint: str | None = None,
) -> Path:
    """Where the model called `name` lies, downloading it (with progress) where that is needed.

    `device` ("cuda", "cpu", ...) only chooses what `auto` means. `cache_dir` and `endpoint` are
    the hub's own where None; `offline`, or HF_HUB_OFFLINE, forbids the network. A short name
    wins over a directory of that name, which can be written `./base`. Raises CheckpointError.
    """
    offline = offline or constants.HF_HUB_OFFLINE
    hub = _Hub(cache_dir=cache_dir, offline=offline, endpoint=endpoint)
    if name == EMBEDDED:
        return _embedded()
    if name == AUTO:
        return _resolve_auto(hub, device)
    if name in SHORT_NAMES:
        return _resolve_named(hub, SHORT_NAMES[name])
    path = Path(name).expanduser()
    if name and path.exists():  # the path of no name is the working directory
        return path
    if _HUB_ID.fullmatch(name) and path.suffix != ".pt":
        return _resolve_named(hub, name)
    raise CheckpointError(
        f"model: got {name!r}; accepted are {AUTO}, {EMBEDDED}, an existing directory or .pt "
        f"file, a hub id such as openai/whisper-base, or one of {', '.join(SHORT_NAMES)}"
    )


def resolve_tokenizer(
    n_vocab: int,
    *,
    cache_dir: Path | None = None,
    offline: bool = False,
    endpoint: str | None = None,
) -> Path:
    """Where the tokenizer of an OpenAI checkpoint of `n_vocab` tokens lies, from the hub."""
    if n_vocab not in _TOKENIZER_REPOS:
        raise CheckpointError(
            f"n_vocab: {n_vocab} is none of the published vocabularies "
            f"({', '.join(map(str, _TOKENIZER_REPOS))}); put its tokenizer.json beside the file"
        )
    hub = _Hub(cache_dir, offline or constants.HF_HUB_OFFLINE, endpoint)
    return hub.tokenizer(_TOKENIZER_REPOS[n_vocab])


def _embedded() -> Path:
    # The package is installed as plain files, so that the resource is a path.
    return Path(str(importlib.resources.files("engine") / EMBEDDED))


def _resolve_named(hub: "_Hub", repo: str) -> Path:
    try:
        return hub.model(repo, _NAMED_TIMEOUT_S)
    except CheckpointError as exc:
        raise CheckpointError(
            f"{exc}; check the name and the connection, or fetch it elsewhere (`hf download "
            f"{repo}`) and give its directory"
        ) from exc


def _resolve_auto(hub: "_Hub", device: str) -> Path:
    wanted = _AUTO_ON_GPU if device.startswith("cuda") else _AUTO_ON_CPU
    try:
        return hub.model(SHORT_NAMES[wanted], _AUTO_TIMEOUT_S)
    except CheckpointError as exc:
        logger.warning(
            "%s. Using the embedded model, an English demonstration that is good for clear "
            "synthetic speech, digits and trying things out; for real use go online and start "
            "with --model %s, or give a local directory with --model DIRECTORY",
            exc,
            wanted,
        )
        return _embedded()


class _Hub:
    """The local hub cache, and the hub behind it where that is allowed and answers."""

    def __init__(self, cache_dir: Path | None, offline: bool, endpoint: str | None) -> None:
        self._cache_dir = cache_dir
        self._offline = offline
        self._endpoint = endpoint

    def model(self, repo: str, timeout_s: float) -> Path:
        """A complete local copy of `repo`: an existing one as it is, else a download."""
        cached = self._cached(repo, "config.json")
        if cached is not None and _is_complete(cached):
            return cached
        files = self._list_files(repo, timeout_s)
        needed = needed_files(files)
        if "config.json" not in needed:
            raise CheckpointError(
                f"{repo}: expected config.json with model.safetensors or pytorch_model.bin on the "
                f"hub, found {', '.join(sorted(files)[:8]) or 'no files'}"
            )
        size_mb = sum(files[name] for name in needed) / 1e6
        logger.info("downloading %s, %.0f MB", repo, size_mb)
        return self._download(repo, needed)

    def tokenizer(self, repo: str) -> Path:
        """A directory with the tokenizer of `repo`, without its weights."""
        cached = self._cached(repo, "tokenizer.json")
        return cached or self._download(repo, list(_TOKENIZER_FILES))

    def _cached(self, repo: str, file: str) -> Path | None:
        found = huggingface_hub.try_to_load_from_cache(repo, file, cache_dir=self._cache_dir)
        return Path(found).parent if isinstance(found, str) else None

    def _list_files(self, repo: str, timeout_s: float) -> dict[str, int]:
        """The files of `repo` with their sizes in bytes; the one probe of whether it answers."""
        self._require_online(repo)
        api = huggingface_hub.HfApi(endpoint=self._endpoint)
        try:
            info = _within(
                timeout_s, lambda: api.model_info(repo, timeout=timeout_s, files_metadata=True)
            )
        # The hub's client has changed its HTTP library, and with it its errors, more than once.
        except Exception as exc:
            raise CheckpointError(_failure(repo, exc)) from exc
        return {file.rfilename: file.size or 0 for file in info.siblings or ()}

    def _download(self, repo: str, files: list[str]) -> Path:
        self._require_online(repo)
        try:
            return Path(
                huggingface_hub.snapshot_download(
                    repo,
                    allow_patterns=files,
                    cache_dir=self._cache_dir,
                    endpoint=self._endpoint,
                    etag_timeout=_NAMED_TIMEOUT_S,
                )
            )
        except Exception as exc:  # as above
            raise CheckpointError(_failure(repo, exc)) from exc

    def _require_online(self, repo: str) -> None:
        if self._offline:
            raise CheckpointError(
                f"{repo}: not in the local hub cache, and offline mode forbids downloading it"
            )


def _is_complete(directory: Path) -> bool:
    """Whether an earlier download got to its end."""
    weights = weight_files(directory)
    has_tokenizer = any((directory / name).is_file() for name in ("tokenizer.json", "vocab.json"))
    return bool(weights) and has_tokenizer and all(path.is_file() for path in weights)


def _failure(repo: str, exc: Exception) -> str:
    reason = str(exc).strip().split("\n")[0] or type(exc).__name__
    return f"{repo}: not in the local hub cache, and the hub gave no copy ({reason})"


def _within(timeout_s: float, call: Callable[[], T]) -> T:
    """`call()` in a thread of its own, given up after `timeout_s`.

    A socket time-out does not cover a name server that never answers.
    """
    outcome: Future[T] = Future()

    def run() -> None:
        try:
            outcome.set_result(call())
        except BaseException as exc:  # noqa: BLE001 - carried to the caller's thread
            outcome.set_exception(exc)

    threading.Thread(target=run, name="hub-probe", daemon=True).start()
    try:
        return outcome.result(timeout_s)
    except TimeoutError:
        raise TimeoutError(f"no answer within {timeout_s:.0f} s") from None
