# SPDX-License-Identifier: Apache-2.0
"""F: what an upstream's stream can do to us, and that no client notices."""

import concurrent.futures
import copy
import itertools
import random
import struct
import threading
import time

import dns.message
import dns.name
import dns.rcode
import dns.rrset
import pytest

from support import zone
from support.proxy import extended_errors, make_query
from support.upstream import (FullListener, Query, fast_address, fast_answer, first, frame,
                              in_reverse, never)
from support.waiting import eventually

AT_ONCE = {"timeouts": {"park": "0"}}  # nobody waits for an upstream to come back
SPARES = 4  # more connections for each that ends with queries on it
FAILURES = "dnsproxy_upstream_failures_total"
UNMATCHED = "dnsproxy_upstream_unmatched_total"

ENDS = {
    "close_notify": lambda connection: connection.close(),
    "fin": lambda connection: connection.close(notify=False),
    "reset": lambda connection: connection.reset(),
}


def assert_right(reply, name):
    assert reply is not None, f"no reply for {name}"
    assert reply.rcode() == dns.rcode.NOERROR, f"{name}: {reply}"
    assert reply.question[0].name == dns.name.from_text(name)
    assert [record.address for record in reply.answer[0]] == [zone.address(name)]


def assert_fails(reply, *texts):
    assert reply.rcode() == dns.rcode.SERVFAIL
    errors = extended_errors(reply)
    assert len(errors) == 1
    for text in texts:
        assert text in errors[0][1], errors


# F1: idle closes

@pytest.mark.parametrize("end", ENDS)
def test_F1_idle_close_is_no_error(upstream, proxy, end):
    assert_right(proxy.query("before.test"), "before.test")
    ENDS[end](upstream.connections[0])
    eventually(lambda: proxy.metric("dnsproxy_upstream_idle_closes_total") == 1)
    assert_right(proxy.query("after.test"), "after.test")
    assert len(upstream.connections) == 2
    assert upstream.names() == ["before.test.", "after.test."]
    assert proxy.metric("dnsproxy_upstream_idle_closes_total") == 1
    assert proxy.metric(FAILURES) == 0
    assert proxy.metric("dnsproxy_upstream_up") == 1
    assert proxy.logs("upstream_failed") == []


@pytest.mark.parametrize("end", ENDS)
def test_F1_close_at_the_moment_of_the_query_is_no_error(upstream, proxy, end):
    """Whether we see the close before or after we write is up to chance."""
    for number in range(30):
        assert_right(proxy.query(f"race{number}.test"), f"race{number}.test")
        ENDS[end](upstream.connections[-1])
    assert proxy.metric("dnsproxy_replies_total", rcode="SERVFAIL") == 0


# F2: closes with queries in flight

def ask_over_udp(proxy, names):
    """Asks all at once from one socket; gives the raw replies, one for each name, and the socket
    to look for more."""
    sock = proxy.udp()
    for number, name in enumerate(names):
        message = make_query(name)
        message.id = number
        sock.send(message.to_wire())
    return sock, [dns.message.from_wire(sock.recv(65535)) for _ in names]


@pytest.mark.parametrize("answered", [0, 4])
@pytest.mark.parametrize("end", ENDS)
def test_F2_close_with_queries_in_flight_loses_none(upstream, proxy, end, answered):
    names = [f"flight{number}.test" for number in range(10)]

    def hook(query):
        connection = query.connection
        if connection.number > 0:
            query.answer()
        elif len(connection.queries) == len(names):
            for early in connection.queries[:answered]:
                early.answer()
            ENDS[end](connection)
    upstream.on_query = hook
    sock, replies = ask_over_udp(proxy, names)
    with sock:
        for reply in replies:
            assert_right(reply, names[reply.id])
        assert sorted(reply.id for reply in replies) == list(range(len(names)))
        assert proxy.metric("dnsproxy_replies_total") == len(names)  # one each, not two
    # On a busy machine the upstream may be so late that it is asked once more.
    hedges = proxy.metric("dnsproxy_upstream_hedges_total")
    # Each is asked alone, or with few others.
    assert 2 <= len(upstream.connections) <= 1 + SPARES + len(names) + hedges
    if end != "reset":  # an RST may overtake answers
        least = 2 * len(names) - answered
        # A hedge that moves away from a handshake is not sent twice.
        upstream.wait_for(lambda: least <= len(upstream.queries) <= least + hedges)


def test_F2_resent_query_keeps_its_first_deadline(upstream, start_proxy):
    def hook(query):
        if query.connection.number == 0:
            query.connection.after(0.6, query.connection.close)
    upstream.on_query = hook
    proxy = start_proxy(upstream, config={"timeouts": {"query": "1s", "request": "900ms"}})
    started = time.monotonic()
    assert_fails(proxy.query("deadline.test"), upstream.label)
    assert 0.95 <= time.monotonic() - started < 1.4
    assert len(upstream.queries) == 2


def test_F2_resent_to_another_upstream(start_upstream, start_proxy):
    flaky, steady = start_upstream(), start_upstream()
    flaky.on_query = lambda query: query.connection.close()
    proxy = start_proxy(flaky, steady, config={"strategy": "ordered"})
    assert_right(proxy.query("moved.test"), "moved.test")
    assert steady.names() == ["moved.test."]


# F3: closes at random

def test_F3_random_closes_under_load_lose_nothing(upstream, proxy):
    order = random.Random(3)
    upstream.on_query = lambda query: query.answer(after=order.choice([0, 0.002, 0.02]))
    lost, answered, is_over = [], [0] * 6, threading.Event()

    def load(lane):
        while not is_over.is_set():
            name = f"load{lane}-{answered[lane]}.test"
            reply = proxy.query(name)
            if reply.rcode() != dns.rcode.NOERROR:
                lost.append((name, extended_errors(reply)))
            answered[lane] += 1
    lanes = [threading.Thread(target=load, args=(lane,)) for lane in range(6)]
    for lane in lanes:
        lane.start()
    closes = 0
    while closes < 12 or sum(answered) < 200:
        time.sleep(order.uniform(0.05, 0.3))
        before = list(answered)
        for connection in upstream.open_connections():
            ENDS[order.choice(list(ENDS))](connection)
            closes += 1
        # No query meets two of them: a third send would be its last (RFC 9520 3.1).
        eventually(lambda: all(now > then for now, then in zip(answered, before)))
    is_over.set()
    for lane in lanes:
        lane.join()
    assert lost == []
    assert len(set(upstream.names())) > 100
    assert proxy.metric("dnsproxy_lookups_retried_total") > 0, "no close met a query"


# F4: connections that never come to anything

CONNECT_FAULTS = {
    "accept-then-close": lambda connection: connection.close(),
    "accept-then-reset": lambda connection: connection.reset(),
    "close-after-hello": lambda connection: (connection.stall(),
                                             connection.after(0.02, connection.close)),
}


@pytest.mark.parametrize("fault", CONNECT_FAULTS)
def test_F4_accept_then_close_is_not_hammered(upstream, start_proxy, fault):
    upstream.on_accept = CONNECT_FAULTS[fault]
    proxy = start_proxy(upstream, config=AT_ONCE)
    assert_fails(proxy.query("first.test"), upstream.label)
    assert len(upstream.connections) <= 2
    started = time.monotonic()
    replies = proxy.ask_all([make_query(f"burst{number}.test") for number in range(200)],
                            connections=4)
    assert all(reply.rcode() == dns.rcode.SERVFAIL for reply in replies)
    elapsed = time.monotonic() - started
    assert elapsed < 5.0  # at once, and not at their deadlines one after the other, however busy the machine
    # Quickly at first, since all are down: eleven times in the first second.
    assert len(upstream.connections) <= 2 + 12 + elapsed / 0.2
    assert len(proxy.logs("upstream_failed")) <= 2 + elapsed


def test_F4_connection_that_ends_after_each_query_is_not_hammered(upstream, proxy):
    """The handshake succeeds, so that only the missing answers tell that something is wrong."""
    upstream.on_query = lambda query: query.connection.close()
    for number in range(20):
        assert proxy.query(f"close{number}.test").rcode() == dns.rcode.SERVFAIL
    assert len(upstream.connections) <= 6 * 20  # those that ended are replaced, and spares and lanes are opened
    assert max(map(upstream.names().count, upstream.names())) <= 3  # RFC 9520 3.1


# F5, F6: silence, and which timer sees it

def test_F5_peer_that_vanishes_under_load_is_left_for_another_connection(upstream, start_proxy):
    proxy = start_proxy(upstream, config={"timeouts": {"request": "500ms"}})
    assert_right(proxy.query("warm.test"), "warm.test")
    vanished = upstream.connections[0]
    vanished.stall()
    for number in range(20):  # new queries every 50 ms do not postpone the discovery
        later = proxy.ask_later(f"load{number}.test")
        started = time.monotonic()
        if number == 0:
            first_reply, first_asked = later, started
        time.sleep(0.05)
    assert_right(first_reply(), "load0.test")
    assert time.monotonic() - first_asked < 2.0
    assert_right(later(), "load19.test")
    upstream.wait_for(lambda: not vanished.is_open)
    assert 2 <= len(upstream.connections) <= 2 + 2 * SPARES
    assert proxy.metric(FAILURES, cause="request_timeout") >= 1


def test_F6_connect_timer(start_proxy):
    with FullListener() as full:
        proxy = start_proxy(full, config={"timeouts": {"connect": "300ms", "handshake": "3s",
                                                       "request": "3s", "park": "0"}})
        started = time.monotonic()
        assert_fails(proxy.query("connect.test"), full.label, "no answer to the TCP connect")
        assert 0.25 < time.monotonic() - started < 1.2
        assert proxy.metric(FAILURES, cause="connect_timeout", upstream=full.label) >= 1


def test_F6_handshake_timer(upstream, start_proxy):
    upstream.on_accept = lambda connection: connection.stall()
    proxy = start_proxy(upstream, config={"timeouts": {"connect": "3s", "handshake": "300ms",
                                                       "request": "3s", "park": "0"}})
    started = time.monotonic()
    assert_fails(proxy.query("handshake.test"), upstream.label, "TLS handshake took too long")
    assert 0.25 < time.monotonic() - started < 1.2
    assert proxy.metric(FAILURES, cause="handshake_timeout") >= 1


def test_F6_request_timer(upstream, start_proxy):
    upstream.on_query = never
    proxy = start_proxy(upstream, config={"timeouts": {"connect": "3s", "handshake": "3s",
                                                       "request": "300ms", "park": "0"}})
    started = time.monotonic()
    assert_fails(proxy.query("request.test"), upstream.label, "no answer in time")
    # It hangs, and what is asked alone is waited for (K8): no longer than a query's own time, 4 s.
    assert 0.25 < time.monotonic() - started < 4.2
    assert proxy.metric(FAILURES, cause="request_timeout") >= 1
    assert len(upstream.queries) <= 3  # RFC 9520 3.1


def test_F6_idle_connection_outlives_the_request_timer(upstream, start_proxy):
    proxy = start_proxy(upstream, config={"timeouts": {"request": "150ms", "connect": "150ms",
                                                       "handshake": "150ms"}})
    assert_right(proxy.query("before.test"), "before.test")
    time.sleep(0.6)  # the idle time is what is tested
    assert_right(proxy.query("after.test"), "after.test")
    assert len(upstream.connections) == 1


def test_F6_idle_timer_closes_without_failure(upstream, start_proxy):
    proxy = start_proxy(upstream, config={"timeouts": {"upstream-idle": "200ms"}})
    assert_right(proxy.query("idle.test"), "idle.test")
    connection = upstream.connections[0]
    upstream.wait_for(lambda: connection.end_time, timeout=2)
    assert connection.end == "close_notify"
    assert connection.end_time - connection.queries[0].time >= 0.19
    eventually(lambda: proxy.metric("dnsproxy_upstream_idle_closes_total") == 1)
    assert proxy.metric(FAILURES) == 0
    assert_right(proxy.query("again.test"), "again.test")


# F7, F8: how bytes are cut

@pytest.fixture(scope="module")
def cut(shared_upstream, shared_proxy):
    """Asks with on_query replaced, and expects the right reply, and that the connection it came over stays."""
    numbers = itertools.count(100)

    def ask(hook):
        name = f"cut{next(numbers)}.test"
        used = []

        def keep_and_cut(query):
            used.append(query.connection)
            hook(query)
        shared_upstream.on_query = keep_and_cut
        try:
            assert_right(shared_proxy.query(name), name)
        finally:
            shared_upstream.on_query = Query.answer
        # Others may be closed meanwhile: where the machine stalls, a connection is silent and is replaced.
        assert any(connection.is_open for connection in used)
    return ask


def send_cut(query, data, offsets):
    """Each part in a TLS record and a segment of its own."""
    parts = [data[start:end] for start, end in zip([0, *offsets], [*offsets, len(data)])]
    for number, part in enumerate(parts):
        query.connection.after(number * 0.002, lambda part=part: query.connection.send(part))


def test_F8_frame_split_at_each_offset(cut):
    lengths = set()

    def split_at(offset):
        def hook(query):
            data = frame(query.make_answer())
            lengths.add(len(data))
            send_cut(query, data, [offset])
        return hook
    cut(split_at(1))
    for offset in range(2, lengths.pop()):
        cut(split_at(offset))


def test_F8_frame_over_five_records(cut):
    def hook(query):
        data = frame(query.make_answer())
        send_cut(query, data, [len(data) * part // 5 for part in range(1, 5)])
    cut(hook)


def test_F7_records_of_one_byte(cut):
    def hook(query):
        query.connection.record_size = 1
        query.answer()
        query.connection.record_size = 16384
    cut(hook)


def test_F7_one_byte_in_each_write(cut):
    def hook(query):
        query.connection.write_size = 1
        query.answer()
        query.connection.after(0.05, lambda: setattr(query.connection, "write_size", 1 << 30))
    cut(hook)


def test_F8_hundred_frames_in_one_record(upstream, proxy):
    names = [f"batch{number}.test" for number in range(100)]
    kept = []
    proxy.query("slow-500ms.warm.test")  # so that none of these counts as late and is asked twice

    def hook(query):
        kept.append(frame(query.make_answer()))
        if len(kept) == len(names):
            query.connection.send(b"".join(kept))
    upstream.on_query = hook
    replies = proxy.ask_all([make_query(name) for name in names], connections=4)
    for reply, name in zip(replies, names):
        assert_right(reply, name)
    assert sum(map(len, kept)) < 16384
    assert upstream.connections[0].is_open


def test_F8_longest_frame(upstream, proxy):
    def hook(query):
        answer = query.make_answer()
        answer.use_edns(False)
        answer = answer.to_wire()
        # One record more, of a private type, fills the message to its last octet.
        room = 65535 - len(answer) - 12
        answer = answer[:6] + b"\0\2" + answer[8:]
        query.reply(answer + b"\xc0\x0c" + struct.pack("!HHIH", 65280, 1, 300, room) + b"x" * room)
    upstream.on_query = hook
    reply = proxy.query("longest.test", tcp=True, edns=False)
    assert_right(reply, "longest.test")
    assert len(reply.answer) == 2
    assert len(reply.to_wire(max_size=65535)) == 65535


def ask_two(proxy, upstream, message):
    """`beside.test` is in flight when `short.test` is answered by `message`, a function of that query; what is told of
    `short.test`, as its future does."""
    asked = []

    def hook(query):
        asked.append(query)
        if len(asked) == 2:
            short, beside = sorted(asked, key=lambda one: one.name != "short.test.")
            short.reply(message(short))
            beside.connection.after(0.05, beside.answer)
    upstream.on_query = first(2, hook)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        short, beside = (pool.submit(proxy.query, name) for name in ("short.test", "beside.test"))
        assert_right(beside.result(), "beside.test")
        return short.result()


@pytest.mark.parametrize("length", range(2, 12))
def test_F8_frame_shorter_than_a_header_costs_its_own_request_alone(upstream, proxy, length):
    reply = ask_two(proxy, upstream, lambda query: query.raw[:length])
    assert_right(reply, "short.test")
    assert set(upstream.names()) == {"beside.test.", "short.test."}
    assert upstream.names().count("short.test.") >= 2  # what is late on a busy machine is hedged, too
    assert all(connection.is_open for connection in upstream.connections)
    assert proxy.metric(FAILURES, cause="malformed_answer") == 1
    assert proxy.metric(FAILURES) == 1


@pytest.mark.parametrize("length", range(2))
def test_F8_frame_shorter_than_an_id_is_nobodys(start_upstream, start_proxy, length):
    upstream, other = start_upstream(), start_upstream()
    proxy = start_proxy(upstream, other, config={"strategy": "ordered"})
    reply = ask_two(proxy, upstream, lambda query: query.raw[:length])
    assert_right(reply, "short.test")  # asked elsewhere, as what is late
    assert other.names() == ["short.test."]
    assert len(upstream.connections) == 1
    assert proxy.metric(UNMATCHED) == 1
    assert proxy.metric(FAILURES) == 0


@pytest.mark.parametrize("kept", [1, 2, 20])
@pytest.mark.parametrize("end", ENDS)
def test_F8_partial_frame_then_the_end_is_sent_again(upstream, proxy, end, kept):
    def partial(query):
        query.connection.send(frame(query.make_answer())[:kept])
        query.connection.after(0.01, lambda: ENDS[end](query.connection))
    upstream.on_query = first(1, partial)
    upstream.on_probe = lambda probe: None  # its answer would go on with the frame
    assert_right(proxy.query("partial.test"), "partial.test")
    assert upstream.names() == ["partial.test."] * 2


def test_F7_frames_of_ours_survive_a_window_that_opens_and_shuts(start_upstream, start_proxy):
    upstream = start_upstream(receive_buffer=2048)
    upstream.on_open = lambda connection: connection.pause_reading()
    proxy = start_proxy(upstream, config={"timeouts": {"request": "3s"},
                                          "limits": {"upstream-connections": 1}})
    names = [f"window{number}." + "x" * 60 + ".test" for number in range(600)]
    replies = []
    client = threading.Thread(target=lambda: replies.extend(
        proxy.ask_all([make_query(name) for name in names], connections=8)))
    client.start()
    eventually(lambda: proxy.metric("dnsproxy_upstream_in_flight") == len(names))
    connection = upstream.connections[0]
    while client.is_alive():  # a gulp at a time
        connection.resume_reading()
        connection.after(0.001, connection.pause_reading)
        client.join(0.003)
    for reply, name in zip(replies, names):
        assert_right(reply, name)
    assert len(replies) == len(names)
    assert upstream.connections == [connection]
    assert sorted(upstream.names()) == sorted(name + "." for name in names)


# F9, F10: identifiers

def ask_numbers(proxy, total):
    """Asks for as many names that are numbers over one TCP connection, to be answered by
    fast_answer, as fast as Python can; gives how many replies were wrong."""
    tail = b"\x04many\x04test\0\0\1\0\1"
    wrong = 0
    with proxy.tcp(timeout=60) as client:
        def write():
            for start in range(0, total, 100):
                client.send(*(struct.pack("!HHHHHH", number & 0xffff, 0x100, 1, 0, 0, 0)
                              + b"\x08%08d" % number + tail
                              for number in range(start, start + 100)))
        writer = threading.Thread(target=write)
        writer.start()
        stream = client.socket.makefile("rb", buffering=1 << 16)
        for _ in range(total):
            raw = stream.read(int.from_bytes(stream.read(2), "big"))
            number = int(raw[13:21])
            # The ID, the question and the record must belong to one another.
            if raw[:2] != struct.pack("!H", number & 0xffff) or raw[-4:] != raw[13:17]:
                wrong += 1
        writer.join()
    return wrong


def test_F9_more_than_65536_queries_never_share_an_identifier(upstream, start_proxy):
    """Answers come late and out of order, so that many identifiers are in flight at once."""
    total, window = 66_000, 400
    in_flight, collisions = set(), []
    order = random.Random(1)
    kept = []

    def hook(query):
        key = query.connection.number, query.id
        if key in in_flight:
            collisions.append(key)
        in_flight.add(key)
        kept.append(query)
        if len(kept) >= window // 2 or len(upstream.queries) + window > total:
            order.shuffle(kept)
            for one in kept:
                in_flight.discard((one.connection.number, one.id))
                fast_answer(one)
            kept.clear()
    upstream.on_query = hook
    proxy = start_proxy(upstream, config={
        "cache": {"size": 0}, "limits": {"tcp-queries": 900, "upstream-connections": 1},
        "timeouts": {"query": "30s", "request": "20s"}})
    assert ask_numbers(proxy, total) == 0
    assert collisions == []
    assert len(upstream.queries) >= total  # hedges on a busy machine
    assert len(upstream.connections) <= 2


def test_F9_as_many_as_may_wait_have_an_identifier_each(upstream, start_proxy):
    proxy = start_proxy(upstream, config={
        "limits": {"queries": 16, "upstream-requests": 8, "upstream-connections": 2},
        "timeouts": {"query": "2s", "request": "2s"}})
    proxy.query("warm.test")
    upstream.wait_for(lambda: upstream.probes)
    upstream.on_query = never
    held = [proxy.ask_later(f"held{number}.test") for number in range(16)]
    upstream.wait_for(lambda: len(upstream.queries) == 1 + 16)
    assert len({query.id for query in upstream.connections[0].queries[1:]}) == 8
    for query in upstream.queries[1:]:
        query.answer()
    for number, reply in enumerate(held):
        assert_right(reply(), f"held{number}.test")
    assert len(upstream.connections) == 2


def test_F10_late_answer_matches_no_new_query(upstream, start_proxy):
    late = []

    def hook(query):
        if query.raw[13:14].isdigit():
            fast_answer(query)
        elif query.name == "late.test.":
            late.append(query)
        else:
            query.answer()
    upstream.on_query = hook
    proxy = start_proxy(upstream, config={
        "timeouts": {"query": "6s", "request": "5s"}, "cache": {"size": 0},
        "limits": {"tcp-queries": 500, "upstream-connections": 1}})
    result = proxy.ask_later("late.test")
    upstream.wait_for(lambda: late)
    connection = late[0].connection
    for number in range(120):  # answers to others keep the connection alive
        assert_right(proxy.query(f"busy{number}.test"), f"busy{number}.test")
        time.sleep(0.04)
    assert_fails(result())
    taken = {query.id for query in late if query.connection is connection}
    # Enough to use every other ID once.
    seen = len(connection.queries)
    assert ask_numbers(proxy, 66_000) == 0
    assert not taken & {query.id for query in connection.queries[seen:]}
    before = proxy.metric(UNMATCHED)
    asked = [query for query in late if query.connection is connection]
    assert asked
    for query in asked:
        query.answer()
    eventually(lambda: proxy.metric(UNMATCHED) == before + len(asked))
    assert_right(proxy.query("last.test"), "last.test")
    # What was lost was asked again alone, on a lane that nobody else has used.
    assert all(len(other.queries) == 1 for other in upstream.connections if other is not connection)


def test_F10_answer_of_before_is_not_taken_for_that_of_now(upstream, start_proxy):
    """The same question is asked twice in the same place; only the ID tells the answers apart."""
    stale = []

    def hook(query):
        for message in stale:
            query.reply(message)
        answer = query.make_answer()
        query.reply(answer, after=0.02)
        answer.answer[0] = dns.rrset.from_text(query.question.name, 300, "IN", "A", "6.6.6.6")
        stale.append(answer.to_wire())
    upstream.on_query = hook
    proxy = start_proxy(upstream, config={"cache": {"size": 0},
                                          "limits": {"queries": 2, "upstream-requests": 1}})
    for number in range(20):
        assert_right(proxy.query("same.test"), "same.test")
        eventually(lambda: proxy.metric("dnsproxy_upstream_in_flight") == 0)
        assert len(upstream.queries) == number + 1
        assert proxy.metric(UNMATCHED) == number * (number + 1) / 2
    assert upstream.connections[0].is_open


# F12, F13: answers that answer nothing

def changed_question(**changes):
    def change(answer):
        question = copy.copy(answer.question[0])  # it was the query's own
        answer.question = [question]
        for attribute, value in changes.items():
            setattr(question, attribute, value)
        return answer
    return change


def wrong_id(answer):
    answer.id ^= 0x5555
    return answer


def not_a_response(answer):
    wire = bytearray(answer.to_wire())
    wire[2] &= 0x7f
    return bytes(wire)


STRANGERS = {
    "id": wrong_id,
    "name": changed_question(name=dns.name.from_text("other.test")),
    "shorter-name": changed_question(name=dns.name.from_text("test")),
    "type": changed_question(rdtype=28),
    "class": changed_question(rdclass=3),
}


@pytest.mark.parametrize("stranger", STRANGERS)
def test_F12_answer_to_another_question_is_discarded(upstream, proxy, stranger):
    def hook(query):
        wrong = query.make_answer()
        wrong.answer.clear()
        query.reply(STRANGERS[stranger](wrong))
        query.answer(after=0.05)
    upstream.on_query = hook
    assert_right(proxy.query("stranger.test"), "stranger.test")
    assert len(upstream.queries) == 1
    assert proxy.metric(UNMATCHED, upstream=upstream.label) == 1


def test_F12_question_is_compared_without_regard_to_case(upstream, proxy):
    def hook(query):
        answer = query.make_answer().to_wire()
        query.reply(answer.replace(b"spelling", b"SpElLiNg"))
    upstream.on_query = hook
    assert_right(proxy.query("spelling.test"), "spelling.test")
    assert proxy.metric(UNMATCHED) == 0


def test_F12_many_strangers_end_the_connection_and_lose_no_query(upstream, proxy):
    def hook(query):
        if query.connection.number > 0:
            query.answer()
            return
        wrong = query.make_answer()
        wrong.id ^= 0x5555
        query.connection.send(frame(wrong) * 2000)
    upstream.on_query = hook
    assert_right(proxy.query("flood.test"), "flood.test")
    assert 2 <= len(upstream.connections) <= 1 + 1 + SPARES
    upstream.wait_for(lambda: not upstream.connections[0].is_open)
    assert proxy.metric(FAILURES, cause="protocol") == 1


def test_F13_second_answer_is_counted_and_forgotten(upstream, proxy):
    def hook(query):
        second = query.make_answer()
        second.answer[0] = zone.rrset(dns.name.from_text("second.test"), 1)
        second.answer[0].name = query.question.name
        query.connection.send(frame(query.make_answer()) + frame(second))
    upstream.on_query = hook
    for number in range(5):
        assert_right(proxy.query(f"twice{number}.test"), f"twice{number}.test")
        assert_right(proxy.query(f"twice{number}.test"), f"twice{number}.test")  # from the cache
    eventually(lambda: proxy.metric(UNMATCHED) == 5)
    assert proxy.metric("dnsproxy_replies_total") == 10
    assert upstream.connections[0].is_open


def test_F13_flood_of_unsolicited_answers_ends_the_connection(upstream, proxy):
    assert_right(proxy.query("before.test"), "before.test")
    flooding = upstream.connections[0]
    stray = frame(upstream.queries[0].make_answer())
    flooding.send(stray * 100_000)
    upstream.wait_for(lambda: not flooding.is_open)
    assert_right(proxy.query("after.test"), "after.test")
    assert len(upstream.connections) == 2
    assert proxy.metric("dnsproxy_replies_total") == 2


# F14: closing

def test_F14_our_close_waits_for_nobody(upstream, start_proxy):
    proxy = start_proxy(upstream, config={"timeouts": {"upstream-idle": "150ms"}})
    assert_right(proxy.query("close.test"), "close.test")
    connection = upstream.connections[0]
    # The upstream never sends a close_notify of its own, and still the socket is closed at once.
    upstream.wait_for(lambda: connection.end_time, timeout=2)
    assert connection.end == "close_notify"
    eventually(lambda: proxy.metric("dnsproxy_upstream_connections") == 0)


def test_F14_connection_that_is_closing_delays_no_replacement(upstream, proxy):
    """The upstream ends its side and leaves the socket open."""
    assert_right(proxy.query("before.test"), "before.test")
    upstream.connections[0].close()
    eventually(lambda: proxy.metric("dnsproxy_upstream_idle_closes_total") == 1)
    started = time.monotonic()
    assert_right(proxy.query("after.test"), "after.test")
    assert time.monotonic() - started < 0.5


# F16: an upstream that reads nothing

def test_F16_upstream_that_does_not_read_is_bounded_and_left(start_upstream, start_proxy):
    blocked, good = start_upstream(receive_buffer=2048), start_upstream()
    blocked.on_open = lambda connection: connection.pause_reading()
    blocked.on_query = never  # the first may come together with the end of the handshake
    good.on_query = fast_answer
    proxy = start_proxy(blocked, good, config={"strategy": "ordered",
                                               "timeouts": {"query": "20s"}},
                        environment={"ASAN_OPTIONS": "quarantine_size_mb=1"})
    before = proxy.memory_bytes()
    names = [f"{number:04}-blocked." + "y" * 60 + ".test" for number in range(3000)]
    replies = proxy.ask_all([make_query(name) for name in names], connections=10)
    for reply, name in zip(replies, names):
        assert reply.rcode() == dns.rcode.NOERROR, reply
        assert reply.answer[0][0].address == fast_address(name)
    assert proxy.memory_bytes() - before < 40 << 20
    assert proxy.metric("dnsproxy_upstream_in_flight", upstream=blocked.label) == 0


# F17: clients that leave

STAGES = {
    "handshake": {"on_accept": lambda connection: connection.stall()},
    "unread": {"on_open": lambda connection: connection.pause_reading(),
               "on_query": never},  # the first may come together with the end of the handshake
    "in-flight": {"on_query": never},
    "retried": {"on_query": lambda query: query.connection.after(
        0.05, query.connection.reset) if query.connection.number == 0 else None},
}


@pytest.mark.parametrize("stage", STAGES)
def test_F17_clients_that_leave_take_their_queries_with_them(start_upstream, start_proxy, stage):
    upstream = start_upstream(receive_buffer=2048)
    proxy = start_proxy(upstream, config={"timeouts": {"query": "1s", "request": "600ms"}})
    for hook, function in STAGES[stage].items():
        setattr(upstream, hook, function)
    messages = [make_query(f"left{number}." + "z" * 60 + ".test") for number in range(50)]
    clients = [proxy.tcp() for _ in range(4)]
    for client in clients:
        client.send(*messages)  # the same questions: lookups with several queries
    eventually(lambda: proxy.metric("dnsproxy_queries_in_flight") == 200)
    clients[0].reset()
    clients[1].reset()
    eventually(lambda: proxy.metric("dnsproxy_queries_in_flight") <= 100)
    for client in clients[2:]:  # the others have their replies all the same
        for _ in messages:
            assert client.receive().rcode() == dns.rcode.SERVFAIL
        client.close()
    for gauge in ("dnsproxy_queries_in_flight", "dnsproxy_lookups_in_flight",
                  "dnsproxy_upstream_in_flight"):
        eventually(lambda gauge=gauge: proxy.metric(gauge) == 0)


@pytest.mark.parametrize("stage", ["unread", "in-flight"])
def test_F17_lookup_without_clients_is_given_up(start_upstream, start_proxy, stage):
    upstream = start_upstream(receive_buffer=2048)
    proxy = start_proxy(upstream)
    for hook, function in STAGES[stage].items():
        setattr(upstream, hook, function)
    with proxy.tcp() as client:
        client.send(*[make_query(f"alone{number}.test") for number in range(50)])
        eventually(lambda: proxy.metric("dnsproxy_upstream_in_flight") == 50)
        client.reset()
    # At once, and not when the requests time out.
    eventually(lambda: proxy.metric("dnsproxy_upstream_in_flight") == 0, timeout=1)
    assert proxy.metric("dnsproxy_queries_in_flight") == 0
    assert proxy.metric("dnsproxy_lookups_in_flight") == 0


# F18: all down, and back

def test_F18_all_down_fails_fast_with_the_cause_and_recovers_within_a_second(upstream, start_proxy):
    proxy = start_proxy(upstream, config=AT_ONCE)
    assert_right(proxy.query("before.test"), "before.test")
    upstream.go_down()
    assert_fails(proxy.query("down.test"), upstream.label, "connection refused")
    end = time.monotonic() + 1.5
    asked = 0
    while time.monotonic() < end:
        started = time.monotonic()
        assert proxy.query(f"down{asked}.test").rcode() == dns.rcode.SERVFAIL
        assert time.monotonic() - started < 1  # far from its deadline of 5 s, nor did a request time out
        asked += 1
    assert len(proxy.logs("upstream_failed")) <= 4
    upstream.listen()
    back = time.monotonic()
    numbers = itertools.count()
    eventually(lambda: proxy.query(f"up{next(numbers)}.test").rcode() == dns.rcode.NOERROR,
               timeout=3)
    assert time.monotonic() - back < 1.0
    assert proxy.wait_for_log("upstream_recovered")["upstream"] == upstream.label


def test_F18_upstream_that_only_shakes_hands_has_not_recovered(upstream, start_proxy):
    upstream.on_query = upstream.on_probe = never
    proxy = start_proxy(upstream, config={"timeouts": {"request": "50ms", "query": "200ms"}})
    numbers = itertools.count()
    def has_shaken_hands_again_and_again():
        assert proxy.query(f"silent{next(numbers)}.test").rcode() == dns.rcode.SERVFAIL
        return proxy.metric("dnsproxy_upstream_handshakes_total") >= 4
    eventually(has_shaken_hands_again_and_again, timeout=15)
    assert [entry for entry in proxy.logs("upstream_failed") if entry["state"] != "up"]
    assert not proxy.logs("upstream_recovered")
    upstream.on_query = Query.answer
    eventually(lambda: proxy.query(f"back{next(numbers)}.test").rcode() == dns.rcode.NOERROR, timeout=15)
    proxy.wait_for_log("upstream_recovered", upstream=upstream.label)


def test_F18_standby_that_nobody_asks_has_recovered_when_it_answers_a_question_of_ours(start_upstream, start_proxy):
    first, standby = start_upstream(), start_upstream()
    standby.go_down()
    proxy = start_proxy(first, standby, config={"strategy": "ordered"})
    numbers = itertools.count()
    def is_told(event, **fields):
        assert_right(proxy.query(name := f"first{next(numbers)}.test"), name)
        return proxy.logs(event, upstream=standby.label, **fields)
    # The second failure takes it down: that of a question for which the first one is late.
    first.on_query = lambda query: query.answer(after=0.5)
    eventually(lambda: is_told("upstream_failed", state="down"))
    first.on_query = Query.answer
    standby.listen()
    eventually(lambda: is_told("upstream_recovered"), timeout=15)
    assert not standby.queries


def test_F18_upstream_that_comes_and_goes_is_told_once_a_second(upstream, start_proxy):
    proxy = start_proxy(upstream, config={"timeouts": {"request": "50ms", "query": "200ms"}})
    started = time.monotonic()
    numbers = itertools.count()
    def has_suppressed():
        for on_query, rcode in ((never, dns.rcode.SERVFAIL), (Query.answer, dns.rcode.NOERROR)):
            upstream.on_query = on_query
            eventually(lambda: proxy.query(f"now{next(numbers)}.test").rcode() == rcode)
        return any("suppressed" in line for line in proxy.logs("upstream_recovered"))
    eventually(has_suppressed, timeout=20)
    assert len(proxy.logs("upstream_recovered")) <= time.monotonic() - started + 1


def test_F18_upstream_that_dies_leaves_no_trace_while_another_is_up(start_upstream, start_proxy):
    one, two = start_upstream(), start_upstream()
    proxy = start_proxy(one, two)
    numbers = itertools.count()

    def ask_fifty():
        for _ in range(50):
            name = f"flap{next(numbers)}.test"
            assert_right(proxy.query(name), name)
    for upstream in (one, two, one, two):
        upstream.go_down()
        ask_fifty()
        upstream.listen()
        eventually(lambda label=upstream.label: proxy.query(f"trial{next(numbers)}.test")
                   and proxy.metric("dnsproxy_upstream_up", upstream=label) == 1)
    assert proxy.metric("dnsproxy_replies_total", rcode="SERVFAIL") == 0


def test_F18_one_that_stays_silent_does_not_hold_back_the_first_answer(start_upstream, start_proxy):
    silent, refusing = start_upstream(), start_upstream()
    silent.on_accept = lambda connection: connection.stall()
    refusing.go_down()
    proxy = start_proxy(silent, refusing, config={"strategy": "ordered"})
    numbers = itertools.count()

    def both_have_failed_often():
        proxy.ask_later(f"down{next(numbers)}.test")
        return all(proxy.logs("upstream_failed", upstream=upstream.label, state="down")
                   for upstream in (silent, refusing))
    eventually(both_have_failed_often, interval=0.05)
    refusing.listen()
    back = time.monotonic()
    replies = {}
    for name in [f"back{number}.test" for number in range(5)]:
        replies[name] = proxy.ask_later(name)
        time.sleep(0.1)  # all of them take longer than it is left in peace after a failed try
    for name, reply in replies.items():
        assert_right(reply(), name)
    assert time.monotonic() - back < 1.0


def test_F18_upstream_in_back_off_is_asked_when_no_other_is_left(start_upstream, start_proxy):
    first_choice, second_choice = start_upstream(), start_upstream()
    proxy = start_proxy(first_choice, second_choice, config={"strategy": "ordered"})
    first_choice.go_down()
    numbers = itertools.count()

    def asked_with_long_back_off():
        proxy.query(f"down{next(numbers)}.test")
        return proxy.logs("upstream_failed", upstream=first_choice.label, failures="5")
    eventually(asked_with_long_back_off)
    first_choice.listen()
    second_choice.on_query = never
    reply = proxy.ask_later("last.test")
    second_choice.wait_for(lambda: "last.test." in second_choice.names())
    time.sleep(0.3)  # for so long it is left in peace after a try that failed
    second_choice.go_down()
    assert_right(reply(), "last.test")


# F19: answers that are failures

@pytest.mark.parametrize("label, rcode", [("servfail", dns.rcode.SERVFAIL),
                                          ("refused", dns.rcode.REFUSED)])
def test_F19_failure_of_one_upstream_is_asked_elsewhere(start_upstream, start_proxy, label, rcode):
    failing, good = start_upstream(), start_upstream()

    def fail(query):
        answer = query.make_answer()
        answer.answer.clear()
        answer.set_rcode(rcode)
        query.reply(answer)
    failing.on_query = fail
    proxy = start_proxy(failing, good, config={"strategy": "ordered"})
    for number in range(5):
        name = f"{label}-once{number}.test"
        assert_right(proxy.query(name), name)
    assert len(failing.connections) == 1  # an answer is no reason to close


@pytest.mark.parametrize("label, rcode", [("servfail", dns.rcode.SERVFAIL),
                                          ("refused", dns.rcode.REFUSED)])
def test_F19_failure_of_all_upstreams_is_passed_on_without_cycling(start_upstream, start_proxy,
                                                                  label, rcode):
    one, two = start_upstream(), start_upstream()
    proxy = start_proxy(one, two)
    started = time.monotonic()
    reply = proxy.query(f"{label}.x.test")
    assert time.monotonic() - started < 3.0  # long before the query's deadline, which who goes on asking would meet
    assert reply.rcode() == rcode
    assert 1 <= len(one.queries) <= 2 and 1 <= len(two.queries) <= 2


def test_F19_best_answer_is_given_when_only_one_upstream_answers(start_upstream, start_proxy):
    silent, failing = start_upstream(), start_upstream()
    silent.on_query = never
    proxy = start_proxy(silent, failing, config={"strategy": "ordered",
                                                 "timeouts": {"request": "300ms"}})
    reply = proxy.query("ede-18.servfail.x.test")
    assert reply.rcode() == dns.rcode.SERVFAIL
    assert (18, "from upstream") in extended_errors(reply)


# Many at once

def test_thousand_misses_answered_in_reverse_use_at_most_two_connections(upstream, start_proxy):
    total = 1000
    upstream.on_query = in_reverse(total)
    proxy = start_proxy(upstream, config={"timeouts": {"query": "10s", "request": "9s"}})
    names = [f"reverse{number}.test" for number in range(total)]
    replies = proxy.ask_all([make_query(name) for name in names], connections=20)
    for reply, name in zip(replies, names):
        assert_right(reply, name)
    assert len(upstream.connections) <= 2
    assert total <= len(upstream.queries) <= total + 16 + total // 20  # with hedges
    assert proxy.metric("dnsproxy_queries_in_flight") == 0
