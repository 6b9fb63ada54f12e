"""The embedded backend: NumPy on the CPU, CuPy on the GPU.

A graph becomes one flat Python function without allocations, in these rooms:

- ``table``: each op as a plain function, for eager use and where there is no kernel (``windows``, ``special``: parts).
- ``kernels``: each op as calls that write into given memory, said once for the compiler and for eager use.
- ``onednn``: kernels and rules that let oneDNN do the work, where it is installed.
- ``fuse``: rewrites for this backend alone: numbers before arrays, neighbours joined into one kernel.
- ``plan``: which values are views, whose memory a result takes over, when each is alive. Its parts: ``action``, what is
  planned; ``views``, ops that only look; ``direct``, inputs read in place; ``state``, new state over old; ``order``,
  what comes when; ``arena``, where everything lies.
- ``emit``: the plan as source text; ``link``: its memory, and the state arrays that the text is bound to.
- ``backend``: the hooks.
"""

from .backend import BACKEND

__all__ = ["BACKEND"]
