"""Pieces of clothing: 60,000 grey images of 28 x 28 in 10 classes to train on and 10,000 to test."""

from __future__ import annotations

from pathlib import Path

from unilayers.data.images import read_idx
from unilayers.utils.files import get_file

from .reading import ORIGIN, Part


def load_data() -> tuple[Part, Part]:
    """``(x_train, y_train), (x_test, y_test)``: x uint8 ``(n, 28, 28)``, y uint8 0 to 9 (T-shirt, trouser, pullover,
    dress, coat, sandal, shirt, sneaker, bag, ankle boot).

    Raises:
        DataError: if a file cannot be fetched or is damaged.

    Reference:
        Xiao, Rasul and Vollgraf, Fashion-MNIST, 2017, arXiv:1708.07747.
    """

    def read(name: str) -> Path:
        return Path(get_file(f"{name}-ubyte.gz", f"{ORIGIN}{name}-ubyte.gz", cache_subdir="datasets/fashion-mnist"))

    x, y, x_test, y_test = (
        read_idx(read(f"{part}-{kind}")) for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")
    )
    return (x, y), (x_test, y_test)
