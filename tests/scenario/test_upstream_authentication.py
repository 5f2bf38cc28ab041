# SPDX-License-Identifier: Apache-2.0
"""E: to whom a query is given. The certificate decides, strictly, before the first byte of it."""

import itertools
import subprocess
import time

import dns.name
import dns.rcode
import pytest

from support import zone
from support.proxy import binary, extended_errors
from support.upstream import Query
from support.waiting import eventually

SECRET = "secret.example.test"


def wire(name):
    return dns.name.from_text(name).to_wire()


def assert_nothing_leaked(upstream, name=SECRET):
    """Not one application byte, and the name in no byte beneath TLS."""
    assert upstream.application_bytes() == 0
    for connection in upstream.connections:
        raw = bytes(connection.raw).lower()
        assert raw == b"" or raw[0] == 22, "the first record is not a TLS handshake"
        assert wire(name) not in raw and name.encode() not in raw


def assert_refused(proxy, upstream, cause, text, label=None):
    """The client is told, in words, which upstream failed and why; so are metrics and log."""
    label = label or upstream.label
    reply = proxy.query(SECRET)
    assert reply.rcode() == dns.rcode.SERVFAIL
    assert reply.answer == []
    errors = extended_errors(reply)
    assert len(errors) == 1 and errors[0][0] in (0, 22, 23)
    assert label in errors[0][1] and text in errors[0][1], errors
    assert_nothing_leaked(upstream)
    assert 1 <= len(upstream.connections) <= 2
    assert proxy.metric("dnsproxy_upstream_failures_total", upstream=label, cause=cause) >= 1
    assert proxy.metric("dnsproxy_upstream_up", upstream=label) == 0
    assert text in proxy.wait_for_log("upstream_failed", upstream=label)["cause"]


BAD_CERTIFICATES = [
    # certificate, name that the proxy asks for, cause, text
    ("wrong-name", "upstream.test", "certificate_name", "certificate is for another name"),
    ("wrong-ip", "127.0.0.1", "certificate_name", "certificate is for another name"),
    ("name-only", "127.0.0.1", "certificate_name", "certificate is for another name"),
    ("ip-only", "upstream.test", "certificate_name", "certificate is for another name"),
    ("expired", "upstream.test", "certificate_expired", "certificate has expired"),
    ("not-yet-valid", "upstream.test", "certificate_not_yet_valid",
     "certificate is not yet valid"),
    ("self-signed", "upstream.test", "certificate_untrusted",
     "certificate is from an unknown authority"),
    ("unknown-ca", "upstream.test", "certificate_untrusted",
     "certificate is from an unknown authority"),
    ("common-name", "upstream.test", "certificate_name", "certificate is for another name"),
    ("wildcard-top", "upstream.test", "certificate_name", "certificate is for another name"),
    ("wildcard-all", "upstream.test", "certificate_name", "certificate is for another name"),
    ("wildcard-part", "up.upstream.test", "certificate_name", "certificate is for another name"),
    ("wildcard", "a.b.upstream.test", "certificate_name", "certificate is for another name"),
    ("wildcard", "upstream.test", "certificate_name", "certificate is for another name"),
    ("client-only", "upstream.test", "certificate_invalid", "certificate is not valid"),
]


@pytest.mark.parametrize("certificate, name, cause, text", BAD_CERTIFICATES,
                         ids=[f"{row[0]}-for-{row[1]}" for row in BAD_CERTIFICATES])
def test_E1_bad_certificate_sends_no_query(start_upstream, start_proxy, certificate, name, cause,
                                           text):
    upstream = start_upstream(certificate)
    proxy = start_proxy(upstream.url(name))
    label = f"127.0.0.1:{upstream.port}#{name}"
    assert_refused(proxy, upstream, cause, text, label)


@pytest.mark.parametrize("tls", ["1.2", "1.3"])
def test_E1_bad_certificate_sends_no_query_in_each_version(start_upstream, start_proxy, tls):
    upstream = start_upstream("expired", tls=tls)
    assert_refused(start_proxy(upstream), upstream, "certificate_expired",
                   "certificate has expired")


def test_E1_pin_that_was_revoked_sends_no_query(start_upstream, start_proxy, pki):
    upstream = start_upstream("good")
    proxy = start_proxy({"url": upstream.url(), "pins": [pki["other"].pin]})
    assert_refused(proxy, upstream, "certificate_pin", "certificate matches no configured pin")


def test_E1_trusted_authority_of_one_upstream_is_not_that_of_another(start_upstream, start_proxy,
                                                                    pki):
    upstream = start_upstream("good")
    proxy = start_proxy({"url": upstream.url(), "ca": pki.unknown_ca})
    assert_refused(proxy, upstream, "certificate_untrusted",
                   "certificate is from an unknown authority")


def test_E1_upstream_with_bad_certificate_leaves_the_work_to_a_good_one(start_upstream,
                                                                       start_proxy):
    bad, good = start_upstream("wrong-name"), start_upstream("good")
    proxy = start_proxy(bad, good, config={"strategy": "ordered"})
    for number in range(5):
        reply = proxy.query(f"name{number}.test")
        assert reply.rcode() == dns.rcode.NOERROR
    assert_nothing_leaked(bad, "name0.test")
    assert len(good.queries) == 5
    assert proxy.metric("dnsproxy_upstream_up", upstream=good.label) == 1


def test_E1_certificate_that_is_replaced_by_a_bad_one_ends_the_trust(upstream, proxy, pki):
    assert proxy.query("before.test").rcode() == dns.rcode.NOERROR
    upstream.use(pki["expired"])
    upstream.connections[0].close()
    upstream.wait_for(lambda: upstream.connections[0].end_time)
    before = upstream.application_bytes()
    assert proxy.query(SECRET).rcode() == dns.rcode.SERVFAIL
    assert upstream.application_bytes() == before


@pytest.mark.parametrize("certificate, name", [
    ("good", "upstream.test"), ("good", "127.0.0.1"), ("name-only", "upstream.test"),
    ("ip-only", "127.0.0.1"), ("wildcard", "dns.upstream.test"), ("both", "UPSTREAM.test"),
])
def test_E1_good_certificate_gets_the_query(start_upstream, start_proxy, certificate, name):
    upstream = start_upstream(certificate)
    reply = start_proxy(upstream.url(name)).query(SECRET)
    assert reply.rcode() == dns.rcode.NOERROR
    assert reply.answer[0][0].address == zone.address(SECRET)
    assert upstream.application_bytes() > 0


# What the configuration must not allow

def check_configuration(tmp_path, text):
    path = tmp_path / "dnsproxy.yaml"
    path.write_text(text)
    return subprocess.run([binary(), "check", "-c", str(path)], capture_output=True, text=True,
                          timeout=10, check=False)


def test_E2_upstream_without_name_or_pin_does_not_start():
    result = subprocess.run([binary(), "-u", "tls://127.0.0.1:853", "-l", "127.0.0.1:1",
                             "--admin", "off"], capture_output=True, text=True, timeout=10,
                            check=False)
    assert result.returncode == 1
    assert "127.0.0.1" in result.stderr and "--upstream" in result.stderr


@pytest.mark.parametrize("url", ["udp://127.0.0.1:53", "tcp://127.0.0.1:53", "127.0.0.1",
                                 "127.0.0.1:53#upstream.test"])
def test_E2_upstream_in_clear_text_does_not_start(tmp_path, url):
    result = check_configuration(tmp_path, f"upstreams: ['{url}']\n")
    assert result.returncode == 1
    assert "dnsproxy.yaml:1:13" in result.stderr, result.stderr


@pytest.mark.parametrize("tls", ["1.2", "1.3"])
def test_E2_no_byte_leaves_in_clear_text(start_upstream, start_proxy, tls):
    upstream = start_upstream("good", tls=tls)
    proxy = start_proxy(upstream)
    for number in range(3):
        proxy.query(f"secret-{number}.example.test")
        used = [connection for connection in upstream.connections if connection.queries][-1]
        used.close()  # another is opened at once
        upstream.wait_for(lambda used=used: not used.is_open)
    connections = [connection for connection in upstream.connections if connection.queries]
    assert len(connections) >= 2
    for connection in connections:
        raw = bytes(connection.raw).lower()
        assert raw[0] == 22
        assert b"secret" not in raw
        assert connection.application != b""


def test_E2_no_byte_leaves_in_clear_text_to_a_server_without_tls(upstream, start_proxy):
    upstream.on_accept = lambda connection: connection.stall()
    proxy = start_proxy(upstream, config={"timeouts": {"handshake": "300ms"}})
    assert proxy.query(SECRET).rcode() == dns.rcode.SERVFAIL
    assert_nothing_leaked(upstream)


def test_E3_names_that_share_an_address_share_no_connection_and_no_ticket(start_upstream,
                                                                         start_proxy):
    upstream = start_upstream("good")  # good for one of the two names only
    proxy = start_proxy(upstream.url("upstream.test"), upstream.url("other.test"),
                        config={"strategy": "weighted"})
    for number in range(12):
        assert proxy.query(f"share{number}.test").rcode() == dns.rcode.NOERROR
        if number % 4 == 3:
            closing = upstream.open_connections()
            for connection in closing:
                connection.close()  # another is opened at once
            upstream.wait_for(lambda closing=closing: not any(one.is_open for one in closing))
    others = [c for c in upstream.connections if c.hello and c.hello.server_name == "other.test"]
    owns = [c for c in upstream.connections if c.hello and c.hello.server_name == "upstream.test"]
    assert others and len(owns) >= 3
    assert any(connection.resumed for connection in owns)
    for connection in others:
        assert connection.application == b""
        assert not connection.hello.offers_resumption


# Pins

def test_E4_any_of_several_pins_is_enough(start_upstream, start_proxy, pki):
    upstream = start_upstream("good")
    pins = [pki["other"].pin, pki["good"].pin, pki["expired"].pin]
    proxy = start_proxy({"url": upstream.url(), "pins": pins})
    assert proxy.query("pinned.test").rcode() == dns.rcode.NOERROR


def test_E4_pin_alone_authenticates_and_sends_no_server_name(start_upstream, start_proxy, pki):
    upstream = start_upstream("self-signed")
    proxy = start_proxy({"url": upstream.url(name=None), "pins": [pki["self-signed"].pin]})
    assert proxy.query("pinned.test").rcode() == dns.rcode.NOERROR
    assert upstream.connections[0].hello.server_name is None


def test_E4_wrong_pin_alone_sends_no_query(start_upstream, start_proxy, pki):
    upstream = start_upstream("good")
    proxy = start_proxy({"url": upstream.url(name=None), "pins": [pki["other"].pin]})
    assert_refused(proxy, upstream, "certificate_pin", "certificate matches no configured pin",
                   label=f"127.0.0.1:{upstream.port}")


@pytest.mark.parametrize("certificate", ["wrong-name", "expired", "unknown-ca"])
def test_E4_right_pin_does_not_make_up_for_a_bad_certificate(start_upstream, start_proxy, pki,
                                                            certificate):
    upstream = start_upstream(certificate)
    proxy = start_proxy({"url": upstream.url(), "pins": [pki[certificate].pin]})
    assert proxy.query(SECRET).rcode() == dns.rcode.SERVFAIL
    assert_nothing_leaked(upstream)


@pytest.mark.parametrize("pin", ["", "AAAA", "A" * 43, "A" * 44, "A" * 87 + "=", "!" * 43 + "="])
def test_E4_pin_of_wrong_length_is_a_configuration_error(tmp_path, pin):
    result = check_configuration(
        tmp_path, "upstreams:\n  - url: 'tls://127.0.0.1:853#upstream.test'\n"
                  f"    pins: ['{pin}']\n")
    assert result.returncode == 1
    assert "dnsproxy.yaml:3:12" in result.stderr and "pins" in result.stderr, result.stderr


# Resumption

def reconnect(proxy, upstream, name):
    """Closes the connection in use and asks again; gives the new connection."""
    last = upstream.connections[-1]
    last.close()
    upstream.wait_for(lambda: last.end_time)
    assert proxy.query(name).rcode() == dns.rcode.NOERROR
    return upstream.connections[-1]


@pytest.mark.parametrize("tls", ["1.2", "1.3"])
def test_E5_ticket_is_used_and_a_refused_one_loses_no_query(start_upstream, start_proxy, tls):
    upstream = start_upstream("good", tls=tls)
    proxy = start_proxy(upstream)
    assert proxy.query("first.test").rcode() == dns.rcode.NOERROR
    assert not upstream.connections[0].hello.offers_resumption
    assert reconnect(proxy, upstream, "second.test").resumed
    upstream.forget_tickets()
    refused = reconnect(proxy, upstream, "third.test")
    assert refused.hello.offers_resumption and not refused.resumed
    assert len(upstream.connections) == 3
    assert upstream.names() == ["first.test.", "second.test.", "third.test."]
    handshakes = "dnsproxy_upstream_handshakes_total"
    assert proxy.metric(handshakes, kind="resumed") == 1
    assert proxy.metric(handshakes, kind="full") == 2
    assert proxy.metric("dnsproxy_upstream_failures_total") == 0


def test_E5_connects_that_fail_cost_no_ticket(upstream, proxy):
    assert proxy.query("first.test").rcode() == dns.rcode.NOERROR
    upstream.go_down()
    numbers = itertools.count()

    def ask():
        return proxy.query(f"again{next(numbers)}.test").rcode()
    eventually(lambda: ask() == dns.rcode.SERVFAIL
               and proxy.metric("dnsproxy_upstream_connects_total") > 6)
    upstream.listen()
    eventually(lambda: ask() == dns.rcode.NOERROR)
    assert upstream.connections[-1].resumed


def test_E5_no_early_data_is_offered(upstream, proxy):
    proxy.query("first.test")
    for number in range(3):
        assert reconnect(proxy, upstream, f"again{number}.test").resumed
    assert not any(connection.hello.offers_early_data for connection in upstream.connections)


def test_E5_server_without_tickets_gets_full_handshakes(start_upstream, start_proxy):
    upstream = start_upstream("good", tickets=0, tls="1.3")
    proxy = start_proxy(upstream)
    proxy.query("first.test")
    assert not reconnect(proxy, upstream, "second.test").hello.offers_resumption


# Names and addresses

def test_E6_certificate_with_an_address_alone_gets_no_server_name(start_upstream, start_proxy):
    upstream = start_upstream("ip-only")
    proxy = start_proxy(upstream.url("127.0.0.1"))
    assert proxy.query("address.test").rcode() == dns.rcode.NOERROR
    assert upstream.connections[0].hello.server_name is None


def test_E6_server_name_is_sent_when_known(upstream, proxy):
    proxy.query("name.test")
    assert upstream.connections[0].hello.server_name == "upstream.test"
    assert "dot" in upstream.connections[0].hello.alpn
    assert min(upstream.connections[0].hello.versions) >= 0x0303  # RFC 8996: TLS 1.2 or newer


@pytest.mark.ipv6
def test_E6_address_of_version_6_in_the_certificate(start_upstream, start_proxy):
    upstream = start_upstream("good", address="::1")
    proxy = start_proxy(upstream.url("::1"))
    assert proxy.query("address.test").rcode() == dns.rcode.NOERROR
    assert upstream.connections[0].hello.server_name is None


# Handshakes that go wrong

HANDSHAKE_FAULTS = {
    "silent": lambda connection: connection.stall(),
    "garbage": lambda connection: connection.send_tcp(b"SSH-2.0-OpenSSH_9.2\r\n" + b"x" * 500),
    "http": lambda connection: connection.send_tcp(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
    "alert": lambda connection: connection.send_tcp(b"\x15\x03\x03\x00\x02\x02\x28"),
    "half-record": lambda connection: (connection.send_tcp(b"\x16\x03\x03\x40\x00\x02\x00"),
                                       connection.stall()),
    "close": lambda connection: connection.close(),
    "reset": lambda connection: connection.reset(),
}


@pytest.mark.parametrize("fault", HANDSHAKE_FAULTS)
def test_E7_bad_handshake_is_bounded_and_another_upstream_takes_the_load(start_upstream,
                                                                       start_proxy, fault):
    bad, good = start_upstream(), start_upstream()
    bad.on_accept = HANDSHAKE_FAULTS[fault]
    proxy = start_proxy(bad, good, config={"strategy": "ordered",
                                           "timeouts": {"handshake": "400ms"}})
    started = time.monotonic()
    assert proxy.query("bounded.test").rcode() == dns.rcode.NOERROR
    assert time.monotonic() - started < 3
    started = time.monotonic()
    for number in range(10):
        assert proxy.query(f"after{number}.test").rcode() == dns.rcode.NOERROR
    assert time.monotonic() - started < 3  # 4 if each waited for the handshake
    assert_nothing_leaked(bad, "bounded.test")
    bad.wait_for(lambda: not bad.open_connections())


def test_E7_hello_retry_request_is_answered(start_upstream, start_proxy):
    upstream = start_upstream("good", tls="1.3", curve="secp521r1")
    assert start_proxy(upstream).query("retry.test").rcode() == dns.rcode.NOERROR


def test_E7_tls_1_2_alone_is_enough(start_upstream, start_proxy):
    upstream = start_upstream("good", tls="1.2")
    assert start_proxy(upstream).query("old.test").rcode() == dns.rcode.NOERROR
    assert upstream.connections[0].version == "TLSv1.2"


def test_E7_server_without_alpn_is_accepted(start_upstream, start_proxy):
    upstream = start_upstream("good", alpn=())
    assert start_proxy(upstream).query("plain.test").rcode() == dns.rcode.NOERROR
    assert upstream.connections[0].alpn is None


def test_E7_long_certificate_chain_is_read(start_upstream, start_proxy):
    upstream = start_upstream("long-chain")
    assert start_proxy(upstream).query("long.test").rcode() == dns.rcode.NOERROR


def test_E7_endless_certificate_chain_is_bounded(start_upstream, start_proxy):
    upstream = start_upstream("endless-chain")
    started = time.monotonic()
    assert_refused(start_proxy(upstream), upstream, "tls", "TLS handshake failed")
    assert time.monotonic() - started < 3.0


def test_E7_handshake_of_one_byte_at_a_time_succeeds(start_upstream, start_proxy):
    upstream = start_upstream()

    def one_byte_at_a_time(connection):
        connection.write_size = 1
    upstream.on_accept = one_byte_at_a_time
    assert start_proxy(upstream).query("slow.test").rcode() == dns.rcode.NOERROR


def test_E7_alert_after_the_handshake_loses_no_query(upstream, proxy):
    """TLS 1.3 tells a client of trouble only after the client believes itself connected."""
    def hook(query):
        if query.connection.number == 0:
            query.connection.send_tcp(b"\x17\x03\x03\x00\x20" + b"\xaa" * 32)  # cannot be decrypted
        else:
            Query.answer(query)
    upstream.on_query = hook
    assert proxy.query("alert.test").rcode() == dns.rcode.NOERROR
    assert len(upstream.connections) <= 3  # one takes the place of that which ended
