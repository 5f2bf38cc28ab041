# SPDX-License-Identifier: Apache-2.0
"""Proxy: the binary under test on loopback ports of its own, its log and metrics, and clients.

The binary is $DNSPROXY, else build/dnsproxy. Configuration is given as in the YAML file, in nested
mappings with the keys of the reference page; what is not given is the product's default, but for
one worker and a drain of one second:

    Proxy([upstream], ca=pki.ca, config={"strategy": "ordered", "timeouts": {"request": "300ms"}})

An upstream is an Upstream, a URL, or a mapping as in the file. stop() fails the test when the
process does not end cleanly, or a sanitizer had something to say.
"""

import contextlib
import json
import os
import re
import signal
import socket
import struct
import subprocess
import threading
import time
import urllib.error
import urllib.request

import dns.edns
import dns.flags
import dns.message
import dns.query

from support import ports
from support.waiting import eventually

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
# On a busy machine all takes longer; what a test says of time it says itself.
START_LIMIT = 20.0
STOP_LIMIT = 10.0
_SANITIZER = re.compile(r"ERROR: \w+Sanitizer|WARNING: ThreadSanitizer|runtime error:|: Assertion ")
_SERIES = re.compile(r"(\w+)(?:\{(.*)\})? (\S+)$")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


def binary():
    return os.environ.get("DNSPROXY") or os.path.join(ROOT, "build", "dnsproxy")


def make_query(name, rdtype="A", *, edns=True, want_dnssec=False, flags=None, options=(),
               payload=1232, rdclass="IN"):
    """A query message. `flags` is text like "RD CD AD"; RD alone when it is not given."""
    message = dns.message.make_query(name, rdtype, rdclass)
    if edns:
        message.use_edns(0, dns.flags.DO if want_dnssec else 0, payload, options=list(options))
    if flags is not None:
        message.flags = dns.flags.from_text(flags)
    return message


def extended_errors(reply):
    """[(code, text)] of a reply (RFC 8914)."""
    return [(int(option.code), option.text or "") for option in reply.options
            if isinstance(option, dns.edns.EDEOption)]


class Metrics(dict):
    """{("name", frozenset of (label, value)): number}"""

    @classmethod
    def parse(cls, text):
        metrics = cls()
        for line in text.splitlines():
            if line and not line.startswith("#"):
                name, labels, value = _SERIES.match(line).groups()
                metrics[name, frozenset(_LABEL.findall(labels or ""))] = float(value)
        return metrics

    def total(self, name, **labels):
        """The sum of all series of that name that have these labels; 0.0 when there is none."""
        wanted = set(labels.items())
        return sum(value for (series, has), value in self.items()
                   if series == name and wanted <= has)


class TcpClient:
    """A client's TCP connection, message by message or byte by byte (`socket`)."""

    def __init__(self, address, timeout=20.0, source=None):
        source_address = (source, 0) if source else None
        self.socket = socket.create_connection(address, timeout, source_address)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, *messages):
        """Messages (or bytes), each with its length in front, in one write."""
        wires = [m if isinstance(m, bytes) else m.to_wire() for m in messages]
        self.socket.sendall(b"".join(struct.pack("!H", len(wire)) + wire for wire in wires))

    def receive_raw(self):
        """The next message as bytes; None at the end of the stream."""
        head = self._exactly(2)
        return None if head is None else self._exactly(int.from_bytes(head, "big"))

    def receive(self):
        raw = self.receive_raw()
        return None if raw is None else dns.message.from_wire(raw)

    def is_closed_by_peer(self, timeout=20.0):
        """Reads until the end of the stream; False when it does not come in time."""
        self.socket.settimeout(timeout)
        try:
            while self.socket.recv(65536):
                pass
        except ConnectionResetError:
            return True
        except TimeoutError:
            return False
        return True

    def close(self):
        """FIN, or RST when replies wait unread."""
        self.socket.close()

    def reset(self):
        """RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _exactly(self, size):
        data = b""
        while len(data) < size:
            try:
                more = self.socket.recv(size - len(data))
            except ConnectionResetError:
                more = b""
            if not more:
                return None
            data += more
        return data


class Proxy:
    """A running proxy. Attributes: port (UDP and TCP, on `address`), admin_port, process, lines
    (all of stderr so far), config (as written to the file at `path`). It is killed after `lifetime` seconds,
    so that no test goes on for ever. `wrapper` is a command that runs the command behind it."""

    def __init__(self, upstreams, *, ca=None, config=None, arguments=(), environment=None,
                 address="127.0.0.1", directory="/tmp", wait=True, lifetime=90.0, wrapper=()):
        self.address = address
        self._upstreams = [self._upstream_entry(upstream) for upstream in upstreams]
        self._extra = config or {}
        self._ca = ca
        self._arguments = list(arguments)
        self._environment = environment or {}
        self._directory = str(directory)
        self._lifetime = lifetime
        self._wrapper = list(wrapper)
        self.lines = []
        self._stopped = False
        for _ in range(5):
            self._start()
            if not wait or self._wait_until_ready():
                return
        raise AssertionError("cannot start:\n" + self.output())

    def _kill(self):
        self._executioner.cancel()
        self.process.kill()
        self.process.wait()

    # Starting and stopping

    @staticmethod
    def _upstream_entry(upstream):
        return upstream.url() if hasattr(upstream, "url") else upstream

    def _start(self):
        self.port = ports.free_port(self.address)
        self.admin_port = ports.free_port()
        host = f"[{self.address}]" if ":" in self.address else self.address
        self.config = {"listen": [f"{host}:{self.port}"], "upstreams": self._upstreams,
                       "admin": f"127.0.0.1:{self.admin_port}", "workers": 1,
                       "log": {"format": "json", "level": "info"}, "timeouts": {"drain": "1s"}}
        if self._ca:
            self.config["tls"] = {"ca": self._ca}
        _merge(self.config, self._extra)
        self.path = os.path.join(self._directory, f"dnsproxy-{self.port}.yaml")
        self._write_config()
        environment = {key: value for key, value in os.environ.items()
                       if not key.startswith("DNSPROXY")}
        environment.setdefault("ASAN_OPTIONS", "detect_leaks=1")
        environment.setdefault("UBSAN_OPTIONS", "print_stacktrace=1:halt_on_error=1")
        environment.update(self._environment)
        self.lines = []
        command = [*self._wrapper, binary(), "-c", self.path, *self._arguments]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE,
                                        stdout=subprocess.DEVNULL, env=environment, text=True,
                                        errors="replace")
        self._executioner = threading.Timer(self._lifetime, self.process.kill)
        self._executioner.daemon = True
        self._executioner.start()
        self._reader = threading.Thread(target=self._read_log, args=(self.process.stderr,),
                                        daemon=True)
        self._reader.start()

    def _write_config(self):
        with open(self.path, "w", encoding="utf-8") as file:
            json.dump(self.config, file, indent=1)  # JSON is YAML too

    def reload(self, config=None, text=None):
        """Changes the file, to the configuration so far with `config` merged into it or to `text`, and sends SIGHUP."""
        _merge(self.config, config or {})
        self._write_config()
        if text is not None:
            with open(self.path, "w", encoding="utf-8") as file:
                file.write(text)
        self.process.send_signal(signal.SIGHUP)

    def reload_and_wait(self, config):
        """The same, until it is in force."""
        before = len(self.logs("reloaded"))
        self.reload(config)
        eventually(lambda: len(self.logs("reloaded")) > before)

    def _read_log(self, stream):
        with stream:
            for line in stream:
                self.lines.append(line.rstrip("\n"))

    def _wait_until_ready(self):
        """False when a port was taken in between."""
        def settled():
            return self.process.poll() is not None or self.admin("/ready")[0] == 200
        try:
            eventually(settled, timeout=START_LIMIT, explain=self.output)
        except BaseException:
            self._kill()
            raise
        if self.process.poll() is None:
            return True
        self._reader.join(5)
        self._executioner.cancel()
        if self.process.returncode == 2 and "in use" in self.output():
            return False
        raise AssertionError(f"ended with {self.process.returncode}:\n{self.output()}")

    def stop(self, expected_status=0):
        """SIGTERM; fails unless it ends within STOP_LIMIT with `expected_status` and a clean stderr."""
        if self._stopped:
            return
        self._stopped = True
        started = time.monotonic()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            status = self.process.wait(STOP_LIMIT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            status = f"no status: still running {time.monotonic() - started:.1f} s after SIGTERM"
        self._executioner.cancel()
        self._reader.join(5)
        report = [line for line in self.lines if _SANITIZER.search(line)]
        assert status == expected_status and not report, f"status {status}\n{self.output()}"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    # Looking inside

    def output(self):
        return "\n".join(self.lines)

    def logs(self, event=None, **fields):
        """Log lines as mappings, those of `event` and with these fields."""
        found = []
        for line in list(self.lines):
            with contextlib.suppress(ValueError):
                entry = json.loads(line)
                if (event in (None, entry.get("event"))
                        and fields.items() <= entry.items()):
                    found.append(entry)
        return found

    def wait_for_log(self, event, timeout=20.0, **fields):
        return eventually(lambda: self.logs(event, **fields), timeout)[0]

    def admin(self, path):
        """(status, text) of the admin server; (0, "") when it does not answer."""
        url = f"http://127.0.0.1:{self.admin_port}{path}"
        try:
            with urllib.request.urlopen(url, timeout=15) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def metrics(self):
        status, text = self.admin("/metrics")
        assert status == 200, f"/metrics gave {status}"
        return Metrics.parse(text)

    def metric(self, name, **labels):
        """proxy.metric("dnsproxy_upstream_failures_total", cause="tls")"""
        return self.metrics().total(name, **labels)

    def wait_for_metric(self, name, at_least=1, timeout=20.0, **labels):
        return eventually(lambda: (value := self.metric(name, **labels)) >= at_least and value,
                          timeout, interval=0.02)

    def memory_bytes(self):
        """Resident bytes of the process."""
        with open(f"/proc/{self.process.pid}/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def cpu_seconds(self):
        """Processor time of the process so far."""
        with open(f"/proc/{self.process.pid}/stat", encoding="ascii") as file:
            fields = file.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    # Clients

    def query(self, name, rdtype="A", *, tcp=False, timeout=15.0, **how):
        """Asks once and gives the reply; `how` as for make_query."""
        return self.ask(make_query(name, rdtype, **how), tcp=tcp, timeout=timeout)

    def ask(self, message, *, tcp=False, timeout=15.0):
        exchange = dns.query.tcp if tcp else dns.query.udp
        return exchange(message, self.address, port=self.port, timeout=timeout)

    def udp(self, timeout=15.0):
        """A UDP socket connected to the proxy, for raw messages; a context manager."""
        family = socket.AF_INET6 if ":" in self.address else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_DGRAM)
        sock.settimeout(timeout)
        sock.connect((self.address, self.port))
        return sock

    def tcp(self, timeout=15.0, source=None):
        """A TcpClient, from the address `source`; a context manager."""
        return TcpClient((self.address, self.port), timeout, source)

    def ask_all(self, messages, *, connections=1, timeout=60.0):
        """Asks all messages at once over TCP, spread over `connections`, and gives the replies in
        the order of the messages; None where the connection ended without one."""
        replies = [None] * len(messages)
        lanes = [list(range(first, len(messages), connections)) for first in range(connections)]

        def run(indexes):
            # The IDs are ours while on the way, so that each reply finds its query.
            with self.tcp(timeout) as client:
                wires = [struct.pack("!H", number) + messages[index].to_wire()[2:]
                         for number, index in enumerate(indexes)]
                client.send(*wires)
                for _ in indexes:
                    raw = client.receive_raw()
                    if raw is None:
                        return
                    replies[indexes[int.from_bytes(raw[:2], "big")]] = dns.message.from_wire(raw)

        threads = [threading.Thread(target=run, args=(lane,)) for lane in lanes if lane]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return replies

    def ask_later(self, name, rdtype="A", *, tcp=False, timeout=15.0, **how):
        """Asks now; the returned function gives the reply when called, waiting for it."""
        message = make_query(name, rdtype, **how)
        if tcp:
            client = self.tcp(timeout)
            client.send(message)
            receive, done = client.receive, client.close
        else:
            sock = self.udp(timeout)
            sock.send(message.to_wire())
            receive, done = lambda: dns.message.from_wire(sock.recv(65535)), sock.close

        def result():
            try:
                return receive()
            finally:
                done()
        return result


def _merge(into, other):
    for key, value in other.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = value
