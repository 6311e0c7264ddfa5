"""``pub``, ``sub`` and ``request``: messages from the command line."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mesh.cli.base import (
    ConnectOption,
    HomeOption,
    JsonOption,
    NameOption,
    VerboseOption,
    guarded,
    run,
    set_up_logging,
    usage,
)
from mesh.cli.output import colour, json_line, parse_value, say, send, shown, value_bytes, write

if TYPE_CHECKING:
    import mesh

__all__ = ["register"]

TopicArgument = Annotated[str, typer.Argument(metavar="TOPIC", show_default=False)]
ValueArgument = Annotated[str | None, typer.Argument(metavar="[VALUE]", show_default=False)]
RawOption = Annotated[bool, typer.Option("--raw", help="Take the value as bytes, as it stands.")]
HeaderOption = Annotated[
    list[str] | None,
    typer.Option(
        "--header", "-H", metavar="NAME=TEXT", help="A header (may be repeated).", show_default=False
    ),
]
ToOption = Annotated[
    str | None, typer.Option("--to", metavar="PEER", help="This peer alone (name or id).", show_default=False)
]


def register(app: typer.Typer) -> None:
    values = {"ignore_unknown_options": True}  # so that -5 is a value; _value() minds the rest
    app.command("pub", context_settings=values)(guarded(pub))
    app.command("sub")(guarded(sub))
    app.command("request", context_settings=values)(guarded(request))


def _value(text: str, *, raw: bool) -> Any:
    if raw:
        return text.encode(errors="surrogateescape")
    value = parse_value(text)
    if (
        text.startswith("-")
        and text != "-"
        and isinstance(value, str)
        and text[1:2].isalpha() | (text[1:2] == "-")
    ):
        usage(f"no such option: {text} (a value that begins with a dash goes behind --)")
    return value


def _headers(pairs: list[str] | None) -> dict[str, str] | None:
    if not pairs:
        return None
    headers = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not name or not equals:
            usage(f"--header {pair}: expected NAME=TEXT")
        headers[name] = text
    return headers


def pub(
    topic: TopicArgument,
    value: ValueArgument = None,
    raw: RawOption = False,
    header: HeaderOption = None,
    to: ToOption = None,
    name: NameOption = None,
    connect: ConnectOption = None,
    home: HomeOption = None,
    verbose: VerboseOption = 0,
) -> int:
    """Publish one value, or each line of standard input as it comes.

    A value is JSON if it parses, else text; with --raw it is bytes.

    \b
    Examples:
      mesh pub home/kitchen/temperature 21.5
      mesh pub home/kitchen/lamp '{"on": true}'
      vmstat 1 | mesh pub machines/kitchen/vmstat
    """
    set_up_logging(verbose)
    headers = _headers(header)
    single = None if value is None else _value(value, raw=raw)
    return run(lambda: _pub(topic, value is not None, single, raw, headers, to, name, connect, home))


async def _pub(
    topic: str,
    one: bool,
    value: Any,
    raw: bool,
    headers: dict[str, str] | None,
    to: str | None,
    name: str | None,
    connect: list[str] | None,
    home: Path | None,
) -> None:
    from mesh.cli import stdin
    from mesh.cli.nodes import joined, peer_named, wait_for_company
    from mesh.core.topic import check_topic

    check_topic(topic)
    async with joined(home, name=name, connect=connect) as node:
        target = None
        if to is not None:
            target = (await peer_named(node, to))[0].id
        else:
            await wait_for_company(node)
        if one:
            await node.publish(topic, value, headers=headers, to=target)
            if not node.peers:
                say("published, and no peer was in sight to hear it (mesh doctor looks for the reason)")
            return
        if sys.stdin is not None and sys.stdin.isatty():
            say("each line is published; Ctrl-D ends")
        async for line in stdin.lines(most=node.config.limits.value_bytes):
            item = line if raw else parse_value(line.decode(errors="surrogateescape"))
            if isinstance(item, str) and not item.isascii() and "\udc80" <= max(item) <= "\udcff":
                item = line  # not UTF-8: bytes are what it is
            await node.publish(topic, item, headers=headers, to=target)


def sub(
    pattern: Annotated[str, typer.Argument(metavar="PATTERN", show_default=False)],
    json: JsonOption = False,
    raw: Annotated[bool, typer.Option("--raw", help="Print the values alone, bytes as they are.")] = False,
    count: Annotated[
        int | None,
        typer.Option("--count", metavar="N", min=1, help="End after N messages.", show_default=False),
    ] = None,
    history: Annotated[
        int, typer.Option("--history", metavar="N", min=0, help="Begin with the last N messages.")
    ] = 0,
    group: Annotated[
        str | None,
        typer.Option(
            "--group", metavar="NAME", help="Share the messages with this group.", show_default=False
        ),
    ] = None,
    overflow: Annotated[
        str,
        typer.Option(
            "--overflow",
            metavar="POLICY",
            help="What happens when output is too slow: drop_oldest, drop_newest, raise, backpressure.",
        ),
    ] = "drop_oldest",
    name: NameOption = None,
    connect: ConnectOption = None,
    home: HomeOption = None,
    verbose: VerboseOption = 0,
) -> int:
    """Print what is published on topics that match a pattern.

    In a pattern, * is one level of the topic and ** any number of levels (also none).
    A line on standard error says when the subscription is live.

    \b
    Examples:
      mesh sub 'home/*/temperature'
      mesh sub '**' --json | jq .value
      mesh sub home/kitchen/lamp --count 1
    """
    set_up_logging(verbose)
    if json and raw:
        usage("--json and --raw: one of them")
    form = _as_json if json else _as_bytes if raw else _for_people
    if overflow not in (known := ("drop_oldest", "drop_newest", "raise", "backpressure")):
        usage(f"--overflow {overflow}: one of {', '.join(known)}")
    options = {"history": history, "group": group, "overflow": overflow}
    return run(lambda: _sub(pattern, form, count, options, name, connect, home), endless=count is None)


def _as_json(message: mesh.Message) -> str:
    return json_line(
        {
            "topic": message.topic,
            "value": message.value,
            "sender": message.sender.name,
            "sequence": message.sequence,
            "timestamp": message.timestamp,
            "headers": dict(message.headers),
        }
    )


def _as_bytes(message: mesh.Message) -> bytes:
    return value_bytes(message.value) + b"\n"


def _for_people(message: mesh.Message) -> str:
    return f"{colour(message.topic, 'cyan')} {shown(message.value)}\n"


async def _sub(
    pattern: str,
    form: Any,
    count: int | None,
    options: dict[str, Any],
    name: str | None,
    connect: list[str] | None,
    home: Path | None,
) -> None:
    from mesh.cli.nodes import joined
    from mesh.core.topic import check_pattern
    from mesh.errors import ValueEncodingError

    check_pattern(pattern)
    async with (
        joined(home, name=name, connect=connect) as node,
        node.subscribe(pattern, **options) as messages,
    ):
        say(f"live: {pattern} on {_peers(len(node.peers))}")
        try:
            async for message in messages:
                try:
                    line = form(message)
                except ValueEncodingError as error:
                    say(f"mesh: {message.topic} from {message.sender.name}: {error}")
                    continue
                await send(line)
                if count is not None:
                    count -= 1
                    if count == 0:
                        return
        finally:
            if messages.dropped:
                say(
                    f"mesh: {messages.dropped} messages were dropped here: they came faster than they were printed"
                )


def _peers(n: int) -> str:
    return f"{n} peer{'' if n == 1 else 's'}"


def request(
    topic: TopicArgument,
    value: ValueArgument = None,
    everyone: Annotated[
        bool, typer.Option("--all", help="Ask every responder; print each reply as it comes.")
    ] = False,
    timeout: Annotated[
        float | None,
        typer.Option("--timeout", metavar="S", min=0.001, help="Seconds to wait.", show_default="5"),
    ] = None,
    raw: RawOption = False,
    header: HeaderOption = None,
    to: ToOption = None,
    json: JsonOption = False,
    name: NameOption = None,
    connect: ConnectOption = None,
    home: HomeOption = None,
    verbose: VerboseOption = 0,
) -> int:
    """Ask whoever serves a topic, and print the reply's value.

    Text and bytes are printed as they are, everything else as JSON. With --all, each reply is one
    JSON object on a line, with its sender.

    \b
    Examples:
      mesh request home/kitchen/uptime
      mesh request math/square 12 --timeout 2
      mesh request machines/load --all
    """
    set_up_logging(verbose)
    headers = _headers(header)
    asked = None if value is None else _value(value, raw=raw)
    if everyone and to is not None:
        usage("--all and --to: one of them")
    if everyone:
        return run(lambda: _request_all(topic, asked, timeout, headers, name, connect, home))
    return run(lambda: _request(topic, asked, timeout, headers, to, json, name, connect, home))


async def _request(
    topic: str,
    value: Any,
    timeout: float | None,
    headers: dict[str, str] | None,
    to: str | None,
    json: bool,
    name: str | None,
    connect: list[str] | None,
    home: Path | None,
) -> None:
    from mesh.cli.nodes import joined, patiently, peer_named

    async with joined(home, name=name, connect=connect) as node:
        target = None if to is None else (await peer_named(node, to))[0].id

        async def ask() -> Any:
            return await node.request(topic, value, timeout=timeout, to=target, headers=headers)

        reply = await patiently(ask)
    if json:
        write(json_line(reply))
    elif isinstance(reply, bytes):
        write(reply)
    elif isinstance(reply, str):
        write((shown(reply) if sys.stdout.isatty() and "\x1b" in reply else reply) + "\n")
    else:
        write(json_line(reply))


async def _request_all(
    topic: str,
    value: Any,
    timeout: float | None,
    headers: dict[str, str] | None,
    name: str | None,
    connect: list[str] | None,
    home: Path | None,
) -> int:
    from mesh.cli.nodes import joined, patiently
    from mesh.errors import MeshError

    answered = 0
    async with joined(home, name=name, connect=connect) as node:

        async def ask() -> None:
            nonlocal answered
            async with node.request_many(topic, value, timeout=timeout, headers=headers) as replies:
                async for reply in replies:
                    try:
                        said = {"sender": reply.sender.name, "value": reply.value}
                        answered += 1
                    except MeshError as error:
                        said = {
                            "sender": reply.sender.name,
                            "error": type(error).__name__,
                            "message": str(error),
                        }
                    await send(json_line(said))

        await patiently(ask)
    if not answered:
        raise MeshError(f"nobody answered {topic!r} with a value")
    return 0
