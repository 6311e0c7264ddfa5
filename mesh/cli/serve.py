"""``serve``: answer each request on a topic with the output of a command.

request → its value on the command's standard input → the command, in a process group of
its own → standard output is the reply.  A command that fails is an error at the requester;
a requester that gives up, or runs out of time, ends the command.
"""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mesh.cli.base import ConnectOption, HomeOption, NameOption, VerboseOption, guarded, run, set_up_logging
from mesh.cli.output import parse_value, say, value_bytes

if TYPE_CHECKING:
    from mesh.node.request import Request

__all__ = ["CommandFailed", "register", "run_command"]

KILL_AFTER = 2.0  # seconds between asking a command to end and ending it


class CommandFailed(Exception):
    """The command exited with another status than 0; its name and text are what the requester sees."""


def register(app: typer.Typer) -> None:
    app.command("serve")(guarded(serve))


def serve(
    topic: Annotated[str, typer.Argument(metavar="TOPIC", show_default=False)],
    command: Annotated[
        str, typer.Option("--exec", metavar="CMD", help="The command, for /bin/sh -c.", show_default=False)
    ],
    concurrency: Annotated[
        int, typer.Option("--concurrency", metavar="N", min=1, help="How many may run at once.")
    ] = 8,
    raw: Annotated[bool, typer.Option("--raw", help="Reply with the output's bytes, as they are.")] = False,
    name: NameOption = None,
    connect: ConnectOption = None,
    home: HomeOption = None,
    verbose: VerboseOption = 0,
) -> int:
    """Answer each request with a command's output.

    The request's value is on the command's standard input (text and bytes as they are, anything else as
    JSON), its topic and sender in MESH_TOPIC and MESH_SENDER. Standard output is the reply: JSON if it
    parses, else text. A command that exits with another status than 0 is an error at the requester.

    \b
    Examples:
      mesh serve home/kitchen/uptime --exec uptime
      mesh serve math/square --exec 'jq ". * ."'
    """
    set_up_logging(verbose)

    async def main() -> None:
        from mesh.cli.nodes import joined
        from mesh.core.topic import check_pattern

        check_pattern(topic)

        async def answer(request: Request) -> Any:
            return await run_command(command, request, raw=raw)

        import trio

        async with joined(home, name=name, connect=connect) as node, trio.open_nursery() as nursery:

            async def serving(task_status: trio.TaskStatus[None]) -> None:
                await node.serve(topic, answer, concurrency=concurrency, task_status=task_status)

            await nursery.start(serving)
            say(f"live: serving {topic}")

    return run(main, endless=True)


async def run_command(command: str, request: Request, *, raw: bool = False) -> Any:
    """Run ``command`` for one request; its output is the reply. Raises ``CommandFailed``."""
    import trio

    environment = {**os.environ, "MESH_TOPIC": request.topic, "MESH_SENDER": request.sender.name}
    done = await trio.run_process(
        ["/bin/sh", "-c", command],
        stdin=value_bytes(request.value),
        capture_stdout=True,
        capture_stderr=True,
        check=False,
        env=environment,
        start_new_session=True,  # so that what the shell started ends with it
        deliver_cancel=_end_group,
    )
    complaint = done.stderr.decode(errors="replace").strip()
    if complaint:
        say(complaint)
    if done.returncode != 0:
        how = f"exit status {done.returncode}" if done.returncode > 0 else f"signal {-done.returncode}"
        last = complaint.splitlines()[-1:] or [""]
        raise CommandFailed(f"{how}{': ' + last[0] if last[0] else ''}")
    return done.stdout if raw else reply_value(done.stdout)


def reply_value(output: bytes) -> Any:
    """Output → value: JSON if it parses, else text without its last newline, else the bytes."""
    try:
        text = output.decode()
    except UnicodeDecodeError:
        return output
    return parse_value(text.removesuffix("\n"))


async def _end_group(process: Any) -> None:
    import trio

    assert isinstance(process, trio.Process)
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            return
        with trio.move_on_after(KILL_AFTER):
            await process.wait()
            return
