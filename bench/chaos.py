#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""./dev chaos: the daemon under constant load while its upstreams and links fail or other clients take all they can, and
what of that a client notices.

usage: chaos.py BINARY TOOLS RESULTS [--list] [--short] [--seconds S] [--workers N] [SCENARIO]...

Each scenario is a row of SCENARIOS: how many questions a second, which upstreams, what happens to them meanwhile (a
function of a Trial of faults.py), and the targets. Questions leave on a schedule whatever comes back, and latency counts
from the schedule. All runs in a network namespace of its own, where that is allowed. RESULTS gets chaos.json and
table.txt; the exit status is 1 when a target is missed."""

import argparse
import dataclasses
import itertools
import json
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests" / "scenario"), str(ROOT / "bench")]

import faults  # noqa: E402  (the path comes first)
from support import pki  # noqa: E402

STRATEGIES = ("fastest", "ordered", "weighted", "hash")


@dataclasses.dataclass
class Scenario:
    """`targets`: {figure: (the bound, True when it is the least that will do)}. The short form is for tests, which hold
    it only to what does not depend on the machine: the targets in `always`."""
    name: str
    labels: str  # of the faults
    text: str
    body: object
    rate: int  # 0: half of the maximum
    seconds: float
    targets: dict
    prepare: object = None  # done before the load begins
    upstreams: int = 2
    options: tuple = ()  # of bench/upstream.c, for each upstream
    strategy: str = "fastest"
    names: str = ""  # new ones
    source: str = ""  # of the load, in faults.CLIENTS
    config: dict = dataclasses.field(default_factory=dict)
    has_links: bool = False  # each upstream has a network namespace of its own
    far_ms: int = 0  # each upstream has a link of its own that takes so long each way
    has_clients: bool = False  # their addresses are those of faults.CLIENTS
    log_over_ms: int = 0
    short_rate: int = 300
    short_seconds: float = 3  # 0: not in the tests
    always: tuple = ("lost", "failed")


def at_most(**bounds):
    return {figure: (bound, False) for figure, bound in ({"lost": 0, "failed": 0} | bounds).items()}


def at_least(**bounds):
    return {figure: (bound, True) for figure, bound in bounds.items()}


# --- What happens: until the load is over -----------------------------------------------------------------------------

def kill_first(trial):
    while trial.sleep(0.5):
        trial.upstreams[0].kill()
        trial.sleep(0.5)
        trial.upstreams[0].start()


def kill_in_turn(trial):
    for upstream in itertools.cycle(trial.upstreams):
        if not trial.sleep(0.5):
            return
        upstream.kill()
        trial.sleep(0.5)
        upstream.start()


def stop_first(trial):
    while trial.sleep(0.2):
        trial.upstreams[0].pause()
        trial.sleep(0.8)
        trial.upstreams[0].resume()


def closing(trial):
    trial.main_load.wait()
    trial.figures["connects_per_close"] = trial.since_start("connections") / max(1, trial.since_start("queries") / 50)


def closing_and_pausing(trial):
    """It is the daemon that stands still, as a container does that has had its share of the CPU. In short it does so for
    longer, so that as many queries wait at a rate that a busy machine keeps, too."""
    pause_s = 0.3 if trial.is_short else 0.1
    while trial.sleep(1 - pause_s):
        os.kill(trial.proxy.process.pid, signal.SIGSTOP)
        trial.sleep(pause_s)
        os.kill(trial.proxy.process.pid, signal.SIGCONT)


def cut_busiest(trial):
    trial.sleep(1)
    upstream = trial.busiest()
    upstream.link.cut()
    trial.figures["noticed_s"] = trial.seconds_until_noticed(upstream)
    trial.sleep(trial.seconds / 3)
    upstream.link.mend()


def darken_half(trial, end, mend):
    """All links end for half of the time; both arguments are methods of Link."""
    trial.sleep(1)
    trial.darken()
    for upstream in trial.upstreams:
        end(upstream.link)
    trial.sleep(trial.seconds / 2)
    trial.lighten()
    for upstream in trial.upstreams:
        mend(upstream.link)


def cut_all(trial):
    darken_half(trial, faults.Link.cut, faults.Link.mend)


def unplug_first(trial):
    while trial.sleep(1):
        trial.upstreams[0].link.unplug()
        trial.sleep(0.5)
        trial.upstreams[0].link.plug()


def unplug_all(trial):
    darken_half(trial, faults.Link.unplug, faults.Link.plug)


def spoil_certificate(trial):
    upstream = trial.upstreams[0]
    trial.sleep(trial.seconds / 4)
    upstream.kill()
    before = upstream.counts()["queries"]
    upstream.start(certificate="wrong-name")
    trial.sleep(trial.seconds / 4)
    trial.figures["told_the_wrong_one"] = upstream.counts()["queries"] - before
    upstream.become()


def kill_all(trial):
    trial.sleep(1)
    trial.darken()
    for upstream in trial.upstreams:
        upstream.kill()
    trial.sleep(max(1, trial.seconds - 8))
    for upstream in trial.upstreams:
        upstream.start()
    trial.lighten()


def push_mute_client(trial):
    client = trial.keep(faults.MuteClient(trial.proxy.port))
    while trial.sleep(0.05):
        client.push()
    client.stop()


def flood(trial):
    """The main load asks for what is in the cache."""
    trial.sleep(trial.seconds / 3)
    for upstream in trial.upstreams:
        upstream.pause()
    trial.note("flood")
    trial.load("flood", rate=trial.rate * 10, seconds=trial.seconds / 2)
    trial.main_load.wait()
    for upstream in trial.upstreams:
        upstream.resume()
    before, behind = [], []
    for sent_ns, took_ns, _ in trial.main_load.outcomes():
        (before if sent_ns < trial.moments["flood"] else behind).append(took_ns)
    for name, took_ns in (("quiet_p99_ms", before), ("flood_p99_ms", behind)):
        trial.figures[name] = sorted(took_ns)[len(took_ns) * 99 // 100] / 1e6


# --- Clients that take all they can -----------------------------------------------------------------------------------

OTHERS, GREEDY, FORGED = "10.128.1.1", "10.200.9.9", faults.CLIENTS
LATE_NS = 10**9  # a miss that takes longer is no better than one that fails; in short how long it takes is not judged


def fill_cache(trial):
    trial.load("fill", rate=200, seconds=1, names=HITS).wait()


def beside_others(trial, tag, *, rate=None, **greedy):
    """The others are one address, as behind dnsmasq or NAT: it asks for what is new and for what is cached, over UDP and
    TCP, as often each. The greedy load begins a second later. What it costs them is told of all that was due since."""
    others = {"rate": trial.rate, "seconds": trial.seconds, "source": OTHERS}
    misses = trial.main_load, trial.load("tcpmiss", tcp=True, **others)
    hits = trial.load("hit", names=HITS, **others), trial.load("tcphit", names=HITS, tcp=True, **others)
    trial.sleep(1)
    trial.note("greedy")
    trial.load(tag, rate=rate and rate * trial.workers, seconds=trial.seconds - 1.5, is_last=True, **greedy)
    trial.figures["seen_down"] = trial.times_seen_down()
    trial.wait()
    for prefix, miss, hit in zip(("", "tcp_"), misses, hits):
        outcomes = trial.outcomes_since("greedy", miss)
        bad = sum(rcode != 0 or (took > LATE_NS and not trial.is_short) for _, took, rcode in outcomes)
        trial.figures[prefix + "misses_failed"] = bad / len(outcomes)
        trial.figures[prefix + "miss_p99_ms"] = sorted(took for _, took, _ in outcomes)[len(outcomes) * 99 // 100] / 1e6
        trial.figures[prefix + "hit_max_ms"] = max(took if rcode == 0 else faults.TIMEOUT_MS * 1e6 for _, took, rcode in
                                                   trial.outcomes_since("greedy", hit)) / 1e6
    trial.figures["peak_over_ceiling"] = trial.peak_over_ceiling()


def join_one_name(trial):
    connections = 136 if trial.workers == 1 else 300
    beside_others(trial, "joined", names="hot:1:joined:mute", tcp=True, source=GREEDY,
                  options=("--greedy", "--sockets", connections, "--window", 16 if trial.is_short else 128))


def leave_huge_answers(trial):
    beside_others(trial, "huge", names="hot:1:huge:huge", tcp=True, source=GREEDY,
                  options=("--mute", "--sockets", 50 if trial.is_short else 500, "--window", 15))


def ask_for_the_silent(trial):
    beside_others(trial, "never", names="unique:never:mute", rate=120 if trial.is_short else 1200, source=GREEDY)


def forge(trial, rate):
    beside_others(trial, "never", names="unique:never:mute", rate=rate // 10 if trial.is_short else rate, source=FORGED)


def fill_admin(trial):
    """32 that say nothing, each renewed as soon as it is closed."""
    sockets = trial.keep(faults.IdleSockets(trial.proxy.admin_port, 32))
    took_ms, failed = [], 0
    while trial.sleep(0.1):
        sockets.renew()
        for path in ("/health", "/ready", "/metrics"):
            started_s = time.monotonic()
            failed += trial.proxy.admin(path)[0] != 200
            took_ms.append((time.monotonic() - started_s) * 1e3)
    trial.figures |= {"scrapes": len(took_ms), "scrapes_failed": failed, "scrape_max_ms": max(took_ms)}


# --- Questions that harm what carries them, and what the others notice -----------------------------------------------

CALM_S = 3  # before; in short 1


def strike(trial):
    """Behind the calm. How long the load goes on then."""
    calm_s = 1 if trial.is_short else CALM_S
    trial.sleep(calm_s)
    trial.strike()
    return trial.seconds - calm_s


def ask_bad(trial, deed, rate, tag="main", source="", **how):
    """The main load asks for good names under the suffix `main`."""
    return trial.load("bad", names=f"unique:{tag}:{deed}", rate=rate, source=source or trial.scenario.source, **how)


def beside_bad(deed, rate, **how):
    """New names that are `deed` (bench/names.h), so many a second, from the fault on."""
    def body(trial):
        ask_bad(trial, deed, rate, seconds=strike(trial), **how)
    return body


def restart_all(away_s):
    def body(trial):
        strike(trial)
        for upstream in trial.upstreams:
            upstream.kill()
        trial.sleep(away_s)
        for upstream in trial.upstreams:
            upstream.start()
    return body


def turn_bad(count, seconds=None):
    """The first so many upstreams, for good or for so long."""
    def body(trial):
        strike(trial)
        for upstream in trial.upstreams[:count]:
            upstream.turn_bad()
        if seconds:
            trial.sleep(seconds)
            for upstream in trial.upstreams[:count]:
                upstream.turn_good()
    return body


def fail_all(trial):
    """While somebody asks for one name again and again."""
    trial.sleep(1)
    trial.darken()
    for upstream in trial.upstreams:
        upstream.turn_bad()
    popular = trial.load("popular", names="hot:1:popular", rate=50, seconds=trial.seconds - 1, source=OTHERS)
    trial.sleep(20)
    for upstream in trial.upstreams:
        upstream.turn_good()
    trial.lighten()
    trial.wait()
    failed_ns = [sent for sent, _, rcode in trial.outcomes_since("back", popular) if rcode != 0]
    trial.figures["popular_failed_s"] = (max(failed_ns) - trial.moments["back"]) / 1e9 if failed_ns else 0


def be_slow_then_stall(trial):
    trial.sleep(1)
    trial.strike(unsettled_s=20)
    ask_bad(trial, "late", 25, seconds=20)
    trial.sleep(19)
    upstream = trial.busiest()
    while trial.sleep(0):
        upstream.pause()
        trial.sleep(0.8)
        upstream.resume()
        trial.sleep(1.2)


def feign_limit(trial):
    """Whoever takes the close for the server's own limit takes it to be ten."""
    for turn in range(3):
        for names, count in ((f"unique:ten{turn}", 10), (f"unique:one{turn}:close", 1)):
            trial.load(f"{count}-{turn}", names=names, rate=100, seconds=count / 100 - 0.005, source=OTHERS).wait()


def count_connects(trial):
    trial.sleep(1)
    before = trial.total_counts()["connections"]
    trial.main_load.wait()
    trial.figures["connects_later"] = trial.total_counts()["connections"] - before


def reload_others(trial):
    """The first upstream stays, of the others some, in any order, with any strategy; and a broken file in between. In the
    end all are there, so that what is counted at them can be compared."""
    chance = random.Random(1)
    first, *others = trial.upstreams
    connections = first.counts()["connections"]
    trial.has_other_upstreams = True
    while trial.sleep(1):
        trial.sample()
        trial.proxy.reload(text="upstreams: [" if chance.random() < 0.5 else "upstreams: []\nallow: [nobody]\n")
        if not trial.sleep(1):
            break
        chosen = [first, *(other for other in others if chance.random() < 0.5)]
        chance.shuffle(chosen)
        trial.proxy.reload({"upstreams": [upstream.url() for upstream in chosen], "strategy": chance.choice(STRATEGIES)})
    trial.figures["connects_to_first"] = first.counts()["connections"] - connections
    trial.proxy.reload_and_wait({"upstreams": [upstream.url() for upstream in trial.upstreams]})
    trial.figures["reloads"] = trial.proxy.metric("dnsproxy_config_generation") - 1


# --- All of it at random ----------------------------------------------------------------------------------------------

def strike_all(trial):
    """Each fault hits all upstreams while as many lookups and queries wait as may, so that the memory of a later burst has
    been taken before: each new name is a lookup; a hot one is joined by many queries."""
    rate, seconds = (1_000, 0.1) if trial.is_short else (100_000, 2)
    for fault, (begin, end) in FAULTS.items():
        trial.darken()
        for upstream in trial.upstreams:
            begin(upstream)
        for names in (f"unique:{fault}", "hot:5000"):
            trial.load(f"{fault}-{names[:3]}", rate=rate, seconds=seconds, names=names).wait()
        for upstream in trial.upstreams:
            end(upstream)
        trial.lighten()


def soak(trial):
    """One upstream at a time suffers, or all at once; in between the daemon is looked at."""
    chance = random.Random(1)
    client = trial.keep(faults.MuteClient(trial.proxy.port))
    trial.figures["faults"] = 0
    while trial.sleep(chance.uniform(0.3, 1.0)):
        trial.sample()
        client.push()
        victims = trial.upstreams if chance.random() < 0.1 else [chance.choice(trial.upstreams)]
        name, (begin, end) = chance.choice(list(FAULTS.items()))
        who = ", ".join(str(trial.upstreams.index(upstream)) for upstream in victims)
        if len(victims) > 1:
            trial.darken()
        trial.tell(f"{name} of {who} begins")
        for upstream in victims:
            begin(upstream)
        trial.sleep(chance.uniform(0.2, 3))
        trial.tell(f"{name} of {who} ends")
        for upstream in victims:
            end(upstream)
        if len(victims) > 1:
            trial.lighten()
        trial.figures["faults"] += 1
    client.stop()


Upstream = faults.Upstream
FAULTS = {
    "kill": (Upstream.kill, Upstream.start),
    "stop": (Upstream.pause, Upstream.resume),
    "cut": (lambda upstream: upstream.link.cut(), lambda upstream: upstream.link.mend()),
    "unplug": (lambda upstream: upstream.link.unplug(), lambda upstream: upstream.link.plug()),
    "expire": (lambda upstream: upstream.become(certificate="expired"), Upstream.become),
    "close": (lambda upstream: upstream.become("--close-after", 50), Upstream.become),
    "reset": (lambda upstream: upstream.become("--reset-after", 50), Upstream.become),
    "slow": (lambda upstream: upstream.become("--slow-ms", 20), Upstream.become),
}

CLOSING = at_most(connects_per_close=2) | at_least(resumption=0.95)
BACK = {"lost": (0, False), "failed": (0, False), "recovered_s": (1, False)}
HITS = "hot:100"
SHARED = {name: (bound, False) for name, bound in {
    "misses_failed": 0.01, "tcp_misses_failed": 0.01, "hit_max_ms": 50, "tcp_hit_max_ms": 50, "seen_down": 0,
    "peak_over_ceiling": 1}.items()}
ONE_PERCENT = {"failed_share": (0.01, False)}
GROWTH = {"memory_growth": (0.02, False), "descriptors_growth": (2, False)}
PEAKS = GROWTH | {"memory_growth": (0.1, False)}  # up to 1 MiB of 13: what the allocator keeps of the highest peak

SCENARIOS = {scenario.name: scenario for scenario in (
    *(Scenario(f"kill-{strategy}", "F18", "one of two upstreams is killed every second, for half a second", kill_first,
               2000, 16, at_most(p999_ms=25), strategy=strategy) for strategy in STRATEGIES),
    Scenario("kill-in-turn", "F18", "the same, one after the other", kill_in_turn, 2000, 16, at_most(p999_ms=25)),
    *(Scenario(f"stop-{strategy}", "F5", "one of two upstreams is stopped for 0.8 s of every second", stop_first, 2000,
               16, at_most(max_ms=50, extra=0.05), strategy=strategy) for strategy in STRATEGIES),
    Scenario("close", "F3", "every connection is closed behind its 50th answer", closing, 5000, 10, CLOSING,
             options=(("--close-after", 50),) * 2),
    Scenario("close-pause", "F3", "the same, and the daemon itself is stopped for 0.1 s of every second",
             closing_and_pausing, 5000, 10, at_most(max_ms=250), options=(("--close-after", 50),) * 2, short_rate=500),
    Scenario("reset", "F8", "every connection is reset within its 50th answer", closing, 5000, 10, CLOSING,
             options=(("--reset-after", 50),) * 2),
    Scenario("blackhole-busiest", "F5", "the busiest of three upstreams falls silent, and is back", cut_busiest, 10000,
             9, at_most(noticed_s=1, max_ms=1000), upstreams=3, has_links=True),
    Scenario("blackhole-only", "F5_J8", "the only upstream falls silent, and is back", cut_all, 1000, 12, BACK,
             upstreams=1, has_links=True, short_seconds=4),
    Scenario("link", "J8", "one of two links goes down and up", unplug_first, 2000, 9, at_most(max_ms=1000),
             has_links=True),
    Scenario("link-all", "J8", "all links go down, and are back", unplug_all, 1000, 12, BACK, has_links=True,
             short_seconds=4),
    Scenario("certificate", "E1", "one of two upstreams shows a wrong certificate for a while", spoil_certificate, 2000,
             12, at_most(told_the_wrong_one=0), always=("lost", "failed", "told_the_wrong_one")),
    Scenario("dead", "F18", "all upstreams are dead, and are back", kill_all, 500, 68, BACK | at_most(failure_p50_ms=10),
             short_seconds=4),
    # What waits in the slow one's buffers is asked elsewhere after timeouts.request, 1 s.
    Scenario("slow", "F16_B4", "one of two upstreams reads slowly, and one client does not read at all",
             push_mute_client, 2000, 10, at_most(max_ms=1100), options=(("--slow-ms", 50),), strategy="weighted"),
    Scenario("flood", "I4", "cache hits, while ten times as many new names wait for dead upstreams", flood, 2000, 12,
             at_most(flood_p99_ms=2), names="hot:100"),
    *(Scenario(name, label, text, body, rate, 9, SHARED, prepare=fill_cache, upstreams=1,
               source=OTHERS, has_clients=True, short_rate=50, always=("misses_failed", "tcp_misses_failed"))
      for name, label, text, body, rate in (
        ("greedy-tcp", "K5", "one TCP client asks for one name that is never answered, on all connections that it gets",
         join_one_name, 250),
        ("huge-unread", "K6", "500 TCP connections wait for one answer of 64 KB, 15 times each, and do not read it",
         leave_huge_answers, 250),
        ("never-answered", "K5", "one UDP client asks for 1,200 names a second that are never answered",
         ask_for_the_silent, 250),
        ("forged-2000", "K5", "2,000 names a second that are never answered, each from another address",
         lambda trial: forge(trial, 2000), 125),
        ("forged-5000", "K5", "the same with 5,000", lambda trial: forge(trial, 5000), 125))),
    Scenario("idle-admin", "K5", "32 idle sockets on the admin address, renewed", fill_admin, 500, 6,
             at_most(scrapes_failed=0, scrape_max_ms=1000), always=("lost", "failed", "scrapes_failed")),
    *(Scenario(f"closer-{name}", "K1", f"{rate} names a second that make the upstream close{text}",
               beside_bad("close", rate, **how), 500, 15, at_most(p99_by_calm=by_calm) if by_calm else at_most(),
               upstreams=upstreams, far_ms=far_ms, source=OTHERS, has_clients=True, short_seconds=0)
      for name, rate, upstreams, far_ms, by_calm, text, how in (
        ("5-one", 5, 1, 5, None, ", 5 ms away", {}),
        ("50-two", 50, 2, 5, 3, ", 5 ms away", {}),
        ("200-four", 200, 4, 5, 3, ", 5 ms away", {}),
        ("20-far", 20, 1, 40, 3, ", 40 ms away", {}),
        ("200-far", 200, 2, 40, 3, ", 40 ms away", {}),
        ("other-address", 200, 2, 40, 1.5, ", from another address", {"source": GREEDY}),
        ("other-suffix", 200, 2, 40, 1.5, ", under another suffix", {"tag": "other"}))),
    *(Scenario(f"runt-{name}", "F8", "a name a second whose answer is of 1 to 11 octets", beside_bad("runt", 1), 100, 13,
               at_most(), upstreams=upstreams, far_ms=40, source=OTHERS, has_clients=True, short_rate=100, short_seconds=5)
      for name, upstreams in (("one", 1), ("two", 2))),
    *(Scenario(f"restart-{name}", "K3", f"all upstreams are away for {away_s:g} s", restart_all(away_s), 500, 11,
               at_most(convicted=0), upstreams=upstreams, far_ms=5, source=OTHERS, has_clients=True, short_seconds=0)
      for name, away_s, upstreams in (
        ("50ms", 0.05, 1), ("300ms", 0.3, 1), ("2500ms", 2.5, 1), ("2500ms-two", 2.5, 2))),
    Scenario("accepts-and-closes", "K3", "the only upstream closes every connection at once for 3 s", turn_bad(1, 3), 500,
             11, at_most(convicted=0), upstreams=1, options=(("--shut", "--at-signal"),), far_ms=5, source=OTHERS,
             has_clients=True, short_seconds=0),
    *(Scenario(f"quick-errors-{name}", "K4", f"two of {name} upstreams answer SERVFAIL in 1 ms, the others well in 20 ms",
               turn_bad(2), 500, 13, ONE_PERCENT, upstreams=upstreams,
               options=(("--delay-us", 20000, "--fail-us", 1000, "--at-signal"),) * upstreams, source=OTHERS,
               has_clients=True, short_seconds=0)
      for name, upstreams in (("three", 3), ("four", 4))),
    *(Scenario(f"in-order-{name}", "K8", f"an upstream answers in order on a connection, {text}", beside_bad(deed, rate), 50,
               CALM_S + 20, ONE_PERCENT, upstreams=1, options=(("--in-order", "--late-ms", 2000),), source=OTHERS,
               has_clients=True, short_seconds=0)
      for name, deed, rate, text in (("slow", "late", 1, "a name a second after 2 s"),
                                     ("silent", "mute", 0.2, "a name each 5 s never"))),
    *(Scenario(f"closes-each-50th-{rate}", "K2", "an upstream closes each connection behind its 50th answer", turn_bad(1),
               rate, 13, at_most(convicted=0, p99_by_calm=3), upstreams=1,
               options=(("--close-after", 50, "--at-signal"),), far_ms=40, source=OTHERS, has_clients=True, short_seconds=0)
      for rate in (1000, 5000)),
    Scenario("slow-servfail", "K7", "a name each 3 s is answered with SERVFAIL after 3 s; upstreams of 5 and 100 ms",
             beside_bad("fail", 1 / 3), 50, CALM_S + 18, {"fault_p50_ms": (12, False), "fault_p95_ms": (30, False)},
             options=(("--late-ms", 3000), ("--late-ms", 3000, "--delay-us", 100000)), source=OTHERS, has_clients=True,
             short_seconds=0),
    Scenario("slow-names-then-stall", "K7", "25 names of 1.5 s a second for 20 s, then one of two upstreams is stopped for "
             "0.8 s of each 2 s", be_slow_then_stall, 100, 27, {"fault_p95_ms": (60, False)}, far_ms=5,
             options=(("--late-ms", 1500),) * 2, source=OTHERS, has_clients=True, short_seconds=0),
    Scenario("closes-after-ten-suspected", "K9", "three times an upstream closed on a name behind ten others",
             count_connects, 500, 6, at_most(connects_later=0), prepare=feign_limit, upstreams=1, far_ms=5, source=OTHERS,
             has_clients=True, short_seconds=0),
    Scenario("servfail-20s", "K10", "SERVFAIL for everything for 20 s, then well", fail_all, 500, 28,
             {"popular_failed_s": (5, False)}, options=(("--fail-us", 5000, "--at-signal"),) * 2, source=OTHERS,
             has_clients=True, short_seconds=0),
    Scenario("ten-connections", "K1_K9", "5 names a second that make an upstream close that admits ten connections",
             beside_bad("close", 5), 300, 15, at_most(), upstreams=1, options=(("--admit", 10),), far_ms=40, source=OTHERS,
             has_clients=True, short_seconds=0),
    Scenario("reload", "J1_I3", "every other second a reload with other upstreams and another strategy, and a broken file in "
             "between", reload_others, 10_000, 60, at_most(connects_to_first=1) | at_least(reloads=20) | PEAKS, upstreams=4,
             names="zipf:200000:1.0", config={"cache": {"size": "1MiB"}}, short_seconds=6),
    Scenario("soak", "I3", "all of that at random, at half of the maximum rate", soak, 0, 120,
             at_most(overflow=0) | GROWTH, prepare=strike_all, upstreams=3, has_links=True, names="zipf:200000:1.0",
             config={"cache": {"size": "8MiB"}}, log_over_ms=1000, short_rate=300, short_seconds=6, always=("lost",)),
)}


# --- Running ----------------------------------------------------------------------------------------------------------

def missed(scenario, figures, is_short):
    """The targets that are missed, in words."""
    found = list(figures["inconsistent"])
    for figure, (bound, is_least) in scenario.targets.items():
        if is_short and figure not in scenario.always:
            continue
        value = figures.get(figure)
        if value is None or (value < bound if is_least else value > bound):
            found.append(f"{figure} {number(value)}, not {'≥' if is_least else '≤'} {number(bound)}")
    return found


def number(value):
    if value is None:
        return "-"
    return f"{value:,.0f}" if value == int(value) or abs(value) >= 1000 else f"{value:.3g}"


COLUMNS = ("lost", "failed", "p50_ms", "p99_ms", "p999_ms", "max_ms", "extra", "connects", "resumption")
HIDDEN = ("sent", "servfail", "wrong", "send_delay_ms", "extra_requests", "inconsistent", "missed", "story")  # of the table
NAME_WIDTH = max(map(len, SCENARIOS)) + 1


def heading():
    return f"{'scenario':<{NAME_WIDTH}}" + "".join(f"{column.removesuffix('_ms'):>11}" for column in COLUMNS) + "  targets"


def line(scenario, figures):
    further = [f"{name} {number(value)}" for name, value in figures.items() if name not in COLUMNS + HIDDEN]
    verdict = "MISSED: " + "; ".join(figures["missed"]) if figures["missed"] else "met"
    return (f"{scenario.name:<{NAME_WIDTH}}" + "".join(f"{number(figures.get(column)):>11}" for column in COLUMNS) +
            f"  {verdict}" + (f" ({', '.join(further)})" if further else ""))


def lacking(scenario, is_apart):
    """What a scenario needs and is not there, in words."""
    if (scenario.has_links or scenario.far_ms or scenario.has_clients) and not is_apart:
        return "making a network namespace is not allowed here"
    if scenario.far_ms and not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        return "there is no /dev/net/tun here"
    return None


def run_all(arguments, certificates):
    """True when every target is met."""
    kept, lines, is_met = {}, [heading()], True
    print(lines[0], flush=True)
    for name in arguments.scenarios:
        scenario = SCENARIOS[name]
        if lack := lacking(scenario, arguments.is_apart):
            lines.append(f"{name:<{NAME_WIDTH}} left out: {lack}")
        else:
            figures = faults.run(scenario, arguments, certificates)
            figures["missed"] = missed(scenario, figures, arguments.short)
            is_met = is_met and not figures["missed"]
            kept[name] = figures
            lines.append(line(scenario, figures))
        print(lines[-1], flush=True)
    arguments.results.mkdir(parents=True, exist_ok=True)
    (arguments.results / "chaos.json").write_text(json.dumps(kept, indent=1) + "\n")
    (arguments.results / "table.txt").write_text("\n".join(lines) + "\n")
    return is_met


def parse_arguments():
    parser = argparse.ArgumentParser(prog="./dev chaos", description="Runs the daemon while upstreams and links fail.")
    parser.add_argument("binary", help=argparse.SUPPRESS)
    parser.add_argument("tools", help=argparse.SUPPRESS, type=Path)
    parser.add_argument("results", help=argparse.SUPPRESS, type=Path)
    parser.add_argument("--list", action="store_true", help="the scenarios and their targets")
    parser.add_argument("--short", action="store_true", help="as the tests do: shorter, and no targets of time")
    parser.add_argument("--seconds", type=float, help="of each scenario")
    parser.add_argument("--workers", type=int, default=1, help="of the daemon (1)")
    parser.add_argument("--strategy", choices=STRATEGIES, help="for all instead of the scenario's own")
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help="all when none is named; kill is all of kill-*")
    arguments = parser.parse_intermixed_args()
    wanted = []
    for word in arguments.scenarios or SCENARIOS:
        found = [word] if word in SCENARIOS else [name for name in SCENARIOS if name.startswith(word + "-")]
        if not found:
            parser.error(f"no scenario {word}; there are {', '.join(SCENARIOS)}")
        wanted += found
    arguments.scenarios = wanted
    return arguments


def show_list():
    for scenario in SCENARIOS.values():
        targets = ", ".join(f"{figure} {'≥' if is_least else '≤'} {number(bound)}"
                            for figure, (bound, is_least) in scenario.targets.items())
        rate = f"{scenario.rate:,} q/s" if scenario.rate else "half of the maximum rate"
        print(f"{scenario.name:<{NAME_WIDTH}}{scenario.text}: {rate}, {scenario.seconds:g} s; {targets}")


def main():
    arguments = parse_arguments()
    if arguments.list:
        show_list()
        return
    arguments.is_apart = faults.go_apart()
    os.environ["DNSPROXY"] = str(Path(arguments.binary).resolve())
    with tempfile.TemporaryDirectory() as directory:
        if not run_all(arguments, pki.Pki(Path(directory))):
            sys.exit(1)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
