# SPDX-License-Identifier: Apache-2.0
"""Nsd and Unbound: real servers from Debian, serving zones over UDP, TCP and TLS.

They run as the user of the tests in a directory of their own, listen on loopback ports only and
have no control socket:

    with Nsd(pki["good"], {"zone.test": path}, directory=directory) as server:
        server.url()        for a proxy
        server.limits       what the proxy must not exceed, as in its configuration
        server.in_flight    and its clients: arguments for bulk.ask_many
        server.address      for a client of plain UDP and TCP

Both answer AA=1 from the zone, and differ in what else they put into an answer. sign() signs a zone
with the tools of ldns.
"""

import os
import pwd
import shutil
import signal
import subprocess

import dns.exception
import dns.message
import dns.query

from support import ports
from support.waiting import eventually

_NSD = """\
server:
    ip-address: 127.0.0.1@{port}
    ip-address: 127.0.0.1@{tls_port}
    tls-port: {tls_port}
    tls-service-key: "{certificate}"
    tls-service-pem: "{certificate}"
    username: "{user}"
    chroot: ""
    zonesdir: "{directory}"
    zonelistfile: "{directory}/zone.list"
    pidfile: ""
    xfrdfile: ""
    database: ""
    server-count: 1
    tcp-count: 200
    tcp-timeout: 120
    rrl-ratelimit: 0            # replies per second; Debian's default is 200
    rrl-whitelist-ratelimit: 0
    hide-version: no
    version: "differential"
    refuse-any: no
remote-control:
    control-enable: no
"""
_NSD_ZONE = """\
zone:
    name: "{origin}"
    zonefile: "{path}"
"""

# The address that it would ask others from cannot leave this machine.
_UNBOUND = """\
server:
    interface: 127.0.0.1@{port}
    interface: 127.0.0.1@{tls_port}
    outgoing-interface: 127.0.0.1
    tls-port: {tls_port}
    tls-service-key: "{certificate}"
    tls-service-pem: "{certificate}"
    username: ""
    chroot: ""
    directory: "{directory}"
    pidfile: ""
    use-syslog: no
    do-daemonize: no
    num-threads: 1
    module-config: "iterator"
    minimal-responses: no
    local-zone: "." refuse
    local-zone: "test." transparent
    identity: "differential"
    version: "differential"
remote-control:
    control-enable: no
"""
_UNBOUND_ZONE = """\
auth-zone:
    name: "{origin}"
    zonefile: "{path}"
    for-downstream: yes
    for-upstream: no
    fallback-enabled: no
"""


def _run(directory, *command):
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}\n{done.stderr}"
    return done.stdout


def sign(origin, path, *, nsec3=False):
    """Signs the zone in the file `path` with a new key; returns the path of the signed zone."""
    directory = os.path.dirname(path)
    key = _run(directory, "ldns-keygen", "-k", "-a", "ECDSAP256SHA256", origin).strip()
    signed = path + ".signed"
    _run(directory, "ldns-signzone", *(["-n"] if nsec3 else []), "-f", signed, path, key)
    return signed


class _Server:
    """`zones` is a mapping of origins to paths of zone files."""
    program = template = zone_template = None
    limits, in_flight = {}, {}
    start_limit = 60.0  # seconds; on a busy machine NSD takes several to load the zones

    def __init__(self, certificate, zones, *, directory):
        self._certificate = certificate
        self._zones = zones
        self._directory = str(directory)
        self._log = os.path.join(self._directory, "log")
        # AppArmor confines the installed program, by its path, to files of the system's service.
        self._program = shutil.copy(self.program, self._directory)
        for _ in range(5):
            if self._start():
                return
        raise AssertionError(f"{self.program} does not start:\n{self._output()}")

    @property
    def address(self):
        return ("127.0.0.1", self.port)

    def url(self, name="upstream.test"):
        return f"tls://127.0.0.1:{self.tls_port}#{name}"

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"{self.program} does not end:\n{self._output()}") from None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def _output(self):
        with open(self._log, encoding="utf-8", errors="replace") as file:
            return file.read()

    def _configuration(self):
        values = {"port": self.port, "tls_port": self.tls_port, "directory": self._directory,
                  "certificate": self._certificate.path,
                  "user": pwd.getpwuid(os.getuid()).pw_name}
        return self.template.format(**values) + "".join(
            self.zone_template.format(origin=origin, path=path)
            for origin, path in self._zones.items())

    def _start(self):
        """False when a port was taken in between."""
        self.port, self.tls_port = ports.free_port(), ports.free_port()
        path = os.path.join(self._directory, "configuration")
        with open(path, "w", encoding="utf-8") as file:
            file.write(self._configuration())
        with open(self._log, "w", encoding="utf-8") as log:
            self.process = subprocess.Popen([self._program, "-d", "-c", path],
                                            stdout=log, stderr=log)
        try:
            eventually(lambda: self.process.poll() is not None or self._serves_all(),
                       timeout=self.start_limit, explain=self._output)
        except BaseException:
            self.stop()  # by SIGTERM: NSD takes its children along
            raise
        return self.process.poll() is None

    def _serves_all(self):
        """False while it does not listen, does not answer yet, or has not loaded every zone."""
        try:
            return all(self._serves(origin) for origin in self._zones)
        except (OSError, EOFError, dns.exception.DNSException):
            return False

    def _serves(self, origin):
        query = dns.message.make_query(origin, "SOA")
        return bool(dns.query.tcp(query, "127.0.0.1", timeout=2, port=self.port).answer)


class Nsd(_Server):
    """NSD 4.6 forgets what else is in a TLS record when it has answered one query of it, until more
    bytes come. So it gets one query at a time on each connection, and half as many queries as there
    are connections in one worker: hedges may take the other half."""
    program = "/usr/sbin/nsd"
    template, zone_template = _NSD, _NSD_ZONE
    limits = {"upstream-requests": 1, "upstream-connections": 16, "queries": 16}
    in_flight = {"lanes": 8, "window": 1}


class Unbound(_Server):
    """It gets as many queries at a time as come, several in a TLS record."""
    program = "/usr/sbin/unbound"
    template, zone_template = _UNBOUND, _UNBOUND_ZONE
