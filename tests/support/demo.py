#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""./dev demo: a DNS-over-TLS resolver with an authority of its own, the proxy in front of it, a few questions asked
twice with dig, and what the proxy counted meanwhile. Needs no network but loopback, and no free port in particular.

usage: demo.py BINARY"""

import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scenario"))

from support import pki, ports, upstream  # noqa: E402  (the path comes first)

QUESTIONS = [
    ("www.example.test", "A", []),
    ("www.example.test", "AAAA", []),
    ("example.test", "MX", []),
    ("example.test", "TXT", ["+tcp"]),
    ("example.test", "SOA", []),
    ("nx.example.test", "A", []),
    ("WWW.Example.Test", "A", []),
]
UPSTREAM_DELAY_S = 0.03
READY_WITHIN_S = 20


def start(binary, resolver, authority):
    """The proxy on free ports; another process may take one in the meantime, so it is tried again."""
    for _ in range(5):
        port, admin = ports.free_port(), ports.free_port()
        command = [binary, "-l", f"127.0.0.1:{port}", "-u", resolver.url(), "--tls-ca", authority,
                   "--admin", f"127.0.0.1:{admin}"]
        proxy = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        deadline = time.monotonic() + READY_WITHIN_S
        while proxy.poll() is None and time.monotonic() < deadline:
            try:
                fetch(admin, "/ready")
                print("\n$ " + " ".join(command).replace(authority, "demo-ca.pem"))
                return proxy, port, admin
            except OSError:
                time.sleep(0.02)
        stop(proxy)
    sys.exit("demo: the proxy did not start")


def stop(proxy):
    proxy.terminate()
    try:
        proxy.wait(10)
    except subprocess.TimeoutExpired:
        proxy.kill()
        proxy.wait()


def fetch(admin, path):
    with urllib.request.urlopen(f"http://127.0.0.1:{admin}{path}", timeout=5) as response:
        return response.read().decode()


def counters(admin):
    """The values of /metrics that only count up."""
    text = fetch(admin, "/metrics")
    counted = set(re.findall(r"^# TYPE (\S+) counter$", text, re.MULTILINE))
    found = {}
    for line in text.splitlines():
        series, _, value = line.rpartition(" ")
        if not line.startswith("#") and series.split("{")[0] in counted:
            found[series] = float(value)
    return found


def ask(port, name, rdtype, flags):
    """Status, records and milliseconds as dig tells them."""
    command = ["dig", "@127.0.0.1", "-p", str(port), *flags, "+time=5", "+tries=1", "-u", name, rdtype]
    output = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False).stdout
    status = re.search(r"status: (\w+)", output)
    time_us = re.search(r"Query time: (\d+) usec", output)
    section = re.search(r";; ANSWER SECTION:\n(.*?)\n\n", output, re.DOTALL)
    records = [" ".join(line.split()[1:]) for line in section[1].splitlines()] if section else []
    if not status or not time_us:
        return None, output.strip().splitlines()[-1:], 0.0
    return status[1], records, int(time_us[1]) / 1000


def ask_all(port):
    answered = True
    for name, rdtype, flags in QUESTIONS:
        status, records, milliseconds = ask(port, name, rdtype, flags)
        answered = answered and status in ("NOERROR", "NXDOMAIN")
        question = f'{name} {rdtype} {"over TCP" if flags else ""}'.rstrip()
        print(f"  {milliseconds:6.1f} ms  {question:32} {status or 'no answer'}  {'; '.join(records)[:60]}")
    return answered


def main():
    with tempfile.TemporaryDirectory() as directory:
        authority = pki.Pki(directory)
        resolver = upstream.Upstream(authority["good"])
        resolver.on_query = lambda query: query.answer(after=UPSTREAM_DELAY_S)
        print(f"A resolver speaks DNS over TLS on {resolver.host}:{resolver.port} as upstream.test and takes "
              f"{UPSTREAM_DELAY_S * 1000:.0f} ms for an answer.")
        proxy, port, admin = start(sys.argv[1], resolver, authority.ca)
        try:
            before = counters(admin)
            print(f"\nAsked the first time, through the proxy on 127.0.0.1:{port}:")
            answered = ask_all(port)
            print("\nAsked again, answered from the cache:")
            answered = ask_all(port) and answered
            after = counters(admin)
        finally:
            stop(proxy)
            resolver.stop()
    print("\nWhat the proxy counted meanwhile (http://127.0.0.1:9153/metrics of a daemon with the default settings):")
    for series, value in sorted(after.items()):
        if value != before.get(series, 0):
            print(f"  {value - before.get(series, 0):6.0f}  {series}")
    print(f"\nThe resolver saw {len(resolver.queries)} queries on {len(resolver.connections)} TLS connections (each worker has "
          f"its own), padded to {sorted({len(query.raw) for query in resolver.queries})} octets.")
    return 0 if answered else 1


sys.exit(main())
