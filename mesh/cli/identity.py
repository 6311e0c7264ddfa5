"""``init``, ``invite``, ``join``, ``id``: how a machine becomes a member, and who this one is."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mesh.cli.administration import ask_holder
from mesh.cli.base import (
    HomeOption,
    JsonOption,
    VerboseOption,
    at_home,
    guarded,
    home_settings,
    run,
    set_up_logging,
    usage,
)
from mesh.cli.ca import ready_ca
from mesh.cli.output import json_line, say, write
from mesh.cli.passphrase import PassphraseFile

if TYPE_CHECKING:
    from mesh.core.token import Invitation
    from mesh.home import Home

__all__ = ["date", "duration", "register"]


def register(app: typer.Typer) -> None:
    app.command("init")(guarded(init))
    app.command("invite")(guarded(invite))
    app.command("join")(guarded(join))
    app.command("id")(guarded(identity))


MemberName = Annotated[
    str | None,
    typer.Option("--name", metavar="NAME", help="This member's name (else the host's).", show_default=False),
]


def _checked(name: str | None, what: str) -> str | None:
    from mesh.core.fields import check_name

    wrong = None if name is None else check_name(name)
    if wrong:
        usage(f"{what} {name!r}: {wrong}")
    return name


# -- init and id ------------------------------------------------------------------------------


def init(
    mesh: Annotated[
        str | None,
        typer.Argument(metavar="[MESH]", help="The mesh's name (else the host's).", show_default=False),
    ] = None,
    name: MemberName = None,
    home: HomeOption = None,
    verbose: VerboseOption = 0,
) -> int:
    """Make this machine's identity and a new mesh.

    This machine is its first member. The mesh's CA key stays in this home: only here can others be invited.

    \b
    Examples:
      mesh init home
      mesh init workshop --name kitchen
    """
    set_up_logging(verbose)
    where = at_home(home)
    made = where.init(_checked(mesh, "MESH"), _checked(name, "--name"))
    write(f"mesh {made.mesh_name} is made, and {made.certificate.name} is its first member ({where.path})\n")
    say("next: mesh daemon, and mesh invite for each machine that shall join")
    return 0


def identity(json: JsonOption = False, home: HomeOption = None, verbose: VerboseOption = 0) -> int:
    """Say who this machine is.

    \b
    Examples:
      mesh id
      mesh id --json | jq -r .fingerprint
    """
    set_up_logging(verbose)
    mine = at_home(home).credentials(create=False)
    certificate = mine.certificate
    fields = {
        "mesh": mine.mesh_name,
        "member": certificate.name,
        "fingerprint": certificate.member.hex(),
        "roles": list(certificate.roles),
        "expires": certificate.expires,
    }
    if json:
        write(json_line(fields))
        return 0
    state = " (expired)" if certificate.expires < time.time() else ""
    shown = {
        **fields,
        "mesh": f"{mine.mesh_name} ({mine.mesh.hex()})",
        "roles": ", ".join(certificate.roles) or "-",
        "expires": date(certificate.expires) + state,
    }
    write("".join(f"{key.ljust(12)} {value}\n" for key, value in shown.items()))
    return 0


def date(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")


# -- invite -----------------------------------------------------------------------------------

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def duration(text: str) -> float:
    """``90s``, ``15m``, ``1h``, ``2d`` or plain seconds → seconds."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", text.strip())
    if found is None or float(found[1]) <= 0:
        usage(f"--expires {text}: expected a time such as 90s, 15m, 1h or 2d")
    return float(found[1]) * _UNITS[found[2] or "s"]


def invite(
    uses: Annotated[int, typer.Option("--uses", metavar="N", min=1, help="How many may join with it.")] = 1,
    expires: Annotated[
        str, typer.Option("--expires", metavar="TIME", help="How long it lives: 15m, 1h, 2d.")
    ] = "1h",
    role: Annotated[
        list[str] | None,
        typer.Option(
            "--role",
            metavar="ROLE",
            help="A role for whoever joins (may be repeated): [[allow]] names it.",
            show_default=False,
        ),
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="Without a daemon: stay, and let newcomers in until it is used up.")
    ] = False,
    passphrase_file: PassphraseFile = None,
    home: HomeOption = None,
    verbose: VerboseOption = 0,
) -> int:
    """Print a token with which another machine can join. Treat it as a password.

    Whoever joins talks to the daemon of this home; without one, --wait lets them in. A member who does not hold the CA
    key asks the machine that does, if its rules allow that.

    \b
    Examples:
      mesh invite
      mesh invite --uses 3 --expires 2d
      mesh invite --role sensor
    """
    set_up_logging(verbose)
    lifetime = duration(expires)
    where = at_home(home)
    where.credentials(create=False)
    if not where.is_ca and not wait:
        write(
            ask_holder(where, "invite", uses=uses, lifetime=lifetime, roles=list(role or ()))["token"] + "\n"
        )
        return 0
    if wait:
        ready_ca(where, passphrase_file)
    return run(lambda: _invite(where, uses, lifetime, tuple(role or ()), wait))


async def _invite(home: Home, uses: int, lifetime: float, roles: tuple[str, ...], wait: bool) -> None:
    from mesh.core.token import encode_token
    from mesh.daemon.control import DaemonError, NoDaemon, ask
    from mesh.daemon.operations import control_socket, hints

    try:
        answer = await ask(
            home.path, control_socket(home), "invite", uses=uses, lifetime=lifetime, roles=list(roles)
        )
    except NoDaemon:
        pass
    except DaemonError as error:
        if error.type_name != "CaLocked" or not wait:
            raise
    else:
        write(answer["token"] + "\n")
        return
    if wait:
        await _let_in(home, uses, lifetime, roles)
        return
    listen = home_settings(home).node.listen or ("tcp://*:7400",)
    invitation = home.invite(uses=uses, lifetime=lifetime, roles=roles, endpoints=hints(_expected(listen)))
    write(encode_token(invitation) + "\n")
    locked = " with the CA key's passphrase" if home.custodian.locked else ""
    say(
        f"no daemon runs here: start `mesh daemon`{locked} before the token is used (or use mesh invite --wait)"
    )


def _expected(listen: tuple[str, ...]) -> tuple[str, ...]:
    """Where a daemon that is started later will be reached, as far as that is known now."""
    from mesh.core.types import Address
    from mesh.discovery.interfaces import advertised

    fixed = [each for each in listen if each.startswith("tcp://") and not each.endswith((":0", ":*"))]
    return tuple(address.intro for address in advertised(tuple(Address(each, each, each) for each in fixed)))


async def _let_in(home: Home, uses: int, lifetime: float, roles: tuple[str, ...]) -> None:
    """Be the inviter until the invitation is used up or has expired."""
    import trio

    from mesh.cli.nodes import joined
    from mesh.core.join import invitation_id
    from mesh.core.token import encode_token
    from mesh.daemon.operations import hints
    from mesh.errors import CredentialError
    from mesh.home import Admission

    async with joined(home.path) as node:
        invitation = home.invite(uses=uses, lifetime=lifetime, roles=roles, endpoints=hints(node.endpoints))
        used = trio.Event()
        admission = Admission(home, home.credentials(create=False).ca_public_key)
        node.answer_joins(_Counting(admission, invitation_id(invitation.secret), home, used))
        write(encode_token(invitation) + "\n")
        say("waiting for it to be used; Ctrl-C ends that")
        with trio.move_on_after(lifetime):
            await used.wait()
            # The grant is on its way: leaving drains it.
            await trio.sleep(0.2)
            return
        raise CredentialError("nobody joined before the invitation expired")


class _Counting:
    """Answers as ``Admission`` does, and notices when the invitation is used up."""

    def __init__(self, admission: Any, invitation: bytes, home: Home, used: Any) -> None:
        self._admission = admission
        self._invitation = invitation
        self._home = home
        self._used = used

    def answer(self, route: int, message: Any, now: float) -> Any:
        answer = self._admission.answer(route, message, now)
        found = self._home.find_invitation(self._invitation)
        if found is None or found.uses <= 0 or found.attempts <= 0:
            self._used.set()
        return answer


# -- join -------------------------------------------------------------------------------------


def join(
    token: Annotated[
        str, typer.Argument(metavar="TOKEN", help="What mesh invite printed.", show_default=False)
    ],
    name: MemberName = None,
    connect: Annotated[
        list[str] | None,
        typer.Option(
            "--connect", metavar="ENDPOINT", help="Ask there too (may be repeated).", show_default=False
        ),
    ] = None,
    timeout: Annotated[float, typer.Option("--timeout", metavar="S", min=0.1, help="Seconds to wait.")] = 6.0,
    home: HomeOption = None,
    verbose: VerboseOption = 0,
) -> int:
    """Become a member of the mesh that a token invites to.

    \b
    Examples:
      mesh join 0G3K5R-...-7M
      mesh join 0G3K5R-...-7M --name cellar
    """
    set_up_logging(verbose)
    from mesh.core.token import decode_token
    from mesh.home.home import host_name

    where = at_home(home)
    invitation = decode_token(token)
    called = _checked(name, "--name") or host_name()
    _check_free(where, invitation)
    return run(lambda: _join(where, invitation, called, connect or [], timeout))


def _check_free(home: Home, invitation: Invitation) -> None:
    """Refuse before the token is spent. To join its own mesh again is to get a new certificate."""
    from mesh.errors import CredentialError

    try:
        mine = home.credentials(create=False)
    except CredentialError:
        # No membership yet; a home that cannot be used at all says so in the next line.
        home.check_can_join()
        return
    home.check_can_join(mine.ca_public_key if mine.mesh == invitation.mesh else b"")


async def _join(home: Home, invitation: Invitation, name: str, connect: list[str], timeout: float) -> None:
    import dataclasses

    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    from mesh.config import Config
    from mesh.core.keys import beacon_key
    from mesh.discovery.factory import create
    from mesh.discovery.seeds import parse_seed
    from mesh.node.joining import join as redeem
    from mesh.transport.base import LinkKey
    from mesh.transport.zmqtransport import ZmqTransport

    invitation = dataclasses.replace(invitation, endpoints=(*invitation.endpoints, *map(parse_seed, connect)))
    config = Config.lan()
    secret = X25519PrivateKey.generate()
    link = LinkKey(secret.public_key().public_bytes_raw(), secret.private_bytes_raw())
    # Nobody dials a newcomer: it listens on loopback only because a transport listens somewhere.
    transport = ZmqTransport(("tcp://127.0.0.1:0",), link, invitation.mesh, config)
    scout = create(
        [each for each in home_settings(home).node.discovery if each == "scout"],
        beacon_key=beacon_key(invitation.mesh),
        limits=config.limits,
    )
    key = home.new_key()
    joined = await redeem(invitation, key, name, transport, scout, patience=timeout)
    mine = home.store_grant(key, joined)
    write(f"{mine.certificate.name} is now a member of mesh {mine.mesh_name}\n")
    say("next: mesh daemon")
