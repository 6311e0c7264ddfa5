"""Golden vectors of messages, batches, interests and beacons, made without the code they test.

    python tests/vectors/make_messages.py          print them
    python tests/vectors/make_messages.py --write  write messages.json and beacon.json beside this file

CBOR is written out from RFC 8949; digests and MACs come from hashlib and hmac.  Read it beside
docs/design/wire.md: a second implementation needs no more.  In the JSON a byte string is {"bytes": hex}.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import ipaddress
import json
import struct
import sys
from pathlib import Path
from typing import Any

ID8 = bytes.fromhex("0123456789abcdef")
ID16 = bytes.fromhex("00112233445566778899aabbccddeeff")
KEY32 = bytes(range(32))
CERTIFICATE = b"(an encoded certificate)"
RECORD = b"(an encoded record)"
MESH_ID = bytes(range(16))
UINT64 = (1 << 64) - 1


# -- building blocks ------------------------------------------------------------


def head(major: int, number: int) -> bytes:
    """A CBOR head in its shortest form."""
    if number < 24:
        return bytes([major << 5 | number])
    for extra, size in ((24, 1), (25, 2), (26, 4), (27, 8)):
        if number < 1 << 8 * size:
            return bytes([major << 5 | extra]) + number.to_bytes(size, "big")
    raise ValueError(number)


def cbor(value: Any) -> bytes:
    """CBOR with the shortest heads and definite lengths; maps in the order in which they stand."""
    if value is None:
        return b"\xf6"
    if isinstance(value, bool):
        return b"\xf5" if value else b"\xf4"
    if isinstance(value, int):
        return head(0, value) if value >= 0 else head(1, -1 - value)
    if isinstance(value, float):
        return b"\xfb" + struct.pack(">d", value)
    if isinstance(value, bytes):
        return head(2, len(value)) + value
    if isinstance(value, str):
        return head(3, len(value.encode())) + value.encode()
    if isinstance(value, list):
        return head(4, len(value)) + b"".join(map(cbor, value))
    if isinstance(value, dict):
        return head(5, len(value)) + b"".join(cbor(key) + cbor(each) for key, each in value.items())
    raise TypeError(value)


def plain(value: Any) -> Any:
    """As JSON can carry it."""
    if isinstance(value, bytes):
        return {"bytes": value.hex()}
    if isinstance(value, list):
        return [plain(each) for each in value]
    return value


def hkdf(secret: bytes, info: bytes) -> bytes:
    """RFC 5869, both steps, with SHA-256; one block is enough for 32 bytes."""
    pseudorandom_key = hmac.new(b"zeromesh v1", secret, hashlib.sha256).digest()
    return hmac.new(pseudorandom_key, info + b"\x01", hashlib.sha256).digest()


# -- messages -------------------------------------------------------------------


ANNOUNCEMENT: list[Any] = [ID8, "", 1, 0, KEY32, 7]
ENTRIES: list[list[Any]] = [
    [1, "s", "home/*/temperature", "", 0, 0],
    [2, "s", "jobs/**", "workers", 0, 0],
    [300, "r", "küche/uptime", "", 0, 0],
]

INTRO: list[tuple[int, str, list[Any]]] = [
    (1, "Hello", [[1, 1], CERTIFICATE, RECORD]),
    (2, "Welcome", [1, CERTIFICATE, RECORD]),
    (3, "Refuse", ["version_mismatch", "we have no protocol version in common", [2, 3]]),
    (4, "JoinHello", [ID8, ID16, KEY32, "Küche"]),
    (5, "JoinChallenge", [ID16, KEY32, KEY32[::-1]]),
    (6, "JoinProof", [KEY32, KEY32 + KEY32]),
    (7, "JoinGrant", [b"(sealed)"]),
]

DIRECT: list[tuple[int, str, list[Any]]] = [
    (16, "Attach", [ID8, None, KEY32, 1, 1, 0, 3, ANNOUNCEMENT]),
    (16, "Attach", [ID8, ID8[::-1], KEY32, 2, 5, 4, UINT64, [ID8, "", 2, 70000, KEY32, 1 << 23]]),
    (17, "Goodbye", [True, ""]),
    (17, "Goodbye", [False, "cut off: bad_tag"]),
    (18, "Ping", [24, 3, ID16]),
    (19, "Pong", [24, 3, ID16, 2]),
    (20, "Interests", [0, 3, ENTRIES, [], True]),
    (20, "Interests", [3, 5, ENTRIES[:1], [2, 300], False]),
    (21, "InterestsWanted", [3]),
    (22, "Key", [ANNOUNCEMENT]),
    (23, "KeyWanted", [ID8]),
    (24, "Record", [RECORD]),
    (25, "Gossip", [[[CERTIFICATE, RECORD], [CERTIFICATE[::-1], RECORD[::-1]]]]),
    (26, "Revocations", [b"(an encoded list)", 2, KEY32]),
    (27, "CertificateWanted", [1_800_000_000]),
    (28, "Certificate", [CERTIFICATE]),
    (29, "PingRequest", [7, ID16]),
    (30, "Vouch", [7, ID16]),
    (32, "Directed", ["", b"(a batch)"]),
    (32, "Directed", ["workers", b"(a batch)"]),
    (33, "Request", [1, "home/kitchen/uptime", 1, cbor(None), None, 5000, 1, False]),
    (33, "Request", [UINT64, "a", 0, b"", {"trace": "7f"}, 0, 64, True]),
    (34, "Reply", [1, 1, cbor("up 3 days"), None, True, 2]),
    (34, "Reply", [1, 0, b"\x00\xff", {"part": "1"}, False, 0]),
    (34, "Reply", [1, 0, None, None, True, 0]),
    (35, "Error", [1, "ValueError", "no such sensor", 1]),
    (36, "Cancel", [1]),
    (37, "Credit", [1, 32]),
    (40, "Positions", [3, [[1, "home/kitchen/temperature", 42, None, 42], [2, "hall/door", 7, 3, 5]], True]),
    (40, "Positions", [4, [], False]),
    (41, "Repair", [0, "hall/door", 4, 7, (16 << 20) + (64 << 10)]),
    (41, "Repair", [2, "hall/door", 5, 7, 1 << 20]),
    (42, "Repaired", [2, "hall/door", 3, b"(a batch)", False]),
    (42, "Repaired", [0, "hall/door", 7, None, True]),
    (43, "Part", [1, 33, 7, 1_500_000, 0, b"(a piece)"]),
    (43, "Part", [2, 32, 0, 1_500_000, 1_400_000, b"\x00\xff"]),
    (48, "Window", [2, 1024, 8 << 20, [["home/kitchen/temperature", 42], ["hall/door", 7]]]),
    (48, "Window", [2, 1, 65536, []]),
    (49, "WindowWanted", [2]),
    (50, "CutOff", [2]),
]

BATCHES: list[list[Any]] = [
    ["home/kitchen/temperature", 0, 1_800_000_000_000_000, 1, [cbor(21.5)], None],
    ["a", 41, 1, 0, [b"", b"\x00\xff", b"x" * 300], None],
    ["küche/licht", 1 << 32, 2, b"\x00\x01\x00", [b"raw", cbor({"on": True}), b""], [[1, {"by": "Ä"}]]],
]

REFUSED: dict[str, bytes] = {
    "an empty frame": b"",
    "not an array": cbor(36),
    "an empty array": cbor([]),
    "an unknown code": cbor([99, 1]),
    "a code that is no integer": cbor(["Cancel", 1]),
    "a field is missing": cbor([37, 1]),
    "a negative number": cbor([36, -1]),
    "a number of more than 64 bits (tag 2)": b"\x82\x18\x24\xc2\x49" + b"\xff" * 9,
    "a session of 7 bytes": cbor([16, ID8[:7], None, KEY32, 1, 1, 0, 3, ANNOUNCEMENT]),
    "trailing bytes": cbor([36, 1]) + b"\x00",
    "cut off": cbor([36, 1])[:-1],
    "an array of indefinite length": b"\x9f\x18\x24\x01\xff",
    "a key twice": b"\x86\x18\x22\x01\x00\x40\xa2\x61\x61\x61\x61\x61\x61\x61\x62\xf5",
    "headers that are no text": cbor([34, 1, 0, b"", {"a": 1}, True, 0]),
    "65 headers": cbor([34, 1, 0, b"", {f"h{n}": "" for n in range(65)}, True, 0]),
    "a kind that is true": cbor([34, 1, True, b"", None, True, 0]),
    "a kind that is 1.0": cbor([34, 1, 1.0, b"", None, True, 0]),
    "text that is not UTF-8": b"\x84\x18\x23\x01\x62\xff\xff\x60",
    "a topic with a wildcard": cbor([33, 1, "a/*", 0, b"", None, 1, 1, False]),
    "a refused tag (28)": b"\x82\x18\x24\xd8\x1c\x01",
    "nesting of 17 levels": b"\x82\x18\x24" + b"\x81" * 16 + b"\x01",
}

REFUSED_BATCHES: dict[str, bytes] = {
    "no values": cbor(["a", 0, 0, 0, [], None]),
    "kinds that do not fit the values": cbor(["a", 0, 0, b"\x00", [b"", b""], None]),
    "an unknown kind": cbor(["a", 0, 0, b"\x02", [b""], None]),
    "a value that is no byte string": cbor(["a", 0, 0, 1, [21.5], None]),
    "headers that are a map": cbor(["a", 0, 0, 0, [b""], {}]),
    "a topic with an empty level": cbor(["a//b", 0, 0, 0, [b""], None]),
    "a topic with a control character": cbor(["a\x1b[2J", 0, 0, 0, [b""], None]),
    "five fields": cbor(["a", 0, 0, 0, [b""]]),
}


TAILS: list[list[Any]] = [["home/kitchen/temperature", 42, None], ["küche/licht", 1 << 32, 7]]


CHUNKS: list[tuple[list[Any], bytes]] = [
    (["home/kitchen/picture", 42, 1_500_000, 0], b"(a piece)"),
    (["küche/bild", 1 << 32, 3 << 20, 2 << 20], b"\x00\xff"),
]


def chunk(fields: list[Any], piece: bytes) -> bytes:
    return len(cbor(fields)).to_bytes(2, "big") + cbor(fields) + piece


REFUSED_CHUNKS: dict[str, bytes] = {
    "nothing": b"",
    "no head": b"\x00\x00" + b"x",
    "a head that is cut off": chunk(["a", 0, 2, 0], b"x")[:5],
    "no piece": chunk(["a", 0, 2, 0], b""),
    "three fields": chunk(["a", 0, 2], b"x"),
    "a topic with a wildcard": chunk(["a/*", 0, 2, 0], b"x"),
    "a negative offset": chunk(["a", 0, 2, -1], b"x"),
    "a head longer than itself": b"\x00\x07" + cbor(["a", 0, 2, 0]) + b"\x00x",
}


def digest(entries: list[list[Any]]) -> bytes:
    """Of a set of interests: in whatever order they came."""
    total = 0
    for entry in entries:
        hashed = hashlib.blake2b(cbor(entry), digest_size=16, person=b"zeromesh entry").digest()
        total = (total + int.from_bytes(hashed, "big")) % (1 << 128)
    return total.to_bytes(16, "big")


def messages() -> dict[str, Any]:
    def table(plane: list[tuple[int, str, list[Any]]]) -> list[dict[str, Any]]:
        return [
            {
                "code": code,
                "message": name,
                "fields": plain(fields),
                "encoded": cbor([code, *fields]).hex(),
            }
            for code, name, fields in plane
        ]

    return {
        "intro": table(INTRO),
        "direct": table(DIRECT),
        "batches": [{"fields": plain(fields), "encoded": cbor(fields).hex()} for fields in BATCHES],
        "tails": [{"fields": plain(fields), "encoded": cbor(fields).hex()} for fields in TAILS],
        "chunks": [
            {"fields": plain(fields), "piece": piece.hex(), "encoded": chunk(fields, piece).hex()}
            for fields, piece in CHUNKS
        ],
        "digests": [
            {"entries": plain(ENTRIES[:count]), "digest": digest(ENTRIES[:count]).hex()}
            for count in range(len(ENTRIES) + 1)
        ],
        "refused": {why: encoded.hex() for why, encoded in REFUSED.items()},
        "refused_chunks": {why: encoded.hex() for why, encoded in REFUSED_CHUNKS.items()},
        "refused_batches": {why: encoded.hex() for why, encoded in REFUSED_BATCHES.items()},
    }


# -- beacons ----------------------------------------------------------------------


def packed(endpoint: str) -> bytes:
    """``4`` or ``6`` with an address, ``t`` with text for anything else."""
    host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return b"t" + bytes([len(endpoint.encode())]) + endpoint.encode()
    return str(address.version).encode() + address.packed + int(port).to_bytes(2, "big")


def beacon(key: bytes, kind: int, endpoints: list[str], versions: tuple[int, int]) -> bytes:
    message = b"ZB" + bytes([1, kind]) + ID16 + bytes([*versions, len(endpoints)])
    message += b"".join(map(packed, endpoints))
    if kind == 1:  # a question is as long as the longest answer
        message = message.ljust(400 - 16, b"\x00")
    return message + hmac.new(key, b"zeromesh beacon v1" + message, hashlib.sha256).digest()[:16]


def txt(data: bytes) -> bytes:
    """The content of a TXT record: strings with a length before each."""
    text = base64.urlsafe_b64encode(data).rstrip(b"=")
    strings = [b"txtvers=1"]
    for number in range(0, len(text), 240):
        strings.append(b"b%d=" % (number // 240) + text[number : number + 240])
    return b"".join(bytes([len(string)]) + string for string in strings)


def beacons() -> dict[str, Any]:
    key = hkdf(MESH_ID, b"beacon")
    some = ["tcp://192.0.2.7:7400", "tcp://[2001:db8::7]:7400"]
    many = [f"tcp://[2001:db8::{number}]:7400" for number in range(1, 9)]
    said: list[tuple[int, list[str], tuple[int, int]]] = [
        (1, [], (1, 1)),
        (1, some, (1, 1)),
        (2, some, (1, 2)),
        (3, [*some, "tcp://cellar.local:7400", "ipc:///run/user/1000/küche"], (1, 1)),
        (3, [*many, "ipc:///run/zeromesh/daemon"], (2, 255)),
    ]
    return {
        "mesh_id": MESH_ID.hex(),
        "beacon_key": key.hex(),
        "node": ID16.hex(),
        "beacons": [
            {
                "kind": kind,
                "endpoints": endpoints,
                "versions": list(versions),
                "beacon": (encoded := beacon(key, kind, endpoints, versions)).hex(),
                "txt": txt(encoded).hex(),
            }
            for kind, endpoints, versions in said
        ],
    }


def texts() -> dict[str, str]:
    """File name → what stands in it."""
    files = {"messages.json": messages(), "beacon.json": beacons()}
    return {name: json.dumps(each, indent=1, ensure_ascii=False) + "\n" for name, each in files.items()}


if __name__ == "__main__":
    for file_name, content in texts().items():
        if sys.argv[1:] == ["--write"]:
            Path(__file__).with_name(file_name).write_text(content, encoding="utf-8")
        else:
            sys.stdout.write(content)
