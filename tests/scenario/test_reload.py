# SPDX-License-Identifier: Apache-2.0
"""SIGHUP: the configuration is read anew, whole or not at all, and nobody notices but by what has changed."""

import itertools
import os
import signal
import threading
import time

import dns.rcode

from support.plain import PlainServer
from support.proxy import extended_errors, make_query
from support.upstream import never
from support.waiting import eventually


def listeners_of(proxy):
    """The sockets that are bound to its port, by their number in the kernel."""
    found = set()
    for table, state in (("udp", "07"), ("tcp", "0A")):
        with open(f"/proc/net/{table}", encoding="ascii") as lines:
            for line in list(lines)[1:]:
                fields = line.split()
                if fields[1].endswith(f":{proxy.port:04X}") and fields[3] == state:
                    found.add(fields[9])
    return found


class Load:
    """Clients that ask without a pause, for new names and for one that is cached; `failures` are those of all."""

    def __init__(self, proxy):
        self.asked, self.failures, self._ends = 0, [], False
        self._threads = [threading.Thread(target=self._ask, args=(proxy, number)) for number in range(4)]

    def _ask(self, proxy, number):
        for count in itertools.count():
            if self._ends:
                return
            name = "kept.test" if count % 3 == 0 else f"new{number}-{count}.test"
            try:
                rcode = proxy.query(name, tcp=number % 2 == 1, timeout=10).rcode()
                if rcode != dns.rcode.NOERROR:
                    self.failures.append((name, rcode))
            except Exception as error:  # pylint: disable=broad-except
                self.failures.append((name, error))
            self.asked += 1

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._ends = True
        for thread in self._threads:
            thread.join()


def test_J1_reload_under_load_loses_nothing(start_proxy, upstream):
    proxy = start_proxy(upstream, config={"workers": 2})
    with Load(proxy) as load:
        eventually(lambda: load.asked > 100)
        connections, listeners = list(upstream.connections), listeners_of(proxy)
        assert len(listeners) == 2 * 2  # UDP and TCP of two workers
        for count in range(3):
            asked = load.asked
            proxy.reload(text="allow: [10.0.0.0/33]\nupstreams: []\n")
            eventually(lambda count=count: len(proxy.logs("not_reloaded")) == 2 * (count + 1))
            proxy.reload_and_wait({"strategy": ("ordered", "hash", "weighted")[count],
                                   "timeouts": {"tcp-idle": f"{count + 5}s"},
                                   "limits": {"tcp-queries": count + 3, "udp-reply-size": 1000 + count}})
            eventually(lambda asked=asked: load.asked > asked + 100)
    assert not load.failures
    assert listeners_of(proxy) == listeners
    # One that falls silent since the machine stalls is replaced at any time; a reload would drop all.
    assert any(connection.is_open for connection in connections)
    assert proxy.metric("dnsproxy_config_generation") == 4


def test_J1_what_is_in_flight_survives(start_proxy, upstream):
    proxy = start_proxy(upstream)
    proxy.query("slow-900ms.warm.test")
    waiting = [proxy.ask_later(f"slow-900ms.{count}.test", tcp=count % 2 == 1) for count in range(20)]
    upstream.wait_for(lambda: len(set(upstream.names())) == 21)
    proxy.reload_and_wait({"strategy": "ordered"})
    for asked in waiting:
        assert asked().rcode() == dns.rcode.NOERROR


def test_J1_broken_file_changes_nothing_and_says_where(start_proxy, upstream):
    proxy = start_proxy(upstream)
    proxy.query("kept.test")
    assert proxy.metric("dnsproxy_config_last_reload_successful") == 1
    since = proxy.metric("dnsproxy_config_last_reload_success_timestamp_seconds")
    assert abs(since - time.time()) < 60
    proxy.reload(text="allow:\n  - 192.0.2.0/24\ncache: {siez: 1MiB}\n")
    cause = proxy.wait_for_log("not_reloaded")["cause"]
    assert cause.startswith(f"{proxy.path}:3:9: ") and "cache.size" in cause
    assert proxy.query("kept.test").rcode() == dns.rcode.NOERROR  # is allowed still
    assert proxy.metric("dnsproxy_config_last_reload_successful") == 0
    assert proxy.metric("dnsproxy_config_generation") == 1
    assert proxy.metric("dnsproxy_config_last_reload_success_timestamp_seconds") == since
    os.unlink(proxy.path)
    proxy.process.send_signal(signal.SIGHUP)
    eventually(lambda: len(proxy.logs("not_reloaded")) == 2)
    assert "No such file" in proxy.logs("not_reloaded")[1]["cause"]
    proxy.reload_and_wait({"allow": ["192.0.2.0/24"]})
    assert proxy.query("kept.test").rcode() == dns.rcode.REFUSED
    assert proxy.metric("dnsproxy_config_last_reload_successful") == 1


def test_J1_what_needs_a_restart_is_named_and_left(start_proxy, upstream):
    proxy = start_proxy(upstream)
    proxy.reload({"workers": 2, "cache": {"size": "1MiB"}, "allow": ["127.0.0.0/8"]})
    assert proxy.wait_for_log("restart_needed")["keys"] == "workers cache.size"
    proxy.wait_for_log("reloaded", generation="2")
    assert proxy.metric("dnsproxy_config_restart_needed") == 2
    assert proxy.query("two.test").rcode() == dns.rcode.NOERROR


# --- Other upstreams ---

def test_J1_upstreams_change_under_load_and_nothing_is_lost(start_proxy, start_upstream):
    upstreams = [start_upstream() for _ in range(3)]
    proxy = start_proxy(upstreams[0], config={"workers": 2})
    with Load(proxy) as load:
        eventually(lambda: load.asked > 100)
        for count in range(6):
            asked, queries = load.asked, [len(upstream.queries) for upstream in upstreams]
            chosen = (count + 1) % 3
            proxy.reload(text="upstreams: [tls://192.0.2.1]\n")
            eventually(lambda count=count: len(proxy.logs("not_reloaded")) == count + 1)
            kept = [upstreams[chosen], upstreams[count % 3]][: 1 + count % 2]
            proxy.reload_and_wait({"upstreams": [upstream.url() for upstream in kept], "strategy": "ordered"})
            eventually(lambda: load.asked > asked + 100 and len(upstreams[chosen].queries) > queries[chosen] + 20)
            gone = [upstream for upstream in upstreams if upstream not in kept]
            for upstream in gone:
                eventually(lambda upstream=upstream: not upstream.open_connections())
    assert not load.failures
    assert proxy.metric("dnsproxy_config_generation") == 7


def test_J1_upstream_that_stays_keeps_its_connection(start_proxy, start_upstream):
    first, second, third = start_upstream(), start_upstream(), start_upstream()
    proxy = start_proxy(first, second, config={"strategy": "ordered"})
    for name in ("a.test", "b.test"):
        proxy.query(name)
    before = first.open_connections()
    for order in ([third, first, second], [first, third], [first]):
        proxy.reload_and_wait({"upstreams": [upstream.url() for upstream in order]})
        proxy.query(f"{len(order)}.test")
        assert [connection for connection in before if connection.is_open] == before
    assert len(first.connections) == len(before)
    assert proxy.metric("dnsproxy_upstream_answers_total", upstream=first.label) == len(first.queries) > 2
    assert third.connections
    assert [line["upstream"] for line in proxy.logs("upstream_added")] == [third.label]
    assert {line["upstream"] for line in proxy.logs("upstream_removed")} == {second.label, third.label}


def test_J1_removed_upstream_answers_what_it_was_asked(start_proxy, start_upstream):
    first, second = start_upstream(), start_upstream()
    proxy = start_proxy(first)
    proxy.query("slow-800ms.warm.test")
    waiting = [proxy.ask_later(f"slow-800ms.{count}.test", tcp=count % 2 == 1) for count in range(20)]
    first.wait_for(lambda: len(set(first.names())) == 21)
    proxy.reload({"upstreams": [second.url()]})
    new = (f"new-{count}.test" for count in itertools.count())
    eventually(lambda: proxy.query(next(new)).rcode() == dns.rcode.NOERROR and second.names())
    for asked in waiting:
        assert asked().rcode() == dns.rcode.NOERROR
    first.wait_for(lambda: not first.open_connections())
    proxy.wait_for_log("reloaded")


def test_J1_query_that_waits_at_a_dead_upstream_is_asked_at_the_new_one(start_proxy, start_upstream):
    dead, good = start_upstream(), start_upstream()
    proxy = start_proxy(dead, config={"timeouts": {"park": "60s", "query": "60s", "request": "60s"}})
    proxy.query("warm.test")
    dead.on_query = never
    silent = proxy.ask_later("silent.test", timeout=60)
    dead.wait_for(lambda: "silent.test." in dead.names())
    dead.go_down()
    eventually(lambda: proxy.query("warm.test") and proxy.metric("dnsproxy_upstream_up") == 0)
    parked = proxy.ask_later("parked.test", timeout=60)
    proxy.reload_and_wait({"upstreams": [good.url()]})
    assert silent().rcode() == dns.rcode.NOERROR and parked().rcode() == dns.rcode.NOERROR
    assert sorted(good.names()) == ["parked.test.", "silent.test."]


def test_E1_J1_authorities_are_read_anew(start_proxy, upstream, pki, tmp_path):
    """What is in the file counts, and a connection that was trusted by another is asked nothing more."""
    authority, stranger = (open(path, encoding="ascii").read() for path in (pki.ca, pki.unknown_ca))
    file = tmp_path / "authorities.pem"
    file.write_text(authority)
    proxy = start_proxy(upstream, ca=str(file), config={"timeouts": {"park": "0s"}})
    assert proxy.query("trusted.test").rcode() == dns.rcode.NOERROR
    connection = upstream.connections[0]
    proxy.reload_and_wait({})
    assert proxy.query("again.test").rcode() == dns.rcode.NOERROR
    assert upstream.connections == [connection] and connection.is_open
    file.write_text(stranger)
    proxy.reload_and_wait({})
    eventually(lambda: not connection.is_open)
    asked = len(upstream.queries)
    reply = proxy.query("untrusted.test")
    assert reply.rcode() == dns.rcode.SERVFAIL
    assert "certificate is from an unknown authority" in extended_errors(reply)[0][1]
    assert len(upstream.queries) == asked
    file.write_text("no certificate")
    proxy.reload({})
    assert str(file) in proxy.wait_for_log("not_reloaded")["cause"]
    file.write_text(authority)
    proxy.reload_and_wait({})
    assert proxy.query("trusted-again.test").rcode() == dns.rcode.NOERROR


def test_J1_equal_authorities_in_two_files_are_one_from_the_start(start_proxy, start_upstream, pki, tmp_path):
    copy = tmp_path / "copy.pem"
    copy.write_text(open(pki.ca, encoding="ascii").read())
    first, second = start_upstream(), start_upstream()
    proxy = start_proxy(first, {"url": second.url(), "ca": str(copy)}, config={"strategy": "ordered"})
    proxy.query("a.test")
    eventually(lambda: first.open_connections() and second.open_connections())
    proxy.reload_and_wait({})
    assert not proxy.logs("upstream_removed")


def test_J1_what_is_counted_of_an_upstream_begins_anew_when_it_returns(start_proxy, start_upstream):
    first, second = start_upstream(), start_upstream()
    proxy = start_proxy(first)
    proxy.query("one.test")
    assert proxy.metric("dnsproxy_upstream_answers_total", upstream=first.label) == 1
    for upstream in (second, first):
        proxy.reload_and_wait({"upstreams": [upstream.url()]})
        metrics = proxy.metrics()
        assert {dict(labels).get("upstream") for _, labels in metrics} == {None, upstream.label}
        assert metrics.total("dnsproxy_upstream_answers_total") == 0
        assert metrics.total("dnsproxy_upstream_up") == 1


def test_J1_host_names_and_bootstrap_servers_follow(start_proxy, start_upstream):
    first, second = start_upstream(), start_upstream()
    dead, server = PlainServer({}), PlainServer({"upstream.test.": ["127.0.0.1"]})
    try:
        dead.on_query = lambda *_: None
        proxy = start_proxy(first)
        proxy.query("one.test")
        proxy.reload_and_wait({"upstreams": [f"tls://upstream.test:{second.port}"], "bootstrap": [f"127.0.0.1:{dead.port}"],
                               "timeouts": {"query": "20s", "park": "20s"}})
        waiting = proxy.ask_later("two.test", timeout=30)
        dead.wait_for_queries(1)
        proxy.reload_and_wait({"bootstrap": [f"127.0.0.1:{server.port}"]})
        assert waiting().rcode() == dns.rcode.NOERROR
        assert "two.test." in second.names()
    finally:
        dead.stop()
        server.stop()


# --- The rest ---

def test_J1_for_how_long_answers_are_kept_follows(start_proxy, upstream):
    proxy = start_proxy(upstream, config={"timeouts": {"park": "0s"}})
    assert proxy.query("ttl-300.before.test").answer[0].ttl == 300
    proxy.query("ttl-1.stale.test")
    proxy.reload_and_wait({"cache": {"ttl-max": "60s", "max-stale": "0s"}})
    assert not proxy.logs("restart_needed")
    assert proxy.query("ttl-300.before.test").answer[0].ttl > 60
    proxy.query("ttl-300.behind.test")
    assert proxy.query("ttl-300.behind.test").answer[0].ttl <= 60
    upstream.go_down()
    eventually(lambda: proxy.query("ttl-1.stale.test").rcode() == dns.rcode.SERVFAIL)
    proxy.reload_and_wait({"cache": {"max-stale": "1d"}})
    assert proxy.query("ttl-1.stale.test").rcode() == dns.rcode.NOERROR


def test_J1_log_level_follows(start_proxy, upstream):
    proxy = start_proxy(upstream)
    proxy.query("unseen.test")
    proxy.reload_and_wait({"log": {"level": "debug"}})
    proxy.query("seen.test")
    proxy.wait_for_log("reply", name="seen.test.")
    proxy.reload_and_wait({"log": {"level": "info"}})
    proxy.query("again.test")
    proxy.reload_and_wait({"log": {"level": "info"}})  # behind it in the log
    assert {line["name"] for line in proxy.logs("reply")} == {"seen.test."}


def test_J1_clients_times_and_the_drain_follow(start_proxy, upstream):
    proxy = start_proxy(upstream, config={"timeouts": {"tcp-idle": "60s", "lame-duck": "0s"}})
    with proxy.tcp() as client:
        proxy.reload_and_wait({"timeouts": {"tcp-idle": "300ms", "lame-duck": "60s"}})
        assert client.is_closed_by_peer()
    proxy.process.send_signal(signal.SIGTERM)
    assert proxy.wait_for_log("lame_duck")["duration_ms"] == "60000"
    proxy.reload_and_wait({})
    proxy.process.send_signal(signal.SIGTERM)
    assert proxy.process.wait(10) == 0


def test_J1_times_of_queries_and_of_the_drain_follow(start_proxy, upstream):
    upstream.on_query = never
    proxy = start_proxy(upstream, config={"timeouts": {"query": "60s", "drain": "60s"}})
    proxy.reload_and_wait({"timeouts": {"query": "500ms"}})
    assert proxy.query("never.test").rcode() == dns.rcode.SERVFAIL
    proxy.reload_and_wait({"timeouts": {"query": "60s", "drain": "100ms"}})
    waiting = proxy.ask_later("never-either.test")
    upstream.wait_for(lambda: "never-either.test." in upstream.names())
    proxy.process.send_signal(signal.SIGTERM)
    assert proxy.process.wait(10) == 0
    del waiting


def test_J1_refused_source_ports_follow(start_proxy, upstream):
    proxy = start_proxy(upstream)
    message = make_query("port.test")
    with proxy.udp() as client:
        port = client.getsockname()[1]
        client.send(message.to_wire())
        client.recv(4096)
        proxy.reload_and_wait({"refused-source-ports": [port]})
        client.send(message.to_wire())
        proxy.wait_for_metric("dnsproxy_dropped_total", reason="source_port")
        proxy.reload_and_wait({"refused-source-ports": ["none"]})
        client.send(message.to_wire())
        client.recv(4096)


def test_J1_reload_in_a_drain_is_none(start_proxy, upstream):
    upstream.on_query = never
    proxy = start_proxy(upstream, config={"timeouts": {"drain": "3s"}})
    proxy.ask_later("waits.test")
    upstream.wait_for(lambda: upstream.queries)
    proxy.process.send_signal(signal.SIGTERM)
    proxy.wait_for_log("draining")
    proxy.process.send_signal(signal.SIGHUP)
    proxy.wait_for_log("signal_ignored")
    assert proxy.process.wait(20) == 0
    assert not proxy.logs("reloaded")
