# SPDX-License-Identifier: Apache-2.0
"""The scenarios of ./dev chaos (bench/chaos.py) in short: under load nothing is lost and nothing fails while upstreams
and links do, and the counters are right in the end. How long things take is not judged here."""

import json
import os
import subprocess
import sys

import pytest

from support.proxy import ROOT, binary

sys.path.append(os.path.join(ROOT, "bench"))
from chaos import SCENARIOS  # noqa: E402  (the path comes first)


@pytest.mark.parametrize("name", [pytest.param(name, id=f"{scenario.labels}_{name}")
                                  for name, scenario in SCENARIOS.items() if scenario.short_seconds])
def test_chaos(name, tmp_path):
    tools = os.path.join(os.path.dirname(binary()), "bench")
    command = [sys.executable, os.path.join(ROOT, "bench", "chaos.py"), binary(), tools, tmp_path, "--short", name]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110, check=False)
    result = tmp_path / "chaos.json"
    assert result.exists(), done.stdout + done.stderr
    figures = json.loads(result.read_text())
    if name not in figures:
        pytest.skip("network namespaces are not allowed here")
    assert figures[name]["missed"] == [], done.stdout
