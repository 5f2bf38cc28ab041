#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""./dev chaos: the daemon under constant load while its upstreams and links fail, and what of that a client notices.

usage: chaos.py BINARY TOOLS RESULTS [--list] [--short] [--seconds S] [--workers N] [SCENARIO]...

Each scenario is a row of SCENARIOS: how many questions a second, which upstreams, what happens to them meanwhile (a
function of a Trial of faults.py), and the targets. Questions leave on a schedule whatever comes back, and latency counts
from the schedule. All runs in a network namespace of its own, where that is allowed. RESULTS gets chaos.json and
table.txt; the exit status is 1 when a target is missed."""

import argparse
import dataclasses
import json
import os
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests" / "scenario"), str(ROOT / "bench")]

import faults  # noqa: E402  (the path comes first)
from support import pki  # noqa: E402

STRATEGIES = ("fastest", "ordered", "weighted", "hash")


@dataclasses.dataclass
class Scenario:
    """`targets`: {figure: (the bound, True when it is the least that will do)}. `short_rate` and `short_seconds` are
    for tests, which hold only what does not depend on the machine: the targets in `always`."""
    name: str
    text: str
    body: object
    rate: int
    seconds: float
    targets: dict
    short_rate: int = 300
    short_seconds: float = 3
    always: tuple = ("lost", "failed")
    upstreams: int = 2
    options: tuple = ()  # of the upstreams
    strategy: str = "fastest"
    config: dict = dataclasses.field(default_factory=dict)
    has_links: bool = False  # each upstream behind a link of its own


def at_most(**bounds):
    return {figure: (bound, False) for figure, bound in ({"lost": 0, "failed": 0} | bounds).items()}


def at_least(**bounds):
    return {figure: (bound, True) for figure, bound in bounds.items()}


# --- What happens -----------------------------------------------------------------------------------------------------

def kill_first(trial):
    """The first upstream is gone for the second half of every second."""
    while trial.sleep(0.5):
        trial.upstreams[0].kill()
        trial.sleep(0.5)
        trial.upstreams[0].start()


def kill_in_turn(trial):
    """The same, but another one each time."""
    while True:
        for upstream in trial.upstreams:
            if not trial.sleep(0.5):
                return
            upstream.kill()
            trial.sleep(0.5)
            upstream.start()


def stop_first(trial):
    """SIGSTOP for 0.8 s of every second."""
    while trial.sleep(0.2):
        trial.upstreams[0].pause()
        trial.sleep(0.8)
        trial.upstreams[0].resume()


def nothing(trial):
    """The upstreams are bad enough by themselves."""
    while trial.sleep(1):
        pass


def closing(trial):
    nothing(trial)
    trial.figures["connects_per_close"] = trial.connects() / max(1, trial.asked() / 50)


SCENARIOS = {scenario.name: scenario for scenario in (
    *(Scenario(f"kill-{strategy}", "one of two upstreams SIGKILLed every second, for half a second", kill_first, 2000, 16,
               at_most(p999_ms=25), strategy=strategy) for strategy in STRATEGIES),
    Scenario("kill-in-turn", "the two killed in turn", kill_in_turn, 2000, 16, at_most(p999_ms=25)),
    *(Scenario(f"stop-{strategy}", "one of two upstreams SIGSTOPped for 0.8 s of every second", stop_first, 2000, 16,
               at_most(max_ms=50, extra=0.05), strategy=strategy) for strategy in STRATEGIES),
    Scenario("close", "every connection closed behind its 50th answer", closing, 5000, 10,
             at_most(connects_per_close=2) | at_least(resumption=0.95), options=("--close-after", 50)),
    Scenario("reset", "every connection reset within its 50th answer", closing, 5000, 10,
             at_most(connects_per_close=2) | at_least(resumption=0.95), options=("--reset-after", 50)),
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
FURTHER = ("connects_per_close",)


def heading():
    return f"{'scenario':<18}" + "".join(f"{column.removesuffix('_ms'):>11}" for column in COLUMNS) + "  targets"


def line(scenario, figures, faults_found):
    further = [f"{name} {number(figures[name])}" for name in figures if name not in COLUMNS and
               isinstance(figures[name], (int, float)) and name in scenario.targets]
    verdict = "MISSED: " + "; ".join(faults_found) if faults_found else "met"
    return (f"{scenario.name:<18}" + "".join(f"{number(figures.get(column)):>11}" for column in COLUMNS) +
            "  " + "; ".join([verdict, *further]))


def run_all(arguments, certificates):
    """True when every target is met."""
    kept, lines, is_met = {}, [heading()], True
    print(lines[0], flush=True)
    for name in arguments.scenarios:
        scenario = SCENARIOS[name]
        if scenario.has_links and not arguments.is_apart:
            lines.append(f"{name:<18} left out: making a network namespace is not allowed here")
        else:
            figures = faults.run(scenario, arguments, certificates)
            figures["missed"] = missed(scenario, figures, arguments.short)
            is_met = is_met and not figures["missed"]
            kept[name] = figures
            lines.append(line(scenario, figures, figures["missed"]))
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
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help="all when none is named; kill is all of kill-*")
    arguments = parser.parse_intermixed_args()
    wanted = [name for word in arguments.scenarios or SCENARIOS
              for name in SCENARIOS if name == word or name.startswith(word + "-")]
    if len(wanted) < len(arguments.scenarios):
        parser.error(f"there are {', '.join(SCENARIOS)}")
    arguments.scenarios = wanted
    return arguments


def show_list():
    for scenario in SCENARIOS.values():
        targets = ", ".join(f"{figure} {'≥' if is_least else '≤'} {number(bound)}"
                            for figure, (bound, is_least) in scenario.targets.items())
        print(f"{scenario.name:<18}{scenario.text}: {scenario.rate:,} q/s, {scenario.seconds:g} s; {targets}")


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
    main()
