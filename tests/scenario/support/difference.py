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
    def limit(self):
        """Octets that a reply may have; sizes below 512 count as 512 (RFC 6891 6.2.3)."""
        if self.tcp:
            return 65535
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


@dataclasses.dataclass
class Record:
    """A record on the wire. `rdtype` of an RRSIG is the type that it covers."""
    section: int
    rdtype: int
    is_signature: bool
    ttl: int
    end: int


def wire_records(raw):
    """The records of a message in their order, OPT left out."""
    position = 12
    counts = struct.unpack("!4H", raw[4:12])
    for section, count in enumerate(counts):
        for _ in range(count):
            while 0 < raw[position] < 0xc0:
                position += 1 + raw[position]
            position += 2 if raw[position] else 1
            if section == 0:
                position += 4
                continue
            rdtype, _, ttl, length = struct.unpack("!HHIH", raw[position:position + 10])
            position += 10 + length
            is_signature = rdtype == dns.rdatatype.RRSIG
            if is_signature:
                rdtype, = struct.unpack("!H", raw[position - length:position - length + 2])
            if rdtype != dns.rdatatype.OPT:
                yield Record(section - 1, rdtype, is_signature, ttl, position)


class Reply:
    """A message taken apart: `keys` names every record but its TTL, in the order of `ttls`.
    `needed` are the records that a client cannot do without, and `needed_end` where they end."""

    def __init__(self, raw, want_dnssec):
        self.raw = raw
        try:
            self.message = dns.message.from_wire(raw, one_rr_per_rrset=True)
        except dns.exception.DNSException as error:
            raise AssertionError(f"no DNS message: {error!r} {raw[:100]!r}") from error
        records = sorted((key, ttl) for section, rrsets in enumerate(self.message.sections[1:])
                         for key, ttl in self._records(section, rrsets))
        self.keys = [key for key, _ in records]
        self.ttls = [ttl for _, ttl in records]
        self.is_negative = (self.message.rcode() == dns.rcode.NXDOMAIN
                            or (self.message.rcode() == dns.rcode.NOERROR and not self._has_data()))
        self.has_soa = any(rrset.rdtype == dns.rdatatype.SOA for rrset in self.message.authority)
        on_wire = list(wire_records(raw))
        self.end = max((record.end for record in on_wire), default=0)
        self.needed = [record for record in on_wire if self._is_needed(record, want_dnssec)]
        self.needed_end = max((record.end for record in self.needed), default=0)
        if self.is_negative and not self.has_soa:  # a referral
            self.needed_end = self.end
        self.lifetime = self._lifetime()

    def _is_needed(self, record, want_dnssec):
        """RFC 2181 9: the answer, the SOA that says no, the proofs and signatures of a client with
        DO."""
        if record.section == 0:
            return True
        if record.section == 2 or (record.is_signature and not want_dnssec):
            return False
        return (record.rdtype == dns.rdatatype.SOA and self.is_negative
                or record.rdtype in (dns.rdatatype.NSEC, dns.rdatatype.NSEC3) and want_dnssec)

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
        """Seconds that it may be kept: what is needed decides, RFC 2308 5 for one that says no,
        and the defaults of cache.ttl-max and cache.negative-ttl-max."""
        if is_error(self) or not self.needed:
            return 0
        least = min(record.ttl for record in self.needed)
        if not self.is_negative:
            return min(least, DAY_S)
        minima = [rrset[0].minimum for rrset in self.message.authority
                  if rrset.rdtype == dns.rdatatype.SOA]
        return min(least, *minima, HOUR_S) if minima else 0

    def rrsets(self):
        """The RRset of each key. An RRSIG belongs to those of the type that it covers."""
        return [(*key[:4], key[4][:2] if key[2] == dns.rdatatype.RRSIG else None)
                for key in self.keys]

    def kept_ttls(self):
        """The TTL with which each record is kept."""
        return {key: min(ttl, self.lifetime if self._says_no(key) else DAY_S)
                for key, ttl in zip(self.keys, self.ttls)}

    def _says_no(self, key):
        return self.is_negative and key[2] == dns.rdatatype.SOA


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
        direct = [Reply(exchange.raw, one.question.want_dnssec) for one, exchange
                  in zip(asked, self._exchange(self._address, asked, tcp=True))]
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
        reply = Reply(exchange.raw, asked.question.want_dnssec)
        try:
            if is_minimal_any(asked) and asked.question.want_dnssec:
                expect(reply.message.flags & dns.flags.TC and not reply.message.answer,
                       "ANY with DO is not sent to TCP")
                return False
            if is_minimal_any(asked):
                expect([str(rrset) for rrset in reply.message.answer]
                       == [f'{reply.message.question[0].name} 3600 IN HINFO "RFC8482" ""'],
                       "not the minimal answer to ANY")
                return False
            is_truncated = size_with(asked, direct.needed_end) > asked.limit
            oldest_s, youngest_s = self._ages(asked, exchange)
            is_kept = direct.lifetime > oldest_s if youngest_s is not None else False
            may_be_kept = youngest_s is not None and not is_kept
            compare_header(asked, direct, reply, is_truncated, is_kept, may_be_kept)
            compare_question(asked, reply)
            compare_edns(asked, reply)
            expect(len(reply.raw) <= asked.limit, "too long")
            has_ended = youngest_s is not None and min(direct.ttls, default=0) <= oldest_s
            if is_truncated:  # RFC 9715, FAULTS A14
                expect(reply.keys == [], "records in a truncated reply")
            elif has_ended or size_with(asked, direct.end) > asked.limit:
                compare_cut(direct, reply)
            else:
                expect(reply.keys == direct.keys, "the records differ")
            self._compare_ttls(direct, reply, is_kept, youngest_s, oldest_s)
            return is_truncated
        except AssertionError as error:
            raise AssertionError(
                f"{error}\nasked: {asked}\n--- directly, {len(direct.raw)} octets\n"
                f"{direct.message}\n--- through the proxy, {len(reply.raw)} octets\n"
                f"{reply.message}") from None

    def _ages(self, asked, exchange):
        """The most and the least seconds that an answer may have been kept; None if it cannot."""
        first = self._first.get(asked.question)
        if asked.recursion_desired and first is None:
            # An answer to a query without RD is not kept.
            self._first[asked.question] = exchange
        if first is None:
            return 0, None
        return exchange.received - first.sent, exchange.sent - first.received

    def _compare_ttls(self, direct, reply, is_kept, youngest_s, oldest_s):
        told = dict(zip(direct.keys, direct.ttls))
        is_new = all(told[key] == ttl for key, ttl in zip(reply.keys, reply.ttls))
        if is_kept:
            self.kept += 1
            compare_aged_ttls(direct, reply, youngest_s, oldest_s)
        elif youngest_s is not None and direct.lifetime > 0 and not is_new:
            # It has run out by now, or will within the second: kept, or asked for again by another.
            compare_aged_ttls(direct, reply, 0, oldest_s)
        else:
            expect(is_new, "the TTLs of a new answer differ")


def is_error(reply):
    """YXDOMAIN is none: it comes with a DNAME and says that a name would be too long (RFC 6672)."""
    return reply.message.rcode() not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN, dns.rcode.YXDOMAIN)


def is_minimal_any(asked):
    """RFC 8482 4.2 and 4.4: what the proxy says to ANY over UDP, whatever the server has."""
    question = asked.question
    return (not asked.tcp and question.rdtype == dns.rdatatype.ANY
            and question.rdclass == dns.rdataclass.IN)


def size_with(asked, end):
    """Octets of a reply with the records up to `end` and an OPT without options."""
    return end + (OPT_SIZE if asked.payload is not None else 0)


def compare_cut(direct, reply):
    """RFC 2181 9, FAULTS A19: whole RRsets went, from the end, and none that is needed."""
    expect(set(reply.keys) <= set(direct.keys), "records that the server does not have")
    expect(reply.needed_end == direct.needed_end, "what is needed was cut")
    gone = set(direct.keys) - set(reply.keys)
    torn = {rrset for key, rrset in zip(direct.keys, direct.rrsets()) if key in gone}
    if reply.end != reply.needed_end:
        expect(not torn & set(reply.rrsets()), "a part of an RRset")


def compare_header(asked, direct, reply, is_truncated, is_kept, may_be_kept):
    expect(reply.message.rcode() == direct.message.rcode(), "the RCODE differs")
    question = asked.question
    sent, told = direct.message.flags, dns.flags.QR
    # RA is the proxy's own, which does resolve for its client. RD and CD are those of the query
    # (RFC 1035 4.1.1, RFC 4035 3.2.2). AA is passed on, but is none of the cache's.
    told |= dns.flags.RA | (0 if is_kept else sent & dns.flags.AA)
    told |= dns.flags.RD * asked.recursion_desired | dns.flags.CD * question.checking_disabled
    # AD only for a client that asks for it (RFC 6840 5.8), and never in an error: Unbound has there
    # what was in the query.
    if (asked.authentic_data or question.want_dnssec) and not is_error(direct):
        told |= sent & dns.flags.AD
    told |= dns.flags.TC * is_truncated
    flags = reply.message.flags & ~0xf
    if may_be_kept and told & dns.flags.AA:
        told &= flags | ~dns.flags.AA
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
    """The TTLs of an answer that was kept for `least_s` to `most_s` seconds: all are as much lower
    as the answer is old, in whole seconds (FAULTS H14)."""
    kept = direct.kept_ttls()
    ages = {kept[key] - now for key, now in zip(reply.keys, reply.ttls)}
    expect(len(ages) <= 1, f"the records have different ages: {ages}")
    for age in ages:
        expect(math.floor(least_s) <= age <= math.floor(most_s),
               f"kept for {least_s:.2f} to {most_s:.2f} s, but TTLs are lower by {age} s")
