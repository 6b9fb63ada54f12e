"""oneDNN, where it is installed: a library of fast kernels for x86 processors, called through its C API.

- ``library``: the loaded file; its kernels as calls on arrays. Nothing there knows graphs.
- ``contract``: how a kernel of this backend uses them. ``products``, ``windows``, ``vectors``: the kernels.
- ``rules``: joins actions that it does in one piece.

``UNILAYERS_ONEDNN`` is read when a graph is compiled: ``off`` does without, ``on`` demands it, a path names the file.
``unilayers backends`` says what is in use. Its kernels run on OpenMP's threads (``OMP_NUM_THREADS``).
"""

from . import products, vectors, windows  # noqa: F401  (they fill the table of kernels)
from .contract import kernel
from .library import Library, in_use, library
from .rules import RULES

__all__ = ["RULES", "Library", "in_use", "kernel", "library"]
