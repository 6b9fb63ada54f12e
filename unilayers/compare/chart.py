"""The charts of comparisons: those of all reports."""

from unilayers.utils.charts import (
    BOTTOM,
    HEIGHT,
    LEFT,
    POINTS,
    RIGHT,
    ROW,
    TOP,
    WIDTH,
    amount,
    bars,
    dots,
    keys,
    lines,
    ticks,
)

__all__ = [
    "BOTTOM", "HEIGHT", "LEFT", "POINTS", "RIGHT", "ROW", "TOP", "WIDTH", "amount", "bars", "dots", "keys", "lines",
    "ticks",
]  # fmt: skip
