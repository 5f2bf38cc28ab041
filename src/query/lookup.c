// SPDX-License-Identifier: Apache-2.0
/* Lookups: identical questions in flight are merged, each is asked until a good answer comes or
 * there is nobody left to ask.
 *
 * Its ask (upstream/ask.c) ends with a good answer or with none. An upstream's error (SERVFAIL,
 * REFUSED, ...) is kept meanwhile, and passed on when nobody does better (FAULTS F19): a good
 * answer still possible is never beaten by it.
 *
 * An answer past its time is given when the lookup fails, or when it has taken so long that a
 * client may give up (RFC 8767); it then goes on without queries. The cache is told of either
 * first: that is what makes it give the stale answer, to those who wait here and for a while to all
 * who ask.
 *
 * Thread: one worker.   Owner: the coalescing table; the functions under "Ends" free it.
 * RFC:    5452 (merging makes guessing harder), 8767 5 (timers), 9520 3.2 (failures are kept). */
#include "query/lookup.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dns/extended_error.h"
#include "upstream/upstream.h"

enum {
    OWN_ERROR_MAX = 256, /* octets of the extended error that says what became of it */
    KEPT_ERRORS_SIZE = ANSWER_EXTENDED_ERRORS_MAX, /* it, and those of an upstream */
    TIMEOUT_TTL_S = 1,      /* RFC 9520 3.2: no less, and the next answer may come at any moment */
    CONVICTED_TTL_S = 5,    /* asking costs a connection each time */
    ALONE_DIVISOR = 64,     /* of limits.queries */
    REPEATED_MAX = 8,       /* waiting queries that one may repeat */
    REPLIES_LEFT_OVER = 16, /* at a time: then others have their turn */
};

/* What every lookup touches stands together, in few cache lines: the first of the question and what
 * is before it, and from `alone` on to the first request of the ask. */
struct lookup {
    struct resolver *resolver;
    struct lookup *next; /* in its bucket */
    uint64_t hash;
    struct list queries;
    uint64_t begun_ns; /* when it first asked, or asked anew */
    struct question question;
    struct body *body;     /* of the answer, once it has ended */
    struct deadline alone; /* armed: no query waits, and it goes on all the same */
    bool has_ended;        /* is out of the table, and asks no more: `body` and `rest` are set */
    struct ask ask;
    /* The best error answer so far, without records; once it has ended, the answer for those who
     * wait on. */
    struct answer kept;
    uint8_t kept_errors[KEPT_ERRORS_SIZE];
    struct loop_task rest; /* gives it */
};

static void on_alone_for_long(struct deadline *deadline, uint64_t now);
static void on_rest(struct loop_task *task);

/* --- The table --- */

static struct lookup **bucket_of(struct resolver *resolver, uint64_t hash)
{
    return &resolver->buckets[hash & resolver->bucket_mask];
}

static struct lookup *table_find(struct resolver *resolver, const struct question *question,
                                 uint64_t hash)
{
    struct lookup *lookup = *bucket_of(resolver, hash);
    while (lookup && !(lookup->hash == hash && question_equal(&lookup->question, question)))
        lookup = lookup->next;
    return lookup;
}

static void table_add(struct lookup *lookup)
{
    struct lookup **bucket = bucket_of(lookup->resolver, lookup->hash);
    lookup->next = *bucket;
    *bucket = lookup;
}

static void table_remove(struct lookup *lookup)
{
    struct lookup **link = bucket_of(lookup->resolver, lookup->hash);
    while (*link != lookup) {
        assert(*link);
        link = &(*link)->next;
    }
    *link = lookup->next;
}

enum status lookups_open(struct resolver *resolver)
{
    assert(resolver->config->limits.queries > 0 && !resolver->lookups.memory);
    const size_t queries = resolver->config->limits.queries;
    const size_t alone = queries / ALONE_DIVISOR;
    size_t count = 1;
    while (count < queries)
        count *= 2;
    resolver->alone_max = alone > 0 ? alone : 1;
    resolver->bucket_mask = count - 1;
    resolver->buckets = calloc(count, sizeof(struct lookup *));
    if (!resolver->buckets)
        return STATUS_SYSTEM;
    TRY(pool_open(&resolver->lookups, sizeof(struct lookup), queries + resolver->alone_max));
    loop_add_queue(resolver->loop, &resolver->alone_lookups, resolver_query_ns(resolver),
                   on_alone_for_long);
    return STATUS_OK;
}

void lookups_close(struct resolver *resolver)
{
    assert(resolver->alone_count == 0 && resolver->lookups.in_use == 0);
    if (resolver->lookups.memory)
        loop_remove_queue(&resolver->alone_lookups);
    pool_close(&resolver->lookups);
    free(resolver->buckets);
    resolver->buckets = NULL;
}

/* --- Waiting queries --- */

static void begin_alone(struct lookup *lookup)
{
    struct resolver *resolver = lookup->resolver;
    assert(list_is_empty(&lookup->queries) && resolver->alone_count < resolver->alone_max);
    resolver->alone_count++;
    deadline_arm(&resolver->alone_lookups, &lookup->alone, resolver->loop->now);
}

static void end_alone(struct lookup *lookup)
{
    if (!list_is_linked(&lookup->alone.link))
        return;
    assert(lookup->resolver->alone_count > 0);
    deadline_cancel(&lookup->alone);
    lookup->resolver->alone_count--;
}

static void attach(struct lookup *lookup, struct query *query)
{
    struct resolver *resolver = lookup->resolver;
    assert(!query->lookup);
    end_alone(lookup);
    query->lookup = lookup;
    list_append(&lookup->queries, &query->waiting);
    deadline_arm(&resolver->young_queries, &query->deadline, resolver->loop->now);
    resolver->waiting_count++;
    metric_set(&resolver->metrics->queries_in_flight, resolver->waiting_count);
}

static void detach(struct query *query)
{
    struct resolver *resolver = query->lookup->resolver;
    assert(list_is_linked(&query->waiting));
    histogram_record(&resolver->metrics->query_seconds, resolver->loop->now - query->arrived_ns);
    resolver->waiting_count--;
    clients_leave(resolver->clients, &query->place);
    metric_set(&resolver->metrics->queries_in_flight, resolver->waiting_count);
    list_remove(&query->waiting);
    query->lookup = NULL;
}

/* --- Ends --- */

static void stop_asking(struct lookup *lookup)
{
    ask_cancel(&lookup->ask);
    end_alone(lookup);
    table_remove(lookup);
}

static void lookup_free(struct lookup *lookup)
{
    struct resolver *resolver = lookup->resolver;
    assert(list_is_empty(&lookup->queries));
    if (lookup->has_ended) {
        loop_cancel_task(&lookup->rest);
        body_release(lookup->body);
        resolver->ended_count--;
    } else {
        stop_asking(lookup);
    }
    pool_give(&resolver->lookups, lookup);
    metric_set(&resolver->metrics->lookups_in_flight, resolver->lookups.in_use);
}

static void store(struct lookup *lookup, const struct answer *answer)
{
    struct resolver *resolver = lookup->resolver;
    if (resolver->cache)
        cache_store(resolver->cache, &lookup->question, lookup->hash, answer, resolver->loop->now);
}

static void answer_one(struct query *query, const struct answer *answer, const char *why)
{
    struct resolver *resolver = query->lookup->resolver;
    detach(query);
    if (answer->age == ANSWER_STALE)
        query_answer_stale(resolver, query, answer, why);
    else
        query_answer(resolver, query, answer, NULL);
}

static struct query *first_query(const struct lookup *lookup)
{
    return CONTAINER_OF(lookup->queries.next, struct query, waiting);
}

/* The answer's body for as long as somebody holds it, with the TTLs that are meant. NULL when
 * memory is short. */
static struct body *body_of(const struct lookup *lookup, const struct answer *answer)
{
    assert(answer->body || answer->body_length == 0);
    struct body *body = body_new(&lookup->resolver->output, answer->body, answer->body_length);
    for (unsigned i = 0; body && i < answer->ttl_count; i++) {
        uint8_t *ttl = body->bytes + answer->ttl_offsets[i];
        store_u32(ttl, ttl_meant(load_u32(ttl)));
    }
    return body;
}

static struct answer answer_around(const struct answer *answer, struct body *body)
{
    assert(body->length == answer->body_length);
    struct answer around = *answer;
    around.body = body->bytes;
    around.shared = body;
    around.ttl_count = 0;
    return around;
}

/* Answers who has waited longest, and as many others as the turn's budget allows (FAULTS K6); when
 * several wait a long body is there once for all. */
static void answer_some(struct lookup *lookup, const struct answer *answer, const char *why)
{
    if (list_is_empty(&lookup->queries))
        return;
    const bool is_shared =
        lookup->queries.next != lookup->queries.previous && answer->body_length >= SHARED_MIN;
    struct body *body = is_shared ? body_of(lookup, answer) : NULL;
    struct answer around;
    if (body) {
        around = answer_around(answer, body);
        answer = &around;
    }
    do
        answer_one(first_query(lookup), answer, why);
    while (!list_is_empty(&lookup->queries) && !loop_is_spent(lookup->resolver->loop));
    body_release(body);
}

void lookup_leave(struct query *query)
{
    struct lookup *lookup = query->lookup;
    assert(lookup);
    detach(query);
    if (list_is_empty(&lookup->queries))
        lookup_free(lookup);
}

/* --- Failures --- */

enum { CAUSE_SIZE = OWN_ERROR_MAX - DNS_OPTION_FIXED - 2 };

/* The upstream and what became of it, in words. */
static void write_cause(const struct lookup *lookup, char text[static CAUSE_SIZE])
{
    assert(lookup->ask.failure != FAILURE_NONE);
    const struct ask *ask = &lookup->ask;
    const char *upstream = ask->failure == FAILURE_REMOVED /* its slot may be another's */
                               ? "an upstream"
                               : group_upstream_label(ask->group, ask->failed_upstream);
    snprintf(text, CAUSE_SIZE, "%s: %s", upstream, failure_text(ask->failure));
}

/* The same as an extended error. */
static void write_own_error(const struct lookup *lookup, struct writer *writer)
{
    char text[CAUSE_SIZE];
    assert(writer_left(writer) >= OWN_ERROR_MAX);
    write_cause(lookup, text);
    extended_error_write(writer, (uint16_t)failure_extended_error(lookup->ask.failure), text,
                         strlen(text), 0);
}

/* A dead path is remembered by its back-off, and must not outlive that here. */
static uint32_t ttl_of_failure(enum failure failure)
{
    if (!failure_is(failure, FAILURE_OF_NAME))
        return 0;
    return failure == FAILURE_CONVICTED ? CONVICTED_TTL_S : TIMEOUT_TTL_S;
}

/* Our own SERVFAIL as an answer that lives in `option`: its extended error names the upstream and
 * the cause. */
static struct answer failure_answer(const struct lookup *lookup,
                                    uint8_t option[static OWN_ERROR_MAX])
{
    struct writer writer = writer_over(option, OWN_ERROR_MAX);
    write_own_error(lookup, &writer);
    return (struct answer){
        .kind = ANSWER_TIMEOUT,
        .rcode = RCODE_SERVFAIL,
        .ttl_s = ttl_of_failure(lookup->ask.failure),
        .extended_errors = option,
        .extended_errors_length = (uint16_t)writer_length(&writer),
    };
}

/* An answer of the cache for those who wait, after it was told that asking failed: a stale one, or
 * a fresh one of another worker. */
static bool find_better(struct lookup *lookup, struct answer *out)
{
    struct resolver *resolver = lookup->resolver;
    return resolver->cache && !list_is_empty(&lookup->queries) &&
           cache_find(resolver->cache, &lookup->question, lookup->hash, resolver->loop->now,
                      resolver->body, out) == STATUS_OK &&
           !answer_is_failure(out->kind);
}

/* Makes the answer stay when what it points at is gone; false when memory is short. */
static bool keep_answer(struct lookup *lookup, const struct answer *answer)
{
    assert(!lookup->has_ended && answer->extended_errors_length <= KEPT_ERRORS_SIZE);
    lookup->body = body_of(lookup, answer);
    if (!lookup->body)
        return false;
    if (answer->extended_errors_length > 0) /* it may be the kept one */
        memmove(lookup->kept_errors, answer->extended_errors, answer->extended_errors_length);
    lookup->kept = answer_around(answer, lookup->body);
    lookup->kept.extended_errors = lookup->kept_errors;
    return true;
}

/* Ends the lookup. Those whom the turn does not reach are answered in the next ones, and nobody
 * joins them: who asks now finds the answer in the cache, or must not have one that was given
 * before he asked (TTL 0). Their deadlines hold as before. Without memory to keep the answer all
 * get it now. */
static void lookup_end(struct lookup *lookup, const struct answer *answer, const char *why)
{
    if (!list_is_empty(&lookup->queries) && keep_answer(lookup, answer)) {
        stop_asking(lookup);
        lookup->has_ended = true;
        lookup->resolver->ended_count++;
        loop_task_init(&lookup->rest, on_rest);
        loop_defer(lookup->resolver->loop, &lookup->rest, LOOP_LEFT_OVER);
        return;
    }
    while (!list_is_empty(&lookup->queries))
        answer_one(first_query(lookup), answer, why);
    lookup_free(lookup);
}

/* Any time after it has ended. True when the query was the last, and the lookup is gone. */
static bool give_kept_answer(struct query *query)
{
    char cause[CAUSE_SIZE] = "";
    struct lookup *lookup = query->lookup;
    assert(lookup->has_ended);
    if (lookup->kept.age == ANSWER_STALE)
        write_cause(lookup, cause);
    answer_one(query, &lookup->kept, cause);
    if (!list_is_empty(&lookup->queries))
        return false;
    lookup_free(lookup);
    return true;
}

static void on_rest(struct loop_task *task)
{
    struct lookup *lookup = CONTAINER_OF(task, struct lookup, rest);
    assert(lookup->has_ended && !list_is_empty(&lookup->queries));
    const struct loop *loop = lookup->resolver->loop;
    for (unsigned i = 0; i < REPLIES_LEFT_OVER && !loop_is_spent(loop); i++)
        if (give_kept_answer(first_query(lookup)))
            return;
    loop_defer(lookup->resolver->loop, &lookup->rest, LOOP_LEFT_OVER);
}

/* What the store and the end will touch is fetched while the replies are written, which only
 * gathers them: the answer stays what it is. */
static void lookup_finish(struct lookup *lookup, const struct answer *answer)
{
    struct resolver *resolver = lookup->resolver;
    __builtin_prefetch(bucket_of(resolver, lookup->hash));
    if (resolver->cache)
        cache_prefetch_store(resolver->cache, lookup->hash);
    answer_some(lookup, answer, NULL);
    store(lookup, answer);
    lookup_end(lookup, answer, NULL);
}

/* The end of a lookup without a good answer: one of the cache, else the best error of an upstream,
 * else our own. */
static void lookup_fail(struct lookup *lookup)
{
    assert(!lookup->has_ended && lookup->ask.failure != FAILURE_NONE);
    uint8_t option[OWN_ERROR_MAX];
    char cause[CAUSE_SIZE];
    struct answer better;
    const struct answer failure =
        lookup->ask.error_answer_count > 0 ? lookup->kept : failure_answer(lookup, option);
    metric_add(&lookup->resolver->metrics->lookups_failed, 1);
    if (lookup->ask.failure == FAILURE_CONVICTED)
        metric_add(&lookup->resolver->metrics->lookups_convicted, 1);
    store(lookup, &failure);
    write_cause(lookup, cause);
    const struct answer *answer = find_better(lookup, &better) ? &better : &failure;
    answer_some(lookup, answer, cause);
    lookup_end(lookup, answer, cause);
}

/* --- The ask --- */

static struct lookup *of_ask(struct ask *ask)
{
    return CONTAINER_OF(ask, struct lookup, ask);
}

/* Keeps the first error answer; a truncated one is better, since it says that there is data. Behind
 * its own extended errors comes ours, which says whose it is. */
static void on_error(struct ask *ask, const struct answer *answer)
{
    struct lookup *lookup = of_ask(ask);
    const bool is_better = (answer->flags & DNS_FLAG_TC) && !(lookup->kept.flags & DNS_FLAG_TC);
    if (lookup->ask.error_answer_count > 1 && !is_better)
        return;
    struct writer errors = writer_over(lookup->kept_errors, KEPT_ERRORS_SIZE - OWN_ERROR_MAX);
    extended_errors_copy(&errors, answer->extended_errors, answer->extended_errors_length);
    errors.end += OWN_ERROR_MAX;
    write_own_error(lookup, &errors);
    lookup->kept = (struct answer){
        .kind = answer->kind,
        .flags = answer->flags,
        .rcode = answer->rcode,
        .ttl_s = answer->ttl_s,
        .extended_errors = lookup->kept_errors,
        .extended_errors_length = (uint16_t)writer_length(&errors),
    };
}

static void on_done(struct ask *ask, const struct answer *answer)
{
    if (answer)
        lookup_finish(of_ask(ask), answer);
    else
        lookup_fail(of_ask(ask));
}

static const struct ask_events ask_events = {.on_done = on_done, .on_error = on_error};

/* --- Deadlines --- */

/* Goes on for the cache when nothing fresh is there, if not too many others do so. */
static void let_alone(struct lookup *lookup, enum answer_age known)
{
    struct resolver *resolver = lookup->resolver;
    const bool has_room = resolver->alone_count < resolver->alone_max;
    assert(list_is_empty(&lookup->queries));
    if (known == ANSWER_STALE && has_room) {
        begin_alone(lookup);
        return;
    }
    if (!has_room)
        metric_add(&resolver->metrics->refreshes_limited, 1);
    lookup_free(lookup);
}

/* True when the cache had something for the query, and for those who wait with it as far as the
 * turn's budget goes: the others are younger, and come here at a time of their own. Without any the
 * lookup ends or is let alone. */
static bool settle_from_cache(struct query *query)
{
    assert(!query->lookup->has_ended);
    struct lookup *lookup = query->lookup;
    const bool is_asked = ask_is_in_flight(&lookup->ask) || lookup->ask.failure == FAILURE_NONE;
    char cause[CAUSE_SIZE];
    const char *why = failure_text(FAILURE_REQUEST_TIMEOUT);
    if (!is_asked) { /* it waits for an upstream to come back */
        write_cause(lookup, cause);
        why = cause;
    }
    struct answer better;
    if (!find_better(lookup, &better))
        return false;
    answer_one(query, &better, why); /* whoever else has waited longer */
    if (!loop_is_spent(lookup->resolver->loop))
        answer_some(lookup, &better, why);
    if (list_is_empty(&lookup->queries))
        let_alone(lookup, better.age);
    return true;
}

void lookup_expire(struct query *query)
{
    assert(query->lookup && list_is_linked(&query->waiting));
    struct lookup *lookup = query->lookup;
    struct resolver *resolver = lookup->resolver;
    uint8_t option[OWN_ERROR_MAX];
    if (lookup->has_ended) {
        (void)give_kept_answer(query);
        return;
    }
    ask_note_unanswered(&lookup->ask);
    assert(lookup->ask.failure != FAILURE_NONE);
    const bool is_last = query->waiting.next == query->waiting.previous;
    if (is_last) {
        lookup_fail(lookup);
        return;
    }
    if (settle_from_cache(query))
        return;
    const struct answer answer = failure_answer(lookup, option);
    detach(query);
    query_answer(resolver, query, lookup->ask.error_answer_count > 0 ? &lookup->kept : &answer,
                 NULL);
    /* All that was asked has had a query's whole time, but others still wait that joined later, and
     * more may join for ever: the search begins again from nothing. */
    if (resolver->loop->now - lookup->begun_ns >= resolver_query_ns(resolver)) {
        lookup->begun_ns = resolver->loop->now;
        ask_anew(&lookup->ask);
    }
}

/* RFC 8767 5: who waits gets a stale answer, if there is one, and the lookup goes on without. */
static bool settle_with_stale(struct query *query)
{
    assert(!query->lookup->has_ended);
    const struct answer slow = {.kind = ANSWER_TIMEOUT, .rcode = RCODE_SERVFAIL};
    store(query->lookup, &slow);
    return settle_from_cache(query);
}

void lookup_grow_old(struct query *query)
{
    assert(!query->place.account);
    struct resolver *resolver = query->lookup->resolver;
    assert(list_is_linked(&query->waiting));
    deadline_arm(&resolver->slow_queries, &query->deadline,
                 query->deadline.armed_ns + resolver->young_queries.duration_ns);
    clients_hold(resolver->clients, &query->place, &query->origin.client, &query->message.question);
    resolver_tell_starved(resolver);
}

void lookup_give_way(struct query *query)
{
    static const struct extended_error gave_way = {
        EDE_OTHER, "gave its place to others: no answer had come, and too many queries wait"};
    struct resolver *resolver = query->lookup->resolver;
    assert(query->place.account);
    if (query->lookup->has_ended) {
        (void)give_kept_answer(query);
        return;
    }
    metric_add(&resolver->metrics->queries_gave_way, 1);
    if (settle_with_stale(query))
        return;
    lookup_leave(query);
    if (query->origin.transport->is_datagram)
        query_truncate(resolver, query);
    else
        query_fail(resolver, query, RCODE_SERVFAIL, &gave_way);
}

void lookup_slow(struct query *query)
{
    struct resolver *resolver = query->lookup->resolver;
    assert(list_is_linked(&query->waiting));
    assert(query->lookup->resolver == resolver);
    /* From when it was due, not from now: the deadline stays the one fixed at arrival. */
    deadline_arm(&resolver->query_deadlines, &query->deadline,
                 query->deadline.armed_ns + resolver->slow_queries.duration_ns);
    if (!query->lookup->has_ended)
        (void)settle_with_stale(query);
}

static void on_alone_for_long(struct deadline *deadline, uint64_t now)
{
    (void)now;
    struct lookup *lookup = CONTAINER_OF(deadline, struct lookup, alone);
    assert(list_is_empty(&lookup->queries) && lookup->resolver->alone_count > 0);
    lookup->resolver->alone_count--;
    ask_note_unanswered(&lookup->ask);
    lookup_fail(lookup);
}

void lookups_reload(struct resolver *resolver, upstream_set changed)
{
    for (size_t i = 0; changed != 0 && i <= resolver->bucket_mask; i++)
        for (struct lookup *lookup = resolver->buckets[i]; lookup; lookup = lookup->next)
            ask_reload(&lookup->ask, changed);
}

void lookups_abort(struct resolver *resolver)
{
    assert(!resolver->lookups.memory || resolver->alone_count <= resolver->alone_max);
    struct list *alone = &resolver->alone_lookups.armed;
    while (resolver->alone_count > 0)
        lookup_free(CONTAINER_OF(alone->next, struct lookup, alone.link));
    assert(resolver->alone_count == 0);
}

/* --- Start --- */

static struct lookup *lookup_new(struct resolver *resolver, const struct question *question,
                                 uint64_t hash, uint64_t client)
{
    /* Each has a query waiting, and those that have none are counted: the pool cannot be empty. */
    struct lookup *lookup = pool_take(&resolver->lookups);
    assert(lookup);
    lookup->resolver = resolver;
    deadline_init(&lookup->alone);
    question_copy(&lookup->question, question);
    lookup->hash = hash;
    lookup->begun_ns = resolver->loop->now;
    lookup->has_ended = false;
    list_init(&lookup->queries);
    ask_init(&lookup->ask, resolver->group, &lookup->question, client, &ask_events);
    table_add(lookup);
    metric_add(&resolver->metrics->lookups_started, 1);
    metric_set(&resolver->metrics->lookups_in_flight, resolver->lookups.in_use);
    return lookup;
}

/* One of the oldest here, or it is not worth the search. */
static struct query *find_repeated(const struct lookup *lookup, const struct query *query)
{
    assert(!query->lookup && query->origin.transport->is_datagram);
    size_t count = 0;
    LIST_EACH (struct query, other, &lookup->queries, waiting) {
        if (other->message.id == query->message.id &&
            other->origin.listener == query->origin.listener &&
            address_equal(&other->origin.client, &query->origin.client))
            return other;
        if (++count == REPEATED_MAX)
            break;
    }
    return NULL;
}

bool lookup_repeat(struct resolver *resolver, const struct query *query)
{
    const struct lookup *lookup = table_find(resolver, &query->message.question, query->hash);
    struct query *repeated = lookup ? find_repeated(lookup, query) : NULL;
    if (!repeated)
        return false;
    metric_add(&resolver->metrics->queries_repeated, 1);
    repeated->origin = query->origin;
    repeated->message = query->message;
    return true;
}

bool lookup_join_or_start(struct resolver *resolver, struct query *query)
{
    const struct question *question = &query->message.question;
    struct lookup *lookup = table_find(resolver, question, query->hash);
    if (lookup) {
        metric_add(&resolver->metrics->lookups_joined, 1);
        ask_join(&lookup->ask, clients_identify(&query->origin.client));
        attach(lookup, query);
        return true;
    }
    lookup = lookup_new(resolver, question, query->hash, clients_identify(&query->origin.client));
    attach(lookup, query);
    if (ask_begin(&lookup->ask))
        return true;
    lookup_fail(lookup);
    return false;
}

void lookup_refresh(struct resolver *resolver, const struct question *question, uint64_t hash)
{
    assert(question->recursion_desired && question->name_length > 0);
    if (table_find(resolver, question, hash))
        return;
    if (resolver->alone_count >= resolver->alone_max || ask_is_in_vain(resolver->group)) {
        metric_add(&resolver->metrics->refreshes_limited, 1);
        return;
    }
    metric_add(&resolver->metrics->refreshes_started, 1);
    struct lookup *lookup = lookup_new(resolver, question, hash, 0);
    begin_alone(lookup);
    if (!ask_begin(&lookup->ask))
        lookup_fail(lookup);
}
