// SPDX-License-Identifier: Apache-2.0
/* One log line being made: a bounded buffer, as text or JSON, safe for any bytes. */
#ifndef OBSERVE_LOG_LINE_H
#define OBSERVE_LOG_LINE_H

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include "config/config.h"

enum { LOG_LINE_SIZE = 512 }; /* a few long names; well below PIPE_BUF */

struct log_line {
    size_t length;
    char text[LOG_LINE_SIZE];
};

struct log_head {
    enum log_level level;
    const char *event;
    const char *count_key; /* NULL: there is nothing to count */
    uint64_t count;        /* left out when 0 */
};

/* Writes time, level, event, count and the pairs (see log_event; NULL for none), ended by a
 * newline. A line that would be too long is cut at a whole character or pair, and says
 * truncated=true. */
void log_line_compose(struct log_line *line, enum log_format format, const struct log_head *head,
                      va_list pairs);

#endif
