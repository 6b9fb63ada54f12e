"""Keras 3, on the engine that ``KERAS_BACKEND`` names."""

from __future__ import annotations

import keras
import numpy as np

from benchmarks.suite.contestant import Contestant, Fit, Steps
from benchmarks.suite.models import compiled, model
from benchmarks.suite.workloads import Workload, batches


def build(w: Workload, engine: str, form: str = "fit", *, dropout: bool = True) -> Contestant:
    """A contestant.

    Args:
        w: The workload.
        engine: As ``KERAS_BACKEND`` says, too.
        form: ``fit``; ``batch``, ``train_on_batch`` or ``predict_on_batch``.
        dropout: Whether dropout is done.
    """
    assert keras.backend.backend() == engine
    if form == "fit":
        return Fit(compiled(keras, w, dropout), keras.callbacks.Callback, w)
    if not w.training:
        return Steps(model(keras, w).predict_on_batch, batches(w), np.asarray)
    net = compiled(keras, w, dropout)

    def step(x: np.ndarray, y: np.ndarray) -> float:
        net.reset_metrics()  # so that the loss is this batch's
        return net.train_on_batch(x, y)

    return Steps(step, batches(w), np.asarray)
