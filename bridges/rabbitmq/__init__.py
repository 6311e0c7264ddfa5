"""The bridge's adapter for RabbitMQ (AMQP 0-9-1), on aio-pika.

    kind         what mesh.toml may say; ``KIND``
    broker       two connections, one to publish and one to consume, and the ``Session`` on them
    channels     a connection's channels, and whether the broker takes nothing for now
    publishing   an export route's channel: pipelined, confirmed, returned
    consuming    an import route's queue: declared, bound, prefetched, acknowledged
    calls        requests over direct reply-to, and replies
    properties   AMQP's properties ↔ ``BrokerMessage``
    faults       which of the client's errors means what to a bridge

All but ``kind`` and the face of ``broker`` runs on the asyncio loop of ``bridges.loop``, in its own thread.
"""

from __future__ import annotations

from bridges.rabbitmq.kind import KIND

__all__ = ["KIND"]
