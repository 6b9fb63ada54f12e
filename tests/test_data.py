"""Data sets, read from small files written here, and every message that a user can meet."""

from __future__ import annotations

import gzip
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from unilayers import data, random
from unilayers.data import Dataset, batches, check, load, split, split_index
from unilayers.data.images import CIFAR10_CLASSES, read_idx
from unilayers.errors import DataError, UnilayersError

NAN, INF = float("nan"), float("inf")


def message_of(action: Callable[[], Any]) -> str:
    with pytest.raises(UnilayersError) as caught:
        action()
    return str(caught.value)


# ---- what needs no file -------------------------------------------------------------------------------------------


def test_digits_are_those_of_scikit_learn() -> None:
    digits = load("digits")
    assert repr(digits) == "Dataset('digits': x float32 (1797, 8, 8, 1), y int32 (1797,), 10 classes)"
    assert digits.feature_shape == (8, 8, 1) and len(digits) == 1797 and digits.class_names == tuple("0123456789")
    assert (digits.x.min(), digits.x.max()) == (0.0, 1.0)
    original = pytest.importorskip("sklearn.datasets").load_digits()
    np.testing.assert_array_equal(digits.x[..., 0] * 16, original.images)
    np.testing.assert_array_equal(digits.y, original.target)


def test_the_bundled_file_names_its_source_and_licence() -> None:
    text = (Path(data.__file__).parent / "files" / "digits.txt").read_text()
    assert "10.24432/C50P49" in text and "CC BY 4.0" in text and "Alpaydin" in text and "Kaynak" in text


@pytest.mark.parametrize("name", ["spirals", "blobs"])
def test_synthetic_classes(name: str) -> None:
    made, again, other = (
        load(name, n=100, classes=4),
        load(name, n=100, classes=4),
        load(name, n=100, classes=4, seed=1),
    )
    assert made.x.shape == (100, 2) and made.x.dtype == np.float32 and made.y.dtype == np.int32
    assert made.num_classes == 4 and np.bincount(made.y).tolist() == [25] * 4
    np.testing.assert_array_equal(made.x, again.x)
    assert not np.array_equal(made.x, other.x)
    # The classes take turns, so the last tenth, which validation takes, holds all of them.
    assert set(split(made.x, made.y, 0.1)[1][1]) == set(range(4))


def test_spirals_without_noise_lie_on_their_arms() -> None:
    spirals = load("spirals", n=90, classes=3, noise=0)
    radius = np.hypot(*spirals.x.T)
    assert radius.max() <= 1 + 1e-6
    angle = np.arctan2(spirals.x[:, 0], spirals.x[:, 1])
    off = (angle - (2 * np.pi / 3 * spirals.y + 4 * radius) + np.pi) % (2 * np.pi) - np.pi
    np.testing.assert_allclose(off, 0, atol=1e-4)


def test_blobs_without_noise_are_their_centres() -> None:
    blobs = load("blobs", n=12, classes=3, features=5, noise=0)
    assert blobs.x.shape == (12, 5) and len(np.unique(blobs.x, axis=0)) == 3
    np.testing.assert_array_equal(blobs.x[:3], blobs.x[9:])


def test_random_regression() -> None:
    made = load("random_regression", n=64, d_in=1000, d_out=10)
    assert made.x.shape == (64, 1000) and made.y.shape == (64, 10) and made.num_classes is None
    assert made.x.dtype == made.y.dtype == np.float32
    assert abs(made.x.mean()) < 0.02 and abs(made.x.std() - 1) < 0.02
    # A width of the targets is no reason for other samples.
    np.testing.assert_array_equal(made.x, load("random_regression", n=64, d_in=1000, d_out=3).x)


def test_names_lists_every_source_and_load_knows_them() -> None:
    assert {"digits", "spirals", "blobs", "random_regression", "npz", "csv", "mnist", "cifar10"} <= set(data.names())
    for name in data.names():
        assert name in data.Source.registry


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (lambda: load("digit"), "data: unknown dataset 'digit'. Did you mean 'digits'?"),
        (lambda: load("spirals", nois=0.1), "data > Spirals: unknown argument 'nois'. Did you mean 'noise'?"),
        (
            lambda: load("blobs", classes=0),
            "data > Blobs.classes: a value that does not fit. Expected an int at least 1. Received 0 (int).",
        ),
        (
            lambda: load({"blobs": {"noise": -1}}),
            "data > Blobs.noise: a value that does not fit. Expected a number at least 0. Received -1 (int).",
        ),
        (lambda: load("mnist"), "data > Mnist: missing argument 'path'."),
        (
            lambda: load(data.Blobs(), noise=1),
            "data.load: options beside a source that has its own. Received noise.",
        ),
    ],
)
def test_wrong_names_and_options(action: Callable[[], Any], message: str) -> None:
    assert message_of(action) == message


def test_all_ways_to_name_a_source() -> None:
    expected = load("blobs", n=10).x
    for other in (load({"Blobs": {"n": 10}}), load({"class_name": "blobs", "config": {"n": 10}}), load(data.Blobs(10))):
        np.testing.assert_array_equal(other.x, expected)


def test_importing_reads_no_data() -> None:
    code = (
        "import sys\n"
        "opened = []\n"
        "sys.addaudithook(lambda event, args: event == 'open' and opened.append(str(args[0])))\n"
        "import unilayers.data\n"
        "print([name for name in opened if 'digits' in name])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# ---- npz ----------------------------------------------------------------------------------------------------------


def test_npz(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    x, y = np.arange(12.0).reshape(4, 3), np.array([0, 2, 1, 0])
    np.savez(path, x=x, y=y, xt=x[:2], yt=y[:2], tokens=np.arange(8).reshape(4, 2), price=np.array([1.5, 2, 3, 4]))
    plain = load(path)
    np.testing.assert_array_equal(plain.x, x.astype(np.float32), strict=True)
    np.testing.assert_array_equal(plain.y, y.astype(np.int32), strict=True)
    assert plain.num_classes == 3 and plain.name == "a.npz" and plain.x_test is None
    tested = load("npz", path=str(path), x_test="xt", y_test="yt", num_classes=5)
    assert tested.num_classes == 5 and tested.y_test.dtype == np.int32 and tested.x_test.shape == (2, 3)
    other = load("npz", path=path, x="tokens", y="price")
    assert other.x.dtype == np.int64 and other.y.dtype == np.float32 and other.num_classes is None
    assert load(path, task="regression").y.dtype == np.float32


def test_npz_one_hot_targets_stay_numbers(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.zeros((3, 2)), y=np.eye(3))
    made = load(tmp_path / "a.npz", num_classes=3)
    assert made.y.dtype == np.float32 and made.num_classes == 3


def test_broken_npz(tmp_path: Path) -> None:
    good, cut, single, pickled = (tmp_path / f"{name}.npz" for name in ("good", "cut", "single", "pickled"))
    np.savez(good, samples=np.zeros((2, 2)), y=np.array([0, 1]))
    cut.write_bytes(good.read_bytes()[:100])
    with single.open("wb") as file:
        np.save(file, np.zeros(3))
    np.savez(pickled, x=np.array([{}, {}]), y=np.array([0, 1]))
    assert message_of(lambda: load(good)) == (
        f"{good}: no array 'x'. Received arrays samples, y. Valid names: samples, y."
    )
    assert message_of(lambda: load(good, x="sample")).endswith("Did you mean 'samples'?")
    assert message_of(lambda: load(good, x="samples", x_test="samples")) == (
        "good.npz: half a test part. Expected both x_test and y_test, or neither."
    )
    assert message_of(lambda: load(cut)).startswith(f"{cut}: not a readable NumPy archive (")
    assert message_of(lambda: load(single)) == (
        f"{single}: a single array, not an archive. Save it with np.savez(path, x=x, y=y)."
    )
    assert message_of(lambda: load(pickled)).startswith(f"{pickled}: array 'x' cannot be read (Object arrays")
    missing = tmp_path / "none.npz"
    assert message_of(lambda: load(missing)) == f"{missing}: no such file or folder. Looked for {missing}."
    assert message_of(lambda: load("npz", path=missing)) == f"{missing}: no such file. Looked for {missing}."


def test_nan_labels_are_not_cast_to_integers(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.zeros((2, 2)), y=np.array([0.0, NAN]))
    assert message_of(lambda: load(tmp_path / "a.npz", task="classification")) == (
        "a.npz: y has 1 value that is NaN or infinite. Received nan at index 1."
    )


# ---- csv ----------------------------------------------------------------------------------------------------------

IRIS = "sepal length,petal length,species\n5.1,1.4,setosa\n7.0,4.7,versicolor\n\n6.3,6.0,virginica\n4.9,1.5,setosa\n"


def table(folder: Path, text: str, name: str = "t.csv") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_csv_with_classes_in_words(tmp_path: Path) -> None:
    made = load(table(tmp_path, IRIS))
    expected = np.array([[5.1, 1.4], [7.0, 4.7], [6.3, 6.0], [4.9, 1.5]], np.float32)
    np.testing.assert_array_equal(made.x, expected, strict=True)
    np.testing.assert_array_equal(made.y, np.array([0, 1, 2, 0], np.int32), strict=True)
    assert made.class_names == ("setosa", "versicolor", "virginica") and made.num_classes == 3


@pytest.mark.parametrize(
    ("text", "options", "x", "y", "classes"),
    [
        ("a,b,c\n1,2,3\n4,5,6.5\n", {}, [[1, 2], [4, 5]], [3, 6.5], None),
        ("a,b,c\n1,2,3\n4,5,6.5\n", {"target": "a"}, [[2, 3], [5, 6.5]], [1, 4], None),
        ("a,b,c\n1,2,3\n4,5,6.5\n", {"target": 1, "features": ["c", 0]}, [[3, 1], [6.5, 4]], [2, 5], None),
        ("1;2\n3;4\n", {"header": False, "delimiter": ";"}, [[1], [3]], [2, 4], None),
        ("1,0\n2,1\n3,1\n", {"header": False}, [[1], [2], [3]], [0, 1, 1], 2),
        ("1,0\n2,1\n", {"header": False, "task": "regression"}, [[1], [2]], [0, 1], None),
        ("1,10\n2,9\n3,10\n", {"header": False, "task": "classification"}, [[1], [2], [3]], [1, 0, 1], 2),
        ('\ufeffa, b\r\n"1", 2.5\r\n3,1e-3\r\n', {"target": "b"}, [[1], [3]], [2.5, 0.001], None),
    ],
)
def test_csv(tmp_path: Path, text: str, options: dict[str, Any], x: Any, y: Any, classes: int | None) -> None:
    made = load(table(tmp_path, text), **options)
    np.testing.assert_array_equal(made.x, np.array(x, np.float32), strict=True)
    np.testing.assert_array_equal(made.y, np.array(y, np.int32 if classes else np.float32), strict=True)
    assert made.num_classes == classes


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        (IRIS, {"target": "specie"}, ": no column 'specie'. Received 3 columns. Did you mean 'species'?"),
        (
            IRIS,
            {"target": 3},
            ": no column 3. Received 3 columns. Valid names: petal length, sepal length, species.",
        ),
        (
            IRIS,
            {"target": "petal length"},
            ", line 2, column 'species': not a finite number. Expected a number. Received 'setosa'.",
        ),
        (
            "a,b\n1,2\n3,x\n4,5\n7,8\n",
            {},
            ", line 3, column 'b': not a finite number. Expected a number. Received 'x'.",
        ),
        ("a,b\n1,2\n,4\n", {}, ", line 3, column 'a': an empty cell. Expected a number. Received ''."),
        ("a,b\n1,2\nnan,4\n", {}, ", line 3, column 'a': not a finite number. Expected a number. Received 'nan'."),
        ("a,b\n1,2\n3\n", {}, ", line 3: a row of another length. Expected 2 cells. Received 1."),
        ("a,b\n", {}, ": no rows."),
        ("", {"header": False}, ": no rows."),
    ],
)
def test_broken_csv(tmp_path: Path, text: str, options: dict[str, Any], message: str) -> None:
    path = table(tmp_path, text)
    assert message_of(lambda: load(path, **options)) == f"{path}{message}"


def test_csv_options_and_encoding(tmp_path: Path) -> None:
    path = table(tmp_path, IRIS)
    assert message_of(lambda: load(path, delimiter=", ")) == (
        "delimiter: not a delimiter. Expected one character. Received ', '."
    )
    path.write_bytes(b"a,b\n1,\xff\n")
    assert message_of(lambda: load(path)).startswith(f"{path}: not a readable table (")


# ---- IDX files ----------------------------------------------------------------------------------------------------


def idx(array: np.ndarray, code: int = 0x08) -> bytes:
    header = bytes([0, 0, code, array.ndim]) + b"".join(int(n).to_bytes(4, "big") for n in array.shape)
    return header + array.tobytes()


def mnist_folder(folder: Path, end: str = "", parts: tuple[str, ...] = ("train", "t10k"), n: int = 6) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    pack = gzip.compress if end == ".gz" else bytes
    for part in parts:
        images = np.arange(n * 28 * 28).reshape(n, 28, 28).astype(np.uint8)
        (folder / f"{part}-images-idx3-ubyte{end}").write_bytes(pack(idx(images)))
        (folder / f"{part}-labels-idx1-ubyte{end}").write_bytes(pack(idx(np.arange(n, dtype=np.uint8))))
    return folder


@pytest.mark.parametrize("end", ["", ".gz"])
def test_mnist(tmp_path: Path, end: str) -> None:
    folder = mnist_folder(tmp_path / "mnist", end)
    for made in (load("mnist", path=str(folder)), load(folder)):
        assert made.x.shape == made.x_test.shape == (6, 28, 28, 1) and made.x.dtype == np.float32
        flat = (np.arange(6 * 784) % 256).astype(np.float32) / 255
        np.testing.assert_allclose(made.x.ravel(), flat, rtol=1e-7)
        np.testing.assert_array_equal(made.y, np.arange(6, dtype=np.int32), strict=True)
        assert made.num_classes == 10 and made.name == "mnist"


def test_mnist_without_a_test_part_and_with_dots_in_the_names(tmp_path: Path) -> None:
    folder = mnist_folder(tmp_path, parts=("train",))
    for path in list(folder.iterdir()):
        path.rename(path.with_name(path.name.replace("-idx", ".idx")))
    assert load(folder).x_test is None


@pytest.mark.parametrize(
    ("code", "dtype"),
    [(0x08, ">u1"), (0x09, ">i1"), (0x0B, ">i2"), (0x0C, ">i4"), (0x0D, ">f4"), (0x0E, ">f8")],
)
def test_idx_types(tmp_path: Path, code: int, dtype: str) -> None:
    array = np.arange(-3, 3).astype(dtype).reshape(2, 3)
    (tmp_path / "a").write_bytes(idx(array, code))
    np.testing.assert_array_equal(read_idx(tmp_path / "a"), array, strict=True)


NOT_IDX = "not an IDX file. Expected two zero bytes, a type code and the number of axes. Received first bytes "


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (
            idx(np.zeros((2, 3), np.uint8))[:-1],
            "an IDX file cut short. Expected 18 bytes for shape (2, 3). Received 17 bytes.",
        ),
        (
            idx(np.zeros(2, np.uint8)) + b"x",
            "an IDX file with bytes left over. Expected 10 bytes for shape (2,). Received 11 bytes.",
        ),
        (b"\x89PNG", NOT_IDX + "89 50 4e 47."),
        (b"\0\0\x07\1", NOT_IDX + "00 00 07 01."),
        (b"", NOT_IDX + "."),
        (b"\0\0\x08\3\0\0", "an IDX file cut short. Expected 16 bytes for shape (0, 0, 0). Received 6 bytes."),
    ],
)
def test_broken_idx(tmp_path: Path, raw: bytes, message: str) -> None:
    path = tmp_path / "a"
    path.write_bytes(raw)
    assert message_of(lambda: read_idx(path)) == f"{path}: {message}"


def test_broken_gzip(tmp_path: Path) -> None:
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(idx(np.zeros((20, 20), np.uint8)))[:-12])
    assert message_of(lambda: read_idx(path)).startswith(f"{path}: a damaged gzip file (")


def test_mnist_says_which_file_is_missing_or_wrong(tmp_path: Path) -> None:
    folder = mnist_folder(tmp_path / "mnist")
    (folder / "t10k-labels-idx1-ubyte").unlink()
    assert message_of(lambda: load(folder)) == (
        f"{folder}: a file is missing. Expected t10k-labels-idx1-ubyte or t10k-labels-idx1-ubyte.gz or "
        "t10k-labels.idx1-ubyte or t10k-labels.idx1-ubyte.gz. "
        "Received t10k-images-idx3-ubyte, train-images-idx3-ubyte, train-labels-idx1-ubyte."
    )
    mnist_folder(folder)
    labels = folder / "train-labels-idx1-ubyte"
    labels.write_bytes(idx(np.zeros((6, 1), np.uint8)))
    assert message_of(lambda: load(folder)) == (
        f"{labels}: another number of axes. Expected 1 axes. Received shape (6, 1)."
    )
    labels.write_bytes(idx(np.arange(5, dtype=np.uint8)))
    assert message_of(lambda: load(folder)) == (
        "mnist: x and y differ in length. Expected a target for each sample. Received 6 samples and 5 targets."
    )
    labels.write_bytes(idx(np.array([0, 1, 26, 3, 4, 77], dtype=np.uint8)))
    assert message_of(lambda: load(folder)) == (
        "mnist: y has 2 values that are out of range. Expected labels 0 to 9 for 10 classes. Received 26 at index 2."
    )
    assert load(folder, num_classes=78).num_classes == 78


def test_folders(tmp_path: Path) -> None:
    missing = tmp_path / "gone"
    assert message_of(lambda: load("mnist", path=str(missing))) == (f"{missing}: no such folder. Looked for {missing}.")
    assert message_of(lambda: load(tmp_path)) == (
        f"{tmp_path}: no data set that can be recognised. Expected a .npz or .csv file, or a folder with "
        "MNIST-format or CIFAR-10 files. Received an empty folder."
    )
    assert message_of(lambda: load("cifar10", path=tmp_path)) == (
        f"{tmp_path}: a file is missing. Expected data_batch_1.bin. Received an empty folder."
    )


def test_a_test_part_of_another_shape(tmp_path: Path) -> None:
    folder = mnist_folder(tmp_path / "mnist")
    (folder / "t10k-images-idx3-ubyte").write_bytes(idx(np.zeros((6, 8, 8), np.uint8)))
    assert message_of(lambda: load(folder)) == (
        "mnist (test part): x has another feature shape. Expected (n, 28, 28, 1). Received (6, 8, 8, 1)."
    )


# ---- CIFAR-10 -----------------------------------------------------------------------------------------------------


def cifar_folder(folder: Path, n: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Writes the six files; the training images and labels as they should be read."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = random.generator(0, "cifar")
    images = generator.integers(0, 256, (6, n, 32, 32, 3), dtype=np.uint8)
    labels = generator.integers(0, 10, (6, n), dtype=np.uint8)
    for name, image, label in zip(
        [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"], images, labels, strict=True
    ):
        rows = [
            bytes([k]) + b"".join(one[..., c].tobytes() for c in range(3)) for one, k in zip(image, label, strict=True)
        ]
        (folder / f"{name}.bin").write_bytes(b"".join(rows))
    return images[:5].reshape(-1, 32, 32, 3), labels[:5].ravel()


@pytest.mark.parametrize("inner", ["", "cifar-10-batches-bin"])
def test_cifar10(tmp_path: Path, inner: str) -> None:
    images, labels = cifar_folder(tmp_path / inner)
    for made in (load("cifar10", path=tmp_path), load(str(tmp_path))):
        np.testing.assert_allclose(made.x, images / 255.0, rtol=1e-6)
        np.testing.assert_array_equal(made.y, labels)
        assert made.x.dtype == np.float32 and made.y.dtype == np.int32 and made.x_test.shape == (3, 32, 32, 3)
        assert made.class_names == CIFAR10_CLASSES and made.num_classes == 10


def test_broken_cifar10(tmp_path: Path) -> None:
    cifar_folder(tmp_path)
    bad = tmp_path / "data_batch_3.bin"
    bad.write_bytes(bad.read_bytes()[:-1])
    assert message_of(lambda: load(tmp_path)) == (
        f"{bad}: not a file of CIFAR-10's binary version. Expected a multiple of 3073 bytes (30730000 for the original "
        "files). Received 9218 bytes."
    )
    bad.unlink()
    assert message_of(lambda: load(tmp_path)) == (
        f"{tmp_path}: a file is missing. Expected data_batch_3.bin. Received data_batch_1.bin, data_batch_2.bin, "
        "data_batch_4.bin, data_batch_5.bin, test_batch.bin."
    )


# ---- check --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("x", "y", "options"),
    [
        (np.zeros((3, 2)), None, {}),
        (np.zeros((3, 2)), [0, 1, 1], {"num_classes": 2}),
        (np.zeros((3, 2)), [[0.0], [1.0], [1.0]], {"num_classes": 2}),
        (np.zeros((3, 2)), np.eye(3), {"num_classes": 3}),
        (np.zeros((3, 2)), [0.5, -1, 9], {}),
        (np.zeros((3, 8, 8, 1), np.uint8), [True, False, True], {"feature_shape": (8, None, 1), "num_classes": 2}),
    ],
)
def test_good_data_pass(x: Any, y: Any, options: dict[str, Any]) -> None:
    check(x, y, **options)


X = np.zeros((3, 2))


@pytest.mark.parametrize(
    ("x", "y", "options", "message"),
    [
        (
            X,
            [0, 1],
            {},
            "x and y differ in length. Expected a target for each sample. Received 3 samples and 2 targets.",
        ),
        (np.zeros((0, 2)), [], {}, "x has no samples. Received shape (0, 2)."),
        (np.float32(1), None, {}, "x has no samples. Received shape ()."),
        ([[1, NAN], [INF, -INF]], [0, 1], {}, "x has 3 values that are NaN or infinite. Received nan at index (0, 1)."),
        (X, [0, 1, INF], {}, "y has 1 value that is NaN or infinite. Received inf at index 2."),
        (
            X,
            [0, 10, -1],
            {"num_classes": 10},
            "y has 2 values that are out of range. Expected labels 0 to 9 for 10 classes. Received 10 at index 1.",
        ),
        (
            X,
            [[0], [1], [2]],
            {"num_classes": 2},
            "y has 1 value that is out of range. Expected labels 0 to 1 for 2 classes. Received 2 at index (2, 0).",
        ),
        (
            X,
            [0, 0.5, 1],
            {"num_classes": 2},
            "y has 1 value that is no label. Expected labels 0 to 1 for 2 classes. Received 0.5 at index 1.",
        ),
        (
            np.zeros((3, 64)),
            None,
            {"feature_shape": (8, 8, 1)},
            "x has another feature shape. Expected (n, 8, 8, 1). Received (3, 64). "
            "The samples have the right number of values: x.reshape((-1, 8, 8, 1)) may be what is meant.",
        ),
        (
            np.zeros((3, 5)),
            None,
            {"feature_shape": (4,)},
            "x has another feature shape. Expected (n, 4). Received (3, 5).",
        ),
        (
            np.zeros((3, 5, 2)),
            None,
            {"feature_shape": (None, 3)},
            "x has another feature shape. Expected (n, any, 3). Received (3, 5, 2).",
        ),
        (np.array(["a", "b"]), None, {}, "x holds no numbers. Expected a number dtype. Received <U1."),
        (X, ["a", "b", "c"], {}, "y holds no numbers. Expected a number dtype. Received <U1."),
    ],
)
def test_bad_data_are_named(x: Any, y: Any, options: dict[str, Any], message: str) -> None:
    assert message_of(lambda: check(x, y, where="train", **options)) == f"train: {message}"


def test_rows_of_different_lengths() -> None:
    assert message_of(lambda: check([[1, 2], [3]])).startswith("data: x is not an array: ")


# ---- split and batches --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "fraction", "trained"), [(10, 0.1, 9), (10, 0.25, 7), (1797, 0.1, 1617), (2, 0.5, 1)])
def test_split_takes_the_last_part(n: int, fraction: float, trained: int) -> None:
    (x, y), (x_val, y_val) = split(np.arange(n), np.arange(n) * 2, fraction)
    assert x.tolist() + x_val.tolist() == list(range(n)) and len(x) == split_index(n, fraction) == trained
    np.testing.assert_array_equal(y, x * 2)
    np.testing.assert_array_equal(y_val, x_val * 2)


@pytest.mark.parametrize(("n", "fraction"), [(10, 0), (10, 1), (10, -0.5), (10, 1.5), (1, 0.5), (10, 0.99)])
def test_no_split(n: int, fraction: float) -> None:
    assert message_of(lambda: split_index(n, fraction)) == (
        "validation_split: no split into two parts. Expected a fraction between 0 and 1 that leaves samples in both "
        f"parts. Received {fraction} of {n} samples."
    )


@pytest.mark.parametrize(("n", "size", "sizes"), [(10, 4, [4, 4, 2]), (8, 4, [4, 4]), (3, 8, [3]), (0, 4, [])])
@pytest.mark.parametrize("shuffle", [True, False])
def test_batches_hold_each_sample_once(n: int, size: int, sizes: list[int], shuffle: bool) -> None:
    parts = list(batches(n, size, seed=1, epoch=2, shuffle=shuffle))
    assert [len(part) for part in parts] == sizes
    order = np.concatenate([np.empty(0, int), *parts])
    expected = random.permutation(n, 1, 2) if shuffle else np.arange(n)
    np.testing.assert_array_equal(order, expected)


def test_the_order_depends_on_seed_and_epoch_alone() -> None:
    orders = {
        (seed, epoch, size): np.concatenate(list(batches(50, size, seed, epoch))).tolist()
        for seed in (0, 1) for epoch in (0, 1) for size in (7, 50)
    }  # fmt: skip
    for seed, epoch, _ in orders:
        assert orders[seed, epoch, 7] == orders[seed, epoch, 50]
    assert len({tuple(order) for order in orders.values()}) == 4


def test_no_batches_of_size_zero() -> None:
    assert message_of(lambda: batches(10, 0)) == "batch_size: no batches of this size. Expected at least 1. Received 0."


def test_a_dataset_says_what_it_is() -> None:
    made = Dataset(np.zeros((4, 2)), np.zeros(4, int), "a", 2, np.zeros((1, 2)), np.zeros(1, int))
    assert repr(made) == "Dataset('a': x float64 (4, 2), y int64 (4,), x_test float64 (1, 2), 2 classes)"
    with pytest.raises(AttributeError):
        made.x = np.zeros(3)  # type: ignore[misc]


def test_errors_are_data_errors(tmp_path: Path) -> None:
    with pytest.raises(DataError):
        load(tmp_path / "a.csv")
