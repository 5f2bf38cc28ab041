// SPDX-License-Identifier: Apache-2.0
/* Log lines: an event name and pairs of key and value, as text or JSON, on stderr.
 *
 *     2026-11-23T06:12:46.123Z warning upstream_failed upstream=1.1.1.1:853 cause="no answer"
 *     {"time":"2026-11-23T06:12:46.123Z","level":"warning","event":"upstream_failed",...}
 *
 * Any thread may log: the line goes into a bounded queue and the main thread writes it, so a log
 * disk that is full or a reader that has stopped never holds a worker up (FAULTS J6). Lines that
 * find the queue full, or stderr not taking them, are dropped and counted; the next line that gets
 * through is preceded by one that tells how many. No query name and no client address is ever
 * logged above the level debug (RFC 8932, RFC 9076). */
#ifndef OBSERVE_LOG_H
#define OBSERVE_LOG_H

#include <stdint.h>

#include "base/status.h"
#include "config/config.h"

/* At most one line a second for what it guards; the next line tells how many were left out. Zeroed
 * at first. Thread: one, or guarded by its owner. */
struct log_limit {
    uint64_t next_ns;
    uint64_t suppressed;
};

/* Before this call lines are written directly, as text, from level info on. Who calls it has
 * ignored SIGPIPE and filled descriptor 2. */
enum status log_open(enum log_level level, enum log_format format);

/* From here on. Main thread. */
void log_set_level(enum log_level level);

/* What the main thread polls; readable when lines wait. */
int log_descriptor(void);

/* Writes waiting lines to stderr, never waiting for it. Main thread only. */
void log_drain(void);

/* Drains for the last time; later lines are written directly. */
void log_close(void);

/* The pairs are const char * key, const char * value, ..., NULL. A NULL value leaves its pair out.
 * Values are escaped as the format asks; control bytes never reach the terminal. */
void log_event(enum log_level level, const char *event, ...) __attribute__((sentinel));

/* The same, at most once a second for `limit`; a pair suppressed=N is added to the next. */
void log_event_limited(struct log_limit *limit, uint64_t now, enum log_level level,
                       const char *event, ...) __attribute__((sentinel));

/* Lines dropped since the start; for the metrics. */
uint64_t log_dropped(void);

#endif
