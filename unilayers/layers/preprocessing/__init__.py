"""Preprocessing inside a model: numbers, categories and texts as numbers, and pictures."""

# ruff: noqa: F401

from unilayers.layers.preprocessing.image import (
    CenterCrop,
    RandomBrightness,
    RandomContrast,
    RandomCrop,
    RandomFlip,
    RandomRotation,
    RandomTranslation,
    RandomZoom,
    Resizing,
)
from unilayers.layers.preprocessing.lookup import IntegerLookup, StringLookup
from unilayers.layers.preprocessing.numeric import (
    CategoryEncoding,
    Discretization,
    HashedCrossing,
    Hashing,
    Normalization,
    Rescaling,
)
from unilayers.layers.preprocessing.text import TextVectorization
