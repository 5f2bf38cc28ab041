# SPDX-License-Identifier: Apache-2.0
"""The servers that the benchmark measures, started alone on one core: the floors, dnsproxy and its peers.

A `Server` is a running process: `port` (UDP and TCP on 127.0.0.1), `cpu_ns()` (user and system time of all its
threads), `resident_bytes()`. Every start is fresh: no cache survives it. Peers get the same work: one thread, the same
upstream, a cache of the same room, no logging."""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

SERVER_CPU = 0
LOAD_CPU = 1
NAME = "upstream.test"
READY_WITHIN_S = 20


class Rig:
    """What all share: where the programs are, the certificates, the upstream's address."""

    def __init__(self, binary, tools, certificates, upstream_port=0, delay_us=0):
        self.binary, self.tools, self.certificates = binary, Path(tools), certificates
        self.upstream_port, self.delay_us = upstream_port, delay_us


def free_port():
    """A port free for UDP and TCP."""
    while True:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as tcp, \
                socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            tcp.bind(("127.0.0.1", 0))
            try:
                udp.bind(tcp.getsockname())
            except OSError:
                continue
            return tcp.getsockname()[1]


def ask_once(port, name=b"\x05first\x05bench\x04test\x00", timeout=0.2):
    """True when an answer without an error came over UDP."""
    query = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00" + name + b"\x00\x01\x00\x01"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(timeout)
        try:
            client.connect(("127.0.0.1", port))
            client.send(query)
            return client.recv(4096)[3] & 15 == 0
        except OSError:
            return False


def rank(pid, first):
    """Whether all threads of `pid` come before whatever else wants their CPU. A latency is that of the server only when
    nobody else's turn is in it: a kernel thread, a peer's housekeeping, a shell take the CPU for 2 to 12 ms now and
    then, which at 1,000 queries a second is all that a p99 shows. Needs root; without, all compete alike."""
    policy, priority = (os.SCHED_RR, 1) if first else (os.SCHED_OTHER, 0)
    for thread in os.listdir(f"/proc/{pid}/task"):
        with contextlib.suppress(PermissionError, ProcessLookupError):
            os.sched_setscheduler(int(thread), policy, os.sched_param(priority))


class Process:
    """A started process on one CPU (None: on any) that is stopped with the block."""

    def __init__(self, command, cpu, **options):
        self.command = [str(word) for word in command]
        if cpu is not None:
            options["preexec_fn"] = lambda: os.sched_setaffinity(0, {cpu})
        options.setdefault("stdout", subprocess.DEVNULL)
        self.log = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(self.command, stdin=options.pop("stdin", subprocess.DEVNULL), stderr=self.log,
                                        **options)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    @contextlib.contextmanager
    def first(self):
        """As `rank` has it, for the time of the block."""
        rank(self.process.pid, first=True)
        try:
            yield
        finally:
            rank(self.process.pid, first=False)

    def wait_line(self, line):
        """Waits for a tool to say `line`; one that does not is stopped."""
        said = self.process.stdout.readline().decode().strip()
        if said != line:
            self.stop()
            raise RuntimeError(f"{' '.join(self.command)}: said {said!r}\n{self.errors()}")
        return self

    def errors(self):
        self.log.seek(0)
        return self.log.read()

    def cpu_ns(self):
        """User and system time of all threads, from the process's own CPU clock."""
        return time.clock_gettime_ns((~self.process.pid << 3) | 2)

    def resident_bytes(self):
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+) kB", status).group(1)) * 1024


@contextlib.contextmanager
def awake():
    """Keeps the CPUs from going to sleep, with programs that run when nothing else wants to: what it takes to wake a CPU,
    on virtual machines above all, is no property of the servers and varies more than they do."""
    spin = "import os; os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))\nwhile True: pass"
    with Process([sys.executable, "-c", spin], SERVER_CPU), Process([sys.executable, "-c", spin], LOAD_CPU):
        yield


class Server(Process):
    """A DNS server on `port`."""

    def __init__(self, command, port, cpu=SERVER_CPU, **options):
        self.port = port
        self.started_s = time.monotonic()
        super().__init__(command, cpu, **options)

    def __exit__(self, kind, *_):
        """One that is no more there has given figures of nothing."""
        status = self.process.poll()
        self.stop()
        if status is not None and kind is None:
            raise RuntimeError(f"{' '.join(self.command)} has ended by itself, status {status}\n{self.errors()}")

    def wait_answer(self):
        while not ask_once(self.port, timeout=0.05 if time.monotonic() - self.started_s < 2 else 1):
            if self.process.poll() is not None or time.monotonic() - self.started_s > READY_WITHIN_S:
                self.stop()
                raise RuntimeError(f"{' '.join(self.command)} gave no answer\n{self.errors()}")
            time.sleep(0.001)
        return self


# --- The floors -------------------------------------------------------------------------------------------------------

def echo(rig, **_):
    port = free_port()
    return Server([rig.tools / "bench-echo", "127.0.0.1", port], port, stdout=subprocess.PIPE).wait_line("ready")


def relay(rig, **_):
    port = free_port()
    command = [rig.tools / "bench-relay", "127.0.0.1", port, "127.0.0.1", rig.upstream_port, rig.certificates.ca, NAME]
    return Server(command, port, stdout=subprocess.PIPE).wait_line("ready")


class Upstream(Process):
    """The fast DoT upstream of the tools."""

    def __init__(self, rig, delay_us=0):
        rig.upstream_port = free_port()
        command = [rig.tools / "bench-upstream", "127.0.0.1", rig.upstream_port, rig.certificates["good"].path]
        if delay_us:
            command += ["--delay-us", delay_us]
        super().__init__(command, LOAD_CPU, stdout=subprocess.PIPE)
        self.wait_line("ready")

    def counts(self):
        """What it has seen so far: {"queries": .., "connections": .., "writes": ..}."""
        self.process.send_signal(signal.SIGUSR1)
        words = self.process.stdout.readline().decode().split()
        return dict(zip(words[::2], map(int, words[1::2])))


# --- dnsproxy ---------------------------------------------------------------------------------------------------------

class Dnsproxy(Server):
    def __init__(self, rig, cache="64MiB", workers=1, cpu=SERVER_CPU, limits="", command=None):
        self.admin = free_port()
        self.file = tempfile.NamedTemporaryFile("w", suffix=".yaml")
        self.file.write(f"""\
listen: 127.0.0.1:{(port := free_port())}
upstreams: ["tls://127.0.0.1:{rig.upstream_port}#{NAME}"]
tls: {{ca: {rig.certificates.ca}}}
admin: 127.0.0.1:{self.admin}
workers: {workers}
cache: {{size: {cache}}}
{limits}
""")
        self.file.flush()
        super().__init__([*(command or [rig.binary]), "-c", self.file.name], port, cpu)

    def metric(self, series):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}/metrics", timeout=5) as response:
            text = response.read().decode()
        return sum(float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(series))


def dnsproxy(rig, **options):
    return Dnsproxy(rig, **options).wait_answer()


# --- Peers ------------------------------------------------------------------------------------------------------------

class Peer(Server):
    """Runs in a directory of its own that holds nothing but its configuration and goes with it."""

    def __init__(self, binary, arguments, configuration, port):
        self.directory = tempfile.TemporaryDirectory()
        path = Path(self.directory.name) / "peer.conf"
        path.write_text(configuration)
        os.chmod(self.directory.name, 0o777)
        super().__init__([binary, *arguments, path], port, cwd=self.directory.name)

    def stop(self):
        super().stop()
        self.directory.cleanup()


def unbound(rig, **_):
    port = free_port()
    return Peer("unbound", ["-d", "-c"], f"""\
server:
    interface: 127.0.0.1
    port: {port}
    do-daemonize: no
    username: ""
    chroot: ""
    pidfile: ""
    directory: "."
    use-syslog: no
    verbosity: 0
    num-threads: 1
    outgoing-range: 8192
    num-queries-per-thread: 4096
    incoming-num-tcp: 100
    outgoing-num-tcp: 100
    so-rcvbuf: 4m
    msg-cache-size: 64m
    rrset-cache-size: 128m
    local-zone: "test." nodefault
    module-config: "iterator"
    do-not-query-localhost: no
    tls-cert-bundle: "{rig.certificates.ca}"
remote-control:
    control-enable: no
forward-zone:
    name: "."
    forward-tls-upstream: yes
    forward-addr: 127.0.0.1@{rig.upstream_port}#{NAME}
""", port).wait_answer()


def dnsdist(rig, **_):
    port = free_port()
    return Peer("dnsdist", ["--supervised", "--disable-syslog", "-C"], f"""\
setLocal("127.0.0.1:{port}", {{tcpListenQueueSize=128}})
setACL("127.0.0.0/8")
setMaxTCPClientThreads(1)
setOutgoingDoHWorkerThreads(1)
setSecurityPollSuffix("")
newServer({{address="127.0.0.1:{rig.upstream_port}", tls="openssl", subjectName="{NAME}",
    caStore="{rig.certificates.ca}", validateCertificates=true, healthCheckMode="up", maxInFlight=1000}})
getPool(""):setCache(newPacketCache(1000000, {{maxTTL=86400}}))
""", port).wait_answer()


def knot_resolver(rig, **_):
    port = free_port()
    return Peer("kresd", ["-n", "-c"], f"""\
net.ipv6 = false
net.listen("127.0.0.1", {port}, {{kind = "dns"}})
modules.unload("ta_update")
modules.unload("ta_signal_query")
modules.unload("ta_sentinel")
modules.unload("priming")
modules.unload("detect_time_skew")
modules.unload("detect_time_jump")
trust_anchors.remove(".")
cache.open(256 * MB, "lmdb://.")
cache.clear()
policy.add(policy.all(policy.TLS_FORWARD({{
    {{"127.0.0.1@{rig.upstream_port}", hostname="{NAME}", ca_file="{rig.certificates.ca}"}}}})))
""", port).wait_answer()


PEERS = {"unbound": ("unbound", unbound), "dnsdist": ("dnsdist", dnsdist), "knot-resolver": ("kresd", knot_resolver)}


def installed_peers():
    return {name: start for name, (program, start) in PEERS.items() if shutil.which(program)}
