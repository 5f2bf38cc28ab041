#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Checks docs/promises.md against src/ and tests/: each label that they use has its row there.

A label is a fault's (a letter and a number, such as F10) or an RFC's, with the section when one is named. A row says what
is promised, where it is held (functions and files of src/) and by which tests; the last column is what the tests' names say,
and --write renews it. With --self-test it checks itself on small trees."""

import re
import sys
import tempfile
from pathlib import Path

PAGE = "docs/promises.md"
PLACES = {"src": (".c", ".h", ".def"), "tests": (".c", ".h", ".py", ".txt")}
LETTERS = "A-L"

# "FAULTS A2, B10" and "(G11)" in comments, test_F2_... and F2_... as names of tests.
FAULTS = re.compile(rf"\bFAULTS((?:(?:,| and|)\s+[{LETTERS}]\d{{1,2}}\b)+)|\(([{LETTERS}]\d{{1,2}})\)")
FAULT = re.compile(rf"[{LETTERS}]\d{{1,2}}")
TEST_NAME = re.compile(rf"\b(?:test_)?((?:(?:[{LETTERS}]\d{{1,2}}|RFC\d{{3,5}}(?:_\d{{1,2}})*)_)+)(?=[a-z])")
IN_NAME = re.compile(rf"RFC(\d{{3,5}})((?:_\d{{1,2}})*)|([{LETTERS}]\d{{1,2}})")

# "RFC 7766 6.2.1", "RFC: 7858, 7766 6.2 and 7 (pipelining), 7828": numbers of three digits and more are RFCs.
RFC = re.compile(r"\bRFCs?:?\s*(?=\d{3})")
NEXT = re.compile(r"(?:\s*\([^()]{0,120}\))?(?:\s*,\s*|\s+and\s+|\s+to\s+|\s+)?(\d+(?:\.\d+)*|[A-F]\.\d+)\b(?!\.\d)")
# A comment's next line is the same sentence.
NEW_LINE = re.compile(r"\n[ \t]*(?:\*|//|#)?[ \t]*")


def labels_of_rfcs(text):
    found = set()
    for start in RFC.finditer(text):
        number, position, sections = None, start.end(), set()
        while match := NEXT.match(text, position):
            word = match[1]
            if word.isdigit() and len(word) >= 3:
                if number and not sections:
                    found.add(f"RFC {number}")
                number, sections = word, set()
            else:
                sections.add(word)
                found.add(f"RFC {number} {word}")
            position = match.end()
        if number and not sections:
            found.add(f"RFC {number}")
    return found


def labels_in_names(text):
    found = set()
    for name in TEST_NAME.finditer(text):
        for number, sections, fault in IN_NAME.findall(name[1]):
            found.add(fault or f"RFC {number} {sections[1:].replace('_', '.')}".strip())
    return found


def labels_in_text(text):
    text = NEW_LINE.sub(" ", text)
    found = labels_of_rfcs(text)
    for several, one in FAULTS.findall(text):
        found.update(FAULT.findall(several) or [one])
    return found


def sources(root):
    for place, endings in PLACES.items():
        for path in sorted((root / place).rglob("*")):
            if path.suffix in endings and path.name != Path(__file__).name:
                yield path.relative_to(root), path.read_text()


class Use:
    """Where each label is used, and the short names of the tests that have it in a name or mention it."""

    def __init__(self, root):
        self.first, self.named, self.mentioned = {}, {}, {}
        for path, text in sources(root):
            names = labels_in_names(text) if path.parts[0] == "tests" else set()
            for label in names | labels_in_text(text):
                self.first.setdefault(label, path)
                if path.parts[0] == "tests":
                    uses = self.named if label in names else self.mentioned
                    uses.setdefault(label, set()).add(short_name(path))

    def tests_of(self, label):
        """Those with the label in a name; without any those of its RFC, of one of its sections, or that mention it."""
        rfc = " ".join(label.split()[:2])
        of_sections = set().union(*(tests for other, tests in self.named.items() if other.startswith(f"{label} ")))
        candidates = [self.named.get(label), self.named.get(rfc), of_sections,
                      self.mentioned.get(label), self.mentioned.get(rfc)]
        return sorted(next(filter(None, candidates), []))


def short_name(path):
    return str(path.with_suffix("")).removeprefix("tests/").removeprefix("unit/")


def is_test(root, name):
    return any((root / "tests" / under / f"{name}{ending}").exists() for under in ("", "unit") for ending in (".c", ".py", ".h"))


ROW = re.compile(rf"^\| ((?:[{LETTERS}]\d{{1,2}})|(?:RFC \d+(?: [\dA-F.]+)?)) \| (.+) \| (.+) \| (.*) \|$")
CODE = re.compile(r"`([^`]+)`")


def rows_of(page):
    """Line number, label, held by, tests."""
    for number, line in enumerate(page.splitlines(), 1):
        if row := ROW.match(line):
            yield number, row[1], CODE.findall(row[3]), CODE.findall(row[4])


def words_of_source(root):
    words = set()
    for path, text in sources(root):
        if path.parts[0] == "src":
            words.update(re.findall(r"\w+", text))
    return words


def judge_row(root, use, words, label, held, tests):
    """What is wrong with one row."""
    for place in held:
        if "/" in place and not (root / "src" / place).exists():
            yield f"{label} is held by {place}, which is not in src/"
        if "/" not in place and place not in words:
            yield f"{label} is held by {place}(), which src/ does not have"
    if not held:
        yield f"{label} is held by nothing"
    if label not in use.first:
        yield f"{label} is used by nothing in src/ or tests/"
    elif expected := use.tests_of(label):
        if tests != expected:
            yield f"the tests of {label} are {', '.join(expected)}: renew them with promises.py --write"
    elif not tests:
        yield f"{label} has no test"
    for test in tests:
        if not is_test(root, test):
            yield f"{label} is kept by {test}, which is not in tests/"


def check(root):
    use, words, problems, seen = Use(root), words_of_source(root), [], set()
    for number, label, held, tests in rows_of((root / PAGE).read_text()):
        if label in seen:
            problems.append(f"{PAGE}:{number}: {label} has two rows")
        seen.add(label)
        problems += [f"{PAGE}:{number}: {problem}" for problem in judge_row(root, use, words, label, held, tests)]
    for label in sorted(use.first.keys() - seen):
        problems.append(f"{use.first[label]}: {label} has no row in {PAGE}")
    return problems


def renew(root):
    """Writes the last column of each row anew, where names of tests say what it is."""
    use, page = Use(root), root / PAGE

    def with_tests(row):
        tests = use.tests_of(row[1])
        return f"| {row[1]} | {row[2]} | {row[3]} | {', '.join(f'`{test}`' for test in tests) if tests else row[4]} |"

    page.write_text("".join(ROW.sub(with_tests, line.rstrip("\n")) + "\n" for line in page.read_text().splitlines()))


TREES = [  # files, and what is found in them
    ({"src/a.c": "/* FAULTS F1 */ int hold;\n", "tests/unit/a.c": "static void F1_it_holds(void **state)\n",
      PAGE: "| F1 | It holds. | `hold` | `a` |\n"}, []),
    ({"src/a.c": "/* (FAULTS A2,\n * B10) and (G11) */\n", PAGE: ""},
     ["src/a.c: A2 has no row", "src/a.c: B10 has no row", "src/a.c: G11 has no row"]),
    ({"src/a.c": "/* RFC: 7766 6.2 and 7 (order),\n * 7828; see RFC 8446\n * C.4, and 12 more */\n", PAGE: ""},
     ["src/a.c: RFC 7766 6.2 has no row", "src/a.c: RFC 7766 7 has no row", "src/a.c: RFC 7828 has no row",
      "src/a.c: RFC 8446 C.4 has no row"]),
    ({"tests/scenario/test_a.py": "def test_F2_RFC9520_3_1_asked_thrice(): pass\n", PAGE: ""},
     ["tests/scenario/test_a.py: F2 has no row", "tests/scenario/test_a.py: RFC 9520 3.1 has no row"]),
    ({"src/a.c": "int hold; /* FAULTS F1 */\n", PAGE: "| F1 | It holds. | `hold` |  |\n"}, [f"{PAGE}:1: F1 has no test"]),
    ({"src/a.c": "int hold; /* FAULTS F1 */\n", "tests/b.c": "\n", PAGE: "| F1 | It holds. | `held` `c/d.c` | `b`, `c` |\n"},
     [f"{PAGE}:1: F1 is held by held()", f"{PAGE}:1: F1 is held by c/d.c", f"{PAGE}:1: F1 is kept by c"]),
    ({"src/a.c": "int hold;\n", "tests/b.c": "\n", PAGE: "| F1 | It holds. | `hold` | `b` |\n" * 2},
     [f"{PAGE}:1: F1 is used by nothing", f"{PAGE}:2: F1 has two rows", f"{PAGE}:2: F1 is used by nothing"]),
    ({"src/a.c": "int hold;\n", "tests/b.c": "void F1_x(void)", "tests/c.c": "", PAGE: "| F1 | It holds. | `hold` | `c` |\n"},
     [f"{PAGE}:1: the tests of F1 are b"]),
]


def self_test():
    for files, expected in TREES:
        with tempfile.TemporaryDirectory() as directory:
            root = Path(directory)
            for name, text in files.items():
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                (root / name).write_text(text)
            found = check(root)
            if len(found) != len(expected) or not all(map(str.startswith, found, expected)):
                sys.exit(f"promises.py: found {found} instead of {expected}")
            renew(root)
            if any("the tests of" in problem for problem in check(root)):
                sys.exit(f"promises.py: --write leaves {check(root)}")


def main():
    root = Path(__file__).resolve().parents[2]
    if "--self-test" in sys.argv:
        self_test()
        return
    if "--write" in sys.argv:
        renew(root)
    problems = check(root)
    print("\n".join(problems), end="\n" if problems else "")
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
