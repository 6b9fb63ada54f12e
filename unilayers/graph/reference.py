"""Ops that an engine lacks, by the functions that the tests compare with: on the host, slow and right."""

from __future__ import annotations

from collections.abc import Callable, Container
from typing import Any

import numpy as np

from unilayers.graph.node import LEAVES
from unilayers.graph.record import OPS, Op
from unilayers.spec import Spec, dtype_name

Array = Any


def by_reference(
    table: Container[str], put: Callable[[np.ndarray], Array], get: Callable[[Array], np.ndarray]
) -> dict[str, Callable[..., Any]]:
    """Entries for the primitives that a backend's table lacks: ``TABLE |= by_reference(TABLE, ...)``, when it has what
    models are made of, and decompositions, sorting and the like need not be fast.

    Args:
        table: The table so far.
        put: Moves a NumPy array to the engine.
        get: The reverse of it.
    """

    def entry(op: Op) -> Callable[..., Any]:
        def run(*operands: Array, **attrs: Any) -> Any:
            arrays = [get(x) for x in operands]
            specs = op.infer(*(Spec(x.shape, dtype_name(x.dtype)) for x in arrays), **attrs)
            assert op.reference is not None
            found = op.reference(*arrays, **attrs)
            if isinstance(specs, Spec):
                return put(np.asarray(found, specs.dtype))
            return tuple(put(np.asarray(y, s.dtype)) for y, s in zip(found, specs, strict=True))

        return run

    absent = [op for name, op in OPS.items() if not op.composite and name not in table and name not in LEAVES]
    return {op.name: entry(op) for op in absent if op.reference is not None and not op.bodies}
