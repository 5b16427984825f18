import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from random import Random
from types import ModuleType, SimpleNamespace
from typing import Any, Self

import numpy as np
import pytest

from engine.audio.units import SAMPLE_RATE
from training.errors import RecipeError
from training.speech.kokoro import Kokoro, lacking, word_ends
from training.speech.voices import HELD_OUT_KOKORO_VOICES, KOKORO_VOICES, Voice, draw_voice

HEART = Voice("kokoro", "af_heart")


@dataclass
class Token:
    """A token as the package gives it."""

    text: str
    whitespace: str = " "
    start_ts: float | None = None
    end_ts: float | None = None


@dataclass
class Result:
    """A result as the package gives it."""

    audio: np.ndarray
    tokens: list[Token]


class FakePipeline:
    """Gives the results it was made with, and keeps what it was asked for."""

    def __init__(self, *results: Result) -> None:
        self._results = results
        self.asked: list[tuple[str, float, float]] = []

    def load_single_voice(self, voice: str) -> np.ndarray:
        if voice == "af_sky":
            raise OSError("no network")
        return np.full(4, len(voice), np.float32)

    def __call__(self, text: str, voice: np.ndarray, speed: float) -> Iterator[Result]:
        self.asked.append((text, float(voice[0]), speed))
        if text == "boom":
            raise RuntimeError("out of memory")
        yield from self._results


def tokens(*parts: tuple[str, float | None]) -> list[Token]:
    return [Token(text, end_ts=end) for text, end in parts]


def tone(seconds: float) -> np.ndarray:
    time = np.arange(round(24_000 * seconds)) / 24_000
    return (0.5 * np.sin(2 * np.pi * 200 * time)).astype(np.float32)


def seconds(ends: tuple[int, ...] | None) -> list[float] | None:
    return None if ends is None else [end / SAMPLE_RATE for end in ends]


def test_a_sentence_is_16_khz_and_its_words_end_where_the_package_says() -> None:
    said = Result(tone(1.5), tokens(("Hello", 0.5), ("there", 1.0), (".", 1.4)))
    clip = Kokoro({"a": FakePipeline(said)}).speak("Hello there.", HEART)
    assert clip.samples.dtype == np.int16
    assert len(clip.samples) == 1.5 * SAMPLE_RATE
    assert 16_000 < clip.samples.max() < 17_000
    assert seconds(clip.word_ends) == [0.5, 1.0]


def test_audio_beyond_full_scale_is_clipped_and_does_not_wrap() -> None:
    said = Result(3 * tone(0.5), tokens(("Ah", 0.4)))
    samples = Kokoro({"a": FakePipeline(said)}).speak("Ah", HEART).samples
    assert samples.max() == 32_767
    assert np.abs(np.diff(samples.astype(int))).max() < 10_000


def test_results_follow_each_other_and_so_do_their_times() -> None:
    first = Result(tone(1.0), tokens(("One", 0.5), (",", 0.9)))
    second = Result(tone(0.5), tokens(("two", 0.4)))
    clip = Kokoro({"a": FakePipeline(first, second)}).speak("One, two", HEART)
    assert len(clip.samples) == 1.5 * SAMPLE_RATE
    assert seconds(clip.word_ends) == [0.5, 1.4]


def test_what_the_package_does_not_speak_is_empty() -> None:
    clip = Kokoro({"a": FakePipeline()}).speak("...", HEART)
    assert len(clip.samples) == 0
    assert clip.word_ends is None


def test_the_first_voice_gives_the_accent_and_two_are_blended() -> None:
    american, british = FakePipeline(), FakePipeline()
    kokoro = Kokoro({"a": american, "b": british})
    kokoro.speak("one", Voice("kokoro", "af_heart", rate=0.8))
    kokoro.speak("two", Voice("kokoro", "bf_isabella+af_heart"))
    assert american.asked == [("one", 8.0, 0.8)]
    assert british.asked == [("two", 9.5, 1.0)]


def test_every_voice_that_is_drawn_is_known() -> None:
    kokoro = Kokoro({"a": FakePipeline(), "b": FakePipeline()})
    for name in {*KOKORO_VOICES, *HELD_OUT_KOKORO_VOICES} - {"af_sky"}:
        kokoro.speak("a", Voice("kokoro", name))
    drawn = draw_voice(Random(1), ["kokoro"])
    assert set(drawn.name.split("+")) <= set(KOKORO_VOICES)


@pytest.mark.parametrize("name", ["nobody", "af_heart+nobody", "af_heart+", ""])
def test_a_voice_that_does_not_exist_is_named(name: str) -> None:
    with pytest.raises(RecipeError, match=re.escape(f"expected its English voices, got {name!r}")):
        Kokoro({"a": FakePipeline()}).speak("Hello.", Voice("kokoro", name))


@pytest.mark.parametrize(
    ("text", "name", "why"), [("boom", "af_heart", "out of memory"), ("a", "af_sky", "no network")]
)
def test_where_the_package_fails_its_reason_is_told(text: str, name: str, why: str) -> None:
    with pytest.raises(RecipeError, match=f"could not speak as {name}: {why}"):
        Kokoro({"a": FakePipeline()}).speak(text, Voice("kokoro", name))


def test_without_the_package_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kokoro", None)
    assert lacking() == "no such package"
    with pytest.raises(RecipeError, match="expected the package, found none: pip install kokoro"):
        Kokoro()


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A stand-in for the package, which loads nothing."""
    torch = pytest.importorskip("torch")
    threads = torch.get_num_threads()
    module: Any = ModuleType("kokoro")
    module.__spec__ = ModuleSpec("kokoro", None)
    module.KModel = FakeModel
    module.KPipeline = FakeLoadedPipeline
    monkeypatch.setitem(sys.modules, "kokoro", module)
    yield module
    torch.set_num_threads(threads)


class FakeModel:
    def __init__(self, repo_id: str) -> None:
        assert repo_id == "hexgrad/Kokoro-82M"
        self.used_by: list[str] = []

    def to(self, device: str) -> Self:
        assert device in ("cuda", "cpu")
        return self

    def eval(self) -> Self:
        return self


class FakeLoadedPipeline(FakePipeline):
    def __init__(self, lang_code: str, repo_id: str, model: FakeModel) -> None:
        super().__init__(Result(tone(1.0), tokens((lang_code, 0.5))))
        self.g2p = SimpleNamespace(fallback=object())
        model.used_by.append(lang_code)


def test_both_accents_of_the_package_share_one_model(package: Any) -> None:
    models: list[FakeModel] = []

    def load(repo_id: str) -> FakeModel:
        models.append(FakeModel(repo_id))
        return models[-1]

    package.KModel = load
    kokoro = Kokoro()
    assert seconds(kokoro.speak("a", HEART).word_ends) == [0.5]
    assert seconds(kokoro.speak("b", Voice("kokoro", "bm_lewis")).word_ends) == [0.5]
    assert [model.used_by for model in models] == [["a", "b"]]


@pytest.mark.parametrize("error", [ImportError, OSError, RuntimeError, SystemExit])
def test_where_parts_or_weights_cannot_be_had_the_reason_is_told(
    package: Any, error: type[BaseException]
) -> None:
    def fail(**_: object) -> None:
        raise error("not there")

    package.KPipeline = fail
    with pytest.raises(RecipeError, match=r"expected its parts and weights, .* not there"):
        Kokoro()


def test_a_package_that_would_leave_words_out_is_refused(package: Any) -> None:
    def without_fallback(**_: object) -> SimpleNamespace:
        return SimpleNamespace(g2p=SimpleNamespace(fallback=None))

    package.KPipeline = without_fallback
    with pytest.raises(RecipeError, match="expected espeak-ng for words"):
        Kokoro()


def test_on_a_cpu_it_is_left_to_who_asks_for_it(package: Any) -> None:
    import torch

    why = lacking()
    if torch.cuda.is_available():
        assert why is None
    else:
        assert why is not None
        assert why.startswith("no CUDA device")


@pytest.mark.parametrize(
    ("text", "parts", "ends"),
    [
        ("a well-known lamp", "a 1|well-known 6|lamp 9", [1, 6, 9]),
        ("well-known", "well 3|- 4|known 6", [6]),
        ("aren't you", "are 2|n't 4|you 6", [4, 6]),
        ("the boys' dogs", "the 1|boys 4|' 5|dogs 9", [1, 4, 9]),
        ('"Yes," she said.', '" 1|Yes 4|, 5|" 6|she 8|said 9|. ?', [4, 8, 9]),
        ("It costs $5.50", "It 1|costs 4|$ ?|5.50 9", [1, 4, 9]),
        ("5% more", "5 3|% 6|more 9", [6, 9]),
        ("yes - no", "yes 3|- 5|no 8", [3, 5, 8]),
    ],
)
def test_tokens_are_joined_to_the_words_between_spaces(
    text: str, parts: str, ends: list[int]
) -> None:
    told = [part.split() for part in parts.split("|")]
    timed = [(token, None if end == "?" else float(end)) for token, end in told]
    assert seconds(word_ends(text, timed, 20 * SAMPLE_RATE)) == ends


@pytest.mark.parametrize(
    "parts",
    [
        [],
        [("one", 0.3)],
        [("one", 0.3), ("two", None)],
        [("one", 0.3), ("too", 0.6)],
        [("two", 0.3), ("one", 0.6)],
        [("one two", 0.6)],
        [("one", 0.3), ("two", 0.6), ("three", 0.9)],
        [("one", 0.7), ("two", 0.6)],
        [("one", 0.0), ("two", 0.6)],
    ],
)
def test_where_tokens_are_not_the_words_nobody_knows_the_ends(
    parts: list[tuple[str, float | None]],
) -> None:
    assert word_ends("one two", parts, 20_000) is None


def test_no_word_ends_after_the_audio() -> None:
    assert word_ends("one two", [("one", 0.5), ("two", 1.2)], 16_000) == (8_000, 16_000)
