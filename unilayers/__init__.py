"""unilayers: define a neural network once; train, compare and ship it on any engine.

>>> import unilayers as ul
>>> from unilayers import layers
>>> model = ul.Sequential([ul.Input((8, 8, 1)), layers.Flatten(), layers.Dense(10)])
>>> model.compile(optimizer="adam", loss=ul.losses.SparseCategoricalCrossentropy(from_logits=True))

Names are loaded when they are first used, so that the command line starts at once.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unilayers import (
        activations,
        backend,
        callbacks,
        config,
        constraints,
        data,
        datasets,
        dtype_policies,
        errors,
        initializers,
        layers,
        losses,
        metrics,
        mixed_precision,
        models,
        ops,
        optimizers,
        preprocessing,
        random,
        regularizers,
        saving,
        tree,
        utils,
    )
    from unilayers.autodiff import GradientTape, grad, hessian, jacobian, value_and_grad
    from unilayers.backend import backend_names, get_backend, register_backend
    from unilayers.dtype_policies import DTypePolicy
    from unilayers.folding import fold
    from unilayers.functions import function
    from unilayers.initializers import Initializer
    from unilayers.layers import Input, InputSpec, Layer
    from unilayers.losses import Loss
    from unilayers.metrics import Metric
    from unilayers.models import Model, Sequential
    from unilayers.ops import checkpoint, custom_gradient
    from unilayers.ops import checkpoint as remat
    from unilayers.optimizers import Optimizer
    from unilayers.random import set_random_seed
    from unilayers.regularizers import Regularizer
    from unilayers.saving import load_model
    from unilayers.utils.general import KerasTensor, name_scope
    from unilayers.variable import StatelessScope, Variable

_HOME = {
    "DTypePolicy": "dtype_policies",
    "GradientTape": "autodiff",
    "Initializer": "initializers",
    "Input": "layers",
    "InputSpec": "layers",
    "KerasTensor": "utils.general",
    "Layer": "layers",
    "Loss": "losses",
    "Metric": "metrics",
    "Model": "models",
    "Optimizer": "optimizers",
    "Regularizer": "regularizers",
    "Sequential": "models",
    "StatelessScope": "variable",
    "Variable": "variable",
    "backend_names": "backend",
    "checkpoint": "ops",
    "custom_gradient": "ops",
    "fold": "folding",
    "function": "functions",
    "get_backend": "backend",
    "grad": "autodiff",
    "hessian": "autodiff",
    "jacobian": "autodiff",
    "load_model": "saving",
    "name_scope": "utils.general",
    "register_backend": "backend",
    "remat": "ops",
    "set_random_seed": "random",
    "value_and_grad": "autodiff",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        try:
            return version("unilayers")
        except PackageNotFoundError:  # run from a checkout that is not installed
            return "0"
    if name in _HOME:
        value = getattr(import_module(f"unilayers.{_HOME[name]}"), {"remat": "checkpoint"}.get(name, name))
    elif name in __all__:
        value = import_module(f"unilayers.{name}")
    else:
        raise AttributeError(f"module 'unilayers' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])


__all__ = [
    "DTypePolicy",
    "GradientTape",
    "Initializer",
    "Input",
    "InputSpec",
    "KerasTensor",
    "Layer",
    "Loss",
    "Metric",
    "Model",
    "Optimizer",
    "Regularizer",
    "Sequential",
    "StatelessScope",
    "Variable",
    "activations",
    "backend",
    "backend_names",
    "callbacks",
    "checkpoint",
    "config",
    "constraints",
    "custom_gradient",
    "data",
    "datasets",
    "dtype_policies",
    "errors",
    "fold",
    "function",
    "get_backend",
    "grad",
    "hessian",
    "initializers",
    "jacobian",
    "layers",
    "load_model",
    "losses",
    "metrics",
    "mixed_precision",
    "models",
    "name_scope",
    "ops",
    "optimizers",
    "preprocessing",
    "random",
    "register_backend",
    "regularizers",
    "remat",
    "saving",
    "set_random_seed",
    "tree",
    "utils",
    "value_and_grad",
]
