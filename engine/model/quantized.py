"""Linear layers with weights of 8 or 4 bits; activations stay as they are.

8 bits: symmetric, one scale per output channel. 4 bits: symmetric, one scale per output channel
and 64 input features, the way of llama.cpp's Q4_0: a scale has a sign, so that the largest value
of a group falls on -8 and all sixteen steps are used; then the factor that errs least is taken.
Neither needs a zero point, which would cost as much space as the scale does.

The layout in memory is that of `engine.kernels.weight_only`, which has the products for CUDA;
what stands here is the plain twin, and all there is on other devices.
"""

from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from types import ModuleType
from typing import Final, Literal, assert_never, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WeightFormat = Literal["int8", "int4"]

# Features per scale of int4. 128 would save 3 % of the bytes and err 6 % more on normal weights.
# On the embedded model, 434 tokens of three recordings, int8 / int4 with 32, 64, 128 differ from
# float32 by a divergence of 0.0001 / 0.014, 0.017, 0.021 nats, and in 0.2 / 0.9, 2.1, 1.8 % of
# the best tokens.
GROUP_FEATURES: Final = 64

# More rows than this, and a CUDA device turns the weight into a plain matrix first and takes the
# library's product: beyond one tile of 64 rows the kernel would read the weights several times,
# while the plain matrix costs the bytes of about five such readings, whatever the rows. Reckoned
# from bytes, not measured.
MAX_KERNEL_ROWS: Final = 64

# Up to here torch's own product with int8 weights is the fastest on a CPU in bfloat16. Measured
# with torch 2.13, one thread of an AMD EPYC with AVX-512 and its bfloat16, in-features =
# out-features = 256, 512, 1280, µs for 1 / 4 / 16 / 128 rows of 512:
#   plain bfloat16 weights             35 / 38 /  67 / 326
#   torch._weight_int8pack_mm          15 / 30 / 115 / 904
#   the twin (dequantise, product)    125 / 130 / 159 / 415
# The other widths say the same. In float32 it takes 2 to 40 times the twin's time.
MAX_PACKED_ROWS: Final = 16

# What the scale of a group is multiplied by on trial: a smaller one clips its largest value, and
# rounds all others finer.
_INT4_FACTORS: Final = (1.0, 0.95, 0.9, 0.85, 0.8)

# (x [rows, in], layer) -> [rows, out]
_Product = Callable[[Tensor, "QuantizedLinear"], Tensor]


class QuantizedLinear(nn.Module):
    """What `nn.Linear` computes, with weights of 8 or 4 bits.

    `weight` and `scales` are buffers in the layout of `engine.kernels.weight_only`; they follow
    `.to(device)`, and keep their formats whatever dtype the module is brought to. Scales are
    bfloat16: the weights are rounded to steps of the scale that is stored, so its rounding costs
    nothing, and its range is that of float32.
    """

    weight: Tensor  # int8 [out, in], or uint8 [groups, out, group / 2]
    scales: Tensor  # [groups, out]
    bias: Tensor | None  # [out]

    def __init__(self, linear: nn.Linear, weights: WeightFormat) -> None:
        super().__init__()
        self.in_features = linear.in_features
        self.out_features = linear.out_features
        self.weights = weights
        with torch.no_grad():
            source = linear.weight.float()
            quantized, scales = _to_int8(source) if weights == "int8" else _to_int4(source)
            bias = None if linear.bias is None else linear.bias.detach().clone()
        self.register_buffer("weight", quantized)
        self.register_buffer("scales", scales)
        self.register_buffer("bias", bias)
        self._product = _product_for(self.weight.device)

    @property
    def bits(self) -> Literal[8, 4]:
        """Of one weight."""
        match self.weights:
            case "int8":
                return 8
            case "int4":
                return 4
            case _:
                assert_never(self.weights)

    @property
    def group(self) -> int:
        """Input features that share a scale."""
        return self.in_features if self.weights == "int8" else GROUP_FEATURES

    def dequantized(self, dtype: torch.dtype) -> Tensor:
        """The weight [out, in] as a plain matrix, each value rounded to `dtype` once.

        Runs on any device.
        """
        # Integers and scales are exact in bfloat16, so one product of the two rounds once; in
        # float16 small scales are not.
        wide = torch.float32 if dtype is torch.float16 else dtype
        scales = self.scales.to(wide)
        if self.weights == "int8":
            return (self.weight.to(wide) * scales[0, :, None]).to(dtype)
        values = torch.cat((self.weight & 15, self.weight >> 4), dim=2).to(wide) - 8
        values = (values * scales[:, :, None]).to(dtype)
        return values.transpose(0, 1).flatten(1)[:, : self.in_features]

    def forward(self, x: Tensor) -> Tensor:
        """`x` [..., in] to [..., out] in the same dtype."""
        rows = self._product(x.reshape(-1, self.in_features), self)
        return rows.view(*x.shape[:-1], self.out_features)

    def extra_repr(self) -> str:
        """As `nn.Linear` shows itself, and the format."""
        return f"in_features={self.in_features}, out_features={self.out_features}, {self.weights}"

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "QuantizedLinear":
        """What `.to` comes down to: keep the scales' format, and take the new device's product."""
        scales = self.scales
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.scales = scales.to(self.weight.device)
        self._product = _product_for(self.weight.device)
        return self


def quantize_weights(model: nn.Module, weights: WeightFormat) -> None:
    """Replace every `nn.Linear` in `model`, in place, and free each before the next.

    In Whisper these are the projections and the feed-forward of all layers: embeddings (one of
    which gives the logits), convolutions and norms stay as they are.
    """
    # A list of the linear layers themselves would keep all of them alive until the end.
    parents = [module for module in model.modules() if not isinstance(module, nn.Linear)]
    for parent in parents:
        names = [name for name, child in parent.named_children() if isinstance(child, nn.Linear)]
        for name in names:
            setattr(parent, name, QuantizedLinear(getattr(parent, name), weights))


def _to_int8(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Float32 [out, in] to int8 [out, in] and scales [1, out]."""
    scales = _stored(weight.abs().amax(dim=1) / 127)
    values = (weight / scales.float()[:, None]).round().clamp(-127, 127)
    return values.to(torch.int8), scales[None]


def _to_int4(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Float32 [out, in] to uint8 [groups, out, group / 2] and scales [groups, out]."""
    num_outputs, num_inputs = weight.shape
    padded = F.pad(weight, (0, -num_inputs % GROUP_FEATURES))
    groups = padded.view(num_outputs, -1, GROUP_FEATURES).transpose(0, 1)
    largest = groups.gather(2, groups.abs().argmax(dim=2, keepdim=True))
    scales = _stored(largest / -8)
    values = _round_int4(groups, scales)
    error = _squared_error(groups, values, scales)
    for factor in _INT4_FACTORS[1:]:
        other_scales = _stored(largest / -8 * factor)
        other_values = _round_int4(groups, other_scales)
        other_error = _squared_error(groups, other_values, other_scales)
        better = other_error < error
        scales = torch.where(better, other_scales, scales)
        values = torch.where(better, other_values, values)
        error = torch.where(better, other_error, error)
    low, high = (values + 8).to(torch.uint8).chunk(2, dim=2)
    return (low | high << 4).contiguous(), scales[:, :, 0].contiguous()


def _round_int4(groups: Tensor, scales: Tensor) -> Tensor:
    return (groups / scales.float()).round().clamp(-8, 7)


def _squared_error(groups: Tensor, values: Tensor, scales: Tensor) -> Tensor:
    return (values * scales.float() - groups).square().sum(dim=2, keepdim=True)


def _stored(scales: Tensor) -> Tensor:
    """Scales as they are kept; what is all zeros takes any but zero."""
    stored = scales.to(torch.bfloat16)
    return torch.where(stored == 0, torch.ones_like(stored), stored)


def kernel_product(x: Tensor, layer: QuantizedLinear) -> Tensor:
    """The layer's product with the kernels of `engine.kernels.weight_only`, as on a CUDA device.

    `x` [rows, in] float16, bfloat16 or float32 to [rows, out]. Which way is taken depends on the
    number of rows alone, so a CUDA graph may hold it.
    """
    kernels = _kernels()
    if x.shape[0] <= MAX_KERNEL_ROWS:
        product = kernels.weight_only_linear(
            x, layer.weight, layer.scales, layer.bias, bits=layer.bits, group=layer.group
        )
        return cast(Tensor, product)
    weight = kernels.dequantize_weight(
        layer.weight,
        layer.scales,
        num_inputs=layer.in_features,
        bits=layer.bits,
        group=layer.group,
        dtype=x.dtype,
    )
    return F.linear(x, weight, layer.bias)


def _product_for(device: torch.device) -> _Product:
    """The products of a device, found once and not at every step."""
    if device.type == "cpu":
        return _cpu_product
    if device.type == "cuda" and find_spec("triton") is not None:
        _kernels()  # imported now, not by the first step
        return kernel_product
    return _twin


@cache
def _kernels() -> ModuleType:
    """Imported only where there is a CUDA device: without one a machine needs no Triton."""
    from engine.kernels import weight_only

    return weight_only


def _twin(x: Tensor, layer: QuantizedLinear) -> Tensor:
    return F.linear(x, layer.dequantized(x.dtype), layer.bias)


def _cpu_product(x: Tensor, layer: QuantizedLinear) -> Tensor:
    fits = layer.weights == "int8" and x.dtype is torch.bfloat16
    if not fits or not 0 < x.shape[0] <= MAX_PACKED_ROWS:
        return _twin(x, layer)
    product = torch._weight_int8pack_mm(x.contiguous(), layer.weight, layer.scales[0])
    return product if layer.bias is None else product + layer.bias
