from hypothesis import given
from hypothesis import strategies as st

from engine.audio.units import SAMPLES_PER_POSITION, Samples
from engine.decoding.hypothesis import HypothesisWord, Token
from engine.decoding.stable_prefix import StablePrefix

GUARD = Samples(300)


def words(*texts: str) -> list[HypothesisWord]:
    """Words of one token each; what has no text is a timestamp."""
    return [HypothesisWord(text, (Token(index, 0.0, index),)) for index, text in enumerate(texts)]


def observed(*hypotheses: tuple[int, list[HypothesisWord]]) -> StablePrefix:
    stable = StablePrefix(GUARD)
    for num_samples, hypothesis in hypotheses:
        stable.observe(hypothesis, Samples(num_samples))
    return stable


def test_what_two_successive_hypotheses_agree_on_is_committed() -> None:
    stable = observed((1000, words(" a", " b", " x")), (1400, words(" a", " b", " c", " d")))
    assert stable.text == " a b"
    assert [token.id for token in stable.tokens] == [0, 1]


def test_one_hypothesis_commits_nothing() -> None:
    assert observed((1000, words(" a", " b", " c"))).words == []


def test_disagreement_at_the_first_word_commits_nothing() -> None:
    assert observed((1000, words(" a", " b", " c")), (1400, words(" x", " b", " c"))).text == ""


def test_the_last_word_stays_in_the_tail_even_where_both_agree() -> None:
    assert observed((1000, words(" a", ".")), (1400, words(" a", "."))).text == " a"
    assert observed((1000, words(" a")), (1400, words(" a"))).text == ""


def test_the_last_word_before_a_timestamp_stays_in_the_tail() -> None:
    hypothesis = words("", " a", " b", "")
    assert [word.text for word in observed((1000, hypothesis), (1400, hypothesis)).words] == [
        "",
        " a",
    ]


def test_words_spoken_where_the_segment_may_be_cut_stay_in_the_tail() -> None:
    hypothesis = words(" a", " b", " c", " d")
    stable = StablePrefix(GUARD, latest=Samples(2 * SAMPLES_PER_POSITION))
    stable.observe(hypothesis, Samples(1000))
    stable.observe(hypothesis, Samples(1400))
    assert stable.text == " a b"


def test_hypotheses_closer_than_the_guard_do_not_confirm_each_other() -> None:
    hypothesis = words(" a", " b")
    stable = StablePrefix(GUARD)
    assert not stable.observe(hypothesis, Samples(1000))
    assert not stable.observe(hypothesis, Samples(1299))
    assert stable.observe(hypothesis, Samples(1300))


def test_the_newest_hypothesis_outside_of_the_guard_is_the_one_compared() -> None:
    stable = observed(
        (1000, words(" x", " y")),
        (1100, words(" a", " b")),
        (1200, words(" x", " y")),
        (1400, words(" a", " b")),
    )
    assert stable.text == " a"


def test_an_empty_hypothesis_commits_nothing_and_takes_nothing_back() -> None:
    stable = observed((1000, words(" a", " b")), (1400, words(" a", " b")))
    assert not stable.observe([], Samples(1800))
    assert stable.text == " a"


@given(
    st.lists(
        st.tuples(st.integers(0, 500), st.lists(st.sampled_from([" a", " b", ""]), max_size=6)),
        max_size=12,
    )
)
def test_the_prefix_only_grows_by_agreed_words_and_spares_the_last(
    steps: list[tuple[int, list[str]]],
) -> None:
    stable, num_samples = StablePrefix(GUARD), 0
    history: list[tuple[int, list[str]]] = []
    for passed, tail in steps:
        num_samples += passed
        before = list(stable.words)
        texts = [word.text for word in before] + tail  # decoding is forced to begin with them
        committed = stable.observe(words(*texts), Samples(num_samples))
        now = [word.text for word in stable.words]
        assert list(stable.words[: len(before)]) == before
        assert committed == (len(now) > len(before))
        assert now == texts[: len(now)]
        if committed:
            assert any(texts[len(now) :])
            assert any(
                earlier[: len(now)] == now and at <= num_samples - GUARD for at, earlier in history
            )
        history.append((num_samples, texts))
