"""Plots of a load test as SVG to put into a page. Needs matplotlib, of the `loadtest` extra."""

import io
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

from clients.load_meter import METRICS
from clients.word_errors import MissingPackageError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SIZE_INCHES: Final = (8.0, 3.2)
_DISTRIBUTIONS: Final = ("final_beyond_endpoint_s", "first_partial_s", "partial_age_s")


def require_matplotlib() -> None:
    """Raises MissingPackageError where there is none."""
    if find_spec("matplotlib") is None:
        raise MissingPackageError("an HTML report", "matplotlib")


def plot_distributions(level: Mapping[str, Any]) -> str | None:
    """Which share of the samples each latency stayed below; None without samples."""
    quantiles = {metric: level["quantiles"][metric] for metric in _DISTRIBUTIONS}
    if not any(quantiles.values()):
        return None

    def draw(axes: "Axes") -> None:
        for metric, values in quantiles.items():
            if values:
                shares = [100 * n / (len(values) - 1) for n in range(len(values))]
                axes.plot([1000 * value for value in values], shares, label=METRICS[metric])
        axes.set_xlabel("ms")
        axes.set_ylabel("% of samples at most")
        axes.legend(loc="best", fontsize="small")

    return _svg(draw)


def plot_over_time(level: Mapping[str, Any], metric: str) -> str | None:
    """Median, p95 and maximum of every second; None without samples."""
    seconds: Sequence[Mapping[str, Any]] = level["over_time"][metric]
    if not seconds:
        return None

    def draw(axes: "Axes") -> None:
        at_s = [second["at_s"] for second in seconds]
        for name in ("max", "p95", "p50"):
            axes.plot(at_s, [1000 * second[name] for second in seconds], label=name)
        axes.set_xlabel("s since the beginning")
        axes.set_ylabel("ms")
        axes.legend(loc="best", fontsize="small")

    return _svg(draw)


def plot_capacity(levels: Sequence[Mapping[str, Any]], limits: Mapping[str, float]) -> str | None:
    """Finals and partials by number of sessions; None for a single load."""
    ordered = sorted(levels, key=lambda level: int(level["sessions"]))
    if len(ordered) < 2:
        return None

    def draw(axes: "Axes") -> None:
        for metric, name, limit in (
            ("final_beyond_endpoint_s", "p95", "p95_final_s"),
            ("partial_age_s", "max", "max_age_s"),
        ):
            points = [
                (level["sessions"], 1000 * level["latency"][metric][name])
                for level in ordered
                if level["latency"][metric][name] is not None
            ]
            (line,) = axes.plot(
                [sessions for sessions, _ in points],
                [ms for _, ms in points],
                marker="o",
                label=f"{METRICS[metric]}, {name}",
            )
            axes.axhline(1000 * limits[limit], color=line.get_color(), linestyle=":")
        axes.set_xlabel("sessions")
        axes.set_ylabel("ms (dotted: the limit)")
        axes.set_yscale("log")
        axes.legend(loc="best", fontsize="small")

    return _svg(draw)


def _svg(draw: Callable[["Axes"], None]) -> str:
    """The drawing as an `svg` element, without what a file of its own begins with."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(
        {
            "svg.fonttype": "none",  # text stays text: it can be searched, and is small
            "svg.hashsalt": "starling",  # the same figures give the same file
            "font.family": "sans-serif",
        }
    ):
        figure = Figure(figsize=_SIZE_INCHES, layout="constrained")
        axes = figure.add_subplot()
        draw(axes)
        axes.grid(visible=True, alpha=0.3)
        file = io.StringIO()
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(file, format="svg", metadata=nothing)
    text = file.getvalue()
    return text[text.index("<svg") :]
