// SPDX-License-Identifier: Apache-2.0
/* Log lines: formatted by whoever logs, sent through a socket pair, written by the main thread.
 *
 * The socket keeps lines apart and in order, is bounded, never waits, and wakes the main thread:
 * all that a ring with a lock and an eventfd would do. Stderr keeps its blocking mode, because it
 * is shared with the shell and with whatever else runs there: each write asks poll first and is
 * shorter than PIPE_BUF, for which a pipe that polls writable has room.
 *
 * Thread: any for log_event, main for the rest.   Owner: this file (one pair per process, made by
 * the first log_open and never closed, so that no late line can reach another descriptor). */
#include "observe/log.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/deadline.h"
#include "observe/log_line.h"

enum {
    DRAIN_LINES = 256,     /* so that threads that log without end cannot hold the main thread */
    DIRECT_WAIT_MS = 1000, /* while nothing is served a slow terminal may have a moment */
};
static_assert(LOG_LINE_SIZE <= PIPE_BUF, "a line is one atomic write to a pipe");

static struct {
    int pair[2]; /* lines are sent to the first and received from the second */
    _Atomic bool is_open;
    _Atomic int level;
    _Atomic int format;
    _Atomic uint64_t dropped;
    uint64_t dropped_reported; /* main thread, as the next one */
    bool is_torn;              /* the last line written stopped in its middle */
} log_state = {.pair = {-1, -1}, .level = LOG_LEVEL_INFO};

static enum log_format current_format(void)
{
    return (enum log_format)atomic_load_explicit(&log_state.format, memory_order_relaxed);
}

/* ---- stderr ---- */

static bool can_write(int wait_ms)
{
    struct pollfd stderr_poll = {.fd = STDERR_FILENO, .events = POLLOUT};
    return poll(&stderr_poll, 1, wait_ms) == 1 && (stderr_poll.revents & POLLOUT) != 0;
}

/* Returns the octets that stderr took. A disk takes part of a line when it fills up. */
static size_t write_some(const char *text, size_t length, int wait_ms)
{
    assert(length > 0);
    size_t written = 0;
    while (written < length && can_write(wait_ms)) {
        const ssize_t count = write(STDERR_FILENO, text + written, length - written);
        if (count < 0 && errno == EINTR)
            continue;
        if (count <= 0)
            break;
        written += (size_t)count;
    }
    return written;
}

static bool write_line(const struct log_line *line, int wait_ms)
{
    if (log_state.is_torn && write_some("\n", 1, wait_ms) != 1)
        return false;
    const size_t written = write_some(line->text, line->length, wait_ms);
    log_state.is_torn = written > 0 && written < line->length;
    return written == line->length;
}

static void count_dropped(void)
{
    atomic_fetch_add_explicit(&log_state.dropped, 1, memory_order_relaxed);
}

static void emit(const struct log_head *head, va_list pairs)
{
    assert(head->event);
    struct log_line line;
    log_line_compose(&line, current_format(), head, pairs);
    const bool is_taken = log_state.is_open ? send(log_state.pair[0], line.text, line.length, 0) > 0
                                            : write_line(&line, DIRECT_WAIT_MS);
    if (!is_taken)
        count_dropped();
}

static void compose(struct log_line *line, const struct log_head *head, ...)
{
    va_list pairs;
    va_start(pairs, head);
    log_line_compose(line, current_format(), head, pairs);
    va_end(pairs);
}

/* Lines dropped since the last report are told before the next line that gets through. */
static void report_dropped(struct log_line *scratch)
{
    const uint64_t dropped = log_dropped();
    if (dropped == log_state.dropped_reported)
        return;
    assert(dropped > log_state.dropped_reported);
    const struct log_head head = {LOG_LEVEL_WARNING, "log_lines_dropped", "count",
                                  dropped - log_state.dropped_reported};
    compose(scratch, &head, NULL);
    if (write_line(scratch, 0))
        log_state.dropped_reported = dropped;
}

/* ---- public ---- */

enum status log_open(enum log_level level, enum log_format format)
{
    assert(level <= LOG_LEVEL_DEBUG && (format == LOG_FORMAT_TEXT || format == LOG_FORMAT_JSON));
    assert(!log_state.is_open);
    if (log_state.pair[0] < 0 &&
        socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, log_state.pair) != 0)
        return STATUS_SYSTEM;
    log_state.level = (int)level;
    log_state.format = (int)format;
    log_state.is_open = true;
    return STATUS_OK;
}

void log_set_level(enum log_level level)
{
    assert(level <= LOG_LEVEL_DEBUG);
    log_state.level = (int)level;
}

int log_descriptor(void)
{
    return log_state.pair[1];
}

/* False when none is left. */
static bool drain_some(void)
{
    struct log_line line;
    report_dropped(&line);
    for (size_t i = 0; i < DRAIN_LINES; i++) {
        const ssize_t length = recv(log_state.pair[1], line.text, sizeof(line.text), 0);
        if (length <= 0)
            return false;
        line.length = (size_t)length;
        if (!write_line(&line, 0))
            count_dropped();
    }
    return true;
}

void log_drain(void)
{
    assert(log_state.pair[1] >= 0);
    (void)drain_some();
}

void log_close(void)
{
    log_state.is_open = false;
    while (drain_some())
        continue;
}

static bool is_wanted(enum log_level level)
{
    return (int)level <= atomic_load_explicit(&log_state.level, memory_order_relaxed);
}

void log_event(enum log_level level, const char *event, ...)
{
    if (!is_wanted(level))
        return;
    va_list pairs;
    va_start(pairs, event);
    emit(&(struct log_head){.level = level, .event = event}, pairs);
    va_end(pairs);
}

void log_event_limited(struct log_limit *limit, uint64_t now, enum log_level level,
                       const char *event, ...)
{
    if (!is_wanted(level))
        return;
    if (now < limit->next_ns) {
        limit->suppressed++;
        return;
    }
    va_list pairs;
    va_start(pairs, event);
    emit(&(struct log_head){level, event, "suppressed", limit->suppressed}, pairs);
    va_end(pairs);
    limit->next_ns = now + NANOSECONDS_PER_SECOND;
    limit->suppressed = 0;
}

uint64_t log_dropped(void)
{
    return atomic_load_explicit(&log_state.dropped, memory_order_relaxed);
}
