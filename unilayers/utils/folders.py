"""Data sets out of folders of files, a folder for each class: pictures, texts, sounds."""

from __future__ import annotations

import os
import wave
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from os import PathLike, fspath
from pathlib import Path
from typing import Any, Literal

import numpy as np

from unilayers import random
from unilayers.data.images import existing_folder
from unilayers.data.pipeline import Pipeline, stacked
from unilayers.errors import DataError, UnilayersError, nearest
from unilayers.structure import leaves_of

from .images import MODES, img_to_array, load_img
from .progress import message

IMAGES = (".bmp", ".gif", ".jpeg", ".jpg", ".png")
MODES_OF_LABELS = ("int", "binary", "categorical")
SUBSETS = ("training", "validation", "both")

Labels = Sequence[int] | Literal["inferred"] | None
LabelMode = Literal["int", "binary", "categorical"] | None
Subset = Literal["training", "validation", "both"] | None
Folder = str | PathLike[str]


def image_dataset_from_directory(
    directory: Folder,
    labels: Labels = "inferred",
    label_mode: LabelMode = "int",
    class_names: Sequence[str] | None = None,
    color_mode: Literal["grayscale", "rgb", "rgba"] = "rgb",
    batch_size: int | None = 32,
    image_size: int | tuple[int, int] = (256, 256),
    shuffle: bool = True,
    seed: int | None = None,
    validation_split: float | None = None,
    subset: Subset = None,
    interpolation: str = "bilinear",
    follow_links: bool = False,
    crop_to_aspect_ratio: bool = False,
    pad_to_aspect_ratio: bool = False,
    data_format: str | None = None,
    format: str = "tf",
    verbose: bool = True,
) -> Any:
    """Batches of pictures from a folder with a folder for each class: ``directory/cat/1.jpg``.

    Shapes: x float32 ``(batch, height, width, channels)`` in 0 to 255, y as ``label_mode`` says.

    Args:
        directory: The folder. Files are BMP, GIF, JPEG or PNG.
        labels: "inferred" from the folders, None for pictures alone, or a label for each file in the order of their
            sorted paths.
        label_mode: "int" int32 ``(batch,)``, "binary" float32 ``(batch, 1)``, "categorical" one-hot float32; None for
            pictures alone.
        class_names: The folders to take, in the order of their labels; all in alphabetical order if None.
        color_mode: "grayscale" (1 channel), "rgb" (3) or "rgba" (4).
        batch_size: Pictures in a batch; None for single ones.
        image_size: ``(height, width)`` that all are brought to.
        shuffle: Whether they come in a random order, another one in each epoch.
        seed: Of that order and of the split; the default seed (``set_random_seed``) if None. A split is then that of
            Keras for the same seed.
        validation_split: Fraction of the files to keep for validation.
        subset: "training", "validation", or "both" for a list of the two; only with ``validation_split``.
        interpolation: "bilinear" or "nearest".
        follow_links: Whether folders may be links.
        crop_to_aspect_ratio: Whether to cut pictures of another shape at the sides rather than to distort them.
        pad_to_aspect_ratio: Whether to fill them up with black instead.
        data_format: "channels_last" (also None) or "channels_first".
        format: Taken for the sake of scripts: the result is a `Pipeline` of NumPy arrays.
        verbose: Whether to say how many files were found.

    Returns:
        A `Pipeline` with ``class_names`` and ``file_paths``; a list of two for the subset "both".

    Raises:
        DataError: for a folder without pictures, labels or class names that do not fit it, or a file that is none.
        UnilayersError: for words that are not among those above, or without Pillow.
    """
    from unilayers.layers import Resizing

    _one_of("color_mode", color_mode, MODES)
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    fit: Any = Resizing(height, width, interpolation, crop_to_aspect_ratio, pad_to_aspect_ratio, dtype="float32")  # type: ignore[arg-type]

    def load(path: str) -> np.ndarray:
        picture = fit(img_to_array(load_img(path, color_mode), dtype="float32"))
        return picture.transpose(2, 0, 1) if data_format == "channels_first" else picture

    files = _Files(directory, labels, label_mode, class_names, IMAGES, follow_links, verbose)
    return files.pipelines(load, batch_size, shuffle, seed, validation_split, subset)


def text_dataset_from_directory(
    directory: Folder,
    labels: Labels = "inferred",
    label_mode: LabelMode = "int",
    class_names: Sequence[str] | None = None,
    batch_size: int | None = 32,
    max_length: int | None = None,
    shuffle: bool = True,
    seed: int | None = None,
    validation_split: float | None = None,
    subset: Subset = None,
    follow_links: bool = False,
    format: str = "tf",
    verbose: bool = True,
) -> Any:
    """Batches of texts from a folder with a folder of ``.txt`` files for each class: ``directory/good/1.txt``.

    Shapes: x an array ``(batch,)`` of texts (dtype object), y as ``label_mode`` says.

    Args:
        directory: The folder. Files are read as UTF-8.
        labels: As in `image_dataset_from_directory`.
        label_mode: Likewise.
        class_names: Likewise.
        batch_size: Texts in a batch; None for single ones.
        max_length: Characters to keep of each; all if None.
        shuffle: As in `image_dataset_from_directory`.
        seed: Likewise.
        validation_split: Likewise.
        subset: Likewise.
        follow_links: Likewise.
        format: Taken for the sake of scripts: the result is a `Pipeline` of NumPy arrays.
        verbose: Whether to say how many files were found.

    Returns:
        As `image_dataset_from_directory`.

    Raises:
        DataError: as `image_dataset_from_directory`.
    """

    def load(path: str) -> str:
        try:
            return Path(path).read_text(encoding="utf-8")[:max_length]
        except (OSError, UnicodeDecodeError) as error:
            raise DataError("not a readable text", where=path, expected="UTF-8", received=str(error)) from None

    files = _Files(directory, labels, label_mode, class_names, (".txt",), follow_links, verbose)
    return files.pipelines(load, batch_size, shuffle, seed, validation_split, subset)


def audio_dataset_from_directory(
    directory: Folder,
    labels: Labels = "inferred",
    label_mode: LabelMode = "int",
    class_names: Sequence[str] | None = None,
    batch_size: int | None = 32,
    sampling_rate: int | None = None,
    output_sequence_length: int | None = None,
    ragged: bool = False,
    shuffle: bool = True,
    seed: int | None = None,
    validation_split: float | None = None,
    subset: Subset = None,
    follow_links: bool = False,
    verbose: bool = True,
) -> Any:
    """Batches of sounds from a folder with a folder of ``.wav`` files for each class: ``directory/bell/1.wav``.

    Shapes: x float32 ``(batch, time, 1)`` in -1 to 1, the first channel of each file; y as ``label_mode`` says.

    Args:
        directory: The folder. Files hold integers of 8, 16 or 32 bits (PCM).
        labels: As in `image_dataset_from_directory`.
        label_mode: Likewise.
        class_names: Likewise.
        batch_size: Sounds in a batch; None for single ones.
        sampling_rate: Values a second to bring all sounds to, by their Fourier series; that of each file if None.
        output_sequence_length: Values to keep of each, filled up with zeros. If None, all, and shorter sounds of a
            batch are filled up to the longest.
        ragged: Not known here: must be False.
        shuffle: As in `image_dataset_from_directory`.
        seed: Likewise.
        validation_split: Likewise.
        subset: Likewise.
        follow_links: Likewise.
        verbose: Whether to say how many files were found.

    Returns:
        As `image_dataset_from_directory`.

    Raises:
        DataError: as `image_dataset_from_directory`.
    """
    if ragged:
        fix = "Leave it out: the sounds of a batch are filled up with zeros"
        raise UnilayersError("no ragged arrays", where="audio_dataset_from_directory(ragged=)", fix=fix)

    def load(path: str) -> np.ndarray:
        sound, rate = read_wav(path)
        sound = sound[:, :1]
        if sampling_rate is not None and rate != sampling_rate:
            sound = _resampled(sound, round(len(sound) * sampling_rate / rate))
        return sound if output_sequence_length is None else _of_length(sound, output_sequence_length)

    files = _Files(directory, labels, label_mode, class_names, (".wav",), follow_links, verbose)
    return files.pipelines(load, batch_size, shuffle, seed, validation_split, subset, gather=_filled_up)


# ---- files and labels ---------------------------------------------------------------------------------------------


@dataclass
class _Files:
    """The files in a folder, with their labels."""

    directory: Folder
    labels: Labels
    label_mode: LabelMode
    class_names: Sequence[str] | None
    suffixes: tuple[str, ...]
    follow_links: bool
    verbose: bool

    def __post_init__(self) -> None:
        _one_of("label_mode", self.label_mode, MODES_OF_LABELS)
        self.folder = existing_folder(self.directory)
        if self.labels is None or self.label_mode is None:
            self.labels = self.label_mode = None
        self.targets: np.ndarray | None = None
        if self.labels == "inferred":
            names = sorted(p.name for p in self.folder.iterdir() if p.is_dir() and not p.name.startswith("."))
            for name in self.class_names or ():
                if name not in names:
                    where = f"{self.directory} (class_names=)"
                    raise DataError(f"no folder {name!r}", where=where, fix=nearest(name, names))
            self.names: list[str] | None = list(self.class_names or names)
            found = [self._below(self.folder / name) for name in self.names]
            self.paths = [path for group in found for path in group]
            self.targets = np.repeat(np.arange(len(found), dtype="int32"), [len(group) for group in found])
        else:
            self._given_labels()
        if not self.paths:
            raise DataError(
                "no files" if self.labels != "inferred" or self.names else "no folders of classes",
                where=str(self.directory), expected=" ".join(self.suffixes),
                fix="Pass labels=None for files without classes" if self.labels == "inferred" else "",
            )  # fmt: skip
        if self.label_mode == "binary" and self.targets is not None and len(self.names or ()) != 2:
            fix = "Use label_mode='int' or 'categorical'"
            raise DataError(
                "binary labels need two classes", where=str(self.directory), received=str(self.names), fix=fix
            )
        if self.verbose:
            classes = "" if self.targets is None else f" belonging to {len(self.names or ())} classes"
            message(f"Found {len(self.paths)} files{classes}.")

    def _given_labels(self) -> None:
        if self.class_names is not None:
            fix = "Pass class_names only with labels='inferred'"
            raise DataError("class names beside labels", where=str(self.directory), fix=fix)
        self.paths, self.names = self._below(self.folder), None
        if self.labels is None:
            return
        if isinstance(self.labels, str) or len(self.labels) != len(self.paths):
            raise DataError(
                "labels that do not fit the files", where=str(self.directory),
                expected=f"'inferred', None or {len(self.paths)} labels",
                received=repr(self.labels) if isinstance(self.labels, str) else f"{len(self.labels)} labels",
            )  # fmt: skip
        self.targets = np.asarray(self.labels, "int32")
        self.names = [str(label) for label in sorted(set(self.labels))]

    def _below(self, folder: Path) -> list[str]:
        walk = sorted(os.walk(folder, followlinks=self.follow_links), key=lambda found: found[0])
        return [
            str(Path(root, name)) for root, _, names in walk for name in sorted(names)
            if name.lower().endswith(self.suffixes)
        ]  # fmt: skip

    def pipelines(
        self,
        load: Callable[[str], Any],
        batch_size: int | None,
        shuffle: bool,
        seed: int | None,
        validation_split: float | None,
        subset: Subset,
        gather: Callable[[list[Any]], Any] = stacked,
    ) -> Any:
        """The data set, its part, or both parts."""
        _one_of("subset", subset, SUBSETS)
        if (validation_split is None) != (subset is None) or not 0 < (validation_split or 0.5) < 1:
            raise DataError(
                "validation_split and subset go together", where=str(self.directory),
                expected="a fraction between 0 and 1, and one of training, validation and both",
                received=f"{validation_split!r} and {subset!r}",
            )  # fmt: skip
        if validation_split is not None and shuffle and seed is None:
            fix = "Pass the same seed in both calls, or shuffle=False"
            raise DataError("a split of shuffled files needs a seed", where=str(self.directory), fix=fix)
        seed = random.default_seed() if seed is None else seed
        order = np.arange(len(self.paths))
        if shuffle:
            np.random.RandomState(seed).shuffle(order)  # Keras's generator, so that a split holds the same files
        kept = len(order) - int((validation_split or 0) * len(order))
        parts = {"training": order[:kept], "validation": order[kept:]}
        if validation_split is not None and not all(map(len, parts.values())):
            raise DataError("a part without files", where=str(self.directory), received=f"{len(order)} files")
        made = [
            self._pipeline(load, rows, batch_size, seed if shuffle and name != "validation" else None, gather)
            for name, rows in parts.items()
            if subset in (name, "both") or (subset is None and name == "training")
        ]
        return made if subset == "both" else made[0]

    def _pipeline(
        self, load: Callable[[str], Any], rows: np.ndarray, batch_size: int | None, seed: int | None, gather: Any
    ) -> Pipeline:
        paths = [self.paths[i] for i in rows]
        targets = None if self.targets is None else self._encoded(self.targets[rows])

        def one(i: int) -> Any:
            return load(paths[i]) if targets is None else (load(paths[i]), targets[i])

        told = {"class_names": self.names, "file_paths": paths}
        return Pipeline.of_samples(len(rows), one, batch_size, seed, gather=gather, **told).prefetch()

    def _encoded(self, targets: np.ndarray) -> np.ndarray:
        if self.label_mode == "binary":
            return targets[:, None].astype("float32")
        if self.label_mode == "categorical":
            return (targets[:, None] == np.arange(len(self.names or ()))).astype("float32")
        return targets


def _one_of(name: str, value: Any, valid: Any) -> None:
    if value is not None and value not in valid:
        raise UnilayersError(f"unknown {name} {value!r}", fix=nearest(str(value), valid))


# ---- sounds -------------------------------------------------------------------------------------------------------


def read_wav(path: Folder) -> tuple[np.ndarray, int]:
    """The values of a WAV file, float32 ``(time, channels)`` in -1 to 1, and how many a second has.

    Raises:
        DataError: if it is none with integers of 8, 16 or 32 bits.
    """
    try:
        with wave.open(fspath(path), "rb") as file:
            channels, width, rate, count = file.getparams()[:4]
            raw = file.readframes(count)
    except (OSError, EOFError, wave.Error) as error:
        raise DataError("not a WAV file that can be read", where=str(path), received=str(error)) from None
    if width not in (1, 2, 4):
        expected = "8, 16 or 32 bits"
        raise DataError("values of another width", where=str(path), expected=expected, received=f"{8 * width} bits")
    values = np.frombuffer(raw, f"<{'u' if width == 1 else 'i'}{width}").reshape(-1, channels)
    # 8 bits are without sign in such files, the others with.
    return ((values - (128.0 if width == 1 else 0.0)) / 2.0 ** (8 * width - 1)).astype("float32"), rate


def _resampled(sound: np.ndarray, length: int) -> np.ndarray:
    """The band-limited signal through the values, at ``length`` places of the same span."""
    have = len(sound)
    spectrum, wide = np.fft.rfft(sound.astype("float64"), axis=0), np.zeros((length // 2 + 1, sound.shape[1]), complex)
    shared = min(have, length)
    wide[: shared // 2 + 1] = spectrum[: shared // 2 + 1]
    if shared % 2 == 0 and have != length:  # the highest frequency stands for two, or comes from two
        wide[shared // 2] *= 0.5 if length > have else 2.0
    return (np.fft.irfft(wide, length, axis=0) * (length / have)).astype("float32")


def _of_length(sound: np.ndarray, length: int) -> np.ndarray:
    return np.pad(sound[:length], ((0, max(0, length - len(sound))), (0, 0)))


def _filled_up(elements: list[Any]) -> Any:
    """Sounds of a batch, alone or with labels, brought to the length of the longest."""
    longest = max(len(leaves_of(element)[0]) for element in elements)
    if isinstance(elements[0], tuple):
        return stacked([(_of_length(x, longest), y) for x, y in elements])
    return stacked([_of_length(x, longest) for x in elements])
