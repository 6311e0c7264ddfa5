"""What holds for the repository as a whole: a good house."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from tests.sources import ROOT, imports, modules, parse, project_files

PACKAGES = ("mesh", "bridges")
TEXT = {
    ".py",
    ".md",
    ".toml",
    ".cfg",
    ".sh",
    ".service",
    ".json",
    ".txt",
    ".yml",
    ".yaml",
    ".html",
    ".js",
    "",
}

LINES = 400
LONGER: dict[str, str] = {}
"""Modules that may pass ``LINES``, and why they hold one idea nonetheless."""

PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = PYPROJECT["project"]


def report(faults: list[str]) -> None:
    assert not faults, "\n".join(["", *faults])


def texts() -> list[tuple[Path, str]]:
    return [
        (path, (ROOT / path).read_text(encoding="utf-8"))
        for path in project_files()
        if path.suffix in TEXT and path.name != Path(__file__).name
    ]


def test_nothing_names_a_machine_or_a_registry() -> None:
    # Not written out, so that a search for them finds only real ones.
    folders = ["/" + name + "/" for name in ("work", "root")] + [str(ROOT), str(Path.home()) + "/"]
    hosts = [".".join(parts) for parts in (("pypi", "org"), ("pythonhosted", "org"), ("npmjs", "org"))]
    unwanted = re.compile("|".join(re.escape(text) for text in folders + hosts))
    faults = []
    for path, text in texts():
        for number, line in enumerate(text.splitlines(), 1):
            if found := unwanted.search(line):
                faults.append(f"{path}:{number}: {found.group()}")
    report(faults)


def test_every_public_module_says_what_it_is() -> None:
    faults = []
    for package in (*PACKAGES, "benchmarks", "tools"):
        for path in modules(package).values():
            private = path.name.startswith("_") and path.name not in ("__init__.py", "__main__.py")
            tree = parse(path)
            if not private and tree.body and not ast.get_docstring(tree):
                faults.append(f"{path}:1: no docstring that says what the module is and how data flows")
    report(faults)


def test_modules_are_small_rooms() -> None:
    faults = []
    for package in PACKAGES:
        for path in modules(package).values():
            lines = len((ROOT / path).read_text(encoding="utf-8").splitlines())
            if lines > LINES and str(path) not in LONGER:
                faults.append(
                    f"{path}: {lines} lines, more than {LINES}: give its second idea a room of its own, "
                    f"or a reason in LONGER of tests/{Path(__file__).name}"
                )
    faults.extend(f"{name} is in LONGER and does not exist" for name in LONGER if not (ROOT / name).is_file())
    report(faults)


def dependency_lines() -> list[tuple[str, str]]:
    """Each requirement of pyproject.toml with the whole line it stands on."""
    lines = (ROOT / "pyproject.toml").read_text(encoding="utf-8").splitlines()
    wanted = [
        *PROJECT["dependencies"],
        *(one for group in PROJECT["optional-dependencies"].values() for one in group),
    ]
    return [(one, next(line for line in lines if f'"{one}"' in line)) for one in wanted]


@pytest.mark.parametrize(("requirement", "line"), dependency_lines())
def test_every_dependency_has_a_reason(requirement: str, line: str) -> None:
    reason = line.partition("#")[2].strip()
    assert len(reason) > 10, f"{requirement} has no reason beside it in pyproject.toml"
    if not requirement.startswith(PROJECT["name"]):
        assert ">=" in requirement, f"{requirement} has no lower bound"


def test_every_lint_exception_has_a_reason() -> None:
    lines = (ROOT / "pyproject.toml").read_text(encoding="utf-8").splitlines()
    lint = PYPROJECT["tool"]["ruff"]["lint"]
    codes = {*lint["ignore"], *(code for group in lint["per-file-ignores"].values() for code in group)}
    faults = []
    for code in sorted(codes):
        faults.extend(
            f"pyproject.toml:{number}: {code} has no reason beside it"
            for number, line in enumerate(lines, 1)
            if f'"{code}"' in line and "#" not in line
        )
    report(faults)


def test_what_is_imported_is_declared() -> None:
    """An import that only happens to be installed breaks on the next machine."""
    declared = {
        re.split(r"[\[<>=!~ ;]", one)[0].lower().replace("_", "-")
        for one in [
            *PROJECT["dependencies"],
            *(
                one
                for name, group in PROJECT["optional-dependencies"].items()
                if name != "dev"
                for one in group
            ),
        ]
    }
    distributions = packages_distributions()
    faults = []
    for package in PACKAGES:
        for path in modules(package).values():
            for entry in imports(path):
                top = entry.target.split(".")[0]
                if top in sys.stdlib_module_names or top in PACKAGES:
                    continue
                owners = {name.lower().replace("_", "-") for name in distributions.get(top, [top])}
                if not owners & declared:
                    faults.append(f"{entry.where}: {top} is no dependency of pyproject.toml")
    report(faults)


def test_the_changelog_knows_this_version() -> None:
    heads = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert PROJECT["version"] in heads


def test_links_in_the_documents_lead_somewhere() -> None:
    faults = []
    for path, text in texts():
        if path.suffix != ".md":
            continue
        prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", prose):
            if "://" not in target and not target.startswith("mailto:"):
                there = (ROOT / path).parent / target
                if not there.exists():
                    faults.append(f"{path}: {target} is not there")
    report(faults)


def test_packages_carry_their_types() -> None:
    report(
        [
            f"{package}/py.typed is missing"
            for package in PACKAGES
            if not (ROOT / package / "py.typed").is_file()
        ]
    )
