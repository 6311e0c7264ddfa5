"""Messages, batches, digests and beacons against vectors that were made without this code."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import pytest

from mesh.core.codec import (
    decode_batch,
    decode_chunk,
    decode_direct,
    decode_intro,
    decode_tail,
    encode_batch,
    encode_chunk,
    encode_direct,
    encode_intro,
    encode_tail,
)
from mesh.core.interest import InterestSet, RemoteInterests
from mesh.core.keys import beacon_key
from mesh.core.messages import DIRECT, INTRO, Batch, Chunk, InterestsMessage, Tail
from mesh.core.types import MeshId, NodeId, Reason, RemoteProtocolError
from mesh.discovery.beacon import Beacon, Kind, decode, encode, read_txt, to_txt

FOLDER = Path(__file__).parent.parent / "vectors"
MESSAGES: dict[str, Any] = json.loads((FOLDER / "messages.json").read_text(encoding="utf-8"))
BEACONS: dict[str, Any] = json.loads((FOLDER / "beacon.json").read_text(encoding="utf-8"))


def unplain(value: Any) -> Any:
    """From JSON: ``{"bytes": hex}`` is a byte string."""
    if isinstance(value, dict) and value.keys() == {"bytes"}:
        return bytes.fromhex(value["bytes"])
    return [unplain(each) for each in value] if isinstance(value, list) else value


def test_the_script_makes_the_files() -> None:
    for name, text in runpy.run_path(str(FOLDER / "make_messages.py"))["texts"]().items():
        assert (FOLDER / name).read_text(encoding="utf-8") == text, name


def test_no_message_is_without_a_vector() -> None:
    assert {vector["code"] for vector in MESSAGES["intro"]} == INTRO.keys()
    assert {vector["code"] for vector in MESSAGES["direct"]} == DIRECT.keys()


@pytest.mark.parametrize("vector", MESSAGES["intro"], ids=lambda vector: vector["message"])
def test_vectors_of_the_intro_plane(vector: dict[str, Any]) -> None:
    encoded = bytes.fromhex(vector["encoded"])
    message = INTRO[vector["code"]][0]._make(unplain(vector["fields"]))
    assert type(message).__name__ == f"{vector['message']}Message"
    assert encode_intro(message) == encoded
    assert decode_intro(encoded) == message
    with pytest.raises(RemoteProtocolError):
        decode_direct(encoded)


@pytest.mark.parametrize("vector", MESSAGES["direct"], ids=lambda vector: vector["message"])
def test_vectors_of_the_direct_plane(vector: dict[str, Any]) -> None:
    encoded = bytes.fromhex(vector["encoded"])
    message = DIRECT[vector["code"]][0]._make(unplain(vector["fields"]))
    assert type(message).__name__ == f"{vector['message']}Message"
    assert encode_direct(message) == encoded
    assert decode_direct(encoded) == message
    with pytest.raises(RemoteProtocolError):
        decode_intro(encoded)


@pytest.mark.parametrize("vector", MESSAGES["batches"])
def test_vectors_of_batches(vector: dict[str, Any]) -> None:
    encoded = bytes.fromhex(vector["encoded"])
    *fields, headers = unplain(vector["fields"])
    batch = Batch(*fields, None if headers is None else dict(headers))
    assert encode_batch(batch) == encoded
    assert decode_batch(encoded) == batch


@pytest.mark.parametrize("vector", MESSAGES["tails"])
def test_vectors_of_tails(vector: dict[str, Any]) -> None:
    encoded = bytes.fromhex(vector["encoded"])
    tail = Tail(*unplain(vector["fields"]))
    assert encode_tail(tail) == encoded
    assert decode_tail(encoded) == tail


@pytest.mark.parametrize("vector", MESSAGES["chunks"])
def test_vectors_of_chunks(vector: dict[str, Any]) -> None:
    encoded, piece = bytes.fromhex(vector["encoded"]), bytes.fromhex(vector["piece"])
    chunk = Chunk(*unplain(vector["fields"]))
    assert encode_chunk(chunk, piece) == encoded
    assert decode_chunk(encoded) == (chunk, piece)


@pytest.mark.parametrize("why", MESSAGES["refused_chunks"])
def test_chunks_that_are_refused(why: str) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        decode_chunk(bytes.fromhex(MESSAGES["refused_chunks"][why]))
    assert caught.value.reason is Reason.BAD_MESSAGE


@pytest.mark.parametrize("vector", MESSAGES["digests"])
def test_vectors_of_digests(vector: dict[str, Any]) -> None:
    entries = vector["entries"]
    theirs = RemoteInterests()
    theirs.apply(InterestsMessage(0, 1, entries, [], True))
    assert theirs.digest().hex() == vector["digest"]
    ours = InterestSet()
    for number, kind, pattern, group, history, mode in entries[:2]:
        assert ours.add(kind, pattern, group, history, mode).number == number
    if len(entries) <= 2:
        assert ours.digest().hex() == vector["digest"]


@pytest.mark.parametrize("why", MESSAGES["refused"])
def test_vectors_that_are_refused(why: str) -> None:
    encoded = bytes.fromhex(MESSAGES["refused"][why])
    for decoder in (decode_direct, decode_intro):
        with pytest.raises(RemoteProtocolError) as caught:
            decoder(encoded)
        assert caught.value.reason is Reason.BAD_MESSAGE


@pytest.mark.parametrize("why", MESSAGES["refused_batches"])
def test_batches_that_are_refused(why: str) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        decode_batch(bytes.fromhex(MESSAGES["refused_batches"][why]))
    assert caught.value.reason is Reason.BAD_MESSAGE


@pytest.mark.parametrize("vector", BEACONS["beacons"])
def test_vectors_of_beacons(vector: dict[str, Any]) -> None:
    key = beacon_key(MeshId(bytes.fromhex(BEACONS["mesh_id"])))
    assert key.hex() == BEACONS["beacon_key"]
    low, high = vector["versions"]
    beacon = Beacon(NodeId(bytes.fromhex(BEACONS["node"])), tuple(vector["endpoints"]), (low, high))
    kind, encoded = Kind(vector["kind"]), bytes.fromhex(vector["beacon"])
    assert encode(beacon, kind, key) == encoded
    assert decode(encoded, key) == (kind, beacon)
    assert to_txt(encoded).hex() == vector["txt"]
    assert read_txt(bytes.fromhex(vector["txt"])) == encoded
