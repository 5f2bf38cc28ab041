# SPDX-License-Identifier: Apache-2.0
"""What ./dev chaos is made of: upstreams that can be killed, stopped and cut off, loads, and the figures of a trial.

    trial.sleep(0.5)                    False when the load is over
    trial.upstreams[0].kill()           or pause(), cut(), unplug(), ...
    trial.figures                       what it came to
"""

import array
import contextlib
import ctypes
import json
import os
import select
import signal
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import servers
from support.proxy import Proxy

DELAY_US = 5000  # of each upstream's answers
TIMEOUT_MS = 6000  # of the load: longer than a client waits
WARM_SECONDS = 0.5
UNSETTLED_S = 2  # of a fault: until then it may take longer
LOST = 17  # in the log of bench/load.c
COUNTS = ("queries", "connections", "writes", "handshakes", "resumed")  # of bench/upstream.c
INSIDE = "CHAOS_INSIDE"
CONSISTENT_WITHIN_S = 5
LIBC = ctypes.CDLL(None)
PR_SET_PDEATHSIG = 1
SECOND_NS = 10**9
CLIENTS = "10.128.0.0/9"  # each of these addresses may be a client's, once we are apart: none is loopback
RUN_GAP_NS = SECOND_NS // 10  # between bad outcomes that the story tells as two


def go_apart():
    """Starts this program again in a network namespace of its own, which ends with it. False: that is not allowed."""
    if os.environ.pop(INSIDE, None):
        ip("link", "set", "lo", "up")
        ip("address", "add", CLIENTS, "dev", "lo")
        return True
    command = ["unshare", "--net"] if os.getuid() == 0 else ["unshare", "--map-root-user", "--net"]
    try:
        is_allowed = subprocess.run([*command, "ip", "link"], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False
    if is_allowed:
        os.environ[INSIDE] = "1"
        os.execvp(command[0], [*command, sys.executable, *sys.argv])
    return False


def tool(command, **options):
    """A process that ends with us, even when we are killed."""
    return servers.Process(command, None, stdout=subprocess.PIPE,
                           preexec_fn=lambda: LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL), **options)


# --- Links ------------------------------------------------------------------------------------------------------------

class Link:
    """A network namespace for an upstream, and the only way there, `far_ms` long one way. It is gone when its process is.
    """

    def __init__(self, trial, index, far_ms):
        self.name, self.near, self.far = f"chaos{index}", f"10.77.{index}.1", f"10.77.{index}.2"
        self.process = tool(["unshare", "--net", "sh", "-c", "echo ready; read end"], stdin=subprocess.PIPE)
        self.process.wait_line("ready")
        pid = str(self.process.process.pid)
        self.enter = ["nsenter", "--target", pid, "--net"]
        self.delay = None
        if far_ms:
            self.delay = tool([trial.tools / "bench-delay", far_ms, self.name, pid]).wait_line("ready")
        else:
            ip("link", "add", self.name, "type", "veth", "peer", "name", "far", "netns", pid)
        ip("address", "add", f"{self.near}/24", "dev", self.name)
        self.inside("ip", "address", "add", f"{self.far}/24", "dev", "far")
        self.inside("ip", "link", "set", "far", "up")
        # Packets from where no way leads back to are dropped, so that cut() is one of both directions.
        self.inside("sh", "-c", "echo 1 >/proc/sys/net/ipv4/conf/far/rp_filter")
        self.plug()

    def inside(self, *command):
        subprocess.run([*self.enter, *command], check=True)

    def cut(self):
        """A black hole: nobody is told anything."""
        self.inside("ip", "route", "add", "blackhole", self.near)

    def mend(self):
        self.inside("ip", "route", "del", "blackhole", self.near)

    def unplug(self):
        ip("link", "set", self.name, "down")

    def plug(self):
        ip("link", "set", self.name, "up")

    def stop(self):
        # At once: the end of the namespace takes its time, or has begun.
        subprocess.run(["ip", "link", "delete", self.name], capture_output=True, check=False)
        if self.delay:
            self.delay.stop()
        self.process.stop()


def ip(*words):
    subprocess.run(["ip", *words], check=True)


# --- Upstreams --------------------------------------------------------------------------------------------------------

class Upstream:
    """A place for bench/upstream.c, whatever happens to the one that is there."""

    def __init__(self, trial, index, options, link):
        self.trial, self.options, self.link = trial, options, link
        self.address, self.port = link.far if link else "127.0.0.1", servers.free_port()
        self.enter = link.enter if link else []
        self.delay_us = 0 if trial.scenario.far_ms else DELAY_US
        self.file = trial.directory / f"counts-{index}"
        self.process = None
        self.start()

    @property
    def label(self):
        """As in the metrics."""
        return f"{self.address}:{self.port}#{servers.NAME}"

    def url(self):
        return f"tls://{self.label}"

    def start(self, *options, certificate="good"):
        command = [*self.enter, self.trial.tools / "bench-upstream", self.address, self.port,
                   self.trial.certificates[certificate].path, "--delay-us", self.delay_us, "--counts", self.file,
                   *(options or self.options)]
        self.process = tool(command).wait_line("ready")

    def kill(self):
        self.process.process.kill()
        self.process.process.wait()

    def become(self, *options, **how):
        """Another one, at once."""
        self.kill()
        self.start(*options, **how)

    def pause(self):
        self.process.process.send_signal(signal.SIGSTOP)

    def resume(self):
        self.process.process.send_signal(signal.SIGCONT)

    def turn_bad(self):
        """From now on it does what its options say, with --at-signal among them;"""
        self.process.process.send_signal(signal.SIGUSR2)

    turn_good = turn_bad  # and from now on it does not.

    def counts(self):
        """Of all that were ever here."""
        return dict(zip(COUNTS, struct.unpack("5Q", self.file.read_bytes())))

    def sockets(self):
        """The proxy's ends of its connections to here, as the kernel has them."""
        rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        return sum(int(row[2].split(":")[1], 16) == self.port and row[9] != "0" for row in rows)

    def stop(self):
        self.kill()


# --- Loads ------------------------------------------------------------------------------------------------------------

class Load:
    """Constant questions, until they are over; as many as are answered without a rate. After wait() there is `report`.
    `source`: an address of CLIENTS, or a network of them that each question over UDP has another address of.
    `is_last`: what it takes to ask comes after all others on the CPUs, as if it were elsewhere."""

    def __init__(self, trial, tag, *, seconds, rate, names="", log_over_ms=0, tcp=False, source="", options=(),
                 is_last=False):
        self.log, self.is_tcp = trial.directory / f"{tag}.log", tcp
        command = [*(("nice", "-n", 10) if is_last else ()), trial.tools / "bench-load", "--server",
                   f"127.0.0.1:{trial.proxy.port}", "--names", names or f"unique:{tag}", "--seconds", seconds,
                   "--timeout-ms", TIMEOUT_MS]
        if rate:
            command += ["--rate", rate, "--scheduled", "--sockets", 16 if tcp else 64, "--window", 1024, "--log", self.log,
                        "--log-over-ms", log_over_ms]
        if tcp:
            command.append("--tcp")
        if source:
            command += ["--source", source]
        self.report = None
        self.process = tool([*command, *options])

    def is_over_within(self, seconds):
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.process.wait(seconds)
            return True
        return False

    def wait(self):
        said, _ = self.process.process.communicate()
        if self.process.process.returncode != 0:
            raise RuntimeError(f"the load failed: {self.process.errors()}")
        self.report = json.loads(said)
        return self.report

    def stop(self):
        self.process.stop()

    def outcomes(self):
        """[(scheduled at, took, rcode or LOST)], in ns of time.monotonic_ns(), in the order of the ends."""
        words = array.array("Q")
        words.frombytes(self.log.read_bytes())
        return list(zip(words[0::3], words[1::3], words[2::3]))

    def figures(self):
        report, latency = self.report, self.report["latency_us"]
        return {"sent": report["sent"], "lost": report["lost"], "failed": report["sent"] - report["answered"] -
                report["lost"], "servfail": report["rcodes"][2], "wrong": report["wrong"],
                "p50_ms": latency["p50"] / 1e3, "p99_ms": latency["p99"] / 1e3, "p999_ms": latency["p999"] / 1e3,
                "max_ms": latency["max"] / 1e3, "send_delay_ms": report["worst_send_delay_us"] / 1e3}


class MuteClient:
    """A TCP client that asks and asks and never reads."""

    def __init__(self, port):
        self.port, self.socket, self.rest = port, None, b""

    def push(self):
        """As many queries as the connection takes; a new one when it was closed."""
        if self.socket is None:
            self.rest = b""
            self.socket = socket.socket()
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            self.socket.connect(("127.0.0.1", self.port))
            self.socket.setblocking(False)
        query = b"\0\1\1\0\0\1\0\0\0\0\0\0\4mute\5bench\4test\0\0\1\0\1"
        self.rest = self.rest or (len(query).to_bytes(2, "big") + query) * 1000
        try:
            self.rest = self.rest[self.socket.send(self.rest):]
        except BlockingIOError:
            pass
        except OSError:
            self.stop()

    def stop(self):
        if self.socket:
            self.socket.close()
        self.socket = None


class IdleSockets:
    """As many connections as one says, that say nothing."""

    def __init__(self, port, count):
        self.port, self.count, self.sockets = port, count, []
        self.renew()

    def renew(self):
        """Those that the server has closed."""
        closed, _, _ = select.select(self.sockets, [], [], 0)
        for one in closed:
            self.sockets.remove(one)
            one.close()
        while len(self.sockets) < self.count:
            self.sockets.append(socket.create_connection(("127.0.0.1", self.port)))

    def stop(self):
        for one in self.sockets:
            one.close()


# --- A trial ----------------------------------------------------------------------------------------------------------

class Trial:
    """One run of a scenario. `dark`: [from, to] in ns of when no upstream could be asked, so that failing is right."""

    def __init__(self, scenario, arguments, certificates, directory, stack):
        self.scenario, self.tools, self.certificates = scenario, arguments.tools, certificates
        self.directory, self.stack, self.is_short = directory, stack, arguments.short
        self.workers = arguments.workers
        self.seconds = arguments.seconds or (scenario.short_seconds if self.is_short else scenario.seconds)
        self.rate = scenario.short_rate if self.is_short else scenario.rate
        self.figures, self.loads, self.dark, self.samples, self.moments, self.story = {}, [], [], [], {}, []
        self.has_other_upstreams = False  # by a reload: what is counted at them begins anew
        self.upstreams = []
        for index in range(scenario.upstreams):
            link = self.keep(Link(self, index, scenario.far_ms)) if scenario.has_links or scenario.far_ms else None
            options = scenario.options[index] if index < len(scenario.options) else ()
            self.upstreams.append(self.keep(Upstream(self, index, options, link)))
        self.proxy = self.keep(Proxy(self.upstreams, ca=certificates.ca, directory=directory,
                                     lifetime=self.seconds + 600, wrapper=("setpriv", "--pdeathsig", "KILL"),
                                     config={"strategy": arguments.strategy or scenario.strategy,
                                             "workers": arguments.workers} | scenario.config))

    def keep(self, thing):
        """Stops it at the end, the last first."""
        self.stack.callback(thing.stop)
        return thing

    def load(self, tag, *, seconds, rate=None, **how):
        self.loads.append(self.keep(Load(self, tag, seconds=seconds, rate=rate, **how)))
        return self.loads[-1]

    def run(self):
        names = self.scenario.names
        self.load("warm", rate=200, seconds=WARM_SECONDS, names=names).wait()
        if not self.rate:
            self.rate = self.figures["rate"] = self.maximum_rate(names) // 2
        if self.scenario.prepare:
            self.scenario.prepare(self)
        self.before, self.requests_before, self.dropped_before = self.total_counts(), self.requests(), self.dropped()
        self.begun_ns = time.monotonic_ns()
        self.main_load = self.load("main", rate=self.rate, seconds=self.seconds, names=names,
                                   log_over_ms=self.scenario.log_over_ms, source=self.scenario.source)
        self.scenario.body(self)
        self.wait()
        self.settle()

    def maximum_rate(self, names):
        """The highest, in steps of a tenth, that is asked on schedule for 5 s and answered without a loss. Where it is
        answered as soon as it is asked, as by a load without a schedule, batches are larger and each costs less."""
        rate = int(self.load("maximum", seconds=3, names=names).wait()["qps"])
        while True:
            report = self.load(f"at-{rate}", rate=rate, seconds=5, names=names).wait()
            if report["lost"] == 0 and report["qps"] >= 0.98 * rate:
                return rate
            rate = rate * 9 // 10

    # While it runs

    def wait(self):
        """For the ends of all loads."""
        for load in self.loads:
            if load.report is None:
                load.wait()

    def sleep(self, seconds):
        """False when the load is over."""
        return not self.main_load.is_over_within(seconds)

    def note(self, moment):
        self.moments[moment] = time.monotonic_ns()

    def tell(self, text):
        """Something happened, for the story of the run in chaos.json."""
        self.story.append((time.monotonic_ns(), text))

    def darken(self):
        """From now on it may be that no upstream can be asked; told before they are taken away,"""
        self.note("gone")
        self.dark.append([self.moments["gone"], None])

    def lighten(self):
        """and from now on they can be again."""
        self.note("back")
        self.dark[-1][1] = self.moments["back"]

    def strike(self, unsettled_s=UNSETTLED_S):
        """The fault begins: so long it is not judged how long questions take, but whether they fail."""
        self.note("fault")
        self.judged_ns = self.moments["fault"] + int(unsettled_s * SECOND_NS)
        self.counts_at_fault = self.total_counts()

    def sample(self):
        """What must not grow."""
        self.samples.append((self.proxy.memory_bytes(), len(os.listdir(f"/proc/{self.proxy.process.pid}/fd"))))
        if len(self.samples) % 25 == 0:
            self.tell(f"{self.samples[-1][0] / 2**20:.1f} MiB, {self.samples[-1][1]} descriptors")

    def seconds_until_noticed(self, upstream, within=5):
        """Until the proxy counts a failure of it. It may have counted others before."""
        started_s, before = time.monotonic(), self.failures(upstream)
        while (waited_s := time.monotonic() - started_s) < within:
            if self.failures(upstream) > before:
                return waited_s
            time.sleep(0.01)
        return within

    def failures(self, upstream):
        return self.proxy.metric("dnsproxy_upstream_failures_total", upstream=upstream.label)

    def busiest(self):
        """The upstream that got most queries in a second."""
        before = [upstream.counts()["queries"] for upstream in self.upstreams]
        self.sleep(1)
        return max(self.upstreams, key=lambda one: one.counts()["queries"] - before[self.upstreams.index(one)])

    # What came of it

    def total_counts(self):
        counts = [upstream.counts() for upstream in self.upstreams]
        return {name: sum(one[name] for one in counts) for name in COUNTS}

    def requests(self):
        """As the proxy counts them: also what never reached an upstream, and its own questions."""
        metrics = self.proxy.metrics()
        return sum(metrics.total(f"dnsproxy_upstream_{kind}_total") for kind in ("requests", "probes"))

    def dropped(self):
        """Queries that the proxy had no place for, and those that the kernel had none for."""
        return [self.proxy.metric("dnsproxy_replies_full_total"),
                self.proxy.metric("dnsproxy_dropped_total", reason="overflow")]

    def convicted(self):
        """How many names the proxy has taken for the cause of what befell their connections."""
        return sum(value for (series, _), value in self.proxy.metrics().items()
                   if "convict" in series and series.endswith("_total"))

    def since_start(self, name):
        return self.total_counts()[name] - self.before[name]

    def times_seen_down(self):
        """How often a worker counted an upstream as down while the load ran, or when it had just ended."""
        seen, is_running = 0, True
        while is_running:
            is_running = self.sleep(0.2)
            seen += self.proxy.metric("dnsproxy_upstream_up") < self.workers * len(self.upstreams)
        return seen

    def outcomes_since(self, moment, load):
        return [outcome for outcome in load.outcomes() if outcome[0] >= self.moments[moment]]

    def peak_over_ceiling(self):
        """The most memory that was ever resident, beside what was printed at the start as the most that may be."""
        lines = Path(f"/proc/{self.proxy.process.pid}/status").read_text().splitlines()
        peak = next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM:"))
        return peak / int(self.proxy.wait_for_log("started")["memory_ceiling_bytes"])

    def settle(self):
        figures = self.figures
        figures |= self.main_load.figures()
        figures["inconsistent"] = self.settled_inconsistencies()
        figures["extra"] = self.since_start("queries") / figures["sent"] - 1
        figures["extra_requests"] = (self.requests() - self.requests_before) / figures["sent"] - 1
        figures["connects"] = self.since_start("connections")
        handshakes = self.since_start("handshakes")
        figures["resumption"] = self.since_start("resumed") / handshakes if handshakes else None
        outcomes = self.main_load.outcomes()
        if self.dark and not self.scenario.names:
            self.measure_return(outcomes)
        if "fault" in self.moments:
            self.measure_fault(outcomes)
        self.forgive([outcome for outcome in outcomes if outcome[2] != 0])
        if len(self.samples) >= 8:
            self.measure_growth()
        figures["story"] = [f"{(at - self.begun_ns) / SECOND_NS:.3f} s: {text}" for at, text in sorted(self.story)]

    def measure_return(self, outcomes):
        """Back is who answers what is new."""
        back_ns = self.moments["back"]
        answers_ns = [sent + took for sent, took, rcode in outcomes if rcode == 0 and sent + took >= back_ns]
        self.figures["recovered_s"] = (min(answers_ns) - back_ns) / SECOND_NS if answers_ns else None

    def measure_fault(self, outcomes):
        """Beside the calm before it. How long it took is that of what was answered."""
        begun_ns, figures = self.moments["fault"], self.figures
        struck = [outcome for outcome in outcomes if outcome[0] >= begun_ns]
        figures["failed_share"] = sum(rcode != 0 for _, _, rcode in struck) / len(struck)
        calm = sorted(took for sent, took, rcode in outcomes if sent + took < begun_ns and rcode == 0)
        judged = sorted(took for sent, took, rcode in struck if sent >= self.judged_ns and rcode == 0)
        for prefix, took in (("calm", calm), ("fault", judged)):
            for percent in (50, 95, 99):
                figures[f"{prefix}_p{percent}_ms"] = took[len(took) * percent // 100] / 1e6 if took else None
        figures["p99_by_calm"] = judged and figures["fault_p99_ms"] / figures["calm_p99_ms"] or None
        figures["convicted"] = self.convicted()
        seconds = (max(struck)[0] - begun_ns) / SECOND_NS
        for name in ("connections", "handshakes"):
            figures[f"{name}_a_second"] = (self.total_counts()[name] - self.counts_at_fault[name]) / seconds

    def forgive(self, bad):
        """Failures while nobody could be asked, and a second longer, are right; what had no room then, if it was counted, too.
        Where the rate is what the machine can do, it may do less later: what found the kernel's queue full is told apart."""
        def is_dark(sent, took):
            return any(gone <= sent + took and sent <= back + SECOND_NS for gone, back in self.dark)

        figures = self.figures
        full, overflow = (now - before for now, before in zip(self.dropped(), self.dropped_before))
        failed = [took for sent, took, rcode in bad if rcode != LOST and is_dark(sent, took)]
        lost_in_dark = sum(rcode == LOST and is_dark(sent, took) for sent, took, rcode in bad)
        self.tell_runs(sorted((rcode, sent) for sent, took, rcode in bad if rcode == LOST or not is_dark(sent, took)))
        if failed:
            figures["failed_in_dark"] = len(failed)
            figures["failed"] -= len(failed)
            figures["failure_p50_ms"] = statistics.median(failed) / 1e6
            figures["failure_max_ms"] = max(failed) / 1e6
        if "rate" in figures:
            figures["overflow"] = overflow / figures["sent"]
            figures["lost"] -= min(overflow, figures["lost"])
        if dropped := min(full, lost_in_dark, figures["lost"]):
            figures["dropped_in_dark"] = dropped
            figures["lost"] -= dropped

    def tell_runs(self, bad):
        """Those that ended alike one soon after the other, as one."""
        runs = []
        for rcode, sent in bad:
            if runs and rcode == runs[-1][2] and sent - runs[-1][1] < RUN_GAP_NS:
                runs[-1][1:] = sent, rcode, runs[-1][3] + 1
            else:
                runs.append([sent, sent, rcode, 1])
        for first, last, rcode, count in runs:
            self.story.append((first, f"{count} queries of {(last - first) / 1e6:.1f} ms are " +
                               ("lost" if rcode == LOST else f"answered with rcode {rcode}")))

    def measure_growth(self):
        """From the second quarter, when all is warm, to the last."""
        quarter = len(self.samples) // 4
        early, late = ([statistics.median(column) for column in zip(*part)]
                       for part in (self.samples[quarter:2 * quarter], self.samples[-quarter:]))
        self.figures |= {"memory_growth": late[0] / early[0] - 1, "descriptors_growth": late[1] - early[1],
                         "memory_mib": late[0] / 2**20}

    def settled_inconsistencies(self):
        """What the proxy's counters say that cannot be, once all is at rest."""
        deadline = time.monotonic() + CONSISTENT_WITHIN_S
        while (found := self.inconsistencies()) and time.monotonic() < deadline:
            time.sleep(0.1)
        return found

    def inconsistencies(self):
        total = self.proxy.metrics().total
        reports = [load.report for load in self.loads if not load.is_tcp]
        sent, lost = (sum(report[name] for report in reports) for name in ("sent", "lost"))
        servfail = sum(report["rcodes"][2] for report in reports)
        udp, tcp = (total("dnsproxy_queries_total", transport=transport) for transport in ("udp", "tcp"))
        unanswered = udp + tcp - total("dnsproxy_replies_total") - sum(
            total("dnsproxy_dropped_total", reason=reason) for reason in ("malformed", "response", "source_port")) - total(
                "dnsproxy_queries_repeated_total")
        failed = total("dnsproxy_replies_total", rcode="SERVFAIL")
        overflow = total("dnsproxy_dropped_total", reason="overflow")
        connections, sockets = total("dnsproxy_upstream_connections"), sum(one.sockets() for one in self.upstreams)
        asked, requests = self.total_counts()["queries"], self.requests()
        rules = {
            f"{sent} queries sent, {lost} lost, but {udp:.0f} counted": sent - lost <= udp <= sent,
            f"{unanswered:.0f} queries without an end": 0 <= unanswered <= total("dnsproxy_dropped_total",
                                                                                  reason="client_gone"),
            f"{overflow:.0f} without room, but {sent - udp:.0f} did not arrive": overflow <= sent - udp,
            f"{failed:.0f} SERVFAIL counted, {servfail} received": failed == servfail or lost > 0 or tcp > 0,
            f"{connections:.0f} connections counted, {sockets} open": connections == sockets,
            f"{asked} queries at the upstreams, {requests:.0f} counted": asked <= requests or self.has_other_upstreams,
        } | {f"{gauge} {total(gauge):.0f}": total(gauge) == 0 for gauge in (
            "dnsproxy_queries_in_flight", "dnsproxy_lookups_in_flight", "dnsproxy_upstream_in_flight")}
        return [text for text, holds in rules.items() if not holds]


def run(scenario, arguments, certificates):
    """The figures of one run of a scenario."""
    with tempfile.TemporaryDirectory() as directory, contextlib.ExitStack() as stack:
        trial = Trial(scenario, arguments, certificates, Path(directory), stack)
        trial.run()
        return trial.figures
