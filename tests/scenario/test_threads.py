# SPDX-License-Identifier: Apache-2.0
"""Several workers at once. `./dev test threads` runs this file against a binary with ThreadSanitizer, and stopping the proxy
fails a test in which it had something to say."""

import random
import threading

import dns.rcode

from support import zone
from support.proxy import make_query

CLIENTS = 8
ROUNDS = 12
BATCH = 25
NAMES = 150


def run_clients(work):
    """Runs work(number) in CLIENTS threads; raises what the first of them raised."""
    raised = []

    def guarded(number):
        try:
            work(number)
        except BaseException as error:  # handed to the test's own thread
            raised.append(error)

    threads = [threading.Thread(target=guarded, args=(number,)) for number in range(CLIENTS)]
    for thread in threads:
        thread.start()
    return threads, raised


def finish(threads, raised):
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    if raised:
        raise raised[0]


def ask_for_known_names(proxy, number, rounds=ROUNDS):
    """Batches over TCP, each on a new connection and so on any worker; and a question over UDP in between."""
    chance = random.Random(number)
    for _ in range(rounds):
        names = [f"ttl-{chance.choice((1, 2, 300))}.n{chance.randrange(NAMES)}.test" for _ in range(BATCH)]
        replies = proxy.ask_all([make_query(name) for name in names])
        for name, reply in zip(names, replies):
            assert reply is not None and reply.rcode() == dns.rcode.NOERROR, f"{name}: {reply}"
            assert reply.answer[0][0].address == zone.address(name)
        assert proxy.query(names[0]).answer[0][0].address == zone.address(names[0])


def test_H13_workers_share_one_cache_while_it_churns(start_proxy, upstream):
    proxy = start_proxy(upstream, config={"workers": 4, "cache": {"size": "64KiB"}})
    finish(*run_clients(lambda number: ask_for_known_names(proxy, number)))
    metrics = proxy.metrics()
    asked = CLIENTS * ROUNDS * (BATCH + 1)
    hits = metrics.total("dnsproxy_cache_lookups_total", result="hit")
    misses = metrics.total("dnsproxy_cache_lookups_total", result="miss")
    assert hits + misses == asked and hits > 0 and misses > 0
    assert metrics.total("dnsproxy_replies_total", rcode="NOERROR") == asked


def test_counters_are_read_while_all_workers_count(start_proxy, upstream):
    proxy = start_proxy(upstream, config={"workers": 4, "log": {"level": "debug"}})
    threads, raised = run_clients(lambda number: ask_for_known_names(proxy, number, rounds=4))
    before = 0
    while any(thread.is_alive() for thread in threads):
        assert proxy.admin("/health")[0] == 200
        now = proxy.metric("dnsproxy_queries_total")
        assert now >= before
        before = now
    finish(threads, raised)
    assert proxy.metric("dnsproxy_queries_in_flight") == 0


def test_F18_upstream_that_flaps_under_load_from_all_workers_costs_nothing(start_proxy, start_upstream):
    steady, flapping = start_upstream(), start_upstream()
    proxy = start_proxy(steady, flapping, config={"workers": 4, "cache": {"size": 0}})
    threads, raised = run_clients(lambda number: ask_for_known_names(proxy, number))
    while any(thread.is_alive() for thread in threads):
        flapping.go_down()
        flapping.listen()
    finish(threads, raised)
    assert proxy.metric("dnsproxy_replies_total", rcode="SERVFAIL") == 0


def test_J2_drain_waits_for_the_last_worker_without_spinning(start_proxy, upstream):
    upstream.on_query = lambda query: query.answer(after=0.8)
    proxy = start_proxy(upstream, config={"workers": 4})
    reply = proxy.ask_later("last.test")
    upstream.wait_for(lambda: upstream.queries)
    before = proxy.cpu_seconds()
    proxy.process.terminate()
    assert reply().rcode() == dns.rcode.NOERROR
    assert proxy.cpu_seconds() - before < 0.3
    proxy.process.wait(5)  # a second signal would end it at once
    proxy.stop()


def test_J2_SIGTERM_while_all_workers_are_busy(start_proxy, upstream):
    upstream.on_query = lambda query: query.answer(after=0.3)
    proxy = start_proxy(upstream, config={"workers": 4, "cache": {"size": 0}})
    replies = [proxy.ask_later(f"busy{number}.test", tcp=number % 2 == 0) for number in range(40)]
    upstream.wait_for(lambda: len(set(upstream.names())) == 40)  # one that is late is asked twice
    proxy.stop()
    for number, reply in enumerate(replies):
        assert reply().answer[0][0].address == zone.address(f"busy{number}.test")
