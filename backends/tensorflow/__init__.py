"""The TensorFlow backend: a graph runs as one ``tf.function``."""

import os

_LOG_LEVEL = "TF_CPP_MIN_LOG_LEVEL"
_chosen = _LOG_LEVEL in os.environ
os.environ.setdefault(_LOG_LEVEL, "3")  # TensorFlow reads it once, and would greet the user from C++
try:
    from .backend import BACKEND
finally:
    if not _chosen:
        del os.environ[_LOG_LEVEL]

__all__ = ["BACKEND"]
