"""What ``fit``, ``evaluate`` and ``predict`` take as data, batch by batch: arrays, or anything that gives batches."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from unilayers import ops, random
from unilayers.data.dataset import batches
from unilayers.data.pydataset import PyDataset
from unilayers.errors import DataError
from unilayers.structure import map_structure
from unilayers.training.steps import Batch

BATCH_SIZE = 32  # where none is given
# The arrays of a batch; a batch of its form, the same object as long as that is so; which samples they are, if known.
Item = tuple[list[Any], Batch, Any]


class Feed:
    """Batches, pass after pass.

    Attributes:
        like: Data of the form of the first batch.
        steps: Batches in a pass; None if that is not known before one ends.
        batch_size: Samples in a batch, where that is known.
        owned: Whether the arrays of a batch are made for it alone, so that nobody else writes to them.
    """

    like: Batch
    steps: int | None = None
    batch_size: int | None = None
    owned: bool = False

    def batches(self, number: int, start: int = 0) -> Iterator[Item]:
        """The batches of a pass from batch ``start`` on.

        Args:
            number: How many passes there have been; with the seed it decides the order.
            start: How many batches to leave out.
        """
        raise NotImplementedError


class ArrayFeed(Feed):
    """Batches cut out of arrays.

    Args:
        data: The arrays, checked.
        batch_size: Samples in a batch; the last one may have fewer.
        seed: Of the order.
        shuffle: Whether each pass has an order of its own; ``"batch"``: of the batches only.
    """

    def __init__(self, data: Batch, batch_size: int | None, seed: int = 0, shuffle: bool | str = False) -> None:
        self.like, self._arrays, self._count = data, data.leaves, length(data)
        self.batch_size = self._size = batch_size or BATCH_SIZE
        self.steps = math.ceil(self._count / self._size)
        self._seed, self._shuffle, self.owned = seed, shuffle, shuffle is True

    def batches(self, number: int, start: int = 0) -> Iterator[Item]:
        """See `Feed`."""
        arrays, like = self._arrays, self.like
        if self.owned:
            for rows in itertools.islice(batches(self._count, self._size, self._seed, number), start, None):
                yield [a.take(rows, 0) for a in arrays], like, rows
        else:
            for at in itertools.islice(self._slices(number), start, None):
                yield [a[at] for a in arrays], like, at

    def _slices(self, number: int) -> Iterator[slice]:
        steps, size = math.ceil(self._count / self._size), self._size
        order = random.permutation(steps, self._seed, number) if self._shuffle else range(steps)
        return (slice(i * size, min((int(i) + 1) * size, self._count)) for i in order)


class StreamFeed(Feed):
    """Batches that something else makes: a ``PyDataset``, a ``DataLoader`` of PyTorch, a ``tf.data.Dataset``, a
    generator, any iterable of ``x``, ``(x, y)`` or ``(x, y, sample_weight)``.

    Args:
        source: What makes them.
        prepare: Gives a batch as a model takes it, checked.
        seed: Of the order of the batches, where the source has numbers for them.
        shuffle: Whether they come in a new order in each pass, if they are numbered.
    """

    def __init__(self, source: Any, prepare: Callable[[Any], Batch], seed: int = 0, shuffle: bool = False) -> None:
        self._source, self._prepare, self._seed, self._shuffle = source, prepare, seed, shuffle
        self.steps = _known_length(source)
        self._begun: Iterator[Any] | None = None
        self._first: list[Any] = []
        if isinstance(source, PyDataset):  # numbered: any of its batches may be looked at
            self.like = prepare(source[0])
        else:  # whose first batch is taken for that, and given when the first pass begins
            self._begun = iter(source)
            self._first = list(itertools.islice(self._begun, 1))
            if not self._first:
                raise DataError("the data has no batches", received=type(source).__name__)
            self.like = prepare(self._first[0])

    def batches(self, number: int, start: int = 0) -> Iterator[Item]:
        """See `Feed`."""
        like = self.like
        signature = like.signature
        for raw in itertools.islice(self._raw(number), start, None):
            batch = self._prepare(raw)
            if batch.signature != signature:
                like, signature = batch, batch.signature
            yield batch.leaves, like, None

    def _raw(self, number: int) -> Iterator[Any]:
        if isinstance(self._source, PyDataset):
            self._source.on_epoch_begin()
            count = self._source.num_batches
            if self._shuffle and count is not None:
                yield from self._source.in_order(random.permutation(count, self._seed, number).tolist())
            else:
                yield from self._source
        elif self._begun is not None:
            begun, self._begun = self._begun, None
            yield from itertools.chain(self._first, begun)
            self._first.clear()
        else:
            yield from itertools.chain(self._source)  # not from the source, as that would end a generator left early
        if hasattr(self._source, "on_epoch_end"):
            self._source.on_epoch_end()


class Rounds:
    """Which batches make up the epochs: a pass each, or a number of steps that go on where the last epoch ended.

    Args:
        feed: The batches.
        position: How far training has come; ``sweep`` and ``batch`` of it are used and kept up.
        steps: Steps in an epoch; None: a whole pass.

    Attributes:
        form: A batch of the first one's form.
        owned: See `Feed`.
        ran_out: Whether a pass had no batches at all: what was given cannot be gone through again.
    """

    def __init__(self, feed: Feed, position: Any, steps: int | None = None) -> None:
        self._feed, self._position, self._steps, self.form = feed, position, steps, feed.like
        self._pass: Iterator[Item] | None = None
        self.owned, self.ran_out = feed.owned, False

    def epoch(self, start: int = 0) -> Iterator[tuple[int, Item]]:
        """The batches of one epoch with their numbers, from ``start`` on; sets ``ran_out`` if there are too few."""
        at, taken = self._position, start
        if self._steps is None and start == 0:
            at.batch = 0
        while self._steps is None or taken < self._steps:
            if self._pass is None:
                self._pass = self._feed.batches(at.sweep, at.batch)
            item = next(self._pass, None)
            if item is not None:
                at.batch += 1
                yield taken, item
                taken += 1
                continue
            self.ran_out = at.batch == 0
            if self.ran_out or self._steps is None:
                return
            self._end_pass()
        if at.batch == self._feed.steps:
            self._end_pass()

    def end_epoch(self) -> None:
        """An epoch that is a pass has ended, maybe early."""
        if self._steps is None:
            self._end_pass()

    def _end_pass(self) -> None:
        self._pass = None
        self._position.sweep += 1
        self._position.batch = 0


# ---- what is given to fit -----------------------------------------------------------------------------------------


def is_stream(x: Any) -> bool:
    """Whether data comes in batches: an iterable that is neither an array nor a structure of arrays."""
    if x is None or hasattr(x, "shape") or isinstance(x, (list, tuple, Mapping, str, bytes, range)):
        return False
    return isinstance(x, PyDataset) or hasattr(x, "__iter__")


def parts_of(raw: Any) -> tuple[Any, Any, Any]:
    """x, y and sample weights of a batch as a stream gives it.

    Raises:
        DataError: for more than three parts.
    """
    if not isinstance(raw, (list, tuple)):
        return raw, None, None
    if not 0 < len(raw) <= 3:
        raise DataError(
            "a batch of too many parts", expected="x, (x, y) or (x, y, sample_weight)", received=f"{len(raw)} parts",
            fix="Several inputs are one part: ((x1, x2), y)",
        )  # fmt: skip
    x, y, weight = (*raw, None, None)[:3]
    return x, y, weight


def length(data: Batch) -> int:
    """How many samples there are."""
    return len(data.leaves[0]) if data.leaves else 0


def weighted(sample_weight: Any, y: Any, class_weight: Mapping[int, float] | None) -> Any:
    """Sample weights that also hold the weight of each sample's class: its label, or the largest of its row."""
    if class_weight is None:
        return sample_weight
    if y is None or isinstance(y, Mapping) or (isinstance(y, (list, tuple)) and any(hasattr(p, "shape") for p in y)):
        raise DataError("class_weight needs targets of one output", where="fit(class_weight=...)")
    labels = ops.to_numpy(y)
    labels = labels.argmax(-1) if labels.ndim > 1 and labels.shape[-1] > 1 else labels.reshape(len(labels), -1)[:, 0]
    weights = np.array([class_weight.get(int(c), 1.0) for c in labels], "float32")
    return weights if sample_weight is None else weights * ops.to_numpy(sample_weight)


def checked(data: Batch) -> Batch:
    """The data as arrays of one length.

    Raises:
        DataError: no samples, lengths that differ, or an array that is not numeric.
    """

    def array(x: Any) -> Any:
        if x is None:
            return None
        a = ops.to_numpy(x)
        if a.dtype == object or a.dtype.kind in "USO":
            raise DataError(
                "data is not numeric", received=f"dtype {a.dtype}", fix="Pass arrays of numbers with equal shapes"
            )
        return a.astype("int32") if a.dtype.kind in "iu" and a.dtype.itemsize == 8 else a

    converted = Batch(*(map_structure(array, _plain(part)) for part in (data.x, data.y, data.weight)))
    lengths = [len(a) if a.ndim else 0 for a in converted.leaves]
    if not lengths or lengths[0] == 0:
        raise DataError("no samples", received=f"shapes {[a.shape for a in converted.leaves]}")
    if len(set(lengths)) > 1:
        raise DataError(
            "arrays of different lengths", expected="as many targets and weights as inputs", received=str(lengths)
        )
    return converted


def _plain(part: Any) -> Any:
    """A list of numbers is an array, a list of arrays is several inputs."""
    if isinstance(part, (list, tuple)) and part and not any(hasattr(p, "shape") for p in part):
        return np.asarray(part)
    return part


def _known_length(source: Any) -> int | None:
    if isinstance(source, PyDataset):
        return source.num_batches
    try:
        return len(source)
    except (TypeError, NotImplementedError):  # a generator, a data set without an end
        return None
