"""Small colour photographs in 100 classes of 20 kinds: 50,000 of 32 x 32 to train on and 10,000 to test."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from unilayers.data.images import read_cifar
from unilayers.errors import UnilayersError
from unilayers.utils.files import get_file

from .reading import Part

ADDRESS = "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz"
HASH = "03b5dce01913d631647c71ecec9e9cb8"
LABELS = ("coarse", "fine")  # in this order in the files


def load_data(label_mode: Literal["fine", "coarse"] = "fine") -> tuple[Part, Part]:
    """``(x_train, y_train), (x_test, y_test)``: x uint8 ``(n, 32, 32, 3)``, y int64 ``(n, 1)``.

    Args:
        label_mode: "fine" for the 100 classes, "coarse" for the 20 kinds.

    Raises:
        DataError: if the file cannot be fetched or is another one.
        UnilayersError: for another ``label_mode``.

    Reference:
        Krizhevsky, Learning multiple layers of features from tiny images, 2009.
    """
    if label_mode not in LABELS:
        raise UnilayersError("unknown label_mode", where="cifar100", expected=" or ".join(LABELS), received=label_mode)
    folder = Path(get_file("cifar-100-binary", ADDRESS, file_hash=HASH, extract=True)) / "cifar-100-binary"
    column = LABELS.index(label_mode)
    train, test = ((x, y[:, column, None].astype("int64")) for x, y in (
        read_cifar(folder / f"{part}.bin", labels=2) for part in ("train", "test")
    ))  # fmt: skip
    return train, test
