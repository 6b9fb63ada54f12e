"""The default float dtype: a visible default that any ``dtype=`` argument overrides."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from unilayers.errors import DTypeError
from unilayers.spec import FLOATS, dtype_name

_FLOATX: ContextVar[str] = ContextVar("floatx", default="float32")


def floatx() -> str:
    """The dtype of new weights and float inputs, ``float32`` unless changed."""
    return _FLOATX.get()


def set_floatx(dtype: str) -> None:
    """Change the default float dtype, for example to ``float64``."""
    _FLOATX.set(_check(dtype))


@contextmanager
def dtype_scope(dtype: str | None) -> Iterator[None]:
    """Use another default float dtype inside a ``with`` block; None changes nothing.

    Example:
        >>> with dtype_scope("float64"):
        ...     floatx()
        'float64'
    """
    token = _FLOATX.set(_check(dtype) if dtype else floatx())
    try:
        yield
    finally:
        _FLOATX.reset(token)


def _check(dtype: str) -> str:
    name = dtype_name(dtype)
    if name not in FLOATS:
        raise DTypeError(f"{name!r} is not a float dtype", expected=" or ".join(FLOATS))
    return name
