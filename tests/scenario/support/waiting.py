# SPDX-License-Identifier: Apache-2.0
"""Waiting for a condition."""

import inspect
import time


def describe(condition):
    """The source line of a condition, for the message of a failed wait."""
    try:
        return inspect.getsource(condition).strip()
    except (OSError, TypeError):
        return repr(condition)


def eventually(condition, timeout=20.0, interval=0.01, explain=str):
    """Calls `condition` until it gives something true, and returns that; fails after `timeout`, with
    the text that `explain()` gives."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() >= deadline:
            raise AssertionError(f"not within {timeout} s: {describe(condition)}\n{explain()}")
        time.sleep(interval)
