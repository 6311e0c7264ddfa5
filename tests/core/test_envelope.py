from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.core.envelope import (
    AES_256_GCM,
    BARRIER,
    BATCH,
    CHACHA20_POLY1305,
    HEADER_SIZE,
    MAX_EPOCHS_AHEAD,
    OVERHEAD,
    Header,
    OpeningKey,
    SealingKey,
    parse_header,
)
from mesh.core.keyring import Keyring
from mesh.core.messages import KeyAnnouncement
from mesh.core.types import NodeId, Reason, RemoteProtocolError
from mesh.errors import MeshError

KEY_ID = b"key id 1"
ALICE = NodeId(b"a" * 16)
BOB = NodeId(b"b" * 16)
TAG = b"D" + bytes(range(16)) + b"\0"


def sealing(seed: int = 1, key_id: bytes = KEY_ID, *, owner: NodeId = ALICE, **options: Any) -> SealingKey:
    return SealingKey(key_id, random.Random(seed).randbytes(32), 0.0, owner=owner, **options)


def ring(*announcements: KeyAnnouncement, owner: NodeId = ALICE) -> Keyring:
    keyring = Keyring(1024)
    for announcement in announcements:
        keyring.add(owner, OpeningKey.from_announcement(announcement, owner))
    return keyring


def rejected(keyring: Keyring, frame: bytes, tag: bytes = TAG) -> Reason:
    with pytest.raises(RemoteProtocolError) as caught:
        keyring.open(tag, frame)
    return caught.value.reason


# -- one frame ----------------------------------------------------------------


@given(
    plaintext=st.binary(max_size=300),
    tag=st.binary(max_size=80),
    cipher=st.sampled_from([AES_256_GCM, CHACHA20_POLY1305]),
    frame_type=st.sampled_from([BATCH, BARRIER, 255]),
)
def test_what_is_sealed_opens(plaintext: bytes, tag: bytes, cipher: int, frame_type: int) -> None:
    key = sealing(cipher=cipher)
    keyring = ring(key.announcement())
    frame = key.seal(frame_type, tag, plaintext, 0.0)
    assert len(frame) == len(plaintext) + OVERHEAD
    assert parse_header(frame) == Header(frame_type, KEY_ID, 0, 0)
    assert keyring.open(tag, frame) == (ALICE, frame_type, plaintext)


def test_a_large_frame_opens() -> None:
    key = sealing()
    plaintext = bytes(1 << 20)
    keyring = ring(key.announcement())
    assert keyring.open(TAG, key.seal(BATCH, TAG, plaintext, 0.0)).plaintext == plaintext


SEALED = sealing().seal(BATCH, TAG, b"twenty-one and a half", 0.0)


@given(bit=st.integers(0, len(SEALED) * 8 - 1))
def test_every_bit_flip_is_rejected_and_changes_nothing(bit: int) -> None:
    keyring = ring(sealing().announcement())
    flipped = bytearray(SEALED)
    flipped[bit // 8] ^= 1 << bit % 8
    assert rejected(keyring, bytes(flipped)) in {
        Reason.BAD_MAGIC,
        Reason.BAD_VERSION,
        Reason.UNKNOWN_KEY,
        Reason.FUTURE_EPOCH,
        Reason.BAD_TAG,
    }
    assert keyring.open(TAG, SEALED).plaintext == b"twenty-one and a half"


@given(bit=st.integers(0, len(TAG) * 8 - 1))
def test_every_bit_flip_of_the_tag_chain_is_rejected(bit: int) -> None:
    flipped = bytearray(TAG)
    flipped[bit // 8] ^= 1 << bit % 8
    assert rejected(ring(sealing().announcement()), SEALED, bytes(flipped)) is Reason.BAD_TAG


@given(noise=st.binary(max_size=80))
def test_noise_is_rejected(noise: bytes) -> None:
    reason = rejected(ring(sealing().announcement()), noise)
    assert reason is (Reason.BAD_LENGTH if len(noise) < OVERHEAD else Reason.BAD_MAGIC)


@given(length=st.integers(0, len(SEALED) - 1))
def test_truncated_frames_are_rejected(length: int) -> None:
    reason = rejected(ring(sealing().announcement()), SEALED[:length])
    assert reason is (Reason.BAD_LENGTH if length < OVERHEAD else Reason.BAD_TAG)


def test_bytes_move_between_tag_and_frame_no_more_than_they_flip() -> None:
    keyring = ring(sealing().announcement())
    assert rejected(keyring, SEALED[1:], TAG + SEALED[:1]) is Reason.BAD_MAGIC
    assert rejected(keyring, TAG[-1:] + SEALED, TAG[:-1]) is Reason.BAD_MAGIC


@pytest.mark.parametrize(
    ("at", "value", "reason"),
    [
        (0, 0, Reason.BAD_MAGIC),
        (2, 2, Reason.BAD_VERSION),
        (4, 1, Reason.BAD_VERSION),
        (5, 1, Reason.BAD_VERSION),
    ],
)
def test_headers_of_other_protocols(at: int, value: int, reason: Reason) -> None:
    frame = bytearray(SEALED)
    frame[at] = value
    assert rejected(ring(sealing().announcement()), bytes(frame)) is reason


def test_unknown_key() -> None:
    assert rejected(Keyring(), SEALED) is Reason.UNKNOWN_KEY


# -- replay -------------------------------------------------------------------


def test_a_frame_counts_once() -> None:
    key = sealing()
    keyring = ring(key.announcement())
    frames = [key.seal(BATCH, TAG, bytes([i]), 0.0) for i in range(3)]
    for frame in reversed(frames):
        keyring.open(TAG, frame)
    for frame in frames:
        assert rejected(keyring, frame) is Reason.DUPLICATE


def test_frames_below_the_window() -> None:
    key = sealing()
    keyring = ring(key.announcement())
    first, *_, last = [key.seal(BATCH, TAG, b"", 0.0) for _ in range(2000)]
    keyring.open(TAG, last)
    assert rejected(keyring, first) is Reason.TOO_OLD


def test_a_new_receiver_begins_at_the_announced_counter() -> None:
    key = sealing()
    before = key.seal(BATCH, TAG, b"before", 0.0)
    announcement = key.announcement()
    assert announcement.counter == 1
    after = key.seal(BATCH, TAG, b"after", 0.0)
    keyring = ring(announcement)
    assert rejected(keyring, before) is Reason.TOO_OLD
    assert keyring.open(TAG, after).plaintext == b"after"


def test_a_forged_counter_does_not_move_the_window() -> None:
    key = sealing()
    keyring = ring(key.announcement())
    frame = bytearray(key.seal(BATCH, TAG, b"x", 0.0))
    genuine = bytes(frame)
    frame[HEADER_SIZE - 8 : HEADER_SIZE] = (1 << 60).to_bytes(8, "big")
    assert rejected(keyring, bytes(frame)) is Reason.BAD_TAG
    keyring.open(TAG, genuine)


def test_a_repeated_announcement_forgets_nothing() -> None:
    key = sealing()
    announcement = key.announcement()
    keyring = ring(announcement)
    frame = key.seal(BATCH, TAG, b"once", 0.0)
    keyring.open(TAG, frame)
    keyring.add(ALICE, OpeningKey.from_announcement(announcement, ALICE))
    assert rejected(keyring, frame) is Reason.DUPLICATE
    assert len(keyring) == 1


# -- epochs -------------------------------------------------------------------


def test_an_epoch_ends_after_so_many_frames() -> None:
    key = sealing(max_frames=3)
    headers = [parse_header(key.seal(BATCH, TAG, b"", 0.0)) for _ in range(7)]
    assert [(h.epoch, h.counter) for h in headers] == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (2, 0)]


def test_an_epoch_ends_before_so_many_bytes() -> None:
    key = sealing(max_bytes=100)
    sizes = [60, 40, 1, 99, 1, 1000, 1]
    assert [parse_header(key.seal(BATCH, TAG, bytes(n), 0.0)).epoch for n in sizes] == [0, 0, 1, 1, 2, 3, 4]


def test_an_epoch_ends_after_its_lifetime() -> None:
    key = sealing(lifetime=10.0)
    assert [parse_header(key.seal(BATCH, TAG, b"", clock)).epoch for clock in (0, 9.9, 10, 19.9, 100, 101)] == [
        0, 0, 1, 1, 2, 2,
    ]  # fmt: skip


def test_nonces_do_not_repeat_across_epochs() -> None:
    key = sealing(max_frames=1)
    frames = [key.seal(BATCH, TAG, b"the same", 0.0) for _ in range(3)]
    assert len({frame[HEADER_SIZE:] for frame in frames}) == 3


def test_receivers_follow_into_the_next_epochs() -> None:
    key = sealing(max_frames=2)
    keyring = ring(key.announcement())
    for i in range(20):
        assert keyring.open(TAG, key.seal(BATCH, TAG, bytes([i]), 0.0)).plaintext == bytes([i])


def test_frames_in_flight_around_the_change() -> None:
    key = sealing(max_frames=2)
    keyring = ring(key.announcement())
    zero, late, one, late_too, two, three = [key.seal(BATCH, TAG, b"", 0.0) for _ in range(6)]
    keyring.open(TAG, zero)
    keyring.open(TAG, one)
    keyring.open(TAG, late)
    assert rejected(keyring, zero) is Reason.DUPLICATE
    keyring.open(TAG, two)
    assert rejected(keyring, zero) is Reason.OLD_EPOCH
    keyring.open(TAG, late_too)
    assert rejected(keyring, one) is Reason.DUPLICATE
    keyring.open(TAG, three)


def test_an_epoch_that_was_skipped_is_kept_as_the_previous_one() -> None:
    key = sealing(max_frames=1)
    keyring = ring(key.announcement())
    frames = [key.seal(BATCH, TAG, b"", 0.0) for _ in range(6)]
    keyring.open(TAG, frames[5])
    keyring.open(TAG, frames[4])
    assert rejected(keyring, frames[4]) is Reason.DUPLICATE
    assert rejected(keyring, frames[3]) is Reason.OLD_EPOCH


def test_how_far_a_frame_may_pull_a_receiver() -> None:
    key = sealing(max_frames=1)
    first = key.announcement()
    frames = [key.seal(BATCH, TAG, b"", 0.0) for _ in range(MAX_EPOCHS_AHEAD + 2)]
    keyring = ring(first)
    assert rejected(keyring, frames[-1]) is Reason.FUTURE_EPOCH
    keyring.open(TAG, frames[-2])
    # … and who has missed more asks for the key again
    keyring = ring(first)
    keyring.add(ALICE, OpeningKey.from_announcement(key.announcement(), ALICE))
    assert rejected(keyring, frames[-1]) is Reason.TOO_OLD
    keyring.open(TAG, key.seal(BATCH, TAG, b"", 0.0))


def test_a_forged_epoch_moves_nothing() -> None:
    key = sealing()
    opening = OpeningKey.from_announcement(key.announcement(), ALICE)
    frame = bytearray(key.seal(BATCH, TAG, b"", 0.0))
    frame[14:18] = (MAX_EPOCHS_AHEAD).to_bytes(4, "big")
    with pytest.raises(RemoteProtocolError) as caught:
        opening.open(TAG, parse_header(bytes(frame)), bytes(frame))
    assert caught.value.reason is Reason.BAD_TAG
    assert opening.epoch == 0


def test_an_announcement_never_leads_back() -> None:
    key = sealing(max_frames=1)
    old = [key.seal(BATCH, TAG, b"", 0.0) for _ in range(3)]
    announcement = key.announcement()
    assert announcement.epoch == 2
    keyring = ring(announcement)
    assert {rejected(keyring, frame) for frame in old[:2]} == {Reason.OLD_EPOCH}


def test_the_last_epoch() -> None:
    key = sealing(max_frames=1)
    key._begin((1 << 32) - 1, bytes(32), 0.0)
    key.seal(BATCH, TAG, b"", 0.0)
    with pytest.raises(MeshError, match="used up"):
        key.seal(BATCH, TAG, b"", 0.0)


# -- the keyring --------------------------------------------------------------


@pytest.mark.parametrize("changes", [{"cipher": 3}, {"cipher": 0}, {"epoch": 1 << 32}])
def test_announcements_that_make_no_sense(changes: dict[str, int]) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        OpeningKey.from_announcement(sealing().announcement()._replace(**changes), ALICE)
    assert caught.value.reason is Reason.BAD_MESSAGE


def test_the_keyring_sets_the_size_of_the_windows() -> None:
    key = sealing(max_frames=64)
    key.seal(BATCH, TAG, b"", 0.0)
    keyring = Keyring(window=8)
    keyring.add(ALICE, OpeningKey.from_announcement(key.announcement(), ALICE))
    for _ in range(2):  # in this epoch, and in the next
        frames = [key.seal(BATCH, TAG, b"", 0.0) for _ in range(60)]
        keyring.open(TAG, frames[40])
        assert rejected(keyring, frames[32]) is Reason.TOO_OLD
        keyring.open(TAG, frames[33])


def test_owners_come_and_go() -> None:
    keyring = ring(sealing().announcement())
    assert keyring.owner(KEY_ID) == ALICE
    keyring.remove(BOB)
    keyring.open(TAG, SEALED)
    keyring.remove(ALICE)
    keyring.remove(ALICE)
    assert keyring.owner(KEY_ID) is None
    assert len(keyring) == 0
    assert rejected(keyring, SEALED) is Reason.UNKNOWN_KEY


def test_keys_of_a_scope_are_bounded() -> None:
    keys = [sealing(seed, b"key-%04d" % seed) for seed in range(5)]
    keyring = ring(*(key.announcement() for key in keys))
    assert len(keyring) == 2
    frames = [key.seal(BATCH, TAG, b"", 0.0) for key in keys]
    assert [rejected(keyring, frame) for frame in frames[:3]] == [Reason.UNKNOWN_KEY] * 3
    for frame in frames[3:]:
        keyring.open(TAG, frame)


def test_keys_of_an_owner_are_bounded() -> None:
    keyring = Keyring(keys_per_owner=4)
    for number in range(10):
        key = sealing(number, b"key-%04d" % number, scope=f"scope {number}")
        keyring.add(ALICE, OpeningKey.from_announcement(key.announcement(), ALICE))
    keyring.add(BOB, OpeningKey.from_announcement(sealing(99, b"bob's id").announcement(), BOB))
    assert len(keyring) == 5
    assert keyring.owner(b"key-0005") is None
    assert keyring.owner(b"key-0006") == ALICE


def test_nobody_shuts_out_a_peer_by_taking_its_key_id() -> None:
    key, impostor = sealing(1), sealing(2, owner=BOB)
    for order in ((BOB, ALICE), (ALICE, BOB)):
        keyring = Keyring()
        for owner in order:
            owned = key if owner == ALICE else impostor
            keyring.add(owner, OpeningKey.from_announcement(owned.announcement(), owner))
        assert keyring.owner(KEY_ID) is None  # disputed
        assert keyring.open(TAG, key.seal(BATCH, TAG, b"genuine", 0.0)) == (ALICE, BATCH, b"genuine")
        assert keyring.open(TAG, impostor.seal(BATCH, TAG, b"mine", 0.0)).owner == BOB
        keyring.remove(BOB)
        assert keyring.owner(KEY_ID) == ALICE
        assert keyring.open(TAG, key.seal(BATCH, TAG, b"still", 0.0)).owner == ALICE


def test_a_frame_opens_as_its_owners_and_nobody_elses() -> None:
    """Who was given a key can announce it as his own: what its owner seals is still not his."""
    key = sealing(owner=ALICE)
    frame = key.seal(BATCH, TAG, b"alice's", 0.0)
    stolen = ring(sealing().announcement(), owner=BOB)
    assert rejected(stolen, frame) is Reason.BAD_TAG
    for order in ((ALICE, BOB), (BOB, ALICE)):
        both = Keyring()
        for owner in order:
            both.add(owner, OpeningKey.from_announcement(sealing().announcement(), owner))
        assert both.open(TAG, frame).owner == ALICE
