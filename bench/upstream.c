// SPDX-License-Identifier: Apache-2.0
/* A DNS-over-TLS server that answers everything at once, so that the forwarder before it is what a
 * benchmark measures: it must cost clearly less for a query than bench/relay.c.
 *
 * One thread, any number of connections. The answers to all that one turn read from a connection
 * leave together, a record for each 16 KiB.
 *
 * `upstream ADDRESS PORT CERTIFICATE_AND_KEY [option]...` prints `ready` once it listens, its
 * counts at SIGUSR1, and runs until SIGTERM. It does what a name says is to be done (names.h).
 * Options make it a bad one:
 *   --delay-us N     each answer waits that long, in order
 *   --close-after N  ends a connection behind the answer to its Nth query
 *   --reset-after N  resets a connection within the answer to its Nth query
 *   --fail-us N      answers all with SERVFAIL, after that time instead of the delay
 *   --shut           closes all connections, and each new one as soon as it is there
 *   --at-signal      the four above hold from a SIGUSR2 to the next
 *   --slow-ms N      reads a record of each connection in that time, through a small window
 *   --late-ms N      how late what is late comes (500)
 *   --in-order       on a connection nothing comes before what was asked for earlier
 *   --admit N        that many connections at once; more are reset
 *   --counts FILE    adds to the counts that an earlier one left in FILE, which anyone may read
 * Tickets are good for all that serve the same certificate, however often they are killed.
 *
 * RFC: 7858 (DoT), 1035 4.2.2 (length before the message), 6891 6.1 (OPT), 5077 4 (tickets). */
#include <fcntl.h>
#include <getopt.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "common.h"
#include "names.h"

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
    HELD_SPARE = 1 << 10, /* what the queries of a record may take: two each */
    RUNT_LIMIT = HEADER_LENGTH - 1,
    SERVFAIL = 2,
    SLOW_WINDOW_SIZE = 4 << 10,
    HUGE_RECORDS = 4080, /* nearly as long as a message can be */
    HUGE_SIZE = UINT16_MAX,
    LATE_LIMIT = 256,
    LATE_SIZE = 512,
    LATE_LOOK_NS = 10'000'000, /* how often it is looked whether they are due */
    TICKET_KEYS_SIZE = 80,     /* of OpenSSL: name, HMAC key, AES key */
};

/* What --counts keeps, in this order. */
struct counts {
    uint64_t queries;
    uint64_t connections;
    uint64_t writes;
    uint64_t handshakes;
    uint64_t resumed; /* of the handshakes */
};

static const uint64_t NEVER_NS = UINT64_MAX;

/* The next `length` bytes of the output may leave at `due_ns`. */
struct held {
    uint64_t due_ns;
    size_t length;
};

/* A query that is not to be answered before `due_ns`. */
struct late {
    uint64_t due_ns;
    uint8_t deed;
    size_t length;
    uint8_t query[LATE_SIZE];
};

/* Owner: the list of the server, until close_connection(). The buffers are large: what is not
 * filled is not touched either, or handshakes would cost more than anything that is measured. */

struct connection {
    struct connection *next;
    struct connection **link; /* what points here */
    SSL *ssl;
    int fd;
    uint32_t interest; /* what epoll was asked for */
    bool is_blocked;   /* TCP took less than there was to write */
    bool is_held_back; /* OpenSSL may hold queries that were not read as too much waited */
    bool is_greeted;   /* the handshake is over */
    bool is_ending;    /* reads no more, and closes when all is written */
    uint64_t query_count;
    size_t held_first; /* in the ring */
    size_t held_count;
    size_t late_count;
    size_t input_length;

    size_t written;               /* this much of the output is gone, */
    size_t due;                   /* this much may go, */
    size_t timed;                 /* of this much it is known when it may, */
    size_t queued;                /* this much is there */
    struct late late[LATE_LIMIT]; /* the first was asked first; from here on nothing is zeroed */
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
    uint64_t slow_ns;
    uint64_t late_ns;
    uint64_t fail_ns;
    uint64_t close_after; /* 0: never */
    uint64_t admitted;
    uint64_t open; /* connections */
    bool does_reset;
    bool does_fail;
    bool does_shut;
    bool is_calm; /* does none of these four yet, or no more */
    bool is_in_order;
    struct connection *connections;
    struct counts *counts;
} server = {.late_ns = 500'000'000, .admitted = UINT64_MAX};

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
static size_t answer(const uint8_t *query, size_t length, uint8_t rcode, uint8_t *out)
{
    const size_t question = question_end(query, length);
    const bool has_record = question > 0 && rcode == 0;
    const bool has_opt = question > 0 && is_opt(query + question, length - question);
    const uint8_t counts[] = {0, question > 0, 0, has_record, 0, 0, 0, has_opt};
    size_t end = question > 0 ? question : HEADER_LENGTH;
    memcpy(out, query, end);
    out[2] |= 0x80;                                         /* QR */
    out[3] = question > 0 ? (uint8_t)(0x80 | rcode) : 0x81; /* RA; or FORMERR */
    memcpy(out + 4, counts, sizeof counts);
    if (has_record) {
        memcpy(out + end, ANSWER_RECORD, ANSWER_LENGTH);
        end += ANSWER_LENGTH;
    }
    if (has_opt) {
        write_opt(out + end, query + question);
        end += OPT_LENGTH;
    }
    return end;
}

/* The many records have one name, as a compression pointer. */
static size_t huge_answer(const uint8_t *query, size_t length, uint8_t *out)
{
    size_t end = answer(query, length, 0, out);
    write16(out + 6, HUGE_RECORDS);
    write16(out + 10, 0); /* no OPT */
    end = question_end(out, end);
    for (uint16_t i = 0; i < HUGE_RECORDS; i++, end += ANSWER_LENGTH) {
        memcpy(out + end, ANSWER_RECORD, ANSWER_LENGTH);
        write16(out + end + ANSWER_LENGTH - 2, i);
    }
    return end;
}

/* Puts the answer to a query and its length into the output. */
static size_t queue_answer(struct connection *connection, uint8_t deed, const uint8_t *query,
                           size_t length)
{
    uint8_t *frame = connection->output + connection->queued;
    uint8_t *out = frame + PREFIX_LENGTH;
    const bool does_fail = deed == DEED_FAIL || (server.does_fail && !server.is_calm);
    size_t answer_length = deed == DEED_HUGE ? huge_answer(query, length, out)
                                             : answer(query, length, does_fail ? SERVFAIL : 0, out);
    if (deed == DEED_RUNT)
        answer_length = 1 + server.counts->queries % RUNT_LIMIT;
    write16(frame, (uint16_t)answer_length);
    connection->queued += PREFIX_LENGTH + answer_length;
    return answer_length;
}

/* When what was queued may leave. */

static uint64_t usual_delay_ns(void)
{
    return server.does_fail && !server.is_calm ? server.fail_ns : server.delay_ns;
}

/* All that was queued since the last time; never before what was queued earlier. */
static void hold(struct connection *connection, uint64_t delay_ns)
{
    const size_t length = connection->queued - connection->timed;
    const size_t last = (connection->held_first + connection->held_count) % HELD_LIMIT;
    connection->timed = connection->queued;
    if (length == 0)
        return;
    if (delay_ns == 0 && connection->held_count == 0) {
        connection->due += length;
        return;
    }
    connection->held[last] =
        (struct held){delay_ns == NEVER_NS ? NEVER_NS : clock_ns() + delay_ns, length};
    connection->held_count++;
}

static void release_held(struct connection *connection, uint64_t now_ns)
{
    while (connection->held_count > 0 &&
           connection->held[connection->held_first].due_ns <= now_ns) {
        connection->due += connection->held[connection->held_first].length;
        connection->held_first = (connection->held_first + 1) % HELD_LIMIT;
        connection->held_count--;
    }
}

/* What is late is answered when its time has come and the output has room; held like the rest. */
static void answer_late(struct connection *connection, uint64_t now_ns)
{
    while (connection->late_count > 0 && connection->late[0].due_ns <= now_ns &&
           connection->queued <= OUTPUT_SIZE - PREFIX_LENGTH - HUGE_SIZE &&
           connection->held_count < HELD_LIMIT) {
        const struct late *late = &connection->late[0];
        queue_answer(connection, late->deed, late->query, late->length);
        hold(connection, usual_delay_ns());
        memmove(connection->late, connection->late + 1,
                --connection->late_count * sizeof *connection->late);
    }
}

/* Queries. */

/* Some who ask change the case of letters, against forgery. */
static uint8_t deed_of(const uint8_t *query, size_t length)
{
    const uint8_t *name = query + HEADER_LENGTH;
    const bool is_of_load = length > HEADER_LENGTH + NAME_LENGTH && name[0] == 1 + NAME_DIGITS;
    return is_of_load ? name[1] | 0x20 : DEED_NONE;
}

static void put_off(struct connection *connection, uint8_t deed, const uint8_t *query,
                    size_t length)
{
    if (server.is_in_order && deed != DEED_HUGE) {
        hold(connection, usual_delay_ns());
        queue_answer(connection, deed, query, length);
        hold(connection, deed == DEED_MUTE ? NEVER_NS : server.late_ns);
    } else if (deed != DEED_MUTE && connection->late_count < LATE_LIMIT && length <= LATE_SIZE) {
        struct late *late = &connection->late[connection->late_count++];
        *late =
            (struct late){.due_ns = clock_ns() + server.late_ns, .deed = deed, .length = length};
        memcpy(late->query, query, length);
    }
}

static void answer_now(struct connection *connection, uint8_t deed, const uint8_t *query,
                       size_t length)
{
    const size_t answer_length = queue_answer(connection, deed, query, length);
    connection->query_count++;
    connection->is_ending =
        server.close_after > 0 && !server.is_calm && connection->query_count >= server.close_after;
    if (connection->is_ending && server.does_reset)
        connection->queued -= answer_length / 2;
}

static void take_query(struct connection *connection, const uint8_t *query, size_t length)
{
    const uint8_t deed = deed_of(query, length);
    server.counts->queries++;
    if (deed == DEED_CLOSE)
        connection->is_ending = true;
    else if (deed == DEED_NONE || deed == DEED_RUNT)
        answer_now(connection, deed, query, length);
    else
        put_off(connection, deed, query, length);
}

/* Takes the whole queries of the input and keeps the beginning of the next. False: it is not DNS.
 */
static bool take_input(struct connection *connection)
{
    size_t at = 0;
    while (!connection->is_ending && connection->input_length - at >= PREFIX_LENGTH) {
        const size_t length = read16(connection->input + at);
        if (length < HEADER_LENGTH)
            return false;
        if (connection->input_length - at < PREFIX_LENGTH + length)
            break;
        take_query(connection, connection->input + at + PREFIX_LENGTH, length);
        at += PREFIX_LENGTH + length;
    }
    connection->input_length -= at;
    memmove(connection->input, connection->input + at, connection->input_length);
    return true;
}

/* Connections. */

static bool is_full(const struct connection *connection)
{
    return connection->queued - connection->written >= OUTPUT_LIMIT ||
           connection->held_count >= HELD_LIMIT - HELD_SPARE || connection->is_ending;
}

static void note_handshake(struct connection *connection)
{
    if (connection->is_greeted || !SSL_is_init_finished(connection->ssl))
        return;
    connection->is_greeted = true;
    server.counts->handshakes++;
    server.counts->resumed += SSL_session_reused(connection->ssl) == 1;
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
        is_alive = take_input(connection);
        is_more = SSL_has_pending(connection->ssl) == 1 && server.slow_ns == 0;
    }
    note_handshake(connection);
    connection->is_held_back = is_full(connection);
    hold(connection, usual_delay_ns());
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
    connection->timed -= gone;
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
        server.counts->writes++;
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

/* The close of `fd` is a RST. */
static void reset(int fd)
{
    const struct linger at_once = {.l_onoff = 1};
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
}

/* On every second connection behind a TLS record that is not whole either. */
static void reset_within(struct connection *connection)
{
    if (server.counts->connections % 2 == 0)
        (void)send(connection->fd, "\x17\x03\x03\x01\x00half", 9, MSG_NOSIGNAL);
    reset(connection->fd);
}

static void close_connection(struct connection *connection)
{
    *connection->link = connection->next;
    if (connection->next)
        connection->next->link = connection->link;
    if (connection->is_ending && server.does_reset)
        reset_within(connection);
    else
        SSL_shutdown(connection->ssl);
    server.open--;
    ERR_clear_error();
    SSL_free(connection->ssl);
    close(connection->fd);
    free(connection);
}

static bool is_at_end(const struct connection *connection)
{
    return connection->is_ending && connection->queued == 0 && connection->held_count == 0;
}

static void serve(struct connection *connection)
{
    do {
        if (!read_queries(connection) || !write_answers(connection) || is_at_end(connection)) {
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

static bool is_shut(void)
{
    return server.does_shut && !server.is_calm;
}

static void open_connection(int fd)
{
    const int on = 1;
    struct connection *connection = malloc(sizeof *connection);
    SSL *ssl = SSL_new(server.context);
    if (!connection || !ssl || SSL_set_fd(ssl, fd) != 1)
        give_up("no memory");
    memset(connection, 0, offsetof(struct connection, late));
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
    server.open++;
    watch(fd, connection);
}

static void accept_connection(void)
{
    const int fd = accept4(server.listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0)
        return;
    server.counts->connections++;
    if (!is_shut() && server.open < server.admitted) {
        open_connection(fd);
        return;
    }
    if (!is_shut())
        reset(fd);
    close(fd);
}

/* The server. */

static void heed_signal(void)
{
    struct signalfd_siginfo signal;
    if (read(server.signals, &signal, sizeof signal) != sizeof signal)
        return;
    if (signal.ssi_signo == SIGUSR2) {
        server.is_calm = !server.is_calm;
        return;
    }
    printf("queries %lu connections %lu writes %lu\n", server.counts->queries,
           server.counts->connections, server.counts->writes);
    fflush(stdout);
}

/* Returns how long to wait for the next; UINT64_MAX: nothing is held. */
static uint64_t serve_held(void)
{
    const uint64_t now_ns = clock_ns();
    uint64_t wait_ns = UINT64_MAX;
    for (struct connection *connection = server.connections, *next; connection; connection = next) {
        next = connection->next;
        answer_late(connection, now_ns);
        release_held(connection, now_ns);
        if (connection->due > connection->written && !connection->is_blocked) {
            serve(connection);
            wait_ns = 0; /* it may be gone: look again */
        } else if (connection->held_count > 0) {
            const uint64_t rest_ns = connection->held[connection->held_first].due_ns - now_ns;
            wait_ns = rest_ns < wait_ns ? rest_ns : wait_ns;
        } else if (connection->late_count > 0) {
            wait_ns = LATE_LOOK_NS < wait_ns ? LATE_LOOK_NS : wait_ns;
        }
    }
    return wait_ns;
}

static void turn(void)
{
    struct epoll_event events[EVENT_LIMIT];
    const uint64_t wait_ns = serve_held();
    const struct timespec wait = {.tv_sec = (time_t)(wait_ns / 1'000'000'000),
                                  .tv_nsec = (long)(wait_ns % 1'000'000'000)};
    const int count =
        epoll_pwait2(server.epoll, events, EVENT_LIMIT, wait_ns == UINT64_MAX ? NULL : &wait, NULL);
    for (int i = 0; i < count; i++) {
        if (events[i].data.ptr == &server.listener)
            accept_connection();
        else if (events[i].data.ptr == &server.signals)
            heed_signal();
        else
            serve(events[i].data.ptr);
    }
    while (is_shut() && server.connections)
        close_connection(server.connections);
    if (server.slow_ns > 0)
        nanosleep(&(struct timespec){.tv_nsec = (long)server.slow_ns}, NULL);
}

/* The keys of the tickets are the path of the certificate, whoever is told it. */
static void set_ticket_keys(SSL_CTX *context, const char *path)
{
    uint8_t keys[TICKET_KEYS_SIZE] = {};
    const size_t length = strlen(path);
    for (size_t i = 0; i < length; i++)
        keys[i % sizeof keys] = (uint8_t)(keys[i % sizeof keys] * 31 + path[i]);
    if (SSL_CTX_set_tlsext_ticket_keys(context, keys, sizeof keys) != 1)
        give_up("ticket keys");
}

static SSL_CTX *new_context(const char *path)
{
    SSL_CTX *context = SSL_CTX_new(TLS_server_method());
    if (!context || SSL_CTX_use_certificate_chain_file(context, path) != 1 ||
        SSL_CTX_use_PrivateKey_file(context, path, SSL_FILETYPE_PEM) != 1)
        give_up(path);
    SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION);
    SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_set_read_ahead(context, server.slow_ns == 0);
    SSL_CTX_set_default_read_buffer_len(context, READ_BUFFER_SIZE);
    set_ticket_keys(context, path);
    return context;
}

static int listen_at(const struct endpoint *endpoint)
{
    const int on = 1, window = SLOW_WINDOW_SIZE;
    const int fd =
        socket(endpoint->address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (server.slow_ns > 0)
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &window, sizeof window);
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
    sigaddset(&set, SIGUSR2);
    sigprocmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);
    return signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
}

static struct counts *open_counts(const char *path)
{
    const int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (fd < 0 || ftruncate(fd, sizeof(struct counts)) != 0)
        fatal(path);
    void *map = mmap(NULL, sizeof(struct counts), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED)
        fatal(path);
    close(fd);
    return map;
}

static bool take_option(int letter)
{
    const uint64_t number = strtoull(optarg ? optarg : "", NULL, 10);
    switch (letter) {
    case 'd':
        server.delay_ns = number * 1000;
        return true;
    case 'r':
        server.does_reset = true;
        [[fallthrough]];
    case 'c':
        server.close_after = number;
        return true;
    case 's':
        server.slow_ns = number * 1'000'000;
        return true;
    case 'f':
        server.does_fail = true;
        server.fail_ns = number * 1000;
        return true;
    case 'x':
        server.does_shut = true;
        return true;
    case 'g':
        server.is_calm = true;
        return true;
    case 'l':
        server.late_ns = number * 1'000'000;
        return true;
    case 'o':
        server.is_in_order = true;
        return true;
    case 'a':
        server.admitted = number;
        return true;
    case 'n':
        server.counts = open_counts(optarg);
        return true;
    default:
        return false;
    }
}

static bool take_options(int count, char **words)
{
    static const struct option options[] = {
        {"delay-us", 1, 0, 'd'},  {"close-after", 1, 0, 'c'}, {"reset-after", 1, 0, 'r'},
        {"slow-ms", 1, 0, 's'},   {"fail-us", 1, 0, 'f'},     {"shut", 0, 0, 'x'},
        {"at-signal", 0, 0, 'g'}, {"late-ms", 1, 0, 'l'},     {"in-order", 0, 0, 'o'},
        {"admit", 1, 0, 'a'},     {"counts", 1, 0, 'n'},      {}};
    bool is_good = true;
    for (int letter; (letter = getopt_long(count, words, "", options, NULL)) != -1;)
        is_good = is_good && take_option(letter);
    return is_good && count - optind == 3;
}

int main(int count, char **words)
{
    static struct counts own;
    server.counts = &own;
    if (!take_options(count, words))
        fatal_usage("usage: upstream ADDRESS PORT CERTIFICATE_AND_KEY [--delay-us N] "
                    "[--close-after N | --reset-after N]\n                [--fail-us N] [--shut] "
                    "[--at-signal] [--slow-ms N] [--late-ms N]\n                [--in-order] "
                    "[--admit N] [--counts FILE]");
    words += optind;
    const struct endpoint endpoint = parse_endpoint(words[0], words[1]);
    server.context = new_context(words[2]);
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
