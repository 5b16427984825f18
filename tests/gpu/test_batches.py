"""What a row says does not depend on how many others are at work."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from engine.assembly import Engine
from engine.audio.units import Positions
from engine.config import Toggle
from engine.scheduling.slots import SlotHandle
from engine.scheduling.steps import (
    DecodeStep,
    EncodeRow,
    EncodeStep,
    PrefillRow,
    PrefillStep,
    Sampling,
    TokenRow,
    TokensResult,
)
from tests.gpu.building import ON_GPU, TRIMMED, Audio, agreement, checkpoint, engine_on, runner_of
from tests.support.engines import babble, decode_together, tokens_of

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(240)]

MOST = 64
COUNTS = (1, 3, 8, MOST)
STEPS = 12


def windows(count: int) -> list[Audio]:
    return [babble(0.8 + 0.06 * number, seed=number) for number in range(count)]


def large_engine(
    device: torch.device, root: Path, graphs: Toggle, dtype: torch.dtype = torch.float32
) -> Engine:
    config = replace(ON_GPU, cuda_graphs=graphs, max_batch=MOST, num_slots=MOST, attention="triton")
    return engine_on(device, checkpoint(root, "base", head_dim=64), config, dtype)


def rows_of(engine: Engine, count: int, first: int = 0) -> list[list[TokenRow]]:
    """Steps of `count` windows from the number `first` on, the same for every window: by step."""
    runner = runner_of(engine)
    slots = [SlotHandle(number, 1_000 * count + first) for number in range(count)]
    audios = windows(first + count)[first:]
    encoded = tuple(EncodeRow(slot, audio) for slot, audio in zip(slots, audios, strict=True))
    for at in range(0, count, 16):  # as slices are: never all at once
        runner.launch(EncodeStep(encoded[at : at + 16], Positions(384))).result()
    # `sot`, English, transcribe, no timestamps, in the order of the checkpoints' own specials.
    prefix = (401, 402, 407, 411)
    sampling = Sampling(len(prefix), timestamps=False)
    results = [
        runner.launch(PrefillStep(tuple(PrefillRow(it, prefix, 0, sampling) for it in slots)))
    ]
    results += [runner.launch(DecodeStep(tuple(slots))) for _ in range(STEPS)]
    found = []
    for pending in results:
        result = pending.result()
        assert isinstance(result, TokensResult)
        found.append([row for row in result.rows if isinstance(row, TokenRow)])
    return found


@pytest.mark.parametrize("graphs", ["on", "off"])
def test_a_row_of_a_step_scores_alone_what_it_scores_in_a_batch(
    device: torch.device, root: Path, graphs: Toggle
) -> None:
    engine = large_engine(device, root, graphs)
    alone = [rows_of(engine, 1, first=number) for number in range(8)]
    for count in COUNTS:
        together = rows_of(engine, count)
        for step, rows in enumerate(together):
            assert len(rows) == count
            for number, row in enumerate(rows[: len(alone)]):
                (known,) = alone[number][step]
                assert row.tokens == known.tokens, f"row {number} of {count}, step {step}"
                assert row.logprobs == pytest.approx(known.logprobs, abs=1e-3)


def test_requests_say_together_what_they_say_alone(device: torch.device, root: Path) -> None:
    """Through the scheduler, which mixes their steps as it likes."""
    engine = large_engine(device, root, "on")
    audios = windows(MOST)
    together = [tokens_of(it) for it in decode_together(engine, audios, TRIMMED)]
    assert len({tuple(tokens) for tokens in together}) > MOST // 2
    for count in COUNTS[:-1]:
        said = [tokens_of(it) for it in decode_together(engine, audios[:count], TRIMMED)]
        assert said == together[:count]
    for number in range(0, MOST, 9):
        (alone,) = decode_together(engine, audios[number : number + 1], TRIMMED)
        assert tokens_of(alone) == together[number]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_mostly_says_together_what_it_says_alone(
    device: torch.device, root: Path, dtype: torch.dtype
) -> None:
    engine = large_engine(device, root, "off", dtype)
    audios = windows(16)
    together = [tokens_of(it) for it in decode_together(engine, audios, TRIMMED)]
    alone = [tokens_of(decode_together(engine, [it], TRIMMED)[0]) for it in audios]
    shares = [agreement(*pair) for pair in zip(together, alone, strict=True)]
    mean = sum(shares) / len(shares)
    print(f"{dtype}: {mean:.1%} of the tokens, {shares.count(1.0)} of {len(shares)} requests whole")
    assert mean > 0.5
