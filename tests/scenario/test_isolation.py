# SPDX-License-Identifier: Apache-2.0
"""K: nobody pays for another. What one name, or one upstream, does to itself alone."""

import contextlib
import itertools
import threading
import time

import dns.edns
import dns.name
import dns.rcode
import pytest

from support import zone
from support.proxy import extended_errors
from support.upstream import Query, answer_empty, never
from support.waiting import eventually

ENDS = {
    "close_notify": lambda connection: connection.close(),
    "fin": lambda connection: connection.close(notify=False),
    "reset": lambda connection: connection.reset(),
}


def assert_right(reply, name):
    assert reply.rcode() == dns.rcode.NOERROR, f"{name}: {reply}"
    assert reply.question[0].name == dns.name.from_text(name)
    assert [record.address for record in reply.answer[0]] == [zone.address(name)]


def poisoned_by(spoil):
    """A hook: `spoil(query)` for names that begin with "bad", all others are answered."""
    def hook(query):
        if query.name.startswith("bad"):
            spoil(query)
        else:
            query.answer()
    return hook


@contextlib.contextmanager
def good_names(proxy, lanes=4):
    """Meanwhile names that nobody has asked are, one after the other in each lane. At the end all were answered."""
    numbers = itertools.count()
    replies = {}
    is_over = threading.Event()

    def ask():
        while not is_over.is_set():
            name = f"good{next(numbers)}.test"
            replies[name] = None
            replies[name] = proxy.query(name)
    threads = [threading.Thread(target=ask) for _ in range(lanes)]
    for thread in threads:
        thread.start()
    try:
        eventually(lambda: len(replies) > 5 * lanes)
        yield replies
    finally:
        is_over.set()
        for thread in threads:
            thread.join()
    for name, reply in replies.items():
        assert reply is not None, f"no reply for {name}"
        assert_right(reply, name)


def is_convicted(reply):
    assert reply.rcode() == dns.rcode.SERVFAIL
    return any("closes each connection that is asked this" in text for _, text in extended_errors(reply))


def assert_convicted(reply):
    assert is_convicted(reply)


# K1, K2: names that end connections

@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("end", ENDS)
def test_K1_name_that_ends_connections_fails_alone(start_upstream, start_proxy, end, count):
    upstreams = [start_upstream() for _ in range(count)]
    for upstream in upstreams:
        upstream.on_query = poisoned_by(lambda query: ENDS[end](query.connection))
    proxy = start_proxy(*upstreams)
    with good_names(proxy):
        # On a busy machine an answer arrives with the end, which then is no evidence and costs one send of the three.
        convicted = sum(is_convicted(proxy.query(f"bad{number}.test")) for number in range(6))
    assert convicted >= 3
    assert proxy.metric("dnsproxy_lookups_convicted_total") == convicted
    for upstream in upstreams:
        for number in range(6):  # RFC 9520 3.1
            assert upstream.names().count(f"bad{number}.test.") <= 3


def test_K2_name_that_ends_connections_is_no_evidence_against_its_upstream(upstream, proxy):
    upstream.on_query = poisoned_by(lambda query: query.connection.close())
    with good_names(proxy):
        for number in range(5):
            assert proxy.query(f"bad{number}.test").rcode() == dns.rcode.SERVFAIL
            assert proxy.metric("dnsproxy_upstream_up") == 1
    assert proxy.logs("upstream_failed", state="down") == []


def test_K1_verdict_is_kept_for_a_while(upstream, proxy):
    upstream.on_query = poisoned_by(lambda query: query.connection.close())
    with good_names(proxy):
        # On a busy machine the three sends may be spent before there is a verdict.
        bad = next(name for name in (f"bad{number}.test" for number in range(5))
                   if is_convicted(proxy.query(name)))
        asked = upstream.names().count(f"{bad}.")
        assert_convicted(proxy.query(bad))
        assert upstream.names().count(f"{bad}.") == asked
        upstream.on_query = Query.answer
        eventually(lambda: proxy.query(bad).rcode() == dns.rcode.NOERROR, timeout=10)


def test_K1_name_that_is_never_answered_fails_alone(upstream, proxy):
    upstream.on_query = poisoned_by(never)
    with good_names(proxy):
        replies = [proxy.ask_later(f"bad{number}.test") for number in range(3)]
        for reply in replies:
            assert reply().rcode() == dns.rcode.SERVFAIL
    for number in range(3):
        assert upstream.names().count(f"bad{number}.test.") <= 3


@pytest.mark.parametrize("length", [0, 1, 2, 11])
def test_F8_K1_name_that_is_answered_too_short_fails_alone(upstream, proxy, length):
    upstream.on_query = poisoned_by(lambda query: query.reply(query.raw[:length]))
    with good_names(proxy):
        for number in range(2):
            assert proxy.query(f"bad{number}.test").rcode() == dns.rcode.SERVFAIL
    for number in range(2):
        assert upstream.names().count(f"bad{number}.test.") <= 3


# K3: upstreams that are away for a moment

AWAY = {
    "refuses": None,
    "closes_at_once": lambda upstream: setattr(upstream, "on_accept", lambda connection: connection.reset()),
    "closes_after_the_handshake": lambda upstream: setattr(upstream, "on_open", lambda connection: connection.close()),
}


@pytest.mark.parametrize("way", AWAY)
def test_K3_restart_of_the_only_upstream_costs_nobody_an_answer(upstream, proxy, way):
    assert_right(proxy.query("before.test"), "before.test")
    upstream.go_down()
    if AWAY[way]:
        AWAY[way](upstream)
        upstream.listen()
    names = [f"meanwhile{number}.test" for number in range(20)]
    replies = []
    started = time.monotonic()
    for name in names:
        replies.append(proxy.ask_later(name))
        time.sleep(0.1)
    upstream.on_accept = upstream.on_open = lambda connection: None
    if not AWAY[way]:
        upstream.listen()
    assert time.monotonic() - started < 2.9  # else the machine was too busy to tell
    for name, reply in zip(names, replies):
        assert_right(reply(), name)
    assert proxy.metric("dnsproxy_lookups_convicted_total") == 0


def test_K3_upstream_that_closes_on_everything_for_a_while_convicts_nobody(upstream, proxy):
    assert_right(proxy.query("before.test"), "before.test")
    upstream.on_query = upstream.on_ping = lambda query: query.connection.close()
    names = [f"meanwhile{number}.test" for number in range(15)]
    replies = []
    for name in names:
        replies.append(proxy.ask_later(name))
        time.sleep(0.1)
    upstream.on_query, upstream.on_ping = Query.answer, answer_empty
    for name, reply in zip(names, replies):
        assert_right(reply(), name)
    assert proxy.metric("dnsproxy_lookups_convicted_total") == 0


def test_K3_away_for_longer_than_timeouts_park_fails_at_once_and_is_back_within_a_second(upstream, start_proxy):
    proxy = start_proxy(upstream, config={"timeouts": {"park": "500ms"}})
    upstream.go_down()
    started = time.monotonic()
    assert proxy.query("first.test").rcode() == dns.rcode.SERVFAIL
    assert time.monotonic() - started >= 0.4
    for number in range(5):
        started = time.monotonic()
        reply = proxy.query(f"next{number}.test")
        assert time.monotonic() - started < 0.3
        assert reply.rcode() == dns.rcode.SERVFAIL
        assert "connection refused" in extended_errors(reply)[0][1]
    upstream.listen()
    back = time.monotonic()
    numbers = itertools.count()
    eventually(lambda: proxy.query(f"back{next(numbers)}.test").rcode() == dns.rcode.NOERROR)
    assert time.monotonic() - back < 1.0


def test_F4_K3_two_hundred_that_wait_open_few_connections(upstream, proxy):
    upstream.go_down()
    replies = [proxy.ask_later(f"wait{number}.test") for number in range(200)]
    time.sleep(0.5)
    connects = proxy.metric("dnsproxy_upstream_connects_total")
    assert connects <= 30  # 200 ask, as one would
    upstream.listen()
    for number, reply in enumerate(replies):
        assert_right(reply(), f"wait{number}.test")


# K4, F19: errors

def fail(query, rcode=dns.rcode.SERVFAIL, code=None):
    answer = query.make_answer()
    answer.answer.clear()
    answer.set_rcode(rcode)
    if code is not None:
        answer.use_edns(0, answer.ednsflags, 1232, options=[dns.edns.EDEOption(code, "from upstream")])
    query.reply(answer)


@pytest.mark.parametrize("strategy", ["fastest", "ordered"])
def test_K4_quick_errors_do_not_win_over_good_answers(start_upstream, start_proxy, strategy):
    failing = [start_upstream() for _ in range(2)]
    good = start_upstream()
    for upstream in failing:
        upstream.on_query = fail
    good.on_query = lambda query: query.answer(after=0.02)
    proxy = start_proxy(*failing, good, config={"strategy": strategy})
    failed = 0
    for number in range(100):
        failed += proxy.query(f"name{number}.test").rcode() != dns.rcode.NOERROR
    assert failed <= 1


@pytest.mark.parametrize("code", [6, 7, 15, 17])
def test_F19_error_of_dnssec_or_policy_is_passed_on_at_once(start_upstream, start_proxy, code):
    strict, other = start_upstream(), start_upstream()
    strict.on_query = lambda query: fail(query, code=code)
    proxy = start_proxy(strict, other, config={"strategy": "ordered"})
    reply = proxy.query("bogus.test")
    assert reply.rcode() == dns.rcode.SERVFAIL
    assert (code, "from upstream") in extended_errors(reply)
    assert strict.names() == ["bogus.test."]
    assert other.names() == []


def test_F19_error_that_says_nothing_final_is_asked_elsewhere(start_upstream, start_proxy):
    broken, other = start_upstream(), start_upstream()
    broken.on_query = lambda query: fail(query, code=22)
    proxy = start_proxy(broken, other, config={"strategy": "ordered"})
    assert_right(proxy.query("unreachable.test"), "unreachable.test")
