"""All attacks, by the stage that they are played on."""

from __future__ import annotations

from typing import Final

from tests.hostile import ailing, attacks, multicast, onpath, papers
from tests.hostile.stage import Attack

__all__ = ["LAN", "OUTSIDE", "PATH"]


def _named(*of: Attack) -> dict[str, Attack]:
    return {attack.__name__.replace("_", " "): attack for attack in of}  # type: ignore[attr-defined]


OUTSIDE: Final = _named(
    attacks.other_mechanisms,
    attacks.random_keys,
    attacks.a_stranger_subscribes,
    attacks.a_hundred_thousand_subscriptions,
    attacks.long_subscriptions,
    attacks.many_connections_subscribe,
    attacks.huge_frames,
    attacks.a_flood_of_handshakes,
    attacks.silent_connections,
    papers.guessed_invitations,
    papers.reused_invitations,
    papers.bad_papers,
    papers.a_revoked_member,
    ailing.a_dead_zap_handler,
    ailing.a_hanging_zap_handler,
    ailing.a_denying_zap_handler,
    ailing.a_clock_set_forward,
    ailing.a_clock_set_back,
)
"""An outsider with sockets on the victim's machine."""

PATH: Final = _named(
    onpath.a_wiretap,
    onpath.a_replayed_subscription,
    onpath.a_stalled_copy_of_a_subscriber,
    onpath.a_replayed_link,
    onpath.replayed_frames,
    onpath.reordered_frames,
    onpath.every_bit_flipped,
)
"""Everything between the two leads through the attacker."""

LAN: Final = _named(
    multicast.a_flood_of_mdns_records,
    multicast.a_flood_of_scouts,
    multicast.replayed_announcements,
    multicast.forged_goodbyes,
)
"""Three hosts and multicast."""
