"""The layer: hyperparameters as fields, weights made in ``build``, the computation in ``call``."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import KW_ONLY
from functools import cache, wraps
from typing import Any, ClassVar

import numpy as np

from unilayers import config, constraints, dtype_policies, initializers, ops, random, regularizers
from unilayers.backend import Backend
from unilayers.dtype_policies import DTypePolicy
from unilayers.errors import DTypeError, ShapeError, UnilayersError
from unilayers.graph import Value, leaf
from unilayers.graph.node import SCOPE
from unilayers.layers.input_spec import check_inputs
from unilayers.ops.define import DEFER, TAPES, TRACE, Box, boxed, host_of, mask_of, unboxed, with_mask
from unilayers.random import Seed, SeedGenerator
from unilayers.registry import Configurable, deserializer, parameters, resolve, snake_case
from unilayers.registry import serialize as serialize
from unilayers.spec import TEXT, Dim, Spec, is_float, normalize_axis, promote, public_shape
from unilayers.structure import leaves_of, map_structure
from unilayers.variable import (
    Trace,
    Variable,
    autocast,
    autocast_dtype,
    current_trace,
    reading_at,
    stateless,
    trace_into,
)

_TRAINING: ContextVar[bool | None] = ContextVar("training", default=None)
_LOSSES: ContextVar[list[Any] | None] = ContextVar("losses", default=None)


@contextmanager
def training_phase(training: bool | None) -> Iterator[None]:
    """The value that layers called inside the block take for ``training`` when it is not passed."""
    token = _TRAINING.set(training)
    try:
        yield
    finally:
        _TRAINING.reset(token)


@contextmanager
def collect_losses() -> Iterator[list[Any]]:
    """A list that takes what layers called inside the block, at once and not in a trace, add to the loss."""
    taken: list[Any] = []
    token = _LOSSES.set(taken)
    try:
        yield taken
    finally:
        _LOSSES.reset(token)


def current_phase() -> bool | None:
    """What layers take for ``training`` now when it is not passed."""
    return _TRAINING.get()


# ---- arguments ----------------------------------------------------------------


def is_tensor(x: Any) -> bool:
    """Whether a layer treats x as data: a symbolic value, a box, or an array of any engine."""
    return isinstance(x, (Value, Box, np.ndarray)) or (
        hasattr(x, "shape") and hasattr(x, "dtype") and not isinstance(x, Variable)
    )


def in_dtype(x: Any, dtype: str) -> Any:
    """x cast to a dtype, if it has another one."""
    return x if ops.dtype_of(x) == dtype else ops.astype(x, dtype)


def widened(x: Any) -> Any:
    """Floats shorter than float32 in float32: squares overflow float16, and sums lose digits in bfloat16."""
    dtype = ops.dtype_of(x)
    return in_dtype(x, promote(dtype, "float32")) if is_float(dtype) else x


class Call:
    """One call of a layer on symbolic values outside any model, kept so that a functional model can replay it."""

    def __init__(self, layer: Layer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.layer, self.args, self.kwargs = layer, args, kwargs
        self.outputs: Any = None

    @property
    def inputs(self) -> list[Value]:
        return [x for x in leaves_of([list(self.args), self.kwargs]) if isinstance(x, Value)]


def free_name(base: str, taken: Collection[str | None]) -> str:
    """The first of ``dense``, ``dense_1``, ``dense_2``... that is not taken."""
    return next(n for n in (base, *(f"{base}_{i}" for i in range(1, len(taken) + 2))) if n not in taken)


# ---- the layer ----------------------------------------------------------------


class Layer(Configurable, family="layer"):
    """Base class of all layers and models.

    A subclass declares its hyperparameters as fields (or writes ``__init__`` the Keras way), creates weights in
    ``build(input_shape)`` with ``add_weight``, and computes in ``call(x)`` with ``ops``. It works on every backend.

    Args:
        name: Unique within its model; made from the class name if None: ``dense``, ``dense_1``.
        trainable: Whether the weights are updated in training.
        dtype: Dtype policy or its name: a dtype for weights and computation, or ``mixed_bfloat16``, ``mixed_float16``
            for weights in float32 and computation in the shorter dtype. If None that of the model around the layer, if
            it was given one, else the default when the layer was made. Afterwards it is the dtype of the weights.
        autocast: Whether float inputs, and weights where ``call`` reads them, are cast to the dtype of computation.

    Example:
        >>> class Scale(Layer):
        ...     factor: float = 2.0
        ...     def call(self, x):
        ...         return x * self.factor
        >>> Scale(3.0)(np.ones(2, "float32"))
        array([3., 3.], dtype=float32)
    """

    _: KW_ONLY
    name: str | None = None
    trainable: bool = True
    dtype: str | None = None
    autocast: bool = True

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "build" in vars(cls):
            cls.build = _that_marks(cls.build)  # type: ignore[method-assign]

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        self = super().__new__(cls, *args, **kwargs)
        # Here, so that a hand-written __init__ may assign attributes before it calls super().__init__.
        self._start()
        return self

    def _start(self) -> None:
        self.built = False
        self._default_policy = config.dtype_policy()
        self._variables: list[Variable] = []
        self._sublayers: list[Layer] = []
        self._parent: Layer | None = None
        self._auto_name: str | None = None
        self._losses: list[Any] = []
        self._counter: Variable | None = None
        self._calls: list[Call] = []
        self._added_metrics: dict[str, Any] = {}

    changes: ClassVar[int] = 0  # how often a setting of a layer of this package was changed after it was built

    def __setattr__(self, key: str, value: Any) -> None:
        if not key.startswith("_"):
            if vars(self).get("built") and type(self).__module__.startswith("unilayers."):
                Layer.changes += 1
                if (ask := getattr(DEFER.get(), "ask", None)) is not None:
                    ask()  # what was noted runs with the setting as it was
            value = random.get(value) if key == "seed" else value  # a generator, written in a config
            self._track(key, value)
        object.__setattr__(self, key, value)

    def _track(self, key: str, value: Any) -> None:
        """Layers, variables and seed generators among attributes, also inside lists and dicts, belong to this layer."""
        for item in leaves_of(value) if isinstance(value, _TRACKED) else ():
            if isinstance(item, Layer):
                self._adopt(item)
            elif isinstance(item, SeedGenerator) and all(v is not item.state for v in self._variables):
                taken = {v.path for v in self._variables}
                names = (item.name or key, *(f"{item.name or key}_{i}" for i in range(1, len(taken) + 1)))
                item.belong(self, next(n for n in names if self._join(f"{n}/{item.state.name}") not in taken))
                self._variables.append(item.state)
            elif isinstance(item, Variable) and all(v is not item for v in self._variables):
                if not item.named and not item._path:
                    item.name = free_name(key, [v.name for v in self._variables])
                self._variables.append(item)
                if not item._path:
                    item._path = lambda item=item: self._join(item.name)

    # ---- names and paths

    def _adopt(self, layer: Layer) -> None:
        """Make ``layer`` a part of this one, with a name of its own among its siblings."""
        if any(s is layer for s in self._sublayers):
            return
        taken = {s.name for s in self._sublayers}
        if layer._parent is None:
            if layer.name is None or (layer._auto_name == layer.name and layer.name in taken):
                name = free_name(snake_case(type(layer).__name__), taken)
                object.__setattr__(layer, "_auto_name", name)
                object.__setattr__(layer, "name", name)
            object.__setattr__(layer, "_parent", self)
        if layer.name in taken:
            raise UnilayersError(
                f"two layers are called {layer.name!r}", where=self.where, fix="Give each layer a name of its own"
            )
        self._sublayers.append(layer)

    @property
    def path(self) -> str:
        """Names from the model down to this layer, joined by slashes; empty for a model that is part of no other."""
        own = self.name or snake_case(type(self).__name__)
        return own if self._parent is None else self._parent._join(own)

    def _join(self, name: str) -> str:
        return f"{self.path}/{name}" if self.path else name

    @property
    def where(self) -> str:
        """How messages name this layer."""
        return f"{self.path} {self!r}" if self.path else repr(self)

    @property
    def root_seed(self) -> int:
        """The seed of initial values and random masks: the model's, or the default.

        Not called ``seed``, since many layers have an argument of that name.
        """
        return self._parent.root_seed if self._parent is not None else random.default_seed()

    # ---- dtypes

    @property
    def dtype_policy(self) -> DTypePolicy:
        """In which dtypes the layer computes and keeps its weights. Setting it changes the computation, and the dtype
        of weights that are not there yet."""
        return DTypePolicy(self._given_policy() or self._default_policy)

    @dtype_policy.setter
    def dtype_policy(self, policy: Any) -> None:
        # In the object's own attributes, where ``dtype`` as it was given is looked for before the property below.
        vars(self)["dtype"] = None if policy is None else dtype_policies.get(policy).name

    def _given_policy(self) -> str | None:
        """The policy that the layer, or one around it, was given."""
        layer: Layer | None = self
        while layer is not None:
            given: str | None = layer.__dict__.get("dtype")
            if given is not None:
                return given
            layer = layer._parent
        return None

    def _dtypes(self) -> tuple[str, str]:
        """The dtypes of computation and of weights; at every call."""
        return _dtypes_of(self._given_policy() or self._default_policy)

    @property
    def compute_dtype(self) -> str:
        """The dtype that the layer computes in."""
        return self._dtypes()[0]

    @property
    def variable_dtype(self) -> str:
        """The dtype that the layer keeps its weights in."""
        return self._dtypes()[1]

    @property
    def input_dtype(self) -> str:
        """The dtype that float inputs are cast to."""
        return self._taken_in(self.compute_dtype)

    def _taken_in(self, compute_dtype: str) -> str:
        return compute_dtype

    def get_config(self) -> dict[str, Any]:
        settings = super().get_config()
        if "_constructor_call" in vars(self):  # which knows nothing of a name made up, nor of what was set later
            accepted = parameters(type(self))  # type: ignore[arg-type]
            every = any(p.kind is p.VAR_KEYWORD for p in accepted.values())
            changed = {"name"} if self.trainable and "trainable" not in settings else {"name", "trainable"}
            settings |= {k: getattr(self, k) for k in sorted(changed) if k in accepted or every}
        # A default may be another one where the config is read; what is around the layer has a config of its own.
        default = {"dtype": self._default_policy.name} if self._given_policy() is None else {}
        return settings | default if "dtype" in settings else settings

    def _usual(self) -> dict[str, list[Any]]:
        usual = super()._usual()
        usual.setdefault("dtype", []).append(self._default_policy.name)
        return usual

    @property
    def only_on(self) -> str | None:
        """The only backend that this layer, or one inside it, computes on, at once and not in a graph; None: on any."""
        return next((name for layer in self._sublayers if (name := layer.only_on) is not None), None)

    # ---- weights

    def add_weight(
        self,
        shape: Sequence[int] | None = None,
        initializer: Any = None,
        dtype: str | None = None,
        trainable: bool = True,
        regularizer: Any = None,
        constraint: Any = None,
        name: str | None = None,
        autocast: bool = True,
        aggregation: str | None = "none",
        overwrite_with_gradient: bool = False,
    ) -> Variable:
        """Create a weight; its initial value depends on the seed and the weight's path only.

        Args:
            shape: Shape; () for a scalar.
            initializer: See ``initializers.get``; ``glorot_uniform`` for floats if None, else zeros.
            dtype: That of the layer's weights if None.
            trainable: Whether gradients are wanted.
            regularizer: See ``regularizers.get``; its penalty is added to the loss.
            constraint: See ``constraints.get``; it is applied after each update.
            name: Short name; if None ``weight``, ``weight_1``...
            autocast: Whether it is read in the dtype of computation while a layer is called.
            aggregation: Kept for Keras's signature; has no effect.
            overwrite_with_gradient: Whether an optimizer shall put the gradient in the weight's place.
        """
        dtype = dtype or self.variable_dtype
        name = name or free_name("weight", [v.name for v in self._variables])
        if initializer is None:
            initializer = "glorot_uniform" if is_float(dtype) else "zeros"
        init = initializers.get(initializer, where=f"initializer of {name!r}")
        assert init is not None
        shape = tuple(shape or ())

        def path() -> str:
            return self._join(name)

        def draw(shape: Sequence[int], dtype: str) -> np.ndarray:
            return init(shape, dtype, generator=random.generator(self.root_seed, path()))

        variable = Variable(draw, shape, dtype, trainable, autocast, name=name, path=path)
        variable.overwrite_with_gradient = overwrite_with_gradient
        variable.regularizer = regularizers.get(regularizer, where=f"regularizer of {name!r}")
        variable.constraint = constraints.get(constraint, where=f"constraint of {name!r}")
        self._variables.append(variable)
        return variable

    @property
    def layers_below(self) -> list[Layer]:
        """This layer and all inside it, each once, parents first."""
        found: dict[Layer, None] = {}
        stack: list[Layer] = [self]
        while stack:
            layer = stack.pop()
            if layer not in found:
                found[layer] = None
                stack.extend(reversed(layer._sublayers))
        return list(found)

    @property
    def variables(self) -> list[Variable]:
        """All variables in order of creation: weights, statistics, counters."""
        return list(dict.fromkeys(v for layer in self.layers_below for v in layer._variables))

    @property
    def trainable_weights(self) -> list[Variable]:
        """Weights that training updates; none below a layer whose ``trainable`` is False."""
        frozen = {v for layer in self.layers_below if not layer.trainable for v in layer.variables}
        return [v for v in self.variables if v.trainable and v not in frozen]

    @property
    def non_trainable_weights(self) -> list[Variable]:
        """Frozen weights and statistics (the counters of random masks are not weights)."""
        trained = set(self.trainable_weights)
        return [v for v in self.weights if v not in trained]

    @property
    def weights(self) -> list[Variable]:
        """Trainable weights first within each layer, as Keras orders them; without counters of masks and the like."""
        own = [v for layer in self.layers_below for v in (*_of(layer, True), *_of(layer, False)) if v.is_weight]
        return list(dict.fromkeys(own))

    @property
    def metrics(self) -> list[Any]:
        """The metrics among the attributes of this layer and those below."""
        from unilayers.metrics import Metric  # which stands above layers

        found = [
            m for layer in self.layers_below for m in leaves_of(list(vars(layer).values())) if isinstance(m, Metric)
        ]
        return list({id(m): m for m in found}.values())

    trainable_variables = trainable_weights

    @property
    def non_trainable_variables(self) -> list[Variable]:
        """All variables that training does not update: frozen weights, statistics, counters."""
        trained = set(self.trainable_weights)
        return [v for v in self.variables if v not in trained]

    def get_weights(self) -> list[np.ndarray]:
        """The weights as NumPy arrays, in the order of ``weights``."""
        return [v.numpy() for v in self.weights]

    def set_weights(self, weights: Sequence[Any]) -> None:
        """Replace all weights.

        Raises:
            ShapeError: if the number or a shape differs; nothing is changed then.
        """
        mine = self.weights
        shapes = [tuple(np.shape(w)) for w in weights]
        if shapes != [v.shape for v in mine]:
            raise ShapeError(
                "weights do not fit", where=self.where, expected=str([v.shape for v in mine]), received=str(shapes)
            )
        for v, w in zip(mine, weights, strict=True):
            v.assign(np.asarray(w))

    def count_params(self) -> int:
        """How many numbers the weights hold."""
        return sum(int(np.prod(v.shape)) for v in self.weights)

    add_variable = add_weight

    # ---- building and calling

    @property
    def input(self) -> Any:
        """The symbolic input of the layer's first call in a model."""
        call = self._first_call()
        return call.args[0] if call.args else next(iter(call.kwargs.values()))

    @property
    def output(self) -> Any:
        """The symbolic output of the layer's first call in a model; a model of what leads there shows its values.

        Example:
            >>> from unilayers import Input, Model, layers
            >>> x = Input((4,))
            >>> hidden = layers.Dense(3)
            >>> model = Model(x, layers.Dense(2)(hidden(x)))
            >>> Model(model.input, hidden.output).output_shape
            (None, 3)
        """
        return self._first_call().outputs

    def _first_call(self) -> Call:
        if not self._calls and hasattr(self._parent, "as_graph"):  # a stack calls its layers so when somebody asks
            self._parent.as_graph()  # type: ignore[union-attr]
        if not self._calls:
            raise UnilayersError(
                "the layer was not called on symbolic values", where=self.where,
                fix="Call it on an Input, or give the Sequential that it is in an Input",
            )  # fmt: skip
        return self._calls[0]

    def build(self, input_shape: Any) -> None:
        """Create the weights for inputs of this shape (None: a size not known yet). The default creates none."""

    def get_build_config(self) -> dict[str, Any] | None:
        """What ``build`` was told, as plain data; None before the layer is built. A layer that was built with other
        arguments than the shapes of its inputs writes its own, with ``build_from_config``; files keep it."""
        shapes = vars(self).get("_built_for")
        return None if shapes is None else {"input_shape": shapes[0] if len(shapes) == 1 else shapes}

    def build_from_config(self, config: Mapping[str, Any]) -> None:
        """Build the layer with what ``get_build_config`` gave."""
        if not self.built:
            self._build_for(*_shape_arguments(type(self), config["input_shape"]))

    def save_own_variables(self, store: dict[str, Any]) -> None:
        """Put the values of the layer's own variables, not of layers inside it, in a dict of arrays by name; what a
        layer writes itself to keep something else in files, with ``load_own_variables``."""
        store |= {str(i): v.numpy() for i, v in enumerate(self._own_variables())}

    def load_own_variables(self, store: Mapping[str, Any]) -> None:
        """Set the layer's own variables from the dict that ``save_own_variables`` filled.

        Raises:
            ShapeError: if there are more or fewer values than variables, or one does not fit.
        """
        mine = self._own_variables()
        if len(store) != len(mine):
            raise ShapeError(
                "another number of values", where=self.where, expected=f"{len(mine)} values", received=str(len(store))
            )
        for i, v in enumerate(mine):
            v.assign(store[str(i)])

    def _own_variables(self) -> list[Variable]:
        return [*_of(self, True), *_of(self, False)]

    def check_input(self, x: Any) -> None:
        """Raise a ``ShapeError`` for an input that the layer cannot take; called before ``build`` and at every call."""

    def call(self, *args: Any, **kwargs: Any) -> Any:
        """Compute the output. Subclasses implement this with ``ops``."""
        raise NotImplementedError(f"{type(self).__name__} has no call() method")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Build on the first call, then compute: on arrays at once, on symbolic values as part of a graph."""
        later = DEFER.get()
        if later is not None and (noted := later.call(self, args, kwargs)) is not NotImplemented:
            return noted
        if Layer.pending and _TRAINING.get() is None and current_trace() is None:
            self.take_losses()  # those of an earlier call
        if len(args) == 1 and args[0].__class__ is Box and not kwargs:  # as in all layers of a model that runs op by op
            return self._call_now(args, kwargs)
        symbolic = any(isinstance(x, Value) for x in leaves_of([list(args), kwargs]))
        if symbolic and current_trace() is None:
            return self._call_functional(args, kwargs)
        # Operators in ``call`` are ops, also on an engine's arrays.
        result = self._call_now(tuple(map_structure(boxed, a) for a in args), kwargs)
        inside = _TRAINING.get() is not None  # another layer's call: masks are still needed
        keep = inside or TAPES.get() or any(isinstance(x, Box) for x in leaves_of([list(args), kwargs]))
        return result if keep else map_structure(unboxed, result)

    def _call_now(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        training = kwargs.pop("training", None)
        training = _TRAINING.get() if training is None else training
        if _takes("training", type(self)):  # type: ignore[arg-type]
            kwargs["training"] = bool(training)
        masks = map_structure(mask_of, args[0]) if args else None
        masked = masks is not None and any(m is not None for m in leaves_of(masks))
        if masked and kwargs.get("mask") is None and _takes("mask", type(self)):  # type: ignore[arg-type]
            kwargs["mask"] = masks
        compute, kept = self._dtypes()
        if self.autocast:
            wanted = self._taken_in(compute)
            args = tuple([map_structure(lambda x: self._cast(x, wanted), a) for a in args])
            kwargs = {k: map_structure(lambda x: self._cast(x, wanted), a) for k, a in kwargs.items()}
        token = _TRAINING.set(bool(training))
        looked_at = TRACE.get() is not None or DEFER.get() is not None  # somebody may ask where an op comes from
        around = SCOPE.set((self.path, SCOPE.get()[1])) if looked_at else None
        try:
            if args:
                if self.input_spec is not None:
                    check_inputs(self.input_spec, args[0])
                self.check_input(args[0])
            self._build_once(args)
            mixed = self.autocast and compute != kept
            if mixed or autocast_dtype() is not None:
                # A dtype that the default engine may not have: weights that are nowhere yet are read where x is.
                with autocast(compute if mixed else None), reading_at(place_of(args)):
                    result = self.call(*args, **kwargs)
            else:
                result = self.call(*args, **kwargs)
            if masked or self.makes_masks:
                result = self._masked(result, args, masks)
            return result
        except UnilayersError as error:
            raise error.inside(self.where) from None
        finally:
            _TRAINING.reset(token)
            if around is not None:
                SCOPE.reset(around)

    def stateless_call(
        self,
        trainable_variables: Sequence[Any],
        non_trainable_variables: Sequence[Any],
        *args: Any,
        return_losses: bool = False,
        **kwargs: Any,
    ) -> Any:
        """Call the layer with state as values: its variables stay as they are.

        Args:
            trainable_variables: The values of ``trainable_variables``.
            non_trainable_variables: The values of ``non_trainable_variables``.
            *args: Passed to the layer, as are ``kwargs``.
            return_losses: Whether to return ``losses``, too.

        Returns:
            The outputs and the new values of ``non_trainable_variables``; then the losses, if wanted.

        Raises:
            UnilayersError: for another number of values, as before the layer is built.

        Example:
            >>> from unilayers import layers
            >>> norm = layers.BatchNormalization(momentum=0.5)
            >>> y = norm(np.ones((2, 1), "float32"))
            >>> before = [v.value for v in norm.non_trainable_variables]
            >>> y, after = norm.stateless_call([2 * np.ones(1), np.zeros(1)], before, np.ones((2, 1)), training=True)
            >>> [float(v[0]) for v in after], float(norm.moving_mean[0])
            ([0.5, 0.5], 0.0)
        """
        losses: list[Any] = []

        def run() -> Any:
            y = self(*args, **kwargs)
            losses.extend(self.losses if return_losses else ())
            return y

        state = [
            (self.trainable_variables, trainable_variables),
            (self.non_trainable_variables, non_trainable_variables),
        ]
        outputs, (_, kept), _ = stateless(state, run, self.where)
        return (outputs, kept, losses) if return_losses else (outputs, kept)

    input_spec: ClassVar[Any] = None  # an InputSpec, or several nested as the inputs are: checked at each call
    supports_masking: ClassVar[bool] = False  # whether the output has the mask of the input
    makes_masks: ClassVar[bool] = False  # whether compute_mask is asked although the input has no mask

    def compute_mask(self, inputs: Any, previous_mask: Any) -> Any:
        """The mask of the output, or None: that of the input if the layer supports masking.

        Args:
            inputs: The first argument of ``call``.
            previous_mask: Its mask, or the masks of its parts.
        """
        return previous_mask if self.supports_masking else None

    def _masked(self, result: Any, args: tuple[Any, ...], masks: Any) -> Any:
        mask = self.compute_mask(args[0], masks)
        if mask is None or isinstance(mask, (list, tuple, dict)):
            return result
        if isinstance(result, (list, tuple)):  # the first output is the sequence, the others are states
            return type(result)([with_mask(result[0], mask), *result[1:]])
        return with_mask(result, mask)

    def _build_once(self, args: tuple[Any, ...]) -> None:
        if not self.built:
            wanted = args[: _shapes_wanted(type(self))]  # type: ignore[arg-type]
            self._build_for(*[map_structure(lambda x: public_shape(ops.shape_of(x)), a) for a in wanted])

    def _build_for(self, *shapes: Any) -> None:
        object.__setattr__(self, "built", True)
        try:
            self.build(*(shapes or [None]))
        except BaseException:
            object.__setattr__(self, "built", False)
            raise

    def _cast(self, x: Any, wanted: str | None = None) -> Any:
        """Float data in this layer's dtype; other arguments as they are."""
        dtype = ops.dtype_of(x) if is_tensor(x) else ""
        if is_float(dtype) and dtype != (wanted := wanted or self.input_dtype):
            mask = mask_of(x)
            cast = ops.astype(x, wanted)
            return cast if mask is None else with_mask(cast, mask)
        return x

    def _call_functional(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Outside a model, only find the output specs; the values returned remember how to compute them."""
        call = Call(self, args, dict(kwargs))
        if self.only_on is not None or any(v.dtype == TEXT for v in call.inputs):
            traced = self._try_examples(args, kwargs)
        else:
            with trace_into(Trace()):
                traced = self._call_now(args, dict(kwargs))

        def remember(value: Value) -> Value:
            out = leaf("input", f"{self.path}:output", value.spec)
            out.origin = call
            mask = mask_of(value)
            return out if mask is None else with_mask(out, leaf("input", f"{self.path}:mask", mask.spec))

        call.outputs = map_structure(remember, traced)
        self._calls.append(call)
        return call.outputs

    def _try_examples(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What a layer makes of symbolic values if no graph can have it, of texts or by an engine's own code: found out
        on two batches that differ in what is not known of the input, sizes and words."""
        texts = any(v.dtype == TEXT for v in leaves_of([list(args), kwargs]) if isinstance(v, Value))

        def example(size: int, text: str) -> Any:
            def one(x: Any) -> Any:
                if not isinstance(x, Value):
                    return x
                shape = [d if isinstance(d, int) else size for d in x.shape]
                return np.full(shape, text, object) if x.dtype == TEXT else np.zeros(shape, x.dtype)

            try:
                with np.errstate(all="ignore"):
                    y = self._call_now(*map_structure(one, (args, dict(kwargs))))
                return map_structure(lambda v: v if isinstance(v, np.ndarray) else ops.to_numpy(v), y)
            except (TypeError, ValueError) as error:
                if isinstance(error, UnilayersError) or not texts:
                    raise
                raise DTypeError(
                    "the layer takes no texts", where=self.where, expected="numbers", received=str(error),
                    fix="Put a layer before it that reads them: TextVectorization, StringLookup, Hashing",
                ) from None  # fmt: skip

        def spec(a: Any, b: Any) -> Value:
            unknown = [Dim.symbol("batch" if i == 0 else f"{self.name}_{i}") for i in range(a.ndim)]
            shape = [m if m == n else d for m, n, d in zip(a.shape, b.shape, unknown, strict=True)]
            dtype = ops.dtype_of(a) if a.dtype.kind in "biuf" else TEXT
            return leaf("input", f"{self.path}:output", Spec(tuple(shape), "int32" if dtype == "int64" else dtype))

        with self.without_drawing():
            first, second = example(2, ""), example(3, "one two three")
        if texts and self.weights:
            raise UnilayersError(
                "texts inside a model inside another", where=self.where,
                fix="Give the layers that read texts to the outer model, before this one",
            )  # fmt: skip
        others = iter(leaves_of(second))
        return map_structure(lambda a: spec(a, next(others)), first)

    @contextmanager
    def without_drawing(self) -> Iterator[None]:
        """What runs inside leaves no initial values behind: a layer may have another path later."""
        drawn = [v for v in self.variables if v.drawn]
        yield
        for v in self.variables:
            if all(v is not other for other in drawn):
                v.forget()

    def compute_output_shape(self, input_shape: Any) -> Any:
        """The output's shape for inputs of this shape; None stands for sizes not known yet."""

        def fresh(shape: Sequence[int | None]) -> Value:
            known = [Dim.symbol(f"axis{i}") if d is None else d for i, d in enumerate(shape)]
            return leaf("input", "x", Spec(tuple(known), self.compute_dtype))

        many = isinstance(input_shape, list)
        x = [fresh(s) for s in input_shape] if many else fresh(input_shape)
        with trace_into(Trace()):
            return map_structure(lambda v: public_shape(v.shape), self._call_now((x,), {}))

    def compute_output_spec(self, *args: Any, **kwargs: Any) -> Any:
        """The outputs as symbolic values, for inputs given as such."""

        def fresh(x: Any) -> Any:
            return leaf("input", "x", x.spec) if isinstance(x, Value) else x

        with trace_into(Trace()):
            outputs = self._call_now(
                map_structure(fresh, args), {k: map_structure(fresh, x) for k, x in kwargs.items()}
            )
        return map_structure(lambda v: leaf("input", f"{self.path}:output", v.spec), outputs)

    # ---- extra losses

    def add_loss(self, loss: Any) -> None:
        """Add a scalar to the training loss, from inside ``call``."""
        trace, collected = current_trace(), _LOSSES.get()
        taken = self._losses if collected is None else collected
        (taken if trace is None else trace.losses).append(loss)
        Layer.pending = True

    pending: ClassVar[bool] = False  # whether any layer may have losses that nobody has taken

    @property
    def losses(self) -> list[Any]:
        """What this layer and those below added to the loss in the latest call, and the penalties of their weights."""
        trace = current_trace()
        added = trace.losses if trace is not None else [x for layer in self.layers_below for x in layer._losses]
        return [*added, *self.regularization_losses()]

    def take_losses(self) -> list[Any]:
        """Scalars added by ``add_loss`` since the last time, then forgotten: in a trace those of all layers called in
        it, else those of this layer and below."""
        trace = current_trace()
        if trace is not None:
            found, trace.losses = trace.losses, []
            return found
        taken = [x for layer in self.layers_below for x in layer._losses]
        for layer in self.layers_below:
            layer._losses.clear()
        return taken

    def regularization_losses(self) -> list[Any]:
        """The penalties of all weights that have a regularizer."""
        return [v.regularizer(v) for v in self.trainable_weights if v.regularizer is not None]

    # ---- extra metrics

    def add_metric(self, value: Any, name: str, aggregation: str = "mean") -> None:
        """Show the mean of a value in the logs of training, from inside ``call``.

        Args:
            value: A scalar or an array, of which the mean counts.
            name: The name in logs.
            aggregation: ``mean`` or ``sum``, over the batches of an epoch.
        """
        from unilayers import metrics

        kinds = {"mean": metrics.Mean, "sum": metrics.Sum}
        if aggregation not in kinds:
            raise UnilayersError(
                "unknown aggregation", where=f"{self.where}.add_metric", expected="mean or sum",
                received=repr(aggregation),
            )  # fmt: skip
        if name not in self._added_metrics:
            self._added_metrics[name] = kinds[aggregation](name=name)
        self._added_metrics[name].update_state(value)

    # ---- helpers for subclasses

    def random_counter(self) -> Variable:
        """A counter that goes up at every draw: with the layer's path it keys a random mask, equal on all backends."""
        if self._counter is None:
            name = "random_counter"
            counter = Variable(0, (), "int32", False, name=name, path=lambda: self._join(name))
            counter.is_weight = False
            self._counter = counter
            self._variables.append(counter)
        return self._counter

    def next_random(self, seed: Seed = None) -> tuple[Any, tuple[int, int]]:
        """Counter value and key of the next draw; advances the counter. The key is that of the path and the seed
        (None: the model's); a seed generator gives its own."""
        if isinstance(seed, SeedGenerator):
            return seed.next()
        counter = self.random_counter()
        now = ops.identity(counter)
        counter.assign(ops.add(counter, 1))
        return now, random.key_of(self.root_seed if seed is None else seed, self._join("random"))

    def require_ndim(self, x: Any, *, at_least: int = 0, exactly: int | None = None) -> None:
        """Raise a ``ShapeError`` that names the layer unless x has that many axes."""
        have, least = len(ops.shape_of(x)), at_least if exactly is None else exactly
        if have < least or (exactly is not None and have > exactly):
            raise ShapeError(
                "input has the wrong number of axes",
                expected=f"{'at least ' if exactly is None else ''}{least} axes, the batch included",
                received=str(public_shape(ops.shape_of(x))),
                fix="Add the axis that is missing: x[None] for the batch, x[..., None] for the channels"
                if have < least
                else "Use Flatten or Reshape",
            )

    def known_size(self, input_shape: Sequence[int | None], axis: int) -> int:
        """The input's size along ``axis``, which must be known to create the weights."""
        size = input_shape[normalize_axis(axis, len(input_shape))]
        if size is None:
            raise ShapeError(
                "the weights need a size that is not known",
                expected=f"a number on axis {axis}",
                received=str(tuple(input_shape)),
                fix="Give that size in Input(shape)",
            )
        return size

    def require_size(self, x: Any, axis: int, size: int) -> None:
        """Raise a ``ShapeError`` unless x has the size along ``axis`` that the weights were made for."""
        if ops.shape_of(x)[axis] != size:
            raise ShapeError(
                "input does not fit the weights",
                expected=f"size {size} on axis {axis}, as at the first call",
                received=str(public_shape(ops.shape_of(x))),
                fix="Use a new layer for inputs of another size",
            )


@cache
def _dtypes_of(policy: str) -> tuple[str, str]:
    found = DTypePolicy(policy)
    return found.compute_dtype, found.variable_dtype


# In place of the field's default, which the generated __init__ has kept.
Layer.dtype = property(lambda self: self.variable_dtype, Layer.dtype_policy.fset)  # type: ignore[assignment, attr-defined]


def place_of(args: Any) -> tuple[Backend, str] | None:
    """Where the first array is that belongs to an engine and is not symbolic."""
    for x in leaves_of(args):
        array = x.array if x.__class__ is Box else x
        host = None if isinstance(array, Box) else host_of(array)
        if host is not None and not host.guest:
            return host.backend, host.device_of(array)
    return None


_TRACKED = (Layer, Variable, SeedGenerator, list, tuple, dict)


def get(identifier: Any) -> Layer | None:
    """The layer that a name, a class or a config stands for; None stays None.

    Example:
        >>> from unilayers import layers
        >>> layers.get({"Dense": {"units": 3}})
        Dense(units=3)
    """
    found: Layer | None = resolve(Layer.registry, identifier)
    return found


deserialize = deserializer(get)


def _of(layer: Layer, trainable: bool) -> list[Variable]:
    return [v for v in layer._variables if v.trainable is trainable]


@cache
def _shapes_wanted(cls: type[Layer]) -> int:
    """Of how many inputs ``build`` takes the shapes: a layer may be called with several, as attention is."""
    return len(inspect.signature(cls.build).parameters) - 1


def _that_marks(build: Callable[..., None]) -> Callable[..., None]:
    """A ``build`` after which the layer is built, also where another layer's ``build`` calls it."""

    @wraps(build)
    def marking(self: Layer, *args: Any, **kwargs: Any) -> None:
        build(self, *args, **kwargs)
        object.__setattr__(self, "built", True)
        self._built_for = args or None

    return marking


def _shape_arguments(cls: type[Layer], shape: Any) -> list[Any]:
    """What ``build`` takes, of a shape that may have been in a file."""
    several = _shapes_wanted(cls) > 1  # type: ignore[arg-type]
    shapes = shape if several else [shape]
    return [tuple(s) if s and not isinstance(s[0], (list, tuple)) else s for s in shapes]


@cache
def _takes(argument: str, cls: type[Layer]) -> bool:
    parameters: Mapping[str, inspect.Parameter] = inspect.signature(cls.call).parameters
    return argument in parameters
