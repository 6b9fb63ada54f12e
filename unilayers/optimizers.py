"""Optimizers: how weights move along their gradients.

An optimizer's state (iterations, learning rate, slots) lives in `Variable` s and ``apply`` is written in ops: inside a
trace the update becomes part of the training graph, on arrays it runs at once.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import KW_ONLY
from typing import Any

import numpy as np

from unilayers import ops
from unilayers.config import floatx
from unilayers.errors import ShapeError, UnilayersError
from unilayers.hints import Fraction, NonNegativeFloat, PositiveFloat, Probability, check_value
from unilayers.ops import dtype_of, shape_of
from unilayers.registry import Configurable, hints_of, resolve, snake_case
from unilayers.spec import promote, public_shape
from unilayers.variable import Variable

# ---- the family -------------------------------------------------------------------------------------------------


class Optimizer(Configurable, family="optimizer"):
    """Base class of all optimizers.

    A subclass names its slots, the tensors it keeps beside each weight, in ``slots``, and writes ``step`` for one
    weight; or ``update`` for all at once. In a step gradients are clipped, weights decay, then they are updated.

    Args:
        learning_rate: Step size. May be set at any time, also while a compiled training step is in use.
        weight_decay: Each step takes this part of the weight times the learning rate from the weight.
        clipnorm: Largest Euclidean norm of each gradient; a longer one is scaled down.
        clipvalue: Largest absolute value of each element of a gradient.
        global_clipnorm: Largest norm of all gradients taken together.
        name: The class's name in snake_case if None.

    Raises:
        UnilayersError: if more than one kind of clipping is asked for.

    Example:
        >>> class SignDescent(Optimizer):
        ...     def step(self, learning_rate, parameter, gradient):
        ...         return (parameter - learning_rate * ops.sign(gradient),)
        >>> v = Variable(np.zeros(2))
        >>> SignDescent(0.5).apply([np.array([3.0, -0.1], "float32")], [v]); v.numpy()
        array([-0.5,  0.5], dtype=float32)
    """

    learning_rate: float = 0.001
    _: KW_ONLY
    weight_decay: NonNegativeFloat | None = None
    clipnorm: PositiveFloat | None = None
    clipvalue: PositiveFloat | None = None
    global_clipnorm: PositiveFloat | None = None
    name: str | None = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        # In place of the field's default, which the generated __init__ has kept.
        cls.learning_rate = property(cls._read_rate, cls._write_rate)  # type: ignore[assignment]

    def __post_init__(self) -> None:
        self.name = self.name or snake_case(type(self).__name__)
        clips = {n: getattr(self, n) for n in ("clipnorm", "clipvalue", "global_clipnorm")}
        if sum(limit is not None for limit in clips.values()) > 1:
            raise UnilayersError(
                "several kinds of clipping",
                where=type(self).__name__,
                expected=f"at most one of {', '.join(clips)}",
                received=", ".join(f"{n}={limit}" for n, limit in clips.items() if limit is not None),
            )
        self.built = False
        self.iterations = Variable(0, (), "int32", False, "iterations", "optimizer/iterations")
        self._rate: Variable | None = None
        self._index: dict[Variable, int] = {}
        self._slots: list[list[Variable]] = []
        self._excluded: set[Variable] = set()
        self._excluded_names: list[str] = []

    # ---- state

    def slots(self) -> Mapping[str, float]:
        """What is kept beside each weight: the name of each slot, and its value at the start."""
        return {}

    def build(self, variables: Iterable[Variable]) -> None:
        """Create the state for these variables; again for the same variables does nothing.

        Args:
            variables: The weights to train, in the order in which ``apply`` without variables takes their gradients.

        Raises:
            UnilayersError: if the optimizer was built for other variables.
        """
        variables = list(variables)
        if self.built:
            self._require_known(variables, len(self._index))
            return
        self._index = {v: i for i, v in enumerate(variables)}
        dtype = promote("float32", *(v.dtype for v in variables)) if variables else floatx()
        self._rate = Variable(self._given_rate, (), dtype, False, "learning_rate", "optimizer/learning_rate")
        self._slots = [[_slot(v, name, value) for v in variables] for name, value in self.slots().items()]
        self.built = True

    @property
    def variables(self) -> list[Variable]:
        """Iterations, learning rate, the first slot of all weights in order, the second...; none before ``build``."""
        if self._rate is None:
            return []
        return [self.iterations, self._rate, *(v for slot in self._slots for v in slot)]

    def _read_rate(self) -> float:
        """The rate as it was given, or the number in its variable if that is another by now."""
        if self._rate is None:
            return self._given_rate
        now = float(self._rate)
        return self._given_rate if float(np.asarray(self._given_rate, self._rate.dtype)) == now else now

    def _write_rate(self, value: float) -> None:
        cls = type(self)
        hint = hints_of(cls).get("learning_rate", float)  # type: ignore[arg-type]
        check_value(value, hint, f"{cls.__name__}.learning_rate")
        self._given_rate = float(value)
        rate: Variable | None = vars(self).get("_rate")  # __init__ comes here before the attribute is there
        if rate is not None:
            rate.assign(np.asarray(self._given_rate, rate.dtype))

    def current_rate(self) -> Any:
        """The learning rate of the step to be made, as ops take it. Overridden by whatever computes it from
        ``iterations``."""
        return self._rate

    def exclude_from_weight_decay(
        self, var_list: Iterable[Variable] | None = None, var_names: Iterable[str] | None = None
    ) -> None:
        """Choose weights that do not decay; before ``build``.

        Args:
            var_list: The variables themselves.
            var_names: Regular expressions to find in a variable's name, ``"bias"``; in its path, if they hold a slash.
        """
        if self.built:
            raise UnilayersError("the optimizer is built already", where=repr(self), fix="Exclude weights before that")
        self._excluded, self._excluded_names = set(var_list or ()), list(var_names or ())

    def _decays(self, variable: Variable) -> bool:
        found = (re.search(p, variable.path if "/" in p else variable.name) for p in self._excluded_names)
        return bool(self.weight_decay) and variable not in self._excluded and not any(found)

    # ---- a step

    def step(self, learning_rate: Any, parameter: Any, gradient: Any, *slots: Any) -> Sequence[Any]:
        """The new parameter and slots, in this order, of one weight."""
        raise NotImplementedError(f"{type(self).__name__} has no step() method")

    def update(self, learning_rate: Any, tensors: Sequence[Any], count: int, weight_decay: float) -> Sequence[Any]:
        """New parameters and slots of weights of one dtype.

        Args:
            learning_rate: A scalar of that dtype.
            tensors: ``count`` parameters, their ``count`` gradients, ``count`` tensors of each slot in turn; the
                parameters and slots as variables.
            count: How many weights there are.
            weight_decay: This part of each parameter times the learning rate is taken from it first.

        Returns:
            The new parameters, then the new slots, in the order of ``tensors``.
        """
        place = tensors[0].place()  # variables that are elsewhere come here, so that plain operators can mix all
        rate, *here = [x.as_operand(*place) if isinstance(x, Variable) else x for x in (learning_rate, *tensors)]
        parameters, *rest = [here[i : i + count] for i in range(0, len(here), count)]
        if weight_decay:
            part = ops.multiply(rate, weight_decay)
            parameters = [ops.subtract(p, ops.multiply(p, part)) for p in parameters]
        done = [self.step(rate, *one) for one in zip(parameters, *rest, strict=True)]
        return [new for group in zip(*done, strict=True) for new in group]

    def apply(self, grads: Sequence[Any], variables: Iterable[Variable] | None = None) -> None:
        """Make one step: clip the gradients, update all weights and slots, count the iteration.

        Args:
            grads: One gradient per variable; a variable whose gradient is None stays as it is, with a warning.
            variables: The variables, at first those to build for; None: those that the optimizer was built for.

        Raises:
            ShapeError: if a gradient does not have its variable's shape.
            UnilayersError: if all gradients are None, or a variable is not one the optimizer was built for.
        """
        if variables is not None and not self.built:
            self.build(variables := list(variables))
        pairs = self._pairs(grads, list(self._index if variables is None else variables))
        rate = self.current_rate()
        clipped = self._clipped([_cast(_beside(g, v), v.dtype) for g, v in pairs])
        groups: dict[tuple[str, bool], list[tuple[Any, Variable]]] = {}
        for g, (_, v) in zip(clipped, pairs, strict=True):
            groups.setdefault((v.dtype, self._decays(v)), []).append((g, v))
        for (dtype, decays), group in groups.items():
            self._apply_group(_cast(rate, dtype), group, (self.weight_decay or 0.0) if decays else 0.0)
        self.iterations.assign_add(1)

    def apply_gradients(self, grads_and_vars: Iterable[tuple[Any, Variable]]) -> Variable:
        """Make one step, given pairs of gradient and variable; gives the number of iterations."""
        pairs = list(grads_and_vars)
        self.apply([g for g, _ in pairs], [v for _, v in pairs])
        return self.iterations

    def _apply_group(self, rate: Any, group: Sequence[tuple[Any, Variable]], weight_decay: float) -> None:
        """Update weights of one dtype and one weight decay."""
        grads, variables = [g for g, _ in group], [v for _, v in group]
        slots = [slot[self._index[v]] for slot in self._slots for v in variables]
        new = self.update(rate, [*variables, *grads, *slots], len(variables), weight_decay)
        for variable, value in zip([*variables, *slots], new, strict=True):
            variable.assign(value)

    def _clipped(self, grads: list[Any]) -> list[Any]:
        if self.clipvalue is not None:
            return [ops.clip(g, minimum=-self.clipvalue, maximum=self.clipvalue) for g in grads]
        if self.clipnorm is not None:
            return [ops.multiply(g, _shrinkage(ops.sqrt(ops.sum(ops.square(g))), self.clipnorm)) for g in grads]
        if self.global_clipnorm is not None:
            dtype = promote(*map(dtype_of, grads))
            norm = ops.sqrt(_total([_cast(ops.sum(ops.square(g)), dtype) for g in grads]))
            # A norm that is not finite shall be seen in all weights, not turn into a step of zero.
            scale = ops.where(ops.isfinite(norm), _shrinkage(norm, self.global_clipnorm), float("nan"))
            return [ops.multiply(g, _cast(scale, dtype_of(g))) for g in grads]
        return grads

    # ---- checks

    def _pairs(self, grads: Sequence[Any], variables: list[Variable]) -> list[tuple[Any, Variable]]:
        """Gradients with their variables; None left out."""
        self._require_known(variables, len(grads))
        for g, v in zip(grads, variables, strict=True):
            if g is not None and tuple(shape_of(g)) != v.shape:
                raise ShapeError(
                    "a gradient does not fit its variable",
                    where=v.path,
                    expected=str(v.shape),
                    received=str(public_shape(shape_of(g))),
                )
        pairs = [(g, v) for g, v in zip(grads, variables, strict=True) if g is not None]
        without = [v.path for g, v in zip(grads, variables, strict=True) if g is None]
        if not pairs:
            raise UnilayersError("no variable has a gradient", where=repr(self), received=f"None for {without}")
        if without:
            warnings.warn(f"{', '.join(without)}: no gradient, so not updated", stacklevel=4)
        return pairs

    def _require_known(self, variables: list[Variable], count: int) -> None:
        unknown = [v.path for v in variables if v not in self._index]
        if unknown or len(variables) != count:
            raise UnilayersError(
                "the optimizer belongs to other variables" if self.built else "the optimizer is not built",
                where=repr(self),
                expected=f"{count} of {[v.path for v in self._index]}" if self.built else "variables, or build() first",
                received=f"{len(variables)} variables" + (f", with {unknown} unknown" if unknown else ""),
                fix="Make a new optimizer for other variables" if self.built else "",
            )


def get(identifier: Any, *, where: str = "") -> Optimizer | None:
    """The optimizer for a name, ``{name: arguments}``, a class, an instance, or None.

    Example:
        >>> get("adam"), get({"SGD": {"learning_rate": 0.1, "momentum": 0.9}})
        (Adam(), SGD(learning_rate=0.1, momentum=0.9))
    """
    return resolve(Optimizer.registry, identifier, where=where)


# ---- the classes --------------------------------------------------------------------------------------------------


class SGD(Optimizer):
    """Gradient descent, with momentum if asked for; see `Optimizer` for the common arguments.

    Without momentum ``w -= learning_rate * g``. With it a velocity is kept, ``m = momentum * m - learning_rate * g``,
    and ``w += m``, or with Nesterov's look ahead ``w += momentum * m - learning_rate * g``.

    Args:
        learning_rate: Step size.
        momentum: Part of the last step that is repeated.
        nesterov: Whether to look ahead.

    Reference:
        Sutskever et al., On the importance of initialization and momentum in deep learning, 2013.

    Example:
        >>> v = Variable(np.array([1.0, 2.0]))
        >>> SGD(0.5).apply([np.array([1.0, -2.0], "float32")], [v]); v.numpy()
        array([0.5, 3. ], dtype=float32)
    """

    learning_rate: float = 0.01
    momentum: Probability = 0.0
    nesterov: bool = False

    def slots(self) -> Mapping[str, float]:
        return {"momentum": 0.0} if self.momentum else {}

    def update(self, learning_rate: Any, tensors: Sequence[Any], count: int, weight_decay: float) -> Sequence[Any]:
        return ops.sgd_update(
            learning_rate, *tensors, count=count, momentum=self.momentum, nesterov=self.nesterov,
            weight_decay=weight_decay,
        )  # fmt: skip


class RMSprop(Optimizer):
    """Steps divided by the root of a moving average of squared gradients.

    ``v = rho * v + (1 - rho) * g**2``; ``w -= learning_rate * g / sqrt(v + epsilon)``.

    Args:
        learning_rate: Step size.
        rho: Decay of the moving averages.
        momentum: Part of the last step that is repeated.
        epsilon: Keeps the divisor from 0; added inside the root.
        centered: Whether v is made a variance, by taking the squared moving average of gradients from it.

    Reference:
        Tieleman and Hinton, Lecture 6.5: RMSprop, 2012; centered: Graves, 2013, arXiv:1308.0850.
    """

    rho: Fraction = 0.9
    momentum: Probability = 0.0
    epsilon: NonNegativeFloat = 1e-7
    centered: bool = False

    def slots(self) -> Mapping[str, float]:
        wanted = {"velocity": True, "momentum": bool(self.momentum), "average_gradient": self.centered}
        return {name: 0.0 for name, kept in wanted.items() if kept}

    def update(self, learning_rate: Any, tensors: Sequence[Any], count: int, weight_decay: float) -> Sequence[Any]:
        return ops.rmsprop_update(
            learning_rate, *tensors, count=count, rho=self.rho, momentum=self.momentum, epsilon=self.epsilon,
            centered=self.centered, weight_decay=weight_decay,
        )  # fmt: skip


class Adagrad(Optimizer):
    """Steps divided by the root of the sum of all squared gradients so far.

    ``a += g**2``; ``w -= learning_rate * g / sqrt(a + epsilon)``.

    Args:
        learning_rate: Step size.
        initial_accumulator_value: What the sums start from.
        epsilon: Keeps the divisor from 0; added inside the root.

    Reference:
        Duchi et al., Adaptive subgradient methods for online learning and stochastic optimization, 2011.
    """

    initial_accumulator_value: NonNegativeFloat = 0.1
    epsilon: NonNegativeFloat = 1e-7

    def slots(self) -> Mapping[str, float]:
        return {"accumulator": self.initial_accumulator_value}

    def update(self, learning_rate: Any, tensors: Sequence[Any], count: int, weight_decay: float) -> Sequence[Any]:
        return ops.adagrad_update(learning_rate, *tensors, count=count, epsilon=self.epsilon, weight_decay=weight_decay)


class Adam(Optimizer):
    """Steps along a moving average of gradients, divided by the root of that of their squares; both bias-corrected.

    ``m += (1 - beta_1) * (g - m)``; ``v += (1 - beta_2) * (g**2 - v)``;
    ``w -= learning_rate * sqrt(1 - beta_2**t) / (1 - beta_1**t) * m / (sqrt(v) + epsilon)`` in step t = 1, 2, ...

    Args:
        learning_rate: Step size.
        beta_1: Decay of the average of gradients.
        beta_2: Decay of the average of their squares.
        epsilon: Keeps the divisor from 0; it is the paper's "epsilon hat", so it is added before the bias correction.
        amsgrad: Whether v is replaced by its largest value so far.

    Reference:
        Kingma and Ba, Adam: a method for stochastic optimization, 2014, arXiv:1412.6980; amsgrad: Reddi et al., On the
        convergence of Adam and beyond, 2018, arXiv:1904.09237.
    """

    beta_1: Fraction = 0.9
    beta_2: Fraction = 0.999
    epsilon: NonNegativeFloat = 1e-7
    amsgrad: bool = False

    def slots(self) -> Mapping[str, float]:
        return dict.fromkeys(("momentum", "velocity", *(["velocity_hat"] if self.amsgrad else [])), 0.0)

    def update(self, learning_rate: Any, tensors: Sequence[Any], count: int, weight_decay: float) -> Sequence[Any]:
        return ops.adam_update(
            learning_rate, self.iterations, *tensors, count=count, beta_1=self.beta_1, beta_2=self.beta_2,
            epsilon=self.epsilon, amsgrad=self.amsgrad, weight_decay=weight_decay,
        )  # fmt: skip


class AdamW(Adam):
    """`Adam` with weight decay.

    Args:
        learning_rate: Step size.
        weight_decay: Each step takes this part of the weight times the learning rate from the weight.
        beta_1: Decay of the average of gradients.
        beta_2: Decay of the average of their squares.
        epsilon: Keeps the divisor from 0.
        amsgrad: Whether v is replaced by its largest value so far.

    Reference:
        Loshchilov and Hutter, Decoupled weight decay regularization, 2019, arXiv:1711.05101.
    """

    weight_decay: NonNegativeFloat = 0.004


# ---- details --------------------------------------------------------------------------------------------------------


def _slot(variable: Variable, name: str, value: float) -> Variable:
    def initial(path: str) -> np.ndarray:
        return np.full(variable.shape, value, variable.dtype)

    return Variable(initial, variable.shape, variable.dtype, False, name, lambda: f"optimizer/{variable.path}/{name}")


def _cast(x: Any, dtype: str) -> Any:
    return x if hasattr(x, "dtype") and dtype_of(x) == dtype else ops.astype(x, dtype)


def _beside(g: Any, variable: Variable) -> Any:
    """A gradient given as a NumPy array, moved to where its variable is."""
    if not isinstance(g, np.ndarray):
        return g
    backend, device = variable.place()
    return backend.put([g], device)[0] if backend.device_of(g) is None else g


def _shrinkage(norm: Any, limit: float) -> Any:
    """The factor that brings a norm down to the limit; 1 if it is not above."""
    return ops.divide(limit, ops.maximum(norm, limit))


def _total(scalars: list[Any]) -> Any:
    total = scalars[0]
    for x in scalars[1:]:
        total = ops.add(total, x)
    return total
