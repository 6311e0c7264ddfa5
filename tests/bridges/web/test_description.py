"""schemathesis asks what the OpenAPI description allows, and what it does not: no server error, nothing undocumented."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import trio

from tests.bridges.web.clients import Web


@pytest.mark.slow
async def test_no_request_finds_a_server_error(open_web: Web, tmp_path: Path) -> None:
    # The stream of events is left out: it answers for ever, which is what it is for. Without credentials that it
    # would make up: on the open loopback none are needed, and wrong ones are tested elsewhere.
    words = [
        "run",
        f"{open_web.url}/openapi.json",
        "--max-examples",
        "10",
        "--exclude-path",
        "/api/v1/subscribe",
    ]
    checks = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
    program = [
        str(Path(sys.executable).with_name("schemathesis")),
        *words,
        "--checks",
        checks,
        "--request-timeout",
        "20",
    ]
    program += ["--phases", "examples,coverage,fuzzing", "--generation-deterministic", "--no-color"]
    with trio.fail_after(240):
        done = await trio.run_process(
            program, capture_stdout=True, check=False, cwd=tmp_path, env={**os.environ, "COLUMNS": "120"}
        )
    assert done.returncode == 0, done.stdout.decode()[-14000:]
    assert open_web.rejected["failed"] == 0
    assert open_web.gateway.counters.answers["/api/v1/publish", 200] > 0
