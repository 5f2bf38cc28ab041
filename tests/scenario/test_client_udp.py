# SPDX-License-Identifier: Apache-2.0
"""What UDP clients send, good and bad, and what comes back to them."""

import contextlib
import os
import re
import socket
import struct
import subprocess

import dns.edns
import dns.flags
import dns.message
import dns.name
import dns.query
import dns.rcode
import dns.rdatatype
import dns.rrset
import pytest

from support import ports, zone
from support.proxy import extended_errors, make_query
from support.upstream import KEEPALIVE, PADDING, never
from support.waiting import eventually

HEADER = struct.Struct("!6H")
QUERY = 0x0100          # flags of an ordinary query: RD
RESPONSE = 0x8000       # QR
TRUNCATED = 0x0200      # TC
NAME = b"\x04evil\x04test\0"
QUESTION = NAME + b"\0\1\0\1"
OPT = b"\0\0\x29\x04\xd0\0\0\0\0\0\0"
A_RECORD = b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4\x7f\0\0\1"


def message(*parts, flags=QUERY, counts=(1, 0, 0, 0), number=0x5a5a):
    """A message from its parts as they are, with these counts in the header."""
    return HEADER.pack(number, flags, *counts) + b"".join(parts)


def question(rdtype, name=NAME):
    return name + struct.pack("!HH", rdtype, 1)


def opt(options=b"", *, version=0, flags=0, owner=b"\0", length=None):
    length = len(options) if length is None else length
    return owner + struct.pack("!HHBBHH", 41, 1232, 0, version, flags, length) + options


def option(code, data=b""):
    return struct.pack("!HH", code, len(data)) + data


def exchange(proxy, wire, tcp):
    """The reply as bytes."""
    if tcp:
        with proxy.tcp() as client:
            client.send(wire)
            return client.receive_raw()
    with proxy.udp() as sock:
        sock.send(wire)
        return sock.recv(65535)


def rcode_of(reply):
    """With the upper bits of an OPT at the end, if there is one. (dnspython does not read replies
    of all opcodes.)"""
    flags, additional_count = struct.unpack_from("!2xH6xH", reply)
    assert additional_count == 0 or reply[-11:-8] == b"\0\0\x29"
    return (reply[-6] << 4 if additional_count else 0) | flags & 0xf


def get_no_reply(sock, datagrams):
    """Sends these and a good query behind them. One worker replies in the order of the queries, so
    what comes first tells whether anything came for the others."""
    for datagram in datagrams:
        sock.send(datagram)
    sock.send(message(QUESTION, flags=0x1000, number=0xffff))  # STATUS: answered at once
    reply = sock.recv(4096)
    assert reply[:2] == b"\xff\xff", f"a reply to what gets none: {reply.hex()}"


@contextlib.contextmanager
def nothing_asked(upstream):
    before = len(upstream.queries)
    yield
    assert len(upstream.queries) == before


both_transports = pytest.mark.parametrize("tcp", [False, True], ids=["udp", "tcp"])


# Dropped

@pytest.mark.parametrize("length", [0, 1, 2, 11])
def test_A1_datagram_shorter_than_a_header_is_dropped(shared_proxy, length):
    dropped = shared_proxy.metric("dnsproxy_dropped_total", reason="malformed")
    with shared_proxy.udp() as sock:
        get_no_reply(sock, [message(QUESTION)[:length]])
        sock.send(make_query(f"short-{length}.test").to_wire())
        assert dns.message.from_wire(sock.recv(4096)).rcode() == dns.rcode.NOERROR
    assert shared_proxy.metric("dnsproxy_dropped_total", reason="malformed") == dropped + 1


def test_A2_responses_are_dropped_whatever_their_rcode(shared_proxy, shared_upstream):
    responses = [message(QUESTION, flags=RESPONSE | QUERY | opcode << 11 | rcode)
                 for rcode in range(16) for opcode in (0, 1, 4, 5, 15)]
    responses += [message(flags=RESPONSE, counts=counts)
                  for counts in [(0, 0, 0, 0), (65535, 65535, 65535, 65535)]]
    dropped = shared_proxy.metric("dnsproxy_dropped_total", reason="response")
    with nothing_asked(shared_upstream):
        with shared_proxy.udp() as sock:
            get_no_reply(sock, responses)
        with shared_proxy.tcp() as client:
            client.send(*responses, message(QUESTION, flags=0x1000, number=0xffff))
            assert client.receive_raw()[:2] == b"\xff\xff"
    now_dropped = shared_proxy.metric("dnsproxy_dropped_total", reason="response")
    assert now_dropped == dropped + 2 * len(responses)


@contextlib.contextmanager
def forged_sender(address, port):
    """Sends from the address of another process's UDP socket, which gets the replies: with
    SO_REUSEPORT it may be bound twice, and a connected socket takes only what comes from its
    peer."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind((address, port))
        sock.connect(("127.255.255.1", 9))
        yield sock


def test_A2_A3_two_proxies_do_not_talk_with_each_other(start_upstream, start_proxy):
    left, right = start_proxy(start_upstream()), start_proxy(start_upstream())
    forged = [message(QUESTION, flags=QUERY | opcode << 11, number=opcode) for opcode in range(16)]
    with forged_sender(left.address, left.port) as sock:
        for datagram in forged:
            sock.sendto(datagram, (right.address, right.port))
        # Within, since a reply that comes while the forger's socket closes is nobody's.
        left.wait_for_metric("dnsproxy_dropped_total", at_least=16, reason="response")
    with left.udp() as first, right.udp() as second:
        get_no_reply(first, [])
        get_no_reply(second, [])
    assert left.metric("dnsproxy_queries_total") == 16 + 1      # the replies, and ours
    assert right.metric("dnsproxy_queries_total") == 16 + 1


def assert_nothing_came(sock):
    """A later query has its reply, so this one would have its own by now."""
    sock.setblocking(False)
    with pytest.raises(BlockingIOError):
        sock.recv(4096)


def send_from(source, proxy, name):
    """A socket bound to that source, from which the name was asked."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.settimeout(5)
    sock.bind(source)
    sock.sendto(make_query(name).to_wire(), (proxy.address, proxy.port))
    return sock


@pytest.mark.skipif(os.geteuid() != 0, reason="binds ports below 1024")
@pytest.mark.parametrize("port", [7, 17, 19, 123, 520])
def test_A3_source_ports_of_other_services_are_dropped(shared_proxy, port):
    dropped = shared_proxy.metric("dnsproxy_dropped_total", reason="source_port")
    with send_from(("127.7.7.7", port), shared_proxy, "service.test") as sock:
        assert shared_proxy.query("behind.test").rcode() == dns.rcode.NOERROR
        assert_nothing_came(sock)
    assert shared_proxy.metric("dnsproxy_dropped_total", reason="source_port") == dropped + 1


@pytest.mark.parametrize("port", [1024, 1900, 3702, 5353, 11211])
def test_A3_every_port_that_a_client_may_draw_is_answered(shared_proxy, port):
    """dnsmasq draws its source ports from 1024 up."""
    with send_from(("127.7.7.7", port), shared_proxy, f"drawn{port}.test") as sock:
        assert dns.message.from_wire(sock.recv(4096)).rcode() == dns.rcode.NOERROR


def test_A3_the_list_of_source_ports_is_configurable(start_proxy, upstream):
    refused = ports.free_port("127.7.7.7")
    proxy = start_proxy(upstream, config={"refused-source-ports": [refused]})
    with send_from(("127.7.7.7", refused), proxy, "refused.test") as sock:
        assert proxy.query("behind.test").rcode() == dns.rcode.NOERROR
        assert_nothing_came(sock)
    with send_from(("127.7.7.7", 11211), proxy, "allowed.test") as sock:
        assert dns.message.from_wire(sock.recv(4096)).rcode() == dns.rcode.NOERROR
    assert upstream.names() == ["behind.test.", "allowed.test."]


# Refused at once

NOTIMP, FORMERR, REFUSED, BADVERS = (dns.rcode.NOTIMP, dns.rcode.FORMERR, dns.rcode.REFUSED,
                                     dns.rcode.BADVERS)
LONG_NAME = (b"\x3f" + b"a" * 63) * 4 + b"\0"  # 257 octets
BAD = {
    "A4_truncated_query": (FORMERR, message(QUESTION, flags=QUERY | TRUNCATED)),
    "A5_no_question": (FORMERR, message(counts=(0, 0, 0, 0))),
    "A5_no_question_but_opt": (FORMERR, message(OPT, counts=(0, 0, 0, 1))),
    "A6_two_questions": (FORMERR, message(QUESTION, QUESTION, counts=(2, 0, 0, 0))),
    "A6_65535_questions": (FORMERR, message(QUESTION, counts=(65535, 0, 0, 0))),
    "A7_iquery": (NOTIMP, message(QUESTION, flags=QUERY | 1 << 11)),
    "A7_status": (NOTIMP, message(QUESTION, flags=QUERY | 2 << 11)),
    "A7_notify": (NOTIMP, message(QUESTION, flags=QUERY | 4 << 11)),
    "A7_update": (NOTIMP, message(QUESTION, flags=QUERY | 5 << 11)),
    "A7_dso": (NOTIMP, message(flags=QUERY | 6 << 11, counts=(0, 0, 0, 0))),
    "A7_opcode_15_all_flags": (NOTIMP, message(QUESTION, flags=0x7fff)),
    "A8_answer_record": (FORMERR, message(QUESTION, A_RECORD, counts=(1, 1, 0, 0))),
    "A8_authority_record": (FORMERR, message(QUESTION, A_RECORD, counts=(1, 0, 1, 0))),
    "A8_additional_record": (FORMERR, message(QUESTION, A_RECORD, counts=(1, 0, 0, 1))),
    "A8_record_and_opt": (FORMERR, message(QUESTION, A_RECORD, OPT, counts=(1, 0, 0, 2))),
    "A8_tsig": (FORMERR, message(QUESTION, b"\0\0\xfa\0\xff\0\0\0\0\0\0", counts=(1, 0, 0, 1))),
    "A8_sig0": (FORMERR, message(QUESTION, b"\0\0\x18\0\xff\0\0\0\0\0\0", counts=(1, 0, 0, 1))),
    "A8_tkey_question": (REFUSED, message(question(249))),
    "A8_counts_without_records": (FORMERR, message(QUESTION, counts=(1, 0, 0, 1))),
    "A9_ixfr": (REFUSED, message(question(251))),
    "A9_axfr": (REFUSED, message(question(252))),
    "A9_mailb": (REFUSED, message(question(253))),
    "A9_maila": (REFUSED, message(question(254))),
    "A9_ixfr_with_soa": (FORMERR, message(question(251), A_RECORD, counts=(1, 0, 1, 0))),
    "A10_version_1": (BADVERS, message(QUESTION, opt(version=1), counts=(1, 0, 0, 1))),
    "A10_version_255": (BADVERS, message(QUESTION, opt(version=255), counts=(1, 0, 0, 1))),
    "A10_owner_not_root": (FORMERR, message(QUESTION, opt(owner=b"\1x\0"), counts=(1, 0, 0, 1))),
    "A10_two_opts": (FORMERR, message(QUESTION, OPT, OPT, counts=(1, 0, 0, 2))),
    "A10_rdlength_past_the_end": (FORMERR, message(QUESTION, opt(length=1), counts=(1, 0, 0, 1))),
    "A10_option_past_the_end": (FORMERR, message(QUESTION, opt(b"\0\3\0\2x"),
                                                 counts=(1, 0, 0, 1))),
    "A10_half_an_option": (FORMERR, message(QUESTION, opt(b"\0\3\0"), counts=(1, 0, 0, 1))),
    "A11_too_many_options": (FORMERR, message(QUESTION, opt(option(3) * 900),
                                              counts=(1, 0, 0, 1))),
    "A11_too_many_cookies": (FORMERR, message(QUESTION, opt(option(10, b"cookie--") * 300),
                                              counts=(1, 0, 0, 1))),
    "A11_too_many_paddings": (FORMERR, message(QUESTION, opt(option(12, b"\0") * 500),
                                               counts=(1, 0, 0, 1))),
    "A12_pointer_to_itself": (FORMERR, message(b"\xc0\x0c\0\1\0\1")),
    "A12_pointer_to_the_header": (FORMERR, message(b"\1x\xc0\0\0\1\0\1")),
    "A12_pointer_forward": (FORMERR, message(b"\1x\xc0\x12\0\1\0\1" + b"\1y\0")),
    "A12_chain_of_pointers": (FORMERR, message(b"".join(
        struct.pack("!H", 0xc000 | 14 + 2 * step) for step in range(200)) + b"\0\0\1\0\1")),
    "A12_label_of_64": (FORMERR, message(b"\x40" + b"a" * 64 + b"\0\0\1\0\1")),
    "A12_reserved_label_type": (FORMERR, message(b"\x80" + b"a" * 128 + b"\0\0\1\0\1")),
    "A12_name_of_257": (FORMERR, message(LONG_NAME + b"\0\1\0\1")),
    "A12_name_past_the_end": (FORMERR, message(b"\x3fabc")),
    "A12_name_without_its_end": (FORMERR, message(b"\3abc")),
    "A12_question_cut": (FORMERR, message(QUESTION[:-1])),
    "A12_header_alone": (FORMERR, message()),
}


@both_transports
@pytest.mark.parametrize("case", BAD)
def test_bad_query(shared_proxy, shared_upstream, case, tcp):
    rcode, wire = BAD[case]
    with nothing_asked(shared_upstream):
        reply = exchange(shared_proxy, wire, tcp)
    assert rcode_of(reply) == rcode
    number, flags, *counts = HEADER.unpack_from(reply)
    assert number == 0x5a5a
    assert flags & RESPONSE and not flags & TRUNCATED
    assert flags & 0x7800 == HEADER.unpack_from(wire)[1] & 0x7800, "another opcode"
    assert counts[0] <= 1 and counts[1:3] == [0, 0] and counts[3] <= 1
    assert len(reply) <= 12 + 260 + 11, "more than header, question and OPT"


@both_transports
def test_A6_only_the_header_of_many_questions_comes_back(shared_proxy, tcp):
    wire = message(QUESTION * 200, counts=(200, 0, 0, 0))
    assert len(exchange(shared_proxy, wire, tcp)) == 12


def test_A10_badvers_says_version_0(shared_proxy):
    query = dns.message.make_query("version.test", "A")
    query.use_edns(7)
    reply = shared_proxy.ask(query)
    assert (reply.rcode(), reply.edns) == (dns.rcode.BADVERS, 0)


@both_transports
def test_A10_unknown_options_and_flags_are_accepted_and_not_echoed(shared_proxy, tcp):
    options = [dns.edns.GenericOption(code, b"unknown") for code in (4, 65001, 65535)]
    query = dns.message.make_query("unknown-option.test", "A")
    query.use_edns(0, 0xffff, options=options)
    reply = shared_proxy.ask(query, tcp=tcp)
    assert reply.rcode() == dns.rcode.NOERROR
    assert reply.options == ()
    assert reply.ednsflags & 0xffff == dns.flags.DO


def test_A11_opt_of_60000_octets_over_tcp(shared_proxy, shared_upstream):
    many = message(QUESTION, opt(option(3) * 15_000), counts=(1, 0, 0, 1))
    one = message(b"\5bulky\4test\0\0\1\0\1", opt(option(65001, bytes(60_000))),
                  counts=(1, 0, 0, 1))
    with nothing_asked(shared_upstream):
        assert rcode_of(exchange(shared_proxy, many, True)) == FORMERR
    reply = exchange(shared_proxy, one, True)
    assert rcode_of(reply) == dns.rcode.NOERROR
    assert len(reply) < 100
    sent = next(query for query in shared_upstream.queries if query.name == "bulky.test.")
    assert len(sent.raw) == 128


def test_A11_flood_of_bad_queries_takes_no_memory(shared_proxy):
    wires = [wire for _, wire in BAD.values()]
    with shared_proxy.tcp() as client:
        for turn in range(30):
            client.send(*wires)
            for _ in wires:
                assert client.receive_raw() is not None
            if turn == 0:
                before = shared_proxy.memory_bytes()
    assert shared_proxy.memory_bytes() - before < 4 << 20
    assert shared_proxy.metric("dnsproxy_queries_in_flight") == 0


@pytest.mark.parametrize("labels", [[63, 63, 63, 61], [1] * 127], ids=["long", "many-labels"])
@both_transports
def test_A12_name_of_255_octets_is_answered(shared_proxy, labels, tcp):
    letter = b"u" if tcp else b"t"
    name = dns.name.Name([letter * length for length in labels] + [b""])
    assert len(name.to_wire()) == 255
    reply = shared_proxy.query(name, tcp=tcp)
    assert reply.answer[0].name == name


def test_A12_any_octet_in_a_name(shared_proxy, shared_upstream):
    name = dns.name.Name([bytes(range(63)), bytes(range(128, 191)), b"a.b c\0", b"test", b""])
    reply = shared_proxy.query(name)
    assert reply.answer[0].name == name
    assert shared_upstream.queries[-1].question.name == name


def test_root_can_be_asked_for(shared_proxy):
    assert shared_proxy.query(".", "TXT").answer[0].name == dns.name.root


@pytest.mark.parametrize("rdclass", ["CH", "ANY", "CLASS65000"])
def test_other_classes_are_passed_on(shared_proxy, shared_upstream, rdclass):
    reply = shared_proxy.query(f"{rdclass}.class.test", "TXT", rdclass=rdclass)
    assert reply.question[0].rdclass == shared_upstream.queries[-1].question.rdclass


# Sizes

@pytest.mark.parametrize("payload, limit", [(None, 512), (0, 512), (511, 512), (512, 512),
                                            (1000, 1000), (1232, 1232), (4096, 1232),
                                            (65535, 1232)])
def test_A14_reply_is_no_larger_than_the_client_takes_and_we_allow(shared_proxy, payload, limit):
    name = f"big-1050.size-{payload}.test" if limit == 1232 else f"big-5000.size-{payload}.test"
    query = make_query(name, "TXT", edns=payload is not None, payload=payload)
    with shared_proxy.udp() as sock:
        for _ in range(2):  # from the upstream, then from the cache
            sock.send(query.to_wire())
            raw = sock.recv(65535)
            reply = dns.message.from_wire(raw)
            assert len(raw) <= limit
            assert bool(reply.flags & dns.flags.TC) == (limit < 1232)
            if limit < 1232:
                assert (reply.answer, reply.authority, reply.additional) == ([], [], [])
                assert reply.edns == (-1 if payload is None else 0)
    whole = shared_proxy.ask(query, tcp=True)
    assert not whole.flags & dns.flags.TC
    assert len(whole.answer[0]) == (1 if limit == 1232 else 4)


def answer_with_servers(addresses):
    """A hook: an A record, eight name servers of about 40 octets, and so many addresses for each."""
    servers = [f"ns{number}-{'x' * 24}.servers.test." for number in range(8)]

    def hook(query):
        answer = query.make_answer()
        name = query.message.question[0].name
        answer.authority = [dns.rrset.from_text(name, 300, "IN", "NS", *servers)]
        answer.additional = [dns.rrset.from_text(
            server, 300, "IN", "AAAA", *[f"2001:db8::{number}:{last + 1}" for last in range(addresses)])
                             for number, server in enumerate(servers)]
        answer.use_edns(False)
        query.reply(answer)
    return hook


@pytest.mark.parametrize("payload, limit, addresses", [
    (None, 512, 1), (512, 512, 1), (600, 600, 2), (1232, 1232, 6), (4096, 1232, 6)])
def test_A19_RFC2181_what_is_optional_is_cut_without_tc(upstream, proxy, payload, limit, addresses):
    upstream.on_query = answer_with_servers(addresses)
    query = make_query("case.test", edns=payload is not None, payload=payload)
    with proxy.udp() as sock:
        for _ in range(2):  # from the upstream, then from the cache
            sock.send(query.to_wire())
            raw = sock.recv(65535)
            reply = dns.message.from_wire(raw)
            assert not reply.flags & dns.flags.TC
            assert limit - 40 - 28 * addresses < len(raw) <= limit, "as much as fits"
            assert [rrset.to_text() for rrset in reply.answer] == [
                f"case.test. {reply.answer[0].ttl} IN A {zone.address('case.test')}"]
            assert len(reply.authority[0]) == 8 and reply.authority[0].ttl in (299, 300)
            assert all(len(rrset) == addresses for rrset in reply.additional), "whole RRsets"
            assert reply.edns == (-1 if payload is None else 0)
    assert len(upstream.queries) == 1
    whole = proxy.ask(query, tcp=True)
    assert len(whole.additional) == 8 > len(reply.additional)
    assert proxy.metric("dnsproxy_replies_truncated_total") == 0


@pytest.mark.parametrize("want_dnssec", [False, True], ids=["plain", "do"])
def test_A19_A14_what_a_client_needs_is_never_cut(upstream, proxy, want_dnssec):
    def hook(query):
        answer = query.make_answer()
        answer.set_rcode(dns.rcode.NXDOMAIN)
        answer.answer = []
        proofs = [dns.rrset.from_text(f"n{number}.test.", 300, "IN", "NSEC",
                                      f"{'x' * 60}.{'y' * 60}.test. A RRSIG NSEC")
                  for number in range(9)]
        soa = dns.rrset.from_text("test.", 300, "IN", "SOA", "ns.test. root.test. 1 2 3 4 300")
        answer.authority = [soa, *proofs]
        query.reply(answer)
    upstream.on_query = hook
    for _ in range(2):
        reply = proxy.query("gone.test", want_dnssec=want_dnssec)
        assert bool(reply.flags & dns.flags.TC) == want_dnssec
        assert reply.rcode() == dns.rcode.NXDOMAIN
        if want_dnssec:
            assert (reply.answer, reply.authority, reply.additional) == ([], [], [])
        else:
            assert reply.authority[0].rdtype == dns.rdatatype.SOA
            assert 1 < len(reply.authority) < 10
    assert len(upstream.queries) == 1
    assert len(proxy.query("gone.test", want_dnssec=want_dnssec, tcp=True).authority) == 10


def test_A14_the_size_is_configurable(start_proxy, upstream):
    proxy = start_proxy(upstream, config={"limits": {"udp-reply-size": 4096}})
    reply = proxy.query("big-3000.test", "TXT", payload=4096)
    assert not reply.flags & dns.flags.TC
    assert proxy.query("big-3000.test", "TXT", payload=1232).flags & dns.flags.TC
    assert proxy.metric("dnsproxy_replies_truncated_total") == 1


# Addresses

@pytest.mark.parametrize("wildcard, addresses", [
    ("0.0.0.0", ["127.0.0.1", "127.0.0.2", "127.99.1.3"]),
    pytest.param("::", ["::1"], marks=pytest.mark.ipv6)])
def test_A15_reply_leaves_from_the_address_that_was_asked(start_proxy, upstream, wildcard,
                                                         addresses):
    proxy = start_proxy(upstream, address=wildcard)
    family = socket.AF_INET6 if ":" in wildcard else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.settimeout(5)
        for turn, address in enumerate(addresses * 2):  # asked for, then from the cache
            sock.sendto(make_query("wildcard.test").to_wire(), (address, proxy.port))
            raw, peer = sock.recvfrom(4096)
            assert peer[:2] == (address, proxy.port), f"turn {turn}"
            assert dns.message.from_wire(raw).answer[0][0].address == zone.address("wildcard.test")
    assert dns.query.tcp(make_query("wildcard.test"), addresses[-1], port=proxy.port,
                         timeout=5).rcode() == dns.rcode.NOERROR


@pytest.mark.ipv6
def test_A15_both_wildcards_on_one_port(start_proxy, upstream):
    port = ports.free_port("0.0.0.0")
    proxy = start_proxy(upstream, config={"listen": [f"0.0.0.0:{port}", f"[::]:{port}"]})
    for address in ("127.0.0.2", "::1"):
        for how in (dns.query.udp, dns.query.tcp):
            reply = how(make_query("both.test"), address, port=port, timeout=5)
            assert reply.answer[0][0].address == zone.address("both.test")
    assert len(proxy.logs("listening")) == 2


def test_A16_clients_that_have_gone(shared_proxy, shared_upstream):
    """The kernel answers their replies with ICMP port unreachable."""
    for number in range(100):
        with shared_proxy.udp() as sock:
            sock.send(make_query(f"gone{number}.test").to_wire())
            sock.send(make_query("gone.test").to_wire())
    shared_upstream.wait_for(lambda: "gone99.test." in shared_upstream.names())
    assert shared_proxy.query("here.test").rcode() == dns.rcode.NOERROR
    eventually(lambda: shared_proxy.metric("dnsproxy_queries_in_flight") == 0)


# Amplification

def test_A17_RFC8482_any_is_answered_minimally_over_udp(shared_proxy, shared_upstream):
    with nothing_asked(shared_upstream):
        query = make_query("any.test", "ANY")
        reply = shared_proxy.ask(query)
    assert reply.answer[0].to_text().endswith('HINFO "RFC8482" ""')
    assert len(reply.to_wire()) < 100
    shared_proxy.query("any.test", "ANY", tcp=True)
    assert shared_upstream.names()[-1] == "any.test."


def test_A17_RFC8482_any_with_DO_is_sent_to_tcp(shared_proxy, shared_upstream):
    query = make_query("any-do.test", "ANY", want_dnssec=True)
    with nothing_asked(shared_upstream):
        reply = shared_proxy.ask(query)
    assert reply.rcode() == dns.rcode.NOERROR and reply.flags & dns.flags.TC
    assert reply.answer == [] and reply.ednsflags & dns.flags.DO
    reply = shared_proxy.ask(query, tcp=True)
    assert not reply.flags & dns.flags.TC
    assert shared_upstream.names()[-1] == "any-do.test."


def ask_many(proxy, source, count):
    """Replies as bytes to `count` queries for one cached name, in batches that the socket holds."""
    wire = make_query("big-1000.rate.test", "TXT").to_wire()
    replies = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(5)
        sock.bind((source, 0))
        sock.connect((proxy.address, proxy.port))
        for _ in range(count // 50):
            for _ in range(50):
                sock.send(wire)
            replies += [sock.recv(4096) for _ in range(50)]
    return wire, replies


def test_A17_replies_to_one_network_are_limited(start_proxy, upstream):
    proxy = start_proxy(upstream, config={"limits": {"udp-rate": 10}})
    assert proxy.query("big-1000.rate.test", "TXT", tcp=True).rcode() == dns.rcode.NOERROR
    wire, replies = ask_many(proxy, "127.1.1.1", 500)
    cut = [reply for reply in replies if HEADER.unpack_from(reply)[1] & TRUNCATED]
    # A slow machine may need two seconds for this, and each allows ten more.
    assert 500 - 50 <= len(cut) <= 500 - 10
    assert all(len(reply) <= len(wire) for reply in cut), "a forger gains"
    assert proxy.metric("dnsproxy_replies_rate_limited_total") == len(cut)
    for source in ("127.1.1.200", "127.1.2.1"):
        _, replies = ask_many(proxy, source, 50)
        whole = [reply for reply in replies if not HEADER.unpack_from(reply)[1] & TRUNCATED]
        if source == "127.1.2.1":
            assert len(whole) >= 10, "another network must not suffer"
        else:
            assert len(whole) < 25, "the same network shares the limit"
    assert not proxy.query("big-1000.rate.test", "TXT", tcp=True).flags & dns.flags.TC


# The programs that people use

def run_client(program, proxy, *arguments):
    command = [program, f"@{proxy.address}", "-p", str(proxy.port), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=15)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


DIG_OPTIONS = ["+noall", "+comments", "+answer", "+question"]


@pytest.mark.parametrize("arguments", [
    ["+noedns"], ["+edns=0"], ["+cookie"], ["+cookie=0123456789abcdef"], ["+nsid"],
    ["+subnet=192.0.2.0/24"], ["+ednsopt=65001:feedbeef"], ["+ednsflags=0x4000"],
    ["+bufsize=4096"], ["+padding=128"], ["+dnssec"], ["+cdflag"], ["+noadflag"],
    ["+norecurse"], ["+tcp"], ["+tcp", "+keepalive"], ["+tcp", "+keepopen"], ["+qr", "+expire"],
], ids=" ".join)
def test_dig(shared_proxy, shared_upstream, arguments):
    name = "dig-" + re.sub(r"\W", "-", "".join(arguments)).strip("-+") + ".test"
    output = run_client("dig", shared_proxy, *DIG_OPTIONS, *arguments, name, "A")
    assert "status: NOERROR" in output
    assert zone.address(name) in output
    assert "WARNING" not in output and "Got bad packet" not in output
    check_nothing_leaked(shared_upstream, name)


@pytest.mark.parametrize("arguments", [
    ["+noedns"], ["+edns=0"], ["+cookie"], ["+nsid"], ["+subnet=192.0.2.0/24"],
    ["+ednsopt=65001:feedbeef"], ["+bufsize=4096"], ["+padding=128"], ["+dnssec"], ["+cdflag"],
    ["+adflag"], ["+norecurse"], ["+tcp"], ["+tcp", "+keepopen"],
], ids=" ".join)
def test_kdig(shared_proxy, shared_upstream, arguments):
    name = "kdig-" + re.sub(r"\W", "-", "".join(arguments)).strip("-+") + ".test"
    output = run_client("kdig", shared_proxy, *arguments, name, "A")
    assert "status: NOERROR" in output
    assert zone.address(name) in output
    assert "WARNING" not in output
    check_nothing_leaked(shared_upstream, name)


def check_nothing_leaked(upstream, name):
    """Whatever the client sent: the upstream gets our two options, our size and full padding."""
    sent = next(query for query in upstream.queries if query.name == name + ".")
    assert sorted(option.otype for option in sent.message.options) == [KEEPALIVE, PADDING]
    assert sent.message.payload == 1232
    assert sent.message.ednsflags & ~dns.flags.DO == 0
    assert len(sent.raw) % 128 == 0
    for part in (b"\x01\x23\x45\x67\x89\xab\xcd\xef", b"\xfe\xed\xbe\xef", b"\xc0\x00\x02"):
        assert part not in sent.raw


def test_dig_badvers(shared_proxy):
    output = run_client("dig", shared_proxy, "+edns=1", "+noednsnegotiation", "version.test")
    assert "status: BADVERS" in output


def test_dig_falls_back_to_tcp(shared_proxy):
    output = run_client("dig", shared_proxy, "big-3000.dig.test", "TXT")
    assert "Truncated, retrying in TCP mode" in output
    assert "ANSWER: 2" in output


def test_dig_shows_the_extended_error(start_proxy, upstream):
    upstream.on_query = never
    proxy = start_proxy(upstream, config={"timeouts": {"query": "300ms"}})
    output = run_client("dig", proxy, "+tries=1", "silent.test")
    assert "status: SERVFAIL" in output
    assert re.search(r"EDE: 22 .No Reachable Authority.: .*" + re.escape(upstream.label), output)
