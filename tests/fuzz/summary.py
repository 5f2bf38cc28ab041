#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""One line about a run of libFuzzer, from its output: summary.py TARGET LOG."""

import re
import sys


def main():
    target, path = sys.argv[1:]
    with open(path, encoding="utf-8", errors="replace") as log:
        text = log.read()
    progress = re.findall(r"^#\d+\s+\w+\s+cov: (\d+) ft: (\d+) corp: (\d+)", text, re.MULTILINE)
    executions = re.search(r"number_of_executed_units: (\d+)", text)
    edges = re.search(r"\((\d+) inline 8-bit counters\)", text)
    if not (progress and executions and edges):
        print(f"{target}: it did not run")
        return
    covered, features, inputs = progress[-1]
    print(
        f"{target}: {executions[1]} executions, {covered} of {edges[1]} edges of what is linked, {features} features, "
        f"{inputs} inputs"
    )


main()
