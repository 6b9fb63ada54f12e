"""Layers that move elements without computing: other shapes, other orders, padding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from unilayers import ops
from unilayers.errors import ShapeError, UnilayersError
from unilayers.hints import PositiveInt
from unilayers.layers.base import Layer
from unilayers.layers.spatial import DataFormat, Sides, Sizes, Spatial, per_axis, sides

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


class RepeatVector(Layer):
    """A vector again and again, as many steps in time.

    Shapes: x ``(batch, features)`` -> ``(batch, n, features)``.

    Args:
        n: How many times.

    Example:
        >>> import numpy as np
        >>> RepeatVector(3)(np.array([[1.0, 2.0]], "float32")).shape
        (1, 3, 2)
    """

    n: PositiveInt

    def check_input(self, x: Any) -> None:
        self.require_ndim(x, exactly=2)

    def call(self, x: Any) -> Any:
        batch, features = ops.shape_of(x)
        return ops.broadcast_to(ops.expand_dims(x, 1), (batch, self.n, features))


# ---- padding and cropping -----------------------------------------------------


class ZeroPadding(Spatial, abstract=True):
    """Base of the zero paddings: zeros before and after the elements of each spatial axis.

    Shapes: x ``(batch, *spatial, channels)`` -> ``(batch, *larger, channels)``; with "channels_first" the channels
    follow the batch.

    Args:
        padding: How many: one int for all sides, or per spatial axis an int or a pair (before, after). For one spatial
            axis: an int or a pair.
        data_format: "channels_last" (also None) or "channels_first".
    """

    padding: Sides = 1
    data_format: DataFormat = None

    def __post_init__(self) -> None:
        self.check_sides("padding")

    def compute(self, x: Any) -> Any:
        return ops.pad(x, [(0, 0), *sides(self.padding, self.rank), (0, 0)])


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


class Cropping(Spatial, abstract=True):
    """Base of the croppings: cuts elements from both ends of each spatial axis.

    Shapes: x ``(batch, *spatial, channels)`` -> ``(batch, *smaller, channels)``; with "channels_first" the channels
    follow the batch.

    Args:
        cropping: How many: one int for all sides, or per spatial axis an int or a pair (before, after). For one
            spatial axis: an int or a pair.
        data_format: "channels_last" (also None) or "channels_first"; not for one spatial axis.

    Raises:
        ShapeError: if nothing is left.
    """

    cropping: Sides = 1

    def __post_init__(self) -> None:
        self.check_sides("cropping")

    def compute(self, x: Any) -> Any:
        start, stop = [0] * len(ops.shape_of(x)), list(ops.shape_of(x))
        for axis, (before, after) in enumerate(sides(self.cropping, self.rank), 1):
            size = stop[axis]
            if isinstance(size, int) and before + after >= size:
                raise ShapeError(
                    "nothing is left",
                    expected=f"more than {before + after} elements on spatial axis {axis - 1}",
                    received=str(size),
                )
            start[axis], stop[axis] = before, size - after
        return ops.slice_(x, start=start, stop=stop, step=[1] * len(start))


class Cropping1D(Cropping):
    """Cuts both ends of one spatial axis. Arguments, shapes and errors as of ``Cropping``.

    Example:
        >>> import numpy as np
        >>> Cropping1D((2, 0))(np.arange(4.0).reshape(1, 4, 1)).ravel()
        array([2., 3.], dtype=float32)
    """

    rank = 1
    channels_first = False


class Cropping2D(Cropping):
    """Cuts a border from two spatial axes. Arguments, shapes and errors as of ``Cropping``.

    Example:
        >>> import numpy as np
        >>> Cropping2D(((0, 1), (2, 2)))(np.ones((1, 5, 8, 3), "float32")).shape
        (1, 4, 4, 3)
    """

    rank = 2
    cropping: Sides = 0
    data_format: DataFormat = None


class Cropping3D(Cropping):
    """Cuts a border from three spatial axes. Arguments, shapes and errors as of ``Cropping``."""

    rank = 3
    data_format: DataFormat = None


# ---- upsampling -----------------------------------------------------------------


class UpSampling(Spatial, abstract=True):
    """Base of the upsamplings: each element again and again along each spatial axis.

    Shapes: x ``(batch, *spatial, channels)`` -> ``(batch, *(spatial * size), channels)``; with "channels_first" the
    channels follow the batch.

    Args:
        size: How many times: one int, or one per spatial axis.
        data_format: "channels_last" (also None) or "channels_first"; not for one spatial axis.
    """

    size: Sizes = 2

    def __post_init__(self) -> None:
        self.check_sizes("size")

    def compute(self, x: Any) -> Any:
        return ops.upsample(x, per_axis(self.size, self.rank))


class UpSampling1D(UpSampling):
    """Each element of one spatial axis again and again. Arguments and shapes as of ``UpSampling``.

    Example:
        >>> import numpy as np
        >>> UpSampling1D()(np.array([1.0, 2.0]).reshape(1, 2, 1)).ravel()
        array([1., 1., 2., 2.], dtype=float32)
    """

    rank = 1
    channels_first = False


class UpSampling2D(UpSampling):
    """Larger images. Arguments and shapes as of ``UpSampling``.

    Args:
        interpolation: "nearest" repeats each element; "bilinear" draws straight lines between the centres of
            neighbours, and goes on evenly beyond the outermost.

    Example:
        >>> import numpy as np
        >>> UpSampling2D((1, 2), interpolation="bilinear")(np.array([0.0, 4.0]).reshape(1, 1, 2, 1)).ravel()
        array([0., 1., 3., 4.], dtype=float32)
    """

    rank = 2
    data_format: DataFormat = None
    interpolation: Literal["nearest", "bilinear"] = "nearest"

    def compute(self, x: Any) -> Any:
        return ops.upsample(x, per_axis(self.size, self.rank), linear=self.interpolation == "bilinear")


class UpSampling3D(UpSampling):
    """Larger volumes. Arguments and shapes as of ``UpSampling``."""

    rank = 3
    data_format: DataFormat = None
