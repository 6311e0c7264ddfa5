"""Every message of the wire, as named tuples, with the form each field must have.

A message travels as one CBOR array: its code, then its fields in the order in
which they stand in its class (``mesh.core.codec`` turns one into the other).  A
receiver ignores fields that follow the ones it knows, so that a later version
may append.  The tables ``INTRO`` and ``DIRECT`` say which code is which
message on which plane; the specification is ``docs/design/wire.md``.

They are written down where their ideas are, ``intro``, ``upkeep``, ``traffic`` and ``batches``, and used from here.
"""

from __future__ import annotations

from typing import Final

from mesh.core.batches import (
    CBOR,
    PAYLOADS,
    RAW,
    Batch,
    Chunk,
    Tail,
)
from mesh.core.intro import (
    INTRO,
    HelloMessage,
    IntroMessage,
    JoinChallengeMessage,
    JoinGrantMessage,
    JoinHelloMessage,
    JoinProofMessage,
    RefuseMessage,
    WelcomeMessage,
)
from mesh.core.shapes import Table
from mesh.core.traffic import (
    PLAIN,
    TRAFFIC,
    CancelMessage,
    CreditMessage,
    CutOffMessage,
    DirectedMessage,
    ErrorMessage,
    PartMessage,
    PositionsMessage,
    RepairedMessage,
    RepairMessage,
    ReplyMessage,
    RequestMessage,
    TrafficMessage,
    WindowMessage,
    WindowWantedMessage,
)
from mesh.core.upkeep import (
    UPKEEP,
    AttachMessage,
    CertificateMessage,
    CertificateWantedMessage,
    GoodbyeMessage,
    GossipMessage,
    InterestEntry,
    InterestsMessage,
    InterestsWantedMessage,
    KeyAnnouncement,
    KeyMessage,
    KeyWantedMessage,
    PingMessage,
    PingRequestMessage,
    PongMessage,
    RecordMessage,
    RevocationsMessage,
    UpkeepMessage,
    VouchMessage,
)

__all__ = [
    "CBOR",
    "DIRECT",
    "INTRO",
    "PAYLOADS",
    "PLAIN",
    "RAW",
    "AttachMessage",
    "Batch",
    "CancelMessage",
    "CertificateMessage",
    "CertificateWantedMessage",
    "Chunk",
    "CreditMessage",
    "CutOffMessage",
    "DirectMessage",
    "DirectedMessage",
    "ErrorMessage",
    "GoodbyeMessage",
    "GossipMessage",
    "HelloMessage",
    "InterestEntry",
    "InterestsMessage",
    "InterestsWantedMessage",
    "IntroMessage",
    "JoinChallengeMessage",
    "JoinGrantMessage",
    "JoinHelloMessage",
    "JoinProofMessage",
    "KeyAnnouncement",
    "KeyMessage",
    "KeyWantedMessage",
    "PartMessage",
    "PingMessage",
    "PingRequestMessage",
    "PongMessage",
    "PositionsMessage",
    "RecordMessage",
    "RefuseMessage",
    "RepairMessage",
    "RepairedMessage",
    "ReplyMessage",
    "RequestMessage",
    "RevocationsMessage",
    "Tail",
    "VouchMessage",
    "WelcomeMessage",
    "WindowMessage",
    "WindowWantedMessage",
]

DIRECT: Final[Table] = UPKEEP | TRAFFIC
"""Direct plane: code → message, forms of its fields."""

DirectMessage = UpkeepMessage | TrafficMessage
