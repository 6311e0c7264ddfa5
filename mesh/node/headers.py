"""A message's headers: text to text, judged where they are given."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mesh.config import Config
from mesh.errors import MessageTooLarge, ValueEncodingError

__all__ = ["check_headers", "header_bytes"]


def check_headers(headers: Mapping[str, str] | None, config: Config) -> Mapping[str, str] | None:
    """Judge a caller's headers, and copy them. Raises ``ValueEncodingError`` or ``MessageTooLarge``."""
    if not headers:
        return None
    called = type(headers).__name__
    if not isinstance(headers, Mapping):
        raise ValueEncodingError(called, "headers map text to text")
    if len(headers) > config.limits.headers:
        raise ValueEncodingError(called, f"more than {config.limits.headers} headers")
    plain: dict[str, str] = {}
    pairs: Any = headers.items()  # what a caller really gave is checked here
    for name, value in pairs:
        if not isinstance(name, str) or not isinstance(value, str):
            raise ValueEncodingError(called, "headers map text to text")
        plain[str.__str__(name)] = str.__str__(value)  # of a StrEnum, say: CBOR carries plain text only
    try:
        size = header_bytes(plain)
    except UnicodeEncodeError:
        raise ValueEncodingError(called, "a header has a lone surrogate, which UTF-8 cannot carry") from None
    if size > config.limits.header_bytes:
        raise MessageTooLarge(size, config.limits.header_bytes)
    return plain


def header_bytes(headers: Mapping[str, str]) -> int:
    """What they take, names and values."""
    return sum(len(name.encode()) + len(value.encode()) for name, value in headers.items())
