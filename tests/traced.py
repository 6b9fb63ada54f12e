"""Running a function of arrays inside a graph, on any backend."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tests.conftest import require_backend
from unilayers.graph import leaf
from unilayers.graph.verify import verify
from unilayers.program import Program
from unilayers.spec import Dim, Spec
from unilayers.variable import Store, Trace, trace_into


class Step:
    """A traced function with its state placed on a backend; the first axis of each argument is symbolic.

    Args:
        function: Takes symbolic values, gives one, or a dict of them.
        like: Arrays with the arguments' shapes and dtypes.
        backend: The backend's name.
    """

    def __init__(self, function: Callable[..., Any], like: Sequence[np.ndarray], backend: str = "numpy") -> None:
        batch = Dim.symbol("batch")
        inputs = [leaf("input", f"x{i}", Spec((batch, *x.shape[1:]), x.dtype.name)) for i, x in enumerate(like)]
        trace = Trace()
        with trace_into(trace):
            result = function(*inputs)
        outputs = result if isinstance(result, dict) else {"y": result}
        self.program = Program(verify(trace.graph(inputs, outputs)), trace.variables)
        self.engine = require_backend(backend)
        self.store: Store = self.program.place(self.engine, self.engine.device("cpu"))

    def __call__(self, *arrays: np.ndarray) -> Any:
        """Run on arrays; gives NumPy."""
        found = {name: self.engine.get(y) for name, y in self.program.run(self.store, arrays).items()}
        return found["y"] if list(found) == ["y"] else found
