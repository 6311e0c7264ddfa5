"""Somebody who knows the mesh's id, or was a member: what papers that are none, are none any more, or were used can get."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import trio
import zmq
from zmq.utils import z85

import mesh
from mesh.config import Config
from mesh.core.codec import decode_intro, encode_intro
from mesh.core.identity import NodeRecord, SigningKey, issue_certificate, sign_record
from mesh.core.join import MAX_ATTEMPTS, invitation_id
from mesh.core.keys import intro_key_pair
from mesh.core.messages import (
    HelloMessage,
    JoinChallengeMessage,
    JoinGrantMessage,
    JoinHelloMessage,
    JoinProofMessage,
)
from mesh.core.token import Invitation
from mesh.core.types import PROTOCOL_VERSIONS, mesh_id
from mesh.errors import CredentialError
from mesh.home import Home
from mesh.node.joining import join
from mesh.transport.base import LinkKey
from mesh.transport.zmqtransport import ZmqTransport
from tests.hostile.actor import CONFIG
from tests.hostile.attacks import dealer, reads, sends
from tests.hostile.stage import WITHIN, Did, Stage, member
from tests.transport import hostile

__all__ = ["a_revoked_member", "bad_papers", "guessed_invitations", "reused_invitations", "untimely_papers"]

DAY = 86400


async def _introduced(stage: Stage, messages: list[bytes]) -> Did:
    """Say these on the intro plane, as somebody who knows the mesh's id."""
    server, _ = intro_key_pair(stage.home.credentials().mesh)
    sent, got = 0, b""
    with zmq.Context() as context:
        for message in messages:
            raw = dealer(context, stage.intro, server)
            raw.send(message, zmq.NOBLOCK)
            sent += len(message)
            with trio.move_on_after(2.0):
                while not raw.poll(0):  # noqa: ASYNC110 - libzmq's thread
                    await trio.sleep(0.01)
                got += raw.recv()
            raw.close()
    return Did(sent, got)


def _ca(stage: Stage) -> SigningKey:
    kept: Any = stage.home._folder.read("ca.json")
    return SigningKey.from_seed(bytes.fromhex(kept["seed"]))


async def _revoke(stage: Stage, member: SigningKey) -> None:
    """Returns when the victim has heard of it: its home tells it, in some seconds."""
    listed = stage.home.revoke(member.member_id).revocations
    assert listed is not None
    await stage.until(lambda victim: victim["revocations"] >= listed.version)


class _Forger:
    """Makes Hellos with whatever papers are wished."""

    def __init__(self, stage: Stage) -> None:
        self.now = int(time.time())
        self.ca = _ca(stage)
        self._random = stage.random
        self.key, self.other = self.new_key(), self.new_key()

    def new_key(self) -> SigningKey:
        return SigningKey.from_seed(self._random.randbytes(32))

    def hello(
        self, begins: int, ends: int, *, signer: SigningKey, key: SigningKey, speaker: SigningKey
    ) -> bytes:
        """A certificate by ``signer`` for ``key``, of so many seconds from now to so many, and a record by ``speaker``."""
        certificate = issue_certificate(
            signer,
            public_key=key.public,
            name="stranger",
            not_before=self.now + begins,
            expires=self.now + ends,
            serial=9,
        )
        record = NodeRecord(
            mesh_id(signer.public),
            self._random.randbytes(32),
            "stranger",
            1,
            1,
            (),
            self.now - 1,
            self.now + DAY,
            PROTOCOL_VERSIONS,
        )
        return encode_intro(HelloMessage(list(PROTOCOL_VERSIONS), certificate, sign_record(speaker, record)))

    def untimely(self) -> list[bytes]:
        whose = {"signer": self.ca, "key": self.key, "speaker": self.key}
        return [self.hello(-2 * DAY, -DAY, **whose), self.hello(DAY, 2 * DAY, **whose)]


async def untimely_papers(stage: Stage) -> Did:
    """Certificates that have expired, and that are of the future."""
    return await _introduced(stage, _Forger(stage).untimely())


async def bad_papers(stage: Stage) -> Did:
    """The same, and of another mesh, and revoked, and a record signed by another."""
    forger = _Forger(stage)
    ca, key, other, revoked = forger.ca, forger.key, forger.other, forger.new_key()
    stage.home.issue(revoked.public, "revoked")
    await _revoke(stage, revoked)
    return await _introduced(
        stage,
        [
            *forger.untimely(),
            forger.hello(-DAY, DAY, signer=other, key=key, speaker=key),
            forger.hello(-DAY, DAY, signer=ca, key=revoked, speaker=revoked),
            forger.hello(-DAY, DAY, signer=ca, key=key, speaker=other),
        ],
    )


async def guessed_invitations(stage: Stage) -> Did:
    """Joins with invitations that nobody made."""
    random = stage.random.randbytes
    return await _introduced(
        stage,
        [
            encode_intro(JoinHelloMessage(random(8), random(16), random(32), "me"))
            for _ in range(stage.count(60))
        ],
    )


async def _join(stage: Stage, invitation: Invitation) -> bool:
    public, secret = map(z85.decode, zmq.curve_keypair())
    link = LinkKey(public, secret)
    transport = ZmqTransport(("tcp://127.0.0.1:0",), link, invitation.mesh, Config.lan())
    key = SigningKey.from_seed(stage.random.randbytes(32))
    try:
        await join(invitation, key, "newcomer", transport, patience=10.0)
    except CredentialError:
        return False
    return True


async def reused_invitations(stage: Stage) -> Did:
    """One for a single use is used by a second newcomer; one whose id was seen is guessed until it is dead."""
    endpoints = tuple(stage.ready["victim"]["endpoints"])
    once = stage.home.invite(endpoints=endpoints)
    assert await _join(stage, once)  # the one for whom it was made
    accepted = int(await _join(stage, once))
    seen = stage.home.invite(uses=2, endpoints=endpoints)
    # Knowing an invitation's id is not to know its secret: here the challenge cannot even be told from a liar's.
    for _ in range(MAX_ATTEMPTS):
        accepted += await _wrong_proof(stage, seen)
    accepted += await _join(stage, seen)  # even the secret is worth nothing now
    return Did(0, b"", accepted)


async def _wrong_proof(stage: Stage, invitation: Invitation) -> bool:
    """Its id, and a proof made up."""
    random = stage.random.randbytes
    server, _ = intro_key_pair(invitation.mesh)
    answers = []
    with zmq.Context() as context, dealer(context, stage.intro, server) as raw:
        for message in (
            JoinHelloMessage(invitation_id(invitation.secret), random(16), random(32), "me"),
            JoinProofMessage(random(32), random(64)),
        ):
            raw.send(encode_intro(message), zmq.NOBLOCK)
            with trio.fail_after(WITHIN):
                while not raw.poll(0):  # noqa: ASYNC110 - libzmq's thread
                    await trio.sleep(0.01)
            answers.append(decode_intro(raw.recv()))
    assert isinstance(answers[0], JoinChallengeMessage)
    return isinstance(answers[1], JoinGrantMessage)


async def a_revoked_member(stage: Stage) -> Did:
    """One that was let in, and keeps its keys and tokens when it is revoked: it comes back on every plane with them."""
    home = member(stage.home, stage.folder, f"traitor-{stage.random.randbytes(4).hex()}")
    bodies: list[bytes] = []
    async with mesh.open_node(
        "traitor",
        home=home,
        listen=["tcp://127.0.0.1:0"],
        connect=stage.ready["victim"]["endpoints"],
        discovery=(),
        config=CONFIG,
    ) as node:
        engine = node._engine
        async with node.subscribe("**"):
            await stage.until(lambda victim: "traitor" in victim["peers"])
            link = node._transport._link  # type: ignore[attr-defined]
            hello = encode_intro(engine._introducer.hello())
            tags = [b"D", *(engine.broadcast.tag(topic) for topic in ("echo", "numbers"))]
            bodies = [engine.broadcast.body(tag) for tag in tags]
            await _revoke(stage, Home(home).credentials().key)
            await stage.until(lambda victim: "traitor" not in victim["peers"])
    sent, got = 0, b""
    did = await _introduced(stage, [hello])
    with zmq.Context() as context:
        raw: zmq.Socket[bytes] = context.socket(zmq.DEALER)
        with raw:
            raw.linger = 0
            raw.setsockopt(zmq.CURVE_SERVERKEY, stage.link_key)
            raw.setsockopt(zmq.CURVE_PUBLICKEY, link.public)
            raw.setsockopt(zmq.CURVE_SECRETKEY, link.secret)
            raw.connect(stage.direct)
            for _ in range(10):
                raw.send(stage.random.randbytes(100), zmq.NOBLOCK)
                sent += 100
            await trio.sleep(stage.seconds)
    async with await hostile.connect(stage.broadcast) as stream:
        await hostile.null_handshake(stream, b"XSUB")
        for body in bodies:
            sent += await sends(stream, hostile.short_frame(b"\1" + body))
        got += await reads(stream, stage.seconds)
    return replace(did, sent=did.sent + sent, got=did.got + got, accepted=got.count(b"ZM\x01"))
