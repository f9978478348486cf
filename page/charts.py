"""Small inline SVG: curves and bars whose colours come from the page's style sheet, so that light
and dark both fit.

Every drawing is WIDTH units wide and scales with its box; text is set in the page's font.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

WIDTH = 340
_LEFT, _RIGHT, _TOP, _BOTTOM = 34, 8, 10, 26  # margins of the plot
_PLOT_HEIGHT = 150
_TICKS = 4
_WIDEST_RATIO = 16.0  # what lies beyond is drawn at the edge

Scale = Callable[[float], float]
"""From a value to its share of an axis' full length."""

Point = tuple[float, float]


@dataclass(frozen=True)
class Series:
    """A named line; `style` is the CSS class that colours it; `spread` gives (lowest, highest) at
    every point.
    """

    name: str
    points: Sequence[Point]
    style: str
    dots: bool = False
    spread: Sequence[Point] = ()


@dataclass(frozen=True)
class Bar:
    """A labelled bar; `text` is what stands at its end, `spread` its (lowest, highest) value, drawn
    as a whisker.
    """

    label: str
    value: float
    text: str
    style: str = "prefix"
    spread: Point | None = None


@dataclass(frozen=True)
class Interval:
    """A ratio with its lowest and highest plausible value."""

    label: str
    value: float
    low: float
    high: float
    text: str
    style: str = "prefix"


def curves(series: Sequence[Series], *, x_label: str, title: str, even: bool = False) -> str:
    """A line chart from zero to the largest value. Series without points are left out; none at all
    gives a note.

    `even` puts the x values that occur at equal distances, as suits 1, 2, 4, 8.
    """
    series = [line for line in series if line.points]
    if not series:
        return "<p class='note'>nothing was recorded</p>"
    across, steps_x = _across([x for line in series for x, _ in line.points], even)
    steps_y = ticks(max([y for line in series for _, y in (*line.points, *line.spread)]) or 1)

    def place(x: float, y: float) -> Point:
        up = min(y / steps_y[-1], 1)
        return _LEFT + across(x) * (WIDTH - _LEFT - _RIGHT), _TOP + (1 - up) * _PLOT_HEIGHT

    parts = [_grid_line(place(steps_x[0], y)[1], _number(y)) for y in steps_y]
    parts += [
        _text(place(x, 0)[0], _TOP + _PLOT_HEIGHT + 14, _number(x), "tick middle") for x in steps_x
    ]
    parts.append(_text(WIDTH - _RIGHT, _TOP + _PLOT_HEIGHT + 25, x_label, "tick end"))
    for line in series:
        parts += _line(line, place)
    return _svg(parts, _TOP + _PLOT_HEIGHT + _BOTTOM + 4, title)


def bars(rows: Sequence[Bar], *, most: float, title: str) -> str:
    """Horizontal bars on a linear scale from zero to `most`."""
    return _bars(rows, lambda value: value / most if most else 0, title)


def log_bars(rows: Sequence[Bar], *, title: str) -> str:
    """Horizontal bars on a logarithmic scale that begins a decade below the smallest value."""
    values = [row.value for row in rows if row.value > 0]
    low = math.floor(math.log10(min(values))) - 0.5 if values else 0
    high = math.log10(max(values)) if values else 1

    def share(value: float) -> float:
        return (math.log10(value) - low) / (high - low or 1) if value > 0 else 0

    return _bars(rows, share, title)


def ticks(most: float) -> list[float]:
    """Round numbers from 0 to at least `most`, about four of them: 0, 50, 100, …"""
    rough = most / _TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough * 0.999)
    return [round(step * index, 10) for index in range(math.ceil(most / step - 1e-9) + 1)]


def stacked(segments: Sequence[Bar], *, title: str) -> str:
    """One bar whose parts stand one behind the other, named below with their numbers."""
    total = sum(part.value for part in segments) or 1
    parts, left = [], 0.0
    for index, part in enumerate(segments):
        width = part.value / total * WIDTH
        parts.append(
            f'<rect class="bar {part.style}" x="{left:.1f}" y="0" width="{max(width - 1, 0.5):.1f}" height="16"/>'
        )
        top = 40 + index * 22
        parts.append(
            f'<rect class="bar {part.style}" x="0" y="{top - 9}" width="10" height="10" rx="2"/>'
        )
        parts += [
            _text(18, top, part.label, "bar-label"),
            _text(WIDTH, top, part.text, "bar-value end"),
        ]
        left += width
    return _svg(parts, 30 + len(segments) * 22, title)


def intervals(rows: Sequence[Interval], *, title: str, left: str, right: str) -> str:
    """Ratios with their intervals on a logarithmic scale around 1; `left` and `right` say what lies
    on either side.
    """
    bounds = [bound for row in rows for bound in (row.low, row.high) if bound > 0]
    reach = min(max([1.1, *bounds, *(1 / bound for bound in bounds)]), _WIDEST_RATIO)
    end, begin = WIDTH - 70, 4

    def across(ratio: float) -> float:
        share = 0.5 + 0.5 * math.log(max(ratio, 1e-9)) / math.log(reach)
        return begin + min(max(share, 0), 1) * (end - begin)

    height, parts = 34, []
    for index, row in enumerate(rows):
        middle = 20 + index * height + 23
        ends = " ".join(
            f'{name}="{across(bound):.1f}"' for name, bound in (("x1", row.low), ("x2", row.high))
        )
        parts.append(_text(0, middle - 11, row.label, "bar-label"))
        parts.append(f'<line class="grid" x1="{begin}" x2="{end}" y1="{middle}" y2="{middle}"/>')
        parts.append(
            f'<line class="one" x1="{across(1):.1f}" x2="{across(1):.1f}" y1="{middle - 6}" y2="{middle + 6}"/>'
        )
        parts.append(f'<line class="reach {row.style}" {ends} y1="{middle}" y2="{middle}"/>')
        parts.append(
            f'<circle class="dot {row.style}" cx="{across(row.value):.1f}" cy="{middle}" r="4"/>'
        )
        parts.append(_text(WIDTH, middle + 4, row.text, "bar-value end"))
    one, bottom = across(1), 20 + len(rows) * height
    parts += [_text(one - 8, 10, f"← {left}", "tick end"), _text(one + 8, 10, f"{right} →", "tick")]
    return _svg(parts, bottom, title)


def _across(values: Sequence[float], even: bool) -> tuple[Scale, list[float]]:
    """The scale of the x axis, and where it has marks."""
    if even:
        there = sorted(set(values))
        rank = {x: (index + 0.5) / len(there) for index, x in enumerate(there)}
        return rank.__getitem__, there
    most = max(values) or 1
    return (lambda x: x / most), [x for x in ticks(most) if x <= most]


def _line(line: Series, place: Callable[[float, float], Point]) -> list[str]:
    placed = [place(x, y) for x, y in line.points]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in placed)
    parts = []
    for (x, _), bounds in zip(line.points, line.spread, strict=False):
        (at, low), (_, high) = (place(x, bound) for bound in bounds)
        parts.append(
            f'<line class="whisker {line.style}" x1="{at:.1f}" x2="{at:.1f}" y1="{low:.1f}" y2="{high:.1f}"/>'
        )
    parts.append(f'<polyline class="line {line.style}" points="{path}"/>')
    if line.dots:
        parts += [
            f'<circle class="dot {line.style}" cx="{x:.1f}" cy="{y:.1f}" r="2.6"/>'
            for x, y in placed
        ]
    return parts


def _bars(rows: Sequence[Bar], share: Scale, title: str) -> str:
    height, longest = 34, WIDTH - 78  # of a row; the longest bar leaves space for its number
    parts = []
    for index, row in enumerate(rows):
        top = index * height
        width = max(min(share(row.value), 1) * longest, 2)
        parts.append(_text(0, top + 12, row.label, "bar-label"))
        parts.append(
            f'<rect class="bar-back" x="0" y="{top + 17}" width="{longest}" height="10" rx="5"/>'
        )
        parts.append(
            f'<rect class="bar {row.style}" x="0" y="{top + 17}" width="{width:.1f}" height="10" rx="5"/>'
        )
        if row.spread is not None:
            low, high = (min(max(share(bound), 0), 1) * longest for bound in row.spread)
            parts.append(
                f'<line class="error" x1="{low:.1f}" x2="{high:.1f}" y1="{top + 22}" y2="{top + 22}"/>'
            )
        parts.append(_text(WIDTH, top + 26, row.text, "bar-value end"))
    return _svg(parts, len(rows) * height, title)


def _grid_line(y: float, label: str) -> str:
    line = f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
    return line + _text(_LEFT - 6, y + 3.5, label, "tick end")


def _text(x: float, y: float, text: str, style: str) -> str:
    return f'<text class="{style}" x="{x:.1f}" y="{y:.1f}">{escape(text)}</text>'


def _svg(parts: Sequence[str], height: float, title: str) -> str:
    label = escape(title, quote=True)
    return f'<svg viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-label="{label}">{"".join(parts)}</svg>'


def _number(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) else f"{value:g}"
