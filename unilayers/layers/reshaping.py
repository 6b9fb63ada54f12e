"""Layers that move elements without computing: other shapes, other orders, padding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from unilayers import ops
from unilayers.errors import UnilayersError
from unilayers.hints import NonNegativeInt, PositiveInt
from unilayers.layers.base import Layer
from unilayers.layers.spatial import DataFormat, Spatial, per_axis

# ---- shapes -----------------------------------------------------------------


class Flatten(Layer):
    """Each sample as one vector, elements in row-major order with the channels last.

    Shapes: x ``(batch, ...)`` -> ``(batch, elements)``.

    Args:
        data_format: "channels_first" moves the axis after the batch to the end before flattening, so that the order
            of the elements does not depend on the data format.

    Example:
        >>> import numpy as np
        >>> Flatten()(np.ones((2, 3, 4), "float32")).shape
        (2, 12)
    """

    data_format: DataFormat = None

    def check_input(self, x: Any) -> None:
        self.require_ndim(x, at_least=1)

    def call(self, x: Any) -> Any:
        if self.data_format == "channels_first" and len(ops.shape_of(x)) > 1:
            x = ops.moveaxis(x, 1, -1)
        return ops.reshape(x, (ops.shape_of(x)[0], -1))


class Reshape(Layer):
    """Each sample in another shape, elements in row-major order.

    Shapes: x ``(batch, ...)`` -> ``(batch, *target_shape)``.

    Args:
        target_shape: Shape of a sample; one size may be -1 and follows from the others.

    Raises:
        ShapeError: if the number of elements differs.

    Example:
        >>> import numpy as np
        >>> Reshape((-1, 2))(np.ones((5, 6), "float32")).shape
        (5, 3, 2)
    """

    target_shape: Sequence[int]

    def __post_init__(self) -> None:
        if list(self.target_shape).count(-1) > 1 or any(d < -1 for d in self.target_shape):
            raise UnilayersError(
                "not a shape", where="Reshape.target_shape", expected="sizes, at most one of them -1",
                received=repr(self.target_shape),
            )  # fmt: skip

    def call(self, x: Any) -> Any:
        return ops.reshape(x, (ops.shape_of(x)[0], *self.target_shape))


class Permute(Layer):
    """The axes of each sample in another order.

    Shapes: output axis i is axis ``dims[i - 1]`` of x; axis 0 is the batch and stays.

    Args:
        dims: Each of 1, 2, ... once.

    Example:
        >>> import numpy as np
        >>> Permute((2, 1))(np.ones((5, 3, 4), "float32")).shape
        (5, 4, 3)
    """

    dims: Sequence[PositiveInt]

    def __post_init__(self) -> None:
        if sorted(self.dims) != list(range(1, len(self.dims) + 1)):
            raise UnilayersError(
                "not an order of axes", where="Permute.dims", expected=f"each of 1..{len(self.dims)} once",
                received=repr(self.dims),
            )  # fmt: skip

    def check_input(self, x: Any) -> None:
        self.require_ndim(x, exactly=len(self.dims) + 1)

    def call(self, x: Any) -> Any:
        return ops.permute_dims(x, (0, *self.dims))


# ---- padding ----------------------------------------------------------------


class ZeroPadding(Spatial, abstract=True):
    """Base of the zero paddings: zeros before and after the elements of each spatial axis.

    Shapes: x ``(batch, *spatial, channels)`` -> ``(batch, *larger, channels)``; with "channels_first" the channels
    follow the batch.

    Args:
        padding: How many: one int for all sides, or per spatial axis an int or a pair (before, after). For one spatial
            axis: an int or a pair.
        data_format: "channels_last" (also None) or "channels_first".
    """

    padding: NonNegativeInt | Sequence[NonNegativeInt | tuple[NonNegativeInt, NonNegativeInt]] = 1
    data_format: DataFormat = None

    def __post_init__(self) -> None:
        sides = 2 if self.rank == 1 else self.rank
        if isinstance(self.padding, Sequence) and len(self.padding) != sides:
            raise UnilayersError(
                "a value that does not fit", where=f"{type(self).__name__}.padding",
                expected=f"an int or {sides} entries", received=repr(self.padding),
            )  # fmt: skip

    def compute(self, x: Any) -> Any:
        sides: Sequence[Any] = [self.padding] if self.rank == 1 else per_axis(self.padding, self.rank)  # type: ignore[arg-type]
        pairs = [tuple(s) if isinstance(s, Sequence) else (s, s) for s in sides]
        return ops.pad(x, [(0, 0), *pairs, (0, 0)])


class ZeroPadding1D(ZeroPadding):
    """Zeros before and after one spatial axis. Arguments and shapes as of ``ZeroPadding``.

    Example:
        >>> import numpy as np
        >>> ZeroPadding1D((2, 0))(np.ones((1, 1, 1), "float32")).ravel()
        array([0., 0., 1.], dtype=float32)
    """

    rank = 1


class ZeroPadding2D(ZeroPadding):
    """Zeros around two spatial axes. Arguments and shapes as of ``ZeroPadding``.

    Example:
        >>> import numpy as np
        >>> ZeroPadding2D(((0, 1), (2, 2)))(np.ones((1, 4, 4, 3), "float32")).shape
        (1, 5, 8, 3)
    """

    rank = 2


class ZeroPadding3D(ZeroPadding):
    """Zeros around three spatial axes. Arguments and shapes as of ``ZeroPadding``."""

    rank = 3
