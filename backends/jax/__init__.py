"""The JAX backend: a graph runs as one ``jax.jit`` whose state is donated."""

from unilayers.backends.manners import same_environment

with same_environment():
    from .backend import BACKEND

__all__ = ["BACKEND"]
