"""Reverse-mode differentiation of graphs, and of what runs eagerly under a tape.

The rules stand in the op records and are written in ops. A graph's gradient is more of the same graph. A tape turns
each rule into a graph once for each signature of the op, sees there what the rule reads, and keeps only that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from unilayers import ops
from unilayers.errors import GraphError, ShapeError, UnilayersError
from unilayers.graph import Op, Value, constant, is_tracing, leaf, schedule, scope, tracing
from unilayers.graph.record import OPS
from unilayers.ops.define import (
    TAPES,
    TRACE,
    Box,
    NotLasting,
    Place,
    Plan,
    Plans,
    bind,
    boxed,
    host_of,
    put_beside,
    runnable,
    signature,
    spec_of,
    unboxed,
)
from unilayers.spec import Dim, Spec, is_float
from unilayers.structure import leaves_of, map_structure, pack_like

# ---- graphs -----------------------------------------------------------------


def gradients(ys: Value | Sequence[Value], xs: Sequence[Value], grad_ys: Sequence[Any] | None = None) -> list[Value]:
    """Gradients of the sum of ``ys`` with respect to symbolic values ``xs``, as further nodes of the same graph.

    Args:
        ys: One value or several; floats.
        xs: The values to differentiate by.
        grad_ys: What flows into each y instead of ones; None entries count as no gradient.

    Returns:
        One value per x, of x's shape and dtype; zeros where y does not depend on x.
    """
    ys = [ys] if isinstance(ys, Value) else list(ys)
    with tracing():
        found = _gradients(ys, xs, grad_ys)
        return [ops.zeros_like(x) if g is None else g for x, g in zip(xs, found, strict=True)]


def _gradients(
    ys: Sequence[Value], xs: Sequence[Value], grad_ys: Sequence[Any] | None = None, since: int = 0
) -> list[Value | None]:
    """The same, with None where y does not depend on x; nodes with a number below ``since`` are not looked behind."""
    with tracing():
        seeds = list(grad_ys) if grad_ys is not None else [ops.ones_like(y) for y in ys]
        grads: dict[Value, Any] = {}
        for y, g in zip(ys, seeds, strict=True):
            if g is not None:
                grads[y] = ops.add(grads[y], g) if y in grads else g
        path = _between(ys, set(xs), since)
        needed = {v for n in path for v in n.outputs} | set(xs)
        for node in path:
            flow = [grads.get(y) for y in node.outputs]
            if all(g is None for g in flow):
                continue
            with scope(node.scope, node.part if node.part.startswith("gradient") else f"gradient of {node.op}"):
                found = _pulled(OPS[node.op], flow, node.outputs, node.inputs, dict(node.attrs), node.multiple)
                for x, g in zip(node.inputs, found, strict=True):
                    if g is not None and x in needed:
                        g = unbroadcast(g, x.shape)
                        grads[x] = ops.add(grads[x], g) if x in grads else g
        return [grads.get(x) for x in xs]


def _between(ys: Sequence[Value], xs: set[Value], since: int) -> list[Any]:
    """The nodes through which some y depends on some x, last first; xs are not looked behind."""
    depends: dict[Any, bool] = {}
    stack = [y.node for y in ys if y not in xs]
    while stack:
        node = stack[-1]
        if node in depends:
            stack.pop()
            continue
        if node.serial < since:
            depends[stack.pop()] = False
            continue
        unseen = [v.node for v in node.inputs if v not in xs and v.node not in depends]
        if unseen:
            stack.extend(unseen)
            continue
        depends[stack.pop()] = any(v in xs or depends[v.node] for v in node.inputs)
    return sorted((n for n, d in depends.items() if d), key=lambda n: -n.serial)


def _pulled(
    op: Op,
    flow: Sequence[Any],
    outputs: Sequence[Value],
    inputs: Sequence[Value],
    attrs: dict[str, Any],
    multiple: bool,
) -> Sequence[Any]:
    """The gradient of each input of a step, or None, before ``unbroadcast``."""
    if op.vjp is not None:
        y = tuple(outputs)
        return tuple(op.vjp(tuple(flow) if multiple else flow[0], y if multiple else y[0], *inputs, **attrs))
    if op.expand is None:
        raise GraphError(f"op {op.name!r} has no gradient")
    # A composite without a rule: differentiate its expansion.
    inner = op.expand(*inputs, **attrs)
    wanted = [x for x in inputs if is_float(x.dtype)]
    found = iter(gradients(list(inner) if multiple else [inner], wanted, flow))
    return [next(found) if is_float(x.dtype) else None for x in inputs]


def unbroadcast(g: Any, shape: Sequence[Any]) -> Any:
    """Sum a gradient over the axes along which its value was stretched."""
    have = ops.shape_of(g)
    if tuple(have) == tuple(shape):
        return g
    extra = len(have) - len(shape)
    stretched = [a + extra for a, d in enumerate(shape) if d == 1 and have[a + extra] != 1]
    g = ops.sum(g, (*range(extra), *stretched), keepdims=True)
    return ops.reshape(g, tuple(shape))


# ---- the rule of one op at one signature ------------------------------------


Pulled = Iterable[tuple[int, Any]]


class Rule(Protocol):
    """How gradients flow back through a step."""

    def pull(self, kept: Sequence[Any], flow: Sequence[Any], wanted: tuple[bool, ...], watched: bool) -> Pulled:
        """Gradients of the wanted inputs, with their positions.

        Args:
            kept: What the step keeps: boxes and arrays.
            flow: The gradients of the outputs: arrays, or boxes if ``watched``; None where there is none.
            wanted: Which inputs.
            watched: Whether other tapes are active: then boxes go in and come out, and all is done by ops.
        """
        ...


class Pullback:
    """An op's rule at one signature, as graphs from the gradients of the outputs to those of the watched inputs.

    Attributes:
        kept_outputs: Which of the op's outputs the rule reads.
        kept_inputs: Which of its inputs.
        none: Whether no gradient flows at all.
    """

    def __init__(
        self, op: Op, inputs: Sequence[Any], watched: Sequence[bool], attrs: dict[str, Any], outputs: Sequence[Any],
        multiple: bool, place: Place,
    ) -> None:  # fmt: skip
        self.op, self.watched, self.attrs, self.multiple, self.place = op, watched, attrs, multiple, place
        self._host = host_of(outputs[0])
        self.ys = [leaf("input", f"y{i}", spec_of(a)) for i, a in enumerate(outputs)]
        self.xs = [leaf("input", f"x{i}", spec_of(a)) for i, a in enumerate(inputs)]
        self.flows = [leaf("input", f"g{i}", y.spec) for i, y in enumerate(self.ys)]
        self._graphs: dict[tuple[bool, ...], list[Value | None]] = {}
        self._plans: dict[Any, tuple[Plan, list[int]]] = {}
        found = self._graph(tuple(is_float(y.dtype) for y in self.ys))
        self.none = all(g is None for g in found)
        read = {v for n in schedule((), [g for g in found if g is not None]) for v in (*n.inputs, *n.outputs)}
        self.kept_outputs = [i for i, y in enumerate(self.ys) if y in read]
        self.kept_inputs = [i for i, x in enumerate(self.xs) if x in read]

    def _graph(self, given: tuple[bool, ...]) -> list[Value | None]:
        """The gradient of each watched input, when gradients of these outputs are given."""
        if given not in self._graphs:
            flow = [g if on else None for g, on in zip(self.flows, given, strict=True)]
            with tracing():
                found = _pulled(self.op, flow, self.ys, self.xs, self.attrs, self.multiple)
                self._graphs[given] = [
                    unbroadcast(g, x.shape) if g is not None and on else None
                    for g, x, on in zip(found, self.xs, self.watched, strict=True)
                ]
        return self._graphs[given]

    def _inputs(self, given: tuple[bool, ...]) -> list[Value]:
        """The leaves of the graphs, in the order in which their values come."""
        flows = [g for g, on in zip(self.flows, given, strict=True) if on]
        return [*flows, *(self.ys[i] for i in self.kept_outputs), *(self.xs[i] for i in self.kept_inputs)]

    def pull(self, kept: Sequence[Any], flow: Sequence[Any], wanted: tuple[bool, ...], watched: bool) -> Pulled:
        given = tuple([g is not None for g in flow])
        if watched:
            return self._pull_by_ops([*(g for g in flow if g is not None), *kept], given, wanted)
        plan = self._plans.get((given, wanted)) or self._plan(given, wanted)
        if plan is None:
            values = [boxed_again(x) for x in (*(g for g in flow if g is not None), *kept)]
            return [(i, unboxed(g)) for i, g in self._pull_by_ops(values, given, wanted)]
        host = self._host
        values = [g if host_of(g) is host else self._moved(g) for g in flow if g is not None]
        for x in kept:
            values.append(x.array if x.__class__ is Box else x)
        run, positions = plan
        return zip(positions, run(values), strict=True)

    def _plan(self, given: tuple[bool, ...], wanted: tuple[bool, ...]) -> tuple[Plan, list[int]] | None:
        """The gradients of some inputs as a function of arrays, and which inputs; None if there can be none now."""
        outputs = {i: g for i, g in enumerate(self._graph(given)) if g is not None and wanted[i]}
        try:
            run = runnable(self._inputs(given), list(outputs.values()), self.place)
        except NotLasting:
            return None
        if run is None:
            return None
        self._plans[given, wanted] = run, list(outputs)
        return run, list(outputs)

    def _moved(self, g: Any) -> Any:
        """A gradient that comes from another engine, to whose arrays a result went as a guest."""
        return self.place[0].put_as([ops.to_numpy(g)], [ops.dtype_of(g)], self.place[1])[0]

    def _pull_by_ops(self, values: Sequence[Any], given: tuple[bool, ...], wanted: Sequence[bool]) -> Pulled:
        """The graph op by op, so that tapes see it."""
        backend, device = self.place
        known: dict[Value, Any] = dict(zip(self._inputs(given), values, strict=True))
        outputs = [(i, g) for i, g in enumerate(self._graph(given)) if g is not None and wanted[i]]
        for node in schedule((), [g for _, g in outputs]):
            if node.op == "constant":
                found: Any = boxed(backend.put_as([node.attrs["value"].array], [node.outputs[0].dtype], device)[0])
            elif node.op == "input":
                continue
            else:
                found = bind(OPS[node.op], [known[v] for v in node.inputs], dict(node.attrs))
            known.update(zip(node.outputs, found if node.multiple else (found,), strict=True))
        return [(i, known[g]) for i, g in outputs]


_pullbacks = Plans()


def _pullback(
    op: Op, arrays: Sequence[Any], watched: tuple[bool, ...], attrs: dict[str, Any], outputs: Sequence[Box],
    multiple: bool, place: Place,
) -> Pullback:  # fmt: skip
    """The rule for these arrays; traced once for each signature."""
    key = signature(op, arrays, place, attrs)
    if key is not None:
        key += watched
        try:
            found = _pullbacks.get(key)
        except TypeError:  # an attribute that cannot be hashed
            found = key = None
        if found is not None:
            return found
    made = Pullback(op, arrays, watched, attrs, [y.array for y in outputs], multiple, place)
    return made if key is None else _pullbacks.keep(key, made)


# ---- the tape ---------------------------------------------------------------

# What a tape keeps of one op: the serial number of each watched input (None for the others), those of the outputs,
# boxes and arrays for the rule, and the rule.
Step = tuple[Sequence[int | None], Sequence[int], Sequence[Any], Rule]


class GradientTape:
    """Records the ops that run inside its ``with`` block, and differentiates them.

    Trainable variables are watched by themselves; ``watch`` an array to differentiate by it, and compute with what
    ``watch`` returns. Inside a function that is being compiled it differentiates the graph instead.

    The tape keeps no more than the gradients will read, and gives that back step by step while they are computed.

    Args:
        persistent: Whether ``gradient`` may be asked more than once; otherwise the record is freed by the first call.

    Example:
        >>> import numpy as np
        >>> with GradientTape() as tape:
        ...     x = tape.watch(np.array([1.0, 2.0]))
        ...     y = ops.sum(x * x)
        >>> tape.gradient(y, x)
        array([2., 4.])
    """

    def __init__(self, persistent: bool = False) -> None:
        self.persistent = persistent
        self._steps: list[Step] | None = []
        self._watched: set[int] = set()
        self._assigned: dict[Any, Value] = {}  # the values of variables that were assigned to before this tape
        self._since = 0  # in a trace: what was noted before the tape is no part of it

    def __enter__(self) -> GradientTape:
        self._token = TAPES.set((*TAPES.get(), self))
        if is_tracing():
            self._since = leaf("input", "tape", Spec(())).node.serial
        trace = TRACE.get()
        if trace is not None:
            self._assigned = dict(trace.current)
        return self

    def __exit__(self, *exc: object) -> None:
        TAPES.reset(self._token)

    def watch(self, x: Any) -> Any:
        """The array as a value whose use is recorded. A variable is watched also if it is not trainable."""
        if isinstance(x, Value):
            return x
        if hasattr(x, "as_operand"):
            self._watched.add(x.serial)
            return x
        if is_tracing():
            return constant(ops.to_numpy(x))
        box = x if isinstance(x, Box) else Box(x)
        self._watched.add(box.serial)
        return box

    def watches(self, box: Box) -> bool:
        """Whether the use of a value is recorded."""
        if box.serial in self._watched:
            return True
        if box.source is not None and box.source.trainable:
            self._watched.add(box.serial)
            return True
        return False

    def record(
        self, op: Op, inputs: Sequence[Any], arrays: Sequence[Any], watched: tuple[bool, ...], attrs: dict[str, Any],
        outputs: Sequence[Box], multiple: bool, place: Place,
    ) -> None:  # fmt: skip
        """Take a step down, if gradients flow through it."""
        if self._steps is None:
            return
        rule = _pullback(op, arrays, watched, attrs, outputs, multiple, place)
        if rule.none:
            return
        kept = [outputs[i] for i in rule.kept_outputs]
        for i in rule.kept_inputs:
            x = inputs[i]
            kept.append(x if x.__class__ is Box else arrays[i])
        self.add(inputs, watched, outputs, kept, rule)

    def add(
        self, inputs: Sequence[Any], watched: Sequence[bool], outputs: Sequence[Box], kept: Sequence[Any], rule: Rule
    ) -> None:
        """Take a step with its rule down."""
        if self._steps is not None:
            made = [y.serial for y in outputs]
            self._watched.update(made)
            taken = [x.serial if on else None for x, on in zip(inputs, watched, strict=True)]
            self._steps.append((taken, made, kept, rule))

    def gradient(self, target: Any, sources: Any, output_gradients: Any = None) -> Any:
        """Gradient of the sum of ``target`` by each source: arrays of the sources' backend, None where unconnected.

        Args:
            target: A value computed inside the block.
            sources: A watched value or a variable, or a nested structure of them, which the result then has, too.
            output_gradients: What flows into ``target`` instead of ones.

        Raises:
            UnilayersError: at a second call, unless the tape is persistent.
        """
        if self._steps is None:
            raise UnilayersError(
                "the tape was used up by an earlier gradient call", fix="Use GradientTape(persistent=True)"
            )
        steps = self._steps
        if not self.persistent:
            self._steps = None
        wanted = leaves_of(sources)
        if isinstance(target, Value):
            return pack_like(sources, self._of_graph(target, wanted, output_gradients))
        serials = [getattr(s, "serial", None) for s in wanted]
        # Outer tapes record this computation, so that it can be differentiated again; this tape must not.
        outer = tuple(t for t in TAPES.get() if t is not self)
        token = TAPES.set(outer)
        try:
            grads = _seed(target, output_gradients, bool(outer))
            _backward(steps, grads, set(serials), bool(outer), free=not self.persistent)
        finally:
            TAPES.reset(token)
        active = TAPES.get()
        found = [grads.get(s) for s in serials]
        return pack_like(sources, [g if g is None else boxed_again(g) if active else unboxed(g) for g in found])

    def _of_graph(self, target: Value, sources: Sequence[Any], flow: Any) -> list[Any]:
        """The same in a trace. Of a variable, the value that it had as the tape began."""
        trace = TRACE.get()
        values = [
            s if isinstance(s, Value) else self._assigned[s] if s in self._assigned else trace.leaf(s) for s in sources
        ]
        with tracing():
            ones = ops.ones_like(target)
            return _gradients([target], values, [ones if flow is None else ops.multiply(ones, flow)], self._since)


def boxed_again(x: Any) -> Box:
    return x if isinstance(x, Box) else Box(x)


def _seed(target: Any, flow: Any, watched: bool) -> dict[int | None, Any]:
    """The gradient to begin with, by the target's serial number."""
    if hasattr(target, "as_operand"):
        target = target.as_operand(None, None)
        target = target if isinstance(target, Box) else Box(target)
    if not isinstance(target, Box):
        return {}
    plain = unboxed(flow)
    if type(plain) is not type(target.array) or plain.shape != target.array.shape or plain.dtype != target.array.dtype:
        ones = put_beside(target.array, np.ones(target.shape), target.dtype)
        flow = ones if flow is None else ops.multiply(ones, flow)
    return {target.serial: boxed_again(flow) if watched else unboxed(flow)}


def _backward(
    steps: list[Step], grads: dict[int | None, Any], sources: set[int | None], watched: bool, *, free: bool
) -> None:
    """Walk the steps, last first, and leave the gradients of the sources in ``grads``.

    With ``free``, each step is dropped as soon as it is done. A gradient is dropped when it has flowed on.
    """
    reached = set(sources)
    reached.discard(None)
    wanted = []  # per step: which inputs lead to a source
    for inputs, outputs, _, _ in steps:
        mask = tuple([s in reached for s in inputs])
        if True in mask:
            reached.update(outputs)
            wanted.append(mask)
        else:
            wanted.append(())
    for n in range(len(steps) - 1, -1, -1):
        inputs, outputs, kept, rule = steps.pop() if free else steps[n]
        mask = wanted.pop()
        flow = [grads.get(s) if s in sources else grads.pop(s, None) for s in outputs]
        if mask and any([g is not None for g in flow]):  # noqa: C419  (short lists: a generator costs more)
            for i, g in rule.pull(kept, flow, mask, watched):
                before = grads.get(inputs[i])
                grads[inputs[i]] = g if before is None else ops.add(before, g)
        del kept, flow  # nothing of this step may outlive it
        g = before = None


# ---- functions --------------------------------------------------------------


def grad(function: Callable[..., Any], argnums: int | tuple[int, ...] = 0) -> Callable[..., Any]:
    """The gradient of a scalar function of arrays, as a function of the same arguments.

    Args:
        function: Written with ops or operators; returns one value.
        argnums: Which positional arguments to differentiate by. They may be nested lists, tuples and dicts of arrays;
            the gradients come in the same nesting.

    Example:
        >>> import numpy as np
        >>> grad(lambda x: ops.sum(x**3))(np.array([1.0, 2.0]))
        array([ 3., 12.])
        >>> float(grad(grad(lambda x: x**3))(2.0))
        12.0
    """

    def derivative(*args: Any, **kwargs: Any) -> Any:
        return value_and_grad(function, argnums)(*args, **kwargs)[1]

    return derivative


def value_and_grad(function: Callable[..., Any], argnums: int | tuple[int, ...] = 0) -> Callable[..., Any]:
    """The value of a function together with its gradient; see ``grad``."""

    def both(*args: Any, **kwargs: Any) -> Any:
        with GradientTape() as tape:
            watched, sources = _watch_arguments(tape, args, argnums)
            y = function(*watched, **kwargs)
        found = _connected(tape.gradient(y, sources), sources)
        return y if TAPES.get() else unboxed(y), found

    return both


def jacobian(function: Callable[..., Any], argnums: int | tuple[int, ...] = 0) -> Callable[..., Any]:
    """The derivative of every element of a function's result by every element of its arguments.

    The result has the shape of the function's result followed by that of the argument. It takes one backward pass for
    each element of the result.

    Args:
        function: Written with ops or operators; returns one value, or a nested structure of them.
        argnums: Which positional arguments to differentiate by, as for ``grad``.

    Raises:
        ShapeError: in a trace, where the size of the result is not known.

    Example:
        >>> import numpy as np
        >>> jacobian(lambda x: x * x)(np.array([1.0, 2.0]))
        array([[2., 0.],
               [0., 4.]])
    """

    def matrix(*args: Any, **kwargs: Any) -> Any:
        with GradientTape(persistent=True) as tape:
            watched, sources = _watch_arguments(tape, args, argnums)
            ys = function(*watched, **kwargs)
        return map_structure(lambda y: _rows(tape, y, sources), ys)

    return matrix


def hessian(function: Callable[..., Any], argnums: int | tuple[int, ...] = 0) -> Callable[..., Any]:
    """The second derivatives of a scalar function: the ``jacobian`` of its ``grad``.

    Example:
        >>> import numpy as np
        >>> hessian(lambda x: ops.prod(x))(np.array([2.0, 3.0]))
        array([[0., 1.],
               [1., 0.]])
    """
    return jacobian(grad(function, argnums), argnums)


def _rows(tape: GradientTape, y: Any, sources: Any) -> Any:
    """The Jacobian of one result by the sources."""
    shape = ops.shape_of(y)
    if any(isinstance(d, Dim) for d in shape):
        raise ShapeError("the size of the result must be known", where="jacobian", received=str(shape))
    rows = []
    for at in np.ndindex(*shape):  # type: ignore[arg-type]
        one = np.zeros(shape)  # type: ignore[type-var]
        one[at] = 1
        dtype = ops.dtype_of(y)
        flow = constant(one, dtype) if isinstance(y, Value) else put_beside(unboxed(y), one, dtype)
        rows.append(leaves_of(_connected(tape.gradient(y, sources, flow), sources)))
    found = []
    for i, x in enumerate(leaves_of(sources)):
        parts = [row[i] for row in rows] or [ops.zeros_like(x)]  # one too many where there is none
        stacked = ops.getitem(ops.stack(parts), slice(len(rows)))
        found.append(ops.reshape(stacked, (*shape, *ops.shape_of(x))))
    return pack_like(sources, found if TAPES.get() else map(unboxed, found))


def _watch_arguments(tape: GradientTape, args: Sequence[Any], argnums: int | tuple[int, ...]) -> tuple[list[Any], Any]:
    """The arguments to call with, and those of them to differentiate by: one structure, or a tuple of them."""
    watched = list(args)
    for i in (argnums,) if isinstance(argnums, int) else argnums:
        watched[i] = map_structure(lambda x: _watched(tape, x), args[i])
    return watched, watched[argnums] if isinstance(argnums, int) else tuple(watched[i] for i in argnums)


def _watched(tape: GradientTape, x: Any) -> Any:
    """A fresh value each, since the same one passed twice has two gradients."""
    if x is None:
        return None
    if isinstance(x, (Box, Value)) or hasattr(x, "as_operand"):
        x = ops.identity(x)
    elif isinstance(x, (bool, int, float, list)) and not isinstance(x, np.generic):
        x = np.asarray(x, ops.dtype_of(x))
    return tape.watch(x)


def _connected(found: Any, sources: Any) -> Any:
    """The gradients with zeros where there is none."""
    pairs = zip(leaves_of(found), leaves_of(sources), strict=True)
    whole = [ops.zeros_like(x) if g is None and x is not None else g for g, x in pairs]
    return pack_like(sources, whole if TAPES.get() else map(unboxed, whole))


# ---- functions with a gradient of their own, run eagerly --------------------


class _Custom:
    """The rule of a function that returns ``(y, pull)``."""

    def __init__(self, function: Callable[..., Any], args: Any, pull: Callable[..., Any], outputs: list[Any]) -> None:
        self.function, self.args, self._pull = function, args, pull
        self.specs = [spec_of(y) for y in outputs]

    def pull(self, kept: Sequence[Any], flow: Sequence[Any], wanted: tuple[bool, ...], watched: bool) -> Pulled:
        # Other tapes must see how what ``pull`` closes over was computed, so they see the function run.
        pull = self.function(*pack_like(self.args, kept))[1] if watched else self._pull
        some = next(g for g in flow if g is not None)
        given = [_flow(g, some, spec) for g, spec in zip(flow, self.specs, strict=True)]
        found = leaves_of(pull(*given))
        if len(found) != len(kept):
            raise GraphError(
                "the pullback does not fit the arguments", where="custom_gradient",
                expected=f"{len(kept)} gradients, None where there is none", received=str(len(found)),
            )  # fmt: skip
        return [(i, g if watched else unboxed(g)) for i, g in enumerate(found) if wanted[i] and g is not None]


def _flow(g: Any, some: Any, spec: Spec) -> Any:
    """The gradient of an output in a box; zeros for None. Integers have none."""
    if not is_float(spec.dtype):
        return None
    if g is None:
        g = put_beside(unboxed(some), np.zeros(spec.shape), spec.dtype)  # type: ignore[arg-type]
    return boxed_again(g)


def eager_custom_gradient(function: Callable[..., Any], args: Sequence[Any]) -> Any:
    """``y`` of ``function(*args) -> (y, pull)``, whose gradient on a tape is what ``pull`` says.

    Args:
        function: ``pull(*gradients of y)`` gives one gradient per array in ``args``, or None.
        args: Arrays, or nested structures of them.
    """
    tapes = TAPES.get()
    if not tapes:
        return function(*args)[0]
    inputs = [x.as_operand(None, None) if hasattr(x, "as_operand") else x for x in leaves_of(args)]
    args = pack_like(tuple(args), inputs)
    y, pull = _unseen(lambda: function(*args), ())
    return _one_step(tapes, inputs, y, lambda outputs: _Custom(function, args, pull, outputs))


def _unseen(run: Callable[[], Any], tapes: tuple[Any, ...]) -> Any:
    """What ``run`` gives under these tapes instead of the active ones."""
    token = TAPES.set(tapes)
    try:
        return run()
    finally:
        TAPES.reset(token)


def _one_step(tapes: Sequence[Any], inputs: Sequence[Any], y: Any, rule: Callable[[list[Any]], Rule]) -> Any:
    """Results of a function as one step of the tapes that watch its inputs."""
    masks = [(t, tuple([isinstance(x, Box) and t.watches(x) for x in inputs])) for t in tapes]
    masks = [(t, mask) for t, mask in masks if True in mask]
    if not masks:
        return y
    outputs = [Box(unboxed(v)) for v in leaves_of(y)]
    made = rule([b.array for b in outputs])
    for tape, mask in masks:
        tape.add(inputs, mask, outputs, inputs, made)
    return pack_like(y, outputs)


class _Reads:
    """Stands for tapes while a checkpointed function runs: notes the values from outside, and records nothing.

    Attributes:
        boxes: The values that a tape watches, by their serial numbers.
        variables: The variables, watched or not, as they were first read.
    """

    def __init__(self, tapes: Iterable[Any]) -> None:
        self.tapes = tuple(tapes)
        self.boxes: dict[int, Box] = {}
        self.variables: dict[int, Box] = {}

    def watches(self, box: Box) -> bool:
        if box.source is not None:
            self.variables.setdefault(box.serial, box)
        asked = [t.watches(box) for t in self.tapes]  # each: asking starts to watch a variable
        if any(asked):
            self.boxes.setdefault(box.serial, box)
        return False

    def record(self, *step: Any) -> None:
        """Never called, as nothing is watched."""


class Replay:
    """Stands for a trace while a function runs with given values of variables, which stay as they are; so does what a
    checkpoint runs again.

    Args:
        variables: The values by the variables' serial numbers; others have their own.

    Attributes:
        current: What was assigned to variables.
        losses: What layers added to the loss.
    """

    def __init__(self, variables: Mapping[int, Any]) -> None:
        self.variables = variables
        self.current: dict[Any, Any] = {}
        self.losses: list[Any] = []
        self.created: list[Any] = []
        self._outer: Any = None

    def read(self, variable: Any) -> Any:
        if variable in self.current:
            return self.current[variable]
        if variable.serial in self.variables:
            return self.variables[variable.serial]
        token = TRACE.set(self._outer)
        try:
            return variable.as_operand(None, None)
        finally:
            TRACE.reset(token)

    leaf = read

    def assign(self, variable: Any, value: Any) -> None:
        own = variable.spec.dtype
        self.current[variable] = ops.astype(value, own) if ops.dtype_of(value) != own else value


class _Checkpoint:
    """The rule of a function that is run again when its gradient is wanted."""

    def __init__(self, function: Callable[..., Any], args: Any, variables: dict[int, Box]) -> None:
        self.function, self.args, self.variables = function, args, variables

    def pull(self, kept: Sequence[Any], flow: Sequence[Any], wanted: tuple[bool, ...], watched: bool) -> Pulled:
        with GradientTape() as tape:
            for box in kept:
                tape.watch(box)
            token = TRACE.set(Replay(self.variables))
            try:
                outputs = leaves_of(self.function(*self.args))
            finally:
                TRACE.reset(token)
        grads: dict[int | None, Any] = {}
        for y, g in zip(outputs, flow, strict=True):
            if g is not None and isinstance(y, Box):
                grads[y.serial] = ops.add(grads[y.serial], g) if y.serial in grads else g
        sources = {box.serial for box, on in zip(kept, wanted, strict=True) if on}
        _backward(tape._steps or [], grads, sources, watched, free=True)
        found = [(i, grads.get(box.serial)) for i, box in enumerate(kept) if wanted[i]]
        return [(i, g) for i, g in found if g is not None]


def eager_checkpoint(function: Callable[..., Any], args: Sequence[Any]) -> Any:
    """``function(*args)``, of which a tape keeps the arguments and what else the function reads, and runs it again.

    Variables are given again as they were at their first use in an op, so that random masks are the same, and are not
    assigned to a second time. What the function does beside ops and variables (printing, Python's own counters) happens
    twice; it must compute the same values both times.

    Args:
        function: Returns a value or a nested structure of them.
        args: Whatever it takes.
    """
    tapes = TAPES.get()
    if not tapes:
        return function(*args)
    reads = _Reads(tapes)
    for x in leaves_of(args):
        if isinstance(x, Box):
            reads.watches(x)
    y = _unseen(lambda: function(*args), (reads,))
    return _one_step(tapes, list(reads.boxes.values()), y, lambda _: _Checkpoint(function, args, reads.variables))
