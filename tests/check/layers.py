#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Checks that includes in src/ go only downward, and among the files of a directory in no circle; prints file:line and
the rule that is broken. A file is X.c with X.h.

The rules are those of ARCHITECTURE.md ("Layers"). With --self-test it checks itself on small trees."""

import re
import sys
import tempfile
from pathlib import Path

# Directories and the files at the root of src/, lowest rank first. What stands on one line has one rank.
RANKS = [
    ["base"],
    ["config", "observe", "dns", "net"],
    ["cache", "upstream"],
    ["query"],
    ["listen"],
    ["worker", "control"],
    ["main"],
]
RANK_OF = {unit: rank for rank, units in enumerate(RANKS) for unit in units}

# Plain data and one-way sinks that every layer above base may see.
OPEN_HEADERS = {"config/config.h", "observe/log.h", "observe/metrics.h", "observe/metrics.def"}

# Of these directories others see no more than this.
PUBLIC = {"upstream": {"upstream/admission.h", "upstream/ask.h", "upstream/upstream.h"}}

# Headers of the C library and of Linux; whatever else stands in angle brackets is third-party.
SYSTEM_DIRECTORIES = {"sys", "netinet", "arpa", "linux", "net"}
SYSTEM_HEADERS = """
    assert ctype dirent endian errno fcntl fnmatch getopt grp ifaddrs inttypes limits locale malloc math netdb poll
    pthread pwd sched signal spawn stdalign stdarg stdatomic stdbool stddef stdint stdio stdlib string strings
    syslog termios threads time ucontext unistd
""".split()

INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')


def unit_of(path):
    """The directory a file of src/ belongs to, or its own name for a file at the root."""
    parts = Path(path).parts
    return parts[0] if len(parts) > 1 else Path(path).stem


def is_system(header):
    directory, _, _ = header.rpartition("/")
    if directory:
        return header.split("/")[0] in SYSTEM_DIRECTORIES
    return header.removesuffix(".h") in SYSTEM_HEADERS


def judge_own(source, header, tree):
    """The rule that `source` breaks by including our own `header`, or None."""
    own, other = unit_of(source), unit_of(header)
    if not (tree / header).exists():
        return f'"{header}" is not in src/: write the path from src/ on'
    if other not in RANK_OF:
        return f"{other}/ has no rank: say in ARCHITECTURE.md and here which layer it joins"
    if own == other:
        return None
    if header not in PUBLIC.get(other, {header}):
        return f"{header} is private to {other}/"
    if header in OPEN_HEADERS and RANK_OF[own] > RANK_OF["base"]:
        return None
    if RANK_OF[own] == RANK_OF[other]:
        return f"{own} and {other} have one rank and do not include each other"
    if RANK_OF[own] < RANK_OF[other]:
        return f"{own} is below {other}: includes go only downward"
    return None


def circles(includes):
    """The circles among files, each as a way from its first file, in the order of the alphabet, back to it."""
    found = []

    def walk(way, done):
        for other in sorted(includes.get(way[-1], {})):
            if other == way[0]:
                found.append(way)
                return True
            if other > way[0] and other not in done:
                done.add(other)
                if walk([*way, other], done):
                    return True
        return False

    for first in sorted(includes):
        walk([first], set())
    return found


def check(tree):
    """All breaches in `tree` (a src/ directory) as "file:line: rule"."""
    breaches = []
    includes = {}  # file without its ending -> {file of the same directory that it includes: first place}
    users = {}  # library -> {file: first place}
    for path in sorted(p for p in tree.rglob("*") if p.suffix in {".c", ".h", ".def"}):
        source = path.relative_to(tree).as_posix()
        if unit_of(source) not in RANK_OF:
            breaches.append(f"src/{source}:1: {unit_of(source)} has no rank: say in ARCHITECTURE.md and in "
                            "tests/check/layers.py which layer it joins")
            continue
        for number, line in enumerate(path.read_text().splitlines(), 1):
            match = INCLUDE.match(line)
            if not match:
                continue
            place = f"src/{source}:{number}"
            if match[1] == '"':
                rule = judge_own(source, match[2], tree)
                if rule:
                    breaches.append(f"{place}: {rule}")
                own, other = (Path(file).with_suffix("").as_posix() for file in (source, match[2]))
                if own != other and unit_of(source) == unit_of(match[2]):
                    includes.setdefault(own, {}).setdefault(other, place)
            elif not is_system(match[2]):
                library = match[2].split("/")[0].removesuffix(".h")
                users.setdefault(library, {}).setdefault(source, place)
                if path.suffix != ".c":
                    breaches.append(f"{place}: <{match[2]}> is third-party and may not be included by a header")
    for way in circles(includes):
        breaches.append(f"{includes[way[0]][way[1]]}: a circle of files: {' -> '.join([*way, way[0]])}; what goes up goes "
                        "through a function pointer declared below")
    for library, places in sorted(users.items()):
        for source, place in list(places.items())[1:]:
            breaches.append(f"{place}: {library} is included by {next(iter(places))} already, "
                            "and each third-party library by exactly one .c file")
    return breaches


SELF_TEST = [
    # files of a tree, the breaches expected
    ({"base/a.h": "", "config/config.h": '#include "base/a.h"\n', "net/n.c": '#include "config/config.h"\n#include <errno.h>\n',
      "net/tls.c": "#include <openssl/ssl.h>\n#include <openssl/x509.h>\n", "worker.h": "", "main.c": '#include "worker.h"\n',
      "upstream/path.h": "", "upstream/u.c": '#include "upstream/path.h"\n', "query/q.c": '#include "upstream/ask.h"\n',
      "upstream/ask.h": '#include "upstream/path.h"\n'}, []),
    ({"base/a.c": '// one line\n#include "net/n.h"\n', "net/n.h": ""},
     ["src/base/a.c:2: base is below net: includes go only downward"]),
    ({"base/a.c": '#include "config/config.h"\n', "config/config.h": ""},
     ["src/base/a.c:1: base is below config: includes go only downward"]),
    ({"dns/d.c": '#include "net/n.h"\n', "net/n.h": ""},
     ["src/dns/d.c:1: dns and net have one rank and do not include each other"]),
    ({"query/q.c": '#include "upstream/path.h"\n', "upstream/path.h": ""},
     ["src/query/q.c:1: upstream/path.h is private to upstream/"]),
    ({"net/a.c": '#include "net/a.h"\n#include "net/b.h"\n', "net/a.h": "", "net/b.h": '#include "net/c.h"\n',
      "net/c.h": "", "net/c.c": '#include "net/c.h"\n#include "net/a.h"\n', "net/d.h": '#include "net/a.h"\n'},
     ["src/net/a.c:2: a circle of files: net/a -> net/b -> net/c -> net/a; what goes up goes through a function pointer "
      "declared below"]),
    ({"query/z.h": '#include "query/y.h"\n', "query/y.c": '#include "query/x.h"\n#include "query/z.h"\n', "query/y.h": "",
      "query/x.h": ""},
     ["src/query/y.c:2: a circle of files: query/y -> query/z -> query/y; what goes up goes through a function pointer "
      "declared below"]),
    ({"net/tls.c": "#include <openssl/ssl.h>\n", "worker.c": "#include <openssl/err.h>\n"},
     ["src/worker.c:1: openssl is included by net/tls.c already, and each third-party library by exactly one .c file"]),
    ({"net/tls.h": "#include <openssl/ssl.h>\n"},
     ["src/net/tls.h:1: <openssl/ssl.h> is third-party and may not be included by a header"]),
    ({"extra/e.c": ""},
     ["src/extra/e.c:1: extra has no rank: say in ARCHITECTURE.md and in tests/check/layers.py which layer it joins"]),
    ({"net/n.c": '#include "loop.h"\n', "net/loop.h": ""},
     ['src/net/n.c:1: "loop.h" is not in src/: write the path from src/ on']),
]


def self_test():
    for files, expected in SELF_TEST:
        with tempfile.TemporaryDirectory() as name:
            for file, text in files.items():
                path = Path(name) / file
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
            found = check(Path(name))
        if found != expected:
            return [f"self-test: expected {expected}, found {found}"]
    return []


def main():
    tree = Path(__file__).resolve().parents[2] / "src"
    breaches = self_test() if "--self-test" in sys.argv[1:] else check(tree)
    print("\n".join(breaches))
    return 1 if breaches else 0


sys.exit(main())
