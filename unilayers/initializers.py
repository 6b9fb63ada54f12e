"""Initial values of weights: Keras's initializers, drawn on the host with NumPy.

``initializer(shape, dtype, generator=...)`` returns a NumPy array. Random values are drawn in float64 and then cast, so
that a float32 and a float64 run start from the same numbers. Whoever creates a weight passes the generator of its path
(`unilayers.random.generator`), so values depend neither on the backend nor on the order in which weights are made.

A new initializer declares its fields and computes ``values(shape, generator)``.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal, TypeAlias

import numpy as np

from . import random
from .errors import DTypeError, ShapeError
from .hints import NonNegativeFloat, PositiveFloat
from .random import Seed, SeedGenerator
from .registry import Configurable, deserializer, resolve
from .registry import serialize as serialize

Shape: TypeAlias = tuple[int, ...]


class Initializer(Configurable, family="initializer", immutable=True):
    """Base of all initializers.

    Shapes: any shape, scalars included, -> an array of that shape.  Dtype: drawn in float64, cast to ``dtype``.
    """

    def __post_init__(self) -> None:
        if isinstance(seed := getattr(self, "seed", None), Mapping):
            object.__setattr__(self, "seed", random.get(seed))  # a generator, written in a config

    def __call__(
        self, shape: int | Sequence[int], dtype: Any = "float32", *, generator: np.random.Generator | None = None
    ) -> np.ndarray:
        """The initial values.

        Args:
            shape: Shape of the weight.
            dtype: Its dtype; None is float32.
            generator: Where random numbers come from; None is the stream of the default seed and the class's name.
                An initializer with a ``seed`` has a stream of its own, the same at every call; one with a
                `SeedGenerator` takes that one's next numbers.

        Raises:
            ShapeError: if the initializer has no values for this shape.
            DTypeError: if NumPy has no such dtype.
        """
        values = self.values(_checked_shape(shape), self._stream(generator))
        return np.array(values, dtype=_checked_dtype(dtype), order="C")

    def values(self, shape: Shape, generator: np.random.Generator) -> np.ndarray:
        """The values before the cast; the one method that an initializer writes."""
        raise NotImplementedError(f"{type(self).__name__} has no values(shape, generator)")

    def _stream(self, generator: np.random.Generator | None) -> np.random.Generator:
        seed = getattr(self, "seed", None)
        if isinstance(seed, SeedGenerator):
            return seed.next_generator()
        if seed is not None:
            return random.generator(seed, "")
        return generator if generator is not None else random.generator(random.default_seed(), type(self).__name__)


InitializerLike: TypeAlias = Initializer | str | Mapping[str, Any] | Callable[..., Any] | np.ndarray | None


def get(identifier: InitializerLike, *, where: str = "") -> Initializer | None:
    """The initializer that ``identifier`` stands for.

    Args:
        identifier: None (stays None), an `Initializer` or its class, a name, ``{name: arguments}``, Keras's
            ``{"class_name": name, "config": arguments}``, an array of the weight's shape, or a function
            ``f(shape, dtype)``, which may take ``generator`` too.
        where: The place to name in errors: ``"Dense.kernel_initializer"``.

    Raises:
        UnilayersError: if it stands for none; says the nearest name.

    Example:
        >>> get("glorot_uniform"), get({"RandomNormal": {"stddev": 0.01}}), get("xavier")
        (GlorotUniform(), RandomNormal(stddev=0.01), GlorotUniform())
    """
    if isinstance(identifier, (np.ndarray, np.generic)):
        return Constant(identifier)
    found = resolve(Initializer.registry, identifier, where=where, wrap=_Function)
    # One written for Keras has its own __call__(shape, dtype), which knows no generator and may return any array.
    return found if found is None or type(found).__call__ is Initializer.__call__ else _Function(found)


deserialize = deserializer(get)


def compute_fans(
    shape: Sequence[int], input_axes: Sequence[int] | None = None, output_axes: Sequence[int] | None = None
) -> tuple[int, int]:
    """Inputs and outputs of one unit: ``(fan_in, fan_out)`` of a weight.

    Shapes: a dense kernel ``(in, out)``, a convolution kernel ``(*window, in, out)``, where each side counts the
    window; a vector is its own fan, a scalar has fans of 1.

    Args:
        shape: The weight's shape.
        input_axes: The axes whose sizes multiply to the inputs, for a weight of another form; as in Keras they count
            only together with ``output_axes``.
        output_axes: The axes whose sizes multiply to the outputs.

    Example:
        >>> compute_fans((784, 100)), compute_fans((3, 3, 16, 32)), compute_fans((5,)), compute_fans(())
        ((784, 100), (144, 288), (5, 5), (1, 1))
    """
    if input_axes is not None and output_axes is not None:
        return math.prod(int(shape[a]) for a in input_axes), math.prod(int(shape[a]) for a in output_axes)
    if len(shape) < 2:
        fan = int(shape[0]) if shape else 1
        return fan, fan
    window = math.prod(shape[:-2])
    return window * int(shape[-2]), window * int(shape[-1])


# ---- constants --------------------------------------------------------------------------------------------------


class Constant(Initializer):
    """All values are ``value``, or the values are the array ``value``, which then must have the weight's shape.

    Args:
        value: A number, or an array or nested list.

    Example:
        >>> Constant(0.1)((2,))
        array([0.1, 0.1], dtype=float32)
    """

    value: Any = 0.0

    def values(self, shape: Shape, generator: np.random.Generator) -> np.ndarray:
        value = np.asarray(self.value)
        if value.ndim and value.shape != shape:
            raise ShapeError(
                "the array does not have the weight's shape",
                where="Constant",
                expected=f"shape {shape}",
                received=f"shape {value.shape}",
            )
        return np.broadcast_to(value, shape)


class Zeros(Initializer, aliases=("zero",)):
    """All values are 0."""

    def values(self, shape: Shape, generator: np.random.Generator) -> np.ndarray:
        return np.zeros(shape)


class Ones(Initializer, aliases=("one",)):
    """All values are 1."""

    def values(self, shape: Shape, generator: np.random.Generator) -> np.ndarray:
        return np.ones(shape)


class Identity(Initializer, aliases=("IdentityInitializer",)):
    """``gain`` on the main diagonal of a matrix and 0 elsewhere.

    Args:
        gain: The factor.

    Raises:
        ShapeError: if the weight is not two-dimensional.

    Example:
        >>> Identity(2.0)((2, 3))
        array([[2., 0., 0.],
               [0., 2., 0.]], dtype=float32)
    """

    gain: float = 1.0

    def values(self, shape: Shape, generator: np.random.Generator) -> np.ndarray:
        if len(shape) != 2:
            raise ShapeError(
                "no identity of this shape", where="Identity", expected="shape (rows, columns)", received=f"{shape}"
            )
        return float(self.gain) * np.eye(*shape)


# ---- distributions with a fixed width ----------------------------------------------------------------------------


class RandomNormal(Initializer, aliases=("normal",)):
    """Normal values.

    Args:
        mean: Mean of the distribution.
        stddev: Its standard deviation.
        seed: A stream of its own, the same at every call; None takes the weight's.
    """

    mean: float = 0.0
    stddev: NonNegativeFloat = 0.05
    seed: Seed = None

    def values(self, shape: Shape, generator: np.random.Generator) -> np.ndarray:
        return float(self.mean) + float(self.stddev) * generator.standard_normal(shape)


class TruncatedNormal(Initializer):
    """Normal values, drawn again where they lie more than two standard deviations from the mean.

    Args:
        mean: Mean of the distribution.
        stddev: Standard deviation before the truncation; of the values it is 0.8796 times that.
        seed: A stream of its own, the same at every call; None takes the weight's.
    """

    mean: float = 0.0
    stddev: NonNegativeFloat = 0.05
    seed: Seed = None

    def values(self, shape: Shape, generator: np.random.Generator) -> np.ndarray:
        return float(self.mean) + float(self.stddev) * _truncated_standard_normal(shape, generator)


class RandomUniform(Initializer, aliases=("uniform",)):
    """Uniform values from ``[minval, maxval)``.

    Args:
        minval: Lower end.
        maxval: Upper end.
        seed: A stream of its own, the same at every call; None takes the weight's.
    """

    minval: float = -0.05
    maxval: float = 0.05
    seed: Seed = None

    def values(self, shape: Shape, generator: np.random.Generator) -> np.ndarray:
        low, high = float(self.minval), float(self.maxval)
        return low + (high - low) * generator.random(shape)


# ---- distributions scaled to the fans -----------------------------------------------------------------------------

Axes: TypeAlias = Sequence[int] | None
Mode: TypeAlias = Literal["fan_in", "fan_out", "fan_avg"]
Distribution: TypeAlias = Literal["truncated_normal", "normal", "untruncated_normal", "uniform"]

# Standard deviation of a standard normal truncated to [-2, 2]: sqrt(1 - 4 pdf(2) / (2 cdf(2) - 1)).
TRUNCATED_STDDEV = 0.87962566103423978


class VarianceScaling(Initializer):
    """Values of variance ``scale / fan``, so that a layer's outputs vary as much as its inputs.

    Args:
        scale: Factor of the variance; greater than 0.
        mode: The fan: inputs of a unit, its outputs, or the mean of both; see `compute_fans`.
        distribution: ``"truncated_normal"`` (``"normal"`` is the same, as in Keras), ``"untruncated_normal"`` or
            ``"uniform"``.
        seed: A stream of its own, the same at every call; None takes the weight's.
        input_axes: The axes that count as inputs, for a weight of another form; see `compute_fans`.
        output_axes: The axes that count as outputs.

    Example:
        >>> float(VarianceScaling(3.0, "fan_in", "uniform", seed=1)((100, 50)).max()) <= 0.3
        True
    """

    scale: PositiveFloat = 1.0
    mode: Mode = "fan_in"
    distribution: Distribution = "truncated_normal"
    seed: Seed = None
    input_axes: Axes = None
    output_axes: Axes = None

    def values(self, shape: Shape, generator: np.random.Generator) -> np.ndarray:
        fan_in, fan_out = compute_fans(shape, self.input_axes, self.output_axes)
        fan = {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2}[self.mode]
        variance = float(self.scale) / max(1.0, fan)
        if self.distribution == "uniform":
            return math.sqrt(3.0 * variance) * (2.0 * generator.random(shape) - 1.0)
        if self.distribution == "untruncated_normal":
            return math.sqrt(variance) * generator.standard_normal(shape)
        return math.sqrt(variance) / TRUNCATED_STDDEV * _truncated_standard_normal(shape, generator)


class _NamedScaling(Initializer):
    """`VarianceScaling` with scale, mode and distribution decided by the class."""

    scaling: ClassVar[VarianceScaling]
    seed: Seed = None
    input_axes: Axes = None
    output_axes: Axes = None

    def values(self, shape: Shape, generator: np.random.Generator) -> np.ndarray:
        return replace(self.scaling, input_axes=self.input_axes, output_axes=self.output_axes).values(shape, generator)


class GlorotUniform(_NamedScaling, aliases=("XavierUniform", "xavier")):
    """Uniform values of variance ``2 / (fan_in + fan_out)``; also known as Xavier.

    Args:
        seed: A stream of its own, the same at every call; None takes the weight's.
        input_axes: The axes that count as inputs, for a weight of another form; see `compute_fans`.
        output_axes: The axes that count as outputs.

    Reference:
        Glorot and Bengio, Understanding the difficulty of training deep feedforward neural networks, 2010.
    """

    scaling = VarianceScaling(1.0, "fan_avg", "uniform")


class GlorotNormal(_NamedScaling, aliases=("XavierNormal",)):
    """Truncated normal values of variance ``2 / (fan_in + fan_out)``; also known as Xavier.

    Args:
        seed: A stream of its own, the same at every call; None takes the weight's.
        input_axes: The axes that count as inputs, for a weight of another form; see `compute_fans`.
        output_axes: The axes that count as outputs.

    Reference:
        Glorot and Bengio, Understanding the difficulty of training deep feedforward neural networks, 2010.
    """

    scaling = VarianceScaling(1.0, "fan_avg", "truncated_normal")


class HeUniform(_NamedScaling):
    """Uniform values of variance ``2 / fan_in``, for layers before a ReLU.

    Args:
        seed: A stream of its own, the same at every call; None takes the weight's.
        input_axes: The axes that count as inputs, for a weight of another form; see `compute_fans`.
        output_axes: The axes that count as outputs.

    Reference:
        He et al., Delving deep into rectifiers, 2015, arXiv:1502.01852.
    """

    scaling = VarianceScaling(2.0, "fan_in", "uniform")


class HeNormal(_NamedScaling):
    """Truncated normal values of variance ``2 / fan_in``, for layers before a ReLU.

    Args:
        seed: A stream of its own, the same at every call; None takes the weight's.
        input_axes: The axes that count as inputs, for a weight of another form; see `compute_fans`.
        output_axes: The axes that count as outputs.

    Reference:
        He et al., Delving deep into rectifiers, 2015, arXiv:1502.01852.
    """

    scaling = VarianceScaling(2.0, "fan_in", "truncated_normal")


class LecunUniform(_NamedScaling):
    """Uniform values of variance ``1 / fan_in``.

    Args:
        seed: A stream of its own, the same at every call; None takes the weight's.
        input_axes: The axes that count as inputs, for a weight of another form; see `compute_fans`.
        output_axes: The axes that count as outputs.

    Reference:
        LeCun et al., Efficient BackProp, 1998.
    """

    scaling = VarianceScaling(1.0, "fan_in", "uniform")


class LecunNormal(_NamedScaling):
    """Truncated normal values of variance ``1 / fan_in``.

    Args:
        seed: A stream of its own, the same at every call; None takes the weight's.
        input_axes: The axes that count as inputs, for a weight of another form; see `compute_fans`.
        output_axes: The axes that count as outputs.

    Reference:
        LeCun et al., Efficient BackProp, 1998.
    """

    scaling = VarianceScaling(1.0, "fan_in", "truncated_normal")


XavierUniform, XavierNormal = GlorotUniform, GlorotNormal


class Orthogonal(Initializer, aliases=("OrthogonalInitializer",)):
    """A matrix with orthonormal columns (rows, if it has fewer rows) times ``gain``, uniform among such matrices.

    Weights of more than two dimensions are taken as ``(everything but the last, last)``. The last bits depend on the
    machine's LAPACK.

    Args:
        gain: The factor.
        seed: A stream of its own, the same at every call; None takes the weight's.

    Raises:
        ShapeError: if the weight has fewer than two dimensions.

    Reference:
        Saxe et al., Exact solutions to the nonlinear dynamics of learning in deep linear neural networks, 2013,
        arXiv:1312.6120.
    """

    gain: float = 1.0
    seed: Seed = None

    def values(self, shape: Shape, generator: np.random.Generator) -> np.ndarray:
        if len(shape) < 2:
            raise ShapeError(
                "no orthogonal matrix of this shape",
                where="Orthogonal",
                expected="at least two dimensions",
                received=f"{shape}",
            )
        rows, columns = math.prod(shape[:-1]), shape[-1]
        q, r = np.linalg.qr(generator.standard_normal((max(rows, columns), min(rows, columns))))
        q = q * np.where(np.diagonal(r) < 0, -1.0, 1.0)  # without the signs q would not be uniform
        return float(self.gain) * (q if rows >= columns else q.T).reshape(shape)


# ---- Fourier transforms -------------------------------------------------------------------------------------------

WINDOWS: dict[str, Callable[[int], np.ndarray]] = {
    "hann": np.hanning, "hamming": np.hamming, "blackman": np.blackman, "bartlett": np.bartlett,
    "boxcar": np.ones,
}  # fmt: skip
Window: TypeAlias = Literal["hann", "hamming", "blackman", "bartlett", "boxcar"] | Sequence[float] | np.ndarray | None


def window_of(window: Window, length: int, periodic: bool) -> np.ndarray:
    """The values of a window, float64 ``(length,)``.

    Args:
        window: Its name, its values, or None for ones.
        length: How many values.
        periodic: Whether it goes on with its first value, for spectra, or ends as it begins.

    Raises:
        ShapeError: for values of another number.

    Example:
        >>> window_of("hann", 4, True), window_of("hann", 3, False)
        (array([0. , 0.5, 1. , 0.5]), array([0., 1., 0.]))
    """
    if window is None or isinstance(window, str):
        return WINDOWS[window or "boxcar"](length + periodic)[:length]
    values = np.asarray(window, "float64")
    if values.shape != (length,):
        raise ShapeError(
            "the window has another length", where="window", expected=f"shape ({length},)", received=str(values.shape)
        )
    return values


class STFT(Initializer, aliases=("STFTInitializer",)):
    """Waves times a window: a convolution with them is a short-time Fourier transform.

    Shapes: ``(frame, ..., bins)``: bin k has k whole waves in ``2 * (bins - 1)`` samples.

    Args:
        side: "real" for cosines, "imag" for the sines.
        window: "hann", "hamming", "blackman", "bartlett", "boxcar", the values of the frame, or None for ones.
        scaling: What the window is divided by: "density" its Euclidean length, "spectrum" the sum of its values' sizes,
            None nothing; nothing also without a window.
        periodic: Whether the window goes on with its first value, or ends as it begins.

    Raises:
        ShapeError: if the weight has fewer than two dimensions, or the window another length.

    Example:
        >>> STFT("imag", None)((4, 1, 3))[:, 0].round(3) + 0.0
        array([[ 0.,  0.,  0.],
               [ 0., -1.,  0.],
               [ 0.,  0.,  0.],
               [ 0.,  1.,  0.]], dtype=float32)
    """

    side: Literal["real", "imag"] = "real"
    window: Window = "hann"
    scaling: Literal["density", "spectrum"] | None = "density"
    periodic: bool = False

    def values(self, shape: Shape, generator: np.random.Generator) -> np.ndarray:
        if len(shape) < 2:
            raise ShapeError(
                "no waves of this shape", where="STFT", expected="at least two dimensions", received=f"{shape}"
            )
        frame, bins = shape[0], shape[-1]
        window = window_of(self.window, frame, self.periodic)
        if self.window is not None and self.scaling is not None:
            size = np.sqrt(np.sum(window**2)) if self.scaling == "density" else np.sum(np.abs(window))
            window = window / size if frame else window
        whole = max(2 * (bins - 1), 1)
        place = np.outer(np.arange(frame), np.arange(bins)) % whole  # in a wave, so that zeros are exact
        angles = 2 * math.pi / whole * place
        waves = np.cos(angles) if self.side == "real" else np.where(2 * place % whole == 0, 0.0, -np.sin(angles))
        waves = waves * window[:, None]
        return np.broadcast_to(waves.reshape(frame, *[1] * (len(shape) - 2), bins), shape)


# The names that Keras has beside those of the classes.
constant, identity, ones, zeros, orthogonal = Constant, Identity, Ones, Zeros, Orthogonal
IdentityInitializer, OrthogonalInitializer, STFTInitializer = Identity, Orthogonal, STFT
stft = STFT
random_normal, random_uniform, truncated_normal = RandomNormal, RandomUniform, TruncatedNormal
variance_scaling, glorot_normal, glorot_uniform = VarianceScaling, GlorotNormal, GlorotUniform
he_normal, he_uniform, lecun_normal, lecun_uniform = HeNormal, HeUniform, LecunNormal, LecunUniform


# ---- details ------------------------------------------------------------------------------------------------------


class _Function(Initializer):
    """A function ``f(shape, dtype)`` or ``f(shape, dtype, generator=...)`` as an initializer."""

    function: Callable[..., Any]

    def values(self, shape: Shape, generator: np.random.Generator) -> np.ndarray:
        keywords = {"generator": generator} if _accepts(self.function, "generator") else {}
        values = np.asarray(self.function(shape, "float64", **keywords))
        if values.shape != shape:
            raise ShapeError(
                "the function's values do not have the weight's shape",
                where=getattr(self.function, "__name__", repr(self.function)),
                expected=f"shape {shape}",
                received=f"shape {values.shape}",
            )
        return values


def _accepts(function: Callable[..., Any], name: str) -> bool:
    try:
        accepted = inspect.signature(function).parameters
    except (TypeError, ValueError):  # some built-in functions do not tell
        return False
    return name in accepted or any(p.kind is p.VAR_KEYWORD for p in accepted.values())


def _truncated_standard_normal(shape: Shape, generator: np.random.Generator) -> np.ndarray:
    """Standard normal values within [-2, 2]: those outside are drawn again, in order, until none is left."""
    values = np.asarray(generator.standard_normal(shape))
    while (outside := np.abs(values) > 2.0).any():
        values[outside] = generator.standard_normal(int(outside.sum()))
    return values


def _checked_shape(shape: int | Sequence[int]) -> Shape:
    sizes = tuple(shape) if isinstance(shape, (list, tuple)) else (shape,)
    if not all(isinstance(n, (int, np.integer)) and not isinstance(n, bool) and n >= 0 for n in sizes):
        raise ShapeError("not a weight's shape", expected="whole numbers of at least 0", received=repr(shape))
    return tuple(int(n) for n in sizes)


def _checked_dtype(dtype: Any) -> np.dtype:
    try:
        return np.dtype("float32" if dtype is None else dtype)
    except TypeError as error:
        raise DTypeError(f"NumPy has no dtype {dtype!r}", where="initializer") from error
