"""What ``mesh doctor`` looks at on this machine: software, credentials, clock, interfaces, multicast, daemon.

Each check is a function that gives ``Check``s: a verdict, what was found, and what to do about it.  None
changes anything.  What needs other machines to answer stands in ``checks_mesh``.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Literal

import trio
import zmq

import mesh
from mesh.core.identity import CLOCK_TOLERANCE
from mesh.core.types import PROTOCOL_VERSIONS, NodeId, RemoteProtocolError
from mesh.daemon.control import DaemonError, NoDaemon, ask
from mesh.daemon.operations import control_socket
from mesh.discovery import interfaces
from mesh.discovery.beacon import BEACON_BYTES, Beacon, Kind, decode, encode
from mesh.discovery.endpoints import is_local, split_tcp
from mesh.discovery.interfaces import Interface
from mesh.discovery.multicast import Multicast
from mesh.discovery.scout import SCOUT_PORT
from mesh.errors import TransportError

if TYPE_CHECKING:
    from mesh.home import Credentials, Home

__all__ = ["Check", "daemon", "membership", "multicast", "network", "software"]

Verdict = Literal["ok", "warn", "fail"]

EXPIRES_SOON: Final = 14 * 86400  # seconds; time enough to invite a machine again
ECHO: Final = 0.5  # seconds for a datagram to come back on the same machine
CONNECT: Final = 1.0  # seconds for a TCP connection to this machine itself


@dataclass(frozen=True, slots=True)
class Check:
    """One finding. ``advice`` says what to do; empty where nothing is to be done."""

    check: str
    verdict: Verdict
    text: str
    advice: str = ""


def software() -> Iterator[Check]:
    """Versions, and whether libzmq can encrypt."""
    low, high = PROTOCOL_VERSIONS
    yield Check(
        "software",
        "ok",
        f"zeromesh {mesh.__version__}, protocol {low}-{high}, Python {platform.python_version()}, "
        f"pyzmq {zmq.pyzmq_version()}, libzmq {zmq.zmq_version()}",
    )
    if not zmq.has("curve"):
        yield Check(
            "software",
            "fail",
            "this libzmq has no CURVE, so no link can be encrypted",
            "install pyzmq from its wheels: pip install --force-reinstall --only-binary :all: pyzmq",
        )


def membership(home: Home, credentials: Credentials | None, now: float | None = None) -> Iterator[Check]:
    """Credential present, valid at this time, not revoked."""
    if credentials is None:
        yield Check(
            "credential",
            "fail",
            f"{home.path} holds no identity: this machine is a member of no mesh",
            "mesh join TOKEN to become a member of a mesh, or mesh init to begin one",
        )
        return
    now = time.time() if now is None else now
    certificate = credentials.certificate
    who = f"{certificate.name}, member of mesh {credentials.mesh_name} ({credentials.mesh.hex()})"
    again = "ask for a new invitation (mesh invite, where the mesh was made) and mesh join again"
    if credentials.revocations is not None and certificate.member in credentials.revocations.members:
        yield Check("credential", "fail", f"{who}: this membership has been revoked", again)
    elif now + CLOCK_TOLERANCE < certificate.not_before:
        yield Check(
            "clock",
            "fail",
            f"this machine's clock says {_date(now)}, before its certificate begins ({_date(certificate.not_before)})",
            "set the clock (timedatectl set-ntp true)",
        )
    elif now > certificate.expires:
        yield Check(
            "credential",
            "fail",
            f"{who}: the certificate expired on {_date(certificate.expires)} (the clock says {_date(now)})",
            f"if the clock is right, {again}",
        )
    elif now + EXPIRES_SOON > certificate.expires:
        yield Check(
            "credential", "warn", f"{who}: the certificate expires on {_date(certificate.expires)}", again
        )
    else:
        yield Check("credential", "ok", f"{who}, certificate until {_date(certificate.expires)}")
    if credentials.made_here:
        yield Check(
            "mesh",
            "warn",
            "this mesh was made for this machine alone, by first use: no other machine is in it",
            "mesh invite here and mesh join TOKEN there, or the other way round",
        )


def _date(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")


def network(found: tuple[Interface, ...] | None = None) -> Iterator[Check]:
    """Interfaces that are up, and addresses that another machine could dial."""
    found = interfaces.usable() if found is None else found
    outside = [each for each in found if not each.loopback]
    for each in outside:
        addresses = ", ".join(map(str, each.addresses))
        if addresses:
            yield Check("interface", "ok", f"{each.name}: {addresses}")
        else:
            yield Check(
                "interface",
                "warn",
                f"{each.name} is up, but has no address that another machine could dial",
                "wait for DHCP, or give it an address",
            )
    if not any(each.addresses for each in outside):
        yield Check(
            "interface",
            "fail",
            "no network interface with an address is up: only programs on this machine can be reached",
            "connect a cable or Wi-Fi; in a container, use the host's network",
        )


async def multicast(beacon_key: bytes, found: tuple[Interface, ...] | None = None) -> list[Check]:
    """Send the scout's question out of each interface and see whether it comes back to this machine."""
    found = interfaces.usable() if found is None else found
    outside = [each for each in found if not each.loopback] or list(found)
    checks = []
    for version in (4, 6):
        with_family = [each for each in outside if (each.ipv4 if version == 4 else each.ipv6)]
        if with_family:
            checks.append(await _echoes(version, with_family, found, beacon_key))
    if all(check.verdict == "fail" for check in checks):
        return checks
    # One family is enough: what the other lacks is worth knowing, and no failure.
    return [
        Check(each.check, "warn", each.text, each.advice) if each.verdict == "fail" else each
        for each in checks
    ]


async def _echoes(version: int, wanted: list[Interface], all_: tuple[Interface, ...], key: bytes) -> Check:
    name = f"multicast IPv{version}"
    advice = (
        f"let UDP port {SCOUT_PORT} and 5353 through the firewall; where multicast is not to be had (VPN, "
        'container, guest Wi-Fi), name one peer: connect = ["tcp://HOST:7400"] in mesh.toml'
    )
    try:
        group = Multicast.open(version, SCOUT_PORT)
    except OSError as error:
        return Check(name, "fail", f"no socket on UDP port {SCOUT_PORT}: {error.strerror or error}", advice)
    try:
        group.join(all_)
        sent, refused = {}, {}
        for each in wanted:
            node = NodeId(os.urandom(16))
            try:
                await group.send(encode(Beacon(node, ()), Kind.QUESTION, key), each)
            except OSError as error:
                refused[each.name] = error.strerror or str(error)
            else:
                sent[node] = each.name
        missing = dict(sent)
        with trio.move_on_after(ECHO):
            while missing:
                data, _ = await group.listener.recvfrom(BEACON_BYTES + 1)
                try:
                    missing.pop(decode(data, key)[1].node, None)
                except RemoteProtocolError:
                    continue
    finally:
        group.close()
    back = sorted(set(sent.values()) - set(missing.values()))
    problems = [f"{who}: cannot be sent ({why})" for who, why in refused.items()]
    problems += [f"{who}: sent, and did not come back" for who in missing.values()]
    if not back:
        return Check(name, "fail", "; ".join(problems), advice)
    if problems:
        return Check(name, "warn", f"comes back on {', '.join(back)}; {'; '.join(problems)}", advice)
    return Check(
        name, "ok", f"comes back on {', '.join(back)} (which says nothing yet of the other machines)"
    )


_DENIALS: Final = 5  # the latest: one line each


async def daemon(home: Home) -> tuple[list[Check], dict[str, Any] | None]:
    """Whether a daemon runs here, answers, and has its ports open as seen from this machine."""
    try:
        status: dict[str, Any] = await ask(home.path, control_socket(home), "status", patience=3.0)
    except NoDaemon:
        return [
            Check(
                "daemon",
                "warn",
                "no daemon runs here: this machine is in the mesh only while a program is, and nobody can join here",
                "mesh daemon",
            )
        ], None
    except (DaemonError, TransportError) as error:
        return [
            Check("daemon", "fail", f"the daemon does not answer: {error}", "stop it and start it again")
        ], None
    endpoints = [each for each in status["endpoints"] if each.startswith("tcp://")]
    checks = [
        Check(
            "daemon",
            "ok",
            f"{status['name']} runs (process {status['pid']}), with {len(status['peers'])} peers",
        )
    ]
    if not any(not is_local(each) for each in endpoints):
        checks.append(
            Check(
                "daemon",
                "fail",
                f"the daemon listens where only this machine can reach it: {', '.join(status['endpoints'])}",
                'listen = ["tcp://*:7400"] in mesh.toml',
            )
        )
    for endpoint in endpoints:
        reason = await _refused(endpoint)
        if reason:
            checks.append(
                Check(
                    "port",
                    "fail",
                    f"{endpoint} cannot be reached from this machine itself: {reason}",
                    _PORT_ADVICE,
                )
            )
    if endpoints and not any(check.check == "port" for check in checks):
        ports = sorted({split_tcp(each)[1] for each in endpoints if split_tcp(each)})  # type: ignore[index]
        checks.append(
            Check(
                "port",
                "ok",
                f"open from this machine: {', '.join(endpoints)} (a firewall must let in "
                f"{', '.join(f'{port}-{port + 2}/tcp' for port in ports)})",
            )
        )
    for member, action, topic, rule in status["denials"][-_DENIALS:]:
        checks.append(
            Check(
                "rules",
                "warn",
                f"{member} may not {action} {topic!r}: {rule}",
                f"if it should, change that [[allow]] in {home.path / 'mesh.toml'}, or invite it again with the role",
            )
        )
    return checks, status


_PORT_ADVICE = "a firewall on this machine closes it: let in the port and the two that follow it"


async def _refused(endpoint: str) -> str:
    parts = split_tcp(endpoint)
    assert parts is not None
    try:
        with trio.fail_after(CONNECT):
            stream = await trio.open_tcp_stream(*parts)
    except trio.TooSlowError:
        return "no answer"
    except OSError as error:
        return error.strerror or str(error)
    await stream.aclose()
    return ""
