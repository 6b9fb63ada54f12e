"""Steps that a model writes itself: ``train_step(data)`` and ``test_step(data)``, once for every backend."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from unilayers import ops
from unilayers.backend import Array
from unilayers.errors import UnilayersError
from unilayers.layers.base import training_phase
from unilayers.ops.define import Box, unboxed
from unilayers.program import Program, moved
from unilayers.structure import map_structure
from unilayers.training.steps import Batch, inputs_like, packed
from unilayers.variable import Store, Trace, Variable, trace_into

if TYPE_CHECKING:
    from unilayers.models.model import Model


def unpacked(data: Any) -> tuple[Any, Any, Any]:
    """x, y and sample weights of what ``packed`` gives."""
    if not isinstance(data, tuple):
        return data, None, None
    x, *rest = data
    y, weight = (*rest, None, None)[:2]
    return x, y, weight


class CustomProgram:
    """A model's own step with the interface of a `Program`: traced to one graph, or run op by op.

    All state that the step touches is found by tracing it: weights, the slots of any optimizers, running values.

    Args:
        model: The model.
        kind: ``train`` or ``test``.
        like: Data of the form that the batches will have.

    Attributes:
        program: The one graph; None if the step runs op by op.
    """

    def __init__(self, model: Model, kind: str, like: Batch) -> None:
        self._model, self._kind, self._form = model, kind, (like.x, like.y, like.weight)
        self.program = None if model.run_eagerly else self._traced(like)

    def _step(self, batch: Batch) -> dict[str, Any]:
        function = getattr(self._model, f"{self._kind}_step")
        self._model.take_losses()  # those of an earlier step
        with training_phase(self._kind == "train"):
            logs = function(packed(batch))
        if not isinstance(logs, Mapping):
            raise UnilayersError(
                f"{self._kind}_step gives no logs", where=self._model.where, expected="a dict of scalars by name",
                received=type(logs).__name__,
            )  # fmt: skip
        return dict(logs)

    @property
    def variables(self) -> list[Variable]:
        """All state of the model, and what else the traced step touches."""
        known = self._model.variables + (self._model.optimizer.variables if self._model.optimizer is not None else [])
        return list(dict.fromkeys([*known, *(self.program.variables if self.program is not None else ())]))

    def traced(self) -> Program:
        """The step as one traced graph, if its Python can be traced."""
        return self._traced(Batch(*self._form)) if self.program is None else self.program

    def _traced(self, like: Batch) -> Program:
        dtype = self._model.data_dtype
        parts = [inputs_like(p, k, dtype) for p, k in zip(self._form, ("x", "y", "weight"), strict=True)]
        inputs = Batch(*parts)
        with trace_into(Trace()):  # creates what the first call creates
            self._step(inputs)
        trace = Trace()
        with trace_into(trace):
            logs = {name: ops.add(value, 0.0) for name, value in self._step(inputs).items()}
            graph = trace.graph(inputs.leaves, logs)
        return Program(graph, trace.variables)

    def placed(self, store: Store) -> bool:
        """The state is used where it is."""
        return True

    def run(self, store: Store, inputs: Sequence[Any], owned: bool = False) -> dict[str, Array]:
        """One step; see ``Program.run``."""
        backend, device = store.backend, store.device
        if self.program is not None:
            dtypes = [v.dtype for v in self.program.graph.inputs]
            cast = [x if x.dtype == d else x.astype(d) for x, d in zip(inputs, dtypes, strict=True)]
            return self.program.call(backend, device, cast, owned)
        given = iter(moved(list(inputs), backend, device))
        parts = [map_structure(lambda a: None if a is None else Box(next(given)), p) for p in self._form]
        logs = self._step(Batch(*parts))
        return dict(zip(logs, moved([unboxed(v) for v in logs.values()], backend, device), strict=True))
