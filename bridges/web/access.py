"""Who a client is, and whether it may come in at all.

    Host     must name this gateway: a name that somebody else's DNS points here is refused (DNS rebinding)
    Origin   absent, this gateway's own page, or in the configured list, letter by letter (RFC 6455 §10.2)
    token    ``Authorization: Bearer …`` (RFC 6750) or a WebSocket's first message; in a URL it is refused,
             since URLs end up in logs and histories
    none     enough on the loopback while no token exists, unless a proxy says that it speaks for another

Nothing here waits; every refusal is a ``Refusal`` with the HTTP status and the reason that is counted.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple, Protocol
from urllib.parse import parse_qsl

from bridges.web.scopes import EVERYTHING, Grant

__all__ = ["Access", "Refusal", "Tokens", "headers_of"]

TOKEN_PARAMETERS: Final = frozenset({"token", "access_token", "api_key", "apikey", "auth", "authorization"})
_MAX_PARAMETERS: Final = 64  # the gateway's own requests have one
_FORWARDED: Final = ("forwarded", "x-forwarded-for", "x-real-ip", "via")


class Tokens(Protocol):
    """Where tokens are kept."""

    def find(self, token: str) -> Grant | None:
        """What this token allows; None if it is unknown, revoked or over."""

    def holds(self, identifier: str) -> bool:
        """Whether the token with this id still counts."""

    def exist(self) -> bool:
        """Whether there is any token that counts."""


class Refusal(NamedTuple):
    """Why somebody is turned away: the HTTP status, the reason that is counted, and words."""

    status: int
    reason: str
    detail: str


def headers_of(scope: Mapping[str, Any]) -> dict[str, str]:
    """The headers of an ASGI scope; those that come twice are joined with a comma."""
    headers: dict[str, str] = {}
    for name, value in scope["headers"]:
        key = name.decode("latin-1").lower()
        text = value.decode("latin-1")
        headers[key] = f"{headers[key]}, {text}" if key in headers else text
    return headers


class Access:
    """The rules of one gateway."""

    def __init__(self, tokens: Tokens, *, origins: Iterable[str] = (), hosts: Iterable[str] = ()) -> None:
        self._tokens = tokens
        self._origins = frozenset(origins)
        own = socket.gethostname().lower()
        self._hosts = frozenset({"localhost", own, f"{own}.local", *(host.lower() for host in hosts)})

    # -- what may come in ---------------------------------------------------------------

    def refuse(self, scope: Mapping[str, Any], headers: Mapping[str, str]) -> Refusal | None:
        """Why this request goes no further, or None."""
        host = headers.get("host", "")
        if not self._is_ours(host, scope):
            return Refusal(
                421, "host", "the Host header does not name this gateway ([http] hosts lists further names)"
            )
        names = _parameters(scope.get("query_string", b""))
        if names is None:
            return Refusal(400, "query", f"a URL has at most {_MAX_PARAMETERS} parameters")
        if not names.isdisjoint(TOKEN_PARAMETERS):
            return Refusal(
                400,
                "token_in_url",
                "a token never goes in a URL: send Authorization: Bearer, or revoke it now",
            )
        if not self._origin_is_allowed(scope, headers, host):
            return Refusal(403, "origin", "this Origin is not allowed ([http] origins lists those that are)")
        return None

    def allowed_origin(self, headers: Mapping[str, str]) -> str | None:
        """The Origin to name in CORS headers, if it is one of the configured ones."""
        origin = headers.get("origin")
        return origin if origin in self._origins else None

    def _is_ours(self, host: str, scope: Mapping[str, Any]) -> bool:
        name = _host_name(host)
        if name in self._hosts:
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return False
        # An address can't be pointed anywhere by a name server: the one that was dialled, or the loopback's.
        server = scope.get("server")
        return address.is_loopback or (server is not None and name == _host_name(_bracketed(server[0])))

    def _origin_is_allowed(self, scope: Mapping[str, Any], headers: Mapping[str, str], host: str) -> bool:
        origin = headers.get("origin")
        if origin is None:
            # Browsers leave it out where a page includes another's image or script; they say so here.
            # Going to the page itself, from wherever, is what the page is for.
            site = headers.get("sec-fetch-site")
            return site in (None, "same-origin", "none") or headers.get("sec-fetch-mode") == "navigate"
        scheme = {"ws": "http", "wss": "https"}.get(scope["scheme"], scope["scheme"])
        return origin in self._origins or origin == f"{scheme}://{host.lower()}"

    # -- who it is ------------------------------------------------------------------------

    def grant(self, scope: Mapping[str, Any], headers: Mapping[str, str]) -> Grant | None:
        """What the request's own credentials allow; None: nothing."""
        given = headers.get("authorization")
        if given is not None:
            kind, _, token = given.partition(" ")
            return self._tokens.find(token.strip()) if kind.lower() == "bearer" else None
        return EVERYTHING if self._is_open(scope, headers) else None

    def grant_token(self, token: str) -> Grant | None:
        return self._tokens.find(token)

    def still(self, grant: Grant, scope: Mapping[str, Any]) -> bool:
        """Whether what was granted still holds: tokens are revoked, and the loopback closes with the first one."""
        return self._tokens.holds(grant.token) if grant.token else not self._tokens.exist()

    def _is_open(self, scope: Mapping[str, Any], headers: Mapping[str, str]) -> bool:
        client = scope.get("client")
        if client is None or any(name in headers for name in _FORWARDED):
            return False
        return _is_loopback(client[0]) and not self._tokens.exist()


def _is_loopback(host: str) -> bool:
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)


def _parameters(query: bytes) -> set[str] | None:
    """The names in a query, in lower case; None if there are too many to be anybody's."""
    try:
        pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True, max_num_fields=_MAX_PARAMETERS)
    except ValueError:
        return None
    return {name.lower() for name, _ in pairs}


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _host_name(host: str) -> str:
    """``Host`` without its port, in lower case; empty if it is not one."""
    if host.startswith("["):
        name, bracket, port = host[1:].partition("]")
        port = port.removeprefix(":")
        ok = bool(bracket)
    else:
        name, _, port = host.partition(":")
        ok = True
    return name.lower().rstrip(".") if ok and (port.isdigit() or not port) else ""
