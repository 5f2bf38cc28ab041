# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the scenario tests; see support/__init__.py."""

import contextlib
import os

import pytest

from support import ports
from support.network import own_network
from support.pki import Pki
from support.proxy import Proxy, binary
from support.upstream import Upstream


def pytest_sessionstart(session):
    if not session.config.option.collectonly and not os.access(binary(), os.X_OK):
        pytest.exit(f"no binary at {binary()}: build it, or set DNSPROXY", returncode=2)


def pytest_runtest_setup(item):
    if item.get_closest_marker("ipv6") and not ports.has_ipv6():
        pytest.skip("this machine has no IPv6")


@pytest.fixture(scope="session")
def pki(tmp_path_factory):
    return Pki(tmp_path_factory.mktemp("pki"))


@contextlib.contextmanager
def _stopping():
    """Gives a function that keeps what it is given, and stops it all at the end, last first."""
    with contextlib.ExitStack() as stack:
        def keep(thing):
            stack.callback(thing.stop)
            return thing
        yield keep


@pytest.fixture
def network():
    """The test is in a network of its own; to be named before what is to be in it."""
    with own_network():
        yield


@pytest.fixture
def start_upstream(pki):
    """start_upstream("expired", tls="1.2"): an Upstream with that certificate of pki.py."""
    with _stopping() as keep:
        yield lambda certificate="good", **how: keep(Upstream(pki[certificate], **how))


@pytest.fixture
def upstream(start_upstream):
    return start_upstream()


@pytest.fixture
def start_proxy(pki, tmp_path, start_upstream):
    """start_proxy(upstream, other, config={...}): a Proxy in front of these, stopped and checked
    at the end of the test."""
    with _stopping() as keep:
        yield lambda *upstreams, ca=pki.ca, **how: keep(
            Proxy(upstreams, ca=ca, directory=tmp_path, **how))


@pytest.fixture
def proxy(start_proxy, upstream):
    """A proxy with its defaults in front of `upstream`."""
    return start_proxy(upstream)


@pytest.fixture(scope="module")
def shared_upstream(pki):
    """For the tests of one file that leave the upstream as they found it."""
    with Upstream(pki["good"]) as upstream:
        yield upstream


@pytest.fixture(scope="module")
def shared_proxy(pki, tmp_path_factory, shared_upstream):
    """One proxy for the tests of one file that do not disturb one another: each asks names of its
    own, and compares counters only with what they were before."""
    directory = tmp_path_factory.mktemp("proxy")
    with Proxy([shared_upstream], ca=pki.ca, directory=directory, lifetime=600.0) as proxy:
        yield proxy
