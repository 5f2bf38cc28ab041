// SPDX-License-Identifier: Apache-2.0
/* The admin HTTP server: /health, /ready and /metrics, with libmicrohttpd inside the main thread's
 * own loop.
 *
 * Connections are accepted here and handed to libmicrohttpd, so that the limit, the want of
 * descriptors (FAULTS I1) and the age of a connection are ours to decide: its own timeout starts
 * anew with each octet, and a client that sends one now and then would hold its place for ever.
 *
 * Whoever comes finds a place (FAULTS K5): when the last one is taken, the connection that has been
 * idle for longest is closed. Who has just come is not idle for as long as an honest client takes
 * to ask, nor who has asked for as long as that takes to read its answer.
 *
 * Thread: main.   Owner: main.
 * RFC:    9110 (methods, status codes), 9112 3.2 (what is asked for). */
#include "control/admin.h"

#include <assert.h>
#include <errno.h>
#include <microhttpd.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/deadline.h"
#include "net/loop.h"
#include "net/socket.h"
#include "observe/log.h"

enum {
    CONNECTIONS_MAX = 32,
    CONNECTION_MEMORY = 8192, /* request line and headers; larger ones are refused */
};

#define CONNECTION_AGE_NS (5 * NANOSECONDS_PER_SECOND)
#define REQUEST_AGE_NS (NANOSECONDS_PER_SECOND / 10) /* of a request that is on its way */
#define ANSWER_AGE_NS (NANOSECONDS_PER_SECOND / 2)   /* of an answer that is being read */
#define ACCEPT_PAUSE_NS NANOSECONDS_PER_SECOND
#define TICK_NS (NANOSECONDS_PER_SECOND / 4) /* how often ages are looked at */

static const char text_plain[] = "text/plain; charset=utf-8";
static const char text_exposition[] = "text/plain; version=0.0.4; charset=utf-8";

/* A place for one connection; `fd` -1 is free. libmicrohttpd owns and closes the descriptor. */
struct admin_connection {
    int fd;
    uint64_t expires_ns;
    uint64_t idle_ns; /* since then, or from then on */
};

struct admin {
    const struct admin_source *source;
    struct MHD_Daemon *daemon;
    int epoll_fd; /* watches the listener and the epoll descriptor of libmicrohttpd */
    int listen_fd;
    uint64_t accept_after_ns; /* for want of descriptors */
    size_t connection_count;
    struct admin_connection connections[CONNECTIONS_MAX];
    struct log_limit accept_limit;
};

/* ---- replies ---- */

/* Writes the body and returns the status code. */
static unsigned int write_body(const struct admin_source *source, const char *path, FILE *out)
{
    if (strcmp(path, "/metrics") == 0) {
        source->print_metrics(out);
        return MHD_HTTP_OK;
    }
    if (strcmp(path, "/ready") == 0) {
        const bool is_ready = source->is_ready();
        fputs(is_ready ? "ready\n" : "not ready\n", out);
        return is_ready ? MHD_HTTP_OK : MHD_HTTP_SERVICE_UNAVAILABLE;
    }
    if (strcmp(path, "/health") == 0) {
        const bool is_healthy = source->is_healthy();
        fputs(is_healthy ? "healthy\n" : "a worker does not turn\n", out);
        return is_healthy ? MHD_HTTP_OK : MHD_HTTP_SERVICE_UNAVAILABLE;
    }
    if (strcmp(path, "/") == 0) {
        fputs("dnsproxy " DNSPROXY_VERSION "\n/health\n/ready\n/metrics\n", out);
        return MHD_HTTP_OK;
    }
    fputs("not found; there is /health, /ready and /metrics\n", out);
    return MHD_HTTP_NOT_FOUND;
}

static bool add_headers(struct MHD_Response *response, const char *type, unsigned int code)
{
    if (MHD_add_response_header(response, "Content-Type", type) == MHD_NO ||
        MHD_add_response_header(response, "Cache-Control", "no-store") == MHD_NO ||
        MHD_add_response_header(response, "X-Content-Type-Options", "nosniff") == MHD_NO)
        return false;
    return code != MHD_HTTP_METHOD_NOT_ALLOWED ||
           MHD_add_response_header(response, "Allow", "GET, HEAD") == MHD_YES;
}

static struct admin_connection *place_of(struct MHD_Connection *connection)
{
    assert(connection);
    return MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT)->socket_context;
}

/* `path` NULL: the method is not allowed. MHD_NO closes the connection: all that is left to do when
 * memory is short. */
static enum MHD_Result respond(const struct admin_source *source, struct MHD_Connection *connection,
                               const char *path)
{
    char *body = NULL;
    size_t length;
    FILE *out = open_memstream(&body, &length);
    if (!out)
        return MHD_NO;
    unsigned int code = MHD_HTTP_METHOD_NOT_ALLOWED;
    if (path)
        code = write_body(source, path, out);
    else
        fputs("only GET and HEAD\n", out);
    if (fclose(out) != 0) {
        free(body);
        return MHD_NO;
    }
    struct MHD_Response *response =
        MHD_create_response_from_buffer(length, body, MHD_RESPMEM_MUST_FREE);
    if (!response) {
        free(body);
        return MHD_NO;
    }
    place_of(connection)->idle_ns = loop_clock() + ANSWER_AGE_NS;
    enum MHD_Result result = MHD_NO;
    const bool is_metrics = path && strcmp(path, "/metrics") == 0;
    if (add_headers(response, is_metrics ? text_exposition : text_plain, code))
        result = MHD_queue_response(connection, code, response);
    MHD_destroy_response(response);
    return result;
}

/* RFC 9112 3.2.2: a server takes "http://host/path" as well, as proxies are asked. We are every
 * host. */
static const char *path_of(const char *target)
{
    const char *authority = strstr(target, "://");
    if (target[0] == '/' || !authority)
        return target;
    const char *path = strchr(authority + 3, '/');
    return path ? path : "/";
}

/* Called at the end of the headers, for each part of a body, and at the end of the request. An
 * answer before that end closes the connection, so only a refusal is given early. */
static enum MHD_Result on_request(void *context, struct MHD_Connection *connection, const char *url,
                                  const char *method, const char *version, const char *upload,
                                  size_t *upload_length, void **request_context)
{
    (void)version;
    (void)upload;
    const struct admin *admin = context;
    if (strcmp(method, MHD_HTTP_METHOD_GET) != 0 && strcmp(method, MHD_HTTP_METHOD_HEAD) != 0)
        return respond(admin->source, connection, NULL);
    static char headers_seen;
    const bool is_end = *request_context == &headers_seen && *upload_length == 0;
    *request_context = &headers_seen;
    *upload_length = 0; /* a body is thrown away */
    return is_end ? respond(admin->source, connection, path_of(url)) : MHD_YES;
}

/* The answer has left, and another request may follow. */
static void on_answered(void *context, struct MHD_Connection *connection, void **request_context,
                        enum MHD_RequestTerminationCode code)
{
    (void)context;
    (void)request_context;
    (void)code;
    place_of(connection)->idle_ns = loop_clock() + REQUEST_AGE_NS;
}

/* ---- connections ---- */

static struct admin_connection *free_connection(struct admin *admin)
{
    for (size_t i = 0; i < CONNECTIONS_MAX; i++)
        if (admin->connections[i].fd < 0)
            return &admin->connections[i];
    return NULL;
}

static void on_connection(void *context, struct MHD_Connection *connection, void **place,
                          enum MHD_ConnectionNotificationCode code)
{
    struct admin *admin = context;
    if (code == MHD_CONNECTION_NOTIFY_STARTED) {
        struct admin_connection *mine = free_connection(admin);
        assert(mine);
        assert(mine->fd < 0 && admin->connection_count < CONNECTIONS_MAX);
        mine->fd =
            MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd;
        mine->idle_ns = loop_clock() + REQUEST_AGE_NS;
        mine->expires_ns = loop_clock() + CONNECTION_AGE_NS;
        *place = mine;
        admin->connection_count++;
    } else {
        struct admin_connection *mine = *place;
        assert(mine && mine->fd >= 0 && admin->connection_count > 0);
        mine->fd = -1;
        admin->connection_count--;
    }
}

/* libmicrohttpd sees the end of the stream and closes it. */
static void shut_down_expired(struct admin *admin, uint64_t now)
{
    for (size_t i = 0; i < CONNECTIONS_MAX; i++) {
        const struct admin_connection *connection = &admin->connections[i];
        if (connection->fd >= 0 && connection->expires_ns <= now)
            shutdown(connection->fd, SHUT_RDWR);
    }
}

static void make_room(struct admin *admin)
{
    if (admin->connection_count < CONNECTIONS_MAX)
        return;
    const struct admin_connection *longest = &admin->connections[0];
    assert(longest->fd >= 0);
    for (size_t i = 1; i < CONNECTIONS_MAX; i++)
        if (admin->connections[i].idle_ns < longest->idle_ns)
            longest = &admin->connections[i];
    if (longest->idle_ns <= loop_clock())
        shutdown(longest->fd, SHUT_RDWR);
}

/* The room is looked at once: libmicrohttpd 1.0 tells of a connection only when it runs next, 0.9
 * at once. */
static void accept_waiting(struct admin *admin, uint64_t now)
{
    assert(admin->connection_count <= CONNECTIONS_MAX);
    size_t room = CONNECTIONS_MAX - admin->connection_count;
    for (; room > 0 && now >= admin->accept_after_ns; room--) {
        int fd;
        struct address client;
        const enum status status = socket_accept(admin->listen_fd, &fd, &client);
        if (status == STATUS_CLOSED)
            continue;
        if (status == STATUS_AGAIN)
            return;
        /* When it fails, MHD_add_connection has closed the descriptor. */
        if (status == STATUS_OK &&
            MHD_add_connection(admin->daemon, fd, &client.any, address_length(&client)) == MHD_YES)
            continue;
        log_event_limited(&admin->accept_limit, now, LOG_LEVEL_WARNING, "admin_accept_failed",
                          "cause", "out of descriptors or memory", NULL);
        admin->accept_after_ns = now + ACCEPT_PAUSE_NS;
    }
}

static enum status watch(const struct admin *admin, int operation, int fd, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.fd = fd};
    return epoll_ctl(admin->epoll_fd, operation, fd, &event) == 0 ? STATUS_OK : STATUS_SYSTEM;
}

/* A listener that is not accepted from stays readable: while it waits for a place or a descriptor
 * it is not watched, or the main thread would spin. */
static enum status watch_listener(const struct admin *admin, uint64_t now)
{
    const bool may_accept =
        admin->connection_count < CONNECTIONS_MAX && now >= admin->accept_after_ns;
    return watch(admin, EPOLL_CTL_MOD, admin->listen_fd, may_accept ? EPOLLIN : 0);
}

/* ---- public ---- */

static struct MHD_Daemon *start_daemon(struct admin *admin)
{
    return MHD_start_daemon(MHD_USE_EPOLL | MHD_USE_NO_LISTEN_SOCKET, 0, NULL, NULL, on_request,
                            admin, MHD_OPTION_CONNECTION_LIMIT, (unsigned int)CONNECTIONS_MAX,
                            MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)CONNECTION_MEMORY,
                            MHD_OPTION_NOTIFY_CONNECTION, on_connection, admin,
                            MHD_OPTION_NOTIFY_COMPLETED, on_answered, NULL,
                            MHD_OPTION_STRICT_FOR_CLIENT, 1, MHD_OPTION_END);
}

static enum status open_parts(struct admin *admin, const struct address *address, bool freebind)
{
    /* Without this check a second daemon could share the port (FAULTS J4). */
    TRY(socket_check_free(address, SOCK_STREAM, freebind));
    TRY(socket_listen_tcp(address, freebind, &admin->listen_fd));
    admin->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (admin->epoll_fd < 0)
        return STATUS_SYSTEM;
    admin->daemon = start_daemon(admin);
    if (!admin->daemon)
        return STATUS_SYSTEM;
    const int daemon_fd = MHD_get_daemon_info(admin->daemon, MHD_DAEMON_INFO_EPOLL_FD)->epoll_fd;
    TRY(watch(admin, EPOLL_CTL_ADD, daemon_fd, EPOLLIN));
    return watch(admin, EPOLL_CTL_ADD, admin->listen_fd, EPOLLIN);
}

enum status admin_open(const struct address *address, bool freebind,
                       const struct admin_source *source, struct admin **out)
{
    assert(address && out);
    assert(source->print_metrics && source->is_ready && source->is_healthy);
    struct admin *admin = calloc(1, sizeof(*admin));
    if (!admin)
        return STATUS_SYSTEM;
    admin->source = source;
    admin->epoll_fd = -1;
    admin->listen_fd = -1;
    for (size_t i = 0; i < CONNECTIONS_MAX; i++)
        admin->connections[i].fd = -1;
    const enum status status = open_parts(admin, address, freebind);
    if (status != STATUS_OK) {
        const int cause = errno;
        admin_close(admin);
        errno = cause;
        return status;
    }
    *out = admin;
    return STATUS_OK;
}

int admin_descriptor(const struct admin *admin)
{
    assert(admin->epoll_fd >= 0);
    return admin->epoll_fd;
}

uint16_t admin_port(const struct admin *admin)
{
    assert(admin->listen_fd >= 0);
    struct address address = {0};
    socklen_t length = sizeof(address);
    if (getsockname(admin->listen_fd, &address.any, &length) != 0)
        return 0;
    return address_port(&address);
}

uint64_t admin_run(struct admin *admin)
{
    assert(admin->daemon);
    const uint64_t now = loop_clock();
    shut_down_expired(admin, now);
    accept_waiting(admin, now);
    MHD_run(admin->daemon);
    make_room(admin);
    const bool is_listening = watch_listener(admin, now) == STATUS_OK;

    uint64_t left = DEADLINE_NEVER;
    if (admin->connection_count > 0 || now < admin->accept_after_ns || !is_listening)
        left = TICK_NS;
    MHD_UNSIGNED_LONG_LONG wait_ms;
    if (MHD_get_timeout(admin->daemon, &wait_ms) == MHD_YES &&
        wait_ms < left / NANOSECONDS_PER_MILLISECOND)
        left = wait_ms * NANOSECONDS_PER_MILLISECOND;
    return left;
}

void admin_close(struct admin *admin)
{
    if (!admin)
        return;
    if (admin->daemon)
        MHD_stop_daemon(admin->daemon);
    if (admin->epoll_fd >= 0)
        close(admin->epoll_fd);
    if (admin->listen_fd >= 0)
        close(admin->listen_fd);
    free(admin);
}
