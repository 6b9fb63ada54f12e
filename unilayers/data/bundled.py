"""Data sets that need no file of the user's: the bundled digits and the synthetic ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from unilayers import random
from unilayers.hints import NonNegativeFloat, NonNegativeInt, PositiveInt

from .dataset import Dataset
from .source import Source

FILES = Path(__file__).parent / "files"


class Digits(Source):
    """1,797 handwritten digits: x float32 ``(1797, 8, 8, 1)`` in [0, 1], y int32, 10 classes.

    Args:
        shuffle_seed: Put the samples in an order drawn with this seed. None keeps the order of collection, in which
            writer follows writer, so that the last tenth is written by people whom the rest does not show.

    Reference:
        E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository, 1998,
        doi:10.24432/C50P49, CC BY 4.0; see ``files/digits.txt``.
    """

    shuffle_seed: NonNegativeInt | None = None

    def read(self) -> Dataset:
        with np.load(FILES / "digits.npz", allow_pickle=False) as file:
            images, labels = file["images"], file["labels"]
        if self.shuffle_seed is not None:
            order = random.permutation(len(labels), self.shuffle_seed, 0)
            images, labels = images[order], labels[order]
        x = images[..., None].astype(np.float32) / np.float32(16)
        return Dataset(x, labels.astype(np.int32), "digits", 10, class_names=tuple("0123456789"))


class Spirals(Source):
    """Points on interleaved spiral arms, one arm a class: x float32 ``(n, 2)`` within about the unit disc, y int32.

    Args:
        n: Points in all; the classes take turns.
        classes: Number of arms.
        noise: Standard deviation of the angle, in radians.
        seed: Another seed, other points.
    """

    n: PositiveInt = 300
    classes: PositiveInt = 3
    noise: NonNegativeFloat = 0.2
    seed: NonNegativeInt = 0

    def read(self) -> Dataset:
        generator = random.generator(self.seed, "spirals")
        y = np.arange(self.n) % self.classes
        radius = generator.random(self.n)
        # 4 radians from the centre to the rim: arms that wind around each other and stay apart.
        angle = 2 * np.pi * y / self.classes + 4 * radius + float(self.noise) * generator.standard_normal(self.n)
        x = radius[:, None] * np.stack([np.sin(angle), np.cos(angle)], axis=1)
        return Dataset(x.astype(np.float32), y.astype(np.int32), "spirals", self.classes)


class Blobs(Source):
    """Normal clouds around random centres, one cloud a class: x float32 ``(n, features)``, y int32.

    Args:
        n: Points in all; the classes take turns.
        classes: Number of clouds, with centres uniform in [-10, 10].
        features: Coordinates of a point.
        noise: Standard deviation of a cloud.
        seed: Another seed, other points.
    """

    n: PositiveInt = 300
    classes: PositiveInt = 3
    features: PositiveInt = 2
    noise: NonNegativeFloat = 1.0
    seed: NonNegativeInt = 0

    def read(self) -> Dataset:
        generator = random.generator(self.seed, "blobs")
        centres = generator.uniform(-10, 10, (self.classes, self.features))
        y = np.arange(self.n) % self.classes
        x = centres[y] + float(self.noise) * generator.standard_normal((self.n, self.features))
        return Dataset(x.astype(np.float32), y.astype(np.int32), "blobs", self.classes)


class RandomRegression(Source):
    """Standard normal samples and unrelated standard normal targets, to see a training loss fall and nothing more.

    Args:
        n: Samples.
        d_in: Numbers in a sample.
        d_out: Numbers in a target.
        seed: Another seed, other numbers.
    """

    n: PositiveInt = 64
    d_in: PositiveInt = 1000
    d_out: PositiveInt = 1000
    seed: NonNegativeInt = 0

    def read(self) -> Dataset:
        x, y = (
            random.generator(self.seed, f"random_regression/{part}").standard_normal((self.n, size)).astype(np.float32)
            for part, size in (("x", self.d_in), ("y", self.d_out))
        )
        return Dataset(x, y, "random_regression")
