"""The hooks of the embedded backend."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from unilayers.backend import Backend, Executable
from unilayers.graph import Graph
from unilayers.graph.emit import straight_line

from .table import numpy_like


def devices() -> list[str]:
    return ["cpu"]


def put(arrays: Sequence[np.ndarray], device: str) -> list[Any]:
    return [np.array(a) for a in arrays]


def get(array: Any) -> np.ndarray:
    return np.array(array)


def device_of(array: object) -> str | None:
    return "cpu" if isinstance(array, (np.ndarray, np.generic)) else None


def compile(graph: Graph, device: str) -> Executable:
    return straight_line(graph, TABLE, lambda a: a)


TABLE = numpy_like(np)
BACKEND = Backend("numpy", TABLE, devices, put, get, device_of, compile, packages=("numpy",))
