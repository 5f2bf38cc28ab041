// SPDX-License-Identifier: Apache-2.0
/* A worker that cannot be opened: whatever is missing, what was opened is closed again and nothing
 * else is touched; and one that ends without having been asked to. */
#include "test.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/deadline.h"
#include "worker.h"

static atomic_int news;

static void on_news(void)
{
    news++;
}

/* One upstream, which is authenticated by its key alone: it needs no trust. */
static void prepare(struct config *config)
{
    static char label[] = "up";
    const uint64_t second_ns = NANOSECONDS_PER_SECOND;
    *config = (struct config){
        .listener_count = 1,
        .limits = {.queries = 4,
                   .tcp_clients = 4,
                   .upstream_requests = 4,
                   .upstream_connections = 1},
        .snapshot = {.upstreams = {{.label = label, .pin_count = 1, .weight = 1}},
                     .upstream_count = 1,
                     .limits.tcp_clients_per_address = 4,
                     .timeouts = {.query_ns = second_ns,
                                  .connect_ns = second_ns,
                                  .handshake_ns = second_ns,
                                  .request_ns = second_ns,
                                  .idle_ns = second_ns,
                                  .tcp_idle_ns = second_ns,
                                  .tcp_message_ns = second_ns,
                                  .tcp_send_ns = second_ns,
                                  .drain_ns = second_ns}},
    };
    assert_true(address_parse("127.0.0.1:53", 53, &config->listeners[0].address) == STATUS_OK);
    assert_true(address_parse("127.0.0.1:9", 853, &config->snapshot.upstreams[0].address) ==
                STATUS_OK);
}

static enum status open_and_close(struct config *config, int udp_fd, int tcp_fd, bool starts)
{
    struct worker *worker = NULL;
    struct metrics *metrics = metrics_open(1);
    const struct worker_settings settings = {.config = config,
                                             .metrics = metrics,
                                             .udp_fds = &udp_fd,
                                             .tcp_fds = &tcp_fd,
                                             .on_news = on_news};
    const enum status status = worker_open(&settings, &worker);
    if (starts)
        assert_true(worker_start(worker) == STATUS_OK);
    worker_close(worker);
    metrics_close(metrics);
    return status;
}

static void I2_worker_without_upstreams_is_an_error(void **state)
{
    (void)state;
    struct config config;
    prepare(&config);
    config.snapshot.upstreams[0].pin_count = 0; /* nothing to authenticate it by */
    assert_true(open_and_close(&config, -1, -1, false) == STATUS_INVALID);
}

/* epoll takes no regular files. */
static void I2_worker_without_a_listener_is_an_error(void **state)
{
    (void)state;
    struct config config;
    prepare(&config);
    const char *file = "/proc/self/exe";
    assert_true(open_and_close(&config, open(file, O_RDONLY), -1, false) == STATUS_SYSTEM);
    assert_true(open_and_close(&config, -1, open(file, O_RDONLY), false) == STATUS_SYSTEM);
}

static void worker_that_was_never_started_closes(void **state)
{
    (void)state;
    struct config config;
    prepare(&config);
    assert_true(open_and_close(&config, -1, -1, false) == STATUS_OK);
    assert_int_equal(news, 0);
}

/* As when the thread of another could not be made: nobody has drained those that run. */
static void I2_worker_that_nobody_has_drained_ends_when_it_is_closed(void **state)
{
    (void)state;
    struct config config;
    prepare(&config);
    news = 0;
    alarm(20);
    assert_true(open_and_close(&config, -1, -1, true) == STATUS_OK);
    alarm(0);
    assert_int_equal(news, 2); /* it was told to end, and has */
}

static void await_news(const struct worker *worker, int count)
{
    alarm(20);
    while (!worker_has_reloaded(worker) || news < count)
        usleep(1000);
    alarm(0);
}

/* What main frees then is no more looked at. */
static void J1_worker_has_the_snapshot_when_it_says_so(void **state)
{
    (void)state;
    struct config config;
    struct worker *worker = NULL;
    const int no_fd = -1;
    prepare(&config);
    struct metrics *metrics = metrics_open(1);
    const struct worker_settings settings = {.config = &config,
                                             .metrics = metrics,
                                             .udp_fds = &no_fd,
                                             .tcp_fds = &no_fd,
                                             .on_news = on_news};
    news = 0;
    assert_true(worker_open(&settings, &worker) == STATUS_OK);
    assert_true(worker_start(worker) == STATUS_OK);
    assert_true(worker_has_reloaded(worker)); /* nothing is on its way */
    struct snapshot *former = NULL;
    for (int i = 1; i <= 20; i++) {
        struct snapshot *next = malloc(sizeof(*next));
        *next = config.snapshot;
        worker_reload(worker, next);
        await_news(worker, i);
        free(former);
        former = next;
    }
    worker_close(worker);
    free(former);
    metrics_close(metrics);
}

/* A listener that accepts nobody: a connection to it waits for its handshake. */
static int listen_in_vain(struct address *address)
{
    socklen_t size = sizeof(address->v4);
    const int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_true(fd >= 0);
    address->v4 =
        (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    assert_int_equal(bind(fd, &address->any, size), 0);
    assert_int_equal(listen(fd, 16), 0);
    assert_int_equal(getsockname(fd, &address->any, &size), 0);
    return fd;
}

/* Each time another upstream, which the worker opens and lets go. */
static void J1_worker_has_reloaded_when_what_was_removed_has_left(void **state)
{
    (void)state;
    static char labels[20][8];
    static struct snapshot snapshots[20];
    struct config config;
    struct worker *worker = NULL;
    const int no_fd = -1;
    prepare(&config);
    const int fd = listen_in_vain(&config.snapshot.upstreams[0].address);
    struct metrics *metrics = metrics_open(CONFIG_UPSTREAM_SLOTS);
    const struct worker_settings settings = {.config = &config,
                                             .metrics = metrics,
                                             .udp_fds = &no_fd,
                                             .tcp_fds = &no_fd,
                                             .on_news = on_news};
    assert_true(worker_open(&settings, &worker) == STATUS_OK);
    assert_true(worker_start(worker) == STATUS_OK);
    struct snapshot *former = &config.snapshot;
    for (size_t i = 0; i < 20; i++) {
        snprintf(labels[i], sizeof(labels[i]), "up%zu", i);
        snapshots[i] = config.snapshot;
        snapshots[i].upstreams[0].label = labels[i];
        snapshots[i].upstreams[0].slot = 1 - i % 2;
        news = 0;
        worker_reload(worker, &snapshots[i]);
        await_news(worker, 1);
        if (former != &config.snapshot)
            memset(former, 0xa5, sizeof(*former)); /* nobody goes by it */
        former = &snapshots[i];
    }
    worker_close(worker);
    close(fd);
    metrics_close(metrics);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(I2_worker_without_upstreams_is_an_error),
        cmocka_unit_test(I2_worker_without_a_listener_is_an_error),
        cmocka_unit_test(worker_that_was_never_started_closes),
        cmocka_unit_test(J1_worker_has_the_snapshot_when_it_says_so),
        cmocka_unit_test(J1_worker_has_reloaded_when_what_was_removed_has_left),
        cmocka_unit_test(I2_worker_that_nobody_has_drained_ends_when_it_is_closed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
