"""What layers over spatial axes share: the axes' number, and where the channels are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal, TypeAlias

from unilayers import ops
from unilayers.errors import UnilayersError
from unilayers.hints import NonNegativeInt, PositiveInt
from unilayers.layers.base import Layer

DataFormat: TypeAlias = Literal["channels_last", "channels_first"] | None
Sizes: TypeAlias = PositiveInt | Sequence[PositiveInt]
Sides: TypeAlias = NonNegativeInt | Sequence[NonNegativeInt | tuple[NonNegativeInt, NonNegativeInt]]


class Spatial(Layer, abstract=True):
    """Base of layers over ``rank`` spatial axes that compute with the channels last.

    A subclass declares the field ``data_format`` and computes in ``compute(x)``, for which x is
    ``(batch, *spatial, channels)`` whatever the data format is.
    """

    rank: ClassVar[int]

    def check_input(self, x: Any) -> None:
        self.require_ndim(x, exactly=self.rank + 2)

    @property
    def channels_first(self: Any) -> bool:
        """Whether the channels are the axis after the batch."""
        return self.data_format == "channels_first"

    def compute(self, x: Any) -> Any:
        """The output for channels-last x."""
        raise NotImplementedError

    def call(self, x: Any) -> Any:
        if not self.channels_first:
            return self.compute(x)
        return ops.moveaxis(self.compute(ops.moveaxis(x, 1, -1)), -1, 1)

    def check_steps(self: Any) -> None:
        """Raise unless ``strides`` and ``dilation_rate`` fit, and at most one of them is above 1."""
        self.check_sizes("strides", "dilation_rate")
        if max(per_axis(self.strides, self.rank)) > 1 and max(per_axis(self.dilation_rate, self.rank)) > 1:
            raise UnilayersError("strides and dilation_rate are both above 1", where=repr(self))

    def check_sizes(self, *names: str) -> None:
        """Raise unless each of these fields is one int, or one per spatial axis."""
        for name in names:
            value = getattr(self, name)
            if isinstance(value, Sequence) and len(value) != self.rank:
                raise UnilayersError(
                    "a value that does not fit",
                    where=f"{type(self).__name__}.{name}",
                    expected=f"an int or {self.rank} ints",
                    received=repr(value),
                )

    def check_sides(self, name: str) -> None:
        """Raise unless this field is an int or, per spatial axis, an int or a pair; for one axis, an int or a pair."""
        value, entries = getattr(self, name), 2 if self.rank == 1 else self.rank
        if isinstance(value, Sequence) and len(value) != entries:
            raise UnilayersError(
                "a value that does not fit",
                where=f"{type(self).__name__}.{name}",
                expected=f"an int or {entries} entries",
                received=repr(value),
            )


def per_axis(value: int | Sequence[int], rank: int) -> tuple[int, ...]:
    """``value`` once per spatial axis.

    Example:
        >>> per_axis(3, 2), per_axis([2, 1], 2)
        ((3, 3), (2, 1))
    """
    return tuple(value) if isinstance(value, Sequence) else (value,) * rank


def sides(value: Any, rank: int) -> list[tuple[int, int]]:
    """``Sides`` as one pair (before, after) per spatial axis.

    Example:
        >>> sides(1, 2), sides([(0, 1), 2], 2), sides((2, 0), 1)
        ([(1, 1), (1, 1)], [(0, 1), (2, 2)], [(2, 0)])
    """
    each = [value] if rank == 1 else per_axis(value, rank)
    return [(s[0], s[1]) if isinstance(s, Sequence) else (s, s) for s in each]
