// SPDX-License-Identifier: Apache-2.0
/* Upstreams that send anything at all, over connections that do anything: no answer reaches another
 * question.
 *
 * The real group, upstreams, connections, streams and loop. Of each request is known which ID it
 * was given on which connection; an answer must come as a message with that ID and that question,
 * on that connection (FAULTS F10, F12, F13, G1, G4). IDs are not given out twice, each request ends
 * exactly once, in time even when all peers fall silent (F5), and all counts are back at 0. */
#include "upstream/upstream.h"
#include "fake_kernel.h"
#include "upstream/submit.h"
#include "upstream/upstream.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum {
    UPSTREAMS = 2,
    CONNECTIONS_PER_UPSTREAM = 2,
    SLOTS = 5, /* no power of two: some IDs mean no slot */
    ASKS = 24,
    IDS_MAX = 4096, /* fewer than a slot of theirs has generations */
    TURNS_MAX = 100000,
};

static struct config config;
static struct loop loop;
static struct group *group;

/* A lookup of one request, as the query layer would have it. */
static struct asked {
    struct question question;
    struct attempts attempts;
    struct request request;
    bool is_in_flight;
    int fd;
    uint16_t id;
} asks[ASKS];

/* Every ID that was ever given, and on which descriptor. */
static struct {
    int fd;
    uint16_t id;
} given[IDS_MAX];
static size_t given_count;

static const uint8_t *checked; /* the message that message_check_answer saw last */
static size_t checked_length;

/* --- What the product builds and checks --- */

enum status __real_message_check_answer(const uint8_t *bytes, size_t length,
                                        const struct question *question,
                                        struct answer_scratch *scratch, struct answer *out);
enum status __wrap_message_check_answer(const uint8_t *bytes, size_t length,
                                        const struct question *question,
                                        struct answer_scratch *scratch, struct answer *out);

enum status __wrap_message_check_answer(const uint8_t *bytes, size_t length,
                                        const struct question *question,
                                        struct answer_scratch *scratch, struct answer *out)
{
    checked = bytes;
    checked_length = length;
    return __real_message_check_answer(bytes, length, question, scratch, out);
}

/* --- The lookup's side --- */

static void check_answer(const struct asked *ask)
{
    const struct question *question = &ask->question;
    assert(checked && checked_length >= DNS_HEADER_SIZE + question->name_length + 4u);
    assert(load_u16(checked) == ask->id);
    assert(checked[2] & DNS_FLAG_QR >> 8 && load_u16(checked + 4) == 1);
    for (size_t i = 0; i < question->name_length; i++) {
        const uint8_t octet = checked[DNS_HEADER_SIZE + i];
        const bool is_capital = octet >= 'A' && octet <= 'Z';
        assert((is_capital ? octet + 32 : octet) == question->name[i]);
    }
    const uint8_t *tail = checked + DNS_HEADER_SIZE + question->name_length;
    assert(load_u16(tail) == question->type && load_u16(tail + 2) == question->class);
    /* It came on the connection that was asked. */
    const struct fake_socket *peer = socket_of(ask->fd);
    assert(memmem(peer->in.bytes, peer->taken, checked, checked_length));
}

static void submit(struct asked *ask, enum request_scope scope);

static void on_done(struct request *request, const struct answer *answer, enum failure failure)
{
    struct asked *ask = CONTAINER_OF(request, struct asked, request);
    assert(ask->is_in_flight && !request_is_in_flight(request));
    assert(answer || failure != FAILURE_NONE);
    ask->is_in_flight = false;
    if (answer)
        check_answer(ask);
    checked = NULL;
    if (failure != FAILURE_NONE && choose_one_in(2)) /* as a lookup does */
        submit(ask, REQUEST_ANYWHERE);
}

static void on_late(struct request *request)
{
    const struct asked *ask = CONTAINER_OF(request, struct asked, request);
    assert(ask->is_in_flight);
}

static void note_id(const struct asked *ask)
{
    assert(given_count < IDS_MAX);
    for (size_t i = 0; i < given_count; i++)
        assert(given[i].fd != ask->fd || given[i].id != ask->id);
    given[given_count].fd = ask->fd;
    given[given_count++].id = ask->id;
}

static void submit(struct asked *ask, enum request_scope scope)
{
    enum failure failure = FAILURE_NONE;
    if (given_count == IDS_MAX)
        return;
    if (request_submit(group, &ask->request, scope, &failure) != STATUS_OK) {
        assert(failure != FAILURE_NONE && !request_is_in_flight(&ask->request));
        return;
    }
    assert(request_is_in_flight(&ask->request));
    assert(ask->request.upstream < UPSTREAMS);
    ask->is_in_flight = true;
    /* It is written when the handshake is done, with the ID of its slot. */
    ask->id = slot_id(&ask->request.connection->slots, ask->request.slot);
    ask->fd = ask->request.connection->stream.fd;
    note_id(ask);
}

static void begin_ask(void)
{
    struct asked *ask = &asks[choose(ASKS)];
    if (ask->is_in_flight)
        return;
    *ask = (struct asked){.question = {.type = choose_one_in(4) ? TYPE_AAAA : TYPE_A,
                                       .class = CLASS_IN,
                                       .recursion_desired = true,
                                       .name_length = 4,
                                       .name = {2, 'x', (uint8_t)('a' + choose(4)), 0}}};
    request_init(&ask->request, &ask->question, &ask->attempts, on_done, on_late);
    submit(ask, choose_one_in(4) ? REQUEST_ELSEWHERE : REQUEST_ANYWHERE);
}

static void cancel(struct asked *ask)
{
    if (!ask->is_in_flight)
        return;
    request_cancel(&ask->request);
    assert(!request_is_in_flight(&ask->request));
    ask->is_in_flight = false;
}

/* --- The peers' side --- */

static struct fake_socket *choose_peer(void)
{
    const size_t recent = socket_count < 4 ? socket_count : 4;
    if (recent == 0)
        return NULL;
    struct fake_socket *peer = &sockets[socket_count - 1 - choose((unsigned)recent)];
    return peer->is_open ? peer : NULL;
}

/* One of the queries that have reached the peer, NULL when there is none. */
static const uint8_t *choose_query(const struct fake_socket *peer)
{
    const uint8_t *found[64];
    unsigned count = 0;
    for (size_t i = 0; i + 2 <= peer->out.length && count < 64;) {
        const size_t length = load_u16(peer->out.bytes + i);
        assert(length % 128 == 0 && length > 0); /* RFC 8467 */
        if (i + 2 + length <= peer->out.length)
            found[count++] = peer->out.bytes + i + 2;
        i += 2 + length;
    }
    return count > 0 ? found[count - 1 - choose(count)] : NULL;
}

/* An answer to a query, good but for the octets that the fuzzer changes. */
static void peer_answers(struct fake_socket *peer, unsigned changes)
{
    static const uint8_t record[] = {0xc0, 12, 0, 1, 0, 1, 0, 0, 1, 44, 0, 4, 192, 0, 2, 1};
    static const uint8_t keepalive[] = {0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 6, 0, 11, 0, 2, 0};
    uint8_t message[256];
    const uint8_t *query = choose_query(peer);
    if (!query)
        return;
    struct writer writer = writer_over(message, sizeof(message));
    write_bytes(&writer, query, DNS_HEADER_SIZE + 4 + 4);
    const bool has_record = choose_one_in(2);
    const bool has_opt = choose_one_in(4);
    if (has_record)
        write_bytes(&writer, record, sizeof(record));
    if (has_opt) {
        write_bytes(&writer, keepalive, sizeof(keepalive));
        write_u8(&writer, (uint8_t)choose(4));
    }
    store_u16(message + 2, (uint16_t)(DNS_FLAG_QR | DNS_FLAG_RD | DNS_FLAG_RA | choose(8)));
    store_u16(message + 6, has_record);
    store_u16(message + 10, has_opt);
    size_t length = writer_length(&writer);
    for (; changes > 0; changes--)
        message[choose((unsigned)length)] ^= (uint8_t)choose(256);
    if (choose_one_in(16))
        length = choose((unsigned)length);
    peer_sends_message(peer, message, length);
}

static void peer_floods(struct fake_socket *peer)
{
    const uint8_t stranger[DNS_HEADER_SIZE] = {(uint8_t)choose(256), (uint8_t)choose(256), 0x80};
    for (unsigned count = choose(100); count > 0; count--)
        peer_sends_message(peer, stranger, sizeof(stranger));
}

static void peer_acts(void)
{
    struct fake_socket *peer = choose_peer();
    if (!peer)
        return;
    switch (choose(12)) {
    case 0:
    case 1:
    case 2:
        peer_answers(peer, 0);
        break;
    case 3:
    case 4:
        peer_answers(peer, 1 + choose(3));
        break;
    case 5:
    case 6:
        peer_sends_anything(peer);
        break;
    case 7:
        peer_floods(peer);
        break;
    case 8:
        peer->has_ended = true;
        break;
    case 9:
        peer_resets(peer);
        break;
    case 10:
        peer->is_silent = true;
        break;
    default:
        peer->is_full = true;
    }
}

/* --- All of it --- */

static void check_counts(void)
{
    uint32_t in_flight = 0;
    for (size_t i = 0; i < ASKS; i++) {
        assert(asks[i].is_in_flight == (asks[i].request.connection != NULL));
        in_flight += asks[i].is_in_flight;
    }
    for (size_t i = 0; i < UPSTREAMS; i++) {
        assert(metric_get(&group->slots[i]->path.metrics->in_flight) ==
               group->slots[i]->path.in_flight);
        in_flight -= group->slots[i]->path.in_flight;
    }
    assert(in_flight == 0);
}

static void turn(uint64_t wait_ns)
{
    const bool is_fine = loop_turn(&loop, wait_ns);
    assert(is_fine);
    check_counts();
}

static void act(void)
{
    switch (choose(8)) {
    case 0:
    case 1:
        begin_ask();
        break;
    case 2:
        if (choose_one_in(4))
            cancel(&asks[choose(ASKS)]);
        break;
    case 3:
    case 4:
    case 5:
        peer_acts();
        break;
    case 6:
        clock_ns += choose(256) * 10 * NANOSECONDS_PER_MILLISECOND;
        break;
    default:
        turn(choose(4) * NANOSECONDS_PER_SECOND);
    }
}

/* Nobody asks anything new, and every peer falls silent: all that was asked comes to its end, or to
 * the deadline of who asked, as what was overtaken by the answer to a later question does. */
static void settle(void)
{
    const uint64_t end_ns = clock_ns + 60 * NANOSECONDS_PER_SECOND;
    for (size_t i = 0; i < socket_count; i++)
        sockets[i].is_silent = true;
    for (size_t turns = 0; clock_ns < end_ns; turns++) {
        turn(NANOSECONDS_PER_SECOND);
        assert(turns < TURNS_MAX);
    }
    for (size_t i = 0; i < ASKS; i++)
        cancel(&asks[i]);
}

static void configure(void)
{
    static char labels[UPSTREAMS][4] = {"one", "two"};
    config = (struct config){
        .snapshot = {.upstream_count = UPSTREAMS, .strategy = choose(STRATEGY_HASH + 1)}};
    for (size_t i = 0; i < UPSTREAMS; i++) {
        struct upstream_config *upstream = &config.snapshot.upstreams[i];
        *upstream =
            (struct upstream_config){.slot = i, .label = labels[i], .name = labels[i], .weight = 1};
        if (address_parse(i == 0 ? "192.0.2.1:853" : "192.0.2.2:853", 0, &upstream->address) !=
            STATUS_OK)
            abort();
    }
    config.limits.upstream_requests = SLOTS;
    config.limits.upstream_connections = CONNECTIONS_PER_UPSTREAM;
    config.snapshot.timeouts.connect_ns = NANOSECONDS_PER_SECOND;
    config.snapshot.timeouts.handshake_ns = 2 * NANOSECONDS_PER_SECOND;
    config.snapshot.timeouts.request_ns = 1500 * NANOSECONDS_PER_MILLISECOND;
    config.snapshot.timeouts.idle_ns = 30 * NANOSECONDS_PER_SECOND;
}

static void check_gauges(const struct metrics *metrics)
{
    for (size_t i = 0; i < UPSTREAMS; i++) {
        const struct upstream_metrics *upstream = &metrics->upstreams[i];
        assert(metric_get(&upstream->in_flight) == 0 && metric_get(&upstream->ready) == 0);
        assert(metric_get(&upstream->connecting) == 0 && metric_get(&upstream->draining) == 0);
        assert(metric_get(&upstream->handshaking) == 0);
        assert(metric_get(&upstream->answers) <= metric_get(&upstream->requests));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    memset(asks, 0, sizeof(asks));
    given_count = 0;
    kernel_begin(data, size);
    configure();
    struct metrics *metrics = metrics_open(UPSTREAMS);
    const struct group_settings settings = {.config = &config, .loop = &loop, .metrics = metrics};
    if (!metrics || loop_open(&loop) != STATUS_OK || group_open(&settings, &group) != STATUS_OK)
        abort();
    group->random.state = 1; /* the same input, the same course */
    while (input < input_end)
        act();
    settle();
    group_close(group);
    check_gauges(metrics);
    loop_close(&loop);
    kernel_end();
    metrics_close(metrics);
    return 0;
}
