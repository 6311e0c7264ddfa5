"""The bridge's adapter for Redis (6.2 or later), on coredis.

kind       what mesh.toml may say; ``KIND``
broker     one client of its own pool of connections, and the ``Session`` on it
sending    an export route: PUBLISH, or XADD where reliable, pipelined; SET of what is retained
notes      the headers of what is published: pub/sub has none, so they travel beside it
listening  an import route of channels: (P)SUBSCRIBE
reading    an import route of streams: a consumer group, XACK once the mesh has it, XAUTOCLAIM
faults     which of the client's errors means what to a bridge
"""

from __future__ import annotations

from bridges.redis.kind import KIND

__all__ = ["KIND"]
