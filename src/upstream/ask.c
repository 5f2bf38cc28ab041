// SPDX-License-Identifier: Apache-2.0
/* What one question does until its end: first request, retries, hedges.
 *
 * An ask has two requests. The first is sent at once, and again elsewhere when it fails. When it is
 * late the second is sent to another upstream while the first stays in flight (a hedge, within the
 * budget that group.c keeps); the first good answer ends both. An upstream's error (SERVFAIL,
 * REFUSED, ...) is told as it comes, and ends the ask when nobody does better (FAULTS F19).
 *
 * Thread: one worker.   Owner: the lookup that embeds it.
 * RFC:    9520 3.1 (attempts). */
#include "upstream/upstream.h"

#include <assert.h>

enum {
    ATTEMPTS_MAX = 8,      /* most failures cost no time and did not reach anybody */
    REQUESTS_MAX = 64,     /* with those that the end of a connection has handed back */
    ERROR_ANSWERS_MAX = 2, /* upstreams that may say no before their answer is passed on */
};

static struct ask *of_request(struct request *request)
{
    struct attempts *attempts = request->attempts;
    return CONTAINER_OF(attempts, struct ask, attempts);
}

static bool may_be_asked(const struct ask *ask)
{
    const struct attempts *attempts = &ask->attempts;
    return attempts->count - attempts->returned < ATTEMPTS_MAX && attempts->count < REQUESTS_MAX;
}

bool ask_is_in_flight(const struct ask *ask)
{
    for (size_t i = 0; i < REQUESTS_PER_ASK; i++)
        if (request_is_in_flight(&ask->requests[i]))
            return true;
    return false;
}

/* Sends `request`, if the ask may send one more and there is somebody to ask. */
static bool try_request(struct ask *ask, struct request *request, enum request_scope scope)
{
    assert(!request_is_in_flight(request));
    if (!may_be_asked(ask))
        return false;
    enum failure failure;
    if (request_submit(ask->group, request, scope, &failure) == STATUS_OK) {
        ask->attempts.count++;
        return true;
    }
    if (ask->failure == FAILURE_NONE) {
        ask->failure = failure;
        ask->failed_upstream = request->upstream;
    }
    return false;
}

static void retry(struct ask *ask, struct request *request, enum request_scope scope)
{
    if (try_request(ask, request, scope))
        metric_add(&ask->metrics->lookups_retried, 1);
    else if (!ask_is_in_flight(ask))
        ask->events->on_done(ask, NULL);
}

static void on_done(struct request *request, const struct answer *answer, enum failure failure)
{
    struct ask *ask = of_request(request);
    assert(answer || failure != FAILURE_NONE);
    if (failure == FAILURE_NONE) {
        ask->events->on_done(ask, answer);
        return;
    }
    ask->failure = failure;
    ask->failed_upstream = request->upstream;
    if (!answer) {
        /* With the other request still out, the same upstream need not hear it twice. */
        retry(ask, request, ask_is_in_flight(ask) ? REQUEST_ELSEWHERE : REQUEST_ANYWHERE);
        return;
    }
    ask->error_answer_count++;
    ask->events->on_error(ask, answer);
    if (ask->error_answer_count < ERROR_ANSWERS_MAX)
        retry(ask, request, REQUEST_ELSEWHERE);
    else if (!ask_is_in_flight(ask))
        ask->events->on_done(ask, NULL);
}

/* One that is still late, and was refused before or has lost its hedge, is told again. With both in
 * vain, as when an upstream loses what it is asked, a third upstream is asked in the end. */
static void on_late(struct request *request)
{
    struct ask *ask = of_request(request);
    struct request *second = &ask->requests[request == &ask->requests[0]];
    if (!may_be_asked(ask))
        return;
    const enum status status = request_is_in_flight(second)
                                   ? request_move(ask->group, request, second)
                                   : request_hedge(ask->group, request, second);
    if (status == STATUS_OK)
        ask->attempts.count++;
}

/* --- What its owner calls --- */

void ask_init(struct ask *ask, struct group *group, struct metrics *metrics,
              const struct question *question, const struct ask_events *events)
{
    assert(question && events);
    ask->group = group;
    ask->metrics = metrics;
    ask->events = events;
    ask->attempts = (struct attempts){0};
    ask->error_answer_count = 0;
    ask->failure = FAILURE_NONE;
    for (size_t i = 0; i < REQUESTS_PER_ASK; i++)
        request_init(&ask->requests[i], question, &ask->attempts, on_done, on_late);
}

bool ask_begin(struct ask *ask)
{
    return try_request(ask, &ask->requests[0], REQUEST_ANYWHERE);
}

void ask_cancel(struct ask *ask)
{
    for (size_t i = 0; i < REQUESTS_PER_ASK; i++)
        request_cancel(&ask->requests[i]);
}

void ask_anew(struct ask *ask)
{
    ask_cancel(ask);
    ask->attempts = (struct attempts){0};
    ask->error_answer_count = 0;
    retry(ask, &ask->requests[0], REQUEST_ANYWHERE);
}

void ask_note_unanswered(struct ask *ask)
{
    for (size_t i = 0; i < REQUESTS_PER_ASK; i++) {
        if (!request_is_in_flight(&ask->requests[i]))
            continue;
        ask->failure = FAILURE_REQUEST_TIMEOUT;
        ask->failed_upstream = ask->requests[i].upstream;
    }
}
