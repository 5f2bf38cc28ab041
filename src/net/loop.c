// SPDX-License-Identifier: Apache-2.0
/* The event loop of one worker; net/loop.h tells the shape of a turn.
 *
 * Waits are counted in whole milliseconds, rounded up: a deadline may be met up to a millisecond
 * late, but the loop never spins until it is due. epoll_pwait2 would count nanoseconds, but older
 * kernels and container profiles refuse it, and no deadline here needs it.
 *
 * Thread: one per loop.   Owner: the worker. */
#include "net/loop.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

enum {
    ROUNDS_MAX = 16, /* of end-of-turn work, before the clock and the sockets have their turn */
    EXPIRIES_PER_TURN = 256, /* of one queue: thousands may have been armed at the same time */
    LEFT_OVER_MAX = 1024,    /* tasks of a turn */
};

uint64_t loop_clock(void)
{
    struct timespec time;
    clock_gettime(CLOCK_BOOTTIME, &time);
    return (uint64_t)time.tv_sec * NANOSECONDS_PER_SECOND + (uint64_t)time.tv_nsec;
}

static void wake_ready(struct loop_source *source, uint32_t events)
{
    (void)events;
    eventfd_t count;
    (void)eventfd_read(source->fd, &count);
}

enum status loop_open(struct loop *loop)
{
    *loop = (struct loop){
        .now = loop_clock(), .wake = {.fd = -1, .on_ready = wake_ready}, .budget = LOOP_BUDGET};
    for (int phase = 0; phase < LOOP_PHASES; phase++)
        list_init(&loop->tasks[phase]);
    list_init(&loop->queues);
    loop->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (loop->epoll_fd == -1)
        return STATUS_SYSTEM;
    const int wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (wake_fd == -1)
        goto fail;
    if (loop_add(loop, &loop->wake, wake_fd, EPOLLIN) != STATUS_OK) {
        close(wake_fd);
        goto fail;
    }
    return STATUS_OK;
fail:
    loop_close(loop);
    return STATUS_SYSTEM;
}

void loop_close(struct loop *loop)
{
    const int error = errno;
    if (loop->wake.fd != -1)
        close(loop->wake.fd);
    if (loop->epoll_fd != -1)
        close(loop->epoll_fd);
    loop->wake.fd = -1;
    loop->epoll_fd = -1;
    errno = error;
}

enum status loop_add(struct loop *loop, struct loop_source *source, int fd, uint32_t events)
{
    assert(source->on_ready && source->fd == -1 && fd >= 0);
    struct epoll_event event = {.events = events, .data.ptr = source};
    if (epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, fd, &event) == -1)
        return STATUS_SYSTEM;
    source->fd = fd;
    return STATUS_OK;
}

enum status loop_change(struct loop *loop, struct loop_source *source, uint32_t events)
{
    assert(source->fd != -1);
    struct epoll_event event = {.events = events, .data.ptr = source};
    if (epoll_ctl(loop->epoll_fd, EPOLL_CTL_MOD, source->fd, &event) == -1)
        return STATUS_SYSTEM;
    return STATUS_OK;
}

void loop_remove(struct loop *loop, struct loop_source *source)
{
    if (source->fd == -1)
        return;
    (void)epoll_ctl(loop->epoll_fd, EPOLL_CTL_DEL, source->fd, NULL);
    source->fd = -1;
}

void loop_task_init(struct loop_task *task, void (*run)(struct loop_task *task))
{
    assert(run);
    list_init(&task->link);
    task->run = run;
}

void loop_defer(struct loop *loop, struct loop_task *task, enum loop_phase phase)
{
    assert(task->run && phase < LOOP_PHASES);
    if (!list_is_linked(&task->link))
        list_append(&loop->tasks[phase], &task->link);
}

void loop_cancel_task(struct loop_task *task)
{
    list_remove(&task->link);
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

static bool has_end_of_turn(const struct loop *loop)
{
    return !list_is_empty(&loop->tasks[LOOP_FLUSH]) || !list_is_empty(&loop->tasks[LOOP_REAP]);
}

static bool has_tasks(const struct loop *loop)
{
    return has_end_of_turn(loop) || !list_is_empty(&loop->tasks[LOOP_NEXT_TURN]) ||
           !list_is_empty(&loop->tasks[LOOP_LEFT_OVER]);
}

/* When the first deadline of all queues is due. */
static uint64_t next_deadline(const struct loop *loop)
{
    uint64_t first = DEADLINE_NEVER;
    LIST_EACH (struct deadline_queue, queue, &loop->queues, link) {
        const uint64_t next = deadline_queue_next(queue);
        if (next < first)
            first = next;
    }
    return first;
}

static int wait_ms(const struct loop *loop, uint64_t deadline_ns, uint64_t wait_ns)
{
    if (has_tasks(loop))
        return 0;
    const uint64_t left = deadline_ns > loop->now ? deadline_ns - loop->now : 0;
    if (left < wait_ns)
        wait_ns = left;
    const uint64_t wait =
        wait_ns / NANOSECONDS_PER_MILLISECOND + (wait_ns % NANOSECONDS_PER_MILLISECOND != 0);
    return wait < INT_MAX ? (int)wait : INT_MAX;
}

/* Runs those that wait now; what they put off in turn is left for the next round. */
static void run_tasks(struct loop *loop, enum loop_phase phase)
{
    struct list running;
    list_init(&running);
    list_append_all(&running, &loop->tasks[phase]);
    for (struct list *link; (link = list_take_first(&running)) != NULL;) {
        struct loop_task *task = CONTAINER_OF(link, struct loop_task, link);
        task->run(task);
    }
}

/* A task that puts itself off again is behind the others, and may have its next share in this turn:
 * `count` bounds those that spend nothing. */
static void run_left_over(struct loop *loop)
{
    struct list *left_over = &loop->tasks[LOOP_LEFT_OVER];
    for (int count = 0; count < LEFT_OVER_MAX && loop->budget > LOOP_BUDGET / 2; count++) {
        struct list *first = list_take_first(left_over);
        if (!first)
            return;
        struct loop_task *task = CONTAINER_OF(first, struct loop_task, link);
        task->run(task);
    }
}

/* Each queue is back in the list before its callbacks run, so that they may remove any queue. */
static void expire_deadlines(struct loop *loop)
{
    struct list queues;
    list_init(&queues);
    list_append_all(&queues, &loop->queues);
    for (struct list *link; (link = list_take_first(&queues)) != NULL;) {
        list_append(&loop->queues, link);
        deadline_queue_expire(CONTAINER_OF(link, struct deadline_queue, link), loop->now,
                              EXPIRIES_PER_TURN);
    }
}

/* Objects are freed only by LOOP_REAP, so each source of the batch is still there; one that was
 * removed by an earlier handler has no descriptor any more. */
static void dispatch(const struct epoll_event *batch, int count)
{
    for (int i = 0; i < count; i++) {
        struct loop_source *source = batch[i].data.ptr;
        if (source->fd != -1)
            source->on_ready(source, batch[i].events);
    }
}

bool loop_is_behind(const struct loop *loop)
{
    return loop_is_spent(loop) || !list_is_empty(&loop->tasks[LOOP_LEFT_OVER]);
}

bool loop_turn(struct loop *loop, uint64_t max_wait_ns)
{
    struct epoll_event batch[LOOP_EVENTS];
    /* What is armed in the turn is not due in it, so this holds until its end. */
    const uint64_t deadline_ns = next_deadline(loop);
    const int count =
        epoll_wait(loop->epoll_fd, batch, LOOP_EVENTS, wait_ms(loop, deadline_ns, max_wait_ns));
    if (count == -1 && errno != EINTR)
        return false;
    loop->now = loop_clock();
    loop->budget = LOOP_BUDGET;
    run_left_over(loop);
    run_tasks(loop, LOOP_NEXT_TURN);
    dispatch(batch, count);
    if (loop->now >= deadline_ns)
        expire_deadlines(loop);
    for (int round = 0; round < ROUNDS_MAX && has_end_of_turn(loop); round++) {
        run_tasks(loop, LOOP_FLUSH);
        run_tasks(loop, LOOP_REAP);
    }
    return true;
}

void loop_wake(struct loop *loop)
{
    assert(loop->wake.fd != -1);
    (void)eventfd_write(loop->wake.fd, 1);
}
