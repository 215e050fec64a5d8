"""Charts as a template draws them: SVG paths in a square of 100 by 100, and what stands at the axes.

The square is stretched to the place that there is, lines keep their width, and text stands outside of it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..metrics import Curve

Array = npt.NDArray[Any]

BINS = 60
_TAIL = 3.0
"""A histogram whose highest score lies so much farther out than nearly all of the others gathers what is beyond."""


class Series(NamedTuple):
    """One part of a chart: a path, how it is drawn (a class of the style sheet), and its name in the legend."""

    path: str
    kind: str
    name: str = ""


class Chart(NamedTuple):
    """Attributes: series; labels at even distances along both axes; what the axes are; what is told beside it."""

    series: list[Series]
    x_ticks: list[str]
    y_ticks: list[str]
    x: str
    y: str
    about: str = ""


class Histogram(NamedTuple):
    """A chart of bars, from `low` to `high` on the axis of scores; `beyond` scores above that are in the last bar."""

    chart: Chart
    low: float
    high: float
    beyond: int


def histogram(
    groups: dict[str, Array], x: str, limits: tuple[float, float] | None = None, reaching: float | None = None
) -> Histogram:
    """Of groups of finite numbers, each as steps over one another, on one scale of counts.

    Without `limits` the axis has all numbers; but where a few lie very far out, it ends before them. It has `reaching`
    in any case.
    """
    values = np.concatenate([*groups.values(), np.empty(0)])
    low, high = limits or _limits(values)
    if reaching is not None:
        low, high = min(low, reaching), max(high, reaching)
    edges = np.linspace(low, high, BINS + 1)
    counts = {name: np.histogram(group.clip(low, high), edges)[0] for name, group in groups.items()}
    most = max([int(count.max()) for count in counts.values()] or [0]) or 1
    series = [Series(_steps(count / most), name, f"{name} ({len(groups[name]):,})") for name, count in counts.items()]
    chart = Chart(series, _ticks(low, high), _ticks(0, most), x, "images in a bar")
    return Histogram(chart, low, high, int((values > high).sum()))


def curve(found: Curve, x: str, y: str, chance: float | None) -> Chart:
    """A curve in its band; `chance`: the height at which one that knows nothing runs, None for the diagonal."""
    base = "M0 100L100 0" if chance is None else f"M0 {_y(chance)}H100"
    series = [Series(base, "chance", "chance")]
    if len(found.low):
        series.append(Series(_band(found.at, found.low, found.high), "band", "95 % band"))
    series.append(Series(_line(*_thinned(found.x, found.y)), "curve"))
    shares = _ticks(0, 1)
    value, low, high = found.area
    return Chart(series, shares, shares, x, y, f"{value:.4f} ({low:.4f} to {high:.4f})")


def course(scores: Array, blocks: int = 50) -> Chart | None:
    """Scores in their order: of each of some blocks the median, and the band from 5 % to 95 %. None of fewer than 2."""
    if len(scores) < 2:
        return None
    parts = np.array_split(scores, min(blocks, max(2, len(scores) // 10)))
    low, middle, high = np.array([np.quantile(part, [0.05, 0.5, 0.95]) for part in parts]).T
    bottom, top = float(low.min()), float(high.max())
    span = (top - bottom) or 1.0
    at = (np.arange(len(parts)) + 0.5) / len(parts)
    low, middle, high = ((values - bottom) / span for values in (low, middle, high))
    series = [Series(_band(at, low, high), "band", "5 % to 95 %"), Series(_line(at, middle), "curve", "median")]
    return Chart(series, _ticks(0, len(scores), whole=True), _ticks(bottom, top), "scored images, in order", "score")


def _limits(values: Array) -> tuple[float, float]:
    if not len(values):
        return 0.0, 1.0
    low, most, high = (float(found) for found in np.quantile(values, [0, 0.995, 1]))
    if high - low > _TAIL * (most - low) > 0:
        high = low + 1.2 * (most - low)
    return (low, high) if high > low else (low - 0.5, low + 0.5)


def _steps(heights: Array) -> str:
    """A skyline of bars of equal width."""
    width = 100 / len(heights)
    return "M0 100" + "".join(f"V{_y(height)}H{(i + 1) * width:.5g}" for i, height in enumerate(heights)) + "V100Z"


def _line(x: Array, y: Array) -> str:
    return "M" + "L".join(f"{100 * a:.5g} {_y(b)}" for a, b in zip(x, y, strict=True))


def _band(x: Array, low: Array, high: Array) -> str:
    return _line(np.concatenate([x, x[::-1]]), np.concatenate([low, high[::-1]])) + "Z"


def _y(share: float) -> str:
    return f"{100 - 100 * float(share):.5g}"


def _thinned(x: Array, y: Array, most: int = 400) -> tuple[Array, Array]:
    """At most so many of a curve's points."""
    if len(x) <= most:
        return x, y
    kept = np.unique(np.linspace(0, len(x) - 1, most).astype(int))
    return x[kept], y[kept]


def _ticks(low: float, high: float, count: int = 5, whole: bool = False) -> list[str]:
    return [f"{value:,.0f}" if whole else number(float(value)) for value in np.linspace(low, high, count)]


def number(value: float | None) -> str:
    """As a person reads it: four digits."""
    return "–" if value is None or not np.isfinite(value) else f"{value + 0.0:.4g}"  # 0 for -0
