# SPDX-License-Identifier: Apache-2.0
"""The process: how it starts, refuses to start, logs and stops, and its commands."""

import contextlib
import datetime
import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import dns.flags
import dns.message
import dns.query
import dns.rcode
import pytest

from support import ports
from support.network import ip
from support.proxy import ROOT, binary, extended_errors, make_query
from support.upstream import never
from support.waiting import eventually

LISTEN = "127.0.0.1:5300"  # for commands that bind nothing


def run(*arguments, environment=None, timeout=30, **how):
    """A finished process with its output as text."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("DNSPROXY")}
    return subprocess.run([how.pop("program", binary()), *arguments], capture_output=True,
                          text=True, timeout=timeout, env=clean | (environment or {}),
                          stdin=subprocess.DEVNULL, check=False, **how)


def assert_refused(done, status, *parts):
    """It ended with that status and one clear line that has these parts."""
    assert done.returncode == status, done
    # A coverage build that runs as another user may not write its counts, and says so.
    lines = [line for line in done.stderr.splitlines() if line and not line.startswith("profiling:")]
    assert len(lines) == 1, done.stderr
    for part in parts:
        assert part in lines[0], lines[0]


# J2: the end

@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["term", "int"])
def test_J2_what_is_in_flight_is_answered_and_nothing_new(start_proxy, upstream, number):
    proxy = start_proxy(upstream, config={"timeouts": {"drain": "10s"}})
    proxy.query("slow-500ms.warm.test")  # so that none of these counts as late and is asked twice
    waiting = [proxy.ask_later(f"slow-500ms.drain{count}.test", tcp=count % 2 == 1)
               for count in range(60)]
    upstream.wait_for(lambda: len(set(upstream.names())) == 61)
    with proxy.tcp() as idle:
        started = time.monotonic()
        proxy.process.send_signal(number)
        proxy.wait_for_log("draining")
        assert idle.receive_raw() is None, "an idle client need not wait"
        eventually(lambda: is_refused(proxy.port))
        for reply in waiting:
            assert reply().rcode() == dns.rcode.NOERROR
    assert proxy.process.wait(10) == 0
    assert time.monotonic() - started < 8, "it waited although nothing was left"
    assert proxy.logs("stopped")
    eventually(lambda: not upstream.open_connections())
    assert upstream.connections[0].end == "close_notify"


def is_refused(port):
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) != 0


def test_J2_drain_has_an_end(start_proxy, upstream):
    upstream.on_query = never
    proxy = start_proxy(upstream, config={"timeouts": {"drain": "300ms"}})
    with proxy.tcp() as client, proxy.udp() as sock:
        client.send(make_query("silent1.test"))
        sock.send(make_query("silent2.test").to_wire())
        upstream.wait_for(lambda: len(set(upstream.names())) == 2)
        started = time.monotonic()
        proxy.process.send_signal(signal.SIGTERM)
        assert proxy.process.wait(10) == 0
        assert 0.25 < time.monotonic() - started < 2
        assert client.receive_raw() is None


def test_J2_second_signal_ends_now(start_proxy, upstream):
    upstream.on_query = never
    proxy = start_proxy(upstream, config={"timeouts": {"drain": "20s"}})
    proxy.ask_later("silent.test")
    upstream.wait_for(lambda: upstream.queries)
    proxy.process.send_signal(signal.SIGTERM)
    proxy.wait_for_log("draining")
    assert proxy.process.poll() is None
    started = time.monotonic()
    proxy.process.send_signal(signal.SIGTERM)
    assert proxy.process.wait(10) == 0
    assert time.monotonic() - started < 5  # not the drain's 20 s


@pytest.mark.parametrize("tcp", [False, True], ids=["udp", "tcp"])
@pytest.mark.parametrize("workers", [1, 2])
def test_J14_what_the_queues_hold_is_answered(start_proxy, upstream, workers, tcp):
    """The daemon sleeps while queries (every other one a miss) and the SIGTERM come. Those over UDP are more than a
    turn of its loop takes."""
    count = 40 if tcp else 300
    proxy = start_proxy(upstream, config={"workers": workers, "timeouts": {"drain": "5s"}})
    for number in range(0, count, 2):
        proxy.query(f"queue{number}.test")
    with proxy.tcp() as known:
        known.send(make_query("known.test"))
        assert known.receive().rcode() == dns.rcode.NOERROR
        stop_and_wait(proxy)
        waiting = [proxy.ask_later(f"queue{number}.test", tcp=tcp) for number in range(count)]
        known.send(*[make_query(f"known{number}.test") for number in range(40)])
        proxy.process.send_signal(signal.SIGTERM)
        proxy.process.send_signal(signal.SIGCONT)
        for reply in waiting:
            assert reply().rcode() == dns.rcode.NOERROR
        for _ in range(40):
            assert known.receive().rcode() == dns.rcode.NOERROR
        assert known.receive_raw() is None
    assert proxy.process.wait(10) == 0


def stop_and_wait(proxy):
    proxy.process.send_signal(signal.SIGSTOP)
    def has_stopped():
        with open(f"/proc/{proxy.process.pid}/stat", encoding="ascii") as file:
            return file.read().rsplit(")", 1)[1].split()[0] == "T"
    eventually(has_stopped)


def test_J14_who_asks_while_it_drains_over_UDP_learns_that_nobody_listens(start_proxy, upstream):
    """So that a client goes to its next server now, and not after 5 s."""
    upstream.on_query = never
    proxy = start_proxy(upstream, config={"timeouts": {"drain": "10s"}})
    proxy.ask_later("silent.test")
    upstream.wait_for(lambda: upstream.queries)
    proxy.process.send_signal(signal.SIGTERM)
    eventually(lambda: is_refused(proxy.port))
    with proxy.udp() as late:
        late.send(make_query("late.test").to_wire())
        with pytest.raises(ConnectionRefusedError):
            late.recv(512)
    proxy.process.send_signal(signal.SIGTERM)
    assert proxy.process.wait(10) == 0


def test_J14_lame_duck_answers_while_it_is_not_ready(start_proxy, upstream):
    proxy = start_proxy(upstream, config={"timeouts": {"lame-duck": "25s", "drain": "25s"}})
    proxy.process.send_signal(signal.SIGTERM)
    assert proxy.wait_for_log("lame_duck")["duration_ms"] == "25000"
    assert proxy.admin("/ready")[0] == 503
    assert proxy.admin("/health")[0] == 200
    for number in range(20):
        reply = proxy.query(f"lame{number}.test", tcp=number % 2 == 1)
        assert reply.rcode() == dns.rcode.NOERROR
    proxy.process.send_signal(signal.SIGHUP)  # is no second signal
    proxy.wait_for_log("reloaded")
    assert proxy.query("still.test").rcode() == dns.rcode.NOERROR
    assert not proxy.logs("draining")
    proxy.process.send_signal(signal.SIGTERM)
    assert proxy.process.wait(10) == 0
    assert proxy.logs("stopped", cause="second signal")


def test_J14_lame_duck_has_an_end(start_proxy, upstream):
    proxy = start_proxy(upstream, config={"timeouts": {"lame-duck": "500ms"}})
    started = time.monotonic()
    proxy.process.send_signal(signal.SIGTERM)
    assert proxy.process.wait(10) == 0
    assert time.monotonic() - started >= 0.5
    assert proxy.wait_for_log("draining")["cause"] == "timeouts.lame-duck is over"


def test_J2_under_load_nothing_is_lost(start_proxy, upstream):
    """A client that asks one name after another has an answer to each it sent before the end."""
    proxy = start_proxy(upstream, config={"timeouts": {"drain": "2s"}}, arguments=["--workers=2"])
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(proxy.tcp()) for _ in range(10)]
        for client in clients:
            client.send(*[make_query(f"slow-100ms.load{number}.test") for number in range(50)])
        upstream.wait_for(lambda: len(upstream.queries) >= 50)
        for client in clients:
            assert client.receive().rcode() == dns.rcode.NOERROR
        proxy.process.send_signal(signal.SIGTERM)
        for client in clients:
            for _ in range(49):
                assert client.receive().rcode() == dns.rcode.NOERROR
            assert client.receive_raw() is None
    assert proxy.process.wait(10) == 0


# J13: other signals

OTHER_SIGNALS = [signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM, signal.SIGQUIT, signal.SIGPIPE,
                 signal.SIGVTALRM, signal.SIGPROF, signal.SIGIO, signal.SIGPWR, signal.SIGSTKFLT, signal.SIGXCPU,
                 signal.SIGXFSZ, signal.SIGRTMIN, signal.SIGRTMIN + 7, signal.SIGRTMAX]
BLOCKING = ("import os, signal, sys; signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals());"
            "os.execv(sys.argv[1], sys.argv[1:])")
STARTED = {
    "plain": [],
    "as-process-1": ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"],
    "ignored-by-its-parent": ["/bin/sh", "-c", 'trap "" HUP INT TERM USR1; exec "$@"', "sh"],
    "blocked-by-its-parent": [sys.executable, "-c", BLOCKING],
}


@pytest.fixture(params=STARTED)
def started(request):
    """A wrapper, and a function from its process to that of the daemon."""
    wrapper = STARTED[request.param]
    if request.param != "as-process-1":
        return wrapper, lambda process: process.pid
    if subprocess.run([*wrapper, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("no process namespaces here")
    def child(process):
        with open(f"/proc/{process.pid}/task/{process.pid}/children", encoding="ascii") as file:
            return int(file.read())
    return wrapper, child


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGINT], ids=["term", "int"])
def test_J13_only_TERM_and_INT_end_it(start_proxy, upstream, started, end):
    wrapper, pid_of = started
    proxy = start_proxy(upstream, wrapper=wrapper)
    pid = pid_of(proxy.process)
    for number in OTHER_SIGNALS:
        os.kill(pid, number)
        assert proxy.query(f"signal{int(number)}.test").rcode() == dns.rcode.NOERROR
    proxy.wait_for_log("reloaded")
    assert proxy.wait_for_log("signal_ignored")["signal"] in map(signal.strsignal, OTHER_SIGNALS)
    os.kill(pid, end)
    assert proxy.process.wait(10) == 0
    assert proxy.logs("stopped")


def test_J13_many_signals_are_few_lines(proxy):
    started = time.monotonic()
    def has_suppressed():
        proxy.process.send_signal(signal.SIGHUP)
        proxy.process.send_signal(signal.SIGUSR2)
        return any("suppressed" in line for line in proxy.logs("signal_ignored")) and len(proxy.logs("reloaded")) > 1
    eventually(has_suppressed)
    for event in ("reloaded", "signal_ignored"):
        assert len(proxy.logs(event)) <= time.monotonic() - started + 1


@pytest.fixture
def hanging(tmp_path):
    """A daemon that hangs in reading its configuration, and the pipe from which it reads."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    def pipe_with_a_reader():
        with contextlib.suppress(OSError):
            return os.open(path, os.O_WRONLY | os.O_NONBLOCK)
    with subprocess.Popen([binary(), "-c", path], stderr=subprocess.PIPE, text=True) as process:
        try:
            with os.fdopen(eventually(pipe_with_a_reader), "w") as pipe:
                yield process, pipe
        finally:
            process.kill()


def test_J13_signals_that_come_during_the_start(hanging, upstream, pki):
    process, pipe = hanging
    for number in OTHER_SIGNALS:
        process.send_signal(number)
    json.dump({"listen": [f"127.0.0.1:{ports.free_port()}"], "upstreams": [upstream.url()], "admin": "off",
               "tls": {"ca": pki.ca}}, pipe)
    pipe.close()
    text = ""
    while not all(part in text for part in (" started ", " not_reloaded ", " signal_ignored ")):
        line = process.stderr.readline()
        assert line, text
        text += line
    process.terminate()
    assert " draining cause=Terminated" in process.communicate(timeout=10)[1]
    assert process.returncode == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["term", "int"])
def test_J2_daemon_that_hangs_in_its_configuration_can_be_left(hanging, number):
    process, _ = hanging
    process.send_signal(number)
    assert process.wait(10) == -number


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM, signal.SIGUSR1], ids=["hup", "term", "usr1"])
@pytest.mark.parametrize("command", ["probe", "health"])
def test_J13_a_command_ends_by_any_signal(command, number):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with subprocess.Popen([binary(), command, "-u", f"tls://{address}#silent.test", f"--admin={address}"],
                              stdout=subprocess.DEVNULL) as process:
            with silent.accept()[0]:
                process.send_signal(number)
                assert process.wait(10) == -number


# J4: what cannot be bound

@contextlib.contextmanager
def taken_port(kind):
    with socket.socket(socket.AF_INET, kind) as sock:
        port = ports.free_port()
        sock.bind(("127.0.0.1", port))
        if kind == socket.SOCK_STREAM:
            sock.listen()
        yield port


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_STREAM], ids=["udp", "tcp"])
def test_J4_port_of_another_program(kind):
    with taken_port(kind) as port:
        done = run("-l", f"127.0.0.1:{port}", "--admin=off")
    assert_refused(done, 2, f"127.0.0.1:{port}", "Address already in use", "another program",
                   "--listen")


def test_J4_port_of_another_dnsproxy(proxy):
    done = run("-l", f"127.0.0.1:{proxy.port}", "--admin=off")
    assert_refused(done, 2, f"127.0.0.1:{proxy.port}", "Address already in use")
    assert proxy.query("still.test").rcode() == dns.rcode.NOERROR


def test_J4_port_of_admin(proxy):
    done = run("-l", f"127.0.0.1:{ports.free_port()}", "--admin", f"127.0.0.1:{proxy.admin_port}")
    assert_refused(done, 2, "admin", f"127.0.0.1:{proxy.admin_port}", "Address already in use",
                   "--admin")


def test_J4_address_that_the_machine_lacks():
    done = run("-l", "192.0.2.1:5300", "--admin=off")
    assert_refused(done, 2, "192.0.2.1:5300", "does not have that address", "listen-freebind: on")


def test_J4_address_that_comes_later(network, start_proxy, upstream):
    proxy = start_proxy(upstream, config={"listen": ["192.0.2.1:53"], "allow": ["192.0.2.1"],
                                          "listen-freebind": "on"})
    proxy.address, proxy.port = "192.0.2.1", 53
    proxy.wait_for_log("listening", address="192.0.2.1:53")
    ip("address", "add", "192.0.2.1/32", "dev", "lo")
    assert proxy.query("later.test").rcode() == dns.rcode.NOERROR
    assert proxy.query("later.test", tcp=True).rcode() == dns.rcode.NOERROR


def test_J4_address_of_admin_that_comes_later(network, start_proxy, upstream):
    proxy = start_proxy(upstream, wait=False,
                        config={"admin": "192.0.2.1:9153", "listen-freebind": "on"})
    proxy.wait_for_log("started")
    ip("address", "add", "192.0.2.1/32", "dev", "lo")
    with urllib.request.urlopen("http://192.0.2.1:9153/ready", timeout=5) as response:
        assert response.status == 200


def test_J4_privileged_port_without_privileges():
    how = {}
    with open(binary(), "rb") as program:  # by its descriptor: the way there may be closed to it
        if os.geteuid() == 0:
            how = {"user": 65534, "group": 65534, "extra_groups": []}
        with open("/proc/sys/net/ipv4/ip_unprivileged_port_start", encoding="ascii") as file:
            if int(file.read()) <= 53:
                pytest.skip("this machine lets everyone bind port 53")
        done = run("-l", "127.0.0.1:53", "--admin=off", program=f"/proc/self/fd/{program.fileno()}",
                   pass_fds=[program.fileno()], **how)
    assert_refused(done, 2, "127.0.0.1:53", "Permission denied", "NET_BIND_SERVICE")


def test_J4_default_address_that_the_machine_lacks_is_not_told_as_listening(network, start_upstream, pki):
    try:
        with open("/proc/sys/net/ipv6/conf/all/disable_ipv6", "w", encoding="ascii") as file:
            file.write("1")
    except OSError as error:
        pytest.skip(f"IPv6 cannot be turned off here: {error}")
    with subprocess.Popen([binary(), "-u", start_upstream().url(), f"--tls-ca={pki.ca}", "--admin=off"],
                          stderr=subprocess.PIPE, text=True) as process:
        lines = []
        while not lines or (lines[-1] and " started " not in lines[-1]):
            lines.append(process.stderr.readline())
        process.terminate()
        lines += process.stderr.readlines()
    listening = [line.split()[3] for line in lines if " listening " in line]
    assert listening == ["address=127.0.0.1:53"], lines
    assert any(" listener_skipped " in line and "[::1]:53" in line for line in lines)


def test_J4_one_address_of_several(tmp_path):
    """Nothing is half started."""
    free = ports.free_port()
    with taken_port(socket.SOCK_DGRAM) as port:
        done = run("-l", f"127.0.0.1:{free}", "-l", f"127.0.0.1:{port}", "--admin=off")
        assert_refused(done, 2, f"127.0.0.1:{port}")
    assert is_refused(free)


# J6: standard error

def shell(redirection):
    return ["/bin/sh", "-c", f'exec "$@" {redirection}', "sh"]


def test_J6_stderr_closed(start_proxy, upstream):
    proxy = start_proxy(upstream, wrapper=shell("2>&-"))
    for number in range(3):
        assert proxy.query(f"closed{number}.test", tcp=number == 1).rcode() == dns.rcode.NOERROR
    assert os.readlink(f"/proc/{proxy.process.pid}/fd/2") == "/dev/null", "a log line goes there"


def test_J6_all_standard_descriptors_closed(start_proxy, upstream):
    proxy = start_proxy(upstream, wrapper=shell("0<&- 1>&- 2>&-"))
    assert proxy.query("closed.test").rcode() == dns.rcode.NOERROR
    for descriptor in range(3):
        assert os.readlink(f"/proc/{proxy.process.pid}/fd/{descriptor}") == "/dev/null"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
def test_J6_disk_full(start_proxy, upstream):
    proxy = start_proxy(upstream, wrapper=shell("2>/dev/full"))
    assert proxy.query("full.test").rcode() == dns.rcode.NOERROR
    assert proxy.metric("dnsproxy_log_dropped_total") > 0


def read_until(descriptor, end):
    text = b""
    while end not in text:
        assert select.select([descriptor], [], [], 5)[0], text.strip()
        text += os.read(descriptor, 65536)


def test_J6_reader_of_the_log_stands_still_then_goes_on(start_proxy, upstream, tmp_path):
    path = str(tmp_path / "log")
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    writer = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
    try:
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(writer, b"\n" * 4096)
        proxy = start_proxy(upstream, wrapper=shell(f"2>{path}"))
        for number in range(100):
            assert proxy.query(f"stuck{number}.test").rcode() == dns.rcode.NOERROR
        proxy.wait_for_metric("dnsproxy_log_dropped_total")
        read_until(reader, b"log_lines_dropped")
        proxy.process.send_signal(signal.SIGTERM)
        read_until(reader, b"stopped")
    finally:
        os.close(reader)
        os.close(writer)


def test_J6_reader_of_the_log_has_gone(start_proxy, upstream, tmp_path):
    path = str(tmp_path / "log")
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    proxy = start_proxy(upstream, wrapper=shell(f"2>{path}"))
    os.close(reader)
    upstream.go_down()
    assert proxy.query("gone.test").rcode() == dns.rcode.SERVFAIL
    assert proxy.process.poll() is None


# J9: before the network

def test_J9_started_before_the_upstream(start_upstream, start_proxy):
    upstream = start_upstream()
    upstream.go_down()
    proxy = start_proxy(upstream, config={"timeouts": {"park": "0"}})
    for number in range(20):
        started = time.monotonic()
        reply = proxy.query(f"early{number}.test", timeout=3)
        assert reply.rcode() == dns.rcode.SERVFAIL
        assert time.monotonic() - started < 1, "it kept its client waiting"
        code, text = extended_errors(reply)[0]
        assert code in (22, 23) and upstream.label in text
    upstream.listen()
    started = time.monotonic()
    numbers = iter(range(10_000))
    eventually(lambda: proxy.query(f"late{next(numbers)}.test").rcode() == dns.rcode.NOERROR,
               timeout=3)
    assert time.monotonic() - started < 1.3
    assert len(proxy.logs()) < 20, "it logged each failure"


# Commands and options

def test_version():
    for flag in ("--version", "-V"):
        done = run(flag)
        assert done.returncode == 0
        assert re.fullmatch(r"dnsproxy \d+\.\d+\.\d+\n", done.stdout)
        assert done.stderr == ""


def test_help_names_every_option():
    done = run("--help")
    assert (done.returncode, done.stderr) == (0, "")
    for word in ("--listen", "--upstream", "--strategy", "--tls-ca", "--workers", "--cache-size",
                 "--admin", "--log-level", "--log-format", "--allow", "--query-timeout", "--config",
                 "--help", "--version", "serve", "check", "probe", "health",
                 "DNSPROXY_LISTEN", "127.0.0.1:53", "cloudflare"):
        assert word in done.stdout, word
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert run("-h").stdout == done.stdout


@pytest.mark.parametrize("arguments, parts", [
    (["--lisen", LISTEN], ["--lisen", "--listen"]),
    (["--listen"], ["--listen", "needs a value"]),
    (["--version=1"], ["--version", "takes no value"]),
    (["-x"], ["-x"]),
    (["--cache-size=12XB"], ["--cache-size", "12XB", "MiB"]),
    (["--strategy=best"], ["--strategy", "best", "fastest", "ordered"]),
    (["--upstream=tls://192.0.2.1"], ["--upstream", "192.0.2.1"]),
    (["--listen=somewhere"], ["--listen", "somewhere"]),
    (["--query-timeout=5"], ["--query-timeout"]),
    (["--allow=10.0.0.0/99"], ["--allow", "10.0.0.0/99"]),
    (["--tls-ca=/does/not/exist"], ["/does/not/exist", "No such file"]),
    (["-c", "/does/not/exist"], ["/does/not/exist", "No such file"]),
    (["serf"], ["serf", "serve"]),
    (["check", "serve"], ["serve"]),
], ids=lambda value: " ".join(value))
def test_wrong_options_are_named(arguments, parts):
    done = run(*arguments)
    assert done.returncode == 1
    for part in parts:
        assert part in done.stderr
    if arguments[0] not in ("--lisen", "-x"):
        assert len(done.stderr.splitlines()) == 1


def test_wrong_variables_are_named():
    done = run("check", environment={"DNSPROXY_LISTN": LISTEN})
    assert_refused(done, 1, "DNSPROXY_LISTN", "DNSPROXY_LISTEN")
    done = run("check", environment={"DNSPROXY_WORKERS": "many"})
    assert_refused(done, 1, "DNSPROXY_WORKERS", "many")


def test_every_error_of_a_file_is_shown_with_its_place(tmp_path):
    path = tmp_path / "typos.yaml"
    path.write_text(f'listen: ["{LISTEN}"]\n'
                    "upstream:\n"                               # 2:1
                    "  - tls://192.0.2.1#name.test\n"
                    "cache:\n"
                    "  size: 12XB\n"                            # 5:9
                    "  sise: 1MiB\n"                            # 6:3
                    "timeouts: {query: 4parsecs}\n",            # 7:19
                    encoding="utf-8")
    for command in ("check", "serve"):
        done = run(command, "-c", str(path))
        assert done.returncode == 1
        places = dict(re.findall(re.escape(str(path)) + r":(\d+:\d+): (.*)", done.stderr))
        assert list(places) == ["2:1", "5:9", "6:3", "7:19"]
        assert "upstreams" in places["2:1"]
        assert "12XB" in places["5:9"]
        assert "cache.size" in places["6:3"]
        assert "4parsecs" in places["7:19"]


def test_check_of_what_is_shipped():
    done = run("check", "-c", os.path.join(ROOT, "packaging", "dnsproxy.yaml"))
    assert (done.returncode, done.stderr) == (0, "")
    assert "valid: 2 listeners, 2 upstreams" in done.stdout


GARBAGE = "-----BEGIN CERTIFICATE-----\nbm90IGEgY2VydGlmaWNhdGU=\n-----END CERTIFICATE-----\n"


@pytest.mark.parametrize("command", ["check", "serve", "probe"])
@pytest.mark.parametrize("pem", ["no certificate\n", GARBAGE], ids=["text", "damaged"])
def test_files_without_a_certificate_are_told_with_their_key(tmp_path, command, pem):
    """Each once, also when nobody needs it: the first upstream has its own, the second pins."""
    bad = [tmp_path / f"bad{number}.pem" for number in range(3)]
    for file in bad:
        file.write_text(pem, encoding="utf-8")
    path = tmp_path / "dnsproxy.yaml"
    path.write_text(f'listen: ["{LISTEN}"]\n'
                    f"tls:\n  ca: {bad[0]}\n"                       # 3:7
                    "upstreams:\n"
                    "  - url: tls://192.0.2.1#name.test\n"
                    f"    ca: {bad[1]}\n"                           # 6:9
                    "  - url: tls://192.0.2.2\n"
                    f"    pins: {'0' * 64}\n"
                    f"    ca: {bad[2]}\n"                           # 9:9
                    "  - tls://192.0.2.3#name.test\n", encoding="utf-8")
    done = run(command, "-c", str(path))
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert len(lines) == 3, done.stderr
    for line, place, file in zip(lines, ["3:7: tls.ca: ", "6:9: upstreams.ca: ",
                                         "9:9: upstreams.ca: "], bad):
        assert line.startswith(f"{path}:{place}{file} holds no certificate"), line


def test_files_without_a_certificate_are_told_with_their_flag_or_variable(tmp_path):
    bad = tmp_path / "bad.pem"
    bad.write_text(GARBAGE, encoding="utf-8")
    assert_refused(run("check", "--tls-ca", str(bad)), 1, f"--tls-ca: {bad} holds no certificate")
    assert_refused(run("check", environment={"DNSPROXY_TLS_CA": str(bad)}), 1,
                   f"DNSPROXY_TLS_CA: {bad} holds no certificate")


def test_CASE_10_a_file_with_a_byte_order_mark(tmp_path):
    path = tmp_path / "dnsproxy.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + f"listen: [{LISTEN}]\nworkers: 1\n".encode())
    done = run("check", "-c", str(path))
    assert (done.returncode, done.stderr) == (0, "")


def test_CASE_12_service_variables_do_not_stop_the_pod():
    """What a pod gets for a service called dnsproxy-metrics, and a name that nearly is one."""
    injected = {"SERVICE_HOST": "10.0.0.1", "SERVICE_PORT": "9153", "SERVICE_PORT_HTTP": "9153",
                "PORT": "tcp://10.0.0.1:9153", "PORT_9153_TCP": "tcp://10.0.0.1:9153",
                "PORT_9153_TCP_PROTO": "tcp", "PORT_9153_TCP_PORT": "9153",
                "PORT_9153_TCP_ADDR": "10.0.0.1"}
    environment = {f"DNSPROXY_METRICS_{name}": value for name, value in injected.items()}
    done = run("check", environment=environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert_refused(run("check", environment=environment | {"DNSPROXY_ADMIN_PORT": "9153"}), 1,
                   "DNSPROXY_ADMIN_PORT: is not a known variable")


def test_check_opens_nothing(proxy):
    done = run("check", "-l", f"127.0.0.1:{proxy.port}")
    assert (done.returncode, done.stderr) == (0, "")


def test_options_alone_are_enough(start_upstream, pki):
    """No file: flags and environment over the defaults."""
    upstream = start_upstream()
    port, admin = ports.free_port(), ports.free_port()
    environment = {"DNSPROXY_UPSTREAM": upstream.url(), "DNSPROXY_TLS_CA": pki.ca,
                   "DNSPROXY_LISTEN": "192.0.2.1:53"}  # the flag is stronger
    clean = {key: value for key, value in os.environ.items() if not key.startswith("DNSPROXY")}
    process = subprocess.Popen([binary(), f"-l127.0.0.1:{port}", f"--admin=127.0.0.1:{admin}"],
                               stderr=subprocess.PIPE, env=clean | environment, text=True)
    try:
        line = ""
        while " started " not in line:
            line = process.stderr.readline()
            assert line, f"ended with {process.wait(10)}"
        assert "workers=" in line and "strategy=fastest" in line
        query = make_query("flags.test")
        for ask in (dns.query.udp, dns.query.tcp):
            assert ask(query, "127.0.0.1", port=port, timeout=5).answer
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
        process.stderr.close()


def test_health(start_proxy, upstream):
    upstream.on_query = never
    proxy = start_proxy(upstream, config={"timeouts": {"query": "20s", "drain": "20s"}})
    address = f"127.0.0.1:{proxy.admin_port}"
    done = run("health", "--admin", address)
    assert (done.returncode, done.stdout) == (0, "ready\n")
    assert run("health", environment={"DNSPROXY_ADMIN": address}).returncode == 0
    proxy.ask_later("silent.test")
    upstream.wait_for(lambda: upstream.queries)
    proxy.process.send_signal(signal.SIGTERM)
    proxy.wait_for_log("draining")
    assert_refused(run("health", "--admin", address), 1, "not ready", address)
    assert proxy.admin("/ready")[0] == 503
    assert proxy.admin("/health")[0] == 200
    proxy.process.send_signal(signal.SIGTERM)
    assert proxy.process.wait(10) == 0
    assert_refused(run("health", "--admin", address), 1, "no dnsproxy answers", address)


def test_health_with_admin_off_says_what_to_do():
    for done in (run("health", "--admin=off"), run("health", environment={"DNSPROXY_ADMIN": "no"})):
        assert_refused(done, 1, "admin is off", "--admin", "--no-healthcheck",
                       "healthcheck: {disable: true}")


def test_health_of_something_else():
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        process = subprocess.Popen([binary(), "health", "--admin", address], text=True,
                                   stderr=subprocess.PIPE)
        connection, _ = server.accept()
        with connection:
            connection.recv(4096)
            connection.sendall(b"SSH-2.0-other\r\n")
        assert "is not dnsproxy" in process.communicate(timeout=5)[1]
        assert process.returncode == 1


# The log

def test_lines_in_json(start_proxy, upstream):
    proxy = start_proxy(upstream)
    proxy.query("json.test")
    proxy.stop()
    entries = [json.loads(line) for line in proxy.lines]
    for entry in entries:
        time_of_entry = datetime.datetime.fromisoformat(entry["time"].replace("Z", "+00:00"))
        age = datetime.datetime.now(datetime.timezone.utc) - time_of_entry
        assert abs(age.total_seconds()) < 60
        assert entry["level"] in ("error", "warning", "info")
    events = [entry["event"] for entry in entries]
    assert events[0] == "listening" and events[-2:] == ["draining", "stopped"]
    assert "started" in events
    [listening] = proxy.logs("listening")
    assert listening["address"] == f"127.0.0.1:{proxy.port}"
    [of_upstream] = proxy.logs("upstream")
    assert of_upstream["upstream"] == upstream.label


def test_lines_in_text(start_proxy, upstream):
    proxy = start_proxy(upstream, arguments=["--log-format", "text"])
    proxy.stop()
    pattern = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (error|warning|info) "
                         r"[a-z_]+( [a-z_]+=(\S+|\"[^\"]*\"))*")
    for line in proxy.lines:
        assert pattern.fullmatch(line), line
    assert any(" started " in line for line in proxy.lines)


def test_log_level_silences(start_proxy, upstream):
    proxy = start_proxy(upstream, arguments=["--log-level", "error"])
    proxy.query("quiet.test")
    proxy.stop()
    assert proxy.lines == []


def test_each_reply_is_a_line_at_level_debug(start_proxy, upstream):
    proxy = start_proxy(upstream, arguments=["--log-level", "debug"])
    proxy.query("Nx.Debug.test")
    reply = proxy.wait_for_log("reply")
    assert reply["level"] == "debug" and reply["client"].startswith("127.0.0.1:")
    assert (reply["name"], reply["type"], reply["rcode"]) == ("Nx.Debug.test.", "1", "3")


def test_RFC8932_5_2_no_name_and_no_client_in_the_log(start_proxy, start_upstream):
    upstream, broken = start_upstream(), start_upstream("expired")
    proxy = start_proxy(upstream, broken, config={"allow": ["127.5.5.5/32"]})
    for tcp in (False, True):
        ask = dns.query.tcp if tcp else dns.query.udp
        for name in ("secret.test", "servfail.secret.test", "nx.secret.test"):
            ask(make_query(name), proxy.address, port=proxy.port, timeout=5, source="127.5.5.5")
        refused = ask(make_query("secret.test"), proxy.address, port=proxy.port, timeout=5,
                      source="127.6.6.6")
        assert refused.rcode() == dns.rcode.REFUSED
    upstream.go_down()
    ask(make_query("down.secret.test"), proxy.address, port=proxy.port, timeout=6,
        source="127.5.5.5")
    with proxy.tcp(source="127.5.5.5") as client:
        client.socket.sendall(b"\0\1x")
        client.receive_raw()
    proxy.stop()
    assert "secret" not in proxy.output().lower()
    assert "127.5.5.5" not in proxy.output() and "127.6.6.6" not in proxy.output()
