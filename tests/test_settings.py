from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.config import Config, Rule
from mesh.errors import ConfigError
from mesh.settings import HttpSettings, NodeSettings, Settings, load, parse
from mesh.settings.forms import reject_dial, reject_listen, reject_name

FULL = """\
[node]
name = "kitchen"
listen = ["tcp://*:7400"]
connect = ["tcp://cellar.local:7400", "tcp://[fd00::2]:7400"]
discovery = ["mdns"]
log = "warning"
tuning.probe_after = 2
limits.peers = 8

[http]
listen = "127.0.0.1:7480"
origins = ["https://panel.example"]

[[bridge]]
kind = "redis"
url = "redis://:${SECRET}@127.0.0.1:6379/0"
[[bridge.export]]
pattern = "home/**"
to = "home.{topic}"
[[bridge.import]]
from = "commands.*"
topic = "commands/{1}"

[[allow]]
action = ["publish", "subscribe"]
pattern = "payroll/**"
role = "hr"
member = ["kitchen"]
"""


def test_a_full_file_is_read() -> None:
    settings = parse(FULL, environment={"SECRET": "hush"}, read_bridge=dict)
    assert settings.node == NodeSettings(
        name="kitchen",
        listen=("tcp://*:7400",),
        connect=("tcp://cellar.local:7400", "tcp://[fd00::2]:7400"),
        discovery=("mdns",),
        log="warning",
        config=settings.node.config,
    )
    assert settings.node.config.probe_after == 2.0
    assert settings.node.config.limits.peers == 8
    assert settings.http == HttpSettings("127.0.0.1:7480", ("https://panel.example",))
    assert settings.bridges[0]["url"] == "redis://:hush@127.0.0.1:6379/0"
    assert settings.bridges[0]["import"] == [{"from": "commands.*", "topic": "commands/{1}"}]
    assert settings.allow == settings.node.config.rules
    assert settings.allow == (
        Rule(("publish", "subscribe"), ("payroll/**",), ("kitchen",), ("hr",), "allow[1]"),
    )


def test_an_empty_file_is_the_default() -> None:
    assert parse("") == Settings(file="mesh.toml")
    assert parse("[node]\npreset = 'local'").node.config == Config.local()


def test_secrets_stay_out_of_the_text_form() -> None:
    assert "hush" not in repr(parse(FULL, environment={"SECRET": "hush"}, read_bridge=dict))


def test_who_runs_no_bridge_needs_no_secret_of_one() -> None:
    assert parse(FULL, environment={}).bridges[0]["url"] == "redis://:${SECRET}@127.0.0.1:6379/0"


def test_a_bridge_says_what_is_wrong_inside_its_table() -> None:
    def read(document: object) -> object:
        raise ConfigError("is wrong", key="export[1].to")

    with pytest.raises(ConfigError) as caught:
        parse(FULL, environment={"SECRET": "x"}, read_bridge=read)
    assert (caught.value.line, caught.value.key) == (19, "bridge[1].export[1].to")


@pytest.mark.parametrize(
    ("text", "line", "key", "expected"),
    [
        ("[nod]", 1, "nod", 'did you mean "node"?'),
        ("\n[node]\nnmae = 'x'", 3, "node.nmae", 'did you mean "name"?'),
        ("[node]\nlisten = 7400", 2, "node.listen", "a list of endpoints, not 7400"),
        ("[node]\nlisten = [\n  'tcp://*'\n]", 2, "node.listen", 'not "tcp://*"'),
        ("[node]\nconnect = ['tcp://*:7400']", 2, "node.connect", "the endpoint of a peer"),
        ("[node]\nconnect = ['udp://cellar:7400']", 2, "node.connect", "such as"),
        ("[node]\ndiscovery = ['mdn']", 2, "node.discovery", 'did you mean "mdns"?'),
        ("[node]\nname = ''", 2, "node.name", "1 to 64 printable"),
        ("[node]\nname = 7", 2, "node.name", "not 7"),
        ("[node]\nlog = 'loud'", 2, "node.log", "debug"),
        ("[[allow]]\naction = 'read'\npattern = 'a'", 2, "allow[1].action", "publish"),
        ("[[allow]]\naction = 'publish'\npattern = 'a//b'", 3, "allow[1].pattern", "empty level"),
        ("[[allow]]\naction = 'publish'\npattern = 'a'\nrole = 'HR'", 4, "allow[1].role", "expected a role"),
        ("[[allow]]\naction = []\npattern = 'a'", 2, "allow[1].action", "one or more actions"),
        ("[[allow]]\npattern = 'a'", 1, "allow[1]", "has no action"),
        (
            "[[allow]]\naction = 'subscribe'\npattern = ['a', 'b', 'c', 'd', 'e', 'f', 'g', 'h']",
            1,
            "allow",
            "7 patterns with reader rules",
        ),
        ("[node.tuning]\nprobe_after = -1", 2, "node.tuning.probe_after", "a number above 0"),
        ("[node.tuning]\nprobe_after = nan", 2, "node.tuning.probe_after", "a number above 0"),
        ("[node.tuning]\nprobe_afer = 1", 2, "node.tuning.probe_afer", 'did you mean "probe_after"?'),
        ("[node]\nlimits.peers = 1.5", 2, "node.limits.peers", "a whole number"),
        ("[node]\nlimits = {peers = true}", 2, "node.limits.peers", "a whole number"),
        ("node = 3", 1, "node", "expected a table"),
        ("[http]\nlisten = 80", 2, "http.listen", "HOST:PORT"),
        ("[http]\norigins = ['*']", 2, "http.origins", "an Origin"),
        ("bridge = 1", 1, "bridge", "array of tables"),
        ("[[bridge]]\nkind='redis'\n[[bridge]]\nurl='x'", 3, "bridge[2]", "has no kind"),
        ("[[bridge]]\nkind='redis'\n[[bridge]]\nkind='rabit'", 4, "bridge[2].kind", '"rabbitmq"?'),
        ("[[bridge]]\nkind='redis'\nexport = 3", 3, "bridge[1].export", "array of tables"),
        (
            "[[bridge]]\nkind='redis'\n[[bridge.export]]\npattern='a'\n[[bridge.export]]\nto='${NO}'",
            6,
            "bridge[1].export[2].to",
            "no variable 'NO'",
        ),
    ],
)
def test_each_mistake_names_line_and_key(text: str, line: int, key: str, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text, file="/etc/mesh.toml", environment={}, read_bridge=dict)
    assert (caught.value.file, caught.value.line, caught.value.key) == ("/etc/mesh.toml", line, key)
    assert expected in str(caught.value)
    assert str(caught.value).startswith(f"/etc/mesh.toml:{line}: {key}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "line"),
    [("[node", 1), ("[node]\nname = ", 2), ('[node]\n\nname = "x', 3), ("a = 1\na = 2", 2), ("x = [", 1)],
)
def test_bad_toml_names_its_line(text: str, line: int) -> None:
    with pytest.raises(ConfigError, match="is not TOML") as caught:
        parse(text)
    assert caught.value.line == line
    assert "\n" not in str(caught.value)


def test_strings_that_look_like_keys_do_not_mislead() -> None:
    text = '[[bridge]]\nkind = "redis"\nnote = """\n[node]\nname = 3\n"""\n[node]\nname = 3\n'
    with pytest.raises(ConfigError) as caught:
        parse(text)
    assert caught.value.line == 8


def test_environment_variables() -> None:
    settings = parse("[node]\nname = '${A}-$${B}'", environment={"A": "x"})
    assert settings.node.name == "x-${B}"


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nothing\.toml: cannot be read: No such file"):
        load(tmp_path / "nothing.toml")
    with pytest.raises(ConfigError, match="Is a directory"):
        load(tmp_path)
    file = tmp_path / "mesh.toml"
    file.write_bytes(b"[node]\nname = '\xff'\n")
    with pytest.raises(ConfigError, match=r"mesh\.toml:2: is not UTF-8 text"):
        load(file)
    file.write_bytes(b"#" * (1 << 21))
    with pytest.raises(ConfigError, match="no configuration"):
        load(file)
    file.write_text("[node]\nname = 'here'\n")
    assert load(file).node.name == "here"


@pytest.mark.parametrize("good", ["tcp://*:7400", "tcp://[::]:0", "tcp://eth0:1", "ipc:///run/x"])
def test_endpoints_to_listen_on(good: str) -> None:
    assert reject_listen(good) is None


@pytest.mark.parametrize("bad", ["tcp://*", "tcp://*:65534", "udp://*:1", "ipc://run", "*:7400", 7400, None])
def test_no_endpoints_to_listen_on(bad: object) -> None:
    assert reject_listen(bad) is not None


@pytest.mark.parametrize("bad", ["tcp://*:1", "tcp://0.0.0.0:1", "tcp://[::]:1", "tcp://a:0", "tcp://a:*", 1])
def test_no_endpoints_to_dial(bad: object) -> None:
    assert reject_dial(bad) is not None


def test_names() -> None:
    assert reject_name("kitchen 2") is None
    for bad in ("", " x", "a\nb", "x" * 65, None):
        assert reject_name(bad) is not None


@given(st.text())
def test_any_text_is_settings_or_a_config_error(text: str) -> None:
    try:
        parse(text, environment={})
    except ConfigError as error:
        assert "\n" not in str(error).replace("\\n", "")


keys = st.sampled_from(["node", "name", "listen", "bridge", "kind", "a.b", '"c d"', "limits", "peers"])
scalars = st.sampled_from(["1", "-1.5", "'redis'", "true", "[]", "['tcp://*:0']", "{a = 1}", "nan"])
toml_lines = st.one_of(
    keys.map("[{}]".format),
    keys.map("[[{}]]".format),
    st.tuples(keys, scalars).map(" = ".join),
)


@given(st.lists(toml_lines, max_size=8).map("\n".join))
def test_any_toml_is_settings_or_names_a_line(text: str) -> None:
    try:
        parse(text, environment={})
    except ConfigError as error:
        assert 1 <= error.line <= max(1, len(text.splitlines()))
