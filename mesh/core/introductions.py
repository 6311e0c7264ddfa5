"""The intro plane: hints become dials, dials and strangers become introductions.

hint → ``Dialer`` → Dial effect with our Hello → Welcome → judged → ``introduced``;
stranger's Hello → judged → Welcome → ``introduced``.  What cannot be judged well is refused in
clear words and counted; the dialler hears the reason and its operator reads it in the log.

Join messages (a newcomer with a token) pass through to whoever answers them, if
somebody does: signing certificates is not this module's idea.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from typing import Any, Final, NamedTuple, Protocol

from mesh.config import Config
from mesh.core.codec import decode_intro, encode_intro
from mesh.core.dialer import Dialer, Target
from mesh.core.effects import CloseIntro, Dial, Effect, HangUp, Incident, SendIntro
from mesh.core.handshake import Introduced, Introducer, refusal
from mesh.core.join import not_inviter
from mesh.core.messages import (
    HelloMessage,
    JoinHelloMessage,
    JoinProofMessage,
    RefuseMessage,
    WelcomeMessage,
)
from mesh.core.types import NodeId, RandomBytes, Reason, RemoteProtocolError, printable

__all__ = ["Introductions", "JoinAnswerer"]

_REFUSALS: Final = 256  # endpoints whose latest refusal is remembered: nodes come and go with their ports


class JoinAnswerer(Protocol):
    """Answers the join messages of newcomers; ``route`` tells one newcomer from another."""

    def answer(self, route: int, message: JoinHelloMessage | JoinProofMessage, now: float) -> Any:
        """The message to answer with (a challenge, a grant or a refusal)."""


class _Dialled(NamedTuple):
    target: Target
    endpoint: str
    deadline: float


class Introductions:
    """Who is being introduced. ``introduced(who, endpoint, ours)`` is called for each success.

    ``endpoint`` is the intro endpoint that answered (empty for a stranger who dialled us);
    it returns False to say that there is no room.
    """

    def __init__(
        self,
        config: Config,
        rng: RandomBytes,
        own: NodeId,
        introducer: Introducer,
        introduced: Callable[[Introduced, str, str, float], bool],
        effects: list[Effect],
        rejected: Callable[[Reason], None],
    ) -> None:
        self._config = config
        self._introducer = introducer
        self._introduced = introduced
        self._effects = effects
        self._rejected = rejected
        self.dialer = Dialer(config, rng, own)
        self._dialled: dict[int, _Dialled] = {}
        self._next_dial = 1
        self.join_answerer: JoinAnswerer | None = None
        self.mismatched: dict[
            NodeId, tuple[int, int]
        ] = {}  # nodes with no version in common → what they speak
        self.refused_by: dict[str, str] = {}  # endpoint → reason, the latest of each, for doctor

    # -- dialling --------------------------------------------------------------

    def dial_due(self, clock: float, skip: Container[NodeId | None]) -> None:
        """Begin the rounds that are due."""
        for target, endpoint in self.dialer.due(clock, skip):
            number = self._next_dial
            self._next_dial += 1
            self._dialled[number] = _Dialled(target, endpoint, clock + self._config.dial_timeout)
            self._effects.append(Dial(number, endpoint, encode_intro(self._introducer.hello())))

    def expire(self, clock: float) -> None:
        """Give up on what did not answer in time."""
        for number, dialled in list(self._dialled.items()):
            if dialled.deadline <= clock:
                self._end(number, clock)

    def deadline(self) -> float:
        """When the next dial under way is given up."""
        return min([dialled.deadline for dialled in self._dialled.values()], default=float("inf"))

    def unresolved(self, skip: Container[NodeId | None]) -> int:
        """How many candidates have neither answered nor failed once."""
        return self.dialer.unresolved(skip)

    def dial_failed(self, dial: int, reason: str, clock: float) -> None:
        """The transport says that this dial cannot get through."""
        dialled = self._dialled.get(dial)
        if dialled is not None:
            self._note_refusal(dialled.endpoint, reason)
            self._end(dial, clock)

    def _end(self, number: int, clock: float) -> None:
        dialled = self._dialled.pop(number)
        self._effects.append(HangUp(number))
        self.dialer.failed(dialled.target, dialled.endpoint, clock)

    def answered(self, dial: int, frame: bytes, clock: float, now: float) -> None:
        """A frame came back on a dial of ours."""
        dialled = self._dialled.get(dial)
        if dialled is None:
            return
        try:
            message = decode_intro(frame)
            if isinstance(message, RefuseMessage):
                self._was_refused(dialled, message)
                self._end(dial, clock)
                return
            if not isinstance(message, WelcomeMessage):
                raise RemoteProtocolError(Reason.UNEXPECTED, type(message).__name__)
            who = self._introducer.accept(message, now)
        except RemoteProtocolError as error:
            self._rejected(error.reason)
            self._note_refusal(dialled.endpoint, f"its papers were refused: {error}")
            self._effects.append(Incident("peer refused", f"{dialled.endpoint}: {error}"))
            self._end(dial, clock)
            return
        self._effects.append(HangUp(dial))
        del self._dialled[dial]
        node = who.record.node
        expected = dialled.target.node
        if expected is not None and expected != node:
            # Somebody else lives at this address (a restart, an address reused, or one that means another
            # host here). Who answered is a member all the same.
            self.dialer.mistaken(dialled.target, dialled.endpoint, clock)
        else:
            for number, other in list(self._dialled.items()):
                if other.target is dialled.target:  # the first that answers wins
                    del self._dialled[number]
                    self._effects.append(HangUp(number))
            self.dialer.reached(dialled.target, node, clock)
        self.refused_by.pop(dialled.endpoint, None)
        self.mismatched.pop(node, None)
        self._introduced(who, dialled.endpoint, "", clock)

    def _was_refused(self, dialled: _Dialled, message: RefuseMessage) -> None:
        text = printable(message.text)
        if message.reason == Reason.VERSION_MISMATCH.value:
            low, high = message.versions
            text += f" (theirs {low}-{high})"
            if dialled.target.node is not None:
                self.mismatched[dialled.target.node] = (low, high)
                if len(self.mismatched) > _REFUSALS:
                    del self.mismatched[next(iter(self.mismatched))]
        self._note_refusal(dialled.endpoint, text)
        self._effects.append(Incident("refused by peer", f"{dialled.endpoint}: {text}"))

    def _note_refusal(self, endpoint: str, text: str) -> None:
        self.refused_by.pop(endpoint, None)
        self.refused_by[endpoint] = text
        if len(self.refused_by) > _REFUSALS:
            del self.refused_by[next(iter(self.refused_by))]

    # -- strangers -------------------------------------------------------------

    def stranger(self, route: int, frame: bytes, host: str, clock: float, now: float) -> None:
        """A frame from somebody who dialled us."""
        try:
            message = decode_intro(frame)
            if isinstance(message, (JoinHelloMessage, JoinProofMessage)):
                self._join(route, message, now)
                return
            if not isinstance(message, HelloMessage):
                raise RemoteProtocolError(Reason.UNEXPECTED, type(message).__name__)
            who = self._introducer.answer(message, now)
            if not self._introduced(who, "", host, clock):
                raise RemoteProtocolError(Reason.TOO_MANY, "peers")
        except RemoteProtocolError as error:
            self._rejected(error.reason)
            self._effects.append(Incident("stranger refused", f"{host}: {error}"))
            self._effects.append(SendIntro(route, encode_intro(refusal(error.reason))))
            self._effects.append(CloseIntro(route))
            return
        self._effects.append(SendIntro(route, encode_intro(self._introducer.welcome(who.version))))
        self._effects.append(CloseIntro(route))

    def _join(self, route: int, message: JoinHelloMessage | JoinProofMessage, now: float) -> None:
        if self.join_answerer is None:
            answer: Any = not_inviter()
        else:
            answer = self.join_answerer.answer(route, message, now)
        self._effects.append(SendIntro(route, encode_intro(answer)))
        if isinstance(answer, RefuseMessage):
            self._effects.append(CloseIntro(route))
