"""Kernels kept in the order that aten's kernels read them in, so that no step has to rearrange them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from unilayers.backend import Executable
from unilayers.graph import Graph, Node

# Where kernels stand among the operands of an op that reads them. aten wants them with the axes (out, *window, in) in
# memory, when data is channels-last; here their axes are (*window, in, out), whatever lies behind them.
KERNELS = {"conv": (1,), "conv_input_grad": (1,), "lstm": (3, 4)}
_MEMORY = {4: (3, 0, 1, 2), 2: (1, 0)}  # by the number of axes: to the order in memory, and back
_AXES = {4: (1, 2, 3, 0), 2: (1, 0)}


def relaid(x: Tensor) -> Tensor:
    """A kernel with its axes in memory as aten wants them; the same tensor if they are so."""
    wanted = x.permute(_MEMORY[x.ndim])
    return x if wanted.is_contiguous() else wanted.contiguous().permute(_AXES[x.ndim])


def kernels_of(graph: Graph, updates: Mapping[str, Callable[[Node], Sequence[int]]]) -> list[int]:
    """The numbers of the state that convolutions over two axes, and LSTMs, read as kernels, and of what optimizers keep
    for it.

    Args:
        graph: The graph.
        updates: For an optimizer's op, the numbers of the operands that are written, parameters first.
    """
    read = {node.inputs[i] for node in graph.nodes for i in KERNELS.get(node.op, ())}
    found = {v for v in graph.state if v in read and v.ndim in _MEMORY}
    for node in graph.nodes:
        if node.op in updates and found:
            written, count = updates[node.op](node), node.attrs["count"]
            for at, i in enumerate(written):
                if node.inputs[written[at % count]] in found:
                    found.add(node.inputs[i])
    return [i for i, v in enumerate(graph.state) if v in found]


def laying(step: Executable, kernels: Sequence[int]) -> Executable:
    """The same step, which first lays kernels as aten wants them; those that it returns are so already."""
    if not kernels:
        return step

    known: dict[int, Tensor] = {}  # those that are laid

    def run(state: list[Any], inputs: Sequence[Any]) -> Any:
        for i in kernels:
            if known.get(i) is not state[i]:
                known[i] = state[i] = relaid(state[i])
        return step(state, inputs)

    return run


def without_gaps(x: Tensor) -> bool:
    """Whether a parameter fills its memory."""
    return x.is_contiguous() or (x.ndim in _MEMORY and x.permute(_MEMORY[x.ndim]).is_contiguous())


def like(x: Tensor, pattern: Tensor) -> Tensor:
    """x with its axes in memory as those of another tensor are; the same tensor if they are so."""
    return x if x.stride() == pattern.stride() else torch.empty_like(pattern).copy_(x)
