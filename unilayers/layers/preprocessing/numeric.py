"""Preprocessing of numbers: scaling, bins, categories as vectors, hashing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self, TypeAlias

import numpy as np

from unilayers import ops
from unilayers.errors import DTypeError, ShapeError, UnilayersError
from unilayers.hints import Fraction, PositiveInt
from unilayers.layers.base import Layer, in_dtype
from unilayers.layers.preprocessing.encoding import (
    Encoding,
    Salt,
    as_integers,
    batches_of,
    count_not_above,
    encoded,
    floats_of,
    integer_dtype,
    is_text,
    key_of_salt,
    refuse,
    texts_of,
)
from unilayers.layers.preprocessing.hashes import bucket, bucket_of_integers, bucket_of_pairs, fingerprint
from unilayers.spec import is_float, normalize_axis, promote, public_shape

Numbers: TypeAlias = float | Sequence[Any] | np.ndarray

LEAST_DEVIATION = 1e-7  # Keras's epsilon: what a standard deviation counts at least


class Rescaling(Layer):
    """``x * scale + offset``, as floats: pixels 0 to 255 become 0 to 1 with a scale of 1/255.

    Shapes: x any shape and number type -> the same shape, floats.

    Args:
        scale: Factor; one number, or a list that broadcasts to x, such as one per channel.
        offset: What is added, likewise.

    Example:
        >>> Rescaling(1 / 255)(np.array([0, 255], "uint8"))
        array([0., 1.], dtype=float32)
    """

    scale: float | Sequence[Any]
    offset: float | Sequence[Any] = 0.0

    def call(self, x: Any) -> Any:
        wide = promote(self.compute_dtype, "float32")
        scale, offset = (np.asarray(v, wide) for v in (self.scale, self.offset))
        return in_dtype(ops.add(ops.multiply(ops.astype(x, wide), scale), offset), self.compute_dtype)


class Normalization(Layer):
    """``(x - mean) / sqrt(variance)``, with the mean and variance of the data that the layer was adapted to.

    Shapes: x any shape and number type -> the same shape, floats; mean and variance have the sizes of ``axis``.

    Args:
        axis: The axis, or the axes, of which each index has a mean and a variance of its own; None: one for all.
        mean: The mean instead of adapting; a number, or an array that broadcasts to the sizes of ``axis``.
        variance: The variance, given together with the mean.
        invert: Whether to go back: ``x * sqrt(variance) + mean``.

    Raises:
        UnilayersError: if one of mean and variance is given without the other.
        ShapeError: if an axis is not there or its size not known, or data has another size there.

    Example:
        >>> layer = Normalization()
        >>> layer.adapt(np.array([[0.0, 7.0], [2.0, 9.0]]))
        >>> layer(np.array([[0.0, 9.0]], "float32"))
        array([[-1.,  1.]], dtype=float32)
    """

    axis: int | Sequence[int] | None = -1
    mean: Numbers | None = None
    variance: Numbers | None = None
    invert: bool = False

    supports_masking = True

    def __post_init__(self) -> None:
        where, shapes = "Normalization", [np.asarray(v).shape for v in (self.mean, self.variance)]
        if (self.mean is None) != (self.variance is None):
            raise UnilayersError("mean and variance belong together", where=where, fix="Give both, or adapt the layer")
        if shapes[0] != shapes[1]:
            raise ShapeError(
                "mean and variance differ", where=where,
                received=f"{shapes[0]} and {shapes[1]}",
            )  # fmt: skip

    def _axes(self, ndim: int) -> list[int]:
        given = () if self.axis is None else (self.axis,) if isinstance(self.axis, int) else self.axis
        return sorted(normalize_axis(a, ndim) for a in given)

    def build(self, input_shape: Any) -> None:
        shape = tuple(self.known_size(input_shape, a) for a in self._axes(len(input_shape)))
        self._shape = shape
        if self.mean is None:
            self.adapt_mean = self.add_weight(shape, "zeros", trainable=False, name="mean", autocast=False)
            self.adapt_variance = self.add_weight(shape, "ones", trainable=False, name="variance", autocast=False)
            self.count = self.add_weight((), "zeros", "int32", trainable=False, name="count")
        else:
            given = (np.asarray(v, promote(self.compute_dtype, "float32")) for v in (self.mean, self.variance))
            self._given = [np.broadcast_to(v, shape) for v in given]

    def adapt(self, data: Any) -> None:
        """Take the mean and variance of data: an array, or an iterable of batches (of pairs the first).

        Raises:
            UnilayersError: if they were given, or there are no data.
            ShapeError: if a batch does not have the sizes of the first.
        """
        if self.mean is not None:
            raise UnilayersError("mean and variance were given", where=self.where, fix="Leave them out to adapt")
        count = 0
        mean = moment = np.zeros(())
        for batch in batches_of(data):
            x = floats_of(batch)
            self._build_once((x,))
            axes = self._axes(x.ndim)
            if tuple(x.shape[a] for a in axes) != self._shape:
                raise ShapeError(
                    "data does not fit the layer", where=self.where,
                    expected=f"sizes {self._shape} on axes {tuple(axes)}", received=str(x.shape),
                )  # fmt: skip
            others = tuple(a for a in range(x.ndim) if a not in axes)
            n = math.prod(x.shape[a] for a in others)
            if n == 0:
                continue
            # The sums of squares around the two means, and around their common one.
            step = x.mean(others) - mean
            moment = moment + x.var(others) * n + step**2 * (count * n / (count + n))
            mean = mean + step * (n / (count + n))
            count += n
        if count == 0:
            raise UnilayersError("no data to adapt to", where=self.where)
        self.adapt_mean.assign(mean)
        self.adapt_variance.assign(moment / count)

    def call(self, x: Any) -> Any:
        x = ops.astype(x, promote(self.compute_dtype, "float32"))
        shape, axes = ops.shape_of(x), self._axes(len(ops.shape_of(x)))
        sizes = [d if a in axes else 1 for a, d in enumerate(shape)]
        if tuple(shape[a] for a in axes) != self._shape:
            raise ShapeError(
                "input does not fit the layer", expected=f"sizes {self._shape} on axes {tuple(axes)}",
                received=str(public_shape(shape)),
            )  # fmt: skip
        mean, variance = (self.adapt_mean, self.adapt_variance) if self.mean is None else self._given
        mean, variance = ops.reshape(mean, sizes), ops.reshape(variance, sizes)
        deviation = ops.maximum(ops.sqrt(variance), LEAST_DEVIATION)
        if self.invert:
            return in_dtype(ops.add(ops.multiply(x, deviation), mean), self.compute_dtype)
        return in_dtype(ops.divide(ops.subtract(x, mean), deviation), self.compute_dtype)


class Discretization(Layer):
    """The bin that each number falls into: how many boundaries are not above it.

    Shapes: x any shape -> the same, int32; for the other output modes see there.

    Args:
        bin_boundaries: The boundaries, in rising order.
        num_bins: How many bins ``adapt`` makes, instead of given boundaries: quantiles of the data.
        epsilon: How exact quantiles of many batches are, as a share of the data.
        output_mode: "int" for the number of the bin, else vectors with one element per bin: "one_hot" one per number,
            "multi_hot" and "count" one per row along the last axis, with 1 or how often where a number falls.
        sparse: Not supported; accepted as Keras has it.

    Raises:
        UnilayersError: unless exactly one of bin_boundaries and num_bins is given; for boundaries out of order; for a
            call before there are boundaries.

    Example:
        >>> Discretization([0.0, 1.0, 2.0])(np.array([-3.0, 1.0, 1.5], "float32"))
        array([0, 2, 2], dtype=int32)
    """

    bin_boundaries: Sequence[float] | np.ndarray | None = None
    num_bins: PositiveInt | None = None
    epsilon: Fraction = 0.01
    output_mode: Encoding = "int"
    sparse: bool = False

    def __post_init__(self) -> None:
        refuse(self, sparse=self.sparse)
        if (self.bin_boundaries is None) == (self.num_bins is None):
            raise UnilayersError("give bin_boundaries or num_bins, one of them", where="Discretization")
        if self.bin_boundaries is not None and np.any(np.diff(self.bin_boundaries) < 0):
            raise UnilayersError(
                "the boundaries do not rise", where="Discretization.bin_boundaries", received=str(self.bin_boundaries)
            )

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """The layer with that config; one that was adapted has boundaries and a number of bins."""
        both = config.get("bin_boundaries") is not None and config.get("num_bins") is not None
        made = super().from_config({**config, "bin_boundaries": None} if both else config)
        if both:
            made.bin_boundaries = config["bin_boundaries"]
        return made

    def adapt(self, data: Any, steps: int | None = None) -> None:
        """Take the quantiles of data as boundaries.

        Args:
            data: An array, or an iterable of batches.
            steps: How many batches to take; None: all.

        Raises:
            UnilayersError: if boundaries were given, or there are no data.
        """
        if self.num_bins is None:
            raise UnilayersError("boundaries were given", where=self.where, fix="Give num_bins to adapt")
        summary = np.zeros((2, 0), "float32")
        for batch in batches_of(data, steps):
            more = _summary(np.asarray(ops.to_numpy(batch), "float32"), self.epsilon)
            joined = np.concatenate([more, summary], axis=1)
            summary = _compressed(joined[:, np.argsort(joined[0])], self.epsilon)
        if summary.shape[1] == 0:
            raise UnilayersError("no data to adapt to", where=self.where)
        self.bin_boundaries = _compressed(summary, 1 / self.num_bins)[0, :-1].tolist()

    def call(self, x: Any) -> Any:
        if self.bin_boundaries is None:
            raise UnilayersError("the layer has no boundaries", fix="Give bin_boundaries, or call adapt(data)")
        wide = promote(self.compute_dtype, "float32")
        x, boundaries = ops.astype(x, wide), np.asarray(self.bin_boundaries, wide)
        bins = count_not_above(boundaries, x) if len(boundaries) else ops.zeros_like(x, "int32")
        dtype = "int32" if self.output_mode == "int" else self.compute_dtype
        return encoded(bins, self.output_mode, len(boundaries) + 1, dtype)


def _summary(values: np.ndarray, epsilon: float) -> np.ndarray:
    """At most ``1 / epsilon`` of the values in order, evenly spaced, and how many values each stands for."""
    step = max(values.size * epsilon, 1.0)
    chosen = np.sort(values, axis=None)[int(step - 1) :: int(step)]
    return np.stack([chosen, np.full_like(chosen, step)])


def _compressed(summary: np.ndarray, epsilon: float) -> np.ndarray:
    """A summary by the quantiles ``epsilon``, ``2 * epsilon``... of itself, if it is longer than that."""
    if summary.shape[1] * epsilon < 1:
        return summary
    counts = np.cumsum(summary[1])
    shares = epsilon + np.arange(0.0, 1.0, epsilon)
    values, counted = (np.interp(shares, counts / counts[-1], v) for v in (summary[0], counts))
    return np.stack([values, np.diff(counted, prepend=0)]).astype("float32")


class CategoryEncoding(Layer):
    """Integers below ``num_tokens`` as vectors: one-hot, multi-hot or counts. An integer outside counts nowhere.

    Shapes: x ``(..., n)`` -> ``(..., num_tokens)``; for "one_hot" ``(..., n, num_tokens)`` unless n is 1.

    Args:
        num_tokens: How many categories there are, and the length of the vectors.
        output_mode: "multi_hot" for 1 where the integer is in the row, "count" for how often, "one_hot" for one vector
            per integer.
        sparse: Not supported; accepted as Keras has it.

    Raises:
        UnilayersError: if ``count_weights``, the second argument of a call, is given in another mode than "count".

    Example:
        >>> CategoryEncoding(4)(np.array([[0, 1], [3, 3]]))
        array([[1., 1., 0., 0.],
               [0., 0., 0., 1.]], dtype=float32)
        >>> CategoryEncoding(3, "count")(np.array([[0, 2]]), count_weights=np.array([[0.5, 2.0]], "float32"))
        array([[0.5, 0. , 2. ]], dtype=float32)
    """

    num_tokens: PositiveInt
    output_mode: Literal["multi_hot", "one_hot", "count"] = "multi_hot"
    sparse: bool = False

    def __post_init__(self) -> None:
        refuse(self, sparse=self.sparse)

    def call(self, x: Any, count_weights: Any = None) -> Any:
        if count_weights is not None and self.output_mode != "count":
            raise UnilayersError("count_weights count in mode 'count' only", received=repr(self.output_mode))
        x = as_integers(x, "int32") if is_float(ops.dtype_of(x)) else x
        return encoded(x, self.output_mode, self.num_tokens, self.variable_dtype, count_weights)


class Hashing(Layer):
    """The bin that a hash of each integer or text falls into: a number for categories that need no vocabulary.

    The bins are Keras's: those of FarmHash, or with a salt of SipHash, of the text or of the integer's decimal text.
    Integers are hashed as part of the graph, on every backend; texts before it. Floats are cut off to integers.

    Shapes: x any shape -> the same, int64 (or the layer's integer dtype); for the other output modes see there.

    Args:
        num_bins: How many bins there are.
        mask_value: The value for which the result is 0; all others then have bins from 1.
        salt: One or two integers that give another hash.
        output_mode: "int" for the bin, else vectors with one element per bin: "one_hot" one per element, "multi_hot"
            and "count" one per row along the last axis, with 1 or how often where an element falls.
        sparse: Not supported; accepted as Keras has it.

    Example:
        >>> Hashing(100)(np.array([1, 2, 1]))
        array([49, 59, 49])
        >>> Hashing(100)(np.array(["a", "b", "a"]))
        array([39, 22, 39])
    """

    num_bins: PositiveInt
    mask_value: int | str | None = None
    salt: Salt = None
    output_mode: Encoding = "int"
    sparse: bool = False

    def __post_init__(self) -> None:
        refuse(self, sparse=self.sparse)
        self._key = key_of_salt(self.salt, "Hashing.salt")

    def call(self, x: Any) -> Any:
        masked = self.mask_value is not None and self.num_bins > 1
        bins = self.num_bins - masked
        if is_text(x):
            texts = texts_of(x)
            known = {t: bucket(t.encode(), bins, self._key) for t in set(texts.ravel())}
            found: Any = np.array([known[t] for t in texts.ravel()], "int64").reshape(texts.shape)
            at: Any = texts == self.mask_value
        else:
            x = as_integers(x)
            found = bucket_of_integers(x, bins, self._key)
            at = ops.equal(x, self.mask_value) if masked else False
        if masked:
            found = ops.where(at, 0, ops.add(found, 1))
        dtype = integer_dtype(self, "int64" if self.output_mode == "int" else self.variable_dtype)
        return encoded(found, self.output_mode, self.num_bins, dtype)


class HashedCrossing(Layer):
    """The bin that several categories fall into together, by a hash of the pair: one number for "red" and 3.

    The bins are Keras's. Integers are hashed as part of the graph, on every backend; texts before it.

    Shapes: two or more inputs of one shape, ``()``, ``(batch,)`` or ``(batch, 1)`` -> the same, int64 (or the layer's
    integer dtype); with "one_hot" ``(..., num_bins)`` in the place of the last axis of size 1, or after the others.

    Args:
        num_bins: How many bins there are.
        output_mode: "int" for the bin, "one_hot" for vectors with one element per bin.
        sparse: Not supported; accepted as Keras has it.

    Raises:
        ShapeError: for one input only, for other shapes, and for inputs of different shapes.
        DTypeError: for floats.

    Example:
        >>> HashedCrossing(5)([np.array(["A", "B", "A"]), np.array([101, 101, 102])])
        array([1, 4, 3])
    """

    num_bins: PositiveInt
    output_mode: Literal["int", "one_hot"] = "int"
    sparse: bool = False

    def __post_init__(self) -> None:
        refuse(self, sparse=self.sparse)

    def call(self, inputs: Any) -> Any:
        if not isinstance(inputs, (list, tuple)) or len(inputs) < 2:
            raise ShapeError("needs two inputs or more", received="one", fix="Call the layer on [a, b]")
        features = [self._feature(x) for x in inputs]
        shapes = [ops.shape_of(x) for x in features]
        if len(set(shapes)) > 1 or len(shapes[0]) > 2 or (len(shapes[0]) == 2 and shapes[0][1] != 1):
            raise ShapeError(
                "not categories to cross", expected="inputs of one shape (), (batch,) or (batch, 1)",
                received=", ".join(str(public_shape(s)) for s in shapes),
            )  # fmt: skip
        dtype = integer_dtype(self, "int64" if self.output_mode == "int" else self.compute_dtype)
        return encoded(bucket_of_pairs(features, self.num_bins), self.output_mode, self.num_bins, dtype)

    def _feature(self, x: Any) -> Any:
        """Integers as int64, and of texts the fingerprints."""
        if not is_text(x):
            if is_float(ops.dtype_of(x)):
                raise DTypeError("not categories", expected="integers or texts", received=ops.dtype_of(x))
            return as_integers(x)
        texts = texts_of(x)
        words = np.array([fingerprint(t.encode()) for t in texts.ravel()], "uint64")
        return words.view("int64").reshape(texts.shape)
