"""Data sets that a program makes batch by batch: ``PyDataset``."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from itertools import count
from multiprocessing import get_context
from typing import Any

from unilayers.errors import DataError

_SHARED: Any = None  # in a worker process: the data set whose batches it makes


class PyDataset:
    """Base of data sets whose batches a program makes: read from files, cut out, augmented.

    A subclass gives batch ``i`` in ``__getitem__(i)``, as ``x``, ``(x, y)`` or ``(x, y, sample_weight)``, and the
    number of batches in ``__len__`` (or in ``num_batches``; None there is a data set without an end). ``fit`` takes the
    batches in a new order each epoch unless ``shuffle=False``, and calls ``on_epoch_end`` after each.

    Args:
        workers: How many batches are made at the same time. With 1 and no processes they are made by the program's own
            thread, when they are wanted.
        use_multiprocessing: Whether the workers are processes, not threads. These are new ones, not forks, since
            engines have threads: the data set must be picklable, and a script needs its ``__main__`` guard.
        max_queue_size: How many batches are made ahead at most.

    Example:
        >>> import numpy as np
        >>> class Squares(PyDataset):
        ...     def __len__(self):
        ...         return 3
        ...     def __getitem__(self, index):
        ...         x = np.arange(4 * index, 4 * index + 4, dtype="float32")[:, None]
        ...         return x, x**2
        >>> [x.shape for x, y in Squares(workers=2)]
        [(4, 1), (4, 1), (4, 1)]
    """

    def __init__(self, workers: int = 1, use_multiprocessing: bool = False, max_queue_size: int = 10) -> None:
        self.workers, self.use_multiprocessing, self.max_queue_size = workers, use_multiprocessing, max_queue_size

    def __getitem__(self, index: int) -> Any:
        raise NotImplementedError(f"{type(self).__name__} has no __getitem__(index), which gives a batch")

    def __len__(self) -> int:
        if self.num_batches is None:
            raise TypeError(f"{type(self).__name__} has no end")
        return self.num_batches

    @property
    def num_batches(self) -> int | None:
        """How many batches there are; None: without an end."""
        if type(self).__len__ is PyDataset.__len__:
            raise NotImplementedError(f"{type(self).__name__} has no __len__(), which says how many batches there are")
        return len(self)

    def on_epoch_begin(self) -> None:
        """Called before each pass over the batches."""

    def on_epoch_end(self) -> None:
        """Called after each pass over the batches."""

    def __iter__(self) -> Iterator[Any]:
        size = self.num_batches
        return self.in_order(count() if size is None else range(size))

    def in_order(self, indices: Iterable[int]) -> Iterator[Any]:
        """The batches of the given numbers, made by the workers."""
        # A subclass may have forgotten super().__init__().
        workers = getattr(self, "workers", 1)
        processes = getattr(self, "use_multiprocessing", False)
        if workers <= 1 and not processes:
            return (self[i] for i in indices)
        return self._ahead(indices, max(1, workers), processes)

    def _ahead(self, indices: Iterable[int], workers: int, processes: bool) -> Iterator[Any]:
        pool: Executor = (
            ProcessPoolExecutor(workers, get_context("spawn"), initializer=_share, initargs=(self,))
            if processes
            else ThreadPoolExecutor(workers, thread_name_prefix="batches")
        )
        waiting: deque[Future[Any]] = deque()
        with pool:
            try:
                for i in indices:
                    waiting.append(pool.submit(_shared_item, i) if processes else pool.submit(self.__getitem__, i))
                    if len(waiting) >= max(1, self.max_queue_size):
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                pool.shutdown(wait=True, cancel_futures=True)


def _share(data: PyDataset) -> None:
    global _SHARED
    _SHARED = data


def _shared_item(index: int) -> Any:
    if _SHARED is None:
        raise DataError("the worker process has no data set")
    return _SHARED[index]
