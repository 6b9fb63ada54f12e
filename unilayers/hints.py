"""Values against annotations: the checks that a class gets from having declared its fields.

Only plain annotations are judged (numbers, strings, ``Literal``, unions, sequences, ``Annotated[..., Bounds]``); where
an annotation cannot be judged, any value passes. The same annotations make the recipe's JSON Schema.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import numpy as np

from .errors import UnilayersError


@dataclass(frozen=True)
class Bounds:
    """Bounds of a number, for use as ``Annotated[int, Bounds(ge=1)]``; pydantic reads them as its own.

    Args:
        ge: The value is at least this.
        gt: The value is greater than this.
        le: The value is at most this.
        lt: The value is less than this.

    Example:
        >>> str(Bounds(ge=0, lt=1)), Bounds(ge=0, lt=1).hold(1.0)
        ('at least 0 and less than 1', False)
    """

    ge: float | None = None
    gt: float | None = None
    le: float | None = None
    lt: float | None = None

    def hold(self, value: float) -> bool:
        """Whether ``value`` is within the bounds; NaN never is."""
        return (
            (self.ge is None or value >= self.ge)
            and (self.gt is None or value > self.gt)
            and (self.le is None or value <= self.le)
            and (self.lt is None or value < self.lt)
        )

    def __str__(self) -> str:
        words = {"at least": self.ge, "greater than": self.gt, "at most": self.le, "less than": self.lt}
        return " and ".join(f"{word} {bound:g}" for word, bound in words.items() if bound is not None)

    # The two names by which pydantic recognises metadata that stands for several of its own bounds.
    __is_annotated_types_grouped_metadata__ = True

    def __iter__(self) -> Iterator[Any]:
        import annotated_types

        for kind in ("ge", "gt", "le", "lt"):
            if (bound := getattr(self, kind)) is not None:
                yield getattr(annotated_types, kind.capitalize())(bound)


PositiveInt = Annotated[int, Bounds(ge=1)]
NonNegativeInt = Annotated[int, Bounds(ge=0)]
PositiveFloat = Annotated[float, Bounds(gt=0)]
NonNegativeFloat = Annotated[float, Bounds(ge=0)]
NonPositiveFloat = Annotated[float, Bounds(le=0)]
Probability = Annotated[float, Bounds(ge=0, le=1)]
Fraction = Annotated[float, Bounds(ge=0, lt=1)]


def fits(value: Any, hint: Any) -> bool:
    """Whether ``value`` may stand where ``hint`` is written; lists and tuples are one kind, as YAML has only lists.

    Example:
        >>> fits(3, PositiveInt), fits(0, PositiveInt), fits([2, 2], tuple[int, int] | int), fits("3", int | None)
        (True, False, True, False)
    """
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        bounds = [a for a in hint.__metadata__ if isinstance(a, Bounds)]
        return fits(value, arguments[0]) and all(b.hold(value) for b in bounds)
    if origin in (Union, types.UnionType):
        return any(fits(value, option) for option in arguments)
    if origin is Literal:
        return any(value == option and type(value) is type(option) for option in arguments)
    if hint in _SCALARS:
        return _SCALARS[hint](value)
    return _fits_container(value, origin or hint, arguments)


def describe(hint: Any) -> str:
    """``hint`` in the words of an error message.

    Example:
        >>> describe(Literal["same", "valid"] | None), describe(tuple[PositiveInt, PositiveInt])
        ("'same' or 'valid' or None", 'list of 2: an int at least 1, an int at least 1')
    """
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return " ".join([describe(arguments[0]), *(str(a) for a in hint.__metadata__ if isinstance(a, Bounds))])
    if origin in (Union, types.UnionType):
        return " or ".join(describe(option) for option in arguments)
    if origin is Literal:
        return " or ".join(repr(option) for option in arguments)
    if origin in _SEQUENCES:
        if origin is tuple and Ellipsis not in arguments:
            return f"list of {len(arguments)}: {', '.join(describe(a) for a in arguments)}"
        return f"list of: {describe(arguments[0])}"
    if origin is Callable:
        return "a function"
    names = {int: "an int", float: "a number", bool: "true or false", str: "a string", type(None): "None"}
    return names.get(hint) or str(getattr(origin or hint, "__name__", hint))


def check_value(value: Any, hint: Any, where: str) -> None:
    """Raise a UnilayersError at ``where`` unless ``value`` fits ``hint``."""
    if not fits(value, hint):
        shown = repr(value) if len(repr(value)) <= 80 else f"{repr(value)[:80]}..."
        raise UnilayersError(
            "a value that does not fit",
            where=where,
            expected=describe(hint),
            received=f"{shown} ({type(value).__name__})",
        )


_SEQUENCES = (list, tuple, Sequence)
_SCALARS: dict[Any, Callable[[Any], bool]] = {
    Any: lambda value: True,
    None: lambda value: value is None,
    type(None): lambda value: value is None,
    bool: lambda value: isinstance(value, (bool, np.bool_)),
    int: lambda value: isinstance(value, Integral) and not isinstance(value, bool),
    # Whatever turns into one number: NumPy scalars and 0-d tensors of any engine too.
    float: lambda value: (
        hasattr(value, "__float__") and not isinstance(value, (bool, np.bool_)) and getattr(value, "ndim", 0) == 0
    ),
    str: lambda value: isinstance(value, str),
}


def _fits_container(value: Any, kind: Any, arguments: tuple[Any, ...]) -> bool:
    """Sequences item by item, mappings and callables by kind, classes by isinstance; what cannot be judged passes."""
    if kind in _SEQUENCES:
        if not isinstance(value, (list, tuple)):
            return False
        if kind is tuple and arguments and Ellipsis not in arguments:
            return len(value) == len(arguments) and all(map(fits, value, arguments))
        return not arguments or all(fits(item, arguments[0]) for item in value)
    if kind in (dict, Mapping):
        return isinstance(value, Mapping)
    if kind is Callable:
        return callable(value)
    if not isinstance(kind, type) or isinstance(value, kind):
        return True
    # Where an object of a family may stand, so may what names one; the family's own resolve judges it.
    return hasattr(kind, "registry") and isinstance(value, (str, Mapping, type))
