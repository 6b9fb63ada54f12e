"""The family of losses: what they are called with, and how they are found."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY
from typing import Any, ClassVar, Literal

from unilayers import ops
from unilayers.config import floatx
from unilayers.errors import UnilayersError
from unilayers.losses.shapes import Reduction, beside, cast, weighted_reduction
from unilayers.ops import dtype_of, shape_of
from unilayers.ops.define import TAPES, Box, boxed, mask_of, unboxed
from unilayers.registry import Configurable, arguments_of, deserializer, parameters, resolve, snake_case
from unilayers.spec import promote


class Loss(Configurable, family="loss"):
    """Base class of all losses: ``loss(y_true, y_pred, sample_weight)``.

    A subclass writes ``call(y_true, y_pred)``, which gives one value per sample.

    Args:
        reduction: What is made of the samples' values after they are multiplied by their weights:
            ``"sum_over_batch_size"`` or ``"mean"`` (sum divided by how many there are), ``"sum"``,
            ``"mean_with_sample_weight"`` (sum divided by the sum of the weights), ``"none"`` or None (nothing).
        name: The name in logs; the class's name in snake_case if None.
        dtype: Float dtype of the computation; if None that of ``y_pred``, at least the default float dtype.

    Example:
        >>> import numpy as np
        >>> class FourthPower(Loss):
        ...     def call(self, y_true, y_pred):
        ...         return ops.mean((y_pred - y_true) ** 4, axis=-1)
        >>> float(FourthPower(reduction="sum")(np.zeros((3, 2)), np.ones((3, 2))))
        3.0
    """

    # Whether y_true are class numbers, which are not cast to a float dtype.
    integer_labels: ClassVar[bool] = False

    _: KW_ONLY
    reduction: Reduction = "sum_over_batch_size"
    name: str | None = None
    dtype: str | None = None

    def __post_init__(self) -> None:
        self.name = self.name or snake_case(type(self).__name__)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """One value per sample, unweighted."""
        raise NotImplementedError(f"{type(self).__name__} has no call(y_true, y_pred) method")

    def mask(self, y_true: Any, y_pred: Any, values: Any) -> Any:
        """Which of the values of ``call`` count, as bools; None if all do."""
        return None

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        """The weighted and reduced loss.

        Args:
            y_true: The truth.
            y_pred: The predictions.
            sample_weight: A weight per sample, ``(batch,)``, or per value that ``call`` gives; sizes of 1 stretch.

        Raises:
            ShapeError: naming the loss, if shapes do not fit.
        """
        given = (y_true, y_pred, sample_weight)
        try:
            result = self._on_boxes(mask_of(y_pred), *map(boxed, given))
        except UnilayersError as error:
            raise error.inside(repr(self)) from None
        return result if TAPES.get() or any(isinstance(x, Box) for x in given) else unboxed(result)

    def _on_boxes(self, steps: Any, y_true: Any, y_pred: Any, sample_weight: Any) -> Any:
        """Operators in ``call`` are ops, also on an engine's arrays. ``steps`` is the mask that layers have put on the
        predictions."""
        dtype = self.dtype or promote(dtype_of(y_pred), floatx())
        y_pred = cast(y_pred, dtype)
        y_true = beside(y_true if self.integer_labels else cast(y_true, dtype), y_pred)
        values = self.call(y_true, y_pred)
        mask = self.mask(y_true, y_pred, values)
        if steps is not None:
            mask = steps if mask is None else ops.logical_and(mask, steps)
        return weighted_reduction(values, sample_weight, mask, self.reduction)


def get(identifier: Any, y_true: Any = None, y_pred: Any = None, *, where: str = "") -> Loss | None:
    """The loss for a name, ``{name: arguments}``, a class, an instance, a function of (y_true, y_pred), or None.

    Args:
        identifier: What stands for the loss; ``"crossentropy"`` or ``"ce"`` takes the cross-entropy that fits the
            shapes of ``y_true`` and ``y_pred``. A function gives one value per sample.
        y_true: The truth, or anything with its shape.
        y_pred: Predictions, or anything with their shape.
        where: The place to name in errors.

    Example:
        >>> get("mse"), get({"Huber": {"delta": 0.5}}), get(lambda y_true, y_pred: y_pred - y_true).name
        (MeanSquaredError(), Huber(delta=0.5), '<lambda>')
    """
    if isinstance(identifier, str) and identifier.lower() in ("crossentropy", "ce"):
        identifier = f"{fitting_kind(identifier, y_true, y_pred)}_crossentropy"
    return resolve(Loss.registry, identifier, where=where, wrap=_from_function)


deserialize = deserializer(get)


class SampleLoss(Loss, abstract=True):
    """A loss that is a function of samples; the fields it adds are the function's keyword arguments."""

    function: ClassVar[Callable[..., Any]]

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return self.function(y_true, y_pred, **own_arguments(self, Loss))


class _Function(Loss):
    """A plain function of (y_true, y_pred) as a loss."""

    function: Callable[..., Any]

    def __post_init__(self) -> None:
        self.name = self.name or getattr(self.function, "__name__", None)
        super().__post_init__()

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return self.function(y_true, y_pred)


def _from_function(function: Callable[..., Any]) -> Loss:
    known = (cls for cls in Loss.registry if getattr(cls, "function", None) is function)
    return next(known, lambda: _Function(function))()


def own_arguments(instance: Configurable, base: type[Configurable]) -> Mapping[str, Any]:
    """The arguments that an object's class has beyond those of ``base``."""
    common = parameters(base)  # type: ignore[arg-type]
    return {name: value for name, value in arguments_of(instance).items() if name not in common}


def fitting_kind(name: str, y_true: Any, y_pred: Any) -> Literal["binary", "categorical", "sparse_categorical"]:
    """Which labels these are, by Keras's rule: one prediction per sample is binary; labels with fewer axes than the
    predictions, or with a last axis of 1, are class numbers; others are one-hot.

    Raises:
        UnilayersError: if the shapes are not known.
    """
    if y_true is None or y_pred is None:
        raise UnilayersError(f"{name!r} depends on the shapes of labels and predictions, which are not known here")
    true, pred = shape_of(y_true), shape_of(y_pred)
    if len(pred) < 2 or pred[-1] == 1:
        return "binary"
    return "sparse_categorical" if len(true) < len(pred) or true[-1] == 1 else "categorical"
