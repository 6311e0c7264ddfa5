"""The figures of the gateway, small: every message is counted once, by every client."""

from __future__ import annotations

import struct
from pathlib import Path

from benchmarks.web import clients, masked, percentile


def test_every_client_gets_every_message(tmp_path: Path) -> None:
    found = clients(str(tmp_path / "home"), 5, seconds=1)
    assert found["received"] == found["expected"] == 500
    assert 0 < found["p50_ms"] <= found["p99_ms"]


def test_frames_and_percentiles() -> None:
    assert masked(b"hello") == b"\x81\x85\0\0\0\0hello"
    assert masked(b"x" * 200)[:4] == b"\x81\xfe" + struct.pack("!H", 200)
    assert percentile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert percentile([1.0], 0.99) == 1.0
