"""A ZeroMQ socket under Trio: receive in bursts, send without waiting, sleep on the FD.

In:  FD becomes readable → ``pump`` wakes → the owner's ``drain`` takes a burst of messages →
``EVENTS`` is read again → next burst after a checkpoint, or sleep.
Out: ``send`` → ``EVENTS`` is read again → a sleeper that can go on is woken.

Why so much looking at ``EVENTS``: the FD does not say "readable", it says once that libzmq
has *commands* to process (``zmq_getsockopt(3)``, ``ZMQ_FD``).  Any call into the socket may process
them, and the FD then stays silent although a message waits.  So nobody sleeps without having read
``EVENTS`` after the last call, and whoever calls while another task sleeps reads it and wakes that task.

libzmq sockets belong to one thread; all of this runs in Trio's.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from typing import Final

import trio
import zmq

__all__ = ["LINGER", "ZmqSocket", "open_context", "open_socket", "terminate"]

LINGER: Final = 300
"""Milliseconds that a closed socket's last frames (a refusal, a goodbye) may still take to go out."""

# As plain numbers: each operation on pyzmq's enumerations costs as much as sending a message.
_EVENTS: Final = int(zmq.EVENTS)
_POLLIN: Final = int(zmq.POLLIN)
_POLLOUT: Final = int(zmq.POLLOUT)
_NOBLOCK: Final = int(zmq.NOBLOCK)
_MORE: Final = int(zmq.NOBLOCK) | int(zmq.SNDMORE)

_MAX_SOCKETS: Final = 8192  # links, and introductions with their monitors: 256 peers at 8 addresses each
_HANDSHAKE_INTERVAL: Final = 3000  # ms; a connection that has not said who it is by then is closed
_RECONNECT: Final = 50  # ms; a peer that restarts is back at once …
_RECONNECT_MAX: Final = 1000  # ms; … and one that stays away costs one try a second
_KEEPALIVE_IDLE: Final = 60  # s; connections of machines that vanished are closed after two minutes
_KEEPALIVE_INTERVAL: Final = 10  # s
_KEEPALIVE_COUNT: Final = 6


class ZmqSocket:
    """One libzmq socket whose every call keeps the FD's edges. At most one task pumps it."""

    def __init__(self, raw: zmq.Socket[bytes]) -> None:
        self.raw = raw
        self.closed = False
        self._watched_in = 0  # the process that asked for reports
        self._fd = int(raw.FD)
        self._naps = False  # a task sleeps on the FD
        self._dry = False  # nothing waits: so said the last call into ``raw``
        self._awaited = 0  # the events that it sleeps for
        self._waiters = trio.lowlevel.ParkingLot()

    def _is_closed(self) -> bool:
        return self.closed

    def _events(self) -> int:
        """Process libzmq's commands and read what the socket is ready for."""
        return int(self.raw.getsockopt(_EVENTS))

    def _check_open(self) -> None:
        if self.closed:
            raise trio.ClosedResourceError("this socket was closed")

    async def _sleep(self, events: int) -> None:
        """Sleep until the FD's edge, or until another task's call finds one of ``events``."""
        self._awaited = events
        self._naps = True
        try:
            await trio.lowlevel.wait_readable(self._fd)
        except trio.ClosedResourceError:
            if self.closed:
                raise
        finally:
            self._naps = False

    def _wake(self) -> None:
        # Telling Trio that the FD closes wakes who waits for it, and costs the sleeper nothing: a cancel
        # scope around each sleep would cost as much as the rest of it.
        trio.lowlevel.notify_closing(self._fd)

    def settle(self) -> None:
        """To be called after every call into ``raw`` from outside ``drain``: it may have taken an edge."""
        self._dry = False
        if self._naps:
            self._wake_sleeper()
        if self._waiters:
            self._waiters.unpark_all()

    def rouse(self) -> None:
        """Let the pump drain once more, whatever the socket says: its owner has something for it."""
        if self._naps:
            self._wake()

    def _wake_sleeper(self) -> None:
        if self._events() & self._awaited and self._naps:
            self._wake()

    # -- receiving -------------------------------------------------------------

    def readable(self) -> bool:
        """Whether a message waits. To ask costs a third of what it costs to be refused (``zmq.Again``).

        A ``drain`` that is told "no" calls nothing more, or ``settle`` afterwards.
        """
        readable = bool(self._events() & _POLLIN)
        self._dry = not readable
        return readable

    async def pump(self, drain: Callable[[], bool]) -> None:
        """Call ``drain`` whenever there may be messages, until the socket is closed or the task cancelled.

        ``drain`` takes a burst without blocking and answers whether more may wait. It may send on this
        socket and close it. Other tasks run between bursts.
        """
        while not self._is_closed():
            self._dry = False
            more = drain()
            if self._waiters:
                self._waiters.unpark_all()
            if self._is_closed():
                break
            if more or (not self._dry and self.readable()):
                await trio.lowlevel.checkpoint()
            else:
                try:
                    await self._sleep(_POLLIN)
                except trio.ClosedResourceError:
                    break

    # -- sending ---------------------------------------------------------------

    def send(self, parts: Sequence[bytes]) -> bool:
        """Queue one message; False if the pipe (for XPUB with NODROP: a matching pipe) is full."""
        self._check_open()
        self._dry = False
        try:
            self._send(parts)
        except zmq.Again:
            # When sending, libzmq looks at its commands only now and then: "full" may be out of date.
            # After the second try nothing may be called: it could take the news that there is room
            # again, for which the caller is about to wait.
            self._wake_sleeper()
            try:
                self._send(parts)
            except zmq.Again:
                return False
        self.settle()
        return True

    def _send(self, parts: Sequence[bytes]) -> None:
        send = self.raw.send
        for part in parts[:-1]:
            send(part, _MORE)
        send(parts[-1], _NOBLOCK)

    async def wait_writable(self) -> None:
        """Return when ``send`` can go on. For DEALER only: other types claim that they always can.

        Not for a socket with a pump. Any number of tasks may wait; one of them watches the FD.
        Raises ``trio.ClosedResourceError`` when the socket is closed.
        """
        while True:
            self._check_open()
            if self._events() & _POLLOUT:
                await trio.lowlevel.checkpoint()
                return
            if self._naps:
                await self._waiters.park()
            else:
                try:
                    await self._sleep(_POLLOUT)
                finally:
                    self._waiters.unpark_all()  # whoever comes first watches next

    async def wait_stirred(self, at_most: float) -> None:
        """Return after the next call into this socket or edge of its FD, or ``at_most`` seconds.

        For sockets whose EVENTS do not tell whether a pipe is full (XPUB). It needs a pump.
        Raises ``trio.ClosedResourceError`` when the socket is closed.
        """
        self._check_open()
        with trio.move_on_after(at_most):
            await self._waiters.park()
            self._check_open()
            return
        self._check_open()
        self._wake_sleeper()  # a second try that failed may have taken the pump's edge

    # -- closing ---------------------------------------------------------------

    def watch(self, address: str, events: int) -> None:
        """Let libzmq report ``events`` of the connections on ``address``. A PAIR without a bound on what
        it receives must read there until ``unwatch`` or ``close``: libzmq's I/O thread waits for it."""
        self.raw.monitor(address, events)
        self._watched_in = os.getpid()

    def unwatch(self) -> None:
        """No more reports; from now on nobody need read them. Idempotent."""
        if self._watched_in == os.getpid():  # in a fork's child the socket is the parent's: hands off
            self.raw.disable_monitor()
        self._watched_in = 0

    def close(self, linger: int = 0) -> None:
        """Close; idempotent. What was sent has ``linger`` milliseconds to go out. Wakes every waiter."""
        if not self.closed:
            self.unwatch()  # by itself libzmq would go on reporting while it lingers
            self.closed = True
            trio.lowlevel.notify_closing(self._fd)
            self.raw.close(linger)
            self._waiters.unpark_all()


def open_context() -> zmq.Context[zmq.Socket[bytes]]:
    """A context for one node; its ZAP handler and its sockets are nobody else's."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    context.set(zmq.MAX_SOCKETS, min(_MAX_SOCKETS, context.get(zmq.SOCKET_LIMIT)))
    return context


def open_socket(
    context: zmq.Context[zmq.Socket[bytes]],
    kind: int,
    *,
    max_message: int,
    send_queue: int,
    receive_queue: int,
    zap_domain: bytes = b"",
) -> zmq.Socket[bytes]:
    """A socket with every bound set before anything is bound or connected.

    ``max_message`` is in bytes on the wire, the queues in messages a peer. libzmq's own
    defaults are the wrong ones here: LINGER and MAXMSGSIZE have no bound. ZMTP heartbeats stay off:
    the engine knows who is alive.
    """
    raw: zmq.Socket[bytes] = context.socket(kind)
    try:
        raw.setsockopt(zmq.LINGER, 0)
        raw.setsockopt(zmq.MAXMSGSIZE, max_message)
        raw.setsockopt(zmq.SNDHWM, send_queue)
        raw.setsockopt(zmq.RCVHWM, receive_queue)
        raw.setsockopt(zmq.HANDSHAKE_IVL, _HANDSHAKE_INTERVAL)
        raw.setsockopt(zmq.RECONNECT_IVL, _RECONNECT)
        raw.setsockopt(zmq.RECONNECT_IVL_MAX, _RECONNECT_MAX)
        raw.setsockopt(zmq.TCP_KEEPALIVE, 1)
        raw.setsockopt(zmq.TCP_KEEPALIVE_IDLE, _KEEPALIVE_IDLE)
        raw.setsockopt(zmq.TCP_KEEPALIVE_INTVL, _KEEPALIVE_INTERVAL)
        raw.setsockopt(zmq.TCP_KEEPALIVE_CNT, _KEEPALIVE_COUNT)
        raw.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)  # without a handler's yes nobody is let in (RFC 27)
        if zap_domain:
            raw.setsockopt(zmq.ZAP_DOMAIN, zap_domain)
    except BaseException:  # whatever went wrong, it must not leak a socket
        raw.close(0)
        raise
    return raw


async def terminate(context: zmq.Context[zmq.Socket[bytes]]) -> None:
    """Wait until closed sockets have lingered out and libzmq's threads have ended.

    A socket still open is closed without lingering. ``zmq_ctx_term`` blocks, so it runs on a thread of its own, which ends with
    it: Trio's worker threads would stay for a while. Not cancellable; bounded by ``LINGER``.
    """
    done = trio.Event()
    token = trio.lowlevel.current_trio_token()

    def work() -> None:
        try:
            context.destroy(0)
        finally:
            token.run_sync_soon(done.set)

    thread = threading.Thread(target=work, name="zeromesh context", daemon=True)
    with trio.CancelScope(shield=True):
        thread.start()
        await done.wait()
        thread.join()
