"""Every per-slot tensor on the device: keys and values, tokens, and the rules in force."""

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from engine.audio.units import MAX_WINDOW_POSITIONS
from engine.kernels.plain_attention import FLOAT8
from engine.model.attention import KeysValues, LayerCache
from engine.model.dims import ModelDims

# Room behind the text context for tokens that a padded row feeds in vain.
PADDING_TOKENS: Final = 64
_SCALE_BYTES: Final = 4


@dataclass(frozen=True, slots=True)
class SlotCaches:
    """Device tensors indexed by slot. Touched only by the engine thread.

    The last row is the scratch row, where padding points; nobody holds it.
    """

    layers: tuple[LayerCache, ...]
    encoder: tuple[KeysValues, ...]  # of each encoder layer; none where windows are not extended
    tokens: Tensor  # [slots, n_text_ctx + padding] int64, everything fed or chosen
    lengths: Tensor  # [slots] int64, valid tokens
    contexts: Tensor  # [slots] int64, encoded positions
    begins: Tensor  # [slots] int64, Sampling.begin
    timestamps: Tensor  # [slots] bool, Sampling.timestamps
    temperatures: Tensor  # [slots] float32, Sampling.temperature
    seeds: Tensor  # [slots] int64, Sampling.seed

    @classmethod
    def allocate(
        cls,
        dims: ModelDims,
        num_slots: int,
        *,
        dtype: torch.dtype,
        device: torch.device,
        encoder_dtype: torch.dtype | None = None,
    ) -> "SlotCaches":
        """Memory for `num_slots` slots; on a CPU untouched pages cost nothing.

        `dtype` is that of the decoder's keys and values; float8 gets scales beside it. With an
        `encoder_dtype` there is room for the encoder's too.
        """
        heads, head_dim = dims.n_text_head, dims.n_text_state // dims.n_text_head
        encoder_head_dim = dims.n_audio_state // dims.n_audio_head
        rows, tokens = num_slots + 1, dims.n_text_ctx + PADDING_TOKENS

        def zeros(*shape: int, kind: torch.dtype) -> Tensor:
            # torch fills float8 through its bytes on every device.
            if kind is FLOAT8:
                return torch.zeros(shape, dtype=torch.uint8, device=device).view(FLOAT8)
            return torch.zeros(shape, dtype=kind, device=device)

        def keys_values(positions: int, *, heads_first: bool) -> KeysValues:
            order = (heads, positions) if heads_first else (positions, heads)

            def cache() -> Tensor:
                whole = zeros(rows, *order, head_dim, kind=dtype)
                return whole.transpose(1, 2) if heads_first else whole

            def scales() -> Tensor | None:
                if dtype is not FLOAT8:
                    return None
                whole = zeros(rows, *order, kind=torch.float32)
                return whole.transpose(1, 2) if heads_first else whole

            return KeysValues(cache(), cache(), scales(), scales())

        return cls(
            layers=tuple(
                LayerCache(
                    keys_values(tokens, heads_first=False),
                    keys_values(MAX_WINDOW_POSITIONS, heads_first=True),
                )
                for _ in range(dims.n_text_layer)
            ),
            encoder=tuple(
                KeysValues(
                    *(
                        zeros(
                            rows,
                            dims.n_audio_head,
                            MAX_WINDOW_POSITIONS,
                            encoder_head_dim,
                            kind=encoder_dtype,
                        ).transpose(1, 2)
                        for _ in range(2)
                    )
                )
                for _ in range(dims.n_audio_layer)
                if encoder_dtype is not None
            ),
            tokens=zeros(rows, tokens, kind=torch.int64),
            lengths=torch.ones(rows, dtype=torch.int64, device=device),
            contexts=torch.ones(rows, dtype=torch.int64, device=device),
            begins=zeros(rows, kind=torch.int64),
            timestamps=zeros(rows, kind=torch.bool),
            temperatures=zeros(rows, kind=torch.float32),
            seeds=zeros(rows, kind=torch.int64),
        )

    @property
    def scratch(self) -> int:
        """The slot of padding."""
        return len(self.lengths) - 1

    @property
    def most_tokens(self) -> int:
        """The model's text context; what is behind it in `tokens` is room for padding."""
        return self.tokens.shape[1] - PADDING_TOKENS


def slot_bytes(
    dims: ModelDims, dtype: torch.dtype, encoder_dtype: torch.dtype | None = None
) -> int:
    """Memory of one slot's keys and values; all else of these caches is a few bytes."""
    positions = dims.n_text_ctx + PADDING_TOKENS + MAX_WINDOW_POSITIONS
    vector = dims.n_text_state * dtype.itemsize
    if dtype is FLOAT8:
        vector += dims.n_text_head * _SCALE_BYTES
    decoder = dims.n_text_layer * 2 * positions * vector
    if encoder_dtype is None:
        return decoder
    encoder_vector = dims.n_audio_state * encoder_dtype.itemsize
    return decoder + dims.n_audio_layer * 2 * MAX_WINDOW_POSITIONS * encoder_vector
