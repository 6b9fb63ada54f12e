"""Dtype policies and mixed precision against Keras 3: every layer under each policy, training, loss scaling, files."""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import unilayers as ul
from tests import test_attention, test_layers, test_preprocessing, test_recurrent
from tests.compare import assert_close
from tests.conftest import BACKENDS, each_backend, require_backend
from unilayers import config, dtype_policies, mixed_precision, ops
from unilayers import layers as L
from unilayers.autodiff import GradientTape, gradients
from unilayers.backend import Backend, get_backend
from unilayers.errors import BackendError, DTypeError, UnilayersError
from unilayers.graph import Graph, leaf, tracing
from unilayers.graph.serialize import from_json, to_json
from unilayers.optimizers import SGD, Adam, LossScaleOptimizer
from unilayers.program import Program, compile_graph
from unilayers.recipe import load_recipe
from unilayers.spec import FLOATS, Spec, is_float
from unilayers.structure import leaves_of, map_structure
from unilayers.variable import Trace, Variable, autocast, trace_into

os.environ.setdefault("KERAS_BACKEND", "torch")
keras = pytest.importorskip("keras")
torch = pytest.importorskip("torch")

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Keras's own

MIXED = tuple(dtype_policies.MIXED)
POLICIES = (*FLOATS, *MIXED)
ROUNDING = {"float16": 2.0**-11, "bfloat16": 2.0**-8, "float32": 2.0**-24}  # of one operation
each_policy = pytest.mark.parametrize("policy", POLICIES)
each_mixed = pytest.mark.parametrize("policy", MIXED)


@pytest.fixture(autouse=True)
def usual_defaults() -> Iterator[None]:
    """Whatever a test sets, the next one starts with the usual defaults, here and in Keras."""
    with config.dtype_scope("float32"):
        yield
    keras.config.set_dtype_policy("float32")


def require_dtype(backend: Backend, policy: str) -> None:
    if "bfloat16" in policy and backend.name == "numpy":
        pytest.skip("NumPy has no bfloat16")


# ---- policies -----------------------------------------------------------------


@each_policy
def test_a_policy_is_that_of_keras(policy: str) -> None:
    mine, theirs = ul.DTypePolicy(policy), keras.DTypePolicy(policy)
    for name in ("name", "compute_dtype", "variable_dtype"):
        assert getattr(mine, name) == getattr(theirs, name) and type(getattr(mine, name)) is str
    assert (repr(mine), mine.get_config()) == (repr(theirs), theirs.get_config())
    saved = dtype_policies.serialize(mine)
    assert {k: keras.dtype_policies.serialize(theirs)[k] for k in saved} == saved
    for given in (mine, policy, saved, json.loads(json.dumps(saved)), ul.DTypePolicy.from_config(mine.get_config())):
        assert dtype_policies.get(given) == mine
    assert dtype_policies.deserialize(saved) == mine and mine != dtype_policies.get("int32")
    assert dtype_policies.get(torch.float64) == dtype_policies.get(np.float64) == ul.DTypePolicy("float64")


@pytest.mark.parametrize("wrong", ["mixed_float17", "mixed", "", "float", 3])
def test_what_is_no_policy(wrong: Any) -> None:
    for call in (ul.DTypePolicy, dtype_policies.get, config.set_dtype_policy, lambda p: L.Dense(2, dtype=p)):
        with pytest.raises(UnilayersError, match=f"{wrong!r}|'{wrong}'"):
            call(wrong)
    with pytest.raises(DTypeError) as caught:
        ul.DTypePolicy("mixed_float17")
    assert str(caught.value).endswith("Received 'mixed_float17' (str). Did you mean 'mixed_float16'?")


def test_the_older_names_of_keras() -> None:
    assert {n for n in dir(keras.mixed_precision) if n[0] != "_"} == set(mixed_precision.__all__)
    mixed_precision.set_global_policy("mixed_float16")
    assert mixed_precision.global_policy() == mixed_precision.Policy("mixed_float16") == config.dtype_policy()
    assert ul.DTypePolicy() == "mixed_float16"


def test_the_default_policy() -> None:
    before = L.Dense(2)
    with config.dtype_scope("mixed_bfloat16"):
        during = L.Dense(2)
        assert (config.floatx(), config.dtype_policy()) == ("float32", "mixed_bfloat16")
        with config.dtype_scope("float64"):
            assert (config.floatx(), config.dtype_policy(), L.Dense(2).dtype) == ("float64", "float64", "float64")
        with config.dtype_scope(None):
            assert config.dtype_policy() == "mixed_bfloat16"
    config.set_dtype_policy("float64")
    after = L.Dense(2)
    assert config.floatx() == "float32" and ul.Input((2,)).dtype == "float32"  # as in Keras
    x = np.ones((1, 2), "float32")
    for layer, wanted in ((before, "float32"), (during, "mixed_bfloat16"), (after, "float64")):
        layer.build((None, 2))
        assert layer.dtype_policy == wanted and layer.kernel.dtype == layer.variable_dtype
        assert L.Dense.from_config(layer.get_config()).dtype_policy == wanted  # whatever the default is by now
    assert ops.dtype_of(before(x)) == "float32" and ops.dtype_of(after(x)) == "float64"


# ---- layers -------------------------------------------------------------------


@each_policy
def test_dtypes_of_a_layer_are_those_of_keras(policy: str) -> None:
    layers = [m.Dense(2, dtype=p) for m, p in ((L, policy), (L, ul.DTypePolicy(policy)), (keras.layers, policy))]
    for layer in layers:
        layer.build((None, 3))
    for name in ("dtype", "variable_dtype", "compute_dtype", "input_dtype"):
        assert len({getattr(layer, name) for layer in layers}) == 1, name
    for layer in layers:
        assert layer.dtype_policy.name == policy
        assert [keras.backend.standardize_dtype(v.dtype) for v in layer.weights] == [layer.variable_dtype] * 2
        assert layer.get_config()["dtype"] == policy or layer is layers[2]


def test_a_layer_takes_the_policy_around_it() -> None:
    inner, own = L.Dense(2), L.Dense(3, dtype="float64")
    model = ul.Sequential([ul.Input((4,)), inner, own], dtype="mixed_float16")
    assert (inner.dtype_policy, own.dtype_policy, model.dtype_policy) == ("mixed_float16", "float64", "mixed_float16")
    assert [v.dtype for v in model.weights] == ["float32", "float32", "float64", "float64"]
    assert [inner.get_config()["dtype"], own.get_config()["dtype"]] == [None, "float64"]
    inner.dtype_policy = "float32"
    assert ops.dtype_of(inner(np.ones((1, 4), "float16"))) == "float32"


def test_weights_are_cast_where_a_layer_reads_them() -> None:
    """In ``call`` and nowhere else, unless the weight or the layer says no; as in Keras, inside of a model."""

    def made(module: Any, base: Any, **kwargs: Any) -> Any:
        class Reads(base):  # type: ignore[misc]
            def build(self, shape: Any) -> None:
                self.cast = self.add_weight(shape=(2,), initializer="ones", name="cast")
                self.kept = self.add_weight(shape=(2,), initializer="ones", name="kept", autocast=False)
                self.count = self.add_weight(shape=(), initializer="zeros", dtype="int32", trainable=False)

            def call(self, x: Any) -> Any:
                values = (x, self.cast, self.kept, self.count, self.cast * 2.0)
                self.seen = [keras.backend.standardize_dtype(getattr(v, "dtype", None)) for v in values]
                return x * self.cast

        module.config.set_dtype_policy("mixed_float16")
        layer = Reads(**kwargs)
        module.Sequential([module.Input((2,)), layer])(np.ones((1, 2), "float32"))
        assert keras.backend.standardize_dtype(layer.cast.dtype) == "float32"
        return layer.seen

    for kwargs in ({}, {"autocast": False}):
        assert made(ul, L.Layer, **kwargs) == made(keras, keras.layers.Layer, **kwargs)
    assert made(ul, L.Layer) == ["float16", "float16", "float32", "int32", "float16"]


def test_named_arguments_are_cast_too() -> None:
    class Both(L.Layer):
        def call(self, x: Any, more: Any = None, training: bool = False) -> Any:
            assert [ops.dtype_of(v) for v in (x, more["a"], more["b"])] == ["float16", "float16", "int32"]
            return x

    ones = np.ones(2, "float32")
    Both(dtype="mixed_float16")(ones, more={"a": ones, "b": ones.astype("int32")}, training=True)


NORMS = ("BatchNormalization", "LayerNormalization", "GroupNormalization", "RMSNormalization", "UnitNormalization")


@pytest.mark.parametrize("policy", ["float16", "mixed_float16"])
@pytest.mark.parametrize("name", NORMS)
def test_statistics_are_in_float32(name: str, policy: str) -> None:
    """Squares of these numbers overflow float16."""
    x = np.array([[1000.0, -2000.0, 3000.0, 500.0], [-700.0, 0.0, 5000.0, 100.0]], "float32")
    kwargs = {"groups": 2} if name == "GroupNormalization" else {}
    call = {"training": True} if name == "BatchNormalization" else {}
    exact, short = (getattr(L, name)(**kwargs, dtype=p)(x, **call) for p in ("float32", policy))
    assert_close(short, exact.astype("float16"), rtol=2e-3, atol=2e-3, what=name)


def test_spectral_normalization_divides_the_weight_itself() -> None:
    layers = [L.SpectralNormalization(L.Dense(3), dtype=p, name="same") for p in ("float32", "mixed_float16")]
    for layer in layers:
        layer(np.ones((1, 4), "float32"), training=True)
    kernels = [layer.layer.kernel.numpy() for layer in layers]
    assert_close(kernels[1], kernels[0], rtol=1e-5, atol=1e-6, what="kernel")


def _cases() -> Iterator[Any]:
    """Every layer with the cases of its own tests: name, constructor, inputs, and what else it is called with."""
    for case in test_layers.CASES:
        x, call = case.inputs(3, "float32"), {"training": True} if case.training else {}
        yield pytest.param(case.cls.__name__, case.kwargs, (x,), call, case.keras, id=str(case))
    for name, kwargs, inputs, call in test_attention.CASES:
        yield pytest.param(name, kwargs, inputs, call, True, id=f"{name}({kwargs}) {list(call)}")
    for name, kwargs in test_recurrent.ARGUMENTS:
        yield pytest.param(name, {"units": 6, **kwargs}, (test_recurrent.X,), {}, True, id=f"{name}({kwargs})")
    image, series = np.ones((2, 3, 6, 2), "float32"), np.ones((2, 3, 6, 5, 1), "float32")
    rng = np.random.default_rng(3)
    for name, x in (("ConvLSTM1D", image), ("ConvLSTM2D", series)):
        kwargs = {"filters": 2, "kernel_size": 3}
        yield pytest.param(name, kwargs, (rng.normal(size=x.shape).astype("float32"),), {}, True, id=name)
    for name, kwargs in (("TimeDistributed", {"layer": {"Dense": {"units": 2}}}),
                         ("Bidirectional", {"layer": {"GRU": {"units": 2}}})):  # fmt: skip
        yield pytest.param(name, kwargs, (test_recurrent.X,), {}, True, id=name)


CASES = list(_cases())
each_case = pytest.mark.parametrize(("name", "kwargs", "inputs", "call", "witness"), CASES)
# Cells are called by the layers around them; what is made of a framework's own module computes as that does; and
# preprocessing and random layers have no weights, and are below.
ELSEWHERE = {"convolutional_recurrent", "native", "preprocessing", "recurrent"}


def test_every_layer_has_a_case() -> None:
    parts = {cls.__name__: cls.__module__.split(".")[2] for cls in L.Layer.registry if _ours(cls)}
    assert {name for name, part in parts.items() if part not in ELSEWHERE} <= {case.values[0] for case in CASES}


def _ours(cls: type) -> bool:
    return cls.__module__.startswith("unilayers.layers.")


def traced(layer: L.Layer, inputs: Any, call: dict[str, Any]) -> tuple[Program, list[str], list[str]]:
    """Outputs, and the gradients of their summed squares by float inputs and weights, with the dtypes of both."""
    numbers = iter(range(99))

    def symbols() -> Any:
        return map_structure(lambda a: leaf("input", f"x{next(numbers)}", Spec(a.shape, a.dtype.name)), inputs)

    with trace_into(Trace()):
        layer(*symbols(), **call)
    trace = Trace(layer.variables)
    with trace_into(trace):
        values = symbols()
        found = leaves_of(layer(*values, **call))
        floats = [ops.astype(v, "float32") for v in found if is_float(v.dtype)]
        sources = [v for v in leaves_of(values) if is_float(v.dtype)]
        sources += [trace.read(v) for v in layer.trainable_weights]
        total = sum((ops.sum(v * v) for v in floats), start=ops.zeros(()))
        grads = gradients(total, sources) if sources else []
    outputs = {f"y{i}": v for i, v in enumerate(found)}
    outputs |= {f"gradient {i}": g for i, g in enumerate(grads) if g is not None}
    program = Program(trace.graph(leaves_of(values), outputs), trace.variables)
    return program, [v.dtype for v in found], [g.dtype for g in grads if g is not None]


def results(layer: L.Layer, inputs: Any, call: dict[str, Any], backend: Backend) -> dict[str, np.ndarray]:
    program, _, _ = traced(layer, inputs, call)
    outputs = program.run(program.place(backend, backend.device("cpu")), leaves_of(inputs))
    return {name: backend.get(array).astype("float64") for name, array in outputs.items()}


def set_random_weights(layer: L.Layer) -> list[np.ndarray]:
    """Positive where weights are scales, small elsewhere, so that recurrent layers do not leave float16."""
    rng = np.random.default_rng(1)
    scales = ("gamma", "variance", "scale")
    values = [
        rng.uniform(*((0.5, 1.5) if any(s in v.name for s in scales) else (-0.2, 0.4)), v.shape).astype("float32")
        for v in layer.weights
    ]
    layer.set_weights(values)
    return values


@each_mixed
@each_case
def test_every_layer_computes_in_the_dtype_that_keras_says(
    name: str, kwargs: dict[str, Any], inputs: Any, call: dict[str, Any], witness: bool, policy: str
) -> None:
    """Outputs as in Keras; weights, and the gradients by them and by float32 inputs, in float32."""
    layer = getattr(L, name)(**kwargs, dtype=policy)
    _, dtypes, of_gradients = traced(layer, inputs, call)
    assert {v.dtype for v in layer.weights} | set(of_gradients) <= {"float32"}
    if not witness or name == "AveragePooling3D":  # which Keras on torch has for float32 only
        assert set(dtypes) == {ul.DTypePolicy(policy).compute_dtype}
        return
    inner = {}
    if "layer" in kwargs:
        ((cls, arguments),) = kwargs["layer"].items()
        inner = {"layer": getattr(keras.layers, cls)(**arguments, dtype=policy)}
    theirs = getattr(keras.layers, name)(**{**kwargs, **inner}, dtype=policy)
    known = inspect.signature(theirs.call).parameters
    y = theirs(*map_structure(keras.ops.convert_to_tensor, inputs), **{k: v for k, v in call.items() if k in known})
    assert dtypes == [keras.backend.standardize_dtype(v.dtype) for v in leaves_of(y)]


@each_backend
@each_mixed
@each_case
def test_every_layer_is_close_to_float32(
    backend: Backend, name: str, kwargs: dict[str, Any], inputs: Any, call: dict[str, Any], witness: bool, policy: str
) -> None:
    require_dtype(backend, policy)
    exact, layer = (getattr(L, name)(**kwargs, dtype=p) for p in ("float32", policy))
    for made in (exact, layer):
        traced(made, inputs, call)
    layer.set_weights(set_random_weights(exact))
    wanted, found = results(exact, inputs, call, get_backend("numpy")), results(layer, inputs, call, backend)
    assert wanted.keys() == found.keys()
    rounding = ROUNDING[layer.compute_dtype]
    size = max([1.0, *(float(np.abs(v).max(initial=0.0)) for v in wanted.values())])
    for key, value in wanted.items():
        kinks = policy == "mixed_bfloat16" and key[0] == "g" and name in ("ReLU", "AdaptiveMaxPooling2D")
        if not kinks:  # where rounding decides which side of a kink, or which of two maxima it is
            near = 20 * rounding if key[0] == "y" else max(20 * rounding, 0.06)  # much cancels in gradients
            assert_close(found[key], value, rtol=near, atol=near * size, what=key)


RANDOM = {"GaussianNoise": {"stddev": 0.5}} | {
    name: {"rate": 0.3} for name in ("Dropout", "AlphaDropout", "GaussianDropout", "SpatialDropout1D")
}


@each_mixed
@pytest.mark.parametrize("name", RANDOM)
def test_random_layers_draw_the_same_in_all_dtypes(backend: Backend, name: str, policy: str) -> None:
    """What is dropped is the same; numbers with a distribution have the same one."""
    require_dtype(backend, policy)
    x = np.ones((200, 5, 4), "float32")
    exact, narrow = (
        results(getattr(L, name)(**RANDOM[name], dtype=p, name="same"), (x,), {"training": True}, backend)["y0"]
        for p in ("float32", policy)
    )
    assert abs(exact.mean() - narrow.mean()) < 0.02 and abs(exact.std() - narrow.std()) < 0.02
    if "Dropout" in name and name != "GaussianDropout":
        assert np.mean((np.abs(exact - exact.max()) < 0.01) == (np.abs(narrow - narrow.max()) < 0.01)) > 0.99


@each_mixed
@pytest.mark.parametrize("case", test_preprocessing.NUMBERS, ids=str)
def test_preprocessing_gives_the_dtypes_of_keras(case: Any, policy: str) -> None:
    """Numbers in the dtype of computation, but the same digits; categories as numbers that count exactly."""
    if not case.keras or "Lookup" in case.cls.__name__:  # Keras gives lookups' vectors as int64
        return
    exact, mine = case.cls(**case.kwargs), case.cls(**case.kwargs, dtype=policy)
    theirs = getattr(keras.layers, case.cls.__name__)(
        **case.kwargs, **({} if case.cls.__name__ == "Hashing" else {"dtype": policy})
    )
    for layer in (exact, mine, theirs) if case.data is not None else ():
        layer.adapt(case.data)
    x = require_backend("torch").put([case.x], "cpu")[0]
    y = mine(x)
    assert ops.dtype_of(y) == keras.backend.standardize_dtype(theirs(case.x).dtype)
    wanted = ops.to_numpy(exact(case.x))
    size = max(1.0, float(np.abs(wanted).max()))
    if size < 65504:  # what float16 holds
        near = 2 * ROUNDING[mine.compute_dtype] * size
        assert_close(ops.to_numpy(y).astype(wanted.dtype), wanted, rtol=0, atol=near, what="y")


# ---- training -----------------------------------------------------------------

RNG = np.random.default_rng(0)
X = RNG.normal(size=(64, 8, 8, 2)).astype("float32")
Y = RNG.integers(0, 4, 64).astype("int32")


def stack(module: Any, last: str | None = None) -> Any:
    layers = module.layers
    return module.Sequential(
        [
            module.Input((8, 8, 2)), layers.Conv2D(6, 3, activation="relu"), layers.BatchNormalization(),
            layers.MaxPooling2D(), layers.Flatten(), layers.Dense(16, activation="relu"),
            layers.LayerNormalization(), layers.Dense(4, dtype=last),
        ]
    )  # fmt: skip


def under(policy: str, module: Any, **kwargs: Any) -> Any:
    """The model, made while that is the default policy."""
    module.config.set_dtype_policy(policy)
    try:
        return stack(module, **kwargs)
    finally:
        module.config.set_dtype_policy("float32")


def compiled(model: Any, module: Any, **kwargs: Any) -> Any:
    loss = module.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(module.optimizers.Adam(0.01), loss, metrics=["accuracy"], **kwargs)
    return model


def losses(model: Any, epochs: int = 4, **kwargs: Any) -> np.ndarray:
    history = model.fit(X, Y, batch_size=16, epochs=epochs, shuffle=False, verbose=0, **kwargs)
    return np.array(history.history["loss"])


@pytest.fixture(scope="module", params=MIXED)
def witness(request: pytest.FixtureRequest) -> Any:
    """Keras's model under a policy: the policy, the first weights, and the losses of training."""
    model = compiled(under(request.param, keras), keras)
    weights = model.get_weights()
    return request.param, weights, losses(model), type(model.optimizer).__name__


@pytest.mark.parametrize("run_eagerly", [False, True])
def test_training_is_that_of_keras(backend: Backend, witness: Any, run_eagerly: bool) -> None:
    policy, weights, expected, optimizer = witness
    require_dtype(backend, policy)
    model = under(policy, ul)
    model.set_weights(weights)
    compiled(model, ul, run_eagerly=run_eagerly)
    found = losses(model, backend=backend)
    assert_close(found, expected, rtol=2 * ROUNDING[model.compute_dtype] * len(expected), atol=0, what="losses")
    assert found[-1] < 0.7 * found[0] and type(model.optimizer).__name__ == optimizer
    assert {v.spec.dtype for v in model.weights} == {"float32"}


@each_policy
def test_every_policy_trains(backend: Backend, policy: str) -> None:
    """Also where the weights themselves are short, which is no way to train for long."""
    require_dtype(backend, policy)
    model = under(policy, ul)
    model.compile(SGD(0.05), ul.losses.SparseCategoricalCrossentropy(from_logits=True))
    found = losses(model, backend=backend)
    assert found[-1] < 0.9 * found[0]
    assert {v.spec.dtype for v in model.weights} == {model.variable_dtype}


def test_backends_agree_in_float64() -> None:
    model = compiled(under("float64", ul), ul)
    weights = model.get_weights()
    expected = losses(model, backend="numpy")
    assert model.predict(X[:2]).dtype == "float64"
    for name in BACKENDS[1:]:
        require_backend(name)
        other = under("float64", ul)
        other.set_weights(weights)
        assert_close(losses(compiled(other, ul), backend=name), expected, rtol=1e-9, atol=0, what=name)


@each_mixed
def test_outputs_are_short_unless_the_last_layer_is_not(backend: Backend, policy: str) -> None:
    require_dtype(backend, policy)
    model, wide = under(policy, ul), under(policy, ul, last="float32")
    assert wide.output_shape == model.output_shape
    y = model.predict(X[:3], backend=backend)
    assert y.dtype == ("float16" if policy == "mixed_float16" else "float32")  # NumPy has no bfloat16
    assert (y.astype("float32") == ops.to_numpy(ops.astype(y, "float16"))).all() or policy == "mixed_bfloat16"
    assert wide.predict(X[:3], backend=backend).dtype == "float32"
    inputs = backend.put([X[:3]], backend.device("cpu"))[0]
    assert [ops.dtype_of(m(inputs)) for m in (model, wide)] == [model.compute_dtype, "float32"]


def test_data_are_not_rounded_on_their_way_to_the_layers(backend: Backend) -> None:
    """A model does not cast its inputs, its layers do: large indices and float32 layers get all digits."""
    model = ul.Sequential([ul.Input((1,)), L.Identity(dtype="float32")], dtype="mixed_float16")
    assert model.predict(np.array([[2049.0]]), backend=backend) == 2049
    table = ul.Sequential([ul.Input((1,)), L.Embedding(3000, 1)], dtype="mixed_float16")
    rows = table.get_weights()[0]
    assert_close(
        table.predict(np.array([[2049.0]], "float32"), backend=backend)[0, 0], rows[2049].astype("float16"),
        rtol=0, atol=0, what="row",
    )  # fmt: skip


def test_pytorch_alone_computes_in_bfloat16() -> None:
    """Without the package that teaches NumPy the name, in a process of its own: layers of all kinds, traced and not."""
    code = """
import sys
sys.modules["ml_dtypes"] = sys.modules["tensorflow"] = sys.modules["jax"] = None
import numpy as np, torch
import unilayers as ul
from unilayers import layers as L, ops
for eager in (False, True):
    x = ul.Input((6, 4))
    y = L.LayerNormalization()(L.LSTM(4, return_sequences=True)(L.Rescaling(2.0, 0.5)(x)) * 2.0 + x)
    y = L.MultiHeadAttention(2, 2)(y, y, use_causal_mask=True)
    y = L.Dense(1)(L.Dropout(0.1)(L.Flatten()(L.Conv1D(3, 2, activation="gelu")(L.GRU(3, return_sequences=True)(y)))))
    model = ul.Model(x, L.BatchNormalization()(y), dtype="mixed_bfloat16")
    model.compile("adam", "mse", run_eagerly=eager)
    data = np.linspace(-1, 1, 16 * 24).reshape(16, 6, 4)
    losses = model.fit(data, data[:, 0, :1], epochs=12, verbose=0, backend="torch").history["loss"]
    assert losses[-1] < losses[0], losses
    print(model.predict(data).dtype, ops.dtype_of(model(torch.tensor(data))))
model = ul.Sequential([ul.Input((3,)), L.Dense(2)], dtype="bfloat16")
model.compile(ul.optimizers.SGD(0.1), "mse")
model.fit(np.ones((4, 3)), np.ones((4, 2)), verbose=0, backend="torch")
print(model.weights[0].numpy().dtype)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)
    assert done.stdout.split() == ["float32", "bfloat16"] * 2 + ["float32"], done.stdout + done.stderr


def test_numpy_says_what_to_use_instead_of_bfloat16() -> None:
    message = r"NumPy has no dtype 'bfloat16'.*Use float32 or mixed_float16 here, or another backend for bfloat16"
    model = compiled(under("mixed_bfloat16", ul), ul)
    for call in (lambda: losses(model, backend="numpy"), lambda: L.Dense(2, dtype="mixed_bfloat16")(X[0])):
        with pytest.raises(BackendError, match=message):
            call()


@each_mixed
def test_a_step_of_ones_own(backend: Backend, policy: str) -> None:
    """A model that writes its layers, its call and its step itself; traced, and op by op twice so that it is noted."""
    require_dtype(backend, policy)

    class Scale(L.Layer):
        def build(self, shape: Any) -> None:
            self.factor = self.add_weight(shape=(shape[-1],), initializer="ones", name="factor")

        def call(self, x: Any) -> Any:
            assert self.factor.dtype == ops.dtype_of(x)
            return ops.multiply(x, ops.square(self.factor))

    class Own(ul.Model):
        def __init__(self) -> None:
            super().__init__(dtype=policy)
            self.scale, self.dense = Scale(), L.Dense(3)

        def call(self, x: Any) -> Any:
            return self.dense(ops.relu(self.scale(x)))

    class Stepping(Own):
        def train_step(self, data: Any) -> Any:
            x, y = data
            with GradientTape() as tape:
                loss = self.compute_loss(x, y, self(x, training=True))
                scaled = self.optimizer.scale_loss(loss)
            self.optimizer.apply(tape.gradient(scaled, self.trainable_weights), self.trainable_weights)
            return {"loss": loss}

    x, y = RNG.normal(size=(32, 5)).astype("float32"), RNG.normal(size=(32, 3)).astype("float32")
    found = []
    for cls, eager in ((Own, False), (Own, True), (Stepping, False), (Stepping, True)):
        model = cls()
        model.seed, model.name = 3, "own"
        model.compile(SGD(0.1), "mse", run_eagerly=eager)
        history = model.fit(x, y, batch_size=32, epochs=6, verbose=0, shuffle=False, backend=backend).history["loss"]
        assert history[-1] < history[0] and {v.spec.dtype for v in model.weights} == {"float32"}
        found.append(np.array(history))
    for other in found[1:]:
        assert_close(other, found[0], rtol=4 * ROUNDING[model.compute_dtype], atol=0, what="losses")


def test_noted_ops_read_weights_as_the_layer_does(backend: Backend) -> None:
    class Last(ul.Model):
        def build(self, shape: Any) -> None:
            self.w = self.add_weight(shape=(4,), initializer="ones", name="w")

        def call(self, x: Any) -> Any:
            return ops.multiply(x, self.w)

    model = Last(dtype="mixed_float16")
    model.run_eagerly = True
    for _ in range(3):
        y = model.predict(np.full((24, 4), 1 / 3, "float32"), batch_size=8, backend=backend)
        assert_close(y, np.full((24, 4), 1 / 3, "float16"), rtol=0, atol=0, what="y")


# ---- loss scaling ---------------------------------------------------------------


def test_loss_scaling_is_that_of_keras() -> None:
    """Weights, scale, and count of steps over good and bad gradients, up and down."""
    start = np.array([1.0, -2.0, 3.0], "float32")
    mine, theirs = Variable(start, name="w"), keras.Variable(start, name="w")
    settings = {"initial_scale": 16.0, "dynamic_growth_steps": 3}
    ours = LossScaleOptimizer(Adam(0.1), **settings)
    keras_one = keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(0.1), **settings)
    rng = np.random.default_rng(2)
    seen = []
    for step in range(16):
        g = rng.normal(size=3).astype("float32") * 16
        if step in (2, 9, 10):
            g[step % 3] = (np.inf, np.nan)[step % 2]
        ours.apply([g], [mine])
        keras_one.apply([keras.ops.convert_to_tensor(g)], [theirs])
        assert_close(mine.numpy(), theirs.numpy(), rtol=1e-5, atol=0, what=f"weights after step {step}")
        assert float(ours.dynamic_scale) == float(keras_one.dynamic_scale)
        assert int(ours.step_counter) == int(keras_one.step_counter)
        assert int(ours.iterations) == int(keras_one.iterations)
        seen.append(float(ours.dynamic_scale))
    assert min(seen) < 16 < max(seen)
    assert float(ours.scale_loss(np.float32(3))) == 3 * float(ours.dynamic_scale)


@pytest.mark.parametrize("run_eagerly", [False, True])
@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")
@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
def test_an_overflow_leaves_the_step_out(backend: Backend, run_eagerly: bool) -> None:
    """The scale starts far too high: it comes down until gradients are finite, and then training goes on."""
    model = under("mixed_float16", ul)
    optimizer = LossScaleOptimizer(SGD(0.05, momentum=0.9), initial_scale=2.0**24)
    loss = ul.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, run_eagerly=run_eagerly)
    assert model.optimizer is optimizer
    before = model.get_weights()
    model.train_on_batch(X, Y, backend=backend)
    assert float(optimizer.dynamic_scale) == 2.0**23 and int(optimizer.iterations) == 0
    for v, was in zip(model.weights, before, strict=True):
        if v.trainable:  # statistics of the batch count all the same
            assert_close(v.numpy(), was, rtol=0, atol=0, what=v.path)
    found = losses(model, epochs=10, backend=backend)
    assert float(optimizer.dynamic_scale) < 2.0**20 and np.isfinite(found).all() and found[-1] < 0.7 * found[0]
    assert int(optimizer.iterations) == 41 - round(24 - np.log2(float(optimizer.dynamic_scale)))


def test_small_gradients_need_the_scale(backend: Backend) -> None:
    """Without it they are zero in float16, and the weight stays."""
    changes = []
    for scaled in (True, False):
        model = ul.Sequential([ul.Input((1,)), L.Dense(1, use_bias=False)], dtype="mixed_float16")
        model.compile(SGD(1e6), lambda y, p: p * 1e-9, auto_scale_loss=scaled)
        before = model.get_weights()[0]
        model.train_on_batch(np.ones((1, 1), "float32"), np.ones((1, 1), "float32"), backend=backend)
        changes.append(before - model.get_weights()[0])
        assert isinstance(model.optimizer, LossScaleOptimizer) is scaled
    assert_close(changes[0], np.full((1, 1), 1e-3, "float32"), rtol=2e-2, atol=0, what="scaled")
    assert changes[1] == 0


def test_a_loss_scale_optimizer_is_the_one_inside() -> None:
    inner = Adam(0.1, use_ema=True, loss_scale_factor=8.0)
    optimizer = LossScaleOptimizer(inner)
    assert (optimizer.learning_rate, optimizer.use_ema, inner.loss_scale_factor) == (0.1, True, None)
    optimizer.learning_rate = 0.5
    assert inner.learning_rate == 0.5
    again = ul.optimizers.get(ul.registry.serialize(optimizer))
    assert type(again.inner_optimizer) is Adam and again.get_config() == optimizer.get_config()
    theirs = keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam())
    assert optimizer.get_config().keys() == theirs.get_config().keys()
    mine = list(inspect.signature(LossScaleOptimizer).parameters.values())
    known = list(inspect.signature(keras.optimizers.LossScaleOptimizer.__init__).parameters.values())[1:-1]
    assert [(p.name, p.default) for p in mine] == [(p.name, p.default) for p in known]
    v, w = Variable(np.ones(2), name="v"), Variable(np.ones(2), name="w")
    assert optimizer.variables == []
    optimizer.exclude_from_weight_decay([v])
    optimizer.build([v])
    optimizer.extend([w])
    assert not inner.may_decay(v) and len(optimizer.variables) == len(inner.variables) + 2
    for _ in range(2):  # the first one sets the averages
        optimizer.apply([np.ones(2), np.ones(2)], [v, w])
    moved = v.numpy()
    optimizer.swap_averages()
    assert not np.array_equal(v.numpy(), moved)
    optimizer.swap_averages()
    optimizer.finalize_variable_values([v])
    with pytest.raises(UnilayersError, match="no variable has a gradient"):
        optimizer.apply([None, None], [v, w])
    with pytest.raises(UnilayersError, match="initial_scale"):
        LossScaleOptimizer("sgd", initial_scale=0.0)


def test_gradients_are_added_up_inside(backend: Backend) -> None:
    """A conditional step in a conditional step, and averages, as without a scale."""
    weights = []
    for scaled in (False, True):
        model = ul.Sequential([ul.Input((3,)), L.Dense(2)], seed=1)
        inner = Adam(0.1, gradient_accumulation_steps=2, use_ema=True, clipnorm=1.0)
        model.compile(LossScaleOptimizer(inner, initial_scale=4.0, dynamic_growth_steps=2) if scaled else inner, "mse")
        x, y = np.linspace(-1, 1, 72, dtype="float32").reshape(24, 3), np.ones((24, 2), "float32")
        model.fit(x, y, batch_size=4, verbose=0, shuffle=False, backend=backend)
        weights.append(model.get_weights())
    assert float(model.optimizer.dynamic_scale) == 32
    for a, e in zip(*weights, strict=True):
        assert_close(a, e, rtol=1e-5, atol=1e-6, what="weights")


def test_callbacks_reach_the_inner_optimizer() -> None:
    model = ul.Sequential([ul.Input((1,)), L.Dense(1)], dtype="mixed_float16")
    model.compile(SGD(0.5), "mse")
    halve = ul.callbacks.LearningRateScheduler(lambda epoch, rate: rate / 2)
    model.fit(np.ones((4, 1)), np.ones((4, 1)), epochs=2, verbose=0, callbacks=[halve])
    assert model.optimizer.inner_optimizer.learning_rate == 0.125


# ---- keeping it -----------------------------------------------------------------


@each_mixed
@pytest.mark.parametrize("other", [b for b in BACKENDS if b != "numpy"])
def test_a_checkpoint_goes_on_elsewhere(tmp_path: Path, policy: str, other: str) -> None:
    """Policies of the model and of its last layer, the optimizer's scale and all weights, on another backend."""
    require_backend(other)
    first = "numpy" if policy == "mixed_float16" else "torch"
    model = compiled(under(policy, ul, last="float32"), ul)
    losses(model, epochs=1, backend=first)
    model.save(tmp_path / "m.safetensors")
    again = ul.load_model(tmp_path / "m.safetensors")
    assert [x.dtype_policy for x in again.layers] == [policy] * 6 + ["float32"] and again.dtype_policy == policy
    assert type(again.optimizer) is type(model.optimizer)
    assert again.get_config() == model.get_config()
    expected, found = losses(model, epochs=2, backend=first), losses(again, epochs=2, backend=other)
    assert_close(found, expected, rtol=4 * ROUNDING[model.compute_dtype], atol=0, what="losses")


@each_mixed
def test_a_copy_has_the_policies(policy: str) -> None:
    model = under(policy, ul, last="float32")
    x = ul.Input((3,))
    functional = ul.Model(x, L.Dense(2, dtype="float64")(L.Dense(4, dtype=policy)(x)), dtype=policy)
    for each in (model, functional):
        for again in (ul.models.clone_model(each), ul.models.model_from_json(each.to_json())):
            assert [y.dtype_policy for y in again.layers] == [y.dtype_policy for y in each.layers]
            assert again.dtype_policy == policy


def test_short_weights_are_saved(tmp_path: Path, backend: Backend) -> None:
    for policy in ("float16", "bfloat16"):
        if policy == "bfloat16" and backend.name == "numpy":
            continue
        model = compiled(under(policy, ul), ul)
        y = model.predict(X[:4], backend=backend)
        model.save_weights(tmp_path / "w.safetensors")
        other = under(policy, ul)
        other.load_weights(tmp_path / "w.safetensors")
        assert_close(other.predict(X[:4], backend=backend), y, rtol=0, atol=0, what="outputs")


@pytest.mark.parametrize("dtype", ["mixed_float16", "mixed_bfloat16"])
def test_a_recipe_in_mixed_precision(dtype: str) -> None:
    recipe = load_recipe("digits-mlp", [f"dtype={dtype}", "fit.epochs=2", "backend=torch"])
    assert recipe.dtype == dtype and recipe.changed().to_yaml() == recipe.to_yaml()
    model = recipe.build()
    assert {layer.compute_dtype for layer in model.layers} == {dtype.removeprefix("mixed_")}
    assert isinstance(model.optimizer, LossScaleOptimizer) is (dtype == "mixed_float16")
    data = recipe.parts()
    model.fit(*data.train, epochs=2, verbose=0)
    assert model.evaluate(*data.train, verbose=0, return_dict=True)["accuracy"] > 0.8


# ---- half arrays outside of layers ------------------------------------------------


HALVES = [d for d in FLOATS if d.endswith("16")]


@pytest.mark.parametrize("dtype", HALVES)
def test_functions_and_tapes_take_half_arrays(backend: Backend, dtype: str) -> None:
    require_dtype(backend, dtype)
    x = ops.astype(backend.put([np.array([1.0, 2.0, 3.0], "float32")], "cpu")[0], dtype)

    def f(x: Any) -> Any:
        return ops.sum(ops.sqrt(x * 2.0 + 1.0) * np.float32(0.5).item())

    with GradientTape() as tape:
        watched = tape.watch(x)
        y = f(watched)
    (g,) = tape.gradient(y, [watched])
    assert {ops.dtype_of(v) for v in (y, g, ul.function(f)(x), ul.grad(f)(x))} == {dtype}
    wanted = 0.5 / np.sqrt(2 * np.array([1.0, 2.0, 3.0]) + 1)
    for found in (g, ul.grad(f)(x), ul.function(ul.grad(f))(x)):
        assert_close(ops.to_numpy(found).astype("float64"), wanted, rtol=4 * ROUNDING[dtype], atol=0, what="gradient")


def test_a_function_is_traced_for_each_dtype_that_it_reads_weights_in() -> None:
    v = Variable(np.ones(2), name="v")
    twice = ul.function(lambda: v * 2.0)
    assert ops.dtype_of(twice()) == "float32"
    with autocast("float16"):
        assert ops.dtype_of(twice()) == "float16"
    assert ops.dtype_of(twice()) == "float32"


@pytest.mark.parametrize("dtype", HALVES)
def test_constants_and_state_of_a_graph(backend: Backend, dtype: str) -> None:
    """Also folded, saved and read again, and in the body of a loop."""
    require_dtype(backend, dtype)
    w, x = leaf("state", "w", Spec((2,), dtype)), leaf("input", "x", Spec((2,), dtype))
    with tracing():
        factor = ops.sqrt(ops.full((2,), 9.0, dtype))
        (y,) = ops.while_loop(lambda v: ops.sum(v) < 100.0, lambda v: (v * 2.0,), (x * factor + w,))
        graph = Graph((x,), (w,), {"y": y}, {"w": w + 0.5})
    arrays = [np.array(v, "float32") for v in ([1.0, 2.0], [0.5, 0.25])]
    for each in (graph, from_json(to_json(graph))):
        given = backend.put_as(arrays, [dtype, dtype], "cpu")
        state, outputs = compile_graph(each, backend, "cpu")(given[:1], given[1:])
        assert ops.dtype_of(outputs["y"]) == ops.dtype_of(state[0]) == dtype
        assert_close(
            backend.get(outputs["y"]).astype("float32"), np.array([80.0, 88.0], "float32"), rtol=0, atol=0, what="y"
        )
        assert_close(backend.get(state[0]).astype("float32"), arrays[0] + 0.5, rtol=0, atol=0, what="w")


@pytest.mark.parametrize("dtype", HALVES)
def test_half_variables(backend: Backend, dtype: str) -> None:
    require_dtype(backend, dtype)
    v = Variable(np.array([1.0, 2.0]), dtype=dtype, name="v")
    x = ops.astype(backend.put([np.ones(2, "float32")], "cpu")[0], dtype)
    assert ops.dtype_of(ops.add(x, v)) == dtype
    v.assign(ops.add(x, v))
    v.assign_add(x)
    assert_close(v.numpy().astype("float32"), np.array([3.0, 4.0], "float32"), rtol=0, atol=0, what="v")
    assert (v.dtype, v.numpy().dtype.name) == (dtype, "float16" if dtype == "float16" else "float32")


@each_mixed
def test_folded_calls_read_weights_as_layers_do(policy: str) -> None:
    """A layer and a variable of one's own, in a function whose calls are batched behind its back."""
    torch_backend = require_backend("torch")
    dense = L.Dense(3, dtype=policy)

    class Own(L.Layer):
        def build(self, shape: Any) -> None:
            self.w = self.add_weight(shape=(3,), initializer="ones", name="w")

        def call(self, holder: Any) -> Any:
            return ops.multiply(ops.tanh(holder.x), self.w)

    class Holder:  # no array, so that what is done with it is noted op by op
        def __init__(self, x: Any) -> None:
            self.x = x

    own = Own(dtype=policy)
    own.build(None)
    own.built = True

    def total(x: Any) -> Any:
        return ops.sum(own(Holder(dense(x))))

    xs = torch_backend.put([row[None] for row in RNG.normal(size=(5, 4)).astype("float32")], "cpu")
    rounding = ROUNDING[dense.compute_dtype]
    for plain, folded in zip([total(x) for x in xs], ul.fold(total, xs), strict=True):
        assert ops.dtype_of(plain) == ops.dtype_of(folded) == dense.compute_dtype
        assert_close(ops.to_numpy(folded), ops.to_numpy(plain), rtol=8 * rounding, atol=8 * rounding, what="total")


def test_bfloat16_goes_from_backend_to_backend() -> None:
    there = [require_backend(b) for b in BACKENDS if b != "numpy"]
    values = np.array([1.0, 2.5, -3.0], "float32")
    for a in there:
        (x,) = a.put_as([values], ["bfloat16"], "cpu")
        for b in there:
            y = ul.function(lambda v: v * 2.0, backend=b.name)(x)
            assert b.device_of(y) == "cpu" and ops.dtype_of(y) == "bfloat16"
            assert_close(ops.to_numpy(y), 2 * values, rtol=0, atol=0, what=f"{a.name} to {b.name}")
