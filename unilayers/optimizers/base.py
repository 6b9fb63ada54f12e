"""What all optimizers share: how weights move along their gradients.

An optimizer's state (iterations, learning rate, slots) lives in `Variable` s and ``apply`` is written in ops: inside a
trace the update becomes part of the training graph, on arrays it runs at once.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import KW_ONLY
from typing import Annotated, Any

import numpy as np

from unilayers import ops
from unilayers.config import floatx
from unilayers.custom import custom_object_scope
from unilayers.errors import ShapeError, UnilayersError
from unilayers.graph import scope
from unilayers.hints import Bounds, Fraction, NonNegativeFloat, PositiveFloat, PositiveInt, check_value
from unilayers.ops import dtype_of, shape_of, to_numpy
from unilayers.ops.define import boxed
from unilayers.optimizers import schedules
from unilayers.optimizers.schedules import LearningRateSchedule
from unilayers.registry import Configurable, deserializer, hints_of, plain, resolve, snake_case
from unilayers.registry import serialize as serialize
from unilayers.spec import host_dtype, promote, public_shape
from unilayers.variable import Variable, current_trace, stateless

Rate = float | LearningRateSchedule

# ---- the family -------------------------------------------------------------------------------------------------


class Optimizer(Configurable, family="optimizer"):
    """Base class of all optimizers.

    A subclass names its slots, the tensors it keeps beside each weight, in ``slots``, and writes ``step`` for one
    weight; or ``update`` for all at once. Or it makes its variables in ``build`` and writes ``update_step``, as for
    Keras. In a step gradients are clipped, weights decay, then they are updated; last, constraints are kept and
    averages taken.

    Args:
        learning_rate: Step size, or a schedule. May be set at any time, also while a compiled training step is in use
            (a schedule for a number, or the reverse, only before).
        weight_decay: Each step takes this part of the weight times the learning rate from the weight.
        clipnorm: Largest Euclidean norm of each gradient; a longer one is scaled down.
        clipvalue: Largest absolute value of each element of a gradient.
        global_clipnorm: Largest norm of all gradients taken together.
        use_ema: Whether to keep an exponential moving average of the weights, which replaces them when ``fit`` ends.
        ema_momentum: Decay of the average.
        ema_overwrite_frequency: Replace the weights by the average every so many steps, too.
        loss_scale_factor: The loss is multiplied by this before it is differentiated (``scale_loss``), the gradients
            are divided by it: keeps small gradients in the range of float16.
        gradient_accumulation_steps: Add up the gradients of so many steps and update once with their mean; equal to
            one step with a batch as much larger.
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

    learning_rate: Rate = 0.001
    _: KW_ONLY
    weight_decay: NonNegativeFloat | None = None
    clipnorm: PositiveFloat | None = None
    clipvalue: PositiveFloat | None = None
    global_clipnorm: PositiveFloat | None = None
    use_ema: bool = False
    ema_momentum: Fraction = 0.99
    ema_overwrite_frequency: PositiveInt | None = None
    loss_scale_factor: PositiveFloat | None = None
    gradient_accumulation_steps: Annotated[int, Bounds(ge=2)] | None = None
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
        self._iterations = Variable(0, (), "int32", False, name="iterations", path="optimizer/iterations")
        self._rate: Variable | None = None
        self._index: dict[Variable, int] = {}
        self._slots: list[list[Variable]] = []
        self._scalars: dict[str, Variable] = {}
        self._averages: list[Variable] = []
        self._sums: list[Variable] = []
        self._added: list[Variable] = []
        self._excluded: set[Variable] = set()
        self._excluded_names: list[str] = []

    def get_config(self) -> dict[str, Any]:
        """The arguments as plain data, with the learning rate of now."""
        config = super().get_config()
        rate = self.learning_rate
        now = plain(float(rate) if isinstance(rate, float) else rate)
        return config | ({"learning_rate": now} if "learning_rate" in config else {})

    @classmethod
    def from_config(cls, config: Mapping[str, Any], custom_objects: Mapping[str, Any] | None = None) -> Any:
        """The optimizer with that config.

        Args:
            config: What ``get_config`` gave.
            custom_objects: Classes by name, such as the learning rate's, that come before the known ones.
        """
        with custom_object_scope(custom_objects):
            return super().from_config(config)

    # ---- state

    def slots(self) -> Mapping[str, float]:
        """What is kept beside each weight: the name of each slot, and its value at the start."""
        return {}

    def scalars(self) -> Mapping[str, float]:
        """Numbers that are kept for all weights together: their names, and values at the start."""
        return {}

    def scalar(self, name: str) -> Variable:
        """One of ``scalars``."""
        return self._scalars[name]

    def slot_shape(self, name: str, variable: Variable) -> tuple[int, ...]:
        """The shape of a slot; that of its weight unless a subclass says otherwise."""
        return variable.shape

    def initial_slot(self, name: str, value: float, variable: Variable) -> np.ndarray:
        """What a slot holds at the start: its value everywhere unless a subclass says otherwise."""
        return np.full(self.slot_shape(name, variable), value, host_dtype(variable.dtype))

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
        dtype = promote("float32", *(v.dtype for v in variables)) if variables else floatx()
        rate = self._given_rate if self._schedule is None else 0.0
        self._rate = Variable(rate, (), dtype, False, name="learning_rate", path="optimizer/learning_rate")
        self._scalars = {
            name: Variable(value, (), dtype, False, name=name, path=f"optimizer/{name}")
            for name, value in self.scalars().items()
        }
        self._slots = [[] for _ in self.slots()]
        self.built = True
        self.extend(variables)

    def extend(self, variables: Iterable[Variable]) -> None:
        """Create the state for further variables: weights that came to be after ``build``."""
        new = [v for v in variables if v not in self._index]
        if new and self._index and self._updates_itself:
            raise UnilayersError(
                "weights that came to be after build", where=repr(self), received=str([v.path for v in new]),
                fix="Create all weights of the model before it is trained, or write step() in place of update_step()",
            )  # fmt: skip
        self._index |= {v: i for i, v in enumerate(new, len(self._index))}
        for slots, (name, value) in zip(self._slots, self.slots().items(), strict=True):
            slots += [self._slot(v, name, value) for v in new]
        self._averages += [_beside_weight(v, "average") for v in new] if self.use_ema else []
        self._sums += [_beside_weight(v, "gradient_sum") for v in new] if self.gradient_accumulation_steps else []

    def _slot(self, variable: Variable, name: str, value: float) -> Variable:
        shape = self.slot_shape(name, variable)
        return _beside_weight(variable, name, shape, lambda: self.initial_slot(name, value, variable))

    @property
    def variables(self) -> list[Variable]:
        """Iterations, learning rate, scalars, the first slot of all weights in order, the second..., averages of the
        weights, sums of gradients, what a subclass added; none before ``build``."""
        if self._rate is None:
            return []
        slots = [v for slot in self._slots for v in slot]
        kept = (*slots, *self._averages, *self._sums, *self._added)
        return [self._iterations, self._rate, *self._scalars.values(), *kept]

    def set_weights(self, weights: Sequence[Any]) -> None:
        """Replace the values of ``variables``.

        Raises:
            ShapeError: if the number or a shape differs; nothing is changed then.
        """
        mine, shapes = self.variables, [tuple(np.shape(w)) for w in weights]
        if shapes != [v.shape for v in mine]:
            raise ShapeError(
                "weights do not fit" if mine else "the optimizer is not built", where=repr(self),
                expected=str([v.shape for v in mine]), received=str(shapes),
            )  # fmt: skip
        for v, w in zip(mine, weights, strict=True):
            v.assign(w)

    @property
    def iterations(self) -> Any:
        """How many updates were made, as ops take it: a variable, but for ``gradient_accumulation_steps``."""
        every = self.gradient_accumulation_steps
        return ops.floor_divide(self._iterations, every) if every else self._iterations

    def time(self, like: Any) -> Any:
        """The number of the update that is being made, 1 for the first, as a scalar in the dtype of ``like``."""
        return ops.add(ops.astype(self.iterations, dtype_of(like)), 1.0)

    def _read_rate(self) -> Any:
        """The rate as it was given, or the number in its variable if that is another by now; a number that can be
        assigned to, as Keras's variable can."""
        if self._schedule is not None:
            return self._schedule
        if self._rate is not None and current_trace() is not None:
            return self._rate  # whose value may be another one in each step
        now = self._given_rate if self._rate is None else float(self._rate)
        if self._rate is not None and float(np.asarray(self._given_rate, self._rate.dtype)) == now:
            now = self._given_rate
        shown = _AssignableRate(now)
        shown.assign = self._write_rate
        return shown

    def _write_rate(self, value: Any) -> None:
        cls = type(self)
        value = float(to_numpy(value)) if hasattr(value, "dtype") else value
        where = f"{cls.__name__}.learning_rate"
        check_value(value, hints_of(cls).get("learning_rate", Rate), where)  # type: ignore[arg-type]
        before = vars(self).get("_schedule")
        named = isinstance(value, (LearningRateSchedule, str, Mapping, type))
        self._schedule = schedules.get(value, where=where) if named else None
        if vars(self).get("_rate") is not None and (before is None) != (self._schedule is None):
            self._schedule = before
            raise UnilayersError("a schedule cannot be exchanged with a number once training has begun", where=where)
        if self._schedule is not None:
            return
        self._given_rate = float(value)
        rate: Variable | None = vars(self).get("_rate")  # __init__ comes here before the attribute is there
        if rate is not None:
            rate.assign(np.asarray(self._given_rate, rate.dtype))

    def current_rate(self) -> Any:
        """The learning rate of the update to be made, as ops take it."""
        if self._schedule is None:
            return self._rate
        return self._schedule(ops.astype(self.iterations, self._rate.dtype))  # type: ignore[union-attr]

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

    def may_decay(self, variable: Variable) -> bool:
        """Whether a weight is not excluded from weight decay."""
        found = (re.search(p, variable.path if "/" in p else variable.name) for p in self._excluded_names)
        return variable not in self._excluded and not any(found)

    def decay_of(self, variable: Variable) -> float:
        """The weight decay of one weight."""
        return (self.weight_decay or 0.0) if self.may_decay(variable) else 0.0

    # ---- a step

    def step(self, learning_rate: Any, parameter: Any, gradient: Any, *slots: Any) -> Sequence[Any]:
        """The new parameter and slots, in this order, of one weight."""
        raise NotImplementedError(f"{type(self).__name__} has no step() method")

    def before_update(self) -> None:
        """Change ``scalars`` before the weights are updated."""

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

    # ---- written as for Keras

    def update_step(self, gradient: Any, variable: Variable, learning_rate: Any) -> None:
        """Update one weight, by assigning to it and to variables made in ``build``; what a subclass may write in place
        of ``step``. Clipping, decay and so on are done around it.

        Args:
            gradient: That of the weight.
            variable: The weight.
            learning_rate: The rate of this step, in the weight's dtype.

        Example:
            >>> class Heavy(Optimizer):
            ...     def build(self, variables):
            ...         super().build(variables)
            ...         self.pace = [self.add_variable_from_reference(v, name="pace") for v in variables]
            ...     def update_step(self, gradient, variable, learning_rate):
            ...         pace = self.pace[self._get_variable_index(variable)]
            ...         self.assign(pace, 0.9 * pace + gradient)
            ...         self.assign_sub(variable, learning_rate * pace)
            >>> v = Variable(np.zeros(2))
            >>> Heavy(0.5).apply([np.array([1.0, -2.0], "float32")], [v]); v.numpy()
            array([-0.5,  1. ], dtype=float32)
        """
        raise NotImplementedError(f"{type(self).__name__} has no update_step() method")

    @property
    def _updates_itself(self) -> bool:
        return type(self).update_step is not Optimizer.update_step

    def _get_variable_index(self, variable: Variable) -> int:
        """The number of a weight among those that the optimizer was built for."""
        return self._index[variable]

    def add_variable(
        self,
        shape: Sequence[int],
        initializer: Any = "zeros",
        dtype: str | None = None,
        aggregation: str | None = "none",
        layout: Any = None,
        name: str | None = None,
    ) -> Variable:
        """Create a variable of the optimizer, called ``optimizer/<name>``.

        Args:
            shape: Its shape.
            initializer: See ``initializers.get``.
            dtype: The default float dtype if None.
            aggregation: Kept for Keras's signature; has no effect.
            layout: Likewise.
            name: Short name; ``variable`` if None.
        """
        return self._add(None, tuple(shape), initializer, dtype or floatx(), name)

    def add_variable_from_reference(
        self, reference_variable: Variable, name: str | None = None, initializer: Any = "zeros"
    ) -> Variable:
        """Create a variable of the shape and dtype of a weight, called ``optimizer/<weight>/<name>``.

        Args:
            reference_variable: The weight.
            name: Short name; ``variable`` if None.
            initializer: See ``initializers.get``.
        """
        spec = reference_variable.spec
        return self._add(reference_variable, reference_variable.shape, initializer, spec.dtype, name)

    def add_optimizer_variables(
        self, trainable_variables: Iterable[Variable], name: str | Sequence[str], initializer: Any = "zeros"
    ) -> Any:
        """Create a variable for each weight, as ``add_variable_from_reference`` does.

        Args:
            trainable_variables: The weights.
            name: Short name; or several.
            initializer: See ``initializers.get``; or one for each name.

        Returns:
            The variables in a list; for several names a tuple of lists.
        """
        weights = list(trainable_variables)
        if isinstance(name, str):
            return [self.add_variable_from_reference(v, name, initializer) for v in weights]
        each = initializer if isinstance(initializer, (list, tuple)) else [initializer] * len(name)
        return tuple(self.add_optimizer_variables(weights, n, i) for n, i in zip(name, each, strict=True))

    def _add(
        self, reference: Variable | None, shape: Sequence[int], initializer: Any, dtype: str, name: str | None
    ) -> Variable:
        def path() -> str:
            return f"optimizer/{own}" if reference is None else f"optimizer/{reference.path}/{own}"

        own, number = name or "variable", 1
        while path() in {v.path for v in self._added}:
            own, number = f"{name or 'variable'}_{number}", number + 1
        variable = Variable(initializer, shape, dtype, False, name=own, path=path)
        self._added.append(variable)
        return variable

    def assign(self, variable: Variable, value: Any) -> None:
        """Replace the value of a variable."""
        variable.assign(_cast(value, variable.spec.dtype))

    def assign_add(self, variable: Variable, value: Any) -> None:
        """Add to a variable."""
        variable.assign_add(_cast(value, variable.spec.dtype))

    def assign_sub(self, variable: Variable, value: Any) -> None:
        """Subtract from a variable."""
        variable.assign_sub(_cast(value, variable.spec.dtype))

    # ---- all steps

    @scope(part="update")
    def apply(self, grads: Sequence[Any], trainable_variables: Iterable[Variable] | None = None) -> None:
        """Make one step: clip the gradients, update all weights and slots, count the iteration.

        Args:
            grads: One gradient per variable; a variable whose gradient is None stays as it is, with a warning.
            trainable_variables: The variables, at first those to build for; None: those that the optimizer was
                built for.

        Raises:
            ShapeError: if a gradient does not have its variable's shape.
            UnilayersError: if all gradients are None, or a variable is not one the optimizer was built for.
        """
        if trainable_variables is not None and not self.built:
            self.build(trainable_variables := list(trainable_variables))
        pairs = self._pairs(grads, list(self._index if trainable_variables is None else trainable_variables))
        pairs = [(_cast(_beside(g, v), v.dtype), v) for g, v in pairs]
        if any(v.overwrite_with_gradient for _, v in pairs):
            for g, v in pairs:
                if v.overwrite_with_gradient:
                    v.assign(g)
            pairs = [(g, v) for g, v in pairs if not v.overwrite_with_gradient]
        if self.loss_scale_factor:
            pairs = [(ops.divide(g, self.loss_scale_factor), v) for g, v in pairs]
        if self.gradient_accumulation_steps:
            self._accumulate(pairs, self.gradient_accumulation_steps)
        else:
            self._update_all(pairs)
        if self.use_ema:
            self._average()
        self._iterations.assign_add(1)

    def _accumulate(self, pairs: Sequence[tuple[Any, Variable]], every: int) -> None:
        """Add up the gradients; in every so many-th step update with their mean."""
        sums = [self._sums[self._index[v]] for _, v in pairs]

        def update() -> None:
            totals = [ops.add(g, total) for (g, _), total in zip(pairs, sums, strict=True)]
            self._update_all([(ops.divide(t, float(every)), v) for t, (_, v) in zip(totals, pairs, strict=True)])
            for total in sums:
                total.assign(ops.zeros_like(total))

        def wait() -> None:
            for (g, _), total in zip(pairs, sums, strict=True):
                total.assign_add(g)

        last = ops.equal(ops.remainder(ops.add(self._iterations, 1), every), 0)
        ops.cond(last, update, wait)

    def _update_all(self, pairs: Sequence[tuple[Any, Variable]]) -> None:
        rate = self.current_rate()
        clipped = self._clipped([g for g, _ in pairs])
        groups: dict[tuple[str, float], list[tuple[Any, Variable]]] = {}
        for g, (_, v) in zip(clipped, pairs, strict=True):
            groups.setdefault((v.dtype, self.decay_of(v)), []).append((g, v))
        self.before_update()
        for (dtype, decay), group in groups.items():
            self._apply_group(_cast(rate, dtype), group, decay)
        for _, v in pairs:
            if v.constraint is not None:
                v.assign(v.constraint(v))

    def _average(self) -> None:
        """Take the weights into their averages; the first step sets them."""
        for v, average in zip(self._index, self._averages, strict=True):
            begun = ops.astype(ops.not_equal(self.iterations, 0), v.dtype)
            keep = ops.multiply(begun, self.ema_momentum)
            now = ops.add(ops.multiply(average, keep), ops.multiply(v, ops.subtract(1.0, keep)))
            average.assign(now)
            if self.ema_overwrite_frequency:
                due = ops.equal(ops.remainder(ops.add(self.iterations, 1), self.ema_overwrite_frequency), 0)
                v.assign(ops.where(due, now, v))

    def finalize_variable_values(self, var_list: Iterable[Variable]) -> None:
        """Put the averages in the place of the weights, at the end of training; without ``use_ema`` do nothing."""
        for v in var_list if self._averages else ():
            if v in self._index:
                v.assign(self._averages[self._index[v]].numpy())

    def swap_averages(self) -> None:
        """Exchange the weights and their averages."""
        for v, average in zip(self._index, self._averages, strict=True) if self._averages else ():
            now, mean = v.numpy(), average.numpy()
            v.assign(mean)
            average.assign(now)

    def scale_loss(self, loss: Any) -> Any:
        """The loss to be differentiated: times ``loss_scale_factor``, if there is one."""
        return ops.multiply(loss, self.loss_scale_factor) if self.loss_scale_factor else loss

    def stateless_apply(
        self, optimizer_variables: Sequence[Any], grads: Sequence[Any], trainable_variables: Sequence[Any]
    ) -> tuple[list[Any], list[Any]]:
        """A step with state as values: the variables stay as they are.

        Args:
            optimizer_variables: The values of ``variables``.
            grads: One gradient for each weight that the optimizer was built for.
            trainable_variables: The values of these weights.

        Returns:
            The new values of the weights, and of ``variables``.

        Raises:
            UnilayersError: if the optimizer is not built, or for another number of values.
        """
        self._require_known(list(self._index), len(grads))
        state = [(list(self._index), trainable_variables), (self.variables, optimizer_variables)]
        _, (weights, own), _ = stateless(state, lambda: self.apply(grads), f"{self!r}.stateless_apply")
        return weights, own

    def apply_gradients(self, grads_and_vars: Iterable[tuple[Any, Variable]]) -> Any:
        """Make one step, given pairs of gradient and variable; gives the number of iterations."""
        pairs = list(grads_and_vars)
        self.apply([g for g, _ in pairs], [v for _, v in pairs])
        return self.iterations

    def _apply_group(self, rate: Any, group: Sequence[tuple[Any, Variable]], weight_decay: float) -> None:
        """Update weights of one dtype and one weight decay."""
        if self._updates_itself:
            for g, v in group:
                if weight_decay:
                    v.assign_sub(ops.multiply(v, ops.multiply(rate, weight_decay)))
                self.update_step(boxed(g), v, boxed(rate))  # so that operators on them are ops
            return
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


deserialize = deserializer(get)


class _AssignableRate(float):
    """A learning rate, with what Keras's scripts do with the variable that it is there."""

    assign: Callable[[Any], None]

    def numpy(self) -> np.ndarray:
        """The number as NumPy's."""
        return np.asarray(self, floatx())

    def __reduce__(self) -> Any:
        return float, (float(self),)


# ---- details --------------------------------------------------------------------------------------------------------


def _beside_weight(
    variable: Variable, name: str, shape: tuple[int, ...] | None = None, initial: Callable[[], np.ndarray] | None = None
) -> Variable:
    """A variable that is kept for a weight: of its shape and zero unless said otherwise."""
    shape = variable.shape if shape is None else shape

    def draw(shape: tuple[int, ...], dtype: str) -> np.ndarray:
        return initial() if initial else np.zeros(shape, dtype)

    return Variable(draw, shape, variable.dtype, False, name=name, path=lambda: f"optimizer/{variable.path}/{name}")


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
