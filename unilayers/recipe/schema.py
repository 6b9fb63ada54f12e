"""The JSON Schema of recipes (draft 2020-12), derived from the fields of every registered class, for editors."""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping, Sequence
from inspect import Parameter
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from unilayers import activations, losses, metrics, optimizers
from unilayers.backend import AUTO, backend_names
from unilayers.data import Source
from unilayers.hints import Bounds
from unilayers.layers.base import Layer
from unilayers.recipe import docstrings
from unilayers.recipe.fields import IMPORT_PATH, OPEN, families_in
from unilayers.recipe.sections import CALLBACKS, Data, Fit, Settings, depends_on_shapes
from unilayers.registry import Registry, defaults_of, hints_of, parameters, plain, snake_case

Schema = dict[str, Any]
IMPORTED: Schema = {"type": "string", "pattern": f"^{IMPORT_PATH.pattern}$"}
NAMES: Schema = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]}
BY_SHAPE = ("accuracy", "acc", "crossentropy", "ce")  # names for which the shapes of the data choose the class


def json_schema() -> Schema:
    """The schema; an editor that knows YAML completes and explains recipes with it.

    Example:
        >>> json_schema()["$defs"]["layer.Dense"]["properties"]["units"]
        {'type': 'integer', 'minimum': 1, 'description': 'Width of the output.'}
    """
    registries = [
        Layer.registry,
        losses.Loss.registry,
        metrics.Metric.registry,
        optimizers.Optimizer.registry,
        CALLBACKS,
    ]
    for registry in registries:  # grows by the families that arguments belong to: initializers, schedules...
        hints = [hint for cls in registry for hint in hints_of(cls).values()]  # type: ignore[arg-type]
        registries += dict.fromkeys(r for hint in hints for r in families_in(hint) if r not in registries)
    definitions: Schema = {"activation": _activation()}
    for registry in registries:
        further = {"inputs": NAMES | {"description": INPUTS}} if registry is Layer.registry else {}
        for cls in {registry.get(name): None for name in registry.names()}:
            definitions[f"{registry.family}.{cls.__name__}"] = _class(cls, further)
        get = {"loss": losses.get, "metric": metrics.get}.get(registry.family)
        by_shape = [name for name in BY_SHAPE if get and depends_on_shapes(get, name)]
        definitions[registry.family] = _family(registry, by_shape)
    metric = _any([_ref("metric"), {"type": "array", "items": _ref("metric")}])
    special = {
        "data": _data(common=True),
        "model": {"type": "array", "items": _ref("layer"), "minItems": 1},
        "loss": _per_output(_ref("loss")),
        "loss_weights": _per_output({"type": "number"}),
        "optimizer": _ref("optimizer"),
        "metrics": _any([metric, {"type": "object", "additionalProperties": metric}, {"type": "null"}]),
        "fit": _any([_class(Fit, {"callbacks": {"type": "array", "items": _ref("callback")}}), {"type": "null"}]),
        "backend": {"enum": [*backend_names(), AUTO]},
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "unilayers recipe",
        **_class(Settings, special),
        "$defs": definitions,
    }


INPUTS = "The layer, or the layers, whose output this one takes; the layer before it if left out."


# ---- classes --------------------------------------------------------------------------------------------------------


def _class(cls: type, special: Mapping[str, Schema] | None = None) -> Schema:
    """The arguments of a class as an object; ``special`` has schemas in place of fields' own, or of further keys."""
    accepted = {n: p for n, p in parameters(cls).items() if p.kind not in OPEN}
    hints, defaults, told, special = hints_of(cls), defaults_of(cls), docstrings.arguments(cls), special or {}
    properties = {}
    for name in [*accepted, *(n for n in special if n not in accepted)]:
        schema = special.get(name) or (_ref("activation") if name == "activation" else of_hint(hints.get(name, Any)))
        notes = {"description": told[name]} if name in told else {}
        if name in defaults:
            notes["default"] = plain(defaults[name])
        properties[name] = {**(schema or {}), **notes}
    required = _required(cls)
    is_open = any(p.kind is Parameter.VAR_KEYWORD for p in parameters(cls).values())
    return {
        "type": "object" if required else ["object", "null"],
        "description": docstrings.summary(cls),
        "properties": properties,
        "required": required,
        "additionalProperties": is_open,
    }


def _family(registry: Registry, further: Sequence[str] = ()) -> Schema:
    """A name, or ``{name: arguments}``."""
    names = {name: registry.get(name) for name in registry.names()}
    names |= {snake_case(name): cls for name, cls in names.items()}
    bare = [name for name, cls in names.items() if not _required(cls)]
    return _any(
        [
            {"enum": [*bare, *further]},
            IMPORTED,
            {
                "type": "object",
                "properties": {name: _ref(f"{registry.family}.{cls.__name__}") for name, cls in names.items()},
                "patternProperties": {IMPORTED["pattern"]: {}},
                "additionalProperties": False,
                "minProperties": 1,
                "maxProperties": 1,
            },
        ]
    )


def _required(cls: type) -> list[str]:
    defaults = defaults_of(cls)
    return [name for name, p in parameters(cls).items() if p.kind not in OPEN and name not in defaults]


def _activation() -> Schema:
    """A name, a function's import path, or a layer with its arguments."""
    return _any(
        [{"enum": sorted(activations.BUILTIN)}, IMPORTED, {"type": "object", "maxProperties": 1}, {"type": "null"}]
    )


def _data(*, common: bool) -> Schema:
    """One alternative for each data set; ``common`` adds what is kept for validation."""
    shared = (
        _class(Data, {"validation": _any([{"type": "string"}, _data(common=False), {"type": "null"}])})
        if common
        else {}
    )
    shared = {name: schema for name, schema in shared.get("properties", {}).items() if name != "dataset"}
    choices = []
    for cls in Source.registry:
        schema = _class(cls, {"dataset": {"enum": [snake_case(cls.__name__), cls.__name__]}, **shared})
        choices.append(schema | {"type": "object", "required": ["dataset", *schema["required"]]})
    path = {"type": "string", "pattern": r"[./\\:]", "description": docstrings.arguments(Data)["dataset"]}
    choices.append({"type": "object", "properties": {"dataset": path, **shared}, "required": ["dataset"]})
    return _any(choices)


def _per_output(one: Schema) -> Schema:
    one = _any([one, {"type": "null"}])
    return _any([one, {"type": "array", "items": one}, {"type": "object", "additionalProperties": one}])


def _ref(name: str) -> Schema:
    return {"$ref": f"#/$defs/{name}"}


def _any(choices: Sequence[Schema]) -> Schema:
    """One of several; the choices of a choice are choices of the whole."""
    flat = [inner for choice in choices for inner in (choice["anyOf"] if set(choice) == {"anyOf"} else [choice])]
    return flat[0] if len(flat) == 1 else {"anyOf": flat}


# ---- annotations ----------------------------------------------------------------------------------------------------

_SCALARS: Mapping[Any, Schema] = {
    Any: {},
    None: {"type": "null"},
    type(None): {"type": "null"},
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    float: {"type": "number"},
    str: {"type": "string"},
}
_BOUNDS = {"ge": "minimum", "gt": "exclusiveMinimum", "le": "maximum", "lt": "exclusiveMaximum"}


def of_hint(hint: Any) -> Schema | None:
    """The schema of what may stand in YAML for an annotation; None if nothing can (a function, an array).

    Example:
        >>> from unilayers.hints import Fraction
        >>> of_hint(Fraction | None)
        {'anyOf': [{'type': 'number', 'minimum': 0, 'exclusiveMaximum': 1}, {'type': 'null'}]}
    """
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Annotated:
        bounds = [b for b in hint.__metadata__ if isinstance(b, Bounds)]
        limits = {_BOUNDS[k]: getattr(b, k) for b in bounds for k in _BOUNDS if getattr(b, k) is not None}
        return {**(of_hint(inner[0]) or {}), **limits}
    if origin in (Union, types.UnionType):
        return _union(inner)
    if origin is Literal:
        return {"enum": list(inner)}
    if hint in _SCALARS:
        return dict(_SCALARS[hint])
    kind = origin or hint
    if kind in (list, tuple, Sequence):
        return _sequence(kind, inner)
    if kind in (dict, Mapping):
        return {"type": "object"}
    if isinstance(kind, type) and hasattr(kind, "registry"):
        return _ref(kind.registry.family)
    return None if kind is Callable or isinstance(kind, type) else {}


def _union(options: Sequence[Any]) -> Schema | None:
    """Where an object of a family may stand, strings and mappings are its names and configs: no more than that."""
    family = any(hasattr(option, "registry") for option in options)
    kept = [o for o in options if not (family and (o is str or (get_origin(o) or o) in (dict, Mapping)))]
    schemas = [s for s in map(of_hint, kept) if s is not None]
    if {} in schemas:
        return {}
    return _any(schemas) if schemas else None


def _sequence(kind: Any, inner: Sequence[Any]) -> Schema:
    if kind is tuple and inner and Ellipsis not in inner:
        return {
            "type": "array",
            "prefixItems": [of_hint(i) or {} for i in inner],
            "minItems": len(inner),
            "maxItems": len(inner),
        }
    return {"type": "array", "items": (of_hint(inner[0]) if inner else None) or {}}
