"""64-bit dtypes without touching JAX's switch for the whole process."""

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
