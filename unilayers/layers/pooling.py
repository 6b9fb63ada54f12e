"""Pooling: the maximum or the mean over windows, or over all of the spatial axes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal, TypeAlias

from unilayers import ops
from unilayers.hints import NonNegativeInt
from unilayers.layers.spatial import DataFormat, Sizes, Spatial

Padding: TypeAlias = (
    Literal["valid", "same"] | NonNegativeInt | Sequence[NonNegativeInt | tuple[NonNegativeInt, NonNegativeInt]]
)

# ---- over windows -----------------------------------------------------------


class Pooling(Spatial, abstract=True):
    """Base of the poolings over windows.

    Shapes: x ``(batch, *spatial, channels)`` -> ``(batch, *new_spatial, channels)``; with "channels_first" the
    channels follow the batch.

    Args:
        pool_size: Size of the window: one int, or one per spatial axis.
        strides: Steps between windows, likewise; None: as the window, so that windows touch.
        padding: "valid" drops what fills no window; "same" pads so that the output has ``ceil(size / stride)``
            elements; or how much to pad: an int, or per axis an int or a pair (low, high). Padding never counts: it
            cannot be the maximum, and is not part of a mean.
        data_format: "channels_last" (also None) or "channels_first".

    Raises:
        ShapeError: if x has the wrong number of axes, or is smaller than the window.
    """

    pool: ClassVar[Callable[..., Any]]

    pool_size: Sizes = 2
    strides: Sizes | None = None
    padding: Padding = "valid"
    data_format: DataFormat = None

    def __post_init__(self) -> None:
        self.check_sizes("pool_size", "strides", *(["padding"] if not isinstance(self.padding, str) else []))

    def compute(self, x: Any) -> Any:
        return type(self).pool(x, self.pool_size, self.strides, self.padding)


class _Max(Pooling):
    """The largest element of each window."""

    pool = ops.max_pool


class _Average(Pooling):
    """The mean of each window."""

    pool = ops.avg_pool


class MaxPooling1D(_Max, aliases=("MaxPool1D",)):
    """The maximum over windows of one spatial axis. Arguments, shapes and errors as of ``Pooling``.

    Example:
        >>> import numpy as np
        >>> MaxPooling1D()(np.array([1.0, 3.0, 2.0, 5.0]).reshape(1, 4, 1)).ravel()
        array([3., 5.], dtype=float32)
    """

    rank = 1


class MaxPooling2D(_Max, aliases=("MaxPool2D",)):
    """The maximum over windows of two spatial axes. Arguments, shapes and errors as of ``Pooling``.

    Example:
        >>> import numpy as np
        >>> MaxPooling2D(3, strides=2, padding="same")(np.ones((2, 9, 8, 4), "float32")).shape
        (2, 5, 4, 4)
    """

    rank = 2


class MaxPooling3D(_Max, aliases=("MaxPool3D",)):
    """The maximum over windows of three spatial axes. Arguments, shapes and errors as of ``Pooling``."""

    rank = 3


class AveragePooling1D(_Average, aliases=("AvgPool1D",)):
    """The mean over windows of one spatial axis. Arguments, shapes and errors as of ``Pooling``.

    Example:
        >>> import numpy as np
        >>> AveragePooling1D(padding="same")(np.array([1.0, 3.0, 5.0]).reshape(1, 3, 1)).ravel()
        array([2., 5.], dtype=float32)
    """

    rank = 1


class AveragePooling2D(_Average, aliases=("AvgPool2D",)):
    """The mean over windows of two spatial axes. Arguments, shapes and errors as of ``Pooling``.

    Example:
        >>> import numpy as np
        >>> AveragePooling2D((2, 4))(np.ones((2, 8, 8, 4), "float32")).shape
        (2, 4, 2, 4)
    """

    rank = 2


class AveragePooling3D(_Average, aliases=("AvgPool3D",)):
    """The mean over windows of three spatial axes. Arguments, shapes and errors as of ``Pooling``."""

    rank = 3


# ---- over a given number of windows -----------------------------------------


class AdaptivePooling(Spatial, abstract=True):
    """Base of the poolings to a given size: of n elements, window i of k reaches from ``floor(i n / k)`` to
    ``ceil((i + 1) n / k)``.

    Shapes: x ``(batch, *spatial, channels)`` -> ``(batch, *output_size, channels)``; with "channels_first" the
    channels follow the batch.

    Args:
        output_size: How many windows: one int, or one per spatial axis.
        data_format: "channels_last" (also None) or "channels_first".

    Raises:
        ShapeError: if x has the wrong number of axes, or a spatial size that is not known.
    """

    pool: ClassVar[Callable[..., Any]]

    output_size: Sizes
    data_format: DataFormat = None

    def __post_init__(self) -> None:
        self.check_sizes("output_size")

    def compute(self, x: Any) -> Any:
        return type(self).pool(x, self.output_size)


class _AdaptiveMax(AdaptivePooling):
    """The largest element of each window."""

    pool = ops.adaptive_max_pool


class _AdaptiveAverage(AdaptivePooling):
    """The mean of each window."""

    pool = ops.adaptive_avg_pool


class AdaptiveMaxPooling1D(_AdaptiveMax):
    """The maximum over so many windows of one spatial axis. Arguments, shapes and errors as of ``AdaptivePooling``.

    Example:
        >>> import numpy as np
        >>> AdaptiveMaxPooling1D(2)(np.array([1.0, 3.0, 2.0, 5.0, 4.0]).reshape(1, 5, 1)).ravel()
        array([3., 5.], dtype=float32)
    """

    rank = 1


class AdaptiveMaxPooling2D(_AdaptiveMax):
    """The maximum over so many windows of two spatial axes. Arguments, shapes and errors as of ``AdaptivePooling``."""

    rank = 2


class AdaptiveMaxPooling3D(_AdaptiveMax):
    """The maximum over so many windows of three spatial axes. Arguments, shapes and errors as of
    ``AdaptivePooling``."""

    rank = 3


class AdaptiveAveragePooling1D(_AdaptiveAverage):
    """The mean over so many windows of one spatial axis. Arguments, shapes and errors as of ``AdaptivePooling``."""

    rank = 1


class AdaptiveAveragePooling2D(_AdaptiveAverage):
    """The mean over so many windows of two spatial axes. Arguments, shapes and errors as of ``AdaptivePooling``.

    Example:
        >>> import numpy as np
        >>> AdaptiveAveragePooling2D((2, 3))(np.ones((2, 8, 7, 4), "float32")).shape
        (2, 2, 3, 4)
    """

    rank = 2


class AdaptiveAveragePooling3D(_AdaptiveAverage):
    """The mean over so many windows of three spatial axes. Arguments, shapes and errors as of ``AdaptivePooling``."""

    rank = 3


# ---- over everything --------------------------------------------------------


class GlobalPooling(Spatial, abstract=True):
    """Base of the poolings over all spatial axes.

    Shapes: x ``(batch, *spatial, channels)`` -> ``(batch, channels)``, or with ``keepdims`` the same with spatial
    sizes of 1; with "channels_first" the channels follow the batch.

    Args:
        data_format: "channels_last" (also None) or "channels_first".
        keepdims: Whether the spatial axes stay, with size 1.

    Raises:
        ShapeError: if x has the wrong number of axes.
    """

    reduce: ClassVar[Callable[..., Any]]

    data_format: DataFormat = None
    keepdims: bool = False

    def call(self, x: Any) -> Any:
        first = 2 if self.channels_first else 1
        return type(self).reduce(x, tuple(range(first, first + self.rank)), self.keepdims)


class _GlobalMax(GlobalPooling):
    reduce = ops.max


class _GlobalAverage(GlobalPooling):
    reduce = ops.mean


class GlobalMaxPooling1D(_GlobalMax, aliases=("GlobalMaxPool1D",)):
    """The maximum over one spatial axis. Arguments and shapes as of ``GlobalPooling``."""

    rank = 1


class GlobalMaxPooling2D(_GlobalMax, aliases=("GlobalMaxPool2D",)):
    """The maximum over two spatial axes. Arguments and shapes as of ``GlobalPooling``.

    Example:
        >>> import numpy as np
        >>> GlobalMaxPooling2D(keepdims=True)(np.ones((2, 5, 4, 3), "float32")).shape
        (2, 1, 1, 3)
    """

    rank = 2


class GlobalMaxPooling3D(_GlobalMax, aliases=("GlobalMaxPool3D",)):
    """The maximum over three spatial axes. Arguments and shapes as of ``GlobalPooling``."""

    rank = 3


class GlobalAveragePooling1D(_GlobalAverage, aliases=("GlobalAvgPool1D",)):
    """The mean over one spatial axis, of the steps that the mask lets through. Arguments and shapes as of
    ``GlobalPooling``."""

    rank = 1

    def call(self, x: Any, mask: Any = None) -> Any:
        if mask is None:
            return super().call(x)
        axis, channels = (2, 1) if self.channels_first else (1, 2)
        taken = ops.expand_dims(mask, channels)
        total = ops.sum(ops.where(taken, x, 0.0), axis, self.keepdims)
        return ops.divide(total, ops.sum(ops.astype(taken, ops.dtype_of(x)), axis, self.keepdims))


class GlobalAveragePooling2D(_GlobalAverage, aliases=("GlobalAvgPool2D",)):
    """The mean over two spatial axes. Arguments and shapes as of ``GlobalPooling``.

    Example:
        >>> import numpy as np
        >>> GlobalAveragePooling2D()(np.ones((2, 5, 4, 3), "float32")).shape
        (2, 3)
    """

    rank = 2


class GlobalAveragePooling3D(_GlobalAverage, aliases=("GlobalAvgPool3D",)):
    """The mean over three spatial axes. Arguments and shapes as of ``GlobalPooling``."""

    rank = 3
