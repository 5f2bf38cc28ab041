#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""./dev bench: what dnsproxy costs beside the floors and its peers, all in one run.

usage: bench.py BINARY TOOLS RESULTS [--rounds N] [--seconds S] [--no-peers] [FIGURE]...

Each figure is measured in rounds, each server freshly started and alone on CPU 0; the load generator and the upstream
share CPU 1. Within a round the load goes from server to server in short slices (A B A B ...), so that what else the
machine does meets all alike. The medians make one table, ratios first. RESULTS gets result.json (every round of
everything) and the plots."""

import argparse
import collections
import contextlib
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests" / "scenario"), str(ROOT / "bench")]

import report  # noqa: E402  (the path comes first)
import servers  # noqa: E402
from support import pki  # noqa: E402

HOT_NAMES = 1000
ZIPF_NAMES = 100_000
ZIPF = f"zipf:{ZIPF_NAMES}:1.0"
ZIPF_QUERIES = 1_000_000
ZIPF_CACHE = "1MiB"  # room for about 10,000 of the names
FILL_NAMES = 1_000_000
FULL_NAMES = 800_000  # more than 64 MiB hold
IDLE_CLIENTS = 10_000
SLICE_S = 0.25
LATENCY_SAMPLES = 20_000  # of a server in a round: twenty lie beyond its p99.9
LATENCY_SLICE_S = 1.0     # the first queries of a slice find cold caches: three in 1,000, so not the p99
LATENCY_ROUNDS = 3
WIDE = "limits: {queries: 16384, tcp-clients: 20000}"


class Bench:
    """One run: what to measure with, and what came of it."""

    def __init__(self, arguments, certificates):
        self.rig = servers.Rig(arguments.binary, arguments.tools, certificates)
        self.seconds = arguments.seconds
        self.rounds = arguments.rounds
        self.peers = {} if arguments.no_peers else servers.installed_peers()
        self.results = {}  # figure -> server -> value, each a list with one entry a round
        self.tag = 0
        self.directory = arguments.results

    def new_names(self):
        """A kind of names that no round has used before."""
        self.tag += 1
        return f"unique:{os.getpid() % 65536:04x}{self.tag:04x}"

    def load(self, *options, first=False):
        """Runs the load generator, `first` before all other processes of its CPU; its report."""
        def place():
            os.sched_setaffinity(0, {servers.LOAD_CPU})
            if first:
                servers.rank(os.getpid(), first=True)

        command = [self.rig.tools / "bench-load", *options]
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False,
                              preexec_fn=place)
        if done.returncode != 0:
            raise RuntimeError(f"{command}: {done.stderr}")
        return json.loads(done.stdout)

    def ask(self, server, names, *options, **placed):
        return self.load("--server", f"127.0.0.1:{server.port}", "--names", names, *options, **placed)

    def fill(self, server):
        """The hot names into the server's cache."""
        self.ask(server, f"hot:{HOT_NAMES}", "--queries", HOT_NAMES * 4, "--sockets", 4, "--window", 16)

    def slice(self, server, names, *options):
        """What a load of one slice took and gave, in numbers that may be added up."""
        before = server.cpu_ns()
        seen = self.ask(server, names, "--seconds", SLICE_S, *options)
        return {"cpu_ns": server.cpu_ns() - before, "answered": seen["answered"], "seconds": seen["seconds"],
                "lost": seen["lost"] + seen["wrong"], "failed": seen["sent"] - seen["answered"] - seen["lost"]}

    def record(self, figure, server, values):
        kept = self.results.setdefault(figure, {}).setdefault(server, {})
        for name, value in values.items():
            kept.setdefault(name, []).append(value)
        shown = "  ".join(f"{name} {value:,.2f}" for name, value in values.items())
        print(f"  {figure:<16}{server:<16}{shown}", file=sys.stderr, flush=True)

    def start_all(self, figure, starts):
        """(name, server) of those that start; of the peers one may fail to."""
        for name, start in starts.items():
            try:
                yield name, start(self.rig)
            except RuntimeError as error:
                if name not in self.peers:
                    raise
                print(f"  {name} is left out of {figure}: {error}", file=sys.stderr)

    @contextlib.contextmanager
    def all_running(self, figure, starts):
        """{name: server}, for loads that go from one to the next."""
        with contextlib.ExitStack() as stack:
            yield {name: stack.enter_context(server) for name, server in self.start_all(figure, starts)}

    def slices(self):
        """How many of them a server gets in a round."""
        return max(round(self.seconds / SLICE_S), 1)

    def rounds_of(self, figure, starts, body, rounds=None):
        """`starts`: {server's name: function of the rig}. `body(server)` returns values."""
        for _ in range(rounds or self.rounds):
            for name, server in self.start_all(figure, starts):
                with server:
                    self.record(figure, name, body(server))


# --- The figures ------------------------------------------------------------------------------------------------------

def cost(bench, figure, starts, names, *options, prepare=None, also=None, rounds=None):
    """CPU time a query and throughput, in `slices` of load that go from server to server. `names()` are those of a
    slice; `also()` are counters of something else, whose growth is told by query as well."""
    also = also or dict
    for _ in range(rounds or bench.rounds):
        with bench.all_running(figure, starts) as running:
            totals = {name: collections.Counter() for name in running}
            for server in running.values():
                if prepare:
                    prepare(server)
            for _ in range(bench.slices()):
                for name, server in running.items():
                    before = also()
                    totals[name].update(bench.slice(server, names(), *options))
                    totals[name].update({key: value - before[key] for key, value in also().items()})
            for name, total in totals.items():
                answered = max(total.pop("answered"), 1)
                plain = {"qps": answered / total.pop("seconds"), "lost": total.pop("lost"),
                         "failed": total.pop("failed")}
                bench.record(figure, name, {key: value / answered for key, value in total.items()} | plain)


def cached(bench):
    """Cached answers: 1,000 hot names."""
    with servers.Upstream(bench.rig):
        cost(bench, "cached", {"echo": servers.echo, "dnsproxy": servers.dnsproxy, **bench.peers},
             lambda: f"hot:{HOT_NAMES}", prepare=bench.fill)


def forwarded(bench):
    """All names new. What the upstream pays, too. The pages of a growing cache cost what those cost that a start happens
    to get: three times the rounds."""
    with servers.Upstream(bench.rig) as upstream:
        cost(bench, "forwarded",
             {"relay": servers.relay, "dnsproxy": lambda rig: servers.dnsproxy(rig, limits=WIDE), **bench.peers},
             bench.new_names, also=lambda: {"upstream_cpu_ns": upstream.cpu_ns()}, rounds=3 * bench.rounds)


def full(bench):
    """As forwarded, in a full cache: none of its pages is touched for the first time."""
    def fill(server):
        bench.ask(server, bench.new_names(), "--queries", FULL_NAMES)

    with servers.Upstream(bench.rig):
        cost(bench, "full", {"relay": servers.relay, "dnsproxy": lambda rig: servers.dnsproxy(rig, limits=WIDE)},
             bench.new_names, prepare=fill)


def mix(bench):
    """Zipf over 100,000 names, the cache smaller than the names."""
    with servers.Upstream(bench.rig):
        cost(bench, "mix", {"dnsproxy": lambda rig: servers.dnsproxy(rig, cache=ZIPF_CACHE, limits=WIDE)},
             lambda: ZIPF)


def tcp(bench):
    """Cached answers over 16 TCP connections, 64 queries in flight on each."""
    with servers.Upstream(bench.rig):
        cost(bench, "tcp", {"dnsproxy": servers.dnsproxy, **bench.peers}, lambda: f"hot:{HOT_NAMES}", "--tcp",
             prepare=bench.fill)


class Latencies:
    """Of several loads, as one."""

    def __init__(self):
        self.counts = collections.Counter()  # by the middle of the histogram's bucket, in microseconds
        self.sum_us, self.lost = 0, 0

    def ask(self, bench, server, rate):
        histogram = bench.directory / "latency.histogram"
        with server.first():
            seen = bench.ask(server, bench.new_names(), "--rate", rate, "--seconds", LATENCY_SLICE_S, "--histogram",
                             histogram, first=True)
        self.sum_us += seen["latency_us"]["mean"] * seen["answered"]
        self.lost += seen["lost"]
        for line in histogram.read_text().splitlines():
            us, count = line.split()
            self.counts[float(us)] += int(count)

    def shares(self):
        """(microseconds, share of the answers that came within them), in order."""
        found, seen = [], 0
        for us in sorted(self.counts):
            seen += self.counts[us]
            found.append((us, seen / self.counts.total()))
        return found

    def values(self):
        shares = self.shares()
        within = {name: next(us for us, share in shares if share >= wanted)
                  for name, wanted in (("p50", 0.5), ("p99", 0.99), ("p999", 0.999))}
        return {"mean": self.sum_us / self.counts.total()} | within | {"max": shares[-1][0], "lost": self.lost}

    def write(self, path):
        path.write_text("".join(f"{us} {share:.7f}\n" for us, share in self.shares()))


def latency(bench):
    """Misses at 1,000 and at 20,000 queries a second: distribution, and the mean beside the relay's."""
    starts = {"relay": servers.relay, "dnsproxy": servers.dnsproxy, **bench.peers}
    for rate, _ in itertools.product((1000, 20000), range(min(bench.rounds, LATENCY_ROUNDS))):
        slices = max(round(LATENCY_SAMPLES / rate / LATENCY_SLICE_S), bench.slices() // 4)
        with (servers.Upstream(bench.rig) as upstream, upstream.first(), servers.awake(),
              bench.all_running(f"latency-{rate}", starts) as running):
            for server in running.values():  # connects
                bench.ask(server, bench.new_names(), "--rate", rate, "--seconds", SLICE_S)
            found = {name: Latencies() for name in running}
            for _ in range(slices):
                for name, server in running.items():
                    found[name].ask(bench, server, rate)
        for name, latencies in found.items():
            bench.record(f"latency-{rate}", name, latencies.values())
            latencies.write(bench.directory / f"latency-{rate}-{name}.cdf")


def start(bench):
    """From the start of the process to its first answer, which the upstream gave."""
    def body(server):
        return {"ms": (time.monotonic() - server.started_s) * 1e3}
    with servers.Upstream(bench.rig):
        bench.rounds_of("start", {"dnsproxy": servers.dnsproxy, **bench.peers}, body)


def memory(bench):
    """Resident bytes: idle, for each cached A answer, for each idle TCP client."""
    def idle(server):
        return {"bytes": server.resident_bytes()}

    def filled(server):
        empty = server.resident_bytes()
        if isinstance(server, servers.Dnsproxy):  # its index is there from the start
            with servers.dnsproxy(bench.rig, cache="0", limits=WIDE) as other:
                empty = other.resident_bytes()
        bench.ask(server, f"hot:{FILL_NAMES}", "--queries", FILL_NAMES)
        values = {"entry_bytes": (server.resident_bytes() - empty) / FILL_NAMES}
        if isinstance(server, servers.Dnsproxy):
            values["entries"] = server.metric("dnsproxy_cache_entries")
        return values

    def clients(server):
        bench.ask(server, f"hot:{HOT_NAMES}", "--queries", HOT_NAMES)
        before = server.resident_bytes()
        command = [bench.rig.tools / "bench-load", "--server", f"127.0.0.1:{server.port}", "--tcp", "--names", "hot:1",
                   "--idle", IDLE_CLIENTS]
        with servers.Process(command, servers.LOAD_CPU, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as load:
            load.wait_line(f"ready {IDLE_CLIENTS}")
            return {"client_bytes": (server.resident_bytes() - before) / IDLE_CLIENTS}

    with servers.Upstream(bench.rig):
        bench.rounds_of("idle", {"dnsproxy": servers.dnsproxy, **bench.peers}, idle)
        bench.rounds_of("memory", {"dnsproxy": lambda rig: servers.dnsproxy(rig, cache="256MiB", limits=WIDE)}, filled)
        bench.rounds_of("memory", bench.peers, filled, rounds=1)  # a minute and a half, and the same every time
        bench.rounds_of("idle-clients", {"dnsproxy": lambda rig: servers.dnsproxy(rig, limits=WIDE)}, clients)


def workers(bench):
    """CPU time of a cached answer with two workers against one, server and load on both CPUs. Three threads on two CPUs
    are measured less well than two: three times the rounds."""
    with servers.Upstream(bench.rig):
        starts = {f"{count} workers": lambda rig, count=count: servers.dnsproxy(rig, workers=count, cpu=None)
                  for count in (1, 2)}
        cost(bench, "workers", starts, lambda: f"hot:{HOT_NAMES}", "--sockets", 32, prepare=bench.fill,
             rounds=3 * bench.rounds)


def hit_ratio(bench):
    """Hits on a Zipf trace, beside an exact LRU with room for as many entries."""
    def body(server):
        bench.ask(server, ZIPF, "--queries", ZIPF_QUERIES, "--seed", bench.tag, "--sockets", 1, "--window", 16)
        hits, misses = (server.metric(f'dnsproxy_cache_lookups_total{{result="{result}"}}')
                        for result in ("hit", "miss"))
        room = int(server.metric("dnsproxy_cache_entries"))
        bench.tag += 1
        return {"ratio": hits / (hits + misses), "lru": lru_hit_ratio(bench, room, bench.tag - 1), "entries": room}
    with servers.Upstream(bench.rig):
        bench.rounds_of("hit-ratio", {"dnsproxy": lambda rig: servers.dnsproxy(rig, cache=ZIPF_CACHE)}, body)


def lru_hit_ratio(bench, room, seed):
    trace = subprocess.run([bench.rig.tools / "bench-load", "--names", ZIPF, "--queries", str(ZIPF_QUERIES), "--seed",
                            str(seed), "--print-names"], capture_output=True, check=True).stdout.split()
    kept, hits = {}, 0
    for name in trace:
        if kept.pop(name, None):
            hits += 1
        elif len(kept) == room:
            del kept[next(iter(kept))]
        kept[name] = True
    return hits / len(trace)


FIGURES = {"cached": cached, "forwarded": forwarded, "full": full, "mix": mix, "tcp": tcp, "latency": latency, "start": start,
           "memory": memory, "workers": workers, "hit-ratio": hit_ratio}


def parse_arguments():
    parser = argparse.ArgumentParser(prog="./dev bench", description="Measures dnsproxy beside floors and peers.",
                                     epilog="; ".join(f"{name}: {body.__doc__.splitlines()[0]}"
                                                      for name, body in FIGURES.items()))
    parser.add_argument("binary", help=argparse.SUPPRESS)
    parser.add_argument("tools", help=argparse.SUPPRESS, type=Path)
    parser.add_argument("results", help=argparse.SUPPRESS, type=Path)
    parser.add_argument("--rounds", type=int, default=5, help="of each figure (5)")
    parser.add_argument("--seconds", type=float, default=1, help="of load in a round (1)")
    parser.add_argument("--no-peers", action="store_true", help="leave out the peers that are installed")
    parser.add_argument("figures", nargs="*", metavar="FIGURE", help=f"{', '.join(FIGURES)}; all when none is named")
    arguments = parser.parse_intermixed_args()
    unknown = [name for name in arguments.figures if name not in FIGURES]
    if unknown:
        parser.error(f"no figure {unknown[0]}; there are {', '.join(FIGURES)}")
    return arguments


def main():
    arguments = parse_arguments()
    if len(os.sched_getaffinity(0)) < 2:
        sys.exit("bench: two CPUs are needed, one for the server and one for the load")
    arguments.results.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as directory:
        bench = Bench(arguments, pki.Pki(Path(directory)))
        for name in arguments.figures or FIGURES:
            print(f"{name}: {FIGURES[name].__doc__.splitlines()[0]}", file=sys.stderr, flush=True)
            FIGURES[name](bench)
    medians = {figure: {server: {name: statistics.median(values) for name, values in kept.items()}
                        for server, kept in by_server.items()} for figure, by_server in bench.results.items()}
    report.write(medians, bench.results, arguments)


if __name__ == "__main__":
    main()
