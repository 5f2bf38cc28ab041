#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Counts test cases: prints "passed failed", and the names of those that failed on stderr.

usage: tally.py testlog.json    what `meson test` leaves, of programs that print TAP
       tally.py report.xml      what `pytest --junitxml` leaves

Skipped cases count as neither. A program that ends before its last case, or badly after it, is one failure more; so is
a report that is missing, broken or without cases."""

import json
import re
import sys
import xml.etree.ElementTree as ElementTree

TAP_PLAN = re.compile(r"^1\.\.(\d+)", re.MULTILINE)
TAP_CASE = re.compile(r"^(not )?ok\b[ \d-]*(.*)", re.MULTILINE)


def count_program(test):
    """(passed, names of failed) of one program's entry in testlog.json."""
    output = test.get("stdout") or ""
    plan = TAP_PLAN.search(output)
    cases = TAP_CASE.findall(output)
    skipped = sum("# SKIP" in name for _, name in cases)
    failed = [name for negation, name in cases if negation and "# SKIP" not in name]
    if not plan or len(cases) != int(plan[1]):
        failed.append("ended before its last test")
    elif test["result"] not in ("OK", "EXPECTEDFAIL") and not failed:
        failed.append("ended badly after its last test")
    passed = sum(1 for negation, name in cases if not negation and "# SKIP" not in name)
    return passed, skipped, [f'{test["name"]}: {name}' for name in failed]


def count_programs(path):
    passed, skipped, failed = 0, 0, []
    with open(path, encoding="utf-8") as log:
        for line in log:
            more_passed, more_skipped, more_failed = count_program(json.loads(line))
            passed += more_passed
            skipped += more_skipped
            failed += more_failed
    return passed, skipped, failed


def count_junit(path):
    passed, skipped, failed = 0, 0, []
    for case in ElementTree.parse(path).getroot().iter("testcase"):
        if case.find("failure") is not None or case.find("error") is not None:
            failed.append(f'{case.get("classname")}: {case.get("name")}')
        elif case.find("skipped") is not None:
            skipped += 1
        else:
            passed += 1
    return passed, skipped, failed


def main():
    path = sys.argv[1]
    try:
        passed, skipped, failed = count_programs(path) if path.endswith(".json") else count_junit(path)
        if passed + len(failed) == 0:
            failed = [f"{path}: no test ran"]
    except (OSError, ValueError, KeyError, ElementTree.ParseError) as error:
        passed, skipped, failed = 0, 0, [f"{path}: {error}"]
    for name in failed:
        print(f"  FAILED  {name}", file=sys.stderr)
    if skipped:
        print(f"  skipped {skipped}", file=sys.stderr)
    print(passed, len(failed))


main()
