// SPDX-License-Identifier: Apache-2.0
/* A worker that cannot be opened: whatever is missing, what was opened is closed again and nothing
 * else is touched. The upstream layer is this file, in place of upstream/group.c. */
#include "test.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "upstream/choose.h"
#include "upstream/submit.h"
#include "worker.h"

static bool group_fails;
static char group_memory;

enum status group_open(const struct group_settings *settings, struct group **out)
{
    (void)settings;
    if (group_fails)
        return STATUS_FULL;
    *out = (struct group *)(void *)&group_memory;
    return STATUS_OK;
}

void group_network_changed(struct group *group)
{
    (void)group;
}

void group_resumed(struct group *group)
{
    (void)group;
}

size_t group_ceiling(const struct group *group)
{
    (void)group;
    return 12345;
}

void group_close(struct group *group)
{
    (void)group;
}

enum status request_submit(struct group *group, struct request *request, enum request_scope scope,
                           enum failure *failure)
{
    (void)group, (void)request, (void)scope, (void)failure;
    return STATUS_NOT_FOUND;
}

enum status request_hedge(struct group *group, const struct request *late, struct request *second)
{
    (void)group, (void)late, (void)second;
    return STATUS_NOT_FOUND;
}

enum status request_move(struct group *group, struct request *lost, const struct request *other)
{
    (void)group, (void)lost, (void)other;
    return STATUS_NOT_FOUND;
}

void request_cancel(struct request *request)
{
    (void)request;
}

const char *group_upstream_label(const struct group *group, size_t index)
{
    (void)group, (void)index;
    return "";
}

bool group_is_down(const struct group *group)
{
    (void)group;
    return false;
}

bool request_is_lost(const struct group *group, const struct request *request)
{
    (void)group, (void)request;
    return false;
}

enum status request_submit_alone(struct group *group, struct request *request, uint32_t avoided,
                                 enum lane_kind kind)
{
    (void)group, (void)request, (void)avoided, (void)kind;
    return STATUS_NOT_FOUND;
}

bool group_park(struct group *group, struct waiter *waiter)
{
    (void)group, (void)waiter;
    return false;
}

bool group_ended_together(const struct group *group, size_t index, uint64_t time_ns)
{
    (void)group;
    (void)index;
    (void)time_ns;
    return false;
}

bool group_vouches(struct group *group, size_t index, uint64_t time_ns)
{
    (void)group, (void)index, (void)time_ns;
    return false;
}

bool group_has_failed(const struct group *group, size_t index, uint64_t time_ns)
{
    (void)group, (void)index, (void)time_ns;
    return false;
}

bool choose_knows_better(const struct group *group, uint32_t erred)
{
    (void)group, (void)erred;
    return false;
}

void choose_contradict(struct group *group, uint32_t erred)
{
    (void)group, (void)erred;
}

static void on_stopped(void)
{
}

static void prepare(struct config *config)
{
    *config = (struct config){.listener_count = 1, .limits = {.queries = 4, .tcp_clients = 4}};
    config->limits.tcp_clients_per_address = 4;
    assert_true(address_parse("127.0.0.1:53", 0, &config->listeners[0].address) == STATUS_OK);
}

static enum status open_with(int udp_fd, int tcp_fd)
{
    static struct config config;
    struct worker *worker = NULL;
    prepare(&config);
    struct metrics *metrics = metrics_open(1);
    const struct worker_settings settings = {.config = &config,
                                             .metrics = metrics,
                                             .udp_fds = &udp_fd,
                                             .tcp_fds = &tcp_fd,
                                             .on_stopped = on_stopped};
    const enum status status = worker_open(&settings, &worker);
    worker_close(worker);
    metrics_close(metrics);
    return status;
}

static void I2_worker_without_upstreams_is_an_error(void **state)
{
    (void)state;
    group_fails = true;
    assert_true(open_with(-1, -1) == STATUS_FULL);
}

/* epoll takes no regular files. */
static void I2_worker_without_a_listener_is_an_error(void **state)
{
    (void)state;
    group_fails = false;
    assert_true(open_with(open("/proc/self/exe", O_RDONLY), -1) == STATUS_SYSTEM);
    assert_true(open_with(-1, open("/proc/self/exe", O_RDONLY)) == STATUS_SYSTEM);
}

static void worker_that_was_never_started_closes(void **state)
{
    (void)state;
    group_fails = false;
    assert_true(open_with(-1, -1) == STATUS_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(I2_worker_without_upstreams_is_an_error),
        cmocka_unit_test(I2_worker_without_a_listener_is_an_error),
        cmocka_unit_test(worker_that_was_never_started_closes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
