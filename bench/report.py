# SPDX-License-Identifier: Apache-2.0
"""What a run of the benchmark leaves: the table, result.json, and the plots (with gnuplot, when it is there)."""

import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

PACKAGES = ["libssl3", "libssl3t64", "unbound", "dnsdist", "knot-resolver"]


PEERS = "peers"


class Row:
    """One line of the table: a ratio or another figure of dnsproxy, its target, and the same of the peers."""

    def __init__(self, title, unit, target, figure, value):
        """`value(a round of one server, the same round of all in the figure)` may be None. `target` is the most it may
        be, PEERS for less than every peer's, or None."""
        self.title, self.unit, self.target, self.figure, self.value = title, unit, target, figure, value

    def verdict(self, mine, peers):
        """(what the table says of the target, whether it is met)."""
        if self.target is None or (self.target is PEERS and not peers):
            return "", True
        met = mine < min(peers.values()) if self.target is PEERS else mine <= self.target
        said = "< peers'" if self.target is PEERS else f"≤ {self.target:g}"
        return said + ("" if met else " NOT MET"), met

    def values(self, results):
        """{server: median of the rounds} of those that have one; the floors have no line of their own."""
        rounds = {server: [dict(zip(kept, values)) for values in zip(*kept.values())]
                  for server, kept in results.get(self.figure, {}).items()}
        found = {}
        for server, mine in rounds.items():
            values = [self.value(one, {name: all_rounds[i] for name, all_rounds in rounds.items() if i < len(all_rounds)})
                      for i, one in enumerate(mine)]
            if server not in ("echo", "relay", "1 workers") and None not in values:
                found[server] = statistics.median(values)
        return found


def over(floor, name="cpu_ns"):
    return lambda mine, all_servers: mine[name] / all_servers[floor][name] if floor in all_servers else None


def beyond(floor, name):
    return lambda mine, all_servers: mine[name] - all_servers[floor][name] if floor in all_servers else None


def plain(name, scale=1.0):
    return lambda mine, _: mine[name] / scale if name in mine else None


ROWS = [
    Row("cached answer, CPU ÷ echo", "", 1.15, "cached", over("echo")),
    Row("forwarded query, CPU ÷ relay", "", 1.4, "forwarded", over("relay")),
    Row("the same in a full cache, CPU ÷ relay", "", None, "full", over("relay")),
    Row("miss at 1,000 q/s, mean latency − relay's", "µs", 15, "latency-1000", beyond("relay", "mean")),
    Row("miss at 1,000 q/s, p99 ÷ relay's", "", 1.2, "latency-1000", over("relay", "p99")),
    Row("miss at 1,000 q/s, mean", "µs", PEERS, "latency-1000", plain("mean")),
    Row("miss at 1,000 q/s, p99", "µs", PEERS, "latency-1000", plain("p99")),
    Row("miss at 1,000 q/s, p99.9", "µs", PEERS, "latency-1000", plain("p999")),
    Row("miss at 20,000 q/s, mean latency − relay's", "µs", None, "latency-20000", beyond("relay", "mean")),
    Row("miss at 20,000 q/s, p99.9 − relay's", "µs", None, "latency-20000", beyond("relay", "p999")),
    Row("memory of a cached A answer", "B", 128, "memory", plain("entry_bytes")),
    Row("memory of an idle TCP client", "B", 1024, "idle-clients", plain("client_bytes")),
    Row("CPU of a query, 2 workers ÷ 1", "", 1.05, "workers", over("1 workers")),
    Row("hit ratio ÷ exact LRU's", "", None, "hit-ratio", lambda mine, _: mine["ratio"] / mine["lru"]),
    Row("cached answer, CPU", "ns", None, "cached", plain("cpu_ns")),
    Row("cached answers on one core", "q/s", None, "cached", plain("qps")),
    Row("forwarded query, CPU", "ns", None, "forwarded", plain("cpu_ns")),
    Row("forwarded queries on one core", "q/s", None, "forwarded", plain("qps")),
    Row("forwarded query, CPU of the upstream", "ns", None, "forwarded", plain("upstream_cpu_ns")),
    Row("Zipf mix, CPU", "ns", None, "mix", plain("cpu_ns")),
    Row("Zipf mix on one core", "q/s", None, "mix", plain("qps")),
    Row("cached answer over TCP, CPU", "ns", None, "tcp", plain("cpu_ns")),
    Row("miss at 1,000 q/s, p50", "µs", None, "latency-1000", plain("p50")),
    Row("miss at 20,000 q/s, p50", "µs", None, "latency-20000", plain("p50")),
    Row("miss at 20,000 q/s, p99", "µs", None, "latency-20000", plain("p99")),
    Row("start to first answer", "ms", None, "start", plain("ms")),
    Row("memory when idle", "MiB", None, "idle", plain("bytes", 1 << 20)),
    Row("hit ratio on the Zipf trace", "", None, "hit-ratio", plain("ratio")),
]


def version_of(package):
    done = subprocess.run(["dpkg-query", "-W", "-f", "${Version}", package], capture_output=True, text=True, check=False)
    return done.stdout if done.returncode == 0 else ""


def machine():
    """What the figures depend on."""
    cpu = next((line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
                if line.startswith("model name")), platform.machine())
    versions = {package: version for package in PACKAGES if (version := version_of(package))}
    compiler = subprocess.run(["gcc", "-dumpfullversion"], capture_output=True, text=True, check=False).stdout.strip()
    precedence = "with precedence" if os.geteuid() == 0 else "beside whatever else runs, since not root"
    return {"cpu": cpu, "kernel": platform.release(), "gcc": compiler} | versions | {"latencies": precedence}


def number(value):
    if value is None:
        return ""
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 100 else f"{value:.2f}"


def table(results, facts, rounds):
    """The lines of the table, and whether every target in it is met."""
    lines = ["machine: " + ", ".join(f"{name} {value}" for name, value in facts.items()),
             f"medians of {rounds} rounds, of {3 * rounds} for forwarded and two workers, of 3 at most for latencies; the server alone on one core", "",
             f"{'figure':<44}{'dnsproxy':>12}  {'target':<16}peers"]
    met = True
    for row in ROWS:
        values = row.values(results)
        mine = values.pop("dnsproxy", values.pop("2 workers", None))
        if mine is None:
            continue
        target, row_met = row.verdict(mine, values)
        met = met and row_met
        peers = ", ".join(f"{server} {number(value)}" for server, value in values.items())
        lines.append(f"{row.title:<44}{number(mine) + ' ' + row.unit:>12}  {target:<16}{peers}".rstrip())
    return lines, met


def lost_queries(results):
    """Figures in which a query was lost or failed: those are not comparable."""
    return [f"{server} lost or failed {sum(kept['lost']) + sum(kept.get('failed', [0]))} queries in {figure}"
            for figure, by_server in results.items() for server, kept in by_server.items()
            if sum(kept.get("lost", [0])) + sum(kept.get("failed", [0])) > 0]


def write(medians, results, arguments):
    facts = machine()
    lines, met = table(results, facts, arguments.rounds)
    (arguments.results / "result.json").write_text(json.dumps(
        {"machine": facts, "rounds": arguments.rounds, "seconds": arguments.seconds, "medians": medians,
         "values": results}, indent=1) + "\n")
    (arguments.results / "table.txt").write_text("\n".join(lines) + "\n")
    print("\n" + "\n".join(lines))
    for line in lost_queries(results):
        print(f"note: {line}")
    plots = draw(medians, arguments.results)
    print(f"all values: {arguments.results / 'result.json'}" + (f"; plots: {', '.join(plots)}" if plots else ""))
    if not met:
        print("bench: a target is not met", file=sys.stderr)


# --- Plots ------------------------------------------------------------------------------------------------------------

def gnuplot(script):
    subprocess.run(["gnuplot"], input=script, text=True, check=True)


HEAD = """set terminal svg size 760,360 font 'sans,13' background '#ffffff'
set grid ytics lc '#dddddd'; set border 3; set tics nomirror out
"""


def draw(medians, directory):
    """The names of the plots made."""
    if not shutil.which("gnuplot"):
        return []
    made = []
    if "cached" in medians and "forwarded" in medians:
        draw_cost(medians, directory)
        made.append("cost.svg")
    for rate in (1000, 20000):
        if f"latency-{rate}" in medians:
            draw_latency(medians, directory, rate)
            made.append(f"latency-{rate}.svg")
    return made


def draw_cost(medians, directory):
    """CPU time and throughput of cached and forwarded queries, side by side."""
    data = directory / "cost.dat"
    with data.open("w") as file:
        for figure in ("cached", "forwarded"):
            for server, kept in medians[figure].items():
                file.write(f"\"{server}\" {kept['cpu_ns'] / 1e3:.3f} {kept['qps'] / 1e3:.1f}\n")
            file.write("\n\n")
    plots = []
    for column, title in ((2, "CPU µs a query"), (3, "thousand q/s on one core")):
        for index, figure in enumerate(("cached", "forwarded")):
            plots.append(f"set title '{figure}: {title}'\nplot '{data}' index {index} using {column}:xtic(1) notitle")
    gnuplot(HEAD.replace("760,360", "960,640") + f"""set output '{directory / "cost.svg"}'
set style data histograms; set style fill solid 0.8; set boxwidth 0.7; set yrange [0:*]; set xtics rotate by -20
set multiplot layout 2,2
{chr(10).join(plots)}
unset multiplot
""")


def draw_latency(medians, directory, rate):
    series = ", ".join(f"'{directory / f'latency-{rate}-{server}.cdf'}' using 1:2 with lines lw 2 title '{server}'"
                       for server in medians[f"latency-{rate}"])
    gnuplot(HEAD + f"""set output '{directory / f"latency-{rate}.svg"}'
set title 'Latency of a miss at {rate:,} q/s'; set logscale x; set xlabel 'microseconds'; set yrange [0:1]
set ylabel 'share of answers'; set key bottom right
plot {series}
""")
