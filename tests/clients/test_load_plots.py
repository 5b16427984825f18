import sys
import xml.etree.ElementTree as ET

import pytest

from clients.load_plots import (
    plot_capacity,
    plot_distributions,
    plot_over_time,
    require_matplotlib,
)
from clients.word_errors import MissingPackageError
from tests.support.load_levels import level_of, small_level

LIMITS = {"p95_final_s": 0.5, "max_age_s": 2.0}
SVG = "{http://www.w3.org/2000/svg}"


def texts(svg: str | None) -> list[str]:
    """The words of a drawing, which has to be well-formed."""
    assert svg is not None
    assert svg.startswith("<svg")
    root = ET.fromstring(svg)
    assert root.tag == f"{SVG}svg"
    return [element.text or "" for element in root.iter(f"{SVG}text")]


def test_distributions_are_drawn_of_what_has_samples() -> None:
    words = texts(plot_distributions(small_level()))
    assert "age of the newest partial while somebody speaks" in words
    assert "start of speech → first partial" not in words
    assert "% of samples at most" in words


def test_a_latency_is_drawn_over_time_with_its_extremes() -> None:
    words = texts(plot_over_time(small_level(), "partial_age_s"))
    assert {"max", "p95", "p50", "s since the beginning"} <= set(words)


def test_the_capacity_is_drawn_with_its_limits() -> None:
    levels = [level_of(16, 0.9, 3.0), level_of(8, 0.1, 0.8), level_of(32, None, None)]
    words = texts(plot_capacity(levels, LIMITS))
    assert "sessions" in words
    assert "end of speech → final, less the endpoint silence, p95" in words
    other = {"p95_final_s": 0.4, "max_age_s": 2.0}
    assert plot_capacity(levels, LIMITS) != plot_capacity(levels, other)


def test_nothing_is_drawn_of_nothing() -> None:
    level = small_level()
    assert plot_over_time(level, "final_beyond_endpoint_s") is None
    assert plot_capacity([level], LIMITS) is None
    level["quantiles"] = {metric: [] for metric in level["quantiles"]}
    assert plot_distributions(level) is None


def test_the_same_figures_give_the_same_drawing() -> None:
    assert plot_distributions(small_level()) == plot_distributions(small_level())


def test_without_matplotlib_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    require_matplotlib()
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingPackageError, match=r"needs matplotlib: pip install 'starling-asr"):
        require_matplotlib()
