"""Attention back ends behind one interface: flash-attn, SDPA, Triton kernels, plain torch.

A back end attends in two situations: within windows that are being encoded, and from one token
or a few per row to a slot's cache, which it reads by index. None of them reads a value back to
the host, so all can be captured. Which is fastest where is measured (engine.runtime.attention_
choice), not known.
"""

import contextlib
import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.errors import ConfigError
from engine.kernels import plain_attention
from engine.model.encoder import attend_sdpa

# Attention within windows: queries, keys and values [rows, positions, heads, head_dim].
AttendWithin = Callable[[Tensor, Tensor, Tensor], Tensor]


class SlotAttention(Protocol):
    """Attention of [rows, width, heads, head_dim] to caches [slots, positions, heads, head_dim].

    `slots` and `seen` [rows]: query i of a row sees the first `seen + i` keys of its slot where
    `causal`, else the first `seen`; never more than `most`. `new_keys` and `new_values`, shaped
    as the query, are the tokens' own and are stored from position `seen - 1` on.
    """

    def __call__(
        self,
        query: Tensor,
        keys: Tensor,
        values: Tensor,
        slots: Tensor,
        seen: Tensor,
        *,
        causal: bool,
        most: int,
        key_scales: Tensor | None = None,
        value_scales: Tensor | None = None,
        new_keys: Tensor | None = None,
        new_values: Tensor | None = None,
    ) -> Tensor:
        """Returns the query's shape and format."""


class StoreKeysValues(Protocol):
    """Writes [rows, positions, heads, head_dim] to each row's slot, from `starts` [rows] or 0."""

    def __call__(
        self,
        new_keys: Tensor,
        new_values: Tensor,
        keys: Tensor,
        values: Tensor,
        slots: Tensor,
        *,
        starts: Tensor | None = None,
        key_scales: Tensor | None = None,
        value_scales: Tensor | None = None,
    ) -> None:
        """Write in place."""


class AlignmentWeights(Protocol):
    """Adds to `total` [rows, width, most] where `heads` [n] int32 look within `seen` keys."""

    def __call__(
        self,
        query: Tensor,
        keys: Tensor,
        slots: Tensor,
        seen: Tensor,
        heads: Tensor,
        total: Tensor,
        *,
        key_scales: Tensor | None = None,
    ) -> None:
        """Add in place."""


@dataclass(frozen=True, slots=True)
class AttentionBackend:
    """One way to attend. `encode` is attention within windows, without mask."""

    name: str
    encode: AttendWithin
    slot_attention: SlotAttention
    store: StoreKeysValues
    alignment_weights: AlignmentWeights
    _heads: dict[tuple[int, ...], Tensor] = field(default_factory=dict)

    def on_device(self, heads: tuple[int, ...], device: torch.device) -> Tensor:
        """`heads` as a tensor, made once: a graph cannot hold a copy from the host's memory."""
        if heads not in self._heads:
            self._heads[heads] = torch.tensor(heads, dtype=torch.int32, device=device)
        return self._heads[heads]


def load_backend(name: str, dtype: torch.dtype, kv_dtype: torch.dtype) -> AttentionBackend:
    """The back end `name` for a model in `dtype` and caches in `kv_dtype`.

    Raises ConfigError that says why where it is not to be had.
    """
    if name not in _LOADERS:
        raise ConfigError(f"attention: got {name!r}, accepted are auto, {', '.join(_LOADERS)}")
    return _LOADERS[name](dtype, kv_dtype)


def _eager(dtype: torch.dtype, kv_dtype: torch.dtype) -> AttentionBackend:
    return AttentionBackend(
        "eager",
        _encode_eager,
        plain_attention.slot_attention_plain,
        plain_attention.store_keys_values_plain,
        plain_attention.alignment_weights_plain,
    )


def _encode_eager(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    scores = torch.einsum("rqhd,rkhd->rhqk", query.float(), key.float()) * query.shape[-1] ** -0.5
    attended = torch.einsum("rhqk,rkhd->rqhd", scores.softmax(dim=-1), value.float())
    return attended.to(query.dtype)


def _sdpa(dtype: torch.dtype, kv_dtype: torch.dtype) -> AttentionBackend:
    store, weights = _helpers()
    return AttentionBackend("sdpa", attend_sdpa, _gather_and_attend(store), store, weights)


def _gather_and_attend(store: StoreKeysValues) -> SlotAttention:
    """SDPA knows no slots: each row's keys and values are copied out and padded with a mask."""

    def attend(
        query: Tensor,
        keys: Tensor,
        values: Tensor,
        slots: Tensor,
        seen: Tensor,
        *,
        causal: bool,
        most: int,
        key_scales: Tensor | None = None,
        value_scales: Tensor | None = None,
        new_keys: Tensor | None = None,
        new_values: Tensor | None = None,
    ) -> Tensor:
        if new_keys is not None and new_values is not None:
            store(
                new_keys,
                new_values,
                keys,
                values,
                slots,
                starts=seen - 1,
                key_scales=key_scales,
                value_scales=value_scales,
            )
        most = min(most, keys.shape[1])
        width = query.shape[1]
        offsets = torch.arange(width, device=query.device) * int(causal)
        until = seen[:, None, None] + offsets[:, None]
        mask = torch.arange(most, device=query.device) < until
        # What no query sees may be anything, NaN too, and a mask only adds to it: made zero.
        unseen = ~mask[:, -1, :, None, None]
        gathered = [
            _gathered(cache, scales, slots, most, query.dtype)
            .masked_fill_(unseen, 0.0)
            .transpose(1, 2)
            for cache, scales in ((keys, key_scales), (values, value_scales))
        ]
        attended = F.scaled_dot_product_attention(
            query.transpose(1, 2), gathered[0], gathered[1], attn_mask=mask[:, None]
        )
        return attended.transpose(1, 2)

    return attend


def _gathered(
    cache: Tensor, scales: Tensor | None, slots: Tensor, most: int, dtype: torch.dtype
) -> Tensor:
    """The first `most` positions of each row's slot: [rows, most, heads, head_dim]."""
    vectors = cache[slots, :most]
    if scales is None:
        return vectors.to(dtype)
    return (vectors.float() * scales[slots, :most, :, None]).to(dtype)


def _triton(dtype: torch.dtype, kv_dtype: torch.dtype) -> AttentionBackend:
    try:
        kernels = importlib.import_module("engine.kernels.slot_attention")
        store, weights = _kernels_for_slots()
    except ImportError as exc:
        raise ConfigError(f"attention: got 'triton', but {exc}") from exc
    slot_attention: SlotAttention = kernels.slot_attention

    def encode(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        rows, positions = query.shape[:2]
        slots = torch.arange(rows, device=query.device)
        seen = torch.full_like(slots, positions)
        return slot_attention(query, key, value, slots, seen, causal=False, most=positions)

    return AttentionBackend(
        "triton",
        encode,
        slot_attention,
        store,
        weights,
    )


def _flash(dtype: torch.dtype, kv_dtype: torch.dtype) -> AttentionBackend:
    """flash-attn 2 for everything; where only flash-attn 4 is installed, for encoding.

    flash-attn 4 (`flash_attn.cute`) knows neither slots nor splits along the keys.
    """
    if dtype not in (torch.float16, torch.bfloat16) or kv_dtype is not dtype:
        raise ConfigError(
            "attention: got 'flash', which takes float16 or bfloat16 for model and caches alike, "
            f"found {_name(dtype)} and {_name(kv_dtype)}"
        )
    store, weights = _helpers()
    errors = []
    try:
        flash2: Any = importlib.import_module("flash_attn")
        with_cache, within = flash2.flash_attn_with_kvcache, flash2.flash_attn_func
    except (ImportError, AttributeError) as exc:
        errors.append(f"flash_attn: {exc}")
    else:
        return AttentionBackend("flash", within, _flash_slots(with_cache, store), store, weights)
    try:
        flash4: Any = importlib.import_module("flash_attn.cute")
        within = flash4.flash_attn_func
    except (ImportError, AttributeError) as exc:
        errors.append(f"flash_attn.cute: {exc}")
        raise ConfigError(f"attention: got 'flash', but {'; '.join(errors)}") from exc

    def encode(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        result = within(query, key, value)
        attended: Tensor = result[0] if isinstance(result, tuple) else result
        return attended

    return AttentionBackend("flash", encode, _gather_and_attend(store), store, weights)


def _flash_slots(with_cache: Callable[..., Tensor], store: StoreKeysValues) -> SlotAttention:
    gather = _gather_and_attend(store)

    def attend(
        query: Tensor,
        keys: Tensor,
        values: Tensor,
        slots: Tensor,
        seen: Tensor,
        *,
        causal: bool,
        most: int,
        key_scales: Tensor | None = None,
        value_scales: Tensor | None = None,
        new_keys: Tensor | None = None,
        new_values: Tensor | None = None,
    ) -> Tensor:
        if causal and query.shape[1] > keys.shape[1] - most:
            # Padding may end behind the cache, where flash-attn would read all the same.
            return gather(
                query,
                keys,
                values,
                slots,
                seen,
                causal=True,
                most=most,
                new_keys=new_keys,
                new_values=new_values,
            )
        if new_keys is not None and new_values is not None:
            store(new_keys, new_values, keys, values, slots, starts=seen - 1)
        # flash-attn aligns causal masks at the last query and the last key.
        lengths = seen + (query.shape[1] - 1 if causal else 0)
        most = min(keys.shape[1], most + query.shape[1])
        return with_cache(
            query,
            keys[:, :most],
            values[:, :most],
            cache_seqlens=lengths.int(),
            cache_batch_idx=slots.int(),
            causal=causal,
        )

    return attend


def _helpers() -> tuple[StoreKeysValues, AlignmentWeights]:
    """Storing and looking, for back ends that have no such thing themselves."""
    if torch.cuda.is_available():
        with contextlib.suppress(ImportError):
            return _kernels_for_slots()
    return plain_attention.store_keys_values_plain, plain_attention.alignment_weights_plain


def _kernels_for_slots() -> tuple[StoreKeysValues, AlignmentWeights]:
    """Triton's own. Raises ImportError where it is not installed."""
    store: Any = importlib.import_module("engine.kernels.store_keys_values")
    weights: Any = importlib.import_module("engine.kernels.alignment_weights")
    return store.store_keys_values, weights.alignment_weights


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


_LOADERS: dict[str, Callable[[torch.dtype, torch.dtype], AttentionBackend]] = {
    "flash": _flash,
    "sdpa": _sdpa,
    "triton": _triton,
    "eager": _eager,
}
