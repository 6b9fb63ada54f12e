"""What layers with a kernel share: bias, activation, regularizers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

from unilayers import activations, ops, regularizers
from unilayers.constraints import Constraint
from unilayers.initializers import Initializer
from unilayers.layers.base import Layer
from unilayers.registry import resolve
from unilayers.regularizers import Regularizer

RegularizerLike: TypeAlias = Regularizer | str | Mapping[str, Any] | None
ConstraintLike: TypeAlias = Constraint | str | Mapping[str, Any] | None
ActivationLike: TypeAlias = activations.ActivationLike | Mapping[str, Any]


class Activated(Layer, abstract=True):
    """Base of layers with an ``activation``: a name, a function, or a layer (as an object or as ``{name: arguments}``).

    The subclass declares the field, at the place that it has among its arguments; hence ``self: Any`` below.
    """

    def __post_init__(self: Any) -> None:
        where = f"{type(self).__name__}.activation"
        if isinstance(self.activation, Mapping):
            self.activation = resolve(Layer.registry, self.activation, where=where)
        function = activations.get(self.activation, where=where)  # so that a wrong name is told now
        if function is self.activation and not isinstance(function, Layer):
            self.activation = activations.nameable(function)

    def activate(self: Any, y: Any) -> Any:
        """The activation of y."""
        return activations.get(self.activation)(y)


class Affine(Activated, abstract=True):
    """Base of layers that multiply by a kernel and add a bias: creates both, and adds the bias.

    The subclass declares ``use_bias``, an initializer, a regularizer and a constraint each for ``kernel`` and ``bias``,
    and ``activity_regularizer``.
    """

    def add_kernel_and_bias(self: Any, kernel_shape: tuple[int, ...], units: int | None = None) -> None:
        """Create ``kernel`` and, if wanted, ``bias``: one per output channel, the kernel's last axis unless given."""
        self.kernel = self.add_weight(
            kernel_shape,
            self.kernel_initializer,
            regularizer=self.kernel_regularizer,
            constraint=self.kernel_constraint,
            name="kernel",
        )
        self.create_bias((kernel_shape[-1] if units is None else units,))

    def create_bias(self: Any, shape: tuple[int, ...]) -> None:
        """Create ``bias`` if it is wanted, else set it to None."""
        self.bias = None
        if self.use_bias:
            self.bias = self.add_weight(
                shape,
                self.bias_initializer,
                regularizer=self.bias_regularizer,
                constraint=self.bias_constraint,
                name="bias",
            )

    def add_bias(self: Any, y: Any) -> Any:
        """y plus the bias, if there is one; channels last."""
        return y if self.bias is None else ops.add(y, self.bias)

    def activate(self: Any, y: Any) -> Any:
        """The activation of y; the penalty on it is added to the loss."""
        y = super().activate(y)
        penalise(self, y, self.activity_regularizer)
        return y


def penalise(layer: Layer, y: Any, regularizer: RegularizerLike) -> None:
    """Add the penalty on the output y, over the size of the batch, to the loss."""
    penalty = regularizers.get(regularizer, where=f"{type(layer).__name__}.activity_regularizer")
    if penalty is not None:
        layer.add_loss(ops.divide(penalty(y), ops.size(y, (0,))))


__all__ = ["Activated", "ActivationLike", "Affine", "ConstraintLike", "Initializer", "RegularizerLike", "penalise"]
