"""The PyTorch backend: a graph runs as one straight line of aten calls, without autograd."""

from .backend import BACKEND

__all__ = ["BACKEND"]
