"""Attention over slots in plain torch against attention as textbooks write it, in float64."""

from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from engine.kernels.plain_attention import (
    alignment_weights_plain,
    quantise_plain,
    slot_attention_plain,
    store_keys_values_plain,
)

FLOAT8 = torch.float8_e4m3fn


@dataclass(frozen=True)
class Batch:
    """Rows of queries with caches in the layouts that the engine has, all of them views."""

    query: Tensor
    new_keys: Tensor
    new_values: Tensor
    keys: Tensor
    values: Tensor
    key_scales: Tensor | None
    value_scales: Tensor | None
    slots: Tensor
    seen: Tensor

    def scales(self) -> dict[str, Tensor | None]:
        return {"key_scales": self.key_scales, "value_scales": self.value_scales}

    def new(self) -> dict[str, Tensor]:
        return {"new_keys": self.new_keys, "new_values": self.new_values}

    def copy(self) -> "Batch":
        """The same with caches of its own, to be written to."""

        def cloned(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else tensor.clone()

        return replace(
            self,
            keys=self.keys.clone(),
            values=self.values.clone(),
            key_scales=cloned(self.key_scales),
            value_scales=cloned(self.value_scales),
        )

    def rows(self, rows: slice) -> "Batch":
        """Some of the rows over the same caches."""
        return replace(
            self,
            query=self.query[rows],
            new_keys=self.new_keys[rows],
            new_values=self.new_values[rows],
            slots=self.slots[rows],
            seen=self.seen[rows],
        )

    def tokens(self, tokens: slice) -> "Batch":
        """Some of the queries of every row over the same caches."""
        return replace(
            self,
            query=self.query[:, tokens],
            new_keys=self.new_keys[:, tokens],
            new_values=self.new_values[:, tokens],
            seen=self.seen + tokens.start,
        )


def make_batch(
    seen: tuple[int, ...],
    *,
    width: int,
    positions: int = 12,
    heads: int = 3,
    head_dim: int = 4,
    dtype: torch.dtype = torch.float32,
    cache_dtype: torch.dtype | None = None,
) -> Batch:
    generator = torch.Generator().manual_seed(len(seen) + width)
    rows, slots = len(seen), len(seen) + 2

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    query, new_keys, new_values = normal(rows, width, 3, heads, head_dim).to(dtype).unbind(2)
    keys = normal(slots, positions, heads, head_dim)
    values = normal(slots, heads, positions, head_dim)
    key_scales = value_scales = None
    if cache_dtype == FLOAT8:
        keys, key_scales = quantise_plain(keys)
        values, value_scales = quantise_plain(values)
        value_scales = value_scales.transpose(1, 2)
    else:
        keys, values = keys.to(cache_dtype or dtype), values.to(cache_dtype or dtype)
    return Batch(
        query,
        new_keys,
        new_values,
        keys,
        values.transpose(1, 2),
        key_scales,
        value_scales,
        torch.randperm(slots, generator=generator)[:rows],
        torch.tensor(seen),
    )


def exact(cache: Tensor, scales: Tensor | None) -> Tensor:
    """What a cache means, float64."""
    return cache.double() if scales is None else cache.double() * scales.double()[..., None]


def expected_attention(given: Batch, *, causal: bool, most: int) -> Tensor:
    """One query of one head after the other; its keys are in the cache already."""
    keys = exact(given.keys, given.key_scales)
    values = exact(given.values, given.value_scales)
    out = torch.zeros(given.query.shape, dtype=torch.float64)
    for row, (slot, seen) in enumerate(zip(given.slots.tolist(), given.seen.tolist(), strict=True)):
        for token in range(out.shape[1]):
            visible = min(seen + token if causal else seen, most, keys.shape[1])
            for head in range(out.shape[2]):
                query = given.query[row, token, head].double()
                scores = keys[slot, :visible, head] @ query / out.shape[3] ** 0.5
                out[row, token, head] = scores.softmax(dim=0) @ values[slot, :visible, head]
    return out


def with_new_stored(given: Batch) -> Batch:
    """The batch with its new keys and values in caches of its own, vector by vector."""
    given = given.copy()
    for row, (slot, seen) in enumerate(zip(given.slots.tolist(), given.seen.tolist(), strict=True)):
        for token in range(given.query.shape[1]):
            at = seen - 1 + token
            if not 0 <= at < given.keys.shape[1]:
                continue
            for new, cache, scales in (
                (given.new_keys, given.keys, given.key_scales),
                (given.new_values, given.values, given.value_scales),
            ):
                if scales is None:
                    cache[slot, at] = new[row, token].to(cache.dtype)
                else:
                    stored, scale = quantise_plain(new[row, token])
                    cache[slot, at], scales[slot, at] = stored, scale
    return given


def expected_probabilities(given: Batch, heads: list[int], most: int) -> Tensor:
    """Sums of the probabilities of `heads`, [rows, width, most] float64."""
    keys = exact(given.keys, given.key_scales)
    rows, width, _, head_dim = given.query.shape
    out = torch.zeros(rows, width, most, dtype=torch.float64)
    for row, (slot, seen) in enumerate(zip(given.slots.tolist(), given.seen.tolist(), strict=True)):
        visible = min(seen, most, keys.shape[1])
        for head in heads:
            scores = given.query[row, :, head].double() @ keys[slot, :visible, head].T
            out[row, :, :visible] += (scores / head_dim**0.5).softmax(dim=1)
    return out


def assert_same_caches(actual: Batch, expected: Batch) -> None:
    for name in ("keys", "values", "key_scales", "value_scales"):
        one, other = getattr(actual, name), getattr(expected, name)
        if other is not None:
            torch.testing.assert_close(one.float(), other.float(), rtol=0, atol=0, msg=name)


def assert_close(actual: Tensor, expected: Tensor) -> None:
    """Near, as far as the type of the first allows."""
    tolerance = {torch.float32: 3e-6, torch.float16: 3e-3}[actual.dtype]
    torch.testing.assert_close(actual.double(), expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("width", [1, 5])
@pytest.mark.parametrize(
    ("dtype", "cache_dtype"),
    [(torch.float32, None), (torch.float16, torch.float32), (torch.float32, FLOAT8)],
)
def test_each_query_sees_the_keys_of_its_row_s_slot(
    causal: bool, width: int, dtype: torch.dtype, cache_dtype: torch.dtype | None
) -> None:
    given = make_batch((3, 0, 12, 40, 7), width=width, dtype=dtype, cache_dtype=cache_dtype)
    attended = slot_attention_plain(
        given.query,
        given.keys,
        given.values,
        given.slots,
        given.seen,
        causal=causal,
        most=9,
        **given.scales(),
    )
    assert attended.dtype == dtype
    assert attended.is_contiguous()
    assert_close(attended, expected_attention(given, causal=causal, most=9))


@pytest.mark.parametrize("cache_dtype", [torch.float32, torch.float16, FLOAT8])
def test_new_keys_are_stored_where_they_belong_and_seen(cache_dtype: torch.dtype) -> None:
    # The third row runs over the end of the cache, the fourth is beyond it, the last begins
    # before it.
    given = make_batch((1, 4, 10, 15, 0), width=5, cache_dtype=cache_dtype)
    expected = with_new_stored(given)
    attended = slot_attention_plain(
        given.query,
        given.keys,
        given.values,
        given.slots,
        given.seen,
        causal=True,
        most=12,
        **given.scales(),
        **given.new(),
    )
    assert_same_caches(given, expected)
    assert_close(attended, expected_attention(expected, causal=True, most=12))


@pytest.mark.parametrize("cache_dtype", [torch.float32, FLOAT8])
def test_it_makes_no_difference_in_how_many_passes_tokens_are_fed(
    cache_dtype: torch.dtype,
) -> None:
    given = make_batch((1, 4, 6), width=6, cache_dtype=cache_dtype)
    together, apart = given.copy(), given.copy()

    def fed(batch: Batch) -> Tensor:
        return slot_attention_plain(
            batch.query,
            batch.keys,
            batch.values,
            batch.slots,
            batch.seen,
            causal=True,
            most=12,
            **batch.scales(),
            **batch.new(),
        )

    whole = fed(together)
    parts = [fed(apart.tokens(part)) for part in (slice(0, 1), slice(1, 4), slice(4, 6))]
    assert_same_caches(apart, together)
    torch.testing.assert_close(torch.cat(parts, dim=1), whole)


def test_what_no_query_sees_may_be_anything() -> None:
    given = make_batch((3, 7), width=2)
    before = slot_attention_plain(
        given.query, given.keys, given.values, given.slots, given.seen, causal=True, most=12
    )
    for slot, seen in zip(given.slots.tolist(), given.seen.tolist(), strict=True):
        given.keys[slot, seen + 1 :] = torch.nan
        given.values[slot, seen + 1 :] = torch.nan
    after = slot_attention_plain(
        given.query, given.keys, given.values, given.slots, given.seen, causal=True, most=12
    )
    torch.testing.assert_close(after, before, rtol=0, atol=0)


@pytest.mark.parametrize("cache_dtype", [torch.float32, FLOAT8])
def test_a_whole_window_is_stored_from_its_first_position_on(cache_dtype: torch.dtype) -> None:
    given = make_batch((1, 1, 1), width=7, cache_dtype=cache_dtype)
    expected = with_new_stored(given)
    store_keys_values_plain(
        given.new_keys, given.new_values, given.keys, given.values, given.slots, **given.scales()
    )
    assert_same_caches(given, expected)


@pytest.mark.parametrize("cache_dtype", [torch.float32, FLOAT8])
def test_positions_are_stored_from_where_each_row_starts(cache_dtype: torch.dtype) -> None:
    # Within, over the end, beyond the end, from before the beginning, wholly before it.
    given = make_batch((4, 9, 20, -2, -20), width=7, cache_dtype=cache_dtype)
    expected = with_new_stored(given)
    store_keys_values_plain(
        given.new_keys,
        given.new_values,
        given.keys,
        given.values,
        given.slots,
        starts=given.seen - 1,
        **given.scales(),
    )
    assert_same_caches(given, expected)


def test_quantised_vectors_are_the_nearest_that_there_are() -> None:
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(7, 5, generator=generator) * 10.0 ** torch.arange(-3, 4)[:, None]
    stored, scales = quantise_plain(vectors)
    every = torch.arange(256, dtype=torch.uint8).view(FLOAT8).double()
    every = every[every.isfinite()]
    torch.testing.assert_close(scales, vectors.abs().amax(dim=1) / 448)
    wanted = vectors.double() / scales.double()[:, None]
    nearest = (wanted[..., None] - every).abs().amin(dim=-1)
    torch.testing.assert_close((wanted - stored.double()).abs(), nearest, rtol=0, atol=1e-4)


def test_a_vector_of_zeros_survives_quantising() -> None:
    stored, scales = quantise_plain(torch.zeros(2, 4))
    assert not stored.float().any()
    assert not scales.any()


@pytest.mark.parametrize("cache_dtype", [torch.float32, FLOAT8])
def test_probabilities_of_the_chosen_heads_are_added_up(cache_dtype: torch.dtype) -> None:
    given = make_batch((3, 0, 12, 40), width=5, cache_dtype=cache_dtype)
    before = torch.randn(4, 5, 9, generator=torch.Generator().manual_seed(1))
    total = before.clone()
    alignment_weights_plain(
        given.query,
        given.keys,
        given.slots,
        given.seen,
        torch.tensor([2, 0], dtype=torch.int32),
        total,
        key_scales=given.key_scales,
    )
    assert_close(total, before.double() + expected_probabilities(given, [2, 0], 9))
    assert torch.equal(total[0, :, 3:], before[0, :, 3:])


def test_scales_belong_to_float8_and_to_nothing_else() -> None:
    given = make_batch((3,), width=1)
    quantised = make_batch((3,), width=1, cache_dtype=FLOAT8)
    for batch, scales in ((given, quantised.scales()), (quantised, given.scales())):
        with pytest.raises(ValueError, match="float8 has them"):
            slot_attention_plain(
                batch.query,
                batch.keys,
                batch.values,
                batch.slots,
                batch.seen,
                causal=True,
                most=12,
                **scales,
            )


@pytest.mark.parametrize(
    ("causal", "names"),
    [(True, ("new_keys",)), (True, ("new_values",)), (False, ("new_keys", "new_values"))],
)
def test_new_keys_come_with_values_and_are_causal(causal: bool, names: tuple[str, ...]) -> None:
    given = make_batch((3,), width=1)
    with pytest.raises(ValueError, match="new keys"):
        slot_attention_plain(
            given.query,
            given.keys,
            given.values,
            given.slots,
            given.seen,
            causal=causal,
            most=12,
            **{name: tensor for name, tensor in given.new().items() if name in names},
        )
