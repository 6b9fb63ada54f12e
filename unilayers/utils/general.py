"""Small helpers around training loops and scripts."""

from __future__ import annotations

import json
import random as python_random
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from unilayers import random
from unilayers.config import floatx
from unilayers.errors import DataError, UnilayersError
from unilayers.graph import Value
from unilayers.spec import INTS, check_dtype, dtype_name, is_float, promote

KerasTensor = Value  # Keras's name for a symbolic value


def set_random_seed(seed: int) -> None:
    """Set the default seed and those of Python's ``random`` and of NumPy, which scripts draw their data from.

    `unilayers.set_random_seed` sets the first alone. Frameworks' generators are left as they are: nothing here uses
    them.

    Raises:
        UnilayersError: if ``seed`` is not an int of at least 0.
    """
    random.set_random_seed(seed)
    python_random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002  (the one that scripts use)


def clear_session(free_memory: bool = True) -> None:
    """Nothing: there is no session. Names are given within each model, and a model goes with the last reference to it.

    Args:
        free_memory: Taken for the sake of scripts.
    """


@contextmanager
def name_scope(name: str, **kwargs: Any) -> Iterator[str]:
    """A block of code with a name for its reader; weights are named by the layers that own them.

    Args:
        name: The name.
        **kwargs: Taken for the sake of scripts.
    """
    yield name


def is_keras_tensor(x: Any) -> bool:
    """Whether x is a symbolic value, as ``Input`` makes them and layers give them back."""
    return isinstance(x, Value)


def standardize_dtype(dtype: Any) -> str:
    """The name of any framework's dtype; the default float dtype for None.

    Raises:
        DTypeError: for one that is not known here.

    Example:
        >>> standardize_dtype(np.float64), standardize_dtype(int), standardize_dtype(None)
        ('float64', 'int32', 'float32')
    """
    if dtype is None or dtype is float:
        return floatx()
    return check_dtype({int: "int32", bool: "bool"}.get(dtype) or dtype_name(dtype))


def result_type(*dtypes: Any) -> str:
    """The dtype that operands of these dtypes are brought to; Python's ``int`` and ``float`` give way to others.

    Example:
        >>> result_type("int64", "float16"), result_type("float16", float), result_type("int8", float)
        ('float16', 'float16', 'float32')
    """
    firm = [standardize_dtype(d) for d in dtypes if d not in (int, float, None)]
    found = promote(*firm) if firm else "bool"
    if any(d is float or d is None for d in dtypes) and not is_float(found):
        return floatx()
    return "int32" if int in dtypes and found == "bool" else found


def is_float_dtype(dtype: Any) -> bool:
    """Whether it is a float dtype."""
    return is_float(standardize_dtype(dtype))


def is_int_dtype(dtype: Any) -> bool:
    """Whether it is an integer dtype."""
    return standardize_dtype(dtype) in INTS


def get_source_inputs(tensor: Any) -> list[Any]:
    """The ``Input`` values that a symbolic value is computed from, each once.

    Example:
        >>> from unilayers import Input, layers
        >>> a, b = Input((2,), name="a"), Input((2,), name="b")
        >>> [v.node.attrs["name"] for v in get_source_inputs(layers.Add()([layers.Dense(2)(a), b]))]
        ['a', 'b']
    """
    found: dict[Any, None] = {}
    seen: set[int] = set()
    stack = [tensor]
    while stack:
        value = stack.pop()
        step = value.origin if value.origin is not None else value.node
        if value.origin is None and value.node.op == "input":
            found[value] = None
        elif id(step) not in seen:
            seen.add(id(step))
            stack.extend(reversed(step.inputs))
    return list(found)


def pack_x_y_sample_weight(x: Any, y: Any = None, sample_weight: Any = None) -> Any:
    """Data as ``fit`` takes it from an iterable: ``x``, ``(x, y)`` or ``(x, y, sample_weight)``.

    Example:
        >>> pack_x_y_sample_weight(1), pack_x_y_sample_weight([1, 2]), pack_x_y_sample_weight(1, 2)
        (1, ([1, 2],), (1, 2))
    """
    if y is None:
        return (x,) if isinstance(x, (tuple, list)) else x
    return (x, y) if sample_weight is None else (x, y, sample_weight)


def unpack_x_y_sample_weight(data: Any) -> tuple[Any, Any, Any]:
    """``(x, y, sample_weight)`` of what an iterable gives; None for what is not there.

    Raises:
        DataError: for a tuple or list of other than 1 to 3 parts.

    Example:
        >>> unpack_x_y_sample_weight((1, 2))
        (1, 2, None)
    """
    if not isinstance(data, (tuple, list)):
        return data, None, None
    if not 1 <= len(data) <= 3:
        expected = "x, (x,), (x, y) or (x, y, sample_weight)"
        raise DataError("not a batch", expected=expected, received=f"{len(data)} parts")
    x, y, weight = (*data, None, None)[:3]
    return x, y, weight


class Config(MutableMapping[str, Any]):
    """Named values, as attributes and as a dict, that can be frozen.

    Example:
        >>> config = Config(learning_rate=0.1)
        >>> config.epochs = 5
        >>> config["epochs"], config.to_json()
        (5, '{"learning_rate": 0.1, "epochs": 5}')
    """

    def __init__(self, **kwargs: Any) -> None:
        vars(self).update(_values=dict(kwargs), _frozen=False)

    @property
    def frozen(self) -> bool:
        """Whether changes are errors."""
        return bool(vars(self)["_frozen"])

    def freeze(self) -> None:
        """Make changes an error."""
        vars(self)["_frozen"] = True

    def unfreeze(self) -> None:
        """Allow changes again."""
        vars(self)["_frozen"] = False

    def as_dict(self) -> dict[str, Any]:
        """The values in a dict of their own."""
        return dict(vars(self)["_values"])

    def to_json(self) -> str:
        """The values as text."""
        return json.dumps(self.as_dict())

    def _writable(self) -> dict[str, Any]:
        if self.frozen:
            raise UnilayersError("the config is frozen", where="Config", fix="Call unfreeze() first")
        values: dict[str, Any] = vars(self)["_values"]
        return values

    def __getitem__(self, key: str) -> Any:
        return vars(self)["_values"][key]

    def __setitem__(self, key: str, value: Any) -> None:
        self._writable()[key] = value

    def __delitem__(self, key: str) -> None:
        del self._writable()[key]

    def __iter__(self) -> Iterator[str]:
        return iter(vars(self)["_values"])

    def __len__(self) -> int:
        return len(vars(self)["_values"])

    def __getattr__(self, name: str) -> Any:
        values = vars(self).get("_values", {})
        if name not in values:
            raise AttributeError(f"no value {name!r} in {self!r}")
        return values[name]

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value

    def __repr__(self) -> str:
        return f"Config({', '.join(f'{k}={v!r}' for k, v in vars(self).get('_values', {}).items())})"
