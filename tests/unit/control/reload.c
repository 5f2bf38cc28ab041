// SPDX-License-Identifier: Apache-2.0
/* Reading the configuration anew: all or nothing, one at a time, and what the log says of it. */
#include "test.h"

#include "config_fixture.h"

#include <fcntl.h>

#include "base/deadline.h"
#include "control/reload.h"
#include "control/trusts.h"

static struct {
    struct config *start;
    struct reload reload;
    const struct snapshot *handed_out;
    unsigned hand_outs;
    bool is_taken;
    uint64_t now;
    char log[8192];
} bench;

static void hand_out(const struct snapshot *next, const struct snapshot *former)
{
    assert_ptr_equal(former, reload_snapshot(&bench.reload));
    bench.handed_out = next;
    bench.hand_outs++;
    bench.is_taken = false;
}

static bool is_taken(void)
{
    return bench.is_taken;
}

static uint64_t ceiling(const struct snapshot *snapshot)
{
    return 1000 * snapshot->upstream_count;
}

/* No authority is needed to know the upstream. */
#define PINS "pins: ['AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=']}"
#define PINNED "[{url: 'tls://192.0.2.1', " PINS "]"

static void configure(const char *text)
{
    char whole[4096];
    snprintf(whole, sizeof whole, "%s%s",
             strstr(text, "upstreams:") ? "" : "upstreams: " PINNED "\n", text);
    config_write("dnsproxy.yaml", whole, strlen(whole));
}

static int setup(void **state)
{
    static char *argv[] = {(char *)(uintptr_t) "dnsproxy", (char *)(uintptr_t) "-c",
                           (char *)(uintptr_t) "dnsproxy.yaml", NULL};
    static const struct reload_events events = {
        .hand_out = hand_out, .is_taken = is_taken, .ceiling = ceiling};
    memset(&bench, 0, sizeof bench);
    config_setup(state);
    configure("workers: 3\nlog: {level: error}\n");
    enum command command;
    assert_int_equal(options_load(3, argv, stderr, &command, &bench.start), STATUS_OK);
    struct trusts *trusts = NULL;
    assert_int_equal(trusts_open(&bench.start->snapshot, NULL, stderr, &trusts), STATUS_OK);
    reload_init(&bench.reload, 3, argv, bench.start, trusts, &events);
    bench.now = 1000 * NANOSECONDS_PER_SECOND;
    return 0;
}

static int teardown(void **state)
{
    reload_close(&bench.reload);
    config_free(bench.start);
    return config_teardown(state);
}

/* One call, with what it logs in bench.log. */
static uint64_t run(void)
{
    int ends[2];
    assert_int_equal(pipe2(ends, O_CLOEXEC | O_NONBLOCK), 0);
    const int saved = dup(STDERR_FILENO);
    assert_int_equal(dup2(ends[1], STDERR_FILENO), STDERR_FILENO);
    const uint64_t wait_ns = reload_run(&bench.reload, bench.now);
    assert_int_equal(dup2(saved, STDERR_FILENO), STDERR_FILENO);
    const ssize_t length = read(ends[0], bench.log, sizeof bench.log - 1);
    bench.log[length > 0 ? length : 0] = '\0';
    close(saved);
    close(ends[0]);
    close(ends[1]);
    return wait_ns;
}

static size_t count_in_log(const char *part)
{
    size_t count = 0;
    for (const char *at = bench.log; (at = strstr(at, part)); at++)
        count++;
    return count;
}

static enum log_level level_in_force(void)
{
    return reload_snapshot(&bench.reload)->log_level;
}

/* From the wish to the end, a second later. */
static void reload_with(const char *text)
{
    configure(text);
    bench.now += 2 * NANOSECONDS_PER_SECOND;
    reload_ask(&bench.reload);
    (void)run();
    bench.is_taken = true;
}

static void nothing_happens_unasked(void **state)
{
    (void)state;
    assert_int_equal(run(), DEADLINE_NEVER);
    assert_string_equal(bench.log, "");
    assert_int_equal(bench.reload.generation, 1);
    assert_ptr_equal(reload_snapshot(&bench.reload), &bench.start->snapshot);
}

static void J1_snapshot_is_in_force_when_all_have_taken_it(void **state)
{
    (void)state;
    configure("workers: 3\nlog: {level: warning}\n");
    reload_ask(&bench.reload);
    assert_int_equal(run(), DEADLINE_NEVER);
    assert_int_equal(bench.hand_outs, 1);
    assert_int_equal(bench.handed_out->log_level, LOG_LEVEL_WARNING);
    assert_int_equal(level_in_force(), LOG_LEVEL_ERROR);
    assert_int_equal(count_in_log(" info reloading memory_ceiling_bytes=1000\n"), 1);
    (void)run();
    assert_int_equal(bench.reload.generation, 1);
    bench.is_taken = true;
    (void)run();
    assert_ptr_equal(reload_snapshot(&bench.reload), bench.handed_out);
    assert_int_equal(bench.reload.generation, 2);
    assert_int_equal(count_in_log(" info reloaded generation=2 memory_ceiling_bytes=1000\n"), 1);
    assert_false(bench.reload.has_failed);
    (void)run();
    assert_string_equal(bench.log, "");
}

static void J1_broken_file_changes_nothing_and_says_where(void **state)
{
    (void)state;
    reload_with("log: {level: debug}\nallow: [10.0.0.0/33]\ncache: {siez: 1MiB}\n");
    assert_int_equal(bench.hand_outs, 0);
    assert_true(bench.reload.has_failed);
    assert_int_equal(level_in_force(), LOG_LEVEL_ERROR);
    assert_int_equal(bench.reload.generation, 1);
    assert_int_equal(count_in_log(" error not_reloaded cause="), 2);
    assert_int_equal(count_in_log("dnsproxy.yaml:3:9: allow: "), 1);
    assert_int_equal(count_in_log("dnsproxy.yaml:4:9: "), 1);
    reload_with("workers: 3\nlog: {level: info}\n"); /* and the way back is open */
    (void)run();
    assert_false(bench.reload.has_failed);
    assert_int_equal(level_in_force(), LOG_LEVEL_INFO);
}

static void J1_problems_logged_are_few(void **state)
{
    (void)state;
    char text[1024] = "allow: [";
    for (int i = 0; i < 50; i++)
        strcat(text, "x, ");
    strcat(text, "x]\n");
    reload_with(text);
    assert_int_equal(count_in_log("not_reloaded"), 8 + 1);
    assert_int_equal(count_in_log("there are more errors"), 1);
}

/* What a start would refuse is refused. */
static void J1_authorities_that_cannot_be_read_are_an_error(void **state)
{
    (void)state;
    reload_with("workers: 3\ntls: {ca: ca.pem}\nlog: {level: debug}\n");
    assert_int_equal(count_in_log(" error not_reloaded cause="), 1);
    assert_int_equal(count_in_log("ca.pem"), 1);
    assert_int_equal(level_in_force(), LOG_LEVEL_ERROR);
}

static size_t slot_of(const struct snapshot *snapshot, const char *label)
{
    for (size_t i = 0; i < snapshot->upstream_count; i++)
        if (strcmp(snapshot->upstreams[i].label, label) == 0)
            return snapshot->upstreams[i].slot;
    fail_msg("%s is not there", label);
    return SIZE_MAX;
}

static void J1_upstreams_come_and_go_and_are_logged(void **state)
{
    (void)state;
    reload_with("upstreams: [{url: 'tls://192.0.2.2', " PINS ", {url: 'tls://192.0.2.1', " PINS
                "]\nworkers: 3\nstrategy: ordered\n");
    assert_int_equal(count_in_log(" info upstream_added upstream=192.0.2.2:853\n"), 1);
    assert_int_equal(count_in_log(" info reloading memory_ceiling_bytes=2000\n"), 1);
    assert_int_equal(count_in_log(" info "), 2);
    const struct snapshot *next = bench.handed_out;
    assert_int_equal(slot_of(next, "192.0.2.1:853"), 0);
    assert_int_equal(slot_of(next, "192.0.2.2:853"), 1);
    (void)run();
    assert_int_equal(count_in_log("memory_ceiling_bytes=2000\n"), 1);
    assert_int_equal(reload_snapshot(&bench.reload)->strategy, STRATEGY_ORDERED);
    reload_with("upstreams: [{url: 'tls://192.0.2.3', " PINS "]\nworkers: 3\n");
    assert_int_equal(count_in_log(" info reloading memory_ceiling_bytes=2000\n"), 1);
    assert_int_equal(count_in_log(" info upstream_removed upstream=192.0.2.1:853\n"), 1);
    assert_int_equal(count_in_log(" info upstream_removed upstream=192.0.2.2:853\n"), 1);
    assert_int_equal(count_in_log(" info upstream_added upstream=192.0.2.3:853\n"), 1);
    assert_int_equal(slot_of(bench.handed_out, "192.0.2.3:853"), 2);
}

static void J1_what_needs_a_restart_is_named_and_left(void **state)
{
    (void)state;
    reload_with("workers: 4\ncache: {size: 1MiB}\nlog: {level: debug}\n");
    assert_int_equal(count_in_log(" warning restart_needed keys=\"workers cache.size\""), 1);
    (void)run();
    assert_int_equal(level_in_force(), LOG_LEVEL_DEBUG);
    reload_with("workers: 4\nlog: {level: debug}\n"); /* beside the start, not the last reload */
    assert_int_equal(count_in_log("keys=workers "), 1);
    assert_int_equal(bench.reload.left, 1);
    (void)run();
    reload_with("workers: 3\n");
    assert_int_equal(count_in_log("restart_needed"), 0);
    assert_int_equal(bench.reload.left, 0);
}

/* The last wish is for what the file was then, or later. */
static void J1_wishes_of_a_second_are_one_reload(void **state)
{
    (void)state;
    reload_with("workers: 3\nlog: {level: warning}\n");
    configure("workers: 3\nlog: {level: debug}\n");
    for (int i = 0; i < 100; i++)
        reload_ask(&bench.reload);
    assert_int_equal(run(), NANOSECONDS_PER_SECOND);
    assert_int_equal(bench.hand_outs, 1);
    bench.now += NANOSECONDS_PER_SECOND - 1;
    assert_int_equal(run(), 1);
    bench.now += 1;
    assert_int_equal(run(), DEADLINE_NEVER);
    assert_int_equal(bench.hand_outs, 2);
    bench.is_taken = true;
    (void)run();
    assert_int_equal(level_in_force(), LOG_LEVEL_DEBUG);
    bench.now += 10 * NANOSECONDS_PER_SECOND;
    (void)run();
    assert_int_equal(bench.hand_outs, 2);
}

/* However long a worker takes: there are two at most. */
static void J1_next_one_waits_for_the_workers(void **state)
{
    (void)state;
    reload_with("workers: 3\nlog: {level: warning}\n");
    bench.is_taken = false;
    configure("workers: 3\nlog: {level: debug}\n");
    reload_ask(&bench.reload);
    for (int i = 0; i < 10; i++) {
        bench.now += NANOSECONDS_PER_SECOND;
        assert_int_equal(run(), DEADLINE_NEVER);
        assert_int_equal(bench.hand_outs, 1);
    }
    bench.is_taken = true;
    (void)run();
    assert_int_equal(bench.hand_outs, 2);
    assert_int_equal(level_in_force(), LOG_LEVEL_WARNING);
}

static void J1_end_comes_in_the_midst_of_one(void **state)
{
    (void)state;
    reload_with("workers: 3\nlog: {level: warning}\n");
    (void)run();
    reload_with("workers: 3\nlog: {level: debug}\n");
    assert_non_null(bench.reload.next);
    assert_non_null(bench.reload.current); /* both are freed */
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(nothing_happens_unasked),
        TEST(J1_snapshot_is_in_force_when_all_have_taken_it),
        TEST(J1_broken_file_changes_nothing_and_says_where),
        TEST(J1_problems_logged_are_few),
        TEST(J1_authorities_that_cannot_be_read_are_an_error),
        TEST(J1_upstreams_come_and_go_and_are_logged),
        TEST(J1_what_needs_a_restart_is_named_and_left),
        TEST(J1_wishes_of_a_second_are_one_reload),
        TEST(J1_next_one_waits_for_the_workers),
        TEST(J1_end_comes_in_the_midst_of_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
