"""Small inline SVG: curves and bars whose colours come from the page's style sheet, so that light and dark both fit.

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

Scale = Callable[[float], float]
"""From a value to its share of a bar's full length."""


@dataclass(frozen=True)
class Series:
    """A named line; `style` is the CSS class that colours it."""

    name: str
    points: Sequence[tuple[float, float]]
    style: str
    dots: bool = False


@dataclass(frozen=True)
class Bar:
    """A labelled bar; `text` is what stands at its end."""

    label: str
    value: float
    text: str
    style: str = "prefix"


def curves(series: Sequence[Series], *, x_label: str, title: str) -> str:
    """A line chart from zero to the largest value. Series without points are left out; none at all gives a note."""
    series = [line for line in series if line.points]
    if not series:
        return "<p class='note'>nothing was recorded</p>"
    most_x = max(x for line in series for x, _ in line.points) or 1
    steps_x, steps_y = ticks(most_x), ticks(max(y for line in series for _, y in line.points) or 1)
    top_y = steps_y[-1]

    def place(x: float, y: float) -> tuple[float, float]:
        across, up = x / most_x, min(y / top_y, 1)
        return _LEFT + across * (WIDTH - _LEFT - _RIGHT), _TOP + (1 - up) * _PLOT_HEIGHT

    parts = [_grid_line(place(0, y)[1], _number(y)) for y in steps_y]
    parts += [
        _text(place(x, 0)[0], _TOP + _PLOT_HEIGHT + 14, _number(x), "tick middle") for x in steps_x if x <= most_x
    ]
    parts.append(_text(WIDTH - _RIGHT, _TOP + _PLOT_HEIGHT + 25, x_label, "tick end"))
    for line in series:
        placed = [place(x, y) for x, y in line.points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in placed)
        parts.append(f'<polyline class="line {line.style}" points="{path}"/>')
        if line.dots:
            parts += [f'<circle class="dot {line.style}" cx="{x:.1f}" cy="{y:.1f}" r="2.6"/>' for x, y in placed]
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


def _bars(rows: Sequence[Bar], share: Scale, title: str) -> str:
    height, room = 34, WIDTH - 78  # a row's height; the longest bar leaves room for its number
    parts = []
    for index, row in enumerate(rows):
        top = index * height
        width = max(share(row.value) * room, 2)
        parts.append(_text(0, top + 12, row.label, "bar-label"))
        parts.append(f'<rect class="bar-back" x="0" y="{top + 17}" width="{room}" height="10" rx="5"/>')
        parts.append(f'<rect class="bar {row.style}" x="0" y="{top + 17}" width="{width:.1f}" height="10" rx="5"/>')
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
