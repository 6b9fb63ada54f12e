"""Settings. The default float dtype and dtype policy are visible defaults that any ``dtype=`` argument overrides; of
some settings that Keras has there is one value here, and to set another is an error.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from unilayers.dtype_policies import DTypePolicy
from unilayers.dtype_policies import get as policy_of
from unilayers.errors import DTypeError, UnilayersError
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


# ---- what helpers tell

_INTERACTIVE: ContextVar[bool] = ContextVar("interactive", default=True)


def enable_interactive_logging() -> None:
    """Print what helpers tell (files found, files fetched, bars)."""
    _INTERACTIVE.set(True)


def disable_interactive_logging() -> None:
    """Send what helpers tell to Python's logger ``unilayers`` in place of the screen."""
    _INTERACTIVE.set(False)


def is_interactive_logging_enabled() -> bool:
    """Whether helpers print.

    Example:
        >>> is_interactive_logging_enabled()
        True
    """
    return _INTERACTIVE.get()


# ---- what is settled


def epsilon() -> float:
    """What losses, metrics and constraints add or clip by, so as not to divide by zero: 1e-7."""
    return 1e-7


def set_epsilon(value: float) -> None:
    """Only 1e-7 is accepted; layers and optimizers have an ``epsilon`` of their own.

    Raises:
        UnilayersError: for another value.
    """
    _only(epsilon(), value, "set_epsilon", "Give layers and optimizers their own epsilon=")


def image_data_format() -> str:
    """Where the channels of images are unless a layer's ``data_format`` says otherwise: ``channels_last``."""
    return "channels_last"


def set_image_data_format(data_format: str) -> None:
    """Only "channels_last" is accepted; a layer may have another ``data_format``.

    Raises:
        UnilayersError: for another one.
    """
    _only(image_data_format(), data_format, "set_image_data_format", "Give the layers data_format=")


def backend() -> str:
    """The name of the backend that is used where no other is asked for; `unilayers.get_backend` is the backend."""
    from unilayers.backend import default_name

    return default_name()


def _only(value: object, given: object, where: str, fix: str) -> None:
    if given != value:
        raise UnilayersError(
            "cannot be changed for all", where=where, expected=repr(value), received=repr(given), fix=fix
        )
