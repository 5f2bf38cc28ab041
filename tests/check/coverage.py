#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Lines and branches of each directory of src/ from gcovr's JSON summary; fails when a directory that handles
strangers' bytes is under its floor."""

import json
import sys
from collections import defaultdict

FLOOR_PERCENT = 90
FLOORED = {"dns", "upstream", "cache", "query"}
FIELDS = ("line_covered", "line_total", "branch_covered", "branch_total")


def percent(covered, total):
    return 100 * covered / total if total else 100.0


def main():
    with open(sys.argv[1], encoding="utf-8") as summary:
        files = json.load(summary)["files"]
    sums = defaultdict(lambda: dict.fromkeys(FIELDS, 0))
    for file in files:
        parts = file["filename"].split("/")
        for name in (parts[1] if len(parts) > 2 else "main and worker", "total"):
            for field in FIELDS:
                sums[name][field] += file[field]
    print(f'{"directory":16} {"lines":>8} {"branches":>9}')
    low = []
    for name in sorted(sums, key=lambda name: (name == "total", name)):
        row = sums[name]
        lines = percent(row["line_covered"], row["line_total"])
        print(f'{name:16} {lines:7.1f}% {percent(row["branch_covered"], row["branch_total"]):8.1f}%')
        if name in FLOORED and lines < FLOOR_PERCENT:
            low.append(name)
    for file in sorted(files, key=lambda file: percent(file["line_covered"], file["line_total"]))[:8]:
        print(f'  lowest: {file["filename"]} {percent(file["line_covered"], file["line_total"]):.1f}%')
    missing = FLOORED - set(sums)
    for name in sorted(missing) + low:
        print(f"{name}: under {FLOOR_PERCENT} % of lines", file=sys.stderr)
    return 1 if low or missing else 0


sys.exit(main())
