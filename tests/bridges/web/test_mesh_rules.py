"""A client may do what its token allows, and what the mesh's rules allow its gateway: no more."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import trio

import mesh
from tests.bridges.web.clients import PATIENCE, Book, client, web
from tests.node.meshes import serving, take
from tests.node.test_rules import both

ALL = Book(all=("publish:**", "subscribe:**", "request:**"))
BEARER = {"Authorization": "Bearer all"}


async def test_what_a_rule_denies_no_token_allows(tmp_path: Path) -> None:
    """The rules are kitchen's: only hr may publish on and subscribe to payroll, only kitchen may request door/open."""

    async def open_door(_: mesh.Request) -> str:
        return "open"

    async with both(tmp_path) as (kitchen, cellar), web(kitchen, ALL) as here, web(cellar, ALL) as there:
        for op, fields in (
            ("publish", {"topic": "payroll/june", "value": 1}),
            ("subscribe", {"pattern": "payroll/*"}),
        ):
            async with client(here, token="all") as it:
                error = await it.ask(op, "error", id=1, **fields)
                assert error["error"] == "NotAuthorized"
                assert "allow[1]" in error["message"]
                assert await it.closed() == 4403
        body: dict[str, Any] = {"topic": "payroll/june", "value": 1}
        answer = await here.ask("POST", "/api/v1/publish", body, BEARER)
        assert (answer.status, answer.problem) == (403, "NotAuthorized")
        answer = await here.ask("GET", "/api/v1/subscribe?pattern=payroll/*", headers=BEARER)
        assert (answer.status, answer.problem) == (403, "NotAuthorized")
        assert here.rejected["not_allowed"] == 4

        # A rule of another node, at which the request arrives.
        async with serving(kitchen, "door/*", open_door):
            async with client(there, token="all") as it:
                request = {"timeout": PATIENCE}
                reply = await it.ask("request", "reply", id=1, topic="door/ring", **request)
                assert reply["value"] == "open"
                error = await it.ask("request", "error", id=2, topic="door/open", **request)
                assert (error["error"], "kitchen: allow[2]" in error["message"]) == ("NotAuthorized", True)
                assert await it.closed() == 4403
            body = {"topic": "door/open", "timeout": PATIENCE}
            answer = await there.ask("POST", "/api/v1/request", body, BEARER)
            assert (answer.status, answer.problem) == (403, "NotAuthorized")

        # Whom the rule allows, it allows through a gateway too.
        async with cellar.subscribe("payroll/*") as payroll, client(there, token="all") as it:
            await it.ask("publish", "published", id=1, topic="payroll/june", value=7)
            assert (await take(payroll, 1))[0].value == 7


async def test_who_may_not_read_hears_nothing_through_a_gateway(tmp_path: Path) -> None:
    """kitchen listens to everything: what is for hr is not in it."""
    async with (
        both(tmp_path) as (kitchen, cellar),
        web(kitchen, ALL) as here,
        client(here, token="all") as it,
        cellar.publisher("payroll/june") as payroll,
        cellar.publisher("lobby") as lobby,
    ):
        await it.ask("subscribe", "subscribed", id=1, pattern="**")
        with trio.fail_after(PATIENCE):
            await lobby.wait_for_subscribers(1)
        await payroll.publish("secret")
        await lobby.publish("open")
        assert (await it.hear("message"))["topic"] == "lobby"
        assert "payroll" not in str(it.heard)
