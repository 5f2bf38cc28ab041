// SPDX-License-Identifier: Apache-2.0
/* The first of several addresses that connects (RFC 8305 5). */
#include "net/race.h"

#include <limits.h>
#include <sys/resource.h>

#include "loop_fixture.h"

struct runner {
    struct race race;
    unsigned won;
    unsigned lost;
    size_t index;
    enum failure failure;
    int fd;
};

static void on_won(struct race *race, int fd, size_t index)
{
    struct runner *runner = CONTAINER_OF(race, struct runner, race);
    runner->won++;
    runner->fd = fd;
    runner->index = index;
}

static void on_lost(struct race *race, enum failure failure)
{
    struct runner *runner = CONTAINER_OF(race, struct runner, race);
    runner->lost++;
    runner->failure = failure;
}

static enum status start_within(struct runner *runner, const struct address *addresses,
                                size_t count, uint64_t connect_ns)
{
    const struct race_timeouts timeouts = {.connect_ns = connect_ns,
                                           .user_ns = NANOSECONDS_PER_SECOND};
    *runner = (struct runner){.race = {.on_won = on_won, .on_lost = on_lost}, .fd = -1};
    return race_start(&runner->race, &loop, addresses, count, timeouts, &runner->failure);
}

static enum status start(struct runner *runner, const struct address *addresses, size_t count)
{
    return start_within(runner, addresses, count, NANOSECONDS_PER_SECOND);
}

static void run(struct runner *runner)
{
    const uint64_t patience = loop_clock() + 10 * NANOSECONDS_PER_SECOND;
    while (runner->won + runner->lost == 0) {
        assert_true(loop_clock() < patience);
        assert_true(loop_turn(&loop, NANOSECONDS_PER_SECOND));
    }
}

static struct address refusing(void)
{
    struct address address;
    close(listen_on_loopback(&address));
    return address;
}

/* Class E, to which Linux knows no way. */
static struct address unroutable(void)
{
    struct address address = any_port("255.255.255.255");
    address.v4.sin_port = htons(853);
    return address;
}

/* A listener whose queue is full: connects to it are never answered. */
struct silence {
    int listener;
    int fillers[3];
    struct address address;
};

static void silence_open(struct silence *silence)
{
    silence->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    silence->address = any_port("127.0.0.1");
    assert_int_equal(bind(silence->listener, &silence->address.any, sizeof(struct sockaddr_in)), 0);
    assert_int_equal(listen(silence->listener, 0), 0);
    silence->address = bound_address(silence->listener);
    for (size_t i = 0; i < 3; i++) {
        silence->fillers[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        (void)connect(silence->fillers[i], &silence->address.any, sizeof(struct sockaddr_in));
    }
}

static void silence_close(struct silence *silence)
{
    close(silence->listener);
    for (size_t i = 0; i < 3; i++)
        close(silence->fillers[i]);
}

static int next_descriptor(void)
{
    const int fd = dup(0);
    assert_true(fd >= 0);
    close(fd);
    return fd;
}

static void RFC_8305_the_first_that_answers_wins(void **state)
{
    (void)state;
    struct runner runner;
    struct address addresses[2];
    const int first = listen_on_loopback(&addresses[0]);
    const int second = listen_on_loopback(&addresses[1]);
    assert_int_equal(start(&runner, addresses, 2), STATUS_OK);
    run(&runner);
    assert_int_equal(runner.won, 1);
    assert_int_equal(runner.index, 0);
    /* The second was never tried. */
    struct pollfd poller = {.fd = second, .events = POLLIN};
    assert_int_equal(poll(&poller, 1, 0), 0);
    assert_true(list_is_empty(&loop.queues));
    race_cancel(&runner.race); /* harmless */
    assert_true(fcntl(runner.fd, F_GETFL) & O_NONBLOCK);
    close(runner.fd);
    close(first);
    close(second);
}

static void RFC_8305_what_fails_costs_no_time(void **state)
{
    (void)state;
    struct runner runner;
    struct address addresses[4] = {unroutable(), refusing(), refusing()};
    const int listener = listen_on_loopback(&addresses[3]);
    const uint64_t begun = loop_clock();
    assert_int_equal(start(&runner, addresses, 4), STATUS_OK);
    run(&runner);
    assert_int_equal(runner.index, 3);
    assert_true(loop_clock() - begun < RACE_STAGGER_NS);
    close(runner.fd);
    close(listener);
}

static void RFC_8305_what_is_silent_costs_a_quarter_of_a_second(void **state)
{
    (void)state;
    struct runner runner;
    struct silence silence;
    silence_open(&silence);
    struct address addresses[2] = {silence.address};
    const int listener = listen_on_loopback(&addresses[1]);
    const int free_before = next_descriptor();
    loop.now = loop_clock();
    const uint64_t begun = loop.now;
    assert_int_equal(start(&runner, addresses, 2), STATUS_OK);
    run(&runner);
    const uint64_t took = loop_clock() - begun;
    assert_int_equal(runner.index, 1);
    assert_true(took >= RACE_STAGGER_NS && took < 4 * RACE_STAGGER_NS);
    close(runner.fd);
    assert_int_equal(next_descriptor(), free_before); /* the other is closed */
    close(listener);
    silence_close(&silence);
}

static void RFC_8305_the_last_address_has_its_chance_before_the_time_is_over(void **state)
{
    (void)state;
    struct runner runner;
    struct silence silence;
    silence_open(&silence);
    struct address addresses[RACE_ADDRESSES_MAX];
    for (size_t i = 0; i < RACE_ADDRESSES_MAX - 1; i++)
        addresses[i] = silence.address;
    const int listener = listen_on_loopback(&addresses[RACE_ADDRESSES_MAX - 1]);
    loop.now = loop_clock();
    const uint64_t begun = loop.now;
    assert_int_equal(start(&runner, addresses, RACE_ADDRESSES_MAX), STATUS_OK);
    assert_true(deadline_queue_next(&runner.race.stagger) - begun < RACE_STAGGER_NS);
    run(&runner);
    assert_int_equal(runner.index, RACE_ADDRESSES_MAX - 1);
    assert_true(runner.race.stagger.duration_ns * RACE_ADDRESSES_MAX < NANOSECONDS_PER_SECOND);
    close(runner.fd);
    /* As short as a connect may be configured to be. */
    assert_int_equal(
        start_within(&runner, addresses, RACE_ADDRESSES_MAX, 10 * NANOSECONDS_PER_MILLISECOND),
        STATUS_OK);
    assert_in_range(runner.race.stagger.duration_ns, 1, 10 * NANOSECONDS_PER_MILLISECOND / 8);
    race_cancel(&runner.race);
    close(listener);
    silence_close(&silence);
}

static void all_fail_one_after_the_other(void **state)
{
    (void)state;
    struct runner runner;
    const struct address addresses[3] = {refusing(), unroutable(), refusing()};
    assert_int_equal(start(&runner, addresses, 3), STATUS_OK);
    run(&runner);
    assert_int_equal(runner.lost, 1);
    assert_int_equal(runner.failure, FAILURE_REFUSED_CONNECTION);
    assert_true(list_is_empty(&loop.queues));
}

static void all_fail_at_once(void **state)
{
    (void)state;
    struct runner runner;
    const struct address addresses[2] = {unroutable(), unroutable()};
    assert_int_equal(start(&runner, addresses, 2), STATUS_SYSTEM);
    assert_int_equal(runner.failure, FAILURE_UNREACHABLE);
    assert_int_equal(runner.won + runner.lost, 0);
    assert_true(list_is_empty(&loop.queues));
}

static void I1_without_descriptors_it_fails_at_once(void **state)
{
    (void)state;
    struct runner runner;
    struct rlimit before;
    const struct address addresses[2] = {refusing(), refusing()};
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    const struct rlimit none = {.rlim_cur = (rlim_t)next_descriptor(), .rlim_max = before.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    const enum status status = start(&runner, addresses, 2);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    assert_int_equal(status, STATUS_SYSTEM);
    assert_int_equal(runner.failure, FAILURE_LOCAL);
}

static void I1_one_address_refuses_and_for_the_other_descriptors_lack(void **state)
{
    (void)state;
    struct runner runner;
    struct rlimit before;
    const struct address addresses[2] = {refusing(), refusing()};
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    const struct rlimit one = {.rlim_cur = (rlim_t)next_descriptor() + 1,
                               .rlim_max = before.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &one), 0);
    const enum status status = start(&runner, addresses, 2);
    deadline_queue_expire(&runner.race.stagger, loop.now + RACE_STAGGER_NS,
                          UINT_MAX); /* its turn */
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    assert_int_equal(status, STATUS_OK);
    run(&runner);
    assert_int_equal(runner.failure, FAILURE_LOCAL);
}

static void a_cancelled_race_calls_nobody_and_holds_nothing(void **state)
{
    (void)state;
    struct runner runner;
    struct silence silence;
    silence_open(&silence);
    struct address addresses[2] = {silence.address};
    const int listener = listen_on_loopback(&addresses[1]);
    const int free_before = next_descriptor();
    assert_int_equal(start(&runner, addresses, 2), STATUS_OK);
    race_cancel(&runner.race);
    assert_int_equal(next_descriptor(), free_before);
    assert_true(list_is_empty(&loop.queues));
    assert_true(loop_turn(&loop, 0));
    assert_int_equal(runner.won + runner.lost, 0);
    struct race zeroed = {0};
    race_cancel(&zeroed);
    close(listener);
    silence_close(&silence);
}

static void a_loop_that_takes_no_more_is_a_local_failure(void **state)
{
    (void)state;
    struct runner runner;
    struct address addresses[1];
    const int listener = listen_on_loopback(&addresses[0]);
    const int epoll_fd = loop.epoll_fd;
    const int free_before = next_descriptor();
    loop.epoll_fd = -1;
    assert_int_equal(start(&runner, addresses, 1), STATUS_SYSTEM);
    loop.epoll_fd = epoll_fd;
    assert_int_equal(runner.failure, FAILURE_LOCAL);
    assert_int_equal(next_descriptor(), free_before);
    close(listener);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(RFC_8305_the_first_that_answers_wins),
        TEST(RFC_8305_what_fails_costs_no_time),
        TEST(RFC_8305_what_is_silent_costs_a_quarter_of_a_second),
        TEST(RFC_8305_the_last_address_has_its_chance_before_the_time_is_over),
        TEST(all_fail_one_after_the_other),
        TEST(all_fail_at_once),
        TEST(I1_without_descriptors_it_fails_at_once),
        TEST(I1_one_address_refuses_and_for_the_other_descriptors_lack),
        TEST(a_cancelled_race_calls_nobody_and_holds_nothing),
        TEST(a_loop_that_takes_no_more_is_a_local_failure),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
