"""Recurrent networks: oneDNN's kernels of a whole LSTM, and loops of few calls that write where their results belong.

What a forward op keeps for its gradient is in a form of its own here. Where neither applies, the op's expansion runs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import lru_cache, wraps
from typing import Any

import torch
from torch import Tensor

from unilayers.backend import get_backend
from unilayers.graph import OPS, leaf, tracing
from unilayers.ops.define import runnable, spec_of
from unilayers.spec import Spec

Results = tuple[Tensor, ...]


@lru_cache(maxsize=256)
def _expansion(name: str, device: str, specs: tuple[Spec, ...], attrs: tuple[tuple[str, Any], ...]) -> Any:
    """What an op expands to, as a function of a list of tensors."""
    leaves = [leaf("input", f"x{i}", s) for i, s in enumerate(specs)]
    with tracing():
        outputs = OPS[name].expand(*leaves, **dict(attrs))  # type: ignore[misc]
    return runnable(leaves, outputs, (get_backend("torch"), device))


def _where(applies: Callable[..., bool]) -> Callable[[Callable[..., Results]], Callable[..., Results]]:
    """Make a function the one of the op with its name where ``applies(*operands)`` holds, on arrays without autograd;
    elsewhere its expansion runs."""

    def decorate(function: Callable[..., Results]) -> Callable[..., Results]:
        @wraps(function)
        def call(*operands: Tensor, **attrs: Any) -> Results:
            plain = torch.is_inference_mode_enabled() or not any(x.requires_grad for x in operands)
            if plain and operands[0].numel() and applies(*operands):
                return function(*operands, **attrs)
            name, device = function.__name__, str(operands[0].device)
            found = _expansion(name, device, tuple(map(spec_of, operands)), tuple(attrs.items()))
            return tuple(found(operands))

        return call

    return decorate


# ---- long short-term memory: oneDNN ---------------------------------------------------

_LSTM, _KEPT, _MARK = 2, "kept_by_onednn", torch.finfo(torch.float32).max


def _for_onednn(x: Tensor, *operands: Tensor) -> bool:
    return x.is_cpu and x.dtype == torch.float32 and torch.backends.mkldnn.is_available()


def _given(x: Tensor, h: Tensor, c: Tensor, kernel: Tensor, recurrent_kernel: Tensor, bias: Tensor) -> list[Tensor]:
    """Operands as oneDNN takes them: weights with the gates first, and a second bias."""
    weights = [kernel.t().contiguous(), recurrent_kernel.t().contiguous(), bias, torch.zeros_like(bias)]
    return [x.contiguous(), *weights, h.contiguous()[None], c.contiguous()[None]]


@_where(_for_onednn)
def lstm(
    x: Tensor, h: Tensor, c: Tensor, kernel: Tensor, recurrent_kernel: Tensor, bias: Tensor, reverse: bool, keeps: bool
) -> Results:
    """The outputs, the states, and tensors that bear what oneDNN keeps: of a number by which copies of them are known,
    and which is no NaN, as somebody may look for the first NaN of a step."""
    operands = _given(x, h, c, kernel, recurrent_kernel, bias)
    with torch.enable_grad() if keeps else nullcontext():  # aten keeps something only where autograd could want it
        ys, last, cell, workspace = torch.ops.aten.mkldnn_rnn_layer(
            *operands, reverse, [], _LSTM, h.shape[-1], 1, True, False, False, keeps
        )
    if not keeps:
        return ys, last[0], cell[0]
    mark = torch.full((), _MARK).expand(ys.shape)
    setattr(mark, _KEPT, (last, cell, workspace))
    return ys, last[0], cell[0], *[mark] * OPS["lstm"].kept


def _kept_by_onednn(*operands: Tensor) -> bool:
    kept = operands[7]
    return hasattr(kept, _KEPT) or (_for_onednn(kept) and kept[0, 0, 0].item() == _MARK)


@_where(_kept_by_onednn)
def lstm_grad(*operands: Tensor, flowing: Sequence[int], reverse: bool) -> Results:
    """Of copies of what was kept, the forward pass is run again."""
    if not hasattr(operands[7], _KEPT):
        operands = (*operands[:7], lstm(*operands[:6], reverse=reverse, keeps=True)[3], *operands[8:])
    ys, (last, cell, workspace) = operands[6].contiguous(), getattr(operands[7], _KEPT)
    flows = [torch.zeros_like(a) for i, a in enumerate((ys, last, cell)) if i not in flowing]
    for i, g in zip(flowing, operands[7 + OPS["lstm"].kept :], strict=True):
        flows.insert(i, g.contiguous() if i == 0 else g.contiguous()[None])
    to_x, to_kernel, to_recurrent, to_bias, _, to_h, to_c = torch.ops.aten.mkldnn_rnn_layer_backward(
        *_given(*operands[:6]),
        ys,
        last,
        cell,
        *flows,
        reverse,
        _LSTM,
        ys.shape[-1],
        1,
        True,
        True,
        False,
        [],
        False,
        workspace,
    )
    return to_x, to_h[0], to_c[0], to_kernel.t(), to_recurrent.t(), to_bias


# ---- gated recurrent unit ---------------------------------------------------------------


def _always(*operands: Tensor) -> bool:
    return True


def _steps(x: Tensor, reverse: bool) -> Any:
    """The slices of an array along time, in the order of the loop."""
    rows = x.unbind()
    return rows[::-1] if reverse else rows


@_where(_always)
def gru(
    x: Tensor, h: Tensor, kernel: Tensor, recurrent_kernel: Tensor, bias: Tensor, reverse: bool, keeps: bool
) -> Results:
    (steps, batch, _), both = x.shape, 2 * h.shape[-1]
    outer, within = bias.unbind()
    plain = torch.cat([outer[:both] + within[:both], outer[both:]])
    a = torch.addmm(plain, x.reshape(steps * batch, -1), kernel).view(steps, batch, -1)
    gates, inner, n = a[..., :both], a[..., both:], a[..., both:].contiguous()
    inner.copy_(within[both:])  # so that the products with the state are added in place
    z, r = gates.chunk(2, -1)
    ys = x.new_empty(n.shape)
    rows = [_steps(v, reverse) for v in (a, gates, z, r, inner, n, ys)]
    for whole, both_t, z_t, r_t, inner_t, n_t, y in zip(*rows, strict=True):
        whole.addmm_(h, recurrent_kernel)
        both_t.sigmoid_()
        torch.addcmul(n_t, r_t, inner_t, out=n_t).tanh_()
        h = torch.lerp(n_t, h, z_t, out=y)
    kept = (z, r, n, inner, n) if keeps else ()  # the last one is not read
    return ys, h.clone(), *kept


@_where(_always)
def gru_grad(*operands: Tensor, flowing: Sequence[int], reverse: bool) -> Results:
    """All that does not depend on what flows is computed for all steps at once."""
    x, h, kernel, recurrent_kernel, _, ys, z, r, n, inner, _ = operands[:11]
    flows = dict(zip(flowing, operands[11:], strict=True))
    steps, batch, units = ys.shape
    before = torch.cat([ys[1:], h[None]] if reverse else [h[None], ys[:-1]])
    slopes = x.new_empty(steps, batch, 3, units)  # by which what flows into h goes on to z, r and the inner n
    rest = 1 - z
    torch.mul((before - n).mul_(z), rest, out=slopes[..., 0, :])
    to_n = rest.mul_(1 - n * n)
    torch.mul(to_n, r, out=slopes[..., 2, :])
    torch.mul((1 - r).mul_(inner), slopes[..., 2, :], out=slopes[..., 1, :])
    flow, into = x.new_empty(steps, batch, units), x.new_empty(steps, batch, 3, units)
    more = _steps(flows[0], not reverse) if 0 in flows else [None] * steps
    to_h = flows[1] if 1 in flows else torch.zeros_like(h)
    turned, part = recurrent_kernel.t(), torch.empty_like(h)
    rows = [_steps(v, not reverse) for v in (flow, z, slopes, into, into.view(steps, batch, -1))]
    for g, total, gate, slope, split, whole in zip(more, *rows, strict=True):
        if g is None:
            total.copy_(to_h)
        else:
            torch.add(to_h, g, out=total)
        torch.mul(slope, total[:, None], out=split)
        to_h = torch.addmm(torch.mul(total, gate, out=part), whole, turned)
    b = into.view(steps * batch, -1)
    to_within, to_recurrent = b.sum(0), before.view(steps * batch, -1).t() @ b
    torch.mul(flow, to_n, out=into[..., 2, :])  # from here on what flows into the products with x
    to_kernel = x.reshape(steps * batch, -1).t() @ b
    return (b @ kernel.t()).view(x.shape), to_h, to_kernel, to_recurrent, torch.stack([b.sum(0), to_within])
