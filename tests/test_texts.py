"""Texts as inputs of models: read on the host, then trained on every backend."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import unilayers as ul
from tests.compare import assert_close
from tests.conftest import BACKENDS, require_backend
from unilayers import layers
from unilayers.errors import UnilayersError

TEXTS = np.array(["a good film", "bad film", "good", "a bad, bad thing"] * 3)
LABELS = np.array([1, 0, 1, 0] * 3, "int32")
NUMBERS = np.random.default_rng(0).normal(size=(12, 2)).astype("float32")


def vectorizer(**kwargs: Any) -> layers.TextVectorization:
    layer = layers.TextVectorization(**kwargs)
    layer.adapt(TEXTS)
    return layer


def tail() -> list[layers.Layer]:
    return [layers.Embedding(9, 4), layers.GlobalAveragePooling1D(), layers.Dense(1, activation="sigmoid")]


def stack() -> Any:
    return ul.Sequential([ul.Input((1,), dtype="string"), vectorizer(), *tail()], seed=0)


def stack_without_input() -> Any:
    return ul.Sequential([vectorizer(), *tail()], seed=0)


def stack_around_a_model() -> Any:
    inner = ul.Sequential([ul.Input((None,), dtype="int32"), *tail()])
    return ul.Sequential([ul.Input((1,), dtype="string"), vectorizer(), inner], seed=0)


def graph() -> Any:
    x = ul.Input((1,), dtype="string", name="text")
    y = vectorizer()(x)
    for layer in tail():
        y = layer(y)
    return ul.Model(x, y, seed=0)


def numbers_model() -> Any:
    """What the others are after their texts are read."""
    return ul.Sequential([ul.Input((None,), dtype="int32"), *tail()], seed=0)


@pytest.mark.parametrize("eager", [False, True], ids=["compiled", "eager"])
@pytest.mark.parametrize("make", [stack, stack_without_input, stack_around_a_model, graph])
@pytest.mark.parametrize("backend", BACKENDS)
def test_training_on_texts_is_training_on_their_indices(
    backend: str, make: Callable[[], Any], eager: bool, tmp_path: Path
) -> None:
    require_backend(backend)
    told = {"optimizer": "adam", "loss": "binary_crossentropy", "metrics": ["accuracy"]}
    model, expected = make(), numbers_model()
    for m in (model, expected):
        m.compile(**told, run_eagerly=eager, backend=backend)
    indices = vectorizer()(TEXTS)
    if make is stack_around_a_model:  # whose weights have other paths, so other initial values
        model.predict(TEXTS)
        expected.set_weights(model.get_weights())
    found = model.fit(TEXTS, LABELS, batch_size=5, epochs=2, validation_data=(list(TEXTS[:4]), LABELS[:4]), verbose=0)
    want = expected.fit(
        indices, LABELS, batch_size=5, epochs=2, validation_data=(vectorizer()(TEXTS[:4]), LABELS[:4]), verbose=0
    )
    for name, values in want.history.items():
        assert_close(found.history[name], values, rtol=1e-6, atol=0, what=name)
    outputs = expected.predict(indices)
    for data in (TEXTS, TEXTS[:, None], list(TEXTS), [t.encode() for t in TEXTS]):
        assert_close(model.predict(data), outputs, rtol=1e-6, atol=1e-7, what="predict")
    assert_close(model.predict_on_batch(list(TEXTS)), outputs, rtol=1e-6, atol=1e-7, what="on a batch")
    called = ul.ops.to_numpy(model(TEXTS[:, None]))
    assert_close(called, outputs, rtol=1e-6, atol=1e-7, what="call")
    again = tmp_path / "model.safetensors"
    model.save(again)
    assert_close(ul.load_model(again).predict(TEXTS), outputs, rtol=1e-6, atol=1e-7, what="saved")


def test_texts_beside_numbers_and_lookups_in_turn() -> None:
    text, word = (ul.Input((1,), dtype="string", name=n) for n in ("text", "word"))
    number = ul.Input((2,), name="number")
    counts = vectorizer(output_mode="multi_hot")(text)
    found = layers.StringLookup(vocabulary=["x", "y"], output_mode="one_hot")(word)
    hashed = layers.Hashing(3, output_mode="one_hot")(word)
    model = ul.Model([text, word, number], layers.Dense(1)(layers.Concatenate()([counts, found, hashed, number])))
    model.compile("sgd", "mse")
    data = {"number": NUMBERS, "text": TEXTS, "word": np.array(["x", "y", "z"] * 4)}
    history = model.fit(data, LABELS, epochs=5, verbose=0).history["loss"]
    assert history[-1] < history[0]
    assert model.get_layer("concatenate").output.shape[-1] == len(vectorizer().get_vocabulary()) - 1 + 3 + 3 + 2
    as_list = [data[n] for n in ("text", "word", "number")]
    assert_close(model.predict(as_list), model.predict(data), rtol=0, atol=0, what="a list of inputs")
    assert_close(ul.models.clone_model(model).predict(data).shape, (12, 1), rtol=0, atol=0, what="clone")


def test_batches_of_texts_from_a_stream() -> None:
    def batches() -> Any:
        for i in range(0, 12, 4):
            yield TEXTS[i : i + 4], LABELS[i : i + 4]

    model = stack()
    model.compile("adam", "binary_crossentropy")
    assert model.fit(batches(), verbose=0).history["loss"][0] > 0
    tf = pytest.importorskip("tensorflow")
    data = tf.data.Dataset.from_tensor_slices((TEXTS, LABELS)).batch(5)
    assert model.fit(data, epochs=2, verbose=0).history["loss"][1] > 0
    assert_close(model.predict(data), model.predict(TEXTS), rtol=1e-6, atol=1e-7, what="predict")


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: layers.Dense(3)(ul.Input((1,), dtype="string")), r"takes no texts.*TextVectorization"),
        (lambda: ul.Model(x := ul.Input((1,), dtype="string"), stack()(x)), "texts inside a model inside another"),
        (lambda: ul.Model(x := ul.Input((1,), dtype="string"), x), "texts come out of the model"),
        (lambda: layers.TextVectorization()(ul.Input((1,), dtype="string")), "vocabulary"),
        (lambda: ul.ops.add(ul.Input((1,), dtype="string"), 1), r"texts are no part of a graph.*Begin the model"),
    ],
    ids=["dense", "inside", "out", "not adapted", "op"],
)
def test_where_texts_cannot_go(build: Callable[[], Any], message: str) -> None:
    with pytest.raises(UnilayersError, match=message):
        build()
