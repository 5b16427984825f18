"""Every attention back end against attention as textbooks write it, on a processor.

flash-attn needs a GPU: modules of its name stand in for it, which do what its documentation says
(Dao-AILab/flash-attention, README and `flash_attn_interface.py`) and refuse what it refuses.
"""

import sys
from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton")

from engine.errors import ConfigError
from engine.model.backends import AttentionBackend, load_backend
from tests.engine.kernels.test_plain_attention import (
    FLOAT8,
    Batch,
    assert_same_caches,
    expected_attention,
    expected_probabilities,
    make_batch,
    with_new_stored,
)

CPU = torch.device("cpu")
HALF = (torch.float16, torch.bfloat16)
ANYWHERE = ("eager", "sdpa", "triton")
FORMATS = [
    *((name, dtype, dtype) for name in ANYWHERE for dtype in (torch.float32, torch.float16)),
    *((name, torch.float32, FLOAT8) for name in ANYWHERE),
    ("triton", torch.float16, FLOAT8),
    ("flash", torch.float16, torch.float16),
    ("flash", torch.bfloat16, torch.bfloat16),
    ("flash.cute", torch.float16, torch.float16),
]
in_every_format = pytest.mark.parametrize(("name", "dtype", "kv_dtype"), FORMATS, ids=str)


# What stands in for flash-attn.


def attend_flash(query: Tensor, key: Tensor, value: Tensor, *, causal: bool = False) -> Tensor:
    """One row [tokens, heads, head_dim]; a causal mask is aligned at the bottom right."""
    tokens, keys = len(query), len(key)
    scores = torch.einsum("qhd,khd->hqk", query.double(), key.double()) * query.shape[2] ** -0.5
    if causal:
        visible = torch.ones(tokens, keys, dtype=torch.bool).tril(keys - tokens)
        scores = scores.masked_fill(~visible, float("-inf"))
    weights = scores.softmax(dim=-1).nan_to_num()  # no keys: zeros
    return torch.einsum("hqk,khd->qhd", weights, value.double()).to(query.dtype)


def check_flash(query: Tensor, *others: Tensor) -> None:
    for tensor in (query, *others):
        if tensor.dtype not in HALF or tensor.dtype is not query.dtype:
            raise RuntimeError("FlashAttention only support fp16 and bf16 data type")
        if tensor.stride(-1) != 1:
            raise RuntimeError("Input tensor must have contiguous last dimension")
    if query.shape[-1] % 8:
        raise RuntimeError("head_size must be a multiple of 8")


def flash_attn_func(query: Tensor, key: Tensor, value: Tensor, causal: bool = False) -> Tensor:
    check_flash(query, key, value)
    rows = zip(query, key, value, strict=True)
    return torch.stack([attend_flash(*row, causal=causal) for row in rows])


def flash_attn_with_kvcache(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    *,
    cache_seqlens: Tensor,
    cache_batch_idx: Tensor,
    causal: bool = False,
) -> Tensor:
    check_flash(q, k_cache, v_cache)
    if cache_seqlens.dtype is not torch.int32 or cache_batch_idx.dtype is not torch.int32:
        raise RuntimeError("cache_seqlens and cache_batch_idx must have dtype int32")
    if int(cache_seqlens.max()) > k_cache.shape[1]:
        raise RuntimeError("what lies behind the cache would be read")
    rows = zip(q, cache_batch_idx.tolist(), cache_seqlens.tolist(), strict=True)
    return torch.stack(
        [
            attend_flash(query, k_cache[slot, :count], v_cache[slot, :count], causal=causal)
            for query, slot, count in rows
        ]
    )


def module_of(name: str, **functions: Any) -> ModuleType:
    module = ModuleType(name)
    for function, value in functions.items():
        setattr(module, function, value)
    return module


def install_flash(monkeypatch: pytest.MonkeyPatch, version: int | None) -> None:
    """Make what this machine has of flash-attn version 2, 4 or nothing."""
    cute = None
    if version == 4:
        cute = module_of(
            "flash_attn.cute", flash_attn_func=lambda *it: (flash_attn_func(*it), None)
        )
    package = None if version is None else module_of("flash_attn")
    if version == 2:
        package = module_of(
            "flash_attn",
            flash_attn_func=flash_attn_func,
            flash_attn_with_kvcache=flash_attn_with_kvcache,
        )
    monkeypatch.setitem(sys.modules, "flash_attn", package)
    monkeypatch.setitem(sys.modules, "flash_attn.cute", cute)


def backend_of(
    monkeypatch: pytest.MonkeyPatch, name: str, dtype: torch.dtype, kv_dtype: torch.dtype
) -> AttentionBackend:
    install_flash(monkeypatch, {"flash": 2, "flash.cute": 4}.get(name))
    return load_backend(name.partition(".")[0], dtype, kv_dtype)


def batch(seen: tuple[int, ...], *, width: int, dtype: torch.dtype, kv_dtype: torch.dtype) -> Batch:
    return make_batch(
        seen, width=width, positions=20, heads=2, head_dim=8, dtype=dtype, cache_dtype=kv_dtype
    )


def attend(backend: AttentionBackend, given: Batch, *, causal: bool, most: int) -> Tensor:
    return backend.slot_attention(
        given.query,
        given.keys,
        given.values,
        given.slots,
        given.seen,
        causal=causal,
        most=most,
        **given.scales(),
        **(given.new() if causal else {}),
    )


def assert_near(actual: Tensor, expected: Tensor) -> None:
    """As near as the type of the first allows."""
    tolerances = {torch.float32: 3e-6, torch.float16: 3e-3, torch.bfloat16: 2e-2}
    tolerance = tolerances[actual.dtype]
    torch.testing.assert_close(actual.double(), expected, rtol=tolerance, atol=tolerance)


# They all say the same.


@in_every_format
@pytest.mark.parametrize("width", [1, 4])
def test_tokens_store_their_keys_and_see_all_up_to_themselves(
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    dtype: torch.dtype,
    kv_dtype: torch.dtype,
    width: int,
) -> None:
    # As in a slot, there is room for padding behind the most that may be seen.
    given = batch((1, 9, 13, 4), width=width, dtype=dtype, kv_dtype=kv_dtype)
    stored = with_new_stored(given)
    backend = backend_of(monkeypatch, name, dtype, kv_dtype)
    attended = attend(backend, given, causal=True, most=16)
    assert attended.dtype is dtype
    assert attended.shape == given.query.shape
    assert_near(attended, expected_attention(stored, causal=True, most=16))
    assert_same_caches(given, stored)


@in_every_format
@pytest.mark.parametrize("width", [1, 4])
@pytest.mark.parametrize("most", [17, 20])
def test_every_token_sees_all_of_its_window_and_nothing_is_stored(
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    dtype: torch.dtype,
    kv_dtype: torch.dtype,
    width: int,
    most: int,
) -> None:
    given = batch((1, 9, 16, 4), width=width, dtype=dtype, kv_dtype=kv_dtype)
    before = given.copy()
    backend = backend_of(monkeypatch, name, dtype, kv_dtype)
    attended = attend(backend, given, causal=False, most=most)
    assert attended.shape == given.query.shape
    assert_near(attended, expected_attention(given, causal=False, most=most))
    assert_same_caches(given, before)


@in_every_format
def test_a_window_is_attended_to_as_a_whole_from_views_of_one_projection(
    monkeypatch: pytest.MonkeyPatch, name: str, dtype: torch.dtype, kv_dtype: torch.dtype
) -> None:
    backend = backend_of(monkeypatch, name, dtype, kv_dtype)
    generator = torch.Generator().manual_seed(3)
    qkv = torch.randn(2, 21, 3, 2, 8, generator=generator).to(dtype)
    query, key, value = qkv.unbind(2)
    scores = torch.einsum("rqhd,rkhd->rhqk", query.double(), key.double()) * 8**-0.5
    expected = torch.einsum("rhqk,rkhd->rqhd", scores.softmax(dim=-1), value.double())
    attended = backend.encode(query, key, value)
    assert attended.dtype is dtype
    assert_near(attended, expected)


@in_every_format
def test_windows_are_stored_from_where_they_begin(
    monkeypatch: pytest.MonkeyPatch, name: str, dtype: torch.dtype, kv_dtype: torch.dtype
) -> None:
    backend = backend_of(monkeypatch, name, dtype, kv_dtype)
    given = batch((1, 5, 12), width=6, dtype=dtype, kv_dtype=kv_dtype)
    for starts, first in ((None, torch.tensor([0, 0, 0])), (given.seen, given.seen)):
        # What a pass stores is from one before `seen` on.
        stored = with_new_stored(replace(given, seen=first + 1))
        target = given.copy()
        backend.store(
            given.new_keys,
            given.new_values,
            target.keys,
            target.values,
            given.slots,
            starts=starts,
            **target.scales(),
        )
        assert_same_caches(target, stored)


@in_every_format
def test_where_heads_look_is_added_up(
    monkeypatch: pytest.MonkeyPatch, name: str, dtype: torch.dtype, kv_dtype: torch.dtype
) -> None:
    backend = backend_of(monkeypatch, name, dtype, kv_dtype)
    given = batch((1, 9, 16, 4), width=3, dtype=dtype, kv_dtype=kv_dtype)
    heads = backend.on_device((1, 0), CPU)
    total = torch.ones(4, 3, 20)
    backend.alignment_weights(
        given.query,
        given.keys,
        given.slots,
        given.seen,
        heads,
        total,
        key_scales=given.key_scales,
    )
    expected = expected_probabilities(given, [1, 0], most=20)
    torch.testing.assert_close(total - 1, expected.float(), rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("name", ANYWHERE)
@pytest.mark.parametrize("causal", [True, False])
def test_what_an_earlier_use_left_behind_a_row_s_own_does_not_matter(
    monkeypatch: pytest.MonkeyPatch, name: str, causal: bool
) -> None:
    """Even where a step of that use failed and left what is no number."""
    given = batch((3, 12), width=2, dtype=torch.float32, kv_dtype=torch.float32)
    backend = backend_of(monkeypatch, name, torch.float32, torch.float32)
    expected = attend(backend, given.copy(), causal=causal, most=20)
    spoilt = given.copy()
    for slot, seen in zip(given.slots.tolist(), given.seen.tolist(), strict=True):
        for cache in (spoilt.keys, spoilt.values):
            cache[slot, seen + 1 :] = float("nan")
    attended = attend(backend, spoilt, causal=causal, most=20)
    torch.testing.assert_close(attended, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", [*ANYWHERE, "flash", "flash.cute"])
def test_padding_that_ends_behind_the_cache_is_neither_stored_nor_read_there(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """A draft late in its row beside a long prompt: both are as wide as the prompt.

    Behind the slot lies another's, or memory of nobody, which a GPU refuses to read.
    """
    dtype = torch.float16
    given = batch((1, 16), width=9, dtype=dtype, kv_dtype=dtype)
    stored = with_new_stored(given)
    attended = attend(backend_of(monkeypatch, name, dtype, dtype), given, causal=True, most=17)
    expected = expected_attention(stored, causal=True, most=17)
    # Of the second row two tokens are its own.
    assert_near(attended[0], expected[0])
    assert_near(attended[1, :2], expected[1, :2])
    assert_same_caches(given, stored)


def test_heads_are_sent_to_the_device_once() -> None:
    backend = load_backend("eager", torch.float32, torch.float32)
    heads = backend.on_device((2, 5), CPU)
    assert heads.tolist() == [2, 5]
    assert heads.dtype is torch.int32
    assert backend.on_device((2, 5), CPU) is heads
    assert backend.on_device((5,), CPU).tolist() == [5]
    assert load_backend("eager", torch.float32, torch.float32).on_device((2, 5), CPU) is not heads


# What is not to be had.


def test_an_unknown_name_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(
        ConfigError, match=r"got 'xformers', accepted are auto, flash, sdpa, triton, eager"
    ):
        load_backend("xformers", torch.float32, torch.float32)


@pytest.mark.parametrize(
    ("dtype", "kv_dtype", "found"),
    [
        (torch.float32, torch.float32, "float32 and float32"),
        (torch.float16, torch.bfloat16, "float16 and bfloat16"),
        (torch.bfloat16, FLOAT8, "bfloat16 and float8_e4m3fn"),
    ],
)
def test_flash_takes_one_format_of_two_bytes_and_says_what_it_was_given(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, kv_dtype: torch.dtype, found: str
) -> None:
    install_flash(monkeypatch, 2)
    with pytest.raises(ConfigError, match=f"takes float16 or bfloat16 .* found {found}"):
        load_backend("flash", dtype, kv_dtype)


@pytest.mark.parametrize("dtype", HALF, ids=str)
def test_flash_that_is_not_installed_is_named_with_both_of_its_modules(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype
) -> None:
    install_flash(monkeypatch, None)
    with pytest.raises(ConfigError, match=r"got 'flash', but flash_attn: .*; flash_attn\.cute: "):
        load_backend("flash", dtype, dtype)


def test_triton_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "engine.kernels.slot_attention", None)
    with pytest.raises(ConfigError, match=r"got 'triton', but .*slot_attention"):
        load_backend("triton", torch.float32, torch.float32)


@pytest.mark.parametrize("name", ANYWHERE)
def test_a_back_end_bears_the_name_it_was_asked_for_by(name: str) -> None:
    assert load_backend(name, torch.float32, torch.float32).name == name
