"""What the core wants done: the only way in which it touches the world.

Every input to the engine may append effects; the node carries them out in order, at
once, and none of them waits.  A test reads them instead.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, NamedTuple

from mesh.core.messages import Batch
from mesh.core.types import NodeId

__all__ = [
    "AdmitBroadcast",
    "Allow",
    "CertificateRenewed",
    "CloseIntro",
    "CloseLink",
    "ConnectBroadcast",
    "CutOff",
    "CutSubscriber",
    "Deliver",
    "Dial",
    "DisconnectBroadcast",
    "Disallow",
    "DismissBroadcast",
    "Effect",
    "HangUp",
    "Incident",
    "LossCause",
    "Lost",
    "OpenLink",
    "PeerChange",
    "PeerChanged",
    "PublishFrame",
    "Reopened",
    "RevocationsAdopted",
    "SendDialled",
    "SendDirect",
    "SendIntro",
    "Subscribe",
    "Unsubscribe",
]


class Dial(NamedTuple):
    """Begin introduction number ``dial`` at an intro endpoint, and send ``frame`` on it."""

    dial: int
    endpoint: str
    frame: bytes


class SendDialled(NamedTuple):
    dial: int
    frame: bytes


class HangUp(NamedTuple):
    """Close introduction number ``dial``."""

    dial: int


class SendIntro(NamedTuple):
    """Answer a stranger."""

    route: int
    frame: bytes


class CloseIntro(NamedTuple):
    route: int


class Allow(NamedTuple):
    peer: NodeId
    link_key: bytes


class Disallow(NamedTuple):
    peer: NodeId


class OpenLink(NamedTuple):
    peer: NodeId
    link_key: bytes
    endpoint: str


class CloseLink(NamedTuple):
    peer: NodeId


class SendDirect(NamedTuple):
    """A message of the direct plane, still to be encoded."""

    peer: NodeId
    message: Any


class AdmitBroadcast(NamedTuple):
    host: str


class DismissBroadcast(NamedTuple):
    """No peer is at this address any more: new connections from it are refused."""

    host: str


class CutSubscriber(NamedTuple):
    """Close the broadcast connections on which ``peer`` subscribed under a token older than ``before``."""

    peer: NodeId
    before: int


class ConnectBroadcast(NamedTuple):
    peer: NodeId
    endpoint: str


class DisconnectBroadcast(NamedTuple):
    peer: NodeId


class Subscribe(NamedTuple):
    body: bytes


class Unsubscribe(NamedTuple):
    body: bytes


class PublishFrame(NamedTuple):
    """A sealed frame that has to keep its place behind what was published before."""

    tag: bytes
    frame: bytes


class Deliver(NamedTuple):
    """Messages whose turn has come: a batch of ``peer`` but for its first ``skip`` messages.

    ``repaired`` tells that they had been missing; ``only`` is the subscription of ours that they are for, 0 for
    all that match.
    """

    peer: NodeId
    batch: Batch
    skip: int
    repaired: bool = False
    only: int = 0


class LossCause(StrEnum):
    """Why messages never came."""

    NETWORK = "network"  # a link or a full pipe lost them, and the publisher keeps none
    NOT_KEPT = "not_kept"  # the reliable publisher's ring had moved on
    TOO_LARGE = "too_large"  # it is over this node's limit of a value
    PUBLISHER_GONE = "publisher_gone"  # it left before it could repair


class Lost(NamedTuple):
    """Messages of ``peer`` on ``topic``, from number ``first`` up to, not including, ``end``, will never come."""

    peer: NodeId
    topic: str
    first: int
    end: int
    cause: LossCause


class PeerChange(StrEnum):
    JOINED = "joined"
    SUSPECTED = "suspected"
    RECOVERED = "recovered"
    LEFT = "left"


class PeerChanged(NamedTuple):
    """Something for ``watch_peers()``. ``why`` is in words, for the log."""

    peer: NodeId
    change: PeerChange
    why: str


class RevocationsAdopted(NamedTuple):
    """A newer revocation list and the mesh secret that goes with it: to be kept where credentials are."""

    encoded: bytes
    secret: bytes


class CertificateRenewed(NamedTuple):
    """We have a newer certificate: to be kept where credentials are."""

    encoded: bytes


class CutOff(NamedTuple):
    """Publisher ``peer`` waits no more for subscription ``number`` of ours."""

    peer: NodeId
    number: int


class Reopened(NamedTuple):
    """Publishers that wait for a subscriber's window may look again."""


class Incident(NamedTuple):
    """Something for the log that a person may have to act on (never payloads or secrets)."""

    kind: str
    detail: str


Effect = (
    Dial
    | SendDialled
    | HangUp
    | SendIntro
    | CloseIntro
    | Allow
    | Disallow
    | OpenLink
    | CloseLink
    | SendDirect
    | AdmitBroadcast
    | DismissBroadcast
    | CutSubscriber
    | ConnectBroadcast
    | DisconnectBroadcast
    | Subscribe
    | Unsubscribe
    | PublishFrame
    | Deliver
    | Lost
    | PeerChanged
    | RevocationsAdopted
    | CertificateRenewed
    | CutOff
    | Reopened
    | Incident
)
