"""``unilayers backends``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from unilayers.backend import Backend


def _devices(backend: Backend) -> list[tuple[str, str, str]]:
    """A backend's devices, and why it has none but the CPU."""
    found = [(backend.name, device, str(backend.hardware.facts(device))) for device in backend.devices()]
    why = backend.hardware.missing()
    return [*found, *([(backend.name, "cuda", f"not usable: {why}")] if why else [])]


def backends(
    ops: Annotated[bool, typer.Option("--ops", help="List for each op how every backend runs it.")] = False,
) -> None:
    """List the engines: installed or how to install them, versions, devices, how the ops run."""
    from unilayers.backend import backend_names, get_backend, version_of
    from unilayers.errors import BackendError

    from .report import how_ops_run, table

    installed, rows = {}, []
    for name in backend_names():
        try:
            found = installed[name] = get_backend(name)
        except BackendError as error:
            rows.append((name, "not installed", "", error.fix))
            continue
        versions = {package: version_of(package) for package in found.packages} | found.libraries()
        ways = list(how_ops_run(found).values())
        counts = ", ".join(f"{ways.count(way)} {way}" for way in ("primitive", "fused", "expanded"))
        said = ", ".join(f"{package} {version}" for package, version in versions.items())
        rows.append((name, said, ", ".join(found.devices()), counts))
    table(["Backend", "Version", "Devices", "Ops"], rows)
    typer.echo()
    table(["Backend", "Device", "What it is"], [row for found in installed.values() for row in _devices(found)])
    if ops:
        columns = {name: how_ops_run(found) for name, found in installed.items()}
        typer.echo()
        every = sorted(next(iter(columns.values())))
        table(["Op", *columns], [(op, *(column[op] for column in columns.values())) for op in every])
