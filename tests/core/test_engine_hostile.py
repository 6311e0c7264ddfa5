"""Whatever bytes arrive, on whichever plane: nothing raises out of the engine, and everything is counted."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mesh.config import Config, Limits
from mesh.core import messages
from mesh.core.codec import encode_direct, encode_intro
from mesh.core.effects import SendDirect
from mesh.core.engine import Engine
from mesh.core.identity import SigningKey
from mesh.core.messages import DIRECT, INTRO
from tests.core.virtual import World

FRAMES: dict[str, list[bytes]] = {"direct": [], "intro": [], "broadcast": [], "subscription": []}


def recorded() -> World:
    """A meeting of two whose every frame is kept, as material to break."""
    world = World(11)
    world.add("a")
    world.add("b")
    seen = {
        "direct_received": ("direct", 1),
        "stranger_received": ("intro", 1),
        "dial_answered": ("intro", 1),
        "broadcast_received": ("broadcast", 1),
        "subscription_received": ("subscription", 0),
    }
    for node in world.nodes.values():
        for name, (kind, place) in seen.items():
            keep(node.engine, name, FRAMES[kind], place)
    world.meet()
    a, b = world.nodes.values()
    b.subscribe("x/*")
    world.run(0.2)
    a.publish("x/1", b"value")
    world.run(2.0)
    return world


def keep(engine: Engine, name: str, frames: list[bytes], place: int) -> None:
    original = getattr(engine, name)

    def wrapped(*args: Any) -> Any:
        frames.append(args[place])
        return original(*args)

    setattr(engine, name, wrapped)


recorded()

broken = st.builds(
    lambda frame, cuts: bytes(mutate(frame, cuts)),
    st.sampled_from([frame for frames in FRAMES.values() for frame in frames]),
    st.lists(st.tuples(st.integers(0, 4096), st.integers(0, 255), st.sampled_from("=+-")), max_size=4),
)


def mutate(frame: bytes, cuts: list[tuple[int, int, str]]) -> bytearray:
    data = bytearray(frame)
    for place, value, how in cuts:
        at = place % (len(data) + 1)
        if how == "+":
            data.insert(at, value)
        elif at < len(data):
            if how == "-":
                del data[at]
            else:
                data[at] = value
    return data


any_frame = st.one_of(st.binary(max_size=200), broken)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(
        st.tuples(st.sampled_from(["direct", "intro", "dialled", "broadcast", "subscription"]), any_frame),
        max_size=12,
    )
)
def test_no_frame_of_anybody_raises_out_of_the_engine(frames: list[tuple[str, bytes]]) -> None:
    world = World(12)
    a, b = world.add("a"), world.add("b")
    world.meet()
    for plane, frame in frames:
        if plane == "direct":
            a.engine.direct_received(b.id, frame, world.clock)
        elif plane == "intro":
            a.engine.stranger_received(99, frame, "b", world.clock)
        elif plane == "dialled":
            a.engine.dial_answered(1, frame, world.clock)
        elif plane == "broadcast":
            a.engine.broadcast_received(frame[:30], frame[30:], world.clock)
        else:
            a.engine.subscription_received(frame)
        a.engine.take_effects()  # what it wants to send is of no interest here
    a.engine.handle_timer(world.clock + 1, 0.0)
    a.engine.take_effects()


@settings(max_examples=80, deadline=None)
@given(st.sampled_from(sorted(INTRO) + sorted(DIRECT)), st.data())
def test_messages_of_the_right_form_with_wild_contents_raise_nothing(code: int, data: st.DataObject) -> None:
    """Well-formed, hostile: every field within its form, and as odd as that allows."""
    world = World(13)
    a, b = world.add("a"), world.add("b")
    world.meet()
    table = {**INTRO, **DIRECT}
    kind, forms = table[code]
    values = [data.draw(st.sampled_from(CANDIDATES).filter(form)) for form in forms]
    message = kind._make(values)
    if code in INTRO:
        a.engine.stranger_received(5, encode_intro(message), "b", world.clock)
        a.engine.take_effects()
    else:
        a.engine.direct_received(b.id, encode_direct(message), world.clock)
        a.carry_out()
        world.run(0.1)


ENTRY = [1, "s", "x", "", 0, 0]
KEY = [b"k" * 8, "", 1, 0, b"c" * 32, 0]
CANDIDATES: list[Any] = [
    None, True, False, 0, 1, 2, 7, (1 << 64) - 1, b"", b"x" * 8, b"y" * 16, b"z" * 32, b"s" * 64, b"w" * 100,
    "", "a", "s", "r", "a/b", "**", "@mesh", "n" * 64, [], [1, 1], [0, (1 << 64) - 1], {}, {"a": "b"},
    KEY, [b"k" * 8, "s", 9, 1 << 60, b"c" * 32, 1 << 63],
    [ENTRY], [ENTRY, ENTRY], [[(1 << 64) - 1, "q", "**/**/**", "g", 9, 9]], [1, 2, 3], [[b"a", b"b"]], [[b"", b""]],
]  # fmt: skip


def test_the_tables_are_complete() -> None:
    """Every message type of the module has a code, and every form accepts one of the candidates above."""
    named = {getattr(messages, name) for name in messages.__all__ if name.endswith("Message")}
    named -= {messages.DirectMessage, messages.IntroMessage}
    assert named == {kind for kind, _ in [*INTRO.values(), *DIRECT.values()]}
    for _, forms in [*INTRO.values(), *DIRECT.values()]:
        for form in forms:
            assert any(form(candidate) for candidate in CANDIDATES)


def test_one_member_cannot_fill_the_table() -> None:
    world = World(14)
    a = world.add("a", Config.lan(limits=Limits(peers=8, nodes_per_member=3)))
    member = SigningKey.from_seed(b"m" * 32)
    crowd = [world.add(f"again{number}", member=member) for number in range(5)]
    honest = world.add("honest")
    for node in (*crowd, honest):
        node.engine.hint(a.id, [a.addresses[0].intro], world.clock)
        node.carry_out()
    world.run(2.0)
    assert "honest" in a.peers
    assert len(a.peers) == 4
    assert a.engine.rejected["too_many"] > 0


def test_unknown_keys_lead_to_few_questions() -> None:
    world = World(15)
    a = world.add("a")
    for name in "bcd":
        world.add(name)
    world.meet()
    a.engine.take_effects()
    for number in range(1000):
        frame = b"ZM\x01\x01\x00\x00" + number.to_bytes(8, "big") + bytes(12) + bytes(40)
        assert a.engine.broadcast_received(b"D", frame, world.clock) is None
    asked = [e for e in a.engine.take_effects() if isinstance(e, SendDirect)]
    assert 0 < len(asked) <= 8 * 3
