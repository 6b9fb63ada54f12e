"""Steps that run op by op: the model's own Python at every batch, with the numbers of the compiled steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from unilayers import ops
from unilayers.autodiff import GradientTape
from unilayers.backend import Array, Backend
from unilayers.layers.base import collect_losses
from unilayers.ops.define import Box, unboxed
from unilayers.program import moved
from unilayers.structure import leaves_of, map_structure
from unilayers.training.steps import Batch, Objectives, complete, input_dtypes, require_terms, state_of, total
from unilayers.variable import Store, Variable, place_together

if TYPE_CHECKING:
    from unilayers.models.model import Model


class EagerProgram:
    """A step with the interface of a `Program` that is never traced.

    What the model, its losses, metrics and optimizer create in a step, mostly the first, joins the state right after
    that step's forward pass, so nothing has to be known of a model before it runs.

    Args:
        model: The model.
        objectives: Its losses and metrics.
        kind: ``train``, ``test`` or ``predict``.
        like: Data of the form that the batches will have.

    Attributes:
        variables: All state of the model, as far as it is there.
        structure: How the outputs of ``predict`` are nested, after the first run.
    """

    def __init__(self, model: Model, objectives: Objectives, kind: str, like: Batch) -> None:
        self._model, self._objectives, self._form = model, objectives, (like.x, like.y, like.weight)
        self._dtypes = input_dtypes(model, like)
        self._step: Callable[[Batch], dict[str, Any]] = getattr(self, f"_{kind}")
        self._place: tuple[Backend, str]
        self._known = -1  # how many variables there were in the world when the state was last looked at
        self._trained: list[Variable] = []
        self._penalised: list[Variable] = []
        self._sizes: dict[Any, Array] = {}
        self.variables = state_of(model, objectives)
        self.structure: Any = None

    def placed(self, store: Store) -> bool:
        """Whether the state is in this store."""
        return not self.variables or self.variables[0].store is store

    def run(self, store: Store, inputs: Sequence[Any]) -> dict[str, Array]:
        """One step: reads and updates the state, returns the outputs as the backend's arrays; see ``Program.run``."""
        place = store.backend, store.device
        cast = [x if x.dtype == d else x.astype(d) for x, d in zip(inputs, self._dtypes, strict=True)]
        given = iter(moved(cast, *place))
        # In boxes, so that operators are ops, as they are in a trace.
        x, y, weight = (map_structure(lambda a: None if a is None else Box(next(given)), part) for part in self._form)
        self._place = place
        found = self._step(Batch(x, y, weight))
        return dict(zip(found, moved([unboxed(v) for v in found.values()], *place), strict=True))

    def _gather(self, batch: Batch, outputs: Any) -> None:
        """After a forward pass that may have created weights: create what goes with them, and bring all together."""
        if self._known == Variable.made:
            return
        model, objectives = self._model, self._objectives
        if model.seen_inputs is None:
            model.remember_inputs(batch.x)
        if self._step != self._predict:
            complete(model, objectives, batch.y, outputs)
        self._trained = model.trainable_weights
        self._penalised = [v for v in self._trained if v.regularizer is not None]
        if self._step == self._train:
            model.optimizer.extend(self._trained)
        self.variables = state_of(model, objectives)
        stores = {v.store for v in self.variables}
        if len(stores) > 1 or None in stores:
            place_together(self.variables, *self._place)
        self._known = Variable.made

    # ---- the kinds of steps

    def _predict(self, batch: Batch) -> dict[str, Any]:
        outputs = self._model(batch.x, training=False)
        self.structure = map_structure(lambda _: None, outputs)
        self._gather(batch, outputs)
        return {str(i): y for i, y in enumerate(leaves_of(outputs))}

    def _test(self, batch: Batch) -> dict[str, Any]:
        outputs, terms = self._forward(batch, training=False)
        loss = unboxed(total(terms))
        self._update_metrics(batch, outputs, loss)
        return {"loss": loss}

    def _train(self, batch: Batch) -> dict[str, Any]:
        with GradientTape() as tape:
            outputs, terms = self._forward(batch, training=True)
            require_terms(self._model, terms)
            loss = total(terms)
            scaled = self._model.optimizer.scale_loss(loss)
        trained = self._trained
        if trained:
            found = tape.gradient(scaled, trained)
            grads = [ops.zeros_like(v) if g is None else unboxed(g) for g, v in zip(found, trained, strict=True)]
            self._model.optimizer.apply(grads, trained)
        self._update_metrics(batch, outputs, unboxed(loss))
        return {"loss": loss}

    def _forward(self, batch: Batch, *, training: bool) -> tuple[list[Any], list[Any]]:
        """The outputs, and all terms of the loss."""
        with collect_losses() as added:
            made = self._model(batch.x, training=training)
        self._gather(batch, made)
        outputs = leaves_of(made)
        penalties = [v.regularizer(v) for v in self._penalised]
        return outputs, [*self._objectives.total_loss(batch, outputs), *added, *penalties]

    def _update_metrics(self, batch: Batch, outputs: Sequence[Any], loss: Any) -> None:
        size = len(batch.leaves[0])
        key = (size, *self._place)
        if key not in self._sizes:
            backend, device = self._place
            self._sizes[key] = backend.put([np.asarray(size, self._objectives.loss_tracker.total.dtype)], device)[0]
        self._objectives.update_metrics(batch, outputs, loss, self._sizes[key])
