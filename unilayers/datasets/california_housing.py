"""Prices of houses in California in 1990: 20,640 districts of 8 numbers."""

from __future__ import annotations

from typing import Literal

from unilayers.errors import UnilayersError

from .reading import Part, numbers

HASH = "1a2e3a52e0398de6463aebe6f4a8da34fb21fbb6b934cf88c3425e766f2a1a6f"
ROWS = {"large": None, "small": 600}


def load_data(
    version: Literal["large", "small"] = "large",
    path: str = "california_housing.npz",
    test_split: float = 0.2,
    seed: int = 113,
) -> tuple[Part, Part]:
    """``(x_train, y_train), (x_test, y_test)``: x ``(n, 8)``, y the median price in dollars.

    Args:
        version: "large" for all districts, "small" for the first 600.
        path: Name of the file in the cache.
        test_split: Fraction of the samples that is kept to test.
        seed: Of the order before the split.

    Raises:
        DataError: if the file cannot be fetched or is another one.
        UnilayersError: for another ``version``.

    Reference:
        Pace and Barry, Sparse spatial autoregressions, 1997.
    """
    if version not in ROWS:
        where = "california_housing"
        raise UnilayersError("unknown version", where=where, expected=" or ".join(ROWS), received=repr(version))
    return numbers(path, "california_housing.npz", HASH, test_split, seed, ROWS[version])
