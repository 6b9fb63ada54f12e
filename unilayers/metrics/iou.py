"""Intersection over union, for segmentation: how well predicted regions cover the true ones."""

from __future__ import annotations

import warnings
from dataclasses import KW_ONLY
from typing import Any, ClassVar

import numpy as np

from unilayers import losses, ops
from unilayers.config import floatx
from unilayers.errors import UnilayersError
from unilayers.hints import PositiveInt
from unilayers.losses import EPSILON, cast
from unilayers.metrics.base import Metric, as_array, named, weights_like
from unilayers.ops import dtype_of
from unilayers.spec import is_float


class _IoU(Metric):
    """Base class: how often which class is predicted for which, and the mean overlap of the target classes.

    The counts are int32 unless ``dtype`` says otherwise, so that they are exact for more pixels than a float32 counts.
    """

    direction = "up"

    num_classes: ClassVar[int]
    target_class_ids: ClassVar[Any]  # None: all
    ignore_class: ClassVar[int | None] = None
    sparse_y_true: ClassVar[bool] = True
    sparse_y_pred: ClassVar[bool] = True
    axis: ClassVar[int] = -1

    def __post_init__(self) -> None:
        self.dtype = self.dtype or "int32"
        super().__post_init__()
        if self.target_class_ids is None:
            self._targets = np.arange(self.num_classes, dtype="int32")
        else:
            self._targets = np.asarray(self.target_class_ids, "int32")
        if self._targets.size and not 0 <= self._targets.min() <= self._targets.max() < self.num_classes:
            raise UnilayersError(
                "a class that is not there",
                where=f"{type(self).__name__}.target_class_ids",
                expected=f"numbers from 0 to {self.num_classes - 1}",
                received=str(list(self.target_class_ids)),
            )
        self.total_cm = self.add_variable((self.num_classes, self.num_classes), name="total_confusion_matrix")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Take in a batch.

        Args:
            y_true: A class for each place, as its number or as a row of a value per class.
            y_pred: The same for the predictions.
            sample_weight: A weight for each place, or per sample; cut to whole numbers where the counts are ints.

        Raises:
            ShapeError: naming the metric, if shapes do not fit.
        """
        with named(self):
            y_pred = as_array(y_pred)
            found = self._numbers(y_pred, self.sparse_y_pred)
            true = self._numbers(losses.beside(as_array(y_true), y_pred), self.sparse_y_true)
            true, found = losses.same_shape(true, found)
            weights = self._weights(found, sample_weight)
            counts = ops.logical_and(self._is_class(true), self._is_class(found))
            if self.ignore_class is not None:
                counts = ops.logical_and(counts, ops.not_equal(true, self.ignore_class))
            place = ops.add(ops.multiply(true, self.num_classes), found)
            place, weights = ops.where(counts, place, 0), ops.where(counts, weights, 0)
            place, weights = ops.reshape(place, (-1,)), ops.reshape(weights, (-1,))
            added = ops.take_grad(weights, place, axis=0, size=self.num_classes**2)
            self.total_cm.assign_add(ops.reshape(added, self.total_cm.shape))

    def _numbers(self, x: Any, sparse: bool) -> Any:
        return cast(x, "int32") if sparse else ops.argmax(x, axis=self.axis)

    def _weights(self, like: Any, given: Any) -> Any:
        given = None if given is None else as_array(given)
        if given is not None and is_float(dtype_of(given)) and not is_float(self.total_cm.dtype):
            warnings.warn(
                f"{self!r}: weights are cut to whole numbers, as the counts are {self.dtype}; "
                "pass dtype='float32' to keep fractions",
                stacklevel=4,
            )
        return weights_like(like, given, self.total_cm.dtype)

    def _is_class(self, numbers: Any) -> Any:
        return ops.logical_and(ops.greater_equal(numbers, 0), ops.less(numbers, self.num_classes))

    def _usual(self) -> dict[str, list[Any]]:
        usual = super()._usual()
        usual["dtype"].append("int32")
        return usual

    def result(self) -> Any:
        own = np.eye(self.num_classes, dtype=self.total_cm.dtype)
        both = ops.sum(ops.multiply(self.total_cm, own), axis=0)
        either = ops.subtract(ops.add(ops.sum(self.total_cm, axis=0), ops.sum(self.total_cm, axis=1)), both)
        both, either = (ops.astype(ops.take(x, self._targets, axis=0), floatx()) for x in (both, either))
        occur = ops.greater(either, 1e-9)
        overlap = ops.where(occur, ops.divide(both, ops.add(either, EPSILON)), 0.0)
        return ops.divide(ops.sum(overlap), ops.add(ops.sum(ops.astype(occur, floatx())), EPSILON))


class IoU(_IoU):
    """``true positives / (true positives + false positives + false negatives)`` of classes, averaged.

    Classes that neither occur nor are predicted do not count in the mean. Numbers that are no class are left out.

    Args:
        num_classes: How many classes there are.
        target_class_ids: The classes to average over.
        ignore_class: Places with this label do not count.
        sparse_y_true: Whether labels are class numbers; if not, the largest value of ``axis`` is the class.
        sparse_y_pred: Whether predictions are class numbers.
        axis: The axis of the classes.

    Example:
        >>> round(float(IoU(num_classes=2, target_class_ids=[0])([0, 0, 1, 1], [0, 1, 0, 1])), 4)
        0.3333
    """

    num_classes: PositiveInt  # type: ignore[misc]
    target_class_ids: list[int]  # type: ignore[misc]
    _: KW_ONLY
    name: str | None = None
    dtype: str | None = None
    ignore_class: int | None = None  # type: ignore[misc]
    sparse_y_true: bool = True  # type: ignore[misc]
    sparse_y_pred: bool = True  # type: ignore[misc]
    axis: int = -1  # type: ignore[misc]


class BinaryIoU(_IoU):
    """The intersection over union of decisions, averaged over the classes 0 and 1 or one of them.

    Args:
        target_class_ids: ``(0, 1)``, ``(0,)`` or ``(1,)``.
        threshold: Predictions from it on are class 1.

    Example:
        >>> round(float(BinaryIoU(threshold=0.3)([0, 1, 0, 1], [0.1, 0.2, 0.4, 0.7])), 4)
        0.3333
    """

    num_classes = 2
    target_class_ids: tuple[int, ...] = (0, 1)  # type: ignore[misc]
    threshold: float = 0.5
    _: KW_ONLY
    name: str | None = None
    dtype: str | None = None

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Take in a batch of labels, 0 or 1, and predictions; see `IoU`."""
        y_pred = cast(y_pred, floatx())
        super().update_state(y_true, ops.greater_equal(y_pred, self.threshold), sample_weight)


class MeanIoU(_IoU):
    """The intersection over union, averaged over all classes that occur or are predicted.

    Args:
        num_classes: How many classes there are.
        ignore_class: Places with this label do not count.
        sparse_y_true: Whether labels are class numbers; if not, the largest value of ``axis`` is the class.
        sparse_y_pred: Whether predictions are class numbers.
        axis: The axis of the classes.

    Example:
        >>> round(float(MeanIoU(num_classes=2)([0, 0, 1, 1], [0, 1, 0, 1])), 4)
        0.3333
    """

    target_class_ids = None
    num_classes: PositiveInt  # type: ignore[misc]
    _: KW_ONLY
    name: str | None = None
    dtype: str | None = None
    ignore_class: int | None = None  # type: ignore[misc]
    sparse_y_true: bool = True  # type: ignore[misc]
    sparse_y_pred: bool = True  # type: ignore[misc]
    axis: int = -1  # type: ignore[misc]


class OneHotIoU(_IoU):
    """The intersection over union for one-hot labels, averaged over some classes; see `IoU`.

    Args:
        num_classes: How many classes there are.
        target_class_ids: The classes to average over.
        ignore_class: Places with this label do not count.
        sparse_y_pred: Whether predictions are class numbers; if not, the largest value of ``axis`` is the class.
        axis: The axis of the classes.
    """

    num_classes: PositiveInt  # type: ignore[misc]
    target_class_ids: list[int]  # type: ignore[misc]
    _: KW_ONLY
    name: str | None = None
    dtype: str | None = None
    ignore_class: int | None = None  # type: ignore[misc]
    sparse_y_pred: bool = False  # type: ignore[misc]
    axis: int = -1  # type: ignore[misc]
    sparse_y_true = False


class OneHotMeanIoU(_IoU):
    """The intersection over union for one-hot labels, averaged over all classes; see `MeanIoU`.

    Args:
        num_classes: How many classes there are.
        ignore_class: Places with this label do not count.
        sparse_y_pred: Whether predictions are class numbers; if not, the largest value of ``axis`` is the class.
        axis: The axis of the classes.
    """

    target_class_ids = None
    num_classes: PositiveInt  # type: ignore[misc]
    _: KW_ONLY
    name: str | None = None
    dtype: str | None = None
    ignore_class: int | None = None  # type: ignore[misc]
    sparse_y_pred: bool = False  # type: ignore[misc]
    axis: int = -1  # type: ignore[misc]
    sparse_y_true = False
