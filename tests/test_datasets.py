"""Well-known data sets, read from small files of their formats that lie in the cache, as Keras reads them."""

from __future__ import annotations

import gzip
import importlib
import inspect
import json
import pickle
import pkgutil
import tarfile
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import unilayers as ul
from tests.compare import assert_close
from unilayers import datasets
from unilayers.datasets.reading import read_archive
from unilayers.errors import DataError, UnilayersError

keras = pytest.importorskip("keras")
RNG = np.random.default_rng(0)
NAMES = [m.name for m in pkgutil.iter_modules(datasets.__path__) if m.name != "reading"]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache whose files are believed: they are not the real ones, so their hashes differ."""
    monkeypatch.setenv("UNILAYERS_CACHE", str(tmp_path))
    for name in NAMES:
        for constant in ("HASH", "WORDS_HASH"):
            monkeypatch.setattr(f"unilayers.datasets.{name}.{constant}", None, raising=False)
    (tmp_path / "datasets").mkdir()
    return tmp_path / "datasets"


def same(name: str, cache: Path, monkeypatch: pytest.MonkeyPatch, **told: Any) -> None:
    """What both libraries make of one file."""
    theirs: ModuleType = importlib.import_module(f"keras.src.datasets.{name}")

    def get_file(fname: str, *args: Any, **kwargs: Any) -> str:
        return str(cache / fname)

    monkeypatch.setattr(theirs, "get_file", get_file)
    parts, expected = getattr(datasets, name).load_data(**told), theirs.load_data(**told)
    for (x, y), (a, b) in zip(parts, expected, strict=True):
        assert_close(y, b, rtol=0, atol=0, what=f"{name} targets")
        if x.dtype == object:
            assert x.dtype == a.dtype and [list(s) for s in x] == [list(s) for s in a]
        else:
            assert_close(x, a, rtol=0, atol=0, what=name)


def test_every_data_set_has_keras_signature() -> None:
    assert sorted(NAMES) == sorted(datasets.__all__)
    for name in set(NAMES) - {"digits"}:
        ours, theirs = (inspect.signature(getattr(lib.datasets, name).load_data).parameters for lib in (ul, keras))
        assert [(p.name, p.default) for p in ours.values()] == [(p.name, p.default) for p in theirs.values()], name


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"digits"}))
def test_offline_says_where_to_put_the_file(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(address: str, timeout: float) -> Any:
        raise OSError("no network")

    monkeypatch.setenv("UNILAYERS_CACHE", str(tmp_path))
    monkeypatch.setattr("urllib.request.urlopen", refuse)
    with pytest.raises(DataError) as caught:
        getattr(datasets, name).load_data()
    text = str(caught.value)
    assert text.startswith("https://") and "Received no network" in text and f"save it as {tmp_path}" in text


def test_mnist(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arrays = {f"x_{part}": RNG.integers(0, 256, (n, 28, 28)).astype("uint8") for part, n in (("train", 5), ("test", 3))}
    arrays |= {f"y_{part}": RNG.integers(0, 10, n).astype("uint8") for part, n in (("train", 5), ("test", 3))}
    np.savez(cache / "mnist.npz", **arrays)
    same("mnist", cache, monkeypatch)


def test_fashion_mnist(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = cache / "fashion-mnist"
    folder.mkdir()
    for part, n in (("train", 5), ("t10k", 3)):
        images, labels = RNG.integers(0, 256, n * 784).astype("uint8"), RNG.integers(0, 10, n).astype("uint8")
        head = b"\0\0\x08\x03" + b"".join(size.to_bytes(4, "big") for size in (n, 28, 28))
        with gzip.open(folder / f"{part}-images-idx3-ubyte.gz", "wb") as file:
            file.write(head + images.tobytes())
        with gzip.open(folder / f"{part}-labels-idx1-ubyte.gz", "wb") as file:
            file.write(b"\0\0\x08\x01" + n.to_bytes(4, "big") + labels.tobytes())
    same("fashion_mnist", folder, monkeypatch)


def packed(archive: Path, folder: Path) -> None:
    with tarfile.open(archive, "w:gz") as file:
        file.add(folder, folder.name)


def test_cifar10(cache: Path, tmp_path: Path) -> None:
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    images, labels = RNG.integers(0, 256, (12, 3, 32, 32)).astype("uint8"), RNG.integers(0, 10, (12, 1)).astype("uint8")
    for i, name in enumerate([*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"]):
        rows = slice(2 * i, 2 * i + 2)
        records = np.concatenate([labels[rows], images[rows].reshape(2, -1)], axis=1)
        (folder / f"{name}.bin").write_bytes(records.tobytes())
    packed(cache / "cifar-10-binary_archive", folder)
    (x, y), (x_test, y_test) = datasets.cifar10.load_data()
    assert x.shape == (10, 32, 32, 3) and x.dtype == y.dtype == np.uint8 and y_test.shape == (2, 1)
    np.testing.assert_array_equal(np.concatenate([x, x_test]), images.transpose(0, 2, 3, 1))
    np.testing.assert_array_equal(np.concatenate([y, y_test]), labels)


@pytest.mark.parametrize("label_mode", ["coarse", "fine"])
def test_cifar100(cache: Path, tmp_path: Path, label_mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The binary version gives what Keras reads from the version for Python."""
    binary, python = tmp_path / "cifar-100-binary", cache / "cifar-100-python-target" / "cifar-100-python"
    binary.mkdir()
    python.mkdir(parents=True)
    for part, n in (("train", 4), ("test", 3)):
        images = RNG.integers(0, 256, (n, 3072)).astype("uint8")
        coarse, fine = RNG.integers(0, 20, (n, 1)), RNG.integers(0, 100, (n, 1))
        records = np.concatenate([coarse, fine, images], axis=1).astype("uint8")
        (binary / f"{part}.bin").write_bytes(records.tobytes())
        labels = {b"coarse_labels": coarse[:, 0].tolist(), b"fine_labels": fine[:, 0].tolist()}
        (python / part).write_bytes(pickle.dumps({b"data": images, **labels}))
    packed(cache / "cifar-100-binary_archive", binary)
    same("cifar100", cache, monkeypatch, label_mode=label_mode)


def test_cifar_rejects(cache: Path, tmp_path: Path) -> None:
    with pytest.raises(UnilayersError, match="unknown label_mode"):
        datasets.cifar100.load_data("medium")
    folder = tmp_path / "cifar-100-binary"
    folder.mkdir()
    (folder / "train.bin").write_bytes(b"\0" * 3075)
    packed(cache / "cifar-100-binary_archive", folder)
    with pytest.raises(DataError, match=r"not a file of CIFAR-100's binary version. Expected a multiple of 3074 bytes"):
        datasets.cifar100.load_data()


def sequences(n: int) -> np.ndarray:
    made = np.empty(n, dtype=object)
    for i in range(n):
        made[i] = RNG.integers(1, 40, int(RNG.integers(1, 9))).tolist()
    return made


WORDS: list[dict[str, Any]] = [
    {},
    {"num_words": 20, "skip_top": 5},
    {"num_words": 20, "oov_char": None},
    {"start_char": None, "index_from": 0, "seed": 3},
    {"maxlen": 6},
]


@pytest.mark.parametrize("told", WORDS, ids=str)
def test_imdb(cache: Path, monkeypatch: pytest.MonkeyPatch, told: dict[str, Any]) -> None:
    arrays = {"x_train": sequences(30), "x_test": sequences(20)}
    np.savez(cache / "imdb.npz", **arrays, y_train=RNG.integers(0, 2, 30), y_test=RNG.integers(0, 2, 20))
    same("imdb", cache, monkeypatch, **told)
    with pytest.raises(DataError, match="no sequence is short enough"):
        datasets.imdb.load_data(maxlen=1)


@pytest.mark.parametrize("told", [*WORDS, {"test_split": 0.5}], ids=str)
def test_reuters(cache: Path, monkeypatch: pytest.MonkeyPatch, told: dict[str, Any]) -> None:
    np.savez(cache / "reuters.npz", x=sequences(30), y=RNG.integers(0, 46, 30))
    same("reuters", cache, monkeypatch, **told)


def test_words(cache: Path) -> None:
    for name in ("imdb", "reuters"):
        (cache / f"{name}_word_index.json").write_text(json.dumps({"the": 1, "é": 2}))
        assert getattr(datasets, name).get_word_index() == {"the": 1, "é": 2}
    assert datasets.reuters.get_label_names() == tuple(keras.datasets.reuters.get_label_names())


@pytest.mark.parametrize("told", [{}, {"test_split": 0.4, "seed": 1}, {"test_split": 0.0}], ids=str)
@pytest.mark.parametrize("name", ["boston_housing", "california_housing"])
def test_houses(name: str, cache: Path, monkeypatch: pytest.MonkeyPatch, told: dict[str, Any]) -> None:
    np.savez(cache / f"{name}.npz", x=RNG.normal(size=(700, 3)), y=RNG.normal(size=700))
    same(name, cache, monkeypatch, **told)
    with pytest.raises(DataError, match="not a fraction"):
        getattr(datasets, name).load_data(test_split=1.0)


def test_the_small_version_of_california(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez(cache / "california_housing.npz", x=RNG.normal(size=(700, 3)), y=RNG.normal(size=700))
    same("california_housing", cache, monkeypatch, version="small")
    with pytest.raises(UnilayersError, match="unknown version"):
        datasets.california_housing.load_data("tiny")


def test_digits_need_no_file() -> None:
    (x, y), (x_test, y_test) = datasets.digits.load_data()
    assert x.shape == (1437, 8, 8, 1) and len(x_test) == len(y_test) == 360
    everything = ul.data.load("digits")
    assert sorted(a.tobytes() for a in (*x, *x_test)) == sorted(a.tobytes() for a in everything.x)
    assert sorted((*y, *y_test)) == sorted(everything.y)


class Evil:
    def __reduce__(self) -> Any:
        return (Path.touch, (Path("touched"),))


def test_archives_run_no_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    evil = np.empty(1, dtype=object)
    evil[0] = Evil()
    np.savez("evil.npz", x=evil)
    with pytest.raises(DataError, match="it names pathlib"):
        read_archive("evil.npz", "x")
    assert not Path("touched").exists()
    np.savez("good.npz", x=sequences(3), n=np.arange(3))
    assert [a.dtype for a in read_archive("good.npz", "x", "n")] == [object, np.arange(3).dtype]
    with pytest.raises(DataError, match=r"no archive of the arrays wanted. Expected y"):
        read_archive("good.npz", "y")
    Path("cut.npz").write_bytes(Path("good.npz").read_bytes()[:200])
    with pytest.raises(DataError, match=r"cut\.npz: no archive"):
        read_archive("cut.npz", "x")
    with zipfile.ZipFile("odd.npz", "w") as file:
        file.writestr("x.npy", b"\x93NUMPY\x01\x00")
    with pytest.raises(DataError, match=r"odd\.npz: no archive"):
        read_archive("odd.npz", "x")


def test_archives_written_by_an_older_numpy(tmp_path: Path) -> None:
    array = sequences(3)
    content = pickle.dumps(array, protocol=2).replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    header = b"{'descr': '|O', 'fortran_order': False, 'shape': (3,), }".ljust(117) + b"\n"
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as file:
        file.writestr("x.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + content)
    (found,) = read_archive(str(tmp_path / "x.npz"), "x")
    assert b"numpy.core" in content and [list(s) for s in found] == [list(s) for s in array]
