"""The family of data sources, and ``load``, which finds one by name or by path."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from unilayers.errors import DataError, UnilayersError, nearest
from unilayers.registry import Configurable, resolve, snake_case

from .dataset import Dataset, check


class Source(Configurable, family="dataset", immutable=True):
    """Where a data set comes from; the fields of a subclass are its options, ``read`` makes the data set."""

    def read(self) -> Dataset:
        """The data set, unchecked; nothing is opened before this is called."""
        raise NotImplementedError(f"{type(self).__name__} has no read()")

    def load(self) -> Dataset:
        """The data set, checked.

        Raises:
            DataError: for files that are missing or damaged, and for data that `check` rejects.
        """
        data = self.read()
        check(data.x, data.y, num_classes=data.num_classes, where=data.name)
        if data.x_test is not None:
            shape = data.feature_shape
            where = f"{data.name} (test part)"
            check(data.x_test, data.y_test, num_classes=data.num_classes, feature_shape=shape, where=where)
        return data

    @classmethod
    def claims(cls, path: Path) -> bool:
        """Whether this source reads what lies at ``path``, by suffix or by the names of the files in the folder."""
        return False


def load(source: str | PathLike[str] | Source | Mapping[str, Any], **options: Any) -> Dataset:
    """The data set of that name, or the one that lies at that path.

    Args:
        source: A name (``"digits"``; `names` lists them), a path (a ``.npz`` or ``.csv`` file, a folder with
            MNIST-format or CIFAR-10 files), a `Source`, or ``{name: options}``.
        **options: The fields of the source.

    Raises:
        UnilayersError: for unknown names and options.
        DataError: for missing or damaged files and unusable data.

    Example:
        >>> load("spirals", n=300, classes=3)
        Dataset('spirals': x float32 (300, 2), y int32 (300,), 3 classes)
    """
    return find(source, **options).load()


def find(source: str | PathLike[str] | Source | Mapping[str, Any], **options: Any) -> Source:
    """The source that `load` would read; opens no file."""
    if isinstance(source, PathLike) or (isinstance(source, str) and source not in Source.registry):
        path = Path(fspath(source)).expanduser()
        return _at(path, str(source)).from_config({"path": str(path)} | options)
    if isinstance(source, str):
        source = {source: options}
    elif options:
        raise UnilayersError(
            "options beside a source that has its own", where="data.load", received=", ".join(sorted(options))
        )
    return resolve(Source.registry, source, where="data")


def names() -> list[str]:
    """The names of the data sets.

    Example:
        >>> names()
        ['blobs', 'cifar10', 'csv', 'digits', 'mnist', 'npz', 'random_regression', 'spirals']
    """
    return sorted(snake_case(cls.__name__) for cls in Source.registry)


def _at(path: Path, given: str) -> type[Source]:
    """The class of source that reads what lies at ``path``."""
    if not path.exists():
        if path.suffix or len(path.parts) > 1:
            raise DataError("no such file or folder", where=given, fix=f"Looked for {path.absolute()}")
        raise UnilayersError(f"unknown dataset {given!r}", where="data", fix=nearest(given, names()))
    for cls in Source.registry:
        if cls.claims(path):
            return cls
    found = sorted(p.name for p in path.iterdir())[:8] if path.is_dir() else [path.name]
    raise DataError(
        "no data set that can be recognised",
        where=given,
        expected="a .npz or .csv file, or a folder with MNIST-format or CIFAR-10 files",
        received=", ".join(found) or "an empty folder",
    )
