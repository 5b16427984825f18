import re
from html.parser import HTMLParser

from clients.load_report import level_rows, render
from tests.support.load_levels import document, level_of, small_level


class Page(HTMLParser):
    """What a page is made of: its elements, their attributes and its words."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.words: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data.strip())


def test_the_page_needs_nothing_from_anywhere_and_runs_nothing() -> None:
    page = Page(render(document(level_of(8, 0.1, 0.8), level_of(16, 0.9, 3.0), capacity=8)))
    assert page.open == []
    assert page.tags.count("svg") == 5
    assert not {"script", "link", "img", "iframe", "object", "image"} & set(page.tags)
    fetched = [
        value
        for name, value in page.attributes
        if name in ("src", "href", "xlink:href") and not value.startswith("#")
    ]
    assert fetched == []
    styles = " ".join(value for name, value in page.attributes if name == "style")
    assert re.findall(r"url\((?!#)", styles) == []
    assert not [name for name, _ in page.attributes if name.startswith("on")]


def test_the_page_tells_the_figures_the_command_and_the_settings() -> None:
    page = Page(render(document(small_level())))
    assert "starling loadtest --sessions 2" in page.words
    assert "Model tiny <b>, 2026-11-21T12:00:00+00:00." in page.words
    for words in ("end of speech → final", "745 ms", "1 HTTP 503, Retry-After 1 s", "2 sessions"):
        assert words in page.words
    assert any('"seconds": 2.0' in words for words in page.words)
    assert "Capacity" not in page.words


def test_a_search_is_told_level_by_level() -> None:
    beyond = level_of(16, 0.9, None) | {"objections": ["p95 of finals 900 ms", "retractions: 1"]}
    levels = [level_of(8, 0.1, 0.8), beyond]
    assert level_rows(levels) == [
        ["8", "100 ms", "800 ms", "yes", ""],
        ["16", "900 ms", "-", "no", "p95 of finals 900 ms; retractions: 1"],
    ]
    page = Page(render(document(*levels, capacity=8)))
    assert {"Capacity", "because of", "p95 of finals 900 ms; retractions: 1"} <= set(page.words)
    assert "Model tiny <b>, 2026-11-21T12:00:00+00:00. The server holds 8 sessions." in page.words


def test_figures_are_aligned_and_words_are_not() -> None:
    html = render(document(small_level()))
    assert '<td class="number">745 ms</td>' in html
    assert "<td>1 done, 1 refused</td>" in html
    assert "<td>0</td>" in html  # among words
