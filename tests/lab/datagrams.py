"""A small program for the laboratory's own tests: datagrams by command.

    python datagrams.py PORT GROUP…      binds PORT (IPv4 and IPv6), joins each multicast group on eth0

Standard input: ``send ADDRESS TEXT``. Standard output: ``ready``, then ``got TEXT from ADDRESS``
as datagrams come, ``failed TEXT`` where the kernel refuses one.
"""

from __future__ import annotations

import selectors
import socket
import struct
import sys


def main() -> None:
    port = int(sys.argv[1])
    eth0 = socket.if_nametoindex("eth0")
    four = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    six = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    six.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    six.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, eth0)
    four.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 0)
    six.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_LOOP, 0)
    four.bind(("0.0.0.0", port))
    six.bind(("::", port))
    for group in sys.argv[2:]:
        if ":" in group:
            member = struct.pack("@16sI", socket.inet_pton(socket.AF_INET6, group), eth0)
            six.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, member)
        else:
            member = struct.pack("@4s4si", socket.inet_aton(group), bytes(4), eth0)
            four.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, member)

    events = selectors.DefaultSelector()
    for source in (sys.stdin.buffer.raw, four, six):
        events.register(source, selectors.EVENT_READ)
    print("ready", flush=True)
    while True:
        for key, _ in events.select():
            if isinstance(key.fileobj, socket.socket):
                data, sender = key.fileobj.recvfrom(2048)
                print(f"got {data.decode()} from {sender[0]}", flush=True)
                continue
            lines = sys.stdin.buffer.raw.read(4096)
            if not lines:
                return
            for line in lines.decode().splitlines():
                _, address, text = line.split(" ", 2)
                try:
                    (six if ":" in address else four).sendto(text.encode(), (address, port))
                except OSError:
                    print(f"failed {text}", flush=True)


main()
