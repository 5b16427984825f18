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
        ("max_batch", 0, "max_batch: got 0, the least accepted is 1"),
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
