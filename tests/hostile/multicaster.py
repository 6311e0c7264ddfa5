"""An attacker's program on the LAN: ``python -m tests.hostile.multicaster WHAT COUNT SEED NODE…``, then ``sent BYTES``.

``goodbyes``  mDNS goodbyes (RFC 6762 §10.1) for these nodes' services
``replay``    mDNS answers and scout datagrams of these nodes, recorded for a moment and sent again and again
``scout``     scout datagrams that are garbage, or well-formed under a guessed key
(A flood of spoofed services is ``tests.discovery.flood``.)
"""

from __future__ import annotations

import socket
import struct
import sys
import time
from collections.abc import Iterator
from random import Random

from zeroconf import DNSOutgoing, DNSPointer, DNSQuestion, DNSText  # type: ignore[attr-defined]

from mesh.core.types import NodeId
from mesh.discovery.beacon import Beacon, Kind, encode
from mesh.discovery.mdns_responder import SERVICE_TYPE
from mesh.discovery.multicast import GROUP_IPV4
from mesh.discovery.scout import SCOUT_PORT

MDNS = ("224.0.0.251", 5353)
SCOUT = (GROUP_IPV4, SCOUT_PORT)
LISTENS = 1.0  # seconds


def opened(port: int, group: str) -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    made.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 255)
    made.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 0)
    made.bind(("", port))
    made.setsockopt(
        socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, socket.inet_aton(group) + struct.pack("=I", 0)
    )
    return made


def goodbyes(nodes: list[str]) -> list[bytes]:
    out = DNSOutgoing(0x8400)
    for node in nodes:
        name = f"{node}.{SERVICE_TYPE}"
        out.add_answer_at_time(DNSPointer(SERVICE_TYPE, 12, 1, 0, name), 0)
        out.add_answer_at_time(DNSText(name, 16, 0x8001, 0, b"\x00"), 0)
    return out.packets()


def recorded(sockets: dict[tuple[str, int], socket.socket]) -> list[tuple[tuple[str, int], bytes]]:
    """What passes on both groups; a question of its own gets answers to record."""
    question = DNSOutgoing(0)
    question.add_question(DNSQuestion(SERVICE_TYPE, 12, 1))
    for packet in question.packets():
        sockets[MDNS].sendto(packet, MDNS)
    found = []
    end = time.monotonic() + LISTENS
    while time.monotonic() < end:
        for where, each in sockets.items():
            each.settimeout(0.05)
            try:
                found.append((where, each.recv(9000)))
            except TimeoutError:
                continue
    return found


def scouts(random: Random) -> Iterator[bytes]:
    while True:
        node = NodeId(random.randbytes(16))
        yield encode(Beacon(node, ("tcp://10.77.1.99:7400",)), Kind.QUESTION, b"a guess")
        yield random.randbytes(random.randint(1, 400))


def main() -> None:
    what, count, seed, *nodes = sys.argv[1:]
    sockets = {MDNS: opened(MDNS[1], MDNS[0]), SCOUT: opened(SCOUT[1], SCOUT[0])}
    if what == "goodbyes":
        packets = [(MDNS, packet) for packet in goodbyes(nodes)] * int(count)
    elif what == "replay":
        seen = recorded(sockets)
        assert any(where == MDNS for where, _ in seen), "nothing to replay"
        packets = seen * (int(count) // len(seen) + 1)
    else:
        packets = [(SCOUT, data) for data, _ in zip(scouts(Random(seed)), range(int(count)), strict=False)]
    for where, data in packets:
        sockets[where].sendto(data, where)
        time.sleep(0.0001)
    print("sent", sum(len(data) for _, data in packets), flush=True)


if __name__ == "__main__":
    main()
