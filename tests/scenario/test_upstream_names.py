# SPDX-License-Identifier: Apache-2.0
"""Upstreams that are host names: looked up through others or through bootstrap servers, renewed,
moved, raced; and upstreams that are the daemon itself."""

import socket
import time

import dns.flags
import dns.message
import dns.rcode
import pytest

from support import ports, zone
from support.plain import PlainServer, TlsDoor
from support.proxy import extended_errors
from support.upstream import FullListener, Upstream
from support.waiting import eventually

FAILURES = "dnsproxy_upstream_failures_total"
ADDRESSES = "dnsproxy_upstream_addresses"


def assert_right(reply, name):
    assert reply.rcode() == dns.rcode.NOERROR, reply
    assert reply.answer[0][0].to_text() == zone.address(name)


def assert_fails(reply, *texts):
    assert reply.rcode() == dns.rcode.SERVFAIL, reply
    errors = " ".join(text for _, text in extended_errors(reply))
    for text in texts:
        assert text in errors, errors


def named(upstream, **how):
    """The same upstream by its name."""
    url = f"tls://upstream.test:{upstream.port}"
    return {"url": url, **how} if how else url


@pytest.fixture
def start_bootstrap():
    started = []

    def start(addresses=None, **how):
        server = PlainServer({"upstream.test.": ["127.0.0.1"]} if addresses is None else addresses,
                             **how)
        started.append(server)
        return server
    yield start
    for server in started:
        server.stop()


@pytest.fixture
def start_door(pki):
    started = []

    def start(**how):
        door = TlsDoor(pki["good"], **how)
        started.append(door)
        return door
    yield start
    for door in started:
        door.stop()


# Lookups

def test_RFC8310_name_is_looked_up_through_the_bootstrap_and_authenticated(
        upstream, start_proxy, start_bootstrap):
    bootstrap = start_bootstrap()
    proxy = start_proxy(named(upstream), config={"bootstrap": [str(bootstrap)]})
    assert_right(proxy.query("first.test"), "first.test")
    assert upstream.connections[0].hello.server_name == "upstream.test"
    # Nothing but the upstream's own name has left in clear text.
    assert bootstrap.names() == {"upstream.test."}
    assert {kind for _, kind, _ in bootstrap.asked} == {"A", "AAAA"}
    label = f"upstream.test:{upstream.port}#upstream.test"
    assert proxy.metric("dnsproxy_upstream_answers_total", upstream=label) == 1
    assert proxy.metric("dnsproxy_upstream_name_lookups_total", upstream=label,
                        result="found") == 1
    assert proxy.metric(ADDRESSES, upstream=label) == 1
    assert proxy.wait_for_log("upstream_addresses")["addresses"] == f"127.0.0.1:{upstream.port}"


def test_E1_bootstrap_that_lies_gets_no_query(start_upstream, start_proxy, start_bootstrap):
    liar = start_upstream("wrong-name")
    bootstrap = start_bootstrap()
    proxy = start_proxy(named(liar), config={"bootstrap": [str(bootstrap)]})
    assert_fails(proxy.query("secret.test"), "certificate is for another name")
    assert liar.application_bytes() == 0


def test_name_is_looked_up_through_another_upstream(start_upstream, start_proxy):
    first, second = start_upstream(), start_upstream()
    lookups = []

    def hook(query):
        if query.name != "upstream.test.":
            query.answer()
            return
        lookups.append(query.type)
        answer = dns.message.make_response(query.message)
        if query.type == "A":
            answer.answer.append(dns.rrset.from_text("upstream.test.", 300, "IN", "A", "127.0.0.1"))
        query.reply(answer)
    second.on_query = hook
    proxy = start_proxy(named(first), second, config={"strategy": "ordered"})
    eventually(lambda: proxy.metric(ADDRESSES) == 1)
    assert sorted(lookups) == ["A", "AAAA"]
    # Nobody waits for a handshake while another upstream is ready.
    assert_right(proxy.query("before.test"), "before.test")
    assert first.names() == []
    eventually(lambda: proxy.metric("dnsproxy_upstream_connections", state="ready") == 2)
    assert_right(proxy.query("through.test"), "through.test")
    assert first.names() == ["through.test."]


def test_two_names_do_not_wait_for_each_other(start_upstream, start_proxy, start_bootstrap):
    first, second = start_upstream(), start_upstream("other")
    bootstrap = start_bootstrap({"other.test.": ["127.0.0.1"]})
    proxy = start_proxy(named(first), f"tls://other.test:{second.port}",
                        config={"strategy": "ordered", "bootstrap": [str(bootstrap)]})
    started = time.monotonic()
    assert_right(proxy.query("one.test"), "one.test")
    assert time.monotonic() - started < 2
    assert second.names().count("one.test.") == 1


def test_bootstrap_answers_over_TCP_when_truncated(upstream, start_proxy, start_bootstrap):
    bootstrap = start_bootstrap()

    def hook(server, message, transport):
        answer = PlainServer.answer(server, message, transport)
        if transport == "udp":
            answer.answer.clear()
            answer.flags |= dns.flags.TC
        return answer
    bootstrap.on_query = hook
    proxy = start_proxy(named(upstream), config={"bootstrap": [str(bootstrap)]})
    assert_right(proxy.query("truncated.test"), "truncated.test")
    assert {transport for _, _, transport in bootstrap.asked} == {"udp", "tcp"}


def test_I8_RFC5452_bootstrap_questions_cannot_be_guessed(upstream, start_proxy, start_bootstrap):
    bootstrap = start_bootstrap()

    def hook(server, message, transport):
        answer = PlainServer.answer(server, message, transport)
        if len(server.asked) <= 6:
            answer.id ^= 1  # a stranger's
        return answer
    bootstrap.on_query = hook
    proxy = start_proxy(named(upstream), config={"bootstrap": [str(bootstrap)]})
    bootstrap.wait_for_queries(6)
    # Two for each of the two questions, and what is sent once more from the same port.
    assert len(set(bootstrap.ids)) >= 3 and len(bootstrap.sources) >= 3
    eventually(lambda: proxy.query("guessed.test").rcode() == dns.rcode.NOERROR)


def test_J9_bootstrap_dead_at_the_start_and_then_alive(upstream, start_proxy, start_bootstrap):
    bootstrap = start_bootstrap(listening=False)
    proxy = start_proxy(named(upstream), config={"bootstrap": [str(bootstrap)]})
    label = f"upstream.test:{upstream.port}#upstream.test"
    assert_fails(proxy.query("early.test"), label, "its name could not be looked up")
    assert proxy.metric(FAILURES, cause="name_lookup") >= 1
    assert proxy.wait_for_log("upstream_failed")["detail"] == "no answer from any bootstrap server"
    bootstrap.listen()
    started = time.monotonic()
    eventually(lambda: proxy.query("late.test").rcode() == dns.rcode.NOERROR, 2)
    assert time.monotonic() - started < 1


def test_J9_cache_serves_when_no_name_can_be_looked_up(upstream, start_proxy, start_bootstrap):
    bootstrap = start_bootstrap(ttl=0)
    proxy = start_proxy(named(upstream), config={"bootstrap": [str(bootstrap)]})
    assert_right(proxy.query("kept.test"), "kept.test")
    bootstrap.stop()
    upstream.go_down()
    assert_right(proxy.query("kept.test"), "kept.test")
    assert_fails(proxy.query("new.test"), "connection refused")


def test_J9_silent_bootstrap_holds_no_query_beyond_its_time(upstream, start_proxy,
                                                            start_bootstrap):
    bootstrap = start_bootstrap()
    bootstrap.on_query = lambda *_: None
    proxy = start_proxy(named(upstream), config={"bootstrap": [str(bootstrap)],
                                                 "timeouts": {"query": "3s"}})
    started = time.monotonic()
    assert_fails(proxy.query("silent.test"), "its name could not be looked up")
    assert time.monotonic() - started < 3.2


# Renewal

def test_change_of_addresses_moves_connections(start_upstream, start_proxy, start_bootstrap):
    port = ports.free_port()
    old = start_upstream(port=port)
    new = start_upstream(address="127.0.0.2", port=port)
    bootstrap = start_bootstrap(ttl=1)
    proxy = start_proxy(named(old), config={"bootstrap": [str(bootstrap)]})
    assert_right(proxy.query("before.test"), "before.test")
    bootstrap.addresses["upstream.test."] = ["127.0.0.2"]
    new.wait_for(lambda: new.connections and new.connections[0].handshake_time, 8)
    old.wait_for(lambda: not old.open_connections())
    assert_right(proxy.query("after.test"), "after.test")
    assert new.names() == ["after.test."]
    assert len(old.connections) == len(new.connections) == 1


def test_lookup_that_fails_keeps_what_is_known(upstream, start_proxy, start_bootstrap):
    bootstrap = start_bootstrap(ttl=1)
    proxy = start_proxy(named(upstream), config={"bootstrap": [str(bootstrap)]})
    assert_right(proxy.query("before.test"), "before.test")
    bootstrap.stop()
    proxy.wait_for_log("upstream_addresses_stale", 8)
    assert_right(proxy.query("after.test"), "after.test")
    assert len(upstream.connections) == 1
    assert proxy.metric(ADDRESSES) == 1


# RFC 8305

def test_RFC8305_silent_address_costs_a_quarter_of_a_second(start_upstream, start_proxy,
                                                            start_bootstrap):
    with FullListener("127.0.0.3") as silent:
        upstream = start_upstream(port=silent.port)
        bootstrap = start_bootstrap({"upstream.test.": ["127.0.0.3", "127.0.0.1"]})
        proxy = start_proxy(named(upstream), config={"bootstrap": [str(bootstrap)]})
        eventually(lambda: proxy.metric(ADDRESSES) == 2)
        started = time.monotonic()
        assert_right(proxy.query("raced.test"), "raced.test")
        assert 0.2 < time.monotonic() - started < 0.6
        # The winner is remembered.
        upstream.connections[0].reset()
        upstream.wait_for(lambda: not upstream.connections[0].is_open)
        started = time.monotonic()
        assert_right(proxy.query("again.test"), "again.test")
        assert time.monotonic() - started < 0.2


@pytest.mark.ipv6
def test_RFC8305_IPv6_comes_first_and_IPv4_takes_over(start_upstream, start_proxy,
                                                      start_bootstrap):
    port = ports.free_port("::1")
    v6 = start_upstream(address="::1", port=port)
    v4 = start_upstream(port=port)
    bootstrap = start_bootstrap({"upstream.test.": ["127.0.0.1", "::1"]})
    proxy = start_proxy(named(v4), config={"bootstrap": [str(bootstrap)]})
    assert_right(proxy.query("six.test"), "six.test")
    assert v6.names() == ["six.test."] and not v4.connections
    v6.go_down()
    assert_right(proxy.query("four.test"), "four.test")
    assert v4.names() == ["four.test."]


def test_RFC8305_family_without_a_route_costs_nothing(upstream, start_proxy, start_bootstrap):
    bootstrap = start_bootstrap({"upstream.test.": ["2001:db8::1", "2001:db8::2", "127.0.0.1"]})
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect(("2001:db8::1", 853))
            pytest.skip("this machine has a route for IPv6")
        except OSError:
            pass
    proxy = start_proxy(named(upstream), config={"bootstrap": [str(bootstrap)]})
    eventually(lambda: proxy.metric(ADDRESSES) == 3)
    started = time.monotonic()
    assert_right(proxy.query("four.test"), "four.test")
    assert time.monotonic() - started < 0.2


# Upstreams that are the daemon itself

def test_G11_upstream_that_is_the_daemon_itself_is_said_and_left(start_door, start_proxy):
    door = start_door()
    proxy = start_proxy(door)
    door.target = proxy.port
    started = time.monotonic()
    assert_fails(proxy.query("loop.test"), door.label, "is this daemon itself")
    assert time.monotonic() - started < 1
    assert proxy.metric(FAILURES, cause="loop") >= 1
    assert proxy.metric("dnsproxy_upstream_up", upstream=door.label) == 0
    line = proxy.wait_for_log("upstream_failed", cause="is this daemon itself")
    assert line["level"] == "error" and line["upstream"] == door.label
    # It is left in peace now, whatever is asked.
    for number in range(20):
        assert_fails(proxy.query(f"loop{number}.test"), "is this daemon itself")
        time.sleep(0.05)
    assert door.connections == 1


def test_G11_other_upstreams_answer_in_its_place(start_door, start_proxy, upstream):
    door = start_door()
    proxy = start_proxy(door, upstream, config={"strategy": "ordered"})
    door.target = proxy.port
    for number in range(5):
        assert_right(proxy.query(f"other{number}.test"), f"other{number}.test")
    assert proxy.metric("dnsproxy_upstream_up", upstream=door.label) == 0
    assert door.connections == 1


def test_G11_loop_through_another_daemon(start_door, start_proxy):
    """The second asks the first, which asks the second."""
    to_first, to_second = start_door(), start_door()
    first = start_proxy(to_second)
    second = start_proxy(to_first)
    to_first.target, to_second.target = first.port, second.port
    started = time.monotonic()
    assert_fails(first.query("round.test"), "is this daemon itself")
    assert time.monotonic() - started < 1
    assert eventually(lambda: first.metric(FAILURES, cause="loop")
                      + second.metric(FAILURES, cause="loop")) >= 1


def test_G11_chain_of_daemons_is_not_itself(start_door, start_proxy, upstream):
    last = start_proxy(upstream)
    door = start_door(target=last.port)
    first = start_proxy(door)
    assert_right(first.query("chain.test"), "chain.test")
    eventually(lambda: len(upstream.probes) == 2)  # each one's, through to the end
    assert first.metric(FAILURES) == 0
    assert first.metric("dnsproxy_upstream_up", upstream=door.label) == 1


def test_G11_nobody_else_can_claim_to_be_us(upstream, start_proxy):
    """An upstream that answers the probe with the name's own digits is another."""
    def claim(probe):
        answer = dns.message.make_response(probe.message)
        for text in (probe.name[:16], probe.name[16:32]):
            answer.answer.append(dns.rrset.from_text(probe.name, 0, "IN", "TXT", f'"{text}"'))
        probe.reply(answer)
    upstream.on_probe = claim
    proxy = start_proxy(upstream)
    assert_right(proxy.query("claim.test"), "claim.test")
    upstream.wait_for(lambda: upstream.probes)
    assert_right(proxy.query("claim2.test"), "claim2.test")
    assert proxy.metric(FAILURES, cause="loop") == 0


def test_G11_probe_names_nobody_and_nothing(upstream, start_proxy):
    proxy = start_proxy(upstream)
    proxy.query("first.test")
    upstream.wait_for(lambda: upstream.probes)
    probe = upstream.probes[0]
    assert probe.name.endswith(".dnsproxy-loop-probe.example.") and probe.type == "TXT"
    assert len(probe.raw) % 128 == 0  # padded as all
    proxy.query("second.test")
    assert len(upstream.probes) == 1


# The rest of the program

def test_names_in_check(pki, tmp_path):
    import subprocess  # pylint: disable=import-outside-toplevel
    from support.proxy import binary  # pylint: disable=import-outside-toplevel
    path = tmp_path / "names.yaml"
    path.write_text(f"tls: {{ca: {pki.ca}}}\nupstreams: [tls://dns.example]\n", encoding="utf-8")
    done = subprocess.run([binary(), "check", "-c", str(path)], capture_output=True, text=True,
                          timeout=20, check=False)
    assert done.returncode == 1
    assert f"{path}:2:13: upstreams: is a host name, as all upstreams are" in done.stderr
    path.write_text(f"tls: {{ca: {pki.ca}}}\nupstreams: [tls://dns.example]\n"
                    "bootstrap: 192.0.2.53\n", encoding="utf-8")
    done = subprocess.run([binary(), "check", "-c", str(path)], capture_output=True, text=True,
                          timeout=20, check=False)
    assert done.returncode == 0, done.stderr


def test_J9_start_and_stop_in_the_midst_of_lookups(start_proxy, start_bootstrap, pki):
    bootstrap = start_bootstrap()
    bootstrap.on_query = lambda *_: None
    with Upstream(pki["good"]) as silent:
        silent.on_query = lambda query: None
        proxy = start_proxy(named(silent), silent, f"tls://other.test:{silent.port}",
                            config={"bootstrap": [str(bootstrap)], "workers": 2})
        proxy.ask_later("waiting.test")
        silent.wait_for(lambda: len(silent.queries) >= 4)
        bootstrap.wait_for_queries(4)
        proxy.stop()
