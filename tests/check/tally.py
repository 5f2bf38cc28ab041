#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Counts the test cases of a JUnit file: prints "passed failed", and the names of those that failed on stderr.

Skipped cases count as neither. A program that died before its last case has a suite-level error in the file, which
counts as one failure. A file that is missing, broken or without cases is one failure too."""

import sys
import xml.etree.ElementTree as ElementTree


def failures_of(root):
    for case in root.iter("testcase"):
        if case.find("failure") is not None or case.find("error") is not None:
            yield f'{case.get("classname") or ""}: {case.get("name")}'
    for suite in root.iter("testsuite"):
        cases_failed = any(case.find("failure") is not None or case.find("error") is not None
                           for case in suite.iter("testcase"))
        stated = int(suite.get("errors") or 0) + int(suite.get("failures") or 0)
        if stated and not cases_failed:
            yield f'{suite.get("name")}: ended early'


def main():
    try:
        root = ElementTree.parse(sys.argv[1]).getroot()
    except (OSError, ElementTree.ParseError) as error:
        print(f"  FAILED  {sys.argv[1]}: {error}", file=sys.stderr)
        print("0 1")
        return
    passed = sum(1 for case in root.iter("testcase")
                 if all(case.find(tag) is None for tag in ("failure", "error", "skipped")))
    failed = list(failures_of(root))
    if passed + len(failed) == 0:
        failed = [f"{sys.argv[1]}: no test ran"]
    for name in failed:
        print(f"  FAILED  {name}", file=sys.stderr)
    print(passed, len(failed))


main()
