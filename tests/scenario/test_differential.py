# SPDX-License-Identifier: Apache-2.0
"""The same zone asked directly and through the proxy gives the same answers.

The zones are random, but for a seed: one plain, one signed with NSEC, one with NSEC3. Every message
goes to NSD or Unbound itself and to a proxy in front of its TLS port, once for a new answer and
once for one from the cache; what may differ is said in support/difference.py. With another
$DIFFERENTIAL_SEED the zones and the questions are others.
"""

import contextlib
import os
import random

import dns.name
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import pytest

from support import authoritative
from support.authoritative import Nsd, Unbound
from support.difference import Asked, Comparison, Question
from support.proxy import Proxy
from support.random_zone import COUNTS, RECORD_TYPES, SIGNED_COUNTS, SIZES, RandomZone

SEED = os.environ.get("DIFFERENTIAL_SEED", "1")
ZONES = ["plain.test", "nsec.test", "nsec3.test"]
RANDOM_QUESTIONS = 1300  # for each zone
META_TYPES = {dns.rdatatype.OPT, *range(249, 255)}


@pytest.fixture(scope="module")
def zones():
    return {origin: RandomZone(origin, SEED, is_signed=origin != "plain.test") for origin in ZONES}


@pytest.fixture(scope="module")
def zone_files(zones, tmp_path_factory):
    directory = tmp_path_factory.mktemp("zones")
    paths = {origin: zone.write(directory / origin) for origin, zone in zones.items()}
    for origin in ZONES[1:]:
        paths[origin] = authoritative.sign(origin, paths[origin], nsec3=origin == "nsec3.test")
    return paths


@contextlib.contextmanager
def comparing(kind, pki, zone_files, directory):
    """A Comparison of a server of that kind, directly, and through a proxy of its own."""
    with (kind(pki["good"], zone_files, directory=directory) as server,
          Proxy([server], ca=pki.ca, directory=directory, lifetime=300,
                config={"workers": 2, "limits": server.limits,
                        # What is refreshed is younger than the Comparison, which saw no miss, can know.
                        "cache": {"refresh": "off"}}) as proxy):
        yield Comparison(server, proxy)


@pytest.fixture(scope="module")
def at_nsd(pki, zone_files, tmp_path_factory):
    """One for all tests, for it knows what the proxy's cache has."""
    with comparing(Nsd, pki, zone_files, tmp_path_factory.mktemp("nsd")) as comparison:
        yield comparison


@pytest.fixture(scope="module")
def at_unbound(pki, zone_files, tmp_path_factory):
    with comparing(Unbound, pki, zone_files, tmp_path_factory.mktemp("unbound")) as comparison:
        yield comparison


@pytest.fixture(params=["nsd", "unbound"])
def comparison(request):
    return request.getfixturevalue(f"at_{request.param}")


@pytest.fixture(params=ZONES)
def zone(request, zones):
    return zones[request.param]


def variants(name, rdtype, tcp=None):
    """Every way to ask that changes the answer, over UDP and TCP in turn unless `tcp` says."""
    for number, (want_dnssec, checking_disabled) in enumerate(
            [(False, False), (False, True), (True, False), (True, True)]):
        question = Question(name, dns.rdatatype.from_text(rdtype), dns.rdataclass.IN,
                            want_dnssec, checking_disabled)
        yield Asked(question, tcp=number % 2 == 1 if tcp is None else tcp)


def ask_new_and_kept(comparison, asked, lifetime=1):
    """Asks twice; what may be kept for longer than `lifetime` must come from the cache then."""
    direct = comparison.ask(asked)
    before = comparison.kept
    comparison.ask([one.again() for one in asked])
    expected = [reply for reply in direct if reply.lifetime > lifetime]
    assert comparison.kept - before >= len(expected)
    return direct


# Types

SPECIAL_TYPES = {"SOA": "@", "NS": "@", "CNAME": "alias1", "DNAME": "moved", "DS": "child1"}
SIGNING_TYPES = {"DNSKEY": "@", "RRSIG": "host1", "NSEC": "host1", "NSEC3PARAM": "@"}


def test_there_are_enough_types():
    assert len(RECORD_TYPES) >= 30


@pytest.mark.parametrize("rdtype", [*RECORD_TYPES, *SPECIAL_TYPES])
def test_RFC3597_every_type(comparison, zones, rdtype):
    owner = SPECIAL_TYPES.get(rdtype, f"{rdtype.lower()}-only")
    direct = ask_new_and_kept(comparison, [
        one for zone in zones.values() for one in variants(zone.name(owner), rdtype)])
    for reply in direct:
        assert any(rrset.rdtype == dns.rdatatype.from_text(rdtype)
                   for rrset in reply.message.answer)
    signed = [reply for reply in direct if reply.message.ednsflags and "RRSIG" in types(reply)]
    assert len(signed) == 4  # two signed zones, DO with and without CD


@pytest.mark.parametrize("rdtype, owner", SIGNING_TYPES.items())
def test_RFC4035_types_of_signed_zones(at_nsd, zones, rdtype, owner):
    zone = zones["nsec3.test" if rdtype == "NSEC3PARAM" else "nsec.test"]
    for reply in ask_new_and_kept(at_nsd, list(variants(zone.name(owner), rdtype))):
        assert rdtype in types(reply)


@pytest.mark.parametrize("tcp", [False, True], ids=["udp", "tcp"])
def test_RFC8482_any(comparison, zone, tcp):
    direct = ask_new_and_kept(comparison, list(variants(zone.name("host1"), "ANY", tcp)), 10**9)
    assert "A" in types(direct[0])


def types(reply, section="answer"):
    """The types of its records, in order."""
    return [dns.rdatatype.to_text(rrset.rdtype) for rrset in getattr(reply.message, section)]


# Answers that are not simply records

CASES = {
    # owner asked: type, RCODE, types in the answer without DO
    "no.such.name": ("A", "NXDOMAIN", []),
    "host2": ("AAAA", "NOERROR", []),
    "empty": ("A", "NOERROR", []),
    "b.empty": ("TXT", "NOERROR", []),
    "alias1": ("CNAME", "NOERROR", ["CNAME"]),
    "chain9": ("AAAA", "NOERROR", ["CNAME"] * 9 + ["AAAA"]),
    "chain8": ("LOC", "NOERROR", ["CNAME"] * 8),
    "nowhere": ("A", "NXDOMAIN", ["CNAME"]),
    "abroad": ("A", "NOERROR", ["CNAME"]),
    "circle-a": ("A", "NOERROR", ["CNAME"] * 2),
    "host3.moved": ("A", "NOERROR", ["DNAME", "CNAME", "A"]),
    "host3.moved-nowhere": ("A", "NXDOMAIN", ["DNAME", "CNAME"]),
    "moved": ("A", "NOERROR", []),
    "x" * 50 + ".long-moved": ("A", "YXDOMAIN", ["DNAME"]),
    "any.thing.wild": ("A", "NOERROR", ["A"]),
    "other.wild": ("KX", "NOERROR", []),
    "wild": ("A", "NOERROR", []),
    "*.wild": ("A", "NOERROR", ["A"]),
    "name.wild-alias": ("AAAA", "NOERROR", ["CNAME", "AAAA"]),
    "child1": ("A", "NOERROR", []),
    "deep.in.child2": ("MX", "NOERROR", []),
    "child2": ("DS", "NOERROR", []),
}


@pytest.mark.parametrize("owner", CASES, ids=lambda owner: owner[-20:])
def test_answers_of_every_kind(at_nsd, zone, owner):
    rdtype, rcode, answer = CASES[owner]
    direct = ask_new_and_kept(at_nsd, list(variants(zone.name(owner), rdtype)))
    for reply in direct:
        assert dns.rcode.to_text(reply.message.rcode()) == rcode
        # Records of one RRset come apart; RRSIG only where DO is set.
        assert sorted(set(types(reply)) - {"RRSIG"}) == sorted(set(answer))
    assert types(direct[0]).count("CNAME") == answer.count("CNAME")


@pytest.mark.parametrize("origin", ZONES[1:])
def test_RFC4035_RFC5155_proofs_come_along(comparison, zones, origin):
    question = Question(zones[origin].name("no.such.name.here"), dns.rdatatype.A, want_dnssec=True)
    reply, = ask_new_and_kept(comparison, [Asked(question)])
    assert {"SOA", "RRSIG", "NSEC" if origin == "nsec.test" else "NSEC3"} == set(
        types(reply, "authority"))


def test_names_that_the_server_refuses(comparison):
    asked = [Asked(Question(dns.name.from_text("www.elsewhere.example"), dns.rdatatype.A), tcp=tcp)
             for tcp in (False, True)]
    for one in asked:
        reply, = ask_new_and_kept(comparison, [one])
        assert reply.message.rcode() == dns.rcode.REFUSED


def test_class_of_the_server_itself(comparison):
    question = Question(dns.name.from_text("version.server"), dns.rdatatype.TXT, dns.rdataclass.CH)
    reply, = ask_new_and_kept(comparison, [Asked(question)])
    assert "differential" in str(reply.message.answer[0])


# Sizes

def test_RFC2181_RFC9715_truncated_exactly_when_too_long(comparison, zone):
    rng = random.Random(f"{SEED} sizes {zone.origin}")
    counts = COUNTS if zone.origin == dns.name.from_text("plain.test") else SIGNED_COUNTS
    owners = [(f"size-{size}", "TXT") for size in SIZES]
    owners += [(f"many-{count}", "A") for count in counts]
    for payload in (4096, 0, 512, 513, 1000, 1231, 1232, 1233, None, 65535):
        chosen = owners if payload == 4096 else [owner for owner in owners if
                                                         len(owner[0]) <= len("size-4000")]
        asked = [Asked(Question(zone.name(owner), dns.rdatatype.from_text(rdtype),
                                want_dnssec=payload is not None),
                       tcp=False, payload=payload, letters=rng) for owner, rdtype in chosen]
        direct = comparison.ask(asked)
        assert chosen != owners or max(len(reply.raw) for reply in direct) > 60_000


def test_truncation_at_each_octet(comparison, zone):
    """One octet too many is too many: names of all lengths move the size across the limits."""
    for size, payload in ((400, None), (450, None), (1100, 1232), (1150, 4096)):
        asked = []
        for length in range(1, 60):
            name = dns.name.Name((b"n" * length, b"wild", *zone.origin.labels))
            asked.append(Asked(Question(name, dns.rdatatype.TXT), tcp=False, payload=payload))
        comparison.ask(asked)


# Anything

def random_asked(rng, zone, seen):
    """A question that was not asked before, put in any way."""
    while True:
        name = zone.random_name(rng)
        payload = rng.choice([None, 0, 511, 512, 600, 1000, 1232, 1400, 4096, 65535])
        # Other classes are refused by NSD with a header and no question. Such an answer cannot be
        # told to be one to this question (FAULTS F12, G4): the proxy says SERVFAIL.
        question = Question(name, zone.random_type(rng, name), dns.rdataclass.IN,
                            payload is not None and rng.random() < 0.6, rng.random() < 0.3)
        # The proxy never asks for these (FAULTS A8, A9), whatever the server would say.
        if question.rdtype not in META_TYPES and question not in seen:
            seen.add(question)
            return Asked(question, tcp=rng.random() < 0.4, recursion_desired=rng.random() < 0.85,
                         authentic_data=rng.random() < 0.3, payload=payload, letters=rng,
                         options=random_options(rng))


def random_options(rng):
    """NSID, a cookie, padding, and one that nobody knows (FAULTS A10, A13)."""
    data = {3: b"", 10: rng.randbytes(8), 12: bytes(rng.randint(0, 100)), 65001: b"private"}
    codes = [code for code in data if rng.random() < 0.2]
    return b"".join(code.to_bytes(2, "big") + len(data[code]).to_bytes(2, "big") + data[code]
                    for code in codes)


def differently(rng, asked):
    """The same question from another client."""
    edns = asked.question.want_dnssec or rng.random() < 0.7
    return asked.again(tcp=rng.random() < 0.4, authentic_data=rng.random() < 0.3,
                       recursion_desired=rng.random() < 0.85,
                       payload=rng.choice([0, 600, 1232, 4096]) if edns else None,
                       options=random_options(rng) if edns else b"")


def test_random_questions(comparison, zone):
    rng = random.Random(f"{SEED} questions {zone.origin}")
    seen = set()
    asked = [random_asked(rng, zone, seen) for _ in range(RANDOM_QUESTIONS)]
    direct = comparison.ask(asked)
    assert len({reply.message.rcode() for reply in direct}) >= 3
    assert len({rrset.rdtype for reply in direct for rrset in reply.message.answer}) >= 40
    hits, kept = comparison.cache_hits(), comparison.kept
    comparison.ask([differently(rng, one) for one in asked])
    kept = comparison.kept - kept
    assert kept >= RANDOM_QUESTIONS / 3
    assert comparison.cache_hits() - hits >= kept
