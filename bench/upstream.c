// SPDX-License-Identifier: Apache-2.0
/* A DNS-over-TLS server that answers everything at once, so that the forwarder before it is what a
 * benchmark measures: it must cost clearly less for a query than bench/relay.c.
 *
 * One thread, any number of connections. The answers to all that one turn read from a connection
 * leave together, a record for each 16 KiB.
 *
 * `upstream ADDRESS PORT CERTIFICATE_AND_KEY [--delay-us N]` prints `ready` once it listens, its
 * counts at SIGUSR1, and runs until SIGTERM. With a delay each answer waits that long, in order.
 *
 * RFC: 7858 (DoT), 1035 4.2.2 (length before the message), 6891 6.1 (OPT). */
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "common.h"

enum {
    EVENT_LIMIT = 64,
    BACKLOG = 1024,
    PREFIX_LENGTH = 2, /* of a message in a stream */
    OPT_LENGTH = 11,
    RECORD_SIZE = 16 << 10,
    READ_BUFFER_SIZE = 64 << 10, /* OpenSSL's own: the records that one read() may bring */
    INPUT_SIZE = 96 << 10,       /* must hold the longest message and a record */
    OUTPUT_LIMIT = 1 << 20,      /* when more than that waits nothing more is read */
    OUTPUT_SIZE = 2 * OUTPUT_LIMIT + 2 * INPUT_SIZE, /* an answer is under twice its query */
    HELD_LIMIT = 1 << 14,
};

/* With a delay: the next `length` bytes of the output may leave at `due_ns`. */
struct held {
    uint64_t due_ns;
    size_t length;
};

/* Owner: the list of the server, until close_connection(). Memory is used as far as the buffers
 * were ever filled. */
struct connection {
    struct connection *next;
    struct connection **link; /* what points here */
    SSL *ssl;
    int fd;
    uint32_t interest; /* what epoll was asked for */
    bool is_blocked;   /* TCP took less than there was to write */
    bool is_held_back; /* OpenSSL may hold queries that were not read as too much waited */
    size_t held_first; /* in the ring */
    size_t held_count;
    size_t input_length;
    size_t written; /* this much of the output is gone, */
    size_t due;     /* this much may go, */
    size_t queued;  /* this much is there */
    struct held held[HELD_LIMIT];
    uint8_t input[INPUT_SIZE];
    uint8_t output[OUTPUT_SIZE];
};

static struct {
    SSL_CTX *context;
    int epoll;
    int listener;
    int signals;
    uint64_t delay_ns;
    struct connection *connections;
    uint64_t query_count;
    uint64_t connection_count;
    uint64_t write_count;
} server;

/* With what OpenSSL has to say. */
_Noreturn static void give_up(const char *what)
{
    fprintf(stderr, "%s\n", what);
    ERR_print_errors_fp(stderr);
    exit(EXIT_FAILURE);
}

/* Answers. */

static bool is_opt(const uint8_t *record, size_t length)
{
    return length >= OPT_LENGTH && record[0] == 0 && read16(record + 1) == 41;
}

/* 1232 bytes, no options; DO as in the query. */
static void write_opt(uint8_t *at, const uint8_t *query_opt)
{
    const uint8_t opt[OPT_LENGTH] = {0, 0, 41, 0x04, 0xd0, 0, 0, query_opt[7] & 0x80};
    memcpy(at, opt, sizeof opt);
}

/* Returns the answer's length. What has no question that can be read is answered by FORMERR. */
static size_t answer(const uint8_t *query, size_t length, uint8_t *out)
{
    const size_t end = question_end(query, length);
    const bool has_opt = end > 0 && is_opt(query + end, length - end);
    const uint8_t counts[] = {0, end > 0, 0, end > 0, 0, 0, 0, has_opt};
    memcpy(out, query, end > 0 ? end : HEADER_LENGTH);
    out[2] |= 0x80;                 /* QR */
    out[3] = end > 0 ? 0x80 : 0x81; /* RA; NOERROR or FORMERR */
    memcpy(out + 4, counts, sizeof counts);
    if (end == 0)
        return HEADER_LENGTH;
    memcpy(out + end, ANSWER_RECORD, ANSWER_LENGTH);
    if (!has_opt)
        return end + ANSWER_LENGTH;
    write_opt(out + end + ANSWER_LENGTH, query + end);
    return end + ANSWER_LENGTH + OPT_LENGTH;
}

/* Answers the whole queries of the input and keeps the beginning of the next. False: it is not DNS.
 */
static bool answer_input(struct connection *connection)
{
    size_t at = 0;
    while (connection->input_length - at >= PREFIX_LENGTH) {
        const size_t length = read16(connection->input + at);
        if (length < HEADER_LENGTH)
            return false;
        if (connection->input_length - at < PREFIX_LENGTH + length)
            break;
        uint8_t *frame = connection->output + connection->queued;
        const size_t answer_length =
            answer(connection->input + at + PREFIX_LENGTH, length, frame + PREFIX_LENGTH);
        write16(frame, (uint16_t)answer_length);
        connection->queued += PREFIX_LENGTH + answer_length;
        server.query_count++;
        at += PREFIX_LENGTH + length;
    }
    connection->input_length -= at;
    memmove(connection->input, connection->input + at, connection->input_length);
    return true;
}

/* The delay. */

static void hold(struct connection *connection, size_t length)
{
    const size_t last = (connection->held_first + connection->held_count++) % HELD_LIMIT;
    connection->held[last] = (struct held){clock_ns() + server.delay_ns, length};
}

/* True when there was something. */
static bool release_held(struct connection *connection, uint64_t now_ns)
{
    const size_t due = connection->due;
    while (connection->held_count > 0 &&
           connection->held[connection->held_first].due_ns <= now_ns) {
        connection->due += connection->held[connection->held_first].length;
        connection->held_first = (connection->held_first + 1) % HELD_LIMIT;
        connection->held_count--;
    }
    return connection->due > due;
}

/* Connections. */

static bool is_full(const struct connection *connection)
{
    return connection->queued - connection->written >= OUTPUT_LIMIT ||
           connection->held_count == HELD_LIMIT;
}

/* False when the connection has ended. */
static bool may_go_on(struct connection *connection, int result)
{
    const int error = SSL_get_error(connection->ssl, result);
    connection->is_blocked = error == SSL_ERROR_WANT_WRITE;
    return connection->is_blocked || error == SSL_ERROR_WANT_READ;
}

/* A call reads one record. Once OpenSSL holds nothing more, epoll is asked rather than TCP. */
static bool read_queries(struct connection *connection)
{
    const size_t queued = connection->queued;
    bool is_alive = true;
    bool is_more = true;
    while (is_alive && is_more && !is_full(connection)) {
        const int result =
            SSL_read(connection->ssl, connection->input + connection->input_length, RECORD_SIZE);
        if (result <= 0) {
            is_alive = may_go_on(connection, result);
            break;
        }
        connection->input_length += (size_t)result;
        is_alive = answer_input(connection);
        is_more = SSL_has_pending(connection->ssl) == 1;
    }
    connection->is_held_back = is_full(connection);
    if (server.delay_ns == 0)
        connection->due = connection->queued;
    else if (connection->queued > queued)
        hold(connection, connection->queued - queued);
    return is_alive;
}

static void forget_written(struct connection *connection)
{
    const size_t gone = connection->written;
    if (gone < connection->queued && gone < OUTPUT_LIMIT)
        return;
    memmove(connection->output, connection->output + gone, connection->queued - gone);
    connection->written -= gone;
    connection->due -= gone;
    connection->queued -= gone;
}

/* A call writes one record. */
static bool write_answers(struct connection *connection)
{
    bool is_alive = true;
    while (connection->written < connection->due) {
        const int result = SSL_write(connection->ssl, connection->output + connection->written,
                                     (int)(connection->due - connection->written));
        if (result <= 0) {
            is_alive = may_go_on(connection, result);
            break;
        }
        server.write_count++;
        connection->is_blocked = false;
        connection->written += (size_t)result;
    }
    forget_written(connection);
    return is_alive;
}

static void set_interest(struct connection *connection)
{
    const uint32_t interest =
        (is_full(connection) ? 0 : EPOLLIN) | (connection->is_blocked ? EPOLLOUT : 0);
    struct epoll_event event = {.events = interest, .data.ptr = connection};
    if (interest == connection->interest)
        return;
    connection->interest = interest;
    if (epoll_ctl(server.epoll, EPOLL_CTL_MOD, connection->fd, &event) != 0)
        fatal("epoll_ctl");
}

static void close_connection(struct connection *connection)
{
    *connection->link = connection->next;
    if (connection->next)
        connection->next->link = connection->link;
    SSL_shutdown(connection->ssl);
    ERR_clear_error();
    SSL_free(connection->ssl);
    close(connection->fd);
    free(connection);
}

static void serve(struct connection *connection)
{
    do {
        if (!read_queries(connection) || !write_answers(connection)) {
            close_connection(connection);
            return;
        }
    } while (connection->is_held_back && !is_full(connection));
    set_interest(connection);
}

static void watch(int fd, void *what)
{
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = what};
    if (epoll_ctl(server.epoll, EPOLL_CTL_ADD, fd, &event) != 0)
        fatal("epoll_ctl");
}

static void accept_connection(void)
{
    const int on = 1;
    const int fd = accept4(server.listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0)
        return;
    struct connection *connection = calloc(1, sizeof *connection);
    SSL *ssl = SSL_new(server.context);
    if (!connection || !ssl || SSL_set_fd(ssl, fd) != 1)
        give_up("no memory");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    SSL_set_accept_state(ssl);
    connection->ssl = ssl;
    connection->fd = fd;
    connection->interest = EPOLLIN;
    connection->next = server.connections;
    connection->link = &server.connections;
    if (connection->next)
        connection->next->link = &connection->next;
    server.connections = connection;
    server.connection_count++;
    watch(fd, connection);
}

/* The server. */

static void print_counts(void)
{
    struct signalfd_siginfo signal;
    if (read(server.signals, &signal, sizeof signal) != sizeof signal)
        return;
    printf("queries %lu connections %lu writes %lu\n", server.query_count, server.connection_count,
           server.write_count);
    fflush(stdout);
}

/* Returns how long to wait for the next; UINT64_MAX: nothing is held. */
static uint64_t serve_held(void)
{
    const uint64_t now_ns = clock_ns();
    uint64_t wait_ns = UINT64_MAX;
    for (struct connection *connection = server.connections, *next; connection; connection = next) {
        next = connection->next;
        if (release_held(connection, now_ns)) {
            serve(connection);
            wait_ns = 0; /* it may be gone: look again */
        } else if (connection->held_count > 0) {
            const uint64_t rest_ns = connection->held[connection->held_first].due_ns - now_ns;
            wait_ns = rest_ns < wait_ns ? rest_ns : wait_ns;
        }
    }
    return wait_ns;
}

static void turn(void)
{
    struct epoll_event events[EVENT_LIMIT];
    const uint64_t wait_ns = server.delay_ns > 0 ? serve_held() : UINT64_MAX;
    const struct timespec wait = {.tv_sec = (time_t)(wait_ns / 1'000'000'000),
                                  .tv_nsec = (long)(wait_ns % 1'000'000'000)};
    const int count =
        epoll_pwait2(server.epoll, events, EVENT_LIMIT, wait_ns == UINT64_MAX ? NULL : &wait, NULL);
    for (int i = 0; i < count; i++) {
        if (events[i].data.ptr == &server.listener)
            accept_connection();
        else if (events[i].data.ptr == &server.signals)
            print_counts();
        else
            serve(events[i].data.ptr);
    }
}

static SSL_CTX *new_context(const char *path)
{
    SSL_CTX *context = SSL_CTX_new(TLS_server_method());
    if (!context || SSL_CTX_use_certificate_chain_file(context, path) != 1 ||
        SSL_CTX_use_PrivateKey_file(context, path, SSL_FILETYPE_PEM) != 1)
        give_up(path);
    SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION);
    SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_set_read_ahead(context, 1);
    SSL_CTX_set_default_read_buffer_len(context, READ_BUFFER_SIZE);
    return context;
}

static int listen_at(const struct endpoint *endpoint)
{
    const int on = 1;
    const int fd =
        socket(endpoint->address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0 ||
        bind(fd, (const struct sockaddr *)&endpoint->address, endpoint->length) != 0 ||
        listen(fd, BACKLOG) != 0)
        fatal("listen");
    return fd;
}

static int open_signals(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    sigprocmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);
    return signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
}

int main(int count, char **words)
{
    if (count != 4 && (count != 6 || strcmp(words[4], "--delay-us") != 0))
        fatal_usage("usage: upstream ADDRESS PORT CERTIFICATE_AND_KEY [--delay-us N]");
    const struct endpoint endpoint = parse_endpoint(words[1], words[2]);
    server.delay_ns = count == 6 ? strtoul(words[5], NULL, 10) * 1000 : 0;
    server.context = new_context(words[3]);
    server.epoll = epoll_create1(EPOLL_CLOEXEC);
    server.signals = open_signals();
    server.listener = listen_at(&endpoint);
    watch(server.listener, &server.listener);
    watch(server.signals, &server.signals);
    prctl(PR_SET_TIMERSLACK, 1); /* ns; for the delay */
    puts("ready");
    fflush(stdout);
    for (;;)
        turn();
}
