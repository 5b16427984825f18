from collections.abc import Callable, Sequence
from zlib import crc32

from hypothesis import given
from hypothesis import strategies as st

from engine.decoding.draft import accept, propose

EOT = 0
MOST_TOKENS = 40

Model = Callable[[Sequence[int]], int]
tokens = st.lists(st.integers(1, 5), max_size=30)


def random_model(seed: int, num_tokens: int) -> Model:
    """A model whose choice depends on the whole prefix, as a decoder's does."""

    def choose(prefix: Sequence[int]) -> int:
        return crc32(bytes([seed % 256, *prefix])) % num_tokens

    return choose


def reader(text: Sequence[int], slips: dict[int, int]) -> Model:
    """A model that reads `text` but for a few other words: what a longer window often does."""

    def choose(prefix: Sequence[int]) -> int:
        at = len(prefix)
        return slips.get(at, text[at]) if at < len(text) else EOT

    return choose


def greedy(model: Model) -> tuple[list[int], int]:
    chosen: list[int] = []
    passes = 0
    while len(chosen) < MOST_TOKENS:
        passes += 1
        token = model(chosen)
        if token == EOT:
            break
        chosen.append(token)
    return chosen, passes


def drafted(model: Model, previous: Sequence[int]) -> tuple[list[int], int]:
    chosen: list[int] = []
    passes = 0
    while len(chosen) < MOST_TOKENS:
        passes += 1
        draft = propose(previous, chosen)[: MOST_TOKENS - len(chosen) - 1]
        predicted = [model([*chosen, *draft[:n]]) for n in range(len(draft) + 1)]
        for token in predicted[: accept(draft, predicted) + 1]:
            if token == EOT:
                return chosen, passes
            chosen.append(token)
    return chosen, passes


@given(st.lists(st.integers()), st.lists(st.integers()))
def test_the_accepted_draft_is_the_longest_common_prefix(
    ours: list[int], theirs: list[int]
) -> None:
    count = accept(ours, theirs)
    assert ours[:count] == theirs[:count]
    assert count == min(len(ours), len(theirs)) or ours[count] != theirs[count]


@given(st.integers(0, 255), st.integers(1, 6), tokens)
def test_any_draft_gives_exactly_what_greedy_gives(
    seed: int, num_tokens: int, previous: list[int]
) -> None:
    model = random_model(seed, num_tokens)
    expected, greedy_passes = greedy(model)
    chosen, passes = drafted(model, previous)
    assert chosen == expected
    assert passes <= greedy_passes


@given(tokens, st.dictionaries(st.integers(0, 30), st.integers(1, 5), max_size=4), tokens)
def test_a_draft_from_the_last_window_gives_what_greedy_gives(
    text: list[int], slips: dict[int, int], more: list[int]
) -> None:
    model = reader([*text, *more], slips)
    assert drafted(model, text)[0] == greedy(model)[0]


def test_a_right_draft_takes_one_pass() -> None:
    text = list(range(1, 30))
    assert drafted(reader(text, {}), text) == (text, 1)


def test_a_growing_text_costs_a_pass_for_each_new_token() -> None:
    text = list(range(1, 30))
    assert drafted(reader(text, {}), text[:25])[1] == 1 + 4


def test_behind_a_differing_word_the_draft_goes_on_as_if_it_had_been_replaced() -> None:
    previous, slip = list(range(1, 30)), {10: 99}
    model = reader(previous, slip)
    assert propose(previous, [*previous[:10], 99]) == tuple(previous[11:])
    chosen, passes = drafted(model, previous)
    assert chosen == [*previous[:10], 99, *previous[11:]]
    assert passes == 2  # the rejected draft, then everything behind the other word


def test_the_surest_place_is_where_two_tokens_meet_again() -> None:
    previous = [1, 2, 3, 4, 5, 6, 1, 2, 7, 8, 9]
    assert propose(previous, [1, 2, 3, 4, 99, 1, 2]) == (7, 8, 9)


def test_the_place_is_looked_for_behind_what_is_known_to_agree() -> None:
    assert propose([1, 2, 3, 1, 4], [1, 2, 9, 1]) == (4,)


def test_behind_an_inserted_word_the_draft_is_taken_up_again() -> None:
    previous = list(range(1, 30))
    text = [*previous[:10], 99, *previous[10:]]
    # The rejected draft, a guess that the word replaced another, then the place is found.
    assert drafted(reader(text, {}), previous)[1] == 3


def test_behind_the_end_of_the_previous_hypothesis_nothing_is_guessed() -> None:
    assert propose([1, 2], [1, 2]) == ()
    assert propose([1, 2], [1, 2, 3, 4]) == ()


def test_without_a_previous_hypothesis_there_is_no_draft() -> None:
    assert propose([], []) == ()
    assert propose([], [1, 2]) == ()
