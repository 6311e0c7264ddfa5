"""Errors over HTTP: problem details (RFC 9457), and which status each of the mesh's errors has."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Any, Final

import mesh
from bridges.web.hub import TooManyPatterns
from mesh.errors import MeshError

__all__ = ["FAILED", "MEDIA_TYPE", "Problem", "problem_body", "status_of"]

MEDIA_TYPE: Final = "application/problem+json"

FAILED: Final = "this is a mistake of the gateway; its log says more"
"""What a 500 says."""

_STATUS: Final[tuple[tuple[type[MeshError], int], ...]] = (
    (mesh.TopicError, 422),
    (mesh.ValueEncodingError, 422),
    (mesh.MessageTooLarge, 413),
    (mesh.NotAuthorized, 403),
    (mesh.NoResponders, 404),
    (mesh.UnknownPeer, 404),
    (mesh.ConfigError, 422),
    (TooManyPatterns, 429),
    (mesh.RemoteError, 502),
    (mesh.PeerGone, 502),
    (mesh.RequestTimeout, 504),
    (mesh.NodeClosed, 503),
)


def status_of(error: MeshError) -> int:
    """The HTTP status for an error of the mesh."""
    return next((status for kind, status in _STATUS if isinstance(error, kind)), 500)


class Problem(Exception):
    """An answer that is an error. ``error`` is a short name that programs compare."""

    def __init__(self, status: int, error: str, detail: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.error = error
        self.detail = detail
        self.headers = headers


def problem_body(status: int, error: str, detail: str, **more: Any) -> bytes:
    """The document (RFC 9457 §3): ``type`` names the kind of error, ``error`` is its last word."""
    return json.dumps(
        {
            "type": f"urn:zeromesh:error:{error}",
            "title": HTTPStatus(status).phrase,
            "status": status,
            "detail": detail,
            "error": error,
            **more,
        }
    ).encode()
