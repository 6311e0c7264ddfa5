"""The contract, held against the fake and the real mechanisms (on this machine's own interfaces)."""

from __future__ import annotations

import os

import pytest

from mesh.discovery.mdns import MdnsDiscovery
from mesh.discovery.memory import MemoryDiscovery, MemoryHub
from mesh.discovery.scout import ScoutDiscovery
from tests.discovery.contract import DiscoveryContract, KeyedContract, Network


class TestMemory(DiscoveryContract):
    @pytest.fixture
    def network(self) -> Network:
        hub = MemoryHub()
        return lambda: MemoryDiscovery(hub)


@pytest.mark.usefixtures("multicast")
class TestScout(KeyedContract):
    PORT = 20000 + os.getpid() % 20000  # test runs side by side don't fill each other's sockets

    @pytest.fixture
    def network(self) -> Network:
        key = os.urandom(32)
        return lambda: ScoutDiscovery(key, port=self.PORT)

    @pytest.fixture
    def strangers(self) -> Network:
        return lambda: ScoutDiscovery(b"another mesh's beacon key", port=self.PORT)


@pytest.mark.usefixtures("multicast")
class TestMdns(KeyedContract):
    @pytest.fixture
    def network(self) -> Network:
        key = os.urandom(32)
        return lambda: MdnsDiscovery(key)

    @pytest.fixture
    def strangers(self) -> Network:
        return lambda: MdnsDiscovery(b"another mesh's beacon key")
