"""Frozen settings: every time, size and bound of a node, by name.

``Config.lan()`` is the default; ``Config.local()`` is for many nodes on one
machine and for tests.  Nothing reads a setting from anywhere else: the node
hands this object down.  Times are in seconds, sizes in bytes.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from mesh.errors import ConfigError

__all__ = ["ACTIONS", "Config", "Limits", "Rule"]

ACTIONS = ("publish", "subscribe", "request", "serve", "admin")
"""What a rule can be about."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One ``[[allow]]``: these actions on these patterns are for these members (names or ids) and roles alone.

    Without ``members`` and ``roles`` it is for everybody. ``name`` says where it stands.
    """

    actions: tuple[str, ...]
    patterns: tuple[str, ...]
    members: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()
    name: str = "a rule"


@dataclass(frozen=True, slots=True)
class Limits:
    """What a peer can make grow, and how far. The reason stands beside each."""

    peers: int = 256  # a flat full mesh is meant for some 200 nodes
    nodes_per_member: int = 128  # half of them: no member can fill the table and shut the others out
    subscriptions_per_peer: int = 4096  # about 1 MiB of patterns a peer
    topic_bytes: int = 256  # a level chain that long is a mistake, not a topic
    frame_bytes: int = 1 << 20  # MAXMSGSIZE: an outsider's 1 GiB frame costs nothing
    control_bytes: int = 64 << 10  # one control message decodes in well under 1 ms
    intro_frame_bytes: int = 4 << 10  # certificate + record + refusal text fit in half of it
    subscription_frame_bytes: int = 1 << 10  # id + MAC + 8 bytes a level
    pending_handshakes: int = 32  # strangers who may be in the middle of an introduction
    handshakes_per_second: float = 50.0  # fifty nodes restarting at once still join in seconds
    connections_per_host: int = (
        64  # on the intro and the direct socket, beyond those of peers: fifty that restart
    )
    candidates: int = 256  # discovery hints remembered; a flood of records costs no more
    addresses_per_node: int = 8  # a laptop on Wi-Fi, Ethernet and VPN, IPv4 and IPv6
    dials_per_second: float = 40.0  # spoofed hints cannot turn a node into a scanner
    dials_at_once: int = 32  # fifty nodes that start together still answer each other in time
    outbox_peer_bytes: int = 16 << 20  # one stalled peer
    outbox_total_bytes: int = 256 << 20  # all stalled peers together
    replay_window: int = 1024  # RFC 6479
    unknown_key_frames: int = 64  # held for a moment while the key is asked for
    pending_requests: int = 65536  # of our own callers, in flight at once
    served_per_peer: int = 4096  # requests of one peer in our handlers at once
    served_bytes_per_peer: int = 16 << 20  # … and their data, which waits with them for a handler
    subscription_bytes: int = 64 << 20  # one slow reader: its buffer counts messages, and memory is bytes
    windows: int = 1024  # subscriptions that our publishers wait for; each costs some KiB
    ring_total_bytes: int = 256 << 20  # what all reliable publishers keep for repair, together
    value_bytes: int = 16 << 20  # the largest value: as much as may wait for one stalled peer
    assembly_total_bytes: int = 256 << 20  # values that have come in part, of all peers together
    headers: int = 64  # per message
    header_bytes: int = 8 << 10  # all header names and values of a message

    @property
    def whole_bytes(self) -> int:
        """The largest message that goes in one frame; a larger one goes in pieces."""
        return self.frame_bytes - (4 << 10)

    @property
    def assembled_bytes(self) -> int:
        """The largest message that is put together of pieces: a value, its topic, headers and framing."""
        return self.value_bytes + (64 << 10)


@dataclass(frozen=True, slots=True)
class Config:
    """The settings of one node. Make one with ``lan()`` or ``local()`` and ``replace``."""

    limits: Limits = field(default_factory=Limits)
    rules: tuple[Rule, ...] | None = None  # who may do what; None: the [[allow]] of the home's mesh.toml

    # -- joining -----------------------------------------------------------
    quick_discovery: float = 0.05  # how long open_node() waits for a first scout answer
    quick_discovery_mdns: float = 0.2  # the same when mDNS is the only mechanism
    settle_timeout: float = 1.0  # … and then for those it heard of to become live
    live_timeout: float = 2.0  # entering a subscription waits at most this long
    dial_stagger: float = 0.1  # a peer's next address is tried beside the one before
    dial_yield: float = 0.1  # of two that hear of each other, one leaves the other so long to dial
    dial_timeout: float = 3.0  # one introduction on one address
    attach_timeout: float = 2.0  # from allowed key to first word on the direct link
    redial_min: float = 0.25  # full-jitter backoff between tries at a known peer
    redial_max: float = 5.0
    forget_after: float = 600.0  # how long a peer that went silent is still dialled

    # -- membership --------------------------------------------------------
    probe_after: float = 1.5  # silence after which a peer is asked
    probe_early: float = 0.5  # when one peer is asked, so are those whose turn is that near: fewer wake-ups
    probe_timeout: float = 1.0  # an unanswered question makes it suspect
    gone_after: float = 8.0  # a suspect that stays silent is gone
    gossip_interval: float = 10.0  # known peers are told to each other

    # -- sending -----------------------------------------------------------
    batch_bytes: int = 64 << 10
    batch_messages: int = 512
    piece_bytes: int = 256 << 10  # of a message that does not fit a frame: others go between its pieces
    congestion_patience: float = 0.5  # a publisher waits for a full pipe that long, once
    backpressure_patience: float = (
        5.0  # … and for a subscriber that asked to be waited for, each time that it stands still
    )
    ring_bytes: int = 16 << 20  # what a reliable publisher keeps for repair, unless it says otherwise
    repair_patience: float = 30.0  # how long what is missing is hoped for when its publisher is away
    drain_timeout: float = 2.0  # leaving the block flushes for at most this long
    key_lifetime: float = 3600.0  # next sealing epoch (security.md)
    key_frames: int = 1 << 23
    key_bytes: int = 64 << 30

    # -- receiving ---------------------------------------------------------
    buffer: int = 65536  # messages a subscription holds by default
    request_timeout: float = 5.0
    serve_concurrency: int = 64
    stream_window: int = 64  # streamed replies in flight before the requester grants more

    @classmethod
    def lan(cls, **changes: Any) -> Config:
        """The preset for machines on one LAN: gone within 12 s, suspected within 3 s."""
        return cls._with(cls(), changes)

    @classmethod
    def local(cls, **changes: Any) -> Config:
        """The preset for nodes on one machine and for tests: everything is near and quick."""
        base = cls(
            quick_discovery=0.03,
            probe_after=0.5,
            probe_early=0.1,
            probe_timeout=0.3,
            gone_after=1.5,
            redial_min=0.05,
            redial_max=1.0,
            gossip_interval=1.0,
        )
        return cls._with(base, changes)

    @staticmethod
    def _with(base: Config, changes: dict[str, Any]) -> Config:
        try:
            return replace(base, **changes)
        except TypeError as error:
            raise ConfigError(str(error).split("() ")[-1]) from None
