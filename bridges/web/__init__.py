"""The web gateway: browsers, scripts and other languages reach the mesh through one port of the daemon.

    socket → ``server`` (hypercorn's HTTP/1.1 on each connection) → ``edge`` (Host, Origin, what no URL may hold)
        → ``websocket``  /ws: ``wire`` reads what a client says, ``session`` carries it out
        → ``rest``       /api/v1/…, /openapi.json, /healthz, /metrics, the pages

    mesh → ``hub`` (one subscription a pattern) → ``encoding`` (once a message and format) → ``outbox`` of each
        client → its socket

``gateway`` puts them together.  ``access`` and ``scopes`` say who may do what; ``bounds`` holds every limit.
Importing this package costs nothing; FastAPI and hypercorn are imported by ``gateway``.
"""

from __future__ import annotations
