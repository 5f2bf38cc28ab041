// SPDX-License-Identifier: Apache-2.0
/* Log lines: formatted by whoever logs, kept in a bounded ring, written by the main thread.
 *
 * A line is formatted outside the lock into a buffer on the stack; under the lock it is only
 * copied, so a worker waits for no longer than another copy. Stderr keeps its blocking mode,
 * because it is shared with the shell and with whatever else runs there: each write asks poll first
 * and is shorter than PIPE_BUF, for which a pipe that polls writable has room.
 *
 * Thread: any for log_event, main for the rest.   Owner: this file (one ring per process). */
#include "observe/log.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/deadline.h"
#include "observe/log_line.h"

enum {
    LINE_COUNT = 256,
    DIRECT_WAIT_MS = 1000, /* while nothing is served a slow terminal may have a moment */
};
static_assert(LOG_LINE_SIZE <= PIPE_BUF, "a line is one atomic write to a pipe");

static struct {
    pthread_mutex_t lock; /* guards is_open, lines, first, count */
    bool is_open;
    struct log_line lines[LINE_COUNT];
    size_t first;
    size_t count;
    int wake_fd;
    _Atomic int level;
    _Atomic int format;
    _Atomic uint64_t dropped;
    uint64_t dropped_reported; /* main thread, as the next one */
    bool is_torn;              /* the last line written stopped in its middle */
} log_state = {.lock = PTHREAD_MUTEX_INITIALIZER, .wake_fd = -1, .level = LOG_LEVEL_INFO};

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

/* Descriptor 2 closed at start would be given to the next socket, and log lines would be sent
 * there. A null device that refuses writing keeps the place, and lines still count as dropped. */
static void reserve_stderr(void)
{
    if (fcntl(STDERR_FILENO, F_GETFD) >= 0)
        return;
    const int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fd == STDERR_FILENO)
        return;
    dup3(fd, STDERR_FILENO, O_CLOEXEC);
    close(fd);
}

/* ---- the ring ---- */

/* Returns false when the ring is full. */
static bool ring_put(const struct log_line *line)
{
    if (log_state.count == LINE_COUNT)
        return false;
    struct log_line *slot = &log_state.lines[(log_state.first + log_state.count) % LINE_COUNT];
    slot->length = line->length;
    memcpy(slot->text, line->text, line->length);
    if (log_state.count++ == 0)
        eventfd_write(log_state.wake_fd, 1);
    return true;
}

static bool ring_take(struct log_line *out)
{
    pthread_mutex_lock(&log_state.lock);
    const bool is_taken = log_state.count > 0;
    if (is_taken) {
        const struct log_line *slot = &log_state.lines[log_state.first];
        out->length = slot->length;
        memcpy(out->text, slot->text, slot->length);
        log_state.first = (log_state.first + 1) % LINE_COUNT;
        log_state.count--;
    }
    pthread_mutex_unlock(&log_state.lock);
    return is_taken;
}

static void emit(const struct log_line *line)
{
    pthread_mutex_lock(&log_state.lock);
    const bool is_kept = log_state.is_open ? ring_put(line) : write_line(line, DIRECT_WAIT_MS);
    pthread_mutex_unlock(&log_state.lock);
    if (!is_kept)
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
    const struct log_head head = {LOG_LEVEL_WARNING, "log_lines_dropped", "count",
                                  dropped - log_state.dropped_reported};
    compose(scratch, &head, NULL);
    if (write_line(scratch, 0))
        log_state.dropped_reported = dropped;
}

/* ---- public ---- */

enum status log_open(enum log_level level, enum log_format format)
{
    assert(!log_state.is_open);
    reserve_stderr();
    /* A reader that has gone must give EPIPE, not end the service. */
    signal(SIGPIPE, SIG_IGN);
    const int wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (wake_fd < 0)
        return STATUS_SYSTEM;
    atomic_store(&log_state.level, (int)level);
    atomic_store(&log_state.format, (int)format);
    pthread_mutex_lock(&log_state.lock);
    log_state.wake_fd = wake_fd;
    log_state.is_open = true;
    pthread_mutex_unlock(&log_state.lock);
    return STATUS_OK;
}

int log_descriptor(void)
{
    return log_state.wake_fd;
}

void log_drain(void)
{
    /* Reset first: a line that comes from now on wakes us again, or is written below. */
    eventfd_t ignored;
    if (log_state.wake_fd >= 0)
        eventfd_read(log_state.wake_fd, &ignored);

    struct log_line line;
    report_dropped(&line);
    /* Bounded, so that threads that log without end cannot hold the main thread here. */
    for (size_t i = 0; i < LINE_COUNT; i++) {
        if (!ring_take(&line))
            return;
        if (!write_line(&line, 0))
            count_dropped();
    }
    pthread_mutex_lock(&log_state.lock);
    if (log_state.count > 0)
        eventfd_write(log_state.wake_fd, 1);
    pthread_mutex_unlock(&log_state.lock);
}

void log_close(void)
{
    pthread_mutex_lock(&log_state.lock);
    const int wake_fd = log_state.wake_fd;
    log_state.is_open = false;
    pthread_mutex_unlock(&log_state.lock);
    log_drain();
    if (wake_fd >= 0)
        close(wake_fd);
    log_state.wake_fd = -1;
}

static bool is_wanted(enum log_level level)
{
    return (int)level <= atomic_load_explicit(&log_state.level, memory_order_relaxed);
}

void log_event(enum log_level level, const char *event, ...)
{
    if (!is_wanted(level))
        return;
    struct log_line line;
    va_list pairs;
    va_start(pairs, event);
    log_line_compose(&line, current_format(), &(struct log_head){.level = level, .event = event},
                     pairs);
    va_end(pairs);
    emit(&line);
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
    struct log_line line;
    va_list pairs;
    va_start(pairs, event);
    log_line_compose(&line, current_format(),
                     &(struct log_head){level, event, "suppressed", limit->suppressed}, pairs);
    va_end(pairs);
    emit(&line);
    limit->next_ns = now + NANOSECONDS_PER_SECOND;
    limit->suppressed = 0;
}

uint64_t log_dropped(void)
{
    return atomic_load_explicit(&log_state.dropped, memory_order_relaxed);
}
