"""The JavaScript client, in Node and in Chromium, and the pages that use it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import trio

import mesh
from bridges.web.bounds import Bounds
from tests.bridges.web.browser import browser
from tests.bridges.web.clients import PATIENCE, Book, Web, web
from tests.lab import Lan
from tests.node.test_rules import homes
from tests.sources import ROOT

CLIENT = ROOT / "bridges/web/static/zeromesh.js"

# The same in Node and in a page: everything that the client can do, as a list of what came of it.
SCRIPT = """
const seen = [];
const states = [];
const mesh = connect({ ...options, onstate: (state) => states.push(state) });
await mesh.ready;
seen.push(mesh.node);
const messages = mesh.subscribe("js/**");
await messages.live;
await mesh.publish("js/a", { deep: [new Uint8Array([0, 255])] }, { headers: { a: "b" } });
for await (const message of messages) {
  seen.push([message.topic, Array.from(message.value.deep[0]), message.headers.a, message.sequence]);
  break;
}
seen.push(messages.closed);
const reply = await mesh.request("echo", "hello", { timeout: 20 });
seen.push([reply.value, reply.sender]);
seen.push(await mesh.request("nobody", 1).catch((error) => error.name));
seen.push(await mesh.publish("a//b", 1).catch((error) => error.name));
seen.push(await mesh.subscribe("a//b").live.catch((error) => error.name));
const peer = await new Promise((resolve) => mesh.peers(resolve));
seen.push([peer.change, peer.peer.state]);
const kept = [];
const again = new Promise((resolve) => {
  mesh.subscribe("again", (message) => { kept.push(message.value); if (message.value === "after") resolve(); });
});
await mesh.publish("cut", null);
await again;
seen.push(kept.includes("after"), states.filter((state) => state === "ready").length);
mesh.close();
seen.push(mesh.state, await mesh.publish("a", 1).catch((error) => error.name));
"""


def expected(near: mesh.Node, far: mesh.Node) -> list[Any]:
    return [
        near.name,
        ["js/a", [0, 255], "b", 0],
        True,
        ["HELLO", far.name],
        "NoResponders",
        "TopicError",
        "TopicError",
        ["joined", "alive"],
        True,
        2,
        "closed",
        "Closed",
    ]


async def other_side(it: Web, far: mesh.Node) -> None:
    """Serves, and when the client asks for it, cuts its connection and publishes once it is back."""

    async def echo(request: mesh.Request) -> Any:
        return request.value.upper()

    async def cut() -> None:
        async with far.subscribe("cut") as asked:
            ready.set()
            async for _ in asked:
                for session in list(it.gateway._sockets._sessions):
                    session.end(1001, "cut by the test")
                while True:
                    await far.publish("again", "after")
                    await trio.sleep(0.05)

    ready = trio.Event()
    await it.nursery.start(far.serve, "echo", echo)
    it.nursery.start_soon(cut)
    await ready.wait()


def node_command() -> list[str] | None:
    """Node with WebSocket in it: 22 and later have it, 20 behind a flag."""
    node = shutil.which("node")
    if node is None:
        return None
    version = int(
        subprocess.run([node, "-p", "process.versions.node"], capture_output=True, text=True).stdout.split(
            "."
        )[0]
    )
    return None if version < 20 else [node] if version >= 22 else [node, "--experimental-websocket"]


async def test_the_client_in_node(near: mesh.Node, far: mesh.Node, tmp_path: Path) -> None:
    command = node_command()
    if command is None:
        pytest.skip("NO NODE 20 OR LATER, so the JavaScript client is not tested in it")
    async with web(near, Book(js=("publish:**", "subscribe:**", "request:**"))) as it:
        await other_side(it, far)
        options = {"url": it.url.replace("http", "ws") + "/ws", "token": "js"}
        script = tmp_path / "test.mjs"
        script.write_text(
            f"import {{ connect }} from {json.dumps(CLIENT.as_uri())};\nconst options = {json.dumps(options)};\n"
            f"{SCRIPT}\nconsole.log(JSON.stringify(seen));\n"
        )
        with trio.fail_after(PATIENCE * 2):
            done = await trio.run_process(
                [*command, str(script)], capture_stdout=True, capture_stderr=True, check=False
            )
        assert done.returncode == 0, done.stderr.decode()
        assert json.loads(done.stdout) == expected(near, far)


@pytest.mark.usefixtures("chromium")
async def test_the_client_and_the_pages_in_a_browser(near: mesh.Node, far: mesh.Node, tmp_path: Path) -> None:
    shots = Path(os.environ["ZEROMESH_SCREENSHOTS"]) if "ZEROMESH_SCREENSHOTS" in os.environ else None
    async with web(near) as it, browser(tmp_path / "profile") as page:
        await other_side(it, far)
        await page.open(it.url + "/")
        found = await page.run(
            "(async () => { const { connect } = await import('/static/zeromesh.js'); const options = {};"
            f"{SCRIPT} return JSON.stringify(seen); }})()"
        )
        assert json.loads(found) == expected(near, far)

        # The dashboard: presence, traffic, and messages by hand.
        await page.open(it.url + "/")
        await page.until("document.querySelector('#state').textContent === 'ready'")
        assert await page.run("document.querySelector('#node').textContent") == near.name
        await page.until(f"document.querySelector('#peers tbody').textContent.includes('{far.name}')")
        await page.run("document.querySelector('#pattern').value = 'home/**'")
        await page.run("document.querySelector('#subscribe-button').click()")
        await page.until("document.querySelector('#answer').textContent.startsWith('listening')")
        await far.publish("home/lamp", {"markup": "<img src=x onerror=alert(1)>"})
        await page.until("document.querySelector('#messages').textContent.includes('<img src=x')")
        for topic, value, button, answer in (
            ("home/x", "21.5", "publish", "published on home/x"),
            ("echo", "hello", "request", f"{far.name}: HELLO"),
            ("nobody", "1", "request", "NoResponders"),
        ):
            await page.run(f"document.querySelector('#topic').value = '{topic}'")
            await page.run(f"document.querySelector('#value').value = '{value}'")
            await page.run(f"document.querySelector('#send [value={button}]').click()")
            await page.until(
                f"document.querySelector('#answer').textContent.startsWith({json.dumps(answer)})"
            )
        for number in range(100):
            await far.publish(f"home/room-{number % 7}/temperature", number / 10)
        await page.until("document.querySelector('#traffic tbody').textContent.includes('home/room-6')")
        await near.ping(far.id)
        await page.until(f"document.querySelector('#pairs tbody').textContent.includes('{far.name}')")
        # By keyboard: everything that can be used can be reached, in order, with what it is for.
        names = await page.run(
            "[...document.querySelectorAll('button, input')].map("
            "(it) => it.textContent || it.labels?.[0]?.textContent || it.ariaLabel || '')"
        )
        assert all(names), names
        # On a phone nothing is cut off sideways.
        for width, height, dark in (
            (1280, 900, False),
            (1280, 900, True),
            (390, 844, False),
            (390, 844, True),
        ):
            name = f"dashboard-{width}-{'dark' if dark else 'light'}.png"
            picture = await page.look(width, height, dark=dark, file=shots and shots / name)
            assert picture.startswith(b"\x89PNG")
            assert await page.run("document.documentElement.scrollWidth <= innerWidth")

        # The description of the HTTP interface.
        await page.open(it.url + "/docs")
        await page.until("document.querySelectorAll('details').length > 6")
        await page.run("document.querySelector('details').open = true")
        await page.run("document.querySelector('details form').requestSubmit()")
        await page.until("document.querySelector('details [role=status]').textContent.startsWith('200')")
        await page.look(1280, 900, file=shots and shots / "docs.png")

        assert not page.errors
        assert all(url.startswith((it.url, "data:")) for url in page.requested), page.requested


@pytest.mark.usefixtures("chromium")
async def test_a_page_without_a_token_asks_for_one(near: mesh.Node, tmp_path: Path) -> None:
    book = Book(look=("subscribe:**",))
    async with web(near, book, bounds=Bounds(auth_within=0.2)) as it, browser(tmp_path / "profile") as page:
        await page.open(it.url + "/")
        await page.until("!document.querySelector('#notice').hidden")
        await page.run("document.querySelector('#token').value = 'look'")
        await page.run("document.querySelector('#token-form button').click()")
        await page.until("document.querySelector('#state').textContent === 'ready'")
        await page.until("document.querySelector('#notice').hidden")


async def test_the_pages_and_scripts_are_served(open_web: Web) -> None:
    for path, kind in (
        ("/", "text/html; charset=utf-8"),
        ("/docs", "text/html; charset=utf-8"),
        ("/static/zeromesh.js", "text/javascript; charset=utf-8"),
        ("/static/zeromesh.css", "text/css; charset=utf-8"),
        ("/favicon.ico", "image/svg+xml"),
    ):
        answer = await open_web.ask("GET", path)
        assert (answer.status, answer.headers["content-type"]) == (200, kind)
        again = await open_web.ask("GET", path, headers={"If-None-Match": answer.headers["etag"]})
        assert (again.status, again.body) == (304, b"")
    for path in ("/static/nothing.js", "/static/..%2fgateway.py", "/static/__init__.py"):
        assert (await open_web.ask("GET", path)).problem == "NotFound"


@pytest.mark.usefixtures("chromium")
async def test_the_chat_of_the_documents(lan: Callable[..., Lan], tmp_path: Path) -> None:
    """Two hosts with a daemon and a browser each, and nothing but what the guide says."""
    guide = (ROOT / "docs/howto/web-browser.md").read_text(encoding="utf-8")
    page, toml = (guide.partition(f"```{kind}\n")[2].partition("```")[0] for kind in ("html", "toml"))
    people = []
    async with AsyncExitStack() as stack:
        hosts = lan(2)
        for host, home in zip(hosts, homes(tmp_path), strict=True):
            (home.path / "mesh.toml").write_text(toml)
            command = [sys.executable, "-m", "mesh.cli.main", "daemon", "--home", str(home.path)]
            daemon = await stack.enter_async_context(host.running(command))
            await daemon.expect("^ready", within=PATIENCE)
            folder = home.path / "served"
            folder.mkdir()
            (folder / "chat.html").write_text(page)
            shutil.copy(CLIENT, folder)
        for host, me, other in zip(hosts, ("kitchen", "cellar"), ("cellar", "kitchen"), strict=True):
            words = [str(tmp_path / me / "served"), f"hello {other}", f"hello {me}", other]
            person = host.running([sys.executable, "-m", "tests.bridges.web.chatting", *words])
            people.append(await stack.enter_async_context(person))
        for person in people:
            await person.expect("^sees", within=PATIENCE * 2)
        for person in people:
            await person.send("\n")
        for person in people:
            read = json.loads((await person.expect("^read (.*)", within=PATIENCE * 2))[1])
            assert sorted(read) == ["cellar: hello kitchen", "kitchen: hello cellar"]
        for person in people:
            await person.close_stdin()
            assert await person.wait(within=PATIENCE) == 0
