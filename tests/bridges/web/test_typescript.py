"""The declarations of zeromesh.js, by TypeScript: they say what the code does, and the documents' programs go by them."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.bridges.web import typescript
from tests.sources import ROOT

STATIC = ROOT / "bridges/web/static"


def test_the_declarations_are_those_of_the_code(tmp_path: Path) -> None:
    try:
        compiler = typescript.compiler()
    except OSError as why:
        pytest.skip(f"NO TYPESCRIPT, so zeromesh.d.ts is not checked: {why}")
    for name in ("zeromesh.js", "zeromesh.d.ts"):
        shutil.copy(STATIC / name, tmp_path)
    shutil.copy(STATIC / "zeromesh.js", tmp_path / "implementation.js")
    shutil.copy(Path(__file__).with_name("types.ts"), tmp_path)
    guide = (ROOT / "docs/howto/web-node.md").read_text(encoding="utf-8")
    program = re.findall(r"```js\n(.*?)```", guide, re.DOTALL)
    assert program
    # `process` is Node's; its own declarations are another package.
    (tmp_path / "guide.ts").write_text(
        "declare const process: { env: Record<string, string | undefined> };\n" + program[0]
    )
    command = ["node", str(compiler), "--noEmit", "--strict", "--allowJs", "--target", "es2023"]
    command += ["--module", "nodenext", "--lib", "es2023,dom", "types.ts", "guide.ts"]
    (tmp_path / "package.json").write_text('{"type": "module"}')
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout
