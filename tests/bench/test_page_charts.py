"""The drawings: well-formed SVG, round ticks, bars within their box, text that cannot break the
page.
"""

from __future__ import annotations

from itertools import pairwise
from xml.etree import ElementTree

import pytest

from edgeprefix.page.charts import WIDTH, Bar, Series, bars, curves, log_bars, ticks


@pytest.mark.parametrize(
    ("most", "expected"),
    [
        (100, [0, 25, 50, 75, 100]),
        (3.2, [0, 1, 2, 3, 4]),
        (340, [0, 100, 200, 300, 400]),
        (0.7, [0, 0.2, 0.4, 0.6, 0.8]),
    ],
)
def test_ticks_are_round_and_reach_the_largest_value(most: float, expected: list[float]) -> None:
    assert ticks(most) == expected


def test_a_curve_is_well_formed_and_stays_in_its_box() -> None:
    line = Series("loss", [(0, 3.0), (50, 1.5), (100, 0.5)], "prefix", dots=True)
    drawing = ElementTree.fromstring(
        curves([line, Series("empty", [], "base")], x_label="step", title='a "loss" & more')
    )
    assert drawing.get("aria-label") == 'a "loss" & more'
    (polyline,) = drawing.findall("polyline")
    points = [tuple(map(float, pair.split(","))) for pair in polyline.get("points", "").split()]
    assert all(0 <= x <= WIDTH and 0 <= y <= 200 for x, y in points)
    assert points[0][1] < points[-1][1], "a smaller loss stands lower, at a larger y"
    assert len(drawing.findall("circle")) == 3


def test_a_curve_without_points_says_so() -> None:
    assert "nothing was recorded" in curves(
        [Series("loss", [], "prefix")], x_label="step", title="loss"
    )


def _widths(svg: str) -> list[float]:
    return [
        float(rect.get("width", "0"))
        for rect in ElementTree.fromstring(svg).findall("rect")
        if "back" not in rect.get("class", "")
    ]


def test_bars_are_in_proportion() -> None:
    half, whole = _widths(
        bars([Bar("a", 50, "50"), Bar("<b>", 100, "100")], most=100, title="bars")
    )
    assert whole == pytest.approx(2 * half, rel=0.01)
    assert whole <= WIDTH


def test_logarithmic_bars_grow_by_the_same_step_each_decade() -> None:
    widths = _widths(
        log_bars([Bar(str(value), value, "") for value in (0.01, 0.1, 1.0, 10.0)], title="times")
    )
    steps = [after - before for before, after in pairwise(widths)]
    assert steps == pytest.approx([steps[0]] * 3, abs=0.2)
    assert widths[0] > 5


def test_bars_of_nothing_are_drawn_without_an_error() -> None:
    assert ElementTree.fromstring(log_bars([Bar("none", 0, "0")], title="times")) is not None
    assert ElementTree.fromstring(bars([Bar("none", 0, "0")], most=0, title="times")) is not None
