"""Initializers against the closed forms of their distributions, and seeds against the order of creation."""

from __future__ import annotations

import inspect
import math
import os
from typing import Any

import numpy as np
import pytest
from scipy import stats

from unilayers import initializers, random
from unilayers.errors import DTypeError, ShapeError, UnilayersError
from unilayers.initializers import Initializer, compute_fans
from unilayers.registry import parameters, resolve, serialize, snake_case

CLASSES = sorted((c for c in Initializer.registry if c.__module__ == initializers.__name__), key=lambda c: c.__name__)
RANDOM = [c for c in CLASSES if "seed" in parameters(c)]
SHAPE, CONV = (120, 250), (3, 5, 40, 60)  # 30,000 and 36,000 values


def truncated(stddev: float) -> Any:
    return stats.truncnorm(-2, 2, scale=stddev)


def scaled_truncated(variance: float) -> Any:
    """A normal cut at two standard deviations whose variance after the cut is ``variance``."""
    return truncated(math.sqrt(variance / stats.truncnorm(-2, 2).var()))


def scaled_uniform(variance: float) -> Any:
    return stats.uniform(-math.sqrt(3 * variance), 2 * math.sqrt(3 * variance))


@pytest.fixture(scope="module")
def keras() -> Any:
    os.environ.setdefault("KERAS_BACKEND", "torch")
    return pytest.importorskip("keras")


AXES = {"input_axes": [1, -1], "output_axes": [0]}
DENSE_IN, DENSE_OUT, CONV_IN, CONV_OUT = 120, 250, 15 * 40, 15 * 60
DISTRIBUTIONS = [
    ("random_normal", {}, SHAPE, stats.norm(0, 0.05)),
    ("random_normal", {"mean": 1.0, "stddev": 2.0}, SHAPE, stats.norm(1, 2)),
    ("random_uniform", {}, SHAPE, stats.uniform(-0.05, 0.1)),
    ("random_uniform", {"minval": 1, "maxval": 3}, SHAPE, stats.uniform(1, 2)),
    ("truncated_normal", {}, SHAPE, truncated(0.05)),
    ("truncated_normal", {"mean": 3.0, "stddev": 0.5}, SHAPE, stats.truncnorm(-2, 2, loc=3, scale=0.5)),
    ("glorot_uniform", {}, SHAPE, scaled_uniform(2 / (DENSE_IN + DENSE_OUT))),
    ("glorot_uniform", {}, CONV, scaled_uniform(2 / (CONV_IN + CONV_OUT))),
    ("glorot_normal", {}, SHAPE, scaled_truncated(2 / (DENSE_IN + DENSE_OUT))),
    ("glorot_normal", {}, CONV, scaled_truncated(2 / (CONV_IN + CONV_OUT))),
    ("he_uniform", {}, SHAPE, scaled_uniform(2 / DENSE_IN)),
    ("he_uniform", {}, CONV, scaled_uniform(2 / CONV_IN)),
    ("he_normal", {}, SHAPE, scaled_truncated(2 / DENSE_IN)),
    ("he_normal", {}, CONV, scaled_truncated(2 / CONV_IN)),
    ("lecun_uniform", {}, SHAPE, scaled_uniform(1 / DENSE_IN)),
    ("lecun_normal", {}, CONV, scaled_truncated(1 / CONV_IN)),
    ("variance_scaling", {}, SHAPE, scaled_truncated(1 / DENSE_IN)),
    ("variance_scaling", {"mode": "fan_out", "distribution": "normal"}, SHAPE, scaled_truncated(1 / DENSE_OUT)),
    (
        "variance_scaling",
        {"scale": 3, "mode": "fan_avg", "distribution": "untruncated_normal"},
        SHAPE,
        stats.norm(0, math.sqrt(6 / (DENSE_IN + DENSE_OUT))),
    ),
    ("variance_scaling", {"scale": 0.5, "distribution": "uniform"}, SHAPE, scaled_uniform(0.5 / DENSE_IN)),
    ("variance_scaling", AXES, (20, 30, 50), scaled_truncated(1 / (30 * 50))),
    ("glorot_uniform", AXES, (20, 30, 50), scaled_uniform(2 / (30 * 50 + 20))),
    ("he_normal", {"input_axes": [0]}, SHAPE, scaled_truncated(2 / DENSE_IN)),
]


@pytest.mark.parametrize(("name", "arguments", "shape", "expected"), DISTRIBUTIONS)
def test_distribution(name: str, arguments: dict[str, Any], shape: tuple[int, ...], expected: Any) -> None:
    values = resolve(Initializer.registry, {name: arguments | {"seed": 5}})(shape, "float64")
    assert values.shape == shape
    # 30,000 values: the test would notice a width that is 1.5 percent off.
    assert stats.kstest(values.ravel(), expected.cdf).pvalue > 1e-3
    low, high = expected.support()
    assert low <= values.min() and values.max() <= high
    assert values.std() == pytest.approx(expected.std(), rel=0.015)


@pytest.mark.parametrize(("name", "arguments", "shape"), [d[:3] for d in DISTRIBUTIONS])
def test_distribution_is_that_of_keras(
    keras: Any, name: str, arguments: dict[str, Any], shape: tuple[int, ...]
) -> None:
    ours = resolve(Initializer.registry, {name: arguments | {"seed": 5}})(shape)
    theirs = keras.ops.convert_to_numpy(getattr(keras.initializers, name)(**arguments, seed=6)(shape))
    assert stats.ks_2samp(ours.ravel(), theirs.ravel()).pvalue > 1e-3


@pytest.mark.parametrize("cls", CLASSES)
def test_names_arguments_and_defaults_are_those_of_keras(keras: Any, cls: type[Initializer]) -> None:
    theirs = getattr(keras.initializers, snake_case(cls.__name__))
    assert getattr(initializers, snake_case(cls.__name__)) is cls and theirs.__name__ == cls.__name__
    mine, other = (inspect.signature(c).parameters.values() for c in (cls, theirs))
    assert [(p.name, p.default) for p in mine] == [
        (p.name, p.default) for p in other if p.kind is p.POSITIONAL_OR_KEYWORD
    ]


def test_every_random_initializer_is_tested_against_its_distribution() -> None:
    tested = {Initializer.registry.get(name) for name, *_ in DISTRIBUTIONS} | {initializers.Orthogonal}
    assert set(RANDOM) == tested


def test_the_truncation_s_standard_deviation() -> None:
    assert pytest.approx(stats.truncnorm(-2, 2).std(), rel=1e-12) == initializers.TRUNCATED_STDDEV


@pytest.mark.parametrize("shape", [(40, 10), (10, 40), (7, 7), (3, 3, 4, 20), (2, 3, 50)])
def test_orthogonal(shape: tuple[int, ...]) -> None:
    gain = 1.5
    matrix = initializers.Orthogonal(gain, seed=1)(shape, "float64").reshape(-1, shape[-1])
    product = matrix.T @ matrix if matrix.shape[0] >= matrix.shape[1] else matrix @ matrix.T
    np.testing.assert_allclose(product, gain**2 * np.eye(min(matrix.shape)), atol=1e-12)


@pytest.mark.parametrize("side", ["real", "imag"])
@pytest.mark.parametrize("scaling", ["density", "spectrum", None])
@pytest.mark.parametrize(
    "window", ["hann", "hamming", "blackman", "bartlett", "boxcar", None, [1.0, -2.0, 3.0, 0.5, 2.0]]
)
def test_waves_are_those_of_keras(keras: Any, side: str, scaling: Any, window: Any) -> None:
    for shape, periodic in (((5, 1, 5), True), ((5, 1, 9), False)):
        arguments = {"side": side, "scaling": scaling, "window": window, "periodic": periodic}
        theirs = keras.ops.convert_to_numpy(keras.initializers.STFT(**arguments)(shape, dtype="float64"))
        mine = initializers.STFT(**arguments)(shape, "float64")
        np.testing.assert_allclose(mine, theirs, atol=1e-6)


def test_orthogonal_matrices_are_uniform() -> None:
    # Of a uniform orthogonal 3x3 matrix each entry is uniform in [-1, 1] (a coordinate of a point on the sphere).
    draw = initializers.Orthogonal()
    matrices = np.array([draw((3, 3), "float64", generator=random.generator(0, str(i))) for i in range(2000)])
    for entry in matrices.reshape(2000, 9).T:
        assert stats.kstest(entry, stats.uniform(-1, 2).cdf).pvalue > 1e-4


@pytest.mark.parametrize(
    ("initializer", "shape", "expected"),
    [
        (initializers.Zeros(), (2, 3), np.zeros((2, 3))),
        (initializers.Ones(), (), np.array(1.0)),
        (initializers.Constant(0.25), (2, 1), np.full((2, 1), 0.25)),
        (initializers.Constant([[1, 2], [3, 4]]), (2, 2), np.array([[1, 2], [3, 4]])),
        (initializers.Identity(3), (3, 2), 3 * np.eye(3, 2)),
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "float64", "int32"])
def test_constants(initializer: Initializer, shape: tuple[int, ...], expected: np.ndarray, dtype: str) -> None:
    values = initializer(shape, dtype)
    np.testing.assert_array_equal(values, expected.astype(dtype), strict=True)
    assert values.flags.writeable and values.flags.c_contiguous


@pytest.mark.parametrize(
    ("shape", "fans"),
    [((), (1, 1)), ((7,), (7, 7)), ((3, 5), (3, 5)), ((4, 3, 5), (12, 20)), ((2, 4, 3, 5), (24, 40))],
)
def test_fans(shape: tuple[int, ...], fans: tuple[int, int]) -> None:
    assert compute_fans(shape) == fans


# ---- for every initializer ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("cls", CLASSES)
def test_config_round_trip_and_names(cls: type[Initializer]) -> None:
    initializer = cls()
    assert resolve(Initializer.registry, serialize(initializer)) == initializer
    for identifier in (
        cls.__name__,
        cls,
        initializer,
        {"class_name": cls.__name__, "config": initializer.get_config()},
    ):
        assert initializers.get(identifier) == initializer
    assert getattr(initializers, cls.__name__) is cls


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize("shape", [(3, 3), (0, 4)])
def test_float32_starts_from_the_same_numbers_as_float64(cls: type[Initializer], shape: tuple[int, ...]) -> None:
    single, double = (cls()(shape, dtype, generator=random.generator(1, "w")) for dtype in ("float32", "float64"))
    assert single.dtype == np.float32 and double.dtype == np.float64 and double.shape == shape
    np.testing.assert_array_equal(single, double.astype(np.float32), strict=True)


@pytest.mark.parametrize("cls", RANDOM)
def test_streams(cls: type[Initializer]) -> None:
    shape = (4, 5)
    by_path = {path: cls()(shape, generator=random.generator(3, path)) for path in ("a", "b", "c")}
    backwards = {path: cls()(shape, generator=random.generator(3, path)) for path in ("c", "b", "a")}
    for path in by_path:
        np.testing.assert_array_equal(by_path[path], backwards[path])
    assert not np.array_equal(by_path["a"], by_path["b"])
    assert not np.array_equal(by_path["a"], cls()(shape, generator=random.generator(4, "a")))
    # An own seed decides whatever generator is passed, at every call.
    seeded = cls(seed=9)
    np.testing.assert_array_equal(seeded(shape), seeded(shape, generator=random.generator(3, "a")))
    assert not np.array_equal(seeded(shape), cls(seed=10)(shape))


@pytest.mark.parametrize("cls", RANDOM)
def test_without_generator_and_seed_the_default_seed_decides(cls: type[Initializer]) -> None:
    before = random.default_seed()
    try:
        random.set_random_seed(11)
        expected = cls()((3, 4), generator=random.generator(11, cls.__name__))
        np.testing.assert_array_equal(cls()((3, 4)), expected)
        random.set_random_seed(12)
        assert not np.array_equal(cls()((3, 4)), expected)
    finally:
        random.set_random_seed(before)


# ---- get ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "cls"),
    [
        ("xavier", initializers.GlorotUniform),
        ("xavier_uniform", initializers.GlorotUniform),
        ("XavierNormal", initializers.GlorotNormal),
        ("xavier_normal", initializers.GlorotNormal),
        ("zero", initializers.Zeros),
        ("one", initializers.Ones),
        ("normal", initializers.RandomNormal),
        ("uniform", initializers.RandomUniform),
        ("lecun_normal", initializers.LecunNormal),
        ("OrthogonalInitializer", initializers.Orthogonal),
        ("IdentityInitializer", initializers.Identity),
    ],
)
def test_aliases(name: str, cls: type[Initializer]) -> None:
    assert type(initializers.get(name)) is cls


def test_xavier_is_glorot_in_python_too() -> None:
    assert initializers.XavierUniform is initializers.GlorotUniform
    assert initializers.XavierNormal is initializers.GlorotNormal


def test_get_takes_none_mappings_and_arrays() -> None:
    assert initializers.get(None) is None
    assert initializers.get({"RandomNormal": {"stddev": 0.01}}) == initializers.RandomNormal(stddev=0.01)
    given = np.arange(6.0).reshape(2, 3)
    np.testing.assert_array_equal(initializers.get(given)((2, 3)), given.astype(np.float32), strict=True)
    with pytest.raises(ShapeError) as caught:
        initializers.get(given)((3, 2))
    assert str(caught.value) == (
        "Constant: the array does not have the weight's shape. Expected shape (3, 2). Received shape (2, 3)."
    )


def test_functions() -> None:
    def halves(shape: Any, dtype: Any) -> Any:
        return [[0.5] * shape[1]] * shape[0]

    def noise(shape: Any, dtype: Any = None, *, generator: np.random.Generator) -> Any:
        return generator.random(shape)

    np.testing.assert_array_equal(initializers.get(halves)((2, 3)), np.full((2, 3), 0.5, np.float32), strict=True)
    expected = random.generator(1, "w").random((2, 3)).astype(np.float32)
    np.testing.assert_array_equal(initializers.get(noise)((2, 3), generator=random.generator(1, "w")), expected)
    with pytest.raises(ShapeError, match="<lambda>: the function's values do not have the weight's shape"):
        initializers.get(lambda shape, dtype: np.zeros(3))((2,))


class _KerasStyle(Initializer):
    """An initializer as Keras's guide writes one: no generator, hand-written constructor and config."""

    def __init__(self, value):
        self.value = value

    def __call__(self, shape, dtype=None, **kwargs):
        return np.full(shape, self.value, dtype)

    def get_config(self):
        return {"value": self.value}


def test_an_initializer_written_for_keras() -> None:
    values = initializers.get(_KerasStyle(0.5))((2,), "float32", generator=random.generator(0, ""))
    np.testing.assert_array_equal(values, np.full(2, 0.5, np.float32), strict=True)
    assert _KerasStyle.from_config(_KerasStyle(0.5).get_config()) == _KerasStyle(0.5)


@pytest.mark.parametrize(
    ("identifier", "message"),
    [
        (
            "glorot_unform",
            "Dense.kernel_initializer: unknown initializer 'glorot_unform'. Did you mean 'GlorotUniform'?",
        ),
        (
            {"RandomNormal": {"std": 1}},
            "Dense.kernel_initializer > RandomNormal: unknown argument 'std'. Did you mean 'stddev'?",
        ),
        (
            {"VarianceScaling": {"mode": "fan"}},
            "Dense.kernel_initializer > VarianceScaling.mode: a value that does not fit. "
            "Expected 'fan_in' or 'fan_out' or 'fan_avg'. Received 'fan' (str).",
        ),
        (
            3,
            "Dense.kernel_initializer: not an initializer. "
            "Expected a name, {name: arguments}, or an initializer object. Received 3 (int).",
        ),
    ],
)
def test_get_says_what_is_wrong(identifier: Any, message: str) -> None:
    with pytest.raises(UnilayersError) as caught:
        initializers.get(identifier, where="Dense.kernel_initializer")
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("initializer", "shape", "message"),
    [
        (
            initializers.Identity(),
            (3,),
            "Identity: no identity of this shape. Expected shape (rows, columns). Received (3,).",
        ),
        (
            initializers.STFT(),
            (3,),
            "STFT: no waves of this shape. Expected at least two dimensions. Received (3,).",
        ),
        (
            initializers.STFT(window=[1.0, 2.0]),
            (3, 2),
            "window: the window has another length. Expected shape (3,). Received (2,).",
        ),
        (
            initializers.Orthogonal(),
            (3,),
            "Orthogonal: no orthogonal matrix of this shape. Expected at least two dimensions. Received (3,).",
        ),
        (
            initializers.Zeros(),
            (None, 3),
            "not a weight's shape. Expected whole numbers of at least 0. Received (None, 3).",
        ),
        (initializers.Zeros(), (-1,), "not a weight's shape. Expected whole numbers of at least 0. Received (-1,)."),
    ],
)
def test_shapes_without_values(initializer: Initializer, shape: Any, message: str) -> None:
    with pytest.raises(ShapeError) as caught:
        initializer(shape)
    assert str(caught.value) == message


def test_an_unknown_dtype() -> None:
    with pytest.raises(DTypeError, match="NumPy has no dtype 'float33'"):
        initializers.Zeros()((2,), "float33")


def test_an_initializer_without_values_says_so() -> None:
    class _Empty(Initializer):
        pass

    with pytest.raises(NotImplementedError, match=r"_Empty has no values\(shape, generator\)"):
        _Empty()((2,))


# ---- random -------------------------------------------------------------------------------------------------------


def test_golden_keys_and_numbers() -> None:
    """Made once; another machine, Python or NumPy that gives other numbers would break saved experiments."""
    assert random.key_of(0, "") == (214220241, 2654528695)
    assert random.key_of(7, "dense/kernel") == (2097763111, 2895452837)
    assert random.key_of(2**64, "é") == (2853738548, 2603542500)
    glorot = initializers.GlorotUniform(seed=7)((2, 2), "float64").ravel().tolist()
    assert glorot == [0.6619606845113531, -1.1322966517445117, -1.0498509848631485, 0.4882115905551028]
    he = initializers.HeNormal(seed=7)((2, 2)).ravel().tolist()
    assert he == [0.405103862285614, -0.5770369172096252, 0.7728298306465149, 1.1803994178771973]
    assert random.permutation(8, seed=7, epoch=1).tolist() == [3, 6, 1, 7, 4, 5, 2, 0]


def test_keys_differ_by_seed_and_path_and_do_not_run_together() -> None:
    keys = {random.key_of(seed, path) for seed in range(20) for path in ("", "0", "1", "a", "a/b", "a_b", "1/a")}
    assert len(keys) == 140
    assert all(0 <= word < 2**32 for key in keys for word in key)


@pytest.mark.parametrize("seed", [-1, 1.5, "7", None, True])
def test_what_is_no_seed(seed: Any) -> None:
    with pytest.raises(UnilayersError, match=r"seed: not a seed\. Expected an int of at least 0\."):
        random.set_random_seed(seed)
    with pytest.raises(UnilayersError, match="not a seed"):
        random.generator(seed, "a")
    assert random.default_seed() == 0


def test_numpy_s_own_generator_is_left_alone() -> None:
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    initializers.RandomNormal()((3, 3))
    random.set_random_seed(0)
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002


@pytest.mark.parametrize("n", [0, 1, 10])
def test_permutation(n: int) -> None:
    orders = [random.permutation(n, seed, epoch) for seed in (0, 1) for epoch in (0, 1)]
    assert all(sorted(order.tolist()) == list(range(n)) for order in orders)
    if n == 10:
        assert len({tuple(order.tolist()) for order in orders}) == 4
    np.testing.assert_array_equal(random.permutation(n, 0, 1), orders[1])
