"""Which of coredis' errors means what to a bridge.

cannot connect, connection lost, time-out, loading, out of memory, a replica   → ``BrokerUnavailable``: again
wrong password, none                                                           → ``BrokerRejected("credentials")``
no permission, a key of another type, …                                        → ``BrokerRejected``: of this message
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import anyio
import trio
from coredis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    BusyLoadingError,
    ConnectionError,  # noqa: A004 - coredis' own, which is no OSError
    ReadOnlyError,
    RedisError,
    ResponseError,
    WrongTypeError,
)

from bridges.base import BrokerError, BrokerRejected, BrokerUnavailable

__all__ = ["faults", "meaning", "says"]

_PASSING = ("OOM", "LOADING", "MASTERDOWN", "MISCONF", "TRYAGAIN", "CLUSTERDOWN", "NOREPLICAS", "UNBLOCKED")
"""Beginnings of Redis' answers that another time will not be given."""


def says(text: str) -> BrokerRejected | BrokerUnavailable:
    """What an error that Redis answers in words means."""
    if text.startswith("WRONGTYPE"):
        return BrokerRejected("wrong type", "the key holds something else")
    if text.startswith(("NOPERM", "ERR ACL")) or "ACL failure" in text:
        return BrokerRejected("not allowed", text)
    return BrokerUnavailable(text) if text.startswith(_PASSING) else BrokerRejected("refused", text)


def meaning(error: BaseException) -> BrokerError | None:
    """What an error of the client means; None if it is none of its."""
    if isinstance(error, BrokerError):
        return error
    if isinstance(error, AuthenticationError):
        return BrokerRejected("credentials", "Redis refuses the user or the password, or asks for one")
    if isinstance(error, AuthorizationError):
        return BrokerRejected("not allowed", str(error))
    if isinstance(error, WrongTypeError):
        return BrokerRejected("wrong type", "the key holds something else")
    if isinstance(error, (ConnectionError, BusyLoadingError, ReadOnlyError)):
        return BrokerUnavailable(str(error))
    if isinstance(error, ResponseError):
        return says(str(error))
    if isinstance(
        error, (RedisError, OSError, TimeoutError, anyio.ClosedResourceError, anyio.BrokenResourceError)
    ):
        return BrokerUnavailable(str(error) or type(error).__name__)
    return None


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for each in group.exceptions:
        if isinstance(each, BaseExceptionGroup):
            yield from _leaves(each)
        else:
            yield each


def _worst(group: BaseExceptionGroup[BaseException]) -> BaseException | None:
    """What a group means, if all of it is the client's. What broke while a cancellation took it down means that."""
    found: list[BrokerError] = []
    cancelled: trio.Cancelled | None = None
    for each in _leaves(group):
        if isinstance(each, trio.Cancelled):
            cancelled = each
        elif (what := meaning(each)) is not None:
            found.append(what)
        else:
            return None
    return cancelled or min(found, key=lambda error: isinstance(error, BrokerUnavailable))


@contextmanager
def faults() -> Iterator[None]:
    """The client's errors inside the block as a bridge's."""
    try:
        yield
    except BaseExceptionGroup as group:
        what = _worst(group)
        if what is None:
            raise
        raise what from None
    except (RedisError, OSError, anyio.ClosedResourceError, anyio.BrokenResourceError) as error:
        raise meaning(error) or error from None
