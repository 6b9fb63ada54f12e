"""Pictures of models: the layout's promises on random graphs, what is drawn, and the files."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import unilayers as ul
from unilayers import layers, utils
from unilayers.errors import UnilayersError
from unilayers.utils.layout import Layout, layered
from unilayers.utils.plot import Drawing, _curve, _place

pytest.importorskip("matplotlib")

GAPS, LANE = (5.0, 10.0), 2.0


# ---- models -------------------------------------------------------------------------------------------------------


def stack() -> ul.Model:
    return ul.Sequential([ul.Input((4,), name="x"), layers.Dense(3, activation="relu"), layers.Dense(2)], name="stack")


def residual() -> ul.Model:
    x = inputs = ul.Input((8, 8, 4), name="image")
    for width in (4, 4, 8):
        y = layers.Conv2D(width, 3, padding="same", activation="relu")(x)
        y = layers.BatchNormalization()(layers.Conv2D(width, 3, padding="same")(y))
        shortcut = x if width == 4 else layers.Conv2D(width, 1)(x)
        x = layers.ReLU()(layers.Add()([y, shortcut]))
    return ul.Model(inputs, layers.Dense(2)(layers.GlobalAveragePooling2D()(x)))


def inception() -> ul.Model:
    x = ul.Input((8, 8, 4))
    branches = [
        layers.Conv2D(2, 1)(x),
        layers.Conv2D(2, 3, padding="same")(layers.Conv2D(2, 1)(x)),
        layers.Conv2D(2, 5, padding="same")(layers.Conv2D(2, 1)(x)),
        layers.Conv2D(2, 1)(layers.MaxPooling2D(3, 1, padding="same")(x)),
    ]
    return ul.Model(x, layers.Concatenate()(branches))


def siamese() -> ul.Model:
    """Two inputs, a shared nested model, two outputs, ops."""
    left, right = ul.Input((8,), name="left"), ul.Input((8,), name="right")
    encoder = ul.Sequential([ul.Input((8,)), layers.Dense(4)], name="encoder")
    a, b = encoder(left), encoder(right)
    return ul.Model([left, right], [layers.Dense(1)(a - b), layers.Dense(2)(layers.Concatenate()([a, b]))])


def looped() -> ul.Model:
    """A layer that is called on its own output."""
    x = ul.Input((6,))
    shared = layers.Dense(6)
    return ul.Model(x, layers.ReLU()(shared(layers.ReLU()(shared(shared(x))))))


class Written(ul.Model):
    """A model with a call of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = layers.Dense(3)

    def call(self, x: Any) -> Any:
        return self.inner(x)


MODELS: list[Callable[[], ul.Model]] = [stack, residual, inception, siamese, looped, Written]


# ---- the layout ---------------------------------------------------------------------------------------------------


def check_layout(sizes: list[tuple[float, float]], edges: list[tuple[int, int]], found: Layout) -> None:
    """Boxes are apart and inside, routes lead from border to border and through no box."""
    boxes = [(x - w / 2, y - h / 2, x + w / 2, y + h / 2) for (x, y), (w, h) in zip(found.centres, sizes, strict=True)]
    for left, top, right, bottom in boxes:
        assert left >= -1e-6 and top >= -1e-6 and right <= found.size[0] + 1e-6 and bottom <= found.size[1] + 1e-6
    for a, b in itertools.combinations(boxes, 2):
        across = max(a[0], b[0]) - min(a[2], b[2])
        along = max(a[1], b[1]) - min(a[3], b[3])
        assert across >= GAPS[0] - 1e-6 or along >= GAPS[1] - 1e-6, "boxes overlap"
    for (a, b), route in zip(edges, found.routes, strict=True):
        if a == b:
            assert route is None
            continue
        assert route is not None
        assert route[0][0] == pytest.approx(found.centres[a][0]) and route[-1][0] == pytest.approx(found.centres[b][0])
        assert min(abs(route[0][1] - boxes[a][k]) for k in (1, 3)) < 1e-6
        assert min(abs(route[-1][1] - boxes[b][k]) for k in (1, 3)) < 1e-6
        for (x, y), (_, y2) in list(itertools.pairwise(route))[::2]:  # the straight parts
            for i, (left, top, right, bottom) in enumerate(boxes):
                inside = left < x < right and max(top, min(y, y2)) < min(bottom, max(y, y2)) - 1e-6
                assert not inside, f"the edge {a} -> {b} runs through box {i}"


@st.composite
def graphs(draw: st.DrawFn) -> tuple[list[tuple[float, float]], list[tuple[int, int]]]:
    n = draw(st.integers(1, 14))
    sides = st.integers(4, 30).map(float)
    pairs = st.tuples(st.integers(0, n - 1), st.integers(0, n - 1))
    return draw(st.lists(st.tuples(sides, sides), min_size=n, max_size=n)), draw(
        st.lists(pairs, max_size=25, unique=True)
    )


@settings(max_examples=150, deadline=None)
@given(graphs())
def test_layouts_of_any_graph(graph: tuple[list[tuple[float, float]], list[tuple[int, int]]]) -> None:
    sizes, edges = graph
    found = layered(sizes, edges, GAPS, LANE)
    check_layout(sizes, edges, found)
    assert found == layered(sizes, edges, GAPS, LANE)


def test_arrows_point_down_in_a_graph_without_cycles() -> None:
    edges = [(0, 1), (1, 2), (0, 2), (2, 5), (3, 4), (4, 5)]
    found = layered([(10.0, 4.0)] * 6, edges, GAPS, LANE)
    assert all(found.centres[a][1] < found.centres[b][1] for a, b in edges)
    assert found.centres[4][1] == found.centres[2][1]  # a late input stands late


def test_a_chain_with_shortcuts_is_straight() -> None:
    chain = [(i, i + 1) for i in range(9)]
    found = layered([(10.0 + i % 3, 4.0) for i in range(10)], [*chain, (0, 3), (3, 6), (6, 9)], GAPS, LANE)
    assert np.ptp([x for x, _ in found.centres]) < 0.5


def test_crossings_are_avoided() -> None:
    # Three branches whose ends were given in the reverse order.
    edges = [(0, 1), (0, 2), (0, 3), (1, 6), (2, 5), (3, 4)]
    found = layered([(8.0, 4.0)] * 7, edges, GAPS, LANE)
    order = sorted((1, 2, 3), key=lambda i: found.centres[i])
    assert [{1: 6, 2: 5, 3: 4}[i] for i in order] == sorted((4, 5, 6), key=lambda i: found.centres[i])


# ---- what is drawn ------------------------------------------------------------------------------------------------


def drawing(model: ul.Model, **told: Any) -> Drawing:
    return utils.model_to_dot(model, **told).drawing


def titles(drawn: Drawing) -> list[str]:
    return [box.title for box in drawn.boxes]


def test_a_stack() -> None:
    drawn = drawing(stack(), show_shapes=True, show_dtype=True, show_layer_activations=True, show_trainable=True)
    assert titles(drawn) == ["x (InputLayer)", "dense (Dense)", "dense_1 (Dense)"] and drawn.edges == [(0, 1), (1, 2)]
    assert drawn.boxes[0].lines == ["dtype: float32", "output: (None, 4)"]
    assert drawn.boxes[1].lines == [
        "activation: relu", "dtype: float32", "input: (None, 4)", "output: (None, 3)", "trainable"
    ]  # fmt: skip
    model = stack()
    model.layers[0].trainable = False
    assert drawing(model, show_trainable=True).boxes[1].lines == ["not trainable"]
    assert titles(drawing(stack(), show_layer_names=False)) == ["InputLayer", "Dense", "Dense"]


def test_branches_and_shared_layers() -> None:
    drawn = drawing(siamese(), show_shapes=True)
    names = titles(drawn)
    assert names == [
        "left (InputLayer)", "right (InputLayer)", "encoder (Sequential)", "subtract", "dense (Dense)",
        "concatenate (Concatenate)", "dense_1 (Dense)",
    ]  # fmt: skip
    edges = {(names[a].split()[0], names[b].split()[0]) for a, b in drawn.edges}
    assert edges == {
        ("left", "encoder"), ("right", "encoder"), ("encoder", "subtract"), ("subtract", "dense"),
        ("encoder", "concatenate"), ("concatenate", "dense_1"),
    }  # fmt: skip
    assert drawn.boxes[5].lines == ["input: (None, 4), (None, 4)", "output: (None, 8)"]
    assert (1, 1) in drawing(looped()).edges
    x = ul.Input((3,))
    assert drawing(ul.Model(x, layers.Add()([x, x]))).edges == [(0, 1)]


def test_nested_models_are_opened_on_demand() -> None:
    assert all(box.inside is None for box in drawing(siamese()).boxes)
    box = drawing(siamese(), expand_nested=True).boxes[2]
    assert box.inside is not None and titles(box.inside) == ["input (InputLayer)", "dense (Dense)"]


def test_a_model_with_a_call_of_its_own_is_a_box() -> None:
    model = Written()
    assert titles(drawing(model, show_shapes=True)) == ["written (Written)"]
    assert drawing(model, show_shapes=True).boxes[0].lines == ["input: ?", "output: ?"]
    model.predict(np.ones((2, 5), "float32"), verbose=0)
    assert drawing(model, show_shapes=True).boxes[0].lines == ["input: (None, 5)", "output: (None, 3)"]


def test_layer_ranges() -> None:
    assert titles(drawing(stack(), layer_range=["dense_1", "dense_1"])) == ["dense_1 (Dense)"]
    assert titles(drawing(stack(), layer_range=["dense", "dense_1"]))[0] == "x (InputLayer)"
    part = drawing(residual(), layer_range=["re_lu$", "add_1"])
    assert titles(part)[0] == "re_lu (ReLU)" and titles(part)[-1] == "add_1 (Add)" and len(part.edges) == 5
    for wrong, message in ((["dense"], "not a range"), (["dense", "nothing"], "no layer 'nothing'")):
        with pytest.raises(UnilayersError, match=message):
            utils.model_to_dot(stack(), layer_range=wrong)


@pytest.mark.parametrize("make", MODELS)
@pytest.mark.parametrize("rankdir", ["TB", "BT", "LR", "RL"])
def test_boxes_of_models_do_not_overlap(make: Callable[[], ul.Model], rankdir: Any) -> None:
    def check(placed: Any) -> None:
        boxes = list(zip(placed.centres, placed.sizes, strict=True))
        for ((x, y), (w, h)), ((x2, y2), (w2, h2)) in itertools.combinations(boxes, 2):
            assert abs(x - x2) > (w + w2) / 2 or abs(y - y2) > (h + h2) / 2
        for (x, y), (w, h) in boxes:
            assert w / 2 <= x + 1e-6 <= placed.size[0] - w / 2 + 2e-6
            assert h / 2 <= y + 1e-6 <= placed.size[1] - h / 2 + 2e-6
        for i, inner in placed.inner.items():
            assert inner.size[0] < placed.sizes[i][0] and inner.size[1] < placed.sizes[i][1]
            check(inner)

    placed = _place(drawing(make(), expand_nested=True, show_shapes=True), rankdir)
    check(placed)
    axis, sign = {"TB": (1, 1), "BT": (1, -1), "LR": (0, 1), "RL": (0, -1)}[rankdir]
    if make is residual:
        assert all(sign * placed.centres[a][axis] < sign * placed.centres[b][axis] for a, b in placed.drawing.edges)


# ---- files --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("suffix", "head"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF"), ("dot", b"digraph")]
)
def test_files(tmp_path: Path, suffix: str, head: bytes) -> None:
    path = tmp_path / f"model.{suffix}"
    assert utils.plot_model(siamese(), path, expand_nested=True, show_shapes=True) is None
    assert path.read_bytes().startswith(head)
    again = tmp_path / f"again.{suffix}"
    utils.plot_model(siamese(), again, expand_nested=True, show_shapes=True)
    assert path.read_bytes() == again.read_bytes()


def test_dots_per_inch_and_what_stands_in_a_picture(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    sizes = []
    for dpi in (50, 100):
        utils.plot_model(stack(), str(tmp_path / "x.png"), dpi=dpi)
        sizes.append(image.open(tmp_path / "x.png").size)
    assert all(abs(b - 2 * a) <= 2 for a, b in zip(*sizes, strict=True))
    text = utils.model_to_dot(stack()).create(format="svg").decode()
    for name in ("x (InputLayer)", "dense (Dense)", "dense_1 (Dense)"):
        assert f">{name}<" in text
    assert "<svg" in utils.model_to_dot(stack())._repr_svg_()


def test_dot_text() -> None:
    dot = utils.model_to_dot(siamese(), expand_nested=True, rankdir="LR", subgraph=True)
    text = dot.to_string()
    assert text == str(dot) and text.startswith("subgraph cluster_model {\n  rankdir=LR;")
    assert 'subgraph cluster_n2 { label="encoder (Sequential)";' in text
    assert "n0 -> n2_0 [lhead=cluster_n2];" in text and "n2_1 -> n3 [ltail=cluster_n2];" in text
    quoted = ul.Sequential([layers.Dense(2, name='a"b')], name="m")
    assert r'label="a\"b (Dense)"' in utils.model_to_dot(quoted).to_string()


def test_plot_rejects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for action, message in (
        (lambda: utils.plot_model(stack(), tmp_path / "x.doc"), "unknown format 'doc'"),
        (lambda: utils.plot_model(stack(), tmp_path / "x.png", rankdir="UP"), "unknown rankdir 'UP'"),
        (lambda: utils.plot_model(layers.Dense(2), tmp_path / "x.png"), "not a model"),
    ):
        with pytest.raises(UnilayersError, match=message):
            action()
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(UnilayersError, match=r"pip install 'unilayers\[plot\]', or write a .dot file"):
        utils.plot_model(stack(), tmp_path / "x.png")
    utils.plot_model(stack(), tmp_path / "x.dot")


@pytest.mark.parametrize("rankdir", ["TB", "BT", "LR", "RL"])
@pytest.mark.parametrize("make", MODELS)
def test_the_last_piece_of_an_arrow_has_a_direction(make: Callable[[], ul.Model], rankdir: Any) -> None:
    placed = _place(drawing(make(), show_shapes=True), rankdir)
    for route in filter(None, placed.routes):
        points, codes = _curve(route, rankdir in ("LR", "RL"))
        assert len(points) == len(codes) and codes[0] == 1
        assert np.linalg.norm(np.subtract(points[-1], points[-2])) > 1
