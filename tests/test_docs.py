"""The README and the tutorials do what they print: their programs and their sessions are run, in order.

A fence of `console` is a session.  ``kitchen$ mesh id`` runs a command on the host *kitchen*, one of several on a LAN
of namespaces; ``$ mesh id`` on this machine.  What follows, up to the next prompt, is what it prints: all of it,
or with a line ``...`` some of it.  Commands that do not end by themselves run until the end of the document; a
fence without a prompt is what one of them printed.  A fence of `python` whose first line is a comment with a
file name is that file; any other is run, and a fence of `text` after it is what it prints.

What differs from run to run (ids, tokens, endpoints, times) is compared by its form.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import stat
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import NamedTuple

import pytest
import trio

import mesh
from mesh.portal.face import PUBLIC
from tests.lab import Host, Running, running
from tests.sources import ROOT, project_files

DOCUMENTS = [
    "README.md",
    *sorted(str(path) for path in project_files() if path.match("docs/tutorial/*.md")),
    "docs/howto/no-multicast.md",
    "docs/howto/ca.md",
]
SILENT = "<!-- The LAN of this page passes no multicast. -->"

ENDLESS = re.compile(r"mesh (daemon|serve|sub(?!.*--count)|peers --watch|invite.*--wait)|python ")
WITHIN = 60.0

VARYING = [
    (r"\b[0-9A-HJKMNP-TV-Z]{6}(-[0-9A-HJKMNP-TV-Z]{1,6}){5,}", "TOKEN"),
    (r"\b[0-9a-f]{32}\b", "ID"),
    (r"\b(tcp|ipc)://\S+( (tcp|ipc)://\S+)*", "ENDPOINTS"),
    (r"\d+\.\d+ ms|(?<=alive  )-", "TIME"),
    (r"\d{4}-\d\d-\d\d \d\d:\d\d UTC", "DATE"),
    (r'("timestamp": )\d+\.\d+', r"\1TIMESTAMP"),
    (r"\d+ messages in \d+\.\d s", "COUNTED"),
    (r'("sender": ")[^"]*-\d+"', r'\1SENDER"'),
    (r"\(/[^)]*\)", "(PATH)"),
    (r"\b([a-z]+)-\d+\b", r"\1-PID"),
    (r"(?<= on )\d+ peers?$", "PEERS"),  # who is met at once depends on how busy the machine is
    (r" +", " "),
]


class Step(NamedTuple):
    """One thing to do: write a file (``name``), run a command (``name`` is the host), or wait for more output."""

    kind: str
    name: str
    text: str
    expected: list[str]


def steps(document: str) -> Iterator[Step]:
    """What a document says to do."""
    fences = re.findall(r"^```(\w+)\n(.*?)^```", document, re.DOTALL | re.MULTILINE)
    for number, (language, text) in enumerate(fences):
        if language == "python":
            named = re.match(r"# (\S+\.py)\n", text)
            name = named[1] if named else f"program{number}.py"
            yield Step("file", name, text, [])
            if not named:
                follows = fences[number + 1] if number + 1 < len(fences) else ("", "")
                printed = follows[1].splitlines() if follows[0] == "text" else []
                yield Step("run", "", f"python {name}", printed)
        elif language == "console":
            yield from session(text)


def session(text: str) -> Iterator[Step]:
    host, command, printed = "", "", list[str]()
    for line in text.splitlines():
        if prompt := re.match(r"(\w*)\$ (.*)", line):
            if command:
                yield Step("run", host, command, printed)
            host, command, printed = prompt[1], prompt[2], []
        else:
            printed.append(line)
    yield Step("run" if command else "more", host, command, printed)


def alike(line: str) -> str:
    """The line with what varies replaced by its name."""
    for pattern, form in VARYING:
        line = re.sub(pattern, form, line)
    return line.strip()


class Session:
    """The hosts and programs of one document."""

    def __init__(self, stack: AsyncExitStack, folder: Path, hosts: Mapping[str, Host]) -> None:
        self._stack = stack
        self._folder = folder
        self._hosts = hosts
        self._left: list[Running] = []
        self._token = ""
        for name in ("bin/mesh", "bin/python"):
            script = folder / name
            script.parent.mkdir(exist_ok=True)
            module = " -m mesh.cli.main" if script.name == "mesh" else ""
            script.write_text(f'#!/bin/sh\nexec "{sys.executable}"{module} "$@"\n')
            script.chmod(script.stat().st_mode | stat.S_IXUSR)

    async def run(self, step: Step) -> None:
        if step.kind == "file":
            (self._folder / step.name).write_text(step.text)
        elif step.kind == "more":
            await self._expect(self._left, step.expected)
        else:
            await self._command(step)

    async def _command(self, step: Step) -> None:
        command = re.sub(VARYING[0][0], self._token, step.text)
        argv = ["sh", "-c", command if re.search(r"[|;&]", command) else f"exec {command}"]
        home = self._folder / (step.name or "home")
        environment = {
            "MESH_HOME": str(home),
            "PATH": f"{self._folder / 'bin'}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "PYTHONUNBUFFERED": "1",
            "TERM": "dumb",
        }
        start = self._hosts[step.name].running if step.name else running
        program = await self._stack.enter_async_context(start(argv, env=environment, cwd=self._folder))
        if ENDLESS.search(step.text):
            self._left.append(program)
            await self._expect([program], step.expected)
            return
        await program.close_stdin()
        code = await program.wait(within=WITHIN)
        assert code == 0, program.report()
        printed = [alike(line) for line in program.stdout + program.stderr]
        expected = [alike(line) for line in step.expected]
        if "..." in expected:
            assert {line for line in expected if line != "..."} <= set(printed), program.report()
        else:
            assert sorted(expected) == sorted(printed), program.report()
        if found := re.search(VARYING[0][0], "\n".join(program.stdout)):
            self._token = found[0]

    async def _expect(self, programs: list[Running], expected: list[str]) -> None:
        """One of them prints each of these lines, on either output."""
        wanted = {alike(line) for line in expected if line != "..."}
        with trio.move_on_after(WITHIN):
            async with trio.open_nursery() as nursery:
                for each in programs:
                    nursery.start_soon(self._until_printed, each, wanted, nursery.cancel_scope)
                await trio.sleep_forever()
            return
        reports = "\n".join(each.report() for each in programs)
        raise AssertionError(f"not all of {wanted} came\n{reports}")

    @staticmethod
    async def _until_printed(program: Running, wanted: set[str], found: trio.CancelScope) -> None:
        while not wanted <= {alike(line) for line in program.stdout + program.stderr}:
            await program.changed()
        found.cancel()

    async def end(self) -> None:
        """Ctrl-C ends what is still running; what has ended must have ended well."""
        for program in reversed(self._left):
            if program.process.poll() is None:
                program.signal(signal.SIGINT)
                code = await program.wait(within=WITHIN)
                assert code in (0, 1, -signal.SIGINT, 128 + signal.SIGINT), program.report()
                complaints = "\n".join(program.stderr)
                assert "Traceback" not in complaints or "KeyboardInterrupt" in complaints, program.report()
            else:
                assert program.process.returncode == 0, program.report()


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short path: a Unix socket's name has at most 107 bytes."""
    path = Path(tempfile.mkdtemp(prefix="zm-"))
    yield path
    shutil.rmtree(path)


@pytest.mark.slow
@pytest.mark.parametrize("document", DOCUMENTS)
async def test_a_document_does_what_it_prints(
    document: str, folder: Path, request: pytest.FixtureRequest
) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    todo = list(steps(text))
    hosts = list(dict.fromkeys(step.name for step in todo if step.kind == "run" and step.name))
    lan = request.getfixturevalue("lan")(len(hosts)) if hosts else None
    if lan is not None and SILENT in text:
        lan.set_multicast(False)
    failure = ""  # raised outside: each running program would wrap it in a group of its own
    with trio.fail_after(300):
        async with AsyncExitStack() as stack:
            its_session = Session(stack, folder, dict(zip(hosts, lan or (), strict=True)))
            try:
                for step in todo:
                    await its_session.run(step)
                await its_session.end()
            except AssertionError as error:
                failure = str(error)
    assert not failure, failure


def test_files_that_documents_name_are_there() -> None:
    faults = []
    for path in project_files():
        if path.suffix != ".md" or path.name == "CHANGELOG.md":
            continue
        for name in re.findall(
            r"`((?:mesh|tests|benchmarks|docs|tools|bridges)/[\w./-]+)`", (ROOT / path).read_text("utf-8")
        ):
            if not (ROOT / name).exists():
                faults.append(f"{path}: {name} is not there")
    assert not faults, "\n".join(["", *faults])


def test_every_document_is_linked_from_the_index() -> None:
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    linked = {(ROOT / "docs" / target).resolve() for target in re.findall(r"\]\(([^)#]+)", index)}
    documents = {ROOT / path for path in project_files() if path.parts[0] == "docs" and path.suffix == ".md"}
    missing = documents - linked - {ROOT / "docs" / "index.md"}
    assert not missing, missing


def test_the_reference_names_everything_public() -> None:
    text = (ROOT / "docs" / "reference" / "api.md").read_text(encoding="utf-8")
    names = {*mesh.__all__, *(name for names in PUBLIC.values() for name in names)}
    assert not {name for name in names if not re.search(rf"\b{name}\b", text)}
