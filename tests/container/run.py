#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The container commands of README.md, for real: builds the image, runs it as a user would, with nothing writable and no
capability, in front of a DNS-over-TLS resolver on the host; once with docker run and once with docker-compose.

Needs a Docker engine, docker-compose, and port 8989 free. `./dev test container`."""

import contextlib
import ipaddress
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "scenario"))

from support import pki, upstream  # noqa: E402  (the path comes first)

PORT = 8989
IMAGE = "dnsproxy"
IMAGE_SIZE_MAX = 30_000_000
HEALTHY_WITHIN_S = 30
STOPPED_WITHIN_S = 3
USER = 65532
OVERRIDE = """\
services:
  dnsproxy:
    environment: {{DNSPROXY_UPSTREAM: "{url}", DNSPROXY_TLS_CA: /ca.pem}}
    volumes: ["{ca}:/ca.pem:ro"]
"""


def run(*command):
    result = subprocess.run([str(word) for word in command], cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, text=True, check=False)
    if result.returncode != 0:
        sys.exit(f'container: {" ".join(map(str, command))} gave {result.returncode}:\n{result.stdout}')
    return result.stdout.strip()


def expect(true, what):
    if not true:
        sys.exit(f"container: {what}")
    print(f"  {what}")


def state_of(container):
    return json.loads(run("docker", "inspect", container))[0]["State"]


def wait_until_healthy(container):
    deadline = time.monotonic() + HEALTHY_WITHIN_S
    while time.monotonic() < deadline:
        state = state_of(container)
        if state["Status"] != "running":
            break
        if state["Health"]["Status"] == "healthy":
            return
        time.sleep(0.2)
    sys.exit(f'container: not healthy: {state}\n{run("docker", "logs", container)}')


def check_answers(resolver, round_name):
    for flag, want in (("+notcp", "UDP"), ("+tcp", "TCP")):
        name = f"{want}.{round_name}.example.test".lower()
        output = run("dig", "@localhost", "-p", PORT, flag, "+tries=1", "+time=4", name)
        asked = any(query.name == name + "." for query in resolver.queries)
        expect("status: NOERROR" in output and "ANSWER: 1" in output and f"({want})" in output and asked,
               f"dig {flag} @localhost -p {PORT} {name} is answered over {want}, and the resolver was asked")


def check_privileges(container):
    status = Path(f"/proc/{state_of(container)['Pid']}/status").read_text(encoding="ascii")
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    expect(fields["Uid"].split() == [str(USER)] * 4, f"runs as user {USER}")
    expect(int(fields["CapEff"], 16) == 0 and int(fields["CapPrm"], 16) == 0, "has no capability")


def check_stop(container):
    started = time.monotonic()
    run("docker", "stop", container)
    took = time.monotonic() - started
    expect(took < STOPPED_WITHIN_S and state_of(container)["ExitCode"] == 0,
           f"docker stop: exit status 0 within {STOPPED_WITHIN_S} s ({took:.1f} s)")


def try_docker_run(resolver, authority):
    container = run("docker", "run", "-d", "--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges",
                    "-p", f"{PORT}:53/tcp", "-p", f"{PORT}:53/udp", "-v", f"{authority}:/ca.pem:ro",
                    "-e", f"DNSPROXY_UPSTREAM={resolver.url()}", "-e", "DNSPROXY_TLS_CA=/ca.pem", IMAGE)
    try:
        wait_until_healthy(container)
        print("  docker run --read-only --cap-drop ALL becomes healthy")
        check_privileges(container)
        check_answers(resolver, "run")
        check_stop(container)
    finally:
        run("docker", "rm", "-f", container)


def try_compose(resolver, authority, directory):
    override = Path(directory) / "override.yml"
    head = 'version: "3.8"\n'
    override.write_text(head + OVERRIDE.format(url=resolver.url(), ca=authority), encoding="ascii")
    compose = [*compose_command(), "-f", ROOT / "docker-compose.yml", "-f", override, "-p", f"dnsproxy-test-{os.getpid()}"]
    try:
        run(*compose, "up", "--build", "-d")
        container = run(*compose, "ps", "-q", "dnsproxy")
        wait_until_healthy(container)
        print("  docker-compose up --build becomes healthy")
        check_privileges(container)
        check_answers(resolver, "compose")
        check_stop(container)
    finally:
        run(*compose, "down")


def compose_command():
    return ["docker-compose"] if shutil.which("docker-compose") else ["docker", "compose"]


def main():
    run("docker", "build", "-t", IMAGE, ".")
    size = int(run("docker", "image", "inspect", "-f", "{{.Size}}", IMAGE))
    expect(size < IMAGE_SIZE_MAX, f"the image has {size / 1e6:.1f} MB, less than {IMAGE_SIZE_MAX / 1e6:.0f}")
    subnet = json.loads(run("docker", "network", "inspect", "bridge"))[0]["IPAM"]["Config"][0]
    bridge = subnet.get("Gateway") or str(next(ipaddress.ip_network(subnet["Subnet"]).hosts()))
    with tempfile.TemporaryDirectory() as directory, contextlib.ExitStack() as stack:
        os.chmod(directory, 0o755)  # the container's user reads the authority
        authorities = pki.Pki(directory)
        resolver = upstream.Upstream(authorities["good"], address=bridge)
        stack.callback(resolver.stop)
        try_docker_run(resolver, authorities.ca)
        try_compose(resolver, authorities.ca, directory)


main()
