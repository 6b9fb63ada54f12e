"""Data sets in files of the user's own making: NumPy archives and CSV tables."""

from __future__ import annotations

import csv
import math
import zipfile
import zlib
from collections.abc import Iterator
from os import PathLike
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np

from unilayers.errors import DataError, nearest
from unilayers.hints import PositiveInt

from .dataset import Dataset, as_numbers
from .source import Source

Task: TypeAlias = Literal["auto", "classification", "regression"]


class Npz(Source):
    """Arrays of a NumPy archive; floats become float32, integers stay, nothing is unpickled.

    Args:
        path: The ``.npz`` file.
        x: Name of the samples in it.
        y: Name of the targets.
        x_test: Name of the samples kept for the final evaluation, if there are any.
        y_test: Name of their targets.
        task: Whether the targets are labels; ``"auto"``: they are if they are whole numbers that use each of 0, 1, ...
        num_classes: Number of classes; None takes it from the labels.
    """

    path: str | PathLike[str]
    x: str = "x"
    y: str = "y"
    x_test: str | None = None
    y_test: str | None = None
    task: Task = "auto"
    num_classes: PositiveInt | None = None

    def read(self) -> Dataset:
        path = existing(self.path)
        if (self.x_test is None) != (self.y_test is None):
            raise DataError("half a test part", where=path.name, expected="both x_test and y_test, or neither")
        x, y, x_test, y_test = _archived([self.x, self.y, self.x_test, self.y_test], path)
        labels = is_labels(y, self.task, self.num_classes)
        num_classes = self.num_classes or (_count(y, path.name) if labels else None)
        if x_test is not None:
            x_test, y_test = _features(x_test), _targets(y_test, labels, path.name)
        return Dataset(_features(x), _targets(y, labels, path.name), path.name, num_classes, x_test, y_test)

    @classmethod
    def claims(cls, path: Path) -> bool:
        return path.suffix == ".npz"


class Csv(Source):
    """A table of numbers, a sample a row: x float32 ``(rows, columns)``, y the target column.

    Args:
        path: The file, in UTF-8.
        target: The target's column: its name, its index (negative from the right), or None for the last.
        features: The columns of x, by name or index, in this order; None takes all but the target.
        delimiter: The character between cells.
        header: Whether the first line holds the columns' names.
        task: Whether the target is a label; ``"auto"``: it is if it is text or whole numbers that use each of 0, 1, ...
            The classes are the values in sorted order.
    """

    path: str | PathLike[str]
    target: str | int | None = None
    features: list[str | int] | None = None
    delimiter: str = ","
    header: bool = True
    task: Task = "auto"

    def read(self) -> Dataset:
        path = existing(self.path)
        if len(self.delimiter) != 1:
            raise DataError(
                "not a delimiter", where="delimiter", expected="one character", received=repr(self.delimiter)
            )
        rows = list(_rows(path, self.delimiter))
        if len(rows) <= self.header:
            raise DataError("no rows", where=str(path))
        columns = rows.pop(0)[1] if self.header else [str(i) for i in range(len(rows[0][1]))]
        target = _column(-1 if self.target is None else self.target, columns, path)
        others = [i for i in range(len(columns)) if i != target]
        features = others if self.features is None else [_column(name, columns, path) for name in self.features]
        x = np.array([[_number(row, i, line, columns, path) for i in features] for line, row in rows], dtype=np.float32)
        classes = _classes([row[target] for _, row in rows], self.task)
        if classes:
            labels = {name: label for label, name in enumerate(classes)}
            y = np.array([labels[row[target]] for _, row in rows], dtype=np.int32)
            return Dataset(x, y, path.name, len(classes), class_names=tuple(classes))
        y = np.array([_number(row, target, line, columns, path) for line, row in rows])
        labelled = is_labels(y, self.task)
        return Dataset(x, _targets(y, labelled, path.name), path.name, _count(y, path.name) if labelled else None)

    @classmethod
    def claims(cls, path: Path) -> bool:
        return path.suffix == ".csv"


def existing(path: str | PathLike[str]) -> Path:
    """The path, once it is known that a file lies there.

    Raises:
        DataError: if none does.
    """
    found = Path(path).expanduser()
    if not found.is_file():
        raise DataError("no such file", where=str(path), fix=f"Looked for {found.absolute()}")
    return found


def is_labels(y: np.ndarray, task: Task, num_classes: int | None = None) -> bool:
    """Whether the targets are labels: as said, or else one whole number a sample, each of 0, 1, ... used at least once.

    Example:
        >>> is_labels(np.array([2, 0, 1]), "auto"), is_labels(np.array([5.0, 7.0]), "auto")
        (True, False)
    """
    if task != "auto":
        return task == "classification"
    if y.dtype.kind not in "iuf" or y.ndim == 0 or y.size != len(y):
        return False
    used = np.unique(y)
    return num_classes is not None or (len(used) > 1 and np.array_equal(used, np.arange(len(used))))


# ---- details ------------------------------------------------------------------------------------------------------


def _archived(names: list[str | None], path: Path) -> list[Any]:
    """The arrays of those names in an archive; None stays None."""
    with path.open("rb") as raw:
        try:
            file = np.load(raw, allow_pickle=False)
        except (zipfile.BadZipFile, ValueError, EOFError) as error:
            raise DataError(f"not a readable NumPy archive ({error})", where=str(path)) from error
        if not isinstance(file, np.lib.npyio.NpzFile):
            fix = "Save it with np.savez(path, x=x, y=y)."
            raise DataError("a single array, not an archive", where=str(path), fix=fix)
        return [None if name is None else _archived_array(file, name, path) for name in names]


def _archived_array(file: Any, name: str, path: Path) -> np.ndarray:
    if name not in file:
        fix = nearest(name, file.files)
        raise DataError(f"no array {name!r}", where=str(path), received=f"arrays {', '.join(file.files)}", fix=fix)
    try:
        return file[name]
    except (zipfile.BadZipFile, zlib.error, OSError, ValueError, EOFError) as error:
        raise DataError(f"array {name!r} cannot be read ({error})", where=str(path)) from error


def _features(x: np.ndarray) -> np.ndarray:
    return x.astype(np.float32) if x.dtype.kind == "f" else x


def _targets(y: np.ndarray, labels: bool, where: str) -> np.ndarray:
    # Checked before the cast, in which NaN would become a label.
    return as_numbers(y, "y", where).astype(np.int32 if labels else np.float32)


def _count(y: np.ndarray, where: str) -> int:
    """The number of classes if the largest label is the last class."""
    return int(as_numbers(y, "y", where).max()) + 1


def _rows(path: Path, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """The line number and the cells of each row; blank lines are skipped, rows of another width are errors."""
    width = 0
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, delimiter=delimiter, skipinitialspace=True)
            for row in filter(None, reader):
                width = width or len(row)
                if len(row) != width:
                    where, received = f"{path}, line {reader.line_num}", str(len(row))
                    raise DataError(
                        "a row of another length", where=where, expected=f"{width} cells", received=received
                    )
                yield reader.line_num, [cell.strip() for cell in row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"not a readable table ({error})", where=str(path), expected="CSV in UTF-8") from error


def _column(wanted: str | int, columns: list[str], path: Path) -> int:
    """The index of a column given by name or by index."""
    if isinstance(wanted, str) and wanted in columns:
        return columns.index(wanted)
    if isinstance(wanted, int) and -len(columns) <= wanted < len(columns):
        return wanted % len(columns)
    fix = nearest(str(wanted), columns)
    raise DataError(f"no column {wanted!r}", where=str(path), received=f"{len(columns)} columns", fix=fix)


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _number(row: list[str], column: int, line: int, columns: list[str], path: Path) -> float:
    if not _is_number(row[column]):
        problem = "not a finite number" if row[column] else "an empty cell"
        where = f"{path}, line {line}, column {columns[column]!r}"
        raise DataError(problem, where=where, expected="a number", received=repr(row[column]))
    return float(row[column])


def _classes(texts: list[str], task: Task) -> list[str]:
    """The classes of a target column in sorted order; none if the column is to be read as numbers."""
    names = sorted(set(texts))
    numbers = [name for name in names if _is_number(name)]
    if task == "classification":
        return sorted(names, key=float) if len(numbers) == len(names) else names
    # A column that is mostly numbers is one of numbers, and a word in it a mistake to be reported.
    return names if task == "auto" and len(numbers) <= len(names) / 2 else []
