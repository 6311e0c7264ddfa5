"""No key seals two frames under one nonce: over epochs, scopes, removals, restarts and threads."""

from __future__ import annotations

import os
import threading
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from mesh.config import Config, Rule
from mesh.core import envelope
from mesh.core.envelope import AES_256_GCM, BATCH, SealingKey
from tests.core.virtual import World


class Audited:
    """AES-GCM that notes each key and nonce it seals with."""

    seen: set[tuple[bytes, bytes]]
    sealed: int

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._aead = AESGCM(key)
        self.decrypt = self._aead.decrypt

    def encrypt(self, nonce: bytes, data: bytes, aad: bytes) -> bytes:
        Audited.seen.add((self._key, nonce))
        Audited.sealed += 1
        return self._aead.encrypt(nonce, data, aad)

    def encrypt_into(self, nonce: bytes, data: bytes, aad: bytes, buffer: memoryview) -> int:
        Audited.seen.add((self._key, nonce))
        Audited.sealed += 1
        return self._aead.encrypt_into(nonce, data, aad, buffer)


@pytest.fixture(autouse=True)
def audit(monkeypatch: pytest.MonkeyPatch) -> None:
    Audited.seen = set()
    Audited.sealed = 0
    ciphers: dict[int, Any] = {**envelope._CIPHERS, AES_256_GCM: Audited}
    monkeypatch.setattr(envelope, "_CIPHERS", ciphers)


def test_in_the_life_of_a_mesh() -> None:
    rules = (Rule(("subscribe",), ("payroll/**",)),)
    config = Config.lan(key_frames=7, key_lifetime=20.0, rules=rules)  # epochs end soon, by count and by time
    world = World(3)
    nodes = [world.add(name, config) for name in "abc"]
    world.meet()
    for node in nodes:
        node.subscribe("**")
    for lap in range(4):
        for node in nodes:
            for number in range(20):
                node.publish("x", number)
                if not number % 10:
                    node.publish("x", bytes(40 << 10))  # sealed another way
                node.publish("payroll/x", number)
            world.run(0.5)
        world.run(15.0)
        nodes[0].engine.standing.adopt(*world.revoke(lap + 2), world.clock)
        nodes[0].carry_out()
        gone = nodes.pop()
        gone.kill()
        # Of the same member, as after a crash or with a disk that was rolled back: nothing of before is known.
        nodes.append(world.add(f"again{lap}", config, member=gone.member))
        for node in nodes[:-1]:
            nodes[-1].engine.hint(node.id, [node.addresses[0].intro], world.clock)
        nodes[-1].carry_out()
        nodes[-1].subscribe("**")
        world.run(15.0)
    assert Audited.sealed > 400
    assert len(Audited.seen) == Audited.sealed


def test_a_failed_seal_spends_its_nonce(monkeypatch: pytest.MonkeyPatch) -> None:
    key = SealingKey(bytes(8), bytes(32), 0.0, owner=bytes(16))
    key.seal(BATCH, b"D", b"1", 0.0)
    with pytest.raises(TypeError):
        key.seal(BATCH, b"D", b"2", None)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        key.seal(BATCH, "D", b"3", 0.0)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        key.seal(BATCH, "D", bytes(40 << 10), 0.0)  # type: ignore[arg-type]
    key.seal(BATCH, b"D", bytes(40 << 10), 0.0)
    key.seal(BATCH, b"D", b"4", 0.0)
    assert len(Audited.seen) == Audited.sealed == 3


def test_threads_with_nodes_of_their_own() -> None:
    def life() -> None:
        key = SealingKey(
            threading.get_ident().to_bytes(8, "big"), os.urandom(32), 0.0, owner=bytes(16), max_frames=50
        )
        for _ in range(200):
            key.seal(BATCH, b"D", b"x", 0.0)

    threads = [threading.Thread(target=life) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(Audited.seen) == 8 * 200
