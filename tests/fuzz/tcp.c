// SPDX-License-Identifier: Apache-2.0
/* TCP clients that send anything at all, in any pieces: each message gets its own reply, and no
 * other.
 *
 * The real listener, clients, streams, loop, queries, lookups and cache; the upstreams are those of
 * the unit tests. A reply must have the ID and the question, in the client's spelling, of a message
 * of that client that had none before (FAULTS B1, B7, H10). While no time passes each message that
 * deserves a reply has got it in the end, unless its client went (B5); and a client that ends its
 * side, or breaks the framing (B2), hears everything first (B8). */
#include <assert.h>

#include "../unit/query/fake_upstream.h"
#include "fake_kernel.h"
#include "listen/listen.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
enum status __wrap_socket_accept(int listener_fd, int *out, struct address *client);

enum { CLIENTS_MAX = 16, MESSAGES_MAX = 4096, TURNS_MAX = 20000, RECORD_SIZE = 16 };

static struct bench *bench;
static struct tcp_clients *clients;
static int listener_fd;
static size_t accepted; /* of the sockets behind the listener's */
static size_t refused;  /* as far as it shows */
static size_t evicted;
static bool time_passed;

enum status __wrap_socket_accept(int fd, int *out, struct address *client)
{
    struct fake_socket *listener = socket_of(fd);
    listener->has_control = accepted + 1 < socket_count;
    if (!listener->has_control)
        return STATUS_AGAIN;
    if (choose_one_in(16))
        return STATUS_CLOSED;
    *out = FD_FIRST + (int)++accepted;
    return address_parse("127.0.0.1:5000", 0, client);
}

/* --- What is right --- */

/* The record of the upstreams' answers tells which question it is for. */
static void write_record(const struct question *question, uint8_t out[static RECORD_SIZE])
{
    static const uint8_t fixed[] = {0xc0, 12, 0, TYPE_A, 0, CLASS_IN, 0, 0, 1, 0, 0, 4};
    unsigned sum = 0;
    for (size_t i = 0; i < question->name_length; i++)
        sum = sum * 31 + question->name[i];
    memcpy(out, fixed, sizeof(fixed));
    store_u16(out + sizeof(fixed), question->type);
    store_u16(out + sizeof(fixed) + 2, (uint16_t)sum);
}

/* One of the client's messages; `bytes` NULL: there are no more. */
struct message {
    const uint8_t *bytes;
    size_t length;
};

static struct message next_message(const struct octets *octets, size_t available, size_t *position)
{
    struct message message = {NULL, 0};
    if (available - *position < 2)
        return message;
    const size_t length = load_u16(octets->bytes + *position);
    if (available - *position - 2 < length)
        return message;
    message = (struct message){octets->bytes + *position + 2, length};
    *position += 2 + length;
    return message;
}

static bool is_reply_to(const struct message *reply, const struct message *message)
{
    struct query_message query;
    enum rcode rcode;
    const enum query_verdict verdict =
        message_parse_query(message->bytes, message->length, &query, &rcode);
    if (verdict == QUERY_DROP || verdict == QUERY_RESPONSE || load_u16(reply->bytes) != query.id)
        return false;
    if (!query.has_question)
        return load_u16(reply->bytes + 4) == 0;
    const size_t length = DNS_HEADER_SIZE + query.question.name_length + 4u;
    if (load_u16(reply->bytes + 4) != 1 || reply->length < length ||
        memcmp(reply->bytes + DNS_HEADER_SIZE, message->bytes + DNS_HEADER_SIZE,
               length - DNS_HEADER_SIZE) != 0)
        return false;
    uint8_t record[RECORD_SIZE];
    write_record(&query.question, record);
    uint8_t *ttl = record + 6; /* less in an answer from the cache */
    return load_u16(reply->bytes + 6) == 0 ||
           (memcmp(reply->bytes + length, record, (size_t)(ttl - record)) == 0 &&
            memcmp(reply->bytes + length + 10, record + 10, RECORD_SIZE - 10) == 0);
}

/* Each whole reply belongs to a message that had none; returns how many there are. */
static size_t check_replies(const struct fake_socket *peer)
{
    static bool is_answered[MESSAGES_MAX];
    size_t count = 0;
    size_t position = 0;
    struct message reply;
    memset(is_answered, 0, sizeof(is_answered));
    while ((reply = next_message(&peer->out, peer->out.length, &position)).bytes) {
        assert(reply.length >= DNS_HEADER_SIZE && reply.bytes[2] & DNS_FLAG_QR >> 8);
        size_t asked = 0;
        size_t index = 0;
        struct message message;
        while ((message = next_message(&peer->in, peer->taken, &asked)).bytes &&
               (is_answered[index] || !is_reply_to(&reply, &message)))
            index++;
        assert(message.bytes && index < MESSAGES_MAX);
        is_answered[index] = true;
        count++;
    }
    return count;
}

/* How many replies its messages deserve, up to one that ends the connection. */
static size_t count_deserved(const struct fake_socket *peer, bool *is_broken)
{
    size_t count = 0;
    size_t position = 0;
    struct message message;
    *is_broken = false;
    while ((message = next_message(&peer->in, peer->in.length, &position)).bytes) {
        *is_broken = message.length < DNS_HEADER_SIZE;
        if (*is_broken)
            break;
        count += !(message.bytes[2] & DNS_FLAG_QR >> 8);
    }
    return count;
}

static void check_client(const struct fake_socket *peer)
{
    bool is_broken;
    const size_t deserved = count_deserved(peer, &is_broken);
    const size_t replied = check_replies(peer);
    if (time_passed || peer->is_reset)
        return;
    const bool is_whole = replied == deserved && peer->is_open != (peer->has_ended || is_broken);
    assert(is_whole || !peer->is_open);
    refused += !is_whole && peer->taken == 0; /* above a limit */
    evicted += !is_whole && peer->taken > 0;  /* for another, or for want of memory */
}

/* --- What happens --- */

static void client_connects(void)
{
    if (socket_count > CLIENTS_MAX)
        return;
    (void)socket_open();
    socket_of(listener_fd)->has_control = true;
}

static size_t make_query(uint8_t *out, size_t size)
{
    static const uint8_t opt[] = {0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 4, 0, 11, 0, 0};
    const bool has_edns = choose_one_in(2);
    struct writer writer = writer_over(out, size);
    write_u16(&writer, (uint16_t)choose(8)); /* the same ID is used again and again */
    write_u16(&writer, DNS_FLAG_RD);
    write_u32(&writer, 1 << 16);
    write_u32(&writer, has_edns);
    write_u8(&writer, 1);
    write_u8(&writer, (uint8_t) "abcABC"[choose(6)]);
    write_u8(&writer, 0);
    write_u16(&writer, choose_one_in(8) ? TYPE_AXFR : TYPE_A);
    write_u16(&writer, CLASS_IN);
    if (has_edns)
        write_bytes(&writer, opt, sizeof(opt));
    return writer_length(&writer);
}

static void client_asks(struct fake_socket *peer, unsigned changes)
{
    uint8_t message[128];
    size_t length = make_query(message, sizeof(message));
    if (changes > 0 && choose_one_in(4))
        length = choose((unsigned)length);
    for (; changes > 0 && length > 0; changes--)
        message[choose((unsigned)length)] ^= (uint8_t)choose(256);
    peer_sends_message(peer, message, length);
}

static void client_acts(void)
{
    if (socket_count < 2)
        return;
    struct fake_socket *peer = &sockets[1 + choose((unsigned)socket_count - 1)];
    if (!peer->is_open || peer->in.length > 1 << 14)
        return;
    switch (choose(10)) {
    case 0:
    case 1:
    case 2:
        client_asks(peer, 0);
        break;
    case 3:
        for (unsigned count = choose(20); count > 0; count--)
            client_asks(peer, 0);
        break;
    case 4:
    case 5:
        client_asks(peer, 1 + choose(2));
        break;
    case 6:
        peer_sends_anything(peer);
        break;
    case 7:
        peer->has_ended = true;
        break;
    case 8:
        if (choose_one_in(4))
            peer_resets(peer);
        break;
    default:
        peer->is_full = true;
    }
}

static void turn(uint64_t wait_ns)
{
    const bool is_fine = loop_turn(&bench->loop, wait_ns);
    assert(is_fine && bench->resolver->waiting_count <= bench->config.limits.queries);
}

static void give_answer(size_t index)
{
    static const uint16_t ttl_offsets[] = {6};
    uint8_t record[RECORD_SIZE];
    write_record(fake.in_flight[index]->question, record);
    const struct answer answer = {
        .kind = ANSWER_POSITIVE,
        .flags = DNS_FLAG_RA,
        .answer_count = 1,
        .ttl_s = 256,
        .body = record,
        .body_length = RECORD_SIZE,
        .ttl_count = 1,
        .ttl_offsets = ttl_offsets,
    };
    fake_end(index, &answer, FAILURE_NONE);
}

/* The upstreams answer, or fail, what was asked first; false when nothing was. */
static bool upstream_acts(bool is_good)
{
    size_t index = 0;
    while (index < fake.submitted && !fake.in_flight[index])
        index++;
    if (index == fake.submitted) {
        fake.submitted = 0;
        fake.refuses = false;
        return false;
    }
    fake.refuses = fake.submitted > FAKE_MAX - 8;
    if (is_good)
        give_answer(index);
    else if (choose_one_in(2))
        fake_answer(index, RCODE_SERVFAIL, FAILURE_SERVER_FAILURE);
    else
        fake_end(index, NULL, FAILURE_RESET);
    return true;
}

static void act(void)
{
    switch (choose(10)) {
    case 0:
        client_connects();
        break;
    case 1:
    case 2:
    case 3:
    case 4:
        client_acts();
        break;
    case 5:
        upstream_acts(true);
        break;
    case 6:
        upstream_acts(choose_one_in(2));
        break;
    case 7:
        if (choose_one_in(32)) {
            clock_ns += choose(256) * 100 * NANOSECONDS_PER_MILLISECOND;
            time_passed = true;
        }
        break;
    default:
        turn(0);
    }
}

/* The upstreams answer all, everything moves, and no time passes until nothing is left to do. */
static void settle(void)
{
    size_t turns = 0;
    bool has_answered;
    do {
        has_answered = upstream_acts(true);
        turn(1); /* a wait of a millisecond, when there is nothing to do */
        assert(turns++ < TURNS_MAX);
    } while (has_answered || !has_waited);
}

static void open_listener(void)
{
    struct config *config = &bench->config;
    config->limits.tcp_clients = 4;
    config->snapshot.limits.tcp_clients_per_address = 4;
    config->snapshot.limits.tcp_queries = 3;
    config->limits.tcp_memory_bytes = 1 << 18;
    config->snapshot.timeouts.tcp_message_ns = 5 * NANOSECONDS_PER_SECOND;
    config->snapshot.timeouts.tcp_send_ns = 5 * NANOSECONDS_PER_SECOND;
    accepted = 0;
    listener_fd = socket_open();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct tcp_listener *listener;
    void *state;
    kernel_begin(data, size);
    time_passed = false;
    refused = 0;
    evicted = 0;
    bench_setup(&state);
    bench = state;
    open_listener();
    if (tcp_clients_open(bench->resolver, &clients) != STATUS_OK ||
        tcp_open(clients, listener_fd, &listener) != STATUS_OK)
        abort();
    while (input < input_end)
        act();
    settle();
    for (size_t i = 1; i < socket_count; i++)
        check_client(&sockets[i]);
    assert(refused <= metric_get(&bench->metrics->tcp_refused));
    assert(evicted <= metric_get(&bench->metrics->tcp_evicted));
    tcp_close(listener);
    tcp_clients_close(clients);
    assert(metric_get(&bench->metrics->tcp_clients) == 0);
    bench_teardown(&state);
    for (size_t i = accepted + 1; i < socket_count; i++)
        sockets[i].is_open = false; /* never accepted */
    kernel_end();
    return 0;
}
