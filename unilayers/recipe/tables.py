"""Samples from files and predictions into files."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from unilayers.data import Csv, Source, check
from unilayers.errors import DataError, UnilayersError, nearest
from unilayers.models import Model
from unilayers.recipe.recipe import Recipe
from unilayers.saving import write_atomically
from unilayers.spec import public_shape
from unilayers.structure import leaves_of

# ---- reading --------------------------------------------------------------------------------------------------------


def read_samples(path: str | PathLike[str], recipe: Recipe, model: Model) -> np.ndarray:
    """Samples for a model, checked against its input.

    Args:
        path: An ``.npz`` file (the array ``x``, or the only one), an ``.npy`` file, or a ``.csv`` file. A table is
            read as the recipe reads its own: the columns it takes as features, by name, and not its target.
        recipe: The recipe of the model.
        model: The model.

    Raises:
        DataError: for a file that is missing or damaged, or samples that the model cannot take.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise DataError("no such file", where=str(path))
    readers = {".npz": _from_npz, ".npy": _from_npz, ".csv": _from_csv}
    if file.suffix not in readers:
        raise DataError(
            "not a file of samples", where=str(path), expected=" or ".join(readers), received=repr(file.suffix)
        )
    x = readers[file.suffix](file, recipe)
    check(x, feature_shape=public_shape(leaves_of(model.input_structure)[0].shape)[1:], where=str(path))
    return x


def _from_npz(file: Path, recipe: Recipe) -> np.ndarray:
    try:
        found = np.load(file, allow_pickle=False)
        if isinstance(found, np.ndarray):
            return found
        with found:
            name = found.files[0] if len(found.files) == 1 else "x"
            if name not in found.files:
                raise DataError("no array 'x'", where=str(file), fix=nearest("x", found.files))
            return found[name]
    except (ValueError, EOFError, OSError) as error:
        if isinstance(error, UnilayersError):
            raise
        raise DataError(f"not a readable NumPy file ({error})", where=str(file)) from error


def _from_csv(file: Path, recipe: Recipe) -> np.ndarray:
    data = recipe.settings["data"]
    given = data if Source.registry.get(data["dataset"]) is Csv else {}
    options = {name: given[name] for name in ("delimiter", "header") if name in given}
    columns = _columns(file, **options)
    features = given.get("features")
    if features is None:
        target = given.get("target")
        features = [i for i, name in enumerate(columns) if not (options.get("header", True) and name == target)]
    # A table has a target for its reader; here it is one of the features, which nobody looks at.
    return Csv(file, target=features[0], features=list(features), task="regression", **options).read().x


def _columns(file: Path, delimiter: str = ",", header: bool = True) -> list[str]:
    with file.open(newline="", encoding="utf-8-sig") as opened:
        rows = csv.reader(opened, delimiter=delimiter, skipinitialspace=True)
        try:
            return [cell.strip() for cell in next(filter(None, rows), [])]
        except (UnicodeDecodeError, csv.Error) as error:
            raise DataError(f"not a readable table ({error})", where=str(file)) from error


# ---- writing --------------------------------------------------------------------------------------------------------


def likeliest(y: np.ndarray) -> np.ndarray:
    """The class of each prediction: the largest of several outputs; with a single one whether it is above 0.5.

    Example:
        >>> likeliest(np.array([[0.1, 0.7, 0.2]])), likeliest(np.array([[0.7], [0.3]]))
        (array([1]), array([1, 0]))
    """
    if y.ndim < 2 or y.shape[-1] == 1:
        return (y.reshape(len(y), *y.shape[1:-1]) > 0.5).astype(np.int64)
    return y.argmax(axis=-1)


def write_arrays(path: str | PathLike[str], arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays by name to an ``.npz`` file, or a single one to an ``.npy`` or ``.csv`` file.

    Raises:
        DataError: for another suffix, or arrays that do not fit into such a file.
    """
    file, content = Path(path).expanduser(), io.BytesIO()
    if file.suffix == ".npz":
        np.savez(content, **dict(arrays))  # type: ignore[arg-type]
    elif file.suffix == ".npy" and len(arrays) == 1:
        np.save(content, next(iter(arrays.values())))
    elif file.suffix == ".csv":
        content.write(as_csv(arrays).encode())
    else:
        expected = "an .npz file" if len(arrays) > 1 else "an .npz, .npy or .csv file"
        raise DataError("cannot write predictions there", where=str(path), expected=expected)
    write_atomically(file, content.getvalue())


def as_csv(arrays: Mapping[str, np.ndarray]) -> str:
    """Arrays of one or two axes side by side as a table.

    Example:
        >>> print(as_csv({"y": np.array([[1, 2], [3, 4]])}), end="")
        y0,y1
        1,2
        3,4

    Raises:
        DataError: for an array with more axes.
    """
    columns: dict[str, Any] = {}
    for name, y in arrays.items():
        if y.ndim > 2:
            raise DataError(
                f"{name} does not fit into a table", received=f"shape {y.shape}", fix="Write an .npz file: --out y.npz"
            )
        columns |= {name: y} if y.ndim == 1 else {f"{name}{i}": column for i, column in enumerate(y.T)}
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    return text.getvalue()
