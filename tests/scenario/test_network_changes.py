# SPDX-License-Identifier: Apache-2.0
"""J8: addresses and routes that change under the daemon, in a network of the test's own."""

import time

import dns.rcode

from support.network import ADDRESS, ip
from support.waiting import eventually

CHANGES = "dnsproxy_upstream_network_changes_total"


def test_J8_connections_of_a_lost_address_are_dropped_and_made_anew(network, start_upstream,
                                                                   start_proxy):
    upstream = start_upstream(address=ADDRESS)
    proxy = start_proxy(upstream, config={"timeouts": {"park": "0"}})
    assert proxy.query("before.test").rcode() == dns.rcode.NOERROR
    ip("address", "del", f"{ADDRESS}/32", "dev", "lo")
    eventually(lambda: proxy.metric(CHANGES) == 1, timeout=1)
    assert proxy.metric("dnsproxy_upstream_connections", state="ready") == 0
    started = time.monotonic()
    assert proxy.query("gone.test").rcode() == dns.rcode.SERVFAIL
    assert time.monotonic() - started < 0.5
    ip("address", "add", f"{ADDRESS}/32", "dev", "lo")
    back = time.monotonic()
    eventually(lambda: proxy.query(f"back{time.monotonic_ns()}.test").rcode() == dns.rcode.NOERROR,
               timeout=2)
    assert time.monotonic() - back < 1.0


def test_J8_what_is_in_flight_on_a_lost_address_moves(network, start_upstream, start_proxy):
    lost, kept = start_upstream(address=ADDRESS), start_upstream()
    proxy = start_proxy(lost, kept, config={"strategy": "ordered"})
    assert proxy.query("warm.test").rcode() == dns.rcode.NOERROR
    lost.on_query = lambda query: ip("address", "del", f"{ADDRESS}/32", "dev", "lo")
    started = time.monotonic()
    assert proxy.query("moves.test").rcode() == dns.rcode.NOERROR
    assert time.monotonic() - started < 1.0
    assert "moves.test." in kept.names()
    eventually(lambda: proxy.metric(CHANGES, upstream=lost.label) == 1)
    assert proxy.metric(CHANGES, upstream=kept.label) == 0


def test_J8_changes_of_other_links_drop_nothing(network, start_upstream, start_proxy):
    upstream = start_upstream(address=ADDRESS)
    proxy = start_proxy(upstream)
    assert proxy.query("before.test").rcode() == dns.rcode.NOERROR
    for number in range(20):
        ip("address", "add", f"10.77.0.{number + 1}/32", "dev", "lo")
        assert proxy.query(f"churn{number}.test").rcode() == dns.rcode.NOERROR
    time.sleep(0.2)  # over the moment in which changes settle
    assert proxy.query("after.test").rcode() == dns.rcode.NOERROR
    assert proxy.metric(CHANGES) == 0
    assert upstream.connections[0].is_open
