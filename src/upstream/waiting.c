// SPDX-License-Identifier: Apache-2.0
/* Asks that wait, and what resumes them: many may wait for one event, so they are resumed by and
 * by, as the turns allow (FAULTS K5).
 *
 * Those that nobody can be asked for are parked until an upstream is back, or until trials have
 * failed for timeouts.park; what nobody has tried for long counts for nothing. Those for whom there
 * is no connection stand in line for one, and are served when there may be one. While any waits it
 * is seen to again and again. One that has ended a connection alone waits for a moment before the
 * look that counts.
 *
 * Thread: one worker.   Owner: the group; a waiter is its ask's. */
#include "upstream/waiting.h"

#include <assert.h>

#include "base/numbers.h"

#define TICK_NS (50 * NANOSECONDS_PER_MILLISECOND)
#define LOOK_INTERVAL_NS (50 * NANOSECONDS_PER_MILLISECOND) /* 20 a second */
#define TRIAL_AGE_NS (1 * NANOSECONDS_PER_SECOND)           /* a failure before that is history */

enum {
    LOOK_BURST = 16,      /* what is in flight where few ask, when all of it is cut off */
    STAYED_MAX = 4,       /* in a line, before the rest is not looked at */
    RESUMED_AT_ONCE = 64, /* before others have their share of the turn */
};

/* --- For an upstream --- */

static void start_ticking(struct waiting *waiting)
{
    if (!list_is_linked(&waiting->tick.link))
        deadline_arm(&waiting->ticks, &waiting->tick, waiting->loop->now);
}

/* Trials fail, the last a moment ago. */
static bool is_away_for_long(const struct waiting *waiting)
{
    return waiting->trial_failed_ns > 0 &&
           waiting->loop->now - waiting->trial_failed_ns < TRIAL_AGE_NS &&
           waiting->trial_failed_ns - waiting->failing_since_ns >= waiting->park_ns;
}

bool waiting_park(struct waiting *waiting, struct waiter *waiter)
{
    assert(waiter->resume && !list_is_linked(&waiter->link));
    if (waiting->park_ns == 0 || is_away_for_long(waiting))
        return false;
    waiter->line = LINES;
    list_append(&waiting->parked, &waiter->link);
    start_ticking(waiting);
    return true;
}

static void resume(struct waiting *waiting, struct list *link)
{
    struct waiter *waiter = CONTAINER_OF(link, struct waiter, link);
    loop_spend(waiting->loop, 0);
    waiter->resume(waiter);
}

static void resume_some(struct loop_task *task)
{
    struct waiting *waiting = CONTAINER_OF(task, struct waiting, resume_some);
    struct list *link;
    for (size_t i = 0; i < RESUMED_AT_ONCE && (link = list_take_first(&waiting->resumed)); i++)
        resume(waiting, link);
    if (!list_is_empty(&waiting->resumed))
        loop_defer(waiting->loop, task, LOOP_LEFT_OVER);
}

void waiting_resume_parked(struct waiting *waiting)
{
    list_append_all(&waiting->resumed, &waiting->parked);
    loop_defer(waiting->loop, &waiting->resume_some, LOOP_FLUSH);
}

void waiting_note_trial(struct waiting *waiting, bool may_pass)
{
    const uint64_t now = waiting->loop->now;
    assert(waiting->trial_failed_ns <= now);
    if (waiting->trial_failed_ns == 0 || now - waiting->trial_failed_ns >= TRIAL_AGE_NS)
        waiting->failing_since_ns = now;
    waiting->trial_failed_ns = now;
    if (is_away_for_long(waiting) || !may_pass)
        waiting_resume_parked(waiting);
}

void waiting_note_upstream(struct waiting *waiting)
{
    waiting->trial_failed_ns = 0;
}

/* --- For a connection --- */

void waiting_serve_soon(struct waiting *waiting)
{
    if (list_is_linked(&waiting->tick.link)) /* else nobody waits */
        loop_defer(waiting->loop, &waiting->serve, LOOP_FLUSH);
}

/* NULL when there are not so many before it. */
static struct list *in_line(struct list *line, size_t before, bool is_newest_first)
{
    struct list *link = line;
    for (size_t i = 0; i <= before; i++) {
        link = is_newest_first ? link->previous : link->next;
        if (link == line)
            return NULL;
    }
    return link;
}

/* Who cannot be served stays in its place, and holds up nobody who can: that depends on which
 * upstreams it may still be sent to. When as many as there may be upstreams stay, all will. True
 * when there may be more to be served. */
static bool serve_line(struct waiting *waiting, struct list *line, bool is_newest_first)
{
    struct list *link;
    size_t stayed = 0;
    size_t served = 0;
    while (served < RESUMED_AT_ONCE && stayed < STAYED_MAX &&
           (link = in_line(line, stayed, is_newest_first))) {
        resume(waiting, link);
        if (in_line(line, stayed, is_newest_first) == link)
            stayed++;
        else
            served++;
    }
    return served == RESUMED_AT_ONCE;
}

static void serve(struct loop_task *task)
{
    struct waiting *waiting = CONTAINER_OF(task, struct waiting, serve);
    bool is_more = false;
    for (size_t i = 0; i < LINES; i++)
        is_more = serve_line(waiting, &waiting->lines[i], i == LINE_CONFINED) || is_more;
    if (is_more)
        loop_defer(waiting->loop, task, LOOP_LEFT_OVER);
}

void waiting_line_up(struct waiting *waiting, struct waiter *waiter, enum line line)
{
    assert(line < LINES);
    assert(waiter->resume);
    if (list_is_linked(&waiter->link) && waiter->line == line)
        return;
    list_remove(&waiter->link);
    waiter->line = line;
    list_append(&waiting->lines[line], &waiter->link);
    start_ticking(waiting);
}

/* --- For a moment --- */

static bool has_line(const struct waiting *waiting)
{
    for (size_t i = 0; i < LINES; i++)
        if (!list_is_empty(&waiting->lines[i]))
            return true;
    return false;
}

static void on_tick(struct deadline *deadline, uint64_t now)
{
    struct waiting *waiting = CONTAINER_OF(deadline, struct waiting, tick);
    (void)now;
    if (!list_is_empty(&waiting->parked))
        waiting->on_parked(waiting);
    if (!list_is_empty(&waiting->parked) || has_line(waiting))
        start_ticking(waiting);
    waiting_serve_soon(waiting);
}

bool waiting_may_look_at_once(struct waiting *waiting)
{
    return rate_fits(&waiting->next_look_ns, waiting->loop->now, LOOK_INTERVAL_NS,
                     LOOK_BURST * LOOK_INTERVAL_NS);
}

void waiting_look_again(struct waiting *waiting, struct waiter *waiter)
{
    assert(waiter->resume && !list_is_linked(&waiter->link));
    deadline_arm(&waiting->second_looks, &waiter->again, waiting->loop->now);
}

static void on_second_look(struct deadline *deadline, uint64_t now)
{
    struct waiter *waiter = CONTAINER_OF(deadline, struct waiter, again);
    assert(waiter->resume);
    (void)now;
    waiter->resume(waiter);
}

void waiting_open(struct waiting *waiting, struct loop *loop, uint64_t park_ns,
                  void (*on_parked)(struct waiting *waiting))
{
    assert(loop && on_parked);
    waiting->loop = loop;
    waiting->park_ns = park_ns;
    waiting->on_parked = on_parked;
    list_init(&waiting->parked);
    list_init(&waiting->resumed);
    for (size_t i = 0; i < LINES; i++)
        list_init(&waiting->lines[i]);
    deadline_init(&waiting->tick);
    loop_task_init(&waiting->resume_some, resume_some);
    loop_task_init(&waiting->serve, serve);
    loop_add_queue(loop, &waiting->second_looks, SECOND_LOOK_NS, on_second_look);
    loop_add_queue(loop, &waiting->ticks, TICK_NS, on_tick);
}

void waiting_close(struct waiting *waiting)
{
    assert(list_is_empty(&waiting->parked) && list_is_empty(&waiting->resumed));
    assert(!has_line(waiting));
    loop_cancel_task(&waiting->resume_some);
    loop_cancel_task(&waiting->serve);
    deadline_cancel(&waiting->tick);
    loop_remove_queue(&waiting->second_looks);
    loop_remove_queue(&waiting->ticks);
}
