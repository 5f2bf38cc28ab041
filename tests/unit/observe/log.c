// SPDX-License-Identifier: Apache-2.0
/* Log lines: their form for any bytes, and a stderr that takes nothing (FAULTS J6). */
#include "test.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "observe/log.h"

/* ---- stderr under our control ---- */

static struct {
    int saved;
    int reader;
} capture;

static void replace_stderr(int fd)
{
    capture.saved = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 100);
    assert_true(capture.saved >= 0);
    assert_int_equal(dup2(fd, STDERR_FILENO), STDERR_FILENO);
}

static void restore_stderr(void)
{
    dup2(capture.saved, STDERR_FILENO);
    close(capture.saved);
}

static void capture_stderr(void)
{
    int ends[2];
    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    capture.reader = ends[0];
    replace_stderr(ends[1]);
    close(ends[1]);
}

/* What was written, as a string; ends the capture. */
static const char *captured(void)
{
    static char text[64 * 1024];
    restore_stderr();
    size_t length = 0;
    ssize_t count;
    while ((count = read(capture.reader, text + length, sizeof(text) - 1 - length)) > 0)
        length += (size_t)count;
    close(capture.reader);
    text[length] = '\0';
    return text;
}

static const char *without_time(const char *line)
{
    return strchr(line, ' ') + 1;
}

/* One line of the event "test" with one pair, as `format` writes it. */
static const char *line_of(enum log_format format, const char *key, const char *value)
{
    capture_stderr();
    const enum status status = log_open(LOG_LEVEL_INFO, format);
    log_event(LOG_LEVEL_INFO, "test", key, value, NULL);
    log_close();
    const char *text = captured();
    assert_int_equal(status, STATUS_OK);
    return text;
}

static bool is_readable(int fd)
{
    struct pollfd poll_one = {.fd = fd, .events = POLLIN};
    return poll(&poll_one, 1, 0) == 1;
}

/* ---- a strict reader of one flat JSON object ---- */

static const char *skip_string(const char *json)
{
    assert_int_equal(*json, '"');
    for (json++; *json != '"'; json++) {
        const unsigned char octet = (unsigned char)*json;
        assert_true(octet >= ' ' && octet != 0x7f);
        if (octet == '\\') {
            json++;
            assert_non_null(strchr("\"\\u", *json));
            if (*json == 'u') {
                assert_int_equal(strspn(json + 1, "0123456789abcdef") >= 4, 1);
                json += 4;
            }
        }
    }
    return json + 1;
}

static void assert_json_line(const char *json)
{
    assert_int_equal(*json, '{');
    do {
        json = skip_string(json + 1);
        assert_int_equal(*json++, ':');
        if (strncmp(json, "true", 4) == 0)
            json += 4;
        else
            json = skip_string(json);
    } while (*json == ',');
    assert_string_equal(json, "}\n");
}

/* ---- form ---- */

static void RFC3339_line_begins_with_utc_time_level_and_event(void **state)
{
    (void)state;
    const char *line = line_of(LOG_FORMAT_TEXT, "upstream", "1.1.1.1:853");
    unsigned int year, month, day, hour, minute, second, millisecond;
    int end = 0;
    assert_int_equal(sscanf(line, "%4u-%2u-%2uT%2u:%2u:%2u.%3uZ %n", &year, &month, &day, &hour,
                            &minute, &second, &millisecond, &end),
                     7);
    assert_in_range(year, 2020, 2200);
    assert_string_equal(line + end, "info test upstream=1.1.1.1:853\n");
}

static void text_quotes_what_a_reader_would_split(void **state)
{
    (void)state;
    static const char *const values[][2] = {
        {"plain", "plain"},
        {"", "\"\""},
        {"two words", "\"two words\""},
        {"a=b", "\"a=b\""},
        {"say \"no\"", "\"say \\\"no\\\"\""},
        {"back\\slash", "\"back\\\\slash\""},
        {"line\nbreak\ttab", "\"line\\nbreak\\ttab\""},
        {"caf\xc3\xa9", "\"caf\xc3\xa9\""},
    };
    for (size_t i = 0; i < sizeof(values) / sizeof(*values); i++) {
        char expected[128];
        snprintf(expected, sizeof(expected), "info test key=%s\n", values[i][1]);
        assert_string_equal(without_time(line_of(LOG_FORMAT_TEXT, "key", values[i][0])), expected);
    }
}

static void text_never_sends_control_bytes_to_a_terminal(void **state)
{
    (void)state;
    /* ESC [2J, DEL, the 8-bit CSI as UTF-8 and bare, a carriage return. */
    const char *line = line_of(LOG_FORMAT_TEXT, "key", "\x1b[2J\x7f\xc2\x9b\x9b\r");
    assert_string_equal(without_time(line), "info test key=\"\\x1b[2J\\x7f\\x9b\\x9b\\x0d\"\n");
}

static void RFC3629_malformed_utf8_is_escaped_octet_by_octet(void **state)
{
    (void)state;
    /* Overlong slash, surrogate, above U+10FFFF, cut short. */
    static const char *const values[][2] = {
        {"\xc0\xaf", "\\xc0\\xaf"},
        {"\xed\xa0\x80", "\\xed\\xa0\\x80"},
        {"\xf4\x90\x80\x80", "\\xf4\\x90\\x80\\x80"},
        {"\xe2\x82", "\\xe2\\x82"},
        {"\xff", "\\xff"},
    };
    for (size_t i = 0; i < sizeof(values) / sizeof(*values); i++) {
        char expected[128];
        snprintf(expected, sizeof(expected), "info test key=\"%s\"\n", values[i][1]);
        assert_string_equal(without_time(line_of(LOG_FORMAT_TEXT, "key", values[i][0])), expected);
    }
}

static void RFC8259_json_is_valid_for_any_octet(void **state)
{
    (void)state;
    for (int octet = 1; octet < 256; octet++) {
        const char value[] = {'a', (char)octet, 'z', '\0'};
        assert_json_line(line_of(LOG_FORMAT_JSON, "key", value));
    }
    const char *line = line_of(LOG_FORMAT_JSON, "key", "\"\\\n\x1b\xff\xf0\x9f\x98\x80\xc2\x85");
    assert_json_line(line);
    assert_non_null(strstr(line, "\"level\":\"info\",\"event\":\"test\",\"key\":\"\\\"\\\\\\u000a"
                                 "\\u001b\\ufffd\xf0\x9f\x98\x80\\u0085\"}\n"));
}

static void line_too_long_is_cut_and_says_so(void **state)
{
    (void)state;
    char value[2000];
    /* Every length around the edge, with characters of one, two and four octets. */
    static const char *const fillers[] = {"x", "\xc3\xa9", "\xf0\x9f\x98\x80", "\x01"};
    for (size_t i = 0; i < sizeof(fillers) / sizeof(*fillers); i++) {
        for (size_t length = 380; length < 520; length++) {
            const size_t step = strlen(fillers[i]);
            memset(value, 'y', sizeof(value));
            for (size_t at = 0; at + step <= length; at += step)
                memcpy(value + length % step + at, fillers[i], step);
            value[length] = '\0';
            const char *line = line_of(LOG_FORMAT_JSON, "key", value);
            assert_json_line(line);
            assert_true(strlen(line) <= 512);
            const bool is_whole = strstr(line, "\"truncated\":true") == NULL;
            assert_true(is_whole ? length < 512 : strlen(line) > 480);
        }
    }
    memset(value, 'x', sizeof(value) - 1);
    value[sizeof(value) - 1] = '\0';
    const char *line = line_of(LOG_FORMAT_TEXT, "key", value);
    assert_string_equal(line + strlen(line) - 16, " truncated=true\n");
}

static void pair_that_has_no_room_is_left_out_whole(void **state)
{
    (void)state;
    char value[460];
    for (size_t length = 400; length < sizeof(value); length++) {
        memset(value, 'x', length);
        value[length] = '\0';
        capture_stderr();
        const enum status status = log_open(LOG_LEVEL_INFO, LOG_FORMAT_JSON);
        log_event(LOG_LEVEL_INFO, "test", "first", value, "a_rather_long_key", "v", "last", "w",
                  NULL);
        log_close();
        const char *line = captured();
        assert_int_equal(status, STATUS_OK);
        assert_json_line(line);
        assert_true(strstr(line, "\"last\":\"w\"") || strstr(line, "\"truncated\":true"));
    }
}

static void null_value_leaves_its_pair_out(void **state)
{
    (void)state;
    capture_stderr();
    log_event(LOG_LEVEL_INFO, "test", "gone", NULL, "kept", "1", NULL);
    assert_string_equal(without_time(captured()), "info test kept=1\n");
}

/* ---- levels, limits, order ---- */

static void lines_before_open_are_written_at_once(void **state)
{
    (void)state;
    capture_stderr();
    log_event(LOG_LEVEL_DEBUG, "hidden", NULL);
    log_event(LOG_LEVEL_ERROR, "shown", NULL);
    assert_string_equal(without_time(captured()), "error shown\n");
}

static void lines_wait_for_the_main_thread_and_keep_their_order(void **state)
{
    (void)state;
    capture_stderr();
    const enum status status = log_open(LOG_LEVEL_DEBUG, LOG_FORMAT_TEXT);
    const bool quiet_at_first = !is_readable(log_descriptor());
    log_event(LOG_LEVEL_DEBUG, "one", NULL);
    log_event(LOG_LEVEL_WARNING, "two", NULL);
    const bool wakes = is_readable(log_descriptor());
    const bool unwritten = !is_readable(capture.reader);
    log_drain();
    const bool quiet_again = !is_readable(log_descriptor());
    log_drain();
    log_close();
    const char *text = captured();
    assert_int_equal(status, STATUS_OK);
    assert_true(quiet_at_first && wakes && unwritten && quiet_again);
    assert_non_null(strstr(text, " debug one\n"));
    assert_non_null(strstr(strstr(text, " debug one\n"), " warning two\n"));
}

static void level_hides_what_is_below_it(void **state)
{
    (void)state;
    struct log_limit limit = {0};
    capture_stderr();
    const enum status status = log_open(LOG_LEVEL_WARNING, LOG_FORMAT_TEXT);
    log_event(LOG_LEVEL_INFO, "hidden", NULL);
    log_event_limited(&limit, 0, LOG_LEVEL_INFO, "hidden", NULL);
    log_event(LOG_LEVEL_WARNING, "shown", NULL);
    log_close();
    assert_string_equal(without_time(captured()), "warning shown\n");
    assert_int_equal(status, STATUS_OK);
    assert_int_equal(limit.next_ns, 0);
}

static void F18_limited_event_comes_once_a_second_and_tells_what_was_left_out(void **state)
{
    (void)state;
    const uint64_t second = UINT64_C(1000000000);
    struct log_limit limit = {0};
    capture_stderr();
    const enum status status = log_open(LOG_LEVEL_INFO, LOG_FORMAT_TEXT);
    for (uint64_t tick = 0; tick <= 20; tick++)
        log_event_limited(&limit, 7 * second + tick * second / 10, LOG_LEVEL_INFO, "down", "k", "v",
                          NULL);
    log_close();
    const char *first = captured();
    assert_int_equal(status, STATUS_OK);
    const char *second_line = strchr(first, '\n') + 1;
    const char *third = strchr(second_line, '\n') + 1;
    assert_memory_equal(without_time(first), "info down k=v\n", 14);
    assert_memory_equal(without_time(second_line), "info down suppressed=9 k=v\n", 27);
    assert_string_equal(without_time(third), "info down suppressed=9 k=v\n");
}

/* ---- J6 ---- */

/* Fills the pipe behind stderr, without changing its blocking mode. */
static void fill_stderr(void)
{
    static const char page[4096];
    struct pollfd poll_one = {.fd = STDERR_FILENO, .events = POLLOUT};
    while (poll(&poll_one, 1, 0) == 1)
        if (write(STDERR_FILENO, page, sizeof(page)) <= 0)
            break;
}

static void J6_reader_that_stopped_costs_lines_not_time(void **state)
{
    (void)state;
    const uint64_t before = log_dropped();
    capture_stderr();
    const enum status status = log_open(LOG_LEVEL_INFO, LOG_FORMAT_TEXT);
    fill_stderr();
    alarm(20); /* a write that blocks ends the test */
    for (int i = 0; i < 10; i++)
        log_event(LOG_LEVEL_INFO, "lost", NULL);
    log_drain();
    const uint64_t dropped = log_dropped() - before;

    char page[4096];
    while (is_readable(capture.reader) && read(capture.reader, page, sizeof(page)) > 0)
        continue;
    log_event(LOG_LEVEL_INFO, "back", NULL);
    log_drain();
    log_close();
    alarm(0);
    const char *text = captured();
    assert_int_equal(status, STATUS_OK);
    assert_int_equal(dropped, 10);
    assert_int_equal(log_dropped() - before, 10);
    assert_non_null(strstr(text, " warning log_lines_dropped count="));
    assert_null(strstr(text, "lost\n"));
    assert_non_null(strstr(text, " info back\n"));
}

static void J6_queue_that_is_full_drops_and_counts(void **state)
{
    (void)state;
    const uint64_t before = log_dropped();
    capture_stderr();
    const enum status status = log_open(LOG_LEVEL_INFO, LOG_FORMAT_TEXT);
    for (int i = 0; i < 2000; i++)
        log_event(LOG_LEVEL_INFO, "line", NULL);
    const uint64_t dropped = log_dropped() - before;
    log_drain();
    log_close(); /* each writes as many lines as it may at once */
    const char *text = captured();
    assert_int_equal(status, STATUS_OK);
    size_t lines = 0;
    for (const char *at = text; (at = strstr(at, " info line\n")) != NULL; at++)
        lines++;
    assert_true(lines > 100);
    assert_int_equal(lines + dropped, 2000);
}

static void J6_reader_that_left_drops_and_counts(void **state)
{
    (void)state;
    const uint64_t before = log_dropped();
    capture_stderr();
    close(capture.reader);
    const enum status status = log_open(LOG_LEVEL_INFO, LOG_FORMAT_TEXT);
    log_event(LOG_LEVEL_INFO, "lost", NULL);
    log_close();
    restore_stderr();
    assert_int_equal(status, STATUS_OK);
    assert_int_equal(log_dropped() - before, 1);
}

static void J6_full_disk_drops_and_counts(void **state)
{
    (void)state;
    const int full = open("/dev/full", O_WRONLY | O_CLOEXEC);
    assert_true(full >= 0);
    const uint64_t before = log_dropped();
    replace_stderr(full);
    const enum status status = log_open(LOG_LEVEL_INFO, LOG_FORMAT_TEXT);
    for (int i = 0; i < 3; i++)
        log_event(LOG_LEVEL_INFO, "lost", NULL);
    log_close();
    restore_stderr();
    close(full);
    assert_int_equal(status, STATUS_OK);
    assert_int_equal(log_dropped() - before, 3);
}

static void J6_line_that_a_full_disk_cut_does_not_join_the_next(void **state)
{
    (void)state;
    char path[] = "/tmp/test-log-XXXXXX";
    const int fd = mkstemp(path);
    assert_true(fd >= 0);
    unlink(path);
    struct rlimit unlimited;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &unlimited), 0);
    const struct rlimit ten = {.rlim_cur = 10, .rlim_max = unlimited.rlim_max};
    signal(SIGXFSZ, SIG_IGN);
    const uint64_t before = log_dropped();
    replace_stderr(fd);
    const enum status status = log_open(LOG_LEVEL_INFO, LOG_FORMAT_TEXT);
    setrlimit(RLIMIT_FSIZE, &ten);
    log_event(LOG_LEVEL_INFO, "cut", NULL);
    log_drain();
    log_event(LOG_LEVEL_INFO, "lost", NULL);
    log_drain();
    setrlimit(RLIMIT_FSIZE, &unlimited);
    log_event(LOG_LEVEL_INFO, "whole", NULL);
    log_close();
    restore_stderr();
    char text[512] = "";
    assert_true(pread(fd, text, sizeof(text) - 1, 0) > 0);
    close(fd);
    assert_int_equal(status, STATUS_OK);
    assert_int_equal(log_dropped() - before, 2);
    assert_int_equal(text[10], '\n');
    assert_null(strstr(text, "lost\n"));
    assert_non_null(strstr(text, " warning log_lines_dropped count="));
    assert_non_null(strstr(text, " info whole\n"));
}

/* ---- threads ---- */

enum { THREADS = 4, LINES_PER_THREAD = 500 };

static void *log_many(void *argument)
{
    for (int i = 0; i < LINES_PER_THREAD; i++)
        log_event(LOG_LEVEL_INFO, "threaded", "who", (const char *)argument, NULL);
    return NULL;
}

static void any_thread_may_log_and_no_line_is_lost_uncounted(void **state)
{
    (void)state;
    static char names[THREADS][2] = {"a", "b", "c", "d"};
    char path[] = "/tmp/test-log-XXXXXX";
    const int fd = mkstemp(path);
    assert_true(fd >= 0);
    unlink(path);
    const uint64_t before = log_dropped();
    replace_stderr(fd);
    const enum status status = log_open(LOG_LEVEL_INFO, LOG_FORMAT_TEXT);
    pthread_t threads[THREADS];
    for (size_t i = 0; i < THREADS; i++)
        pthread_create(&threads[i], NULL, log_many, names[i]);
    for (int i = 0; i < 100; i++) {
        struct pollfd poll_one = {.fd = log_descriptor(), .events = POLLIN};
        poll(&poll_one, 1, 1);
        log_drain();
    }
    for (size_t i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    log_close();
    restore_stderr();
    FILE *file = fdopen(fd, "r");
    rewind(file);
    uint64_t lines = 0;
    char line[1024];
    while (fgets(line, sizeof(line), file))
        lines += strstr(line, " info threaded who=") != NULL;
    fclose(file);
    assert_int_equal(status, STATUS_OK);
    assert_int_equal(lines + log_dropped() - before, THREADS * LINES_PER_THREAD);
}

int main(void)
{
    signal(SIGPIPE, SIG_IGN); /* as main does */
    const struct CMUnitTest tests[] = {
        /* First, because it looks at the state before log_open. */
        cmocka_unit_test(lines_before_open_are_written_at_once),
        cmocka_unit_test(null_value_leaves_its_pair_out),
        cmocka_unit_test(RFC3339_line_begins_with_utc_time_level_and_event),
        cmocka_unit_test(text_quotes_what_a_reader_would_split),
        cmocka_unit_test(text_never_sends_control_bytes_to_a_terminal),
        cmocka_unit_test(RFC3629_malformed_utf8_is_escaped_octet_by_octet),
        cmocka_unit_test(RFC8259_json_is_valid_for_any_octet),
        cmocka_unit_test(line_too_long_is_cut_and_says_so),
        cmocka_unit_test(pair_that_has_no_room_is_left_out_whole),
        cmocka_unit_test(lines_wait_for_the_main_thread_and_keep_their_order),
        cmocka_unit_test(level_hides_what_is_below_it),
        cmocka_unit_test(F18_limited_event_comes_once_a_second_and_tells_what_was_left_out),
        cmocka_unit_test(J6_reader_that_stopped_costs_lines_not_time),
        cmocka_unit_test(J6_queue_that_is_full_drops_and_counts),
        cmocka_unit_test(J6_reader_that_left_drops_and_counts),
        cmocka_unit_test(J6_full_disk_drops_and_counts),
        cmocka_unit_test(J6_line_that_a_full_disk_cut_does_not_join_the_next),
        cmocka_unit_test(any_thread_may_log_and_no_line_is_lost_uncounted),
    };
    return cmocka_run_group_tests_name("observe/log", tests, NULL, NULL);
}
