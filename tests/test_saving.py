"""Files of models and weights, and classes and functions of one's own in them."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import textwrap
import tracemalloc
from contextlib import suppress
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


# ---- damaged files --------------------------------------------------------------------------------------------------


def parted(content: bytes) -> tuple[dict[str, Any], dict[str, Any], bytes]:
    """The header of a checkpoint, our description in it, and the values."""
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    return header, json.loads(header["__metadata__"]["unilayers"]), content[8 + size :]


def joined(header: Any, about: Any, values: bytes) -> bytes:
    if about is not None:
        header["__metadata__"]["unilayers"] = about if isinstance(about, str) else json.dumps(about)
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + values


STRANGE = [
    None, True, False, 0, -1, 3, 2**31, 2**64, 10**30, 1.5, float("nan"), float("inf"), "", "x", "unilayers:Nothing",
    [], [1], {}, {"a": 1}, [[]], ["F32"], "F64", "BF16", "F8_E4M3", "I32", [0, 2**62], [2**40, 2**40], [1] * 80,
]  # fmt: skip


def spots(value: Any) -> list[tuple[Any, Any]]:
    """Every container inside a value, with each of its keys."""
    found = [(value, k) for k in (value if isinstance(value, dict) else range(len(value)))]
    return found + [spot for c, k in list(found) if isinstance(c[k], (dict, list)) for spot in spots(c[k])]


def damaged(content: bytes, kind: str, rng: random.Random) -> bytes:
    header, about, values = parted(content)
    if kind == "truncated":
        return content[: rng.randrange(len(content))]
    if kind == "bytes":
        flipped = bytearray(content)
        for _ in range(rng.randint(1, 4)):
            flipped[rng.randrange(8 + len(content) - len(values) if rng.random() < 0.8 else len(content)) - 8] ^= 1 << 5
        return bytes(flipped)
    if kind == "size":
        return (
            rng.choice([0, 1, 2**20, 10**8, 2**31, 2**63, 2**64 - 1, rng.randrange(2**64)]).to_bytes(8, "little")
            + (content[8:])
        )
    if kind == "nan":
        return content[: -len(values)] + b"\xff" * len(values)
    if kind == "text":
        text = json.dumps(about)
        return joined(header, rng.choice(["", "no", "[" * 99999, text[: rng.randrange(len(text))], "9" * 9999]), values)
    if kind == "twice":
        part = rng.choice(["header", "description"])
        whole = header if part == "header" else about
        text, name = json.dumps(whole), rng.choice(list(whole))
        text = text[:-1] + f", {json.dumps(name)}: {json.dumps(whole[name])}" + "}"
        return joined(text.encode(), None, values) if part == "header" else joined(header, text, values)
    container, key = rng.choice(spots(header if kind.startswith("header") else about))
    if kind.endswith("without"):
        del container[key]
    else:
        container[key] = rng.choice(STRANGE)
    try:
        return joined(header, about if "unilayers" in header["__metadata__"] else None, values)
    except (KeyError, TypeError):  # what holds the description is what was hit
        return joined(header, None, values)


KINDS = ["truncated", "bytes", "size", "nan", "text", "twice"] + [
    f"{part} {what}" for part in ("header", "description") for what in ("with another value", "without")
]


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_files_are_refused_and_nothing_else_happens(kind: str, tmp_path: Path) -> None:
    made, path = model(), tmp_path / "m.safetensors"
    made.fit(X, Y, verbose=0)
    made.save(path)
    content, rng, refused = path.read_bytes(), random.Random(kind), 0
    size = len(content)
    tracemalloc.start()
    times = 60 if "with" in kind else 30
    for _ in range(times):
        path.write_bytes(damaged(content, kind, rng))
        try:
            tensors, about = saving.read(path)
            assert sum(x.nbytes for x in tensors.values()) <= size and about["version"] == 1
        except CheckpointError as error:
            assert str(path) in str(error) and len(str(error)) < 400 + len(str(path))
            refused += 1
            with pytest.raises(CheckpointError):
                ul.load_model(path, custom_objects=OWN)
            continue
        with suppress(UnilayersError):  # what is told of a class may be unknown, or not fit the weights
            ul.load_model(path, custom_objects=OWN)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 30e6
    always = kind in ("truncated", "size", "text", "twice")
    assert refused == (times if always else 0 if kind == "nan" else refused or 1)


def test_what_is_wrong_with_a_file_is_said(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    model().save(path)
    content = path.read_bytes()

    def said(change: Any, load: Any = saving.read) -> str:
        header, about, values = parted(content)
        path.write_bytes(change(header, about, values))
        with pytest.raises(CheckpointError) as caught:
            load(path)
        return str(caught.value).removeprefix(f"{path}: ")

    damage = "its description is damaged. Expected "
    assert said(lambda h, a, v: joined(h, "no", v)).startswith(damage + "JSON. Received Expecting value")
    assert said(lambda h, a, v: joined(h, [1], v)) == damage + "a mapping with its version. Received [1]."
    assert said(lambda h, a, v: joined(h, {**a, "version": True}, v)).startswith(damage + "a mapping with its version")
    assert said(lambda h, a, v: joined(h, {**a, "model": 3}, v)) == damage + "a mapping 'model'. Received 3."
    for position in ({"epoch": "two"}, {"epoch": -1}, {"epochs": 1}, {"step": 2**63}):
        text = said(lambda h, a, v, position=position: joined(h, {**a, "position": position}, v))
        assert text.startswith(damage + "a position of epoch, step, sweep, batch, of_epoch, each a count. Received ")
    for dtype, size in (("BF16", 8), ("F8_E4M3", 4), ("F8_E5M2", 4)):
        header = {"__metadata__": {"unilayers": '{"version": 1}'}}
        header["a"] = {"dtype": dtype, "shape": [4], "data_offsets": [0, size]}
        text = said(lambda *_, header=header, size=size: joined(header, None, b"\0" * size))
        assert text.endswith(f"Received tensor 'a' in {dtype}, a dtype that NumPy does not have.")

    def as_integers(header: Any, about: Any, values: bytes) -> bytes:
        header["dense/kernel"]["dtype"] = "I32"
        return joined(header, about, values)

    def load(path: Path) -> None:
        ul.load_model(path, custom_objects=OWN)

    assert said(as_integers, load) == "'dense/kernel' has a dtype of another kind. Expected float32. Received int32."
    text = said(lambda h, a, v: joined(h, {**a, "inputs": 3}, v), load)
    assert text.startswith("no model can be made of it. Received ")
    layer = {"Dense": {"units": 3}}
    text = said(lambda h, a, v: joined(h, {**a, "model": layer}, v), load)
    assert text == "its description is of no model. Received Dense."


@pytest.mark.parametrize("size", [10**8, 10**10, 10**15])
def test_sizes_that_are_absurd_are_not_allocated(size: int, tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    made = ul.Sequential([layers.Dense(3)])
    made.compile("sgd", "mse")
    made.fit(X, X[:, :3], verbose=0)
    made.save(path)
    header, about, values = parted(path.read_bytes())
    about["model"]["Sequential"]["layers"][0]["Dense"]["units"] = size
    path.write_bytes(joined(header, about, values))
    tracemalloc.start()
    with pytest.raises(CheckpointError, match="'dense/kernel' has another shape"):
        ul.load_model(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 30e6


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
