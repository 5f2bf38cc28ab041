#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Checks, without Docker, that the image can be built from what .dockerignore lets through: its files alone are
configured as the Dockerfile says, and nothing is missing of what the program is built from. The image itself is made
by tests/container/run.py."""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def copy_context(to):
    for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines():
        if line.startswith("!"):
            path = ROOT / line[1:]
            (shutil.copytree if path.is_dir() else shutil.copy)(path, to / path.name)


def build_command(directory):
    """The Dockerfile's, in `directory`, except that ninja only looks whether everything is there."""
    command, = (line for line in (ROOT / "Dockerfile").read_text(encoding="utf-8").splitlines()
                if line.startswith("RUN meson setup /build "))
    return command.removeprefix("RUN ").replace("/build ", f"{directory} ").replace("ninja ", "ninja -n ")


def main():
    with tempfile.TemporaryDirectory() as directory:
        source, build = Path(directory) / "source", Path(directory) / "build"
        source.mkdir()
        copy_context(source)
        done = subprocess.run(build_command(build), shell=True, cwd=source, check=False)
    if done.returncode != 0:
        sys.exit("image: the build needs a file that .dockerignore keeps out")


if __name__ == "__main__":
    main()
