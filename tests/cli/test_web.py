"""The gateway as its machine's owner meets it: ``mesh daemon --http`` and ``mesh token``."""

from __future__ import annotations

import json
import re
import signal
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import trio
from websockets.exceptions import ConnectionClosed
from websockets.trio.client import connect

from tests.cli.command import QUIET, daemon, home_at, mesh, mesh_here
from tests.lab import Running


def where(running: Running) -> str:
    found = re.search(r"https?://\S+", running.stdout[0])
    assert found is not None
    return found[0]


async def get(url: str, token: str = "") -> tuple[int, Any]:
    def ask() -> tuple[int, Any]:
        request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"} if token else {})
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    return await trio.to_thread.run_sync(ask)


async def test_a_token_counts_at_once_and_until_it_is_revoked(tmp_path: Path) -> None:
    home = home_at(tmp_path / "home")
    async with daemon(home, "--name", "kitchen", "--http", "127.0.0.1:0") as running:
        url = where(running)
        assert (await get(f"{url}/api/v1/peers"))[0] == 200
        made = await mesh(
            "token", "create", "--allow", "publish:home/**", "--allow", "subscribe:**", home=home
        )
        token = made.stdout[0]
        assert (await get(f"{url}/api/v1/peers"))[0] == 401
        assert (await get(f"{url}/api/v1/peers", token))[0] == 200
        assert (await get(f"{url}/healthz"))[1]["node"] == "kitchen"

        listed = (await mesh("token", "list", "--json", home=home)).json
        assert listed[0]["scopes"] == ["publish:home/**", "subscribe:**"]
        async with connect(
            url.replace("http", "ws") + "/ws", additional_headers={"Authorization": f"Bearer {token}"}
        ) as socket:
            assert json.loads(await socket.recv()) == {"op": "ready", "node": "kitchen"}
            assert (await mesh("token", "revoke", listed[0]["id"], home=home)).code == 0
            with trio.fail_after(30), pytest.raises(ConnectionClosed) as closed:
                await socket.recv()
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 4401
        assert (await get(f"{url}/api/v1/peers", token))[0] == 401

        async with connect(url.replace("http", "ws") + "/ws") as socket:
            await socket.recv()
            running.signal(signal.SIGTERM)
            with trio.fail_after(30), pytest.raises(ConnectionClosed) as closed:
                await socket.recv()
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1001
            assert await running.wait(within=10) == 0


async def test_the_file_configures_it_with_tls(tmp_path: Path) -> None:
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    make_certificate(certificate, key)
    home = home_at(
        tmp_path / "home",
        f"[http]\nlisten = '127.0.0.1:0'\ncertificate = '{certificate}'\nkey = '{key}'\n" + QUIET,
    )
    async with daemon(home) as running:
        url = where(running)
        assert url.startswith("https://127.0.0.1:")
        context = ssl.create_default_context(cafile=str(certificate))
        async with connect(url.replace("https", "wss") + "/ws", ssl=context, origin=url) as socket:  # type: ignore[arg-type]
            assert json.loads(await socket.recv())["op"] == "ready"
            await socket.send('{"op":"subscribe","id":1,"pattern":"a"}')
            assert json.loads(await socket.recv())["op"] == "subscribed"
            await socket.send('{"op":"publish","topic":"a","value":"' + "x" * 300_000 + '"}')
            with trio.fail_after(30):
                assert len(json.loads(await socket.recv())["value"]) == 300_000


def make_certificate(certificate: Path, key: Path) -> None:
    """A self-signed certificate for 127.0.0.1."""
    import datetime
    import ipaddress

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    secret = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, "gateway")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(secret.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(secret, hashes.SHA256())
    )
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    key.write_bytes(
        secret.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )


async def test_what_keeps_it_from_starting_is_one_line(tmp_path: Path) -> None:
    home = home_at(tmp_path / "home")
    async with await trio.open_tcp_stream(*await _somebody_listens()) as other:
        port = other.socket.getpeername()[1]
        done = await mesh("daemon", "--http", f"127.0.0.1:{port}", home=home)
    assert (done.code, done.line) == (1, f"http://127.0.0.1:{port}: the port is in use")
    home = home_at(tmp_path / "other", QUIET + "[http]\ncertificate = '/nowhere.pem'\n")
    done = await mesh("daemon", home=home)
    assert done.code == 1
    assert "http.certificate: /nowhere.pem: No such file" in done.line


async def _somebody_listens() -> tuple[str, int]:
    import socket

    listener = socket.create_server(("127.0.0.1", 0))
    _HELD.append(listener)
    return "127.0.0.1", listener.getsockname()[1]


_HELD: list[Any] = []


@pytest.fixture(autouse=True)
def _let_go() -> Any:
    yield
    while _HELD:
        _HELD.pop().close()


def test_without_the_extra_there_is_a_hint(tmp_path: Path) -> None:
    """And nothing of the web is imported before a gateway is wanted."""
    home = home_at(tmp_path / "home")
    program = (
        "import sys; sys.modules['fastapi'] = None\n"
        "from mesh.cli.main import main\n"
        f"main(['daemon', '--home', {str(home)!r}, *sys.argv[1:]])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "--http", "127.0.0.1:0"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert "pip install 'zeromesh[web]'" in done.stderr
    assert done.stderr.count("\n") == 1
    imported = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys, mesh.daemon.daemon, bridges.web; print('fastapi' in sys.modules)",
        ],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert imported.stdout.strip() == "False"


def test_tokens_by_hand(own_home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert "no tokens" in mesh_here(capfd, "token", "list").stderr[0]
    done = mesh_here(capfd, "token", "create", "--name", "panel", "--expires", "1h", "--allow", "subscribe")
    assert len(done.stdout) == 1
    assert len(done.stdout[0]) >= 43  # 256 bits
    table = "\n".join(mesh_here(capfd, "token", "list").stdout)
    assert "panel" in table
    assert "subscribe:**" in table
    assert done.stdout[0] not in table
    assert mesh_here(capfd, "token", "revoke", "panel").stdout[0].endswith("(panel)")
    for words, code, line in (
        (("create",), 2, "missing option '--allow'"),
        (("create", "--allow", "home/**"), 2, "expected publish:PATTERN"),
        (("create", "--allow", "publish:a//b"), 2, "empty level"),
        (("create", "--allow", "publish", "--expires", "soon"), 2, "soon"),
        (("revoke", "panel"), 1, "no token has the id or name 'panel'"),
    ):
        done = mesh_here(capfd, "token", *words)
        assert done.code == code, words
        assert line in done.line
