"""Windows over time series, and data sets cut in two."""

from __future__ import annotations

from typing import Any

import numpy as np

from unilayers import ops, random
from unilayers.data.pipeline import Pipeline
from unilayers.errors import DataError
from unilayers.structure import leaves_of, map_structure


def timeseries_dataset_from_array(
    data: Any,
    targets: Any,
    sequence_length: int,
    sequence_stride: int = 1,
    sampling_rate: int = 1,
    batch_size: int | None = 128,
    shuffle: bool = False,
    seed: int | None = None,
    start_index: int | None = None,
    end_index: int | None = None,
    format: str = "tf",
) -> Pipeline:
    """Windows that slide over a series, in batches, with a target each.

    Shapes: data ``(time, ...)``, targets ``(time, ...)`` -> batches ``(batch, sequence_length, ...)`` and targets.

    Args:
        data: The series.
        targets: The target of the window that begins at each step; None for windows alone.
        sequence_length: Steps in a window.
        sequence_stride: Steps between the beginnings of two windows.
        sampling_rate: Steps between two entries of a window.
        batch_size: Windows in a batch; None for single windows.
        shuffle: Whether the windows come in a random order, another one in each epoch.
        seed: Of that order; the default seed (``set_random_seed``) if None.
        start_index: Steps before it are not used.
        end_index: Nor are those from it on.
        format: Taken for the sake of scripts: the result is a `Pipeline` of NumPy arrays.

    Raises:
        DataError: for indices, strides or rates that do not fit the series.

    Example:
        >>> windows = timeseries_dataset_from_array(np.arange(6), np.arange(6) + 3, sequence_length=3, batch_size=2)
        >>> [(x.tolist(), y.tolist()) for x, y in windows]
        [([[0, 1, 2], [1, 2, 3]], [3, 4]), ([[2, 3, 4], [3, 4, 5]], [5, 6])]
    """
    data = ops.to_numpy(data)
    targets = None if targets is None else ops.to_numpy(targets)
    first, last = start_index or 0, len(data) if end_index is None else end_index
    inside = f"0 <= start_index < end_index <= {len(data)}"
    if not 0 <= first < last <= len(data):
        where = "timeseries_dataset_from_array"
        raise DataError("indices outside the series", where=where, expected=inside, received=f"{first} and {last}")
    steps = {"sequence_length": sequence_length, "sequence_stride": sequence_stride, "sampling_rate": sampling_rate}
    for name, value in steps.items():
        if not 0 < value <= max(1, len(data) - (name != "sequence_length")):
            where = f"timeseries_dataset_from_array({name}=)"
            raise DataError("does not fit the series", where=where, expected=f"1 to {len(data)}", received=str(value))
    count = last - first - (sequence_length - 1) * sampling_rate
    if targets is not None:
        count = min(count, len(targets))
    begins = first + np.arange(0, max(0, count), sequence_stride)

    def load(i: int) -> Any:
        at = int(begins[i])
        window = data[at : at + sequence_length * sampling_rate : sampling_rate]
        return window if targets is None else (window, targets[at])

    return Pipeline.of_samples(len(begins), load, batch_size, _order(shuffle, seed))


def split_dataset(
    dataset: Any,
    left_size: float | None = None,
    right_size: float | None = None,
    shuffle: bool = False,
    seed: int | None = None,
    preferred_backend: str | None = None,
) -> tuple[Pipeline, Pipeline]:
    """A data set cut in two: the first samples and the last ones.

    Args:
        dataset: An array, arrays in a list, tuple or dict (a sample is then a tuple or dict), or anything that gives
            its samples one by one, which is then read to its end.
        left_size: How many samples the first part has, or which fraction; the rest if None.
        right_size: The same of the second part.
        shuffle: Whether the samples are mixed before.
        seed: Of that order; the default seed if None.
        preferred_backend: Taken for the sake of scripts: the parts are `Pipeline` objects of NumPy arrays.

    Raises:
        DataError: for sizes that the data set does not have.

    Example:
        >>> left, right = split_dataset(np.arange(5), left_size=0.4)
        >>> [int(x) for x in left], [int(x) for x in right]
        ([0, 1], [2, 3, 4])
    """
    if hasattr(dataset, "shape") or (isinstance(dataset, (list, tuple, dict)) and _of_arrays(dataset)):
        arrays = map_structure(ops.to_numpy, tuple(dataset) if isinstance(dataset, list) else dataset)
        lengths = [len(a) for a in leaves_of(arrays)]
        if len(set(lengths)) != 1:
            raise DataError("arrays of different lengths", where="split_dataset", received=str(lengths))
        total, load = lengths[0], lambda i: map_structure(lambda a: a[i], arrays)
    else:
        samples = [map_structure(ops.to_numpy, sample) for sample in dataset]
        total, load = len(samples), samples.__getitem__
    left, right = (_amount(size, total, side) for size, side in ((left_size, "left"), (right_size, "right")))
    if left is None and right is None:
        raise DataError("no size given", where="split_dataset", fix="Pass left_size or right_size")
    left = total - right if left is None and right is not None else left
    assert left is not None
    right = total - left if right is None else right
    if left + right > total or not left or not right:
        raise DataError("sizes do not fit", where="split_dataset", expected=f"two parts of {total} samples",
                        received=f"{left} and {right}")  # fmt: skip
    chosen = _order(shuffle, seed)
    order = np.arange(total) if chosen is None else random.permutation(total, chosen, 0)
    return (
        Pipeline.of_samples(left, lambda i: load(int(order[i]))),
        Pipeline.of_samples(right, lambda i: load(int(order[total - right + i]))),
    )


def _order(shuffle: bool, seed: int | None) -> int | None:
    return None if not shuffle else random.default_seed() if seed is None else seed


def _of_arrays(structure: Any) -> bool:
    return all(hasattr(leaf, "shape") and len(leaf.shape) for leaf in leaves_of(structure))


def _amount(size: float | None, total: int, side: str) -> int | None:
    if size is None or (isinstance(size, (int, np.integer)) and 0 < size < total):
        return None if size is None else int(size)
    if isinstance(size, float) and 0 < size < 1:
        return round(size * total)
    raise DataError(
        "not a size", where=f"split_dataset({side}_size=)", expected=f"1 to {total - 1}, or a fraction between 0 and 1",
        received=repr(size),
    )  # fmt: skip
