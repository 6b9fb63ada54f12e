"""Image sets in the formats in which they are handed out: MNIST's IDX files and CIFAR-10's binary version."""

from __future__ import annotations

import gzip
import math
import zlib
from os import PathLike
from pathlib import Path

import numpy as np

from unilayers.errors import DataError
from unilayers.hints import PositiveInt

from .dataset import Dataset
from .source import Source

CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
CIFAR_IMAGE = (3, 32, 32)  # the red, green and blue planes, after the labels
# Type codes of IDX files; numbers are big-endian.
IDX_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


class Mnist(Source):
    """Grey images in IDX files, gzipped or not: x float32 ``(n, 28, 28, 1)`` in [0, 1], y int32.

    Reads MNIST, Fashion-MNIST and whatever else comes as ``train-images-idx3-ubyte``, ``train-labels-idx1-ubyte`` and
    the same of ``t10k``; images may have another size.

    Args:
        path: The folder with the files.
        num_classes: Number of classes.

    Reference:
        LeCun, Cortes and Burges, The MNIST database of handwritten digits, 1998.
    """

    path: str | PathLike[str]
    num_classes: PositiveInt = 10

    def read(self) -> Dataset:
        folder = existing_folder(self.path)
        x, y = self._part(folder, "train")
        # The test part may be left out, but not half of it.
        has_test = any(_idx_file(folder, f"t10k-{kind}") for kind in ("images-idx3", "labels-idx1"))
        x_test, y_test = self._part(folder, "t10k") if has_test else (None, None)
        return Dataset(x, y, folder.name, self.num_classes, x_test, y_test)

    @classmethod
    def claims(cls, path: Path) -> bool:
        return path.is_dir() and _idx_file(path, "train-images-idx3") is not None

    def _part(self, folder: Path, part: str) -> tuple[np.ndarray, np.ndarray]:
        images = _read_idx_named(folder, f"{part}-images-idx3", axes=3)
        labels = _read_idx_named(folder, f"{part}-labels-idx1", axes=1)
        return images[..., None].astype(np.float32) / np.float32(255), labels.astype(np.int32)


class Cifar10(Source):
    """60,000 colour photographs in 10 classes, binary version: x float32 ``(n, 32, 32, 3)`` in [0, 1], y int32.

    Args:
        path: The folder with ``data_batch_1.bin`` to ``data_batch_5.bin`` and ``test_batch.bin``, or the one above it.

    Reference:
        Krizhevsky, Learning multiple layers of features from tiny images, 2009.
    """

    path: str | PathLike[str]

    def read(self) -> Dataset:
        folder = _cifar_folder(existing_folder(self.path))
        train = [_file(folder, (f"data_batch_{i}.bin",)) for i in range(1, 6)]
        x, y = (np.concatenate(parts) for parts in zip(*map(_scaled_cifar, train), strict=True))
        x_test, y_test = _scaled_cifar(_file(folder, ("test_batch.bin",)))
        return Dataset(x, y, "cifar10", 10, x_test, y_test, CIFAR10_CLASSES)

    @classmethod
    def claims(cls, path: Path) -> bool:
        return path.is_dir() and (_cifar_folder(path) / "data_batch_1.bin").is_file()


def read_idx(path: Path) -> np.ndarray:
    """The array in an IDX file, gzipped or not (told by its content, not its name).

    Raises:
        DataError: if it is damaged, cut short or no IDX file.
    """
    raw = path.read_bytes()
    if raw[:2] == b"\x1f\x8b":
        try:
            raw = gzip.decompress(raw)
        except (OSError, EOFError, zlib.error) as error:
            raise DataError(f"a damaged gzip file ({error})", where=str(path), fix="Fetch the file again.") from error
    if len(raw) < 4 or raw[:2] != b"\0\0" or raw[2] not in IDX_TYPES:
        expected = "two zero bytes, a type code and the number of axes"
        raise DataError(
            "not an IDX file", where=str(path), expected=expected, received=f"first bytes {raw[:4].hex(' ')}"
        )
    dtype, axes = np.dtype(IDX_TYPES[raw[2]]), raw[3]
    start = 4 + 4 * axes
    shape = tuple(int.from_bytes(raw[i : i + 4], "big") for i in range(4, start, 4))
    expected_size = start + math.prod(shape) * dtype.itemsize
    if len(raw) != expected_size:
        problem = "an IDX file cut short" if len(raw) < expected_size else "an IDX file with bytes left over"
        expected = f"{expected_size} bytes for shape {shape}"
        raise DataError(problem, where=str(path), expected=expected, received=f"{len(raw)} bytes")
    return np.frombuffer(raw, dtype, offset=start).reshape(shape)


def read_cifar(path: Path, labels: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Pictures uint8 ``(n, 32, 32, 3)`` and labels uint8 ``(n, labels)`` of a file of CIFAR's binary version.

    Args:
        path: The file.
        labels: How many a picture has: 1 in CIFAR-10; 2, coarse and fine, in CIFAR-100.

    Raises:
        DataError: if its size is not that of whole records.
    """
    raw, record = np.fromfile(path, np.uint8), labels + math.prod(CIFAR_IMAGE)
    if not raw.size or raw.size % record:
        raise DataError(
            f"not a file of CIFAR-{10 if labels == 1 else 100}'s binary version",
            where=str(path),
            expected=f"a multiple of {record} bytes ({10000 * record} for the original files)",
            received=f"{raw.size} bytes",
        )
    records = raw.reshape(-1, record)
    planes = records[:, labels:].reshape(-1, *CIFAR_IMAGE)
    return np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), records[:, :labels]


def existing_folder(path: str | PathLike[str]) -> Path:
    """The path, once it is known that a folder lies there.

    Raises:
        DataError: if none does.
    """
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise DataError("no such folder", where=str(path), fix=f"Looked for {folder.absolute()}")
    return folder


# ---- details ------------------------------------------------------------------------------------------------------


def _idx_names(stem: str) -> tuple[str, ...]:
    """The names under which ``train-images-idx3`` is found in the wild."""
    return tuple(
        name + end for name in (f"{stem}-ubyte", f"{stem}-ubyte".replace("-idx", ".idx")) for end in ("", ".gz")
    )


def _idx_file(folder: Path, stem: str) -> Path | None:
    return next((folder / name for name in _idx_names(stem) if (folder / name).is_file()), None)


def _file(folder: Path, names: tuple[str, ...]) -> Path:
    """The first of the names that is a file in the folder."""
    for name in names:
        if (folder / name).is_file():
            return folder / name
    there = sorted(p.name for p in folder.iterdir())
    shown = ", ".join(there[:8]) + (f" and {len(there) - 8} more" if len(there) > 8 else "")
    raise DataError(
        "a file is missing", where=str(folder), expected=" or ".join(names), received=shown or "an empty folder"
    )


def _read_idx_named(folder: Path, stem: str, axes: int) -> np.ndarray:
    path = _file(folder, _idx_names(stem))
    array = read_idx(path)
    if array.ndim != axes:
        raise DataError(
            "another number of axes", where=str(path), expected=f"{axes} axes", received=f"shape {array.shape}"
        )
    return array


def _cifar_folder(folder: Path) -> Path:
    """The folder that the archive of CIFAR-10 unpacks to, if it lies in ``folder``, or else ``folder``."""
    inner = folder / "cifar-10-batches-bin"
    return inner if inner.is_dir() else folder


def _scaled_cifar(path: Path) -> tuple[np.ndarray, np.ndarray]:
    x, y = read_cifar(path)
    return x.astype(np.float32) / np.float32(255), y[:, 0].astype(np.int32)
