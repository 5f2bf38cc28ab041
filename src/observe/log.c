// SPDX-License-Identifier: Apache-2.0
/* Log lines: formatted by whoever logs, kept in a bounded ring, written by the main thread.
 *
 * A line is formatted outside the lock into a buffer on the stack; under the lock it is only
 * copied, so a worker waits for no longer than another copy. Stderr keeps its blocking mode,
 * because it is shared with the shell and with whatever else runs there: each write asks poll first
 * and is shorter than PIPE_BUF, for which a pipe that polls writable has room.
 *
 * Thread: any for log_event, main for the rest. Owner: this file (one ring per process).
 * RFC: 3339 (time), 3629 (UTF-8), 8259 (JSON). */
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
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/deadline.h"

enum {
    LINE_SIZE = 512, /* a few long names; well below PIPE_BUF */
    LINE_COUNT = 256,
    TAIL_SIZE = 24,        /* room for what closes a line that was cut */
    ESCAPE_SIZE = 8,       /* the longest form of one character, \u001b */
    DIRECT_WAIT_MS = 1000, /* while nothing is served a slow terminal may have a moment */
};
static_assert(LINE_SIZE <= PIPE_BUF, "a line is one atomic write to a pipe");

struct line {
    size_t length;
    char text[LINE_SIZE];
};

/* A line being made. */
struct composer {
    struct writer out;
    bool is_json;
    bool is_cut;
};

struct event {
    enum log_level level;
    const char *name;
    const char *count_key; /* NULL: there is nothing to count */
    uint64_t count;
};

static struct {
    pthread_mutex_t lock; /* guards is_open, lines, first, count */
    bool is_open;
    struct line lines[LINE_COUNT];
    size_t first;
    size_t count;
    int wake_fd;
    _Atomic int level;
    _Atomic int format;
    _Atomic uint64_t dropped;
    uint64_t dropped_reported; /* main thread, as the next one */
    bool is_torn;              /* the last line written stopped in its middle */
} log_state = {.lock = PTHREAD_MUTEX_INITIALIZER, .wake_fd = -1, .level = LOG_LEVEL_INFO};

static const char *const level_names[] = {
    [LOG_LEVEL_ERROR] = "error",
    [LOG_LEVEL_WARNING] = "warning",
    [LOG_LEVEL_INFO] = "info",
    [LOG_LEVEL_DEBUG] = "debug",
};

/* ---- characters ---- */

struct utf8_form {
    uint8_t lead_mask;
    uint8_t lead;
    uint8_t length;
    uint32_t least; /* smaller code points have a shorter form (RFC 3629 3) */
};

static const struct utf8_form utf8_forms[] = {
    {0x80, 0x00, 1, 0}, {0xe0, 0xc0, 2, 0x80}, {0xf0, 0xe0, 3, 0x800}, {0xf8, 0xf0, 4, 0x10000}};

/* The octets of the character at `text`, 0 when it is not UTF-8. Stops at the final NUL, which is
 * no continuation octet. */
static size_t utf8_decode(const uint8_t *text, uint32_t *code_point)
{
    for (size_t i = 0; i < sizeof(utf8_forms) / sizeof(*utf8_forms); i++) {
        const struct utf8_form *form = &utf8_forms[i];
        if ((text[0] & form->lead_mask) != form->lead)
            continue;
        uint32_t code = text[0] & (uint8_t)~form->lead_mask;
        for (size_t octet = 1; octet < form->length; octet++) {
            if ((text[octet] & 0xc0) != 0x80)
                return 0;
            code = code << 6 | (text[octet] & 0x3fU);
        }
        if (code < form->least || code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff))
            return 0;
        *code_point = code;
        return form->length;
    }
    return 0;
}

/* C0, DEL and C1: a terminal may obey any of them. */
static bool is_control(uint32_t code_point)
{
    return code_point < 0x20 || (code_point >= 0x7f && code_point < 0xa0);
}

static size_t escape_text(uint32_t code_point, char out[static ESCAPE_SIZE])
{
    switch (code_point) {
    case '\n':
        return (size_t)snprintf(out, ESCAPE_SIZE, "\\n");
    case '\t':
        return (size_t)snprintf(out, ESCAPE_SIZE, "\\t");
    case '"':
    case '\\':
        return (size_t)snprintf(out, ESCAPE_SIZE, "\\%c", (char)code_point);
    default:
        return (size_t)snprintf(out, ESCAPE_SIZE, "\\x%02x", code_point & 0xff);
    }
}

static size_t escape_json(uint32_t code_point, char out[static ESCAPE_SIZE])
{
    if (code_point == '"' || code_point == '\\')
        return (size_t)snprintf(out, ESCAPE_SIZE, "\\%c", (char)code_point);
    return (size_t)snprintf(out, ESCAPE_SIZE, "\\u%04x", code_point & 0xffff);
}

/* Writes the safe form of the first character of `text` and returns how many octets it was. */
static size_t encode_character(bool is_json, const uint8_t *text, char out[static ESCAPE_SIZE],
                               size_t *out_length)
{
    uint32_t code_point = 0;
    const size_t length = utf8_decode(text, &code_point);
    if (length == 0) {
        *out_length = is_json ? escape_json(0xfffd, out) : escape_text(text[0], out);
        return 1;
    }
    if (is_control(code_point) || code_point == '"' || code_point == '\\') {
        *out_length = is_json ? escape_json(code_point, out) : escape_text(code_point, out);
    } else {
        memcpy(out, text, length);
        *out_length = length;
    }
    return length;
}

/* ---- one line ---- */

static bool needs_quotes(const char *value)
{
    if (*value == '\0')
        return true;
    for (; *value; value++) {
        const uint8_t octet = (uint8_t)*value;
        if (octet <= ' ' || octet >= 0x7f || octet == '"' || octet == '\\' || octet == '=')
            return true;
    }
    return false;
}

static void append(struct composer *composer, const char *text)
{
    write_bytes(&composer->out, text, strlen(text));
}

/* Room for the two quotes is there; one more octet is kept for the closing one. */
static void append_value(struct composer *composer, const char *value)
{
    const char *quote = composer->is_json || needs_quotes(value) ? "\"" : "";
    append(composer, quote);
    for (const uint8_t *next = (const uint8_t *)value; *next;) {
        char encoded[ESCAPE_SIZE];
        size_t length;
        next += encode_character(composer->is_json, next, encoded, &length);
        if (writer_left(&composer->out) <= length) {
            composer->is_cut = true;
            break;
        }
        write_bytes(&composer->out, encoded, length);
    }
    append(composer, quote);
}

static void append_pair(struct composer *composer, const char *key, const char *value)
{
    if (composer->is_cut)
        return;
    const struct writer before = composer->out;
    append(composer, composer->is_json ? ",\"" : " ");
    append(composer, key);
    append(composer, composer->is_json ? "\":" : "=");
    if (composer->out.failed || writer_left(&composer->out) < 3) {
        composer->out = before;
        composer->is_cut = true;
        return;
    }
    append_value(composer, value);
}

static void append_head(struct composer *composer, const struct event *event)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    struct tm utc;
    gmtime_r(&now.tv_sec, &utc);
    char date[32];
    char time[48];
    const size_t date_length = strftime(date, sizeof(date), "%Y-%m-%dT%H:%M:%S", &utc);
    assert(date_length > 0);
    snprintf(time, sizeof(time), "%s.%03ldZ", date, now.tv_nsec / 1000000);

    append(composer, composer->is_json ? "{\"time\":\"" : "");
    append(composer, time);
    append(composer, composer->is_json ? "\",\"level\":\"" : " ");
    append(composer, level_names[event->level]);
    append(composer, composer->is_json ? "\",\"event\":" : " ");
    append_value(composer, event->name);
}

static void append_tail(struct composer *composer)
{
    composer->out.end += TAIL_SIZE;
    if (composer->is_json)
        append(composer, composer->is_cut ? ",\"truncated\":true}\n" : "}\n");
    else
        append(composer, composer->is_cut ? " truncated=true\n" : "\n");
    assert(!composer->out.failed);
}

/* `pairs` may be NULL for none. */
static void compose(struct line *line, const struct event *event, va_list *pairs)
{
    struct composer composer = {
        .out = writer_over((uint8_t *)line->text, sizeof(line->text) - TAIL_SIZE),
        .is_json = atomic_load_explicit(&log_state.format, memory_order_relaxed) == LOG_FORMAT_JSON,
    };
    append_head(&composer, event);
    if (event->count_key && event->count > 0) {
        char count[24];
        snprintf(count, sizeof(count), "%lu", (unsigned long)event->count);
        append_pair(&composer, event->count_key, count);
    }
    const char *key;
    while (pairs && (key = va_arg(*pairs, const char *)) != NULL) {
        const char *value = va_arg(*pairs, const char *);
        if (value)
            append_pair(&composer, key, value);
    }
    append_tail(&composer);
    line->length = writer_length(&composer.out);
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

static bool write_line(const struct line *line, int wait_ms)
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
static bool ring_put(const struct line *line)
{
    if (log_state.count == LINE_COUNT)
        return false;
    struct line *slot = &log_state.lines[(log_state.first + log_state.count) % LINE_COUNT];
    slot->length = line->length;
    memcpy(slot->text, line->text, line->length);
    if (log_state.count++ == 0)
        eventfd_write(log_state.wake_fd, 1);
    return true;
}

static bool ring_take(struct line *out)
{
    pthread_mutex_lock(&log_state.lock);
    const bool is_taken = log_state.count > 0;
    if (is_taken) {
        const struct line *slot = &log_state.lines[log_state.first];
        out->length = slot->length;
        memcpy(out->text, slot->text, slot->length);
        log_state.first = (log_state.first + 1) % LINE_COUNT;
        log_state.count--;
    }
    pthread_mutex_unlock(&log_state.lock);
    return is_taken;
}

static void emit(const struct line *line)
{
    pthread_mutex_lock(&log_state.lock);
    const bool is_kept = log_state.is_open ? ring_put(line) : write_line(line, DIRECT_WAIT_MS);
    pthread_mutex_unlock(&log_state.lock);
    if (!is_kept)
        count_dropped();
}

/* Lines dropped since the last report are told before the next line that gets through. */
static void report_dropped(struct line *scratch)
{
    const uint64_t dropped = log_dropped();
    if (dropped == log_state.dropped_reported)
        return;
    const struct event event = {LOG_LEVEL_WARNING, "log_lines_dropped", "count",
                                dropped - log_state.dropped_reported};
    compose(scratch, &event, NULL);
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

    struct line line;
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
    struct line line;
    va_list pairs;
    va_start(pairs, event);
    compose(&line, &(struct event){.level = level, .name = event}, &pairs);
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
    struct line line;
    va_list pairs;
    va_start(pairs, event);
    compose(&line, &(struct event){level, event, "suppressed", limit->suppressed}, &pairs);
    va_end(pairs);
    emit(&line);
    limit->next_ns = now + NANOSECONDS_PER_SECOND;
    limit->suppressed = 0;
}

uint64_t log_dropped(void)
{
    return atomic_load_explicit(&log_state.dropped, memory_order_relaxed);
}
