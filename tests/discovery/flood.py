"""A program that floods mDNS: ``python -m tests.discovery.flood RECORDS`` spoofed services, then ``sent``."""

from __future__ import annotations

import os
import socket
import sys
import time

from zeroconf import DNSOutgoing, DNSPointer, DNSText  # type: ignore[attr-defined]

from mesh.core.types import NodeId
from mesh.discovery.beacon import Beacon, Kind, encode, to_txt
from mesh.discovery.mdns_responder import SERVICE_TYPE

A_PACKET = 4  # services in one packet


def main() -> None:
    records = int(sys.argv[1])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.bind(("", 5353))
        sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 255)
        for _ in range(records // A_PACKET):
            out = DNSOutgoing(0x8400)  # an authoritative answer
            for _ in range(A_PACKET):
                node = NodeId(os.urandom(16))
                name = f"{node.hex()}.{SERVICE_TYPE}"
                text = to_txt(encode(Beacon(node, ("tcp://10.77.1.99:7400",)), Kind.RECORD, b"a guess"))
                out.add_answer_at_time(DNSPointer(SERVICE_TYPE, 12, 1, 4500, name), 0)
                out.add_answer_at_time(DNSText(name, 16, 0x8001, 4500, text), 0)
            for packet in out.packets():
                sender.sendto(packet, ("224.0.0.251", 5353))
            time.sleep(0.0001)  # as fast as a receiver can be given: beyond that the kernel drops
    print("sent", flush=True)


if __name__ == "__main__":
    main()
