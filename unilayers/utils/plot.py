"""Pictures of models: a box for each layer, an arrow for each value that goes from one to the next."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from unilayers import activations
from unilayers.errors import UnilayersError, nearest
from unilayers.graph import Value
from unilayers.layers.affine import Affine
from unilayers.layers.base import Call, Layer
from unilayers.models.functional import Functional
from unilayers.models.model import Model
from unilayers.models.sequential import Sequential
from unilayers.models.shapes import Ports, ports, shape_text, spec_list
from unilayers.models.summary import in_range
from unilayers.spec import public_shape
from unilayers.structure import leaves_of

from .figures import encoded
from .layout import Point, layered

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Direction: TypeAlias = Literal["TB", "BT", "LR", "RL"]

DIRECTIONS = ("TB", "BT", "LR", "RL")
FORMATS = ("png", "svg", "pdf", "jpg", "jpeg", "dot", "gv")
LONGEST = 60_000  # pixels of a side that a bitmap can have

# Colours of headers, by the module of unilayers.layers that a layer comes from.
TINTS = {
    "convolutional": "#cfe2f7", "affine": "#d9d7f1", "pooling": "#d3ecdc", "normalization": "#fbe9c6",
    "activation": "#f8d9cf", "regularization": "#ece4d8", "merging": "#f6d3e2", "recurrent": "#cdeaea",
    "convolutional_recurrent": "#cdeaea", "attention": "#e6d5f2", "preprocessing": "#e5efc9",
}  # fmt: skip
TINT, INK, FAINT = "#e3e7eb", "#1f2933", "#7b8794"


# ---- what there is to draw --------------------------------------------------------------------------------------


@dataclass
class Box:
    """A layer, an op, an input; or with ``inside`` a model that is shown with what it is made of.

    Args:
        title: First line.
        lines: Further lines.
        tint: Colour behind the title.
        inside: The drawing inside.
    """

    title: str
    lines: list[str] = field(default_factory=list)
    tint: str = TINT
    inside: Drawing | None = None


@dataclass
class Drawing:
    """Boxes and arrows between them, as pairs of their numbers."""

    boxes: list[Box] = field(default_factory=list)
    edges: list[tuple[int, int]] = field(default_factory=list)

    def add(self, box: Box) -> int:
        """Append a box; its number."""
        self.boxes.append(box)
        return len(self.boxes) - 1

    def join(self, sources: Iterable[int], box: int) -> None:
        """Draw an arrow from each of the boxes, if there is none yet."""
        for source in sources:
            if (source, box) not in self.edges:
                self.edges.append((source, box))


@dataclass(frozen=True)
class _Shown:
    """What is told of a layer: the arguments of ``plot_model``."""

    shapes: bool
    dtype: bool
    names: bool
    activations: bool
    trainable: bool
    nested: bool
    seen: dict[Layer, Ports]

    def layer(self, layer: Layer) -> Box:
        kind = type(layer).__name__
        box = Box(f"{layer.name} ({kind})" if self.names else kind, self._facts(layer, self.seen.get(layer)))
        otherwise = TINTS["affine"] if isinstance(layer, Affine) else TINT
        box.tint = next((TINTS[part] for part in type(layer).__module__.split(".") if part in TINTS), otherwise)
        if self.nested and isinstance(layer, Model) and (inner := self.drawing(layer, layer.layers)) is not None:
            box.inside = inner
        return box

    def _facts(self, layer: Layer, known: Ports | None) -> list[str]:
        lines = []
        activation = getattr(layer, "activation", None)
        if self.activations and activation is not None:
            lines.append(f"activation: {_activation(activation)}")
        if self.dtype and known is not None:
            lines.append(f"dtype: {', '.join(dict.fromkeys(dtype for _, dtype in spec_list(known.outputs)))}")
        if self.shapes:
            lines += [
                f"{side}: {shape_text(getattr(known, f'{side}s')) if known else '?'}" for side in ("input", "output")
            ]
        if self.trainable and layer.weights:
            lines.append("trainable" if layer.trainable_weights else "not trainable")
        return lines

    def value(self, name: str, kind: str, value: Value) -> Box:
        lines = [f"dtype: {value.dtype}"] * self.dtype
        lines += [f"output: {public_shape(value.shape)}"] * self.shapes
        return Box(f"{name} ({kind})" if self.names and name else kind, lines)

    def drawing(self, model: Model, kept: Sequence[Layer]) -> Drawing | None:
        """The inside of a model: None for one whose ``call`` says it all."""
        if isinstance(model, Functional):
            return self._functional(model, kept)
        return self._stack(model, kept) if isinstance(model, Sequential) else None

    def _stack(self, model: Sequential, kept: Sequence[Layer]) -> Drawing:
        drawn = Drawing()
        last: list[int] = []
        if isinstance(model.input_structure, Value) and kept[:1] == model.layers[:1]:
            last = [drawn.add(self._input(model.input_structure))]
        for layer in kept:
            box = drawn.add(self.layer(layer))
            drawn.join(last, box)
            last = [box]
        return drawn

    def _functional(self, model: Functional, kept: Sequence[Layer]) -> Drawing:
        drawn = Drawing()
        whole = len(kept) == len(model.layers)
        number: dict[Value, int] = {}
        boxes: dict[Layer, int] = {}
        for value in model.inputs if whole else ():
            number[value] = drawn.add(self._input(value))
        calls = [i for i, step in enumerate(model._plan) if isinstance(step, Call) and step.layer in kept]
        for i, step in enumerate(model._plan):
            if isinstance(step, Call):
                if step.layer not in kept:
                    continue
                if step.layer not in boxes:
                    boxes[step.layer] = drawn.add(self.layer(step.layer))
                box = boxes[step.layer]
            elif step.op == "constant" or not (whole or (calls and calls[0] < i < calls[-1])):
                continue
            else:
                box = drawn.add(self.value("", step.op, step.outputs[0]))
            drawn.join((number[v] for v in step.inputs if v in number), box)
            number.update(dict.fromkeys(leaves_of(step.outputs), box))
        return drawn

    def _input(self, value: Value) -> Box:
        return self.value(value.node.attrs["name"], "InputLayer", value)


def _activation(activation: Any) -> str:
    if isinstance(activation, Layer):
        return str(activation.name)
    return activation if isinstance(activation, str) else activations.name_of(activation).rpartition(":")[2]


def _drawing(
    model: Model,
    shapes: bool,
    dtype: bool,
    names: bool,
    nested: bool,
    functions: bool,
    trainable: bool,
    layer_range: Any,
) -> Drawing:
    if not isinstance(model, Model):
        raise UnilayersError("not a model", where="plot_model", received=repr(model))
    shown = _Shown(shapes, dtype, names, functions, trainable, nested, ports(model) if shapes or dtype else {})
    drawn = shown.drawing(model, in_range(model, layer_range))
    return drawn or Drawing([shown.layer(model)])


# ---- DOT ----------------------------------------------------------------------------------------------------------


class Dot:
    """A drawing in the language of Graphviz, and drawn: what ``model_to_dot`` returns.

    Args:
        drawing: The boxes and arrows.
        rankdir: Where the arrows point.
        dpi: Dots per inch of a bitmap.
        splines: How Graphviz is to draw the arrows.
        subgraph: Whether the text is a cluster for another graph.
    """

    def __init__(
        self,
        drawing: Drawing,
        rankdir: Direction = "TB",
        dpi: int = 200,
        splines: str = "ortho",
        subgraph: bool = False,
    ) -> None:
        if rankdir not in DIRECTIONS:
            raise UnilayersError(f"unknown rankdir {rankdir!r}", where="plot_model", fix=nearest(rankdir, DIRECTIONS))
        self.drawing, self.rankdir, self.dpi, self.splines, self.subgraph = drawing, rankdir, dpi, splines, subgraph

    def to_string(self) -> str:
        """The DOT text."""
        head = "subgraph cluster_model" if self.subgraph else "digraph model"
        options = [f"rankdir={self.rankdir};", f"dpi={self.dpi};", f"splines={self.splines};", "compound=true;"]
        style = 'node [shape=box, style="rounded,filled", fontname="Helvetica"];'
        body = [*options, style, *_dot_lines(self.drawing, "n")]
        return "\n".join([f"{head} {{", *(f"  {line}" for line in body), "}"]) + "\n"

    def create(self, prog: str = "dot", format: str = "svg") -> bytes:
        """The picture, as the bytes of a file: "png", "svg" or "pdf"; "dot" is the text.

        Args:
            prog: Taken for the sake of scripts: the layout is made here.
            format: The format.
        """
        if format in ("dot", "gv"):
            return self.to_string().encode()
        figure = _figure(self.drawing, self.rankdir)
        dpi = min(self.dpi, LONGEST / max(figure.get_size_inches()))
        return encoded(figure, format, dpi=dpi, facecolor="white")

    def write(self, path: str | PathLike[str], prog: str = "dot", format: str | None = None) -> None:
        """Write the picture; the suffix of the file decides the format.

        Args:
            path: The file.
            prog: Taken for the sake of scripts.
            format: The format, whatever the suffix.

        Raises:
            UnilayersError: for a format that is not known, or without matplotlib where it is needed.
        """
        kind = (format or Path(path).suffix[1:]).lower()
        if kind not in FORMATS:
            raise UnilayersError(f"unknown format {kind!r}", where=str(path), expected=f"a file {', '.join(FORMATS)}")
        Path(path).write_bytes(self.create(prog, kind))

    def write_png(self, path: str | PathLike[str], prog: str = "dot") -> None:
        """Write a PNG file."""
        self.write(path, prog, "png")

    def write_svg(self, path: str | PathLike[str], prog: str = "dot") -> None:
        """Write an SVG file."""
        self.write(path, prog, "svg")

    def __str__(self) -> str:
        return self.to_string()

    def _repr_svg_(self) -> str:
        return self.create(format="svg").decode()


def _dot_lines(drawing: Drawing, prefix: str) -> Iterator[str]:
    for i, box in enumerate(drawing.boxes):
        label = r"\n".join(_quoted(line) for line in (box.title, *box.lines))
        if box.inside is None:
            yield f'{prefix}{i} [label="{label}", fillcolor="{box.tint}"];'
        else:
            yield f'subgraph cluster_{prefix}{i} {{ label="{label}";'
            yield from (f"  {line}" for line in _dot_lines(box.inside, f"{prefix}{i}_"))
            yield "}"
    for a, b in drawing.edges:
        # Between clusters an arrow joins boxes inside them and is cut at the border.
        cut = [f"ltail=cluster_{prefix}{a}"] * (drawing.boxes[a].inside is not None)
        cut += [f"lhead=cluster_{prefix}{b}"] * (drawing.boxes[b].inside is not None)
        ends = f"{_dot_end(drawing, a, prefix, last=True)} -> {_dot_end(drawing, b, prefix, last=False)}"
        yield f"{ends} [{', '.join(cut)}];" if cut else f"{ends};"


def _dot_end(drawing: Drawing, i: int, prefix: str, last: bool) -> str:
    inside = drawing.boxes[i].inside
    if inside is None:
        return f"{prefix}{i}"
    return _dot_end(inside, len(inside.boxes) - 1 if last else 0, f"{prefix}{i}_", last)


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')


# ---- the picture --------------------------------------------------------------------------------------------------

SIZE, STEP, PAD, HEAD = 10.0, 14.0, 8.0, 20.0  # of letters, lines, margins and titles, in points (1/72 inch)
GAPS, LANE, MARGIN, ROUND = (22.0, 26.0), 14.0, 12.0, 5.0


@dataclass
class _Placed:
    """A drawing with its boxes in place: centres, sizes and routes in points, y downwards."""

    drawing: Drawing
    inner: dict[int, _Placed]
    sizes: list[Point]
    centres: list[Point]
    routes: list[list[Point] | None]
    size: Point


def _figure(drawing: Drawing, rankdir: Direction) -> Figure:
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        fix = "Install it with: pip install 'unilayers[plot]', or write a .dot file for Graphviz"
        raise UnilayersError("pictures of models need the package 'matplotlib'", fix=fix) from None
    placed = _place(drawing, rankdir)
    width, height = (side + 2 * MARGIN for side in placed.size)
    figure = Figure(figsize=(width / 72, height / 72))
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
    axes.axis("off")
    _draw(axes, placed, (MARGIN, MARGIN), rankdir, depth=0)
    return figure


def _place(drawing: Drawing, rankdir: Direction) -> _Placed:
    inner = {i: _place(box.inside, rankdir) for i, box in enumerate(drawing.boxes) if box.inside is not None}
    sizes = [_size(box, inner.get(i)) for i, box in enumerate(drawing.boxes)]
    flat = rankdir in ("LR", "RL")

    def turned(p: Point) -> Point:
        return p[::-1] if flat else p

    found = layered([turned(s) for s in sizes], drawing.edges, GAPS, LANE)
    size = turned(found.size)

    def placed(p: Point) -> Point:
        x, y = turned(p)
        return (size[0] - x if rankdir == "RL" else x, size[1] - y if rankdir == "BT" else y)

    routes = [None if route is None else [placed(p) for p in route] for route in found.routes]
    return _Placed(drawing, inner, sizes, [placed(c) for c in found.centres], routes, size)


def _size(box: Box, inner: _Placed | None) -> Point:
    width = max([_width(box.title, bold=True), *(_width(line) for line in box.lines)]) + 2 * PAD
    height = HEAD + (STEP * len(box.lines) + PAD if box.lines else 0.0)
    if inner is None:
        return max(width, 60.0), height
    return max(width, inner.size[0] + 2 * MARGIN), height + inner.size[1] + 2 * MARGIN


@cache
def _width(text: str, bold: bool = False) -> float:
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextPath

    font = FontProperties(size=SIZE, weight="bold" if bold else "normal")
    # A bitmap has letters a little wider than their outlines.
    return 1.04 * float(TextPath((0, 0), text.replace("$", r"\$"), prop=font).get_extents().width)


def _draw(axes: Any, placed: _Placed, origin: Point, rankdir: Direction, depth: int) -> None:
    from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
    from matplotlib.path import Path as Curve

    flat = rankdir in ("LR", "RL")
    for i, (box, (w, h), centre) in enumerate(zip(placed.drawing.boxes, placed.sizes, placed.centres, strict=True)):
        x, y = origin[0] + centre[0] - w / 2, origin[1] + centre[1] - h / 2
        inside = placed.inner.get(i)
        outline = FancyBboxPatch(
            (x, y), w, h, boxstyle=f"round,pad=0,rounding_size={ROUND}", linewidth=0.9, edgecolor=FAINT,
            facecolor="white" if inside is None else ("#f7f9fa", "#eff2f4")[depth % 2], zorder=2,
            linestyle="-" if inside is None else (0, (4, 3)),
        )  # fmt: skip
        axes.add_patch(outline)
        head = FancyBboxPatch((x, y), w, HEAD, boxstyle="square,pad=0", linewidth=0, facecolor=box.tint, zorder=2.1)
        axes.add_patch(head)
        head.set_clip_path(outline)
        frame = FancyBboxPatch(
            (x, y), w, h, boxstyle=f"round,pad=0,rounding_size={ROUND}", linewidth=0.9, edgecolor=FAINT,
            facecolor="none", zorder=2.2, linestyle=outline.get_linestyle(),
        )  # fmt: skip
        axes.add_patch(frame)
        told = {"ha": "center", "va": "center", "fontsize": SIZE, "color": INK, "zorder": 3, "parse_math": False}
        axes.text(x + w / 2, y + HEAD / 2, box.title, fontweight="bold", **told)
        for k, line in enumerate(box.lines):
            axes.text(x + w / 2, y + HEAD + PAD / 2 + STEP * (k + 0.5), line, **told)
        if inside is not None:
            below = (y + h - MARGIN - inside.size[1], x + (w - inside.size[0]) / 2)
            _draw(axes, inside, below[::-1], rankdir, depth + 1)
    for number, route in enumerate(placed.routes):
        points, codes = _curve(route, flat) if route else _loop(placed, placed.drawing.edges[number][0])
        moved = [(origin[0] + px, origin[1] + py) for px, py in points]
        arrow = FancyArrowPatch(
            path=Curve(moved, codes), arrowstyle="-|>,head_length=4.5,head_width=2.4", linewidth=1.1, color=INK,
            mutation_scale=1, shrinkA=0, shrinkB=0, joinstyle="miter", zorder=1.5 if depth == 0 else 2.5, fill=True,
        )  # fmt: skip
        axes.add_patch(arrow)


def _curve(route: list[Point], flat: bool) -> tuple[list[Point], list[int]]:
    """The route as one line: straight along the rows it crosses, bent between them."""
    points, codes = [route[0]], [1]  # codes of matplotlib: 1 go to, 2 straight, 4 cubic
    for k, (x, y) in enumerate(route[1:]):
        px, py = points[-1]
        if k % 2 == 0:
            if math.dist((px, py), (x, y)) > 0.01:  # an arrow needs to see where its last piece points
                points.append((x, y))
                codes.append(2)
            continue
        points += [((px + x) / 2, py), ((px + x) / 2, y)] if flat else [(px, (py + y) / 2), (x, (py + y) / 2)]
        points.append((x, y))
        codes += [4, 4, 4]
    return points, codes


def _loop(placed: _Placed, i: int) -> tuple[list[Point], list[int]]:
    """From the right side of a box to itself."""
    (w, h), (x, y) = placed.sizes[i], placed.centres[i]
    right, out = x + w / 2, 1.2 * MARGIN
    return [(right, y - h / 4), (right + out, y - h / 4), (right + out, y + h / 4), (right, y + h / 4)], [1, 4, 4, 4]


# ---- the two functions --------------------------------------------------------------------------------------------


def model_to_dot(
    model: Model,
    show_shapes: bool = False,
    show_dtype: bool = False,
    show_layer_names: bool = True,
    rankdir: Direction = "TB",
    expand_nested: bool = False,
    dpi: int = 200,
    subgraph: bool = False,
    show_layer_activations: bool = False,
    show_trainable: bool = False,
    splines: str = "ortho",
    *,
    layer_range: Sequence[str] | None = None,
) -> Dot:
    """A model as a graph in Graphviz's language, which can also be drawn without Graphviz.

    Args:
        model: The model. One with a ``call`` of its own is a single box.
        show_shapes: As in `plot_model`, and so are the others.
        show_dtype: Dtypes of the outputs.
        show_layer_names: Names beside the classes.
        rankdir: Where the arrows point.
        expand_nested: Whether to show what models inside are made of.
        dpi: Dots per inch of a bitmap.
        subgraph: Whether the text is a cluster for another graph.
        show_layer_activations: Activations of layers that have one.
        show_trainable: Whether weights are trained.
        splines: How Graphviz is to draw the arrows; pictures drawn here have curves.
        layer_range: Names of the first and the last layer to show, or patterns of names.

    Example:
        >>> from unilayers import Input, Sequential, layers
        >>> print(model_to_dot(Sequential([Input((4,), name="x"), layers.Dense(2)])))
        digraph model {
          rankdir=TB;
          dpi=200;
          splines=ortho;
          compound=true;
          node [shape=box, style="rounded,filled", fontname="Helvetica"];
          n0 [label="x (InputLayer)", fillcolor="#e3e7eb"];
          n1 [label="dense (Dense)", fillcolor="#d9d7f1"];
          n0 -> n1;
        }
        <BLANKLINE>
    """
    told = (show_shapes, show_dtype, show_layer_names, expand_nested, show_layer_activations, show_trainable)
    return Dot(_drawing(model, *told, layer_range), rankdir, dpi, splines, subgraph)


def plot_model(
    model: Model,
    to_file: str | PathLike[str] | None = "model.png",
    show_shapes: bool = False,
    show_dtype: bool = False,
    show_layer_names: bool = False,
    rankdir: Direction = "TB",
    expand_nested: bool = False,
    dpi: int = 200,
    show_layer_activations: bool = False,
    show_trainable: bool = False,
    splines: str = "ortho",
    *,
    layer_range: Sequence[str] | None = None,
) -> Any:
    """Draw a model and write the picture to a file. Needs matplotlib, but not Graphviz.

    Args:
        model: The model. One with a ``call`` of its own is a single box.
        to_file: The file: PNG, SVG, PDF, JPEG, or DOT text for Graphviz, by its suffix. None writes none.
        show_shapes: Shapes of input and output.
        show_dtype: Dtypes of the outputs.
        show_layer_names: Names beside the classes.
        rankdir: Where the arrows point: "TB" down, "BT" up, "LR" to the right, "RL" to the left.
        expand_nested: Whether to show what models inside are made of.
        dpi: Dots per inch of a bitmap.
        show_layer_activations: Activations of layers that have one.
        show_trainable: Whether weights are trained.
        splines: Only for DOT: how Graphviz is to draw the arrows.
        layer_range: Names of the first and the last layer to show, or patterns of names.

    Returns:
        In a notebook the picture, else None.

    Raises:
        UnilayersError: for an unknown format or direction, something that is no model, or without matplotlib.
    """
    dot = model_to_dot(
        model, show_shapes, show_dtype, show_layer_names, rankdir, expand_nested, dpi, False, show_layer_activations,
        show_trainable, splines, layer_range=layer_range,
    )  # fmt: skip
    if to_file is not None:
        dot.write(to_file)
    in_notebook = "ipykernel" in sys.modules
    return dot if in_notebook else None
