"""Golden vectors of sealed frames, signed statements, tokens and the join, made without the code they test.

    python tests/vectors/make_envelope.py          print them
    python tests/vectors/make_envelope.py --write  write envelope.json and identity.json beside this file

HKDF is written out from RFC 5869, deterministic CBOR from RFC 8949 §4.2.1, base32 from Crockford's description;
only the AEADs and Ed25519 come from a library.  Read it beside docs/design/wire.md: a second
implementation needs no more.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import sys
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

SALT = b"zeromesh v1"

CA_SEED = bytes(range(32))
MEMBER_SEED = bytes(range(32, 64))
LINK_KEY = bytes.fromhex("c5" * 32)
BEGIN = 1_800_000_000


# -- building blocks ------------------------------------------------------------


def hkdf(secret: bytes, info: bytes, length: int) -> bytes:
    """RFC 5869, both steps, with SHA-256; one block is enough for 32 bytes."""
    pseudorandom_key = hmac.new(SALT, secret, hashlib.sha256).digest()
    return hmac.new(pseudorandom_key, info + b"\x01", hashlib.sha256).digest()[:length]


def head(major: int, number: int) -> bytes:
    """A CBOR head in its shortest form."""
    if number < 24:
        return bytes([major << 5 | number])
    for extra, size in ((24, 1), (25, 2), (26, 4), (27, 8)):
        if number < 1 << 8 * size:
            return bytes([major << 5 | extra]) + number.to_bytes(size, "big")
    raise ValueError(number)


def cbor(value: Any) -> bytes:
    """Deterministic CBOR: shortest heads, definite lengths, map keys in the order of their encodings."""
    if isinstance(value, int):
        return head(0, value) if value >= 0 else head(1, -1 - value)
    if isinstance(value, bytes):
        return head(2, len(value)) + value
    if isinstance(value, str):
        return head(3, len(value.encode())) + value.encode()
    if isinstance(value, list):
        return head(4, len(value)) + b"".join(map(cbor, value))
    if isinstance(value, dict):
        pairs = sorted((cbor(key), cbor(each)) for key, each in value.items())
        return head(5, len(pairs)) + b"".join(key + each for key, each in pairs)
    raise TypeError(value)


def public(seed: bytes) -> bytes:
    return Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()


def ed25519(seed: bytes, data: bytes) -> bytes:
    return Ed25519PrivateKey.from_private_bytes(seed).sign(data)


def cose_sign1(seed: bytes, kind: str, payload: dict[str, Any]) -> bytes:
    """RFC 9052 §4.4, in the one profile that is used."""
    protected = cbor({1: -8, 3: f"application/zeromesh-{kind}+cbor"})
    external_aad = f"zeromesh {kind} v1".encode()
    body = cbor(payload)
    signature = ed25519(seed, cbor(["Signature1", protected, external_aad, body]))
    return cbor([protected, {}, body, signature])


def mesh_id(ca_public_key: bytes) -> bytes:
    return hashlib.sha256(ca_public_key).digest()[:16]


def member_id(public_key: bytes) -> bytes:
    return hashlib.blake2b(public_key, digest_size=16, person=b"zeromesh member").digest()


def node_id(link_key: bytes) -> bytes:
    return hashlib.blake2b(link_key, digest_size=16, person=b"zeromesh node").digest()


# -- sealed frames ----------------------------------------------------------------


def epoch_of(root: bytes, epoch: int) -> tuple[bytes, bytes, bytes]:
    """(chain, key, IV) of an epoch."""
    chain = root
    for _ in range(epoch):
        chain = hkdf(chain, b"chain", 32)
    return chain, hkdf(chain, b"key", 32), hkdf(chain, b"iv", 12)


def sealed(
    root: bytes,
    cipher: int,
    key_id: bytes,
    frame_type: int,
    epoch: int,
    counter: int,
    tag: bytes,
    text: bytes,
    owner: bytes,
) -> dict[str, Any]:
    chain, key, iv = epoch_of(root, epoch)
    nonce = bytes(a ^ b for a, b in zip(iv, counter.to_bytes(12, "big"), strict=True))
    header = (
        b"ZM" + bytes([1, frame_type, 0, 0]) + key_id + epoch.to_bytes(4, "big") + counter.to_bytes(8, "big")
    )
    aead = {1: AESGCM, 2: ChaCha20Poly1305}[cipher](key)
    return {
        "root": root.hex(),
        "cipher": cipher,
        "key_id": key_id.hex(),
        "type": frame_type,
        "epoch": epoch,
        "counter": counter,
        "tag": tag.hex(),
        "plaintext": text.hex(),
        "chain": chain.hex(),
        "key": key.hex(),
        "iv": iv.hex(),
        "nonce": nonce.hex(),
        "owner": owner.hex(),
        "frame": (header + aead.encrypt(nonce, text, tag + header + owner)).hex(),
    }


def envelope() -> dict[str, Any]:
    root, key_id = bytes(range(32)), b"\x01\x23\x45\x67\x89\xab\xcd\xef"
    tag = b"D" + bytes.fromhex("1122334455667788") + b"\x00"
    text = b"what was published"
    return {
        "frames": [
            sealed(root, cipher, key_id, frame_type, epoch, counter, tag, plaintext, node_id(LINK_KEY))
            for cipher in (1, 2)
            for frame_type, epoch, counter, plaintext in (
                (1, 0, 0, text),
                (1, 0, 1, text),
                (1, 0, 0x0102030405060708, text),
                (1, 1, 0, text),
                (1, 7, 300, bytes(100)),
                (2, 0, 5, b""),
                (3, 0, 6, b""),
            )
        ]
    }


# -- statements -------------------------------------------------------------------


def certificate() -> dict[str, Any]:
    payload = {
        "v": 1,
        "mesh": mesh_id(public(CA_SEED)),
        "key": public(MEMBER_SEED),
        "name": "Küche",
        "roles": ["admin", "sensor"],
        "from": BEGIN,
        "until": BEGIN + 365 * 86400,
        "serial": 7,
    }
    return {
        "ca_public_key": public(CA_SEED).hex(),
        "mesh": payload["mesh"].hex(),
        "public_key": payload["key"].hex(),
        "member": member_id(payload["key"]).hex(),
        "name": payload["name"],
        "roles": payload["roles"],
        "not_before": payload["from"],
        "expires": payload["until"],
        "serial": payload["serial"],
        "encoded": cose_sign1(CA_SEED, "certificate", payload).hex(),
    }


def record() -> dict[str, Any]:
    payload = {
        "v": 1,
        "mesh": mesh_id(public(CA_SEED)),
        "link": LINK_KEY,
        "name": "kitchen-1",
        "life": BEGIN * 1000 + 250,
        "version": 2,
        "addresses": [
            ["tcp://192.0.2.7:7400", "tcp://192.0.2.7:7401", "tcp://192.0.2.7:7402"],
            ["tcp://[2001:db8::7]:7400", "tcp://[2001:db8::7]:7401", "tcp://[2001:db8::7]:7402"],
        ],
        "from": BEGIN,
        "until": BEGIN + 86400,
        "speaks": [1, 1],
    }
    return {
        "link_key": LINK_KEY.hex(),
        "node": node_id(LINK_KEY).hex(),
        "name": payload["name"],
        "incarnation": payload["life"],
        "version": payload["version"],
        "addresses": payload["addresses"],
        "issued": payload["from"],
        "expires": payload["until"],
        "versions": payload["speaks"],
        "encoded": cose_sign1(MEMBER_SEED, "record", payload).hex(),
    }


def revocations() -> dict[str, Any]:
    secret, epoch = bytes.fromhex("5e" * 32), 3
    members = sorted([member_id(bytes([i]) * 32) for i in (1, 2, 3)])
    digest = hashlib.sha256(b"zeromesh v1 secret" + epoch.to_bytes(8, "big") + secret).digest()
    payload = {
        "v": 1,
        "mesh": mesh_id(public(CA_SEED)),
        "version": 4,
        "members": b"".join(members),
        "epoch": epoch,
        "secret": digest,
    }
    return {
        "version": payload["version"],
        "members": [member.hex() for member in members],
        "secret_epoch": epoch,
        "secret": secret.hex(),
        "secret_hash": digest.hex(),
        "encoded": cose_sign1(CA_SEED, "revocations", payload).hex(),
    }


# -- tokens and the join ------------------------------------------------------------


def base32(data: bytes) -> str:
    bits = "".join(f"{byte:08b}" for byte in data)
    bits += "0" * (-len(bits) % 5)
    text = "".join(
        "0123456789ABCDEFGHJKMNPQRSTVWXYZ"[int(bits[i : i + 5], 2)] for i in range(0, len(bits), 5)
    )
    return "-".join(text[i : i + 6] for i in range(0, len(text), 6))


def token() -> dict[str, Any]:
    secret, mesh = bytes(range(64, 80)), mesh_id(public(CA_SEED))
    port = (7400).to_bytes(2, "big")
    hints = {
        "tcp://192.0.2.7:7400": b"\x04" + bytes([192, 0, 2, 7]) + port,
        "tcp://[2001:db8::7]:7400": b"\x06" + bytes.fromhex("20010db8000000000000000000000007") + port,
        "tcp://cellar.local:7400": b"\x01" + bytes([12]) + b"cellar.local" + port,
    }
    body = b"\x01" + secret + mesh + bytes([len(hints)]) + b"".join(hints.values())
    return {
        "secret": secret.hex(),
        "mesh": mesh.hex(),
        "endpoints": list(hints),
        "token": base32(body + hashlib.sha256(body).digest()[:4]),
    }


def joining() -> dict[str, Any]:
    secret, ca = bytes(range(64, 80)), public(CA_SEED)
    newcomer_nonce, inviter_nonce = bytes.fromhex("aa" * 16), bytes.fromhex("bb" * 16)
    invitation = hmac.new(secret, b"zeromesh invitation", hashlib.sha256).digest()[:8]
    name = "Küche"
    transcript = hashlib.sha256(
        cbor(["zeromesh v1 join", invitation, newcomer_nonce, public(MEMBER_SEED), name, inviter_nonce, ca])
    ).digest()

    def prove(role: bytes) -> bytes:
        return hmac.new(secret, b"zeromesh v1 join " + role + transcript, hashlib.sha256).digest()

    listed = revocations()
    grant = cbor(
        [
            "den",
            ca,
            bytes.fromhex(certificate()["encoded"]),
            bytes.fromhex(listed["secret"]),
            listed["secret_epoch"],
            bytes.fromhex(listed["encoded"]),
        ]
    )
    key = hkdf(secret + transcript, b"join grant", 32)
    return {
        "secret": secret.hex(),
        "member_seed": MEMBER_SEED.hex(),
        "name": name,
        "mesh_name": "den",
        "invitation": invitation.hex(),
        "newcomer_nonce": newcomer_nonce.hex(),
        "inviter_nonce": inviter_nonce.hex(),
        "inviter_proof": prove(b"inviter").hex(),
        "newcomer_proof": prove(b"newcomer").hex(),
        "newcomer_signature": ed25519(MEMBER_SEED, b"zeromesh v1 join key" + transcript).hex(),
        "grant_key": key.hex(),
        "sealed": AESGCM(key).encrypt(bytes(12), grant, transcript).hex(),
    }


def identity() -> dict[str, Any]:
    return {
        "ca_seed": CA_SEED.hex(),
        "member_seed": MEMBER_SEED.hex(),
        "certificate": certificate(),
        "record": record(),
        "revocations": revocations(),
        "token": token(),
        "join": joining(),
    }


def texts() -> dict[str, str]:
    """File name → what stands in it."""
    files = {"envelope.json": envelope(), "identity.json": identity()}
    return {name: json.dumps(each, indent=1, ensure_ascii=False) + "\n" for name, each in files.items()}


if __name__ == "__main__":
    for file_name, content in texts().items():
        if sys.argv[1:] == ["--write"]:
            Path(__file__).with_name(file_name).write_text(content, encoding="utf-8")
        else:
            sys.stdout.write(content)
