"""Texts to numbers: split into words or characters, then each to its index."""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import numpy as np

from unilayers.errors import ShapeError, UnilayersError
from unilayers.hints import PositiveInt
from unilayers.layers.base import Layer
from unilayers.layers.preprocessing.encoding import batches_of, refuse, texts_of
from unilayers.layers.preprocessing.lookup import DROPPED, StringLookup

LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)  # other letters stay, as in Keras
PUNCTUATION = str.maketrans("", "", string.punctuation)
WORDS = re.compile(r"[^ \t\n\v\f\r]+")


class TextVectorization(Layer):
    """Texts as rows of indices of their words, or as vectors that say which words are in them.

    A text is standardized, split into tokens, these are joined to n-grams, and each is looked up in the vocabulary, as
    ``StringLookup`` does it with the mask token "".

    Texts are no part of a graph. A model that begins with ``Input(shape, dtype="string")`` and this layer, which must
    have its vocabulary, takes texts in ``fit``, ``evaluate``, ``predict`` and calls: the layer works on the host before
    each of them, on all of the data, and the graph begins with what it gives.

    Shapes: x ``(batch,)`` or ``(batch, 1)`` of texts -> ``(batch, length)``, int64, in mode "int", else ``(batch,
    vocabulary)``.

    Args:
        max_tokens: How many indices there are at most, the special ones included; for ``adapt`` and padding.
        standardize: "lower_and_strip_punctuation", "lower", "strip_punctuation", None, or a function of an array of
            texts. Letters are those of ASCII.
        split: "whitespace", "character", None for texts that are tokens already, or a function of an array of texts
            that gives a list of tokens for each.
        ngrams: Up to how many neighbours are joined by blanks, all shorter ones included; or a list of lengths.
        output_mode: "int" for the index of each token, in order; "multi_hot" for 1 at each index in the text; "count"
            for how often; "tf_idf" for the count times the weight.
        output_sequence_length: To this length rows are cut or padded with 0, in mode "int"; None: the longest text's.
        pad_to_max_tokens: Whether the vectors are as long as ``max_tokens``, however small the vocabulary.
        vocabulary: The tokens, or the path of a file with one on each line; None: ``adapt`` finds them.
        idf_weights: For "tf_idf", the weight of each token of the vocabulary.
        sparse: Not supported; accepted as Keras has it.
        ragged: Not supported; accepted as Keras has it.
        encoding: Of texts that are given as bytes.

    Raises:
        UnilayersError: for arguments that contradict each other, and for a call without a vocabulary.
        DTypeError: for numbers, and for values of a graph.
        ShapeError: for texts with more axes.

    Example:
        >>> layer = TextVectorization(output_sequence_length=4)
        >>> layer.adapt(["A cat, a dog.", "The cat!"])
        >>> layer.get_vocabulary()
        ['', '[UNK]', 'cat', 'a', 'the', 'dog']
        >>> layer(["A bird; the cat"])
        array([[3, 1, 4, 2]])
    """

    max_tokens: PositiveInt | None = None
    standardize: Literal["lower_and_strip_punctuation", "lower", "strip_punctuation"] | Callable[..., Any] | None = (
        "lower_and_strip_punctuation"
    )
    split: Literal["whitespace", "character"] | Callable[..., Any] | None = "whitespace"
    ngrams: PositiveInt | Sequence[PositiveInt] | None = None
    output_mode: Literal["int", "multi_hot", "count", "tf_idf"] = "int"
    output_sequence_length: PositiveInt | None = None
    pad_to_max_tokens: bool = False
    vocabulary: Sequence[str] | np.ndarray | str | None = None
    idf_weights: Sequence[float] | np.ndarray | None = None
    sparse: bool = False
    ragged: bool = False
    encoding: str = "utf-8"

    def __post_init__(self) -> None:
        refuse(self, sparse=self.sparse, ragged=self.ragged)
        if self.output_sequence_length is not None and self.output_mode != "int":
            raise UnilayersError("output_sequence_length goes with output_mode 'int'", where="TextVectorization")
        self._lookup = StringLookup(
            self.max_tokens,
            mask_token="",
            vocabulary=self.vocabulary,
            idf_weights=self.idf_weights,
            output_mode=self.output_mode,
            pad_to_max_tokens=self.pad_to_max_tokens,
            encoding=self.encoding,
            dtype=self.dtype_policy,
        )
        self._take_vocabulary()

    def _take_vocabulary(self) -> None:
        self.vocabulary, self.idf_weights = self._lookup.vocabulary, self._lookup.idf_weights

    # ---- the vocabulary

    def get_vocabulary(self, include_special_tokens: bool = True) -> list[str]:
        """The tokens in the order of their indices; see ``StringLookup``."""
        return self._lookup.get_vocabulary(include_special_tokens)

    def vocabulary_size(self) -> int:
        """How many indices there are, the special ones included."""
        return self._lookup.vocabulary_size()

    def set_vocabulary(self, vocabulary: Any, idf_weights: Any = None) -> None:
        """Replace the vocabulary; see ``StringLookup``."""
        self._lookup.set_vocabulary(vocabulary, idf_weights)
        self._take_vocabulary()

    def adapt(self, data: Any, batch_size: int | None = None, steps: int | None = None) -> None:
        """Make the vocabulary of texts: their tokens, the most frequent first, among equals the largest first.

        Args:
            data: A list or an array of texts, or another iterable of such batches.
            batch_size: Not used; accepted as Keras has it.
            steps: How many batches to take; None: all.

        Raises:
            UnilayersError: if a vocabulary was given.
        """
        batches = batches_of(data, steps, (list, tuple))
        self._lookup.learn(row for batch in batches for row in self._tokens(batch))
        self._take_vocabulary()

    # ---- calling

    def _tokens(self, x: Any) -> list[list[str]]:
        """The tokens of each text."""
        texts = self._standardized(texts_of(x, self.encoding))
        if self.split is None:
            rows: Iterable[Sequence[str]] = texts.reshape(-1, 1) if texts.ndim < 2 else texts
        else:
            if texts.ndim > 1 and texts.shape[1:] != (1,):
                raise ShapeError(
                    "one text per sample", expected="shape (batch,) or (batch, 1)", received=str(texts.shape)
                )
            texts = texts.ravel()
            if self.split == "whitespace":
                rows = [WORDS.findall(t) for t in texts]
            else:
                rows = [list(t) for t in texts] if self.split == "character" else self.split(texts)
        return [self._joined([str(t) for t in row]) for row in rows]

    def _standardized(self, texts: np.ndarray) -> np.ndarray:
        if callable(self.standardize):
            return texts_of(self.standardize(texts), self.encoding)
        tables = [LOWER] * ("lower" in (self.standardize or "")) + [PUNCTUATION] * ("punct" in (self.standardize or ""))
        result = texts.copy()
        for table in tables:
            result[...] = np.array([t.translate(table) for t in result.ravel()], object).reshape(texts.shape)
        return result

    def _joined(self, tokens: list[str]) -> list[str]:
        """The n-grams of tokens."""
        if self.ngrams is None:
            return tokens
        widths = range(1, self.ngrams + 1) if isinstance(self.ngrams, int) else self.ngrams
        return [" ".join(tokens[i : i + n]) for n in widths for i in range(len(tokens) - n + 1)]

    def call(self, x: Any) -> Any:
        self._lookup.require_vocabulary()
        rows = self._tokens(x)
        longest = max(map(len, rows), default=0)
        if self.output_mode == "int":
            length, fill = self.output_sequence_length or longest, 0
        else:
            length, fill = max(longest, 1), DROPPED
        table = np.full((len(rows), length), fill, "int64")
        for i, row in enumerate(rows):
            found = self._lookup.indices(row[:length])
            table[i, : len(found)] = found
        return self._lookup.finished(table)
