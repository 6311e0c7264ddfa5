"""What a person may have to act on, for programs that watch for it: the same that stands in the log."""

from __future__ import annotations

import logging
from typing import Final

from mesh.core.effects import Incident
from mesh.node.watch import Watch, Watches

__all__ = ["IncidentWatch", "Incidents"]

_log: Final = logging.getLogger("mesh.node")


class IncidentWatch(Watch[Incident]):
    """Made by ``node.watch_incidents``: an async iterator of ``Incident``.

    A watcher that does not read loses the oldest; ``dropped`` counts them. It ends when the node closes.
    """

    async def __anext__(self) -> Incident:
        return await super().__anext__()


class Incidents:
    """The incidents of one node: said in the log, and to whoever watches."""

    def __init__(self) -> None:
        self._watches: Watches[Incident] = Watches()

    def watch(self) -> IncidentWatch:
        watch = IncidentWatch()
        self._watches.add(watch)
        return watch

    def happened(self, incident: Incident) -> None:
        """The engine's news. Details never hold payloads or secrets."""
        _log.warning("%s: %s", incident.kind, incident.detail)
        self._watches.feed(incident)

    def close(self) -> None:
        self._watches.end()
