// SPDX-License-Identifier: Apache-2.0
/* The event loop: what runs when, that nothing is lost, and that it never spins. */
#include "test.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include "net/loop.h"

enum { SOURCES = 200 };
static const uint64_t MILLISECOND = NANOSECONDS_PER_MILLISECOND;

static struct loop loop;
static char trace[4096];

static int setup(void **state)
{
    (void)state;
    trace[0] = '\0';
    return loop_open(&loop) == STATUS_OK ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    loop_close(&loop);
    return 0;
}

static void note(char letter)
{
    const size_t length = strlen(trace);
    assert_true(length + 1 < sizeof trace);
    trace[length] = letter;
    trace[length + 1] = '\0';
}

/* --- Tasks --- */

struct letter_task {
    struct loop_task task;
    char letter;
    struct letter_task *defers;
    enum loop_phase into;
    int times; /* how often it still defers; -1: always */
    struct letter_task *cancels;
};

static void run_letter(struct loop_task *task)
{
    struct letter_task *letter = CONTAINER_OF(task, struct letter_task, task);
    note(letter->letter);
    if (letter->cancels)
        loop_cancel_task(&letter->cancels->task);
    if (letter->times == 0)
        return;
    letter->times -= letter->times > 0;
    loop_defer(&loop, &letter->defers->task, letter->into);
}

static struct letter_task letter_task(char letter)
{
    return (struct letter_task){.letter = letter};
}

static void init_task(struct letter_task *letter)
{
    loop_task_init(&letter->task, run_letter);
}

static void tasks_run_once_flush_before_reap(void **state)
{
    (void)state;
    struct letter_task a = letter_task('a'), b = letter_task('b'), c = letter_task('c');
    init_task(&a);
    init_task(&b);
    init_task(&c);
    loop_defer(&loop, &c.task, LOOP_REAP);
    loop_defer(&loop, &a.task, LOOP_FLUSH);
    loop_defer(&loop, &b.task, LOOP_FLUSH);
    loop_defer(&loop, &a.task, LOOP_FLUSH); /* waits already */
    loop_defer(&loop, &a.task, LOOP_REAP);
    assert_true(loop_turn(&loop, DEADLINE_NEVER)); /* a turn with tasks does not wait */
    assert_string_equal(trace, "abc");
    assert_true(loop_turn(&loop, 0));
    assert_string_equal(trace, "abc");
}

static void a_reaped_object_may_flush_others_in_the_same_turn(void **state)
{
    (void)state;
    struct letter_task flush = letter_task('f'), reap = letter_task('r');
    init_task(&flush);
    init_task(&reap);
    reap.defers = &flush;
    reap.into = LOOP_FLUSH;
    reap.times = 1;
    loop_defer(&loop, &reap.task, LOOP_REAP);
    assert_true(loop_turn(&loop, 0));
    assert_string_equal(trace, "rf");
}

static void a_cancelled_task_does_not_run_even_in_its_own_round(void **state)
{
    (void)state;
    struct letter_task a = letter_task('a'), b = letter_task('b');
    init_task(&a);
    init_task(&b);
    a.cancels = &b;
    loop_defer(&loop, &a.task, LOOP_FLUSH);
    loop_defer(&loop, &b.task, LOOP_FLUSH);
    assert_true(loop_turn(&loop, 0));
    assert_string_equal(trace, "a");
}

static void next_turn_tasks_run_first_in_a_turn_that_does_not_wait(void **state)
{
    (void)state;
    struct letter_task next = letter_task('n'), flush = letter_task('f');
    init_task(&next);
    init_task(&flush);
    flush.defers = &next;
    flush.into = LOOP_NEXT_TURN;
    flush.times = 1;
    next.defers = &next;
    next.into = LOOP_NEXT_TURN;
    next.times = 1;
    loop_defer(&loop, &flush.task, LOOP_FLUSH);
    assert_true(loop_turn(&loop, DEADLINE_NEVER));
    assert_string_equal(trace, "f");
    assert_true(loop_turn(&loop, DEADLINE_NEVER));
    assert_string_equal(trace, "fn");
    assert_true(loop_turn(&loop, DEADLINE_NEVER));
    assert_string_equal(trace, "fnn");
}

static void tasks_that_defer_each_other_for_ever_are_cut_and_not_lost(void **state)
{
    (void)state;
    struct letter_task flush = letter_task('f'), reap = letter_task('r');
    init_task(&flush);
    init_task(&reap);
    flush.defers = &reap;
    flush.into = LOOP_REAP;
    flush.times = -1;
    reap.defers = &flush;
    reap.into = LOOP_FLUSH;
    reap.times = -1;
    loop_defer(&loop, &flush.task, LOOP_FLUSH);
    assert_true(loop_turn(&loop, DEADLINE_NEVER));
    const size_t first = strlen(trace);
    assert_true(first > 2);
    assert_true(loop_turn(&loop, DEADLINE_NEVER)); /* goes on at once */
    assert_int_equal(strlen(trace), 2 * first);
    loop_cancel_task(&flush.task);
    loop_cancel_task(&reap.task);
}

/* --- The budget --- */

/* A share of work after which it puts itself off. */
struct share_task {
    struct loop_task task;
    size_t length;
    int32_t spent;
};

static void run_share(struct loop_task *task)
{
    struct share_task *share = CONTAINER_OF(task, struct share_task, task);
    const int32_t before = loop.budget;
    loop_spend(&loop, share->length);
    share->spent += before - loop.budget;
    loop_defer(&loop, &share->task, LOOP_LEFT_OVER);
}

static void K6_long_replies_count_by_their_octets(void **state)
{
    (void)state;
    loop.budget = LOOP_BUDGET;
    loop_spend(&loop, 100);
    assert_int_equal(loop.budget, LOOP_BUDGET - 1);
    loop_spend(&loop, 65535);
    assert_int_equal(loop.budget, LOOP_BUDGET - 1 - 16);
    assert_false(loop_is_spent(&loop));
    loop.budget = 1;
    loop_spend(&loop, 65535);
    assert_true(loop_is_spent(&loop));
    assert_true(loop_turn(&loop, 0));
    assert_int_equal(loop.budget, LOOP_BUDGET);
}

static void K5_what_is_left_over_takes_turns_and_half_of_the_budget(void **state)
{
    (void)state;
    struct share_task shares[3];
    for (int i = 0; i < 3; i++) {
        shares[i] = (struct share_task){.length = 65535};
        loop_task_init(&shares[i].task, run_share);
        loop_defer(&loop, &shares[i].task, LOOP_LEFT_OVER);
    }
    assert_true(loop_is_behind(&loop));
    for (int32_t turns = 1; turns <= 10; turns++) {
        assert_true(loop_turn(&loop, DEADLINE_NEVER)); /* does not wait */
        assert_in_range(loop.budget, LOOP_BUDGET / 2 - 17, LOOP_BUDGET / 2);
        for (int i = 0; i < 3; i++)
            assert_in_range(shares[i].spent, turns * LOOP_BUDGET / 6 - 17,
                            turns * (LOOP_BUDGET / 6 + 17));
    }
    for (int i = 0; i < 3; i++)
        loop_cancel_task(&shares[i].task);
    assert_false(loop_is_behind(&loop));
}

/* --- Sources --- */

struct pipe_source {
    struct loop_source source;
    int write_fd;
    struct loop_source *removes;
    int calls;
    uint32_t events;
};

static struct pipe_source pipes[SOURCES];

static void pipe_ready(struct loop_source *source, uint32_t events)
{
    struct pipe_source *self = CONTAINER_OF(source, struct pipe_source, source);
    char byte;
    self->calls++;
    self->events = events;
    assert_int_equal(read(source->fd, &byte, 1), 1);
    if (self->removes)
        loop_remove(&loop, self->removes);
}

static void open_pipes(size_t count)
{
    for (size_t i = 0; i < count; i++) {
        int fds[2];
        assert_int_equal(pipe(fds), 0);
        pipes[i] =
            (struct pipe_source){.source = {.fd = -1, .on_ready = pipe_ready}, .write_fd = fds[1]};
        assert_int_equal(loop_add(&loop, &pipes[i].source, fds[0], EPOLLIN), STATUS_OK);
        assert_int_equal(pipes[i].source.fd, fds[0]);
    }
}

static void close_pipes(size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const int fd = pipes[i].source.fd;
        loop_remove(&loop, &pipes[i].source);
        if (fd != -1)
            close(fd);
        close(pipes[i].write_fd);
    }
}

static void a_ready_source_is_called_with_its_events(void **state)
{
    (void)state;
    open_pipes(1);
    assert_int_equal(write(pipes[0].write_fd, "x", 1), 1);
    assert_true(loop_turn(&loop, DEADLINE_NEVER));
    assert_int_equal(pipes[0].calls, 1);
    assert_int_equal(pipes[0].events, EPOLLIN);
    assert_int_equal(loop_change(&loop, &pipes[0].source, 0), STATUS_OK);
    assert_int_equal(write(pipes[0].write_fd, "x", 1), 1);
    assert_true(loop_turn(&loop, 0));
    assert_int_equal(pipes[0].calls, 1);
    close_pipes(1);
}

static void a_source_removed_in_the_same_batch_is_not_called(void **state)
{
    (void)state;
    open_pipes(2);
    const int fds[2] = {pipes[0].source.fd, pipes[1].source.fd};
    pipes[0].removes = &pipes[1].source;
    pipes[1].removes = &pipes[0].source;
    for (int i = 0; i < 2; i++)
        assert_int_equal(write(pipes[i].write_fd, "x", 1), 1);
    assert_true(loop_turn(&loop, 0));
    assert_int_equal(pipes[0].calls + pipes[1].calls, 1);
    loop_remove(&loop, &pipes[0].source);
    loop_remove(&loop, &pipes[0].source); /* harmless */
    close_pipes(2);
    close(fds[pipes[0].calls]);
    close(fds[pipes[1].calls]);
}

static void more_events_than_a_batch_come_in_the_next_turn(void **state)
{
    (void)state;
    open_pipes(SOURCES);
    for (int i = 0; i < SOURCES; i++)
        assert_int_equal(write(pipes[i].write_fd, "x", 1), 1);
    assert_true(loop_turn(&loop, 0));
    assert_true(loop_turn(&loop, 0));
    for (int i = 0; i < SOURCES; i++)
        assert_int_equal(pipes[i].calls, 1);
    close_pipes(SOURCES);
}

static void a_bad_descriptor_is_refused(void **state)
{
    (void)state;
    struct loop_source source = {.fd = -1, .on_ready = pipe_ready};
    assert_int_equal(loop_add(&loop, &source, 1 << 20, EPOLLIN), STATUS_SYSTEM);
    assert_int_equal(errno, EBADF);
    assert_int_equal(source.fd, -1);
    int fds[2];
    assert_int_equal(pipe(fds), 0);
    source.fd = fds[0]; /* open, but not in the loop */
    assert_int_equal(loop_change(&loop, &source, EPOLLIN), STATUS_SYSTEM);
    close(fds[0]);
    close(fds[1]);
}

static void a_loop_without_descriptors_is_not_opened(void **state)
{
    (void)state;
    struct loop second;
    struct rlimit before;
    const int free_fd = dup(0);
    close(free_fd);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    for (int allowed = 0; allowed < 2; allowed++) {
        const struct rlimit few = {.rlim_cur = (rlim_t)(free_fd + allowed),
                                   .rlim_max = before.rlim_max};
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
        const enum status status = loop_open(&second);
        const int error = errno;
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
        assert_int_equal(status, STATUS_SYSTEM);
        assert_int_equal(error, EMFILE);
        const int now_free_fd = dup(0);
        close(now_free_fd);
        assert_int_equal(now_free_fd, free_fd);
    }
}

static void a_broken_loop_says_so(void **state)
{
    (void)state;
    const int epoll_fd = loop.epoll_fd;
    loop.epoll_fd = -1;
    assert_false(loop_turn(&loop, 0));
    loop.epoll_fd = epoll_fd;
}

/* --- Time --- */

static int expired_count;
static struct deadline_queue *queue_to_remove;

static void expired(struct deadline *deadline, uint64_t now)
{
    assert_true(deadline->armed_ns < now);
    expired_count++;
    if (queue_to_remove)
        loop_remove_queue(queue_to_remove);
}

static void J7_the_clock_counts_through_suspend(void **state)
{
    (void)state;
    struct timespec before, after;
    clock_gettime(CLOCK_BOOTTIME, &before);
    const uint64_t now = loop_clock();
    clock_gettime(CLOCK_BOOTTIME, &after);
    assert_true(now >= (uint64_t)before.tv_sec * NANOSECONDS_PER_SECOND + before.tv_nsec);
    assert_true(now <= (uint64_t)after.tv_sec * NANOSECONDS_PER_SECOND + after.tv_nsec);
}

static void a_deadline_ends_the_wait_without_spinning(void **state)
{
    (void)state;
    static const uint64_t durations[] = {1, 300000, 2500000, 20 * 1000000};
    for (size_t i = 0; i < sizeof durations / sizeof *durations; i++) {
        struct deadline_queue queue;
        struct deadline deadline;
        deadline_init(&deadline);
        loop_add_queue(&loop, &queue, durations[i], expired);
        expired_count = 0;
        assert_true(loop_turn(&loop, 0));
        deadline_arm(&queue, &deadline, loop.now);
        int turns = 0;
        for (; expired_count == 0 && turns < 10; turns++)
            assert_true(loop_turn(&loop, DEADLINE_NEVER));
        assert_int_equal(turns, 1);
        assert_true(loop.now >= deadline.armed_ns + durations[i]);
        loop_remove_queue(&queue);
    }
}

static void K5_thousands_of_deadlines_at_one_time_are_met_in_several_turns(void **state)
{
    (void)state;
    enum { COUNT = 2000 };
    struct deadline_queue many, other;
    static struct deadline deadlines[COUNT], single;
    loop_add_queue(&loop, &many, 1, expired);
    loop_add_queue(&loop, &other, 1, expired);
    for (int i = 0; i < COUNT; i++) {
        deadline_init(&deadlines[i]);
        deadline_arm(&many, &deadlines[i], loop.now);
    }
    deadline_init(&single);
    deadline_arm(&other, &single, loop.now);
    expired_count = 0;
    assert_true(loop_turn(&loop, DEADLINE_NEVER));
    assert_in_range(expired_count, 2, COUNT / 4);
    assert_false(list_is_linked(&single.link));
    for (int turns = 0; turns < 20; turns++)
        assert_true(loop_turn(&loop, list_is_empty(&many.armed) ? 0 : DEADLINE_NEVER));
    assert_int_equal(expired_count, COUNT + 1);
    loop_remove_queue(&many);
    loop_remove_queue(&other);
}

static void the_nearest_deadline_and_the_longest_wait_both_bound_the_wait(void **state)
{
    (void)state;
    struct deadline_queue near, far;
    struct deadline deadlines[2];
    loop_add_queue(&loop, &far, 3600 * NANOSECONDS_PER_SECOND, expired);
    loop_add_queue(&loop, &near, 5 * MILLISECOND, expired);
    expired_count = 0;
    deadline_init(&deadlines[0]);
    deadline_init(&deadlines[1]);
    deadline_arm(&far, &deadlines[0], loop.now);
    assert_true(loop_turn(&loop, MILLISECOND));
    assert_int_equal(expired_count, 0);
    deadline_arm(&near, &deadlines[1], loop.now);
    assert_true(loop_turn(&loop, DEADLINE_NEVER));
    assert_int_equal(expired_count, 1);
    loop_remove_queue(&near);
    loop_remove_queue(&far);
}

static void a_callback_may_remove_any_queue(void **state)
{
    (void)state;
    struct deadline_queue queues[3];
    struct deadline deadlines[3];
    for (size_t i = 0; i < 3; i++) {
        loop_add_queue(&loop, &queues[i], 1, expired);
        deadline_init(&deadlines[i]);
        deadline_arm(&queues[i], &deadlines[i], loop.now);
    }
    expired_count = 0;
    queue_to_remove = &queues[1];
    assert_true(loop_turn(&loop, MILLISECOND));
    queue_to_remove = NULL;
    assert_int_equal(expired_count, 2);
    loop_remove_queue(&queues[0]);
    loop_remove_queue(&queues[2]);
}

/* --- Waking and signals --- */

static bool is_awake(void)
{
    struct pollfd wake = {.fd = loop.wake.fd, .events = POLLIN};
    return poll(&wake, 1, 0) == 1;
}

static void *wake_from_outside(void *argument)
{
    loop_wake(argument);
    return NULL;
}

static void another_thread_ends_the_wait(void **state)
{
    (void)state;
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, wake_from_outside, &loop), 0);
    assert_true(loop_turn(&loop, DEADLINE_NEVER));
    assert_false(is_awake());
    assert_int_equal(pthread_join(thread, NULL), 0);
    loop_wake(&loop);
    loop_wake(&loop);
    assert_true(is_awake());
    assert_true(loop_turn(&loop, DEADLINE_NEVER));
    assert_false(is_awake()); /* two calls, one wake */
}

static void ignore_alarm(int number)
{
    (void)number;
}

static void a_signal_ends_the_turn_in_good_order(void **state)
{
    (void)state;
    const struct sigaction action = {.sa_handler = ignore_alarm};
    const struct itimerval timer = {.it_value = {.tv_usec = 20000},
                                    .it_interval = {.tv_usec = 20000}};
    assert_int_equal(sigaction(SIGALRM, &action, NULL), 0);
    assert_int_equal(setitimer(ITIMER_REAL, &timer, NULL), 0);
    const uint64_t before = loop.now;
    assert_true(loop_turn(&loop, 3600 * NANOSECONDS_PER_SECOND));
    assert_int_equal(setitimer(ITIMER_REAL, &(struct itimerval){0}, NULL), 0);
    assert_true(loop.now > before);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(tasks_run_once_flush_before_reap),
        TEST(a_reaped_object_may_flush_others_in_the_same_turn),
        TEST(a_cancelled_task_does_not_run_even_in_its_own_round),
        TEST(next_turn_tasks_run_first_in_a_turn_that_does_not_wait),
        TEST(tasks_that_defer_each_other_for_ever_are_cut_and_not_lost),
        TEST(K6_long_replies_count_by_their_octets),
        TEST(K5_what_is_left_over_takes_turns_and_half_of_the_budget),
        TEST(a_ready_source_is_called_with_its_events),
        TEST(a_source_removed_in_the_same_batch_is_not_called),
        TEST(more_events_than_a_batch_come_in_the_next_turn),
        TEST(a_bad_descriptor_is_refused),
        TEST(a_loop_without_descriptors_is_not_opened),
        TEST(a_broken_loop_says_so),
        TEST(J7_the_clock_counts_through_suspend),
        TEST(a_deadline_ends_the_wait_without_spinning),
        TEST(K5_thousands_of_deadlines_at_one_time_are_met_in_several_turns),
        TEST(the_nearest_deadline_and_the_longest_wait_both_bound_the_wait),
        TEST(a_callback_may_remove_any_queue),
        TEST(another_thread_ends_the_wait),
        TEST(a_signal_ends_the_turn_in_good_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
