"""The newcomer's story on two hosts of one LAN, and what the doctor says when the LAN is not as it should be."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

from tests.lab import Host, Lan, Running

MakeLan = Callable[..., Lan]


def on(host: Host, home: Path, *words: str) -> AbstractAsyncContextManager[Running]:
    """The command on a host, with a home of that host's own."""
    return host.running(
        [sys.executable, "-m", "mesh.cli.main", *words], env={"MESH_HOME": str(home)}, measured=True
    )


async def ask(host: Host, home: Path, *words: str, code: int = 0) -> list[str]:
    async with on(host, home, *words) as program:
        await program.close_stdin()
        assert await program.wait(within=60) == code, program.report()
        return program.stdout


async def test_two_machines_in_a_minute(lan: MakeLan, tmp_path: Path) -> None:
    kitchen, cellar = lan(2)
    here, there = tmp_path / "kitchen", tmp_path / "cellar"
    await ask(kitchen, here, "init", "home", "--name", "kitchen")
    async with on(kitchen, here, "daemon") as daemon:
        await daemon.expect("^ready kitchen ", within=30)
        [token] = await ask(kitchen, here, "invite")
        await ask(cellar, there, "join", token, "--name", "cellar")
        async with on(cellar, there, "daemon") as second:
            await second.expect("^ready cellar ", within=30)
            async with on(cellar, there, "sub", "home/**", "--json", "--count", "1") as sub:
                await sub.expect("^live: ", on="stderr", within=30)
                await ask(kitchen, here, "pub", "home/kitchen/temperature", "21.5", "--name", "thermometer")
                assert await sub.wait(within=30) == 0
                message = json.loads(sub.stdout[0])
                assert (message["value"], message["sender"]) == (21.5, "thermometer")
            assert {peer["name"] for peer in await peers(kitchen, here)} == {"cellar"}
            assert {peer["name"] for peer in await peers(cellar, there)} == {"kitchen"}
            await ask(kitchen, here, "ping", "cellar", "--count", "1")
            findings = await doctor(cellar, there)
            assert not [check for check in findings if check["verdict"] == "fail"], findings
            assert any(check["check"] == "peers" and "kitchen" in check["text"] for check in findings)


async def peers(host: Host, home: Path) -> list[dict[str, Any]]:
    return json.loads("\n".join(await ask(host, home, "peers", "--json")))  # type: ignore[no-any-return]


async def doctor(host: Host, home: Path, code: int = 0) -> list[dict[str, Any]]:
    return json.loads("\n".join(await ask(host, home, "doctor", "--json", code=code)))  # type: ignore[no-any-return]


async def test_the_doctor_names_a_cable_that_is_out(lan: MakeLan, tmp_path: Path) -> None:
    [host] = lan(1)
    await ask(host, tmp_path, "init")
    host.link_down()
    findings = await doctor(host, tmp_path, code=1)
    [failed] = [check for check in findings if check["verdict"] == "fail" and check["check"] == "interface"]
    assert "only programs on this machine can be reached" in failed["text"]


async def test_the_doctor_names_a_port_that_is_closed(lan: MakeLan, tmp_path: Path) -> None:
    kitchen, cellar = lan(2)
    here, there = tmp_path / "kitchen", tmp_path / "cellar"
    await ask(kitchen, here, "init")
    async with on(kitchen, here, "daemon") as daemon:
        await daemon.expect("^ready ", within=30)
        [token] = await ask(kitchen, here, "invite")
        await ask(cellar, there, "join", token)
        # Multicast passes, what is meant for this host alone is lost: as a firewall does it.
        cellar.lose_towards(kitchen)
        kitchen.lose_towards(cellar)
        findings = await doctor(cellar, there, code=1)
    closed = [check for check in findings if check["check"] == "port" and check["verdict"] == "fail"]
    assert closed, findings
    assert f"tcp://{kitchen.ipv4}:7400" in closed[0]["text"]
    assert "firewall" in closed[0]["advice"]


async def test_the_demo_where_there_is_no_network(lan: MakeLan, tmp_path: Path) -> None:
    [host] = lan(1)
    host.link_down()
    *_, summary = await ask(host, tmp_path, "demo", "--seconds", "2")
    assert summary.startswith("demo: 3 nodes found by ")
