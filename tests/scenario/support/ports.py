# SPDX-License-Identifier: Apache-2.0
"""Ports for listeners that must be named before they are bound, and who is connected to one.

The ports lie below the range from which the kernel takes the ports of outgoing connections, and each
process of a parallel test run has a range of its own; one that is taken all the same is left out.
"""

import itertools
import os
import socket

FIRST = 10000
PER_PROCESS = 1200
PROCESSES = 18


def _process_index():
    worker = os.environ.get("PYTEST_XDIST_WORKER", "")
    return int(worker[2:]) if worker.startswith("gw") else PROCESSES - 1


def _candidates():
    base = FIRST + (_process_index() % PROCESSES) * PER_PROCESS
    # Two test runs at once on one machine start at different places.
    start = os.getpid() * 7 % PER_PROCESS
    return (base + (start + step) % PER_PROCESS for step in itertools.count())


_ports = _candidates()


def _is_free(port, address):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with socket.socket(family, kind) as probe:
            try:
                probe.bind((address, port))
            except OSError:
                return False
    return True


def has_ipv6():
    """Whether this machine has ::1; a container often has not."""
    with socket.socket(socket.AF_INET6) as probe:
        try:
            probe.bind(("::1", 0))
        except OSError:
            return False
    return True


def free_port(address="127.0.0.1"):
    """A port that is free for UDP and TCP on `address`, and is not given out again soon."""
    for port in itertools.islice(_ports, PER_PROCESS):
        if _is_free(port, address):
            return port
    raise RuntimeError("no free port")


CLOSE_WAIT = "08"
_LISTEN = "0A"


def connections(port):
    """[(state, octets to be sent or acknowledged)] of the TCP connections (IPv4) whose own port is
    that one and which a process has open, as the kernel has them."""
    with open("/proc/net/tcp", encoding="ascii") as file:
        rows = [line.split() for line in file.readlines()[1:]]
    return [(row[3], int(row[4].split(":")[0], 16)) for row in rows
            if int(row[1].split(":")[1], 16) == port and row[3] != _LISTEN and row[9] != "0"]
