# SPDX-License-Identifier: Apache-2.0
"""How an upstream is chosen, and how one that failed is left and found again."""

import itertools
import time

import dns.rcode
import pytest

from support.proxy import make_query
from support.upstream import never
from support.waiting import eventually

UP = "dnsproxy_upstream_up"
SLOW_S = 0.5  # what a quick upstream never takes, however busy the machine
EVEN_S = 0.2


def ask(proxy, count, prefix):
    replies = proxy.ask_all([make_query(f"{prefix}{number}.test") for number in range(count)])
    assert all(reply.rcode() == dns.rcode.NOERROR for reply in replies)


def ask_in_turn(proxy, count, prefix):
    for number in range(count):
        assert proxy.query(f"{prefix}{number}.test").rcode() == dns.rcode.NOERROR


def test_ordered_asks_the_first_alone(start_upstream, start_proxy):
    upstreams = [start_upstream() for _ in range(3)]
    proxy = start_proxy(*upstreams, config={"strategy": "ordered"})
    ask(proxy, 100, "a")
    assert len(names_of(upstreams[0])) >= 90  # a busy machine may make it late for a moment
    assert len(upstreams[2].queries) == 0
    upstreams[0].go_down()
    seen = len(upstreams[1].queries)
    ask(proxy, 100, "b")
    assert len(upstreams[1].queries) >= seen + 90


def test_ordered_goes_back_to_the_first_when_it_recovers(start_upstream, start_proxy):
    one, two = start_upstream(), start_upstream()
    proxy = start_proxy(one, two, config={"strategy": "ordered"})
    ask(proxy, 5, "before")
    one.go_down()
    ask_in_turn(proxy, 20, "down")
    numbers = itertools.count()
    eventually(lambda: proxy.query(f"gone{next(numbers)}.test")
               and proxy.metric(UP, upstream=one.label) == 0)
    one.listen()
    eventually(lambda: proxy.query(f"trial{next(numbers)}.test")
               and proxy.metric(UP, upstream=one.label) == 1)
    seen = len(one.queries)
    ask_in_turn(proxy, 10, "after")
    assert len(one.queries) >= seen + 9


def answer_evenly(query):
    """After a time beside which what a busy machine adds does not make an answer late."""
    query.answer(after=EVEN_S)


def warm(proxy, upstreams):
    """Asks until each has answered and has a connection."""
    numbers = itertools.count()
    eventually(lambda: proxy.query(f"warm{next(numbers)}.test") and all(
        proxy.metric("dnsproxy_upstream_answers_total", upstream=upstream.label)
        and proxy.metric("dnsproxy_upstream_connections", state="ready", upstream=upstream.label)
        for upstream in upstreams), timeout=20)


def first_requests(proxy, upstream):
    """Requests that were no hedges."""
    return (proxy.metric("dnsproxy_upstream_requests_total", upstream=upstream.label)
            - proxy.metric("dnsproxy_upstream_hedges_total", upstream=upstream.label))


def test_weighted_follows_the_weights(start_upstream, start_proxy):
    upstreams = light, heavy, equal = [start_upstream() for _ in range(3)]
    for upstream in upstreams:
        upstream.on_query = answer_evenly
    proxy = start_proxy({"url": light.url(), "weight": 1}, {"url": heavy.url(), "weight": 8},
                        {"url": equal.url()}, config={"strategy": "weighted"})
    warm(proxy, upstreams)
    before = [first_requests(proxy, upstream) for upstream in upstreams]
    for number in range(20):
        ask(proxy, 50, f"w{number}x")  # no more than one connection takes
    counts = [first_requests(proxy, upstream) - asked
              for upstream, asked in zip(upstreams, before)]
    # 100, 800 and 100 of 1000: 6, 7 and 6 standard deviations either way, by chance once in 10^7.
    assert 43 <= counts[0] <= 157 and 712 <= counts[1] <= 888 and 43 <= counts[2] <= 157


def names_of(upstream):
    return set(upstream.names())


def test_hash_keeps_a_name_with_its_upstream(start_upstream, start_proxy):
    upstreams = [start_upstream() for _ in range(3)]
    for upstream in upstreams:
        upstream.on_query = answer_evenly
    proxy = start_proxy(*upstreams, config={"strategy": "hash", "cache": {"size": 0}})
    warm(proxy, upstreams)
    for upstream in upstreams:
        upstream.queries.clear()
    for _ in range(3):
        ask(proxy, 90, "h")

    def at_home(upstream, since=0):
        """Where a name is asked when a busy machine makes its upstream late for a moment does not count."""
        names = upstream.names()[since:]
        return {name for name in set(names) if names.count(name) >= 2}

    homes = [at_home(upstream) for upstream in upstreams]
    # Each name is at home at one upstream. Were they chosen anew each time, it would be 70 of them; a few are at home
    # at two when the machine is so busy that they were late twice.
    assert 85 <= sum(map(len, homes)) <= 99
    # 30 are expected, the standard deviation is 4.5: by chance once in 10^7.
    assert all(8 <= len(names) <= 58 for names in homes)
    seen = [len(upstream.queries) for upstream in upstreams]
    upstreams[2].go_down()
    for _ in range(3):
        ask(proxy, 90, "h")
    # The names of the one that is down move; those of the others stay.
    for number in (0, 1):
        asked = at_home(upstreams[number], seen[number])
        assert len(homes[number] - asked) <= len(homes[number]) / 4
        assert len(asked & homes[1 - number]) <= len(homes[1 - number]) / 4


def test_fastest_prefers_the_quick_one(start_upstream, start_proxy):
    slow, quick = start_upstream(), start_upstream()
    slow.on_query = lambda query: query.answer(after=SLOW_S)
    proxy = start_proxy(slow, quick, config={"strategy": "fastest"})
    ask_in_turn(proxy, 60, "f")
    assert len(quick.queries) >= 55
    assert len(slow.queries) + len(quick.queries) <= 66


def test_fastest_is_the_default(start_upstream, start_proxy):
    slow, quick = start_upstream(), start_upstream()
    slow.on_query = lambda query: query.answer(after=SLOW_S)
    proxy = start_proxy(slow, quick)
    ask_in_turn(proxy, 40, "d")
    assert len(quick.queries) >= 35


@pytest.mark.parametrize("strategy", ["fastest", "ordered", "weighted", "hash"])
def test_F18_each_strategy_survives_the_loss_of_an_upstream(start_upstream, start_proxy, strategy):
    one, two = start_upstream(), start_upstream()
    proxy = start_proxy(one, two, config={"strategy": strategy})
    ask(proxy, 20, "both")
    one.go_down()
    ask_in_turn(proxy, 40, "left")
    assert proxy.metric(UP, upstream=two.label) == 1
    assert proxy.metric("dnsproxy_replies_total", rcode="SERVFAIL") == 0


def test_F20_upstream_that_is_down_is_tried_with_back_off_and_without_queries(start_upstream,
                                                                            start_proxy):
    down, good = start_upstream(), start_upstream()
    down.on_accept = lambda connection: connection.close()
    proxy = start_proxy(down, good, config={"strategy": "ordered"})
    end = time.monotonic() + 2.5
    numbers = itertools.count()
    while time.monotonic() < end:
        started = time.monotonic()
        assert proxy.query(f"busy{next(numbers)}.test").rcode() == dns.rcode.NOERROR
        assert time.monotonic() - started < 2.0
    # Two failures, then trials after about 0.2, 0.4, 0.8 and 1.6 s: no storm.
    assert 3 <= len(down.connections) <= 9
    assert down.application_bytes() == 0
    assert len(proxy.logs("upstream_failed", upstream=down.label)) <= 5
    down.on_accept = lambda connection: None
    eventually(lambda: proxy.query(f"busy{next(numbers)}.test")
               and proxy.metric(UP, upstream=down.label) == 1)
    proxy.query("back.test")
    assert down.names()[-1] == "back.test."


def test_F20_upstream_that_handshakes_and_never_answers_is_left(start_upstream, start_proxy):
    """The trial connection succeeds every time; the queries are what tells."""
    silent, good = start_upstream(), start_upstream()
    silent.on_query = never
    proxy = start_proxy(silent, good, config={"strategy": "ordered",
                                              "timeouts": {"request": "200ms"}})
    ask_in_turn(proxy, 30, "hang")
    # Not every query may pay for finding out.
    assert len(names_of(silent)) <= 15
    assert len(set(good.names())) == 30
    eventually(lambda: proxy.metric("dnsproxy_upstream_failures_total", upstream=silent.label,
                                    cause="request_timeout") >= 1)
