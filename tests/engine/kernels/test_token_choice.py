"""The fused choice against the rules of `sampling`, and the distribution that draws follow."""

from dataclasses import dataclass
from math import inf, nan
from random import Random

import pytest
import torch
import triton
import triton.language as tl
from torch import Tensor

from engine.kernels import token_choice
from engine.kernels.noise import gumbel_noise, noise_bits
from engine.kernels.token_choice import choose_tokens
from engine.runtime.caches import SlotCaches
from engine.runtime.sampling import DecodingRules
from tests.support.model_dims import small_dims

N_TEXT_CTX = 24
# Whisper's layout in small: text, then the specials, then timestamps.
EOT, NO_SPEECH, NO_TIMESTAMPS, TIMESTAMP_BEGIN, N_VOCAB = 20, 24, 25, 26, 46
SUPPRESSED, SUPPRESSED_FIRST, MAX_INITIAL_TIMESTAMP = (3, 21, 22), (5, EOT), 6


@dataclass(frozen=True)
class Row:
    """A decode in progress: `forced` ends in the `sot` sequence, `sampled` is what followed."""

    forced: tuple[int, ...]
    sampled: tuple[int, ...]
    timestamps: bool = True


@dataclass(frozen=True)
class Layout:
    """Where the ids of a vocabulary lie, and what is never chosen."""

    eot: int = EOT
    no_timestamps: int = NO_TIMESTAMPS
    timestamp_begin: int = TIMESTAMP_BEGIN
    n_vocab: int = N_VOCAB
    max_initial: int | None = MAX_INITIAL_TIMESTAMP
    suppressed: tuple[int, ...] = SUPPRESSED
    suppressed_first: tuple[int, ...] = SUPPRESSED_FIRST

    def mask(self, ids: tuple[int, ...]) -> Tensor:
        chosen = torch.zeros(self.n_vocab, dtype=torch.bool)
        chosen[list(ids)] = True
        return chosen

    def rules(self) -> DecodingRules:
        return DecodingRules(
            self.mask(self.suppressed),
            self.mask(self.suppressed_first),
            torch.tensor([self.eot + 1]),
            self.eot,
            self.eot + 4,
            self.no_timestamps,
            self.timestamp_begin,
            self.max_initial,
        )


SMALL = Layout()
LARGE = Layout(50_257, 50_364, 50_365, 51_866, 50, (1, 50_258, 50_361), (220, 50_257))


@dataclass(frozen=True)
class Batch:
    """Slots in their caches, their rows, and how each slot draws."""

    layout: Layout
    caches: SlotCaches
    slots: Tensor
    targets: Tensor
    temperatures: Tensor
    seeds: Tensor

    @classmethod
    def build(
        cls,
        rows: list[Row],
        targets: list[tuple[int, int]] | None = None,
        *,
        layout: Layout = SMALL,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> "Batch":
        """`targets` are the slot and index of each row: without them the end of each slot."""
        dims = small_dims(n_text_ctx=N_TEXT_CTX, n_vocab=layout.n_vocab)
        # One slot more, which no row asks for and which draws.
        num_slots = len(rows) + 1
        caches = SlotCaches.allocate(
            dims, num_slots, dtype=torch.float32, device=torch.device("cpu")
        )
        caches.tokens.fill_(layout.n_vocab - 1)  # what an earlier use left behind
        for index, row in enumerate(rows):
            fed = row.forced + row.sampled
            caches.tokens[index, : len(fed)] = torch.tensor(fed)
            caches.begins[index] = len(row.forced)
            caches.timestamps[index] = row.timestamps
        if targets is None:
            targets = [(slot, len(row.forced + row.sampled)) for slot, row in enumerate(rows)]
        temperatures = torch.full((num_slots,), temperature)
        temperatures[-1] = 9.0
        return cls(
            layout,
            caches,
            torch.tensor([slot for slot, _ in targets]),
            torch.tensor([target for _, target in targets]),
            temperatures,
            torch.arange(num_slots) * 1_000_003 + seed,
        )

    def choose(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        rules = self.layout.rules()
        return choose_tokens(
            logits,
            self.caches.tokens,
            self.slots,
            self.targets,
            self.caches.begins,
            self.caches.timestamps,
            self.temperatures,
            self.seeds,
            rules.suppressed,
            rules.suppressed_first,
            eot=rules.eot,
            no_timestamps=rules.no_timestamps,
            timestamp_begin=rules.timestamp_begin,
            max_initial_timestamp=rules.max_initial_timestamp,
        )

    def expected(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """The rules of `sampling`, a choice in float32, a log-probability in float64."""
        ruled = self.layout.rules().apply(logits.float(), self.caches, self.slots, self.targets)
        temperatures = self.temperatures[self.slots, None]
        noise = gumbel_noise(self.seeds[self.slots], self.targets, ruled.shape[1])
        scores = torch.where(temperatures > 0, ruled / temperatures.clamp(min=1e-9) + noise, ruled)
        tokens = scores.argmax(dim=-1)
        logprobs = ruled.double().log_softmax(dim=-1).gather(1, tokens[:, None]).squeeze(1)
        return tokens, logprobs.float()


def assert_chosen_as_expected(batch: Batch, logits: Tensor) -> None:
    tokens, logprobs = batch.choose(logits)
    expected_tokens, expected_logprobs = batch.expected(logits.clone())
    assert tokens.tolist() == expected_tokens.tolist()
    torch.testing.assert_close(logprobs, expected_logprobs, rtol=1e-6, atol=1e-6)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def any_row(source: Random) -> Row:
    """Any tokens in any order, except that timestamps do not decrease: no rule lets them."""
    forced = [source.randrange(N_VOCAB) for _ in range(source.randint(1, 8))]
    sampled = [
        source.randrange(TIMESTAMP_BEGIN, N_VOCAB - 1)
        if source.random() < 0.5
        else source.randrange(EOT)
        for _ in range(source.randint(0, 12))
    ]
    stamps = iter(sorted(token for token in sampled if token >= TIMESTAMP_BEGIN))
    in_order = tuple(next(stamps) if token >= TIMESTAMP_BEGIN else token for token in sampled)
    return Row(tuple(forced), in_order, timestamps=source.random() < 0.8)


@pytest.mark.parametrize(
    ("lean", "max_initial", "temperature"),
    [(-4.0, None, 0.0), (0.0, 0, 0.0), (2.0, MAX_INITIAL_TIMESTAMP, 0.0), (-1.0, None, 0.7)],
)
def test_every_position_is_chosen_as_the_masked_rules_choose(
    lean: float, max_initial: int | None, temperature: float
) -> None:
    """All positions of all slots at once, as a verified draft asks for them."""
    source = Random(int(lean))
    slots = [any_row(source) for _ in range(6)]
    targets = [
        (slot, len(row.forced) + num_sampled)
        for slot, row in enumerate(slots)
        for num_sampled in range(len(row.sampled) + 1)
    ]
    batch = Batch.build(
        slots, targets, layout=Layout(max_initial=max_initial), temperature=temperature
    )
    logits = normal(len(targets), N_VOCAB, seed=int(lean) + 9)
    logits[::2] = logits[::2].round()  # few values, so that ties are met
    logits[:, TIMESTAMP_BEGIN:] += lean  # so that either side of the last rule is met
    assert_chosen_as_expected(batch, logits)


@pytest.mark.parametrize(
    ("dtype", "temperature"),
    [
        (torch.float16, 0.0),
        (torch.bfloat16, 0.7),
        (torch.float32, 0.0),
        (torch.float32, 0.7),
    ],
    ids=str,
)
def test_a_vocabulary_of_many_tiles_is_chosen_from_like_a_small_one(
    dtype: torch.dtype, temperature: float
) -> None:
    stamp = LARGE.timestamp_begin
    slots = [
        Row((50_258, 50_259), ()),
        Row((50_258, 50_364), (), timestamps=False),
        Row((50_258,), (stamp + 7, 400)),
        Row((50_258,), (stamp + 7, 400, stamp + 1400)),
        Row((50_258,), (stamp + 7, 400, stamp + 90, stamp + 90)),
    ]
    batch = Batch.build(slots, layout=LARGE, temperature=temperature, seed=3)
    logits = 4 * normal(len(slots), LARGE.n_vocab, seed=1)
    logits[2, stamp:] -= 30
    assert_chosen_as_expected(batch, logits.to(dtype))


def test_the_lowest_id_wins_a_tie_within_a_tile_across_tiles_and_across_the_groups() -> None:
    batch = Batch.build([Row((50_258,), (), timestamps=False)] * 3, layout=LARGE)
    logits = torch.full((3, LARGE.n_vocab), -3.0)
    for row, tied in enumerate(((700, 701, 4090), (4095, 4096, 40_000), (50_300, 50_365, 51_865))):
        logits[row, list(tied)] = 2.5
    assert batch.choose(logits)[0].tolist() == [700, 4095, 50_300]


def test_a_timestamp_is_forced_only_where_timestamps_together_outweigh_every_word() -> None:
    batch = Batch.build([Row((0, 1), (TIMESTAMP_BEGIN, 7))])
    for weight, forced in ((0.0, True), (-9.0, False)):
        logits = torch.full((1, N_VOCAB), -20.0)
        logits[0, 8] = 1.0  # each timestamp alone is less likely than this word
        logits[0, TIMESTAMP_BEGIN:] = weight
        assert (int(batch.choose(logits)[0]) >= TIMESTAMP_BEGIN) == forced
        assert_chosen_as_expected(batch, logits)


def test_one_timestamp_as_good_as_the_best_word_does_not_outweigh_it() -> None:
    batch = Batch.build([Row((0, 1), (TIMESTAMP_BEGIN, 7))])
    logits = torch.full((1, N_VOCAB), -inf)
    logits[0, [8, N_VOCAB - 1]] = 1.7
    tokens, logprobs = batch.choose(logits)
    assert tokens.tolist() == [8]
    torch.testing.assert_close(logprobs.exp(), torch.tensor([0.5]))


def test_logits_may_be_a_view_of_a_wider_tensor_and_stay_as_they_are() -> None:
    batch = Batch.build([Row((0, 1), ()), Row((0,), (TIMESTAMP_BEGIN, 7))], temperature=1.0)
    wide = torch.full((5, 64), 1e4)
    view = wide[1::3, 5 : 5 + N_VOCAB]
    view.copy_(normal(2, N_VOCAB))
    before = wide.clone()
    transposed = normal(N_VOCAB, 2, seed=4).t()
    assert_chosen_as_expected(batch, view)
    assert_chosen_as_expected(batch, transposed)
    torch.testing.assert_close(wide, before, rtol=0, atol=0)


def test_a_row_s_choice_does_not_depend_on_its_neighbours() -> None:
    slots = [
        Row((0, 1, 2), (TIMESTAMP_BEGIN + 2, 7)),
        Row((TIMESTAMP_BEGIN + 9,), ()),
        Row((1,), (4, 4, 4), timestamps=False),
    ]
    batch = Batch.build(slots, temperature=0.8)
    logits = normal(3, N_VOCAB, seed=1)
    tokens, logprobs = batch.choose(logits)
    for row in range(3):
        one = slice(row, row + 1)
        alone = Batch(
            SMALL,
            batch.caches,
            batch.slots[one],
            batch.targets[one],
            batch.temperatures,
            batch.seeds,
        )
        torch.testing.assert_close(
            alone.choose(logits[one]), (tokens[one], logprobs[one]), rtol=0, atol=0
        )


def test_no_rows_are_chosen_for_without_a_launch() -> None:
    tokens, logprobs = Batch.build([Row((0,), ())], []).choose(torch.empty(0, N_VOCAB))
    assert tokens.shape == logprobs.shape == (0,)


@pytest.mark.parametrize("timestamps", [True, False])
@pytest.mark.parametrize("token", [0, 8, TIMESTAMP_BEGIN + 4])
@pytest.mark.parametrize("bad", [nan, inf])
@pytest.mark.parametrize("temperature", [0.0, 0.5])
def test_a_logit_that_is_no_number_shows_in_the_log_probability(
    timestamps: bool, token: int, bad: float, temperature: float
) -> None:
    batch = Batch.build([Row((1,), (TIMESTAMP_BEGIN, 4), timestamps)], temperature=temperature)
    logits = normal(1, N_VOCAB)
    logits[0, token] = bad
    tokens, logprobs = batch.choose(logits)
    assert bool(logprobs.isnan().all())
    assert tokens.tolist() == [token]


def test_a_logit_that_is_no_number_but_ruled_out_does_no_harm() -> None:
    batch = Batch.build([Row((1,), (TIMESTAMP_BEGIN + 5, 4))])
    logits = normal(1, N_VOCAB)
    logits[0, [SUPPRESSED[0], NO_TIMESTAMPS, TIMESTAMP_BEGIN + 1]] = nan
    tokens, logprobs = batch.choose(logits)
    logits[0, [SUPPRESSED[0], NO_TIMESTAMPS, TIMESTAMP_BEGIN + 1]] = -inf
    expected_tokens, expected_logprobs = batch.expected(logits)
    assert tokens.tolist() == expected_tokens.tolist()
    torch.testing.assert_close(logprobs, expected_logprobs)


def test_where_everything_is_ruled_out_the_log_probability_is_not_a_number() -> None:
    batch = Batch.build([Row((1,), (4,))] * 2, temperature=0.0)
    tokens, logprobs = batch.choose(torch.full((2, N_VOCAB), -inf))
    assert bool(logprobs.isnan().all())
    assert bool(((tokens >= 0) & (tokens < N_VOCAB)).all())


# Triton's decorator has no types, and the exemption in pyproject.toml is for kernels only.
@triton.jit  # type: ignore[untyped-decorator]
def _noise_of_row(
    seeds: Tensor,
    targets: Tensor,
    bits: Tensor,
    noise: Tensor,
    num_vocab: int,
    TILE: tl.constexpr,  # noqa: N803
) -> None:
    row = tl.program_id(0)
    ids = tl.arange(0, TILE)
    seed, target = tl.load(seeds + row), tl.load(targets + row)
    at = row * num_vocab + ids
    valid = ids < num_vocab
    tl.store(bits + at, token_choice.noise_bits(seed, target, ids).to(tl.int64), mask=valid)
    tl.store(noise + at, token_choice.gumbel_noise(seed, target, ids), mask=valid)


def test_the_kernel_s_noise_is_its_twin_s() -> None:
    seeds = torch.tensor([0, 1, -1, 2**31, 2**32 - 1, -(2**63), 2**63 - 1, 123_456_789_012_345])
    targets, num_vocab = torch.arange(8) * 61, 3000
    bits = torch.empty(8, num_vocab, dtype=torch.int64)
    noise = torch.empty(8, num_vocab)
    _noise_of_row[(8,)](seeds, targets, bits, noise, num_vocab, TILE=4096)
    torch.testing.assert_close(bits, noise_bits(seeds, targets, num_vocab), rtol=0, atol=0)
    torch.testing.assert_close(noise, gumbel_noise(seeds, targets, num_vocab), rtol=2e-6, atol=2e-6)
