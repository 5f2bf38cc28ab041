# SPDX-License-Identifier: Apache-2.0
"""What ./dev chaos is made of: upstreams that can be killed, stopped and cut off, a load, and the figures of a trial.

    with Trial(scenario, ...) as trial:     upstreams, proxy and load run
        trial.sleep(0.5)                    False when the load is over
        trial.upstreams[0].kill()
    trial.figures                           what it came to
"""

import array
import contextlib
import json
import os
import signal
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import servers
from support.proxy import Proxy

DELAY_US = 5000  # of each upstream's answers
TIMEOUT_MS = 6000  # of the load: longer than a client waits
LOST = 17  # in the log of bench/load.c
COUNTS = ("queries", "connections", "writes", "handshakes", "resumed")
INSIDE = "CHAOS_INSIDE"


def go_apart():
    """Starts this program again in a network namespace of its own, which ends with it. False: that is not allowed."""
    if os.environ.get(INSIDE):
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
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


class Upstream:
    """A place for bench/upstream.c, whatever happens to the one that is there."""

    def __init__(self, trial, index):
        self.trial, self.index = trial, index
        self.address, self.port = "127.0.0.1", servers.free_port()
        self.file = trial.directory / f"counts-{index}"
        self.options = list(trial.scenario.options)
        self.process = None
        self.start()

    def url(self):
        return f"tls://{self.address}:{self.port}#{servers.NAME}"

    def start(self, certificate="good"):
        command = [self.trial.tools / "bench-upstream", self.address, self.port,
                   self.trial.certificates[certificate].path, "--delay-us", DELAY_US, "--counts", self.file,
                   *self.options]
        self.process = servers.Process(command, None, stdout=subprocess.PIPE).wait_line("ready")

    def kill(self):
        self.process.process.kill()
        self.process.process.wait()

    def pause(self):
        self.process.process.send_signal(signal.SIGSTOP)

    def resume(self):
        self.process.process.send_signal(signal.SIGCONT)

    def counts(self):
        """Of all that were ever here."""
        return dict(zip(COUNTS, struct.unpack("5Q", self.file.read_bytes())))

    def stop(self):
        self.kill()


class Trial:
    """One run of a scenario."""

    def __init__(self, scenario, arguments, certificates, directory, stack):
        self.scenario, self.tools, self.certificates = scenario, arguments.tools, certificates
        self.directory, self.stack = directory, stack
        self.is_short = arguments.short
        self.rate = scenario.short_rate if self.is_short else scenario.rate
        self.seconds = arguments.seconds or (scenario.short_seconds if self.is_short else scenario.seconds)
        self.figures = {}
        self.upstreams = []
        for index in range(scenario.upstreams):
            self.upstreams.append(self.keep(Upstream(self, index)))
        self.proxy = self.keep(Proxy(self.upstreams, ca=certificates.ca, directory=directory, lifetime=self.seconds + 120,
                                     config={"strategy": scenario.strategy, "workers": arguments.workers} |
                                     scenario.config))

    def keep(self, thing):
        """Stops it at the end, the last first."""
        self.stack.callback(thing.stop)
        return thing

    # The load

    def warm_up(self):
        """The connections are there, and what an answer takes is known."""
        self.load("warm").wait()

    def load(self, tag="chaos", names=None, rate=None, seconds=None):
        load = Load(self, tag, names or f"unique:{tag}", rate or self.rate, seconds or self.seconds)
        self.keep(load)
        return load

    def run(self):
        self.load("warm", rate=200, seconds=0.5).wait()
        self.before = self.total_counts()
        self.main_load = self.load()
        self.scenario.body(self)
        self.main_load.wait()
        self.figures |= self.main_load.figures()
        self.count()

    def sleep(self, seconds):
        """False when the load is over."""
        return not self.main_load.is_over_within(seconds)

    # What came of it

    def total_counts(self):
        counts = [upstream.counts() for upstream in self.upstreams]
        return {name: sum(one[name] for one in counts) for name in COUNTS}

    def asked(self):
        return self.total_counts()["queries"] - self.before["queries"]

    def connects(self):
        return self.total_counts()["connections"] - self.before["connections"]

    def count(self):
        counts = {name: value - self.before[name] for name, value in self.total_counts().items()}
        self.figures["extra"] = counts["queries"] / self.main_load.report["sent"] - 1
        self.figures["connects"] = counts["connections"]
        self.figures["resumption"] = counts["resumed"] / counts["handshakes"] if counts["handshakes"] else None
        self.figures["inconsistent"] = self.inconsistencies()

    def inconsistencies(self):
        """What the proxy's counters say that cannot be."""
        return []


class Load:
    """Constant questions, until they are over. `report` and `outcomes` are there after wait()."""

    def __init__(self, trial, tag, names, rate, seconds):
        self.log = trial.directory / f"{tag}.log"
        command = [trial.tools / "bench-load", "--server", f"127.0.0.1:{trial.proxy.port}", "--names", names, "--rate",
                   rate, "--seconds", seconds, "--scheduled", "--window", 1024, "--timeout-ms", TIMEOUT_MS, "--log",
                   self.log, "--edns"]
        self.report = None
        self.process = servers.Process(command, None, stdout=subprocess.PIPE)

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

    def stop(self):
        self.process.stop()

    def outcomes(self):
        """[(scheduled at, took, rcode or LOST)], in ns of time.monotonic_ns(), in the order of the ends."""
        words = array.array("Q")
        words.frombytes(self.log.read_bytes())
        return list(zip(words[0::3], words[1::3], words[2::3]))

    def figures(self):
        report, latency = self.report, self.report["latency_us"]
        return {"sent": report["sent"], "lost": report["lost"], "wrong": report["wrong"],
                "failed": report["sent"] - report["answered"] - report["lost"], "servfail": report["rcodes"][2],
                "p50_ms": latency["p50"] / 1e3, "p99_ms": latency["p99"] / 1e3, "p999_ms": latency["p999"] / 1e3,
                "max_ms": latency["max"] / 1e3, "worst_send_delay_ms": report["worst_send_delay_us"] / 1e3}


def run(scenario, arguments, certificates):
    """The figures of one run of a scenario."""
    with tempfile.TemporaryDirectory() as directory, contextlib.ExitStack() as stack:
        trial = Trial(scenario, arguments, certificates, Path(directory), stack)
        trial.run()
        return trial.figures
