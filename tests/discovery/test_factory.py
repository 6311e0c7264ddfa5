from __future__ import annotations

import subprocess
import sys

import pytest

from mesh.discovery.factory import create
from mesh.errors import ConfigError

KEY = bytes(32)


def test_by_name_in_the_order_given() -> None:
    assert [each.name for each in create(("scout", "mdns"), beacon_key=KEY)] == ["scout", "mdns"]
    assert create((), beacon_key=KEY) == []


@pytest.mark.parametrize(
    ("names", "says"), [(["mdsn"], "'mdsn'"), (["scout", "scout"], "twice"), ("mdns", "list")]
)
def test_what_is_wrong_is_named(names: list[str], says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        create(names, beacon_key=KEY)
    assert caught.value.key == "discovery"


def test_zeroconf_is_not_loaded_for_the_scout_alone() -> None:
    program = (
        "import sys; from mesh.discovery.factory import create; create(['scout'], beacon_key=b'');"
        "sys.exit('zeroconf' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
