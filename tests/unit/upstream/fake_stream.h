// SPDX-License-Identifier: Apache-2.0
/* The upstream layer over streams that this file plays: the test opens, feeds and closes them, and
 * reads what was written. It takes the place of net/stream.c and net/tls.c, which are therefore not
 * linked.
 *
 * Time is loop.now; turn() delivers closes and expires deadlines, as the loop would. */
#ifndef TESTS_FAKE_STREAM_H
#define TESTS_FAKE_STREAM_H

#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "net/datagram.h"
#include "net/socket.h"
#include "upstream/ask.h"
#include "upstream/choose.h"
#include "upstream/submit.h"
#include "upstream/upstream.h"

enum { STREAMS_MAX = 256, MESSAGES_MAX = 8192, UPSTREAMS_MAX = 4 };

static struct fake_stream {
    struct stream *stream; /* NULL once freed */
    struct address peer;
    bool is_started; /* of several addresses one has connected */
    bool is_closing;
    enum failure failure;
    uint8_t (*written)[MESSAGE_QUERY_MAX];
    size_t written_count;
    uint8_t inbox[2048];
    size_t inbox_length;
} streams[STREAMS_MAX];
static size_t stream_count;
static struct fake_race {
    struct race *race; /* NULL once ended */
    struct address addresses[RACE_ADDRESSES_MAX];
    size_t count;
} races[STREAMS_MAX];
static size_t race_count;
static struct fake_datagram {
    struct datagram *datagram; /* NULL once closed */
    struct address peer;
    uint8_t bytes[512];
    size_t length;
    unsigned repeats;
} datagrams[STREAMS_MAX];
static size_t datagram_count;
static enum failure refuse_datagrams; /* FAILURE_NONE: they are sent */
static enum failure refuse_connects;  /* FAILURE_NONE: connects begin */
static bool refuse_bytes;             /* the out buffer is full */
static bool is_resumed;
static bool refuse_clients; /* memory is short when an upstream is opened */
static size_t unsent;       /* bytes that the socket has not taken */

/* --- In place of net/ --- */

static struct fake_stream *fake_of(const struct stream *stream)
{
    for (size_t i = 0; i < stream_count; i++)
        if (streams[i].stream == stream)
            return &streams[i];
    fail_msg("a stream that was freed or never opened");
    return NULL;
}

enum status stream_connect(struct stream *stream, struct loop *loop,
                           const struct stream_handler *handler, const struct address *address,
                           struct tls_client *client, uint64_t user_timeout_ns, size_t out_limit,
                           enum failure *failure)
{
    assert_true(client || !handler->on_connected);
    assert_true(user_timeout_ns > 0 && out_limit > 0);
    if (refuse_connects != FAILURE_NONE) {
        *failure = refuse_connects;
        return STATUS_SYSTEM;
    }
    assert_true(stream_count < STREAMS_MAX);
    *stream = (struct stream){.loop = loop, .handler = handler, .state = STREAM_CONNECTING};
    streams[stream_count++] = (struct fake_stream){
        .stream = stream,
        .peer = *address,
        .written = calloc(MESSAGES_MAX, MESSAGE_QUERY_MAX),
    };
    return STATUS_OK;
}

static bool has_no_route;
static bool has_no_descriptor;
static uint16_t route; /* another number is another address of ours */

enum status socket_source(const struct address *address, struct address *source)
{
    char text[32];
    if (has_no_descriptor)
        return STATUS_FULL;
    if (has_no_route)
        return STATUS_SYSTEM;
    snprintf(text, sizeof(text),
             address->any.sa_family == AF_INET ? "127.0.1.%u" : "[2001:db8:1::%u]", route + 1u);
    return address_parse(text, 53, source);
}

void stream_prepare(struct stream *stream, struct loop *loop, const struct stream_handler *handler,
                    size_t out_limit)
{
    assert_true(out_limit > 0 && stream_count < STREAMS_MAX);
    *stream = (struct stream){.loop = loop, .handler = handler, .state = STREAM_CONNECTING};
    streams[stream_count++] = (struct fake_stream){
        .stream = stream,
        .written = calloc(MESSAGES_MAX, MESSAGE_QUERY_MAX),
    };
}

void stream_start(struct stream *stream, int fd, struct tls_client *client)
{
    assert_non_null(client);
    assert_int_equal(fd, 77);
    fake_of(stream)->is_started = true;
}

enum status race_start(struct race *race, struct loop *loop, const struct address *addresses,
                       size_t count, struct race_timeouts timeouts, enum failure *failure)
{
    (void)loop;
    assert_true(timeouts.connect_ns > 0 && timeouts.user_ns > 0 && count > 0 &&
                race_count < STREAMS_MAX);
    if (refuse_connects != FAILURE_NONE) {
        *failure = refuse_connects;
        return STATUS_SYSTEM;
    }
    races[race_count].race = race;
    races[race_count].count = count;
    memcpy(races[race_count++].addresses, addresses, count * sizeof(addresses[0]));
    return STATUS_OK;
}

void race_cancel(struct race *race)
{
    for (size_t i = 0; i < race_count; i++)
        if (races[i].race == race)
            races[i].race = NULL;
}

enum status datagram_send(struct datagram *datagram, struct loop *loop,
                          const struct address *address, const uint8_t *bytes, size_t length,
                          enum failure *failure)
{
    assert_true(!datagram->loop && length <= sizeof(datagrams[0].bytes));
    if (refuse_datagrams != FAILURE_NONE) {
        *failure = refuse_datagrams;
        return STATUS_SYSTEM;
    }
    assert_true(datagram_count < STREAMS_MAX);
    datagram->loop = loop;
    struct fake_datagram *fake = &datagrams[datagram_count++];
    *fake = (struct fake_datagram){.datagram = datagram, .peer = *address, .length = length};
    memcpy(fake->bytes, bytes, length);
    return STATUS_OK;
}

void datagram_repeat(struct datagram *datagram, const uint8_t *bytes, size_t length)
{
    for (size_t i = 0; i < datagram_count; i++) {
        struct fake_datagram *fake = &datagrams[i];
        if (fake->datagram != datagram)
            continue;
        assert_int_equal(length, fake->length);
        assert_memory_equal(bytes, fake->bytes, length);
        fake->repeats++;
    }
}

void datagram_close(struct datagram *datagram)
{
    datagram->loop = NULL;
    for (size_t i = 0; i < datagram_count; i++)
        if (datagrams[i].datagram == datagram)
            datagrams[i].datagram = NULL;
}

static bool is_acknowledged; /* what was written has arrived */

bool socket_has_unacknowledged(int fd)
{
    (void)fd;
    return !is_acknowledged;
}

uint8_t *stream_begin_message(struct stream *stream, size_t max_length)
{
    struct fake_stream *fake = fake_of(stream);
    assert_true(max_length <= MESSAGE_QUERY_MAX && fake->written_count < MESSAGES_MAX);
    return refuse_bytes ? NULL : fake->written[fake->written_count];
}

void stream_end_message(struct stream *stream, size_t length)
{
    if (stream->handler->on_connected) /* not the plain one to a bootstrap server */
        assert_int_equal(length % 128, 0);
    fake_of(stream)->written_count++;
}

enum status stream_next_message(struct stream *stream, const uint8_t **message, size_t *length)
{
    struct fake_stream *fake = fake_of(stream);
    if (fake->inbox_length == SIZE_MAX)
        return STATUS_AGAIN;
    *message = fake->inbox;
    *length = fake->inbox_length;
    fake->inbox_length = SIZE_MAX;
    return STATUS_OK;
}

size_t stream_unsent(const struct stream *stream)
{
    (void)fake_of(stream);
    return unsent;
}

void stream_close(struct stream *stream, enum failure failure)
{
    struct fake_stream *fake = fake_of(stream);
    if (stream->state == STREAM_CLOSED)
        return;
    stream->state = STREAM_CLOSED;
    fake->is_closing = true;
    fake->failure = failure;
}

void stream_free(struct stream *stream)
{
    struct fake_stream *fake = fake_of(stream);
    free(fake->written);
    fake->written = NULL;
    fake->stream = NULL;
}

enum status tls_client_open(const struct upstream_config *upstream, const struct tls_trust *trust,
                            struct tls_client **out)
{
    (void)trust;
    assert_non_null(upstream->name);
    if (refuse_clients)
        return STATUS_SYSTEM;
    *out = malloc(1);
    return STATUS_OK;
}

void tls_client_close(struct tls_client *client)
{
    free(client);
}

void tls_facts(const struct tls *tls, struct tls_facts *out)
{
    (void)tls;
    *out = (struct tls_facts){.version = "TLSv1.3", .cipher = "", .resumed = is_resumed};
}

const char *tls_error_text(const struct tls *tls)
{
    (void)tls;
    return "";
}

/* --- The group under test --- */

struct asked {
    struct question question;
    struct attempts attempts;
    struct request request;
    unsigned done;
    unsigned late;
    bool has_answer;
    unsigned rcode;
    enum failure failure;
};

struct bench {
    struct config config;
    struct loop loop;
    struct metrics *metrics;
    struct group *group;
    bool keeps_standby; /* else connections are opened for requests and trials alone */
    const struct siphash_key *self_key; /* NULL: nobody looks for ourselves */
    uint64_t client;                    /* who asks whole asks; 0: nobody's account */
};

static struct list tasks = {&tasks, &tasks};

static void do_nothing(struct loop_task *task)
{
    (void)task;
}

static int bench_setup(void **state)
{
    struct bench *bench = calloc(1, sizeof(*bench));
    list_init(&tasks); /* a test that failed leaves its own */
    stream_count = 0;
    race_count = 0;
    datagram_count = 0;
    refuse_datagrams = FAILURE_NONE;
    refuse_connects = FAILURE_NONE;
    refuse_bytes = false;
    is_resumed = false;
    refuse_clients = false;
    unsent = 0;
    has_no_route = false;
    is_acknowledged = false;
    has_no_descriptor = false;
    route = 0;
    bench->config.snapshot.upstream_count = UPSTREAMS_MAX;
    for (size_t i = 0; i < UPSTREAMS_MAX; i++) {
        struct upstream_config *upstream = &bench->config.snapshot.upstreams[i];
        static char names[UPSTREAMS_MAX][8];
        snprintf(names[i], sizeof(names[i]), "up%zu", i);
        upstream->slot = i;
        upstream->label = names[i];
        upstream->name = names[i];
        upstream->weight = 1;
        char text[32];
        snprintf(text, sizeof(text), "127.0.0.1:%zu", 1000 + i);
        assert_true(address_parse(text, 853, &upstream->address) == STATUS_OK);
    }
    bench->config.snapshot.strategy = STRATEGY_ORDERED;
    bench->config.limits.upstream_requests = 100;
    bench->config.limits.upstream_connections = 2;
    bench->config.snapshot.timeouts.connect_ns = 1000 * NANOSECONDS_PER_MILLISECOND;
    bench->config.snapshot.timeouts.handshake_ns = 1500 * NANOSECONDS_PER_MILLISECOND;
    bench->config.snapshot.timeouts.request_ns = 1500 * NANOSECONDS_PER_MILLISECOND;
    bench->config.snapshot.timeouts.query_ns = 4 * NANOSECONDS_PER_SECOND;
    bench->config.snapshot.timeouts.idle_ns = 30 * NANOSECONDS_PER_SECOND;
    bench->config.snapshot.timeouts.park_ns = 3 * NANOSECONDS_PER_SECOND;
    list_init(&bench->loop.queues);
    bench->loop.now = 1000 * NANOSECONDS_PER_SECOND;
    bench->metrics = metrics_open(CONFIG_UPSTREAM_SLOTS);
    *state = bench;
    return 0;
}

/* Opens the group; tests change the configuration before. */
static void begin(struct bench *bench)
{
    const struct group_settings settings = {
        .config = &bench->config,
        .loop = &bench->loop,
        .metrics = bench->metrics,
        .self_key = bench->self_key,
    };
    assert_true(group_open(&settings, &bench->group) == STATUS_OK);
    if (!bench->keeps_standby)
        bench->group->care.run = do_nothing;
}

static int bench_teardown(void **state)
{
    struct bench *bench = *state;
    /* Of a test that failed, on its stack; what looks up names is the group's own. */
    for (size_t i = 0; i < CONFIG_UPSTREAM_SLOTS; i++)
        if (bench->group->slots[i] && !bench->config.snapshot.upstreams[0].host &&
            bench->group->slots[i]->path.in_flight > 0)
            fail_msg("requests are in flight");
    group_close(bench->group);
    for (size_t i = 0; i < stream_count; i++)
        assert_null(streams[i].stream);
    for (size_t i = 0; i < race_count; i++)
        assert_null(races[i].race);
    for (size_t i = 0; i < datagram_count; i++)
        assert_null(datagrams[i].datagram);
    for (size_t i = 0; i < UPSTREAMS_MAX; i++) {
        assert_int_equal(metric_get(&bench->metrics->upstreams[i].in_flight), 0);
        assert_int_equal(metric_get(&bench->metrics->upstreams[i].ready), 0);
        assert_int_equal(metric_get(&bench->metrics->upstreams[i].connecting), 0);
        assert_int_equal(metric_get(&bench->metrics->upstreams[i].handshaking), 0);
        assert_int_equal(metric_get(&bench->metrics->upstreams[i].draining), 0);
    }
    metrics_close(bench->metrics);
    free(bench);
    return 0;
}

void loop_task_init(struct loop_task *task, void (*run)(struct loop_task *task))
{
    list_init(&task->link);
    task->run = run;
}

void loop_defer(struct loop *loop, struct loop_task *task, enum loop_phase phase)
{
    (void)loop;
    assert_true(phase == LOOP_FLUSH || phase == LOOP_LEFT_OVER || phase == LOOP_REAP);
    list_remove(&task->link);
    list_append(&tasks, &task->link);
}

void loop_cancel_task(struct loop_task *task)
{
    list_remove(&task->link);
}

static void run_tasks(void)
{
    struct list *link;
    while ((link = list_take_first(&tasks))) {
        struct loop_task *task = CONTAINER_OF(link, struct loop_task, link);
        task->run(task);
    }
}

/* The end of a turn: what was put off to it is done, then closes are reported until none is left.
 */
static void reap(void)
{
    run_tasks();
    bool again = true;
    while (again) {
        again = false;
        for (size_t i = 0; i < stream_count; i++) {
            if (!streams[i].stream || !streams[i].is_closing)
                continue;
            streams[i].is_closing = false;
            streams[i].stream->handler->on_closed(streams[i].stream, streams[i].failure);
            again = true;
        }
    }
}

[[maybe_unused]] static void turn(struct bench *bench, uint64_t ms)
{
    bench->loop.now += ms * NANOSECONDS_PER_MILLISECOND;
    for (struct list *link = bench->loop.queues.next; link != &bench->loop.queues;
         link = link->next)
        deadline_queue_expire(CONTAINER_OF(link, struct deadline_queue, link), bench->loop.now,
                              UINT_MAX);
    reap();
}

void loop_add_queue(struct loop *loop, struct deadline_queue *queue, uint64_t duration_ns,
                    void (*on_expire)(struct deadline *deadline, uint64_t now))
{
    deadline_queue_init(queue, duration_ns, on_expire);
    list_append(&loop->queues, &queue->link);
}

void loop_remove_queue(struct deadline_queue *queue)
{
    list_remove(&queue->link);
}

/* --- What the peer does --- */

static void make_ready(size_t index)
{
    struct stream *stream = streams[index].stream;
    if (stream->handler->on_connected)
        stream->handler->on_connected(stream);
    stream->state = STREAM_OPEN;
    if (stream->handler->on_open)
        stream->handler->on_open(stream);
}

[[maybe_unused]] static void peer_closes(size_t index, enum failure failure)
{
    stream_close(streams[index].stream, failure);
    reap();
}

static void deliver(size_t index, const uint8_t *message, size_t length)
{
    struct fake_stream *fake = &streams[index];
    assert_true(length <= sizeof(fake->inbox));
    memcpy(fake->inbox, message, length);
    fake->inbox_length = length;
    fake->stream->handler->on_readable(fake->stream);
    reap();
}

/* Answers the `written`th message of a stream, without records, by turning the question around. */
[[maybe_unused]] static void answer_written(size_t index, size_t written, enum rcode rcode)
{
    uint8_t message[MESSAGE_QUERY_MAX];
    memcpy(message, streams[index].written[written], sizeof(message));
    size_t end = DNS_HEADER_SIZE;
    while (message[end])
        end += message[end] + 1u;
    store_u16(message + 2, (uint16_t)(DNS_FLAG_QR | DNS_FLAG_RD | DNS_FLAG_RA | rcode));
    store_u16(message + 10, 0); /* no OPT */
    deliver(index, message, end + 1 + DNS_QUESTION_TAIL);
}

/* The same for the last one that asks for this name, whatever was asked since. */
[[maybe_unused]] static void answer_named(size_t index, const char *label, enum rcode rcode)
{
    const size_t length = strlen(label);
    for (size_t i = streams[index].written_count; i-- > 0;) {
        const uint8_t *name = streams[index].written[i] + DNS_HEADER_SIZE;
        if (name[0] == length && memcmp(name + 1, label, length) == 0) {
            answer_written(index, i, rcode);
            return;
        }
    }
    fail_msg("nobody has asked for it");
}

/* --- What the lookup does --- */

static void ask_done(struct request *request, const struct answer *answer, enum failure failure)
{
    struct asked *ask = CONTAINER_OF(request, struct asked, request);
    ask->done++;
    ask->has_answer = answer != NULL;
    ask->rcode = answer ? answer->rcode : 0;
    ask->failure = failure;
}

static void ask_late(struct request *request)
{
    CONTAINER_OF(request, struct asked, request)->late++;
}

static void asked_init(struct asked *ask, const char *label)
{
    *ask = (struct asked){.question = {.type = TYPE_A, .class = CLASS_IN}};
    ask->question.name_length = (uint8_t)(strlen(label) + 2);
    ask->question.name[0] = (uint8_t)strlen(label);
    memcpy(ask->question.name + 1, label, strlen(label) + 1);
    request_init(&ask->request, &ask->question, &ask->attempts, ask_done, ask_late);
}

[[maybe_unused]] static enum status ask_again(struct bench *bench, struct asked *ask)
{
    ask->failure = FAILURE_NONE;
    return request_submit(bench->group, &ask->request, REQUEST_ANYWHERE, &ask->failure);
}

/* While nobody is up: it is sent to nobody, and those that may be back are tried. */
[[maybe_unused]] static void ask_in_vain(struct bench *bench, struct asked *ask)
{
    asked_init(ask, "vain");
    assert_true(ask_again(bench, ask) == STATUS_NOT_FOUND);
}

static size_t stream_of(const struct connection *connection)
{
    return (size_t)(fake_of(&connection->stream) - streams);
}

/* The index of the stream that carries it. */
[[maybe_unused]] static size_t ask(struct bench *bench, struct asked *ask, const char *label)
{
    asked_init(ask, label);
    assert_true(ask_again(bench, ask) == STATUS_OK);
    return stream_of(ask->request.connection);
}

/* --- Whole asks --- */

struct asking {
    struct ask ask;
    struct question question;
    unsigned done;
    unsigned errors;
    bool has_answer; /* a good one */
};

[[maybe_unused]] static void asking_done(struct ask *ask, const struct answer *answer)
{
    struct asking *asking = CONTAINER_OF(ask, struct asking, ask);
    asking->done++;
    asking->has_answer = answer != NULL;
    ask_cancel(ask);
}

[[maybe_unused]] static void asking_error(struct ask *ask, const struct answer *answer)
{
    assert_non_null(answer);
    CONTAINER_OF(ask, struct asking, ask)->errors++;
}

[[maybe_unused]] static void asking_init(struct bench *bench, struct asking *asking,
                                         const char *label)
{
    static const struct ask_events events = {.on_done = asking_done, .on_error = asking_error};
    struct asked named;
    asked_init(&named, label);
    *asking = (struct asking){.question = named.question};
    ask_init(&asking->ask, bench->group, &asking->question, bench->client, &events);
}

/* It is sent, or waits for somebody to be there. */
[[maybe_unused]] static void begin_asking(struct bench *bench, struct asking *asking,
                                          const char *label)
{
    asking_init(bench, asking, label);
    assert_true(ask_begin(&asking->ask));
}

/* The index of the stream that carries its first request. */
[[maybe_unused]] static size_t asked_on(const struct asking *asking)
{
    assert_true(request_is_in_flight(&asking->ask.requests[0]));
    return stream_of(asking->ask.requests[0].connection);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, bench_setup, bench_teardown)

#endif
