// SPDX-License-Identifier: Apache-2.0
/* Clients of the admin HTTP server that send anything at all: replies are well-formed, places are
 * given back.
 *
 * The input is what is sent, with "~" before what else happens: ~n the next client, ~r a turn of
 * the server, ~e the end of what this client sends, ~c it goes, ~t six seconds pass. At most 32 are
 * served at a time, none for longer than its age, no reply lets a page of a browser read it, and
 * when all have gone the server has nothing more to wait for (FAULTS I7). */
#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/deadline.h"
#include "control/admin.h"
#include "net/socket.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
enum status __wrap_socket_accept(int listener_fd, int *out, struct address *client);
int __real_clock_gettime(clockid_t clock, struct timespec *time);
int __wrap_clock_gettime(clockid_t clock, struct timespec *time);

enum {
    CLIENTS_MAX = 40,
    SERVED_MAX = 32,
    REPLY_MAX = 1 << 16,
    INPUT_MAX = 1 << 14,
    RUNS_MAX = 1000
};

static const char metrics_body[] = "dnsproxy_test 1\n";

static struct admin *admin;
static uint64_t clock_ns = NANOSECONDS_PER_SECOND;

static struct client {
    int fd;        /* -1: gone */
    int server_fd; /* -1: accepted */
    size_t received;
    char reply[REPLY_MAX + 1];
} clients[CLIENTS_MAX];
static size_t client_count;

/* --- The daemon --- */

static bool yes(void)
{
    return true;
}

static bool no(void)
{
    return false;
}

static void print_metrics(FILE *out)
{
    fputs(metrics_body, out);
}

int __wrap_clock_gettime(clockid_t clock, struct timespec *time)
{
    if (clock != CLOCK_BOOTTIME)
        return __real_clock_gettime(clock, time);
    time->tv_sec = (time_t)(clock_ns / NANOSECONDS_PER_SECOND);
    time->tv_nsec = (long)(clock_ns % NANOSECONDS_PER_SECOND);
    return 0;
}

static bool is_served(const struct client *client)
{
    struct pollfd poller = {.fd = client->fd};
    return client->fd >= 0 && client->server_fd < 0 && poll(&poller, 1, 0) >= 0 &&
           !(poller.revents & POLLHUP);
}

enum status __wrap_socket_accept(int listener_fd, int *out, struct address *client)
{
    (void)listener_fd;
    size_t served = 0;
    for (size_t i = 0; i < client_count; i++)
        served += is_served(&clients[i]);
    for (size_t i = 0; i < client_count; i++) {
        if (clients[i].server_fd < 0)
            continue;
        assert(served < SERVED_MAX);
        *out = clients[i].server_fd;
        *client = (struct address){.v4 = {.sin_family = AF_INET}};
        clients[i].server_fd = -1;
        return STATUS_OK;
    }
    return STATUS_AGAIN;
}

/* --- Replies --- */

/* The rest behind one reply, NULL when it is not whole. */
static const char *check_reply(const char *reply)
{
    char *rest;
    assert(strncmp(reply, "HTTP/1.", 7) == 0 && (reply[7] == '0' || reply[7] == '1'));
    const unsigned long status = strtoul(reply + 8, &rest, 10);
    assert(status >= 100 && status < 600 && *rest == ' ');
    const char *body = strstr(reply, "\r\n\r\n");
    if (!body)
        return NULL;
    body += 4;
    char head[4096];
    snprintf(head, sizeof(head), "%.*s", (int)(body - reply), reply);
    assert(!strcasestr(head, "\nAccess-Control") && !strcasestr(head, "\nSet-Cookie"));
    if (status == 100)
        return body;
    const char *length_text = strcasestr(head, "\nContent-Length: ");
    assert(length_text);
    const size_t length = strtoul(length_text + 17, NULL, 10);
    if (status == 200 || status == 503) {
        assert(strstr(head, "\r\nCache-Control: no-store\r\n"));
        assert(strstr(head, "\r\nX-Content-Type-Options: nosniff\r\n"));
        assert(strstr(head, "\r\nContent-Type: text/plain;"));
    }
    if (*body == '\0' || strncmp(body, "HTTP/1.", 7) == 0) /* to HEAD */
        return body;
    if (strlen(body) < length)
        return NULL;
    assert(status != 200 || strncmp(body, metrics_body, length) == 0 ||
           strncmp(body, "healthy\n", length) == 0 || strncmp(body, "dnsproxy ", 9) == 0);
    assert(status != 503 || strncmp(body, "not ready\n", length) == 0 || length > 32);
    return body + length;
}

static void check_replies(struct client *client)
{
    client->reply[client->received] = '\0';
    assert(strlen(client->reply) == client->received); /* all of ours is text */
    const char *reply = client->reply;
    while (reply && client->received - (size_t)(reply - client->reply) > 12)
        reply = check_reply(reply);
}

static void receive(struct client *client)
{
    if (client->fd < 0)
        return;
    for (;;) {
        const ssize_t count = recv(client->fd, client->reply + client->received,
                                   REPLY_MAX - client->received, MSG_DONTWAIT);
        if (count <= 0)
            return;
        client->received += (size_t)count;
    }
}

/* --- Clients --- */

static uint64_t run_server(void)
{
    const uint64_t left = admin_run(admin);
    for (size_t i = 0; i < client_count; i++)
        receive(&clients[i]);
    return left;
}

static struct client *begin_client(void)
{
    int pair[2];
    if (client_count == CLIENTS_MAX)
        return &clients[CLIENTS_MAX - 1];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) != 0)
        abort();
    struct client *client = &clients[client_count++];
    client->fd = pair[0];
    client->server_fd = pair[1];
    client->received = 0;
    return client;
}

static void end_client(struct client *client)
{
    if (client->fd >= 0)
        close(client->fd);
    if (client->server_fd >= 0)
        close(client->server_fd);
    client->fd = client->server_fd = -1;
}

static void send_octets(struct client *client, const void *octets, size_t length)
{
    if (client->fd >= 0 && length > 0)
        (void)send(client->fd, octets, length, MSG_NOSIGNAL | MSG_DONTWAIT);
}

/* Whoever was served before is not any more. */
static void let_time_pass(void)
{
    bool was_served[CLIENTS_MAX];
    for (size_t i = 0; i < client_count; i++)
        was_served[i] = is_served(&clients[i]);
    clock_ns += 6 * NANOSECONDS_PER_SECOND;
    for (int i = 0; i < 3; i++)
        run_server();
    for (size_t i = 0; i < client_count; i++)
        assert(!was_served[i] || !is_served(&clients[i]));
}

/* Does what stands behind a "~"; returns the client that acts from now on. */
static struct client *act(struct client *client, char command)
{
    switch (command) {
    case 'n':
        return begin_client();
    case 'r':
        run_server();
        break;
    case 'e':
        if (client->fd >= 0)
            (void)shutdown(client->fd, SHUT_WR);
        break;
    case 'c':
        end_client(client);
        break;
    case 't':
        let_time_pass();
        break;
    default:
        send_octets(client, &command, 1);
    }
    return client;
}

static void play(const char *text, size_t length)
{
    struct client *client = begin_client();
    size_t sent = 0;
    for (size_t i = 0; i + 1 < length; i++) {
        if (text[i] != '~')
            continue;
        send_octets(client, text + sent, i - sent);
        client = act(client, text[++i]);
        sent = i + 1;
    }
    send_octets(client, text + sent, length - sent);
}

/* All that was sent is handled; then all go, and the server rests. */
static void settle(void)
{
    size_t runs = 0;
    while (run_server() == 0)
        assert(runs++ < RUNS_MAX);
    for (size_t i = 0; i < client_count; i++) {
        check_replies(&clients[i]);
        end_client(&clients[i]);
    }
    while (run_server() != DEADLINE_NEVER)
        assert(runs++ < RUNS_MAX);
    client_count = 0;
}

static void open_server(void)
{
    static const struct admin_source source = {
        .print_metrics = print_metrics, .is_healthy = yes, .is_ready = no};
    struct address address;
    if (address_parse("127.0.0.1:1", 0, &address) != STATUS_OK)
        abort();
    address.v4.sin_port = 0;
    if (admin_open(&address, false, &source, &admin) != STATUS_OK)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size > INPUT_MAX)
        return 0;
    if (!admin)
        open_server();
    play((const char *)data, size);
    settle();
    return 0;
}
