# SPDX-License-Identifier: Apache-2.0
"""The cache as clients see it: what is answered without asking again, for how long, and to whom."""

import contextlib
import random
import socket
import threading
import time

import dns.edns
import dns.flags
import dns.message
import dns.name
import dns.query
import dns.rcode
import dns.rdatatype
import dns.rrset
import pytest

from support import zone
from support.proxy import extended_errors, make_query
from support.upstream import KEEPALIVE, PADDING, fast_address, fast_answer, never
from support.waiting import eventually


def asked(upstream, name):
    """How often the upstream was asked for that name."""
    return upstream.names().count(name.lower() + ".")


def soa_ttl(reply):
    return next(rrset.ttl for rrset in reply.authority if rrset.rdtype == dns.rdatatype.SOA)


def answer_with(*records, authority=(), rcode=dns.rcode.NOERROR):
    """A hook that answers with these records, given as text."""
    def hook(query):
        reply = dns.message.make_response(query.message, recursion_available=True)
        reply.set_rcode(rcode)
        reply.answer += [dns.rrset.from_text(*record.split(None, 4)) for record in records]
        reply.authority += [dns.rrset.from_text(*record.split(None, 4)) for record in authority]
        query.reply(reply)
    return hook


# H1: what tells questions apart

@pytest.mark.parametrize("one, other", [
    (dict(name="key1.test"), dict(name="key2.test")),
    (dict(name="a.key3.test"), dict(name="key3.test")),
    (dict(name=dns.name.Name([b"x.y", b"key4", b"test", b""])),
     dict(name=dns.name.from_text("x.y.key4.test"))),
    (dict(name="key5.test", rdtype="A"), dict(name="key5.test", rdtype="AAAA")),
    (dict(name="key6.test", rdtype="TYPE256"), dict(name="key6.test", rdtype="A")),
    (dict(name="key7.test", rdtype="TXT"), dict(name="key7.test", rdtype="TXT", rdclass="CH")),
    (dict(name="key8.test"), dict(name="key8.test", want_dnssec=True)),
    (dict(name="key9.test"), dict(name="key9.test", flags="RD CD")),
], ids=["name", "label", "dot-in-label", "type", "high-type", "class", "do", "cd"])
def test_H1_questions_that_differ(shared_proxy, shared_upstream, one, other):
    before = len(shared_upstream.queries)
    answers = {}
    for _ in range(3):
        for which, question in enumerate((one, other)):
            reply = shared_proxy.query(**question)
            assert reply.question[0].name == reply.answer[0].name
            assert reply.question[0].rdtype == reply.answer[0].rdtype
            answers.setdefault(which, reply.answer[0][0])
            assert reply.answer[0][0] == answers[which]
    assert len(shared_upstream.queries) == before + 2


@pytest.mark.parametrize("how", [
    dict(edns=False), dict(payload=4096), dict(flags="RD AD"),
    dict(options=[dns.edns.GenericOption(10, b"cookie--")]),
    dict(options=[dns.edns.ECSOption("192.0.2.0", 24)]),
    dict(options=[dns.edns.GenericOption(PADDING, bytes(100))]),
    dict(tcp=True),
], ids=["no-edns", "payload", "ad", "cookie", "subnet", "padding", "tcp"])
def test_H1_what_makes_no_other_question(shared_proxy, shared_upstream, how):
    assert shared_proxy.query("same.key.test").rcode() == dns.rcode.NOERROR
    reply = shared_proxy.query("SAME.key.test", **how)
    assert reply.answer[0][0].address == zone.address("same.key.test")
    assert asked(shared_upstream, "same.key.test") == 1


# H3: times to live

def test_H3_H14_ttl_goes_down_to_1_and_no_further(shared_proxy, shared_upstream):
    name = "ttl-2.age.test"
    started = time.monotonic()
    assert shared_proxy.query(name).answer[0].ttl == 2
    shown = []
    while asked(shared_upstream, name) == 1:
        before = time.monotonic()
        ttl = shared_proxy.query(name).answer[0].ttl
        if asked(shared_upstream, name) == 1:
            shown.append(ttl)
            assert before - started < 2 + 0.2, "after its time"
            assert ttl < 2 - (before - started) + 1.2, "longer than what is left"
        time.sleep(0.02)
        assert before - started < 4
    assert time.monotonic() - started > 1.9, "asked again too soon"
    assert shown == sorted(shown, reverse=True)
    assert set(shown) == {2, 1}


def test_H3_ttl_of_zero_is_not_kept(shared_proxy, shared_upstream):
    for _ in range(3):
        assert shared_proxy.query("ttl-0.zero.test").answer[0].ttl == 0
    assert asked(shared_upstream, "ttl-0.zero.test") == 3


@pytest.mark.parametrize("ttl", [2**31, 2**32 - 1])
def test_H3_RFC2181_ttl_with_the_top_bit_is_zero(upstream, proxy, ttl):
    def hook(query):
        wire = query.make_answer().to_wire()
        assert wire.count(b"\0\0\x01\x2c\0\4") == 1
        query.reply(wire.replace(b"\0\0\x01\x2c\0\4", ttl.to_bytes(4, "big") + b"\0\4"))
    upstream.on_query = hook
    for _ in range(2):
        assert proxy.query("huge.test").answer[0].ttl == 0
    assert asked(upstream, "huge.test") == 2


def test_H3_shortest_ttl_of_the_answer_counts(upstream, proxy):
    upstream.on_query = answer_with("chain.test. 300 IN CNAME target.test.",
                                    "target.test. 1 IN A 192.0.2.1")
    proxy.query("chain.test")
    ttls = [rrset.ttl for rrset in proxy.query("chain.test").answer]
    assert ttls[0] in (299, 300) and ttls[1] == 1, "each record has its own time"
    eventually(lambda: proxy.query("chain.test") and asked(upstream, "chain.test") == 2, timeout=3)


def test_H3_limits_of_the_configuration(start_proxy, upstream):
    proxy = start_proxy(upstream, config={"cache": {"ttl-min": "100s", "ttl-max": "200s",
                                                    "negative-ttl-max": "10s"}})
    expected = {"ttl-0.x.test": 0, "ttl-1.x.test": 100, "ttl-150.x.test": 150,
                "ttl-300.x.test": 200, "ttl-86400.x.test": 200}
    for name, ttl in expected.items():
        proxy.query(name)
        assert proxy.query(name).answer[0].ttl in (ttl, max(0, ttl - 1)), name
    assert asked(upstream, "ttl-1.x.test") == 1
    assert asked(upstream, "ttl-0.x.test") == 2
    proxy.query("nx.x.test")
    assert soa_ttl(proxy.query("nx.x.test")) in (9, 10)


# H14: what a hit shows

def test_H14_ttl_of_1_is_shown_as_1_while_it_is_fresh(upstream, proxy):
    started = time.monotonic()
    replies = [proxy.query("ttl-1.fresh.test")]
    while time.monotonic() - started < 0.8:
        replies.append(proxy.query("ttl-1.fresh.test"))
    assert {reply.answer[0].ttl for reply in replies} == {1}
    assert len(replies) > 10 and asked(upstream, "ttl-1.fresh.test") == 1


def test_H14_optional_records_end_for_themselves(upstream, proxy):
    def hook(query):
        answer = query.make_answer()
        for label, ttl in (("long", 200), ("short", 2), ("behind", 200)):
            answer.additional.append(dns.rrset.from_text(f"{label}.test.", ttl, "IN", "A", "192.0.2.1"))
        query.reply(answer)

    def shown():
        reply = proxy.query("own.test")
        return {rrset.name.labels[0]: rrset.ttl for rrset in reply.answer + reply.additional}
    upstream.on_query = hook
    assert shown() == {b"own": 300, b"long": 200, b"short": 2, b"behind": 200}
    eventually(lambda: shown() == {b"own": 299, b"long": 199, b"short": 1, b"behind": 199},
               timeout=3, interval=0.05)
    eventually(lambda: shown().keys() == {b"own", b"long"}, timeout=3, interval=0.05)
    assert shown()[b"own"] in (297, 298) and shown()[b"long"] in (197, 198)
    assert asked(upstream, "own.test") == 1


def test_H14_short_optional_records_do_not_end_the_answer(upstream, proxy):
    def hook(query):
        answer = query.make_answer()
        answer.additional.append(dns.rrset.from_text("none.test.", 0, "IN", "A", "192.0.2.1"))
        query.reply(answer)
    upstream.on_query = hook
    assert len(proxy.query("kept.test").additional) == 1
    for _ in range(3):
        reply = proxy.query("kept.test")
        assert reply.answer[0].ttl in (299, 300) and reply.additional == []
    assert asked(upstream, "kept.test") == 1


@pytest.mark.parametrize("name", ["own.test", "nx.own.test"])
def test_H14_RFC1035_aa_is_of_the_upstream_alone(upstream, proxy, name):
    def hook(query):
        answer = query.make_answer()
        answer.flags |= dns.flags.AA
        query.reply(answer)
    upstream.on_query = hook
    assert proxy.query(name).flags & dns.flags.AA
    for _ in range(3):
        assert not proxy.query(name).flags & dns.flags.AA
    assert asked(upstream, name) == 1


# H4: names and types that are not there

@pytest.mark.parametrize("kind", ["nx", "nodata"])
def test_H4_negative_answers_are_kept(shared_proxy, shared_upstream, kind):
    name = f"{kind}.kept.test"
    replies = [shared_proxy.query(name) for _ in range(3)]
    assert len({reply.rcode() for reply in replies}) == 1
    assert [bool(reply.authority) for reply in replies] == [True] * 3
    assert soa_ttl(replies[2]) in (59, 60), "SOA MINIMUM, less its age"
    assert asked(shared_upstream, name) == 1


@pytest.mark.parametrize("kind", ["nx", "nodata"])
def test_H4_ttl_of_the_soa_ends_it(shared_proxy, shared_upstream, kind):
    name = f"{kind}.ttl-1.soa.test"
    shared_proxy.query(name)
    assert soa_ttl(shared_proxy.query(name)) == 1
    eventually(lambda: shared_proxy.query(name) and asked(shared_upstream, name) == 2, timeout=3)


@pytest.mark.parametrize("kind", ["nx", "nodata"])
def test_H4_without_soa_nothing_is_kept(shared_proxy, shared_upstream, kind):
    name = f"{kind}.nosoa.test"
    for _ in range(2):
        shared_proxy.query(name)
    assert asked(shared_upstream, name) == 2


def test_H4_chain_that_ends_nowhere_is_negative(upstream, proxy):
    upstream.on_query = answer_with("alias.test. 300 IN CNAME target.test.", authority=[
        "test. 300 IN SOA ns.test. root.test. 1 2 3 4 1"])
    proxy.query("alias.test")
    reply = proxy.query("alias.test")
    assert reply.answer[0].ttl in (299, 300) and reply.authority[0].ttl == 1
    eventually(lambda: proxy.query("alias.test") and asked(upstream, "alias.test") == 2, timeout=3)


# H5: failures

def test_H5_RFC9520_servfail_of_an_upstream_is_kept_for_a_while(upstream, proxy):
    first = proxy.query("servfail.ede-9.kept.test")
    count = asked(upstream, "servfail.ede-9.kept.test")
    second = proxy.query("servfail.ede-9.kept.test")
    assert [reply.rcode() for reply in (first, second)] == [dns.rcode.SERVFAIL] * 2
    assert asked(upstream, "servfail.ede-9.kept.test") == count
    codes = [code for code, _ in extended_errors(second)]
    assert dns.edns.EDECode.CACHED_ERROR in codes and 9 in codes
    upstream.on_query = answer_with("servfail.ede-9.kept.test. 300 IN A 192.0.2.1")
    eventually(lambda: proxy.query("servfail.ede-9.kept.test").rcode() == dns.rcode.NOERROR,
               timeout=8, interval=0.1)


@pytest.mark.parametrize("label", ["servfail", "refused"])
def test_K10_upstream_that_fails_for_long_and_is_well_again_is_noticed_within_5_s(
        start_proxy, upstream, label):
    proxy = start_proxy(upstream)
    name = f"{label}.for-long.test"
    proxy.query(name)
    once = asked(upstream, name)
    # Each time it is asked the failure is kept longer: 1 s, 2 s, and then for as long as it may be.
    eventually(lambda: proxy.query(name) and asked(upstream, name) >= 4 * once, timeout=20,
               interval=0.1)
    upstream.on_query = answer_with(f"{name}. 300 IN A 192.0.2.1")
    eventually(lambda: proxy.query(name).rcode() == dns.rcode.NOERROR, timeout=5, interval=0.5)


def test_H5_RFC9520_timeouts_are_kept_for_a_second(start_proxy, upstream):
    proxy = start_proxy(upstream, config={"timeouts": {"query": "400ms"}})
    upstream.on_query = never
    assert proxy.query("silent.test").rcode() == dns.rcode.SERVFAIL
    failed = time.monotonic()
    count = asked(upstream, "silent.test")
    reply = proxy.query("silent.test")
    assert time.monotonic() - failed < 0.3, "it was asked again"
    assert reply.rcode() == dns.rcode.SERVFAIL
    assert dns.edns.EDECode.CACHED_ERROR in dict(extended_errors(reply))
    assert asked(upstream, "silent.test") == count
    upstream.on_query = fast_answer
    eventually(lambda: proxy.query("silent.test").rcode() == dns.rcode.NOERROR, timeout=3)
    assert time.monotonic() - failed < 2.5


def test_truncated_answers_are_not_kept(shared_proxy, shared_upstream):
    for _ in range(2):
        assert shared_proxy.query("tc.kept.test").flags & dns.flags.TC
    first = asked(shared_upstream, "tc.kept.test")
    shared_proxy.query("tc.kept.test")
    assert asked(shared_upstream, "tc.kept.test") > first


# H7: DNSSEC

def signed(query):
    """Signatures for those who ask for them, as a resolver does."""
    answer = query.make_answer()
    if query.message.ednsflags & dns.flags.DO:
        name = query.question.name.to_text()
        answer.answer.append(dns.rrset.from_text(
            name, 300, "IN", "RRSIG",
            f"{query.type} 13 2 300 20300101000000 20200101000000 1 test. AAAA"))
        answer.flags |= dns.flags.AD
    query.reply(answer)


@pytest.mark.parametrize("order", [(False, True), (True, False)], ids=["plain-first", "do-first"])
def test_H7_signatures_only_for_those_who_want_them(upstream, proxy, order):
    upstream.on_query = signed
    for _ in range(2):
        for want_dnssec in order:
            reply = proxy.query("signed.test", want_dnssec=want_dnssec)
            types = [rrset.rdtype for rrset in reply.answer]
            assert (dns.rdatatype.RRSIG in types) == want_dnssec
            assert bool(reply.flags & dns.flags.AD) == want_dnssec
    assert len(upstream.queries) == 2


def test_H7_signatures_that_are_asked_for_by_type(upstream, proxy):
    upstream.on_query = answer_with(
        "type.test. 300 IN RRSIG A 13 2 300 20300101000000 20200101000000 1 test. AAAA")
    for _ in range(2):
        reply = proxy.query("type.test", "RRSIG")
        assert [rrset.rdtype for rrset in reply.answer] == [dns.rdatatype.RRSIG]
    assert len(upstream.queries) == 1


def test_H7_ad_is_kept_and_shown_to_those_who_understand_it(shared_proxy, shared_upstream):
    shown = [bool(shared_proxy.query("ad.both.test", flags=flags).flags & dns.flags.AD)
             for flags in ("RD", "RD AD", "RD", "RD AD")]
    assert shown == [False, True, False, True]
    assert asked(shared_upstream, "ad.both.test") == 1


# H8: questions in flight

def test_H8_questions_in_flight_that_differ_in_nothing_that_counts(upstream, proxy):
    held = []
    upstream.on_query = held.append
    variants = [dict(options=[dns.edns.GenericOption(10, number.to_bytes(8, "big"))])
                for number in range(20)]
    variants += [dict(options=[dns.edns.GenericOption(PADDING, bytes(number))])
                 for number in range(20)]
    variants += [dict(options=[dns.edns.ECSOption(f"192.0.{number}.0", 24)])
                 for number in range(20)]
    variants += [dict(edns=False), dict(flags="RD AD"), dict(payload=512)] * 10
    variants += [dict(tcp=True)] * 10
    waiting = [proxy.ask_later("JOINED.test" if number % 2 else "joined.test", **variant)
               for number, variant in enumerate(variants)]
    eventually(lambda: proxy.metric("dnsproxy_lookups_joined_total") == len(variants) - 1)
    assert proxy.metric("dnsproxy_queries_in_flight") == len(variants)
    assert proxy.metric("dnsproxy_lookups_in_flight") == 1
    upstream.wait_for(lambda: held)  # it may still be shaking hands
    for query in held:
        query.answer()
    for number, reply in enumerate(waiting):
        reply = reply()
        assert reply.answer[0][0].address == zone.address("joined.test")
        assert reply.question[0].name.to_text() == ("JOINED.test." if number % 2
                                                    else "joined.test.")
        assert reply.options == ()
    assert len(upstream.queries) == 1


def test_H8_questions_in_flight_that_do_differ(upstream, proxy):
    held = []
    upstream.on_query = held.append
    waiting = [proxy.ask_later("apart.test", **{"rdtype": "TXT"} | variant) for variant in [
        dict(), dict(want_dnssec=True), dict(flags="RD CD"), dict(rdtype="AAAA"), dict(flags=""),
        dict(rdclass="CH")]]
    upstream.wait_for(lambda: len(held) == len(waiting))
    for query in held:
        query.answer()
    for reply in waiting:
        assert reply().rcode() == dns.rcode.NOERROR


def test_H8_clients_that_wait_together_fail_together(start_proxy, upstream):
    proxy = start_proxy(upstream, config={"timeouts": {"query": "500ms"}})
    upstream.on_query = never
    waiting = [proxy.ask_later("together.test") for _ in range(50)]
    assert {reply().rcode() for reply in waiting} == {dns.rcode.SERVFAIL}
    assert proxy.metric("dnsproxy_queries_in_flight") == 0
    assert proxy.metric("dnsproxy_lookups_in_flight") == 0


# H9: nothing of one client, or of our own hop, for another

def test_H9_options_of_the_upstream_are_neither_kept_nor_passed_on(upstream, proxy):
    def hook(query):
        answer = query.make_answer()
        answer.use_edns(0, 0, 1232, options=[
            dns.edns.GenericOption(3, b"upstream-7"), dns.edns.GenericOption(10, b"c" * 24),
            dns.edns.GenericOption(KEEPALIVE, b"\1\0"), dns.edns.GenericOption(PADDING, bytes(99)),
            dns.edns.ECSOption("192.0.2.0", 24, 24)])
        query.reply(answer)
    upstream.on_query = hook
    asking = [dns.edns.GenericOption(code, data) for code, data in
              [(3, b""), (10, b"cookie--"), (PADDING, bytes(10))]]
    for options in (asking, (), asking):
        reply = proxy.query("options.test", options=options)
        assert reply.options == ()
        assert b"upstream-7" not in reply.to_wire()
    assert len(upstream.queries) == 1


def test_H9_each_client_gets_its_own_identifier(shared_proxy):
    with shared_proxy.udp() as sock:
        for number in (0, 1, 0x1234, 0xffff):
            query = make_query("identifier.test")
            query.id = number
            sock.send(query.to_wire())
            assert int.from_bytes(sock.recv(4096)[:2], "big") == number


def test_extended_error_of_an_answer_is_kept(shared_proxy, shared_upstream):
    for _ in range(2):
        reply = shared_proxy.query("ede-18.kept.test")
        assert extended_errors(reply) == [(18, "from upstream")]
    assert asked(shared_upstream, "ede-18.kept.test") == 1
    assert shared_proxy.query("ede-18.kept.test", edns=False).edns == -1


# H10: spelling

def test_H10_each_client_gets_its_own_spelling_from_the_cache(shared_proxy, shared_upstream):
    letters = random.Random(4343)
    for tcp in [False, True] * 10:
        name = "".join(letters.choice((c.lower(), c.upper())) for c in "case-in-cache.test")
        reply = shared_proxy.query(name, tcp=tcp)
        assert reply.question[0].name.to_text() == name + "."
    assert asked(shared_upstream, "case-in-cache.test") == 1


# H11: who may ask

def test_H11_a_hit_is_for_those_who_may_ask(start_proxy, upstream):
    proxy = start_proxy(upstream, config={"allow": ["127.0.0.1/32"]})
    assert proxy.query("hit.test").rcode() == dns.rcode.NOERROR
    for ask in (dns.query.udp, dns.query.tcp):
        reply = ask(make_query("hit.test"), proxy.address, port=proxy.port, timeout=5,
                    source="127.0.0.2")
        assert reply.rcode() == dns.rcode.REFUSED
        assert reply.answer == []
        assert extended_errors(reply)[0][0] == dns.edns.EDECode.PROHIBITED
    assert proxy.query("hit.test").rcode() == dns.rcode.NOERROR
    assert len(upstream.queries) == 1


# Size

def test_H12_memory_is_bounded_under_churn(start_proxy, upstream):
    upstream.on_query = fast_answer
    proxy = start_proxy(upstream, arguments=["--cache-size", "64KiB"])
    for turn in range(20):
        replies = proxy.ask_all([make_query(f"{turn:02}{number:02}.churn.test")
                                 for number in range(100)])
        assert all(reply.answer for reply in replies)
        proxy.query("popular.test")
        assert 0 < proxy.metric("dnsproxy_cache_bytes") <= 65536
    assert 100 < proxy.metric("dnsproxy_cache_entries") < 1500
    assert asked(upstream, "popular.test") == 1, "a popular name was pushed out"


def test_cache_can_be_off(start_proxy, upstream):
    proxy = start_proxy(upstream, arguments=["--cache-size", "0"])
    for number in range(3):
        reply = proxy.query("off.test")
        assert reply.answer[0].ttl == zone.TTL
        assert asked(upstream, "off.test") == number + 1
    assert proxy.metric("dnsproxy_cache_lookups_total") == 0
    assert proxy.metric("dnsproxy_cache_bytes") == 0
    upstream.on_query = lambda query: query.answer(after=0.2)
    waiting = [proxy.ask_later("joined.test") for _ in range(20)]
    assert all(reply().answer for reply in waiting)
    assert asked(upstream, "joined.test") == 1


# Several workers

@pytest.mark.threads
def test_H13_workers_share_what_they_know(start_proxy, upstream):
    proxy = start_proxy(upstream, arguments=["--workers", "4"])
    proxy.query("shared.test")
    with contextlib.ExitStack() as stack:
        for _ in range(40):  # of so many ports some belong to each worker
            sock = stack.enter_context(proxy.udp())
            sock.send(make_query("shared.test").to_wire())
            assert dns.message.from_wire(sock.recv(4096)).rcode() == dns.rcode.NOERROR
    assert asked(upstream, "shared.test") == 1
    assert proxy.metric("dnsproxy_cache_lookups_total", result="hit") == 40


def ask_over_udp(proxy, names, failures):
    """From a socket of its own for each 50 names, so that all workers are asked."""
    try:
        for at in range(0, len(names), 50):
            with proxy.udp() as sock:
                for name in names[at:at + 50]:
                    sock.send(make_query(name).to_wire())
                    while True:
                        reply = dns.message.from_wire(sock.recv(4096))
                        if reply.question[0].name.to_text() == name + ".":
                            break
                    assert reply.answer[0][0].address == fast_address(name), name
    except (AssertionError, IndexError, socket.timeout) as error:
        failures.append(error)


@pytest.mark.threads
def test_H13_workers_under_parallel_load(start_proxy, upstream):
    upstream.on_query = fast_answer
    proxy = start_proxy(upstream, arguments=["--workers", "4", "--cache-size", "64KiB"])
    letters = random.Random(13)
    failures = []
    lists = [[f"{letters.randrange(400):04}.load.test" for _ in range(500)] for _ in range(4)]
    threads = [threading.Thread(target=ask_over_udp, args=(proxy, names, failures))
               for names in lists]
    for thread in threads:
        thread.start()
    names = [f"{letters.randrange(400):04}.load.test" for _ in range(1000)]
    replies = proxy.ask_all([make_query(name) for name in names], connections=8)
    for thread in threads:
        thread.join()
    assert not failures, failures[0]
    for name, reply in zip(names, replies):
        assert reply.answer[0][0].address == fast_address(name)
    hits = proxy.metric("dnsproxy_cache_lookups_total", result="hit")
    misses = proxy.metric("dnsproxy_cache_lookups_total", result="miss")
    assert hits + misses == 3000
    assert hits > 1000
    assert proxy.metric("dnsproxy_replies_total", rcode="NOERROR") == 3000
    assert proxy.metric("dnsproxy_queries_in_flight") == 0
