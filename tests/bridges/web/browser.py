"""A real Chromium without a window, driven over its DevTools protocol."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any

import trio
from websockets.trio.client import ClientConnection, connect

from tests.bridges.web.clients import PATIENCE
from tests.lab.packages import install


@cache
def chromium() -> str:
    """The browser's path; installed where it is missing. Raises ``OSError`` with why it cannot be had."""
    if (found := _find()) is None:
        if why_not := install("chromium"):
            raise OSError(why_not)
        found = _find()
    assert found is not None
    return found


def _find() -> str | None:
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Page:
    """One tab. ``errors`` are what its console and its scripts complained of."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._next = 0
        self.errors: list[str] = []
        self.requested: list[str] = []

    async def call(self, method: str, **parameters: Any) -> Any:
        self._next += 1
        await self._socket.send(json.dumps({"id": self._next, "method": method, "params": parameters}))
        with trio.fail_after(PATIENCE):
            while True:
                answer = json.loads(await self._socket.recv())
                if answer.get("id") == self._next:
                    assert "error" not in answer, answer
                    return answer["result"]
                self._note(answer)

    def _note(self, event: Any) -> None:
        method, it = event.get("method"), event.get("params", {})
        if method == "Runtime.exceptionThrown":
            self.errors.append(str(it["exceptionDetails"]))
        elif method == "Log.entryAdded" and it["entry"]["level"] == "error":
            self.errors.append(it["entry"]["text"])
        elif method == "Network.requestWillBeSent":
            self.requested.append(it["request"]["url"])

    async def open(self, url: str) -> None:
        await self.call("Page.navigate", url=url)
        await self.until("document.readyState === 'complete'")

    async def run(self, script: str) -> Any:
        """The value of an expression; a promise is awaited."""
        answer = await self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    async def until(self, script: str) -> None:
        """Wait until the expression is true."""
        with trio.fail_after(PATIENCE):
            while not await self.run(f"Boolean({script})"):  # noqa: ASYNC110 - a page wakes nobody
                await trio.sleep(0.05)

    async def look(self, width: int, height: int, *, dark: bool = False, file: Path | None = None) -> bytes:
        """A picture of the page (PNG)."""
        await self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.call("Emulation.setEmulatedMedia", features=[scheme])
        picture = base64.b64decode((await self.call("Page.captureScreenshot", format="png"))["data"])
        if file is not None:
            file.write_bytes(picture)
        return picture


@asynccontextmanager
async def browser(profile: Path) -> AsyncIterator[Page]:
    """A page in a browser of its own."""
    flags = [
        "--headless=new",
        "--no-first-run",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--remote-debugging-port=0",
    ]
    if os.geteuid() == 0:
        flags.append("--no-sandbox")  # it refuses to run as root with one
    command = [chromium(), *flags, f"--user-data-dir={profile}", "about:blank"]
    async with trio.open_nursery() as nursery:
        run = partial(
            trio.run_process, command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False
        )
        process = await nursery.start(run)
        where = profile / "DevToolsActivePort"
        with trio.fail_after(PATIENCE):
            while not (where.exists() and where.read_text().count("\n")):  # noqa: ASYNC110 - another program's file
                await trio.sleep(0.05)
        port, path = where.read_text().split("\n")[:2]
        async with connect(f"ws://127.0.0.1:{port}{path}", max_size=None) as control:
            await control.send(
                json.dumps({"id": 1, "method": "Target.createTarget", "params": {"url": "about:blank"}})
            )
            while True:
                answer = json.loads(await control.recv())
                if answer.get("id") == 1:
                    break
            target = answer["result"]["targetId"]
            async with connect(f"ws://127.0.0.1:{port}/devtools/page/{target}", max_size=None) as socket:
                page = Page(socket)
                for domain in ("Page", "Runtime", "Log", "Network"):
                    await page.call(f"{domain}.enable")
                yield page
        process.terminate()
