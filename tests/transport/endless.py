"""Another program that sends, under CURVE, one message of very many parts: ``python -m tests.transport.endless …``.

``DEALER ENDPOINT SERVER PUBLIC SECRET`` connects; ``ROUTER bind PUBLIC SECRET`` binds, prints the endpoint, and attacks
who connects and says a word.  Keys are in hexadecimal.
"""

from __future__ import annotations

import sys

import zmq

PART = bytes(900)
BYTES = 64 << 20


def main() -> None:
    kind, where, *words = sys.argv[1:]
    *server, public, secret = map(bytes.fromhex, words)
    with zmq.Context() as context:
        raw = context.socket(getattr(zmq, kind))
        raw.sndhwm = 0
        raw.linger = 0
        raw.curve_publickey, raw.curve_secretkey = public, secret
        first: list[bytes] = []
        if where == "bind":
            raw.curve_server = True
            raw.bind("tcp://127.0.0.1:0")
            print(raw.last_endpoint.decode(), flush=True)
            first = raw.recv_multipart()[:1]  # who is there
        else:
            raw.curve_serverkey = server[0]
            raw.connect(where)
        for part in first + [PART] * (BYTES // len(PART)):
            raw.send(part, zmq.SNDMORE)
        raw.send(PART)
        sys.stdin.read()


if __name__ == "__main__":
    main()
