# SPDX-License-Identifier: Apache-2.0
"""`dnsproxy probe`: the table says what the upstream did, and the status whether all is well."""

import os
import re
import subprocess
import time

import dns.message
import dns.rcode
import dns.rrset
import pytest

from support import ports
from support.plain import PlainServer
from support.proxy import binary

TITLES = ["UPSTREAM", "TLS", "CIPHER", "CERTIFICATE", "ALPN", "RESUMES", "PADS", "KEEPALIVE",
          "CONNECT", "HANDSHAKE", "QUERY"]


class Probe:
    """A finished probe: status, rows (one mapping of title to cell for each upstream), notes (the
    indented lines), output."""

    def __init__(self, ca, urls, arguments=(), environment=None):
        command = [binary(), "probe", "--tls-ca", ca, *arguments]
        for url in urls:
            command += ["-u", url]
        clean = {key: value for key, value in os.environ.items() if not key.startswith("DNSPROXY")}
        started = time.monotonic()
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False,
                              env={**clean, **(environment or {})})
        self.seconds = time.monotonic() - started
        self.status = done.returncode
        self.errors = done.stderr
        self.output = done.stdout
        lines = done.stdout.splitlines()
        self.notes = [line.strip() for line in lines if line.startswith("    ")]
        table = [line for line in lines if not line.startswith("    ")]
        self.rows = [self._cells(table[0], line) for line in table[1:]]

    @staticmethod
    def _cells(head, line):
        starts = [re.search(rf"(^|\s){title}(\s|$)", head).start() + bool(index)
                  for index, title in enumerate(TITLES)]
        ends = starts[1:] + [None]
        return {title: line[start:end].strip()
                for title, start, end in zip(TITLES, starts, ends)}


def make_root_answer(query):
    answer = dns.message.make_response(query.message)
    answer.answer.append(dns.rrset.from_text(".", 518400, "IN", "NS", "a.root-servers.net.",
                                             "b.root-servers.net."))
    query.connection.upstream.add_options(query, answer)
    return answer


@pytest.fixture
def start_upstream(start_upstream):
    """An upstream that knows the root's servers."""
    def start(*arguments, **how):
        upstream = start_upstream(*arguments, **how)
        upstream.on_ping = None
        upstream.on_query = lambda query: query.reply(make_root_answer(query))
        return upstream
    return start


@pytest.fixture
def probe(pki):
    return lambda *upstreams, **how: Probe(
        pki.ca, [u.url() if hasattr(u, "url") else u for u in upstreams], **how)


def milliseconds(cell):
    assert cell.endswith(" ms"), cell
    return float(cell.removesuffix(" ms"))


def test_row_tells_what_a_good_upstream_does(probe, start_upstream):
    upstream = start_upstream(tls="1.3")
    upstream.padding = 468
    upstream.keepalive_100ms = 105
    result = probe(upstream)
    assert result.errors == ""
    assert result.status == 0 and result.notes == []
    row, = result.rows
    assert row["UPSTREAM"] == upstream.label
    assert row["TLS"] == "TLSv1.3" and row["CIPHER"].startswith("TLS_")
    assert (row["CERTIFICATE"], row["ALPN"], row["RESUMES"]) == ("ok", "dot", "yes")
    assert (row["PADS"], row["KEEPALIVE"]) == ("yes", "10.5 s")
    for title in ("CONNECT", "HANDSHAKE", "QUERY"):
        assert 0 <= milliseconds(row[title]) < 5000


def test_RFC8467_its_query_is_padded_and_for_the_root(probe, upstream):
    assert probe(upstream).status == 0
    query, = upstream.queries
    assert (query.name, query.type) == (".", "NS")
    assert len(query.raw) % 128 == 0
    assert [connection.resumed for connection in upstream.connections] == [False, True]
    assert upstream.connections[1].application == b""


def test_plain_upstream_shows_what_it_lacks(probe, start_upstream):
    row, = probe(start_upstream(tls="1.2", alpn=(), tickets=0)).rows
    assert row["TLS"] == "TLSv1.2"
    assert (row["ALPN"], row["PADS"], row["KEEPALIVE"]) == ("no", "no", "-")


def test_upstream_without_tickets_does_not_resume(probe, start_upstream):
    result = probe(start_upstream(tls="1.3", tickets=0))
    assert result.rows[0]["RESUMES"] == "no" and result.status == 0


def test_second_connection_that_fails_is_no_failure(probe, upstream):
    upstream.on_accept = lambda connection: connection.number and connection.reset()
    result = probe(upstream)
    assert result.rows[0]["RESUMES"] == "failed" and result.status == 0


@pytest.mark.parametrize("certificate, text", [
    ("expired", "certificate has expired"),
    ("wrong-name", "certificate is for another name"),
    ("unknown-ca", "certificate is from an unknown authority"),
])
def test_E1_bad_certificate_is_named_and_asked_nothing(probe, start_upstream, certificate, text):
    upstream = start_upstream(certificate)
    result = probe(upstream)
    row, = result.rows
    assert result.status == 1
    assert row["CERTIFICATE"] == text
    assert row["QUERY"] == row["CIPHER"] == "-"
    assert result.notes[0].startswith(f"failed: {text}")
    assert f"sha256/{upstream.certificate.pin}" in result.notes[1]
    assert upstream.application_bytes() == 0


def test_one_bad_upstream_does_not_hide_the_good_ones(probe, start_upstream):
    good, bad = start_upstream(), start_upstream("expired")
    closed = f"tls://127.0.0.1:{ports.free_port()}#upstream.test"
    result = probe(good, bad, closed)
    assert result.status == 1
    assert [row["CERTIFICATE"] for row in result.rows] == ["ok", "certificate has expired", "-"]
    assert "failed: connection refused" in result.notes


def test_upstreams_that_say_nothing_take_no_longer_than_one(probe, start_upstream, tmp_path):
    config = tmp_path / "probe.yaml"
    config.write_text("timeouts: {handshake: 1s, query: 1s}\n")
    stalled = [start_upstream() for _ in range(4)]
    for upstream in stalled[:2]:
        upstream.on_accept = lambda connection: connection.stall()
    for upstream in stalled[2:]:
        upstream.on_query = lambda query: None
    result = probe(*stalled, arguments=["-c", str(config)])
    assert result.status == 1
    assert result.notes == ["failed: TLS handshake took too long"] * 2 + [
        "failed: no answer in time"] * 2
    assert result.seconds < 5


def refuse(query):
    answer = make_root_answer(query)
    answer.set_rcode(dns.rcode.REFUSED)
    query.reply(answer)


@pytest.mark.parametrize("on_query, text", [
    (refuse, "upstream answered REFUSED"),
    (lambda query: query.reply(b"\0\1\0"), "malformed answer"),
    (lambda query: query.reply(b"\xff\xff" + make_root_answer(query).to_wire()[2:]),
     "answers that break the protocol"),
    (lambda query: query.connection.close(), "connection closed before the answer"),
    (lambda query: query.connection.reset(), "connection reset before the answer"),
])
def test_answer_that_is_none_fails_the_probe(probe, upstream, on_query, text):
    upstream.on_query = on_query
    result = probe(upstream)
    assert result.status == 1
    assert result.notes == [f"failed: {text}"]
    assert result.rows[0]["CERTIFICATE"] == "ok"
    assert result.rows[0]["RESUMES"] == "-"


def test_trust_file_that_is_missing_is_an_error(upstream):
    result = subprocess.run([binary(), "probe", "--tls-ca", "/nonexistent.pem",
                             "-u", upstream.url()], capture_output=True, text=True, timeout=10,
                            check=False)
    assert result.returncode == 1
    assert "/nonexistent.pem" in result.stderr
    assert upstream.connections == []


def test_host_name_is_looked_up_and_probed(probe, start_upstream):
    upstream = start_upstream()
    bootstrap = PlainServer({"upstream.test.": ["127.0.0.1"]})
    try:
        found = probe(f"tls://upstream.test:{upstream.port}",
                      arguments=["--bootstrap", str(bootstrap)])
    finally:
        bootstrap.stop()
    assert found.status == 0, found.output
    row = found.rows[0]
    assert row["UPSTREAM"] == f"upstream.test:{upstream.port}#upstream.test"
    assert (row["CERTIFICATE"], row["RESUMES"]) == ("ok", "yes")
    assert len(upstream.connections) == 2


def test_host_name_is_looked_up_through_the_other_upstream(probe, start_upstream):
    upstream = start_upstream()

    def hook(query):
        if query.name == ".":
            query.reply(make_root_answer(query))
            return
        answer = dns.message.make_response(query.message)
        if query.type == "A":
            answer.answer.append(dns.rrset.from_text(query.name, 300, "IN", "A", "127.0.0.1"))
        query.reply(answer)
    upstream.on_query = hook
    found = probe(upstream, f"tls://upstream.test:{upstream.port}")
    assert found.status == 0, found.output
    assert [row["CERTIFICATE"] for row in found.rows] == ["ok", "ok"]


def test_host_name_that_cannot_be_looked_up_is_said(probe):
    started = time.monotonic()
    found = probe("tls://upstream.test", arguments=["--bootstrap", f"127.0.0.1:{ports.free_port()}"])
    assert found.status == 1
    assert found.notes == ["failed: its name could not be looked up"]
    assert time.monotonic() - started < 5
