"""The table that ``model.summary()`` prints."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from unilayers.errors import UnilayersError
from unilayers.layers.base import Layer
from unilayers.models.shapes import Ports, ports, shape_text

if TYPE_CHECKING:
    from unilayers.models.model import Model

GAP = "  "


def rows(model: Model) -> list[tuple[str, str, int]]:
    """Name and class, output shape, parameters of each layer."""
    return [(name, shape, count) for name, shape, count, _ in _rows(model, ports(model), False, model.layers)]


def summary(
    model: Model,
    line_length: int | None = None,
    positions: Sequence[float] | None = None,
    expand_nested: bool = False,
    show_trainable: bool = False,
    layer_range: Sequence[str] | None = None,
) -> str:
    """The whole table as text; see ``Model.summary``."""
    table = [("Layer", "Output shape", "Params", "Trainable")]
    for name, shape, count, trainable in _rows(model, ports(model), expand_nested, in_range(model, layer_range)):
        table.append((name, shape, f"{count:,}", {True: "Y", False: "N", None: "-"}[trainable]))
    columns = 4 if show_trainable else 3
    widths = _widths([row[:columns] for row in table], line_length, positions)
    lines = [_line(row[:columns], widths) for row in table]
    total, trained = model.count_params(), sum(math.prod(v.shape) for v in model.trainable_weights)
    rule = "-" * max(map(len, lines))
    tail = f"Total params: {total:,} (trainable {trained:,}, fixed {total - trained:,})"
    return "\n".join([f"Model: {model.name!r}", rule, lines[0], rule, *lines[1:], rule, tail])


def in_range(model: Model, layer_range: Sequence[str] | None) -> list[Layer]:
    """The layers from the first to the last of two names, or of the layers that two patterns match.

    Raises:
        UnilayersError: for other than two names, or one that no layer has.
    """
    if not layer_range:
        return model.layers
    names = [str(layer.name) for layer in model.layers]
    if len(layer_range) != 2:
        expected = "the names of the first and the last layer"
        raise UnilayersError("not a range", where="layer_range", expected=expected, received=repr(layer_range))
    found = [[i for i, name in enumerate(names) if re.match(pattern, name)] for pattern in layer_range]
    for pattern, places in zip(layer_range, found, strict=True):
        if not places:
            raise UnilayersError(f"no layer {pattern!r}", where="layer_range", fix=f"Layers: {', '.join(names)}")
    return model.layers[min(found[0]) : max(found[1]) + 1]


def _rows(
    model: Model, seen: dict[Layer, Ports], nested: bool, layers: Sequence[Layer], depth: int = 0
) -> list[tuple[str, str, int, bool | None]]:
    from unilayers.models.model import Model

    found: list[tuple[str, str, int, bool | None]] = []
    for layer in layers:
        trainable = bool(layer.trainable_weights) if layer.weights else None
        shape = shape_text(seen[layer].outputs) if layer in seen else "?"
        found.append((f"{GAP * depth}{layer.name} ({type(layer).__name__})", shape, layer.count_params(), trainable))
        if nested and isinstance(layer, Model):
            found += _rows(layer, seen, nested, layer.layers, depth + 1)
    return found


def _widths(table: Sequence[Sequence[str]], line_length: int | None, positions: Sequence[float] | None) -> list[int]:
    """The widths of the columns: what they hold, what the positions say, or what the line has place for."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    if positions is not None:
        length = line_length or 80
        ends = [int(p * length) if p <= 1 else int(p) for p in positions][: len(widths)]
        if len(ends) < len(widths) or sorted(set(ends)) != ends:
            raise UnilayersError(
                "positions do not fit", where="summary(positions=)", expected=f"{len(widths)} rising ends of columns",
                received=repr(positions),
            )  # fmt: skip
        return [max(1, b - a - len(GAP)) for a, b in zip([-len(GAP), *ends], ends, strict=False)]
    if line_length is not None:
        room = line_length - len(GAP) * (len(widths) - 1) - sum(widths[2:])
        widths[0] += max(0, room - widths[0] - widths[1])
        while widths[0] + widths[1] > max(2, room):  # the wider of the two gives way
            widths[widths[1] > widths[0]] -= 1
    return widths


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    cells = [
        cell if len(cell) <= width else cell[: max(0, width - 1)] + "…" for cell, width in zip(row, widths, strict=True)
    ]
    aligned = [
        f"{cell:<{width}}" if i < 2 else f"{cell:>{width}}"
        for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
    ]
    return GAP.join(aligned)
