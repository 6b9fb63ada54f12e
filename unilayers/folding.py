"""Dynamic batching: plain Python over one example at a time, run as few large ops over all examples.

``fold(function, examples)`` calls the function on every example with recording on: an op computes nothing, it only
notes its operands. Then equal ops on equal shapes, of all examples and of all places inside them, run together on
stacked operands. So a recursive network over trees of all shapes costs about as many ops as its deepest tree.

Reference:
    Looks, Herreshoff, Hutchins, Norvig, Deep Learning with Dynamic Computation Graphs, 2017, arXiv 1702.02181.
    Neubig, Goldberg, Dyer, On-the-fly Operation Batching in Dynamic Computation Graphs, 2017, arXiv 1705.07860.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from unilayers import ops
from unilayers.backend import get_backend
from unilayers.errors import ShapeError, UnilayersError
from unilayers.graph import OPS, Const, Graph, Op, Value, leaf
from unilayers.graph.operators import Operators
from unilayers.graph.passes import eliminate_common, lower, simplify
from unilayers.layers.base import current_phase, place_of
from unilayers.ops.batching import RULES, run_stacked, spread
from unilayers.ops.define import DEFER, TAPES, TRACE, Box, bind, boxed, home
from unilayers.spec import Spec, dtype_name
from unilayers.structure import leaves_of, map_structure, pack_like
from unilayers.variable import Trace, autocast, autocast_dtype, reading_at, trace_into

NUMBERS = (bool, int, float)
MANY = 16  # forms of arguments after which the calls of a layer are noted op by op

# ---- what is recorded -------------------------------------------------------


class Kind:
    """Shape and dtype, one object for each pair."""

    __slots__ = ("dtype", "shape")

    def __init__(self, shape: tuple[Any, ...], dtype: str) -> None:
        self.shape, self.dtype = shape, dtype


class Signature:
    """What calls that may run together have in common: the op, its attributes and the kinds of its operands.

    In place of an op there may be a ``Block``, or the number of the one result that is wanted of the operand.
    ``kind`` is that of the result, or a tuple of kinds. ``order`` counts signatures. ``parts`` are the signatures of
    picking the results where there are several.
    """

    __slots__ = ("attrs", "does", "kind", "order", "parts", "target")

    def __init__(
        self, does: Op | Block | int, attrs: dict[str, Any], kind: Any, order: int, target: str | None = None
    ) -> None:
        self.does, self.attrs, self.kind, self.order, self.target = does, attrs, kind, order, target
        self.parts: tuple[Signature, ...] = ()


class Group:
    """Results that are kept together: stacked, a row for each call in order and perhaps more that mean nothing, or one
    for all calls if their operands were the same."""

    __slots__ = ("members", "rows", "uniform", "value")

    def __init__(self, members: Sequence[Lazy], value: Any, rows: int, uniform: bool) -> None:
        self.members, self.value, self.rows, self.uniform = members, value, rows, uniform


class Shared:
    """A variable as it was when it was read: the same in all calls."""

    __slots__ = ("kind", "value", "variable", "version")

    def __init__(self, variable: Any, version: Any, value: Any, kind: Kind) -> None:
        self.variable, self.version, self.value, self.kind = variable, version, value, kind


class Lazy(Operators):
    """The result of an op that has not run yet. Its shape and dtype are known; asking for its numbers runs what it
    needs, so ``if value > 0`` works, at the price of smaller batches."""

    __slots__ = ("__weakref__", "depth", "group", "operands", "recorder", "row", "signature", "uses")

    def __init__(self, recorder: Recorder, signature: Signature, operands: Sequence[Any], depth: int) -> None:
        self.recorder, self.signature, self.operands, self.depth = recorder, signature, operands, depth
        self.group: Group | None = None
        self.row = 0  # in the group
        self.uses = 0  # by calls that are about to run

    @property
    def shape(self) -> tuple[Any, ...]:
        return self.signature.kind.shape

    @property
    def dtype(self) -> str:
        return self.signature.kind.dtype

    @property
    def ndim(self) -> int:
        return len(self.signature.kind.shape)

    def as_operand(self, backend: Any, device: Any) -> Any:
        """The value, for ops that are not recorded."""
        return self.recorder.value(self)

    def place(self) -> Any:
        """Where new arrays that shall meet this one are put."""
        return self.recorder.place()

    def numpy(self) -> np.ndarray:
        """The values as a NumPy array."""
        return ops.to_numpy(self)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self.numpy(), dtype=dtype)

    def __float__(self) -> float:
        return float(self.numpy())

    def __int__(self) -> int:
        return int(self.numpy())

    def __bool__(self) -> bool:
        return bool(self.numpy())

    def __len__(self) -> int:
        return self.shape[0]

    def __iter__(self) -> Iterator[Any]:
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        return f"<Lazy shape={self.shape} dtype={self.dtype}>"


# ---- calls of layers and functions, as one ----------------------------------


class Block:
    """What a layer or a function does to arguments of some form, traced once: ops on numbered values.

    Args:
        graph: Its operands are the graph's inputs and then its state.
        variables: Those behind the state.
        structure: The nesting of the result.
    """

    def __init__(self, graph: Graph, variables: Sequence[Any], structure: Any) -> None:
        graph = eliminate_common(simplify(lower(graph, RULES)))
        numbers: dict[Value, int] = {}
        for v in (*graph.inputs, *graph.state):
            numbers[v] = len(numbers)
        self.constants: list[Const] = []
        rest = [n for n in graph.nodes if n.op not in ("input", "state")]
        for node in rest:
            if node.op == "constant":
                numbers[node.outputs[0]] = len(numbers)
                self.constants.append(node.attrs["value"])
        self.steps: list[tuple[Op, list[int], Any]] = []
        self.plural: list[bool] = []
        for node in rest:
            if node.op != "constant":
                self.steps.append((OPS[node.op], [numbers[v] for v in node.inputs], dict(node.attrs)))
                self.plural.append(node.multiple)
                for v in node.outputs:
                    numbers[v] = len(numbers)
        self.results = [numbers[v] for v in graph.outputs.values()]
        specs = tuple(v.spec for v in graph.outputs.values())
        self.specs: Any = specs if len(specs) > 1 else specs[0]
        self.variables, self._structure = tuple(variables), structure
        self._flat = type(structure) in (tuple, list) and not any(isinstance(x, (tuple, list, dict)) for x in structure)
        self.signature: Any = None
        self.shared: list[Shared] = []  # the variables as they were at the latest call

    def pack(self, results: Sequence[Any]) -> Any:
        """Results in their nesting."""
        return type(self._structure)(results) if self._flat else pack_like(self._structure, results)

    def run(self, operands: Sequence[Any], stacked: Sequence[bool], count: int, recorder: Recorder) -> Any:
        """The results for ``count`` calls, stacked unless no operand is."""
        values, ways = [*operands, *recorder.constants(self)], [*stacked, *([False] * len(self.constants))]
        for (op, places, attrs), plural in zip(self.steps, self.plural, strict=True):
            marks = [ways[i] for i in places]
            value = recorder.apply(op, [values[i] for i in places], marks, attrs, count)
            more = value if plural else (value,)
            values.extend(more)
            ways.extend([True in marks] * len(more))
        if True in stacked:
            found = [spread(values[i], ways[i], count) for i in self.results]
        else:
            found = [values[i] for i in self.results]
        return found[0] if len(found) == 1 else tuple(found)


class NotABlock(Exception):
    """What is called depends on more than the form of its arguments."""


def block_of(owner: Callable[..., Any], args: Any, kwargs: Any, specs: Sequence[Spec]) -> Block | None:
    """What ``owner`` does, as a block; None if it is not a function of its arguments and variables only."""
    inputs = [leaf("input", f"x{i}", spec) for i, spec in enumerate(specs)]
    given = iter(inputs)

    def symbolic(x: Any) -> Any:
        return next(given) if _is_data(x) else x

    trace, tapes = Trace(), TAPES.set(())
    try:
        with trace_into(trace):
            result = owner(*map_structure(symbolic, list(args)), **map_structure(symbolic, kwargs))
    except (UnilayersError, NotABlock):  # a condition on a number, for example
        return None
    finally:
        TAPES.reset(tapes)
    outputs = leaves_of(result)
    if trace.current or trace.losses or not outputs or not all(isinstance(y, Value) for y in outputs):
        return None
    graph = trace.graph(inputs, {f"y{i}": y for i, y in enumerate(outputs)})
    own = {v.node for v in (*graph.inputs, *graph.state)}
    if any(n.op in ("input", "state") and n not in own for n in graph.nodes):  # a value of a trace around this one
        return None
    return Block(graph, trace.variables, map_structure(lambda _: None, result))


def _is_data(x: Any) -> bool:
    return isinstance(x, Operators) or (hasattr(x, "shape") and hasattr(x, "dtype"))


# ---- the recorder -----------------------------------------------------------


class Recorder:
    """Notes calls of ops while it is on, and runs them in groups.

    Attributes:
        count: How many examples there are, if that is known.
        runs: How often each op ran so far, by name.
    """

    def __init__(self, count: int = 0) -> None:
        self.count = count
        self.runs: Counter[str] = Counter()
        self._signatures: dict[Any, Signature] = {}
        self._kinds: dict[Any, Kind] = {}
        self._shared: dict[int, Shared] = {}
        self._pending: list[Lazy] = []
        self._gathered: dict[Any, Any] = {}
        self._groups: list[Group] = []
        self._place: Any = None
        self._blocks: dict[Any, Block | None] = {}
        self._forms: Counter[Any] = Counter()
        self._constants: dict[Block, list[Any]] = {}
        self._orders = itertools.count()
        self._trace = TRACE.get()
        self.tracing = False

    # ---- noting

    def record(self, op: Op, operands: Sequence[Any], attrs: dict[str, Any]) -> Any:
        """A call of ``op``, noted: its result, or the tuple of its results, without numbers yet."""
        if TRACE.get() is not self._trace:  # something is traced on the way: its ops are not ours
            with not_recording():
                return bind(op, operands, attrs)
        if autocast_dtype() is not None:
            operands = [self._cast(x) for x in operands]
        if op.name not in RULES and op.expand is not None and operands:
            return op.expand(*map(boxed, operands), **attrs)
        key: list[Any] = [op]
        depth = 0
        for x in operands:
            if type(x) is not Lazy or x.recorder is not self:
                break
            key.append(x.signature.kind)
            if x.depth >= depth:
                depth = x.depth + 1
        else:
            return self._note(op, operands, attrs, key, depth)
        del key[1:]
        depth, kept = 0, []
        for x in operands:
            x, part = self._operand(x)
            kept.append(x)
            key.append(part)
            if type(x) is Lazy and x.depth >= depth:
                depth = x.depth + 1
        return self._note(op, kept, attrs, key, depth)

    def _cast(self, x: Any) -> Any:
        """A variable in the dtype that the layer being called reads it in, as a note: values are kept as they are."""
        dtype = getattr(x, "cast_to", None)
        if dtype is None:
            return x
        with autocast(None):
            return self.record(OPS["astype"], (x,), {"dtype": dtype})

    def _note(self, op: Op, operands: Sequence[Any], attrs: dict[str, Any], key: list[Any], depth: int) -> Any:
        if attrs:
            key.extend(attrs)
            key.extend(attrs.values())
        try:
            signature = self._signatures.get(tuple(key))
        except TypeError:  # an attribute that cannot be compared: a group of its own
            key, signature = [object()], None
        if signature is None:
            signature = self._signatures[tuple(key)] = self._sign(op, operands, attrs)
        call = Lazy(self, signature, operands, depth)
        self._pending.append(call)
        return self._parts(call) if signature.parts else call

    def _parts(self, call: Lazy) -> tuple[Lazy, ...]:
        """The results of a call that has several: each a call that picks one."""
        # At the depth of the call itself: their signatures were made after its own, and run after it.
        whole = (call,)
        parts = tuple([Lazy(self, s, whole, call.depth) for s in call.signature.parts])
        self._pending += parts
        return parts

    def _new(self, does: Op | Block, attrs: dict[str, Any], specs: Any, target: str | None = None) -> Signature:
        """A new signature of something with results of these specs."""
        kind = tuple(map(self._kind, specs)) if isinstance(specs, tuple) else self._kind(specs)
        signature = Signature(does, attrs, kind, next(self._orders), target)
        if isinstance(kind, tuple):
            signature.parts = tuple(Signature(i, {}, k, next(self._orders)) for i, k in enumerate(kind))
        return signature

    def _sign(self, op: Op, operands: Sequence[Any], attrs: dict[str, Any]) -> Signature:
        specs = [Spec(ops.shape_of(x), ops.dtype_of(x)) for x in map(_plain, operands)]
        target = None
        if op.promotes is not None and len(specs) > op.promotes:
            target = _common([_plain(x) for x in operands[op.promotes :]])
            specs[op.promotes :] = [s.with_dtype(target) for s in specs[op.promotes :]]
        try:
            with not_recording():  # some rules trace what the op expands to
                result = op.infer(*specs, **attrs)
        except UnilayersError as error:
            raise error.inside(f"op '{op.name}'") from None
        return self._new(op, attrs, result, target)

    def _kind(self, spec: Any) -> Kind:
        plain = isinstance(spec, (np.ndarray, np.generic))
        kind = self._kinds.get((spec.shape, spec.dtype)) if plain else None  # NumPy is slow to name a dtype
        if kind is None:
            key = (tuple(spec.shape), dtype_name(spec.dtype))
            kind = self._kinds.get(key)
            if kind is None:
                kind = self._kinds[key] = Kind(*key)
            if plain:
                self._kinds[spec.shape, spec.dtype] = kind
        return kind

    def _operand(self, x: Any) -> tuple[Any, Any]:
        """An operand as it is kept, and what of it belongs to the signature."""
        if type(x) is Lazy and x.recorder is self:
            return x, x.signature.kind
        if type(x) in NUMBERS:
            return x, type(x)
        if isinstance(x, (np.ndarray, np.generic)):
            return x, (type(x), self._kind(x))
        if isinstance(x, Lazy):
            x = x.as_operand(None, None)
        elif hasattr(x, "as_operand"):
            shared = self._read(x)
            return shared, shared
        if isinstance(x, Box) and True not in [tape.watches(x) for tape in TAPES.get()]:
            x = x.array
        if isinstance(x, (list, tuple)):
            x = np.asarray(x)
        return x, (type(x), self._kind(x))

    def _read(self, variable: Any) -> Shared:
        """The value a variable has now. It is kept until the variable gets another."""
        shared = self._shared.get(id(variable))
        version = _version(variable)
        if shared is None or shared.version is not version or version is None:
            if self._place is None:
                self._place = variable.place()
            with autocast(None), reading_at(self._place):
                value, kind = variable.as_operand(None, None), self._kind(variable)
            same = shared is not None and shared.value is value
            if not same:
                shared = Shared(variable, _version(variable), value, kind)
                self._shared[id(variable)] = shared
        assert shared is not None
        return shared

    def place(self) -> Any:
        """Where the first array that was met is, or the default place."""
        if self._place is None:
            backend = get_backend()
            self._place = backend, home(backend)
        return self._place

    def call(self, owner: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A call of a layer or a compiled function, noted as one; ``NotImplemented`` if its ops are to be noted."""
        if TRACE.get() is not self._trace:
            return NotImplemented
        operands: list[Any] = []
        form: list[Any] = [owner, current_phase(), *kwargs]
        try:
            for x in args:
                self._form(x, form, operands, outermost=True)
            for x in kwargs.values():
                if x is None or type(x) in (bool, str, *NUMBERS):
                    form.append((type(x), x))
                else:
                    self._form(x, form, operands, outermost=True)
        except NotABlock:
            return NotImplemented
        key = tuple(form)
        block = self._blocks.get(key, NotImplemented)
        if block is NotImplemented:
            self._place = self._place or place_of(operands)
            block = self._blocks[key] = self._plan(owner, args, kwargs, operands)
        if block is None:
            return NotImplemented
        for shared in block.shared:
            if shared.version is None or shared.version is not _version(shared.variable):
                block.shared = [self._read(s.variable) for s in block.shared]
                block.signature = self._new(block, {}, block.specs)
                break
        depth = 0
        for x in operands:
            if type(x) is Lazy and x.depth >= depth:
                depth = x.depth + 1
        call = Lazy(self, block.signature, operands + block.shared, depth)
        self._pending.append(call)
        return block.pack(self._parts(call) if block.signature.parts else (call,))

    def _form(self, x: Any, form: list[Any], operands: list[Any], outermost: bool = False) -> None:
        """Fill ``operands`` with the arrays in an argument, and ``form`` with its nesting, shapes and dtypes.

        Nested arguments count as data of a layer only if they are results, as the states of a recurrent cell are.

        Raises:
            NotABlock: for other arguments; a tree is one of its kind, and what is done with it must be noted op by op.
        """
        kind = type(x)
        if kind is Lazy and x.recorder is self:
            form.append(x.signature.kind)
            operands.append(x)
        elif kind is tuple or kind is list:
            form.append((kind, len(x)))
            for part in x:
                self._form(part, form, operands)
        elif x is None or kind is bool or kind is str:
            form.append((kind, x))
        elif outermost and _is_data(x):
            x, part = self._operand(x)
            form.append(part)
            operands.append(x)
        else:
            raise NotABlock

    def _plan(self, owner: Callable[..., Any], args: Any, kwargs: Any, operands: Sequence[Any]) -> Block | None:
        """A block for arguments of a new form; None if there is none, or if there are too many forms."""
        self._forms[owner] += 1
        if self._forms[owner] > MANY:
            return None
        kinds = [x.signature.kind if type(x) is Lazy else _plain(x) for x in operands]
        self.tracing = True
        try:
            with not_recording():
                block = block_of(owner, args, kwargs, [Spec(ops.shape_of(k), ops.dtype_of(k)) for k in kinds])
        finally:
            self.tracing = False
        if block is not None:
            block.shared = [self._read(v) for v in block.variables]
            block.signature = self._new(block, {}, block.specs)
        return block

    def constants(self, block: Block) -> list[Any]:
        """The constants of a block, where the other arrays are."""
        if block not in self._constants:
            backend, device = self.place()
            self._constants[block] = backend.put_as(
                [c.array for c in block.constants], [c.dtype for c in block.constants], device
            )
        return self._constants[block]

    # ---- running

    def value(self, call: Lazy) -> Any:
        """The value of one call; runs what it needs and nothing else."""
        if self.tracing:
            raise NotABlock
        if call.group is None:
            needed: dict[Lazy, None] = {}
            stack = [call]
            while stack:
                x = stack.pop()
                if x.group is None and x not in needed:
                    needed[x] = None
                    stack.extend(y for y in x.operands if type(y) is Lazy)
            self.run([x for x in self._pending if x in needed])
            self._pending = [x for x in self._pending if x.group is None]
        assert call.group is not None
        with not_recording():
            return call.group.value if call.group.uniform else ops.take(call.group.value, call.row, 0)

    def _finish(self) -> None:
        pending, self._pending = self._pending, []
        self.run(pending)

    def _release(self) -> None:
        """Forget which calls ran together: calls and groups refer to each other, and groups hold large arrays."""
        for group in self._groups:
            group.members = ()
        self._groups.clear()
        self._gathered.clear()

    def finished(self, results: Any) -> Any:
        """Run all that is left; then results with arrays in place of lazy values."""
        self._finish()
        found = map_structure(lambda x: self.value(x) if type(x) is Lazy and x.recorder is self else x, results)
        self._release()
        return found

    def stacked(self, results: Sequence[Any]) -> Any:
        """Run all that is left; then the results stacked."""
        self._finish()
        if len({str(map_structure(lambda _: None, r)) for r in results}) != 1:
            raise ShapeError("results differ in nesting", where="ul.fold", expected="one or more, all nested alike")
        with not_recording():
            found = pack_like(results[0], map(self._stack, zip(*map(leaves_of, results), strict=True)))
        self._release()
        return found

    def _stack(self, column: tuple[Any, ...]) -> Any:
        if len({ops.shape_of(x) for x in column}) != 1:
            raise ShapeError(
                "results differ in shape",
                where="ul.fold",
                received=" and ".join(sorted({str(ops.shape_of(x)) for x in column})),
                fix="Use stack=False",
            )
        if any(type(x) is not Lazy or x.recorder is not self for x in column):
            return ops.stack([self.value(x) if type(x) is Lazy and x.recorder is self else x for x in column])
        return spread(*self._results(column, None, len(column)), len(column))

    def run(self, calls: Sequence[Lazy]) -> None:
        """Run calls, level by level: those whose operands are there, by signature."""
        for call in calls:
            for x in call.operands:
                if type(x) is Lazy:
                    x.uses += 1
        with not_recording():
            for members in levels(calls):
                self._run_group(members)
        self._gathered.clear()

    def _run_group(self, members: list[Lazy]) -> None:
        signature = members[0].signature
        does = signature.does
        columns = list(zip(*[m.operands for m in members], strict=True))
        for column in columns:
            parts = _partition(members, column, isinstance(does, Block))
            if parts:
                for part in parts:
                    self._run_group(part)
                return
        rows = self._rows(len(members))
        given = [self._column(column, signature, i, rows) for i, column in enumerate(columns)]
        operands, stacked = [x for x, _ in given], [s for _, s in given]
        if isinstance(does, int):
            value = operands[0]
        elif isinstance(does, Block):
            value = does.run(operands, stacked, rows, self)
        else:
            value = self.apply(does, operands, stacked, signature.attrs, rows)
        group = Group(members, value, rows, not any(stacked))
        self._groups.append(group)
        for column in columns:
            if type(column[0]) is Lazy:
                for x in column:
                    x.uses -= 1
        for row, call in enumerate(members):
            call.group, call.row, call.operands = group, row, ()

    def _rows(self, count: int) -> int:
        """How many rows so many calls get: one of a few sizes.

        Backends and tapes keep plans for each shape they meet, and some compile for it. Groups have another size in
        every minibatch, so they are filled up to a power of two or the middle between two, by copies of a row that
        nobody reads.
        """
        if count <= 4 or count == self.count or self._trace is not None:
            return count
        power = 1 << (count - 1).bit_length()
        return power * 3 // 4 if count <= power * 3 // 4 else power

    def apply(self, op: Op, operands: Sequence[Any], stacked: Sequence[bool], attrs: Any, count: int) -> Any:
        """One op for ``count`` calls: stacked if an operand is."""
        self.runs[op.name] += 1
        return run_stacked(op, operands, stacked, attrs, count) if True in stacked else bind(op, operands, attrs)

    def _column(self, column: Sequence[Any], signature: Signature, position: int, rows: int) -> tuple[Any, bool]:
        """One operand of all calls of a group, and whether it is stacked."""
        first, kind = column[0], type(column[0])
        if kind is Lazy:
            return self._results(column, signature.does if isinstance(signature.does, int) else None, rows)
        if kind is Shared:
            return first.value, False
        more = [first] * (rows - len(column))
        if kind in NUMBERS:
            if column.count(first) == len(column):
                return first, False
            promotes = getattr(signature.does, "promotes", None)
            promoted = promotes is not None and position >= promotes
            return np.array([*column, *more], signature.target if promoted else ops.dtype_of(first)), True
        if all(x is first for x in column):
            return first, False
        return _stacked([*column, *more]), True

    def _results(self, column: Sequence[Lazy], part: int | None, rows: int) -> tuple[Any, bool]:
        """Results of earlier calls, in the order of the column."""
        group = column[0].group
        assert group is not None
        value = group.value if part is None else group.value[part]
        if group.uniform and all(x.group is group for x in column):
            return value, False
        if rows == group.rows and len(column) == len(group.members) and list(column) == group.members:
            return value, True
        key = (part, column, rows)
        if key not in self._gathered:
            self._gathered[key] = self._gather(column, part, rows)
        return self._gathered[key], True

    def _gather(self, column: Sequence[Lazy], part: int | None, rows: int) -> Any:
        """Results of any groups, one for each call of the column, stacked."""
        groups = list(dict.fromkeys([x.group for x in column]))
        if len(groups) > 1 and part is None:
            groups = [self._merge(column, groups)]
        return _taken(groups, column, part, rows)

    def _merge(self, column: Sequence[Lazy], groups: Sequence[Any]) -> Group:
        """Move the results that are still to be used from several groups into one, those of the column first.

        So the next that needs one of them finds most in one place, however deep a tree is.
        """
        wanted = dict.fromkeys(column)
        for group in groups:
            wanted.update(dict.fromkeys([x for x in group.members if x.uses and x.group is group]))
        live = list(wanted)
        rows = self._rows(len(live))
        merged = Group(live, _taken(groups, live, None, rows), rows, False)
        self._groups.append(merged)
        for row, x in enumerate(live):
            x.group, x.row = merged, row
        return merged


class not_recording:
    """Inside the block ops run at once."""

    def __enter__(self) -> None:
        self._token = DEFER.set(None)

    def __exit__(self, *exc: object) -> None:
        DEFER.reset(self._token)


def _version(variable: Any) -> Any:
    """The object that holds a variable's value: another one after every assignment. None: ask every time."""
    if TRACE.get() is not None:
        return None
    store = getattr(variable, "store", None)
    return store.arrays[variable.index] if store is not None else getattr(variable, "_host", None)


def _plain(x: Any) -> Any:
    """What shape and dtype are asked of."""
    return x.kind if type(x) is Shared else x


def _common(operands: Sequence[Any]) -> str:
    """The dtype operands are promoted to, by the rule of ops on arrays."""
    from unilayers.ops.define import _common_dtype

    return _common_dtype(operands)


# ---- grouping ---------------------------------------------------------------


def levels(calls: Sequence[Lazy]) -> Iterator[list[Lazy]]:
    """Groups of calls with one signature and one depth, operands before their users."""
    groups: dict[tuple[int, int], list[Lazy]] = {}
    for x in calls:
        key = (x.depth, x.signature.order)
        if key in groups:
            groups[key].append(x)
        else:
            groups[key] = [x]
    return (groups[k] for k in sorted(groups))


def _partition(members: list[Lazy], column: Sequence[Any], block: bool) -> list[list[Lazy]]:
    """The calls in parts that can use their operands as they are, where that is cheaper than to join all these.

    That is so where the calls, if of a single op, use all results of a few groups, or a few matrices which should not
    be copied for each. Empty: one part is best.
    """
    first = column[0]
    if type(first) is Lazy:
        sources: list[Any] = [x.group for x in column]
        if all(x is sources[0] for x in sources):
            return []
        whole = not block and all(n == len(g.members) and not g.uniform for g, n in Counter(sources).items())
        if not whole:
            kind = first.signature.kind
            if type(kind) is Kind and len(kind.shape) < 2:
                return []
            sources = [g if g.uniform else None for g in sources]
    elif type(first) is Shared or type(first) in NUMBERS or len(first.shape) < 2:
        return []
    else:
        whole, sources = False, [id(x) for x in column]
    parts: dict[Any, list[Lazy]] = {}
    for source, call in zip(sources, members, strict=True):
        parts.setdefault(source, []).append(call)
    if len(parts) == 1 or (2 * len(parts) > len(column) and not whole):
        return []
    return list(parts.values())


# ---- moving rows ------------------------------------------------------------


def _taken(groups: Sequence[Any], calls: Sequence[Lazy], part: int | None, rows: int) -> Any:
    """The results of calls that are in these groups, stacked and filled up to so many rows."""
    pieces: list[Any] = []
    starts: dict[Any, int] = {}
    total: Any = 0
    for group in groups:
        value = group.value if part is None else group.value[part]
        pieces.append(ops.expand_dims(value, 0) if group.uniform else value)
        starts[group] = total
        total += ops.shape_of(pieces[-1])[0]
    index = [starts[x.group] + (0 if x.group.uniform else x.row) for x in calls]  # type: ignore[union-attr]
    joined = pieces[0] if len(pieces) == 1 else ops.concat(pieces)
    if rows == total and index == list(range(len(index))):
        return joined
    return ops.take(joined, np.array(index + index[:1] * (rows - len(index)), np.int32), 0)


def _stacked(column: Sequence[Any]) -> Any:
    """Arrays of one kind, stacked."""
    if isinstance(column[0], (np.ndarray, np.generic)):
        return np.stack(column)
    shape = ops.shape_of(column[0])
    if not shape:
        return ops.stack(column)
    return ops.reshape(ops.concat(column), (len(column), *shape))  # one op, however many there are


# ---- what users call --------------------------------------------------------


def fold(function: Callable[[Any], Any], examples: Iterable[Any], *, stack: bool = False) -> Any:
    """``[function(x) for x in examples]``, with the same numbers, but equal ops of all examples run together.

    The function is plain Python over one example: recursion over a tree, a loop over a sequence. While it runs, ops
    only note what they would do; the values they give know their shape and dtype, not their numbers. Afterwards equal
    ops on operands of equal shapes run as one on stacked operands, whatever example or place they come from. The
    results are made of ordinary ops, so a `GradientTape` around the call differentiates them.

    A layer called inside, and a function that `ul.function` decorates, is noted as one step with all its ops (where it
    only depends on arrays and variables and assigns none). This takes far less time than to note op by op: make the
    cell of a recursive network one of these. What it does beside computing happens only once.

    A Python ``if`` or ``float()`` on a value needs its numbers: what it depends on runs at this point, and in smaller
    groups.

    Args:
        function: From one example to arrays, nested as it likes. Numbers and arrays in the example are data; a
            variable, and a matrix that several calls use, is the same for all. Arrays must keep their numbers until the
            call returns, since they are read late.
        examples: Anything the function takes.
        stack: Whether to give one nesting of arrays with the examples as their first axis, in place of a list. All
            results must have the same nesting and shapes. It saves the backward pass from taking the list apart.

    Returns:
        The list of what the function gave, with arrays; or their stack.

    Raises:
        ShapeError: if results of different shapes or nestings shall be stacked.

    Reference:
        Looks, Herreshoff, Hutchins, Norvig, Deep Learning with Dynamic Computation Graphs, 2017, arXiv 1702.02181.
        Neubig, Goldberg, Dyer, On-the-fly Operation Batching in Dynamic Computation Graphs, 2017, arXiv 1705.07860.

    Example:
        >>> def total(tree):  # four sums in two ops, one for each level
        ...     return total(tree[0]) + total(tree[1]) if isinstance(tree, tuple) else ops.square(tree)
        >>> fold(total, [(1.0, (2.0, 3.0)), ((2.0, 2.0), 1.0)], stack=True)
        array([14.,  9.], dtype=float32)
    """
    examples = list(examples)
    recorder = Recorder(len(examples))
    token = DEFER.set(recorder)
    try:
        results = [function(x) for x in examples]
    finally:
        DEFER.reset(token)
    return recorder.stacked(results) if stack else recorder.finished(results)
