"""The project's files and modules, for the tests that read the source instead of running it."""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
GENERATED = {".git", ".venv", "__pycache__", "build", "dist", ".mypy_cache", ".ruff_cache", ".hypothesis"}


class Import(NamedTuple):
    """One imported module, and where."""

    where: str
    """``path:line``"""
    target: str
    """Dotted name as far as it can be told: ``from mesh import aio`` is ``mesh.aio``."""
    name: str | None
    """The name taken out of ``target`` when it is no module itself."""
    typing_only: bool


def project_files() -> list[Path]:
    """Every file that is, or would be, under version control; relative to the root."""
    if (ROOT / ".git").exists():
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT,
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        paths = [Path(name) for name in listed.split("\0") if name]
    else:  # an unpacked source distribution
        paths = [path.relative_to(ROOT) for path in ROOT.rglob("*") if not GENERATED & set(path.parts)]
    return sorted(path for path in paths if (ROOT / path).is_file())


def modules(package: str) -> dict[str, Path]:
    """Dotted name → path relative to the root, of every module of ``package``."""
    found = {}
    for path in sorted((ROOT / package).rglob("*.py")):
        relative = path.relative_to(ROOT)
        parts = relative.with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = relative
    return found


@cache
def parse(path: Path) -> ast.Module:
    return ast.parse((ROOT / path).read_text(encoding="utf-8"), filename=str(path))


def imports(path: Path) -> Iterator[Import]:
    """Every import of a module, wherever it stands: at the top, in a function, for the types alone."""
    yield from _imports(parse(path), path, typing_only=False)


def _imports(node: ast.AST, path: Path, *, typing_only: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            for alias in child.names:
                yield Import(f"{path}:{child.lineno}", alias.name, None, typing_only)
        elif isinstance(child, ast.ImportFrom):
            base = child.module or ""
            for alias in child.names:
                target = f"{base}.{alias.name}"
                if _is_module(target):
                    yield Import(f"{path}:{child.lineno}", target, None, typing_only)
                else:
                    yield Import(f"{path}:{child.lineno}", base, alias.name, typing_only)
        elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            yield from _imports(child, path, typing_only=True)
        else:
            yield from _imports(child, path, typing_only=typing_only)


def _is_module(dotted: str) -> bool:
    path = ROOT.joinpath(*dotted.split("."))
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()
