"""Control flow: conditionals and loops that are part of a graph, and functions with a gradient of their own.

On arrays these functions are plain Python: they call what they are given, so printing and breakpoints work, and a tape
sees every op. While a graph is traced they trace their arguments into bodies (see ``ops.bodies``), so that the graph
decides at every run. Variables that a body assigns to, such as the counters of random masks, are carried along.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from unilayers import ops
from unilayers.errors import GraphError, ShapeError
from unilayers.graph import Value, constant, is_tracing, leaf, tracing
from unilayers.graph.passes import subgraph
from unilayers.ops.bodies import checkpoint_op, custom_op, scan_op, switch_op, while_op
from unilayers.ops.define import TRACE, _is_weak, _weak, shape_of, to_numpy
from unilayers.spec import Spec, is_float
from unilayers.structure import leaves_of, map_structure, pack_like

# ---- functions for users ----------------------------------------------------


def cond(pred: Any, true_fn: Callable[..., Any], false_fn: Callable[..., Any], *operands: Any) -> Any:
    """``true_fn(*operands)`` if ``pred`` holds, else ``false_fn(*operands)``; only that one is run.

    Args:
        pred: One bool.
        true_fn, false_fn: Functions that return the same structure, with equal shapes and dtypes.
        operands: Their arguments; both may also use what stands around them.

    Raises:
        GraphError: if the two give different structures, shapes or dtypes.

    Example:
        >>> x = np.array(-3.0)
        >>> float(cond(x > 0, lambda: x, lambda: -x))
        3.0
    """
    if isinstance(pred, (bool, np.bool_)) or not _symbolic(pred):
        return (true_fn if bool(to_numpy(pred)) else false_fn)(*operands)
    pred = _value(pred)
    if pred.ndim:
        raise ShapeError("the condition is not one bool", where="ops.cond", received=str(pred.shape))
    return _choose(ops.astype(pred, "bool"), {"false_fn": false_fn, "true_fn": true_fn}, operands)


def switch(index: Any, branches: Sequence[Callable[..., Any]], *operands: Any) -> Any:
    """``branches[index](*operands)``; an index outside takes the nearest branch.

    Args:
        index: One integer.
        branches: Functions that return the same structure, with equal shapes and dtypes.
        operands: Their arguments.

    Example:
        >>> [float(switch(i, [ops.sin, ops.cos], 0.0)) for i in (0, 1, 9)]
        [0.0, 1.0, 1.0]
    """
    if not branches:
        raise GraphError("no branches", where="ops.switch")
    if not _symbolic(index):
        return branches[min(max(int(to_numpy(index)), 0), len(branches) - 1)](*operands)
    return _choose(_value(index), {f"branch {i}": f for i, f in enumerate(branches)}, operands)


def _choose(index: Value, branches: dict[str, Callable[..., Any]], operands: Sequence[Any]) -> Any:
    """The branch with a number, as a part of the graph. Their names are for messages."""
    traced = {name: _trace(f, operands, {}) for name, f in branches.items()}
    first = next(iter(traced.values()))
    variables = list(dict.fromkeys(v for t in traced.values() for v in t.assigned))
    for name, t in traced.items():
        _same_structure(t.result, first.result, name, "the other branches")
    results = {name: [x for x in leaves_of(t.result) if x is not None] for name, t in traced.items()}
    likes = [_first_value(column) for column in zip(*results.values(), strict=True)]
    found = []
    for name, t in traced.items():
        values = [_matching(x, like, name) for x, like in zip(results[name], likes, strict=True)]
        found.append([*values, *(t.assigned.get(v, TRACE.get().read(v)) for v in variables)])
    if not found[0]:
        return first.result
    captured = _captured([v for column in found for v in column], (), first.start)
    bodies = tuple(subgraph(captured, column) for column in found)
    given = switch_op(ops.astype(index, "int32"), *captured, branches=bodies)
    return _hand_out(given, first.result, variables)


def while_loop(
    cond: Callable[..., Any], body: Callable[..., Any], loop_vars: Any, maximum_iterations: int | None = None
) -> Any:
    """Repeat ``loop_vars = body(*loop_vars)`` while ``cond(*loop_vars)`` holds.

    Args:
        cond: Gives one bool.
        body: Gives the next values, of the same shapes and dtypes.
        loop_vars: The first values: a list or tuple of arrays (or of structures of them), or a single one.
        maximum_iterations: Stop after so many repetitions. In a graph the loop has a gradient only if this is given.

    Example:
        >>> while_loop(lambda n, f: n <= 5, lambda n, f: (n + 1, f * n), (1, 1.0))
        (6, 120.0)
    """
    many = isinstance(loop_vars, (list, tuple))
    start = loop_vars if many else (loop_vars,)

    def step(*values: Any) -> Any:
        found = body(*values)
        return found if many else (found,)

    if not _symbolic(start):
        values, count = start, 0
        while (maximum_iterations is None or count < maximum_iterations) and bool(to_numpy(cond(*values))):
            values, count = step(*values), count + 1
        return _like(start, values) if many else values[0]
    first = [_value(x) for x in leaves_of(start)]
    own = [leaf("input", f"c{i}", v.spec) for i, v in enumerate(first)]

    def both(variables: dict[Any, Value]) -> _Traced:
        return _trace(step, tuple(pack_like(list(start), own)), variables)

    traced, variables = _with_variables(both)
    test = _trace(cond, tuple(pack_like(list(start), own)), variables)
    if test.assigned.keys() - variables.keys():
        raise GraphError("the condition of a loop assigns to a variable", where="ops.while_loop")
    verdict = ops.astype(_value(test.result), "bool")
    _same_structure(list(traced.result), list(start), "the body", "the loop starts with")
    results = [_matching(x, v, "the body") for x, v in zip(leaves_of(list(traced.result)), first, strict=True)]
    results += [traced.assigned[v] for v in variables]
    carried = [*own, *variables.values()]
    captured = _captured([*results, verdict], carried, traced.start)
    given = while_op(
        *first, *(TRACE.get().read(v) for v in variables), *captured,
        cond=subgraph([*carried, *captured], [verdict]), body=subgraph([*carried, *captured], results),
        carried=len(carried), maximum=maximum_iterations,
    )  # fmt: skip
    found = _hand_out(given, start, list(variables))
    return found if many else found[0]


def fori_loop(
    lower: Any, upper: Any, body_fun: Callable[[Any, Any], Any], init_val: Any, maximum_iterations: int | None = None
) -> Any:
    """``value = body_fun(i, value)`` for i from ``lower`` to ``upper - 1``, beginning with ``init_val``.

    Args:
        lower, upper: Integers; in a graph they may be computed.
        body_fun: Gives the next value: an array or a structure of arrays, of the same shapes and dtypes.
        init_val: The first value.
        maximum_iterations: A bound on ``upper - lower``, needed for gradients where these are computed in a graph.

    Example:
        >>> fori_loop(0, 4, lambda i, total: total + i, 10)
        16
    """
    if not _symbolic(init_val) and not _symbolic(lower) and not _symbolic(upper):
        value = init_val
        for i in range(int(to_numpy(lower)), int(to_numpy(upper))):
            value = body_fun(i, value)
        return value
    if isinstance(lower, (int, np.integer)) and isinstance(upper, (int, np.integer)):
        if upper <= lower:
            return init_val
        value, _ = scan(lambda carry, i: (body_fun(i, carry), None), init_val, ops.arange(int(lower), int(upper)))
        return value
    begin, end = (ops.astype(_value(n), "int32") for n in (lower, upper))
    _, value = while_loop(
        lambda i, _: i < end, lambda i, value: (i + 1, body_fun(i, value)), (begin, init_val), maximum_iterations
    )
    return value


def scan(
    f: Callable[[Any, Any], tuple[Any, Any]], init: Any, xs: Any = None, length: int | None = None,
    reverse: bool = False, unroll: int = 1,
) -> tuple[Any, Any]:  # fmt: skip
    """Loop over the leading axis of ``xs`` with a state: ``state, y = f(state, x)``; the ys are stacked.

    Args:
        f: The step. Gives the next state, of the same shapes and dtypes, and a result (or None).
        init: The first state: an array or a structure of arrays.
        xs: An array or a structure of arrays, all of one length; None: ``f`` gets None.
        length: The number of steps, needed only without ``xs``.
        reverse: Whether to go from the last to the first; a result stands where its x stood.
        unroll: Kept for Keras's signature; the compilers decide.

    Returns:
        The last state, and the results stacked along a new leading axis.

    Example:
        >>> last, before = scan(lambda total, x: (total + x, total), 0.0, np.array([1.0, 2.0, 3.0]))
        >>> float(last), before.tolist()
        (6.0, [0.0, 1.0, 3.0])
    """
    count = _length(xs, length)
    if not _symbolic(init) and not _symbolic(xs):
        return _scan_now(f, init, xs, count, reverse)
    indices = [ops.arange(count)] if xs is None else [_value(x) for x in leaves_of(xs)]
    first = [_value(x) for x in leaves_of(init)]
    own = [leaf("input", f"c{i}", v.spec) for i, v in enumerate(first)]
    rows = [leaf("input", f"x{i}", v.spec.with_shape(v.shape[1:])) for i, v in enumerate(indices)]

    def step(variables: dict[Any, Value]) -> _Traced:
        return _trace(f, (pack_like(init, own), None if xs is None else pack_like(xs, rows)), variables)

    traced, variables = _with_variables(step)
    state, y = _pair(traced.result)
    _same_structure(state, init, "the step", "the loop starts with")
    results = [_matching(x, v, "the step") for x, v in zip(leaves_of(state), first, strict=True)]
    results += [traced.assigned[v] for v in variables]
    results += [_value(x) for x in leaves_of(y) if x is not None]
    carried = [*own, *variables.values()]
    captured = _captured(results, [*carried, *rows], traced.start)
    given = scan_op(
        *first, *(TRACE.get().read(v) for v in variables), *indices, *captured,
        body=subgraph([*carried, *rows, *captured], results), carried=len(carried), scanned=len(rows), reverse=reverse,
    )  # fmt: skip
    last = _hand_out(given[: len(carried)], init, list(variables))
    ys = iter(given[len(carried) :])
    return last, map_structure(lambda x: None if x is None else next(ys), y)


def map(f: Callable[[Any], Any], xs: Any) -> Any:
    """``f`` of each element along the leading axis of ``xs``, stacked.

    Args:
        f: A function of one element: an array, or a structure of arrays like ``xs``.
        xs: An array or a structure of arrays, all of one length.

    Example:
        >>> map(lambda x: x * x, np.array([1.0, 2.0, 3.0]))
        array([1., 4., 9.])
    """
    return scan(lambda state, x: (state, f(x)), (), xs)[1]


def custom_gradient(f: Callable[..., Any]) -> Callable[..., Any]:
    """A function with a gradient of your own, good on every backend.

    Args:
        f: ``f(*args)`` returns the result (an array or a tuple of them) and a function that turns what flows into the
            result into one gradient for each argument (a single one, or a tuple; None for none). What it reads
            besides its arguments gets no gradient.

    Example:
        >>> from unilayers import grad
        >>> @custom_gradient
        ... def log1pexp(x):
        ...     e = ops.exp(x)
        ...     return ops.log(1.0 + e), lambda g: g * (1.0 - 1.0 / (1.0 + e))
        >>> float(grad(log1pexp)(np.array(100.0)))  # by the usual rule it would be nan
        1.0
    """

    def call(*args: Any) -> Any:
        if not _symbolic(args):
            from unilayers.autodiff import eager_custom_gradient  # autodiff is built on ops

            return eager_custom_gradient(f, args)
        inputs = [_value(x) for x in leaves_of(args)]
        own = [leaf("input", f"x{i}", v.spec) for i, v in enumerate(inputs)]
        traced = _trace(f, tuple(pack_like(list(args), own)), {})
        y, pull = _pair(traced.result)
        results = [_value(x) for x in leaves_of(y)]
        flows = [leaf("input", f"g{i}", v.spec) for i, v in enumerate(results) if is_float(v.dtype)]
        given = iter(flows)
        found = _trace(pull, tuple(next(given) if is_float(v.dtype) else None for v in results), {}).result
        gradients = _one_each(found, own)
        inner = [v for v in _reached(results) if v not in own]
        captured = _captured([*results, *gradients], [*own, *flows], traced.start)
        read = [v for v in _frontier(gradients, {*inner, *captured}) if v.node.op != "constant" and v not in captured]
        outputs = custom_op(
            *inputs, *captured, body=subgraph([*own, *captured], [*results, *read]),
            pull=subgraph([*own, *captured, *read, *flows], [*gradients, *_no_gradients(captured)]),
            returned=len(results),
        )  # fmt: skip
        return pack_like(y, outputs[: len(results)])

    return _named(call, f)


def checkpoint(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function, that keeps nothing for its gradient but its arguments: the rest is computed again.

    Saves memory for time: a chain of n checkpointed functions keeps n values and runs each function twice.

    Args:
        function: Of arrays or structures of arrays; may read variables, and must not assign to them.

    Reference: Chen, Xu, Zhang, Guestrin, Training Deep Nets with Sublinear Memory Cost, 2016, arXiv 1604.06174.

    Example:
        >>> from unilayers import grad
        >>> block = checkpoint(lambda x: ops.sin(ops.sin(x)))
        >>> float(grad(block)(np.array(0.0)))
        1.0
    """

    def call(*args: Any) -> Any:
        if not _symbolic(args):
            from unilayers.autodiff import eager_checkpoint  # autodiff is built on ops

            return eager_checkpoint(function, args)
        inputs = [_value(x) for x in leaves_of(args)]
        own = [leaf("input", f"x{i}", v.spec) for i, v in enumerate(inputs)]
        traced = _trace(function, tuple(pack_like(list(args), own)), {})
        variables = list(traced.assigned)
        results = [_value(x) for x in leaves_of(traced.result)] + list(traced.assigned.values())
        captured = _captured(results, own, traced.start)
        outputs = checkpoint_op(*inputs, *captured, body=subgraph([*own, *captured], results))
        return _hand_out(outputs, traced.result, variables)

    return _named(call, function)


# ---- tracing ----------------------------------------------------------------


@dataclass
class _Traced:
    """What a function did while it was traced.

    Args:
        result: What it returned.
        assigned: The new values of variables.
        start: Nodes with a higher number were made by it.
    """

    result: Any
    assigned: dict[Any, Value]
    start: int


def _trace(function: Callable[..., Any], args: Sequence[Any], variables: dict[Any, Value]) -> _Traced:
    """Call a function so that it records nodes. ``variables`` are known to it by the given values."""
    trace, start = TRACE.get(), leaf("input", "start", Spec(())).node.serial
    if trace is None:
        with tracing():
            return _Traced(function(*args), {}, start)
    before, losses = dict(trace.current), len(trace.losses)
    trace.current.update(variables)
    try:
        with tracing():
            result = function(*args)
        assigned = {v: x for v, x in trace.current.items() if x is not before.get(v)}
    finally:
        trace.current.clear()
        trace.current.update(before)
    if len(trace.losses) > losses:
        del trace.losses[losses:]
        raise GraphError(
            "add_loss inside of control flow", fix="Return the loss from the branch or loop, and add it outside"
        )
    return _Traced(result, assigned, start)


def _with_variables(trace: Callable[[dict[Any, Value]], _Traced]) -> tuple[_Traced, dict[Any, Value]]:
    """Trace a loop's body, again if it assigns to variables: these are carried from step to step, too."""
    variables: dict[Any, Value] = {}
    while True:
        traced = trace(variables)
        new = [v for v in traced.assigned if v not in variables]
        if not new:
            return traced, variables
        number = len(variables)
        variables |= {v: leaf("input", f"v{number + i}", v.spec) for i, v in enumerate(new)}


def _captured(results: Sequence[Value], own: Sequence[Value], start: int) -> list[Value]:
    """The values from outside that results depend on."""
    mine, seen, found = set(own), set[Value](), dict[Value, None]()
    stack = list(results)
    while stack:
        v = stack.pop()
        if v in mine or v in seen or v.node.op == "constant":
            continue
        seen.add(v)
        if v.node.serial < start or v.node.op in ("input", "state"):
            found[v] = None
        else:
            stack.extend(v.node.inputs)
    return sorted(found, key=lambda v: (v.node.serial, v.index))


def _reached(results: Sequence[Value]) -> list[Value]:
    """Results and all they depend on."""
    seen: dict[Value, None] = {}
    stack = list(results)
    while stack:
        v = stack.pop()
        if v not in seen:
            seen[v] = None
            stack.extend(v.node.inputs)
    return list(seen)


def _frontier(results: Sequence[Value], known: set[Value]) -> list[Value]:
    """The known values that results are computed from first-hand."""
    seen, found = set[Value](), dict[Value, None]()
    stack = list(results)
    while stack:
        v = stack.pop()
        if v in seen:
            continue
        seen.add(v)
        if v in known:
            found[v] = None
        else:
            stack.extend(v.node.inputs)
    return list(found)


# ---- values and structures -----------------------------------------------------


def _symbolic(structure: Any) -> bool:
    return is_tracing() or any(isinstance(x, Value) for x in leaves_of(structure))


def _value(x: Any) -> Value:
    """Anything ops accept as a symbolic value."""
    if hasattr(x, "as_operand"):
        x = x.as_operand(None, None)
    if isinstance(x, Value):
        return x
    return constant(to_numpy(x), _weak(x) if _is_weak(x) else None)


def _first_value(column: Sequence[Any]) -> Value:
    """The one of several branches' results that decides about the dtype: a number adapts."""
    return next((_value(x) for x in column if not _is_weak(x)), _value(column[0]))


def _matching(x: Any, like: Value, who: str) -> Value:
    """A result as a value with the shape and dtype of another; a Python number takes its dtype."""
    value = constant(np.asarray(x), like.dtype) if _is_weak(x) and like.dtype != "bool" else _value(x)
    if value.spec != like.spec:
        raise ShapeError(
            f"{who} gives another shape or dtype", expected=str(like.spec), received=str(value.spec),
            fix="Use ops.astype or ops.broadcast_to, or start with what the loop computes",
        )  # fmt: skip
    return value


def _same_structure(a: Any, b: Any, who: str, whose: str) -> None:
    shape_a, shape_b = (map_structure(lambda x: None if x is None else 0, s) for s in (a, b))
    if shape_a != shape_b and not (isinstance(a, (list, tuple)) and _as_lists(shape_a) == _as_lists(shape_b)):
        raise GraphError(f"{who} gives another structure than {whose}", expected=str(shape_b), received=str(shape_a))


def _as_lists(structure: Any) -> Any:
    """Tuples and lists count as the same."""
    if isinstance(structure, (list, tuple)):
        return [_as_lists(x) for x in structure]
    return {k: _as_lists(v) for k, v in structure.items()} if isinstance(structure, dict) else structure


def _pair(result: Any) -> tuple[Any, Any]:
    if not isinstance(result, (tuple, list)) or len(result) != 2:
        raise GraphError("the function must return two things", received=type(result).__name__)
    return result[0], result[1]


def _like(structure: Any, values: Any) -> Any:
    return type(structure)(values) if isinstance(structure, (list, tuple)) else values


def _hand_out(given: Sequence[Value], structure: Any, variables: Sequence[Any]) -> Any:
    """Results in their structure; the last ones are the new values of variables."""
    values = iter(given)
    packed = map_structure(lambda x: None if x is None else next(values), structure)
    for v, x in zip(variables, values, strict=True):
        TRACE.get().assign(v, x)
    return packed


def _length(xs: Any, length: int | None) -> Any:
    lengths = [shape_of(x)[0] if len(shape_of(x)) else None for x in leaves_of(xs)] if xs is not None else []
    found = {n for n in [*lengths, length] if n is not None}
    if None in lengths or len(found) != 1:
        raise ShapeError(
            "nothing to loop over, or arrays of different lengths", where="ops.scan",
            expected="arrays with one leading size, or length", received=f"sizes {lengths}, length {length}",
        )  # fmt: skip
    return found.pop()


def _scan_now(f: Callable[..., Any], init: Any, xs: Any, count: int, reverse: bool) -> tuple[Any, Any]:
    """The loop in Python."""
    state, rows = init, []
    for t in reversed(range(count)) if reverse else range(count):
        state, y = _pair(f(state, None if xs is None else map_structure(lambda x: x[t], xs)))  # noqa: B023
        rows.append(y)
    if not rows:
        return _scan_nothing(f, init, xs)
    columns = zip(*(leaves_of(y) for y in (reversed(rows) if reverse else rows)), strict=True)
    return state, pack_like(rows[0], (None if c[0] is None else ops.stack(list(c)) for c in columns))


def _scan_nothing(f: Callable[..., Any], init: Any, xs: Any) -> tuple[Any, Any]:
    """A loop over empty arrays: the results' shapes and dtypes come from a trace of the step."""

    def symbol(x: Any, skip: int) -> Value:
        return leaf("input", "x", Spec(shape_of(x)[skip:], ops.dtype_of(x)))

    _, y = _pair(
        _trace(f, (map_structure(lambda x: symbol(x, 0), init), map_structure(lambda x: symbol(x, 1), xs)), {}).result
    )
    return init, map_structure(lambda v: None if v is None else ops.zeros((0, *shape_of(v)), ops.dtype_of(v)), y)


def _one_each(found: Any, own: Sequence[Value]) -> list[Value]:
    """One gradient for each float argument."""
    floats = [v for v in own if is_float(v.dtype)]
    given = leaves_of(found) if isinstance(found, (list, tuple, dict)) else [found]
    if len(given) == len(own) and len(own) != len(floats):
        given = [g for g, v in zip(given, own, strict=True) if is_float(v.dtype)]
    if len(given) != len(floats):
        raise GraphError(
            "wrong number of gradients",
            expected=f"{len(floats)}, one for each float argument",
            received=str(len(given)),
        )
    return [
        ops.zeros_like(v) if g is None else _matching(g, v, "the gradient") for g, v in zip(given, floats, strict=True)
    ]


def _no_gradients(captured: Sequence[Value]) -> list[Value]:
    return [ops.zeros_like(v) for v in captured if is_float(v.dtype)]


def _named(call: Callable[..., Any], function: Callable[..., Any]) -> Callable[..., Any]:
    call.__name__ = getattr(function, "__name__", "function")
    call.__doc__ = function.__doc__
    return call


__all__ = ["checkpoint", "cond", "custom_gradient", "fori_loop", "map", "scan", "switch", "while_loop"]
