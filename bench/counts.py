#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""./dev bench --counts: instructions of dnsproxy itself for each query, counted by callgrind.

usage: counts.py BINARY TOOLS

The same on every run and every machine, whatever else it does, for one compiler. A path is run twice, the second time
with twice as many queries: the difference has no start and no handshake in it. The libraries' instructions are left
out, since those of a copy or a cipher depend on the processor. bench/counts.json holds what each path is known to
take: it fails when one takes over 5 % more, or so much less that the number there is out of date."""

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests" / "scenario"), str(ROOT / "bench")]

import servers  # noqa: E402  (the path comes first)
from support import pki  # noqa: E402

RECORDED = ROOT / "bench" / "counts.json"
TOLERANCE = 0.05
QUERIES = 8000
# A batch is what a turn finds, so its size is part of the cost: see `yield_to_load`.
LOAD = ["--sockets", 1, "--window", 16, "--timeout-ms", 10000]


def own_instructions(profile, binary):
    """The instructions that ran in `binary`, from callgrind's output (its format: valgrind.org, "Callgrind Format")."""
    total, names, in_binary, is_call = 0, {}, False, False
    for line in profile.read_text().splitlines():
        kind, _, value = line.partition("=")
        if kind in ("ob", "cob"):
            key, _, name = value.partition(" ")
            names.setdefault(key, name)
            in_binary = names[key] == binary if kind == "ob" else in_binary
        elif line.startswith("calls="):
            is_call = True  # the next line is what was called, which has lines of its own
        elif re.match(r"[0-9+*-]", line):
            if in_binary and not is_call:
                total += int(line.split()[-1])
            is_call = False
    return total


def yield_to_load(server):
    """The server has the load's CPU when load and upstream do not want it, so that it always finds all that is in
    flight. They come first there; without root the server comes last, behind strangers as well."""
    for thread in Path(f"/proc/{server.process.pid}/task").iterdir():
        os.sched_setaffinity(int(thread.name), {servers.LOAD_CPU})
        if os.geteuid() != 0:
            os.sched_setscheduler(int(thread.name), os.SCHED_IDLE, os.sched_param(0))


def place_load():
    os.sched_setaffinity(0, {servers.LOAD_CPU})
    servers.rank(os.getpid(), first=True)


def ask(rig, server, names, count):
    command = [rig.tools / "bench-load", "--server", f"127.0.0.1:{server.port}", "--names", names, "--queries", count, *LOAD]
    done = subprocess.run([str(word) for word in command], capture_output=True, check=True, preexec_fn=place_load)
    missing = count - json.loads(done.stdout)["answered"]
    if missing:
        raise RuntimeError(f"{names}: {missing} queries without an answer")


def run(rig, names, count):
    """Instructions of a whole life in which the server answers the hot names, then `count` queries for `names`."""
    with tempfile.TemporaryDirectory() as directory:
        profile = Path(directory) / "profile"
        command = ["valgrind", "-q", "--tool=callgrind", f"--callgrind-out-file={profile}", rig.binary]
        with servers.Dnsproxy(rig, command=command).wait_answer() as server:
            yield_to_load(server)
            ask(rig, server, "hot:1000", 1000)
            ask(rig, server, names, count)
        return own_instructions(profile, str(rig.binary))


def run_undisturbed(rig, names, count, tries=3):
    """A server that gives way to everybody may be starved by what else the machine does; then all is done again."""
    for _ in range(tries - 1):
        try:
            return run(rig, names, count)
        except RuntimeError as error:
            print(f"again: {error}", file=sys.stderr)
    return run(rig, names, count)


def per_query(rig, names):
    return (run_undisturbed(rig, names, 2 * QUERIES) - run_undisturbed(rig, names, QUERIES)) / QUERIES


def compiler():
    version = subprocess.run(["gcc", "-dumpversion"], capture_output=True, text=True, check=True).stdout.strip()
    return f"gcc {version.partition('.')[0]} {os.uname().machine}"


def main():
    binary, tools = sys.argv[1:]
    recorded = json.loads(RECORDED.read_text()).get(compiler(), {})
    counted, failed = {}, False
    with tempfile.TemporaryDirectory() as directory:
        rig = servers.Rig(Path(binary).resolve(), tools, pki.Pki(Path(directory)))
        with servers.Upstream(rig) as upstream, upstream.first():
            counted["cached answer"] = round(per_query(rig, "hot:1000"))
            counted["forwarded query"] = round(per_query(rig, "unique:counted"))
    for path, count in counted.items():
        known = recorded.get(path)
        off = known is not None and abs(count - known) > TOLERANCE * known
        failed = failed or off
        print(f"{path}: {count} instructions" + (f", recorded {known}" if known else f", none recorded for {compiler()}")
              + (", MORE THAN 5 % OFF" if off else ""))
    if failed:
        sys.exit(f"If the change is meant, write the new numbers into bench/counts.json: {json.dumps(counted)}")


if __name__ == "__main__":
    main()
