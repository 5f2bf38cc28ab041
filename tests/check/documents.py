#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Checks that ARCHITECTURE.md and the tree tell the same story: every path it names exists, every .c file of src/ has a row in
"Where things are"; and that the links of all documents lead somewhere."""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CODE = re.compile(r"`([\w./-]+\.(?:c|h|def|py|md|build|yaml))`")
LINK = re.compile(r"\]\((?!https?:)([^)#]+)\)")


def main():
    errors = []
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    for path in sorted(set(CODE.findall(text))):
        places = [ROOT / path, ROOT / "src" / path, *(ROOT / "src").glob(f"*/{path}")]
        if not any(place.exists() for place in places):
            errors.append(f"ARCHITECTURE.md: {path} does not exist")
    rows = text.split("## Where things are", 1)[1].split("\n## ", 1)[0]
    for source in sorted((ROOT / "src").rglob("*.c")):
        name = source.relative_to(ROOT).as_posix()
        if f"`{name}`" not in rows and f"`{name.removeprefix('src/')}`" not in rows:
            errors.append(f"ARCHITECTURE.md: no row of \"Where things are\" names {name}")
    for document in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]:
        for link in LINK.findall(document.read_text(encoding="utf-8")):
            if not (document.parent / link).exists():
                errors.append(f"{document.name}: the link {link} leads nowhere")
    print("\n".join(errors))
    return 1 if errors else 0


sys.exit(main())
