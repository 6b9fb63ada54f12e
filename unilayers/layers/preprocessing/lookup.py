"""Vocabularies: categories, integers or texts, to indices and back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np

from unilayers import ops
from unilayers.errors import DataError, UnilayersError
from unilayers.graph import Value
from unilayers.hints import NonNegativeInt, PositiveInt
from unilayers.layers.base import Layer
from unilayers.layers.preprocessing.encoding import (
    Salt,
    as_integers,
    batches_of,
    count_not_above,
    encoded,
    key_of_salt,
    refuse,
    texts_of,
)
from unilayers.layers.preprocessing.hashes import bucket, bucket_of_integers

LookupEncoding: TypeAlias = Literal["int", "one_hot", "multi_hot", "count", "tf_idf"]

DROPPED = -1  # the index of what counts nowhere


class Lookup(Layer, abstract=True):
    """Base of the layers with a vocabulary. A subclass declares the fields, which are Keras's, and reads values.

    The indices are, in this order: the mask's (only in mode "int", if there is a mask token), those for values outside
    of the vocabulary, those of the vocabulary.
    """

    def __post_init__(self: Any) -> None:
        where = type(self).__name__
        refuse(self, sparse=self.sparse)
        wrong = {
            "max_tokens must be above 1": self.max_tokens == 1,
            "pad_to_max_tokens needs max_tokens": self.pad_to_max_tokens and self.max_tokens is None,
            "invert goes with output_mode 'int'": self.invert and self.output_mode != "int",
            "idf_weights go with output_mode 'tf_idf'": self.idf_weights is not None and self.output_mode != "tf_idf",
        }
        for problem, found in wrong.items():
            if found:
                raise UnilayersError(problem, where=where)
        self._key = key_of_salt(self.salt, f"{where}.salt")
        self._tokens: list[Any] = []
        self._weights: np.ndarray | None = None
        self._fixed = self.vocabulary is not None
        if self._fixed:
            self.set_vocabulary(self.vocabulary, self.idf_weights)

    # ---- what a subclass knows about its values

    def values_of(self, data: Any) -> np.ndarray:
        """Data on the host as a NumPy array of tokens."""
        raise NotImplementedError

    # ---- the vocabulary

    @property
    def _first_oov(self: Any) -> int:
        return int(self.mask_token is not None and self.output_mode == "int")

    @property
    def _first_token(self: Any) -> int:
        return self._first_oov + self.num_oov_indices

    @property
    def _special(self: Any) -> list[Any]:
        return [self.mask_token] * self._first_oov + [self.oov_token] * self.num_oov_indices

    def get_vocabulary(self, include_special_tokens: bool = True) -> list[Any]:
        """The tokens in the order of their indices.

        Args:
            include_special_tokens: Whether to begin with the mask token and those for values outside, as indices do.
        """
        return [*(self._special if include_special_tokens else ()), *self._tokens]

    def vocabulary_size(self) -> int:
        """How many indices there are, the special ones included."""
        return self._first_token + len(self._tokens)

    def set_vocabulary(self: Any, vocabulary: Any, idf_weights: Any = None) -> None:
        """Replace the vocabulary.

        Args:
            vocabulary: The tokens as a list or an array, or the path of a file with one on each line; with or without
                the special ones at the beginning, as ``get_vocabulary`` gives them.
            idf_weights: For "tf_idf", the weight of each.

        Raises:
            UnilayersError: for tokens that are there twice or too many, special tokens in the midst, and weights that
                are missing or do not fit.
            DataError: if there is no such file.
        """
        if (self.output_mode == "tf_idf") != (idf_weights is not None):
            raise UnilayersError("idf_weights belong to output_mode 'tf_idf', and are needed there", where=self.where)
        if isinstance(vocabulary, (str, PathLike)):
            vocabulary = _lines(Path(vocabulary))
        given = self.values_of(vocabulary).ravel().tolist()
        special = self._special
        complete = bool(special) and given[: len(special)] == special
        tokens = given[len(special) :] if complete else given
        self._check(tokens)
        if idf_weights is not None:
            weights = np.asarray(ops.to_numpy(idf_weights), "float64")
            if weights.shape != (len(given),):
                raise UnilayersError(
                    "idf_weights do not fit the vocabulary", where=self.where, expected=f"{len(given)} numbers",
                    received=str(weights.shape),
                )  # fmt: skip
            front = [] if complete else [weights.mean()] * len(special)
            self._weights = np.array([*front, *weights])
            self.idf_weights = weights.tolist()
        self._tokens = tokens
        self.vocabulary = given

    def _check(self: Any, tokens: Sequence[Any]) -> None:
        repeated = [t for t, n in Counter(tokens).items() if n > 1]
        reserved = [t for t in (self.mask_token, self.oov_token if self.invert else None) if t is not None]
        wrong = {
            "the vocabulary is empty": not tokens,
            f"tokens are there more than once: {repeated[:5]}": bool(repeated),
            f"special tokens, which may only stand at the beginning, all of them as {self._special}": any(
                t in reserved for t in tokens
            ),
            f"more tokens than max_tokens={self.max_tokens}, the special ones included": self.max_tokens is not None
            and self._first_token + len(tokens) > self.max_tokens,
        }
        for problem, found in wrong.items():
            if found:
                raise UnilayersError(problem, where=f"{type(self).__name__}.vocabulary")

    def adapt(self, data: Any, steps: int | None = None) -> None:
        """Make the vocabulary of data: the tokens in them, the most frequent first, among equals the largest first.

        Args:
            data: An array or a list, whose first axis counts the documents (for "tf_idf"), or another iterable of
                such batches.
            steps: How many batches to take; None: all.

        Raises:
            UnilayersError: if a vocabulary was given.
        """
        self.learn(row.ravel().tolist() for batch in self._tables(data, steps) for row in batch)

    def _tables(self, data: Any, steps: int | None) -> Iterable[np.ndarray]:
        """Batches of data as arrays of documents."""
        whole = isinstance(data, (list, tuple)) or hasattr(data, "shape")
        for batch in batches_of(data, steps, (list, tuple)):
            table = self.values_of(batch)
            yield table if table.ndim > 1 else table.reshape((-1, 1) if whole else (1, -1))

    def learn(self: Any, documents: Iterable[Sequence[Any]]) -> None:
        """Make the vocabulary of documents, each a list of tokens; see ``adapt``."""
        if self._fixed:
            raise UnilayersError("a vocabulary was given", where=self.where, fix="Leave it out to adapt")
        counts: Counter[Any] = Counter()
        among: Counter[Any] = Counter()
        number = 0
        for document in documents:
            counts.update(document)
            among.update(set(document))
            number += 1
        for special in (self.mask_token, self.oov_token):
            counts.pop(special, None)
        if not counts:
            raise UnilayersError("no data to adapt to", where=self.where)
        ordered = sorted(counts, key=lambda t: (counts[t], t), reverse=True)
        tokens = ordered[: self.max_tokens - self._first_token] if self.max_tokens else ordered
        weights = [float(np.log(1 + number / (1 + among[t]))) for t in tokens] if self.output_mode == "tf_idf" else None
        self.set_vocabulary(tokens, weights)

    # ---- calling

    def require_vocabulary(self) -> None:
        """Raise if there is no vocabulary yet."""
        if not self._tokens:
            raise UnilayersError("the layer has no vocabulary", fix="Give vocabulary, or call adapt(data)")

    def _no_token(self, outside: Sequence[Any]) -> UnilayersError:
        return UnilayersError(
            "values outside of the vocabulary", received=str(list(outside)[:5]), fix="Use num_oov_indices=1"
        )

    def finished(self: Any, indices: Any) -> Any:
        """Indices in the output mode."""
        if self.output_mode == "int":
            return indices
        depth = self.max_tokens if self.pad_to_max_tokens else self.vocabulary_size()
        assert depth is not None
        if self.output_mode != "tf_idf":
            return encoded(indices, self.output_mode, depth, self.variable_dtype)
        assert self._weights is not None
        weights = np.pad(self._weights, (0, depth - len(self._weights))).astype(self.variable_dtype)
        return ops.multiply(encoded(indices, "count", depth, self.variable_dtype), weights)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise DataError("cannot read the vocabulary", where=str(path), received=str(error)) from None


class IntegerLookup(Lookup):
    """The index of each integer in a vocabulary, or with ``invert`` the integer of each index.

    The look-up is part of the graph, on every backend.

    Shapes: x any shape of integers -> the same, int64; for the other output modes, vectors as long as the vocabulary:
    "one_hot" one per element, the others one per row along the last axis.

    Args:
        max_tokens: How many indices there are at most, the special ones included; for ``adapt`` and padding.
        num_oov_indices: How many indices stand for integers outside of the vocabulary. With none, such an integer is
            an error, or -1 in a compiled graph, which cannot raise.
        mask_token: The integer that stands for no value: index 0 in mode "int", and counts nowhere in the others.
        oov_token: What an index outside of the vocabulary becomes with ``invert``.
        vocabulary: The integers, or the path of a file with one on each line; None: ``adapt`` finds them.
        vocabulary_dtype: Only "int64".
        idf_weights: For "tf_idf", the weight of each integer of the vocabulary.
        invert: Whether to turn indices into integers.
        output_mode: "int" for the index; "one_hot"; "multi_hot" for 1 at each index in the row; "count" for how often;
            "tf_idf" for the count times the weight.
        sparse: Not supported; accepted as Keras has it.
        pad_to_max_tokens: Whether the vectors are as long as ``max_tokens``, however small the vocabulary.
        oov_method: Which of several indices an integer outside gets: its remainder ("floormod"), or a hash of its
            decimal text ("farmhash").
        salt: One or two integers that give another hash, with "farmhash".

    Raises:
        UnilayersError: for arguments that contradict each other, and for a call without a vocabulary.

    Example:
        >>> layer = IntegerLookup(vocabulary=[12, 36, 1138])
        >>> layer(np.array([[36, 7], [1138, 12]]))
        array([[2, 0],
               [3, 1]])
        >>> layer = IntegerLookup()
        >>> layer.adapt(np.array([4, 4, 9]))
        >>> layer.get_vocabulary()
        [-1, 4, 9]
    """

    max_tokens: PositiveInt | None = None
    num_oov_indices: NonNegativeInt = 1
    mask_token: int | None = None
    oov_token: int | None = -1
    vocabulary: Sequence[int] | np.ndarray | str | None = None
    vocabulary_dtype: Literal["int64"] = "int64"
    idf_weights: Sequence[float] | np.ndarray | None = None
    invert: bool = False
    output_mode: LookupEncoding = "int"
    sparse: bool = False
    pad_to_max_tokens: bool = False
    oov_method: Literal["floormod", "farmhash"] = "floormod"
    salt: Salt = None

    def __post_init__(self) -> None:
        if self.salt is not None and self.oov_method != "farmhash":
            raise UnilayersError("salt goes with oov_method 'farmhash'", where="IntegerLookup")
        super().__post_init__()

    def values_of(self, data: Any) -> np.ndarray:
        return np.asarray(data if isinstance(data, (list, tuple)) else ops.to_numpy(data)).astype("int64")

    def call(self, x: Any) -> Any:
        self.require_vocabulary()
        x = as_integers(x if hasattr(x, "dtype") else np.asarray(x))
        return self._integers(x) if self.invert else self.finished(self._indices(x))

    def _integers(self, indices: Any) -> Any:
        table = np.array([0 if t is None else t for t in self.get_vocabulary()], "int64")
        outside = ops.logical_or(ops.less(indices, 0), ops.greater_equal(indices, len(table)))
        found = ops.take(table, ops.clip(indices, minimum=0, maximum=len(table) - 1))
        return ops.where(outside, 0 if self.oov_token is None else self.oov_token, found)

    def _indices(self, x: Any) -> Any:
        tokens = np.array(self._tokens, "int64")
        order = np.argsort(tokens)
        place = ops.maximum(ops.subtract(count_not_above(tokens[order], x), 1), 0)
        found = ops.equal(ops.take(tokens[order], place), x)
        index = ops.take(order.astype("int64") + self._first_token, place)
        masked = ops.equal(x, self.mask_token) if self.mask_token is not None else None
        if self.num_oov_indices:
            outside: Any = ops.add(self._outside(x), self._first_oov)
        else:
            outside = DROPPED
            known = found if masked is None else ops.logical_or(found, masked)
            if not isinstance(known, Value) and not ops.to_numpy(known).all():
                raise self._no_token(ops.to_numpy(x)[~ops.to_numpy(known)].tolist())
        index = ops.where(found, index, outside)
        return index if masked is None else ops.where(masked, 0 if self.output_mode == "int" else DROPPED, index)

    def _outside(self, x: Any) -> Any:
        if self.num_oov_indices == 1 or self.oov_method == "floormod":
            return ops.remainder(x, self.num_oov_indices)
        return bucket_of_integers(x, self.num_oov_indices, self._key)


class StringLookup(Lookup):
    """The index of each text in a vocabulary, or with ``invert`` the text of each index.

    Texts are no part of a graph, nor data for ``fit``: call the layer on them first, and train on the indices, a NumPy
    array that every backend takes. In a model, the layer works when the model is called: ``model(texts)``.

    Shapes: x any shape of texts -> the same, int64; for the other output modes, vectors as long as the vocabulary:
    "one_hot" one per element, the others one per row along the last axis.

    Args:
        max_tokens: How many indices there are at most, the special ones included; for ``adapt`` and padding.
        num_oov_indices: How many indices stand for texts outside of the vocabulary, which a hash distributes over
            them. With none, such a text is an error.
        mask_token: The text that stands for no value: index 0 in mode "int", and counts nowhere in the others.
        oov_token: What an index outside of the vocabulary becomes with ``invert``.
        vocabulary: The texts, or the path of a file with one on each line; None: ``adapt`` finds them.
        idf_weights: For "tf_idf", the weight of each text of the vocabulary.
        invert: Whether to turn indices into texts.
        output_mode: "int" for the index; "one_hot"; "multi_hot" for 1 at each index in the row; "count" for how often;
            "tf_idf" for the count times the weight.
        pad_to_max_tokens: Whether the vectors are as long as ``max_tokens``, however small the vocabulary.
        sparse: Not supported; accepted as Keras has it.
        encoding: Of texts that are given as bytes.
        salt: One or two integers that give another hash.

    Raises:
        UnilayersError: for arguments that contradict each other, and for a call without a vocabulary.
        DTypeError: for numbers, and for values of a graph.

    Example:
        >>> layer = StringLookup(vocabulary=["a", "b"])
        >>> layer([["b", "c"], ["a", "b"]])
        array([[2, 0],
               [1, 2]])
        >>> StringLookup(vocabulary=layer.get_vocabulary(), invert=True)(np.array([2, 0])).tolist()
        ['b', '[UNK]']
    """

    max_tokens: PositiveInt | None = None
    num_oov_indices: NonNegativeInt = 1
    mask_token: str | None = None
    oov_token: str | None = "[UNK]"
    vocabulary: Sequence[str] | np.ndarray | str | None = None
    idf_weights: Sequence[float] | np.ndarray | None = None
    invert: bool = False
    output_mode: LookupEncoding = "int"
    pad_to_max_tokens: bool = False
    sparse: bool = False
    encoding: str = "utf-8"
    salt: Salt = None

    def values_of(self, data: Any) -> np.ndarray:
        return texts_of(data, self.encoding)

    def call(self, x: Any) -> Any:
        self.require_vocabulary()
        if self.invert:
            return self._texts(x)
        texts = texts_of(x, self.encoding)
        return self.finished(self.indices(texts.ravel()).reshape(texts.shape))

    def indices(self, texts: Sequence[str] | np.ndarray) -> np.ndarray:
        """The index of each of a list of texts; -1 for the mask where it counts nowhere."""
        index = {t: i + self._first_token for i, t in enumerate(self._tokens)}
        outside = [t for t in dict.fromkeys(texts) if t not in index and t != self.mask_token]
        if outside and not self.num_oov_indices:
            raise self._no_token(outside)
        for text in outside:
            index[text] = self._first_oov + bucket(text.encode(), self.num_oov_indices, self._key)
        if self.mask_token is not None:
            index[self.mask_token] = 0 if self.output_mode == "int" else DROPPED
        return np.array([index[t] for t in texts], "int64")

    def _texts(self, x: Any) -> np.ndarray:
        if isinstance(x, Value):
            texts_of(x)  # raises
        known = dict(enumerate(self.get_vocabulary()))
        indices = np.asarray(x if isinstance(x, (list, tuple)) else ops.to_numpy(x))
        return np.array([known.get(int(i), self.oov_token) for i in indices.ravel()]).reshape(indices.shape)
