# SPDX-License-Identifier: Apache-2.0
"""PlainServer: a scripted DNS server without encryption, over UDP and TCP on one port, as bootstrap
servers are; and TlsDoor: TLS in front of a plain TCP port, to lead a daemon to itself with."""

import contextlib
import socket
import ssl
import struct
import threading
import time

import dns.flags
import dns.message
import dns.rcode
import dns.rrset

from support import ports
from support.waiting import eventually


class PlainServer:
    """Answers A and AAAA from `addresses` ({"upstream.test.": ["127.0.0.1", "::1"]}), NXDOMAIN for
    what is not there, with `ttl`. `on_query(server, message, transport)` makes the answer instead:
    a message, bytes, or None for none. What was asked is in `asked`: (name, type, transport)."""

    def __init__(self, addresses=None, *, address="127.0.0.1", port=None, ttl=300, listening=True):
        self.address = address
        self.port = port or ports.free_port(address)
        self.addresses = addresses or {}
        self.ttl = ttl
        self.on_query = PlainServer.answer
        self.asked = []
        self.sources = set()
        self.ids = []
        self._sockets = []
        self._threads = []
        if listening:
            self.listen()

    def listen(self):
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        udp.bind((self.address, self.port))
        tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        tcp.bind((self.address, self.port))
        tcp.listen(16)
        self._sockets = [udp, tcp]
        self._threads = [threading.Thread(target=target, args=(sock,), daemon=True)
                         for target, sock in ((self._serve_udp, udp), (self._serve_tcp, tcp))]
        for thread in self._threads:
            thread.start()

    def answer(self, message, transport):
        del transport
        question = message.question[0]
        name = question.name.to_text().lower()
        reply = dns.message.make_response(message, recursion_available=True)
        if name not in self.addresses:
            reply.set_rcode(dns.rcode.NXDOMAIN)
            return reply
        is_v6 = question.rdtype == dns.rdatatype.AAAA
        texts = [text for text in self.addresses[name] if (":" in text) == is_v6]
        for text in texts:  # each alone, or dnspython would shuffle them
            reply.answer.append(dns.rrset.from_text(
                question.name, self.ttl, "IN", question.rdtype, text))
        return reply

    def names(self):
        return {name for name, _, _ in self.asked}

    def wait_for_queries(self, count, timeout=20.0):
        eventually(lambda: len(self.asked) >= count, timeout)

    def _make(self, raw, transport):
        message = dns.message.from_wire(raw)
        question = message.question[0]
        self.asked.append((question.name.to_text().lower(),
                           dns.rdatatype.to_text(question.rdtype), transport))
        self.ids.append(message.id)
        reply = self.on_query(self, message, transport)
        return reply.to_wire() if isinstance(reply, dns.message.Message) else reply

    def _serve_udp(self, sock):
        while True:
            try:
                raw, client = sock.recvfrom(65535)
                if not raw:
                    return  # shut down
                self.sources.add(client[1])
                reply = self._make(raw, "udp")
                if reply is not None:
                    sock.sendto(reply, client)
            except OSError:
                return

    def _serve_tcp(self, sock):
        while True:
            try:
                connection, _ = sock.accept()
            except OSError:
                return
            with connection, contextlib.suppress(OSError):  # its client may reset it
                self._serve_connection(connection)

    def _serve_connection(self, connection):
        head = connection.recv(2, socket.MSG_WAITALL)
        if len(head) == 2:
            length = int.from_bytes(head, "big")
            reply = self._make(connection.recv(length, socket.MSG_WAITALL), "tcp")
            if reply is not None:
                connection.sendall(struct.pack("!H", len(reply)) + reply)

    def stop(self):
        for sock in self._sockets:
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            sock.close()
        for thread in self._threads:
            thread.join(5)
        self._sockets = []
        self._threads = []

    def __str__(self):
        return f"{self.address}:{self.port}"


class TlsDoor:
    """Ends TLS with `certificate` (of pki.Certificate) and passes the bytes to and from the plain
    TCP port `target`, which may be set later. `connections` counts them."""

    def __init__(self, certificate, target=None, *, address="127.0.0.1", port=None):
        self.address = address
        self.port = port or ports.free_port(address)
        self.target = target
        self.connections = 0
        self.bytes_in = 0
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate.path)
        self._context.set_alpn_protocols(["dot"])
        self._stopping = False
        self._listener = socket.create_server((address, port or self.port))
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    @property
    def label(self):
        return f"{self.address}:{self.port}#upstream.test"

    def url(self, name="upstream.test"):
        return f"tls://{self.address}:{self.port}#{name}"

    def _accept(self):
        while not self._stopping:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            thread = threading.Thread(target=self._serve, args=(sock,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, sock):
        """One thread for both directions, with short waits: TLS objects are not for two."""
        try:
            with self._context.wrap_socket(sock, server_side=True) as outer, \
                    socket.create_connection(("127.0.0.1", self.target), 5) as inner:
                outer.settimeout(0.002)
                inner.settimeout(0.002)
                while not self._stopping:
                    if not (self._move(outer, inner) and self._move(inner, outer)):
                        return
        except OSError:
            pass

    def _move(self, source, sink):
        try:
            data = source.recv(65536)
        except TimeoutError:
            return True
        if not data:
            return False
        if isinstance(source, ssl.SSLSocket):
            self.bytes_in += len(data)
        sink.settimeout(5)
        sink.sendall(data)
        sink.settimeout(0.002)
        return True

    def stop(self):
        self._stopping = True
        try:
            self._listener.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self._listener.close()
        deadline = time.monotonic() + 5
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
