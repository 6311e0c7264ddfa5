"""What a field of a message must look like: predicates, and those that make them.

They judge what CBOR gave: exact types, since True and 1.0 equal 1 and are not it.  The tables of ``intro``, ``upkeep``,
``traffic`` and ``batches`` name one for each field.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

from mesh.core.topic import is_valid_topic

__all__ = [
    "ID16", "NAME", "TOKEN32", "Form", "Table", "all_octets", "array", "boolean", "each", "headers", "kind", "known_topic",
    "octets", "optional", "sized", "text", "topic", "uint", "versions",
]  # fmt: skip

Form = Callable[[Any], bool]
Table = dict[int, tuple[type[Any], tuple[Form, ...]]]
"""Code → message, forms of its fields."""


def uint(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 64


def boolean(value: Any) -> bool:
    return value is True or value is False


def kind(value: Any) -> bool:
    return type(value) is int and 0 <= value <= 1  # 1.0 and True equal 1, and are not it


def octets(value: Any) -> bool:
    return type(value) is bytes


def all_octets(value: Any) -> bool:
    # One look at each type, without a call for each: a batch has up to 512.
    return type(value) is list and set(map(type, value)) <= {bytes}


def sized(size: int) -> Form:
    def check(value: Any) -> bool:
        return type(value) is bytes and len(value) == size

    return check


def text(limit: int) -> Form:
    def check(value: Any) -> bool:
        return type(value) is str and len(value) <= limit

    return check


def headers(value: Any) -> bool:
    if value is None:
        return True
    if type(value) is not dict or len(value) > 64:
        return False
    return all(type(k) is str and type(v) is str for k, v in value.items())


def versions(value: Any) -> bool:
    return type(value) is list and len(value) == 2 and all(map(uint, value)) and value[0] <= value[1]


def each(form: Form, most: int) -> Form:
    def check(value: Any) -> bool:
        return type(value) is list and len(value) <= most and all(map(form, value))

    return check


def optional(form: Form) -> Form:
    def check(value: Any) -> bool:
        return value is None or form(value)

    return check


ID16 = sized(16)
TOKEN32 = sized(32)
known_topic = lru_cache(maxsize=4096)(is_valid_topic)  # the same few come again and again


def topic(value: Any) -> bool:
    return type(value) is str and known_topic(value)


NAME = text(64)


def array(*forms: Form) -> Form:
    """An array of these fields; what follows them is a later version's."""

    def check(value: Any) -> bool:
        return (
            type(value) is list
            and len(value) >= len(forms)
            and all(form(item) for form, item in zip(forms, value, strict=False))
        )

    return check
