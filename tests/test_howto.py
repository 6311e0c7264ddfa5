"""The programs in the how-to guides run as they stand there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.sources import ROOT

GUIDES = {
    "asyncio": ["home/kitchen/temperature 21.5 kitchen", "42\n[0, 1, 2]", "nobody rang\nding"],
    "testing": ["3 sent, 3 arrived, repaired: True", "kitchen alone after 60 s; 2 again"],
    "threads": [
        "home/kitchen/temperature 21.5 kitchen",
        "home/kitchen/temperature 21.5\nclosed",
        "42\n[0, 1, 2]",
    ],
}


def programs() -> list[tuple[str, str, str]]:
    found = []
    for guide, outputs in GUIDES.items():
        text = (ROOT / "docs" / "howto" / f"{guide}.md").read_text(encoding="utf-8")
        found += [
            (guide, program, output)
            for program, output in zip(
                re.findall(r"```python\n(.*?)```", text, re.DOTALL), outputs, strict=True
            )
        ]
    return found


@pytest.mark.parametrize(("guide", "program", "output"), programs())
def test_a_program_of_a_guide_does_what_it_says(
    guide: str, program: str, output: str, tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "MESH_HOME": str(tmp_path), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stdout.strip()) == (0, output), done.stderr
