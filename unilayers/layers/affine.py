"""What layers with a kernel share: bias, activation, regularizers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, TypeAlias

from unilayers import activations, ops, regularizers
from unilayers.constraints import Constraint
from unilayers.errors import UnilayersError
from unilayers.hints import PositiveInt, check_value
from unilayers.initializers import Initializer, InitializerLike
from unilayers.layers.base import Layer
from unilayers.registry import resolve
from unilayers.regularizers import Regularizer
from unilayers.variable import Variable

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


class LowRank(Layer, abstract=True):
    """Base of layers whose large weight can be frozen and tuned by the product of two narrow ones.

    The subclass declares ``lora_rank`` and ``lora_alpha``, names the weight in ``adapts``, calls ``start_lora`` at the
    end of ``build``, and computes with ``adapted()``.

    Reference:
        Hu et al., LoRA: Low-Rank Adaptation of Large Language Models, 2021, arXiv 2106.09685.
    """

    adapts: ClassVar[str] = "kernel"
    _factors: ClassVar[tuple[Variable, Variable] | None] = None

    @property
    def lora_enabled(self) -> bool:
        """Whether the weight is frozen, and two narrow ones train in its place."""
        return self._factors is not None

    def enable_lora(
        self: Any, rank: int, lora_alpha: float | None = None, a_initializer: InitializerLike = "he_uniform",
        b_initializer: InitializerLike = "zeros",
    ) -> None:  # fmt: skip
        """Freeze the weight, and train two narrow ones whose product times ``lora_alpha / rank`` is added to it: far
        fewer numbers. Compile the model again afterwards.

        Args:
            rank: Their width.
            lora_alpha: Factor of the product, over the rank; the rank if None.
            a_initializer: Initial values of the first, of the weight's shape but for the last size.
            b_initializer: Initial values of the second; zeros leave the layer as it is.

        Raises:
            UnilayersError: before the layer is built, for the second time, or with a constraint on the weight.
        """
        check_value(rank, PositiveInt, "enable_lora: rank")
        for wrong, problem, fix in (
            (not self.built, "the layer has no weights yet", "Call it first"),
            (self.lora_enabled, "LoRA is enabled already", ""),
            (getattr(self, f"{self.adapts}_constraint") is not None, f"the {self.adapts} has a constraint", ""),
        ):
            if wrong:
                raise UnilayersError(problem, where=f"{self.where}.enable_lora", fix=fix)
        weight: Variable = getattr(self, self.adapts)
        dtype = "float64" if weight.dtype == "float64" else "float32"  # half floats are too coarse to tune
        regularizer = getattr(self, f"{self.adapts}_regularizer")
        shapes = {"a": (*weight.shape[:-1], rank), "b": (rank, weight.shape[-1])}
        first, second = (
            self.add_weight(shapes[n], initial, dtype, regularizer=regularizer, name=f"lora_{self.adapts}_{n}")
            for n, initial in (("a", a_initializer), ("b", b_initializer))
        )
        weight.trainable = False
        self._factors, alpha = (first, second), rank if lora_alpha is None else lora_alpha
        for argument, value in {"lora_rank": rank, "lora_alpha": alpha}.items():
            setattr(self, argument, value)

    def start_lora(self: Any) -> None:
        """Enable it if the arguments say so."""
        if self.lora_rank is not None:
            self.enable_lora(self.lora_rank, self.lora_alpha)

    def adapted(self: Any, rows: Callable[[Any], Any] = lambda weight: weight) -> Any:
        """The weight, with the product of the narrow ones if there are some.

        Args:
            rows: Takes from a weight what is needed of it.
        """
        weight = rows(getattr(self, self.adapts))
        if self._factors is None:
            return weight
        product = ops.multiply(ops.matmul(rows(self._factors[0]), self._factors[1]), self.lora_alpha / self.lora_rank)
        return ops.add(weight, ops.astype(product, ops.dtype_of(weight)))


def penalise(layer: Layer, y: Any, regularizer: RegularizerLike) -> None:
    """Add the penalty on the output y, over the size of the batch, to the loss."""
    penalty = regularizers.get(regularizer, where=f"{type(layer).__name__}.activity_regularizer")
    if penalty is not None:
        layer.add_loss(ops.divide(penalty(y), ops.size(y, (0,))))


__all__ = [
    "Activated",
    "ActivationLike",
    "Affine",
    "ConstraintLike",
    "Initializer",
    "LowRank",
    "RegularizerLike",
    "penalise",
]
