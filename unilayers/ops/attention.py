"""Attention: values weighted by how well their keys answer a query."""

from __future__ import annotations

from typing import Any

import numpy as np

from unilayers import ops
from unilayers.graph import Sample
from unilayers.ops.define import composite, dtype_of, shape_of

__all__ = ["attention", "attention_grad", "attention_weights"]


def _large(dtype: str) -> float:
    """Taken from a score it leaves nothing of its weight, in every float dtype."""
    return 3e4 if dtype == "float16" else 1e9


def attention_weights(scores: Any, mask: Any = None) -> Any:
    """Softmax over the last axis; where ``mask`` (bools that stretch to the scores) is False the weight is 0. A row
    without any True gets equal weights."""
    if mask is not None:
        scores = ops.where(mask, scores, -_large(dtype_of(scores)))
    return ops.softmax(scores, axis=-1)


def causal_mask(queries: Any, keys: Any, like: Any) -> Any:
    """Bools of shape (queries, keys): a query sees the keys up to its own place."""
    rows, columns = (ops.arange(n, like=like) for n in (queries, keys))
    return ops.greater_equal(ops.expand_dims(rows, 1), columns)


def _reference_weights(
    query: np.ndarray, key: np.ndarray, mask: tuple[np.ndarray, ...], scale: float | None, causal: bool
) -> np.ndarray:
    scores = np.einsum("...td,...sd->...ts", query, key) * (query.shape[-1] ** -0.5 if scale is None else scale)
    allowed = np.ones(scores.shape[-2:], bool)
    allowed = np.tril(allowed) if causal else allowed
    allowed = np.broadcast_to(allowed & mask[0] if mask else allowed, scores.shape)
    weights = np.where(allowed, np.exp(scores - scores.max(-1, keepdims=True)), 0)
    return weights / weights.sum(-1, keepdims=True)


def _reference(
    query: np.ndarray, key: np.ndarray, value: np.ndarray, *mask: np.ndarray, scale: float | None = None,
    causal: bool = False,
) -> np.ndarray:  # fmt: skip
    return np.einsum("...ts,...sd->...td", _reference_weights(query, key, mask, scale, causal), value)


def _grad_reference(
    g: np.ndarray, query: np.ndarray, key: np.ndarray, value: np.ndarray, *mask: np.ndarray,
    scale: float | None = None, causal: bool = False,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # fmt: skip
    """By the matrix of derivatives of each row of weights."""
    weights = _reference_weights(query, key, mask, scale, causal)
    slopes = np.einsum("...ts,su->...tsu", weights, np.eye(weights.shape[-1]))
    slopes = slopes - np.einsum("...ts,...tu->...tsu", weights, weights)
    flow = np.einsum("...te,...ue,...tsu->...ts", g, value, slopes)
    flow = flow * (query.shape[-1] ** -0.5 if scale is None else scale)
    return (
        np.einsum("...ts,...sd->...td", flow, key), np.einsum("...ts,...td->...sd", flow, query),
        np.einsum("...ts,...te->...se", weights, g),
    )  # fmt: skip


def _samples(rng: np.random.Generator) -> list[Sample]:
    q, k, v = rng.normal(size=(2, 3, 4)), rng.normal(size=(2, 5, 4)), rng.normal(size=(2, 5, 3))
    mask = np.array([[1, 1, 0, 1, 0], [0, 1, 1, 0, 1], [1, 0, 0, 1, 1]], bool)
    heads = [rng.normal(size=(2, 2, n, 4)) for n in (3, 5, 5)]
    return [
        Sample((q, k, v)), Sample((q, k, v, mask), {"scale": 0.7}), Sample((q, k, v), {"causal": True}),
        Sample((q[0], k[0], v[0], mask), {"scale": 1.0}), Sample((*heads,)), Sample((*heads,), {"causal": True}),
        Sample((*heads, mask)), Sample((*heads, mask | (np.arange(5) == 0)), {"causal": True}),
    ]  # fmt: skip


def _grad_samples(rng: np.random.Generator) -> list[Sample]:
    return [
        Sample((rng.normal(size=_reference(*s.inputs, **s.attrs).shape), *s.inputs), s.attrs) for s in _samples(rng)
    ]


def _parts(
    query: Any, key: Any, mask: tuple[Any, ...], scale: float | None, causal: bool
) -> tuple[Any, float, Any, Any]:
    """The scaled queries, the scale, what may be seen (None: everything) and the weights."""
    scale = shape_of(query)[-1] ** -0.5 if scale is None else scale  # type: ignore[operator]
    scaled = ops.multiply(query, scale)
    scores = ops.matmul(scaled, ops.matrix_transpose(key))
    allowed = mask[0] if mask else None
    if causal:
        seen = causal_mask(shape_of(query)[-2], shape_of(key)[-2], scores)
        allowed = seen if allowed is None else ops.logical_and(seen, allowed)
    return scaled, scale, allowed, attention_weights(scores, allowed)


def _vjp(g: Any, y: Any, query: Any, key: Any, value: Any, *mask: Any, **attrs: Any) -> tuple[Any, ...]:
    return (*ops.attention_grad(g, query, key, value, *mask, **attrs), *(None for _ in mask))


@composite(vjp=_vjp, reference=_reference, samples=_samples)
def attention(query: Any, key: Any, value: Any, *mask: Any, scale: float | None = None, causal: bool = False) -> Any:
    """``softmax(query @ key^T * scale) @ value``, over the last two axes.

    Shapes: query ``(..., T, D)``, key ``(..., S, D)``, value ``(..., S, E)``, mask of bools that stretches to
    ``(..., T, S)`` -> ``(..., T, E)``. ``scale`` is ``1 / sqrt(D)`` if None; with ``causal`` a query sees no later key.

    Reference: Vaswani et al., Attention is all you need, 2017, arXiv:1706.03762.
    """
    *_, weights = _parts(query, key, mask, scale, causal)
    return ops.matmul(weights, value)


@composite(reference=_grad_reference, samples=_grad_samples)
def attention_grad(
    g: Any, query: Any, key: Any, value: Any, *mask: Any, scale: float | None = None, causal: bool = False
) -> tuple[Any, Any, Any]:
    """The gradients of ``attention`` to query, key and value, from that of its result; operands that were stretched
    get the gradients of what they were stretched to."""
    scaled, scale, allowed, weights = _parts(query, key, mask, scale, causal)
    flow = ops.softmax_grad(ops.matmul(g, ops.matrix_transpose(value)), weights, axis=len(shape_of(weights)) - 1)
    if allowed is not None:
        flow = ops.where(allowed, flow, 0.0)
    return (
        ops.multiply(ops.matmul(flow, key), scale), ops.matmul(ops.matrix_transpose(flow), scaled),
        ops.matmul(ops.matrix_transpose(weights), g),
    )  # fmt: skip
