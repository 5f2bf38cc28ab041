// SPDX-License-Identifier: Apache-2.0
/* Bytes in or out of a stream: appended at the end, taken from the start, in memory that is counted
 * in an account (NULL: none).
 *
 * Thread: one. Owner: the stream. */
#ifndef NET_BUFFER_H
#define NET_BUFFER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/body.h"

/* Zeroed: empty, and without memory. */
struct buffer {
    uint8_t *bytes;
    size_t size;
    size_t start; /* first byte in use */
    size_t end;
};

static inline size_t buffer_length(const struct buffer *buffer)
{
    return buffer->end - buffer->start;
}

/* Moves what is in use to the start. */
void buffer_compact(struct buffer *buffer);

/* Makes room for `room` bytes at the end, `size_max` in all at most, which must do; false when
 * memory is short. */
bool buffer_make_room(struct buffer *buffer, struct output_account *account, size_t room,
                      size_t size_max);

/* The same unless there is room already, as there mostly is. */
static inline bool buffer_reserve(struct buffer *buffer, struct output_account *account,
                                  size_t room, size_t size_max)
{
    return buffer->size - buffer->end >= room || buffer_make_room(buffer, account, room, size_max);
}

/* There is room for them. */
void buffer_append(struct buffer *buffer, const uint8_t *bytes, size_t length);

void buffer_free(struct buffer *buffer, struct output_account *account);

#endif
