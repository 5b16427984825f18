"""Steps: one forward pass of one kind over a batch of slots, and what comes back.

A step is a value that holds everything the device needs. The device keeps per slot the mel
frames, the cross and self keys and values, the tokens fed so far and the sampling rules, so a
decode step is nothing but slots.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.audio.units import Positions
from engine.scheduling.slots import SlotHandle


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the tokens of one decode are chosen.

    `begin` is the index of the first token chosen freely of the rules' point of view: the
    length of the forced prefix without a stable prefix. Temperature 0 is greedy; above, tokens
    are drawn with `seed`.
    """

    begin: int
    timestamps: bool
    temperature: float = 0.0
    seed: int = 0


@dataclass(frozen=True, slots=True)
class EncodeRow:
    """Encode the window `samples` [n] of a slot; a read-only view of the whole window."""

    slot: SlotHandle
    samples: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class EncodeStep:
    """All rows at one context, in positions.

    With `keep` the encoder's own keys and values are kept too, for an extension.
    """

    rows: tuple[EncodeRow, ...]
    context: Positions
    keep: bool = False


@dataclass(frozen=True, slots=True)
class ExtendRow:
    """Encode the window `samples` [n] of a slot anew from position `start` on."""

    slot: SlotHandle
    samples: NDArray[np.float32]
    start: Positions


@dataclass(frozen=True, slots=True)
class ExtendStep:
    """Encode `width` positions of each row, against what was kept of those before."""

    rows: tuple[ExtendRow, ...]
    width: Positions


@dataclass(frozen=True, slots=True)
class PrefillRow:
    """Feed `tokens` from position 0 and choose the next.

    `sot_index` is where `sot` stands: its row gives the no-speech probability. With `languages`
    (token ids) the row detects among them instead: `tokens` end in `sot`, nothing is chosen.
    """

    slot: SlotHandle
    tokens: tuple[int, ...]
    sot_index: int
    sampling: Sampling
    languages: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class PrefillStep:
    """The first pass of each row after its encode."""

    rows: tuple[PrefillRow, ...]


@dataclass(frozen=True, slots=True)
class VerifyRow:
    """Feed `tokens` from position `start`, then `draft`; accept what greedy would have chosen.

    At `start` 0 it is a prefill with a draft; further on `tokens` is the last chosen token,
    which has not been fed yet, or one that is fed again because what stands before it may stay.
    """

    slot: SlotHandle
    start: int
    tokens: tuple[int, ...]
    draft: tuple[int, ...]
    sot_index: int
    sampling: Sampling


@dataclass(frozen=True, slots=True)
class VerifyStep:
    """Multi-token passes of greedy rows."""

    rows: tuple[VerifyRow, ...]


@dataclass(frozen=True, slots=True)
class DecodeStep:
    """One token for each slot, fed with the token it chose last."""

    slots: tuple[SlotHandle, ...]


@dataclass(frozen=True, slots=True)
class AlignRow:
    """Align `tokens`: the forced prefix (`num_forced` tokens), text tokens, `eot`."""

    slot: SlotHandle
    tokens: tuple[int, ...]
    num_forced: int
    num_positions: Positions


@dataclass(frozen=True, slots=True)
class AlignStep:
    """One pass per row that only looks where the alignment heads look."""

    rows: tuple[AlignRow, ...]


Step = EncodeStep | ExtendStep | PrefillStep | VerifyStep | DecodeStep | AlignStep


@dataclass(frozen=True, slots=True)
class EncodeResult:
    """The slots whose cross keys and values are ready."""

    slots: tuple[SlotHandle, ...]


@dataclass(frozen=True, slots=True)
class TokenRow:
    """Tokens chosen for one slot, each with log-probability and attention peak.

    After a verification: the accepted draft and the one token behind it. `no_speech_prob` only
    from a pass that began at position 0.
    """

    slot: SlotHandle
    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    positions: tuple[int, ...]
    no_speech_prob: float | None = None


@dataclass(frozen=True, slots=True)
class LanguageRow:
    """The most likely language token of one slot and its probability among those allowed."""

    slot: SlotHandle
    token: int
    probability: float


@dataclass(frozen=True, slots=True)
class TokensResult:
    """What a prefill, verify or decode step chose."""

    rows: tuple[TokenRow | LanguageRow, ...]


@dataclass(frozen=True, slots=True)
class BoundaryRow:
    """First position of each text token and of `eot` of one aligned slot."""

    slot: SlotHandle
    boundaries: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class AlignResult:
    """Token boundaries of the aligned rows."""

    rows: tuple[BoundaryRow, ...]


StepResult = EncodeResult | TokensResult | AlignResult


def slots_of(step: Step) -> tuple[SlotHandle, ...]:
    """The slot of each row, in order."""
    return step.slots if isinstance(step, DecodeStep) else tuple(row.slot for row in step.rows)


def halve(step: Step) -> tuple[Step, Step] | None:
    """Two steps that do the same with half of the rows each; None for a single row."""
    count = len(slots_of(step))
    if count < 2:
        return None
    half = count // 2
    match step:
        case DecodeStep():
            return DecodeStep(step.slots[:half]), DecodeStep(step.slots[half:])
        case EncodeStep():
            return (
                EncodeStep(step.rows[:half], step.context, step.keep),
                EncodeStep(step.rows[half:], step.context, step.keep),
            )
        case ExtendStep():
            return ExtendStep(step.rows[:half], step.width), ExtendStep(
                step.rows[half:], step.width
            )
        case PrefillStep():
            return PrefillStep(step.rows[:half]), PrefillStep(step.rows[half:])
        case VerifyStep():
            return VerifyStep(step.rows[:half]), VerifyStep(step.rows[half:])
        case AlignStep():
            return AlignStep(step.rows[:half]), AlignStep(step.rows[half:])


def join(first: StepResult, second: StepResult) -> StepResult:
    """One result of two steps of the same kind, in their order."""
    match first, second:
        case EncodeResult(), EncodeResult():
            return EncodeResult(first.slots + second.slots)
        case TokensResult(), TokensResult():
            return TokensResult(first.rows + second.rows)
        case AlignResult(), AlignResult():
            return AlignResult(first.rows + second.rows)
    raise ValueError(f"{type(first).__name__} and {type(second).__name__} are of two kinds")
