import pytest
import torch
from torch import Tensor

from engine.audio.units import MAX_WINDOW_POSITIONS
from engine.runtime.caches import PADDING_TOKENS, SlotCaches, slot_bytes
from tests.support.model_dims import small_dims

DIMS = small_dims(n_text_layer=3, n_text_ctx=5, n_text_state=6, n_audio_state=6, n_audio_layer=2)


def allocate(
    num_slots: int, dtype: torch.dtype = torch.float32, encoder_dtype: torch.dtype | None = None
) -> SlotCaches:
    return SlotCaches.allocate(
        DIMS, num_slots, dtype=dtype, device=torch.device("cpu"), encoder_dtype=encoder_dtype
    )


def tensors(caches: SlotCaches) -> list[Tensor]:
    return [
        tensor
        for layer in caches.layers
        for cache in (layer.self_attn, layer.cross_attn)
        for tensor in (cache.keys, cache.values)
    ]


def test_there_is_a_row_for_each_slot_and_one_for_padding() -> None:
    caches = allocate(4)
    assert caches.scratch == 4
    room = DIMS.n_text_ctx + PADDING_TOKENS
    assert caches.tokens.shape == (5, room)
    for per_slot in (caches.lengths, caches.contexts, caches.begins, caches.temperatures):
        assert per_slot.shape == (5,)
    assert len(caches.layers) == 3
    for layer in caches.layers:
        assert layer.self_attn.keys.shape == layer.self_attn.values.shape == (5, room, 2, 3)
        whole = (5, MAX_WINDOW_POSITIONS, 2, 3)
        assert layer.cross_attn.keys.shape == layer.cross_attn.values.shape == whole


def test_the_positions_of_a_head_lie_together_where_they_are_read_whole() -> None:
    cross = allocate(1).layers[0].cross_attn.keys
    assert cross[0, :, 0].is_contiguous()


def test_only_keys_and_values_are_in_the_number_format_asked_for() -> None:
    caches = allocate(1, torch.bfloat16)
    assert {tensor.dtype for tensor in tensors(caches)} == {torch.bfloat16}
    assert caches.tokens.dtype is caches.lengths.dtype is caches.begins.dtype is torch.int64
    assert caches.timestamps.dtype is torch.bool


def test_float8_has_a_scale_for_each_vector_and_others_have_none() -> None:
    for layer in allocate(2, torch.float8_e4m3fn).layers:
        for cache in (layer.self_attn, layer.cross_attn):
            assert cache.key_scales is not None
            assert cache.value_scales is not None
            assert cache.key_scales.shape == cache.value_scales.shape == cache.keys.shape[:3]
    assert allocate(2).layers[0].self_attn.key_scales is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float8_e4m3fn])
def test_a_slot_costs_what_is_said_before_it_is_allocated(dtype: torch.dtype) -> None:
    caches = allocate(1, dtype)
    scales = [
        scale
        for layer in caches.layers
        for cache in (layer.self_attn, layer.cross_attn)
        for scale in (cache.key_scales, cache.value_scales)
        if scale is not None
    ]
    held = sum(tensor.nbytes for tensor in (*tensors(caches), *scales))
    assert held == 2 * slot_bytes(DIMS, dtype)  # one slot and the scratch row


def test_layers_and_slots_share_no_memory() -> None:
    caches = allocate(2)
    caches.layers[0].self_attn.keys[1].fill_(1.0)
    caches.layers[2].cross_attn.values[0].fill_(2.0)
    sums = [float(tensor.sum()) for tensor in tensors(caches)]
    room = DIMS.n_text_ctx + PADDING_TOKENS
    assert [value for value in sums if value] == [room * 6, 2.0 * MAX_WINDOW_POSITIONS * 6]


# The encoder's own keys and values.


def test_there_is_room_for_the_encoder_s_keys_only_where_it_was_asked_for() -> None:
    assert allocate(3).encoder == ()
    caches = allocate(3, torch.float32, torch.bfloat16)
    assert len(caches.encoder) == DIMS.n_audio_layer
    for cache in caches.encoder:
        whole = (4, MAX_WINDOW_POSITIONS, 2, 3)
        assert cache.keys.shape == cache.values.shape == whole
        assert cache.keys.dtype is cache.values.dtype is torch.bfloat16
        assert cache.keys[0, :, 0].is_contiguous()


def test_the_encoder_s_keys_have_no_scales_whatever_the_decoder_s_format() -> None:
    for cache in allocate(1, torch.float8_e4m3fn, torch.float16).encoder:
        assert cache.keys.dtype is torch.float16
        assert cache.key_scales is cache.value_scales is None


def test_layers_of_the_encoder_share_no_memory() -> None:
    caches = allocate(1, encoder_dtype=torch.float32)
    caches.encoder[0].keys.fill_(1.0)
    assert not caches.encoder[0].values.any()
    assert not caches.encoder[1].keys.any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float8_e4m3fn])
@pytest.mark.parametrize("encoder_dtype", [torch.float32, torch.bfloat16])
def test_the_encoder_s_keys_cost_what_is_said_before(
    dtype: torch.dtype, encoder_dtype: torch.dtype
) -> None:
    caches = allocate(1, dtype, encoder_dtype)
    held = sum(cache.keys.nbytes + cache.values.nbytes for cache in caches.encoder)
    more = slot_bytes(DIMS, dtype, encoder_dtype) - slot_bytes(DIMS, dtype)
    assert held == 2 * more
