"""``token create``, ``token list``, ``token revoke``: who may use the web gateway, and for what."""

from __future__ import annotations

from typing import Annotated

import typer

from mesh.cli.base import HomeOption, JsonOption, at_home, guarded, usage
from mesh.cli.output import json_line, say, table, write

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    family = typer.Typer(
        help="Tokens for the web gateway (mesh daemon --http).",
        no_args_is_help=True,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    family.command("create")(guarded(create))
    family.command("list")(guarded(list_tokens))
    family.command("revoke")(guarded(revoke))
    app.add_typer(family, name="token")


def create(
    allow: Annotated[
        list[str],
        typer.Option(
            "--allow",
            metavar="ACTION:PATTERN",
            help="What it may do: publish, subscribe or request, and on which topics (may be repeated).",
            show_default=False,
        ),
    ],
    name: Annotated[
        str,
        typer.Option(
            "--name", metavar="NAME", help="What for: mesh token list shows it.", show_default=False
        ),
    ] = "",
    expires: Annotated[
        str | None,
        typer.Option(
            "--expires",
            metavar="TIME",
            help="How long it counts: 1h, 30d (else until revoked).",
            show_default=False,
        ),
    ] = None,
    home: HomeOption = None,
) -> int:
    """Make a token and print it. It counts at once, and this is the only time that it can be seen.

    \b
    Examples:
      mesh token create --allow 'publish:home/**' --allow 'subscribe:**'
      mesh token create --name panel --expires 30d --allow 'subscribe:home/**'
    """
    from bridges.web.scopes import read_scope
    from mesh.cli.identity import duration
    from mesh.errors import ConfigError
    from mesh.home.tokens import TokenFile

    try:
        scopes = [str(read_scope(text)) for text in allow]
    except ConfigError as error:
        usage(f"--allow {error.reason}")
    if len(name) > 64 or not (name.isprintable()):
        usage(f"--name {name!r}: expected at most 64 printable characters")
    token = TokenFile(at_home(home).path).create(name, scopes, None if expires is None else duration(expires))
    write(token + "\n")
    return 0


def list_tokens(json: JsonOption = False, home: HomeOption = None) -> int:
    """List the tokens that count; a token itself is kept nowhere.

    \b
    Examples:
      mesh token list
      mesh token list --json
    """
    from mesh.cli.identity import date
    from mesh.home.tokens import TokenFile

    tokens = TokenFile(at_home(home).path).all()
    if json:
        listed = [
            {
                "id": each.id,
                "name": each.name,
                "scopes": list(each.scopes),
                "created": each.created,
                "expires": each.expires or None,
            }
            for each in tokens
        ]
        write(json_line(listed))
    elif tokens:
        rows = [
            (
                each.id,
                each.name,
                date(each.created),
                date(each.expires) if each.expires else "never",
                " ".join(each.scopes),
            )
            for each in tokens
        ]
        write(table(("id", "name", "created", "expires", "allows"), rows))
    else:
        say("no tokens: mesh token create makes one")
    return 0


def revoke(
    token: Annotated[str, typer.Argument(metavar="ID", help="Its id, or its name.", show_default=False)],
    home: HomeOption = None,
) -> int:
    """Let a token count no longer: clients that are connected with it are cut off within a second or two.

    \b
    Examples:
      mesh token revoke 5f3a9c01
    """
    from mesh.home.tokens import TokenFile

    gone = TokenFile(at_home(home).path).revoke(token)
    write(f"revoked {gone.id}{f' ({gone.name})' if gone.name else ''}\n")
    return 0
