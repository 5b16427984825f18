"""Which shapes are captured, and that every step fits into the shape it is padded to."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.audio.units import MAX_WINDOW_POSITIONS, Positions
from engine.config import EngineConfig
from engine.runtime.buckets import (
    BATCH_BUCKETS,
    MOST_ENCODED_POSITIONS,
    MOST_FED_TOKENS,
    REACH_BUCKETS,
    WIDTH_BUCKETS,
    DecodeShape,
    EncodeShape,
    ExtendShape,
    FeedShape,
    Shape,
    decode_shape,
    encode_shape,
    extend_shape,
    feed_shape,
    fit,
    shapes_to_capture,
)
from engine.runtime.caches import PADDING_TOKENS
from engine.scheduling.contexts import CONTEXT_BUCKETS, EXTENSION_BUCKETS

rows = st.integers(1, 400)
contexts = st.sampled_from(CONTEXT_BUCKETS)
reaches = st.integers(1, MAX_WINDOW_POSITIONS)
max_batches = st.integers(1, 300)


@given(st.integers(0, 500), st.lists(st.integers(1, 400), max_size=8).map(sorted))
def test_a_count_fits_into_the_least_bucket_that_holds_it_or_stays(
    count: int, buckets: list[int]
) -> None:
    fitted = fit(count, buckets)
    assert fitted >= count
    assert fitted == count or fitted in buckets
    assert not any(count <= bucket < fitted for bucket in buckets)


@given(rows, reaches)
def test_a_decode_step_fits_into_its_shape(count: int, context: int) -> None:
    shape = decode_shape(count, context)
    assert shape.rows >= count
    assert shape.reach >= context


@given(rows, st.integers(1, 300), st.data())
def test_a_feed_fits_into_its_shape_with_a_choice_behind_every_draft_token(
    count: int, tokens: int, data: st.DataObject
) -> None:
    """Behind the last forced token too: one choice more than there are draft tokens."""
    draft = data.draw(st.integers(0, tokens - 1))
    context = data.draw(reaches)
    shape = feed_shape(count, tokens, draft, context)
    assert shape.rows >= count
    assert shape.width >= tokens
    assert shape.outs >= draft + 1
    assert shape.outs <= shape.width
    assert shape.reach >= context


@given(rows, contexts, st.booleans())
def test_windows_are_encoded_at_their_context_in_as_many_rows_as_needed(
    count: int, context: Positions, keep: bool
) -> None:
    shape = encode_shape(count, context, keep=keep)
    assert shape.rows >= count
    assert (shape.context, shape.keep) == (context, keep)


@given(rows, st.sampled_from(EXTENSION_BUCKETS))
def test_windows_are_extended_by_their_width_in_as_many_rows_as_needed(
    count: int, width: Positions
) -> None:
    shape = extend_shape(count, width)
    assert shape.rows >= count
    assert shape.width == width


@given(st.integers(17, BATCH_BUCKETS[-1]))
def test_of_a_batch_beyond_sixteen_rows_at_most_a_third_is_padding(count: int) -> None:
    padded = fit(count, BATCH_BUCKETS)
    assert 3 * (padded - count) <= padded


@given(st.integers(1, BATCH_BUCKETS[-1]), contexts, st.sampled_from(EXTENSION_BUCKETS))
def test_of_windows_at_most_a_third_is_padding(
    count: int, context: Positions, width: Positions
) -> None:
    for shape in (encode_shape(count, context), extend_shape(count, width)):
        assert 3 * (shape.rows - count) <= shape.rows


def test_what_padding_feeds_has_room_behind_the_text_context() -> None:
    assert WIDTH_BUCKETS[-1] <= PADDING_TOKENS
    assert REACH_BUCKETS[-1] == MAX_WINDOW_POSITIONS


@pytest.mark.parametrize("extends", [False, True])
@given(max_batch=max_batches)
def test_shapes_are_captured_once_and_the_largest_of_each_kind_first(
    extends: bool, max_batch: int
) -> None:
    shapes = shapes_to_capture(max_batch, extends=extends)
    assert len(set(shapes)) == len(shapes)
    kinds = list(dict.fromkeys(type(shape) for shape in shapes))
    for kind in kinds:
        works = [shape.work for shape in shapes if type(shape) is kind]
        assert works == sorted(works, reverse=True)
    # One kind after the other.
    assert [type(shape) for shape in shapes] == sorted(
        (type(shape) for shape in shapes), key=kinds.index
    )


@pytest.mark.parametrize("extends", [False, True])
@given(max_batch=max_batches)
def test_no_shape_holds_more_work_or_more_rows_than_are_worth_a_graph(
    extends: bool, max_batch: int
) -> None:
    for shape in shapes_to_capture(max_batch, extends=extends):
        assert shape.rows <= fit(max_batch, BATCH_BUCKETS)
        assert shape.work <= limit_of(shape)


def limit_of(shape: Shape) -> int:
    """The most work of a shape of that kind."""
    match shape:
        case DecodeShape():
            return BATCH_BUCKETS[-1]
        case FeedShape():
            return MOST_FED_TOKENS
        case EncodeShape() | ExtendShape():
            return MOST_ENCODED_POSITIONS


@given(st.integers(1, BATCH_BUCKETS[-1]), st.data())
def test_an_ordinary_step_finds_its_graph(max_batch: int, data: st.DataObject) -> None:
    """Up to the batch that there may be: every decode, and what else is within its limit."""
    captured = set(shapes_to_capture(max_batch, extends=True))
    count = data.draw(st.integers(1, max_batch))
    reach = data.draw(reaches)
    assert decode_shape(count, reach) in captured
    # A forced prefix alone: `sot`, language, task, `notimestamps` and a few stable tokens.
    prefill = feed_shape(count, data.draw(st.integers(1, WIDTH_BUCKETS[0])), 0, reach)
    assert prefill in captured
    tokens = data.draw(st.integers(2, WIDTH_BUCKETS[-1]))
    verify = feed_shape(count, tokens, data.draw(st.integers(1, tokens - 1)), reach)
    assert (verify in captured) == (verify.work <= MOST_FED_TOKENS)
    keep = data.draw(st.booleans())
    encode = encode_shape(count, data.draw(contexts), keep=keep)
    assert (encode in captured) == (encode.work <= MOST_ENCODED_POSITIONS)
    extend = extend_shape(count, data.draw(st.sampled_from(EXTENSION_BUCKETS)))
    assert (extend in captured) == (extend.work <= MOST_ENCODED_POSITIONS)


def test_nothing_is_captured_for_extensions_where_there_are_none() -> None:
    shapes = shapes_to_capture(8)
    assert not any(isinstance(shape, ExtendShape) for shape in shapes)
    assert not any(isinstance(shape, EncodeShape) and shape.keep for shape in shapes)
    assert set(shapes) < set(shapes_to_capture(8, extends=True))


def test_a_gpu_s_graphs_are_some_hundreds() -> None:
    """Each costs a good part of a second when the engine starts, and some megabytes."""
    max_batch = EngineConfig().resolve("cuda").max_batch
    assert 100 < len(shapes_to_capture(max_batch, extends=True)) < 600


def test_shapes_of_two_kinds_are_never_taken_for_each_other() -> None:
    shapes: set[Shape] = {DecodeShape(8, 256), ExtendShape(8, 256), EncodeShape(8, 256)}
    assert len(shapes) == 3
