#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Lines and branches of each directory of src/ from gcovr's JSON summary; fails when a part that handles strangers'
bytes is under its floors. Branches of asserts are not counted (see `coverage` in dev)."""

import json
import sys
from collections import defaultdict

LINES_FLOOR_PERCENT = 95
BRANCHES_FLOOR_PERCENT = 85
FLOORED = {"dns", "upstream", "cache", "query", "net/stream.c"}
FIELDS = ("line_covered", "line_total", "branch_covered", "branch_total")


def percent(covered, total):
    return 100 * covered / total if total else 100.0


def rows_of(path):
    """The rows that a file counts in."""
    parts = path.split("/")
    rows = [parts[1] if len(parts) > 2 else "main and worker", "total"]
    return rows + ["/".join(parts[1:])] if "/".join(parts[1:]) in FLOORED else rows


def main():
    with open(sys.argv[1], encoding="utf-8") as summary:
        files = json.load(summary)["files"]
    sums = defaultdict(lambda: dict.fromkeys(FIELDS, 0))
    for file in files:
        for name in rows_of(file["filename"]):
            for field in FIELDS:
                sums[name][field] += file[field]
    print(f'{"directory":16} {"lines":>8} {"branches":>9}')
    low = [f"{name}: nothing was run" for name in sorted(FLOORED - set(sums))]
    for name in sorted(sums, key=lambda name: (name == "total", name)):
        row = sums[name]
        lines = percent(row["line_covered"], row["line_total"])
        branches = percent(row["branch_covered"], row["branch_total"])
        print(f"{name:16} {lines:7.1f}% {branches:8.1f}%")
        if name in FLOORED and lines < LINES_FLOOR_PERCENT:
            low.append(f"{name}: under {LINES_FLOOR_PERCENT} % of lines")
        if name in FLOORED and branches < BRANCHES_FLOOR_PERCENT:
            low.append(f"{name}: under {BRANCHES_FLOOR_PERCENT} % of branches")
    for file in sorted(files, key=lambda file: percent(file["line_covered"], file["line_total"]))[:8]:
        print(f'  lowest: {file["filename"]} {percent(file["line_covered"], file["line_total"]):.1f}%')
    for problem in low:
        print(problem, file=sys.stderr)
    return 1 if low else 0


sys.exit(main())
