from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.core.codec import decode_direct, encode_direct
from mesh.core.interest import PAGE_BYTES, REMOVALS, InterestChange, InterestSet, RemoteInterests
from mesh.core.messages import InterestEntry, InterestsMessage
from mesh.core.types import Reason, RemoteProtocolError
from mesh.errors import ConfigError, TopicError

SMALL_PAGE = 70  # bytes: one or two entries, so that every change has pages


def send(pages: list[InterestsMessage], remote: RemoteInterests) -> InterestChange | None:
    """Over the wire and in order; the last page's change."""
    change = None
    for page in pages:
        change = remote.apply(decode_direct(encode_direct(page)))
    return change


def assert_same(local: InterestSet, remote: RemoteInterests) -> None:
    assert sorted(remote) == sorted(local)
    assert remote.version == local.version
    assert remote.digest() == local.digest()


# -- two sides and a network between them -----------------------------------------------


class Mirror:
    """A receiver and what a router would have made of the changes it reported."""

    def __init__(self) -> None:
        self.remote = RemoteInterests()
        self.routed: dict[int, InterestEntry] = {}

    def receive(self, page: InterestsMessage) -> bool:
        """True if it asks for all."""
        before = sorted(self.remote)
        change = self.remote.apply(page)
        if change is None or change.resync or not page.last:
            assert sorted(self.remote) == before  # nothing shows before the last page
        if change is None:
            return False
        for entry in change.removed:
            assert self.routed.pop(entry.number) == entry
        for entry in change.added:
            assert self.routed.setdefault(entry.number, entry) is entry
        assert sorted(self.routed.values()) == sorted(self.remote)
        assert all(self.remote.since(entry.number) is not None for entry in self.remote)
        return change.resync


patterns = st.sampled_from(["a", "a/b", "a/*", "**", "home/**/temperature"])


@given(data=st.data())
def test_both_sides_converge_over_a_bad_network(data: st.DataObject) -> None:
    local, mirror = InterestSet(page_bytes=SMALL_PAGE), Mirror()
    network: list[InterestsMessage] = []
    for _ in range(data.draw(st.integers(1, 25))):
        action = data.draw(st.sampled_from(["add", "add", "remove", "deliver", "deliver", "drop", "repeat"]))
        before = local.version
        if action == "add":
            local.add("s", data.draw(patterns), data.draw(st.sampled_from(["", "g"])))
        elif action == "remove" and len(local):
            local.remove(data.draw(st.sampled_from(sorted(e.number for e in local))))
        elif network and action in ("deliver", "drop", "repeat"):
            index = data.draw(st.integers(0, len(network) - 1))
            page = network[index] if action == "repeat" else network.pop(index)
            if action != "drop" and mirror.receive(page):
                network += local.snapshot()
        # Several changes may go out as one, or once more from an earlier version.
        since = data.draw(st.sampled_from([before, before, max(0, before - 2), 0]))
        network += local.changes_since(since)
    # The network is well again: a ping shows what is missing, and the set is sent whole.
    remote = mirror.remote
    if (remote.version, remote.digest()) != (local.version, local.digest()):
        for page in local.snapshot():
            assert not mirror.receive(page)
    assert_same(local, remote)


@given(data=st.data())
def test_a_good_network_needs_no_resync(data: st.DataObject) -> None:
    local, mirror = InterestSet(page_bytes=SMALL_PAGE), Mirror()
    told = 0
    for _ in range(data.draw(st.integers(1, 40))):
        if len(local) and data.draw(st.booleans()):
            local.remove(data.draw(st.sampled_from(sorted(e.number for e in local))))
        else:
            local.add("s", data.draw(patterns))
        if data.draw(st.booleans()):
            assert not any(map(mirror.receive, local.changes_since(told)))
            told = local.version
            assert_same(local, mirror.remote)


# -- our side ------------------------------------------------------------------------------


def test_digest_does_not_depend_on_the_way_there() -> None:
    one, other = InterestSet(), InterestSet()
    empty = one.digest()
    for pattern in ("a", "b", "c"):
        one.add("s", pattern)
    other.add("s", "a")
    other.add("s", "b")
    assert one.digest() != other.digest()
    one.remove(3)
    assert one.digest() == other.digest()
    assert one.version != other.version
    one.remove(1)
    one.remove(2)
    assert one.digest() == empty == RemoteInterests().digest() == bytes(16)


def test_digest_covers_every_field() -> None:
    digests = set()
    for fields in [
        ("s", "a"),
        ("r", "a"),
        ("s", "b"),
        ("s", "a", "g"),
        ("s", "a", "", 1),
        ("s", "a", "", 0, 1),
    ]:
        interests = InterestSet()
        interests.add(*fields)  # type: ignore[arg-type]
        digests.add(interests.digest())
    assert len(digests) == 6


def test_pages_are_small_and_complete() -> None:
    local, remote = InterestSet(), RemoteInterests()
    for number in range(4096):
        local.add("s", f"{number}/".ljust(200, "x") + "é" * 28, "g" * 64, (1 << 64) - 1, (1 << 64) - 1)
    pages = local.snapshot()
    assert len(pages) > 10
    assert all(len(encode_direct(page)) <= PAGE_BYTES for page in pages)
    assert [page.last for page in pages] == [False] * (len(pages) - 1) + [True]
    send(pages, remote)
    assert_same(local, remote)


def test_an_empty_set_can_be_told() -> None:
    local, remote = InterestSet(), RemoteInterests()
    assert local.snapshot() == [InterestsMessage(0, 0, [], [], True)]
    assert send(local.snapshot(), remote) == InterestChange([], [])
    local.add("s", "a")
    send(local.snapshot(), remote)
    local.remove(1)
    assert send(local.snapshot(), remote) == InterestChange([], [InterestEntry(1, "s", "a", "", 0, 0)])
    assert_same(local, remote)


def test_what_came_and_went_meanwhile_is_not_told() -> None:
    local = InterestSet()
    local.add("s", "a")
    passing = local.add("s", "b")
    local.remove(passing.number)
    local.remove(1)
    local.add("s", "c")
    assert local.changes_since(1) == [InterestsMessage(1, 5, [[3, "s", "c", "", 0, 0]], [1], True)]
    assert local.changes_since(5) == []


def test_who_is_far_behind_or_ahead_is_sent_all() -> None:
    local = InterestSet()
    local.add("s", "stays")
    for _ in range(REMOVALS + 1):
        local.remove(local.add("s", "passes").number)
    assert len(local._removals) == REMOVALS
    assert local.changes_since(2) == local.snapshot()
    assert local.changes_since(3)[0].base == 3
    assert local.changes_since(local.version + 1) == local.snapshot()


def test_numbers_are_never_used_twice() -> None:
    local = InterestSet()
    assert local.add("s", "a").number == 1
    assert local.remove(1).pattern == "a"
    assert local.add("s", "a").number == 2
    with pytest.raises(KeyError):
        local.remove(1)


@pytest.mark.parametrize(
    ("fields", "error", "text"),
    [
        (("s", "a//b"), TopicError, "empty level"),
        (("", "a"), ConfigError, "kind"),
        (("s", "a", "g" * 65), ConfigError, "group: it has 65"),
        (("s", "a", "\ud800"), ConfigError, "group: it has a lone"),
        (("s", "a", "", -1), ConfigError, "history"),
        (("s", "a", "", 0, 1 << 64), ConfigError, "mode"),
    ],
)
def test_what_peers_would_refuse_is_refused_here(
    fields: tuple[Any, ...], error: type[Exception], text: str
) -> None:
    local = InterestSet()
    with pytest.raises(error, match=text):
        local.add(*fields)
    assert (len(local), local.version) == (0, 0)


def test_own_limit() -> None:
    local = InterestSet(limit=2)
    local.add("s", "a")
    local.add("s", "b")
    with pytest.raises(TopicError, match="2 subscriptions"):
        local.add("s", "c")
    local.remove(1)
    local.add("s", "c")


# -- their side ----------------------------------------------------------------------------


def entry(number: int, pattern: str = "a") -> list[Any]:
    return [number, "s", pattern, "", 0, 0]


def test_since_is_the_version_it_came_with() -> None:
    remote = RemoteInterests()
    remote.apply(InterestsMessage(0, 5, [entry(1)], [], True))
    remote.apply(InterestsMessage(5, 7, [entry(2)], [], True))
    remote.apply(InterestsMessage(0, 9, [entry(1), entry(2), entry(3)], [], True))
    assert [remote.since(number) for number in (1, 2, 3, 4)] == [5, 7, 9, None]
    assert remote.get(1) == InterestEntry(1, "s", "a", "", 0, 0)
    assert remote.get(4) is None
    assert len(remote) == 3


def test_a_snapshot_reports_only_what_differs() -> None:
    remote = RemoteInterests()
    remote.apply(InterestsMessage(0, 1, [entry(1), entry(2), entry(3)], [], True))
    change = remote.apply(InterestsMessage(0, 1, [entry(2), entry(3, "b"), entry(4)], [], True))
    assert change is not None
    assert [e[:3] for e in change.removed] == [(1, "s", "a"), (3, "s", "a")]
    assert [e[:3] for e in change.added] == [(3, "s", "b"), (4, "s", "a")]


def test_a_gap_asks_for_all_once() -> None:
    remote = RemoteInterests()
    assert remote.apply(InterestsMessage(3, 4, [entry(1)], [], False)) is None
    assert remote.apply(InterestsMessage(3, 4, [entry(2)], [], True)) == InterestChange([], [], True)
    assert (len(remote), remote.version) == (0, 0)


def test_a_removal_of_what_is_not_there_asks_for_all() -> None:
    remote = RemoteInterests()
    remote.apply(InterestsMessage(0, 1, [entry(1)], [], True))
    assert remote.apply(InterestsMessage(1, 2, [], [9], False)) is None
    assert remote.apply(InterestsMessage(1, 2, [], [1], True)) == InterestChange([], [], True)
    assert (len(remote), remote.version) == (1, 1)


def test_what_is_out_of_date_changes_nothing() -> None:
    remote = RemoteInterests()
    remote.apply(InterestsMessage(0, 5, [entry(1)], [], True))
    assert remote.apply(InterestsMessage(0, 4, [], [], True)) is None
    assert remote.apply(InterestsMessage(2, 5, [], [1], True)) is None
    assert remote.apply(InterestsMessage(0, 9, [entry(9)], [], False)) is None
    assert remote.apply(InterestsMessage(0, 6, [], [], True)) is None  # overtaken by 9
    assert remote.version == 5
    assert remote.apply(InterestsMessage(0, 9, [entry(1)], [], True)) is not None
    assert [e.number for e in remote] == [1, 9]


def test_fields_of_a_later_version_are_ignored() -> None:
    remote = RemoteInterests()
    remote.apply(InterestsMessage(0, 1, [[*entry(1), "later"]], [], True))
    assert list(remote) == [InterestEntry(1, "s", "a", "", 0, 0)]


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (InterestsMessage(6, 5, [], [], True), Reason.BAD_MESSAGE),
        (InterestsMessage(5, 6, [entry(7, "a//b")], [], True), Reason.BAD_MESSAGE),
        (InterestsMessage(5, 6, [entry(7, "é" * 200)], [], True), Reason.BAD_MESSAGE),
        (InterestsMessage(5, 6, [entry(1, "b")], [1], True), Reason.BAD_MESSAGE),
        (InterestsMessage(5, 6, [entry(7), entry(8), entry(9)], [], True), Reason.TOO_MANY),
        (InterestsMessage(0, 6, [entry(n) for n in range(5)], [], False), Reason.TOO_MANY),
    ],
)
def test_what_breaks_the_protocol_changes_nothing(message: InterestsMessage, reason: Reason) -> None:
    remote = RemoteInterests(limit=4)
    remote.apply(InterestsMessage(0, 5, [entry(1), entry(2)], [], True))
    digest = remote.digest()
    with pytest.raises(RemoteProtocolError) as caught:
        remote.apply(message)
    assert caught.value.reason is reason
    assert (remote.version, len(remote), remote.digest(), remote._pending) == (5, 2, digest, None)


def test_pages_together_are_bounded() -> None:
    remote = RemoteInterests(limit=4)
    assert remote.apply(InterestsMessage(0, 1, [entry(n) for n in range(4)], [], False)) is None
    with pytest.raises(RemoteProtocolError) as caught:
        remote.apply(InterestsMessage(0, 1, [entry(4)], [], False))
    assert caught.value.reason is Reason.TOO_MANY


def test_room_made_by_a_removal_counts() -> None:
    remote = RemoteInterests(limit=2)
    remote.apply(InterestsMessage(0, 1, [entry(1), entry(2)], [], True))
    assert remote.apply(InterestsMessage(1, 3, [entry(3)], [1], True)) is not None
    assert [e.number for e in remote] == [2, 3]


pages = st.builds(
    InterestsMessage,
    st.integers(0, 4),
    st.integers(0, 4),
    st.lists(st.builds(entry, st.integers(0, 5), st.sampled_from(["a", "b", "a/*", "//"])), max_size=4),
    st.lists(st.integers(0, 5), max_size=4),
    st.booleans(),
)


@given(messages=st.lists(pages, max_size=30))
def test_no_pages_break_it(messages: list[InterestsMessage]) -> None:
    """Whatever comes: a protocol error or a change that fits, and a bounded memory."""
    mirror = Mirror()
    mirror.remote.limit = 4
    for message in messages:
        try:
            mirror.receive(message)
        except RemoteProtocolError:
            pass
        assert len(mirror.remote) <= 4
    remote, fresh = mirror.remote, RemoteInterests()
    fresh.apply(InterestsMessage(0, remote.version, [list(e) for e in remote], [], True))
    assert fresh.digest() == remote.digest()
