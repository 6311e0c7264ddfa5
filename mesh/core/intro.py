"""The messages of the intro plane: anyone who knows the mesh id may speak.

Two nodes show each other who they are (hello, welcome, refuse), and a newcomer joins with a token.  The specification is
``docs/design/wire.md``, sections 4 and 8.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from mesh.core.shapes import ID16, NAME, TOKEN32, Table, octets, sized, text, uint, versions

__all__ = [
    "INTRO",
    "HelloMessage",
    "IntroMessage",
    "JoinChallengeMessage",
    "JoinGrantMessage",
    "JoinHelloMessage",
    "JoinProofMessage",
    "RefuseMessage",
    "WelcomeMessage",
]


class HelloMessage(NamedTuple):
    """The dialler introduces itself: its versions, certificate and signed node record."""

    versions: list[int]
    certificate: bytes
    record: bytes


class WelcomeMessage(NamedTuple):
    """The answer to a hello that was accepted. ``version`` is the one to speak."""

    version: int
    certificate: bytes
    record: bytes


class RefuseMessage(NamedTuple):
    """The answer to a hello or join that was not accepted, and why, in clear."""

    reason: str
    text: str
    versions: list[int]


class JoinHelloMessage(NamedTuple):
    """A newcomer with a token: which invitation, a fresh nonce, its key, the name it wishes."""

    invitation: bytes
    nonce: bytes
    public_key: bytes
    name: str


class JoinChallengeMessage(NamedTuple):
    """The inviter proves that it knows the secret, and shows the CA key."""

    nonce: bytes
    ca_public_key: bytes
    proof: bytes


class JoinProofMessage(NamedTuple):
    """The newcomer proves that it knows the secret, and (``signature``) that it holds its key."""

    proof: bytes
    signature: bytes


class JoinGrantMessage(NamedTuple):
    """The certificate and mesh secret, sealed under a key made from the token's secret."""

    sealed: bytes


IntroMessage = (
    HelloMessage
    | WelcomeMessage
    | RefuseMessage
    | JoinHelloMessage
    | JoinChallengeMessage
    | JoinProofMessage
    | JoinGrantMessage
)


INTRO: Final[Table] = {
    1: (HelloMessage, (versions, octets, octets)),
    2: (WelcomeMessage, (uint, octets, octets)),
    3: (RefuseMessage, (text(64), text(256), versions)),
    4: (JoinHelloMessage, (sized(8), ID16, TOKEN32, NAME)),
    5: (JoinChallengeMessage, (ID16, TOKEN32, TOKEN32)),
    6: (JoinProofMessage, (TOKEN32, sized(64))),
    7: (JoinGrantMessage, (octets,)),
}
"""Intro plane: code → message, forms of its fields."""
