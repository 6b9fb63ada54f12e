"""Reviews of films as sequences of words, numbered by frequency: 25,000 to train on and 25,000 to test."""

from __future__ import annotations

from typing import Any

import numpy as np

from unilayers.utils.files import get_file

from .reading import ORIGIN, Part, frequent, moved, read_archive, shuffled, word_index

HASH = "69664113be75683a8fe16e3ed0ab59fda8886cb3cd7ada244f7d9544e4676b9f"
WORDS_HASH = "bfafd718b763782e994055a2d397834f"


def load_data(
    path: str = "imdb.npz",
    num_words: int | None = None,
    skip_top: int = 0,
    maxlen: int | None = None,
    seed: int = 113,
    start_char: int | None = 1,
    oov_char: int | None = 2,
    index_from: int = 3,
    **kwargs: Any,
) -> tuple[Part, Part]:
    """``(x_train, y_train), (x_test, y_test)``: x lists of word numbers (an array of objects), y 0 (bad) or 1 (good).

    Args:
        path: Name of the file in the cache.
        num_words: Words with this number or above become ``oov_char``; none if None.
        skip_top: So do those below this number.
        maxlen: Only reviews that are shorter; all if None.
        seed: Of the order.
        start_char: Put before each review, unless None.
        oov_char: What a word left out becomes; None drops it.
        index_from: Added to each word's number, as the lowest have a meaning of their own.
        **kwargs: Taken for the sake of scripts.

    Raises:
        DataError: if the file cannot be fetched or is another one, or if no review is short enough.

    Reference:
        Maas et al., Learning Word Vectors for Sentiment Analysis, 2011.
    """
    names = ("x_train", "y_train", "x_test", "y_test")
    x, y, x_test, y_test = read_archive(get_file(path, f"{ORIGIN}imdb.npz", file_hash=HASH), *names)
    generator = np.random.RandomState(seed)
    sequences, labels = [], []
    for reviews, marks in ((x, y), (x_test, y_test)):
        order = shuffled(len(reviews), generator)
        kept, which = moved(reviews[order], start_char, index_from, maxlen)
        sequences.append(kept)
        labels.append(marks[order][which])
    result = frequent(sequences[0] + sequences[1], num_words, skip_top, oov_char)
    at = len(sequences[0])
    return (result[:at], labels[0]), (result[at:], labels[1])


def get_word_index(path: str = "imdb_word_index.json") -> dict[str, int]:
    """The number of each word, to which ``index_from`` is added in the reviews.

    Args:
        path: Name of the file in the cache.
    """
    return word_index(path, "imdb_word_index.json", WORDS_HASH)
