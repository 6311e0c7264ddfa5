"""Values on their way in and out of the command."""

from __future__ import annotations

import json
import os
import sys
from datetime import UTC, datetime
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.cli.output import (
    OutputClosed,
    colour,
    json_line,
    json_value,
    parse_value,
    shown,
    table,
    value_bytes,
    write,
)
from mesh.cli.serve import reply_value


def test_what_a_value_on_the_command_line_means() -> None:
    assert parse_value("21.5") == 21.5
    assert parse_value('{"on": true}') == {"on": True}
    assert parse_value("null") is None
    assert parse_value("hello") == "hello"
    assert parse_value("") == ""
    assert parse_value("[" * 100_000) == "[" * 100_000


def test_a_number_that_python_does_not_write_in_decimal() -> None:
    assert json_line([1 << 8000, -(1 << 20000)]) == json.dumps([1 << 8000, hex(-(1 << 20000))]) + "\n"
    assert shown(1 << 20000).startswith('"0x1000')
    assert json_value({"a": Fraction(1 << 20000, 3)}) == {"a": "<Fraction>"}
    assert value_bytes(1 << 20000).startswith(b'"0x1000')


def test_what_json_lacks() -> None:
    assert json_value(b"\x00\xff") == {"base64": "AP8="}
    assert json_value({"a": {b"k": {1.5, 2}}, 3: (float("nan"), None)}) == {
        "a": {"aw==": [1.5, 2]},
        "3": [None, None],
    }
    assert json_value(datetime(2024, 5, 6, tzinfo=UTC)) == "2024-05-06T00:00:00+00:00"
    assert json_value(frozenset()) == []


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.datetimes(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.binary(), inner),
        max_leaves=20,
    )
)
def test_every_value_is_one_line_of_json_and_one_line_for_people(value: object) -> None:
    line = json_line(value)
    assert line.endswith("\n")
    json.loads(line)
    assert shown(value).isprintable() or "\n" not in shown(value)
    assert isinstance(value_bytes(value), bytes)


def test_nothing_shown_can_steer_a_terminal() -> None:
    assert shown("plain text") == "plain text"
    assert shown("\x1b[2J") == '"\\u001b[2J"'
    assert shown("two\nlines") == '"two\\nlines"'
    assert shown(b"bytes as text") == "bytes as text"
    assert shown(b"\x1b[2J") == "<4 bytes: 1b 5b 32 4a>"
    assert shown(b"") == "<0 bytes>"
    assert shown({"a": 1}) == '{"a": 1}'


def test_values_as_another_program_reads_them() -> None:
    assert value_bytes(b"\xff") == b"\xff"
    assert value_bytes("ä") == "ä".encode()
    assert value_bytes(None) == b""
    assert value_bytes({"a": [1]}) == b'{"a": [1]}'


def test_the_output_of_a_command_as_a_reply() -> None:
    assert reply_value(b"12\n") == 12
    assert reply_value(b"up 3 days\n") == "up 3 days"
    assert reply_value(b"a\n\n") == "a\n"
    assert reply_value(b"\xff\n") == b"\xff\n"
    assert reply_value(b"") == ""


def test_colours_only_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    assert colour("text", "red") == "text"
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert colour("text", "red") == "\x1b[31mtext\x1b[0m"
    monkeypatch.setenv("NO_COLOR", "1")
    assert colour("text", "red") == "text"


def test_tables() -> None:
    assert table(("A", "LONG"), [("wide cell", "x"), ("b", "")]) == ("A          LONG\nwide cell  x\nb\n")


def test_a_reader_that_went_away() -> None:
    read, write_end = os.pipe()
    kept = os.dup(1)
    try:
        os.dup2(write_end, 1)
        os.close(read)
        with pytest.raises(OutputClosed):
            write("nobody reads this\n")
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(write_end)
