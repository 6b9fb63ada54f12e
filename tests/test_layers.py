"""Every layer against Keras 3 with the same weights, finite differences, traced against eager, on every backend.

One table of cases; everything below is derived from it, and a class without a case fails.
"""

from __future__ import annotations

import inspect
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import unilayers as ul
from tests.compare import assert_close
from unilayers import initializers, ops, random
from unilayers import layers as L
from unilayers.autodiff import GradientTape, gradients
from unilayers.backend import Backend, backend_names, get_backend
from unilayers.errors import BackendError, ShapeError, UnilayersError
from unilayers.graph import Value, leaf
from unilayers.layers.pooling import AdaptivePooling
from unilayers.layers.spatial import Spatial
from unilayers.program import Program
from unilayers.recipe import Recipe
from unilayers.recipe.document import to_yaml
from unilayers.registry import parameters, plain
from unilayers.spec import Dim, Spec, public_shape
from unilayers.structure import leaves_of
from unilayers.variable import Trace, Variable, trace_into

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Keras's own

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Case:
    """A layer with arguments, and the shape of one sample (a list of shapes: several inputs).

    Args:
        cls: The class.
        shape: Shape or shapes without the batch.
        kwargs: The constructor's arguments, the same for Keras.
        training: Value of ``training`` at the call.
        integers: Inputs are integers below this.
        keras: Whether Keras has the same layer.
        smooth: Whether gradients are those of the output; not where a layer says what they are.
    """

    cls: type[L.Layer]
    shape: Any
    kwargs: dict[str, Any] = field(default_factory=dict)
    training: bool = False
    integers: int = 0
    keras: bool = True
    smooth: bool = True

    def layer(self, dtype: str = "float64", weights: bool = True) -> L.Layer:
        """The layer, built with the shape; with random weights, as many initial values are zeros or ones."""
        made = self.cls(**self.kwargs, dtype=dtype)
        made(self.inputs(2, dtype))
        if weights:
            rng = np.random.default_rng(1)
            made.set_weights([rng.uniform(0.5, 1.5, v.shape) for v in made.weights])
        return made

    def inputs(self, batch: int = 3, dtype: str = "float64") -> Any:
        rng = np.random.default_rng(batch)

        def draw(shape: Shape) -> np.ndarray:
            if self.integers:
                return rng.integers(0, self.integers, (batch, *shape)).astype("int32")
            return rng.normal(size=(batch, *shape)).astype(dtype)

        return [draw(s) for s in self.shape] if isinstance(self.shape, list) else draw(self.shape)

    def __str__(self) -> str:
        text = ", ".join(f"{k}={v}" for k, v in self.kwargs.items() if not callable(v))
        return f"{self.cls.__name__}({text}) {self.shape}{' training' if self.training else ''}"


def _cases() -> Iterator[Case]:
    def case(
        cls: type[L.Layer], shape: Any, *, training: bool = False, integers: int = 0, keras: bool = True,
        smooth: bool = True, **kwargs: Any,
    ) -> Case:  # fmt: skip
        return Case(cls, shape, kwargs, training, integers, keras, smooth)

    first = {"data_format": "channels_first"}
    # core
    yield case(L.InputLayer, (3,), keras=False, batch_shape=(None, 3))
    yield case(L.Dense, (5,), units=3)
    yield case(L.Dense, (2, 3, 5), units=4, activation="tanh", kernel_regularizer="l2", bias_initializer="ones")
    yield case(L.Dense, (5,), units=3, activation="softmax", use_bias=False, kernel_initializer="he_normal")
    yield case(L.Dense, (5,), units=3, lora_rank=2, keras=False)  # with a test of its own
    yield case(L.EinsumDense, (3, 4), equation="abc,cd->abd", output_shape=(3, 5), bias_axes="d", activation="relu")
    yield case(L.EinsumDense, (3, 4), equation="abc,cde->abed", output_shape=(3, 2, 5), bias_axes="ed")
    yield case(L.EinsumDense, (3, 4), equation="...x,xy->...y", output_shape=2)
    yield case(L.EinsumDense, (3, 4), equation="abc,cde->abed", output_shape=(3, 2, 5), lora_rank=1, keras=False)
    yield case(L.EinsumDense, (3, 4, 2), equation="ab...,bc->ac...", output_shape=5, bias_axes="c")
    yield case(L.Embedding, (4,), integers=6, input_dim=6, output_dim=3)
    yield case(L.Embedding, (4,), integers=6, input_dim=6, output_dim=3, lora_rank=2, lora_alpha=2, keras=False)
    yield case(L.ReversibleEmbedding, (4,), integers=6, input_dim=6, output_dim=3)
    yield case(L.Identity, (4,))
    yield case(L.Lambda, (4,), function=lambda x: x * 2.0 + 1.0)
    yield case(L.Masking, (3, 2))
    # activations
    yield case(L.Activation, (4,), activation="sigmoid")
    yield case(L.ReLU, (20,))
    yield case(L.ReLU, (20,), max_value=1.0, negative_slope=0.1, threshold=0.3)
    yield case(L.ReLU, (20,), max_value=1.0, threshold=0.3)
    yield case(L.ReLU, (20,), max_value=6.0, negative_slope=0.1)
    yield case(L.LeakyReLU, (20,))
    yield case(L.LeakyReLU, (20,), negative_slope=0.7)
    yield case(L.ELU, (20,), alpha=0.4)
    yield case(L.PReLU, (3, 4, 2), shared_axes=[1, 2])
    yield case(L.PReLU, (6,))
    yield case(L.Softmax, (3, 4))
    yield case(L.Softmax, (3, 4), axis=1)
    yield case(L.Softmax, (3, 4), axis=[1, 2])
    # convolutions
    yield case(L.Conv1D, (7, 3), filters=4, kernel_size=3)
    yield case(L.Conv1D, (8, 4), filters=6, kernel_size=3, strides=2, padding="same", groups=2, activation="relu")
    yield case(L.Conv1D, (7, 3), filters=4, kernel_size=2, padding="causal", dilation_rate=2, use_bias=False)
    yield case(L.Conv1D, (3, 7), filters=4, kernel_size=3, **first)
    yield case(L.Conv1D, (6, 2), filters=2, kernel_size=3, padding=[(2, 1)], keras=False)
    yield case(L.Conv2D, (6, 5, 3), filters=4, kernel_size=3)
    yield case(L.Conv2D, (6, 5, 4), filters=4, kernel_size=(3, 2), strides=(2, 1), padding="same", groups=2)
    yield case(L.Conv2D, (7, 7, 2), filters=3, kernel_size=3, strides=2, padding="same", activation="relu")
    yield case(L.Conv2D, (7, 6, 2), filters=2, kernel_size=2, dilation_rate=(2, 3), kernel_regularizer="l1")
    yield case(L.Conv2D, (2, 5, 6), filters=3, kernel_size=3, padding="same", activation="softmax", **first)
    yield case(L.Conv2D, (4, 4, 1), filters=2, kernel_size=3, padding=[1, (0, 2)], keras=False)
    yield case(L.Conv3D, (4, 3, 4, 2), filters=2, kernel_size=2, padding="same", strides=(1, 1, 2))
    yield case(L.Conv3D, (2, 4, 3, 3), filters=2, kernel_size=(3, 2, 2), **first)
    yield case(L.Conv1DTranspose, (4, 3), filters=2, kernel_size=3, strides=2, padding="same", activation="relu")
    yield case(L.Conv1DTranspose, (4, 3), filters=2, kernel_size=2, strides=4, output_padding=1, use_bias=False)
    yield case(L.Conv1DTranspose, (3, 4), filters=2, kernel_size=3, dilation_rate=2, **first)
    yield case(L.Conv2DTranspose, (3, 4, 2), filters=3, kernel_size=(3, 2), strides=(1, 2))
    yield case(L.Conv2DTranspose, (3, 2, 2), filters=2, kernel_size=4, strides=3, padding="same", output_padding=1)
    yield case(L.Conv2DTranspose, (2, 3, 4), filters=3, kernel_size=3, strides=2, padding="same", **first)
    yield case(L.Conv3DTranspose, (2, 3, 2, 2), filters=2, kernel_size=2, strides=(2, 1, 1), padding="same")
    yield case(L.DepthwiseConv1D, (6, 3), kernel_size=3, depth_multiplier=2, padding="same", activation="tanh")
    yield case(L.DepthwiseConv2D, (5, 6, 3), kernel_size=(2, 3), strides=2)
    yield case(L.DepthwiseConv2D, (2, 5, 6), kernel_size=2, dilation_rate=2, depth_multiplier=3, **first)
    yield case(L.SeparableConv1D, (6, 3), filters=4, kernel_size=3, padding="same", depth_multiplier=2)
    yield case(L.SeparableConv2D, (5, 6, 3), filters=2, kernel_size=3, strides=2, padding="same")
    yield case(L.SeparableConv2D, (2, 5, 6), filters=2, kernel_size=2, use_bias=False, activation="relu", **first)
    # pooling
    yield case(L.MaxPooling1D, (7, 2))
    yield case(L.MaxPooling1D, (2, 7), pool_size=3, strides=2, padding="same", **first)
    yield case(L.MaxPooling2D, (6, 5, 2))
    yield case(L.MaxPooling2D, (6, 5, 2), pool_size=(3, 2), strides=(1, 2), padding="same")
    yield case(L.MaxPooling2D, (2, 6, 5), **first)
    yield case(L.MaxPooling2D, (5, 5, 1), pool_size=3, padding=1, keras=False)
    yield case(L.MaxPooling3D, (4, 4, 5, 2))
    yield case(L.AveragePooling1D, (7, 2), pool_size=3, padding="same")
    yield case(L.AveragePooling2D, (6, 5, 2), pool_size=2)
    # Keras on torch repeats the edge where only one end is padded; on TensorFlow it agrees with us.
    yield case(L.AveragePooling2D, (6, 5, 2), pool_size=(3, 2), strides=2, padding="same", keras=False)
    yield case(L.AveragePooling2D, (7, 5, 2), pool_size=3, strides=2, padding="same")
    yield case(L.AveragePooling2D, (2, 6, 5), pool_size=2, strides=1, **first)
    yield case(L.AveragePooling3D, (4, 4, 5, 2), pool_size=2)
    yield case(L.AdaptiveMaxPooling1D, (7, 2), output_size=4)
    yield case(L.AdaptiveMaxPooling2D, (2, 6, 5), output_size=(3, 4), **first)
    yield case(L.AdaptiveMaxPooling3D, (2, 3, 4, 1), output_size=2)
    yield case(L.AdaptiveAveragePooling1D, (2, 7), output_size=4, **first)
    yield case(L.AdaptiveAveragePooling2D, (6, 5, 2), output_size=(3, 4))
    yield case(L.AdaptiveAveragePooling3D, (2, 3, 4, 1), output_size=(2, 2, 3))
    for cls, shape in (
        (L.GlobalMaxPooling1D, (5, 3)),
        (L.GlobalMaxPooling2D, (4, 5, 3)),
        (L.GlobalMaxPooling3D, (3, 4, 2, 3)),
        (L.GlobalAveragePooling1D, (5, 3)),
        (L.GlobalAveragePooling2D, (4, 5, 3)),
        (L.GlobalAveragePooling3D, (3, 4, 2, 3)),
    ):
        yield case(cls, shape)
        yield case(cls, shape, keepdims=True, **first)
    # normalization
    for training in (False, True):
        yield case(L.BatchNormalization, (5,), training=training)
        yield case(L.BatchNormalization, (3, 4, 2), training=training, momentum=0.7, epsilon=0.1, scale=False)
        yield case(L.BatchNormalization, (2, 3, 4), training=training, axis=1, center=False)
        renorm = {"training": training, "renorm": True, "smooth": not training}  # the correction has no gradient
        bounds = {"rmin": 0.8, "rmax": 1.2, "dmax": 0.3}
        yield case(L.BatchNormalization, (3, 2), **renorm)
        yield case(L.BatchNormalization, (5,), renorm_clipping=bounds, scale=False, **renorm)
        yield case(L.BatchNormalization, (4,), renorm_momentum=0.5, center=False, **renorm)
    yield case(L.BatchNormalization, (5,), training=True, trainable=False)
    yield case(L.BatchNormalization, (5,), training=True, synchronized=True, keras=False)
    yield case(L.LayerNormalization, (5,))
    yield case(L.LayerNormalization, (3, 4, 2), axis=[2, 3], epsilon=0.1)
    # Keras on torch fails for axes that are not the last; on TensorFlow it agrees with us. See the test below.
    yield case(L.LayerNormalization, (3, 4, 2), axis=[1, 2], epsilon=0.1, keras=False)
    yield case(L.LayerNormalization, (3, 4), axis=1, center=False, keras=False)
    yield case(L.LayerNormalization, (3, 4), scale=False)
    yield case(L.GroupNormalization, (3, 4), groups=2)
    yield case(L.GroupNormalization, (4, 3, 2), groups=-1, axis=1, epsilon=0.1, center=False)
    yield case(L.GroupNormalization, (6,), groups=3, scale=False)
    yield case(L.RMSNormalization, (3, 4))
    yield case(L.RMSNormalization, (3, 4, 2), axis=[2, 3], epsilon=0.1)
    yield case(L.RMSNormalization, (3, 4), axis=1, keras=False)  # Keras's scale does not broadcast there
    yield case(L.UnitNormalization, (3, 4))
    yield case(L.UnitNormalization, (3, 4), axis=[1, 2])
    for training in (False, True):  # in training, the gradient is that of the divided kernel
        dense = {"Dense": {"units": 3}}
        yield case(L.SpectralNormalization, (4,), layer=dense, training=training, smooth=not training)
    conv, table = {"Conv1D": {"filters": 3, "kernel_size": 2}}, {"Embedding": {"input_dim": 6, "output_dim": 3}}
    yield case(L.SpectralNormalization, (4, 2), layer=conv, power_iterations=2, training=True, smooth=False)
    # Keras brings the output to the integers' dtype.
    yield case(L.SpectralNormalization, (4,), layer=table, integers=6, training=True, smooth=False, keras=False)
    # regularization: what is random in training has its own tests below
    for cls, shape in (
        (L.Dropout, (5,)),
        (L.SpatialDropout1D, (3, 2)),
        (L.SpatialDropout2D, (3, 2, 2)),
        (L.SpatialDropout3D, (3, 2, 1, 2)),
        (L.AlphaDropout, (5,)),
        (L.GaussianDropout, (5,)),
    ):
        yield case(cls, shape, rate=0.5)
    yield case(L.GaussianNoise, (5,), stddev=0.5)
    yield case(L.ActivityRegularization, (5,), l1=0.1, l2=0.2)
    yield case(L.Dropout, (5,), rate=0.0, training=True)
    yield case(L.Dropout, (5,), rate=1.0, training=True, keras=False)
    # reshaping
    yield case(L.Flatten, (3, 4, 2))
    yield case(L.Flatten, (2, 3, 4), **first)
    yield case(L.Flatten, ())
    yield case(L.Reshape, (6, 2), target_shape=(3, 4))
    yield case(L.Reshape, (6, 2), target_shape=(2, -1, 2))
    yield case(L.Permute, (2, 3, 4), dims=(3, 1, 2))
    yield case(L.ZeroPadding1D, (3, 2))
    yield case(L.ZeroPadding1D, (2, 3), padding=(2, 1), **first)
    yield case(L.ZeroPadding2D, (3, 4, 2))
    yield case(L.ZeroPadding2D, (3, 4, 2), padding=(0, 2))
    yield case(L.ZeroPadding2D, (2, 3, 4), padding=((1, 0), (2, 3)), **first)
    yield case(L.ZeroPadding3D, (2, 3, 2, 2), padding=(1, 0, 2))
    yield case(L.RepeatVector, (3,), n=4)
    yield case(L.Cropping1D, (6, 2))
    yield case(L.Cropping1D, (6, 2), cropping=(0, 3))
    yield case(L.Cropping2D, (4, 5, 2), cropping=(1, 2))
    yield case(L.Cropping2D, (2, 4, 5), cropping=((0, 1), (2, 0)), **first)
    yield case(L.Cropping3D, (3, 4, 3, 2))
    yield case(L.UpSampling1D, (3, 2), size=3)
    yield case(L.UpSampling2D, (3, 2, 2))
    yield case(L.UpSampling2D, (2, 3, 4), size=(2, 3), interpolation="bilinear", **first)
    yield case(L.UpSampling3D, (2, 1, 2, 2), size=(1, 2, 3))
    # merging
    for cls in (L.Add, L.Multiply, L.Average, L.Maximum, L.Minimum):
        yield case(cls, [(3, 4), (3, 4), (3, 4)])
        yield case(cls, [(3, 4), (4,)])
    yield case(L.Add, [(3, 1), (1, 4)])
    yield case(L.Subtract, [(3, 4), (3, 4)])
    yield case(L.Subtract, [(3, 4), (4,)])
    yield case(L.Concatenate, [(3, 4), (3, 1), (3, 2)])
    yield case(L.Concatenate, [(3, 4), (2, 4)], axis=1)
    yield case(L.Dot, [(4,), (4,)], axes=1)
    yield case(L.Dot, [(3, 4), (2, 3)], axes=(1, 2), normalize=True)
    yield case(L.Dot, [(3, 4), (2, 5, 4)], axes=-1)
    # preprocessing
    yield case(L.Rescaling, (4,), scale=0.5, offset=-1.0)
    yield case(L.Rescaling, (4, 3), scale=[0.5, 1.0, 2.0], offset=[0.0, 1.0, 2.0])
    yield case(L.Rescaling, (4,), integers=256, scale=1 / 255)


CASES = list(_cases())
# Layers that a table of shapes does not describe.
ELSEWHERE = ("attention", "convolutional_recurrent", "native", "preprocessing", "recurrent")
BUILTIN = [
    cls
    for cls in L.Layer.registry
    if cls.__module__.startswith("unilayers.layers.") and cls.__module__.split(".")[2] not in ELSEWHERE
]
each_case = pytest.mark.parametrize("case", CASES, ids=str)


def test_every_layer_has_a_case() -> None:
    assert {cls.__name__ for cls in BUILTIN} <= {case.cls.__name__ for case in CASES}


# ---- running a layer ----------------------------------------------------------


def seeded(shape: Sequence[int]) -> np.ndarray:
    return np.random.default_rng(99).normal(size=tuple(shape))


def differentiable(layer: L.Layer, x: Any) -> list[Any]:
    """What gradients are taken of: float inputs, then trainable weights."""
    return [v for v in leaves_of(x) if ops.dtype_of(v).startswith("float")] + list(layer.trainable_weights)


def eager(layer: L.Layer, x: Any, training: bool) -> dict[str, np.ndarray]:
    """Output and gradients of a random projection of it, computed at once."""
    with GradientTape() as tape:
        boxes = [tape.watch(v) if v.dtype.kind == "f" else v for v in leaves_of(x)]
        y = layer(boxes if isinstance(x, list) else boxes[0], training=training)
        target = ops.sum(ops.multiply(y, seeded(ops.shape_of(y))))
    sources = differentiable(layer, boxes)
    found = tape.gradient(target, sources)
    grads = [np.zeros(ops.shape_of(s)) if g is None else ops.to_numpy(g) for g, s in zip(found, sources, strict=True)]
    return {"y": ops.to_numpy(y)} | {f"gradient {i}": g for i, g in enumerate(grads)}


def program_of(layer: L.Layer, x: Any, training: bool) -> Program:
    """The same as a graph with a symbolic batch; the projection is one more input."""

    def symbol(name: str, array: np.ndarray) -> Value:
        return leaf("input", name, Spec((Dim.symbol("batch"), *array.shape[1:]), array.dtype.name))

    trace = Trace(layer.variables)
    with trace_into(trace):
        values = [symbol(f"x{i}", v) for i, v in enumerate(leaves_of(x))]
        y = layer(values if isinstance(x, list) else values[0], training=training)
        projection = leaf("input", "projection", y.spec)
        target = ops.sum(ops.multiply(y, projection))
        sources = [trace.read(v) if isinstance(v, Variable) else v for v in differentiable(layer, values)]
        grads = gradients(target, sources)
    outputs = {"y": y} | {f"gradient {i}": g for i, g in enumerate(grads)}
    return Program(trace.graph([*values, projection], outputs), trace.variables)


def run_program(program: Program, x: Any, backend: Backend, batch_of_y: Shape) -> dict[str, np.ndarray]:
    store = program.place(backend, backend.device("cpu"))
    dtype = program.graph.inputs[-1].dtype
    outputs = program.run(store, [*leaves_of(x), seeded(batch_of_y).astype(dtype)])
    return {name: backend.get(array) for name, array in outputs.items()}


def assert_all_close(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray], rtol: float, atol: float) -> None:
    assert found.keys() == wanted.keys()
    for name in wanted:
        assert found[name].dtype == wanted[name].dtype, name
        np.testing.assert_allclose(found[name], wanted[name], rtol, atol, err_msg=name)


# ---- Keras as the witness -----------------------------------------------------


@pytest.fixture(scope="module")
def keras() -> Any:
    os.environ.setdefault("KERAS_BACKEND", "torch")
    return pytest.importorskip("keras")


def to_numpy(x: Any) -> np.ndarray:
    return x.detach().cpu().numpy() if hasattr(x, "detach") else np.asarray(x)


def twin(keras: Any, case: Case) -> Any:
    if not case.keras:
        pytest.skip("Keras has no such option")
    return keras_layer(keras, case.cls.__name__, case.kwargs)


def keras_layer(keras: Any, name: str, kwargs: dict[str, Any]) -> Any:
    """Keras's layer; one among its arguments is ``{name: arguments}``."""
    inner = {"layer": keras_layer(keras, *next(iter(kwargs["layer"].items())))} if "layer" in kwargs else {}
    return getattr(keras.layers, name)(**{**kwargs, **inner}, dtype="float64")


@each_case
def test_keras_agrees(keras: Any, case: Case) -> None:
    """Weight names, shapes and order; outputs and gradients with the same weights; and the weights after the call."""
    tolerance = 1e-5, 2e-6  # Keras on torch computes some layers in float32 whatever the dtype
    layer, other, x = case.layer(), twin(keras, case), case.inputs()
    many = isinstance(x, list)
    shapes = [v.shape for v in x] if many else x.shape
    if not other.built:
        other.build(shapes)
    assert [(v.name, v.shape) for v in layer.weights] == [(v.name, tuple(v.shape)) for v in other.weights]
    assert len(layer.trainable_weights) == len(other.trainable_weights)
    other.set_weights(layer.get_weights())
    takes_training = "training" in inspect.signature(other.call).parameters
    tensors = [keras.ops.convert_to_tensor(v) for v in leaves_of(x)]
    floats = [t.requires_grad_() for t in tensors if t.is_floating_point()]
    y = other(tensors if many else tensors[0], **({"training": case.training} if takes_training else {}))
    found = eager(layer, x, case.training)
    np.testing.assert_allclose(found["y"], to_numpy(y), *tolerance)
    trained = [keras_weight for keras_weight in other.weights if keras_weight.trainable and layer.trainable]
    if floats or trained:
        (y * keras.ops.convert_to_tensor(seeded(y.shape))).sum().backward()
    for i, source in enumerate([*floats, *(v.value for v in trained)]):
        wanted = np.zeros(source.shape) if source.grad is None else to_numpy(source.grad)
        # Wider, since what cancels in float32 shows in gradients; finite differences are narrow.
        np.testing.assert_allclose(found[f"gradient {i}"], wanted, 1e-4, 1e-4, err_msg=f"gradient {i}")
    for mine, theirs in zip(layer.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_allclose(mine, theirs, *tolerance)


@each_case
def test_output_shape_is_that_of_keras(keras: Any, case: Case) -> None:
    other, layer = twin(keras, case), case.cls(**case.kwargs)
    many = isinstance(case.shape, list)
    for batch in (None, 5):
        shape = [(batch, *s) for s in case.shape] if many else (batch, *case.shape)
        wanted = tuple(other.compute_output_shape(shape))
        if batch is None and case.cls is L.Add and case.shape == [(3, 1), (1, 4)]:
            assert wanted == (None, 3, 4)
        assert layer.compute_output_shape(shape) == wanted


@pytest.mark.parametrize("cls", [c for c in BUILTIN if c is not L.InputLayer], ids=lambda c: c.__name__)
def test_arguments_are_those_of_keras(keras: Any, cls: type[L.Layer]) -> None:
    """Every argument that may be given by position: same name, same order, same default."""
    theirs = inspect.signature(getattr(keras.layers, cls.__name__).__init__).parameters
    mine = [p for p in parameters(cls).values() if p.kind is not p.KEYWORD_ONLY]
    known = [p.name for p in theirs.values() if p.name not in ("self", "kwargs")]
    assert known[: len(mine)] == [p.name for p in mine]
    if issubclass(cls, L.Embedding):
        known += ["lora_rank", "lora_alpha"]  # which others than Embedding hand on to it
    common = {"name", "trainable", "dtype", "autocast", "activity_regularizer"}
    assert {p.name for p in parameters(cls).values()} <= {*known, *common}
    for p in mine:
        default = theirs[p.name].default
        if default is not inspect.Parameter.empty:
            same_on_all_axes = isinstance(default, tuple) and set(np.ravel(default)) == {p.default}
            assert p.default == default or same_on_all_axes, p.name


# ---- gradients, tracing, backends -----------------------------------------------


@each_case
def test_gradients_are_those_of_finite_differences(case: Case) -> None:
    """Along random directions, in float64."""
    if not case.smooth:
        pytest.skip("has gradients of its own")
    layer, x = case.layer(), case.inputs(2)
    found = eager(layer, x, case.training)
    sources = differentiable(layer, x)
    rng = np.random.default_rng(5)

    def value(step: float, at: int, direction: np.ndarray) -> float:
        source, arrays = sources[at], list(leaves_of(x))
        if isinstance(source, Variable):
            old = source.numpy()
            source.assign(old + step * direction)
        else:
            arrays = [a + step * direction if a is source else a for a in arrays]
        y = layer(arrays if isinstance(x, list) else arrays[0], training=case.training)
        if isinstance(source, Variable):
            source.assign(old)
        return float(np.sum(y * seeded(y.shape)))

    for at, source in enumerate(sources):
        for _ in range(2):
            direction = rng.normal(size=source.shape)
            slope = (value(1e-6, at, direction) - value(-1e-6, at, direction)) / 2e-6
            assert np.sum(found[f"gradient {at}"] * direction) == pytest.approx(slope, rel=1e-6, abs=1e-7)


@each_case
def test_traced_equals_eager_at_every_batch_size(case: Case) -> None:
    layer = case.layer()
    before = layer.get_weights()
    program = program_of(layer, case.inputs(), case.training)
    for batch in (1, 3):
        x = case.inputs(batch)
        layer.set_weights(before)
        wanted = eager(layer, x, case.training)
        after = layer.get_weights()
        layer.set_weights(before)
        found = run_program(program, x, get_backend("numpy"), wanted["y"].shape)
        assert_all_close(found, wanted, 1e-12, 1e-13)
        for mine, theirs in zip(layer.get_weights(), after, strict=True):  # the moving statistics
            np.testing.assert_allclose(mine, theirs, 1e-12)


SPATIAL = [c for c in CASES if issubclass(c.cls, Spatial) and not issubclass(c.cls, AdaptivePooling)]


@pytest.mark.parametrize("case", SPATIAL, ids=str)
def test_spatial_sizes_may_be_unknown(case: Case) -> None:
    """One graph for all sizes, also of the gradients."""
    layer, x = case.layer(), case.inputs(2)
    first = 2 if case.kwargs.get("data_format") == "channels_first" else 1
    unknown = range(first, first + case.cls.rank)
    shape = tuple(Dim.symbol(f"axis{a}") if a in unknown else d for a, d in enumerate(x.shape))
    trace = Trace(layer.variables)
    with trace_into(trace):
        value = leaf("input", "x", Spec(shape, "float64"))
        y = layer(value, training=case.training)
        grads = gradients(ops.sum(ops.square(y)), [value, *map(trace.read, layer.trainable_weights)])
    program = Program(trace.graph([value], {"y": y} | {str(i): g for i, g in enumerate(grads)}), trace.variables)
    store = program.place(get_backend("numpy"), get_backend("numpy").device("cpu"))
    for given in (x, np.pad(x, [(0, int(a in unknown)) for a in range(x.ndim)])):
        with GradientTape() as tape:
            box = tape.watch(given)
            again = layer(box, training=case.training)
            target = ops.sum(ops.square(again))
        wanted = [again, *tape.gradient(target, [box, *layer.trainable_weights])]
        for (name, found), want in zip(program.run(store, [given]).items(), wanted, strict=True):
            assert_close(found, ops.to_numpy(want), rtol=1e-12, atol=1e-12, what=name)


def usable(name: str) -> Backend:
    try:
        return get_backend(name)
    except BackendError as error:
        pytest.skip(str(error))


others = pytest.mark.parametrize("backend", [n for n in backend_names() if n != "numpy"])


# The first case of each layer and phase, for what does not depend on the other arguments.
SOME = list({(case.cls, case.training): case for case in reversed(CASES)}.values())[::-1]


@others
@each_case
def test_backends_agree_with_numpy(backend: str, case: Case) -> None:
    """Outputs, gradients and updated statistics, in float64; in float32 the dtype stays float32."""
    engine = usable(backend)
    for dtype, rtol, atol in (("float64", 1e-9, 1e-11), ("float32", 2e-4, 2e-5))[: 2 if case in SOME else 1]:
        results = []
        for each in (get_backend("numpy"), engine):
            layer, x = case.layer(dtype), case.inputs(2, dtype)
            shape = np.shape(layer(x))
            program = program_of(layer, x, case.training)
            layer.set_weights(case.layer(dtype).get_weights())
            found = run_program(program, x, each, shape)
            results.append(found | {f"weight {i}": w for i, w in enumerate(layer.get_weights())})
        assert results[0]["y"].dtype == dtype
        assert_all_close(results[1], results[0], rtol, atol)


@others
@pytest.mark.parametrize("case", SOME, ids=str)
def test_arrays_of_a_backend_are_computed_there(backend: str, case: Case) -> None:
    """A layer called on an engine's own arrays gives such an array, with the same values."""
    engine = usable(backend)
    layer, again, x = case.layer(), case.layer(), case.inputs()
    arrays = engine.put(leaves_of(x), engine.device("cpu"))
    y = again(arrays if isinstance(x, list) else arrays[0], training=case.training)
    assert engine.device_of(y) == engine.device("cpu")
    np.testing.assert_allclose(engine.get(y), layer(x, training=case.training), 1e-9, 1e-11)
    for mine, theirs in zip(again.get_weights(), layer.get_weights(), strict=True):
        np.testing.assert_allclose(mine, theirs, 1e-9, 1e-11)


# ---- configs ------------------------------------------------------------------


def as_tuples(text: str) -> str:
    """A repr in which lists and tuples look alike: configs hold lists only."""
    return text.replace("[", "(").replace("]", ")").replace(",)", ")")


@each_case
def test_config_round_trip(case: Case) -> None:
    """Through JSON, the same layer comes back: same repr, same weights' names, shapes and initial values."""
    layer = case.layer(weights=False)
    if case.cls is L.Lambda:
        with pytest.raises(UnilayersError, match=r"Lambda\.function.*Expected a function"):
            L.Lambda.from_config(json.loads(json.dumps(layer.get_config())))
        return
    config = json.loads(json.dumps(layer.get_config()))
    again = case.cls.from_config(config)
    assert again.get_config() == layer.get_config()
    assert as_tuples(repr(again)) == as_tuples(repr(layer))
    again(case.inputs(2))
    assert [(v.path, v.shape) for v in again.weights] == [(v.path, v.shape) for v in layer.weights]
    for mine, theirs in zip(again.get_weights(), layer.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)


# ---- every case in models, files and recipes ----------------------------------------


def model_of(case: Case) -> ul.Model:
    """A functional model of the one layer."""
    shapes = case.shape if isinstance(case.shape, list) else [case.shape]
    dtype = "int32" if case.integers else "float32"
    inputs = [L.Input(s, dtype=dtype, name=f"in{i}") for i, s in enumerate(shapes)]
    many = isinstance(case.shape, list)
    return ul.Model(inputs if many else inputs[0], case.cls(**case.kwargs)(inputs if many else inputs[0]))


@pytest.mark.parametrize("case", [c for c in CASES if c.cls not in (L.Lambda, L.InputLayer)], ids=str)
def test_a_saved_model_is_the_same(case: Case, tmp_path: Path) -> None:
    model, x = model_of(case), case.inputs(3, "float32")
    rng = np.random.default_rng(1)
    model.set_weights([rng.uniform(0.5, 1.5, v.shape) for v in model.weights])
    model.save(tmp_path / "model.ul")
    again = ul.load_model(tmp_path / "model.ul")
    assert [(v.path, v.shape) for v in again.weights] == [(v.path, v.shape) for v in model.weights]
    assert_close(again(x), np.asarray(model(x)), rtol=0, atol=0, what=str(case))


@pytest.mark.parametrize("case", [c for c in CASES if c.cls not in (L.Lambda, L.InputLayer)], ids=str)
def test_a_recipe_makes_the_same_layer(case: Case) -> None:
    """The arguments, written as YAML, give the layer that they give in Python."""
    shapes = case.shape if isinstance(case.shape, list) else [case.shape]
    inputs = [{"Input": {"shape": list(s), "name": f"in{i}"}} for i, s in enumerate(shapes)]
    arguments = {k: plain(v) for k, v in case.kwargs.items()} | {"inputs": [f"in{i}" for i in range(len(shapes))]}
    if not isinstance(case.shape, list):
        del arguments["inputs"]
    sections = {"data": {"dataset": "blobs"}, "loss": "mse", "optimizer": "sgd", "fit": {"epochs": 1}}
    recipe = Recipe(to_yaml({**sections, "model": [*inputs, {case.cls.__name__: arguments}]}))
    [found] = [x for x in recipe.build().layers if not isinstance(x, L.InputLayer)]
    model = model_of(case)
    assert type(found) is case.cls and found.built
    assert [(v.name, v.shape) for v in found.weights] == [(v.name, v.shape) for v in model.weights]
    again = Recipe(recipe.to_yaml()).build()
    assert as_tuples(repr(again.layers[-1])) == as_tuples(repr(found))


def test_a_recipe_cannot_hold_a_lambda() -> None:
    text = "data: {dataset: blobs}\nloss: mse\noptimizer: sgd\nfit: {epochs: 1}\nmodel:\n  - Input: {shape: [4]}\n"
    with pytest.raises(UnilayersError, match=r"Lambda\.function: a value that does not fit\. Expected a function\."):
        Recipe(text + "  - Lambda: {function: 'lambda x: x'}\n")


def test_names_are_those_of_keras(keras: Any) -> None:
    """Each class is found under all names that Keras gives it."""
    mine = {cls.__name__: cls for cls in BUILTIN}
    for name, theirs in vars(keras.layers).items():
        cls = mine.get(getattr(theirs, "__name__", ""))
        if cls is not None:
            assert getattr(L, name) is cls and L.Layer.registry.get(name) is cls, name


@pytest.mark.parametrize("cls", [c.cls for c in SOME if c.cls in BUILTIN and not c.training], ids=lambda c: c.__name__)
def test_penalties_and_constraints_reach_their_weights(cls: type[L.Layer]) -> None:
    """Each argument that says where a weight may be, or what it costs, does so for one weight."""
    case = next(c for c in CASES if c.cls is cls)
    for kind, given in (("regularizer", "l2"), ("constraint", "non_neg")):
        names = [n for n in parameters(cls) if n.endswith(f"_{kind}") and n != "activity_regularizer"]
        for name in names:
            layer = cls(**{**case.kwargs, name: given})
            layer(case.inputs(2, "float32"))
            found = [v.name for v in layer.weights if getattr(v, kind) is not None]
            weight = name.removesuffix(f"_{kind}")
            assert found == ([weight] if weight in [v.name for v in layer.weights] else found[:1]), name
            if "use_bias" not in case.kwargs or weight != "bias":
                assert len(found) == 1 or (weight == "bias" and layer.bias is None), name


# ---- one by one -----------------------------------------------------------------


@pytest.mark.parametrize("axis", [1, 2, -1, (1, 2), (1, 3), [3, 2]], ids=str)
def test_layer_normalization_over_any_axes(axis: Any) -> None:
    x = np.random.default_rng(0).normal(3.0, 2.0, (4, 3, 5, 2))
    axes = (axis,) if isinstance(axis, int) else tuple(axis)
    wanted = (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + 0.01)
    layer = L.LayerNormalization(axis, epsilon=0.01, dtype="float64")
    np.testing.assert_allclose(layer(x), wanted, 1e-12)
    assert layer.gamma.shape == tuple(x.shape[a] for a in sorted(a % 4 for a in axes))


def test_explicit_padding_is_zero_padding_before() -> None:
    x = np.random.default_rng(0).normal(size=(2, 5, 6, 2))
    padded = L.ZeroPadding2D(((1, 1), (0, 2)), dtype="float64")(x)
    conv = L.Conv2D(3, 3, padding=[1, (0, 2)], dtype="float64")
    y = conv(x)
    plain = L.Conv2D(3, 3, dtype="float64")
    plain(padded)
    plain.set_weights(conv.get_weights())
    np.testing.assert_allclose(y, plain(padded), 1e-12)


def test_embedding_may_start_from_given_vectors() -> None:
    table = np.random.default_rng(0).normal(size=(5, 3))
    layer = L.Embedding(5, 3, embeddings_initializer=table, dtype="float64")
    np.testing.assert_array_equal(layer(np.array([[4, 0]])), table[[[4, 0]]])
    np.testing.assert_array_equal(layer(np.array([[4.0, 0.0]], "float32")), table[[[4, 0]]])


@pytest.mark.parametrize(
    "kwargs",
    [{}, {"tie_weights": False, "logit_soft_cap": 0.5}, {"reverse_dtype": "float32", "mask_zero": True}],
    ids=str,
)
def test_embeddings_in_reverse_are_those_of_keras(keras: Any, kwargs: dict[str, Any]) -> None:
    ids, x = np.array([[1, 0, 5]], "int32"), np.random.default_rng(0).normal(size=(2, 3, 4))
    mine, theirs = (w.ReversibleEmbedding(6, 4, **kwargs, dtype="float64") for w in (L, keras.layers))
    mine(ids)
    theirs.build(ids.shape)
    assert [(v.name, v.shape) for v in mine.weights] == [(v.name, tuple(v.shape)) for v in theirs.weights]
    theirs.set_weights(mine.get_weights())
    wanted = to_numpy(theirs(x, reverse=True))
    found = mine(x, reverse=True)
    assert found.dtype == kwargs.get("reverse_dtype", "float64")
    np.testing.assert_allclose(found, wanted, 1e-5, 1e-6)
    tokens = L.Input((3,), dtype="int32")
    model = ul.Model(tokens, mine(mine(tokens), reverse=True))
    assert len(model.weights) == len(mine.weights)
    np.testing.assert_allclose(model(ids), mine(mine(ids), reverse=True), 1e-6)


def test_frozen_batch_normalization_runs_as_in_inference() -> None:
    """Also below a layer that is not trainable; its statistics then stay, and its weights get no gradient."""

    class Block(L.Layer):
        def __init__(self, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.norm = L.BatchNormalization()

        def call(self, x: Any) -> Any:
            return self.norm(x)

    x = np.random.default_rng(0).normal(3.0, 2.0, (8, 4)).astype("float32")
    block = Block()
    block(x, training=True)
    before = block.get_weights()
    assert before[2].any()
    block.trainable = False
    np.testing.assert_array_equal(block(x, training=True), block(x, training=False))
    for now, then in zip(block.get_weights(), before, strict=True):
        np.testing.assert_array_equal(now, then)
    assert block.trainable_weights == [] and [v.name for v in block.non_trainable_weights][:2] == ["gamma", "beta"]
    block.trainable = True
    assert np.abs(np.asarray(block(x, training=True)).mean(0)).max() < 1e-6


def test_spectral_normalization_finds_the_largest_singular_value() -> None:
    x = np.ones((1, 4))
    for inner in (L.Dense(5), L.Conv1D(3, 2), L.Conv1DTranspose(3, 2)):
        layer = L.SpectralNormalization(inner, power_iterations=60, dtype="float64")
        given = x if isinstance(inner, L.Dense) else np.ones((1, 3, 4))
        layer(given)
        before = inner.kernel.numpy()
        layer(given)
        np.testing.assert_array_equal(inner.kernel.numpy(), before)  # inference changes nothing
        layer(given, training=True)
        norm = np.linalg.norm(before.reshape(-1, before.shape[-1]), 2)
        np.testing.assert_allclose(inner.kernel.numpy(), before / norm, 1e-6)
    zero = L.SpectralNormalization(L.Dense(5, kernel_initializer="zeros"), dtype="float64")
    zero(x)
    u = zero.vector_u.numpy()
    np.testing.assert_array_equal(zero(x, training=True), np.zeros((1, 5)))
    np.testing.assert_array_equal(zero.vector_u.numpy(), u)


@pytest.mark.parametrize("backend", backend_names())
def test_spectral_normalization_in_a_training_step(backend: str) -> None:
    """The gradient is that of the divided kernel, and the update is made to it."""
    usable(backend)
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(6, 4)), rng.normal(size=(6, 3))
    inner = L.Dense(3, use_bias=False, name="inner")
    model = ul.Sequential([L.Input((4,)), L.SpectralNormalization(inner, dtype="float64", name="outer")])
    model.compile(loss="mse", optimizer=ul.optimizers.SGD(0.1))
    kernel, u = inner.kernel.numpy(), model.layers[0].vector_u.numpy()
    v = u @ kernel.T / np.linalg.norm(u @ kernel.T)
    u = v @ kernel / np.linalg.norm(v @ kernel)
    divided = kernel / (v @ kernel @ u.T)
    model.fit(x, y, batch_size=6, epochs=1, shuffle=False, verbose=0, backend=backend)
    gradient = x.T @ (x @ divided - y) * 2 / y.size
    np.testing.assert_allclose(inner.kernel.numpy(), divided - 0.1 * gradient, 1e-5)
    np.testing.assert_allclose(model.layers[0].vector_u.numpy(), u, 1e-5)


def test_einsum_dense_finds_the_sizes(keras: Any) -> None:
    """Sizes that are not given are those of x; ... stands for any number of axes; also where Keras knows less."""
    x = np.random.default_rng(0).normal(size=(2, 6, 3, 4))
    cases: list[tuple[str, Any, str | None, Shape]] = [
        ("abcd,cde->abe", (None, 5), "e", (2, 6, 5)),
        ("abcd,de->abce", (None, None, 5), None, (2, 6, 3, 5)),
        ("...x,xy->...y", 5, "y", (2, 6, 3, 5)),
        ("...xy,xyz->...z", 5, None, (2, 6, 5)),
        ("ab...,bc->ac...", 5, "c", (2, 5, 3, 4)),
    ]
    for equation, output_shape, bias_axes, wanted in cases:
        mine, theirs = (w.EinsumDense(equation, output_shape, bias_axes=bias_axes) for w in (L, keras.layers))
        y = mine(x)
        assert y.shape == wanted == mine.compute_output_shape(x.shape)
        if None in np.ravel(output_shape):
            continue  # Keras asks for these sizes
        theirs.build(x.shape)
        assert [v.shape for v in mine.weights] == [tuple(v.shape) for v in theirs.weights]
        theirs.set_weights(mine.get_weights())
        np.testing.assert_allclose(y, to_numpy(theirs(x)), 1e-4, 1e-5)


def test_einsum_dense_draws_by_the_axes_that_are_summed() -> None:
    """As a dense layer of the same numbers of inputs and outputs: Glorot's limit, and its spread."""
    layer = L.EinsumDense("abc,cde->abde", (None, 20, 30))
    layer(np.ones((1, 2, 40), "float32"))
    kernel, limit = layer.kernel.numpy(), np.sqrt(6 / (40 + 600))
    assert 0.99 * limit < np.abs(kernel).max() <= limit
    assert kernel.std() == pytest.approx(limit / np.sqrt(3), rel=0.02)
    told = L.EinsumDense("ab,bc->ac", 500, kernel_initializer=initializers.GlorotUniform(None, (0,), (0,)))
    told(np.ones((1, 50), "float32"))
    assert np.abs(told.kernel.numpy()).max() == pytest.approx(np.sqrt(6 / 100), rel=0.01)
    given = L.EinsumDense("ab,bc->ac", 3, kernel_initializer="ones")
    assert (given(np.ones((1, 2), "float32")) == 2).all()


def test_pooling_to_a_size_takes_every_element() -> None:
    """Against windows written out by hand, for every size and number of windows."""
    x = np.random.default_rng(0).normal(size=(2, 7, 3))
    for count in range(1, 10):
        windows = [x[:, i * 7 // count : -((i + 1) * 7 // -count)] for i in range(count)]
        for cls, reduce in ((L.AdaptiveMaxPooling1D, np.max), (L.AdaptiveAveragePooling1D, np.mean)):
            wanted = np.stack([reduce(w, axis=1) for w in windows], 1)
            np.testing.assert_allclose(cls(count, dtype="float64")(x), wanted, 1e-12)


def test_functional_forms_are_the_layers() -> None:
    a, b = np.random.default_rng(0).normal(size=(2, 3, 4)).astype("float32")
    for name in ("add", "subtract", "multiply", "average", "maximum", "minimum"):
        np.testing.assert_array_equal(getattr(L, name)([a, b]), getattr(L, name.capitalize())()([a, b]))
    np.testing.assert_array_equal(L.concatenate([a, b], axis=0), np.concatenate([a, b]))
    product = (a * b).sum(-1, keepdims=True)
    np.testing.assert_allclose(L.dot([a, b]), product, 1e-5)
    lengths = np.linalg.norm(a, axis=-1, keepdims=True) * np.linalg.norm(b, axis=-1, keepdims=True)
    np.testing.assert_allclose(L.dot([a, b], axes=1, normalize=True), product / lengths, 1e-5)
    assert L.add([L.Input((4,)), L.Input((4,))], name="sum").origin.layer.name == "sum"


def test_regularizers_of_weights() -> None:
    layer = L.Dense(
        2, kernel_regularizer={"L2": {"l2": 0.1}}, bias_regularizer="l1", bias_initializer="ones", dtype="float64"
    )
    layer(np.ones((1, 3)))
    found = [float(x) for x in layer.regularization_losses()]
    assert found == pytest.approx([0.1 * np.sum(layer.kernel.numpy() ** 2), 0.01 * 2])


def test_inputs() -> None:
    assert public_shape(L.Input((8, None, 3)).shape) == (None, 8, None, 3)
    assert L.Input((4,), 5, "int32", name="ids").spec == Spec((5, 4), "int32")
    assert public_shape(L.Input(batch_shape=(None, 4)).shape) == (None, 4)
    first, second, unnamed = (L.Input((None,), name=n) for n in ("a", "b", None))
    assert first.shape[1] != second.shape[1] and first.shape[0] == second.shape[0] == unnamed.shape[0]
    value = L.Input((3, None), name="ids", dtype="int32")
    assert L.InputLayer.of(value).symbolic_input().spec == value.spec
    assert L.InputLayer.of(value).symbolic_input().node.attrs["name"] == "ids"
    assert L.Layer.registry.get("Input") is L.InputLayer
    for wrong in ({}, {"shape": (3,), "batch_shape": (None, 3)}):
        with pytest.raises(UnilayersError, match="give shape or batch_shape"):
            L.Input(**wrong)  # type: ignore[arg-type]
    assert L.Input(tensor=value) is value
    for tensor in (np.ones((2, 3)), L.Dense(2)(L.Input((3,)))):
        with pytest.raises(UnilayersError, match=r"Input\.tensor: not a symbolic input"):
            L.Input(tensor=tensor)
    for argument in ("sparse", "ragged", "optional"):
        with pytest.raises(UnilayersError, match=f"Input: {argument} inputs are not supported"):
            L.Input((3,), **{argument: True})


def test_arguments_of_inputs_are_those_of_keras(keras: Any) -> None:
    mine, theirs = (inspect.signature(f).parameters.values() for f in (L.Input, keras.Input))
    assert [(p.name, p.default) for p in mine] == [(p.name, p.default) for p in theirs]


# ---- dropout ------------------------------------------------------------------


def test_dropout_keeps_the_mean_and_drops_the_rate() -> None:
    x = np.ones((200, 200), "float32")
    for rate in (0.1, 0.5, 0.9):
        y = L.Dropout(rate)(x, training=True)
        assert set(np.unique(y)) == {np.float32(0), np.float32(1 / (1 - rate))}
        # Four standard deviations of a mean of 40,000 independent elements.
        assert abs(np.mean(y == 0) - rate) < 4 * np.sqrt(rate * (1 - rate) / x.size)


def test_dropout_masks_follow_the_seed_the_path_and_the_call() -> None:
    x = np.ones((4, 50), "float32")

    def masks(layer: L.Dropout, calls: int = 2) -> list[np.ndarray]:
        return [layer(x, training=True) for _ in range(calls)]

    first, second = masks(L.Dropout(0.5, name="a"))
    assert (first != second).any()
    for again, mask in zip(masks(L.Dropout(0.5, name="a")), (first, second), strict=True):
        np.testing.assert_array_equal(again, mask)
    layer = L.Dropout(0.5, name="a")
    layer(x)  # inference: takes nothing from the stream
    np.testing.assert_array_equal(layer(x, training=True), first)
    for other in (L.Dropout(0.5, name="b"), L.Dropout(0.5, name="a", seed=3)):
        assert (masks(other, 1)[0] != first).any()
    assert layer.weights == [] and [v.name for v in layer.variables] == ["random_counter"]


def test_dropout_noise_shape() -> None:
    x = np.random.default_rng(0).normal(size=(6, 5, 40))
    y = L.Dropout(0.5, noise_shape=(None, 1, None), dtype="float64")(x, training=True)
    ratio = y / x
    assert set(np.unique(np.round(ratio, 12))) == {0.0, 2.0}
    np.testing.assert_allclose(ratio, np.broadcast_to(ratio[:, :1], ratio.shape), 1e-12)
    for wrong in ((None, 1), (None, 2, None)):
        with pytest.raises(ShapeError, match="noise_shape does not broadcast to the input"):
            L.Dropout(0.5, noise_shape=wrong)(x, training=True)


# With the tolerance of the outputs: masks are equal bit for bit, normal numbers but for rounding.
RANDOM: list[tuple[Callable[[], L.Layer], Shape, float]] = [
    (lambda: L.Dropout(0.3, name="it"), (4, 5), 0.0),
    (lambda: L.Dropout(0.3, (None, 1, None), name="it"), (4, 5), 0.0),
    (lambda: L.SpatialDropout1D(0.3, name="it"), (2, 5), 0.0),
    (lambda: L.SpatialDropout2D(0.3, "channels_first", name="it"), (5, 2, 1), 0.0),
    (lambda: L.SpatialDropout3D(0.3, name="it"), (2, 1, 2, 5), 0.0),
    (lambda: L.AlphaDropout(0.3, name="it"), (4, 5), 1e-6),
    (lambda: L.AlphaDropout(0.3, (None, 1, None), name="it"), (4, 5), 1e-6),
    (lambda: L.GaussianDropout(0.3, name="it"), (4, 5), 1e-5),
    (lambda: L.GaussianNoise(0.3, name="it"), (4, 5), 1e-5),
]
each_random = pytest.mark.parametrize(("make", "shape", "tolerance"), RANDOM, ids=[repr(r[0]()) for r in RANDOM])


def test_every_random_layer_is_there() -> None:
    random_layers = {cls for cls in BUILTIN if "seed" in parameters(cls)}
    assert random_layers == {type(make()) for make, _, _ in RANDOM}


@pytest.mark.parametrize("backend", backend_names())
@each_random
def test_randomness_traced_on_a_backend_equals_eager(
    make: Callable[[], L.Layer], shape: Shape, tolerance: float, backend: str
) -> None:
    """Call by call; the gradient has the mask of its own call."""
    x = np.random.default_rng(1).normal(size=(3, *shape)).astype("float32")
    once, made = make(), make()
    wanted = [eager(once, x, True) for _ in range(2)]
    assert (wanted[0]["y"] != wanted[1]["y"]).any() and (wanted[0]["y"] != x).any()
    made.build(None)
    program = program_of(made, x, True)
    for want in wanted:
        found = run_program(program, x, usable(backend), x.shape)
        assert_close(found["y"], want["y"], rtol=tolerance, atol=tolerance, what="y")
        assert_close(found["gradient 0"], want["gradient 0"], rtol=1e-5, atol=1e-6, what="gradient")


@each_random
def test_randomness_only_in_training_and_by_the_seed(
    make: Callable[[], L.Layer], shape: Shape, tolerance: float
) -> None:
    x = np.random.default_rng(1).normal(size=(3, *shape)).astype("float32")
    np.testing.assert_array_equal(make()(x), x)
    first, again = make()(x, training=True), make()(x, training=True)
    np.testing.assert_array_equal(first, again)
    other = type(make()).from_config({**make().get_config(), "seed": 5})
    assert (other(x, training=True) != first).any()
    assert make().weights == []


def test_whole_channels_are_dropped() -> None:
    x = np.random.default_rng(0).uniform(1, 2, (50, 3, 2, 40)).astype("float32")
    y = L.SpatialDropout2D(0.25)(x, training=True)
    ratio = y / x
    np.testing.assert_allclose(ratio, np.broadcast_to(ratio[:, :1, :1], ratio.shape), 1e-6)
    assert abs(np.mean(ratio[:, 0, 0] == 0) - 0.25) < 4 * np.sqrt(0.25 * 0.75 / 2000)


def test_noise_has_the_mean_and_the_variance_it_should_have() -> None:
    """Bounds are four standard deviations of the estimates; the fourth moment of a normal distribution is 3."""
    n = 40000
    x = np.random.default_rng(0).normal(size=n).astype("float32")
    added = np.asarray(L.GaussianNoise(0.5)(x, training=True) - x) / 0.5
    factor = (np.asarray(L.GaussianDropout(0.2)(np.ones(n, "float32"), training=True)) - 1) / 0.5
    for noise in (added, factor):
        assert abs(noise.mean()) < 4 / np.sqrt(n) and abs(noise.var() - 1) < 4 * np.sqrt(2 / n)
        assert abs((noise**4).mean() - 3) < 4 * np.sqrt(96 / n)
        assert abs(np.corrcoef(noise[:-1], noise[1:])[0, 1]) < 4 / np.sqrt(n)
    y = np.asarray(L.AlphaDropout(0.2)(x, training=True))
    assert abs(y.mean() - x.mean()) < 0.03 and abs(y.var() - x.var()) < 0.05
    values, counts = np.unique(y, return_counts=True)
    assert abs(counts.max() / n - 0.2) < 4 * np.sqrt(0.16 / n)
    alpha, scale = 1.6732632423543772, 1.0507009873554805
    least = -alpha * scale
    a = (0.8 * (1 + 0.2 * least**2)) ** -0.5
    assert values[counts.argmax()] == pytest.approx(a * least - a * least * 0.2, rel=1e-5)


# ---- masks ----------------------------------------------------------------------

MASK = np.array([[True, True, False], [True, False, False]])


@pytest.mark.parametrize(
    ("name", "kwargs", "shape", "mask"),
    [
        ("Softmax", {}, (2, 3), MASK),
        ("Softmax", {}, (2, 3), np.array([[False] * 3, [True, False, True]])),
        ("Softmax", {"axis": 1}, (2, 3, 2), MASK[..., None].astype("float64")),
        ("Softmax", {"axis": [1, 2]}, (2, 3, 2), MASK[..., None]),
        ("GlobalAveragePooling1D", {}, (2, 3, 4), MASK),
        ("GlobalAveragePooling1D", {"data_format": "channels_first", "keepdims": True}, (2, 4, 3), MASK),
        ("BatchNormalization", {"momentum": 0.5}, (2, 3, 4), MASK),
        ("BatchNormalization", {"renorm": True, "renorm_clipping": {"rmax": 1.1, "dmax": 0.5}}, (2, 3, 4), MASK),
    ],
)
def test_masks_count_as_in_keras(keras: Any, name: str, kwargs: Any, shape: Shape, mask: np.ndarray) -> None:
    x = np.random.default_rng(0).normal(2.0, 1.0, shape)
    training = {"training": True} if name == "BatchNormalization" else {}
    mine, theirs = (getattr(where, name)(**kwargs, dtype="float64") for where in (L, keras.layers))
    wanted = to_numpy(theirs(x, mask=keras.ops.convert_to_tensor(mask), **training))
    np.testing.assert_allclose(mine(x, mask=mask, **training), wanted, 1e-5, 1e-6)
    for a, b in zip(mine.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, 1e-5, 1e-6)


def test_masks_that_layers_make_are_those_of_keras(keras: Any) -> None:
    ids, x = np.array([[3, 0, 1]]), np.array([[[1.0, 0.0], [0.0, 0.0]]])
    wide, steps = np.ones((2, 3, 2)), np.ones((2, 3, 4))
    cases: list[tuple[str, dict[str, Any], Any, Any]] = [
        ("Embedding", {"input_dim": 4, "output_dim": 2, "mask_zero": True}, ids, None),
        ("Masking", {}, x, None),
        ("Add", {}, [steps, steps], [MASK, ~MASK]),
        ("Multiply", {}, [steps, steps], [MASK, MASK]),
        ("Concatenate", {}, [wide, steps], [MASK, MASK[:, ::-1]]),
        ("Concatenate", {"axis": 1}, [wide, wide], [MASK, None]),
    ]
    for name, kwargs, inputs, masks in cases:
        mine, theirs = (getattr(where, name)(**kwargs) for where in (L, keras.layers))
        tensors = [None if m is None else keras.ops.convert_to_tensor(m) for m in masks or []]
        arrays = [keras.ops.convert_to_tensor(v) for v in leaves_of(inputs)]
        wanted = theirs.compute_mask(arrays if masks else arrays[0], tensors or None)
        np.testing.assert_array_equal(np.asarray(mine.compute_mask(inputs, masks)), to_numpy(wanted))
    assert L.Add().compute_mask([steps, steps], [MASK, None]) is None
    assert L.Dot(1).compute_mask([steps, steps], [MASK, MASK]) is None


@pytest.mark.parametrize("cls", BUILTIN, ids=lambda c: c.__name__)
def test_the_layers_that_hand_masks_on_are_those_of_keras(keras: Any, cls: type[L.Layer]) -> None:
    case = next(c for c in CASES if c.cls is cls)
    if cls is L.InputLayer or not case.keras:
        pytest.skip("Keras has no such layer")
    theirs = type(twin(keras, case))
    if theirs.compute_mask is not keras.layers.Layer.compute_mask:  # it makes a mask of its own: see above
        assert not cls.supports_masking
    else:
        assert cls.supports_masking == twin(keras, case).supports_masking


# ---- penalties on what layers compute -----------------------------------------------


def test_penalties_on_activities_are_those_of_keras(keras: Any) -> None:
    x = np.random.default_rng(0).normal(size=(3, 5, 4))
    cases: list[tuple[str, dict[str, Any]]] = [
        ("ActivityRegularization", {"l1": 0.1, "l2": 0.2}),
        ("Dense", {"units": 3, "activation": "tanh", "activity_regularizer": "l2"}),
        ("EinsumDense", {"equation": "abc,cd->abd", "output_shape": (5, 2), "activity_regularizer": "l1"}),
        ("Conv1D", {"filters": 2, "kernel_size": 2, "activity_regularizer": "l1"}),
        ("SeparableConv1D", {"filters": 2, "kernel_size": 2, "activity_regularizer": "l2"}),
    ]
    for name, kwargs in cases:
        mine, theirs = (getattr(where, name)(**kwargs, dtype="float64") for where in (L, keras.layers))
        mine.build(x.shape)
        theirs.build(x.shape)
        theirs.set_weights(mine.get_weights())
        mine(x)
        theirs(x)
        found = [float(v) for v in mine.take_losses()]
        assert found == pytest.approx([float(v) for v in theirs.losses], rel=1e-5), name


@pytest.mark.parametrize("backend", backend_names())
def test_penalties_on_activities_are_part_of_the_loss(backend: str) -> None:
    usable(backend)
    model = ul.Sequential([L.Input((2,)), L.ActivityRegularization(l1=0.5)])
    model.compile(loss="mse", optimizer="sgd")
    x = np.array([[1.0, -3.0], [2.0, 0.0]], "float32")
    assert model.evaluate(x, x, batch_size=2, backend=backend, verbose=0) == pytest.approx(1.5)


# ---- initial values -------------------------------------------------------------


class Two(L.Layer):
    """Two dense layers, built in either order."""

    def __init__(self, backwards: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.backwards = backwards
        self.left, self.right = L.Dense(3, name="left"), L.Dense(3, name="right")

    def call(self, x: Any) -> Any:
        order = (self.right, self.left) if self.backwards else (self.left, self.right)
        return L.add([layer(x) for layer in order])


def test_initial_values_depend_on_path_and_seed_only() -> None:
    x = np.ones((1, 4), "float32")

    def kernels(layer: L.Layer) -> dict[str, np.ndarray]:
        layer(x)
        return {v.path: v.numpy() for v in layer.weights if v.name == "kernel"}

    one, two = kernels(Two(name="net")), kernels(Two(backwards=True, name="net"))
    assert one.keys() == two.keys() == {"net/left/kernel", "net/right/kernel"}
    for path in one:
        np.testing.assert_array_equal(one[path], two[path])
    assert (one["net/left/kernel"] != one["net/right/kernel"]).any()
    before = random.default_seed()
    drawn = initializers.GlorotUniform()((4, 3), generator=random.generator(before, "net/left/kernel"))
    np.testing.assert_array_equal(one["net/left/kernel"], drawn)
    random.set_random_seed(before + 1)
    try:
        assert (kernels(Two(name="net"))["net/left/kernel"] != one["net/left/kernel"]).any()
    finally:
        random.set_random_seed(before)


# ---- sharing, layers of one's own -------------------------------------------------


def test_a_layer_called_twice_has_one_set_of_weights() -> None:
    a, b = np.random.default_rng(0).normal(size=(2, 5, 4))
    layer = L.Dense(3, dtype="float64")
    with GradientTape() as tape:
        target = ops.sum(layer(a)) + ops.sum(ops.multiply(layer(b), 2.0))
    assert [v.path for v in layer.weights] == ["dense/kernel", "dense/bias"]
    wanted = np.repeat((a.sum(0) + 2 * b.sum(0))[:, None], 3, 1)
    np.testing.assert_allclose(tape.gradient(target, layer.kernel), wanted, 1e-12)
    left, right = layer(L.Input((4,))), layer(L.Input((4,)))
    assert left.origin.layer is right.origin.layer is layer and len(layer.weights) == 2


class Gated(L.Layer):
    """Written the Keras way: __init__, build, call, add_weight, sublayers, training."""

    def __init__(self, units: int, rate: float = 0.5, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units = units
        self.dense = L.Dense(units, activation="relu")
        self.steps = [L.Dense(units, name=f"step{i}") for i in range(2)]
        self.dropout = L.Dropout(rate)

    def build(self, input_shape: Any) -> None:
        self.gate = self.add_weight(shape=(input_shape[-1], self.units), initializer="ones", name="gate")
        self.calls = self.add_weight(shape=(), initializer="zeros", trainable=False, name="calls")

    def call(self, x: Any, training: bool = False) -> Any:
        y = self.dense(x) * ops.sigmoid(x @ self.gate)
        for step in self.steps:
            y = step(y) + y
        if training:
            self.calls.assign_add(1.0)
            y = self.dropout(y)
        return y


def test_a_layer_of_ones_own() -> None:
    layer, x = Gated(3, name="gated", dtype="float64"), np.random.default_rng(0).normal(size=(6, 4))
    y = layer(x)
    assert [v.path for v in layer.weights] == [
        "gated/gate", "gated/calls", "gated/dense/kernel", "gated/dense/bias", "gated/step0/kernel", "gated/step0/bias",
        "gated/step1/kernel", "gated/step1/bias",
    ]  # fmt: skip
    kernel, gate = layer.dense.kernel.numpy(), layer.gate.numpy()
    h = np.maximum(x @ kernel, 0) / (1 + np.exp(-(x @ gate)))
    for step in layer.steps:
        h = h @ step.kernel.numpy() + h
    np.testing.assert_allclose(y, h, 1e-12)
    assert (np.asarray(layer(x, training=True)) == 0).any(), "training reaches the dropout inside"
    assert float(layer.calls) == 1
    assert layer.get_config() == {"units": 3, "rate": 0.5, "name": "gated", "dtype": "float64"}
    again = Gated.from_config(layer.get_config())
    np.testing.assert_array_equal(again(x), y)
    layer.set_weights(layer.get_weights())
    wanted = eager(layer, x, False)
    assert_all_close(run_program(program_of(layer, x, False), x, get_backend("numpy"), y.shape), wanted, 1e-12, 1e-13)


def test_a_layer_of_ones_own_may_declare_fields() -> None:
    class Scale(L.Layer):
        factor: float = 2.0

        def call(self, x: Any) -> Any:
            return x * self.factor

    assert repr(Scale(3.0)) == "Scale(factor=3.0)"
    np.testing.assert_array_equal(Scale.from_config(Scale(3.0).get_config())(np.ones(2, "float32")), [3, 3])


# ---- what a layer says of its input ---------------------------------------------

# A spec, and what it is to say of shapes and dtypes; Keras is asked the same.
SPECS: list[tuple[dict[str, Any], list[tuple[Shape, str]]]] = [
    ({"ndim": 2}, [((2, 3), "float32"), ((2,), "float32"), ((2, 3, 4), "float32")]),
    ({"min_ndim": 2, "max_ndim": 3}, [((2, 3), "float32"), ((2,), "float32"), ((2, 3, 4, 5), "float32")]),
    ({"min_ndim": 2, "axes": {-1: 3}}, [((2, 3), "float32"), ((5, 2, 3), "float32"), ((3, 2), "float32")]),
    ({"ndim": 2, "axes": {1: None, 0: 2}}, [((2, 3), "float32"), ((3, 3), "float32")]),
    ({"shape": (None, 4)}, [((2, 4), "float32"), ((2, 5), "float32"), ((2, 4, 1), "float32")]),
    (
        {"shape": (None, 4, 1), "allow_last_axis_squeeze": True},
        [((2, 4), "float32"), ((2, 4, 1), "float32"), ((2, 5), "float32"), ((2, 5, 1), "float32")],
    ),
    ({"dtype": "int32"}, [((2,), "int32"), ((2,), "float32")]),
]


@pytest.mark.parametrize(("kwargs", "inputs"), SPECS, ids=[str(s[0]) for s in SPECS])
def test_input_specs_are_checked_as_in_keras(keras: Any, kwargs: dict[str, Any], inputs: Any) -> None:
    def accepts(where: Any, x: np.ndarray) -> bool:
        class Given(where.Layer):  # type: ignore[misc, name-defined]
            def __init__(self) -> None:
                super().__init__()
                self.input_spec = where.InputSpec(**kwargs)

            def call(self, x: Any) -> Any:
                return x

        try:
            Given()(x)
        except ValueError:
            return False
        return True

    verdicts = [accepts(L, np.ones(shape, dtype)) for shape, dtype in inputs]
    assert verdicts == [accepts(keras.layers, np.ones(shape, dtype)) for shape, dtype in inputs]
    assert {*verdicts} == {True, False}
    again = L.InputSpec.from_config(L.InputSpec(**kwargs).get_config())
    assert again == L.InputSpec(**kwargs)


def test_input_specs_of_several_inputs() -> None:
    class Several(L.Layer):
        def __init__(self) -> None:
            super().__init__()
            one = L.InputSpec(shape=(None, 3), name="one")
            self.input_spec = {"one": one, "two": L.InputSpec(ndim=1, name="two", optional=True)}

        def call(self, x: Any) -> Any:
            return x["one"]

    layer = Several()
    layer({"one": np.ones((2, 3)), "two": np.ones(2)})
    layer({"one": np.ones((2, 3)), "two": None})
    assert layer({"one": L.Input((3,)), "two": L.Input(())}).shape[1:] == (3,)
    for x, message in (
        (
            {"one": np.ones((2, 4)), "two": None},
            r"Expected InputSpec\(shape=\(None, 3\), name='one'\)\. Received \(2, 4\)",
        ),
        (
            {"one": np.ones((2, 3))},
            r"several Several\(\): no input 'two'\. Expected the keys one, two\. Received one\.",
        ),
        ([np.ones((2, 3))], r"another number of inputs\. Expected 2\. Received 1\."),
    ):
        with pytest.raises(UnilayersError, match=message):
            layer(x)
    with pytest.raises(UnilayersError, match="no such axis"):
        L.InputSpec(ndim=2, axes={2: 3})


def test_layers_and_models_as_configs() -> None:
    for layer in (L.Dense(3, activation="relu"), L.Bidirectional(L.LSTM(2)), ul.Sequential([L.Dense(2)])):
        again = L.deserialize(json.loads(json.dumps(L.serialize(layer))))
        assert type(again) is type(layer) and L.serialize(again) == L.serialize(layer)
    keras_form = {"module": "keras.layers", "class_name": "Dense", "config": {"units": 3}, "registered_name": None}
    assert L.deserialize(keras_form).units == 3

    class Own(L.Dense):
        pass

    assert type(L.deserialize({"class_name": "Mine", "config": {"units": 3}}, custom_objects={"Mine": Own})) is Own


X2 = np.ones((2, 5), "float32")


def built(layer: L.Layer, x: Any) -> L.Layer:
    layer(x)
    return layer


# ---- low-rank adaptation ------------------------------------------------------------

ADAPTED: list[tuple[str, dict[str, Any], np.ndarray]] = [
    ("Dense", {"units": 4, "kernel_regularizer": "l2"}, X2),
    ("EinsumDense", {"equation": "ab,bcd->acd", "output_shape": (3, 4), "bias_axes": "d"}, X2),
    ("Embedding", {"input_dim": 6, "output_dim": 4}, np.array([[0, 5, 2], [1, 1, 3]])),
    ("ReversibleEmbedding", {"input_dim": 6, "output_dim": 4}, np.array([[0, 5, 2], [1, 1, 3]])),
]


@pytest.mark.parametrize(("name", "kwargs", "x"), ADAPTED, ids=[a[0] for a in ADAPTED])
def test_low_rank_adaptation_is_that_of_keras(keras: Any, name: str, kwargs: dict[str, Any], x: np.ndarray) -> None:
    mine, theirs = (getattr(where, name)(**kwargs) for where in (L, keras.layers))
    before = ops.to_numpy(mine(x))
    theirs(x)
    for layer in (mine, theirs):
        layer.enable_lora(2, lora_alpha=3)
    np.testing.assert_array_equal(mine(x), before)
    rng = np.random.default_rng(3)
    values = {v.name: rng.normal(size=tuple(v.shape)).astype("float32") for v in theirs.weights}
    for layer in (mine, theirs):
        for v in layer.weights:
            v.assign(values[v.name])
    assert [v.name for v in mine.trainable_weights] == [v.name for v in theirs.trainable_weights]
    assert_close(mine(x), to_numpy(theirs(x)), rtol=1e-5, atol=1e-5, what=name)
    if name == "ReversibleEmbedding":
        y = rng.normal(size=(2, 4)).astype("float32")
        assert_close(mine(y, reverse=True), to_numpy(theirs(y, reverse=True)), rtol=1e-5, atol=1e-5, what="reverse")
    again = L.deserialize(L.serialize(mine))
    again(x)
    again.set_weights(mine.get_weights())
    assert again.lora_enabled and (again.lora_rank, again.lora_alpha) == (2, 3)
    np.testing.assert_array_equal(again(x), mine(x))


def test_low_rank_adaptation_trains_in_the_place_of_the_kernel() -> None:
    model = ul.Sequential([L.Input((5,)), L.Dense(4)])
    model.compile("sgd", "mse")
    y = np.ones((2, 4), "float32")
    model.fit(X2, y, verbose=0)
    dense = model.layers[-1]
    dense.enable_lora(1)
    model.compile(ul.optimizers.SGD(0.1), "mse")
    before = {v.name: v.numpy() for v in dense.weights}
    losses = model.fit(X2, y, epochs=20, verbose=0).history["loss"]
    changed = {v.name for v in dense.weights if (v.numpy() != before[v.name]).any()}
    assert losses[-1] < 0.5 * losses[0] and changed == {"bias", "lora_kernel_a", "lora_kernel_b"}
    for layer, message in (
        (L.Dense(3), "the layer has no weights yet. Call it first."),
        (dense, "LoRA is enabled already."),
        (built(L.Dense(3, kernel_constraint="non_neg"), X2), "the kernel has a constraint."),
    ):
        with pytest.raises(UnilayersError, match=message):
            layer.enable_lora(2)
    with pytest.raises(UnilayersError, match="enable_lora: rank"):
        built(L.Dense(3), X2).enable_lora(0)


# ---- messages -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (
            lambda: L.Conv2D(4, 3)(np.ones((2, 8, 8), "float32")),
            "conv2d Conv2D(filters=4, kernel_size=3): input has the wrong number of axes. Expected 4 axes, the batch "
            "included. Received (2, 8, 8). Add the axis that is missing: x[None] for the batch, x[..., None] for the "
            "channels.",
        ),
        (
            lambda: L.Dense(3)(np.ones(5, "float32")),
            "dense Dense(units=3): input has the wrong number of axes. Expected at least 2 axes, the batch included. "
            "Received (5,). Add the axis that is missing: x[None] for the batch, x[..., None] for the channels.",
        ),
        (
            lambda: L.MaxPooling1D()(np.ones((2, 8, 8, 1), "float32")),
            "max_pooling1d MaxPooling1D(): input has the wrong number of axes. Expected 3 axes, the batch included. "
            "Received (2, 8, 8, 1). Use Flatten or Reshape.",
        ),
        (
            lambda: built(L.Dense(3), X2)(X2[:, :4]),
            "dense Dense(units=3): input does not fit the weights. Expected size 5 on axis -1, as at the first call. "
            "Received (2, 4). Use a new layer for inputs of another size.",
        ),
        (
            lambda: L.Dense(3)(L.Input((None,))),
            "dense Dense(units=3): the weights need a size that is not known. Expected a number on axis -1. Received "
            "(None, None). Give that size in Input(shape).",
        ),
        (
            lambda: L.Conv1D(4, 3, groups=2)(np.ones((2, 8, 3), "float32")),
            "conv1d Conv1D(filters=4, kernel_size=3, groups=2): the channels cannot be cut into groups. Expected a "
            "multiple of groups=2. Received 3 channels in (2, 8, 3).",
        ),
        (
            lambda: L.Cropping1D((2, 3))(np.ones((2, 5, 3), "float32")),
            "cropping1d Cropping1D(cropping=(2, 3)): nothing is left. Expected more than 5 elements on spatial axis 0. "
            "Received 5.",
        ),
        (
            lambda: L.GroupNormalization(2)(X2),
            "group_normalization GroupNormalization(groups=2): the channels cannot be cut into groups. Expected a "
            "multiple of groups=2. Received 5 channels in (2, 5).",
        ),
        (
            lambda: L.Dot(0)([X2, X2]),
            "dot Dot(axes=0): the batch cannot be summed over. Expected axes from 1. Received 0.",
        ),
        (
            lambda: L.EinsumDense("ab,bc->ac", (3, 4))(X2),
            "einsum_dense EinsumDense(equation='ab,bc->ac', output_shape=(3, 4)): output_shape does not fit. Expected "
            "a size for each of c. Received (3, 4).",
        ),
        (
            lambda: L.EinsumDense("abc,cd->abd", (4, 2))(np.ones((2, 5, 3), "float32")),
            "einsum_dense EinsumDense(equation='abc,cd->abd', output_shape=(4, 2)): output_shape does not fit x. "
            "Expected 5 for b. Received 4.",
        ),
        (
            lambda: L.EinsumDense("ab,bc->ac", (None,))(X2),
            "einsum_dense EinsumDense(equation='ab,bc->ac', output_shape=(None,)): the weights need a size that is not "
            "known. Expected a number for c. Received x (2, 5), output_shape (None,).",
        ),
        (
            lambda: L.AdaptiveMaxPooling1D(2)(L.Input((None, 3))),
            "adaptive_max_pooling1d AdaptiveMaxPooling1D(output_size=2) > op 'adaptive_max_pool': cannot pool to these "
            "sizes. Expected 1 known sizes between batch and channels. Received (batch, input_1, 3).",
        ),
        (
            lambda: L.MaxPooling2D()(np.ones((2, 1, 1, 3), "float32")),
            "max_pooling2d MaxPooling2D() > op 'max_pool': the window is larger than the padded input. Expected at "
            "least 2 on spatial axis 0. Received size 1 with padding (0, 0). Use a smaller window or padding='same'.",
        ),
        (
            lambda: L.Add()(X2),
            "add Add(): needs a list of inputs. Received one value. Call the layer on [a, b].",
        ),
        (
            lambda: L.Subtract()([X2, X2, X2]),
            "subtract Subtract(): needs two inputs. Received 3.",
        ),
        (
            lambda: L.Concatenate()([X2, X2[0]]),
            "concatenate Concatenate(): inputs have different numbers of axes. Received (2, 5), (5,).",
        ),
        (
            lambda: L.Permute((1, 2))(X2),
            "permute Permute(dims=(1, 2)): input has the wrong number of axes. Expected 3 axes, the batch included. "
            "Received (2, 5). Add the axis that is missing: x[None] for the batch, x[..., None] for the channels.",
        ),
    ],
)  # fmt: skip
def test_inputs_that_do_not_fit(act: Callable[[], Any], message: str) -> None:
    with pytest.raises(ShapeError) as error:
        act()
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda: L.Dense(0), "Dense.units: a value that does not fit. Expected an int at least 1. Received 0 (int)."),
        (
            lambda: L.Dense(3, "rellu"),
            "Dense.activation: unknown activation 'rellu'. Did you mean 'relu'?",
        ),
        (
            lambda: L.Conv2D(4, (3, 3, 3)),
            "Conv2D.kernel_size: a value that does not fit. Expected an int or 2 ints. Received (3, 3, 3).",
        ),
        (
            lambda: L.Conv2D(3, 3, groups=2),
            "Conv2D(filters=3, kernel_size=3, groups=2): filters are no multiple of groups.",
        ),
        (
            lambda: L.Conv1D(3, 3, strides=2, dilation_rate=2),
            "Conv1D(filters=3, kernel_size=3, strides=2, dilation_rate=2): strides and dilation_rate are both above 1.",
        ),
        (
            lambda: L.Conv2D(3, 3, padding="causal"),
            "Conv2D(filters=3, kernel_size=3, padding='causal'): causal padding needs one spatial axis.",
        ),
        (
            lambda: L.Conv2DTranspose(3, 3, strides=2, output_padding=2),
            "Conv2DTranspose(filters=3, kernel_size=3, strides=2, output_padding=2): output_padding is not below the "
            "strides.",
        ),
        (
            lambda: L.EinsumDense("ab->a", 3),
            "EinsumDense.equation: not an equation of a dense layer. Expected x,kernel->output in letters, with ... at "
            "the same end of x and output if at all. Received 'ab->a'.",
        ),
        (
            lambda: L.EinsumDense("ab,cd->ac", 3),
            "EinsumDense(equation='ab,cd->ac', output_shape=3): an axis of the kernel is in neither x nor the output. "
            "Received d.",
        ),
        (
            lambda: L.SpectralNormalization(L.Flatten())(X2),
            "spectral_normalization SpectralNormalization(layer=Flatten()): needs a layer with a kernel or embeddings.",
        ),
        (
            lambda: L.Reshape((-1, -1)),
            "Reshape.target_shape: not a shape. Expected sizes, at most one of them -1. Received (-1, -1).",
        ),
        (
            lambda: L.Permute((1, 3)),
            "Permute.dims: not an order of axes. Expected each of 1..2 once. Received (1, 3).",
        ),
        (
            lambda: L.ZeroPadding2D((1, 2, 3)),
            "ZeroPadding2D.padding: a value that does not fit. Expected an int or 2 entries. Received (1, 2, 3).",
        ),
        (
            lambda: L.Dense(3, kernel_initializer="glorot_unifrom")(X2),
            "dense Dense(units=3, kernel_initializer='glorot_unifrom') > initializer of 'kernel': unknown initializer "
            "'glorot_unifrom'. Did you mean 'GlorotUniform'?",
        ),
    ],
)  # fmt: skip
def test_arguments_that_do_not_fit(act: Callable[[], Any], message: str) -> None:
    with pytest.raises(UnilayersError) as error:
        act()
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("bounds", "message"),
    [
        ({"rmaxx": 2.0}, "renorm_clipping: unknown key 'rmaxx'. Did you mean 'rmax'?"),
        (
            {"rmax": 1.0, "rmin": 2.0},
            "renorm_clipping: the bounds leave nothing. Expected rmin <= rmax. Received {'rmax': 1.0, 'rmin': 2.0}.",
        ),
        (
            {"dmax": -1.0},
            "renorm_clipping['dmax']: a value that does not fit. Expected a number at least 0. Received -1.0 (float).",
        ),
    ],
)
def test_wrong_bounds_of_a_batch_renormalization(bounds: dict[str, float], message: str) -> None:
    with pytest.raises(UnilayersError) as caught:
        L.BatchNormalization(renorm=True, renorm_clipping=bounds)
    assert str(caught.value) == f"BatchNormalization.{message}"
