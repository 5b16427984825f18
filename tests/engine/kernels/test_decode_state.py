"""Both ends of a decode step against the same in plain torch."""

import pytest
import torch

from engine.kernels.decode_state import begin_decode, end_decode

STATE = 24
SLOTS = torch.tensor([4, 0, 6, 6])  # two rows of padding point at the same slot


def state() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "lengths": torch.randint(1, 9, (7,), generator=generator),
        "contexts": torch.randint(1, 1500, (7,), generator=generator),
        "tokens": torch.randint(0, 50, (7, 12), generator=generator),
    }


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_the_last_token_of_each_slot_is_embedded_where_it_stands(dtype: torch.dtype) -> None:
    given = state()
    words, places = torch.randn(50, STATE).to(dtype), torch.randn(10, STATE).to(dtype)
    hidden, seen, reach = begin_decode(
        SLOTS, given["lengths"], given["contexts"], given["tokens"], words, places
    )
    lengths = given["lengths"][SLOTS]
    expected = words[given["tokens"][SLOTS, lengths - 1]] + places[lengths - 1]
    torch.testing.assert_close(hidden, expected, rtol=0, atol=0)
    assert seen.tolist() == lengths.tolist()
    assert reach.tolist() == given["contexts"][SLOTS].tolist()


def test_what_was_chosen_is_appended_and_told_and_no_other_slot_changes() -> None:
    given = state()
    before = {name: tensor.clone() for name, tensor in given.items()}
    seen = given["lengths"][SLOTS]
    chosen, logprobs = torch.tensor([7, 8, 9, 9]), torch.tensor([-0.5, -1.25, -3.0, -3.0])
    results = end_decode(SLOTS, seen, chosen, logprobs, given["lengths"], given["tokens"], 11)
    assert results[0].tolist() == [7, 8, 9, 9]
    assert results[1].view(torch.float32).tolist() == logprobs.tolist()
    for slot, token in ((4, 7), (0, 8), (6, 9)):
        length = int(before["lengths"][slot])
        assert int(given["tokens"][slot, length]) == token
        assert int(given["lengths"][slot]) == length + 1
        given["tokens"][slot, length] = before["tokens"][slot, length]
        given["lengths"][slot] = length
    assert all(torch.equal(given[name], before[name]) for name in given)


def test_a_slot_that_is_full_stays_full() -> None:
    given = state()
    given["lengths"][:] = 9
    seen = given["lengths"][SLOTS]
    end_decode(
        SLOTS, seen, torch.ones(4).long(), torch.zeros(4), given["lengths"], given["tokens"], 9
    )
    assert given["lengths"][SLOTS].tolist() == [9] * 4
