"""The base of all families: declared fields, hand-written constructors, names, configs and their errors."""

from __future__ import annotations

import copy
import inspect
import json
import pickle
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, FrozenInstanceError, field
from pathlib import PurePosixPath
from typing import Any, Literal

import numpy as np
import pytest

from unilayers import activations, constraints, initializers, losses, regularizers
from unilayers.errors import UnilayersError
from unilayers.hints import Bounds, Fraction, NonNegativeFloat, PositiveInt, check_value, describe, fits
from unilayers.registry import (
    Configurable,
    Registry,
    arguments_of,
    deserializer,
    hints_of,
    plain,
    resolve,
    serialize,
    snake_case,
)


class Penalty(Configurable, family="penalty", immutable=True):
    """An immutable family."""


class L2(Penalty, aliases=("ridge",)):
    l2: NonNegativeFloat = 0.01


class Table(Penalty):
    values: Any = ()


class ByHand(Penalty):
    def __init__(self, weight, power=2):
        self.weight = weight


class Part(Configurable, family="part"):
    """A family whose objects change; all of them have a name."""

    _: KW_ONLY
    name: str | None = None

    def __post_init__(self) -> None:
        self.built = False


class Affine(Part):
    units: PositiveInt
    _: KW_ONLY
    padding: Literal["same", "valid"] = "valid"
    penalty: Penalty | str | Mapping | None = None
    sizes: list[int] = field(default_factory=lambda: [1])


class KerasStyle(Part):
    def __init__(self, units, activation="relu", **kwargs):
        super().__init__(**kwargs)
        self.units = units


class Below(KerasStyle):
    units: int = 3  # an annotation does not replace the constructor it inherits


class Variadic(Part):
    def __init__(self, *sizes):
        super().__init__()
        self.sizes = sizes


class OwnConfig(Part):
    def __init__(self, secret):
        super().__init__()
        self.secret = secret

    def get_config(self):
        return {"secret": self.secret + 1}


class _Hidden(Penalty):
    pass


class Abstract(Penalty, abstract=True):
    pass


# ---- names --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "snake"),
    [
        ("Dense", "dense"),
        ("Conv2D", "conv2d"),
        ("MaxPooling2D", "max_pooling2d"),
        ("Conv2DTranspose", "conv2d_transpose"),
        ("LayerNormalization", "layer_normalization"),
        ("ReLU", "re_lu"),
        ("LeakyReLU", "leaky_re_lu"),
        ("PReLU", "p_re_lu"),
        ("LSTM", "lstm"),
        ("GRUCell", "gru_cell"),
        ("RMSprop", "rm_sprop"),
        ("AdamW", "adam_w"),
        ("L1L2", "l1l2"),
        ("BinaryCrossentropy", "binary_crossentropy"),
    ],
)
def test_snake_case_is_keras_s(name: str, snake: str) -> None:
    assert snake_case(name) == snake


@pytest.mark.parametrize("name", ["L2", "l2", "Ridge", "ridge", f"{__name__}:L2"])
def test_a_class_is_found_by_each_of_its_names(name: str) -> None:
    assert Penalty.registry.get(name) is L2
    assert name in Penalty.registry


def test_the_registry_lists_each_class_once_and_leaves_out_the_abstract_ones() -> None:
    assert set(Penalty.registry) == {L2, Table, ByHand}
    assert len(Penalty.registry) == 3
    assert Penalty.registry.names() == ["ByHand", "L2", "Table", "ridge"]
    assert repr(Penalty.registry) == "Registry('penalty', 3 classes)"
    assert not any(name in Penalty.registry for name in ("_Hidden", "Abstract", "Penalty"))


def test_an_unknown_name_names_the_nearest() -> None:
    with pytest.raises(UnilayersError) as caught:
        Penalty.registry.get("rigde", where="layer")
    assert str(caught.value) == "layer: unknown penalty 'rigde'. Did you mean 'ridge'?"


def _class(name: str, module: str) -> type:
    return type(name, (), {"__module__": module, "__qualname__": name})


def test_a_class_from_outside_never_takes_a_built_in_s_name() -> None:
    registry = Registry("layer")
    built_in, outside = _class("Dense", "unilayers.layers.core"), _class("Dense", "mine")
    for cls in (built_in, outside):
        registry.register(cls)
    assert registry.get("dense") is built_in and registry.name_of(built_in) == "Dense"
    assert registry.name_of(outside) == "mine:Dense" and registry.get("mine:Dense") is outside


def test_of_two_classes_from_outside_the_later_has_the_short_name() -> None:
    registry = Registry("layer")
    first, second, second_again = _class("Block", "a"), _class("Block", "b"), _class("Block", "b")
    for cls in (first, second, second_again):
        registry.register(cls)
    assert registry.get("block") is second_again
    assert registry.get("a:Block") is first


def test_two_built_ins_of_one_name_are_an_error() -> None:
    registry = Registry("layer")
    registry.register(_class("Dense", "unilayers.a"))
    with pytest.raises(UnilayersError, match=r"unilayers\.b:Dense: layer 'Dense' is defined twice\."):
        registry.register(_class("Dense", "unilayers.b"))


# ---- objects ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("made", "text", "config"),
    [
        (lambda: L2(), "L2()", {"l2": 0.01}),
        (lambda: L2(0.5), "L2(l2=0.5)", {"l2": 0.5}),
        (lambda: ByHand(3), "ByHand(weight=3)", {"weight": 3, "power": 2}),
        (
            lambda: Affine(4, penalty=L2(0.5)),
            "Affine(units=4, penalty=L2(l2=0.5))",
            {"units": 4, "name": None, "padding": "valid", "penalty": {"L2": {"l2": 0.5}}, "sizes": [1]},
        ),
        (
            lambda: KerasStyle(4, name="a"),
            "KerasStyle(units=4, name='a')",
            {"units": 4, "activation": "relu", "name": "a"},
        ),
        (lambda: Below(5), "Below(units=5)", {"units": 5, "activation": "relu"}),
    ],
)
def test_config_and_repr(made: Callable[[], Any], text: str, config: dict[str, Any]) -> None:
    for thing in (made(), copy.deepcopy(made()), pickle.loads(pickle.dumps(made()))):
        assert repr(thing) == text
        assert thing.get_config() == config
        assert json.loads(json.dumps(config)) == config
        assert type(thing).from_config(config).get_config() == config
        again = resolve(thing.registry, serialize(thing))
        assert type(again) is type(thing) and again.get_config() == config


def test_the_signature_is_that_of_the_constructor() -> None:
    assert list(inspect.signature(Affine).parameters) == ["units", "name", "padding", "penalty", "sizes"]
    assert list(inspect.signature(KerasStyle).parameters) == ["units", "activation", "kwargs"]


def test_a_family_that_changes() -> None:
    layer = Affine(4)
    layer.units = 5
    assert layer.get_config()["units"] == 5
    assert layer != Affine(5) and layer == layer and len({layer, Affine(5)}) == 2
    assert layer.built is False and KerasStyle(1).built is False
    assert Affine(1).sizes is not Affine(1).sizes


def test_an_immutable_family() -> None:
    assert L2(0.5) == L2(0.5) != L2(0.25)
    assert ByHand(1) == ByHand(1) != ByHand(2)
    assert Table(np.arange(3)) == Table(np.arange(3)) != Table(np.arange(4))
    assert Table((1, [2])) == Table([1, (2,)]) != Table([1, [2, 3]]) != Table(1)
    assert len({L2(0.5), L2(0.5), L2(0.25), ByHand(1)}) == 3
    assert L2(0.5) != Table(0.5)
    with pytest.raises(FrozenInstanceError):
        L2().l2 = 3.0  # type: ignore[misc]


def test_a_hand_written_get_config_wins() -> None:
    assert OwnConfig(1).get_config() == {"secret": 2}
    assert serialize(OwnConfig(1)) == {"OwnConfig": {"secret": 2}}


def test_nameless_arguments_have_no_config() -> None:
    assert arguments_of(Variadic()) == {}
    with pytest.raises(UnilayersError, match=r"Variadic: arguments given as \*sizes have no name"):
        Variadic(1, 2).get_config()


def test_hints_hold_inherited_fields_and_give_up_on_what_cannot_be_evaluated() -> None:
    class Odd(Part):
        there: int
        gone: Nowhere = None  # noqa: F821

    assert hints_of(Odd) == {"name": str | None, "there": int, "gone": Any}
    assert Odd(1, gone=object()).there == 1


# ---- resolve ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "identifier",
    [
        L2(0.01),
        L2,
        "l2",
        "ridge",
        {"L2": {"l2": 0.01}},
        {"l2": None},
        {"class_name": "L2", "config": {"l2": 0.01}},
        {"module": "somewhere", "class_name": "L2", "config": None, "registered_name": None},
    ],
)
def test_resolve(identifier: Any) -> None:
    assert resolve(Penalty.registry, identifier) == L2(0.01)


def test_resolve_keeps_none_and_objects_and_wraps_callables() -> None:
    penalty = L2()
    assert resolve(Penalty.registry, None) is None
    assert resolve(Penalty.registry, penalty) is penalty
    assert resolve(Penalty.registry, len, wrap=Table) == Table(len)


@pytest.mark.parametrize(
    ("identifier", "message"),
    [
        ("l3x", "here: unknown penalty 'l3x'. Valid names: ByHand, L2, Table, ridge."),
        ({"L2": {"l": 1}}, "here > L2: unknown argument 'l'. Did you mean 'l2'?"),
        ({"L2": 3}, "here > L2: arguments without names. Expected a mapping {argument: value}. Received 3 (int)."),
        (
            {"L2": {"l2": "much"}},
            "here > L2.l2: a value that does not fit. Expected a number at least 0. Received 'much' (str).",
        ),
        ({"ByHand": {}}, "here > ByHand: missing argument 'weight'."),
        (ByHand, "here > ByHand: missing argument 'weight'."),
        (
            {"L2": {}, "Table": {}},
            "here: a mapping that names no single penalty. Expected one entry {name: arguments}. "
            "Received the keys L2, Table.",
        ),
        (
            {},
            "here: a mapping that names no single penalty. Expected one entry {name: arguments}. "
            "Received the keys (none).",
        ),
        (3, "here: not a penalty. Expected a name, {name: arguments}, or a penalty object. Received 3 (int)."),
        (Affine, "here: not a penalty. Expected a name, {name: arguments}, or a penalty object. Received "),
    ],
)
def test_resolve_says_what_is_wrong_and_where(identifier: Any, message: str) -> None:
    with pytest.raises(UnilayersError) as caught:
        resolve(Penalty.registry, identifier, where="here")
    assert str(caught.value).startswith(message) and (message.endswith(" ") or str(caught.value) == message)


def test_a_wrong_name_that_kwargs_hand_on_is_reported() -> None:
    with pytest.raises(UnilayersError, match=r"KerasStyle: .*unexpected keyword argument 'nmae'"):
        resolve(Part.registry, {"KerasStyle": {"units": 1, "nmae": "x"}})


def test_the_constructor_checks_its_arguments() -> None:
    with pytest.raises(UnilayersError) as caught:
        Affine(4, padding="full")
    assert str(caught.value) == (
        "Affine.padding: a value that does not fit. Expected 'same' or 'valid'. Received 'full' (str)."
    )
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'units'"):
        Affine()  # type: ignore[call-arg]


FAMILIES = [
    (activations, activations.gelu),
    (constraints, constraints.MaxNorm(3.0, axis=[0, 1])),
    (initializers, initializers.RandomNormal(stddev=0.5)),
    (losses, losses.Huber(delta=0.5, name="mine")),
    (regularizers, regularizers.L1L2(0.1, 0.2)),
]


@pytest.mark.parametrize(("module", "thing"), FAMILIES, ids=lambda x: getattr(x, "__name__", ""))
def test_serialize_and_deserialize(module: Any, thing: Any) -> None:
    config = json.loads(json.dumps(module.serialize(thing)))
    again = module.deserialize(config)
    assert again is thing or (type(again) is type(thing) and again.get_config() == thing.get_config())


def test_objects_of_ones_own_come_first() -> None:
    deserialize = deserializer(lambda identifier: resolve(Penalty.registry, identifier))
    own = {"Mine": Table, "L2": ByHand, "function": len}
    assert deserialize("Mine", own) == Table()
    assert deserialize({"Mine": {"values": 3}}, own) == Table(3)
    assert deserialize({"class_name": "L2", "config": {"weight": 3}}, own) == ByHand(3)
    assert deserialize("function", own) is len
    assert deserialize({"L2": {"l2": 3}}) == deserialize(L2(3), own) == L2(3)
    with pytest.raises(UnilayersError, match="unknown penalty 'Mine'"):
        deserialize("Mine")


# ---- plain data ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ((1, (2.5, None)), [1, [2.5, None]]),
        (np.float32(0.5), 0.5),
        (np.arange(4).reshape(2, 2), [[0, 1], [2, 3]]),
        ({"a": (L2(1),)}, {"a": [{"L2": {"l2": 1}}]}),
        (snake_case, "unilayers.registry:snake_case"),
        (PurePosixPath("a/b"), "a/b"),
    ],
)
def test_plain(value: Any, expected: Any) -> None:
    assert plain(value) == expected
    assert json.loads(json.dumps(plain(value))) == expected


def test_what_has_no_plain_form_is_an_error() -> None:
    with pytest.raises(UnilayersError, match=r"Table\.values: a object cannot be written into a config\."):
        Table(object()).get_config()


# ---- hints --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hint", "good", "bad"),
    [
        (int, [0, np.int64(3)], [1.0, "1", True, None]),
        (float, [1, 0.5, np.float32(1), np.array(2.0)], ["1", True, None, np.ones(2), 1j]),
        (bool, [True, np.bool_(False)], [0, "true"]),
        (str, ["a"], [1, None]),
        (int | None, [1, None], ["a"]),
        (Literal["a", 1], ["a", 1], ["b", True, 1.0]),
        (PositiveInt, [1], [0, 1.5]),
        (Fraction, [0, 0.5], [1, -0.1, float("nan")]),
        (tuple[int, int], [(1, 2), [1, 2]], [(1,), (1, 2, 3), (1, "a"), 1]),
        (tuple[int, ...], [(), (1, 2, 3)], [("a",), 3]),
        (list[str], [["a"], ("a",)], [[1], "a"]),
        (Sequence[int], [[1], (1, 2)], ["a", [1.5]]),
        (list, [[1, "a"]], ["a"]),
        (dict[str, int], [{"a": 1}], [[1]]),
        (Mapping, [{}], [3]),
        (Callable[[int], int], [len], ["len"]),
        (Penalty, [L2(), "l2", {"L2": {}}, L2], [3, None]),
        (Registry, [Registry("a")], ["a", None]),
        (Any, [None, object()], []),
        ("never evaluated", [3, None], []),
    ],
)
def test_fits(hint: Any, good: list[Any], bad: list[Any]) -> None:
    assert [value for value in good if not fits(value, hint)] == []
    assert [value for value in bad if fits(value, hint)] == []


@pytest.mark.parametrize(
    ("hint", "words"),
    [
        (Fraction, "a number at least 0 and less than 1"),
        (int | None, "an int or None"),
        (tuple[int, ...], "list of: an int"),
        (Callable[[int], int], "a function"),
        (Penalty, "Penalty"),
        (Mapping[str, int], "Mapping"),
        (bool, "true or false"),
    ],
)
def test_describe(hint: Any, words: str) -> None:
    assert describe(hint) == words


def test_a_long_value_is_cut_in_the_message() -> None:
    with pytest.raises(UnilayersError) as caught:
        check_value(["a" * 500], int, "here")
    assert len(str(caught.value)) < 200


def test_pydantic_reads_the_same_bounds() -> None:
    pydantic = pytest.importorskip("pydantic")
    schema = pydantic.TypeAdapter(L2).json_schema()
    assert schema["properties"]["l2"] == {"default": 0.01, "minimum": 0, "title": "L2", "type": "number"}
    assert Bounds(gt=1, le=3).hold(3) and not Bounds(gt=1, le=3).hold(1)
    with pytest.raises(pydantic.ValidationError):
        pydantic.TypeAdapter(Fraction).validate_python(1.0)
