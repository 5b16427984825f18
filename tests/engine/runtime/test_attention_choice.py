"""Which back end serves which kind of step, with figures that a test makes up."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import fields
from time import perf_counter

import pytest
import torch

pytest.importorskip("triton")

from engine.errors import ConfigError
from engine.runtime.attention_choice import choose_attention
from engine.runtime.caches import SlotCaches
from engine.runtime.programs import AttentionPlan
from tests.support.model_dims import small_dims

DIMS = small_dims(n_text_ctx=32)
CPU = torch.device("cpu")
# In float32 flash-attn cannot be had, so two are tried for each use, in this order.
TRIED = ("triton", "sdpa")
USES = ("encode", "prefill", "verify", "decode")


def caches(num_slots: int = 3) -> SlotCaches:
    return SlotCaches.allocate(DIMS, num_slots, dtype=torch.float32, device=CPU)


class Scripted:
    """A timer that looks its figures up: seconds, or what goes wrong, of each call in turn."""

    def __init__(self, *figures: float | Exception) -> None:
        self._figures = iter(figures)

    def __call__(self, call: Callable[[], object]) -> float:
        figure = next(self._figures)
        if isinstance(figure, Exception):
            raise figure
        return figure

    def is_spent(self) -> bool:
        return next(self._figures, None) is None


def names(plan: AttentionPlan) -> list[str]:
    return [getattr(plan, field.name).name for field in fields(plan)]


def choose(*figures: float | Exception) -> list[str]:
    timer = Scripted(*figures)
    plan = choose_attention("auto", DIMS, caches(), torch.float32, timer)
    assert timer.is_spent()
    return names(plan)


@pytest.mark.parametrize(
    "fastest", [("triton", "sdpa", "triton", "sdpa"), ("sdpa", "sdpa", "sdpa", "triton")]
)
def test_the_fastest_is_taken_for_each_use(fastest: Sequence[str]) -> None:
    figures = [1e-5 if name == best else 2e-5 for best in fastest for name in TRIED]
    assert choose(*figures) == list(fastest)


def test_the_log_says_what_was_taken_and_what_it_was_weighed_against(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.INFO, "engine.runtime.attention_choice"):
        choose(4e-5, 2e-5, *[1e-5, 3e-5] * 3)
    assert "attention for encode: sdpa (triton 40 µs, sdpa 20 µs)" in caplog.text
    assert "attention for decode: triton (triton 10 µs, sdpa 30 µs)" in caplog.text
    assert "got 'flash'" in caplog.text, "and why the third was not tried"


@pytest.mark.parametrize(
    "failure",
    [RuntimeError("no kernel image"), ValueError("head_dim 96"), torch.OutOfMemoryError("full")],
    ids=lambda it: type(it).__name__,
)
def test_what_cannot_serve_a_use_is_left_out_there_with_a_warning(
    caplog: pytest.LogCaptureFixture, failure: Exception
) -> None:
    figures: list[float | Exception] = [1e-5, 2e-5] * len(USES)
    figures[2 * USES.index("verify")] = failure
    assert choose(*figures) == ["triton", "triton", "sdpa", "triton"]
    (warning,) = (record for record in caplog.records if record.levelno == logging.WARNING)
    assert f"triton cannot verify here: {failure}" in warning.getMessage()


def test_a_use_that_nothing_can_serve_is_a_configuration_that_cannot_be_had() -> None:
    figures: list[float | Exception] = [1e-5, 2e-5] * len(USES)
    figures[2:4] = RuntimeError("no"), RuntimeError("no")
    with pytest.raises(ConfigError, match="none of flash, triton, sdpa can prefill"):
        choose(*figures)


def test_a_device_that_has_failed_is_no_reason_to_try_another_back_end() -> None:
    """Every launch after it fails too, and would blame whoever comes next."""
    with pytest.raises(torch.AcceleratorError, match="illegal memory access"):
        choose(torch.AcceleratorError("an illegal memory access was encountered"), 1e-5)


@pytest.mark.parametrize("name", ["eager", "sdpa", "triton"])
def test_a_named_one_is_taken_for_everything_and_not_timed(name: str) -> None:
    timer = Scripted()
    plan = choose_attention(name, DIMS, caches(), torch.float32, timer)  # type: ignore[arg-type]
    assert names(plan) == [name] * len(USES)


def test_a_named_one_that_is_not_to_be_had_is_refused() -> None:
    with pytest.raises(ConfigError, match="got 'flash', which takes float16 or bfloat16"):
        choose_attention("flash", DIMS, caches(), torch.float32, Scripted())


def test_without_a_timer_it_is_torch_s_own() -> None:
    assert names(choose_attention("auto", DIMS, caches(), torch.float32, None)) == ["sdpa"] * 4


@pytest.mark.parametrize("kv_dtype", [torch.float32, torch.float8_e4m3fn], ids=str)
@pytest.mark.parametrize("num_slots", [3, 40])
def test_what_is_timed_runs_over_caches_of_any_size_and_format(
    num_slots: int, kv_dtype: torch.dtype
) -> None:
    """With fewer slots than rows too; SDPA alone, for interpreted kernels take long."""
    given = SlotCaches.allocate(DIMS, num_slots, dtype=kv_dtype, device=CPU)
    outcomes: list[object] = []

    def timer(call: Callable[[], object]) -> float:
        if len(outcomes) % len(TRIED) != TRIED.index("sdpa"):
            outcomes.append(None)
            return 1.0
        started = perf_counter()
        outcomes.append(call())
        return min(0.5, perf_counter() - started)

    plan = choose_attention("auto", DIMS, given, torch.float32, timer)
    assert names(plan) == ["sdpa"] * len(USES)
    assert len(outcomes) == len(TRIED) * len(USES)
    encoded = outcomes[1]
    assert isinstance(encoded, torch.Tensor)
    assert encoded.isfinite().all()
    # Tokens were stored as in a step.
    assert given.layers[0].self_attn.keys.float().any()
