"""Models: a stack of layers (Sequential), a graph of layers (functional), or your own ``call`` (subclass)."""

from unilayers.models.copying import clone_model, load_model, model_from_json, save_model
from unilayers.models.functional import Functional
from unilayers.models.model import Model
from unilayers.models.sequential import Sequential

__all__ = ["Functional", "Model", "Sequential", "clone_model", "load_model", "model_from_json", "save_model"]
