"""PyTorch's streams, events and recordings, for ``backends.replay``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from unilayers.backends.replay import Replayed, Result, in_place

from unilayers.backend import Executable
from unilayers.graph import Value


class TorchQueue:
    """See ``backends.replay.Queue``.

    Args:
        device: A CUDA device.
    """

    def __init__(self, device: str) -> None:
        self.device = device
        self.main, self.copying = torch.cuda.Stream(device), torch.cuda.Stream(device)

    def running(self) -> AbstractContextManager[Any]:
        return _InOrder(self.device, self.main)

    def empty(self, shape: tuple[int, ...], dtype: str) -> torch.Tensor:
        return torch.empty(shape, dtype=getattr(torch, dtype), device=self.device)

    def pinned(self, shape: tuple[int, ...], dtype: str) -> tuple[np.ndarray, torch.Tensor]:
        memory = torch.empty(shape, dtype=getattr(torch, dtype), pin_memory=True)
        return memory.numpy(), memory

    def send(self, source: torch.Tensor, there: torch.Tensor) -> None:
        with torch.cuda.stream(self.copying):
            there.copy_(source, non_blocking=True)

    def assign(self, there: torch.Tensor, value: torch.Tensor) -> None:
        there.copy_(value)

    def copy(self, array: torch.Tensor) -> torch.Tensor:
        return array.clone()

    def event(self) -> torch.cuda.Event:
        return torch.cuda.Event()

    def record(self, run: Callable[[], Result]) -> tuple[Callable[[], None], Result]:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=self.main):
            result = run()
        return graph.replay, result


class _InOrder:
    """While active, work goes to a stream, after what the caller's stream holds; the caller's goes on after it."""

    def __init__(self, device: str, stream: Any) -> None:
        self.device, self.stream = device, stream

    def __enter__(self) -> None:
        self.around = torch.cuda.current_stream(self.device)
        self.stream.wait_stream(self.around)
        self.active = torch.cuda.stream(self.stream)
        self.active.__enter__()

    def __exit__(self, *error: Any) -> None:
        self.active.__exit__(*error)
        self.around.wait_stream(self.stream)


def replayed(step: Executable, inputs: Sequence[Value], device: str) -> Executable:
    """A step as one launch, from its second run with the same state on."""

    def assign(there: torch.Tensor, value: torch.Tensor) -> None:
        there.copy_(value)

    return torch.inference_mode()(Replayed(in_place(step, assign, torch.clone), TorchQueue(device), inputs))
