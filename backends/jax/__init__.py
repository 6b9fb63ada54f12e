"""The JAX backend: a graph runs as one ``jax.jit`` whose state is donated."""

from .backend import BACKEND

__all__ = ["BACKEND"]
