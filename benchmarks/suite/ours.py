"""unilayers: the compiled step alone, and ``fit`` and ``predict_on_batch`` as a whole."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

import unilayers as ul
from benchmarks.suite.contestant import Contestant, Fit, Steps
from benchmarks.suite.models import compiled, loss, model
from benchmarks.suite.workloads import Workload, batches
from unilayers.training import steps


def build(w: Workload, backend: str, form: str = "step", *, dropout: bool = True, device: str = "cpu") -> Contestant:
    """A contestant.

    Args:
        w: The workload.
        backend: Where it runs.
        form: ``step``, the traced program that ``fit`` runs for each batch, alone; ``fit``; ``batch``.
        dropout: Whether dropout is done.
        device: Of the backend, for the step alone.
    """
    if form == "fit":
        return Fit(compiled(ul, w, dropout, backend=backend), ul.callbacks.Callback, w)
    data = batches(w)
    if form == "batch":
        return Steps(partial(model(ul, w).predict_on_batch, backend=backend), data, np.asarray)
    engine = ul.get_backend(backend)
    device = engine.device(device)
    if not w.training:
        program, _ = steps.predict_program(net := model(ul, w), data[0][0])
        store = program.place(engine, device, steps.state_of(net, None))
        return Steps(lambda x: engine.get(program.run(store, (x,))["0"]), data, np.asarray)
    net = compiled(ul, w, dropout)
    objectives = steps.Objectives(loss=loss(ul, w))
    program = steps.train_program(net, objectives, steps.Batch(*data[0]))
    store = program.place(engine, device, steps.state_of(net, objectives))
    there = [(engine.put(list(batch), device),) for batch in data]

    def read(outputs: Any) -> Any:
        engine.synchronize()
        return engine.get(outputs["loss"])

    return Steps(partial(program.run, store), there, read)
