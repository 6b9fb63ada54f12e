"""What the data sets share: archives of arrays, sequences of words, a split."""

from __future__ import annotations

import json
import pickle
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, TypeAlias

import numpy as np

from unilayers.errors import DataError
from unilayers.utils.files import get_file

ORIGIN = "https://storage.googleapis.com/tensorflow/tf-keras-datasets/"

Part: TypeAlias = tuple[np.ndarray, np.ndarray]

# What the pickle of an array of lists of numbers is made of, and nothing more.
_ALLOWED = {
    *((f"numpy.{core}.multiarray", name) for core in ("core", "_core") for name in ("_reconstruct", "scalar")),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("_codecs", "encode"),
}


class _Unpickler(pickle.Unpickler):
    """Of arrays and plain data; a file that names anything else is refused."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it names {module}.{name}")
        return super().find_class(module, name)


def read_archive(path: str, *names: str) -> list[np.ndarray]:
    """Arrays of a ``.npz`` file; arrays of lists too, in which nothing but numbers is let through.

    Raises:
        DataError: if the file is damaged, lacks one, or names anything that is not an array.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return [_read_member(archive, name) for name in names]
    except (zipfile.BadZipFile, KeyError, ValueError, EOFError, OSError, pickle.UnpicklingError) as error:
        raise DataError(
            "no archive of the arrays wanted", where=path, expected=", ".join(names), received=str(error),
            fix="Remove the file and load the data again",
        ) from None  # fmt: skip


def _read_member(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    with archive.open(f"{name}.npy") as file:
        version = np.lib.format.read_magic(file)
        read_header: Any = {1: np.lib.format.read_array_header_1_0}.get(version[0], np.lib.format.read_array_header_2_0)
        shape, _, dtype = read_header(file)
        if dtype.hasobject:
            return _unpickled(file).reshape(shape)
    with archive.open(f"{name}.npy") as file:
        return np.lib.format.read_array(file, allow_pickle=False)


def _unpickled(file: IO[bytes]) -> np.ndarray:
    array = _Unpickler(file, encoding="latin1").load()
    if not isinstance(array, np.ndarray):
        raise pickle.UnpicklingError(f"it holds a {type(array).__name__}")
    return array


def numbers(
    path: str, name: str, file_hash: str, test_split: float, seed: int, rows: int | None = None
) -> tuple[Part, Part]:
    """A table of numbers, shuffled and split."""
    if not 0 <= test_split < 1:
        where = "load_data(test_split=)"
        raise DataError("not a fraction", where=where, expected="0 <= test_split < 1", received=repr(test_split))
    x, y = read_archive(get_file(path, f"{ORIGIN}{name}", file_hash=file_hash), "x", "y")
    order = shuffled(len(x[:rows]), np.random.RandomState(seed))
    at = int(len(order) * (1 - test_split))
    return (x[order[:at]], y[order[:at]]), (x[order[at:]], y[order[at:]])


def shuffled(n: int, generator: np.random.RandomState) -> np.ndarray:
    """The numbers 0 to n - 1 in the order that Keras gives them for a seed."""
    order = np.arange(n)
    generator.shuffle(order)
    return order


def moved(
    sequences: Sequence[Any], start_char: int | None, index_from: int, maxlen: int | None
) -> tuple[list[list[int]], np.ndarray]:
    """Sequences of words, their numbers moved up by ``index_from`` and a start before; and which were short enough."""
    head = [] if start_char is None else [start_char]
    result = [[*head, *(int(w) + (index_from or 0) for w in s)] for s in sequences]
    kept = [i for i, s in enumerate(result) if not maxlen or len(s) < maxlen]
    if not kept:
        raise DataError("no sequence is short enough", where="load_data(maxlen=)", received=str(maxlen))
    return [result[i] for i in kept], np.array(kept)


def frequent(sequences: list[list[int]], num_words: int | None, skip_top: int, oov_char: int | None) -> np.ndarray:
    """The sequences, with ``oov_char`` for (or without, if None) words that are too rare or among the first."""
    limit = num_words or max(max(s, default=0) for s in sequences)
    result = np.empty(len(sequences), dtype=object)
    for i, sequence in enumerate(sequences):
        result[i] = [
            w if skip_top <= w < limit else oov_char for w in sequence if skip_top <= w < limit or oov_char is not None
        ]
    return result


def word_index(path: str, name: str, file_hash: str) -> dict[str, int]:
    """Words and their numbers, from a JSON file."""
    file = get_file(path, f"{ORIGIN}{name}", file_hash=file_hash)
    found: dict[str, int] = json.loads(Path(file).read_text("utf-8"))
    return found
