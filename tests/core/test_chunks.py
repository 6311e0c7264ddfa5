"""Values in pieces: whole or not at all, whatever happens to the pieces; bounded whatever a member sends."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.core.chunks import (
    AT_ONCE,
    LEAST_PIECE,
    SLACK,
    STALLED,
    TOGETHER,
    Assembly,
    Cutting,
    Cuttings,
    Piece,
    Pool,
)
from mesh.core.types import NodeId, Reason, RemoteProtocolError

A, B, C = (NodeId(bytes([number]) * 16) for number in range(3))
LARGEST = 1 << 20


class Books:
    """An assembly, and what it gave up."""

    def __init__(self, largest: int = LARGEST, most: int = 1 << 30) -> None:
        self.pool = Pool(most)
        self.given_up: list[tuple[NodeId, str, int]] = []
        self.assembly: Assembly[str, int] = Assembly(largest, self.pool, self._gone)

    def _gone(self, peer: NodeId, key: str, number: int, what: int, clock: float) -> None:
        self.given_up.append((peer, key, number))

    def take(self, peer: NodeId, key: str, number: int, piece: Piece, clock: float = 0.0) -> bytes | None:
        pieces = self.assembly.take(peer, key, number, 0, piece, clock)
        return None if pieces is None else b"".join(pieces)

    def refused(self, peer: NodeId, key: str, number: int, piece: Piece, what: int = 0) -> Reason:
        with pytest.raises(RemoteProtocolError) as caught:
            self.assembly.take(peer, key, number, what, piece, 0.0)
        return caught.value.reason

    def nothing_is_left(self) -> None:
        assert (len(self.assembly), self.pool.held) == (0, 0)
        assert all(self.assembly.held(peer) == 0 for peer in (A, B, C))


def pieces_of(whole: bytes, size: int = LEAST_PIECE) -> list[Piece]:
    cutting = Cutting(None, whole, size)
    pieces = []
    while cutting.left:
        pieces.append(cutting.next())
    return pieces


def content(size: int, seed: int = 0) -> bytes:
    return bytes((n * 7 + seed) & 0xFF for n in range(256)) * (size // 256) + bytes(size % 256)


sizes = st.integers(1, 6 * LEAST_PIECE) | st.sampled_from(
    [n * LEAST_PIECE + d for n in (1, 2, 3) for d in (-1, 0, 1)]
)


@given(st.lists(st.tuples(st.sampled_from("abc"), sizes), max_size=12))
def test_what_is_cut_comes_out_whole_and_of_each_key_in_order(sent: list[tuple[str, int]]) -> None:
    books = Books()
    cuttings: Cuttings[str, int] = Cuttings()
    for number, (key, size) in enumerate(sent):
        cuttings.add(key, Cutting(number, content(size, number), LEAST_PIECE))
    assert cuttings.bytes == sum(size for _, size in sent)
    came: list[tuple[str, int, bytes]] = []
    most_at_once = 0
    while (taken := cuttings.next()) is not None:
        key, cutting, piece = taken
        whole = books.take(A, key, cutting.what, piece)
        most_at_once = max(most_at_once, len(books.assembly))
        if whole is not None:
            came.append((key, cutting.what, whole))
    assert sorted(number for _, number, _ in came) == list(range(len(sent)))
    assert all(whole == content(sent[number][1], number) for _, number, whole in came)
    for key in "abc":
        assert [n for k, n, _ in came if k == key] == [n for n, (k, _) in enumerate(sent) if k == key]
    assert (len(cuttings), cuttings.bytes, books.given_up) == (0, 0, [])
    assert most_at_once <= AT_ONCE
    books.nothing_is_left()


@given(st.data())
def test_of_pieces_that_are_lost_repeated_and_overtaken_no_wrong_value_is_made(data: Any) -> None:
    books = Books()
    wholes = {number: content(data.draw(sizes), number) for number in range(3)}
    line = [(number, piece) for number, whole in wholes.items() for piece in pieces_of(whole)]
    order = data.draw(st.permutations(range(len(line)))) if data.draw(st.booleans()) else range(len(line))
    came, reasons = Counter[int](), Counter[Reason]()
    for at in order:
        for _ in range(data.draw(st.sampled_from([1, 1, 1, 0, 2]))):
            number, piece = line[at]
            try:
                whole = books.take(A, "topic", number, piece)
            except RemoteProtocolError as error:
                reasons[error.reason] += 1
                continue
            if whole is not None:
                came[number] += 1
                assert whole == wholes[number]
    assert reasons.keys() <= {Reason.INCOMPLETE, Reason.UNEXPECTED}
    # Each is put together or given up as often as it was begun; what is under way is given up in time.
    books.assembly.timer(STALLED)
    books.nothing_is_left()
    for number in wholes:
        gone = books.given_up.count((A, "topic", number))
        assert came[number] + gone <= sum(1 for n, piece in line if n == number and not piece.offset) * 2


def test_a_lost_piece_gives_the_value_up_at_once() -> None:
    books = Books()
    first, _, third, *_ = pieces_of(content(4 * LEAST_PIECE))
    assert books.take(A, "t", 7, first) is None
    assert books.assembly.under_way(A, "t") == 7
    assert books.refused(A, "t", 7, third) is Reason.INCOMPLETE
    assert books.given_up == [(A, "t", 7)]
    assert books.refused(A, "t", 7, third) is Reason.INCOMPLETE  # and of the rest nothing is kept
    books.nothing_is_left()


def test_the_next_value_of_a_topic_ends_the_one_before() -> None:
    books = Books()
    first, *_ = pieces_of(content(3 * LEAST_PIECE))
    books.take(A, "t", 7, first)
    books.take(A, "t", 8, first)
    books.take(A, "other", 1, first)
    books.take(B, "t", 1, first)
    assert books.given_up == [(A, "t", 7)]
    assert books.refused(A, "t", 7, first) is Reason.UNEXPECTED  # it is over
    books.assembly.give_up_below(A, "t", 8, 0.0)
    assert len(books.given_up) == 1
    books.assembly.give_up_below(A, "t", 9, 0.0)
    assert books.given_up[1:] == [(A, "t", 8)]


FORGED = {
    "a total over the limit": (Piece(LARGEST + 1, 0, bytes(LEAST_PIECE)), Reason.TOO_LARGE),
    "longer than its whole": (Piece(LEAST_PIECE, 0, bytes(LEAST_PIECE + 1)), Reason.BAD_MESSAGE),
    "behind its whole": (Piece(LEAST_PIECE, LEAST_PIECE, bytes(1)), Reason.BAD_MESSAGE),
    "empty": (Piece(LARGEST, 0, b""), Reason.BAD_MESSAGE),
    "too small": (Piece(LARGEST, 0, bytes(LEAST_PIECE - 1)), Reason.BAD_MESSAGE),
    "without a beginning": (Piece(LARGEST, LEAST_PIECE, bytes(LEAST_PIECE)), Reason.INCOMPLETE),
}


@pytest.mark.parametrize("what", FORGED)
def test_forged_beginnings_cost_nothing(what: str) -> None:
    books = Books()
    piece, reason = FORGED[what]
    assert books.refused(A, "t", 0, piece) is reason
    assert books.given_up == []
    books.nothing_is_left()


def test_forged_continuations() -> None:
    books = Books()
    whole = content(4 * LEAST_PIECE)
    first, second, *rest = pieces_of(whole)
    books.take(A, "t", 0, first)
    assert books.refused(A, "t", 0, first) is Reason.UNEXPECTED
    books.take(A, "t", 0, second)
    assert books.refused(A, "t", 0, second) is Reason.UNEXPECTED
    assert [books.take(A, "t", 0, piece) for piece in rest] == [None, whole]  # it did no harm
    for forged, what in ((second._replace(total=LARGEST), 0), (second, 1)):
        books.take(A, "t", 1, first)
        assert books.refused(A, "t", 1, forged, what) is Reason.BAD_MESSAGE
        books.given_up.clear()
    books.nothing_is_left()


def test_memory_follows_what_has_come_and_not_what_was_announced() -> None:
    books = Books()
    books.take(A, "t", 0, Piece(LARGEST, 0, bytes(LEAST_PIECE)))
    assert books.assembly.held(A) == books.pool.held == LEAST_PIECE


def test_a_peer_is_bounded_in_bytes_and_in_values_and_gives_up_its_own() -> None:
    books = Books(largest=TOGETHER)
    books.take(B, "kept", 0, Piece(TOGETHER, 0, bytes(LEAST_PIECE)))
    bound = max(TOGETHER, TOGETHER + AT_ONCE * SLACK)
    for number in range(64):
        books.take(A, f"t{number}", 0, Piece(TOGETHER, 0, bytes(1 << 20)))
        assert books.assembly.held(A) <= bound
    assert books.assembly.held(A) > bound - (1 << 20)
    assert books.given_up[:2] == [(A, "t0", 0), (A, "t1", 0)]  # those that wait for longest
    for number in range(1000):
        books.take(C, f"t{number}", 0, Piece(TOGETHER, 0, bytes(LEAST_PIECE)))
    assert books.assembly.held(C) <= 32 * LEAST_PIECE
    assert books.assembly.under_way(B, "kept") == 0


def test_one_value_of_the_largest_always_fits_a_peers_bound() -> None:
    books = Books(largest=2 * TOGETHER)
    whole = bytes(2 * TOGETHER)
    for piece in pieces_of(whole, 1 << 20)[:-1]:
        assert books.take(A, "t", 0, piece) is None
    assert (books.given_up, books.assembly.held(A)) == ([], 2 * TOGETHER - (1 << 20))


def test_all_peers_are_bounded_together_and_who_holds_most_gives_up() -> None:
    books = Books(most=10 * LEAST_PIECE)
    piece = Piece(LARGEST, 0, bytes(LEAST_PIECE))
    for number in range(8):
        books.take(A, f"t{number}", 0, piece)
    books.take(B, "t", 0, piece)
    for number in range(4):
        books.take(C, f"t{number}", 0, piece)
    assert books.pool.held == 10 * LEAST_PIECE
    assert {peer for peer, *_ in books.given_up} == {A}
    assert books.assembly.held(B) == LEAST_PIECE


def test_what_makes_no_progress_is_given_up_and_what_does_is_not() -> None:
    books = Books()
    first, second, *_ = pieces_of(content(4 * LEAST_PIECE))
    assert books.assembly.deadline() == float("inf")
    books.take(A, "slow", 0, first, 0.0)
    books.take(A, "stuck", 0, first, 1.0)
    books.take(A, "slow", 0, second, STALLED - 1)
    assert books.assembly.deadline() == 1.0 + STALLED
    books.assembly.timer(STALLED + 0.5)
    assert books.given_up == []
    books.assembly.timer(STALLED + 1)
    assert books.given_up == [(A, "stuck", 0)]


def test_a_peer_that_is_over_and_topics_that_nobody_wants() -> None:
    books = Books()
    first, *_ = pieces_of(content(3 * LEAST_PIECE))
    for peer in (A, B):
        for key in ("x", "y"):
            books.take(peer, key, 0, first)
    books.assembly.drop_if(lambda key: key == "x")
    assert books.given_up == []  # nobody's loss
    books.assembly.drop(A, 0.0)
    assert books.given_up == [(A, "y", 0)]
    assert len(books.assembly) == 1


def test_together_a_sender_stays_within_what_a_receiver_holds() -> None:
    cuttings: Cuttings[int, None] = Cuttings()
    for key in range(8):
        cuttings.add(key, Cutting(None, bytes(6 << 20), 1 << 20))
    cuttings.add(8, Cutting(None, bytes(TOGETHER + 1), 1 << 20))  # alone it may be any size
    cuttings.add(9, Cutting(None, b"small", None))
    under_way: dict[int, int] = {}
    passed_by = False
    while (taken := cuttings.next()) is not None:
        key, cutting, _ = taken
        if key == 9:
            passed_by = bool(under_way)
            continue
        under_way[key] = len(cutting.whole)
        assert len(under_way) == 1 or sum(under_way.values()) <= TOGETHER
        assert len(under_way) <= AT_ONCE
        if not cutting.left:
            del under_way[key]
    assert passed_by  # what is small does not wait until those are through
