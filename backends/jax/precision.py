"""64-bit dtypes without touching JAX's switch for the whole process.

What runs inside our functions keeps its 64 bits. A user's own JAX code stays as it was, also on our arrays: float64
``array * 0.1`` is JAX's own product, float32 and with JAX's warning unless its switch is on. ``ops.multiply`` is ours.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import jax


def in_64_bits(function: Callable[..., Any]) -> Callable[..., Any]:
    """``function``, run with 64-bit dtypes allowed: in this thread, and only until it returns."""

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        with jax.enable_x64(True):
            return function(*args, **kwargs)

    return call
