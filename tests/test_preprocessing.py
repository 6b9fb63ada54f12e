"""Preprocessing layers: numbers, categories, texts and pictures, against Keras, on every backend."""

from __future__ import annotations

import inspect
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

import unilayers as ul
from tests.compare import assert_close
from tests.conftest import each_backend
from unilayers import layers as L
from unilayers import ops
from unilayers.autodiff import GradientTape
from unilayers.backend import Backend
from unilayers.errors import DataError, DTypeError, ShapeError, UnilayersError
from unilayers.layers import preprocessing as P
from unilayers.layers.preprocessing import hashes, mixing
from unilayers.ops import image
from unilayers.recipe import Recipe
from unilayers.registry import parameters

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Keras's own

LAYERS = [c for c in L.Layer.registry if c.__module__.startswith("unilayers.layers.preprocessing.")]


@pytest.fixture(scope="module")
def keras() -> Any:
    pytest.importorskip("tensorflow")  # Keras's layers of categories and texts need it on every backend
    return pytest.importorskip("keras")


def to_numpy(x: Any) -> np.ndarray:
    return x.detach().cpu().numpy() if hasattr(x, "detach") else np.asarray(x)


# ---- a table of cases --------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Case:
    """A layer that is not random, and what it is called with.

    Args:
        cls: The class.
        x: The input.
        kwargs: The constructor's arguments, the same for Keras.
        data: What the layer is adapted to, if anything.
        keras: Whether Keras is a witness.
    """

    cls: type[Any]
    x: Any
    kwargs: dict[str, Any] = field(default_factory=dict)
    data: Any = None
    keras: bool = True

    def layer(self) -> Any:
        made = self.cls(**self.kwargs)
        if self.data is not None:
            made.adapt(self.data)
        return made

    def __str__(self) -> str:
        return f"{self.cls.__name__}({', '.join(f'{k}={v}' for k, v in self.kwargs.items())})"


def case(cls: type[Any], x: Any, data: Any = None, keras: bool = True, **kwargs: Any) -> Case:
    return Case(cls, x, kwargs, data, keras)


RNG = np.random.default_rng(7)
TABLE = RNG.normal(3.0, 2.0, (6, 4, 3)).astype("float32")
SAMPLES = RNG.normal(size=(400,)).astype("float32")
IDS = np.array([[0, 2, 2], [3, 1, 0]])
FOUND = np.array([[12, 36, 7, 12], [-3, 1138, 8, 36]])
VOCABULARY = [12, 36, 1138]
BYTES = RNG.integers(0, 256, (2, 5, 7, 3)).astype("uint8")
PIXELS = RNG.uniform(0, 255, (2, 5, 8, 3)).astype("float32")
FIRST = {"data_format": "channels_first"}

NUMBERS = [
    case(P.Rescaling, TABLE, scale=0.5, offset=-1.0),
    case(P.Rescaling, TABLE, scale=[0.5, 1.0, 2.0], offset=[0.0, 1.0, 2.0]),
    case(P.Rescaling, BYTES, scale=1 / 255),
    case(P.Normalization, TABLE, TABLE),
    case(P.Normalization, TABLE, TABLE, axis=None),
    case(P.Normalization, TABLE, TABLE, axis=[1, 2], invert=True),
    case(P.Normalization, TABLE, TABLE, axis=(-1, 1)),
    case(P.Normalization, TABLE, mean=[1.0, 2.0, 3.0], variance=[4.0, 1.0, 0.0]),
    case(P.Normalization, TABLE, mean=3.0, variance=2.0, invert=True),
    case(P.Normalization, TABLE, mean=[1.0, 2.0, 3.0], variance=[4.0, 1.0, 0.25], axis=(1, 2)),
    case(P.Normalization, BYTES, BYTES),
    case(P.Discretization, TABLE, bin_boundaries=[0.0, 1.5, 3.0]),
    case(P.Discretization, np.array([0.0, 1.5, 3.0, -1.0], "float32"), bin_boundaries=[0.0, 1.5, 3.0]),
    case(P.Discretization, TABLE[:, :, 0], bin_boundaries=[0.0, 1.5], output_mode="one_hot"),
    case(P.Discretization, TABLE[:, :, 0], bin_boundaries=[0.0, 1.5], output_mode="multi_hot"),
    case(P.Discretization, TABLE[:, :, 0], bin_boundaries=[0.0, 1.5], output_mode="count"),
    case(P.Discretization, SAMPLES[:50], SAMPLES, num_bins=5),
    case(P.Discretization, SAMPLES[:50], SAMPLES, num_bins=7, epsilon=0.1),
    case(P.Discretization, SAMPLES[:50], [SAMPLES[:130], SAMPLES[130:150], SAMPLES[150:]], num_bins=4),
    case(P.CategoryEncoding, IDS, num_tokens=4),
    case(P.CategoryEncoding, IDS, num_tokens=5, output_mode="one_hot"),
    case(P.CategoryEncoding, IDS[:, :1], num_tokens=4, output_mode="one_hot"),
    case(P.CategoryEncoding, IDS, num_tokens=4, output_mode="count"),
    case(P.CategoryEncoding, IDS[0], num_tokens=4),
    case(P.CategoryEncoding, IDS[0], num_tokens=4, output_mode="one_hot"),
    case(P.Hashing, FOUND, num_bins=10),
    case(P.Hashing, FOUND, num_bins=10, salt=133, mask_value=12),
    case(P.Hashing, FOUND, num_bins=5, salt=[133, 137], output_mode="multi_hot"),
    case(P.Hashing, FOUND[:, :1], num_bins=5, output_mode="one_hot"),
    case(P.Hashing, FOUND, num_bins=5, output_mode="count", keras=False),  # of Keras an int64
    case(P.IntegerLookup, FOUND, vocabulary=VOCABULARY),
    case(P.IntegerLookup, FOUND, FOUND),
    case(P.IntegerLookup, FOUND, FOUND, max_tokens=3, mask_token=12),
    case(P.IntegerLookup, FOUND, vocabulary=VOCABULARY, num_oov_indices=3, mask_token=0),
    case(P.IntegerLookup, FOUND, vocabulary=VOCABULARY, num_oov_indices=4, oov_method="farmhash"),
    case(P.IntegerLookup, FOUND, vocabulary=VOCABULARY, num_oov_indices=4, oov_method="farmhash", salt=[3, 5]),
    case(P.IntegerLookup, FOUND, vocabulary=[0, -1, *VOCABULARY], mask_token=0),
    case(P.IntegerLookup, FOUND, vocabulary=VOCABULARY, output_mode="one_hot"),
    case(P.IntegerLookup, FOUND, vocabulary=VOCABULARY, output_mode="multi_hot", mask_token=-3),
    case(P.IntegerLookup, FOUND, vocabulary=VOCABULARY, output_mode="count", max_tokens=7, pad_to_max_tokens=True),
    case(P.IntegerLookup, FOUND, vocabulary=VOCABULARY, output_mode="tf_idf", idf_weights=[0.25, 0.75, 0.6]),
    case(P.IntegerLookup, FOUND, FOUND, output_mode="tf_idf", max_tokens=9, pad_to_max_tokens=True),
    case(P.IntegerLookup, np.array([0, 3, 2, 9, -1]), vocabulary=VOCABULARY, invert=True),
    case(P.IntegerLookup, np.array([0, 1, 2, 4]), vocabulary=VOCABULARY, invert=True, mask_token=0),
]
IMAGES = [
    case(P.Resizing, PIXELS, height=7, width=3),
    case(P.Resizing, PIXELS, height=3, width=16, interpolation="nearest"),
    case(P.Resizing, PIXELS[0], height=4, width=8),
    case(P.Resizing, PIXELS, height=4, width=4, crop_to_aspect_ratio=True),
    case(P.Resizing, PIXELS, height=6, width=4, crop_to_aspect_ratio=True, interpolation="nearest"),
    case(P.Resizing, PIXELS, height=6, width=6, pad_to_aspect_ratio=True, fill_value=9.0),
    case(P.Resizing, PIXELS, height=3, width=3, antialias=True),
    case(P.Resizing, np.moveaxis(PIXELS, -1, 1), height=4, width=5, **FIRST),
    case(P.Resizing, BYTES, height=4, width=5),
    case(P.CenterCrop, PIXELS, height=3, width=4),
    case(P.CenterCrop, PIXELS, height=4, width=3),
    case(P.CenterCrop, PIXELS[1], height=6, width=6),
    case(P.CenterCrop, BYTES, height=7, width=2),
    case(P.CenterCrop, np.moveaxis(PIXELS, -1, 1), height=2, width=5, **FIRST),
    case(P.AutoContrast, PIXELS),
    case(P.AutoContrast, np.concatenate([PIXELS, PIXELS[:, :1, :1] + 0 * PIXELS]) / 255, value_range=(0, 1)),
    case(P.AutoContrast, BYTES),
]
WAVES = RNG.normal(size=(2, 300, 2)).astype("float32")
SOUND = [
    *(case(P.STFTSpectrogram, WAVES, mode=m, frame_length=40) for m in ("log", "magnitude", "psd", "real", "stft")),
    case(P.STFTSpectrogram, WAVES, mode="imag", frame_length=32, frame_step=10, fft_length=64, window="hamming"),
    case(P.STFTSpectrogram, WAVES, mode="angle", frame_length=16, scaling="spectrum", keras=False),  # see below
    case(P.STFTSpectrogram, WAVES, frame_length=50, padding="same", expand_dims=True, scaling=None),
    case(P.STFTSpectrogram, np.moveaxis(WAVES, -1, 1), mode="stft", frame_length=30, window=None, **FIRST),
    case(P.STFTSpectrogram, np.moveaxis(WAVES, -1, 1), frame_length=30, expand_dims=True, **FIRST),
    case(P.MelSpectrogram, WAVES[..., 0], fft_length=64, sequence_stride=20, num_mel_bins=12, top_db=25.0),
    case(P.MelSpectrogram, WAVES[0, :, 0], fft_length=64, sequence_stride=20, sequence_length=50, num_mel_bins=9),
    case(
        P.MelSpectrogram, WAVES[..., 0], fft_length=128, sequence_stride=64, num_mel_bins=5, sampling_rate=8000,
        min_freq=100.0, max_freq=3000.0, power_to_db=False, mag_exp=1.0,
    ),
    case(
        P.MelSpectrogram, WAVES[..., 0], fft_length=64, num_mel_bins=8, sequence_stride=33, top_db=12.0, ref_power=3.0
    ),
]  # fmt: skip
CASES = NUMBERS + IMAGES + SOUND
each = pytest.mark.parametrize("case", CASES, ids=str)


@each
def test_keras_agrees(keras: Any, case: Case) -> None:
    if not case.keras:
        pytest.skip("Keras gives another dtype or shape")
    other = getattr(keras.layers, case.cls.__name__)(**case.kwargs)
    if case.data is not None:
        other.adapt(case.data)
    elif isinstance(other, keras.layers.Normalization):
        other.build(case.x.shape)
    wanted = to_numpy(other(case.x))
    found = ops.to_numpy(case.layer()(case.x))
    if case.kwargs.get("output_mode", "int") != "int":  # of Keras's lookups an int64
        wanted = wanted.astype("float32")
    assert_close(found, wanted, rtol=1e-5, atol=1e-4, what=str(case))


@each
def test_output_shape_is_that_of_keras(keras: Any, case: Case) -> None:
    other, layer = getattr(keras.layers, case.cls.__name__)(**case.kwargs), case.layer()
    if case.data is not None:
        other.adapt(case.data)
    single = "height" in case.kwargs and case.x.ndim == 3
    assert layer.compute_output_shape(case.x.shape) == ops.shape_of(layer(case.x))
    for shape in [case.x.shape] + [(None, *case.x.shape[1:])] * (not single):
        assert layer.compute_output_shape(shape) == tuple(other.compute_output_shape(shape))


@each
def test_every_backend_gives_the_same(backend: Backend, case: Case) -> None:
    """In a graph, for arrays of the engine, and as the plain call on NumPy arrays."""
    layer = case.layer()
    wanted = ops.to_numpy(layer(case.x))
    exact = {"rtol": 1e-6, "atol": 1e-5}
    traced = ul.function(lambda x: layer(x), backend=backend)(case.x)
    assert_close(backend.get(traced), wanted, **exact, what="traced")
    [array] = backend.put([case.x], backend.device(None))
    y = layer(array)
    assert backend.device_of(y) == backend.device(None)
    assert_close(backend.get(y), wanted, **exact, what="at once")


@each
def test_config_round_trip(case: Case) -> None:
    """The config holds what was learned, except a normalization's weights."""
    layer = case.layer()
    layer(case.x)
    config = json.loads(json.dumps(layer.get_config()))
    again = L.Layer.registry.get(case.cls.__name__).from_config(config)
    assert json.loads(json.dumps(again.get_config())) == config
    again(case.x)
    again.set_weights(layer.get_weights())
    np.testing.assert_array_equal(again(case.x), layer(case.x))


@pytest.mark.parametrize("cls", LAYERS, ids=lambda c: c.__name__)
def test_arguments_are_those_of_keras(keras: Any, cls: type[Any]) -> None:
    theirs = inspect.signature(getattr(keras.layers, cls.__name__).__init__).parameters
    mine = [p for p in parameters(cls).values() if p.kind is not p.KEYWORD_ONLY]
    known = [p.name for p in theirs.values() if p.name not in ("self", "kwargs", "name", "dtype")]
    assert [p.name for p in mine] == known[: len(mine)] == known
    for p in mine:
        default = theirs[p.name].default
        # Keras says itself which arguments its empty defaults demand.
        assert p.default == default or p.default is p.empty or default is inspect.Parameter.empty, p.name


def test_every_layer_is_tested() -> None:
    random = {c.cls for c in FIXED} | {type(make()) for make in RANDOM}
    assert {c.cls for c in CASES} | random | {P.HashedCrossing, P.Pipeline, P.StringLookup, P.TextVectorization} == set(
        LAYERS
    )


# ---- normalization ------------------------------------------------------------------


def test_adapting_by_batches_is_adapting_at_once() -> None:
    x = np.random.default_rng(0).normal(100.0, 2.0, (50, 3, 4))
    whole, parts = P.Normalization(dtype="float64"), P.Normalization(dtype="float64")
    whole.adapt(x)
    parts.adapt((batch, None) for batch in (x[:7], x[7:8], x[8:]))
    for a, b in zip(parts.get_weights()[:2], whole.get_weights()[:2], strict=True):
        assert_close(a, b, rtol=1e-12, atol=0, what="weights")
    assert_close(whole.get_weights()[0], x.mean((0, 1)), rtol=1e-12, atol=0, what="mean")
    assert_close(whole.get_weights()[1], x.var((0, 1)), rtol=1e-12, atol=0, what="variance")
    assert [v.name for v in whole.weights] == ["mean", "variance", "count"] and not whole.trainable_weights


def test_wrong_normalizations() -> None:
    with pytest.raises(UnilayersError, match=r"mean and variance belong together. Give both"):
        P.Normalization(mean=1.0)
    with pytest.raises(ShapeError, match=r"mean and variance differ. Received \(\) and \(2,\)"):
        P.Normalization(mean=1.0, variance=[1.0, 2.0])
    with pytest.raises(UnilayersError, match="mean and variance were given"):
        P.Normalization(mean=1.0, variance=1.0).adapt(TABLE)
    with pytest.raises(UnilayersError, match="no data to adapt to"):
        P.Normalization().adapt([])
    layer = P.Normalization()
    layer.adapt(TABLE)
    with pytest.raises(ShapeError, match=r"Expected sizes \(3,\) on axes \(2,\). Received \(6, 4, 2\)"):
        layer.adapt(TABLE[..., :2])
    with pytest.raises(ShapeError, match="input does not fit the layer"):
        layer(TABLE[..., :2])


@pytest.mark.parametrize(
    "layer",
    [
        P.Normalization(mean=[1.0, 2.0, 3.0], variance=[4.0, 1.0, 0.25], dtype="float64"),
        P.Resizing(3, 9, dtype="float64"),
        P.Resizing(3, 3, antialias=True, dtype="float64"),
        P.RandomRotation((0.1, 0.1), dtype="float64"),
        P.RandomZoom((0.3, 0.3), fill_mode="constant", dtype="float64"),
        P.RandomContrast((0.0, 1.0), dtype="float64"),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_gradients_are_those_of_finite_differences(layer: Any) -> None:
    x = PIXELS.astype("float64")
    weights = np.random.default_rng(0).normal(size=ops.shape_of(layer(x)))
    with GradientTape() as tape:
        box = tape.watch(x)
        start = layer._counter.numpy() if layer._counter is not None else None
        loss = ops.sum(ops.multiply(layer(box), weights))
    gradient = ops.to_numpy(tape.gradient(loss, box))
    direction = np.random.default_rng(1).normal(size=x.shape)

    def value(step: float) -> float:
        if start is not None:
            layer._counter.assign(start)
        return float(np.sum(ops.to_numpy(layer(x + step * direction)) * weights))

    slope = (value(1e-4) - value(-1e-4)) / 2e-4
    assert float(np.sum(gradient * direction)) == pytest.approx(slope, rel=1e-6, abs=1e-6)


# ---- bins and categories ---------------------------------------------------------------


@pytest.mark.parametrize("count", range(9))
def test_search_in_a_sorted_table(count: int) -> None:
    table = np.sort(np.random.default_rng(count).integers(0, 5, count)).astype("float32")
    x = np.array([-np.inf, -1, *np.arange(0, 6, 0.5), np.inf, np.nan], "float32")
    layer = P.Discretization(table.tolist())
    assert_close(layer(x), np.digitize(x, table).astype("int32"), rtol=0, atol=0, what="bins")


def test_wrong_bins() -> None:
    for arguments in ({}, {"bin_boundaries": [1.0], "num_bins": 2}):
        with pytest.raises(UnilayersError, match="give bin_boundaries or num_bins, one of them"):
            P.Discretization(**arguments)
    with pytest.raises(UnilayersError, match="the boundaries do not rise"):
        P.Discretization([1.0, 0.0])
    with pytest.raises(UnilayersError, match=r"the layer has no boundaries. Give bin_boundaries, or call adapt"):
        P.Discretization(num_bins=3)(SAMPLES)
    with pytest.raises(UnilayersError, match="boundaries were given"):
        P.Discretization([1.0]).adapt(SAMPLES)


def test_weighted_counts(keras: Any) -> None:
    weights = np.array([[0.5, 1.0, 2.0], [4.0, 0.25, 1.0]], "float32")
    layer = P.CategoryEncoding(4, "count")
    wanted = to_numpy(keras.layers.CategoryEncoding(4, "count")(IDS, count_weights=weights))
    assert_close(layer(IDS, count_weights=weights), wanted, rtol=1e-6, atol=0, what="counts")
    with pytest.raises(UnilayersError, match="count_weights count in mode 'count' only"):
        P.CategoryEncoding(4)(IDS, count_weights=weights)


def test_what_is_outside_counts_nowhere() -> None:
    x = np.array([[4, -1, 0]])
    for mode in ("multi_hot", "count"):
        np.testing.assert_array_equal(P.CategoryEncoding(4, mode)(x), [[1, 0, 0, 0]])
    np.testing.assert_array_equal(P.CategoryEncoding(4, "one_hot")(x).sum((0, 1)), [1, 0, 0, 0])


@pytest.mark.parametrize("cls", [P.CategoryEncoding, P.Hashing], ids=lambda c: c.__name__)
def test_sparse_results_are_refused(cls: type[Any]) -> None:
    with pytest.raises(UnilayersError, match=r"sparse results are not supported. Expected False"):
        cls(4, sparse=True)


# ---- hashes ------------------------------------------------------------------------------


def test_hashes_are_those_of_tensorflow() -> None:
    tf = pytest.importorskip("tensorflow")
    rng = np.random.default_rng(0)
    texts = [rng.integers(1, 256, n).astype("uint8").tobytes() for n in (*range(140), 191, 192, 193, 256, 257, 1000)]
    for bins in (7, 1000, 2**62):
        fast = tf.strings.to_hash_bucket_fast(tf.constant(texts), bins).numpy()
        strong = tf.strings.to_hash_bucket_strong(tf.constant(texts), bins, key=[133, 137]).numpy()
        assert [hashes.bucket(t, bins) for t in texts] == fast.tolist()
        assert [hashes.bucket(t, bins, (133, 137)) for t in texts] == strong.tolist()


@pytest.mark.parametrize("salt", [None, (133, 137)], ids=str)
def test_integers_hash_as_their_texts(backend: Backend, salt: Any) -> None:
    rng = np.random.default_rng(0)
    many = [int(v) for k in range(1, 19) for v in rng.integers(-(10**k), 10**k, 12)]
    x = np.array([*many, 0, 9, 10, -1, -9, -10, 2**63 - 1, 1 - 2**63])
    for bins in (7, 2**40 + 1):
        found = ul.function(lambda v, bins=bins: hashes.bucket_of_integers(v, bins, salt), backend=backend)(x)
        wanted = np.array([hashes.bucket(str(v).encode(), bins, salt) for v in x.tolist()])
        assert_close(backend.get(found), wanted, rtol=0, atol=0, what="bins")


def test_hashing_texts(keras: Any) -> None:
    texts = np.array([["a", "bc", "ä"], ["", "a", "a long text with several words"]])
    for arguments in ({}, {"salt": 7}, {"mask_value": "a"}, {"output_mode": "multi_hot"}):
        wanted = to_numpy(keras.layers.Hashing(9, **arguments)(texts.tolist()))
        found = P.Hashing(9, **arguments)(texts)
        assert_close(found, wanted, rtol=0, atol=0, what=str(arguments))
    assert P.Hashing(9)(np.array(["12", "-7"])).tolist() == P.Hashing(9)(np.array([12, -7])).tolist()
    with pytest.raises(UnilayersError, match=r"not a salt. Expected an int or two ints"):
        P.Hashing(9, salt=[1, 2, 3])


TEXTS = np.array([chr(97 + i % 7) * (i % 40) for i in range(50)])


@pytest.mark.parametrize("bins", [5, 2**40])
def test_crossings_are_those_of_keras(keras: Any, backend: Backend, bins: int) -> None:
    rng = np.random.default_rng(0)
    long, short = rng.integers(-(10**12), 10**12, 50), rng.integers(0, 50, 50)
    for inputs in ([long, short], [TEXTS, short], [TEXTS, TEXTS[::-1], long]):
        theirs = [x.tolist() if x.dtype.kind == "U" else x for x in inputs]
        wanted = to_numpy(keras.layers.HashedCrossing(bins)(theirs))
        layer = P.HashedCrossing(bins)
        assert_close(layer(inputs), wanted, rtol=0, atol=0, what="at once")
        if TEXTS is not inputs[0]:
            crossed = ul.function(lambda a, b, layer=layer: layer([a, b]), backend=backend)(*inputs)
            assert_close(backend.get(crossed), wanted, rtol=0, atol=0, what=backend.name)
    for shape in ((), (50, 1)):
        column = [np.resize(x, shape) for x in (long, short)]
        wanted = to_numpy(keras.layers.HashedCrossing(9, output_mode="one_hot")(column))
        found = P.HashedCrossing(9, "one_hot")(column)
        assert_close(found.reshape(wanted.shape), wanted, rtol=0, atol=0, what=str(shape))


@pytest.mark.parametrize(
    ("inputs", "error", "message"),
    [
        (IDS[0], ShapeError, "needs two inputs or more"),
        ([IDS[0], IDS[:, 0]], ShapeError, "not categories to cross"),
        ([IDS, IDS], ShapeError, "not categories to cross"),
        ([IDS[0], np.ones(3)], DTypeError, "not categories. Expected integers or texts"),
    ],
)
def test_what_cannot_be_crossed(inputs: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        P.HashedCrossing(5)(inputs)


# ---- vocabularies ---------------------------------------------------------------------------


def test_vocabularies(tmp_path: Path) -> None:
    layer = P.IntegerLookup(vocabulary=VOCABULARY, mask_token=0, num_oov_indices=2)
    assert layer.get_vocabulary() == [0, -1, -1, 12, 36, 1138] and layer.vocabulary_size() == 6
    assert layer.get_vocabulary(include_special_tokens=False) == VOCABULARY
    layer.set_vocabulary([0, -1, -1, 5])
    assert layer.get_vocabulary() == [0, -1, -1, 5]
    (tmp_path / "words.txt").write_text("earth\nwind\nfire\n")
    words = P.StringLookup(vocabulary=str(tmp_path / "words.txt"))
    assert words(["fire", "ice"]).tolist() == [3, 0]
    assert words.get_config()["vocabulary"] == ["earth", "wind", "fire"]  # no file is needed later
    (tmp_path / "numbers.txt").write_text("5\n7\n")
    assert P.IntegerLookup(vocabulary=str(tmp_path / "numbers.txt"))(np.array([7, 5])).tolist() == [2, 1]
    with pytest.raises(DataError, match="cannot read the vocabulary"):
        P.StringLookup(vocabulary=str(tmp_path / "none.txt"))


@pytest.mark.parametrize(
    ("problem", "arguments"),
    [
        ("max_tokens must be above 1", {"max_tokens": 1}),
        ("pad_to_max_tokens needs max_tokens", {"pad_to_max_tokens": True}),
        ("invert goes with output_mode 'int'", {"invert": True, "output_mode": "count"}),
        ("idf_weights go with output_mode 'tf_idf'", {"idf_weights": [1.0], "vocabulary": [4]}),
        ("idf_weights belong to output_mode 'tf_idf', and are needed", {"output_mode": "tf_idf", "vocabulary": [4]}),
        ("Expected 1 numbers", {"output_mode": "tf_idf", "vocabulary": [4], "idf_weights": [1.0, 2.0]}),
        ("the vocabulary is empty", {"vocabulary": []}),
        (r"tokens are there more than once: \[4\]", {"vocabulary": [4, 5, 4]}),
        ("special tokens, which may only stand at the beginning", {"vocabulary": [4, 0], "mask_token": 0}),
        ("more tokens than max_tokens=3", {"vocabulary": [4, 5, 6], "max_tokens": 3}),
        ("salt goes with oov_method 'farmhash'", {"salt": 3}),
    ],
    ids=lambda x: x if isinstance(x, str) else "",
)
def test_wrong_vocabularies(problem: str, arguments: dict[str, Any]) -> None:
    with pytest.raises(UnilayersError, match=problem):
        P.IntegerLookup(**arguments)


def test_a_vocabulary_is_learned_once_or_given() -> None:
    with pytest.raises(UnilayersError, match=r"the layer has no vocabulary. Give vocabulary, or call adapt"):
        P.IntegerLookup()(FOUND)
    with pytest.raises(UnilayersError, match=r"a vocabulary was given. Leave it out to adapt"):
        P.IntegerLookup(vocabulary=[4]).adapt(FOUND)
    with pytest.raises(UnilayersError, match="no data to adapt to"):
        P.StringLookup().adapt([])


def test_values_outside_without_an_index_for_them() -> None:
    numbers, texts = P.IntegerLookup(num_oov_indices=0, vocabulary=[4, 5]), P.StringLookup(
        num_oov_indices=0, vocabulary=["a"]
    )  # fmt: skip
    assert numbers(np.array([5, 4])).tolist() == [1, 0]
    with pytest.raises(UnilayersError, match=r"values outside of the vocabulary. Received \[7\]"):
        numbers(np.array([5, 7]))
    assert ul.function(lambda x: numbers(x))(np.array([5, 7])).tolist() == [1, -1]
    with pytest.raises(UnilayersError, match=r"values outside of the vocabulary. Received \['b'\]"):
        texts(["a", "b"])


WORDS = np.array([["a", "b", "d"], ["e", "b", ""]])


@pytest.mark.parametrize(
    "arguments",
    [
        {"vocabulary": ["a", "b", "c"]},
        {"vocabulary": ["a", "b", "c"], "mask_token": "", "num_oov_indices": 3},
        {"vocabulary": ["a", "b", "c"], "num_oov_indices": 3, "salt": [1, 2]},
        {"vocabulary": ["a", "b", "c"], "output_mode": "multi_hot", "mask_token": ""},
        {"vocabulary": ["a", "b", "c"], "output_mode": "count", "max_tokens": 6, "pad_to_max_tokens": True},
        {"vocabulary": ["a", "b"], "output_mode": "tf_idf", "idf_weights": [0.5, 2.0]},
        {"vocabulary": ["[UNK]", "a", "b"], "output_mode": "tf_idf", "idf_weights": [0.1, 0.5, 2.0]},
        {},
        {"max_tokens": 4, "mask_token": ""},
        {"output_mode": "tf_idf"},
    ],
    ids=str,
)
def test_string_lookup_is_that_of_keras(keras: Any, arguments: dict[str, Any]) -> None:
    mine, other = P.StringLookup(**arguments), keras.layers.StringLookup(**arguments)
    if "vocabulary" not in arguments:
        data = np.array([["b", "e", "b"], ["a", "", "x"], ["b", "a", "y"]])
        mine.adapt(data)
        other.adapt(data)
    assert mine.get_vocabulary() == [str(t) for t in other.get_vocabulary()]
    wanted = to_numpy(other(WORDS))
    found = mine(WORDS)
    assert found.dtype == ("int64" if mine.output_mode == "int" else "float32")
    assert_close(found, wanted.astype(found.dtype), rtol=1e-6, atol=0, what="indices")
    again = P.StringLookup.from_config(json.loads(json.dumps(mine.get_config())))
    np.testing.assert_array_equal(again(WORDS), found)
    assert mine(np.array(WORDS, object)).tolist() == mine(np.char.encode(WORDS)).tolist() == found.tolist()


def test_texts_of_indices() -> None:
    layer = P.StringLookup(vocabulary=["a", "b"], invert=True, mask_token="")
    assert layer(np.array([[2, 0], [3, 9]])).tolist() == [["a", ""], ["b", "[UNK]"]]


# ---- texts ----------------------------------------------------------------------------------

SENTENCES = ["The cat, the dog!", "A  DOG\tbarks; Ünder (a) tree.", "", "tree"]


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"max_tokens": 5},
        {"output_sequence_length": 3},
        {"output_sequence_length": 9, "standardize": "lower"},
        {"standardize": "strip_punctuation", "ngrams": 2},
        {"standardize": None, "ngrams": (1, 3)},
        {"split": "character", "standardize": None},
        {"output_mode": "multi_hot"},
        {"output_mode": "count", "max_tokens": 20, "pad_to_max_tokens": True},
        {"output_mode": "tf_idf", "ngrams": 2},
        {"vocabulary": ["dog", "cat", "tree"]},
        {"vocabulary": ["", "[UNK]", "dog", "cat"], "output_sequence_length": 4},
        {"vocabulary": ["dog", "cat"], "output_mode": "tf_idf", "idf_weights": [0.3, 2.0]},
    ],
    ids=str,
)
def test_text_vectorization_is_that_of_keras(keras: Any, arguments: dict[str, Any]) -> None:
    mine, other = P.TextVectorization(**arguments), keras.layers.TextVectorization(**arguments)
    if "vocabulary" not in arguments:
        mine.adapt(SENTENCES)
        other.adapt(SENTENCES)
    assert mine.get_vocabulary() == [str(t) for t in other.get_vocabulary()]
    wanted = to_numpy(other(SENTENCES))
    found = mine(SENTENCES)
    assert found.dtype == ("int64" if mine.output_mode == "int" else "float32")
    assert_close(found, wanted.astype(found.dtype), rtol=1e-6, atol=1e-7, what="rows")
    np.testing.assert_array_equal(mine(np.array(SENTENCES)[:, None]), found)
    again = P.TextVectorization.from_config(json.loads(json.dumps(mine.get_config())))
    np.testing.assert_array_equal(again(SENTENCES), found)


def test_texts_split_by_functions() -> None:
    layer = P.TextVectorization(
        standardize=lambda texts: np.char.upper(texts.astype(str)), split=lambda texts: [t.split("-") for t in texts]
    )
    layer.adapt(iter([["a-b"], ["b"]]))
    assert layer.get_vocabulary() == ["", "[UNK]", "B", "A"]
    assert layer(["b-c-a"]).tolist() == [[2, 1, 3]]
    whole = P.TextVectorization(split=None, vocabulary=["a b", "c"])
    assert whole(["A b", "d"]).tolist() == [[2], [1]]
    with pytest.raises(ShapeError, match=r"one text per sample. Expected shape \(batch,\) or \(batch, 1\)"):
        layer([["a", "b"]])
    with pytest.raises(UnilayersError, match="output_sequence_length goes with output_mode 'int'"):
        P.TextVectorization(output_mode="count", output_sequence_length=3)
    with pytest.raises(UnilayersError, match="ragged results are not supported"):
        P.TextVectorization(ragged=True)


def test_texts_are_no_part_of_a_graph() -> None:
    for layer in (P.TextVectorization(vocabulary=["a"]), P.StringLookup(vocabulary=["a"])):
        for call in (lambda x, layer=layer: ul.function(lambda v: layer(v))(x), layer):
            with pytest.raises(DTypeError, match=r"texts are read before the graph. Expected an array or a list of"):
                call(np.array([1, 2]))


def test_a_model_takes_what_text_layers_give(backend: Backend) -> None:
    texts = ["good film", "bad film", "so good", "so bad"] * 4
    labels = np.array([1.0, 0.0, 1.0, 0.0] * 4, "float32")
    vectorize = P.TextVectorization(output_sequence_length=3)
    vectorize.adapt(texts)
    model = ul.Sequential(
        [L.Embedding(vectorize.vocabulary_size(), 4), L.GlobalAveragePooling1D(), L.Dense(1, "sigmoid")], seed=1
    )
    model.compile(ul.optimizers.Adam(0.1), "binary_crossentropy")
    losses = model.fit(vectorize(texts), labels, epochs=12, batch_size=8, backend=backend.name, verbose=0)
    assert losses.history["loss"][-1] < 0.5 * losses.history["loss"][0]


# ---- pictures -------------------------------------------------------------------------------

MODES = ("constant", "nearest", "reflect", "wrap")


def sampled_by_hand(x: np.ndarray, row: float, column: float, linear: bool, mode: str, value: float) -> np.ndarray:
    """One pixel of ``(height, width, channels)``, looked up in a picture that goes on forever."""

    def pixel(at: Sequence[int]) -> np.ndarray:
        places = []
        for i, size in zip(at, x.shape, strict=False):
            if mode == "constant" and not 0 <= i < size:
                return np.full(x.shape[2], value)
            line = {
                "wrap": list(range(size)) * 9,
                "reflect": ([*range(size), *reversed(range(size))]) * 9,
            }.get(mode, [0] * (4 * size) + list(range(size)) + [size - 1] * (4 * size))
            places.append(line[i + 4 * size])
        return x[tuple(places)]

    if not linear:
        return pixel([round(row), round(column)])
    top, left = int(np.floor(row)), int(np.floor(column))
    down, right = row - top, column - left
    upper = pixel([top, left]) * (1 - right) + pixel([top, left + 1]) * right
    lower = pixel([top + 1, left]) * (1 - right) + pixel([top + 1, left + 1]) * right
    return upper * (1 - down) + lower * down


@pytest.mark.parametrize("interpolation", ["bilinear", "nearest"])
@pytest.mark.parametrize("mode", MODES)
def test_sampling_is_that_of_plain_python(mode: str, interpolation: str) -> None:
    rng = np.random.default_rng(3)
    x = rng.normal(size=(2, 4, 5, 2))
    rows = rng.uniform(-9, 12, (2, 3, 6)).astype("float32")
    columns = rng.uniform(-12, 15, (2, 3, 6)).astype("float32")
    found = image.sample(x, rows, columns, interpolation, mode, 0.5)
    for at in np.ndindex(2, 3, 6):
        row, column = float(rows[at]), float(columns[at])
        wanted = sampled_by_hand(x[at[0]], row, column, interpolation == "bilinear", mode, 0.5)
        assert_close(found[at], wanted, rtol=1e-5, atol=1e-5, what=f"{at}")


@pytest.mark.parametrize("interpolation", ["bilinear", "nearest"])
@pytest.mark.parametrize("mode", MODES)
def test_affine_transform_is_that_of_keras(keras: Any, backend: Backend, mode: str, interpolation: str) -> None:
    matrix = np.array([[0.9, -0.3, 1.3, 0.4, 1.1, -0.7], [-1.2, 0.1, 5.3, 0.2, 0.8, 2.6]], "float32")
    full = np.concatenate([matrix, np.zeros((2, 2), "float32")], 1)
    wanted = to_numpy(keras.ops.image.affine_transform(PIXELS, full, interpolation, mode, 7.0))
    [pixels, given] = backend.put([PIXELS, matrix], backend.device(None))
    found = backend.get(image.affine_transform(pixels, given, interpolation, mode, 7.0))
    assert_close(found, wanted, rtol=1e-4, atol=2e-3, what="pixels")


FIXED = [  # with equal bounds, nothing is left to chance
    case(P.RandomRotation, PIXELS, factor=(0.13, 0.13)),
    case(P.RandomRotation, PIXELS, factor=(-0.3, -0.3), fill_mode="constant", fill_value=3.0),
    case(P.RandomRotation, PIXELS[0], factor=(0.5, 0.5), interpolation="nearest", fill_mode="nearest"),
    case(P.RandomZoom, PIXELS, height_factor=(-0.4, -0.4)),
    case(P.RandomZoom, PIXELS, height_factor=(0.3, 0.3), width_factor=(-0.2, -0.2), fill_mode="wrap"),
    case(P.RandomZoom, np.moveaxis(PIXELS, -1, 1), height_factor=(0.3, 0.3), fill_mode="constant", **FIRST),
    case(P.RandomTranslation, PIXELS, height_factor=(0.3, 0.3), width_factor=(-0.2, -0.2)),
    case(P.RandomTranslation, PIXELS[1], height_factor=0.0, width_factor=(0.4, 0.4), fill_mode="constant"),
    case(P.RandomTranslation, BYTES, height_factor=(0.2, 0.2), width_factor=0.0, interpolation="nearest"),
    case(P.RandomBrightness, PIXELS, factor=(0.3, 0.3)),
    case(P.RandomBrightness, PIXELS[0] / 255, factor=(-0.4, -0.4), value_range=(0.0, 1.0)),
    case(P.RandomContrast, PIXELS, factor=0.0, value_range=(20, 200)),
    case(P.RandomFlip, PIXELS[:, :1, :1]),
    case(P.RandomGrayscale, PIXELS, factor=1.0),
    case(P.RandomGrayscale, PIXELS[..., :1], factor=1.0),
    case(P.RandomGrayscale, np.moveaxis(PIXELS, -1, 1), factor=1.0, **FIRST),
    case(P.RandomHue, PIXELS, factor=(1.0, 1.0)),  # half a turn, to either side
    case(P.RandomHue, PIXELS / 255, factor=(0.0, 0.0), value_range=(0, 1)),
    case(P.RandomSaturation, PIXELS / 255, factor=(0.3, 0.3), value_range=(0, 1)),
    case(P.RandomSaturation, PIXELS / 255, factor=(0.8, 0.8), value_range=(0, 1)),
    case(P.RandomSaturation, np.moveaxis(PIXELS / 255, -1, 1), factor=(0.6, 0.6), value_range=(0, 1), **FIRST),
    case(P.RandomColorDegeneration, PIXELS, factor=(0.3, 0.3)),
    case(P.RandomInvert, PIXELS, factor=(1.0, 1.0)),
    case(P.RandomSharpness, PIXELS, factor=(0.2, 0.2)),
    case(P.RandomSharpness, PIXELS / 255, factor=(0.9, 0.9), value_range=(0, 1)),
    case(P.RandomPosterization, BYTES, factor=(3, 3)),
    case(P.RandomPosterization, PIXELS, factor=(1, 1)),
    case(P.RandomShear, PIXELS, x_factor=(0.0, 0.0), y_factor=(0.0, 0.0)),
    case(P.Solarization, PIXELS, threshold_factor=0.0),
    case(P.Equalization, BYTES[:1]),  # of several pictures, Keras counts the values together
    case(P.Equalization, PIXELS[0], bins=16),
    case(P.Equalization, BYTES[:1] / np.float32(255), value_range=(0, 1)),
    case(P.RandomColorJitter, PIXELS, hue_factor=(1.0, 1.0), brightness_factor=(0.2, 0.2)),
    case(P.RandomErasing, PIXELS, factor=1.0, scale=(0.0, 0.0)),
]


@pytest.mark.parametrize("case", FIXED, ids=str)
def test_random_layers_without_chance_are_those_of_keras(keras: Any, case: Case) -> None:
    wanted = to_numpy(getattr(keras.layers, case.cls.__name__)(**case.kwargs)(case.x, training=True))
    assert_close(case.layer()(case.x), wanted, rtol=1e-3, atol=2e-3, what=str(case))


BATCH = np.random.default_rng(5).uniform(0, 255, (64, 4, 6, 3)).astype("float32")
RANDOM: list[Callable[[], Any]] = [
    lambda: P.RandomFlip(name="r"),
    lambda: P.RandomFlip("vertical", seed=3, name="r"),
    lambda: P.RandomRotation(0.5, name="r"),
    lambda: P.RandomZoom(0.5, 0.3, name="r"),
    lambda: P.RandomTranslation(0.5, 0.5, fill_mode="wrap", name="r"),
    lambda: P.RandomContrast(0.7, name="r"),
    lambda: P.RandomBrightness(0.4, name="r"),
    lambda: P.RandomCrop(2, 3, name="r"),
    lambda: P.RandomShear(0.6, 0.4, name="r"),
    lambda: P.RandomErasing(name="r"),
    lambda: P.RandomErasing(0.8, (0.2, 0.6), fill_value=3.0, name="r"),
    lambda: P.RandomGrayscale(name="r"),
    lambda: P.RandomHue(0.7, name="r"),
    lambda: P.RandomSaturation(0.9, name="r"),
    lambda: P.RandomColorDegeneration(0.9, name="r"),
    lambda: P.RandomInvert(0.9, name="r"),
    lambda: P.RandomSharpness(0.9, name="r"),
    lambda: P.RandomPosterization(6, name="r"),
    lambda: P.RandomColorJitter((0, 255), 0.3, 0.4, 0.6, 0.5, name="r"),
    lambda: P.Solarization(0.3, (0.2, 0.8), name="r"),
    lambda: P.MixUp(0.5, name="r"),
    lambda: P.CutMix(name="r"),
    lambda: P.RandAugment(num_ops=1, name="r"),
]
each_random = pytest.mark.parametrize("make", RANDOM, ids=lambda make: type(make()).__name__)


@each_random
def test_random_pictures_are_the_same_everywhere(backend: Backend, make: Callable[[], Any]) -> None:
    """Call by call, traced and at once; and another seed gives others."""
    plain, compiled, engine = make(), make(), make()
    compiled.build(None)
    run = ul.function(lambda x: compiled(x, training=True), backend=backend)
    [array] = backend.put([BATCH], backend.device(None))
    seen = []
    for _ in range(3):
        wanted = plain(BATCH, training=True)
        seen.append(wanted)
        tolerance = {"rtol": 1e-4, "atol": 1e-2}
        assert_close(backend.get(run(BATCH)), wanted, **tolerance, what="traced")
        assert_close(backend.get(engine(array, training=True)), wanted, **tolerance, what="at once")
    assert len({y.tobytes() for y in seen}) > 1
    layer = make()
    other = type(layer).from_config(layer.get_config() | {"seed": 12})
    assert [other(BATCH, training=True).tobytes() for _ in seen] != [y.tobytes() for y in seen]


@each_random
def test_training_flag(make: Callable[[], Any]) -> None:
    """Inference leaves pictures as they are, or crops their middle; a layer by itself works on data, as in Keras."""
    layer = make()
    calm = layer(BATCH, training=False)
    wanted = P.RandomCrop(2, 3).undisturbed(BATCH) if isinstance(layer, P.RandomCrop) else BATCH
    np.testing.assert_array_equal(calm, wanted)
    np.testing.assert_array_equal(make()(BATCH), make()(BATCH, training=True))
    model = ul.Sequential([L.Input(BATCH.shape[1:]), make()])
    np.testing.assert_array_equal(model(BATCH), wanted)
    np.testing.assert_array_equal(model.predict(BATCH, verbose=0), wanted)
    assert (ops.to_numpy(model(BATCH, training=True)) != calm).any()
    assert layer.weights == []


@each_random
def test_random_layers_in_configs(make: Callable[[], Any]) -> None:
    layer = make()
    again = type(layer).from_config(json.loads(json.dumps(layer.get_config())))
    np.testing.assert_array_equal(again(BATCH), layer(BATCH))


@each_random
def test_formats_of_pictures(make: Callable[[], Any]) -> None:
    layer = make()
    first = type(layer).from_config(layer.get_config() | FIRST)
    x = BATCH
    wanted = make()(x)
    assert_close(np.moveaxis(first(np.moveaxis(x, -1, 1)), 1, -1), wanted, rtol=0, atol=0, what="channels first")
    assert_close(make()(x[0]), make()(x[:1])[0], rtol=0, atol=0, what="one picture")
    with pytest.raises(ShapeError, match=r"not pictures. Expected 3 axes, or 4 with the batch"):
        make()(BATCH[0, 0])


@each_backend
@each_random
def test_small_batches_and_other_floats(backend: Backend, make: Callable[[], Any]) -> None:
    for dtype in ("float16", "float64"):
        layer = type(make()).from_config(make().get_config() | {"dtype": dtype})
        run = ul.function(lambda x, layer=layer: layer(x, training=True), backend=backend)
        for count in (0, 1):
            y = backend.get(run(BATCH[:count]))
            assert y.dtype == dtype and len(y) == count and np.isfinite(y).all()
        [empty] = backend.put([BATCH[:0]], backend.device(None))
        assert tuple(layer(empty, training=True).shape) == (0, *y.shape[1:])


def test_angles_are_those_of_keras(keras: Any) -> None:
    """But for the first and the last bin, which have no sine: there, Keras's is rounding noise of any sign."""
    arguments = {"mode": "angle", "frame_length": 16, "periodic": True, "expand_dims": True}
    mine, theirs = P.STFTSpectrogram(**arguments)(WAVES), keras.layers.STFTSpectrogram(**arguments)(WAVES)
    assert_close(mine[:, :, 1:-1], to_numpy(theirs)[:, :, 1:-1], rtol=1e-3, atol=1e-4, what="angles")
    assert set(np.unique(mine[:, :, [0, -1]])) == {np.float32(0), np.float32(np.pi)}


def test_lengths_of_frames_that_do_not_fit() -> None:
    for arguments in ({"frame_step": 300}, {"fft_length": 128}):
        with pytest.raises(UnilayersError, match="Expected frame_step <= frame_length <= fft_length"):
            P.STFTSpectrogram(**arguments)
    with pytest.raises(UnilayersError, match="sequence_length is above fft_length"):
        P.MelSpectrogram(64, sequence_length=65)


def test_transformations_are_those_of_keras(keras: Any) -> None:
    """What is random, drawn by hand and given to both."""
    two = np.array([0.3, -0.45], "float32")
    found = P.RandomHue(0.5).turned(PIXELS, two / 2)
    wanted = keras.layers.RandomHue(0.5).transform_images(PIXELS, {"factor": two / 2})
    assert_close(found, to_numpy(wanted), rtol=1e-4, atol=1e-2, what="hue")
    added, threshold = (np.array(v, "float32").reshape(2, 1, 1, 1) for v in ([20.0, 3.0], [140.0, 90.0]))
    found = P.Solarization(value_range=(0, 1)).solarized(PIXELS / 255, added, threshold)
    other = keras.layers.Solarization(value_range=(0, 1))
    tensors = {"additions": keras.ops.convert_to_tensor(added), "thresholds": keras.ops.convert_to_tensor(threshold)}
    wanted = other.transform_images(PIXELS / 255, tensors)
    assert_close(found, to_numpy(wanted), rtol=1e-4, atol=1e-5, what="solarization")
    shear, other = P.RandomShear(1.0, 1.0), keras.layers.RandomShear(1.0, 1.0)
    object.__setattr__(shear, "uniform", lambda number, count: [abs(two), abs(two[::-1]), np.array([0.2, 0.9])])
    factors = np.stack([two, [0.45, -0.3]], 1).astype("float32")
    wanted = other.transform_images(PIXELS, {"shear_factor": keras.ops.convert_to_tensor(factors)})
    assert_close(shear(PIXELS), to_numpy(wanted), rtol=1e-4, atol=2e-3, what="shear")


def test_equalization_takes_each_picture_for_itself() -> None:
    together = P.Equalization()(BYTES)
    np.testing.assert_array_equal(together, np.concatenate([P.Equalization()(BYTES[i : i + 1]) for i in range(2)]))
    flat = np.full((1, 3, 3, 2), 7.0, "float32")
    np.testing.assert_array_equal(P.Equalization()(flat), flat)


def test_boxes() -> None:
    x = np.zeros((40, 6, 10, 1))
    w, h, u, v = np.random.default_rng(2).uniform(0, 1, (4, 40)).astype("float32")
    inside, area = mixing.boxes(x, w, h, u, v)
    for i, row, column in np.ndindex(40, 6, 10):
        y0, x0 = v[i] * (6 - 6 * h[i]), u[i] * (10 - 10 * w[i])
        wanted = y0 <= row < y0 + 6 * h[i] and x0 <= column < x0 + 10 * w[i]
        assert bool(inside[i, row, column, 0]) == wanted
    assert_close(area, w * h, rtol=1e-6, atol=0, what="area")


def test_erased_boxes() -> None:
    x = np.ones((3000, 10, 10, 1), "float32")
    y = P.RandomErasing((0.4, 0.4), (0.25, 0.25), fill_value=9.0)(x)
    erased = (y == 9.0).sum((1, 2, 3))
    assert set(erased.tolist()) <= {0, 25, 30, 36} and set(np.unique(y)) == {1.0, 9.0}
    assert abs((erased > 0).mean() - 0.4) < 4 * np.sqrt(0.4 * 0.6 / 3000)
    noise = P.RandomErasing((1.0, 1.0), (1.0, 1.0), value_range=(-1000.0, 10.0))(x[:100])
    assert abs((noise == 10.0).mean() - 0.1587) < 0.02 and abs(noise[noise < 10.0].min() + 35) < 10
    coloured = P.RandomErasing((1.0, 1.0), (1.0, 1.0), fill_value=[1.0, 2.0, 3.0])(PIXELS)
    assert coloured[0, 0, 0].tolist() == [1.0, 2.0, 3.0] and np.ptp(coloured[..., 0]) == 0


@pytest.mark.parametrize("layer", [P.MixUp(0.4), P.CutMix((0.5, 0.5))], ids=lambda x: type(x).__name__)
def test_mixtures_of_pictures_and_labels(backend: Backend, layer: Any) -> None:
    n = 800
    code = np.arange(n, dtype="float32")
    images = np.broadcast_to(np.where(code < n / 2, 0.0, 1.0).reshape(n, 1, 1, 1), (n, 20, 20, 1)).astype("float32")
    layer = type(layer).from_config(layer.get_config())
    run = ul.function(lambda x, y: layer({"images": x, "labels": y}, training=True), backend=backend)
    mixed = run(images, np.eye(n, dtype="float32"))
    labels = backend.get(mixed["labels"])
    np.testing.assert_allclose(labels.sum(1), 1.0, atol=1e-5)
    own = np.diagonal(labels)
    partner = np.argmax(labels - np.diag(own), 1)
    assert len({*partner[own < 1 - 1e-6].tolist()}) == (own < 1 - 1e-6).sum()  # an order: nobody is taken twice
    wanted = own * images[:, 0, 0, 0] + (1 - own) * images[partner, 0, 0, 0]
    found = backend.get(mixed["images"]).mean((1, 2, 3))
    # A box has whole pixels, of an area that is not whole.
    assert np.abs(found - wanted).max() < (1e-5 if isinstance(layer, P.MixUp) else 0.11)
    alpha = 0.4 if isinstance(layer, P.MixUp) else 0.5
    alone = partner == np.arange(n)
    assert stats.kstest(own[~alone & (own < 1)], stats.beta(alpha, alpha).cdf).pvalue > 1e-3


def test_pictures_with_labels() -> None:
    data = {"images": BATCH, "labels": np.arange(64)}
    found = P.RandomFlip(seed=1)(data)
    np.testing.assert_array_equal(found["images"], P.RandomFlip(seed=1)(BATCH))
    np.testing.assert_array_equal(found["labels"], data["labels"])
    calm = P.MixUp()(data, training=False)
    np.testing.assert_array_equal(calm["images"], BATCH)
    with pytest.raises(DTypeError, match=r"numbers of classes cannot be mixed\..*Use ops.one_hot"):
        P.MixUp()(data)
    with pytest.raises(UnilayersError, match="not pictures with their labels"):
        P.RandomFlip()({"images": BATCH, "bounding_boxes": BATCH})


def test_all_kinds_of_changes_are_drawn_alike() -> None:
    layer = P.RandAugment(num_ops=1)
    assert len({type(part) for part in layer.parts}) == 11
    layer.parts = [L.Rescaling(float(i)) for i in range(11)]
    one = np.ones((1, 1, 1, 3), "float32")
    kinds = [int(layer(one).ravel()[0]) for _ in range(660)]
    assert stats.chisquare(np.bincount(kinds, minlength=11)).pvalue > 1e-3


def test_pipelines(backend: Backend) -> None:
    chain = P.Pipeline([L.Rescaling(1 / 255), {"RandomFlip": {"seed": 3}}, P.RandomContrast(0.5, (0, 1), seed=4)])
    again = P.Pipeline.from_config(json.loads(json.dumps(chain.get_config())))
    np.testing.assert_array_equal(chain(BATCH), again(BATCH))
    assert_close(chain(BATCH, training=False), BATCH * np.float32(1 / 255), rtol=1e-6, atol=0, what="inference")
    losses = []
    for engine in ("numpy", backend):
        model = ul.Sequential([L.Input(BATCH.shape[1:]), P.Pipeline.from_config(chain.get_config()), L.Flatten()])
        model.add(L.Dense(1))
        model.compile("sgd", "mse")
        losses.append(model.fit(BATCH, BATCH[:, 0, 0, :1] / 255, epochs=2, verbose=0, backend=engine).history["loss"])
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    with pytest.raises(UnilayersError, match=r"Pipeline\.layers: unknown layer 'RandomFlop'"):
        P.Pipeline(["RandomFlop"])


def test_flips_are_even() -> None:
    """The four outcomes are equally frequent, and each is the whole picture."""
    x = np.broadcast_to(np.arange(6.0, dtype="float32").reshape(1, 2, 3, 1), (4000, 2, 3, 1))
    y = P.RandomFlip()(x)[..., 0]
    ways = {"as it is": x[0, :, :, 0], "h": x[0, :, ::-1, 0], "v": x[0, ::-1, :, 0], "both": x[0, ::-1, ::-1, 0]}
    counts = Counter(next(name for name, way in ways.items() if (picture == way).all()) for picture in y)
    assert set(counts) == set(ways)
    assert all(abs(n - 1000) < 4 * np.sqrt(4000 * 3 / 16) for n in counts.values())


def test_random_amounts_fill_their_bounds() -> None:
    """Brightness, contrast, translation and zoom, read off pictures that show them."""
    n = 3000
    flat = np.full((n, 1, 1, 1), 100.0, "float32")
    added = (P.RandomBrightness((-0.1, 0.3))(flat) - flat).ravel() / 255
    pair = np.broadcast_to(np.array([100.0, 110.0], "float32").reshape(1, 1, 2, 1), (n, 1, 2, 1))
    contrasts = np.diff(P.RandomContrast((0.2, 0.6))(pair), axis=2).ravel() / 10
    slope = np.broadcast_to(np.arange(101.0, dtype="float32").reshape(1, 1, 101, 1), (n, 1, 101, 1))
    moved = (50 - P.RandomTranslation(0.0, (-0.1, 0.2))(slope)[:, 0, 50, 0]) / 101
    zoomed = P.RandomZoom((0.0, 0.0), (-0.5, -0.2))(slope)
    zooms = (zoomed[:, 0, 60, 0] - zoomed[:, 0, 40, 0]) / 20
    for found, low, high in ((added, -0.1, 0.3), (contrasts, 0.8, 1.6), (moved, -0.1, 0.2), (zooms, 0.5, 0.8)):
        width = high - low
        assert found.min() >= low - 1e-4 and found.max() <= high + 1e-4
        # A uniform number has variance width**2 / 12; five standard deviations of the mean.
        assert abs(found.mean() - (low + high) / 2) < 5 * width / np.sqrt(12 * n)
        assert abs(found.std() / (width / np.sqrt(12)) - 1) < 0.05


def test_random_colours_fill_their_bounds() -> None:
    """Bits, probabilities, shares and angles, read off pictures that show them."""
    n = 3000
    white = np.full((n, 1, 1, 1), 255.0, "float32")
    bits = np.round(8 - np.log2(256 - P.RandomPosterization((2, 5))(white).ravel()))
    assert stats.chisquare(np.bincount(bits.astype(int), minlength=6)[2:]).pvalue > 1e-3
    for layer, share in ((P.RandomInvert(0.6), 0.3), (P.RandomGrayscale(0.3), 0.3), (P.RandomInvert((0.2, 0.4)), 0.3)):
        x = np.broadcast_to(np.array([10.0, 20.0, 40.0], "float32"), (n, 1, 1, 3))
        changed = (layer(x) != x).any((1, 2, 3))
        assert abs(changed.mean() - share) < 4 * np.sqrt(share * (1 - share) / n)
    red = np.broadcast_to(np.array([255.0, 0.0, 0.0], "float32"), (n, 1, 1, 3))
    turned = P.RandomHue((0.1, 0.3))(red)  # to green where it is turned one way, to blue the other way
    angles = (turned[..., 1] - turned[..., 2]).ravel() / 255 / 3  # shares of half a turn
    assert abs((angles > 0).mean() - 0.5) < 4 * 0.5 / np.sqrt(n)
    assert stats.kstest(abs(angles), stats.uniform(0.1, 0.2).cdf).pvalue > 1e-3
    gray = P.RandomColorDegeneration((0.2, 0.6))(red)[..., 1].ravel() / (0.2989 * 255)
    assert stats.kstest(gray, stats.uniform(0.2, 0.4).cdf).pvalue > 1e-3


def test_crops_reach_every_place() -> None:
    x = np.arange(12.0, dtype="float32").reshape(1, 3, 4, 1)
    layer = P.RandomCrop(2, 2)
    corners = Counter(float(layer(np.concatenate([x, x + 100]))[0, 0, 0, 0]) for _ in range(300))
    assert set(corners) == {0.0, 1.0, 2.0, 4.0, 5.0, 6.0}
    y = layer(np.concatenate([x, x + 100]))
    np.testing.assert_array_equal(y[1], y[0] + 100)  # one place for the whole batch
    np.testing.assert_array_equal(y[0, 1] - y[0, 0], 4)


@pytest.mark.parametrize(
    "make",
    [
        lambda: P.RandomRotation(1.5),
        lambda: P.RandomZoom(-1.0),
        lambda: P.RandomZoom(0.1, (0.0, 2.0)),
        lambda: P.RandomTranslation(0.1, -1.1),
        lambda: P.RandomContrast(-0.1),
        lambda: P.RandomBrightness((0.0, 1.5)),
        lambda: P.RandomShear(1.1),
        lambda: P.RandomHue((-0.2, 0.1)),
        lambda: P.RandomSaturation(1.2),
        lambda: P.RandomPosterization(9),
        lambda: P.Solarization(-0.1),
    ],
)
def test_factors_outside_their_bounds(make: Callable[[], Any]) -> None:
    with pytest.raises(UnilayersError, match=r"factor: a value that does not fit. Expected numbers"):
        make()


def test_crops_of_smaller_pictures(keras: Any) -> None:
    """And of all in inference: the largest part of the shape, resized."""
    for size in ((8, 4), (6, 6), (2, 3)):
        wanted = to_numpy(keras.preprocessing.image.smart_resize(PIXELS, size))
        layer = P.RandomCrop(*size)
        assert_close(layer(PIXELS, training=False), wanted, rtol=1e-5, atol=1e-4, what=f"{size} in inference")
        if size[0] > PIXELS.shape[1]:
            assert_close(layer(PIXELS, training=True), wanted, rtol=1e-5, atol=1e-4, what=f"{size} in training")


def test_sizes_must_be_known() -> None:
    for layer in (P.Resizing(2, 2), P.CenterCrop(2, 2), P.RandomCrop(2, 2)):
        with pytest.raises(ShapeError, match="the height and width of the pictures must be known"):
            layer(L.Input((None, 4, 1)))
    with pytest.raises(UnilayersError, match="crop_to_aspect_ratio and pad_to_aspect_ratio are both set"):
        P.Resizing(2, 2, crop_to_aspect_ratio=True, pad_to_aspect_ratio=True)


@pytest.mark.parametrize(
    "make",
    [
        P.RandomFlip,
        lambda: P.RandomRotation(0.2, name="r"),
        lambda: P.RandomZoom(0.2, name="r"),
        lambda: P.RandomTranslation(0.2, 0.1, name="r"),
        lambda: P.RandomContrast(0.2, name="r"),
    ],
)
def test_pictures_of_any_size_in_one_graph(make: Callable[[], Any]) -> None:
    model, plain = ul.Sequential([L.Input((None, None, 1)), make()]), ul.Sequential([make()])
    for size in (4, 6):
        x = BATCH[:3, :, :size]
        wanted = plain(x, training=True)
        assert_close(model(x, training=True), ops.to_numpy(wanted), rtol=1e-5, atol=1e-4, what=f"width {size}")


# ---- in models and recipes -----------------------------------------------------------------


def test_models_with_preprocessing_train_alike(backend: Backend) -> None:
    """The same losses as on NumPy, from bytes with augmentation."""
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (32, 8, 8, 1)).astype("uint8"), rng.integers(0, 2, 32)

    def losses(name: str) -> list[float]:
        model = ul.Sequential(
            [
                L.Input((8, 8, 1), dtype="uint8"),
                P.Rescaling(1 / 255),
                P.RandomFlip(),
                P.RandomRotation(0.1),
                P.RandomZoom(0.1),
                P.RandomCrop(6, 6),
                L.Flatten(),
                L.Dense(2),
            ],
            seed=2,
        )
        model.compile("sgd", ul.losses.SparseCategoricalCrossentropy(from_logits=True))
        history = model.fit(x, y, epochs=2, batch_size=16, backend=name, verbose=0)
        return [*history.history["loss"], model.evaluate(x, y, backend=name, verbose=0)]

    assert losses(backend.name) == pytest.approx(losses("numpy"), rel=1e-4)


def test_saved_models_keep_what_was_learned(tmp_path: Path) -> None:
    normalization, lookup, bins = (
        P.Normalization(),
        P.IntegerLookup(output_mode="one_hot"),
        P.Discretization(num_bins=3),
    )
    ages, codes = np.random.default_rng(0).normal(50, 9, (40, 2)).astype("float32"), np.arange(40).reshape(40, 1) % 5
    normalization.adapt(ages)
    bins.adapt(ages)
    lookup.adapt(codes)
    age, code = L.Input((2,), name="age"), L.Input((1,), dtype="int64", name="code")
    parts = [normalization(age), lookup(code), L.Flatten()(P.CategoryEncoding(3, "one_hot")(bins(age)))]
    model = ul.Model([age, code], L.Dense(1)(L.Concatenate()(parts)), seed=0)
    wanted = model.predict([ages, codes], verbose=0)
    model.save(tmp_path / "model.safetensors")
    again = ul.load_model(tmp_path / "model.safetensors")
    np.testing.assert_array_equal(again.predict([ages, codes], verbose=0), wanted)


def test_recipes_with_preprocessing(tmp_path: Path) -> None:
    text = """
data: {dataset: digits}
model:
  - Input: {shape: [8, 8, 1]}
  - Normalization: {axis: null, mean: 0.5, variance: 0.1}
  - RandomTranslation: {height_factor: 0.1, width_factor: [-0.1, 0.2], fill_mode: constant}
  - RandomContrast: {factor: 0.2, value_range: [-5, 5]}
  - Resizing: {height: 6, width: 6}
  - Flatten
  - Dense: {units: 10}
loss: {SparseCategoricalCrossentropy: {from_logits: true}}
optimizer: adam
fit: {epochs: 3, batch_size: 64}
"""
    recipe = Recipe(text)
    assert [type(layer) for layer in recipe.build().layers[:3]] == [
        P.Normalization, P.RandomTranslation, P.RandomContrast,
    ]  # fmt: skip
    history = recipe.train(tmp_path / "run", verbose=0).history
    assert history["loss"][-1] < history["loss"][0]
    with pytest.raises(UnilayersError, match="fill_mode"):
        Recipe(text.replace("constant", "mirror"))
