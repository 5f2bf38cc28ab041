# SPDX-License-Identifier: Apache-2.0
"""Answers past their time when no upstream gives a fresh one (RFC 8767), and popular answers that are asked for anew
before their time is over."""

import time

import dns.edns
import dns.rcode

from support import zone
from support.proxy import extended_errors
from support.upstream import Query, first, never
from support.waiting import eventually

STALE_TTL = 30
CLIENT_TIMER = 1.8  # RFC 8767 5


def asked(upstream, name):
    return upstream.names().count(name + ".")


def keep(proxy, *names):
    """The answers of these names, which have a TTL of 1, are in the cache and past their time."""
    for name in names:
        assert proxy.query(name).answer[0].ttl == 1
    time.sleep(1.1)


def is_stale(reply, code=dns.edns.EDECode.STALE_ANSWER):
    return code in dict(extended_errors(reply))


def timed(proxy, name, **how):
    started = time.monotonic()
    reply = proxy.query(name, **how)
    return reply, time.monotonic() - started


def assert_stale(reply, name):
    assert reply.rcode() == dns.rcode.NOERROR
    assert is_stale(reply)
    assert 0 < reply.answer[0].ttl <= STALE_TTL
    assert reply.answer[0][0].address == zone.address(name)


def test_H6_RFC8767_dead_upstream(upstream, proxy):
    names = ["ttl-1.dead1.test", "ttl-1.dead2.test"]
    keep(proxy, *names)
    upstream.go_down()
    reply, seconds = timed(proxy, names[0])
    assert_stale(reply, names[0])
    assert seconds < 2
    assert upstream.label in dict(extended_errors(reply))[dns.edns.EDECode.STALE_ANSWER]
    for tcp in (False, True):
        reply, seconds = timed(proxy, names[0], tcp=tcp)
        assert_stale(reply, names[0])
        assert seconds < 0.5
    assert proxy.metric("dnsproxy_cache_lookups_total", result="stale") == 2
    assert proxy.metric("dnsproxy_replies_stale_total") == 3
    assert proxy.query("never-seen.test").rcode() == dns.rcode.SERVFAIL
    upstream.listen()
    # The other name was not asked for during the outage: it waits for the upstream.
    eventually(lambda: proxy.query("up-again.test").rcode() == dns.rcode.NOERROR)
    reply = proxy.query(names[1])
    assert not is_stale(reply)
    assert reply.answer[0].ttl == 1


def test_H6_RFC8767_silent_upstream_and_a_fresh_answer_that_comes_late(upstream, proxy):
    name = "ttl-1.silent.test"
    keep(proxy, name)
    held = []
    upstream.on_query = held.append
    waiting = [proxy.ask_later(name) for _ in range(20)]
    started = time.monotonic()
    for reply in waiting:
        assert_stale(reply(), name)
    assert CLIENT_TIMER - 0.3 < time.monotonic() - started < CLIENT_TIMER + 0.7
    reply, seconds = timed(proxy, name)
    assert_stale(reply, name)
    assert seconds < 0.5, "at once, while it is still being asked"
    assert proxy.metric("dnsproxy_queries_in_flight") == 0
    assert proxy.metric("dnsproxy_lookups_in_flight") == 1
    upstream.on_query = lambda query: query.answer()
    for query in held:
        query.answer()
    eventually(lambda: proxy.metric("dnsproxy_lookups_in_flight") == 0)
    assert not is_stale(proxy.query(name))


def test_H6_servfail_and_nxdomain(upstream, proxy):
    name = "nx.ttl-1.gone.test"
    assert proxy.query(name).rcode() == dns.rcode.NXDOMAIN
    time.sleep(1.1)

    def servfail(query):
        answer = query.make_answer()
        answer.set_rcode(dns.rcode.SERVFAIL)
        answer.authority = []
        query.reply(answer)
    upstream.on_query = servfail
    for _ in range(3):
        reply, seconds = timed(proxy, name)
        assert reply.rcode() == dns.rcode.NXDOMAIN
        assert is_stale(reply, dns.edns.EDECode.STALE_NXDOMAIN_ANSWER)
        assert reply.authority[0].ttl <= STALE_TTL
        assert seconds < 1
    assert asked(upstream, name) == 1 + 1, "one upstream can say no once"


def test_H6_stale_answers_can_be_off(start_proxy, upstream):
    proxy = start_proxy(upstream, config={"cache": {"max-stale": 0}})
    keep(proxy, "ttl-1.off.test")
    upstream.go_down()
    assert proxy.query("ttl-1.off.test").rcode() == dns.rcode.SERVFAIL


def test_H6_maximum_of_a_stale_answer(start_proxy, upstream):
    proxy = start_proxy(upstream, config={"cache": {"max-stale": "2s"}, "timeouts": {"park": "0"}})
    keep(proxy, "ttl-1.max.test")
    upstream.go_down()
    started = time.monotonic()
    reply = proxy.query("ttl-1.max.test")
    assert is_stale(reply) and reply.answer[0].ttl == 1
    eventually(lambda: proxy.query("ttl-1.max.test").rcode() == dns.rcode.SERVFAIL, timeout=3)
    assert time.monotonic() - started < 2


def test_F18_all_upstreams_down_then_one_is_back(start_proxy, upstream, start_upstream):
    other = start_upstream()
    proxy = start_proxy(upstream, other)
    names = [f"ttl-1.flap{number}.test" for number in range(20)]
    keep(proxy, *names)
    upstream.go_down()
    other.go_down()
    for reply in [proxy.ask_later(name) for name in names]:
        assert is_stale(reply())
    other.listen()
    eventually(lambda: proxy.query("up-again.test").rcode() == dns.rcode.NOERROR, timeout=1.5)
    assert proxy.metric("dnsproxy_replies_stale_total") == 20


def refresh(proxy, upstream, name):
    """Hits until the upstream is asked a second time: that was in the last tenth of its time."""
    proxy.query(name)
    started = time.monotonic()
    while asked(upstream, name) == 1:
        reply = proxy.query(name)
        assert time.monotonic() - started < 6
        time.sleep(0.02)
    assert 4.2 < time.monotonic() - started < 5
    return reply


def test_H6_H8_popular_answer_is_refreshed_by_one_query(upstream, proxy):
    name = "ttl-5.popular.test"
    refresh(proxy, upstream, name)
    eventually(lambda: proxy.query(name).answer[0].ttl >= 3)
    for _ in range(50):
        assert proxy.query(name).answer[0].ttl >= 2
    assert asked(upstream, name) == 2
    assert proxy.metric("dnsproxy_refreshes_total", result="started") == 1
    assert proxy.metric("dnsproxy_cache_lookups_total", result="miss") == 1


def test_H6_refresh_does_not_make_anybody_wait_nor_a_stop(upstream, proxy):
    name = "ttl-5.held.test"
    upstream.on_query = first(1, Query.answer, then=never)
    reply = refresh(proxy, upstream, name)
    assert reply.rcode() == dns.rcode.NOERROR
    assert proxy.metric("dnsproxy_lookups_in_flight") == 1
    started = time.monotonic()
    proxy.stop()
    assert time.monotonic() - started < 1


def test_H6_refresh_can_be_off(start_proxy, upstream):
    proxy = start_proxy(upstream, config={"cache": {"refresh": "off"}})
    name = "ttl-5.off.test"
    proxy.query(name)
    started = time.monotonic()
    while time.monotonic() - started < 4.9:
        proxy.query(name)
        time.sleep(0.02)
    assert asked(upstream, name) == 1
    assert proxy.metric("dnsproxy_refreshes_total") == 0
