"""Who takes part: the compiled steps of unilayers, and PyTorch by hand in three ways."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from benchmarks.suite.contestant import Clock, Contestant, Steps
from benchmarks.suite.workloads import ADAM, RESNET_50, WORKLOADS, Workload, batches

DEVICE = "cuda:0"
OURS = ("unilayers:numpy", "unilayers:torch", "unilayers:jax")
BY_HAND = ("torch:eager", "torch:graph", "torch:compile")
TOLERANCE = 2e-3  # of losses: products are summed in other orders than on the CPU
CHOSEN = {
    w.name: replace(w, tolerance=max(w.tolerance, TOLERANCE))
    for w in (*(WORKLOADS[name] for name in ("W1", "W2", "W3", "W7", "W4", "W6")), RESNET_50)
}


def build(name: str, w: Workload, *, dropout: bool = True) -> Contestant:
    """A contestant on the device.

    Args:
        name: ``unilayers:<backend>``; ``torch:eager``, ``torch:graph``: the step as a CUDA graph, ``torch:compile``.
        w: The workload.
        dropout: Whether dropout is done.
    """
    family, variant = name.split(":")
    if family == "unilayers":
        from benchmarks.suite.ours import build as ours

        return ours(w, variant, device=DEVICE, dropout=dropout)
    return by_hand(w, variant, DEVICE, dropout)


def by_hand(w: Workload, variant: str, device: str, dropout: bool) -> Steps:
    """Training in PyTorch: images with channels last, the optimizer in one call."""
    import torch
    from torch.nn import functional as F

    from benchmarks.suite.native_torch import IMAGES, loaded, own_form

    last = w.kind in IMAGES
    net = loaded(w, w.dropout if dropout else 0.0, last).to(device)
    data = [tuple(part.to(device) for part in own_form(batch, last)) for batch in batches(w)]
    graphed = variant == "graph"
    if w.optimizer == "adam":
        optimizer: Any = torch.optim.Adam(net.parameters(), w.rate, eps=ADAM, fused=True, capturable=graphed)
    else:
        momentum = 0.9 if w.optimizer == "momentum" else 0
        optimizer = torch.optim.SGD(net.parameters(), w.rate, momentum, fused=True)
    criterion = F.mse_loss if w.regression else F.cross_entropy

    def forward(x: Any, y: Any) -> Any:
        return criterion(net(x), y)

    if variant == "compile":
        forward = torch.compile(forward, fullgraph=True)

    def step(x: Any, y: Any) -> Any:
        optimizer.zero_grad(set_to_none=not graphed)
        loss = forward(x, y)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return Steps(recorded(torch, step, data[0]) if graphed else step, data, lambda loss: loss.cpu().numpy())


def recorded(torch: Any, step: Callable[..., Any], first: tuple[Any, ...]) -> Callable[..., Any]:
    """A step as PyTorch's documentation records one, after three that run as they are, on the batches that come."""
    fixed, calls, graph, stream = [x.clone() for x in first], 0, torch.cuda.CUDAGraph(), torch.cuda.Stream()
    loss: Any = None

    def run(*batch: Any) -> Any:
        nonlocal calls, loss
        calls += 1
        for place, value in zip(fixed, batch, strict=True):
            place.copy_(value)
        if calls <= 3:  # on a stream of its own, as the recording will be
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                result = step(*fixed)
            torch.cuda.current_stream().wait_stream(stream)
            return result
        if calls == 4:
            with torch.cuda.graph(graph):
                loss = step(*fixed)
        graph.replay()
        return loss.clone()

    return run


def clock_of(name: str) -> Clock:
    """Seconds by CUDA's events, on the stream that a contestant's steps are in order with; JAX has none."""
    engine = name.split(":")[1] if name.startswith("unilayers") else "torch"
    if engine == "numpy":
        import cupy

        return event_clock(cupy.cuda.Event, cupy.cuda.get_elapsed_time)
    if engine == "torch":
        import torch

        return event_clock(lambda: torch.cuda.Event(enable_timing=True), lambda a, b: a.elapsed_time(b))
    from time import perf_counter

    return perf_counter


def event_clock(event: Callable[[], Any], elapsed: Callable[[Any, Any], float]) -> Clock:
    """A clock that is read by letting the device note when it comes to a place in its queue.

    Args:
        event: Makes an event.
        elapsed: Milliseconds between two.
    """
    start = event()
    start.record()

    def clock() -> float:
        now = event()
        now.record()
        now.synchronize()
        return elapsed(start, now) / 1e3

    return clock
