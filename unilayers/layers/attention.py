"""Attention layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from unilayers import constraints, ops
from unilayers.constraints import Constraint
from unilayers.errors import ShapeError, UnilayersError
from unilayers.hints import PositiveInt, Probability
from unilayers.initializers import InitializerLike
from unilayers.layers.affine import RegularizerLike, penalise
from unilayers.layers.base import Layer
from unilayers.layers.core import EinsumDense
from unilayers.ops.attention import attention_weights, causal_mask
from unilayers.ops.define import mask_of
from unilayers.random import Seed

ConstraintLike = Constraint | str | Mapping[str, Any] | None

# ---- heads ------------------------------------------------------------------


class _Heads(Layer, abstract=True):
    """Base of layers that attend with several heads."""

    supports_masking: ClassVar[bool] = True

    if TYPE_CHECKING:
        query_dense: Any
        key_dense: Any
        value_dense: Any
        gate_dense: Any

    def _project(self: Any, name: str, shape: Any, equation: str, output: Sequence[int], bias_axes: str) -> Layer:
        """A dense layer over some axes, as a part of this layer and with its initializers and so on."""
        shared = {
            f"{part}_{kind}": getattr(self, f"{part}_{kind}")
            for part in ("kernel", "bias") for kind in ("initializer", "regularizer")
        }  # fmt: skip
        bias = bias_axes if self.use_bias else None
        layer = EinsumDense(equation, output, bias_axes=bias, name=name, dtype=self.dtype_policy, **shared)
        layer.build(shape)
        layer.built = True
        layer.kernel.constraint = constraints.get(self.kernel_constraint)
        if layer.bias is not None:
            layer.bias.constraint = constraints.get(self.bias_constraint)
        return layer

    def _allowed(
        self, query: Any, value: Any, given: Mapping[str, Any], attention_mask: Any, causal: bool, window: int | None
    ) -> Any:
        """All masks together, of a shape that stretches to ``(batch, T, S)``; None if everything may be seen."""
        found = [] if attention_mask is None else [ops.astype(attention_mask, "bool")]
        for name, axis in (("query_mask", -1), ("value_mask", -2), ("key_mask", -2)):
            if given.get(name) is not None:
                found.append(ops.expand_dims(ops.astype(given[name], "bool"), axis))
        rows, columns = ops.shape_of(query)[1], ops.shape_of(value)[1]
        if causal and (found or window):
            found.append(causal_mask(rows, columns, query))
        if window:
            places = [ops.arange(n, like=query) for n in (rows, columns)]
            distance = ops.abs(ops.subtract(ops.expand_dims(places[0], 1), places[1]))
            found.append(ops.less(distance, window))
        allowed = None
        for mask in found:
            allowed = mask if allowed is None else ops.logical_and(allowed, mask)
        return allowed

    def _attend(
        self: Any, q: Any, k: Any, v: Any, allowed: Any, causal: bool, scale: float, dropout: float, want_weights: bool
    ) -> tuple[Any, Any]:
        """Heads first: q ``(batch, heads, T, D)``, k and v ``(batch, heads, S, D)``. Gives the weights, too, if they
        are wanted or dropped."""
        if allowed is not None:
            extra = len(ops.shape_of(q)) - len(ops.shape_of(allowed))
            at = 0 if len(ops.shape_of(allowed)) == 2 else 1
            for _ in range(extra):
                allowed = ops.expand_dims(allowed, at)
        if not want_weights and not dropout:
            masks = () if allowed is None else (allowed,)
            return ops.attention(q, k, v, *masks, scale=scale, causal=causal and allowed is None), None
        if causal and allowed is None:
            allowed = causal_mask(ops.shape_of(q)[-2], ops.shape_of(k)[-2], q)
        scores = ops.matmul(ops.multiply(q, scale), ops.matrix_transpose(k))
        weights = attention_weights(scores, allowed)
        used = weights
        if dropout:
            counter, key = self.next_random(self.seed)
            used = ops.dropout(weights, counter, rate=dropout, key=key)
        return ops.matmul(used, v), weights

    def _penalise(self: Any, y: Any) -> None:
        penalise(self, y, self.activity_regularizer)

    def compute_mask(self, inputs: Any, previous_mask: Any) -> Any:
        return previous_mask


def _masks(given: Mapping[str, Any], **inputs: Any) -> dict[str, Any]:
    """The masks that were passed, or else travel on the inputs."""
    return {f"{n}_mask": mask_of(x) if given[f"{n}_mask"] is None else given[f"{n}_mask"] for n, x in inputs.items()}


class MultiHeadAttention(_Heads):
    """Several heads, each of which attends from the queries to the values by projections of its own.

    Shapes: query ``(batch, T, features)``, value and key ``(batch, S, features)`` -> ``(batch, T, output)``, and with
    ``return_attention_scores`` weights ``(batch, heads, T, S)``. More axes between batch and features are attended over
    together, or only those in ``attention_axes``.

    Args:
        num_heads: How many heads.
        key_dim: Width of each head's queries and keys.
        value_dim: Width of each head's values; ``key_dim`` if None.
        dropout: Share of the weights to drop, in training.
        use_bias: Whether the projections have biases.
        output_shape: Sizes of the output's last axes; the query's width if None.
        attention_axes: Axes to attend over; all between batch and features if None.
        sliding_window: A query sees keys less than so many places away; None for all.
        flash_attention: Kept for Keras's signature; a backend decides by itself.
        kernel_initializer: Initial values of the projections.
        bias_initializer: Initial values of their biases.
        kernel_regularizer: Penalty on the projections.
        bias_regularizer: Penalty on their biases.
        activity_regularizer: Penalty on the output.
        kernel_constraint: Constraint on the projections.
        bias_constraint: Constraint on their biases.
        use_gate: Whether a sigmoid gate of the query multiplies what is attended to.
        seed: Seed of the dropped weights; the model's if None.

    Reference:
        Vaswani et al., Attention is all you need, 2017, arXiv:1706.03762.

    Example:
        >>> import numpy as np
        >>> x = np.ones((2, 5, 8), "float32")
        >>> MultiHeadAttention(num_heads=2, key_dim=4)(x, x).shape
        (2, 5, 8)
    """

    num_heads: PositiveInt
    key_dim: PositiveInt
    value_dim: PositiveInt | None = None
    dropout: Probability = 0.0
    use_bias: bool = True
    output_shape: PositiveInt | Sequence[PositiveInt] | None = None
    attention_axes: int | Sequence[int] | None = None
    sliding_window: PositiveInt | None = None
    flash_attention: bool | None = None
    kernel_initializer: InitializerLike = "glorot_uniform"
    bias_initializer: InitializerLike = "zeros"
    kernel_regularizer: RegularizerLike = None
    bias_regularizer: RegularizerLike = None
    activity_regularizer: RegularizerLike = None
    kernel_constraint: ConstraintLike = None
    bias_constraint: ConstraintLike = None
    use_gate: bool = False
    seed: Seed = None

    def build(self, query_shape: Any, value_shape: Any = None, key_shape: Any = None) -> None:
        value_shape = query_shape if value_shape is None else value_shape
        key_shape = value_shape if key_shape is None else key_shape
        heads, wide = self.num_heads, self.value_dim or self.key_dim
        wanted = self.output_shape
        output = (query_shape[-1],) if wanted is None else (wanted,) if isinstance(wanted, int) else tuple(wanted)
        letters = "xyz"[: len(output)]
        batch = [None] * (len(query_shape) - 1)
        gate = [("gate", query_shape, wide)] if self.use_gate else []
        for name, shape, width in (
            ("query", query_shape, self.key_dim), ("key", key_shape, self.key_dim), *gate, ("value", value_shape, wide),
        ):  # fmt: skip
            setattr(self, f"{name}_dense", self._project(name, shape, "...d,dnh->...nh", (heads, width), "nh"))
        equation = f"...nh,nh{letters}->...{letters}"
        self.output_dense = self._project("attention_output", (*batch, heads, wide), equation, output, letters)
        if self.dropout:
            self.random_counter()

    def call(
        self, query: Any, value: Any, key: Any = None, query_mask: Any = None, value_mask: Any = None,
        key_mask: Any = None, attention_mask: Any = None, return_attention_scores: bool = False,
        training: bool = False, use_causal_mask: bool = False,
    ) -> Any:  # fmt: skip
        own_key = key is not None
        key = value if key is None else key
        given = {"query_mask": query_mask, "value_mask": value_mask, "key_mask": key_mask}
        masks = _masks(given, query=query, value=value, **({"key": key} if own_key else {}))
        q, k, v = self.query_dense(query), self.key_dense(key), self.value_dense(value)
        gate = ops.sigmoid(self.gate_dense(query)) if self.use_gate else None
        if len(ops.shape_of(query)) == 3:
            allowed = self._allowed(query, value, masks, attention_mask, use_causal_mask, self.sliding_window)
        else:
            allowed = attention_mask
        y, weights = self._over_axes(q, k, v, allowed, use_causal_mask, training, return_attention_scores)
        y = self.output_dense(y if gate is None else ops.multiply(y, gate))
        self._penalise(y)
        return (y, weights) if return_attention_scores else y

    def _over_axes(
        self, q: Any, k: Any, v: Any, allowed: Any, causal: bool, training: bool, want_weights: bool
    ) -> tuple[Any, Any]:
        """Bring the axes to attend over together, attend, and put them back. All are ``(batch, ..., heads, width)``."""
        rank = len(ops.shape_of(q)) - 2
        given = self.attention_axes
        axes = range(1, rank) if given is None else [given] if isinstance(given, int) else given
        axes = [a % (rank + 1) for a in axes]
        kept = [a for a in range(rank) if a not in axes]
        order = [*kept, rank, *axes, rank + 1]
        sizes = [[ops.shape_of(x)[a] for a in axes] for x in (q, k)]

        def heads_first(x: Any, size: Sequence[Any]) -> Any:
            x = ops.permute_dims(x, order)
            return ops.reshape(x, (*ops.shape_of(x)[: len(kept) + 1], _product(size), ops.shape_of(x)[-1]))

        q, k, v = heads_first(q, sizes[0]), heads_first(k, sizes[1]), heads_first(v, sizes[1])
        dropout = self.dropout if training else 0.0
        y, weights = self._attend(q, k, v, allowed, causal, self.key_dim**-0.5, dropout, want_weights)
        y = ops.reshape(y, (*ops.shape_of(y)[: len(kept) + 1], *sizes[0], ops.shape_of(y)[-1]))
        if weights is not None and len(axes) > 1:
            weights = ops.reshape(weights, (*ops.shape_of(weights)[:-2], *sizes[0], *sizes[1]))
        back = [order.index(a) for a in range(rank + 2)]
        return ops.permute_dims(y, back), weights


def _product(sizes: Sequence[Any]) -> Any:
    total = 1
    for n in sizes:
        total = n * total
    return total


class GroupQueryAttention(_Heads, aliases=("GroupedQueryAttention",)):
    """`MultiHeadAttention` in which groups of query heads share a head of keys and values.

    Shapes: query ``(batch, T, features)``, value and key ``(batch, S, features)`` -> ``(batch, T, features)``.

    Args:
        head_dim: Width of each head.
        num_query_heads: How many query heads; a multiple of ``num_key_value_heads``.
        num_key_value_heads: How many heads of keys and values.
        dropout: Share of the weights to drop, in training.
        use_bias: Whether the projections have biases.
        sliding_window: A query sees keys less than so many places away; None for all.
        flash_attention: Kept for Keras's signature; a backend decides by itself.
        kernel_initializer: Initial values of the projections.
        bias_initializer: Initial values of their biases.
        kernel_regularizer: Penalty on the projections.
        bias_regularizer: Penalty on their biases.
        activity_regularizer: Penalty on the output.
        kernel_constraint: Constraint on the projections.
        bias_constraint: Constraint on their biases.
        use_gate: Whether a sigmoid gate of the query multiplies what is attended to.
        seed: Seed of the dropped weights; the model's if None.

    Reference:
        Ainslie et al., GQA: training generalized multi-query transformer models, 2023, arXiv:2305.13245.

    Example:
        >>> import numpy as np
        >>> x = np.ones((2, 5, 8), "float32")
        >>> GroupQueryAttention(4, num_query_heads=4, num_key_value_heads=2)(x, x).shape
        (2, 5, 8)
    """

    head_dim: PositiveInt
    num_query_heads: PositiveInt
    num_key_value_heads: PositiveInt
    dropout: Probability = 0.0
    use_bias: bool = True
    sliding_window: PositiveInt | None = None
    flash_attention: bool | None = None
    kernel_initializer: InitializerLike = "glorot_uniform"
    bias_initializer: InitializerLike = "zeros"
    kernel_regularizer: RegularizerLike = None
    bias_regularizer: RegularizerLike = None
    activity_regularizer: RegularizerLike = None
    kernel_constraint: ConstraintLike = None
    bias_constraint: ConstraintLike = None
    use_gate: bool = False
    seed: Seed = None

    def __post_init__(self) -> None:
        if self.num_query_heads % self.num_key_value_heads:
            raise UnilayersError(
                "query heads cannot be shared out evenly", where="GroupQueryAttention",
                expected="num_query_heads a multiple of num_key_value_heads",
                received=f"{self.num_query_heads} and {self.num_key_value_heads}",
            )  # fmt: skip

    def build(self, query_shape: Any, value_shape: Any = None, key_shape: Any = None) -> None:
        value_shape = query_shape if value_shape is None else value_shape
        key_shape = value_shape if key_shape is None else key_shape
        many, few, width = self.num_query_heads, self.num_key_value_heads, self.head_dim
        for name, shape, heads in (
            ("query", query_shape, many), ("key", key_shape, few),
            *([("gate", query_shape, many)] if self.use_gate else []), ("value", value_shape, few),
        ):  # fmt: skip
            setattr(self, f"{name}_dense", self._project(name, shape, "...d,dnh->...nh", (heads, width), "nh"))
        inner = (None, None, many, width)
        self.output_dense = self._project("attention_output", inner, "...nh,nhx->...x", (query_shape[-1],), "x")
        if self.dropout:
            self.random_counter()

    def call(
        self, query: Any, value: Any, key: Any = None, query_mask: Any = None, value_mask: Any = None,
        key_mask: Any = None, attention_mask: Any = None, return_attention_scores: bool = False,
        training: bool = False, use_causal_mask: bool = False,
    ) -> Any:  # fmt: skip
        own_key = key is not None
        key = value if key is None else key
        given = {"query_mask": query_mask, "value_mask": value_mask, "key_mask": key_mask}
        masks = _masks(given, query=query, value=value, **({"key": key} if own_key else {}))
        allowed = self._allowed(query, value, masks, attention_mask, use_causal_mask, self.sliding_window)
        q, k, v = (ops.permute_dims(x, (0, 2, 1, 3)) for x in (
            self.query_dense(query), self.key_dense(key), self.value_dense(value)))  # fmt: skip
        times = self.num_query_heads // self.num_key_value_heads
        k, v = (ops.repeat(x, times, 1) for x in (k, v))
        dropout = self.dropout if training else 0.0
        y, weights = self._attend(
            q, k, v, allowed, use_causal_mask, self.head_dim**-0.5, dropout, return_attention_scores
        )
        y = ops.permute_dims(y, (0, 2, 1, 3))
        if self.use_gate:
            y = ops.multiply(y, ops.sigmoid(self.gate_dense(query)))
        y = self.output_dense(y)
        self._penalise(y)
        return (y, weights) if return_attention_scores else y


# ---- without projections --------------------------------------------------------


class Attention(Layer):
    """Attention by dot products, without weights of its own unless a scale is learned.

    Shapes: called with a list of query ``(batch, T, D)``, value ``(batch, S, E)`` and, if it is not the value, key
    ``(batch, S, D)`` -> ``(batch, T, E)``; masks of query and value ``(batch, T)`` and ``(batch, S)``.

    Args:
        use_scale: Whether the scores are multiplied by a number that is learned.
        score_mode: ``dot``; or ``concat`` for the sum of ``tanh(query + key)``.
        dropout: Share of the weights to drop, in training.
        seed: Seed of the dropped weights; the model's if None.

    Reference:
        Luong et al., Effective approaches to attention-based neural machine translation, 2015, arXiv:1508.04025.

    Example:
        >>> import numpy as np
        >>> query, value = np.ones((2, 3, 4), "float32"), np.ones((2, 5, 4), "float32")
        >>> Attention()([query, value]).shape
        (2, 3, 4)
    """

    use_scale: bool = False
    score_mode: Literal["dot", "concat"] = "dot"
    dropout: Probability = 0.0
    seed: Seed = None

    supports_masking: ClassVar[bool] = True

    def check_input(self, x: Any) -> None:
        if not isinstance(x, (list, tuple)) or len(x) not in (2, 3):
            raise ShapeError("called with the wrong inputs", expected="[query, value] or [query, value, key]")

    def build(self, input_shape: Any) -> None:
        self.scale = self.add_weight((), "ones", name="scale") if self.use_scale else None
        concat = self.score_mode == "concat"
        self.concat_score_weight = self.add_weight((), "ones", name="concat_score_weight") if concat else None
        if self.dropout:
            self.random_counter()

    def scores(self, query: Any, key: Any) -> Any:
        """How well each key answers each query: ``(batch, T, S)``."""
        if self.concat_score_weight is None:
            scores = ops.matmul(query, ops.matrix_transpose(key))
            return scores if self.scale is None else ops.multiply(scores, self.scale)
        both = ops.add(ops.expand_dims(query, -2), ops.expand_dims(key, -3))
        both = both if self.scale is None else ops.multiply(both, self.scale)
        return ops.multiply(ops.sum(ops.tanh(both), -1), self.concat_score_weight)

    def call(
        self, inputs: Any, mask: Any = None, training: bool = False, return_attention_scores: bool = False,
        use_causal_mask: bool = False,
    ) -> Any:  # fmt: skip
        query, value, key = inputs if len(inputs) == 3 else (*inputs, inputs[1])
        query_mask, value_mask = (mask[0], mask[1]) if mask is not None else (None, None)
        scores = self.scores(query, key)
        allowed = None if value_mask is None else ops.expand_dims(ops.astype(value_mask, "bool"), -2)
        if use_causal_mask:
            seen = causal_mask(ops.shape_of(scores)[-2], ops.shape_of(scores)[-1], scores)
            allowed = seen if allowed is None else ops.logical_and(allowed, seen)
        weights = attention_weights(scores, allowed)
        used = weights
        if training and self.dropout:
            counter, random_key = self.next_random(self.seed)
            used = ops.dropout(weights, counter, rate=self.dropout, key=random_key)
        y = ops.matmul(used, value)
        if query_mask is not None:
            y = ops.where(ops.expand_dims(ops.astype(query_mask, "bool"), -1), y, 0.0)
        return (y, weights) if return_attention_scores else y

    def compute_mask(self, inputs: Any, previous_mask: Any) -> Any:
        return previous_mask[0] if isinstance(previous_mask, (list, tuple)) else None


class AdditiveAttention(Attention):
    """Attention by ``sum(scale * tanh(query + key))``.

    Shapes: as `Attention`.

    Args:
        use_scale: Whether each feature has a weight that is learned.
        dropout: Share of the weights to drop, in training.
        seed: Seed of the dropped weights; the model's if None.

    Reference:
        Bahdanau et al., Neural machine translation by jointly learning to align and translate, 2014, arXiv:1409.0473.

    Example:
        >>> import numpy as np
        >>> query, value = np.ones((2, 3, 4), "float32"), np.ones((2, 5, 4), "float32")
        >>> AdditiveAttention()([query, value]).shape
        (2, 3, 4)
    """

    def __init__(self, use_scale: bool = True, dropout: Probability = 0.0, seed: Seed = None, **kwargs: Any) -> None:
        super().__init__(use_scale=use_scale, dropout=dropout, seed=seed, **kwargs)

    def build(self, input_shape: Any) -> None:
        width = self.known_size(input_shape[0], -1)
        self.scale = self.add_weight((width,), "glorot_uniform", name="scale") if self.use_scale else None
        if self.dropout:
            self.random_counter()

    def scores(self, query: Any, key: Any) -> Any:
        both = ops.tanh(ops.add(ops.expand_dims(query, -2), ops.expand_dims(key, -3)))
        return ops.sum(both if self.scale is None else ops.multiply(both, self.scale), -1)
