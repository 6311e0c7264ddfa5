"""Every parser that a stranger's or a peer's bytes reach, and what it may raise: a declared error and nothing else.

A target takes bytes.  The seeds are the golden vectors, so that a mutation begins at something that means something.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any, Final

from mesh.core import messages
from mesh.core.codec import decode_batch, decode_direct, decode_intro, decode_tail, decode_value
from mesh.core.envelope import OpeningKey
from mesh.core.identity import SigningKey, read_certificate, verify_record, verify_revocations
from mesh.core.keyring import Keyring
from mesh.core.messages import KeyAnnouncement
from mesh.core.tags import parse_barrier, parse_subscription
from mesh.core.token import decode_token
from mesh.core.types import NodeId, RemoteProtocolError
from mesh.discovery import beacon
from mesh.errors import CredentialError

__all__ = ["CORPUS", "DECLARED", "SLOW", "TARGETS", "corpus", "fuzz", "seeds"]

DECLARED: Final = (RemoteProtocolError, CredentialError)
SLOW: Final = 0.010
"""Seconds of a processor that one input may take."""

CORPUS: Final = Path(__file__).parent / "corpus"
"""A file a target, an input a line: what ``guided`` found to go where others don't."""

_VECTORS: Final = Path(__file__).parent.parent / "vectors"
_CA: Final = SigningKey.from_seed(bytes(range(32)))  # of the vectors: what is signed verifies, and is read on
_OWNER: Final = NodeId(bytes(16))


def _keyring() -> Keyring:
    ring = Keyring()
    announced = KeyAnnouncement(bytes.fromhex("0123456789abcdef"), "", 1, 0, bytes(range(32)), 0)
    ring.add(_OWNER, OpeningKey.from_announcement(announced, _OWNER))
    return ring


def _frame(data: bytes, ring: Keyring = _keyring()) -> None:  # noqa: B008 - one for all: it never changes
    ring.open(data[:10], data[10:])


def _subscription(data: bytes) -> None:
    parse_barrier(parse_subscription(data).tag)


def _record(data: bytes) -> None:
    vector = json.loads((_VECTORS / "identity.json").read_text(encoding="utf-8"))["certificate"]
    verify_record(data, read_certificate(bytes.fromhex(vector["encoded"]), _CA.public), 1_800_000_000.0)


def _value(data: bytes) -> None:
    decode_value(messages.CBOR, data)


def _beacon(data: bytes) -> None:
    beacon.decode(data + beacon._mac(data, bytes(32)), bytes(32))  # as a member could make it


TARGETS: Final[dict[str, Callable[[bytes], Any]]] = {
    "intro": decode_intro,
    "direct": decode_direct,
    "batch": decode_batch,
    "tail": decode_tail,
    "value": _value,
    "frame": _frame,
    "subscription": _subscription,
    "certificate": lambda data: read_certificate(data, _CA.public),
    "record": _record,
    "revocations": lambda data: verify_revocations(data, _CA.public),
    "token": lambda data: decode_token(data.decode("latin-1")),
    "beacon": _beacon,
    "txt": beacon.read_txt,
}


def corpus(name: str) -> list[bytes]:
    """What is kept for a target."""
    file = CORPUS / f"{name}.hex"
    return [bytes.fromhex(line) for line in file.read_text().splitlines()] if file.exists() else []


def seeds() -> list[bytes]:
    """Every byte string of the vectors."""

    def walk(value: Any) -> Iterator[bytes]:
        if isinstance(value, dict):
            for each in value.values():
                yield from walk(each)
        elif isinstance(value, list):
            for each in value:
                yield from walk(each)
        elif isinstance(value, str):
            try:
                yield bytes.fromhex(value)
            except ValueError:
                yield value.encode()

    files = sorted(_VECTORS.glob("*.json"))
    found = {data for file in files for data in walk(json.loads(file.read_text(encoding="utf-8")))}
    return sorted(found)


_ODD: Final = [
    b"\xff" * 8,
    b"\x9f",
    b"\xbf",
    b"\x5f",
    b"\xd8\x1c",
    b"\xd8\x23",
    b"\x9b" + b"\xff" * 8,
    b"\x00",
    b"\xfb" + bytes(8),
]


def _mutated(data: bytes, random: Random, others: list[bytes]) -> bytes:
    made = bytearray(data)
    for _ in range(random.randint(1, 6)):
        at = random.randint(0, len(made))
        match random.randint(0, 5):
            case 0 if made:
                made[at % len(made)] ^= 1 << random.randint(0, 7)
            case 1:
                made[at:at] = random.choice(_ODD)
            case 2:
                del made[at : at + random.randint(1, 8)]
            case 3:
                other = random.choice(others)
                made[at:at] = other[: random.randint(0, 64)]
            case 4:
                made[at:at] = made[: random.randint(0, 64)]
            case _:
                made[at:at] = random.randbytes(random.randint(1, 8))
    return bytes(made[:65536])


def fuzz(seconds: float, seed: int) -> dict[str, tuple[int, float]]:
    """Each target for its share of the time: inputs tried, and the slowest one's seconds of a processor.

    Raises what no target may raise, with the input in a note.
    """
    random = Random(seed)
    material = seeds()
    done: dict[str, tuple[int, float]] = {}
    for name, target in TARGETS.items():
        tried, slowest = 0, 0.0
        mine = material + corpus(name)
        end = time.monotonic() + seconds / len(TARGETS)
        while time.monotonic() < end or tried < 200:
            data = _mutated(random.choice(mine), random, material)
            began = time.thread_time()
            try:
                target(data)
            except DECLARED:
                pass
            except Exception as error:
                error.add_note(f"target {name}, seed {seed}, input {data.hex()}")
                raise
            slowest = max(slowest, time.thread_time() - began)
            tried += 1
        done[name] = (tried, slowest)
    return done
