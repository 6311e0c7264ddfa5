"""``pub``, ``sub``, ``request``, ``serve``, ``peers`` and ``ping`` against a daemon of the same home."""

from __future__ import annotations

import json
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mesh import open_node
from tests.cli.command import daemon, home_at, mesh, started
from tests.lab import Running


@pytest.fixture
async def home(tmp_path: Path) -> AsyncIterator[Path]:
    """A home in which the daemon ``kitchen`` runs."""
    folder = home_at(tmp_path / "home")
    async with daemon(folder, "--name", "kitchen"):
        yield folder


async def live(program: Running) -> None:
    await program.expect("^live: ", on="stderr", within=30)


async def test_published_values_arrive_as_json(home: Path) -> None:
    async with started("sub", "home/**", "--json", "--count", "6", home=home) as sub:
        await live(sub)
        for words in (
            ("21.5",),
            ('{"on": true}',),
            ("-5",),
            ("hello",),
            ("21.5", "--raw"),
            ("x", "-H", "unit=°C"),
        ):
            done = await mesh("pub", "home/kitchen/thing", *words, "--name", "tester", home=home)
            assert (done.code, done.stdout, done.stderr) == (0, [], [])
        assert await sub.wait(within=30) == 0
    received = [json.loads(line) for line in sub.stdout]
    assert [each["value"] for each in received] == [
        21.5,
        {"on": True},
        -5,
        "hello",
        {"base64": "MjEuNQ=="},
        "x",
    ]
    assert all(
        each.keys() == {"topic", "value", "sender", "sequence", "timestamp", "headers"} for each in received
    )
    assert received[0]["topic"] == "home/kitchen/thing"
    assert received[0]["sender"] == "tester"
    assert received[0]["headers"] == {}
    assert received[5]["headers"] == {"unit": "°C"}


async def test_each_line_of_standard_input_is_published_as_it_comes(home: Path) -> None:
    async with started("sub", "lines", "--json", home=home) as sub, started("pub", "lines", home=home) as pub:
        await live(sub)
        await pub.send("first\n")
        assert json.loads((await sub.expect("first")).string)["value"] == "first"
        await pub.send('{"n": 2}\n3\nthe last has no end')
        await pub.close_stdin()
        await sub.expect("the last has no end")
        assert await pub.wait() == 0
        received = [json.loads(line) for line in sub.stdout]
        assert [each["value"] for each in received] == ["first", {"n": 2}, 3, "the last has no end"]
        assert [each["sequence"] for each in received] == [0, 1, 2, 3]
        # A command that runs until it is stopped has done its work when it is.
        sub.signal(signal.SIGINT)
        assert await sub.wait() == 0
        assert len(sub.stderr) == 1


async def test_sub_for_people_and_raw(home: Path) -> None:
    async with (
        started("sub", "**", "--count", "2", home=home) as people,
        started("sub", "**", "--raw", "--count", "2", home=home) as raw,
    ):
        await live(people)
        await live(raw)
        async with started("pub", "a/b", "--raw", home=home) as pub:
            await pub.send("one\ntwo\x1b[2J\n")
            await pub.close_stdin()
            assert await pub.wait() == 0
        assert await people.wait() == 0
        assert await raw.wait() == 0
    assert people.stdout == ["a/b one", "a/b <7 bytes: 74 77 6f 1b 5b 32 4a>"]
    assert raw.stdout == ["one", "two\x1b[2J"]


async def test_publishers_wait_for_what_reads_the_output(home: Path) -> None:
    """A subscriber that stands still is waited for, and cut off when it never goes on."""
    async with started(
        "sub", "lines", "--raw", "--overflow", "backpressure", "--count", "3", home=home
    ) as sub:
        await live(sub)
        async with started("pub", "lines", home=home) as pub:
            await pub.send("1\n2\n3\n")
            await pub.close_stdin()
            assert await pub.wait() == 0
        assert await sub.wait() == 0
        assert sub.stdout == ["1", "2", "3"]


async def test_requests_are_answered_by_a_command(home: Path) -> None:
    async with started("serve", "text/upper", "--exec", "tr a-z A-Z", "--name", "upper", home=home) as serve:
        await live(serve)
        assert (await mesh("request", "text/upper", "hello", home=home)).stdout == ["HELLO"]
        assert (await mesh("request", "text/upper", '{"a": 1}', home=home)).stdout == ['{"A": 1}']
        done = await mesh("request", "text/upper", "x", "--all", home=home)
        assert [json.loads(line) for line in done.stdout] == [{"sender": "upper", "value": "X"}], done
        serve.signal(signal.SIGTERM)
        assert await serve.wait() == 0


async def test_what_the_command_sees_and_how_it_fails(home: Path) -> None:
    command = 'case "$MESH_TOPIC" in env) echo "$MESH_SENDER";; *) echo "no such thing" >&2; exit 3;; esac'
    async with started("serve", "*", "--exec", command, home=home) as serve:
        await live(serve)
        done = await mesh("request", "env", "--json", "--name", "asker", home=home)
        assert done.json == "asker"
        failed = await mesh("request", "other", home=home)
        assert failed.code == 1
        assert failed.line == "CommandFailed: exit status 3: no such thing"
        everyone = await mesh("request", "other", "--all", home=home)
        assert everyone.code == 1
        [reply] = [json.loads(line) for line in everyone.stdout]
        assert (reply["error"], "value" in reply) == ("RemoteError", False)


async def test_a_request_that_runs_out_of_time_ends_the_command(home: Path, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    # The shell's child would outlive the shell if only that were ended.
    command = f"mkfifo {mark}; cat {mark}; exit 0"
    async with started("serve", "slow", "--exec", command, home=home) as serve:
        await live(serve)
        done = await mesh("request", "slow", "--timeout", "0.5", home=home)
        assert done.code == 1
        assert done.line == "no reply to 'slow' within 0.5 s"
        assert mark.exists()


async def test_peers_and_ping(home: Path) -> None:
    async with started("sub", "x", "--name", "listener", home=home) as sub:
        await live(sub)
        [peer] = (await mesh("peers", "--json", home=home)).json
        assert peer.keys() == {"id", "name", "member", "endpoints", "state", "rtt"}
        assert (peer["name"], peer["state"]) == ("listener", "alive")
        listed = await mesh("peers", home=home)
        assert listed.stdout[1].startswith("listener")

        for wanted in ("kitchen", "listener", peer["id"]):
            done = await mesh("ping", wanted, "--count", "2", "--interval", "0", "--json", home=home)
            assert done.code == 0, done
            assert done.json["answered"] == 2
            assert 0 < done.json["min"] <= done.json["median"] <= done.json["max"] < 2
        shown = await mesh("ping", "kitchen", "--count", "1", home=home)
        assert shown.stdout[0].startswith("kitchen: ")
        assert "1 of 1 answered" in shown.stdout[1]


async def test_watching_peers_through_the_daemon(home: Path) -> None:
    async with started("peers", "--watch", "--json", home=home) as watch:
        async with started("sub", "x", "--name", "visitor", home=home) as sub:
            event = json.loads((await watch.expect("visitor", within=30)).string)
            assert (event["change"], event["peer"]["name"]) == ("joined", "visitor")
            sub.signal(signal.SIGTERM)
            assert await sub.wait() == 0
        event = json.loads((await watch.expect('"left"', within=30)).string)
        assert event["peer"]["name"] == "visitor"
        watch.signal(signal.SIGINT)
        assert await watch.wait() == 0


async def test_a_finite_command_that_is_interrupted_says_so_by_its_code(home: Path) -> None:
    async with started("sub", "x", "--count", "1", home=home) as sub:
        await live(sub)
        sub.signal(signal.SIGINT)
        assert await sub.wait() == 130
        assert len(sub.stderr) == 1


async def test_history(home: Path) -> None:
    async with open_node("keeper", home=home) as node, node.publisher("x", history=5) as publisher:
        for value in range(9):
            await publisher.publish(value)
        await publisher.flush()
        done = await mesh("sub", "x", "--history", "3", "--count", "3", home=home)
        assert (done.code, done.stdout) == (0, ["x 6", "x 7", "x 8"])


async def test_history_of_what_a_group_shares_is_a_mistake(home: Path) -> None:
    done = await mesh("sub", "x", "--history", "3", "--group", "g", home=home)
    assert done.code == 1
    assert done.line == "history: members of a group share what is published from now on: leave one out"


async def test_one_peer_alone_and_bytes_both_ways(home: Path) -> None:
    async with (
        started("sub", "x", "--json", "--name", "one", home=home) as one,
        started("sub", "x", "--json", "--count", "1", "--name", "two", home=home) as two,
        started("serve", "bytes", "--exec", "printf '\\377'; cat", "--raw", home=home) as serve,
    ):
        for program in (one, two, serve):
            await live(program)
        assert (await mesh("pub", "x", "7", "--to", "two", home=home)).code == 0
        assert await two.wait(within=30) == 0
        assert json.loads(two.stdout[0])["value"] == 7
        assert one.stdout == []
        missing = await mesh("pub", "x", "7", "--to", "three", home=home)
        assert (missing.code, missing.line) == (1, "no such peer: 'three'")
        done = await mesh("request", "bytes", "a", "--raw", "--json", home=home)
        assert done.json == {"base64": "/2E="}
