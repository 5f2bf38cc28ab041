// SPDX-License-Identifier: Apache-2.0
/* `dnsproxy probe`: what each upstream does, seen over two connections.
 *
 * The first connection is timed, authenticated and asked one query. The second offers the ticket of
 * the first, to see whether sessions are resumed. A host name is looked up and its addresses raced
 * as the daemon would, by its own upstream layer. All upstreams are probed at once on one loop;
 * each step is bounded by the timeout that the daemon would use, so a probe says what the daemon
 * sees.
 *
 * Thread: main of its own process.   Owner: probe_run, which frees everything before it returns.
 * RFC:    7828 (keepalive), 7830 (padding), 7858 (DoT), 8446 2.2 (resumption). */
#include "control/probe.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/deadline.h"
#include "control/probe_report.h"
#include "control/trusts.h"
#include "dns/message.h"
#include "net/loop.h"
#include "net/race.h"
#include "net/stream.h"
#include "net/tls.h"
#include "observe/metrics.h"
#include "upstream/upstream.h"

enum {
    QUERY_ID = 1,     /* the only query of its connection */
    OUT_LIMIT = 4096, /* one query of at most MESSAGE_QUERY_MAX */
    TURN_WAIT_S = 1,  /* deadlines end a turn sooner */
};

enum probe_state {
    PROBE_LOOKING_UP,
    PROBE_CONNECTING,
    PROBE_HANDSHAKING,
    PROBE_ASKING,
    PROBE_ANSWERED, /* the first connection is being closed */
    PROBE_RESUMING,
    PROBE_DONE,
    PROBE_STATES
};

struct probe_run;

/* The probe of one upstream. */
struct probe {
    struct probe_run *run;
    const struct upstream_config *upstream;
    struct tls_client *client;
    struct address addresses[RACE_ADDRESSES_MAX];
    struct address address; /* the one that was connected first */
    struct race race;
    struct stream first;
    struct stream again;
    struct deadline deadline; /* of the present state */
    enum probe_state state;
    uint64_t since_ns; /* when the present state was entered */
    struct probe_result *result;
};

struct probe_run {
    struct loop loop;
    struct deadline_queue queues[PROBE_STATES];
    const struct config *config;
    struct trusts *trusts;
    struct metrics *metrics;
    struct group *group; /* looks names up */
    struct probe probes[CONFIG_UPSTREAMS_MAX];
    struct probe_result results[CONFIG_UPSTREAMS_MAX];
    size_t unfinished;
    struct answer_scratch scratch;
};

/* The question whose answer every resolver has: the name servers of the root. */
static const struct question root_servers = {
    .type = TYPE_NS, .class = CLASS_IN, .recursion_desired = true, .name_length = 1};

/* ---- states ---- */

static void enter(struct probe *probe, enum probe_state state)
{
    assert(state > probe->state || (state == PROBE_LOOKING_UP && probe->since_ns == 0));
    struct probe_run *run = probe->run;
    probe->state = state;
    probe->since_ns = loop_clock();
    deadline_cancel(&probe->deadline);
    assert(state != PROBE_DONE || run->unfinished > 0);
    if (state == PROBE_DONE)
        run->unfinished--;
    else if (state != PROBE_ANSWERED) /* which ends with this turn */
        deadline_arm(&run->queues[state], &probe->deadline, probe->since_ns);
}

static uint64_t time_in_state(const struct probe *probe)
{
    return loop_clock() - probe->since_ns;
}

static void fail_probe(struct probe *probe, enum failure failure, const char *reason)
{
    assert(failure != FAILURE_NONE && reason);
    probe->result->failure = failure;
    snprintf(probe->result->reason, sizeof(probe->result->reason), "%s", reason);
    enter(probe, PROBE_DONE);
}

/* What is said when the deadline of a state has passed; the other states have none. */
static const enum failure expiry[PROBE_STATES] = {
    [PROBE_LOOKING_UP] = FAILURE_NAME_LOOKUP,        [PROBE_CONNECTING] = FAILURE_CONNECT_TIMEOUT,
    [PROBE_HANDSHAKING] = FAILURE_HANDSHAKE_TIMEOUT, [PROBE_ASKING] = FAILURE_REQUEST_TIMEOUT,
    [PROBE_RESUMING] = FAILURE_HANDSHAKE_TIMEOUT,
};

static void on_expire(struct deadline *deadline, uint64_t now)
{
    assert(!list_is_linked(&deadline->link));
    (void)now;
    struct probe *probe = CONTAINER_OF(deadline, struct probe, deadline);
    const enum failure failure = expiry[probe->state];
    assert(failure != FAILURE_NONE);
    if (probe->state == PROBE_LOOKING_UP)
        fail_probe(probe, failure, "");
    else
        stream_close(probe->state == PROBE_RESUMING ? &probe->again : &probe->first, failure);
}

/* ---- the second connection ---- */

static void on_again_open(struct stream *stream)
{
    struct probe *probe = CONTAINER_OF(stream, struct probe, again);
    assert(probe->state == PROBE_RESUMING);
    struct tls_facts facts;
    tls_facts(stream->tls, &facts);
    probe->result->resumption = facts.resumed ? RESUMPTION_YES : RESUMPTION_NO;
    stream_close(stream, FAILURE_NONE);
}

static void on_again_readable(struct stream *stream)
{
    stream_close(stream, FAILURE_PROTOCOL); /* nothing was asked */
}

static void on_again_closed(struct stream *stream, enum failure failure)
{
    (void)failure; /* it had answered before: only the column of resumption tells */
    struct probe *probe = CONTAINER_OF(stream, struct probe, again);
    if (probe->result->resumption == RESUMPTION_UNKNOWN)
        probe->result->resumption = RESUMPTION_FAILED;
    stream_free(stream);
    enter(probe, PROBE_DONE);
}

static const struct stream_handler again_handler = {
    .on_open = on_again_open, .on_readable = on_again_readable, .on_closed = on_again_closed};

static void connect_again(struct probe *probe)
{
    assert(probe->client && probe->result->is_answered);
    const struct probe_run *run = probe->run;
    enum failure failure;
    enter(probe, PROBE_RESUMING);
    if (stream_connect(&probe->again, &probe->run->loop, &again_handler, &probe->address,
                       probe->client, run->config->snapshot.timeouts.connect_ns, OUT_LIMIT,
                       &failure) == STATUS_OK)
        return;
    probe->result->resumption = RESUMPTION_FAILED;
    enter(probe, PROBE_DONE);
}

/* ---- the first connection ---- */

static void on_first_connected(struct stream *stream)
{
    struct probe *probe = CONTAINER_OF(stream, struct probe, first);
    assert(probe->state == PROBE_CONNECTING);
    probe->result->is_connected = true;
    probe->result->connect_ns = time_in_state(probe);
    enter(probe, PROBE_HANDSHAKING);
}

static void on_first_open(struct stream *stream)
{
    struct probe *probe = CONTAINER_OF(stream, struct probe, first);
    assert(probe->state == PROBE_HANDSHAKING);
    struct probe_result *result = probe->result;
    struct tls_facts facts;
    tls_facts(stream->tls, &facts);
    result->is_authenticated = true;
    result->handshake_ns = time_in_state(probe);
    result->has_alpn = facts.alpn_dot;
    snprintf(result->version, sizeof(result->version), "%s", facts.version);
    snprintf(result->cipher, sizeof(result->cipher), "%s", facts.cipher);

    enter(probe, PROBE_ASKING);
    uint8_t *query = stream_begin_message(stream, MESSAGE_QUERY_MAX);
    if (query)
        stream_end_message(stream, message_build_query(&root_servers, QUERY_ID, query));
    else
        stream_close(stream, FAILURE_LOCAL);
}

static enum failure judge_rcode(const struct answer *answer)
{
    switch (answer->rcode) {
    case RCODE_NOERROR:
        return answer->flags & DNS_FLAG_TC ? FAILURE_TRUNCATED_ANSWER : FAILURE_NONE;
    case RCODE_SERVFAIL:
        return FAILURE_SERVER_FAILURE;
    case RCODE_REFUSED:
        return FAILURE_REFUSED;
    default:
        return FAILURE_OTHER_RCODE;
    }
}

static enum failure judge_answer(struct probe *probe, const uint8_t *message, size_t length)
{
    struct probe_result *result = probe->result;
    struct answer answer;
    const enum status status =
        message_check_answer(message, length, &root_servers, &probe->run->scratch, &answer);
    if (status == STATUS_MALFORMED)
        return FAILURE_MALFORMED_ANSWER;
    if (status != STATUS_OK || load_u16(message) != QUERY_ID)
        return FAILURE_PROTOCOL;
    result->is_answered = true;
    result->query_ns = time_in_state(probe);
    result->has_padding = answer.has_padding;
    result->has_keepalive = answer.has_keepalive;
    result->keepalive_100ms = answer.keepalive_100ms;
    return judge_rcode(&answer);
}

static void on_first_readable(struct stream *stream)
{
    struct probe *probe = CONTAINER_OF(stream, struct probe, first);
    const uint8_t *message;
    size_t length;
    if (probe->state != PROBE_ASKING || stream_next_message(stream, &message, &length) != STATUS_OK)
        return;
    const enum failure failure = judge_answer(probe, message, length);
    if (failure == FAILURE_NONE)
        enter(probe, PROBE_ANSWERED);
    stream_close(stream, failure);
}

static void on_first_closed(struct stream *stream, enum failure failure)
{
    struct probe *probe = CONTAINER_OF(stream, struct probe, first);
    assert(probe->state != PROBE_DONE);
    struct probe_result *result = probe->result;
    char reason[sizeof(result->reason)] = "";
    race_cancel(&probe->race);
    if (stream->tls) {
        snprintf(result->pin, sizeof(result->pin), "%s", tls_peer_pin(stream->tls));
        if (!result->is_authenticated)
            snprintf(reason, sizeof(reason), "%s", tls_error_text(stream->tls));
    }
    stream_free(stream);
    if (probe->state == PROBE_ANSWERED)
        connect_again(probe);
    else
        fail_probe(probe, failure, reason);
}

static const struct stream_handler first_handler = {.on_connected = on_first_connected,
                                                    .on_open = on_first_open,
                                                    .on_readable = on_first_readable,
                                                    .on_closed = on_first_closed};

/* ---- beginning ---- */

static void prepare(struct probe_run *run, size_t index)
{
    assert(index < run->config->snapshot.upstream_count && !run->probes[index].run);
    struct probe *probe = &run->probes[index];
    probe->run = run;
    probe->upstream = &run->config->snapshot.upstreams[index];
    probe->result = &run->results[index];
    probe->result->upstream = probe->upstream->label;
    deadline_init(&probe->deadline);
    run->unfinished++;
    if (tls_client_open(probe->upstream, probe->upstream->trust, &probe->client) != STATUS_OK)
        fail_probe(probe, FAILURE_LOCAL, "");
    else
        enter(probe, PROBE_LOOKING_UP);
}

static void on_won(struct race *race, int fd, size_t index)
{
    assert(index < RACE_ADDRESSES_MAX && fd >= 0);
    struct probe *probe = CONTAINER_OF(race, struct probe, race);
    probe->address = probe->addresses[index];
    stream_start(&probe->first, fd, probe->client);
}

static void on_lost(struct race *race, enum failure failure)
{
    stream_close(&CONTAINER_OF(race, struct probe, race)->first, failure);
}

static void connect_first(struct probe *probe, size_t count)
{
    assert(count > 0 && count <= RACE_ADDRESSES_MAX);
    struct probe_run *run = probe->run;
    const uint64_t connect_ns = run->config->snapshot.timeouts.connect_ns;
    const struct race_timeouts timeouts = {.connect_ns = connect_ns, .user_ns = connect_ns};
    enum failure failure;
    enter(probe, PROBE_CONNECTING);
    stream_prepare(&probe->first, &run->loop, &first_handler, OUT_LIMIT);
    probe->race.on_won = on_won;
    probe->race.on_lost = on_lost;
    if (race_start(&probe->race, &run->loop, probe->addresses, count, timeouts, &failure) ==
        STATUS_OK)
        return;
    stream_free(&probe->first);
    fail_probe(probe, failure, failure == FAILURE_LOCAL ? strerror(errno) : "");
}

/* Goes on with those whose addresses are known by now. */
static void look_up(struct probe_run *run)
{
    for (size_t i = 0; i < run->config->snapshot.upstream_count; i++) {
        struct probe *probe = &run->probes[i];
        enum failure failure;
        if (probe->state != PROBE_LOOKING_UP)
            continue;
        const size_t count =
            group_upstream_addresses(run->group, probe->upstream->slot, probe->addresses, &failure);
        if (count > 0)
            connect_first(probe, count);
        else if (failure != FAILURE_NONE)
            fail_probe(probe, failure, "");
    }
}

/* The part of the daemon that knows addresses, looked up or given. */
static enum status open_group(struct probe_run *run)
{
    assert(run->trusts && !run->group);
    const struct config *config = run->config;
    run->metrics = metrics_open(config->snapshot.upstream_count);
    if (!run->metrics)
        return STATUS_FULL;
    const struct group_settings settings = {
        .config = config, .loop = &run->loop, .metrics = run->metrics};
    return group_open(&settings, &run->group);
}

static void add_queues(struct probe_run *run)
{
    const uint64_t durations_ns[PROBE_STATES] = {
        [PROBE_LOOKING_UP] = run->config->snapshot.timeouts.query_ns,
        [PROBE_CONNECTING] = run->config->snapshot.timeouts.connect_ns,
        [PROBE_HANDSHAKING] = run->config->snapshot.timeouts.handshake_ns,
        [PROBE_ASKING] = run->config->snapshot.timeouts.query_ns,
        [PROBE_RESUMING] =
            run->config->snapshot.timeouts.connect_ns + run->config->snapshot.timeouts.handshake_ns,
    };
    for (size_t state = 0; state < PROBE_STATES; state++)
        loop_add_queue(&run->loop, &run->queues[state], durations_ns[state], on_expire);
}

/* ---- the end ---- */

static int exit_status(const struct probe_run *run)
{
    for (size_t i = 0; i < run->config->snapshot.upstream_count; i++)
        if (run->results[i].failure != FAILURE_NONE)
            return 1;
    return 0;
}

static void free_run(struct probe_run *run)
{
    assert(run->unfinished == 0);
    for (size_t i = 0; i < run->config->snapshot.upstream_count; i++)
        tls_client_close(run->probes[i].client);
    group_close(run->group);
    metrics_close(run->metrics);
    trusts_close(run->trusts);
    loop_close(&run->loop);
    free(run);
}

static void probe_all(struct probe_run *run)
{
    add_queues(run);
    /* All that takes time comes first, or it would count as time to connect. */
    for (size_t i = 0; i < run->config->snapshot.upstream_count; i++)
        prepare(run, i);
    do
        look_up(run);
    while (run->unfinished > 0 && loop_turn(&run->loop, TURN_WAIT_S * NANOSECONDS_PER_SECOND));
    assert(run->unfinished == 0);
}

int probe_run(struct config *config, FILE *out)
{
    assert(config->snapshot.upstream_count > 0 && out);
    struct trusts *trusts = NULL;
    if (trusts_open(&config->snapshot, NULL, stderr, &trusts) != STATUS_OK)
        return 1;
    struct probe_run *run = calloc(1, sizeof(*run));
    if (!run || loop_open(&run->loop) != STATUS_OK) {
        fprintf(stderr, "dnsproxy: cannot probe: %s\n", strerror(errno));
        trusts_close(trusts);
        free(run);
        return 1;
    }
    run->config = config;
    run->trusts = trusts;
    if (open_group(run) != STATUS_OK) {
        fprintf(stderr, "dnsproxy: cannot probe: %s\n", strerror(errno));
        free_run(run);
        return 1;
    }
    probe_all(run);
    probe_report(out, run->results, config->snapshot.upstream_count);
    const int status = exit_status(run);
    free_run(run);
    return status;
}
