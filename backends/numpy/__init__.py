"""The embedded backend: NumPy on the CPU, CuPy on the GPU."""

from .backend import BACKEND

__all__ = ["BACKEND"]
