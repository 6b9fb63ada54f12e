"""Data sets: ``load`` finds one by name or path; ``check``, ``split`` and ``batches`` serve training.

``Pipeline`` makes batches as they are asked for. Nothing is read before `load`. A new data set is a subclass of
`Source` in one of the modules here.
"""

from .bundled import Blobs, Digits, RandomRegression, Spirals
from .dataset import Dataset, batches, check, split, split_index
from .images import Cifar10, Mnist
from .pipeline import Pipeline
from .pydataset import PyDataset
from .source import Source, find, load, names
from .tables import Csv, Npz

__all__ = [
    "Blobs",
    "Cifar10",
    "Csv",
    "Dataset",
    "Digits",
    "Mnist",
    "Npz",
    "Pipeline",
    "PyDataset",
    "RandomRegression",
    "Source",
    "Spirals",
    "batches",
    "check",
    "find",
    "load",
    "names",
    "split",
    "split_index",
]
