"""Optimizers, and the schedules of their learning rates."""

from unilayers.optimizers import schedules
from unilayers.optimizers.adam import Adam, Adamax, AdamW, Lamb, Nadam, ScheduleFreeAdamW
from unilayers.optimizers.base import Optimizer, deserialize, get, serialize
from unilayers.optimizers.classic import SGD, Adadelta, Adagrad, Ftrl, RMSprop
from unilayers.optimizers.loss_scale import LossScaleOptimizer
from unilayers.optimizers.others import Adafactor, Lion, Muon

__all__ = [
    "SGD",
    "Adadelta",
    "Adafactor",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "Ftrl",
    "Lamb",
    "Lion",
    "LossScaleOptimizer",
    "Muon",
    "Nadam",
    "Optimizer",
    "RMSprop",
    "ScheduleFreeAdamW",
    "deserialize",
    "get",
    "schedules",
    "serialize",
]
