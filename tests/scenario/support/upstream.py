# SPDX-License-Identifier: Apache-2.0
"""Upstream: a scripted DNS-over-TLS server that remembers everything it saw.

Left alone it answers from zone.py. Three hooks change that; each is called on the thread of the
connection it is about, and may be replaced at any time:

    upstream.on_accept = lambda connection: ...   TCP is up, no TLS byte read
    upstream.on_open = lambda connection: ...     the TLS handshake is done
    upstream.on_query = lambda query: ...         instead of query.answer()

What hooks (and tests, from their own thread) do with a connection:

    connection.send(bytes)       application bytes as they are; see record_size and write_size
    connection.send_tcp(bytes)   bytes beneath TLS
    connection.close()           close_notify, then FIN        close(notify=False)   FIN alone
    connection.reset()           RST
    connection.stall()           takes bytes and never answers: not even the handshake
    connection.pause_reading()   its window fills               connection.resume_reading()
    connection.after(seconds, function)
    connection.record_size = 1   at most so many application bytes in one TLS record
    connection.write_size = 1    at most so many bytes in one write to the socket

and with a query:

    query.answer()               what the zone says             query.answer(after=0.2)
    query.make_answer()          the same as a message, to be changed and given to query.reply
    query.reply(message)         or bytes, framed as one DNS message; reply(..., after=0.2)

A query that its hook leaves alone is never answered. Ready-made hooks are at the end of this file.

What is remembered: upstream.connections (see Connection), upstream.queries (see Query), in order.
The proxy's own questions are none of them; they are in upstream.probes instead. Those whether anybody is there (for the
root's name servers) upstream.on_ping answers, unless on_query is `never`; the one whether the upstream is the proxy
itself upstream.on_probe answers (NXDOMAIN).
Wait for it: upstream.wait_for(lambda: len(upstream.queries) == 3).
"""

import functools
import heapq
import itertools
import select
import socket
import ssl
import struct
import threading
import time
import traceback

import dns.edns
import dns.message
import dns.name
import dns.rdatatype

from support import client_hello, ports, zone
from support.waiting import describe

KEEPALIVE = 11
PADDING = 12
_RAW_KEPT = 1 << 20  # bytes of each connection that are remembered beneath TLS
_SELF_PROBE = b"\x13dnsproxy-loop-probe\x07example\0"
_FLUSH_QUERIES = 50  # in a burst of queries, answers leave after so many


def frame(message):
    """A DNS message with its two octets of length in front, from bytes or dns.message.Message."""
    if isinstance(message, dns.message.Message):
        message = message.to_wire(max_size=65535)
    return struct.pack("!H", len(message)) + message


class Query:
    """One query: raw (bytes without length), time (monotonic), connection, and read from raw when
    asked for: message, id, name (lower case, with final dot), type (text)."""

    def __init__(self, connection, raw):
        self.connection = connection
        self.raw = raw
        self.time = time.monotonic()

    @functools.cached_property
    def message(self):
        return dns.message.from_wire(self.raw)

    @property
    def id(self):
        return int.from_bytes(self.raw[:2], "big")

    @property
    def question(self):
        return self.message.question[0]

    @property
    def name(self):
        return self.question.name.to_text().lower()

    @property
    def type(self):
        return dns.rdatatype.to_text(self.question.rdtype)

    def option(self, code):
        """The EDNS option with that code, or None."""
        return next((option for option in self.message.options if option.otype == code), None)

    def make_answer(self):
        answer = zone.answer(self.message)
        self.connection.upstream.add_options(self, answer)
        return answer

    def answer(self, after=0.0):
        self.reply(self.make_answer(), after + zone.delay(self.message))

    def reply(self, message, after=0.0):
        data = frame(message)
        if after:
            self.connection.after(after, lambda: self.connection.send(data))
        else:
            self.connection.send(data)

    def __repr__(self):
        return f"<query {self.name} {self.type} on connection {self.connection.number}>"


class Connection:
    """One connection that was accepted.

    number             0 for the first connection of its upstream
    is_open            neither side has ended it
    end                None, or how the client ended it: "close_notify", "fin", "reset"
    end_time           when, or None
    handshake_time     when the handshake was done, or None
    handshake_error    what OpenSSL said when it failed ("" otherwise)
    version, alpn, resumed       of a finished handshake
    hello              ClientHello, see client_hello.py; None before it came
    raw                the first bytes received beneath TLS, up to a megabyte
    application        all application bytes received (bytearray)
    queries            those of this connection
    """

    def __init__(self, upstream, number, sock):
        self.upstream = upstream
        self.number = number
        self.socket = sock
        self.accept_time = time.monotonic()
        self.is_open = True
        self.end = None
        self.end_time = None
        self.handshake_time = None
        self.handshake_error = ""
        self.version = None
        self.alpn = None
        self.resumed = None
        self.raw = bytearray()
        self.application = bytearray()
        self.queries = []
        self.record_size = 16384
        self.write_size = 1 << 30
        self._tls = None
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._unframed = bytearray()
        self._unsent = bytearray()
        self._stalled = False
        self._reading = True
        self._sent_fin = False
        self._timers = []
        self._timer_order = itertools.count()
        self._posted = []
        self._wake_read, self._wake_write = socket.socketpair()
        self._wake_read.setblocking(False)
        self._wake_write.setblocking(False)
        self.thread = threading.Thread(target=self._run, daemon=True,
                                       name=f"{upstream.label}/{number}")

    # What hooks and tests do. From another thread each of these is handed to the connection's.

    def send(self, data):
        self._on_thread(self._send, data)

    def send_tcp(self, data):
        self._on_thread(self._send_tcp, data)

    def close(self, notify=True):
        self._on_thread(self._close, notify)

    def reset(self):
        self._on_thread(self._reset)

    def stall(self):
        self._stalled = True

    def pause_reading(self):
        self._on_thread(self._set_reading, False)

    def resume_reading(self):
        self._on_thread(self._set_reading, True)

    def after(self, seconds, function):
        self._on_thread(self._add_timer, time.monotonic() + seconds, function)

    @property
    def hello(self):
        return client_hello.parse(bytes(self.raw[:32768]))

    # The thread of the connection.

    def _on_thread(self, function, *arguments):
        if threading.current_thread() is self.thread:
            function(*arguments)
            return
        self._posted.append((function, arguments))
        self.wake()

    def wake(self):
        try:
            self._wake_write.send(b"w")
        except OSError:
            pass  # full: it is awake; closed: it has ended

    def _run(self):
        try:
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.socket.setblocking(False)
            self._tls = self.upstream.context.wrap_bio(self._incoming, self._outgoing,
                                                       server_side=True)
            self.upstream.on_accept(self)
            self._turn_until_end()
        except Exception:
            self.upstream.report_error(traceback.format_exc())
        finally:
            self.is_open = False
            self.socket.close()
            self._wake_read.close()
            self._wake_write.close()
            self.upstream.notify()

    def _turn_until_end(self):
        while self.socket.fileno() >= 0 and not self.upstream.stopping:
            self._flush()
            if self.socket.fileno() < 0:
                return
            poll = select.poll()
            poll.register(self._wake_read, select.POLLIN)
            mask = (select.POLLIN if self._reading else 0) | (select.POLLOUT if self._unsent else 0)
            poll.register(self.socket, mask)
            for descriptor, events in poll.poll(self._timer_wait_ms()):
                if descriptor == self._wake_read.fileno():
                    self._run_posted()
                elif events & select.POLLIN:
                    self._receive()
                elif events & (select.POLLERR | select.POLLHUP):
                    self._ended("reset")
                if self.socket.fileno() < 0:
                    return
            self._run_timers()

    def _timer_wait_ms(self):
        if not self._timers:
            return None
        return max(0.0, (self._timers[0][0] - time.monotonic()) * 1000)

    def _run_timers(self):
        while self._timers and self._timers[0][0] <= time.monotonic():
            _, _, function = heapq.heappop(self._timers)
            function()

    def _run_posted(self):
        try:
            self._wake_read.recv(4096)
        except BlockingIOError:
            pass
        posted, self._posted = self._posted, []
        for function, arguments in posted:
            function(*arguments)

    def _add_timer(self, when, function):
        heapq.heappush(self._timers, (when, next(self._timer_order), function))

    def _set_reading(self, reading):
        self._reading = reading

    def _receive(self):
        try:
            data = self.socket.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            self._ended("reset")
            return
        if not data:
            self._ended("fin")
            return
        self.raw += data[:_RAW_KEPT - len(self.raw)]
        self._incoming.write(data)
        if not self._stalled and not self._sent_fin:
            self._advance()
        self.upstream.notify()

    def _advance(self):
        """TLS, as far as the bytes go."""
        try:
            if self.handshake_time is None:
                self._handshake()
            while data := self._tls.read(65536):
                self._take_application(data)
                if self._sent_fin or self.socket.fileno() < 0:
                    return
            self.end = "close_notify"
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self.end = "close_notify"
        except ssl.SSLError as error:
            if self.handshake_time is None:
                self.handshake_error = str(error)
            self._close(notify=False)

    def _handshake(self):
        self._tls.do_handshake()
        self.version = self._tls.version()
        self.alpn = self._tls.selected_alpn_protocol()
        self.resumed = self._tls.session_reused
        self.handshake_time = time.monotonic()
        self.upstream.on_open(self)

    def _take_application(self, data):
        self.application += data
        self._unframed += data
        while len(self._unframed) >= 2:
            end = 2 + int.from_bytes(self._unframed[:2], "big")
            if len(self._unframed) < end:
                return
            query = Query(self, bytes(self._unframed[2:end]))
            del self._unframed[:end]
            if self.socket.fileno() < 0:
                return
            if self.upstream.on_ping and query.name == "." and query.type == "NS":
                self.upstream.probes.append(query)
                if self.upstream.on_query is not never:
                    self.upstream.on_ping(query)
                continue
            if _SELF_PROBE in query.raw:
                at = len(self.application) - len(self._unframed) - end
                del self.application[at:at + end]
                self.upstream.probes.append(query)
                self.upstream.on_probe(query)
                continue
            self.queries.append(query)
            self.upstream.queries.append(query)
            self.upstream.on_query(query)
            if len(self.queries) % _FLUSH_QUERIES == 0:
                self._flush()

    def _send(self, data):
        if self._sent_fin or self.socket.fileno() < 0:
            return
        for at in range(0, len(data), self.record_size):
            self._tls.write(data[at:at + self.record_size])

    def _send_tcp(self, data):
        self._collect()
        self._unsent += data

    def _collect(self):
        self._unsent += self._outgoing.read()

    def _flush(self):
        self._collect()
        try:
            while self._unsent:
                sent = self.socket.send(self._unsent[:self.write_size])
                del self._unsent[:sent]
        except BlockingIOError:
            return
        except OSError:
            self._ended("reset")
            return
        if self._sent_fin and self.socket.fileno() >= 0:
            try:
                self.socket.shutdown(socket.SHUT_WR)
            except OSError:
                self._ended("reset")

    def _close(self, notify):
        """FIN after what waits to be sent; then only reads, so that no RST follows."""
        if notify and self.handshake_time is not None and not self._sent_fin:
            try:
                self._tls.unwrap()
            except ssl.SSLError:
                pass  # close_notify is written, the peer's has not come
        self._sent_fin = True
        self.is_open = False
        self.upstream.notify()

    def _reset(self):
        if self.socket.fileno() < 0:
            return
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()
        self.is_open = False
        self.upstream.notify()

    def _ended(self, how):
        self.end = self.end or how
        self.end_time = time.monotonic()
        self.is_open = False
        self.socket.close()
        self.upstream.notify()

    def __repr__(self):
        return (f"<connection {self.number} of {self.upstream.label}: {len(self.queries)} queries, "
                f"{'open' if self.is_open else 'closed'}>")


class Upstream:
    """A DNS-over-TLS server on a port of its own; also a context manager that stops it.

    certificate        of pki.Certificate; use() changes it
    tls                "1.2" or "1.3" allows that version alone, None both
    curve              e.g. "secp384r1": makes most clients answer a HelloRetryRequest
    tickets            session tickets sent in each TLS 1.3 handshake
    receive_buffer     SO_RCVBUF of its connections, to make a window that fills soon
    alpn               protocols it takes, best first; () for none

    Set at any time: on_accept, on_open, on_query, on_ping (None: it is like any query), on_probe; keepalive_100ms (the
    RFC 7828 option, for queries that have it; None: not sent); padding (block size of padded answers, 0: none).
    """

    def __init__(self, certificate, *, address="127.0.0.1", port=None, tls=None, curve=None,
                 tickets=2, receive_buffer=None, alpn=("dot",)):
        self.address = address
        self.port = port or ports.free_port(address)
        self.keepalive_100ms = None
        self.padding = 0
        self.on_accept = lambda connection: None
        self.on_open = lambda connection: None
        self.on_query = Query.answer
        self.on_ping = answer_empty
        self.on_probe = answer_nxdomain
        self.connections = []
        self.queries = []
        self.probes = []
        self.stopping = False
        self._tls_settings = {"tls": tls, "curve": curve, "tickets": tickets, "alpn": alpn}
        self._receive_buffer = receive_buffer
        self._condition = threading.Condition()
        self._errors = []
        self._listener = None
        self._acceptor = None
        self.use(certificate)
        self.listen()

    # Names

    @property
    def host(self):
        return f"[{self.address}]" if ":" in self.address else self.address

    @property
    def label(self):
        """How the product calls this upstream when its name is upstream.test."""
        return f"{self.host}:{self.port}#upstream.test"

    def url(self, name="upstream.test"):
        return f"tls://{self.host}:{self.port}" + (f"#{name}" if name else "")

    # Life

    def use(self, certificate):
        """New connections get this certificate. No session ticket given out before is accepted."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate.path)
        context.num_tickets = self._tls_settings["tickets"]
        if self._tls_settings["alpn"]:
            context.set_alpn_protocols(list(self._tls_settings["alpn"]))
        if self._tls_settings["curve"]:
            context.set_ecdh_curve(self._tls_settings["curve"])
        if self._tls_settings["tls"]:
            version = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
            context.minimum_version = version[self._tls_settings["tls"]]
            context.maximum_version = version[self._tls_settings["tls"]]
        self.certificate = certificate
        self.context = context

    def forget_tickets(self):
        """Session tickets given out so far will be refused."""
        self.use(self.certificate)

    def listen(self):
        """Listens again after stop_listening, on the same port."""
        self._listener = socket.socket(socket.AF_INET6 if ":" in self.address else socket.AF_INET)
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if self._receive_buffer:
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._receive_buffer)
        self._listener.bind((self.address, self.port))
        self._listener.listen(1024)
        self._acceptor = threading.Thread(target=self._accept, args=(self._listener,), daemon=True)
        self._acceptor.start()

    def stop_listening(self):
        """New connections are refused; those that exist go on."""
        try:
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes accept
        except OSError:
            pass
        self._acceptor.join(5)
        self._listener.close()

    def go_down(self):
        """Dies as a killed process does: every connection ends, new ones are refused."""
        self.stop_listening()
        for connection in self.open_connections():
            connection.reset()
        self.wait_for(lambda: not self.open_connections())

    def stop(self):
        """Ends all threads; raises what went wrong in them."""
        self.stopping = True
        self.stop_listening()
        for connection in self.connections:
            connection.wake()
        for connection in self.connections:
            connection.thread.join(5)
        if self._errors:
            raise AssertionError("in a thread of the upstream:\n" + "\n".join(self._errors))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def _accept(self, listener):
        while not self.stopping:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            connection = Connection(self, len(self.connections), sock)
            self.connections.append(connection)
            self.notify()
            connection.thread.start()

    # What was seen

    def open_connections(self):
        return [connection for connection in self.connections if connection.is_open]

    def names(self):
        """The names asked, in order."""
        return [query.name for query in self.queries]

    def application_bytes(self):
        """How many bytes came through TLS, on all connections."""
        return sum(len(connection.application) for connection in self.connections)

    def wait_for(self, condition, timeout=20.0):
        """Waits until `condition()` gives something true, and returns that."""
        with self._condition:
            value = self._condition.wait_for(condition, timeout)
        if not value:
            raise AssertionError(f"not within {timeout} s: {describe(condition)}\n"
                                 f"connections: {self.connections}")
        return value

    def notify(self):
        with self._condition:
            self._condition.notify_all()

    def report_error(self, text):
        self._errors.append(text)

    def add_options(self, query, answer):
        """The options of RFC 7828 and RFC 7830 as the attributes say."""
        if query.message.edns < 0:
            return
        options = list(answer.options)
        if self.keepalive_100ms is not None and query.option(KEEPALIVE):
            value = struct.pack("!H", self.keepalive_100ms)
            options.append(dns.edns.GenericOption(KEEPALIVE, value))
        answer.use_edns(0, answer.ednsflags, 1232, options=options)
        if self.padding:
            length = len(answer.to_wire(max_size=65535)) + 4
            zeros = bytes(-length % self.padding)
            options.append(dns.edns.GenericOption(PADDING, zeros))
            answer.use_edns(0, answer.ednsflags, 1232, options=options)


class FullListener:
    """A port whose TCP connects are never answered: its queue of connections is full."""

    def __init__(self, address="127.0.0.1"):
        self.port = ports.free_port(address)
        self.label = f"{address}:{self.port}#upstream.test"
        self._listener = socket.socket()
        self._listener.bind((address, self.port))
        self._listener.listen(0)
        self._fillers = []
        for _ in range(3):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex((address, self.port))
            self._fillers.append(filler)

    def url(self, name="upstream.test"):
        return f"tls://127.0.0.1:{self.port}#{name}"

    def stop(self):
        for sock in [self._listener, *self._fillers]:
            sock.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()


# Ready-made hooks for on_query.

def never(_query):
    """No answer at all."""


def answer_empty(query):
    """To a question for the root."""
    query.reply(query.raw[:2] + b"\x81\x80" + query.raw[4:6] + bytes(6) + query.raw[12:17])


def answer_nxdomain(query):
    raw = query.raw
    end = 12
    while raw[end]:
        end += 1 + raw[end]
    query.reply(raw[:2] + b"\x81\x83\0\1\0\0\0\0\0\0" + raw[12:end + 5])


def fast_answer(query):
    """An address record for any query without looking at it, for floods. The address is that of
    the first four letters of the name: fast_address(name)."""
    raw = query.raw
    end = 12
    while raw[end]:
        end += 1 + raw[end]
    end += 5
    query.reply(raw[:2] + b"\x81\x80\0\1\0\1\0\0\0\0" + raw[12:end]
                + b"\xc0\x0c\0\1\0\1\0\0\1\x2c\0\4" + raw[13:17])


def fast_address(name):
    return ".".join(str(octet) for octet in name.encode()[:4])


def first(count, hook, then=Query.answer):
    """`hook` for the first `count` queries, `then` for all later ones."""
    numbers = itertools.count()
    return lambda query: (hook if next(numbers) < count else then)(query)


def in_reverse(count):
    """Keeps `count` queries of a connection, then answers them, the newest first; after `count` in
    all, each at once."""
    kept = []
    seen = itertools.count(1)
    lock = threading.Lock()

    def hook(query):
        with lock:
            kept.append(query)
            ready = kept[::-1] if next(seen) >= count else []
            if ready:
                kept.clear()
        for one in ready:
            one.answer()
    return hook
