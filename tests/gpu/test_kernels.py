"""The kernels as the device compiles them, in the model's own sizes, against float64."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from engine.audio.units import MAX_WINDOW_FRAMES, MAX_WINDOW_POSITIONS, SAMPLE_RATE
from engine.kernels import log_mel
from engine.kernels.alignment_weights import alignment_weights
from engine.kernels.gelu import bias_gelu
from engine.kernels.layer_norm import add_layer_norm
from engine.kernels.plain_attention import (
    FLOAT8,
    alignment_weights_plain,
    quantise_plain,
    store_keys_values_plain,
)
from engine.kernels.slot_attention import slot_attention
from engine.kernels.store_keys_values import store_keys_values
from engine.model.mel import LogMel, MelWindow
from engine.model.quantized import MAX_KERNEL_ROWS, QuantizedLinear
from engine.runtime.caches import SlotCaches
from engine.runtime.features import SlotFeatures
from engine.runtime.sampling import DecodingRules, fused_choice, plain_choice
from engine.scheduling.slots import SlotHandle
from engine.scheduling.steps import EncodeRow
from tests.support.model_dims import small_dims

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(240)]

HEADS, HEAD_DIM = 20, 64
TEXT, ROOM = 448, 512  # what may be seen of self-attention's cache, and its length
SLOTS = 256
# Slots so many that a cache has more elements than an int32 can count.
FAR_SLOTS = 1_200
FAR_BYTES = 12 << 30

TOLERANCES = {torch.float32: 2e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}


# Attention.


@dataclass(frozen=True)
class Cache:
    """Keys or values [slots, positions, heads, head_dim], and their scales where float8."""

    stored: Tensor
    scales: Tensor | None

    @classmethod
    def random(
        cls, slots: int, positions: int, dtype: torch.dtype, device: torch.device
    ) -> "Cache":
        """In the order of memory that cross-attention has: heads, then positions."""
        shape = slots, HEADS, positions, HEAD_DIM
        kind = torch.float16 if dtype is FLOAT8 else dtype
        generator = torch.Generator(device).manual_seed(positions)
        vectors = torch.randn(shape, dtype=kind, device=device, generator=generator)
        if dtype is not FLOAT8:
            return cls(vectors.transpose(1, 2), None)
        stored, scales = quantise_plain(vectors)
        return cls(stored.transpose(1, 2), scales.transpose(1, 2))

    def another(self) -> "Cache":
        """With what every slot holds in the next one; CUDA moves no float8, but its bytes."""
        if self.scales is None:
            return Cache(self.stored.roll(1, 0), None)
        moved = self.stored.view(torch.uint8).roll(1, 0).view(FLOAT8)
        return Cache(moved, self.scales.roll(1, 0))

    def of(self, slots: Tensor, most: int) -> Tensor:
        """The first positions of some slots [rows, most, heads, head_dim] float64."""
        if self.scales is None:
            return self.stored[slots, :most].double()
        values = self.stored.view(torch.uint8)[slots, :most].view(FLOAT8).double()
        return values * self.scales[slots, :most].double()[..., None]


def attention(query: Tensor, keys: Tensor, values: Tensor, seen: Tensor, *, causal: bool) -> Tensor:
    """Softmax attention in float64 to [rows, most, heads, head_dim]."""
    scores = torch.einsum("rqhd,rkhd->rhqk", query.double(), keys) * query.shape[-1] ** -0.5
    offsets = torch.arange(query.shape[1], device=query.device) * int(causal)
    visible = (
        torch.arange(keys.shape[1], device=query.device) < seen[:, None, None] + offsets[:, None]
    )
    weights = scores.masked_fill(~visible[:, None], float("-inf")).softmax(dim=-1)
    return torch.einsum("rhqk,rkhd->rqhd", weights, values)


def random_query(rows: int, width: int, dtype: torch.dtype, device: torch.device) -> list[Tensor]:
    """Queries, keys and values [rows, width, heads, head_dim] as views of one projection."""
    generator = torch.Generator(device).manual_seed(width)
    shape = rows, width, 3, HEADS, HEAD_DIM
    return list(torch.randn(shape, dtype=dtype, device=device, generator=generator).unbind(2))


def row_slots(rows: int, slots: int, device: torch.device) -> Tensor:
    return torch.randperm(slots, generator=torch.Generator().manual_seed(7))[:rows].to(device)


def on_host(cache: Cache) -> Cache:
    return Cache(cache.stored.cpu(), None if cache.scales is None else cache.scales.cpu())


def store_on_host(
    caches: tuple[Cache, Cache],
    new_keys: Tensor,
    new_values: Tensor,
    slots: Tensor,
    *,
    starts: Tensor,
) -> None:
    """The plain twin, on a processor: there a division by a number is one, not a product."""
    keys, values = caches
    store_keys_values_plain(
        new_keys.cpu(),
        new_values.cpu(),
        keys.stored,
        values.stored,
        slots.cpu(),
        starts=starts.cpu(),
        key_scales=keys.scales,
        value_scales=values.scales,
    )


def assert_same_bits(found: Cache, expected: Cache) -> None:
    bits = found.stored.cpu().contiguous().view(torch.uint8)
    assert torch.equal(bits, expected.stored.contiguous().view(torch.uint8))
    if found.scales is not None and expected.scales is not None:
        assert torch.equal(found.scales.cpu(), expected.scales)


# Each format and width once, and the half formats at every width.
CASES = [
    *((torch.float16, torch.float16, width) for width in (1, 8, 32, 64)),
    *((torch.bfloat16, torch.bfloat16, width) for width in (1, 32)),
    *((torch.float32, torch.float32, width) for width in (1, 8, 64)),
    *((torch.float16, FLOAT8, width) for width in (1, 8, 64)),
    *((torch.bfloat16, FLOAT8, width) for width in (1, 32)),
]


@pytest.mark.parametrize("rows", [1, 24])
@pytest.mark.parametrize(("dtype", "kind", "width"), CASES, ids=str)
def test_windows_are_attended_to_by_slot(
    device: torch.device, dtype: torch.dtype, kind: torch.dtype, width: int, rows: int
) -> None:
    query, _, _ = random_query(rows, width, dtype, device)
    keys = Cache.random(SLOTS, MAX_WINDOW_POSITIONS, kind, device)
    values = keys.another()
    slots = row_slots(rows, SLOTS, device)
    seen = torch.linspace(1500, 1, rows, device=device).long()
    attended = slot_attention(
        query,
        keys.stored,
        values.stored,
        slots,
        seen,
        causal=False,
        most=MAX_WINDOW_POSITIONS,
        key_scales=keys.scales,
        value_scales=values.scales,
    )
    whole = MAX_WINDOW_POSITIONS
    expected = attention(query, keys.of(slots, whole), values.of(slots, whole), seen, causal=False)
    tolerance = TOLERANCES[dtype]
    torch.testing.assert_close(attended.double(), expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("rows", [1, 24])
@pytest.mark.parametrize(("dtype", "kind", "width"), CASES, ids=str)
def test_tokens_are_stored_and_attended_to_in_one_launch(
    device: torch.device, dtype: torch.dtype, kind: torch.dtype, width: int, rows: int
) -> None:
    query, new_keys, new_values = random_query(rows, width, dtype, device)
    keys = Cache.random(rows + 1, ROOM, kind, device)
    values = Cache.random(rows + 1, ROOM, kind, device)
    slots = row_slots(rows, rows + 1, device)
    seen = torch.linspace(TEXT - width, 1, rows, device=device).long()
    known = on_host(keys), on_host(values)
    store_on_host(known, new_keys, new_values, slots, starts=seen - 1)
    attended = slot_attention(
        query,
        keys.stored,
        values.stored,
        slots,
        seen,
        causal=True,
        most=TEXT,
        key_scales=keys.scales,
        value_scales=values.scales,
        new_keys=new_keys,
        new_values=new_values,
    )
    for found, expected in zip((keys, values), known, strict=True):
        assert_same_bits(found, expected)
    exact = attention(query, keys.of(slots, TEXT), values.of(slots, TEXT), seen, causal=True)
    tolerance = TOLERANCES[dtype]
    torch.testing.assert_close(attended.double(), exact, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("kind", [torch.float16, FLOAT8], ids=str)
def test_whole_windows_are_stored_as_the_plain_twin_stores_them(
    device: torch.device, kind: torch.dtype
) -> None:
    """From places of their own; what would lie behind the cache is dropped."""
    _, new_keys, new_values = random_query(5, 200, torch.float16, device)
    keys, values = (Cache.random(8, MAX_WINDOW_POSITIONS, kind, device) for _ in range(2))
    known = on_host(keys), on_host(values)
    slots = torch.tensor([6, 0, 3, 1, 5], device=device)
    starts = torch.tensor([0, 1, 777, 1300, 1450], device=device)
    store_on_host(known, new_keys, new_values, slots, starts=starts)
    store_keys_values(
        new_keys,
        new_values,
        keys.stored,
        values.stored,
        slots,
        starts=starts,
        key_scales=keys.scales,
        value_scales=values.scales,
    )
    for found, expected in zip((keys, values), known, strict=True):
        assert_same_bits(found, expected)


@pytest.mark.parametrize("width", [1, 32])
def test_slots_may_lie_further_away_than_an_int32_counts(device: torch.device, width: int) -> None:
    if torch.cuda.mem_get_info()[0] < FAR_BYTES:
        pytest.skip("not the memory for two caches of so many slots")
    shape = FAR_SLOTS, HEADS, MAX_WINDOW_POSITIONS, HEAD_DIM
    keys, values = (
        torch.zeros(shape, dtype=torch.float16, device=device).transpose(1, 2) for _ in range(2)
    )
    assert keys.numel() > 2**31
    slots = torch.tensor([FAR_SLOTS - 1, 0, FAR_SLOTS // 2], device=device)
    query, _, _ = random_query(3, width, torch.float16, device)
    _, new_keys, new_values = random_query(3, 1500, torch.float16, device)
    store_keys_values(new_keys, new_values, keys, values, slots)
    assert torch.equal(keys[slots], new_keys)
    assert torch.equal(values[slots], new_values)
    assert not keys[1].any()
    seen = torch.tensor([1500, 700, 1], device=device)
    attended = slot_attention(query, keys, values, slots, seen, causal=False, most=1500)
    expected = attention(query, new_keys.double(), new_values.double(), seen, causal=False)
    torch.testing.assert_close(attended.double(), expected, rtol=4e-3, atol=4e-3)


@pytest.mark.parametrize("width", [8, 64])
@pytest.mark.parametrize(
    ("dtype", "kind"),
    [(torch.float32, torch.float32), (torch.float16, torch.float16), (torch.float16, FLOAT8)],
    ids=str,
)
def test_where_heads_look_is_what_the_plain_twin_says(
    device: torch.device, dtype: torch.dtype, kind: torch.dtype, width: int
) -> None:
    query, _, _ = random_query(9, width, dtype, device)
    keys = Cache.random(20, MAX_WINDOW_POSITIONS, kind, device)
    slots = row_slots(9, 20, device)
    seen = torch.linspace(512, 3, 9, device=device).long()
    heads = torch.tensor([17, 0, 9], dtype=torch.int32, device=device)
    totals = [torch.full((9, width, 512), 0.5, device=device) for _ in range(2)]
    for total, look in zip(totals, (alignment_weights, alignment_weights_plain), strict=True):
        look(query, keys.stored, slots, seen, heads, total, key_scales=keys.scales)
    torch.testing.assert_close(*totals, rtol=1e-3, atol=1e-4)
    assert float(totals[0].sum(dim=-1).max()) == pytest.approx(0.5 * 512 + 3, abs=1e-2)


# The choice of tokens.

N_VOCAB = 51_866
RULES = {
    "eot": 50_257,
    "no_speech": 50_363,
    "no_timestamps": 50_364,
    "timestamp_begin": 50_365,
    "max_initial_timestamp": 50,
}


def decoding(rows: int, device: torch.device, *, temperature: float) -> SlotCaches:
    """Slots in all states of timestamps: none asked for, at the start, in a span, behind one."""
    dims = small_dims(n_text_ctx=TEXT, n_vocab=N_VOCAB)
    caches = SlotCaches.allocate(dims, rows, dtype=torch.float16, device=device)
    generator = torch.Generator().manual_seed(rows)
    tokens = torch.randint(50_000, (rows + 1, caches.tokens.shape[1]), generator=generator)
    begin = 50_365
    endings = ((), (begin + 3,), (begin + 3, 100, 200), (begin + 3, 100, begin + 90), ())
    for row in range(rows):
        ending = endings[row % 5] + ((begin + 90,) if row % 10 == 3 else ())
        tokens[row, 4 : 4 + len(ending)] = torch.tensor(ending, dtype=torch.int64)
        caches.lengths[row] = 4 + len(ending)
    caches.tokens.copy_(tokens)
    caches.begins.fill_(4)
    caches.timestamps.copy_(torch.arange(rows + 1) % 5 != 4)
    caches.temperatures.fill_(temperature)
    caches.seeds.copy_(torch.arange(rows + 1) * 7_919)
    return caches


@pytest.mark.parametrize("rows", [1, 7, 256])
@pytest.mark.parametrize(
    ("dtype", "temperature"),
    [(torch.float32, 0.0), (torch.float16, 0.0), (torch.bfloat16, 0.0), (torch.float32, 0.7)],
    ids=str,
)
def test_tokens_are_chosen_by_the_rules(
    device: torch.device, dtype: torch.dtype, temperature: float, rows: int
) -> None:
    caches = decoding(rows, device, temperature=temperature)
    masks = [torch.zeros(N_VOCAB, dtype=torch.bool, device=device) for _ in range(2)]
    masks[0].index_fill_(0, torch.tensor([1, 2, 50_258, 50_361], device=device), value=True)
    masks[1].index_fill_(0, torch.tensor([220, 50_257], device=device), value=True)
    languages = torch.tensor([50_259], device=device)
    rules = DecodingRules(masks[0], masks[1], languages, **RULES)
    generator = torch.Generator(device).manual_seed(rows)
    logits = torch.randn(rows, N_VOCAB, device=device, generator=generator)
    logits[:, RULES["timestamp_begin"] :] += torch.linspace(-3, 3, rows, device=device)[:, None]
    logits = (4 * logits).to(dtype)
    slots = torch.arange(rows, device=device).flip(0)
    targets = caches.lengths[slots]
    tokens, logprobs = fused_choice(rules)(logits, caches, slots, targets)
    known, known_logprobs = plain_choice(rules)(logits.clone(), caches, slots, targets)
    # Among equal logits, of which half precision has many, either may be the best.
    same = logits.gather(1, tokens[:, None]) == logits.gather(1, known[:, None])
    assert float(same.float().mean()) >= (1.0 if temperature == 0.0 else 0.98)
    torch.testing.assert_close(
        logprobs[same[:, 0]], known_logprobs[same[:, 0]], rtol=1e-4, atol=1e-4
    )


# Log-mel.


def speech_like(count: int, seed: int) -> NDArray[np.float32]:
    """Loud and quiet stretches over 80 dB, so that the clamp matters."""
    generator = np.random.default_rng(seed)
    level = np.repeat(10.0 ** generator.uniform(-4, 0, count // 800 + 1), 800)[:count]
    tone = np.sin(np.arange(count) * 0.07)
    samples = 0.3 * level * (tone + generator.standard_normal(count))
    return np.asarray(samples, dtype=np.float32)


WINDOWS = [round(seconds * SAMPLE_RATE) for seconds in (30.0, 29.99, 7.3, 1.0, 0.02)]


@pytest.mark.parametrize("num_mels", [80, 128])
def test_features_are_those_of_one_window_alone(device: torch.device, num_mels: int) -> None:
    features = SlotFeatures(8, num_mels, device, log_mel)
    windows = [speech_like(count, seed) for seed, count in enumerate(WINDOWS)]
    rows = [EncodeRow(SlotHandle(7 - index, 1), it) for index, it in enumerate(windows)]
    found = features.compute(rows, MAX_WINDOW_FRAMES, torch.float32)
    for row, samples in enumerate(windows):
        frames = np.zeros((MAX_WINDOW_FRAMES, num_mels), dtype=np.float32)
        window = MelWindow(LogMel(num_mels), frames)
        window.update(samples)
        expected = window.features(MAX_WINDOW_FRAMES).T
        np.testing.assert_allclose(found[row].cpu().numpy(), expected, rtol=0, atol=1e-5)
    half = features.compute(rows, 1_000, torch.float16)
    torch.testing.assert_close(half.float(), found[:, :, :1_000], rtol=1e-3, atol=1e-3)


def test_audio_that_is_appended_gives_bit_for_bit_what_the_whole_gives(
    device: torch.device,
) -> None:
    """Beside other rows, in odd and even numbers of them, in a slot that was used before."""
    features = SlotFeatures(8, 128, device, log_mel)
    samples, other = speech_like(9 * SAMPLE_RATE, 1), speech_like(30 * SAMPLE_RATE, 2)
    features.compute([EncodeRow(SlotHandle(3, 1), other)], 3_000, torch.float32)
    grown = torch.empty(0)
    for step, end in enumerate(range(6_400, len(samples) + 1, 6_400)):
        rows: list[Any] = [EncodeRow(SlotHandle(3, 2), samples[:end])]
        rows += [EncodeRow(SlotHandle(it, step + 1), other[: end + it]) for it in range(step % 3)]
        grown = features.compute(rows, 1_000, torch.float32)[0]
        last = end
    whole = features.compute([EncodeRow(SlotHandle(4, 1), samples[:last])], 1_000, torch.float32)
    assert torch.equal(grown, whole[0])


# Small operations.


@pytest.mark.parametrize("dtype", list(TOLERANCES), ids=str)
@pytest.mark.parametrize("tokens", [1, 257])
def test_a_sum_and_its_norm_are_those_of_float64(
    device: torch.device, dtype: torch.dtype, tokens: int
) -> None:
    generator = torch.Generator(device).manual_seed(tokens)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, device=device, generator=generator).to(dtype)

    hidden, update = 3 * normal(tokens, 1280), normal(tokens, 1280)
    weight, bias = normal(1280), normal(1280)
    total, normed = add_layer_norm(hidden, update, weight, bias)
    assert torch.equal(total, hidden + update)
    expected = torch.nn.functional.layer_norm(
        total.double(), (1280,), weight.double(), bias.double(), 1e-5
    )
    tolerance = TOLERANCES[dtype]
    torch.testing.assert_close(normed.double(), expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", list(TOLERANCES), ids=str)
def test_a_bias_and_its_activation_are_those_of_float64(
    device: torch.device, dtype: torch.dtype
) -> None:
    generator = torch.Generator(device).manual_seed(0)
    x = 3 * torch.randn(130, 5120, device=device, generator=generator).to(dtype)
    bias = torch.randn(5120, device=device, generator=generator).to(dtype)
    expected = torch.nn.functional.gelu(x.double() + bias.double())
    assert bias_gelu(x, bias, out=x) is x
    tolerance = TOLERANCES[dtype]
    torch.testing.assert_close(x.double(), expected, rtol=tolerance, atol=tolerance)


Format = Literal["int8", "int4"]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("size", [(1280, 3840), (5120, 1280)], ids=str)
@pytest.mark.parametrize("weights", ["int8", "int4"])
def test_products_with_small_weights_are_those_of_the_weights_written_out(
    device: torch.device, weights: Format, size: tuple[int, int], dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    layer = QuantizedLinear(nn.Linear(*size, device=device, dtype=dtype), weights)
    dense = layer.dequantized(torch.float64)
    assert layer.bias is not None
    for rows in (1, 4, 24, MAX_KERNEL_ROWS, MAX_KERNEL_ROWS + 1):
        x = torch.randn(rows, size[0], device=device, dtype=dtype)
        expected = x.double() @ dense.T + layer.bias.double()
        tolerance = TOLERANCES[dtype]
        allowed = tolerance * (expected.abs() + expected.abs().max())
        wrong = int(((layer(x).double() - expected).abs() > allowed).sum())
        assert wrong == 0, f"{wrong} of {expected.numel()} in {rows} rows"
