"""The TensorFlow backend: a graph runs as one ``tf.function``."""

import os
from contextlib import nullcontext

from unilayers.backends.manners import same_environment, silence

# TensorFlow would greet the user from C++; who has chosen a level of logging shall see it.
_chosen = "TF_CPP_MIN_LOG_LEVEL" in os.environ
with same_environment(TF_CPP_MIN_LOG_LEVEL="3"), nullcontext() if _chosen else silence():
    from .backend import BACKEND

__all__ = ["BACKEND"]
