"""One person at the chat of the documents: ``python -m tests.bridges.web.chatting FOLDER SAYS WAITS_FOR PEER``.

Serves FOLDER at port 8000 of the loopback, as the guide does, opens its chat.html in a browser, says something once
PEER is there, and prints the lines of the chat once WAITS_FOR is among them. Ends when standard input does.
"""

from __future__ import annotations

import json
import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import trio

from tests.bridges.web.browser import browser


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Nothing."""


async def main(folder: str, says: str, waits_for: str, peer: str) -> None:
    handler = partial(Quiet, directory=folder)
    with ThreadingHTTPServer(("127.0.0.1", 8000), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        async with browser(Path(folder) / "profile") as page:
            await page.open("http://localhost:8000/chat.html")
            await page.until(f"document.querySelector('#who').textContent.includes({json.dumps(peer)})")
            print("sees", peer, flush=True)
            await trio.to_thread.run_sync(sys.stdin.readline)  # both are there, and listen
            await page.run(f"document.querySelector('#text').value = {json.dumps(says)}")
            await page.run("document.querySelector('#say').requestSubmit()")
            lines = "document.querySelector('#lines').textContent"
            for wanted in (says, waits_for):
                await page.until(f"{lines}.includes({json.dumps(wanted)})")
            said = await page.run(
                "JSON.stringify([...document.querySelectorAll('li')].map((it) => it.textContent))"
            )
            print("read", said, flush=True)
            await trio.to_thread.run_sync(sys.stdin.readline)
        await trio.to_thread.run_sync(server.shutdown)


if __name__ == "__main__":
    trio.run(main, *sys.argv[1:])
