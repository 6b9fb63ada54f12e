"""Small colour photographs in 10 classes: 50,000 of 32 x 32 to train on and 10,000 to test."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from unilayers.data.images import read_cifar
from unilayers.utils.files import get_file

from .reading import Part

ADDRESS = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
HASH = "c32a1d4ab5d03f1284b67883e8d87530"


def load_data() -> tuple[Part, Part]:
    """``(x_train, y_train), (x_test, y_test)``: x uint8 ``(n, 32, 32, 3)``, y uint8 ``(n, 1)``.

    The binary version is fetched, which holds the same as the pickles and is safe to read.

    Raises:
        DataError: if the file cannot be fetched or is another one.

    Reference:
        Krizhevsky, Learning multiple layers of features from tiny images, 2009.
    """
    folder = Path(get_file("cifar-10-binary", ADDRESS, file_hash=HASH, extract=True)) / "cifar-10-batches-bin"
    parts = [read_cifar(folder / f"data_batch_{i}.bin") for i in range(1, 6)]
    x, y = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    return (x, y), read_cifar(folder / "test_batch.bin")
