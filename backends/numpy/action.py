"""One entry of a step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from unilayers.graph import Value

from .arena import Storage
from .kernels import KERNELS, Kernel

MOVES = ("load", "store", "return")  # actions that only carry values between the caller and the arena


@dataclass(eq=False)
class Action:
    """An op's kernel, or ``load`` an input, ``store`` to state, ``return`` an output, ``copy``.

    Args:
        op: What to do: an op, a joined op of ``fuse``, or one of the words above.
        inputs: Values that are read; a store's second one is the state it writes to.
        outputs: Values that are made.
        attrs: The op's attributes; the position of a loaded input; the name of a returned output.
        workspaces: Memory it needs for itself, as its kernel asked for it: storage, shape, dtype.
        own: A kernel in the place of the op's.
    """

    op: str
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...] = ()
    attrs: Mapping[str, Any] = field(default_factory=dict)
    workspaces: list[tuple[Storage, tuple[int, ...], Any]] = field(default_factory=list)
    own: Kernel | None = None

    @property
    def reads(self) -> tuple[Value, ...]:
        """The values whose elements it needs."""
        return self.inputs[:1] if self.op == "store" else self.inputs

    @property
    def kernel(self) -> Kernel | None:
        """The kernel, where there is one."""
        return self.own or KERNELS.get(self.op)

    def overwritable(self) -> list[tuple[int, int]]:
        """Which results may take the memory of which operands: pairs of their numbers."""
        return list(self.kernel.overwrites(len(self.inputs), self.attrs)) if self.kernel else []

    def adjacent(self) -> list[int]:
        """The numbers of the operands that are worth lying one behind the other."""
        wanted = list(self.kernel.adjacent(len(self.inputs), self.attrs)) if self.kernel else []
        same = len({self.inputs[i].dtype for i in wanted}) == 1
        return wanted if same and len(wanted) > 1 else []
