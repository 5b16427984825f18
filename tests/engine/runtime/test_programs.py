"""What the device does in a step: each row for itself, and nothing that asks the host."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from engine.decoding.draft import accept
from engine.model.backends import load_backend
from engine.model.checkpoint import Checkpoint, load_checkpoint
from engine.model.encoder import HALO_FRAMES
from engine.model.ops import PLAIN
from engine.model.whisper import Whisper
from engine.runtime.caches import SlotCaches
from engine.runtime.decode_ends import PLAIN_ENDS
from engine.runtime.programs import AttentionPlan, Column, Programs
from engine.runtime.sampling import DecodingRules, plain_choice
from tests.support.checkpoints import (
    NUM_TEXT_TOKENS,
    make_checkpoint,
    make_features,
    one_thread,
)

CPU, META = torch.device("cpu"), torch.device("meta")
FLOAT8 = torch.float8_e4m3fn
SLOTS, CONTEXT, REACH = 5, 48, 256
PREFIX = (401, 409, 17)
by_each = pytest.mark.parametrize("attention", ["eager", "sdpa"])


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    path = tmp_path_factory.mktemp("programs")
    return load_checkpoint(make_checkpoint(path, "tiny.en", encoder_layers=1))


@dataclass(frozen=True)
class Rig:
    """The programs of one model over slots of their own."""

    model: Whisper
    caches: SlotCaches
    programs: Programs

    @classmethod
    def of(
        cls,
        checkpoint: Checkpoint,
        attention: str = "sdpa",
        *,
        kv_dtype: torch.dtype = torch.float32,
        device: torch.device = CPU,
    ) -> "Rig":
        model = Whisper.from_checkpoint(checkpoint, dtype=torch.float32, device=device)
        caches = SlotCaches.allocate(
            checkpoint.dims, SLOTS, dtype=kv_dtype, device=device, encoder_dtype=torch.float32
        )
        rules = DecodingRules.build(
            checkpoint.generation, checkpoint.tokenizer, checkpoint.dims.n_vocab, device
        )
        backend = load_backend(attention, torch.float32, kv_dtype)
        plan = AttentionPlan(backend, backend, backend, backend)
        programs = Programs(model, caches, rules, plan, PLAIN, plain_choice(rules), PLAIN_ENDS)
        return cls(model, caches, programs)

    def encode(self, windows: Tensor, slots: Sequence[int], *, keep: bool = False) -> None:
        with one_thread():
            assert self.programs.encode(windows, torch.tensor(slots), keep=keep) == ()

    def extend(self, windows: Tensor, slots: Sequence[int], starts: Sequence[int]) -> None:
        with one_thread():
            on_device = torch.tensor(slots), torch.tensor(starts)
            assert self.programs.extend(windows, *on_device) == ()

    def decode(self, slots: Sequence[int]) -> list[tuple[int, float]]:
        """The token of each slot and its log-probability."""
        with one_thread():
            (chosen,) = self.programs.decode(torch.tensor(slots), reach=REACH)
        return list(zip(chosen[0].tolist(), chosen[1].view(torch.float32).tolist(), strict=True))

    def feed(self, *rows: "Fed", width: int = 8, outs: int = 1) -> "list[Choices]":
        staged = torch.from_numpy(np.stack([row.record(width) for row in rows]))
        with one_thread():
            outputs, languages = self.programs.feed(staged, outs=outs, reach=REACH)
        assert len(languages) == len(rows)
        return [Choices.of(record, outs) for record in outputs]

    def state(self, slot: int) -> list[Tensor]:
        """All that a slot holds, apart from what is there to be overwritten."""
        caches = self.caches
        length, context = int(caches.lengths[slot]), int(caches.contexts[slot])
        # The token chosen last has no keys yet.
        return [
            *(
                tensor[slot, : length - 1].float()
                for layer in caches.layers
                for tensor in (layer.self_attn.keys, layer.self_attn.values)
            ),
            *(
                tensor[slot, :context].float()
                for cache in (*(layer.cross_attn for layer in caches.layers), *caches.encoder)
                for tensor in (cache.keys, cache.values)
            ),
            caches.tokens[slot, :length],
            *(
                tensor[slot]
                for tensor in (
                    *(caches.lengths, caches.contexts, caches.begins),
                    *(caches.timestamps, caches.temperatures, caches.seeds),
                )
            ),
        ]


@dataclass(frozen=True)
class Fed:
    """One row of a feed."""

    slot: int
    tokens: tuple[int, ...]
    draft: tuple[int, ...] = ()
    start: int = 0
    temperature: float = 0.0
    seed: int = 0
    timestamps: bool = False

    def record(self, width: int) -> np.ndarray[Any, np.dtype[np.int32]]:
        fed = self.tokens + self.draft
        record = np.zeros(Column.TOKENS + width, dtype=np.int32)
        record[Column.SLOT] = self.slot
        record[Column.START] = self.start
        record[Column.COUNT] = len(fed)
        record[Column.DRAFT] = len(self.draft)
        record[Column.BEGIN] = len(PREFIX)
        record[Column.TIMESTAMPS] = self.timestamps
        record[Column.TEMPERATURE] = np.float32(self.temperature).view(np.int32)
        record[Column.SEED] = self.seed
        record[Column.TOKENS : Column.TOKENS + len(fed)] = fed
        return record


@dataclass(frozen=True)
class Choices:
    """What a feed chose for one row."""

    accepted: int
    no_speech: float
    tokens: list[int]
    logprobs: list[float]
    peaks: list[int]

    @classmethod
    def of(cls, record: Tensor, outs: int) -> "Choices":
        assert record.shape == (2 + 3 * outs,)
        tokens, logprobs, peaks = record[2:].view(3, outs)
        return cls(
            int(record[0]),
            float(record[1:2].view(torch.float32)),
            tokens.tolist(),
            logprobs.view(torch.float32).tolist(),
            peaks.tolist(),
        )

    def own(self) -> list[float]:
        """Up to the token behind what was accepted, in a row."""
        count = self.accepted + 1
        chosen = (*self.tokens[:count], *self.logprobs[:count], *self.peaks[:count])
        return [self.accepted, self.no_speech, *chosen]


def near(said: Mapping[int, list[float]] | list[float], tolerance: float = 1e-4) -> Any:
    """Tokens and positions are whole numbers, so they are the same."""
    if isinstance(said, list):
        return pytest.approx(said, rel=0, abs=tolerance)
    return {slot: near(its, tolerance) for slot, its in said.items()}


def windows(num: int, positions: int = CONTEXT) -> Tensor:
    return make_features(num, 80, seed=3)[:, :, : 2 * positions]


# Rows for themselves.

LIVES: Mapping[int, Fed] = {
    3: Fed(3, PREFIX),
    0: Fed(0, (*PREFIX, 40, 41), draft=(7, 9), timestamps=True),
    4: Fed(4, PREFIX[:2], temperature=0.7, seed=11),
}


def live(rig: Rig, slots: Sequence[int], *, padding: int) -> dict[int, list[float]]:
    """Each slot's window is encoded, fed, decoded twice, extended and decoded once more."""
    features = dict(zip(LIVES, windows(len(LIVES), CONTEXT + 16), strict=True))
    scratch = [rig.caches.scratch] * padding
    everyone = [*slots, *scratch]
    said: dict[int, list[float]] = {slot: [] for slot in slots}

    def stack(parts: Sequence[Tensor]) -> Tensor:
        return torch.stack([*parts, *[torch.zeros_like(parts[0])] * padding])

    rig.encode(stack([features[slot][:, : 2 * CONTEXT] for slot in slots]), everyone, keep=True)
    rows = [LIVES[slot] for slot in slots] + [Fed(slot, (0,)) for slot in scratch]
    for slot, choices in zip(slots, rig.feed(*rows, outs=8), strict=False):
        said[slot] += choices.own()
    for turn in range(3):
        if turn == 2:
            starts = [slot + 20 for slot in slots]
            parts = [
                features[slot][:, 2 * start - HALO_FRAMES : 2 * (start + 32)]
                for slot, start in zip(slots, starts, strict=True)
            ]
            rig.extend(stack(parts), everyone, [*starts, *[0] * padding])
        for slot, (token, logprob) in zip(slots, rig.decode(everyone), strict=False):
            said[slot] += [token, logprob]
    return said


@by_each
@pytest.mark.parametrize("kv_dtype", [torch.float32, FLOAT8], ids=str)
def test_neither_neighbours_nor_padding_change_what_a_row_says_and_keeps(
    checkpoint: Checkpoint, attention: str, kv_dtype: torch.dtype
) -> None:
    together = Rig.of(checkpoint, attention, kv_dtype=kv_dtype)
    said = live(together, list(LIVES), padding=3)
    # Quantised keys may round to a neighbouring step.
    tolerance = 1e-4 if kv_dtype is torch.float32 else 0.3
    for slot in LIVES:
        alone = Rig.of(checkpoint, attention, kv_dtype=kv_dtype)
        assert live(alone, [slot], padding=0)[slot] == near(said[slot], tolerance)
        for one, other in zip(alone.state(slot), together.state(slot), strict=True):
            torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


@by_each
def test_slots_that_no_row_has_stay_as_they_are(checkpoint: Checkpoint, attention: str) -> None:
    rig = Rig.of(checkpoint, attention)
    everything = [
        *(
            tensor
            for layer in rig.caches.layers
            for cache in (layer.self_attn, layer.cross_attn)
            for tensor in (cache.keys, cache.values)
        ),
        *(tensor for cache in rig.caches.encoder for tensor in (cache.keys, cache.values)),
        *(rig.caches.tokens, rig.caches.lengths, rig.caches.contexts, rig.caches.begins),
        *(rig.caches.timestamps, rig.caches.temperatures, rig.caches.seeds),
    ]
    others = sorted(set(range(SLOTS)) - set(LIVES))
    before = [tensor[others].clone() for tensor in everything]
    live(rig, list(LIVES), padding=2)
    assert others
    for tensor, was in zip(everything, before, strict=True):
        assert torch.equal(tensor[others], was)


def test_the_back_ends_say_the_same(checkpoint: Checkpoint) -> None:
    said = live(Rig.of(checkpoint, "sdpa"), list(LIVES), padding=0)
    assert said == near(live(Rig.of(checkpoint, "eager"), list(LIVES), padding=1))
    last = [its[-2] for its in said.values()]
    assert len(set(last)) > 1, "rows that all say the same would agree anyhow"


def test_the_scratch_slot_never_runs_out_of_its_cache(checkpoint: Checkpoint) -> None:
    """It is decoded with every padded batch, for as long as the engine runs."""
    rig = Rig.of(checkpoint)
    scratch, most = rig.caches.scratch, rig.model.dims.n_text_ctx
    rig.encode(windows(1), [2])
    rig.feed(Fed(2, PREFIX))
    rig.caches.lengths[scratch] = most - 2
    lengths = []
    for _ in range(6):
        (_, logprob), *_ = rig.decode([2, scratch, scratch])
        assert np.isfinite(logprob)
        lengths.append(int(rig.caches.lengths[scratch]))
    assert lengths == [most - 1, *[most] * 5]


def test_padding_that_reaches_beyond_the_text_context_harms_nobody(
    checkpoint: Checkpoint,
) -> None:
    """The last token that a row may hold, fed in a row as wide as there are."""
    chosen = []
    for width in (8, 64, 128):
        rig = Rig.of(checkpoint)
        rig.encode(windows(1), [2])
        last = rig.model.dims.n_text_ctx - 2
        rig.caches.tokens[2, :last] = 9
        (choices,) = rig.feed(Fed(2, (9,), draft=(3,), start=last - 1), width=width, outs=8)
        chosen.append(choices.own())
        assert int(rig.caches.lengths[2]) == last + 1 + choices.accepted
    assert chosen[1] == near(chosen[0])
    assert chosen[2] == near(chosen[0])


# State.


def test_an_encode_keeps_the_encoder_s_keys_only_where_it_is_told_to(
    checkpoint: Checkpoint,
) -> None:
    rig = Rig.of(checkpoint)
    rig.encode(windows(2), [1, 3])
    assert not any(cache.keys.any() or cache.values.any() for cache in rig.caches.encoder)
    assert rig.caches.contexts[[1, 3]].tolist() == [CONTEXT] * 2
    cross = [layer.cross_attn.keys[[1, 3]].clone() for layer in rig.caches.layers]
    rig.encode(windows(2), [1, 3], keep=True)
    for cache in rig.caches.encoder:
        assert cache.keys[[1, 3], :CONTEXT].any(dim=-1).all()
        assert not cache.keys[:, CONTEXT:].any()
        assert not cache.keys[[0, 2, 4]].any()
    for layer, was in zip(rig.caches.layers, cross, strict=True):
        torch.testing.assert_close(layer.cross_attn.keys[[1, 3]], was, rtol=0, atol=0)


def test_an_extension_changes_what_is_from_its_start_on(checkpoint: Checkpoint) -> None:
    rig = Rig.of(checkpoint)
    whole = windows(2, CONTEXT + 16)
    rig.encode(whole[:, :, : 2 * CONTEXT], [1, 3], keep=True)
    cross = rig.caches.layers[0].cross_attn.keys
    before = cross.clone()
    starts, width = (20, 40), 24
    parts = [
        window[:, 2 * start - HALO_FRAMES : 2 * (start + width)]
        for window, start in zip(whole, starts, strict=True)
    ]
    rig.extend(torch.stack(parts), [1, 3], starts)
    assert rig.caches.contexts[[1, 3]].tolist() == [44, 64]
    for slot, start in zip((1, 3), starts, strict=True):
        changed = (cross[slot] != before[slot]).any(dim=-1).any(dim=-1).nonzero()[:, 0]
        assert changed.tolist() == list(range(start, start + width))


def test_a_feed_says_which_rules_hold_from_then_on(checkpoint: Checkpoint) -> None:
    rig = Rig.of(checkpoint)
    rig.encode(windows(2), [1, 3])
    rig.feed(Fed(3, PREFIX, temperature=0.4, seed=12_345), Fed(1, PREFIX, timestamps=True))
    caches = rig.caches
    assert caches.begins[[3, 1]].tolist() == [len(PREFIX)] * 2
    assert caches.timestamps[[3, 1]].tolist() == [False, True]
    assert caches.temperatures[[3, 1]].tolist() == pytest.approx([0.4, 0.0])
    assert caches.seeds[[3, 1]].tolist() == [12_345, 0]
    assert caches.tokens[3, : len(PREFIX)].tolist() == list(PREFIX)


# Drafts.


def greedy(rig: Rig, count: int) -> list[int]:
    """What slot 2's window says one token at a time."""
    (choices,) = rig.feed(Fed(2, PREFIX))
    return choices.tokens + [rig.decode([2])[0][0] for _ in range(count - 1)]


@pytest.fixture(scope="module")
def spoken(checkpoint: Checkpoint) -> tuple[Rig, list[int]]:
    rig = Rig.of(checkpoint)
    rig.encode(windows(1), [2])
    tokens = greedy(rig, 12)
    assert len(set(tokens)) > 3
    return rig, tokens


@settings(max_examples=40)
@given(data=st.data())
def test_of_a_draft_exactly_what_greedy_decoding_says_is_accepted(
    spoken: tuple[Rig, list[int]], data: st.DataObject
) -> None:
    """Fed with the prefix, or behind tokens that the slot holds; then decoding goes on."""
    rig, tokens = spoken
    rig.feed(Fed(2, PREFIX))
    num_known = data.draw(st.integers(0, 4), "tokens that were decoded before")
    for _ in range(num_known - 1):
        rig.decode([2])
    right = data.draw(st.integers(0, 5), "of the draft are right")
    guessed = data.draw(st.lists(st.integers(0, NUM_TEXT_TOKENS - 1), max_size=6 - right))
    draft = (*tokens[num_known : num_known + right], *guessed)
    if num_known:
        start = len(PREFIX) + num_known - 1
        row = Fed(2, (tokens[num_known - 1],), draft, start)
    else:
        row = Fed(2, PREFIX, draft)
    width = data.draw(st.sampled_from([12, 16]))
    (choices,) = rig.feed(row, width=width, outs=width)

    assert choices.accepted == accept(draft, choices.tokens[: len(draft) + 1])
    assert choices.accepted >= right
    said = [*tokens[:num_known], *choices.tokens[: choices.accepted + 1]]
    assert said == tokens[: len(said)]
    length = len(PREFIX) + len(said)
    assert int(rig.caches.lengths[2]) == length
    assert rig.caches.tokens[2, :length].tolist() == [*PREFIX, *said]
    assert all(0 <= peak < CONTEXT for peak in choices.peaks[: choices.accepted + 1])
    # What was not accepted has left keys behind, which decoding must not see.
    assert rig.decode([2])[0][0] == tokens[len(said)]


def test_what_would_follow_a_wrong_token_is_not_accepted_behind_it(
    spoken: tuple[Rig, list[int]],
) -> None:
    rig, tokens = spoken
    wrong = (tokens[1] + 1) % NUM_TEXT_TOKENS
    draft = [tokens[0], wrong]
    for _ in range(3):
        (choices,) = rig.feed(Fed(2, PREFIX, tuple(draft)), outs=8)
        assert choices.accepted == 1
        assert choices.tokens[:2] == tokens[:2]
        draft.append(choices.tokens[len(draft)])


def test_a_feed_without_drafts_chooses_one_token_and_tells_of_silence(
    spoken: tuple[Rig, list[int]],
) -> None:
    rig, tokens = spoken
    (wide,) = rig.feed(Fed(2, PREFIX), outs=8)
    (narrow,) = rig.feed(Fed(2, PREFIX), outs=1)
    assert narrow.own() == near(wide.own())
    assert narrow.tokens == tokens[:1]
    assert 0.0 < narrow.no_speech < 1.0


# What a CUDA graph can hold.

ASKS_THE_HOST = {
    "_local_scalar_dense",  # .item(), .tolist(), bool(), int(), a slice by a tensor
    "equal",
    "masked_select",
    "nonzero",
    "_unique2",
    "unique_consecutive",
}
# A list or a number becomes a tensor. On a GPU it is copied there from memory that is not pinned,
# and waited for: `tensor[index] = 5` is such a case (pytorch/pytorch#186486, #188267).
FROM_THE_HOST = {"lift", "lift_fresh"}


class Capturable(TorchDispatchMode):  # type: ignore[no-untyped-call] # torch has no types here
    """Raises at whatever CUDA could not record: waiting for the device, or the host's memory."""

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        options = dict(kwargs or {})
        name = func.overloadpacket.__name__
        if name in ASKS_THE_HOST | FROM_THE_HOST:
            raise AssertionError(f"{name} cannot be captured")
        if name == "_to_copy" and options.get("device") not in (None, args[0].device):
            raise AssertionError("a copy between host and device cannot be captured")
        indices = args[1] if name in ("index", "index_put", "index_put_") else ()
        if any(index is not None and index.dtype is torch.bool for index in indices):
            raise AssertionError("how many a mask selects cannot be captured")
        return func(*args, **options)


def capturable() -> Capturable:
    return Capturable()  # type: ignore[no-untyped-call] # nor there


@pytest.mark.parametrize(
    ("program", "device"),
    [
        (lambda t: t.sum().item(), CPU),
        (lambda t: t.tolist(), META),
        (lambda t: t.cpu(), META),
        (lambda t: bool(t.any()), CPU),
        (lambda t: t[t > 0], CPU),
        (lambda t: t.nonzero(), META),
        (lambda t: torch.tensor([1, 2], device=t.device), CPU),
        (lambda t: t.__setitem__(t.long(), 5), CPU),
        (lambda t: t.__setitem__(0, 5), CPU),
        (lambda t: torch.equal(t, t), META),
    ],
)
def test_what_cannot_be_captured_is_noticed(
    program: Callable[[Tensor], object], device: torch.device
) -> None:
    with pytest.raises(AssertionError, match="cannot be captured"), capturable():
        program(torch.arange(3.0, device=device))


@by_each
@pytest.mark.parametrize("kv_dtype", [torch.float32, FLOAT8], ids=str)
@pytest.mark.parametrize(
    "step", ["encode", "encode and keep", "extend", "prefill", "verify", "decode"]
)
@pytest.mark.parametrize("device", [CPU, META], ids=str)
def test_nothing_that_a_step_does_asks_the_host(
    checkpoint: Checkpoint,
    attention: str,
    kv_dtype: torch.dtype,
    step: str,
    device: torch.device,
) -> None:
    """Also on a device without data, where nothing can be asked and all else is elsewhere."""
    programs = Rig.of(checkpoint, attention, kv_dtype=kv_dtype, device=device).programs
    slots = torch.arange(3, device=device)
    starts = 2 + slots
    features = torch.zeros(3, 80, HALO_FRAMES + 2 * CONTEXT, device=device)
    draft = (5, 6) if step == "verify" else ()
    records = [Fed(slot, PREFIX, draft, temperature=0.5, timestamps=True) for slot in range(3)]
    staged = torch.from_numpy(np.stack([it.record(8) for it in records])).to(device)

    def run() -> tuple[Tensor, ...]:
        match step:
            case "encode" | "encode and keep":
                window = features[:, :, HALO_FRAMES:]
                return programs.encode(window, slots, keep=step == "encode and keep")
            case "extend":
                return programs.extend(features, slots, starts)
            case "prefill":
                return programs.feed(staged, outs=1, reach=REACH)
            case "verify":
                return programs.feed(staged, outs=8, reach=REACH)
            case _:
                return programs.decode(slots, reach=REACH)

    run()  # as before a capture: what is made once is made now
    with capturable():
        outputs = run()
    assert all(output.device == device for output in outputs)
