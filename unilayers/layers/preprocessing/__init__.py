"""Preprocessing inside a model: numbers, categories and texts as numbers, and pictures."""

# ruff: noqa: F401

from unilayers.layers.preprocessing.audio import MelSpectrogram, STFTSpectrogram
from unilayers.layers.preprocessing.color import (
    AutoContrast,
    Equalization,
    RandomColorDegeneration,
    RandomColorJitter,
    RandomGrayscale,
    RandomHue,
    RandomInvert,
    RandomPosterization,
    RandomSaturation,
    RandomSharpness,
    Solarization,
)
from unilayers.layers.preprocessing.image import (
    CenterCrop,
    RandomBrightness,
    RandomContrast,
    RandomCrop,
    RandomFlip,
    RandomRotation,
    RandomShear,
    RandomTranslation,
    RandomZoom,
    Resizing,
)
from unilayers.layers.preprocessing.lookup import IntegerLookup, StringLookup
from unilayers.layers.preprocessing.mixing import (
    CutMix,
    MixUp,
    Pipeline,
    RandAugment,
    RandomErasing,
)
from unilayers.layers.preprocessing.numeric import (
    CategoryEncoding,
    Discretization,
    HashedCrossing,
    Hashing,
    Normalization,
    Rescaling,
)
from unilayers.layers.preprocessing.text import TextVectorization
