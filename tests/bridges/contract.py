"""What every bridge must do, whatever its broker: one suite, run against the broker in memory and the real ones.

A broker's test file has a fixture ``broker`` that gives its ``Harness``, and ``class TestMyBroker(BridgeContract)``:
nothing more is needed.  The harness' own clients are independent of the bridge's: what they see is what anybody would.
"""

from __future__ import annotations

import json
import logging
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import trio

import mesh
from bridges.base import BrokerRejected, BrokerUnavailable, Kind
from bridges.bridge import Bridge, check_bridge, open_bridge
from bridges.counters import BridgeStatistics, RouteStatistics
from tests.node.meshes import CALM, MemoryMeshes

PATIENCE = 60.0
"""Seconds within which everything must have happened; brokers start slowly on a busy machine."""

CANARY = "canary-5tr4wb3rry"
"""A password that must be seen nowhere."""


@dataclass
class Seen:
    """A message as somebody at the broker sees it. ``headers`` have content type and message id among them, by the
    names of ``bridges.messages``, wherever the broker carries them."""

    destination: str
    data: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


class Observer(ABC):
    """Somebody at the broker who reads what a bridge exports."""

    def __init__(self) -> None:
        self.seen: list[Seen] = []

    @abstractmethod
    async def more(self) -> None:
        """Wait for a message or more, and put them at the end of ``seen``; survive the broker's restarts (of a
        reliable route nothing is missed). May come back with nothing."""

    async def until(self, enough: Callable[[list[Seen]], object]) -> list[Seen]:
        with trio.fail_after(PATIENCE):
            while not enough(self.seen):
                await self.more()
        return self.seen

    async def take(self, n: int) -> list[Seen]:
        return await self.until(lambda seen: len(seen) >= n)


class Harness(ABC):
    """One broker, as the tests handle it."""

    kind: Kind
    headers = True
    """Routes that are not reliable carry headers that an independent client can see."""
    remote = True
    """Bridges in other processes reach it."""

    @abstractmethod
    def table(self) -> dict[str, Any]:
        """``[[bridge]]`` without its routes: kind, url, options."""

    @abstractmethod
    def everything(self, prefix: str) -> str:
        """``from`` that takes ``prefix.`` and whatever follows, with one wildcard."""

    @abstractmethod
    def observe(self, prefix: str, *, reliable: bool) -> AbstractAsyncContextManager[Observer]:
        """Read destinations that begin with ``prefix.`` from now on (in the place where a route that is reliable,
        or is not, writes)."""

    @abstractmethod
    async def put(
        self, destination: str, data: bytes, headers: Mapping[str, str] | None = None, *, reliable: bool
    ) -> None:
        """Send as somebody at the broker, and return when the broker has it. Raises ``OSError`` while it is down."""

    @abstractmethod
    async def kill(self) -> None:
        """End the broker as a power cut would (SIGKILL)."""

    @abstractmethod
    async def restart(self) -> None:
        """Start it again, with what was on its disk; return when it takes connections."""

    async def dead_letters(self, destination: str) -> list[Seen] | None:
        """What was rejected on a reliable import from this destination; None if the broker has no place for it."""
        return None

    def wrong_credentials(self) -> dict[str, Any] | None:
        """``table`` with a password (``CANARY``) that the broker refuses; None if it asks for none."""
        return None

    def secure(self) -> dict[str, Any] | None:
        """``table`` over TLS, with the authority that vouches for the broker; None if it has no TLS here."""
        return None

    def reliable_export(self) -> dict[str, Any]:
        """Further keys that a reliable export needs here."""
        return {}

    def reliable_import(self) -> dict[str, Any]:
        """Further keys that a reliable import needs here."""
        return {}


_PREFIXES = (f"zm{number}" for number in count())


class Setting:
    """A mesh, a broker, and bridges between them."""

    def __init__(self, harness: Harness, folder: Path) -> None:
        self.harness = harness
        self.prefix = next(_PREFIXES)
        self._meshes = MemoryMeshes()
        self._folder = folder

    def nodes(self, n: int, *, config: mesh.Config = CALM) -> AbstractAsyncContextManager[list[mesh.Node]]:
        """Nodes that know each other."""
        return self._meshes.of(n, config=config)

    def export(self, **more: Any) -> dict[str, Any]:
        extra = self.harness.reliable_export() if more.get("reliable") else {}
        return {"pattern": f"{self.prefix}/**", "to": f"{self.prefix}.{{1}}", **extra, **more}

    def imported(self, **more: Any) -> dict[str, Any]:
        extra = self.harness.reliable_import() if more.get("reliable") else {}
        return {
            "from": self.harness.everything(f"{self.prefix}in"),
            "topic": f"{self.prefix}-in/{{1}}",
            **extra,
            **more,
        }

    def bridge(
        self,
        node: mesh.Node,
        *,
        export: dict[str, Any] | None = None,
        imported: dict[str, Any] | None = None,
        **more: Any,
    ) -> AbstractAsyncContextManager[Bridge]:
        table = {
            **self.harness.table(),
            **({} if export is None else {"export": [export]}),
            **({} if imported is None else {"import": [imported]}),
            **more,
        }
        return open_bridge(node, table, spool_folder=self._folder / node.name, kind=self.harness.kind)

    @asynccontextmanager
    async def leading(self, node: mesh.Node, **routes: Any) -> AsyncIterator[Bridge]:
        """A bridge that is connected and moves messages."""
        async with self.bridge(node, **routes) as bridge:
            with trio.fail_after(PATIENCE):
                await bridge.wait_live()
            yield bridge

    def observe(self, *, reliable: bool) -> AbstractAsyncContextManager[Observer]:
        return self.harness.observe(self.prefix, reliable=reliable)

    async def put(
        self, name: str, data: bytes, headers: Mapping[str, str] | None = None, *, reliable: bool
    ) -> None:
        await self.harness.put(f"{self.prefix}in.{name}", data, headers, reliable=reliable)


async def settled(bridge: Bridge, enough: Callable[[BridgeStatistics], object]) -> BridgeStatistics:
    """The statistics when they are so."""
    with trio.fail_after(PATIENCE):
        while not enough(bridge.statistics()):  # noqa: ASYNC110 - a snapshot, as a program would take it
            await trio.sleep(0.02)
    return bridge.statistics()


def route(statistics: BridgeStatistics) -> RouteStatistics:
    """The only route."""
    (only,) = statistics.routes
    return only


async def received(messages: mesh.Subscription, n: int) -> list[mesh.Message]:
    with trio.fail_after(PATIENCE):
        return [await anext(messages) for _ in range(n)]


def numbers(seen: list[Seen]) -> list[int]:
    return [json.loads(each.data) for each in seen]


@pytest.fixture
def setting(broker: Harness, tmp_path: Path) -> Setting:
    return Setting(broker, tmp_path)


BOTH = pytest.mark.parametrize("reliable", [False, True], ids=["plain", "reliable"])


class BridgeContract:
    """Inherit from it, with a fixture ``broker``."""

    # -- what crosses ----------------------------------------------------------------------

    @BOTH
    async def test_what_the_mesh_publishes_is_at_the_broker(self, setting: Setting, reliable: bool) -> None:
        async with (
            setting.nodes(2) as (here, there),
            setting.observe(reliable=reliable) as observer,
            setting.leading(here, export=setting.export(reliable=reliable, format="json")) as bridge,
        ):
            for number in range(50):
                await there.publish(f"{setting.prefix}/kitchen/light", number, headers={"unit": "lx"})
            seen = await observer.take(50)
            assert numbers(seen) == list(range(50))
            assert {each.destination for each in seen} == {f"{setting.prefix}.kitchen.light"}
            if reliable or setting.harness.headers:
                headers = seen[0].headers
                assert headers["unit"] == "lx"
                assert headers["mesh-topic"] == f"{setting.prefix}/kitchen/light"
                assert headers["mesh-path"] == bridge.identity
                assert headers["content-type"] == "application/json"
                assert len({each.headers["message-id"] for each in seen}) == 50
            statistics = await settled(
                bridge, lambda it: route(it).moved == 50 and not (it.spool and it.spool.messages)
            )
            assert statistics.state == "connected"
            assert here.statistics().bridges == {bridge.name: statistics}

    @BOTH
    async def test_what_the_broker_has_is_in_the_mesh(self, setting: Setting, reliable: bool) -> None:
        async with (
            setting.nodes(2) as (here, there),
            there.subscribe(f"{setting.prefix}-in/**") as messages,
            setting.leading(here, imported=setting.imported(reliable=reliable, format="json")) as bridge,
        ):
            trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
            for number in range(20):
                await setting.put(
                    "hall.door", json.dumps({"n": number}).encode(), {"traceparent": trace}, reliable=reliable
                )
            got = await received(messages, 20)
            assert [message.value for message in got] == [{"n": number} for number in range(20)]
            assert {message.topic for message in got} == {f"{setting.prefix}-in/hall/door"}
            assert got[0].headers["mesh-path"] == bridge.identity
            if reliable or setting.harness.headers:
                assert got[0].headers["traceparent"] == trace
            await settled(bridge, lambda it: route(it).moved == 20)

    @BOTH
    async def test_from_mesh_to_mesh_everything_is_as_it_was(self, setting: Setting, reliable: bool) -> None:
        """Two meshes over one broker: values, headers and ids of the first are those in the second."""
        async with (
            setting.nodes(1) as (here,),
            MemoryMeshes().open() as elsewhere,
            elsewhere.subscribe("from/**") as messages,
        ):
            export = setting.export(reliable=reliable)
            back = {**setting.imported(reliable=reliable), "topic": "from/{1}"}
            back["from"] = setting.harness.everything(setting.prefix)
            async with (
                setting.leading(elsewhere, imported=back) as second,
                setting.leading(here, export=export) as first,
            ):
                assert first.identity != second.identity
                values: list[Any] = [21.5, b"\x00\xff", {"a": [1, None]}, "text", b""]
                for value in values:
                    await here.publish(f"{setting.prefix}/x/y", value, headers={"k": "v"})
                got = await received(messages, len(values))
                assert [message.value for message in got] == values
                assert {message.topic for message in got} == {"from/x/y"}
                for message in got:
                    assert message.headers["k"] == "v"
                    assert message.headers["mesh-path"] == f"{first.identity},{second.identity}"
                    assert message.headers["mesh-topic"] == f"{setting.prefix}/x/y"

    @BOTH
    async def test_values_by_format(self, setting: Setting, reliable: bool) -> None:
        async with (
            setting.nodes(1) as (here,),
            setting.observe(reliable=reliable) as observer,
            setting.leading(here, export=setting.export(reliable=reliable, format="cbor")),
        ):
            await here.publish(f"{setting.prefix}/a", {"k": b"\x00"})
            await here.publish(f"{setting.prefix}/a", b"raw")
            seen = await observer.take(2)
            assert [mesh.decode_cbor(each.data) for each in seen] == [{"k": b"\x00"}, b"raw"]

    @BOTH
    async def test_values_that_stay_sealed(self, setting: Setting, reliable: bool) -> None:
        """The broker sees nothing of them; members of the mesh do, and nobody of another."""
        back = {**setting.imported(reliable=reliable), "topic": "from/{1}"}
        back["from"] = setting.harness.everything(setting.prefix)
        async with (
            setting.nodes(2) as (here, there),
            MemoryMeshes().open() as stranger,
            there.subscribe("from/**") as messages,
            setting.observe(reliable=reliable) as observer,
            setting.leading(stranger, imported=back) as strange,
            setting.leading(there, imported=back, name="back"),
            setting.leading(here, export=setting.export(reliable=reliable, decrypt=False)),
        ):
            stranger.vault.rekey(b"another mesh's secret".ljust(32), 1)  # meshes in memory have one secret
            await here.publish(f"{setting.prefix}/a", "hush")
            (seen,) = await observer.take(1)
            assert b"hush" not in seen.data
            assert there.vault.open(seen.data) == mesh.SealedValue(f"{setting.prefix}/a", "hush")
            if reliable or setting.harness.headers:
                assert seen.headers["content-type"] == "application/vnd.zeromesh.sealed"
            assert [message.value for message in await received(messages, 1)] == ["hush"]
            statistics = await settled(strange, lambda it: route(it).rejected)
            assert dict(route(statistics).rejected) == {"sealed": 1}

    # -- loops and duplicates --------------------------------------------------------------

    @BOTH
    async def test_a_loop_ends(self, setting: Setting, reliable: bool) -> None:
        """Two bridges of different names, each exporting and importing the same."""
        back = {**setting.imported(reliable=reliable), "topic": f"{setting.prefix}/{{1}}"}
        back["from"] = setting.harness.everything(setting.prefix)
        routes = {"export": setting.export(reliable=reliable), "imported": back}
        async with (
            setting.nodes(2) as (here, there),
            here.subscribe(f"{setting.prefix}/**") as messages,
            setting.leading(here, name="first", **routes) as first,
            setting.leading(there, name="second", **routes) as second,
        ):
            await here.publish(f"{setting.prefix}/ball", b"x")
            # Out by both, back by the other of each, and not a third time.
            got = await received(messages, 3)
            assert {message.headers.get("mesh-path", "") for message in got} == {
                "",
                f"{first.identity},{second.identity}",
                f"{second.identity},{first.identity}",
            }
            for bridge in (first, second):
                await settled(bridge, lambda it: it.routes[1].looped == 1 and it.routes[0].looped == 2)
                # The other may have it before the broker has confirmed it here.
                statistics = await settled(bridge, lambda it: all(each.moved for each in it.routes))
                assert [each.moved for each in statistics.routes] == [1, 1]
            with pytest.raises(trio.WouldBlock):
                messages.receive_nowait()

    async def test_duplicates_are_dropped(self, setting: Setting) -> None:
        async with (
            setting.nodes(1) as (here,),
            here.subscribe(f"{setting.prefix}-in/**") as messages,
            setting.leading(here, imported=setting.imported(reliable=True)) as bridge,
        ):
            for name in ("one", "one", "two"):
                await setting.put("a", name.encode(), {"message-id": name}, reliable=True)
            assert [message.value for message in await received(messages, 2)] == [b"one", b"two"]
            assert route(await settled(bridge, lambda it: route(it).duplicates)).duplicates == 1

    # -- bad input -------------------------------------------------------------------------

    async def test_poison_is_put_aside(self, setting: Setting, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.WARNING, logger="mesh")
        poison = [b"{", b"NaN", b"\xff\xfe"]
        async with (
            setting.nodes(1) as (here,),
            here.subscribe(f"{setting.prefix}-in/**") as messages,
            setting.leading(here, imported=setting.imported(reliable=True, format="json")) as bridge,
        ):
            for data in poison:
                await setting.put("a", data, reliable=True)
            await setting.put("a", b'"good"', reliable=True)
            assert [message.value for message in await received(messages, 1)] == ["good"]
            statistics = await settled(bridge, lambda it: route(it).rejected.get("not JSON") == 3)
            assert statistics.state == "connected"
            lines = [record for record in caplog.records if "rejected: not JSON" in record.getMessage()]
            assert len(lines) == 1
            assert f"bridge {bridge.name}: import[1]" in lines[0].getMessage()
            with trio.fail_after(PATIENCE):
                while (dead := await setting.harness.dead_letters(f"{setting.prefix}in.a")) is not None:
                    if len(dead) >= len(poison):
                        assert [each.data for each in dead] == poison
                        break
                    await trio.sleep(0.05)

    @BOTH
    async def test_what_cannot_cross_is_counted(self, setting: Setting, reliable: bool) -> None:
        async with (
            setting.nodes(1) as (here,),
            setting.observe(reliable=reliable) as observer,
            setting.leading(here, export=setting.export(reliable=reliable, format="json")) as bridge,
        ):
            await here.publish(f"{setting.prefix}/a", float("nan"))
            await here.publish(f"{setting.prefix}/a", "good")
            assert [each.data for each in await observer.take(1)] == [b'"good"']
            statistics = await settled(bridge, lambda it: route(it).moved == 1)
            assert dict(route(statistics).rejected) == {"not JSON": 1}

    @BOTH
    async def test_what_cannot_be_exported_is_put_on_a_topic_of_the_mesh(
        self, setting: Setting, reliable: bool
    ) -> None:
        export = setting.export(reliable=reliable, format="json", dead_letter="dead/exports")
        async with (
            setting.nodes(2) as (here, there),
            setting.observe(reliable=reliable) as observer,
            there.subscribe("dead/**") as letters,
            setting.leading(here, export=export) as bridge,
        ):
            await there.publish(f"{setting.prefix}/a", {"x": float("inf")}, headers={"unit": "lx"})
            await there.publish(f"{setting.prefix}/a", "good")
            assert [each.data for each in await observer.take(1)] == [b'"good"']
            (letter,) = await received(letters, 1)
            assert letter.value == {"x": float("inf")}
            assert letter.headers["unit"] == "lx"
            assert letter.headers["mesh-origin"] == f"{setting.prefix}/a"
            assert letter.headers["mesh-rejected"].startswith("not JSON")
            statistics = await settled(bridge, lambda it: route(it).dead_letters == 1)
            assert dict(route(statistics).rejected) == {"not JSON": 1}
            # They are there for who comes later.
            async with there.subscribe("dead/**", history=10) as later:
                assert [message.value for message in await received(later, 1)] == [letter.value]

    async def test_headers_too_large_for_the_mesh(self, setting: Setting) -> None:
        async with (
            setting.nodes(1) as (here,),
            here.subscribe(f"{setting.prefix}-in/**") as messages,
            setting.leading(here, imported=setting.imported(reliable=True)) as bridge,
        ):
            await setting.put("a", b"bad", {"huge": "x" * 9000}, reliable=True)
            await setting.put("a", b"good", reliable=True)
            assert [message.value for message in await received(messages, 1)] == [b"good"]
            await settled(bridge, lambda it: sum(route(it).rejected.values()) == 1)

    # -- the broker goes away ----------------------------------------------------------------

    async def test_the_broker_is_killed_in_the_middle_of_an_export(self, setting: Setting) -> None:
        total = 300
        async with (
            setting.nodes(2) as (here, there),
            setting.observe(reliable=True) as observer,
            setting.leading(here, export=setting.export(reliable=True, format="json")) as bridge,
        ):
            topic = f"{setting.prefix}/numbers"
            for number in range(100):
                await there.publish(topic, number)
            await observer.take(20)
            await setting.harness.kill()
            for number in range(100, 200):
                await there.publish(topic, number)
            await settled(bridge, lambda it: it.state == "away" and it.spool and it.spool.messages >= 100)
            assert bridge.statistics().why
            await setting.harness.restart()
            for number in range(200, total):
                await there.publish(topic, number)
            seen = numbers(await observer.until(lambda seen: {*range(total)} <= {*numbers(seen)}))
            # In order, but for what was sent again after the restart.
            first_times = list(dict.fromkeys(seen))
            assert first_times == list(range(total))
            ids = {each.headers["message-id"] for each in observer.seen}
            assert len(ids) == total
            statistics = await settled(bridge, lambda it: it.spool and it.spool.messages == 0)
            assert statistics.state == "connected"
            assert statistics.connections >= 2

    async def test_the_broker_is_killed_in_the_middle_of_an_import(self, setting: Setting) -> None:
        total = 150
        async with (
            setting.nodes(2) as (here, there),
            there.subscribe(f"{setting.prefix}-in/**") as messages,
            setting.leading(here, imported=setting.imported(reliable=True)) as bridge,
        ):
            got: list[int] = []

            async def take(n: int) -> None:
                got.extend(int(message.data) for message in await received(messages, n))

            for number in range(total):
                if number == 50:
                    await take(10)
                    await setting.harness.kill()
                    await settled(bridge, lambda it: it.state == "away")
                    await setting.harness.restart()
                await setting.put(
                    "a", b"%d" % number, {"message-id": f"{setting.prefix}{number}"}, reliable=True
                )
            with trio.fail_after(PATIENCE):
                while not {*range(total)} <= {*got}:
                    await take(1)
            assert list(dict.fromkeys(got)) == list(range(total))

    async def test_a_broker_that_is_away_at_the_start(self, setting: Setting) -> None:
        export = setting.export(reliable=True, format="json")
        async with setting.nodes(1) as (here,), setting.observe(reliable=True) as observer:
            await setting.harness.kill()
            async with setting.bridge(here, export=export) as bridge:
                with trio.fail_after(PATIENCE):
                    await bridge.wait_for("away")
                await here.publish(f"{setting.prefix}/a", 1)
                await settled(bridge, lambda it: it.spool and it.spool.messages == 1)
                with pytest.raises(BrokerUnavailable):
                    await check_bridge(bridge.settings, kind=setting.harness.kind)
            await setting.harness.restart()
            # What waited in the folder goes out with the next bridge there.
            async with setting.leading(here, export=export):
                assert numbers(await observer.take(1)) == [1]

    @pytest.mark.parametrize("full", ["block", "drop_oldest", "drop_newest"])
    async def test_a_full_spool(self, setting: Setting, full: str) -> None:
        async with (
            setting.nodes(1) as (here,),
            setting.observe(reliable=True) as observer,
            setting.bridge(
                here,
                export=setting.export(reliable=True, format="json"),
                spool={"bytes": 4_000, "full": full},
            ) as bridge,
        ):
            await setting.harness.kill()
            with trio.fail_after(PATIENCE):
                await bridge.wait_for("away")
            for number in range(100):
                await here.publish(f"{setting.prefix}/a", number)
            statistics = await settled(
                bridge, lambda it: it.spool and it.spool.full and it.spool.messages and it.spool.age
            )
            spool = statistics.spool
            assert spool is not None
            assert 0 < spool.bytes <= spool.limit == 4_000
            assert spool.age > 0
            if full == "block":
                assert spool.dropped == 0
            else:
                statistics = await settled(
                    bridge,
                    lambda it: (
                        it.spool
                        and it.spool.messages + it.spool.dropped == 100
                        and route(it).dropped.get("spool") == it.spool.dropped
                    ),
                )
                spool = statistics.spool
                assert spool is not None
                assert route(statistics).dropped["spool"] == spool.dropped > 0
            await setting.harness.restart()
            seen = numbers(await observer.take(100 - spool.dropped))
            expected = list(range(100))
            if full == "drop_oldest":
                expected = expected[spool.dropped :]
            if full == "drop_newest":
                expected = expected[: 100 - spool.dropped]
            assert list(dict.fromkeys(seen)) == expected

    # -- several bridges of one route --------------------------------------------------------

    async def test_of_two_bridges_one_moves(self, setting: Setting) -> None:
        routes = {
            "export": setting.export(reliable=True, format="json"),
            "imported": setting.imported(reliable=True),
        }
        async with (
            setting.nodes(2) as (here, there),
            here.subscribe(f"{setting.prefix}-in/**") as messages,
            setting.observe(reliable=True) as observer,
            setting.leading(here, **routes) as first,
            setting.bridge(there, **routes) as second,
        ):
            await settled(second, lambda it: it.state == "connected" and it.siblings == 1)
            assert first.identity == second.identity
            assert (first.leads, second.leads) == (True, False)
            for number in range(50):
                await here.publish(f"{setting.prefix}/a", number)
                await setting.put("a", b"%d" % number, reliable=True)
            assert numbers(await observer.take(50)) == list(range(50))
            assert [int(message.data) for message in await received(messages, 50)] == list(range(50))
            # What the first has delivered, the second forgets.
            await settled(second, lambda it: it.spool and it.spool.messages == 0)
            assert [each.moved for each in first.statistics().routes] == [50, 50]
            assert [each.moved for each in second.statistics().routes] == [0, 0]

    async def test_the_other_takes_over_and_nothing_is_lost(self, setting: Setting) -> None:
        export = setting.export(reliable=True, format="json")
        topic = f"{setting.prefix}/a"
        async with (
            setting.nodes(3) as (here, there, publisher),
            setting.observe(reliable=True) as observer,
            trio.open_nursery() as nursery,
        ):

            async def run(node: mesh.Node, *, task_status: trio.TaskStatus[Any]) -> None:
                with trio.CancelScope() as scope:
                    async with setting.leading(node, export=export):
                        task_status.started(scope)
                        await trio.sleep_forever()

            leader = await nursery.start(run, here)
            async with setting.bridge(there, export=export) as standby:
                await settled(standby, lambda it: it.state == "connected" and it.siblings == 1)
                for number in range(100):
                    await publisher.publish(topic, number)
                await observer.take(10)
                leader.cancel()
                for number in range(100, 150):
                    await publisher.publish(topic, number)
                seen = await observer.until(lambda seen: {*range(150)} <= {*numbers(seen)})
                assert len({each.headers["message-id"] for each in seen}) == 150
                assert standby.leads

    # -- who is who --------------------------------------------------------------------------

    async def test_wrong_credentials_are_said_without_them(
        self, setting: Setting, caplog: pytest.LogCaptureFixture
    ) -> None:
        wrong = setting.harness.wrong_credentials()
        if wrong is None:
            pytest.skip("this broker asks for no credentials here")
        caplog.set_level(logging.DEBUG)
        table = {**wrong, "export": [setting.export()]}
        async with setting.nodes(1) as (here,), open_bridge(here, table, kind=setting.harness.kind) as bridge:
            statistics = await settled(bridge, lambda it: it.state == "refused")
            assert "credentials" in statistics.why
            with pytest.raises(BrokerRejected) as caught:
                await check_bridge(table, kind=setting.harness.kind)
            assert caught.value.reason == "credentials"
            shown = f"{statistics} {bridge.settings} {caught.value!r} {caplog.text}"
            assert CANARY not in shown

    async def test_over_tls(self, setting: Setting) -> None:
        secure = setting.harness.secure()
        if secure is None:
            pytest.skip("this broker has no TLS here")
        table = {**secure, "export": [setting.export(format="json")]}
        await check_bridge(table, kind=setting.harness.kind)
        async with (
            setting.nodes(1) as (here,),
            setting.observe(reliable=False) as observer,
            open_bridge(here, table, kind=setting.harness.kind) as bridge,
        ):
            with trio.fail_after(PATIENCE):
                await bridge.wait_live()
            await here.publish(f"{setting.prefix}/a", 1)
            assert numbers(await observer.take(1)) == [1]

    async def test_a_check_moves_nothing(self, setting: Setting) -> None:
        await setting.put("a", b"1", reliable=True)
        table = {**setting.harness.table(), "import": [setting.imported(reliable=True)]}
        await check_bridge(table, kind=setting.harness.kind)
        async with (
            setting.nodes(1) as (here,),
            here.subscribe(f"{setting.prefix}-in/**") as messages,
            setting.leading(here, imported=setting.imported(reliable=True)),
        ):
            assert [message.data for message in await received(messages, 1)] == [b"1"]
