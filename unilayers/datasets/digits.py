"""The handwritten digits that come with the package: 1,797 grey images of 8 x 8, nothing to fetch."""

from __future__ import annotations

from unilayers.data.bundled import Digits
from unilayers.data.dataset import split

from .reading import Part


def load_data(test_split: float = 0.2, seed: int = 0) -> tuple[Part, Part]:
    """``(x_train, y_train), (x_test, y_test)``: x float32 ``(n, 8, 8, 1)`` in [0, 1], y int32 0 to 9.

    Args:
        test_split: Fraction of the samples that is kept to test.
        seed: Of the order before the split.

    Raises:
        DataError: for a split that leaves a part empty.

    Reference:
        E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository, 1998,
        doi:10.24432/C50P49, CC BY 4.0.

    Example:
        >>> (x_train, y_train), (x_test, y_test) = load_data()
        >>> x_train.shape, y_test.shape
        ((1437, 8, 8, 1), (360,))
    """
    data = Digits(shuffle_seed=seed).load()
    return split(data.x, data.y, test_split)
