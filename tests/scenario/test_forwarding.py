# SPDX-License-Identifier: Apache-2.0
"""The straight way: a query in over UDP or TCP, out over TLS, and its answer back."""

import random
import socket
import struct

import dns.edns
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import pytest

from support import zone
from support.proxy import extended_errors, make_query
from support.upstream import KEEPALIVE, PADDING
from support.waiting import eventually


def last_query(upstream, name):
    """The query for that name, as the upstream saw it."""
    return next(query for query in reversed(upstream.queries) if query.name == name + ".")


@pytest.mark.parametrize("tcp", [False, True], ids=["udp", "tcp"])
@pytest.mark.parametrize("rdtype", ["A", "AAAA", "TXT", "MX", "HTTPS", "TYPE65280"])
def test_answer_comes_back(shared_proxy, shared_upstream, rdtype, tcp):
    name = f"back-{rdtype}-{tcp}.test".lower()
    query = make_query(name, rdtype)
    reply = shared_proxy.ask(query, tcp=tcp)
    assert reply.id == query.id
    assert reply.rcode() == dns.rcode.NOERROR
    assert reply.flags & dns.flags.QR and reply.flags & dns.flags.RA and reply.flags & dns.flags.RD
    expected = zone.rrset(dns.name.from_text(name), dns.rdatatype.from_text(rdtype))
    assert reply.answer == [expected]
    assert last_query(shared_upstream, name).type == rdtype


@pytest.mark.parametrize("label, rcode", [("nx", dns.rcode.NXDOMAIN), ("nodata", 0)])
def test_negative_answer_comes_back_with_its_soa(shared_proxy, label, rcode):
    reply = shared_proxy.query(f"{label}.negative.test")
    assert reply.rcode() == rcode
    assert reply.answer == []
    assert reply.authority[0].rdtype == dns.rdatatype.SOA


def test_alias_comes_back_whole(shared_proxy):
    reply = shared_proxy.query("cname.alias.test")
    assert [rrset.rdtype for rrset in reply.answer] == [dns.rdatatype.CNAME, dns.rdatatype.A]
    assert reply.answer[1][0].address == zone.address("alias.test")


@pytest.mark.ipv6
def test_queries_over_ipv6(start_proxy, upstream):
    proxy = start_proxy(upstream, address="::1")
    for tcp in (False, True):
        assert proxy.query(f"six-{tcp}.test", tcp=tcp).rcode() == dns.rcode.NOERROR


def test_A13_client_options_and_trailing_bytes_do_not_leak(shared_proxy, shared_upstream):
    options = [dns.edns.GenericOption(3, b""),                                      # NSID
               dns.edns.ECSOption("192.0.2.0", 24),
               dns.edns.GenericOption(10, b"cookie--"),
               dns.edns.GenericOption(KEEPALIVE, b""),
               dns.edns.GenericOption(PADDING, b"leak" * 20),
               dns.edns.GenericOption(65001, b"private-leak")]
    wire = make_query("leak.test", options=options, payload=4000).to_wire() + b"trailing-leak"
    with shared_proxy.udp() as sock:
        sock.send(wire)
        assert dns.message.from_wire(sock.recv(4096)).rcode() == dns.rcode.NOERROR
    sent = last_query(shared_upstream, "leak.test")
    assert sorted(option.otype for option in sent.message.options) == [KEEPALIVE, PADDING]
    for part in (b"cookie--", b"leakleak", b"private", b"trailing", b"\xc0\x00\x02"):
        assert part not in sent.raw
    assert sent.message.payload != 4000


@pytest.mark.parametrize("length", [1, 20, 40, 60, 63])
def test_RFC8467_queries_are_padded_to_128(shared_proxy, shared_upstream, length):
    for labels in (1, 2, 3):
        name = ".".join(["p" * length] * labels) + ".test"
        shared_proxy.query(name)
        sent = last_query(shared_upstream, name)
        assert len(sent.raw) % 128 == 0
        assert sent.option(PADDING).data.strip(b"\0") == b""


def test_RFC8467_padding_of_answers_is_not_passed_on(upstream, proxy):
    upstream.padding = 468
    reply = proxy.query("padded.test", options=[dns.edns.GenericOption(PADDING, b"")])
    assert reply.answer[0][0].address == zone.address("padded.test")
    assert reply.options == ()


def test_RFC7828_keepalive_is_asked_for_and_not_passed_on(upstream, proxy):
    upstream.keepalive_100ms = 600
    reply = proxy.query("alive.test")
    assert upstream.queries[0].option(KEEPALIVE).data == b""
    assert reply.options == ()


def test_RFC7828_keepalive_time_is_obeyed(upstream, proxy):
    upstream.keepalive_100ms = 3
    proxy.query("brief.test")
    connection = upstream.connections[0]
    upstream.wait_for(lambda: connection.end_time, timeout=3)
    assert 0.25 < connection.end_time - upstream.queries[0].time < 1.0


def test_RFC7828_keepalive_of_zero_closes_when_all_is_answered(upstream, proxy):
    upstream.keepalive_100ms = 0
    slow = proxy.ask_later("slow-300ms.zero.test")
    upstream.wait_for(lambda: upstream.queries)
    proxy.query("zero.test")
    connection = upstream.connections[0]
    assert connection.is_open
    assert slow().rcode() == dns.rcode.NOERROR
    upstream.wait_for(lambda: connection.end_time, timeout=2)
    upstream.keepalive_100ms = None
    assert proxy.query("next.test").rcode() == dns.rcode.NOERROR
    eventually(lambda: proxy.metric("dnsproxy_upstream_failures_total") == 0)


# Flags

@pytest.mark.parametrize("flags, upstream_flags", [
    ("RD", "RD AD"), ("RD CD", "RD CD AD"), ("RD AD", "RD AD"), ("", "AD"), ("CD", "CD AD")])
def test_RFC1035_RFC6840_flags_of_the_query_reach_the_upstream(shared_proxy, shared_upstream,
                                                              flags, upstream_flags):
    name = f"flags-{flags.replace(' ', '-') or 'none'}.test".lower()
    reply = shared_proxy.query(name, flags=flags)
    sent = last_query(shared_upstream, name).message
    assert sent.flags == dns.flags.from_text(upstream_flags)
    for flag in (dns.flags.RD, dns.flags.CD):
        assert reply.flags & flag == dns.flags.from_text(flags) & flag


@pytest.mark.parametrize("want_dnssec", [False, True])
def test_RFC3225_do_is_copied_both_ways(shared_proxy, shared_upstream, want_dnssec):
    name = f"do-{want_dnssec}.test".lower()
    reply = shared_proxy.query(name, want_dnssec=want_dnssec)
    sent = last_query(shared_upstream, name).message
    assert bool(sent.ednsflags & dns.flags.DO) == want_dnssec
    assert bool(reply.ednsflags & dns.flags.DO) == want_dnssec


@pytest.mark.parametrize("flags, want_dnssec, expected", [
    ("RD", False, False), ("RD AD", False, True), ("RD", True, True)])
@pytest.mark.parametrize("ask", ["fresh", "cached"])
def test_RFC6840_ad_only_for_those_who_asked(shared_proxy, flags, want_dnssec, expected, ask):
    name = f"ad.{flags.replace(' ', '-')}-{want_dnssec}-{ask}.test".lower()
    for _ in range(2 if ask == "cached" else 1):
        reply = shared_proxy.query(name, flags=flags, want_dnssec=want_dnssec)
    assert bool(reply.flags & dns.flags.AD) == expected


def test_RFC6840_ad_is_not_invented(shared_proxy):
    reply = shared_proxy.query("not-authentic.test", flags="RD AD", want_dnssec=True)
    assert not reply.flags & dns.flags.AD


def test_RFC6891_no_opt_for_clients_without_edns(shared_proxy, shared_upstream):
    reply = shared_proxy.query("plain.test", edns=False)
    assert reply.edns == -1
    assert last_query(shared_upstream, "plain.test").message.edns == 0


# Spelling

def test_RFC4343_H10_each_client_gets_its_own_spelling(shared_proxy, shared_upstream):
    letters = random.Random(20)
    for _ in range(10):
        name = "".join(letters.choice([c.lower(), c.upper()]) for c in "mixedspelling.test")
        query = make_query(name)
        with shared_proxy.udp() as sock:
            sock.send(query.to_wire())
            raw = sock.recv(4096)
        assert raw[12:12 + len(name) + 2] == dns.name.from_text(name).to_wire()
    assert shared_upstream.names().count("mixedspelling.test.") == 1
    wire = dns.name.from_text("mixedspelling.test").to_wire()
    assert wire in last_query(shared_upstream, "mixedspelling.test").raw


def test_RFC4343_clients_that_wait_together_get_their_own_spelling(shared_proxy, shared_upstream):
    spellings = ["slow-200ms.Together.test", "SLOW-200MS.TOGETHER.TEST",
                 "slow-200ms.together.test"]
    hedges = shared_proxy.metric("dnsproxy_upstream_hedges_total")
    replies = [shared_proxy.ask_later(spelling) for spelling in spellings]
    for spelling, reply in zip(spellings, replies):
        reply = reply()
        assert reply.question[0].name.to_text() == spelling + "."
        assert reply.rcode() == dns.rcode.NOERROR
    hedges = shared_proxy.metric("dnsproxy_upstream_hedges_total") - hedges  # when it is late
    assert shared_upstream.names().count("slow-200ms.together.test.") <= 1 + hedges


# Connections

def test_RFC7766_one_connection_carries_many_queries_out_of_order(upstream, proxy):
    slow = proxy.ask_later("slow-500ms.first.test")
    upstream.wait_for(lambda: upstream.queries)
    for number in range(50):
        assert proxy.query(f"quick{number}.test").rcode() == dns.rcode.NOERROR
    assert slow().rcode() == dns.rcode.NOERROR
    assert len(upstream.connections) == 1
    assert proxy.metric("dnsproxy_upstream_handshakes_total") == 1


def test_RFC7766_length_and_message_come_in_one_record(upstream, proxy):
    proxy.query("warm.test")
    upstream.wait_for(lambda: upstream.probes)
    proxy.query("record.test")
    raw = bytes(upstream.connections[0].raw)
    records = []
    while raw:
        length = int.from_bytes(raw[3:5], "big")
        records.append((raw[0], length))
        raw = raw[5 + length:]
    # After the handshake: Finished, and one record with 2 + 128 octets, its type and its tag.
    assert records[-1] == (23, 2 + 128 + 1 + 16)


def test_queries_of_one_turn_share_records(upstream, proxy):
    proxy.query("warm.test")
    connection = upstream.connections[0]
    before = len(connection.raw)
    replies = proxy.ask_all([make_query(f"turn{number}.test") for number in range(100)])
    assert all(reply.rcode() == dns.rcode.NOERROR for reply in replies)
    overhead = len(connection.raw) - before - 100 * 130
    assert overhead < 100 * 22 / 2, "more than one record for two queries"


def test_F9_identifiers_are_not_the_clients(upstream, proxy):
    messages = [make_query(f"id{number}.test") for number in range(64)]
    proxy.ask_all(messages)
    ids = [query.id for query in upstream.queries]
    assert len(set(ids)) == len(ids)
    assert ids != list(range(64))


def test_J9_started_before_the_upstream_is_ready_and_recovers(start_upstream, start_proxy):
    upstream = start_upstream()
    upstream.go_down()
    proxy = start_proxy(upstream)
    reply = proxy.query("early.test")
    assert reply.rcode() == dns.rcode.SERVFAIL
    assert upstream.label in extended_errors(reply)[0][1]
    upstream.listen()
    names = (f"early{number}.test" for number in range(1000))
    eventually(lambda: proxy.query(next(names)).rcode() == dns.rcode.NOERROR, timeout=2)


def test_H8_identical_questions_in_flight_are_asked_once(upstream, start_proxy):
    proxy = start_proxy(upstream, config={"timeouts": {"query": "10s", "request": "9s"}})
    held = []
    upstream.on_query = held.append
    messages = [make_query("same.test", options=[dns.edns.GenericOption(10, struct.pack("!Q", n))])
                for n in range(100)]
    sockets = [proxy.udp() for _ in messages]
    for sock, message in zip(sockets, messages):
        sock.send(message.to_wire())
    eventually(lambda: proxy.metric("dnsproxy_lookups_joined_total") == 99)
    upstream.wait_for(lambda: held)
    held[0].answer()
    for sock, message in zip(sockets, messages):
        with sock:
            reply = dns.message.from_wire(sock.recv(4096))
            assert reply.id == message.id
            assert reply.answer[0][0].address == zone.address("same.test")
            assert reply.options == ()
    assert len(upstream.queries) == 1


def test_RFC5625_answer_larger_than_the_client_takes_is_truncated_then_whole_over_tcp(
        shared_proxy):
    short = shared_proxy.query("big-4000.udp.test", "TXT")
    assert short.flags & dns.flags.TC and short.answer == []
    whole = shared_proxy.query("big-4000.udp.test", "TXT", tcp=True)
    assert not whole.flags & dns.flags.TC
    assert len(whole.answer[0]) == 3


def test_nothing_is_sent_back_by_another_address(shared_proxy):
    """A connected socket takes replies only from where it sent the query."""
    with shared_proxy.udp(timeout=2) as sock:
        assert sock.getpeername()[1] == shared_proxy.port
        sock.send(make_query("address.test").to_wire())
        assert dns.message.from_wire(sock.recv(4096)).rcode() == dns.rcode.NOERROR
        sock.settimeout(0.2)
        with pytest.raises(socket.timeout):
            sock.recv(4096)  # one reply, not two
