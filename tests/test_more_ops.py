"""Functions of Keras's names that are not ops of their own: against Keras, at once, in graphs, with gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import unilayers as ul
from tests.compare import assert_close
from tests.conftest import BACKENDS, require_backend
from unilayers import ops
from unilayers.autodiff import value_and_grad
from unilayers.graph import leaf
from unilayers.ops import decompositions, image, more, neural, rearranging, signal, sorting, special, statistics
from unilayers.spec import Dim, Spec, is_float
from unilayers.structure import leaves_of

keras = pytest.importorskip("keras")

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(3, 4)), RNG.normal(size=(3, 4))
V, W = RNG.normal(size=5), RNG.uniform(0.5, 2, 4)
I = np.array([[0, 2, 1], [3, 3, 0]], np.int32)  # noqa: E741
CUBE = RNG.normal(size=(2, 3, 4))
GAPS = np.where(RNG.uniform(size=(3, 4)) < 0.3, np.nan, X)
GAPS[1] = np.nan
POSITIVE = X @ X.T + 3 * np.eye(3)
SQUARE = RNG.normal(size=(2, 3, 3)) + 3 * np.eye(3)
PICTURES = RNG.uniform(size=(2, 6, 5, 3))
SHARES = RNG.dirichlet(np.ones(4), 3)
LABELS = np.array([1, 0, 3], np.int32)
QUERY, KEY, VALUE = RNG.normal(size=(2, 3, 4, 5)), RNG.normal(size=(2, 6, 2, 5)), RNG.normal(size=(2, 6, 2, 5))
IDS, PLACES = np.array([1, 0, 1], np.int32), np.array([[0, 1], [2, 3], [0, 2]], np.int32)
TURN = np.array([[0.9, 0.2, 0.33, -0.1, 1.1, 0.44, 0.0, 0.0], [1.0, 0.0, 1.4, 0.0, 1.0, -0.3, 0.0, 0.0]])
CORNERS = np.array([[0.0, 0.0], [4.0, 0.0], [0.0, 5.0], [4.0, 5.0]])
WAVE = RNG.normal(size=(2, 20))
TWICE = np.repeat(CUBE, 2, 1)

# Arguments by name; the same for Keras.
CALLS: dict[str, list[tuple[Any, ...]]] = {
    "absolute": [(X,)], "allclose": [(X, X + 1e-9), (X, Y)], "amax": [(X, 1)], "amin": [(X,)],
    "arccos": [(np.tanh(X),)], "arcsin": [(np.tanh(X),)], "arctan": [(X,)], "arctan2": [(X, Y)], "array": [(X,)],
    "average": [(X,), (X, 0), (X, 1, W), (X, 0, np.abs(Y))], "bitwise_not": [(I,)], "cast": [(X, "int32")],
    "cbrt": [(X,)], "concatenate": [([X, Y], 1)], "convert_to_numpy": [(X,)], "convert_to_tensor": [(X,)],
    "copy": [(X,)], "count_nonzero": [(X,), (I, 1)], "cumprod": [(X, 1), (V,)], "cumsum": [(X, 0), (X,)],
    "deg2rad": [(X,)], "diag": [(V,), (V, -2), (X,), (X, 1)],
    "diagonal": [(X,), (X, -1), (RNG.normal(size=(2, 3, 4)), 0, 1, 2)], "diff": [(X,), (X, 2, 0)],
    "divide_no_nan": [(X, Y * (X > 0))], "dot": [(X, Y.T), (V, V), (2.0, V)], "dtype": [], "exp2": [(X,)],
    "eye": [(3,), (3, 4, 1)], "fliplr": [(X,)], "flipud": [(X,)], "hstack": [([X, Y],), ([V, V],)], "hypot": [(X, Y)],
    "inner": [(X, Y)], "isclose": [(X, X + 1e-9)], "left_shift": [(I, 2)], "linspace": [(0.0, 1.0, 5)],
    "log10": [(np.abs(X),)], "log2": [(np.abs(X),)], "logaddexp": [(X, Y)], "meshgrid": [(V, W)], "mod": [(X, 0.7)],
    "moments": [(X, 1)], "multi_hot": [(I, 4)],
    "nan_to_num": [(np.array([np.nan, np.inf, -np.inf, 1.0]), 0.5, 9.0, -9.0)], "ndim": [(X,)],
    "norm": [(X,), (X, None, 1), (X, 1, 0), (X, np.inf, 1), (X, 3, 1)], "normalize": [(X,), (X, 0)], "outer": [(V, W)],
    "ptp": [], "rad2deg": [(X,)], "ravel": [(X,)], "right_shift": [(I, 1)], "roll": [(X, 1), (X, -2, 1), (X, 7, 0)],
    "scatter": [(np.array([[0, 1], [2, 0], [0, 1]], np.int32), V[:3], (3, 2))],
    "select": [([X > 0.5, X > 0], [X, Y], 0.0)], "shape": [(X,)], "slice": [(X, (1, 0), (2, 3))],
    "slice_update": [(X, (1, 2), Y[:2, :2])], "swapaxes": [(RNG.normal(size=(2, 3, 4)), 0, -1)],
    "trace": [(X,), (X, 1)], "tri": [(3,), (3, 4, -1)], "tril": [(X,), (X, 1)], "triu": [(X,), (X, -1)],
    "true_divide": [(X, Y)], "trunc": [(X * 3,)], "unstack": [(X,), (X, None, 1)], "vdot": [(V, V)],
    "vectorized_map": [], "vstack": [([X, Y],), ([V, V],)],
    # special
    "angle": [(X,)], "arccosh": [(W + 1,), (np.array([1.0, 1.5, 1e4]),)],
    "arcsinh": [(X,), (np.array([0.0, -1e-9, 1e4]),)], "arctanh": [(np.tanh(X),)], "conj": [(X,)], "conjugate": [(X,)],
    "fabs": [(X,), (I,)], "fmax": [(GAPS, Y)], "fmin": [(GAPS, Y)], "fmod": [(X * 5, Y), (I * 7 - 9, 4)],
    "gcd": [(I * 6, 4), (I, I.T[:2, :1])], "heaviside": [(np.round(X), 0.5)], "imag": [(X,)],
    "isneginf": [(np.array([-np.inf, np.inf, np.nan, 1.0]),)],
    "isposinf": [(np.array([-np.inf, np.inf, np.nan, 1.0]),)], "isreal": [(X,)], "lcm": [(I * 6, 4)],
    "ldexp": [(X, np.array([0, 1, -2, 3], np.int32))], "logaddexp2": [(X, Y)], "real": [(X,)],
    "saturate_cast": [(X * 300, "uint8"), (I * 100, "int8"), (np.array([1e20, -1e20, 5.5]), "int32")],
    "signbit": [(np.array([-0.0, 0.0, -1.0, 2.0, -np.inf]),), (I - 1,)], "sinc": [(X,), (np.array([0.0, 1.0]),)],
    # sorting
    "argpartition": [(V, 2)], "argsort": [(X,), (X, 0), (I,), (X, None)], "sort": [(X,), (X, 0)],
    "in_top_k": [(LABELS, X, 2)], "searchsorted": [(np.sort(V), X), (np.array([1, 2, 2, 3], np.int32), I, "right")],
    "segment_max": [(X, IDS, 2)], "segment_min": [(X, IDS, 2)], "segment_prod": [(X, IDS, 2)],
    "segment_sum": [(X, IDS, 3), (X, IDS)], "top_k": [(X, 2), (np.array([3, 1, 3, 0], np.int32), 3)],
    # statistics
    "bincount": [(IDS, None, 3), (IDS, W[:3], 2), (I, None, 5)], "cdist": [(X, Y[:2]), (SQUARE, SQUARE[:, :2])],
    "corrcoef": [(X,), (V,)], "digitize": [(X, np.array([-0.5, 0.0, 1.0]))],
    "correlate": [(V, W, m) for m in ("valid", "same", "full")] + [(W[:2], V, m) for m in ("valid", "same", "full")],
    "histogram": [(X, 4), (X, 3, (-1.0, 1.0)), (np.ones(4), 2)],
    "trapezoid": [(X,), (X, np.sort(W)), (X, Y, 1.0, 0), (X, None, 0.5, 0)],
    "median": [(X,), (X, 1), (X, 0, True), (CUBE, (0, 2)), (CUBE, (0, 1), True)], "psnr": [(X, Y, 2.0)],
    "quantile": [
        *((X, q, 1, m) for q in (0.3, np.array([0.0, 0.35, 1.0])) for m in statistics.METHODS),
        (CUBE, 0.4, (0, 2), "linear", True),
    ],
    "percentile": [(X, 30), (X, np.array([10.0, 90.0]), 0)], "nanargmax": [(GAPS[::2], 1), (GAPS,), (GAPS, 0)],
    "nanargmin": [(GAPS[::2], 1, True), (GAPS,)], "nancumprod": [(GAPS, 1)], "nancumsum": [(GAPS,), (GAPS, 0)],
    "nanmax": [(GAPS, 1), (I, 0)], "nanmean": [(GAPS, 1), (GAPS, 0, True), (I,)], "nanmedian": [(GAPS, 1), (GAPS,)],
    "nanmin": [(GAPS, 1)], "nanpercentile": [(GAPS, 30.0, 0)], "nanprod": [(GAPS, 1)],
    "nanquantile": [(GAPS, np.array([0.2, 0.9]), 1)], "nanstd": [(np.where(X > 1, np.nan, X), 0), (GAPS, 0)],
    "nansum": [(GAPS, 1), (I,)], "nanvar": [(GAPS, 1, True)],
    # rearranging
    "append": [(X, Y), (X, Y, 1)], "array_split": [(V, 3), (X, 3, 1)], "associative_scan": [], "bartlett": [(5,)],
    "blackman": [(5,)], "hamming": [(5,)], "hanning": [(5,)], "kaiser": [(5, 4.0)],
    "cross": [
        (X[:, :3], Y[:, :3]), (X[:, :2], Y[:, :2]), (X[:, :2], Y[:, :3]), (X, Y, 0, 0, 0), (X, Y, -1, -1, -1, 0),
    ],
    "depth_to_space": [
        (np.arange(48.0).reshape(1, 2, 3, 8), 2), (np.arange(48.0).reshape(1, 8, 2, 3), 2, "channels_first"),
    ],
    "space_to_depth": [
        (np.arange(48.0).reshape(1, 4, 6, 2), 2), (np.arange(48.0).reshape(1, 2, 4, 6), 2, "channels_first"),
    ],
    "diagflat": [(X,), (V, 1)], "dsplit": [(CUBE, 2)], "dstack": [([X, Y],), ([V, V],), ([CUBE, CUBE],)], "empty": [],
    "empty_like": [],
    "fold": [(RNG.normal(size=(2, 12, 4)), (4, 5), 2, 1, 0, 2), (RNG.normal(size=(1, 4, 20)), (4, 3), (2, 2), 1, 1)],
    "unfold": [(np.moveaxis(PICTURES, -1, 1), (2, 3)), (np.moveaxis(PICTURES, -1, 1), 2, 2, 1, (1, 2))],
    "geomspace": [(1.0, 8.0, 4), (np.array([1.0, 2.0]), np.array([8.0, 32.0]), 3, False)],
    "logspace": [(0.0, 2.0, 3), (0.0, 2.0, 3, True, 2.0), (V[:2], W[:2], 3)], "get_item": [(X, (slice(0, 2), 1))],
    "hsplit": [(X, 2), (V, [1, 3])], "vsplit": [(X, [1])],
    "isin": [(I, np.array([0, 3], np.int32)), (I, IDS, False, True)], "is_tensor": [], "kron": [(X, Y[:2]), (V, X)],
    "nonzero": [], "unique": [], "vectorize": [], "rearrange": [(CUBE, "a b c -> c (b a)")],
    "rot90": [(X,), (X, 2), (X, 3), (CUBE, -1, (1, 2)), (X, 0)],
    "scatter_update": [
        (X, PLACES, V[:3]), (X, IDS[:2, None], Y[:2]), *((X, PLACES, V[:3], r) for r in ("add", "mul", "max", "min")),
    ],
    "unravel_index": [(I, (2, 3))], "vander": [(V,), (V, 3, True)],
    # neural
    "batch_normalization": [(CUBE, V[:3], W[:3], 1), (X, V[:4], W, -1, Y[0], X[0], 0.1)],
    "layer_normalization": [(X,), (X, W, Y[0]), (CUBE, None, None, (1, 2), 1e-3), (CUBE, W, None, -1)],
    "rms_normalization": [(X,), (X, W), (CUBE, None, 1, 1e-3)], "hard_swish": [(X,)], "swish": [(X,)],
    "binary_crossentropy": [(SHARES.round(), SHARES), (SHARES, X[:, ::-1].copy(), True)],
    "categorical_crossentropy": [
        (SHARES[::-1].copy(), SHARES * 2), (SHARES, X, True), (SHARES.T.copy(), X.T.copy(), True, 0),
    ],
    "sparse_categorical_crossentropy": [
        (LABELS, SHARES * 2), (LABELS[:, None], X, True), (LABELS, SHARES.T.copy(), False, 0),
    ],
    "dot_product_attention": [
        (QUERY, KEY, VALUE), (QUERY, KEY, VALUE, None, RNG.uniform(size=(2, 1, 3, 6)) < 0.7),
        (QUERY, KEY, VALUE, RNG.normal(size=(2, 4, 3, 6)), None, 0.3), (QUERY, QUERY, QUERY, None, None, None, True),
        (QUERY, QUERY, QUERY, RNG.normal(size=(1, 1, 3, 3)), None, None, True),
    ],
    "ctc_decode": [(TWICE, np.array([6, 5])), (TWICE, np.array([6, 5]), "greedy", 100, 1, False, 1)],
    # signal
    "extract_sequences": [(WAVE, 5, 3)], "overlap_sequences": [(CUBE, 2)], "fft": [((X, Y),)],
    "fft2": [((CUBE, CUBE[::-1]),)], "ifft2": [((CUBE, CUBE[::-1]),)], "rfft": [(X,), (X, 6), (X, 3), (V,)],
    "irfft": [((X, Y),), ((X, Y), 5), ((X, Y), 9)],
    "stft": [(WAVE, 4, 2, 8), (WAVE, 5, 3, 7, None, False), (WAVE, 6, 2, 6, "hamming")],
    "istft": [((RNG.normal(size=(2, 6, 5)), RNG.normal(size=(2, 6, 5))), 4, 2, 8)],
    # decompositions
    "cholesky": [(POSITIVE,), (POSITIVE, True)],
    "cholesky_inverse": [(np.linalg.cholesky(POSITIVE),), (np.linalg.cholesky(POSITIVE).T.copy(), True)],
    "det": [(SQUARE,)], "inv": [(SQUARE,)], "logdet": [(POSITIVE,)],
    "lstsq": [(X.T.copy(), V[:4]), (X.T.copy(), Y.T.copy())], "matrix_rank": [(SQUARE,), (np.outer(V, V),), (X, 10.0)],
    "pinv": [(X,), (SQUARE,)], "qr": [(X,), (X.T.copy(),), (X.T.copy(), "complete")], "singular_values": [(X,)],
    "solve": [(SQUARE, SQUARE[::-1]), (SQUARE[0], V[:3])],
    "solve_triangular": [(SQUARE, SQUARE[::-1]), (SQUARE[0], V[:3], True)],
    "svd": [(X, True, False), (SQUARE, False, False)],
    # pictures
    "image.affine_transform": [
        *((PICTURES, TURN, *how) for how in ((), ("nearest",), ("bilinear", "nearest"), ("bilinear", "reflect"))),
        (PICTURES, TURN, "bilinear", "wrap"), (PICTURES, TURN, "bilinear", "constant", 0.5), (PICTURES[0], TURN[0]),
    ],
    "image.crop_images": [(PICTURES, 1, 2, 1, 0), (PICTURES, 1, 1, None, None, 3, 2)],
    "image.extract_patches": [
        (PICTURES, 2), (PICTURES, (3, 2), (1, 2), 1, "same"), (PICTURES, 2, 1, 2), (PICTURES[0], 2),
    ],
    "image.extract_patches_3d": [(RNG.normal(size=(1, 4, 4, 3, 2)), (2, 2, 1)), (RNG.normal(size=(4, 4, 3, 2)), 2, 1)],
    "image.gaussian_blur": [
        (PICTURES, (3, 3), (1.0, 1.0), "channels_last"), (PICTURES[0], (5, 5), (2.0, 2.0), "channels_last"),
    ],
    "image.hsv_to_rgb": [(PICTURES,), (PICTURES[0],)],
    "image.map_coordinates": [
        (X, RNG.uniform(-1.4, 4.4, (2, 7)), o, m)
        for o in (0, 1) for m in ("constant", "nearest", "reflect", "wrap", "mirror")
    ],
    "image.pad_images": [(PICTURES, 1, 0, 2, 3), (PICTURES, 1, None, None, 2, 9, 8)],
    "image.perspective_transform": [(PICTURES, CORNERS, CORNERS + RNG.uniform(-0.5, 0.5, (4, 2)))],
    "image.resize": [
        (PICTURES, (4, 7)), (PICTURES, (4, 7), "nearest"), (PICTURES, (3, 3), "bilinear", True),
        (PICTURES, (9, 8), "bicubic"), (PICTURES, (3, 3), "bicubic", True), (PICTURES, (9, 8), "lanczos3"),
        (PICTURES, (3, 3), "lanczos5", True), (PICTURES, (4, 4), "bilinear", False, True),
        (PICTURES, (4, 4), "bilinear", False, False, True), (PICTURES[0], (3, 2)),
    ],
    "image.rgb_to_grayscale": [(PICTURES,), (np.moveaxis(PICTURES, -1, 1), "channels_first")],
    "image.rgb_to_hsv": [(PICTURES,), (PICTURES.round(),)], "image.sobel_edges": [(PICTURES,)],
    "image.ssim": [(PICTURES, PICTURES[::-1].copy(), 1.0, 3)],
}  # fmt: skip


def _image(*args: Any) -> Any:
    """Cubic and wider interpolation by JAX; Keras on PyTorch has another cubic, and no wider one."""
    jax = pytest.importorskip("jax")
    images, size, method, *antialias = args
    shape = (len(images), *size, images.shape[-1])
    return jax.image.resize(
        images.astype("float32"), shape, {"bicubic": "cubic"}.get(method, method), antialias=any(antialias)
    )


def _overlapped(x: np.ndarray, stride: int) -> np.ndarray:
    y = np.zeros((*x.shape[:-2], (x.shape[-2] - 1) * stride + x.shape[-1]))
    for i in range(x.shape[-2]):
        y[..., i * stride : i * stride + x.shape[-1]] += x[..., i, :]
    return y


def _cross(a: np.ndarray, b: np.ndarray, axisa: int = -1, axisb: int = -1, axisc: int = -1, axis: Any = None) -> Any:
    """NumPy's, with the third numbers that it no longer fills in."""
    axisa, axisb, axisc = (axisa, axisb, axisc) if axis is None else (axis,) * 3
    full = [np.moveaxis(x, at, -1) for x, at in ((a, axisa), (b, axisb))]
    y = np.cross(*(np.pad(x, [(0, 0), (0, 3 - x.shape[-1])]) for x in full))
    return y[..., 2] if full[0].shape[-1] == full[1].shape[-1] == 2 else np.moveaxis(y, -1, axisc)


def _of_torch(name: str) -> Callable[..., Any]:
    torch = pytest.importorskip("torch")
    function = getattr(torch.nn.functional, name)
    return lambda x, *args: function(torch.tensor(x), *args).numpy()


def _saturated(x: np.ndarray, dtype: str) -> np.ndarray:
    limits = np.iinfo(dtype)
    return np.array([min(max(int(v), limits.min), limits.max) for v in x.ravel()], dtype).reshape(x.shape)


# Where Keras on PyTorch fails on these arguments, or does something else than Keras elsewhere.
REFERENCES: dict[str, Callable[..., Any]] = {
    "argpartition": lambda x, kth: np.argsort(x),
    "average": lambda x, axis=None, weights=None: np.average(x, axis, weights),
    "correlate": lambda a, b, mode: np.correlate(a, b, mode),
    "cross": _cross,
    "eye": np.eye,
    "fold": lambda *args: _of_torch("fold")(*args),
    "histogram": lambda x, bins, range=None: np.histogram(x, bins, range),
    "imag": np.imag,
    "image.resize": lambda *a: _image(*a) if len(a) > 2 and a[2][:3] in ("bic", "lan") else keras.ops.image.resize(*a),
    "in_top_k": lambda targets, x, k: keras.ops.in_top_k(targets, x.astype("float32"), k),
    "overlap_sequences": _overlapped,
    "rms_normalization": lambda x, scale=None, axis=-1, epsilon=1e-7: (
        x / np.sqrt(np.mean(x**2, axis, keepdims=True) + epsilon) * (1 if scale is None else scale)
    ),
    "saturate_cast": _saturated,
    "singular_values": lambda x: np.linalg.svd(x, compute_uv=False),
    "unfold": lambda *args: _of_torch("unfold")(*args),
    "unstack": lambda x, num=None, axis=0: [np.take(x, i, axis) for i in range(x.shape[axis])],
}


def found_by(root: Any, name: str) -> Callable[..., Any]:
    """A function by a name with dots."""
    for part in name.split("."):
        root = getattr(root, part)
    return root  # type: ignore[no-any-return]


def keras_result(name: str, args: tuple[Any, ...]) -> list[np.ndarray]:
    function = REFERENCES.get(name) or found_by(keras.ops, name)
    return [np.asarray(keras.ops.convert_to_numpy(x)) for x in leaves_of(function(*args))]


MODULES = (more, special, sorting, statistics, rearranging, neural, signal, decompositions)


def test_every_name_has_a_call() -> None:
    """What is an op of its own has samples instead."""
    names = {n for m in MODULES for n in m.__all__} | {f"image.{n}" for n in image.__all__}
    own = {n for n in names if n == getattr(getattr(found_by(ops, n), "op", None), "name", "")}
    assert CALLS.keys() == {n for n in names if not n.endswith("_")} - own


@pytest.mark.parametrize("name", [n for n, calls in CALLS.items() if calls])
def test_equals_keras(name: str) -> None:
    for args in CALLS[name]:
        found = [np.asarray(ops.to_numpy(x)) for x in leaves_of(found_by(ops, name)(*args))]
        for a, e in zip(found, keras_result(name, args), strict=True):
            # Keras computes most of these in float32 on PyTorch; dtypes are our own rule.
            assert a.shape == e.shape, f"{name}: {a.shape}, expected {e.shape}"
            assert_close(a.astype("float64"), e.astype("float64"), rtol=2e-6, atol=5e-6, what=f"{name}{args[1:]}")


def compiled(name: str, args: tuple[Any, ...]) -> Callable[..., Any]:
    """The call as a function of its arrays, with what else it needs kept."""
    return lambda *arrays: found_by(ops, name)(*_filled(args, iter(arrays)))


def _filled(args: Any, arrays: Any) -> Any:
    if isinstance(args, (tuple, list)):
        return type(args)(_filled(a, arrays) for a in args)
    return next(arrays) if isinstance(args, np.ndarray) else args


def arrays_of(args: tuple[Any, ...]) -> list[np.ndarray]:
    return [x for x in leaves_of(list(args)) if isinstance(x, np.ndarray)]


HOST_ONLY = ("convert_to_numpy", "ndim", "shape", "dtype")


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_same_in_a_graph_on_every_backend(backend: str) -> None:
    """All in one function, so that each engine compiles once."""
    engine = require_backend(backend)
    calls = [(n, a) for n, many in CALLS.items() for a in many[:1] if n not in HOST_ONLY]

    @ul.function(backend=engine)
    def everything(given: list[list[Any]]) -> list[Any]:
        return [compiled(n, a)(*own) for (n, a), own in zip(calls, given, strict=True)]

    results = everything([arrays_of(a) for _, a in calls])
    for (name, args), found in zip(calls, results, strict=True):
        expected = [np.asarray(ops.to_numpy(x)) for x in leaves_of(found_by(ops, name)(*args))]
        for a, e in zip(leaves_of(found), expected, strict=True):
            assert_close(engine.get(a), e, rtol=1e-6, atol=1e-9, what=f"{name} on {backend}")


# What needs to know the first size, or says how large something is by it.
KNOWN = (
    "cholesky", "cholesky_inverse", "diagflat", "diagonal", "logdet", "lstsq", "median", "nanpercentile", "percentile",
    "pinv", "qr", "roll", "singular_values", "slice_update", "svd", "trace", "tril", "triu", "unstack",
)  # fmt: skip


@pytest.mark.parametrize("name", [n for n, many in CALLS.items() if many and n not in (*HOST_ONLY, *KNOWN)])
def test_unknown_batch_size(name: str) -> None:
    """Traced with the first size of the first array unknown, wherever it recurs."""
    arrays = arrays_of(CALLS[name][0])
    if not arrays or arrays[0].ndim < 2:
        pytest.skip("no batch")
    size, batch = len(arrays[0]), Dim.symbol("batch")
    shapes = [(batch, *x.shape[1:]) if x.shape[:1] == (size,) else x.shape for x in arrays]
    values = [
        leaf("input", f"x{i}", Spec(s, x.dtype.name)) for i, (x, s) in enumerate(zip(arrays, shapes, strict=True))
    ]
    compiled(name, CALLS[name][0])(*values)


STEPS = ("divide_no_nan", "heaviside")  # whose calls are at a step


def has_floats(args: tuple[Any, ...]) -> bool:
    return any(is_float(x.dtype.name) for x in arrays_of(args))


FLOAT_CALLS = [n for n, many in CALLS.items() if many and has_floats(many[0]) and n not in (*HOST_ONLY, *STEPS)]


@pytest.mark.parametrize("name", FLOAT_CALLS)
def test_gradients(name: str) -> None:
    """Along one direction of all float arrays, against a central difference."""
    args = CALLS[name][0]
    arrays = arrays_of(args)
    rng = np.random.default_rng(3)
    ways = [rng.normal(size=x.shape) if is_float(x.dtype.name) else 0 for x in arrays]

    def total(step: Any) -> Any:
        moved = [
            ops.add(x, ops.multiply(way, step)) if is_float(x.dtype.name) else x
            for x, way in zip(arrays, ways, strict=True)
        ]
        results = [y for y in leaves_of(compiled(name, args)(*moved)) if is_float(ops.dtype_of(y))]
        weighted = [ops.multiply(y, np.random.default_rng(5).normal(size=ops.shape_of(y))) for y in results]
        parts = [ops.sum(ops.where(ops.isnan(y), 0.0, y)) for y in weighted]
        return sum(parts, start=ops.multiply(step, 0.0))

    value, slope = value_and_grad(total)(np.array(0.0))
    numeric = (float(ops.to_numpy(total(1e-6))) - float(ops.to_numpy(total(-1e-6)))) / 2e-6
    scale = max(1.0, abs(float(ops.to_numpy(value))))
    assert_close(np.asarray(float(ops.to_numpy(slope))), np.asarray(numeric), rtol=1e-6, atol=1e-7 * scale, what=name)


# ---- what is compared otherwise --------------------------------------------------------


def test_sizes_that_depend_on_the_elements() -> None:
    x = np.array([[3, 0], [0, 3], [1, 3]], np.int32)
    for found in (ops.nonzero(x), ops.where(x)):
        for a, e in zip(found, np.nonzero(x), strict=True):
            assert_close(a, e.astype("int32"), rtol=0, atol=0, what="places")
    found = ops.unique(x, return_index=True, return_inverse=True, return_counts=True)
    for a, e in zip(found, np.unique(x, True, True, True), strict=True):
        assert_close(a, e.astype("int32"), rtol=0, atol=0, what="unique")
    assert_close(ops.unique(x, axis=0), np.unique(x, axis=0), rtol=0, atol=0, what="unique rows")
    assert ops.unique(x, size=5).tolist() == [0, 1, 3, 0, 0] and ops.unique(x, size=2).tolist() == [0, 1]
    assert ops.unique(x, size=4, fill_value=7).tolist() == [0, 1, 3, 7]


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_is_an_array(backend: str) -> None:
    engine = require_backend(backend)
    (x,) = engine.put([X], engine.device("cpu"))
    assert ops.is_tensor(x) and ops.is_tensor(ul.Variable(X)) and not ops.is_tensor([1.0]) and not ops.is_tensor("x")
    assert engine.device_of(ops.nonzero(x)[0]) == engine.device("cpu")


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("size", [1, 2, 3, 6, 7])
def test_associative_scan(size: int, reverse: bool) -> None:
    """Of a linear recurrence, as pairs, against a loop; and of sums, against NumPy."""
    a, b = RNG.normal(size=(2, 2, size))

    def step(first: tuple[Any, Any], second: tuple[Any, Any]) -> tuple[Any, Any]:
        return first[0] * second[0], first[1] * second[0] + second[1]

    _, found = ops.associative_scan(step, (a, b), reverse, axis=1)
    expected, state = np.zeros_like(b), np.zeros(2)
    for i in range(size)[::-1] if reverse else range(size):
        state = expected[:, i] = a[:, i] * state + b[:, i]
    assert_close(found, expected, rtol=1e-12, atol=1e-12, what="recurrence")
    assert_close(ops.associative_scan(ops.add, b, axis=-1), np.cumsum(b, -1), rtol=1e-12, atol=1e-12, what="sums")


def test_vectorize_and_empty() -> None:
    function = ops.vectorize(lambda a, b, k: ops.where(a > b, a, b) * k, excluded={2})
    assert_close(function(X, Y[0], 2.0), np.maximum(X, Y[0]) * 2, rtol=1e-15, atol=0, what="vectorized")
    assert ops.empty((2, 3), "int32").shape == (2, 3) and ops.empty_like(I).dtype == I.dtype


@pytest.mark.parametrize("shape", [(4, 3), (3, 4), (2, 5, 3), (3, 3)])
def test_factors_multiply_to_the_matrix(shape: tuple[int, ...]) -> None:
    x = RNG.normal(size=shape)
    for full in (False, True):
        u, s, vh = ops.svd(x, full_matrices=full)
        rows, columns = shape[-2:] if full else (min(shape[-2:]),) * 2
        assert u.shape[-1] == rows and vh.shape[-2] == columns
        k = s.shape[-1]
        assert_close((u[..., :k] * s[..., None, :]) @ vh[..., :k, :], x, rtol=1e-12, atol=1e-12, what="u s vh")
        for q in (np.swapaxes(u, -1, -2), vh):
            unit = np.broadcast_to(np.eye(q.shape[-2]), (*q.shape[:-1], q.shape[-2]))
            assert_close(q @ np.swapaxes(q, -1, -2), unit, rtol=0, atol=1e-12, what="orthonormal")
    for mode in ("reduced", "complete"):
        q, r = ops.qr(x, mode)
        assert_close(q @ r, x, rtol=1e-12, atol=1e-12, what="q r")
        assert_close(np.triu(r), r, rtol=0, atol=1e-12, what="triangular")


def test_gradients_of_wide_and_full_factors() -> None:
    """Of a function of the factors that is one of the matrix: its sum of squares."""
    for shape in ((4, 2), (2, 4)):
        x = RNG.normal(size=shape)

        def by_qr(x: Any) -> Any:
            return ops.sum(ops.square(ops.qr(x)[1]))

        def by_svd(x: Any) -> Any:
            return ops.sum(ops.square(ops.svd(x)[1]))

        for function in (by_qr, by_svd):
            assert_close(value_and_grad(function)(x)[1], 2 * x, rtol=1e-10, atol=1e-10, what=function.__name__)


@pytest.mark.parametrize("window", ["hann", "hamming", None, np.bartlett(10)[1:9]])
@pytest.mark.parametrize("center", [True, False])
def test_istft_is_the_inverse_of_stft(window: Any, center: bool) -> None:
    how: dict[str, Any] = {
        "sequence_length": 8,
        "sequence_stride": 2,
        "fft_length": 8,
        "window": window,
        "center": center,
    }
    again = ops.istft(ops.stft(WAVE, **how), length=20, **how)
    inner = slice(2, 18)  # at its ends a window without a margin may be 0
    assert_close(again[:, inner], WAVE[:, inner], rtol=1e-10, atol=1e-10, what="wave")


def test_sorting_needs_no_more_memory_than_the_array() -> None:
    x = RNG.normal(size=200_000)
    assert_close(ops.sort(x), np.sort(x), rtol=0, atol=0, what="sorted")
    assert_close(ops.median(x), np.median(x), rtol=1e-15, atol=0, what="median")
