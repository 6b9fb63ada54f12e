"""Charts: points lie where their numbers are, axes hold them all, what is written is true."""

from __future__ import annotations

import math
from xml.etree import ElementTree

import numpy as np
import pytest

from unilayers.utils import charts

RANGES = [(0, 1), (-3, 5), (0.1, 0.1), (1e-12, 3e-12), (-1e30, 1e30), (5, 5.0000001), (0.3, 700), (2, 9)]


def parts(svg: str) -> tuple[dict[str, tuple[float, float]], list[tuple[str, float, float]]]:
    """Circles by what they tell, and labels with their places."""
    root = ElementTree.fromstring(svg)
    circles = {c.findtext("title") or "": (float(c.attrib["cx"]), float(c.attrib["cy"])) for c in root.iter("circle")}
    return circles, [(t.text or "", float(t.attrib["x"]), float(t.attrib["y"])) for t in root.iter("text")]


def require_straight(numbers: list[float], places: list[float], log: bool) -> None:
    """Places are a linear function of the numbers, or of their logarithms."""
    found = np.log(numbers) if log else np.array(numbers)
    if found[0] != found[-1]:
        expected = places[0] + (found - found[0]) / (found[-1] - found[0]) * (places[-1] - places[0])
        np.testing.assert_allclose(places, expected, atol=0.1)


@pytest.mark.parametrize("marks", ["", "epoch"])
@pytest.mark.parametrize(("low", "high"), RANGES)
def test_curves_lie_where_their_numbers_are(low: float, high: float, marks: str) -> None:
    for log in {False, low > 0}:
        values = np.linspace(low, high, 9).tolist()
        svg = charts.lines({"a <b>": values}, {"a <b>": 2}, log=log, marks=marks)
        [line] = ElementTree.fromstring(svg).iter("polyline")
        assert line.attrib["class"] == "line c2" and line.findtext("title") == "a <b>"
        points = [tuple(map(float, p.split(","))) for p in line.attrib["points"].split()]
        require_straight(values, [y for _, y in points], log)
        require_straight(list(range(9)), [x for x, _ in points], False)
        assert points[0][0] == charts.LEFT and points[-1][0] == charts.WIDTH - charts.RIGHT
        assert all(charts.TOP <= y <= charts.HEIGHT - charts.BOTTOM for _, y in points)
        circles, labels = parts(svg)
        assert len(circles) == (9 if marks else 0)
        heights = [(float(text), y - 4) for text, x, y in labels if x == charts.LEFT - 6]
        assert 2 <= len(heights) <= 9
        if high - low > 1e-3:  # what is written at the axis lies on the same line as the curve
            require_straight([v for v, _ in heights], [y for _, y in heights], log)
            (a, up_a), (b, up_b) = heights[0], heights[-1]
            for value, (_, y) in zip(values, points, strict=True):
                part = math.log(value / a) / math.log(b / a) if log else (value - a) / (b - a)
                assert abs(up_a + part * (up_b - up_a) - y) < 0.2


def test_points_of_numbers_of_logarithms_and_of_names() -> None:
    for log in ((False, False), (True, False), (False, True), (True, True)):
        xs, ys = [0.001, 0.01, 3.0], [5.0, 0.2, 0.004]
        circles, _ = parts(charts.dots([(x, y, f"p{x}") for x, y in zip(xs, ys, strict=True)], {}, log=log))
        places = [circles[f"p{x}: {y:.6g}"] for x, y in zip(xs, ys, strict=True)]
        require_straight(xs, [x for x, _ in places], log[0])
        require_straight(ys, [y for _, y in places], log[1])
        assert all(charts.LEFT < x < charts.WIDTH - charts.RIGHT for x, _ in places)
    circles, labels = parts(charts.dots([(0, 1.0, "a"), (1, 2.0, "b"), (1, math.nan, "c")], {}, names={0: "x", 1: "y"}))
    assert len(circles) == 2
    assert {text: x for text, x, _ in labels if text in "xy"} == {"x": circles["a: 1"][0], "y": circles["b: 2"][0]}
    _, labels = parts(charts.dots([(1, 1.0, "a"), (3, 2.0, "b")], {}))
    assert [text for text, _, y in labels if y == charts.HEIGHT - 12] == ["1", "2", "3"]  # no halves of whole numbers
    assert charts.dots([(0, math.nan, "a")], {}) == "<p>No values.</p>"


def test_what_has_no_colour_is_faint_and_below() -> None:
    svg = charts.dots([(0, 1.0, "best"), (1, 2.0, "other")], {"best": 0})
    assert svg.index('class="dot rest"') < svg.index('class="dot c0"')
    svg = charts.lines({"other": [1.0, 2.0], "best": [2.0, 1.0]}, {"best": 0})
    assert svg.index("line rest") < svg.index("line c0")


def test_many_curves_are_not_a_wall() -> None:
    svg = charts.lines({str(i): [1.0, 2.0] for i in range(50)}, {})
    assert max(float(e.attrib["stroke-width"]) for e in ElementTree.fromstring(svg).iter("polyline")) <= charts.WIDEST


def test_every_colour_has_its_style_on_either_paper() -> None:
    assert len(charts.LIGHT) == len(charts.DARK)
    for i in range(len(charts.LIGHT)):
        assert f".line.c{i} {{ stroke: var(--c{i}); }}" in charts.STYLE
