"""Handwritten digits: 60,000 grey images of 28 x 28 to train on and 10,000 to test."""

from __future__ import annotations

from unilayers.utils.files import get_file

from .reading import ORIGIN, Part, read_archive

HASH = "731c5ac602752760c8e48fbffcf8c3b850d9dc2a2aedcf2cc48468fc17b673d1"


def load_data(path: str = "mnist.npz") -> tuple[Part, Part]:
    """``(x_train, y_train), (x_test, y_test)``: x uint8 ``(n, 28, 28)``, y uint8 0 to 9.

    Args:
        path: Name of the file in the cache.

    Raises:
        DataError: if the file cannot be fetched or is another one.

    Reference:
        LeCun, Cortes and Burges, The MNIST database of handwritten digits, 1998.
    """
    names = ("x_train", "y_train", "x_test", "y_test")
    x, y, x_test, y_test = read_archive(get_file(path, f"{ORIGIN}mnist.npz", file_hash=HASH), *names)
    return (x, y), (x_test, y_test)
