"""Recurrent networks over a whole sequence, each in a pair of ops: forward and gradient.

Forward ops also return, while ``keeps`` is set, what the gradient wants of every step. These values are for that op's
eyes alone: an engine that lists both halves of a pair may put there whatever it likes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from unilayers import ops
from unilayers.errors import ShapeError
from unilayers.graph import OPS, Graph, Sample, Value, leaf, tracing
from unilayers.graph.passes import named
from unilayers.ops.bodies import backward_body, run_body
from unilayers.ops.define import composite, dtype_of, require_float, shape_of
from unilayers.spec import Spec

__all__ = ["gru", "gru_", "gru_grad_", "lstm", "lstm_", "lstm_grad_"]

# ---- what the two have in common --------------------------------------------------


def _check(x: Spec, states: Sequence[Spec], gates: int, *weights: Spec, rows: int = 1) -> None:
    """Operands that fit together; ``rows`` of biases."""
    require_float(x.dtype)
    units = states[0].shape[-1] if states[0].ndim else 0
    width = gates * units
    wanted = [(*x.shape[1:2], units)] * len(states)
    wanted += [(*x.shape[2:], width), (units, width), (width,) if rows == 1 else (rows, width)]
    received = [tuple(s.shape) for s in (*states, *weights)]
    if x.ndim != 3 or received != wanted:
        raise ShapeError(
            f"the operands do not fit x {x.shape}", expected=f"x (time, batch, features), then {wanted}",
            received=str(received), fix=f"The kernels are {gates} units wide",
        )  # fmt: skip


def _flat(x: Any) -> Any:
    """The steps and the samples along one axis."""
    steps, batch, *rest = shape_of(x)
    return ops.reshape(x, (steps * batch, *rest))


def _to_recurrent(h: Any, ys: Any, flow: Any, reverse: bool) -> Any:
    """The gradient of the recurrent kernel: the states before each step times what flows into their products."""
    first = ops.getitem(flow, -1 if reverse else 0)
    rest, after = slice(1, None), slice(None, -1)
    before, later = (rest, after) if reverse else (after, rest)
    product = ops.matmul(_turned(_flat(ops.getitem(ys, before))), _flat(ops.getitem(flow, later)))
    return product + ops.matmul(_turned(h), first)


def _turned(x: Any) -> Any:
    return ops.permute_dims(x, (1, 0))


def _sums(x: Any) -> Any:
    """Over steps and samples."""
    return ops.sum(x, (0, 1))


Expansion = Callable[..., Sequence[Any]]


def _vjp_by(forward: Callable[[], Expansion], grad: Expansion, results: int) -> Callable[..., Iterable[Any]]:
    """The rule of a forward op: the other half of its pair. Nothing flows into what is kept."""

    def vjp(g: Sequence[Any], y: Sequence[Any], *operands: Any, reverse: bool, keeps: bool) -> Iterable[Any]:
        flowing = tuple(i for i in range(results) if g[i] is not None)
        if not flowing:
            return [None] * len(operands)
        if not keeps:
            y = forward()(*operands, reverse=reverse, keeps=True)
        return grad(*operands, y[0], *y[results:], *(g[i] for i in flowing), flowing=flowing, reverse=reverse)

    return vjp


def _vjp_of_grad(expansion: Expansion, count: int, kept: int) -> Callable[..., Iterable[Any]]:
    """The rule of a gradient op, whose values that were kept are functions of the ``count`` operands before them."""

    def vjp(g: Sequence[Any], y: Sequence[Any], *operands: Any, flowing: tuple[int, ...], reverse: bool) -> Any:
        inputs, flows = operands[:count], operands[count + 1 + kept :]
        back = backward_body(_body(expansion, inputs, reverse, keeps=False), flowing)
        wanted = [i for i, x in enumerate(g) if x is not None]
        found = run_body(backward_body(back, wanted), [*inputs, *flows, *(g[i] for i in wanted)])
        return (*found[:count], *[None] * (1 + kept), *found[count:])

    return vjp


def _body(expansion: Expansion, operands: Sequence[Any], reverse: bool, keeps: bool) -> Graph:
    """The expansion as a function of its operands."""
    inputs = [leaf("input", f"x{i}", Spec(shape_of(x), dtype_of(x))) for i, x in enumerate(operands)]
    with tracing():
        results: Sequence[Value] = expansion(*inputs, reverse=reverse, keeps=keeps)
    return Graph(tuple(inputs), (), named(results))


def _arrays(rng: np.random.Generator, gates: int, states: int, rows: tuple[int, ...]) -> tuple[np.ndarray, ...]:
    steps, batch, features, units = 4, 2, 3, 2
    shapes = [(steps, batch, features), *[(batch, units)] * states, (features, gates * units)]
    return tuple(rng.normal(size=s) for s in (*shapes, (units, gates * units), (*rows, gates * units)))


def _samples(gates: int, states: int, rows: tuple[int, ...] = ()) -> Callable[..., list[Sample]]:
    return lambda rng: [
        Sample(_arrays(rng, gates, states, rows), {"reverse": reverse, "keeps": keeps})
        for reverse, keeps in ((False, True), (True, True), (False, False))
    ]


def _grad_samples(forward: str, gates: int, states: int, rows: tuple[int, ...] = ()) -> Callable[..., list[Sample]]:
    """What was kept cannot be moved by itself, so finite differences make no sense."""

    def draw(rng: np.random.Generator) -> list[Sample]:
        found = []
        for reverse, flowing in ((False, tuple(range(states + 1))), (True, (0,)), (False, (1,))):
            inputs = _arrays(rng, gates, states, rows)
            reference: Any = OPS[forward].reference
            made = reference(*inputs, reverse=reverse, keeps=True)
            flows = [rng.normal(size=made[i].shape) for i in flowing]
            operands = (*inputs, made[0], *made[states + 1 :], *flows)
            found.append(Sample(operands, {"flowing": flowing, "reverse": reverse}, False))
        return found

    return draw


def _order(steps: int, reverse: bool) -> range:
    return range(steps)[::-1] if reverse else range(steps)


def _logistic(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def _by_gate(bias: Any, values: Sequence[float]) -> Any:
    """A vector like the bias of gates, with a number for each gate. ``sigmoid(x)`` is ``tanh(x / 2) / 2 + 1 / 2``: with
    such numbers all gates take one pass."""
    parts = ops.split(bias, len(values), -1)
    return ops.concat([ops.full_like(p, v) for p, v in zip(parts, values, strict=True)], -1)


def _given(flows: Sequence[Any], flowing: Sequence[int], count: int) -> list[Any]:
    """What flows into each result; None where nothing does."""
    found: list[Any] = [None] * count
    for i, g in zip(flowing, flows, strict=True):
        found[i] = g
    return found


# ---- long short-term memory ---------------------------------------------------------

LSTM_KEPT = 6


def _lstm_infer(
    x: Spec, h: Spec, c: Spec, kernel: Spec, recurrent_kernel: Spec, bias: Spec, *, reverse: bool, keeps: bool
) -> tuple[Spec, ...]:
    _check(x, (h, c), 4, kernel, recurrent_kernel, bias)
    ys = x.with_shape((x.shape[0], *h.shape))
    return (ys, h, c, *[ys] * (LSTM_KEPT if keeps else 0))


def _lstm_reference(
    x: np.ndarray, h: np.ndarray, c: np.ndarray, kernel: np.ndarray, recurrent_kernel: np.ndarray, bias: np.ndarray,
    reverse: bool, keeps: bool,
) -> tuple[np.ndarray, ...]:  # fmt: skip
    rows: list[Any] = [None] * len(x)
    for t in _order(len(x), reverse):
        i, f, g, o = np.split(x[t] @ kernel + h @ recurrent_kernel + bias, 4, -1)
        i, f, g, o, before = _logistic(i), _logistic(f), np.tanh(g), _logistic(o), c
        c = f * c + i * g
        h = o * np.tanh(c)
        rows[t] = (h, i, f, g, o, np.tanh(c), before)
    ys, *kept = map(np.stack, zip(*rows, strict=True))
    return (ys, h, c, *(kept if keeps else ()))


def _lstm_expansion(
    x: Any, h: Any, c: Any, kernel: Any, recurrent_kernel: Any, bias: Any, *, reverse: bool, keeps: bool
) -> tuple[Any, ...]:
    scale, shift = (_by_gate(bias, values) for values in ((0.5, 0.5, 1.0, 0.5), (0.5, 0.5, 0.0, 0.5)))
    kernel, recurrent_kernel, bias = kernel * scale, recurrent_kernel * scale, bias * scale

    def step(state: tuple[Any, Any], row: Any) -> Any:
        h, before = state
        z = ops.matmul(row, kernel) + bias + ops.matmul(h, recurrent_kernel)
        i, f, g, o = ops.split(ops.tanh(z) * scale + shift, 4, -1)
        c = f * before + i * g
        unit = ops.tanh(c)
        h = o * unit
        return (h, c), (h, i, f, g, o, unit, before) if keeps else (h,)

    (h, c), (ys, *kept) = ops.scan(step, (h, c), x, reverse=reverse)
    return (ys, h, c, *kept)


def _lstm_grad_infer(*operands: Spec, flowing: tuple[int, ...], reverse: bool) -> tuple[Spec, ...]:
    _check(operands[0], operands[1:3], 4, *operands[3:6])
    return operands[:6]


def _lstm_grad_reference(
    *operands: np.ndarray, flowing: tuple[int, ...], reverse: bool
) -> tuple[np.ndarray, ...]:  # fmt: skip
    x, h, _, kernel, recurrent_kernel, bias, ys = operands[:7]
    i, f, g, o, unit, before = operands[7:13]
    to_ys, to_h, to_c = _given(operands[13:], flowing, 3)
    to_h, to_c = (np.zeros_like(h) if a is None else a for a in (to_h, to_c))
    grads = [np.zeros_like(a) for a in (x, kernel, recurrent_kernel, bias)]
    for t in _order(len(x), not reverse):
        to_h = to_h if to_ys is None else to_h + to_ys[t]
        to_c = to_c + to_h * o[t] * (1 - unit[t] ** 2)
        into_i, into_f = to_c * g[t] * i[t] * (1 - i[t]), to_c * before[t] * f[t] * (1 - f[t])
        into_g, into_o = to_c * i[t] * (1 - g[t] ** 2), to_h * unit[t] * o[t] * (1 - o[t])
        z = np.concatenate([into_i, into_f, into_g, into_o], -1)
        s = t + 1 if reverse else t - 1
        state = ys[s] if 0 <= s < len(x) else h
        for a, more in zip(grads[1:], (x[t].T @ z, state.T @ z, z.sum(0)), strict=True):
            a += more
        grads[0][t] = z @ kernel.T
        to_h, to_c = z @ recurrent_kernel.T, to_c * f[t]
    return grads[0], to_h, to_c, *grads[1:]


@composite(
    infer=_lstm_grad_infer, vjp=_vjp_of_grad(_lstm_expansion, 6, LSTM_KEPT), reference=_lstm_grad_reference,
    samples=_grad_samples("lstm", 4, 2), promotes=0,
)  # fmt: skip
def lstm_grad_(*operands: Any, flowing: tuple[int, ...] = (), reverse: bool = False) -> tuple[Any, ...]:
    """The gradient of ``lstm``: the operands are its own, the outputs ys, what it kept, and what flows into the results
    with the numbers ``flowing``. Gives a gradient for each of its own operands."""
    x, h, c, kernel, recurrent_kernel, _, ys = operands[:7]
    to_ys, to_h, to_c = _given(operands[13:], flowing, 3)
    turned = _turned(recurrent_kernel)

    def step(flow: tuple[Any, Any], row: Any) -> Any:
        to_h, to_c = flow
        i, f, g, o, unit, before, *more = row
        to_h = to_h + more[0] if more else to_h
        to_c = to_c + to_h * (o * (1.0 - unit * unit))
        into_i, into_f = to_c * (g * i * (1.0 - i)), to_c * (before * f * (1.0 - f))
        into_g, into_o = to_c * (i * (1.0 - g * g)), to_h * (unit * o * (1.0 - o))
        z = ops.concat([into_i, into_f, into_g, into_o], -1)
        return (ops.matmul(z, turned), to_c * f), z

    start = tuple(ops.zeros_like(s) if a is None else a for a, s in ((to_h, h), (to_c, c)))
    rows = (*operands[7:13], *(() if to_ys is None else (to_ys,)))
    (to_h, to_c), z = ops.scan(step, start, rows, reverse=not reverse)
    to_x = ops.reshape(ops.matmul(_flat(z), _turned(kernel)), shape_of(x))
    to_kernel = ops.matmul(_turned(_flat(x)), _flat(z))
    return to_x, to_h, to_c, to_kernel, _to_recurrent(h, ys, z, reverse), _sums(z)


@composite(
    infer=_lstm_infer, vjp=_vjp_by(lambda: lstm_, lstm_grad_, 3), reference=_lstm_reference,
    samples=_samples(4, 2), promotes=0, kept=LSTM_KEPT,
)  # fmt: skip
def lstm_(
    x: Any, h: Any, c: Any, kernel: Any, recurrent_kernel: Any, bias: Any, *, reverse: bool = False, keeps: bool = True
) -> tuple[Any, ...]:
    """The outputs of all steps, the last states, and what the gradient wants. See ``lstm``."""
    return _lstm_expansion(x, h, c, kernel, recurrent_kernel, bias, reverse=reverse, keeps=keeps)


def lstm(
    x: Any, h: Any, c: Any, kernel: Any, recurrent_kernel: Any, bias: Any, *, reverse: bool = False
) -> tuple[Any, Any, Any]:
    """Long short-term memory over a sequence: ``i, f, o = sigmoid``, ``g = tanh`` of ``x @ kernel + h @
    recurrent_kernel + bias``; ``c' = f * c + i * g``; ``h' = o * tanh(c')``.

    Shapes: x ``(time, batch, features)``; h, c ``(batch, units)``; kernel ``(features, 4 * units)``, recurrent_kernel
    ``(units, 4 * units)`` and bias ``(4 * units,)`` with the gates i, f, g, o in this order -> the outputs of all steps
    ``(time, batch, units)``, h, c.

    Args:
        x: The sequence, with time first.
        h: The output before the first step.
        c: The cell's state before it.
        kernel: Weights from the input to the gates.
        recurrent_kernel: Weights from the output of the step before.
        bias: Added to the gates.
        reverse: Whether to go from the last step to the first; an output stands where its input stood.

    Raises:
        ShapeError: if the operands do not fit together.

    Reference:
        Hochreiter and Schmidhuber, Long short-term memory, 1997.

    Example:
        >>> x, state = np.ones((5, 1, 2)), np.zeros((1, 1))
        >>> ys, h, c = lstm(x, state, state, np.ones((2, 4)), np.ones((1, 4)), np.zeros(4))
        >>> ys.shape, bool((ys[-1] == h).all())
        ((5, 1, 1), True)
    """
    return tuple(lstm_(x, h, c, kernel, recurrent_kernel, bias, reverse=reverse)[:3])


# ---- gated recurrent unit -----------------------------------------------------------

GRU_KEPT = 5


def _gru_infer(
    x: Spec, h: Spec, kernel: Spec, recurrent_kernel: Spec, bias: Spec, *, reverse: bool, keeps: bool
) -> tuple[Spec, ...]:
    _check(x, (h,), 3, kernel, recurrent_kernel, bias, rows=2)
    ys = x.with_shape((x.shape[0], *h.shape))
    return (ys, h, *[ys] * (GRU_KEPT if keeps else 0))


def _gru_reference(
    x: np.ndarray, h: np.ndarray, kernel: np.ndarray, recurrent_kernel: np.ndarray, bias: np.ndarray, reverse: bool,
    keeps: bool,
) -> tuple[np.ndarray, ...]:  # fmt: skip
    rows: list[Any] = [None] * len(x)
    for t in _order(len(x), reverse):
        a, b = np.split(x[t] @ kernel + bias[0], 3, -1), np.split(h @ recurrent_kernel + bias[1], 3, -1)
        z, r, inner = _logistic(a[0] + b[0]), _logistic(a[1] + b[1]), b[2]
        n = np.tanh(a[2] + r * inner)
        apart = h - n
        h = n + z * apart
        rows[t] = (h, z, r, n, inner, apart)
    ys, *kept = map(np.stack, zip(*rows, strict=True))
    return (ys, h, *(kept if keeps else ()))


def _gru_expansion(
    x: Any, h: Any, kernel: Any, recurrent_kernel: Any, bias: Any, *, reverse: bool, keeps: bool
) -> tuple[Any, ...]:
    both = 2 * shape_of(h)[-1]
    scale = _by_gate(ops.getitem(bias, 0), (0.5, 0.5, 1.0))
    kernel, recurrent_kernel, bias = kernel * scale, recurrent_kernel * scale, bias * scale
    outer, within = ops.getitem(bias, 0), ops.getitem(bias, 1)

    def step(h: Any, row: Any) -> Any:
        a, b = ops.matmul(row, kernel) + outer, ops.matmul(h, recurrent_kernel) + within
        gates = ops.tanh(ops.getitem(a, (..., slice(both))) + ops.getitem(b, (..., slice(both)))) * 0.5 + 0.5
        z, r = ops.split(gates, 2, -1)
        inner = ops.getitem(b, (..., slice(both, None)))
        n = ops.tanh(ops.getitem(a, (..., slice(both, None))) + r * inner)
        apart = h - n
        h = n + z * apart
        return h, (h, z, r, n, inner, apart) if keeps else (h,)

    h, (ys, *kept) = ops.scan(step, h, x, reverse=reverse)
    return (ys, h, *kept)


def _gru_grad_infer(*operands: Spec, flowing: tuple[int, ...], reverse: bool) -> tuple[Spec, ...]:
    _check(operands[0], operands[1:2], 3, *operands[2:5], rows=2)
    return operands[:5]


def _gru_grad_reference(
    *operands: np.ndarray, flowing: tuple[int, ...], reverse: bool
) -> tuple[np.ndarray, ...]:  # fmt: skip
    x, h, kernel, recurrent_kernel, bias, ys = operands[:6]
    z, r, n, inner, _ = operands[6:11]
    to_ys, to_h = _given(operands[11:], flowing, 2)
    to_h = np.zeros_like(h) if to_h is None else to_h
    grads = [np.zeros_like(a) for a in (x, kernel, recurrent_kernel, bias)]
    for t in _order(len(x), not reverse):
        to_h = to_h if to_ys is None else to_h + to_ys[t]
        s = t + 1 if reverse else t - 1
        state = ys[s] if 0 <= s < len(x) else h
        into_n = to_h * (1 - z[t]) * (1 - n[t] ** 2)
        into_z, into_r = to_h * (state - n[t]) * z[t] * (1 - z[t]), into_n * inner[t] * r[t] * (1 - r[t])
        a = np.concatenate([into_z, into_r, into_n], -1)
        b = np.concatenate([into_z, into_r, into_n * r[t]], -1)
        for total, more in zip(grads[1:], (x[t].T @ a, state.T @ b, [a.sum(0), b.sum(0)]), strict=True):
            total += more
        grads[0][t] = a @ kernel.T
        to_h = b @ recurrent_kernel.T + to_h * z[t]
    return grads[0], to_h, *grads[1:]


@composite(
    infer=_gru_grad_infer, vjp=_vjp_of_grad(_gru_expansion, 5, GRU_KEPT), reference=_gru_grad_reference,
    samples=_grad_samples("gru", 3, 1, (2,)), promotes=0,
)  # fmt: skip
def gru_grad_(*operands: Any, flowing: tuple[int, ...] = (), reverse: bool = False) -> tuple[Any, ...]:
    """The gradient of ``gru``: the operands are its own, the outputs ys, what it kept, and what flows into the results
    with the numbers ``flowing``. Gives a gradient for each of its own operands."""
    x, h, kernel, recurrent_kernel, _, ys = operands[:6]
    to_ys, to_h = _given(operands[11:], flowing, 2)
    turned = _turned(recurrent_kernel)

    def step(to_h: Any, row: Any) -> Any:
        z, r, n, inner, apart, *more = row
        to_h = to_h + more[0] if more else to_h
        into_n = to_h * ((1.0 - z) * (1.0 - n * n))
        into_z, into_r = to_h * (apart * z * (1.0 - z)), into_n * (inner * r * (1.0 - r))
        b = ops.concat([into_z, into_r, into_n * r], -1)
        return to_h * z + ops.matmul(b, turned), (b, into_n)

    start = ops.zeros_like(h) if to_h is None else to_h
    rows = (*operands[6:11], *(() if to_ys is None else (to_ys,)))
    to_h, (b, into_n) = ops.scan(step, start, rows, reverse=not reverse)
    both = 2 * shape_of(h)[-1]
    gates, candidate = (..., slice(both)), (..., slice(both, None))
    parts = (_flat(ops.getitem(b, gates)), _flat(into_n))  # of the input's products
    kernels = (ops.getitem(kernel, gates), ops.getitem(kernel, candidate))
    to_x = ops.add(*(ops.matmul(p, _turned(k)) for p, k in zip(parts, kernels, strict=True)))
    turned_x, within = _turned(_flat(x)), _sums(b)
    to_kernel = ops.concat([ops.matmul(turned_x, p) for p in parts], -1)
    to_bias = ops.stack([ops.concat([ops.getitem(within, gates), _sums(into_n)], -1), within])
    return ops.reshape(to_x, shape_of(x)), to_h, to_kernel, _to_recurrent(h, ys, b, reverse), to_bias


@composite(
    infer=_gru_infer, vjp=_vjp_by(lambda: gru_, gru_grad_, 2), reference=_gru_reference,
    samples=_samples(3, 1, (2,)), promotes=0, kept=GRU_KEPT,
)  # fmt: skip
def gru_(
    x: Any, h: Any, kernel: Any, recurrent_kernel: Any, bias: Any, *, reverse: bool = False, keeps: bool = True
) -> tuple[Any, ...]:
    """The outputs of all steps, the last state, and what the gradient wants. See ``gru``."""
    return _gru_expansion(x, h, kernel, recurrent_kernel, bias, reverse=reverse, keeps=keeps)


def gru(
    x: Any, h: Any, kernel: Any, recurrent_kernel: Any, bias: Any, *, reverse: bool = False
) -> tuple[Any, Any]:  # fmt: skip
    """Gated recurrent units over a sequence: ``a = x @ kernel + bias[0]``, ``b = h @ recurrent_kernel + bias[1]``;
    ``z, r = sigmoid(a + b)`` of the first two gates, ``n = tanh(a + r * b)`` of the third; ``h' = z * h + (1 - z) *
    n``.

    Shapes: x ``(time, batch, features)``; h ``(batch, units)``; kernel ``(features, 3 * units)``, recurrent_kernel
    ``(units, 3 * units)`` and bias ``(2, 3 * units)`` with the gates z, r, n in this order -> the outputs of all steps
    ``(time, batch, units)``, h.

    Args:
        x: The sequence, with time first.
        h: The state before the first step.
        kernel: Weights from the input to the gates.
        recurrent_kernel: Weights from the state to the gates.
        bias: Added to the one and to the other product.
        reverse: Whether to go from the last step to the first; an output stands where its input stood.

    Raises:
        ShapeError: if the operands do not fit together.

    Reference:
        Cho et al., Learning phrase representations using RNN encoder-decoder, 2014, arXiv:1406.1078.

    Example:
        >>> ys, h = gru(np.ones((5, 1, 2)), np.zeros((1, 1)), np.ones((2, 3)), np.ones((1, 3)), np.zeros((2, 3)))
        >>> ys.shape, bool((ys[-1] == h).all())
        ((5, 1, 1), True)
    """
    return tuple(gru_(x, h, kernel, recurrent_kernel, bias, reverse=reverse)[:2])
