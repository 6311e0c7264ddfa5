"""Every error a program can meet, as one tree.

``MeshError`` is the root.  Errors carry their data as fields, so that a
program never has to parse a message.  Two families are kept apart on purpose
(the idea is h11's): what *this* program did wrong (``TopicError``,
``ConfigError``, ``NodeClosed`` …) and what a *peer* sent
(``mesh.core.types.RemoteProtocolError``, which never leaves the node).
"""

from __future__ import annotations

from collections.abc import Mapping

__all__ = [
    "ConfigError",
    "CredentialError",
    "CutOff",
    "ForkError",
    "MeshError",
    "MessageTooLarge",
    "NoResponders",
    "NodeClosed",
    "NotAuthorized",
    "Overflowed",
    "PeerGone",
    "ProtocolMismatch",
    "RemoteError",
    "RequestTimeout",
    "TopicError",
    "TransportError",
    "UnknownPeer",
    "ValueEncodingError",
]


class MeshError(Exception):
    """The root of every error that zeromesh raises."""


class TopicError(MeshError, ValueError):
    """A topic or pattern breaks the rules.

    ``topic`` is the offending text, ``reason`` says which rule.
    """

    def __init__(self, topic: str, reason: str) -> None:
        super().__init__(f"topic {topic!r}: {reason}")
        self.topic = topic
        self.reason = reason


class ValueEncodingError(MeshError, TypeError):
    """A value that CBOR cannot carry. ``type_name`` names its type."""

    def __init__(self, type_name: str, reason: str) -> None:
        super().__init__(f"a value of type {type_name} cannot be sent: {reason}")
        self.type_name = type_name
        self.reason = reason


class MessageTooLarge(MeshError, ValueError):
    """A message is over the limit. ``size`` and ``limit`` are in bytes."""

    def __init__(self, size: int, limit: int) -> None:
        super().__init__(f"message of {size} bytes is over the limit of {limit} bytes")
        self.size = size
        self.limit = limit


class NoResponders(MeshError):
    """Nobody in the mesh serves ``topic`` (known at once, without waiting)."""

    def __init__(self, topic: str) -> None:
        super().__init__(f"nobody serves {topic!r}")
        self.topic = topic


class RequestTimeout(MeshError, TimeoutError):
    """No reply to the request on ``topic`` within ``timeout`` seconds."""

    def __init__(self, topic: str, timeout: float) -> None:
        super().__init__(f"no reply to {topic!r} within {timeout:g} s")
        self.topic = topic
        self.timeout = timeout


class RemoteError(MeshError):
    """The handler on the other side raised.

    ``type_name`` is the remote exception's class name, ``text`` its text,
    ``peer_id`` the peer that ran the handler (None if unknown).
    """

    def __init__(self, type_name: str, text: str, peer_id: str | None = None) -> None:
        super().__init__(f"{type_name}: {text}" if text else type_name)
        self.type_name = type_name
        self.text = text
        self.peer_id = peer_id


class UnknownPeer(MeshError, LookupError):
    """No such peer is in the mesh now. ``peer`` is what was asked for."""

    def __init__(self, peer: str, reason: str = "no such peer") -> None:
        super().__init__(f"{reason}: {peer!r}")
        self.peer = peer


class PeerGone(MeshError):
    """The peer left, was declared gone, or stopped serving meanwhile. ``peer_id``, ``name``."""

    def __init__(self, peer_id: str, name: str = "", what: str = "is gone") -> None:
        super().__init__(f"peer {name or peer_id} {what}")
        self.peer_id = peer_id
        self.name = name


class NotAuthorized(MeshError):
    """A rule forbids it. ``action``, ``topic`` and the ``rule`` that said no."""

    def __init__(self, action: str, topic: str, rule: str = "") -> None:
        super().__init__(f"not allowed to {action} {topic!r}" + (f" ({rule})" if rule else ""))
        self.action = action
        self.topic = topic
        self.rule = rule


class Overflowed(MeshError):
    """A buffer with ``overflow="raise"`` was full; ``dropped`` messages did not fit."""

    def __init__(self, pattern: str, dropped: int) -> None:
        super().__init__(f"subscription {pattern!r} overflowed: {dropped} messages did not fit")
        self.pattern = pattern
        self.dropped = dropped


class CutOff(Overflowed):
    """A publisher has waited long enough for a subscription with ``overflow="backpressure"``, and waits no more.

    ``publisher`` and ``publisher_id`` name it. ``missing`` has what was dropped since, by topic: (first number, number
    behind the last), ``dropped`` messages in all; for who goes on it begins to wait again.
    """

    def __init__(
        self,
        pattern: str,
        publisher: str,
        publisher_id: str,
        dropped: int,
        missing: Mapping[str, tuple[int, int]],
    ) -> None:
        super().__init__(pattern, dropped)
        self.args = (
            f"subscription {pattern!r} was too slow: {publisher or publisher_id} waits no more for it, "
            f"{dropped} messages did not fit",
        )
        self.publisher = publisher
        self.publisher_id = publisher_id
        self.missing = missing


class NodeClosed(MeshError):
    """The node is closed (left its block) and can no longer be used."""

    def __init__(self, what: str = "the node is closed") -> None:
        super().__init__(what)


class ForkError(MeshError):
    """The node was used in a forked child; sockets and keys do not survive a fork."""

    def __init__(self, opened_in: int, used_in: int) -> None:
        super().__init__(
            f"this node was opened in process {opened_in} and cannot be used in its fork "
            f"{used_in}: open a node of its own there"
        )
        self.opened_in = opened_in
        self.used_in = used_in


class ConfigError(MeshError, ValueError):
    """A setting is wrong: ``key`` names it, ``file`` and ``line`` say where (if a file)."""

    def __init__(self, reason: str, *, key: str = "", file: str = "", line: int = 0) -> None:
        where = f"{file}:{line}: " if file and line else f"{file}: " if file else ""
        super().__init__(f"{where}{key + ': ' if key else ''}{reason}")
        self.reason = reason
        self.key = key
        self.file = file
        self.line = line


class CredentialError(MeshError):
    """Identity, certificate, token or home folder cannot be used. ``reason``, ``path``."""

    def __init__(self, reason: str, *, path: str = "") -> None:
        super().__init__(f"{path}: {reason}" if path else reason)
        self.reason = reason
        self.path = path


class ProtocolMismatch(MeshError):
    """Two nodes have no protocol version in common. Ranges are inclusive (low, high)."""

    def __init__(self, ours: tuple[int, int], theirs: tuple[int, int], peer: str = "") -> None:
        super().__init__(
            f"no protocol version in common{' with ' + peer if peer else ''}: "
            f"ours {ours[0]}-{ours[1]}, theirs {theirs[0]}-{theirs[1]}"
        )
        self.ours = ours
        self.theirs = theirs
        self.peer = peer


class TransportError(MeshError, OSError):
    """A socket could not be bound or used. ``endpoint`` and ``reason``."""

    def __init__(self, endpoint: str, reason: str) -> None:
        super().__init__(f"{endpoint}: {reason}")
        self.endpoint = endpoint
        self.reason = reason
