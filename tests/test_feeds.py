"""Data that comes in batches: generators, ``PyDataset``, loaders of PyTorch and TensorFlow; steps of an epoch."""

from __future__ import annotations

import itertools
import pickle
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import unilayers as ul
from tests.compare import assert_close
from tests.conftest import BACKENDS, require_backend
from unilayers import callbacks, layers
from unilayers.data import PyDataset
from unilayers.errors import DataError
from unilayers.saving import load_state
from unilayers.training.feed import ArrayFeed, is_mapped
from unilayers.training.steps import Batch

RNG = np.random.default_rng(0)
X = RNG.normal(size=(22, 5)).astype("float32")
Y = (X.sum(-1) > 0).astype("int32")
W = RNG.uniform(0.5, 2.0, 22).astype("float32")
SIZE = 4  # six batches, the last of two samples


def same(actual: Any, expected: Any, tolerance: float = 1e-6) -> None:
    """Equal numbers, in lists of arrays or of numbers."""
    for i, (a, b) in enumerate(zip(actual, expected, strict=True)):
        assert_close(a, b, rtol=tolerance, atol=tolerance / 10, what=str(i))


def new_model(**compiled: Any) -> Any:
    model = ul.Sequential([ul.Input((5,)), layers.Dense(6, activation="tanh"), layers.Dense(2)], seed=1)
    loss = ul.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(ul.optimizers.Adam(0.05), loss, metrics=["accuracy"], **compiled)
    return model


def cut(*arrays: np.ndarray) -> list[Any]:
    return [tuple(a[i : i + SIZE] for a in arrays) for i in range(0, len(arrays[0]), SIZE)]


class Parts(PyDataset):
    """The batches of X and Y, with a note of what was asked."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.asked: list[int] = []
        self.ended = 0

    def __len__(self) -> int:
        return len(cut(X))

    def __getitem__(self, index: int) -> Any:
        self.asked.append(index)
        return cut(X, Y)[index]

    def on_epoch_end(self) -> None:
        self.ended += 1


class Again:
    """Something that can be gone through again, and knows nothing else."""

    def __init__(self, batches: list[Any]) -> None:
        self.batches = batches

    def __iter__(self) -> Iterator[Any]:
        return iter(self.batches)


def torch_loader(weights: bool = False) -> Any:
    torch = pytest.importorskip("torch")
    arrays = [torch.from_numpy(a) for a in ((X, Y, W) if weights else (X, Y))]
    return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*arrays), batch_size=SIZE)


def tf_data(weights: bool = False) -> Any:
    tf = pytest.importorskip("tensorflow")
    return tf.data.Dataset.from_tensor_slices((X, Y, W) if weights else (X, Y)).batch(SIZE)


SOURCES = {
    "iterable": lambda weights=False: Again(cut(*((X, Y, W) if weights else (X, Y)))),
    "torch": torch_loader,
    "tensorflow": tf_data,
}


@pytest.mark.parametrize("weights", [False, True], ids=["plain", "weights"])
@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_batches_train_as_arrays_do(backend: str, source: str, weights: bool) -> None:
    require_backend(backend)
    made, expected = new_model(backend=backend), new_model(backend=backend)
    held = SOURCES[source](weights)
    found = made.fit(SOURCES[source](weights), epochs=2, validation_data=held, verbose=0).history
    told: dict[str, Any] = {"sample_weight": W} if weights else {}
    held_arrays = (X, Y, W) if weights else (X, Y)
    want = expected.fit(
        X, Y, epochs=2, batch_size=SIZE, shuffle=False, validation_data=held_arrays, verbose=0, **told
    ).history
    for name in want:
        same(found[name], want[name])
    same(made.get_weights(), expected.get_weights())
    same(made.evaluate(held, verbose=0), expected.evaluate(X, Y, verbose=0, **told))
    same(made.predict(held), expected.predict(X))


@pytest.mark.parametrize("eager", [False, True], ids=["compiled", "eager"])
def test_a_pydataset_is_gone_through_in_an_order_of_the_seed(eager: bool) -> None:
    orders = []
    for _ in range(2):
        data, model = Parts(), new_model(run_eagerly=eager)
        model.fit(data, epochs=2, verbose=0)
        assert data.ended == 2
        assert data.asked[0] == 0  # for the form of a batch
        orders.append(data.asked[1:])
    assert orders[0] == orders[1]
    first, second = orders[0][:6], orders[0][6:]
    assert sorted(first) == sorted(second) == list(range(6)) and first != second
    data = Parts()
    new_model().fit(data, epochs=1, shuffle=False, verbose=0)
    assert data.asked == [0, *range(6)]


@pytest.mark.parametrize("how", [{"workers": 3}, {"workers": 2, "use_multiprocessing": True, "max_queue_size": 2}])
def test_workers_give_the_same_batches_in_order(how: dict[str, Any]) -> None:
    data = Parts(**how)
    pickle.dumps(data)
    for found, want in zip(data, cut(X, Y), strict=True):
        same(found, want)
    same(next(iter(data)), cut(X, Y)[0])  # and can be left early


class Broken(Parts):
    def __getitem__(self, index: int) -> Any:
        if index == 3:
            raise RuntimeError("no such file")
        return super().__getitem__(index)


def test_an_error_in_a_worker_reaches_the_user() -> None:
    with pytest.raises(RuntimeError, match="no such file"):
        new_model().fit(Broken(workers=2), verbose=0)


@pytest.mark.parametrize("kind", ["generator", "pydataset"])
def test_data_without_an_end_needs_steps(kind: str) -> None:
    class Endless(Parts):
        num_batches = None

        def __getitem__(self, index: int) -> Any:
            return super().__getitem__(index % 6)

    def generate() -> Iterator[Any]:
        yield from itertools.cycle(cut(X, Y))

    data = generate() if kind == "generator" else Endless()
    model = new_model()
    history = model.fit(data, epochs=3, steps_per_epoch=6, validation_data=generate(), validation_steps=6, verbose=0)
    assert len(history.history["loss"]) == len(history.history["val_loss"]) == 3 and model.position.step == 18
    assert len(set(history.history["val_loss"])) == 3 and min(history.history["val_loss"]) > 0
    expected = new_model()
    expected.fit(X, Y, epochs=3, batch_size=SIZE, shuffle=False, verbose=0)
    same(model.get_weights(), expected.get_weights())
    assert history.history["val_loss"][-1] == pytest.approx(expected.evaluate(X, Y, verbose=0)[0], rel=1e-5)
    assert len(model.predict(generate(), steps=2)) == 2 * SIZE
    assert len(model.evaluate(generate(), steps=2, verbose=0)) == 2


@pytest.mark.parametrize("shuffle", [True, False, "batch"])
@pytest.mark.parametrize("cuts", [[4], [2, 2], [1, 3]])
def test_steps_per_epoch_goes_on_where_the_last_epoch_ended(cuts: list[int], shuffle: Any) -> None:
    """Four epochs of three steps are two passes, in one call or several."""
    model, expected = new_model(), new_model()
    for epochs in cuts:
        model.fit(X, Y, batch_size=SIZE, epochs=epochs, steps_per_epoch=3, shuffle=shuffle, verbose=0)
    expected.fit(X, Y, batch_size=SIZE, epochs=2, shuffle=shuffle, verbose=0)
    same(model.get_weights(), expected.get_weights(), 0.0)
    assert model.position.epoch == 4 and model.position.sweep == 2


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shuffle", [True, False, "batch"])
def test_a_mapped_file_is_read_ahead(backend: str, shuffle: Any, tmp_path: Any) -> None:
    """It trains as an array does, cut as well; batches are there before they are wanted, in an order of the seed."""
    require_backend(backend)
    np.save(tmp_path / "x.npy", X)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    weights = []
    for x in (X, mapped[:]):
        model = new_model(backend=backend)
        for steps in (4, None, 3):
            model.fit(x, Y, batch_size=SIZE, epochs=2, steps_per_epoch=steps, shuffle=shuffle, verbose=0)
        weights.append(model.get_weights())
    same(*weights, tolerance=0)
    feed = ArrayFeed(Batch(mapped, Y), SIZE, 3, shuffle)
    before = set(threading.enumerate())
    passing = feed.batches(0, 2)
    arrays, _, _ = next(passing)
    (reader,) = set(threading.enumerate()) - before
    assert feed.owned and not is_mapped(arrays[0])
    passing.close()  # type: ignore[attr-defined]
    reader.join(20)
    assert not reader.is_alive(), "a pass that is left early leaves no thread"


def test_shuffled_batches_hold_neighbours() -> None:
    seen: list[Any] = []

    class Spy(ul.Model):
        def call(self, x: Any) -> Any:
            seen.append(np.asarray(x)[:, 0].tolist())
            return x

    model = Spy()
    model.compile("sgd", "mse", run_eagerly=True)
    x = np.arange(12, dtype="float32")[:, None]
    model.fit(x, x, batch_size=4, shuffle="batch", epochs=2, verbose=0)
    passes = [seen[-6:-3], seen[-3:]]
    assert all(sorted(p) == x.reshape(3, 4).tolist() for p in passes)


def test_a_generator_that_runs_out_ends_training() -> None:
    model = new_model()
    with pytest.warns(UserWarning, match=r"the data ran out in epoch 2.*not a generator"):
        history = model.fit((b for b in cut(X, Y)), epochs=3, verbose=0)
    assert len(history.history["loss"]) == 1 and model.position.epoch == 1
    model = new_model()
    with pytest.warns(UserWarning, match="ran out in epoch 2"):
        history = model.fit((b for b in cut(X, Y)), epochs=3, steps_per_epoch=4, verbose=0)
    assert len(history.history["loss"]) == 2  # the second of two steps


def test_batches_may_differ_in_form() -> None:
    """Sequences of another length in each batch: a program for each length, the same weights."""
    model = ul.Sequential([layers.Embedding(10, 3), layers.GlobalAveragePooling1D(), layers.Dense(1)], seed=0)
    model.compile("sgd", "mse")
    batches = [(RNG.integers(0, 10, (4, n)), np.ones((4, 1))) for n in (3, 7, 3, 5)]
    history = model.fit(Again(batches), epochs=3, verbose=0).history["loss"]
    assert history[-1] < history[0]
    assert len(model.predict(Again(batches))) == 16


def test_class_weights_count_in_batches_too() -> None:
    told = {"class_weight": {0: 0.2, 1: 3.0}, "verbose": 0, "epochs": 2}
    a = new_model().fit(Again(cut(X, Y)), **told).history["loss"]
    b = new_model().fit(X, Y, shuffle=False, batch_size=SIZE, **told).history["loss"]
    same(a, b)


def test_a_models_own_step_takes_batches() -> None:
    class Own(ul.Model):
        def __init__(self) -> None:
            super().__init__(seed=0)
            self.dense = layers.Dense(1)

        def call(self, x: Any) -> Any:
            return self.dense(x)

        def train_step(self, data: Any) -> dict[str, Any]:
            x, y = data
            with ul.GradientTape() as tape:
                loss = ul.ops.mean((self(x) - y) ** 2)
            self.optimizer.apply(tape.gradient(loss, self.trainable_weights), self.trainable_weights)
            return {"loss": loss}

    model = Own()
    model.compile("sgd")
    target = X.sum(-1, keepdims=True)
    history = model.fit(Again(cut(X, target)), epochs=4, verbose=0).history["loss"]
    assert history[-1] < history[0]


def test_what_does_not_go_with_batches_is_refused() -> None:
    model, stream = new_model(), Again(cut(X, Y))
    with pytest.raises(DataError, match=r"y beside data that comes in batches.*Let each batch be"):
        model.fit(stream, Y)
    with pytest.raises(DataError, match="batch_size beside data"):
        model.evaluate(stream, batch_size=4)
    with pytest.raises(DataError, match=r"validation_split needs arrays.*validation_data"):
        model.fit(stream, validation_split=0.5)
    with pytest.raises(DataError, match=r"a batch of too many parts.*4 parts"):
        model.fit(Again([(X, Y, W, W)]))
    with pytest.raises(DataError, match="no batches"):
        model.fit(Again([]))
    with pytest.raises(DataError, match="not numeric"):
        model.fit(Again([(np.array([["a"]]), Y[:1])]))


def test_callbacks_see_steps_only_where_they_are_known(capsys: pytest.CaptureFixture[str]) -> None:
    seen: list[Any] = []

    class Look(callbacks.Callback):
        def on_train_begin(self, logs: Any = None) -> None:
            seen.append(self.params["steps"])

    for data, steps in ((Parts(), None), (Again(cut(X, Y)), None), (Again(cut(X, Y)), 3)):
        new_model().fit(data, steps_per_epoch=steps, callbacks=[Look()])
    assert seen == [6, None, 3]
    assert capsys.readouterr().out.count("Epoch 1/1") == 3


@pytest.mark.parametrize("steps", [None, 4], ids=["whole", "steps"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_training_goes_on_in_the_middle_of_an_epoch(backend: str, steps: int | None, tmp_path: Any) -> None:
    """What was saved after a step holds all that the next one needs: the same bits, and the same logs."""
    require_backend(backend)
    path = tmp_path / "middle.safetensors"

    class Save(callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            if self.model.position.step == 9:
                self.model.save(path)

    class GoOn(callbacks.Callback):
        def on_train_begin(self, logs: Any = None) -> None:
            load_state(self.model, path)
            self.model.start_epoch, self.model.start_batch = self.model.position.epoch, self.model.position.of_epoch

    told = {"batch_size": SIZE, "epochs": 4, "steps_per_epoch": steps, "verbose": 0, "backend": backend}
    whole, second = new_model(), new_model()
    want = whole.fit(X, Y, callbacks=[Save()], **told).history
    found = second.fit(X, Y, callbacks=[GoOn()], **told).history
    same(second.get_weights(), whole.get_weights(), 0.0)
    for name, values in found.items():
        same(values, want[name][-len(values) :], 0.0)
    assert second.position == whole.position and len(found["loss"]) == (3 if steps is None else 2)
