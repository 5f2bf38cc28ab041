// SPDX-License-Identifier: Apache-2.0
/* The admin server asked by raw sockets, friendly and hostile (FAULTS I7, I1), and its client.
 *
 * Server and clients share one thread: `serve` runs the server until a condition holds. Only the
 * tests of `dnsproxy health`, which blocks, have the server on a thread of its own. */
#include "test.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/deadline.h"
#include "control/admin.h"
#include "net/loop.h"

/* ---- the server ---- */

static _Atomic bool healthy;
static _Atomic bool ready;

static bool is_healthy(void)
{
    return healthy;
}

static bool is_ready(void)
{
    return ready;
}

static void print_metrics(FILE *out)
{
    fputs("dnsproxy_test 1\n", out);
}

static const struct admin_source source = {
    .print_metrics = print_metrics, .is_healthy = is_healthy, .is_ready = is_ready};

static struct admin *admin;

static int setup(void **state)
{
    (void)state;
    struct address address;
    healthy = true;
    ready = true;
    if (address_parse("127.0.0.1:1", 0, &address) != STATUS_OK)
        return -1;
    address.v4.sin_port = 0;
    return admin_open(&address, false, &source, &admin) == STATUS_OK ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    admin_close(admin);
    admin = NULL;
    return 0;
}

static struct address server_address(void)
{
    struct address address;
    assert_int_equal(address_parse("127.0.0.1:1", 0, &address), STATUS_OK);
    address.v4.sin_port = htons(admin_port(admin));
    return address;
}

/* One turn of the server, as main would do it; returns true when `fd` (-1: none) is readable. */
static bool serve_once(int fd)
{
    static uint64_t due_ns;
    struct pollfd polls[] = {{.fd = admin_descriptor(admin), .events = POLLIN},
                             {.fd = fd, .events = POLLIN}};
    const uint64_t now = loop_clock();
    const uint64_t wait_ms = due_ns > now ? (due_ns - now) / NANOSECONDS_PER_MILLISECOND : 0;
    assert_true(poll(polls, 2, wait_ms < 50 ? (int)wait_ms : 50) >= 0);
    const uint64_t left_ns = admin_run(admin);
    due_ns = left_ns == DEADLINE_NEVER ? UINT64_MAX : loop_clock() + left_ns;
    return polls[1].revents != 0;
}

/* ---- the client ---- */

static int connect_client(void)
{
    const struct address address = server_address();
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    assert_int_equal(connect(fd, &address.any, address_length(&address)), 0);
    assert_int_equal(fcntl(fd, F_SETFL, O_NONBLOCK), 0);
    return fd;
}

static void send_text(int fd, const char *text)
{
    assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
}

/* Serves until the server has closed `fd` or `seconds` are over; returns what it sent. */
static const char *receive_for(int fd, uint64_t seconds, bool *is_closed)
{
    static char reply[16 * 1024];
    size_t length = 0;
    *is_closed = false;
    const uint64_t end_ns = loop_clock() + seconds * NANOSECONDS_PER_SECOND;
    while (!*is_closed && loop_clock() < end_ns) {
        if (!serve_once(fd))
            continue;
        const ssize_t count = recv(fd, reply + length, sizeof(reply) - 1 - length, 0);
        if (count == 0 || (count < 0 && errno == ECONNRESET))
            *is_closed = true;
        else if (count > 0)
            length += (size_t)count;
    }
    reply[length] = '\0';
    return reply;
}

static const char *receive_to_end(int fd)
{
    bool is_closed;
    const char *reply = receive_for(fd, 10, &is_closed);
    assert_true(is_closed);
    close(fd);
    return reply;
}

static const char *ask(const char *request)
{
    const int fd = connect_client();
    send_text(fd, request);
    return receive_to_end(fd);
}

#define REQUEST(method, path) method " " path " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"

static void assert_starts(const char *text, const char *start)
{
    if (strncmp(text, start, strlen(start)) != 0)
        fail_msg("got: %s", text);
}

static void assert_ends(const char *text, const char *end)
{
    assert_true(strlen(text) >= strlen(end));
    assert_string_equal(text + strlen(text) - strlen(end), end);
}

static void assert_still_serves(void)
{
    assert_ends(ask(REQUEST("GET", "/ready")), "\r\n\r\nready\n");
}

/* ---- what it answers ---- */

static void metrics_have_the_content_type_of_the_exposition_format(void **state)
{
    (void)state;
    const char *reply = ask(REQUEST("GET", "/metrics"));
    assert_starts(reply, "HTTP/1.1 200 OK\r\n");
    assert_non_null(
        strstr(reply, "\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n"));
    assert_ends(reply, "\r\n\r\ndnsproxy_test 1\n");
}

static void I7_no_page_of_a_browser_may_read_it(void **state)
{
    (void)state;
    const char *reply =
        ask("GET /metrics HTTP/1.1\r\nHost: x\r\nOrigin: http://evil.example\r\nConnection: "
            "close\r\n\r\n");
    assert_starts(reply, "HTTP/1.1 200 OK\r\n");
    assert_null(strcasestr(reply, "access-control"));
}

static void body_of_a_get_is_thrown_away(void **state)
{
    (void)state;
    const char *reply = ask("GET /ready HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nConnection: "
                            "close\r\n\r\nhello");
    assert_ends(reply, "\r\n\r\nready\n");
}

static void ready_and_health_follow_their_source(void **state)
{
    (void)state;
    assert_ends(ask(REQUEST("GET", "/health")), "\r\n\r\nhealthy\n");
    assert_ends(ask(REQUEST("GET", "/ready")), "\r\n\r\nready\n");
    ready = false;
    assert_starts(ask(REQUEST("GET", "/ready")), "HTTP/1.1 503 ");
    assert_starts(ask(REQUEST("GET", "/health")), "HTTP/1.1 200 ");
    healthy = false;
    assert_starts(ask(REQUEST("GET", "/health")), "HTTP/1.1 503 ");
}

static void root_and_unknown_paths_name_the_paths(void **state)
{
    (void)state;
    assert_ends(ask(REQUEST("GET", "/")), "/health\n/ready\n/metrics\n");
    const char *reply = ask(REQUEST("GET", "/favicon.ico"));
    assert_starts(reply, "HTTP/1.1 404 ");
    assert_non_null(strstr(reply, "/metrics"));
}

static void RFC9112_3_2_2_targets_may_name_scheme_and_host(void **state)
{
    (void)state;
    assert_ends(ask(REQUEST("GET", "http://host/ready")), "\r\n\r\nready\n");
    assert_ends(ask(REQUEST("GET", "HTTP://[::1]:9153/health")), "\r\n\r\nhealthy\n");
    assert_ends(ask(REQUEST("GET", "https://host/metrics?x=//y")), "\r\n\r\ndnsproxy_test 1\n");
    assert_ends(ask(REQUEST("GET", "http://host")), "/health\n/ready\n/metrics\n");
    assert_ends(ask(REQUEST("GET", "http://host?x=/ready")), "/health\n/ready\n/metrics\n");
    assert_starts(ask(REQUEST("GET", "http://host/")), "HTTP/1.1 200 ");
    assert_starts(ask(REQUEST("GET", "http://host//ready")), "HTTP/1.1 404 ");
    assert_starts(ask(REQUEST("GET", "/http://host/ready")), "HTTP/1.1 404 ");
    assert_starts(ask(REQUEST("POST", "http://host/ready")), "HTTP/1.1 405 ");
}

static void head_is_get_without_its_body(void **state)
{
    (void)state;
    const char *reply = ask(REQUEST("HEAD", "/metrics"));
    assert_starts(reply, "HTTP/1.1 200 OK\r\n");
    assert_non_null(strstr(reply, "Content-Length: 16\r\n"));
    assert_ends(reply, "\r\n\r\n");
}

static void RFC9110_other_methods_get_405_with_allow(void **state)
{
    (void)state;
    static const char *const requests[] = {
        "POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nConnection: "
        "close\r\n\r\nhello",
        REQUEST("DELETE", "/ready"),
        REQUEST("OPTIONS", "/health"),
        REQUEST("BREW", "/"),
    };
    for (size_t i = 0; i < sizeof(requests) / sizeof(*requests); i++) {
        const char *reply = ask(requests[i]);
        assert_starts(reply, "HTTP/1.1 405 ");
        assert_non_null(strstr(reply, "\r\nAllow: GET, HEAD\r\n"));
    }
}

/* ---- hostile clients ---- */

static void I7_hostile_requests_are_refused_and_it_goes_on(void **state)
{
    (void)state;
    static const char *const requests[] = {
        "GET /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        "GET /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n",
        "GET /metrics HTTP/1.1\r\n\r\n", /* RFC 9112 3.2: no Host */
        "GET /../../etc/passwd HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        "GET /%2e%2e/%0d%0aSet-Cookie:a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        "\x16\x03\x01\x02\x01\x01\xfc\r\n\r\n", /* TLS */
    };
    for (size_t i = 0; i < sizeof(requests) / sizeof(*requests); i++) {
        const char *reply = ask(requests[i]);
        assert_true(*reply == '\0' || strncmp(reply, "HTTP/1.1 4", 10) == 0);
        assert_null(strstr(reply, "root:"));
        assert_null(strstr(reply, "Set-Cookie"));
        assert_null(strstr(reply, "dnsproxy_test"));
    }
    assert_still_serves();
}

static void I7_huge_header_is_refused(void **state)
{
    (void)state;
    const int fd = connect_client();
    send_text(fd, "GET /metrics HTTP/1.1\r\nHost: x\r\nX-Huge: ");
    char filler[4096];
    memset(filler, 'a', sizeof(filler));
    /* What does not fit any more has been refused. */
    for (int i = 0; i < 64 && send(fd, filler, sizeof(filler), MSG_NOSIGNAL) > 0; i++)
        serve_once(-1);
    const char *reply = receive_to_end(fd);
    assert_null(strstr(reply, "dnsproxy_test"));
    assert_true(*reply == '\0' || strncmp(reply, "HTTP/1.1 4", 10) == 0);
    assert_still_serves();
}

static void I7_pipelined_requests_are_answered_in_order(void **state)
{
    (void)state;
    const char *reply = ask("GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
                            "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" REQUEST("GET", "/ready"));
    const char *metrics = strstr(strstr(reply, "healthy\n"), "dnsproxy_test 1\n");
    assert_non_null(metrics);
    assert_ends(metrics, "\r\n\r\nready\n");
}

static void I7_hundred_connections_at_once_are_all_answered(void **state)
{
    (void)state;
    int fds[100];
    for (size_t i = 0; i < 100; i++) {
        fds[i] = connect_client();
        send_text(fds[i], REQUEST("GET", "/metrics"));
    }
    for (size_t i = 0; i < 100; i++)
        assert_ends(receive_to_end(fds[i]), "dnsproxy_test 1\n");
    assert_still_serves();
}

static void I7_slow_clients_lose_their_place_after_five_seconds(void **state)
{
    (void)state;
    const int fd = connect_client();
    send_text(fd, "GET /metrics HTTP/1.1\r\n");
    const uint64_t start_ns = loop_clock();
    bool is_closed = false;
    size_t turns = 0;
    uint64_t next_octet_ns = start_ns;
    while (!is_closed && loop_clock() - start_ns < 20 * NANOSECONDS_PER_SECOND) {
        char octet;
        is_closed = serve_once(fd) && recv(fd, &octet, 1, 0) <= 0;
        turns++;
        if (loop_clock() < next_octet_ns)
            continue;
        next_octet_ns += NANOSECONDS_PER_SECOND / 2;
        /* One octet now and then must not keep the place. */
        (void)!send(fd, "X", 1, MSG_NOSIGNAL);
    }
    assert_true(is_closed);
    assert_in_range(loop_clock() - start_ns, 4 * NANOSECONDS_PER_SECOND,
                    7 * NANOSECONDS_PER_SECOND);
    assert_true(turns < 2000); /* it slept meanwhile */
    close(fd);
}

/* Clients that keep as many connections as they get, each with `text` sent, and open a new one for
 * each that is closed. */
enum { GREEDY_COUNT = 40 /* more than it takes at once */ };
static int greedy[GREEDY_COUNT];

static void greedy_open(const char *text)
{
    for (size_t i = 0; i < GREEDY_COUNT; i++) {
        greedy[i] = connect_client();
        send_text(greedy[i], text);
    }
}

static void greedy_renew(const char *text)
{
    for (size_t i = 0; i < GREEDY_COUNT; i++) {
        char octet;
        const ssize_t count = recv(greedy[i], &octet, 1, MSG_PEEK);
        if (count > 0 || (count < 0 && errno == EAGAIN))
            continue;
        close(greedy[i]);
        greedy[i] = connect_client();
        send_text(greedy[i], text);
    }
}

static void greedy_close(void)
{
    for (size_t i = 0; i < GREEDY_COUNT; i++)
        close(greedy[i]);
}

static void assert_serves_beside_greedy(const char *text)
{
    const uint64_t start_ns = loop_clock();
    for (size_t round = 0; round < 20; round++) {
        const int fd = connect_client();
        send_text(fd, REQUEST("GET", "/ready"));
        const uint64_t asked_ns = loop_clock();
        while (!serve_once(fd) && loop_clock() - asked_ns < 10 * NANOSECONDS_PER_SECOND)
            greedy_renew(text);
        assert_ends(receive_to_end(fd), "ready\n");
    }
    assert_true(loop_clock() - start_ns < 4 * NANOSECONDS_PER_SECOND); /* 5 s: they were too old */
}

static void K5_idle_connections_give_way(void **state)
{
    (void)state;
    static const char *const texts[] = {"", "GET /metrics HT",
                                        "GET /ready HTTP/1.1\r\nHost: x\r\n\r\n"};
    for (size_t i = 0; i < sizeof(texts) / sizeof(*texts); i++) {
        greedy_open(texts[i]);
        assert_serves_beside_greedy(texts[i]);
        greedy_close();
    }
}

static void K5_the_longest_idle_connection_gives_way(void **state)
{
    (void)state;
    int fds[32];
    for (size_t i = 0; i < 31; i++) {
        fds[i] = connect_client();
        serve_once(-1);
    }
    /* The first was idle for longest, until it asked. */
    send_text(fds[0], "GET /ready HTTP/1.1\r\nHost: x\r\n\r\n");
    bool is_closed;
    assert_ends(receive_for(fds[0], 1, &is_closed), "ready\n");
    assert_false(is_closed);
    fds[31] = connect_client();
    assert_string_equal(receive_for(fds[1], 2, &is_closed), "");
    assert_true(is_closed);
    for (size_t i = 0; i < 32; i++) {
        char octet;
        assert_true(i == 1 || recv(fds[i], &octet, 1, 0) < 0);
        close(fds[i]);
    }
}

static void I1_without_descriptors_it_pauses_and_recovers(void **state)
{
    (void)state;
    const int fd = connect_client();
    send_text(fd, REQUEST("GET", "/ready"));
    struct rlimit before;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    const struct rlimit none = {.rlim_cur = 3, .rlim_max = before.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    admin_run(admin);
    const uint64_t left_ns = admin_run(admin);
    struct pollfd poll_admin = {.fd = admin_descriptor(admin), .events = POLLIN};
    setrlimit(RLIMIT_NOFILE, &before);
    const int readable = poll(&poll_admin, 1, 0);
    assert_int_equal(readable, 0); /* else the main thread would spin */
    assert_in_range(left_ns, 1, NANOSECONDS_PER_SECOND);
    assert_ends(receive_to_end(fd), "ready\n");
}

static void client_that_leaves_at_once_does_no_harm(void **state)
{
    (void)state;
    for (int i = 0; i < 50; i++) {
        const int fd = connect_client();
        const struct linger reset = {.l_onoff = 1};
        setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
        if (i % 2)
            send_text(fd, REQUEST("GET", "/metrics"));
        if (i % 3)
            serve_once(-1);
        close(fd);
    }
    assert_still_serves();
}

static void J4_taken_port_is_an_error_with_its_cause(void **state)
{
    (void)state;
    const struct address address = server_address();
    struct admin *second = NULL;
    assert_int_equal(admin_open(&address, false, &source, &second), STATUS_SYSTEM);
    assert_int_equal(errno, EADDRINUSE);
    assert_null(second);
    admin_close(NULL);
}

/* ---- dnsproxy health ---- */

static _Atomic bool stopping;

static void *serve_thread(void *argument)
{
    while (!stopping)
        serve_once(-1);
    return argument;
}

/* Runs admin_health with its output caught; returns the exit status. */
static int health_of(const struct address *address, char text[static 1024])
{
    int ends[2];
    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    fflush(stdout);
    const int out = fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 100);
    const int err = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 100);
    dup2(ends[1], STDOUT_FILENO);
    dup2(ends[1], STDERR_FILENO);
    close(ends[1]);
    const int status = admin_health(address);
    fflush(stdout);
    dup2(out, STDOUT_FILENO);
    dup2(err, STDERR_FILENO);
    close(out);
    close(err);
    const ssize_t length = read(ends[0], text, 1023);
    text[length > 0 ? length : 0] = '\0';
    close(ends[0]);
    return status;
}

static void health_asks_the_running_daemon(void **state)
{
    (void)state;
    char text[1024];
    const struct address address = server_address();
    struct address any = address;
    any.v4.sin_addr.s_addr = htonl(INADDR_ANY);
    stopping = false;
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, serve_thread, NULL), 0);
    const int when_ready = health_of(&address, text);
    const bool says_ready = strcmp(text, "ready\n") == 0;
    const int through_any = health_of(&any, text);
    ready = false;
    const int when_not = health_of(&address, text);
    stopping = true;
    pthread_join(thread, NULL);
    assert_int_equal(when_ready, 0);
    assert_true(says_ready);
    assert_int_equal(through_any, 0);
    assert_int_equal(when_not, 1);
    assert_starts(text, "not ready: dnsproxy on 127.0.0.1:");
}

static int listen_on_loopback(struct address *address)
{
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(address_parse("127.0.0.1:1", 0, address), STATUS_OK);
    address->v4.sin_port = 0;
    assert_int_equal(bind(fd, &address->any, address_length(address)), 0);
    socklen_t length = sizeof(*address);
    assert_int_equal(getsockname(fd, &address->any, &length), 0);
    return fd;
}

static void health_says_what_to_do_when_nobody_answers(void **state)
{
    (void)state;
    char text[1024];
    struct address address;
    const int fd = listen_on_loopback(&address); /* bound, not listening: refused */
    assert_int_equal(health_of(&address, text), 1);
    assert_starts(text, "no dnsproxy answers on 127.0.0.1:");
    assert_ends(text, ": is it running, and is --admin set to this address, and "
                      "not off?\n");
    close(fd);
}

static void health_of_a_daemon_without_admin_says_how_to_do_without(void **state)
{
    (void)state;
    char text[1024];
    assert_int_equal(health_of(NULL, text), 1);
    assert_starts(text, "admin is off");
    assert_non_null(strstr(text, "--admin"));
    assert_non_null(strstr(text, "--no-healthcheck"));
    assert_non_null(strstr(text, "healthcheck: {disable: true}"));
}

static void health_waits_two_seconds_at_most(void **state)
{
    (void)state;
    char text[1024];
    struct address address;
    const int fd = listen_on_loopback(&address);
    assert_int_equal(listen(fd, 1), 0); /* connects, and nobody reads */
    const uint64_t start_ns = loop_clock();
    assert_int_equal(health_of(&address, text), 1);
    assert_in_range(loop_clock() - start_ns, NANOSECONDS_PER_SECOND, 4 * NANOSECONDS_PER_SECOND);
    assert_non_null(strstr(text, "within 2 seconds"));
    close(fd);
}

static void *answer_as_ssh(void *argument)
{
    const int fd = accept(*(const int *)argument, NULL, NULL);
    char request[256];
    (void)!recv(fd, request, sizeof(request), 0);
    (void)!send(fd, "SSH-2.0-x\r\n", 11, MSG_NOSIGNAL);
    close(fd);
    return NULL;
}

static void health_tells_another_service_from_dnsproxy(void **state)
{
    (void)state;
    char text[1024];
    struct address address;
    int fd = listen_on_loopback(&address);
    assert_int_equal(listen(fd, 1), 0);
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, answer_as_ssh, &fd), 0);
    const int status = health_of(&address, text);
    pthread_join(thread, NULL);
    close(fd);
    assert_int_equal(status, 1);
    assert_non_null(strstr(text, "is not dnsproxy"));
}

#define with_server(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        with_server(metrics_have_the_content_type_of_the_exposition_format),
        with_server(I7_no_page_of_a_browser_may_read_it),
        with_server(body_of_a_get_is_thrown_away),
        with_server(ready_and_health_follow_their_source),
        with_server(root_and_unknown_paths_name_the_paths),
        with_server(RFC9112_3_2_2_targets_may_name_scheme_and_host),
        with_server(head_is_get_without_its_body),
        with_server(RFC9110_other_methods_get_405_with_allow),
        with_server(I7_hostile_requests_are_refused_and_it_goes_on),
        with_server(I7_huge_header_is_refused),
        with_server(I7_pipelined_requests_are_answered_in_order),
        with_server(I7_hundred_connections_at_once_are_all_answered),
        with_server(I7_slow_clients_lose_their_place_after_five_seconds),
        with_server(K5_idle_connections_give_way),
        with_server(K5_the_longest_idle_connection_gives_way),
        with_server(I1_without_descriptors_it_pauses_and_recovers),
        with_server(client_that_leaves_at_once_does_no_harm),
        with_server(J4_taken_port_is_an_error_with_its_cause),
        with_server(health_asks_the_running_daemon),
        cmocka_unit_test(health_says_what_to_do_when_nobody_answers),
        cmocka_unit_test(health_of_a_daemon_without_admin_says_how_to_do_without),
        cmocka_unit_test(health_waits_two_seconds_at_most),
        cmocka_unit_test(health_tells_another_service_from_dnsproxy),
    };
    return cmocka_run_group_tests_name("control/admin", tests, NULL, NULL);
}
