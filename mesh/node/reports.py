"""What programs that run on a node tell of themselves in its statistics."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from mesh.errors import ConfigError

__all__ = ["Reports"]


class Reports:
    """Snapshots by name, of those that are there now."""

    def __init__(self) -> None:
        self._snapshots: dict[str, Callable[[], object]] = {}

    @contextmanager
    def report(self, name: str, snapshot: Callable[[], object]) -> Iterator[None]:
        """``Node.report_bridge``."""
        if name in self._snapshots:
            raise ConfigError(f"{name!r} is the name of another bridge of this node", key="name")
        self._snapshots[name] = snapshot
        try:
            yield
        finally:
            del self._snapshots[name]

    def collect(self) -> dict[str, object]:
        """What each tells now."""
        return {name: snapshot() for name, snapshot in self._snapshots.items()}
