"""Sequential, functional and subclassed models: shapes, names, sharing, nesting, configs, saving."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import unilayers as ul
from tests.compare import assert_close
from tests.conftest import BACKENDS, require_backend
from unilayers import layers, models, ops
from unilayers.errors import CheckpointError, GraphError, ShapeError, UnilayersError
from unilayers.registry import serialize

RNG = np.random.default_rng(0)
LOGITS = ul.losses.SparseCategoricalCrossentropy(from_logits=True)
X = RNG.normal(size=(12, 6)).astype("float32")
Y = RNG.integers(0, 3, 12).astype("int32")


def sequential() -> ul.Model:
    return ul.Sequential(
        [
            ul.Input((6,)),
            layers.Dense(5, activation="relu"),
            layers.BatchNormalization(),
            layers.Dropout(0.3),
            layers.Dense(3),
        ],
        seed=3,
    )


def functional() -> ul.Model:
    x = ul.Input((6,))
    h = layers.Dense(5, activation="relu")(x)
    h = layers.Dropout(0.3)(layers.BatchNormalization()(h))
    return ul.Model(x, layers.Dense(3)(h), seed=3)


class Net(ul.Model):
    """The same network, written as a class."""

    def __init__(self, hidden: int = 5, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.first = layers.Dense(hidden, activation="relu")
        self.norm = layers.BatchNormalization()
        self.drop = layers.Dropout(0.3)
        self.last = layers.Dense(3)

    def call(self, x: object) -> object:
        return self.last(self.drop(self.norm(self.first(x))))


def residual() -> ul.Model:
    """Ops between layers, a shared layer, a nested model."""
    x = ul.Input((6,))
    shared = layers.Dense(6, activation="tanh")
    inner = ul.Sequential([layers.Dense(6), layers.ReLU()], name="inner")
    h = shared(x) + shared(shared(x)) * 0.5
    h = ops.concat([inner(h), h[:, ::2]], axis=1)
    return ul.Model(x, layers.Dense(3)(ops.reshape(h, (-1, 9))), seed=3)


MODELS = [sequential, functional, Net, residual]


def compiled(make: Callable[..., ul.Model], **kwargs: object) -> ul.Model:
    model = make() if make is not Net else Net(seed=3)
    model.compile("adam", LOGITS, metrics=["accuracy"], **kwargs)
    return model


def test_three_ways_of_writing_a_model_train_alike() -> None:
    """Initial values, masks and order depend on names and the seed, not on how the model was put together."""
    runs = []
    for make in (sequential, functional, Net):
        model = compiled(make)
        history = model.fit(X, Y, epochs=3, batch_size=5, verbose=0)
        runs.append((history.history["loss"], model.get_weights()))
    for losses, weights in runs[1:]:
        assert losses == runs[0][0]
        for mine, theirs in zip(weights, runs[0][1], strict=True):
            np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize("make", MODELS)
def test_eager_call_equals_predict(make: Callable[..., ul.Model]) -> None:
    model = make() if make is not Net else Net(seed=3)
    assert_close(np.asarray(model(X)), model.predict(X, verbose=0), rtol=1e-6, atol=1e-6, what="eager")


@pytest.mark.parametrize("make", MODELS)
def test_training_lowers_the_loss(make: Callable[..., ul.Model]) -> None:
    model = compiled(make)
    history = model.fit(X, Y, epochs=30, batch_size=4, verbose=0).history
    assert history["loss"][-1] < 0.8 * history["loss"][0]
    assert set(history) == {"loss", "accuracy"}


@pytest.mark.parametrize("make", MODELS)
def test_saved_models_go_on_with_the_same_bits(make: Callable[..., ul.Model], tmp_path: object) -> None:
    model = compiled(make)
    model.fit(X, Y, epochs=2, batch_size=5, verbose=0)
    model.save(tmp_path / "model.safetensors")
    again = ul.load_model(tmp_path / "model.safetensors")
    np.testing.assert_array_equal(again.predict(X, verbose=0), model.predict(X, verbose=0))
    assert again.position == model.position
    assert json.dumps(serialize(again)) == json.dumps(serialize(model))
    first = model.fit(X, Y, epochs=2, batch_size=5, verbose=0).history["loss"]
    assert again.fit(X, Y, epochs=2, batch_size=5, verbose=0).history["loss"] == first


def test_names_and_shapes() -> None:
    model = ul.Sequential(
        [ul.Input((8, 8, 1)), layers.Conv2D(4, 3), layers.Conv2D(4, 3), layers.Flatten(), layers.Dense(2)]
    )
    assert [x.name for x in model.layers] == ["conv2d", "conv2d_1", "flatten", "dense"]
    assert [v.path for v in model.weights][:2] == ["conv2d/kernel", "conv2d/bias"]
    assert model.input_shape == (None, 8, 8, 1)
    assert model.output_shape == (None, 2)
    assert model.count_params() == sum(w.size for w in model.get_weights())


def test_summary_lists_layers_shapes_and_counts(capsys: pytest.CaptureFixture[str]) -> None:
    sequential().summary()
    text = capsys.readouterr().out
    assert "dense (Dense)" in text
    assert "(None, 3)" in text
    assert "Total params: 73 (trainable 63, fixed 10)" in text


def nested() -> ul.Model:
    inner = ul.Sequential([ul.Input((6,)), layers.Dense(4), layers.Dense(6)], name="inner")
    x = ul.Input((6,))
    model = ul.Model(x, layers.Dense(3)(layers.ReLU()(inner(x))), name="outer")
    inner.layers[0].trainable = False
    return model


def summary(model: ul.Model, **told: object) -> list[str]:
    lines: list[str] = []
    model.summary(print_fn=lines.append, **told)
    return "\n".join(lines).splitlines()


def test_summary_of_nested_models_and_frozen_layers() -> None:
    assert [line.split()[0] for line in summary(nested())[4:8]] == ["input", "inner", "re_lu", "dense"]
    lines = summary(nested(), expand_nested=True, show_trainable=True)
    assert [tuple(line.split()) for line in lines[4:10]] == [
        ("input", "(InputLayer)", "(None,", "6)", "0", "-"),
        ("inner", "(Sequential)", "(None,", "6)", "58", "Y"),
        ("dense", "(Dense)", "(None,", "4)", "28", "N"),
        ("dense_1", "(Dense)", "(None,", "6)", "30", "Y"),
        ("re_lu", "(ReLU)", "(None,", "6)", "0", "-"),
        ("dense", "(Dense)", "(None,", "3)", "21", "Y"),
    ]
    assert lines[6].startswith("  dense") and "(trainable 51, fixed 28)" in lines[-1]


def test_summary_of_some_layers() -> None:
    assert [line.split()[0] for line in summary(nested(), layer_range=["re_lu", "dense"])[4:-2]] == ["re_lu", "dense"]
    assert [line.split()[0] for line in summary(nested(), layer_range=["inner", "re.*"])[4:-2]] == ["inner", "re_lu"]
    for wrong, message in (
        (["inner"], "not a range"),
        (["inner", "x"], "no layer 'x'. Layers: input, inner, re_lu, dense"),
    ):
        with pytest.raises(UnilayersError, match=message):
            summary(nested(), layer_range=wrong)


def test_widths_of_a_summary() -> None:
    wide = summary(nested(), line_length=90)
    assert {len(line) for line in wide[1:-1]} == {90}
    narrow = summary(nested(), line_length=32)
    assert {len(line) for line in narrow[1:-1]} == {32} and "…" in narrow[4]
    placed = summary(nested(), line_length=60, positions=[0.5, 0.8, 1.0])
    assert placed[2].index("Output") == 32 and {len(line) for line in placed[1:-1]} == {60}
    with pytest.raises(UnilayersError, match="positions do not fit"):
        summary(nested(), positions=[0.5, 0.4, 1.0])


def test_summary_of_a_model_built_from_data() -> None:
    model = Net()
    assert [line.split("  ")[1:2] for line in summary(model)[4:5]] != [["(None, 5)"]]
    model.predict(X, verbose=0)
    assert ["(None, 5)" in line for line in summary(model)[4:8]] == [True, True, True, False]


class Deciding(Net):
    """A model whose Python looks at numbers."""

    def call(self, x: object) -> object:
        return super().call(x if ops.sum(x) > 0 else -x)


def test_summary_of_a_model_that_cannot_be_traced() -> None:
    model = Deciding()
    model.run_eagerly = True
    model.predict(X, verbose=0)
    assert [line.split()[2] for line in summary(model)[4:6]] == ["?", "?"]


def test_initial_values_do_not_depend_on_what_was_built_before() -> None:
    alone = sequential().get_weights()
    layers.Dense(7)(X)
    ul.Sequential([ul.Input((6,)), layers.Dense(2)]).get_weights()
    for a, b in zip(alone, sequential().get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_seed_changes_initial_values() -> None:
    ul.set_random_seed(0)
    first = ul.Sequential([ul.Input((6,)), layers.Dense(4)]).get_weights()[0]
    ul.set_random_seed(7)
    try:
        second = ul.Sequential([ul.Input((6,)), layers.Dense(4)]).get_weights()[0]
    finally:
        ul.set_random_seed(0)
    assert not np.array_equal(first, second)


# ---- several inputs and outputs ---------------------------------------------------


def two_by_two() -> ul.Model:
    a, b = ul.Input((6,), name="a"), ul.Input((4,), name="b")
    h = layers.Concatenate()([layers.Dense(5)(a), b])
    return ul.Model([a, b], [layers.Dense(3, name="kind")(h), layers.Dense(1, name="size")(h)])


DATA = [X, RNG.normal(size=(12, 4)).astype("float32")]
TARGETS = [Y, RNG.normal(size=(12, 1)).astype("float32")]


@pytest.mark.parametrize(
    ("x", "y", "loss", "metrics"),
    [
        (DATA, TARGETS, [LOGITS, "mse"], [["accuracy"], ["mae"]]),
        (
            {"a": DATA[0], "b": DATA[1]},
            {"kind": TARGETS[0], "size": TARGETS[1]},
            {"size": "mse", "kind": LOGITS},
            {"kind": ["accuracy"], "size": ["mae"]},
        ),
    ],
    ids=["lists", "dicts"],
)
def test_several_inputs_and_outputs(x: object, y: object, loss: object, metrics: object) -> None:
    model = two_by_two()
    model.compile("sgd", loss, metrics=metrics, loss_weights=[1.0, 0.5])
    history = model.fit(x, y, epochs=2, batch_size=5, verbose=0).history
    assert set(history) == {"loss", "kind_accuracy", "size_mean_absolute_error"} or set(history) == {
        "loss",
        "kind_accuracy",
        "size_mae",
    }
    kind, size = model.predict(x, verbose=0)
    assert kind.shape == (12, 3)
    assert size.shape == (12, 1)


def test_one_output_of_two_may_have_no_loss() -> None:
    model = two_by_two()
    model.compile("sgd", {"size": "mse"})
    assert model.train_on_batch(DATA, {"size": TARGETS[1]}) > 0


def test_multi_input_config_round_trip(tmp_path: object) -> None:
    model = two_by_two()
    model.save(tmp_path / "m.safetensors")
    for a, b in zip(
        ul.load_model(tmp_path / "m.safetensors").predict(DATA, verbose=0), model.predict(DATA, verbose=0), strict=True
    ):
        np.testing.assert_array_equal(a, b)


# ---- freezing, extra losses, sharing ------------------------------------------------


def test_frozen_layers_keep_their_weights() -> None:
    model = sequential()
    model.layers[0].trainable = False
    model.compile("sgd", LOGITS)
    before = model.get_weights()
    model.fit(X, Y, epochs=1, verbose=0)
    after = model.get_weights()
    np.testing.assert_array_equal(before[0], after[0])
    assert not np.array_equal(before[-2], after[-2])


def test_regularizers_add_to_the_loss() -> None:
    model = ul.Sequential([ul.Input((6,)), layers.Dense(1, kernel_regularizer=ul.regularizers.L2(0.5), use_bias=False)])
    model.compile("sgd", "mse")
    kernel = model.get_weights()[0]
    plain = float(np.mean((X @ kernel - 1.0) ** 2))
    found = model.test_on_batch(X, np.ones((12, 1), "float32"))
    assert_close(np.float64(found), np.float64(plain + 0.5 * np.sum(kernel**2)), rtol=1e-5, atol=0, what="loss")


def test_add_loss_is_minimised() -> None:
    class Bounded(layers.Layer):
        def call(self, x: object) -> object:
            self.add_loss(ops.mean(ops.square(x)))
            return x

    model = ul.Sequential([ul.Input((6,)), layers.Dense(2), Bounded()])
    model.compile("sgd")
    losses = model.fit(X, epochs=5, verbose=0).history["loss"]
    assert losses[-1] < losses[0]


def test_a_layer_may_serve_two_models() -> None:
    x = ul.Input((6,))
    shared = layers.Dense(4)
    h = shared(x)
    first, second = ul.Model(x, layers.Dense(3)(h)), ul.Model(x, layers.Dense(2)(h))
    first.compile("sgd", LOGITS)
    first.fit(X, Y, epochs=1, verbose=0)
    np.testing.assert_array_equal(first.layers[1].get_weights()[0], second.layers[1].get_weights()[0])
    assert second.predict(X, verbose=0).shape == (12, 2)


# ---- what is inside a model --------------------------------------------------------


def inside(module: Any) -> tuple[Any, Any]:
    """A stack and a graph with branches of different depth, two inputs and a layer used twice."""
    k = module.layers
    stack = module.Sequential([k.Input((6,)), k.Dense(4, name="a"), k.Dense(3, name="b")])
    x, z = k.Input((6,), name="x"), k.Input((4,), name="z")
    shared = k.Dense(4, name="shared")
    long = k.Dense(6, name="second")(k.Dense(6, name="first")(x))
    joined = k.Add(name="sum")([shared(x), shared(long), k.Activation("tanh", name="short")(z)])
    return stack, module.Model([x, z], [k.Dense(2, name="out")(joined), k.Dense(1, name="early")(long)])


def test_layers_stand_in_the_order_of_keras() -> None:
    keras = pytest.importorskip("keras")
    for mine, theirs in zip(inside(ul), inside(keras), strict=True):
        assert [x.name for x in mine.layers] == [x.name for x in theirs.layers]
        assert [type(x).__name__ for x in mine.layers] == [type(x).__name__ for x in theirs.layers]


def test_outputs_of_inner_layers_make_a_model() -> None:
    stack, graph = inside(ul)
    x, z = RNG.normal(size=(5, 6)).astype("float32"), RNG.normal(size=(5, 4)).astype("float32")
    first, last = ul.Model(stack.inputs, [layer.output for layer in stack.layers]).predict(x)
    same(last, stack.predict(x), "last")
    same(first, stack.layers[0](x), "first")
    part = ul.Model(graph.input, graph.get_layer("sum").output)
    shared, long = graph.get_layer("shared"), graph.get_layer("second")(graph.get_layer("first")(x))
    same(part.predict([x, z]), shared(x) + shared(long) + np.tanh(z), "sum")
    assert shared.output is shared._calls[0].outputs and graph.get_layer("x").output is graph.inputs[0]
    kernel = graph.get_layer("first").kernel
    kernel.assign(kernel * 2.0)  # the same layers, so the same weights
    same(part.predict([x, z])[:, :0], np.zeros((5, 0), "float32"), "none")
    same(ul.Model(graph.inputs[0], graph.get_layer("first").output).predict(x), graph.get_layer("first")(x), "kernel")


def same(actual: Any, expected: Any, what: str) -> None:
    assert_close(np.asarray(actual), np.asarray(expected), rtol=1e-5, atol=1e-6, what=what)


def test_a_stack_that_was_built_by_data_has_outputs_too() -> None:
    model = ul.Sequential([layers.Dense(4), layers.Dense(2)])
    with pytest.raises(UnilayersError, match=r"input's shape is not known.*Begin with an Input"):
        _ = model.layers[0].output
    x = np.ones((3, 6), "float32")
    model.predict(x)
    same(ul.Model(model.input, model.layers[0].output).predict(x), model.layers[0](x), "hidden")
    with pytest.raises(UnilayersError, match="not called on symbolic values"):
        _ = layers.Dense(2).output


class Watching(layers.Layer):
    """A layer with a metric of its own, one that it adds, and an added loss."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.largest = ul.metrics.Mean(name="square")

    def call(self, x: Any) -> Any:
        self.largest.update_state(ops.square(x))
        self.add_metric(ops.sum(x), "total")
        self.add_metric(ops.sum(x), "grand", aggregation="sum")
        self.add_loss(0.01 * ops.sum(ops.square(x)))
        return x


@pytest.mark.parametrize("eager", [False, True], ids=["compiled", "eager"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_metrics_of_layers_are_in_the_logs(backend: str, eager: bool) -> None:
    require_backend(backend)
    model = ul.Sequential([ul.Input((6,)), Watching(), layers.Dense(2, kernel_regularizer="l2")], seed=0)
    model.compile("sgd", "mse", metrics=["mae"], run_eagerly=eager, backend=backend)
    x = RNG.normal(size=(8, 6)).astype("float32")
    history = model.fit(x, np.ones((8, 2), "float32"), batch_size=4, epochs=2, shuffle=False, verbose=0).history
    halves = x.reshape(2, -1).sum(1)
    assert set(history) == {"loss", "mae", "square", "total", "grand"}
    for epoch in (0, 1):  # they begin anew in each
        same(history["square"][epoch], np.mean(np.float64(x) ** 2), "square")
        same(history["total"][epoch], np.float64(halves.mean()), "total")
        same(history["grand"][epoch], np.float64(x.sum()), "grand")
    assert {m.name for m in model.metrics} == set(history) == set(model.get_metrics_result())


def test_losses_are_those_of_the_latest_call() -> None:
    model = ul.Sequential([ul.Input((6,)), Watching(), layers.Dense(2, kernel_regularizer="l2")], seed=0)
    x = np.ones((2, 6), "float32")
    for _ in range(2):
        model(x)
        added, penalty = model.losses
        same(np.float32(added), np.float32(0.12), "added")
        same(np.float32(penalty), np.float32(0.01 * np.sum(model.get_weights()[0] ** 2)), "penalty")
    with pytest.raises(UnilayersError, match=r"unknown aggregation.*mean or sum.*'median'"):
        model.layers[0].add_metric(1.0, "x", aggregation="median")


# ---- errors -------------------------------------------------------------------------


def test_shape_errors_name_the_layer() -> None:
    model = ul.Sequential([ul.Input((6,)), layers.Dense(4, name="head"), layers.Dense(2)])
    with pytest.raises(UnilayersError, match=r"wrong shape.*None, 6"):
        model.predict(np.ones((3, 5), "float32"), verbose=0)
    with pytest.raises(ShapeError, match="axes"):
        ul.Sequential([ul.Input((6,)), layers.Conv2D(2, 3)])


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (lambda: sequential().fit(X, Y), "not compiled"),
        (lambda: compiled(sequential).fit(X, Y[:5]), "different lengths"),
        (lambda: compiled(sequential).fit(X, Y, validation_split=1.5), "validation_split"),
        (lambda: compiled(sequential).fit(X.astype(str), Y), "not numeric"),
        (lambda: compiled(sequential).fit(X[:0], Y[:0]), "no samples"),
        (lambda: compiled(sequential).fit(X, Y, backend="numppy"), "Did you mean 'numpy'"),
        (lambda: compiled(sequential).fit(X, Y, device="tpu"), "Devices here: cpu"),
        (lambda: ul.Sequential(["Dence"]), "Did you mean 'Dense'"),
        (lambda: sequential().get_layer("dens"), "Did you mean 'dense'"),
        (lambda: ul.Model(ul.Input((3,)), layers.Dense(2)(ul.Input((3,)))), "not listed"),
        (lambda: sequential().set_weights([X]), "weights do not fit"),
        (lambda: ul.load_model("nowhere.safetensors"), "no such checkpoint"),
    ],
)
def test_errors_say_what_is_wrong(action: Callable[[], object], message: str) -> None:
    with pytest.raises(UnilayersError, match=message):
        action()


def test_functional_inputs_must_be_inputs() -> None:
    h = layers.Dense(2)(ul.Input((3,)))
    with pytest.raises(GraphError, match="must be Input"):
        ul.Model(h, layers.Dense(2)(h))


def test_damaged_and_foreign_checkpoints(tmp_path: object) -> None:
    path = tmp_path / "m.safetensors"
    model = compiled(sequential)
    model.fit(X, Y, epochs=1, verbose=0)
    model.save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match="damaged"):
        ul.load_model(path)
    path.write_bytes(whole)
    other = ul.Sequential([ul.Input((6,)), layers.Dense(9)])
    before = other.get_weights()
    with pytest.raises(CheckpointError):
        other.load_weights(path)
    np.testing.assert_array_equal(other.get_weights()[0], before[0])


def test_a_failed_save_keeps_the_old_file(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m.safetensors"
    model = sequential()
    model.save(path)
    whole = path.read_bytes()

    def full(*args: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(CheckpointError, match="No space left"):
        model.save(path)
    assert path.read_bytes() == whole
    assert [p.name for p in tmp_path.iterdir()] == ["m.safetensors"]


def test_copies_and_descriptions(tmp_path: Path) -> None:
    inputs = ul.Input((4,), name="a")
    x = layers.Dense(3, activation="relu", name="hidden")(inputs)
    model = ul.Model(inputs, layers.Concatenate()([x, layers.Dense(2)(inputs)]), seed=3)
    data = np.ones((2, 4), "float32")
    for other in (models.clone_model(model), models.model_from_json(model.to_json())):
        assert [v.path for v in other.weights] == [v.path for v in model.weights]
        assert all(a is not b for a, b in zip(other.weights, model.weights, strict=True))
        other.set_weights(model.get_weights())
        np.testing.assert_array_equal(other.predict(data, verbose=0), model.predict(data, verbose=0))
    models.save_model(model, tmp_path / "m.safetensors")
    again = models.load_model(tmp_path / "m.safetensors")
    np.testing.assert_array_equal(again.predict(data, verbose=0), model.predict(data, verbose=0))
    for text in ("{", '{"Dense": {"units": 3}}'):
        with pytest.raises(UnilayersError, match="not a description of a model"):
            models.model_from_json(text)
