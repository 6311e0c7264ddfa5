"""What a field of a signed statement must look like: names, roles, endpoints, and the maps they stand in.

Each check answers None, or in a few words what is wrong, so that the same table serves the signer (whose
mistake it is) and the reader (whose peer's it is).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from typing import Any, Final

__all__ = [
    "CERTIFICATE",
    "FORMAT",
    "MAX_ADDRESSES",
    "MAX_NAME",
    "MAX_REVOKED",
    "MAX_ROLES",
    "RECORD",
    "REVOCATIONS",
    "Forms",
    "check_endpoint",
    "check_name",
    "check_role",
    "what_is_wrong",
]

FORMAT: Final = 1
"""The version of all three maps."""

MAX_NAME: Final = 64  # characters: one line of a table
MAX_ROLES: Final = 16  # with their sizes, a certificate stays near 1 KiB
MAX_ROLE: Final = 32  # characters
MAX_ADDRESSES: Final = 8  # a laptop on Wi-Fi, Ethernet and VPN, IPv4 and IPv6
MAX_ENDPOINT: Final = 128  # bytes: a Unix socket path is at most 107
MAX_REVOKED: Final = 1024  # four times a flat mesh; the list stays under 20 KiB
_UINT64: Final = 1 << 64


def check_name(name: object) -> str | None:
    """What is wrong with the name of a member, node or mesh; None if nothing is."""
    if type(name) is not str or not 0 < len(name) <= MAX_NAME:
        return f"a name has 1 to {MAX_NAME} characters"
    if not name.isprintable() or name != name.strip():
        return "a name has printable characters only, and no space at its ends"
    return None


_ROLE: Final = re.compile(rf"[a-z0-9][a-z0-9_.-]{{0,{MAX_ROLE - 1}}}", re.ASCII)


def check_role(role: object) -> str | None:
    """What is wrong with a role's name; None if nothing is."""
    if type(role) is not str or not _ROLE.fullmatch(role):
        return f"a role has 1 to {MAX_ROLE} of the characters a-z 0-9 _ . -"
    return None


_TCP: Final = re.compile(r"tcp://(?:\[([0-9A-Fa-f:.]+)(?:%[\w.-]{1,32})?\]|([\w.-]+)):([0-9]{1,5})", re.ASCII)


def check_endpoint(endpoint: object) -> str | None:
    """What is wrong with an endpoint that a peer is to connect to; None if nothing is.

    ``tcp://host:port`` (IPv4, ``[IPv6]`` with an optional zone, or a host name) or ``ipc://path``.
    """
    if type(endpoint) is not str or len(endpoint.encode(errors="replace")) > MAX_ENDPOINT:
        return f"an endpoint is text of at most {MAX_ENDPOINT} bytes"
    if endpoint.startswith("ipc://"):
        path = endpoint[6:]
        return None if path and path.isprintable() and "*" not in path else "not a socket path"
    match = _TCP.fullmatch(endpoint)
    if match is None:
        return "an endpoint is tcp://host:port or ipc://path"
    if not 0 < int(match[3]) < 65536:
        return "a port is 1 to 65535"
    if match[1] is not None:
        try:
            ipaddress.IPv6Address(match[1])
        except ValueError:
            return "not an IPv6 address"
    return None


def _uint(value: object) -> str | None:
    return None if type(value) is int and 0 <= value < _UINT64 else "not an unsigned 64-bit number"


def _sized(size: int) -> Callable[[object], str | None]:
    return lambda value: None if type(value) is bytes and len(value) == size else f"not {size} bytes"


def _roles(value: object) -> str | None:
    if type(value) is not list or len(value) > MAX_ROLES:
        return f"not a list of at most {MAX_ROLES} roles"
    if len(set(map(str, value))) != len(value):
        return "a role stands there twice"
    return next(filter(None, map(check_role, value)), None)


def _addresses(value: object) -> str | None:
    if type(value) is not list or len(value) > MAX_ADDRESSES:
        return f"not a list of at most {MAX_ADDRESSES} addresses"
    for address in value:
        if type(address) is not list or len(address) != 3:
            return "an address is three endpoints"
        wrong = next(filter(None, map(check_endpoint, address)), None)
        if wrong is not None:
            return wrong
    return None


def _versions(value: object) -> str | None:
    if type(value) is list and len(value) == 2 and not any(map(_uint, value)) and value[0] <= value[1]:
        return None
    return "not a range of versions"


def _member_ids(value: object) -> str | None:
    # One byte string instead of a list: 16 bytes a member, and nothing to decode.
    if type(value) is not bytes or len(value) % 16 or len(value) > 16 * MAX_REVOKED:
        return f"not at most {MAX_REVOKED} member ids"
    return None


Forms = dict[str, Callable[[object], str | None]]

CERTIFICATE: Final[Forms] = {
    "mesh": _sized(16),
    "key": _sized(32),
    "name": check_name,
    "roles": _roles,
    "from": _uint,
    "until": _uint,
    "serial": _uint,
}

RECORD: Final[Forms] = {
    "mesh": _sized(16),
    "link": _sized(32),
    "name": check_name,
    "life": _uint,
    "version": _uint,
    "addresses": _addresses,
    "from": _uint,
    "until": _uint,
    "speaks": _versions,
}

REVOCATIONS: Final[Forms] = {
    "mesh": _sized(16),
    "version": _uint,
    "members": _member_ids,
    "epoch": _uint,
    "secret": _sized(32),
}


def what_is_wrong(fields: dict[str, Any], forms: Forms) -> str | None:
    """What is wrong with the map, or None."""
    if type(fields.get("v")) is not int or fields["v"] != FORMAT:
        return "a format that I do not know"
    for name, check in forms.items():
        wrong = check(fields.get(name))
        if wrong is not None:
            return f"{name}: {wrong}"
    if "until" in forms and fields["from"] >= fields["until"]:
        return "until: not after its beginning"
    return None
