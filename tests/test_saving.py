"""Files of models and weights, and classes and functions of one's own in them."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import unilayers as ul
from tests.compare import assert_close
from unilayers import activations, layers, models, ops, saving, utils
from unilayers.custom import get_custom_objects
from unilayers.errors import CheckpointError, UnilayersError

keras = pytest.importorskip("keras")
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(12, 4)).astype("float32"), RNG.normal(size=(12, 2)).astype("float32")


@pytest.fixture(autouse=True)
def nothing_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a process of its own, in which no function is known."""
    monkeypatch.setattr(activations, "_registered", {})
    before = dict(get_custom_objects())
    yield
    get_custom_objects().clear()
    get_custom_objects().update(before)


def twice(x: Any) -> Any:
    return 2.0 * x


def error(y_true: Any, y_pred: Any) -> Any:
    return ops.mean(ops.abs(y_true - y_pred), axis=-1)


def largest(y_true: Any, y_pred: Any) -> Any:
    return ops.max(ops.abs(y_true - y_pred), axis=-1)


OWN = {"twice": twice, "error": error, "largest": largest}


def model() -> ul.Model:
    made = ul.Sequential([ul.Input((4,)), layers.Dense(3, activation=twice), layers.Dense(2)], seed=1)
    made.compile(ul.optimizers.Adam(0.01), error, metrics=[largest, "mae"])
    return made


# ---- whole models -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["m.keras", "m.safetensors", "m.h5", "m"])
def test_a_model_goes_on_with_the_same_bits_whatever_the_suffix(name: str, tmp_path: Path) -> None:
    first = model()
    first.fit(X, Y, epochs=2, batch_size=4, verbose=0)
    first.save(tmp_path / name)
    second = ul.load_model(str(tmp_path / name), custom_objects=OWN)
    histories = [m.fit(X, Y, epochs=2, batch_size=4, verbose=0).history for m in (first, second)]
    assert histories[0] == histories[1]
    assert second.metrics_names == first.metrics_names == ["loss", "largest", "mae"]


def test_functions_that_are_not_known(tmp_path: Path) -> None:
    model().save(tmp_path / "m.keras")
    activations._registered.clear()
    for given in (None, {"twice": twice}, {"twice": twice, "error": error}):
        with pytest.raises(UnilayersError, match=r"unknown (activation|loss|metric) 'tests.test_saving:"):
            ul.load_model(tmp_path / "m.keras", custom_objects=given).fit(X, Y, verbose=0)
    with saving.custom_object_scope({"twice": twice}):
        found = ul.load_model(tmp_path / "m.keras", compile=False)
    assert found.optimizer is None
    with pytest.raises(UnilayersError, match="not compiled"):
        found.fit(X, Y, verbose=0)
    np.testing.assert_array_equal(found.predict(X, verbose=0), model().predict(X, verbose=0))


def test_a_loss_that_was_defined_in_a_function(tmp_path: Path) -> None:
    def local_error(y_true: Any, y_pred: Any) -> Any:
        return error(y_true, y_pred)

    made = ul.Sequential([ul.Input((4,)), layers.Dense(2)], seed=1)
    made.compile("sgd", local_error)
    made.save(tmp_path / "m.keras")
    again = ul.load_model(tmp_path / "m.keras", custom_objects={"local_error": local_error})
    assert again.evaluate(X, Y, verbose=0) == made.evaluate(X, Y, verbose=0)


def test_registered_functions_are_known(tmp_path: Path) -> None:
    model().save(tmp_path / "m.keras")
    activations._registered.clear()
    for function in OWN.values():
        assert saving.register_keras_serializable("mine")(function) is function
    ul.load_model(tmp_path / "m.keras").fit(X, Y, verbose=0)


SAVES = """
    import numpy as np
    import unilayers as keras

    @keras.saving.register_keras_serializable(package="mine")
    class Scale(keras.layers.Layer):
        def __init__(self, factor=1.0, **kwargs):
            super().__init__(**kwargs)
            self.factor = factor

        def call(self, x):
            return x * self.factor

        def get_config(self):
            return {**super().get_config(), "factor": self.factor}

    if __name__ == "__main__":
        model = keras.Sequential([keras.Input((2,)), Scale(3.0), keras.layers.Dense(1, kernel_initializer="ones")])
        model.save("m.keras")
"""
LOADS = """
    import numpy as np
    import unilayers as keras
    {definition}
    print(keras.models.load_model("m.keras"{told}).predict(np.ones((1, 2)), verbose=0))
"""
OTHER = """
    class Other(keras.layers.Layer):
        def __init__(self, factor, **kwargs):
            super().__init__(**kwargs)
            self.factor = factor
        def call(self, x):
            return x * self.factor
"""


def test_classes_in_another_process(tmp_path: Path) -> None:
    def run(text: str, name: str) -> subprocess.CompletedProcess[str]:
        (tmp_path / name).write_text(textwrap.dedent(text))
        return subprocess.run([sys.executable, name], cwd=tmp_path, capture_output=True, text=True)

    assert run(SAVES, "saves.py").returncode == 0
    alone = run(LOADS.format(definition="", told=""), "alone.py")
    assert alone.returncode and "unknown layer 'Scale'" in alone.stderr
    for definition, told in (
        ("from saves import Scale", ""),
        ("from saves import Scale", ", custom_objects={'Scale': Scale}"),
        (textwrap.indent(textwrap.dedent(OTHER), "    "), ", custom_objects={'Scale': Other}"),
    ):
        done = run(LOADS.format(definition=definition, told=told), "loads.py")
        assert done.stdout == "[[6.]]\n", done.stderr


def test_configs_with_own_objects() -> None:
    config, text = model().get_config(), model().to_json()
    activations._registered.clear()
    given = {"twice": twice}
    x = ul.Input((4,))
    graph = ul.Model(x, layers.Dense(3, activation=twice)(x)).get_config()
    activations._registered.clear()
    for made in (
        ul.Sequential.from_config(config, custom_objects=given),
        models.model_from_json(text, custom_objects=given),
        ul.Model.from_config(graph, custom_objects=given),
    ):
        dense = next(layer for layer in made.layers if isinstance(layer, layers.Dense))
        assert activations.get(dense.activation) is twice
        activations._registered.clear()
    with pytest.raises(UnilayersError, match="unknown activation"):
        ul.Sequential.from_config(config)


def test_compiling_by_a_config() -> None:
    first = model()
    config = first.get_compile_config()
    second = ul.Sequential([ul.Input((4,)), layers.Dense(3, activation=twice), layers.Dense(2)], seed=1)
    assert second.get_compile_config() is None
    with saving.custom_object_scope(OWN):
        second.compile_from_config(config)
    assert first.fit(X, Y, verbose=0).history == second.fit(X, Y, verbose=0).history


# ---- options ------------------------------------------------------------------------------------------------------


def test_a_file_is_kept_if_told_so(tmp_path: Path) -> None:
    path = tmp_path / "m.keras"
    for save in (model().save, model().save_weights, lambda p, **told: saving.save_model(model(), p, **told)):
        path.write_text("mine")
        with pytest.raises(CheckpointError, match="the file is there already"):
            save(path, overwrite=False)
        assert path.read_text() == "mine"
        save(path)
        assert path.read_bytes() != b"mine"


def test_weights_alone(tmp_path: Path) -> None:
    first = model()
    first.fit(X, Y, verbose=0)
    saving.save_weights(first, tmp_path / "m.weights.h5")
    second = model()
    saving.load_weights(second, tmp_path / "m.weights.h5")
    for a, b in zip(first.get_weights(), second.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(CheckpointError, match="weights only"):
        ul.load_model(tmp_path / "m.weights.h5")


def test_weights_of_another_model(tmp_path: Path) -> None:
    first = model()
    first.save_weights(tmp_path / "m.weights.h5")
    other = ul.Sequential([ul.Input((4,)), layers.Dense(3), layers.Dense(5)], seed=2)
    before = other.get_weights()
    with pytest.raises(CheckpointError, match="another shape"):
        other.load_weights(tmp_path / "m.weights.h5")
    with pytest.warns(UserWarning, match="no value that fits dense_1/kernel, dense_1/bias; left as they are"):
        other.load_weights(tmp_path / "m.weights.h5", skip_mismatch=True)
    expected = [*first.get_weights()[:2], *before[2:]]
    for a, b in zip(other.get_weights(), expected, strict=True):
        np.testing.assert_array_equal(a, b)


def test_files_of_keras_are_named_as_such(tmp_path: Path) -> None:
    theirs = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    theirs.save(tmp_path / "m.keras")
    theirs.save_weights(tmp_path / "m.weights.h5")
    with pytest.raises(CheckpointError, match="Received a zip archive, as Keras writes"):
        ul.load_model(tmp_path / "m.keras")
    with pytest.raises(CheckpointError, match="Received HDF5, as Keras writes"):
        model().load_weights(tmp_path / "m.weights.h5")


# ---- names --------------------------------------------------------------------------------------------------------


def test_registered_names() -> None:
    class Thing:
        pass

    assert saving.get_registered_name(Thing) == "Thing" and saving.get_registered_object("Custom>Thing") is None
    saving.register_keras_serializable()(Thing)
    saving.register_keras_serializable("mine", "other")(twice)
    assert saving.get_registered_name(Thing) == "Custom>Thing" and saving.get_registered_name(twice) == "mine>other"
    assert saving.get_registered_object("mine>other") is twice is utils.get_registered_object("mine>other")
    assert saving.get_registered_object("x", {"x": 1}) == saving.get_registered_object("x", None, {"x": 1}) == 1
    get_custom_objects()["plain"] = error
    assert saving.get_custom_objects()["plain"] is error and ul.losses.get("plain").name == "error"
    with saving.CustomObjectScope({"x": 1}), utils.custom_object_scope({"y": 2}):
        assert saving.get_registered_object("x") == 1 and saving.get_registered_object("y") == 2
        assert saving.get_registered_object("plain") is error
        with saving.custom_object_scope({"plain": twice}):
            assert saving.get_registered_object("plain") is twice
    assert saving.get_registered_object("x") is None


def test_own_names_come_before_the_known_ones() -> None:
    class Loud(layers.Dense):
        pass

    with saving.custom_object_scope({"Dense": Loud, "relu": twice}):
        made = ul.Sequential.from_config({"layers": [{"Dense": {"units": 2}}]})
        assert type(made.layers[0]) is Loud and activations.get("relu") is twice
    assert type(ul.Sequential.from_config({"layers": [{"Dense": {"units": 2}}]}).layers[0]) is layers.Dense


# ---- objects as plain data ------------------------------------------------------------------------------------------


def test_objects_there_and_back() -> None:
    given = {
        "layer": layers.Dense(2, activation="relu", name="d"),
        "rest": [1, (2.5, None), np.arange(3), np.float32(1)],
        "loss": ul.losses.Huber(0.5),
        "function": activations.relu,
        "model": model(),
    }
    told = saving.serialize_keras_object(given)
    found = saving.deserialize_keras_object(told, custom_objects={"twice": twice})
    assert found["layer"].get_config() == given["layer"].get_config()
    assert found["rest"][:2] == [1, (2.5, None)] and found["rest"][3] == 1.0
    assert_close(found["rest"][2], np.arange(3), rtol=0, atol=0, what="array")
    assert found["loss"].delta == 0.5 and found["function"] is activations.relu
    assert found["model"].count_params() == given["model"].count_params()
    named = saving.serialize_keras_object(twice)
    assert saving.deserialize_keras_object(named, {"twice": twice}) is twice
    with pytest.raises(UnilayersError, match="unknown function 'twice'"):
        saving.deserialize_keras_object(named)
    saving.register_keras_serializable()(twice)
    assert saving.deserialize_keras_object(saving.serialize_keras_object(twice)) is twice


def test_a_class_outside_the_families() -> None:
    class Point:
        def __init__(self, x: int) -> None:
            self.x = x

        def get_config(self) -> dict[str, int]:
            return {"x": self.x}

    told = saving.serialize_keras_object(Point(3))
    assert saving.deserialize_keras_object(told, {"Point": Point}).x == 3
    with pytest.raises(UnilayersError, match="unknown class 'Point'"):
        saving.deserialize_keras_object(told)


@pytest.mark.parametrize("thing", [lambda x: x, object(), Path], ids=["lambda", "object", "class"])
def test_what_is_no_plain_data(thing: Any) -> None:
    with pytest.raises(UnilayersError, match="cannot be written as plain data"):
        saving.serialize_keras_object(thing)


def test_a_name_in_several_families() -> None:
    ambiguous = {"class_name": "MeanSquaredError", "config": {}}
    with pytest.raises(UnilayersError, match="is the name of several classes"):
        saving.deserialize_keras_object(ambiguous)
    assert isinstance(saving.deserialize_keras_object({**ambiguous, "module": "keras.losses"}), ul.Loss)
    assert isinstance(saving.deserialize_keras_object({**ambiguous, "module": "keras.metrics"}), ul.Metric)


FAMILIES = ("initializers", "regularizers", "constraints", "losses", "metrics", "optimizers", "layers")
ONLY_KERAS = {"BatchNormalization", "StringLookup", "TextVectorization"}  # options that are not known here and are on


def made_by_keras() -> list[Any]:
    """An object of every class of Keras that needs no argument and has its like here."""
    found = []
    for family in FAMILIES:
        theirs, ours = getattr(keras, family), getattr(ul, family)
        for name in sorted(set(dir(theirs)) & set(dir(ours)) - ONLY_KERAS):
            try:
                thing = getattr(theirs, name)() if isinstance(getattr(theirs, name), type) else None
            except (TypeError, ValueError):
                continue
            if (
                hasattr(thing, "get_config")
                and hasattr(getattr(ours, name), "registry")
                and type(thing).__name__ == name != getattr(ours, name).registry.base.__name__
            ):
                found.append(pytest.param(thing, id=f"{family}.{name}"))
    return found


BY_KERAS = made_by_keras()


@pytest.mark.parametrize("theirs", BY_KERAS)
def test_what_keras_describes_is_made(theirs: Any) -> None:
    ours = saving.deserialize_keras_object(keras.saving.serialize_keras_object(theirs))
    assert type(ours).__name__ == type(theirs).__name__
    assert len(BY_KERAS) > 100
    mine, other = ours.get_config(), theirs.get_config()
    for key, value in other.items():
        if key in mine and isinstance(value, (bool, int, float)):
            assert mine[key] == pytest.approx(value), key
