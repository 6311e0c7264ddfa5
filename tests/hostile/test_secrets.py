"""Nothing secret stands in a log, in an error or on the wire."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

import mesh
from mesh.core.codec import encode_direct
from mesh.core.messages import PingMessage
from mesh.core.token import encode_token
from mesh.home import Home
from tests.hostile.actor import CANARY
from tests.hostile.stage import WITHIN, member
from tests.lab import Lan
from tests.node.meshes import CALM


def secrets_of(home: Home) -> dict[str, bytes]:
    mine = home.credentials()
    ca = home._folder.read("ca.json")
    assert ca is not None
    return {"member key": mine.key.seed, "mesh secret": mine.secret, "CA key": bytes.fromhex(ca["seed"])}


async def test_no_secret_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    home = Home(tmp_path / "home")
    home.init("orchard", "kitchen")
    token = encode_token(home.invite(endpoints=("tcp://127.0.0.1:9",)))
    member(home, tmp_path, "cellar")
    options: dict[str, object] = {"listen": ["tcp://127.0.0.1:0"], "discovery": (), "config": CALM}
    async with (
        mesh.open_node("a", home=home.path, **options) as a,  # type: ignore[arg-type]
        mesh.open_node("b", home=tmp_path / "cellar", connect=a.endpoints, **options) as b,  # type: ignore[arg-type]
    ):
        with trio.fail_after(WITHIN):
            await b.wait_for_peers(1)
            async with b.subscribe("**") as messages:
                await a.publish("topic", CANARY, headers={"header": CANARY})
                await anext(messages)
        # Everything that is worth a warning, of a peer and of strangers.
        session = next(iter(a._engine.links.sessions.values()))
        for frame in (CANARY.encode(), encode_direct(PingMessage(1, 1 << 40, bytes(16)))):
            a._pump.direct_received(session.node, [frame] * 12)
        a._pump.broadcast_received([(b"D", CANARY.encode() * 4)])
        revoked = home.revoke(Home(tmp_path / "cellar").credentials().key.member_id)
        a.credentials.adopt_revocations(revoked.revocations_bytes, revoked.secret)
        keys = {
            "sealing chain": a._engine.broadcast.announcement().chain,
            "token": a._engine.broadcast.token,
        }
    said = caplog.text + repr(a) + repr(home.credentials()) + repr(a._board.engine.record)
    assert "cut off" in said
    for name, secret in {**secrets_of(home), **keys}.items():
        for shown in (secret.hex(), repr(secret), str(list(secret))):
            assert shown not in said, name
    assert token not in said
    assert CANARY not in said


SNIFFER = """
import socket, sys
raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
print("sniffing", flush=True)
with open(sys.argv[1], "wb", buffering=0) as file:
    while True:
        file.write(raw.recv(65536))
"""

TALK = """
import sys, trio, mesh
from pathlib import Path

async def main(name, home, seed):
    async with mesh.open_node(name, home=home, connect=[seed] if seed else [], listen=["tcp://*:7400"]) as node:
        async def echo(request): return request.value
        async with trio.open_nursery() as nursery, node.subscribe("canarytopic/**") as messages:
            await nursery.start(lambda task_status: node.serve("canaryservice", echo, task_status=task_status))
            print("ready", flush=True)
            await node.wait_for_peers(1)
            with trio.fail_after(60):
                await node.publisher("canarytopic/x").wait_for_subscribers(2)
            for _ in range(20):
                await node.publish("canarytopic/x", "canarypayload" * 10, headers={"canaryheader": "canaryheader"})
                assert await node.request("canaryservice", "canaryrequest" * 10, timeout=30) is not None
                async for message in messages:
                    if message.sender.name != name:
                        break
            print("done", flush=True)
            await trio.sleep_forever()

trio.run(main, *sys.argv[1:])
"""


async def test_nothing_in_clear_on_the_wire(lan: Callable[..., Lan], tmp_path: Path) -> None:
    """Two hosts, everything between them recorded and searched."""
    kitchen, cellar = lan(2)
    home = Home(tmp_path / "kitchen")
    home.init("canarymesh", "canarymember-one")
    member(home, tmp_path, "canarymember-two")
    captured = tmp_path / "captured"
    python = [sys.executable, "-c"]
    async with kitchen.running([*python, SNIFFER, str(captured)]) as sniffer:
        await sniffer.expect("sniffing", within=30)
        async with (
            kitchen.running([*python, TALK, "canarynode-one", str(home.path), ""]) as first,
            cellar.running(
                [*python, TALK, "canarynode-two", str(tmp_path / "canarymember-two"), ""]
            ) as second,
        ):
            for each in (first, second):
                await each.expect("done", within=90)
    seen = captured.read_bytes()
    assert len(seen) > 20_000
    assert b"CURVE" in seen  # so the recording has what passed
    for canary in (
        b"canary",
        json.dumps("canary").encode(),
        "canary".encode("utf-16-le"),
        home.credentials().mesh,
    ):
        assert canary not in seen
