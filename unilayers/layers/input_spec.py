"""What a layer says about its input: ``InputSpec``, and the check against it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

from unilayers import ops
from unilayers.errors import DTypeError, ShapeError, UnilayersError
from unilayers.spec import check_dtype, public_shape
from unilayers.structure import leaves_of


@dataclass(frozen=True)
class InputSpec:
    """What an input of a layer must be, for the attribute ``input_spec`` of a layer: each call is checked against it.

    Args:
        dtype: Its dtype, after floats were brought to the layer's.
        shape: Its shape, the batch included; None where any size will do.
        ndim: How many axes it has; that of ``shape`` if that is given.
        max_ndim: How many it has at most.
        min_ndim: How many it has at least.
        axes: Sizes by axis; None: any.
        allow_last_axis_squeeze: Whether a last axis of size 1 may be there or not.
        name: Its key, where the layer is called with a dict.
        optional: Whether None may stand in its place.

    Raises:
        UnilayersError: for an axis that an input of so many axes does not have.

    Example:
        >>> from unilayers.layers import Layer
        >>> class Pairs(Layer):
        ...     input_spec = InputSpec(ndim=2, axes={-1: 2})
        ...     def call(self, x):
        ...         return x
        >>> import numpy as np
        >>> Pairs()(np.ones((4, 2))).shape
        (4, 2)
    """

    dtype: str | None = None
    shape: Sequence[int | None] | None = None
    ndim: int | None = None
    max_ndim: int | None = None
    min_ndim: int | None = None
    axes: Mapping[int, int | None] | None = None
    allow_last_axis_squeeze: bool = False
    name: str | None = None
    optional: bool = False

    def __post_init__(self) -> None:
        if self.dtype is not None:
            object.__setattr__(self, "dtype", check_dtype(self.dtype))
        if self.shape is not None:
            object.__setattr__(self, "shape", tuple(self.shape))
            object.__setattr__(self, "ndim", len(self.shape))
        object.__setattr__(self, "axes", {int(a): n for a, n in (self.axes or {}).items()})
        most = self.ndim if self.ndim is not None else self.max_ndim
        if most is not None and any(not -most <= a < most for a in self.axes or ()):
            raise UnilayersError(
                "no such axis",
                where="InputSpec.axes",
                expected=f"axes of an input with {most}",
                received=str(self.axes),
            )

    def __repr__(self) -> str:
        derived = {"ndim"} if self.shape is not None else set()
        given = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in derived}
        return f"InputSpec({', '.join(f'{k}={v!r}' for k, v in given.items() if v)})"

    def get_config(self) -> dict[str, Any]:
        """The arguments."""
        return asdict(self)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """The spec with these arguments."""
        return cls(**config)

    def allows_shape(self, shape: Sequence[int | None]) -> bool:
        """Whether an input may have this shape; None, a size not known yet, fits everywhere.

        Example:
            >>> InputSpec(shape=(None, 28, 1), allow_last_axis_squeeze=True).allows_shape((5, 28))
            True
        """
        n, wanted = len(shape), self.shape
        if self.ndim is not None and n != self.ndim and not self.allow_last_axis_squeeze:
            return False
        if not (self.min_ndim or 0) <= n <= (n if self.max_ndim is None else self.max_ndim):
            return False
        if any(
            not -n <= a < n or not _fit(size, shape[a]) for a, size in (self.axes or {}).items() if size is not None
        ):
            return False
        if wanted is None:
            return True
        if self.allow_last_axis_squeeze:
            shape, wanted = (s[:-1] if len(s) and s[-1] == 1 else s for s in (shape, wanted))
        return len(wanted) == len(shape) and all(map(_fit, wanted, shape))


def _fit(wanted: int | None, size: int | None) -> bool:
    return wanted is None or size is None or wanted == size


def check_inputs(specs: Any, inputs: Any) -> None:
    """Raise unless the inputs fit the specs, which are nested as they are.

    Args:
        specs: An ``InputSpec``, or several in lists and dicts; None in the place of one: anything.
        inputs: The first argument of a layer.

    Raises:
        ShapeError: for another shape.
        DTypeError: for another dtype.
        UnilayersError: for another number of inputs, or a key that is missing.
    """
    wanted = leaves_of(specs)
    names = [spec.name for spec in wanted if spec is not None and spec.name]
    if isinstance(inputs, Mapping) and len(names) == len(wanted):
        if missing := [n for n in names if n not in inputs]:
            raise UnilayersError(
                f"no input {missing[0]!r}",
                expected=f"the keys {', '.join(names)}",
                received=", ".join(map(str, inputs)),
            )
        inputs = [inputs[n] for n in names]
    given = leaves_of(inputs)
    if len(given) != len(wanted):
        raise UnilayersError("another number of inputs", expected=str(len(wanted)), received=str(len(given)))
    for x, spec in zip(given, wanted, strict=True):
        if spec is None or (x is None and spec.optional):
            continue
        shape = public_shape(ops.shape_of(x))
        if not spec.allows_shape(shape):
            raise ShapeError("an input does not fit", expected=repr(spec), received=str(shape))
        if spec.dtype is not None and ops.dtype_of(x) != spec.dtype:
            raise DTypeError("an input does not fit", expected=repr(spec), received=ops.dtype_of(x))
