# SPDX-License-Identifier: Apache-2.0
"""A network of the test's own: a loopback link with one more address."""

import contextlib
import ctypes
import os
import shutil
import subprocess

import pytest

ADDRESS = "10.9.0.1"

_CLONE_NEWNET = 0x40000000


def ip(*words):
    subprocess.run(["ip", *words], check=True, capture_output=True)


@contextlib.contextmanager
def own_network():
    """This thread, and what it starts, are in a new network namespace that has ADDRESS and 127.0.0.1."""
    libc = ctypes.CDLL(None, use_errno=True)
    if not shutil.which("ip"):
        pytest.skip("ip (iproute2) is not installed")
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    if libc.unshare(_CLONE_NEWNET) != 0:
        os.close(home)
        pytest.skip(f"no network namespaces here: {os.strerror(ctypes.get_errno())}")
    try:
        ip("link", "set", "lo", "up")
        ip("address", "add", f"{ADDRESS}/32", "dev", "lo")
        yield
    finally:
        assert libc.setns(home, _CLONE_NEWNET) == 0
        os.close(home)
