"""Kernels: how each op runs into memory that is there already, without allocating."""

from unilayers.graph import OPS

from . import conv, elementwise, index, linalg, optimizer, pool, random, reduce, shape, softmax, special  # noqa: F401  (they fill KERNELS)
from .contract import KERNELS, Kernel, Rehearsal, eager, from_function

FUSED = [name for name in KERNELS if name in OPS and OPS[name].composite]  # composite ops that run in one piece

__all__ = ["FUSED", "KERNELS", "Kernel", "Rehearsal", "eager", "from_function"]
