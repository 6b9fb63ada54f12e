"""The one comparison of arrays in the tests: it raises, and says where and by how much."""

from __future__ import annotations

from typing import Any

import numpy as np


def assert_close(actual: Any, expected: Any, *, rtol: float, atol: float, what: str) -> None:
    """Raise unless both have one shape, one dtype, NaN and infinities in the same places, and
    ``|actual - expected| <= atol + rtol * |expected|`` elsewhere. Integers and bools must be equal.

    Args:
        actual: The array under test.
        expected: What it should be.
        rtol: Relative tolerance.
        atol: Absolute tolerance.
        what: Named in the message.

    Raises:
        AssertionError: with the largest differences and the position of the worst.

    Example:
        >>> assert_close(np.array([1.0, 2.5]), np.array([1.0, 2.0]), rtol=0, atol=0.1, what="y")
        Traceback (most recent call last):
        AssertionError: y: 1 of 2 elements differ; max abs 0.5, max rel 0.25; worst at (1,): 2.5, expected 2.0
    """
    a, e = np.asarray(actual), np.asarray(expected)
    assert a.shape == e.shape, f"{what}: shape {a.shape}, expected {e.shape}"
    assert a.dtype == e.dtype, f"{what}: dtype {a.dtype}, expected {e.dtype}"
    if e.dtype.kind in "biu":
        rtol = atol = 0
    wide_a, wide_e = a.astype(np.float64), e.astype(np.float64)
    same = (wide_a == wide_e) | (np.isnan(wide_a) & np.isnan(wide_e))
    with np.errstate(invalid="ignore", divide="ignore"):
        difference = np.where(same, 0.0, np.abs(wide_a - wide_e))
        allowed = np.where(np.isfinite(wide_e), atol + rtol * np.abs(wide_e), 0.0)
        far = ~same & ~(difference <= allowed)
        if not far.any():
            return
        difference = np.where(np.isnan(difference), np.inf, difference)
        relative = np.where(same, 0.0, difference / np.abs(wide_e))
        worst = np.unravel_index(np.argmax(np.where(far, difference, -1.0)), far.shape)
    place = tuple(int(i) for i in worst)
    raise AssertionError(
        f"{what}: {far.sum()} of {far.size} elements differ; max abs {difference.max():.6g}, max rel "
        f"{np.nanmax(relative):.6g}; worst at {place}: {a[worst]}, expected {e[worst]}"
    )
