#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Writes the seeds of a fuzz target that are no text: seeds.py TARGET DIRECTORY. Those that are text stand in
tests/fuzz/corpus. A target without seeds here has a directory there, or finds its way alone."""

import sys
from pathlib import Path
from struct import pack

A, CNAME, SOA, MX, TXT, AAAA, OPT, AXFR, ANY = 1, 5, 6, 15, 16, 28, 41, 252, 255
QUESTION = b"\xc0\x0c"  # a pointer to the name of the question


def name(text):
    return b"".join(bytes([len(label)]) + label.encode() for label in text.split(".")) + b"\0"


def header(flags, *counts):
    """The first octet of the ID tells the target `query` to leave the counts alone."""
    return pack(">HH4H", 0x1034, flags, *counts)


def question(text, kind):
    return name(text) + pack(">HH", kind, 1)


def opt(options=b"", version=0, udp_size=1232, dnssec_ok=0x8000):
    return b"\0" + pack(">HHBBHH", OPT, udp_size, 0, version, dnssec_ok, len(options)) + options


def option(code, data=b""):
    return pack(">HH", code, len(data)) + data


def record(owner, kind, ttl, data):
    return owner + pack(">HHIH", kind, 1, ttl, len(data)) + data


def query():
    long = ".".join(["x" * 63] * 3 + ["y" * 61])
    return {
        "plain": header(0x0100, 1, 0, 0, 0) + question("wWw.example", A),
        "edns": header(0x0130, 1, 0, 0, 1) + question("www.example", AAAA) + opt(option(11) + option(10, b"12345678")),
        "longest": header(0x0100, 1, 0, 0, 1) + question(long, TXT) + opt(),
        "all options": header(0x0100, 1, 0, 0, 1) + question("a", A) + opt(option(65001) * 32),
        "too many": header(0x0100, 1, 0, 0, 1) + question("a", A) + opt(option(65001) * 33),
        "version": header(0x0100, 1, 0, 0, 1) + question("a", A) + opt(version=1),
        "transfer": header(0x0100, 1, 0, 0, 0) + question("example", AXFR),
        "pointer": header(0x0100, 1, 0, 0, 0) + b"\1a\xc0\x0c" + pack(">HH", A, 1),
        "update": header(0x2900, 1, 0, 0, 0) + question("example", SOA),
        "counts": header(0x0100, 65535, 65535, 0, 65535) + question("a", A),
        "response": header(0x8180, 1, 0, 0, 0) + question("a", A),
    }


def answer():
    """RCODE and flags, type, three counts, case of the name, then the records."""
    soa = name("ns.example") + name("hostmaster") + pack(">5I", 1, 2, 3, 4, 60)
    errors = option(15, b"\0\x16no reachable authority") + option(11, b"\0\x64") + option(12, bytes(20))
    return {
        "address": bytes([0, A, 1, 0, 0, 0]) + record(QUESTION, A, 300, b"\xc0\0\2\1"),
        "chain": bytes([0, A, 2, 0, 0, 1])
        + record(QUESTION, CNAME, 5, b"\5alias" + QUESTION)
        + record(b"\5alias" + QUESTION, A, 300, b"\xc0\0\2\1"),
        "nxdomain": bytes([3, A, 0, 1, 0, 0]) + record(name("example"), SOA, 900, soa),
        "failure": bytes([2, A, 0, 0, 1, 0]) + opt(errors),
        "truncated": bytes([0x10, TXT, 0, 0, 0, 0]),
        "late opt": bytes([0, MX, 1, 0, 2, 0])
        + record(QUESTION, MX, 1, b"\0\1" + QUESTION)
        + opt(option(15, b"\0\0"))
        + record(b"\0", A, 1, b"\x7f\0\0\1"),
        "no ttl": bytes([0, A, 1, 0, 0, 0]) + record(QUESTION, A, 0x80000000, b"\xc0\0\2\1"),
        "circle": bytes([0, A, 1, 0, 0, 0]) + record(b"\xc0\x21", A, 1, b"\xc0\0\2\1"),
    }


def choices(*parts):
    """What a target that plays a scene chooses, octet by octet; 0 mostly stands for the ordinary case."""
    return b"".join(bytes(part) for part in parts)


def reply():
    rd_and_one_label = [1, 0x20, 1, 6, *b"eXample", 0]
    return {
        "records": choices(rd_and_one_label, [3, 1, 4, 208, 1, 1, 0x84, 0x80, 0], [2, 0, 1, 0, 60] * 3, [200] * 40),
        "errors": choices(rd_and_one_label, [1, 1, 4, 208, 0, 1, 0, 2], [0, 0, 0, 1, 3, 1, 100, 1, 200], [250] * 20),
        "large": choices([0, 0, 0, 28, 0, 1], [3, 39] + [4, 1, 0, 0, 0, 255, 7] * 60),
    }


def stream():
    accepted, connected, write, peer_writes, pause, end, turn = 1, 0, 0, 3, 6, 7, 12
    return {
        "plain": choices([accepted], [write, 100, 0, peer_writes, 50, turn] * 6, [end, 1, 9, 9, turn]),
        "tls": choices([connected, 0, 0, turn, 0, 0, turn], [write, 40, 5, peer_writes, 240, turn, 0, 0] * 8),
        "pieces": choices([accepted], [peer_writes, 200, turn, 97, 97, 98, 99] * 10, [pause, turn, pause, turn]),
    }


def upstream():
    ask, cancel, peer, wait, turn = 0, 2, 3, 6, 7
    open_one = [ask, 0, 0, 0, 0, 0, 0, turn, 0, 0, 0, turn, 0, 0, turn, 0]
    return {
        "answered": choices([1], open_one, [peer, 0, 0, 0, 1, 3, 0, turn, 0, 0, 0] * 3),
        "changed": choices([1], open_one, [peer, 0, 3, 0, 1, 1, 0, 3, 255, turn, 0, 0, 0] * 4),
        "cancelled": choices([0], open_one, [cancel, 3, 0, ask, 0, 0, 1, 0, turn, 0, peer, 0, 0, 0, 0, 0, turn, 0] * 2),
        "silent": choices([2], open_one, [peer, 0, 10, wait, 200, turn, 1, wait, 200, turn, 1]),
    }


def tcp():
    connect, client, good, turn = 0, 1, 5, 9
    return {
        "asked": choices([connect, turn, 0, 0], [client, 0, 0, 1, 1, 0, 0, turn, 0, 0, good, turn, 0, 0] * 3),
        "pipelined": choices([connect, turn, 0], [client, 0, 3, 19] + [1, 1, 0, 2] * 20, [turn, 0, 0, good, turn] * 4),
        "ended": choices([connect, turn, 0], [client, 0, 0, 1, 1, 0, 0, client, 0, 7, turn, 0, good, turn, 0]),
    }


TARGETS = {"query": query, "answer": answer, "reply": reply, "stream": stream, "upstream": upstream, "tcp": tcp}


def main():
    target, directory = sys.argv[1:]
    for file, octets in TARGETS.get(target, dict)().items():
        (Path(directory) / file).write_bytes(octets)


main()
