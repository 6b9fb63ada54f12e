"""Prices of houses in the suburbs of Boston in the 1970s: 506 samples of 13 numbers.

The set is known for a feature made of the share of Black residents, on the premise that segregation raises prices; for
anything but the comparison with older work take `california_housing`.
"""

from __future__ import annotations

from .reading import Part, numbers

HASH = "f553886a1f8d56431e820c5b82552d9d95cfcb96d1e678153f8839538947dff5"


def load_data(path: str = "boston_housing.npz", test_split: float = 0.2, seed: int = 113) -> tuple[Part, Part]:
    """``(x_train, y_train), (x_test, y_test)``: x float64 ``(n, 13)``, y float64 in thousands of dollars.

    Args:
        path: Name of the file in the cache.
        test_split: Fraction of the samples that is kept to test.
        seed: Of the order before the split.

    Raises:
        DataError: if the file cannot be fetched or is another one.

    Reference:
        Harrison and Rubinfeld, Hedonic prices and the demand for clean air, 1978.
    """
    return numbers(path, "boston_housing.npz", HASH, test_split, seed)
