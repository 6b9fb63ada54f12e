"""``backend="auto"``: the engine on which a training takes the least time, found by trying its step on each."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from itertools import count, islice, repeat
from math import inf
from pathlib import Path
from time import perf_counter
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from unilayers.backend import AUTO, EMBEDDED, VARIABLE, Backend, backend_names, get_backend, is_loaded, version_of
from unilayers.errors import BackendError, UnilayersError
from unilayers.graph import Graph
from unilayers.graph.serialize import to_json
from unilayers.program import Program, moved, sizes_of
from unilayers.spec import host_dtype
from unilayers.training.feed import BATCH_SIZE, ArrayFeed, Feed

FOLDER = "UNILAYERS_CACHE"  # a variable: where to keep what was measured
LOADING = "loading.json"  # seconds that the import of each engine took here
UNKNOWN_LOADING = 2.0  # seconds, while that was never measured
TRYING = 0.5  # seconds that compiling and timing an engine take, more or less
WORTH = 0.5  # the share of what is ahead that trying may cost
MANY = 100_000  # steps, where nobody knows how many there will be
ROUND, ROUNDS, LIMIT = 0.02, 5, 0.5  # seconds of a round, rounds, seconds after which there are no more
NEAR = 2.0  # times the best, within which engines are timed again in turns
CARE, LONGEST = 0.01, 5.0  # for what share of the training, and for how many seconds at most


@dataclass(frozen=True)
class Measured:
    """What a training step takes on an engine.

    Args:
        step: Seconds of a step.
        compile: Seconds until the end of the first step.
        packages: Versions of what that depends on.
        problem: Why the step does not run there; empty if it does.
    """

    step: float = 0.0
    compile: float = 0.0
    packages: Mapping[str, str | None] = field(default_factory=dict)
    problem: str = ""


def asked(model: Any, backend: str | Backend | None) -> bool:
    """Whether ``fit`` is to choose: the call says so, else ``compile``, else the environment before weights are placed.

    Args:
        model: The model.
        backend: What the call says.
    """
    wanted = backend or model._place[0]
    if wanted is None and all(v.store is None for v in model.variables):
        wanted = os.environ.get(VARIABLE)
    return bool(wanted == AUTO)


def choose(
    program: Any,
    feed: Feed,
    device: str | None = None,
    steps: int | None = None,
    retime: bool = False,
    say: Callable[[str], None] | None = print,
) -> tuple[Backend, str] | None:
    """The backend, with its device, on which a training is done first: import, compilation and all steps.

    The compiled step runs on copies of the state, so that nothing is changed: training goes on as if the winner had
    been named. The engines are tried in the order of what their import costs, as long as one more can pay: all trying
    is to take no more than half of the time in which the best one so far is done. An engine that is not installed, or
    raises an error, is left out.

    What was measured is kept in files, one for each graph, batch size, device, CPU and number of threads, in the folder
    that the variable ``UNILAYERS_CACHE`` names, else in the user's folder for caches. It counts as long as the versions
    of unilayers, NumPy and the engine are the same.

    Args:
        program: The training step.
        feed: The data.
        device: Its name on every engine; None: the first of each.
        steps: How many there will be; None if that is not known, which counts as many.
        retime: Whether to time all engines again.
        say: Takes the lines that tell what was measured.

    Returns:
        None if the step is no single graph, or there are no steps.

    Raises:
        BackendError: if no engine can run the step, with what each of them says.
    """
    traced = program if isinstance(program, Program) else getattr(program, "program", None)
    if traced is None or (steps is not None and steps <= 0):
        return None
    contest = Contest(traced, feed, device, steps or MANY, retime)
    contest.hold()
    place = contest.winner()
    for line in contest.lines(place[0].name):
        if say is not None:
            say(line)
    return place


class Contest:
    """Engines and how long they take for one step, as far as that is known.

    Args:
        program: The step.
        feed: The data.
        device: Its name on every engine.
        steps: How many there will be.
        retime: Whether to begin without what was measured before.
    """

    def __init__(self, program: Program, feed: Feed, device: str | None, steps: int, retime: bool) -> None:
        self._program, self._feed, self._device, self._steps = program, feed, device, steps
        self._shapes = [a.shape for a in next(endless(feed))]
        self._key = _key(program.graph, sizes_of(program.graph.inputs, self._shapes), device)
        before = _measured_here.get(program, {}).get(self._key)
        self.known: dict[str, Measured] = {} if retime else dict(before or _read(self._key))
        self.trials: dict[str, Trial] = {}
        self.tried: list[str] = []
        self.untried: list[str] = []

    def total(self, name: str) -> float:
        """Seconds until a training on an engine is done. Compilation counts although the winner's is behind us: another
        is ahead for the last batch, and for validation."""
        m = self.known[name]
        return inf if m.problem else loading(name) + m.compile + self._steps * m.step

    @property
    def best(self) -> float:
        """Seconds of the fastest."""
        return min(map(self.total, self.known), default=inf)

    def hold(self) -> None:
        """Time the engines that are not known yet, as far as that can pay."""
        start = perf_counter()
        for name in sorted([n for n in backend_names() if n not in self.known], key=loading):
            if perf_counter() - start + loading(name) + TRYING > WORTH * self.best:
                self.untried.append(name)
                continue
            with self._leaving_out(name):
                self._try(name)
            for far in [n for n in self.trials if self.total(n) > NEAR * self.best]:
                self._end(far)
        self._compare()
        _measured_here.setdefault(self._program, {})[self._key] = self.known
        if self.tried:
            _write(self._key, self.known)

    def _compare(self) -> None:
        """Time those that are near each other once more, in turns: what else the machine does then hits all of them."""
        start, longest = perf_counter(), min(max(LIMIT, CARE * self.best), LONGEST)
        for _ in range(round(LONGEST / ROUND)):
            if len(self.trials) > 1 and perf_counter() - start < longest:
                for name in list(self.trials):
                    with self._leaving_out(name):
                        self.trials[name].round()
                        self._note(name)

    def _try(self, name: str) -> None:
        known, start = is_loaded(name), perf_counter()
        self.known[name] = Measured()
        backend = get_backend(name)
        device = backend.device(self._device)
        if not known:
            _note_loading(name, perf_counter() - start)
        self.known[name] = Measured(packages=_versions(backend.packages))
        self.tried.append(name)
        self.trials[name] = Trial(self._program, backend, device, self._feed)
        self.trials[name].begin()
        self._note(name)

    def _note(self, name: str) -> None:
        trial = self.trials[name]
        self.known[name] = Measured(trial.step, trial.compile, self.known[name].packages)

    def _end(self, name: str) -> None:
        self.trials.pop(name).forget()

    @contextmanager
    def _leaving_out(self, name: str) -> Iterator[None]:
        """Whatever goes wrong on an engine is the reason to leave it out."""
        try:
            yield
        except Exception as error:
            text = str(error) if isinstance(error, UnilayersError) else f"{type(error).__name__}: {error}"
            self.known[name] = Measured(packages=self.known[name].packages, problem=" ".join(text.split())[:300])
            if name in self.trials:
                self._end(name)

    def winner(self) -> tuple[Backend, str]:
        """The backend that is done first, and its device."""
        for name in sorted(self.known, key=self.total):
            with self._leaving_out(name):
                if not self.known[name].problem:
                    backend = get_backend(name)
                    device = backend.device(self._device)
                    for other in [n for n in self.trials if n != name]:
                        self._end(other)
                    return backend, device
        reasons = "; ".join(f"{name}: {m.problem}" for name, m in self.known.items())
        raise BackendError("no backend can run this training", where=f"backend {AUTO!r}", received=reasons)

    def lines(self, winner: str) -> Iterator[str]:
        """What was measured and chosen, for people."""
        for name, m in self.known.items():
            if m.problem:
                yield f"{AUTO}: {name} is left out: {m.problem}"
        if self.untried:
            names = ", ".join(self.untried)
            done = f"{winner} is done in {self.best:.1f} s"
            yield f"{AUTO}: {names} not tried: to import and compile cannot pay, as {done}."
        steps = {name: m.step for name, m in self.known.items() if not m.problem}
        each = ", ".join(f"{name} {1000 * step:.3f} ms" for name, step in steps.items())
        when = "" if self.tried else ", measured before"
        why = "" if steps[winner] == min(steps.values()) else f" is done first, with {self._steps:,} steps ahead"
        yield f"{AUTO}: {each} a step (batch {self._shapes[0][0]}){when}; {winner}{why}."


class Trial:
    """A step on one engine, run with copies of the state.

    Args:
        program: The step.
        backend: The engine.
        device: A device of it.
        feed: The data.

    Attributes:
        compile: Seconds until the end of the first step.
        step: Seconds of a step: the least of all rounds, as what else the machine does only adds.
    """

    compile, step = 0.0, inf

    def __init__(self, program: Program, backend: Backend, device: str, feed: Feed) -> None:
        self._program, self._backend, self._device, self._batches = program, backend, device, endless(feed)
        self._shapes = [a.shape for a in next(endless(feed))]
        self._dtypes = [v.dtype for v in program.graph.inputs]
        self._host, self._owned = all(host_dtype(d) == d for d in self._dtypes), feed.owned
        self._count = 1

    def begin(self) -> None:
        """Compile, and run a few rounds."""
        start = perf_counter()
        self._function = self._program.executable(self._backend, self._device, self._shapes)
        variables = self._program.variables
        self._state = self._backend.put_as([v.numpy() for v in variables], [v.dtype for v in variables], self._device)
        self._run(1)
        self.compile = perf_counter() - start
        start = perf_counter()
        self.step = self._run(1)
        self._count = max(1, round(ROUND / max(self.step, 1e-6)))
        for _ in range(ROUNDS):
            if perf_counter() - start < LIMIT:
                self.round()

    def round(self) -> None:
        """Time some more steps."""
        self.step = min(self.step, self._run(self._count))

    def _run(self, steps: int) -> float:
        start = perf_counter()
        for arrays in islice(self._batches, steps):  # what makes them ready belongs to a step
            inputs = [a.astype(dtype, copy=False) for a, dtype in zip(arrays, self._dtypes, strict=True)]
            if self._host:
                there = self._backend.fed(inputs, self._device, self._owned)
            else:
                there = moved(inputs, self._backend, self._device)
            self._state, _ = self._function(self._state, there)
        self._backend.synchronize()
        return (perf_counter() - start) / steps

    def forget(self) -> None:
        """Let go of what was compiled."""
        self._program.forget(self._backend, self._device, self._shapes)


def endless(feed: Feed) -> Iterator[list[np.ndarray]]:
    """Real batches of one size without end. Where data comes in batches that is the first one again and again, as it
    may be there only once."""
    if not isinstance(feed, ArrayFeed):
        yield from repeat(feed.like.leaves)
    full = min(len(feed.like.leaves[0]), feed.batch_size or BATCH_SIZE)
    for number in count():
        yield from (arrays for arrays, _, _ in feed.batches(number) if len(arrays[0]) == full)


# ---- what was measured before -----------------------------------------------------

# In this process, also where no file can be written; by program and key.
_measured_here: WeakKeyDictionary[Program, dict[str, Mapping[str, Measured]]] = WeakKeyDictionary()


def cache_folder() -> Path:
    """Where measurements are kept."""
    if os.environ.get(FOLDER):
        return Path(os.environ[FOLDER]).expanduser()
    home = {"win32": "~/AppData/Local", "darwin": "~/Library/Caches"}.get(sys.platform, "~/.cache")
    return Path(os.environ.get("XDG_CACHE_HOME") or home).expanduser() / "unilayers"


def _key(graph: Graph, sizes: Mapping[str, int], device: str | None) -> str:
    """A digest of the step, and of what else decides how fast it runs but for the versions."""
    threads = sorted((k, v) for k, v in os.environ.items() if k.endswith("_THREADS"))
    about = [to_json(graph), sorted(sizes.items()), device, _processor(), _cores(), threads]
    return sha256(json.dumps(about).encode()).hexdigest()


def _processor() -> str:
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
        return next((line for line in lines if line.startswith("model name")), platform.machine())
    return platform.processor() or platform.machine()


def _cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _versions(packages: Iterable[str]) -> dict[str, str | None]:
    found = {name: version_of(name) for name in dict.fromkeys(("unilayers", "numpy", *packages))}
    return found | get_backend(EMBEDDED).libraries()


def _document(name: str) -> dict[str, Any]:
    """A file of the folder; nothing if it is missing or damaged."""
    with suppress(OSError, ValueError, RuntimeError):  # the last: there is no home
        found = json.loads((cache_folder() / name).read_text("utf-8"))
        return found if isinstance(found, dict) else {}
    return {}


def _keep(name: str, document: Mapping[str, Any]) -> None:
    """Write a file of the folder; a folder that cannot be written to is no error."""
    from unilayers.saving import write_atomically

    with suppress(OSError, RuntimeError):
        write_atomically(cache_folder() / name, (json.dumps(document, indent=2) + "\n").encode())


def _read(key: str) -> dict[str, Measured]:
    """What a file says about engines whose versions are the same; those of one that was not there never are."""
    found = {}
    with suppress(TypeError, AttributeError, KeyError, ValueError):  # damaged
        for name, values in _document(f"{key}.json").items():
            measured = Measured(**{**values, "step": float(values["step"]), "compile": float(values["compile"])})
            if name in backend_names() and measured.packages == _versions(measured.packages):
                found[name] = measured
    return found


def _write(key: str, known: Mapping[str, Measured]) -> None:
    _keep(f"{key}.json", {name: asdict(m) for name, m in known.items()})


def loading(name: str) -> float:
    """Seconds that the import of an engine takes, or took when it was imported last."""
    if is_loaded(name):
        return 0.0
    seconds = _document(LOADING).get(name)
    return seconds if isinstance(seconds, (int, float)) else UNKNOWN_LOADING


def _note_loading(name: str, seconds: float) -> None:
    _keep(LOADING, {**_document(LOADING), name: seconds})
