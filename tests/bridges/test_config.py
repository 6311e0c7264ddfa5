"""A ``[[bridge]]`` table is settings, or one line that says where it is wrong and shows no secret."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridges import kinds
from bridges.base import Broker, Kind
from bridges.config import read_bridge
from bridges.forms import Secret, flag
from bridges.mapping import words
from bridges.settings import BridgeSettings
from mesh.errors import ConfigError


def no_broker(settings: BridgeSettings, identity: str) -> Broker:
    raise NotImplementedError


KIND = Kind(
    name="post",
    schemes={"post": False, "posts": True},
    port=1234,
    separator=".",
    source=words,
    make=no_broker,
    options={"token": lambda value: None if isinstance(value, str) else "expected a text"},
    export_options={"loud": flag},
    export_templates=("key",),
    import_options={"quiet": flag},
)

FULL = """
kind = "post"
name = "attic"
url = "posts://ann:p%40ss@broker.example,[fd00::1]:99/my%2Fplace"
options.token = "canary-token"
spool = {folder = "/var/spool/mesh", bytes = 1000, full = "drop_oldest"}
[[export]]
pattern = "home/*/**"
to = "home.{2}.{1}"
key = "{1}"
reliable = true
format = "json"
loud = true
[[import]]
from = "commands.*"
topic = "commands/{1}"
separator = ":"
timeout = 9
quiet = false
"""


def read(text: str, **more: Any) -> BridgeSettings:
    def kind_named(name: str) -> Kind:
        assert name == "post"
        return KIND

    return read_bridge({**tomllib.loads(text), **more}, kind_named=kind_named)


def test_a_full_table() -> None:
    settings = read(FULL)
    assert settings.name == "attic"
    assert settings.address.hosts == (("broker.example", 1234), ("fd00::1", 99))
    assert (settings.address.username, settings.address.password) == ("ann", Secret("p@ss"))
    assert settings.address.path == "my/place"
    assert str(settings.address) == "posts://broker.example:1234,[fd00::1]:99/my/place"
    assert settings.verify
    assert settings.spool.folder == Path("/var/spool/mesh")
    assert (settings.spool.bytes, settings.spool.full) == (1000, "drop_oldest")
    export, came = settings.exports[0], settings.imports[0]
    assert export.to.fill("t", ["x", "y/z"], separator="/", to=".") == "home.y.z.x"
    assert (export.templates["key"].text, export.options) == ("{1}", {"loud": True})
    assert (export.reliable, export.format, export.decrypt, export.separator) == (True, "json", True, ".")
    assert came.source.captures("commands.light") == ("light",)
    assert (came.reliable, came.decrypt, came.separator, came.timeout) == (False, True, ":", 9.0)
    assert (export.name, came.name, came.options) == ("export[1]", "import[1]", {"quiet": False})


MINIMAL = 'kind = "post"\nurl = "post://localhost"\n'
EXPORT = '[[export]]\npattern = "a"\nto = "b"\n'


@pytest.mark.parametrize(
    ("text", "key", "expected"),
    [
        (MINIMAL, "kind", "has no route"),
        ('kind = "post"\n' + EXPORT, "url", 'such as "post://127.0.0.1:1234"'),
        (MINIMAL + "nmae = 'x'\n" + EXPORT, "nmae", 'did you mean "name"?'),
        (MINIMAL + "name = 'a b'\n" + EXPORT, "name", "letters"),
        (MINIMAL + "spool.ful = 'x'\n" + EXPORT, "spool.ful", 'did you mean "full"?'),
        (MINIMAL + "spool.full = 'explode'\n" + EXPORT, "spool.full", 'one of "block", "drop_oldest"'),
        (MINIMAL + "spool.bytes = 0\n" + EXPORT, "spool.bytes", "whole number above 0, not 0"),
        (MINIMAL + "tls.ca = '/x'\n" + EXPORT, "tls", "posts://"),
        (MINIMAL + "password_file = '/nowhere/x'\n" + EXPORT, "password_file", "No such file"),
        (MINIMAL + "options.tokn = 1\n" + EXPORT, "options.tokn", 'did you mean "token"?'),
        (MINIMAL + "export = 3", "export", "array of tables"),
        (MINIMAL + "[[export]]\nto = 'b'", "export[1].pattern", "is missing"),
        (MINIMAL + "[[export]]\npattern = 'a'", "export[1].to", "is missing"),
        (MINIMAL + EXPORT + "[[export]]\npattern = 'a//b'\nto = 'b'", "export[2].pattern", "empty level"),
        (MINIMAL + "[[export]]\npattern = '@mesh/x'\nto = 'b'", "export[1].pattern", "mesh's own"),
        (MINIMAL + "[[export]]\npattern = 'a/*'\nto = '{2}'", "export[1].to", "the pattern has 1 wildcard"),
        (MINIMAL + EXPORT + "relaible = true", "export[1].relaible", 'did you mean "reliable"?'),
        (MINIMAL + EXPORT + "reliable = 1", "export[1].reliable", "true or false, not 1"),
        (MINIMAL + EXPORT + "format = 'jsn'", "export[1].format", 'did you mean "json"?'),
        (MINIMAL + EXPORT + "loud = 1", "export[1].loud", "true or false"),
        (MINIMAL + EXPORT + "key = '{'", "export[1].key", "single '{'"),
        (MINIMAL + EXPORT + "quiet = true", "export[1].quiet", "is not known here"),
        (MINIMAL + EXPORT + "request = true", "export[1].request", "post carries no requests"),
        (MINIMAL + EXPORT + "decrypt = false\nformat = 'json'", "export[1].format", "stay sealed"),
        (MINIMAL + EXPORT + "dead_letter = 'a/*'", "export[1].dead_letter", "wildcard"),
        (MINIMAL + EXPORT + "dead_letter = '@x'", "export[1].dead_letter", "mesh's own"),
        (
            MINIMAL + "[[export]]\npattern = 'a/**'\nto = 'b'\ndead_letter = 'a/x'",
            "export[1].dead_letter",
            "exports",
        ),
        (MINIMAL + EXPORT + "timeout = -1", "export[1].timeout", "seconds above 0"),
        (MINIMAL + "[[import]]\ntopic = 'b'", "import[1].from", "is missing"),
        (MINIMAL + "[[import]]\nfrom = 'b'", "import[1].topic", "is missing"),
        (MINIMAL + "[[import]]\nfrom = 'b'\ntopic = '{1}'", "import[1].topic", "no wildcard"),
        (MINIMAL + "[[import]]\nfrom = 'b'\ntopic = 'a/*'", "import[1].topic", "wildcard"),
        (MINIMAL + "[[import]]\nfrom = 'b'\ntopic = '@x'", "import[1].topic", "mesh's own"),
    ],
)
def test_each_mistake_says_where(text: str, key: str, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(text)
    assert caught.value.key == key
    assert expected in caught.value.reason
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "post://u:canary@", "http://u:canary@h", "post://u:canary@h:0", "post://u:canary@h:99999", "canary",
        "post://u:canary@h/x?y=canary", "post://u:canary@h x", "posts:/canary", "post://u:canary@[zz]",
    ],
)  # fmt: skip
def test_a_wrong_url_is_not_repeated(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(EXPORT, kind="post", url=url)
    assert caught.value.key == "url"
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize("more", [{"password": 7}, {"options": {"token": 7}}, {"password": ["canary"]}])
def test_a_wrong_secret_is_not_repeated(more: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        read(MINIMAL + EXPORT, **more)
    assert "7" not in caught.value.reason
    assert "canary" not in str(caught.value)


def test_secrets_show_themselves_to_nobody(tmp_path: Path) -> None:
    settings = read(FULL)
    assert settings.options["token"] == "canary-token"
    assert not re.search("p@ss|p%40ss|canary", repr(settings) + str(settings))
    (tmp_path / "password").write_text("hush\n")
    settings = read(MINIMAL + f"password_file = '{tmp_path}/password'\n" + EXPORT)
    assert settings.address.password.reveal() == "hush"
    assert "hush" not in f"{settings} {settings.address.password}"


def test_one_password_is_enough() -> None:
    with pytest.raises(ConfigError, match="second password"):
        read(EXPORT, kind="post", url="post://u:x@h", password="y")


def test_only_a_loopback_may_stay_unverified(tmp_path: Path) -> None:
    def of(url: str, **tls: str) -> BridgeSettings:
        return read(EXPORT, kind="post", url=url, tls=tls)

    assert of("posts://broker.example").verify
    assert of("posts://192.168.1.2").verify
    assert of("posts://localhost,broker.example").verify
    assert not of("posts://localhost").verify
    assert not of("posts://127.0.0.3,[::1]").verify
    context = of("posts://broker.example").ssl_context()
    assert context is not None
    assert context.check_hostname
    assert of("post://localhost").ssl_context() is None
    for key in ("ca", "certificate"):
        with pytest.raises(ConfigError, match="No such file") as caught:
            of("posts://localhost", **{key: str(tmp_path / "nothing.pem")})
        assert caught.value.key == f"tls.{key}"
    with pytest.raises(ConfigError, match="needs a certificate"):
        of("posts://localhost", key="/x")


def test_an_extra_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError("No module named 'coredis'", name="coredis")

    monkeypatch.setitem(kinds.MODULES, "redis", "coredis")
    monkeypatch.setattr(kinds, "import_module", missing)
    with pytest.raises(ConfigError, match=r"pip install zeromesh\[redis\]"):
        kinds.kind_named("redis")
    with pytest.raises(ConfigError, match='did you mean "redis"'):
        kinds.kind_named("reddis")


KEYS = st.sampled_from(["url", "name", "tls", "spool", "options", "export", "import", "password", "x"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.just("post://h"),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(["pattern", "to", "from", "topic", "ca", "bytes", "token", "key"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=6,
)


@given(st.dictionaries(KEYS, VALUES, max_size=5))
def test_any_table_is_settings_or_a_config_error(table: dict[str, Any]) -> None:
    try:
        read("", **{"kind": "post", **table})
    except ConfigError as error:
        assert error.key
