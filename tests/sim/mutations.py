#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Breaks the product on purpose, one way after another, and shows that the simulation notices each.

usage: mutations.py SCRATCH [--seeds N] [--only TEXT] [--only-fit]

The breaks are in mutations.txt. All work is done on a copy of the tree in SCRATCH, built as the simulation is. A table is
printed; the status is 1 when a break survives, does not compile, or no longer fits the code. With --only-fit nothing is
built or run but that last question."""

import argparse
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
TIMEOUT_S = 600  # of a build, or of all seeds


class Mutation:
    def __init__(self, title):
        self.title = title
        self.hunks = []  # (file, old, new)


def read_mutations(path):
    mutations, file = [], None
    for number, line in enumerate(path.read_text().splitlines(), 1):
        mark, text = line[:2], line[2:].strip() if line[:2] != "==" else line[2:].strip()
        if not line or line.startswith("#"):
            continue
        if mark == "==":
            mutations.append(Mutation(text))
        elif mark[0] == "@":
            file = text
        elif mark[0] == "-":
            hunks = mutations[-1].hunks
            if not hunks or hunks[-1][2] or hunks[-1][0] != file:
                hunks.append([file, "", ""])
            hunks[-1][1] += text + "\n"
        elif mark[0] == "+":
            mutations[-1].hunks[-1][2] += text + "\n"
        else:
            sys.exit(f"{path.name}:{number}: what is {line!r}?")
    return mutations


def broken_files(mutation):
    """{path from the root of the tree: its text, broken}, or ValueError."""
    texts = {}
    for file, old, new in mutation.hunks:
        path = f"src/{file}"
        text = texts.get(path) or (ROOT / path).read_text()
        found = list(re.finditer(r"\s+".join(map(re.escape, old.split())), text))
        if len(found) != 1:
            raise ValueError(f"{len(found)} places in {path} fit: {old.splitlines()[0]}")
        texts[path] = text[:found[0].start()] + new + text[found[0].end():]
    return texts


def write_files(tree, texts):
    for path, text in texts.items():
        (tree / path).write_text(text)


def run(command):
    """(status, output); a status of 124 when it took too long."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
        return done.returncode, done.stdout + done.stderr
    except subprocess.TimeoutExpired:
        return 124, "it took too long"


def copy_tree(tree):
    shutil.rmtree(tree, ignore_errors=True)
    tree.mkdir(parents=True)
    for path in ROOT.iterdir():
        if path.is_dir() and path.name not in (".git", "build"):
            shutil.copytree(path, tree / path.name)
        elif path.is_file():
            shutil.copy2(path, tree)


def build(tree):
    return run(["ninja", "-C", str(tree / "build"), "tests/sim"])


def simulate(binary, first, count):
    return run([str(binary), "--seed", str(first), "--seeds", str(count), "--only-find"])


def whole_of(tree):
    """The simulation without any break."""
    return tree / "build/whole-sim"


def find(tree, seeds):
    """(status, output) of the first seed that fails with the break and passes without it: what fails in any case shows
    nothing."""
    first = 1
    while True:
        status, output = simulate(tree / "build/tests/sim", first, seeds + 1 - first)
        failed = re.search(r"--seed (\d+)", output)
        if status != 1 or not failed or run([str(whole_of(tree)), "--seed", failed[1]])[0] == 0:
            return status, output
        first = int(failed[1]) + 1
        if first > seeds:
            return 0, ""


def set_up(tree):
    copy_tree(tree)
    # The simulation's assertions and the product's are enough to see what is broken; AddressSanitizer sees the rest.
    status, output = run(["env", "CC=gcc", "meson", "setup", str(tree / "build"), str(tree), "-Db_lto=false",
                          "-Db_sanitize=address,undefined", "-Dwerror=false"])
    if status == 0:
        status, output = build(tree)
    if status != 0:
        sys.exit(f"the copy does not build:\n{output[-3000:]}")
    shutil.copy2(tree / "build/tests/sim", whole_of(tree))


def judge(mutation, tree, seeds):
    """What came of it: (caught, in words)."""
    try:
        broken = broken_files(mutation)
    except ValueError as error:
        return False, str(error)
    write_files(tree, broken)
    status, output = build(tree)
    if status != 0:
        write_files(tree, {path: (ROOT / path).read_text() for path in broken})
        return False, "does not compile:\n" + output[-2000:]
    started = time.monotonic()
    status, output = find(tree, seeds)
    seconds = time.monotonic() - started
    write_files(tree, {path: (ROOT / path).read_text() for path in broken})
    if status != 1:
        return False, f"SURVIVES {seeds} seeds" if status == 0 else output[-2000:]
    command = re.search(r"--seed \d+", output)
    return True, f"{command[0] if command else 'caught':14} {seconds:5.1f} s"


def check_fit(mutations):
    status = 0
    for mutation in mutations:
        try:
            broken_files(mutation)
        except ValueError as error:
            print(f"does not fit: {mutation.title}: {error}")
            status = 1
    return status


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("scratch", type=Path)
    parser.add_argument("--seeds", type=int, default=20000)
    parser.add_argument("--only", default="")
    parser.add_argument("--only-fit", action="store_true")
    arguments = parser.parse_args()
    mutations = [m for m in read_mutations(HERE / "mutations.txt") if arguments.only in m.title]
    tree = arguments.scratch.resolve()
    if arguments.only_fit:
        return check_fit(mutations)
    set_up(tree)
    status, output = simulate(whole_of(tree), 1, min(arguments.seeds, 1000))
    if status != 0:
        sys.exit(f"the simulation fails without any break:\n{output[-3000:]}")
    caught = 0
    for mutation in mutations:
        is_caught, words = judge(mutation, tree, arguments.seeds)
        caught += is_caught
        print(f"{'caught  ' if is_caught else 'MISSED  '} {mutation.title:66} {words}", flush=True)
    print(f"{caught} of {len(mutations)} caught")
    return 0 if caught == len(mutations) else 1


sys.exit(main())
