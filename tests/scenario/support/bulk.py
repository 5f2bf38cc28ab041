# SPDX-License-Identifier: Apache-2.0
"""Asks thousands of questions at once, as bytes, over UDP or TCP.

ask_many(address, messages, tcp=True) gives an Exchange for each message, in their order. Messages
keep all but their ID, which is the sender's so that each reply finds its message.
"""

import socket
import struct
import threading
import time

TIMEOUT_S = 60.0


class Exchange:
    """`raw` is the reply; `sent` and `received` are times of time.monotonic()."""

    def __init__(self):
        self.raw = None
        self.sent = self.received = 0.0


class _UdpLane:
    def __init__(self, address):
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.settimeout(TIMEOUT_S)
        self.socket.connect(address)

    def send(self, wires):
        for wire in wires:
            self.socket.send(wire)

    def receive(self):
        return self.socket.recv(65535)


class _TcpLane:
    def __init__(self, address):
        self.socket = socket.create_connection(address, TIMEOUT_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._stream = self.socket.makefile("rb")

    def send(self, wires):
        self.socket.sendall(b"".join(struct.pack("!H", len(wire)) + wire for wire in wires))

    def receive(self):
        head = self._stream.read(2)
        return self._stream.read(int.from_bytes(head, "big")) if len(head) == 2 else b""


def _run_lane(lane, window, messages, exchanges):
    for first in range(0, len(messages), window):
        indexes = range(first, min(first + window, len(messages)))
        for index in indexes:
            exchanges[index].sent = time.monotonic()
        lane.send([struct.pack("!H", index) + messages[index][2:] for index in indexes])
        for _ in indexes:
            raw = lane.receive()
            if len(raw) < 12:
                return  # the connection ended
            index = int.from_bytes(raw[:2], "big")
            if index not in indexes or exchanges[index].raw is not None:
                return  # a reply to nothing, or a second one: what it displaced stays None
            exchanges[index].raw = raw
            exchanges[index].received = time.monotonic()


def ask_many(address, messages, *, tcp, lanes=6, window=32):
    """Spreads the messages over `lanes` sockets, each with up to `window` of them in flight. An
    Exchange without a reply has no `raw`."""
    exchanges = [Exchange() for _ in messages]

    def run(number):
        lane = (_TcpLane if tcp else _UdpLane)(address)
        with lane.socket:
            try:
                _run_lane(lane, window, messages[number::lanes], exchanges[number::lanes])
            except OSError:
                pass  # the time is over, or nobody is there

    threads = [threading.Thread(target=run, args=(number,))
               for number in range(min(lanes, len(messages)))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return exchanges
