"""Small weights against the weights they were made of."""

import copy
import weakref
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from engine.model.attention import KeysValues, Packed
from engine.model.checkpoint import load_checkpoint
from engine.model.quantized import (
    GROUP_FEATURES,
    MAX_KERNEL_ROWS,
    MAX_PACKED_ROWS,
    QuantizedLinear,
    WeightFormat,
    kernel_product,
    quantize_weights,
)
from engine.model.whisper import Whisper
from engine.runtime.caches import SlotCaches
from tests.support.checkpoints import (
    NUM_TEXT_TOKENS,
    SHAPES,
    make_checkpoint,
    make_features,
    one_thread,
)

FORMATS: tuple[WeightFormat, ...] = ("int8", "int4")
# Inputs and outputs: less than a group, a group, no multiple of one, an odd number, a real layer.
SIZES = [(24, 7), (64, 32), (100, 33), (33, 5), (1280, 40)]


def random_linear(inputs: int, outputs: int, *, bias: bool = True) -> nn.Linear:
    with torch.random.fork_rng():
        torch.manual_seed(inputs)
        linear = nn.Linear(inputs, outputs, bias=bias).requires_grad_(False)
        nn.init.normal_(linear.weight, std=inputs**-0.5)
    return linear


def random_rows(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def relative_error(found: Tensor, expected: Tensor) -> float:
    return float((found.double() - expected.double()).norm() / expected.double().norm())


def written_out(layer: QuantizedLinear) -> Tensor:
    """The weight in float64, value by value, as the format describes it."""
    scales = layer.scales.double()
    if layer.weights == "int8":
        return layer.weight.double() * scales[0, :, None]
    dense = torch.empty(layer.out_features, layer.in_features, dtype=torch.float64)
    half = GROUP_FEATURES // 2
    for feature in range(layer.in_features):
        group, place = divmod(feature, GROUP_FEATURES)
        packed = layer.weight[group, :, place % half].long()
        value = packed // 16 if place >= half else packed % 16
        dense[:, feature] = (value - 8) * scales[group]
    return dense


@pytest.mark.parametrize(("inputs", "outputs"), SIZES)
@pytest.mark.parametrize(("weights", "bound"), [("int8", 0.01), ("int4", 0.12)])
def test_a_product_errs_by_about_a_step_of_its_weights(
    weights: WeightFormat, bound: float, inputs: int, outputs: int
) -> None:
    linear, x = random_linear(inputs, outputs, bias=False), random_rows(50, inputs)
    error = relative_error(QuantizedLinear(linear, weights)(x), linear(x))
    assert bound / 10 < error < bound


@pytest.mark.parametrize(("inputs", "outputs"), SIZES)
@pytest.mark.parametrize("weights", FORMATS)
def test_a_layer_is_the_product_with_its_weights_and_the_bias(
    weights: WeightFormat, inputs: int, outputs: int
) -> None:
    linear, x = random_linear(inputs, outputs), random_rows(2, 3, inputs)
    layer = QuantizedLinear(linear, weights)
    expected = x.double() @ written_out(layer).T + linear.bias.double()
    found = layer(x)
    assert found.shape == (2, 3, outputs)
    assert found.dtype is torch.float32
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("weights", FORMATS)
def test_a_dequantised_weight_is_rounded_once(weights: WeightFormat, dtype: torch.dtype) -> None:
    linear = random_linear(100, 20)
    linear.weight[3] *= 1e-4  # its scale is no number of float16
    layer = QuantizedLinear(linear, weights)
    exact = written_out(layer).to(dtype)
    torch.testing.assert_close(layer.dequantized(dtype), exact, rtol=0, atol=0)


@pytest.mark.parametrize("rows", [1, MAX_PACKED_ROWS, MAX_PACKED_ROWS + 1])
@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("weights", FORMATS)
def test_bfloat16_is_multiplied_alike_however_many_rows_there_are(
    weights: WeightFormat, with_bias: bool, rows: int
) -> None:
    linear = random_linear(256, 40, bias=with_bias)
    layer = QuantizedLinear(linear, weights).to(torch.bfloat16)
    x = random_rows(rows, 256).bfloat16()
    expected = x.double() @ written_out(layer).T
    if with_bias:
        expected += linear.bias.double()
    found = layer(x)
    assert found.dtype is torch.bfloat16
    assert relative_error(found, expected) < 0.005


@pytest.mark.parametrize("rows", [1, 5, MAX_KERNEL_ROWS + 1])
@pytest.mark.parametrize(("inputs", "outputs"), [(24, 7), (100, 33)])
@pytest.mark.parametrize("weights", FORMATS)
def test_the_kernels_read_the_same_weights(
    weights: WeightFormat, inputs: int, outputs: int, rows: int
) -> None:
    layer = QuantizedLinear(random_linear(inputs, outputs), weights)
    x = random_rows(rows, inputs)
    torch.testing.assert_close(kernel_product(x, layer), layer(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("weights", FORMATS)
def test_no_rows_give_no_rows(weights: WeightFormat) -> None:
    layer = QuantizedLinear(random_linear(24, 7), weights)
    assert layer(torch.zeros(0, 24)).shape == (0, 7)
    assert layer.to(torch.bfloat16)(torch.zeros(0, 24).bfloat16()).shape == (0, 7)


@pytest.mark.parametrize("weights", FORMATS)
def test_zeros_stay_zeros(weights: WeightFormat) -> None:
    linear = random_linear(128, 6)
    linear.weight[2] = 0.0
    linear.weight[:, 64:] = 0.0
    dense = QuantizedLinear(linear, weights).dequantized(torch.float32)
    assert not dense[2].any()
    assert not dense[:, 64:].any()
    assert dense[0, :64].any()


def test_an_outlier_coarsens_only_its_own_channel_and_group() -> None:
    plain, spoilt = random_linear(128, 6), random_linear(128, 6)
    spoilt.weight[2, 70] = 100.0
    for weights in FORMATS:
        before = QuantizedLinear(plain, weights).dequantized(torch.float32)
        after = QuantizedLinear(spoilt, weights).dequantized(torch.float32)
        changed = before != after
        assert changed[2, 64:].sum() > 32  # the others were zero, and are again
        assert not changed[[0, 1, 3, 4, 5]].any()
        assert changed[2, :64].any() == (weights == "int8")
        assert after[2, 70] == pytest.approx(100.0, rel=0.03)


@pytest.mark.parametrize("weights", FORMATS)
def test_weights_and_scales_keep_their_format_when_the_module_is_brought_to_another(
    weights: WeightFormat,
) -> None:
    layer = QuantizedLinear(random_linear(100, 6), weights)
    weight, scales = layer.weight, layer.scales
    layer.to(torch.float16)
    assert layer.bias is not None
    assert layer.bias.dtype is torch.float16
    assert layer.weight.dtype is weight.dtype
    torch.testing.assert_close(layer.scales, scales, rtol=0, atol=0)


@pytest.mark.parametrize("weights", FORMATS)
def test_all_of_a_layer_moves_to_another_device(weights: WeightFormat) -> None:
    layer = QuantizedLinear(random_linear(100, 6), weights).to("meta")
    assert {name for name, _ in layer.named_buffers()} == {"weight", "scales", "bias"}
    assert all(tensor.is_meta for tensor in layer.buffers())
    assert layer(torch.zeros(3, 100, device="meta")).shape == (3, 6)


@pytest.mark.parametrize("weights", FORMATS)
def test_a_copy_of_a_layer_computes_the_same(weights: WeightFormat) -> None:
    layer, x = QuantizedLinear(random_linear(100, 6), weights), random_rows(3, 100)
    expected = layer(x)
    torch.testing.assert_close(copy.deepcopy(layer)(x), expected, rtol=0, atol=0)
    other = QuantizedLinear(nn.Linear(100, 6), weights)
    other.load_state_dict(layer.state_dict())
    torch.testing.assert_close(other(x), expected, rtol=0, atol=0)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("quantized"), "tiny.en")


def tiny_whisper(directory: Path) -> Whisper:
    checkpoint = load_checkpoint(directory)
    return Whisper.from_checkpoint(checkpoint, dtype=torch.float32, device=torch.device("cpu"))


def store(cache: KeysValues, keys: Tensor, values: Tensor) -> None:
    """Two windows of 64 positions into the first two slots."""
    cache.keys[:2, :64] = keys
    cache.values[:2, :64] = values


def logits(model: Whisper) -> Tensor:
    """Of two rows of tokens, for which the audio was encoded by the same model."""
    features = make_features(2, SHAPES["tiny.en"].num_mels)[:, :, :128]
    lengths, device = (12, 20), torch.device("cpu")
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(NUM_TEXT_TOKENS, (sum(lengths),), generator=generator)
    with one_thread(), torch.inference_mode():
        encoded = model.encoder(features)
        caches = SlotCaches.allocate(model.dims, 2, dtype=torch.float32, device=device)
        model.decoder.write_cross(encoded, caches.layers, store)
        packed = Packed.build(((0, 0, 12), (1, 0, 20)), (64, 64), device)
        hidden = model.decoder.embed(tokens, packed.positions)
        decoded = model.decoder(hidden, packed, caches.layers, align=False)
        return model.decoder.logits(decoded.hidden)


def size_bytes(module: nn.Module) -> int:
    return sum(tensor.nbytes for tensor in module.state_dict().values())


@pytest.mark.parametrize(("weights", "bound"), [("int8", 0.04), ("int4", 0.5)])
def test_a_quantised_whisper_has_nearly_the_same_logits(
    directory: Path, weights: WeightFormat, bound: float
) -> None:
    model = tiny_whisper(directory)
    before = logits(model)
    quantize_weights(model, weights)
    usual = before.mean(dim=0)  # most of a logit is the token's own, whatever was heard
    error = relative_error(logits(model) - usual, before - usual)
    assert 0.0 < error < bound


@pytest.mark.parametrize(("weights", "share"), [("int8", 0.3), ("int4", 0.22)])
def test_layers_shrink_and_everything_else_stays(
    directory: Path, weights: WeightFormat, share: float
) -> None:
    plain, model = tiny_whisper(directory), tiny_whisper(directory)
    quantize_weights(model, weights)
    for ours, theirs in ((model.encoder, plain.encoder), (model.decoder, plain.decoder)):
        assert size_bytes(ours.layers) < share * size_bytes(theirs.layers)
    kept = model.state_dict()
    for name, tensor in plain.state_dict().items():
        if ".layers." not in name or "layer_norm" in name:
            torch.testing.assert_close(kept[name], tensor, rtol=0, atol=0)


def test_no_linear_layer_is_left_and_none_is_kept_in_memory(directory: Path) -> None:
    model = tiny_whisper(directory)
    linears = [weakref.ref(it) for it in model.modules() if isinstance(it, nn.Linear)]
    quantize_weights(model, "int8")
    replaced = [it for it in model.modules() if isinstance(it, QuantizedLinear)]
    assert len(replaced) == len(linears) == 4 * 4 + 4 * 7
    assert not any(linear() for linear in linears)
    assert not any(isinstance(it, nn.Linear) for it in model.modules())
