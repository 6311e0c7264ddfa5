"""The pages and the JavaScript client: files of this package, with no asset from anywhere else.

    /               the dashboard
    /docs           the description of the HTTP interface, to read and to try
    /static/…       scripts, styles, and ``zeromesh.js``, which programs import

They hold no secrets: what they show they ask for with the token that a person gives them.
"""

from __future__ import annotations

import hashlib
from importlib.resources import files
from typing import Final

from fastapi import FastAPI, Request, Response

from bridges.web.problems import Problem

__all__ = ["add"]

_TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".ts": "text/plain; charset=utf-8",
}
_PAGES: Final = {"/": "dashboard.html", "/docs": "docs.html", "/favicon.ico": "icon.svg"}


class _Asset:
    """One file, with the tag by which a browser asks whether it changed."""

    def __init__(self, name: str, data: bytes) -> None:
        self.data = data
        self.tag = f'"{hashlib.sha256(data).hexdigest()[:16]}"'
        self.media_type = _TYPES[name[name.rindex(".") :]]

    def answer(self, request: Request) -> Response:
        headers = {"etag": self.tag, "cache-control": "no-cache"}
        if request.headers.get("if-none-match") == self.tag:
            return Response(status_code=304, headers=headers)
        return Response(self.data, headers=headers, media_type=self.media_type)


def add(app: FastAPI) -> None:
    """Serve the pages. Everything is read once, here."""
    assets = {
        each.name: _Asset(each.name, each.read_bytes())
        for each in files("bridges.web").joinpath("static").iterdir()
        if each.is_file() and each.name[each.name.rfind(".") :] in _TYPES
    }

    def page(name: str) -> None:
        async def show(request: Request) -> Response:
            return assets[_PAGES[name]].answer(request)

        app.add_api_route(name, show, include_in_schema=False, response_class=Response)

    for name in _PAGES:
        page(name)

    @app.get("/ws", include_in_schema=False)
    async def no_handshake(request: Request) -> Response:
        request.app.state.counters.rejected["handshake"] += 1
        upgrade = {"upgrade": "websocket", "connection": "Upgrade", "sec-websocket-version": "13"}
        raise Problem(426, "UpgradeRequired", "here are WebSockets of version 13 (RFC 6455)", upgrade)

    @app.get("/static/{name}", include_in_schema=False)
    async def static(name: str, request: Request) -> Response:
        if name not in assets:
            raise Problem(404, "NotFound", "there is no such file")
        return assets[name].answer(request)
