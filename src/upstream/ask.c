// SPDX-License-Identifier: Apache-2.0
/* What one question does until its end: first request, retries, hedges.
 *
 * An ask has two requests. The first is sent at once, and again elsewhere when it fails. When it is
 * late the second is sent to another upstream while the first stays in flight (a hedge, within the
 * budget that submit.c keeps); the first good answer ends both. An upstream's error (SERVFAIL,
 * REFUSED, ...) is told as it comes, and ends the ask when nobody does better (FAULTS F19).
 *
 * Thread: one worker.   Owner: the lookup that embeds it.
 * RFC:    9520 3.1 (attempts). */
#include "upstream/ask.h"

#include <assert.h>

#include "dns/extended_error.h"
#include "upstream/choose.h"
#include "upstream/submit.h"

enum {
    ATTEMPTS_MAX = 8,      /* at all upstreams */
    REQUESTS_MAX = 64,     /* with those that did not reach anybody */
    ERROR_ANSWERS_MAX = 2, /* upstreams that may say no before their answer is passed on */
    SUSPECTS_MAX = 8,      /* of one end */
    CONVICTION = 2,        /* lone ends */
};

static uint64_t now_of(const struct ask *ask)
{
    return ask->group->loop->now;
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

/* Nothing that still counts has said why there is no answer. */
static bool is_unexplained(const struct ask *ask)
{
    return ask->failure == FAILURE_NONE || ask->failure == FAILURE_REMOVED;
}

/* Sends `request` to whom the strategy chooses. STATUS_FULL when it has to wait for room,
 * STATUS_NOT_FOUND when there is nobody to ask. */
static enum status try_request(struct ask *ask, struct request *request, enum request_scope scope)
{
    assert(!request_is_in_flight(request));
    if (!may_be_asked(ask))
        return STATUS_NOT_FOUND;
    enum failure failure;
    const enum status status = request_submit(ask->group, request, scope, &failure);
    if (status == STATUS_OK) {
        ask->attempts.count++;
    } else if (status != STATUS_FULL && is_unexplained(ask)) {
        ask->failure = failure;
        ask->failed_upstream = request->upstream;
    }
    return status;
}

bool ask_is_in_vain(const struct group *group)
{
    return group_is_away(group);
}

/* True when it waits for an upstream to come back. */
static bool try_park(struct ask *ask)
{
    return ask->error_answer_count == 0 && may_be_asked(ask) &&
           group_park(ask->group, attempts_exhausted(&ask->attempts), &ask->waiter);
}

/* --- Questions that may end connections --- */

/* Its client, or what it asks below a name, is known to end connections. */
static bool is_confined(const struct ask *ask)
{
    return ask->client > 0 &&
           blame_is_bad(&ask->group->blames, now_of(ask), ask->client, ask->requests[0].question);
}

/* It must not be asked beside others, who would pay for it. */
static bool is_dangerous(const struct ask *ask)
{
    return ask->is_suspect || is_confined(ask);
}

/* A connection has ended with it aboard. */
static void note_end(struct ask *ask, const struct request *request, enum failure failure)
{
    assert(request->was_sent && request->were_aboard > 0 && !request_is_in_flight(request));
    /* Of many each is hardly the one, and there are not so many lanes: in calm one connection
     * carries all. They are spread over several by now, and few will be hit again. */
    ask->is_suspect =
        ask->has_ended || (request->were_aboard <= SUSPECTS_MAX && !request->was_behind);
    ask->has_ended = true;
    ask->ended_upstream = request->upstream;
    ask->ended_ns = now_of(ask);
    ask->ended_sent_ns = request->sent_ns;
    if (!request->was_alone || !failure_is_close(failure))
        return;
    if (ask->client > 0)
        blame_end(&ask->group->blames, now_of(ask), ask->client, request->question);
    if (ask->lone_ends == 0) {
        ask->lone_end_ns = now_of(ask);
        ask->lone_ends = 1;
    } else if (request->was_fresh && request->sent_ns >= ask->lone_end_ns + SECOND_LOOK_NS) {
        ask->lone_ends++;
    }
}

/* Where a connection has ended with it last. */
static struct upstream *ended_at(const struct ask *ask)
{
    struct upstream *upstream = ask->group->slots[ask->ended_upstream];
    assert(upstream && !upstream->path.is_leaving); /* ask_reload has seen to it */
    return upstream;
}

/* Whether the upstream has answered something that was asked after that. If not it is asked
 * something of our own, and it is sent nothing else until it has answered. */
static bool is_vouched_for(const struct ask *ask)
{
    struct path *path = &ended_at(ask)->path;
    if (path->answered_sent_ns >= ask->ended_ns) /* what a turn sends leaves at its end */
        return true;
    path_doubt(path, FAILURE_CLOSED);
    return false;
}

/* What it has done twice alone, while others have had answers from there since, is its doing. */
static bool is_convicted(const struct ask *ask)
{
    return ask->lone_ends >= CONVICTION && is_vouched_for(ask);
}

/* A server that has failed since, or has ended several connections at once, is itself the reason.
 */
static void drop_evidence(struct ask *ask)
{
    if (ask->lone_ends == 0)
        return;
    const struct upstream *upstream = ended_at(ask);
    const bool is_together =
        ask->lone_ends >= CONVICTION && ends_were_together(&upstream->ends, ask->ended_ns);
    if (!is_together && upstream->path.failed_ns <= ask->lone_end_ns)
        return;
    ask->lone_ends = 0;
    ask->has_looked = false;
}

/* Its next end alone would count: the first is long enough ago. */
static bool may_convict(const struct ask *ask)
{
    return ask->lone_ends > 0 && now_of(ask) >= ask->lone_end_ns + SECOND_LOOK_NS;
}

/* Once more, at whomever. */
static bool is_at_last(const struct ask *ask)
{
    return ask->attempts.count - ask->attempts.returned == ATTEMPTS_MAX - 1;
}

/* An upstream has answered something that was asked after the last end. */
static bool is_anybody_there(const struct ask *ask)
{
    LIST_EACH (const struct upstream, upstream, &ask->group->upstreams, link)
        if (upstream->path.answered_sent_ns >= ask->ended_ns)
            return true;
    return false;
}

/* The last attempt is kept while all whom the question was sent to may be gone: they are asked
 * something of our own, and it waits for an answer to that, which true means. What became of it
 * elsewhere says nothing of one whom it was never sent to, and who gets it now. */
static bool keeps_last(struct ask *ask)
{
    if (!ask->has_ended || !is_at_last(ask) || is_anybody_there(ask))
        return false;
    const upstream_set sent = ask->attempts.odd | ask->attempts.two;
    LIST_EACH (struct upstream, upstream, &ask->group->upstreams, link)
        if (path_is_usable(&upstream->path) && (sent & upstream_bit(upstream->path.slot)))
            path_doubt(&upstream->path, FAILURE_CLOSED);
    list_remove(&ask->waiter.link); /* it may be in line for a connection */
    return try_park(ask);
}

/* It was sent twice to where a connection has ended with it. */
static bool has_last(const struct ask *ask)
{
    const upstream_set sent_twice = ask->attempts.two & ~ask->attempts.odd;
    return sent_twice & upstream_bit(ask->ended_upstream);
}

/* The last time that a server may be asked (RFC 9520 3.1) is not for one that may be gone: that has
 * said nothing to anybody since it was asked before. */
static bool would_waste_last(const struct ask *ask)
{
    return ask->has_ended && has_last(ask) && ended_at(ask)->path.answered_ns <= ask->ended_sent_ns;
}

/* It may be asked again at once, since the first end may be chance; but the look that counts is a
 * later one, which must still be allowed, and where many end so nothing else is of use. After that
 * others show whether the server is there. */
static bool must_wait(const struct ask *ask)
{
    if (ask->lone_ends >= CONVICTION || would_waste_last(ask))
        return true;
    return ask->lone_ends == 1 && !may_convict(ask) &&
           (ask->has_looked || has_last(ask) || !waiting_may_look_at_once(&ask->group->waiting));
}

/* The first end may have been its upstream's, as most are: another one where all is well is asked
 * as always, which costs no handshake. */
static enum status try_calm(struct ask *ask, struct request *request)
{
    if (ask->has_moved || ask->lone_ends > 0)
        return STATUS_NOT_FOUND;
    ask->has_moved = true;
    return try_request(ask, request, REQUEST_CALM);
}

static enum status try_alone(struct ask *ask, struct request *request, enum lane_kind kind)
{
    assert(!request_is_in_flight(request));
    const upstream_set avoided = ask->has_ended ? upstream_bit(ask->ended_upstream) : 0;
    enum status status = STATUS_NOT_FOUND;
    if (may_be_asked(ask))
        status = request_submit_alone(ask->group, request, avoided, kind);
    if (status == STATUS_OK) {
        ask->attempts.count++;
        ask->has_looked = ask->lone_ends > 0;
    } else if (status != STATUS_FULL && is_unexplained(ask)) {
        ask->failure = FAILURE_BACKING_OFF;
    }
    return status;
}

/* --- On and on --- */

static void forget_choices(struct ask *ask)
{
    ask->attempts.once = 0;
    ask->attempts.twice = 0;
}

/* As all others: with everybody chosen twice those whom it was not sent to three times (RFC 9520
 * 3.1) may be chosen again, for it may have reached nobody. */
static enum status try_anywhere(struct ask *ask, struct request *request)
{
    const enum status status = try_request(ask, request, REQUEST_ANYWHERE);
    if (status != STATUS_NOT_FOUND || ask->attempts.returned == 0)
        return status;
    forget_choices(ask);
    return try_request(ask, request, REQUEST_ANYWHERE);
}

/* Asks as it should be asked now. STATUS_FULL when it is to wait in `*line` for that. */
static enum status ask_now(struct ask *ask, enum line *line)
{
    struct request *request = &ask->requests[0];
    *line = LINE_CROWD;
    if (is_confined(ask)) {
        *line = LINE_CONFINED;
        return try_alone(ask, request, LANE_CONFINED);
    }
    if (!ask->is_suspect)
        return try_anywhere(ask, request);
    if (try_calm(ask, request) == STATUS_OK)
        return STATUS_OK;
    const bool is_look = may_convict(ask);
    *line = is_look ? LINE_LOOKS : LINE_LANES;
    return try_alone(ask, request, is_look ? LANE_FRESH : LANE_ANY);
}

/* True when it is asked, or waits for a connection. */
static bool is_asked(struct ask *ask)
{
    enum line line;
    const enum status status = ask_now(ask, &line);
    if (status == STATUS_FULL) {
        waiting_line_up(&ask->group->waiting, &ask->waiter, line);
        return true;
    }
    list_remove(&ask->waiter.link);
    return status == STATUS_OK;
}

/* Asks again, or waits until it can be asked; with neither it has failed. */
static void go_on(struct ask *ask)
{
    assert(!ask_is_in_flight(ask));
    drop_evidence(ask);
    if (is_convicted(ask)) {
        ask->failure = FAILURE_CONVICTED;
        ask->failed_upstream = ask->ended_upstream;
        ask->events->on_done(ask, NULL);
        return;
    }
    if (would_waste_last(ask))
        (void)is_vouched_for(ask);
    if (keeps_last(ask))
        return;
    if (is_asked(ask)) {
        metric_add(&ask->group->metrics->lookups_retried, request_is_in_flight(&ask->requests[0]));
        return;
    }
    if (!try_park(ask))
        ask->events->on_done(ask, NULL);
}

static void resume(struct waiter *waiter)
{
    struct ask *ask = CONTAINER_OF(waiter, struct ask, waiter);
    forget_choices(ask); /* whoever was in vain before may be the right one now */
    go_on(ask);
}

/* What an upstream does that is asked nothing more is no evidence. */
static bool is_evidence(const struct ask *ask, const struct request *request, enum failure failure)
{
    return request->was_sent && failure_is(failure, FAILURE_IS_CLOSE | FAILURE_IS_SILENCE) &&
           !ask->group->slots[request->upstream]->path.is_leaving;
}

static void on_failed(struct ask *ask, struct request *request, enum failure failure)
{
    if (is_evidence(ask, request, failure))
        note_end(ask, request, failure);
    if (!ask_is_in_flight(ask)) {
        if (must_wait(ask))
            waiting_look_again(&ask->group->waiting, &ask->waiter);
        else
            go_on(ask);
        return;
    }
    /* With the other request still out, the same upstream need not hear it twice. */
    if (!is_dangerous(ask) && try_request(ask, request, REQUEST_ELSEWHERE) == STATUS_OK)
        metric_add(&ask->group->metrics->lookups_retried, 1);
}

/* The first error answer is not the last word, nor is any while only such upstreams were asked that
 * nobody knows to be better at others (FAULTS F19). */
static bool may_be_answered_better(const struct ask *ask, const struct answer *error)
{
    return !extended_errors_are_final(error->extended_errors, error->extended_errors_length) &&
           (ask->error_answer_count < ERROR_ANSWERS_MAX ||
            choose_knows_better(ask->group, ask->attempts.erred));
}

/* Those whom it has reached in vain are asked again, but none that has answered. What is dangerous
 * is not asked beside what is still out, for that would be among others. */
static void on_error(struct ask *ask, struct request *request, const struct answer *answer)
{
    ask->error_answer_count++;
    ask->attempts.erred |= upstream_bit(request->upstream);
    ask->events->on_error(ask, answer);
    const bool is_out = ask_is_in_flight(ask);
    if (may_be_answered_better(ask, answer) &&
        (is_out ? !is_dangerous(ask) && try_request(ask, request, REQUEST_ELSEWHERE) == STATUS_OK
                : is_asked(ask)))
        metric_add(&ask->group->metrics->lookups_retried, 1);
    else if (!is_out)
        ask->events->on_done(ask, NULL);
}

static void on_done(struct request *request, const struct answer *answer, enum failure failure)
{
    struct ask *ask = CONTAINER_OF(request->attempts, struct ask, attempts);
    assert(answer || failure != FAILURE_NONE);
    if (failure == FAILURE_NONE) {
        if (ask->client > 0)
            blame_answer(&ask->group->blames, now_of(ask), ask->client, request->question);
        if (ask->attempts.erred)
            choose_contradict(ask->group, ask->attempts.erred);
        ask->events->on_done(ask, answer);
        return;
    }
    ask->failure = failure;
    ask->failed_upstream = request->upstream;
    if (answer)
        on_error(ask, request, answer);
    else
        on_failed(ask, request, failure);
}

/* What may end connections, or silence them, is not asked among others: it is asked alone again
 * when all that is out is lost, of which one is given up for it. */
static enum status ask_again_alone(struct ask *ask, struct request *request, struct request *second)
{
    const upstream_set exhausted = attempts_exhausted(&ask->attempts);
    if (!request_is_lost(ask->group, request) ||
        (request_is_in_flight(second) && !request_is_lost(ask->group, second)) ||
        !choose_usable(ask->group, exhausted, request->question))
        return STATUS_NOT_FOUND;
    request_cancel(second);
    const enum lane_kind kind = is_confined(ask)   ? LANE_CONFINED
                                : may_convict(ask) ? LANE_FRESH
                                                   : LANE_LOST;
    return request_submit_alone(ask->group, second, upstream_bit(request->upstream), kind);
}

/* One that is still late, and was refused before or has lost its hedge, is told again. With both in
 * vain, as when an upstream loses what it is asked, a third upstream is asked in the end. */
static void on_late(struct request *request)
{
    struct ask *ask = CONTAINER_OF(request->attempts, struct ask, attempts);
    struct request *second = &ask->requests[request == &ask->requests[0]];
    enum status status;
    if (!may_be_asked(ask))
        return;
    if (is_dangerous(ask))
        status = ask_again_alone(ask, request, second);
    else if (request_is_in_flight(second))
        status = request_move(ask->group, request, second);
    else
        status = request_hedge(ask->group, request, second);
    if (status == STATUS_OK)
        ask->attempts.count++;
}

/* --- What its owner calls --- */

void ask_init(struct ask *ask, struct group *group, const struct question *question,
              uint64_t client, const struct ask_events *events)
{
    assert(question && events);
    ask->group = group;
    ask->events = events;
    ask->client = client;
    ask->waiter.resume = resume;
    list_init(&ask->waiter.link);
    deadline_init(&ask->waiter.again);
    ask->attempts = (struct attempts){0};
    ask->error_answer_count = 0;
    ask->lone_ends = 0;
    ask->has_ended = false;
    ask->is_suspect = false;
    ask->has_moved = false;
    ask->has_looked = false;
    ask->failure = FAILURE_NONE;
    ask->failed_upstream = 0;
    for (size_t i = 0; i < REQUESTS_PER_ASK; i++)
        request_init(&ask->requests[i], question, &ask->attempts, on_done, on_late);
}

bool ask_begin(struct ask *ask)
{
    return is_asked(ask) || try_park(ask);
}

void ask_cancel(struct ask *ask)
{
    list_remove(&ask->waiter.link);
    deadline_cancel(&ask->waiter.again);
    /* Most asks have used one. */
    for (size_t i = 0; i < REQUESTS_PER_ASK && i < ask->attempts.count; i++)
        if (request_is_in_flight(&ask->requests[i]))
            request_cancel(&ask->requests[i]);
}

void ask_join(struct ask *ask, uint64_t client)
{
    struct waiting *waiting = &ask->group->waiting;
    if (client == ask->client || !is_confined(ask))
        return;
    ask->client = client;
    if (!list_is_linked(&ask->waiter.link) || ask->waiter.line != LINE_CONFINED || is_confined(ask))
        return;
    waiting_line_up(waiting, &ask->waiter, LINE_CROWD);
    waiting_serve_soon(waiting);
}

void ask_reload(struct ask *ask, upstream_set changed)
{
    attempts_forget(&ask->attempts, changed);
    if (ask->failure != FAILURE_NONE && (changed & upstream_bit(ask->failed_upstream)))
        ask->failure = FAILURE_REMOVED;
    if (!ask->has_ended || !(changed & upstream_bit(ask->ended_upstream)))
        return;
    ask->has_ended = false;
    ask->is_suspect = false;
    ask->has_looked = false;
    ask->lone_ends = 0;
}

void ask_anew(struct ask *ask)
{
    ask_cancel(ask);
    ask_init(ask, ask->group, ask->requests[0].question, ask->client, ask->events);
    go_on(ask);
}

void ask_note_unanswered(struct ask *ask)
{
    if (ask->failure == FAILURE_NONE)
        ask->failure = FAILURE_OVERLOADED; /* it waits in line */
    for (size_t i = 0; i < REQUESTS_PER_ASK; i++) {
        if (!request_is_in_flight(&ask->requests[i]))
            continue;
        ask->failure = FAILURE_REQUEST_TIMEOUT;
        ask->failed_upstream = ask->requests[i].upstream;
    }
}
