"""Kernels of our own for CUDA devices: C source made from a plan, compiled by CuPy, which keeps it on disk.

- ``expressions``: each elementwise op as an expression of C.
- ``program``: a few ops as one kernel will run them; ``source``: its text; ``launch``: the call.
- ``join``: which actions of a plan become one kernel; ``lowering``: what each of them is in a program.
- ``updates``, ``index``: optimizers over flat vectors, gradients of look-ups.
- ``branches``: no question to the host where both answers cost little.
- ``queue``: streams and recordings, with which a whole step becomes one launch.
"""

from .branches import without_branches
from .join import join
from .queue import CupyQueue

__all__ = ["CupyQueue", "join", "without_branches"]
