"""Packed tokens over slot caches against `transformers`' decoder, which is given one row whole."""

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor

from engine.model.attention import KeysValues, Packed, store_windows
from engine.model.checkpoint import load_checkpoint
from engine.model.decoder import Decoded, TextDecoder
from engine.model.dims import ModelDims
from engine.model.whisper import Whisper
from engine.runtime.aligning import by_row
from engine.runtime.caches import SlotCaches
from tests.support.checkpoints import (
    NUM_TEXT_TOKENS,
    make_checkpoint,
    one_thread,
    reference_model,
)

CPU = torch.device("cpu")
SLOTS = (5, 0, 3)
LENGTHS = (9, 4, 17)
CONTEXTS = (40, 1500, 7)


@dataclass(frozen=True)
class Bench:
    """A decoder, the audio and the tokens of three rows, and what `transformers` makes of them."""

    decoder: TextDecoder
    dims: ModelDims
    encoded: tuple[Tensor, ...]  # [positions, state] each
    tokens: tuple[Tensor, ...]
    logits: tuple[Tensor, ...]
    looks: tuple[Tensor, ...]  # [alignment heads, tokens, positions] each


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    directory = make_checkpoint(tmp_path_factory.mktemp("decoder"), "tiny.en")
    checkpoint = load_checkpoint(directory)
    model = Whisper.from_checkpoint(checkpoint, dtype=torch.float32, device=CPU)
    generator = torch.Generator().manual_seed(0)
    encoded = tuple(
        torch.randn(context, checkpoint.dims.n_audio_state, generator=generator)
        for context in CONTEXTS
    )
    tokens = tuple(
        torch.randint(NUM_TEXT_TOKENS, (length,), generator=generator) for length in LENGTHS
    )
    heads = checkpoint.generation.alignment_heads
    logits, looks = zip(
        *(_reference(directory, heads, *row) for row in zip(tokens, encoded, strict=True)),
        strict=True,
    )
    return Bench(model.decoder, checkpoint.dims, encoded, tokens, logits, looks)


@torch.inference_mode()
def _reference(
    directory: Path, heads: tuple[tuple[int, int], ...], tokens: Tensor, encoded: Tensor
) -> tuple[Tensor, Tensor]:
    model = reference_model(directory)
    attention = model.config._attn_implementation
    model.set_attn_implementation("eager")  # the only one that shows its weights
    try:
        with one_thread():
            output = model(
                decoder_input_ids=tokens[None],
                encoder_outputs=(encoded[None],),
                output_attentions=True,
            )
    finally:
        model.set_attn_implementation(attention)
    looks = torch.stack([output.cross_attentions[layer][0, head] for layer, head in heads])
    return output.logits[0], looks


def write(bench: Bench, encoded: Tensor, caches: SlotCaches, slots: list[int]) -> None:
    def store(cache: KeysValues, keys: Tensor, values: Tensor) -> None:
        store_windows(cache, slots, keys, values)

    bench.decoder.write_cross(encoded, caches.layers, store)


def caches_for(bench: Bench) -> SlotCaches:
    """Caches with the audio of every row in its slot, encoded one by one."""
    caches = SlotCaches.allocate(bench.dims, max(SLOTS) + 1, dtype=torch.float32, device=CPU)
    for slot, encoded in zip(SLOTS, bench.encoded, strict=True):
        write(bench, encoded[None], caches, [slot])
    return caches


def run(
    bench: Bench, caches: SlotCaches, spans: list[tuple[int, int, int]], *, align: bool = False
) -> Decoded:
    """Feed each (row, first position, count) in one pass."""
    packed = Packed.build(
        tuple((SLOTS[row], start, count) for row, start, count in spans),
        tuple(CONTEXTS[row] for row, _, _ in spans),
        CPU,
    )
    tokens = torch.cat([bench.tokens[row][start : start + count] for row, start, count in spans])
    with one_thread():
        hidden = bench.decoder.embed(tokens, packed.positions)
        decoded: Decoded = bench.decoder(hidden, packed, caches.layers, align=align)
    return decoded


def assert_equal(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_logits_of_packed_rows_are_those_of_transformers_row_by_row(bench: Bench) -> None:
    spans = [(row, 0, length) for row, length in enumerate(LENGTHS)]
    logits = bench.decoder.logits(run(bench, caches_for(bench), spans).hidden)
    assert_equal(logits, torch.cat(bench.logits))


def test_it_makes_no_difference_in_how_many_passes_tokens_are_fed(bench: Bench) -> None:
    """Prefill, a draft of several tokens, then one by one, each time beside other rows."""
    caches = caches_for(bench)
    passes: list[list[tuple[int, int, int]]] = [
        [(2, 0, 6), (0, 0, 3)],
        [(0, 3, 5), (2, 6, 10)],
        [(1, 0, 4), (0, 8, 1), (2, 16, 1)],
    ]
    for spans in passes:
        logits = bench.decoder.logits(run(bench, caches, spans).hidden)
        expected = [bench.logits[row][start : start + count] for row, start, count in spans]
        assert_equal(logits, torch.cat(expected))


def test_tokens_fed_again_replace_what_was_there(bench: Bench) -> None:
    """A refused draft leaves its keys behind; the tokens that follow overwrite them."""
    caches = caches_for(bench)
    run(bench, caches, [(0, 0, 9)])
    for layer in caches.layers:
        layer.self_attn.keys[SLOTS[0], 4:] = 99.0
        layer.self_attn.values[SLOTS[0], 4:] = 99.0
    logits = bench.decoder.logits(run(bench, caches, [(0, 4, 5)]).hidden)
    assert_equal(logits, bench.logits[0][4:])


def test_alignment_heads_look_where_transformers_heads_look(bench: Bench) -> None:
    spans = [(row, 0, length) for row, length in enumerate(LENGTHS)]
    alignment = by_row(run(bench, caches_for(bench), spans, align=True).looks)
    assert len(alignment) == len(spans)
    for ours, theirs in zip(alignment, bench.looks, strict=True):
        assert_equal(ours, theirs)


def test_a_pass_that_does_not_align_gives_the_same_states_and_no_weights(bench: Bench) -> None:
    spans = [(1, 0, 4)]
    with_weights = run(bench, caches_for(bench), spans, align=True)
    without = run(bench, caches_for(bench), spans)
    assert without.looks == ()
    torch.testing.assert_close(without.hidden, with_weights.hidden, rtol=0, atol=0)


def test_a_row_s_result_does_not_depend_on_its_neighbours(bench: Bench) -> None:
    spans = [(row, 0, length) for row, length in enumerate(LENGTHS)]
    together = torch.split(run(bench, caches_for(bench), spans).hidden, list(LENGTHS))
    for span, expected in zip(spans, together, strict=True):
        alone = run(bench, caches_for(bench), [span]).hidden
        torch.testing.assert_close(alone, expected, rtol=1e-5, atol=1e-5)


def test_a_batch_of_audio_is_written_as_row_by_row_and_touches_no_other_slot(
    bench: Bench,
) -> None:
    encoded = torch.stack([bench.encoded[0], bench.encoded[1][:40]])
    caches = SlotCaches.allocate(bench.dims, 4, dtype=torch.float32, device=CPU)
    write(bench, encoded, caches, [3, 1])
    for row, slot in enumerate((3, 1)):
        alone = SlotCaches.allocate(bench.dims, 4, dtype=torch.float32, device=CPU)
        write(bench, encoded[row : row + 1], alone, [slot])
        for layer, expected in zip(caches.layers, alone.layers, strict=True):
            torch.testing.assert_close(layer.cross_attn.keys[slot], expected.cross_attn.keys[slot])
            torch.testing.assert_close(
                layer.cross_attn.values[slot], expected.cross_attn.values[slot]
            )
    for layer in caches.layers:
        for slot in (0, 2):
            assert not layer.cross_attn.keys[slot].any()
            assert not layer.cross_attn.values[slot].any()
