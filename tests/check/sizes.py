#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Reports sizes: functions, files, asserts, product and test lines. Numbers point at places to look; nothing fails."""

import json
import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def functions(files):
    command = ["ctags", "--output-format=json", "--fields=+neFf", "--kinds-C=f", "-f", "-", *map(str, files)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    for line in output.splitlines():
        tag = json.loads(line)
        if tag.get("_type") == "tag" and "end" in tag:
            yield tag["end"] - tag["line"] + 1, tag["name"], tag["path"], tag.get("file", False)


def lines_of(files):
    return sum(len(file.read_text(errors="replace").splitlines()) for file in files)


def code_lines_of(files):
    """Those that are neither blank nor all comment."""
    comment = re.compile(r"\s*(//|/\*|\*|$)")
    return sum(1 for file in files for line in file.read_text(errors="replace").splitlines()
               if not comment.match(line))


def relative(path):
    return Path(path).relative_to(ROOT).as_posix()


def main():
    sources = sorted((ROOT / "src").rglob("*.c"))
    product = sources + sorted((ROOT / "src").rglob("*.h")) + sorted((ROOT / "src").rglob("*.def"))
    tests = [path for suffix in ("*.c", "*.h", "*.py") for path in (ROOT / "tests").rglob(suffix)]
    found = sorted(functions(sources), key=lambda function: function[0])
    if not found:
        return
    lengths = [function[0] for function in found]
    static = sum(1 for function in found if function[3])
    asserts = sum(len(re.findall(r"\bassert\(", file.read_text())) for file in sources)
    longest = max(product, key=lambda path: lines_of([path]))
    print(f"  sizes   functions {len(found)}: median {lengths[len(lengths) // 2]} lines, "
          f"95 % {lengths[len(lengths) * 95 // 100]}, longest {lengths[-1]}; "
          f"{100 * static // len(found)} % static; {asserts / len(found):.1f} asserts a function")
    print(f"          product {lines_of(product)} lines ({code_lines_of(product)} of code) in {len(product)} files, longest {relative(longest)} "
          f"({lines_of([longest])}); tests {lines_of(tests)} lines, "
          f"{lines_of(tests) / max(1, lines_of(product)):.1f} times the product")
    for length, name, path, _ in reversed(found):
        if length <= 50:
            break
        print(f"          over 50 lines: {name} in {relative(path)} ({length})")


main()
