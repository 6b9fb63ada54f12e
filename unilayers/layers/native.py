"""Modules and functions of one engine as layers: its own code runs, its own autograd differentiates.

Such a layer is one step to our gradient tape. It computes on the arrays of its engine only, and not as part of a
compiled graph: a model with one runs eagerly, on that backend unless another is named.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from unilayers import ops, random
from unilayers.autodiff import eager_custom_gradient
from unilayers.backend import Backend, backend_of, get_backend
from unilayers.errors import BackendError, GraphError, UnilayersError
from unilayers.graph import Value
from unilayers.layers.base import Layer
from unilayers.ops.define import TAPES, Box, boxed, unboxed
from unilayers.random import Seed
from unilayers.spec import is_float
from unilayers.structure import leaves_of, map_structure, pack_like
from unilayers.variable import Variable, current_trace

Pull = Callable[[list[Any]], list[Any]]  # from the gradients of all results to those of all arguments; None for none


class NativeLayer(Layer, abstract=True):
    """Base of layers that run the code of one engine.

    A subclass names the engine and says which weights the code has (``found_weights``) and how to run it (``run``).
    """

    engine: ClassVar[str]

    def __post_init__(self) -> None:
        self._own: list[Variable] | None = None

    # ---- what a subclass says

    def found_weights(self, inputs: Any) -> dict[str, tuple[Any, bool]]:
        """The code's weights by name, as the engine's arrays, and whether training updates each."""
        raise NotImplementedError

    def run(self, inputs: Any, weights: list[Any], training: bool, taped: bool) -> tuple[Any, Pull, list[Any]]:
        """The result, the way back, and the weights after the call.

        Args:
            inputs: The layer's input in its structure: the engine's arrays.
            weights: In the order of ``found_weights``.
            training: Whether this is training.
            taped: Whether there will be a way back.
        """
        raise NotImplementedError

    # ---- calling

    @property
    def only_on(self) -> str:
        return self.engine

    def call(self, x: Any, training: bool = False) -> Any:
        backend, device = self._place(x)
        inputs = [_there(v, backend, device) for v in leaves_of(x)]
        if self._own is None:
            self._create(pack_like(x, map(unboxed, inputs)))
        assert self._own is not None
        weights = [v.as_operand(backend, device) for v in self._own]
        after: list[Any] = []
        taped = bool(TAPES.get())

        def run(*values: Any) -> tuple[Any, Callable[..., Any]]:
            arrays = [unboxed(v) for v in values]
            y, pull, changed = self.run(pack_like(x, arrays[: len(inputs)]), arrays[len(inputs) :], training, taped)
            after[:] = changed

            def back(*gradients: Any) -> list[Any]:
                if TAPES.get():
                    raise GraphError("no second derivatives through an engine's own code", where=self.where)
                return pull([None if g is None else unboxed(g) for g in gradients])

            return y, back

        y = eager_custom_gradient(run, [*inputs, *weights])
        for variable, array in zip(self._own, after, strict=True):
            if not variable.trainable and training:  # statistics
                variable.assign(array)
        return map_structure(boxed, y)

    def _place(self, x: Any) -> tuple[Backend, str]:
        """Where to compute: where the arrays are. NumPy's come as guests, unless the weights are another backend's."""
        if current_trace() is not None or any(isinstance(v, Value) for v in leaves_of(x)):
            raise GraphError(
                f"code of {self.engine} cannot be part of a graph",
                fix="Call the layer on arrays, or train a model with it, which runs eagerly by itself",
            )  # fmt: skip
        backend = get_backend(self.engine)
        for array in map(unboxed, leaves_of(x)):
            device = backend.device_of(array)
            if device is not None:
                return backend, device
            if not isinstance(array, (np.ndarray, np.generic, int, float)):
                raise self._elsewhere(getattr(backend_of(array), "name", type(array).__name__))
        stores = [v.store for v in self._own or () if v.store is not None]
        if stores and stores[0].backend is not backend:
            raise self._elsewhere(stores[0].backend.name)
        return backend, stores[0].device if stores else backend.device(None)

    def _elsewhere(self, name: str) -> BackendError:
        return BackendError(
            f"code of {self.engine} computes with its own arrays", received=f"those of {name}",
            fix=f"Use backend={self.engine!r}",
        )  # fmt: skip

    def _create(self, inputs: Any) -> None:
        """Variables with the present values of the code's weights."""
        self._own = []
        for name, (array, trainable) in self.found_weights(inputs).items():
            value, dtype = ops.to_numpy(array), ops.dtype_of(array)
            made = self.add_weight(value.shape, value, dtype, trainable and is_float(dtype), name=name)
            self._own.append(made)

    def present(self) -> list[np.ndarray]:
        """The values of the weights, in the order of ``found_weights``.

        Raises:
            UnilayersError: before the first call.
        """
        if self._own is None:
            raise UnilayersError("the layer has not been called yet", where=self.where)
        return [v.numpy() for v in self._own]


def _there(x: Any, backend: Backend, device: str) -> Any:
    """A value with its array on the backend; a box stays the same value to tapes."""
    array = unboxed(x)
    if backend.device_of(array) is None:
        array = backend.put([ops.to_numpy(array)], device)[0]
    if not isinstance(x, Box):
        return array
    moved = Box(array)
    moved.source, moved.serial = x.source, x.serial
    return moved


def _arguments(inputs: Any) -> Sequence[Any]:
    """What the code is called with: a list of inputs is several arguments."""
    return inputs if isinstance(inputs, (list, tuple)) else (inputs,)


def _called(function: Callable[..., Any], *arguments: Any, training: bool) -> Any:
    return function(*arguments, **({"training": training} if _takes_training(function) else {}))


def _takes_training(function: Callable[..., Any]) -> bool:
    try:
        return "training" in inspect.signature(function).parameters
    except (TypeError, ValueError):  # code without a signature
        return False


# ---- PyTorch ------------------------------------------------------------------------


class TorchModuleLayer(NativeLayer, aliases=("TorchModuleWrapper",)):
    """A ``torch.nn.Module`` as a layer of a model that trains on the torch backend, eagerly.

    Its parameters are the layer's weights: our optimizers, callbacks and checkpoints see them. Its buffers, such as
    moving statistics, are weights that do not train. What it draws at random comes from PyTorch's own generator. A
    saved model or a recipe cannot hold it; weights alone can be saved.

    Shapes: as the module; a list of inputs becomes its arguments.

    Args:
        module: The module.

    Raises:
        GraphError: as part of a graph, such as that of a ``function``; and for second derivatives.
        BackendError: for the arrays of another engine.

    Example:
        A model with one trains on PyTorch:

            model = Sequential([TorchModuleLayer(torch.nn.Linear(4, 8)), layers.ReLU(), layers.Dense(1)])
    """

    module: Callable[..., Any]

    engine = "torch"

    def found_weights(self, inputs: Any) -> dict[str, tuple[Any, bool]]:
        return {name: (v.detach(), v.requires_grad) for name, v in self._tensors().items()}

    def _tensors(self) -> dict[str, Any]:
        module: Any = self.module
        return {**dict(module.named_parameters()), **dict(module.named_buffers())}

    def run(self, inputs: Any, weights: list[Any], training: bool, taped: bool) -> tuple[Any, Pull, list[Any]]:
        import torch

        module: Any = self.module
        given, parameters = len(leaves_of(inputs)), len(list(module.parameters()))
        values = [v.clone() if v.is_inference() else v.detach() for v in (*leaves_of(inputs), *weights)]
        values[given + parameters :] = [v.clone() for v in values[given + parameters :]]  # the module writes to buffers
        wanted = [v for v in values[: given + parameters] if v.is_floating_point()]
        module.train(training)
        with torch.inference_mode(False), torch.set_grad_enabled(taped):
            for v in wanted:
                v.requires_grad_(taped)
            own = dict(zip(self._tensors(), values[given:], strict=True))
            arguments = tuple(_arguments(pack_like(inputs, values[:given])))
            y = torch.func.functional_call(module, own, arguments)
        outputs = leaves_of(y)

        def pull(gradients: list[Any]) -> list[Any]:
            pairs = [(v, g) for v, g in zip(outputs, gradients, strict=True) if g is not None and v.requires_grad]
            if not pairs:
                return [None] * len(values)
            ends, flows = zip(*pairs, strict=True)
            found = torch.autograd.grad(ends, wanted, flows, retain_graph=True, allow_unused=True)
            by_value = {id(v): g for v, g in zip(wanted, found, strict=True)}
            return [by_value.get(id(v)) for v in values]

        return map_structure(lambda v: v.detach(), y), pull, [v.detach() for v in values[given:]]

    def export(self) -> Any:
        """The module, with the layer's present weights in it."""
        import torch

        with torch.no_grad():
            for tensor, value in zip(self._tensors().values(), self.present(), strict=True):
                tensor.copy_(torch.as_tensor(value))
        return self.module


# ---- TensorFlow ---------------------------------------------------------------------


class TensorFlowFunctionLayer(NativeLayer):
    """A TensorFlow function or ``tf.Module`` that can be called, as a layer of a model that trains eagerly on the
    tensorflow backend.

    The variables it has, in ``trainable_variables`` and ``variables``, are the layer's weights. Before each call they
    get the layer's present values. A saved model or a recipe cannot hold it; weights alone can be saved.

    Shapes: as the function; a list of inputs becomes its arguments.

    Args:
        function: The function; it may take ``training``.

    Raises:
        GraphError: as part of a graph, such as that of a ``function``; and for second derivatives.
        BackendError: for the arrays of another engine.

    Example:
        A model with one trains on TensorFlow:

            model = Sequential([TensorFlowFunctionLayer(tf.nn.softsign), layers.Dense(1)])
    """

    function: Callable[..., Any]

    engine = "tensorflow"

    def _variables_there(self) -> list[Any]:
        found = getattr(self.function, "variables", ())
        return [v if callable(v.value) else v.value for v in found]  # those of Keras hold one of TensorFlow's

    def found_weights(self, inputs: Any) -> dict[str, tuple[Any, bool]]:
        _called(self.function, *_arguments(inputs), training=False)  # which may create them
        variables = self._variables_there()
        names = [v.name.partition(":")[0] for v in variables]
        unique = [n if names.count(n) == 1 else f"{n}_{i}" for i, n in enumerate(names)]
        return {n: (v.read_value(), v.trainable) for n, v in zip(unique, variables, strict=True)}

    def run(self, inputs: Any, weights: list[Any], training: bool, taped: bool) -> tuple[Any, Pull, list[Any]]:
        import tensorflow as tf

        variables = self._variables_there()
        for variable, value in zip(variables, weights, strict=True):
            variable.assign(value)
        given = leaves_of(inputs)
        with tf.GradientTape(persistent=True) as tape:
            tape.watch([v for v in given if v.dtype.is_floating])
            y = _called(self.function, *_arguments(inputs), training=training)
        outputs, sources = leaves_of(y), [*given, *variables]

        def pull(gradients: list[Any]) -> list[Any]:
            pairs = [(v, g) for v, g in zip(outputs, gradients, strict=True) if g is not None]
            found = tape.gradient([v for v, _ in pairs], sources, [g for _, g in pairs])
            return [None if g is None else tf.convert_to_tensor(g) for g in found]

        return y, pull, [v.read_value() for v in variables]

    def export(self) -> Any:
        """The function, with the layer's present weights in its variables."""
        for variable, value in zip(self._variables_there(), self.present(), strict=True):
            variable.assign(value)
        return self.function


# ---- JAX ----------------------------------------------------------------------------


class JaxFunctionLayer(NativeLayer):
    """A JAX function as a layer of a model that trains eagerly on the jax backend.

    A saved model or a recipe cannot hold it; weights alone can be saved.

    Shapes: as the function; a list of inputs becomes its arguments.

    Args:
        function: ``function(parameters, x)``, or ``function(x)`` without parameters; it may take ``training``.
        parameters: Arrays in nested lists and dicts, which become the layer's weights.

    Raises:
        GraphError: as part of a graph, such as that of a ``function``; and for second derivatives.
        BackendError: for the arrays of another engine.

    Example:
        A model with one trains on JAX:

            model = Sequential([JaxFunctionLayer(lambda p, x: jnp.tanh(x @ p["w"]), {"w": w}), layers.Dense(1)])
    """

    function: Callable[..., Any]
    parameters: Mapping[str, Any] | Sequence[Any] | None = None

    engine = "jax"

    def found_weights(self, inputs: Any) -> dict[str, tuple[Any, bool]]:
        return {name: (array, True) for name, array in _named(self.parameters)}

    def run(self, inputs: Any, weights: list[Any], training: bool, taped: bool) -> tuple[Any, Pull, list[Any]]:
        import jax

        values = [*leaves_of(inputs), *weights]
        moving = [i for i, v in enumerate(values) if is_float(ops.dtype_of(v))]
        wide = any(ops.dtype_of(v) == "float64" for v in values)

        def on_floats(*floats: Any) -> Any:
            all_values = list(values)
            for i, v in zip(moving, floats, strict=True):
                all_values[i] = v
            x = pack_like(inputs, all_values[: len(values) - len(weights)])
            return self.applied(all_values[len(values) - len(weights) :], x, training)

        with jax.enable_x64(wide):
            floats = [values[i] for i in moving]
            back: Any = None
            if taped:
                y, back, after = jax.vjp(on_floats, *floats, has_aux=True)
            else:
                y, after = on_floats(*floats)
        outputs = leaves_of(y)

        def pull(gradients: list[Any]) -> list[Any]:
            with jax.enable_x64(wide):
                flows = [_cotangent(v, g) for v, g in zip(outputs, gradients, strict=True)]
                found = dict(zip(moving, back(pack_like(y, flows)), strict=True))
            return [found.get(i) for i in range(len(values))]

        return y, pull, after

    def applied(self, own: list[Any], x: Any, training: bool) -> tuple[Any, list[Any]]:
        """The result for the weights in the order of ``found_weights``, and the weights after it."""
        first = () if self.parameters is None else (pack_like(self.parameters, own),)
        return _called(self.function, *first, *_arguments(x), training=training), own

    def export(self) -> Any:
        """The parameters with the layer's present weights, as NumPy arrays."""
        return pack_like(self.parameters, self.present()) if self.parameters is not None else None


class JaxLayer(JaxFunctionLayer):
    """A JAX function as Keras's layer of that name takes it, for a model that trains eagerly on the jax backend.

    Both functions are called with those of their arguments that they name.

    Shapes: as the function.

    Args:
        call_fn: A function of some of ``params``, ``state``, ``rng`` (a key, new at each call), ``inputs`` and
            ``training``; it gives the result, and with ``state`` among its arguments the result and the new state.
        init_fn: A function of some of ``rng``, ``inputs`` and ``training`` that gives the parameters, or with ``state``
            among the arguments of ``call_fn`` the parameters and the state. It is called at the first call.
        params: The parameters, in the place of ``init_fn``: arrays in nested lists and dicts, which training updates.
        state: The state, likewise: arrays that only the function itself changes, in training.
        seed: Seed of the keys; the model's if None.

    Raises:
        UnilayersError: for other names of arguments, and without parameters where they are wanted.
        GraphError: as part of a graph, for which ``run_eagerly=True`` helps; and for second derivatives.
        BackendError: for the arrays of another engine.

    Example:
        A model with one trains by ``model.compile(..., run_eagerly=True)`` and ``model.fit(x, y, backend="jax")``:

            model = Sequential([JaxLayer(lambda params, inputs: inputs @ params, params=w), layers.Dense(1)])
    """

    def __init__(
        self, call_fn: Callable[..., Any], init_fn: Callable[..., Any] | None = None, params: Any = None,
        state: Any = None, seed: Seed = None, **kwargs: Any,
    ) -> None:  # fmt: skip
        super().__init__(call_fn, **kwargs)
        self.call_fn, self.init_fn, self.params, self.state, self.seed = call_fn, init_fn, params, state, seed
        self._wanted = _names_of(call_fn, ("params", "state", "rng", "inputs", "training"), "JaxLayer.call_fn")
        if init_fn is not None:
            _names_of(init_fn, ("rng", "inputs", "training"), "JaxLayer.init_fn")
        for name, given in (("params", params), ("state", state)):
            if name in self._wanted and given is None and init_fn is None:
                raise UnilayersError(f"call_fn wants {name}", where="JaxLayer", fix=f"Give {name} or init_fn")

    def build(self, input_shape: Any) -> None:
        if "rng" in self._wanted:
            self.random_counter()

    def found_weights(self, inputs: Any) -> dict[str, tuple[Any, bool]]:
        if self.init_fn is not None and self.params is None:
            made = self._with_names(self.init_fn, inputs=inputs, training=True, rng=self._key(self.path, 0))
            self.params, self.state = made if "state" in self._wanted else (made, None)
        parts = {"params": (self.params, True), "state": (self.state, False)}
        return {n: (array, trains) for part, (tree, trains) in parts.items() for n, array in _named(tree, part)}

    def applied(self, own: list[Any], x: Any, training: bool) -> tuple[Any, list[Any]]:
        count = len(leaves_of(self.params)) if self.params is not None else 0
        given: dict[str, Any] = {"inputs": x, "training": training}
        if "params" in self._wanted:
            given["params"] = pack_like(self.params, own[:count])
        if "state" in self._wanted:
            given["state"] = pack_like(self.state, own[count:])
        if "rng" in self._wanted:
            counter, words = self.next_random(self.seed)
            given["rng"] = self._key(words, int(ops.to_numpy(counter)))
        result = self._with_names(self.function, **given)
        if "state" not in self._wanted:
            return result, own
        y, state = result
        return y, [*own[:count], *leaves_of(state)]

    def _key(self, stream: Any, count: int) -> Any:
        """JAX's key for a draw."""
        import jax

        words = random.key_of(self.root_seed, stream) if isinstance(stream, str) else stream
        return jax.random.fold_in(jax.random.fold_in(jax.random.PRNGKey(words[0]), words[1]), count)

    def _with_names(self, function: Callable[..., Any], **given: Any) -> Any:
        """The function of those arguments that it names."""
        return function(**{name: given[name] for name in inspect.signature(function).parameters})

    def export(self) -> Any:
        """The parameters and the state with the layer's present values, as NumPy arrays."""
        values, count = self.present(), len(leaves_of(self.params)) if self.params is not None else 0
        parts = ((self.params, values[:count]), (self.state, values[count:]))
        return tuple(None if tree is None else pack_like(tree, part) for tree, part in parts)


def _names_of(function: Callable[..., Any], known: Sequence[str], where: str) -> list[str]:
    """The names of a function's arguments, which must be among those known."""
    names = list(inspect.signature(function).parameters)
    if unknown := [n for n in names if n not in known]:
        raise UnilayersError(
            f"an argument {unknown[0]!r}", where=where, expected=f"some of {', '.join(known)}", fix="Rename it"
        )
    return names


def _named(structure: Any, path: str = "") -> list[tuple[str, Any]]:
    """The leaves of nested lists and dicts with their names: ``layer/w``."""
    if structure is None:
        return []
    if isinstance(structure, Mapping):
        parts = list(structure.items())
    elif isinstance(structure, (list, tuple)):
        parts = list(enumerate(structure))
    else:
        return [(path, structure)]
    return [pair for key, part in parts for pair in _named(part, f"{path}/{key}" if path else str(key))]


def _cotangent(y: Any, g: Any) -> Any:
    """The gradient of a result as JAX wants it: zeros for None, and nothing for integers."""
    import jax

    if not is_float(ops.dtype_of(y)):
        return np.zeros(y.shape, jax.dtypes.float0)
    return jax.numpy.zeros_like(y) if g is None else g
