"""Which of the client's errors means what to a bridge.

the connection is lost, or the channel with it        BrokerUnavailable: connect anew, send again
the broker closed a channel, and named the reason     BrokerRejected: it would do so again
it closed the connection while we introduced ourselves   BrokerRejected: credentials, virtual host, certificate
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from typing import Final

from aio_pika.exceptions import (
    CONNECTION_EXCEPTIONS,
    AuthenticationError,
    ChannelClosed,
    ChannelNotFoundEntity,
    ChannelPreconditionFailed,
    InvalidFrameError,
    ProbableAuthenticationError,
    PublishError,
)
from aiormq.exceptions import ChannelAccessRefused, ChannelLockedResource

from bridges.base import BrokerError, BrokerRejected, BrokerUnavailable

__all__ = ["CLIENT_ERRORS", "connecting", "refusal", "unavailable", "unroutable"]

CLIENT_ERRORS: Final = CONNECTION_EXCEPTIONS
"""All that a call of the client may raise once the connection, or only its channel, is gone.

It may also be *cancelled* over there, which ``Loop.run`` makes an exception for who asked."""

_REASONS: Final = (
    (ChannelAccessRefused, "access refused"),
    (ChannelNotFoundEntity, "not found"),
    (ChannelLockedResource, "locked"),
    (ChannelPreconditionFailed, "precondition failed"),
)


def refusal(error: BaseException | None) -> BrokerRejected | None:
    """The broker's own no: a returned message, or a channel that it closed. None for all else."""
    if isinstance(error, PublishError):
        return unroutable(error)
    for kind, reason in _REASONS:
        if isinstance(error, kind):
            return BrokerRejected(reason, _text(error))
    if isinstance(error, ChannelClosed) and error.args and error.args[0] is not None:
        return BrokerRejected("refused", _text(error))
    return None


def unroutable(error: PublishError) -> BrokerRejected:
    """What the broker returned, as no queue was there for it."""
    returned = error.message.routing_key if error.message is not None else ""
    return BrokerRejected("unroutable", f"no queue is bound for {returned!r}")


def unavailable(error: BaseException | None) -> BrokerUnavailable:
    """The connection is lost; the text says how."""
    return BrokerUnavailable(_text(error) if error is not None else "the connection was closed")


def connecting(error: BaseException) -> BrokerError:
    """What a failed attempt to connect means. The text of no error here holds credentials."""
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return BrokerRejected("certificate", cause.verify_message)
    if isinstance(error, (ProbableAuthenticationError, AuthenticationError)):
        return BrokerRejected("credentials", _text(error))
    if isinstance(error, InvalidFrameError) and "Connection.OpenOk" in str(error):
        # The client swallows what the broker says to its choice of a virtual host, but it is always a no to that.
        return BrokerRejected("virtual host", "there is none of that name, or not for us")
    return unavailable(error)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and what led to it. The client raises one object more than once: the chain may be a ring."""
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        yield cause
        cause = cause.__cause__ or cause.__context__


def _text(error: BaseException) -> str:
    """One line: the broker's own words where it had some."""
    words = [str(part) for part in error.args if isinstance(part, str) and part]
    text = words[-1] if words else str(error)
    return " ".join(text.split()) or type(error).__name__
