import torch

from engine.audio.units import MAX_WINDOW_POSITIONS
from engine.runtime.caches import SlotCaches, slot_bytes
from tests.support.model_dims import small_dims

DIMS = small_dims(n_text_layer=3, n_text_ctx=5, n_text_state=6, n_audio_state=6)


def allocate(num_slots: int, dtype: torch.dtype = torch.float32) -> SlotCaches:
    return SlotCaches.allocate(DIMS, num_slots, dtype=dtype, device=torch.device("cpu"))


def test_there_is_a_row_for_each_slot() -> None:
    caches = allocate(4)
    assert caches.tokens.shape == (4, 5)
    for per_slot in (caches.lengths, caches.begins, caches.timestamps):
        assert per_slot.shape == (4,)
    assert len(caches.layers) == 3
    for layer in caches.layers:
        assert layer.self_keys.shape == layer.self_values.shape == (4, 5, 2, 3)
        whole = (4, 2, MAX_WINDOW_POSITIONS, 3)
        assert layer.cross_keys.shape == layer.cross_values.shape == whole


def test_only_keys_and_values_are_in_the_model_s_number_format() -> None:
    caches = allocate(1, torch.bfloat16)
    for layer in caches.layers:
        for tensor in (layer.self_keys, layer.self_values, layer.cross_keys, layer.cross_values):
            assert tensor.dtype is torch.bfloat16
    assert caches.tokens.dtype is caches.lengths.dtype is caches.begins.dtype is torch.int64
    assert caches.timestamps.dtype is torch.bool


def test_a_slot_costs_what_is_said_before_it_is_allocated() -> None:
    for dtype in (torch.float32, torch.bfloat16):
        caches = allocate(2, dtype)
        held = sum(
            tensor.nbytes
            for layer in caches.layers
            for tensor in (
                layer.self_keys,
                layer.self_values,
                layer.cross_keys,
                layer.cross_values,
            )
        )
        assert held == 2 * slot_bytes(DIMS, dtype)


def test_layers_and_slots_share_no_memory() -> None:
    caches = allocate(2)
    caches.layers[0].self_keys[1].fill_(1.0)
    caches.layers[2].cross_values[0].fill_(2.0)
    sums = [
        float(tensor.sum())
        for layer in caches.layers
        for tensor in (layer.self_keys, layer.self_values, layer.cross_keys, layer.cross_values)
    ]
    assert [value for value in sums if value] == [5 * 6, 2.0 * MAX_WINDOW_POSITIONS * 6]
