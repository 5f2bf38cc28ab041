# SPDX-License-Identifier: Apache-2.0
"""What the scenario tests are written with, where a slow machine or a failure tries it: set-ups wait for what they
need, and leave no process behind when it does not come."""

import os
import stat
import sys

import pytest

from support.authoritative import Nsd
from support.plain import PlainServer
from support.proxy import Proxy, TcpClient, make_query

# As NSD begins: it listens, then takes connections and is silent, then has no zone yet.
SLOW_SERVER = """\
#!{python}
import re, socket, sys, time, dns.message
port = int(re.search("@([0-9]+)", open(sys.argv[-1]).read())[1])
listener = socket.create_server(("127.0.0.1", port))
silent, _ = listener.accept()
time.sleep(2.5)
for has_zone in {rounds}:
    client, _ = listener.accept()
    query = dns.message.from_wire(client.recv(65535)[2:])
    reply = dns.message.make_response(query)
    if has_zone:
        reply.answer = [dns.rrset.from_text(query.question[0].name, 60, "IN", "SOA", ". . 1 1 1 1 1")]
    wire = reply.to_wire()
    client.sendall(len(wire).to_bytes(2, "big") + wire)
    client.close()
time.sleep(60)
"""


def slow_server(tmp_path, rounds, start_limit):
    """A kind of server that behaves so, and remembers itself in `started`."""
    program = tmp_path / "slow-server"
    program.write_text(SLOW_SERVER.format(python=sys.executable, rounds=rounds), encoding="utf-8")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)

    class Slow(Nsd):
        started = []

        def __init__(self, *arguments, **how):
            self.started.append(self)
            super().__init__(*arguments, **how)

    Slow.program, Slow.start_limit = str(program), start_limit
    return Slow


def start(kind, pki, tmp_path):
    directory = tmp_path / "server"
    directory.mkdir()
    return kind(pki["good"], {"zone.test": "none"}, directory=directory)


def test_server_is_waited_for_until_it_has_its_zones(pki, tmp_path):
    server = start(slow_server(tmp_path, [False, True], 60.0), pki, tmp_path)
    assert server.process.poll() is None
    server.stop()


def test_server_that_never_has_its_zones_is_stopped(pki, tmp_path):
    kind = slow_server(tmp_path, [], 0.1)
    with pytest.raises(AssertionError):
        start(kind, pki, tmp_path)
    assert kind.started[0].process.poll() is not None


def test_proxy_that_does_not_become_ready_is_stopped(tmp_path, monkeypatch):
    silent = tmp_path / "silent"
    silent.write_text("#!/bin/sh\nexec sleep 60\n", encoding="ascii")
    silent.chmod(0o755)
    monkeypatch.setenv("DNSPROXY", str(silent))
    monkeypatch.setattr("support.proxy.START_LIMIT", 0.1)
    started = []
    monkeypatch.setattr(Proxy, "_read_log", lambda self, stream: started.append(self.process))
    with pytest.raises(AssertionError):
        Proxy(["tls://127.0.0.1:853#upstream.test"], directory=tmp_path)
    assert started[0].poll() is not None


def test_tool_that_says_something_else_is_stopped():
    sys.path.append(os.path.join(os.path.dirname(__file__), "..", "..", "bench"))
    import servers
    tool = servers.Process(["sh", "-c", "echo other; exec sleep 60"], None, stdout=-1)
    with pytest.raises(RuntimeError):
        tool.wait_line("ready")
    assert tool.process.poll() is not None


def test_plain_server_outlives_a_client_that_resets():
    server = PlainServer({"a.test.": ["192.0.2.1"]})
    client = TcpClient((server.address, server.port))
    client.reset()
    with TcpClient((server.address, server.port)) as client:
        client.send(make_query("a.test"))
        assert client.receive().answer
    server.stop()
