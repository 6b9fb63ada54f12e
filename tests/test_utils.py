"""Helpers around models, against Keras where it has the same."""

from __future__ import annotations

import io
import itertools
import logging
import random as python_random
import tarfile
import threading
import time
import wave
import zipfile
from collections import OrderedDict, namedtuple
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import unilayers as ul
from tests.compare import assert_close
from unilayers import layers, tree, utils
from unilayers.data import Pipeline
from unilayers.errors import DataError, DTypeError, UnilayersError
from unilayers.preprocessing.image import smart_resize
from unilayers.utils.folders import read_wav

keras = pytest.importorskip("keras")
RNG = np.random.default_rng(0)


# ---- arrays -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("x", [[0, 2], np.array([[0], [2]]), np.array([[0, 1], [2, 0]]), 3], ids=str)
@pytest.mark.parametrize("num_classes", [None, 5])
def test_to_categorical(x: Any, num_classes: int | None) -> None:
    ours, theirs = (lib.utils.to_categorical(x, num_classes) for lib in (ul, keras))
    assert_close(ours, np.asarray(theirs), rtol=0, atol=0, what="to_categorical")


@pytest.mark.parametrize("x", [[3], [-1]])
def test_to_categorical_rejects_labels_out_of_range(x: list[int]) -> None:
    with pytest.raises(DataError, match=r"to_categorical: labels out of range. Expected 0 to 2"):
        utils.to_categorical(x, 3)


@pytest.mark.parametrize(("axis", "order"), [(-1, 2), (-2, 1), (1, 3)])
def test_normalize(axis: int, order: int) -> None:
    x = RNG.normal(size=(3, 4)).astype("float32")
    x[1] = 0
    ours, theirs = (lib.utils.normalize(x, axis, order) for lib in (ul, keras))
    assert_close(ours, np.asarray(theirs), rtol=1e-6, atol=0, what="normalize")


def test_arrays_of_symbolic_values() -> None:
    labels, x = ul.Input((), dtype="int32"), ul.Input((3,))
    model = ul.Model([labels, x], [utils.to_categorical(labels, 4), utils.normalize(x)])
    data = RNG.normal(size=(2, 3)).astype("float32")
    one_hot, unit = model.predict([np.array([1, 3]), data], verbose=0)
    assert_close(one_hot, utils.to_categorical([1, 3], 4).astype("float32"), rtol=0, atol=0, what="one-hot")
    assert_close(unit, utils.normalize(data), rtol=1e-6, atol=0, what="unit vectors")


@pytest.mark.parametrize("padding", ["pre", "post"])
@pytest.mark.parametrize("truncating", ["pre", "post"])
@pytest.mark.parametrize("maxlen", [None, 2, 6])
def test_pad_sequences(padding: str, truncating: str, maxlen: int | None) -> None:
    told = {"maxlen": maxlen, "padding": padding, "truncating": truncating, "value": 9}
    for given, dtype in (
        ([[1], [], [2, 3, 4, 5]], "int32"),
        ([np.ones((2, 3)), np.zeros((4, 3))], "float32"),
    ):
        ours, theirs = (lib.utils.pad_sequences(given, dtype=dtype, **told) for lib in (ul, keras))
        assert_close(ours, theirs, rtol=0, atol=0, what=f"pad_sequences {told}")


def test_pad_sequences_of_texts() -> None:
    ours, theirs = (lib.utils.pad_sequences([["a"], ["b", "c"]], dtype=object, value="-") for lib in (ul, keras))
    assert ours.tolist() == theirs.tolist() == [["-", "a"], ["b", "c"]]


@pytest.mark.parametrize(
    ("given", "told", "message"),
    [
        ([[1], 2], {}, r"pad_sequences(sequences[1]): not a sequence. Received 2."),
        ([[1]], {"padding": "both"}, "pad_sequences(padding=): unknown side. Expected pre or post. Received 'both'."),
        ([np.ones((1, 2)), np.ones((1, 3))], {}, "pad_sequences(sequences[1]): entries of another shape. Expected "
         "(2,). Received (3,)."),
        ([[1]], {"value": "x"}, "pad_sequences(value=): a text does not fit the dtype. Received 'x' for int32. Pass "
         "dtype=object."),
    ],
)  # fmt: skip
def test_pad_sequences_rejects(given: Any, told: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError) as caught:
        utils.pad_sequences(given, **told)
    assert str(caught.value) == message


# ---- series and splits --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "told",
    [
        {},
        {"sequence_stride": 3, "batch_size": 2},
        {"sampling_rate": 2, "batch_size": None},
        {"start_index": 2, "end_index": 15, "batch_size": 3},
    ],
    ids=str,
)
@pytest.mark.parametrize("with_targets", [True, False])
def test_timeseries(told: dict[str, Any], with_targets: bool) -> None:
    x, y = RNG.normal(size=(20, 3)).astype("float32"), np.arange(20) if with_targets else None
    ours, theirs = (
        list(lib.utils.timeseries_dataset_from_array(x, y, sequence_length=4, **told).as_numpy_iterator())
        for lib in (ul, keras)
    )
    assert len(ours) == len(theirs) > 0
    for a, b in zip(ours, theirs, strict=True):
        for one, two in zip(*((p if with_targets else (p,)) for p in (a, b)), strict=True):
            assert_close(np.asarray(one), np.asarray(two), rtol=0, atol=0, what=f"windows {told}")


def test_shuffled_windows_keep_their_targets_and_change_each_epoch() -> None:
    windows = utils.timeseries_dataset_from_array(np.arange(30), np.arange(30), 3, batch_size=8, shuffle=True, seed=1)
    epochs = [[np.concatenate(part) for part in zip(*windows, strict=True)] for _ in range(2)]
    for x, y in epochs:
        np.testing.assert_array_equal(x[:, 0], y)
        assert sorted(y) == list(range(28))
    assert epochs[0][1].tolist() != epochs[1][1].tolist()
    again = utils.timeseries_dataset_from_array(np.arange(30), np.arange(30), 3, batch_size=8, shuffle=True, seed=1)
    np.testing.assert_array_equal(np.concatenate([y for _, y in again]), epochs[0][1])


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"start_index": 9, "end_index": 3}, "indices outside the series. Expected 0 <= start_index < end_index <= 10"),
        ({"sampling_rate": 0}, r"\(sampling_rate=\): does not fit the series"),
        ({"sequence_stride": 10}, r"\(sequence_stride=\): does not fit the series"),
    ],
)
def test_timeseries_rejects(told: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        utils.timeseries_dataset_from_array(np.arange(10), None, 2, **told)


@pytest.mark.parametrize("given", [np.arange(7), (np.arange(7), np.arange(7.0)), [np.arange(7), np.arange(7) * 2]])
@pytest.mark.parametrize(
    "told", [{"left_size": 0.5}, {"right_size": 0.3}, {"left_size": 2, "right_size": 3}, {"left_size": 0.25}]
)
def test_split_dataset(given: Any, told: dict[str, Any]) -> None:
    ours, theirs = (lib.utils.split_dataset(given, **told, preferred_backend="tensorflow") for lib in (ul, keras))
    for a, b in zip(ours, theirs, strict=True):
        assert [tree.map_structure(float, x) for x in a] == [
            tree.map_structure(float, x) for x in b.as_numpy_iterator()
        ]
        assert len(a) == len(b)


def test_split_dataset_of_an_iterable_shuffled() -> None:
    samples = [{"x": np.array([i, i])} for i in range(10)]
    left, right = utils.split_dataset(iter(samples), left_size=6, shuffle=True, seed=3)
    order = [int(s["x"][0]) for s in (*left, *right)]
    assert sorted(order) == list(range(10)) and order != list(range(10))


@pytest.mark.parametrize("told", [{}, {"left_size": 9, "right_size": 9}, {"left_size": 1.5}, {"right_size": 0}])
def test_split_dataset_rejects(told: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="split_dataset"):
        utils.split_dataset(np.arange(10), **told)


# ---- the pipeline -------------------------------------------------------------------------------------------------

STEPS: dict[str, Callable[[Any], Any]] = {
    "map": lambda d: d.map(lambda x, y: (x + 1, y)),
    "batch": lambda d: d.batch(3),
    "batch without rest": lambda d: d.batch(3, drop_remainder=True),
    "unbatch": lambda d: d.batch(3).unbatch(),
    "take and skip": lambda d: d.skip(2).take(4),
    "all and none": lambda d: d.take(-1).skip(-1),
    "filter": lambda d: d.filter(lambda x, y: y < 4),
    "repeat": lambda d: d.repeat(2),
    "forever": lambda d: d.repeat().take(17),
    "cache": lambda d: d.cache(),
    "prefetch": lambda d: d.prefetch(2),
    "enumerate": lambda d: d.enumerate(5),
    "concatenate": lambda d: d.concatenate(d.take(2)),
    "shard": lambda d: d.shard(3, 1),
    "chain": lambda d: d.map(lambda x, y: (2 * x, y)).batch(2).skip(1).repeat(2).unbatch().batch(5),
}


@pytest.mark.parametrize("step", STEPS)
def test_pipeline_is_that_of_tensorflow(step: str) -> None:
    tf = pytest.importorskip("tensorflow")
    arrays = (RNG.normal(size=(8, 2)).astype("float32"), np.arange(8))
    ours = STEPS[step](Pipeline.from_tensor_slices(arrays))
    theirs = STEPS[step](tf.data.Dataset.from_tensor_slices(arrays))
    if int(theirs.cardinality()) >= 0 and ours.cardinality() != -2:
        assert ours.cardinality() == len(ours) == int(theirs.cardinality())
    for _ in range(2):  # a second pass gives the same
        found, expected = list(ours), list(theirs.as_numpy_iterator())
        assert len(found) == len(expected)
        for a, b in zip(found, expected, strict=True):
            for one, two in zip(tree.flatten(a), tree.flatten(b), strict=True):
                np.testing.assert_array_equal(one, two)


def test_zip_of_pipelines() -> None:
    a, b = (Pipeline.from_tensor_slices(np.arange(n)) for n in (3, 5))
    assert [tuple(map(int, e)) for e in Pipeline.zip(a, b)] == [(0, 0), (1, 1), (2, 2)]
    assert len(Pipeline.zip((a, b.repeat()))) == 3


def test_lengths_that_are_not_known() -> None:
    numbers = Pipeline.from_tensor_slices(np.arange(4))
    assert numbers.repeat().cardinality() == -1 and numbers.filter(lambda x: x > 1).cardinality() == -2
    for endless in (numbers.repeat(), numbers.filter(lambda x: True)):
        assert endless
        with pytest.raises(TypeError, match="the pipeline has"):
            len(endless)


def test_shuffling_follows_the_seed_and_the_pass() -> None:
    def orders(**told: Any) -> list[list[int]]:
        pipeline = Pipeline.from_tensor_slices(np.arange(20)).shuffle(20, **told)
        return [[int(x) for x in pipeline] for _ in range(2)]

    first, second = orders(seed=1)
    assert sorted(first) == sorted(second) == list(range(20)) and first != second != list(range(20))
    assert orders(seed=1) == [first, second] != orders(seed=2)
    same = orders(seed=1, reshuffle_each_iteration=False)
    assert same[0] == same[1]
    local = [int(x) for x in Pipeline.from_tensor_slices(np.arange(20)).shuffle(3)]
    assert all(x - place < 3 for place, x in enumerate(local)) and local != list(range(20))
    repeated = [int(x) for x in Pipeline.from_tensor_slices(np.arange(20)).shuffle(20, 1).repeat(2)]
    assert repeated[:20] != repeated[20:]


def test_the_default_seed_is_that_of_the_session() -> None:
    def order() -> list[int]:
        return [int(x) for x in Pipeline.from_tensor_slices(np.arange(20)).shuffle(20)]

    before = order()
    try:
        utils.set_random_seed(5)
        assert order() != before
    finally:
        utils.set_random_seed(0)
    assert order() == before


def test_elements_are_made_late_and_cached_once() -> None:
    made: list[int] = []

    def note(x: Any) -> Any:
        made.append(int(x))
        return x

    pipeline = Pipeline.from_tensor_slices(np.arange(5)).map(note)
    assert made == []
    assert [int(x) for x in itertools.islice(pipeline, 2)] == [0, 1] == made
    cached = pipeline.cache()
    made.clear()
    assert [int(x) for x in cached] == [int(x) for x in cached] == [0, 1, 2, 3, 4]
    assert made == [0, 1, 2, 3, 4]


def test_elements_are_made_ahead() -> None:
    made: list[int] = []
    threads = threading.active_count()

    def slow(x: Any) -> Any:
        if x == 4:
            raise DataError("the fifth is bad")
        made.append(int(x))
        return x, ul.config.floatx()

    with ul.config.dtype_scope("float64"):
        elements = iter(Pipeline.from_tensor_slices(np.arange(9)).map(slow).prefetch(2))
        assert made == []
        assert next(elements) == (0, "float64")  # the thread has the settings of the one that asks
    deadline = time.monotonic() + 20
    while len(made) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert made[:3] == [0, 1, 2]  # two wait before they are asked for
    assert [int(x) for x, _ in itertools.islice(elements, 3)] == [1, 2, 3]
    with pytest.raises(DataError, match="the fifth is bad"):
        next(elements)
    left = iter(Pipeline.from_tensor_slices(np.arange(9)).repeat().prefetch())
    next(left)
    left.close()
    while threading.active_count() > threads and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() <= threads


def test_layers_may_change_elements() -> None:
    pipeline = Pipeline.from_tensor_slices((np.full((4, 2), 255.0, "float32"), np.arange(4))).batch(2)
    scaled = pipeline.map(lambda x, y: (layers.Rescaling(1 / 255)(x), y))
    assert [x.tolist() for x, _ in scaled] == [[[1.0, 1.0], [1.0, 1.0]]] * 2


def test_pipeline_rejects() -> None:
    with pytest.raises(DataError, match="not one length"):
        Pipeline.from_tensor_slices((np.arange(3), np.arange(4)))
    with pytest.raises(DataError, match="no cache in a file"):
        Pipeline.from_tensor_slices(np.arange(3)).cache("here")


# ---- folders ------------------------------------------------------------------------------------------------------


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    for name, count in (("cat", 3), ("ant", 4), ("bee", 2)):
        (tmp_path / name / "inner").mkdir(parents=True)
        for i in range(count):
            picture = RNG.integers(0, 256, (5 + i, 7, 3)).astype("uint8")
            folder = tmp_path / name / "inner" if i == 2 else tmp_path / name
            utils.save_img(folder / f"{i}.png", picture, scale=False)
    (tmp_path / "cat" / "note.md").write_text("no picture")
    (tmp_path / ".hidden").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    "told",
    [
        {},
        {"label_mode": "categorical", "batch_size": 4},
        {"label_mode": "binary", "class_names": ["bee", "ant"]},
        {"labels": None},
        {"label_mode": None, "crop_to_aspect_ratio": True},
        {"labels": list(range(9)), "interpolation": "nearest"},
        {"batch_size": None},
        {"color_mode": "rgba", "data_format": "channels_first", "validation_split": 0.3, "subset": "validation"},
        {"validation_split": 0.3, "subset": "training"},
    ],
    ids=str,
)
def test_pictures_from_a_folder(pictures: Path, told: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    told = {"image_size": (6, 4), "shuffle": False, **told}
    ours, theirs = (lib.utils.image_dataset_from_directory(str(pictures), **told) for lib in (ul, keras))
    assert ours.class_names == theirs.class_names and ours.file_paths == theirs.file_paths
    found, expected = list(ours), list(theirs.as_numpy_iterator())
    assert len(ours) == len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        for one, two in zip(tree.flatten(a), tree.flatten(b), strict=True):
            two = two.astype("float32") if two.dtype == "uint8" else two  # which Keras leaves so for "nearest"
            assert_close(np.asarray(one), np.asarray(two), rtol=0, atol=1e-3, what=f"folder {told}")
    assert capsys.readouterr().out.startswith("Found ")


def test_padded_pictures(pictures: Path) -> None:
    told = {"image_size": (6, 4), "pad_to_aspect_ratio": True, "shuffle": False, "labels": None, "verbose": False}
    fit = keras.layers.Resizing(6, 4, pad_to_aspect_ratio=True)
    data = utils.image_dataset_from_directory(pictures, batch_size=None, **told)
    for path, x in zip(data.file_paths, data, strict=True):
        expected = np.asarray(fit(keras.utils.img_to_array(keras.utils.load_img(path))))
        assert_close(x, expected, rtol=0, atol=1e-3, what=path)


def test_a_split_holds_the_same_files_as_keras(pictures: Path) -> None:
    told = {"validation_split": 0.4, "subset": "both", "seed": 7, "verbose": False}
    for ours, theirs in zip(
        *(lib.utils.image_dataset_from_directory(str(pictures), **told) for lib in (ul, keras)), strict=True
    ):
        assert sorted(ours.file_paths) == sorted(theirs.file_paths)
    alone = {**told, "subset": "training"}
    assert utils.image_dataset_from_directory(pictures, **alone).file_paths == (
        utils.image_dataset_from_directory(pictures, **told)[0].file_paths
    )


def test_pictures_come_in_another_order_each_epoch_with_their_labels(pictures: Path) -> None:
    data = utils.image_dataset_from_directory(pictures, image_size=4, batch_size=2, seed=1, verbose=False)
    plain = utils.image_dataset_from_directory(pictures, image_size=4, batch_size=None, shuffle=False, verbose=False)
    labels = {x.tobytes(): int(y) for x, y in plain}
    orders = []
    for _ in range(2):
        samples = list(data.unbatch())
        assert all(labels[x.tobytes()] == y for x, y in samples)
        orders.append([x.tobytes() for x, _ in samples])
    assert sorted(orders[0]) == sorted(orders[1]) == sorted(labels) and orders[0] != orders[1]


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"label_mode": "binary"}, "binary labels need two classes"),
        ({"class_names": ["dog"]}, r"no folder 'dog'. Valid names: ant, bee, cat|Did you mean"),
        ({"labels": [1]}, "labels that do not fit the files. Expected 'inferred', None or 9 labels. Received 1 labels"),
        ({"labels": [0] * 9, "class_names": ["cat"]}, "class names beside labels"),
        ({"validation_split": 0.2}, "validation_split and subset go together"),
        ({"validation_split": 0.2, "subset": "training"}, "needs a seed"),
        ({"validation_split": 0.01, "subset": "training", "seed": 1}, "a part without files"),
        ({"subset": "test"}, "unknown subset 'test'"),
        ({"color_mode": "grey"}, "unknown color_mode 'grey'"),
        ({"label_mode": "float"}, "unknown label_mode 'float'"),
    ],
    ids=lambda x: str(x)[:40],
)
def test_folders_reject(pictures: Path, told: dict[str, Any], message: str) -> None:
    with pytest.raises(UnilayersError, match=message):
        utils.image_dataset_from_directory(pictures, verbose=False, **told)


def test_folders_without_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no folders of classes"):
        utils.image_dataset_from_directory(tmp_path)
    with pytest.raises(DataError, match="no such folder"):
        utils.image_dataset_from_directory(tmp_path / "nowhere")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"x\.png: no picture that can be read"):
        list(utils.image_dataset_from_directory(tmp_path, verbose=False))


def test_texts_from_a_folder(tmp_path: Path) -> None:
    texts = {"bad/1.txt": "dull", "bad/2.txt": "déjà vu", "good/1.txt": "a feast"}
    for name, text in texts.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    told = {"shuffle": False, "batch_size": 2, "verbose": False}
    ours, theirs = (lib.utils.text_dataset_from_directory(str(tmp_path), **told) for lib in (ul, keras))
    for (x, y), (a, b) in zip(ours, theirs.as_numpy_iterator(), strict=True):
        assert x.tolist() == [text.decode() for text in a] and x.dtype == object
        assert_close(y, b, rtol=0, atol=0, what="labels")
    (short, _), *_ = utils.text_dataset_from_directory(tmp_path, max_length=3, **told)
    assert short.tolist() == ["dul", "déj"]
    words = layers.TextVectorization()
    words.adapt(ours.map(lambda x, y: x))
    assert "feast" in words.get_vocabulary()
    (tmp_path / "bad" / "2.txt").write_bytes(b"\xff\xfe\xfd")
    with pytest.raises(DataError, match=r"2\.txt: not a readable text. Expected UTF-8"):
        list(ours)


def write_wav(path: Path, values: np.ndarray, rate: int = 100, width: int = 2) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(values.shape[1])
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(values.astype({1: "u1", 2: "<i2", 4: "<i4"}[width]).tobytes())


@pytest.mark.parametrize("length", [None, 5, 12])
def test_sounds_from_a_folder(tmp_path: Path, length: int | None) -> None:
    for i, n in enumerate((8, 10, 3)):
        write_wav(tmp_path / "ab"[i % 2] / f"{i}.wav", RNG.integers(-30000, 30000, (n, 1)))
    told = {"shuffle": False, "batch_size": 2, "output_sequence_length": length, "verbose": False}
    ours, theirs = (lib.utils.audio_dataset_from_directory(str(tmp_path), **told) for lib in (ul, keras))
    for (x, y), (a, b) in zip(ours, theirs.as_numpy_iterator(), strict=True):
        assert_close(x, a, rtol=0, atol=1e-6, what="sounds")
        assert_close(y, b, rtol=0, atol=0, what="labels")


@pytest.mark.parametrize(
    ("width", "values"), [(1, [0, 128, 255]), (2, [-32768, 0, 32767]), (4, [-(2**31), 0, 2**31 - 1])]
)
def test_widths_of_sounds(tmp_path: Path, width: int, values: list[int]) -> None:
    write_wav(tmp_path / "x.wav", np.array(values)[:, None].repeat(2, 1), 44100, width)
    sound, rate = read_wav(tmp_path / "x.wav")
    assert rate == 44100 and sound.shape == (3, 2)
    assert_close(sound[:, 0], np.array([-1, 0, 1], "float32"), rtol=0, atol=0.01, what="values")


@pytest.mark.parametrize("rate", [50, 60, 130, 300])
@pytest.mark.parametrize("n", [40, 41])
def test_resampled_sounds(tmp_path: Path, rate: int, n: int) -> None:
    signal = pytest.importorskip("scipy.signal")
    values = RNG.integers(-30000, 30000, (n, 1))
    write_wav(tmp_path / "a" / "x.wav", values)
    told = {"sampling_rate": rate, "batch_size": None, "labels": None, "verbose": False}
    (found,) = utils.audio_dataset_from_directory(tmp_path, **told)
    expected = signal.resample(values / 32768, round(n * rate / 100)).astype("float32")
    assert_close(found, expected, rtol=0, atol=1e-5, what="resampled")


def test_sounds_reject(tmp_path: Path) -> None:
    with pytest.raises(UnilayersError, match="no ragged arrays"):
        utils.audio_dataset_from_directory(tmp_path, ragged=True)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.wav").write_bytes(b"RIFF")
    with pytest.raises(DataError, match="not a WAV file that can be read"):
        list(utils.audio_dataset_from_directory(tmp_path, verbose=False))


# ---- pictures -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("data_format", [None, "channels_first"])
def test_pictures_there_and_back(tmp_path: Path, channels: int, data_format: str | None) -> None:
    x = RNG.integers(0, 256, (5, 6, channels)).astype("float32")
    given = x if data_format is None else x.transpose(2, 0, 1)
    utils.save_img(tmp_path / "x.png", given, data_format, scale=False)
    mode = {1: "grayscale", 3: "rgb", 4: "rgba"}[channels]
    for lib in (ul, keras):
        picture = lib.utils.load_img(tmp_path / "x.png", color_mode=mode)
        assert_close(lib.utils.img_to_array(picture, data_format), given, rtol=0, atol=0, what=lib.__name__)


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"])
def test_loaded_pictures_of_another_size(tmp_path: Path, keep: bool, interpolation: str) -> None:
    utils.save_img(tmp_path / "x.png", RNG.integers(0, 256, (20, 30, 3)), scale=False)
    told = {"target_size": (7, 9), "interpolation": interpolation, "keep_aspect_ratio": keep}
    ours, theirs = (np.asarray(lib.utils.load_img(str(tmp_path / "x.png"), **told)) for lib in (ul, keras))
    np.testing.assert_array_equal(ours, theirs)


def test_scaled_pictures_and_formats(tmp_path: Path) -> None:
    x = RNG.normal(size=(4, 5, 3))
    np.testing.assert_array_equal(np.asarray(utils.array_to_img(x)), np.asarray(keras.utils.array_to_img(x)))
    for name in ("x.jpg", "x.bmp"):
        utils.save_img(tmp_path / name, RNG.normal(size=(4, 5, 4)) if name == "x.jpg" else x)
        assert utils.load_img(tmp_path / name).size == (5, 4)
    sink = io.BytesIO()
    utils.save_img(sink, x, file_format="png")
    sink.seek(0)
    assert utils.load_img(sink).size == (5, 4)
    deep = np.array([[[0.0], [70000.0]]])
    np.testing.assert_array_equal(np.asarray(utils.array_to_img(deep, scale=False)), deep[..., 0].astype("int32"))


def test_smart_resize() -> None:
    x = RNG.uniform(size=(2, 10, 16, 3)).astype("float32")
    for given in (x, x[0]):
        theirs = keras.preprocessing.image.smart_resize(given, (4, 4), data_format="channels_last")
        assert_close(smart_resize(given, (4, 4)), np.asarray(theirs), rtol=0, atol=1e-5, what="smart_resize")


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (lambda p: utils.load_img(p / "none.png"), "no picture that can be read"),
        (lambda p: utils.load_img(p, color_mode="hsv"), "load_img: unknown color_mode 'hsv'"),
        (lambda p: utils.load_img(p, interpolation="cubic"), "Did you mean 'bicubic'"),
        (lambda p: utils.array_to_img(np.zeros((2, 2))), "array_to_img: not a picture"),
        (lambda p: utils.array_to_img(np.zeros((2, 2, 5))), "3 axes with 1, 3 or 4 channels"),
        (lambda p: utils.img_to_array(np.zeros(3)), "img_to_array: not a picture"),
        (lambda p: utils.img_to_array(np.zeros((3, 3)), "last"), "unknown data_format 'last'"),
        (lambda p: smart_resize(np.zeros((2, 2, 1)), (1, 1), size=3), "unexpected|multiple|unknown argument"),
    ],
)
def test_pictures_reject(action: Callable[[Path], object], message: str, tmp_path: Path) -> None:
    with pytest.raises((UnilayersError, TypeError), match=message):
        action(tmp_path)


# ---- files --------------------------------------------------------------------------------------------------------

MD5, SHA = "49f68a5c8493ec2c0bf489821c21fc3b", "8f434346648f6b96df89dda901c5176b10a6d83961dd3c1ac88b59b2dc327aa4"  # hi


@pytest.fixture
def origin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("UNILAYERS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "a.txt").write_text("hi")
    return tmp_path / "there"


@pytest.mark.parametrize(
    "told", [{}, {"file_hash": SHA}, {"md5_hash": MD5}, {"file_hash": MD5, "hash_algorithm": "md5"}]
)
def test_files_are_fetched_once(origin: Path, told: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    address = (origin / "a.txt").as_uri()
    path = Path(utils.get_file(origin=address, **told))
    assert path == origin.parent / "cache" / "datasets" / "a.txt" and path.read_text() == "hi"
    assert capsys.readouterr().out == f"Fetching {address}\n"
    (origin / "a.txt").unlink()
    assert utils.get_file(origin=address, **told) == str(path)
    assert capsys.readouterr().out == ""


def test_a_file_that_changed_is_fetched_again(origin: Path) -> None:
    address = (origin / "a.txt").as_uri()
    path = Path(utils.get_file("b.txt", address, cache_subdir="x", cache_dir=origin / "mine", file_hash=SHA))
    assert path == origin / "mine" / "x" / "b.txt"
    path.write_text("damaged")
    utils.get_file("b.txt", address, cache_subdir="x", cache_dir=origin / "mine", file_hash=SHA)
    assert path.read_text() == "hi"
    (origin / "a.txt").write_text("new")
    assert Path(utils.get_file("b.txt", address, cache_subdir="x", cache_dir=origin / "mine")).read_text() == "hi"
    utils.get_file("b.txt", address, cache_subdir="x", cache_dir=origin / "mine", force_download=True)
    assert path.read_text() == "new"


def test_files_that_cannot_be_fetched(origin: Path) -> None:
    place = origin.parent / "cache" / "datasets" / "b.txt"
    with pytest.raises(DataError, match="cannot fetch the file") as caught:
        utils.get_file(origin=(origin / "b.txt").as_uri())
    assert f"save it as {place}" in str(caught.value)
    with pytest.raises(DataError, match="the file has another hash"):
        utils.get_file("b.txt", (origin / "a.txt").as_uri(), file_hash=MD5[::-1])
    assert list(place.parent.iterdir()) == []  # nothing half done is left
    with pytest.raises(UnilayersError, match="no address to fetch from"):
        utils.get_file("a.txt")


class HalfServer(BaseHTTPRequestHandler):
    """Promises ten bytes and gives six, or all where the address says so."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "10")
        self.end_headers()
        self.wfile.write(b"0123456789" if "whole" in self.path else b"012345")

    def log_message(self, *args: Any) -> None:
        pass


def test_downloads_cut_short_are_not_taken(origin: Path) -> None:
    with HTTPServer(("127.0.0.1", 0), HalfServer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        try:
            with pytest.raises(DataError, match=r"cannot fetch the file. Received .*6"):
                utils.get_file(origin=f"{address}/half.bin")
            path = Path(utils.get_file(origin=f"{address}/whole.bin?a=b"))
        finally:
            server.shutdown()
    assert path.read_bytes() == b"0123456789"
    assert [p.name for p in path.parent.iterdir()] == ["whole.bin"]


@pytest.mark.parametrize("kind", ["z.zip", "z.tar", "z.tar.gz", "z.tgz"])
def test_archives_are_unpacked(origin: Path, kind: str) -> None:
    archive = origin / kind
    if kind.endswith("zip"):
        with zipfile.ZipFile(archive, "w") as file:
            file.write(origin / "a.txt", "in/a.txt")
    else:
        with tarfile.open(archive, "w:gz" if kind.endswith("gz") else "w") as file:
            file.add(origin / "a.txt", "in/a.txt")
    for _ in range(2):
        folder = Path(utils.get_file("z", archive.as_uri(), extract=True))
        assert folder.name == "z" and (folder / "in" / "a.txt").read_text() == "hi"
    theirs = Path(keras.utils.get_file("z", archive.as_uri(), extract=True, cache_dir=str(origin / "keras")))
    assert sorted(p.relative_to(theirs) for p in theirs.rglob("*")) == sorted(
        p.relative_to(folder) for p in folder.rglob("*")
    )


def test_archives_that_cannot_be_unpacked(origin: Path) -> None:
    with tarfile.open(origin / "evil.tar", "w") as file:
        file.add(origin / "a.txt", "../../escaped.txt")
    with pytest.raises(DataError, match="the archive cannot be unpacked"):
        utils.get_file("evil", (origin / "evil.tar").as_uri(), extract=True)
    assert not list(origin.parent.rglob("escaped.txt"))
    (origin / "cut.zip").write_bytes(b"PK\x03\x04")
    with pytest.raises(DataError, match="the archive cannot be unpacked"):
        utils.get_file("cut", (origin / "cut.zip").as_uri(), extract=True)
    with pytest.raises(DataError, match=r"no archive that can be unpacked. Expected tar or zip. Received a.txt"):
        utils.get_file("a", (origin / "a.txt").as_uri(), untar=True)


# ---- what is told ---------------------------------------------------------------------------------------------------


def test_progress(capsys: pytest.CaptureFixture[str]) -> None:
    bar = utils.Progbar(4, width=4, interval=0, stateful_metrics=["acc"])
    for step in range(1, 5):
        bar.update(step, [("loss", step), ("acc", step / 4)])
    shown = capsys.readouterr().out
    lines = shown.split("\r")
    assert [line.split()[:2] for line in lines[1:]] == [
        ["1/4", "━╌╌╌"], ["2/4", "━━╌╌"], ["3/4", "━━━╌"], ["4/4", "━━━━"],
    ]  # fmt: skip
    assert lines[-1].endswith("loss: 2.5000 - acc: 1.0000\n") and "s/step" in shown


def test_progress_without_an_end_or_a_bar(capsys: pytest.CaptureFixture[str]) -> None:
    bar = utils.Progbar(None, interval=0, unit_name="file", stateless_metrics=["a"])
    bar.add(3, [("a", 2.0), ("b", 1.0)])
    bar.update(4, [("a", 6.0), ("b", 3.0)], finalize=True)
    assert capsys.readouterr().out.split("\r")[2].startswith("4/? ") and bar._values() == "a: 3.0000 - b: 3.0000"
    utils.Progbar(2, verbose=0).update(2)
    assert capsys.readouterr().out == ""


def test_messages_can_go_to_the_log(capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "unilayers")
    utils.disable_interactive_logging()
    try:
        assert not utils.is_interactive_logging_enabled()
        utils.Progbar(1, verbose=2).update(1)
    finally:
        utils.enable_interactive_logging()
    assert capsys.readouterr().out == "" and [r.message for r in caplog.records] == ["1/1"]


# ---- small helpers ------------------------------------------------------------------------------------------------


def test_set_random_seed_is_for_scripts() -> None:
    drawn = []
    for seed in (3, 3, 4):
        utils.set_random_seed(seed)
        drawn.append((python_random.random(), np.random.rand(), ul.random.default_seed()))  # noqa: NPY002
    utils.set_random_seed(0)
    assert drawn[0] == drawn[1] != drawn[2]


DTYPES = ("bool", "int8", "uint8", "int16", "int32", "int64", "float16", "bfloat16", "float32", "float64")


@pytest.mark.parametrize("a", [*DTYPES, int, float])
def test_result_type(a: Any) -> None:
    for b in (*DTYPES, int, float):
        if "64" in f"{a}{b}":  # which Keras narrows
            assert "64" in ul.backend.result_type(a, b) or "float" in f"{a}{b}"
            continue
        assert ul.backend.result_type(a, b) == keras.backend.result_type(a, b), (a, b)


def test_dtypes() -> None:
    for dtype in (np.float64, np.dtype("int8"), "float16", int, bool, float, None):
        assert utils.standardize_dtype(dtype) == keras.utils.standardize_dtype(dtype)
    assert ul.backend.is_float_dtype("bfloat16") and not ul.backend.is_float_dtype("int8")
    assert ul.backend.is_int_dtype("uint8") and not ul.backend.is_int_dtype("bool")
    with pytest.raises(DTypeError, match="unknown dtype 'float23'"):
        utils.standardize_dtype("float23")


def test_symbolic_values_and_their_sources() -> None:
    a, b = ul.Input((4,)), ul.Input((4,))
    y = layers.Add()([layers.Dense(4)(a) * 2.0, b])
    assert utils.is_keras_tensor(y) and isinstance(y, ul.KerasTensor) and not utils.is_keras_tensor(np.zeros(2))
    assert [v is w for v, w in zip(utils.get_source_inputs(y), [a, b], strict=True)] == [True, True]
    assert utils.get_source_inputs(a) == [a]
    with ul.name_scope("head") as name:
        assert name == "head"
    utils.clear_session()


@pytest.mark.parametrize("given", [(1,), ([1, 2],), (1, 2), (1, 2, 3)])
def test_packed_batches(given: tuple[Any, ...]) -> None:
    packed = utils.pack_x_y_sample_weight(*given)
    assert packed == keras.utils.pack_x_y_sample_weight(*given)
    assert utils.unpack_x_y_sample_weight(packed) == keras.utils.unpack_x_y_sample_weight(packed)
    with pytest.raises(DataError, match="not a batch"):
        utils.unpack_x_y_sample_weight((1, 2, 3, 4))


def test_config() -> None:
    config = utils.Config(a=1)
    config.b = [2]
    config["c"] = 3
    assert config.as_dict() == dict(config) == {"a": 1, "b": [2], "c": 3} and config.a == 1 and "b" in config
    assert config.pop("c") == 3 and len(config) == 2 and repr(config) == "Config(a=1, b=[2])"
    config.freeze()
    for change in (lambda: config.update(a=2), lambda: config.pop("a"), lambda: setattr(config, "a", 2)):
        with pytest.raises(UnilayersError, match="the config is frozen"):
            change()
    config.unfreeze()
    config.update(a=2)
    assert config.a == 2 and not config.frozen
    with pytest.raises(AttributeError, match="no value 'z'"):
        _ = config.z


def test_settings_that_are_settled() -> None:
    for module in (ul.backend, ul.config):
        assert module.backend() == ul.get_backend().name
        assert module.epsilon() == keras.config.epsilon() == ul.losses.EPSILON == ul.constraints.EPSILON
        assert module.image_data_format() == "channels_last" and module.floatx() == "float32"
        module.set_epsilon(1e-7)
        module.set_image_data_format("channels_last")
        with pytest.raises(UnilayersError, match="set_epsilon: cannot be changed for all"):
            module.set_epsilon(1e-3)
        with pytest.raises(UnilayersError, match="set_image_data_format: cannot be changed for all"):
            module.set_image_data_format("channels_first")
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = ul.backend.nothing


# ---- nested structures ----------------------------------------------------------------------------------------------

Pair = namedtuple("Pair", "a b")
NESTED = [
    1, None, [], {}, [1, [2, (3,)]], {"b": 1, "a": {"d": [2], "c": None}}, (1, {"x": 2}), Pair(1, [2]),
    OrderedDict([("b", 1), ("a", 2)]),
]  # fmt: skip


@pytest.mark.parametrize("structure", NESTED, ids=str)
def test_tree_is_that_of_keras(structure: Any) -> None:
    ours, theirs = tree, pytest.importorskip("keras.src.tree.optree_impl")
    assert ours.is_nested(structure) == theirs.is_nested(structure)
    leaves = ours.flatten(structure)
    assert leaves == theirs.flatten(structure)
    assert [(tuple(p), leaf) for p, leaf in ours.flatten_with_path(structure)] == [
        (tuple(p), leaf) for p, leaf in theirs.flatten_with_path(structure)
    ]
    numbers = list(range(10, 10 + len(leaves)))
    for found, expected in (
        (ours.pack_sequence_as(structure, numbers), theirs.pack_sequence_as(structure, numbers)),
        (ours.map_structure(repr, structure), theirs.map_structure(repr, structure)),
        (ours.lists_to_tuples(structure), theirs.lists_to_tuples(structure)),
    ):
        assert found == expected and type(found) is type(expected)
        assert not isinstance(found, dict) or list(found) == list(expected)


def test_tree_of_several_structures() -> None:
    assert tree.map_structure(lambda a, b: a - b, {"x": 3, "y": [4]}, {"y": [1], "x": 1}) == {"x": 2, "y": [3]}
    assert tree.map_structure(lambda x: 0, [None, 1], none_is_leaf=False) == [None, 0]
    assert tree.map_structure_up_to([1, 1], lambda a, b: (a, b), [[1, 2], 3], [[4], 5]) == [([1, 2], [4]), (3, 5)]
    assert tree.map_shape_structure(lambda s: s[1:], [(1, None), {"a": (2, 3)}]) == [(None,), {"a": (3,)}]


@pytest.mark.parametrize("top_down", [True, False])
def test_traverse(top_down: bool) -> None:
    def rule(none: Any) -> Callable[[Any], Any]:
        return lambda x: none if x == 1 else "pair" if isinstance(x, list) and len(x) == 2 else None

    given = [1, [2, 3], {"a": [1]}]
    ours = tree.traverse(rule(tree.MAP_TO_NONE()), given, top_down)
    assert ours == [None, "pair", {"a": [None]}]
    theirs = keras.tree.traverse(rule(keras.tree.MAP_TO_NONE), given, top_down)
    assert ours == theirs


@pytest.mark.parametrize(
    "pair", [((1, 2), [1, 2]), ([1, [2]], [1, 2]), ((1, 2), (1, 2, 3)), ({"a": 1}, {"b": 1})], ids=str
)
def test_structures_that_differ(pair: tuple[Any, Any]) -> None:
    for check, error in ((tree.assert_same_structure, UnilayersError), (keras.tree.assert_same_structure, ValueError)):
        with pytest.raises(error):
            check(*pair)
    tree.assert_same_structure({"a": [1]}, {"a": [None]})
    tree.assert_same_paths([1, 2], (3, 4))
    with pytest.raises(UnilayersError, match="paths differ"):
        tree.assert_same_paths([1], [1, 2])
    with pytest.raises(UnilayersError, match=r"leaves do not fit. Expected 2. Received 1"):
        tree.pack_sequence_as([1, 2], [1])
    with pytest.raises(UnilayersError, match="not a shape"):
        tree.map_shape_structure(len, ["a"])


# ---- names ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "module", ["utils", "saving", "tree", "datasets", "backend", "preprocessing", "preprocessing.image"]
)
def test_names_are_those_of_keras(module: str) -> None:
    ours, theirs = ul, keras
    for part in module.split("."):
        ours, theirs = getattr(ours, part), getattr(theirs, part)
    left_out = {"FeatureSpace", "PyDataset", "Sequence", "bounding_boxes", "legacy", "KerasFileEditor", "get_uid"}
    missing = [n for n in dir(theirs) if not n.startswith("_") and n not in left_out and not hasattr(ours, n)]
    assert missing == []
