// SPDX-License-Identifier: Apache-2.0
/* The floor of a forwarded query: what carrying it to a DNS-over-TLS server and back costs when
 * nothing is looked at but its ID.
 *
 * One thread, one UDP socket, one TLS 1.3 connection. What a turn of the loop took from the clients
 * leaves in one record, and the answers of a turn leave 64 to a system call. No cache, no parsing,
 * no timeouts: an answer is matched by ID alone, which a real forwarder must not do.
 *
 * `relay ADDRESS PORT UPSTREAM_ADDRESS UPSTREAM_PORT CA_FILE NAME` prints `ready` once it is bound
 * and the handshake is done, and runs until SIGTERM.
 *
 * RFC: 7858 (DoT), 1035 4.2.2 (length before the message). */
#include <fcntl.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <stdbool.h>
#include <sys/epoll.h>

#include "common.h"

enum {
    BATCHES_A_TURN = 4,
    ID_COUNT = 1 << 16,
    QUERY_SIZE = 1472,           /* what an Ethernet frame carries; more is no query */
    PREFIX_LENGTH = 2,           /* of a message in a stream */
    QUERIES_SIZE = 4 << 20,      /* as many as there are IDs, of the usual size */
    ANSWERS_SIZE = 256 << 10,    /* what a turn takes at most; must hold a message and a record */
    READ_BUFFER_SIZE = 64 << 10, /* OpenSSL's own: the records that one read() may bring */
    RECORD_SIZE = 16 << 10,
};

/* A query on its way. Free when `length` is 0. */
struct slot {
    struct sockaddr_in6 client; /* has room for IPv4 */
    socklen_t length;
    uint16_t id; /* the client's */
};

static struct {
    int udp;
    int tcp;
    int epoll;
    SSL *ssl;
    bool is_blocked; /* TCP took less than there was to write */

    struct slot slots[ID_COUNT];
    uint16_t free[ID_COUNT]; /* a stack: what was used last is still in the processor's cache */
    size_t free_count;

    size_t written; /* of the queries: gone, */
    size_t queued;  /* is there */
    uint8_t queries[QUERIES_SIZE];

    size_t answers_length;
    uint8_t answers[ANSWERS_SIZE];
    int answer_count; /* of those to be sent */
    struct iovec answer_parts[BATCH_LIMIT];
    struct mmsghdr answer_headers[BATCH_LIMIT];

    struct iovec parts[BATCH_LIMIT];
    struct mmsghdr headers[BATCH_LIMIT];
    struct sockaddr_in6 clients[BATCH_LIMIT];
    uint8_t received[BATCH_LIMIT][QUERY_SIZE];
} relay;

/* With what OpenSSL has to say. */
_Noreturn static void give_up(const char *what)
{
    fprintf(stderr, "%s\n", what);
    ERR_print_errors_fp(stderr);
    exit(EXIT_FAILURE);
}

/* Queries: from the clients to the connection. */

static void queue_query(const uint8_t *query, size_t length, const struct msghdr *header)
{
    if (length < HEADER_LENGTH || relay.free_count == 0 ||
        relay.queued + PREFIX_LENGTH + length > QUERIES_SIZE)
        return; /* lost, as any datagram may be */
    const uint16_t id = relay.free[--relay.free_count];
    struct slot *slot = &relay.slots[id];
    memcpy(&slot->client, header->msg_name, sizeof slot->client);
    slot->length = header->msg_namelen;
    slot->id = read16(query);
    uint8_t *frame = relay.queries + relay.queued;
    write16(frame, (uint16_t)length);
    memcpy(frame + PREFIX_LENGTH, query, length);
    write16(frame + PREFIX_LENGTH, id);
    relay.queued += PREFIX_LENGTH + length;
}

static int receive_batch(void)
{
    const int count = recvmmsg(relay.udp, relay.headers, BATCH_LIMIT, MSG_DONTWAIT, NULL);
    for (int i = 0; i < count; i++) {
        struct msghdr *header = &relay.headers[i].msg_hdr;
        if (!(header->msg_flags & MSG_TRUNC))
            queue_query(relay.received[i], relay.headers[i].msg_len, header);
        header->msg_namelen = sizeof relay.clients[i]; /* all that a receive changed */
    }
    return count;
}

static void receive_queries(void)
{
    for (int i = 0; i < BATCHES_A_TURN; i++)
        if (receive_batch() < BATCH_LIMIT)
            return;
}

static void wait_for_room(bool is_blocked)
{
    if (is_blocked == relay.is_blocked)
        return;
    relay.is_blocked = is_blocked;
    struct epoll_event event = {.events = EPOLLIN | (is_blocked ? EPOLLOUT : 0),
                                .data.fd = relay.tcp};
    if (epoll_ctl(relay.epoll, EPOLL_CTL_MOD, relay.tcp, &event) != 0)
        fatal("epoll_ctl");
}

static void forget_written(void)
{
    relay.queued -= relay.written;
    memmove(relay.queries, relay.queries + relay.written, relay.queued);
    relay.written = 0;
}

/* A call writes one record: more than one is needed only for more than 16 KiB. */
static void write_queries(void)
{
    bool is_blocked = false;
    while (relay.written < relay.queued && !is_blocked) {
        const int result = SSL_write(relay.ssl, relay.queries + relay.written,
                                     (int)(relay.queued - relay.written));
        if (result > 0)
            relay.written += (size_t)result;
        else if (SSL_get_error(relay.ssl, result) == SSL_ERROR_WANT_WRITE)
            is_blocked = true;
        else
            give_up("The connection was lost.");
    }
    forget_written();
    wait_for_room(is_blocked);
}

/* Answers: from the connection to the clients. */

static void send_answers(void)
{
    for (int sent = 0; sent < relay.answer_count;) {
        const int done = sendmmsg(relay.udp, relay.answer_headers + sent,
                                  (unsigned)(relay.answer_count - sent), 0);
        sent += done > 0 ? done : 1; /* a client that is gone costs its own answer only */
    }
    relay.answer_count = 0;
}

/* The datagram is sent from where the answer lies, to the address in the slot: neither is used
 * again before send_answers(). */
static void gather_answer(uint8_t *answer, size_t length)
{
    const uint16_t id = read16(answer);
    struct slot *slot = &relay.slots[id];
    if (slot->length == 0)
        return; /* never asked, or answered */
    write16(answer, slot->id);
    struct msghdr *header = &relay.answer_headers[relay.answer_count].msg_hdr;
    header->msg_name = &slot->client;
    header->msg_namelen = slot->length;
    relay.answer_parts[relay.answer_count] = (struct iovec){answer, length};
    slot->length = 0;
    relay.free[relay.free_count++] = id;
    if (++relay.answer_count == BATCH_LIMIT)
        send_answers();
}

/* What is left is the beginning of an answer. */
static void split_answers(void)
{
    size_t at = 0;
    while (relay.answers_length - at >= PREFIX_LENGTH) {
        const size_t length = read16(relay.answers + at);
        if (length < HEADER_LENGTH)
            give_up("The upstream sent an answer without a header.");
        if (relay.answers_length - at < PREFIX_LENGTH + length)
            break;
        gather_answer(relay.answers + at + PREFIX_LENGTH, length);
        at += PREFIX_LENGTH + length;
    }
    send_answers();
    relay.answers_length -= at;
    memmove(relay.answers, relay.answers + at, relay.answers_length);
}

/* A call reads one record. Once OpenSSL holds nothing more, epoll is asked rather than TCP. */
static bool read_record(void)
{
    const int result = SSL_read(relay.ssl, relay.answers + relay.answers_length, RECORD_SIZE);
    if (result > 0)
        relay.answers_length += (size_t)result;
    else if (SSL_get_error(relay.ssl, result) != SSL_ERROR_WANT_READ)
        give_up("The connection was lost.");
    return result > 0 && SSL_has_pending(relay.ssl);
}

static void receive_answers(void)
{
    bool is_more = true;
    while (is_more) {
        while (is_more && relay.answers_length + RECORD_SIZE <= ANSWERS_SIZE)
            is_more = read_record();
        split_answers();
    }
}

/* Getting ready. */

static SSL *new_session(const char *ca_file, const char *name)
{
    SSL_CTX *context = SSL_CTX_new(TLS_client_method());
    if (!context || SSL_CTX_load_verify_locations(context, ca_file, NULL) != 1)
        give_up(ca_file);
    SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION);
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER, NULL);
    SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_set_read_ahead(context, 1);
    SSL_CTX_set_default_read_buffer_len(context, READ_BUFFER_SIZE);
    SSL *ssl = SSL_new(context);
    if (!ssl || SSL_set1_host(ssl, name) != 1 || SSL_set_tlsext_host_name(ssl, name) != 1)
        give_up(name);
    SSL_CTX_free(context); /* the session holds it */
    return ssl;
}

static void connect_upstream(const struct endpoint *upstream)
{
    const int on = 1;
    relay.tcp = socket(upstream->address.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (relay.tcp < 0 ||
        connect(relay.tcp, (const struct sockaddr *)&upstream->address, upstream->length) != 0 ||
        setsockopt(relay.tcp, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) != 0)
        fatal("connect");
    if (SSL_set_fd(relay.ssl, relay.tcp) != 1 || SSL_connect(relay.ssl) != 1)
        give_up("The handshake failed.");
    if (fcntl(relay.tcp, F_SETFL, O_NONBLOCK) != 0)
        fatal("fcntl");
    fprintf(stderr, "%s\n", SSL_get_cipher_name(relay.ssl));
}

static void prepare(void)
{
    for (size_t i = 0; i < BATCH_LIMIT; i++) {
        relay.parts[i] = (struct iovec){relay.received[i], QUERY_SIZE};
        relay.headers[i].msg_hdr = (struct msghdr){.msg_name = &relay.clients[i],
                                                   .msg_namelen = sizeof relay.clients[i],
                                                   .msg_iov = &relay.parts[i],
                                                   .msg_iovlen = 1};
        relay.answer_headers[i].msg_hdr =
            (struct msghdr){.msg_iov = &relay.answer_parts[i], .msg_iovlen = 1};
    }
    while (relay.free_count < ID_COUNT) {
        relay.free[relay.free_count] = (uint16_t)relay.free_count;
        relay.free_count++;
    }
}

static void watch(int fd)
{
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    if (epoll_ctl(relay.epoll, EPOLL_CTL_ADD, fd, &event) != 0)
        fatal("epoll_ctl");
}

/* Answers first: they free the slots that the queries take. */
static void turn(void)
{
    struct epoll_event events[2];
    bool is_asked = false;
    const int count = epoll_wait(relay.epoll, events, 2, -1);
    for (int i = 0; i < count; i++) {
        if (events[i].data.fd == relay.udp)
            is_asked = true;
        else if (events[i].events & ~(uint32_t)EPOLLOUT)
            receive_answers();
    }
    if (is_asked)
        receive_queries();
    write_queries();
}

int main(int count, char **words)
{
    if (count != 7)
        fatal_usage("usage: relay ADDRESS PORT UPSTREAM_ADDRESS UPSTREAM_PORT CA_FILE NAME");
    const struct endpoint endpoint = parse_endpoint(words[1], words[2]);
    const struct endpoint upstream = parse_endpoint(words[3], words[4]);
    prepare();
    relay.udp = bind_udp(&endpoint, 0);
    relay.ssl = new_session(words[5], words[6]);
    connect_upstream(&upstream);
    relay.epoll = epoll_create1(EPOLL_CLOEXEC);
    watch(relay.udp);
    watch(relay.tcp);
    puts("ready");
    fflush(stdout);
    for (;;)
        turn();
}
