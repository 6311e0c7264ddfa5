"""Layers import downwards only.

The tables below are the architecture: a module may import what stands *before* it, never what
stands after. A new module needs a place in them; the failure says so. The failures name
``path:line`` of the import.
"""

from __future__ import annotations

import ast
import sys
from graphlib import CycleError, TopologicalSorter

from tests.sources import Import, imports, modules, parse

LAYERS: list[set[str]] = [
    {"mesh.errors"},
    {"mesh.config"},
    {"mesh.core"},
    {"mesh.transport", "mesh.discovery"},
    {"mesh.node"},
    {"mesh.home", "mesh.settings"},  # the files of a user: what only api, daemon and command read
    {"mesh.api"},
    {"mesh.portal"},
    {"mesh.aio", "mesh.sync", "mesh.testing"},
    {"mesh"},  # mesh/__init__.py: the public names
    {"mesh.daemon"},
    {"mesh.cli"},
]
"""Lowest first. Those in one set know nothing of one another."""

CORE: list[str] = [
    "types",
    "keys",
    "topic",
    "subtrie",
    "tags",
    "shapes",
    "batches",
    "intro",
    "upkeep",
    "traffic",
    "messages",
    "receipts",
    "codec",
    "cose",
    "fields",
    "identity",
    "rules",
    "replay",
    "envelope",
    "keyring",
    "token",
    "join",
    "handshake",
    "strikes",
    "pace",
    "interest",
    "sequence",
    "reorder",
    "chunks",
    "ring",
    "membership",
    "farewell",
    "session",
    "router",
    "effects",
    "sealing",
    "broadcast",
    "outgoing",
    "windows",
    "dialer",
    "introductions",
    "addresses",
    "links",
    "suspicion",
    "directory",
    "subscriber",
    "audience",
    "parts",
    "repairs",
    "catchup",
    "accounts",
    "access",
    "receiver",
    "renewal",
    "standing",
    "dispatch",
    "engine",
]
"""The order inside ``mesh/core``: each imports only those before it."""

CORE_MAY_USE = {"cbor2", "cryptography"}
"""The core's only dependencies: both are functions of their arguments."""

CORE_IS_TOLD = {
    "asyncio", "concurrent", "datetime", "multiprocessing", "os", "pathlib", "random", "secrets", "select",
    "selectors", "signal", "socket", "ssl", "subprocess", "tempfile", "threading", "time",
}  # fmt: skip
"""What the core never asks for itself: the time, chance, the network, the file system."""

CORE_EXCEPTIONS = {
    ("mesh.core.codec", "os"): "one os.urandom at import, a trailer that no peer can guess",
}

CONFINED = {
    "zmq": {"mesh.transport", "mesh.cli"},
    "zeroconf": {"mesh.discovery", "mesh.cli"},
    "typer": {"mesh.cli"},
    "rich": {"mesh.cli"},
}
"""Libraries that one layer hides from the others (the command may name their versions)."""

BRIDGES_MAY_USE = {"mesh", "mesh.aio", "mesh.sync", "mesh.errors", "mesh.config", "mesh.testing"}
BRIDGES_ARE_RUN_BY = {"mesh.daemon", "mesh.cli"}

PLACE = "has no place in the tables of tests/test_architecture.py: decide which layer it is, and add it there"


def layer_of(module: str) -> str | None:
    """The entry of ``LAYERS`` that ``module`` belongs to."""
    names = set().union(*LAYERS)
    if module == "mesh":
        return "mesh"
    top = ".".join(module.split(".")[:2])
    return top if top in names else None


def rank(layer: str) -> int:
    return next(place for place, names in enumerate(LAYERS) if layer in names)


def report(faults: list[str]) -> None:
    assert not faults, "\n".join(["", *faults])


def test_every_module_of_mesh_belongs_to_a_layer() -> None:
    report([f"{path} {PLACE}" for name, path in modules("mesh").items() if layer_of(name) is None])


def test_layers_import_downwards_only() -> None:
    faults = []
    for module, path in modules("mesh").items():
        mine = layer_of(module)
        if mine is None:
            continue
        for entry in imports(path):
            theirs = layer_of(entry.target) if entry.target.split(".")[0] == "mesh" else None
            if theirs is None or theirs == mine:
                continue
            if rank(theirs) >= rank(mine):
                faults.append(f"{entry.where}: {mine} may not import {entry.target}, which is not below it")
    report(faults)


def test_the_core_imports_only_what_comes_before() -> None:
    faults = []
    place = {name: number for number, name in enumerate(CORE)}
    for module, path in modules("mesh/core").items():
        name = module.removeprefix("mesh.core").lstrip(".")
        if not name:
            continue
        if name not in place:
            faults.append(f"{path} {PLACE} (CORE)")
            continue
        for entry in imports(path):
            if not entry.target.startswith("mesh.core."):
                continue
            other = entry.target.removeprefix("mesh.core.")
            if other in place and place[other] >= place[name]:
                faults.append(f"{entry.where}: core/{name} may not import core/{other}, which comes after it")
    report(faults)


def test_the_core_is_told_the_time_and_does_no_io() -> None:
    faults = []
    for module, path in modules("mesh/core").items():
        for entry in imports(path):
            top = entry.target.split(".")[0]
            if top in CORE_IS_TOLD and (module, top) not in CORE_EXCEPTIONS:
                faults.append(f"{entry.where}: the core does not import {top}; let the caller tell it")
            elif not (top in CORE_MAY_USE or top == "mesh" or top in sys.stdlib_module_names):
                faults.append(f"{entry.where}: the core does not depend on {top}")
    report(faults)


def test_libraries_stay_behind_their_layer() -> None:
    faults = []
    for module, path in modules("mesh").items():
        for entry in imports(path):
            allowed = CONFINED.get(entry.target.split(".")[0])
            if allowed is not None and layer_of(module) not in allowed:
                faults.append(
                    f"{entry.where}: {entry.target} belongs to {' and '.join(sorted(allowed))} alone"
                )
    report(faults)


def test_bridges_use_only_public_names() -> None:
    faults = []
    for path in modules("bridges").values():
        for entry in imports(path):
            if entry.target.split(".")[0] == "mesh":
                faults.extend(private_use(entry))
        for node in ast.walk(parse(path)):
            if (
                isinstance(node, ast.Attribute)
                and isinstance(node.value, ast.Name)
                and node.value.id == "mesh"
            ):
                inner = layer_of(f"mesh.{node.attr}")
                if inner is not None and inner not in BRIDGES_MAY_USE:
                    faults.append(f"{path}:{node.lineno}: {inner} is not public")
    report(faults)


def private_use(entry: Import) -> list[str]:
    if entry.target not in BRIDGES_MAY_USE:
        return [f"{entry.where}: bridges use only the public names of mesh, not {entry.target}"]
    if entry.name is not None and entry.name.startswith("_"):
        return [f"{entry.where}: {entry.target}.{entry.name} is private"]
    return []


def test_only_those_who_run_bridges_import_them() -> None:
    report(
        [
            f"{entry.where}: only {' and '.join(sorted(BRIDGES_ARE_RUN_BY))} import bridges"
            for module, path in modules("mesh").items()
            if layer_of(module) not in BRIDGES_ARE_RUN_BY
            for entry in imports(path)
            if entry.target.split(".")[0] == "bridges"
        ]
    )


def test_no_module_imports_itself_in_a_circle() -> None:
    known = modules("mesh") | modules("bridges")
    graph = {
        module: {entry.target for entry in imports(path) if entry.target in known and not entry.typing_only}
        for module, path in known.items()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        circle = " → ".join(reversed(error.args[1]))
        raise AssertionError(f"these modules import each other: {circle}") from None
