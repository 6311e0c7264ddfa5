"""The parts of Kafka's adapter that need no broker: offsets, names, settings, and why it can't be had."""

from __future__ import annotations

import random
import tomllib
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from confluent_kafka import KafkaError
from hypothesis import given

from bridges.base import BrokerRejected, BrokerUnavailable
from bridges.config import _dotted, read_bridge
from bridges.kafka import KIND
from bridges.kafka.broker import _groups
from bridges.kafka.faults import fault
from bridges.kafka.names import reject_name, source, subscription
from bridges.kafka.offsets import Offsets
from bridges.kafka.settings import Client
from mesh.errors import ConfigError

# -- offsets ---------------------------------------------------------------------------------


@given(st.lists(st.integers(1, 5), max_size=60), st.randoms(use_true_random=False))
def test_commitable_is_all_before_the_oldest_in_flight(steps: list[int], rng: random.Random) -> None:
    offsets = Offsets()
    taken: list[int] = []
    settled: set[int] = set()
    waiting: list[int] = []
    number = rng.randrange(100)
    for step in steps:
        number += step  # with the gaps of a compacted topic
        taken.append(number)
        waiting.append(number)
        offsets.take(number)
        for _ in range(rng.randrange(3)):
            if waiting:
                chosen = waiting.pop(rng.randrange(len(waiting)))
                settled.add(chosen)
                offsets.settle(chosen)
        done = []
        for offset in taken:
            if offset not in settled:
                break
            done.append(offset)
        assert offsets.position == (done[-1] + 1 if done else None)
        assert offsets.in_flight == len(waiting)
        if offsets.commitable() is not None and rng.random() < 0.5:
            offsets.committed(offsets.commitable() or 0)
            assert offsets.commitable() is None


def test_settling_twice_or_what_was_never_taken_moves_nothing() -> None:
    offsets = Offsets()
    offsets.take(5)
    offsets.take(6)
    offsets.settle(5)
    offsets.settle(5)
    offsets.settle(3)
    assert (offsets.position, offsets.in_flight) == (6, 1)


def test_what_was_given_away_is_not_committed() -> None:
    offsets = Offsets()
    offsets.take(5)
    offsets.settle(5)
    offsets.revoked = True
    assert offsets.commitable() is None


# -- names -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["home/kitchen", "größe", "a b", "", ".", "..", "x" * 250])
def test_what_kafka_would_not_take_as_a_topic(name: str) -> None:
    assert reject_name(name)


@pytest.mark.parametrize("name", ["home.kitchen", "a_b-c", "x" * 249, "..."])
def test_what_it_takes(name: str) -> None:
    assert reject_name(name) is None


@pytest.mark.parametrize(
    ("text", "asked", "name", "captures"),
    [
        ("commands", "commands", "commands", ()),
        ("commands.*", "^commands[.].*$", "commands.a.b", ("a.b",)),
        ("room-?.temp", "^room-.[.]temp$", "room-1.temp", ("1",)),
        ("^a([0-9]+)$", "^a([0-9]+)$", "a12", ("12",)),
    ],
)
def test_from_is_a_name_a_pattern_or_an_expression(
    text: str, asked: str, name: str, captures: tuple[str, ...]
) -> None:
    pattern = source(text)
    assert subscription(text) == asked
    assert pattern.captures(name) == captures
    assert pattern.captures("x" + name) is None


@pytest.mark.parametrize("text", ["a b", "a/b", "[ab]", "^(", ".."])
def test_what_from_can_not_be(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected|expression|topic"):
        source(text)


# -- settings --------------------------------------------------------------------------------

CANARY = "canary-52fd-never-printed"


def read(**table: Any) -> Any:
    document = {
        "kind": "kafka",
        "url": "kafka://127.0.0.1",
        "export": [{"pattern": "**", "to": "t"}],
        **table,
    }
    return read_bridge(document, kind_named=lambda _: KIND)


def test_brokers_tls_and_credentials_reach_librdkafka(tmp_path: Path) -> None:
    settings = read(url=f"kafkas://user:{CANARY}@[::1]:19092,localhost", options={"linger.ms": 7})
    table = Client.read(settings).producer()
    assert table["bootstrap.servers"] == "[::1]:19092,localhost:9092"
    assert (table["security.protocol"], table["sasl.mechanism"]) == ("sasl_ssl", "PLAIN")
    assert (table["sasl.username"], table["sasl.password"]) == ("user", CANARY)
    assert table["linger.ms"] == 7
    assert "linger.ms" not in Client.read(settings).consumer("g")
    assert CANARY not in repr(settings) + repr(Client.read(settings))


def test_a_dotted_name_needs_no_quotes() -> None:
    quoted = tomllib.loads('"ssl.ca.location" = "x"\n"ssl.cipher.suites" = "y"\n"linger.ms" = 3')
    bare = tomllib.loads('ssl.ca.location = "x"\nssl.cipher.suites = "y"\nlinger.ms = 3')
    assert quoted != bare
    assert _dotted(bare) == quoted
    assert read(options=tomllib.loads("linger.ms = 3")).options == {"linger.ms": 3}


@pytest.mark.parametrize(
    ("table", "key", "says"),
    [
        ({"options": {"acks": 0}}, "options.acks", "the bridge's to decide"),
        ({"options": {"enable.auto.commit": True}}, "options.enable.auto.commit", "when the mesh has"),
        ({"options": {"no.such.setting": 1}}, "options.no.such.setting", "No such"),
        ({"options": {"batch.size": "soon"}}, "options.batch.size", "Invalid value"),
        ({"url": f"kafka://u:{CANARY}@kafka.example"}, "url", "needs TLS"),
        (
            {"url": "kafkas://kafka.example", "options": {"enable.ssl.certificate.verification": False}},
            "options.enable.ssl.certificate.verification",
            "only a broker on this machine",
        ),
        (
            {
                "url": "kafkas://kafka.example",
                "options": {"ssl.endpoint.identification.algorithm": "none"},
            },
            "options.ssl.endpoint.identification.algorithm",
            "only a broker on this machine",
        ),
        (
            {
                "options": {
                    "security.protocol": "sasl_plaintext",
                    "sasl.username": "u",
                    "sasl.password": CANARY,
                    "sasl.mechanism": CANARY,
                }
            },
            "options",
            "not shown",
        ),
        ({"import": [{"from": "a/b", "topic": "x"}]}, "import[1].from", "a topic of Kafka"),
        ({"import": [{"from": "a", "topic": "x", "start": "now"}]}, "import[1].start", "latest"),
        ({"import": [{"from": "a", "topic": "x", "dead_letter": "a/b"}]}, "import[1].dead_letter", "letters"),
        ({"import": [{"from": "a", "topic": "x", "request": True}]}, "import[1].request", "no requests"),
    ],
)
def test_a_mistake_is_one_line_that_says_where_and_no_secret(
    table: dict[str, Any], key: str, says: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        read(**table)
    assert caught.value.key == key
    assert says in caught.value.reason
    assert CANARY not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_each_import_has_a_group_that_bridges_of_its_name_share() -> None:
    routes = [
        {"from": "a", "topic": "x"},
        {"from": "a", "topic": "y"},
        {"from": "b.*", "topic": "z/{1}"},
        {"from": "c", "topic": "w", "group": "ours"},
    ]
    settings = read(**{"import": routes, "name": "cellar"})
    groups = _groups(settings, "0123456789abcdef")
    assert groups == {
        1: "zeromesh.cellar.0123456789abcdef.a",
        2: "zeromesh.cellar.0123456789abcdef.a#2",
        3: "zeromesh.cellar.0123456789abcdef.b.*",
        4: "ours",
    }
    # What a route is called does not hang on its place in the file.
    again = read(**{"import": routes[2:], "name": "cellar"})
    assert _groups(again, "0123456789abcdef")[1] == groups[3]


# -- faults ----------------------------------------------------------------------------------


def test_what_may_pass_and_what_will_not() -> None:
    assert isinstance(fault(KafkaError(KafkaError._TRANSPORT)), BrokerUnavailable)
    assert isinstance(fault(KafkaError(KafkaError._MSG_TIMED_OUT)), BrokerUnavailable)
    assert isinstance(fault(KafkaError(KafkaError.NOT_ENOUGH_REPLICAS)), BrokerUnavailable)
    refused = fault(KafkaError(KafkaError.MSG_SIZE_TOO_LARGE))
    assert isinstance(refused, BrokerRejected) and refused.reason == "too large"
    login = fault(KafkaError(KafkaError._AUTHENTICATION))
    assert isinstance(login, BrokerRejected) and login.reason == "credentials"
