"""Random numbers: Keras's functions and ``SeedGenerator``, and the streams that they, layers and data sets draw from.

A number is a function of a seed, a path, a count of draws and its place in the array: it depends neither on the
backend nor on the order in which things are created.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from functools import reduce
from hashlib import blake2b
from typing import Any, Protocol, TypeAlias

import numpy as np

from unilayers import ops
from unilayers.config import floatx
from unilayers.errors import DTypeError, ShapeError, UnilayersError
from unilayers.graph import tracing
from unilayers.hints import NonNegativeInt, Probability, check_value
from unilayers.ops.define import TRACE
from unilayers.ops.random import Key
from unilayers.registry import Configurable, resolve
from unilayers.spec import INTS, check_dtype, is_float, normalize_axis
from unilayers.variable import Variable

__all__ = [
    "Seed", "SeedGenerator", "beta", "binomial", "categorical", "default_seed", "dropout", "gamma", "generator", "get",
    "key_of", "normal", "permutation", "randint", "set_random_seed", "shuffle", "truncated_normal", "uniform",
]  # fmt: skip

# ---- seeds and streams ------------------------------------------------------------

_default_seed = 0
_unnamed = 0  # seed generators without a seed that were made since the default seed was set


def default_seed() -> int:
    """The seed used where none is given: 0, or what `set_random_seed` set.

    Example:
        >>> default_seed()
        0
    """
    return _default_seed


def set_random_seed(seed: int) -> None:
    """Set the default seed, for all threads, and restart the numbers drawn with ``seed=None``, also in what is compiled
    already; NumPy's and the frameworks' own generators are left alone.

    Raises:
        UnilayersError: if ``seed`` is not an int of at least 0.
    """
    global _default_seed, _unnamed
    _default_seed, _unnamed = _checked(seed), 0
    _DEFAULT.state.assign(_start_of(seed))


def key_of(seed: int, path: str) -> Key:
    """Two 32-bit words that stand for ``(seed, path)``; the same on every machine and Python.

    Reference:
        Aumasson et al., BLAKE2: simpler, smaller, fast as MD5, 2013, RFC 7693.

    Example:
        >>> key_of(7, "dense/kernel")
        (2097763111, 2895452837)
    """
    first, second = struct.unpack("<2I", blake2b(f"{_checked(seed)}\0{path}".encode(), digest_size=8).digest())
    return first, second


def generator(seed: int, path: str) -> np.random.Generator:
    """A NumPy generator at the start of the stream of ``(seed, path)``; the stream is counter-based (Philox 4x64).

    Reference:
        Salmon et al., Parallel Random Numbers: As Easy as 1, 2, 3, 2011.

    Example:
        >>> generator(7, "a").random() == generator(7, "a").random() != generator(7, "b").random()
        True
    """
    return np.random.Generator(np.random.Philox(key=np.array(key_of(seed, path), dtype=np.uint64)))


def permutation(n: int, seed: int, epoch: int) -> np.ndarray:
    """The order of ``n`` samples in an epoch: int64 ``(n,)``, a function of ``(n, seed, epoch)`` alone.

    Example:
        >>> sorted(permutation(4, seed=7, epoch=0).tolist())
        [0, 1, 2, 3]
    """
    return generator(seed, f"epoch/{epoch}").permutation(n)


def _checked(seed: int) -> int:
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
        raise UnilayersError(
            "not a seed", where="seed", expected="an int of at least 0", received=f"{seed!r} ({type(seed).__name__})"
        )
    return int(seed)


# ---- the generator ----------------------------------------------------------------


class Owner(Protocol):
    """What a seed generator may belong to: a layer."""

    @property
    def root_seed(self) -> int: ...
    def _join(self, name: str) -> str: ...


class SeedGenerator(Configurable, family="seed"):
    """A stream of random numbers with its place in it: each function that is given it as ``seed`` draws what follows.

    The place is a counter on the device, part of a compiled training step: no two steps draw the same numbers. A layer
    that has a generator as an attribute saves the counter with its weights, so that a loaded model goes on.

    Args:
        seed: Names the stream; the first draw is that of the plain ``seed``. None: of a generator in a layer, the
            model's seed and the layer's path decide, else the default seed and the number of generators made before.
        name: Name of the state; that of the layer's attribute if None.

    Attributes:
        state: The counter, a variable.

    Example:
        >>> seeds = SeedGenerator(7)
        >>> first, second = normal((2,), seed=seeds), normal((2,), seed=seeds)
        >>> (first == normal((2,), seed=7)).tolist(), (first == second).tolist()
        ([True, True], [False, False])
    """

    seed: NonNegativeInt | None = None
    name: str | None = None

    def __post_init__(self) -> None:
        global _unnamed
        self._owner: Owner | None = None
        if self.seed is None:
            self._key = key_of(_default_seed, f"seed_generator/{_unnamed}")
            _unnamed += 1
        else:
            self._key = key_of(self.seed, "")
        self._own_name = self.name or "seed_generator"
        self.state = Variable(
            0, (), "int32", False, name="seed_generator_state", path=lambda: f"{self._path}/{self.state.name}"
        )
        self.state.is_weight = False

    def belong(self, owner: Owner, name: str) -> None:
        """Take the stream and the state's path from a layer, and its name there; the first layer counts."""
        if self._owner is None:
            self._owner, self._own_name = owner, name

    @property
    def _path(self) -> str:
        return self._own_name if self._owner is None else self._owner._join(self._own_name)

    @property
    def key(self) -> Key:
        """Two 32-bit words that name the stream."""
        if self.seed is None and self._owner is not None:
            return key_of(self._owner.root_seed, self._path)
        return self._key

    def next(self, ordered: bool = True) -> tuple[Any, Key]:
        """Counter and key of the next draw, for ``ops.random_bits`` and its kin; moves on by one.

        Args:
            ordered: Of no effect: numbers do not depend on the order of the counters.
        """
        now = ops.identity(self.state)
        self.state.assign(ops.add(self.state, 1))
        return now, self.key

    def next_generator(self) -> np.random.Generator:
        """The next draw as a NumPy generator, for values made on the host; moves on by one, at once also in a trace."""
        token = TRACE.set(None)
        try:
            with tracing(False):
                count = int(self.state)
                self.state.assign(np.int32(count + 1))
        finally:
            TRACE.reset(token)
        place = np.array([0, 0, 0, count & 0xFFFFFFFF], np.uint64)  # draws far apart in one stream
        return np.random.Generator(np.random.Philox(key=np.array(self.key, np.uint64), counter=place))


SeedGenerator.registry.register(SeedGenerator)
Seed: TypeAlias = NonNegativeInt | SeedGenerator | None


def get(seed: Any) -> Seed:
    """A seed as it stands in a config; ``{"SeedGenerator": arguments}`` as a generator, anything else as it is.

    Example:
        >>> get(3), get({"SeedGenerator": {"seed": 3}})
        (3, SeedGenerator(seed=3))
    """
    written = isinstance(seed, Mapping) and "SeedGenerator" in (seed.get("class_name"), *seed)
    return resolve(SeedGenerator.registry, seed) if written else seed


# The start of its counter follows from the default seed, and its key does not: so a new seed reaches compiled graphs.
_DEFAULT = SeedGenerator(0, "default_seed_generator")


def _start_of(seed: int) -> np.int32:
    return np.array(key_of(seed, "default"), np.uint32).view(np.int32)[0]


_DEFAULT.state.assign(_start_of(0))


def _draw(seed: Any) -> tuple[Any, Key]:
    """Counter and key of a draw, for what a function was given as ``seed``."""
    if seed is None:
        return _DEFAULT.next()
    if isinstance(seed, SeedGenerator):
        return seed.next()
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
        raise UnilayersError(
            "not a seed", where="seed", expected="None, an int of at least 0, or a SeedGenerator",
            received=f"{seed!r} ({type(seed).__name__})",
        )  # fmt: skip
    return 0, key_of(int(seed), "")


def _apart(key: Key, stream: int) -> Key:
    """The key of a further stream of the same draw."""
    return key[0], (key[1] + 0x9E3779B9 * stream) & 0xFFFFFFFF


def _round_of(counter: Any, key: Key, number: Any) -> Any:
    """A counter for one round of a loop: a random word made of the draw's and the round's number."""
    first, second = (ops.reshape(ops.astype(n, "int32"), (1,)) for n in (counter, number))
    return ops.reshape(ops.threefry_2x32(key, first, second)[0], ())


# ---- shapes and dtypes -------------------------------------------------------------


def _shape_of(shape: Any) -> tuple[Any, ...]:
    sizes = tuple(shape) if isinstance(shape, (list, tuple)) or getattr(shape, "ndim", 0) == 1 else (shape,)
    if any(d is None for d in sizes):
        raise ShapeError(
            "a size is not known", where="shape", expected="sizes", received=str(sizes), fix="Take them of ops.shape(x)"
        )
    return tuple(int(d) if isinstance(d, (np.integer, np.ndarray)) else d for d in sizes)


def _float_dtype(dtype: Any, where: str) -> tuple[str, str]:
    """The dtype of the result, and the one to compute in: at least float32."""
    name = check_dtype(dtype or floatx())
    if not is_float(name):
        raise DTypeError("not a float dtype", where=where, expected="a float dtype", received=name)
    return name, "float64" if name == "float64" else "float32"


def _int_dtype(dtype: Any, where: str) -> str:
    name = check_dtype(dtype)
    if name not in INTS:
        raise DTypeError("not an integer dtype", where=where, expected=" or ".join(INTS), received=name)
    return name


def _parameter(x: Any, shape: tuple[Any, ...], dtype: str) -> Any:
    """A parameter of a distribution, without a gradient, for each element."""
    return ops.broadcast_to(
        ops.stop_gradient(ops.astype(ops.array(x) if isinstance(x, (list, tuple)) else x, dtype)), shape
    )


# ---- normal and uniform --------------------------------------------------------------


def normal(shape: Any, mean: Any = 0.0, stddev: Any = 1.0, dtype: str | None = None, seed: Seed = None) -> Any:
    """Normal numbers; gradients flow to ``mean`` and ``stddev``.

    Args:
        shape: Of the result; may hold sizes of ``ops.shape(x)`` that are not known yet.
        mean: Mean: a number, or an array that broadcasts to the shape.
        stddev: Standard deviation, likewise.
        dtype: A float dtype; the default one if None.
        seed: An int: the same numbers at each call. A `SeedGenerator`: the next ones. None: those of the default
            generator, which `set_random_seed` restarts.

    Example:
        >>> normal((3,), seed=7).round(3).tolist() == normal((3,), seed=7).round(3).tolist()
        True
    """
    name, exact = _float_dtype(dtype, "normal")
    counter, key = _draw(seed)
    z = ops.random_normal(counter, key=key, shape=_shape_of(shape), dtype=exact)
    return ops.add(ops.multiply(ops.astype(z, name), stddev), mean)


def truncated_normal(
    shape: Any, mean: Any = 0.0, stddev: Any = 1.0, dtype: str | None = None, seed: Seed = None
) -> Any:
    """Numbers of a normal distribution cut off at two standard deviations from the mean.

    Each is the quantile of one uniform number, so gradients flow to ``mean`` and ``stddev``.

    Args:
        shape: Of the result; see `normal`.
        mean: Mean: a number, or an array that broadcasts to the shape.
        stddev: Standard deviation before the cut, likewise.
        dtype: A float dtype; the default one if None.
        seed: See `normal`.

    Example:
        >>> bool(abs(truncated_normal((1000,), seed=7)).max() <= 2)
        True
    """
    name, exact = _float_dtype(dtype, "truncated_normal")
    counter, key = _draw(seed)
    u = ops.random_uniform(counter, key=key, shape=_shape_of(shape), dtype=exact)
    y = ops.multiply(ops.subtract(ops.multiply(u, 2.0), 1.0), math.erf(math.sqrt(2)))
    z = ops.clip(ops.multiply(_inverse_erf(y), math.sqrt(2)), minimum=-2.0, maximum=2.0)
    return ops.add(ops.multiply(ops.astype(z, name), stddev), mean)


def _inverse_erf(y: Any) -> Any:
    """The x of ``erf(x) = y``: a formula good to 0.002 (Winitzki 2008), then Newton's steps, which square the error."""
    log, a = ops.log1p(ops.negative(ops.square(y))), 0.147
    half = ops.add(ops.multiply(log, 0.5), 2 / (math.pi * a))
    root = ops.sqrt(ops.subtract(ops.square(half), ops.multiply(log, 1 / a)))
    x = ops.multiply(ops.sign(y), ops.sqrt(ops.maximum(ops.subtract(root, half), 0.0)))
    for _ in range(3):
        slope = ops.multiply(ops.exp(ops.negative(ops.square(x))), 2 / math.sqrt(math.pi))
        x = ops.subtract(x, ops.divide(ops.subtract(ops.erf(x), y), slope))
    return x


def uniform(shape: Any, minval: Any = 0.0, maxval: Any = 1.0, dtype: str | None = None, seed: Seed = None) -> Any:
    """Uniform numbers from ``[minval, maxval)``; gradients flow to both.

    Args:
        shape: Of the result; see `normal`.
        minval: Lower end: a number, or an array that broadcasts to the shape.
        maxval: Upper end, likewise; rounding may reach it where the ends are not 0 and 1.
        dtype: A float dtype; the default one if None.
        seed: See `normal`.

    Example:
        >>> u = uniform((1000,), 2.0, 3.0, seed=7)
        >>> bool((u >= 2).all() and (u <= 3).all())
        True
    """
    name, _ = _float_dtype(dtype, "uniform")
    counter, key = _draw(seed)
    u = ops.random_uniform(counter, key=key, shape=_shape_of(shape), dtype=name)
    return ops.add(ops.multiply(u, ops.subtract(maxval, minval)), minval)


# ---- integers --------------------------------------------------------------------------


def randint(shape: Any, minval: Any, maxval: Any, dtype: str = "int32", seed: Seed = None) -> Any:
    """Uniform integers from ``minval`` up to, but not, ``maxval``.

    Each is the remainder of 62 random bits: no value is more frequent than another by more than one in
    ``2**62 / (maxval - minval)``.

    Args:
        shape: Of the result; see `normal`.
        minval: The least value: an integer, or an array of them that broadcasts to the shape.
        maxval: The end, likewise.
        dtype: An integer dtype.
        seed: See `normal`.

    Raises:
        UnilayersError: if there is no integer between the ends.

    Example:
        >>> sorted(set(randint((100,), 2, 5, seed=7).tolist()))
        [2, 3, 4]
    """
    name = _int_dtype(dtype, "randint")
    low, high = (int(n) if isinstance(n, (int, float, np.number)) else n for n in (minval, maxval))
    if isinstance(low, int) and isinstance(high, int) and not 0 < high - low <= 1 << 62:
        raise UnilayersError(
            "no integers between the ends", where="randint", expected="minval < maxval", received=f"{low} and {high}"
        )
    counter, key = _draw(seed)
    start, end = (np.int64(n) if isinstance(n, int) else ops.astype(n, "int64") for n in (low, high))
    drawn = ops.remainder(_long_bits(counter, key, _shape_of(shape)), ops.subtract(end, start))
    return ops.astype(ops.add(drawn, start), name)


def _long_bits(counter: Any, key: Key, shape: tuple[Any, ...]) -> Any:
    """62 random bits for each element, as int64."""
    lanes = ops.astype(ops.random_bits(counter, key=key, shape=(*shape, 4)), "int64")
    *high, low = (ops.reshape(ops.slice_axis(lanes, len(shape), i, i + 1), shape) for i in range(4))
    shifted = [ops.bitwise_left_shift(lane, by) for lane, by in zip(high, (46, 30, 14), strict=True)]
    return reduce(ops.bitwise_or, [*shifted, ops.bitwise_right_shift(low, 2)])


def categorical(logits: Any, num_samples: int, dtype: str = "int32", seed: Seed = None) -> Any:
    """Classes drawn with the probabilities ``softmax(logits)``.

    Shapes: logits ``(batch, classes)`` -> ``(batch, num_samples)``.

    Args:
        logits: Logarithms of the probabilities, up to a constant in each row.
        num_samples: How many to draw from each row, independently.
        dtype: An integer dtype.
        seed: See `normal`.

    Raises:
        ShapeError: if logits has another number of axes.

    Reference:
        Gumbel's largest-of-noise: Maddison, Tarlow, Minka, A* Sampling, 2014, arXiv:1411.0030.

    Example:
        >>> import numpy as np
        >>> categorical(np.array([[0.0, 50.0, 0.0]]), 4, seed=7).tolist()
        [[1, 1, 1, 1]]
    """
    name, logits = _int_dtype(dtype, "categorical"), ops.array(logits)
    if len(ops.shape_of(logits)) != 2:
        raise ShapeError(
            "not rows of logits", where="categorical", expected="(batch, classes)", received=str(ops.shape_of(logits))
        )
    _, exact = _float_dtype(ops.dtype_of(logits) if is_float(ops.dtype_of(logits)) else None, "categorical")
    batch, classes = ops.shape_of(logits)
    counter, key = _draw(seed)
    u = ops.random_uniform(counter, key=key, shape=(batch, num_samples, classes), dtype=exact)
    waiting = ops.negative(ops.log(ops.maximum(u, 2.0**-40)))  # the class whose time is over first, at rate exp(logit)
    scores = ops.subtract(ops.expand_dims(ops.astype(logits, exact), 1), ops.log(waiting))
    return ops.astype(ops.argmax(scores, -1), name)


# ---- with data ---------------------------------------------------------------------------


def dropout(inputs: Any, rate: float, noise_shape: Sequence[int | None] | None = None, seed: Seed = None) -> Any:
    """The inputs with a random share ``rate`` of the elements set to 0 and the others divided by ``1 - rate``.

    Args:
        inputs: Any shape; floats.
        rate: Between 0 and 1.
        noise_shape: Shape of the mask, which broadcasts to the inputs; None at an axis stands for their size.
        seed: See `normal`.

    Raises:
        ShapeError: if ``noise_shape`` does not broadcast to the inputs.
        UnilayersError: if ``rate`` is not between 0 and 1.

    Example:
        >>> import numpy as np
        >>> sorted(set(dropout(np.ones(100, "float32"), 0.5, seed=7).tolist()))
        [0.0, 2.0]
    """
    check_value(rate, Probability, "dropout.rate")
    return dropped(inputs, rate, noise_shape, *_draw(seed))


def dropped(x: Any, rate: float, noise_shape: Sequence[Any] | None, counter: Any, key: Key) -> Any:
    """`dropout` by the mask of a counter and a key."""
    if noise_shape is None:
        return ops.dropout(x, counter, rate=rate, key=key)
    ones = ops.full(mask_shape(noise_shape, ops.shape_of(x)), 1.0, ops.dtype_of(x))
    return ops.multiply(x, ops.dropout(ones, counter, rate=rate, key=key))


def mask_shape(noise_shape: Sequence[Any], shape: Sequence[Any]) -> tuple[Any, ...]:
    """The shape of a mask for x of ``shape``: x's sizes where ``noise_shape`` has None."""
    wanted = list(noise_shape)
    if len(wanted) != len(shape) or any(n not in (None, 1, d) for n, d in zip(wanted, shape, strict=True)):
        raise ShapeError(
            "noise_shape does not broadcast to the input",
            expected="per axis None, 1 or the input's size",
            received=f"{tuple(wanted)} for {tuple(shape)}",
        )
    return tuple(d if n is None else n for n, d in zip(wanted, shape, strict=True))


def shuffle(x: Any, axis: int = 0, seed: Seed = None) -> Any:
    """x with its slices along one axis in random order.

    Args:
        x: Any shape.
        axis: The axis.
        seed: See `normal`.

    Example:
        >>> import numpy as np
        >>> sorted(shuffle(np.arange(4), seed=7).tolist())
        [0, 1, 2, 3]
    """
    shape = ops.shape_of(x)
    axis = normalize_axis(axis, len(shape))
    counter, key = _draw(seed)
    return ops.take(x, order_at(counter, key, shape[axis]), axis)


def order_at(counter: Any, key: Key, count: Any) -> Any:
    """The numbers from 0 to count - 1 in the random order of a counter and a key."""
    return ops.argsort(_long_bits(counter, key, (count,)))


# ---- distributions drawn by rejection -------------------------------------------------------

ROUNDS = 64  # of a loop at most: one more is needed with a probability below 1e-80


def gamma(shape: Any, alpha: Any, dtype: str | None = None, seed: Seed = None) -> Any:
    """Numbers of a gamma distribution with rate 1; no gradient flows to ``alpha``.

    Args:
        shape: Of the result; see `normal`.
        alpha: The distribution's shape parameter: a positive number, or an array that broadcasts to the shape; NaN
            comes of others.
        dtype: A float dtype; the default one if None.
        seed: See `normal`.

    Reference:
        Marsaglia, Tsang, A Simple Method for Generating Gamma Variables, 2000, with a loop until all are accepted.

    Example:
        >>> bool(abs(gamma((10000,), 3.0, seed=7).mean() - 3) < 0.1)
        True
    """
    name, exact = _float_dtype(dtype, "gamma")
    counter, key = _draw(seed)
    alpha = _parameter(alpha, _shape_of(shape), exact)
    whole, log_part = _gamma_parts(counter, key, alpha, exact)
    return ops.astype(ops.multiply(whole, ops.exp(log_part)), name)


def beta(shape: Any, alpha: Any, beta: Any, dtype: str | None = None, seed: Seed = None) -> Any:
    """Numbers of a beta distribution, each made of two gamma numbers; no gradient flows to the parameters.

    Args:
        shape: Of the result; see `normal`.
        alpha: First parameter: a positive number, or an array that broadcasts to the shape; NaN comes of others.
        beta: Second parameter, likewise.
        dtype: A float dtype; the default one if None.
        seed: See `normal`.

    Example:
        >>> bool(abs(beta((10000,), 1.0, 3.0, seed=7).mean() - 0.25) < 0.01)
        True
    """
    name, exact = _float_dtype(dtype, "beta")
    counter, key = _draw(seed)
    first, second = (_parameter(x, _shape_of(shape), exact) for x in (alpha, beta))
    return ops.astype(beta_at(counter, key, first, second, exact), name)


def beta_at(counter: Any, key: Key, alpha: Any, beta: Any, dtype: str) -> Any:
    """`beta` by a counter and a key, for parameters of the result's shape and dtype."""
    # By logarithms, as both gamma numbers may be too small for a float.
    logs = [
        ops.add(ops.log(whole), log_part)
        for whole, log_part in (
            _gamma_parts(counter, _apart(key, 4 + 4 * i), x, dtype) for i, x in enumerate((alpha, beta))
        )
    ]
    return ops.sigmoid(ops.subtract(logs[0], logs[1]))


def _gamma_parts(counter: Any, key: Key, alpha: Any, dtype: str) -> tuple[Any, Any]:
    """A gamma number for each alpha as a factor and the logarithm of another.

    Below alpha = 1 these are a number for alpha + 1, and that of a uniform number's power 1 / alpha.
    """
    shape, valid = ops.shape_of(alpha), ops.greater(alpha, 0.0)
    alpha = ops.where(valid, alpha, 1.0)
    small = ops.less(alpha, 1.0)
    d = ops.subtract(ops.where(small, ops.add(alpha, 1.0), alpha), 1 / 3)
    c = ops.rsqrt(ops.multiply(d, 9.0))

    def another(number: Any, done: Any, found: Any) -> tuple[Any, Any, Any]:
        word = _round_of(counter, key, number)
        z = ops.random_normal(word, key=_apart(key, 1), shape=shape, dtype=dtype)
        u = ops.random_uniform(word, key=_apart(key, 2), shape=shape, dtype=dtype)
        v = ops.power(ops.add(ops.multiply(c, z), 1.0), 3.0)
        log_v = ops.log(ops.maximum(v, 1e-30))
        bound = ops.add(ops.multiply(ops.square(z), 0.5), ops.multiply(d, ops.add(ops.subtract(1.0, v), log_v)))
        good = ops.logical_and(ops.greater(v, 0.0), ops.less(ops.log1p(ops.negative(u)), bound))
        return ops.add(number, 1), ops.logical_or(done, good), ops.where(done, found, v)

    start = (np.int32(0), ops.full(shape, 0, "bool"), ops.full(shape, 1.0, dtype))
    _, _, v = ops.while_loop(lambda number, done, found: ops.logical_not(ops.all(done)), another, start, ROUNDS)
    u = ops.random_uniform(counter, key=_apart(key, 3), shape=shape, dtype=dtype)
    log_part = ops.where(small, ops.divide(ops.log1p(ops.negative(u)), alpha), 0.0)
    return ops.where(valid, ops.multiply(d, v), math.nan), log_part


def binomial(shape: Any, counts: Any, probabilities: Any, dtype: str | None = None, seed: Seed = None) -> Any:
    """Numbers of a binomial distribution: how many of ``counts`` trials succeed.

    Of n uniform numbers the middle one, which has a beta distribution, is drawn; it decides about those below or above
    it, and the same is done with the rest: exact but for rounding, in ``log2(n)`` rounds.

    Args:
        shape: Of the result; see `normal`.
        counts: Trials: a whole number of at least 0 and, in float32, up to 2**24, or an array that broadcasts to the
            shape; NaN comes of others.
        probabilities: Of success, from 0 to 1, likewise.
        dtype: A float dtype; the default one if None.
        seed: See `normal`.

    Reference:
        Devroye, Non-Uniform Random Variate Generation, 1986, section X.4.3 (recursive methods).

    Example:
        >>> bool(abs(binomial((10000,), 10, 0.3, seed=7).mean() - 3) < 0.1)
        True
    """
    name, exact = _float_dtype(dtype, "binomial")
    counter, key = _draw(seed)
    total, p = (_parameter(x, _shape_of(shape), exact) for x in (counts, probabilities))
    often = ops.greater(p, 0.5)
    first = ops.where(often, ops.subtract(1.0, p), p)  # the rarer outcome's probability is known better

    def halved(number: Any, left: Any, p: Any, found: Any) -> tuple[Any, Any, Any, Any]:
        middle = ops.floor(ops.multiply(ops.add(left, 1.0), 0.5))
        above = ops.subtract(ops.add(left, 1.0), middle)
        word = _round_of(counter, key, number)
        place = beta_at(word, key, ops.maximum(middle, 1.0), ops.maximum(above, 1.0), exact)
        low = ops.logical_and(ops.less_equal(place, p), ops.greater(left, 0.0))
        after = ops.where(low, ops.divide(ops.subtract(p, place), ops.subtract(1.0, place)), ops.divide(p, place))
        rest = ops.where(low, ops.subtract(left, middle), ops.subtract(middle, 1.0))
        return (
            ops.add(number, 1), ops.maximum(rest, 0.0), ops.clip(after, minimum=0.0, maximum=1.0),
            ops.add(found, ops.where(low, middle, 0.0)),
        )  # fmt: skip

    start = (np.int32(0), total, first, ops.full(_shape_of(shape), 0.0, exact))
    *_, found = ops.while_loop(lambda number, left, p, found: ops.any(ops.greater(left, 0.0)), halved, start, ROUNDS)
    found = ops.where(often, ops.subtract(total, found), found)
    valid = ops.logical_and(ops.greater_equal(p, 0.0), ops.less_equal(p, 1.0))
    valid = ops.logical_and(ops.greater_equal(total, 0.0), valid)
    return ops.astype(ops.where(valid, found, math.nan), name)
