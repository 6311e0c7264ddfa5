"""Faces: what a program outside of Trio sees of a Trio object.

``Style.face(Trio class)`` → a class with the same public names, documentation and signatures:
methods that wait cross the portal as calls, the others and the properties as hops, parameters that take
user code are sent through the style's ``Landing``, results that can be entered or
iterated get a face themselves.  A style says how its programs wait: ``mesh.aio`` and ``mesh.sync``.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, nullcontext
from functools import partial
from typing import Any, ClassVar, Final, Protocol

import trio

from mesh.errors import MeshError
from mesh.node.inbox import LossWatch
from mesh.node.incidents import IncidentWatch
from mesh.node.node import Node
from mesh.node.posting import Post, Posting, judge_node, judge_now, judge_publisher
from mesh.node.presence import PeerWatch
from mesh.node.publisher import Publisher
from mesh.node.subscription import Subscription
from mesh.portal.thread import Portal

__all__ = ["BATCH", "PUBLIC", "Face", "Gate", "Landing", "Style", "Visitor", "foreign_signature", "plain"]

BATCH: Final = 512
"""Messages that one crossing fetches at most: what a publisher puts in one frame."""

PUBLIC: Final[dict[type, tuple[str, ...]]] = {
    Node: (
        "id", "name", "endpoints", "peers", "config", "refusals",
        "publish", "publisher", "subscribe", "request", "request_one", "request_many", "serve",
        "watch_peers", "watch_losses", "watch_incidents", "wait_for_peers", "ping", "supervise", "add_seed", "statistics",
    ),
    Subscription: (
        "pattern", "group", "buffer", "overflow",
        "received", "delivered", "dropped", "lost", "queued", "receive_nowait",
    ),
    Publisher: ("topic", "publish", "publish_nowait", "flush", "wait_for_subscribers"),
    PeerWatch: ("dropped",),
    LossWatch: ("dropped",),
    IncidentWatch: ("dropped",),
}  # fmt: skip
"""The names that a face shows. A class that isn't here shows only that it can be entered or iterated."""

CALLBACKS: Final = ("handler", "task")
"""Parameters that take user code."""

_STATUS: Final = "task_status"
"""The parameter by which Trio's long-running functions say that they are ready; a face's is ``started``."""

_JUDGES: Final[dict[Callable[..., Any], Callable[..., Post | None]]] = {
    Node.publish: judge_node,
    Publisher.publish: judge_publisher,
    Publisher.publish_nowait: judge_now,
}
"""Methods whose arguments are judged in the caller's thread, to be carried out later and many at once."""


class Landing(Protocol):
    """Where the user code given to one call runs. Both methods are awaited in the portal's thread."""

    def streams(self, function: Callable[..., Any]) -> bool:
        """Whether this user code streams its results. Raises ``TypeError`` for what does not fit the style."""

    async def run(self, function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        """Run it; cancelled when we are. Raises what it raises."""

    def stream(self, function: Callable[..., Any], args: tuple[Any, ...]) -> AsyncGenerator[Any, None]:
        """Run it step by step."""


class Visitor:
    """One call of a method that takes user code."""

    def __init__(
        self,
        method: Callable[..., Awaitable[Any]],
        bound: inspect.BoundArguments,
        started: Callable[[], object] | None,
        until_cancelled: bool,
    ) -> None:
        self.started = started
        self.until_cancelled = until_cancelled  # for it, the node's closing is a cancellation
        self.arguments = bound.arguments
        self._method = method
        self._bound = bound

    @property
    def concurrency(self) -> int:
        """How much of the user code may run at once."""
        if "concurrency" not in inspect.signature(self._method).parameters:
            return 1
        asked: int | None = self.arguments.get("concurrency")
        default: int = self.arguments["self"].config.serve_concurrency
        return default if asked is None else asked

    def land(self, landing: Landing, started: Callable[[], object]) -> Callable[[], Awaitable[Any]]:
        """The call, its user code sent to ``landing``; when it is ready ``started()`` is called."""
        for name in CALLBACKS:
            if name in self.arguments:
                self.arguments[name] = _landed(landing, self.arguments[name])
        if self.started is not None:
            self.arguments[_STATUS] = _Status(started)
        return partial(self._method, *self._bound.args, **self._bound.kwargs)


def plain(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function with the code, of a partial, a decorated function or a callable object."""
    while isinstance(function, partial):
        function = function.func
    function = inspect.unwrap(function)
    return function if inspect.isroutine(function) else getattr(function, "__call__", function)  # noqa: B004


class _Status:
    """A ``trio.TaskStatus`` that tells somebody else."""

    def __init__(self, started: Callable[[], object]) -> None:
        self._started = started

    def started(self, value: Any = None) -> None:
        self._started()


def _landed(landing: Landing, function: Callable[..., Any]) -> Callable[..., Any]:
    if landing.streams(function):

        async def stream(*args: Any) -> AsyncGenerator[Any, None]:
            async with aclosing(landing.stream(function, args)) as items:
                async for item in items:
                    yield item

        return stream

    async def run(*args: Any) -> Any:
        return await landing.run(function, args)

    return run


class Gate(ABC):
    """One portal as programs of one style use it."""

    def __init__(self, portal: Portal, style: type[Style]) -> None:
        self.portal = portal
        self.style = style
        self.posting = Posting(portal.soon)
        portal.posts = self.posting

    def wrap(self, value: Any) -> Any:
        """A face for what has one; everything else as it is."""
        face = self.style.face(type(value))
        return value if face is None else face(self, value)

    @abstractmethod
    def cross(self, function: Callable[[], Any]) -> Any:
        """Await ``function()`` in the portal's thread."""

    @abstractmethod
    def host(self, visitor: Visitor) -> Any:
        """Await a method that was given user code."""

    def post_nowait(self, post: Post) -> None:
        """Hand over something to publish. Raises ``trio.WouldBlock`` while too much of it waits already."""
        self.portal.check()
        if self.posting.full or post.congested:
            raise trio.WouldBlock
        self.posting.append(post)


class Face:
    """What all faces have: the object behind, and what was fetched of it and not yet taken."""

    __slots__ = ("__weakref__", "_buffer", "_fetching", "_gate", "_iterator", "_raised", "_stay", "_target")

    _lock: ClassVar[type[Any]] = nullcontext  # the style's lock, for what can be iterated

    def __init__(self, gate: Gate, target: Any) -> None:
        self._fetching = self._lock()
        self._gate = gate
        self._target = target
        self._buffer: deque[Any] = deque()
        self._iterator: Any = None
        self._raised: MeshError | None = None  # behind what is in the buffer
        self._stay: Any = None

    def __repr__(self) -> str:
        return f"<{type(self).__module__}.{type(self).__qualname__} of {self._target!r}>"

    def _begin(self) -> None:
        """Prepare to iterate. Raises what the object's own ``__aiter__`` raises."""
        target = self._target
        iterator = self._gate.portal.hop(partial(aiter, target))
        if self._iterator is None:
            self._iterator = target if hasattr(target, "__anext__") else iterator

    async def _fetch(self) -> bool:
        """In the portal's thread: what is there now, up to ``BATCH``, into the buffer; at least one.

        The items are in the buffer before the caller hears of it, so that a cancelled caller loses none.
        False if the iteration has ended.
        """
        append = self._buffer.append
        self._raise()
        if self._iterator is None:
            self._iterator = self._target
        try:
            append(await anext(self._iterator))
        except StopAsyncIteration:
            return False
        take = getattr(self._iterator, "receive_nowait", None)
        if take is not None:
            try:
                for _ in range(BATCH - 1):
                    append(take())
            except trio.WouldBlock:
                pass
            except MeshError as error:
                self._raised = error
        return True

    def _raise(self) -> None:
        error, self._raised = self._raised, None
        if error is not None:
            raise error

    def _receive_nowait(self) -> Any:
        try:
            return self._buffer.popleft()
        except IndexError:
            self._raise()
            return self._gate.portal.hop(self._target.receive_nowait)


class Style(ABC):
    """How the faces of one kind of program are made."""

    module: ClassVar[str]
    entered: ClassVar[type]  # mixed into the faces of what can be entered
    iterated: ClassVar[type]  # … and of what can be iterated
    faces: ClassVar[dict[type, type[Face] | None]]

    @classmethod
    @abstractmethod
    def method(cls, function: Callable[..., Any]) -> Callable[..., Any]:
        """``function`` returns what ``Gate.cross`` and its like return: as a method of this style."""

    @classmethod
    @abstractmethod
    def posting(cls, original: Callable[..., Any], judge: Callable[..., Post | None]) -> Callable[..., Any]:
        """A method that hands over what ``judge`` makes of its arguments, waiting only while too much waits.

        Without a detour: it is called for every message. What ``judge`` leaves crosses as any call.
        """

    @classmethod
    def face(cls, target: type) -> type[Face] | None:
        """The face of a Trio class; None if its objects are plain values."""
        try:
            return cls.faces[target]
        except KeyError:
            # Of a kind of subscription, say, the face of a subscription.
            public = next((each for each in target.__mro__ if each in PUBLIC), target)
            face = cls.faces[target] = cls._make(target) if public is target else cls.face(public)
            return face

    @classmethod
    def _make(cls, target: type) -> type[Face] | None:
        mixins = []
        if hasattr(target, "__aenter__"):
            mixins.append(cls.entered)
        if hasattr(target, "__aiter__"):
            mixins.append(cls.iterated)
        if not mixins and target not in PUBLIC:
            return None
        members = {name: cls._member(target, name) for name in PUBLIC.get(target, ())}
        namespace = {"__doc__": target.__doc__, "__module__": cls.module, "__slots__": (), **members}
        return type(target.__name__, (*mixins, Face), namespace)

    @classmethod
    def _member(cls, target: type, name: str) -> Any:
        original = inspect.getattr_static(target, name, None)
        if isinstance(original, property):
            return property(_hopping(original), doc=original.__doc__)
        if not inspect.isfunction(original):
            return property(lambda face: getattr(face._target, name))
        if name == "receive_nowait":
            return _dress(lambda face: face._receive_nowait(), original)
        judge = _JUDGES.get(original)
        signature = inspect.signature(original)
        if judge is not None:
            make = cls.posting if inspect.iscoroutinefunction(original) else _posting_nowait
            return _dress(make(original, judge), original)
        if not inspect.iscoroutinefunction(original):
            return _dress(_plain(original), original)
        if any(parameter in signature.parameters for parameter in CALLBACKS):
            return _dress(cls.method(_hosting(original, signature)), original)
        return _dress(cls.method(_crossing(original)), original)


# -- the kinds of members ---------------------------------------------------------------


def _hopping(original: property) -> Callable[[Face], Any]:
    get = original.fget
    assert get is not None

    def read(face: Face) -> Any:
        return face._gate.wrap(face._gate.portal.hop(partial(get, face._target)))

    return read


def _plain(original: Callable[..., Any]) -> Callable[..., Any]:
    def method(face: Face, *args: Any, **named: Any) -> Any:
        gate = face._gate
        return gate.wrap(gate.portal.hop(partial(original, face._target, *args, **named)))

    return method


def _crossing(original: Callable[..., Any]) -> Callable[..., Any]:
    def method(face: Face, *args: Any, **named: Any) -> Any:
        return face._gate.cross(partial(original, face._target, *args, **named))

    return method


def _posting_nowait(original: Callable[..., Any], judge: Callable[..., Post | None]) -> Callable[..., Any]:
    def method(face: Face, *args: Any, **named: Any) -> None:
        post = judge(face._target, *args, **named)
        assert post is not None
        face._gate.post_nowait(post)

    return method


def _hosting(original: Callable[..., Any], signature: inspect.Signature) -> Callable[..., Any]:
    reports = _STATUS in signature.parameters

    def method(face: Face, *args: Any, **named: Any) -> Any:
        started = named.pop("started", None) if reports else None
        bound = signature.bind(face._target, *args, **named)
        return face._gate.host(Visitor(original, bound, started, reports))

    return method


# -- signatures and documentation ----------------------------------------------------------


def foreign_signature(original: Callable[..., Any]) -> inspect.Signature:
    """The signature as a face has it: ``started=`` in the place of ``task_status=``."""
    signature = inspect.signature(original)
    parameters = [
        parameter.replace(name="started", default=None, annotation="Callable[[], object] | None")
        if parameter.name == _STATUS
        else parameter
        for parameter in signature.parameters.values()
    ]
    return signature.replace(parameters=parameters)


def _dress(method: Callable[..., Any], original: Callable[..., Any]) -> Callable[..., Any]:
    method.__name__ = original.__name__
    method.__qualname__ = original.__qualname__
    signature = foreign_signature(original)
    document = inspect.getdoc(original)
    if "started" in signature.parameters and document:
        document = document.replace(
            f"``{_STATUS}.started()`` means", "``started()`` is called once it is ready, and means"
        )
    method.__doc__ = document
    method.__signature__ = signature  # type: ignore[attr-defined]
    return method
