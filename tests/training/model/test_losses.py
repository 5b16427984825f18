from pathlib import Path

import pytest
import torch

from engine.audio.units import samples_from_seconds
from tests.support.recipe import tone_batch
from training.data.batches import Batch, make_batch
from training.data.samples import Sample
from training.data.targets import BLANK, Target, WordTarget
from training.model.losses import Losses, LossFunction
from training.model.network import Outputs

CPU = torch.device("cpu")
NUM_TEXT, N_VOCAB, POSITIONS = 6, 10, 60
CAPITAL, MARK, WORD, END = 1, 2, 3, 7


def batch(*, certain: bool = True) -> Batch:
    target = Target(
        inputs=(8, WORD),
        labels=(WORD, END),
        spans=((20, 30), (-1, -1)),
        certain=(certain, certain),
        characters=(4, 5),
        words=(WordTarget((20, 30), (4, 5)),),
    )
    return make_batch(samples_from_seconds(1.2), [(Sample(16_000, (), ()), target)], 0)


def outputs(favour: int = WORD, looks_at: slice = slice(20, 30)) -> Outputs:
    logits = torch.zeros(1, 16, N_VOCAB)
    logits[0, 0, favour] = 6.0
    logits[0, 1, END] = 6.0
    ctc = torch.zeros(1, POSITIONS, BLANK + 1)
    ctc[..., BLANK] = 12.0
    ctc[0, 22, 4] = ctc[0, 26, 5] = 24.0
    guided = torch.zeros(1, 1, 16, POSITIONS)
    guided[..., looks_at] = 1 / (looks_at.stop - looks_at.start)
    return Outputs(logits, ctc, guided)


def function() -> LossFunction:
    return LossFunction(NUM_TEXT, N_VOCAB, [CAPITAL, MARK], CPU)


def test_the_right_answer_at_the_right_place_costs_little() -> None:
    losses = function().losses(outputs(), batch())
    assert losses.accuracy == 1.0
    assert losses.text < 0.6  # the smoothing remains
    assert losses.ctc < 0.3
    assert losses.word_ctc < 0.3
    assert losses.guidance < 0.01


def test_looking_elsewhere_costs() -> None:
    losses = function().losses(outputs(looks_at=slice(40, 50)), batch())
    assert losses.guidance == pytest.approx(6.9, abs=0.1)


@pytest.mark.parametrize("other", [CAPITAL, MARK])
def test_a_capital_or_a_mark_is_not_wrong_where_nobody_knows(other: int) -> None:
    known = function().losses(outputs(favour=other), batch())
    unknown = function().losses(outputs(favour=other), batch(certain=False))
    neutral = function().losses(outputs(favour=NUM_TEXT - 1), batch(certain=False))
    assert known.text > unknown.text + 1.5
    assert neutral.text > unknown.text + 1.5
    assert torch.isfinite(unknown.text)


def test_a_label_that_stands_for_others_itself_is_still_learnt() -> None:
    unsure = batch(certain=False)
    unsure.labels[0, 0] = MARK
    right = function().losses(outputs(favour=MARK), unsure)
    assert right.accuracy == 1.0
    assert torch.isfinite(right.text)


def test_timestamps_are_not_smoothed() -> None:
    sure = outputs()
    sure.logits[0, 1, END] = 60.0
    stamped = batch()
    stamped.labels[0, 0] = -100
    assert function().losses(sure, stamped).text < 1e-4


def test_words_and_text_may_be_missing(tmp_path: Path) -> None:
    nothing = Target((8,), (END,), ((-1, -1),), (True,), (), ())
    silent = make_batch(samples_from_seconds(1.2), [(Sample(16_000, (), ()), nothing)], 0)
    losses = function().losses(outputs(), silent)
    assert losses.word_ctc == 0
    assert losses.guidance == 0
    assert torch.isfinite(losses.total(0))


def test_text_counts_more_the_longer_training_goes_on(tmp_path: Path) -> None:
    one = torch.ones(())
    text = Losses(one, 0 * one, 0 * one, 0 * one, one)
    alignment = Losses(0 * one, one, one, one, one)
    assert text.total(0) < text.total(10_000)
    assert alignment.total(0) > alignment.total(10_000)
    assert text.total(0, aligned=True) == text.total(10_000)
    assert alignment.total(0, aligned=True) == alignment.total(10_000)


def test_gradients_of_a_whole_batch_are_finite(tmp_path: Path) -> None:
    drawn = tone_batch(tmp_path)
    rows, tokens = drawn.inputs.shape
    n_vocab = int(drawn.inputs.max()) + 1800
    logits = torch.randn(rows, tokens, n_vocab, requires_grad=True)
    ctc = torch.randn(rows, 1500, BLANK + 1, requires_grad=True)
    guided = torch.rand(2, rows, tokens, 1500).softmax(dim=-1)
    function, outputs = LossFunction(280, n_vocab, [1, 2], CPU), Outputs(logits, ctc, guided)
    function.losses(outputs, drawn, aligned=True).total(0).backward()  # type: ignore[no-untyped-call]
    assert ctc.grad is None
    losses = function.losses(outputs, drawn)
    losses.total(0).backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    assert ctc.grad is not None
    assert torch.isfinite(logits.grad).all()
    assert torch.isfinite(ctc.grad).all()
