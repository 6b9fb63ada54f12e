"""Who takes part in a workload, who is compared with whom, and what ratio is wanted."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase

from benchmarks.suite.workloads import Workload

ENGINES = ("torch", "tensorflow", "jax")
NATIVE = {"torch": ("eager", "fused", "last", "compile"), "tensorflow": ("function", "xla"), "jax": ("jit",)}

# Wanted of the time that a hand-written program takes, or Keras's fit.
NUMPY = {"W1": 0.55, "W2": 0.45, "W3": 0.5, "W5": 1.15, "W5g": 1.15, "W7": 0.07, "W2i1": 0.5, "W3i1": 0.5}
NUMPY_OF_JAX = {"W7": 0.7}
STEP_ON_TORCH = {"W7": 0.5}
FIT_ON_TORCH = {"W1": 0.5, "W5": 0.5, "W5g": 0.5, "W7": 0.5}
FIT = {"torch": 0.8, "tensorflow": 0.9, "jax": 0.9}
FIT_OF_STEP = 1.03
FIT_MORE = {"W7": 20.0}  # microseconds that fit may add to the step, where that is a better measure


@dataclass(frozen=True)
class Comparison:
    """One contestant beside others.

    Args:
        ours: The contestant.
        against: Others; the fastest of them counts.
        limit: The wanted ratio, at most; None if there is no target.
        more: Whether it is the difference in microseconds that is limited, not the ratio.
    """

    ours: str
    against: tuple[str, ...]
    limit: float | None = None
    more: bool = False


def contestants(w: Workload, patterns: str = "*") -> list[str]:
    """Names of those that run a workload: ``torch:fused``, ``unilayers:torch``, ``unilayers:torch:fit``...

    Args:
        w: The workload.
        patterns: Names or patterns, by commas: ``unilayers:numpy,torch:*``.
    """
    whole = "fit" if w.training else "batch"
    found = [f"{engine}:{variant}" for engine in ENGINES for variant in NATIVE[engine] if _runs(w, variant)]
    for engine in ("numpy", *ENGINES):
        found += [f"unilayers:{engine}", f"unilayers:{engine}:{whole}"]
    for engine in ENGINES:
        found += [f"keras:{engine}:{form}" for form in dict.fromkeys((whole, "batch"))]
    return [name for name in found if any(fnmatchcase(name, p) for p in patterns.split(","))]


def _runs(w: Workload, variant: str) -> bool:
    if variant == "fused":
        return w.training
    if variant == "last":
        return w.kind in ("convnet", "resnet")
    return variant != "compile" or w.kind not in ("lstm", "gru")  # torch.compile takes no such layers


def comparisons(w: Workload) -> list[Comparison]:
    """What is judged of a workload."""
    found = []
    for engine in ENGINES:
        native = tuple(f"{engine}:{v}" for v in NATIVE[engine])
        wanted = STEP_ON_TORCH.get(w.name, 1.0) if engine == "torch" else 1.0
        found.append(Comparison(f"unilayers:{engine}", native, wanted))
    found.append(Comparison("unilayers:numpy", ("torch:eager",), NUMPY.get(w.name)))
    if w.name in NUMPY_OF_JAX:
        found.append(Comparison("unilayers:numpy", ("jax:jit",), NUMPY_OF_JAX[w.name]))
    if not w.training:
        return found + [Comparison(f"unilayers:{e}:batch", (f"keras:{e}:batch",)) for e in ENGINES]
    for engine in ENGINES:
        wanted = FIT_ON_TORCH.get(w.name, FIT[engine]) if engine == "torch" else FIT[engine]
        found.append(Comparison(f"unilayers:{engine}:fit", (f"keras:{engine}:fit",), wanted))
    more = w.name in FIT_MORE
    limit = FIT_MORE.get(w.name, FIT_OF_STEP)
    steps = [f"unilayers:{engine}" for engine in ("numpy", *ENGINES)]
    return found + [Comparison(f"{step}:fit", (step,), limit, more) for step in steps]


def engine_of(name: str) -> str:
    """The framework that a contestant runs on."""
    family, second, *_ = name.split(":")
    return second if family in ("unilayers", "keras") else family


def groups(w: Workload, names: list[str]) -> list[list[str]]:
    """Those that run in turns, side by side: whoever is compared, but not all, as memory has an end."""
    found = {engine: {n for n in names if engine_of(n) == engine} for engine in ENGINES}
    found["torch"] |= {n for n in names if engine_of(n) == "numpy"}
    for comparison in comparisons(w):
        if engine_of(comparison.ours) == "numpy" and comparison.ours in names:
            found["torch"] |= set(comparison.against) & set(names)
    return [[n for n in names if n in group] for group in found.values() if group]
