"""Golden vectors of derived keys, tags and subscriptions, made without the code they test.

    python tests/vectors/make_tags.py          print them
    python tests/vectors/make_tags.py --write  write tags.json beside this file

HKDF is written out from RFC 5869, tags and MACs come from hashlib and hmac; only the X25519 public key is
left to a library.  Read it beside docs/design/wire.md: a second implementation needs no more.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import sys
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

SALT = b"zeromesh v1"

MESH_IDS = [bytes(range(16)), bytes.fromhex("f0e1d2c3b4a5968778695a4b3c2d1e0f")]
MESH_SECRETS = [bytes(range(32)), bytes.fromhex("5a" * 32)]
TOPICS = ["a", "a/b/c", "home/kitchen/temperature", "@mesh/state", "küche/température", "x/" * 127 + "y"]
PATTERNS = [
    "a",
    "a/b/c",
    "a/b/*",
    "a/b/**",
    "a/*/c",
    "*",
    "**",
    "**/c",
    "küche/**",
    "x/" * 119 + "y",
    "x/" * 120 + "y",
    "x/" * 120 + "*",
]
NODE = bytes.fromhex("00112233445566778899aabbccddeeff")
TOKEN = bytes.fromhex("a7" * 32)


def hkdf(secret: bytes, info: bytes, length: int) -> bytes:
    """RFC 5869, both steps, with SHA-256."""
    pseudorandom_key = hmac.new(SALT, secret, hashlib.sha256).digest()
    output = block = b""
    counter = 1
    while len(output) < length:
        block = hmac.new(pseudorandom_key, block + info + bytes([counter]), hashlib.sha256).digest()
        output += block
        counter += 1
    return output[:length]


def path_tags(levels: list[str], key: bytes) -> bytes:
    """One 8-byte tag for each path that leads to the last level."""
    tags = b""
    for count in range(1, len(levels) + 1):
        path = "/".join(levels[:count]).encode("utf-8")
        tags += hashlib.blake2b(path, key=key, digest_size=8).digest()
    return tags


def chain(topic: str, key: bytes) -> bytes:
    return b"D" + path_tags(topic.split("/"), key) + b"\x00"


def prefix(pattern: str, key: bytes) -> bytes:
    before_wildcard = []
    for level in pattern.split("/"):
        if level in ("*", "**"):
            break
        before_wildcard.append(level)
    shown = before_wildcard[:120]
    whole = len(shown) == len(pattern.split("/"))
    return b"D" + path_tags(shown, key) + (b"\x00" if whole else b"")


def barrier(nonce: bytes, version: int) -> bytes:
    return b"B" + nonce + version.to_bytes(8, "big")


def subscription(node: bytes, epoch: int, token: bytes, tag: bytes) -> bytes:
    covered = b"zeromesh subscription v1" + node + epoch.to_bytes(4, "big") + tag
    mac = hmac.new(token, covered, hashlib.sha256).digest()[:16]
    return node + epoch.to_bytes(4, "big") + mac + tag


def derived_keys(mesh_id: bytes) -> dict[str, str]:
    secret = hkdf(mesh_id, b"intro curve key", 32)
    public = X25519PrivateKey.from_private_bytes(secret).public_key().public_bytes_raw()
    return {
        "mesh_id": mesh_id.hex(),
        "intro_secret": secret.hex(),
        "intro_public": public.hex(),
        "beacon_key": hkdf(mesh_id, b"beacon", 32).hex(),
    }


def tags_under(mesh_secret: bytes) -> dict[str, Any]:
    key = hkdf(mesh_secret, b"tags", 32)
    return {
        "mesh_secret": mesh_secret.hex(),
        "tag_key": key.hex(),
        "chains": [{"topic": topic, "tag": chain(topic, key).hex()} for topic in TOPICS],
        "prefixes": [{"pattern": pattern, "tag": prefix(pattern, key).hex()} for pattern in PATTERNS],
    }


def vectors() -> dict[str, Any]:
    key = hkdf(MESH_SECRETS[0], b"tags", 32)
    barriers = [(bytes(8), 0), (bytes.fromhex("0102030405060708"), 3), (b"\xff" * 8, (1 << 64) - 1)]
    subscribed = [
        (1, chain("a/b/c", key)),
        (2, prefix("a/b/**", key)),
        ((1 << 32) - 1, prefix("**", key)),
        (1, barrier(*barriers[1])),
    ]
    return {
        "derive": [
            {"secret": s.hex(), "info": i.decode(), "length": n, "key": hkdf(s, i, n).hex()}
            for s, i, n in [
                (bytes(range(32)), b"key", 32),
                (bytes(range(32)), b"iv", 12),
                (bytes(range(32)), b"chain", 32),
                (b"short", b"", 100),
            ]
        ],
        "keys": [derived_keys(mesh_id) for mesh_id in MESH_IDS],
        "tags": [tags_under(secret) for secret in MESH_SECRETS],
        "barriers": [
            {"nonce": nonce.hex(), "version": version, "tag": barrier(nonce, version).hex()}
            for nonce, version in barriers
        ],
        "subscriptions": [
            {
                "node": NODE.hex(),
                "token_epoch": epoch,
                "token": TOKEN.hex(),
                "tag": tag.hex(),
                "body": subscription(NODE, epoch, TOKEN, tag).hex(),
            }
            for epoch, tag in subscribed
        ],
    }


def text() -> str:
    return json.dumps(vectors(), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    if sys.argv[1:] == ["--write"]:
        Path(__file__).with_name("tags.json").write_text(text(), encoding="utf-8")
    else:
        sys.stdout.write(text())
