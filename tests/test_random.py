"""Random numbers: against the distributions of SciPy, equal on every backend, new at every step, and saved."""

from __future__ import annotations

import inspect
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

import unilayers as ul
from tests.compare import assert_close
from tests.conftest import require_backend
from unilayers import initializers, layers, ops, random
from unilayers.autodiff import GradientTape
from unilayers.backend import Backend
from unilayers.errors import DTypeError, ShapeError, UnilayersError
from unilayers.random import SeedGenerator
from unilayers.recipe import Recipe
from unilayers.registry import parameters

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Keras's own

N = 20_000


@pytest.fixture(autouse=True)
def default_seed() -> Iterator[None]:
    yield
    random.set_random_seed(0)


@pytest.fixture(scope="module")
def keras() -> Any:
    os.environ.setdefault("KERAS_BACKEND", "torch")
    return pytest.importorskip("keras")


# ---- distributions -----------------------------------------------------------------

LOGITS = np.log([[0.1, 0.2, 0.7], [0.5, 0.49, 0.01]])
CONTINUOUS: list[tuple[str, dict[str, Any], Any]] = [
    ("normal", {}, stats.norm()),
    ("normal", {"mean": 3.0, "stddev": 0.5}, stats.norm(3, 0.5)),
    ("uniform", {}, stats.uniform()),
    ("uniform", {"minval": -2, "maxval": 5}, stats.uniform(-2, 7)),
    ("truncated_normal", {}, stats.truncnorm(-2, 2)),
    ("truncated_normal", {"mean": 1.0, "stddev": 2.0}, stats.truncnorm(-2, 2, loc=1, scale=2)),
    *(("gamma", {"alpha": a}, stats.gamma(a)) for a in (0.1, 0.5, 1.0, 2.5, 40.0)),
    *(
        ("beta", {"alpha": a, "beta": b}, stats.beta(a, b))
        for a, b in ((0.3, 0.6), (1.0, 1.0), (4.0, 0.5), (30.0, 70.0))
    ),
]
DISCRETE: list[tuple[str, dict[str, Any], Any]] = [
    ("randint", {"minval": -3, "maxval": 8}, stats.randint(-3, 8)),
    *(
        ("binomial", {"counts": n, "probabilities": p}, stats.binom(n, p))
        for n, p in ((1, 0.3), (10, 0.7), (40, 0.5), (1000, 0.004), (3000, 0.9), (5, 0.0), (5, 1.0), (0, 0.5))
    ),
]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("name", "arguments", "expected"), CONTINUOUS)
def test_distribution(name: str, arguments: dict[str, Any], expected: Any, dtype: str) -> None:
    values = getattr(random, name)((N // 4, 4), **arguments, dtype=dtype, seed=5)
    assert values.shape == (N // 4, 4) and values.dtype == dtype
    assert stats.kstest(values.ravel().astype("float64"), expected.cdf).pvalue > 1e-3
    low, high = expected.support()
    assert low <= values.min() and values.max() <= high


@pytest.mark.parametrize(("name", "arguments", "expected"), DISCRETE)
def test_discrete_distribution(name: str, arguments: dict[str, Any], expected: Any) -> None:
    values = ops.to_numpy(getattr(random, name)((N,), **arguments, seed=6)).astype("int64")
    found, low = np.bincount(values - values.min()), values.min()
    wanted = expected.pmf(np.arange(low, low + len(found))) * N
    assert wanted.sum() > 0.99 * N
    often = wanted >= 5
    assert stats.chisquare(
        np.append(found[often], found[~often].sum()) + 1e-9, np.append(wanted[often], N - wanted[often].sum()) + 1e-9
    ).pvalue > 1e-3  # fmt: skip


def test_categories_have_their_probabilities() -> None:
    drawn = random.categorical(LOGITS, N, seed=7)
    assert drawn.shape == (2, N) and drawn.dtype == "int32"
    for row, logits in zip(drawn, LOGITS, strict=True):
        assert stats.chisquare(np.bincount(row, minlength=3), np.exp(logits) * N).pvalue > 1e-3
    assert abs(np.corrcoef(drawn[0], drawn[1])[0, 1]) < 4 / N**0.5
    certain = random.categorical(np.array([[0.0, -np.inf], [-1e4, 0.0]]), 50, dtype="int64", seed=7)
    assert certain.dtype == "int64" and certain.tolist() == [[0] * 50, [1] * 50]


def test_orders_are_even() -> None:
    seeds = SeedGenerator(3)
    orders = [tuple(random.shuffle(np.arange(3), seed=seeds).tolist()) for _ in range(1200)]
    found = [orders.count(o) for o in {*orders}]
    assert len(found) == 6 and stats.chisquare(found).pvalue > 1e-3
    table = np.arange(12.0).reshape(3, 4)
    columns = random.shuffle(table, axis=-1, seed=4)
    assert sorted(columns[0].tolist()) == table[0].tolist() and columns[0].tolist() != table[0].tolist()
    np.testing.assert_array_equal(columns - columns[:1], table - table[:1])


def test_long_integers_reach_all_of_their_range() -> None:
    drawn = random.randint((N,), -(2**61), 2**61, dtype="int64", seed=1)
    assert stats.kstest(drawn / 2.0**61, stats.uniform(-1, 2).cdf).pvalue > 1e-3
    assert len(set((drawn & 0xFFFF).tolist())) > 0.2 * 2**16
    ends = random.randint((4, N), np.array([[0], [5], [-9], [2]]), np.array([[1], [7], [-5], [200]]), seed=1)
    assert [(int(row.min()), int(row.max())) for row in ends] == [(0, 0), (5, 6), (-9, -6), (2, 199)]


def test_parameters_for_each_element() -> None:
    a = np.array([0.5, 2.0, -1.0, np.nan])
    drawn = random.gamma((N, 4), a, seed=2)
    assert np.isnan(drawn[:, 2:]).all()
    for i in (0, 1):
        assert stats.kstest(drawn[:, i].astype("float64"), stats.gamma(a[i]).cdf).pvalue > 1e-3
    n, p = np.array([3.0, 8.0, -1.0, 5.0]), np.array([0.5, 0.25, 0.5, 1.5])
    drawn = random.binomial((N, 4), n, p, seed=2)
    assert np.isnan(drawn[:, 2:]).all()
    assert_close(drawn[:, :2].mean(0).astype("float64"), (n * p)[:2], rtol=0.03, atol=0, what="means")
    assert not np.isnan(random.beta((N,), 1e-3, 1e-3, seed=2)).any()  # both gamma numbers are 0 in float32


def test_half_floats_are_float32_s_rounded() -> None:
    for name in ("normal", "truncated_normal"):
        wide, narrow = (getattr(random, name)((1000,), seed=3, dtype=d) for d in ("float32", "float16"))
        np.testing.assert_array_equal(narrow, wide.astype("float16"), strict=True)


# ---- seeds --------------------------------------------------------------------------

DRAWS: dict[str, Callable[[Any], Any]] = {
    "normal": lambda seed: random.normal((4, 3), 1.0, 2.0, seed=seed),
    "uniform": lambda seed: random.uniform((4, 3), -1.0, 2.0, seed=seed),
    "truncated_normal": lambda seed: random.truncated_normal((4, 3), seed=seed),
    "randint": lambda seed: random.randint((4, 3), 0, 1000, seed=seed),
    "categorical": lambda seed: random.categorical(np.zeros((4, 50), "float32"), 3, seed=seed),
    "dropout": lambda seed: random.dropout(np.ones((4, 9), "float32"), 0.5, seed=seed),
    "shuffle": lambda seed: random.shuffle(np.arange(30), seed=seed),
    "gamma": lambda seed: random.gamma((4, 3), [0.5, 1.0, 3.0], seed=seed),
    "beta": lambda seed: random.beta((4, 3), 2.0, [0.5, 1.0, 3.0], seed=seed),
    "binomial": lambda seed: random.binomial((4, 3), [3, 10, 1000], 0.4, seed=seed),
}
each_draw = pytest.mark.parametrize("name", DRAWS)


def test_names_arguments_and_defaults_are_those_of_keras(keras: Any) -> None:
    names = {n for n in dir(keras.random) if not n.startswith("_") and n != "SeedGenerator"}
    assert names == set(DRAWS)
    for name in names:
        mine, theirs = (inspect.signature(getattr(m, name)).parameters.values() for m in (random, keras.random))
        assert [(p.name, p.default) for p in mine] == [(p.name, p.default) for p in theirs], name
    theirs = inspect.signature(keras.random.SeedGenerator).parameters
    assert [(n, p.default) for n, p in parameters(SeedGenerator).items()] == [
        (n, p.default) for n, p in theirs.items() if p.kind is not p.VAR_KEYWORD
    ]


@each_draw
def test_seeds(name: str) -> None:
    draw = DRAWS[name]

    def some(seed: Any) -> list[Any]:
        return [ops.to_numpy(draw(seed)).tolist() for _ in range(2)]

    again = some(7)
    assert again[0] == again[1] != some(8)[0]
    first, second = some(SeedGenerator(7))
    assert first == again[0] != second
    assert some(SeedGenerator(7)) == [first, second]
    random.set_random_seed(5)
    one, two = some(None)
    assert one != two
    random.set_random_seed(6)
    assert some(None) != [one, two]
    random.set_random_seed(5)
    assert some(None) == [one, two]


@each_draw
def test_numbers_are_the_same_on_every_backend(backend: Backend, name: str) -> None:
    """Compiled, twice in a row; the NumPy backend's at once is what is expected."""
    draw, seeds = DRAWS[name], SeedGenerator(7)
    wanted = [ops.to_numpy(draw(seeds)) for _ in range(2)]
    for seed in (SeedGenerator(7), None):
        compiled = ul.function(lambda seed=seed: draw(seed), backend=backend)
        if seed is None:
            random.set_random_seed(3)
            wanted = [ops.to_numpy(draw(None)) for _ in range(2)]
            random.set_random_seed(3)
        for number, expected in enumerate(wanted):
            found = backend.get(compiled())
            assert_close(found, expected, rtol=2e-5, atol=2e-6, what=f"{name} {number}")


BESIDE: list[tuple[Callable[[Any], Any], Any]] = [
    (lambda x: random.normal((4, 3), x, 2.0, seed=3), np.array([1.0, 5.0, -3.0], "float32")),
    (lambda x: random.randint((4, 3), 0, x, dtype="int64", seed=3), np.array([1, 50, 2**40])),
    (lambda x: random.categorical(x, 5, seed=3), LOGITS),
    (lambda x: random.dropout(x, 0.5, (None, 1), seed=3), np.ones((40, 2), "float32")),
    (lambda x: random.shuffle(x, -1, seed=3), np.arange(60.0).reshape(2, 30)),
    (lambda x: random.gamma((4, 3), x, seed=3), np.array([0.5, 2.0, 50.0])),
    (lambda x: random.beta((4, 3), x, 2.0, seed=3), np.array([0.5, 2.0, 50.0])),
    (lambda x: random.binomial((4, 3), 20, x, seed=3), np.array([0.1, 0.5, 0.9])),
]


@pytest.mark.parametrize(("draw", "x"), BESIDE)
def test_numbers_for_arrays_of_an_engine(backend: Backend, draw: Callable[[Any], Any], x: np.ndarray) -> None:
    [array] = backend.put([x], backend.device("cpu"))
    found = draw(array)
    assert backend.device_of(found) == backend.device("cpu")
    assert_close(backend.get(found), ops.to_numpy(draw(x)), rtol=2e-5, atol=2e-6, what=backend.name)


def test_a_new_default_seed_reaches_what_is_compiled() -> None:
    draw = ul.function(lambda: random.normal((3,)))
    random.set_random_seed(1)
    first = draw().tolist()
    assert draw().tolist() != first
    random.set_random_seed(2)
    assert draw().tolist() != first
    random.set_random_seed(1)
    assert draw().tolist() == first


def test_generators_without_seeds_differ_and_follow_the_default_seed() -> None:
    def two() -> list[Any]:
        random.set_random_seed(4)
        return [random.normal((3,), seed=SeedGenerator()).tolist() for _ in range(2)]

    first, second = two()
    assert first != second and two() == [first, second]


@pytest.mark.parametrize("seed", [-1, 1.5, "7", True])
def test_what_is_no_seed(seed: Any) -> None:
    with pytest.raises(UnilayersError, match=r"seed: not a seed\. Expected None, an int of at least 0, or a Seed"):
        random.normal((2,), seed=seed)
    with pytest.raises(UnilayersError, match=r"SeedGenerator\.seed"):
        SeedGenerator(seed)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: random.normal((2, None)), ShapeError, "shape: a size is not known"),
        (lambda: random.normal((2,), dtype="int32"), DTypeError, "normal: not a float dtype"),
        (lambda: random.randint((2,), 0, 5, dtype="float32"), DTypeError, "randint: not an integer dtype"),
        (lambda: random.randint((2,), 5, 5), UnilayersError, "no integers between the ends"),
        (lambda: random.categorical(np.zeros(3), 2), ShapeError, "categorical: not rows of logits"),
        (lambda: random.dropout(np.ones((2, 3)), 0.5, (3, 1)), ShapeError, "noise_shape does not broadcast"),
        (lambda: random.dropout(np.ones(3), 1.5), UnilayersError, "dropout.rate: a value that does not fit"),
    ],
)
def test_what_cannot_be_drawn(call: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


def test_gradients_flow_through_the_arithmetic() -> None:
    mean, stddev = np.array([1.0, 2.0]), np.array([0.5, 3.0])
    for draw in (random.normal, random.uniform, random.truncated_normal):
        with GradientTape() as tape:
            a, b = tape.watch(mean), tape.watch(stddev)
            y = ops.sum(draw((5, 2), a, b, dtype="float64", seed=3))
        plain = draw((5, 2), 0.0, 1.0, dtype="float64", seed=3).sum(0)
        by_a, by_b = map(ops.to_numpy, tape.gradient(y, [a, b]))
        expected = 5 - plain if draw is random.uniform else np.full(2, 5.0)
        assert_close(by_a, expected, rtol=1e-12, atol=0, what="first")
        assert_close(by_b, plain, rtol=1e-12, atol=1e-12, what="second")


# ---- in layers ------------------------------------------------------------------------


class Sampling(layers.Layer):
    """The layer of Keras's variational autoencoder."""

    def __init__(self, seed: int | None = None, default: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.seed_generator = None if default else random.SeedGenerator(seed)

    def call(self, inputs: Any) -> Any:
        mean, log_variance = inputs
        noise = random.normal(shape=ops.shape(mean), seed=self.seed_generator)
        return mean + ops.exp(0.5 * log_variance) * noise


X = np.random.default_rng(1).normal(size=(24, 6)).astype("float32")


def autoencoder(default: bool = False, **compiled: Any) -> ul.Model:
    x = ul.Input((6,))
    h = layers.Dense(8, activation="relu")(x)
    z = Sampling(default=default, name="sampling")([layers.Dense(2)(h), layers.Dense(2)(h)])
    model = ul.Model(x, layers.Dense(6)(layers.Dropout(0.2)(z)))
    model.compile("adam", "mse", **compiled)
    return model


def place_of(model: ul.Model) -> dict[str, int]:
    return {v.path: int(v) for v in model.variables if v.name == "seed_generator_state"}


@pytest.mark.parametrize("run_eagerly", [False, True])
@pytest.mark.parametrize("default", [False, True])
def test_a_variational_autoencoder_trains_alike_everywhere(backend: Backend, default: bool, run_eagerly: bool) -> None:
    losses = []
    for name, eagerly in (("numpy", False), (backend.name, run_eagerly)):
        random.set_random_seed(2)
        model = autoencoder(default, run_eagerly=eagerly)
        losses.append(model.fit(X, X, batch_size=8, epochs=3, verbose=0, backend=require_backend(name)).history["loss"])
        assert place_of(model) == ({} if default else {"sampling/seed_generator/seed_generator_state": 9})
        assert np.ptp(model.predict(np.tile(X[:1], (50, 1)), backend=backend, verbose=0), 0).min() > 0
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)


def test_noise_differs_at_every_step_and_the_two_models_of_a_script_share_the_default() -> None:
    class Noise(layers.Layer):
        def call(self, x: Any) -> Any:
            return x * 0.0 + random.uniform(ops.shape(x))

    drawn: list[float] = []
    random.set_random_seed(1)
    for _ in range(2):
        model = ul.Sequential([ul.Input((1,)), Noise()])
        drawn += model.predict(np.zeros((6, 1), "float32"), batch_size=2, verbose=0).ravel().tolist()
    assert len(set(drawn)) == 12


@pytest.mark.parametrize("run_eagerly", [False, True])
@pytest.mark.parametrize("default", [False, True])
def test_a_step_of_the_user_draws_anew_each_time(backend: Backend, default: bool, run_eagerly: bool) -> None:
    """As a generator's latent vectors are drawn in an adversarial net's ``train_step``."""

    class Drawing(ul.Model):
        def __init__(self) -> None:
            super().__init__()
            self.dense = layers.Dense(1)
            self.seed_generator = None if default else SeedGenerator(3)

        def call(self, x: Any) -> Any:
            return self.dense(x)

        def train_step(self, data: Any) -> dict[str, Any]:
            latent = random.normal((ops.shape(data)[0], 2), seed=self.seed_generator)
            return {"mean": ops.mean(latent) + 0.0 * ops.sum(self(data))}

    drawn = []
    for name, eagerly in (("numpy", False), (backend.name, run_eagerly)):
        random.set_random_seed(2)
        model = Drawing()
        model.compile("sgd", run_eagerly=eagerly)
        drawn.append([model.train_on_batch(X[:8], return_dict=True, backend=name)["mean"] for _ in range(3)])
        assert np.isfinite(model.predict(X, verbose=0, backend=name)).all()
    assert len({*drawn[0]}) == 3 and drawn[1] == pytest.approx(drawn[0], rel=1e-5)


def test_a_saved_model_goes_on_drawing(tmp_path: Path) -> None:
    once, model = autoencoder(), autoencoder()
    for epochs in (2, 1):
        expected = once.fit(X, X, epochs=epochs, verbose=0).history["loss"]
    model.fit(X, X, epochs=2, verbose=0)
    model.save(tmp_path / "model")
    loaded = ul.load_model(tmp_path / "model")
    assert place_of(loaded) == place_of(model) == {"sampling/seed_generator/seed_generator_state": 2}
    assert loaded.fit(X, X, epochs=1, verbose=0).history["loss"] == pytest.approx(expected, rel=1e-6)


def test_generators_of_a_layer_are_told_apart_by_path_and_seeded_by_the_model() -> None:
    class Several(layers.Layer):
        def __init__(self, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.first = SeedGenerator()
            self.many = [SeedGenerator(), SeedGenerator(), SeedGenerator(9, name="own")]

        def call(self, x: Any) -> Any:
            return ops.stack([random.normal((3,), seed=s) for s in (self.first, *self.many)])

    def drawn(seed: int) -> np.ndarray:
        model = ul.Sequential([ul.Input((1,)), Several(name="several")], seed=seed)
        assert [v.path.removesuffix("/seed_generator_state") for v in model.variables] == [
            "several/first", "several/many", "several/many_1", "several/own",
        ]  # fmt: skip
        assert not model.weights and model.count_params() == 0
        return ops.to_numpy(model.layers[-1](np.zeros(1)))

    one = drawn(1)
    assert len(np.unique(one)) == 12
    np.testing.assert_array_equal(one, drawn(1))
    assert (one[:3] != drawn(2)[:3]).all() and (one[3] == drawn(2)[3]).all()


def test_layers_and_initializers_take_generators() -> None:
    seeds = SeedGenerator(5)
    layer, other = layers.Dropout(0.5, seed=seeds), layers.Dropout(0.5, seed=seeds)
    x = np.ones((1, 40), "float32")
    masks = [ops.to_numpy(one(x, training=True)).tolist() for one in (layer, other, layer)]
    assert len({str(m) for m in masks}) == 3 and int(seeds.state) == 3 and seeds.state in layer.variables
    for cls in (c for c in initializers.Initializer.registry if "seed" in parameters(c)):
        seeds = SeedGenerator(5)
        initializer = cls(seed=seeds)
        first, second = initializer((4, 3)), initializer((4, 3))
        np.testing.assert_array_equal(first, cls(seed=5)((4, 3)))
        assert not np.isin(second, first).any() and int(seeds.state) == 2
        again = initializers.get(json.loads(json.dumps(initializers.serialize(initializer))))
        np.testing.assert_array_equal(again((4, 3)), first)
        assert not np.array_equal(again((4, 3)), first)


def test_two_weights_of_one_initializer_with_a_generator_differ() -> None:
    start = initializers.RandomNormal(seed=SeedGenerator(1))
    model = ul.Sequential([ul.Input((3,)), *(layers.Dense(3, kernel_initializer=start) for _ in range(2))])
    model.compile("sgd", "mse")
    model.fit(X[:, :3], X[:, :3], epochs=1, verbose=0)  # the weights are drawn while a step is prepared
    kernels = [w.numpy() for w in model.weights if w.name == "kernel"]
    assert not np.isclose(kernels[0], kernels[1]).any()


def test_generators_in_configs_and_recipes() -> None:
    assert repr(SeedGenerator(3, "mine")) == "SeedGenerator(seed=3, name='mine')"
    assert SeedGenerator.from_config(SeedGenerator(3).get_config()).seed == 3
    layer = layers.Dropout(0.5, seed=SeedGenerator(3))
    again = layers.Dropout.from_config(json.loads(json.dumps(layer.get_config())))
    x = np.ones((1, 40), "float32")
    np.testing.assert_array_equal(again(x, training=True), layer(x, training=True))
    dropout = "{Dropout: {rate: 0.5, seed: {SeedGenerator: {seed: 3}}}}"
    text = f"data: {{dataset: digits}}\nloss: mse\noptimizer: sgd\nmodel: [{{Input: {{shape: [3]}}}}, {dropout}]\n"
    (found,) = (one.seed for one in Recipe(text).build().layers if isinstance(one, layers.Dropout))
    assert isinstance(found, SeedGenerator) and found.seed == 3
