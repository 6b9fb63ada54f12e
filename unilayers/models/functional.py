"""A model from symbolic values: branches, several inputs and outputs, shared layers, nested models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from unilayers import ops
from unilayers.custom import custom_object_scope
from unilayers.errors import GraphError, UnilayersError
from unilayers.graph import OPS, Node, Value, is_tracing, tracing
from unilayers.graph.passes import map_attr
from unilayers.graph.serialize import decode_attrs, encode_attrs
from unilayers.layers.base import Call, Layer
from unilayers.models.model import Model, data_dtype
from unilayers.models.sequential import _common
from unilayers.models.texts import Ready, as_texts, reads_text
from unilayers.ops.define import bind, constant_beside
from unilayers.registry import resolve, serialize
from unilayers.spec import Dim, evaluate
from unilayers.structure import leaves_of, map_structure


class Functional(Model, abstract=True):
    """What ``Model(inputs, outputs)`` returns: the layer calls between inputs and outputs, replayed on any data.

    Args:
        inputs: ``Input`` values: one, a list or a dict.
        outputs: Values computed from them: one, a list or a dict.
        name: Name of the model.
        trainable: Whether training updates the weights.
        dtype: Dtype policy of the layers.
        seed: Of initial weights, random masks and batch order.

    Raises:
        GraphError: if an output needs a value that is not among the inputs.
    """

    def __init__(
        self,
        inputs: Any,
        outputs: Any,
        *,
        name: str | None = None,
        trainable: bool = True,
        dtype: str | None = None,
        seed: int | None = None,
    ) -> None:
        super().__init__(name=name or "functional", trainable=trainable, dtype=dtype, seed=seed)
        # In tuples inside a holder, since lists of values among attributes would be searched for layers.
        self._inputs, self._outputs = inputs, outputs
        self._plan = _plan(leaves_of(inputs), leaves_of(outputs))
        self._texts, self._frontier = _split(self._plan, self.inputs, self.outputs)
        self._heads = tuple(map(_head, self.inputs))
        for step in self._plan:
            if isinstance(step, Call):
                self._adopt(step.layer)
        object.__setattr__(self, "built", True)

    def _taken_in(self, compute_dtype: str) -> str:
        return data_dtype(compute_dtype)  # the layers cast what they take

    @property
    def input_structure(self) -> Any:
        return self._inputs

    @property
    def output_layers(self) -> list[Layer | None]:
        return [None if v.origin is None else v.origin.layer for v in self.outputs]

    @property
    def layers(self) -> list[Layer]:
        """The layers, those first that are farthest from the outputs, an ``InputLayer`` for each input included."""
        depth: dict[int, int] = {}  # of values: how many steps, at most, to an output
        deepest: dict[Layer, int] = {}
        for step in reversed(self._plan):
            above = 1 + max(depth.get(id(v), 0) for v in leaves_of(step.outputs))
            if isinstance(step, Call):
                deepest[step.layer] = above = max(above, deepest.get(step.layer, 0))
            depth.update({id(v): max(above, depth.get(id(v), 0)) for v in step.inputs})
        heads = dict(zip(map(id, self.inputs), self._heads, strict=True))
        deepest |= {heads[id(v)]: 1 + depth.get(id(v), 0) for v in self.inputs}
        met: dict[Layer, int] = {}  # among equals, those first that are met first on the way from the outputs
        seen, stack = set[int](), self.outputs[::-1]
        while stack:
            v = stack.pop()
            maker: Any = heads.get(id(v)) or v.origin or v.node
            if id(maker) in seen:
                continue
            seen.add(id(maker))
            layer = maker.layer if isinstance(maker, Call) else maker
            if isinstance(layer, Layer):
                met.setdefault(layer, len(met))
            if maker is not layer or isinstance(maker, Node):
                stack.extend(maker.inputs[::-1])
        return sorted(deepest, key=lambda layer: (-deepest[layer], met.get(layer, 0)))

    @property
    def input(self) -> Any:
        """The symbolic inputs, as given."""
        return self._inputs

    @property
    def output(self) -> Any:
        """The symbolic outputs, as given."""
        return self._outputs

    @property
    def inputs(self) -> list[Value]:
        """The symbolic inputs as a list."""
        return leaves_of(self._inputs)

    @property
    def outputs(self) -> list[Value]:
        """The symbolic outputs as a list."""
        return leaves_of(self._outputs)

    @property
    def graph_inputs(self) -> Any:
        return Ready(self._frontier) if self._texts else self._inputs

    def arranged(self, x: Any) -> Any:
        x = super().arranged(x)
        if not self._texts:
            return x
        known = dict(zip(self.inputs, self._texts_among(x), strict=True))
        for step in self._texts:
            _run(step, known)
        return Ready(known[v] for v in self._frontier)

    def _texts_among(self, x: Any) -> list[Any]:
        """Data for each input, texts as arrays; a list of texts is data for one input."""
        given = [x] if isinstance(self._inputs, Value) else _aligned(self._inputs, x, self.where)
        return [as_texts(a, v) for a, v in zip(given, self.inputs, strict=True)]

    def call(self, x: Any) -> Any:
        known: dict[Value, Any] = {}
        ready = isinstance(x, Ready)
        begin = self._frontier if ready else self.inputs
        given = list(x) if ready else _aligned(self._inputs, x, self.where)
        sizes: dict[str, Any] = {}
        for value, data in zip(begin, given, strict=True):
            known[value] = data
            for want, have in zip(value.shape, ops.shape_of(data), strict=False):
                if isinstance(want, Dim) and len(want.terms) == 1:
                    sizes.update(dict.fromkeys(want.symbols(), have))

        def now(value: Any) -> Any:
            return known[value] if isinstance(value, Value) else value

        for step in self._plan:
            if ready and step in self._texts:
                continue
            if isinstance(step, Call):
                _run(step, known)
            else:
                made = _replay(step, [now(v) for v in step.inputs], sizes, given[0])
                known.update(zip(step.outputs, made, strict=True))
        return map_structure(now, self._outputs)

    # ---- config: a list of steps that name their operands

    def get_config(self) -> dict[str, Any]:
        number: dict[Value, list[int]] = {v: [-1, i] for i, v in enumerate(self.inputs)}
        steps = []
        for i, step in enumerate(self._plan):
            outputs = leaves_of(step.outputs)
            number.update({v: [i, j] for j, v in enumerate(outputs)})

            def refer(x: Any) -> Any:
                return {"ref": number[x]} if isinstance(x, Value) else x

            if isinstance(step, Call):
                entry = {
                    "layer": step.layer.name,
                    "args": map_structure(refer, list(step.args)),
                    "kwargs": map_structure(refer, step.kwargs),
                }
            else:
                entry = {"op": step.op, "args": [refer(v) for v in step.inputs], "attrs": encode_attrs(step.attrs)}
            steps.append(entry)
        from unilayers.layers.core import InputLayer

        return {
            "name": self.name,
            "inputs": map_structure(lambda v: {"input": InputLayer.of(v).get_config()}, self._inputs),
            "layers": [serialize(layer) for layer in self._sublayers],
            "names": [layer.name for layer in self._sublayers],
            "steps": steps,
            "outputs": map_structure(lambda v: {"ref": number[v]}, self._outputs),
        } | _common(self)

    @classmethod
    def from_config(cls, config: Mapping[str, Any], custom_objects: Mapping[str, Any] | None = None) -> Any:
        from unilayers.layers.core import InputLayer

        config = dict(config)
        with custom_object_scope(custom_objects):
            made = [resolve(Layer.registry, c) for c in config.pop("layers")]
        for layer, name in zip(made, config.pop("names", [layer.name for layer in made]), strict=True):
            layer.name = name  # which a class whose __init__ takes none does not have in its config
        layers = {layer.name: layer for layer in made}
        inputs = _restore(config.pop("inputs"), "input", lambda c: InputLayer(**c).symbolic_input())
        results: list[list[Any]] = [leaves_of(inputs)]  # [-1 + 1] are the inputs

        def value(ref: list[int]) -> Any:
            return results[ref[0] + 1][ref[1]]

        for step in config.pop("steps"):
            args = _restore(step["args"], "ref", value)
            if "layer" in step:
                out = layers[step["layer"]](*args, **_restore(step["kwargs"], "ref", value))
            else:
                with tracing():
                    out = bind(OPS[step["op"]], args, decode_attrs(step["attrs"]))
            results.append(leaves_of(out))
        outputs = _restore(config.pop("outputs"), "ref", value)
        return Functional(inputs, outputs, **config)


Layer.registry.register(Functional, "Functional")


def _head(value: Value) -> Layer:
    """The input layer of a symbolic input."""
    from unilayers.layers.core import InputLayer

    layer = InputLayer.of(value)
    call = Call(layer, (value,), {})
    call.outputs = value
    layer._calls.append(call)
    return layer


def _run(step: Call, known: dict[Value, Any]) -> None:
    """Call a layer on what is known, and know more."""

    def now(value: Any) -> Any:
        return known[value] if isinstance(value, Value) else value

    result = step.layer(*map_structure(now, step.args), **map_structure(now, step.kwargs))
    known.update(zip(leaves_of(step.outputs), leaves_of(result), strict=True))


def _split(plan: list[Call | Node], inputs: list[Value], outputs: list[Value]) -> tuple[list[Any], list[Value]]:
    """The steps that read texts, and the values that the others begin with."""
    texts = [step for step in plan if isinstance(step, Call) and reads_text(step.inputs)]
    if not texts and not reads_text(inputs):
        return [], inputs
    there = dict.fromkeys([*inputs, *(v for step in texts for v in leaves_of(step.outputs))])
    wanted = {v for step in plan if step not in texts for v in step.inputs} | set(outputs)
    frontier = [v for v in there if v in wanted]
    if reads_text(frontier):
        raise GraphError(
            "texts come out of the model", fix="Let a layer make numbers of them, or call the layers alone"
        )
    return texts, frontier


def _restore(structure: Any, mark: str, make: Any) -> Any:
    """Replace every ``{mark: x}`` in nested lists and dicts by ``make(x)``."""
    if isinstance(structure, dict):
        if set(structure) == {mark}:
            return make(structure[mark])
        return {k: _restore(v, mark, make) for k, v in structure.items()}
    if isinstance(structure, (list, tuple)):
        return [_restore(v, mark, make) for v in structure]
    return structure


def _replay(node: Node, inputs: list[Any], sizes: Mapping[str, Any], like: Any) -> list[Any]:
    def concrete(attr: Any) -> Any:
        known = isinstance(attr, Dim) and attr.symbols() <= sizes.keys()
        return evaluate(attr, sizes) if known else attr

    attrs = {k: map_attr(v, concrete) for k, v in node.attrs.items()}
    if node.op == "constant":
        return [node.outputs[0] if is_tracing() else constant_beside(like, attrs["value"])]
    result = bind(OPS[node.op], inputs, attrs)
    return list(result) if node.multiple else [result]


def _aligned(declared: Any, given: Any, where: str) -> list[Any]:
    """The data in the order of the declared inputs; a dict is matched by the inputs' keys or names."""
    wanted = leaves_of(declared)
    if isinstance(given, dict):
        names = list(declared) if isinstance(declared, dict) else [v.node.attrs["name"] for v in wanted]
        missing = [n for n in names if n not in given]
        if missing:
            raise UnilayersError(
                f"no data for input {missing[0]!r}", where=where, expected=str(names), received=str(list(given))
            )
        return [given[n] for n in names]
    data = leaves_of(given)
    if len(data) != len(wanted):
        raise UnilayersError("wrong number of inputs", where=where, expected=str(len(wanted)), received=str(len(data)))
    return data


def _plan(inputs: list[Value], outputs: list[Value]) -> list[Call | Node]:
    """The layer calls and ops that lead from inputs to outputs, in order."""
    for v in inputs:
        if not isinstance(v, Value) or v.node.op != "input" or v.origin is not None:
            raise GraphError("a model's inputs must be Input values", received=repr(v))
    found: dict[int, tuple[int, Any]] = {}
    stack = list(outputs)
    while stack:
        v = stack.pop()
        if v in inputs:
            continue
        step = v.origin if v.origin is not None else v.node
        if id(step) in found:
            continue
        if v.origin is None and v.node.op == "input":
            raise GraphError(
                "an output needs an Input that is not listed",
                received=repr(v.node.attrs["name"]),
                fix="Add it to the inputs",
            )
        first = leaves_of(step.outputs)[0]
        found[id(step)] = (first.node.serial, step)
        stack.extend(step.inputs)
    return [step for _, step in sorted(found.values(), key=lambda pair: pair[0])]
