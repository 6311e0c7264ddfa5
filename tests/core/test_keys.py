from __future__ import annotations

from mesh.core.keys import beacon_key, derive, intro_key_pair
from mesh.core.types import MeshId

MESH = MeshId(bytes(range(16)))


def test_each_use_has_its_own_key() -> None:
    assert len({derive(b"secret", info) for info in (b"key", b"iv", b"chain", b"tags", b"")}) == 5
    assert derive(b"secret", b"key") != derive(b"secre", b"key")


def test_length() -> None:
    assert len(derive(b"secret", b"iv", 12)) == 12
    assert derive(b"secret", b"iv", 12) == derive(b"secret", b"iv", 64)[:12]


def test_a_mesh_has_one_intro_key_pair() -> None:
    public, secret = intro_key_pair(MESH)
    assert (len(public), len(secret)) == (32, 32)
    assert intro_key_pair(MeshId(bytes(MESH))) == (public, secret)
    assert intro_key_pair(MeshId(bytes(16))) != (public, secret)
    assert beacon_key(MESH) not in (public, secret)
