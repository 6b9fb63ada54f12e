"""Elements made as they are asked for, in the manner of ``tf.data``: read, change, shuffle, batch, feed to ``fit``."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from contextvars import copy_context
from queue import Full, Queue
from threading import Event, Thread
from typing import Any

import numpy as np

from unilayers import random
from unilayers.errors import DataError
from unilayers.structure import leaves_of, map_structure, pack_like

from .dataset import batches

INFINITE = -1
UNKNOWN = -2


class Pipeline:
    """A lazy sequence of elements (samples or batches) that can be gone through any number of times.

    Every method returns a new pipeline and reads nothing. An element is an array or a structure of arrays; the parts of
    a tuple ``(x, y)`` are handed to functions as arguments. The order of what is shuffled follows from the seed and
    from how often it has been gone through, so each epoch has an order of its own and a second run has the same.

    Args:
        start: ``start()`` begins a pass.
        count: How many elements a pass has; ``INFINITE`` or ``UNKNOWN``.
        class_names: What the labels stand for.
        file_paths: The files behind the samples.

    Example:
        >>> pipeline = Pipeline.from_tensor_slices((np.arange(5), np.arange(5) % 2)).map(lambda x, y: (10 * x, y))
        >>> [x.tolist() for x, y in pipeline.batch(2)], len(pipeline.batch(2))
        ([[0, 10], [20, 30], [40]], 3)
    """

    def __init__(
        self,
        start: Callable[[], Iterator[Any]],
        count: int = UNKNOWN,
        *,
        class_names: Sequence[str] | None = None,
        file_paths: Sequence[str] | None = None,
    ) -> None:
        self._start, self._count = start, count
        self.class_names, self.file_paths = class_names, file_paths

    # ---- sources

    @classmethod
    def from_tensor_slices(cls, arrays: Any) -> Pipeline:
        """The samples of arrays of one length, or of a structure of such.

        Raises:
            DataError: for arrays of different lengths.
        """
        arrays = map_structure(np.asarray, arrays)
        lengths = {len(a) for a in leaves_of(arrays)}
        if len(lengths) != 1:
            raise DataError("not one length", where="Pipeline.from_tensor_slices", received=str(sorted(lengths)))
        return cls.of_samples(lengths.pop(), lambda i: map_structure(lambda a: a[i], arrays))

    @classmethod
    def of_samples(
        cls,
        n: int,
        load: Callable[[int], Any],
        batch_size: int | None = None,
        seed: int | None = None,
        gather: Callable[[list[Any]], Any] | None = None,
        **told: Any,
    ) -> Pipeline:
        """Samples by number, in batches unless ``batch_size`` is None, shuffled anew in each epoch if there is a seed.

        Args:
            n: How many there are.
            load: ``load(i)`` gives the i-th.
            batch_size: Samples a batch.
            seed: Of the order; None keeps it.
            gather: Makes a batch of a list of samples; `stacked` if None.
            **told: ``class_names`` and ``file_paths``.
        """

        passes = itertools.count()

        def start() -> Iterator[Any]:
            rows = batches(n, batch_size or 1, seed or 0, next(passes), shuffle=seed is not None)
            if batch_size is None:
                return (load(int(row[0])) for row in rows)
            return ((gather or stacked)([load(int(i)) for i in row]) for row in rows)

        return cls(start, -(-n // (batch_size or 1)), **told)

    # ---- going through

    def __iter__(self) -> Iterator[Any]:
        return self._start()

    def __len__(self) -> int:
        if self._count < 0:
            raise TypeError(f"the pipeline has {'no end' if self._count == INFINITE else 'an unknown length'}")
        return self._count

    def __bool__(self) -> bool:
        return True  # else truth would be a question of length

    def cardinality(self) -> int:
        """How many elements there are; -1 for no end, -2 where that is not known."""
        return self._count

    def as_numpy_iterator(self) -> Iterator[Any]:
        """The elements, which are NumPy arrays already."""
        return iter(self)

    def _then(self, start: Callable[[], Iterator[Any]], count: int) -> Pipeline:
        return Pipeline(start, count, class_names=self.class_names, file_paths=self.file_paths)

    # ---- changing elements

    def map(self, function: Callable[..., Any], num_parallel_calls: Any = None, **kwargs: Any) -> Pipeline:
        """The results of a function of each element.

        Args:
            function: Of ``(x, y)`` where elements are such pairs, else of the element.
            num_parallel_calls: Taken for the sake of scripts; elements are made one after the other.
            **kwargs: Likewise.
        """
        return self._then(lambda: (_called(function, e) for e in self._start()), self._count)

    def filter(self, predicate: Callable[..., Any]) -> Pipeline:
        """The elements for which a function, called as in ``map``, is true."""
        return self._then(lambda: (e for e in self._start() if _called(predicate, e)), UNKNOWN)

    def enumerate(self, start: int = 0) -> Pipeline:
        """Pairs of number and element."""
        return self._then(lambda: iter(enumerate(self._start(), start)), self._count)

    def batch(self, batch_size: int, drop_remainder: bool = False, **kwargs: Any) -> Pipeline:
        """Elements stacked along a new first axis.

        Args:
            batch_size: How many.
            drop_remainder: Whether to leave out a last, smaller batch.
            **kwargs: Taken for the sake of scripts.
        """

        def start() -> Iterator[Any]:
            elements = self._start()
            while group := list(itertools.islice(elements, batch_size)):
                if len(group) == batch_size or not drop_remainder:
                    yield stacked(group)

        whole, rest = divmod(self._count, batch_size)
        return self._then(start, self._count if self._count < 0 else whole + (rest > 0 and not drop_remainder))

    def unbatch(self) -> Pipeline:
        """The rows of each element, one by one."""

        def start() -> Iterator[Any]:
            for element in self._start():
                for i in range(len(leaves_of(element)[0])):
                    yield map_structure(operator.itemgetter(i), element)

        return self._then(start, self._count if self._count == INFINITE else UNKNOWN)

    # ---- choosing and ordering

    def take(self, count: int) -> Pipeline:
        """The first elements; all if ``count`` is negative."""
        if count < 0:
            return self
        known = UNKNOWN if self._count == UNKNOWN else count if self._count == INFINITE else min(count, self._count)
        return self._then(lambda: itertools.islice(self._start(), count), known)

    def skip(self, count: int) -> Pipeline:
        """All but the first elements; none if ``count`` is negative."""
        if count < 0:
            return self.take(0)
        known = self._count if self._count < 0 else max(0, self._count - count)
        return self._then(lambda: itertools.islice(self._start(), count, None), known)

    def shard(self, num_shards: int, index: int) -> Pipeline:
        """Every ``num_shards``-th element, from the one at ``index``."""
        known = self._count if self._count < 0 else len(range(index, self._count, num_shards))
        return self._then(lambda: itertools.islice(self._start(), index, None, num_shards), known)

    def shuffle(
        self, buffer_size: int, seed: int | None = None, reshuffle_each_iteration: bool | None = None
    ) -> Pipeline:
        """Elements in random order: each is drawn from the ``buffer_size`` next ones.

        Args:
            buffer_size: How many are held; as many as there are for an even shuffle.
            seed: Of the order; the default seed (``set_random_seed``) if None.
            reshuffle_each_iteration: Whether each pass has another order; so unless it is False.
        """

        passes = itertools.count() if reshuffle_each_iteration is not False else itertools.repeat(0)

        def start() -> Iterator[Any]:
            number = next(passes)
            generator = random.generator(random.default_seed() if seed is None else seed, f"shuffle/{number}")
            elements = self._start()
            held = list(itertools.islice(elements, max(1, buffer_size)))
            while held:
                i = int(generator.integers(len(held)))
                following = list(itertools.islice(elements, 1))
                yield held[i]
                held[i : i + 1] = following

        return self._then(start, self._count)

    def repeat(self, count: int | None = None) -> Pipeline:
        """The pass so many times over; without end if None or negative."""
        if count is None or count < 0:

            def forever() -> Iterator[Any]:
                while True:
                    elements = self._start()
                    first = list(itertools.islice(elements, 1))
                    if not first:
                        return
                    yield from itertools.chain(first, elements)

            return self._then(forever, 0 if self._count == 0 else INFINITE)

        def start() -> Iterator[Any]:
            return itertools.chain.from_iterable(self._start() for _ in range(count))

        return self._then(start, self._count if self._count < 0 and count else self._count * count)

    def concatenate(self, other: Pipeline) -> Pipeline:
        """These elements, then those of another pipeline."""
        counts = (self._count, other._count)
        known = INFINITE if INFINITE in counts else UNKNOWN if UNKNOWN in counts else sum(counts)
        return self._then(lambda: itertools.chain(self._start(), other._start()), known)

    @staticmethod
    def zip(*pipelines: Pipeline) -> Pipeline:
        """Tuples of one element of each pipeline, as long as all have some."""
        parts: tuple[Pipeline, ...] = pipelines[0] if isinstance(pipelines[0], tuple) else pipelines
        counts = [p._count for p in parts]
        finite = [c for c in counts if c != INFINITE]
        known = UNKNOWN if UNKNOWN in counts else min(finite) if finite else INFINITE
        return Pipeline(lambda: zip(*(p._start() for p in parts), strict=False), known)

    # ---- speed

    def cache(self, filename: str = "") -> Pipeline:
        """Keep the elements in memory once a pass has come to its end.

        Args:
            filename: Only the empty name, for memory.

        Raises:
            DataError: for a file.
        """
        if filename:
            raise DataError("no cache in a file", where="Pipeline.cache", received=repr(filename), fix="Call cache()")
        kept: list[list[Any]] = []

        def start() -> Iterator[Any]:
            if not kept:
                elements = []
                for element in self._start():
                    elements.append(element)
                    yield element
                kept.append(elements)
            else:
                yield from kept[0]

        return self._then(start, self._count)

    def prefetch(self, buffer_size: int | None = None) -> Pipeline:
        """The same elements, made ahead by a thread while earlier ones are used.

        Args:
            buffer_size: How many at most; two if None or negative (``tf.data.AUTOTUNE``), none if 0.
        """
        size = 2 if buffer_size is None or buffer_size < 0 else buffer_size
        return self._then(lambda: ahead(self._start, size), self._count) if size else self


def ahead(start: Callable[[], Iterator[Any]], size: int = 2) -> Iterator[Any]:
    """What ``start()`` gives, read by a thread that ends with the last element or when nobody wants more."""
    made: Queue[tuple[bool, Any]] = Queue(size)  # whether it is an element, and that or the error at the end
    left = Event()

    def put(is_element: bool, what: Any) -> bool:
        while not left.is_set():
            with suppress(Full):
                made.put((is_element, what), timeout=0.1)
                return True
        return False

    def work() -> None:
        try:
            if all(put(True, element) for element in start()):
                put(False, None)
        except BaseException as error:
            put(False, error)

    Thread(target=copy_context().run, args=(work,), daemon=True).start()
    try:
        while True:
            is_element, what = made.get()
            if is_element:
                yield what
            elif what is None:
                return
            else:
                raise what
    finally:
        left.set()


def stacked(elements: list[Any]) -> Any:
    """Elements of one structure as one element with a new first axis; texts as an array of objects.

    Example:
        >>> stacked([(1, [2.0, 3.0]), (4, [5.0, 6.0])])
        (array([1, 4]), [array([2., 5.]), array([3., 6.])])
    """
    columns = zip(*(leaves_of(element) for element in elements), strict=True)
    return pack_like(elements[0], [np.asarray(c, dtype=object if isinstance(c[0], str) else None) for c in columns])


def _called(function: Callable[..., Any], element: Any) -> Any:
    return function(*element) if isinstance(element, tuple) else function(element)
