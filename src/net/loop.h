// SPDX-License-Identifier: Apache-2.0
/* The event loop of one worker: epoll, one clock reading a turn, deadlines, and work put off to the
 * end of the turn.
 *
 * A turn: wait; read the clock into loop->now; run what the turn before left with LOOP_LEFT_OVER
 * and LOOP_NEXT_TURN; call on_ready for each descriptor; expire deadlines; then, until both lists
 * are empty, run the tasks of LOOP_FLUSH (send what the turn has gathered) and those of LOOP_REAP
 * (close and free). So nothing is sent, closed or freed inside an event, and no callback can meet a
 * freed object. Tasks that keep putting off each other are cut after some rounds and go on in the
 * next turn, which then does not wait: no task is lost and no socket starves.
 *
 * A turn has a budget of work over all its sources, so that nobody waits long for a turn whatever
 * the others bring (FAULTS K5, K6). Who takes a message or writes a reply says so with loop_spend,
 * and who could go on looks at loop_is_spent before, and puts off the rest with LOOP_LEFT_OVER. A
 * turn gives those left over one half of its budget, by turns, and the descriptors what remains.
 * Past its budget a descriptor does no more than one system call takes.
 *
 * Thread: one per loop; only loop_wake may be called by others. Owner: the worker. */
#ifndef NET_LOOP_H
#define NET_LOOP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/deadline.h"
#include "base/list.h"
#include "base/status.h"

enum loop_phase {
    LOOP_FLUSH,
    LOOP_REAP,
    LOOP_LEFT_OVER, /* first in the next turn, by turns, until half of its budget is spent */
    LOOP_NEXT_TURN, /* behind those, each in any case; no turn waits while there are such */
    LOOP_PHASES
};

/* What a turn may do, in messages and replies: 1 to 3 ms. Long replies count by their octets, too,
 * as copying and sending those takes its time. */
enum { LOOP_BUDGET = 1024, LOOP_OCTETS_PER_UNIT = 4096 };

enum { LOOP_EVENTS = 128 }; /* of one turn; what is left over comes in the next */

/* A descriptor in the loop; member of the object that handles it, which also closes it. */
struct loop_source {
    int fd;                                                        /* -1: not in the loop */
    void (*on_ready)(struct loop_source *source, uint32_t events); /* EPOLLIN, EPOLLOUT, ... */
};

/* Work for the end of the turn; member of its object. */
struct loop_task {
    struct list link;
    void (*run)(struct loop_task *task);
};

struct loop {
    uint64_t now; /* nanoseconds of CLOCK_BOOTTIME at the start of this turn */
    int epoll_fd;
    struct loop_source wake;
    struct list tasks[LOOP_PHASES];
    struct list queues; /* of struct deadline_queue */
    int32_t budget;     /* what is left of it in this turn */
};

/* A message was taken, or a reply of `length` octets written. */
static inline void loop_spend(struct loop *loop, size_t length)
{
    loop->budget -= 1 + (int32_t)(length / LOOP_OCTETS_PER_UNIT);
}

/* The turn has done what it may: what can wait should. */
static inline bool loop_is_spent(const struct loop *loop)
{
    return loop->budget <= 0;
}

/* The clock that loop->now reads: it counts through suspend, and no one sets it (FAULTS J7). */
uint64_t loop_clock(void);

enum status loop_open(struct loop *loop);
void loop_close(struct loop *loop);

/* Level-triggered. `source->on_ready` and `fd` must be set. STATUS_SYSTEM on failure. */
enum status loop_add(struct loop *loop, struct loop_source *source, int fd, uint32_t events);
enum status loop_change(struct loop *loop, struct loop_source *source, uint32_t events);

/* Takes the descriptor out of the loop without closing it: on_ready is not called again, not even
 * for events of this turn. Harmless when it is not in. (A source that is added again within the
 * turn may still meet such an event.) */
void loop_remove(struct loop *loop, struct loop_source *source);

void loop_task_init(struct loop_task *task, void (*run)(struct loop_task *task));

/* Runs the task once, in that phase; harmless when it is already waiting in any. */
void loop_defer(struct loop *loop, struct loop_task *task, enum loop_phase phase);
void loop_cancel_task(struct loop_task *task);

/* Sets the queue up, as deadline_queue_init, and polls it until loop_remove_queue. */
void loop_add_queue(struct loop *loop, struct deadline_queue *queue, uint64_t duration_ns,
                    void (*on_expire)(struct deadline *deadline, uint64_t now));
void loop_remove_queue(struct deadline_queue *queue);

/* True when there is more to do than one turn has room for. */
bool loop_is_behind(const struct loop *loop);

/* One turn; waits at most `max_wait_ns`. Returns false when epoll_wait failed for another reason
 * than a signal. */
bool loop_turn(struct loop *loop, uint64_t max_wait_ns);

/* Ends the current or next wait. Any thread. */
void loop_wake(struct loop *loop);

#endif
