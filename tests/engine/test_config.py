from typing import Any, get_args

import pytest

from engine.config import CONTEXTS, DEVICES, DTYPES, Device, Dtype, EngineConfig
from engine.errors import ConfigError
from engine.events import Context


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("device", "tpu", "device: got 'tpu', accepted are auto, cpu, cuda"),
        ("dtype", "int3", "dtype: got 'int3', accepted are auto, float32, bfloat16, float16"),
        ("context", "half", "context: got 'half', accepted are auto, full, trimmed"),
        ("num_slots", -1, "num_slots: got -1, the least accepted is 0"),
        ("threads", -1, "threads: got -1, the least accepted is 0"),
        ("max_new_tokens", 0, "max_new_tokens: got 0, the least accepted is 1"),
        ("max_batch", -1, "max_batch: got -1, the least accepted is 0"),
        ("encode_slice_ms", -1.0, "encode_slice_ms: got -1.0, the least accepted is 0"),
        ("attention", "slow", "attention: got 'slow', accepted are auto, flash, sdpa, triton"),
        ("cuda_graphs", "yes", "cuda_graphs: got 'yes', accepted are auto, on, off"),
        ("weights", "int2", "weights: got 'int2', accepted are auto, int8, int4"),
        ("kv_dtype", "fp4", "kv_dtype: got 'fp4', accepted are auto, float32, bfloat16"),
        ("temperatures", (), r"temperatures: got \(\), the first must be 0.0"),
        ("temperatures", (0.2,), r"temperatures: got \(0.2,\), the first must be 0.0"),
    ],
)
def test_a_wrong_setting_is_refused_by_name(setting: str, value: object, message: str) -> None:
    wrong: dict[str, Any] = {setting: value}
    with pytest.raises(ConfigError, match=message):
        EngineConfig(**wrong)


def test_every_accepted_word_is_accepted() -> None:
    for device in get_args(Device):
        EngineConfig(device=device)
    for dtype in get_args(Dtype):
        EngineConfig(dtype=dtype)
    for context in get_args(Context):
        EngineConfig(context=context)
    assert (get_args(Device), get_args(Dtype), get_args(Context)) == (DEVICES, DTYPES, CONTEXTS)


def test_a_partial_never_needs_more_than_the_window_before_it() -> None:
    """Two windows one interval apart must be able to confirm each other."""
    config = EngineConfig()
    assert config.commit_guard < config.first_partial < config.language_lock


def test_what_depends_on_the_device_is_chosen_for_it_and_what_was_asked_for_stays() -> None:
    on_cpu, on_gpu = EngineConfig().resolve("cpu"), EngineConfig().resolve("cuda")
    assert (on_cpu.max_batch, on_cpu.encode_slice_ms) == (64, 80.0)
    assert (on_gpu.max_batch, on_gpu.encode_slice_ms) == (256, 20.0)
    asked = EngineConfig(max_batch=3, encode_slice_ms=7.0, partial_context="trimmed")
    assert asked.resolve("cuda") == asked


def test_attention_of_a_gpu_is_refused_on_a_cpu() -> None:
    with pytest.raises(ConfigError, match="attention: got 'triton', accepted on a CPU are auto"):
        EngineConfig(device="cpu", attention="triton")


def test_partials_are_extended_by_themselves_only_where_the_checkpoint_loses_nothing() -> None:
    assert EngineConfig().resolve("cpu").partial_context == "trimmed"
    assert EngineConfig().resolve("cpu", incremental=True).partial_context == "incremental"
    asked = EngineConfig(partial_context="trimmed")
    assert asked.resolve("cpu", incremental=True).partial_context == "trimmed"
