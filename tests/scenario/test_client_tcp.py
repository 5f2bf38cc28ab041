# SPDX-License-Identifier: Apache-2.0
"""What TCP clients do to their connections, and that none of it is felt by anybody else."""

import contextlib
import functools
import itertools
import select
import socket
import struct
import subprocess
import time

import dns.edns
import dns.message
import dns.rcode
import pytest

from support import ports, zone
from support.proxy import Proxy, binary, make_query
from support.upstream import KEEPALIVE, fast_address, fast_answer
from support.waiting import eventually

LOCAL = b"\xff\xff\x10\0\0\1\0\0\0\0\0\0\1x\0\0\1\0\1"  # STATUS: answered at once, NOTIMP


def framed(*messages):
    wires = [message if isinstance(message, bytes) else message.to_wire() for message in messages]
    return b"".join(struct.pack("!H", len(wire)) + wire for wire in wires)


def numbered(name, number, rdtype="A"):
    """A query whose ID is that number."""
    message = make_query(name, rdtype)
    message.id = number
    return message


def receive_all(client, count):
    """{ID: reply}"""
    replies = [client.receive() for _ in range(count)]
    assert None not in replies, f"{replies.index(None)} of {count} replies, then the end"
    return {reply.id: reply for reply in replies}


def exchange_raw(proxy, message):
    with proxy.tcp() as client:
        client.send(message)
        return client.receive_raw()


def let_it_turn(sock):
    """What was sent to the proxy before this has been read by its one worker after it."""
    sock.send(LOCAL)
    sock.recv(4096)


def assert_ends(client, timeout=5.0):
    """The connection ends; a timeout is the time that takes at most. Gives the seconds it took."""
    started = time.monotonic()
    assert client.is_closed_by_peer(timeout), f"still open after {timeout} s"
    return time.monotonic() - started


def assert_serves(proxy, name):
    assert proxy.query(name, tcp=True).answer[0][0].address == zone.address(name)


def assert_at_rest(proxy):
    """No client, no query and no lookup is left."""
    for gauge in ("tcp_clients", "queries_in_flight", "lookups_in_flight", "upstream_in_flight"):
        eventually(lambda name=gauge: proxy.metric(f"dnsproxy_{name}") == 0)


# Messages and segments

def test_B1_query_split_at_every_byte(shared_proxy):
    query = make_query("split.test")
    wire = framed(query)
    expected = shared_proxy.query("split.test", tcp=True).answer
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(shared_proxy.tcp()) for _ in range(1, len(wire))]
        for at, client in enumerate(clients, 1):
            client.socket.sendall(wire[:at])
        let_it_turn(stack.enter_context(shared_proxy.udp()))
        for at, client in enumerate(clients, 1):
            client.socket.sendall(wire[at:])
        for client in clients:
            reply = client.receive()
            assert (reply.id, reply.answer) == (query.id, expected)


def test_B1_queries_byte_by_byte(shared_proxy):
    with shared_proxy.tcp() as client, shared_proxy.udp() as sock:
        for octet in framed(numbered("byte1.test", 1), numbered("byte2.test", 2)):
            client.socket.sendall(bytes([octet]))
            let_it_turn(sock)
        replies = receive_all(client, 2)
    for number in (1, 2):
        assert replies[number].answer[0][0].address == zone.address(f"byte{number}.test")


@pytest.mark.parametrize("count", [2, 3, 1000])
def test_B1_many_queries_in_one_segment(start_proxy, upstream, count):
    upstream.on_query = fast_answer
    proxy = start_proxy(upstream)
    with proxy.tcp() as client:
        for _ in range(2):  # from the upstream, then from the cache
            client.send(*[numbered(f"{number:04}.test", number) for number in range(count)])
            replies = receive_all(client, count)
            for number in range(count):
                assert replies[number].answer[0][0].address == fast_address(f"{number:04}")
    assert len(set(upstream.names())) == count
    assert len(upstream.queries) < 2 * count  # hedges on a busy machine


def test_B1_large_answers_wait_for_a_client_that_reads_late(start_proxy, upstream):
    proxy = start_proxy(upstream)
    count = 15
    with small_client(proxy) as sock:  # one lookup, that all join: a busy machine is slow to make an answer of that size
        sock.sendall(framed(*[make_query("big-60000.large.test", "TXT")] * count))
        proxy.wait_for_metric("dnsproxy_replies_total", at_least=count, rcode="NOERROR")
        got = 0
        while got < count * 58_000:
            data = sock.recv(65536)
            assert data, f"closed after {got} octets"
            got += len(data)


@pytest.mark.parametrize("length", range(12))
def test_B2_frame_shorter_than_a_header_ends_the_connection(shared_proxy, length):
    with shared_proxy.tcp() as client, shared_proxy.tcp() as other:
        client.socket.sendall(struct.pack("!H", length) + bytes(length))
        assert_ends(client)
        other.send(make_query("other.test"))
        assert other.receive().rcode() == dns.rcode.NOERROR


@pytest.mark.parametrize("length", [0, 1, 11])
@pytest.mark.parametrize("name", ["at-once.test", "slow-300ms.before.test"])
def test_B2_what_was_asked_before_a_short_frame_is_answered(shared_proxy, shared_upstream, name,
                                                            length):
    shared_proxy.query("at-once.test")  # is cached
    short = struct.pack("!H", length) + b"x" * length
    behind = numbered(f"behind-{length}.{name}", 3)
    with shared_proxy.tcp() as client:
        client.socket.sendall(framed(numbered(name, 1), numbered(name, 2)) + short + framed(behind))
        replies = receive_all(client, 2)
        assert {reply.rcode() for reply in replies.values()} == {dns.rcode.NOERROR}
        assert set(replies) == {1, 2}
        assert_ends(client)
    assert behind.question[0].name.to_text() not in shared_upstream.names()


def test_B2_frames_of_length_zero_end_in_a_close(shared_proxy):
    seconds = used_seconds(shared_proxy)
    with shared_proxy.tcp() as client:
        with contextlib.suppress(ConnectionError):
            client.socket.sendall(bytes(200_000))
        assert_ends(client)
    assert used_seconds(shared_proxy) - seconds < 0.5


def used_seconds(proxy):
    """Processor time of the process so far."""
    with open(f"/proc/{proxy.process.pid}/schedstat", encoding="ascii") as file:
        main = int(file.read().split()[0])
    with open(f"/proc/{proxy.process.pid}/stat", encoding="ascii") as file:
        fields = file.read().rpartition(")")[2].split()
    return max(main / 1e9, (int(fields[11]) + int(fields[12])) / 100)


@pytest.fixture(scope="module")
def hasty_proxy(pki, tmp_path_factory, shared_upstream):
    """A proxy with short timeouts."""
    timeouts = {"tcp-idle": "600ms", "tcp-message": "400ms", "tcp-send": "500ms"}
    with Proxy([shared_upstream], ca=pki.ca, directory=tmp_path_factory.mktemp("hasty"),
               config={"timeouts": timeouts}, lifetime=120) as proxy:
        yield proxy


@pytest.mark.parametrize("stated", [12, 20, 1000, 65535], ids=["short", "less", "more", "most"])
def test_B2_length_that_lies(hasty_proxy, stated):
    """A short one cuts the message and the rest is read as a length; a long one waits."""
    wire = make_query("length.test").to_wire()
    with hasty_proxy.tcp() as client:
        client.socket.sendall(struct.pack("!H", stated) + wire)
        assert_serves(hasty_proxy, "unaffected.test")
        assert_ends(client, timeout=3)


def test_B3_later_bytes_do_not_extend_the_time_for_a_message(hasty_proxy):
    with hasty_proxy.tcp() as client:
        client.send(make_query("before.test"))
        assert client.receive().rcode() == dns.rcode.NOERROR
        started = time.monotonic()
        for octet in framed(make_query("slow-loris.test")):
            try:
                client.socket.sendall(bytes([octet]))
            except ConnectionError:
                break
            if select.select([client.socket], [], [], 0.1)[0]:
                break
        assert_ends(client)
        assert 0.35 < time.monotonic() - started < 1.5


def test_B3_reads_for_one_message_are_bounded(start_proxy, upstream):
    proxy = start_proxy(upstream, config={"timeouts": {"tcp-message": "60s"}})
    sent = 0
    with proxy.tcp() as client, proxy.udp() as sock:
        client.socket.sendall(b"\xff\xff")
        with contextlib.suppress(ConnectionError):
            while sent < 3000 and not select.select([client.socket], [], [], 0)[0]:
                client.socket.sendall(b"x")
                let_it_turn(sock)
                sent += 1
    assert 500 < sent < 2000, "of a message of 65,535 octets"


# Clients that do not read

def fill(sock, data, seconds=2.0):
    """Sends `data` again and again until the peer takes no more. Gives the octets sent."""
    sock.setblocking(False)
    sent = 0
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not select.select([], [sock], [], 0.2)[1]:
            break
        try:
            sent += sock.send(data)
        except ConnectionError:
            break
    return sent


@contextlib.contextmanager
def small_client(proxy, receive_buffer=4096, source="127.0.0.1"):
    """A client's socket that can hold little."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
        sock.settimeout(5)
        sock.bind((source, 0))
        sock.connect((proxy.address, proxy.port))
        yield sock


def test_B4_client_that_never_reads(start_proxy, upstream):
    proxy = start_proxy(upstream, config={"timeouts": {"tcp-send": "2s"}}, environment={
        "ASAN_OPTIONS": "quarantine_size_mb=1"})  # which would keep what was freed
    proxy.query("big-4000.deaf.test", "TXT", tcp=True)
    proxy.query("other.test")
    query = framed(make_query("big-4000.deaf.test", "TXT"))
    before = proxy.memory_bytes()
    with contextlib.ExitStack() as stack:
        for _ in range(5):
            sock = stack.enter_context(small_client(proxy))
            sent = fill(sock, query * 500)
            assert sent < 10_000 * len(query), "it was read to the end"
        assert proxy.metric("dnsproxy_tcp_clients") == 5
        assert max(unsent for _, unsent in ports.connections(proxy.port)) < 256 << 10
        assert proxy.memory_bytes() - before < 8 << 20
        times = []
        for _ in range(200):
            started = time.monotonic()
            proxy.query("other.test")
            times.append(time.monotonic() - started)
        assert sorted(times)[len(times) // 2] < 0.1  # each would wait; a busy machine delays a few
        eventually(lambda: proxy.metric("dnsproxy_tcp_clients") == 0, timeout=6)
    assert_at_rest(proxy)


def test_K6_long_answer_is_there_once_however_many_wait_for_it(start_proxy, upstream):
    proxy = start_proxy(upstream, environment={"ASAN_OPTIONS": "quarantine_size_mb=1"})
    clients, count = 80, 15
    held = []
    upstream.on_query = held.append
    with contextlib.ExitStack() as stack:
        socks = [stack.enter_context(small_client(proxy)) for _ in range(clients)]
        for number, sock in enumerate(socks):
            sock.sendall(framed(*[numbered("big-60000.many.test", number * count + i, "TXT")
                                  for i in range(count)]))
        proxy.wait_for_metric("dnsproxy_queries_in_flight", at_least=clients * count)
        before = proxy.memory_bytes()
        held[0].answer()
        proxy.wait_for_metric("dnsproxy_replies_total", at_least=clients * count, rcode="NOERROR")
        assert proxy.memory_bytes() - before < 16 << 20  # of 72 MB
        assert len(upstream.queries) == 1
        replies = {}
        for sock in socks[::20]:
            stream = sock.makefile("rb")
            for _ in range(count):
                raw = stream.read(int.from_bytes(stream.read(2), "big"))
                replies[int.from_bytes(raw[:2], "big")] = raw[2:]
    assert set(replies) == {number * count + i for number in range(0, clients, 20) for i in range(count)}
    assert len(set(replies.values())) == 1
    assert dns.message.from_wire(b"\0\0" + replies[0]).answer == held[0].make_answer().answer


def test_K6_long_answer_of_the_cache_is_there_once_however_many_do_not_read_it(start_proxy, upstream):
    proxy = start_proxy(upstream, environment={"ASAN_OPTIONS": "quarantine_size_mb=1"})
    name, clients = "big-65200.many.test", 80  # nearly as long as a message can be
    reply = proxy.query(name, "TXT", tcp=True)
    with contextlib.ExitStack() as stack:
        socks = [stack.enter_context(small_client(proxy)) for _ in range(clients)]
        for sock in socks:
            sock.sendall(framed(make_query(name, "TXT")) * 5)
        proxy.wait_for_metric("dnsproxy_cache_lookups_total", at_least=clients, result="hit")
        assert proxy.metric("dnsproxy_tcp_memory_bytes") < 2 << 20  # of 5 MB
        stream = socks[-1].makefile("rb")
        for _ in range(5):
            got = dns.message.from_wire(stream.read(int.from_bytes(stream.read(2), "big")))
            assert len(got.answer[0]) == len(reply.answer[0])
    assert len(upstream.queries) <= 2  # the second is a hedge of the first, where the upstream is slow


def test_K5_K6_who_does_not_read_gives_way_when_memory_is_short(start_proxy, upstream):
    proxy = start_proxy(upstream, config={"limits": {"tcp-memory": "2MiB"},
                                          "timeouts": {"tcp-send": "60s"}})
    name = "big-60000.short.test"
    reply = proxy.query(name, "TXT", tcp=True)
    with contextlib.ExitStack() as stack:
        reader = stack.enter_context(proxy.tcp())
        names = [f"big-60000.short{number}.test" for number in range(40)]
        for other in names:  # so that what follows is not as slow as the upstream
            proxy.query(other, "TXT", tcp=True)
        for other in names:  # each would have more than 64 KB kept
            stack.enter_context(small_client(proxy)).sendall(framed(make_query(other, "TXT")) * 5)
        evicted = functools.partial(proxy.metric, "dnsproxy_tcp_connections_total", result="evicted")
        eventually(lambda: evicted() > 0 and proxy.metric("dnsproxy_tcp_memory_bytes") <= 2 << 20)
        for _ in range(5):
            reader.send(make_query(name, "TXT"))
            assert reader.receive().answer == reply.answer
        assert evicted() < 40
        proxy.wait_for_log("tcp_memory_short")


def test_K6_one_that_does_not_read_is_kept_while_another_has_many_such(start_proxy, upstream):
    proxy = start_proxy(upstream, config={"limits": {"tcp-memory": "2MiB"},
                                          "timeouts": {"tcp-send": "60s"}})
    names = [f"big-60000.one{number}.test" for number in range(4)]
    with contextlib.ExitStack() as stack:
        def overfill(number):
            other = stack.enter_context(small_client(proxy, source="127.0.1.1"))
            before = proxy.metric("dnsproxy_replies_total", rcode="NOERROR")
            other.sendall(framed(make_query(f"big-60000.other{number}.test", "TXT")) * 2)
            proxy.wait_for_metric("dnsproxy_replies_total", at_least=before + 2, rcode="NOERROR")
        for number in range(16):  # still for longer than the one, who has more than each of them
            overfill(number)
        one = stack.enter_context(small_client(proxy, source="127.0.2.1"))
        one.sendall(framed(*[make_query(name, "TXT") for name in names]))
        for number in range(16, 36):  # which need less than those hold who are still already
            overfill(number)
        assert proxy.metric("dnsproxy_tcp_connections_total", result="evicted") > 0
        assert proxy.metric("dnsproxy_tcp_memory_bytes") <= 2 << 20
        stream = one.makefile("rb")
        replies = [dns.message.from_wire(stream.read(int.from_bytes(stream.read(2), "big"))) for _ in names]
    assert {reply.question[0].name.to_text() for reply in replies} == {name + "." for name in names}


def test_K6_check_prints_the_ceiling_of_the_start_with_its_parts(start_proxy, upstream, tmp_path):
    proxy = start_proxy(upstream, config={"workers": 2, "cache": {"size": "8MiB"},
                                          "limits": {"tcp-memory": "4MiB"}})
    ceiling = int(proxy.wait_for_log("started")["memory_ceiling_bytes"])
    path = tmp_path / f"dnsproxy-{proxy.port}.yaml"
    lines = subprocess.run([binary(), "check", "-c", path], capture_output=True, text=True,
                           check=True).stdout.splitlines()
    assert lines[1] == f"memory: at most {ceiling / (1 << 20):.1f} MiB"
    parts = {line[2:14].strip(): float(line[14:].split()[0])
             for line in lines if line.startswith("  ")}
    assert abs(sum(parts.values()) - ceiling / (1 << 20)) < 0.5
    assert parts["cache"] == 8 and parts["tcp output"] > 2 * 4 and parts["queries"] > 2
    assert proxy.memory_bytes() < ceiling
    assert lines[-1].startswith("and in the kernel")


def test_B4_client_that_reads_slowly_gets_everything(hasty_proxy):
    """It takes longer than timeouts.tcp-send in all, but some octets in each part of that."""
    name, count = "big-60000.slow.test", 100
    size = 2 + len(exchange_raw(hasty_proxy, make_query(name, "TXT")))
    with small_client(hasty_proxy, receive_buffer=65536) as sock:
        sock.sendall(framed(make_query(name, "TXT")) * count)
        got = 0
        started = time.monotonic()
        while got < count * size:
            is_slow = time.monotonic() - started < 1.5
            if is_slow:
                select.select([], [], [], 0.02)
            data = sock.recv(16384 if is_slow else 65536)
            assert data, f"closed after {got} of {count * size} octets"
            got += len(data)


# Clients that go

@pytest.mark.parametrize("how", ["fin", "rst"])
def test_B5_client_goes_with_10000_queries_in_flight(start_proxy, upstream, how):
    held = []
    upstream.on_query = held.append
    proxy = start_proxy(upstream, config={"limits": {"tcp-queries": 10_000}})
    wire = framed(*[numbered(f"{number:05}.test", number) for number in range(10_000)])
    with proxy.tcp() as client:
        client.socket.sendall(wire)
        upstream.wait_for(lambda: len(held) >= 1000)
        assert proxy.metric("dnsproxy_queries_in_flight") >= 1000
        if how == "rst":
            linger = struct.pack("ii", 1, 0)
            client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        else:
            held[0].answer()  # an unread reply, so the close is none in peace
            select.select([client.socket], [], [], 5)
    assert_at_rest(proxy)
    assert proxy.metric("dnsproxy_dropped_total", reason="client_gone") >= 1000
    upstream.on_query = fast_answer
    for query in held:
        fast_answer(query)
    assert proxy.query("late.test").answer[0][0].address == fast_address("late")
    assert_at_rest(proxy)


def test_B5_half_a_query_then_the_end(shared_proxy):
    wire = framed(make_query("half.test"))
    for at in (1, 2, 3, 14, len(wire) - 1):
        with shared_proxy.tcp() as client:
            client.socket.sendall(wire[:at])
            client.socket.shutdown(socket.SHUT_WR)
            assert_ends(client)
    assert_at_rest(shared_proxy)


def test_B6_10000_queries_answered_locally_on_one_connection(shared_proxy):
    shared_proxy.query("cached.test")
    kinds = [make_query("cached.test").to_wire(), make_query("x.test", "AXFR").to_wire(), LOCAL]
    with shared_proxy.tcp() as client:
        asked = read = 0
        data = framed(*kinds) * 3334
        client.socket.setblocking(False)
        while read < 10_002:
            readable, writable, _ = select.select([client.socket],
                                                  [client.socket] if data else [], [], 5)
            assert readable or writable, f"stuck after {read}"
            if writable:
                sent = client.socket.send(data)
                asked, data = asked + sent, data[sent:]
            if readable:
                client.socket.settimeout(5)
                assert client.receive_raw() is not None, f"closed after {read}"
                read += 1
                client.socket.setblocking(False)
    assert asked == len(framed(*kinds)) * 3334


def test_B7_RFC7766_answers_leave_as_they_come(shared_proxy):
    with shared_proxy.tcp() as client:
        client.send(numbered("slow-300ms.order.test", 1), numbered("fast.order.test", 2))
        assert [client.receive().id for _ in range(2)] == [2, 1]


def test_B7_one_id_twice_in_flight(shared_proxy):
    names = ["slow-100ms.twice.test", "slow-50ms.twice.test", "twice.test", "twice.test"]
    with shared_proxy.tcp() as client:
        client.send(*[numbered(name, 7) for name in names])
        replies = [client.receive() for _ in names]
    assert {reply.id for reply in replies} == {7}
    asked = sorted(reply.question[0].name.to_text(omit_final_dot=True) for reply in replies)
    assert asked == sorted(names)
    for reply in replies:
        assert reply.answer[0][0].address == zone.address(reply.question[0].name)


@pytest.mark.parametrize("count", [0, 1, 100])
def test_B8_half_closed_client_gets_its_answers_then_the_end(shared_proxy, count):
    with shared_proxy.tcp() as client:
        client.send(*[numbered(f"slow-100ms.half{number}.test", number)
                      for number in range(count)])
        client.socket.shutdown(socket.SHUT_WR)
        assert len(receive_all(client, count)) == count
        assert client.receive_raw() is None
    assert_at_rest(shared_proxy)
    eventually(lambda: ports.CLOSE_WAIT not in dict(ports.connections(shared_proxy.port)))


# Limits

def test_B9_connections_of_one_address(start_proxy, upstream):
    proxy = start_proxy(upstream, config={"limits": {"tcp-clients-per-address": 3}})
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(proxy.tcp()) for _ in range(3)]
        for client in clients:
            client.send(make_query("first.test"))
            assert client.receive().rcode() == dns.rcode.NOERROR
        with proxy.tcp() as excess:
            assert assert_ends(excess) < 1
        with proxy.tcp(source="127.0.0.2") as other:
            other.send(make_query("other.test"))
            assert other.receive().rcode() == dns.rcode.NOERROR
        clients[0].send(make_query("still.test"))
        assert clients[0].receive().rcode() == dns.rcode.NOERROR
        clients.pop().close()
        eventually(lambda: proxy.metric("dnsproxy_tcp_clients") == 2)
        assert_serves(proxy, "again.test")
    assert proxy.metric("dnsproxy_tcp_connections_total", result="refused") == 1
    assert proxy.metric("dnsproxy_tcp_connections_total", result="accepted") == 5
    assert_at_rest(proxy)


def test_B9_connections_in_all(start_proxy, upstream):
    proxy = start_proxy(upstream, config={"limits": {"tcp-clients": 10}})
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(proxy.tcp(source=f"127.0.1.{number}"))
                   for number in range(1, 41)]
        proxy.wait_for_metric("dnsproxy_tcp_connections_total", at_least=30, result="refused")
        assert proxy.metric("dnsproxy_tcp_clients") == 10
        for client in clients[:10]:
            client.send(make_query("kept.test"))
            assert client.receive().rcode() == dns.rcode.NOERROR
        for client in clients[10:]:
            assert_ends(client)
        assert proxy.query("udp.test").rcode() == dns.rcode.NOERROR
    assert_at_rest(proxy)


def test_K5_B9_idle_connection_of_who_has_most_gives_way(start_proxy, upstream):
    proxy = start_proxy(upstream, config={"limits": {"tcp-clients": 10}})
    held = []
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(proxy.tcp(source="127.0.1.1")) for _ in range(10)]
        for client in clients:
            client.send(make_query("most.test"))
            assert client.receive().rcode() == dns.rcode.NOERROR
        upstream.on_query = held.append
        clients[0].send(make_query("slow.test"))
        upstream.wait_for(lambda: held)
        with proxy.tcp(source="127.0.2.1") as newcomer:
            newcomer.send(make_query("most.test"))
            assert newcomer.receive().rcode() == dns.rcode.NOERROR
            assert_ends(clients[1])
            with proxy.tcp(source="127.0.1.1") as excess:
                assert_ends(excess)
            held[0].answer()
            for client in [clients[0], *clients[2:]]:
                if client is not clients[0]:
                    client.send(make_query("most.test"))
                assert client.receive().rcode() == dns.rcode.NOERROR
    assert proxy.metric("dnsproxy_tcp_connections_total", result="evicted") == 1
    assert proxy.metric("dnsproxy_tcp_connections_total", result="refused") == 1
    assert_at_rest(proxy)


def test_B9_queries_in_flight_of_one_connection(start_proxy, upstream):
    held = []
    upstream.on_query = held.append
    proxy = start_proxy(upstream, config={"limits": {"tcp-queries": 8}})
    with proxy.tcp() as client, proxy.tcp() as other:
        client.send(*[numbered(f"{number:04}.test", number) for number in range(20)])
        upstream.wait_for(lambda: len(held) == 8)
        other.send(make_query("other.test"))
        upstream.wait_for(lambda: len(held) == 9)
        assert held[8].name == "other.test."
        upstream.on_query = fast_answer
        for query in held:
            fast_answer(query)
        assert len(receive_all(client, 20)) == 20
        assert other.receive().rcode() == dns.rcode.NOERROR


def test_B9_queries_of_one_connection_in_all(start_proxy, upstream):
    proxy = start_proxy(upstream, config={"limits": {"tcp-queries-total": 5}})
    with proxy.tcp() as client:
        client.send(*[numbered(f"slow-50ms.total{number}.test", number) for number in range(9)])
        assert sorted(receive_all(client, 5)) == list(range(5))
        assert client.receive_raw() is None
    assert_serves(proxy, "new.test")


def test_B9_age_of_a_connection(start_proxy, upstream):
    proxy = start_proxy(upstream, config={"limits": {"tcp-lifetime": "500ms"}})
    with proxy.tcp() as client:
        started = time.monotonic()
        answered = 0
        while select.select([], [client.socket], [], 0)[1]:
            try:
                client.send(make_query("slow-100ms.ttl-0.age.test"))
                reply = client.receive()
            except ConnectionError:
                break
            if reply is None:
                break
            answered += 1
        assert 0.4 < time.monotonic() - started < 2
    assert answered >= 1  # on a busy machine each takes long


def test_B9_rate_of_new_connections(start_proxy, upstream):
    proxy = start_proxy(upstream, config={"limits": {"tcp-accept-rate": 5}})
    with contextlib.ExitStack() as stack:
        started = time.monotonic()
        for _ in range(50):
            stack.enter_context(proxy.tcp())
        eventually(lambda: proxy.metric("dnsproxy_tcp_connections_total") == 50)
        allowed = 5 * (1 + time.monotonic() - started)
        accepted = proxy.metric("dnsproxy_tcp_connections_total", result="accepted")
        assert 5 <= accepted <= allowed + 1
    eventually(lambda: is_let_in(proxy))


def is_let_in(proxy):
    """Whether a new connection is not refused just now."""
    try:
        return exchange_raw(proxy, LOCAL) is not None
    except ConnectionError:
        return False


# Idle

def test_B10_connection_without_a_query(hasty_proxy):
    with hasty_proxy.tcp() as client:
        assert 0.4 < assert_ends(client) < 2


def test_B10_connection_after_its_last_answer(hasty_proxy):
    with hasty_proxy.tcp() as client:
        for turn in range(3):
            client.send(make_query(f"idle{turn}.test"))
            assert client.receive().rcode() == dns.rcode.NOERROR
            assert not select.select([client.socket], [], [], 0.3)[0], "closed too soon"
        assert assert_ends(client) < 1.5


def test_B10_not_during_an_answer(hasty_proxy):
    with hasty_proxy.tcp() as client:
        client.send(make_query("slow-1200ms.idle.test"))
        assert client.receive().rcode() == dns.rcode.NOERROR
        assert 0.4 < assert_ends(client) < 2


def test_B10_RFC7828_keepalive_says_the_idle_time(hasty_proxy, shared_proxy):
    keepalive = dns.edns.GenericOption(KEEPALIVE, b"")
    for proxy, value in ((hasty_proxy, 6), (shared_proxy, 100)):
        reply = proxy.query("keepalive.test", tcp=True, options=[keepalive])
        [option] = reply.options
        assert (option.otype, option.data) == (KEEPALIVE, struct.pack("!H", value))
        assert proxy.query("keepalive.test", tcp=True).options == ()
        assert proxy.query("keepalive.test", options=[keepalive]).options == ()


@pytest.mark.parametrize("at_a_time", [14, 9, 140], ids=["whole", "in-pieces", "many"])
def test_A2_B10_client_that_only_sends_responses_meets_the_idle_time(hasty_proxy, at_a_time):
    response = struct.pack("!HHHHHHH", 12, 1, 0x8000, 0, 0, 0, 0)
    started = time.monotonic()
    with hasty_proxy.tcp() as client, contextlib.suppress(ConnectionError):
        stream = itertools.cycle(response)
        while not client.is_closed_by_peer(0.05):
            assert time.monotonic() - started < 4, "still open"
            client.socket.sendall(bytes(itertools.islice(stream, at_a_time)))
    assert 0.4 < time.monotonic() - started
    with hasty_proxy.tcp() as client:  # but a query among them is one
        for turn in range(6):
            client.socket.sendall(response + framed(make_query(f"among{turn % 2}.test")))
            assert client.receive().rcode() == dns.rcode.NOERROR
            assert not select.select([client.socket], [], [], 0.2)[0], "closed too soon"
