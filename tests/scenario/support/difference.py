# SPDX-License-Identifier: Apache-2.0
"""Compares what a server says directly with what it says through the proxy.

    comparison = Comparison(server, proxy)
    comparison.ask([Asked(question), ...])     raises AssertionError on the first difference

Each message goes to the server over TCP and to the proxy over the transport it names, the same
bytes but for the ID. The two replies must be the same but for what the comments here allow.
"""

import dataclasses
import math
import random
import struct

import dns.edns
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rdtypes.ANY.RP
import dns.rdtypes.nsbase

from support.bulk import ask_many

class _OldTypes:
    """Types of RFC 1035 that dnspython does not know, whose names may be compressed (RFC 3597 4):
    as raw octets the same records would not compare."""
    class MB(dns.rdtypes.nsbase.NSBase):
        """A name."""

    MG = MR = MB
    MINFO = dns.rdtypes.ANY.RP.RP  # two names


for _name in ("MB", "MG", "MR", "MINFO"):
    dns.rdata.register_type(_OldTypes, dns.rdatatype.from_text(_name), _name)

UDP_REPLY_SIZE = 1232  # limits.udp-reply-size
OPT_SIZE = 11
DAY_S = 86400
HOUR_S = 3600


@dataclasses.dataclass(frozen=True)
class Question:
    """What makes two questions the same for a cache."""
    name: dns.name.Name  # of any spelling: compared as RFC 4343 says
    rdtype: int
    rdclass: int = dns.rdataclass.IN
    want_dnssec: bool = False
    checking_disabled: bool = False

    def __str__(self):
        flags = " DO" * self.want_dnssec + " CD" * self.checking_disabled
        return (f"{self.name} {dns.rdataclass.to_text(self.rdclass)} "
                f"{dns.rdatatype.to_text(self.rdtype)}{flags}")


@dataclasses.dataclass
class Asked:
    """A question and how one client puts it."""
    question: Question
    tcp: bool = True
    recursion_desired: bool = True
    authentic_data: bool = False
    payload: int | None = 1232  # None: without EDNS
    options: bytes = b""
    letters: random.Random = dataclasses.field(default_factory=lambda: random.Random(0))

    def __post_init__(self):
        question = self.question
        assert self.payload is not None or not question.want_dnssec
        self.spelling = spell(question.name, self.letters)
        flags = (dns.flags.RD * self.recursion_desired | dns.flags.AD * self.authentic_data
                 | dns.flags.CD * question.checking_disabled)
        has_edns = self.payload is not None
        self.wire = (struct.pack("!6H", 0, flags, 1, 0, 0, has_edns)
                     + self.spelling + struct.pack("!HH", question.rdtype, question.rdclass))
        if has_edns:
            self.wire += struct.pack("!BHHBBHH", 0, dns.rdatatype.OPT, self.payload, 0, 0,
                                     dns.flags.DO * question.want_dnssec, len(self.options))
            self.wire += self.options

    @property
    def udp_limit(self):
        """Octets that a UDP reply may have; sizes below 512 count as 512 (RFC 6891 6.2.3)."""
        return 512 if self.payload is None else min(max(self.payload, 512), UDP_REPLY_SIZE)

    def again(self, **changes):
        """The same question in another spelling, with these changes."""
        return dataclasses.replace(self, **changes)

    def __str__(self):
        return (f"{self.question} {'tcp' if self.tcp else 'udp'} rd={self.recursion_desired} "
                f"ad={self.authentic_data} payload={self.payload} spelling={self.spelling!r}")


def spell(name, rng):
    """The name in wire form with random case."""
    wire = bytearray(name.to_wire())
    at = 0
    while wire[at]:
        for index in range(at + 1, at + 1 + wire[at]):
            if chr(wire[index]).isascii() and chr(wire[index]).isalpha() and rng.random() < 0.5:
                wire[index] ^= 0x20
        at += 1 + wire[at]
    return bytes(wire)


class Reply:
    """A message taken apart: `keys` names every record but its TTL, in the order of `ttls`."""

    def __init__(self, raw):
        self.raw = raw
        try:
            self.message = dns.message.from_wire(raw, one_rr_per_rrset=True)
        except dns.exception.DNSException as error:
            raise AssertionError(f"no DNS message: {error!r} {raw[:100]!r}") from error
        records = sorted((key, ttl) for section, rrsets in enumerate(self.message.sections[1:])
                         for key, ttl in self._records(section, rrsets))
        self.keys = [key for key, _ in records]
        self.ttls = [ttl for _, ttl in records]
        self.lifetime = self._lifetime()

    @staticmethod
    def _records(section, rrsets):
        # Names are equal whatever their case (RFC 4343): those that are written as pointers to the
        # question have the case of the client that asks. OPT is not among the records here.
        for rrset in rrsets:
            for rdata in rrset:
                yield ((section, rrset.name.canonicalize().to_wire(), rrset.rdtype, rrset.rdclass,
                        rdata.to_digestable()), rrset.ttl)

    def _has_data(self):
        question = self.message.question[0]
        at = {(rrset.name, rrset.rdtype): rrset for rrset in self.message.answer}
        name = question.name
        for _ in range(len(at) + 1):
            if (name, question.rdtype) in at or (question.rdtype == dns.rdatatype.ANY
                                                 and self.message.answer):
                return True
            if (name, dns.rdatatype.CNAME) not in at:
                return False
            name = at[name, dns.rdatatype.CNAME][0].target
        return False

    def _lifetime(self):
        """Seconds that it may be kept: RFC 2181 for an answer as a whole, RFC 2308 5 for one that
        says no, and the defaults of cache.ttl-max and cache.negative-ttl-max."""
        rcode = self.message.rcode()
        if is_error(self) or not self.ttls:
            return 0
        if rcode == dns.rcode.YXDOMAIN or (rcode == dns.rcode.NOERROR and self._has_data()):
            return min(*self.ttls, DAY_S)
        minima = [rrset[0].minimum for rrset in self.message.authority
                  if rrset.rdtype == dns.rdatatype.SOA]
        return min(*self.ttls, *minima, HOUR_S) if minima else 0


def expect(condition, what):
    if not condition:
        raise AssertionError(what)


class Comparison:
    """`kept` counts the replies so far that must have come from the cache."""

    def __init__(self, server, proxy):
        self._in_flight = server.in_flight
        self._address = server.address
        self._proxy = proxy
        self._proxy_address = (proxy.address, proxy.port)
        self._first = {}  # question: the exchange in which its answer came to the cache
        self.kept = 0

    def ask(self, asked):
        """Asks all at once and gives the direct replies. No two may be the same question: they
        would race for the cache."""
        assert len({one.question for one in asked}) == len(asked)
        direct = [Reply(exchange.raw)
                  for exchange in self._exchange(self._address, asked, tcp=True)]
        truncated = []
        for tcp in (False, True):
            pairs = [pair for pair in zip(asked, direct) if pair[0].tcp == tcp]
            truncated += self._ask_proxy(pairs, tcp=tcp)
        self._ask_proxy([(one.again(tcp=True), reply) for one, reply in truncated], tcp=True)
        return direct

    def cache_hits(self):
        return self._proxy.metric("dnsproxy_cache_lookups_total", result="hit")

    def _ask_proxy(self, pairs, *, tcp):
        """Gives the pairs whose reply is truncated."""
        exchanges = self._exchange(self._proxy_address, [one for one, _ in pairs], tcp=tcp)
        return [(one, direct) for (one, direct), exchange in zip(pairs, exchanges)
                if self._compare(one, direct, exchange)]

    def _exchange(self, address, asked, *, tcp):
        wires = [one.wire for one in asked]
        exchanges = ask_many(address, wires, tcp=tcp, **self._in_flight)
        lost = [str(one) for one, exchange in zip(asked, exchanges) if exchange.raw is None]
        expect(not lost, f"{len(lost)} without a reply from port {address[1]} "
               f"over {'TCP' if tcp else 'UDP'}: {lost[:3]}")
        return exchanges

    def _compare(self, asked, direct, exchange):
        """True when the reply is truncated, as it should be."""
        reply = Reply(exchange.raw)
        try:
            if is_minimal_any(asked):
                expect([str(rrset) for rrset in reply.message.answer]
                       == [f'{reply.message.question[0].name} 3600 IN HINFO "RFC8482" ""'],
                       "not the minimal answer to ANY")
                return False
            is_truncated = not asked.tcp and full_size(asked, direct) > asked.udp_limit
            compare_header(asked, direct, reply, is_truncated)
            compare_question(asked, reply)
            compare_edns(asked, reply)
            # RFC 2181 9, RFC 9715 and FAULTS A14: no part of an RRset.
            expect(reply.keys == ([] if is_truncated else direct.keys), "the records differ")
            self._compare_ttls(asked, direct, reply, exchange)
            return is_truncated
        except AssertionError as error:
            raise AssertionError(
                f"{error}\nasked: {asked}\n--- directly, {len(direct.raw)} octets\n"
                f"{direct.message}\n--- through the proxy, {len(reply.raw)} octets\n"
                f"{reply.message}") from None

    def _compare_ttls(self, asked, direct, reply, exchange):
        first = self._first.get(asked.question)
        if asked.recursion_desired and first is None:
            # An answer to a query without RD is not kept.
            self._first[asked.question] = exchange
        elapsed = exchange.received - first.sent if first else 0
        if first and direct.lifetime > elapsed:
            self.kept += 1
            compare_aged_ttls(direct, reply, exchange.sent - first.received, elapsed)
        elif first and direct.lifetime > 0 and reply.ttls != direct.ttls:
            # It has run out by now, or will within the second: kept, or asked for again by another.
            compare_aged_ttls(direct, reply, 0, elapsed)
        elif reply.keys:
            expect(reply.ttls == direct.ttls, "the TTLs of a new answer differ")


def is_error(reply):
    """YXDOMAIN is none: it comes with a DNAME and says that a name would be too long (RFC 6672)."""
    return reply.message.rcode() not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN, dns.rcode.YXDOMAIN)


def is_minimal_any(asked):
    """RFC 8482 4.2: what the proxy says to ANY over UDP, whatever the server has."""
    question = asked.question
    return (not asked.tcp and question.rdtype == dns.rdatatype.ANY
            and question.rdclass == dns.rdataclass.IN)


def full_size(asked, direct):
    """Octets of a reply with all records of `direct` and an OPT without options."""
    size = len(direct.raw)
    if direct.message.edns >= 0:
        size -= OPT_SIZE + sum(4 + len(option.to_wire()) for option in direct.message.options)
    return size + (OPT_SIZE if asked.payload is not None else 0)


def compare_header(asked, direct, reply, is_truncated):
    expect(reply.message.rcode() == direct.message.rcode(), "the RCODE differs")
    question = asked.question
    sent, told = direct.message.flags, dns.flags.QR
    # RA is the proxy's own, which does resolve for its client. RD and CD are those of the query
    # (RFC 1035 4.1.1, RFC 4035 3.2.2). AA is passed on, also from the cache.
    told |= dns.flags.RA | (sent & dns.flags.AA)
    told |= dns.flags.RD * asked.recursion_desired | dns.flags.CD * question.checking_disabled
    # AD only for a client that asks for it (RFC 6840 5.8), and never in an error: Unbound has there
    # what was in the query.
    if (asked.authentic_data or question.want_dnssec) and not is_error(direct):
        told |= sent & dns.flags.AD
    told |= dns.flags.TC * is_truncated
    flags = reply.message.flags & ~0xf
    expect(flags == told, f"flags {dns.flags.to_text(flags)}, not {dns.flags.to_text(told)}")


def compare_question(asked, reply):
    """As asked, to the case of each letter."""
    question = asked.question
    wire = asked.spelling + struct.pack("!HH", question.rdtype, question.rdclass)
    expect(reply.raw[12:12 + len(wire)] == wire, "the question is not as asked")


def compare_edns(asked, reply):
    """EDNS is hop by hop (RFC 6891 6.1.1): that of the proxy, not of the server. Options that were
    not understood are not answered; the one that may come tells that a failure was cached."""
    message = reply.message
    if asked.payload is None:
        expect(message.edns < 0, "an OPT for a client without EDNS")
        return
    expect(message.edns == 0 and message.payload == UDP_REPLY_SIZE, "not the proxy's OPT")
    told = bool(message.ednsflags & dns.flags.DO)
    expect(told == asked.question.want_dnssec, "DO is not copied (RFC 3225 3)")
    expect(all(isinstance(option, dns.edns.EDEOption) for option in message.options),
           "unexpected options")


def compare_aged_ttls(direct, reply, least_s, most_s):
    """The TTLs of an answer that was kept for `least_s` to `most_s` seconds. All are brought within
    the time for which the answer is kept as a whole (RFC 2181 8 allows any smaller TTL), and all
    are as much lower as the answer is old; a second that has begun counts."""
    ages = {min(was, direct.lifetime) - now for was, now in zip(direct.ttls, reply.ttls)}
    expect(len(ages) <= 1, f"the records have different ages: {ages}")
    for age in ages:
        expect(math.floor(least_s) <= age <= math.ceil(most_s),
               f"kept for {least_s:.2f} to {most_s:.2f} s, but TTLs are lower by {age} s")
