"""The masked rules against openai/whisper's own, row by row, over random histories."""

from dataclasses import dataclass
from math import inf

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from engine.kernels.noise import gumbel_noise
from engine.runtime.caches import SlotCaches
from engine.runtime.sampling import DecodingRules, choose, plain_choice
from tests.support.model_dims import small_dims

CPU = torch.device("cpu")
N_TEXT_CTX = 24
# Whisper's layout in small: text, then the specials, then timestamps.
EOT, NO_SPEECH, NO_TIMESTAMPS, TIMESTAMP_BEGIN, N_VOCAB = 20, 24, 25, 26, 46
SUPPRESSED, SUPPRESSED_FIRST, MAX_INITIAL_TIMESTAMP = (3, 21, 22), (5, EOT), 6


@dataclass(frozen=True)
class Row:
    """A decode in progress: `forced` ends in the `sot` sequence, `sampled` is what followed."""

    forced: tuple[int, ...]
    sampled: tuple[int, ...]
    timestamps: bool


def mask(ids: tuple[int, ...]) -> Tensor:
    chosen = torch.zeros(N_VOCAB, dtype=torch.bool)
    chosen[list(ids)] = True
    return chosen


def rules(max_initial_timestamp: int | None = MAX_INITIAL_TIMESTAMP) -> DecodingRules:
    return DecodingRules(
        mask(SUPPRESSED),
        mask(SUPPRESSED_FIRST),
        torch.tensor([22, 23]),
        EOT,
        NO_SPEECH,
        NO_TIMESTAMPS,
        TIMESTAMP_BEGIN,
        max_initial_timestamp,
    )


def caches_of(rows: list[Row]) -> SlotCaches:
    """A slot for each row, its tokens fed; what lies behind them is from an earlier use."""
    dims = small_dims(n_text_ctx=N_TEXT_CTX, n_vocab=N_VOCAB)
    caches = SlotCaches.allocate(dims, len(rows), dtype=torch.float32, device=CPU)
    caches.tokens.fill_(N_VOCAB - 1)
    for index, row in enumerate(rows):
        fed = row.forced + row.sampled
        caches.tokens[index, : len(fed)] = torch.tensor(fed)
        caches.begins[index] = len(row.forced)
        caches.timestamps[index] = row.timestamps
    return caches


def reference(logits: Tensor, row: Row, num_sampled: int, max_initial: int | None) -> Tensor:
    """openai/whisper `decoding.py`, for one row: SuppressBlank, SuppressTokens, timestamps."""
    logits = logits.clone()
    sequence = list(row.sampled[:num_sampled])
    if not sequence:
        logits[list(SUPPRESSED_FIRST)] = -inf
    logits[list(SUPPRESSED)] = -inf
    if not row.timestamps:
        return logits
    logits[NO_TIMESTAMPS] = -inf
    last_was_timestamp = len(sequence) >= 1 and sequence[-1] >= TIMESTAMP_BEGIN
    penultimate_was_timestamp = len(sequence) < 2 or sequence[-2] >= TIMESTAMP_BEGIN
    if last_was_timestamp:
        if penultimate_was_timestamp:
            logits[TIMESTAMP_BEGIN:] = -inf
        else:
            logits[:EOT] = -inf
    timestamps = [token for token in sequence if token >= TIMESTAMP_BEGIN]
    if timestamps:
        closes = last_was_timestamp and not penultimate_was_timestamp
        logits[TIMESTAMP_BEGIN : timestamps[-1] + (not closes)] = -inf
    if not sequence:
        logits[:TIMESTAMP_BEGIN] = -inf
        if max_initial is not None:
            logits[TIMESTAMP_BEGIN + max_initial + 1 :] = -inf
    logprobs = logits.log_softmax(dim=-1)
    if logprobs[TIMESTAMP_BEGIN:].logsumexp(dim=-1) > logprobs[:TIMESTAMP_BEGIN].max():
        logits[:TIMESTAMP_BEGIN] = -inf
    return logits


@st.composite
def rows(draw: st.DrawFn) -> Row:
    """Any tokens in any order, except that timestamps do not decrease: no rule lets them."""
    forced = draw(st.lists(st.integers(0, N_VOCAB - 1), min_size=1, max_size=8))
    text = st.integers(0, EOT - 1)
    stamp = st.integers(TIMESTAMP_BEGIN, N_VOCAB - 2)
    sampled = draw(st.lists(text | stamp, max_size=12))
    stamps = iter(sorted(token for token in sampled if token >= TIMESTAMP_BEGIN))
    in_order = tuple(next(stamps) if token >= TIMESTAMP_BEGIN else token for token in sampled)
    return Row(tuple(forced), in_order, draw(st.booleans()))


@given(
    batch=st.lists(rows(), min_size=1, max_size=5),
    seed=st.integers(0, 2**32 - 1),
    lean=st.sampled_from((-4.0, 0.0, 2.0)),
    max_initial=st.sampled_from((None, 0, MAX_INITIAL_TIMESTAMP)),
)
def test_every_position_is_ruled_as_openai_s_rules_would(
    batch: list[Row], seed: int, lean: float, max_initial: int | None
) -> None:
    """All positions of all rows at once, as a verified draft asks for them."""
    slots, targets, expected = [], [], []
    for index, row in enumerate(batch):
        for num_sampled in range(len(row.sampled) + 1):
            slots.append(index)
            targets.append(len(row.forced) + num_sampled)
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(len(slots), N_VOCAB, generator=generator)
    logits[:, TIMESTAMP_BEGIN:] += lean  # so that either side of the last rule is met
    for logit, slot, target in zip(logits, slots, targets, strict=True):
        row = batch[slot]
        expected.append(reference(logit, row, target - len(row.forced), max_initial))
    ruled = rules(max_initial).apply(
        logits.clone(), caches_of(batch), torch.tensor(slots), torch.tensor(targets)
    )
    torch.testing.assert_close(ruled, torch.stack(expected), rtol=0, atol=0)


def test_a_timestamp_is_forced_only_where_timestamps_together_outweigh_every_word() -> None:
    row = Row((0, 1), (TIMESTAMP_BEGIN, 7), timestamps=True)
    for weight, forced in ((0.0, True), (-9.0, False)):
        logits = torch.full((1, N_VOCAB), -20.0)
        logits[0, 8] = 1.0  # each timestamp alone is less likely than this word
        logits[0, TIMESTAMP_BEGIN:] = weight
        slots, targets = torch.tensor([0]), torch.tensor([4])
        ruled = rules().apply(logits, caches_of([row]), slots, targets)
        assert (int(ruled.argmax()) >= TIMESTAMP_BEGIN) == forced


def test_a_row_s_rules_do_not_depend_on_its_neighbours() -> None:
    batch = [
        Row((0, 1, 2), (TIMESTAMP_BEGIN + 2, 7), timestamps=True),
        Row((TIMESTAMP_BEGIN + 9,), (), timestamps=True),
        Row((1,), (4, 4, 4), timestamps=False),
    ]
    logits = torch.randn(len(batch), N_VOCAB, generator=torch.Generator().manual_seed(1))
    slots = torch.arange(len(batch))
    targets = torch.tensor([len(row.forced + row.sampled) for row in batch])
    caches = caches_of(batch)
    together = rules().apply(logits.clone(), caches, slots, targets)
    for index in range(len(batch)):
        one = slice(index, index + 1)
        alone = rules().apply(logits[one].clone(), caches, slots[one], targets[one])
        torch.testing.assert_close(alone, together[one], rtol=0, atol=0)


def draw(logits: Tensor, temperature: float, seed: int) -> tuple[Tensor, Tensor]:
    """One token for `logits` [1, n_vocab]."""
    noise = gumbel_noise(torch.tensor([seed]), torch.tensor([4]), logits.shape[1])
    return choose(logits, torch.tensor([temperature]), noise)


def test_the_greedy_choice_is_the_best_token_with_its_log_probability() -> None:
    logits = torch.tensor([[0.0, 2.0, -inf], [1.0, -inf, 0.0]])
    tokens, logprobs = choose(logits, torch.zeros(2))
    assert tokens.tolist() == [1, 0]
    probabilities = logits.softmax(dim=-1)
    expected = torch.stack([probabilities[0, 1], probabilities[1, 0]])
    torch.testing.assert_close(logprobs.exp(), expected)


def test_the_same_seed_draws_the_same_token_and_others_draw_others() -> None:
    logits = torch.zeros(1, N_VOCAB)
    logits[0, 7:] = -inf
    once = [int(draw(logits, 0.8, seed)[0]) for seed in range(40)]
    again = [int(draw(logits, 0.8, seed)[0]) for seed in range(40)]
    assert once == again
    assert set(once) == set(range(7))


@pytest.mark.parametrize("temperature", [0.2, 1.0])
def test_a_drawn_token_is_scored_as_if_it_had_been_chosen_without_temperature(
    temperature: float,
) -> None:
    logits = torch.randn(1, N_VOCAB, generator=torch.Generator().manual_seed(2))
    token, logprob = draw(logits, temperature, seed=5)
    torch.testing.assert_close(logprob, logits.log_softmax(dim=-1)[:, int(token)])


def test_a_low_temperature_draws_the_best_token() -> None:
    logits = torch.randn(1, N_VOCAB, generator=torch.Generator().manual_seed(3))
    assert {int(draw(logits, 0.001, seed)[0]) for seed in range(20)} == {int(logits.argmax())}


def test_a_token_that_is_ruled_out_is_never_drawn() -> None:
    logits = torch.full((1, N_VOCAB), -inf)
    logits[0, [2, 9]] = torch.tensor([0.0, -1.0])
    assert {int(draw(logits, 5.0, seed)[0]) for seed in range(60)} == {2, 9}


def test_rows_at_a_temperature_and_without_share_a_batch() -> None:
    batch = [Row((0,), (1, 2), False)] * 3
    logits = torch.randn(3, N_VOCAB, generator=torch.Generator().manual_seed(4))
    caches = caches_of(batch)
    caches.temperatures[1] = 0.9
    caches.seeds[1] = 11
    slots, targets = torch.arange(3), torch.full((3,), 3)
    together = plain_choice(rules())(logits, caches, slots, targets)[0].tolist()
    ruled = rules().apply(logits.clone(), caches, slots, targets)
    assert [together[0], together[2]] == ruled.argmax(dim=-1)[[0, 2]].tolist()
    alone = plain_choice(rules())(logits[1:2], caches, slots[1:2], targets[1:2])[0]
    assert together[1] == int(alone)
