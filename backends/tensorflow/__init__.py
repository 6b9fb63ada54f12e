"""The TensorFlow backend: a graph runs as one ``tf.function``."""

from .backend import BACKEND

__all__ = ["BACKEND"]
