"""unilayers: define a neural network once; train, compare and ship it on any engine.

>>> import unilayers as ul
>>> from unilayers import layers
>>> model = ul.Sequential([ul.Input((8, 8, 1)), layers.Flatten(), layers.Dense(10)])
>>> model.compile(optimizer="adam", loss=ul.losses.SparseCategoricalCrossentropy(from_logits=True))
"""

from importlib.metadata import PackageNotFoundError, version

from unilayers import (
    activations,
    callbacks,
    config,
    data,
    errors,
    initializers,
    layers,
    losses,
    metrics,
    models,
    ops,
    optimizers,
    random,
    regularizers,
)
from unilayers.autodiff import GradientTape, grad, value_and_grad
from unilayers.backend import backend_names, get_backend, register_backend
from unilayers.layers import Input, Layer
from unilayers.models import Model, Sequential
from unilayers.random import set_random_seed
from unilayers.saving import load_model
from unilayers.variable import Variable

try:
    __version__ = version("unilayers")
except PackageNotFoundError:  # run from a checkout that is not installed
    __version__ = "0"

__all__ = [
    "GradientTape",
    "Input",
    "Layer",
    "Model",
    "Sequential",
    "Variable",
    "activations",
    "backend_names",
    "callbacks",
    "config",
    "data",
    "errors",
    "get_backend",
    "grad",
    "initializers",
    "layers",
    "load_model",
    "losses",
    "metrics",
    "models",
    "ops",
    "optimizers",
    "random",
    "register_backend",
    "regularizers",
    "set_random_seed",
    "value_and_grad",
]
