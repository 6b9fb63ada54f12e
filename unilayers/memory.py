"""How much memory a step needs, and what is said where there is not enough."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from unilayers.backend import Backend
from unilayers.errors import OutOfMemoryError
from unilayers.graph import Graph, Value
from unilayers.graph.passes import specialise

# Ops that look at their operand's memory, on most engines.
VIEWS = ("reshape", "permute_dims", "broadcast_to", "slice", "flip", "identity", "stop_gradient", "barrier")


def needed(graph: Graph, sizes: Mapping[str, int]) -> int:
    """Bytes alive at the fullest moment of a run: state, constants, and values until their last reader.

    An estimate: engines keep some values longer, and use some memory of their own.

    Args:
        graph: Any graph.
        sizes: Values of its symbolic sizes.
    """
    graph = specialise(graph, sizes)
    root: dict[Value, Value] = {}
    for node in graph.nodes:
        for v in node.outputs:
            root[v] = root[node.inputs[0]] if node.op in VIEWS else v
    kept = {root[v] for v in (*graph.outputs.values(), *graph.updates.values()) if v in root}
    last = {root[v]: node for node in graph.nodes for v in node.inputs}
    alive = most = sum(_bytes(v) for v in (*graph.state, *graph.inputs))
    for node in graph.nodes:
        made = {root[v] for v in node.outputs} & set(node.outputs)
        if node.op in ("state", "input"):
            continue
        alive += sum(map(_bytes, made))
        most = max(most, alive)
        read = {root[v] for v in node.inputs}
        gone = [v for v in (read | made) - kept if last.get(v, node) is node]
        alive -= sum(_bytes(v) for v in gone if v.node.op not in ("state", "input", "constant"))
    return most


def _bytes(value: Value) -> int:
    return int(value.spec.nbytes)  # type: ignore[arg-type]  # a specialised graph has numbers


def largest_batch(graph: Graph, sizes: Mapping[str, int], room: int) -> int:
    """The largest power of two below the batch's size with which a run would need no more than ``room`` bytes; 0 if
    there is none, or if the graph's batch size is fixed.

    Args:
        graph: Any graph, with the symbolic size ``batch``.
        sizes: Values of its symbolic sizes.
        room: Bytes; 0 if that is not known: then half of the batch is taken to fit.
    """
    batch = 1 << max(0, sizes.get("batch", 0) - 1).bit_length() >> 1
    while room and batch and needed(graph, {**sizes, "batch": batch}) > room:
        batch //= 2
    return batch if sizes.get("batch", 0) > 1 else 0


def out_of_memory(
    graph: Graph, backend: Backend, device: str, sizes: Mapping[str, int], shapes: Sequence[object]
) -> OutOfMemoryError:
    """The error for a step that ran out of memory: what it needs, what the device has, and the batch that would fit.

    Args:
        graph: The step.
        backend: Where it ran.
        device: The device.
        sizes: Values of the graph's symbolic sizes.
        shapes: Those of the inputs.
    """
    has, need = backend.hardware.facts(device).memory, needed(graph, sizes)
    batch = largest_batch(graph, sizes, has)
    shown = ", ".join(map(str, shapes))
    return OutOfMemoryError(
        f"memory ran out in a step on inputs of shapes {shown}" if shown else "memory ran out in a step",
        where=f"backend '{backend.name}', {device}",
        expected=f"room for about {_shown(need)}, state included",
        received=f"{_shown(has)} in all, of which others may hold a part" if has else "",
        fix=f"A batch of {batch} would fit: batch_size={batch}" if batch else "A smaller model, or a shorter dtype",
    )


def _shown(count: int) -> str:
    """Bytes as people read them."""
    size, unit = float(count), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if size >= 1024:
            size, unit = size / 1024, larger
    return f"{size:.3g} {unit}"
