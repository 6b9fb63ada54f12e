"""News of an agency as sequences of words, numbered by frequency: 11,228 texts on 46 topics."""

from __future__ import annotations

import numpy as np

from unilayers.utils.files import get_file

from .reading import ORIGIN, Part, frequent, moved, read_archive, shuffled, word_index

HASH = "d6586e694ee56d7a4e65172e12b3e987c03096cb01eab99753921ef915959916"
WORDS_HASH = "4d44cc38712099c9e383dc6e5f11a921"
TOPICS = """cocoa grain veg-oil earn acq wheat copper housing money-supply coffee sugar trade reserves ship cotton
carcass crude nat-gas cpi money-fx interest gnp meal-feed alum oilseed gold tin strategic-metal livestock retail ipi
iron-steel rubber heat jobs lei bop zinc orange pet-chem dlr gas silver wpi hog lead"""


def load_data(
    path: str = "reuters.npz",
    num_words: int | None = None,
    skip_top: int = 0,
    maxlen: int | None = None,
    test_split: float = 0.2,
    seed: int = 113,
    start_char: int | None = 1,
    oov_char: int | None = 2,
    index_from: int = 3,
) -> tuple[Part, Part]:
    """``(x_train, y_train), (x_test, y_test)``: x lists of word numbers (an array of objects), y topics 0 to 45.

    Args:
        path: Name of the file in the cache.
        num_words: Words with this number or above become ``oov_char``; none if None.
        skip_top: So do those below this number.
        maxlen: Only texts that are shorter; all if None.
        test_split: Fraction of the texts that is kept to test.
        seed: Of the order before the split.
        start_char: Put before each text, unless None.
        oov_char: What a word left out becomes; None drops it.
        index_from: Added to each word's number, as the lowest have a meaning of their own.

    Raises:
        DataError: if the file cannot be fetched or is another one, or if no text is short enough.

    Reference:
        Lewis, Reuters-21578 text categorization test collection, 1997.
    """
    x, y = read_archive(get_file(path, f"{ORIGIN}reuters.npz", file_hash=HASH), "x", "y")
    order = shuffled(len(x), np.random.RandomState(seed))
    kept, which = moved(x[order], start_char, index_from, maxlen)
    sequences, topics = frequent(kept, num_words, skip_top, oov_char), y[order][which]
    at = int(len(sequences) * (1 - test_split))
    return (sequences[:at], topics[:at]), (sequences[at:], topics[at:])


def get_word_index(path: str = "reuters_word_index.json") -> dict[str, int]:
    """The number of each word, to which ``index_from`` is added in the texts.

    Args:
        path: Name of the file in the cache.
    """
    return word_index(path, "reuters_word_index.json", WORDS_HASH)


def get_label_names() -> tuple[str, ...]:
    """The topics, in the order of their labels.

    Example:
        >>> get_label_names()[3], len(get_label_names())
        ('earn', 46)
    """
    return tuple(TOPICS.split())
