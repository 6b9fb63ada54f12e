"""The default float dtype and dtype policy: visible defaults that any ``dtype=`` argument overrides."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from unilayers.dtype_policies import DTypePolicy
from unilayers.dtype_policies import get as policy_of
from unilayers.errors import DTypeError
from unilayers.spec import FLOATS, dtype_name

_FLOATX: ContextVar[str] = ContextVar("floatx", default="float32")
_POLICY: ContextVar[DTypePolicy | None] = ContextVar("dtype_policy", default=None)


def floatx() -> str:
    """The dtype of new weights and float inputs, ``float32`` unless changed."""
    return _FLOATX.get()


def set_floatx(dtype: str) -> None:
    """Change the default float dtype, for example to ``float64``."""
    _FLOATX.set(_check(dtype))


def dtype_policy() -> DTypePolicy:
    """The policy of layers that are made without ``dtype``: that of the default float dtype unless one was set.

    Example:
        >>> dtype_policy()
        <DTypePolicy "float32">
    """
    return _POLICY.get() or DTypePolicy(floatx())


def set_dtype_policy(policy: str | DTypePolicy) -> None:
    """Change the default policy, for example to ``mixed_bfloat16``. Layers that are there already keep theirs.

    Args:
        policy: A policy or its name; see `dtype_policies.DTypePolicy`.
    """
    _POLICY.set(policy_of(policy))


@contextmanager
def dtype_scope(dtype: str | None) -> Iterator[None]:
    """Use another default inside a ``with`` block; None changes nothing.

    Args:
        dtype: A float dtype, or a policy, whose variables' dtype then is the default float dtype.

    Example:
        >>> with dtype_scope("float64"):
        ...     floatx()
        'float64'
        >>> with dtype_scope("mixed_bfloat16"):
        ...     floatx(), dtype_policy()
        ('float32', <DTypePolicy "mixed_bfloat16">)
    """
    policy = policy_of(dtype) if dtype else None
    tokens = _FLOATX.set(_check(policy.variable_dtype) if policy else floatx()), _POLICY.set(policy or _POLICY.get())
    try:
        yield
    finally:
        _FLOATX.reset(tokens[0])
        _POLICY.reset(tokens[1])


def _check(dtype: str) -> str:
    name = dtype_name(dtype)
    if name not in FLOATS:
        raise DTypeError(f"{name!r} is not a float dtype", expected=" or ".join(FLOATS))
    return name
