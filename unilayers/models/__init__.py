"""Models: a stack of layers (Sequential), a graph of layers (functional), or your own ``call`` (subclass)."""

from unilayers.models.functional import Functional
from unilayers.models.model import Model
from unilayers.models.sequential import Sequential

__all__ = ["Functional", "Model", "Sequential"]
