"""Write ``mesh/aio.pyi`` and ``mesh/sync.pyi``: what type checkers see of the faces.

The Trio classes' signatures → the same as the style has them (``mesh.portal.face``) → text.
Run it after a public signature has changed; ``tests/test_stubs.py`` notices when it wasn't.
"""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mesh
from mesh import api
from mesh.node.node import Node
from mesh.node.presence import PeerWatch
from mesh.node.publisher import Publisher
from mesh.node.subscription import Subscription
from mesh.portal.face import PUBLIC, foreign_signature

PACKAGE = Path(mesh.__file__).parent
CLASSES: tuple[type, ...] = (Node, Publisher, Subscription, PeerWatch)

ATTRIBUTES = {
    "name": "str", "config": "Config", "topic": "str", "pattern": "str", "group": "str", "buffer": "int",
    "overflow": "str", "received": "int", "dropped": "int", "lost": "int",
}  # fmt: skip
"""Those that are set in ``__init__``: nothing at run time says their types."""

MODULES = {
    "Any": "typing", "Self": "typing", "TracebackType": "types", "PathLike": "os",
    "AbstractContextManager": "contextlib", "AbstractAsyncContextManager": "contextlib",
    **dict.fromkeys(
        ("AsyncGenerator", "AsyncIterator", "Awaitable", "Callable", "Iterator", "Mapping", "Sequence"),
        "collections.abc",
    ),
}  # fmt: skip

STARS: dict[Any, str] = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}

HANDLER = {
    "aio": "Callable[[Request], Awaitable[Any] | AsyncGenerator[Any]]",
    "sync": "Callable[[Request], Any]",
}


class Style:
    """How one of the two modules spells the same things."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._plain = name == "sync"
        self._a = "" if self._plain else "a"
        self._async = "" if self._plain else "async "

    def text(self, annotation: Any) -> str:
        """An annotation of the Trio API in this style."""
        text = "None" if annotation is None else str(annotation)
        text = re.sub(r"\bos\.PathLike", "PathLike", text)
        text = re.sub(r"\bHandler\b", HANDLER[self.name], text)
        if self._plain:
            text = text.replace("AbstractAsyncContextManager", "AbstractContextManager")
            text = text.replace("AsyncIterator", "Iterator")
        return text

    def function(self, name: str, original: Callable[..., Any], returns: str | None = None) -> str:
        signature = foreign_signature(original)
        parameters = []
        for parameter in signature.parameters.values():
            starred = any(shown.startswith("*") for shown in parameters)
            if parameter.kind is parameter.KEYWORD_ONLY and not starred:
                parameters.append("*")
            shown = STARS.get(parameter.kind, "") + parameter.name
            if parameter.annotation is not parameter.empty:
                shown += f": {self.text(parameter.annotation)}"
            if parameter.default is not parameter.empty:
                shown += " = ..."
            parameters.append(shown)
        waits = self._async if inspect.iscoroutinefunction(original) else ""
        result = self.text(signature.return_annotation) if returns is None else returns
        return f"{waits}def {name}({', '.join(parameters)}) -> {result}: ..."

    def members(self, target: type) -> Iterator[str]:
        for name in PUBLIC[target]:
            original = inspect.getattr_static(target, name, None)
            if isinstance(original, property):
                assert original.fget is not None
                yield "@property"
                yield self.function(name, original.fget)
            elif inspect.isfunction(original):
                yield self.function(name, original)
            else:
                yield "@property"
                yield f"def {name}(self) -> {ATTRIBUTES[name]}: ..."
        if hasattr(target, "__aenter__"):
            yield f"{self._async}def __{self._a}enter__(self) -> Self: ..."
            yield (
                f"{self._async}def __{self._a}exit__(self, kind: type[BaseException] | None, "
                "error: BaseException | None, trace: TracebackType | None) -> None: ..."
            )
        if hasattr(target, "__aiter__"):
            item = inspect.signature(target.__anext__).return_annotation  # type: ignore[attr-defined]
            yield f"def __{self._a}iter__(self) -> {self.text(f'AsyncIterator[{item}]')}: ..."
            yield f"{self._async}def __{self._a}next__(self) -> {item}: ..."

    def module(self) -> str:
        parts = [
            f"class {target.__name__}:\n" + "\n".join(f"    {line}" for line in self.members(target))
            for target in CLASSES
        ]
        parts.append(
            self.function("open_node", api.open_node, self.text("AbstractAsyncContextManager[Node]"))
        )
        body = "\n\n".join(parts)
        return (
            f"# Written by tools/stubs.py: edit the Trio classes, and run it.\n\n{imports(body)}\n\n{body}\n"
        )


def imports(body: str) -> str:
    """The imports that ``body`` needs."""
    own = {target.__name__ for target in CLASSES}
    wanted: dict[str, set[str]] = {}
    for word in set(re.findall(r"\b[A-Z]\w*", body)):
        if word in MODULES:
            wanted.setdefault(MODULES[word], set()).add(word)
        elif word in mesh.__all__ and word not in own:
            wanted.setdefault("mesh", set()).add(word)
    ours = wanted.pop("mesh", set())
    lines = [f"from {module} import {', '.join(sorted(words))}" for module, words in sorted(wanted.items())]
    return "\n".join([*lines, "", f"from mesh import {', '.join(sorted(ours))}"])


def stubs() -> dict[Path, str]:
    """Each file and what should stand in it."""
    return {
        path: formatted(Style(path.stem).module(), path)
        for path in (PACKAGE / "aio.pyi", PACKAGE / "sync.pyi")
    }


def formatted(text: str, path: Path) -> str:
    """As ruff writes it."""
    command = [sys.executable, "-m", "ruff", "format", "--stdin-filename", str(path), "-"]
    return subprocess.run(command, input=text, capture_output=True, text=True, check=True).stdout


if __name__ == "__main__":
    for path, text in stubs().items():
        path.write_text(text, encoding="utf-8")
