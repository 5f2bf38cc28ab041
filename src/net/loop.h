// SPDX-License-Identifier: Apache-2.0
/* The event loop of one worker: epoll, one clock reading a turn, deadlines, and work put off to the
 * end of the turn.
 *
 * A turn: wait; read the clock into loop->now; run what the turn before left with LOOP_NEXT_TURN;
 * call on_ready for each descriptor; expire deadlines; then, until both lists are empty, run the
 * tasks of LOOP_FLUSH (send what the turn has gathered) and those of LOOP_REAP (close and free). So
 * nothing is sent, closed or freed inside an event, and no callback can meet a freed object. Tasks
 * that keep putting off each other are cut after some rounds and go on in the next turn, which then
 * does not wait: no task is lost and no socket starves.
 *
 * Thread: one per loop; only loop_wake may be called by others. Owner: the worker. */
#ifndef NET_LOOP_H
#define NET_LOOP_H

#include <stdbool.h>
#include <stdint.h>

#include "base/deadline.h"
#include "base/list.h"
#include "base/status.h"

enum loop_phase {
    LOOP_FLUSH,
    LOOP_REAP,
    LOOP_NEXT_TURN, /* at the start of the next turn, which then does not wait */
    LOOP_PHASES
};

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
};

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

/* One turn; waits at most `max_wait_ns`. Returns false when epoll_wait failed for another reason
 * than a signal. */
bool loop_turn(struct loop *loop, uint64_t max_wait_ns);

/* Ends the current or next wait. Any thread. */
void loop_wake(struct loop *loop);

#endif
