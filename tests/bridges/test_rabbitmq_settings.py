"""What needs no broker of RabbitMQ's adapter: properties there and back, and what its tables may say."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from aiormq import spec
from aiormq.abc import DeliveredMessage
from hypothesis import example, given
from hypothesis import strategies as st
from pamqp import frame
from pamqp.header import ContentHeader

from bridges.base import BrokerRejected, BrokerUnavailable
from bridges.config import read_bridge
from bridges.messages import BrokerMessage
from bridges.rabbitmq.consuming import queue_name
from bridges.rabbitmq.faults import connecting
from bridges.rabbitmq.properties import PERSISTENT, delivered, properties_of, reject_name, reject_short
from mesh.errors import ConfigError

FRAME = 131_064
"""What a frame of RabbitMQ's default size holds."""


def over_the_wire(message: BrokerMessage, **more: Any) -> BrokerMessage:
    properties = properties_of(message, mode=PERSISTENT, room=FRAME, **more)
    bytes_ = frame.marshal(ContentHeader(0, len(message.data), properties), 1)
    assert len(bytes_) <= FRAME + 8
    _, _, header = frame.unmarshal(bytes_)
    assert isinstance(header, ContentHeader)
    return delivered(given_to_a_consumer(message.destination, message.data, header))


def given_to_a_consumer(key: str, body: bytes, header: ContentHeader) -> DeliveredMessage:
    deliver = spec.Basic.Deliver(
        consumer_tag="c", delivery_tag=1, redelivered=False, exchange="", routing_key=key
    )
    return DeliveredMessage(delivery=deliver, header=header, body=body, channel=None)  # type: ignore[arg-type]


short = st.text(max_size=60)
names = st.text(min_size=1, max_size=30).filter(lambda name: name not in ("x-death", "timestamp_in_ms"))


@given(
    headers=st.dictionaries(names, st.text(max_size=200), max_size=20),
    content_type=short,
    message_id=short,
    correlation_id=short,
    milliseconds=st.none() | st.integers(0, 4_000_000_000_000),
)
@example({}, "", "", "", 1001)  # 1.001 s times 1000 is a little less than 1001
def test_what_crosses_is_what_was_sent(
    headers: dict[str, str], content_type: str, message_id: str, correlation_id: str, milliseconds: int | None
) -> None:
    message = BrokerMessage(
        "a.b",
        b"body",
        key="a.b",
        headers=headers,
        content_type=content_type,
        message_id=message_id,
        correlation_id=correlation_id,
        timestamp=None if milliseconds is None else milliseconds / 1000,
    )
    assert over_the_wire(message) == message


def test_headers_that_amqp_has_a_property_for() -> None:
    message = BrokerMessage(
        "k", b"", key="k", headers={"type": "order", "app-id": "shop", "content-encoding": "gzip"}
    )
    properties = properties_of(message, mode=PERSISTENT, room=FRAME)
    assert (properties.message_type, properties.app_id, properties.content_encoding) == (
        "order",
        "shop",
        "gzip",
    )
    assert over_the_wire(message) == message


@given(
    sizes=st.lists(st.integers(0, 70_000), max_size=4),
    name=st.text(min_size=1, max_size=300),
    message_id=st.text(max_size=300),
)
def test_what_is_too_large_is_refused_and_all_else_fits_a_frame(
    sizes: list[int], name: str, message_id: str
) -> None:
    headers = {name: "", **{f"h{number}": "é" * (size // 2) for number, size in enumerate(sizes)}}
    try:
        over_the_wire(BrokerMessage("k", b"", headers=headers, message_id=message_id))
    except BrokerRejected as fault:
        assert fault.reason in ("header too large", "property too large")
        assert reject_name(name) or reject_short(message_id) or sum(sizes) > FRAME - 1000


def test_headers_of_others_become_text() -> None:
    table = {
        "count": 3,
        "ok": True,
        "none": None,
        "raw": b"\xff",
        "list": [1, "x"],
        "when": datetime(2026, 1, 2, tzinfo=UTC),
        "price": Decimal("1.50"),
        "x-death": [{"reason": "rejected"}],
    }
    header = ContentHeader(0, 0, spec.Basic.Properties(headers=table, app_id="shop", message_type="order"))
    got = delivered(given_to_a_consumer("k", b"", header))
    assert dict(got.headers) == {
        "count": "3",
        "ok": "true",
        "none": "",
        "raw": "\ufffd",
        "list": '[1, "x"]',
        "when": "2026-01-02 00:00:00+00:00",
        "price": "1.50",
        "app-id": "shop",
        "type": "order",
    }


def test_an_error_whose_causes_are_a_ring_has_an_end() -> None:
    """The client raises one object again and again; Python may hang it behind itself."""
    first, second = ConnectionError("gone"), ValueError("closed")
    first.__cause__, second.__cause__ = second, first
    assert isinstance(connecting(first), BrokerUnavailable)
    second.__cause__ = ssl.SSLCertVerificationError("no")
    second.__cause__.verify_message = "self-signed certificate"
    told = connecting(first)
    assert isinstance(told, BrokerRejected)
    assert (told.reason, told.detail) == ("certificate", "self-signed certificate")


# -- tables ----------------------------------------------------------------------------------

EXPORT = {"pattern": "**", "to": "{topic}"}
IMPORT = {"from": "a.*", "topic": "{topic}"}


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"options": {"prefetch": 0}}, "options.prefetch: expected a whole number above 0"),
        ({"options": {"prefetch": 70_000}}, "options.prefetch: expected 65535 at most"),
        ({"options": {"heartbeat": 4000}}, "options.heartbeat: expected 3600 seconds at most"),
        (
            {"export": [{**EXPORT, "exchange_type": "topics"}]},
            'export[1].exchange_type: expected one of "topic"',
        ),
        ({"export": [{**EXPORT, "exchange": "", "exchange_type": "direct"}]}, "can't be declared"),
        ({"export": [{**EXPORT, "queue": "q"}]}, "export[1].queue: needs a binding"),
        ({"export": [{**EXPORT, "binding": "q"}]}, "export[1].binding: needs the queue"),
        ({"export": [{**EXPORT, "mandatry": True}]}, "did you mean"),
        ({"import": [{**IMPORT, "from": "x" * 256}]}, "import[1].from: has 256 bytes"),
        ({"import": [{**IMPORT, "exchange": "", "exchange_type": "direct"}]}, "can't be declared"),
        ({"import": [{**IMPORT, "exchange": ""}]}, "import[1].from: the default exchange has no patterns"),
        ({"import": [{**IMPORT, "headers": {"a": 1.5}}]}, "import[1].headers: expected a table of texts"),
        ({"import": [{**IMPORT, "queue": "q" * 256}]}, "import[1].queue: expected a name of 255 bytes"),
    ],
)
def test_a_mistake_is_one_clear_line(table: dict[str, Any], said: str) -> None:
    document = {"kind": "rabbitmq", "url": "amqp://127.0.0.1", **table}
    if "export" not in document and "import" not in document:
        document["export"] = [EXPORT]
    with pytest.raises(ConfigError) as told:
        read_bridge(document)
    assert said in str(told.value)
    assert "\n" not in str(told.value)


def test_a_queue_is_named_for_what_it_reads() -> None:
    """The same for all bridges of one identity; another for another route, so that neither takes the other's."""

    def name(identity: str = "i" * 16, **route: Any) -> str:
        document = {"kind": "rabbitmq", "url": "amqp://127.0.0.1", "import": [{**IMPORT, **route}]}
        return queue_name(identity, read_bridge(document).imports[0])

    assert name() == name()
    assert name().startswith("zeromesh." + "i" * 16 + ".")
    others = [
        name("j" * 16),
        name(reliable=True),
        name(exchange="orders"),
        name(headers={"a": "b"}),
        name(**{"from": "b.*"}),
    ]
    assert len({name(), *others}) == 6
    assert name(queue="mine") == "mine"
    assert name(exchange="", **{"from": "mine"}) == "mine"
    assert name(request=True, **{"from": "rpc.double"}) == "rpc.double"
