"""What an engine is: a table of functions and a few hooks; and how engines are found and chosen.

Backends register under the entry-point group ``unilayers.backends``; none is imported before it is chosen.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, PackageNotFoundError, entry_points, packages_distributions, version
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from unilayers.errors import BackendError, nearest
from unilayers.graph import OPS, Graph, Node
from unilayers.graph.node import LEAVES
from unilayers.graph.passes import map_attr, optimise
from unilayers.hardware import Hardware
from unilayers.spec import host_dtype

GROUP = "unilayers.backends"
VARIABLE = "UNILAYERS_BACKEND"  # only a default: an argument always wins
EMBEDDED = "numpy"
AUTO = "auto"  # where a model is trained: the fastest, found by trying; see `training.choice`

Array = Any
Executable = Callable[[list[Array], Sequence[Array]], tuple[list[Array], dict[str, Array]]]
Feed = Callable[[Sequence[np.ndarray], str, bool], Sequence[Array]]


@dataclass(frozen=True, eq=False)
class Backend:
    """One engine.

    Args:
        name: The word users type: ``--backend name``.
        table: Op name to function ``f(*arrays, **attrs)``; several outputs are a tuple. A composite op that is listed
            runs fused, one that is not is expanded.
        devices: Names of the devices that can be used now, the best-known first: ``["cpu", "cuda:0"]``.
        put: ``put(arrays, device)`` moves NumPy arrays there, all at once, and never aliases them.
        get: One array as a NumPy array that nobody else writes to; bfloat16 as float32.
        device_of: The device an array of this engine is on; None for any other object.
        compile: ``compile(graph, device)`` turns a specialised, lowered graph into ``f(state, inputs)`` which returns
            the new state (the old arrays may be overwritten) and the outputs by name.
        synchronize: Waits until the device has finished, for honest timing.
        memory: Bytes in use and peak on a device, where the engine knows.
        packages: Distributions whose versions belong into a report.
        native_grad: ``native_grad(f, arrays, cotangent)`` by the framework's own autograd; a witness for tests.
        at_once: Functions that ops run by eagerly, in place of those in the table or of an expansion.
        feed: ``feed(arrays, device, owned)`` gives NumPy arrays as a compiled function takes them in one call, where
            that needs less than ``put``. If they are ``owned``, nobody else ever writes to them and their memory may be
            shared; else neither a call that still computes nor its results may share it.
        libraries: What else compiled graphs use here, name to version, or to the reason why not.
        hardware: What it knows of its devices.
    """

    name: str
    table: Mapping[str, Callable[..., Any]]
    devices: Callable[[], list[str]]
    put: Callable[[Sequence[np.ndarray], str], list[Array]]
    get: Callable[[Array], np.ndarray]
    device_of: Callable[[object], str | None]
    compile: Callable[[Graph, str], Executable]
    packages: tuple[str, ...] = ()
    synchronize: Callable[[], None] = lambda: None
    memory: Callable[[str], dict[str, int]] = lambda device: {}
    native_grad: Callable[..., list[Array]] | None = None
    at_once: Mapping[str, Callable[..., Any]] = field(default_factory=dict)
    feed: Feed | None = None
    libraries: Callable[[], dict[str, str]] = dict
    hardware: Hardware = Hardware()  # noqa: RUF009  (nothing in it can be changed)

    def __post_init__(self) -> None:
        from unilayers import ops  # noqa: F401  (the records that the table is checked against)

        unknown = sorted((self.table.keys() | self.at_once.keys()) - OPS.keys())
        if unknown:
            raise BackendError(f"entries for unknown ops: {unknown}", where=f"backend '{self.name}'")
        missing = sorted(n for n, op in OPS.items() if not op.composite and n not in self.table and n not in LEAVES)
        if missing:
            raise BackendError(
                f"no entry for {missing}, and these ops have no expansion", where=f"backend '{self.name}'"
            )

    def __repr__(self) -> str:
        return f"<backend {self.name}>"

    def put_as(self, arrays: Sequence[Any], dtypes: Sequence[str], device: str) -> list[Array]:
        """``put``, of numbers as arrays of these dtypes; bfloat16, which NumPy does not have, on the way as float32."""
        hosts = list(map(host_dtype, dtypes))
        there = self.put([np.asarray(a, h) for a, h in zip(arrays, hosts, strict=True)], device)
        if hosts == dtypes:
            return there
        return [self.table["astype"](a, dtype=d) if d != h else a for a, d, h in zip(there, dtypes, hosts, strict=True)]

    def fed(self, arrays: Sequence[np.ndarray], device: str, owned: bool = False) -> Sequence[Array]:
        """Inputs of one call of a compiled function; see ``feed``."""
        return self.put(arrays, device) if self.feed is None else self.feed(arrays, device, owned)

    def device(self, name: str | None) -> str:
        """The full name of a usable device: None is the first, ``"cuda"`` is ``"cuda:0"``.

        Raises:
            BackendError: listing the devices there are.
        """
        there = self.devices()
        for candidate in there:
            if name is None or candidate == name or candidate == f"{name}:0":
                return candidate
        raise BackendError(
            f"device {name!r} is not available",
            where=f"backend '{self.name}'",
            fix=f"Devices here: {', '.join(there)}",
        )


# ---- bodies of control flow -----------------------------------------------------


def node_runner(backend: Backend, device: str) -> Callable[[Node, list[np.ndarray]], list[np.ndarray]]:
    """``run(node, arrays)`` evaluates one node on a backend, for the folding of constants."""

    def run(node: Node, arrays: list[np.ndarray]) -> list[np.ndarray]:
        there = backend.put_as(arrays, [v.dtype for v in node.inputs], device)
        result = backend.table[node.op](*there, **node.attrs)
        return [backend.get(r) for r in (result if isinstance(result, (tuple, list)) else (result,))]

    return run


_ready: WeakKeyDictionary[Graph, dict[tuple[str, str], Graph | None]] = WeakKeyDictionary()


def ready(attrs: Mapping[str, Any], bodies: Iterable[str], backend: Backend, device: str) -> dict[str, Any]:
    """Attributes with their bodies lowered for a backend's table, as its functions expect them."""

    def lowered(body: Graph) -> Graph:
        known, key = _ready.setdefault(body, {}), (backend.name, device)
        if key not in known:
            made = optimise(body, backend.table, node_runner(backend, device))
            known[key] = made if made is not body else None  # a value that is its own key would never go
        return known[key] or body

    return {**attrs, **{name: map_attr(attrs[name], lowered) for name in bodies}}


# ---- finding and choosing ---------------------------------------------------

_loaded: dict[str, Backend] = {}


@cache
def _installed() -> dict[str, EntryPoint]:
    return {e.name: e for e in entry_points(group=GROUP)}


def backend_names() -> list[str]:
    """Names of all registered backends, whether or not their framework is installed; the embedded one first."""
    return sorted(set(_installed()) | set(_loaded), key=lambda n: (n != EMBEDDED, n))


def default_name() -> str:
    """The backend's name where none is given: ``UNILAYERS_BACKEND``, else ``numpy``, also where that says ``auto``."""
    name = os.environ.get(VARIABLE) or EMBEDDED
    return EMBEDDED if name == AUTO else name


def get_backend(name: str | Backend | None = None) -> Backend:
    """The backend called ``name``; imports its framework at the first call.

    Args:
        name: A registered name, a backend itself, or None for the default: ``UNILAYERS_BACKEND``, else ``numpy``. Where
            that variable says ``auto``, what is not training runs on ``numpy``.

    Raises:
        BackendError: unknown name (with the nearest), or a framework that is not installed (with the pip command).
    """
    if isinstance(name, Backend):
        return name
    name = name or default_name()
    if name in _loaded:
        return _loaded[name]
    if name == AUTO:
        raise BackendError(
            "'auto' is a choice among backends for training", expected="one backend here",
            fix=f"Valid names: {', '.join(backend_names())}",
        )  # fmt: skip
    if name not in _installed():
        raise BackendError(f"unknown backend {name!r}", fix=nearest(name, backend_names()))
    try:
        found = _installed()[name].load()
    except ModuleNotFoundError as error:
        if error.name and error.name.startswith("unilayers"):
            raise
        raise BackendError(
            f"backend {name!r} needs the package {error.name!r}",
            fix=f"Install it with: pip install 'unilayers[{name}]'",
        ) from None
    _loaded[name] = found
    return found


def is_loaded(name: str) -> bool:
    """Whether a backend, or the framework it is named after, was imported already."""
    return name in _loaded or name in sys.modules


def version_of(package: str) -> str | None:
    """The installed version of a package, also where it comes in a distribution of another name; or None."""
    try:
        return version(package)
    except PackageNotFoundError:
        others = _distributions().get(package)
        return version(others[0]) if others else None


@cache
def _distributions() -> Mapping[str, list[str]]:
    return packages_distributions()


def register_backend(backend: Backend) -> Backend:
    """Make a backend known without an entry point, in this process."""
    _loaded[backend.name] = backend
    return backend


def backend_of(array: object) -> Backend | None:
    """The backend whose array this is, or None. Imports a backend only if the array's framework is loaded already."""
    for backend in _loaded.values():
        if backend.device_of(array) is not None:
            return backend
    framework = type(array).__module__.partition(".")[0]
    for name in backend_names():
        if name not in _loaded and framework.startswith(name) and name in sys.modules:
            backend = get_backend(name)
            return backend if backend.device_of(array) is not None else None
    return None


# ---- keras.backend ----------------------------------------------------------

_KERAS = dict.fromkeys(
    ("backend", "epsilon", "floatx", "image_data_format", "set_epsilon", "set_floatx", "set_image_data_format"),
    "config",
) | dict.fromkeys(
    ("clear_session", "is_float_dtype", "is_int_dtype", "is_keras_tensor", "result_type", "standardize_dtype"),
    "utils.general",
)


def __getattr__(name: str) -> Any:
    """The helpers that Keras's module of this name has; they stand elsewhere."""
    if name not in _KERAS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"unilayers.{_KERAS[name]}"), name)
