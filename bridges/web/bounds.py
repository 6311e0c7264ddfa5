"""What a client of the gateway can make grow, and how far. The reason stands beside each.

Sizes are in bytes, times in seconds.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Bounds"]


@dataclass(frozen=True, slots=True)
class Bounds:
    """The limits of one gateway."""

    connections: int = 4096  # about 60 KiB each; beyond that a machine wants a second gateway
    head_bytes: int = 16 << 10  # request line and headers: a token and a browser's own need 2 KiB
    head_within: float = 10.0  # from the first byte's turn to the last of a request's head (slow-loris)
    idle_within: float = 60.0  # a kept-alive HTTP connection that asks nothing
    body_bytes: int = 1536 << 10  # a value of 1 MiB in base64, and its envelope
    body_within: float = 30.0  # the body of a request
    discard_bytes: int = 4 << 20  # of a body that is refused: read past, so that the client hears why
    send_within: float = 20.0  # 64 KiB into a socket: slower than 3 KiB/s is a reader that has stopped
    auth_within: float = 10.0  # from a WebSocket's opening to its token
    ping_every: float = 20.0  # proxies drop connections that are silent for a minute
    silent_within: float = 65.0  # three pings unanswered
    queue_bytes: int = 4 << 20  # what waits for one client; older messages give way
    answers_bytes: int = (
        16 << 20
    )  # … of answers to its own requests, which never give way: then it is cut off
    answers_pause: int = 2 << 20  # … and beyond this much its operations are left unread
    subscriptions: int = 256  # a client
    patterns: int = 2048  # subscriptions of the mesh in all, half of what a peer may have
    requests: int = 128  # in flight, a client
    operations_per_second: float = 5000.0  # a client; beyond that it is read more slowly
    operations_at_once: int = 10000  # … after a pause
    mistakes: int = 10  # of one client: after that it is told that this is not the protocol
    request_timeout: float = 60.0  # the longest that a client may ask for
    close_within: float = 2.0  # saying 1001 to all, when the daemon stops; also the end of a refused body
    traffic_topics: int = 512  # rows of the table of topics, on the page
    pairs: int = 4096  # round trips between two nodes, likewise: all those among 64
