"""The record that is an op: everything the project knows about it stands here, once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from unilayers.errors import GraphError
from unilayers.spec import ITEMSIZE, Spec

Specs = Spec | tuple[Spec, ...]


@dataclass(frozen=True)
class Sample:
    """One example call of an op, from which tests are derived.

    Args:
        inputs: NumPy arrays; float arrays are float64 and the tests cast them to the dtype under test.
        attrs: Keyword attributes.
        differentiable: Whether finite differences make sense here (no ties, no kinks at these inputs), or by which
            inputs, as their positions.
    """

    inputs: tuple[Any, ...]
    attrs: Mapping[str, Any] = field(default_factory=dict)
    differentiable: bool | tuple[int, ...] = True


def no_cost(*specs: Spec, **attrs: Any) -> int:
    return 0


@dataclass(frozen=True, eq=False)
class Op:
    """An op: name, shape rule, gradient, cost, expansion, samples with a reference, documentation.

    Args:
        name: The name in graphs, backend tables and the ``ops`` namespace.
        infer: ``infer(*specs, **attrs) -> Spec`` or a tuple of them; the only shape and dtype logic.
        vjp: ``vjp(g, y, *inputs, **attrs)`` gives a gradient (or None) per input, written in ops. With several
            outputs ``g`` and ``y`` are tuples, and a ``g`` may be None.
        expand: The op written in other ops. A composite op has it; a backend may still list the op as fused.
        cost: ``cost(*input_specs, **attrs)`` floating-point operations of one run.
        reference: An independent NumPy function with the same arguments; the tests' oracle.
        samples: ``samples(rng) -> list[Sample]``.
        defaults: Attribute names and their default values.
        operands: Names of the positional values; a name starting with ``*`` takes any number.
        promotes: Index of the first operand from which on all are brought to one dtype; None: each keeps its own.
        tolerance: Relative tolerance of float32 results against the reference.
        order: Up to which order the gradient is exact and tested (2: gradients of gradients).
        bodies: Names of the attributes that are graphs, or tuples of graphs: what control flow runs.
        kept: How many results, the last ones, there are only with the attribute ``keeps``: they are for the op's
            gradient, and an engine with functions of its own for both may put there what it likes.
        doc: What it computes.
    """

    name: str
    infer: Callable[..., Specs]
    vjp: Callable[..., Iterable[Any]] | None = None
    expand: Callable[..., Any] | None = None
    cost: Callable[..., Any] = no_cost
    reference: Callable[..., Any] | None = None
    samples: Callable[[np.random.Generator], list[Sample]] | None = None
    defaults: Mapping[str, Any] = field(default_factory=dict)
    operands: tuple[str, ...] = ("x",)
    promotes: int | None = None
    tolerance: float = 1e-5
    order: int = 2
    doc: str = ""
    bodies: tuple[str, ...] = ()
    kept: int = 0

    def __repr__(self) -> str:
        return f"<op {self.name}>"

    @property
    def composite(self) -> bool:
        return self.expand is not None

    @property
    def differentiable(self) -> bool:
        return self.vjp is not None or self.composite

    def bytes_moved(self, inputs: Iterable[Spec], outputs: Iterable[Spec]) -> Any:
        """Bytes read and written when nothing is fused."""
        return sum(s.size * ITEMSIZE[s.dtype] for s in (*inputs, *outputs))


OPS: dict[str, Op] = {}


def register(op: Op) -> Op:
    """Add ``op`` to the registry; a name can be taken once."""
    if op.name in OPS:
        raise GraphError(f"op {op.name!r} is defined twice")
    OPS[op.name] = op
    return op
