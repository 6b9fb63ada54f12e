"""The base class of all metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from unilayers import initializers, ops
from unilayers.config import floatx
from unilayers.errors import ShapeError, UnilayersError
from unilayers.losses import cast, stretchable
from unilayers.ops import shape_of
from unilayers.registry import Configurable, snake_case
from unilayers.spec import promote, public_shape
from unilayers.structure import leaves_of
from unilayers.variable import Variable, stateless


class Metric(Configurable, family="metric"):
    """Base class of all metrics.

    A subclass creates its variables with ``add_variable``, in ``__post_init__`` or in an ``__init__`` of its own, and
    writes ``update_state`` and ``result``. Metrics kept as attributes, also in lists and dicts, are part of it.

    Args:
        name: The name in logs; the class's name in snake_case if None.
        dtype: Float dtype of the variables; if None the default float dtype, or float32 if that is a shorter one. A
            float32 counts whole numbers exactly up to 2**24 = 16,777,216, a float64 up to 2**53.

    Example:
        >>> import numpy as np
        >>> class Largest(Metric):
        ...     def __post_init__(self):
        ...         super().__post_init__()
        ...         self.value = self.add_variable(name="value")
        ...     def update_state(self, y_true, y_pred, sample_weight=None):
        ...         self.value.assign(ops.maximum(self.value, ops.max(y_pred)))
        ...     def result(self):
        ...         return ops.identity(self.value)
        >>> float(Largest()(np.zeros(2), np.array([3.0, 1.0])))
        3.0
    """

    name: str | None = None
    dtype: str | None = None

    direction: ClassVar[str | None] = None  # "up" if larger is better, "down" if smaller is

    @property
    def _dtype(self) -> str:
        return self.dtype or promote(floatx(), "float32")

    def __post_init__(self) -> None:
        self.name = self.name or snake_case(type(self).__name__)
        self.dtype = self._dtype

    @cached_property  # made when needed, so that a hand-written __init__ may add variables before super().__init__()
    def _variables(self) -> list[Variable]:
        return []

    def add_variable(
        self,
        shape: Sequence[int] = (),
        initializer: Any = "zeros",
        dtype: str | None = None,
        aggregation: str | None = None,
        name: str | None = None,
    ) -> Variable:
        """Create a variable of the metric, called ``metrics/<metric>/<name>``.

        Args:
            shape: Its shape.
            initializer: See ``initializers.get``.
            dtype: The metric's dtype if None.
            aggregation: Kept for Keras's signature; has no effect.
            name: Short name; ``variable`` if None.
        """
        shape, name, dtype = tuple(shape), name or "variable", dtype or self._dtype
        draw = initializers.get(initializer or "zeros", where=f"{type(self).__name__}.initializer")
        assert draw is not None

        variable = Variable(
            lambda shape, dtype: draw(shape, dtype), shape, dtype, False, name=name,
            path=lambda: f"metrics/{self.name}/{name}",
        )  # fmt: skip
        self._variables.append(variable)
        return variable

    def add_weight(
        self, shape: Sequence[int] = (), initializer: Any = "zeros", dtype: str | None = None, name: str | None = None
    ) -> Variable:
        """The same as ``add_variable``."""
        return self.add_variable(shape, initializer, dtype, name=name)

    @property
    def variables(self) -> list[Variable]:
        """The variables in order of creation, then those of metrics among the attributes."""
        parts = [part for part in leaves_of(list(vars(self).values())) if isinstance(part, Metric)]
        return list(dict.fromkeys([*self._variables, *(v for part in parts for v in part.variables)]))

    def create_for(self, y_true: Any, y_pred: Any) -> None:
        """Create the variables whose shapes depend on the data, unless they are there.

        Args:
            y_true: The truth, or anything with its shape.
            y_pred: Predictions, or anything with their shape.
        """

    def update_state(self, *args: Any, **kwargs: Any) -> None:
        """Take in a batch: ``update_state(y_true, y_pred, sample_weight=None)``."""
        raise NotImplementedError(f"{type(self).__name__} has no update_state() method")

    def result(self) -> Any:
        """The value over all batches since the last ``reset_state``."""
        raise NotImplementedError(f"{type(self).__name__} has no result() method")

    def reset_state(self) -> None:
        """Set all variables to zero."""
        for variable in self.variables:
            variable.assign(ops.zeros(variable.shape, variable.dtype))

    # ---- state as values

    def stateless_update_state(self, metric_variables: Sequence[Any], *args: Any, **kwargs: Any) -> list[Any]:
        """The values of ``variables`` after ``update_state``, which stay as they are themselves.

        Args:
            metric_variables: Their values before.
            *args: Passed on, as are ``kwargs``.

        Raises:
            UnilayersError: for another number of values.
        """
        return self._stateless(metric_variables, lambda: self.update_state(*args, **kwargs))[1]

    def stateless_result(self, metric_variables: Sequence[Any]) -> Any:
        """The result for these values of ``variables``."""
        return self._stateless(metric_variables, self.result)[0]

    def stateless_reset_state(self) -> list[Any]:
        """The values of ``variables`` after ``reset_state``."""
        return self._stateless([v.value for v in self.variables], self.reset_state)[1]

    def _stateless(self, values: Sequence[Any], run: Callable[[], Any]) -> tuple[Any, list[Any]]:
        result, (found,), _ = stateless([(self.variables, values)], run, repr(self))
        return result, found

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Take in a batch and give the value so far."""
        self.update_state(*args, **kwargs)
        return self.result()

    def _usual(self) -> dict[str, list[Any]]:
        usual = super()._usual()
        usual.setdefault("dtype", []).append(promote(floatx(), "float32"))
        return usual


def ratio(a: Any, b: Any) -> Any:
    """``a / b``, and 0 where b is 0."""
    nothing = ops.equal(b, 0)
    return ops.where(nothing, 0.0, ops.divide(a, ops.where(nothing, 1.0, b)))


def as_array(x: Any) -> Any:
    """Lists and numbers as NumPy arrays; anything else as it is."""
    return x if hasattr(x, "dtype") else np.asarray(x)


@contextmanager
def named(metric: Metric) -> Iterator[None]:
    """Errors inside the block say which metric they come from."""
    try:
        yield
    except UnilayersError as error:
        raise error.inside(repr(metric)) from None


def outputs_of(y_pred: Any) -> int:
    """How many outputs predictions of shape ``(batch, outputs)`` have.

    Raises:
        ShapeError: if they have another shape.
    """
    shape = shape_of(y_pred)
    if len(shape) != 2:
        raise ShapeError(
            "predictions of another shape",
            expected="y_pred of shape (batch, outputs)",
            received=str(public_shape(shape)),
        )
    return last_size(y_pred)


def last_size(x: Any) -> int:
    """The size of the last axis.

    Raises:
        ShapeError: if it is not known.
    """
    size = shape_of(x)[-1]
    if not isinstance(size, int):
        raise ShapeError("the last axis has no known size", received=str(public_shape(shape_of(x))))
    return size


def weights_like(x: Any, sample_weight: Any, dtype: str) -> Any:
    """A weight in ``dtype`` for each element of x: that of its sample or its own, 1 if there are none.

    Raises:
        ShapeError: if the weights do not stretch to the shape of x.
    """
    if sample_weight is None:
        return ops.ones_like(x, dtype)
    values, weights = stretchable(x, cast(sample_weight, dtype))
    return ops.reshape(ops.broadcast_to(weights, shape_of(values)), shape_of(x))
