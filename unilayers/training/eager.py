"""Steps that run the model's own Python at every batch, with the numbers of the compiled steps.

They run op by op as far as that Python looks at numbers. Where it does not, its ops are only noted, and a step like one
before runs as one graph; see ``deferred``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from unilayers import ops
from unilayers.autodiff import GradientTape
from unilayers.backend import Array, Backend
from unilayers.layers.base import collect_losses
from unilayers.ops.define import Box, name_of, unboxed
from unilayers.program import Program, moved
from unilayers.spec import host_dtype
from unilayers.structure import leaves_of, map_structure
from unilayers.training.deferred import Finish, Memory, Recording
from unilayers.training.steps import (
    Batch,
    Objectives,
    complete,
    input_dtypes,
    judge,
    learn,
    packed,
    predict_program,
    require_terms,
    state_of,
    test_program,
    total,
    train_program,
)
from unilayers.variable import Store, Variable, place_together

if TYPE_CHECKING:
    from unilayers.models.model import Model


class EagerProgram:
    """A step with the interface of a `Program` whose Python runs each time.

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
        self._dtypes, self._count = input_dtypes(model, like), len(Batch(like.x).leaves)
        self._step: Callable[[Batch | Recording], dict[str, Any] | None] = getattr(self, f"_{kind}")
        self._place: tuple[Backend, str]
        self._known = -1  # how many variables there were in the world when the state was last looked at
        self._trained: list[Variable] = []
        self._penalised: list[Variable] = []
        self._sizes: dict[Any, Array] = {}
        self._leaves: Sequence[Any] = ()  # the data of this step
        self._memory = Memory(model, objectives, judged=kind != "predict")
        self._whole: Program | None = None  # what runs all of this step
        self.variables = state_of(model, objectives)
        self.structure: Any = None

    def placed(self, store: Store) -> bool:
        """Whether the state is in this store."""
        return not self.variables or self.variables[0].store is store

    def traced(self) -> Program:
        """The step as one traced graph, if its Python can be traced."""
        batch = Batch(*self._form)
        if self._step == self._predict:
            return predict_program(self._model, batch.x)[0]
        return (train_program if self._step == self._train else test_program)(self._model, self._objectives, batch)

    def run(self, store: Store, inputs: Sequence[Any], owned: bool = False) -> dict[str, Array]:
        """One step: reads and updates the state, returns the outputs as the backend's arrays; see ``Program.run``."""
        place = self._place = store.backend, store.device
        wanted = zip(inputs, self._dtypes, strict=True)
        self._leaves = [x if name_of(x.dtype) == d else x.astype(host_dtype(d)) for x, d in wanted]
        recording = None
        if self._known == Variable.made:
            recording = self._memory.begin(store, self._leaves[: self._count], self.variables, self._trained)
        found = self._step(self._boxed() if recording is None else recording)
        if found is None:
            assert self._whole is not None and recording is not None
            outputs = self._whole.run(store, [*self._leaves, *recording.others])
            recording.finish(outputs)
            return {name: y for name, y in outputs.items() if not name.startswith("kept")}
        return dict(zip(found, moved([unboxed(v) for v in found.values()], *place), strict=True))

    def _boxed(self) -> Batch:
        """The data in boxes, so that operators on it are ops, as they are in a trace."""
        given = iter(moved(self._leaves, *self._place, self._dtypes))
        return Batch(*[map_structure(lambda a: None if a is None else Box(next(given)), part) for part in self._form])

    def _call(self, data: Batch | Recording, training: bool, finish: Finish) -> tuple[Batch, Any, list[Any]] | None:
        """The forward pass: the data, the outputs, and what layers added to the loss. None if its ops were noted, and
        there is a program for the whole step.

        Args:
            data: The data, or what takes the notes.
            training: Whether the model is trained.
            finish: What follows the forward pass, in a trace.
        """
        with collect_losses() as added:
            if isinstance(data, Batch):
                outputs = self._forward(data.x, training)
                self._gather(data, outputs)
                return data, outputs, added
            given = iter(data.inputs)
            x = map_structure(lambda a: None if a is None else next(given), self._form[0])
            try:
                with data:
                    outputs = self._forward(x, training)
            finally:
                self._memory.on = self._memory.on and not data.asked
        if not data.closed and Variable.made == self._known and data.seal(outputs, added):
            del x, given, outputs  # what is still in somebody's hands now is wanted beyond this step
            added.clear()
            self.structure = data.structure
            self._whole = self._memory.program(data, Batch(*self._form), self._leaves, finish)
            if self._whole is not None:
                return None
            data.settle()
            outputs, added = data.results()
        elif not data.asked:
            self._memory.miss()
            data.settle()
        batch = self._boxed()
        self._gather(batch, outputs)
        return batch, outputs, added

    def _forward(self, x: Any, training: bool) -> Any:
        if self._step == self._predict:
            return self._model.predict_step(packed(Batch(x)))
        return self._model(x, training=training)

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

    def _predict(self, data: Batch | Recording) -> dict[str, Any] | None:
        found = self._call(data, False, lambda batch, outputs, added: _numbered(outputs))
        if found is None:
            return None
        self.structure = map_structure(lambda _: None, found[1])
        return _numbered(leaves_of(found[1]))

    def _test(self, data: Batch | Recording) -> dict[str, Any] | None:
        def finish(batch: Batch, outputs: list[Any], added: list[Any]) -> dict[str, Any]:
            return {"loss": judge(self._objectives, batch, outputs, [*added, *self._penalties()])}

        found = self._call(data, False, finish)
        if found is None:
            return None
        batch, outputs, terms = self._terms(*found)
        loss = unboxed(total(terms))
        self._update_metrics(batch, outputs, loss)
        return {"loss": loss}

    def _train(self, data: Batch | Recording) -> dict[str, Any] | None:
        def finish(batch: Batch, outputs: list[Any], added: list[Any]) -> dict[str, Any]:
            terms = [*added, *self._penalties()]
            return {"loss": learn(self._model, self._objectives, batch, outputs, terms, self._trained)}

        with GradientTape() as tape:
            found = self._call(data, True, finish)
            if found is None:
                return None
            batch, outputs, terms = self._terms(*found)
            require_terms(self._model, terms)
            loss = total(terms)
            scaled = self._model.optimizer.scale_loss(loss)
        trained = self._trained
        if trained:
            flows = tape.gradient(scaled, trained)
            grads = [ops.zeros_like(v) if g is None else unboxed(g) for g, v in zip(flows, trained, strict=True)]
            self._model.optimizer.apply(grads, trained)
        self._update_metrics(batch, outputs, unboxed(loss))
        return {"loss": loss}

    def _terms(self, batch: Batch, made: Any, added: list[Any]) -> tuple[Batch, list[Any], list[Any]]:
        """The data, the outputs, and all terms of the loss."""
        outputs = leaves_of(made)
        return batch, outputs, [*self._objectives.total_loss(batch, outputs), *added, *self._penalties()]

    def _penalties(self) -> list[Any]:
        return [v.regularizer(v) for v in self._penalised]

    def _update_metrics(self, batch: Batch, outputs: Sequence[Any], loss: Any) -> None:
        size = len(batch.leaves[0])
        key = (size, *self._place)
        if key not in self._sizes:
            backend, device = self._place
            self._sizes[key] = backend.put([np.asarray(size, self._objectives.loss_tracker.total.dtype)], device)[0]
        self._objectives.track_loss(batch, loss, self._sizes[key])
        self._objectives.update_metrics(batch, outputs)


def _numbered(outputs: Sequence[Any]) -> dict[str, Any]:
    return {str(i): y for i, y in enumerate(outputs)}
