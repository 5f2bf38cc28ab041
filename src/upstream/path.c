// SPDX-License-Identifier: Apache-2.0
/* The way to one upstream: health, back-off, what it takes.
 *
 * It is down when connects, handshakes or our probe fail, at once when that took a timeout, else
 * the second time in a row. A close or silence after a handshake may be a question's doing: when
 * several connections end so and nothing is answered in between it is doubted, and gets nothing but
 * a probe until that is answered. After a back-off that doubles, with jitter, a connection without
 * any query finds out whether it is back: no client pays for the trial.
 *
 * Thread: one worker.   Owner: the upstream that embeds it.
 * RFC:    9520 3.3 (no hammering of a dead server). */
#include "upstream/path.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>

#include "base/numbers.h"

enum {
    BACKOFF_FIRST_MS = 100,
    BACKOFF_MAX_MS = 30000,
    BACKOFF_JITTER_PERCENT = 25, /* either way: a fleet must not come back in step */
    SELF_BACKOFF_MS = 60000,     /* until somebody has changed the configuration */
};

#define DOUBT_NS (50 * NANOSECONDS_PER_MILLISECOND) /* without an answer: more than chance */

static uint64_t backoff_ns(struct path *path)
{
    const uint64_t doublings = least_of(path->failures > 0 ? path->failures - 1 : 0, 16);
    uint64_t backoff_ms = least_of((uint64_t)BACKOFF_FIRST_MS << doublings, BACKOFF_MAX_MS);
    if (path->last_failure == FAILURE_SELF)
        backoff_ms = SELF_BACKOFF_MS;
    const uint64_t jitter_ms = backoff_ms * BACKOFF_JITTER_PERCENT / 100;
    backoff_ms = backoff_ms - jitter_ms + random_below(path->random, 2 * jitter_ms + 1);
    return backoff_ms * NANOSECONDS_PER_MILLISECOND;
}

void path_back_off(struct path *path)
{
    path->retry_ns = path->loop->now + backoff_ns(path);
}

void path_set_down(struct path *path, bool down)
{
    path->down = down;
    metric_set(&path->metrics->up, path_is_usable(path));
}

static void log_failure(struct path *path, enum failure failure, const char *detail)
{
    char failures[16];
    snprintf(failures, sizeof(failures), "%" PRIu32, path->failures);
    log_event_limited(&path->log_limit, path->loop->now,
                      failure == FAILURE_SELF ? LOG_LEVEL_ERROR : LOG_LEVEL_WARNING,
                      "upstream_failed", "upstream", path->label, "cause", failure_text(failure),
                      "detail", detail[0] ? detail : NULL, "failures", failures, "state",
                      path->down         ? "down"
                      : path->is_doubted ? "doubted"
                                         : "up",
                      NULL);
}

void path_failed(struct path *path, enum failure failure, const char *detail)
{
    assert(failure != FAILURE_NONE && detail);
    path->failures++;
    path->failed_ns = path->loop->now;
    path->last_failure = failure;
    if (path->down || failure_is(failure, FAILURE_IS_SLOW) || failure == FAILURE_SELF ||
        path->failures > 1) {
        path_set_down(path, true);
        path->is_missed = true;
        path_back_off(path);
    }
    log_failure(path, failure, detail);
    path->events->on_failed(path, failure);
}

void path_doubt(struct path *path, enum failure failure)
{
    if (path->is_doubted || path->down)
        return;
    path->is_doubted = true;
    path->is_missed = true;
    path->last_failure = failure;
    path->retry_ns = path->loop->now;
    metric_set(&path->metrics->up, false);
    log_failure(path, failure, "nothing is answered");
    path->events->on_doubted(path);
}

/* The doubt is about those that answer nobody; a question that ends connections does so between the
 * answers to others. */
void path_ended(struct path *path, enum failure failure, uint64_t silent_since_ns)
{
    const uint64_t unheard_ns = path->loop->now - path->answered_ns;
    const bool is_silent = silent_since_ns > 0 && path->answered_ns <= silent_since_ns;
    path->ends++;
    if (is_silent || (path->ends > 1 && unheard_ns >= DOUBT_NS + 4 * path->times.rtt_ns))
        path_doubt(path, failure);
}

void path_heard(struct path *path, uint64_t sent_ns)
{
    path->ends = 0;
    path->answered_ns = path->loop->now;
    if (path->answered_sent_ns < sent_ns)
        path->answered_sent_ns = sent_ns;
    if (!path->is_doubted)
        return;
    path->is_doubted = false;
    path->failures = 0;
    path_is_back(path);
    metric_set(&path->metrics->up, true);
    path->events->on_back(path);
}

void path_connected(struct path *path)
{
    if (!path->down)
        return;
    path_set_down(path, false);
    path->events->on_back(path);
}

/* One that shakes hands and then says nothing takes turns in being up and down; it has not come
 * back. */
void path_is_back(struct path *path)
{
    path_connected(path);
    if (!path->is_missed)
        return;
    path->is_missed = false;
    log_event_limited(&path->recovered_limit, path->loop->now, LOG_LEVEL_INFO, "upstream_recovered",
                      "upstream", path->label, NULL);
}

void path_answered(struct path *path)
{
    path->failures = 0;
    path_is_back(path);
    times_expect(&path->times, path->snapshot->timeouts.request_ns);
}

void path_reload(struct path *path, const struct snapshot *snapshot)
{
    assert(!path->is_leaving);
    path->snapshot = snapshot;
    path->idle.duration_ns = snapshot->timeouts.idle_ns;
    path->late.duration_ns = times_late_ns(&path->times, snapshot->timeouts.request_ns);
}

void path_measure(struct path *path, uint64_t took_ns)
{
    if (!times_measure(&path->times, path->loop->now, took_ns))
        return;
    metric_set(&path->metrics->rtt_ns, path->times.rtt_ns);
    path->late.duration_ns = times_late_ns(&path->times, path->snapshot->timeouts.request_ns);
}
