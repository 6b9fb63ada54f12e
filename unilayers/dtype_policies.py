"""Dtype policies: in which dtype a layer computes, and in which it keeps its weights.

A policy is a name: that of a dtype, for both, or ``"mixed_bfloat16"`` and ``"mixed_float16"``, which keep the weights
in float32 and compute in the shorter dtype. A layer takes one as ``dtype``; `config.set_dtype_policy` sets the default.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from unilayers.errors import DTypeError, nearest
from unilayers.spec import DTYPES, TEXT, dtype_name

MIXED = {"mixed_float16": "float16", "mixed_bfloat16": "bfloat16"}  # the dtype of computation; weights are float32


class DTypePolicy(str):
    """A policy, which is its name as a string: it can be given wherever a dtype's name can, and be saved as text.

    Args:
        name: A dtype's name, ``"mixed_float16"`` or ``"mixed_bfloat16"``; the default policy if None.

    Raises:
        DTypeError: for any other name.

    Reference:
        Micikevicius et al., Mixed Precision Training, 2018, arXiv 1710.03740.

    Example:
        >>> policy = DTypePolicy("mixed_bfloat16")
        >>> policy.compute_dtype, policy.variable_dtype, DTypePolicy("float64").compute_dtype
        ('bfloat16', 'float32', 'float64')
    """

    __slots__ = ()

    def __new__(cls, name: str | None = None) -> DTypePolicy:
        if name is None:
            from unilayers import config  # whose default is one of these

            name = config.dtype_policy()
        if not isinstance(name, str) or name not in (*DTYPES, TEXT, *MIXED):
            raise DTypeError(
                "not a dtype policy", expected=f"{', '.join(MIXED)}, or a dtype: {', '.join(DTYPES)}",
                received=f"{name!r} ({type(name).__name__})", fix=nearest(str(name), (*DTYPES, *MIXED)),
            )  # fmt: skip
        return super().__new__(cls, name)

    def __repr__(self) -> str:
        return f'<DTypePolicy "{self.name}">'

    @property
    def name(self) -> str:
        """The policy's name."""
        return str(self)

    @property
    def compute_dtype(self) -> str:
        """The dtype that inputs and weights are cast to, and in which a layer computes."""
        return MIXED.get(self, self.name)

    @property
    def variable_dtype(self) -> str:
        """The dtype that weights are kept and updated in."""
        return "float32" if self in MIXED else self.name

    def get_config(self) -> dict[str, str]:
        """The arguments."""
        return {"name": self.name}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> DTypePolicy:
        """The policy with that config."""
        return cls(**config)


FloatDTypePolicy = DTypePolicy


def get(identifier: Any) -> DTypePolicy:
    """The policy for a name, a dtype of any framework, what ``serialize`` gives, a policy, or None: the default one.

    Example:
        >>> import numpy as np
        >>> get("mixed_float16"), get(np.float32)
        (<DTypePolicy "mixed_float16">, <DTypePolicy "float32">)
    """
    if isinstance(identifier, DTypePolicy):
        return identifier
    if isinstance(identifier, Mapping):
        return deserialize(identifier)
    return DTypePolicy(identifier if identifier is None else dtype_name(identifier))


def serialize(dtype_policy: DTypePolicy) -> dict[str, Any]:
    """A policy as plain data.

    Example:
        >>> serialize(DTypePolicy("mixed_float16"))
        {'class_name': 'DTypePolicy', 'config': {'name': 'mixed_float16'}}
    """
    return {"class_name": "DTypePolicy", "config": dtype_policy.get_config()}


def deserialize(config: Mapping[str, Any], custom_objects: Mapping[str, Any] | None = None) -> DTypePolicy:
    """The policy of what ``serialize`` gave.

    Args:
        config: The data.
        custom_objects: Kept for Keras's signature; has no effect.
    """
    return DTypePolicy.from_config(config.get("config") or {})
