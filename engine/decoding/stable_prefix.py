"""Decides which words of successive hypotheses are stable.

LocalAgreement-2 (Liu et al. 2020, as whisper_streaming uses it; arXiv 2307.14743) on written
words: what two successive hypotheses agree on is committed. Three guards keep the commitment
from freezing what would better change:

* the earlier hypothesis must come from a window that ended at least `guard` samples before, so
  nothing that was said within the last `guard` samples can be agreed on;
* the last word of the newer hypothesis stays in the tail, and a timestamp behind it: a window
  that ends in the middle of a sentence closes it with a full stop that the next words take back;
* words spoken behind `latest` in the window stay in the tail, so that a cut, which may not part
  what was promised from its segment, has room to find a pause.
"""

from collections import deque
from collections.abc import Sequence

from engine.audio.units import MAX_WINDOW_SAMPLES, SAMPLES_PER_POSITION, Samples
from engine.decoding.hypothesis import HypothesisWord, Token


class StablePrefix:
    """The committed words of one segment; only ever grows. Touched only by the engine thread."""

    def __init__(self, guard: Samples, latest: Samples = MAX_WINDOW_SAMPLES) -> None:
        self._guard = guard
        self._latest = latest
        self._words: list[HypothesisWord] = []
        self._earlier: deque[tuple[Samples, tuple[str, ...]]] = deque()

    @property
    def words(self) -> Sequence[HypothesisWord]:
        """Committed words in order."""
        return self._words

    @property
    def tokens(self) -> tuple[Token, ...]:
        """Committed tokens in order: the prefix that later decodes are forced to begin with."""
        return tuple(token for word in self._words for token in word.tokens)

    @property
    def text(self) -> str:
        """Committed text as it is written, with its leading space."""
        return "".join(word.text for word in self._words)

    def observe(self, words: Sequence[HypothesisWord], num_samples: Samples) -> bool:
        """Take the hypothesis of a window of `num_samples`; says whether anything was committed.

        `words` begin with the committed ones, which were forced.
        """
        texts = tuple(word.text for word in words)
        newest_comparable = num_samples - self._guard
        while len(self._earlier) > 1 and self._earlier[1][0] <= newest_comparable:
            self._earlier.popleft()
        agreed = 0
        if self._earlier and self._earlier[0][0] <= newest_comparable:
            for ours, theirs in zip(texts, self._earlier[0][1], strict=False):
                if ours != theirs:
                    break
                agreed += 1
        self._earlier.append((num_samples, texts))
        last_word = max((index for index, text in enumerate(texts) if text), default=0)
        agreed = min(agreed, last_word, self._num_spoken_in_time(words))
        if agreed <= len(self._words):
            return False
        self._words.extend(words[len(self._words) : agreed])
        return True

    def _num_spoken_in_time(self, words: Sequence[HypothesisWord]) -> int:
        """How many leading words end before `latest`, as far as attention tells."""
        for index, word in enumerate(words):
            end = max((token.position for token in word.tokens), default=0) + 1
            if end * SAMPLES_PER_POSITION > self._latest:
                return index
        return len(words)
