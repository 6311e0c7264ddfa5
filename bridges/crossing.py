"""One message across a route: what ``mapping``, ``values`` and ``messages`` know, put together.

    mesh message → loop? → names by template → value by format → headers → ``BrokerMessage``   (``Outward``)
    ``BrokerMessage`` → loop? → mesh topic by template → value → headers → ``Inward.take``'s result (``Inward``)

No I/O, no state but what was worked out for a name before.  What cannot cross raises ``Unmappable``; what
has been here before raises ``Looped``.

Message ids: the one that the message carries already (header ``message-id``), else the sender's node id, a hash of
the topic and the sender's number: the same for every bridge that sees the message, so that one which takes
over from another sends what receivers can tell for a duplicate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import Any, Final, NamedTuple

import mesh
from bridges.base import Kind
from bridges.mapping import LEVEL, reject_topic
from bridges.messages import CONTENT_TYPE, MESSAGE_ID, PATH, SENDER, TIMESTAMP, TOPIC, BrokerMessage
from bridges.settings import ExportRoute, ImportRoute
from bridges.values import CBOR, RAW, SEALED, Unmappable, from_broker, to_broker
from mesh.errors import CredentialError, ValueEncodingError

__all__ = ["Inward", "Looped", "Names", "Outward", "Taken", "message_id", "origin_of"]

MOST_BRIDGES: Final = 16
"""Bridges on one message's path: a longer way is a mistake in the configuration, though no loop."""

_NAMES: Final = 4096
"""Topics whose names are remembered, a route: more are worked out again, at some microseconds each."""


class Looped(Exception):
    """The message has passed this bridge before."""


def passed(path: str, identity: str) -> str:
    """The path with this bridge at its end. Raises ``Looped``, ``Unmappable``."""
    bridges = path.split(",") if path else []
    if identity in bridges:
        raise Looped
    if len(bridges) >= MOST_BRIDGES:
        raise Unmappable("path", f"it has passed {len(bridges)} bridges")
    return f"{path},{identity}" if path else identity


@lru_cache(maxsize=_NAMES)
def topic_hash(topic: str) -> str:
    """16 hex digits that stand for a topic."""
    return blake2b(topic.encode(), digest_size=8).hexdigest()


def message_id(message: mesh.Message) -> str:
    """What names this message everywhere."""
    known = message.headers.get(MESSAGE_ID)
    return known or f"{origin_of(message)}-{message.sequence}"


def origin_of(message: mesh.Message) -> str:
    """Who published it, on which topic: those messages are numbered in a row."""
    return f"{message.sender.id}-{topic_hash(message.topic)}"


class Names(NamedTuple):
    """What a mesh topic comes to at the broker."""

    destination: str
    key: str
    filled: Mapping[str, str]


class _Line(NamedTuple):
    """What the messages of one sender on one topic have in common, if they have no headers of their own."""

    names: Names
    headers: Mapping[str, str]
    origin: str


class Outward:
    """An export route's mapping."""

    def __init__(self, route: ExportRoute, kind: Kind, identity: str, vault: mesh.Vault) -> None:
        self._route = route
        self._vault = None if route.decrypt else vault
        self._kind = kind
        self._identity = identity
        self._pattern = mesh.Pattern.parse(route.pattern)
        self._names = lru_cache(maxsize=_NAMES)(self._work_out)
        self._lines = lru_cache(maxsize=_NAMES)(self._draw)

    def _work_out(self, topic: str) -> Names | Unmappable:
        route = self._route
        captures = self._pattern.captures(topic) or []

        def fill(template: Any) -> str:
            return str(template.fill(topic, captures, separator=LEVEL, to=route.separator))

        destination = fill(route.to)
        fault = self._kind.reject_destination(destination)
        if fault is not None:
            return Unmappable("topic", f"{topic!r} came to {destination!r}: {fault}")
        filled = {name: fill(template) for name, template in route.templates.items()}
        return Names(destination, filled.get("key", topic), filled)

    def names(self, topic: str) -> Names:
        """Raises ``Unmappable``."""
        names = self._names(topic)
        if isinstance(names, Unmappable):
            raise names.with_traceback(None)
        return names

    def _draw(self, topic: str, sender: str, node: str) -> _Line:
        return _Line(
            self.names(topic),
            {PATH: self._identity, TOPIC: topic, SENDER: sender},
            f"{node}-{topic_hash(topic)}",
        )

    def take(
        self, messages: Sequence[mesh.Message]
    ) -> tuple[list[BrokerMessage], dict[int, Unmappable | Looped]]:
        """The messages for the broker; and why there is none of some, by their place."""
        taken: list[BrokerMessage] = []
        faults: dict[int, Unmappable | Looped] = {}
        raw = self._route.format == "raw"
        make = BrokerMessage._make  # half the price of a call
        topic = sender = None
        destination = key = origin = ""
        headers: Mapping[str, str] = {}
        filled = headers
        for place, message in enumerate(messages):
            try:
                if message.headers or self._vault is not None:
                    taken.append(self._take(message))
                    continue
                # The short way, for most of what a busy mesh publishes.
                if message.topic is not topic or message.sender is not sender:
                    topic, sender = None, message.sender
                    (destination, key, filled), headers, origin = self._lines(
                        message.topic, sender.name, sender.id
                    )
                    topic = message.topic
                if raw:
                    data, content_type = message.data, CBOR if message.kind else RAW
                else:
                    data, content_type = to_broker(message, self._route.format)
                identity = f"{origin}-{message.sequence}"
                taken.append(
                    make(
                        (
                            destination, data, key, headers, content_type, identity, message.timestamp, "", "",
                            filled,
                        )
                    )
                )  # fmt: skip
            except (Looped, Unmappable) as error:
                faults[place] = error.with_traceback(None)
        return taken, faults

    def _take(self, message: mesh.Message) -> BrokerMessage:
        """Any message. Raises ``Unmappable``, ``Looped``."""
        given = message.headers
        headers = {
            **given,
            PATH: passed(given.get(PATH, ""), self._identity),
            TOPIC: given.get(TOPIC, message.topic),
            SENDER: given.get(SENDER, message.sender.name),
        }
        names = self.names(message.topic)
        if self._vault is not None:
            data, content_type = self._seal(self._vault, message)
        else:
            data, content_type = to_broker(message, self._route.format)
        # A type that the publisher gave (image/png) says more than "bytes".
        said = headers.pop(CONTENT_TYPE, "")
        if said and message.kind == 0 and self._route.format == "raw" and self._vault is None:
            content_type = said
        headers.pop(MESSAGE_ID, None)
        headers.pop(TIMESTAMP, None)
        return BrokerMessage(
            names.destination,
            data,
            key=names.key,
            headers=headers,
            content_type=content_type,
            message_id=message_id(message),
            timestamp=_timestamp(given.get(TIMESTAMP), message.timestamp),
            filled=names.filled,
        )

    @staticmethod
    def _seal(vault: mesh.Vault, message: mesh.Message) -> tuple[bytes, str]:
        try:
            return vault.seal(message.topic, message.value), SEALED
        except ValueEncodingError as error:
            raise Unmappable("not CBOR", error.reason) from None

    def request(self, request: mesh.Request) -> BrokerMessage:
        """A mesh request for a worker at the broker. Raises ``Unmappable``, ``Looped``."""
        names = self.names(request.topic)
        data, content_type = to_broker(request, self._route.format)
        headers = {
            **request.headers,
            PATH: passed(request.headers.get(PATH, ""), self._identity),
            TOPIC: request.topic,
            SENDER: request.sender.name,
        }
        return BrokerMessage(
            names.destination,
            data,
            key=names.key,
            headers=headers,
            content_type=content_type,
            filled=names.filled,
        )


def _timestamp(said: str | None, otherwise: float) -> float:
    try:
        return float(said) if said is not None else otherwise
    except ValueError:
        return otherwise


class Taken(NamedTuple):
    """What a broker's message is in the mesh."""

    topic: str
    value: Any
    headers: dict[str, str]


class Inward:
    """An import route's mapping."""

    def __init__(self, route: ImportRoute, identity: str, vault: mesh.Vault) -> None:
        self._route = route
        self._vault = vault
        self._identity = identity
        self._topic = lru_cache(maxsize=_NAMES)(self._work_out)

    def _work_out(self, destination: str) -> str | Unmappable:
        route = self._route
        captures = route.source.captures(destination)
        if captures is None:
            return Unmappable("topic", f"{destination!r} is not what {route.source.text!r} takes")
        topic = route.topic.fill(destination, captures, separator=route.separator, to=LEVEL)
        fault = reject_topic(topic)
        if fault is not None:
            return Unmappable("topic", f"{destination!r} came to {topic!r}: {fault}")
        return topic

    def _open(self, data: bytes) -> Any:
        try:
            return self._vault.open(data).value
        except CredentialError as error:
            raise Unmappable("sealed", error.reason) from None

    def take(self, message: BrokerMessage) -> Taken:
        """The message for the mesh. Raises ``Unmappable``, ``Looped``."""
        path = passed(message.headers.get(PATH, ""), self._identity)
        topic = self._topic(message.destination)
        if isinstance(topic, Unmappable):
            raise topic.with_traceback(None)
        if message.content_type != SEALED:
            value = from_broker(message.data, message.content_type, self._route.format)
        elif self._route.decrypt:
            value = self._open(message.data)
        else:
            value = message.data
        headers = {**message.headers, PATH: path}
        if message.message_id:
            headers[MESSAGE_ID] = message.message_id
        if message.content_type and isinstance(value, bytes) and value is message.data:
            headers[CONTENT_TYPE] = message.content_type
        if message.timestamp is not None:
            headers[TIMESTAMP] = repr(message.timestamp)
        return Taken(topic, value, headers)
