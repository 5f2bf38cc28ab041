# SPDX-License-Identifier: Apache-2.0
"""What happens when something runs out: descriptors, queries, patience of the admin server."""

import contextlib
import os
import re
import resource
import select
import signal
import socket
import subprocess
import threading
import time

import dns.flags
import dns.message
import dns.rcode
import pytest

from support import ports, zone
from support.network import ADDRESS
from support.proxy import binary, extended_errors, make_query
from support.upstream import fast_address, fast_answer, never
from support.waiting import eventually
from test_client_udp import BAD


def used_seconds(proxy):
    """Processor time of the process so far."""
    with open(f"/proc/{proxy.process.pid}/stat", encoding="ascii") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def descriptors(proxy):
    return [int(name) for name in os.listdir(f"/proc/{proxy.process.pid}/fd")]


# I1: descriptors

@contextlib.contextmanager
def no_descriptors(proxy):
    """The process may open none beyond those it has."""
    eventually(lambda: not ports.connections(proxy.admin_port), timeout=6)
    before = resource.prlimit(proxy.process.pid, resource.RLIMIT_NOFILE)
    # The lowest free number is the first it would get.
    have = set(descriptors(proxy))
    limit = next(number for number in range(len(have) + 1) if number not in have)
    resource.prlimit(proxy.process.pid, resource.RLIMIT_NOFILE, (limit, before[1]))
    try:
        yield
    finally:
        resource.prlimit(proxy.process.pid, resource.RLIMIT_NOFILE, before)


def test_I1_no_descriptors_for_clients(proxy):
    proxy.query("warm.test")
    with contextlib.ExitStack() as stack:
        live = stack.enter_context(proxy.tcp())
        live.send(make_query("live.test"))
        assert live.receive().rcode() == dns.rcode.NOERROR
        with no_descriptors(proxy):
            waiting = [stack.enter_context(proxy.tcp()) for _ in range(20)]
            for number, client in enumerate(waiting):
                client.send(make_query(f"waiting{number}.test"))
            proxy.wait_for_log("accept_failed")
            started, processor = time.monotonic(), used_seconds(proxy)
            number = 0
            while time.monotonic() - started < 1.2:  # accept is tried again twice in this time
                number += 1
                assert proxy.query(f"udp{number % 10}.test").rcode() == dns.rcode.NOERROR
                live.send(make_query(f"tcp{number % 10}.test"))
                assert live.receive().rcode() == dns.rcode.NOERROR
                select.select([], [], [], 0.05)
            assert used_seconds(proxy) - processor < 0.6, "it spins"
            assert not select.select([waiting[0].socket], [], [], 0)[0]
            assert len(proxy.logs("accept_failed")) == 1, "not more than one line in 10 s"
        for client in waiting:
            assert client.receive().rcode() == dns.rcode.NOERROR
    failed = proxy.metric("dnsproxy_tcp_connections_total", result="failed")
    assert 1 <= failed <= 10


def test_I1_no_descriptors_for_upstreams(proxy):
    with no_descriptors(proxy):
        started = time.monotonic()
        reply = proxy.query("no-descriptor.test", timeout=5)
        assert reply.rcode() == dns.rcode.SERVFAIL
        assert extended_errors(reply)
        assert time.monotonic() - started < 4.5
    names = (f"again{number}.test" for number in range(10_000))
    eventually(lambda: proxy.query(next(names)).rcode() == dns.rcode.NOERROR, timeout=3)


def test_I1_descriptors_come_back(proxy):
    proxy.query("warm.test")
    before = len(descriptors(proxy))
    for _ in range(5):
        with contextlib.ExitStack() as stack:
            for number in range(50):
                client = stack.enter_context(proxy.tcp())
                client.send(make_query(f"many{number}.test"))
                if number % 3:
                    assert client.receive().rcode() == dns.rcode.NOERROR
                elif number % 2:
                    client.reset()
    eventually(lambda: len(descriptors(proxy)) == before)
    assert proxy.metric("dnsproxy_tcp_clients") == 0


# limits.queries

@pytest.fixture
def full_proxy(start_proxy, upstream):
    """Ten queries are all it can keep, and they are kept: `held` has them at the upstream."""
    proxy = start_proxy(upstream, config={"limits": {"queries": 10}, "timeouts": {"query": "20s"}})
    proxy.query("cached.test")
    held = proxy.held = []
    upstream.on_query = held.append
    sock = proxy.filler = proxy.udp()
    for number in range(10):
        sock.send(make_query(f"{number:04}.test").to_wire())
    upstream.wait_for(lambda: len(held) == 10)
    with sock:
        yield proxy


def release(proxy, upstream):
    upstream.on_query = fast_answer
    for query in proxy.held:
        fast_answer(query)


def test_K5_limit_of_queries_sends_udp_to_tcp_while_none_is_old(start_proxy, upstream):
    upstream.on_query = never
    proxy = start_proxy(upstream, config={"limits": {"queries": 1000}, "timeouts": {"query": "20s"}})
    with proxy.udp() as sock:
        os.kill(proxy.process.pid, signal.SIGSTOP)  # so that they come at once, however slow this is
        for number in range(3000):
            sock.send(make_query(f"{number:04}.test").to_wire())
        os.kill(proxy.process.pid, signal.SIGCONT)
        for _ in range(100):  # as many as there is room for in any case
            assert is_cut(sock.recv(4096))
        eventually(lambda: sum(proxy.metric(f"dnsproxy_{kind}_total") for kind in ("replies_full", "queries_gave_way"))
                   == 2000)
    assert proxy.metric("dnsproxy_queries_in_flight") == 1000
    assert proxy.metric("dnsproxy_replies_full_total") > 0


def test_K5_those_that_waited_give_way_to_newcomers(full_proxy, upstream):
    """One place is enough for all that are answered soon. Who gave it is told: TC=1 over UDP."""
    time.sleep(0.25)  # 0.2 s of waiting protect them
    upstream.on_query = lambda query: query.name.endswith(".new.test.") and fast_answer(query)
    for number in range(30):
        name = f"{number:04}.new.test"
        assert full_proxy.query(name, tcp=number % 2 == 1).answer[0][0].address == fast_address(f"{number:04}")
        assert full_proxy.metric("dnsproxy_queries_in_flight") == 9
    assert full_proxy.metric("dnsproxy_queries_gave_way_total") == 1
    assert is_cut(full_proxy.filler.recv(4096))
    assert not select.select([full_proxy.filler], [], [], 0)[0]
    release(full_proxy, upstream)


def test_K5_tcp_query_that_gives_way_fails_with_its_cause(start_proxy, upstream):
    upstream.on_query = lambda query: query.name.startswith("held") or fast_answer(query)
    proxy = start_proxy(upstream, config={"limits": {"queries": 4}, "timeouts": {"query": "20s"}})
    with proxy.tcp() as client:
        client.send(*[make_query(f"held{number}.test") for number in range(4)])
        proxy.wait_for_metric("dnsproxy_queries_in_flight", at_least=4)
        time.sleep(0.25)  # 0.2 s of waiting protect them
        client.send(make_query("0001.test"))  # it takes no place of its own client's
        assert proxy.query("0002.test").answer
        reply = client.receive()
        assert reply.question[0].name.to_text() == "held0.test."
        assert reply.rcode() == dns.rcode.SERVFAIL
        assert "gave its place to others" in extended_errors(reply)[0][1]
        assert client.receive().question[0].name.to_text() == "0001.test."
    assert proxy.metric("dnsproxy_queries_gave_way_total") == 1


def test_K5_query_that_is_repeated_has_one_place_and_one_reply(start_proxy, upstream):
    held = []
    upstream.on_query = held.append
    proxy = start_proxy(upstream)
    with proxy.udp() as sock:
        for _ in range(3):
            sock.send(QUERY.to_wire())
        proxy.wait_for_metric("dnsproxy_queries_repeated_total", at_least=2)
        assert proxy.metric("dnsproxy_queries_in_flight") == 1
        upstream.wait_for(lambda: held)
        held[0].answer()
        assert is_answered(sock.recv(4096))
        assert not select.select([sock], [], [], 0.1)[0]


def test_what_the_kernel_has_no_room_for_is_told(start_proxy, upstream):
    sent = 30_000
    proxy = start_proxy(upstream)
    proxy.query("cached.test")
    before = proxy.metric("dnsproxy_queries_total", transport="udp")
    query = make_query("cached.test").to_wire()
    with proxy.udp() as sock:
        os.kill(proxy.process.pid, signal.SIGSTOP)
        for _ in range(sent):
            sock.send(query)
        os.kill(proxy.process.pid, signal.SIGCONT)
        proxy.wait_for_metric("dnsproxy_dropped_total", at_least=1, reason="overflow")
    eventually(lambda: proxy.metric("dnsproxy_queries_total", transport="udp") - before +
               proxy.metric("dnsproxy_dropped_total", reason="overflow") == sent)
    proxy.wait_for_log("udp_queue_full")
    assert proxy.query("cached.test").answer


def test_limit_of_queries_makes_tcp_wait(full_proxy, upstream):
    with full_proxy.tcp() as client, full_proxy.tcp() as other:
        for asking, name in ((client, "0011.test"), (other, "0012.test")):
            asking.send(make_query(name))
        full_proxy.wait_for_metric("dnsproxy_tcp_clients", at_least=2)
        assert len(full_proxy.held) == 10
        release(full_proxy, upstream)
        assert client.receive().question[0].name.to_text() == "0011.test."
        assert other.receive().question[0].name.to_text() == "0012.test."


@pytest.mark.parametrize("tcp", [False, True], ids=["udp", "tcp"])
def test_I4_hits_are_answered_while_no_more_can_be_asked(full_proxy, upstream, tcp):
    for _ in range(20):
        reply = full_proxy.query("cached.test", timeout=2, tcp=tcp)
        assert reply.answer[0][0].address == zone.address("cached.test")
    assert full_proxy.query("cached.test", "ANY").rcode() == dns.rcode.NOERROR
    release(full_proxy, upstream)


def test_I4_flood_of_names_while_upstreams_are_silent(start_proxy, upstream):
    proxy = start_proxy(upstream, config={"limits": {"queries": 100},
                                          "timeouts": {"query": "1s", "request": "500ms"}},
                        environment={"ASAN_OPTIONS": "quarantine_size_mb=1"})
    proxy.query("cached.test")
    upstream.on_query = never
    times = []
    with proxy.udp() as flood:
        flood.setblocking(False)
        for turn in range(60):
            for number in range(50):
                flood.send(make_query(f"random{turn}-{number}.test").to_wire())
            started = time.monotonic()
            assert proxy.query("cached.test", timeout=2).answer
            times.append(time.monotonic() - started)
            assert proxy.metric("dnsproxy_queries_in_flight") <= 100
            if turn == 20:
                before = proxy.memory_bytes()
    assert sorted(times)[len(times) // 2] < 0.2  # each would wait for its turn; a busy machine delays a few
    assert proxy.memory_bytes() - before < 8 << 20
    upstream.on_query = fast_answer
    eventually(lambda: proxy.metric("dnsproxy_queries_in_flight") == 0)
    names = (f"{number:04}.back.test" for number in range(10_000))
    eventually(lambda: proxy.query(next(names)).rcode() == dns.rcode.NOERROR)


# limits.udp-queries-per-address

QUERY = make_query("waits.test")


def ask_from(source, proxy, count):
    """A socket of that client with `count` queries for one name on their way."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.settimeout(6)
    sock.bind((source, 0))
    sock.connect((proxy.address, proxy.port))
    for number in range(count):
        sock.send(number.to_bytes(2, "big") + QUERY.to_wire()[2:])
    return sock


def receive_all(sock, count):
    return [sock.recv(4096) for _ in range(count)]


def is_cut(wire):
    reply = dns.message.from_wire(wire)
    return bool(reply.flags & dns.flags.TC) and not reply.answer and len(wire) <= len(QUERY.to_wire())


def is_answered(wire):
    return bool(dns.message.from_wire(wire).answer)


def test_I5_slow_answer_releases_no_burst_to_one_client(network, start_upstream, start_proxy):
    upstream = start_upstream()
    proxy = start_proxy(upstream, config={"limits": {"udp-queries-per-address": 20},
                                          "timeouts": {"query": "20s"}})
    held = []
    upstream.on_query = held.append
    with ask_from(ADDRESS, proxy, 100) as victim, ask_from("127.0.0.1", proxy, 100) as local:
        assert all(is_cut(wire) for wire in receive_all(victim, 80))
        proxy.wait_for_metric("dnsproxy_queries_in_flight", at_least=120)
        assert proxy.metric("dnsproxy_replies_wait_limited_total") == 80
        upstream.wait_for(lambda: held)
        upstream.on_query = fast_answer
        fast_answer(held[0])
        for sock, count in ((victim, 20), (local, 100)):
            assert all(is_answered(wire) for wire in receive_all(sock, count))
        assert not select.select([victim, local], [], [], 0)[0]
        # Who was answered may wait again.
        victim.send(make_query("again.test").to_wire())
        assert dns.message.from_wire(victim.recv(4096)).answer


def test_I5_client_that_is_sent_to_tcp_is_served_there(network, start_upstream, start_proxy):
    upstream = start_upstream()
    proxy = start_proxy(upstream, config={"limits": {"udp-queries-per-address": 1}})
    held = []
    upstream.on_query = held.append
    with ask_from(ADDRESS, proxy, 2) as client, proxy.tcp(source=ADDRESS) as stream:
        assert is_cut(receive_all(client, 1)[0])
        stream.send(QUERY)
        proxy.wait_for_metric("dnsproxy_queries_in_flight", at_least=2)
        upstream.wait_for(lambda: held)
        upstream.on_query = fast_answer
        fast_answer(held[0])
        assert stream.receive().answer and is_answered(receive_all(client, 1)[0])


def test_I5_answer_after_the_deadline_is_sent_to_nobody(start_proxy, upstream):
    proxy = start_proxy(upstream, config={"timeouts": {"query": "1s", "request": "500ms"}})
    proxy.query("before.test")
    held = []
    upstream.on_query = held.append
    with ask_from("127.0.0.1", proxy, 50) as client:
        replies = [dns.message.from_wire(wire) for wire in receive_all(client, 50)]
        assert {reply.rcode() for reply in replies} == {dns.rcode.SERVFAIL}
        for query in held:
            fast_answer(query)
        upstream.on_query = fast_answer
        assert proxy.query("after.test").answer
        assert not select.select([client], [], [], 0)[0]


def test_A6_A11_flood_of_bad_datagrams(start_proxy, upstream):
    proxy = start_proxy(upstream)
    proxy.query("before.test")  # the first connection takes megabytes
    wires = [wire for _, wire in BAD.values()] + [b"", b"\0" * 11, os.urandom(600)]
    with proxy.udp() as sock:
        for turn in range(100):
            for wire in wires:
                sock.send(wire)
            if turn == 20:
                before = proxy.memory_bytes()
    reply = proxy.query("after.test")
    assert reply.answer[0][0].address == zone.address("after.test")
    assert proxy.memory_bytes() - before < 4 << 20
    assert proxy.metric("dnsproxy_queries_in_flight") == 0
    assert upstream.names() == ["before.test.", "after.test."]


# I7: the admin server

_HELP = re.compile(r"# HELP ([a-z_]+) \S.*")
_TYPE = re.compile(r"# TYPE ([a-z_]+) (counter|gauge|histogram)")
_SAMPLE = re.compile(r'([a-z_]+)(\{[a-z]+="[^"\\\n]*"(,[a-z]+="[^"\\\n]*")*\})? (\S+)')


def test_I7_exposition_is_valid(shared_proxy):
    shared_proxy.query("metrics.test")
    text = shared_proxy.admin("/metrics")[1]
    assert text.endswith("\n")
    kinds, seen, family = {}, set(), None
    for line in text.splitlines():
        if helped := _HELP.fullmatch(line):
            family = helped[1]
            assert family not in kinds, "a family in two places"
        elif typed := _TYPE.fullmatch(line):
            assert typed[1] == family
            kinds[family] = typed[2]
        else:
            sample = _SAMPLE.fullmatch(line)
            assert sample, line
            name = re.sub("_(bucket|sum|count)$", "", sample[1])
            assert family in (sample[1], name) and family in kinds, line
            assert (sample[1], sample[2]) not in seen, "twice: " + line
            seen.add((sample[1], sample[2]))
            float(sample[4])
            if kinds[family] == "counter":
                assert family.endswith("_total") or family.startswith("process_"), line


def test_I7_names_and_addresses_of_clients_are_no_labels(shared_proxy):
    for name in ('evil"} 1\n.test', "secret.test", "nx.secret.test"):
        shared_proxy.query(name.replace("\n", "\\010"))
    text = shared_proxy.admin("/metrics")[1]
    for part in ("evil", "secret", 'client="', 'name="'):
        assert part not in text


def test_I7_clients_of_admin_do_not_disturb_queries(proxy):
    with contextlib.ExitStack() as stack:
        for number in range(100):
            sock = stack.enter_context(socket.create_connection(("127.0.0.1", proxy.admin_port)))
            if number < 30:
                sock.sendall(b"GET /metrics HT"[:number % 15])
        for number in range(50):
            started = time.monotonic()
            assert proxy.query(f"busy{number}.test").rcode() == dns.rcode.NOERROR
            assert time.monotonic() - started < 1
    eventually(lambda: proxy.admin("/ready")[0] == 200)


@pytest.mark.parametrize("request_text", [
    b"GET /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
    b"POST /ready HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999\r\n\r\n",
    b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 5_000 + b"\r\n",
    b"GET /../../etc/passwd HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03" + bytes(200) + b"\r\n\r\n",
], ids=["negative-length", "huge-length", "long-path", "many-headers", "other-file", "tls"])
def test_I7_hostile_requests(shared_proxy, request_text):
    with socket.create_connection(("127.0.0.1", shared_proxy.admin_port), 6) as sock:
        reply = b""
        with contextlib.suppress(ConnectionError):
            sock.sendall(request_text)
            while data := sock.recv(65536):
                reply += data
    assert not reply or re.match(rb"HTTP/1.[01] 4\d\d ", reply), reply[:100]
    assert b"root:" not in reply
    assert b"access-control-allow-origin" not in reply.lower()
    assert shared_proxy.admin("/health")[0] == 200


def test_K5_idle_sockets_on_the_admin_address_are_renewed(proxy):
    address, is_over = ("127.0.0.1", proxy.admin_port), threading.Event()

    def renew():
        """Each as soon as it is closed."""
        with contextlib.ExitStack() as stack:
            poller, sockets = select.epoll(), {}
            stack.callback(poller.close)
            while not is_over.is_set():
                while len(sockets) < 32:
                    sock = stack.enter_context(socket.create_connection(address, 10))
                    poller.register(sock, select.EPOLLIN | select.EPOLLRDHUP)
                    sockets[sock.fileno()] = sock
                for descriptor, _ in poller.poll(0.05):
                    sockets.pop(descriptor).close()

    thread = threading.Thread(target=renew)
    thread.start()
    try:
        eventually(lambda: len(ports.connections(proxy.admin_port)) >= 30)
        for _ in range(5):
            done = subprocess.run([binary(), "health", "--admin", f"127.0.0.1:{proxy.admin_port}"], timeout=30,
                                  capture_output=True, text=True, check=False)
            assert (done.returncode, done.stdout) == (0, "ready\n"), done.stderr
            assert proxy.admin("/ready")[0] == 200
            assert "dnsproxy_queries_total" in proxy.admin("/metrics")[1]
    finally:
        is_over.set()
        thread.join()


def test_I7_admin_can_be_off(start_proxy, upstream):
    proxy = start_proxy(upstream, arguments=["--admin", "off"], wait=False)
    proxy.wait_for_log("started")
    assert proxy.query("off.test").rcode() == dns.rcode.NOERROR
    assert proxy.admin("/health") == (0, "")
