"""Both ends of a decode step, plain and fused, from the same state."""

import pytest
import torch

pytest.importorskip("triton")

from engine.model.decoder import TextDecoder
from engine.runtime.caches import SlotCaches
from engine.runtime.decode_ends import PLAIN_ENDS, DecodeEnds, fused_ends
from tests.support.model_dims import small_dims

DIMS = small_dims(n_text_ctx=10, n_text_state=24, n_audio_state=24)
SLOTS = torch.tensor([2, 0, 4, 4])  # two rows of padding point at the scratch slot
ENDS = {"plain": PLAIN_ENDS, "fused": fused_ends()}
of_both = pytest.mark.parametrize("ends", ENDS.values(), ids=ENDS)


def decoder() -> TextDecoder:
    torch.manual_seed(3)
    return TextDecoder(DIMS, ()).requires_grad_(False)


def caches(*lengths: int) -> SlotCaches:
    """Slots with so many tokens each, the last of them the scratch slot's."""
    given = SlotCaches.allocate(
        DIMS, len(lengths) - 1, dtype=torch.float32, device=torch.device("cpu")
    )
    generator = torch.Generator().manual_seed(4)
    given.tokens.copy_(torch.randint(0, DIMS.n_vocab, given.tokens.shape, generator=generator))
    given.lengths.copy_(torch.tensor(lengths))
    given.contexts.copy_(torch.arange(len(lengths)) + 50)
    return given


@of_both
def test_a_step_begins_with_each_slot_s_last_token_where_it_stands(ends: DecodeEnds) -> None:
    given, embedding = caches(5, 1, 10, 2, 7), decoder()
    hidden, seen, contexts = ends.begin(SLOTS, given, embedding)
    assert seen.tolist() == [10, 5, 7, 7]
    assert contexts.tolist() == [52, 50, 54, 54]
    last = torch.stack([given.tokens[slot, given.lengths[slot] - 1] for slot in SLOTS])
    expected = embedding.embed_tokens(last) + embedding.embed_positions(seen - 1)
    torch.testing.assert_close(hidden, expected, rtol=0, atol=0)


@of_both
def test_a_step_ends_with_what_was_chosen_behind_each_slot_s_tokens(ends: DecodeEnds) -> None:
    given = caches(5, 1, 8, 2, 7)
    before = given.tokens.clone()
    seen = given.lengths[SLOTS]
    chosen, logprobs = torch.tensor([7, 8, 9, 9]), torch.tensor([-0.5, -1.25, -3.0, -3.0])
    results = ends.finish(SLOTS, seen, chosen, logprobs, given)
    assert results.dtype is torch.int32
    assert results[0].tolist() == chosen.tolist()
    assert results[1].view(torch.float32).tolist() == logprobs.tolist()
    assert given.lengths.tolist() == [6, 1, 9, 2, 8]
    before[SLOTS, seen] = chosen
    assert torch.equal(given.tokens, before)


@of_both
def test_the_scratch_slot_is_decoded_again_and_again_within_the_text_context(
    ends: DecodeEnds,
) -> None:
    given, embedding = caches(3, DIMS.n_text_ctx - 1), decoder()
    scratch = torch.tensor([given.scratch])
    lengths = []
    for token in range(4):
        hidden, seen, _ = ends.begin(scratch, given, embedding)
        assert hidden.isfinite().all()
        ends.finish(scratch, seen, torch.tensor([token]), torch.tensor([-1.0]), given)
        lengths.append(int(given.lengths[given.scratch]))
    assert lengths == [DIMS.n_text_ctx] * 4
    assert int(given.lengths[0]) == 3
