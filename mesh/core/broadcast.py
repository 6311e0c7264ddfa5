"""The broadcast plane's rules: sealing, blinded tags, authenticated subscriptions, barriers.

Sending: a topic and an encoded batch → tag chain, sealed frame.  Receiving: (tag, frame)
→ the keyring opens it → owner and plaintext, or a ``RemoteProtocolError`` with the reason.

Our subscriptions: a pattern → its tag prefix → a body with a MAC, counted, so that two
patterns with one prefix share it.  Theirs: a body → MAC checked under the token which that peer
gave us over its direct link → the tag to set on the pipe, or a refusal at no cost in memory.

A *barrier* proves that the whole path works: a fresh random tag, subscribed after all others
on the same socket, that each publisher echoes with a sealed frame once it knows the subscriber's
interests up to the version that the tag names.  The echo's arrival from a publisher means
that everything subscribed before is live there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Final, NamedTuple

from mesh.config import Config
from mesh.core.envelope import BARRIER, BATCH, LAST, SealingKey
from mesh.core.identity import Certificate
from mesh.core.keyring import Keyring, Opened
from mesh.core.messages import KeyAnnouncement
from mesh.core.rules import Rules
from mesh.core.sealing import Vault
from mesh.core.tags import (
    SCOPED_TAG,
    TagKey,
    barrier_tag,
    parse_barrier,
    parse_subscription,
    scoped_tag,
    subscription_body,
    verify_subscription,
)
from mesh.core.types import NodeId, RandomBytes, Reason, RemoteProtocolError

__all__ = ["Broadcast", "Seen"]

_BARRIERS_PER_PEER: Final = 16  # outstanding at once; a subscriber replaces its barrier, so two would do


class Seen(NamedTuple):
    """A subscription that was accepted. ``barrier`` is the interests version if it is one; ``again`` tells that
    it stood already: it comes over a new connection."""

    peer: NodeId
    epoch: int  # of the token under which it was made
    tag: bytes
    subscribe: bool
    barrier: int | None
    again: bool


class Broadcast:
    """Our side of the broadcast plane. ``clock`` is monotonic seconds."""

    def __init__(
        self,
        node: NodeId,
        config: Config,
        rng: RandomBytes,
        clock: float,
        mesh_secret: bytes,
        secret_epoch: int,
        rules: Rules,
    ) -> None:
        self._node = node
        self._config = config
        self._rng = rng
        self._rules = rules
        self._scoped: dict[bytes, SealingKey] = {}  # by what their frames' tags begin with
        self.vault = Vault(mesh_secret, secret_epoch, rng)
        self.token_epoch = 0
        self._set_keys(mesh_secret, secret_epoch, clock)
        self.keyring = Keyring(config.limits.replay_window)
        self._chains: dict[str, bytes] = {}
        self._wanted: Counter[bytes] = Counter()
        self._barrier: tuple[bytes, int] | None = None
        self._seen: dict[NodeId, set[bytes]] = {}

    def _set_keys(self, mesh_secret: bytes, secret_epoch: int, clock: float) -> None:
        self._tags = TagKey(mesh_secret)
        self.secret_epoch = secret_epoch
        self.token = self._rng(32)
        self.token_epoch += 1
        self._sealing = self._new_key("", clock)
        scoped = [self._new_key(scope, clock) for scope in self._rules.scopes]
        self._scoped = {scoped_tag(key.key_id): key for key in scoped}

    def _new_key(self, scope: str, clock: float) -> SealingKey:
        config = self._config
        return SealingKey(
            self._rng(8),
            self._rng(32),
            clock,
            scope=scope,
            owner=self._node,
            max_frames=config.key_frames,
            max_bytes=config.key_bytes,
            lifetime=config.key_lifetime,
        )

    def rekey(self, mesh_secret: bytes, secret_epoch: int, clock: float) -> list[bytes]:
        """Somebody was removed: new tags, a new token, a fresh sealing root.

        Gives the bodies of our subscriptions, to be taken back; each pattern is wanted anew.
        """
        barrier = self.end_barrier()
        old = [self.body(prefix) for prefix in self._wanted]
        self._wanted.clear()
        self._chains.clear()
        self.vault.rekey(mesh_secret, secret_epoch)
        self._set_keys(mesh_secret, secret_epoch, clock)
        return old if barrier is None else [*old, barrier]

    # -- sending ---------------------------------------------------------------

    def tag(self, topic: str) -> bytes:
        """The tag chain that stands in front of frames of ``topic``."""
        chain = self._chains.get(topic)
        if chain is None:
            if len(self._chains) >= 65536:  # as many topics as one node is likely to publish
                self._chains.clear()
            chain = self._chains[topic] = self._scope_tag(topic) or self._tags.chain(topic)
        return chain

    def _scope_tag(self, topic: str) -> bytes:
        scope = self._rules.scope(topic)
        tags = (tag for tag, key in self._scoped.items() if scope and key.scope == scope)
        return next((tag + self._tags.chain(topic) for tag in tags), b"")

    def seal(self, tag: bytes, plaintext: bytes, clock: float, kind: int = BATCH) -> bytes:
        """One sealed frame for all subscribers of ``tag``."""
        key = self._scoped.get(tag[:SCOPED_TAG], self._sealing) if self._scoped else self._sealing
        return key.seal(kind, tag, plaintext, clock)

    def echo(self, tag: bytes, clock: float) -> bytes:
        """The frame that answers a barrier."""
        return self._sealing.seal(BARRIER, tag, b"", clock)

    def last(self, tag: bytes, clock: float) -> bytes:
        """The frame after which nothing comes."""
        return self._sealing.seal(LAST, tag, b"", clock)

    def announcement(self) -> KeyAnnouncement:
        """Our sealing key as it stands, for every peer."""
        return self._sealing.announcement()

    def announcements(self, reader: Certificate) -> list[KeyAnnouncement]:
        """Those of our scopes that this member may read."""
        keys = self._scoped.values()
        return [key.announcement() for key in keys if self._rules.may_read(key.scope, reader)]

    # -- receiving -------------------------------------------------------------

    def open(self, tag: bytes, frame: bytes) -> Opened:
        """Authenticate and open a frame. Raises ``RemoteProtocolError``; changes nothing if it does."""
        return self.keyring.open(tag, frame)

    # -- our subscriptions -----------------------------------------------------

    def want(self, pattern: str) -> bytes | None:
        """Count a pattern in; the body to subscribe if its tag is new."""
        prefix = self._tags.prefix(pattern)
        self._wanted[prefix] += 1
        return self.body(prefix) if self._wanted[prefix] == 1 else None

    def unwant(self, pattern: str) -> bytes | None:
        """Count a pattern out; the body to unsubscribe if nobody needs its tag any more."""
        prefix = self._tags.prefix(pattern)
        self._wanted[prefix] -= 1
        if self._wanted[prefix] > 0:
            return None
        del self._wanted[prefix]
        return self.body(prefix)

    def body(self, tag: bytes) -> bytes:
        """What we send to subscribe ``tag``, or to take it back."""
        return subscription_body(self._node, self.token_epoch, self.token, tag)

    def begin_barrier(self, version: int) -> tuple[bytes | None, bytes]:
        """(body of the barrier that this one replaces, body to subscribe)."""
        old = self.end_barrier()
        tag = barrier_tag(self._rng(8), version)
        self._barrier = (tag, version)
        return old, self.body(tag)

    def end_barrier(self) -> bytes | None:
        """The body to unsubscribe, if a barrier stands."""
        if self._barrier is None:
            return None
        tag, _ = self._barrier
        self._barrier = None
        return self.body(tag)

    def echoed(self, tag: bytes) -> int | None:
        """The interests version of our barrier, if ``tag`` is it."""
        if self._barrier is None or self._barrier[0] != tag:
            return None
        return self._barrier[1]

    # -- their subscriptions ---------------------------------------------------

    def subscription(
        self,
        message: bytes,
        token_of: Callable[[NodeId], tuple[int, bytes] | None],
        reader_of: Callable[[NodeId], Certificate],
    ) -> Seen:
        """Judge a subscription (ZMTP's first byte included). Raises ``RemoteProtocolError``."""
        if len(message) > self._config.limits.subscription_frame_bytes or message[:1] not in (b"\0", b"\1"):
            raise RemoteProtocolError(Reason.BAD_SUBSCRIPTION, "form")
        body = parse_subscription(message[1:])
        token = token_of(body.node)
        if token is None or token[0] != body.epoch or not verify_subscription(body, token[1]):
            raise RemoteProtocolError(Reason.BAD_SUBSCRIPTION, "MAC")
        for tag, key in self._scoped.items():
            # Also a tag that is the beginning of ours, which would let its frames through as well.
            inside = tag.startswith(body.tag) or body.tag.startswith(tag)
            if inside and not self._rules.may_read(key.scope, reader_of(body.node)):
                raise RemoteProtocolError(Reason.NOT_AUTHORIZED, key.scope)
        barrier = parse_barrier(body.tag)
        version = None if barrier is None else barrier[1]
        subscribe = message[0] == 1
        again = False
        held = self._seen.setdefault(body.node, set())
        if not subscribe:
            held.discard(body.tag)
        elif body.tag not in held:
            if len(held) >= self._config.limits.subscriptions_per_peer + _BARRIERS_PER_PEER:
                raise RemoteProtocolError(Reason.TOO_MANY, "subscriptions")
            held.add(body.tag)
        else:
            again = True
        return Seen(body.node, body.epoch, body.tag, subscribe, version, again)

    def topic_tag(self, peer: NodeId) -> bytes | None:
        """A tag that stands for topics on the peer's pipe (of many that share some, the same); None without."""
        return min((tag for tag in self._seen.get(peer, ()) if parse_barrier(tag) is None), default=None)

    def forget_tags(self, peer: NodeId) -> None:
        """A new session of the peer: it subscribes again, over a new connection."""
        self._seen.pop(peer, None)

    def forget(self, peer: NodeId) -> None:
        """The peer's session ended: its keys and tags count no more."""
        self._seen.pop(peer, None)
        self.keyring.remove(peer)
