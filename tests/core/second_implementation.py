"""A second implementation of the wire protocol, in miniature, written from docs/design/wire.md alone.

It shares no code with ``mesh``: pyzmq for the sockets, ``cryptography`` for the primitives, CBOR by hand.
token → join (§8) → introduction (§3.1, §4) → attach (§5) → interests (§7), subscriptions and barrier (§6.2, §6.4) →
sealed frames in (§6.3, §6.5), and out to whoever subscribes with a MAC that verifies.

It is blocking, knows one peer and judges little.  In particular it runs no ZAP handler, so that its direct
socket lets every key in: a node that is more than a test MUST do that (§2).
"""

from __future__ import annotations

import hashlib
import hmac
import struct
import time
from collections.abc import Callable, Iterator
from secrets import token_bytes
from typing import Any

import zmq
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from zmq.utils import z85

PATIENCE = 30.0  # seconds for any one step

HELLO, WELCOME, REFUSE, JOIN_HELLO, JOIN_CHALLENGE, JOIN_PROOF, JOIN_GRANT = range(1, 8)
ATTACH, GOODBYE, PING, PONG, INTERESTS, INTERESTS_WANTED = range(16, 22)
POSITIONS, PART = 40, 43
REQUEST, REPLY = 33, 34
BATCH, BARRIER, LAST, CHUNK = 1, 2, 3, 6
FRAME, PIECE = 1 << 20, 100_000  # bytes that fit a frame, and those of our pieces
WINDOW, WINDOW_WANTED, CUT_OFF = 48, 49, 50


# -- CBOR (RFC 8949) -------------------------------------------------------------------


def encode(value: Any) -> bytes:
    if value is None or isinstance(value, bool):
        return {None: b"\xf6", True: b"\xf5", False: b"\xf4"}[value]
    if isinstance(value, int):
        return head(0, value) if value >= 0 else head(1, -1 - value)
    if isinstance(value, float):
        return b"\xfb" + struct.pack(">d", value)
    if isinstance(value, bytes):
        return head(2, len(value)) + value
    if isinstance(value, str):
        return head(3, len(value.encode())) + value.encode()
    if isinstance(value, list):
        return head(4, len(value)) + b"".join(map(encode, value))
    pairs = sorted((encode(key), encode(each)) for key, each in value.items())
    return head(5, len(pairs)) + b"".join(key + each for key, each in pairs)


def head(major: int, number: int) -> bytes:
    for extra, size in ((24, 1), (25, 2), (26, 4), (27, 8)):
        if number < 24:
            return bytes([major << 5 | number])
        if number < 1 << 8 * size:
            return bytes([major << 5 | extra]) + number.to_bytes(size, "big")
    raise ValueError(number)


def decode(data: bytes) -> Any:
    value, at = item(data, 0)
    assert at == len(data), "trailing bytes"
    return value


def item(data: bytes, at: int) -> tuple[Any, int]:
    major, number = data[at] >> 5, data[at] & 31
    at += 1
    if major == 7:
        if number == 27:
            return struct.unpack_from(">d", data, at)[0], at + 8
        return {20: False, 21: True, 22: None}[number], at
    if number >= 24:
        size = 1 << number - 24
        number, at = int.from_bytes(data[at : at + size], "big"), at + size
    if major == 0:
        return number, at
    if major == 1:
        return -1 - number, at
    if major == 2:
        return data[at : at + number], at + number
    if major == 3:
        return data[at : at + number].decode(), at + number
    assert major in (4, 5), f"major type {major}"
    values = []
    for _ in range(number * (major - 3)):
        value, at = item(data, at)
        values.append(value)
    return (values if major == 4 else dict(zip(values[::2], values[1::2], strict=True))), at


def pieces(whole: bytes) -> Iterator[tuple[int, bytes]]:
    return ((at, whole[at : at + PIECE]) for at in range(0, len(whole), PIECE))


# -- keys, statements, tags (§1, §4, §6.1) -------------------------------------------------


def hkdf(secret: bytes, info: bytes, length: int = 32) -> bytes:
    pseudorandom_key = hmac.digest(b"zeromesh v1", secret, "sha256")
    return hmac.digest(pseudorandom_key, info + b"\x01", "sha256")[:length]


def blake2b(data: bytes, size: int, **options: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=size, **options).digest()  # type: ignore[arg-type]


def node_id(link_key: bytes) -> bytes:
    return blake2b(link_key, 16, person=b"zeromesh node")


def to_be_signed(kind: str, protected: bytes, payload: bytes) -> bytes:
    return encode(["Signature1", protected, f"zeromesh {kind} v1".encode(), payload])


def sign(key: Ed25519PrivateKey, kind: str, fields: dict[str, Any]) -> bytes:
    protected = encode({1: -8, 3: f"application/zeromesh-{kind}+cbor"})
    payload = encode({"v": 1, **fields})
    return encode([protected, {}, payload, key.sign(to_be_signed(kind, protected, payload))])


def verified(public_key: bytes, kind: str, statement: bytes) -> dict[str, Any]:
    protected, unprotected, payload, signature = decode(statement)
    assert protected == encode({1: -8, 3: f"application/zeromesh-{kind}+cbor"})
    assert unprotected == {}
    fields: dict[str, Any] = decode(payload)
    assert encode(fields) == payload, "not deterministic"
    Ed25519PublicKey.from_public_bytes(public_key).verify(signature, to_be_signed(kind, protected, payload))
    assert fields["v"] == 1
    assert fields["from"] - 120 <= time.time() <= fields["until"] + 120
    return fields


def paths(levels: list[str]) -> Iterator[str]:
    return ("/".join(levels[:count]) for count in range(1, len(levels) + 1))


def tags(secret: bytes, levels: list[str]) -> bytes:
    key = hkdf(secret, b"tags")
    return b"D" + b"".join(blake2b(path.encode(), 8, key=key) for path in paths(levels))


def chain(secret: bytes, topic: str) -> bytes:
    return tags(secret, topic.split("/")) + b"\x00"


def prefix(secret: bytes, pattern: str) -> bytes:
    levels = pattern.split("/")
    wild = [number for number, level in enumerate(levels) if "*" in level]
    return tags(secret, levels[: wild[0]]) if wild else chain(secret, pattern)


def subscription(node: bytes, token: bytes, epoch: int, tag: bytes) -> bytes:
    said = node + epoch.to_bytes(4, "big")
    return said + hmac.digest(token, b"zeromesh subscription v1" + said + tag, "sha256")[:16] + tag


# -- sealed frames (§6.3) --------------------------------------------------------------------


class Key:
    """A sealing key in one epoch, the publisher's own or an announced one."""

    def __init__(
        self, owner: bytes, key_id: bytes, scope: str, cipher: int, epoch: int, root: bytes, counter: int
    ) -> None:
        assert (scope, cipher) == ("", 1)
        self.owner = owner
        self.key_id, self.epoch, self.chain, self.counter = key_id, epoch, root, counter
        self.aead, self.iv = AESGCM(hkdf(root, b"key")), hkdf(root, b"iv", 12)

    def announcement(self) -> list[Any]:
        return [self.key_id, "", 1, self.epoch, self.chain, self.counter]

    def nonce(self, counter: int) -> bytes:
        return bytes(a ^ b for a, b in zip(self.iv, counter.to_bytes(12, "big"), strict=True))

    def seal(self, kind: int, tag: bytes, plaintext: bytes) -> bytes:
        header = struct.pack(">2sBBH8sIQ", b"ZM", 1, kind, 0, self.key_id, self.epoch, self.counter)
        frame = header + self.aead.encrypt(self.nonce(self.counter), plaintext, tag + header + self.owner)
        self.counter += 1
        return frame

    def open(self, tag: bytes, frame: bytes) -> tuple[int, bytes]:
        magic, version, kind, flags, key_id, epoch, counter = struct.unpack_from(">2sBBH8sIQ", frame)
        assert (magic, version, flags, key_id, epoch) == (b"ZM", 1, 0, self.key_id, self.epoch)
        assert counter >= self.counter, "seen before, or before our time"
        plaintext = self.aead.decrypt(self.nonce(counter), frame[26:], tag + frame[:26] + self.owner)
        self.counter = counter + 1  # links keep the order: no window is needed
        return kind, plaintext


# -- the node ----------------------------------------------------------------------------------


class Stranger:
    """One node with one peer. ``until`` runs it; everything else is called in between."""

    def __init__(self, token: str, name: str) -> None:
        self.name = name
        self.member = Ed25519PrivateKey.generate()
        self.link = X25519PrivateKey.generate()
        self.node = node_id(self.link.public_key().public_bytes_raw())
        self.secret, self.mesh, self.hints = read_token(token)
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.context.linger = 500
        self.token, self.session = token_bytes(32), token_bytes(8)
        self.key = Key(self.node, token_bytes(8), "", 1, 0, token_bytes(32), 0)
        self.sequence: dict[str, int] = {}
        self.entries: list[list[Any]] = []
        self.version = 0
        self.heard: list[list[Any]] = []  # direct messages, as they came
        self.batches: list[list[Any]] = []
        self.echoes: set[bytes] = set()
        self.subscribed: set[bytes] = set()  # the peer's tags on our XPUB
        self.theirs: bytes | None = None
        self.answered = False
        self.handler: Callable[[str, Any], Any] | None = None
        self.wholes: dict[Any, bytes] = {}  # what has come of what comes in pieces
        self.parted = 0

    def __enter__(self) -> Stranger:
        return self

    def __exit__(self, *exception: object) -> None:
        self.context.destroy()

    def socket(self, kind: int, server_key: bytes = b"", secret: bytes = b"") -> zmq.Socket[bytes]:
        """A socket; a CURVE client of ``server_key`` with the key pair of ``secret`` if one is given."""
        made: zmq.Socket[bytes] = self.context.socket(kind)
        if server_key:
            public = X25519PrivateKey.from_private_bytes(secret).public_key().public_bytes_raw()
            made.curve_serverkey, made.curve_publickey, made.curve_secretkey = map(
                z85.encode, (server_key, public, secret)
            )
        return made

    # §3.1: one question and answer on the intro plane after the other, on one connection.

    def introduction(self) -> zmq.Socket[bytes]:
        secret = X25519PrivateKey.from_private_bytes(hkdf(self.mesh, b"intro curve key"))
        fresh = X25519PrivateKey.generate().private_bytes_raw()
        intro = self.socket(zmq.DEALER, secret.public_key().public_bytes_raw(), fresh)
        intro.connect(self.hints[0])
        return intro

    def ask(self, intro: zmq.Socket[bytes], *message: Any) -> list[Any]:
        intro.send(encode(list(message)))
        assert intro.poll(int(PATIENCE * 1000)), "no answer"
        code, *fields = decode(intro.recv())
        assert code == message[0] + 1, (code, fields)
        return fields

    # §8

    def join(self) -> None:
        """From a token to a certificate."""
        invitation = hmac.digest(self.secret, b"zeromesh invitation", "sha256")[:8]
        nonce, public = token_bytes(16), self.member.public_key().public_bytes_raw()
        with self.introduction() as intro:
            other, ca, proof = self.ask(intro, JOIN_HELLO, invitation, nonce, public, self.name)
            assert hashlib.sha256(ca).digest()[:16] == self.mesh
            said = ["zeromesh v1 join", invitation, nonce, public, self.name, other, ca]
            transcript = hashlib.sha256(encode(said)).digest()
            assert proof == self.prove(b"inviter", transcript)
            (sealed,) = self.ask_proof(intro, transcript)
        key = AESGCM(hkdf(self.secret + transcript, b"join grant"))
        granted = decode(key.decrypt(bytes(12), sealed, transcript))
        self.mesh_name, self.ca, self.certificate, self.mesh_secret, self.secret_epoch = granted[:5]
        assert self.ca == ca
        assert verified(ca, "certificate", self.certificate)["key"] == public

    def prove(self, role: bytes, transcript: bytes) -> bytes:
        return hmac.digest(self.secret, b"zeromesh v1 join " + role + transcript, "sha256")

    def ask_proof(self, intro: zmq.Socket[bytes], transcript: bytes) -> list[Any]:
        signature = self.member.sign(b"zeromesh v1 join key" + transcript)
        return self.ask(intro, JOIN_PROOF, self.prove(b"newcomer", transcript), signature)

    # §2, §3.1, §4

    def introduce(self) -> None:
        """Bind the sockets, and show each other certificate and record."""
        self.router, self.xpub = self.socket(zmq.ROUTER), self.socket(zmq.XPUB)
        self.router.curve_server = True
        self.router.curve_secretkey = z85.encode(self.link.private_bytes_raw())
        self.xpub.setsockopt(zmq.XPUB_MANUAL, 1)
        direct, broadcast = (
            f"tcp://127.0.0.1:{each.bind_to_random_port('tcp://127.0.0.1')}"
            for each in (self.router, self.xpub)
        )
        now = int(time.time())
        record = {
            "mesh": self.mesh,
            "link": self.link.public_key().public_bytes_raw(),
            "name": self.name,
            "life": now * 1000,
            "version": 1,
            "addresses": [["tcp://127.0.0.1:1", direct, broadcast]],  # nobody needs to dial us
            "from": now,
            "until": now + 3600,
            "speaks": [1, 1],
        }
        with self.introduction() as intro:
            said = self.ask(intro, HELLO, [1, 1], self.certificate, sign(self.member, "record", record))
        version, certificate, theirs = said
        assert version == 1
        holder = verified(self.ca, "certificate", certificate)
        self.peer = verified(holder["key"], "record", theirs)
        assert holder["mesh"] == self.peer["mesh"] == self.mesh
        self.peer_node = node_id(self.peer["link"])
        self.address = next(each for each in self.peer["addresses"] if each[0] == self.hints[0])

    # §5

    def attach(self) -> None:
        """Open the link to the peer, and hear that it hears us."""
        self.dealer = self.socket(zmq.DEALER, self.peer["link"], self.link.private_bytes_raw())
        self.dealer.connect(self.address[1])
        self.xsub = self.socket(zmq.XSUB)
        self.send_attach()
        self.send_interests()
        self.until(lambda: self.answered)
        self.xsub.connect(self.address[2])

    def send_attach(self) -> None:
        self.say(
            ATTACH, self.session, self.theirs, self.token, 1, self.secret_epoch, 0, self.version,
            self.key.announcement(),
        )  # fmt: skip

    def say(self, *message: Any) -> None:
        encoded = encode(list(message))
        if len(encoded) <= FRAME:
            self.dealer.send(encoded)
            return
        self.parted += 1
        for at, piece in pieces(encoded):  # §6.8; of what we say in parts, all belongs to a request
            self.dealer.send(encode([PART, self.parted, message[0], message[1], len(encoded), at, piece]))

    def send_interests(self) -> None:
        self.say(INTERESTS, 0, self.version, self.entries, [], True)

    def digest(self) -> bytes:
        hashes = (blake2b(encode(entry), 16, person=b"zeromesh entry") for entry in self.entries)
        return (sum(int.from_bytes(each, "big") for each in hashes) % (1 << 128)).to_bytes(16, "big")

    # §6.2, §6.4, §7

    def want(self, kind: str, pattern: str, mode: int = 0) -> None:
        """Subscribe (``s``) or serve (``r``), and return when that is live."""
        self.entries.append([len(self.entries) + 1, kind, pattern, "", 0, mode])
        self.version += 1
        self.send_interests()
        barrier = b"B" + token_bytes(8) + self.version.to_bytes(8, "big")
        wanted = [prefix(self.mesh_secret, pattern)] if kind == "s" else []
        for tag in (*wanted, barrier):
            self.xsub.send(b"\x01" + subscription(self.node, self.token, 1, tag))
        self.until(lambda: barrier in self.echoes)
        self.xsub.send(b"\x00" + subscription(self.node, self.token, 1, barrier))

    # §6.10

    def open_window(self, messages: int, taken: list[list[Any]]) -> None:
        """Of the latest subscription: so far it has come, and so far publishers may be ahead of it."""
        self.say(WINDOW, len(self.entries), messages, 1 << 20, taken)

    # §6.5

    def publish(self, topic: str, value: Any) -> None:
        tag, number = chain(self.mesh_secret, topic), self.sequence.get(topic, 0)
        self.sequence[topic] = number + 1
        batch = encode([topic, number, time.time_ns() // 1000, 1, [encode(value)], None])
        if len(batch) <= FRAME:
            self.xpub.send_multipart([tag, self.key.seal(BATCH, tag, batch)])
            return
        for at, piece in pieces(batch):  # §6.8
            said = encode([topic, number, len(batch), at])
            chunk = len(said).to_bytes(2, "big") + said + piece
            self.xpub.send_multipart([tag, self.key.seal(CHUNK, tag, chunk)])

    def leave(self) -> None:
        for tag in [tag for tag in self.subscribed if tag[:1] != b"B"][:1]:
            self.xpub.send_multipart([tag, self.key.seal(LAST, tag, b"")])
        self.say(GOODBYE, True, "")

    # -- what comes in ----------------------------------------------------------------------

    def until(self, done: Callable[[], bool]) -> None:
        """Handle what comes in until ``done``, for a bounded time."""
        poller = zmq.Poller()
        for each in (self.router, self.xpub, self.xsub):
            poller.register(each, zmq.POLLIN)
        end = time.monotonic() + PATIENCE
        while not done():
            assert time.monotonic() < end, f"heard {self.heard}"
            ready = dict(poller.poll(50))
            if self.router in ready:
                _, frame = self.router.recv_multipart()
                self.directed(decode(frame))
            if self.xpub in ready:
                self.peer_subscribes(self.xpub.recv())
            if self.xsub in ready:
                self.broadcast(*self.xsub.recv_multipart())

    # §6.8

    def whole(self, key: Any, total: int, at: int, piece: bytes) -> bytes | None:
        """What the pieces make, with the last of them."""
        so_far = self.wholes.pop(key, b"") if at else b""
        assert at == len(so_far)
        so_far += piece
        assert piece
        assert len(piece) >= 16 << 10 or len(so_far) == total
        if len(so_far) == total:
            return so_far
        self.wholes[key] = so_far
        return None

    def directed(self, message: list[Any]) -> None:
        if message[0] == PART:
            _, number, named, about, *piece = message
            made = self.whole(number, *piece)
            if made is not None:
                assert decode(made)[:2] == [named, about]
                self.directed(decode(made))
            return
        self.heard.append(message)
        code, *fields = message
        if code == ATTACH:
            session, answers, self.peer_token, self.peer_token_epoch = fields[:4]
            new, self.theirs = session != self.theirs, session
            self.answered = answers == self.session
            self.peer_key = Key(self.peer_node, *fields[7][:6])
            if new or not self.answered:
                self.send_attach()
        elif code == PING:
            self.say(PONG, fields[0], self.version, self.digest(), 0)
        elif code == INTERESTS_WANTED:
            self.send_interests()
        elif code == REQUEST:
            number, topic, kind, data = fields[:4]
            assert self.handler is not None
            answer = self.handler(topic, decode(data) if kind else data)
            self.say(REPLY, number, 1, encode(answer), None, True, 0)

    def peer_subscribes(self, message: bytes) -> None:
        node, epoch, tag = message[1:17], int.from_bytes(message[17:21], "big"), message[37:]
        assert (node, epoch) == (self.peer_node, self.peer_token_epoch)
        assert message[1:] == subscription(node, self.peer_token, epoch, tag)
        self.xpub.setsockopt(zmq.SUBSCRIBE if message[0] else zmq.UNSUBSCRIBE, tag)
        (self.subscribed.add if message[0] else self.subscribed.discard)(tag)
        if message[0] and tag[:1] == b"B":
            assert not self.sequence, "what was published before would have positions"
            self.say(POSITIONS, int.from_bytes(tag[9:17], "big"), [], True)
            self.xpub.send_multipart([tag, self.key.seal(BARRIER, tag, b"")])

    def broadcast(self, tag: bytes, frame: bytes) -> None:
        kind, plaintext = self.peer_key.open(tag, frame)
        if kind == BARRIER:
            self.echoes.add(tag)
        elif kind == CHUNK:
            end = 2 + int.from_bytes(plaintext[:2], "big")
            topic, number, total, at = decode(plaintext[2:end])
            made = self.whole((topic, number), total, at, plaintext[end:])
            if made is not None:
                batch = decode(made)
                assert (batch[:2], len(batch[4])) == ([topic, number], 1)
                self.batches.append(batch)
        elif kind == BATCH:
            batch = decode(plaintext)
            assert tag == chain(self.mesh_secret, batch[0])
            self.batches.append(batch)


# -- tokens (§8) ---------------------------------------------------------------------------------


def read_token(text: str) -> tuple[bytes, bytes, list[str]]:
    """Secret, mesh id, intro endpoints (IPv4 hints only)."""
    digits = text.upper().replace("-", "").translate(str.maketrans("OIL", "011"))
    bits = "".join(f"{'0123456789ABCDEFGHJKMNPQRSTVWXYZ'.index(digit):05b}" for digit in digits)
    data = bytes(int(bits[at : at + 8], 2) for at in range(0, len(bits) - 7, 8))
    body, checksum = data[:-4], data[-4:]
    assert hashlib.sha256(body).digest()[:4] == checksum
    assert body[0] == 1
    hints = []
    for at in range(34, 34 + 7 * body[33], 7):
        assert body[at] == 4
        host, port = body[at + 1 : at + 5], int.from_bytes(body[at + 5 : at + 7], "big")
        hints.append(f"tcp://{'.'.join(map(str, host))}:{port}")
    return body[1:17], body[17:33], hints
